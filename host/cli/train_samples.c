/* SPDX-License-Identifier: MIT */
/* host/cli/train_samples.c - a generator beside the training. */
#include "host/cli/train_samples.h"

#include "host/cli/train_settings.h"
#include "host/cli/writer.h"

#include <stdlib.h>
#include <string.h>

static const train_settings *const o = &train_set;

struct train_samples {
    train *of;
    cli_writer writer;
};

gt_status train_samples_check(const model_config *c, tokenizer *t)
{
    graph *g = NULL;
    token_ids prompt = { 0 };
    if (!t)
        return gt_fail(GT_MISUSE, "option --sample-every: the data came without a tokenizer, and texts are written "
                                  "with one; name it with --tokenizer, or leave the option out");
    gt_status st = graph_create(&g, DTYPE_F32, 1, 1);
    if (!st)
        st = model_build_generate(g, c, c->context);
    graph_release(g);
    if (st)
        return st == GT_UNSUPPORTED ? gt_fail_in(GT_MISUSE, "option --sample-every") : st;
    st = tokenizer_encode(t, o->sample_prompt, strlen(o->sample_prompt), &prompt);
    const size_t count = prompt.count;
    token_ids_release(&prompt);
    return st || !count ? gt_fail(GT_MISUSE, "option --sample-prompt: %s", st ? gt_message() : "it has no token")
                        : GT_OK;
}

gt_status train_samples_open(train_samples **out, train *t, dev_device *d, const model_config *c, tokenizer *k,
                             int shared)
{
    dtype storage = DTYPE_F32;
    *out = NULL;
    train_samples *s = calloc(1, sizeof *s);
    if (!s)
        return gt_fail(GT_NO_MEMORY, "cannot write samples: no memory for the writer");
    s->of = t;
    s->writer = (cli_writer){ .tokenizer = k,
                              .rule = { .temperature = o->sample_temperature, .top_k = 200 },
                              .tokens = o->sample_tokens,
                              .seed = o->seed };
    dtype_parse(&storage, o->precision);
    gt_status st = generate_create_over(&s->writer.generate, d, c, storage, NULL, shared ? train_params(t) : NULL);
    if (!st)
        st = cli_allow_tokens(s->writer.generate, k, c->vocab);
    if (!st)
        st = cli_end_ids(&s->writer.ends, k, o->out);
    if (st) {
        train_samples_close(s);
        return gt_fail_in(st, "option --sample-every");
    }
    *out = s;
    return GT_OK;
}

void train_samples_close(train_samples *s)
{
    if (!s)
        return;
    generate_release(s->writer.generate);
    token_ids_release(&s->writer.ends);
    free(s);
}

gt_status train_samples_write(train_samples *s, uint64_t step, const char *folder, char **out)
{
    generate *g = s->writer.generate;
    cli_written w = { 0 };
    gt_status st = folder ? checkpoint_load(folder, generate_params(g), NULL, 0, NULL) : GT_OK;
    *out = NULL;
    if (!st && folder)
        st = generate_refresh(g);
    if (!st)
        st = cli_write(&s->writer, o->sample_prompt, strlen(o->sample_prompt), step, &w);
    if (!st)
        st = train_record_sample(s->of, o->sample_prompt, w.text.size ? w.text.data : "", w.text.size);
    if (!st && !(*out = w.text.size ? strndup(w.text.data, w.text.size) : strdup("")))
        st = gt_fail(GT_NO_MEMORY, "no memory for a sample of %zu bytes", w.text.size);
    cli_written_release(&w);
    return st ? gt_fail_in(st, "sample after step %llu", (unsigned long long)step) : GT_OK;
}
