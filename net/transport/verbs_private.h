/* SPDX-License-Identifier: MIT */
/* net/transport/verbs_private.h - the parts of the verbs transport, as its files see them.
 *
 *   transport ── device ── port            opened once, with all arenas registered
 *       │           └─ protection domain, completion channel, async events
 *       └─ link ── rail ── completion queue      a pair of ports, one of each end
 *             └─ lane 0, 1, ...                  queue pairs: 0 carries messages on rail 0,
 *                                                rail r's data go over lanes 1 + r*pairs ...
 *
 * Files by phase: verbs_transport.c (the seam), verbs_device.c, verbs_memory.c, verbs_queue.c
 * (queue pairs), verbs_connect.c (the steps to a proven link), verbs_message.c (small messages
 * and credits), verbs_put.c (windows), verbs_completion.c, verbs_error.c (sentences).
 *
 * Credits. Everything that takes a receive at the other end (a message, a signal) costs one
 * credit of its lane; receives are made ready again at once and told to the sender with the next
 * message, or in one of its own when half of them are not yet told. So a receive is always
 * there before what it is for ("receiver not ready" cannot happen), whatever the sizes.
 *
 * What is relied on (IB: InfiniBand Architecture Specification, volume 1; iWARP: RFC 5040). Reliable
 * connections only.
 *   - Requests of a queue pair are carried out in the order of their posting, and a completion ends
 *     all that were posted before: so unsignalled ones need none of their own (IB 9.5, 11.4.1.1).
 *   - The bytes of a write are there when a completion of the receiver is polled that a later request of
 *     the same queue pair caused: the immediate of a write, or a send behind it (IB 9.5, o9-20;
 *     iWARP, which has no immediate data: RFC 5040, 5.5).
 *   - Nothing else tells of arrival: no memory is polled, for neither says in which order the bytes of a
 *     write become visible. Between queue pairs there is no order.
 * What a device may lack is asked for and done without: inline data (fewer, or none), long queues
 * (max_qp_wr, max_cqe), immediate data, long messages (max_msg_sz). Shared receive queues, memory
 * windows and atomics are not used.                                                       */
#ifndef NET_TRANSPORT_VERBS_PRIVATE_H
#define NET_TRANSPORT_VERBS_PRIVATE_H

#include "net/transport/transport.h"
#include "net/transport/verbs_api.h"
#include "net/transport/verbs_choice.h"
#include "net/transport/verbs_offer.h"

enum {
    NET_VERBS_HOOK = 2,             /* our slot of an arena; see net/transport/memory.h      */
    NET_VERBS_DEVICES = NET_VERBS_PORTS,
    NET_VERBS_RESERVE = 2,          /* credits of lane 0 that only credit messages may use   */
    NET_VERBS_SIGNAL_EVERY = 32,
    NET_VERBS_SIGNAL_BYTES = 256 << 10, /* of puts that end untold, before one is told       */
    NET_VERBS_CHAIN = 16,           /* requests given to a device at once, at most           */
    NET_VERBS_SLOTS = 4096,         /* windows open at a time                                */
    NET_VERBS_DATA_DEPTH = 128,     /* requests, and receives, of a data lane                */
    NET_VERBS_PROBE = 4096
};

typedef struct net_verbs_transport net_verbs_transport;
typedef struct net_verbs_link net_verbs_link;

typedef struct net_verbs_port {
    int device;                     /* index into the transport's                            */
    uint8_t number;
    struct ibv_port_attr attr;
    net_verbs_port_offer offer;
} net_verbs_port;

typedef struct net_verbs_device {
    const net_verbs_api *api;
    struct ibv_context *context;
    struct ibv_pd *pd;
    struct ibv_comp_channel *channel;
    struct ibv_device_attr attr;
    char name[64];
    int is_rxe;                     /* software: retry count 7 means for ever                */
    int lost;                       /* its driver reported a fatal error                     */
} net_verbs_device;

/* ---- memory --------------------------------------------------------------------------------- */

/* Registered with every device of the transport. */
typedef struct net_verbs_region {
    unsigned char *data;
    size_t size;
    struct ibv_mr *mr[NET_VERBS_DEVICES];
} net_verbs_region;

typedef struct net_verbs_block {    /* a piece of staging, from the pool                     */
    net_verbs_region region;
    int order;                      /* its size is 1 << order                                */
    struct net_verbs_block *next;
} net_verbs_block;

/* Memory that the devices can reach on behalf of a caller's pointer. */
typedef struct net_verbs_lease {
    unsigned char *data;            /* the caller's own, or staging                          */
    net_verbs_region *region;
    net_verbs_block *block;         /* staging to give back                                  */
    net_verbs_region *own;          /* registered for this one transfer                      */
} net_verbs_lease;

