/* SPDX-License-Identifier: MIT */
/* host/gemm/gemm_peak.c - the device's arithmetic and copy peaks, by cl/peak.cl. */
#include "host/gemm/engine.h"

#include "host/base/activity.h"
#include "host/base/clock.h"
#include "host/base/file.h"
#include "host/base/log.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHAINS = 12, BLOCK = 4096 };

const dev_family gemm_peak_family = { .file = "peak.cl", .variants = dev_plain };

static size_t group_size(const dev_info *info)
{
    size_t group = 256;                 /* WG, as dev_program_build chooses it */
    if (info->style == DEV_STYLE_CPU)
        return 1;
    while (group > info->max_group)
        group /= 2;
    return group;
}

/* The shortest of `runs` runs of launch `index`, after one that is not counted. */
static gt_status shortest(dev_list *l, int index, int runs, dev_device *d, double *seconds)
{
    uint64_t best = UINT64_MAX;
    gt_status st = GT_OK;
    for (int i = 0; !st && i <= runs; i++) {
        const uint64_t start = gt_now_ns();
        st = dev_run_stoppable(l, index, index + 1);
        if (!st)
            st = dev_wait(d);
        const uint64_t took = gt_now_ns() - start;
        if (i > 0 && took < best)
            best = took;
    }
    *seconds = (double)best * 1e-9;
    return st;
}

static gt_status measure_fma(dev_device *d, dev_program *p, double *flops)
{
    const dev_info *info = dev_info_of(d);
    const int cpu = info->style == DEV_STYLE_CPU;
    const size_t width = cpu ? (info->float_width >= 16 ? 16 : info->float_width >= 8 ? 8 : 4) : 4;
    const size_t items = (size_t)info->compute_units * (cpu ? 4 : 2048);
    dev_buffer *out = NULL;
    dev_list *l = NULL;
    double seconds = 0;
    int rounds = 512;

    gt_status st = dev_buffer_create(&out, d, (items + group_size(info)) * width * sizeof(float), "peak measurement");
    if (!st)
        st = dev_list_create(&l, d);
    if (!st) {
        /* 0.5 x + 1 goes to 2 and stays there: no overflow, no denormals. */
        const dev_arg args[] = { dev_arg_buffer(out), dev_arg_i32(rounds), dev_arg_f32(0.5f), dev_arg_f32(1.0f) };
        st = dev_list_kernel(l, p, "peak_fma", dev_grid_1d(items, group_size(info)), args, 4);
    }
    /* Long enough that the launch does not show, short enough to catch a quiet moment. */
    while (!st) {
        st = shortest(l, 0, 3, d, &seconds);
        if (st || seconds > 2e-3 || rounds > 1 << 24)
            break;
        rounds *= 2;
        st = dev_list_set(l, 0, 1, dev_arg_i32(rounds));
    }
    if (!st)
        st = shortest(l, 0, 30, d, &seconds);
    if (!st)
        *flops = 2.0 * (double)width * CHAINS * rounds * (double)items / seconds;
    dev_list_release(l);
    dev_buffer_release(out);
    return st;
}

/* ---- a plain copy --------------------------------------------------------------------------------- */

struct gemm_copy {
    dev_device *device;
    dev_program *program;
    dev_buffer *from, *to;
    dev_list *list;
    uint64_t bytes;             /* read and written */
};

static gt_status fill_and_append(gemm_copy *c)
{
    const dev_info *info = dev_info_of(c->device);
    const int cpu = info->style == DEV_STYLE_CPU;
    const int width = cpu ? (info->float_width >= 16 ? 16 : info->float_width >= 8 ? 8 : 4) : 4;
    const int block = cpu ? BLOCK : 4;
    const int vectors = (int)(c->bytes / 2 / sizeof(float)) / width;
    const dev_arg args[] = { dev_arg_buffer(c->from), dev_arg_buffer(c->to), dev_arg_i32(block), dev_arg_i32(vectors) };
    gt_status st = dev_list_fill(c->list, c->from, 0, 0, c->bytes / 2);
    if (!st)
        st = dev_run(c->list, 0, 1);
    return st ? st
              : dev_list_kernel(c->list, c->program, "peak_copy",
                                dev_grid_1d((size_t)((vectors + block - 1) / block), group_size(info)), args, 4);
}

