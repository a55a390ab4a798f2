/* SPDX-License-Identifier: MIT */
/* tests/planner/test_compare.c - what plans reckon with for staying together, against simulators that send every
 * message and take every step one after the other. */
#include "host/planner/advice.h"
#include "host/planner/compare.h"
#include "host/planner/local_search.h"
#include "host/compress/compressor.h"
#include "tests/check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 8 };

static sync_settings settings_of(const sync_mode *m, const char *name, const char *value)
{
    sync_settings s;
    sync_settings_usual(m, &s);
    if (name)
        CHECK_OK(sync_settings_set(m, &s, name, value));
    return s;
}

static int near(double a, double b)
{
    return fabs(a - b) <= 1e-9 * (fabs(a) + fabs(b));
}

/* ---- messages -------------------------------------------------------------------------------- */

/* Links of n ranks, each busy until then, either way. */
typedef struct wires {
    int n;
    double out[MOST], in[MOST], sent[MOST], bandwidth, latency, now;
} wires;

/* A round: everybody sends what it has for others, one message after the other, and all begin together. */
static void round_of(wires *w, double bytes[MOST][MOST])
{
    double most = 0;
    for (int i = 0; i < w->n; i++)
        w->out[i] = w->in[i] = 0;
    for (int from = 0; from < w->n; from++)
        for (int to = 0; to < w->n; to++)
            if (from != to && bytes[from][to] > 0) {
                w->out[from] += bytes[from][to] / w->bandwidth;
                w->in[to] += bytes[from][to] / w->bandwidth;
                w->sent[from] += bytes[from][to];
            }
    for (int i = 0; i < w->n; i++)
        most = fmax(most, fmax(w->out[i], w->in[i]));
    w->now += most + w->latency;
}

/* Pieces of S / n go round: n - 1 times to be added up, n - 1 times to everybody. */
static void ring(wires *w, double S, int rounds)
{
    for (int k = 0; k < rounds; k++) {
        double bytes[MOST][MOST] = { { 0 } };
        for (int i = 0; i < w->n; i++)
            bytes[i][(i + 1) % w->n] = S / w->n;
        round_of(w, bytes);
    }
}

/* Everybody sends each server its share; then each server sends everybody what came of it. */
static void served(wires *w, double S, const double *share)
{
    double there[MOST][MOST] = { { 0 } }, back[MOST][MOST] = { { 0 } };
    for (int i = 0; i < w->n; i++)
        for (int k = 0; k < w->n; k++) {
            there[i][k] = S * share[k];
            back[k][i] = S * share[k];
        }
    round_of(w, there);
    round_of(w, back);
}

static void gathered(wires *w, double E)
{
    ring(w, E * w->n, w->n - 1);        /* each one's own, passed on whole */
}

static void check_load(const char *what, const sync_load *l, const wires *w)
{
    double sent = 0;
    for (int i = 0; i < w->n; i++)
        sent += w->sent[i] / w->n;
    CHECKF(near(l->busiest / w->bandwidth + l->trips * w->latency, w->now), "%s, %d ranks: %g s, sent %g s", what, w->n,
           l->busiest / w->bandwidth + l->trips * w->latency, w->now);
    CHECKF(near(l->sends, sent), "%s, %d ranks: %g bytes, sent %g", what, w->n, l->sends, sent);
}

static wires wires_of(int n)
{
    return (wires){ .n = n, .bandwidth = 1.25e7, .latency = 0.01 };
}

static void sums_are_what_messages_take(void)
{
    const sync_volume v = { .plain = 1e6 };
    for (int n = 2; n <= MOST; n++) {
        const char *const whole[] = { "allreduce", "sharded", "ps" };
        for (int i = 0; i < 3; i++) {
            wires w = wires_of(n);
            const sync_load l = sync_mode_load(sync_mode_find(whole[i]), NULL, NULL, &v, n);
            ring(&w, 4e6, 2 * (n - 1));
            check_load(whole[i], &l, &w);
        }
    }
}

