/* SPDX-License-Identifier: MIT */
/* host/cli/verb_launch.c - starts a verb, or any program, as the ranks of one job.
 *
 * Everything behind `--` is the command. A word that is one of our verbs means this very
 * program, wherever it lies, on every host.                                              */
#include "host/cli/cli.h"
#include "host/cli/cli_net.h"

#include "host/base/text.h"
#include "net/job/hello.h"
#include "net/job/launcher.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static struct {
    int ranks, restarts, replacements;
    const char *hosts, *ssh, *elastic, *listen, *join;
    uint64_t grace, wait;
} o = { .replacements = 1000, .wait = UINT64_C(60000000000), .ssh = "ssh", .grace = UINT64_C(5000000000) };
static cli_net net;

static const gt_option table[] = {
    { .group = "Ranks" },
    { "ranks", 'n', GT_INT, "N", "processes to start; with --hosts, all slots if not given", &o.ranks, 0, NULL },
    { "hosts", 0, GT_STRING, "FILE", "start them over ssh, one HOST, HOST:N or HOST slots=N a line", &o.hosts, 0,
      NULL },
    { "join", 0, GT_STRING, "ADDRESS", "join a running job of another host, whose launcher listens there", &o.join, 0,
      NULL },
    { .group = "Failure" },
    { "max-restarts", 0, GT_INT, "N", "start again when a rank or device was lost (exit code 3)", &o.restarts, 0,
      NULL },
    { "elastic", 0, GT_STRING, "MIN:MAX", "go on without ranks that are lost while MIN are left; see below", &o.elastic,
      0, NULL },
    { "replacements", 0, GT_INT, "N", "ranks started in place of dropped ones, up to MAX at once", &o.replacements, 1,
      NULL },
    { "listen", 0, GT_STRING, "ADDRESS", "HOST[:PORT] of this host where others --join an elastic job", &o.listen, 0,
      NULL },
    { "wait", 0, GT_DURATION, "T", "how long fewer than MIN ranks wait before exit code 3", &o.wait, 1, NULL },
    { "grace", 0, GT_DURATION, "T", "how long the others may take to end when one failed", &o.grace, 1, NULL },
    { "ssh", 0, GT_STRING, "COMMAND", "what to call for --hosts, with its options", &o.ssh, 1, NULL },
    CLI_NET_OPTIONS(net),
    { 0 }
};

static const cli_help help = {
    "launch --ranks N | --hosts FILE | --join ADDRESS [options] -- VERB ...",
    "Start a verb as the ranks of one job, here or over ssh.",
    "  geartrain launch --ranks 4 -- bench allreduce\n"
    "  geartrain launch --hosts hosts.txt -- train --model gpt2 --data tokens --out run\n"
    "\nSlurm (srun), Open MPI (mpirun) and torchrun start ranks too; no launcher is needed then.\n"
    "Rank 0's output appears as it is, that of others on standard error behind [rank].\n"
    "This host's own names in the file need no ssh. Over ssh, keys must work without questions, and\n"
    "program and folder have the same path on all hosts. --net settings reach all ranks.\n"
    "A train that is started again (--max-restarts, Slurm's requeue, torchrun) goes on with the run\n"
    "that its earlier start began; one that another job began needs --resume.\n"
    "\nWith --elastic a train goes on in the same processes when a rank is killed or lost: in seconds, from\n"
    "memory, wherever the others have all that it had, whatever --sync, --stages and --tensor:\n"
    "  steps together   after the newest step that was updated by; the one that was cut off is done again\n"
    "                   whole by those that are left\n"
    "  steps apart      (--sync local, async) from where ranks last met; what any did since is done again\n"
    "So no sample is lost, and none counts twice. New ranks get all from others' memory, and begin where\n"
    "ranks meet. What was the lost rank's alone is the exception: a stage without another replica, its\n"
    "part of the optimizer's state (--sync sharded; ps and async: of a server, so name --servers that\n"
    "stay). Then the ranks go on from the newest checkpoint, and train on what came after it again. What\n"
    "--compress held back on a lost rank is dropped; others keep theirs, with what they held back of the\n"
    "step that was cut off. --plan FILE counts for the ranks that it starts with. A rank that fails by\n"
    "itself ends the job; one that is stopped (SIGSTOP) for longer than --grace is ended.\n"
    "\nRanks on other hosts (--hosts, with a slot for each of MAX) are dropped and started again likewise.\n"
    "Others join while the job runs, if it was given --listen: they need the run's folder, the same words\n"
    "behind `--` (but --devices may differ), and the user's secret file of the launcher's host:\n"
    "  geartrain launch --elastic 2:8 --replacements 0 --ranks 4 --listen 10.0.0.1:29000 -- train ...\n"
    "  geartrain launch --join 10.0.0.1:29000 --ranks 2 -- train ...           on another host\n"
    "Of those that join, one that is lost is not started again by the launcher; --max-restarts does.\n"
};

