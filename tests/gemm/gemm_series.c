/* SPDX-License-Identifier: MIT */
/* tests/gemm/gemm_series.c - see gemm_series.h. */
#include "tests/gemm/gemm_series.h"

#include "tests/device/styled.h"

#include <stdlib.h>
#include <string.h>

const int sizes[SIZES] = { 1, 2, 31, 32, 33, 63, 64, 65, 100, 129 };
const dtype types[3] = { DTYPE_F32, DTYPE_BF16, DTYPE_F16 };

int place_open(place *p, const char *style, const char *engine)
{
    gemm_prepare_process();
    *p = (place){ .d = styled_device(style) };
    if (!p->d)
        return 0;
    const gt_status st = gemm_context_create(&p->c, p->d, engine);
    if (st == GT_UNSUPPORTED) {
        check_skip("%s", gt_message());
        dev_close(p->d);
        return 0;
    }
    return CHECK_OK(st);
}

void place_close(place *p)
{
    gemm_context_release(p->c);
    dev_close(p->d);
}

void all_sizes(place *p, dtype in, dtype out, int trans_step)
{
    int good = 1;
    for (int i = 0; i < (check_tiny() ? 3 : SIZES) && good; i++)
        for (int trans = 0; trans < 4 && good; trans += trans_step) {
            const gemm_desc g = {
                .M = sizes[i],
                .N = sizes[(3 * i + trans) % SIZES],
                .K = sizes[(7 * i + 2 * trans + 1) % (check_tiny() ? 4 : SIZES)],
                .trans_a = trans & 1,
                .trans_b = trans >> 1,
                .a_type = in,
                .b_type = in,
                .c_type = out,
                .add = i & 1,
                .alpha = i % 3 ? 0.0f : 0.5f,
            };
            good = gemm_case(p->c, p->d, &g, 1);
        }
}

void large_sizes(place *p, dtype type)
{
    static const int large[][3] = { { 7, 300, 521 }, { 401, 70, 130 }, { 200, 193, 600 } };
    int good = 1;
    for (int i = 0; i < 3 && good; i++)
        for (int trans = 0; trans < 4 && good; trans++) {
            const gemm_desc g = {
                .M = large[i][0],
                .N = large[i][1],
                .K = large[i][2],
                .trans_a = trans & 1,
                .trans_b = trans >> 1,
                .a_type = type,
                .b_type = type,
                .c_type = type,
                .bias = i == 2,
                .residual = i == 2,
            };
            good = gemm_case(p->c, p->d, &g, 0);
        }
}

void padding_and_batches(place *p, dtype type)
{
    int good = 1;
    for (int trans = 0; trans < 4 && good; trans++)
        for (int odd = 0; odd < 2 && good; odd++) {
            const int M = 33, N = 65, K = 31, pad = odd ? 3 : 4;
            const int a_rows = trans & 1 ? K : M, a_width = trans & 1 ? M : K;
            const int b_rows = trans >> 1 ? N : K, b_width = trans >> 1 ? K : N;
            gemm_desc g = {
                .M = M,
                .N = N,
                .K = K,
                .trans_a = trans & 1,
                .trans_b = trans >> 1,
                .a_type = type,
                .b_type = type,
                .c_type = type,
                .lda = a_width + pad,
                .ldb = b_width + pad,
                .ldc = N + pad,
                .batch = 3,
            };
            g.stride_a = a_rows * g.lda + 5;
            g.stride_b = odd ? 0 : b_rows * g.ldb + 8;      /* one B for the whole batch */
            g.stride_c = M * g.ldc + 7;
            good = gemm_case(p->c, p->d, &g, 1);
            g.bias = g.residual = 1;
            g.act = ACT_GELU_TANH;
            g.drop_p = trans ? 0.0f : 0.25f;
            good = good && gemm_case(p->c, p->d, &g, 0);
        }
}

void epilogues(place *p, dtype type)
{
    int good = 1;
    for (int i = check_tiny() ? 2 : 0; i < (check_tiny() ? 3 : SIZES) && good; i++)
        for (int e = 0; e < 32 && good; e += i % 3 ? 5 : 1) {
            const gemm_desc g = {
                .M = sizes[(i + e) % (check_tiny() ? 3 : SIZES)],
                .N = sizes[i],
                .K = 17,
                .a_type = type,
                .b_type = type,
                .c_type = type,
                .bias = e & 1,
                .act = e & 2 ? ACT_GELU_TANH : ACT_NONE,
                .act_grad = e & 4 ? ACT_GELU_TANH : ACT_NONE,
                .drop_p = e & 8 ? 0.4f : 0.0f,
                .drop_stream = 5,
                /* Beyond the counter's 32 bits; within a quad, and at the start of one. */
                .drop_sequence = (INT64_C(1) << 31) + i,
                .residual = e >> 4 & 1,
            };
            good = gemm_case(p->c, p->d, &g, 0);
        }
}
