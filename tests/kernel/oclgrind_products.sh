#!/bin/bash
# SPDX-License-Identifier: MIT
# tests/kernel/oclgrind_products.sh - matrix products inside oclgrind, as oclgrind.sh has the other kernels.
#
# They have fixed groups of 256 work-items, and choose the style of their kernels themselves; oclgrind calls itself a GPU.
. "$(dirname "$0")/oclgrind_checks.sh"

watch gpu tests/gemm/test_gemm -- --data-races
watch gpu tests/gemm/test_gemm_matrix -- --data-races
close_watch
