/* SPDX-License-Identifier: MIT */
/* host/gemm/gemm_choices.c - which engine multiplies which class of products: in memory, and in a file, a class a line.
 *
 *   geartrain gemm 5                                 the head; another one is ignored
 *   nt fp32 fp32 fp32 1024 768 768 1 - native 1 0.0063
 *
 * (the class, see gemm_desc.c; engine, its version, seconds; in place of transposes "a" and a letter where another
 * room chose among engines.) A line that does not parse, or names an engine or version this build lacks, is dropped, and
 * its class is measured again. */
#include "host/gemm/gemm_choices.h"

#include "host/base/file.h"
#include "host/base/log.h"
#include "host/base/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char cache_head[] = "geartrain gemm 5\n";
enum { CACHE_LIMIT = 1 << 20 };

const gemm_choice *gemm_choices_find(const gemm_choices *s, const char *class_name)
{
    for (int i = 0; i < s->count; i++)
        if (!strcmp(s->all[i].class_name, class_name))
            return &s->all[i];
    return NULL;
}

gt_status gemm_choices_add(gemm_choices *s, const char *class_name, const gemm_engine *engine, double seconds)
{
    gemm_choice *grown = realloc(s->all, ((size_t)s->count + 1) * sizeof *grown);
    if (!grown)
        return gt_fail(GT_NO_MEMORY, "no memory for %d choices of GEMM engines", s->count + 1);
    s->all = grown;
    gemm_choice *x = &grown[s->count++];
    snprintf(x->class_name, sizeof x->class_name, "%s", class_name);
    x->engine = engine;
    x->seconds = seconds;
    return GT_OK;
}

void gemm_choices_drop(gemm_choices *s, const char *class_name)
{
    for (int i = 0; i < s->count; i++)
        if (!strcmp(s->all[i].class_name, class_name))
            s->all[i--] = s->all[--s->count];
}

void gemm_choices_release(gemm_choices *s)
{
    free(s->all);
    free(s->path);
}

/* ---- files ------------------------------------------------------------------------------ */

/* Takes over one line of the cache, unless its class is known; 0 if it is not one this build can use. */
static int take_line(gemm_choices *s, const char *line)
{
    char ab[3], ta[8], tb[8], tc[8], e[2], engine[16];
    int M, N, K, batch, version, end = 0;
    double seconds;
    if (sscanf(line, "%2s %7s %7s %7s %d %d %d %d %1s %15s %d %lf%n", ab, ta, tb, tc, &M, &N, &K, &batch, e, engine,
               &version, &seconds, &end)
            != 12
        || line[end])
        return 0;

    char class_name[GEMM_CLASS];
    snprintf(class_name, sizeof class_name, "%s %s %s %s %d %d %d %d %s", ab, ta, tb, tc, M, N, K, batch, e);
    const gemm_engine *found = gemm_engine_named(engine);
    if (!found || found->version != version)
        return 0;
    return gemm_choices_find(s, class_name) || gemm_choices_add(s, class_name, found, seconds) == GT_OK;
}

/* Takes over every line of a file of choices that is of use and not yet known. */
static void take_file(gemm_choices *s, const char *path, gt_log_level level)
{
    char *text = NULL;
    if (gt_path_exists(path)) {
        size_t size = 0;
        int dropped = 0;
        char *rest = NULL;
        const int whole = !gt_file_read(&text, &size, path, CACHE_LIMIT) && strlen(text) == size
                          && !strncmp(text, cache_head, sizeof cache_head - 1) && text[size - 1] == '\n';
        for (char *line = whole ? strtok_r(text + sizeof cache_head - 1, "\n", &rest) : NULL; line;
             line = strtok_r(NULL, "\n", &rest))
            dropped += !take_line(s, line);
        if (!whole)
            gt_log(level, "gemm", "'%s' is damaged or of another version; what it holds is measured again", path);
        else if (dropped)
            gt_log(level, "gemm", "%d choices in '%s' are of no use here; such products are measured again", dropped,
                   path);
    }
    free(text);
    gt_message_clear();
}

/* A choice that others make (gemm_other): no transpose is called so. */
static int is_of_others(const gemm_choice *x)
{
    return x->class_name[0] == 'a';
}

