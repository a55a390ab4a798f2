/* SPDX-License-Identifier: MIT */
/* tests/exchange/test_wire.c - what stages hand to each other: as it lies, and rounded on the way.
 *
 * Rank 0 sends from two buffers in turn, as a stage does from the copies of its graph, rank 1 receives
 * into two; where messages have places, these are windows. What must arrive is worked out in double from what was sent, for every form and for what is held in
 * fp32 and in 16 bits; so is what the sender says of the errors.                              */
#include "tests/check.h"
#include "tests/comm/ranks.h"

#include "host/base/file.h"
#include "host/base/random.h"
#include "host/base/trace.h"
#include "host/exchange/stage_wire.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { COUNT = 8231, MESSAGES = 7, BUFFERS = 2, DEPTH = 3 };

/* What travels, and what it is held in. */
typedef struct trial {
    wire_kind kind;
    dtype type;
    uint32_t first;                     /* number of the first message                      */
    const char *knobs;                  /* NULL: shared memory                              */
    int copies;                         /* 1: what arrives must have been copied            */
    int apart;                          /* rank 0's device has memory of its own            */
    float got[MESSAGES][COUNT];         /* by rank 1                                        */
} trial;

typedef struct end {
    dev_device *d;
    dev_completion *completion;
    kernel_set *kernels;
    dev_buffer *buffer[BUFFERS];
    wire *wire;
} end;

/* Of either sign, from 2^-40 to 2^40; in each block of 128 alike but for 2^8, every sixth of zeros. As stored. */
static float value(const trial *t, int message, int i)
{
    const uint64_t state = (uint64_t)message * COUNT + (uint64_t)i, of_block = (uint64_t)(message * 64 + i / 128);
    const uint64_t bits = gt_hash(&state, sizeof state), block = gt_hash(&of_block, sizeof of_block);
    const double mantissa = 1.0 + (double)(bits >> 40) * 0x1p-24;
    const int most = t->type == DTYPE_F16 ? 14 : 40;
    const int exponent = (int)(block >> 8 & 0xff) % (2 * most - 7) - most + 8 - (int)(bits >> 8 & 7);
    unsigned char stored[4];
    dtype_store(t->type, stored, 0, (float)ldexp(bits & 1 ? -mantissa : mantissa, exponent));
    return i / 128 % 6 == 5 ? 0.0f : dtype_load(t->type, stored, 0);
}

/* To the nearest number with so many binary digits, to an even last digit where two are as near. */
static double rounded(double x, int digits)
{
    int exponent;
    frexp(x, &exponent);
    const double unit = ldexp(1.0, exponent - digits);
    return nearbyint(x / unit) * unit;
}

static double largest_of(const trial *t, int message, int i)
{
    double most = 0.0;
    for (int k = i / 128 * 128; k < i / 128 * 128 + 128 && k < COUNT; k++)
        most = fmax(most, fabs((double)value(t, message, k)));
    return most;
}

/* What stochastic rounding draws for value i of a message, of 256: byte i % 4 of a word, of which each quad of a block
 * has four, 32 values apart. */
static double drawn(const uint32_t random[4], uint32_t number, int i)
{
    uint32_t four[4];
    const int in = i % 128, quad = i / 128 * 8 + in % 32 / 4;
    gt_philox(four, (uint64_t)random[1] << 32 | random[0], (uint64_t)quad | (uint64_t)number << 32, random[2]);
    return (double)(four[in / 32] >> 8 * (in % 4) & 0xffu);
}

enum { EDGE = 9 };

/* What arrives of a value, before it is stored; *doubt: how far it may be off, where the device's last bit decides. */
static double arrives(const trial *t, int message, int i, double *doubt)
{
    static const uint32_t random[4] = { 0x73746167u, 0x65776972u, EDGE };
    const double x = (double)value(t, message, i), most = largest_of(t, message, i);
    *doubt = 0.0;
    if (t->kind == WIRE_AS_IT_IS || x == 0.0)
        return x;
    if (t->kind == WIRE_BF16)
        return rounded(x, 8);
    if (t->kind == WIRE_FP16)
        return rounded(x, 11);          /* no value is 2^28 times smaller than its block's largest */
    const double scale = most / 127.0, at = 256.0 * x / scale;
    *doubt = most * 0x1p-21 + (fabs(at - floor(at) - 0.5) < 0.01 ? scale : 0.0);
    return floor((rint(at) + drawn(random, t->first + (uint32_t)message, i)) / 256.0) * scale;
}

