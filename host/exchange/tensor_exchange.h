/* SPDX-License-Identifier: MIT */
/* host/exchange/tensor_exchange.h - the rows that ranks of a tensor group hand to each other.
 *
 *   device  [own rows] ──read──►  arena  ◄── all-gather ──►  arena  ──write──► [all rows]
 *   device  [partial ] ──read──►  arena  ◄─reduce-scatter─►  arena  ──write──► [own rows of the sum]
 *
 * It is an exec's `exchange` (host/graph/exec.h): one for each device, used by all its execs. Parts
 * may be of any size. Each sum is added up in an order that depends on the number of ranks alone, in
 * fp32 and rounded once, so the same ranks give the same bits.                             */
#ifndef GT_EXCHANGE_TENSOR_EXCHANGE_H
#define GT_EXCHANGE_TENSOR_EXCHANGE_H

#include "host/device/completion.h"
#include "host/graph/exec.h"
#include "net/collective/collective.h"

typedef struct tensor_exchange tensor_exchange;

/* Rank k of `g` is tensor rank k; all must outlive it. c, which may be NULL, tells what `idle` needs. */
gt_status tensor_exchange_create(tensor_exchange **out, net_group *g, dev_device *d, dev_completion *c);
void tensor_exchange_release(tensor_exchange *x);      /* takes NULL; waits for what is queued */

/* An exec_exchanger; the context is the tensor_exchange. The first exchange of a size makes its
 * arena. GT_MISUSE if the graph was split otherwise than the group. */
gt_status tensor_exchange_make(void *context, const exec_exchange *e, exec_exchange_step step);

/* Since it was created: exchanges, bytes of all ranks' rows, nanoseconds from having read own
 * rows to having the others' (waiting for slower ranks is among them), and bytes between the arena and a device that
 * computes in host memory. */
typedef struct tensor_exchange_spent {
    uint64_t exchanges, bytes, ns, copied;
    uint64_t idle;                  /* of ns: in which the device had nothing to do; without a completion 0 */
} tensor_exchange_spent;
/* GT_LOST, and as dev_completion_wait() fails. */
gt_status tensor_exchange_spent_of(tensor_exchange *x, tensor_exchange_spent *out);

#endif
