/* SPDX-License-Identifier: MIT */
/* net/transport/transport.h - how bytes travel between two ranks: the seam.
 *
 *      sender                                   receiver
 *         ◄───────── message: "window 7 is open" ─── expose(window 7, sink, descriptor)
 *      put(data, window 7, descriptor) ──────────► bytes land in the sink
 *         └─ done(cookie)                          placed(window 7)
 *
 * Receivers lead: an open window is the credit to send, so nothing ever arrives that has no
 * place, and a transport with remote writes (verbs) puts the bytes where they belong without
 * a copy. Small messages travel by send() into buffers that the transport keeps ready and
 * has its own credits for. Both kinds may overtake each other: whoever is above matches by
 * tags, never by order.
 *
 * A sink either takes the bytes or adds them to what is there (`reduce`), so that a
 * reduction costs no pass over memory of its own. A sink that need not have them (`lend`) may get
 * them lent instead, where they lie, by a transport whose ends share memory:
 *
 *      put(data, window 7) ──────────────────────► lent(window 7, loan)    nothing was copied
 *         └─ done(cookie) ◄─────────────────────── give_back(loan)
 *
 * One instance of a transport serves one communicator; one link serves one pair. All calls
 * are made with the communicator's lock held, none blocks, and events are delivered from
 * progress() only (never from inside send, put or expose).
 *
 * Errors: a call that fails says so with gt_fail(); a link that fails later reports
 * `failed` once, naming both ends and a hint, and is then only closed.
 * Sources: NCCL's receiver-driven net transport (src/transport/net_ib), UCX's uct.       */
#ifndef NET_TRANSPORT_TRANSPORT_H
#define NET_TRANSPORT_TRANSPORT_H

#include "net/job/job.h"
#include "net/transport/memory.h"
#include "net/transport/shared.h"

enum {
    NET_MESSAGE = 64,               /* head of a message, at most; its body: the transport's eager */
    NET_DESCRIPTOR = 128,           /* what expose() tells the sender, at most                */
    NET_OFFER = 4096                /* what two ends tell each other when a link is made      */
};

/* dst[i] += src[i] over `bytes` bytes (a multiple of the element) of host memory. */
typedef void (*net_reduce)(void *dst, const void *src, size_t bytes);

typedef struct net_sink {
    void *data;
    size_t size;
    net_reduce reduce;              /* NULL: the bytes replace what is there                  */
    size_t grain;                   /* bytes of an element: pieces given to reduce are multiples */
    int lend;                       /* NET_LEND_...: `lent` may come instead of `placed`; not with reduce */
} net_sink;

/* Where a loan may begin: nowhere, at a page (what is bound as memory of a device must), anywhere. */
enum { NET_LEND_NOTHING, NET_LEND_PAGES, NET_LEND_ANY };

/* Bytes of a put, where the sender has them; to be left as they are. */
typedef struct net_loan {
    void *data;                     /* NULL: nothing is lent                                  */
    net_mapping *mapping;           /* holds it; NULL: memory of this process                 */
    uint64_t cookie;                /* the transport's                                        */
} net_loan;

typedef struct net_transport net_transport;
typedef struct net_link net_link;

/* To whoever is above. `up` is what link_open was given. */
typedef struct net_events {
    /* A whole message; the bytes are gone after the call. */
    void (*message)(void *up, const void *head, size_t head_size, const void *body, size_t body_size);
    /* All bytes of the put to this window are in its sink; the window is closed. */
    void (*placed)(void *up, uint32_t window);
    /* Instead of `placed`: the bytes lie with the sender, and are the sink's until give_back(). The loan
     * takes part in holding the mapping: whoever gets it drops that. */
    void (*lent)(void *up, uint32_t window, net_loan loan);
    /* The data of a put may be used again. */
    void (*done)(void *up, void *cookie);
    /* This link is broken; gt_message() says why. */
    void (*failed)(void *up, gt_status why);
} net_events;

/* The functions of one transport. None is optional but those marked. Structs of a transport
 * begin with net_transport or net_link as their first member. */
