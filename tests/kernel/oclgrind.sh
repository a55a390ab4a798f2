#!/bin/bash
# SPDX-License-Identifier: MIT
# tests/kernel/oclgrind.sh - the kernel tests at tiny sizes inside oclgrind, an interpreter that
# watches every access: out of bounds, races between work-items, barriers that not all reach,
# use of what was never written.
#
# It misreads optimized code when it tracks uninitialized values, so that pass compiles without
# optimization. Work-groups of 32 make every loop over a group's tile go round at these sizes.
. "$(dirname "$0")/oclgrind_checks.sh"

kernels=tests/kernel/test_kernel
watch cpu $kernels -- --data-races
watch gpu $kernels -- --data-races --max-wgsize 32
watch cpu $kernels -- --uninitialized --build-options -cl-opt-disable
watch gpu $kernels every_case_matches_in_fp32 -- \
    --uninitialized --build-options -cl-opt-disable --max-wgsize 32
close_watch
