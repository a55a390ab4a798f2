/* SPDX-License-Identifier: MIT */
/* tests/kernel/matrix_work.c - the work whose instructions tests/bench/instructions.sh counts, in bf16 on the best device.
 *
 *   matrix_work product ENGINE M N K     one product, B transposed
 *   matrix_work many ENGINE K            one so large that every compute unit has two blocks of 128 x 128; tells how many
 *   matrix_work attention T D            one causal head, forward and backward, by the kernel and by the matrix unit
 *
 * Results are checked, as by `geartrain bench`, whose measuring of peaks would take an emulated device minutes. */
#include "host/attention/attention.h"
#include "host/base/status.h"
#include "host/device/device.h"
#include "host/gemm/gemm.h"
#include "host/kernel/kernel.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void product_done(void *context, const gemm_result *r)
{
    (void)context;
    printf("by %s, error %g\n", r->engine, r->error);
}

static void attention_done(void *context, const attention_result *r)
{
    (void)context;
    printf("%s by %s\n", r->gradient ? "gradient" : "forward", r->engine);
}

static gt_status product(dev_device *d, const char *engine, int M, int N, int K)
{
    const gemm_desc g = {
        .M = M, .N = N, .K = K, .trans_b = 1, .a_type = DTYPE_BF16, .b_type = DTYPE_BF16, .c_type = DTYPE_BF16
    };
    gemm_context *c = NULL;
    gt_status st = gemm_context_create(&c, d, engine);
    if (!st)
        st = gemm_bench(c, &g, 1, 0.0, product_done, NULL);
    gemm_context_release(c);
    return st;
}

static gt_status attention(dev_device *d, int T, int D)
{
    const kernel_attention_shape s = { .B = 1, .T = T, .H = 1, .KV = 1, .D = D, .causal = 1, .scale = 0.125f };
    gemm_context *c = NULL;
    kernel_set *k = NULL;
    gt_status st = gemm_context_create(&c, d, NULL);
    if (!st)
        st = kernel_set_create(&k, d, DTYPE_BF16);
    if (!st)
        st = attention_bench(c, k, &s, 1, attention_done, NULL);
    kernel_set_release(k);
    gemm_context_release(c);
    return st;
}

int main(int argc, char **argv)
{
    char **specs = NULL;
    int count = 0, known = 1;
    dev_device *d = NULL;
    gemm_prepare_process();
    gt_status st = dev_specs(&specs, &count, NULL);
    if (!st)
        st = dev_open(&d, specs[0]);
    if (!st && argc == 6 && !strcmp(argv[1], "product"))
        st = product(d, argv[2], atoi(argv[3]), atoi(argv[4]), atoi(argv[5]));
    else if (!st && argc == 4 && !strcmp(argv[1], "many")) {
        const int rows = (2 * dev_info_of(d)->compute_units + 31) / 32;
        st = product(d, argv[2], 128 * rows, 128 * 32, atoi(argv[3]));
        printf("blocks %d\n", rows * 32);
    } else if (!st && argc == 4 && !strcmp(argv[1], "attention"))
        st = attention(d, atoi(argv[2]), atoi(argv[3]));
    else
        known = st != GT_OK;
    if (st)
        fprintf(stderr, "matrix_work: %s\n", gt_message());
    else if (!known)
        fprintf(stderr, "matrix_work: its arguments are as its first lines say\n");
    dev_close(d);
    dev_specs_free(specs, count);
    return st || !known;
}
