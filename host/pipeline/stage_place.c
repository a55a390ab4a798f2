/* SPDX-License-Identifier: MIT */
/* host/pipeline/stage_place.c - a stage on its device: copies of its graphs, and wires to the stages beside it.
 *
 *   stage v - 1  ── y ──►  stage v  ── y ──►  stage v + 1        a wire for each arrow, of one form for each two neighbours
 *                ◄── dx ──          ◄── dx ──
 *
 * Where devices compute in host memory, kernels work in the slots of wires. Then a slot is taken for as long as its
 * message is made and read, and the schedule, played through, says how many there must be. */
#include "host/pipeline/stage_private.h"

#include "host/base/file.h"

#include <stdlib.h>

enum { CHANNEL = 1 << 20 };             /* channels of net/comm: two a virtual stage from here */

/* Where messages have places, nobody copies them: a slot is taken from when its message begins to be made until it has
 * been read last, by the receiver's backward-weight. Slots are a ring: making message n waits until n - depth
 * has been read. How many let nobody wait is seen where the whole schedule is played; then no circle of ranks can wait
 * for each other either, since the play is an order in which everything goes. */
typedef struct crossing {
    int from, to;                       /* virtual stages                                   */
    pipe_kind makes, receives;
} crossing;

/* When a message of a crossing begins to be made, when both ends have done with it, and where among the receiver's
 * instructions it is received and read last. */
typedef struct message {
    double begins, read;
    int received, released;
} message;
enum { SPARE_RECEIVED = 2 };            /* slots for what comes early                        */

static void note_messages(const stage *s, const pipe_simulation *play, const crossing *e, message *of)
{
    const int ranks = s->schedule.ranks;
    for (int end = 0; end < 2; end++) {
        const int v = end ? e->to : e->from, rank = v % ranks;
        for (int i = 0; i < s->schedule.count[rank]; i++) {
            const pipe_instruction *x = &s->schedule.list[rank][i];
            message *m = &of[x->micro_batch];
            if (x->chunk != v / ranks)
                continue;
            if (x->kind == PIPE_BACKWARD_WEIGHT && m->read < play->event[rank][i].end)
                m->read = play->event[rank][i].end;
            if (!end && x->kind == e->makes)
                m->begins = play->event[rank][i].begin;
            if (end && x->kind == e->receives)
                m->received = i;
            if (end && x->kind == PIPE_BACKWARD_WEIGHT)
                m->released = i;
        }
    }
}

static int by_begin(const void *a, const void *b)
{
    const message *x = a, *y = b;
    return x->begins < y->begins ? -1 : x->begins > y->begins;
}

static int suffices(const message *m, int count, int depth, int sends)
{
    int good = 1;
    for (int n = depth; good && n < count; n++)
        good = sends ? m[n - depth].read <= m[n].begins : m[n - depth].released < m[n].received;
    return good;
}

/* The plan's own costs, or equal ones where it has none. */
static void costs_of(const stage *s, pipe_cost *cost)
{
    const pipe_cost *planned = stage_replica(s)->cost;
    int known = 1;
    for (int v = 0; v < s->virtual_stages; v++)
        known &= planned[v].forward > 0 && planned[v].backward_input > 0 && planned[v].backward_weight > 0;
    for (int v = 0; v < s->virtual_stages; v++)
        cost[v] = known ? planned[v] : (pipe_cost){ .forward = 1, .backward_input = 1, .backward_weight = 1 };
}

/* Slots of the sender, or of the receiver, that suffice, and some to spare: the play has other times than the run, so a
 * sender has `useful` ones, if that many suffice. */
static gt_status slots_of(const stage *s, const crossing *e, int sends, int useful, int *depth)
{
    const int count = s->micro_batches;
    pipe_simulation play = { 0 };
    message *m = calloc((size_t)count, sizeof *m);
    pipe_cost *cost = calloc((size_t)s->virtual_stages, sizeof *cost);
    gt_status st = m && cost ? GT_OK : stage_no_memory();
    if (!st)
        costs_of(s, cost);
    if (!st)
        st = pipe_simulate(&play, &s->schedule, cost, 1);
    if (!st) {
        note_messages(s, &play, e, m);
        qsort(m, (size_t)count, sizeof *m, by_begin);
        *depth = 1;
        while (!suffices(m, count, *depth, sends))
            ++*depth;
        int more = sends ? useful - *depth : SPARE_RECEIVED;
        for (; more > 0 && *depth < count && suffices(m, count, *depth + 1, sends); more--)
            ++*depth;
    }
    pipe_simulation_release(&play);
    free(m);
    free(cost);
    return st;
}

/* One direction of an edge: to or from virtual stage `to`, the end of this rank being `value`. */
typedef struct edge {
    wire **wire;
    int to, gradient, sender, value, outward;
} edge;
enum { EDGES = 4 };

static int edges_of(const stage *s, int c, edge out[EDGES])
{
    chunk *k = &s->chunk[c];
    const int v = stage_virtual(s, c), last = s->virtual_stages - 1;
    int n = 0;
    if (v > 0)
        out[n++] = (edge){ &k->in_y, v - 1, 0, v - 1, k->ends.x, 0 };
    if (v < last)
        out[n++] = (edge){ &k->out_y, v + 1, 0, v, k->ends.y, 1 };
    if (s->train && v < last)
        out[n++] = (edge){ &k->in_dy, v + 1, 1, v + 1, k->ends.dy, 0 };
    if (s->train && v > 0)
        out[n++] = (edge){ &k->out_dy, v - 1, 1, v, k->ends.dx, 1 };
    return n;
}

