/* SPDX-License-Identifier: MIT */
/* host/data/tokenize_records.c - records to documents: ids, marks, labels.
 *
 * Files are read twice: once to count documents, without looking into them unless they have labels, and once to
 * encode them. A document is in memory whole; nothing else grows with the data but the names of labels.        */
#include "host/data/tokenize_private.h"

#include <stdlib.h>
#include <string.h>

enum { LABELS_MOST = 65536 };

static gt_status no_memory(const char *path)
{
    return gt_fail(GT_NO_MEMORY, "cannot tokenize '%s': no memory for its documents", path);
}

/* ---- labels ----------------------------------------------------------------------------------------- */

static int is_whole_number(const char *name)
{
    const char *digits = name + (*name == '-');
    return *digits && strlen(digits) < 18 && strspn(digits, "0123456789") == strlen(digits);
}

static int by_number(const void *a, const void *b)
{
    const long long x = strtoll(*(char *const *)a, NULL, 10), y = strtoll(*(char *const *)b, NULL, 10);
    return x < y ? -1 : x > y;
}

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static gt_status note_label(tokenize_job *j, const tokenize_input *in, const reader_record *r)
{
    const char *name = r->label.data ? r->label.data : "";
    if (!r->label.size || strlen(name) != r->label.size)
        return gt_fail(GT_FORMAT, "cannot tokenize '%s': line %llu: the label is empty", in->path,
                       (unsigned long long)r->line);
    if (json_object_get(j->labels, name))
        return GT_OK;
    if (json_object_size(j->labels) == LABELS_MOST)
        return gt_fail(GT_FORMAT,
                       "cannot tokenize '%s': line %llu: more than %d different labels; is '%s' the right key?",
                       in->path, (unsigned long long)r->line, LABELS_MOST, j->options->keys.label);
    return json_object_set_new(j->labels, name, json_integer(0))
               ? gt_fail(GT_FORMAT, "cannot tokenize '%s': line %llu: the label is no UTF-8", in->path,
                         (unsigned long long)r->line)
               : GT_OK;
}

/* In the order of their bytes, or as numbers where all are. */
static gt_status number_labels(tokenize_job *j)
{
    const size_t count = json_object_size(j->labels);
    const char **names = calloc(count + 1, sizeof *names), *name;
    json_t *value;
    size_t n = 0;
    int numbers = 1;
    if (!names)
        return no_memory(j->inputs[0].path);
    json_object_foreach(j->labels, name, value) {
        numbers &= is_whole_number(name);
        names[n++] = name;
    }
    qsort(names, n, sizeof *names, numbers ? by_number : by_bytes);
    for (size_t i = 0; i < n; i++)
        json_integer_set(json_object_get(j->labels, names[i]), (json_int_t)i);
    free(names);
    j->result.labels = (int)count;
    return GT_OK;
}

/* ---- counting ------------------------------------------------------------------------------------------ */

static gt_status count_file(tokenize_job *j, tokenize_input *in)
{
    reader *r = NULL;
    reader_record record = { 0 };
    uint64_t line = 1;
    int more = 1;
    gt_status st = reader_open(&r, in->path, &j->options->keys);
    if (!st && in->format == DATA_FORMAT_TEXT)
        in->documents = 1;
    while (!st && in->format != DATA_FORMAT_TEXT) {
        if (j->labels)
            st = reader_next(r, &record, &more);
        else
            st = reader_skip(r, &line);
        if (st || !line || !more)
            break;
        if (record.messages)
            st = gt_fail(GT_MISUSE, "cannot tokenize '%s': line %llu is a chat, which has no label", in->path,
                         (unsigned long long)record.line);
        if (!st && j->labels)
            st = note_label(j, in, &record);
        in->documents++;
        if (!st && in->documents % 4096 == 0)
            st = tokenize_told(j, 0, in->path);
    }
    if (!st && !in->documents)
        st = gt_fail(GT_FORMAT, "cannot tokenize '%s': it has no records", in->path);
    reader_record_release(&record);
    reader_close(r);
    return st;
}

gt_status tokenize_count_records(tokenize_job *j)
{
    gt_status st = GT_OK;
    if (j->options->keys.label && !(j->labels = json_object()))
        return no_memory(j->inputs[0].path);
    for (size_t i = 0; !st && i < j->input_count; i++) {
        if (j->labels && j->inputs[i].format == DATA_FORMAT_TEXT)
            st = gt_fail(GT_MISUSE, "cannot tokenize '%s': a text has no labels; name JSONL, CSV or TSV",
                         j->inputs[i].path);
        if (!st)
            st = count_file(j, &j->inputs[i]);
    }
    return st || !j->labels ? st : number_labels(j);
}

