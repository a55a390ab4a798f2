/* SPDX-License-Identifier: MIT */
/* host/pipeline/run_plan_file.c - plan.json, written and read.
 *
 *   { "format": "geartrain plan 1", "batch": 32, "units": 14, "tensor": 2, "chunks": 1,
 *     "recompute": false, "schedule": "1f1b", "sync": "allreduce", "share": [0.5, 0.5],
 *     "step_s": 1.25, "idle": 0.08,
 *     "ranks": [ { "device": "cpu:0.0", "memory": 1.2e9, "limit": 8e9, "host_memory": 0 }, ... ],
 *     "replicas": [ { "micro_batches": 6, "micro_batch": 4, "stages": [[0, 1], [2, 3]],
 *                     "cut": [0, 9, 14], "cost": [ { "forward_s": ... }, ... ] }, ... ] }
 *
 * Numbers have 17 digits, so a plan that went through text is the same to the last bit: schedule
 * `list` is searched for with these costs on every rank, and all must find the same.
 * "sync_options" has the options of that mode, as texts: { "staleness": "4" }; what it leaves out is as usual.
 * "compress", "compress_after" (steps) and "compress_stages" are the options of these names; "links", of --compress auto,
 * what was chosen for ranks that add up the same: [ { "ranks": [0, 1], "form": "int8" }, ... ]; "stage_links", of
 * --compress-stages auto, the same for two neighbours in a pipeline. All may be left out.
 * What was predicted may be left out by who writes a plan by hand: "share" (equal), "step_s",
 * "idle", "cost", and "device", "memory", "limit", "host_memory" of a rank.               */
#include "host/pipeline/run_plan.h"

#include "host/base/file.h"
#include "host/sync/sync.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define FORMAT "geartrain plan 1"
enum { MOST_BYTES = 256 << 20 };        /* of a file: 65,536 ranks with their costs stay below */

static const struct {
    const char *key;
    size_t offset;
} costs[] = { { "forward_s", offsetof(pipe_cost, forward) },
              { "backward_input_s", offsetof(pipe_cost, backward_input) },
              { "backward_weight_s", offsetof(pipe_cost, backward_weight) },
              { "send_s", offsetof(pipe_cost, send) },
              { "activation", offsetof(pipe_cost, activation) },
              { "reduce_s", offsetof(pipe_cost, reduce) },
              { "update_s", offsetof(pipe_cost, update) } };
enum { COSTS = sizeof costs / sizeof *costs };

/* ---- writing ----------------------------------------------------------------------------- */

static json_t *integers(const int *from, int count)
{
    json_t *list = json_array();
    for (int i = 0; i < count; i++)
        json_array_append_new(list, json_integer(from[i]));
    return list;
}

static json_t *cost_object(const pipe_cost *c)
{
    json_t *o = json_object();
    for (int i = 0; i < COSTS; i++)
        json_object_set_new(o, costs[i].key, json_real(*(const double *)((const char *)c + costs[i].offset)));
    return o;
}

static json_t *replica_object(const run_plan *p, const run_replica *r)
{
    const int parts = r->stages * p->chunks;
    json_t *stages = json_array(), *cost = json_array();
    for (int s = 0; s < r->stages; s++)
        json_array_append_new(stages, integers(&r->rank[s * p->tensor], p->tensor));
    for (int v = 0; v < parts; v++)
        json_array_append_new(cost, cost_object(&r->cost[v]));
    return json_pack("{s:i, s:i, s:o, s:o, s:o}", "micro_batches", r->micro_batches, "micro_batch", r->micro_batch,
                     "stages", stages, "cut", integers(r->cut, parts + 1), "cost", cost);
}

/* As texts, by name; NULL: the mode has none. */
static json_t *settings_object(const run_plan *p)
{
    const sync_mode *m = sync_mode_find(p->sync);
    json_t *o = m && sync_setting_at(m, 0) ? json_object() : NULL;
    char text[SYNC_WORD];
    for (int i = 0; o && sync_setting_at(m, i); i++)
        json_object_set_new(o, sync_setting_at(m, i)->name,
                            json_string(sync_setting_text(m, &p->settings, i, text, sizeof text)));
    return o;
}

/* NULL: there are none. */
static json_t *links_object(const run_link *link, int links)
{
    json_t *list = links ? json_array() : NULL;
    for (int i = 0; list && i < links; i++)
        json_array_append_new(list, json_pack("{s:o, s:s}", "ranks", integers(link[i].rank, link[i].ranks), "form",
                                              link[i].form));
    return list;
}

static json_t *said(const char *word)
{
    return *word ? json_string(word) : NULL;
}

