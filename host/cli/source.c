/* SPDX-License-Identifier: MIT */
/* host/cli/source.c - opens what --from names: a run directory or a Hugging Face folder. */
#include "host/cli/cli.h"

#include "host/base/file.h"
#include "host/train/checkpoint.h"
#include "models/lora.h"

#include <dirent.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static gt_status no_memory(const char *path)
{
    return gt_fail(GT_NO_MEMORY, "cannot open '%s': no memory for the paths in it", path);
}

/* ---- which tokenizer a run was trained with ----------------------------------------------------- */

cli_tokenizer_mark cli_tokenizer_mark_of(const tokenizer *t)
{
    cli_tokenizer_mark m = { 0 };
    if (t) {
        m.known = 1;
        m.tokens = tokenizer_vocab(t);
        m.hash = tokenizer_hash(t);
        snprintf(m.kind, sizeof m.kind, "%s", tokenizer_name(t));
    }
    return m;
}

/* "tokenizer": {"kind": "bpe", "tokens": 300, "hash": "0123456789abcdef"} */
static gt_status parse_mark(cli_tokenizer_mark *out, const json_t *root, const char *file)
{
    const json_t *entry = json_object_get(root, "tokenizer");
    const char *kind = json_string_value(json_object_get(entry, "kind"));
    const char *hash = json_string_value(json_object_get(entry, "hash"));
    const json_int_t tokens = json_integer_value(json_object_get(entry, "tokens"));
    *out = (cli_tokenizer_mark){ 0 };
    if (!entry)
        return GT_OK;
    if (!kind || !hash || strlen(hash) != 16 || strspn(hash, "0123456789abcdef") != 16 || tokens < 1
        || tokens > INT32_MAX)
        return gt_fail(GT_FORMAT,
                       "'%s': \"tokenizer\" is not {\"kind\": text, \"tokens\": number, "
                       "\"hash\": 16 hexadecimal digits}",
                       file);
    out->known = 1;
    out->tokens = (uint32_t)tokens;
    out->hash = strtoull(hash, NULL, 16);
    snprintf(out->kind, sizeof out->kind, "%s", kind);
    return GT_OK;
}

gt_status cli_tokenizer_mark_check(const cli_tokenizer_mark *m, const char *run, const tokenizer *t, const char *what)
{
    if (!m->known || !t || m->hash == tokenizer_hash(t))
        return GT_OK;
    return gt_fail(GT_MISUSE,
                   "'%s' was trained with another tokenizer, as its config.json says (%s, %u tokens, "
                   "%016llx), than %s (%s, %u tokens, %016llx), whose ids mean other texts; put the first one "
                   "back into '%s/tokenizer' from a copy or an export of the run, or name it with --tokenizer",
                   run, m->kind, m->tokens, (unsigned long long)m->hash, what, tokenizer_name(t), tokenizer_vocab(t),
                   (unsigned long long)tokenizer_hash(t), run);
}

/* A run's config.json holds the model's description under "model". */
static gt_status read_run_config(const char *path, int *is_run, cli_tokenizer_mark *mark)
{
    json_error_t error;
    char *file = gt_path_join(path, "config.json"), *text = NULL;
    gt_status st = file ? GT_OK : no_memory(path);
    *is_run = 0;
    if (!st && !gt_path_exists(file))
        st = gt_fail(GT_NOT_FOUND,
                     "'%s' is neither a run directory nor a Hugging Face folder: "
                     "there is no config.json in it",
                     path);
    if (!st)
        st = gt_file_read(&text, NULL, file, 1u << 24);
    json_t *root = st ? NULL : json_loads(text, JSON_REJECT_DUPLICATES, &error);
    if (!st && !root)
        st = gt_fail(GT_FORMAT, "'%s', line %d: %s", file, error.line, error.text);
    *is_run = json_is_object(json_object_get(root, "model"));
    if (!st && *is_run)
        st = parse_mark(mark, root, file);
    json_decref(root);
    free(text);
    free(file);
    return st;
}

gt_status cli_tokenizer_mark_read(cli_tokenizer_mark *out, const char *run)
{
    int is_run;
    char *file = gt_path_join(run, "config.json");
    const int there = file && gt_path_exists(file);
    const gt_status st = file ? GT_OK : no_memory(run);
    free(file);
    *out = (cli_tokenizer_mark){ 0 };
    return st || !there ? st : read_run_config(run, &is_run, out);
}