static void release(end *e)
{
    if (e->completion && dev_completion_drain(e->completion))
        gt_message_clear();
    for (int i = 0; i < BUFFERS; i++)
        dev_buffer_release(e->buffer[i]);
    wire_release(e->wire);
    kernel_set_release(e->kernels);
    dev_completion_release(e->completion);
    dev_close(e->d);
}

/* Of a message of COUNT values. */
static uint64_t bytes_of(const trial *t)
{
    const uint64_t blocks = (COUNT + 127) / 128;
    return t->kind == WIRE_BF16   ? 2 * COUNT
           : t->kind == WIRE_FP16 ? blocks * (2 * 128 + 4)
           : t->kind == WIRE_INT8 ? blocks * (128 + 4)
                                  : COUNT * dtype_size(t->type);
}

static gt_status open_end(end *e, net_comm *c, const trial *t)
{
    RANK_OK(dev_open(&e->d, getenv("GT_TEST_DEVICE")));
    RANK_OK(dev_completion_create(&e->completion));
    if (t->kind != WIRE_AS_IT_IS)
        RANK_OK(kernel_set_create(&e->kernels, e->d, wire_kind_kernels(t->kind, t->type)));
    const wire_form form = { COUNT, t->type, t->kind, e->kernels, EDGE };
    RANK_CHECK(wire_message(&form) == bytes_of(t));
    RANK_OK(wire_create(&e->wire, c, 1 - net_comm_rank(c), 77, e->d, e->completion, &form, DEPTH));
    RANK_CHECK((wire_first_place(e->wire) != NULL) == wire_places(e->d, &form));
    for (int i = 0; i < BUFFERS; i++)
        if (wire_first_place(e->wire))
            RANK_OK(dev_window_create(&e->buffer[i], wire_first_place(e->wire)));
        else
            RANK_OK(dev_buffer_create(&e->buffer[i], e->d, COUNT * dtype_size(t->type) + 4, "a test's values"));
    return GT_OK;
}

/* The errors that the sender measured are those of what must have arrived. */
static gt_status check_rounding(end *e, const trial *t)
{
    kernel_rounding r = { 0 }, again = { 0 };
    double most = 0.0, doubt = 0.0, one, error = 0.0, size = 0.0;
    RANK_OK(wire_rounding(e->wire, &r));
    RANK_OK(wire_rounding(e->wire, &again));
    RANK_CHECK(again.most == 0.0 && again.error == 0.0 && again.size == 0.0);
    for (int m = 0; t->kind != WIRE_AS_IT_IS && m < MESSAGES; m++)
        for (int i = 0; i < COUNT; i++) {
            const double x = (double)value(t, m, i), off = arrives(t, m, i, &one) - x;
            const double against = t->kind == WIRE_BF16 ? fabs(x) : largest_of(t, m, i);
            most = against > 0.0 ? fmax(most, fabs(off) / against) : most;
            doubt = fmax(doubt, against > 0.0 ? one / against : 0.0);
            error += off * off;
            size += x * x;
        }
    RANK_CHECK(most <= wire_kind_bound(t->kind) && r.most <= wire_kind_bound(t->kind) * 1.000001);
    RANK_CHECK(fabs(r.most - most) <= 1e-5 * most + doubt);
    RANK_CHECK(fabs(r.size - size) <= 1e-4 * size && fabs(r.error - error) <= 1e-2 * error);
    return GT_OK;
}

static gt_status send_all(end *e, const trial *t)
{
    static unsigned char stored[4 * COUNT];
    uint64_t waited = 0;
    int place;
    for (int m = 0; m < MESSAGES; m++) {
        for (int i = 0; i < COUNT; i++)
            dtype_store(t->type, stored, (size_t)i, value(t, m, i));
        RANK_OK(wire_begin(e->wire, e->buffer[m % BUFFERS], &place, &waited));
        RANK_OK(dev_write(e->d, e->buffer[m % BUFFERS], 0, stored, COUNT * dtype_size(t->type)));
        RANK_OK(wire_send(e->wire, e->buffer[m % BUFFERS], place, t->first + (uint32_t)m, &waited));
    }
    RANK_OK(dev_completion_drain(e->completion));
    RANK_CHECK(wire_sent(e->wire) == MESSAGES * bytes_of(t));
    return check_rounding(e, t);
}

