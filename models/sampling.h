/* SPDX-License-Identifier: MIT */
/* models/sampling.h - which id comes next, given what the model says of each.
 *
 * The rules are those of transformers' logits processors, in the order in which its generation has them:
 *
 *   repetition   z = z < 0 ? z * r : z / r    of ids that were there before (Keskar et al., "CTRL", 2019)
 *   temperature  z = z / t                    0: the largest, and nothing below
 *   top-k        those not below the k-th largest
 *   top-p        the likeliest, until those before have p together (Holtzman et al., 2020)
 *   min-p        those at least p times as likely as the likeliest (Nguyen et al., 2024)
 *
 * Each works on what the one before it left. Of ids that are equally likely the lower comes first. */
#ifndef GT_MODELS_SAMPLING_H
#define GT_MODELS_SAMPLING_H

#include "host/base/status.h"

#include <stdint.h>

/* A 0 switches a rule off; of the temperature it means the likeliest id always. */
typedef struct sampling_rule {
    double temperature;
    int top_k;
    double top_p, min_p;        /* in (0, 1]; 1 of top_p: off, too */
    double repetition;          /* above 0; 1: off                 */
} sampling_rule;

/* GT_MISUSE for numbers that a rule cannot have; the sentence begins with its name: "top-p: ...". */
gt_status sampling_check(const sampling_rule *r);

typedef struct sampling sampling;               /* scratch, and which ids may be drawn */

gt_status sampling_create(sampling **out, int vocab);
void sampling_release(sampling *s);                /* takes NULL */
/* may[id] is 1 or 0, and is copied; before this all may. GT_MISUSE if none may. */
gt_status sampling_allow(sampling *s, const unsigned char *may);

/* One id. logits: `vocab` of them, finite; seen[id]: 1 if it was there before; unit: in [0, 1). */
uint32_t sampling_pick(sampling *s, const sampling_rule *r, const float *logits, const unsigned char *seen,
                       double unit);
/* What the last pick chose from: ids, and their probabilities; of temperature 0 the one id. */
int sampling_kept(const sampling *s, const int **ids, const double **probabilities);

#endif
