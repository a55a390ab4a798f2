/* SPDX-License-Identifier: MIT */
/* tests/planner/test_cluster_search.c - plans of random unequal clusters: everything is held once, fits,
 * and is never faster than the sum of the devices; and the cluster file's mistakes are named. */
#include "host/base/file.h"
#include "host/base/random.h"
#include "host/planner/cluster_search.h"
#include "tests/check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { UNITS = 26 };

static void make_units(cluster_unit *u, double flops)
{
    for (int i = 0; i < UNITS; i++)
        u[i] = (cluster_unit){
            .flops = flops, .parameters = 1e7, .kept = 1e8, .kept_recompute = 1e7, .output = 1e7, .reductions = 2
        };
    u[0] = (cluster_unit){ .parameters = 4e7, .kept = 1e7, .kept_recompute = 1e7, .output = 1e7 };
    u[UNITS - 1] = (cluster_unit){ .flops = 2 * flops, .parameters = 4e7, .kept = 2e7, .kept_recompute = 2e7 };
}

static cluster_devices random_cluster(gt_random *r, int nodes)
{
    cluster_devices c = { .nodes = nodes, .local_latency = 5e-6, .latency = 2e-5 };
    c.device = calloc((size_t)nodes * 8, sizeof *c.device);
    c.uplink = calloc((size_t)nodes, sizeof(double));
    c.local_bandwidth = calloc((size_t)nodes, sizeof(double));
    for (int n = 0; n < nodes; n++) {
        const int count = 1 + (int)gt_random_below(r, 8);
        const double flops = (1.0 + 9.0 * (double)gt_random_unit(r)) * 1e13;
        const double memory = (1.0 + 7.0 * (double)gt_random_unit(r)) * 1e10;
        c.uplink[n] = (1.0 + 24.0 * (double)gt_random_unit(r)) * 1e9;
        c.local_bandwidth[n] = (1.0 + 9.0 * (double)gt_random_unit(r)) * 3e10;
        for (int i = 0; i < count; i++) {
            cluster_device *d = &c.device[c.devices++];
            *d = (cluster_device){ .name = "any", .node = n, .flops = flops, .memory = memory };
        }
    }
    return c;
}

/* Every unit once and in order, within memory, all micro-batches handed out. */
static void check_plan(const cluster_devices *c, const cluster_job *job, const cluster_layout *p)
{
    int sequences = 0;
    char *used = calloc((size_t)c->devices, 1);
    double speed = 0, flops = 0;
    for (int r = 0; r < p->replicas; r++) {
        const cluster_replica *replica = &p->replica[r];
        int at = 0;
        CHECK(replica->micro_batches >= 1);
        sequences += replica->micro_batches * p->micro_batch;
        for (int s = 0; s < replica->stages; s++) {
            const cluster_stage *stage = &replica->stage[s];
            CHECK(stage->first_unit == at && stage->units >= 1);
            CHECKF(stage->memory <= stage->limit, "%g of %g bytes", stage->memory, stage->limit);
            CHECK(stage->devices == p->tensor);
            for (int d = 0; d < stage->devices; d++)
                CHECKF(!used[stage->first_device + d]++, "device %d is used twice", stage->first_device + d);
            at += stage->units;
        }
        CHECK(at == job->units);
    }
    CHECKF(sequences == job->batch, "%d of %d sequences", sequences, job->batch);
    for (int i = 0; i < c->devices; i++)
        speed += c->device[i].flops;
    for (int i = 0; i < job->units; i++)
        flops += 3.0 * job->unit[i].flops * job->batch;
    CHECKF(p->step >= flops / speed * 0.999, "step %g is faster than all devices together, %g", p->step, flops / speed);
    CHECK(p->idle >= -1e-9 && p->idle < 1.0);
    free(used);
}

static void plans_of_random_clusters_hold(void)
{
    gt_random r;
    gt_random_init(&r, 11, 1);
    int planned = 0, better = 0;
    for (int round = 0; round < 20; round++) {
        cluster_unit units[UNITS];
        make_units(units, 1e12);
        cluster_devices c = random_cluster(&r, 1 + (int)gt_random_below(&r, 12));
        const cluster_job job = { .units = UNITS, .unit = units, .batch = 256, .state_bytes = 16, .gradient_bytes = 4 };
        cluster_choice choice;
        double uniform;
        int tensor, stages;
        const gt_status st = cluster_search(&choice, &c, &job);
        CHECKF(!st || st == GT_MISMATCH, "%s", gt_message());
        if (!st) {
            check_plan(&c, &job, &choice.best);
            for (int i = 0; i < choice.runners_up; i++) {
                check_plan(&c, &job, &choice.runner_up[i]);
                CHECK(choice.runner_up[i].step >= choice.best.step);
            }
            CHECK_OK(cluster_uniform(&c, &job, &uniform, &tensor, &stages));
            better += choice.best.step <= uniform * 1.02;
            planned++;
            cluster_choice_release(&choice);
        }
        cluster_release(&c);
    }
    CHECKF(planned >= 15 && better == planned, "%d planned, %d at least as fast as uniform ones", planned, better);
}

