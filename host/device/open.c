/* SPDX-License-Identifier: MIT */
/* host/device/open.c - from a spec such as "cpu:0.1@0.25" to a device ready for work.
 *
 *   gpu:1      kind : index            1:0        platform : index
 *   cpu:0.1    second of two halves    cpu:0.1/4  second of four quarters
 *   ...@0.25   slowed down: after each stretch of work the host sleeps three times as long
 *              as the kernels took by their own timers, so an unequal device can be had
 *              where all devices are equal
 *
 * The queue is in order: AMD's and NVIDIA's drivers give no out-of-order queue worth
 * having, and an in-order queue lets a step run without a single event.                 */
#include "host/device/device_private.h"

#include "host/base/clock.h"
#include "host/base/file.h"
#include "host/base/log.h"
#include "host/base/text.h"

#include <ctype.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct spec {
    char base[32];              /* "cpu:0" or "1:0"                     */
    int part, parts;            /* parts 0: the whole device            */
    int all_parts;              /* "cpu:0/2": every part, in a list     */
    double speed;
    uint64_t after_ns;          /* slow only so long after it was opened */
} spec;

static gt_status bad_spec(const char *text)
{
    return gt_fail(GT_MISUSE,
                   "device '%s' is not an id such as gpu:0, cpu:0.1, cpu:0/2 or 1:0, "
                   "with @0.25 behind it to slow it down; `geartrain devices` lists them",
                   text);
}

/* Reads a small non-negative number; moves *p behind it. */
static int read_number(const char **p, int *out)
{
    if (!isdigit((unsigned char)**p))
        return 0;
    long n = 0;
    for (; isdigit((unsigned char)**p); (*p)++)
        if ((n = n * 10 + (**p - '0')) > 9999)
            return 0;
    *out = (int)n;
    return 1;
}

static gt_status parse_spec(spec *out, const char *text)
{
    memset(out, 0, sizeof *out);
    out->speed = 1.0;
    size_t head = strcspn(text, ":");
    int index;
    const char *p = text + head;
    if (!head || head > 8 || *p++ != ':' || !read_number(&p, &index))
        return bad_spec(text);
    snprintf(out->base, sizeof out->base, "%.*s:%d", (int)head, text, index);
    if (*p == '.') {
        p++;
        out->parts = 2;
        if (!read_number(&p, &out->part))
            return bad_spec(text);
    }
    if (*p == '/') {
        p++;
        out->all_parts = out->parts == 0;
        if (!read_number(&p, &out->parts) || out->parts < 1)
            return bad_spec(text);
    }
    if (*p == '@') {
        char number[24];
        const size_t digits = strcspn(p + 1, "+");
        snprintf(number, sizeof number, "%.*s", (int)digits, p + 1);
        if (digits >= sizeof number || gt_parse_double(&out->speed, number) || out->speed <= 0.0 || out->speed > 1.0)
            return gt_fail(GT_MISUSE, "device '%s': the speed behind '@' must lie in (0, 1]", text);
        p += 1 + digits;
        if (*p == '+' && gt_parse_duration(&out->after_ns, p + 1))
            return gt_fail_in(GT_MISUSE, "device '%s', from when it is slow", text);
        p += strlen(p);
    }
    if (*p || (!out->all_parts && out->parts && out->part >= out->parts))
        return bad_spec(text);
    return GT_OK;
}

void dev_specs_free(char **specs, int count)
{
    for (int i = 0; specs && i < count; i++)
        free(specs[i]);
    free(specs);
}

static gt_status add_spec(char ***specs, int *count, const char *text)
{
    char **more = realloc(*specs, (size_t)(*count + 1) * sizeof *more);
    if (more)
        *specs = more;
    if (!more || !(more[*count] = strdup(text)))
        return gt_fail(GT_NO_MEMORY, "no memory for a list of %d devices", *count + 1);
    (*count)++;
    return GT_OK;
}

/* The id of the device to use when none is named: the first GPU, else the first of all. One that
 * is refused is passed over; the only one there is is named all the same, and opening it tells why
 * it is refused. */
