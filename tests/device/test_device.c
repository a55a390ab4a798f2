/* SPDX-License-Identifier: MIT */
/* tests/device/test_device.c - ids, buffers and views, the program cache, launch lists. */
#include "tests/check.h"

#include "host/base/clock.h"
#include "host/base/file.h"
#include "host/base/trace.h"
#include "host/device/device_private.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const char source[] = "__kernel void scale(__global float *x, const float by, const int n)\n"
                             "{ int i = (int)get_global_id(0); if (i < n) x[i] = x[i] * by + FACTOR; }\n"
                             "__kernel void burn(__global float *x, const int n)\n"
                             "{ float s = x[get_global_id(0)]; for (int i = 0; i < n; i++) s = s * 0.999f + 1.0f;\n"
                             "  x[get_global_id(0)] = s; }\n";

/* faulty.sh runs some of these on a runtime with wrong stamps, which is warned of once. */
static dev_device *open_default(void)
{
    dev_device *d;
    if (getenv("GT_FAULT"))
        check_allow_warnings();
    return CHECK_OK(dev_open(&d, getenv("GT_TEST_DEVICE"))) ? d : NULL;
}

static void every_device_has_an_id_and_can_be_found_by_it(void)
{
    dev_info *all;
    int n;
    if (!CHECK_OK(dev_find(&all, &n)))
        return;
    CHECK(n > 0);
    for (int i = 0; i < n; i++) {
        dev_device *d;
        CHECK(all[i].compute_units > 0 && all[i].global_bytes > 0 && all[i].align % 128 == 0);
        if (CHECK_OK(dev_open(&d, all[i].path)))
            CHECK(!strcmp(dev_info_of(d)->name, all[i].name));
        dev_close(d);
        if (CHECK_OK(dev_open(&d, all[i].id)))
            CHECK(!strcmp(dev_info_of(d)->path, all[i].path));
        dev_close(d);
    }
    free(all);
}

static void lists_of_ids_are_split(void)
{
    char **specs;
    int n;
    CHECK_OK(dev_specs(&specs, &n, "cpu:0/2@0.5,gpu:1,0:0"));
    CHECK(n == 4 && !strcmp(specs[0], "cpu:0.0/2@0.5") && !strcmp(specs[1], "cpu:0.1/2@0.5")
          && !strcmp(specs[2], "gpu:1") && !strcmp(specs[3], "0:0"));
    dev_specs_free(specs, n);
    CHECK_OK(dev_specs(&specs, &n, NULL));
    CHECK(n == 1);
    dev_specs_free(specs, n);
    static const char *const wrong[] = { "gpu",     "gpu:",    "gpu:x",      "cpu:0@0", "cpu:0@2",
                                         "cpu:0.2", "cpu:0/0", "cpu:0.1/2x", ":0",      "cpu:0,,cpu:0" };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        CHECKF(dev_specs(&specs, &n, wrong[i]) == GT_MISUSE, "'%s'", wrong[i]);
    dev_device *d;
    CHECK_FAILS(dev_open(&d, "gpu:77"), GT_NOT_FOUND, "geartrain devices");
    CHECK_FAILS(dev_open(&d, "cpu:0/2"), GT_MISUSE, "several");
}

static dev_program *build(dev_device *d, const char *options)
{
    const char *texts[] = { source };
    dev_program *p;
    return CHECK_OK(dev_program_build(&p, d, "test", texts, 1, options)) ? p : NULL;
}

