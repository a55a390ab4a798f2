/* SPDX-License-Identifier: MIT */
/* tests/train/test_checkpoint_ranks.c - checkpoints that several ranks write and load: every cut
 * goes with every other, and what one rank cannot do, all of them say. */
#include "tests/check.h"
#include "tests/comm/ranks.h"
#include "tests/train/parts.h"

#include "host/base/file.h"
#include "host/train/checkpoint.h"
#include "models/model.h"

#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

typedef struct job {
    parts_plan plan;
    char run[512];
    unsigned seed;
    uint64_t step;
} job;

static void place(job *j, const char *name)
{
    snprintf(j->run, sizeof j->run, "%s/%s", check_folder(), name);
}

static gt_status save_parts(net_comm *c, const job *j, const parts *p, uint64_t *bytes)
{
    const checkpoint_info info = { .step = j->step, .seed = j->seed, .tokens = 77 };
    const checkpoint_ranks ranks = { c, p->mine, p->mine_moments };
    return checkpoint_save(j->run, &info, p->params, (checkpoint_state[]){ optim_saved(p->optim) }, 1, &ranks, bytes);
}

static gt_status saves(net_comm *c, void *context)
{
    const job *j = context;
    parts p;
    uint64_t bytes = 0;
    gt_status st = parts_open(&p, &j->plan, net_comm_rank(c));
    if (!st)
        st = parts_fill(&p, j->seed);
    if (!st)
        st = save_parts(c, j, &p, &bytes);
    /* Every element of the model once, and twice more as moments; and headers. */
    if (!st && bytes < 3 * 4 * (31 * 10 + 3 * (240 + 120 + 10) + 10))
        st = gt_fail(GT_MISMATCH, "only %llu bytes were written", (unsigned long long)bytes);
    parts_close(&p);
    return st;
}

static gt_status loads(net_comm *c, void *context)
{
    const job *j = context;
    parts p;
    char *path = NULL;
    checkpoint_info info = { 0 };
    gt_status st = parts_open(&p, &j->plan, net_comm_rank(c));
    if (!st)
        st = checkpoint_find_together(c, &path, &info, j->run);
    if (!st && (info.step != j->step || info.seed != j->seed || info.tokens != 77))
        st = gt_fail(GT_MISMATCH, "found step %llu", (unsigned long long)info.step);
    if (!st)
        st = checkpoint_load(path, p.params, (checkpoint_state[]){ optim_saved(p.optim) }, 1, NULL);
    if (!st)
        st = parts_check(&p, j->seed);
    free(path);
    parts_close(&p);
    return st;
}

static void every_cut_loads_under_every_other(void)
{
    static const parts_plan plans[] = { { 1, 1, 1, 0 }, { 1, 3, 1, 0 }, { 1, 1, 2, 0 }, { 1, 1, 3, 0 },
                                        { 1, 2, 2, 0 }, { 2, 2, 1, 0 }, { 3, 1, 1, 1 }, { 2, 1, 2, 1 } };
    const int n = sizeof plans / sizeof *plans;
    for (int a = 0; a < n; a++) {
        job j = { .plan = plans[a], .seed = (unsigned)a, .step = 10 + (uint64_t)a };
        char name[32];
        snprintf(name, sizeof name, "cut-%d", a);
        place(&j, name);
        CHECK_OK(ranks_run(parts_ranks(&j.plan), "", saves, &j));
        for (int b = 0; b < n; b++) {
            j.plan = plans[b];
            CHECKF(!ranks_run(parts_ranks(&j.plan), "", loads, &j), "from plan %d to %d: %s", a, b, gt_message());
        }
    }
}

/* Entries of a folder of the run that begin so. */
static int count_names(const char *run, const char *inside, const char *start)
{
    char *path = gt_path_join(run, inside);
    DIR *dir = opendir(path);
    int count = 0;
    for (struct dirent *e; dir && (e = readdir(dir));)
        count += !strncmp(e->d_name, start, strlen(start));
    if (dir)
        closedir(dir);
    free(path);
    return count;
}

