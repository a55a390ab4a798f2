/* SPDX-License-Identifier: MIT */
/* host/pipeline/stage.c - graphs, copies of them for the micro-batches in flight, and the loop
 * over instructions.
 *
 * A copy is an exec of the chunk's graph with its own inputs and kept activations. Which copy a
 * micro-batch takes is settled while it runs: the first free one when its forward begins, free
 * again after its backward-weight; how many there must be is counted beforehand on the same
 * array.                                                                                  */
#include "host/pipeline/stage_private.h"

#include "host/base/activity.h"
#include "host/base/clock.h"

#include <assert.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

gt_status stage_no_memory(void)
{
    return gt_fail(GT_NO_MEMORY, "cannot make a stage: no memory for its chunks, copies and times");
}

const run_replica *stage_replica(const stage *s)
{
    return &s->plan->replica[s->place.replica];
}

int stage_virtual(const stage *s, int c)
{
    return c * stage_replica(s)->stages + s->place.stage;
}

/* ---- building ------------------------------------------------------------------------------ */

static gt_status build_chunk(stage *s, int c, const stage_model *m)
{
    const run_replica *r = stage_replica(s);
    const int v = stage_virtual(s, c);
    const graph_part part = { .first_unit = r->cut[v],
                              .units = r->cut[v + 1] - r->cut[v],
                              .ranks = s->plan->tensor,
                              .rank = s->place.tensor_rank,
                              .share = s->plan->share };
    chunk *k = &s->chunk[c];
    gt_status st = graph_create(&k->graph, m->storage, r->micro_batch, m->seq);
    if (!st)
        st = m->build(k->graph, m->config, &part, s->train, s->train && s->plan->recompute);
    if (!st)
        k->ends = graph_ends_of(k->graph);
    return st;
}

/* The most micro-batches of chunk c that are between forward and backward-weight at once. */
static int copies_of(const stage *s, int c)
{
    int now = 0, most = 1;
    for (int i = 0; i < s->count; i++) {
        if (s->list[i].chunk != c)
            continue;
        now += s->list[i].kind == PIPE_FORWARD;
        most = now > most ? now : most;
        now -= s->list[i].kind == PIPE_BACKWARD_WEIGHT;
    }
    return s->train ? most : 1;
}

static gt_status allocate(stage *s)
{
    const size_t micros = (size_t)s->micro_batches;
    s->events = calloc((size_t)s->count + 1, sizeof *s->events);
    s->stamps = calloc((size_t)s->count + 1, sizeof *s->stamps);
    if (!s->events || !s->stamps)
        return stage_no_memory();
    for (int i = 0; i < s->count; i++)
        s->stamps[i] = (stamp){ .of = s, .index = i };
    for (int c = 0; c < s->chunks; c++) {
        chunk *k = &s->chunk[c];
        k->copies = copies_of(s, c);
        k->copy = calloc((size_t)k->copies, sizeof(exec *));
        k->arena = calloc((size_t)k->copies, sizeof(exec_arena *));
        k->taken = calloc((size_t)k->copies, 1);
        k->of = malloc(micros * sizeof *k->of);
        k->window = calloc((size_t)k->copies, sizeof *k->window);
        k->places = malloc(micros * sizeof *k->places);
        if (!k->copy || !k->arena || !k->taken || !k->of || !k->window || !k->places)
            return stage_no_memory();
        memset(k->of, -1, micros * sizeof *k->of);
        memset(k->places, -1, micros * sizeof *k->places);
    }
    return GT_OK;
}

