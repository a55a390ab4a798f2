/* SPDX-License-Identifier: MIT */
/* host/cli/verb_generate.c - text from a model, printed as it comes.
 *
 *   one text      the prompt and what follows it
 *   several       each below a line "==> prompt 2, sample 1 <=="
 *   --json        an object each, once it is over
 *   --chat        what is said, and the answer to it: --prompt, those of --prompts, or line by line what
 *                 comes from standard input, each with all that was said before
 */
#include "host/cli/choices.h"
#include "host/cli/busy.h"
#include "host/cli/chat.h"
#include "host/cli/cli.h"
#include "host/cli/generate_devices.h"
#include "host/cli/prompts.h"
#include "host/cli/screen.h"
#include "host/cli/writer.h"

#include "host/tokenizer/template.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct {
    const char *from, *checkpoint, *adapter, *tokenizer, *prompt, *prompts, *system, *template, *devices, *cut,
        *precision, *base;
    uint64_t tokens, seed, samples, stages;
    sampling_rule rule;
    gt_option_list stop;
    int quiet, json, chat;
} o = { .prompt = "\n",
        .cut = "speed",
        .tokens = 200,
        .samples = 1,
        .seed = 1,
        .rule = { .temperature = 0.8, .top_k = 200, .repetition = 1.0 } };

static const gt_option table[] = {
    { .group = "Text" },
    { "from", 0, GT_STRING, "RUN|DIR", "run, checkpoint of one, or Hugging Face folder", &o.from, 0, NULL },
    { "checkpoint", 0, GT_STRING, "best|STEP", "which of the run's; default: the newest", &o.checkpoint, 0, NULL },
    { "tokenizer", 0, GT_STRING, "DIR|FILE", "what the weights were trained with, if not beside them", &o.tokenizer, 0,
      NULL },
    { "adapter", 0, GT_STRING, "DIR", "adapter in PEFT's layout for that model", &o.adapter, 0, NULL },
    { "prompt", 0, GT_STRING, "TEXT", "how the text begins", &o.prompt, 0, NULL },
    { "prompts", 0, GT_STRING, "FILE", "several: one a line, or .jsonl with \"prompt\"", &o.prompts, 0, NULL },
    { "samples", 0, GT_U64, "N", "texts for each prompt", &o.samples, 0, NULL },
    { "tokens", 'n', GT_U64, "N", "how many more tokens, at most", &o.tokens, 0, NULL },
    { "stop", 0, GT_LIST, "TEXT", "the text ends before this; may be given again", &o.stop, 0, NULL },
    { .group = "Chat" },
    { "chat", 0, GT_FLAG, NULL, "prompts are messages, the text is the answer", &o.chat, 0, NULL },
    { "system", 0, GT_STRING, "TEXT", "the message before all others", &o.system, 0, NULL },
    { "chat-template", 0, GT_STRING, "FILE", "instead of that beside the tokenizer", &o.template, 1, NULL },
    { .group = "Choice of the next token, in this order" },
    { "repetition-penalty", 0, GT_DOUBLE, "X", "for tokens that are there, 1: none", &o.rule.repetition, 0, NULL },
    { "temperature", 0, GT_DOUBLE, "X", "0: always the likeliest", &o.rule.temperature, 0, NULL },
    { "top-k", 0, GT_INT, "K", "number of likeliest tokens to choose from, 0: all", &o.rule.top_k, 0, NULL },
    { "top-p", 0, GT_DOUBLE, "P", "the likeliest that have P together, 0: all", &o.rule.top_p, 0, NULL },
    { "min-p", 0, GT_DOUBLE, "P", "those P times as likely as the likeliest, 0: all", &o.rule.min_p, 0, NULL },
    { "seed", 0, GT_U64, "S", "seed of the choice among them", &o.seed, 0, NULL },
    { .group = "Device and output" },
    { "devices", 0, GT_STRING, "LIST", "several hold layers each: a model too large for one", &o.devices, 0, NULL },
    { "stages", 0, GT_U64, "N", "parts that the layers are cut into; 0: one a device", &o.stages, 0, NULL },
    { "cut", 0, GT_CHOICE, "speed|even", "layers by the devices' measured speed, or alike", &o.cut, 0, NULL },
    { "precision", 0, GT_CHOICE, cli_precisions, "storage", &o.precision, 0, NULL },
    { "base-precision", 0, GT_CHOICE, "fp32|bf16|int8", "of matrices; default: --precision, or a run's own", &o.base, 0,
      NULL },
    { "json", 0, GT_FLAG, NULL, "one object a text", &o.json, 0, NULL },
    { "quiet", 'q', GT_FLAG, NULL, "no speed on standard error", &o.quiet, 0, NULL },
    { 0 }
};