double gemm_best_rate(const gemm_context *c, dtype storage)
{
    const gemm_choices *s = gemm_choices_of(c);
    double best = 0.0;
    for (int i = 0; i < s->count; i++) {
        const gemm_choice *x = &s->all[i];
        char type[8];
        double M, N, K, batch;
        if (is_of_others(x))
            continue;
        if (sscanf(x->class_name, "%*s %7s %*s %*s %lf %lf %lf %lf", type, &M, &N, &K, &batch) != 5
            || strcmp(type, dtype_name(storage)) || x->seconds <= 0.0)
            continue;
        const double rate = 2.0 * M * N * K * (batch > 1.0 ? batch : 1.0) / x->seconds;
        best = rate > best ? rate : best;
    }
    return best;
}

void gemm_choices_read(gemm_choices *s, const dev_device *d)
{
    char *folder = NULL, name[32];
    snprintf(name, sizeof name, "%016llx.txt", (unsigned long long)dev_fingerprint(d));
    if (!gt_cache_folder(&folder, "gemm"))
        s->path = gt_path_join(folder, name);
    free(folder);
    if (s->path)
        take_file(s, s->path, GT_LOG_INFO);
    gt_message_clear();
}

static gt_status write_file(const gemm_choices *s, const char *path)
{
    gt_text t = { 0 };
    gt_text_printf(&t, "%s", cache_head);
    for (int i = 0; i < s->count; i++)
        gt_text_printf(&t, "%s %s %d %.3g\n", s->all[i].class_name, gemm_name_of(s->all[i].engine),
                       s->all[i].engine->version, s->all[i].seconds);
    gt_status st = t.failed ? gt_fail(GT_NO_MEMORY, "cannot write '%s': no memory for its text", path)
                            : gt_file_write(path, t.data, t.size);
    gt_text_release(&t);
    return st;
}

void gemm_choices_keep(gemm_choices *s)
{
    if (!s->path)
        return;
    take_file(s, s->path, GT_LOG_DEBUG);
    if (write_file(s, s->path)) {
        gt_log(GT_LOG_INFO, "gemm", "measurements are not kept: %s", gt_message());
        gt_message_clear();
    }
}

gt_status gemm_choices_save(const gemm_context *c, const char *path)
{
    return write_file(gemm_choices_of(c), path);
}

void gemm_choices_load(gemm_context *c, const char *path)
{
    gemm_choices *s = gemm_choices_of(c);
    /* What was chosen for that run goes before what this machine has measured since. */
    gemm_choice *known = s->all;
    const int count = s->count;
    s->all = NULL;
    s->count = 0;
    take_file(s, path, GT_LOG_WARN); /* its sums may come out otherwise in the last bits */
    for (int i = 0; i < count; i++)
        if (!gemm_choices_find(s, known[i].class_name)
            && gemm_choices_add(s, known[i].class_name, known[i].engine, known[i].seconds))
            gt_message_clear();
    free(known);
}

/* ---- choices of others ---------------------------------------------------------------- */

static void class_of_others(char out[GEMM_CLASS], const gemm_other *o)
{
    const char *type = dtype_name(o->type);
    snprintf(out, GEMM_CLASS, "a%c %s %s %s %d %d %d %d %c", o->what, type, type, type, o->size[0], o->size[1],
             o->size[2], o->size[3], o->kind);
}

const char *gemm_other_known(const gemm_context *c, const gemm_other *o)
{
    char class_name[GEMM_CLASS];
    class_of_others(class_name, o);
    const gemm_choice *x = gemm_choices_find(gemm_choices_of(c), class_name);
    return x ? gemm_name_of(x->engine) : NULL;
}

gt_status gemm_other_keep(gemm_context *c, const gemm_other *o, const char *engine, double seconds)
{
    gemm_choices *s = gemm_choices_of(c);
    char class_name[GEMM_CLASS];
    class_of_others(class_name, o);
    gt_status st = gemm_choices_add(s, class_name, gemm_engine_named(engine), seconds);
    if (!st)
        gemm_choices_keep(s);
    return st;
}