typedef struct net_transport_ops {
    const char *name;
    /* Looks for hardware. GT_UNSUPPORTED, with a sentence for the curious, where this
     * transport cannot work in this process; that is no failure of the job. */
    gt_status (*open)(net_transport **out, net_job *job, net_memory_set *memory, const net_events *events, int poll_fd);
    void (*close)(net_transport *t);

    /* A link to `peer` is made in steps; `leads` is 1 on exactly one end. offer: writes up to
     * NET_OFFER bytes for the peer. GT_UNSUPPORTED if this pair cannot work. connect: takes
     * the peer's offer (untrusted bytes). After both ends have connected, messages may flow.
     * More rounds: connect sets *again and fills `offer` for another one, and is called again on
     * both ends with the peer's. `stream` is the authenticated socket of the pair; it stays the
     * communicator's unless connect takes it over (*stream = -1), which also says that the link
     * needs no probe. */
    gt_status (*offer)(net_transport *t, int peer, int leads, void *up, net_link **link, unsigned char *offer,
                       size_t *size);
    gt_status (*connect)(net_link *link, const unsigned char *theirs, size_t theirs_size, unsigned char *offer,
                         size_t *size, int *again, int *stream);
    void (*disconnect)(net_link *link);      /* frees it in any state */

    /* Small messages: head 1..NET_MESSAGE bytes and body 0..transport->eager; copied before it
     * returns. What the wire cannot take now is kept and goes out by progress(). */
    gt_status (*send)(net_link *link, const void *head, size_t head_size, const void *body, size_t body_size);
    /* Opens a window for one put of exactly sink.size > 0 bytes. Window numbers are the
     * caller's, unique on this link while open. */
    gt_status (*expose)(net_link *link, uint32_t window, net_sink sink, unsigned char *descriptor, size_t *size);
    /* Sends `size` bytes into a window; the descriptor came from the peer (untrusted: checked
     * here). `data` is left alone until done(cookie). */
    gt_status (*put)(net_link *link, const void *data, size_t size, uint32_t window, const unsigned char *descriptor,
                     size_t descriptor_size, void *cookie);

    /* Optional, of a transport that lends: the sender may have its data back. Drops the mapping too. */
    void (*give_back)(net_link *link, net_loan loan);

    /* Does what can be done now and delivers events; *did counts them. Bounded: about 1 MiB of
     * copying a link and call. */
    void (*progress)(net_transport *t, int *did);
    /* Before sleeping: after arm() returns 0, anything new makes the descriptors in the
     * communicator's epoll set (`poll_fd`) readable. 1: there
     * is something already, do not sleep. disarm: awake again. */
    int (*arm)(net_transport *t);
    void (*disarm)(net_transport *t);

    /* Optional. The link has carried a probe both ways: it may take over the pair's stream now
     * (*stream = -1), and is part of arm() from here on. */
    void (*start)(net_link *link, int *stream);
    /* Optional: send() may hold small messages back until this, or until arm(). */
    void (*flush)(net_link *link);
    /* Optional: bytes that the link was given and that the wire has not taken. Without it, what puts have not been
     * reported done is reckoned as such. */
    size_t (*backlog)(const net_link *link);

    /* One line for people: "verbs mlx5_0:1 <-> mlx5_1:1, RoCE v2, GID 3, MTU 4096". */
    void (*describe)(net_link *link, char *out, size_t size);
    /* A number of this transport in this process: "wire bytes", retransmissions...; index 0, 1,
     * ... until it returns 0. Optional. */
    int (*counter)(net_transport *t, int index, const char **name, uint64_t *value);
} net_transport_ops;

struct net_transport {
    const net_transport_ops *ops;
    net_job *job;
    const net_config *config;
    net_memory_set *memory;
    const net_events *events;
    int poll_fd;                    /* epoll set of the communicator; add your descriptors with
                                       data.u32 = 0, level-triggered                          */
    size_t eager;                   /* bytes of a message's body, at most; the same on all ranks */
    size_t ahead;                   /* a link with a smaller backlog may run dry; at least 1   */
};

struct net_link {
    net_transport *transport;
    void *up;
    int peer;
};

extern const net_transport_ops net_shm, net_tcp, net_verbs;

/* Wraps a transport so that it misbehaves as `config->fault` says, for tests; see faulty.c.
 * The result is used like the one it wraps. */
gt_status net_faulty_wrap(const net_transport_ops *inner, const net_config *config, const net_transport_ops **out);

#endif
