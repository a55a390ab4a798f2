/* SPDX-License-Identifier: MIT */
/* host/tokenizer/template.c - renders chat templates; finds them beside tokenizers, and what in a text an assistant said.
 *
 * Answers of a template that does not mark them:
 *
 *   <|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\nGood day<|im_end|>\n
 *   '------- messages before, with add_generation_prompt -------''------'  the answer, up to where its content ends
 *
 * Where the content ends is where texts begin to differ when something is put behind it; what then comes behind the
 * last answer of all ends the others as well: the model has to learn to stop.                        */
#include "host/tokenizer/template_private.h"

#include "host/base/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_MOST ((size_t)64 << 20) /* of a rendering */
#define STEPS_MOST 20000000ull /* nodes computed */
enum { VARIABLES = 256, CONFIG_BYTES = 1 << 24 };

struct chat_template {
    char *source, *name;
    size_t size;
    node *body, *all;
    json_t *tokens; /* bos_token, ... */
    int marks;
};

typedef struct variable {
    const char *name;
    value v;
} variable;

typedef enum flow { FLOW_ON, FLOW_BREAK, FLOW_CONTINUE } flow;

typedef struct rendering {
    value_pool pool;
    variable variables[VARIABLES];
    int count, scope; /* scope: where the innermost begins */
    int depth;
    chat_text *out;
    gt_text *to; /* where text goes: out->text, or that of a {% set %} block */
} rendering;

void chat_text_release(chat_text *t)
{
    gt_text_release(&t->text);
    free(t->spans);
    memset(t, 0, sizeof *t);
}

/* ---- variables ------------------------------------------------------------------------------------------ */

static void set(rendering *r, const char *name, value v)
{
    for (int i = r->count - 1; i >= r->scope; i--)
        if (!strcmp(r->variables[i].name, name)) {
            r->variables[i].v = v;
            return;
        }
    if (r->count == VARIABLES)
        value_fail(&r->pool, GT_UNSUPPORTED, "more than %d names", VARIABLES);
    else
        r->variables[r->count++] = (variable){ name, v };
}

static value look_up(const rendering *r, const char *name)
{
    for (int i = r->count - 1; i >= 0; i--)
        if (!strcmp(r->variables[i].name, name))
            return r->variables[i].v;
    return value_undefined();
}

/* ---- expressions ------------------------------------------------------------------------------------------ */

static value eval(rendering *r, const node *n);

static value eval_list(rendering *r, const node *n)
{
    value list = value_of(&r->pool, json_array());
    for (const node *i = n->body; i && !r->pool.st; i = i->next) {
        const value v = eval(r, i);
        if (!r->pool.st && v.kind != VALUE_JSON)
            value_fail(&r->pool, GT_UNSUPPORTED, "%s within a list is not supported", value_kind_name(&v));
        if (!r->pool.st)
            json_array_append(list.json, v.json);
    }
    return list;
}

static value eval_dict(rendering *r, const node *n)
{
    value dict = value_of(&r->pool, json_object());
    for (const node *i = n->body; i && !r->pool.st; i = i->next->next) {
        const value key = eval(r, i), v = eval(r, i->next);
        if (!r->pool.st && (!value_is_text(&key) || v.kind != VALUE_JSON))
            value_fail(&r->pool, GT_UNSUPPORTED, "%s: %s within a dictionary is not supported", value_kind_name(&key),
                       value_kind_name(&v));
        if (!r->pool.st)
            json_object_set(dict.json, json_string_value(key.json), v.json);
    }
    return dict;
}

static void eval_arguments(rendering *r, const node *n, value_arguments *a)
{
    memset(a, 0, sizeof *a);
    for (const node *i = n->body; i && !r->pool.st; i = i->next) {
        const value v = eval(r, i);
        if ((i->second ? a->named : a->count) == VALUE_ARGUMENTS) {
            value_fail(&r->pool, GT_UNSUPPORTED, "more than %d arguments", VALUE_ARGUMENTS);
        } else if (i->second) {
            a->names[a->named] = i->second;
            a->by_name[a->named++] = v;
        } else {
            a->by_place[a->count++] = v;
        }
    }
}

