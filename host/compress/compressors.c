/* SPDX-License-Identifier: MIT */
/* host/compress/compressors.c - the table of compressors, and what is said of one on the command line.
 *
 *   topk:0.01,momentum=0.9,min=4096
 *   name parameter numbers of its own, and of all                                           */
#include "host/compress/compressor.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The first is the usual one. */
static const compressor *const compressors[] = {
    &compress_none,
    &compress_bf16,
    &compress_fp16,
    &compress_int8,
    &compress_topk,
    &compress_randomk,
    &compress_powersgd,
    &compress_demo,
    &compress_onebit,
    &compress_zeroone,
    NULL
};

/* Of all that leave small tensors as they are. */
static const compress_number least = {
    "min", "values of the smallest tensor that is compressed", 1024.0, 1.0, 1e12, 1, offsetof(compress_spec, least)
};

const compressor *compressor_at(int i)
{
    return compressors[i];
}

static const compressor *find(const char *name, size_t length)
{
    for (int i = 0; compressors[i]; i++)
        if (strlen(compressors[i]->name) == length && !strncmp(compressors[i]->name, name, length))
            return compressors[i];
    return NULL;
}

const compressor *compressor_find(const char *name)
{
    return find(name, strlen(name));
}

const char *compressor_name(const compressor *c)
{
    return c->name;
}

const char *compressor_help(const compressor *c)
{
    return c->help;
}

int compressor_changes(const compressor *c)
{
    return c->encode != NULL;
}

void compressor_names(char *out)
{
    size_t used = 0;
    for (int i = 0; compressors[i]; i++)
        used += (size_t)snprintf(out + used, COMPRESS_NAMES - used, "%s%s", i ? "|" : "", compressors[i]->name);
}

void compressor_forms(char *out)
{
    size_t used = 0;
    for (int i = 0; compressors[i]; i++) {
        const compress_number *p = compressors[i]->parameter;
        used += (size_t)snprintf(out + used, COMPRESS_NAMES - used, "%s%s%s%.*s", i ? "|" : "", compressors[i]->name,
                                 p ? ":" : "", p ? 1 : 0, p ? p->name : "");
    }
}

/* ---- what is said of one ---------------------------------------------------------------------- */

static double *place(compress_spec *c, const compress_number *n)
{
    return (double *)((char *)c + n->place);
}

/* The numbers behind ',' of a compressor, 0, 1, ...: its own, then those of all. */
static const compress_number *number_at(const compressor *c, int i)
{
    int own = 0;
    for (const compress_number *n = c->numbers; n && n->name; n++, own++)
        if (own == i)
            return n;
    return i == own && !c->all && c->encode ? &least : NULL;
}

/* "  topk:FRACTION            share of ..." */
static size_t describe_number(char *out, size_t size, const char *before, const compress_number *n, const char *behind)
{
    char head[48];
    snprintf(head, sizeof head, "%s%s%s", before, n->name, behind);
    const int used = isnan(n->usual) ? snprintf(out, size, "    %-24s %s\n", head, n->help)
                                     : snprintf(out, size, "    %-24s %s  [%g]\n", head, n->help, n->usual);
    return used < 0 ? 0 : (size_t)used < size ? (size_t)used : size - 1;
}

void compressors_describe(char *out, size_t size)
{
    size_t used = 0;
    *out = '\0';
    for (int i = 1; compressors[i]; i++) {
        const compressor *c = compressors[i];
        used += (size_t)snprintf(out + used, size - used, "  %-26s %s\n", c->name, c->help);
        if (c->parameter)
            used += describe_number(out + used, size - used, ":", c->parameter, "");
        for (const compress_number *n = c->numbers; n && n->name; n++)
            used += describe_number(out + used, size - used, ",", n, "=X");
    }
    used += (size_t)snprintf(out + used, size - used, "  of all that leave small tensors as they are\n");
    used += describe_number(out + used, size - used, ",", &least, "=X");
    assert(used < size - 1);
}

static gt_status take(compress_spec *out, const compress_number *n, const char *text, size_t length)
{
    char word[64], *end = word;
    snprintf(word, sizeof word, "%.*s", (int)(length < sizeof word ? length : sizeof word - 1), text);
    const double x = strtod(word, &end);
    if (end == word || *end || length >= sizeof word || !(x >= n->least && x <= n->most) || (n->whole && x != floor(x)))
        return gt_fail(GT_MISUSE, "%s of '%s': '%s' is no %s from %g to %g", n->name, out->how->name, word,
                       n->whole ? "whole number" : "number", n->least, n->most);
    *place(out, n) = x;
    return GT_OK;
}

static gt_status take_pair(compress_spec *out, const char *text, size_t length)
{
    const char *equals = memchr(text, '=', length);
    const size_t name = equals ? (size_t)(equals - text) : length;
    const compress_number *n;
    char list[128] = "";
    for (int i = 0; (n = number_at(out->how, i)) != NULL; i++) {
        if (equals && strlen(n->name) == name && !strncmp(n->name, text, name))
            return take(out, n, equals + 1, length - name - 1);
        snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", i ? ", " : "", n->name);
    }
    if (!*list)
        return gt_fail(GT_MISUSE, "'%s' takes no '%.*s'", out->how->name, (int)length, text);
    return gt_fail(GT_MISUSE, "'%s' takes no '%.*s'; it takes NAME=NUMBER of %s", out->how->name, (int)length, text,
                   list);
}

