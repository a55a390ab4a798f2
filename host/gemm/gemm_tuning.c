/* SPDX-License-Identifier: MIT */
/* host/gemm/gemm_tuning.c - what has been tuned on a device, as a file keeps it.
 *
 *   geartrain tuning 1                                             the head; another one is ignored
 *   nt fp32 fp32 fp32 1024 768 768 1 tiled 1 rows:6,vectors:4,... 0.0063
 *
 * (transposes, types of A B C, M N K, batch; engine, version of its kernel, variant, seconds.) One file a device,
 * DRIVER'S FINGERPRINT.txt in the cache folder "tuning", read when a kernel that can be tuned is first asked for.
 * A line that does not parse, or names a variant that this build lacks or the device cannot take, is dropped: such
 * products have the variant that ships. The class is that of the choice between engines (gemm.c), without the
 * epilogue: it does not change which way of cutting a product is the fastest.
 *
 * A run keeps the engines it began with beside its checkpoints, and not the variants: all of an engine's give the
 * same bits, or gemm_tune() would not have counted them, so a run that is resumed after a tuning has the same
 * sums in less time.                                                                        */
#include "host/gemm/engine.h"

#include "host/base/file.h"
#include "host/base/log.h"
#include "host/base/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char head[] = "geartrain tuning 1\n";
enum { CLASS_CHARS = 96, FILE_LIMIT = 1 << 20 };

typedef struct entry {
    char class_name[CLASS_CHARS];
    const gemm_tunable *tunable;
    gemm_variant variant;
    double seconds;
} entry;

struct gemm_tuning {
    char *path;                 /* NULL: no cache folder; it lives in memory */
    entry *entries;
    int count;
};

static void class_of(char out[CLASS_CHARS], const gemm_context *c, const gemm_desc *g)
{
    const gemm_desc s = gemm_shrink(c, g);
    snprintf(out, CLASS_CHARS, "%c%c %s %s %s %d %d %d %d", s.trans_a ? 't' : 'n', s.trans_b ? 't' : 'n',
             dtype_name(s.a_type), dtype_name(s.b_type), dtype_name(s.c_type), s.M, s.N, s.K, s.batch);
}

static entry *find(const gemm_tuning *t, const char *class_name, const gemm_tunable *tunable)
{
    for (int i = 0; i < t->count; i++)
        if (t->entries[i].tunable == tunable && !strcmp(t->entries[i].class_name, class_name))
            return &t->entries[i];
    return NULL;
}

static gt_status add(gemm_tuning *t, const entry *e)
{
    entry *grown = realloc(t->entries, ((size_t)t->count + 1) * sizeof *grown);
    if (!grown)
        return gt_fail(GT_NO_MEMORY, "no memory for %d tuned products", t->count + 1);
    t->entries = grown;
    grown[t->count++] = *e;
    return GT_OK;
}

/* The kernel of that engine which this device can tune; NULL: none. */
static const gemm_tunable *tunable_named(gemm_context *c, const char *engine)
{
    const gemm_engine *e = gemm_engine_named(engine);
    return e && e->tunable ? e->tunable(c) : NULL;
}

/* Takes over one line, unless its class is known; 0 if it is of no use here. */
static int take_line(gemm_context *c, gemm_tuning *t, const char *line)
{
    char ab[3], ta[8], tb[8], tc[8], engine[16], variant[GEMM_VARIANT_CHARS];
    int M, N, K, batch, version, end = 0;
    entry e = { .tunable = NULL };
    _Static_assert(GEMM_VARIANT_CHARS == 96, "the number in the line below");
    if (sscanf(line, "%2s %7s %7s %7s %d %d %d %d %15s %d %95s %lf%n", ab, ta, tb, tc, &M, &N, &K, &batch, engine,
               &version, variant, &e.seconds, &end)
            != 12
        || line[end])
        return 0;
    snprintf(e.class_name, sizeof e.class_name, "%s %s %s %s %d %d %d %d", ab, ta, tb, tc, M, N, K, batch);
    e.tunable = tunable_named(c, engine);
    if (!e.tunable || e.tunable->version != version || !gemm_variant_parse(&e.variant, e.tunable, variant)
        || !e.tunable->legal(c, &e.variant))
        return 0;
    return find(t, e.class_name, e.tunable) || add(t, &e) == GT_OK;
}