static value call_namespace(rendering *r, const value_arguments *a)
{
    value v = value_of(&r->pool, json_object());
    if (a->count)
        return value_fail(&r->pool, GT_UNSUPPORTED, "namespace() of what has no name is not supported");
    for (int i = 0; i < a->named && !r->pool.st; i++) {
        if (a->by_name[i].kind == VALUE_UNDEFINED)
            continue;
        if (a->by_name[i].kind != VALUE_JSON)
            return value_fail(&r->pool, GT_UNSUPPORTED, "%s in a namespace is not supported",
                              value_kind_name(&a->by_name[i]));
        json_object_set(v.json, a->names[i], a->by_name[i].json);
    }
    v.kind = VALUE_NAMESPACE;
    return v;
}

static value call_range(rendering *r, const value_arguments *a)
{
    enum { MOST = 100000 };
    json_int_t bound[3] = { 0, 0, 1 };
    value list = value_of(&r->pool, json_array());
    for (int i = 0; i < a->count && i < 3; i++) {
        if (a->by_place[i].kind != VALUE_JSON || !json_is_integer(a->by_place[i].json))
            return value_fail(&r->pool, GT_MISMATCH, "range() of %s", value_kind_name(&a->by_place[i]));
        bound[i] = json_integer_value(a->by_place[i].json);
    }
    if (a->count == 1) {
        bound[1] = bound[0];
        bound[0] = 0;
    }
    if (!a->count || a->named || !bound[2])
        return value_fail(&r->pool, GT_MISMATCH, "range() wants one to three whole numbers, the third not 0");
    for (json_int_t i = bound[0]; (bound[2] > 0 ? i < bound[1] : i > bound[1]) && !r->pool.st;) {
        json_array_append(list.json, value_int(&r->pool, i).json);
        if (json_array_size(list.json) > MOST)
            return value_fail(&r->pool, GT_UNSUPPORTED, "range() of more than %d numbers", MOST);
        if (__builtin_add_overflow(i, bound[2], &i))
            break;
    }
    return list;
}

static value call(rendering *r, const node *n)
{
    value_arguments a;
    const value of = n->a ? eval(r, n->a) : value_undefined();
    eval_arguments(r, n, &a);
    r->pool.line = n->line;
    if (r->pool.st)
        return value_undefined();
    if (n->a)
        return value_method(&r->pool, n->text, &of, &a);
    if (!strcmp(n->text, "namespace"))
        return call_namespace(r, &a);
    if (!strcmp(n->text, "range"))
        return call_range(r, &a);
    if (!strcmp(n->text, "dict")) {
        value v = call_namespace(r, &a);
        v.kind = v.json ? VALUE_JSON : v.kind;
        return v;
    }
    if (!strcmp(n->text, "raise_exception")) {
        gt_text text = { 0 };
        if (a.count)
            value_print(&r->pool, &a.by_place[0], &text);
        value_fail(&r->pool, GT_MISMATCH, "%.300s", text.data ? text.data : "it refuses these messages");
        gt_text_release(&text);
        return value_undefined();
    }
    return value_fail(&r->pool, GT_UNSUPPORTED,
                      "the function '%s' is not defined here: texts must not depend on the day", n->text);
}

static value eval_slice(rendering *r, const node *n)
{
    value bound[3];
    const value of = eval(r, n->a);
    const node *b = n->body;
    for (int i = 0; i < 3; i++, b = b->next)
        bound[i] = eval(r, b);
    return r->pool.st ? value_undefined() : value_slice(&r->pool, &of, bound);
}

static value negative(rendering *r, const value *v)
{
    const value zero = value_int(&r->pool, 0);
    return r->pool.st ? zero : value_binary(&r->pool, '-', &zero, v);
}

static value eval_two(rendering *r, const node *n)
{
    const value a = eval(r, n->a);
    if (n->type == NODE_AND || n->type == NODE_OR)
        return r->pool.st || value_true(&a) == (n->type == NODE_OR) ? a : eval(r, n->b);
    const value b = eval(r, n->b);
    r->pool.line = n->line;
    if (r->pool.st)
        return value_undefined();
    return n->type == NODE_BINARY    ? value_binary(&r->pool, n->op, &a, &b)
           : n->type == NODE_COMPARE ? value_compare(&r->pool, n->op, &a, &b)
                                     : value_item(&r->pool, &a, &b);
}

