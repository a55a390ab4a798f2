/* SPDX-License-Identifier: MIT */
/* host/exchange/stage_wire.c - rings of slots.
 *
 * Receives are posted one slot less than there are, so that the slot whose write to the device
 * was queued last need not be waited for.                                                 */
#include "host/exchange/stage_wire.h"

#include "host/base/clock.h"
#include "host/base/trace.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct wire_slot {
    void *data;                     /* an arena                                             */
    net_request *request;
    dev_event *writing;             /* in: until then the device reads it                   */
    uint64_t ticket;                /* out: the completion thread's, who starts sending               */
    gt_span about;                  /* out: step, micro-batch and chunk, for the trace      */
    wire *of;
} wire_slot;

/* The launches that narrow a buffer of the stage's, or widen into it: one a copy of its graph. */
typedef struct wire_code {
    const dev_buffer *of;
    dev_list *list;
} wire_code;

struct wire {
    net_comm *comm;
    int peer, depth;
    uint32_t channel;
    wire_form form;
    uint64_t bytes, sent;
    dev_buffer *narrow;             /* a message on the device; one is enough, as its work is in order */
    wire_code *codes;
    int code_count;
    char name[40];                  /* for the trace                                        */
    wire_slot *slots;
    uint64_t total, posted, taken;  /* in: of this run; out: taken counts for ever          */
};

uint64_t wire_message(const wire_form *f)
{
    return (uint64_t)f->count * dtype_size(f->narrow ? kernel_set_storage(f->narrow) : f->type);
}

gt_status wire_create(wire **out, net_comm *c, int peer, uint32_t channel, const wire_form *form, int depth)
{
    *out = NULL;
    assert(!form->narrow || form->type == DTYPE_F32);
    wire *w = calloc(1, sizeof *w);
    wire_slot *slots = calloc((size_t)depth, sizeof *slots);
    if (!w || !slots) {
        free(w);
        free(slots);
        return gt_fail(GT_NO_MEMORY, "cannot connect stages: no memory for a list of %d messages under way", depth);
    }
    *w = (wire){ .comm = c,
                 .peer = peer,
                 .depth = depth,
                 .channel = channel,
                 .form = *form,
                 .bytes = wire_message(form),
                 .slots = slots };
    snprintf(w->name, sizeof w->name, "%s, rank %d", channel % 2 ? "gradient" : "activation", peer);
    gt_status st = GT_OK;
    for (int i = 0; !st && i < depth; i++) {
        slots[i].of = w;
        st = net_comm_memory(c, w->bytes, &slots[i].data);
    }
    if (st) {
        wire_release(w);
        return st;
    }
    *out = w;
    return GT_OK;
}

void wire_release(wire *w)
{
    if (!w)
        return;
    for (int i = 0; i < w->depth; i++) {
        wire_slot *p = &w->slots[i];
        const gt_status arrived = net_wait(p->request), written = dev_event_wait(p->writing);
        if (arrived || written)
            gt_message_clear();                 /* the job is over, and has said why */
        net_comm_memory_free(w->comm, p->data);
    }
    for (int i = 0; i < w->code_count; i++)
        dev_list_release(w->codes[i].list);
    dev_buffer_release(w->narrow);
    free(w->codes);
    free(w->slots);
    free(w);
}

/* ---- in fewer bits --------------------------------------------------------------------------- */

static gt_status make_code(wire *w, dev_device *d, dev_buffer *b, int outward)
{
    wire_code *more = realloc(w->codes, ((size_t)w->code_count + 1) * sizeof *more);
    if (!more)
        return gt_fail(GT_NO_MEMORY, "cannot send between stages: no memory for a list of their buffers");
    w->codes = more;
    more[w->code_count] = (wire_code){ .of = b };
    dev_list **list = &more[w->code_count].list;
    gt_status st = w->narrow ? GT_OK : dev_buffer_create(&w->narrow, d, w->bytes, "what travels between stages");
    if (!st)
        st = dev_list_create(list, d);
    w->code_count += !st;
    if (!st) {
        dev_list_label(*list, outward ? "rounding for the next stage" : "widening what a stage sent");
        st = outward ? kernel_store(*list, w->form.narrow, w->form.count, b, w->narrow)
                     : kernel_load(*list, w->form.narrow, w->form.count, w->narrow, b);
    }
    return st;
}

