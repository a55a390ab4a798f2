/* SPDX-License-Identifier: MIT */
/* host/exchange/stage_wire.c - rings of slots, and the forms in which messages travel.
 *
 *   b ─ widened if it has 16 bits ─► encoded ─► read, sent
 *                                       └─ decoded, and held against b
 *
 *   in    free ── post ──► posted ── wire_receive ──► held ── device has read ──► free, posted again
 *   out   free ── begin ─► made ── device has made, completion sends ──► sent ── peer has it ──► free
 *
 * A slot's message goes in one part, or in several of a size that both ends know without being told, each with an event
 * of the device and a request of the network of its own. What decides is said once, before the first message:
 *
 *   wire_create()   ── own memory? piece ──►  ◄── own memory? piece ──   both ways, whoever sends later
 *   agree()         the same parts at both ends
 *
 * Messages of one form go through the same states whether the device computes in the slot or copies to and from it;
 * an encoding is computed in the slot as well. What the peer lends is bound as a buffer of the device
 * once for each place that is met, which are the sender's few slots.                            */
#include "host/exchange/stage_wire.h"

#include "host/base/clock.h"
#include "host/base/trace.h"

#include <assert.h>
#include <pthread.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A share of a slot's message; most go in one. */
typedef struct wire_part {
    struct wire_slot *of;
    net_request *request;
    net_loan loan;                  /* in: where the peer has it                            */
} wire_part;
enum { PARTS = 16 };                /* at most: a further one hides less than it costs      */

typedef struct wire_slot {
    void *data;                     /* an arena                                             */
    dev_buffer *buffer;             /* the same, where the device computes in host memory   */
    wire_part part[PARTS];
    uint64_t ticket;                /* the completion thread's, who starts sending; in: who posts again */
    gt_span about;                  /* out: step, micro-batch and chunk, for the trace      */
    int busy;                       /* in: posted or held                                   */
    wire *of;
} wire_slot;

/* Memory of a peer as a buffer. */
typedef struct wire_lent {
    void *data;
    net_mapping *mapping;
    dev_buffer *buffer;
} wire_lent;

/* The launches that encode a buffer of the stage's, or decode into it: one a copy of its graph. */
typedef struct wire_code {
    const dev_buffer *of;
    dev_list *list;
    kernel_slot number;             /* of the message, where something is drawn             */
} wire_code;

typedef struct kind_row {
    const char *name, *against;
    double bound, bytes;
} kind_row;
static const kind_row kinds[WIRE_KINDS] = {
    [WIRE_AS_IT_IS] = { "none", "", 0.0, 0.0 },
    [WIRE_BF16] = { "bf16", "itself", 0x1p-8, 2.0 },
    [WIRE_FP16] = { "fp16", "the largest of 128", 0x1p-11, 2.0 + 1.0 / 32.0 },
    [WIRE_INT8] = { "int8", "the largest of 128", 1.0 / 127.0, 1.0 + 1.0 / 32.0 },
};

/* What the ends of a wire tell each other. */
typedef struct wire_word {
    uint32_t apart;                 /* the device has memory of its own                     */
    uint32_t zero;
    uint64_t piece;                 /* bytes of a part, 0: all in one                       */
} wire_word;

