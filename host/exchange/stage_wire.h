/* SPDX-License-Identifier: MIT */
/* host/exchange/stage_wire.h - one direction of one edge of a pipeline: messages in a ring of slots.
 *
 *   out   device ──read──► slot ──(completion) send──► peer       a slot is used again when sent
 *   in    peer ──► slot, received early ──write──► device         and when written, respectively
 */
#ifndef GT_EXCHANGE_STAGE_WIRE_H
#define GT_EXCHANGE_STAGE_WIRE_H

#include "host/device/completion.h"
#include "net/comm/comm.h"

typedef struct wire wire;

/* peer, channel: of net/comm/comm.h. depth: messages under way, each in a slot, an arena. */
gt_status wire_create(wire **out, net_comm *c, int peer, uint32_t channel, uint64_t bytes, int depth);
void wire_release(wire *w);                    /* takes NULL; after the completion thread has drained */

/* In: `total` messages will come; posts the first receives. */
gt_status wire_expect(wire *w, int total);
/* In: waits for the next message and queues writing it to b; *waited += nanoseconds. */
gt_status wire_receive(wire *w, dev_device *d, dev_buffer *b, uint64_t *waited);
/* Out: queues reading b; the completion thread sends it. */
gt_status wire_send(wire *w, dev_device *d, dev_buffer *b, dev_completion *c, uint64_t *waited);
uint64_t wire_sent(const wire *w);                 /* bytes given so far */

#endif
