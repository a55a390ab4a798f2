/* SPDX-License-Identifier: MIT */
/* host/sync/traffic.h - what a way of staying together puts on links and hosts, reckoned for plans.
 *
 * n ranks hold S bytes of fp32, each link carries B bytes a second each way and is late by L:
 *
 *   sums                   2 (n-1)/n S / B + 2 (n-1) L                 a ring; Thakur et al. 2005
 *   sharded state          the same: of each bucket every rank owns a part, so sums and new weights are half a ring each
 *   served in shares s_i   2 max_i max(1 - s_i, (n-1) s_i) S / B + 2 L         direct; with s_0 = 1 a server's link
 *                                                                      carries all; Jiang et al., OSDI 2020
 *   encodings of E bytes   (n-1) E gathered, 2 (n-1)/n E summed; where state is shared out, then (n-1)/n S of weights
 *   as they come (async)   a push (1 - s_i) S out and (n-1) s_i S in, a pull the same the other way round: each
 *                          of --push-every and --pull-every steps, beside no computation of the rank itself
 *   apart                  a ring of S, or (n-1) E, once in H steps; in P pieces, of which each travels beside T steps
 *
 * Latencies of sums count for each bucket, which follow one another. The simplest formulas that hold: links alike,
 * nobody else on them. Units: bytes and seconds of a step, on average. */
#ifndef GT_SYNC_TRAFFIC_H
#define GT_SYNC_TRAFFIC_H

#include "host/optim/optim.h"
#include "host/sync/sync.h"

/* Parameters, by how their gradients travel. */
typedef struct sync_volume {
    double plain;               /* values that travel as they are                           */
    double values, bytes;       /* that are encoded; what one rank's encoding of them takes */
    double code;                /* bytes of one rank's encoding of them when it is longest  */
    double kept;                /* bytes of a device for what is held back, and to work with */
} sync_volume;

/* Adds a tensor; `c` with its last level, if it ramps up. */
void sync_volume_add(sync_volume *v, const compress_spec *c, const graph_param_info *info);
/* Adds so many of another. */
void sync_volume_sum(sync_volume *v, const sync_volume *other, double times);

/* Of one exchange of what n ranks hold. */
typedef struct sync_load {
    double busiest;             /* bytes that the busiest of them sends, or receives if that is more */
    double sends;               /* bytes that one of them sends, on average                 */
    double trips;               /* latencies, of one bucket after the other                 */
    double buckets;             /* of which some are under way at once where ranks are far apart; 0: 1 */
    double decodes;             /* encodings of each value that a rank decodes              */
} sync_load;

/* Seconds of latencies. */
double sync_load_trips(const sync_load *l, double latency);

/* How exchanges lie among steps. */
typedef struct sync_pace {
    double every;               /* steps from one to the next                               */
    double pieces;              /* it goes in so many, evenly                               */
    double beside;              /* steps beside which a piece travels; 0: ranks wait for it */
} sync_pace;

/* settings NULL: the usual ones. One holder sends nothing. */
sync_load sync_mode_load(const sync_mode *m, const sync_settings *settings, const compress_spec *c,
                         const sync_volume *v, int holders);
/* c: as in sync_mode_load(); where its rounds of steps apart grow, the longest count. */
sync_pace sync_mode_pace(const sync_mode *m, const sync_settings *settings, const compress_spec *c);
/* Seconds of a step, on average, that ranks wait for exchanges of `wire` seconds and `trip` for the latencies of one
 * piece, if a step computes for `step` seconds. */
double sync_pace_waits(const sync_pace *p, double wire, double trip, double step);

/* Bytes that a rank keeps in host memory of each parameter it holds, beside what the device has. slots: bytes of the
 * optimizer's state of a parameter. staged: 1 if the network cannot reach the device's memory. */
double sync_mode_host_bytes(const sync_mode *m, const sync_settings *settings, double slots, int holders, int staged);
/* Bytes that compression takes of the device of each of so many holders: encodings, of all of them where they are
 * gathered, what is held back, and where steps apart set out from. Each tensor's is rounded up to where a view may
 * begin, which is not in it. */
double sync_mode_coding_bytes(const sync_mode *m, const compress_spec *c, const sync_volume *v, int holders);
/* Seconds that one exchange takes of a rank's processor for each parameter it holds, measured here and now on about
 * a million of them. */
gt_status sync_mode_host_seconds(const sync_mode *m, const sync_settings *settings, const optim_config *c, int holders,
                                 double *seconds);

/* What makes losses others than those of one device: "asynchronous", "local"; NULL: nothing does. */
const char *sync_mode_changes(const sync_mode *m, const sync_settings *settings);

#endif
