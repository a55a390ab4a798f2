/* host/cli/source.c - opens what --from names: a run directory or a Hugging Face folder. */
#include "host/cli/cli.h"

#include "host/base/file.h"
#include "host/train/checkpoint.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static gt_status no_memory(const char *path)
{
    return gt_fail(GT_NO_MEMORY, "cannot open '%s': out of memory", path);
}

/* A run's config.json holds the model's description under "model". */
static gt_status has_run_config(const char *path, int *is_run)
{
    json_error_t error;
    char *file = gt_path_join(path, "config.json"), *text = NULL;
    gt_status st = file ? GT_OK : no_memory(path);
    *is_run = 0;
    if (!st && !gt_path_exists(file))
        st = gt_fail(GT_NOT_FOUND, "'%s' is neither a run directory nor a Hugging Face folder: "
                     "there is no config.json in it", path);
    if (!st)
        st = gt_file_read(&text, NULL, file, 1u << 24);
    json_t *root = st ? NULL : json_loads(text, JSON_REJECT_DUPLICATES, &error);
    if (!st && !root)
        st = gt_fail(GT_FORMAT, "'%s', line %d: %s", file, error.line, error.text);
    *is_run = json_is_object(json_object_get(root, "model"));
    json_decref(root);
    free(text);
    free(file);
    return st;
}

/* The tokenizer beside the weights. One that cannot be read is kept as a sentence for whoever needs
 * it: weights may be used with tokens alone, but never with another tokenizer. */
static gt_status find_tokenizer(cli_source *s)
{
    if (!tokenizer_is_in(s->path))
        return GT_OK;
    char *folder = gt_path_join(s->path, "tokenizer");
    s->tokenizer_path = folder && !gt_path_is_folder(folder) ? strdup(s->path) : folder;
    if (folder != s->tokenizer_path)
        free(folder);
    if (!s->tokenizer_path)
        return no_memory(s->path);
    s->tokenizer_status = tokenizer_open(&s->tokenizer, s->tokenizer_path);
    if (s->tokenizer_status && !(s->tokenizer_why = strdup(gt_message())))
        return no_memory(s->path);
    if (s->tokenizer_status)
        gt_message_clear();
    return s->tokenizer_status == GT_NO_MEMORY ? cli_source_tokenizer(s, "") : GT_OK;
}

gt_status cli_source_tokenizer(const cli_source *s, const char *fix)
{
    if (s->tokenizer_status)
        return gt_fail(s->tokenizer_status, "%s", s->tokenizer_why);
    return s->tokenizer ? GT_OK : gt_fail(GT_NOT_FOUND, "'%s' has no tokenizer; %s", s->path, fix);
}

gt_status cli_same_tokenizer(const char *model, const tokenizer *own, const char *path,
                             const tokenizer *other, const char *what)
{
    if (!own || !other || tokenizer_hash(own) == tokenizer_hash(other))
        return GT_OK;
    return gt_fail(GT_MISUSE, "'%s' was trained with the tokenizer in '%s' (%s, %u tokens, %016llx), and %s "
                   "is another one (%s, %u tokens, %016llx): its ids mean other texts; leave --tokenizer "
                   "out, give text or tokens of the first, or train a new model", model, path,
                   tokenizer_name(own), tokenizer_vocab(own), (unsigned long long)tokenizer_hash(own), what,
                   tokenizer_name(other), tokenizer_vocab(other),
                   (unsigned long long)tokenizer_hash(other));
}

gt_status cli_source_open(cli_source *out, const char *path)
{
    memset(out, 0, sizeof *out);
    gt_status st = GT_OK;
    if (!gt_path_exists(path))
        return gt_fail(GT_NOT_FOUND, "cannot open '%s': no such folder", path);
    out->path = strdup(path);
    if (!out->path)
        return no_memory(path);
    st = model_folder_check(path);
    if (!st)
        st = has_run_config(path, &out->is_run);
    if (!st)
        st = model_config_load(&out->config, path);
    if (!st && out->is_run)
        st = checkpoint_find(&out->checkpoint, &out->info, path);
    if (!st)
        st = find_tokenizer(out);
    if (!st && out->tokenizer && (int)tokenizer_vocab(out->tokenizer) > out->config.vocab)
        st = gt_fail(GT_MISMATCH, "'%s': its tokenizer has %u tokens, its model %d", path,
                     tokenizer_vocab(out->tokenizer), out->config.vocab);
    if (st)
        cli_source_close(out);
    return st;
}

void cli_source_close(cli_source *s)
{
    if (!s)
        return;
    tokenizer_close(s->tokenizer);
    free(s->tokenizer_path);
    free(s->tokenizer_why);
    free(s->checkpoint);
    free(s->path);
    memset(s, 0, sizeof *s);
}

/* p may be a part of the model; a larger model's weights would fill it all the same. */
static gt_status check_model(const char *checkpoint, const model_config *c)
{
    graph *whole = NULL;
    gt_status st = graph_create(&whole, DTYPE_F32, 1, 1);
    if (!st)
        st = model_build_loss(whole, c, 0, 0);
    if (!st)
        st = checkpoint_check_model(checkpoint, whole);
    graph_release(whole);
    return st;
}

gt_status cli_source_check_model(const cli_source *s, const model_config *c, const char *name)
{
    char what[128];
    if (!model_config_difference(what, sizeof what, c, &s->config, MODEL_COMPUTES))
        return GT_OK;
    return gt_fail(GT_MISUSE, "model '%s' has %s as the weights of '%s': they would compute something else; "
                   "leave --model out to take what '%s' says", name, what, s->path, s->path);
}

/* Shapes that fit do not say that it is the same model. */
gt_status cli_source_fill(const void *config, params *p, void *source)
{
    const cli_source *s = source;
    const model_config *c = config;
    gt_status st = cli_source_check_model(s, c, c->name);
    if (st || !s->is_run)
        return st ? st : model_import(c, p, s->path);
    st = check_model(s->checkpoint, c);
    return st ? st : checkpoint_load(s->checkpoint, p, NULL);
}
