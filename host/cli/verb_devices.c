/* SPDX-License-Identifier: MIT */
/* host/cli/verb_devices.c - what there is to train on. */
#include "host/cli/choices.h"
#include "host/cli/cli.h"

#include "host/base/text.h"
#include "host/gemm/gemm.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct {
    int measure, json;
} o;

static const gt_option table[] = {
    { .group = "Devices" },
    { "measure", 0, GT_FLAG, NULL, "measure GEMM, FMA and copy speed of each", &o.measure, 0, NULL },
    { "json", 0, GT_FLAG, NULL, "one JSON array", &o.json, 0, NULL },
    { 0 }
};

static const cli_help help = { "devices [options]",
                               "List every device of every OpenCL platform, with the ids that "
                               "--devices takes.",
                               "  geartrain devices --measure\n" };

/* peak: of each storage type; 0: not known. */
typedef struct speed {
    double peak[DTYPE_STORAGES], gemm, copy;
    const char *engine;
} speed;

/* What only opening a device tells. engines: of each storage type; refusal: why it is refused, or "". */
typedef struct look {
    char refusal[1024];
    char engines[DTYPE_STORAGES][CLI_CHOICES];
    char unit[320];                     /* of products of 16-bit matrices; "" where none is looked for */
} look;

static void keep_best(void *context, const gemm_result *r)
{
    speed *s = context;
    if (r->flops > s->gemm) {
        s->gemm = r->flops;
        s->engine = r->engine;
    }
}

static gt_status measure(const char *id, speed *out)
{
    dev_device *d;
    gemm_context *g = NULL;
    gemm_peak peak = { 0 };
    gt_status st = dev_open(&d, id);
    if (st)
        return st;
    st = gemm_peak_measure(d, &peak);
    if (!st)
        st = gemm_context_create(&g, d, NULL);
    for (int i = 0; i < DTYPE_STORAGES; i++)
        out->peak[i] = gemm_peak_of(dev_info_of(d), dev_matrix_units(d), &peak, (dtype)i);
    out->copy = peak.copy_bytes;
    const int n = peak.flops > 2e13 ? 4096 : peak.flops > 1e11 ? 1024 : 512;
    const gemm_desc desc = { .M = n, .N = n, .K = n, .trans_b = 1 };
    if (!st)
        st = gemm_bench(g, &desc, 5, peak.flops, keep_best, out);
    if (out->gemm > out->peak[0])           /* measured at a busy moment: no peak lies below a product */
        out->peak[0] = out->gemm;
    gemm_context_release(g);
    dev_close(d);
    return st;
}

static const char *matrix_text(int matrix)
{
    return matrix & DEV_MATRIX_INTEL ? "XMX"
           : matrix & DEV_MATRIX_AMD ? "MFMA/WMMA"
           : matrix & DEV_MATRIX_NV  ? "tensor cores"
                                     : "none";
}

/* Both are what a run is held against: mfu is its share of the peak, gemm_share that of the best GEMM. */
static void print_speed(const speed *s)
{
    printf("        peak, which mfu is a share of:");
    for (int i = 0; i < 3; i++)
        if (s->peak[i] > 0.0)
            printf("%s %s %.1f GFLOP/s", i ? "," : "", dtype_name((dtype)i), s->peak[i] * 1e-9);
        else
            printf("%s %s not known", i ? "," : "", dtype_name((dtype)i));
    printf("\n        best fp32 GEMM, which gemm_share is a share of: %.1f GFLOP/s (%s), %.0f %% of the peak\n",
           s->gemm * 1e-9, s->engine ? s->engine : "?", 100.0 * s->gemm / s->peak[0]);
    printf("        copy %.1f GB/s\n", s->copy * 1e-9);
}

static void print_one(const dev_info *i, const speed *s, const look *seen)
{
    char a[32], b[32], c[32];
    printf("%-7s %-5s %s\n", i->id, i->path, i->name);
    printf("        %s, %s, driver %s\n", i->platform, i->version, i->driver);
    printf("        %d compute units at %d MHz, %s memory (%s in one piece), %s local%s\n", i->compute_units,
           i->clock_mhz, gt_format_bytes(a, sizeof a, i->global_bytes),
           gt_format_bytes(b, sizeof b, i->max_alloc_bytes), gt_format_bytes(c, sizeof c, i->local_bytes),
           i->local_is_real ? "" : " (emulated)");
    printf("        vectors of %d floats, fp16 %s, sub-groups %s, matrix units %s, native kernels "
           "%s, SVM %s%s\n",
           i->float_width, i->fp16 ? "yes" : "no", i->subgroups ? "yes" : "no", matrix_text(i->matrix),
           i->native_kernels ? "yes" : "no", i->svm ? "yes" : "no", i->unified ? ", memory shared with the host" : "");
    if (i->sub_devices_max > 1)
        printf("        can be split: %s/2 is two sub-devices, %s.0 and %s.1\n", i->id, i->id, i->id);
    for (int t = 0; *seen->engines[0] && t < DTYPE_STORAGES; t++)
        printf("%s%s %s%s", t ? "; " : "        matrix engines: ", dtype_name((dtype)t), seen->engines[t],
               t + 1 < DTYPE_STORAGES ? "" : "\n");
    if (*seen->unit)
        printf("        products of 16-bit matrices: %s\n", seen->unit);
    if (*seen->refusal)
        printf("        not used, for it computes wrongly; `geartrain doctor` says what it gets "
               "wrong\n");
    if (i->host_clock)
        printf("        timed by the host's clock, for its own time stamps are wrong\n");
    if (s)
        print_speed(s);
}

