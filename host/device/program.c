/* SPDX-License-Identifier: MIT */
/* host/device/program.c - from kernel text to a built program, kept on disk between runs.
 *
 * A cache file holds what clGetProgramInfo(CL_PROGRAM_BINARIES) gave, behind a header:
 *
 *   "GTPROG1\n"  key u64  size u64  hash of the binary u64  binary ...
 *
 * The key hashes device fingerprint (platform, name, versions, driver), options and all
 * text, and is the file's name as well: whatever could change the binary changes the key.
 * Files are written aside and renamed, so ranks that build at once do no harm, and a torn
 * or foreign file fails its hash and is built again. Drivers that keep a cache themselves
 * (NVIDIA, PoCL) are left to it: asking PoCL for a binary compiles everything once more. */
#include "host/device/device_private.h"

#include "cl/kernels.h"
#include "host/base/activity.h"
#include "host/base/clock.h"
#include "host/base/file.h"
#include "host/base/log.h"
#include "host/base/text.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char magic[8] = "GTPROG1\n";

typedef struct cache_header {
    char magic[8];
    uint64_t key, size, hash;
} cache_header;

static gt_status fail_build(dev_device *d, cl_program program, const char *name, cl_int err)
{
    size_t size = 0;
    clGetProgramBuildInfo(program, d->id, CL_PROGRAM_BUILD_LOG, 0, NULL, &size);
    char *text = calloc(1, size + 1);
    if (text)
        clGetProgramBuildInfo(program, d->id, CL_PROGRAM_BUILD_LOG, size, text, NULL);
    gt_status st = gt_fail(GT_BUILD,
                           "cannot build kernels '%s' on device '%s' (%s, driver %s): "
                           "%s\n%s",
                           name, d->info.id, d->info.name, d->info.driver, cl_error_name(err), text ? text : "");
    free(text);
    return st;
}

int dev_vector_width(const dev_info *i)
{
    if (i->style == DEV_STYLE_GPU)
        return 4;
    return i->float_width >= 16 ? 16 : i->float_width >= 8 ? 8 : 4;
}

size_t dev_group_size(const dev_info *i)
{
    size_t group = i->style == DEV_STYLE_CPU ? 1 : 256;
    while (group > i->max_group)
        group /= 2;
    return group;
}

/* What the device adds to every build. */
static void style_options(const dev_info *i, char *out, size_t size)
{
    if (i->style == DEV_STYLE_CPU)
        snprintf(out, size, "-DSTYLE_CPU -DVW=%d", dev_vector_width(i));
    else
        snprintf(out, size, "-DSTYLE_GPU -DWG=%zu", dev_group_size(i));
    const size_t at = strlen(out);
    if (i->xmx_lanes)
        snprintf(out + at, size - at, " -DXMX_LANES=%d", i->xmx_lanes);
}

static int cache_wanted(const dev_device *d)
{
    const char *choice = getenv("GEARTRAIN_PROGRAM_CACHE");
    if (choice && !strcmp(choice, "off"))
        return 0;
    if (choice && !strcmp(choice, "on"))
        return 1;
    return !d->info.own_cache;
}

/* NULL if there is no whole file for this key. */
static cl_program load_cached(dev_device *d, const char *path, uint64_t key, const char *options)
{
    gt_map map;
    cl_program program = NULL;
    if (gt_map_open(&map, path)) {
        gt_message_clear();
        return NULL;
    }
    cache_header h;
    if (map.size < sizeof h)
        goto torn;
    memcpy(&h, map.data, sizeof h);
    const unsigned char *binary = map.data + sizeof h;
    if (memcmp(h.magic, magic, sizeof magic) || h.key != key || h.size != map.size - sizeof h
        || gt_hash(binary, h.size) != h.hash)
        goto torn;
    size_t size = (size_t)h.size;
    cl_int err, status;
    program = clCreateProgramWithBinary(d->context, 1, &d->id, &size, &binary, &status, &err);
    if (err == CL_SUCCESS && clBuildProgram(program, 1, &d->id, options, NULL, NULL) != CL_SUCCESS) {
        clReleaseProgram(program);
        program = NULL;
    } else if (err != CL_SUCCESS)
        program = NULL;
    if (program)
        goto out;
torn:
    gt_log(GT_LOG_INFO, "device", "cached program '%s' is not usable; building it again", path);
out:
    gt_map_close(&map);
    return program;
}

/* A cache that cannot be written is worth a log line, never a failure. */
static void store_cached(dev_device *d, cl_program program, const char *path, uint64_t key)
{
    size_t size = 0;
    gt_writer *w = NULL;
    unsigned char *binary = NULL;
    if (clGetProgramInfo(program, CL_PROGRAM_BINARY_SIZES, sizeof size, &size, NULL) != CL_SUCCESS || !size
        || !(binary = malloc(size))
        || clGetProgramInfo(program, CL_PROGRAM_BINARIES, sizeof binary, &binary, NULL) != CL_SUCCESS)
        goto out;
    cache_header h = { .key = key, .size = size, .hash = gt_hash(binary, size) };
    memcpy(h.magic, magic, sizeof magic);
    gt_status st = gt_writer_open(&w, path);
    if (!st)
        st = gt_writer_put(w, &h, sizeof h);
    if (!st)
        st = gt_writer_put(w, binary, size);
    if (st)
        gt_writer_abandon(w);
    else
        st = gt_writer_commit(w);
    if (st) {
        gt_log(GT_LOG_INFO, "device", "cannot keep the program for '%s': %s", d->info.id, gt_message());
        gt_message_clear();
    }
out:
    free(binary);
}

