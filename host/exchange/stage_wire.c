/* SPDX-License-Identifier: MIT */
/* host/exchange/stage_wire.c - rings of slots, and the forms in which messages travel.
 *
 *   b ─ widened if it has 16 bits ─► encoded ─► read, sent
 *                                       └─ decoded, and held against b
 *
 * Receives are posted one slot less than there are, so that the slot whose write to the device
 * was queued last need not be waited for.                                                 */
#include "host/exchange/stage_wire.h"

#include "host/base/clock.h"
#include "host/base/trace.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct wire_slot {
    void *data;                     /* an arena                                             */
    net_request *request;
    dev_event *writing;             /* in: until then the device reads it                   */
    uint64_t ticket;                /* out: the completion thread's, who starts sending               */
    gt_span about;                  /* out: step, micro-batch and chunk, for the trace      */
    wire *of;
} wire_slot;

/* The launches that encode a buffer of the stage's, or decode into it: one a copy of its graph. */
typedef struct wire_code {
    const dev_buffer *of;
    dev_list *list;
    kernel_slot number;             /* of the message, where something is drawn             */
} wire_code;

typedef struct kind_row {
    const char *name, *against;
    double bound;
} kind_row;
static const kind_row kinds[WIRE_KINDS] = {
    [WIRE_AS_IT_IS] = { "none", "", 0.0 },
    [WIRE_BF16] = { "bf16", "itself", 0x1p-8 },
    [WIRE_FP16] = { "fp16", "the largest of 128", 0x1p-11 },
    [WIRE_INT8] = { "int8", "the largest of 128", 1.0 / 127.0 },
};

struct wire {
    net_comm *comm;
    int peer, depth;
    uint32_t channel;
    wire_form form;
    uint64_t bytes, sent;
    /* One of each is enough, as a device's work is in order. */
    dev_buffer *code;               /* a message on the device                              */
    dev_buffer *wide;               /* in fp32, of what is held in 16 bits                  */
    dev_buffer *back, *sums;        /* out: decoded again; kernel_error()                   */
    dev_buffer *random;             /* out: what is drawn with                              */
    wire_code *codes;
    int code_count;
    char name[40];                  /* for the trace                                        */
    wire_slot *slots;
    uint64_t total, posted, taken;  /* in: of this run; out: taken counts for ever          */
};

const char *wire_kind_name(wire_kind k)
{
    return kinds[k].name;
}

int wire_kind_find(wire_kind *out, const char *name)
{
    for (int k = 0; k < WIRE_KINDS; k++)
        if (!strcmp(kinds[k].name, name)) {
            *out = (wire_kind)k;
            return 1;
        }
    return 0;
}

int wire_kind_shortens(wire_kind k, dtype type)
{
    return k == WIRE_INT8 || (k != WIRE_AS_IT_IS && type == DTYPE_F32);
}

dtype wire_kind_kernels(wire_kind k, dtype type)
{
    return k == WIRE_BF16 ? DTYPE_BF16 : k == WIRE_FP16 ? DTYPE_F16 : type;
}

double wire_kind_bound(wire_kind k)
{
    return kinds[k].bound;
}

const char *wire_kind_against(wire_kind k)
{
    return kinds[k].against;
}

uint64_t wire_message(const wire_form *f)
{
    switch (f->kind) {
    case WIRE_BF16: return 2 * (uint64_t)f->count;
    case WIRE_FP16: return kernel_scaled_bytes(f->kernels, f->count);
    case WIRE_INT8: return 4 * (uint64_t)kernel_int8_words(f->count);
    case WIRE_AS_IT_IS:
    case WIRE_KINDS: break;
    }
    return (uint64_t)f->count * dtype_size(f->type);
}

gt_status wire_create(wire **out, net_comm *c, int peer, uint32_t channel, const wire_form *form, int depth)
{
    *out = NULL;
    assert(form->kind == WIRE_AS_IT_IS || wire_kind_shortens(form->kind, form->type));
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
    dev_buffer_release(w->code);
    dev_buffer_release(w->wide);
    dev_buffer_release(w->back);
    dev_buffer_release(w->sums);
    dev_buffer_release(w->random);
    free(w->codes);
    free(w->slots);
    free(w);
}

/* ---- in fewer bits --------------------------------------------------------------------------- */

/* What this end needs on the device; at the first message, since some stages have no neighbour on one side. */
static gt_status make_room(wire *w, dev_device *d, int outward)
{
    const uint32_t random[4] = { 0x73746167u, 0x65776972u, w->form.edge };
    const uint64_t values = 4 * (uint64_t)w->form.count;
    gt_status st = dev_buffer_create(&w->code, d, w->bytes, "what travels between stages");
    if (!st && w->form.type != DTYPE_F32)
        st = dev_buffer_create(&w->wide, d, values, "what travels between stages, in fp32");
    if (!st && outward)
        st = dev_buffer_create(&w->back, d, values, "what arrives at another stage");
    if (!st && outward)
        st = dev_buffer_create_zero(&w->sums, d, 12 * (uint64_t)kernel_error_slots(w->form.count),
                                    "errors of what travels");
    if (!st && outward && w->form.kind == WIRE_INT8)
        st = dev_buffer_create(&w->random, d, sizeof random, "random words of what travels");
    if (!st && w->random)
        st = dev_write(d, w->random, 0, random, sizeof random);
    return st;
}