/* Words with blanks between as an array. */
static json_t *words_of(const char *text)
{
    json_t *array = json_array();
    while (*text) {
        const size_t n = strcspn(text, " ");
        json_array_append_new(array, json_stringn(text, n));
        text += n + (text[n] == ' ');
    }
    return array;
}

static json_t *json_of(const dev_info *i, const speed *s, const look *seen)
{
    static const char *const kinds[] = { "cpu", "gpu", "accelerator" };
    json_t *j = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:i, s:i, s:I, s:I, s:I, s:i, s:b, s:b, s:s, s:b, "
                          "s:b, s:b, s:b, s:b}",
                          "id", i->id, "path", i->path, "name", i->name, "vendor", i->vendor, "platform", i->platform,
                          "version", i->version, "driver", i->driver, "kind", kinds[i->kind], "compute_units",
                          i->compute_units, "clock_mhz", i->clock_mhz, "global_bytes", (json_int_t)i->global_bytes,
                          "max_alloc_bytes", (json_int_t)i->max_alloc_bytes, "local_bytes", (json_int_t)i->local_bytes,
                          "float_width", i->float_width, "fp16", i->fp16, "subgroups", i->subgroups, "matrix",
                          matrix_text(i->matrix), "native_kernels", i->native_kernels, "svm", i->svm != 0,
                          "unified_memory", i->unified, "refused", *seen->refusal != '\0', "host_clock", i->host_clock);
    json_t *engines = json_object();
    for (int t = 0; t < DTYPE_STORAGES; t++)
        json_object_set_new(engines, dtype_name((dtype)t), words_of(seen->engines[t]));
    json_object_set_new(j, "engines", engines);
    if (j && *seen->unit)
        json_object_set_new(j, "matrix_products", json_string(seen->unit));
    if (j && s) {
        json_object_set_new(j, "gemm_gflops", json_real(s->gemm * 1e-9));
        json_object_set_new(j, "fma_gflops", json_real(s->peak[0] * 1e-9));
        json_t *peak = json_object();
        for (int k = 0; k < DTYPE_STORAGES; k++)
            json_object_set_new(peak, dtype_name((dtype)k),
                                s->peak[k] > 0.0 ? json_real(s->peak[k] * 1e-9) : json_null());
        json_object_set_new(j, "peak_gflops", peak);
        json_object_set_new(j, "copy_gbytes_per_s", json_real(s->copy * 1e-9));
    }
    return j;
}

/* The unit that multiplies 16-bit matrices, where a device may have one. */
static void look_for_unit(const dev_info *i, gemm_context *g, look *seen)
{
    const char *why = NULL;
    const char *const unit = i->kind == DEV_CPU ? NULL : gemm_matrix_unit(g, &why);
    if (unit)
        snprintf(seen->unit, sizeof seen->unit, "by its matrix unit, %s", unit);
    else if (why)
        snprintf(seen->unit, sizeof seen->unit, "by vector units, for no matrix unit is used: %s", why);
}

/* Adds what only opening a device tells; one that does not open is listed all the same, and the
 * doctor says what is wrong. */
static void look_at(dev_info *i, look *seen)
{
    dev_device *d;
    gemm_context *g = NULL;
    *seen = (look){ 0 };
    if (dev_usable(i) == GT_UNSUPPORTED)
        snprintf(seen->refusal, sizeof seen->refusal, "%s", gt_message());
    else if (!dev_open(&d, i->path)) {
        i->matrix = dev_matrix_units(d);
        i->host_clock = dev_info_of(d)->host_clock;
        if (!gemm_context_create(&g, d, NULL)) {
            for (int t = 0; t < DTYPE_STORAGES; t++)
                gemm_engines_for(g, (dtype)t, seen->engines[t], sizeof seen->engines[t], " ");
            look_for_unit(i, g, seen);
        }
        gemm_context_release(g);
        dev_close(d);
    }
    gt_message_clear();
}

gt_status verb_devices(int argc, char **argv)
{
    char **words;
    int extra, done, count = 0;
    dev_info *all = NULL;
    gt_status st = cli_parse(table, &help, argc, argv, &words, &extra, &done);
    if (st || done)
        return st;
    if (extra)
        return gt_fail(GT_MISUSE, "devices takes no words such as '%s'", words[0]);
    st = dev_find(&all, &count);
    json_t *list = json_array();
    for (int i = 0; !st && i < count; i++) {
        speed s = { 0 };
        look seen;
        look_at(&all[i], &seen);
        const int measured = o.measure && !*seen.refusal;
        if (measured)
            st = measure(all[i].path, &s);
        if (st)
            break;
        if (o.json)
            json_array_append_new(list, json_of(&all[i], measured ? &s : NULL, &seen));
        else
            print_one(&all[i], measured ? &s : NULL, &seen);
    }
    if (!st && o.json) {
        json_dumpf(list, stdout, JSON_INDENT(2));
        printf("\n");
    }
    json_decref(list);
    free(all);
    return st;
}
