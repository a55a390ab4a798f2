/* SPDX-License-Identifier: MIT */
/* host/tokenizer/frame.c - four ways to write the same: a list of texts and tokens with types. */
#include "host/tokenizer/frame.h"

#include "host/tokenizer/vocabulary.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void frame_release(frame *f)
{
    free(f->single.parts);
    free(f->pair.parts);
    memset(f, 0, sizeof *f);
}

static gt_status broken(const char *name, const char *what)
{
    return gt_fail(GT_FORMAT, "cannot read '%s': post_processor: %s", name, what);
}

static gt_status add(frame *f, frame_list *list, int what, uint32_t id, uint32_t type)
{
    frame_part *parts = realloc(list->parts, (list->count + 1) * sizeof *parts);
    if (!parts)
        return gt_fail(GT_NO_MEMORY, "no memory for the frame of a text");
    list->parts = parts;
    parts[list->count++] = (frame_part){ what, id, type };
    if (what == FRAME_TOKEN && id >= f->vocab)
        f->vocab = id + 1;
    return GT_OK;
}

static int read_number(uint32_t *out, const json_t *value)
{
    const json_int_t n = json_integer_value(value);
    *out = (uint32_t)n;
    return json_is_integer(value) && n >= 0 && n < VOCABULARY_MAX;
}

/* {"Sequence": {"id": "A", "type_id": 0}} or {"SpecialToken": {"id": "[CLS]", "type_id": 0}}; a
 * special token stands for the ids that "special_tokens" gives it. */
static gt_status read_item(frame *f, frame_list *list, const json_t *item, const json_t *tokens, const char *name)
{
    const json_t *text = json_object_get(item, "Sequence"), *token = json_object_get(item, "SpecialToken");
    const char *id = json_string_value(json_object_get(text ? text : token, "id"));
    uint32_t type = 0;
    if (!id || !read_number(&type, json_object_get(text ? text : token, "type_id")))
        return broken(name, "an entry is neither a Sequence nor a SpecialToken with id and type_id");
    if (text)
        return strcmp(id, "A") && strcmp(id, "B") ? broken(name, "a Sequence is neither A nor B")
                                                  : add(f, list, *id == 'B' ? FRAME_B : FRAME_A, 0, type);
    const json_t *ids = json_object_get(json_object_get(tokens, id), "ids");
    gt_status st = json_array_size(ids) ? GT_OK : broken(name, "a SpecialToken has no ids");
    for (size_t i = 0; !st && i < json_array_size(ids); i++) {
        uint32_t n;
        st = read_number(&n, json_array_get(ids, i))
                 ? add(f, list, FRAME_TOKEN, n, type)
                 : broken(name, "an id of a SpecialToken is out of range");
    }
    return st;
}

static gt_status read_template(frame *f, const json_t *part, const char *name)
{
    const json_t *tokens = json_object_get(part, "special_tokens");
    const json_t *single = json_object_get(part, "single"), *pair = json_object_get(part, "pair");
    gt_status st = json_is_array(single) && json_is_array(pair)
                       ? GT_OK
                       : broken(name, "TemplateProcessing without the lists single and pair");
    for (size_t i = 0; !st && i < json_array_size(single); i++)
        st = read_item(f, &f->single, json_array_get(single, i), tokens, name);
    for (size_t i = 0; !st && i < json_array_size(pair); i++)
        st = read_item(f, &f->pair, json_array_get(pair, i), tokens, name);
    return st;
}

/* ["[SEP]", 102] */
static int read_named(uint32_t *out, const json_t *value)
{
    return json_array_size(value) == 2 && read_number(out, json_array_get(value, 1));
}

/* cls A sep B sep with types 0 and 1; RoBERTa: cls A sep sep B sep, all of type 0. */
static gt_status read_cls_sep(frame *f, const json_t *part, int roberta, const char *name)
{
    uint32_t cls, sep, type = roberta ? 0 : 1;
    if (!read_named(&cls, json_object_get(part, "cls")) || !read_named(&sep, json_object_get(part, "sep")))
        return broken(name, "cls or sep is not a token and its id");
    gt_status st = add(f, &f->single, FRAME_TOKEN, cls, 0);
    st = st ? st : add(f, &f->single, FRAME_A, 0, 0);
    st = st ? st : add(f, &f->single, FRAME_TOKEN, sep, 0);
    for (size_t i = 0; !st && i < 3; i++)
        st = add(f, &f->pair, f->single.parts[i].what, f->single.parts[i].id, 0);
    if (!st && roberta)
        st = add(f, &f->pair, FRAME_TOKEN, sep, 0);
    st = st ? st : add(f, &f->pair, FRAME_B, 0, type);
    return st ? st : add(f, &f->pair, FRAME_TOKEN, sep, type);
}

/* Depth is bounded by that of the parser: a Sequence in a Sequence is refused. */
static gt_status read_one(frame *f, const json_t *part, const char *name)
{
    const char *type = json_string_value(json_object_get(part, "type"));
    type = type ? type : "of no type";
    const int adds = !strcmp(type, "TemplateProcessing") || !strcmp(type, "BertProcessing")
                     || !strcmp(type, "RobertaProcessing");
    if (adds && f->single.count)
        snprintf(f->refused, sizeof f->refused, "its post_processor adds tokens twice");
    else if (!strcmp(type, "TemplateProcessing"))
        return read_template(f, part, name);
    else if (adds)
        return read_cls_sep(f, part, *type == 'R', name);
    else if (strcmp(type, "ByteLevel"))
        snprintf(f->refused, sizeof f->refused, "its post_processor '%.60s' is not known here", type);
    return GT_OK;
}

gt_status frame_read(frame *out, const json_t *part, const char *name)
{
    const char *type = json_string_value(json_object_get(part, "type"));
    gt_status st = GT_OK;
    if (!part || json_is_null(part))
        return GT_OK;
    if (!type || strcmp(type, "Sequence"))
        return read_one(out, part, name);
    const json_t *list = json_object_get(part, "processors");
    for (size_t i = 0; !st && i < json_array_size(list); i++)
        st = read_one(out, json_array_get(list, i), name);
    return st;
}
