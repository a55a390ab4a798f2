/* SPDX-License-Identifier: MIT */
/* host/gemm/gemm_pool.c - one lock, which is held while a piece is taken and never while it is computed; and threads
 * that keep off the caller's processor. */
#include "host/gemm/gemm_pool.h"

#include "host/base/log.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

struct gemm_pool {
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    pthread_t *threads;
    int count;                      /* threads beside the caller */
    int standing;                   /* of them that have begun; each one's number */
    int stop;
    gemm_piece piece;
    void *context;
    int next, pieces, running;
    cpu_set_t all;                  /* processors that the process may run on */
    int avoided;                    /* of them, by the threads; -1: none      */
};

/* Computes pieces until none is left; the lock is held at the beginning and at the end. */
static void take_pieces(gemm_pool *p, int thread)
{
    while (p->next < p->pieces) {
        const int i = p->next++;
        const gemm_piece piece = p->piece;
        void *const context = p->context;
        p->running++;
        pthread_mutex_unlock(&p->lock);
        piece(context, i, thread);
        pthread_mutex_lock(&p->lock);
        p->running--;
    }
}

static void *stand_by(void *argument)
{
    gemm_pool *p = argument;
    pthread_mutex_lock(&p->lock);
    const int thread = ++p->standing;
    while (!p->stop) {
        take_pieces(p, thread);
        if (!p->running)
            pthread_cond_signal(&p->done);
        pthread_cond_wait(&p->work, &p->lock);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

gemm_pool *gemm_pool_create(int threads)
{
    gemm_pool *p = calloc(1, sizeof *p);
    if (!p || (threads > 1 && !(p->threads = calloc((size_t)threads - 1, sizeof *p->threads)))) {
        free(p);
        return NULL;
    }
    p->avoided = -1;
    if (sched_getaffinity(0, sizeof p->all, &p->all))
        CPU_ZERO(&p->all);
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->work, NULL);
    pthread_cond_init(&p->done, NULL);
    while (p->count + 1 < threads && pthread_create(&p->threads[p->count], NULL, stand_by, p) == 0)
        p->count++;
    if (p->count + 1 < threads)
        gt_log(GT_LOG_WARN, "gemm", "the system gives no more threads: products run on %d instead of %d", p->count + 1,
               threads);
    return p;
}

void gemm_pool_release(gemm_pool *p)
{
    if (!p)
        return;
    pthread_mutex_lock(&p->lock);
    p->stop = 1;
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->lock);
    for (int i = 0; i < p->count; i++)
        pthread_join(p->threads[i], NULL);
    pthread_cond_destroy(&p->done);
    pthread_cond_destroy(&p->work);
    pthread_mutex_destroy(&p->lock);
    free(p->threads);
    free(p);
}

int gemm_pool_threads(const gemm_pool *p)
{
    return p->count + 1;
}

/* A thread that is woken while another one sits on its processor for a moment, as the driver's own does behind a kernel,
 * is put behind its waker, and stays there for milliseconds: with two cores, every fourth product was computed by one
 * of them. Many threads miss one less, and would be told one by one. */
static void avoid_caller(gemm_pool *p)
{
    enum { FEW = 8 };
    const int here = sched_getcpu();
    if (here < 0 || here == p->avoided || p->count > FEW || CPU_COUNT(&p->all) <= p->count
        || !CPU_ISSET((size_t)here, &p->all))
        return;
    cpu_set_t others = p->all;
    CPU_CLR((size_t)here, &others);
    for (int i = 0; i < p->count; i++)
        pthread_setaffinity_np(p->threads[i], sizeof others, &others);
    p->avoided = here;
}

void gemm_pool_run(gemm_pool *p, int pieces, gemm_piece piece, void *context)
{
    pthread_mutex_lock(&p->lock);
    p->piece = piece;
    p->context = context;
    p->next = 0;
    p->pieces = pieces;
    if (pieces > 1) {
        avoid_caller(p);
        pthread_cond_broadcast(&p->work);
    }
    take_pieces(p, 0);
    while (p->running)
        pthread_cond_wait(&p->done, &p->lock);
    pthread_mutex_unlock(&p->lock);
}