gt_status stage_build(stage **out, const run_plan *plan, int rank, net_comm *comm, const stage_model *m, int train)
{
    *out = NULL;
    stage *s = calloc(1, sizeof *s);
    if (!s)
        return stage_no_memory();
    s->plan = plan;
    s->comm = comm;
    s->place = run_plan_place(plan, rank);
    s->chunks = plan->chunks;
    s->train = train;
    s->seq = m->seq;
    s->between = m->between;
    s->storage = m->storage;
    s->virtual_stages = stage_replica(s)->stages * s->chunks;
    s->micro_batches = stage_replica(s)->micro_batches;
    /* Nobody waits for the input gradients of a lone stage: both halves run as one program. */
    s->split = train && s->virtual_stages > 1;
    s->chunk = calloc((size_t)s->chunks, sizeof *s->chunk);
    gt_status st = s->chunk ? run_plan_schedule(plan, s->place.replica, &s->schedule) : stage_no_memory();
    if (!st) {
        s->list = s->schedule.list[s->place.stage];
        s->count = s->schedule.count[s->place.stage];
        st = allocate(s);
    }
    for (int c = 0; !st && c < s->chunks; c++)
        st = build_chunk(s, c, m);
    if (st) {
        stage_release(s);
        return st;
    }
    *out = s;
    return GT_OK;
}

static void release_windows(exec_ends *w)
{
    dev_buffer_release(w->x);
    dev_buffer_release(w->dx);
    dev_buffer_release(w->y);
    dev_buffer_release(w->dy);
}

void stage_release(stage *s)
{
    if (!s)
        return;
    if (s->completion && dev_completion_drain(s->completion))
        gt_message_clear();
    for (int c = 0; s->chunk && c < s->chunks; c++) {
        chunk *k = &s->chunk[c];
        for (int i = 0; i < k->copies; i++) {
            if (k->copy)
                exec_release(k->copy[i]);
            if (k->arena)
                exec_arena_release(k->arena[i]);
            if (k->window)
                release_windows(&k->window[i]);
        }
        wire_release(k->in_y);
        wire_release(k->out_y);
        wire_release(k->in_dy);
        wire_release(k->out_dy);
        free(k->window);
        free(k->places);
        graph_release(k->graph);
        free(k->copy);
        free(k->arena);
        free(k->of);
        free(k->taken);
        free(k->stops);
        free(k->wants);
    }
    free(s->chunk);
    free(s->events);
    free(s->stamps);
    free(s->pauses);
    free(s->traced);
    pipe_schedule_release(&s->schedule);
    for (int i = 0; i < WIRE_KINDS; i++)
        kernel_set_release(s->narrow[i]);
    free(s);
}

int stage_chunks(const stage *s)
{
    return s->chunks;
}

const graph *stage_graph(const stage *s, int c)
{
    return s->chunk[c].graph;
}

int stage_is_first(const stage *s)
{
    return s->place.stage == 0;
}

int stage_is_last(const stage *s)
{
    return s->place.stage == stage_replica(s)->stages - 1;
}

/* ---- what others ask --------------------------------------------------------------------------- */

exec *stage_exec(stage *s, int c)
{
    return s->chunk[c].copy[0];
}

uint64_t stage_bytes(const stage *s)
{
    uint64_t sum = 0;
    for (int c = 0; c < s->chunks; c++)
        for (int i = 0; i < s->chunk[c].copies; i++)
            sum += exec_arena_bytes(s->chunk[c].arena[i]);
    return sum;
}

static gt_status keep_list(int **out, int *kept, const int *list, int count)
{
    int *copy = malloc(((size_t)count + 1) * sizeof *copy);
    if (!copy)
        return stage_no_memory();
    if (count)
        memcpy(copy, list, (size_t)count * sizeof *copy);
    free(*out);
    *out = copy;
    *kept = count;
    return GT_OK;
}

gt_status stage_stops(stage *s, int c, const int *stops, int count)
{
    return keep_list(&s->chunk[c].stops, &s->chunk[c].stop_count, stops, count);
}

gt_status stage_wants(stage *s, int c, const int *stops, int count)
{
    pause *more = realloc(s->pauses, ((size_t)s->pause_room + (size_t)count + 1) * sizeof *more);
    if (!more)
        return stage_no_memory();
    s->pauses = more;
    s->pause_room += count;
    return keep_list(&s->chunk[c].wants, &s->chunk[c].want_count, stops, count);
}

/* ---- running ------------------------------------------------------------------------------- */

/* The copy of a micro-batch; one is taken for it if it has none. */
static exec *copy_for(chunk *k, int m)
{
    for (int i = 0; k->of[m] < 0; i++) {
        assert(i < k->copies);
        if (!k->taken[i]) {
            k->taken[i] = 1;
            k->of[m] = i;
        }
    }
    return k->copy[k->of[m]];
}

