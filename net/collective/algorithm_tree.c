/* SPDX-License-Identifier: MIT */
/* net/collective/algorithm_tree.c - from a root to all, and back.
 *
 *   binomial tree, 8 ranks from root 0            chain (what `ring` is for a broadcast)
 *
 *        0                                          0 ──► 1 ──► 2 ──► ... ──► 7
 *        ├──────────────► 4 ─────► 6 ─► 7           pieces follow each other: n / B and
 *        ├───────► 2 ─► 3 └─► 5                     p - 2 pieces more
 *        └─► 1
 *
 * The tree takes log p messages' time, so it is for small n; the chain sends each byte once
 * over each link, so it is for large n. Both are the same code: a rank takes pieces from its
 * parent and gives them to its children.
 *
 * As an all-reduce the tree sums towards rank 0 first. A rank adds its children's pieces one
 * child after the other, in a fixed order, so that sums have the same bits in each run.    */
#include "net/collective/algorithm.h"

enum { MOST_CHILDREN = 31, AHEAD = 4 };

typedef struct tree {
    net_task *t;
    int parent, children;           /* -1: the root */
    int child[MOST_CHILDREN];       /* largest subtree first */
    uint64_t pieces;
} tree;

/* Positions are counted from the root: position 0 is the root itself. */
static int at(const net_task *t, int position)
{
    return (position + t->root) % t->size;
}

static tree binomial(net_task *t)
{
    tree r = { .t = t, .parent = -1 };
    const int position = (t->rank - t->root + t->size) % t->size;
    int bit = 1;
    while (bit < t->size && !(position & bit))
        bit *= 2;
    if (position)
        r.parent = at(t, position - bit);
    for (int b = bit / 2; b > 0; b /= 2)
        if (position + b < t->size)
            r.child[r.children++] = at(t, position + b);
    return r;
}

static tree chain(net_task *t)
{
    tree r = { .t = t, .parent = -1 };
    const int position = (t->rank - t->root + t->size) % t->size;
    if (position)
        r.parent = at(t, position - 1);
    if (position + 1 < t->size)
        r.child[r.children++] = at(t, position + 1);
    return r;
}

/* Piece k of the whole vector. */
static void piece_of(const tree *r, uint64_t k, uint64_t *from, uint64_t *count)
{
    const uint64_t whole[2] = { 0, r->t->count };
    net_task all = *r->t;
    all.begin = whole;
    net_task_piece(&all, 0, k, r->pieces, from, count);
}

/* Adds the children's pieces, then passes the sum on to the parent. */
static gt_status towards_root(const tree *r)
{
    net_task *t = r->t;
    net_flight out = { 0 };
    net_request *first[AHEAD] = { NULL }, *request;
    uint64_t from, count, posted = 0;
    gt_status st = GT_OK;
    for (uint64_t k = 0; !st && k < r->pieces; k++) {
        net_op_phase(t->op, "towards the root", (int)k);
        for (; !st && r->children && posted < r->pieces && posted < k + AHEAD; posted++) {
            piece_of(r, posted, &from, &count);
            st = net_task_recv(t, r->child[0], t->step + (uint32_t)posted, from, count, 1, &first[posted % AHEAD]);
        }
        piece_of(r, k, &from, &count);
        if (!st && r->children) {
            st = net_wait(first[k % AHEAD]);
            first[k % AHEAD] = NULL;
        }
        for (int c = 1; !st && c < r->children; c++) {
            st = net_task_recv(t, r->child[c], t->step + (uint32_t)k, from, count, 1, &request);
            if (!st)
                st = net_wait(request);
        }
        if (!st && r->parent >= 0) {
            st = net_task_send(t, r->parent, t->step + (uint32_t)k, from, count, &request);
            if (!st)
                st = net_flight_add(&out, request);
        }
    }
    t->step += (uint32_t)r->pieces;
    return st ? st : net_flight_land(&out);
}

static gt_status from_root(const tree *r)
{
    net_task *t = r->t;
    net_flight in = { 0 }, out = { 0 };
    net_request *request;
    uint64_t from, count, posted = 0;
    gt_status st = GT_OK;
    for (uint64_t k = 0; !st && k < r->pieces; k++) {
        net_op_phase(t->op, "from the root", (int)k);
        for (; !st && r->parent >= 0 && posted < r->pieces && posted < k + AHEAD; posted++) {
            piece_of(r, posted, &from, &count);
            st = net_task_recv(t, r->parent, t->step + (uint32_t)posted, from, count, 0, &request);
            if (!st)
                st = net_flight_add(&in, request);
        }
        if (!st && r->parent >= 0)
            st = net_flight_wait(&in, k + 1);
        piece_of(r, k, &from, &count);
        for (int c = 0; !st && c < r->children; c++) {
            st = net_task_send(t, r->child[c], t->step + (uint32_t)k, from, count, &request);
            if (!st)
                st = net_flight_add(&out, request);
        }
    }
    t->step += (uint32_t)r->pieces;
    return st ? st : net_flight_land(&out);
}

gt_status net_run_tree(net_task *t)
{
    tree r = binomial(t);
    r.pieces = net_task_pieces(t, t->count);
    gt_status st = GT_OK;
    if (t->kind == NET_OP_ALL_REDUCE)
        st = towards_root(&r);
    return st ? st : from_root(&r);
}

gt_status net_run_chain(net_task *t)
{
    tree r = chain(t);
    r.pieces = net_task_pieces(t, t->count);
    return from_root(&r);
}