static gt_status append_encode(const wire *w, wire_code *c, dev_buffer *x)
{
    switch (w->form.kind) {
    case WIRE_BF16: return kernel_store(c->list, w->form.kernels, w->form.count, x, w->code);
    case WIRE_FP16: return kernel_scaled_store(c->list, w->form.kernels, w->form.count, x, w->code);
    case WIRE_INT8:
        return kernel_int8_encode_numbered(c->list, w->form.kernels, w->form.count, w->random, x, w->code, &c->number);
    case WIRE_AS_IT_IS:
    case WIRE_KINDS: break;
    }
    return GT_OK;
}

static gt_status append_decode(const wire *w, dev_list *l, dev_buffer *to)
{
    switch (w->form.kind) {
    case WIRE_BF16: return kernel_load(l, w->form.kernels, w->form.count, w->code, to);
    case WIRE_FP16: return kernel_scaled_load(l, w->form.kernels, w->form.count, w->code, to);
    case WIRE_INT8: return kernel_int8_decode(l, w->form.kernels, w->form.count, 0, w->code, to);
    case WIRE_AS_IT_IS:
    case WIRE_KINDS: break;
    }
    return GT_OK;
}

static gt_status append_out(const wire *w, wire_code *c, dev_buffer *b)
{
    kernel_set *k = w->form.kernels;
    dev_buffer *x = w->wide ? w->wide : b;
    gt_status st = w->wide ? kernel_load(c->list, k, w->form.count, b, w->wide) : GT_OK;
    dev_list_label(c->list, "rounding for the next stage");
    if (!st)
        st = append_encode(w, c, x);
    if (!st)
        st = append_decode(w, c->list, w->back);
    return st ? st : kernel_error(c->list, k, w->form.count, w->form.kind == WIRE_BF16, x, w->back, w->sums);
}

static gt_status append_in(const wire *w, wire_code *c, dev_buffer *b)
{
    dev_list_label(c->list, "widening what a stage sent");
    gt_status st = append_decode(w, c->list, w->wide ? w->wide : b);
    return st || !w->wide ? st : kernel_store(c->list, w->form.kernels, w->form.count, w->wide, b);
}

static gt_status make_code(wire *w, dev_device *d, dev_buffer *b, int outward)
{
    wire_code *more = realloc(w->codes, ((size_t)w->code_count + 1) * sizeof *more);
    if (!more)
        return gt_fail(GT_NO_MEMORY, "cannot send between stages: no memory for a list of their buffers");
    w->codes = more;
    wire_code *c = &more[w->code_count];
    *c = (wire_code){ .of = b };
    gt_status st = dev_list_create(&c->list, d);
    w->code_count += !st;
    return st ? st : outward ? append_out(w, c, b) : append_in(w, c, b);
}

static gt_status run_code(wire *w, dev_device *d, dev_buffer *b, int outward, uint32_t number)
{
    int i = 0;
    gt_status st = GT_OK;
    while (i < w->code_count && w->codes[i].of != b)
        i++;
    if (i == w->code_count)
        st = make_code(w, d, b, outward);
    if (!st && w->random)
        st = dev_list_set(w->codes[i].list, w->codes[i].number.launch, w->codes[i].number.arg, dev_arg_u32(number));
    return st ? st : dev_run(w->codes[i].list, 0, -1);
}

gt_status wire_rounding(wire *w, dev_device *d, kernel_rounding *sum)
{
    if (!w->sums)
        return GT_OK;
    const int slots = kernel_error_slots(w->form.count);
    const uint64_t bytes = 12 * (uint64_t)slots;
    float *sums = malloc(bytes);
    gt_status st = sums ? dev_read(d, w->sums, 0, sums, bytes)
                        : gt_fail(GT_NO_MEMORY, "no memory for the errors of what stages send");
    if (!st) {
        const kernel_rounding r = kernel_error_of(sums, slots);
        sum->most = r.most > sum->most ? r.most : sum->most;
        sum->error += r.error;
        sum->size += r.size;
        memset(sums, 0, bytes);
        st = dev_write(d, w->sums, 0, sums, bytes);
    }
    free(sums);
    return st;
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
    if (!st && w->form.kind != WIRE_AS_IT_IS && !w->code)
        st = make_room(w, d, 0);
    if (!st)
        st = dev_write_start(d, w->code ? w->code : b, 0, p->data, w->bytes, &p->writing);
    w->taken += !st;
    if (!st && w->code)
        st = run_code(w, d, b, 0, 0);
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

gt_status wire_send(wire *w, dev_device *d, dev_buffer *b, dev_completion *c, uint32_t number, uint64_t *waited)
{
    wire_slot *p = &w->slots[w->taken % (uint64_t)w->depth];
    dev_event *read = NULL;
    gt_status st = dev_completion_wait(c, p->ticket);
    if (!st)
        st = finish(p, waited);
    if (!st && w->form.kind != WIRE_AS_IT_IS && !w->code)
        st = make_room(w, d, 1);
    if (!st && w->code)
        st = run_code(w, d, b, 1, number);
    if (!st)
        st = dev_read_start(d, w->code ? w->code : b, 0, p->data, w->bytes, &read);
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