static void servers_are_what_messages_take(void)
{
    const sync_volume v = { .plain = 1e6 };
    const sync_mode *ps = sync_mode_find("ps");
    const struct {
        const char *list;
        double share[4];
    } cases[] = { { "0", { 1, 0, 0, 0 } }, { "0:3,2:1", { 0.75, 0, 0.25, 0 } }, { "1,2", { 0, 0.5, 0.5, 0 } } };
    for (int i = 0; i < 3; i++) {
        wires w = wires_of(4);
        const sync_settings s = settings_of(ps, "servers", cases[i].list);
        const sync_load l = sync_mode_load(ps, &s, NULL, &v, 4);
        served(&w, 4e6, cases[i].share);
        check_load(cases[i].list, &l, &w);
    }
    /* Ten buckets of 4 MiB, of each of which every rank updates a part: links carry both ways all the time. */
    const sync_volume large = { .plain = 10 << 20 };
    for (int n = 2; n <= 4; n++) {
        wires w = wires_of(n);
        const sync_load parts = sync_mode_load(sync_mode_find("sharded"), NULL, NULL, &large, n);
        for (int b = 0; b < 10; b++)
            ring(&w, 4 << 20, 2 * (n - 1));
        check_load("sharded, ten buckets", &parts, &w);
    }
    const sync_settings uneven = settings_of(ps, "servers", "0:3,2:1");
    const sync_load some = sync_mode_load(ps, &uneven, NULL, &large, 4);
    wires w = wires_of(4);
    for (int b = 0; b < 10; b++)
        served(&w, 4 << 20, (const double[4]){ 0.75, 0, 0.25, 0 });
    check_load("servers, ten buckets", &some, &w);
    /* As they come: the same bytes, a push with each step and a pull beside it. */
    const sync_mode *async = sync_mode_find("async");
    const sync_settings one = settings_of(async, "servers", "0");
    const sync_load l = sync_mode_load(async, &one, NULL, &v, 4);
    CHECKF(near(l.busiest, 3 * 4e6), "a server of three others has %g bytes each way", l.busiest);
    CHECK(near(l.sends, 2 * 0.75 * 4e6));
}

static void encodings_are_what_messages_take(void)
{
    const shape matrix = { .rank = 2, .dim = { 512, 1024 } }, vector = { .rank = 1, .dim = { 1024 } };
    const graph_param_info two = { .shape = matrix, .full = matrix }, one = { .shape = vector, .full = vector };
    const struct {
        const char *form;
        double bytes;                   /* of the matrix' 524288 values                        */
        int vectors, gathers;
    } cases[] = { { "bf16", 2 * 524288.0, 1, 0 },
                  { "fp16", 2 * 524288.0, 1, 0 },
                  { "int8", 524288.0 / 128 * 132, 0, 1 },
                  { "randomk:0.01", 4 * 5243.0, 0, 0 },
                  { "powersgd:4", 4.0 * 4 * (512 + 1024), 0, 0 } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        compress_spec c;
        sync_volume v = { 0 };
        if (!CHECK_OK(compress_parse(&c, cases[i].form)))
            continue;
        sync_volume_add(&v, &c, &two);
        CHECKF(fabs(v.bytes - cases[i].bytes) <= 0.01 * cases[i].bytes, "%s: %g bytes", cases[i].form, v.bytes);
        sync_volume_add(&v, &c, &one);
        CHECK(v.plain == (cases[i].vectors ? 0 : 1024) && v.plain + v.values == 524288 + 1024);
        for (int n = 2; n <= 5; n++) {
            wires w = wires_of(n), x = wires_of(n);
            const sync_load l = sync_mode_load(sync_mode_find("allreduce"), NULL, &c, &v, n);
            w.latency = x.latency = 0;  /* both kinds are on their way at once */
            ring(&w, 4 * v.plain, 2 * (n - 1));
            if (cases[i].gathers)
                gathered(&w, v.bytes);
            else
                ring(&w, v.bytes, 2 * (n - 1));
            CHECKF(near(l.busiest / w.bandwidth, w.now), "%s, %d ranks: %g s, sent %g s", cases[i].form, n,
                   l.busiest / w.bandwidth, w.now);
            CHECK(l.decodes == (cases[i].gathers ? n : 1));
            /* State that is shared out: sums of parts, and then new weights as they are. */
            const sync_load s = sync_mode_load(sync_mode_find("sharded"), NULL, &c, &v, n);
            ring(&x, 4 * v.plain, 2 * (n - 1));
            if (cases[i].gathers)
                gathered(&x, v.bytes);
            else
                ring(&x, v.bytes, cases[i].vectors ? n - 1 : 2 * (n - 1));
            ring(&x, 4 * v.values, n - 1);
            CHECKF(near(s.busiest / x.bandwidth, x.now), "sharded %s, %d ranks: %g s, sent %g s", cases[i].form, n,
                   s.busiest / x.bandwidth, x.now);
        }
    }
}

/* ---- steps apart ----------------------------------------------------------------------------- */

