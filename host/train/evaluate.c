/* host/train/evaluate.c - forward only, window by window. Each batch's sum comes back to the
 * host and is added there in double: a split of a billion tokens would outgrow a float.   */
#include "host/train/evaluate.h"

#include <math.h>
#include <stdlib.h>

struct evaluate {
    evaluate_options o;
    graph *graph;
    exec *exec;
    loader loader;
    int vocab;
    int32_t *x, *y;
};

gt_status evaluate_create(evaluate **out, gt_status (*build)(graph *g, const void *config,
                          int train, int recompute), const void *config, dtype storage,
                          const evaluate_options *o)
{
    *out = NULL;
    evaluate *e = calloc(1, sizeof *e);
    if (!e)
        return gt_fail(GT_NO_MEMORY, "cannot evaluate: out of memory");
    e->o = *o;
    gt_status st = loader_open(&e->loader, o->split, "validation", LOADER_SEQUENTIAL, 1, o->seq, 0);
    if (!st)
        st = graph_create(&e->graph, storage, (int)o->batch, (int)o->seq);
    if (!st)
        st = build(e->graph, config, 0, 0);
    if (!st)
        st = exec_create(&e->exec, e->graph, &o->place);
    if (!st) {
        e->vocab = graph_vocabulary(e->graph);
        e->x = malloc((size_t)(o->batch * o->seq) * sizeof *e->x);
        e->y = malloc((size_t)(o->batch * o->seq) * sizeof *e->y);
        if (!e->x || !e->y)
            st = gt_fail(GT_NO_MEMORY, "cannot evaluate: out of memory");
    }
    if (st) {
        evaluate_release(e);
        return st;
    }
    *out = e;
    return GT_OK;
}

gt_status evaluate_ready(evaluate *e)
{
    return exec_ready(e->exec);
}

void evaluate_release(evaluate *e)
{
    if (!e)
        return;
    exec_release(e->exec);
    graph_release(e->graph);
    free(e->x);
    free(e->y);
    free(e);
}

/* Loads, runs and sums one batch. */
static gt_status run_batch(evaluate *e, uint64_t first, double *sum, uint64_t *counted)
{
    dev_device *d = e->o.place.device;
    const size_t n = (size_t)(e->o.batch * e->o.seq), bytes = n * sizeof(int32_t);
    uint64_t filled = 0;
    float part = 0.0f;
    gt_status st = loader_eval(&e->loader, first, e->o.batch, e->x, e->y, &filled);
    for (size_t i = 0; !st && i < n; i++)
        if (e->x[i] >= e->vocab || e->y[i] >= e->vocab)
            st = gt_fail(GT_MISMATCH, "validation data holds a token that is not among the "
                         "model's %d; was it tokenized for another model?", e->vocab);
    if (!st)
        st = dev_write(d, exec_buffer(e->exec, "tokens"), 0, e->x, bytes);
    if (!st)
        st = dev_write(d, exec_buffer(e->exec, "targets"), 0, e->y, bytes);
    if (!st)
        st = exec_run(e->exec, EXEC_FORWARD);
    if (!st)
        st = dev_read(d, exec_buffer(e->exec, "loss_sum"), 0, &part, sizeof part);
    *sum += (double)part;
    *counted += filled * e->o.seq;
    return st;
}

gt_status evaluate_run(evaluate *e, double *loss, uint64_t *tokens)
{
    const uint64_t rows = loader_eval_rows(&e->loader);
    double sum = 0.0;
    uint64_t counted = 0;
    gt_status st = GT_OK;
    *loss = NAN;
    if (!rows)
        return gt_fail(GT_MISMATCH, "cannot evaluate: the validation split has fewer than %llu "
                       "tokens", (unsigned long long)e->o.seq + 1);
    for (uint64_t batch = 0; !st && batch * e->o.batch < rows; batch++) {
        if (e->o.batches && batch == e->o.batches)
            break;
        st = run_batch(e, batch * e->o.batch, &sum, &counted);
    }
    if (!st)
        *loss = sum / (double)counted;
    if (tokens)
        *tokens = counted;
    return st;
}
