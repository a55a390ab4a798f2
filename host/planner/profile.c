/* SPDX-License-Identifier: MIT */
/* host/planner/profile.c - profiles read off between sizes, and kept on disk.
 *
 *   geartrain profile 6
 *   sizes 3  1 2 4
 *   0 1  f b w kept kept_recompute passing      a line a kind and size
 *   ...
 *   rest  (parameters frozen update)... (exchanges bytes)... tied tied_frozen output trip
 *   end  hash of all above
 *
 * The hash makes a file that was cut short or changed the same as none: it is only a cache, and a
 * wrong time in it would spoil every plan without a word.                                  */
#include "host/planner/profile.h"

#include "host/base/file.h"
#include "host/base/log.h"
#include "host/base/text.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_TOKENS = 8192, MOST_BYTES = 1 << 16 };

profile_kind profile_kind_of(int u, int units)
{
    return u == 0 ? PROFILE_EMBEDDING : u == units - 1 ? PROFILE_HEAD : PROFILE_LAYER;
}

int profile_ladder(int size[PROFILE_SIZES], int largest, int T)
{
    int count = 0;
    if (largest > 1 && largest > MOST_TOKENS / T)
        largest = MOST_TOKENS / T > 1 ? MOST_TOKENS / T : 1;
    const int steps[PROFILE_SIZES] = { 1, largest / 4, largest / 2, largest };
    for (int i = 0; i < PROFILE_SIZES; i++)
        if (!count ? steps[i] >= 1 : steps[i] > size[count - 1])
            size[count++] = steps[i];
    return count;
}

/* ---- between sizes ------------------------------------------------------------------------ */

typedef struct between {
    int low, high;
    double weight, scale;
} between;    /* weight: of high */

static between find(const profile *p, int n)
{
    const int last = p->sizes - 1;
    if (n >= p->size[last])
        return (between){ last, last, 0.0, (double)n / p->size[last] };
    if (n <= p->size[0])
        return (between){ 0, 0, 0.0, (double)n / p->size[0] };
    int i = 0;
    while (p->size[i + 1] < n)
        i++;
    return (between){ i, i + 1, (double)(n - p->size[i]) / (p->size[i + 1] - p->size[i]), 1.0 };
}

static double mix(const between *b, double low, double high)
{
    return b->scale * (low + b->weight * (high - low));
}

profile_cost profile_at(const profile *p, profile_kind kind, int n, int recompute)
{
    const between b = find(p, n);
    const profile_cost *x = &p->unit[kind][b.low], *y = &p->unit[kind][b.high];
    profile_cost c = { mix(&b, x->forward, y->forward),
                       mix(&b, x->backward_input, y->backward_input),
                       mix(&b, x->backward_weight, y->backward_weight),
                       mix(&b, x->kept, y->kept),
                       mix(&b, x->kept_recompute, y->kept_recompute),
                       mix(&b, x->passing, y->passing) };
    if (recompute && kind == PROFILE_LAYER) {
        c.backward_input += c.forward;
        c.kept = c.kept_recompute;
    }
    return c;
}

gt_status profile_unit(int *unit, const profile_model *m, profile_kind kind)
{
    int64_t most = -1;
    gt_status st = GT_OK;
    *unit = kind == PROFILE_HEAD ? m->units - 1 : (int)kind;
    for (int u = 1; kind == PROFILE_LAYER && !st && u + 1 < m->units; u++) {
        graph *g = NULL;
        st = graph_create(&g, m->storage, 1, m->seq);
        if (!st)
            st = m->build(g, m->config, &(graph_part){ .first_unit = u, .units = 1 }, 0, 0);
        if (!st && graph_trained_elements(g) > most) {
            most = graph_trained_elements(g);
            *unit = u;
        }
        graph_release(g);
    }
    return st;
}

/* ---- on disk ------------------------------------------------------------------------------ */

/* All that a time can depend on. The graphs of the three kinds say what the model is: values with
 * their shapes, and so widths, vocabulary and sequence length, and whether there is dropout. */