/* Seconds of a step on average: each step, and what its end waits for, one after the other. */
static double stepped(int every, int pieces, int beside, double on_wire, double trip, double compute)
{
    enum { ROUNDS = 50 };
    double now = 0, over[64] = { 0 };
    for (int step = 1; step <= every * ROUNDS; step++) {
        now += compute;
        for (int p = 0; p < pieces; p++)        /* due after (p + 1) H / P steps of a round, begun so much before */
            if ((step + beside) % every == (p + 1) * every / pieces % every)
                over[p] = now + on_wire / pieces + trip;
        for (int p = 0; p < pieces; p++)
            if (step % every == (p + 1) * every / pieces % every)
                now = fmax(now, over[p]);
    }
    return now / (every * ROUNDS);
}

static void steps_apart_wait_as_a_clock_says(void)
{
    const int every[] = { 1, 6, 30, 60 }, pieces[] = { 1, 3, 6 }, beside[] = { 0, 1, 4 };
    const double on_wire[] = { 0.05, 0.9, 40.0 };
    int compared = 0;
    for (int e = 0; e < 4; e++)
        for (int p = 0; p < 3; p++)
            for (int b = 0; b < 3; b++)
                for (int k = 0; k < 3; k++) {
                    if (every[e] % pieces[p] || (beside[b] && beside[b] >= every[e] / pieces[p]))
                        continue;
                    const sync_pace pace = { every[e], pieces[p], beside[b] };
                    const double said = 0.1 + sync_pace_waits(&pace, on_wire[k], 0.02, 0.1);
                    const double clock = stepped(every[e], pieces[p], beside[b], on_wire[k], 0.02, 0.1);
                    CHECKF(fabs(said - clock) <= 0.02 * clock, "H %d, P %d, T %d: %g s, by the clock %g s", every[e],
                           pieces[p], beside[b], said, clock);
                    compared++;
                }
    CHECK(compared > 40);
    const sync_mode *local = sync_mode_find("local");
    const sync_settings s = settings_of(local, "local-steps", "100");
    compress_spec apart;
    CHECK_OK(compress_parse(&apart, "zeroone:16,freeze=100,local=8"));
    CHECK(sync_mode_pace(sync_mode_find("allreduce"), NULL, &apart).every == 8);
    CHECK(sync_mode_pace(local, &s, NULL).every == 100
          && sync_mode_pace(sync_mode_find("allreduce"), NULL, NULL).every == 1);
}

/* ---- plans ------------------------------------------------------------------------------------- */

/* Two ranks of one speed; three units. */
static void make_job(local_job *job, local_rank rank[2], double links[2][4], const char *sync, const sync_settings *s)
{
    profile p = {
        .sizes = 1, .size = { 1 }, .parameters = { 1e5, 5e5, 2e5 }, .update = { 1e-9, 1e-9, 1e-9 }, .output = 1e4
    };
    for (int k = 0; k < PROFILE_KINDS; k++)
        p.unit[k][0] = (profile_cost){ 0.01, 0.012, 0.008, 1e5, 1e5, 1e4 };
    for (int r = 0; r < 2; r++) {
        rank[r] = (local_rank){ .memory = 1e9, .on_host = 1, .profile = p };
        snprintf(rank[r].device, sizeof rank[r].device, "dev:%d", r);
    }
    for (int i = 0; i < 4; i++) {
        links[0][i] = 0.01;
        links[1][i] = 1.25e7;
    }
    *job = (local_job){
        .ranks = 2,
        .units = 3,
        .batch = 4,
        .rank = rank,
        .latency = links[0],
        .bandwidth = links[1],
        .state_bytes = 16,
        .slot_bytes = 8,
        .replicas = 2,
        .micro_batch = 1,
        .recompute = -1,
        .sync = sync,
        .settings = s
    };
}

enum { PARAMETERS = 800000 };