static value eval_known(rendering *r, const node *n)
{
    value_arguments a;
    value v;
    switch (n->type) {
    case NODE_CONSTANT: return value_borrowed(n->json);
    case NODE_NAME: return look_up(r, n->text);
    case NODE_LIST: return eval_list(r, n);
    case NODE_DICT: return eval_dict(r, n);
    case NODE_CALL: return call(r, n);
    case NODE_SLICE: return eval_slice(r, n);
    case NODE_CHOICE:
        v = eval(r, n->a);
        return r->pool.st ? v : value_true(&v) ? eval(r, n->body) : n->b ? eval(r, n->b) : value_undefined();
    case NODE_NOTHING: return value_undefined();
    case NODE_AND:
    case NODE_OR:
    case NODE_BINARY:
    case NODE_COMPARE:
    case NODE_ITEM: return eval_two(r, n);
    default: break;
    }
    v = eval(r, n->a);
    if (n->type == NODE_FILTER || n->type == NODE_TEST)
        eval_arguments(r, n, &a);
    r->pool.line = n->line;
    return r->pool.st                  ? value_undefined()
           : n->type == NODE_NOT       ? value_bool(!value_true(&v))
           : n->type == NODE_NEGATE    ? negative(r, &v)
           : n->type == NODE_ATTRIBUTE ? value_attribute(&r->pool, &v, n->text)
           : n->type == NODE_FILTER    ? value_filter(&r->pool, n->text, &v, &a)
                                       : value_test(&r->pool, n->text, &v, &a);
}

static value eval(rendering *r, const node *n)
{
    value v = value_undefined();
    r->pool.line = n->line;
    if (++r->pool.steps > STEPS_MOST)
        return value_fail(&r->pool, GT_UNSUPPORTED, "it takes more than %llu steps", STEPS_MOST);
    if (++r->depth > 4 * TEMPLATE_DEPTH)
        value_fail(&r->pool, GT_UNSUPPORTED, "it is nested too deep");
    else if (!r->pool.st)
        v = eval_known(r, n);
    r->depth--;
    return v;
}

/* ---- statements ---------------------------------------------------------------------------------------------- */

static flow run(rendering *r, const node *list);

static void put(rendering *r, const char *data, size_t size)
{
    gt_text_put(r->to, data, size);
    if (r->to->failed)
        value_fail(&r->pool, GT_NO_MEMORY, "no memory for its text");
    else if (r->to->size > TEXT_MOST)
        value_fail(&r->pool, GT_UNSUPPORTED, "it gives more than %zu MiB of text", TEXT_MOST >> 20);
}

static void run_print(rendering *r, const node *n)
{
    const value v = eval(r, n->a);
    if (r->pool.st)
        return;
    value_print(&r->pool, &v, r->to);
    put(r, "", 0);
}

static void run_set(rendering *r, const node *n)
{
    value v;
    if (n->body || !n->a) {
        gt_text text = { 0 }, *before = r->to;
        r->to = &text;
        run(r, n->body);
        r->to = before;
        v = value_text(&r->pool, text.data, text.size);
        gt_text_release(&text);
    } else {
        v = eval(r, n->a);
    }
    if (r->pool.st)
        return;
    if (!n->second) {
        set(r, n->text, v);
        return;
    }
    const value of = look_up(r, n->text);
    if (of.kind != VALUE_NAMESPACE)
        value_fail(&r->pool, GT_MISMATCH, "'%s' is no namespace, so '%s.%s' cannot be set", n->text, n->text,
                   n->second);
    else if (v.kind == VALUE_UNDEFINED)
        json_object_del(of.json, n->second);
    else if (v.kind != VALUE_JSON)
        value_fail(&r->pool, GT_UNSUPPORTED, "%s in a namespace is not supported", value_kind_name(&v));
    else
        json_object_set(of.json, n->second, v.json);
}

