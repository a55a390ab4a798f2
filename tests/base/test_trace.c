/* SPDX-License-Identifier: MIT */
/* tests/base/test_trace.c - spans in order, a ring that forgets the oldest, and a file that
 * others read. */
#include "tests/check.h"

#include "host/base/clock.h"
#include "host/base/file.h"
#include "host/base/trace.h"

#include <jansson.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void off_it_records_nothing(void)
{
    gt_trace t;
    CHECK(!gt_trace_on() && gt_trace_begin() == 0);
    gt_trace_span(GT_TRACE_HOST, GT_TRACK_HOST, "nowhere", 1, 2);
    gt_trace_end(GT_TRACE_HOST, GT_TRACK_HOST, "nowhere", gt_trace_begin());
    CHECK_OK(gt_trace_take(&t));
    CHECK(t.count == 0 && t.lost == 0);
    gt_trace_release(&t);
    CHECK_OK(gt_trace_start(4));
    CHECK(gt_trace_on());
    gt_trace_end(GT_TRACE_HOST, GT_TRACK_HOST, "began before", 0);
    CHECK_OK(gt_trace_take(&t));
    CHECK(t.count == 0);
    gt_trace_release(&t);
    gt_trace_stop();
    CHECK(!gt_trace_on());
}

static void spans_come_in_order_and_nest(void)
{
    gt_trace t;
    CHECK_OK(gt_trace_start(16));
    const uint64_t outer = gt_trace_begin(), before = gt_now_ns();
    const uint64_t inner = gt_trace_begin();
    gt_trace_end(GT_TRACE_WAIT, GT_TRACK_HOST, "inner", inner);
    gt_trace_end(GT_TRACE_HOST, GT_TRACK_HOST, "outer", outer);
    gt_trace_span(GT_TRACE_KERNEL, GT_TRACK_COMPUTE, "backwards", 700, 600);
    gt_trace_span(GT_TRACE_KERNEL, GT_TRACK_COMPUTE, "short", 500, 501);
    gt_trace_span(GT_TRACE_KERNEL, GT_TRACK_COMPUTE, "long", 500, 900);
    CHECK_OK(gt_trace_take(&t));
    static const char *const names[] = { "long", "short", "backwards", "outer", "inner" };
    if (CHECKF(t.count == 5 && !t.lost, "%zu spans", t.count)) {
        for (int i = 0; i < 5; i++)
            CHECKF(!strcmp(t.span[i].name, names[i]), "%d: %s", i, t.span[i].name);
        CHECK(t.span[2].begin == 700 && t.span[2].end == 700);
        CHECK(t.span[3].begin <= before && t.span[4].begin >= t.span[3].begin && t.span[4].end <= t.span[3].end
              && t.span[3].end <= gt_now_ns());
    }
    gt_trace_release(&t);
    gt_trace_stop();
}

static void a_full_ring_forgets_the_oldest(void)
{
    gt_trace t;
    char name[8];
    CHECK_OK(gt_trace_start(7));
    for (unsigned i = 0; i < 100; i++) {
        snprintf(name, sizeof name, "%u", i);
        gt_trace_span(GT_TRACE_COPY, GT_TRACK_COPY, name, i, i + 1);
    }
    CHECK_OK(gt_trace_take(&t));
    CHECK(t.count == 7 && t.lost == 93);
    for (unsigned i = 0; i < t.count; i++)
        CHECK(t.span[i].begin == 93 + i);
    gt_trace_release(&t);
    gt_trace_stop();
}

static void *record(void *context)
{
    const uint64_t *first = context;
    for (uint64_t i = 0; i < 5000; i++)
        gt_trace_span(GT_TRACE_WIRE, GT_TRACK_WIRE, "x", *first + i, *first + i + 1);
    return NULL;
}