static void a_rank_writes_only_what_is_its(void)
{
    job j = { .plan = { 2, 2, 1, 0 }, .seed = 3, .step = 4 };
    place(&j, "files");
    CHECK_OK(ranks_run(4, "", saves, &j));
    CHECK(count_names(j.run, "checkpoints/step-000004", "params-") == 2);
    CHECK(count_names(j.run, "checkpoints/step-000004", "optimizer-") == 2);
    CHECK(count_names(j.run, "checkpoints", ".partial") == 0);
    j.plan.sharded = 1;
    j.step = 6;
    CHECK_OK(ranks_run(4, "", saves, &j));
    CHECK(count_names(j.run, "checkpoints/step-000006", "params-") == 2);
    CHECK(count_names(j.run, "checkpoints/step-000006", "optimizer-") == 4);
    j.plan = (parts_plan){ 1, 1, 1, 0 };
    j.step = 5;
    CHECK_OK(ranks_run(1, "", saves, &j));
    CHECK(count_names(j.run, "checkpoints/step-000005", "params.safetensors") == 1);
    CHECK(count_names(j.run, "checkpoints/step-000005", "") == 2 + 3);      /* . and .. */
}

/* ---- failures ----------------------------------------------------------------------------------- */

typedef struct failing {
    job j;
    int culprit;
    gt_status code;
    const char *part;
    pthread_mutex_t lock;
    char first[1024];               /* the sentence of the rank that came first */
} failing;

/* It failed as expected, and with everybody's sentence. */
static gt_status same_failure(failing *f, gt_status st)
{
    char who[24];
    snprintf(who, sizeof who, "rank %d (", f->culprit);
    RANK_CHECK(st != GT_OK);
    if (st != f->code || strncmp(gt_message(), who, strlen(who)) || !strstr(gt_message(), f->part))
        return gt_fail(GT_MISMATCH, "%s: %s", gt_status_name(st), gt_message());
    pthread_mutex_lock(&f->lock);
    if (!f->first[0])
        snprintf(f->first, sizeof f->first, "%s", gt_message());
    const int same = !strcmp(f->first, gt_message());
    pthread_mutex_unlock(&f->lock);
    RANK_CHECK(same);
    gt_message_clear();
    return GT_OK;
}

/* The process may write files of so many bytes; 0: any. The ranks' other files are there by now. */
static gt_status limit_files(net_comm *c, rlim_t bytes)
{
    gt_status st = net_job_barrier(net_comm_job(c), "before the limit");
    struct rlimit limit;
    if (!net_comm_rank(c)) {
        signal(SIGXFSZ, bytes ? SIG_IGN : SIG_DFL);
        getrlimit(RLIMIT_FSIZE, &limit);
        limit.rlim_cur = bytes ? bytes : limit.rlim_max;
        setrlimit(RLIMIT_FSIZE, &limit);
    }
    return st ? st : net_job_barrier(net_comm_job(c), "after the limit");
}

static gt_status fails_on_a_full_disk(net_comm *c, void *context)
{
    failing *f = context;
    job j = f->j;
    parts p;
    RANK_OK(parts_open(&p, &j.plan, net_comm_rank(c)));
    RANK_OK(parts_fill(&p, j.seed));
    j.step = 6;
    RANK_OK(save_parts(c, &j, &p, NULL));
    j.step = 7;
    RANK_OK(limit_files(c, 8 * 1024));              /* the last rank's shares are the largest */
    gt_status st = save_parts(c, &j, &p, NULL);
    st = same_failure(f, st);
    RANK_OK(limit_files(c, 0));
    RANK_OK(st);
    RANK_CHECK(count_names(j.run, "checkpoints", ".partial") == 0);
    RANK_CHECK(count_names(j.run, "checkpoints", "step-") == 1);
    RANK_OK(net_job_barrier(net_comm_job(c), "looked"));
    RANK_OK(save_parts(c, &j, &p, NULL));
    parts_close(&p);
    return GT_OK;
}

static void a_rank_that_cannot_write_is_everyones_failure(void)
{
    failing f = { .j = { .plan = { 1, 1, 3, 0 }, .seed = 9 },
                  .culprit = 2,
                  .code = GT_IO,
                  .part = "File too large",
                  .lock = PTHREAD_MUTEX_INITIALIZER };
    place(&f.j, "full");
    CHECK_OK(ranks_run(3, "", fails_on_a_full_disk, &f));
    f.j.step = 7;
    f.j.plan = (parts_plan){ 1, 1, 1, 0 };
    CHECK_OK(ranks_run(1, "", loads, &f.j));
}