static gt_status receive_all(end *e, trial *t)
{
    static unsigned char stored[4 * COUNT];
    uint64_t waited = 0;
    double doubt;
    int place[BUFFERS] = { -1, -1 };
    RANK_OK(wire_expect(e->wire, MESSAGES));
    for (int m = 0; m < MESSAGES; m++) {
        RANK_OK(wire_read(e->wire, place[m % BUFFERS]));
        RANK_OK(wire_receive(e->wire, e->buffer[m % BUFFERS], &place[m % BUFFERS], &waited));
        RANK_OK(dev_read(e->d, e->buffer[m % BUFFERS], 0, stored, COUNT * dtype_size(t->type)));
        for (int i = 0; i < COUNT; i++) {
            unsigned char want[4];
            const double x = (double)value(t, m, i), sent = arrives(t, m, i, &doubt);
            dtype_store(t->type, want, 0, (float)sent);
            t->got[m][i] = dtype_load(t->type, stored, (size_t)i);
            doubt += t->type == DTYPE_F32 ? 0.0 : fabs(sent) * (doubt > 0.0 ? 0x1p-7 : 0.0);
            RANK_CHECK(fabs((double)t->got[m][i] - (double)dtype_load(t->type, want, 0)) <= doubt);
            RANK_CHECK(t->kind != WIRE_BF16 || fabs(sent - x) <= fabs(x) * wire_kind_bound(t->kind));
        }
    }
    if (dev_info_of(e->d)->native_kernels && bytes_of(t) > 16384)
        RANK_CHECK(wire_copied(e->wire) == (t->copies ? MESSAGES * bytes_of(t) : 0));
    return GT_OK;
}

static gt_status body(net_comm *c, void *context)
{
    trial *t = context;
    end e = { 0 };
    gt_status st = open_end(&e, c, t);
    if (!st && !net_comm_rank(c))
        t->apart = !dev_info_of(e.d)->native_kernels;
    if (!st)
        st = net_comm_rank(c) ? receive_all(&e, t) : send_all(&e, t);
    release(&e);
    return st;
}

static void goes(trial *t, wire_kind kind, dtype type)
{
    t->kind = kind;
    t->type = type;
    CHECK_OK(ranks_run(2, t->knobs ? t->knobs : "transport=shm", body, t));
}

static void what_is_sent_arrives_as_it_is(void)
{
    static trial t;
    goes(&t, WIRE_AS_IT_IS, DTYPE_F32);
    goes(&t, WIRE_AS_IT_IS, DTYPE_BF16);
}

/* In every way in which bytes travel, in any order and late; only through rings are they copied. */
static void what_is_lent_is_not_copied(void)
{
    static const struct {
        const char *knobs;
        int copies;
    } ways[] = { { "transport=tcp", 0 },
                 { "transport=shm shm-mode=copy", 1 },
                 { "transport=shm fault=delay=1ms,reorder=1", 0 },
                 { "transport=tcp fault=delay=1ms,reorder=1", 0 } };
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        static trial t;
        t.knobs = ways[i].knobs;
        t.copies = ways[i].copies;
        goes(&t, WIRE_AS_IT_IS, DTYPE_F32);
        goes(&t, WIRE_BF16, DTYPE_F32);
    }
}

/* ---- in parts -------------------------------------------------------------------------------------- */

enum { PART = 8192, PARTS = (4 * COUNT + PART - 1) / PART, ROOM = 2 * MESSAGES * PARTS };

/* The parts that were read, and what was sent, in the order of their beginnings. */
typedef struct moves {
    gt_span read[ROOM], sent[ROOM];
    int reads, sends;
} moves;

static void note_moves(moves *out, const gt_trace *all)
{
    for (size_t i = 0; i < all->count; i++) {
        const gt_span *s = &all->span[i];
        if (s->category == GT_TRACE_COPY && !strncmp(s->name, "read", 4) && s->bytes <= PART && out->reads < ROOM)
            out->read[out->reads++] = *s;
        if (s->category == GT_TRACE_WIRE && s->kind == GT_SPAN_SENDS && s->bytes > 64 && out->sends < ROOM)
            out->sent[out->sends++] = *s;
    }
}