static gt_status run_code(wire *w, dev_device *d, dev_buffer *b, int outward)
{
    for (int i = 0; i < w->code_count; i++)
        if (w->codes[i].of == b)
            return dev_run(w->codes[i].list, 0, -1);
    gt_status st = make_code(w, d, b, outward);
    return st ? st : dev_run(w->codes[w->code_count - 1].list, 0, -1);
}

/* ---- messages ---------------------------------------------------------------------------------- */

static gt_status post(wire *w)
{
    gt_status st = GT_OK;
    while (!st && w->posted < w->total && w->posted - w->taken < (uint64_t)w->depth - 1) {
        wire_slot *p = &w->slots[w->posted % (uint64_t)w->depth];
        dev_event *writing = p->writing;
        p->writing = NULL;
        st = dev_event_wait(writing);
        if (!st)
            st = net_recv_start(w->comm, w->peer, w->channel, p->data, w->bytes, &p->request);
        w->posted += !st;
    }
    net_comm_signal(w->comm);
    return st;
}

gt_status wire_expect(wire *w, int total)
{
    assert(w->taken == w->total);
    w->total += (uint64_t)total;
    return post(w);
}

static gt_status finish(wire_slot *p, uint64_t *waited)
{
    net_request *r = p->request;
    p->request = NULL;
    if (!r)
        return GT_OK;
    const uint64_t start = gt_now_ns(), traced = gt_trace_begin();
    gt_status st = net_wait(r);
    gt_trace_end(GT_TRACE_WAIT, GT_TRACK_HOST, p->of->name, traced);
    *waited += gt_now_ns() - start;
    return st;
}

gt_status wire_receive(wire *w, dev_device *d, dev_buffer *b, uint64_t *waited)
{
    wire_slot *p = &w->slots[w->taken % (uint64_t)w->depth];
    gt_status st = finish(p, waited);
    if (!st && w->form.narrow && !w->narrow)
        st = dev_buffer_create(&w->narrow, d, w->bytes, "what travels between stages");
    if (!st)
        st = dev_write_start(d, w->form.narrow ? w->narrow : b, 0, p->data, w->bytes, &p->writing);
    w->taken += !st;
    if (!st && w->form.narrow)
        st = run_code(w, d, b, 0);
    return st ? st : post(w);
}

static gt_status send(void *context, uint64_t now)
{
    wire_slot *p = context;
    const wire *w = p->of;
    (void)now;
    gt_trace_of(p->about.step, p->about.micro_batch, p->about.chunk);
    gt_status st = net_send_start(w->comm, w->peer, w->channel, p->data, w->bytes, &p->request);
    net_comm_signal(w->comm);
    return st;
}

gt_status wire_send(wire *w, dev_device *d, dev_buffer *b, dev_completion *c, uint64_t *waited)
{
    wire_slot *p = &w->slots[w->taken % (uint64_t)w->depth];
    dev_event *read = NULL;
    gt_status st = dev_completion_wait(c, p->ticket);
    if (!st)
        st = finish(p, waited);
    if (!st && w->form.narrow)
        st = run_code(w, d, b, 1);
    if (!st)
        st = dev_read_start(d, w->form.narrow ? w->narrow : b, 0, p->data, w->bytes, &read);
    gt_trace_stamp(&p->about);
    if (!st)
        st = dev_completion_put(c, read, send, p, &p->ticket);
    w->taken += !st;
    w->sent += st ? 0 : w->bytes;
    return st;
}

uint64_t wire_sent(const wire *w)
{
    return w->sent;
}
