/* SPDX-License-Identifier: MIT */
/* tests/gemm/gemm_oracle.h - products as one would write them on paper, and a case that runs
 * an engine against them: operands with padding, guard words around and inside C.       */
#ifndef TESTS_GEMM_ORACLE_H
#define TESTS_GEMM_ORACLE_H

#include "tests/check.h"

#include "host/gemm/gemm.h"

/* Runs `g` on random operands with engine context `c` and compares every element; with
 * `flip`, through the list's add slot as well. Returns 1 if all held. */
int gemm_case(gemm_context *c, dev_device *d, const gemm_desc *g, int flip);
/* The same: with no buffer for what an activation is applied to; with C's own as the residual. */
enum { GEMM_NO_PRE = 1, GEMM_IN_PLACE = 2 };
int gemm_case_with(gemm_context *c, dev_device *d, const gemm_desc *g, int flip, int how);

#endif