/* What is read from a device travels in parts, the first ones while the rest is read; what a device has made in host
 * memory in one. pieces.sh runs this with a device of either kind, and lets none of the parts but the first be
 * read before the one before it has been written at the other end. */
static void parts_travel_while_the_rest_is_read(void)
{
    static const char *const ways[] = { "transport=tcp", "transport=shm" };
    const char *faults = getenv("GT_FAULT");
    const int in_turns = faults && strstr(faults, "turns");
    setenv("GEARTRAIN_TRANSFER_PIECE", "7000", 1);
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        static trial t;
        static moves m;
        gt_trace all = { 0 };
        t.knobs = ways[i];
        memset(&m, 0, sizeof m);
        CHECK_OK(gt_trace_start(1 << 14));
        goes(&t, WIRE_AS_IT_IS, DTYPE_F32);
        CHECK_OK(gt_trace_take(&all));
        gt_trace_stop();
        note_moves(&m, &all);
        gt_trace_release(&all);
        CHECKF(m.sends == (t.apart ? MESSAGES * PARTS : MESSAGES), "%s: %d were sent", ways[i], m.sends);
        CHECKF(m.reads == (t.apart ? MESSAGES * PARTS : 0), "%s: %d were read", ways[i], m.reads);
        for (int k = 0; in_turns && k + 1 < m.reads && k < m.sends; k++)
            CHECKF(m.sent[k].begin < m.read[k + 1].end && m.sent[k].bytes == m.read[k].bytes,
                   "%s: part %d was sent after the next one was read", ways[i], k);
    }
    unsetenv("GEARTRAIN_TRANSFER_PIECE");
}

static void rounding_is_to_the_nearest_and_halves_the_bytes(void)
{
    static trial t;
    goes(&t, WIRE_BF16, DTYPE_F32);
}

static void half_precision_neither_overflows_nor_loses_small_blocks(void)
{
    static trial t;
    goes(&t, WIRE_FP16, DTYPE_F32);
}

/* Messages of the same numbers are the same to the bit, others are not; from any storage. */
static void eight_bits_are_drawn_by_message(void)
{
    static trial a, b, c;
    a.first = b.first = 40;
    c.first = 41;
    goes(&a, WIRE_INT8, DTYPE_F32);
    goes(&b, WIRE_INT8, DTYPE_F32);
    goes(&c, WIRE_INT8, DTYPE_F32);
    CHECK(!memcmp(a.got, b.got, sizeof a.got));
    CHECK(memcmp(a.got, c.got, sizeof a.got));
    goes(&a, WIRE_INT8, DTYPE_BF16);
    goes(&a, WIRE_INT8, DTYPE_F16);
}

static void forms_have_names_and_take_fewer_bytes(void)
{
    wire_kind k = WIRE_AS_IT_IS;
    for (int i = 0; i < WIRE_KINDS; i++)
        CHECK(wire_kind_find(&k, wire_kind_name((wire_kind)i)) && (int)k == i);
    CHECK(!wire_kind_find(&k, "fp4"));
    CHECK(!wire_kind_shortens(WIRE_AS_IT_IS, DTYPE_F32) && wire_kind_shortens(WIRE_FP16, DTYPE_F32));
    CHECK(!wire_kind_shortens(WIRE_BF16, DTYPE_BF16) && !wire_kind_shortens(WIRE_FP16, DTYPE_BF16));
    CHECK(wire_kind_shortens(WIRE_INT8, DTYPE_F16) && wire_kind_bound(WIRE_AS_IT_IS) == 0.0);
}

const check_case check_cases[] = {
    CASE(what_is_sent_arrives_as_it_is),
    CASE(what_is_lent_is_not_copied),
    CASE(parts_travel_while_the_rest_is_read),
    CASE(rounding_is_to_the_nearest_and_halves_the_bytes),
    CASE(half_precision_neither_overflows_nor_loses_small_blocks),
    CASE(eight_bits_are_drawn_by_message),
    CASE(forms_have_names_and_take_fewer_bytes),
    { 0 }
};
