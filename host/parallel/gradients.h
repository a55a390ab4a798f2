/* host/parallel/gradients.h - the sum of all replicas' gradients, on every replica.
 *
 *   device   grad segment  ──chunk 2──►            ◄──chunk 0── written back
 *   arenas                 [ chunk 1 ] all-reduce
 *
 * Each rank's loss is already weighted by the tokens of the whole step (optim_create), so the
 * sum of gradients is that of the big batch, whatever part of it a rank took. The ring adds in a
 * fixed order: the same ranks give the same bits, and all ranks the same ones.
 *
 * Chunks go through a few arenas, so that reading from the device, the wire and writing back
 * overlap, and host memory stays small however large the model is.                       */
#ifndef PARALLEL_GRADIENTS_H
#define PARALLEL_GRADIENTS_H

#include "host/graph/params.h"
#include "net/collective/collective.h"

typedef struct parallel_gradients parallel_gradients;

/* All ranks of the group, with the same parameters. */
gt_status parallel_gradients_create(parallel_gradients **out, net_group *g, dev_device *d, params *p);
void      parallel_gradients_release(parallel_gradients *s);        /* takes NULL */

/* Sums gradients and the loss in place, after what is queued on the device. *stop: in, whether this
 * rank wants to stop; out, whether any does. Blocks until written back is queued. */
gt_status parallel_gradients_sum(parallel_gradients *s, dev_buffer *loss_sum, int *stop);

/* Bytes and nanoseconds of the last sum. */
void parallel_gradients_last(const parallel_gradients *s, uint64_t *bytes, uint64_t *ns);

#endif
