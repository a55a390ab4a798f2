/* SPDX-License-Identifier: MIT */
/* host/cli/verb_help.c - the list of verbs; and the manual page and the completion scripts, written
 * from the same tables of options that parse the command line, at build time (CMakeLists.txt).      */
#include "host/cli/cli.h"

#include <ctype.h>
#include <string.h>

static struct {
    int man;
    const char *shell;
} o = { .shell = "none" };

static const gt_option table[] = {
    { .group = "Instead of the list" },
    { "man", 0, GT_FLAG, NULL, "the manual page, for man -l", &o.man, 0, NULL },
    { "completion", 0, GT_CHOICE, "none|bash|zsh", "the completion script of that shell", &o.shell, 0, NULL },
    { 0 }
};

static const cli_help help = {
    "help [--man | --completion bash|zsh]", "List the verbs; or print the manual page or a completion script.",
    "  geartrain help --man | man -l -\n"
    "  geartrain help --completion bash > ~/.local/share/bash-completion/completions/geartrain\n"
};

/* Calls each(verb, kind, table, help) for the table of every verb, and of every kind of one. */
typedef struct walk {
    const cli_verb *verb;
    const char *kind;                   /* of the verb, or NULL                                   */
    const gt_option *last;              /* the table that came before, if kinds that share one come once */
    int once;
    void (*each)(const struct walk *w, const gt_option *table, const cli_help *help);
} walk;

static void walk_table(void *context, const gt_option *t, const cli_help *h)
{
    walk *w = context;
    if (!w->once || t != w->last)
        w->each(w, t, h);
    w->last = t;
}

static void walk_all(int once, void (*each)(const walk *w, const gt_option *t, const cli_help *h))
{
    for (const cli_verb *v = cli_verbs; v->name; v++) {
        walk w = { .verb = v, .once = once, .each = each };
        cli_describe_verb(v, NULL, walk_table, &w);
        for (int i = 0; v->kind && (w.kind = v->kind(i)); i++)
            cli_describe_verb(v, w.kind, walk_table, &w);
    }
}

/* ---- the manual page --------------------------------------------------------------------------- */

/* Text for troff: a backslash, a hyphen that is typed, and a line that would begin with a request. */
static void troff(const char *text)
{
    for (int start = 1; *text; start = *text == '\n', text++) {
        if (start && (*text == '.' || *text == '\''))
            fputs("\\&", stdout);
        if (*text == '\\')
            fputs("\\e", stdout);
        else if (*text == '-')
            fputs("\\-", stdout);
        else
            putchar(*text);
    }
}

static void man_option(const gt_option *row)
{
    char value[128];
    printf(".TP\n.B ");
    if (row->letter)
        printf("\\-%c, ", row->letter);
    printf("\\-\\-");
    troff(row->name);
    if (row->type != GT_FLAG) {
        printf(" \\fI");
        troff(row->value);
        printf("\\fR");
    }
    printf("\n");
    troff(row->help);
    gt_option_text(row, value, sizeof value);
    if (row->type == GT_FLAG && *(const int *)row->target)
        printf(" [on]");
    else if (row->type != GT_FLAG && *value) {
        printf(" [");
        for (const char *c = value; *c; c++)        /* as -h shows a line end */
            troff(*c == '\n' ? "\\n" : (const char[]){ *c, '\0' });
        printf("]");
    }
    printf("\n");
}

static void man_verb(const walk *w, const gt_option *t, const cli_help *h)
{
    (void)w;
    printf(".SS geartrain ");
    troff(h->usage);
    printf("\n");
    troff(h->summary);
    printf("\n");
    for (; t->name || t->group; t++)
        if (t->name) {
            man_option(t);
        } else {
            printf(".PP\n.I ");
            troff(t->group);
            printf("\n");
        }
    if (h->examples) {
        printf(".PP\n.nf\n");
        troff(h->examples);
        printf(".fi\n");
    }
}

