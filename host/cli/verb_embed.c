/* SPDX-License-Identifier: MIT */
/* host/cli/verb_embed.c - texts to vectors: what a model of whole texts makes of each.
 *
 *   text ─► [CLS] tokens [SEP] ─► last activations (T,C) ─► mean of the real tokens, or the first ─► length 1
 *
 * A text is a line of a text file, or a record's (host/data/reader.h). One object or one line of numbers a text, in
 * order. Reimers and Gurevych, "Sentence-BERT", 2019.                                          */
#include "host/cli/busy.h"
#include "host/cli/choices.h"
#include "host/cli/cli.h"
#include "host/cli/cli_model.h"
#include "host/cli/data_options.h"
#include "host/cli/cli_task.h"

#include "host/base/log.h"
#include "host/graph/exec.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static struct {
    const char *from, *data, *devices, *precision, *pooling;
    data_options of;
    uint64_t batch, seq;
    int json, raw;
} o = { .batch = 16, .pooling = "mean", .of = DATA_OPTIONS };

static const gt_option table[] = {
    { .group = "Embedding" },
    { "from", 0, GT_STRING, "RUN|DIR", "run directory or Hugging Face folder", &o.from, 0, NULL },
    { "data", 'd', GT_STRING, "FILE", "texts: a line each, or records", &o.data, 0, NULL },
    { "pooling", 0, GT_CHOICE, "mean|first", "of a text's tokens: all of them, or the first", &o.pooling, 0, NULL },
    { "raw", 0, GT_FLAG, NULL, "vectors of any length instead of length 1", &o.raw, 0, NULL },
    DATA_OPTION_ROWS(o.of),
    { "batch", 'b', GT_U64, "N", "texts at once", &o.batch, 0, NULL },
    { "seq", 't', GT_U64, "T", "tokens of a text, at most; 0: the model's context", &o.seq, 0, NULL },
    { .group = "Device" },
    { "devices", 0, GT_STRING, "ID", "id from `geartrain devices`", &o.devices, 0, NULL },
    { "precision", 0, GT_CHOICE, cli_precisions, "storage", &o.precision, 0, NULL },
    { "json", 0, GT_FLAG, NULL, "an object a text", &o.json, 0, NULL },
    { 0 }
};

static const cli_help help = { "embed --from RUN|DIR --data FILE [options]", "Turn texts into vectors.",
                               "  geartrain embed --from minilm/ --data sentences.txt > vectors.txt\n" };

/* All texts as ids, and where each begins. */
typedef struct texts {
    token_ids ids;
    size_t *begin, count, room, longest, cut;
} texts;

typedef struct parts {
    cli_model model;
    exec *exec;
    int32_t *tokens, *types, *lengths;
    float *hidden;
    double *vector;
} parts;

/* ---- reading ------------------------------------------------------------------------------------ */

static gt_status add_text(texts *x, tokenizer *t, const reader_record *r)
{
    const size_t begin = x->ids.count;
    if (x->count + 1 >= x->room) {
        const size_t room = x->room ? 2 * x->room : 256;
        size_t *more = realloc(x->begin, room * sizeof *more);
        if (!more)
            return gt_fail(GT_NO_MEMORY, "no memory for %zu texts", room);
        x->begin = more;
        x->room = room;
    }
    const int pair = r->pair.size > 0;
    gt_status st = tokenizer_encode_template(t, r->text.data ? r->text.data : "", r->text.size,
                                             pair ? r->pair.data : NULL, r->pair.size, &x->ids, NULL);
    if (st)
        return gt_fail_in(st, "'%s', line %llu", o.data, (unsigned long long)r->line);
    x->begin[x->count++] = begin;
    x->begin[x->count] = x->ids.count;
    if (x->ids.count - begin > x->longest)
        x->longest = x->ids.count - begin;
    return x->ids.count > begin
               ? GT_OK
               : gt_fail(GT_FORMAT, "'%s', line %llu: there is no text", o.data, (unsigned long long)r->line);
}

