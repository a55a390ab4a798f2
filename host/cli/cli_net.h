/* SPDX-License-Identifier: MIT */
/* host/cli/cli_net.h - what verbs that use the network share: --net, --print-config, who we are.
 *
 *   static cli_net net;
 *   static const gt_option table[] = { ..., CLI_NET_OPTIONS(net), { 0 } };
 *   cli_parse(table, ...);
 *   cli_net_open(&net, &done);           settings, identity; prints them if asked: done is 1
 *   if (!done && ranks > 1 && cli_net_alone(&net))
 *       return cli_net_start(ranks, argv);              no launcher: start the ranks ourselves
 *   net_comm_open(&c, net.config, &net.who);
 *   cli_net_close(&net);                                                                  */
#ifndef GT_CLI_CLI_NET_H
#define GT_CLI_CLI_NET_H

#include "host/base/options.h"
#include "net/job/config.h"
#include "net/job/identity.h"

typedef struct cli_net {
    const char *settings;               /* --net "a=1,b=2"                                  */
    int print;
    net_config *config;
    net_identity who;
} cli_net;

#define CLI_NET_OPTIONS(n) \
    { .group = "Network" }, { "net", \
                              0, \
                              GT_STRING, \
                              "NAME=VALUE,..", \
                              "network settings; --print-config lists them", \
                              &(n).settings, \
                              0, \
                              NULL }, \
    { \
        "print-config", 0, GT_FLAG, NULL, "print all network settings and where they come from", &(n).print, 1, NULL \
    }

/* Reads settings and finds out which rank this is; log lines name it from now on. Close it
 * whatever this returns. */
gt_status cli_net_open(cli_net *n, int *done);
/* The settings alone, for verbs that are no rank. */
gt_status cli_net_read(cli_net *n, int *done);
/* Puts --net's settings into the environment, for ranks about to be started. */
gt_status cli_net_export(const cli_net *n);
void cli_net_close(cli_net *n);

/* 1: nothing started this process as one of several ranks. */
int cli_net_alone(const cli_net *n);
/* Runs this verb again as `ranks` local ranks; argv is the verb's. */
gt_status cli_net_start(int ranks, char **argv);

/* ---- doctor_net.c ------------------------------------------------------------------------ */
/* The start-up part of `geartrain doctor`: addresses, ports, secret, launcher, firewall. Says
 * each finding through good() or bad(). */
typedef void cli_say_good(const char *format, ...) __attribute__((format(printf, 1, 2)));
typedef void cli_say_bad(const char *fix, const char *format, ...) __attribute__((format(printf, 2, 3)));
void doctor_net(cli_say_good *good, cli_say_bad *bad);

#endif
