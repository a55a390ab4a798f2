/* SPDX-License-Identifier: MIT */
/* host/cli/verb_tokenize.c - text files to a folder of tokens. */
#include "host/cli/cli.h"

#include "host/base/clock.h"
#include "host/base/text.h"
#include "host/data/foreign.h"
#include "host/data/tokenize.h"

#include <stdio.h>

static struct {
    const char *tokenizer, *out, *val;
    double val_fraction;
    uint64_t shard;
} o = { .tokenizer = "byte", .val_fraction = DATA_VAL_FRACTION, .shard = 100000000 };

static const gt_option table[] = {
    { .group = "Tokenizing" },
    { "tokenizer", 0, GT_STRING, "SPEC", "byte, char, bpe:SIZE, or a folder with one", &o.tokenizer, 0, NULL },
    { "out", 'o', GT_STRING, "DIR", "folder to make", &o.out, 0, NULL },
    { "val", 0, GT_STRING, "FILE", "validation text, instead of the end of FILE...", &o.val, 0, NULL },
    { "val-fraction", 0, GT_DOUBLE, "X", "share at the end that validates", &o.val_fraction, 0, NULL },
    { "shard-tokens", 0, GT_U64, "N", "tokens a file", &o.shard, 1, NULL },
    { 0 }
};

static const cli_help help = {
    "tokenize FILE... -o DIR [options]", "Turn text into files of tokens that `geartrain train --data DIR` reads.",
    "  geartrain tokenize input.txt --tokenizer bpe:8192 -o data/\n"
    "  geartrain tokenize *.txt --tokenizer gpt2/ --val held-out.txt -o data/\n"
};

/* The tokenizer, trained on the texts if the spec asks for that. */
static gt_status make_tokenizer(tokenizer **out, char **files, int count)
{
    gt_status st = GT_OK;
    if (!tokenizer_needs_text(o.tokenizer))
        return tokenizer_open(out, o.tokenizer);
    for (int i = 0; !st && i < count; i++)
        st = data_foreign_check_text(files[i]);
    if (st)
        return st;
    cli_progress p = { .what = "training the tokenizer" };
    st = tokenizer_train(out, o.tokenizer, (const char *const *)files, (size_t)count, cli_progress_show, &p);
    cli_progress_end(&p);
    return st;
}

gt_status verb_tokenize(int argc, char **argv)
{
    char **files, text[32];
    int count, done;
    tokenizer *t = NULL;
    tokenize_result r;
    gt_status st = cli_parse(table, &help, argc, argv, &files, &count, &done);
    if (st || done)
        return st;
    if (!count)
        return cli_missing(&help, "FILE: which text?");
    if (!o.out)
        return gt_fail(GT_MISUSE, "where to? name a folder with -o DIR");
    if (!(o.val_fraction >= 0.0 && o.val_fraction < 1.0))
        return gt_fail(GT_MISUSE, "option --val-fraction: %g is not in [0, 1)", o.val_fraction);
    const cli_useless rules[] = { { "val-fraction", o.val != NULL, "--val names the validation text" } };
    st = cli_check_useless(table, rules, 1);
    if (st)
        return st;
    const uint64_t start = gt_now_ns();
    st = make_tokenizer(&t, files, count);
    if (!st) {
        cli_progress p = { .what = "tokenizing" };
        const tokenize_options options = {
            .files = (const char *const *)files,
            .file_count = (size_t)count,
            .val_files = &o.val,
            .val_file_count = o.val ? 1 : 0,
            .val_fraction = o.val_fraction,
            .shard_tokens = o.shard,
            .progress = cli_progress_show,
            .context = &p
        };
        st = tokenize(t, o.out, &options, &r);
        cli_progress_end(&p);
    }
    if (!st) {
        const double seconds = (double)(gt_now_ns() - start) * 1e-9;
        printf("%s: %llu training and %llu validation tokens of %u, from %s in %.1f s (%s/s)\n", o.out,
               (unsigned long long)r.train_tokens, (unsigned long long)r.val_tokens, tokenizer_vocab(t),
               gt_format_bytes(text, sizeof text, r.bytes), seconds,
               gt_format_bytes((char[32]){ 0 }, 32, (uint64_t)((double)r.bytes / seconds)));
    }
    tokenizer_close(t);
    return st;
}