static json_t *plan_object(const run_plan *p)
{
    json_t *share = json_array(), *ranks = json_array(), *replicas = json_array();
    for (int k = 0; k < p->tensor; k++)
        json_array_append_new(share, json_real(p->share[k]));
    for (int r = 0; r < p->ranks; r++)
        json_array_append_new(ranks, json_pack("{s:s, s:f, s:f, s:f}", "device", p->device[r], "memory", p->memory[r],
                                               "limit", p->limit[r], "host_memory", p->host_memory[r]));
    for (int i = 0; i < p->replicas; i++)
        json_array_append_new(replicas, replica_object(p, &p->replica[i]));
    return json_pack(
        "{s:s, s:i, s:i, s:i, s:i, s:b, s:s, s:s, s:o*, s:o*, s:o*, s:o*, s:o*, s:o*, s:o, s:f, s:f, s:o, s:o}",
        "format", FORMAT, "batch", p->batch, "units", p->units, "tensor", p->tensor, "chunks", p->chunks, "recompute",
        p->recompute, "schedule", p->schedule, "sync", p->sync, "sync_options", settings_object(p), "compress",
        said(p->compress), "compress_after", p->compress_after ? json_integer((json_int_t)p->compress_after) : NULL,
        "compress_stages", said(p->compress_stages), "links", links_object(p->link, p->links), "stage_links",
        links_object(p->stage_link, p->stage_links), "share", share, "step_s", p->step, "idle", p->idle, "ranks", ranks,
        "replicas", replicas);
}

static int put_text(const char *piece, size_t size, void *text)
{
    gt_text_put(text, piece, size);
    return ((gt_text *)text)->failed ? -1 : 0;
}

gt_status run_plan_text(const run_plan *p, gt_text *out)
{
    json_t *root = plan_object(p);
    const int failed = !root || json_dump_callback(root, put_text, out, JSON_INDENT(1)) || out->failed;
    json_decref(root);
    gt_text_put(out, "\n", 1);
    return failed ? gt_fail(GT_NO_MEMORY, "no memory for the plan as JSON") : GT_OK;
}

gt_status run_plan_write(const run_plan *p, const char *path)
{
    gt_text text = { 0 };
    gt_status st = run_plan_text(p, &text);
    if (!st)
        st = gt_file_write(path, text.data, text.size);
    gt_text_release(&text);
    return st;
}

/* ---- reading ----------------------------------------------------------------------------- */

static gt_status read_integer(int *out, const json_t *of, const char *key, int least, int most)
{
    const json_t *v = json_object_get(of, key);
    const json_int_t n = json_integer_value(v);
    if (!json_is_integer(v) || n < least || n > most)
        return gt_fail(GT_FORMAT, "'%s' is not a number from %d to %d", key, least, most);
    *out = (int)n;
    return GT_OK;
}

static gt_status read_integers(int *out, const json_t *list, int count, const char *what)
{
    if (!json_is_array(list) || (int)json_array_size(list) != count)
        return gt_fail(GT_FORMAT, "'%s' is not a list of %d numbers", what, count);
    for (int i = 0; i < count; i++) {
        const json_t *v = json_array_get(list, (size_t)i);
        const json_int_t n = json_integer_value(v);
        if (!json_is_integer(v) || n < 0 || n > RUN_PLAN_MOST)
            return gt_fail(GT_FORMAT, "'%s' has an entry that is not a number from 0 to %d", what, RUN_PLAN_MOST);
        out[i] = (int)n;
    }
    return GT_OK;
}

/* A number that may be left out; *out stays then. */
static gt_status read_real(double *out, const json_t *of, const char *key)
{
    const json_t *v = json_object_get(of, key);
    if (v && !json_is_number(v))
        return gt_fail(GT_FORMAT, "'%s' is not a number", key);
    if (v)
        *out = json_number_value(v);
    return GT_OK;
}

static gt_status read_word(char *out, size_t size, const json_t *of, const char *key)
{
    const char *word = json_string_value(json_object_get(of, key));
    if (!word || strlen(word) >= size)
        return gt_fail(GT_FORMAT, "'%s' is not a word of less than %zu letters", key, size);
    memcpy(out, word, strlen(word) + 1);
    return GT_OK;
}

static gt_status read_shares(run_plan *p, const json_t *root)
{
    const json_t *list = json_object_get(root, "share");
    if (!list)
        return GT_OK;
    if (!json_is_array(list) || (int)json_array_size(list) != p->tensor)
        return gt_fail(GT_FORMAT, "'share' is not a list of %d numbers", p->tensor);
    for (int k = 0; k < p->tensor; k++) {
        const json_t *v = json_array_get(list, (size_t)k);
        if (!json_is_number(v))
            return gt_fail(GT_FORMAT, "'share' has an entry that is not a number");
        p->share[k] = json_number_value(v);
    }
    return GT_OK;
}

