/* SPDX-License-Identifier: MIT */
/* net/comm/board.c - memory that all ranks of a group on one host share.
 *
 *   sheet │ sleepers, bell │ place of rank 0 │ place of rank 1 │ ...
 *   place │ head 0 │ head 1 │ names │ told │ data 0 │ data 1 │     head, data: of even and of odd posts
 *
 * The n-th post of a rank is its data and then the number n in a head, whose line has room for small
 * data as well: 8 bytes cross in one line. A rank posts n + 1 when it has read all n-th ones, so
 * who sees n + 1 of all others may overwrite its own n-th: two of each are enough.
 *
 * Data are written past the cache, or through it. A line that another core has read must be fetched back before a
 * plain store, which on some processors takes ten times as long as the copy itself; on others it is the way past
 * the cache that takes twice as long, so it is measured (net/collective/board_tune.c).
 *
 * Ranks that wait poll, then let others have the processor, then sleep on the bell; who posts rings
 * if there are sleepers. Both look with a full fence between their own store and the other's, or
 * both could miss each other.
 *
 * Ranks that do not agree may be in an operation of messages here and one of the board there. So the
 * former is told on the board as well, for those that wait there to find.                 */
#include "net/comm/board.h"

#include "host/base/clock.h"
#include "net/comm/comm_private.h"
#include "net/transport/shared.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

enum { LINE = 64, INSIDE = 32 };

typedef struct head {
    _Alignas(LINE) _Atomic uint64_t posted;
    uint64_t sequence, count;
    uint8_t kind, type, algorithm, unused;
    int32_t root;
    unsigned char data[INSIDE];
} head;
_Static_assert(sizeof(head) == LINE, "a head fills one line");

typedef struct told {               /* of an operation of messages                            */
    _Alignas(LINE) _Atomic uint64_t sequence;
    group_claim claim;
} told;

typedef struct names {              /* of the last operation on the board                     */
    _Alignas(LINE) char name[AGREE_TEXT];
    char unit[AGREE_TEXT];
} names;

typedef struct place {
    head head[2];
    names names;
    told told;
    _Alignas(LINE) unsigned char data[2][NET_BOARD_MOST];
} place;

typedef struct sheet {
    uint64_t nonce;
    _Alignas(LINE) _Atomic uint32_t sleepers;
    _Alignas(LINE) _Atomic uint32_t bell;
    place place[];
} sheet;

struct group_board {
    sheet *sheet;
    size_t size;
    uint64_t posts;                 /* this rank's so far                                     */
    const char *name, *unit;        /* what this rank's names say                             */
    int through;                    /* data are written through the cache                     */
};

/* ---- making it ------------------------------------------------------------------------- */

typedef struct board_offer {
    uint64_t nonce, size;           /* size 0: none                                           */
    uint32_t pid, fd;
} board_offer;

/* Every other rank of the group is reached through shared memory, undisturbed by a test. Lock held. */
static gt_status all_shared(net_op *o, int *yes)
{
    const net_group *g = o->group;
    gt_status st = GT_OK;
    pair *p;
    *yes = g->size <= NET_BOARD_RANKS && !*g->comm->config->fault;
    for (int i = 0; !st && i < g->size; i++) {
        if (i == g->rank)
            continue;
        st = pair_get(g->comm, g->ranks[i], &p);
        *yes &= !st && p->ops && !strcmp(p->ops->name, "shm");
    }
    return st;
}

static gt_status tell(net_op *o, int peer, uint32_t step, const void *data, size_t size)
{
    net_request *r;
    gt_status st = net_op_send(o, peer, step, data, size, &r);
    return st ? st : net_wait(r);
}

static gt_status hear(net_op *o, int peer, uint32_t step, void *data, size_t size)
{
    net_request *r;
    gt_status st = net_op_recv(o, peer, step, (net_sink){ data, size, NULL, 1, 0 }, &r);
    return st ? st : net_wait(r);
}

/* 1 on all ranks if it is 1 on all. Two steps. */
static gt_status all_say(net_op *o, uint32_t step, int *yes)
{
    const net_group *g = o->group;
    unsigned char said = (unsigned char)*yes, all = said;
    gt_status st = GT_OK;
    for (int i = 1; !st && g->rank == 0 && i < g->size; i++) {
        st = hear(o, i, step, &said, 1);
        all &= said;
    }
    for (int i = 1; !st && g->rank == 0 && i < g->size; i++)
        st = tell(o, i, step + 1, &all, 1);
    if (g->rank)
        st = tell(o, 0, step, &said, 1);
    if (!st && g->rank)
        st = hear(o, 0, step + 1, &all, 1);
    *yes = all;
    return st;
}