/* Options end at `--`; without it, at the first word. */
static int split(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "--"))
            return i;
    return argc;
}

static gt_status read_elastic(int *least, int *most)
{
    uint64_t from = 0, to = 0;
    char first[32];
    const size_t n = strcspn(o.elastic, ":");
    snprintf(first, sizeof first, "%.*s", (int)(n < 31 ? n : 31), o.elastic);
    if (o.elastic[n] != ':' || gt_parse_u64(&from, first) || gt_parse_u64(&to, o.elastic + n + 1) || from < 1
        || from > to || to > NET_WORLD)
        return gt_fail(GT_MISUSE, "option --elastic: '%s' is not MIN:MAX with 1 <= MIN <= MAX <= %d", o.elastic,
                       NET_WORLD);
    *least = (int)from;
    *most = (int)to;
    return GT_OK;
}

gt_status verb_launch(int argc, char **argv)
{
    char **words, self[PATH_MAX];
    int count, done, code;
    const int end = split(argc, argv);
    gt_status st = cli_parse(table, &help, end, argv, &words, &count, &done);
    if (!st && !done)
        st = cli_net_read(&net, &done);
    if (!st && !done)
        st = cli_net_export(&net);
    if (st || done) {
        cli_net_close(&net);
        return st;
    }
    char **command = argv + end + 1;
    if (count || end >= argc - 1 || (o.ranks < 1 && !o.hosts && !o.elastic && !o.join)) {
        cli_net_close(&net);
        if (count)
            return gt_fail(GT_MISUSE, "launch: '%s' stands before `--`; usage: geartrain %s", words[0], help.usage);
        return cli_missing(&help, end >= argc - 1 ? "`-- VERB ...`"
                                                  : "--ranks N, --hosts FILE, --elastic MIN:MAX or --join ADDRESS");
    }
    const cli_useless rules[] = {
        { "ssh", !o.hosts, "only --hosts starts ranks on other hosts" },
        { "replacements", !o.elastic, "only with --elastic ranks are replaced" },
        { "wait", !o.elastic, "only with --elastic ranks wait for others" },
        { "listen", !o.elastic, "only with --elastic others join" },
        { "hosts", o.join != NULL, "--join starts ranks on this host, for a job that runs" },
        { "elastic", o.join != NULL, "the job that is joined has been told so" }
    };
    int least = 0, most = 0;
    st = cli_check_useless(table, rules, sizeof rules / sizeof *rules);
    if (!st && o.elastic)
        st = read_elastic(&least, &most);
    if (st) {
        cli_net_close(&net);
        return st;
    }
    const ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n < 0 ? 0 : n] = '\0';
    const net_launch_options options = {
        .ranks = o.join && !o.ranks ? 1 : o.ranks,
        .hosts = o.hosts,
        .ssh = o.ssh,
        .program = cli_is_verb(command[0]) ? self : NULL,
        .grace = o.grace,
        .max_restarts = o.restarts,
        .elastic_least = least,
        .elastic_most = most,
        .replacements = o.replacements,
        .elastic_wait = o.wait,
        .listen = o.listen,
        .join = o.join,
        .config = net.config
    };
    st = net_launch(&options, command, &code);
    cli_net_close(&net);
    return st ? st : net_launch_status(code);
}