/* Two devices, one four times as fast: the step is near what both can do together. */
static void a_fast_and_a_slow_device_add_up(void)
{
    cluster_unit units[UNITS];
    make_units(units, 1e12);
    cluster_device d[2] = { { .name = "fast", .flops = 4e13, .memory = 6e10 },
                            { .name = "slow", .flops = 1e13, .memory = 6e10 } };
    double fast = 1e11;
    const cluster_devices c = { 2, 1, d, &fast, &fast, 1e-6, 1e-6 };
    const cluster_job job = { .units = UNITS, .unit = units, .batch = 64, .state_bytes = 16, .gradient_bytes = 4 };
    cluster_choice choice;
    double flops = 0;
    if (!CHECK_OK(cluster_search(&choice, &c, &job)))
        return;
    check_plan(&c, &job, &choice.best);
    for (int i = 0; i < UNITS; i++)
        flops += 3.0 * units[i].flops * job.batch;
    CHECKF(choice.best.step < flops / 5e13 / 0.92, "step %g, both together %g", choice.best.step, flops / 5e13);
    cluster_choice_release(&choice);
}

static void what_fits_nowhere_is_said(void)
{
    cluster_unit units[UNITS];
    make_units(units, 1e12);
    cluster_device d[2] = { { .name = "tiny", .flops = 1e13, .memory = 1e8 },
                            { .name = "tiny", .flops = 1e13, .memory = 1e8 } };
    double rate = 1e10;
    const cluster_devices c = { 2, 1, d, &rate, &rate, 1e-6, 1e-6 };
    const cluster_job job = { .units = UNITS, .unit = units, .batch = 64, .state_bytes = 16, .gradient_bytes = 4 };
    cluster_choice choice;
    CHECK_FAILS(cluster_search(&choice, &c, &job), GT_MISMATCH, "does not fit device 'tiny'");
}

/* ---- cluster files ----------------------------------------------------------------------------- */

static gt_status read_text(cluster_devices *c, const char *text)
{
    char *path = gt_path_join(check_folder(), "cluster.json");
    gt_status st = gt_file_write(path, text, strlen(text));
    if (!st)
        st = cluster_read(c, path);
    free(path);
    return st;
}

#define NODE(devices) "{\"nodes\":[{\"count\":3,\"uplink\":\"10GB\",\"local\":5e10,\"devices\":[" devices "]}]}"

static void cluster_files_are_read(void)
{
    cluster_devices c;
    if (!CHECK_OK(read_text(&c, NODE("{\"name\":\"A\",\"count\":2,\"tflops\":10,\"memory\":\"8GiB\"},"
                                     "{\"name\":\"B\",\"tflops\":2.5,\"memory\":4e9}"))))
        return;
    CHECK(c.nodes == 3 && c.devices == 9);
    CHECK(!strcmp(c.device[8].name, "B") && c.device[8].node == 2 && c.device[8].flops == 2.5e12);
    CHECK(c.device[0].memory == 8.0 * 1073741824.0 && c.uplink[1] == 1e10 && c.local_bandwidth[2] == 5e10);
    cluster_release(&c);
}

static void mistakes_in_cluster_files_are_named(void)
{
    static const struct {
        const char *text, *says;
    } cases[] = { { "{", "line 1" },
                  { "{}", "'nodes'" },
                  { NODE(""), "'devices'" },
                  { NODE("{\"tflops\":1,\"memory\":1}"), "'name'" },
                  { NODE("{\"name\":\"A\",\"memory\":1}"), "'tflops' of device 'A'" },
                  { NODE("{\"name\":\"A\",\"tflops\":1}"), "'memory' of A" },
                  { NODE("{\"name\":\"A\",\"tflops\":1,\"memory\":\"lots\"}"), "'memory' of A" },
                  { NODE("{\"name\":\"A\",\"tflops\":1,\"memory\":1,\"count\":0}"), "'count' of A" },
                  { "{\"latency\":7,\"nodes\":[]}", "'latency'" },
                  { "{\"nodes\":[{\"local\":1,\"devices\":[]}]}", "'uplink' of a node" } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cluster_devices c;
        CHECK_FAILS(read_text(&c, cases[i].text), GT_FORMAT, cases[i].says);
    }
}

const check_case check_cases[] = { CASE(plans_of_random_clusters_hold),       CASE(a_fast_and_a_slow_device_add_up),
                                   CASE(what_fits_nowhere_is_said),           CASE(cluster_files_are_read),
                                   CASE(mistakes_in_cluster_files_are_named), { 0 } };