static void copy_free(chunk *k, int m)
{
    k->taken[k->of[m]] = 0;
    k->of[m] = -1;
}

static void begin(stage *s)
{
    s->start = s->last_end = gt_now_ns();
    s->waited = 0;
    s->pause_count = 0;
    memset(s->events, 0, (size_t)s->count * sizeof *s->events);
    for (int c = 0; c < s->chunks; c++)
        s->chunk[c].forwards = s->chunk[c].inputs = s->chunk[c].weights = 0;
}

/* On the completion thread, one after the other: a program begins when it is queued or when the one
 * before it ends. */
static gt_status note_end(void *context, uint64_t now)
{
    const stamp *t = context;
    stage *s = t->of;
    const uint64_t from = t->queued > s->last_end ? t->queued : s->last_end;
    s->events[t->index] = (pipe_event){ (double)(from - s->start) * 1e-9, (double)(now - s->start) * 1e-9 };
    s->last_end = now;
    return GT_OK;
}

static const char *program_name(const stage *s, pipe_kind kind)
{
    return kind == PIPE_FORWARD          ? "forward"
           : kind == PIPE_BACKWARD_INPUT ? "backward, inputs"
           : s->split                    ? "backward, weights"
                                         : "backward";
}

/* On the completion thread. */
static gt_status trace_end(void *context, uint64_t now)
{
    traced *t = context;
    stage *s = t->of;
    t->span.begin = t->queued > s->traced_end ? t->queued : s->traced_end;
    t->span.end = now;
    s->traced_end = now;
    gt_trace_put(&t->span);
    return GT_OK;
}

/* A span from the program's begin to its end. */
static gt_status trace_program(stage *s, int index)
{
    const uint64_t room = (uint64_t)STEPS_AHEAD * (uint64_t)s->count;
    dev_event *done;
    if (!s->traced && !(s->traced = calloc(room, sizeof *s->traced)))
        return stage_no_memory();
    traced *t = &s->traced[s->traced_count++ % room];
    *t = (traced){ s, s->stamps[index].queued, { .category = GT_TRACE_STEP, .track = GT_TRACK_STEPS } };
    gt_trace_stamp(&t->span);
    snprintf(t->span.name, sizeof t->span.name, "%s", program_name(s, (pipe_kind)s->list[index].kind));
    gt_status st = dev_mark(s->device, &done);
    return st ? st : dev_completion_put(s->completion, done, trace_end, t, NULL);
}

uint64_t stage_traced_until(stage *s, uint64_t now)
{
    const uint64_t before = s->traced_end;
    s->traced_end = now;
    return before;
}

static gt_status stamp_end(stage *s, int index)
{
    dev_event *done;
    if (gt_trace_on() && s->completion) {
        gt_status st = trace_program(s, index);
        if (st)
            return st;
    }
    if (!s->comm) /* nobody asks, and the host may be a step ahead */
        return GT_OK;
    gt_status st = dev_mark(s->device, &done);
    return st ? st : dev_completion_put(s->completion, done, note_end, &s->stamps[index], NULL);
}

static gt_status note_done(void *context, uint64_t now)
{
    ((pause *)context)->done = now;
    return GT_OK;
}

/* The caller may wait for others; how long the device waits as well is told from when it has done what is queued. */
static gt_status pause_for(stage *s, const stage_calls *calls, int c, int until)
{
    dev_event *done;
    if (!s->comm)
        return calls->wanted(calls->context, c, until);
    assert(s->pause_count < s->pause_room);
    pause *p = &s->pauses[s->pause_count++];
    *p = (pause){ .program = s->stamps[s->at].queued };
    gt_status st = dev_mark(s->device, &done);
    if (!st)
        st = dev_completion_put(s->completion, done, note_done, p, NULL);
    if (!st)
        st = calls->wanted(calls->context, c, until);
    p->over = gt_now_ns();
    return st;
}