gt_status gemm_copy_create(gemm_copy **out, dev_device *d, uint64_t bytes)
{
    const uint64_t half = bytes / 2 & ~0xffffull, most = dev_info_of(d)->max_alloc_bytes / 2 & ~0xffffull;
    *out = NULL;
    gemm_copy *c = calloc(1, sizeof *c);
    if (!c)
        return gt_fail(GT_NO_MEMORY, "cannot measure a copy: no memory for its settings");
    c->device = d;
    c->bytes = 2 * (half > most ? most : half ? half : 0x10000);
    gt_status st = dev_family_build(&c->program, d, &gemm_peak_family, DTYPE_F32, "");
    if (!st)
        st = dev_buffer_create(&c->from, d, c->bytes / 2, "peak measurement");
    if (!st)
        st = dev_buffer_create(&c->to, d, c->bytes / 2, "peak measurement");
    if (!st)
        st = dev_list_create(&c->list, d);
    if (!st)
        st = fill_and_append(c);
    if (st)
        gemm_copy_release(c);
    else
        *out = c;
    return st;
}

void gemm_copy_release(gemm_copy *c)
{
    if (!c)
        return;
    dev_list_release(c->list);
    dev_buffer_release(c->from);
    dev_buffer_release(c->to);
    dev_program_release(c->program);
    free(c);
}

gt_status gemm_copy_run(gemm_copy *c, int runs, double *bytes_per_second)
{
    double seconds = 0.0;
    gt_status st = shortest(c->list, 1, runs, c->device, &seconds);
    if (!st)
        *bytes_per_second = (double)c->bytes / seconds;
    return st;
}

static gt_status measure_copy(dev_device *d, double *bytes_per_second)
{
    gemm_copy *c;
    gt_status st = gemm_copy_create(&c, d, 128ull << 20);
    if (!st)
        st = gemm_copy_run(c, 8, bytes_per_second);
    gemm_copy_release(c);
    return st;
}

double gemm_peak_of(const dev_info *info, int matrix_units, const gemm_peak *peak, dtype storage)
{
    int own = matrix_units || (storage == DTYPE_F16 && info->fp16);
#ifdef GT_WITH_ONEDNN
    own |= info->kind == DEV_CPU && info->native_kernels && gemm_onednn_has_own(storage);
#endif
    return storage != DTYPE_F32 && own ? 0.0 : peak->flops;
}

gt_status gemm_peak_measure(dev_device *d, gemm_peak *out)
{
    dev_program *p;
    gemm_peak peak = { 0 };
    gt_activity a;
    gt_activity_begin(&a, "measuring the device's peak", NULL, 0);
    dev_full_speed(d, 1);
    gt_status st = dev_family_build(&p, d, &gemm_peak_family, DTYPE_F32, "");
    if (!st) {
        st = measure_fma(d, p, &peak.flops);
        if (!st)
            st = measure_copy(d, &peak.copy_bytes);
        dev_program_release(p);
    }
    dev_full_speed(d, 0);
    gt_activity_end(&a);
    if (!st)
        *out = peak;
    return st;
}

gt_status gemm_peak_cached(dev_device *d, gemm_peak *out)
{
    char *folder, *text, path[4096];
    double flops, copy;
    if (gt_cache_folder(&folder, "peak"))
        return gemm_peak_measure(d, out);
    snprintf(path, sizeof path, "%s/%016llx.txt", folder, (unsigned long long)dev_fingerprint(d));
    free(folder);
    if (!gt_file_read(&text, NULL, path, 4096)) {
        int end = 0;
        const int whole = sscanf(text, "%lf %lf%n", &flops, &copy, &end) == 2 && !strcmp(text + end, "\n")
                          && flops > 0.0 && copy > 0.0 && isfinite(flops) && isfinite(copy);
        free(text);
        if (whole) {
            *out = (gemm_peak){ flops, copy };
            return GT_OK;
        }
        gt_log(GT_LOG_INFO, "gemm", "the peaks in '%s' are damaged; they are measured again", path);
    }
    gt_message_clear();
    gt_status st = gemm_peak_measure(d, out);
    if (!st) {
        char line[64];
        const int n = snprintf(line, sizeof line, "%.6e %.6e\n", out->flops, out->copy_bytes);
        if (gt_file_write(path, line, (size_t)n))
            gt_message_clear();                     /* measured again next time */
    }
    return st;
}
