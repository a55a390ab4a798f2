/* SPDX-License-Identifier: MIT */
/* host/exchange/stage_wire.h - one direction of one edge of a pipeline: messages in a ring of slots.
 *
 *   out   device ──read──► slot ──(completion) send──► peer       a slot is used again when sent
 *   in    peer ──► slot, received early ──write──► device         and when written, respectively
 *
 * What a stage holds in fp32 may travel in 16 bits: then `read` is of a rounded copy on the device, and
 * what was written there is widened. Rounding is to nearest even, the same whenever it is repeated.  */
#ifndef GT_EXCHANGE_STAGE_WIRE_H
#define GT_EXCHANGE_STAGE_WIRE_H

#include "host/device/completion.h"
#include "host/kernel/kernel.h"
#include "net/comm/comm.h"

typedef struct wire wire;

/* What a message is. narrow NULL: values as they lie on the device; else that set's storage type, from
 * fp32. It must outlive the wire. */
typedef struct wire_form {
    int64_t count;
    dtype type;                                /* on the device */
    kernel_set *narrow;
} wire_form;
uint64_t wire_message(const wire_form *f);     /* bytes */

/* peer, channel: of net/comm/comm.h. depth: messages under way, each in a slot, an arena. */
gt_status wire_create(wire **out, net_comm *c, int peer, uint32_t channel, const wire_form *form, int depth);
void wire_release(wire *w);                    /* takes NULL; after the completion thread has drained */

/* In: `total` messages will come; posts the first receives. */
gt_status wire_expect(wire *w, int total);
/* In: waits for the next message and queues writing it to b; *waited += nanoseconds. */
gt_status wire_receive(wire *w, dev_device *d, dev_buffer *b, uint64_t *waited);
/* Out: queues reading b; the completion thread sends it. */
gt_status wire_send(wire *w, dev_device *d, dev_buffer *b, dev_completion *c, uint64_t *waited);
uint64_t wire_sent(const wire *w);                 /* bytes given so far */

#endif
