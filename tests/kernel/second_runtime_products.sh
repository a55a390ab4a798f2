#!/bin/bash
# SPDX-License-Identifier: MIT
# tests/kernel/second_runtime_products.sh - matrix products, on a second OpenCL implementation.
. "$(dirname "$0")/second_runtime_checks.sh"

run '' gemm/test_gemm
run '' gemm/test_gemm_matrix
close_runs
