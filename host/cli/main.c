/* host/cli/main.c - the program: one table of verbs.
 *
 *   geartrain VERB [words] [--options]
 *
 * The only place that prints a failure's sentence and turns a status into an exit code.  */
#include "host/cli/cli.h"

#include "host/base/clock.h"
#include "host/base/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const cli_verb verbs[] = {
    { "devices", "list OpenCL devices; --measure their speed", verb_devices },
    { "doctor", "say what is wrong with this machine's OpenCL, and the fix", verb_doctor },
    { "tokenize", "turn text into files of tokens", verb_tokenize },
    { "train", "train a model", verb_train },
    { "eval", "loss of a model on a text", verb_eval },
    { "generate", "write text with a model", verb_generate },
    { "bench", "measure gemm, kernels or whole steps", verb_bench },
    { "export", "write a run as a Hugging Face folder", verb_export },
};
enum { VERBS = sizeof verbs / sizeof *verbs };

static void print_help(FILE *out)
{
    fprintf(out, "geartrain trains transformer language models on whatever has an OpenCL "
                 "driver.\n\nUsage: geartrain VERB [options]\n\n");
    for (int i = 0; i < VERBS; i++)
        fprintf(out, "  %-10s %s\n", verbs[i].name, verbs[i].summary);
    fprintf(out, "\n`geartrain VERB -h` shows a verb's options, --help all of them.\n"
                 "Exit codes: 0 done, 1 failed, 2 misuse, 3 lost a peer (restartable).\n");
}

int cli_is_terminal(void)
{
    return isatty(STDOUT_FILENO);
}

gt_status cli_parse(const gt_option *table, const cli_help *help, int argc, char **argv,
                    char ***words, int *count, int *done)
{
    gt_option_help asked;
    int first = argc;
    *done = 0;
    *words = argv + argc;
    *count = 0;
    gt_status st = gt_options_parse(table, argc, argv, &first, &asked);
    if (st)
        return st;
    if (asked != GT_HELP_NONE) {
        printf("%s\n\nUsage: geartrain %s\n\n", help->summary, help->usage);
        gt_options_print(table, stdout, asked);
        if (asked == GT_HELP_SHORT)
            printf("\n  --help: all options, with examples\n");
        else if (help->examples)
            printf("\nExamples:\n%s", help->examples);
        *done = 1;
        return GT_OK;
    }
    *words = argv + first;
    *count = argc - first;
    return GT_OK;
}

int cli_progress_show(void *context, uint64_t done, uint64_t total)
{
    cli_progress *p = context;
    const uint64_t now = gt_now_ns();
    char bar[21], a[32], b[32], left[32];
    if (!p->start_ns)
        p->start_ns = now;
    if (!isatty(STDERR_FILENO) || !total || (now - p->last_ns < 100000000u && done < total))
        return 0;
    p->last_ns = now;
    p->shown = 1;
    const double share = (double)done / (double)total;
    const double seconds = (double)(now - p->start_ns) * 1e-9;
    for (int i = 0; i < 20; i++)
        bar[i] = (double)i < 20.0 * share ? '#' : '-';
    bar[20] = '\0';
    fprintf(stderr, "\r\033[K%s  [%s] %3.0f %%  %s of %s  %s left", p->what, bar, 100.0 * share,
            gt_format_bytes(a, sizeof a, done), gt_format_bytes(b, sizeof b, total),
            done ? gt_format_duration(left, sizeof left, seconds / share - seconds) : "?");
    fflush(stderr);
    return 0;
}

void cli_progress_end(cli_progress *p)
{
    if (p->shown)
        fprintf(stderr, "\r\033[K");
    p->shown = 0;
}

static int exit_code(gt_status st)
{
    return st == GT_OK ? 0 : st == GT_MISUSE ? 2 : st == GT_PEER || st == GT_TIMEOUT ? 3 : 1;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        print_help(stderr);
        return 2;
    }
    if (!strcmp(argv[1], "-h") || !strcmp(argv[1], "--help") || !strcmp(argv[1], "help")) {
        print_help(stdout);
        return 0;
    }
    if (!strcmp(argv[1], "--version")) {
        printf("geartrain %s\n", GT_VERSION);
        return 0;
    }
    for (int i = 0; i < VERBS; i++) {
        if (strcmp(verbs[i].name, argv[1]))
            continue;
        gt_status st = verbs[i].run(argc - 1, argv + 1);
        if (!st && (fflush(stdout) != 0 || ferror(stdout)))
            st = gt_fail(GT_IO, "cannot write to standard output");
        if (st)
            fprintf(stderr, "geartrain %s: %s\n", argv[1], gt_message());
        return exit_code(st);
    }
    fprintf(stderr, "geartrain: unknown verb '%s'; `geartrain -h` lists them\n", argv[1]);
    return 2;
}
