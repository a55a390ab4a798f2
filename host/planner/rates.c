/* SPDX-License-Identifier: MIT */
/* host/planner/rates.c - kept, so that the same command comes to the same plan, as it does with profiles. */
#include "host/planner/rates.h"

#include "host/base/file.h"
#include "host/base/text.h"
#include "host/compress/rate.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VALUES = 1 << 20, MOST_BYTES = 4096 };
#define HEAD "geartrain rates 1"

static gt_status path_of(char **out, dev_device *d, const compare_way *w, const optim_config *c, int ranks,
                         const char *beside)
{
    gt_text text = { 0 };
    char *folder = NULL, name[160], file[32];
    compare_name(name, sizeof name, w);
    gt_text_printf(&text, "%016" PRIx64 " %s\n%s\n%s\n%d ranks beside %s\n", dev_fingerprint(d), dev_info_of(d)->id,
                   name, optim_rule_name(c->rule), ranks, beside);
    *out = NULL;
    gt_status st = text.failed ? gt_fail(GT_NO_MEMORY, "no memory for the name of a rate")
                               : gt_cache_folder(&folder, "rates");
    if (!st) {
        snprintf(file, sizeof file, "%016" PRIx64 ".txt", gt_hash(text.data, text.size));
        *out = gt_path_join(folder, file);
        st = *out ? GT_OK : gt_fail(GT_NO_MEMORY, "no memory for the path of a rate");
    }
    free(folder);
    gt_text_release(&text);
    return st;
}

static int is_rate(double x)
{
    return isfinite(x) && x >= 0.0;
}

gt_status rate_load(plan_rate *out, int *found, dev_device *d, const compare_way *w, const optim_config *c, int ranks,
                    const char *beside)
{
    char *path, *text;
    *found = 0;
    gt_status st = path_of(&path, d, w, c, ranks, beside);
    if (st)
        return st;
    if (!gt_file_read(&text, NULL, path, MOST_BYTES)) {
        plan_rate r;
        *found = sscanf(text, HEAD " %lf %lf %lf end", &r.encode, &r.decode, &r.host) == 3 && strstr(text, " end\n")
                 && is_rate(r.encode) && is_rate(r.decode) && is_rate(r.host);
        if (*found)
            *out = r;
        free(text);
    } else {
        gt_message_clear();
    }
    free(path);
    return GT_OK;
}

gt_status rate_keep(const plan_rate *r, dev_device *d, const compare_way *w, const optim_config *c, int ranks,
                    const char *beside)
{
    char *path, text[128];
    gt_status st = path_of(&path, d, w, c, ranks, beside);
    if (st)
        return st;
    const int n = snprintf(text, sizeof text, HEAD " %.17g %.17g %.17g end\n", r->encode, r->decode, r->host);
    st = gt_file_write(path, text, (size_t)n);
    free(path);
    return st;
}

gt_status rate_measure(plan_rate *out, dev_device *d, const compare_way *w, const optim_config *c, int ranks)
{
    compress_rate r = { 0 };
    *out = (plan_rate){ 0 };
    gt_status st = compress_changes(&w->form) ? compress_rate_measure(&r, d, &w->form, VALUES) : GT_OK;
    out->encode = r.encode;
    out->decode = r.decode;
    return st ? st : sync_mode_host_seconds(w->mode, &w->settings, c, ranks, &out->host);
}