static void a_list_runs_in_order_and_again(void)
{
    enum { N = 1000 };
    float x[N], y[N];
    dev_device *d = open_default();
    dev_program *p = d ? build(d, "-DFACTOR=1.0f") : NULL;
    dev_buffer *root = NULL, *view = NULL, *copy = NULL;
    dev_list *l = NULL;
    if (!p)
        goto out;
    const size_t align = dev_info_of(d)->align;
    CHECK_OK(dev_buffer_create(&root, d, 4 * align + sizeof x, "test data"));
    CHECK_OK(dev_buffer_view(&view, root, align, sizeof x));
    CHECK_OK(dev_buffer_create(&copy, d, sizeof x, "copy"));
    for (int i = 0; i < N; i++)
        x[i] = (float)i;
    CHECK_OK(dev_write(d, view, 0, x, sizeof x));
    CHECK_OK(dev_list_create(&l, d));
    dev_list_label(l, "first");
    dev_arg args[] = { dev_arg_buffer(view), dev_arg_f32(2.0f), dev_arg_i32(N) };
    CHECK_OK(dev_list_kernel(l, p, "scale", dev_grid_1d(N, 1), args, 3));
    CHECK_OK(dev_list_copy(l, copy, 0, view, 0, sizeof x));
    dev_list_label(l, "second");
    CHECK_OK(dev_list_kernel(l, p, "scale", dev_grid_1d(0, 1), args, 3));   /* nothing */
    CHECK_OK(dev_list_fill(l, view, 4, 0x40400000u, 8));                    /* 3.0f twice */
    CHECK(dev_list_count(l) == 4 && !strcmp(dev_list_label_of(l, 1), "first")
          && !strcmp(dev_list_label_of(l, 3), "second") && !strcmp(dev_list_name_of(l, 0), "scale"));
    CHECK_OK(dev_run(l, 0, -1));
    CHECK_OK(dev_read(d, view, 0, y, sizeof y));
    CHECK(y[0] == 1.0f && y[1] == 3.0f && y[2] == 3.0f && y[3] == 7.0f && y[N - 1] == 1999.0f);
    CHECK_OK(dev_read(d, copy, 0, y, sizeof y));
    CHECK(y[1] == 3.0f && y[2] == 5.0f);
    CHECK_OK(dev_list_set(l, 0, 1, dev_arg_f32(0.0f)));
    CHECK_OK(dev_run(l, 0, 1));
    dev_event *event;
    CHECK_OK(dev_read_start(d, view, 0, y, sizeof y, &event));
    CHECK_OK(dev_event_wait(event));
    CHECK(y[0] == 1.0f && y[N - 1] == 1.0f);
    double seconds[4] = { 0 };
    CHECK_OK(dev_run_timed(l, 0, -1, seconds));
    CHECK(seconds[0] > 0.0 && seconds[2] == 0.0);
    CHECK(dev_memory_used(d) == 4 * align + 2 * sizeof x);
out:
    dev_list_release(l);
    dev_buffer_release(view);
    dev_buffer_release(root);
    dev_buffer_release(copy);
    dev_program_release(p);
    if (d)
        CHECK(dev_memory_used(d) == 0);
    dev_close(d);
}

static void add_native(const void *payload, void *const *pointers)
{
    const int *n = payload;
    float *x = pointers[0], *y = pointers[1];
    for (int i = 0; i < *n; i++)
        y[i] += x[i];
}

static void native_kernels_see_views_at_their_place(void)
{
    dev_device *d = open_default();
    if (!d)
        return;
    if (!dev_info_of(d)->native_kernels) {
        check_skip("no native kernels on %s", dev_info_of(d)->id);
        dev_close(d);
        return;
    }
    const size_t align = dev_info_of(d)->align;
    dev_buffer *root, *views[2];
    dev_list *l;
    float x[4] = { 1, 2, 3, 4 }, y[4] = { 10, 20, 30, 40 }, z[4];
    int n = 4;
    CHECK_OK(dev_buffer_create(&root, d, 4 * align, "root"));
    CHECK_OK(dev_buffer_view(&views[0], root, align, sizeof x));
    CHECK_OK(dev_buffer_view(&views[1], root, 3 * align, sizeof y));
    CHECK_OK(dev_write(d, views[0], 0, x, sizeof x));
    CHECK_OK(dev_write(d, views[1], 0, y, sizeof y));
    CHECK_OK(dev_list_create(&l, d));
    CHECK_OK(dev_list_native(l, "add", add_native, &n, sizeof n, views, 2));
    CHECK_OK(dev_run(l, 0, -1));
    CHECK_OK(dev_run(l, 0, -1));
    CHECK_OK(dev_read(d, views[1], 0, z, sizeof z));
    CHECK(z[0] == 12.0f && z[3] == 48.0f);
    /* What is queued keeps the payload that it was queued with. */
    CHECK_OK(dev_list_set(l, 0, 0, dev_arg_i32(2)));
    CHECK_OK(dev_run(l, 0, -1));
    CHECK_OK(dev_list_set(l, 0, 0, dev_arg_i32(1)));
    CHECK_OK(dev_run(l, 0, -1));
    CHECK_OK(dev_read(d, views[1], 0, z, sizeof z));
    CHECK(z[0] == 14.0f && z[1] == 26.0f && z[2] == 36.0f && z[3] == 48.0f);
    dev_list_release(l);
    for (int i = 0; i < 2; i++)
        dev_buffer_release(views[i]);
    dev_buffer_release(root);
    dev_close(d);
}