static const cli_help help = {
    "generate --from RUN|DIR [--prompt TEXT] [options]",
    "Write text with a trained model. Where its context is full, it goes on from the last half. Several\n"
    "devices hold a part of the layers each, for a model that is too large for one; a token goes through\n"
    "all of them, so a text is written no faster.",
    "  geartrain generate --from runs/shakespeare --prompt 'ROMEO:' -n 300 --stop JULIET:\n"
    "  geartrain generate --from gpt2/ --prompt 'The wheels' --temperature 0\n"
    "  geartrain generate --from smollm2/ --chat\n"
    "  geartrain generate --from gpt2/ --prompts questions.txt --top-k 0 --top-p 0.9 --json\n"
    "  geartrain generate --from llama/ --devices gpu:0,cpu:0 --precision bf16 --prompt 'The wheels'\n"
};

static gt_status print(void *context, const char *text, size_t size)
{
    (void)context;
    fwrite(text, 1, size, stdout);
    fflush(stdout);
    return ferror(stdout) ? gt_fail(GT_IO, "cannot write to standard output; is it closed, or its disk full?") : GT_OK;
}

/* One text of several: which, for people or for programs. */
typedef struct place {
    size_t prompt, prompts;
    uint64_t sample;
} place;

static void print_head(const place *p)
{
    if (p->prompts < 2 && o.samples < 2)
        return;
    printf("%s==> ", p->prompt || p->sample ? "\n" : "");
    if (p->prompts > 1)
        printf("prompt %zu%s", p->prompt + 1, o.samples > 1 ? ", " : "");
    if (o.samples > 1)
        printf("sample %llu", (unsigned long long)p->sample + 1);
    printf(" <==\n");
}

static gt_status print_object(const place *p, const char *prompt, size_t size, const cli_written *w)
{
    gt_text line = { 0 }, extra = { 0 };
    gt_text_printf(&extra, "\"prompt\": ");
    cli_json_string(&extra, prompt, size);
    gt_text_printf(&extra, ", \"number\": %zu, \"sample\": %llu, ", p->prompt + 1, (unsigned long long)p->sample + 1);
    cli_written_json(&line, w, extra.failed ? "" : extra.data);
    gt_status st = extra.failed || line.failed
                       ? gt_fail(GT_NO_MEMORY, "no memory for a text of %zu bytes", w->text.size)
                       : print(NULL, line.data, line.size);
    gt_text_release(&extra);
    gt_text_release(&line);
    return st;
}

/* Adds what it took to `all`. */
static gt_status write_one(cli_writer *w, const place *p, const char *prompt, size_t size, cli_written *all)
{
    cli_written one = { 0 };
    gt_status st = GT_OK;
    w->show = o.json ? NULL : print;
    if (!o.json) {
        print_head(p);
        st = print(NULL, prompt, size);
    }
    if (!st)
        st = cli_write(w, prompt, size, p->sample, &one);
    if (st && p->prompts > 1)
        st = gt_fail_in(st, "prompt %zu", p->prompt + 1);
    if (!st)
        st = o.json ? print_object(p, prompt, size, &one) : print(NULL, "\n", 1);
    else if (!o.json)
        printf("\n");
    all->tokens += one.tokens;
    all->seconds += one.seconds;
    cli_written_release(&one);
    return st;
}

/* prompts NULL: the one of --prompt, which may be any bytes. */
static gt_status write_all(cli_writer *w, const json_t *prompts)
{
    cli_written all = { 0 };
    gt_status st = GT_OK;
    place p = { .prompts = prompts ? json_array_size(prompts) : 1 };
    for (p.prompt = 0; !st && p.prompt < p.prompts; p.prompt++)
        for (p.sample = 0; !st && p.sample < o.samples; p.sample++) {
            size_t size = strlen(o.prompt);
            const char *text = prompts ? prompts_text(json_array_get(prompts, p.prompt), &size) : o.prompt;
            st = text ? write_one(w, &p, text, size, &all)
                      : gt_fail(GT_FORMAT, "'%s', line %zu has no \"prompt\"", o.prompts, p.prompt + 1);
        }
    if (!st && !o.quiet)
        fprintf(stderr, "%llu tokens, %.1f tokens/s\n", (unsigned long long)all.tokens,
                (double)all.tokens / all.seconds);
    return st;
}