gt_status dev_program_make(dev_program **out, dev_device *d, const char *name, const char *const *sources, int count,
                           const char *options, int keep)
{
    char style[64], what[64], *folder = NULL, path[4096] = "";
    gt_text all = { 0 };
    gt_status st = GT_OK;
    cl_int err;
    const uint64_t start = gt_now_ns();

    *out = NULL;
    gt_activity compiling;
    snprintf(what, sizeof what, "compiling %s", name);
    gt_activity_begin(&compiling, what, NULL, 0);
    dev_program *p = calloc(1, sizeof *p);
    style_options(&d->info, style, sizeof style);
    gt_text_printf(&all, "%016llx %s %s -cl-std=CL1.2", (unsigned long long)dev_fingerprint(d), options ? options : "",
                   style);
    size_t options_end = all.size + 1;
    gt_text_put(&all, "", 1);                           /* options end here, text begins */
    for (int i = 0; i < count; i++)
        gt_text_put(&all, sources[i], strlen(sources[i]));
    if (!p || all.failed) {
        st = gt_fail(GT_NO_MEMORY, "cannot build kernels '%s': no memory for their text", name);
        goto out;
    }
    const char *build = all.data + 17;
    const char *text = all.data + options_end;
    p->device = d;
    snprintf(p->name, sizeof p->name, "%s", name);

    uint64_t key = gt_hash(all.data, all.size);
    if (keep && !gt_cache_folder(&folder, "programs")) {
        snprintf(path, sizeof path, "%s/%016llx.bin", folder, (unsigned long long)key);
        p->program = load_cached(d, path, key, build);
    }
    st = gt_activity_at(&compiling, 0);
    if (st)
        goto out;
    if (!p->program) {
        p->program = clCreateProgramWithSource(d->context, 1, &text, NULL, &err);
        if (err != CL_SUCCESS) {
            p->program = NULL;
            st = gt_fail(GT_DEVICE, "cannot create program '%s' on device '%s': %s", name, d->info.id,
                         cl_error_name(err));
            goto out;
        }
        err = clBuildProgram(p->program, 1, &d->id, build, NULL, NULL);
        if (err != CL_SUCCESS) {
            st = fail_build(d, p->program, name, err);
            goto out;
        }
        if (path[0])
            store_cached(d, p->program, path, key);
    }
    gt_log(GT_LOG_DEBUG, "device", "built '%s' for %s in %.0f ms", name, d->info.id,
           (double)(gt_now_ns() - start) * 1e-6);
    *out = p;
    p = NULL;
out:
    gt_activity_end(&compiling);
    free(folder);
    gt_text_release(&all);
    dev_program_release(p);
    return st;
}

gt_status dev_program_build(dev_program **out, dev_device *d, const char *name, const char *const *sources, int count,
                            const char *options)
{
    *out = NULL;
    gt_status st = d->unproven ? dev_judge(d) : GT_OK;
    return st ? st : dev_program_make(out, d, name, sources, count, options, cache_wanted(d));
}

/* ---- families ----------------------------------------------------------------------------- */

const dev_variant dev_plain_for_all[] = { { "", DEV_FOR_ALL }, { 0 } }, dev_plain[] = { { "", 0 }, { 0 } };

const char *dev_store_option(dtype storage)
{
    static const char *const options[DTYPE_STORAGES] = { "-DSTORE=0", "-DSTORE=1", "-DSTORE=2" };
    return options[storage];
}

gt_status dev_family_build(dev_program **out, dev_device *d, const dev_family *f, dtype storage, const char *options)
{
    const char *const *parts = cl_parts(f->file);
    const int intel = f->intel && d->info.kind == DEV_GPU && strstr(d->info.vendor, "Intel");
    char all[256];
    int count = 0;
    assert(parts);
    while (parts[count])
        count++;
    const int length = snprintf(all, sizeof all, "%s%s%s%s%s", f->stored ? dev_store_option(storage) : "",
                                f->stored && *options ? " " : "", options, intel ? " " : "", intel ? f->intel : "");
    assert(length < (int)sizeof all);
    (void)length;
    return dev_program_build(out, d, f->file, parts, count, all);
}

const dev_family *dev_family_at(int i)
{
    return i == 0 ? &dev_probe_family : i == 1 ? dev_prove_family() : NULL;
}

void dev_program_release(dev_program *p)
{
    if (!p)
        return;
    if (p->program)
        clReleaseProgram(p->program);
    free(p);
}

dev_device *dev_program_device(dev_program *p)
{
    return p->device;
}