static int peer_of(const stage *s, const edge *e)
{
    const run_replica *r = stage_replica(s);
    return r->rank[e->to % r->stages * s->plan->tensor + s->place.tensor_rank];
}

void stage_edges(const stage *s, void (*visit)(void *context, int peer, int outward, int messages, int64_t values),
                 void *context)
{
    edge e[EDGES];
    for (int c = 0; s->virtual_stages > 1 && c < s->chunks; c++)
        for (int i = 0, n = edges_of(s, c, e); i < n; i++)
            visit(context, peer_of(s, &e[i]), e[i].outward, s->micro_batches,
                  shape_count(&graph_value_at(s->chunk[c].graph, e[i].value)->shape));
}

dtype stage_storage(const stage *s)
{
    return s->storage;
}

/* What travels between this rank and a neighbour. */
static wire_kind form_to(const stage *s, int peer)
{
    const char *form = run_plan_stage_form(s->plan,
                                           s->plan->replica[s->place.replica]
                                               .rank[s->place.stage * s->plan->tensor + s->place.tensor_rank],
                                           peer);
    wire_kind k = s->between;
    if (form)
        wire_kind_find(&k, form);
    return k;
}

static gt_status connect(stage *s, const edge *e, const graph *g)
{
    const graph_value *x = graph_value_at(g, e->value);
    const int peer = peer_of(s, e);
    const wire_kind kind = form_to(s, peer);
    const uint32_t words[] = { (uint32_t)s->place.replica, (uint32_t)s->place.tensor_rank, (uint32_t)e->sender,
                               (uint32_t)e->gradient };
    const int useful = 2 * s->virtual_stages + 2; /* more are never under way */
    int depth = s->micro_batches + 1 < useful ? s->micro_batches + 1 : useful;
    gt_status st = GT_OK;
    depth = depth < 2 ? 2 : depth;
    if (kind != WIRE_AS_IT_IS && !s->narrow[kind])
        st = kernel_set_create(&s->narrow[kind], s->device, wire_kind_kernels(kind, s->storage));
    const wire_form form = { shape_count(&x->shape), x->type, kind, s->narrow[kind],
                             (uint32_t)gt_hash(words, sizeof words) };
    const crossing c = { e->sender, e->gradient ? e->sender - 1 : e->sender + 1,
                         e->gradient ? PIPE_BACKWARD_INPUT : PIPE_FORWARD,
                         e->gradient ? PIPE_RECEIVE_GRADIENT : PIPE_RECEIVE_ACTIVATION };
    if (!st && s->train && wire_places(s->device, &form))
        st = slots_of(s, &c, e->outward, useful, &depth);
    return st ? st
              : wire_create(e->wire, s->comm, peer, (uint32_t)(CHANNEL + 2 * e->sender + e->gradient), s->device,
                            s->completion, &form, depth);
}

static gt_status connect_chunk(stage *s, int c)
{
    edge e[EDGES];
    const int n = edges_of(s, c, e);
    gt_status st = GT_OK;
    for (int i = 0; !st && i < n; i++)
        st = connect(s, &e[i], s->chunk[c].graph);
    return st;
}

static gt_status make_window(dev_buffer **out, wire *w)
{
    dev_buffer *first = w ? wire_first_place(w) : NULL;
    return first ? dev_window_create(out, first) : GT_OK;
}

/* Of one copy: its kernels read and write where messages lie. */
static gt_status make_windows(const chunk *k, exec_ends *of)
{
    gt_status st = make_window(&of->x, k->in_y);
    if (!st)
        st = make_window(&of->y, k->out_y);
    if (!st)
        st = make_window(&of->dy, k->in_dy);
    return st ? st : make_window(&of->dx, k->out_dy);
}

gt_status stage_place(stage *s, const stage_place_options *o)
{
    gt_status st = GT_OK;
    s->device = o->exec.device;
    s->completion = o->completion;
    for (int c = 0; !st && s->virtual_stages > 1 && c < s->chunks; c++)
        st = connect_chunk(s, c);
    for (int c = 0; !st && c < s->chunks; c++)
        for (int i = 0; !st && i < s->chunk[c].copies; i++) {
            exec_options e = o->exec;
            st = make_windows(&s->chunk[c], &s->chunk[c].window[i]);
            if (st)
                break;
            e.ends = s->chunk[c].window[i];
            e.together = s->comm != NULL;
            st = exec_arena_create(&s->chunk[c].arena[i], s->device);
            e.arena = s->chunk[c].arena[i];
            e.passing = o->passing;
            e.split = s->split;
            if (!st)
                st = exec_create(&s->chunk[c].copy[i], s->chunk[c].graph, &e);
        }
    return st;
}

gt_status stage_ready(stage *s)
{
    gt_status st = GT_OK;
    for (int c = 0; !st && c < s->chunks; c++)
        for (int i = 0; !st && i < s->chunk[c].copies; i++)
            st = exec_ready(s->chunk[c].copy[i]);
    return st;
}

gt_status stage_renew(stage *s, int *renewed)
{
    gt_status st = GT_OK;
    int was;
    *renewed = 0;
    for (int c = 0; !st && c < s->chunks; c++)
        for (int i = 0; !st && i < s->chunk[c].copies; i++) {
            st = exec_renew(s->chunk[c].copy[i], &was);
            *renewed += !st && was;
        }
    return st;
}
