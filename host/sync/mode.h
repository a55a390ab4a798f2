/* SPDX-License-Identifier: MIT */
/* host/sync/mode.h - what a file of this room fills in to be a way of staying together.
 *
 *   parts()                  which parts of the optimizer are this rank's
 *   create() ── ready() ── ready() ── update() ── ready() ... ── release()
 *
 * A new mode is one file and one row of sync_modes[] (sync.c); options, help, plans and their checks read
 * the table, and the table of settings that each mode brings (settings.h). Modes that add up gradients share
 * buckets.h. */
#ifndef GT_SYNC_MODE_H
#define GT_SYNC_MODE_H

#include "host/sync/traffic.h"

struct sync_run {
    sync_options o;
    sync_settings settings;             /* what o.settings points to                        */
    void *state;                        /* the mode's                                       */
    sync_totals totals, *each;          /* of the newest step                               */
    uint64_t update_ns;                 /* when its update was queued                       */
    uint64_t step;                      /* the one under way: 1, 2, ...                     */
    double own_weight, all_weight;      /* of its targets: this replica's, all replicas'    */
    uint64_t updates;                   /* queued so far                                    */
    double summed, encoded;             /* see sync_compressed()                            */
    uint64_t held, spared;              /* of this rank: see sync_totals                    */
};

struct sync_mode {
    const char *name, *help;
    int shares_state, compresses, trains_apart;
    int holds_all;                      /* see sync_mode_holds_all()                        */
    const sync_setting *settings;       /* its options                                      */
    int setting_count;
    int (*shares_equally)(const sync_settings *s);      /* see sync_mode_shares_equally(); NULL: 0 */
    /* For plans, see traffic.h: what is not as with sums of gradients. All may be NULL. */
    sync_load (*load)(const sync_settings *s, const sync_volume *v, int holders);
    sync_pace (*pace)(const sync_settings *s);
    double (*host_bytes)(const sync_settings *s, double slots, int holders, int staged);
    gt_status (*host_seconds)(const sync_settings *s, const optim_config *c, int holders, double *seconds);
    const char *(*changes)(const sync_settings *s);
    gt_status (*check)(const sync_settings *s, int ranks);     /* ranks 0: not known. NULL: nothing to check */
    /* What makes setting i of no effect, as "--outer average"; NULL: nothing. May be NULL. */
    const char *(*idle)(const sync_settings *s, int i);
    gt_status (*check_replicas)(const sync_settings *s, int replicas);  /* NULL: any number is right */
    gt_status (*check_layers)(const sync_settings *s, int layers);      /* NULL: any number is right */
    /* See sync_mode_state_share(). NULL: equal parts if shares_state, else all. */
    double (*state_share)(const sync_settings *s, int holders);
    int (*serves_only)(const sync_settings *s, int rank);       /* see sync_mode_serves_only(); NULL: none does */
    /* GT_UNSUPPORTED if the mode cannot update so. NULL: it can whatever there is. */
    gt_status (*allows)(const sync_settings *s, const optim_config *c, dtype storage);
    /* Before parts(), all ranks: what follows from who holds what. NULL: nothing to do. */
    gt_status (*prepare)(const sync_settings *settings, sync_holders *h);
    /* Adds to a list, sync_part_add() (blocks.h). */
    gt_status (*parts)(const sync_settings *settings, const sync_holders *h, const params *p, optim_part **list,
                       int *count);
    /* Leave `state`; it is NULL in release() if create() did not come so far. NULL: nothing to do. */
    gt_status (*create)(sync_run *s);
    void (*release)(sync_run *s);
    gt_status (*begin)(sync_run *s);    /* NULL: nothing to do, as all that follow          */
    gt_status (*keep)(sync_run *s);
    int (*stops)(const sync_run *s, int chunk, int stops[SYNC_STOPS]);
    gt_status (*ready)(sync_run *s, int chunk, int done, int last);
    gt_status (*update)(sync_run *s, double lr);
    int (*takes_part)(const sync_run *s, uint64_t step, int replica);   /* NULL: all do     */
    gt_status (*pass)(sync_run *s, uint64_t *sent);     /* NULL: all take part              */
    int (*wants)(const sync_run *s, int chunk, int stops[SYNC_WANTS]);
    gt_status (*wanted)(sync_run *s, int chunk, int until);
    gt_status (*settle)(sync_run *s);
    int (*meets)(const sync_run *s, uint64_t step);     /* NULL: after every step           */
    int (*apart)(const sync_run *s, uint64_t step);     /* NULL: never                      */
    int (*when)(const sync_run *s, int chunk, uint64_t *began, uint64_t *ended);
    int (*saved)(sync_run *s, checkpoint_state *states);
    void (*explain)(const sync_run *s, gt_text *out);
};

/* Seconds of the newest step, on average of the replica's ranks, as each told them (sync_options.tell). */
double sync_replica_seconds(const sync_run *s);

extern const sync_mode sync_alone, sync_allreduce, sync_sharded, sync_ps, sync_async, sync_local;
extern const sync_mode sync_signs_apart; /* has no row of its own: see sync_mode_with() */

/* The end of a step whose gradients are summed: norm and loss of all ranks, and the update queued.
 * sent: bytes of gradients. */
gt_status sync_update_summed(sync_run *s, double lr, uint64_t sent);
/* counts: whether this rank's share of the norm is one that no other rank has as well. */
gt_status sync_update_counted(sync_run *s, double lr, uint64_t sent, int counts);
/* The same of a step apart: norm and loss of this replica. */
gt_status sync_update_apart(sync_run *s, double lr, uint64_t sent);

#endif