static void threads_record_together(void)
{
    pthread_t threads[4];
    uint64_t first[4];
    gt_trace t;
    CHECK_OK(gt_trace_start(20000));
    for (unsigned i = 0; i < 4; i++) {
        first[i] = 1 + 5000 * i;
        CHECK(!pthread_create(&threads[i], NULL, record, &first[i]));
    }
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    CHECK_OK(gt_trace_take(&t));
    CHECK(t.count == 20000 && !t.lost);
    size_t wrong = 0;
    for (size_t i = 0; i < t.count; i++)
        wrong += t.span[i].begin != i + 1 || t.span[i].end != i + 2;
    CHECK(wrong == 0);
    gt_trace_release(&t);
    gt_trace_stop();
}

/* ---- the file ------------------------------------------------------------------------------- */

static double number_at(const json_t *o, const char *key)
{
    return json_number_value(json_object_get(o, key));
}

static const char *text_at(const json_t *o, const char *key)
{
    const char *text = json_string_value(json_object_get(o, key));
    return text ? text : "";
}

enum { ROWS = 32 };                 /* row numbers of a track in the file */

static void a_file_is_what_viewers_expect(void)
{
    gt_span a[] = { { .begin = 5000001234,
                      .end = 5000001235,
                      .category = GT_TRACE_KERNEL,
                      .track = GT_TRACK_COMPUTE,
                      .name = "h.0 \"x\" \\ y" },
                    { .begin = 5000002000,
                      .end = 6000000000,
                      .category = GT_TRACE_WIRE,
                      .track = GT_TRACK_WIRE,
                      .name = "tab\there" } };
    gt_span b[] = {
        { .begin = 5000001000, .end = 5000003500, .category = GT_TRACE_WAIT, .track = GT_TRACK_HOST, .name = "wait" }
    };
    const gt_trace traces[] = { { .rank = 0, .device = "gpu:0", .span = a, .count = 2, .lost = 3 },
                                { .rank = 3, .device = "cpu:0.1@0.25", .span = b, .count = 1 } };
    char *path = gt_path_join(check_folder(), "trace.json"), *text = NULL;
    json_error_t error;
    size_t i;
    json_t *event;
    int spans = 0, processes = 0, threads = 0;
    CHECK_OK(gt_trace_write(path, traces, 2));
    CHECK_OK(gt_file_read(&text, NULL, path, 1u << 20));
    json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, &error);
    CHECKF(root != NULL, "line %d: %s", error.line, error.text);
    CHECK(!strcmp(text_at(json_object_get(root, "otherData"), "spans lost"), "3"));
    json_array_foreach(json_object_get(root, "traceEvents"), i, event) {
        const char *name = text_at(event, "name"), *given = text_at(json_object_get(event, "args"), "name");
        const int pid = (int)number_at(event, "pid");
        if (!strcmp(name, "process_name")) {
            CHECKF(!strcmp(given, pid ? "rank 3 cpu:0.1@0.25" : "rank 0 gpu:0"), "%s", given);
            processes++;
        }
        threads += !strcmp(name, "thread_name");
        if (strcmp(text_at(event, "ph"), "X"))
            continue;
        spans++;
        if (pid == 3) {
            CHECK(number_at(event, "ts") == 0.0 && number_at(event, "dur") == 2.5
                  && !strcmp(text_at(event, "cat"), "wait") && number_at(event, "tid") == GT_TRACK_HOST * ROWS);
        } else if (number_at(event, "tid") == GT_TRACK_COMPUTE) {
            CHECK(fabs(number_at(event, "ts") - 0.234) < 1e-9 && fabs(number_at(event, "dur") - 0.001) < 1e-9
                  && !strcmp(name, "h.0 \"x\" \\ y"));
        } else {
            CHECK(number_at(event, "dur") == 999998.0 && !strcmp(name, "tab?here"));
        }
    }
    CHECK(spans == 3 && processes == 2 && threads == 3);
    json_decref(root);
    free(text);
    CHECK_FAILS(gt_trace_write("/proc/nowhere/trace.json", traces, 2), GT_IO, "/proc/nowhere");
    CHECK_OK(gt_trace_write(path, NULL, 0));            /* nothing happened anywhere */
    CHECK_OK(gt_file_read(&text, NULL, path, 1u << 20));
    root = json_loads(text, JSON_REJECT_DUPLICATES, &error);
    CHECK(json_is_array(json_object_get(root, "traceEvents")));
    json_decref(root);
    free(text);
    free(path);
}