static void print_man(void)
{
    printf(".\\\" SPDX-License-Identifier: MIT\n.TH GEARTRAIN 1 \"\" \"geartrain " GT_VERSION "\" \"User Commands\"\n"
           ".SH NAME\ngeartrain \\- train transformer language models on whatever has an OpenCL driver\n"
           ".SH SYNOPSIS\n.B geartrain\n.I VERB\n[options]\n"
           ".SH DESCRIPTION\nGeartrain trains language models on one OpenCL device or on several unequal ones, "
           "here and on other hosts.\n");
    for (const cli_verb *v = cli_verbs; v->name; v++) {
        printf(".TP\n.B %s\n", v->name);
        troff(v->summary);
        printf("\n");
    }
    printf(".SH OPTIONS\n"
           "A verb's short list is shown by \\fB\\-h\\fR, all of it by \\fB\\-\\-help\\fR. Defaults stand in "
           "brackets.\nSizes take units (64KiB), durations too (30s); a switch that is on is turned off by "
           "\\fB\\-\\-no\\-\\fINAME\\fR.\n");
    walk_all(1, man_verb);
    printf(".SH EXIT STATUS\n.TP\n.B 0\ndone\n.TP\n.B 1\nfailed\n.TP\n.B 2\nmisuse\n.TP\n.B 3\nlost a peer; "
           "starting again may help\n.TP\n.B 128 + N\nstopped by signal N\n"
           ".SH ENVIRONMENT\n.TP\n.B GEARTRAIN_CACHE\nfolder of compiled programs, measurements and tokens\n"
           ".TP\n.B GEARTRAIN_NET_NAME\na network setting, as \\fB\\-\\-net\\fR takes it\n"
           ".TP\n.B GT_LOG\nhow much is said, for example info,device:debug\n");
}

/* ---- completion --------------------------------------------------------------------------------- */

/* Is there a word such as FILE among those that stand for the value? */
static int takes_path(const gt_option *row)
{
    return row->value && row->type == GT_STRING
           && (strstr(row->value, "FILE") || strstr(row->value, "DIR") || strstr(row->value, "RUN"));
}

/* The words of a value that are typed as they are: those in small letters. */
static void print_words(const gt_option *row)
{
    const char *gap = "";
    for (const char *p = row->value; p && *p; p += *p == '|') {
        const int n = (int)strcspn(p, "|");
        int typed = 1;
        for (int i = 0; i < n; i++)
            typed &= !isupper((unsigned char)p[i]) && !strchr(",.=", p[i]);
        if (typed) {
            printf("%s%.*s", gap, n, p);
            gap = " ";
        }
        p += n;
    }
}

static void bash_table(const walk *w, const gt_option *t, const cli_help *h)
{
    (void)h;
    printf("    '%s%s%s')\n        options='--help", w->verb->name, w->kind ? " " : "", w->kind ? w->kind : "");
    for (const gt_option *r = t; r->name || r->group; r++)
        if (r->name)
            printf(" --%s%s%s", r->name, r->type == GT_FLAG && *(const int *)r->target ? " --no-" : "",
                   r->type == GT_FLAG && *(const int *)r->target ? r->name : "");
    printf("'\n        case $before in\n");
    for (const gt_option *r = t; r->name || r->group; r++) {
        if (!r->name || r->type == GT_FLAG)
            continue;
        printf("        --%s", r->name);
        if (r->letter)
            printf("|-%c", r->letter);
        printf(") value=1 files=%d words='", takes_path(r));
        print_words(r);
        printf("' ;;\n");
    }
    printf("        esac ;;\n");
}

static void print_kind_cases(void)
{
    for (const cli_verb *v = cli_verbs; v->name; v++) {
        if (!v->kind)
            continue;
        printf("    %s) kinds='", v->name);
        for (int i = 0; v->kind(i); i++)
            printf("%s%s", i ? " " : "", v->kind(i));
        printf("' ;;\n");
    }
}

static void print_bash(void)
{
    printf("# bash completion of geartrain; written by `geartrain help --completion bash`.\n"
           "_geartrain()\n{\n"
           "    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} first=1 i\n"
           "    local verb kind= kinds= verbs='");
    for (const cli_verb *v = cli_verbs; v->name; v++)
        printf("%s%s", v == cli_verbs ? "" : " ", v->name);
    printf("' options= words= files=0 value=0\n"
           "    COMPREPLY=()\n"
           "    if [ \"$word\" = = ]; then\n"
           "        word=\n"
           "    elif [ \"$before\" = = ] && [ \"$COMP_CWORD\" -gt 2 ]; then\n"
           "        before=${COMP_WORDS[COMP_CWORD-2]}\n"
           "    fi\n"
           "    if [ \"${COMP_WORDS[1]}\" = launch ]; then\n"
           "        for ((i = 2; i < COMP_CWORD; i++)); do\n"
           "            if [ \"${COMP_WORDS[i]}\" = -- ]; then\n"
           "                first=$((i + 1))\n"
           "                break\n"
           "            fi\n"
           "        done\n"
           "    fi\n"
           "    if [ \"$COMP_CWORD\" -eq \"$first\" ]; then\n"
           "        COMPREPLY=($(compgen -W \"$verbs\" -- \"$word\"))\n"
           "        return\n"
           "    fi\n"
           "    verb=${COMP_WORDS[first]}\n"
           "    case $verb in\n");
    print_kind_cases();
    printf("    esac\n"
           "    for ((i = first + 1; i < COMP_CWORD; i++)); do\n"
           "        [[ -n $kinds && \" $kinds \" = *\" ${COMP_WORDS[i]} \"* ]] && kind=${COMP_WORDS[i]}\n"
           "    done\n"
           "    case $verb${kind:+ $kind} in\n");
    walk_all(0, bash_table);
    printf("    esac\n"
           "    if [ $value = 1 ]; then\n"
           "        COMPREPLY=($(compgen -W \"$words\" -- \"$word\"))\n"
           "    elif [[ $word = -* ]]; then\n"
           "        COMPREPLY=($(compgen -W \"$options\" -- \"$word\"))\n"
           "    elif [ -n \"$kinds\" ] && [ -z \"$kind\" ]; then\n"
           "        COMPREPLY=($(compgen -W \"$kinds\" -- \"$word\"))\n"
           "    else\n"
           "        files=1\n"
           "    fi\n"
           "    if [ $files = 1 ]; then\n"
           "        mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen -f -- \"$word\")\n"
           "        compopt -o filenames 2> /dev/null\n"
           "    fi\n"
           "    return 0\n"
           "}\n"
           "complete -F _geartrain geartrain\n");
}