static void set_item(rendering *r, const node *n, json_t *item)
{
    if (!n->second) {
        set(r, n->text, value_borrowed(item));
    } else if (!json_is_array(item) || json_array_size(item) != 2) {
        value_fail(&r->pool, GT_MISMATCH, "what the loop goes over are no pairs");
    } else {
        set(r, n->text, value_borrowed(json_array_get(item, 0)));
        set(r, n->second, value_borrowed(json_array_get(item, 1)));
    }
}

/* What is left of the items by "if": loop.index and the like count these. */
static json_t *chosen(rendering *r, const node *n, json_t *items)
{
    value list = value_of(&r->pool, json_array());
    const int count = r->count, scope = r->scope;
    for (size_t i = 0; i < json_array_size(items) && !r->pool.st; i++) {
        r->scope = r->count = count;
        set_item(r, n, json_array_get(items, i));
        const value fits = r->pool.st ? value_undefined() : eval(r, n->b);
        if (!r->pool.st && value_true(&fits))
            json_array_append(list.json, json_array_get(items, i));
    }
    r->count = count;
    r->scope = scope;
    return r->pool.st ? NULL : list.json;
}

static flow run_for(rendering *r, const node *n)
{
    const value over = eval(r, n->a);
    json_t *items = r->pool.st ? NULL : value_items(&r->pool, &over);
    const int count = r->count, scope = r->scope;
    if (items && n->b)
        items = chosen(r, n, items);
    if (!items)
        return FLOW_ON;
    value_loop loop = { items, 0, json_array_size(items) };
    flow f = FLOW_ON;
    for (; loop.at < loop.count && f != FLOW_BREAK && !r->pool.st; loop.at++) {
        r->scope = r->count = count;
        set(r, "loop", (value){ .kind = VALUE_LOOP, .loop = &loop });
        set_item(r, n, json_array_get(items, loop.at));
        f = r->pool.st ? FLOW_BREAK : run(r, n->body);
    }
    r->count = count;
    r->scope = scope;
    return loop.count || r->pool.st ? FLOW_ON : run(r, n->other);
}

static void run_generation(rendering *r, const node *n)
{
    chat_text *o = r->out;
    const size_t begin = r->to->size;
    run(r, n->body);
    if (r->pool.st || r->to != &o->text)
        return;
    if (o->span_count == o->span_room) {
        const size_t room = o->span_room ? 2 * o->span_room : 16;
        chat_span *grown = realloc(o->spans, room * sizeof *grown);
        if (!grown) {
            value_fail(&r->pool, GT_NO_MEMORY, "no memory for its text");
            return;
        }
        o->spans = grown;
        o->span_room = room;
    }
    o->spans[o->span_count++] = (chat_span){ begin, r->to->size };
}

static flow run_if(rendering *r, const node *n)
{
    const value v = eval(r, n->a);
    return r->pool.st ? FLOW_ON : run(r, value_true(&v) ? n->body : n->other);
}

static flow run(rendering *r, const node *n)
{
    flow f = FLOW_ON;
    if (++r->depth > 4 * TEMPLATE_DEPTH)
        value_fail(&r->pool, GT_UNSUPPORTED, "it is nested too deep");
    for (; n && !r->pool.st && f == FLOW_ON; n = n->next) {
        r->pool.line = n->line;
        if (++r->pool.steps > STEPS_MOST)
            value_fail(&r->pool, GT_UNSUPPORTED, "it takes more than %llu steps", STEPS_MOST);
        else if (n->type == NODE_DATA)
            put(r, n->text, n->size);
        else if (n->type == NODE_PRINT)
            run_print(r, n);
        else if (n->type == NODE_SET)
            run_set(r, n);
        else if (n->type == NODE_GENERATION)
            run_generation(r, n);
        else if (n->type == NODE_IF)
            f = run_if(r, n);
        else if (n->type == NODE_FOR)
            f = run_for(r, n);
        else
            f = n->type == NODE_BREAK ? FLOW_BREAK : FLOW_CONTINUE;
    }
    r->depth--;
    return f;
}

