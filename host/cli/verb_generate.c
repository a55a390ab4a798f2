/* SPDX-License-Identifier: MIT */
/* host/cli/verb_generate.c - text from a model, printed as it comes. */
#include "host/cli/choices.h"
#include "host/cli/busy.h"
#include "host/cli/cli.h"
#include "host/cli/screen.h"

#include "host/base/clock.h"
#include "models/generate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct {
    const char *from, *prompt, *devices, *precision;
    uint64_t tokens, seed;
    double temperature;
    int top_k, quiet;
} o = { .prompt = "\n", .tokens = 200, .seed = 1, .temperature = 0.8, .top_k = 200 };

static const gt_option table[] = {
    { .group = "Text" },
    { "from", 0, GT_STRING, "RUN|DIR", "run directory or Hugging Face folder", &o.from, 0, NULL },
    { "prompt", 0, GT_STRING, "TEXT", "how the text begins", &o.prompt, 0, NULL },
    { "tokens", 'n', GT_U64, "N", "how many more tokens", &o.tokens, 0, NULL },
    { "temperature", 0, GT_DOUBLE, "X", "0: always the likeliest", &o.temperature, 0, NULL },
    { "top-k", 0, GT_INT, "K", "number of likeliest tokens to choose from, 0: all", &o.top_k, 0, NULL },
    { "seed", 0, GT_U64, "S", "seed of the choice among them", &o.seed, 0, NULL },
    { .group = "Device" },
    { "devices", 0, GT_STRING, "ID", "id from `geartrain devices`", &o.devices, 0, NULL },
    { "precision", 0, GT_CHOICE, cli_precisions, "storage", &o.precision, 0, NULL },
    { "quiet", 'q', GT_FLAG, NULL, "no speed on standard error", &o.quiet, 0, NULL },
    { 0 }
};

static const cli_help help = { "generate --from RUN|DIR [--prompt TEXT] [options]", "Write text with a trained model.",
                               "  geartrain generate --from runs/shakespeare --prompt 'ROMEO:' -n 300\n"
                               "  geartrain generate --from gpt2/ --prompt 'The wheels' --temperature 0\n" };

/* Prints what the ids spell, but for the bytes of an unfinished character at the end. */
static gt_status print_new(const tokenizer *t, const token_ids *ids, size_t *printed, int last)
{
    gt_text text = { 0 };
    gt_status st = tokenizer_decode(t, ids->data, ids->count, &text);
    size_t end = text.size;
    for (size_t back = 1; !last && back <= 3 && back <= end; back++) {
        const unsigned char c = (unsigned char)text.data[end - back];
        if (c < 0x80)
            break;
        if (c >= 0xC0) {
            const size_t need = c >= 0xF0 ? 4 : c >= 0xE0 ? 3 : 2;
            if (back < need)
                end -= back;
            break;
        }
    }
    if (!st && end > *printed) {
        fwrite(text.data + *printed, 1, end - *printed, stdout);
        fflush(stdout);
        *printed = end;
    }
    gt_text_release(&text);
    return st;
}

/* Decoding starts over after a while, so that long texts do not cost quadratic time. */
static gt_status write_text(generate *g, const tokenizer *t)
{
    const sampling_rule sampling = { .temperature = o.temperature, .top_k = o.top_k };
    token_ids ids = { 0 };
    gt_random random;
    size_t printed = 0;
    uint64_t made = 0;
    gt_random_init(&random, o.seed, 0x67656e);
    const uint64_t start = gt_now_ns();
    gt_status st = GT_OK;
    for (; !st && made < o.tokens; made++) {
        uint32_t id;
        st = generate_next(g, &sampling, &random, &id);
        if (!st && (int64_t)id == tokenizer_eot(t))
            break;
        if (!st)
            st = token_ids_add(&ids, &id, 1);
        if (!st)
            st = print_new(t, &ids, &printed, made + 1 == o.tokens);
        if (!st && ferror(stdout))
            st = gt_fail(GT_IO, "cannot write to standard output; is it closed, or its disk full?");
        if (ids.count == 64) {
            gt_text whole = { 0 };
            if (!st && !tokenizer_decode(t, ids.data, ids.count, &whole) && printed == whole.size) {
                ids.count = 0;
                printed = 0;
            }
            gt_text_release(&whole);
        }
    }
    printf("\n");
    if (!st && !o.quiet)
        fprintf(stderr, "%llu tokens, %.1f tokens/s\n", (unsigned long long)made,
                (double)made / ((double)(gt_now_ns() - start) * 1e-9));
    token_ids_release(&ids);
    return st;
}

/* Only what the tokenizer can spell is drawn. */
static gt_status allow_tokens(generate *g, const cli_source *s)
{
    unsigned char *may = malloc((size_t)s->config.vocab);
    if (!may)
        return gt_fail(GT_NO_MEMORY, "cannot generate: no memory for a flag for each of %d tokens", s->config.vocab);
    for (int id = 0; id < s->config.vocab; id++)
        may[id] = (unsigned char)tokenizer_has(s->tokenizer, (uint32_t)id);
    gt_status st = generate_allow(g, may);
    free(may);
    return st;
}

static gt_status run(cli_source *s, dtype storage)
{
    dev_device *d = NULL;
    generate *g = NULL;
    token_ids prompt = { 0 };
    gt_status st = tokenizer_encode(s->tokenizer, o.prompt, strlen(o.prompt), &prompt);
    if (!st && !prompt.count)
        st = gt_fail(GT_MISUSE, "the prompt is empty; give one with --prompt TEXT");
    if (!st)
        st = dev_open(&d, o.devices);
    if (!st)
        st = generate_create(&g, d, &s->config, storage, NULL);
    if (!st)
        st = allow_tokens(g, s);
    if (!st)
        st = cli_source_fill(&s->config, generate_params(g), s);
    if (!st)
        st = generate_refresh(g);
    if (!st)
        st = generate_feed(g, prompt.data, prompt.count);
    if (!st) {
        printf("%s", o.prompt);
        st = write_text(g, s->tokenizer);
    }
    generate_release(g);
    dev_close(d);
    token_ids_release(&prompt);
    return st;
}

gt_status verb_generate(int argc, char **argv)
{
    char **words;
    int count, done;
    cli_source s;
    dtype storage;
    o.precision = dtype_name(DTYPE_F32);
    gt_status st = cli_parse(table, &help, argc, argv, &words, &count, &done);
    if (st || done)
        return st;
    cli_screen_raw();                   /* lines of the model's text are the model's */
    if (count)
        return cli_no_words(words, &help);
    if (!o.from)
        return cli_missing(&help, "--from RUN|DIR");
    if (!(o.temperature >= 0.0))
        return gt_fail(GT_MISUSE, "option --temperature: %g is below 0", o.temperature);
    dtype_parse(&storage, o.precision);
    cli_busy_start();
    st = cli_source_open(&s, o.from);
    if (!st)
        st = cli_source_tokenizer(&s, "put its tokenizer.json, or vocab.json and merges.txt, beside the "
                                      "weights");
    if (!st)
        st = run(&s, storage);
    cli_source_close(&s);
    return st;
}
