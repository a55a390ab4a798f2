/* host/parallel/gradients.c - all-reduce of gradient segments, chunk by chunk.
 *
 * A chunk's life: read from the device (in its queue), all-reduced (on the wire), written back
 * (in the queue). While chunk k is on the wire, chunk k + 1 is read and k - 1 written.     */
#include "host/parallel/gradients.h"

#include "host/base/clock.h"

#include <stdlib.h>

enum { CHUNK = 8 << 20, SLOTS = 4 };        /* bytes; chunks under way */

typedef struct slot {
    float *data;                    /* an arena                                             */
    dev_event *reading, *writing;
} slot;

struct parallel_gradients {
    net_group *group;
    dev_device *device;
    params *params;
    slot slots[SLOTS];
    float *scalars;                 /* loss, wishes to stop                                 */
    uint64_t bytes, ns;
};

/* Part k of all segments: where it lies. 0: there is none. */
static int chunk_at(const params *p, uint64_t k, dev_buffer **grad, uint64_t *offset, uint64_t *bytes)
{
    for (int i = 0; i < params_segments(p); i++) {
        const params_segment *s = params_segment_at(p, i);
        const uint64_t size = (uint64_t)s->count * sizeof(float);
        const uint64_t chunks = (size + CHUNK - 1) / CHUNK;
        if (k < chunks) {
            *grad = s->grad;
            *offset = k * CHUNK;
            *bytes = size - *offset < CHUNK ? size - *offset : CHUNK;
            return 1;
        }
        k -= chunks;
    }
    return 0;
}

gt_status parallel_gradients_create(parallel_gradients **out, net_group *g, dev_device *d, params *p)
{
    *out = NULL;
    net_comm *c = net_group_comm(g);
    parallel_gradients *s = calloc(1, sizeof *s);
    if (!s)
        return gt_fail(GT_NO_MEMORY, "cannot sum gradients: out of memory");
    s->group = g;
    s->device = d;
    s->params = p;
    void *memory = NULL;
    gt_status st = net_comm_memory(c, 2 * sizeof(float), &memory);
    s->scalars = memory;
    for (int i = 0; !st && i < SLOTS; i++) {
        st = net_comm_memory(c, CHUNK, &memory);
        s->slots[i].data = st ? NULL : memory;
    }
    if (st) {
        parallel_gradients_release(s);
        return st;
    }
    *out = s;
    return GT_OK;
}

void parallel_gradients_release(parallel_gradients *s)
{
    if (!s)
        return;
    for (int i = 0; i < SLOTS; i++) {
        dev_event_wait(s->slots[i].reading);
        dev_event_wait(s->slots[i].writing);
        net_comm_memory_free(net_group_comm(s->group), s->slots[i].data);
    }
    net_comm_memory_free(net_group_comm(s->group), s->scalars);
    free(s);
}

static gt_status settle(dev_event **e)
{
    dev_event *event = *e;
    *e = NULL;
    return dev_event_wait(event);
}

static gt_status begin(parallel_gradients *s, uint64_t k)
{
    slot *at = &s->slots[k % SLOTS];
    dev_buffer *grad;
    uint64_t offset, bytes;
    if (!chunk_at(s->params, k, &grad, &offset, &bytes))
        return GT_OK;
    gt_status st = settle(&at->writing);
    return st ? st : dev_read_start(s->device, grad, offset, at->data, bytes, &at->reading);
}

static gt_status sum_scalars(parallel_gradients *s, dev_buffer *loss_sum, int *stop)
{
    gt_status st = dev_read(s->device, loss_sum, 0, &s->scalars[0], sizeof(float));
    s->scalars[1] = *stop ? 1.0f : 0.0f;
    if (!st)
        st = net_all_reduce(s->group, s->scalars, 2, NET_F32, NULL);
    *stop = s->scalars[1] > 0.0f;
    return st ? st : dev_write(s->device, loss_sum, 0, &s->scalars[0], sizeof(float));
}

gt_status parallel_gradients_sum(parallel_gradients *s, dev_buffer *loss_sum, int *stop)
{
    dev_buffer *grad;
    uint64_t offset, bytes;
    gt_status st = GT_OK;
    for (uint64_t k = 0; !st && k + 1 < SLOTS; k++)
        st = begin(s, k);
    if (!st)
        st = sum_scalars(s, loss_sum, stop);    /* waits for the device: the clock starts after it */
    const uint64_t start = gt_now_ns();
    s->bytes = 0;
    for (uint64_t k = 0; !st && chunk_at(s->params, k, &grad, &offset, &bytes); k++) {
        slot *at = &s->slots[k % SLOTS];
        st = begin(s, k + SLOTS - 1);
        if (!st)
            st = settle(&at->reading);
        if (!st)
            st = net_all_reduce(s->group, at->data, bytes / sizeof(float), NET_F32, NULL);
        if (!st)
            st = dev_write_start(s->device, grad, offset, at->data, bytes, &at->writing);
        s->bytes += bytes;
    }
    s->ns = gt_now_ns() - start;
    return st;
}

void parallel_gradients_last(const parallel_gradients *s, uint64_t *bytes, uint64_t *ns)
{
    *bytes = s->bytes;
    *ns = s->ns;
}