static gt_status best_device(char out[32])
{
    dev_info *all;
    int n, best = -1;
    gt_status st = dev_find(&all, &n);
    if (st)
        return st;
    for (int gpus = 1; gpus >= 0; gpus--)
        for (int i = 0; best < 0 && i < n; i++) {
            if ((all[i].kind == DEV_GPU) != gpus)
                continue;
            if (n == 1 || !dev_usable(&all[i])) {
                best = i;
                continue;
            }
            gt_log(GT_LOG_WARN, "device", "%s is passed over: %s", all[i].id, gt_message());
            gt_message_clear();
        }
    if (best < 0)
        st = gt_fail(GT_UNSUPPORTED,
                     "none of the %d OpenCL devices here can be used; `geartrain "
                     "doctor` says why",
                     n);
    else
        memcpy(out, all[best].id, sizeof all[best].id);
    free(all);
    return st;
}

gt_status dev_specs(char ***out, int *count, const char *list)
{
    char best[32];
    *out = NULL;
    *count = 0;
    gt_status st = GT_OK;
    if (!list || !*list || !strcmp(list, "auto")) {
        st = best_device(best);
        if (st)
            return st;
        list = best;
    }
    while (!st && *list) {
        char word[96], part[160];
        size_t n = strcspn(list, ",");
        spec s;
        if (n >= sizeof word)
            st = bad_spec(list);
        else {
            snprintf(word, sizeof word, "%.*s", (int)n, list);
            st = parse_spec(&s, word);
        }
        if (!st && s.all_parts)
            for (int i = 0; !st && i < s.parts; i++) {
                const char *tail = strchr(word, '@');
                snprintf(part, sizeof part, "%s.%d/%d%s", s.base, i, s.parts, tail ? tail : "");
                st = add_spec(out, count, part);
            }
        else if (!st)
            st = add_spec(out, count, word);
        list += n;
        list += *list == ',';
    }
    if (st) {
        dev_specs_free(*out, *count);
        *out = NULL;
        *count = 0;
    }
    return st;
}

/* Splits the found device into s->parts equal sub-devices and keeps number s->part. That is never
 * released: threads of PoCL (3.1) still look at the device of their last event after clFinish() has
 * returned, and found it freed then. It costs some hundred bytes. */
static gt_status take_part(dev_device *d, const spec *s, const char *text)
{
    int units = d->info.compute_units / s->parts;
    if (units < 1)
        return gt_fail(GT_MISUSE, "device '%s': cannot split %d compute units into %d parts", text,
                       d->info.compute_units, s->parts);
    cl_device_partition_property how[] = { CL_DEVICE_PARTITION_EQUALLY, units, 0 };
    cl_uint n = 0;
    cl_device_id parts[1024];
    cl_int err = clCreateSubDevices(d->id, how, 1024, parts, &n);
    if (err != CL_SUCCESS)
        return gt_fail(GT_UNSUPPORTED, "device '%s': '%s' cannot be split into sub-devices: %s", text, d->info.name,
                       cl_error_name(err));
    for (cl_uint i = 0; i < n; i++)
        if ((int)i != s->part)
            clReleaseDevice(parts[i]);
    if (s->part >= (int)n)
        return gt_fail(GT_NOT_FOUND, "device '%s': there are only %u such parts", text, n);
    d->id = parts[s->part];
    d->info.compute_units = units;
    d->info.part = s->part;
    d->info.parts = s->parts;
    return GT_OK;
}

/* Tests and people may ask for the other kind of kernel body. */
static gt_status override_style(dev_device *d)
{
    const char *style = getenv("GEARTRAIN_STYLE");
    if (!style || !*style)
        return GT_OK;
    if (!strcmp(style, "cpu"))
        d->info.style = DEV_STYLE_CPU;
    else if (!strcmp(style, "gpu"))
        d->info.style = DEV_STYLE_GPU;
    else
        return gt_fail(GT_MISUSE, "GEARTRAIN_STYLE is '%s', not cpu or gpu", style);
    return GT_OK;
}

