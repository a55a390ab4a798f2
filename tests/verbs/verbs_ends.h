/* SPDX-License-Identifier: MIT */
/* tests/verbs/verbs_ends.h - two ends of a verbs link without the rest of the network.
 *
 *   end a, b;
 *   end_open(&a, 0, &config); end_open(&b, 1, &config); ends_link(&a, &b);
 *   end_window(&b, 1, 4096, END_ARENA);     b opens a window, a fills it when it hears of it
 *   ends_run(&a, &b);                        until all windows are filled and all puts done
 *
 * Every byte that arrives is compared with what the other end must have sent. A job is played
 * by verbs_ends.c: it knows two ranks and their names, which is all that the transport asks. */
#ifndef TESTS_VERBS_ENDS_H
#define TESTS_VERBS_ENDS_H

#include "net/transport/transport.h"

enum { END_WINDOWS = 256, END_ARENA_BYTES = 24 << 20 };

typedef enum end_kind {
    END_ARENA,          /* both sides in arenas: no copy           */
    END_PLAIN,          /* both sides in memory of malloc           */
    END_REDUCE,         /* floats, added to what is there           */
    END_KINDS,
    END_SPEED           /* the same bytes of the arenas each time, looked at by nobody */
} end_kind;

typedef struct end_window {
    int open;
    end_kind kind;
    size_t size;
    unsigned char *sink;        /* what it was filled into                             */
    unsigned char *source;      /* what the other end's window was filled from, by us  */
} end_window_state;

typedef struct end {
    int rank;
    net_job *job;
    net_config config;
    net_memory_set *memory;
    net_memory *arena;
    size_t used;                /* bytes of the arena given out                        */
    const net_transport_ops *ops;
    net_transport *t;
    net_link *link;
    int epoll;
    uint32_t next_window;
    end_window_state window[END_WINDOWS];
    uint64_t opened, placed, asked, done, messages, wrong, late_wakes;
    uint64_t expected_messages;
    gt_status failed;
    char why[1200];
} end;

/* Settings as people have them, changed by "name=value" words: ib_mtu, inline, max_message,
 * immediate, chunk, eager, queue_pairs, timeout, retry, adaptive, hca, gid_index. 0: no such. */
net_config end_config(void);
int end_config_set(net_config *c, const char *word);

gt_status end_open(end *e, int rank, const net_config *config);
void end_close(end *e);
/* All rounds between two ends of one process; b follows. */
gt_status ends_link(end *a, end *b);
/* The same against another process over a connected socket. */
gt_status end_link_over(end *e, int socket);

gt_status end_window(end *e, size_t size, end_kind kind);
/* A message of this many bytes with a pattern, which the other end checks. */
gt_status end_say(end *e, size_t body);
/* Goes on until nothing is outstanding; NULL for b if it is another process. Sleeps whenever the
 * transport says it may. GT_TIMEOUT after `seconds` without an event. */
gt_status ends_run(end *a, end *b, int seconds);
void end_forget(end *e);        /* frees the buffers of all windows, if none is under way */

#endif