/* Rank 1's run lies elsewhere: another machine's folder of that name. */
static gt_status is_elsewhere(net_comm *c, void *context)
{
    failing *f = context;
    job j = f->j;
    parts p;
    char *path = NULL;
    checkpoint_info info;
    RANK_OK(parts_open(&p, &j.plan, net_comm_rank(c)));
    RANK_OK(parts_fill(&p, j.seed));
    if (net_comm_rank(c) == 1)
        strcat(j.run, "-elsewhere");
    if (!strcmp(f->part, "cannot see folder")) {
        RANK_OK(same_failure(f, save_parts(c, &j, &p, NULL)));
        RANK_OK(net_job_barrier(net_comm_job(c), "rank 0 has cleared away"));
        RANK_CHECK(count_names(f->j.run, "checkpoints", "") == 2);      /* . and .. */
    } else {
        RANK_OK(same_failure(f, checkpoint_find_together(c, &path, &info, j.run)));
        RANK_CHECK(!path);
    }
    parts_close(&p);
    return GT_OK;
}

static void a_folder_that_is_not_shared_is_told(void)
{
    failing f = { .j = { .plan = { 1, 2, 1, 0 }, .seed = 9, .step = 3 },
                  .culprit = 1,
                  .code = GT_IO,
                  .part = "cannot see folder",
                  .lock = PTHREAD_MUTEX_INITIALIZER };
    place(&f.j, "elsewhere");
    CHECK_OK(ranks_run(2, "", is_elsewhere, &f));
    CHECK_OK(ranks_run(2, "", saves, &f.j));
    f.part = "cannot see checkpoint";
    f.first[0] = '\0';
    CHECK_OK(ranks_run(2, "", is_elsewhere, &f));
    job other = f.j;                            /* there, but another one */
    strcat(other.run, "-elsewhere");
    other.seed = 10;
    CHECK_OK(ranks_run(2, "", saves, &other));
    f.part = "is not the checkpoint of that name";
    f.code = GT_MISMATCH;
    f.first[0] = '\0';
    CHECK_OK(ranks_run(2, "", is_elsewhere, &f));
}

static gt_status differ_in_step(net_comm *c, void *context)
{
    job j = *(job *)context;
    parts p;
    RANK_OK(parts_open(&p, &j.plan, net_comm_rank(c)));
    j.step += (uint64_t)net_comm_rank(c);
    RANK_CHECK(save_parts(c, &j, &p, NULL) == GT_MISMATCH);
    RANK_CHECK(strstr(gt_message(), "rank 1 is after step 4, rank 0 after step 3") != NULL);
    RANK_OK(net_job_barrier(net_comm_job(c), "rank 0 has cleared away"));
    RANK_CHECK(count_names(j.run, "checkpoints", "") == 2);
    parts_close(&p);
    return GT_OK;
}

static void ranks_must_save_the_same_step(void)
{
    job j = { .plan = { 1, 2, 1, 0 }, .step = 3 };
    place(&j, "steps");
    CHECK_OK(ranks_run(2, "", differ_in_step, &j));
}

/* ---- damage -------------------------------------------------------------------------------------- */

static void cut_file(const char *run, const char *inside)
{
    char *path = gt_path_join(run, inside), *data = NULL;
    size_t size = 0;
    CHECK_OK(gt_file_read(&data, &size, path, 1u << 30));
    CHECK_OK(gt_file_write(path, data, size / 2));
    free(data);
    free(path);
}

static gt_status finds_none(net_comm *c, void *context)
{
    const job *j = context;
    char *path = NULL;
    checkpoint_info info;
    RANK_CHECK(checkpoint_find_together(c, &path, &info, j->run) == GT_FORMAT);
    RANK_CHECK(!path && strstr(gt_message(), "there is no whole checkpoint"));
    gt_message_clear();
    return GT_OK;
}

static void all_pass_over_one_that_is_damaged(void)
{
    job j = { .plan = { 1, 3, 1, 0 }, .seed = 1, .step = 5 };
    check_allow_warnings();
    place(&j, "damaged");
    CHECK_OK(ranks_run(3, "", saves, &j));
    j.step = 6;
    j.seed = 2;
    CHECK_OK(ranks_run(3, "", saves, &j));
    cut_file(j.run, "checkpoints/step-000006/optimizer-00002.safetensors");
    j.step = 5;
    j.seed = 1;
    CHECK_OK(ranks_run(3, "", loads, &j));
    cut_file(j.run, "checkpoints/step-000005/params-00001.safetensors");
    CHECK_OK(ranks_run(3, "", finds_none, &j));
}