static int map_theirs(struct group_board *b, const board_offer *f)
{
    size_t size = 0;
    if (!f->size)
        return 0;
    sheet *s = (sheet *)(void *)net_shared_map(f->pid, f->fd, &size);
    if (!s)
        return 0;
    if (size != f->size || s->nonce != f->nonce) {      /* another process, of another container */
        munmap(s, size);
        return 0;
    }
    b->sheet = s;
    b->size = size;
    return 1;
}

static gt_status share_sheet(net_op *o, struct group_board *b, int *mapped)
{
    const net_group *g = o->group;
    board_offer f = { 0 };
    int fd = -1;
    gt_status st = GT_OK;
    if (g->rank == 0) {
        f.size = b->size = sizeof(sheet) + (size_t)g->size * sizeof(place);
        b->sheet = net_shared_make("geartrain-board", b->size, &fd);
        if (!b->sheet || getrandom(&f.nonce, sizeof f.nonce, 0) != (ssize_t)sizeof f.nonce)
            f.size = 0;
        else
            b->sheet->nonce = f.nonce;
        f.pid = (uint32_t)getpid();
        f.fd = (uint32_t)fd;
        for (int i = 1; !st && i < g->size; i++)
            st = tell(o, i, 2, &f, sizeof f);
        *mapped = f.size != 0;
    } else {
        st = hear(o, 0, 2, &f, sizeof f);
        *mapped = !st && map_theirs(b, &f);
    }
    if (!st)
        st = all_say(o, 3, mapped);
    if (fd >= 0)
        close(fd);
    return st;
}

gt_status net_board_make(net_op *o)
{
    net_group *g = o->group;
    int yes = 0;
    if (g->board)
        return GT_OK;
    comm_lock(g->comm);
    gt_status st = all_shared(o, &yes);
    comm_unlock(g->comm);
    struct group_board *b = calloc(1, sizeof *b);
    yes &= b != NULL;
    if (!st)
        st = all_say(o, 0, &yes);
    if (!st && yes)
        st = share_sheet(o, b, &yes);
    if (!st && yes)
        g->board = b;
    else
        group_board_release(b);
    return st;
}

void group_board_release(struct group_board *b)
{
    if (b && b->sheet)
        munmap(b->sheet, b->size);
    free(b);
}

/* ---- what ranks agree on --------------------------------------------------------------- */

/* They are rarely others than the last time: the line stays where it is. */
static void say_names(struct group_board *b, place *mine, const char *name, const char *unit)
{
    group_claim claim;
    if (b->name == name && b->unit == unit)
        return;
    b->name = name;
    b->unit = unit;
    group_claim_names(&claim, name, unit);
    memcpy(mine->names.name, claim.name, sizeof claim.name);
    memcpy(mine->names.unit, claim.unit, sizeof claim.unit);
}

void group_board_tells(net_group *g, const group_claim *claim)
{
    told *mine = &g->board->sheet->place[g->rank].told;
    mine->claim = *claim;
    atomic_store_explicit(&mine->sequence, g->sequence, memory_order_release);
}

/* The peer carries out this operation, or a later one, by messages, or did. */
static int told_of(const net_op *o, int peer)
{
    const told *theirs = &o->group->board->sheet->place[peer].told;
    return atomic_load_explicit(&theirs->sequence, memory_order_acquire) >= o->sequence;
}

/* h: what the peer has posted instead; NULL: nothing. */
static void disagreed(const net_op *o, int peer, const head *h)
{
    const sheet *s = o->group->board->sheet;
    const place *theirs = &s->place[peer], *mine = &s->place[o->group->rank];
    group_claim ours, said = theirs->told.claim;
    uint64_t sequence = o->sequence;
    group_claim_numbers(&ours, &o->what);
    group_claim_names(&ours, o->name, o->what.unit);
    if (h && atomic_load(&mine->told.sequence) == h->sequence) {    /* we have been at that one by messages */
        sequence = h->sequence;
        ours = mine->told.claim;
    }
    if (h && !told_of(o, peer)) {
        group_claim_numbers(&said, &(net_agreement){ h->kind, h->type, h->root, h->algorithm, h->count, NULL });
        memcpy(said.name, theirs->names.name, sizeof said.name);
        memcpy(said.unit, theirs->names.unit, sizeof said.unit);
    }
    said.name[AGREE_TEXT - 1] = said.unit[AGREE_TEXT - 1] = '\0';
    group_disagreed(o->group->comm, o->group->ranks[peer], sequence, &said, &ours);
}

static int agrees(const net_op *o, const head *h)
{
    return h->sequence == o->sequence && h->count == o->what.count && h->kind == (uint8_t)o->what.kind
           && h->type == (uint8_t)o->what.type && h->algorithm == (uint8_t)o->what.algorithm && h->root == o->what.root;
}

/* ---- posting --------------------------------------------------------------------------- */

unsigned char *net_board_room(net_op *o, size_t size)
{
    struct group_board *b = o->group->board;
    place *mine = &b->sheet->place[o->group->rank];
    const size_t turn = (b->posts + 1) & 1;
    assert(size <= NET_BOARD_MOST);
    o->posted = size;
    return size <= INSIDE ? mine->head[turn].data : mine->data[turn];
}

