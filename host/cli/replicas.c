/* host/cli/replicas.c - devices, shares and gradients of a job's replicas. */
#include "host/cli/replicas.h"

#include "host/base/file.h"
#include "host/parallel/balance.h"
#include "host/parallel/gradients.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

struct replicas {
    net_comm *comm;
    parallel_gradients *gradients;
    int ranks, micro_batches;
    double *seconds;                /* [rank] of one micro-batch, 0: not measured (resumed) */
    int *share;                     /* [rank]                                               */
    char (*device)[32];             /* [rank]                                               */
};

/* ---- devices ----------------------------------------------------------------------------------- */

gt_status replicas_count(const char *devices, uint64_t *ranks)
{
    char **specs;
    int count;
    if (!devices)
        return GT_OK;
    gt_status st = dev_specs(&specs, &count, devices);
    if (st)
        return st;
    dev_specs_free(specs, count);
    if (*ranks > 1 && count > 1 && *ranks != (uint64_t)count)
        return gt_fail(GT_MISUSE, "--devices names %d devices, --ranks asks for %llu ranks", count,
                       (unsigned long long)*ranks);
    if (count > 1)
        *ranks = (uint64_t)count;
    return GT_OK;
}

/* Without a list: the n-th GPU if there are enough, else an n-th of the CPU, or all of it where it
 * has fewer units than ranks. */
static gt_status own_device(char *out, size_t size, int place, int places)
{
    dev_info *all;
    int count, gpus = 0, units = 0;
    gt_status st = dev_find(&all, &count);
    if (st)
        return st;
    for (int i = 0; i < count; i++) {
        gpus += all[i].kind == DEV_GPU;
        if (all[i].kind == DEV_CPU && !units)
            units = all[i].compute_units;
    }
    if (gpus >= places)
        snprintf(out, size, "gpu:%d", place);
    else if (units >= places)
        snprintf(out, size, "cpu:0.%d/%d", place, places);
    else
        snprintf(out, size, units ? "cpu:0" : "gpu:0");
    free(all);
    return GT_OK;
}

gt_status replicas_device(dev_device **out, const char *devices, net_comm *c)
{
    if (!c)
        return dev_open(out, devices);
    const net_member *me = net_job_member(net_comm_job(c), net_comm_rank(c));
    char own[64], **specs = NULL;
    int count = 0;
    gt_status st = devices ? dev_specs(&specs, &count, devices) : GT_OK;
    const char *spec = devices && !st ? specs[me->local_rank % count] : own;
    if (!st && count > 1 && me->local_size > count)
        st = gt_fail(GT_MISUSE, "%d ranks on host %s share --devices '%s'; name as many", me->local_size,
                     me->host, devices);
    if (!st && !devices)
        st = me->local_size > 1 ? own_device(own, sizeof own, me->local_rank, me->local_size) : GT_OK;
    if (!st)
        st = dev_open(out, !devices && me->local_size == 1 ? NULL : spec);
    dev_specs_free(specs, count);
    return st;
}

uint64_t replicas_micro_batch(uint64_t batch, int ranks)
{
    for (uint64_t parts = 2; parts >= 1; parts--)
        for (uint64_t micro = batch; micro >= 1; micro--)
            if (batch % micro == 0 && batch / micro >= parts * (uint64_t)ranks)
                return micro;
    return 1;
}

/* ---- plan.json --------------------------------------------------------------------------------- */

/* Takes the shares of a run that is resumed. 0: there are none that fit. */
static int read_shares(replicas *r, const char *path)
{
    json_t *root = json_load_file(path, 0, NULL);
    const json_t *list = json_object_get(root, "replicas");
    int sum = 0, good = (int)json_array_size(list) == r->ranks
                        && json_integer_value(json_object_get(root, "micro_batches")) == r->micro_batches;
    for (int i = 0; good && i < r->ranks; i++) {
        const json_int_t n = json_integer_value(json_object_get(json_array_get(list, (size_t)i),
                                                                "micro_batches"));
        good = n >= 1 && n <= r->micro_batches;
        r->share[i] = (int)n;
        sum += (int)n;
    }
    json_decref(root);
    return good && sum == r->micro_batches;
}

static gt_status write_shares(const replicas *r, const char *path)
{
    json_t *list = json_array();
    for (int i = 0; i < r->ranks; i++)
        json_array_append_new(list, json_pack("{s:s, s:i, s:f}", "device", r->device[i],
                                              "micro_batches", r->share[i],
                                              "micro_batch_seconds", r->seconds[i]));
    json_t *root = json_pack("{s:s, s:i, s:o}", "sync", "allreduce", "micro_batches", r->micro_batches,
                             "replicas", list);
    char *text = root ? json_dumps(root, JSON_INDENT(1)) : NULL;
    gt_status st = text ? gt_file_write(path, text, strlen(text))
                        : gt_fail(GT_NO_MEMORY, "cannot write '%s': out of memory", path);
    free(text);
    json_decref(root);
    return st;
}