gt_status net_verbs_region_make(net_verbs_transport *t, void *data, size_t size, unsigned access,
                                net_verbs_region *out);
void net_verbs_region_drop(net_verbs_transport *t, net_verbs_region *r);
/* `remote`: the peer writes there, so a reader must be told apart from a writer. `staged`: the
 * bytes must land elsewhere first. */
gt_status net_verbs_lease_take(net_verbs_transport *t, const void *data, size_t size, int remote, int staged,
                               net_verbs_lease *out);
void net_verbs_lease_return(net_verbs_transport *t, net_verbs_lease *lease);
void net_verbs_pool_release(net_verbs_transport *t);
/* Hooks for arenas; context is the transport. */
gt_status net_verbs_arena_add(void *context, net_memory *m, void **slot);
void net_verbs_arena_drop(void *context, net_memory *m, void *slot);
/* GT_UNSUPPORTED, with the limit, the need and the fix, if `need` bytes cannot be locked. */
gt_status net_verbs_memlock_check(uint64_t need);
/* The limit in bytes, UINT64_MAX if there is none (or this process need not mind it). */
uint64_t net_verbs_memlock_limit(void);

/* ---- queue pairs ---------------------------------------------------------------------------- */

typedef struct net_verbs_put net_verbs_put;

/* A lane's part of a put. */
typedef struct net_verbs_share {
    net_verbs_put *put;
    uint64_t next, end;             /* bytes of the put still to be posted                   */
    int lane;
    int posted;                     /* its signal has been posted: nothing is left to do     */
    uint64_t size, since;           /* for the measured speed                                */
    struct net_verbs_share *after;  /* in the lane's queue                                   */
} net_verbs_share;

struct net_verbs_put {
    net_verbs_link *link;
    const unsigned char *data;
    void *cookie;
    net_verbs_lease lease;
    net_verbs_window window;
    int lanes, left;                /* lanes used; of them not completed yet                 */
    net_verbs_share share[NET_VERBS_LANES];
    net_verbs_put *next;            /* free list, or done and to be told                     */
    net_verbs_put *made;            /* all of the link's, to free them                       */
};

/* What a work request was, until its completion. */
typedef struct net_verbs_sent {
    net_verbs_share *ends;          /* the share whose last one this is                      */
    uint32_t bytes;
    uint8_t opcode;                 /* enum ibv_wr_opcode                                    */
} net_verbs_sent;

typedef struct net_verbs_lane {
    net_verbs_link *link;
    int index, rail, raised;
    struct ibv_qp *qp;
    uint32_t psn, peer_qpn, peer_psn;
    /* sending: requests `done` .. `posted` are under way; both count for ever */
    uint32_t posted, done, depth, unsignalled;
    uint32_t inline_limit;
    uint64_t untold;                /* bytes of puts that end in unsignalled requests        */
    int ends;                       /* one of the unsignalled requests ends a put            */
    /* requests that are made and not given to the device yet: see net_verbs_ring */
    struct ibv_send_wr chain[NET_VERBS_CHAIN];
    struct ibv_sge piece[NET_VERBS_CHAIN];
    int chained;
    net_verbs_sent *sent;           /* [depth], request n at n % depth                       */
    net_verbs_share *first, *last;  /* data lanes: what waits to be posted                   */
    uint16_t used, returned, credits;   /* receives of the peer: used up, told back, in all  */
    /* receiving */
    uint32_t receives;
    uint16_t reposted, told;
} net_verbs_lane;

typedef struct net_verbs_rail {
    int open, proven;
    int broken;                     /* one of its requests has failed                        */
    int port;                       /* index into the transport's                            */
    net_verbs_rail_choice choice;
    int attempt;                    /* which of choice.tried                                 */
    int peer_port;                  /* index into the peer's offer                           */
    struct ibv_cq *cq;
    int armed;
    struct ibv_wc kept;             /* a completion that arm() came upon                     */
    int has_kept;
    net_verbs_region probe;
    uint32_t probe_rkey;            /* the peer's                                            */
    uint64_t probe_address;
    double speed;                   /* bytes/ns as measured, or in proportion to the claimed */
} net_verbs_rail;

/* One request to post. */
typedef struct net_verbs_work {
    enum ibv_wr_opcode opcode;
    const void *data;
    uint32_t size, lkey, rkey, immediate;
    uint64_t remote;
    int signal;
    net_verbs_share *ends;
} net_verbs_work;

/* Asks to be told the end of all that was posted so far, if nothing yet will. */
void net_verbs_lane_flush(net_verbs_lane *lane);
uint32_t net_verbs_lane_room(const net_verbs_lane *lane);
/* Makes one; the caller has seen that there is room. It goes to the device with the next ring, or
 * by itself when the chain is full. `data` must stay until then. An error is the link's failure. */
