/* SPDX-License-Identifier: MIT */
/* tests/sync/test_servers.c - parameter servers of every number, place and share, beside all-reduce.
 *
 *   all-reduce            ═══ 6 steps ══► weights
 *   ps, servers 0 | 1 | 0:3,1:1 | ...  ══► the same, on all ranks to the bit
 *   ps ══ 3 steps, checkpoint ══ another mode or other servers ══ 3 more ══► the same again
 *
 * Sums of two ranks have the same bits whoever adds them; with more, and where the gradient is clipped (its norm
 * is added up part by part), weights may differ by rounding.                                */
#include "host/base/file.h"
#include "host/sync/sync.h"
#include "tests/check.h"
#include "tests/comm/ranks.h"
#include "tests/train/tiny_run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_RANKS = 4, STEPS = 6, UNITS = 4 };

static model_config config;

typedef struct job {
    run_plan plan;
    train_options o;
    float *x[MOST_RANKS];
    size_t count[MOST_RANKS];
    uint64_t state[MOST_RANKS];         /* bytes of the optimizer's */
} job;

static gt_status body(net_comm *c, void *context)
{
    job *j = context;
    const int rank = net_comm_rank(c);
    train_options o = j->o;
    dev_device *d = NULL;
    train *t = NULL;
    o.comm = c;
    o.plan = &j->plan;
    gt_status st = tiny_open(&d);
    if (!st)
        st = tiny_create(&t, d, &config, &o);
    if (!st)
        st = train_run(t, NULL);
    if (!st) {
        j->x[rank] = tiny_params(t, 0, &j->count[rank]);
        j->state[rank] = train_memory_of(t).state;
    }
    train_release(t);
    dev_close(d);
    return st;
}

static void release(job *j)
{
    for (int r = 0; r < MOST_RANKS; r++)
        free(j->x[r]);
    run_plan_release(&j->plan);
    *j = (job){ 0 };
}

/* What a case asks for beside the mode. */
typedef struct wish {
    const char *servers;                /* NULL: not said */
    const tiny_replica *replicas;
    int count, tensor;
    const char *folder, *optimizer;
    uint64_t steps;
    double clip;
    dtype precision;
    const char *knobs;
} wish;

static int prepare(job *j, const char *mode, const wish *w)
{
    sync_settings s;
    sync_settings_usual(sync_mode_find(mode), &s);
    if (w->servers && !CHECK_OK(sync_settings_set(sync_mode_find(mode), &s, "servers", w->servers)))
        return 0;
    if (!tiny_plan(&j->plan, UNITS, TINY_B, "1f1b", mode, w->replicas, w->count, w->tensor))
        return 0;
    run_plan_sync(&j->plan, mode, &s);
    config = tiny_config();
    j->o = tiny_options();
    j->o.gemm = "native";
    j->o.steps = w->steps ? w->steps : STEPS;
    j->o.run = w->folder;
    j->o.resume = w->folder && gt_path_exists(w->folder);
    j->o.precision = w->precision;
    if (w->optimizer)
        optim_config_rule(&j->o.optim, optim_rule_find(w->optimizer));
    j->o.optim.clip = w->clip;
    if (j->o.optim.rule == optim_rule_find("adamw"))
        j->o.optim.eps = 1e-4;          /* a key's bias has no gradient but rounding */
    return 1;
}

static int run(job *j, const char *mode, const wish *w)
{
    int ranks = 0;
    for (int i = 0; i < w->count; i++)
        ranks += w->replicas[i].stages * w->tensor;
    return prepare(j, mode, w) && CHECK_OK(ranks_run(ranks, w->knobs ? w->knobs : "algorithm=direct", body, j));
}

