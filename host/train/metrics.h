/* SPDX-License-Identifier: MIT */
/* host/train/metrics.h - what a run leaves for people and tools to look at.
 *
 *   RUN/metrics.jsonl            one object a step
 *   RUN/events.out.tfevents.*    the same for TensorBoard
 *   RUN/loss.svg                 training and validation loss, drawn
 *   RUN/samples.jsonl            one object a text that was written on the way, if any was
 *
 * metrics.jsonl is the record: on resuming, lines of steps that will be done again are cut
 * off (of samples.jsonl, too), and the plot is drawn from what remains and what follows. Event files stay as they are;
 * the new one tells TensorBoard which steps of the others it takes the place of.         */
#ifndef GT_TRAIN_METRICS_H
#define GT_TRAIN_METRICS_H

#include "host/base/status.h"
#include "host/train/evaluate.h"

#include <stdint.h>

typedef struct metrics metrics;

/* A step's figures. step counts updates done: 1, 2, ...; val.loss NaN if not evaluated. */
typedef struct metrics_row {
    uint64_t step, tokens;              /* tokens trained on so far, as data_total counts them */
    double loss;                        /* NaN: no target of the step counted */
    double lr, grad_norm, tokens_per_s, step_ms, bubble, loss_scale;
    evaluate_result val;
    /* The model's FLOPs (6 a parameter and token, and attention's) in the step's time, as a share of the
     * peak of all ranks' devices for the storage type (gemm_peak_of), and of the best product of matrices
     * that was measured on them; NaN where that is not known. */
    double mfu, gemm_share;
    /* What rounding between pipeline stages did to activations and gradients: the root of the mean square of the errors
     * against that of the values; the largest error, as wire_kind_against() says. Zeros: nothing was rounded. */
    double rounding[2], rounding_most[2];
    /* Bytes of activations, their gradients and rows of tensor ranks that were copied in host memory on their way between
     * ranks whose devices compute there; NaN: there is one rank. */
    double copied;
    const char *skipped; /* why nothing moved; NULL: it did */
} metrics_row;

/* The last step that the record of a run has; 0 if there is none. Changes nothing. */
gt_status metrics_last(uint64_t *step, const char *run);
/* Goes on after `done` steps; 0 starts anew. */
gt_status metrics_open(metrics **out, const char *run, uint64_t done);
/* What the picture is called: by the run's folder and, unless NULL, the model's name. */
void metrics_title(metrics *m, const char *model);
gt_status metrics_put(metrics *m, const metrics_row *row);
/* A text that the model wrote behind a prompt after a step. */
gt_status metrics_sample(metrics *m, uint64_t step, const char *prompt, const char *text, size_t size);
/* Draws loss.svg and flushes; also done by close. */
gt_status metrics_draw(metrics *m);
gt_status metrics_close(metrics *m); /* takes NULL */

/* One JSON object without a line end, as in metrics.jsonl, into out (size >= 1024). */
char *metrics_json(char *out, size_t size, const metrics_row *row);

#endif
