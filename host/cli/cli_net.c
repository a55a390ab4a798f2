/* SPDX-License-Identifier: MIT */
/* host/cli/cli_net.c - network settings and identity for verbs.
 *
 * --net takes a list, and a value may hold commas itself ("hca=mlx5_0,mlx5_1"): a comma begins
 * a new setting only where NAME= follows it.                                             */
#include "host/cli/cli_net.h"

#include "host/base/log.h"
#include "host/base/text.h"
#include "net/job/launcher.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The comma that ends the setting at p, or its end. */
static const char *end_of_setting(const char *p)
{
    for (const char *comma = strchr(p, ','); comma; comma = strchr(comma + 1, ',')) {
        const size_t name = strspn(comma + 1, "abcdefghijklmnopqrstuvwxyz_-");
        if (name && comma[1 + name] == '=')
            return comma;
    }
    return p + strlen(p);
}

/* Visits each NAME=VALUE of a list. */
static gt_status each_setting(const char *settings, net_config *config,
                              gt_status (*visit)(net_config *, const char *, const char *))
{
    char one[1024];
    gt_status st = GT_OK;
    for (const char *p = settings; *p && !st;) {
        const char *end = end_of_setting(p);
        snprintf(one, sizeof one, "%.*s", (int)(end - p), p);
        char *equals = strchr(one, '=');
        if (!equals)
            return gt_fail(GT_MISUSE, "option --net: '%s' is not NAME=VALUE", one);
        *equals = '\0';
        st = visit(config, one, equals + 1);
        p = end + (*end == ',');
    }
    return st;
}

static gt_status to_environment(net_config *config, const char *name, const char *value)
{
    char variable[96];
    (void)config;
    snprintf(variable, sizeof variable, "GEARTRAIN_NET_%.64s", name);
    for (char *p = variable; *p; p++)
        *p = *p == '-' ? '_' : (char)toupper((unsigned char)*p);
    setenv(variable, value, 1);
    return GT_OK;
}

gt_status cli_net_export(const cli_net *n)
{
    return n->settings ? each_setting(n->settings, NULL, to_environment) : GT_OK;
}

gt_status cli_net_read(cli_net *n, int *done)
{
    *done = 0;
    gt_status st = net_config_read(&n->config);
    if (!st && n->settings)
        st = each_setting(n->settings, n->config, net_config_set);
    if (!st && n->settings)
        st = net_config_check(n->config);
    if (st || !n->print)
        return st;
    gt_text text = { 0 };
    net_config_print(n->config, &text);
    if (text.data)
        fputs(text.data, stdout);
    gt_text_release(&text);
    *done = 1;
    return GT_OK;
}

gt_status cli_net_open(cli_net *n, int *done)
{
    gt_status st = cli_net_read(n, done);
    if (st || *done)
        return st;
    st = net_identity_find(&n->who, n->config);
    if (!st && n->who.size > 1)
        gt_log_rank(n->who.rank);
    return st;
}

void cli_net_close(cli_net *n)
{
    net_config_release(n->config);
    n->config = NULL;
}

int cli_net_alone(const cli_net *n)
{
    return n->who.size == 1 && !getenv("GEARTRAIN_RANK");
}

gt_status cli_net_start(int ranks, char **argv)
{
    int code;
    gt_status st = net_launch_self(ranks, argv, &code);
    return st ? st : net_launch_status(code);
}
