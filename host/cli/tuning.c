/* SPDX-License-Identifier: MIT */
/* host/cli/tuning.c - what of a run's model is trained, as its config.json keeps it, and adapters from folders.
 *
 *   "tuning": {"freeze": "wte.*", "rank": 8, "alpha": 16.0, "dropout": 0.0, "targets": "c_attn",
 *              "dora": false, "rslora": false, "base": "int8", "saved": "classifier.weight,classifier.bias"}                            */
#include "host/cli/cli.h"

#include "host/base/file.h"
#include "models/lora.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int is_all(const model_tuning *t)
{
    return !t->rank && !t->freeze[0] && t->base == DTYPE_F32;
}

static gt_status take_patterns(char out[MODEL_PATTERNS], const char *option, const char *patterns)
{
    if (patterns && (!*patterns || strlen(patterns) >= MODEL_PATTERNS))
        return gt_fail(GT_MISUSE, "option --%s: a pattern is missing, or they are longer than %d characters", option,
                       MODEL_PATTERNS - 1);
    snprintf(out, MODEL_PATTERNS, "%s", patterns ? patterns : "");
    return GT_OK;
}

gt_status cli_base_precision(model_tuning *t, const char *given, const char *precision)
{
    dtype base = DTYPE_F32, all = DTYPE_F32;
    dtype_parse(&all, precision);
    dtype_parse(&base, given);
    if (dtype_size(base) > dtype_size(all) || (base == DTYPE_BF16 && all == DTYPE_F16))
        return gt_fail(GT_MISUSE,
                       "option --base-precision: frozen matrices in %s would be widened by --precision %s; "
                       "choose one that takes less",
                       given, precision);
    t->base = base == all ? DTYPE_F32 : base;
    return GT_OK;
}

gt_status cli_tuning_take(model_tuning *out, const cli_tuning_options *o, const char *precision)
{
    *out = (model_tuning){ .rank = o->rank, .dora = o->dora, .rslora = o->rslora };
    if (o->rank < 0 || o->rank > 4096)
        return gt_fail(GT_MISUSE, "option --lora: a rank of %d is not in 0 to 4096", o->rank);
    if (!isnan(o->alpha) && !(o->alpha > 0.0 && o->alpha <= 1e6))
        return gt_fail(GT_MISUSE, "option --lora-alpha: %g is not above 0", o->alpha);
    if (!(o->dropout >= 0.0 && o->dropout < 1.0))
        return gt_fail(GT_MISUSE, "option --lora-dropout: %g is not in [0, 1)", o->dropout);
    out->alpha = (float)(isnan(o->alpha) ? 2.0 * o->rank : o->alpha);
    out->dropout = (float)o->dropout;
    gt_status st = take_patterns(out->freeze, "freeze", o->freeze);
    if (!st)
        st = take_patterns(out->targets, "lora-targets", o->targets);
    return st || !o->base_precision ? st : cli_base_precision(out, o->base_precision, precision);
}

json_t *cli_tuning_json(const model_tuning *t)
{
    return is_all(t) ? NULL
                     : json_pack("{s:s, s:i, s:f, s:f, s:s, s:b, s:b, s:s, s:s}", "freeze", t->freeze, "rank", t->rank,
                                 "alpha", (double)t->alpha, "dropout", (double)t->dropout, "targets", t->targets,
                                 "dora", t->dora, "rslora", t->rslora, "base",
                                 t->base == DTYPE_F32 ? "" : dtype_name(t->base), "saved", t->saved);
}

/* A pattern list of a config.json; 0 if it is too long. */
static int copy_patterns(char out[MODEL_PATTERNS], const char *from)
{
    return snprintf(out, MODEL_PATTERNS, "%s", from) < MODEL_PATTERNS;
}

static gt_status parse_tuning(model_tuning *out, const json_t *root, const char *file)
{
    const json_t *entry = json_object_get(root, "tuning");
    const char *freeze, *targets, *base, *saved = "";
    double alpha, drop;
    *out = (model_tuning){ 0 };
    if (!entry)
        return GT_OK;
    int good = !json_unpack((json_t *)(uintptr_t)entry, "{s:s, s:i, s:F, s:F, s:s, s:b, s:b, s:s, s?s}", "freeze",
                            &freeze, "rank", &out->rank, "alpha", &alpha, "dropout", &drop, "targets", &targets, "dora",
                            &out->dora, "rslora", &out->rslora, "base", &base, "saved", &saved)
               && copy_patterns(out->freeze, freeze) && copy_patterns(out->targets, targets) && out->rank >= 0
               && out->rank <= 4096 && alpha >= 0.0 && alpha <= 1e6 && drop >= 0.0 && drop < 1.0;
    if (good && *base)
        good = dtype_parse(&out->base, base) && (out->base == DTYPE_BF16 || out->base == DTYPE_Q8);
    if (!good)
        return gt_fail(GT_FORMAT, "'%s': what it says under \"tuning\" makes no sense", file);
    if (snprintf(out->saved, sizeof out->saved, "%s", saved) >= (int)sizeof out->saved)
        return gt_fail(GT_FORMAT, "'%s': what it says under \"tuning\" makes no sense", file);
    out->alpha = (float)alpha;
    out->dropout = (float)drop;
    return GT_OK;
}

gt_status cli_tuning_read(model_tuning *out, const char *run)
{
    json_error_t error;
    char *file = gt_path_join(run, "config.json"), *text = NULL;
    gt_status st = file ? gt_file_read(&text, NULL, file, 1u << 24)
                        : gt_fail(GT_NO_MEMORY, "cannot read '%s': no memory for its path", run);
    json_t *root = st ? NULL : json_loads(text, JSON_REJECT_DUPLICATES, &error);
    if (!st && !root)
        st = gt_fail(GT_FORMAT, "'%s', line %d: %s", file, error.line, error.text);
    if (!st)
        st = parse_tuning(out, root, file);
    json_decref(root);
    free(text);
    free(file);
    return st;
}

gt_status cli_source_adapt(cli_source *s, const char *folder)
{
    if (s->config.tuning.rank)
        return gt_fail(GT_MISUSE,
                       "'%s' was trained with adapters of its own, so --adapter '%s' cannot be added; name the "
                       "model that it was trained from",
                       s->path, folder);
    gt_status st = lora_read(&s->config, folder);
    if (!st)
        st = lora_check(&s->config);
    if (st)
        return st;
    s->adapter = strdup(folder);
    return s->adapter ? GT_OK : gt_fail(GT_NO_MEMORY, "cannot use the adapter in '%s': no memory for its path", folder);
}