/* The largest difference on any rank, relative to the norm of its weights; -1: a rank has others. */
static double distance(const job *a, const job *b)
{
    double worst = 0.0;
    for (int r = 0; r < MOST_RANKS && a->x[r]; r++) {
        double sum = 0.0, norm = 0.0;
        if (!b->x[r] || a->count[r] != b->count[r])
            return -1.0;
        for (size_t i = 0; i < a->count[r]; i++) {
            sum += pow((double)a->x[r][i] - (double)b->x[r][i], 2);
            norm += pow((double)b->x[r][i], 2);
        }
        worst = fmax(worst, sqrt(sum / norm));
    }
    return worst;
}

static const tiny_replica two[] = { { 1, 4, 1 }, { 1, 2, 1 } };
static const tiny_replica three[] = { { 1, 3, 1 }, { 1, 1, 2 }, { 1, 1, 1 } };
static const tiny_replica staged[] = { { 2, 4, 1 }, { 1, 1, 2 } };
static const tiny_replica pipes[] = { { 2, 4, 1 }, { 2, 2, 1 } };

/* ---- cases ----------------------------------------------------------------------------------- */

static void compare(const char *what, const wish *w, const char *servers, double bound)
{
    job plain = { 0 }, served = { 0 };
    wish with = *w;
    with.servers = servers;
    if (run(&plain, "allreduce", w) && run(&served, "ps", &with)) {
        const double off = distance(&served, &plain);
        CHECKF(off >= 0.0 && off <= bound, "%s, servers %s: weights are off by %.3g", what, servers, off);
    }
    release(&plain);
    release(&served);
}

static void two_ranks_have_the_bits_of_all_reduce(void)
{
    static const char *const servers[] = { "all", "0", "1", "0:3,1:1" };
    const wish w = { .replicas = two, .count = 2, .tensor = 1 };
    const wish tcp = { .replicas = two, .count = 2, .tensor = 1, .knobs = "transport=tcp" };
    for (size_t i = 0; i < sizeof servers / sizeof *servers; i++)
        compare("two ranks", &w, servers[i], 0.0);
    compare("two ranks over tcp", &tcp, "1", 0.0);
}

static void others_have_them_up_to_rounding(void)
{
    const wish clipped = { .replicas = two, .count = 2, .tensor = 1, .clip = 0.5 };
    const wish of_three = { .replicas = three, .count = 3, .tensor = 1, .clip = 1.0 };
    const wish half = { .replicas = two, .count = 2, .tensor = 1, .precision = DTYPE_BF16 };
    const wish tensor = { .replicas = two, .count = 2, .tensor = 2, .clip = 1.0 };
    compare("clipped", &clipped, "0", 1e-6);
    compare("three ranks", &of_three, "1", 1e-6);
    compare("three ranks", &of_three, "0:2,2:1", 1e-6);
    compare("bf16", &half, "1", 1e-6);
    compare("tensor ranks", &tensor, "0,1", 1e-6);
}

/* A tied table is shared by three ranks, layers by two and two. */
static void stages_have_servers_of_their_own(void)
{
    const wish w = { .replicas = staged, .count = 2, .tensor = 1, .clip = 1.0 };
    const wish p = { .replicas = pipes, .count = 2, .tensor = 1, .clip = 1.0 };
    compare("stages beside a whole replica", &w, "all", 1e-6);
    compare("stages beside a whole replica", &w, "2", 1e-6);
    compare("two pipelines", &p, "0,1", 1e-6);
    job j = { 0 };
    ranks_result results[MOST_RANKS] = { 0 };
    const wish none = { .replicas = pipes, .count = 2, .tensor = 1, .servers = "0" };
    if (prepare(&j, "ps", &none)) {
        ranks_run_each(4, "", body, &j, results);
        for (int r = 0; r < 4; r++)
            CHECKF(results[r].status == GT_UNSUPPORTED && strstr(results[r].sentence, "name a rank of every stage"),
                   "rank %d: '%s'", r, results[r].sentence);
    }
    release(&j);
}