typedef struct late_writer {
    atomic_int begun, go, done;
} late_writer;

static void write_late(const void *payload, void *const *pointers)
{
    late_writer *w;
    memcpy(&w, payload, sizeof w);
    w->begun = 1;
    while (!w->go)
        sched_yield();
    *(volatile float *)pointers[0] = 1.0f;
    w->done = 1;
}

/* A device that the driver gives up has begun something, which goes on after everything has been released here. */
static void a_lost_device_may_write_to_what_was_released(void)
{
    dev_device *d = open_default();
    if (!d)
        return;
    if (!dev_info_of(d)->native_kernels) {
        check_skip("no native kernels on %s", dev_info_of(d)->id);
        dev_close(d);
        return;
    }
    static late_writer w;
    late_writer *const at = &w;
    dev_buffer *b;
    dev_list *l;
    CHECK_OK(dev_buffer_create(&b, d, 1 << 22, "released too early"));
    CHECK_OK(dev_list_create(&l, d));
    CHECK_OK(dev_list_native(l, "late", write_late, &at, sizeof at, &b, 1));
    CHECK_OK(dev_run(l, 0, -1));
    while (!w.begun)
        sched_yield();
    d->lost = 1;
    dev_list_release(l);
    dev_buffer_release(b);
    CHECK(dev_memory_used(d) == 0);
    w.go = 1;
    while (!w.done)
        sched_yield();
    d->lost = 0;                            /* so that closing it waits for the driver */
    dev_close(d);
}

/* A kernel, a native call, a copy, a fill and reads go where the window stands when they are queued. */
static void windows_lead_to_what_they_stand_for(void)
{
    static const char *const sources[] = { source };
    dev_device *d = open_default();
    if (!d)
        return;
    const size_t align = dev_info_of(d)->align;
    const int n = 4, native = dev_info_of(d)->native_kernels;
    float x[4] = { 1, 2, 3, 4 }, zeros[4] = { 0 }, y[4];
    dev_buffer *slot[2], *window, *view, *inner, *copy;
    dev_program *p;
    dev_list *l;
    CHECK_OK(dev_program_build(&p, d, "windows", sources, 1, "-DFACTOR=1.0f"));
    for (int i = 0; i < 2; i++) {
        CHECK_OK(dev_buffer_create(&slot[i], d, 4 * align, "slot"));
        CHECK_OK(dev_write(d, slot[i], 2 * align, i ? zeros : x, sizeof x));
        CHECK_OK(dev_write(d, slot[i], 3 * align, i ? zeros : x, sizeof x));
    }
    CHECK_OK(dev_buffer_create(&copy, d, sizeof x, "copy"));
    CHECK_OK(dev_window_create(&window, slot[0]));
    CHECK_OK(dev_buffer_view(&view, window, align, 3 * align));
    CHECK_OK(dev_buffer_view(&inner, view, align, sizeof x));
    dev_buffer *both[2] = { inner, inner };
    const dev_arg args[] = { dev_arg_buffer(inner), dev_arg_f32(2.0f), dev_arg_i32(n) };
    CHECK_OK(dev_list_create(&l, d));
    CHECK_OK(dev_list_kernel(l, p, "scale", dev_grid_1d(4, 1), args, 3));
    if (native)
        CHECK_OK(dev_list_native(l, "add", add_native, &n, sizeof n, both, 2));
    CHECK_OK(dev_list_copy(l, copy, 0, inner, 0, sizeof x));
    CHECK_OK(dev_list_fill(l, view, 2 * align, 0x40000000u, 4));
    for (int run = 0; run < 4; run++) {             /* 0, 1, 0, 1: queued before any is waited for */
        CHECK_OK(dev_window_set(window, slot[run % 2]));
        CHECK_OK(dev_run(l, 0, -1));
        CHECK((char *)dev_buffer_host(inner) == (native ? (char *)dev_buffer_host(slot[run % 2]) + 2 * align : NULL));
    }
    const float by = native ? 2.0f : 1.0f;
    float want = 0.0f;
    for (int i = 0; i < 2; i++) {
        CHECK_OK(dev_read(d, slot[i], 2 * align, y, sizeof y));
        for (int k = 0; k < n; k++) {
            want = i ? 0.0f : x[k];
            want = by * (2.0f * want + 1.0f);
            want = by * (2.0f * want + 1.0f);
            CHECKF(y[k] == want, "%g, not %g", (double)y[k], (double)want);
        }
        CHECK_OK(dev_read(d, slot[i], 3 * align, y, sizeof y));
        CHECK(y[0] == 2.0f && y[1] == (i ? 0.0f : x[1]));
    }
    CHECK_OK(dev_read(d, copy, 0, y, sizeof y));
    CHECK(y[3] == want);
    CHECK_OK(dev_window_set(window, slot[0]));
    CHECK_OK(dev_read(d, inner, 0, y, sizeof y));
    CHECK(y[0] != want);
    dev_list_release(l);
    dev_buffer_release(inner);
    dev_buffer_release(view);
    dev_buffer_release(window);
    dev_buffer_release(copy);
    dev_buffer_release(slot[0]);
    dev_buffer_release(slot[1]);
    dev_program_release(p);
    CHECK(dev_memory_used(d) == 0);
    dev_close(d);
}

