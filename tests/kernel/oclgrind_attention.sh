#!/bin/bash
# SPDX-License-Identifier: MIT
# tests/kernel/oclgrind_attention.sh - attention inside oclgrind, as oclgrind.sh has the other kernels.
#
# It has fixed groups of work-items, and its kernels choose their style themselves; oclgrind calls itself a GPU.
. "$(dirname "$0")/oclgrind_checks.sh"

watch gpu tests/attention/test_attention -- --data-races
# Sub-groups of 8 by software want more local memory than 32 KiB.
watch gpu tests/attention/test_attention_matrix -- --data-races --local-mem-size 65536
close_watch