/* Rules that see whole tensors get them whole. */
static void every_rule_runs_at_the_server(void)
{
    for (int i = 0; optim_rules[i]; i++) {
        const wish w = {
            .replicas = two, .count = 2, .tensor = 1, .steps = 2, .optimizer = optim_rule_name(optim_rules[i])
        };
        compare(optim_rule_name(optim_rules[i]), &w, "1", 1e-6);
    }
}

static void one_server_holds_all_of_the_state(void)
{
    job j = { 0 };
    const wish w = { .replicas = two, .count = 2, .tensor = 1, .servers = "1", .steps = 1 };
    if (run(&j, "ps", &w))
        CHECKF(j.state[0] == 0 && j.state[1] > 0, "%llu and %llu bytes", (unsigned long long)j.state[0],
               (unsigned long long)j.state[1]);
    release(&j);
}

/* Its state is in checkpoints wherever it lives: another mode, or another server, goes on from there. */
static void a_run_goes_on_with_other_servers(void)
{
    static const struct {
        const char *mode, *servers;
    } then[] = { { "ps", "0" }, { "ps", "1" }, { "allreduce", NULL }, { "sharded", NULL } };
    const wish all = { .replicas = two, .count = 2, .tensor = 1 };
    job whole = { 0 };
    if (!run(&whole, "ps", &all))
        return;
    for (size_t i = 0; i < sizeof then / sizeof *then; i++) {
        job first = { 0 }, rest = { 0 };
        char name[32];
        snprintf(name, sizeof name, "servers-%zu", i);
        char *folder = gt_path_join(check_folder(), name);
        wish w = { .replicas = two, .count = 2, .tensor = 1, .folder = folder, .servers = "0", .steps = STEPS / 2 };
        if (run(&first, "ps", &w)) {
            w.steps = STEPS;
            w.servers = then[i].servers;
            if (run(&rest, then[i].mode, &w))
                CHECKF(distance(&rest, &whole) == 0.0, "%s %s: weights are off by %.3g", then[i].mode,
                       then[i].servers ? then[i].servers : "", distance(&rest, &whole));
        }
        free(folder);
        release(&first);
        release(&rest);
    }
    release(&whole);
}

static void lists_that_cannot_be_are_refused(void)
{
    static const struct {
        const char *list, *said;
    } bad[] = { { "", "is not a word" }, { "x", "neither 'all' nor a list" },
                { "0,0", "neither" },    { "0,", "neither" },
                { ",0", "neither" },     { "0:0", "neither" },
                { "0:1,1", "neither" },  { "0:x", "neither" },
                { "-1", "neither" },     { "99999999999", "neither" },
                { "1;2", "neither" } };
    const sync_mode *m = sync_mode_find("ps");
    sync_settings s;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        sync_settings_usual(m, &s);
        gt_status st = sync_settings_set(m, &s, "servers", bad[i].list);
        st = st ? st : sync_settings_check(m, &s, 4);
        CHECKF(st == GT_MISUSE && strstr(gt_message(), bad[i].said) && strstr(gt_message(), "--servers"), "'%s': %s",
               bad[i].list, gt_message());
    }
    sync_settings_usual(m, &s);
    CHECK_OK(sync_settings_set(m, &s, "servers", "3,1"));
    CHECK_OK(sync_settings_check(m, &s, 0));
    CHECK_OK(sync_settings_check(m, &s, 4));
    CHECK(sync_settings_check(m, &s, 3) == GT_MISUSE && strstr(gt_message(), "there is no rank 3 among 3"));
    CHECK(sync_settings_set(m, &s, "steps", "1") == GT_MISUSE
          && strstr(gt_message(), "--steps is no option of --sync ps"));
    gt_message_clear();
}

const check_case check_cases[] = { CASE(lists_that_cannot_be_are_refused), CASE(two_ranks_have_the_bits_of_all_reduce),
                                   CASE(others_have_them_up_to_rounding),  CASE(stages_have_servers_of_their_own),
                                   CASE(every_rule_runs_at_the_server),    CASE(one_server_holds_all_of_the_state),
                                   CASE(a_run_goes_on_with_other_servers), { 0 } };