gt_status chat_template_render(const chat_template *t, const json_t *messages, int add_generation_prompt,
                               chat_text *out)
{
    rendering r = { .pool = { .name = t->name }, .out = out, .to = &out->text };
    const char *key;
    json_t *special;
    out->text.size = 0;
    out->span_count = 0;
    set(&r, "messages", value_borrowed((json_t *)(uintptr_t)messages));
    set(&r, "tools", value_borrowed(json_null()));
    set(&r, "documents", value_borrowed(json_null()));
    set(&r, "add_generation_prompt", value_bool(add_generation_prompt));
    json_object_foreach(t->tokens, key, special)
        set(&r, key, value_borrowed(special));
    r.scope = r.count; /* what a template sets hides these */
    if (!r.pool.st)
        run(&r, t->body);
    gt_text_put(&out->text, "", 0);
    const gt_status st = r.pool.st;
    value_pool_release(&r.pool);
    return st;
}

/* ---- answers --------------------------------------------------------------------------------------------------- */

static int is_answer(const json_t *message)
{
    const char *role = json_string_value(json_object_get(message, "role"));
    return role && !strcmp(role, "assistant") && json_is_string(json_object_get(message, "content"));
}

static size_t same_bytes(const gt_text *a, const gt_text *b)
{
    size_t n = 0;
    while (n < a->size && n < b->size && a->data[n] == b->data[n])
        n++;
    return n;
}

/* Renders with something put before or behind the content of message i; gives where texts begin to differ. A
 * letter of a private area is no white space, which templates take away. */
static gt_status differs_at(const chat_template *t, const json_t *messages, size_t i, int behind,
                            const chat_text *whole, chat_text *other, size_t *at)
{
    static const char mark[] = "\xee\x80\x80";
    json_t *changed = json_copy((json_t *)(uintptr_t)messages);
    json_t *message = json_copy(json_array_get(messages, i));
    const json_t *content = json_object_get(message, "content");
    gt_text with = { 0 };
    gt_status st = GT_OK;
    gt_text_put(&with, mark, behind ? 0 : sizeof mark - 1);
    gt_text_put(&with, json_string_value(content), json_string_length(content));
    gt_text_put(&with, mark, behind ? sizeof mark - 1 : 0);
    json_t *text = with.failed ? NULL : json_stringn(with.data, with.size);
    gt_text_release(&with);
    if (!changed || !message || !text || json_object_set(message, "content", text)
        || json_array_set(changed, i, message))
        st = gt_fail(GT_NO_MEMORY, "cannot render template '%s': no memory for its messages", t->name);
    if (!st)
        st = chat_template_render(t, changed, 0, other);
    *at = st ? 0 : same_bytes(&whole->text, &other->text);
    json_decref(text);
    json_decref(message);
    json_decref(changed);
    return st;
}

/* Where the answer of message i begins: behind what the messages before it give, if the whole begins so. */
static gt_status begin_of(const chat_template *t, const json_t *messages, size_t i, const chat_text *whole,
                          chat_text *other, size_t *at)
{
    json_t *before = json_array();
    for (size_t k = 0; before && k < i; k++)
        json_array_append(before, json_array_get(messages, k));
    gt_status st = before ? chat_template_render(t, before, 1, other)
                          : gt_fail(GT_NO_MEMORY, "cannot render template '%s': no memory for its messages", t->name);
    json_decref(before);
    if (!st && i && other->text.size <= whole->text.size
        && same_bytes(&whole->text, &other->text) == other->text.size) {
        *at = other->text.size;
        return GT_OK;
    }
    if (st == GT_NO_MEMORY)
        return st;
    gt_message_clear(); /* templates may refuse what is no whole conversation */
    return differs_at(t, messages, i, 0, whole, other, at);
}

/* What the template puts behind the content of a turn's last answer ("<|im_end|>"), without white space at its end. */
static gt_status tail_of(const chat_template *t, const json_t *messages, size_t last, chat_text *other, gt_text *tail)
{
    chat_text whole = { 0 };
    size_t at = 0;
    json_t *until = json_array();
    for (size_t k = 0; until && k <= last; k++)
        json_array_append(until, json_array_get(messages, k));
    gt_status st = until ? chat_template_render(t, until, 0, &whole)
                         : gt_fail(GT_NO_MEMORY, "cannot render template '%s': no memory for its messages", t->name);
    if (!st)
        st = differs_at(t, until, last, 1, &whole, other, &at);
    if (!st)
        gt_text_put(tail, whole.text.data + at, whole.text.size - at);
    while (!st && tail->size && strchr(" \t\r\n", tail->data[tail->size - 1]))
        tail->size--;
    json_decref(until);
    chat_text_release(&whole);
    return st;
}

