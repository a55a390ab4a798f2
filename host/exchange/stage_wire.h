/* SPDX-License-Identifier: MIT */
/* host/exchange/stage_wire.h - one direction of one edge of a pipeline: parcels in a ring of arenas.
 *
 *   out   device ──read──► parcel ──(courier) send──► peer        a parcel is used again when sent
 *   in    peer ──► parcel, received early ──write──► device       and when written, respectively
 */
#ifndef GT_EXCHANGE_STAGE_WIRE_H
#define GT_EXCHANGE_STAGE_WIRE_H

#include "host/device/courier.h"
#include "net/comm/comm.h"

typedef struct wire wire;

/* peer, channel: of net/comm/comm.h. depth: parcels under way. */
gt_status wire_create(wire **out, net_comm *c, int peer, uint32_t channel, uint64_t bytes, int depth);
void      wire_release(wire *w);                    /* takes NULL; after the courier has drained */

/* In: `total` parcels will come; posts the first receives. */
gt_status wire_expect(wire *w, int total);
/* In: waits for the next parcel and queues writing it to b; *waited += nanoseconds. */
gt_status wire_take(wire *w, dev_device *d, dev_buffer *b, uint64_t *waited);
/* Out: queues reading b; the courier sends it. */
gt_status wire_give(wire *w, dev_device *d, dev_buffer *b, dev_courier *c, uint64_t *waited);
uint64_t  wire_sent(const wire *w);                 /* bytes given so far */

#endif
