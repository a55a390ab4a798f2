/* SPDX-License-Identifier: MIT */
/* host/data/batch_mlm.c - frames windows of text and hides some of their tokens: see batch_mlm.h. */
#include "host/data/batch_mlm.h"

#include "host/base/random.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* Set what is drawn here apart from other uses of the seed. */
#define MASK_STREAM ((uint64_t)0x6d61736b << 24)
#define EVAL_STREAM ((uint64_t)0x6d6c6d65 << 24)

enum { TOKENS, TYPES, LENGTHS, PLACES, TARGETS, LABELS, LABEL_WEIGHTS, ALL };

/* ---- signs -------------------------------------------------------------------------------------- */

static int32_t id_of(const tokenizer *t, const char *name, const char *other)
{
    const int64_t id = tokenizer_id(t, name);
    return (int32_t)(id >= 0 ? id : tokenizer_id(t, other));
}

gt_status data_marks_open(data_marks *out, const tokenizer *t)
{
    *out = (data_marks){ .begin = id_of(t, "[CLS]", "<s>"),
                         .end = id_of(t, "[SEP]", "</s>"),
                         .padding = id_of(t, "[PAD]", "<pad>"),
                         .mask = id_of(t, "[MASK]", "<mask>"),
                         .doubled = tokenizer_id(t, "[SEP]") < 0,
                         .vocab = tokenizer_vocab(t) };
    const char *missing = out->begin < 0     ? "[CLS] or <s>"
                          : out->end < 0     ? "[SEP] or </s>"
                          : out->padding < 0 ? "[PAD] or <pad>"
                          : out->mask < 0    ? "[MASK] or <mask>"
                                             : NULL;
    if (missing)
        return gt_fail(GT_MISMATCH,
                       "cannot frame or hide tokens of a text: its tokenizer (%s) has no token %s; name one that "
                       "was made for such models with --tokenizer",
                       tokenizer_name(t), missing);
    out->kind = calloc((size_t)out->vocab + 1, 1);
    if (!out->kind)
        return gt_fail(GT_NO_MEMORY, "no memory for the kinds of %u tokens", out->vocab);
    for (uint32_t id = 0; id < out->vocab; id++)
        out->kind[id] = (unsigned char)((tokenizer_is_special(t, id) || !tokenizer_has(t, id) ? DATA_MARK_SPECIAL : 0)
                                        | (tokenizer_continues(t, id) ? DATA_MARK_CONTINUES : 0));
    return GT_OK;
}

void data_marks_close(data_marks *m)
{
    free(m->kind);
    m->kind = NULL;
}

int64_t data_mask_places(uint64_t T)
{
    const int64_t places = (int64_t)(0.15 * (double)T + 0.5);
    return places < 1 ? 1 : places;
}

/* ---- one sequence --------------------------------------------------------------------------------- */

/* A sequence being made, and the room for it. */
typedef struct sequence {
    const data_batch *b;
    const data_marks *marks;
    uint64_t T;
    gt_random random;
    int32_t *text, *other;              /* windows of T tokens          */
    int32_t *tokens, *types;            /* T                            */
    int32_t *places, *targets;          /* data_mask_places(T)          */
    int32_t *word, *order;              /* T: where words begin, T + 1; and in which order they come */
    int32_t length, label;
    int64_t found;                      /* how many targets there are   */
} sequence;

/* Where tokens are numbers alone, as in measurements: none is a sign. */
static const data_marks unknown = { .vocab = 1 };

static gt_status sequence_open(sequence *s, const data_batch *b)
{
    const uint64_t T = b->loader->tokens, P = (uint64_t)data_mask_places(T);
    *s = (sequence){ .b = b, .marks = b->how ? b->how : &unknown, .T = T };
    s->text = malloc((6 * T + 1 + 2 * P) * sizeof *s->text);
    if (!s->text)
        return gt_fail(GT_NO_MEMORY, "no memory for sequences of %llu tokens", (unsigned long long)T);
    s->other = s->text + T;
    s->tokens = s->other + T;
    s->types = s->tokens + T;
    s->order = s->types + T;
    s->word = s->order + T;
    s->places = s->word + T + 1;
    s->targets = s->places + P;
    return GT_OK;
}

static void put(sequence *s, const int32_t *text, uint64_t count, int32_t type)
{
    for (uint64_t i = 0; i < count && (uint64_t)s->length < s->T; i++) {
        s->types[s->length] = type;
        s->tokens[s->length++] = text[i];
    }
}

static void put_sign(sequence *s, int32_t sign, int32_t type)
{
    put(s, &sign, 1, type);
}

