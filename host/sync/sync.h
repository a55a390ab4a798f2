/* SPDX-License-Identifier: MIT */
/* host/sync/sync.h - how ranks that hold the same parameters stay together: one mode of several.
 *
 *   stage, as its schedule says             this room                         a mode may
 *   PIPE_REDUCE of a chunk, and before  ──► sync_ready()                      send what is complete
 *   PIPE_UPDATE                         ──► sync_update()                     wait, add up, update
 *
 * A mode (mode.h) is one file and one row of the table; which one runs is a name in the plan. The
 * trainer knows none of them: it hands over the optimizer, and asks which part of it is this rank's.
 * With one rank the mode is `alone`, which sends nothing. What travels may be compressed
 * (host/compress): that is a choice of its own, which the modes of sums share.
 *
 * Errors     GT_PEER, and the same on all ranks, when one of them is lost.
 * Threads    calls come from the thread that trains.                                       */
#ifndef GT_SYNC_SYNC_H
#define GT_SYNC_SYNC_H

#include "host/base/text.h"
#include "host/device/completion.h"
#include "host/graph/touched.h"
#include "host/optim/optim.h"
#include "host/compress/compress.h"
#include "host/sync/holders.h"
#include "host/sync/settings.h"
#include "host/tensor/checkpoint_state.h"

/* ---- modes and compressors, by name ---------------------------------------------------------- */

/* Those that can be chosen: the usual one first; NULL behind the last. */
const sync_mode *sync_mode_at(int i);
const sync_mode *sync_mode_find(const char *name);          /* NULL: there is none          */
const char *sync_mode_name(const sync_mode *m);
const char *sync_mode_help(const sync_mode *m);        /* half a sentence              */
/* 1: each rank keeps the optimizer's state of a part of what it holds, and updates that. */
int sync_mode_shares_state(const sync_mode *m);
/* The largest share of the optimizer's state, and of its work, that one of so many holders of a parameter has. settings
 * NULL: the usual ones. For planning. */
double sync_mode_state_share(const sync_mode *m, const sync_settings *settings, int holders);
/* 1: that rank updates what others train and computes nothing itself. settings NULL: the usual ones. */
int sync_mode_serves_only(const sync_mode *m, const sync_settings *settings, int rank);
/* 1: replicas make updates of their own, so the optimizer's state is not the same on all. */
int sync_mode_trains_apart(const sync_mode *m);
/* 1: between steps every rank has, of what it holds, all parameters and all of the optimizer's state, and the
 * same bits as others that hold it. */
int sync_mode_holds_all(const sync_mode *m);
/* 1: replicas have equal parts of a step's batch, however fast they are. settings NULL: the usual ones. For
 * planning. */
int sync_mode_shares_equally(const sync_mode *m, const sync_settings *settings);
/* Of one rank. */
const sync_mode *sync_mode_alone(void);
/* 1: what it sends may be compressed (host/compress). */
int sync_mode_compresses(const sync_mode *m);

/* "allreduce|sharded": for options and sentences. `out` has room for SYNC_NAMES. */
enum { SYNC_NAMES = COMPRESS_NAMES };
void sync_mode_names(char *out);

/* GT_UNSUPPORTED, with a sentence that names the options, if the mode does not go with this optimizer, storage or
 * form (NULL: none). sync_create() asks as well. */
gt_status sync_mode_allows(const sync_mode *m, const sync_settings *settings, const optim_config *c, dtype storage,
                           const compress_spec *form);
/* What runs as mode m with this form between so many replicas: m itself, but where the form has them make steps
 * apart. */
const sync_mode *sync_mode_with(const sync_mode *m, const compress_spec *c, int replicas);
/* All ranks, once it is known who holds what, and before sync_mode_parts(). */
gt_status sync_mode_prepare(const sync_mode *m, const sync_settings *settings, sync_holders *h);
/* What this rank updates, and whether it counts it in the norm, for optim_create(); *list is the caller's to free,
 * whatever the result. h NULL: alone. */
gt_status sync_mode_parts(const sync_mode *m, const sync_settings *settings, const sync_holders *h, const params *p,
                          optim_part **list, int *count);

/* ---- a run ----------------------------------------------------------------------------------- */

/* What all ranks add up once a step; the same bits on all, whatever the network's algorithm. */
typedef struct sync_totals {
    double loss, squares; /* of the loss; of the gradient's norm                  */
    double stop; /* > 0: some rank is asked to stop                      */
    double stopped; /* > 0: some rank did not compute all of its part       */
    double busy, seconds; /* of this rank; after: the sum over ranks                 */
    double waits; /* of busy: for the rows of a tensor group's other ranks  */
    double sent; /* bytes of this rank; after: of all                    */
    double copied; /* the same, copied in host memory on the way to devices that compute there */
    /* What pipeline stages sent in fewer bits, activations and gradients: the largest error, of all ranks
     * afterwards, and sums of squares, of errors and of values. */
    double most[2], error[2], size[2];
    double held, spared; /* tensors that were held back (compress_threshold), and bytes not sent for it */
} sync_totals;

typedef struct sync_run sync_run;