/* What the newest update is still bringing from other ranks is waited for where it is read. */
static gt_status forward_as_wanted(stage *s, const chunk *k, const stage_calls *calls, exec *e, int c)
{
    gt_status st = GT_OK;
    int from = 0;
    for (int i = 0; !st && i < k->want_count; i++) {
        const int last = i + 1 == k->want_count;
        if (k->wants[i] > from)
            st = exec_run_forward(e, from, k->wants[i]);
        from = k->wants[i];
        if (!st)
            st = pause_for(s, calls, c, last ? INT_MAX : k->wants[i + 1]);
    }
    return st ? st : exec_run_forward(e, from, -1);
}

static gt_status forward(stage *s, const stage_calls *calls, int c, int m)
{
    chunk *k = &s->chunk[c];
    exec *e = copy_for(k, m);
    const int first = !k->forwards;
    gt_status st = calls->inputs ? calls->inputs(calls->context, e, c, m) : GT_OK;
    if (!st && k->out_y)
        st = wire_begin(k->out_y, exec_value(e, k->ends.y), &k->places[m].y, &s->waited);
    if (!st)
        st = exec_add_program(e, EXEC_FORWARD, k->forwards++ > 0);
    if (st)
        return st;
    return first && calls->wanted ? forward_as_wanted(s, k, calls, e, c) : exec_run(e, EXEC_FORWARD);
}

static gt_status backward_input(stage *s, int c, int m)
{
    chunk *k = &s->chunk[c];
    exec *e = copy_for(k, m);
    if (!s->split)
        return GT_OK;
    gt_status st = k->out_dy ? wire_begin(k->out_dy, exec_value(e, k->ends.dx), &k->places[m].dx, &s->waited) : GT_OK;
    if (!st)
        st = exec_add_program(e, EXEC_INPUT_GRAD, k->inputs++ > 0);
    return st ? st : exec_run(e, EXEC_INPUT_GRAD);
}

/* The last one of a step pauses where gradients become complete. */
static gt_status backward_weight(stage *s, const stage_calls *calls, int c, int m)
{
    chunk *k = &s->chunk[c];
    exec *e = copy_for(k, m);
    const exec_program program = s->split ? EXEC_WEIGHT_GRAD : EXEC_BACKWARD;
    const int last = k->weights == s->micro_batches - 1;
    int from = 0;
    gt_status st = exec_add_program(e, program, k->weights++ > 0);
    if (!st && !last)
        st = exec_run(e, program);
    for (int i = 0; !st && last && i < k->stop_count; i++) {
        st = exec_run_last(e, from, k->stops[i]);
        from = k->stops[i];
        if (!st && calls->gradients)
            st = calls->gradients(calls->context, c, from, 0);
    }
    if (!st && last)
        st = exec_run_last(e, from, -1);
    if (!st && k->in_y)
        st = wire_read(k->in_y, k->places[m].x);
    if (!st && k->in_dy)
        st = wire_read(k->in_dy, k->places[m].dy);
    copy_free(k, m);
    return st;
}

/* How many launches of the last backward-weight the caller knows of when all are queued. */
static int launches_of_last(const chunk *k)
{
    return k->stop_count ? k->stops[k->stop_count - 1] : 0;
}

static gt_status expect(stage *s, int count)
{
    gt_status st = GT_OK;
    for (int c = 0; !st && c < s->chunks; c++) {
        chunk *k = &s->chunk[c];
        if (k->in_y)
            st = wire_expect(k->in_y, count);
        if (!st && k->in_dy)
            st = wire_expect(k->in_dy, count);
    }
    return st;
}

static gt_status receive(stage *s, int index, wire *from, dev_buffer *to, int *place)
{
    const double begin = (double)(s->stamps[index].queued - s->start) * 1e-9;
    const uint64_t before = s->waited;
    gt_status st = wire_receive(from, to, place, &s->waited);
    s->events[index] = (pipe_event){ begin, begin + (double)(s->waited - before) * 1e-9 };
    return st;
}

/* Of a message of micro-batch m, in the run: the same again where a step is done again. */
static uint32_t message_number(const stage *s, int m)
{
    return (uint32_t)s->step * (uint32_t)s->micro_batches + (uint32_t)m;
}

