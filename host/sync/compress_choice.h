/* SPDX-License-Identifier: MIT */
/* host/sync/compress_choice.h - which compressor each link has, from what was measured: --compress auto.
 *
 *   group of ranks that add up the same parameters  =  a link, with one compressor
 *   candidates   none, bf16, int8; or none and those that are named: auto:int8,topk:0.01
 *   expected     seconds of a step: the network moves what each candidate makes of the values, on the group's
 *                measured links (net/collective/cost.h), and the slowest of its devices encodes and decodes
 *                (host/compress/rate.h); as if nothing else went on meanwhile
 *   chosen       as link_choice.h says                                                               */
#ifndef GT_SYNC_COMPRESS_CHOICE_H
#define GT_SYNC_COMPRESS_CHOICE_H

#include "host/compress/rate.h"
#include "host/sync/link_choice.h"
#include "host/sync/sync.h"
#include "net/collective/cost.h"

typedef struct sync_candidates {
    int count;                          /* 0: not auto                                         */
    compress_spec of[SYNC_CANDIDATES];  /* the first is none                                   */
    char text[SYNC_CANDIDATES][SYNC_NAMES];
} sync_candidates;
/* 1: "auto", with or without names behind it. */
int sync_compress_is_auto(const char *spec);
/* GT_MISUSE with a sentence that names what is wrong. */
gt_status sync_candidates_parse(sync_candidates *out, const char *spec);

/* Of a group whose links are m, for values that the compressor takes and values that it leaves as they are. shares 1:
 * ranks update parts, and hand the new ones round as well. rate: the slowest rank's. */
sync_expected sync_compress_expect(const net_link_matrix *m, const compress_rate *rate, double taken, double rest,
                                   int shares);
typedef struct sync_choice {
    sync_candidates candidates;
    int links;
    sync_link *link;                    /* [links], alike on all ranks; their ranks are the holders' */
    compress_spec *spec;                /* [links]                                             */
} sync_choice;

typedef struct sync_choice_options {
    const sync_candidates *candidates;
    const sync_mode *mode;
    const sync_holders *holders;
    const params *params;
    dev_device *device;
    net_comm *comm;
    uint64_t after;                     /* steps before any of it                              */
    /* What a run before had: the form of a group of these ranks, NULL: not known. May be NULL. */
    const char *(*known)(void *context, const int *rank, int ranks);
    void *context;
} sync_choice_options;

/* All ranks. Takes what is known if every link's is, else measures. Valid as long as the holders. */
gt_status sync_choice_make(sync_choice **out, const sync_choice_options *o);
void sync_choice_release(sync_choice *c);      /* takes NULL */
/* How a group's gradients travel; as they are if it has no link. */
compress_spec sync_choice_of(const sync_choice *c, int group);

#endif