/* Rank 1 of 2 does not write "h.2.qkv", of which it holds a slice, or nobody does. */
static gt_status forgets(net_comm *c, void *context)
{
    job *j = context;
    parts p;
    RANK_OK(parts_open(&p, &j->plan, net_comm_rank(c)));
    RANK_OK(parts_fill(&p, j->seed));
    if (net_comm_rank(c) >= (int)j->seed)
        p.mine[params_find(p.params, "h.2.qkv")] = 0;       /* its moments all the same */
    RANK_OK(save_parts(c, j, &p, NULL));
    parts_close(&p);
    return GT_OK;
}

/* Both ranks write "ln_f", and it is not the same on both. */
static gt_status disagrees(net_comm *c, void *context)
{
    job *j = context;
    parts p;
    float row[10];
    RANK_OK(parts_open(&p, &j->plan, net_comm_rank(c)));
    RANK_OK(parts_fill(&p, j->seed));
    const int i = params_find(p.params, "ln_f");
    p.mine[i] = 1;
    RANK_OK(params_read(p.params, i, row));
    if (j->step == 2 && net_comm_rank(c))
        row[3] = -1.0f;
    RANK_OK(params_write(p.params, i, row));
    RANK_OK(save_parts(c, j, &p, NULL));
    parts_close(&p);
    return GT_OK;
}

static void pieces_that_do_not_make_a_tensor_are_told(void)
{
    job j = { .plan = { 1, 1, 2, 0 }, .seed = 1, .step = 1 };
    char *path = NULL;
    parts p;
    checkpoint_info info;
    const parts_plan alone = { 1, 1, 1, 0 };
    if (!CHECK_OK(parts_open(&p, &alone, 0)))
        return;
    place(&j, "forgotten");
    CHECK_OK(ranks_run(2, "", forgets, &j));
    CHECK_OK(checkpoint_find(&path, &info, j.run));
    CHECK_FAILS(checkpoint_load(path, p.params, (checkpoint_state[]){ optim_saved(p.optim) }, 1, NULL), GT_MISMATCH,
                "of tensor 'h.2.qkv', 180 elements of 240 are missing");
    free(path);
    j.seed = 0;
    j.step = 2;
    CHECK_OK(ranks_run(2, "", forgets, &j));
    CHECK_OK(checkpoint_find(&path, &info, j.run));
    CHECK_FAILS(checkpoint_load(path, p.params, (checkpoint_state[]){ optim_saved(p.optim) }, 1, NULL), GT_MISMATCH,
                "'h.2.qkv' is missing");
    free(path);
    place(&j, "disagreeing");
    j.step = 1;
    CHECK_OK(ranks_run(2, "", disagrees, &j));
    CHECK_OK(checkpoint_find(&path, &info, j.run));
    CHECK_OK(checkpoint_load(path, p.params, (checkpoint_state[]){ optim_saved(p.optim) }, 1, NULL));
    free(path);
    j.step = 2;
    CHECK_OK(ranks_run(2, "", disagrees, &j));
    CHECK_OK(checkpoint_find(&path, &info, j.run));
    CHECK_FAILS(checkpoint_load(path, p.params, (checkpoint_state[]){ optim_saved(p.optim) }, 1, NULL), GT_FORMAT,
                "'ln_f' differs");
    free(path);
    parts_close(&p);
}

/* ---- a real model ------------------------------------------------------------------------------- */

static model_config small_model(void)
{
    return (model_config){
        .family = "gpt2",
        .name = "small",
        .layers = 3,
        .heads = 2,
        .channels = 24,
        .inner = 40,
        .context = 9,
        .vocab = 31,
        .eps = 1e-5f,
        .init_deviation = 0.02f
    };
}

typedef struct model_part {
    dev_device *device;
    graph *graph;
    params *params;
} model_part;