static void plans_take_what_is_reckoned(void)
{
    const double compute = 2 * 3 * (0.01 + 0.012 + 0.008), update = 1e-9 * PARAMETERS, agree = 0.01;
    const double ring_s = 4.0 * PARAMETERS / 1.25e7 + 2 * 0.01;
    const sync_mode *local = sync_mode_find("local");
    const sync_settings tens = settings_of(local, "local-steps", "10");
    sync_settings flow = tens;
    CHECK_OK(sync_settings_set(local, &flow, "overlap", "2"));
    const struct {
        const char *sync;
        const sync_settings *settings;
        double step, host;
    } cases[] = {
        { "allreduce", NULL, compute + update + ring_s + agree, 0 },
        { "sharded", NULL, compute + update / 2 + ring_s + agree, 0 },
        { "local", &tens, compute + update + (ring_s + agree) / 10, 4.0 * PARAMETERS },
        { "local", &flow, compute + update + fmax(0.0, ring_s + agree - 2 * (compute + update)) / 10, 8.0 * PARAMETERS }
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        local_job job;
        local_rank rank[2];
        double links[2][4];
        local_choice c = { 0 };
        make_job(&job, rank, links, cases[i].sync, cases[i].settings);
        if (!CHECK_OK(local_search(&c, &job)))
            continue;
        CHECKF(fabs(c.best.step - cases[i].step) <= 1e-9, "%s: %g s, by hand %g s", cases[i].sync, c.best.step,
               cases[i].step);
        CHECKF(near(c.best.host_memory[0], cases[i].host), "%s: %g bytes of the host", cases[i].sync,
               c.best.host_memory[0]);
        CHECK(near(c.best.limit[0] + c.best.host_memory[0], 1e9));
        CHECK(near(local_sent(&c.best, &job), 4.0 * PARAMETERS / (strcmp(cases[i].sync, "local") ? 1.0 : 10.0)));
        local_choice_release(&c);
    }
}

static void encoding_takes_its_time(void)
{
    local_job job;
    local_rank rank[2];
    double links[2][4];
    local_choice plain = { 0 }, coded = { 0 };
    compress_spec int8;
    const sync_volume volume[PROFILE_KINDS] = { { .values = 1e5, .bytes = 1.03e5, .code = 1.03e5, .kept = 8e5 },
                                                { .values = 5e5, .bytes = 5.15e5, .code = 5.15e5, .kept = 4e6 },
                                                { .values = 2e5, .bytes = 2.06e5, .code = 2.06e5, .kept = 1.6e6 } };
    CHECK_OK(compress_parse(&int8, "int8"));
    make_job(&job, rank, links, "allreduce", NULL);
    if (!CHECK_OK(local_search(&plain, &job)))
        return;
    job.compress = &int8;
    job.volume = volume;
    for (int r = 0; r < 2; r++) {
        rank[r].encode = 2e-8;
        rank[r].decode = 1e-8;
    }
    if (CHECK_OK(local_search(&coded, &job))) {
        const double saved = (4.0 - 1.03) * PARAMETERS / 1.25e7 + 0.01, takes = (2e-8 + 2 * 1e-8) * PARAMETERS;
        CHECKF(fabs(plain.best.step - coded.best.step - saved + takes) <= 1e-9, "%g s, encoded %g s", plain.best.step,
               coded.best.step);
        /* of both ranks' encodings, and of what is held back and was */
        const double more = coded.best.memory[0] - plain.best.memory[0];
        CHECKF(near(more, (2 * 1.03 + 8) * PARAMETERS), "compression takes %g bytes of a device", more);
    }
    local_choice_release(&plain);
    local_choice_release(&coded);
}

static void what_hosts_keep_is_counted(void)
{
    const sync_mode *local = sync_mode_find("local"), *async = sync_mode_find("async");
    const sync_settings nesterov = settings_of(local, "outer", "nesterov"), late = settings_of(async, "servers", "0");
    /* where all began, momentum, what is summed */
    CHECK(sync_mode_host_bytes(local, &nesterov, 8, 2, 0) == 12);
    /* arenas of push and pull; weights, state and a push of each of three replicas, of all that one server serves */
    CHECK(sync_mode_host_bytes(async, &late, 8, 3, 0) == 8 + 4 + 8 + 12);
    CHECK(sync_mode_host_bytes(async, NULL, 8, 2, 0) == 8 + 0.5 * (4 + 8 + 8));
    CHECK(sync_mode_host_bytes(sync_mode_at(0), NULL, 8, 2, 0) == 0
          && sync_mode_host_bytes(sync_mode_at(0), NULL, 8, 2, 1) == 4);
    CHECK(sync_mode_host_bytes(local, &nesterov, 8, 1, 0) == 0);
    double seconds = 0;
    const optim_config c = optim_defaults();
    CHECK_OK(sync_mode_host_seconds(local, &nesterov, &c, 2, &seconds));
    CHECKF(seconds > 0 && seconds < 1e-5, "an outer step of a parameter takes %g s", seconds);
    CHECK_OK(sync_mode_host_seconds(sync_mode_at(0), NULL, &c, 2, &seconds));
    CHECK(seconds == 0);
}

/* ---- the list ---------------------------------------------------------------------------------- */

