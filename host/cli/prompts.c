/* SPDX-License-Identifier: MIT */
/* host/cli/prompts.c - reads a file of prompts. */
#include "host/cli/prompts.h"

#include "host/base/file.h"

#include <stdlib.h>
#include <string.h>

#define MOST_BYTES ((size_t)1 << 30)

static int ends_in(const char *text, const char *end)
{
    const size_t n = strlen(text), m = strlen(end);
    return n >= m && !strcmp(text + n - m, end);
}

const char *prompts_text(const json_t *item, size_t *size)
{
    const json_t *text = json_is_object(item) ? json_object_get(item, "prompt") : item;
    *size = json_string_length(text);
    return json_string_value(text);
}

static gt_status read_line(json_t *all, const char *line, size_t size, int objects, const char *file, int number)
{
    json_error_t error = { 0 };
    if (!size)
        return gt_fail(GT_FORMAT, "'%s', line %d is empty: a line is a prompt", file, number);
    json_t *item = objects ? json_loadb(line, size, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error)
                           : json_stringn(line, size);
    if (!item)
        return gt_fail(GT_FORMAT, "'%s', line %d: %s", file, number, objects ? error.text : "it is no UTF-8");
    if (!json_is_string(item) && !json_is_object(item)) {
        json_decref(item);
        return gt_fail(GT_FORMAT, "'%s', line %d is neither a text nor an object", file, number);
    }
    return json_array_append_new(all, item) ? gt_fail(GT_NO_MEMORY, "no memory for the prompts of '%s'", file) : GT_OK;
}

gt_status prompts_read(json_t **out, const char *file)
{
    char *text = NULL;
    size_t size = 0;
    int number = 0;
    const int objects = ends_in(file, ".jsonl");
    *out = NULL;
    gt_status st = gt_file_read(&text, &size, file, MOST_BYTES);
    json_t *all = st ? NULL : json_array();
    if (!st && !all)
        st = gt_fail(GT_NO_MEMORY, "no memory for the prompts of '%s'", file);
    for (size_t at = 0; !st && at < size; at++) {
        const char *end = memchr(text + at, '\n', size - at);
        size_t length = end ? (size_t)(end - (text + at)) : size - at;
        const size_t next = at + length;
        if (length && text[next - 1] == '\r')
            length--;
        st = read_line(all, text + at, length, objects, file, ++number);
        at = next;
    }
    if (!st && !json_array_size(all))
        st = gt_fail(GT_FORMAT, "'%s' is empty: a line is a prompt", file);
    free(text);
    if (st)
        json_decref(all);
    else
        *out = all;
    return st;
}
