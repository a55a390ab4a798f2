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

/* Bits a byte count the bytes that each target spells; ids that are not in the table spell none. */
static void bytes_of_targets_are_counted(void)
{
    unsigned char bytes[TINY_VOCAB - 1];
    const model_config c = tiny_config();
    token_split text;
    int32_t ids[2999];
    double want = 0.0;
    for (int i = 0; i < TINY_VOCAB - 1; i++)
        bytes[i] = (unsigned char)(i % 5);
    dev_device *d = tiny_device();
    train_options o = tiny_options();
    evaluate_result found;
    o.eval_every = 1;
    o.val_bytes = bytes;
    o.val_ids = TINY_VOCAB - 1;
    train *t = d && CHECK_OK(tiny_text(&text)) ? tiny_train(d, &c, &o) : NULL;
    if (!t)
        return;
    const uint64_t rows = 2999 / TINY_T;
    CHECK_OK(token_split_read(&text, 1, rows * TINY_T, ids));
    for (uint64_t i = 0; i < rows * TINY_T; i++)
        want += ids[i] < TINY_VOCAB - 1 ? bytes[ids[i]] : 0;
    for (int again = 0; again < 2; again++) {
        CHECK_OK(train_evaluate(t, &found));
        CHECKF(found.bytes == want, "%g bytes, not %g", found.bytes, want);
        CHECK(fabs(evaluate_bits_per_byte(&found) - found.loss * (double)(rows * TINY_T) / want / log(2.0)) < 1e-12);
        CHECK(evaluate_perplexity(&found) == exp(found.loss));
    }
    train_release(t);
    dev_close(d);
}

const check_case check_cases[] = {
    CASE(a_validation_is_the_same_for_every_micro_batch), CASE(bytes_of_targets_are_counted), { 0 }
};
