/* SPDX-License-Identifier: MIT */
/* host/sync/buckets_rows.c - gradients of tables, of which a step touches some rows, travel as those rows alone.
 *
 *   table    |.|x|.|.|x|x|.|.|.|.|        x: named by a token of this step, on any rank; the others are zero
 *   packed   |x|x|x|  ═══ summed over ranks ═══►  |x|x|x|  ─► back to the table
 *
 * The samples of a step depend on the seed and the step alone, so every rank finds the rows of all ranks in the
 * data, and no numbers of rows cross the network; what is sent is the rows themselves, each rank's zeros
 * where the row is another's. Where they are at most half of the table they go, otherwise all of it, by
 * the same count on all ranks. A sum of two ranks has the same bits either way; of more, their order may
 * differ with where a row lies among what is summed. What follows - the norm, decay and moments of rows that
 * were not touched - sees the same gradient as before.
 *
 * A table must be touched so on all ranks that hold it: a tied head changes all rows, in its own stage if not
 * in this one. Packing costs copies of the rows on both ends, and memory for half of a table at most.     */
#include "host/sync/buckets_private.h"

#include "host/base/file.h"

#include <stdlib.h>
#include <string.h>

static gt_status no_memory(void)
{
    return gt_fail(GT_NO_MEMORY, "no memory for the lists of rows to sum");
}

/* ---- which tables ------------------------------------------------------------------------------ */

/* What all ranks must say alike of a parameter; 0: its gradient travels whole. */
static int32_t says(const buckets *s, int param, table *t)
{
    const compress_spec spec = sync_buckets_spec(s, params_group(s->o.params, param));
    const graph_param_info *info = params_info(s->o.params, param);
    *t = (table){ .param = param, .touches = GRAPH_TOUCHES_ALL };
    if (!info->table || info->shape.rank != 2 || info->shape.dim[0] < 2)
        return 0;
    t->touches = s->o.touched(s->o.context, param, &t->touched);
    t->rows = info->shape.dim[0];
    t->columns = info->shape.dim[1];
    t->full = info->full.dim[0];
    if (t->touches != GRAPH_TOUCHES_ROWS || (info->slice.parts && info->slice.dim) || t->columns > INT32_MAX
        || t->rows > INT32_MAX || compress_takes(&spec, info))
        return 0;
    const uint64_t hash = t->touched.source ? gt_hash(t->touched.source, strlen(t->touched.source))
                                            : (uint64_t)(t->touched.first * 8191 + t->touched.count);
    return (int32_t)(hash % INT32_MAX) + 1;
}

/* Parameters of a group in the order in which they lie, which is the same on all its ranks. */
static int list_group(const buckets *s, int group, int *param)
{
    int count = 0;
    for (int segment = 0; segment < params_segments(s->o.params); segment++) {
        const int begin = count;
        if (params_segment_at(s->o.params, segment)->group != group)
            continue;
        for (int i = 0; i < params_count(s->o.params); i++) {
            int at, k = count;
            int64_t first, other;
            params_place(s->o.params, i, &at, &first);
            if (at != segment)
                continue;
            for (; k > begin; k--) {
                params_place(s->o.params, param[k - 1], &at, &other);
                if (other < first)
                    break;
                param[k] = param[k - 1];
            }
            param[k] = i;
            count++;
        }
    }
    return count;
}

static gt_status find_in_group(buckets *s, int group, int *param, int32_t *words)
{
    net_group *net = sync_buckets_net(s, group);
    const int count = list_group(s, group, param), ranks = net_group_size(net), me = net_group_rank(net);
    table t;
    for (int i = 0; i < count; i++)
        words[me * count + i] = says(s, param[i], &t);
    gt_status st = net_all_gather(net, words, (uint64_t)ranks * (uint64_t)count, NULL, NET_I32, NULL);
    for (int i = 0; !st && i < count; i++) {
        const int32_t mine = says(s, param[i], &t);
        if (t.touches == GRAPH_TOUCHES_ALL)
            continue;
        t.agreed = mine != 0;
        for (int r = 0; r < ranks; r++)
            t.agreed &= words[r * count + i] == mine;
        s->tables[s->table_count++] = t;
    }
    return st;
}

gt_status sync_tables_find(buckets *s)
{
    const int all = params_count(s->o.params);
    int most = 1, before = -1;
    if (!s->o.touched || s->o.whole_tables || s->form == SYNC_SUM_WITHIN)
        return GT_OK;
    for (int i = 0; i < params_segments(s->o.params); i++) {
        net_group *net = sync_buckets_net(s, params_segment_at(s->o.params, i)->group);
        most = net && net_group_size(net) > most ? net_group_size(net) : most;
    }
    int *param = malloc(((size_t)all + 1) * sizeof *param);
    int32_t *words = malloc(((size_t)all * (size_t)most + 1) * sizeof *words);
    s->tables = calloc((size_t)all + 1, sizeof *s->tables);
    gt_status st = param && words && s->tables ? GT_OK : no_memory();
    for (int i = 0; !st && i < params_segments(s->o.params); i++) {
        const int group = params_segment_at(s->o.params, i)->group;
        if (group != before && sync_buckets_net(s, group))
            st = find_in_group(s, group, param, words);
        before = group;
    }
    free(param);
    free(words);
    return st;
}

