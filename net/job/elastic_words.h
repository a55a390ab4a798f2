/* SPDX-License-Identifier: MIT */
/* net/job/elastic_words.h - what a launcher and its ranks say to each other, a datagram a word; see elastic.h. */
#ifndef NET_JOB_ELASTIC_WORDS_H
#define NET_JOB_ELASTIC_WORDS_H

#include <stdint.h>

typedef enum elastic_kind { ELASTIC_READY = 1, ELASTIC_PAUSE, ELASTIC_GO, ELASTIC_END } elastic_kind;

typedef struct elastic_word {
    int32_t kind;
    int32_t rank, size, formation, last;    /* of GO; the listening socket comes with rank 0's */
    uint16_t port;                          /* of rank 0, on this host's loopback              */
    char job[64];
} elastic_word;

/* fd: goes with it, or -1. 0: the other end is gone, or its queue is full. */
int elastic_send(int socket, const elastic_word *word, int fd);
/* 1: a word is here, and *fd what came with it, or -1. 0: none, yet. -1: the other end is gone. */
int elastic_receive(int socket, elastic_word *word, int *fd);

#endif
