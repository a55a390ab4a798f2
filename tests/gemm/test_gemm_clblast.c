/* SPDX-License-Identifier: MIT */
/* tests/gemm/test_gemm_clblast.c - the clblast engine against the obvious product. Slow:
 * on a CPU device CLBlast's kernels take the better part of a minute to compile.        */
#include "tests/gemm/gemm_oracle.h"

static void clblast_agrees_with_the_obvious_product(void)
{
    dev_device *d = NULL;
    gemm_context *c = NULL;
    if (dev_open(&d, "cpu:0")) {
        check_skip("no CPU device: %s", gt_message());
        return;
    }
    gt_status st = gemm_context_create(&c, d, "clblast");
    if (st == GT_UNSUPPORTED)
        check_skip("%s", gt_message());
    else if (CHECK_OK(st)) {
        for (int trans = 0; trans < 4; trans++) {
            gemm_desc g = {
                .M = 33, .N = 65, .K = 31, .trans_a = trans & 1, .trans_b = trans >> 1, .add = trans & 1, .ldc = 70
            };
            gemm_case(c, d, &g, 1);
            g.add = 0;
            g.bias = g.residual = 1;
            g.act = ACT_GELU_TANH;
            gemm_case(c, d, &g, 0);
        }
        const gemm_desc batched = {
            .M = 20, .N = 30, .K = 40, .batch = 3, .stride_a = 800, .stride_b = 1200, .stride_c = 600
        };
        gemm_case(c, d, &batched, 1);
    }
    gemm_context_release(c);
    dev_close(d);
}

const check_case check_cases[] = { CASE(clblast_agrees_with_the_obvious_product), { 0 } };
