/* SPDX-License-Identifier: MIT */
/* tests/exchange/test_wire.c - what stages hand to each other: as it lies, and rounded on the way.
 *
 * Rank 0 sends from two buffers in turn, as a stage does from the copies of its graph, rank 1 receives
 * into two. What must arrive is worked out in double from what was sent.                    */
#include "tests/check.h"
#include "tests/comm/ranks.h"

#include "host/base/file.h"
#include "host/exchange/stage_wire.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { COUNT = 1031, MESSAGES = 7, BUFFERS = 2, DEPTH = 3 };

typedef struct end {
    dev_device *d;
    dev_completion *completion;
    kernel_set *narrow;
    dev_buffer *buffer[BUFFERS];
    wire *wire;
} end;

/* Of either sign, from 2^-40 to 2^40. */
static float value(int message, int i)
{
    const uint64_t state = (uint64_t)message * COUNT + (uint64_t)i;
    const uint64_t bits = gt_hash(&state, sizeof state);
    const double mantissa = 1.0 + (double)(bits >> 40) * 0x1p-24;
    return (float)ldexp(bits & 1 ? -mantissa : mantissa, (int)(bits >> 8 & 0xff) % 81 - 40);
}

/* To the nearest number with 8 binary digits, to an even last digit where two are as near. */
static float rounded(float x)
{
    int exponent;
    frexp((double)x, &exponent);
    const double unit = ldexp(1.0, exponent - 8);
    return (float)(nearbyint((double)x / unit) * unit);
}

static void release(end *e)
{
    if (e->completion && dev_completion_drain(e->completion))
        gt_message_clear();
    wire_release(e->wire);
    for (int i = 0; i < BUFFERS; i++)
        dev_buffer_release(e->buffer[i]);
    kernel_set_release(e->narrow);
    dev_completion_release(e->completion);
    dev_close(e->d);
}

static gt_status open_end(end *e, net_comm *c, int narrow)
{
    RANK_OK(dev_open(&e->d, getenv("GT_TEST_DEVICE")));
    RANK_OK(dev_completion_create(&e->completion));
    if (narrow)
        RANK_OK(kernel_set_create(&e->narrow, e->d, DTYPE_BF16));
    for (int i = 0; i < BUFFERS; i++)
        RANK_OK(dev_buffer_create(&e->buffer[i], e->d, COUNT * sizeof(float), "a test's values"));
    const wire_form form = { COUNT, DTYPE_F32, e->narrow };
    RANK_CHECK(wire_message(&form) == COUNT * (narrow ? 2u : 4u));
    return wire_create(&e->wire, c, 1 - net_comm_rank(c), 77, &form, DEPTH);
}

static gt_status send_all(end *e, int narrow)
{
    static float values[COUNT];
    uint64_t waited = 0;
    for (int m = 0; m < MESSAGES; m++) {
        for (int i = 0; i < COUNT; i++)
            values[i] = value(m, i);
        RANK_OK(dev_write(e->d, e->buffer[m % BUFFERS], 0, values, sizeof values));
        RANK_OK(wire_send(e->wire, e->d, e->buffer[m % BUFFERS], e->completion, &waited));
    }
    RANK_OK(dev_completion_drain(e->completion));
    RANK_CHECK(wire_sent(e->wire) == MESSAGES * COUNT * (narrow ? 2u : 4u));
    return GT_OK;
}

static gt_status receive_all(end *e, int narrow)
{
    static float values[COUNT];
    uint64_t waited = 0;
    RANK_OK(wire_expect(e->wire, MESSAGES));
    for (int m = 0; m < MESSAGES; m++) {
        RANK_OK(wire_receive(e->wire, e->d, e->buffer[m % BUFFERS], &waited));
        RANK_OK(dev_read(e->d, e->buffer[m % BUFFERS], 0, values, sizeof values));
        for (int i = 0; i < COUNT; i++) {
            const float sent = value(m, i), want = narrow ? rounded(sent) : sent;
            RANK_CHECK(!memcmp(&values[i], &want, sizeof want));
            RANK_CHECK(fabs((double)want - (double)sent) <= fabs((double)sent) * (narrow ? 0x1p-8 : 0.0));
        }
    }
    return GT_OK;
}

static gt_status body(net_comm *c, void *context)
{
    const int narrow = *(const int *)context;
    end e = { 0 };
    gt_status st = open_end(&e, c, narrow);
    if (!st)
        st = net_comm_rank(c) ? receive_all(&e, narrow) : send_all(&e, narrow);
    release(&e);
    return st;
}

static void what_is_sent_arrives_as_it_is(void)
{
    int narrow = 0;
    CHECK_OK(ranks_run(2, "transport=shm", body, &narrow));
}

static void rounding_is_to_the_nearest_and_halves_the_bytes(void)
{
    int narrow = 1;
    CHECK_OK(ranks_run(2, "transport=shm", body, &narrow));
}

const check_case check_cases[] = {
    CASE(what_is_sent_arrives_as_it_is), CASE(rounding_is_to_the_nearest_and_halves_the_bytes), { 0 }
};
