/* SPDX-License-Identifier: MIT */
/* tests/planner/test_profile.c - what is read off a profile between its sizes, what measuring finds on
 * a real device, and a cache that trusts nothing it did not write. */
#include "host/base/file.h"
#include "host/planner/profile.h"
#include "models/model.h"
#include "tests/check.h"
#include "tests/train/tiny_run.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static gt_status build(graph *g, const void *config, const graph_part *part, int training, int recompute)
{
    return model_build_part(g, config, part, training, recompute);
}

static profile_model tiny_model(const model_config *c)
{
    return (profile_model){ .build = build, .config = c, .units = model_units(c), .seq = TINY_T, .storage = DTYPE_F32 };
}

static void sizes_rise_from_one(void)
{
    static const struct {
        int largest, T, count, size[PROFILE_SIZES];
    } cases[] = { { 1, 64, 1, { 1 } },
                  { 2, 64, 2, { 1, 2 } },
                  { 3, 64, 2, { 1, 3 } },
                  { 4, 64, 3, { 1, 2, 4 } },
                  { 8, 64, 4, { 1, 2, 4, 8 } },
                  { 12, 64, 4, { 1, 3, 6, 12 } },
                  { 512, 64, 4, { 1, 32, 64, 128 } },
                  { 512, 1024, 4, { 1, 2, 4, 8 } },
                  { 16, 100000, 1, { 1 } } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int size[PROFILE_SIZES] = { 0 };
        const int count = profile_ladder(size, cases[i].largest, cases[i].T);
        CHECKF(count == cases[i].count && !memcmp(size, cases[i].size, (size_t)count * sizeof *size),
               "case %zu: %d sizes, %d %d %d %d", i, count, size[0], size[1], size[2], size[3]);
    }
}

static void times_lie_on_lines_between_sizes(void)
{
    profile p = { .sizes = 3, .size = { 2, 4, 8 } };
    for (int i = 0; i < 3; i++) {
        const double n = p.size[i];
        p.unit[PROFILE_LAYER][i] = (profile_cost){ 1 + n, 2 * n, 3 * n, 10 * n, 4 * n, 5 };
        p.unit[PROFILE_HEAD][i] = p.unit[PROFILE_LAYER][i];
    }
    for (int n = 2; n <= 8; n++) {
        const profile_cost c = profile_at(&p, PROFILE_LAYER, n, 0);
        CHECKF(fabs(c.forward - (1 + n)) < 1e-12 && fabs(c.kept - 10 * n) < 1e-12, "%d sequences", n);
    }
    CHECK(profile_at(&p, PROFILE_LAYER, 16, 0).forward == 18.0);
    CHECK(profile_at(&p, PROFILE_LAYER, 1, 0).forward == 1.5);
    const profile_cost again = profile_at(&p, PROFILE_LAYER, 4, 1), head = profile_at(&p, PROFILE_HEAD, 4, 1);
    CHECK(again.backward_input == 8 + 5 && again.kept == 16 && head.backward_input == 8 && head.kept == 40);
    CHECK(profile_kind_of(0, 5) == PROFILE_EMBEDDING && profile_kind_of(4, 5) == PROFILE_HEAD
          && profile_kind_of(3, 5) == PROFILE_LAYER);
}

static void check_measured(const profile *p, const model_config *c, const int *size, int count)
{
    const double V = c->vocab, C = c->channels;
    CHECK(p->sizes == count && !memcmp(p->size, size, (size_t)count * sizeof *size));
    CHECK(p->tied == V * C && p->output == TINY_T * C * 4);
    CHECK(p->parameters[PROFILE_HEAD] == V * C + 2 * C && p->trip > 0);
    for (int kind = 0; kind < PROFILE_KINDS; kind++)
        for (int i = 0; i < p->sizes; i++) {
            CHECK(p->update[kind] > 0);
            const profile_cost *u = &p->unit[kind][i];
            CHECK(u->forward > 0 && u->backward_input >= 0 && u->backward_weight >= 0 && u->kept >= 0);
            CHECK(u->kept_recompute <= u->kept);
        }
    const profile_cost *small = &p->unit[PROFILE_LAYER][0], *large = &p->unit[PROFILE_LAYER][count - 1];
    /* Rows are gathered and summed before and behind attention and MLP; the head gathers its rows'
     * statistics, too, three numbers of either rank. */
    const double rows = TINY_T * C * 4;
    static const int counts[PROFILE_KINDS][2][2] = {
        { { 1, 1 }, { 1, 1 } }, { { 4, 4 }, { 4, 7 } }, { { 2, 1 }, { 2, 1 } }
    };
    for (int kind = 0; kind < PROFILE_KINDS; kind++)
        for (int again = 0; again < 2; again++)
            for (int phase = 0; phase < 3; phase++) {
                const profile_exchange *e = &p->exchanges[kind][again][phase];
                const int want = phase < 2 ? counts[kind][again][phase] : 0;
                const double bytes = kind == PROFILE_HEAD && !phase ? rows + 2 * 3 * TINY_T * 4 : want * rows;
                CHECKF(e->count == want && e->bytes == bytes, "kind %d, %d, phase %d: %g exchanges of %g bytes", kind,
                       again, phase, e->count, e->bytes);
            }
    CHECK(small->backward_input > 0 && small->backward_weight > 0);
    CHECK(large->kept > small->kept && large->kept_recompute < large->kept);
}