int sync_table_of(const buckets *s, int param)
{
    for (int i = 0; i < s->table_count; i++)
        if (s->tables[i].param == param && s->tables[i].agreed)
            return i;
    return -1;
}

/* ---- memory and launches ------------------------------------------------------------------------- */

static gt_status make_packed(buckets *s, table *t)
{
    const uint64_t bytes = 4 * (uint64_t)t->most * (uint64_t)t->columns;
    if (!dev_info_of(s->o.device)->native_kernels)
        return dev_buffer_create(&t->packed, s->o.device, bytes, "rows of gradients");
    gt_status st = net_comm_memory(s->o.comm, bytes, &t->memory);
    return st ? st : dev_buffer_create_in(&t->packed, s->o.device, t->memory, bytes, "rows of gradients");
}

static gt_status make_list(buckets *s, table *t, int back, dev_list **out, kernel_slot *rows)
{
    gt_status st = dev_list_create(out, s->o.device);
    if (!st)
        dev_list_label(*out, back ? "rows of gradients, back" : "rows of gradients");
    return st ? st
              : kernel_pack_rows(*out, s->o.kernels, (int)t->most, (int)t->columns, back, t->list, t->grad, t->packed,
                                 rows);
}

gt_status sync_table_make(buckets *s, int index, bucket *b)
{
    table *t = &s->tables[index];
    int segment;
    params_place(s->o.params, t->param, &segment, &t->begin);
    const params_segment *seg = params_segment_at(s->o.params, segment);
    t->segment = segment;
    t->most = t->rows / 2;
    t->at = malloc((size_t)t->most * sizeof *t->at);
    t->mark = malloc((size_t)t->full);
    gt_status st = t->at && t->mark ? GT_OK : no_memory();
    if (!st)
        st = dev_buffer_view(&t->grad, seg->grad, 4 * (uint64_t)t->begin, 4 * (uint64_t)(t->rows * t->columns));
    if (!st)
        st = dev_buffer_create(&t->list, s->o.device, 4 * (uint64_t)t->most, "numbers of rows");
    if (!st)
        st = make_packed(s, t);
    if (!st)
        st = make_list(s, t, 0, &t->pack, &t->pack_rows);
    if (!st)
        st = make_list(s, t, 1, &t->back, &t->back_rows);
    b->packs = t;
    b->grad = t->packed;
    b->offset = 0;
    b->count = (uint64_t)(t->most * t->columns);
    if (!st && s->share && !(b->counts = calloc((size_t)net_group_size(b->group), sizeof *b->counts)))
        st = no_memory();
    return st;
}

void sync_tables_release(buckets *s)
{
    for (int i = 0; i < s->table_count; i++) {
        table *t = &s->tables[i];
        dev_list_release(t->pack);
        dev_list_release(t->back);
        dev_buffer_release(t->packed);
        dev_buffer_release(t->list);
        dev_buffer_release(t->grad);
        if (t->memory)
            net_comm_memory_free(s->o.comm, t->memory);
        free(t->at);
        free(t->mark);
    }
    free(s->tables);
}

/* ---- a step ------------------------------------------------------------------------------------------ */

/* The rows of this step that lie here, rising, in t->at as far as there is room; how many there are. */
static gt_status list_rows(buckets *s, table *t, int64_t *count)
{
    const graph_touched *w = &t->touched;
    gt_status st = GT_OK;
    memset(t->mark, 0, (size_t)t->full);
    if (w->source)
        st = s->o.mark(s->o.context, w->source, t->mark, t->full);
    else
        memset(t->mark + w->first, 1, (size_t)w->count);
    *count = 0;
    for (int64_t row = 0; !st && row < t->rows; row++) {
        if (!t->mark[w->held + row])
            continue;
        if (*count < t->most)
            t->at[*count] = (int32_t)row;
        ++*count;
    }
    if (!st && !*count) {               /* none that is held here: a row of zeros is simpler than no bytes */
        t->at[0] = 0;
        *count = 1;
    }
    return st;
}

/* Elements of what is packed that come before element `e` of the table. */
static uint64_t packed_before(const table *t, int64_t e)
{
    const int64_t row = e / t->columns;
    int64_t from = 0, to = t->count;
    while (from < to) {
        const int64_t middle = (from + to) / 2;
        if (t->at[middle] < row)
            from = middle + 1;
        else
            to = middle;
    }
    const int there = from < t->count && t->at[from] == row;
    return (uint64_t)(from * t->columns + (there ? e % t->columns : 0));
}

static int64_t inside(const table *t, int64_t element)
{
    const int64_t e = element - t->begin, end = t->rows * t->columns;
    return e < 0 ? 0 : e > end ? end : e;
}

