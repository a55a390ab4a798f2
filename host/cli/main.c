/* SPDX-License-Identifier: MIT */
/* host/cli/main.c - the program: one table of verbs.
 *
 *   geartrain VERB [words] [--options]
 *
 * The only place that prints a failure's sentence and turns a status into an exit code.  */
#include "host/cli/busy.h"
#include "host/cli/choices.h"
#include "host/cli/cli.h"
#include "host/cli/limits.h"
#include "host/cli/screen.h"

#include "host/base/clock.h"
#include "host/base/stop.h"
#include "host/base/text.h"
#include "host/gemm/gemm.h"

#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

const cli_verb cli_verbs[] = {
    { "devices", "list OpenCL devices; --measure their speed", verb_devices, NULL },
    { "doctor", "say what is wrong with this machine's OpenCL or network, and the fix", verb_doctor, NULL },
    { "tokenize", "turn text into files of tokens", verb_tokenize, NULL },
    { "train", "train a model", verb_train, NULL },
    { "embed", "vectors of texts", verb_embed, NULL },
    { "eval", "loss of a model on a text", verb_eval, NULL },
    { "generate", "write text with a model", verb_generate, NULL },
    { "bench", "measure gemm, kernels, steps, links or collectives", verb_bench, bench_kind },
    { "export", "write a run as a Hugging Face folder", verb_export, NULL },
    { "plan", "say what would run where, how fast, and why", verb_plan, NULL },
    { "launch", "start a verb as several ranks, here or over ssh", verb_launch, NULL },
    { "help", "this list; the manual page, and completion for shells", verb_help, NULL },
    { 0 },
};
enum { VERBS = sizeof cli_verbs / sizeof *cli_verbs - 1 };

static cli_describe *describe;          /* set: verbs are described, not run */
static void *describe_context;

int cli_is_verb(const char *word)
{
    for (int i = 0; i < VERBS; i++)
        if (!strcmp(cli_verbs[i].name, word))
            return 1;
    return 0;
}

void cli_print_help(FILE *out)
{
    fprintf(out, "geartrain trains transformer language models on whatever has an OpenCL "
                 "driver.\n\nUsage: geartrain VERB [options]\n\n");
    for (int i = 0; i < VERBS; i++)
        fprintf(out, "  %-10s %s\n", cli_verbs[i].name, cli_verbs[i].summary);
    fprintf(out, "\n`geartrain VERB -h` shows a verb's options, --help all of them.\n"
                 "Exit codes: 0 done, 1 failed, 2 misuse, 3 lost a peer (restartable), 128 + N stopped by "
                 "signal N.\n");
}

int cli_is_terminal(void)
{
    return isatty(STDOUT_FILENO);
}

int cli_columns(void)
{
    struct winsize w;
    return ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 0 ? w.ws_col : 80;
}

gt_status cli_parse(const gt_option *table, const cli_help *help, int argc, char **argv, char ***words, int *count,
                    int *done)
{
    gt_option_help asked;
    int first = argc;
    *done = 0;
    *words = argv + argc;
    *count = 0;
    if (describe) {
        describe(describe_context, table, help);
        *done = 1;
        return GT_OK;
    }
    gt_status st = gt_options_parse(table, argc, argv, &first, &asked);
    if (st)
        return st;
    if (asked != GT_HELP_NONE) {
        printf("%s\n\nUsage: geartrain %s\n\n", help->summary, help->usage);
        gt_options_print(table, stdout, asked);
        if (asked == GT_HELP_SHORT && help->examples)
            printf("\n  --help: all options, with examples\n");
        if (asked == GT_HELP_LONG && help->examples)
            printf("\nExamples:\n%s", help->examples);
        *done = 1;
        return GT_OK;
    }
    if (gt_option_given(table, "json"))
        cli_screen_raw();
    *words = argv + first;
    *count = argc - first;
    return GT_OK;
}

void cli_describe_verb(const cli_verb *verb, const char *kind, cli_describe *each, void *context)
{
    char *argv[] = { (char *)(uintptr_t)verb->name, (char *)(uintptr_t)kind, NULL };
    describe = each;
    describe_context = context;
    if (verb->run(kind ? 2 : 1, argv))
        gt_message_clear();
    describe = NULL;
}

static int name_length(const cli_help *help)
{
    return (int)strcspn(help->usage, " ");
}

gt_status cli_missing(const cli_help *help, const char *what)
{
    return gt_fail(GT_MISUSE, "%s is missing; usage: geartrain %s", what, help->usage);
}

gt_status cli_no_words(char **words, const cli_help *help)
{
    return gt_fail(GT_MISUSE, "%.*s takes no words such as '%s'; -h lists the options", name_length(help), help->usage,
                   words[0]);
}

gt_status cli_check_useless(const gt_option *table, const cli_useless *rules, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (rules[i].useless && gt_option_given(table, rules[i].option))
            return gt_fail(GT_MISUSE, "option --%s would be ignored: %s; leave it out", rules[i].option,
                           rules[i].because);
    return GT_OK;
}