static gt_status count_barriers(void *context, double *seconds)
{
    ++*(int *)context;
    return *seconds >= 0 ? GT_OK : gt_fail(GT_MISMATCH, "seconds below 0");
}

static void a_device_is_measured(void)
{
    static const int size[] = { 1, 2, 4 };
    dev_device *d = tiny_device();
    const model_config c = tiny_config();
    const profile_model m = tiny_model(&c);
    profile p;
    int barriers = 0;
    if (d && CHECK_OK(profile_measure(&p, d, &m, size, 3, count_barriers, &barriers))) {
        check_measured(&p, &c, size, 3);
        /* One before each measurement, one behind each size, one before the optimizer. */
        CHECKF(barriers == 3 * (PROFILE_KINDS + 1) + 1, "%d barriers", barriers);
    }
    dev_close(d);
}

/* Fields of another kind of batch; it has no data to be filled with, nor is it asked to. */
static void weighted(data_batch *out, const void *config, const loader *l, const char *split)
{
    (void)config;
    data_batch_next_token(out, l, split);
    out->fill = NULL;
    out->field[0].below = 3;
    out->field[out->fields++] = (data_field){ .name = "weights", .type = DTYPE_F32, .count = l->tokens };
    out->weights = "weights";
}

static void a_model_is_measured_by_its_batches(void)
{
    static const int size[] = { 1, 2 };
    dev_device *d = tiny_device();
    model_config c = tiny_config();
    profile_model m = tiny_model(&c);
    profile p;
    c.weighted = 1;
    m.batch = weighted;
    if (d && CHECK_OK(profile_measure(&p, d, &m, size, 2, NULL, NULL)))
        check_measured(&p, &c, size, 2);
    dev_close(d);
}

/* The only file in the cache folder. */
static char *cached_file(const char *folder)
{
    char *path = NULL;
    DIR *dir = opendir(folder);
    for (struct dirent *e = dir ? readdir(dir) : NULL; e; e = readdir(dir))
        if (e->d_name[0] != '.') {
            free(path);
            path = gt_path_join(folder, e->d_name);
        }
    if (dir)
        closedir(dir);
    return path;
}

static void load(dev_device *d, const profile_model *m, const char *concurrent, int want, const profile *p)
{
    static const int size[] = { 1, 3 };
    profile q = { 0 };
    int found = -1;
    CHECK_OK(profile_load(&q, &found, d, m, size, 2, concurrent));
    CHECKF(found == want, "concurrent %s: found %d", concurrent, found);
    if (found == 1)
        CHECK(!memcmp(&q, p, sizeof q));
}

static void only_whole_profiles_are_taken_from_the_cache(void)
{
    static const int size[] = { 1, 3 };
    dev_device *d = tiny_device();
    const model_config c = tiny_config();
    const profile_model m = tiny_model(&c);
    model_config wider = c;
    wider.channels *= 2;
    const profile_model other = tiny_model(&wider);
    profile_model by_muon = m;
    by_muon.optim = optim_defaults();
    optim_config_rule(&by_muon.optim, optim_rule_find("muon"));
    char *cache = gt_path_join(check_folder(), "cache"), *folder = gt_path_join(cache, "profile");
    setenv("GEARTRAIN_CACHE", cache, 1);
    profile p = { .sizes = 2,
                  .size = { 1, 3 },
                  .parameters = { 1, 2, 3 },
                  .tied = 4,
                  .update = { 1e-9, 2e-9, 3e-9 },
                  .output = 1.0 / 3.0,
                  .trip = 1e-5 };
    for (int kind = 0; kind < PROFILE_KINDS; kind++)
        for (int i = 0; i < 2; i++)
            p.unit[kind][i] = (profile_cost){ kind / 3.0, i / 7.0, 1e-5 / 3.0, 1e9, 0, 12 };
    p.exchanges[PROFILE_HEAD][1][2] = (profile_exchange){ 3, 4 };
    if (!d)
        return;
    load(d, &m, "alone", 0, &p);
    CHECK_OK(profile_keep(&p, d, &m, size, 2, "alone"));
    load(d, &m, "alone", 1, &p);
    load(d, &m, "beside another", 0, &p);
    load(d, &other, "alone", 0, &p);
    load(d, &by_muon, "alone", 0, &p);

    char *path = cached_file(folder), *text = NULL;
    size_t n = 0;
    if (!CHECKF(path != NULL, "%s", folder) || !CHECK_OK(gt_file_read(&text, &n, path, 1 << 16)))
        return;
    for (size_t i = 0; i < n; i++) {            /* cut short, and each byte changed */
        CHECK_OK(gt_file_write(path, text, i));
        load(d, &m, "alone", 0, &p);
        if (i % 3)
            continue;
        const char was = text[i];
        text[i] = was == '7' ? '8' : '7';
        CHECK_OK(gt_file_write(path, text, n));
        load(d, &m, "alone", 0, &p);
        text[i] = was;
    }
    CHECK_OK(profile_keep(&p, d, &m, size, 2, "alone"));
    load(d, &m, "alone", 1, &p);
    free(text);
    free(path);
    free(folder);
    free(cache);
    dev_close(d);
}

const check_case check_cases[] = {
    CASE(sizes_rise_from_one),
    CASE(times_lie_on_lines_between_sizes),
    CASE(a_device_is_measured),
    CASE(a_model_is_measured_by_its_batches),
    CASE(only_whole_profiles_are_taken_from_the_cache),
    { 0 }
};