/* Lines of a text; a last one without its end as well. */
static gt_status read_lines(texts *x, tokenizer *t, reader *in)
{
    char chunk[1 << 16];
    size_t got = sizeof chunk;
    reader_record r = { .line = 1 };
    gt_status st = GT_OK;
    while (!st && got == sizeof chunk) {
        st = reader_bytes(in, chunk, sizeof chunk, &got);
        for (size_t at = 0; !st && at < got;) {
            const char *end = memchr(chunk + at, '\n', got - at);
            const size_t n = end ? (size_t)(end - chunk) - at : got - at;
            gt_text_put(&r.text, chunk + at, n);
            at += n + (end != NULL);
            if (!end)
                break;
            if (r.text.size && r.text.data[r.text.size - 1] == '\r')
                r.text.size--;
            st = r.text.failed ? gt_fail(GT_NO_MEMORY, "no memory for a line of '%s'", o.data) : add_text(x, t, &r);
            r.line++;
            r.text.size = 0;
        }
    }
    if (!st && r.text.size)
        st = add_text(x, t, &r);
    reader_record_release(&r);
    return st;
}

static gt_status read_records(texts *x, tokenizer *t, reader *in)
{
    reader_record r = { 0 };
    int more = 1;
    gt_status st = GT_OK;
    while (!st && more) {
        st = reader_next(in, &r, &more);
        if (!st && more)
            st = add_text(x, t, &r);
    }
    reader_record_release(&r);
    return st;
}

static gt_status read_texts(texts *x, tokenizer *t)
{
    reader *in = NULL;
    const reader_keys keys = data_options_keys(&o.of);
    const data_format format = keys.format == DATA_FORMAT_AUTO ? data_format_of(o.data) : keys.format;
    gt_status st = reader_open(&in, o.data, &keys);
    if (!st)
        st = format == DATA_FORMAT_TEXT ? read_lines(x, t, in) : read_records(x, t, in);
    reader_close(in);
    return !st && !x->count ? gt_fail(GT_FORMAT, "'%s' holds no texts", o.data) : st;
}

/* ---- the model ---------------------------------------------------------------------------------- */

static gt_status assemble(parts *p, cli_source *s, int T, dtype storage)
{
    const size_t B = (size_t)o.batch, rows = B * (size_t)T, C = (size_t)s->config.channels;
    p->tokens = malloc((2 * rows + B) * sizeof *p->tokens);
    p->hidden = malloc(rows * C * sizeof *p->hidden);
    p->vector = malloc(C * sizeof *p->vector);
    if (!p->tokens || !p->hidden || !p->vector)
        return gt_fail(GT_NO_MEMORY, "no memory for %zu texts of %d tokens; lower --batch", B, T);
    p->types = p->tokens + rows;
    p->lengths = p->types + rows;
    gt_status st = cli_model_open(&p->model, s, o.devices, storage, (int)o.batch, T);
    const exec_options how = cli_model_exec(&p->model);
    if (!st)
        st = exec_create(&p->exec, p->model.graph, &how);
    return st ? st : exec_ready(p->exec);
}

static void release(parts *p)
{
    exec_release(p->exec);
    cli_model_close(&p->model);
    free(p->tokens);
    free(p->hidden);
    free(p->vector);
}

/* Text i in row b; one that is too long keeps its last token, which a frame put there. */
static void lay(parts *p, texts *x, size_t i, size_t b, size_t T)
{
    const size_t begin = i < x->count ? x->begin[i] : 0, all = i < x->count ? x->begin[i + 1] - begin : 1;
    const size_t n = all < T ? all : T;
    for (size_t t = 0; t < n; t++)
        p->tokens[b * T + t] = (int32_t)x->ids.data[begin + t];
    if (all > T) {
        p->tokens[b * T + T - 1] = (int32_t)x->ids.data[begin + all - 1];
        x->cut++;
    }
    p->lengths[b] = (int32_t)n;
}

static gt_status write_input(parts *p, const char *name, const int32_t *from, size_t count)
{
    dev_buffer *to = exec_buffer(p->exec, name);
    return to ? dev_write(p->model.device, to, 0, from, count * sizeof *from) : GT_OK;
}

static gt_status run_batch(parts *p, texts *x, size_t first, size_t T, size_t C)
{
    const size_t B = (size_t)o.batch;
    memset(p->tokens, 0, 2 * B * T * sizeof *p->tokens);
    for (size_t b = 0; b < B; b++)
        lay(p, x, first + b, b, T);
    gt_status st = write_input(p, "tokens", p->tokens, B * T);
    if (!st)
        st = write_input(p, "token_types", p->types, B * T);
    if (!st)
        st = write_input(p, "lengths", p->lengths, B);
    if (!st)
        st = exec_run(p->exec, EXEC_FORWARD);
    return st ? st
              : dev_read(p->model.device, exec_buffer(p->exec, "hidden"), 0, p->hidden, B * T * C * sizeof *p->hidden);
}