static void every_way_is_listed_once(void)
{
    static compare_way list[COMPARE_MOST];
    const optim_config c = optim_defaults();
    compare_way own = { .mode = sync_mode_find("local"), .compress = "none", .asked = 1 };
    char a[160], b[160], changes[48];
    own.settings = settings_of(own.mode, "local-steps", "77");
    const int count = compare_ways(list, &own, &c, DTYPE_F32, 12);
    CHECK(count > 10 && list[0].asked);
    compare_name(a, sizeof a, &list[0]);
    CHECKF(!strcmp(a, "--sync local --local-steps 77"), "'%s'", a);
    for (int i = 0; i < count; i++)
        for (int k = 0; k < i; k++) {
            compare_name(a, sizeof a, &list[i]);
            compare_name(b, sizeof b, &list[k]);
            CHECKF(strcmp(a, b) != 0, "'%s' is listed twice", a);
        }
    for (int m = 0; sync_mode_at(m); m++) {
        int found = 0;
        for (int i = 0; i < count; i++)
            found += list[i].mode == sync_mode_at(m);
        CHECKF(found, "%s is not listed", sync_mode_name(sync_mode_at(m)));
    }
    for (int i = 0; i < count; i++) {
        compare_changes(changes, sizeof changes, &list[i], 2);
        const int apart = strstr(list[i].compress, ",local=") != NULL;
        const int local = !strcmp(sync_mode_name(list[i].mode), "local"), lossy = strcmp(list[i].compress, "none") != 0;
        const int late = !strcmp(sync_mode_name(list[i].mode), "async");
        CHECKF(!strcmp(changes, apart   ? "local, lossy"
                                : local ? "local"
                                : late  ? "asynchronous"
                                : lossy ? "lossy"
                                        : ""),
               "%s is '%s'", sync_mode_name(list[i].mode), changes);
    }
}

/* Three fragments of two layers would be refused by `train`, as signs without a warm-up. */
static void ways_that_cannot_be_are_left_out(void)
{
    static compare_way list[COMPARE_MOST];
    const optim_config c = optim_defaults();
    optim_config other = c;
    char name[160];
    int fragments[2] = { 0 }, warm = 0, signs = 0;
    for (int few = 0; few < 2; few++) {
        const int count = compare_ways(list, NULL, &c, DTYPE_F32, few ? 2 : 3);
        for (int i = 0; i < count; i++) {
            compare_name(name, sizeof name, &list[i]);
            fragments[few] += strstr(name, "--fragments") != NULL;
            warm += strstr(name, "--compress onebit --compress-after 100") != NULL;
        }
    }
    CHECKF(fragments[0] == 1 && fragments[1] == 0, "%d and %d ways by fragments", fragments[0], fragments[1]);
    CHECKF(warm == 2, "1-bit Adam is listed %d times with a warm-up", warm);
    optim_config_rule(&other, optim_rule_find("sgd"));
    const int count = compare_ways(list, NULL, &other, DTYPE_F32, 12);
    for (int i = 0; i < count; i++)
        signs += !strncmp(list[i].compress, "onebit", 6) || !strncmp(list[i].compress, "zeroone", 7);
    CHECKF(!signs, "%d ways send the momentum of AdamW, which SGD has not", signs);
}

static void advice_is_given_where_links_are_slow(void)
{
    local_job job;
    local_rank rank[2];
    double links[2][4], share;
    for (int fast = 0; fast < 2; fast++) {
        local_choice c = { 0 };
        gt_text text = { 0 };
        make_job(&job, rank, links, "allreduce", NULL);
        for (int i = 0; fast && i < 4; i++) {
            links[0][i] = 1e-5;
            links[1][i] = 1e9;
        }
        if (!CHECK_OK(local_search(&c, &job)))
            continue;
        CHECK_OK(plan_waits(&share, &c.best));
        CHECK_OK(plan_advice(&text, &c.best));
        if (fast)
            CHECKF(share < 0.1 && !text.size, "waits %g", share);
        else
            CHECKF(share > 0.5 && text.data && strstr(text.data, "--sync local --local-steps 10, ") != NULL
                       && strstr(text.data, "--compress int8"),
                   "waits %g: %s", share, text.data ? text.data : "");
        gt_text_release(&text);
        local_choice_release(&c);
    }
}

const check_case check_cases[] = {
    CASE(sums_are_what_messages_take),
    CASE(servers_are_what_messages_take),
    CASE(encodings_are_what_messages_take),
    CASE(steps_apart_wait_as_a_clock_says),
    CASE(plans_take_what_is_reckoned),
    CASE(encoding_takes_its_time),
    CASE(what_hosts_keep_is_counted),
    CASE(every_way_is_listed_once),
    CASE(ways_that_cannot_be_are_left_out),
    CASE(advice_is_given_where_links_are_slow),
    { 0 }
};