void net_board_stream(net_op *o, int past_the_cache)
{
    o->group->board->through = !past_the_cache;
}

void net_board_copy(const net_op *o, void *to, const void *from, size_t size)
{
#ifdef __SSE2__
    enum { WORTH = 512 };
    unsigned char *d = to;
    const unsigned char *s = from;
    if (size >= WORTH && !o->group->board->through) {
        const size_t first = (size_t)(-(uintptr_t)d & 15u);
        memcpy(d, s, first);
        d += first;
        s += first;
        size -= first;
        for (; size >= LINE; size -= LINE, d += LINE, s += LINE)
            for (size_t i = 0; i < LINE; i += 16)
                _mm_stream_si128((__m128i *)(void *)(d + i), _mm_loadu_si128((const __m128i *)(const void *)(s + i)));
    }
    memcpy(d, s, size);
#else
    (void)o;
    memcpy(to, from, size);
#endif
}

static void ring(sheet *s)
{
    atomic_fetch_add(&s->bell, 1);
    syscall(SYS_futex, &s->bell, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

void net_board_post(net_op *o)
{
    struct group_board *b = o->group->board;
    place *mine = &b->sheet->place[o->group->rank];
    head *h = &mine->head[++b->posts & 1];
    say_names(b, mine, o->name, o->what.unit);
    h->sequence = o->sequence;
    h->count = o->what.count;
    h->kind = (uint8_t)o->what.kind;
    h->type = (uint8_t)o->what.type;
    h->algorithm = (uint8_t)o->what.algorithm;
    h->root = o->what.root;
#ifdef __SSE2__
    if (o->posted > INSIDE)
        _mm_sfence();               /* what went past the cache */
#endif
    atomic_exchange(&h->posted, b->posts);
    if (atomic_load(&b->sheet->sleepers))
        ring(b->sheet);
}

/* ---- waiting --------------------------------------------------------------------------- */

static int has_posted(const head *h, uint64_t n)
{
    return atomic_load_explicit(&h->posted, memory_order_acquire) == n;
}

static void pause_core(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

static void sleep_for(sheet *s, const head *h, uint64_t n)
{
    const struct timespec most = { .tv_nsec = 50000000 };   /* then the job is looked at */
    atomic_fetch_add(&s->sleepers, 1);
    const uint32_t rung = atomic_load(&s->bell);
    if (atomic_load(&h->posted) != n)
        syscall(SYS_futex, &s->bell, FUTEX_WAIT, rung, &most, NULL, 0);
    atomic_fetch_sub(&s->sleepers, 1);
}

static gt_status wait_long(net_op *o, int peer, const head *h)
{
    const net_group *g = o->group;
    net_comm *c = g->comm;
    const uint64_t n = g->board->posts, began = gt_now_ns(), spin = comm_patience(c);
    gt_status st = GT_OK;
    int yields = spin != 0, sleeps = 0;
    for (unsigned tries = 0; !has_posted(h, n); tries++) {
        if (tries % 16 == 0) {
            st = net_job_check(c->job);
            if (st) {
                comm_lock(c);
                comm_shut(c);
                comm_unlock(c);
                break;
            }
            if (told_of(o, peer) && !has_posted(h, n))
                disagreed(o, peer, NULL);
        }
        if (yields && (tries % 16 || gt_now_ns() - began < spin)) {
            yields = !comm_yield(c);
            continue;
        }
        if (!sleeps) {
            recorder_waits(&c->recorder, g->ranks[peer], "to exchange", o->posted);
            net_comm_signal(c);     /* of what else is under way somebody must take care */
        }
        yields = 0;
        sleeps = 1;
        tries = UINT_MAX;           /* the next one looks at the job */
        sleep_for(g->board->sheet, h, n);
    }
    if (sleeps)
        recorder_waits(&c->recorder, -1, NULL, 0);
    return st;
}

gt_status net_board_wait(net_op *o, int peer, const unsigned char **data)
{
    const net_group *g = o->group;
    const struct group_board *b = g->board;
    const size_t turn = b->posts & 1;
    const place *theirs = &b->sheet->place[peer];
    const head *h = &theirs->head[turn];
    gt_status st = GT_OK;
    assert(peer >= 0 && peer < g->size && peer != g->rank);
    const int polls = g->comm->crowded ? BOARD_FEW : BOARD_POLLS;
    for (int i = 0; i < polls && !has_posted(h, b->posts); i++)
        pause_core();
    if (!has_posted(h, b->posts))
        st = wait_long(o, peer, h);
    if (!st && !agrees(o, h)) {
        disagreed(o, peer, h);
        st = net_job_check(g->comm->job);
    }
    *data = o->posted <= INSIDE ? h->data : theirs->data[turn];
    return st;
}