/* ---- vectors ------------------------------------------------------------------------------------ */

static void pool(parts *p, size_t b, size_t T, size_t C)
{
    const size_t n = strcmp(o.pooling, "first") ? (size_t)p->lengths[b] : 1;
    double square = 0.0;
    for (size_t c = 0; c < C; c++) {
        double sum = 0.0;
        for (size_t t = 0; t < n; t++)
            sum += (double)p->hidden[(b * T + t) * C + c];
        p->vector[c] = sum / (double)n;
        square += p->vector[c] * p->vector[c];
    }
    for (size_t c = 0; !o.raw && c < C; c++)
        p->vector[c] /= fmax(sqrt(square), 1e-12);
}

static void print(const parts *p, size_t number, size_t C)
{
    if (o.json)
        printf("{\"text\": %zu, \"tokens\": %d, \"embedding\": [", number + 1, p->lengths[number % o.batch]);
    for (size_t c = 0; c < C; c++)
        printf("%s%.8g", c ? (o.json ? ", " : " ") : "", p->vector[c]);
    printf(o.json ? "]}\n" : "\n");
}

static gt_status embed(cli_source *s, texts *x, dtype storage)
{
    parts p = { 0 };
    const size_t context = (size_t)(o.seq ? o.seq : (uint64_t)s->config.context);
    const size_t T = x->longest < context ? x->longest : context, C = (size_t)s->config.channels;
    if (o.batch > x->count)
        o.batch = x->count;
    gt_status st = assemble(&p, s, (int)T, storage);
    cli_busy_clear();
    for (size_t first = 0; !st && first < x->count; first += o.batch) {
        st = run_batch(&p, x, first, T, C);
        for (size_t b = 0; !st && b < o.batch && first + b < x->count; b++) {
            pool(&p, b, T, C);
            print(&p, first + b, C);
        }
        if (!st && (fflush(stdout) || ferror(stdout)))
            st = gt_fail(GT_IO, "cannot write to standard output; is it closed, or its disk full?");
    }
    if (!st && x->cut)
        gt_log(GT_LOG_WARN, "embed", "%zu of %zu texts were cut to %zu tokens%s", x->cut, x->count, T,
               T < (size_t)s->config.context ? "; a larger --seq takes more of them" : ", the model's context");
    release(&p);
    return st;
}

gt_status verb_embed(int argc, char **argv)
{
    char **words;
    int count, done;
    cli_source s;
    texts x = { 0 };
    dtype storage;
    o.precision = dtype_name(DTYPE_F32);
    gt_status st = cli_parse(table, &help, argc, argv, &words, &count, &done);
    if (st || done)
        return st;
    if (count)
        return cli_no_words(words, &help);
    if (!o.from || !o.data)
        return cli_missing(&help, o.from ? "--data FILE" : "--from RUN|DIR");
    if (!o.batch || o.batch > INT32_MAX || o.seq > INT32_MAX)
        return gt_fail(GT_MISUSE, "option --batch must be at least 1, and both it and --seq below 2^31");
    const cli_useless useless[] = {
        { "label-key", 1, "vectors are of texts, whatever labels they have" },
        { "chat-template", 1, "vectors are of texts, not of chats" },
    };
    st = cli_check_useless(table, useless, sizeof useless / sizeof *useless);
    if (st)
        return st;
    dtype_parse(&storage, o.precision);
    cli_busy_start();
    st = cli_source_open(&s, o.from);
    if (st)
        return st;
    const model_config had = s.config;
    st = model_config_task(&s.config, model_task_name(MODEL_ENCODE));
    if (st)
        st = gt_fail(GT_UNSUPPORTED,
                     "cannot embed with '%s': models of the family '%s' read from left to right; take "
                     "one that reads whole texts, such as BERT",
                     o.from, s.config.family);
    if (!st)
        st = cli_task_check_run(&s, &had, &s.config);
    if (!st)
        st = cli_task_check_seq(&s.config, o.seq);
    if (!st)
        st = cli_source_tokenizer(&s, "put the one that it was trained with beside it");
    if (!st)
        st = read_texts(&x, s.tokenizer);
    if (!st)
        st = embed(&s, &x, storage);
    token_ids_release(&x.ids);
    free(x.begin);
    cli_source_close(&s);
    return st;
}
