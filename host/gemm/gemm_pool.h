/* SPDX-License-Identifier: MIT */
/* host/gemm/gemm_pool.h - threads that stand by for products cut into pieces.
 *
 * A library's own threads are as many as the machine has cores, and between two products they spin on cores
 * that the driver's kernels need. These are as many as the device has, and sleep. The one that brings the
 * product takes pieces as well, so a thread that wakes late, on a loaded machine, delays nothing. A few threads are
 * woken on processors other than their caller's, of those that the process may run on.                */
#ifndef GT_GEMM_POOL_H
#define GT_GEMM_POOL_H

typedef struct gemm_pool gemm_pool;

/* So many threads with the caller; where the system has no more of them to give, fewer. NULL: no memory. */
gemm_pool *gemm_pool_create(int threads);
/* Ends them. Takes NULL. */
void gemm_pool_release(gemm_pool *p);
int gemm_pool_threads(const gemm_pool *p);

/* Calls piece(context, i, thread) for every i in [0, pieces), taken in this order, and returns when all are done.
 * thread, from 0 to gemm_pool_threads() - 1, says which of them computes it. One caller at a time. */
typedef void (*gemm_piece)(void *context, int i, int thread);
void gemm_pool_run(gemm_pool *p, int pieces, gemm_piece piece, void *context);

#endif
