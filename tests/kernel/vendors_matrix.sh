#!/bin/bash
# SPDX-License-Identifier: MIT
# tests/kernel/vendors_matrix.sh - what multiplies by matrix units, compiled as vendors.sh has the other kernels.
exec bash "$(dirname "$0")/vendors.sh" matrix