int cli_progress_show(void *context, uint64_t done, uint64_t total)
{
    cli_progress *p = context;
    const uint64_t now = gt_now_ns();
    char bar[13], a[32], b[32], left[32], line[256];
    if (!p->start_ns) {
        p->start_ns = now;
        gt_activity_begin(&p->activity, p->what, "bytes", total);
    }
    if (gt_activity_at(&p->activity, done))
        return 1;
    if (!isatty(STDERR_FILENO) || !total || (now - p->last_ns < 100000000u && done < total))
        return 0;
    p->last_ns = now;
    p->shown = 1;
    const double share = (double)done / (double)total;
    const double seconds = (double)(now - p->start_ns) * 1e-9;
    for (int i = 0; i < 12; i++)
        bar[i] = (double)i < 12.0 * share ? '#' : '-';
    bar[12] = '\0';
    gt_format_bytes(a, sizeof a, done);
    gt_format_bytes(b, sizeof b, total);
    gt_format_duration(left, sizeof left, done ? seconds / share - seconds : 0.0);
    const int full = snprintf(line, sizeof line, "%s  [%s] %3.0f %%  %s of %s  %s left", p->what, bar, 100.0 * share, a,
                              b, done ? left : "?");
    if (full >= cli_columns())
        snprintf(line, sizeof line, "%s  %3.0f %%  %s left", p->what, 100.0 * share, done ? left : "?");
    fprintf(stderr, "\r\033[K%.*s", cli_columns() - 1, line);
    fflush(stderr);
    return 0;
}

void cli_progress_end(cli_progress *p)
{
    if (p->start_ns)
        gt_activity_end(&p->activity);
    if (p->shown) {
        fprintf(stderr, "\r\033[K");
        fflush(stderr);                 /* before anything goes to standard output          */
    }
    *p = (cli_progress){ .what = p->what };
}

static int exit_code(gt_status st)
{
    if (st == GT_INTERRUPTED && gt_stop_asked())
        return 128 + gt_stop_asked();
    return st == GT_OK ? 0 : st == GT_MISUSE ? 2 : st == GT_PEER || st == GT_TIMEOUT || st == GT_LOST ? 3 : 1;
}

/* Offers the nearest name after a typo. */
static int unknown_verb(const char *word)
{
    int nearest = -1;
    size_t best = 3;
    for (int i = 0; i < VERBS; i++) {
        const size_t d = gt_edit_distance(word, cli_verbs[i].name);
        if (d < best && d < strlen(word)) {
            best = d;
            nearest = i;
        }
    }
    if (nearest >= 0)
        fprintf(stderr, "geartrain: unknown verb '%s'; did you mean %s?\n", word, cli_verbs[nearest].name);
    else
        fprintf(stderr, "geartrain: unknown verb '%s'; `geartrain -h` lists them\n", word);
    return 2;
}

/* Whoever started us may have closed a standard stream. Its number would then go to the
 * next file opened, and what is printed would end up in there. Read-only, so that writing
 * to it still fails. */
static void guard_streams(void)
{
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDONLY) != fd)
            _exit(1);
}

/* A reader that leaves is no reason to die, nor is a file that may not grow (ulimit -f): what is
 * written then fails to be written, with a sentence. */
static void guard_writes(void)
{
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
}

/* LLVM, inside OpenCL drivers, puts handlers over SIGXFSZ, SIGUSR2 and others. When one comes, it removes the
 * files that it is just writing, in whatever thread, so that kernels cannot be built there, and puts back all
 * handlers that it once found, that of SIGINT too (findings/pocl_signal_handlers.sh). A blocked signal
 * reaches no handler: SIGXFSZ is only an EFBIG, and cli_comm_run() waits for SIGUSR2 in a thread of its own.
 *
 * All threads must block them, and inherit that; OpenBLAS starts its own before main, as a constructor of a
 * library. Only this array of the program comes before those (System V ABI, "Initialization and Termination
 * Functions"). */
static void hold_signals(void)
{
    sigset_t held;
    sigemptyset(&held);
    sigaddset(&held, SIGXFSZ);
    sigaddset(&held, SIGUSR2);
    sigprocmask(SIG_BLOCK, &held, NULL);
}
__attribute__((section(".preinit_array"), used)) static void (*const before_libraries)(void) = hold_signals;

/* What a verb printed must have arrived. */
static gt_status close_output(void)
{
    const int bad = ferror(stdout);
    return fflush(stdout) != 0 || bad
               ? gt_fail(GT_IO, "cannot write to standard output; is it closed, or its disk full?")
               : GT_OK;
}

static int leave(const char *who, gt_status st)
{
    char hint[160];
    if (st && *gt_message())            /* else another rank says it */
        fprintf(stderr, "%s: %s%s\n", who, gt_message(), cli_limits_hint(hint, sizeof hint, st));
    return exit_code(st);
}

int main(int argc, char **argv)
{
    guard_streams();
    guard_writes();
    gemm_prepare_process();
    gt_stop_start();
    cli_choices_make();
    if (cli_limits_settle()) {
        fprintf(stderr, "geartrain: %s\n", gt_message());
        _exit(1);
    }
    cli_screen_open();
    if (argc < 2) {
        cli_print_help(stderr);
        return 2;
    }
    if (!strcmp(argv[1], "-h") || !strcmp(argv[1], "--help")) {
        cli_print_help(stdout);
        return leave("geartrain", close_output());
    }
    if (!strcmp(argv[1], "--version")) {
        printf("geartrain %s\n", GT_VERSION_TEXT);
        return leave("geartrain", close_output());
    }
    for (int i = 0; i < VERBS; i++) {
        if (strcmp(cli_verbs[i].name, argv[1]))
            continue;
        gt_status st = cli_verbs[i].run(argc - 1, argv + 1);
        cli_busy_stop();
        if (!st)
            st = close_output();
        char name[64];
        snprintf(name, sizeof name, "geartrain %s", argv[1]);
        return leave(name, st);
    }
    return unknown_verb(argv[1]);
}
