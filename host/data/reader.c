/* SPDX-License-Identifier: MIT */
/* host/data/reader.c - JSONL, CSV, TSV and text as streams.
 *
 * zlib reads what is packed and what is not by the same calls, so there is one way into a file.             */
#include "host/data/reader.h"

#include "host/base/file.h"
#include "host/data/foreign.h"
#include "host/tokenizer/template.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <zlib.h>

#define RECORD_MOST ((size_t)256 << 20) /* bytes of a record */
enum { BUFFER = 1 << 18, COLUMNS_MOST = 4096, NAMES_SHOWN = 12 };

struct reader {
    char *path;
    data_format format;
    reader_keys keys;
    gzFile file;
    uint64_t size, line;
    unsigned char *buffer;
    size_t at, end;                     /* what of the buffer is not read yet */
    int last;                           /* the file is read to its end */
    gt_text row;                        /* the record: a line, or fields with a zero behind each */
    const char *json_text;              /* key of the text, once it is known */
    size_t *field;                      /* of a row: where fields begin in `row`; [fields + 1] */
    size_t fields, field_room, columns;
    int text_at, pair_at, label_at;     /* columns, -1: none */
};

static int ends_with(const char *text, size_t size, const char *end)
{
    const size_t n = strlen(end);
    return size >= n && !strncasecmp(text + size - n, end, n);
}

data_format data_format_of(const char *path)
{
    size_t n = strlen(path);
    if (ends_with(path, n, ".gz"))
        n -= 3;
    return ends_with(path, n, ".jsonl") || ends_with(path, n, ".ndjson") ? DATA_FORMAT_JSONL
           : ends_with(path, n, ".csv")                                  ? DATA_FORMAT_CSV
           : ends_with(path, n, ".tsv")                                  ? DATA_FORMAT_TSV
                                                                         : DATA_FORMAT_TEXT;
}

void reader_record_release(reader_record *r)
{
    gt_text_release(&r->text);
    gt_text_release(&r->pair);
    gt_text_release(&r->label);
    json_decref(r->messages);
    memset(r, 0, sizeof *r);
}

void reader_close(reader *r)
{
    if (!r)
        return;
    if (r->file)
        gzclose(r->file);
    gt_text_release(&r->row);
    free(r->field);
    free(r->buffer);
    free(r->path);
    free(r);
}

static gt_status no_memory(const char *path)
{
    return gt_fail(GT_NO_MEMORY, "cannot read '%s': no memory for its records", path);
}

static gt_status broken(const reader *r, uint64_t line, const char *what)
{
    return gt_fail(GT_FORMAT, "cannot read '%s': line %llu: %s", r->path, (unsigned long long)line, what);
}

/* ---- bytes ------------------------------------------------------------------------------------------ */

static gt_status fill(reader *r)
{
    int error = Z_OK;
    const int got = gzread(r->file, r->buffer, BUFFER);
    r->at = 0;
    r->end = got > 0 ? (size_t)got : 0;
    if (got < BUFFER) {                 /* an end inside a packed block is told with what came before it */
        const char *why = gzerror(r->file, &error);
        const size_t n = strlen(r->path);
        why += !strncmp(why, r->path, n) && !strncmp(why + n, ": ", 2) ? n + 2 : 0;
        if (got < 0 || (error != Z_OK && error != Z_STREAM_END))
            return gt_fail(GT_FORMAT, "cannot read '%s': %s; it is damaged or not whole", r->path, why);
    }
    r->last = !r->end;
    return GT_OK;
}

/* The next byte; -1: none, or st says why. */
static int next_byte(reader *r, gt_status *st)
{
    if (r->at == r->end) {
        *st = r->last ? GT_OK : fill(r);
        if (*st || r->at == r->end)
            return -1;
    }
    return r->buffer[r->at++];
}

gt_status reader_bytes(reader *r, void *to, size_t size, size_t *got)
{
    gt_status st = GT_OK;
    for (*got = 0; !st && *got < size;) {
        if (r->at == r->end)
            st = r->last ? GT_OK : fill(r);
        if (st || r->at == r->end)
            break;
        const size_t n = r->end - r->at < size - *got ? r->end - r->at : size - *got;
        memcpy((char *)to + *got, r->buffer + r->at, n);
        r->at += n;
        *got += n;
    }
    return st;
}

uint64_t reader_done(const reader *r)
{
    const z_off_t at = gzoffset(r->file);
    return at < 0 ? 0 : (uint64_t)at < r->size ? (uint64_t)at : r->size;
}

uint64_t reader_size(const reader *r)
{
    return r->size;
}

/* ---- rows --------------------------------------------------------------------------------------------- */