/* No two spans of a row overlap but where one lies within the other, and no more rows are used
 * than spans are under way at once. */
static void spans_that_overlap_get_rows(void)
{
    enum { N = 400 };
    static gt_span spans[N];
    gt_trace t = { .span = spans, .count = N };
    char *path = gt_path_join(check_folder(), "rows.json"), *text = NULL;
    double end[GT_TRACKS * ROWS][N];
    int depth[GT_TRACKS * ROWS] = { 0 }, most = 0, wrong = 0, seen = 0;
    size_t i;
    json_t *event;
    for (unsigned k = 0; k < N; k++) {      /* four at a time, and each fourth within one */
        spans[k] = (gt_span){ .begin = 1000 * k,
                              .end = 1000 * k + (k % 4 ? 3500 : 400),
                              .category = GT_TRACE_WIRE,
                              .track = GT_TRACK_WIRE,
                              .name = "x" };
    }
    CHECK_OK(gt_trace_write(path, &t, 1));
    CHECK_OK(gt_file_read(&text, NULL, path, 1u << 20));
    json_t *root = json_loads(text, 0, NULL);
    json_array_foreach(json_object_get(root, "traceEvents"), i, event) {
        const int row = (int)number_at(event, "tid");
        const double from = number_at(event, "ts"), to = from + number_at(event, "dur");
        if (strcmp(text_at(event, "ph"), "X"))
            continue;
        while (depth[row] && end[row][depth[row] - 1] <= from)
            depth[row]--;
        wrong += depth[row] && end[row][depth[row] - 1] < to;
        end[row][depth[row]++] = to;
        most = row - GT_TRACK_WIRE * ROWS > most ? row - GT_TRACK_WIRE * ROWS : most;
        seen++;
    }
    CHECKF(seen == N && !wrong && most == 2, "%d spans, %d overlap, %d rows", seen, wrong, most + 1);
    json_decref(root);
    free(text);
    free(path);
}

/* A send's arrow leads to the receive of the same message where both are known and time goes forward;
 * arguments say what a span is of; counters are curves of their own. */