/* ---- chat ------------------------------------------------------------------------------------------- */

/* Messages of an item of --prompts: its own, or a user's one. */
static gt_status messages_of(json_t **out, const json_t *item, size_t line)
{
    size_t size = 0;
    const char *text = prompts_text(item, &size);
    *out = NULL;
    if (!text && chat_messages(out, item, "messages"))
        return gt_fail(GT_FORMAT, "'%s', line %zu: %s", o.prompts, line, gt_message());
    if (text && !(*out = json_array()))
        return gt_fail(GT_NO_MEMORY, "no memory for the messages of '%s'", o.prompts);
    return text ? cli_chat_say(*out, "user", text, size) : GT_OK;
}

/* The system's message goes first, unless there is one. */
static gt_status say_system(json_t *messages)
{
    const json_t *first = json_array_get(messages, 0);
    const char *role = json_string_value(json_object_get(first, "role"));
    if (!o.system || (role && !strcmp(role, "system")))
        return GT_OK;
    json_t *m = json_pack("{s:s, s:s}", "role", "system", "content", o.system);
    return m && !json_array_insert_new(messages, 0, m) ? GT_OK : gt_fail(GT_MISUSE, "option --system: it is no UTF-8");
}

/* Answers, shows it, and adds it to what was said. */
static gt_status answer(cli_chat *c, cli_writer *w, const place *p, json_t *messages, cli_written *all)
{
    cli_written one = { 0 };
    const json_t *last = json_array_get(messages, json_array_size(messages) - 1);
    const char *said = json_string_value(json_object_get(last, "content"));
    gt_status st = say_system(messages);
    w->show = o.json ? NULL : print;
    if (!st && !o.json)
        print_head(p);
    if (!st)
        st = cli_chat_answer(c, messages, p->sample, &one);
    if (!st)
        st = o.json ? print_object(p, said ? said : "", said ? strlen(said) : 0, &one) : print(NULL, "\n", 1);
    if (!st)
        st = cli_chat_say(messages, "assistant", one.text.size ? one.text.data : "", one.text.size);
    all->tokens += one.tokens;
    all->seconds += one.seconds;
    cli_written_release(&one);
    return st;
}

static gt_status answer_all(cli_chat *c, cli_writer *w, const json_t *prompts, cli_written *all)
{
    gt_status st = GT_OK;
    place p = { .prompts = prompts ? json_array_size(prompts) : 1 };
    for (p.prompt = 0; !st && p.prompt < p.prompts; p.prompt++)
        for (p.sample = 0; !st && p.sample < o.samples; p.sample++) {
            json_t *messages = NULL;
            if (prompts)
                st = messages_of(&messages, json_array_get(prompts, p.prompt), p.prompt + 1);
            else if (!(messages = json_array()))
                st = gt_fail(GT_NO_MEMORY, "no memory for a message");
            if (!st && !prompts)
                st = cli_chat_say(messages, "user", o.prompt, strlen(o.prompt));
            if (!st)
                st = answer(c, w, &p, messages, all);
            json_decref(messages);
        }
    return st;
}

/* A line each is said by the user, until there are no more; who types them sees where. */
static gt_status talk(cli_chat *c, cli_writer *w, cli_written *all)
{
    const int typed = isatty(STDIN_FILENO) && !o.json;
    char *line = NULL;
    size_t room = 0;
    place p = { .prompts = 1 };
    json_t *messages = json_array();
    gt_status st = messages ? GT_OK : gt_fail(GT_NO_MEMORY, "no memory for messages");
    while (!st) {
        if (typed)
            st = print(NULL, "> ", 2);
        ssize_t n = st ? -1 : getline(&line, &room, stdin);
        if (n < 0)
            break;
        while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r'))
            n--;
        if (!n)
            continue;                   /* nothing was said */
        st = cli_chat_say(messages, "user", line, (size_t)n);
        if (!st)
            st = answer(c, w, &p, messages, all);
        p.prompt++;
    }
    if (!st && typed)
        st = print(NULL, "\n", 1);
    free(line);
    json_decref(messages);
    return st;
}

static gt_status chat(cli_writer *w, const cli_source *s, const json_t *prompts)
{
    cli_chat *c = NULL;
    cli_written all = { 0 };
    gt_status st = cli_chat_open(&c, w, o.template, s->tokenizer_path);
    if (!st && (prompts || gt_option_given(table, "prompt")))
        st = answer_all(c, w, prompts, &all);
    else if (!st)
        st = talk(c, w, &all);
    if (!st && !o.quiet)
        fprintf(stderr, "%llu tokens, %.1f tokens/s\n", (unsigned long long)all.tokens,
                (double)all.tokens / all.seconds);
    cli_chat_close(c);
    return st;
}

