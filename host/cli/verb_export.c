/* host/cli/verb_export.c - a run's newest checkpoint as a Hugging Face folder. */
#include "host/cli/cli.h"

#include "host/base/file.h"
#include "host/graph/graph.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct { const char *out, *devices, *type; } o = { .type = "fp32" };

static const gt_option table[] = {
    { .group = "Export" },
    { "out", 'o', GT_STRING, "DIR", "folder to make", &o.out, 0, NULL },
    { "type", 0, GT_CHOICE, "fp32|bf16|fp16", "what the weights are stored as", &o.type, 0, NULL },
    { "devices", 0, GT_STRING, "ID", "device to hold the weights meanwhile", &o.devices, 1, NULL },
    { 0 } };

static const cli_help help = {
    "export RUN -o DIR [options]",
    "Write a run as config.json, model.safetensors and tokenizer.json, as transformers reads "
    "them.", "  geartrain export runs/shakespeare -o exported/\n" };

static gt_status write_folder(const cli_source *s, dtype type)
{
    dev_device *d = NULL;
    graph *g = NULL;
    params *p = NULL;
    gt_status st = dev_open(&d, o.devices);
    if (!st)
        st = graph_create(&g, DTYPE_F32, 1, 1);
    if (!st)
        st = model_build_loss(g, &s->config, 0, 0);
    if (!st)
        st = params_create(&p, d, g, 0);
    if (!st)
        st = cli_source_fill(&s->config, p, (void *)(uintptr_t)s);
    if (!st)
        st = model_export(&s->config, p, type, o.out);
    if (!st && s->tokenizer)
        st = tokenizer_save(s->tokenizer, o.out);
    params_release(p);
    graph_release(g);
    dev_close(d);
    return st;
}

gt_status verb_export(int argc, char **argv)
{
    char **words;
    int count, done;
    cli_source s;
    dtype type;
    gt_status st = cli_parse(table, &help, argc, argv, &words, &count, &done);
    if (st || done)
        return st;
    if (count > 1)
        return gt_fail(GT_MISUSE, "export takes one run, not '%s' as well", words[1]);
    if (!count || !o.out)
        return cli_missing(&help, count ? "-o DIR" : "RUN");
    dtype_parse(&type, o.type);
    char *record = gt_path_join(o.out, "metrics.jsonl");
    if (record && gt_path_exists(record))       /* its config.json would be lost */
        st = gt_fail(GT_MISUSE, "cannot export to '%s': it holds a run; name another folder", o.out);
    free(record);
    if (!st)
        st = cli_source_open(&s, words[0]);
    if (st)
        return st;
    if (s.tokenizer_path)               /* one that cannot be read must not be left out */
        st = cli_source_tokenizer(&s, "");
    if (!st)
        st = write_folder(&s, type);
    if (!st)
        printf("%s: %s, %s%s\n", o.out, s.config.name, o.type,
               s.tokenizer ? ", with its tokenizer" : "");
    cli_source_close(&s);
    return st;
}