unsigned tokenize_marks(const tokenize_job *j)
{
    const unsigned ends = 1u << TOKEN_ENDS;
    return !j->records              ? 0
           : j->options->keys.pair  ? ends | 1u << TOKEN_SECOND
           : j->options->keys.label ? ends
           : j->options->chat       ? ends | 1u << TOKEN_ANSWERS
                                    : ends;
}

/* ---- one document ---------------------------------------------------------------------------------------- */

static gt_status mark_all(tokenize_job *j, unsigned char mark)
{
    return tokenize_mark(j, j->ids.count, mark);
}

/* Does each piece alone decode to its bytes of the text? Then *ends[i] is where piece i ends. */
static int find_ends(tokenize_job *j, size_t *ends)
{
    const gt_text *text = &j->chat.text;
    size_t at = 0;
    for (size_t i = 0; i < j->ids.count; i++) {
        j->scratch.size = 0;
        if (tokenizer_decode(j->tokenizer, &j->ids.data[i], 1, &j->scratch)) {
            gt_message_clear();
            return 0;
        }
        if (j->scratch.size > text->size - at || memcmp(j->scratch.data, text->data + at, j->scratch.size))
            return 0;
        at += j->scratch.size;
        ends[i] = at;
    }
    return at == text->size;
}

/* How many tokens hold something of the text before `to`: those that it has alone, as far as they are the same. */
static gt_status tokens_before(tokenize_job *j, size_t to, int begun, size_t *count)
{
    token_ids alone = { 0 };
    gt_status st = tokenizer_encode(j->tokenizer, j->chat.text.data, to, &alone);
    for (*count = 0; !st && *count < alone.count && *count < j->ids.count && alone.data[*count] == j->ids.data[*count];)
        ++*count;
    *count += begun && *count < alone.count && *count < j->ids.count;
    token_ids_release(&alone);
    return st;
}

/* A token counts if it holds anything of an answer. */
static gt_status mark_answers(tokenize_job *j)
{
    const unsigned char answer = 1u << TOKEN_ANSWERS;
    size_t *ends = malloc((j->ids.count + 1) * sizeof *ends);
    if (!ends)
        return no_memory(j->inputs[0].path);
    const int known = find_ends(j, ends);
    gt_status st = mark_all(j, 0);
    for (size_t s = 0; !st && s < j->chat.span_count; s++) {
        const chat_span span = j->chat.spans[s];
        size_t from = 0, to = 0;
        if (!known) {
            st = tokens_before(j, span.begin, 0, &from);
            if (!st)
                st = tokens_before(j, span.end, 1, &to);
        } else {
            while (from < j->ids.count && ends[from] <= span.begin)
                from++;
            for (to = from; to < j->ids.count && (to ? ends[to - 1] : 0) < span.end;)
                to++;
        }
        for (size_t i = from; !st && i < to; i++)
            j->marks.data[i] = (char)answer;
    }
    free(ends);
    return st;
}

static gt_status make_chat(tokenize_job *j, const reader_record *r)
{
    const tokenize_options *o = j->options;
    if (!o->chat)
        return o->chat_why ? gt_fail(GT_MISUSE, "it is a chat: %s", o->chat_why)
                           : gt_fail(GT_MISUSE, "it is a chat, and the tokenizer has no chat template; name one with "
                                                "--chat-template FILE");
    gt_status st = chat_template_render_answers(o->chat, r->messages, &j->chat);
    if (!st)
        st = tokenizer_encode(j->tokenizer, j->chat.text.data, j->chat.text.size, &j->ids);
    return st ? st : mark_answers(j);
}

/* The tokenizer's frame of a text or pair; the end of a text where it has no frame. */
static gt_status make_framed(tokenize_job *j, const reader_record *r)
{
    const int pair = j->options->keys.pair != NULL;
    j->types.count = 0;
    gt_status st = tokenizer_encode_template(j->tokenizer, r->text.data, r->text.size, pair ? r->pair.data : NULL,
                                             r->pair.size, &j->ids, &j->types);
    const int64_t eot = tokenizer_eot(j->tokenizer);
    const uint32_t id = (uint32_t)eot, type = pair ? 1u : 0u;
    if (!st && eot >= 0 && !tokenizer_frame_size(j->tokenizer, pair)) {
        st = token_ids_add(&j->ids, &id, 1);
        if (!st)
            st = token_ids_add(&j->types, &type, 1);
    }
    if (!st)
        st = mark_all(j, 0);
    for (size_t i = 0; !st && pair && i < j->ids.count && i < j->types.count; i++)
        j->marks.data[i] = (char)(j->types.data[i] ? 1u << TOKEN_SECOND : 0u);
    return st;
}

static gt_status make_plain(tokenize_job *j, const reader_record *r)
{
    const int64_t eot = tokenizer_eot(j->tokenizer);
    const uint32_t id = (uint32_t)eot;
    gt_status st = tokenizer_encode(j->tokenizer, r->text.data, r->text.size, &j->ids);
    if (!st && eot >= 0)
        st = token_ids_add(&j->ids, &id, 1);
    return st ? st : mark_all(j, 1u << TOKEN_ANSWERS);
}