static void a_kernel_that_does_not_compile_shows_the_log(void)
{
    dev_device *d = open_default();
    const char *texts[] = { "__kernel void bad(__global float *x) { x[0] = no_such_thing; }\n" };
    dev_program *p;
    if (d)
        CHECK_FAILS(dev_program_build(&p, d, "bad", texts, 1, ""), GT_BUILD, "no_such_thing");
    dev_close(d);
}

static void too_much_memory_is_one_sentence(void)
{
    dev_device *d = open_default();
    dev_buffer *b;
    if (d) {
        CHECK_FAILS(dev_buffer_create(&b, d, dev_info_of(d)->max_alloc_bytes + 1, "weights"), GT_NO_MEMORY,
                    "cannot hold weights");
        CHECK(!b);
    }
    dev_close(d);
}

static int count_files(const char *folder)
{
    int n = 0;
    DIR *dir = opendir(folder);
    for (struct dirent *e; dir && (e = readdir(dir));)
        n += e->d_name[0] != '.';
    if (dir)
        closedir(dir);
    return n;
}

/* Builds once, then damages the cached file in every way a crash or a stranger could. */
static void a_damaged_program_cache_is_rebuilt(void)
{
    char folder[512], path[800] = "", *text;
    size_t size;
    float x = 3.0f;
    setenv("GEARTRAIN_CACHE", check_folder(), 1);
    setenv("GEARTRAIN_PROGRAM_CACHE", "on", 1);
    dev_device *d = open_default();
    dev_program *p = d ? build(d, "-DFACTOR=2.0f") : NULL;
    if (!p)
        goto out;
    dev_program_release(p);
    snprintf(folder, sizeof folder, "%s/programs", check_folder());
    CHECK(count_files(folder) == 1);
    DIR *dir = opendir(folder);
    for (struct dirent *e; dir && (e = readdir(dir));)
        if (e->d_name[0] != '.')
            snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
    if (dir)
        closedir(dir);
    if (!CHECK_OK(gt_file_read(&text, &size, path, 100u << 20)))
        goto out;
    for (int damage = 0; damage < 5; damage++) {
        switch (damage) {                               /* 0: untouched */
        case 1: CHECK_OK(gt_file_write(path, text, size / 2)); break;
        case 2: CHECK_OK(gt_file_write(path, "", 0)); break;
        case 3:
            text[size / 2] ^= 1;
            CHECK_OK(gt_file_write(path, text, size));
            text[size / 2] ^= 1;
            break;
        case 4: CHECK_OK(gt_file_write(path, "GTPROG1\nsomething else entirely, but long enough", 49)); break;
        default: break;
        }
        p = build(d, "-DFACTOR=2.0f");
        dev_buffer *b;
        dev_list *l;
        CHECK_OK(dev_buffer_create(&b, d, sizeof x, "x"));
        CHECK_OK(dev_write(d, b, 0, &x, sizeof x));
        CHECK_OK(dev_list_create(&l, d));
        dev_arg args[] = { dev_arg_buffer(b), dev_arg_f32(5.0f), dev_arg_i32(1) };
        CHECK_OK(dev_list_kernel(l, p, "scale", dev_grid_1d(1, 1), args, 3));
        CHECK_OK(dev_run(l, 0, -1));
        float y = 0;
        CHECK_OK(dev_read(d, b, 0, &y, sizeof y));
        CHECKF(y == 17.0f, "damage %d gave %f", damage, (double)y);
        dev_list_release(l);
        dev_buffer_release(b);
        dev_program_release(p);
    }
    p = build(d, "-DFACTOR=3.0f");                      /* other options, other file */
    CHECK(count_files(folder) == 2);
    dev_program_release(p);
    free(text);
out:
    dev_close(d);
    unsetenv("GEARTRAIN_PROGRAM_CACHE");
    unsetenv("GEARTRAIN_CACHE");
}