static gt_status follow(stage *s, const stage_calls *calls, int index)
{
    const pipe_instruction *i = &s->list[index];
    const int c = i->chunk, m = i->micro_batch;
    chunk *k = &s->chunk[c];
    gt_status st = GT_OK;
    int computes = 0;
    s->at = index;
    s->stamps[index].queued = gt_now_ns();
    gt_trace_of(s->step, m + 1, c + 1);
    switch ((pipe_kind)i->kind) {
    case PIPE_RECEIVE_ACTIVATION:
        return receive(s, index, k->in_y, exec_value(copy_for(k, m), k->ends.x), &k->places[m].x);
    case PIPE_SEND_ACTIVATION:
        return wire_send(k->out_y, exec_value(copy_for(k, m), k->ends.y), k->places[m].y, message_number(s, m),
                         &s->waited);
    case PIPE_RECEIVE_GRADIENT:
        return receive(s, index, k->in_dy, exec_value(copy_for(k, m), k->ends.dy), &k->places[m].dy);
    case PIPE_SEND_GRADIENT:
        return wire_send(k->out_dy, exec_value(copy_for(k, m), k->ends.dx), k->places[m].dx, message_number(s, m),
                         &s->waited);
    case PIPE_FORWARD:
        st = forward(s, calls, c, m);
        computes = 1;
        break;
    case PIPE_BACKWARD_INPUT:
        st = backward_input(s, c, m);
        computes = s->split;
        break;
    case PIPE_BACKWARD_WEIGHT:
        st = backward_weight(s, calls, c, m);
        computes = 1;
        break;
    case PIPE_REDUCE: /* what is complete earlier was told within the backward-weight */
        gt_trace_of(s->step, 0, c + 1);
        return calls->gradients ? calls->gradients(calls->context, c, launches_of_last(k), 1) : GT_OK;
    case PIPE_UPDATE: gt_trace_of(s->step, 0, 0); return calls->update ? calls->update(calls->context) : GT_OK;
    case PIPE_KINDS: break;
    }
    return st || !computes ? st : stamp_end(s, index);
}

int stage_stopped(const stage *s)
{
    for (int c = 0; c < s->chunks; c++)
        for (int i = 0; i < s->chunk[c].copies; i++)
            if (exec_stopped(s->chunk[c].copy[i]))
                return 1;
    return 0;
}

/* A step that was broken off leaves micro-batches with copies that nobody will free. */
static void free_copies(stage *s)
{
    for (int c = 0; c < s->chunks; c++)
        for (int m = 0; m < s->micro_batches; m++)
            if (s->chunk[c].of[m] >= 0)
                copy_free(&s->chunk[c], m);
}

gt_status stage_run(stage *s, const stage_calls *calls)
{
    gt_activity a;
    gt_activity_begin(&a, "micro-batch", NULL, (uint64_t)s->micro_batches);
    begin(s);
    for (int c = 0; c < s->chunks; c++)
        for (int i = 0; i < s->chunk[c].copies; i++)
            exec_finish(s->chunk[c].copy[i], calls->finishes);
    s->step = calls->step;
    gt_status st = expect(s, s->micro_batches);
    for (int i = 0; !st && i < s->count; i++) {
        if (s->list[i].kind == PIPE_FORWARD || s->list[i].kind == PIPE_BACKWARD_WEIGHT)
            gt_activity_set(&a, (uint64_t)s->list[i].micro_batch + 1);
        st = follow(s, calls, i);
    }
    gt_activity_end(&a);
    gt_trace_of(s->step, 0, 0);
    if (st)
        free_copies(s);
    return st;
}

/* Forward of one micro-batch, from the stage before to the next one. */
static gt_status pass_on(stage *s, const stage_calls *calls, int c, int m)
{
    chunk *k = &s->chunk[c];
    exec *e = k->copy[0];
    stage_places at = { -1, -1, -1, -1 };
    gt_status st = GT_OK;
    if (k->in_y)
        st = wire_receive(k->in_y, exec_value(e, k->ends.x), &at.x, &s->waited);
    if (!st && calls->inputs)
        st = calls->inputs(calls->context, e, c, m);
    if (!st && k->out_y)
        st = wire_begin(k->out_y, exec_value(e, k->ends.y), &at.y, &s->waited);
    if (!st)
        st = exec_add_program(e, EXEC_FORWARD, k->forwards++ > 0);
    if (!st)
        st = exec_run(e, EXEC_FORWARD);
    if (!st && k->in_y)
        st = wire_read(k->in_y, at.x);
    if (!st && k->out_y)
        st = wire_send(k->out_y, exec_value(e, k->ends.y), at.y, (uint32_t)m, &s->waited);
    return st;
}

