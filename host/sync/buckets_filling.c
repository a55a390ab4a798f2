/* SPDX-License-Identifier: MIT */
/* host/sync/buckets_filling.c - a large bucket is summed while it is still read from the device.
 *
 *   device ──► host   | 0a | 0b | 0c | 1a | 1b | 1c | 2a | ...     piece 0, 1, 2 ... of the parts a, b, c of three ranks
 *   ranks                         | sums of pieces 0 | of pieces 1 |
 *
 * A sum round a ring or a direct one takes of every rank's part the same piece first, and only then the next ones: so
 * pieces are read in that order, each with an event, and the network's thread waits for the one it needs. Where parts
 * are cut otherwise, by links of unequal speed, it waits longer, and gets the same.                     */
#include "host/sync/buckets_private.h"

enum { LINE = 64, PIECES = 16 };        /* at most: a further one hides less than it costs */

/* Elements of piece k of part i: of lines, as the network cuts. */
static void piece_at(const filling *f, int k, int i, uint64_t *from, uint64_t *end)
{
    const uint64_t size = f->begin[i + 1] - f->begin[i];
    uint64_t first, lines;
    net_part((size + f->line - 1) / f->line, f->pieces, k, &first, &lines);
    *from = f->begin[i] + (first * f->line < size ? first * f->line : size);
    *end = f->begin[i] + ((first + lines) * f->line < size ? (first + lines) * f->line : size);
}

/* Each rank's own part, where it is to have that alone; else equal ones, of lines. */
static void cut(filling *f, const bucket *b, uint64_t count)
{
    uint64_t some;
    for (int i = 0; i < f->parts; i++)
        if (sync_bucket_scatters(b)) {
            f->begin[i + 1] = f->begin[i] + b->counts[i];
        } else {
            net_part((count + f->line - 1) / f->line, f->parts, i, &f->begin[i], &some);
            f->begin[i] = f->begin[i] * f->line < count ? f->begin[i] * f->line : count;
        }
    f->begin[f->parts] = count;
}

/* net_filling: reads are over in the order in which they were asked for. */
static gt_status until(void *context, uint64_t from, uint64_t count)
{
    filling *f = context;
    int last = -1;
    gt_status st = GT_OK;
    for (int n = f->reads - 1; last < 0 && n >= f->waited; n--) {
        uint64_t begin, end;
        piece_at(f, n / f->parts, n % f->parts, &begin, &end);
        last = begin < from + count && from < end ? n : -1;
    }
    while (!st && f->waited <= last) {
        dev_event *event = f->event[f->waited];
        f->event[f->waited++] = NULL;
        st = dev_event_wait(event);
    }
    return st;
}

gt_status sync_filling_start(bucket *b, const travel *t, dev_event **first)
{
    dev_device *d = b->of->o.device;
    filling *f = &b->filling;
    const int ranks = net_group_size(b->group);
    const uint64_t grain = net_type_size(t->type), piece = dev_transfer_piece(d);
    const uint64_t wanted = piece ? t->bytes / piece / (uint64_t)ranks : 0;
    const int most = FILLING_READS / ranks < PIECES ? FILLING_READS / ranks : PIECES;
    gt_status st = GT_OK;
    f->reads = 0;
    if (t->way != COMPRESS_SUMMED || t->own_at || t->own_bytes != t->bytes || wanted < 2 || most < 2)
        return dev_read_start(d, t->buffer, t->at + t->own_at, t->host + t->own_at, t->own_bytes, first);
    *f = (filling){ .wait = { until, f },
                    .line = LINE / grain,
                    .parts = ranks,
                    .pieces = wanted < (uint64_t)most ? (int)wanted : most,
                    .waited = 1 };
    cut(f, b, t->elements);
    for (int n = 0; !st && n < f->parts * f->pieces; n++) {
        uint64_t from, end;
        piece_at(f, n / f->parts, n % f->parts, &from, &end);
        st = dev_read_start(d, t->buffer, t->at + from * grain, t->host + from * grain, (end - from) * grain,
                            n ? &f->event[n] : first);
        f->reads += !st;
    }
    return st;
}

const net_filling *sync_filling_of(const bucket *b)
{
    return b->filling.reads ? &b->filling.wait : NULL;
}

gt_status sync_filling_end(bucket *b)
{
    filling *f = &b->filling;
    gt_status st = GT_OK;
    for (; f->waited < f->reads; f->waited++) {
        const gt_status one = dev_event_wait(f->event[f->waited]);
        st = st ? st : one;
    }
    f->reads = f->waited = 0;
    return st;
}
