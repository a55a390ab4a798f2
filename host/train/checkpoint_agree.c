/* SPDX-License-Identifier: MIT */
/* host/train/checkpoint_agree.c - how all ranks learn how all ranks fared.
 *
 *   a share   status, as 4 bytes | of a rank that failed: its sentence
 *                                | of one that did not: its data
 *
 * A rank that fails still comes here: if it went away instead, the others would know of a lost
 * peer but not of the full disk.                                                        */
#include "host/train/checkpoint_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HEAD = 4, SENTENCE = 2000 };

static gt_status only_mine(const void *data, size_t size, net_blobs *all)
{
    all->data = calloc(1, sizeof *all->data);
    all->size = calloc(1, sizeof *all->size);
    all->count = all->data && all->size;
    if (all->count)
        all->data[0] = malloc(size + 1);
    if (!all->count || !all->data[0]) {
        net_blobs_release(all);
        return gt_fail(GT_NO_MEMORY, "no memory for %zu bytes of a checkpoint", size);
    }
    if (size)
        memcpy(all->data[0], data, size);
    all->size[0] = size;
    return GT_OK;
}

/* The first failure, or the shares without their heads. */
static gt_status judge(net_comm *c, net_blobs *all)
{
    char name[128];
    for (int i = 0; i < all->count; i++) {
        int32_t fared = GT_PEER;
        if (all->size[i] >= HEAD)
            memcpy(&fared, all->data[i], HEAD);
        if (fared != GT_OK)
            return gt_fail((gt_status)fared, "%s: %.*s", net_job_name(net_comm_job(c), i, name, sizeof name),
                           all->size[i] > HEAD ? (int)(all->size[i] - HEAD) : 0,
                           (const char *)all->data[i] + (all->size[i] > HEAD ? HEAD : 0));
    }
    for (int i = 0; i < all->count; i++) {
        all->size[i] -= HEAD;
        memmove(all->data[i], all->data[i] + HEAD, all->size[i]);
    }
    return GT_OK;
}

gt_status checkpoint_agree(net_comm *c, const char *what, gt_status fared, const void *data, size_t size,
                           net_blobs *all)
{
    char sentence[SENTENCE];
    *all = (net_blobs){ 0 };
    if (!c || net_comm_size(c) == 1)
        return fared ? fared : only_mine(data, size, all);
    if (fared) {
        snprintf(sentence, sizeof sentence, "%s", gt_message());
        data = sentence;
        size = strlen(sentence);
    }
    const int32_t code = (int32_t)fared;
    unsigned char *share = malloc(HEAD + size);
    if (!share)             /* nothing can be said; the caller's end will tell the others */
        return gt_fail(GT_NO_MEMORY, "cannot tell other ranks of '%s': no memory for %zu bytes", what, size);
    memcpy(share, &code, HEAD);
    if (size)
        memcpy(share + HEAD, data, size);
    gt_status st = net_job_exchange(net_comm_job(c), what, share, HEAD + size, all);
    free(share);
    if (!st)
        st = judge(c, all);
    if (st)
        net_blobs_release(all);
    return st;
}