gt_status stage_forward(stage *s, const stage_calls *calls, int count)
{
    assert(!s->train);
    begin(s);
    gt_status st = expect(s, count);
    for (int m = 0; !st && m < count; m++)
        for (int c = 0; !st && c < s->chunks; c++)
            st = pass_on(s, calls, c, m);
    return st || !s->completion ? st : dev_completion_drain(s->completion);
}

static uint64_t sent(const stage *s)
{
    uint64_t sum = 0;
    for (int c = 0; c < s->chunks; c++) {
        sum += s->chunk[c].out_y ? wire_sent(s->chunk[c].out_y) : 0;
        sum += s->chunk[c].out_dy ? wire_sent(s->chunk[c].out_dy) : 0;
    }
    return sum;
}

static uint64_t copied(const stage *s)
{
    uint64_t sum = 0;
    for (int c = 0; c < s->chunks; c++) {
        sum += s->chunk[c].in_y ? wire_copied(s->chunk[c].in_y) : 0;
        sum += s->chunk[c].in_dy ? wire_copied(s->chunk[c].in_dy) : 0;
    }
    return sum;
}

static int computes(unsigned char kind)
{
    return kind == PIPE_FORWARD || kind == PIPE_BACKWARD_INPUT || kind == PIPE_BACKWARD_WEIGHT;
}

/* Since it was asked for last. */
static gt_status take_rounding(stage *s)
{
    gt_status st = GT_OK;
    for (int c = 0; !st && c < s->chunks; c++) {
        if (s->chunk[c].out_y)
            st = wire_rounding(s->chunk[c].out_y, &s->report.rounding[0]);
        if (!st && s->chunk[c].out_dy)
            st = wire_rounding(s->chunk[c].out_dy, &s->report.rounding[1]);
    }
    return st;
}

/* Seconds in which the device had nothing to do within programs, since the host waited for others. */
static double paused(const stage *s)
{
    uint64_t sum = 0;
    for (int i = 0; i < s->pause_count; i++) {
        const pause *p = &s->pauses[i];
        const uint64_t from = p->done > p->program ? p->done : p->program;
        sum += p->over > from ? p->over - from : 0;
    }
    return (double)sum * 1e-9;
}

gt_status stage_settle(stage *s)
{
    gt_status st = dev_completion_drain(s->completion);
    const uint64_t all = sent(s), all_copied = copied(s);
    s->report = (stage_report){ .seconds = (double)(s->last_end - s->start) * 1e-9,
                                .waited = (double)s->waited * 1e-9,
                                .sent = all - s->sent_before,
                                .copied = all_copied - s->copied_before };
    s->sent_before = all;
    s->copied_before = all_copied;
    for (int i = 0; i < s->count; i++)
        if (computes(s->list[i].kind))
            s->report.busy += s->events[i].end - s->events[i].begin;
    const double idle = paused(s);
    s->report.busy -= idle;
    s->report.waited += idle;
    return st ? st : take_rounding(s);
}

const pipe_schedule *stage_schedule(const stage *s)
{
    return &s->schedule;
}

const pipe_event *stage_events(const stage *s)
{
    return s->events;
}

uint64_t stage_began(const stage *s)
{
    return s->start;
}

void stage_note(stage *s, pipe_kind kind, int c, uint64_t begin, uint64_t end)
{
    for (int i = 0; i < s->count; i++)
        if (s->list[i].kind == kind && s->list[i].chunk == c)
            s->events[i] = (pipe_event){ ((double)begin - (double)s->start) * 1e-9,
                                         ((double)end - (double)s->start) * 1e-9 };
}

stage_report stage_last(const stage *s)
{
    return s->report;
}