/* Where the tail ends that begins at `end`; or before it, where what was put behind the content began like the
 * tail does, as white space that is taken away may; as much of it as is there otherwise. */
static size_t behind_tail(const gt_text *text, size_t end, const gt_text *tail)
{
    size_t n = 0;
    for (size_t back = 0; tail->size && back <= tail->size && back <= end; back++)
        if (text->size - (end - back) >= tail->size && !memcmp(text->data + end - back, tail->data, tail->size))
            return end - back + tail->size;
    while (n < tail->size && end + n < text->size && text->data[end + n] == tail->data[n])
        n++;
    return end + n;
}

static size_t last_answer(const json_t *messages)
{
    size_t i = json_array_size(messages);
    while (i > 0 && !is_answer(json_array_get(messages, i - 1)))
        i--;
    return i;
}

static gt_status add_span(chat_text *out, const chat_span *s)
{
    chat_span *grown = realloc(out->spans, (out->span_count + 1) * sizeof *grown);
    if (!grown)
        return gt_fail(GT_NO_MEMORY, "no memory for what is answered in a chat");
    out->spans = grown;
    out->span_room = out->span_count + 1;
    out->spans[out->span_count++] = *s;
    return GT_OK;
}

gt_status chat_template_render_answers(const chat_template *t, const json_t *messages, chat_text *out)
{
    chat_text other = { 0 };
    gt_text tail = { 0 };
    const size_t answers = last_answer(messages);
    gt_status st = chat_template_render(t, messages, 0, out);
    if (!st && !t->marks && answers)
        st = tail_of(t, messages, answers - 1, &other, &tail);
    for (size_t i = 0; !st && !t->marks && i < answers; i++) {
        chat_span s = { 0, 0 };
        if (!is_answer(json_array_get(messages, i)))
            continue;
        st = begin_of(t, messages, i, out, &other, &s.begin);
        if (!st)
            st = differs_at(t, messages, i, 1, out, &other, &s.end);
        if (!st)
            s.end = behind_tail(&out->text, s.end, &tail);
        if (!st && s.end > s.begin)
            st = add_span(out, &s);
    }
    gt_text_release(&tail);
    chat_text_release(&other);
    return st;
}

/* ---- reading and writing ----------------------------------------------------------------------------------------- */

static gt_status no_memory(const char *name)
{
    return gt_fail(GT_NO_MEMORY, "cannot read template '%s': no memory for its parts", name);
}

static int marks_answers(const node *all)
{
    for (; all; all = all->made)
        if (all->type == NODE_GENERATION)
            return 1;
    return 0;
}

gt_status chat_template_parse(chat_template **out, const char *source, size_t size, const json_t *tokens,
                              const char *name)
{
    token_list list;
    *out = NULL;
    chat_template *t = calloc(1, sizeof *t);
    if (!t)
        return no_memory(name);
    t->name = strdup(name);
    t->source = malloc(size + 1);
    t->tokens = tokens ? json_deep_copy(tokens) : json_object();
    t->size = size;
    gt_status st = t->name && t->source && t->tokens ? template_lex(&list, source, size, name) : no_memory(name);
    if (!st) {
        memcpy(t->source, source, size);
        st = template_read(&t->body, &t->all, &list, name);
        token_list_release(&list);
    }
    t->marks = marks_answers(t->all);
    if (st) {
        chat_template_release(t);
        return st;
    }
    *out = t;
    return GT_OK;
}

void chat_template_release(chat_template *t)
{
    if (!t)
        return;
    template_nodes_release(t->all);
    json_decref(t->tokens);
    free(t->source);
    free(t->name);
    free(t);
}

int chat_template_marks(const chat_template *t)
{
    return t->marks;
}

unsigned long long chat_template_hash(const chat_template *t)
{
    char *tokens = json_dumps(t->tokens, JSON_SORT_KEYS | JSON_COMPACT);
    const uint64_t both[2] = { gt_hash(t->source, t->size), tokens ? gt_hash(tokens, strlen(tokens)) : 0 };
    free(tokens);
    return gt_hash(both, sizeof both);
}

