/* SPDX-License-Identifier: MIT */
/* host/train/image_give.c - going on from what all ranks have in memory.
 *
 *   rank 0   h.0 | h.1        step 31      all tell      the newest step of     pieces travel, a tensor after the
 *   rank 1   h.0 | h.1        step 31  ──► what they ──► which all that any ──► other; of those that lie with
 *   rank 2   (new)                         have          rank needs is there    several ranks, the lowest one's
 *
 * As with checkpoints (checkpoint_load.c), by way of the full tensor: then every cut there was goes with every cut
 * there is. Who has an image tells its pieces once, so all ranks know who sends what, and nobody asks. */
#include "host/base/clock.h"
#include "host/base/log.h"
#include "host/train/image_private.h"
#include "net/collective/collective.h"

#include <stdlib.h>
#include <string.h>

enum { CHUNK = 1 << 24, CANDIDATES = 8 };       /* CHUNK: floats that travel at once */

/* A tensor that this rank needs some of. */
typedef struct want {
    char owner[CHECKPOINT_OWNER], name[128];
    checkpoint_state *state;            /* NULL: parameters                                   */
    int entry, param, each_rank, optional;
    checkpoint_piece piece;
} want;

/* A piece in somebody's image. */
typedef struct holding {
    const image_piece *p;
    int rank;
} holding;

typedef struct giving {
    train *t;
    const train_image *own;             /* NULL: none                                         */
    int ranks;
    image_head *heads;                  /* [rank]                                             */
    image_piece **dirs;                 /* [rank] pieces of its image                         */
    checkpoint_state states[CHECKPOINT_STATES];
    want *wants;
    int want_count;
    uint64_t steps[CANDIDATES];         /* of which there are images, the newest first        */
    int step_count;
    holding *all;                       /* of one step, by tensor, and of a tensor by rank    */
    int count;
    float *room, *held;                 /* the largest full tensor; the largest piece         */
    unsigned char *filled;              /* [element of the full tensor]                       */
} giving;

static gt_status no_memory(void)
{
    return gt_fail(GT_NO_MEMORY, "no memory to go on from what ranks have in memory");
}

static void release(giving *g)
{
    for (int r = 0; g->dirs && r < g->ranks; r++)
        if (!g->own || g->dirs[r] != g->own->pieces)
            free(g->dirs[r]);
    free(g->dirs);
    free(g->heads);
    free(g->wants);
    free(g->all);
    free(g->room);
    free(g->held);
    free(g->filled);
}

static int64_t size_of(const checkpoint_piece *p)
{
    return p->end - p->begin;
}

static int rank_of(const giving *g)
{
    return g->t->o.comm ? g->t->rank : 0;
}

/* ---- who has what ------------------------------------------------------------------------------- */

static gt_status tell_heads(giving *g)
{
    const image_head none = { 0 };
    const image_head *mine = g->own ? &g->own->head : &none;
    net_comm *c = g->t->o.comm;
    net_blobs all;
    if (!c) {
        g->heads[0] = *mine;
        return GT_OK;
    }
    gt_status st = net_job_exchange(net_comm_job(c), "what ranks have in memory", mine, sizeof *mine, &all);
    for (int r = 0; !st && r < g->ranks; r++)
        if (r < all.count && all.size[r] == sizeof *mine)
            memcpy(&g->heads[r], all.data[r], sizeof *mine);
    if (!st)
        net_blobs_release(&all);
    return st;
}

static gt_status tell_pieces(giving *g)
{
    gt_status st = GT_OK;
    for (int r = 0; !st && r < g->ranks; r++) {
        const uint64_t bytes = g->heads[r].pieces * sizeof(image_piece);
        if (!g->heads[r].has)
            continue;
        g->dirs[r] = r == rank_of(g) ? g->own->pieces : malloc((size_t)bytes + 1);
        if (!g->dirs[r])
            return no_memory();
        if (g->t->o.comm)
            st = net_broadcast(net_group_world(g->t->o.comm), g->dirs[r], bytes / 4, NET_I32, r, NULL);
    }
    return st;
}