static void take_file(gemm_context *c, gemm_tuning *t, gt_log_level level)
{
    char *text = NULL, *rest = NULL;
    size_t size = 0;
    int dropped = 0;
    if (!t->path || !gt_path_exists(t->path))
        return;
    const int whole = !gt_file_read(&text, &size, t->path, FILE_LIMIT) && strlen(text) == size
                      && !strncmp(text, head, sizeof head - 1) && text[size - 1] == '\n';
    for (char *line = whole ? strtok_r(text + sizeof head - 1, "\n", &rest) : NULL; line;
         line = strtok_r(NULL, "\n", &rest))
        dropped += !take_line(c, t, line);
    if (!whole)
        gt_log(level, "gemm", "'%s' is damaged or of another version; its products are multiplied as untuned ones are",
               t->path);
    else if (dropped)
        gt_log(level, "gemm", "%d tuned products in '%s' are of no use here; they are multiplied as untuned ones are",
               dropped, t->path);
    free(text);
    gt_message_clear();
}

/* NULL where there is no memory for it: then everything is untuned. */
static gemm_tuning *tuning_of(gemm_context *c)
{
    gemm_tuning **kept = gemm_tuning_slot(c);
    char name[32], *folder = NULL;
    if (*kept || !(*kept = calloc(1, sizeof **kept)))
        return *kept;
    snprintf(name, sizeof name, "%016llx.txt", (unsigned long long)dev_fingerprint(gemm_device(c)));
    if (!gt_cache_folder(&folder, "tuning"))
        (*kept)->path = gt_path_join(folder, name);
    free(folder);
    gt_message_clear();
    take_file(c, *kept, GT_LOG_INFO);
    return *kept;
}

void gemm_tuning_release(gemm_tuning *t)
{
    if (!t)
        return;
    free(t->path);
    free(t->entries);
    free(t);
}

const char *gemm_tuning_file(gemm_context *c)
{
    const gemm_tuning *t = tuning_of(c);
    return t ? t->path : NULL;
}

void gemm_tuned(gemm_context *c, const gemm_tunable *tunable, const gemm_desc *g, gemm_variant *out)
{
    const gemm_tuning *t = tuning_of(c);
    char class_name[CLASS_CHARS];
    if (t && t->count) {
        class_of(class_name, c, g);
        const entry *e = find(t, class_name, tunable);
        if (e) {
            *out = e->variant;
            return;
        }
    }
    tunable->usual(c, g, out);
}

int gemm_is_tuned(gemm_context *c, const gemm_tunable *tunable, const gemm_desc *g)
{
    const gemm_tuning *t = tuning_of(c);
    char class_name[CLASS_CHARS];
    class_of(class_name, c, g);
    return t && find(t, class_name, tunable);
}

int gemm_tuned_alike(gemm_context *c, const gemm_tunable *tunable, const gemm_desc *g, int i, gemm_variant *out)
{
    const gemm_tuning *t = tuning_of(c);
    char class_name[CLASS_CHARS];
    class_of(class_name, c, g);
    size_t kind = 0;                            /* "nt fp32 fp32 fp32 " */
    for (int spaces = 0; spaces < 4; kind++)
        spaces += class_name[kind] == ' ';
    for (int n = 0; t && n < t->count; n++)
        if (t->entries[n].tunable == tunable && !strncmp(t->entries[n].class_name, class_name, kind) && !i--) {
            *out = t->entries[n].variant;
            return 1;
        }
    return 0;
}

static gt_status write_file(const gemm_tuning *t)
{
    gt_text text = { 0 };
    char variant[GEMM_VARIANT_CHARS];
    gt_text_printf(&text, "%s", head);
    for (int i = 0; i < t->count; i++) {
        const entry *e = &t->entries[i];
        gt_text_printf(&text, "%s %s %d %s %.3g\n", e->class_name, e->tunable->engine, e->tunable->version,
                       gemm_variant_text(variant, e->tunable, &e->variant), e->seconds);
    }
    gt_status st = text.failed ? gt_fail(GT_NO_MEMORY, "cannot write '%s': no memory for its text", t->path)
                               : gt_file_write(t->path, text.data, text.size);
    gt_text_release(&text);
    return st;
}

gt_status gemm_tuning_keep(gemm_context *c, const gemm_tunable *tunable, const gemm_desc *g, const gemm_variant *v,
                           double seconds)
{
    gemm_tuning *t = tuning_of(c);
    entry e = { .tunable = tunable, .variant = *v, .seconds = seconds };
    if (!t)
        return gt_fail(GT_NO_MEMORY, "no memory for a tuned product");
    class_of(e.class_name, c, g);
    entry *known = find(t, e.class_name, tunable);
    gt_status st = GT_OK;
    if (known)
        *known = e;
    else
        st = add(t, &e);
    if (st || !t->path)
        return st;
    take_file(c, t, GT_LOG_DEBUG);              /* what others have tuned meanwhile stays */
    return write_file(t);
}