gt_status compress_parse(compress_spec *out, const char *spec)
{
    char names[COMPRESS_NAMES];
    const size_t name = strcspn(spec, ":,");
    const char *at = spec + name;
    const compress_number *n;
    *out = (compress_spec){ .how = find(spec, name) };
    compressor_forms(names);
    if (!out->how)
        return gt_fail(GT_MISUSE, "'%.*s' is not one of %s", (int)name, spec, names);
    for (int i = 0; (n = number_at(out->how, i)) != NULL; i++)
        *place(out, n) = n->usual;
    const compress_number *p = out->how->parameter;
    gt_status st = GT_OK;
    if (p && *at != ':' && isnan(p->usual))
        return gt_fail(GT_MISUSE, "'%s' needs its %s: %s:%s, %s", spec, p->name, out->how->name, p->name, p->help);
    if (!p && *at == ':')
        return gt_fail(GT_MISUSE, "'%s' takes nothing behind ':'", out->how->name);
    if (p)
        *place(out, p) = p->usual;
    if (*at == ':') {
        const size_t length = strcspn(++at, ",");
        st = take(out, p, at, length);
        at += length;
    }
    while (!st && *at == ',') {
        const size_t length = strcspn(++at, ",");
        st = take_pair(out, at, length);
        at += length;
    }
    return st;
}

void compress_text(const compress_spec *s, char *out)
{
    compress_spec c = *s;
    const compressor *how = c.how ? c.how : &compress_none;
    const compress_number *n;
    size_t used = (size_t)snprintf(out, COMPRESS_NAMES, "%s", how->name);
    if (how->parameter)
        used += (size_t)snprintf(out + used, COMPRESS_NAMES - used, ":%.6g", *place(&c, how->parameter));
    for (int i = 0; (n = number_at(how, i)) != NULL; i++)
        if (*place(&c, n) != n->usual)
            used += (size_t)snprintf(out + used, COMPRESS_NAMES - used, ",%s=%.6g", n->name, *place(&c, n));
    if (c.after)
        snprintf(out + used, COMPRESS_NAMES - used, " after step %llu", (unsigned long long)c.after);
}

gt_status compress_check(const compress_spec *s, const optim_config *c)
{
    const compressor *how = s->how ? s->how : &compress_none;
    if (s->momentum > 0.0 && (strcmp(optim_rule_name(c->rule), "sgd") || c->momentum != 0.0))
        return gt_fail(GT_MISUSE, "momentum of compression takes the place of the optimizer's: it goes with "
                                  "--optimizer sgd --momentum 0 alone");
    if (how->moments && !optim_rule_takes_moments(c->rule))
        return gt_fail(GT_MISUSE, "--compress %s sends the momentum of --optimizer adamw, and this run has %s",
                       how->name, optim_rule_name(c->rule));
    if (how->warms_up && !s->after)
        return gt_fail(GT_MISUSE,
                       "--compress %s needs --compress-after N: it holds the variances that AdamW has found in N steps",
                       how->name);
    if (how->plain && s->freeze == 1.0)
        return gt_fail(GT_MISUSE,
                       "freeze=1 of --compress %s holds the variances of one gradient, many of them by chance next to "
                       "nothing, and what divides by them goes anywhere; give freeze=2 or more",
                       how->name);
    if (compress_goes_apart(s) && s->freeze < ceil(1.0 / (1.0 - c->beta2) - 1e-9))
        return gt_fail(
            GT_MISUSE,
            "local=%g of --compress %s needs freeze=N of %g or more: replicas apart divide by variances that "
            "stay as they are, and those of fewer than 1 / (1 - beta2) steps have not settled",
            s->local, how->name, ceil(1.0 / (1.0 - c->beta2) - 1e-9));
    return GT_OK;
}

gt_status compress_check_candidate(const compress_spec *s, const optim_config *c)
{
    if (s->how && s->how->moments)
        return gt_fail(GT_MISUSE, "--compress %s is for all links or none, and not one for --compress auto to choose",
                       s->how->name);
    if (s->clip > 0.0)
        return gt_fail(GT_MISUSE, "clip of '%s' is for all links or none, and not for --compress auto to choose",
                       s->how->name);
    return compress_check(s, c);
}

int compress_changes(const compress_spec *s)
{
    return s->how && s->how->encode;
}

int compress_takes(const compress_spec *s, const graph_param_info *info)
{
    if (!compress_changes(s))
        return 0;
    if (s->how->all)
        return 1;
    return info->shape.rank >= 2 && (double)shape_count(&info->shape) >= s->least
           && (!s->how->worth || s->how->worth(s, info));
}

int compress_levels(const compress_spec *s)
{
    return s->how->levels ? s->how->levels(s) : 1;
}

int compress_level(const compress_spec *s, uint64_t step)
{
    const int last = compress_levels(s) - 1;
    if (!last || step < s->after)
        return 0;
    const uint64_t level = (step - s->after) / (uint64_t)s->ramp;
    return level < (uint64_t)last ? (int)level : last;
}

int compress_goes_apart(const compress_spec *s)
{
    return s->how && s->how->round && s->local > 1.0;
}

uint64_t compress_round(const compress_spec *s, uint64_t step, uint64_t *first)
{
    *first = step;
    if (!compress_goes_apart(s) || step < s->after)
        return 1;
    const uint64_t length = s->how->round(s, step - s->after, first);
    *first += s->after;
    return length;
}

int compress_waits(const compress_spec *s, uint64_t step)
{
    return step < s->after || (s->how && s->how->plain && s->how->plain(s, step - s->after));
}