/* Several processes build the same program at once into one cache. */
static void ranks_may_build_at_the_same_time(void)
{
    char folder[512];
    snprintf(folder, sizeof folder, "%s/concurrent", check_folder());
    int bad = 0;
    fflush(NULL);
    for (int i = 0; i < 4; i++) {
        pid_t child = fork();
        if (child == 0) {
            setenv("GEARTRAIN_CACHE", folder, 1);
            setenv("GEARTRAIN_PROGRAM_CACHE", "on", 1);
            dev_device *d;
            dev_program *p;
            const char *texts[] = { source };
            _exit(dev_open(&d, getenv("GT_TEST_DEVICE"))
                  || dev_program_build(&p, d, "test", texts, 1, "-DFACTOR=4.0f"));
        }
        bad += child < 0;
    }
    for (int i = 0, status; i < 4; i++)
        if (wait(&status) > 0)
            bad += !WIFEXITED(status) || WEXITSTATUS(status) != 0;
    CHECK(bad == 0);
    snprintf(folder, sizeof folder, "%s/concurrent/programs", check_folder());
    CHECK(count_files(folder) == 1);
}

/* Runs the same work on `spec`; wall seconds, or -1. */
static double timed_burn(const char *spec)
{
    dev_device *d;
    double seconds = -1.0;
    if (getenv("GT_FAULT"))
        check_allow_warnings();
    if (dev_open(&d, spec))
        return seconds;
    dev_program *p = build(d, "-DFACTOR=1.0f");
    dev_buffer *b;
    dev_list *l;
    CHECK_OK(dev_buffer_create(&b, d, 4096 * 4, "x"));
    CHECK_OK(dev_list_create(&l, d));
    dev_arg args[] = { dev_arg_buffer(b), dev_arg_i32(40000) };
    for (int i = 0; i < 10; i++)
        CHECK_OK(dev_list_kernel(l, p, "burn", dev_grid_1d(256, 64), args, 2));
    CHECK_OK(dev_run(l, 0, -1));
    CHECK_OK(dev_wait(d));
    dev_busy_count(d, 1);
    double before = dev_busy_seconds(d);
    uint64_t start = gt_now_ns();
    for (int i = 0; i < 5; i++)
        CHECK_OK(dev_run(l, 0, -1));
    CHECK_OK(dev_wait(d));
    seconds = (double)(gt_now_ns() - start) * 1e-9 / (dev_busy_seconds(d) - before);
    dev_list_release(l);
    dev_buffer_release(b);
    dev_program_release(p);
    dev_close(d);
    return seconds;
}