gt_status cli_source_options(json_t **out, const cli_source *s)
{
    json_error_t error;
    *out = NULL;
    if (!s->is_run)
        return GT_OK;
    char *file = gt_path_join(s->path, "config.json"), *text = NULL;
    gt_status st = file ? gt_file_read(&text, NULL, file, 1u << 24) : no_memory(s->path);
    json_t *root = st ? NULL : json_loads(text, JSON_REJECT_DUPLICATES, &error);
    if (!st && !root)
        st = gt_fail(GT_FORMAT, "'%s', line %d: %s", file, error.line, error.text);
    *out = json_incref(json_object_get(root, "options"));
    json_decref(root);
    free(text);
    free(file);
    return st;
}

static gt_status open_tokenizer(cli_source *s)
{
    char what[512];
    gt_status st = tokenizer_open(&s->tokenizer, s->tokenizer_path);
    snprintf(what, sizeof what, "that in '%s'", s->tokenizer_path);
    if (!st)
        st = cli_tokenizer_mark_check(&s->mark, s->path, s->tokenizer, what);
    if (st) {
        tokenizer_close(s->tokenizer);
        s->tokenizer = NULL;
    }
    return st;
}

/* The tokenizer beside the weights. One that cannot be read, or is not theirs, is kept as a sentence for whoever needs
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
    s->tokenizer_status = open_tokenizer(s);
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
    if (!s->tokenizer && s->mark.known)
        return gt_fail(GT_NOT_FOUND,
                       "'%s' has no tokenizer, and was trained with one (%s, %u tokens, %016llx); "
                       "%s",
                       s->path, s->mark.kind, s->mark.tokens, (unsigned long long)s->mark.hash, fix);
    return s->tokenizer ? GT_OK : gt_fail(GT_NOT_FOUND, "'%s' has no tokenizer; %s", s->path, fix);
}

gt_status cli_same_tokenizer(const char *model, const tokenizer *own, const char *path, const tokenizer *other,
                             const char *what)
{
    if (!own || !other || tokenizer_hash(own) == tokenizer_hash(other))
        return GT_OK;
    return gt_fail(GT_MISUSE,
                   "'%s' was trained with the tokenizer in '%s' (%s, %u tokens, %016llx), and %s "
                   "is another one (%s, %u tokens, %016llx): its ids mean other texts; leave --tokenizer "
                   "out, give text or tokens of the first, or train a new model",
                   model, path, tokenizer_name(own), tokenizer_vocab(own), (unsigned long long)tokenizer_hash(own),
                   what, tokenizer_name(other), tokenizer_vocab(other), (unsigned long long)tokenizer_hash(other));
}

/* RUN of RUN/checkpoints/step-000200, whatever links lead there; NULL if the folder is no checkpoint of a run. */
static char *run_of(const char *path)
{
    static const char between[] = "/checkpoints";
    char *manifest = gt_path_join(path, "manifest.json");
    char *run = manifest && gt_path_exists(manifest) ? realpath(path, NULL) : NULL;
    char *end = run ? strrchr(run, '/') : NULL;
    free(manifest);
    if (end)
        *end = '\0';
    const size_t n = run ? strlen(run) : 0, m = sizeof between - 1;
    if (n > m && !strcmp(run + n - m, between)) {
        run[n - m] = '\0';
        return run;
    }
    free(run);
    return NULL;
}

/* What a run keeps: "best, 150, 200". */
static void list_checkpoints(gt_text *out, const char *run)
{
    char *folder = gt_path_join(run, "checkpoints");
    DIR *dir = folder ? opendir(folder) : NULL;
    for (struct dirent *e; dir && (e = readdir(dir));) {
        const int step = !strncmp(e->d_name, "step-", 5);
        if (step || !strcmp(e->d_name, "best"))
            gt_text_printf(out, "%s%s", out->size ? ", " : "", step ? e->d_name + 5 : e->d_name);
    }
    if (dir)
        closedir(dir);
    free(folder);
}

