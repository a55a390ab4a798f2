/* SPDX-License-Identifier: MIT */
/* net/job/elastic_words.h - what a launcher and its ranks say to each other; see elastic.h.
 *
 * On one host a word is a datagram of a pair of sockets; to another host it is a control message (door.h), in the
 * byte order that both have. */
#ifndef NET_JOB_ELASTIC_WORDS_H
#define NET_JOB_ELASTIC_WORDS_H

#include "net/job/wire.h"

#include <stdint.h>

typedef enum elastic_kind { ELASTIC_READY = 1, ELASTIC_PAUSE, ELASTIC_GO, ELASTIC_END, ELASTIC_FULL } elastic_kind;

typedef struct elastic_word {
    int32_t kind;
    int32_t rank, size, formation, last; /* of GO; the listening socket comes with rank 0's on the launcher's host */
    int32_t local; /* of GO: 1: all ranks are on one host               */
    uint16_t port; /* of GO: rank 0's; of READY: the speaker's, if it listens */
    char host[66]; /* of GO: where rank 0 is                            */
    char job[64];
} elastic_word;

/* One end: fd -1: none. */
typedef struct elastic_line {
    int fd;
    net_wire *wire; /* NULL: fd is of a pair of sockets                  */
} elastic_line;

void elastic_hang_up(elastic_line *l);
/* fd: goes with it, or -1. 0: the other end is gone, or its queue is full. */
int elastic_send(elastic_line *l, const elastic_word *word, int fd);
/* 1: a word is here, and *fd what came with it, or -1. 0: none, yet. -1: the other end is gone. */
int elastic_receive(elastic_line *l, elastic_word *word, int *fd);

#endif