static gt_status read_rank(run_plan *p, const json_t *of, int r)
{
    gt_status st = json_is_object(of) ? GT_OK : gt_fail(GT_FORMAT, "it is not an object");
    if (!st && json_object_get(of, "device"))
        st = read_word(p->device[r], sizeof p->device[r], of, "device");
    if (!st)
        st = read_real(&p->memory[r], of, "memory");
    if (!st)
        st = read_real(&p->limit[r], of, "limit");
    if (!st)
        st = read_real(&p->host_memory[r], of, "host_memory");
    return st ? gt_fail_in(st, "rank %d", r) : GT_OK;
}

static gt_status read_costs(run_replica *r, int parts, const json_t *list)
{
    if (!list)
        return GT_OK;
    if (!json_is_array(list) || (int)json_array_size(list) != parts)
        return gt_fail(GT_FORMAT, "'cost' is not a list of %d objects", parts);
    gt_status st = GT_OK;
    for (int v = 0; !st && v < parts; v++) {
        const json_t *of = json_array_get(list, (size_t)v);
        if (!json_is_object(of))
            st = gt_fail(GT_FORMAT, "'cost' has an entry that is not an object");
        for (int i = 0; !st && i < COSTS; i++)
            st = read_real((double *)((char *)&r->cost[v] + costs[i].offset), of, costs[i].key);
    }
    return st;
}

static gt_status read_replica(run_plan *p, const json_t *of, int i)
{
    const json_t *stages = json_object_get(of, "stages");
    const size_t count = json_array_size(stages);
    gt_status st = count && count <= (size_t)p->ranks ? run_plan_replica(p, i, (int)count)
                                                      : gt_fail(GT_FORMAT, "'stages' is not a list of lists of ranks");
    run_replica *r = &p->replica[i];
    const int parts = r->stages * p->chunks;
    if (!st)
        st = read_integer(&r->micro_batches, of, "micro_batches", 0, PIPE_MOST_MICRO_BATCHES);
    if (!st)
        st = read_integer(&r->micro_batch, of, "micro_batch", 1, p->batch);
    for (int s = 0; !st && s < r->stages; s++)
        st = read_integers(&r->rank[s * p->tensor], json_array_get(stages, (size_t)s), p->tensor, "stages");
    if (!st)
        st = read_integers(r->cut, json_object_get(of, "cut"), parts + 1, "cut");
    if (!st)
        st = read_costs(r, parts, json_object_get(of, "cost"));
    return st == GT_FORMAT ? gt_fail_in(st, "replica %d", i) : st;
}

/* Room for the plan, once its sizes are known. */
static gt_status read_sizes(run_plan *p, const json_t *root)
{
    const size_t ranks = json_array_size(json_object_get(root, "ranks"));
    const size_t replicas = json_array_size(json_object_get(root, "replicas"));
    int batch = 0, units = 0, tensor = 0, chunks = 0;
    if (!ranks || ranks > RUN_PLAN_MOST)
        return gt_fail(GT_FORMAT, "'ranks' is not a list of 1 to %d ranks", RUN_PLAN_MOST);
    if (!replicas || replicas > ranks)
        return gt_fail(GT_FORMAT, "'replicas' is not a list of 1 to %zu replicas", ranks);
    gt_status st = read_integer(&batch, root, "batch", 1, 1 << 30);
    if (!st)
        st = read_integer(&units, root, "units", 1, RUN_PLAN_MOST);
    if (!st)
        st = read_integer(&tensor, root, "tensor", 1, (int)ranks);
    if (!st)
        st = read_integer(&chunks, root, "chunks", 1, PIPE_MOST_CHUNKS);
    return st ? st : run_plan_create(p, (int)ranks, units, batch, tensor, chunks, (int)replicas);
}

/* Those that are left out are the usual ones. */
static gt_status read_settings(run_plan *p, const json_t *of)
{
    const sync_mode *m = sync_mode_find(p->sync);
    const char *name;
    json_t *value;
    gt_status st = GT_OK;
    run_plan_sync(p, p->sync, NULL);
    if (of && !json_is_object(of))
        return gt_fail(GT_FORMAT, "'sync_options' is not an object");
    json_object_foreach((json_t *)of, name, value) {
        if (!st && !json_is_string(value))
            st = gt_fail(GT_FORMAT, "'sync_options' has a '%s' that is not a text", name);
        else if (!st && m && *json_string_value(value))
            st = sync_settings_set(m, &p->settings, name, json_string_value(value));
    }
    return st;
}