/* The folder of a checkpoint that is asked for by name. */
static gt_status find_named(char **out, const char *run, const char *which)
{
    char name[64];
    uint64_t step = 0;
    const int best = !strcmp(which, "best");
    if (!best && gt_parse_u64(&step, which))
        return gt_fail(GT_MISUSE, "option --checkpoint: '%s' is neither best nor the number of a step", which);
    snprintf(name, sizeof name, best ? "checkpoints/best" : "checkpoints/step-%06llu", (unsigned long long)step);
    *out = gt_path_join(run, name);
    if (!*out)
        return no_memory(run);
    if (gt_path_is_folder(*out))
        return GT_OK;
    gt_text there = { 0 };
    list_checkpoints(&there, run);
    gt_status st = gt_fail(GT_NOT_FOUND, "'%s' has no checkpoint '%s'; there is %s%s", run, which,
                           there.size ? there.data : "none",
                           best ? "; train --keep-best keeps the one with the lowest validation loss" : "");
    gt_text_release(&there);
    return st;
}

static gt_status check_vocabulary(const cli_source *s)
{
    if (!s->tokenizer || (int)tokenizer_vocab(s->tokenizer) <= s->config.vocab)
        return GT_OK;
    return gt_fail(GT_MISMATCH, "'%s': its tokenizer has %u tokens, its model %d", s->path,
                   tokenizer_vocab(s->tokenizer), s->config.vocab);
}

gt_status cli_source_take_tokenizer(cli_source *s, const char *spec)
{
    tokenizer *given = NULL;
    char what[512];
    if (tokenizer_needs_text(spec))
        return gt_fail(GT_MISUSE,
                       "option --tokenizer: '%s' would be made of a text; name the folder or file of the one "
                       "that '%s' was trained with",
                       spec, s->path);
    gt_status st = tokenizer_open(&given, spec);
    snprintf(what, sizeof what, "--tokenizer %s", spec);
    if (!st)
        st = cli_tokenizer_mark_check(&s->mark, s->path, given, what);
    if (!st)
        st = cli_same_tokenizer(s->path, s->tokenizer, s->tokenizer_path, given, what);
    if (st) {
        tokenizer_close(given);
        return st;
    }
    tokenizer_close(s->tokenizer);
    free(s->tokenizer_why);
    s->tokenizer = given;
    s->tokenizer_why = NULL;
    s->tokenizer_status = GT_OK;
    return check_vocabulary(s);
}

gt_status cli_source_open(cli_source *out, const char *path)
{
    return cli_source_open_at(out, path, NULL);
}

gt_status cli_source_open_at(cli_source *out, const char *path, const char *which)
{
    memset(out, 0, sizeof *out);
    char *named = NULL;
    gt_status st = GT_OK;
    if (!gt_path_exists(path))
        return gt_fail(GT_NOT_FOUND, "cannot open '%s': no such folder", path);
    out->path = run_of(path);
    if (out->path) {
        named = strdup(path);
        if (which)
            st = gt_fail(GT_MISUSE, "option --checkpoint: '%s' is one already; name the run", path);
        path = out->path;
    } else {
        out->path = strdup(path);
    }
    if (!out->path)
        return no_memory(path);
    if (!st)
        st = model_folder_check(path);
    if (!st && gt_path_is_folder(path))         /* a file holds weights alone */
        st = read_run_config(path, &out->is_run, &out->mark);
    if (!st)
        st = model_config_load(&out->config, path);
    if (!st && which && !out->is_run)
        st = gt_fail(GT_MISUSE, "option --checkpoint would be ignored: '%s' is no run", path);
    if (!st && which)
        st = find_named(&named, path, which);
    if (!st && out->is_run)
        st = cli_tuning_read(&out->config.tuning, path);
    if (!st && out->is_run)
        st = checkpoint_find(&out->checkpoint, &out->info, named ? named : path);
    free(named);
    if (!st)
        st = find_tokenizer(out);
    if (!st)
        st = check_vocabulary(out);
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
    free(s->adapter);
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
    return gt_fail(GT_MISUSE,
                   "model '%s' has %s as the weights of '%s': they would compute something else; "
                   "leave --model out to take what '%s' says",
                   name, what, s->path, s->path);
}