gt_status net_verbs_post(net_verbs_lane *lane, const net_verbs_work *work);
/* Gives the device all that was made, by one call; where a put ends with them, the last is signalled. */
gt_status net_verbs_ring(net_verbs_lane *lane);
/* The completion of request `number`, which ends all before it; returns how many those are. */
void net_verbs_lane_finish(net_verbs_lane *lane, uint32_t number);
/* Makes receive `slot` ready (again). */
gt_status net_verbs_receive(net_verbs_lane *lane, uint32_t slot);
/* Makes queue pairs of one rail with receives posted, in state INIT. */
gt_status net_verbs_rail_create(net_verbs_link *link, int rail);
/* To ready-to-send, towards what the peer has said. */
gt_status net_verbs_rail_raise(net_verbs_link *link, int rail);
int net_verbs_rail_is_raised(const net_verbs_link *link, int rail);
void net_verbs_rail_destroy(net_verbs_link *link, int rail);
static inline int net_verbs_rail_first_lane(int rail, int pairs)
{
    return rail ? 1 + rail * pairs : 0;
}
static inline int net_verbs_rail_last_lane(int rail, int pairs)
{
    return (rail + 1) * pairs;
}

/* ---- links ---------------------------------------------------------------------------------- */

/* A small message that waits for credits or room. */
typedef struct net_verbs_waiting {
    struct net_verbs_waiting *next;
    uint8_t head;
    uint32_t body;
    unsigned char bytes[];
} net_verbs_waiting;

/* An open window, or one whose bytes still have to be added up. */
typedef struct net_verbs_open {
    uint16_t sequence;              /* 12 bits; the next user's differs                      */
    uint8_t open, expected;         /* lanes that will signal; 0: none has yet               */
    uint64_t lanes;                 /* that have signalled, a bit each                       */
    uint32_t window;                /* the caller's number                                   */
    net_sink sink;
    net_verbs_lease lease;
    size_t landed;                  /* bytes already taken out of staging                    */
    int next;                       /* free list, or landing queue; -1: none                 */
} net_verbs_open;

struct net_verbs_link {
    net_link base;
    net_verbs_transport *t;
    net_verbs_link *next;
    int leads, pairs, rails, lanes, immediate;
    net_verbs_phase phase;          /* what the peer says next                               */
    int up, failed, told;
    int flushed;                    /* failed, but its cause may still come                  */
    int busy, gone;                 /* inside progress; to be freed after it                 */
    char why[1024];
    gt_status status;
    net_verbs_ports theirs;
    net_verbs_rail rail[NET_VERBS_RAILS];
    net_verbs_lane lane[NET_VERBS_LANES];
    /* message buffers: send slots, receive slots, notices of data lanes */
    net_verbs_region buffers;
    size_t slot;                    /* bytes of one                                          */
    uint32_t send_slots, receive_slots;
    net_verbs_waiting *first, *last;
    uint32_t filled;                /* bytes of messages in the next request's slot, that go together */
    net_verbs_head opening;         /* of the first of them                                  */
    /* windows */
    net_verbs_open *slots;
    int slot_room, free_slot, landing_first, landing_last;
    net_verbs_put *puts, *free_puts, *done_first, *done_last;
    int turn;                       /* the data lane of the next small put                   */
};

/* The buffers of a link, in this order: send slots, receive slots, then for each data lane the
 * heads of notices that come and of those that go. */
static inline unsigned char *net_verbs_notice(const net_verbs_lane *lane, uint32_t slot, int going)
{
    const net_verbs_link *link = lane->link;
    return link->buffers.data + (link->send_slots + link->receive_slots) * link->slot
           + (size_t)NET_VERBS_HEAD * ((size_t)(2 * (lane->index - 1) + going) * NET_VERBS_DATA_DEPTH + slot);
}

void net_verbs_link_fail(net_verbs_link *link, gt_status status, const char *sentence);
/* Fails the link with the sentence of gt_message(). */
void net_verbs_link_fail_here(net_verbs_link *link, gt_status status);
gt_status net_verbs_link_check(const net_verbs_link *link);

gt_status net_verbs_offer(net_transport *t, int peer, int leads, void *up, net_link **link, unsigned char *offer,
                          size_t *size);
gt_status net_verbs_connect(net_link *link, const unsigned char *theirs, size_t theirs_size, unsigned char *offer,
                            size_t *size, int *again, int *stream);
void net_verbs_disconnect(net_link *link);
void net_verbs_link_free(net_verbs_link *link);
void net_verbs_ports_mine(const net_verbs_transport *t, net_verbs_ports *out);
/* How many message slots, of which size; and the bytes that a link pins for its buffers. */
void net_verbs_size_slots(net_verbs_link *link, const net_config *config);
uint64_t net_verbs_link_bytes(const net_config *config);
void net_verbs_describe(net_link *link, char *out, size_t size);