/* A file of JSON if it is there; *out NULL if not. */
static gt_status read_json(json_t **out, const char *folder, const char *name)
{
    json_error_t error;
    char *path = gt_path_join(folder, name), *text = NULL;
    size_t size = 0;
    *out = NULL;
    gt_status st = path ? GT_OK : no_memory(folder);
    if (!st && gt_path_exists(path)) {
        st = gt_file_read(&text, &size, path, CONFIG_BYTES);
        *out = st ? NULL : json_loadb(text, size, JSON_DECODE_INT_AS_REAL, &error); /* model_max_length may be 1e30 */
        if (!st && !json_is_object(*out))
            st = gt_fail(GT_FORMAT, "cannot read '%s': line %d: %s", path, *out ? 1 : error.line,
                         *out ? "no object" : error.text);
    }
    if (st) {
        json_decref(*out);
        *out = NULL;
    }
    free(text);
    free(path);
    return st;
}

/* "bos_token": "<s>", or {"content": "<s>", ...}. What is there already stays. */
static void take_tokens(json_t *tokens, const json_t *from)
{
    static const char *const names[] = { "bos_token", "eos_token", "unk_token", "pad_token",
                                         "sep_token", "cls_token", "mask_token" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        json_t *entry = json_object_get(from, names[i]);
        if (json_is_object(entry))
            entry = json_object_get(entry, "content");
        if (json_is_string(entry) && !json_object_get(tokens, names[i]))
            json_object_set(tokens, names[i], entry);
    }
}

/* A text, or a list of {"name", "template"}, of which "default" is taken. */
static const char *template_in(const json_t *config, size_t *size)
{
    json_t *entry = json_object_get(config, "chat_template"), *one;
    size_t i;
    if (json_is_array(entry)) {
        json_t *list = entry;
        entry = NULL;
        json_array_foreach(list, i, one) {
            const char *name = json_string_value(json_object_get(one, "name"));
            if (name && !strcmp(name, "default"))
                entry = json_object_get(one, "template");
        }
    }
    *size = json_string_length(entry);
    return json_string_value(entry);
}

static gt_status tokens_of(json_t *tokens, json_t **config, const char *folder)
{
    json_t *map = NULL;
    gt_status st = read_json(config, folder, "tokenizer_config.json");
    if (!st)
        st = read_json(&map, folder, "special_tokens_map.json");
    if (!st) {
        take_tokens(tokens, *config);
        take_tokens(tokens, map);
    }
    json_decref(map);
    return st;
}

gt_status chat_template_open_file(chat_template **out, const char *file, const char *folder)
{
    char *text = NULL;
    size_t size = 0;
    json_t *config = NULL, *tokens = json_object();
    *out = NULL;
    gt_status st = gt_file_read(&text, &size, file, TEMPLATE_BYTES);
    if (!st && folder)
        st = tokens_of(tokens, &config, folder);
    if (!st)
        st = chat_template_parse(out, text, size, tokens, file);
    json_decref(tokens);
    json_decref(config);
    free(text);
    return st;
}

/* The text of a folder's template, and the tokens beside it; *source NULL: there is none. */
static gt_status find_source(char **source, size_t *size, char **name, json_t *tokens, const char *folder)
{
    json_t *config = NULL;
    char *file = gt_path_join(folder, "chat_template.jinja"), *other = gt_path_join(folder, "tokenizer_config.json");
    gt_status st = file && other && tokens ? tokens_of(tokens, &config, folder) : no_memory(folder);
    *source = NULL;
    if (!st && gt_path_exists(file)) {
        st = gt_file_read(source, size, file, TEMPLATE_BYTES);
        *name = file;
        file = NULL;
    } else if (!st) {
        const char *text = template_in(config, size);
        *source = text ? malloc(*size + 1) : NULL;
        if (*source)
            memcpy(*source, text, *size + 1);
        else if (text)
            st = no_memory(folder);
        *name = other;
        other = NULL;
    }
    json_decref(config);
    free(file);
    free(other);
    return st;
}