static gt_status describe(gt_text *out, dev_device *d, const profile_model *m, const int *size, int count,
                          const char *concurrent)
{
    gt_status st = GT_OK;
    gt_text_printf(out, "%016" PRIx64 " %s %s T%d", dev_fingerprint(d), dev_info_of(d)->id, dtype_name(m->storage),
                   m->seq);
    for (int i = 0; i < count; i++)
        gt_text_printf(out, " %d", size[i]);
    /* What a rule keeps depends on its settings, and so does its time. */
    const optim_config updates = m->optim.rule ? m->optim : optim_defaults();
    double least, most;
    optim_state_bytes(&updates, &least, &most);
    gt_text_printf(out, " %s %g %g [%s]", optim_rule_name(updates.rule), least, most, concurrent);
    for (int kind = 0; !st && kind < PROFILE_KINDS; kind++) {
        int unit;
        graph *g = NULL;
        st = profile_unit(&unit, m, (profile_kind)kind);
        if (!st)
            st = graph_create(&g, m->storage, 1, m->seq);
        if (!st)
            st = m->build(g, m->config, &(graph_part){ .first_unit = unit, .units = 1 }, 1, 0);
        for (int v = 0; !st && v < graph_value_count(g); v++) {
            const graph_value *value = graph_value_at(g, v);
            char text[96];
            gt_text_printf(out, "\n%s %d %s", value->name, (int)value->role,
                           shape_format(&value->shape, text, sizeof text));
            if (value->role == GRAPH_PARAM && graph_param_at(g, value->param)->frozen)
                gt_text_printf(out, " %s", dtype_name(value->type));
        }
        graph_release(g);
    }
    return st || !out->failed ? st : gt_fail(GT_NO_MEMORY, "no memory for the profile's description");
}

static gt_status cache_path(char **out, dev_device *d, const profile_model *m, const int *size, int count,
                            const char *concurrent)
{
    gt_text text = { 0 };
    char *folder = NULL, name[32];
    *out = NULL;
    gt_status st = describe(&text, d, m, size, count, concurrent);
    if (!st)
        st = gt_cache_folder(&folder, "profile");
    if (!st) {
        snprintf(name, sizeof name, "%016" PRIx64 ".txt", gt_hash(text.data, text.size));
        *out = gt_path_join(folder, name);
        st = *out ? GT_OK : gt_fail(GT_NO_MEMORY, "no memory for the path of a profile");
    }
    free(folder);
    gt_text_release(&text);
    return st;
}

static const double *numbers_of(const profile_cost *c)
{
    return &c->forward;
}
enum { NUMBERS = sizeof(profile_cost) / sizeof(double) };

static const profile_exchange *exchanges_of(const profile *p)
{
    return &p->exchanges[0][0][0];
}
enum { EXCHANGES = sizeof(((profile *)0)->exchanges) / sizeof(profile_exchange) };

static void write_text(gt_text *out, const profile *p)
{
    gt_text_printf(out, "geartrain profile 6\nsizes %d ", p->sizes);
    for (int i = 0; i < p->sizes; i++)
        gt_text_printf(out, " %d", p->size[i]);
    for (int kind = 0; kind < PROFILE_KINDS; kind++)
        for (int i = 0; i < p->sizes; i++) {
            gt_text_printf(out, "\n%d %d ", kind, p->size[i]);
            for (int k = 0; k < NUMBERS; k++)
                gt_text_printf(out, " %.17g", numbers_of(&p->unit[kind][i])[k]);
        }
    gt_text_printf(out, "\nrest ");
    for (int kind = 0; kind < PROFILE_KINDS; kind++)
        gt_text_printf(out, " %.17g %.17g %.17g", p->parameters[kind], p->frozen[kind], p->update[kind]);
    for (int i = 0; i < EXCHANGES; i++)
        gt_text_printf(out, " %.17g %.17g", exchanges_of(p)[i].count, exchanges_of(p)[i].bytes);
    gt_text_printf(out, " %.17g %.17g %.17g %.17g\n", p->tied, p->tied_frozen, p->output, p->trip);
    gt_text_printf(out, "end  %016" PRIx64 "\n", gt_hash(out->data, out->size));
}