/* ---- messages and puts ---------------------------------------------------------------------- */

gt_status net_verbs_send(net_link *link, const void *head, size_t head_size, const void *body, size_t body_size);
/* Lets messages go that were kept together. */
void net_verbs_message_flush(net_link *link);
/* A receive of the peer is there for one more; `reserve` of them are for others. */
int net_verbs_lane_has_credit(const net_verbs_lane *lane, int reserve);
void net_verbs_message_pump(net_verbs_link *link);
void net_verbs_message_arrived(net_verbs_link *link, uint32_t slot, uint32_t bytes, int *did);
void net_verbs_message_clear(net_verbs_link *link);

gt_status net_verbs_expose(net_link *link, uint32_t window, net_sink sink, unsigned char *descriptor, size_t *size);
gt_status net_verbs_put_start(net_link *link, const void *data, size_t size, uint32_t window,
                              const unsigned char *descriptor, size_t descriptor_size, void *cookie);
void net_verbs_put_pump(net_verbs_link *link);
void net_verbs_put_finish(net_verbs_share *share);
void net_verbs_put_tell(net_verbs_link *link, int *did);
void net_verbs_signal_arrived(net_verbs_link *link, int lane, uint32_t word, int *did);
void net_verbs_land(net_verbs_link *link, int *did);
void net_verbs_put_clear(net_verbs_link *link);

/* ---- completions ---------------------------------------------------------------------------- */

void net_verbs_progress(net_transport *t, int *did);
int net_verbs_arm(net_transport *t);
void net_verbs_disarm(net_transport *t);
/* Reads completions of one rail without telling anybody, for probes and closing links. 1: nothing
 * that will be told the end of is under way any more. */
int net_verbs_drain_rail(net_verbs_link *link, int rail);
void net_verbs_async(net_verbs_transport *t);

/* ---- errors --------------------------------------------------------------------------------- */

/* The sentence of a failed completion. */
void net_verbs_explain(const net_verbs_lane *lane, const struct ibv_wc *wc, const net_verbs_sent *what, char *out,
                       size_t size);
/* What to do about a completion status; never NULL. */
const char *net_verbs_hint(enum ibv_wc_status status);
/* Seconds until a silent peer is noticed. */
double net_verbs_patience(const net_verbs_transport *t, const net_verbs_device *device);
int net_verbs_retries(const net_verbs_transport *t, const net_verbs_device *device);

/* ---- the transport -------------------------------------------------------------------------- */

typedef enum net_verbs_count {
    NET_VERBS_WIRE_BYTES,
    NET_VERBS_POSTS,
    NET_VERBS_MESSAGES,
    NET_VERBS_MESSAGE_SENDS,
    NET_VERBS_CREDIT_MESSAGES,
    NET_VERBS_WRITES,
    NET_VERBS_INLINED,
    NET_VERBS_SIGNALLED,
    NET_VERBS_CREDIT_STALLS,
    NET_VERBS_QUEUE_STALLS,
    NET_VERBS_STAGED_BYTES,
    NET_VERBS_REGISTRATIONS,
    NET_VERBS_COUNTS
} net_verbs_count;

typedef struct net_verbs_hardware { /* a counter of sysfs                                    */
    char name[160], path[320];
    uint64_t before;
} net_verbs_hardware;

struct net_verbs_transport {
    net_transport base;
    const net_verbs_api *api;
    net_verbs_device device[NET_VERBS_DEVICES];
    net_verbs_port port[NET_VERBS_PORTS];
    int devices, ports;
    net_verbs_link *links;
    net_verbs_block *pool[64];      /* free staging by order                                 */
    uint64_t pooled;                /* bytes in it                                           */
    int hooked;
    uint64_t drain_ns;              /* ns that closing links have waited so far              */
    unsigned turns;                 /* of progress, to look for async events now and then    */
    uint64_t count[NET_VERBS_COUNTS];
    net_verbs_hardware *hardware;
    int hardware_count;
};

/* Bytes that `devices` devices pin for a job of `ranks`, besides arenas. */
uint64_t net_verbs_need(const net_config *config, int devices, int ranks);
/* Opens what config->hca names and this machine has. GT_UNSUPPORTED says why there is none. */
gt_status net_verbs_devices_open(net_verbs_transport *t);
void net_verbs_devices_close(net_verbs_transport *t);
/* The port's GIDs that work, best first, into the offer; returns how many. */
int net_verbs_port_gids(net_verbs_device *d, net_verbs_port *port, int only);
uint32_t net_verbs_port_speed(const struct ibv_port_attr *attr);
/* A file of sysfs, one line, into out; 0 if there is none. */
int net_verbs_sysfs(char *out, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