/* Newest first. */
static void find_steps(giving *g)
{
    for (int r = 0; r < g->ranks; r++) {
        int at = 0;
        const uint64_t step = g->heads[r].step;
        while (at < g->step_count && g->steps[at] > step)
            at++;
        if (!g->heads[r].has || (at < g->step_count && g->steps[at] == step) || at == CANDIDATES)
            continue;
        g->step_count += g->step_count < CANDIDATES;
        for (int i = g->step_count - 1; i > at; i--)
            g->steps[i] = g->steps[i - 1];
        g->steps[at] = step;
    }
}

static int compare_names(const char *owner, const char *name, const image_piece *p)
{
    const int first = strcmp(owner, p->owner);
    return first ? first : strcmp(name, p->name);
}

static int compare_holdings(const void *a, const void *b)
{
    const holding *x = a, *y = b;
    const int names = compare_names(x->p->owner, x->p->name, y->p);
    if (names)
        return names;
    if (x->rank != y->rank)
        return x->rank < y->rank ? -1 : 1;
    return x->p->at < y->p->at ? -1 : x->p->at > y->p->at;
}

/* All pieces of a step. */
static gt_status list_holdings(giving *g, uint64_t step)
{
    uint64_t n = 0;
    free(g->all);
    for (int r = 0; r < g->ranks; r++)
        n += g->heads[r].has && g->heads[r].step == step ? g->heads[r].pieces : 0;
    g->all = malloc((size_t)(n + 1) * sizeof *g->all);
    if (!g->all)
        return no_memory();
    g->count = 0;
    for (int r = 0; r < g->ranks; r++)
        for (uint64_t i = 0; g->heads[r].has && g->heads[r].step == step && i < g->heads[r].pieces; i++)
            g->all[g->count++] = (holding){ &g->dirs[r][i], r };
    qsort(g->all, (size_t)g->count, sizeof *g->all, compare_holdings);
    return GT_OK;
}

/* The first piece of a tensor, and how many there are; 0: none. */
static int find_holdings(const giving *g, const char *owner, const char *name, int *count)
{
    int low = 0, high = g->count;
    while (low < high) {
        const int mid = (low + high) / 2;
        if (compare_names(owner, name, g->all[mid].p) > 0)
            low = mid + 1;
        else
            high = mid;
    }
    *count = 0;
    while (low + *count < g->count && !compare_names(owner, name, g->all[low + *count].p))
        ++*count;
    return low;
}

/* ---- what this rank needs ------------------------------------------------------------------------ */

static gt_status list_wants(giving *g)
{
    train *t = g->t;
    const int owners = train_states(t, g->states);
    int most = params_count(t->params);
    for (int k = 0; k < owners; k++)
        most += g->states[k].count(g->states[k].context);
    g->wants = calloc((size_t)most + 1, sizeof *g->wants);
    if (!g->wants)
        return no_memory();
    for (int i = 0; i < params_count(t->params); i++) {
        const graph_param_info *info = params_info(t->params, i);
        want *w = &g->wants[g->want_count];
        if (info->frozen)
            continue;
        *w = (want){ .owner = CHECKPOINT_PARAMS, .param = i };
        w->piece = (checkpoint_piece){ info->full, info->slice, 0, shape_count(&info->shape), DTYPE_F32 };
        memcpy(w->name, info->name, strlen(info->name));
        g->want_count++;
    }
    for (int k = 0; k < owners; k++)
        for (int i = 0; i < g->states[k].count(g->states[k].context); i++) {
            checkpoint_entry e;
            want *w = &g->wants[g->want_count];
            g->states[k].entry(g->states[k].context, i, &e);
            if (e.begin >= e.end)
                continue;
            *w = (want){ .state = &g->states[k],
                         .entry = i,
                         .param = e.param,
                         .each_rank = g->states[k].each_rank,
                         .optional = e.optional,
                         .piece = checkpoint_entry_piece(&e) };
            memcpy(w->owner, g->states[k].owner, strlen(g->states[k].owner));
            memcpy(w->name, e.name, strlen(e.name));
            g->want_count++;
        }
    return GT_OK;
}