gt_status dev_open_unproven(dev_device **out, const char *text)
{
    found *all = NULL;
    int n = 0;
    spec s;
    cl_int err;
    char best[32];

    *out = NULL;
    if (!text || !*text || !strcmp(text, "auto")) {
        gt_status st = best_device(best);
        if (st)
            return st;
        text = best;
    }
    dev_device *d = calloc(1, sizeof *d);
    if (!d)
        return gt_fail(GT_NO_MEMORY, "cannot open device '%s': no memory for its state", text);
    gt_status st = parse_spec(&s, text);
    if (!st && s.all_parts)
        st = gt_fail(GT_MISUSE, "device '%s' is several sub-devices; one is %s.0", text, s.base);
    if (!st)
        st = dev_discover(&all, &n);
    if (st)
        goto out;

    int at = 0;
    while (at < n && strcmp(all[at].info.id, s.base) && strcmp(all[at].info.path, s.base))
        at++;
    if (at == n) {
        st = gt_fail(GT_NOT_FOUND,
                     "cannot find device '%s' among the %d here; "
                     "`geartrain devices` lists them",
                     text, n);
        goto out;
    }
    d->info = all[at].info;
    d->id = all[at].id;
    d->speed = s.speed;
    d->stretch = 1;
    d->slow_from = s.after_ns ? gt_now_ns() + s.after_ns : 0;
    snprintf(d->info.id, sizeof d->info.id, "%.31s", text);
    if (s.parts && (st = take_part(d, &s, text)))
        goto out;
    if ((st = override_style(d)))
        goto out;
    d->context = clCreateContext(NULL, 1, &d->id, NULL, NULL, &err);
    if (err != CL_SUCCESS) {
        st = gt_fail(GT_DEVICE, "cannot use device '%s' (%s): %s", text, d->info.name, cl_error_name(err));
        goto out;
    }
    d->queue = clCreateCommandQueue(d->context, d->id, CL_QUEUE_PROFILING_ENABLE, &err);
    if (err != CL_SUCCESS) {
        st = gt_fail(GT_DEVICE, "cannot make a queue on device '%s': %s", text, cl_error_name(err));
        goto out;
    }
    if ((st = dev_transfers_open(d)))
        goto out;
    gt_log(GT_LOG_DEBUG, "device", "opened %s: %s, %s, driver %s", d->info.id, d->info.name, d->info.version,
           d->info.driver);
    *out = d;
    d = NULL;
out:
    free(all);
    dev_close(d);
    return st;
}

gt_status dev_open(dev_device **out, const char *text)
{
    dev_device *d;
    *out = NULL;
    gt_status st = dev_open_unproven(&d, text);
    if (st)
        return st;
    d->unproven = 1;
    if (dev_judged(&d->info))
        st = dev_judge(d);
    if (st) {
        dev_close(d);
        return st;
    }
    *out = d;
    return GT_OK;
}

void dev_close(dev_device *d)
{
    if (!d)
        return;
    if (d->queue && !d->lost)
        clFinish(d->queue);
    if (d->transfers && !d->lost)
        clFinish(d->transfers);
    dev_transfers_close(d);
    dev_events_reap(d);
    for (size_t i = 0; i < sizeof d->ahead / sizeof *d->ahead; i++)
        if (d->ahead[i])
            clReleaseEvent(d->ahead[i]);
    for (int i = 0; i < d->pending_count; i++)
        clReleaseEvent(d->pending[i].event);
    free(d->pending);
    if (d->queue)
        clReleaseCommandQueue(d->queue);
    if (d->context)
        clReleaseContext(d->context);
    free(d);
}

const dev_info *dev_info_of(const dev_device *d)
{
    return &d->info;
}

void dev_full_speed(dev_device *d, int on)
{
    d->full_speed += on ? 1 : -1;
}

double dev_slowdown(const dev_device *d)
{
    return d->full_speed || (d->slow_from && gt_now_ns() < d->slow_from) ? 1.0 : d->speed;
}

uint64_t dev_memory_used(const dev_device *d)
{
    return d->used;
}

uint64_t dev_fingerprint_of(const dev_info *i)
{
    char text[640];
    int n = snprintf(text, sizeof text, "%s|%s|%s|%s|%s|%d|%d|%d", i->platform, i->name, i->version, i->driver,
                     i->c_version, i->compute_units, (int)i->style, i->float_width);
    return gt_hash(text, n > 0 ? (size_t)n : 0);
}

uint64_t dev_fingerprint(const dev_device *d)
{
    return dev_fingerprint_of(&d->info);
}

gt_status dev_wait(dev_device *d)
{
    cl_int err = clFinish(d->queue);
    if (err == CL_SUCCESS && d->transfers)
        err = clFinish(d->transfers);
    if (err != CL_SUCCESS)
        return dev_failed(d, err, "work on device '%s' failed", d->info.id);
    dev_transfers_forget(d, NULL);
    if (d->pending_count)
        return dev_events_collect(d, NULL);
    return GT_OK;
}

void *dev_cl_device(dev_device *d)
{
    return d->id;
}

void *dev_cl_context(dev_device *d)
{
    return d->context;
}

void *dev_cl_queue(dev_device *d)
{
    return d->queue;
}