/* Of `available` tokens in s->text, and of a pair those in s->other where it comes from elsewhere. */
static void frame(sequence *s, uint64_t available)
{
    const data_marks *m = s->marks;
    const int pairs = s->b->fields > LABELS;
    const uint64_t signs = pairs ? (m->doubled ? 4 : 3) : 2, room = s->T > signs ? s->T - signs : 0;
    const uint64_t count = available < room ? available : room;
    uint64_t first = count;
    s->length = 0;
    s->label = 0;
    if (pairs) {                        /* the cut lies in the middle half */
        first = count / 4 + gt_random_below(&s->random, count / 2 + 1);
        s->label = (int32_t)gt_random_below(&s->random, 2);
    }
    put_sign(s, m->begin, 0);
    put(s, s->text, first, 0);
    put_sign(s, m->end, 0);
    if (pairs) {
        if (m->doubled)
            put_sign(s, m->end, 0);
        put(s, s->label ? s->other : s->text + first, count - first, 1);
        put_sign(s, m->end, 1);
    }
    for (uint64_t i = (uint64_t)s->length; i < s->T; i++) {
        s->tokens[i] = m->padding;
        s->types[i] = 0;
    }
}

static int kind_of(const data_marks *m, int32_t id)
{
    if (!m->kind)
        return 0;
    return id < 0 || (uint32_t)id >= m->vocab ? DATA_MARK_SPECIAL : m->kind[id];
}

/* Lists what may be hidden: s->word[i] is where the i-th begins; with whole words, tokens behind it that go on with
 * it belong to it. Returns how many. */
static int32_t list_words(sequence *s)
{
    int32_t count = 0, before = -2;     /* the last place that belongs to a word */
    for (int32_t i = 0; i < s->length; i++) {
        const int kind = kind_of(s->marks, s->tokens[i]);
        if (kind & DATA_MARK_SPECIAL)
            continue;
        if (!s->marks->whole_words || !(kind & DATA_MARK_CONTINUES) || before != i - 1)
            s->word[count++] = i;
        before = i;
    }
    return count;
}

/* How many tokens a word has that begins there. */
static int32_t word_size(const sequence *s, int32_t begin)
{
    int32_t size = 1;
    while (s->marks->whole_words && begin + size < s->length
           && kind_of(s->marks, s->tokens[begin + size]) == DATA_MARK_CONTINUES)
        size++;
    return size;
}

static int32_t drawn_token(sequence *s)
{
    enum { TRIES = 64 };
    int32_t id = s->marks->mask;
    for (int i = 0; i < TRIES; i++) {
        id = (int32_t)gt_random_below(&s->random, s->marks->vocab);
        if (!(kind_of(s->marks, id) & DATA_MARK_SPECIAL))
            return id;
    }
    return s->marks->mask;
}

/* Which words, in an order drawn at random as long as they fit into what is to be found. */
static void choose(sequence *s)
{
    const int32_t words = list_words(s);
    const int64_t most = data_mask_places((uint64_t)s->length);
    for (int32_t i = 0; i < words; i++)
        s->order[i] = s->word[i];
    s->found = 0;
    for (int32_t i = 0; i < words && s->found < most; i++) {
        const int32_t k = i + (int32_t)gt_random_below(&s->random, (uint64_t)(words - i));
        const int32_t begin = s->order[k], size = word_size(s, begin);
        s->order[k] = s->order[i];
        if (s->found + size > most)
            continue;
        for (int32_t j = 0; j < size; j++)
            s->places[s->found++] = begin + j;
    }
}