typedef struct sync_options {
    const sync_mode *mode;
    const sync_settings *settings; /* of the mode; copied; NULL: its defaults          */
    compress_spec compress;
    const struct sync_choice *choice; /* in its place, of each group (compress_choice.h); NULL: the same for all */
    sync_holders *holders; /* NULL: alone                                      */
    net_comm *comm;
    dev_device *device;
    kernel_set *kernels;
    params *params; /* made with the grouping of `holders`              */
    optim *optim; /* made with the mode's parts                       */
    dev_completion *completion;
    int chunks;
    int replica, replicas; /* this rank's; how many there are                  */
    uint64_t steps; /* the run's last one                               */
    /* 1 if the run has something to do after a step at which ranks must have met, and which is exact there
     * alone; else it is done where they meet next. May be NULL. */
    int (*due)(void *context, uint64_t step);
    /* After how many launches of a chunk's last backward-weight parameter i is complete; -1: it is
     * not the chunk's (exec_gradient_done). */
    int (*done)(void *context, int chunk, int i);
    /* Before which launch of a chunk's forward parameter i is not read; -1: it is not read there. */
    int (*read)(void *context, int chunk, int i);
    /* Once a step, when this rank has its part of the loss and of the norm: adds what else the totals
     * ask of it. sent: bytes of gradients. */
    gt_status (*tell)(void *context, uint64_t sent, sync_totals *mine);
    /* 1: gradients of tables travel whole. Which rows of parameter i's gradient steps touch; NULL: any. And
     * mark[row] = 1 for the rows of a table of so many that the input `source` names anywhere in the step under way, on
     * this rank or another: every rank finds the same. */
    int whole_tables;
    graph_touches (*touched)(void *context, int i, graph_touched *out);
    gt_status (*mark)(void *context, const char *source, unsigned char *mark, int64_t rows);
    void *context;
} sync_options;

/* All ranks. GT_MISMATCH if ranks do not place their parameters alike. The options' objects outlive it. */
gt_status sync_create(sync_run **out, const sync_options *o);
void sync_release(sync_run *s); /* takes NULL */

/* 1: other ranks wait for this one, so that whether to stop is agreed with them, step by step. */
int sync_is_together(const sync_run *s);

/* All ranks, when parameters and the optimizer's state have their first values, before the first step of the run or
 * the one it goes on with; params_refresh() is the caller's. */
gt_status sync_begin(sync_run *s);
/* All ranks, before a checkpoint is written: afterwards params, optim and sync_saved() hold all that it must. */
gt_status sync_keep(sync_run *s);

/* Before the gradients of a step, 1, 2, ...: what its targets weigh, this replica's and all replicas'. Before
 * sync_begin(): the step that is done. */
void sync_step(sync_run *s, uint64_t step, double own_weight, double all_weight);
/* 1: after this step ranks meet: what they did since they met before becomes one record, and it is agreed whether to
 * stop. Between meetings, replicas go on without a word from each other. All ranks say the same. */
int sync_meets(const sync_run *s, uint64_t step);
/* 1: the update of this step is of this replica's gradient alone, whose targets are all that count in it; loss
 * and norm are the replica's. Such a step cannot be given up: no other replica would know. */
int sync_is_apart(const sync_run *s, uint64_t step);

/* 1: a replica has a part of this step's batch. Those that have none neither compute nor update in it, and the batch is
 * that much smaller; in a step that is not apart all have one. All ranks say the same, once the step before is
 * updated. */
int sync_takes_part(const sync_run *s, uint64_t step, int replica);
/* Instead of sync_ready() and sync_update(), on all ranks of a replica that takes no part. *sent: bytes. */
gt_status sync_pass(sync_run *s, uint64_t *sent);

/* Where a chunk's last backward-weight should pause, rising (stage_stops); how many there are. */
enum { SYNC_STOPS = 16 };
int sync_stops(const sync_run *s, int chunk, int stops[SYNC_STOPS]);

/* Parameters that an update brings from other ranks may still be on their way when sync_update() returns. Where a
 * step's first forward of a chunk should pause, rising (stage_wants); how many there are; and, there: what launches
 * below `until` read is queued. */
enum { SYNC_WANTS = 64 };
int sync_wants(const sync_run *s, int chunk, int stops[SYNC_WANTS]);
gt_status sync_wanted(sync_run *s, int chunk, int until);
/* All of them are queued: before anything but the training forward reads parameters. */
gt_status sync_settle(sync_run *s);

/* Launches [0, done) of the chunk are queued, all of them if `last`. */
gt_status sync_ready(sync_run *s, int chunk, int done, int last);

/* After the last sync_ready() of all chunks: queues the update with this learning rate. GT_INTERRUPTED,
 * on all ranks, and nobody updates, if some rank was stopped within the step. */
gt_status sync_update(sync_run *s, double lr);

/* Updates of all ranks together that were queued so far. More than before a sync_update() that failed: the update was
 * queued, and not all weights of others came after it; the rank's own part is whole. */
uint64_t sync_updates(const sync_run *s);
/* Values that ranks share, over all ranks, and those of them that do not travel as they are. */
void sync_compressed(const sync_run *s, double *encoded, double *summed);

/* Of the newest step. */
uint64_t sync_update_began(const sync_run *s); /* gt_now_ns(); 0: not known  */
const sync_totals *sync_totals_of(const sync_run *s); /* the sum over ranks         */
const sync_totals *sync_totals_each(const sync_run *s); /* [rank]; NULL: alone        */
/* When a chunk's sums were under way, gt_now_ns(); 0 if it has none. */
int sync_when(const sync_run *s, int chunk, uint64_t *began, uint64_t *ended);

/* What a checkpoint must hold beside parameters and the optimizer's state: how many owners. */
int sync_saved(sync_run *s, checkpoint_state *states);

/* Appends lines for people: what travels otherwise than one might think, and why. */
void sync_explain(const sync_run *s, gt_text *out);

/* Adds up over the ranks of a group. each: [ranks], what every rank gave; may be NULL. */
gt_status sync_totals_sum(net_group *g, sync_totals *t, sync_totals *each);

#endif
