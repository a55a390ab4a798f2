/* SPDX-License-Identifier: MIT */
/* host/cli/verb_export.c - a run's newest checkpoint, or another, as a Hugging Face folder. */
#include "host/cli/choices.h"
#include "host/cli/cli.h"
#include "host/cli/writer.h"

#include "host/base/file.h"
#include "host/graph/graph.h"
#include "models/lora.h"

#include <dirent.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct {
    const char *out, *checkpoint, *adapter, *devices, *type;
    int merge;
} o;

static const gt_option table[] = {
    { .group = "Export" },
    { "out", 'o', GT_STRING, "DIR", "folder to make", &o.out, 0, NULL },
    { "checkpoint", 0, GT_STRING, "best|STEP", "which of the run's; default: the newest", &o.checkpoint, 0, NULL },
    { "type", 0, GT_CHOICE, cli_precisions, "what the weights are stored as", &o.type, 0, NULL },
    { "adapter", 0, GT_STRING, "DIR", "adapter to merge into the weights of RUN", &o.adapter, 0, NULL },
    { "merge", 0, GT_FLAG, NULL, "whole weights of a run with adapters, merged", &o.merge, 0, NULL },
    { "devices", 0, GT_STRING, "ID", "device to hold the weights meanwhile", &o.devices, 1, NULL },
    { 0 }
};

static const cli_help help = {
    "export RUN -o DIR [options]",
    "Write a run as config.json, model.safetensors and tokenizer.json, as transformers reads "
    "them;\nof a run with adapters those alone, as PEFT reads them.",
    "  geartrain export runs/shakespeare -o exported/\n"
    "  geartrain export runs/lora --merge -o exported/\n"
};

/* What an export writes; a killed one may have left the beginning of such a file. */
static int is_ours(const char *name)
{
    static const char *const names[] = {
        ".",
        "..",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "adapter_config.json",
        "adapter_model.safetensors",
        "chat_template.jinja",
        "special_tokens_map.json"
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const size_t n = strlen(names[i]);
        if (!strcmp(name, names[i]) || (n > 2 && !strncmp(name, names[i], n) && !strncmp(name + n, ".partial-", 9)))
            return 1;
    }
    return 0;
}

static gt_status holds_others(const char *what)
{
    return gt_fail(GT_MISUSE,
                   "cannot export to '%s': it holds %s; name another folder, or remove what is "
                   "there",
                   o.out, what);
}

/* Is config.json there, and just what this export will write? */
static gt_status same_config(const model_config *c, int *same)
{
    char *path = gt_path_join(o.out, "config.json"), *text = NULL;
    gt_status st = path ? model_config_json(&text, c)
                        : gt_fail(GT_NO_MEMORY, "no memory for the path of '%s/config.json'", o.out);
    json_t *now = st ? NULL : json_loads(text, 0, NULL), *then = st ? NULL : json_load_file(path, 0, NULL);
    *same = now && then && json_equal(now, then);
    json_decref(now);
    json_decref(then);
    free(text);
    free(path);
    return st;
}

/* Of a run with adapters those alone are written, unless they are to be merged. */
static int writes_adapter(const cli_source *s)
{
    return s->config.tuning.rank && !o.merge;
}

/* Only an earlier export of a model like this one may be replaced: files that export writes, with the
 * same config.json and tokenizer. */
static gt_status check_target(const cli_source *s)
{
    char what[300] = "";
    int files = 0, same = 0;
    DIR *dir = opendir(o.out);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        files += strcmp(e->d_name, ".") && strcmp(e->d_name, "..") && !strstr(e->d_name, ".partial-");
        if (!*what && !is_ours(e->d_name))
            snprintf(what, sizeof what, "'%s', which no export wrote", e->d_name);
    }
    if (dir)
        closedir(dir);
    if (*what)
        return holds_others(what);
    const int adapter = writes_adapter(s), there_adapter = lora_is_folder(o.out);
    gt_status st = files && !adapter ? same_config(&s->config, &same) : GT_OK;
    if (st || !files)
        return st;
    if (adapter ? !there_adapter : !same)
        return holds_others("another model");
    tokenizer *there = NULL;
    if (tokenizer_is_in(o.out) && tokenizer_open(&there, o.out))
        gt_message_clear();
    const int fits = tokenizer_is_in(o.out)
                         ? there && s->tokenizer && tokenizer_hash(there) == tokenizer_hash(s->tokenizer)
                         : 1;
    tokenizer_close(there);
    return fits ? GT_OK : holds_others("another tokenizer");
}

static gt_status write_folder(const cli_source *s, dtype type)
{
    dev_device *d = NULL;
    graph *g = NULL;
    params *p = NULL;
    char *config = gt_path_join(s->path, "config.json");
    json_t *root = config ? json_load_file(config, 0, NULL) : NULL;
    const char *began = json_string_value(json_object_get(json_object_get(root, "options"), "from"));
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
        st = writes_adapter(s) ? lora_export(&s->config, p, type, began, o.out)
                               : model_export(&s->config, p, type, o.out);
    if (!st && s->tokenizer)
        st = tokenizer_save(s->tokenizer, o.out);
    if (!st && s->tokenizer)
        st = chat_template_copy(s->tokenizer_path, o.out);
    if (!st && s->tokenizer && s->config.task == MODEL_LM && !writes_adapter(s))
        st = cli_end_ids_keep(s->tokenizer, s->path, o.out);
    params_release(p);
    graph_release(g);
    dev_close(d);
    json_decref(root);
    free(config);
    return st;
}

gt_status verb_export(int argc, char **argv)
{
    char **words;
    int count, done;
    cli_source s = { 0 };
    dtype type;
    o.type = dtype_name(DTYPE_F32);
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
        st = cli_source_open_at(&s, words[0], o.checkpoint);
    if (!st && o.adapter)
        st = o.merge ? cli_source_adapt(&s, o.adapter)
                     : gt_fail(GT_MISUSE,
                               "option --adapter: '%s' is an adapter already; --merge writes it and the model "
                               "in one piece",
                               o.adapter);
    if (!st && o.merge && !s.config.tuning.rank)
        st = gt_fail(GT_MISUSE, "option --merge: '%s' has no adapters; leave it out, or name some with --adapter",
                     words[0]);
    if (st) {
        cli_source_close(&s);
        return st;
    }
    if (s.tokenizer_path)               /* one that cannot be read must not be left out */
        st = cli_source_tokenizer(&s, "");
    if (!st)
        st = check_target(&s);
    if (!st)
        st = write_folder(&s, type);
    if (!st)
        printf("%s: %s%s, %s%s\n", o.out, writes_adapter(&s) ? "adapter for " : "", s.config.name, o.type,
               s.tokenizer ? ", with its tokenizer" : "");
    cli_source_close(&s);
    return st;
}