static int compare(const void *a, const void *b)
{
    const int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

static void hide(sequence *s)
{
    const int64_t P = data_mask_places(s->T);
    choose(s);
    qsort(s->places, (size_t)s->found, sizeof *s->places, compare);
    for (int64_t i = 0; i < P; i++) {
        if (i >= s->found) {
            s->places[i] = 0;
            s->targets[i] = LOADER_IGNORE;
            continue;
        }
        int32_t *token = &s->tokens[s->places[i]];
        const uint64_t what = gt_random_below(&s->random, 10);
        s->targets[i] = *token;
        *token = what < 8 ? s->marks->mask : what == 8 ? drawn_token(s) : *token;
    }
}

/* ---- samples and rows ------------------------------------------------------------------------------- */

/* Reads another window than that of this sample, of those that the split has. */
static gt_status read_elsewhere(sequence *s, uint64_t number, int row, const loader_fields *f)
{
    const loader *l = s->b->loader;
    const uint64_t batch = row ? 1 : l->batch;
    const uint64_t all = row ? l->rows : l->order == LOADER_SEQUENTIAL ? l->windows * batch : l->windows;
    const uint64_t from = all < 2 ? 0 : (number + 1 + gt_random_below(&s->random, all - 1)) % all;
    return row ? loader_fill_rows(l, from, 1, 1, f) : loader_fill(l, from / batch * batch, from % batch, 1, f);
}

/* Sequence `first` of the step that begins with sample `begin`, or evaluation row begin + first. */
static gt_status make(sequence *s, uint64_t begin, uint64_t first, int row)
{
    const loader *l = s->b->loader;
    const uint64_t number = begin + first;
    int32_t length = 0, ignored;
    const loader_fields text = { .tokens = s->text, .lengths = &length };
    const loader_fields other = { .tokens = s->other, .lengths = &ignored };
    const int pairs = s->b->fields > LABELS;
    gt_random_init(&s->random, l->seed, (row ? EVAL_STREAM : MASK_STREAM) + number);
    gt_status st = row ? loader_fill_rows(l, number, 1, 1, &text) : loader_fill(l, begin, first, 1, &text);
    if (!st && pairs)
        st = read_elsewhere(s, number, row, &other);
    if (st)
        return st;
    frame(s, (uint64_t)length);
    hide(s);
    return GT_OK;
}

/* A sequence that does not count. */
static void nothing(sequence *s)
{
    const int64_t P = data_mask_places(s->T);
    for (uint64_t i = 0; i < s->T; i++) {
        s->tokens[i] = s->marks->padding;
        s->types[i] = 0;
    }
    for (int64_t i = 0; i < P; i++) {
        s->places[i] = 0;
        s->targets[i] = LOADER_IGNORE;
    }
    s->length = 1;                      /* attention looks at something */
    s->label = LOADER_IGNORE;
    s->found = 0;
}

static gt_status check_ids(const sequence *s)
{
    for (int32_t i = 0; s->b->vocab && i < s->length; i++)
        if (s->tokens[i] >= s->b->vocab)
            return gt_fail(GT_MISMATCH, "%s data hold token %d, the model has %d; was it tokenized for another model?",
                           s->b->split, s->tokens[i], s->b->vocab);
    return GT_OK;
}

static void copy(int32_t *to, const int32_t *from, uint64_t i, uint64_t n)
{
    if (to)
        memcpy(to + i * n, from, n * sizeof *to);
}

/* Sequence i of the fields. */
static void store(const sequence *s, uint64_t i, void *const field[])
{
    const uint64_t P = (uint64_t)data_mask_places(s->T);
    const int pairs = s->b->fields > LABELS;
    copy(field[TOKENS], s->tokens, i, s->T);
    copy(field[TYPES], s->types, i, s->T);
    copy(field[LENGTHS], &s->length, i, 1);
    copy(field[PLACES], s->places, i, P);
    copy(field[TARGETS], s->targets, i, P);
    if (pairs)
        copy(field[LABELS], &s->label, i, 1);
    if (pairs && field[LABEL_WEIGHTS])
        ((float *)field[LABEL_WEIGHTS])[i] = (float)s->found;
}

/* Sequences first .. first + count of those from `begin` on; rows behind `real` do not count. field NULL: their
 * targets are counted alone. */
static gt_status make_all(const data_batch *b, uint64_t begin, uint64_t first, uint64_t count, uint64_t real, int row,
                          void *const field[], data_total *found)
{
    sequence s;
    gt_status st = sequence_open(&s, b);
    for (uint64_t i = 0; !st && i < count; i++) {
        if (i >= real)
            nothing(&s);
        else
            st = make(&s, begin, first + i, row);
        if (!st)
            st = check_ids(&s);
        if (!st && field)
            store(&s, i, field);
        if (!st && found && i < real) {
            found->weights += (double)s.found;
            found->tokens += (double)s.length;
        }
    }
    free(s.text);
    return st;
}

static gt_status fill(const data_batch *b, uint64_t position, uint64_t first, uint64_t count, void *const field[])
{
    return make_all(b, loader_begin(b->loader, position), first, count, count, 0, field, NULL);
}

static gt_status fill_rows(const data_batch *b, uint64_t first, uint64_t count, uint64_t real, void *const field[])
{
    return make_all(b, 0, first, count, real, 1, field, NULL);
}

static gt_status total(const data_batch *b, uint64_t position, uint64_t first, uint64_t count, data_total *out)
{
    *out = (data_total){ 0 };
    return make_all(b, loader_begin(b->loader, position), first, count, count, 0, NULL, out);
}

static gt_status total_rows(const data_batch *b, uint64_t first, uint64_t count, data_total *out)
{
    *out = (data_total){ 0 };
    return make_all(b, 0, first, count, count, 1, NULL, out);
}

void data_batch_mlm(data_batch *out, const loader *l, const char *split, const data_marks *marks, int pairs)
{
    const int T = (int)l->tokens;
    const uint64_t P = (uint64_t)data_mask_places(l->tokens);
    *out = (data_batch){
        .fields = pairs ? ALL : LABELS,
        .fill = fill,
        .fill_rows = fill_rows,
        .total = total,
        .total_rows = total_rows,
        .loader = l,
        .split = split,
        .how = marks
    };
    out->field[TOKENS] = (data_field){ .name = "tokens", .type = DTYPE_I32, .count = l->tokens };
    out->field[TYPES] = (data_field){ .name = "token_types", .type = DTYPE_I32, .count = l->tokens, .below = 1 };
    out->field[LENGTHS] = (data_field){ .name = "lengths", .type = DTYPE_I32, .count = 1, .from = T, .below = T + 1 };
    out->field[PLACES] = (data_field){ .name = "places", .type = DTYPE_I32, .count = P, .below = T };
    out->field[TARGETS] = (data_field){ .name = "targets", .type = DTYPE_I32, .count = P };
    out->field[LABELS] = (data_field){ .name = "labels", .type = DTYPE_I32, .count = 1, .below = 2 };
    out->field[LABEL_WEIGHTS] = (data_field){ .name = "label_weights", .type = DTYPE_F32, .count = 1 };
}