/* Text inside an _arguments specification, between single quotes. */
static void zsh_text(const char *text)
{
    for (; *text; text++) {
        if (*text == '\'')
            fputs("'\\''", stdout);
        else if (strchr("[]:\\", *text))
            printf("\\%c", *text);
        else
            putchar(*text == '\n' ? ' ' : *text);
    }
}

static void zsh_table(const walk *w, const gt_option *t, const cli_help *h)
{
    (void)h;
    printf("    '%s%s%s')\n        _arguments", w->verb->name, w->kind ? " " : "", w->kind ? w->kind : "");
    for (; t->name || t->group; t++) {
        if (!t->name)
            continue;
        printf(" \\\n            ");
        const char *joined = t->type == GT_FLAG ? "" : "=";     /* --name=value as well as --name value */
        if (t->letter)
            printf("'(-%c --%s)'{-%c%s,--%s%s}'", t->letter, t->name, t->letter, *joined ? "+" : "", t->name, joined);
        else
            printf("'--%s%s", t->name, joined);
        printf("[");
        zsh_text(t->help);
        printf("]");
        if (t->type != GT_FLAG) {
            printf(":");
            zsh_text(t->value);
            printf(":");
            if (takes_path(t)) {
                printf("_files");
            } else {
                printf("(");
                print_words(t);
                printf(")");
            }
        }
        printf("'");
    }
    printf(" \\\n            '--help[all options]' '*:file:_files' ;;\n");
}

static void print_zsh(void)
{
    printf("#compdef geartrain\n# written by `geartrain help --completion zsh`\n"
           "local -a verbs\nlocal verb kind kinds word\nverbs=(\n");
    for (const cli_verb *v = cli_verbs; v->name; v++) {
        printf("    '%s:", v->name);
        zsh_text(v->summary);
        printf("'\n");
    }
    printf(")\n"
           "integer at=${words[(i)--]}\n"
           "if [[ $words[2] = launch ]] && (( at < CURRENT )); then\n"
           "    shift $(( at - 1 )) words\n"
           "    (( CURRENT -= at - 1 ))\n"
           "fi\n"
           "if (( CURRENT == 2 )); then\n    _describe verb verbs\n    return\nfi\n"
           "verb=$words[2]\n"
           "case $verb in\n");
    print_kind_cases();
    printf("esac\n"
           "for word in $words[3,CURRENT-1]; do\n"
           "    [[ -n $kinds && \" $kinds \" = *\" $word \"* ]] && kind=$word\n"
           "done\n"
           "if [[ -n $kinds && -z $kind && $PREFIX != -* ]]; then\n"
           "    compadd ${=kinds}\n    return\nfi\n"
           "shift words\n(( CURRENT-- ))\n"
           "case $verb${kind:+ $kind} in\n");
    walk_all(0, zsh_table);
    printf("esac\n");
}

gt_status verb_help(int argc, char **argv)
{
    char **words;
    int count, done;
    gt_status st = cli_parse(table, &help, argc, argv, &words, &count, &done);
    if (st || done)
        return st;
    if (count)
        return cli_no_words(words, &help);
    const int man = o.man;
    const char *shell = o.shell;
    o.man = 0;                          /* what is described has its defaults */
    o.shell = "none";
    if (man)
        print_man();
    else if (!strcmp(shell, "bash"))
        print_bash();
    else if (!strcmp(shell, "zsh"))
        print_zsh();
    else
        cli_print_help(stdout);
    return GT_OK;
}
