/* SPDX-License-Identifier: MIT */
/* host/gemm/gemm_variant.c - variants as words, and as options of a compiler. */
#include "host/gemm/gemm_variant.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int gemm_knob_index(const gemm_knob *k, int value)
{
    for (int i = 0; i < GEMM_VALUES && k->values[i]; i++)
        if (k->values[i] == value)
            return i;
    return -1;
}

char *gemm_variant_text(char out[GEMM_VARIANT_CHARS], const gemm_tunable *t, const gemm_variant *v)
{
    size_t at = 0;
    for (int i = 0; i < t->count; i++)
        at += (size_t)snprintf(out + at, GEMM_VARIANT_CHARS - at, "%s%s:%d", i ? "," : "", t->knobs[i].name,
                               v->value[i]);
    assert(at < GEMM_VARIANT_CHARS);
    return out;
}

int gemm_variant_parse(gemm_variant *out, const gemm_tunable *t, const char *text)
{
    *out = (gemm_variant){ 0 };
    for (int i = 0; i < t->count; i++) {
        const gemm_knob *k = &t->knobs[i];
        const size_t length = strlen(k->name);
        char *end;
        if ((i && *text++ != ',') || strncmp(text, k->name, length) || text[length] != ':')
            return 0;
        text += length + 1;
        if (*text < '0' || *text > '9')
            return 0;
        const long value = strtol(text, &end, 10);
        if (value > 1 << 20 || gemm_knob_index(k, (int)value) < 0)
            return 0;
        out->value[i] = (int)value;
        text = end;
    }
    return !*text;
}

int gemm_variant_same(const gemm_tunable *t, const gemm_variant *a, const gemm_variant *b)
{
    return !memcmp(a->value, b->value, (size_t)t->count * sizeof a->value[0]);
}

char *gemm_variant_options(char out[GEMM_VARIANT_OPTIONS], const gemm_tunable *t, const gemm_variant *v)
{
    size_t at = 0;
    out[0] = '\0';
    for (int i = 0; i < t->count; i++)
        if (t->knobs[i].option && v->value[i] != t->knobs[i].plain)
            at += (size_t)snprintf(out + at, GEMM_VARIANT_OPTIONS - at, "%s-D%s=%d", at ? " " : "", t->knobs[i].option,
                                   v->value[i]);
    assert(at < GEMM_VARIANT_OPTIONS);
    return out;
}