/* Rank `rank` of `ranks`, of which `tensor` hold a stage; in units as even as they come. */
static gt_status open_model_part(model_part *m, int rank, int ranks, int tensor)
{
    const model_config c = small_model();
    const int units = model_units(&c), stages = ranks / tensor, stage = rank / tensor;
    const int first = units * stage / stages;
    const graph_part part = {
        .first_unit = first, .units = units * (stage + 1) / stages - first, .ranks = tensor, .rank = rank % tensor
    };
    memset(m, 0, sizeof *m);
    RANK_OK(dev_open(&m->device, getenv("GT_TEST_DEVICE")));
    RANK_OK(graph_create(&m->graph, DTYPE_F32, 1, 4));
    RANK_OK(model_build_part(m->graph, &c, &part, 1, 0));
    return params_create(&m->params, m->device, m->graph, 0);
}

static void close_model_part(model_part *m)
{
    params_release(m->params);
    graph_release(m->graph);
    dev_close(m->device);
}

/* Holds what params_init() gives for that seed. */
static gt_status is_initial(const model_part *m, uint64_t seed)
{
    static const int most = 24 * 24 * 4;
    float *x = malloc(4 * (size_t)most), *y = malloc(4 * (size_t)most);
    params *fresh = NULL;
    gt_status st = params_create(&fresh, m->device, m->graph, 0);
    if (!st)
        st = params_init(fresh, seed);
    for (int i = 0; !st && i < params_count(fresh); i++) {
        const int64_t n = shape_count(&params_info(fresh, i)->shape);
        st = n > most ? gt_fail(GT_MISMATCH, "a larger tensor") : params_read(fresh, i, x);
        if (!st)
            st = params_read(m->params, i, y);
        if (!st && memcmp(x, y, 4 * (size_t)n))
            st = gt_fail(GT_MISMATCH, "tensor '%s' is another", params_info(fresh, i)->name);
    }
    params_release(fresh);
    free(x);
    free(y);
    return st;
}

static gt_status saves_stage(net_comm *c, void *context)
{
    const job *j = context;
    model_part m;
    const int rank = net_comm_rank(c), ranks = net_comm_size(c);
    const checkpoint_info info = { .step = j->step, .seed = j->seed, .tokens = 1 };
    unsigned char mine[64];
    const int tensor = j->plan.tensor;
    RANK_OK(open_model_part(&m, rank, ranks, tensor));
    RANK_OK(params_init(m.params, j->seed));
    for (int i = 0; i < params_count(m.params); i++) {  /* the tied embedding lies on two stages */
        const graph_param_info *p = params_info(m.params, i);
        mine[i] = (rank < tensor || strcmp(p->name, "wte.weight")) && (p->slice.parts || rank % tensor == 0);
    }
    const checkpoint_ranks of = { c, mine, NULL };
    RANK_OK(checkpoint_save(j->run, &info, m.params, NULL, 0, &of, NULL));
    close_model_part(&m);
    return GT_OK;
}

static gt_status loads_stage(net_comm *c, void *context)
{
    const job *j = context;
    model_part m;
    char *path = NULL;
    checkpoint_info info;
    RANK_OK(open_model_part(&m, net_comm_rank(c), net_comm_size(c), j->plan.tensor));
    RANK_OK(checkpoint_find_together(c, &path, &info, j->run));
    RANK_OK(checkpoint_load(path, m.params, NULL, 0, NULL));
    RANK_OK(is_initial(&m, j->seed));
    free(path);
    close_model_part(&m);
    return GT_OK;
}

static void parts_of_a_model_come_together(void)
{
    static const struct {
        int ranks, tensor;
    } cuts[] = { { 1, 1 }, { 3, 1 }, { 5, 1 }, { 2, 2 }, { 4, 2 } };
    for (int a = 0; a < 5; a++) {
        job j = { .seed = 40 + (unsigned)a, .step = 1 + (uint64_t)a };
        place(&j, "model");
        j.plan.tensor = cuts[a].tensor;
        CHECK_OK(ranks_run(cuts[a].ranks, "", saves_stage, &j));
        for (int b = 0; b < 5; b++) {
            j.plan.tensor = cuts[b].tensor;
            CHECK_OK(ranks_run(cuts[b].ranks, "", loads_stage, &j));
        }
    }
}