gt_status chat_template_open(chat_template **out, const char *folder)
{
    size_t size = 0;
    char *source = NULL, *name = NULL;
    json_t *tokens = json_object();
    *out = NULL;
    gt_status st = find_source(&source, &size, &name, tokens, folder);
    if (source)
        st = chat_template_parse(out, source, size, tokens, name);
    else if (!st)
        st = gt_fail(GT_NOT_FOUND,
                     "'%s' has no chat template (chat_template.jinja, or \"chat_template\" in "
                     "tokenizer_config.json); name one with --chat-template FILE",
                     folder);
    json_decref(tokens);
    free(source);
    free(name);
    return st;
}

/* Tokens that the folder names already stay as they are. */
static gt_status write_template(const char *folder, const char *source, size_t size, json_t *tokens)
{
    char *file = gt_path_join(folder, "chat_template.jinja"), *map = gt_path_join(folder, "special_tokens_map.json");
    char *text = NULL;
    json_t *there = NULL;
    gt_status st = file && map ? gt_file_write(file, source, size) : no_memory(folder);
    if (!st)
        st = read_json(&there, folder, "special_tokens_map.json");
    if (!st && json_object_size(tokens)) {
        json_t *all = there ? json_incref(there) : json_object();
        json_object_update_missing(all, tokens);
        text = json_dumps(all, JSON_INDENT(2));
        st = text ? gt_file_write(map, text, strlen(text)) : no_memory(folder);
        json_decref(all);
    }
    json_decref(there);
    free(text);
    free(file);
    free(map);
    return st;
}

gt_status chat_template_save(const chat_template *t, const char *folder)
{
    return write_template(folder, t->source, t->size, t->tokens);
}

gt_status chat_template_copy(const char *from, const char *to)
{
    size_t size = 0;
    char *source = NULL, *name = NULL, *within = gt_path_join(from, "tokenizer");
    json_t *tokens = json_object();
    gt_status st = within ? GT_OK : no_memory(from);
    if (!st && gt_path_is_folder(from))
        st = find_source(&source, &size, &name, tokens, gt_path_is_folder(within) ? within : from);
    if (!st && source)
        st = write_template(to, source, size, tokens);
    json_decref(tokens);
    free(source);
    free(name);
    free(within);
    return st;
}

/* ---- messages ------------------------------------------------------------------------------------------------------- */

/* ShareGPT's names of roles. */
static const char *role_of(const char *from)
{
    static const char *const names[][2] = {
        { "human", "user" },        { "user", "user" },           { "gpt", "assistant" },
        { "chatgpt", "assistant" }, { "assistant", "assistant" }, { "bing", "assistant" },
        { "bard", "assistant" },    { "system", "system" },       { "tool", "tool" }
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(from, names[i][0]))
            return names[i][1];
    return NULL;
}

gt_status chat_messages(json_t **out, const json_t *record, const char *key)
{
    json_t *list = json_object_get(record, key), *one;
    size_t i;
    *out = NULL;
    if (!json_is_array(list) || !json_array_size(list))
        return gt_fail(GT_FORMAT, "it has no list of messages in \"%s\"", key);
    json_array_foreach(list, i, one) {
        const char *role = json_string_value(json_object_get(one, "role"));
        const char *from = json_string_value(json_object_get(one, "from"));
        if (!role && (!from || !json_is_string(json_object_get(one, "value"))))
            return gt_fail(GT_FORMAT, "its message %zu has neither \"role\" nor \"from\" and \"value\"", i + 1);
        if (!role && !role_of(from))
            return gt_fail(GT_FORMAT, "its message %zu is from '%s', which is no known role (human, gpt, system)",
                           i + 1, from);
    }
    *out = json_array();
    json_array_foreach(list, i, one) {
        const char *from = json_string_value(json_object_get(one, "from"));
        if (json_object_get(one, "role"))
            json_array_append(*out, one);
        else
            json_array_append_new(*out, json_pack("{s:s, s:O}", "role", role_of(from), "content",
                                                  json_object_get(one, "value")));
    }
    return json_array_size(*out) == json_array_size(list)
               ? GT_OK
               : gt_fail(GT_NO_MEMORY, "there is no memory for its messages");
}
