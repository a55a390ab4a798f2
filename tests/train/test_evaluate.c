/* SPDX-License-Identifier: MIT */
/* tests/train/test_evaluate.c - what a validation measures depends on the batch alone. */
#include "tests/check.h"

#include "tests/train/tiny_run.h"

#include <math.h>

static void a_validation_is_the_same_for_every_micro_batch(void)
{
    static const struct {
        uint64_t batch, batches, micro[6];
    } cases[] = {
        { 6, 3, { 6, 1, 2, 3 } }, { 6, 0, { 6, 1, 2, 3 } },               /* all 124 rows, which 6 does not divide */
        { 7, 2, { 7, 1 } },       { 12, 1, { 12, 1, 2, 3, 4, 6 } }, { 5, 1000, { 5, 1 } }, /* more than there is */
    };
    const uint64_t there = 2999 / TINY_T;
    const model_config c = tiny_config();
    dev_device *d = tiny_device();
    for (size_t i = 0; d && i < sizeof cases / sizeof *cases; i++) {
        double first = NAN;
        for (int k = 0; k < 6 && cases[i].micro[k]; k++) {
            train_options o = tiny_options();
            evaluate_result found;
            uint64_t all, rows = cases[i].batch * cases[i].batches;
            o.batch = cases[i].batch;
            o.micro_batch = cases[i].micro[k];
            o.eval_every = 1;
            o.eval_batches = cases[i].batches;
            train *t = tiny_train(d, &c, &o);
            if (!t)
                return;
            rows = rows && rows < there ? rows : there;
            CHECK(train_evaluated_rows(t, &all) == rows && all == there);
            CHECK_OK(train_evaluate(t, &found));
            const double loss = found.loss;
            CHECK(found.tokens == rows * TINY_T && found.targets == (double)found.tokens);
            CHECK(isnan(found.hits) && found.bytes <= 0.0 && isnan(evaluate_bits_per_byte(&found)));
            first = k ? first : loss;
            CHECKF(fabs(loss - first) < 1e-5 * first, "case %d, micro-batch %d: %.9g, %.9g with all at once", (int)i,
                   (int)o.micro_batch, loss, first);
            train_release(t);
        }
    }
    dev_close(d);
}

const check_case check_cases[] = { CASE(a_validation_is_the_same_for_every_micro_batch), { 0 } };