static gt_status put_row(reader *r, const void *data, size_t size)
{
    gt_text_put(&r->row, data, size);
    return r->row.failed               ? no_memory(r->path)
           : r->row.size > RECORD_MOST ? broken(r, r->line, "the record is larger than 256 MiB")
                                       : GT_OK;
}

/* A line that is not blank; *line 0: there is none. */
static gt_status read_line(reader *r, uint64_t *line)
{
    gt_status st = GT_OK;
    for (*line = 0; !st && !*line;) {
        int blank = 1, ended = 0;
        r->row.size = 0;
        while (!st && !ended) {
            if (r->at == r->end)
                st = r->last ? GT_OK : fill(r);
            if (st || r->at == r->end)
                break;
            const unsigned char *begin = r->buffer + r->at, *newline = memchr(begin, '\n', r->end - r->at);
            const size_t n = newline ? (size_t)(newline - begin) : r->end - r->at;
            ended = newline != NULL;
            for (size_t i = 0; blank && i < n; i++)
                blank = begin[i] == ' ' || begin[i] == '\t' || begin[i] == '\r';
            st = put_row(r, begin, n);
            r->at += n + (size_t)ended;
        }
        if (st || (!ended && !r->row.size))
            break;
        r->line++;
        *line = blank ? 0 : r->line;
        if (blank && !ended)
            break;
    }
    return st;
}

static gt_status begin_field(reader *r)
{
    if (r->fields == COLUMNS_MOST)
        return broken(r, r->line, "a row of more than 4096 fields");
    if (r->fields + 2 > r->field_room) {
        const size_t room = r->field_room ? 2 * r->field_room : 32;
        size_t *grown = realloc(r->field, room * sizeof *grown);
        if (!grown)
            return no_memory(r->path);
        r->field = grown;
        r->field_room = room;
    }
    r->field[r->fields++] = r->row.size;
    return GT_OK;
}

/* The row ends with a zero behind its last field, whose size is then known as that of the others. */
static gt_status end_field(reader *r)
{
    gt_status st = put_row(r, "", 1);
    if (!st)
        r->field[r->fields] = r->row.size;
    return st;
}

/* From behind a quote to behind the one that ends it; *c is what comes then. */
static gt_status read_quoted(reader *r, int *c, uint64_t began)
{
    gt_status st = GT_OK;
    for (;;) {
        *c = next_byte(r, &st);
        if (st)
            return st;
        if (*c < 0)
            return broken(r, began, "a field in quotes has no end");
        r->line += *c == '\n';
        if (*c == '"') {
            *c = next_byte(r, &st);
            if (st || *c != '"')
                return st;
        }
        const char byte = (char)*c;
        st = put_row(r, &byte, 1);
        if (st)
            return st;
    }
}

/* A row of fields; *line 0: there is none. A blank line is no row, unless rows have one column. */
static gt_status read_row(reader *r, uint64_t *line)
{
    const int separator = r->format == DATA_FORMAT_TSV ? '\t' : ',';
    gt_status st = GT_OK;
    int c = 0;
    do {
        r->row.size = r->fields = 0;
        const uint64_t began = r->line + 1;
        int quoted = 0, bytes = 0;
        *line = 0;
        st = begin_field(r);
        for (c = st ? -1 : next_byte(r, &st); c >= 0 && !st && c != '\n'; c = next_byte(r, &st), bytes = 1) {
            const char byte = (char)c;
            if (c == '"' && r->field[r->fields - 1] == r->row.size && !quoted) {
                quoted = 1;
                st = read_quoted(r, &c, began);
                if (!st && c >= 0 && c != '\n' && c != '\r' && c != separator)
                    st = broken(r, r->line + 1, "text stands behind the quote that ends a field");
                if (st || c < 0 || c == '\n') {
                    bytes = 1;
                    break;
                }
            }
            if (c == separator) {
                st = end_field(r);
                quoted = 0;
                if (!st)
                    st = begin_field(r);
            } else if (c != '\r') {
                st = put_row(r, &byte, 1);
            } else {                    /* a carriage return belongs to the end of the line, or to the field */
                const int after = next_byte(r, &st);
                if (after >= 0)
                    r->at--;
                if (!st && after != '\n' && after >= 0 && !quoted)
                    st = put_row(r, &byte, 1);
            }
        }
        if (st)
            return st;
        if (c < 0 && !bytes && r->row.size == 0 && r->fields == 1)
            return GT_OK;
        r->line++;
        st = end_field(r);
        *line = began;
    } while (!st && c >= 0 && r->fields == 1 && r->row.size == 1 && r->columns != 1);
    if (!st && r->fields == 1 && r->row.size == 1 && r->columns != 1)
        *line = 0;
    return st;
}