/* Takes one number off the text; NAN if there is none that is finite and not negative. */
static double take(char **at)
{
    char *end;
    const double x = strtod(*at, &end);
    const int good = end != *at && isfinite(x) && x >= 0.0;
    *at = end;
    return good ? x : NAN;
}

static int take_word(char **at, const char *word)
{
    const size_t n = strlen(word);
    while (**at == '\n' || **at == ' ')
        ++*at;
    if (strncmp(*at, word, n))
        return 0;
    *at += n;
    return 1;
}

/* 1: the text is one that write_text() made, for sizes that begin those asked for. */
static int read_text(profile *p, char *text, const int *size, int count)
{
    char *at = text, *end = strstr(text, "end  ");
    char sum[32];
    double check = 0;
    if (!end)
        return 0;
    snprintf(sum, sizeof sum, "end  %016" PRIx64 "\n", gt_hash(text, (size_t)(end - text)));
    if (strcmp(end, sum) || !take_word(&at, "geartrain profile 6") || !take_word(&at, "sizes"))
        return 0;
    const double sizes = take(&at);
    if (!(sizes >= 1 && sizes <= count))
        return 0;
    *p = (profile){ .sizes = (int)sizes };
    for (int i = 0; i < p->sizes; i++) {
        p->size[i] = size[i];
        check += fabs(take(&at) - size[i]);
    }
    for (int kind = 0; kind < PROFILE_KINDS; kind++)
        for (int i = 0; i < p->sizes; i++) {
            check += fabs(take(&at) - kind) + fabs(take(&at) - size[i]);
            for (int k = 0; k < NUMBERS; k++)
                ((double *)&p->unit[kind][i])[k] = take(&at);
        }
    if (!take_word(&at, "rest"))
        return 0;
    double *const rest[] = { &p->tied, &p->tied_frozen, &p->output, &p->trip };
    for (int kind = 0; kind < PROFILE_KINDS; kind++) {
        check += 0.0 * (p->parameters[kind] = take(&at));
        check += 0.0 * (p->frozen[kind] = take(&at));
        check += 0.0 * (p->update[kind] = take(&at));
    }
    for (int i = 0; i < EXCHANGES; i++) {
        profile_exchange *e = &p->exchanges[0][0][0] + i;
        check += 0.0 * (e->count = take(&at));
        check += 0.0 * (e->bytes = take(&at));
    }
    for (size_t i = 0; i < sizeof rest / sizeof *rest; i++)
        check += 0.0 * (*rest[i] = take(&at));
    return check == 0.0;
}

gt_status profile_load(profile *out, int *found, dev_device *d, const profile_model *m, const int *size, int count,
                       const char *concurrent)
{
    char *path, *text;
    *found = 0;
    gt_status st = cache_path(&path, d, m, size, count, concurrent);
    if (st)
        return st;
    if (!gt_file_read(&text, NULL, path, MOST_BYTES)) {
        *found = read_text(out, text, size, count);
        free(text);
        if (!*found)
            gt_log(GT_LOG_INFO, "plan", "the profile in '%s' is damaged or of another version; it is measured again",
                   path);
    } else {
        gt_message_clear();
    }
    free(path);
    return GT_OK;
}

gt_status profile_keep(const profile *p, dev_device *d, const profile_model *m, const int *size, int count,
                       const char *concurrent)
{
    char *path;
    gt_text text = { 0 };
    gt_status st = cache_path(&path, d, m, size, count, concurrent);
    if (st)
        return st;
    write_text(&text, p);
    st = text.failed ? gt_fail(GT_NO_MEMORY, "no memory for the profile as text")
                     : gt_file_write(path, text.data, text.size);
    gt_text_release(&text);
    free(path);
    return st;
}
