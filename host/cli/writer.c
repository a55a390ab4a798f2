/* SPDX-License-Identifier: MIT */
/* host/cli/writer.c - draws tokens, and turns them into text as far as that is whole. */
#include "host/cli/writer.h"

#include "host/base/clock.h"
#include "host/base/log.h"
#include "host/base/file.h"
#include "host/tokenizer/text_stream.h"
#include "host/tokenizer/utf8.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define STREAM 0x67656e                 /* of random numbers: the first sample's */

gt_status cli_allow_tokens(generate *g, const tokenizer *t, int vocab)
{
    unsigned char *may = malloc((size_t)vocab);
    if (!may)
        return gt_fail(GT_NO_MEMORY, "cannot generate: no memory for a flag for each of %d tokens", vocab);
    for (int id = 0; id < vocab; id++)
        may[id] = (unsigned char)tokenizer_has(t, (uint32_t)id);
    gt_status st = generate_allow(g, may);
    free(may);
    return st;
}

/* ---- where texts end ----------------------------------------------------------------------------- */

static gt_status add_end(token_ids *out, const json_t *id, const char *file)
{
    const json_int_t i = json_integer_value(id);
    if (!json_is_integer(id) || i < 0 || i > INT32_MAX)
        return gt_fail(GT_FORMAT, "'%s': \"eos_token_id\" is not an id, nor a list of ids", file);
    return token_ids_add(out, &(uint32_t){ (uint32_t)i }, 1);
}

/* *found: the file says something, if only that there is none. */
static gt_status ends_of(token_ids *out, const char *folder, const char *name, int *found)
{
    json_error_t error;
    char *file = gt_path_join(folder, name), *text = NULL;
    size_t size = 0;
    gt_status st = file ? GT_OK : gt_fail(GT_NO_MEMORY, "no memory for the path of '%s/%s'", folder, name);
    *found = 0;
    if (st || !gt_path_exists(file)) {
        free(file);
        return st;
    }
    st = gt_file_read(&text, &size, file, 1u << 24);
    json_t *root = st ? NULL : json_loadb(text, size, 0, &error);
    if (!st && !root)
        st = gt_fail(GT_FORMAT, "'%s', line %d: %s", file, error.line, error.text);
    const json_t *ids = json_object_get(root, "eos_token_id");
    *found = ids != NULL;
    if (!st && json_is_array(ids))
        for (size_t i = 0; !st && i < json_array_size(ids); i++)
            st = add_end(out, json_array_get(ids, i), file);
    else if (!st && ids && !json_is_null(ids))
        st = add_end(out, ids, file);
    json_decref(root);
    free(text);
    free(file);
    return st;
}

gt_status cli_end_ids(token_ids *out, const tokenizer *t, const char *folder)
{
    int found = 1;
    const int64_t eot = tokenizer_eot(t);
    gt_status st = eot < 0 ? GT_OK : token_ids_add(out, &(uint32_t){ (uint32_t)eot }, 1);
    if (!st && folder)
        st = ends_of(out, folder, "generation_config.json", &found);
    return st || found ? st : ends_of(out, folder, "config.json", &found);
}

static int is_among(const json_t *list, uint32_t id)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        if (json_integer_value(json_array_get(list, i)) == (json_int_t)id)
            return 1;
    return 0;
}

gt_status cli_end_ids_keep(const tokenizer *t, const char *folder, const char *to)
{
    token_ids ids = { 0 };
    char *path = gt_path_join(to, "generation_config.json"), *text = NULL;
    json_t *root = json_object(), *list = json_array();
    gt_status st = path && root && list ? GT_OK : gt_fail(GT_NO_MEMORY, "no memory for what ends texts of '%s'", to);
    if (!st && !gt_path_exists(path))
        st = cli_end_ids(&ids, t, folder);
    for (size_t i = 0; !st && i < ids.count; i++)
        if (!is_among(list, ids.data[i]))
            json_array_append_new(list, json_integer((json_int_t)ids.data[i]));
    if (!st && ids.count) {
        json_object_set(root, "eos_token_id", json_array_size(list) == 1 ? json_array_get(list, 0) : list);
        text = json_dumps(root, JSON_INDENT(2));
        st = text ? gt_file_write(path, text, strlen(text))
                  : gt_fail(GT_NO_MEMORY, "no memory for what ends texts of '%s'", to);
    }
    free(text);
    json_decref(list);
    json_decref(root);
    token_ids_release(&ids);
    free(path);
    return st;
}

static int ends(const cli_writer *w, uint32_t id)
{
    for (size_t i = 0; i < w->ends.count; i++)
        if (w->ends.data[i] == id)
            return 1;
    return 0;
}

/* ---- writing ---------------------------------------------------------------------------------------- */

