/* SPDX-License-Identifier: MIT */
/* host/cli/verb_tokenize.c - text files to a folder of tokens. */
#include "host/cli/cli.h"

#include "host/base/clock.h"
#include "host/base/text.h"
#include "host/base/file.h"
#include "host/cli/data_options.h"
#include "host/data/sources.h"
#include "host/data/tokenize.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct {
    const char *tokenizer, *out, *val;
    data_options data;
    double val_fraction;
    uint64_t shard;
} o = { .tokenizer = "byte", .data = DATA_OPTIONS, .val_fraction = DATA_VAL_FRACTION, .shard = 100000000 };

static const gt_option table[] = {
    { .group = "Tokenizing" },
    { "tokenizer", 0, GT_STRING, "SPEC", "byte, char, bpe:SIZE, or a folder or file with one", &o.tokenizer, 0, NULL },
    { "out", 'o', GT_STRING, "DIR", "folder to make", &o.out, 0, NULL },
    { "val", 0, GT_STRING, "FILE", "validation data, instead of the end of FILE...", &o.val, 0, NULL },
    { "val-fraction", 0, GT_DOUBLE, "X", "share at the end that validates", &o.val_fraction, 0, NULL },
    DATA_OPTION_ROWS(o.data),
    { "shard-tokens", 0, GT_U64, "N", "tokens a file", &o.shard, 1, NULL },
    { 0 }
};

static const cli_help help = {
    "tokenize FILE... -o DIR [options]",
    "Turn texts and records (JSONL, CSV, TSV; also .gz) into files of tokens\nthat `geartrain train --data DIR` reads.",
    "  geartrain tokenize input.txt --tokenizer bpe:8192 -o data/\n"
    "  geartrain tokenize *.txt --tokenizer gpt2/ --val held-out.txt -o data/\n"
};

/* The tokenizer, trained on the texts if the spec asks for that. */
static gt_status make_tokenizer(tokenizer **out, const tokenize_options *files)
{
    char scratch[4096];
    if (!tokenizer_needs_text(o.tokenizer))
        return tokenizer_open(out, o.tokenizer);
    cli_progress p = { .what = "training the tokenizer" };
    tokenize_options f = *files;
    f.context = &p;
    snprintf(scratch, sizeof scratch, "%s.partial-%ld-text", o.out, (long)getpid());
    gt_status st = tokenize_train(out, o.tokenizer, &f, scratch);
    cli_progress_end(&p);
    return st;
}

/* The template of chats: a file, or what lies beside the tokenizer; one that cannot be read matters to chats alone. */
static gt_status find_chat(chat_template **chat, char **why)
{
    const char *folder = gt_path_is_folder(o.tokenizer) ? o.tokenizer : NULL;
    if (o.data.chat_template)
        return chat_template_open_file(chat, o.data.chat_template, folder);
    if (folder && chat_template_open(chat, folder)) {
        *why = strdup(gt_message());
        gt_message_clear();
    }
    return GT_OK;
}

/* All files that the words name, one after the other. */
static gt_status find_files(data_sources *out, char **words, int count)
{
    gt_text list = { 0 };
    for (int i = 0; i < count; i++)
        gt_text_printf(&list, "%s%s", i ? "," : "", words[i]);
    gt_status st = list.failed ? gt_fail(GT_NO_MEMORY, "no memory for the names of the files")
                               : data_sources_read(out, list.data);
    if (!st && out->mixed)
        st = gt_fail(GT_MISUSE, "weights are for `geartrain train --data`; tokenize each source by itself");
    else if (!st && !out->list[0].files)
        st = gt_path_is_folder(out->list[0].name)
                 ? gt_fail(GT_NOT_FOUND,
                           "'%s': not a regular file, and a folder without texts (*.txt, *.jsonl, *.csv, ...)",
                           out->list[0].name)
                 : gt_fail(GT_MISUSE, "'%s' holds tokens already", out->list[0].name);
    gt_text_release(&list);
    return st;
}

gt_status verb_tokenize(int argc, char **argv)
{
    char **words, text[32], *why = NULL;
    int count, done;
    data_sources s = { 0 }, v = { 0 };
    tokenizer *t = NULL;
    chat_template *chat = NULL;
    tokenize_result r;
    gt_status st = cli_parse(table, &help, argc, argv, &words, &count, &done);
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
    st = find_files(&s, words, count);
    if (!st && o.val)
        st = find_files(&v, (char *[]){ (char *)(uintptr_t)o.val }, 1);
    if (!st)
        st = find_chat(&chat, &why);
    if (!st) {
        cli_progress p = { .what = "tokenizing" };
        const int parts = s.list[0].val_count > 0;
        const tokenize_options options = {
            .files = (const char *const *)s.list[0].files,
            .file_count = s.list[0].file_count,
            .val_files = (const char *const *)(o.val ? v.list[0].files : s.list[0].val_files),
            .val_file_count = o.val ? v.list[0].file_count : s.list[0].val_count,
            .keys = data_options_keys(&o.data),
            .chat = chat,
            .chat_why = why,
            .val_fraction = parts ? 0.0 : o.val_fraction,
            .shard_tokens = o.shard,
            .progress = cli_progress_show,
            .context = &p
        };
        st = make_tokenizer(&t, &options);
        if (!st)
            st = tokenize(t, o.out, &options, &r);
        cli_progress_end(&p);
    }
    if (!st) {
        const double seconds = (double)(gt_now_ns() - start) * 1e-9;
        printf("%s: %llu training and %llu validation tokens of %u, from %s in %.1f s (%s/s)\n", o.out,
               (unsigned long long)r.train_tokens, (unsigned long long)r.val_tokens, tokenizer_vocab(t),
               gt_format_bytes(text, sizeof text, r.bytes), seconds,
               gt_format_bytes((char[32]){ 0 }, 32, (uint64_t)((double)r.bytes / seconds)));
        if (r.train_documents)
            printf("%llu training and %llu validation documents%s", (unsigned long long)r.train_documents,
                   (unsigned long long)r.val_documents, r.labels ? "" : "\n");
        if (r.labels)
            printf(" with %d labels\n", r.labels);
    }
    data_sources_release(&s);
    data_sources_release(&v);
    chat_template_release(chat);
    tokenizer_close(t);
    free(why);
    return st;
}
