/* SPDX-License-Identifier: MIT */
/* tests/sync/test_compress_choice.c - what compressors take of a device. */
#include "host/sync/compress_rate.h"
#include "tests/check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { VALUES = 1 << 16 };

/* Bytes a value are known; times are not, but that there are some. */
static void every_compressor_is_measured(void)
{
    static const struct {
        const char *spec;
        double bytes, error;
        int gathers, scatters, rounds;
    } cases[] = { { "none", 4.0, 0.0, 0, 1, 1 },
                  { "bf16", 2.0, 0.0, 0, 1, 1 },
                  { "fp16", 2.0, 0.0, 0, 1, 1 },
                  { "int8", 1.0 + 4.0 / 128.0, 0.0, 1, 0, 1 },
                  { "topk:0.01", 0.01 * 6.0, 0.001, 1, 0, 1 },
                  { "randomk:0.1", 0.1 * 4.0, 0.001, 0, 0, 1 },
                  /* Two factors of a tensor of 64 rows and 1024 columns. */
                  { "powersgd:4", 4.0 * (64.0 + 1024.0) * 4.0 / VALUES, 0.001, 0, 0, 2 } };
    dev_device *d = NULL;
    if (!CHECK_OK(dev_open(&d, getenv("GT_TEST_DEVICE"))))
        return;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sync_compress c;
        sync_rate r;
        if (!CHECK_OK(sync_compress_parse(&c, cases[i].spec)) || !CHECK_OK(sync_rate_measure(&r, d, &c, VALUES)))
            continue;
        CHECKF(fabs(r.bytes - cases[i].bytes) <= cases[i].error, "%s: %g bytes a value", cases[i].spec, r.bytes);
        CHECKF(r.gathers == cases[i].gathers && r.scatters == cases[i].scatters && r.rounds == cases[i].rounds,
               "%s: %d %d %d", cases[i].spec, r.gathers, r.scatters, r.rounds);
        CHECKF(i ? r.encode > 0.0 && r.decode > 0.0 && r.encode < 1e-4 : r.encode == 0.0 && r.decode == 0.0,
               "%s: %g and %g s a value", cases[i].spec, r.encode, r.decode);
        CHECK(fabs(sync_rate_seconds(&r, 10.0, 3) - 10.0 * (r.encode + r.decode * (r.gathers ? 3 : 1))) < 1e-12);
    }
    sync_compress few;
    sync_rate r;
    if (CHECK_OK(sync_compress_parse(&few, "int8,min=100000")))
        CHECK_FAILS(sync_rate_measure(&r, d, &few, VALUES), GT_MISUSE, "leaves them as they are");
    if (CHECK_OK(sync_compress_parse(&few, "bf16")))
        CHECK_FAILS(sync_rate_measure(&r, d, &few, 1000), GT_MISUSE, "multiples of 4096");
    dev_close(d);
}

const check_case check_cases[] = { CASE(every_compressor_is_measured), { 0 } };