/* Wall time over the kernels' own time: a property of the mechanism, not of the machine,
 * but for what other programs take away, so the bound is wide. */
static void a_slowed_device_sleeps_in_proportion(void)
{
    double quarter = timed_burn("0:0@0.25");
    CHECKF(quarter > 3.0, "wall is %.2f times kernel time, want about 4", quarter);
}

static void sub_devices_open_and_run(void)
{
    dev_info *all;
    int n;
    if (!CHECK_OK(dev_find(&all, &n)))
        return;
    if (all[0].compute_units < 2 || all[0].sub_devices_max < 2) {
        check_skip("device %s cannot be split", all[0].id);
    } else {
        dev_device *d;
        if (CHECK_OK(dev_open(&d, "0:0.1")))
            CHECK(dev_info_of(d)->compute_units == all[0].compute_units / 2);
        dev_close(d);
        CHECK(timed_burn("0:0.1") > 0.0);
    }
    free(all);
}

/* In the queue's order, none before the one ahead of it is over, all between begin and end. */
static void traced_work_becomes_spans(void)
{
    static const char *const names[] = { "write 4096 bytes", "first: scale",  "first: copy",    "second: scale",
                                         "second: fill",     "read 64 bytes", "read 4096 bytes" };
    enum { N = 1024, ROUNDS = 200 };
    float x[N] = { 0 };
    dev_device *d = open_default();
    dev_program *p = d ? build(d, "-DFACTOR=1.0f") : NULL;
    dev_buffer *a = NULL, *b = NULL;
    dev_list *l = NULL;
    dev_event *event = NULL;
    gt_trace t = { 0 };
    if (!p)
        goto out;
    CHECK_OK(dev_buffer_create(&a, d, sizeof x, "a"));
    CHECK_OK(dev_buffer_create(&b, d, sizeof x, "b"));
    CHECK_OK(dev_list_create(&l, d));
    dev_arg args[] = { dev_arg_buffer(a), dev_arg_f32(2.0f), dev_arg_i32(N) };
    dev_list_label(l, "first");
    CHECK_OK(dev_list_kernel(l, p, "scale", dev_grid_1d(N, 1), args, 3));
    CHECK_OK(dev_list_copy(l, b, 0, a, 0, sizeof x));
    dev_list_label(l, "second");
    CHECK_OK(dev_list_kernel(l, p, "scale", dev_grid_1d(N, 1), args, 3));
    CHECK_OK(dev_list_fill(l, a, 0, 0, 4));
    CHECK_OK(dev_run(l, 0, -1));                /* not traced */
    CHECK_OK(gt_trace_start(10000));
    const uint64_t before = gt_now_ns();
    CHECK_OK(dev_write(d, a, 0, x, sizeof x));
    CHECK_OK(dev_run(l, 0, -1));
    CHECK_OK(dev_read_start(d, a, 0, x, 64, &event));
    CHECK_OK(dev_event_wait(event));
    CHECK_OK(dev_read(d, b, 0, x, sizeof x));
    CHECK_OK(dev_wait(d));
    const uint64_t after = gt_now_ns();
    CHECK_OK(gt_trace_take(&t));
    if (CHECKF(t.count == 7, "%zu spans", t.count))
        for (int i = 0; i < 7; i++) {
            const int moves = i == 0 || i > 4;
            CHECKF(!strcmp(t.span[i].name, names[i]), "%d: '%s'", i, t.span[i].name);
            CHECK(t.span[i].begin <= t.span[i].end && (!i || t.span[i].begin >= t.span[i - 1].end));
            CHECK(t.span[i].track == (moves ? GT_TRACK_COPY : GT_TRACK_COMPUTE));
            CHECK(t.span[i].category == (i == 1 || i == 3 ? GT_TRACE_KERNEL : GT_TRACE_COPY));
            /* The clocks are matched to microseconds; a second tells them apart at all. */
            CHECK(t.span[i].begin + 1000000000u > before && t.span[i].end < after + 1000000000u);
        }
    gt_trace_release(&t);
    for (int i = 0; i < ROUNDS; i++)            /* nobody waits for the device in between */
        CHECK_OK(dev_run(l, 0, -1));
    CHECK_OK(dev_wait(d));
    CHECK_OK(gt_trace_take(&t));
    CHECKF(t.count == 7 + 4 * ROUNDS, "%zu spans", t.count);
    CHECK(dev_busy_seconds(d) == 0.0);          /* tracing is not counting */
    gt_trace_release(&t);
out:
    gt_trace_stop();
    dev_list_release(l);
    dev_buffer_release(a);
    dev_buffer_release(b);
    dev_program_release(p);
    dev_close(d);
}