/* ---- joining ----------------------------------------------------------------------------------- */

/* What each rank tells the others. */
typedef struct report { uint64_t done, kept; double seconds; char device[32]; } report;

static gt_status exchange(replicas *r, const report *mine)
{
    net_blobs all;
    gt_status st = net_job_exchange(net_comm_job(r->comm), "speeds of replicas", mine, sizeof *mine,
                                    &all);
    if (st)
        return st;
    for (int i = 0; !st && i < r->ranks; i++) {
        report theirs;
        if (all.size[i] != sizeof theirs) {
            st = gt_fail(GT_PEER, "rank %d says nothing of its speed", i);
            break;
        }
        memcpy(&theirs, all.data[i], sizeof theirs);
        r->seconds[i] = theirs.seconds;
        memcpy(r->device[i], theirs.device, sizeof r->device[i]);
        r->device[i][sizeof r->device[i] - 1] = '\0';
        if (theirs.done != mine->done)
            st = gt_fail(GT_MISMATCH, "rank %d goes on after step %llu, this rank after %llu; can all "
                         "ranks read the run's folder?", i, (unsigned long long)theirs.done,
                         (unsigned long long)mine->done);
        else if (theirs.kept != mine->kept)
            st = gt_fail(GT_MISMATCH, "rank %d and this one do not find the same plan.json", i);
    }
    net_blobs_release(&all);
    return st;
}

static gt_status settle_shares(replicas *r, dev_device *d, train *t, const char *run, int resume)
{
    char *path = run ? gt_path_join(run, "plan.json") : NULL;
    const int rank = net_comm_rank(r->comm);
    report mine = { .done = train_steps_done(t) };
    snprintf(mine.device, sizeof mine.device, "%s", dev_info_of(d)->id);
    mine.kept = resume && path && read_shares(r, path);
    gt_status st = net_job_barrier(net_comm_job(r->comm), "timing micro-batches");
    if (!st && !mine.kept)
        st = train_time_micro_batch(t, &mine.seconds);
    if (!st)
        st = exchange(r, &mine);
    if (!st && !mine.kept)
        st = parallel_balance(r->seconds, r->ranks, r->micro_batches, r->share);
    uint64_t first = 0;
    for (int i = 0; i < rank; i++)
        first += (uint64_t)r->share[i];
    if (!st)
        st = train_set_share(t, first, (uint64_t)r->share[rank]);
    if (!st && path && rank == 0 && !mine.kept)
        st = write_shares(r, path);
    free(path);
    return st;
}

static void release(replicas *r)
{
    parallel_gradients_release(r->gradients);
    free(r->seconds);
    free(r->share);
    free(r->device);
    free(r);
}

gt_status replicas_join(replicas **out, net_comm *c, dev_device *d, train *t, const char *run,
                        int resume)
{
    *out = NULL;
    replicas *r = calloc(1, sizeof *r);
    if (!r)
        return gt_fail(GT_NO_MEMORY, "out of memory");
    r->comm = c;
    r->ranks = net_comm_size(c);
    r->micro_batches = (int)train_micro_batches(t);
    r->seconds = calloc((size_t)r->ranks, sizeof *r->seconds);
    r->share = calloc((size_t)r->ranks, sizeof *r->share);
    r->device = calloc((size_t)r->ranks, sizeof *r->device);
    gt_status st = r->seconds && r->share && r->device ? GT_OK : gt_fail(GT_NO_MEMORY, "out of memory");
    if (!st)
        st = settle_shares(r, d, t, run, resume);
    if (!st)
        st = parallel_gradients_create(&r->gradients, net_group_world(c), d, train_params(t));
    if (st) {
        release(r);
        return st;
    }
    *out = r;
    return GT_OK;
}

gt_status replicas_sum(replicas *r, train *t, int *stop)
{
    return parallel_gradients_sum(r->gradients, optim_loss_sum(train_optim(t)), stop);
}

void replicas_show(const replicas *r, FILE *out)
{
    if (!r)
        return;
    fprintf(out, "ranks   %d replicas share %d micro-batches a step:", r->ranks, r->micro_batches);
    for (int i = 0; i < r->ranks && i < 8; i++) {
        fprintf(out, "%s %s %d", i ? "," : "", r->device[i], r->share[i]);
        if (r->seconds[i] > 0)
            fprintf(out, " (%.1f ms each)", r->seconds[i] * 1e3);
    }
    fprintf(out, "%s\n", r->ranks > 8 ? ", ..." : "");
}

gt_status replicas_leave(replicas *r, gt_status st)
{
    if (!r)
        return st;
    char sentence[1024];
    snprintf(sentence, sizeof sentence, "%s", gt_message());
    if (st == GT_OK || st == GT_INTERRUPTED) {
        const gt_status left = net_job_barrier(net_comm_job(r->comm), "the end of training");
        if (st)
            gt_fail(st, "%s", sentence);
        st = st ? st : left;
    }
    release(r);
    return st;
}
