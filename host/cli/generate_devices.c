/* SPDX-License-Identifier: MIT */
/* host/cli/generate_devices.c - see generate_devices.h. */
#include "host/cli/generate_devices.h"

#include "models/generate_cut.h"

#include <stdlib.h>
#include <string.h>

gt_status generate_devices_open(generate_devices *out, const char *list)
{
    char **specs = NULL;
    int count = 0;
    *out = (generate_devices){ 0 };
    gt_status st = dev_specs(&specs, &count, list);
    if (!st && !(out->device = calloc((size_t)count, sizeof *out->device)))
        st = gt_fail(GT_NO_MEMORY, "no memory for a list of %d devices", count);
    while (!st && out->count < count) {
        st = dev_open(&out->device[out->count], specs[out->count]);
        out->count += !st;
    }
    dev_specs_free(specs, count);
    if (st)
        generate_devices_close(out);
    return st;
}

void generate_devices_close(generate_devices *d)
{
    for (int i = 0; i < d->count; i++)
        dev_close(d->device[i]);
    free(d->device);
    *d = (generate_devices){ 0 };
}

/* ---- stages ------------------------------------------------------------------------------------------- */

/* What is known before the cut; arrays with an entry a stage, `memory` one a device. */
typedef struct layout {
    int stages, *device, *cut;
    double *speed;
    uint64_t *memory;
    generate_place *place;
} layout;

static void layout_release(layout *l)
{
    free(l->device);
    free(l->cut);
    free(l->speed);
    free(l->memory);
    free(l->place);
}

static gt_status layout_make(layout *l, const generate_devices *d, int stages)
{
    const size_t n = (size_t)stages + 1;
    *l = (layout){ .stages = stages,
                   .device = calloc(n, sizeof *l->device),
                   .cut = calloc(n, sizeof *l->cut),
                   .speed = calloc(n, sizeof *l->speed),
                   .memory = calloc((size_t)d->count, sizeof *l->memory),
                   .place = calloc(n, sizeof *l->place) };
    if (!l->device || !l->cut || !l->speed || !l->memory || !l->place)
        return gt_fail(GT_NO_MEMORY, "no memory for %d stages", stages);
    for (int i = 0; i < d->count; i++)
        l->memory[i] = dev_info_of(d->device[i])->global_bytes - dev_memory_used(d->device[i]);
    for (int s = 0; s < stages; s++)
        l->device[s] = (int)((int64_t)s * d->count / stages);
    return GT_OK;
}

/* Each device alone, since a token is in one stage at a time. */
static gt_status measure(layout *l, const generate_devices *d, const model_config *c, dtype storage, int even)
{
    double speed = 1.0;
    gt_status st = GT_OK;
    for (int s = 0; !st && s < l->stages; s++) {
        if (!even && (!s || l->device[s] != l->device[s - 1]))
            st = generate_speed(&speed, d->device[l->device[s]], c, storage);
        l->speed[s] = speed;
    }
    return st;
}

static void show_stages(const layout *l, const generate_devices *d, int layers, int even, FILE *out)
{
    for (int s = 0; s < l->stages; s++) {
        const int first = l->cut[s] > 0 ? l->cut[s] - 1 : 0,
                  end = l->cut[s + 1] - 1 < layers ? l->cut[s + 1] - 1 : layers;
        fprintf(out, "stage %-3d %-12s %s%s %d", s, dev_info_of(d->device[l->device[s]])->id, s ? "" : "embedding, ",
                end - first > 1 ? "layers" : "layer", first);
        if (end - first > 1)
            fprintf(out, "-%d", end - 1);
        fprintf(out, "%s", s + 1 < l->stages ? "" : ", head");
        if (!even)
            fprintf(out, "; reads %.1f GB/s", l->speed[s] * 1e-9);
        fprintf(out, "\n");
    }
}

static gt_status create_staged(generate **out, const generate_devices *d, const model_config *c, dtype storage,
                               int stages, int even, FILE *show)
{
    layout l;
    gt_status st = layout_make(&l, d, stages);
    if (!st)
        st = measure(&l, d, c, storage, even);
    if (!st)
        st = generate_cut(l.cut, c, storage, stages, l.speed, l.device, l.memory);
    for (int s = 0; !st && s < stages; s++)
        l.place[s] = (generate_place){ d->device[l.device[s]], l.cut[s + 1] - l.cut[s] };
    if (!st && show)
        show_stages(&l, d, c->layers, even, show);
    if (!st)
        st = generate_create_staged(out, l.place, stages, c, storage, NULL);
    layout_release(&l);
    return st;
}

gt_status generate_devices_create(generate **out, const generate_devices *d, cli_source *s, dtype storage,
                                  uint64_t stages, int even, FILE *show)
{
    *out = NULL;
    if (stages && stages < (uint64_t)d->count)
        return gt_fail(GT_MISUSE,
                       "option --stages: %llu leave some of %d devices without work; name fewer with --devices",
                       (unsigned long long)stages, d->count);
    if (!stages)
        stages = (uint64_t)d->count;
    if (stages > (uint64_t)s->config.layers)
        return gt_fail(GT_MISUSE, "options --devices and --stages: '%s' has %d layers, which do not make %llu stages",
                       s->config.name, s->config.layers, (unsigned long long)stages);
    gt_status st = stages == 1 ? generate_create(out, d->device[0], &s->config, storage, NULL)
                               : create_staged(out, d, &s->config, storage, (int)stages, even, show);
    for (int i = 0; !st && i < generate_stage_count(*out); i++)
        st = cli_source_fill(&s->config, generate_params_of(*out, i), s);
    if (!st)
        st = generate_refresh(*out);
    if (st) {
        generate_release(*out);
        *out = NULL;
    }
    return st;
}
