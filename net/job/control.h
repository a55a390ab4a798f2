/* SPDX-License-Identifier: MIT */
/* net/job/control.h - control messages as bytes: what ranks and rank 0 tell each other.
 *
 *    0 type u8, zeros   4 length of the body u32   8 counter u64   16 body   .. MAC, 32 bytes
 *
 * The MAC is over head and body, with the sender's session key; the counter counts a
 * direction's messages from 0, so none can be repeated, dropped or taken from elsewhere.
 *
 *   to rank 0     MEMBER  who I am · CONTRIBUTION  my share of an exchange · ASK  end the job, please
 *   from rank 0   VERDICT (also for streams) · MEMBER_LIST · ALL  an exchange's result
 *                 ABORT   the job is over · LEFT a rank has left · ALL_LEFT  all have left
 *   both          BEAT    a sign of life · LEAVE
 *   launcher and rank of an elastic job   WORD (elastic_words.h)
 *
 * Pure functions. Parsers take any bytes: GT_FORMAT, never a read outside.               */
#ifndef NET_JOB_CONTROL_H
#define NET_JOB_CONTROL_H

#include "net/job/hello.h"
#include "net/job/job.h"

typedef enum net_type {
    NET_VERDICT = 1,
    NET_MEMBER,
    NET_MEMBER_LIST,
    NET_CONTRIBUTION,
    NET_ALL,
    NET_BEAT,
    NET_ASK,
    NET_ABORT,
    NET_LEAVE,
    NET_LEFT,
    NET_ALL_LEFT,
    NET_WORD,
    NET_TYPES
} net_type;

enum {
    NET_HEAD = 16,                      /* bytes before a message's body                    */
    NET_SENTENCE = 1024,                /* of an abort, its zero included                   */
    NET_WHAT = 64,                      /* name of an exchange, likewise                    */
    NET_BLOB = 1 << 20,                 /* one rank's share of an exchange                  */
    NET_SHARED = 2048,                  /* text of the settings that must agree             */
    NET_MEMBER_BYTES = 4 * 5 + 8 + 2 + 64 + 64 + 32,
    NET_BEAT_BYTES = 8 * 3 + 4 + 116,
    NET_WORD_BYTES = 256
};

typedef struct net_head {
    net_type type;
    uint32_t length;
    uint64_t counter;
} net_head;

void net_head_format(unsigned char out[NET_HEAD], const net_head *h);
/* `size` is the job's: it bounds a body's length by its type. */
gt_status net_head_parse(net_head *out, const unsigned char bytes[NET_HEAD], int size);
/* The longest body of a type in a job of `size` ranks. */
uint64_t net_body_limit(net_type type, int size);

/* An abort or a verdict: code i32, culprit i32, sentence. */
typedef struct net_notice {
    gt_status code;
    int culprit;
    char sentence[NET_SENTENCE];
} net_notice;
size_t net_notice_format(unsigned char out[8 + NET_SENTENCE], const net_notice *n);
gt_status net_notice_parse(net_notice *out, const unsigned char *body, size_t length, int size);

/* A member, as MEMBER (with the shared settings behind it) and in the MEMBER_LIST. */
void net_member_format(unsigned char out[NET_MEMBER_BYTES], const net_member *m);
gt_status net_member_parse(net_member *out, const unsigned char bytes[NET_MEMBER_BYTES], int size);

/* A sign of life; `since` travels as an age, for clocks differ. age 0: idle. */
typedef struct net_beat {
    net_activity activity;
    uint64_t age;
} net_beat;
void net_beat_format(unsigned char out[NET_BEAT_BYTES], const net_beat *b);
gt_status net_beat_parse(net_beat *out, const unsigned char *body, size_t length, int size);

/* CONTRIBUTION: sequence u64, what[NET_WHAT], then the blob. ALL: sequence u64, what, then for each
 * rank length u32 and blob. */
enum { NET_CONTRIBUTION_HEAD = 8 + NET_WHAT };
void net_contribution_format(unsigned char out[NET_CONTRIBUTION_HEAD], uint64_t sequence, const char *what);
gt_status net_contribution_parse(uint64_t *sequence, char what[NET_WHAT], const unsigned char *body, size_t length);
/* Visits the blobs of an ALL; at[i] and length[i] are filled for `size` ranks. */
gt_status net_all_parse(const unsigned char **at, size_t *length, const unsigned char *body, size_t body_length,
                        int size);

#endif
