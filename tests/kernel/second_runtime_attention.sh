#!/bin/bash
# SPDX-License-Identifier: MIT
# tests/kernel/second_runtime_attention.sh - attention, on a second OpenCL implementation.
. "$(dirname "$0")/second_runtime_checks.sh"

run '' attention/test_attention
run '' attention/test_attention_matrix
close_runs