static void arrows_counters_and_arguments(void)
{
    gt_span a[] = {
        { .begin = 1000,
          .end = 3000,
          .flow = 7,
          .bytes = 64,
          .step = 2,
          .micro_batch = 1,
          .chunk = 2,
          .category = GT_TRACE_WIRE,
          .track = GT_TRACK_WIRE,
          .kind = GT_SPAN_SENDS,
          .name = "64 B to rank 1",
          .detail = "wte \"x\"" },
        { .begin = 2000,
          .end = 2500,
          .flow = 8,
          .category = GT_TRACE_WIRE,
          .track = GT_TRACK_WIRE,
          .kind = GT_SPAN_SENDS,
          .name = "never received" },
        { .begin = 2600, .end = 2600, .bytes = 4096, .kind = GT_SPAN_COUNTS, .name = "device memory" },
        { .begin = 9000,
          .end = 9500,
          .flow = 9,
          .category = GT_TRACE_WIRE,
          .track = GT_TRACK_WIRE,
          .kind = GT_SPAN_SENDS,
          .name = "received before" }
    };
    gt_span b[] = {
        { .begin = 2900,
          .end = 3900,
          .flow = 7,
          .category = GT_TRACE_WIRE,
          .track = GT_TRACK_ARRIVED,
          .kind = GT_SPAN_RECEIVES,
          .name = "64 B from rank 0" },
        { .begin = 4000,
          .end = 5000,
          .flow = 9,
          .category = GT_TRACE_WIRE,
          .track = GT_TRACK_ARRIVED,
          .kind = GT_SPAN_RECEIVES,
          .name = "too early" }
    };
    const gt_trace traces[] = { { .rank = 0, .device = "x", .span = a, .count = 4 },
                                { .rank = 1, .device = "y", .span = b, .count = 2 } };
    char *path = gt_path_join(check_folder(), "arrows.json"), *text = NULL;
    int starts = 0, ends = 0, counters = 0;
    size_t i;
    json_t *event;
    CHECK_OK(gt_trace_write(path, traces, 2));
    CHECK_OK(gt_file_read(&text, NULL, path, 1u << 20));
    json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    json_array_foreach(json_object_get(root, "traceEvents"), i, event) {
        const char *ph = text_at(event, "ph");
        const json_t *args = json_object_get(event, "args");
        if (*ph == 's' || *ph == 'f') {
            CHECK(!strcmp(text_at(event, "id"), "0x7"));
            CHECK(number_at(event, "pid") == (*ph == 's' ? 0.0 : 1.0));
            CHECK(fabs(number_at(event, "ts") - (*ph == 's' ? 0.0 : 1.9)) < 1e-9);
            CHECK(*ph == 's' || !strcmp(text_at(event, "bp"), "e"));
        }
        starts += *ph == 's';
        ends += *ph == 'f';
        if (*ph == 'C') {
            counters++;
            CHECK(!strcmp(text_at(event, "name"), "device memory") && number_at(args, "bytes") == 4096.0);
        }
        if (*ph == 'X' && !strcmp(text_at(event, "name"), "64 B to rank 1"))
            CHECK(number_at(args, "step") == 2.0 && number_at(args, "micro-batch") == 0.0
                  && number_at(args, "chunk") == 1.0 && number_at(args, "bytes") == 64.0
                  && !strcmp(text_at(args, "parameters"), "wte \"x\""));
        if (*ph == 'X' && !strcmp(text_at(event, "name"), "too early"))
            CHECK(json_object_size(args) == 0);
    }
    CHECK(starts == 1 && ends == 1 && counters == 1);
    json_decref(root);
    free(text);
    free(path);
}

static void spans_say_what_they_are_of(void)
{
    gt_trace t;
    CHECK_OK(gt_trace_start(8));
    gt_trace_of(3, 2, 1);
    gt_trace_span(GT_TRACE_HOST, GT_TRACK_HOST, "a", 10, 11);
    gt_trace_of(3, 0, 0);
    gt_trace_span(GT_TRACE_HOST, GT_TRACK_HOST, "b", 12, 13);
    gt_trace_of(0, 0, 0);               /* no step of its own: the newest of any thread */
    gt_trace_span(GT_TRACE_HOST, GT_TRACK_HOST, "c", 14, 15);
    gt_trace_counter("n", 5);
    CHECK_OK(gt_trace_take(&t));
    if (CHECKF(t.count == 4, "%zu spans", t.count)) {
        CHECK(t.span[0].step == 3 && t.span[0].micro_batch == 2 && t.span[0].chunk == 1);
        CHECK(t.span[1].step == 3 && t.span[1].micro_batch == 0 && t.span[1].chunk == 0);
        CHECK(t.span[2].step == 3);
        CHECK(t.span[3].kind == GT_SPAN_COUNTS && t.span[3].bytes == 5 && t.span[3].begin == t.span[3].end);
    }
    gt_trace_release(&t);
    gt_trace_stop();
}

const check_case check_cases[] = {
    CASE(off_it_records_nothing),        CASE(spans_come_in_order_and_nest),  CASE(a_full_ring_forgets_the_oldest),
    CASE(threads_record_together),       CASE(a_file_is_what_viewers_expect), CASE(spans_that_overlap_get_rows),
    CASE(arrows_counters_and_arguments), CASE(spans_say_what_they_are_of),    { 0 }
};