/* Shows what has been added to the text since `from`. */
static gt_status show(const cli_writer *w, const gt_text *t, size_t from)
{
    return w->show && t->size > from ? w->show(w->context, t->data + from, t->size - from) : GT_OK;
}

static gt_status draw(const cli_writer *w, text_stream *s, gt_random *random, cli_written *out)
{
    gt_status st = GT_OK;
    out->why = "length";
    while (!st && out->tokens < w->tokens) {
        const size_t shown = out->text.size;
        uint32_t id;
        st = generate_next(w->generate, &w->rule, random, &id);
        if (!st && ends(w, id)) {
            out->why = "end";
            break;
        }
        out->tokens++;
        if (!st)
            st = text_stream_put(s, id, &out->text);
        if (!st)
            st = show(w, &out->text, shown);
        if (s->stopped) {
            out->why = "stop";
            break;
        }
    }
    const size_t shown = out->text.size;
    if (!st)
        st = text_stream_end(s, &out->text);
    if (!st && s->stopped)
        out->why = "stop";
    return st ? st : show(w, &out->text, shown);
}

/* The ids of a prompt, behind what the tokenizer's frame puts in front of a text; what it puts behind one
 * would end it. */
static gt_status encode(const cli_writer *w, const char *prompt, size_t size, token_ids *out)
{
    token_ids text = { 0 }, framed = { 0 };
    gt_status st = tokenizer_encode(w->tokenizer, prompt, size, &text);
    const size_t more = w->bare || st || !text.count ? 0 : tokenizer_frame_size(w->tokenizer, 0);
    size_t front = 0;
    if (!st && more)
        st = tokenizer_frame(w->tokenizer, &text, NULL, &framed, NULL);
    if (!st && more)
        while (front < more && memcmp(framed.data + front, text.data, text.count * sizeof *text.data))
            front++;
    if (!st)
        st = token_ids_add(out, framed.data, front);
    if (!st)
        st = token_ids_add(out, text.data, text.count);
    token_ids_release(&text);
    token_ids_release(&framed);
    return st;
}

gt_status cli_write(const cli_writer *w, const char *prompt, size_t size, uint64_t number, cli_written *out)
{
    token_ids ids = { 0 };
    text_stream s = { 0 };
    gt_random random;
    *out = (cli_written){ 0 };
    gt_status st = encode(w, prompt, size, &ids);
    if (!st && !ids.count)
        st = gt_fail(GT_MISUSE, "the prompt is empty; give one with --prompt TEXT");
    const uint64_t start = gt_now_ns();
    generate_restart(w->generate);
    if (!st)
        st = generate_feed(w->generate, ids.data, ids.count);
    if (!st && ids.count > (size_t)generate_seen(w->generate))
        gt_log(
            GT_LOG_WARN, "generate",
            "the prompt has %zu tokens, more than the model's context: its first %zu were forgotten, the last %d are seen",
            ids.count, ids.count - (size_t)generate_seen(w->generate), generate_seen(w->generate));
    const uint64_t fed = gt_now_ns();
    out->prompt_tokens = ids.count;
    out->prompt_seconds = (double)(fed - start) * 1e-9;
    gt_random_init(&random, w->seed, STREAM + number);
    if (!st)
        st = text_stream_open(&s, w->tokenizer, ids.data, ids.count, w->stop, w->stops);
    if (!st)
        st = draw(w, &s, &random, out);
    out->seconds = (double)(gt_now_ns() - fed) * 1e-9;
    text_stream_release(&s);
    token_ids_release(&ids);
    return st;
}

void cli_written_release(cli_written *out)
{
    gt_text_release(&out->text);
}

void cli_json_string(gt_text *out, const char *text, size_t size)
{
    gt_text_put(out, "\"", 1);
    for (size_t i = 0; i < size;) {
        const unsigned char *at = (const unsigned char *)text + i;
        uint32_t code;
        const int n = utf8_next(at, size - i, &code);
        if (n <= 0)
            gt_text_printf(out, "\\ufffd");
        else if (code < 0x20 || code == '"' || code == '\\' || code == 0x7f)
            gt_text_printf(out, "\\u%04x", (unsigned)code);
        else
            gt_text_put(out, at, (size_t)n);
        i += n > 0 ? (size_t)n : 1;
    }
    gt_text_put(out, "\"", 1);
}

void cli_written_json(gt_text *out, const cli_written *w, const char *extra)
{
    gt_text_printf(out, "{%s\"text\": ", extra);
    cli_json_string(out, w->text.data, w->text.size);
    gt_text_printf(out,
                   ", \"tokens\": %llu, \"ended\": \"%s\", \"prompt_tokens\": %llu, \"prompt_seconds\": %.4f, "
                   "\"seconds\": %.4f}\n",
                   (unsigned long long)w->tokens, w->why, (unsigned long long)w->prompt_tokens, w->prompt_seconds,
                   w->seconds);
}