static const char *field_of(const reader *r, size_t i, size_t *size)
{
    *size = r->field[i + 1] - r->field[i] - 1;
    return r->row.data + r->field[i];
}

/* ---- opening -------------------------------------------------------------------------------------------- */

static gt_status find_column(const reader *r, const char *name, int *at)
{
    gt_text names = { 0 };
    *at = -1;
    for (size_t i = 0; name && i < r->fields; i++) {
        size_t n;
        const char *f = field_of(r, i, &n);
        if (n == strlen(name) && !memcmp(f, name, n))
            *at = (int)i;
        if (i < NAMES_SHOWN)
            gt_text_printf(&names, "%s%.40s", i ? ", " : "", f);
    }
    gt_status st = !name || *at >= 0
                       ? GT_OK
                       : gt_fail(GT_FORMAT, "cannot read '%s': its header has no column '%s'; it has: %s%s", r->path,
                                 name, names.data ? names.data : "", r->fields > NAMES_SHOWN ? ", ..." : "");
    gt_text_release(&names);
    return st;
}

static gt_status read_header(reader *r)
{
    uint64_t line;
    gt_status st = read_row(r, &line);
    if (!st && !line)
        st = gt_fail(GT_FORMAT, "cannot read '%s': it is empty", r->path);
    r->columns = r->fields;
    if (!st)
        st = find_column(r, r->keys.text ? r->keys.text : "text", &r->text_at);
    if (!st)
        st = find_column(r, r->keys.pair, &r->pair_at);
    return st ? st : find_column(r, r->keys.label, &r->label_at);
}

/* What the file is, packed or not, by its beginning; and its byte order mark. */
static gt_status look_at_beginning(reader *r)
{
    gt_status st = fill(r);
    const gt_map head = { .data = r->buffer, .size = r->end, .path = r->path };
    if (!st && !r->end)
        st = gt_fail(GT_FORMAT, "cannot read '%s': it is empty", r->path);
    if (!st)
        st = data_foreign_check(&head, DATA_AS_TEXT);
    if (!st && r->format != DATA_FORMAT_TEXT && r->end >= 3 && !memcmp(r->buffer, "\xef\xbb\xbf", 3))
        r->at = 3;
    return st;
}

gt_status reader_open(reader **out, const char *path, const reader_keys *keys)
{
    gt_map map;
    *out = NULL;
    gt_status st = gt_map_open(&map, path);         /* for its sentences, and the size */
    if (st)
        return st;
    reader *r = calloc(1, sizeof *r);
    if (r) {
        r->path = strdup(path);
        r->keys = *keys;
        r->format = keys->format ? keys->format : data_format_of(path);
        r->size = map.size;
        r->text_at = r->pair_at = r->label_at = -1;
        r->json_text = keys->text;
        r->buffer = malloc(BUFFER);
        r->file = gzopen(path, "rb");
    }
    gt_map_close(&map);
    if (!r || !r->path || !r->buffer || !r->file)
        st = no_memory(path);
    if (!st && gzbuffer(r->file, BUFFER))
        st = no_memory(path);
    if (!st)
        st = look_at_beginning(r);
    if (!st && (r->format == DATA_FORMAT_CSV || r->format == DATA_FORMAT_TSV))
        st = read_header(r);
    if (st) {
        reader_close(r);
        return st;
    }
    *out = r;
    return GT_OK;
}

/* ---- records ----------------------------------------------------------------------------------------------- */

static gt_status next_row(reader *r, uint64_t *line)
{
    if (r->format == DATA_FORMAT_JSONL)
        return read_line(r, line);
    gt_status st = read_row(r, line);
    if (!st && *line && r->fields != r->columns)
        st = gt_fail(GT_FORMAT, "cannot read '%s': line %llu: %zu fields, the header has %zu", r->path,
                     (unsigned long long)*line, r->fields, r->columns);
    return st;
}

gt_status reader_skip(reader *r, uint64_t *line)
{
    return next_row(r, line);
}

static void take_field(const reader *r, int at, gt_text *out)
{
    size_t n = 0;
    const char *f = at < 0 ? "" : field_of(r, (size_t)at, &n);
    gt_text_put(out, f, n);
}

/* The value at a key: "a.b" as it stands, else b within a. */
static json_t *value_at(json_t *of, const char *key)
{
    json_t *found = json_object_get(of, key);
    const char *dot = strchr(key, '.');
    if (found || !dot || !json_is_object(of))
        return found;
    char *first = strndup(key, (size_t)(dot - key));
    found = first ? json_object_get(of, first) : NULL;
    free(first);
    return found ? value_at(found, dot + 1) : NULL;
}