/* Pieces that all cores copy come after what is queued before them, and before what is queued after. */
static void large_copies_keep_their_place_in_the_queue(void)
{
    enum { COUNT = (9 << 20) / 4 + 3, FROM = 5, SOME = COUNT - 11 };
    dev_device *d = open_default();
    dev_buffer *b = NULL, *c = NULL;
    dev_list *l = NULL;
    uint32_t *x = malloc(COUNT * sizeof *x), *y = malloc(COUNT * sizeof *y);
    size_t wrong = 0;
    if (!d || !x || !y || !CHECK_OK(dev_buffer_create_zero(&b, d, COUNT * 4, "test"))
        || !CHECK_OK(dev_buffer_create(&c, d, COUNT * 4, "test")) || !CHECK_OK(dev_list_create(&l, d)))
        goto out;
    memset(x, 0xff, COUNT * sizeof *x);
    CHECK_OK(dev_read(d, b, 0, x, COUNT * 4));
    for (size_t i = 0; i < COUNT; i++)
        wrong += x[i] != 0;
    CHECKF(wrong == 0, "%zu words of fresh memory are not zero", wrong);
    for (uint32_t i = 0; i < COUNT; i++)
        x[i] = i * 2654435761u;
    CHECK_OK(dev_list_fill(l, b, 0, 7, COUNT * 4));
    CHECK_OK(dev_list_copy(l, c, 0, b, 0, COUNT * 4));
    CHECK_OK(dev_run(l, 0, 1));
    CHECK_OK(dev_write(d, b, FROM * 4, x, (uint64_t)SOME * 4));
    CHECK_OK(dev_run(l, 1, 2));
    CHECK_OK(dev_read(d, c, 0, y, COUNT * 4));
    for (size_t i = 0; i < COUNT; i++)
        wrong += y[i] != (i < FROM || i >= FROM + SOME ? 7 : x[i - FROM]);
    CHECKF(wrong == 0, "%zu words differ", wrong);
    memset(y, 0, COUNT * sizeof *y);
    CHECK_OK(dev_read(d, c, FROM * 4, y, (uint64_t)SOME * 4));
    CHECK(!memcmp(x, y, (size_t)SOME * 4));
out:
    dev_list_release(l);
    dev_buffer_release(b);
    dev_buffer_release(c);
    dev_close(d);
    free(x);
    free(y);
}

static size_t count_other(const uint32_t *x, size_t from, size_t to, uint32_t value)
{
    size_t wrong = 0;
    for (size_t i = from; i < to; i++)
        wrong += x[i] != value;
    return wrong;
}

/* Transfers with a queue of their own see what was queued before them and nothing of what comes after, as on one queue.
 * faulty.sh runs this with copies that begin late. */