/* Does a run's checkpoint hold just the adapters that c asks for? */
static int same_adapters(const model_tuning *a, const model_tuning *b)
{
    return a->rank == b->rank && a->dora == b->dora && !strcmp(a->targets, b->targets) && a->alpha == b->alpha
           && a->rslora == b->rslora && !strcmp(a->saved, b->saved);
}

/* The model's own tensors, and a run's adapters where it has those that are wanted. */
static gt_status fill_base(const cli_source *s, const model_config *c, params *p, int *adapted)
{
    *adapted = 0;
    if (!s->is_run)
        return model_import(c, p, s->path);
    *adapted = s->config.tuning.rank > 0 && !s->adapter;
    if (*adapted && !same_adapters(&s->config.tuning, &c->tuning))
        return gt_fail(GT_MISUSE,
                       "'%s' was trained with adapters, and other ones or none are asked for; write it in one piece "
                       "with `geartrain export %s --merge -o DIR`, and begin from that",
                       s->path, s->path);
    gt_status st = check_model(s->checkpoint, c);
    return st ? st : checkpoint_load_some(s->checkpoint, p, *adapted ? NULL : lora_is_base);
}

/* Shapes that fit do not say that it is the same model. */
gt_status cli_source_fill(const void *config, params *p, void *source)
{
    const cli_source *s = source;
    const model_config *c = config;
    int adapted;
    gt_status st = cli_source_check_model(s, c, c->name);
    if (!st)
        st = fill_base(s, c, p, &adapted);
    if (!st && !adapted)
        st = lora_begin(c, p, s->seed);
    return st || !s->adapter ? st : lora_import(c, p, s->adapter);
}

/* ---- what data ask of a model ------------------------------------------------------------------------ */

static int reads(const graph *g, const char *name)
{
    for (int v = 0; v < graph_value_count(g); v++)
        if (graph_value_at(g, v)->role == GRAPH_INPUT && !strcmp(graph_value_at(g, v)->name, name))
            return 1;
    return 0;
}

gt_status cli_settle_reading(model_config *c, const token_split *s)
{
    graph *whole = NULL;
    data_batch b;
    const loader l = { .split = s, .batch = 1, .tokens = 1 };
    model_config wanted = *c;
    model_batch(&b, c, &l, "training");
    /* Other tasks than the next token have targets of their own. */
    const int within = s->reading.within;
    const int weighs = c->task == MODEL_LM && b.weights && !strcmp(b.weights, "weights");
    if (!weighs && !within)
        return GT_OK;
    wanted.weighted |= weighs;
    wanted.documents |= within;
    if (!wanted.vocab)
        wanted.vocab = 1;
    gt_status st = graph_create(&whole, DTYPE_F32, 1, 1);
    if (!st)
        st = model_build_loss(whole, &wanted, 0, 0);
    if (!st && within && !reads(whole, "starts"))
        st = gt_fail(GT_UNSUPPORTED,
                     "%s models do not keep documents apart; leave --documents within out, or say --rows documents",
                     c->family);
    if (!st && weighs && !reads(whole, "weights"))
        st = gt_fail(GT_UNSUPPORTED, "%s models do not weigh their targets, as these data ask for", c->family);
    graph_release(whole);
    c->weighted = wanted.weighted;
    c->documents = wanted.documents;
    return st;
}

gt_status cli_token_bytes(unsigned char **out, uint32_t *count, const tokenizer *t)
{
    gt_status st = GT_OK;
    *out = NULL;
    *count = 0;
    if (!t || !tokenizer_spells_alone(t))
        return GT_OK;
    *count = tokenizer_vocab(t);
    *out = calloc((size_t)*count + 1, 1);
    if (!*out)
        return gt_fail(GT_NO_MEMORY, "no memory for the lengths of %u tokens", *count);
    for (uint32_t id = 0; !st && id < *count; id++) {
        gt_text text = { 0 };
        if (!tokenizer_has(t, id) || (int64_t)id == tokenizer_eot(t))
            continue;
        st = tokenizer_decode(t, &id, 1, &text);
        (*out)[id] = (unsigned char)(text.size < 255 ? text.size : 255);
        gt_text_release(&text);
    }
    if (st) {
        free(*out);
        *out = NULL;
    }
    return st;
}
