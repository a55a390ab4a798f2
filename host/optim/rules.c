/* SPDX-License-Identifier: MIT */
/* host/optim/rules.c - the table of update rules, and what can be asked of it without a device. */
#include "host/optim/rule.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The first is the usual one. */
const optim_rule *const optim_rules[] = { &optim_adamw, &optim_sgd, &optim_lion, &optim_muon, &optim_adafactor, NULL };

const optim_rule *optim_rule_find(const char *name)
{
    for (int i = 0; optim_rules[i]; i++)
        if (!strcmp(optim_rules[i]->name, name))
            return optim_rules[i];
    return NULL;
}

const char *optim_rule_name(const optim_rule *r)
{
    return r->name;
}

void optim_rule_names(char *out, size_t size)
{
    size_t n = 0;
    out[0] = '\0';
    for (int i = 0; optim_rules[i] && n < size; i++)
        n += (size_t)snprintf(out + n, size - n, "%s%s", i ? "|" : "", optim_rules[i]->name);
}

const char *optim_rule_help(const optim_rule *r)
{
    return r->help;
}

int optim_rule_sees_tensors(const optim_rule *r)
{
    return r->whole != NULL;
}

int optim_rule_takes_moments(const optim_rule *r)
{
    return r->moments;
}

int optim_rule_multiplies(const optim_rule *r)
{
    return r->products;
}

int (*optim_rule_whole(const optim_rule *r))(const graph_param_info *info)
{
    return r->whole;
}

const optim_setting *optim_setting_at(const optim_rule *r, int i)
{
    return i < r->setting_count ? &r->settings[i] : NULL;
}

const char *optim_setting_name(const optim_setting *s)
{
    return s->name;
}

const char *optim_setting_help(const optim_setting *s)
{
    return s->help;
}

double optim_setting_usual(const optim_setting *s)
{
    return s->usual;
}

double *optim_setting_place(optim_config *c, const optim_setting *s)
{
    return (double *)((char *)c + s->at);
}

void optim_config_rule(optim_config *c, const optim_rule *r)
{
    c->rule = r;
    for (int i = 0; i < r->setting_count; i++)
        *optim_setting_place(c, &r->settings[i]) = r->settings[i].usual;
}

gt_status optim_settings_check(const optim_config *c)
{
    for (int i = 0; i < c->rule->setting_count; i++) {
        const optim_setting *s = &c->rule->settings[i];
        const double x = *optim_setting_place((optim_config *)c, s);
        if (!(x >= s->least && x < s->below))
            return gt_fail(GT_MISUSE, "%s of %s, %g, is not in [%g, %g)", s->name, c->rule->name, x, s->least,
                           s->below);
    }
    return GT_OK;
}

unsigned optim_rule_keeps(const optim_config *c, const graph_param_info *info)
{
    return c->rule->keeps ? c->rule->keeps(c, info) : (1u << c->rule->slot_count) - 1;
}

/* Of a large matrix: what one value a row or a column takes does not count. */
static double bytes_of(const optim_config *c, const graph_param_info *info)
{
    const unsigned kept = optim_rule_keeps(c, info);
    double bytes = 0.0;
    for (int i = 0; i < c->rule->slot_count; i++)
        bytes += kept >> i & 1 && c->rule->slots[i].extent == OPTIM_AS_PARAM ? 4.0 : 0.0;
    return bytes;
}

void optim_state_bytes(const optim_config *c, double *least, double *most)
{
    const shape dims = shape_of(2, (int64_t)1024, (int64_t)1024);
    const graph_param_info matrix = { .shape = dims, .full = dims, .decay = 1 };
    graph_param_info table = matrix;
    table.table = 1;
    const double a = bytes_of(c, &matrix), b = bytes_of(c, &table);
    *least = a < b ? a : b;
    *most = a < b ? b : a;
}