static gt_status make_room(giving *g)
{
    int64_t most = 1, largest = 1;
    for (int r = 0; r < g->ranks; r++)
        for (uint64_t i = 0; g->heads[r].has && i < g->heads[r].pieces; i++) {
            const checkpoint_piece *p = &g->dirs[r][i].piece;
            most = shape_count(&p->full) > most ? shape_count(&p->full) : most;
            largest = size_of(p) > largest ? size_of(p) : largest;
        }
    for (int i = 0; i < g->want_count; i++) {
        const int64_t n = shape_count(&g->wants[i].piece.full);
        most = n > most ? n : most;
    }
    largest = most > largest ? most : largest;  /* it holds this rank's slice as well */
    g->room = malloc((size_t)most * sizeof *g->room);
    g->held = malloc((size_t)largest * sizeof *g->held);
    g->filled = malloc((size_t)most);
    return g->room && g->held && g->filled ? GT_OK : no_memory();
}

static int same_piece(const checkpoint_piece *a, const checkpoint_piece *b)
{
    return shape_equal(&a->full, &b->full) && a->begin == b->begin && a->end == b->end
           && tensor_slice_equal(&a->slice, &b->slice);
}

/* This rank's own numbers of what it wants, if it held just that before; NULL: it did not. */
static const float *own_numbers(const giving *g, const want *w, uint64_t step)
{
    if (!g->own || g->own->head.step != step)
        return NULL;
    for (uint64_t i = 0; i < g->own->head.pieces; i++) {
        const image_piece *p = &g->own->pieces[i];
        if (!compare_names(w->owner, w->name, p))
            return same_piece(&w->piece, &p->piece) ? g->own->numbers + p->at : NULL;
    }
    return NULL;
}

/* ---- is all there --------------------------------------------------------------------------------- */

/* Marks a piece's elements; how many were not marked before. */
static int64_t mark(giving *g, const checkpoint_piece *p)
{
    int64_t fresh = 0, at;
    for (int64_t i = p->begin; i < p->end;) {
        int64_t n = tensor_slice_run(&p->full, &p->slice, i, &at);
        n = n < p->end - i ? n : p->end - i;
        for (int64_t k = at; k < at + n; k++) {
            fresh += !g->filled[k];
            g->filled[k] = 1;
        }
        i += n;
    }
    return fresh;
}

static int is_there(giving *g, const want *w, uint64_t step)
{
    int count, whole = 0;
    const int first = find_holdings(g, w->owner, w->name, &count);
    const int64_t n = shape_count(&w->piece.full);
    int64_t have = 0;
    if (w->each_rank == 1 || (w->each_rank == CHECKPOINT_OWN && own_numbers(g, w, step)))
        return 1;
    if (!count)
        return w->optional || (w->state && w->state->optional);
    for (int i = first; i < first + count; i++) {
        if (!shape_equal(&g->all[i].p->piece.full, &w->piece.full))
            return 0;
        whole |= checkpoint_piece_is_whole(&g->all[i].p->piece);
    }
    if (whole)
        return 1;
    memset(g->filled, 0, (size_t)n);
    for (int i = first; i < first + count; i++)
        have += mark(g, &g->all[i].p->piece);
    return have == n;
}

/* What a rank says of the steps: of which it would have all, and of which all that is its own. */
typedef struct verdict {
    unsigned char whole[CANDIDATES], keeps[CANDIDATES];
    char lacks[160];                    /* of the newest                                      */
} verdict;

static gt_status judge(giving *g, verdict *v)
{
    gt_status st = GT_OK;
    memset(v, 0, sizeof *v);
    for (int k = 0; !st && k < g->step_count; k++) {
        st = list_holdings(g, g->steps[k]);
        v->whole[k] = v->keeps[k] = 1;
        for (int i = 0; !st && i < g->want_count; i++) {
            const want *w = &g->wants[i];
            if (w->each_rank == 1 && g->own && g->own->head.step == g->steps[k] && !own_numbers(g, w, g->steps[k]))
                v->keeps[k] = 0;
            if (!v->whole[k] || is_there(g, w, g->steps[k]))
                continue;
            v->whole[k] = 0;
            if (!k)
                snprintf(v->lacks, sizeof v->lacks, "%.110s (%s)", w->name, w->state ? w->state->what : "parameters");
        }
    }
    return st;
}