/* What eval, generate and export do with a run: parameters without gradients, of another graph. */
static void generation_takes_any_checkpoint(void)
{
    job j = { .plan = { 1, 3, 1, 0 }, .seed = 5, .step = 8 };
    const model_config c = small_model();
    model_part m = { 0 };
    char *path = NULL, *folder = gt_path_join(check_folder(), "exported");
    checkpoint_info info;
    place(&j, "generate");
    CHECK_OK(ranks_run(3, "", saves_stage, &j));
    if (CHECK_OK(dev_open(&m.device, getenv("GT_TEST_DEVICE"))) && CHECK_OK(graph_create(&m.graph, DTYPE_F32, 1, 1))
        && CHECK_OK(model_build_generate(m.graph, &c, 9)) && CHECK_OK(params_create(&m.params, m.device, m.graph, 0))
        && CHECK_OK(checkpoint_find(&path, &info, j.run))) {
        CHECK_OK(checkpoint_check_model(path, m.graph));
        CHECK_OK(checkpoint_load(path, m.params, NULL, 0, NULL));
        CHECK_OK(is_initial(&m, j.seed));
        CHECK_OK(model_export(&c, m.params, DTYPE_F32, folder));
        CHECK_OK(params_init(m.params, 6));
        CHECK_OK(model_import(&c, m.params, folder));
        CHECK_OK(is_initial(&m, j.seed));
    }
    free(path);
    free(folder);
    close_model_part(&m);
}

/* ---- state of another owner ---------------------------------------------------------------------- */

/* Each rank's own values of every element it holds, and a flat vector that is alike everywhere. */
enum { OWN_MOST = 310, OWN_FLAT = 5 };
typedef struct own_state {
    const parts *p;
    float value[PARTS_MAX][OWN_MOST], flat[OWN_FLAT];
} own_state;

static int own_count(void *context)
{
    const own_state *o = context;
    return params_count(o->p->params) + 1;
}

static void own_entry(void *context, int i, checkpoint_entry *e)
{
    const own_state *o = context;
    *e = (checkpoint_entry){ .name = "seeds", .param = -1, .full = shape_of(1, (int64_t)OWN_FLAT), .end = OWN_FLAT };
    if (i == params_count(o->p->params))
        return;
    const graph_param_info *info = params_info(o->p->params, i);
    snprintf(e->name, sizeof e->name, "residual.%s", info->name);
    e->param = i;
    e->full = info->full;
    e->slice = info->slice;
    e->end = shape_count(&info->shape);
}

static float *own_place(own_state *o, int i)
{
    return i == params_count(o->p->params) ? o->flat : o->value[i];
}

static gt_status own_read(void *context, int i, float *to)
{
    checkpoint_entry e;
    own_entry(context, i, &e);
    memcpy(to, own_place(context, i), 4 * (size_t)(e.end - e.begin));
    return GT_OK;
}

static gt_status own_write(void *context, int i, const float *from)
{
    checkpoint_entry e;
    own_entry(context, i, &e);
    memcpy(own_place(context, i), from, 4 * (size_t)(e.end - e.begin));
    return GT_OK;
}

static checkpoint_state own_saved(own_state *o)
{
    return (checkpoint_state){
        .owner = "residuals",
        .what = "residuals",
        .each_rank = 1,
        .optional = 1,
        .context = o,
        .count = own_count,
        .entry = own_entry,
        .read = own_read,
        .write = own_write
    };
}

/* 16 to the power of the rank, and a little of the parameter: sums of ranks are exact and differ. */
static float own_value(int rank, int i)
{
    return (float)(1 << (4 * rank)) + (float)(i + 1) / 64.0f;
}

static gt_status saves_own(net_comm *c, void *context)
{
    const job *j = context;
    const checkpoint_info info = { .step = j->step, .seed = j->seed, .tokens = 77 };
    own_state o = { 0 };
    parts p;
    RANK_OK(parts_open(&p, &j->plan, net_comm_rank(c)));
    RANK_OK(parts_fill(&p, j->seed));
    o.p = &p;
    for (int i = 0; i < params_count(p.params); i++)
        for (int k = 0; k < OWN_MOST; k++)
            o.value[i][k] = own_value(net_comm_rank(c), i);
    for (int k = 0; k < OWN_FLAT; k++)
        o.flat[k] = (float)k + 0.5f;
    const checkpoint_state states[] = { optim_saved(p.optim), own_saved(&o) };
    const checkpoint_ranks ranks = { c, p.mine, p.mine_moments };
    RANK_OK(checkpoint_save(j->run, &info, p.params, states, 2, &ranks, NULL));
    parts_close(&p);
    return GT_OK;
}