static gt_status read_link(run_plan *p, const json_t *of, const char *key, int stages)
{
    const json_t *list = json_object_get(of, "ranks");
    const size_t ranks = json_array_size(list);
    char form[RUN_PLAN_FORM];
    if (ranks < 2 || ranks > (stages ? 2 : (size_t)p->ranks))
        return gt_fail(GT_FORMAT, "'%s' has an entry whose 'ranks' is not a list of 2 to %d ranks", key,
                       stages ? 2 : p->ranks);
    int *rank = malloc(ranks * sizeof *rank);
    gt_status st = rank ? read_integers(rank, list, (int)ranks, "ranks")
                        : gt_fail(GT_NO_MEMORY, "no memory for the links of a plan");
    if (!st)
        st = read_word(form, sizeof form, of, "form");
    if (!st)
        st = stages ? run_plan_stage_link(p, rank[0], rank[1], form) : run_plan_link(p, rank, (int)ranks, form);
    free(rank);
    return st;
}

static gt_status read_links(run_plan *p, const json_t *root, const char *key, int stages)
{
    const json_t *list = json_object_get(root, key);
    gt_status st = GT_OK;
    if (list && !json_is_array(list))
        st = gt_fail(GT_FORMAT, "'%s' is not a list", key);
    for (size_t i = 0; !st && i < json_array_size(list); i++)
        st = read_link(p, json_array_get(list, i), key, stages);
    return st;
}

static gt_status read_forms(run_plan *p, const json_t *root)
{
    const json_t *after = json_object_get(root, "compress_after");
    gt_status st = GT_OK;
    if (json_object_get(root, "compress"))
        st = read_word(p->compress, sizeof p->compress, root, "compress");
    if (!st && json_object_get(root, "compress_stages"))
        st = read_word(p->compress_stages, sizeof p->compress_stages, root, "compress_stages");
    if (!st && after && (!json_is_integer(after) || json_integer_value(after) < 0))
        st = gt_fail(GT_FORMAT, "'compress_after' is not a number of steps");
    p->compress_after = (uint64_t)json_integer_value(after);
    if (!st)
        st = read_links(p, root, "links", 0);
    return st ? st : read_links(p, root, "stage_links", 1);
}

static gt_status read_plan(run_plan *p, const json_t *root)
{
    const char *format = json_string_value(json_object_get(root, "format"));
    const json_t *recompute = json_object_get(root, "recompute");
    if (!format || strcmp(format, FORMAT))
        return gt_fail(GT_FORMAT, "'format' is not \"" FORMAT "\"; write a new one with geartrain plan "
                                  "--out");
    gt_status st = read_sizes(p, root);
    if (st)
        return st;
    if (recompute && !json_is_boolean(recompute))
        st = gt_fail(GT_FORMAT, "'recompute' is neither true nor false");
    p->recompute = json_is_true(recompute);
    if (!st)
        st = read_word(p->schedule, sizeof p->schedule, root, "schedule");
    if (!st)
        st = read_word(p->sync, sizeof p->sync, root, "sync");
    if (!st)
        st = read_settings(p, json_object_get(root, "sync_options"));
    if (!st)
        st = read_forms(p, root);
    if (!st)
        st = read_shares(p, root);
    if (!st)
        st = read_real(&p->step, root, "step_s");
    if (!st)
        st = read_real(&p->idle, root, "idle");
    for (int r = 0; !st && r < p->ranks; r++)
        st = read_rank(p, json_array_get(json_object_get(root, "ranks"), (size_t)r), r);
    for (int i = 0; !st && i < p->replicas; i++)
        st = read_replica(p, json_array_get(json_object_get(root, "replicas"), (size_t)i), i);
    return st ? st : run_plan_check(p);
}

static gt_status parse(run_plan *out, const char *text, size_t size, const char *name)
{
    *out = (run_plan){ 0 };
    json_error_t error;
    json_t *root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);
    gt_status st = root ? read_plan(out, root) : gt_fail(GT_FORMAT, "line %d: %s", error.line, error.text);
    json_decref(root);
    if (!st)
        return GT_OK;
    run_plan_release(out);
    return gt_fail_in(st, "plan '%s'", name);
}

gt_status run_plan_parse(run_plan *out, const char *text, const char *name)
{
    return parse(out, text, strlen(text), name);
}

gt_status run_plan_read(run_plan *out, const char *path)
{
    char *text;
    size_t size;
    *out = (run_plan){ 0 };
    gt_status st = gt_file_read(&text, &size, path, MOST_BYTES);
    if (st)
        return st;
    st = parse(out, text, size, path);
    free(text);
    return st;
}