/* The newest step of which all ranks have all; *at -1: there is none. */
static gt_status choose(giving *g, int *at, int *keeps)
{
    verdict mine;
    net_blobs all = { 0 };
    char lacks[sizeof mine.lacks] = "";
    gt_status st = judge(g, &mine);
    *at = -1;
    if (!st && g->t->o.comm)
        st = net_job_exchange(net_comm_job(g->t->o.comm), "whether memory holds all of the run", &mine, sizeof mine,
                              &all);
    if (st)
        return st;
    for (int k = 0; *at < 0 && k < g->step_count; k++) {
        int whole = mine.whole[k];
        *keeps = mine.keeps[k];
        for (int r = 0; r < all.count; r++) {
            verdict theirs = { 0 };
            if (all.size[r] == sizeof theirs)
                memcpy(&theirs, all.data[r], sizeof theirs);
            whole &= theirs.whole[k];
            *keeps &= theirs.keeps[k];
            if (!lacks[0])
                memcpy(lacks, theirs.lacks, sizeof lacks - 1);
        }
        *at = whole ? k : -1;
    }
    if (*at < 0 && !rank_of(g))
        gt_log(GT_LOG_WARN, "train", "no rank that is left has all of %s; the newest checkpoint is what there is",
               lacks[0] ? lacks : mine.lacks);
    net_blobs_release(&all);
    return GT_OK;
}

/* ---- pieces travel --------------------------------------------------------------------------------- */

static void put(giving *g, const checkpoint_piece *p, const float *from, int adds)
{
    int64_t at;
    for (int64_t i = p->begin; i < p->end;) {
        int64_t n = tensor_slice_run(&p->full, &p->slice, i, &at);
        n = n < p->end - i ? n : p->end - i;
        for (int64_t k = 0; k < n; k++) {
            const float x = from[i - p->begin + k];
            g->room[at + k] = adds ? g->room[at + k] + x : x;
        }
        i += n;
    }
}

/* A piece from who has it to all, and into the full tensor. */
static gt_status send_piece(giving *g, const holding *h, int adds)
{
    const checkpoint_piece *p = &h->p->piece;
    const uint64_t n = (uint64_t)size_of(p);
    float *data = h->rank == rank_of(g) ? g->own->numbers + h->p->at : g->held;
    gt_status st = GT_OK;
    for (uint64_t at = 0; !st && g->t->o.comm && at < n; at += CHUNK)
        st = net_broadcast(net_group_world(g->t->o.comm), data + at, n - at < CHUNK ? n - at : CHUNK, NET_F32, h->rank,
                           NULL);
    if (!st)
        put(g, p, data, adds);
    return st;
}

static gt_status write_want(giving *g, const want *w, const float *from)
{
    return w->state ? w->state->write(w->state->context, w->entry, from) : params_write(g->t->params, w->param, from);
}

/* One tensor, of which there are pieces. w: what this rank wants of it; NULL: nothing. */
static gt_status give_tensor(giving *g, const holding *h, int count, const want *w, int keeps, uint64_t step)
{
    const int64_t n = shape_count(&h->p->piece.full);
    const int own = h->p->each_rank == CHECKPOINT_OWN, adds = h->p->each_rank == 1;
    const float *mine = w && (own || adds) ? own_numbers(g, w, step) : NULL;
    gt_status st = GT_OK;
    if (adds && keeps)                  /* who joins owes nothing yet, as it was created */
        return mine ? write_want(g, w, mine) : GT_OK;
    memset(g->filled, 0, (size_t)n);
    memset(g->room, 0, (size_t)n * sizeof *g->room);
    for (int i = 0; !st && i < count; i++)
        if (mark(g, &h[i].p->piece) || adds)
            st = send_piece(g, &h[i], adds);
    if (st || !w)
        return st;
    if (own && mine)
        return write_want(g, w, mine);
    tensor_slice_take(g->held, g->room, &w->piece.full, &w->piece.slice);
    if (adds && w->param >= 0 && !g->t->mine[w->param])
        memset(g->held, 0, (size_t)n * sizeof *g->held);
    return write_want(g, w, g->held + w->piece.begin);
}