/* seed 1: the ranks that wrote; 2: others, of which one holds the sum of both replicas. */
static gt_status loads_own(net_comm *c, void *context)
{
    const job *j = context;
    const int rank = net_comm_rank(c), same = j->seed == 1;
    char *path = NULL;
    checkpoint_info info;
    own_state o = { 0 };
    parts p;
    RANK_OK(parts_open(&p, &j->plan, rank));
    o.p = &p;
    const checkpoint_state states[] = { optim_saved(p.optim), own_saved(&o) };
    const checkpoint_ranks ranks = { c, p.mine, p.mine_moments };
    RANK_OK(checkpoint_find_together(c, &path, &info, j->run));
    RANK_OK(checkpoint_load(path, p.params, states, 2, &ranks));
    for (int i = 0; i < params_count(p.params); i++) {
        const graph_param_info *part = params_info(p.params, i);
        const float sum = own_value(0, i) + own_value(1, i);
        const float want = same ? own_value(rank, i) : p.mine[i] ? sum : 0.0f;
        for (int64_t k = 0; k < shape_count(&part->shape); k++)
            RANK_CHECK(same || p.mine[i] || o.value[i][k] == 0.0f);
        /* parameters are numbered as on one rank where a rank holds the whole model */
        for (int64_t k = 0; (same || j->plan.stages == 1) && k < shape_count(&part->shape); k++)
            RANK_CHECK(o.value[i][k] == want);
    }
    for (int k = 0; k < OWN_FLAT; k++)
        RANK_CHECK(o.flat[k] == (float)k + 0.5f);
    free(path);
    parts_close(&p);
    return GT_OK;
}

static void what_each_rank_keeps_comes_back_or_is_summed(void)
{
    static const parts_plan others[] = { { 1, 1, 1, 0 }, { 3, 1, 1, 0 }, { 1, 1, 2, 0 }, { 1, 3, 1, 0 } };
    job j = { .plan = { 2, 1, 1, 0 }, .seed = 1, .step = 3 };
    place(&j, "own");
    CHECK_OK(ranks_run(2, "", saves_own, &j));
    CHECK(count_names(j.run, "checkpoints/step-000003", "residuals-") == 2);
    CHECK_OK(ranks_run(2, "", loads_own, &j));
    j.seed = 2;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        j.plan = others[i];
        CHECK_OK(ranks_run(parts_ranks(&j.plan), "", loads_own, &j));
    }
}

/* A checkpoint from before there was such an owner; and one of an owner that is no more. */
static void an_owner_may_come_and_go(void)
{
    job j = { .plan = { 1, 1, 1, 0 }, .seed = 4, .step = 2 };
    own_state o = { .flat = { 9.0f } };
    char *path = NULL;
    checkpoint_info info;
    parts p;
    place(&j, "come");
    CHECK_OK(ranks_run(1, "", saves, &j));
    if (!CHECK_OK(parts_open(&p, &j.plan, 0)))
        return;
    o.p = &p;
    checkpoint_state states[] = { optim_saved(p.optim), own_saved(&o) };
    CHECK_OK(checkpoint_find(&path, &info, j.run));
    CHECK_OK(checkpoint_load(path, p.params, states, 2, NULL));
    CHECK(o.flat[0] == 9.0f);
    states[1].optional = 0;
    CHECK_FAILS(checkpoint_load(path, p.params, states, 2, NULL), GT_NOT_FOUND, "holds no residuals");
    free(path);
    place(&j, "gone");
    CHECK_OK(ranks_run(1, "", saves_own, &j));
    CHECK_OK(checkpoint_find(&path, &info, j.run));
    check_allow_warnings();
    CHECK_OK(checkpoint_load(path, p.params, states, 1, NULL));
    free(path);
    parts_close(&p);
}

const check_case check_cases[] = {
    CASE(every_cut_loads_under_every_other),
    CASE(a_rank_writes_only_what_is_its),
    CASE(a_rank_that_cannot_write_is_everyones_failure),
    CASE(a_folder_that_is_not_shared_is_told),
    CASE(ranks_must_save_the_same_step),
    CASE(all_pass_over_one_that_is_damaged),
    CASE(pieces_that_do_not_make_a_tensor_are_told),
    CASE(parts_of_a_model_come_together),
    CASE(generation_takes_any_checkpoint),
    CASE(what_each_rank_keeps_comes_back_or_is_summed),
    CASE(an_owner_may_come_and_go),
    { 0 }
};