struct wire {
    net_comm *comm;
    dev_device *device;
    dev_completion *completion;
    int peer, depth;
    uint32_t channel;
    wire_form form;
    int in_host;                    /* the device computes in host memory                   */
    uint64_t bytes, sent, copied;
    wire_word mine, theirs;
    net_request *said, *heard;      /* of these; NULL: the ends have agreed                 */
    int parts;                      /* of a message                                         */
    uint64_t part_bytes;            /* of all but the last                                  */
    /* One of each is enough, as a device's work is in order. */
    dev_buffer *code;               /* a message on the device, in_host: a window on slots  */
    dev_buffer *wide;               /* in fp32, of what is held in 16 bits                  */
    dev_buffer *back, *sums;        /* out: decoded again; kernel_error()                   */
    dev_buffer *random;             /* out: what is drawn with                              */
    wire_code *codes;
    int code_count;
    char name[40];                  /* for the trace                                        */
    wire_slot *slots;
    wire_lent *lent;
    int lent_count;
    uint64_t taken, begun;          /* messages received or sent, and begun, for ever       */
    /* In; the completion thread posts as well. */
    pthread_mutex_t lock;
    uint64_t total, posted;
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

double wire_kind_bytes(wire_kind k, dtype type)
{
    return k == WIRE_AS_IT_IS ? (double)dtype_size(type) : kinds[k].bytes;
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

int wire_places(const dev_device *d, const wire_form *f)
{
    return f->kind == WIRE_AS_IT_IS && dev_info_of(d)->native_kernels;
}

static gt_status make_slots(wire *w)
{
    gt_status st = GT_OK;
    for (int i = 0; !st && i < w->depth; i++) {
        wire_slot *p = &w->slots[i];
        for (int k = 0; k < PARTS; k++)
            p->part[k].of = p;
        p->of = w;
        st = net_comm_memory(w->comm, w->bytes, &p->data);
        if (!st && w->in_host)
            st = dev_buffer_create_in(&p->buffer, w->device, p->data, w->bytes, "what travels between stages");
    }
    return st;
}

/* ---- in parts ---------------------------------------------------------------------------------- */

static gt_status say(wire *w)
{
    w->mine = (wire_word){ .apart = !w->in_host, .piece = dev_transfer_piece(w->device) };
    gt_status st = net_send_start(w->comm, w->peer, w->channel, &w->mine, sizeof w->mine, &w->said);
    if (!st)
        st = net_recv_start(w->comm, w->peer, w->channel, &w->theirs, sizeof w->theirs, &w->heard);
    net_comm_signal(w->comm);
    return st;
}

/* 1: the next part may travel or be written while this one is still read or on its way. Within a host bytes that are
 * lent do not travel: there both devices must copy. */
static int parts_overlap(const wire *w)
{
    const char *by = net_comm_transport(w->comm, w->peer);
    return !strcmp(by, "shm") || !strcmp(by, "self")
               ? w->mine.apart && w->theirs.apart
               : w->mine.apart || w->theirs.apart;
}

static void cut(wire *w)
{
    enum { PAGE = 4096 };           /* what is lent to a device begins at one */
    const uint64_t piece = w->mine.piece < w->theirs.piece ? w->mine.piece : w->theirs.piece;
    const uint64_t wanted = piece ? (w->bytes + piece - 1) / piece : 1;
    const uint64_t parts = !wanted || !parts_overlap(w) ? 1 : wanted < PARTS ? wanted : PARTS;
    w->part_bytes = ((w->bytes + parts - 1) / parts + PAGE - 1) / PAGE * PAGE;
    w->parts = parts == 1 ? 1 : (int)((w->bytes + w->part_bytes - 1) / w->part_bytes);
    if (w->parts == 1)
        w->part_bytes = w->bytes;
}

/* Before the first message; both ends come to the same. */
static gt_status agree(wire *w)
{
    net_request *said = w->said, *heard = w->heard;
    if (!said)
        return GT_OK;
    w->said = w->heard = NULL;
    const gt_status sent = net_wait(said), st = net_wait(heard);
    if (!sent && !st)
        cut(w);
    return sent ? sent : st;
}

static uint64_t part_at(const wire_part *x)
{
    return (uint64_t)(x - x->of->part) * x->of->of->part_bytes;
}

static uint64_t part_size(const wire_part *x)
{
    const wire *w = x->of->of;
    const uint64_t left = w->bytes - part_at(x);
    return left < w->part_bytes ? left : w->part_bytes;
}

static void *part_data(const wire_part *x)
{
    return (char *)x->of->data + part_at(x);
}

gt_status wire_create(wire **out, net_comm *comm, int peer, uint32_t channel, dev_device *d, dev_completion *c,
                      const wire_form *form, int depth)
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
    *w = (wire){ .comm = comm,
                 .device = d,
                 .completion = c,
                 .peer = peer,
                 .depth = depth,
                 .channel = channel,
                 .form = *form,
                 .in_host = dev_info_of(d)->native_kernels,
                 .bytes = wire_message(form),
                 .slots = slots };
    pthread_mutex_init(&w->lock, NULL);
    snprintf(w->name, sizeof w->name, "%s, rank %d", channel % 2 ? "gradient" : "activation", peer);
    gt_status st = make_slots(w);
    if (!st)
        st = say(w);
    if (st)
        wire_release(w);
    else
        *out = w;
    return st;
}

/* What is on the device. */
static void release_code(wire *w)
{
    for (int i = 0; i < w->code_count; i++)
        dev_list_release(w->codes[i].list);
    dev_buffer_release(w->code);
    dev_buffer_release(w->wide);
    dev_buffer_release(w->back);
    dev_buffer_release(w->sums);
    dev_buffer_release(w->random);
    free(w->codes);
}

void wire_release(wire *w)
{
    if (!w)
        return;
    if (agree(w))
        gt_message_clear();                     /* the job is over, and has said why */
    for (int i = 0; i < w->depth * PARTS; i++) {
        wire_part *x = &w->slots[i / PARTS].part[i % PARTS];
        if (!x->loan.data && net_borrow_wait(x->request, &x->loan))
            gt_message_clear();
        net_borrow_end(w->comm, w->peer, &x->loan);
    }
    release_code(w);
    for (int i = 0; i < w->lent_count; i++) {
        dev_buffer_release(w->lent[i].buffer);
        net_mapping_drop(w->lent[i].mapping);
    }
    for (int i = 0; i < w->depth; i++) {
        dev_buffer_release(w->slots[i].buffer);
        net_comm_memory_free(w->comm, w->slots[i].data);
    }
    pthread_mutex_destroy(&w->lock);
    free(w->lent);
    free(w->slots);
    free(w);
}

dev_buffer *wire_first_place(wire *w)
{
    return wire_places(w->device, &w->form) ? w->slots[0].buffer : NULL;
}

/* ---- in fewer bits --------------------------------------------------------------------------- */

/* What this end needs on the device; at the first message, since some stages have no neighbour on one side. */
static gt_status make_room(wire *w, int outward)
{
    dev_device *d = w->device;
    const uint32_t random[4] = { 0x73746167u, 0x65776972u, w->form.edge };
    const uint64_t values = 4 * (uint64_t)w->form.count;
    gt_status st = w->in_host ? dev_window_create(&w->code, w->slots[0].buffer)
                              : dev_buffer_create(&w->code, d, w->bytes, "what travels between stages");
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
    case WIRE_INT8: return kernel_int8_decode(l, w->form.kernels, w->form.count, 0, w->code, NULL, to);
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

static gt_status make_code(wire *w, dev_buffer *b, int outward)
{
    wire_code *more = realloc(w->codes, ((size_t)w->code_count + 1) * sizeof *more);
    if (!more)
        return gt_fail(GT_NO_MEMORY, "cannot send between stages: no memory for a list of their buffers");
    w->codes = more;
    wire_code *c = &more[w->code_count];
    *c = (wire_code){ .of = b };
    gt_status st = dev_list_create(&c->list, w->device);
    w->code_count += !st;
    return st ? st : outward ? append_out(w, c, b) : append_in(w, c, b);
}

static gt_status run_code(wire *w, dev_buffer *b, int outward, uint32_t number)
{
    int i = 0;
    gt_status st = GT_OK;
    while (i < w->code_count && w->codes[i].of != b)
        i++;
    if (i == w->code_count)
        st = make_code(w, b, outward);
    if (!st && w->random)
        st = dev_list_set(w->codes[i].list, w->codes[i].number.launch, w->codes[i].number.arg, dev_arg_u32(number));
    return st ? st : dev_run(w->codes[i].list, 0, -1);
}

gt_status wire_rounding(wire *w, kernel_rounding *sum)
{
    if (!w->sums)
        return GT_OK;
    const int slots = kernel_error_slots(w->form.count);
    const uint64_t bytes = 12 * (uint64_t)slots;
    float *sums = malloc(bytes);
    gt_status st = sums ? dev_read(w->device, w->sums, 0, sums, bytes)
                        : gt_fail(GT_NO_MEMORY, "no memory for the errors of what stages send");
    if (!st) {
        const kernel_rounding r = kernel_error_of(sums, slots);
        sum->most = r.most > sum->most ? r.most : sum->most;
        sum->error += r.error;
        sum->size += r.size;
        memset(sums, 0, bytes);
        st = dev_write(w->device, w->sums, 0, sums, bytes);
    }
    free(sums);
    return st;
}

/* One message; the first of some, which only makes the lists, is not counted. */
static gt_status time_one(wire *w, dev_buffer *b, int outward, double *least)
{
    gt_status st = dev_wait(w->device);
    const uint64_t start = gt_now_ns();
    if (!st)
        st = run_code(w, b, outward, 0);
    if (!st)
        st = dev_wait(w->device);
    const double seconds = (double)(gt_now_ns() - start) * 1e-9;
    *least = seconds < *least ? seconds : *least;
    return st;
}

gt_status wire_rate_measure(wire_rate *out, dev_device *d, wire_kind k, dtype type, int64_t count)
{
    enum { RUNS = 4 };
    const uint64_t bytes = ((uint64_t)count * dtype_size(type) + 3) / 4 * 4;
    wire out_end = { .device = d, .form = { count, type, k, NULL, 0 } }, in_end;
    dev_buffer *x = NULL;
    dev_list *l = NULL;
    double encode = INFINITY, decode = INFINITY, warm_up = INFINITY;
    *out = (wire_rate){ .bytes = (double)dtype_size(type) };
    if (k == WIRE_AS_IT_IS)
        return GT_OK;
    gt_status st = kernel_set_create(&out_end.form.kernels, d, wire_kind_kernels(k, type));
    if (!st)
        st = dev_buffer_create(&x, d, bytes, "values to measure rounding with");
    if (!st)
        st = dev_list_create(&l, d);
    if (!st)
        st = dev_list_fill(l, x, 0, 0, bytes);
    if (!st)
        st = dev_run(l, 0, -1);
    dev_list_release(l);
    if (!st)
        out_end.bytes = wire_message(&out_end.form);
    in_end = out_end;
    if (!st)
        st = make_room(&out_end, 1);
    if (!st)
        st = make_room(&in_end, 0);
    for (int i = 0; !st && i <= RUNS; i++) {
        st = time_one(&out_end, x, 1, i ? &encode : &warm_up);
        if (!st)
            st = time_one(&in_end, x, 0, i ? &decode : &warm_up);
    }
    if (!st)
        *out = (wire_rate){ encode / (double)count, decode / (double)count, (double)out_end.bytes / (double)count };
    release_code(&out_end);
    release_code(&in_end);
    dev_buffer_release(x);
    kernel_set_release(out_end.form.kernels);
    return st;
}

/* ---- messages in -------------------------------------------------------------------------------- */

/* What is bound as one buffer must lie in one piece: parts of it come into the slot. */
static gt_status post_part(wire *w, wire_part *x)
{
    return (w->parts > 1 && w->in_host
                ? net_recv_start
                : net_borrow_start)(w->comm, w->peer, w->channel, part_data(x), part_size(x), &x->request);
}

/* Lock held. */
static gt_status post(wire *w)
{
    gt_status st = GT_OK;
    while (!st && w->posted < w->total) {
        wire_slot *p = &w->slots[w->posted % (uint64_t)w->depth];
        if (p->busy)
            break;
        for (int k = 0; !st && k < w->parts; k++)
            st = post_part(w, &p->part[k]);
        p->busy = !st;
        w->posted += !st;
    }
    net_comm_signal(w->comm);
    return st;
}

gt_status wire_expect(wire *w, int total)
{
    assert(w->taken == w->total);
    gt_status st = agree(w);
    if (st)
        return st;
    pthread_mutex_lock(&w->lock);
    w->total += (uint64_t)total;
    st = post(w);
    pthread_mutex_unlock(&w->lock);
    return st;
}

/* On the completion thread: the device has read a part, and all before it; with the last one the message. */
static gt_status part_read(void *context, uint64_t now)
{
    wire_part *x = context;
    wire_slot *p = x->of;
    wire *w = p->of;
    gt_status st = GT_OK;
    (void)now;
    net_borrow_end(w->comm, w->peer, &x->loan);
    if (x != &p->part[w->parts - 1])
        return GT_OK;
    pthread_mutex_lock(&w->lock);
    p->busy = 0;
    st = post(w);
    pthread_mutex_unlock(&w->lock);
    return st;
}

static int is_posted(wire *w)
{
    pthread_mutex_lock(&w->lock);
    const int posted = w->posted > w->taken;
    pthread_mutex_unlock(&w->lock);
    return posted;
}

/* The next message's slot, posted: if all are held, when the device has read what was in it before. */
static gt_status next_slot(wire *w, wire_slot **out)
{
    wire_slot *p = &w->slots[w->taken % (uint64_t)w->depth];
    *out = p;
    if (is_posted(w))
        return GT_OK;
    const gt_status st = dev_completion_wait(w->completion, p->ticket);
    assert(st || is_posted(w));
    return st;
}

static gt_status finish(wire_part *x, uint64_t *waited)
{
    net_request *r = x->request;
    x->request = NULL;
    if (!r)
        return GT_OK;
    const uint64_t start = gt_now_ns(), traced = gt_trace_begin();
    gt_status st = net_borrow_wait(r, &x->loan);
    gt_trace_end(GT_TRACE_WAIT, GT_TRACK_HOST, x->of->of->name, traced);
    *waited += gt_now_ns() - start;
    return st;
}

/* What the peer lends as a buffer of the device. */
static gt_status lent_buffer(wire *w, const net_loan *loan, dev_buffer **out)
{
    for (int i = 0; i < w->lent_count; i++)
        if (w->lent[i].data == loan->data && w->lent[i].mapping == loan->mapping) {
            *out = w->lent[i].buffer;
            return GT_OK;
        }
    wire_lent *more = realloc(w->lent, ((size_t)w->lent_count + 1) * sizeof *more);
    if (!more)
        return gt_fail(GT_NO_MEMORY, "cannot receive from a stage: no memory for a list of its messages");
    w->lent = more;
    gt_status st = dev_buffer_create_lent(out, w->device, loan->data, w->bytes, "what another stage sends");
    if (!st)
        more[w->lent_count++] = (wire_lent){ loan->data, loan->mapping ? net_mapping_hold(loan->mapping) : NULL, *out };
    return st;
}

static gt_status buffer_of(wire *w, wire_slot *p, dev_buffer **out)
{
    const net_loan *loan = &p->part[0].loan;
    *out = p->buffer;
    return loan->data ? lent_buffer(w, loan, out) : GT_OK;
}

static gt_status read_by_now(wire *w, wire_slot *p)
{
    dev_event *read;
    const gt_status st = dev_mark(w->device, &read);
    return st ? st : dev_completion_put(w->completion, read, part_read, &p->part[w->parts - 1], &p->ticket);
}

/* Into b, or into what b is decoded from. */
static gt_status write_part(wire *w, wire_part *x, dev_buffer *b)
{
    dev_event *written;
    const void *from = x->loan.data ? x->loan.data : part_data(x);
    const gt_status st = dev_write_start(w->device, w->code ? w->code : b, part_at(x), from, part_size(x), &written);
    return st ? st : dev_completion_put(w->completion, written, part_read, x, &x->of->ticket);
}

/* Each part is written while the next ones come. */
static gt_status take_parts(wire *w, wire_slot *p, dev_buffer *b, uint64_t *waited)
{
    gt_status st = GT_OK;
    for (int k = 0; !st && k < w->parts; k++) {
        st = finish(&p->part[k], waited);
        if (!st && !w->in_host)
            st = write_part(w, &p->part[k], b);
    }
    return st;
}

/* What came through shared memory without being lent was copied. */
static void count_copies(wire *w, const wire_slot *p)
{
    const char *by = net_comm_transport(w->comm, w->peer);
    if (w->in_host && !p->part[0].loan.data && (!strcmp(by, "shm") || !strcmp(by, "self")))
        w->copied += w->bytes;
}

gt_status wire_receive(wire *w, dev_buffer *b, int *place, uint64_t *waited)
{
    wire_slot *p;
    dev_buffer *there = NULL;
    *place = -1;
    gt_status st = next_slot(w, &p);
    if (!st && w->form.kind != WIRE_AS_IT_IS && !w->code)
        st = make_room(w, 0);
    if (!st)
        st = take_parts(w, p, b, waited);
    if (!st)
        count_copies(w, p);
    if (!st && w->in_host)
        st = buffer_of(w, p, &there);
    if (!st && w->in_host)
        st = dev_window_set(w->code ? w->code : b, there);
    w->taken += !st;
    if (!st && w->code)
        st = run_code(w, b, 0, 0);
    if (!st && w->in_host && w->code)
        st = read_by_now(w, p);
    if (!st && w->in_host && !w->code)
        *place = (int)(p - w->slots);
    return st;
}

gt_status wire_read(wire *w, int place)
{
    return place < 0 ? GT_OK : read_by_now(w, &w->slots[place]);
}

/* ---- messages out ------------------------------------------------------------------------------- */

/* On the completion thread: a part has been read. */
static gt_status send(void *context, uint64_t now)
{
    wire_part *x = context;
    const wire_slot *p = x->of;
    const wire *w = p->of;
    (void)now;
    gt_trace_of(p->about.step, p->about.micro_batch, p->about.chunk);
    gt_status st = net_send_start(w->comm, w->peer, w->channel, part_data(x), part_size(x), &x->request);
    net_comm_signal(w->comm);
    return st;
}

/* The same: the message was made in the slot. */
static gt_status send_all(void *context, uint64_t now)
{
    wire_slot *p = context;
    gt_status st = GT_OK;
    for (int k = 0; !st && k < p->of->parts; k++)
        st = send(&p->part[k], now);
    return st;
}

/* The next slot, when what was sent from it has gone, and been read where it was lent. */
static gt_status free_for_next(wire *w, wire_slot **out, uint64_t *waited)
{
    wire_slot *p = &w->slots[w->begun % (uint64_t)w->depth];
    gt_status st = agree(w);
    if (!st)
        st = dev_completion_wait(w->completion, p->ticket);
    for (int k = 0; !st && k < w->parts; k++)
        st = finish(&p->part[k], waited);
    *out = p;
    w->begun++;
    return st;
}

gt_status wire_begin(wire *w, dev_buffer *b, int *place, uint64_t *waited)
{
    wire_slot *p;
    *place = -1;
    if (!wire_places(w->device, &w->form))
        return GT_OK;
    const gt_status st = free_for_next(w, &p, waited);
    *place = (int)(p - w->slots);
    return st ? st : dev_window_set(b, p->buffer);
}

/* Reads a message that was made at b; each part is sent while the next ones are read. */
static gt_status read_and_send(wire *w, wire_slot *p, dev_buffer *b)
{
    gt_status st = GT_OK;
    for (int k = 0; !st && k < w->parts; k++) {
        wire_part *x = &p->part[k];
        dev_event *read;
        st = dev_read_start(w->device, b, part_at(x), part_data(x), part_size(x), &read);
        if (!st)
            st = dev_completion_put(w->completion, read, send, x, &p->ticket);
    }
    return st;
}

/* Queues making the message in slot p, out of b, and sending it. */
static gt_status make_and_send(wire *w, wire_slot *p, dev_buffer *b, uint32_t number)
{
    dev_event *made;
    gt_status st = GT_OK;
    if (w->code && w->in_host)
        st = dev_window_set(w->code, p->buffer);
    if (!st && w->code)
        st = run_code(w, b, 1, number);
    if (!st && !w->in_host)
        return read_and_send(w, p, w->code ? w->code : b);
    if (!st)
        st = dev_mark(w->device, &made);
    return st ? st : dev_completion_put(w->completion, made, send_all, p, &p->ticket);
}

gt_status wire_send(wire *w, dev_buffer *b, int place, uint32_t number, uint64_t *waited)
{
    wire_slot *p = place < 0 ? NULL : &w->slots[place];
    gt_status st = p ? GT_OK : free_for_next(w, &p, waited);
    if (!st && w->form.kind != WIRE_AS_IT_IS && !w->code)
        st = make_room(w, 1);
    if (st)
        return st;
    gt_trace_stamp(&p->about);
    st = make_and_send(w, p, b, number);
    w->taken += !st;
    w->sent += st ? 0 : w->bytes;
    return st;
}

uint64_t wire_sent(const wire *w)
{
    return w->sent;
}

uint64_t wire_copied(const wire *w)
{
    return w->copied;
}