static void transfers_beside_launches_keep_the_order_of_one_queue(void)
{
    enum { COUNT = 1 << 16, HALF = COUNT / 2, TURNS = 12 };
    dev_device *d = NULL;
    dev_buffer *a = NULL, *b = NULL, *low = NULL, *high = NULL;
    uint32_t *x = malloc(COUNT * sizeof *x), *y = malloc(HALF * sizeof *y), *z = malloc(COUNT * sizeof *z);
    setenv("GEARTRAIN_TRANSFER_QUEUE", "perhaps", 1);
    CHECK_FAILS(dev_open(&d, NULL), GT_MISUSE, "GEARTRAIN_TRANSFER_QUEUE is 'perhaps'");
    setenv("GEARTRAIN_TRANSFER_QUEUE", "on", 1);
    setenv("GEARTRAIN_TRANSFER_PIECE", "much", 1);
    CHECK_FAILS(dev_open(&d, NULL), GT_MISUSE, "GEARTRAIN_TRANSFER_PIECE is 'much', not bytes");
    unsetenv("GEARTRAIN_TRANSFER_PIECE");
    d = open_default();
    unsetenv("GEARTRAIN_TRANSFER_QUEUE");
    if (!d || !x || !y || !z || !CHECK_OK(dev_buffer_create(&a, d, COUNT * 4, "test"))
        || !CHECK_OK(dev_buffer_create(&b, d, COUNT * 4, "test")) || !CHECK_OK(dev_buffer_view(&low, a, 0, HALF * 4))
        || !CHECK_OK(dev_buffer_view(&high, a, HALF * 4, HALF * 4)))
        goto out;
    for (uint32_t k = 1; k <= TURNS; k++) {
        dev_list *l = NULL;
        dev_event *first = NULL, *second = NULL, *third = NULL;
        for (size_t i = 0; i < HALF; i++)
            y[i] = 3000 + k;
        CHECK_OK(dev_list_create(&l, d));
        CHECK_OK(dev_list_fill(l, a, 0, k, COUNT * 4));
        CHECK_OK(dev_list_fill(l, low, 0, 1000 + k, HALF * 4));
        CHECK_OK(dev_list_fill(l, high, 0, 2000 + k, HALF * 4));
        CHECK_OK(dev_list_copy(l, b, 0, a, 0, COUNT * 4));
        CHECK_OK(dev_run(l, 0, 1));
        CHECK_OK(dev_read_start(d, a, 0, x, COUNT * 4, &first));
        CHECK_OK(dev_run(l, 1, 3)); /* after what is read */
        CHECK_OK(dev_write_start(d, a, HALF * 4, y, HALF * 4, &second));
        CHECK_OK(dev_run(l, 3, 4)); /* after what is written */
        CHECK_OK(dev_read_start(d, b, 0, z, COUNT * 4, &third));
        if (k % 2) {
            CHECK_OK(dev_event_wait(first));
            CHECK_OK(dev_event_wait(second));
            CHECK_OK(dev_event_wait(third));
        } else {
            CHECK_OK(dev_wait(d));
        }
        CHECKF(count_other(x, 0, COUNT, k) == 0, "%zu words were written before they were read",
               count_other(x, 0, COUNT, k));
        CHECKF(count_other(z, 0, HALF, 1000 + k) == 0 && count_other(z, HALF, COUNT, 3000 + k) == 0,
               "%zu and %zu words were copied before they were written", count_other(z, 0, HALF, 1000 + k),
               count_other(z, HALF, COUNT, 3000 + k));
        CHECK_OK(dev_read(d, a, HALF * 4, z, HALF * 4));
        CHECK(count_other(z, 0, HALF, 3000 + k) == 0);
        if (k % 2 == 0) {
            CHECK_OK(dev_event_wait(first));
            CHECK_OK(dev_event_wait(second));
            CHECK_OK(dev_event_wait(third));
        }
        dev_list_release(l);
    }
out:
    dev_buffer_release(low);
    dev_buffer_release(high);
    dev_buffer_release(a);
    dev_buffer_release(b);
    dev_close(d);
    free(x);
    free(y);
    free(z);
}

const check_case check_cases[] = {
    CASE(every_device_has_an_id_and_can_be_found_by_it),
    CASE(lists_of_ids_are_split),
    CASE(a_list_runs_in_order_and_again),
    CASE(native_kernels_see_views_at_their_place),
    CASE(windows_lead_to_what_they_stand_for),
    CASE(a_kernel_that_does_not_compile_shows_the_log),
    CASE(too_much_memory_is_one_sentence),
    CASE(a_damaged_program_cache_is_rebuilt),
    CASE(ranks_may_build_at_the_same_time),
    CASE(a_slowed_device_sleeps_in_proportion),
    CASE(sub_devices_open_and_run),
    CASE(traced_work_becomes_spans),
    CASE(large_copies_keep_their_place_in_the_queue),
    CASE(transfers_beside_launches_keep_the_order_of_one_queue),
    CASE(a_lost_device_may_write_to_what_was_released),
    { 0 }
};