/* A document without a token leaves no trace, unless it has a label. */
static gt_status put_record(tokenize_job *j, const tokenize_input *in, const reader_record *r, token_writer *out)
{
    const tokenize_options *o = j->options;
    j->ids.count = 0;
    gt_status st = r->messages ? make_chat(j, r) : o->keys.label || o->keys.pair ? make_framed(j, r) : make_plain(j, r);
    if (!st && j->labels && !j->ids.count)
        st = gt_fail(GT_FORMAT, "it has a label and no text");
    if (st)
        return gt_fail_in(st, "cannot tokenize '%s': line %llu", in->path, (unsigned long long)r->line);
    if (!j->ids.count)
        return GT_OK;
    j->marks.data[j->ids.count - 1] |= 1u << TOKEN_ENDS;
    st = token_writer_put_marked(out, j->ids.data, (const unsigned char *)j->marks.data, j->ids.count);
    if (!st && j->labels)
        st = token_writer_label(out, (int32_t)json_integer_value(json_object_get(j->labels, r->label.data)));
    return st;
}

/* ---- all of them ---------------------------------------------------------------------------------------------- */

/* Which split a document belongs to. */
typedef struct splitter {
    const tokenize_options *o;
    uint64_t at, train;                 /* documents before; how many of them train */
    uint64_t *seen;                     /* of each label */
} splitter;

static int validates(splitter *s, const tokenize_job *j, const reader_record *r)
{
    const double share = s->o->val_file_count ? 0.0 : s->o->val_fraction;
    if (!j->labels)
        return s->at++ >= s->train;
    uint64_t *n = &s->seen[json_integer_value(json_object_get(j->labels, r->label.data))];
    const double before = (double)*n * share + 1e-9;
    ++*n;
    return (uint64_t)((double)*n * share + 1e-9) > (uint64_t)before;
}

static gt_status encode_file(tokenize_job *j, const tokenize_input *in, int only_val, splitter *s, token_writer *train,
                             token_writer *val)
{
    const uint64_t before = j->done;
    uint64_t told = 0;
    reader *r = NULL;
    reader_record record = { 0 };
    int more = 1;
    gt_status st = reader_open(&r, in->path, &j->options->keys);
    while (!st) {
        st = reader_next(r, &record, &more);
        if (st || !more)
            break;
        const int valid = only_val || validates(s, j, &record);
        st = put_record(j, in, &record, valid ? val : train);
        j->result.train_documents += !valid;
        j->result.val_documents += (uint64_t)valid;
        if (!st && ++told % 64 == 0)
            st = tokenize_told(j, before + reader_done(r), in->path);
    }
    j->done = before + in->size;
    reader_record_release(&record);
    reader_close(r);
    return st;
}

/* A text beside records is one document. */
static gt_status encode_text(tokenize_job *j, const tokenize_input *in, int only_val, splitter *s, token_writer *train,
                             token_writer *val)
{
    const int64_t eot = tokenizer_eot(j->tokenizer);
    const uint32_t id = (uint32_t)eot;
    const unsigned char end = 1u << TOKEN_ENDS | 1u << TOKEN_ANSWERS;
    const int valid = only_val || validates(s, j, NULL);
    j->result.train_documents += !valid;
    j->result.val_documents += (uint64_t)valid;
    if (eot < 0)
        return gt_fail(GT_MISUSE,
                       "cannot tokenize '%s' beside records: its end has to be told, and the tokenizer has no "
                       "end-of-text token; give it as JSONL",
                       in->path);
    gt_status st = tokenize_text(j, in, 0, UINT64_MAX, valid ? val : train);
    return st ? st : token_writer_put_marked(valid ? val : train, &id, &end, 1);
}

gt_status tokenize_records(tokenize_job *j, token_writer *train, token_writer *val)
{
    const tokenize_options *o = j->options;
    splitter s = { .o = o };
    gt_status st = GT_OK;
    for (size_t i = 0; i < o->file_count; i++)
        s.train += j->inputs[i].documents;
    const uint64_t all = s.train;
    if (!o->val_file_count && o->val_fraction > 0.0)
        s.train = (uint64_t)((1.0 - o->val_fraction) * (double)all);
    s.train += !s.train;                /* one document trains */
    s.seen = calloc((size_t)j->result.labels + 1, sizeof *s.seen);
    if (!s.seen)
        return no_memory(j->inputs[0].path);
    for (size_t i = 0; !st && i < j->input_count; i++) {
        const tokenize_input *in = &j->inputs[i];
        const int only_val = i >= o->file_count;
        st = in->format == DATA_FORMAT_TEXT ? encode_text(j, in, only_val, &s, train, val)
                                            : encode_file(j, in, only_val, &s, train, val);
    }
    free(s.seen);
    return st;
}