static gt_status give_all(giving *g, int keeps, uint64_t step)
{
    gt_status st = GT_OK;
    for (int i = 0, n; !st && i < g->count; i += n) {
        const image_piece *p = g->all[i].p;
        const want *w = NULL;
        find_holdings(g, p->owner, p->name, &n);
        for (int k = 0; !w && k < g->want_count; k++)
            if (!compare_names(g->wants[k].owner, g->wants[k].name, p))
                w = &g->wants[k];
        st = give_tensor(g, &g->all[i], n, w, keeps, step);
    }
    return st;
}

/* What is each rank's own goes with it. */
static void tell_dropped(const giving *g, uint64_t step)
{
    uint64_t before = 0, left = 0;
    int owed = 0;
    for (int r = 0; r < g->ranks; r++) {
        if (!g->heads[r].has || g->heads[r].step != step)
            continue;
        left++;
        before = g->heads[r].ranks;
    }
    for (int i = 0; i < g->count; i++)
        owed |= g->all[i].p->each_rank == 1;
    if (owed && left < before)
        gt_log(GT_LOG_WARN, "train", "what compression held back of gradients on %llu of %llu ranks is lost with them",
               (unsigned long long)(before - left), (unsigned long long)before);
}

/* ---- the position ----------------------------------------------------------------------------------- */

/* The last steps as if they were queued and not yet recorded. One that had a validation or a checkpoint behind it
 * was recorded before the next began. */
static void put_steps(train *t, const image_head *h)
{
    t->queued = t->updated = h->step;
    t->done = h->last[0].there ? h->step - 1 : h->step;
    t->samples = h->samples;
    t->tokens = h->tokens;
    t->skips = h->skips;
    t->best = t->best_before = h->best;
    if (h->last[0].there && h->last[1].there && !train_looks_at(t, h->step - 1)) {
        t->done--;
        t->tokens -= image_tokens(&h->last[1]);
    }
    const uint64_t now = gt_now_ns();
    uint64_t end = now;
    for (int k = 0; k < DEPTH; k++) {
        const image_step *s = &h->last[k];
        if (!s->there)
            continue;
        t->flights[s->step % FLIGHTS] = (flight){
            .step = s->step,
            .begin = s->begin,
            .takes_part = 1,            /* ranks were together, so every replica did */
            .rows = t->o.batch,
            .of = t,
            .start_ns = end - s->ns,
            .end_ns = end,
            .lr = s->lr,
            .weights = s->weights,
            .all = s->all
        };
        memcpy(t->flights[s->step % FLIGHTS].state, s->state, sizeof s->state);
        end -= s->ns;
        if (s->step == t->done)
            t->last_end_ns = end;
    }
}

gt_status train_image_give(train *t, const train_image *own, int *given)
{
    giving g = { .t = t, .own = own, .ranks = t->o.comm ? t->ranks : 1 };
    int at = -1, keeps = 0;
    *given = 0;
    g.heads = calloc((size_t)g.ranks, sizeof *g.heads);
    g.dirs = calloc((size_t)g.ranks, sizeof *g.dirs);
    gt_status st = g.heads && g.dirs ? tell_heads(&g) : no_memory();
    if (!st)
        find_steps(&g);
    if (!st && g.step_count)
        st = tell_pieces(&g);
    if (!st && g.step_count)
        st = list_wants(&g);
    if (!st && g.step_count)
        st = make_room(&g);
    if (!st && g.step_count)
        st = choose(&g, &at, &keeps);
    if (!st && at >= 0 && params_frozen_bytes(t->params))       /* in no image: it is what it was at the start */
        st = t->model.fill ? t->model.fill(t->model.config, t->params, t->model.fill_context)
                           : params_init(t->params, t->o.seed);
    if (!st && at >= 0)
        st = list_holdings(&g, g.steps[at]);
    if (!st && at >= 0)
        st = give_all(&g, keeps, g.steps[at]);
    for (int r = 0; !st && at >= 0 && !*given && r < g.ranks; r++)
        if (g.heads[r].has && g.heads[r].step == g.steps[at]) {
            put_steps(t, &g.heads[r]);
            *given = 1;
        }
    if (*given && !rank_of(&g))
        tell_dropped(&g, g.steps[at]);
    release(&g);
    return st;
}
