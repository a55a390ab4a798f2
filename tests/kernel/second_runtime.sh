#!/bin/bash
# SPDX-License-Identifier: MIT
# tests/kernel/second_runtime.sh - kernels, and sums of gradients in place, on a second OpenCL implementation.
. "$(dirname "$0")/second_runtime_checks.sh"

run cpu kernel/test_kernel
run gpu kernel/test_kernel
run '' sync/test_sync
run '' sync/test_residuals
run '' sync/test_encodings
close_runs