/* How much of what is packed belongs to each rank's part of the table. */
static void share_rows(const buckets *s, bucket *b)
{
    const table *t = b->packs;
    const sync_block *of = sync_blocks_find(&s->blocks, t->segment, t->begin);
    const int me = net_group_rank(b->group);
    uint64_t before = 0;
    for (int r = 0; r < of->ranks; r++) {
        b->counts[r] = packed_before(t, inside(t, of->at[r + 1])) - packed_before(t, inside(t, of->at[r]));
        if (r == me)
            b->own_offset = before;
        before += b->counts[r];
    }
    b->own_count = b->counts[me];
}

static gt_status set_rows(buckets *s, bucket *b)
{
    table *t = b->packs;
    b->count = (uint64_t)(t->count * t->columns);
    if (b->counts)
        share_rows(s, b);
    gt_status st = dev_write_start(s->o.device, t->list, 0, t->at, 4 * (uint64_t)t->count, NULL);
    if (!st)
        st = dev_list_set(t->pack, t->pack_rows.launch, t->pack_rows.arg, dev_arg_i32((int32_t)t->count));
    return st ? st : dev_list_set(t->back, t->back_rows.launch, t->back_rows.arg, dev_arg_i32((int32_t)t->count));
}

gt_status sync_tables_step(buckets *s)
{
    gt_status st = GT_OK;
    for (int i = 0; !st && i < s->table_count; i++)
        if (s->tables[i].agreed) {
            table *t = &s->tables[i];
            st = list_rows(s, t, &t->count);
            t->by_rows = t->count <= t->most;
        }
    for (int i = 0; !st && i < s->count; i++) {
        bucket *b = &s->buckets[i];
        const table *t = b->table < 0 ? NULL : &s->tables[b->table];
        b->idle = t && t->by_rows != (b->packs != NULL);
        b->sent = b->idle;
        if (b->idle)
            b->began = b->ended = 0;
        else if (b->packs)
            st = set_rows(s, b);
    }
    return st;
}

gt_status sync_table_pack(const bucket *b, int back)
{
    return dev_run(back ? b->packs->back : b->packs->pack, 0, -1);
}

/* ---- rows that no step touches ----------------------------------------------------------------------- */

static gt_status clear_rows(buckets *s, int param, int64_t from, int64_t to)
{
    const graph_param_info *info = params_info(s->o.params, param);
    const uint64_t row = 4 * (uint64_t)(shape_count(&info->shape) / info->shape.dim[0]);
    return from < to ? dev_list_fill(s->clear, params_grad(s->o.params, param), row * (uint64_t)from, 0,
                                     row * (uint64_t)(to - from))
                     : GT_OK;
}

gt_status sync_tables_clear_make(buckets *s)
{
    if (!s->o.touched)
        return GT_OK;
    gt_status st = dev_list_create(&s->clear, s->o.device);
    for (int i = 0; !st && i < params_count(s->o.params); i++) {
        const graph_param_info *info = params_info(s->o.params, i);
        graph_touched t;
        if (!info->table || info->shape.rank != 2 || !params_grad(s->o.params, i)
            || s->o.touched(s->o.context, i, &t) != GRAPH_TOUCHES_ROWS || t.source)
            continue;
        const int64_t rows = info->shape.dim[0], first = t.first > t.held ? t.first - t.held : 0;
        const int64_t end = t.first + t.count > t.held ? t.first + t.count - t.held : 0;
        st = clear_rows(s, i, 0, first < rows ? first : rows);
        if (!st)
            st = clear_rows(s, i, end, rows);
    }
    return st;
}

gt_status sync_buckets_clear(sync_run *run)
{
    const buckets *s = run->state;
    return s->clear && dev_list_count(s->clear) ? dev_run(s->clear, 0, -1) : GT_OK;
}

/* ---- for people -------------------------------------------------------------------------------------- */

void sync_buckets_explain(const sync_run *run, gt_text *out)
{
    const buckets *s = run->state;
    for (int i = 0; i < s->table_count; i++) {
        const table *t = &s->tables[i];
        const graph_param_info *info = params_info(s->o.params, t->param);
        const compress_spec spec = sync_buckets_spec(s, params_group(s->o.params, t->param));
        const char *why = NULL;
        if (t->touches == GRAPH_TOUCHES_MORE)
            why = "whole: a head tied to it changes all of its rows";
        else if (compress_takes(&spec, info))
            why = spec.how->whole ? "whole, when they have changed enough" : "whole: they are compressed";
        else if (!t->agreed)
            why = "whole: another of the ranks that hold it changes all of its rows";
        gt_text_printf(out, "rows    gradients of '%s' go between ranks ", info->name);
        if (why)
            gt_text_printf(out, "%s\n", why);
        else if (!t->touched.source && t->touched.count > t->most)
            gt_text_printf(out, "whole: a sequence touches %lld of its %lld rows\n", (long long)t->touched.count,
                           (long long)t->rows);
        else if (!t->touched.source)
            gt_text_printf(out, "as the %lld of its %lld rows that a sequence touches\n", (long long)t->touched.count,
                           (long long)t->rows);
        else
            gt_text_printf(out, "as the rows that a step touches, where they are at most half of %lld\n",
                           (long long)t->rows);
    }
}
