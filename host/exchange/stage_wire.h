/* SPDX-License-Identifier: MIT */
/* host/exchange/stage_wire.h - one direction of one edge of a pipeline: messages in a ring of slots.
 *
 * On a device that computes in host memory slots are its buffers, and nothing is copied: kernels write into the slot
 * that is sent, and read where it arrived, over shared memory the sender's slot itself:
 *
 *   out   kernels ──► slot ──(completion) send──► peer            a slot is used again when the peer has it,
 *   in    peer ──► slot, received early ──► kernels               or, where it was lent, has read it
 *
 * On others a message is read from the device into its slot, and written there from where it arrived: in parts of at
 * most 1 MiB (GEARTRAIN_TRANSFER_PIECE; 0: always in one), or in 16 larger ones, so that three ways are used at once:
 *
 *   device ──► slot     | read 0 | read 1 | read 2 |
 *   slot ──► peer                | send 0 | send 1 | send 2 |
 *   peer's device                         | write 0| write 1| write 2|
 *
 * So it is where either end's device has memory of its own; within a host, where bytes are lent, where both have. The ends
 * tell each other at the first message, whose bits do not depend on it.
 *
 * What a stage holds may travel in fewer bits: then `read` is of an encoding on the device, and what was written
 * there is decoded.
 *
 *   kind   bytes a value   error of a value x                              how
 *   bf16   2               at most |x| / 256                               to nearest even
 *   fp16   2 + 1/32        at most 1/2048 of the largest of 128 values     the same, each 128 over a power of two
 *   int8   1 + 1/32        less than 1/127 of the largest of 128 values    stochastic: its mean is x
 *
 * Stochastic rounding draws from a counter of (edge, message, place), so that it is the same whenever it is repeated.
 * The sender decodes what it encoded and adds up how far that is from what it was.             */
#ifndef GT_EXCHANGE_STAGE_WIRE_H
#define GT_EXCHANGE_STAGE_WIRE_H

#include "host/device/completion.h"
#include "host/kernel/kernel.h"
#include "net/comm/comm.h"

typedef struct wire wire;

typedef enum wire_kind { WIRE_AS_IT_IS, WIRE_BF16, WIRE_FP16, WIRE_INT8, WIRE_KINDS } wire_kind;
const char *wire_kind_name(wire_kind k);       /* "none", "bf16", ... */
int wire_kind_find(wire_kind *out, const char *name);      /* 0: there is none */
/* 1: a value of this type takes fewer bytes so. */
int wire_kind_shortens(wire_kind k, dtype type);
/* Bytes of a value of this type. */
double wire_kind_bytes(wire_kind k, dtype type);
/* The storage type of the kernels that make it of values of this type. */
dtype wire_kind_kernels(wire_kind k, dtype type);
/* What no error reaches, and of what; 0 and "" of what travels as it is. */
double wire_kind_bound(wire_kind k);
const char *wire_kind_against(wire_kind k);    /* "itself", "the largest of 128"            */

/* What a message is. `kernels`: of wire_kind_kernels(); NULL for WIRE_AS_IT_IS. It must outlive the wire. */
typedef struct wire_form {
    int64_t count;
    dtype type;                                /* on the device */
    wire_kind kind;
    kernel_set *kernels;
    uint32_t edge;                             /* for what is drawn: another one for each edge and direction */
} wire_form;
uint64_t wire_message(const wire_form *f);     /* bytes */

/* What a form takes of a device and of the network, for a value of type `type`: seconds to encode it, with what holds it
 * against the original, and to decode it; bytes. Flat, to be handed to other ranks as it is. */
typedef struct wire_rate {
    double encode, decode, bytes;
} wire_rate;
/* The fastest of some messages of `count` values; of WIRE_AS_IT_IS nothing but bytes. */
gt_status wire_rate_measure(wire_rate *out, dev_device *d, wire_kind k, dtype type, int64_t count);

/* 1: the values themselves travel, and the device computes where they lie: messages have places, b of the calls
 * below is a window (host/device/device.h), and how many slots there are is for the caller to know. */
int wire_places(const dev_device *d, const wire_form *f);

/* peer, channel: of net/comm/comm.h. depth: messages under way, each in a slot, an arena. d and c outlive the
 * wire. */
gt_status wire_create(wire **out, net_comm *comm, int peer, uint32_t channel, dev_device *d, dev_completion *c,
                      const wire_form *form, int depth);
/* Takes NULL; after the completion thread has drained, and after the windows on its slots. */
void wire_release(wire *w);
/* With places: a buffer to make windows of; else NULL. */
dev_buffer *wire_first_place(wire *w);

/* In: `total` messages will come; posts the first receives. */
gt_status wire_expect(wire *w, int total);
/* In: waits for the next message and queues writing it to b, or sets window b to it, and *place says
 * where it is until wire_read(); *waited += nanoseconds. */
gt_status wire_receive(wire *w, dev_buffer *b, int *place, uint64_t *waited);
/* In, with places: what is queued by now reads the message last. */
gt_status wire_read(wire *w, int place);
/* Out, with places: window b is where the next message is to be made; waits until that is free. */
gt_status wire_begin(wire *w, dev_buffer *b, int *place, uint64_t *waited);
/* Out: queues reading b; the completion thread sends it. With places what was made at `place`, which is not to be
 * written again. number: of the message in the run, for what is drawn. */
gt_status wire_send(wire *w, dev_buffer *b, int place, uint32_t number, uint64_t *waited);
uint64_t wire_sent(const wire *w); /* bytes given so far */
/* In: bytes that were copied on this host on the way from the sender's slot to the device that computes in host
 * memory; those of sockets and of devices with memory of their own do not count. */
uint64_t wire_copied(const wire *w);
/* Out, when all is over on the device: adds what rounding did since this was asked for last. */
gt_status wire_rounding(wire *w, kernel_rounding *sum);

#endif