static gt_status lacks(const reader *r, uint64_t line, json_t *record, const char *key, const char *what)
{
    gt_text names = { 0 };
    const char *name;
    json_t *value;
    int n = 0;
    json_object_foreach(record, name, value)
        if (n++ < NAMES_SHOWN)
            gt_text_printf(&names, "%s%.40s", n > 1 ? ", " : "", name);
    gt_status st = gt_fail(GT_FORMAT, "cannot read '%s': line %llu: there is no %s at the key '%s'; keys here are: %s",
                           r->path, (unsigned long long)line, what, key, names.data ? names.data : "none");
    gt_text_release(&names);
    return st;
}

/* A text; or, where any value does (a label), a number or truth value as JSON writes it. */
static gt_status take_value(const reader *r, uint64_t line, json_t *record, const char *key, int any, gt_text *out)
{
    const json_t *v = value_at(record, key);
    if (json_is_string(v))
        gt_text_put(out, json_string_value(v), json_string_length(v));
    else if (any && json_is_integer(v))
        gt_text_printf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
    else if (any && json_is_boolean(v))
        gt_text_printf(out, "%s", json_is_true(v) ? "true" : "false");
    else
        return lacks(r, line, record, key, any ? "text, whole number or truth value" : "text");
    return GT_OK;
}

/* Which key has the text, where nothing says so: the first record tells. */
static gt_status settle_text(reader *r, uint64_t line, json_t *record)
{
    static const char *const usual[] = { "text", "messages", "conversations" };
    for (int i = 0; i < 3 && !r->json_text; i++)
        if (value_at(record, usual[i]))
            r->json_text = usual[i];
    if (r->json_text)
        return GT_OK;
    gt_status st = lacks(r, line, record, "text", "text");
    return gt_fail(st, "%s; name the right one with --text-key", gt_message());
}

static gt_status take_object(reader *r, uint64_t line, json_t *record, reader_record *out)
{
    gt_status st = r->json_text ? GT_OK : settle_text(r, line, record);
    if (st)
        return st;
    json_t *text = value_at(record, r->json_text);
    if (json_is_array(text)) {
        json_t *alone = json_pack("{s:O}", r->json_text, text);     /* a key of several parts is one there */
        st = chat_messages(&out->messages, alone, r->json_text);
        json_decref(alone);
        return st ? gt_fail_in(st, "cannot read '%s': line %llu", r->path, (unsigned long long)line) : GT_OK;
    }
    st = take_value(r, line, record, r->json_text, 0, &out->text);
    if (!st && r->keys.pair)
        st = take_value(r, line, record, r->keys.pair, 0, &out->pair);
    return st || !r->keys.label ? st : take_value(r, line, record, r->keys.label, 1, &out->label);
}

static gt_status take_line(reader *r, uint64_t line, reader_record *out)
{
    json_error_t error;
    const char *text = r->row.data;
    json_t *record = json_loadb(text, r->row.size, JSON_ALLOW_NUL, &error);
    if (!record && json_error_code(&error) == json_error_numeric_overflow)      /* a number that nobody may ask for */
        record = json_loadb(text, r->row.size, JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, &error);
    gt_status st = GT_OK;
    if (!record)
        st = gt_fail(GT_FORMAT, "cannot read '%s': line %llu: %s%s", r->path, (unsigned long long)line, error.text,
                     line == 1 && text[strspn(text, " \t")] == '['
                         ? "; JSONL has an object a line, as `jq -c '.[]'` writes an array"
                         : "");
    else if (!json_is_object(record))
        st = broken(r, line,
                    json_is_array(record) ? "an array, not an object; JSONL has an object a line, as `jq -c '.[]'` "
                                            "writes an array"
                                          : "no object; JSONL has an object a line");
    if (!st)
        st = take_object(r, line, record, out);
    json_decref(record);
    return st;
}

gt_status reader_next(reader *r, reader_record *out, int *more)
{
    uint64_t line;
    *more = 0;
    out->text.size = out->pair.size = out->label.size = 0;
    json_decref(out->messages);
    out->messages = NULL;
    gt_status st = next_row(r, &line);
    if (st || !line)
        return st;
    *more = 1;
    out->line = line;
    if (r->format == DATA_FORMAT_JSONL) {
        st = take_line(r, line, out);
    } else {
        take_field(r, r->text_at, &out->text);
        take_field(r, r->pair_at, &out->pair);
        take_field(r, r->label_at, &out->label);
    }
    return st ? st : out->text.failed || out->pair.failed || out->label.failed ? no_memory(r->path) : GT_OK;
}