static gt_status run(cli_source *s, dtype storage, const json_t *prompts)
{
    generate_devices d = { 0 };
    cli_writer w = { .tokenizer = s->tokenizer,
                     .rule = o.rule,
                     .tokens = o.tokens,
                     .seed = o.seed,
                     .stop = o.stop.item,
                     .stops = o.stop.count };
    gt_status st = cli_end_ids(&w.ends, s->tokenizer, s->path);
    if (!st)
        st = generate_devices_open(&d, o.devices);
    if (!st)
        st = generate_devices_create(&w.generate, &d, s, storage, o.stages, !strcmp(o.cut, "even"),
                                     o.quiet ? NULL : stderr);
    if (!st)
        st = cli_allow_tokens(w.generate, s->tokenizer, s->config.vocab);
    if (!st)
        st = o.chat ? chat(&w, s, prompts) : write_all(&w, prompts);
    generate_release(w.generate);
    generate_devices_close(&d);
    token_ids_release(&w.ends);
    return st;
}

static gt_status check(void)
{
    gt_status st = sampling_check(&o.rule);
    if (st)
        return gt_fail(st, "option --%s", gt_message());
    if (!(o.rule.repetition > 0.0))
        return gt_fail(GT_MISUSE, "option --repetition-penalty: %g is not above 0", o.rule.repetition);
    if (o.prompts && gt_option_given(table, "prompt"))
        return gt_fail(GT_MISUSE, "options --prompt and --prompts both say how texts begin; leave one out");
    if (!o.samples)
        return gt_fail(GT_MISUSE, "option --samples: a prompt has at least 1");
    for (int i = 0; i < o.stop.count; i++)
        if (!*o.stop.item[i])
            return gt_fail(GT_MISUSE, "option --stop: an empty text is everywhere");
    const int greedy = o.rule.temperature <= 0.0;
    const int staged = o.stages > 1 || (o.devices && strpbrk(o.devices, ",/"));
    const cli_useless rules[] = {
        { "cut", !staged, "there is one stage, with all layers" },
        { "top-k", greedy, "--temperature 0 takes the likeliest" },
        { "top-p", greedy, "--temperature 0 takes the likeliest" },
        { "min-p", greedy, "--temperature 0 takes the likeliest" },
        { "seed", greedy, "--temperature 0 takes the likeliest" },
        { "system", !o.chat, "it belongs to --chat" },
        { "chat-template", !o.chat, "it belongs to --chat" },
        { "samples", o.chat && !o.prompts && !gt_option_given(table, "prompt"),
          "a conversation goes on with one answer" },
    };
    st = cli_check_useless(table, rules, sizeof rules / sizeof *rules);
    if (!st && greedy && o.samples > 1)
        st = gt_fail(GT_MISUSE, "option --samples: with --temperature 0 they would all be the same");
    return st;
}

gt_status verb_generate(int argc, char **argv)
{
    char **words;
    int count, done;
    cli_source s;
    dtype storage;
    json_t *prompts = NULL;
    o.precision = dtype_name(DTYPE_F32);
    gt_status st = cli_parse(table, &help, argc, argv, &words, &count, &done);
    if (st || done)
        return st;
    cli_screen_raw();                   /* lines of the model's text are the model's */
    if (count)
        return cli_no_words(words, &help);
    if (!o.from)
        return cli_missing(&help, "--from RUN|DIR");
    st = check();
    if (!st && o.prompts)
        st = prompts_read(&prompts, o.prompts);
    if (st)
        return st;
    dtype_parse(&storage, o.precision);
    cli_busy_start();
    st = cli_source_open_at(&s, o.from, o.checkpoint);
    if (!st && o.tokenizer)
        st = cli_source_take_tokenizer(&s, o.tokenizer);
    if (!st && o.adapter)
        st = cli_source_adapt(&s, o.adapter);
    if (!st)
        st = cli_source_tokenizer(&s, "put its tokenizer.json, or vocab.json and merges.txt, beside the "
                                      "weights, or name it with --tokenizer");
    if (!st && o.base)
        st = cli_base_precision(&s.config.tuning, o.base, o.precision);
    if (!st)
        st = run(&s, storage, prompts);
    cli_source_close(&s);
    json_decref(prompts);
    return st;
}
