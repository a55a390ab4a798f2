/* SPDX-License-Identifier: MIT */
/* host/kernel/kernel_attention.c - launches of cl/attention.cl, their costs and cases.
 *
 * CPU: a work-item owns up to 96 rows of a head. More rows share the packing of the other
 * side's blocks; fewer give every core something to do when there are few heads. Backward, it
 * owns a whole head where there are heads enough (owns_heads).
 * GPU: a work-group of 16 x 16 owns 64 rows of a head, and 64 or 128 columns of its results. */
#include "host/kernel/kernel_args.h"
#include "host/kernel/kernel_cases_private.h"
#include "host/kernel/kernel_private.h"

#include <assert.h>
#include <string.h>

/* As in cl/attention.cl. ROW_STEP is a multiple of the rows of every register tile. */
enum { ROWS = 96, ROW_STEP = 12, BLOCK = 64, MOST_HEAD = 256 };

/* Columns of results a GPU's work-group owns: what its registers hold. Intel's hold half. */
static int part_of(const kernel_set *k, int D)
{
    return D <= 64 || strstr(k->info->vendor, "Intel") ? 64 : 128;
}

/* The program for heads of 64 columns or less, or for wider ones; SOME: its dropout counts the heads of
 * other ranks, too; LENGTHS: not all keys are there; FLOORS: not all before a query are seen. On CPUs width
 * matters for narrow heads alone: register tiles of 32 columns, not 64. */
enum { NARROW, WIDE, SOME, LENGTHS = 4, FLOORS = 8, CPU_NARROW = 12 };
#define PAIR(at, options, flags, first_flags) \
    [at] = { options, (first_flags) | (flags) }, [(at) + SOME] = { options " -DSOME_HEADS", flags }
#define FORMS(width, options, flags, first_flags) \
    PAIR(width, options, flags, first_flags), PAIR((width) + LENGTHS, options " -DLENGTHS", flags, 0), \
        PAIR((width) + FLOORS, options " -DFLOORS", flags, 0)
static const dev_variant variants[] = {
    FORMS(NARROW, "-DHEAD=64", 0, DEV_FOR_ALL),
    FORMS(WIDE, "-DHEAD=128", DEV_NOT_INTEL, DEV_FOR_ALL),
    FORMS(CPU_NARROW, "-DNV=2", DEV_CPU_ONLY, 0),
    FORMS(CPU_NARROW + WIDE, "", DEV_CPU_ONLY, 0),
    { 0 },
};
#undef FORMS
#undef PAIR

/* some: the dropout counts other heads. */
static int variant_of(const kernel_set *k, const kernel_attention_shape *s, int some)
{
    const int width = k->cpu ? CPU_NARROW + (s->D <= 32 ? NARROW : WIDE) : part_of(k, s->D) > 64 ? WIDE : NARROW;
    return width + (some ? SOME : 0) + (s->lengths ? LENGTHS : s->window || s->starts ? FLOORS : 0);
}

/* 1: dropout must count heads that are not here. */
static int some_heads(const kernel_dropout *drop, int H)
{
    return drop && drop->heads && drop->heads != H;
}

/* A GPU moves four elements at once wherever D allows. */
static gt_status check_heads(const kernel_set *k, const kernel_attention_shape *s, const kernel_heads *h,
                             const char *what)
{
    if (k->cpu || s->D % 4 || (h->first % 4 == 0 && h->stride % 4 == 0))
        return GT_OK;
    return gt_fail(GT_UNSUPPORTED,
                   "cannot attend: the heads of %s begin at element %lld, in rows %d apart; both"
                   " must be multiples of 4 on a GPU",
                   what, (long long)h->first, h->stride);
}

gt_status kernel_attention_sizes(const kernel_attention_shape *s)
{
    assert(s->D > 0 && s->H > 0 && s->KV > 0 && s->window >= 0);
    if (s->H % s->KV)
        return gt_fail(GT_UNSUPPORTED,
                       "cannot attend with %d heads of queries to %d of keys: the first must be"
                       " a multiple of the second",
                       s->H, s->KV);
    if (s->D > MOST_HEAD)
        return gt_fail(GT_UNSUPPORTED,
                       "cannot attend with heads of %d: at most %d are supported; use"
                       " more heads",
                       s->D, MOST_HEAD);
    return kernel_fits("attention rows", (int64_t)s->B * s->H * s->T);
}

gt_status kernel_attention_check(const kernel_set *k, const kernel_attention_shape *s, const kernel_attention_in *in)
{
    gt_status st = kernel_attention_sizes(s);
    if (st)
        return st;
    if ((s->window || s->starts) && (!s->causal || s->lengths))
        return gt_fail(GT_UNSUPPORTED, "cannot attend within a window or documents unless attention is causal and "
                                       "sequences have no padding");
    if (!k->cpu && k->info->max_group < 256)
        return gt_fail(GT_UNSUPPORTED,
                       "cannot attend on device '%s': it allows work-groups of %zu,"
                       " 256 are needed",
                       k->info->id, k->info->max_group);
    st = check_heads(k, s, &in->q, "q");
    if (!st)
        st = check_heads(k, s, &in->k, "k");
    return st ? st : check_heads(k, s, &in->v, "v");
}

/* Rows a CPU work-item owns: the most that still gives every core four of them. */
static int rows_each(const kernel_set *k, int heads, int T)
{
    int rows = ROWS;
    const int enough = 4 * (k->info->compute_units > 0 ? k->info->compute_units : 1);
    while (rows > ROW_STEP && heads * ((T + rows - 1) / rows) < enough)
        rows -= ROW_STEP;
    return rows;
}

/* One owner for every `rows` rows of every head; of a GPU's heads, for every part of its columns
 * of results. */
static gt_status launch_blocks(dev_list *l, kernel_set *k, const kernel_attention_shape *s, int some, const char *name,
                               int heads, int rows, const dev_arg *args, int count)
{
    const int D = s->D, T = s->T, part = part_of(k, D);
    const size_t parts = strcmp(name, "attention_delta") ? (size_t)((D + part - 1) / part) : 1;
    dev_program *p;
    const size_t blocks = (size_t)heads * (size_t)((T + rows - 1) / rows);
    gt_status st = kernel_program(&p, k, &kernel_attention_family, variant_of(k, s, some));
    if (st)
        return st;
    return dev_list_kernel(l, p, name, k->cpu ? dev_grid_1d(blocks, 1) : dev_grid_2d(blocks * 16, parts * 16, 16, 16),
                           args, count);
}

/* ---- arguments, in the order of the kernels' macros ------------------------------------------- */

void kernel_args_push(kernel_args *a, dev_arg value)
{
    assert(a->count < KERNEL_ARGS_MOST);
    a->at[a->count++] = value;
}

void kernel_args_shape(kernel_args *a, const kernel_attention_shape *s)
{
    kernel_args_push(a, dev_arg_i32(s->B));
    kernel_args_push(a, dev_arg_i32(s->T));
    kernel_args_push(a, dev_arg_i32(s->H));
    kernel_args_push(a, dev_arg_i32(s->H / s->KV));
    kernel_args_push(a, dev_arg_i32(s->D));
    kernel_args_push(a, dev_arg_i32(s->causal));
    kernel_args_push(a, dev_arg_f32(s->scale));
    kernel_args_push(a, dev_arg_buffer(s->lengths));
    kernel_args_push(a, dev_arg_i32(s->window));
    kernel_args_push(a, dev_arg_buffer(s->starts));
}

static void take_drop(kernel_args *a, const kernel_dropout *drop, int H)
{
    kernel_args_push(a, dev_arg_buffer(drop ? drop->random : NULL));
    kernel_args_push(a, dev_arg_u32(drop ? drop->stream : 0));
    kernel_args_push(a, dev_arg_u32(kernel_dropout_limit(drop)));
    kernel_args_push(a, dev_arg_f32(kernel_dropout_factor(drop)));
    kernel_args_push(a, dev_arg_i32(drop ? drop->first_head : 0));
    kernel_args_push(a, dev_arg_i32(drop && drop->heads ? drop->heads : H));
}

void kernel_args_heads(kernel_args *a, const kernel_attention_in *in)
{
    const kernel_heads *const each[] = { &in->q, &in->k, &in->v };
    for (int i = 0; i < 3; i++) {
        kernel_args_push(a, dev_arg_buffer(each[i]->buffer));
        kernel_args_push(a, dev_arg_u64((uint64_t)each[i]->first));
        kernel_args_push(a, dev_arg_i32(each[i]->stride));
    }
}

gt_status kernel_attention(dev_list *l, kernel_set *k, const kernel_attention_shape *s, const kernel_dropout *drop,
                           const kernel_attention_in *in, dev_buffer *out, dev_buffer *lse)
{
    const int heads = s->B * s->H, rows = k->cpu ? rows_each(k, heads, s->T) : BLOCK;
    kernel_args a = { .count = 0 };
    kernel_args_shape(&a, s);
    take_drop(&a, drop, s->H);
    kernel_args_heads(&a, in);
    kernel_args_push(&a, dev_arg_buffer(out));
    kernel_args_push(&a, dev_arg_buffer(lse));
    kernel_args_push(&a, dev_arg_i32(rows));
    gt_status st = kernel_attention_check(k, s, in);
    return st ? st : launch_blocks(l, k, s, some_heads(drop, s->H), "attention_forward", heads, rows, a.at, a.count);
}

/* 1 if backward gives each CPU work-item a whole head of keys: five products instead of seven, but
 * only heads can go side by side, so there must be enough of them to share out evenly. */
static int owns_heads(const kernel_set *k, int heads)
{
    const int units = k->info->compute_units > 0 ? k->info->compute_units : 1;
    return k->cpu && (heads % units == 0 || heads >= 4 * units);
}

/* Floats of delta, rounded up so that what follows starts on a cache line. */
static uint64_t delta_floats(int heads, int T)
{
    return ((uint64_t)heads * (uint64_t)T + 15) / 16 * 16;
}

uint64_t kernel_attention_scratch(const kernel_set *k, const kernel_attention_shape *s)
{
    const uint64_t rows = (uint64_t)((s->T + BLOCK - 1) / BLOCK * BLOCK);
    const uint64_t width = (uint64_t)((s->D + BLOCK - 1) / BLOCK * BLOCK);      /* PADDED(D) at most */
    const uint64_t sums = owns_heads(k, s->B * s->KV) ? (uint64_t)s->B * (uint64_t)s->H * rows * width : 0;
    return (delta_floats(s->B * s->H, s->T) + sums) * sizeof(float);
}

static gt_status launch_delta(dev_list *l, kernel_set *k, const kernel_attention_shape *s, int some, dev_buffer *out,
                              dev_buffer *dout, dev_buffer *scratch)
{
    const int heads = s->B * s->H, rows = k->cpu ? rows_each(k, heads, s->T) : BLOCK;
    kernel_args a = { .count = 0 };
    kernel_args_shape(&a, s);
    kernel_args_push(&a, dev_arg_buffer(out));
    kernel_args_push(&a, dev_arg_buffer(dout));
    kernel_args_push(&a, dev_arg_buffer(scratch));
    kernel_args_push(&a, dev_arg_i32(rows));
    return launch_blocks(l, k, s, some, "attention_delta", heads, rows, a.at, a.count);
}

gt_status kernel_attention_delta(dev_list *l, kernel_set *k, const kernel_attention_shape *s, dev_buffer *out,
                                 dev_buffer *dout, dev_buffer *delta)
{
    return launch_delta(l, k, s, 0, out, dout, delta);
}

gt_status kernel_attention_grad(dev_list *l, kernel_set *k, const kernel_attention_shape *s, const kernel_dropout *drop,
                                const kernel_attention_in *in, dev_buffer *out, dev_buffer *lse, dev_buffer *dout,
                                const kernel_attention_in *d, dev_buffer *scratch)
{
    const int queries = s->B * s->H, keys = s->B * s->KV, some = some_heads(drop, s->H);
    const int whole = owns_heads(k, keys);
    const int rows = k->cpu ? rows_each(k, queries, s->T) : BLOCK;
    const int key_rows = whole ? s->T : k->cpu ? rows_each(k, keys, s->T) : BLOCK;
    kernel_args a = { .count = 0 };
    kernel_args_shape(&a, s);
    take_drop(&a, drop, s->H);
    kernel_args_heads(&a, in);
    kernel_args_push(&a, dev_arg_buffer(dout));
    kernel_args_push(&a, dev_arg_buffer(lse));
    kernel_args_push(&a, dev_arg_buffer(scratch));
    kernel_args_heads(&a, d);
    const int plain = a.count;
    gt_status st = kernel_attention_check(k, s, in);
    if (!st)
        st = kernel_attention_check(k, s, d);
    if (!st)
        st = launch_delta(l, k, s, some, out, dout, scratch);
    kernel_args_push(&a, dev_arg_i32(rows));
    if (!st && !whole)
        st = launch_blocks(l, k, s, some, "attention_dq", queries, rows, a.at, a.count);
    a.count = plain;
    kernel_args_push(&a, dev_arg_i32(key_rows));
    if (k->cpu)
        kernel_args_push(&a, dev_arg_u64(whole ? delta_floats(queries, s->T) : 0));
    return st ? st : launch_blocks(l, k, s, some, "attention_dkv", keys, key_rows, a.at, a.count);
}

double kernel_attention_flops(const kernel_attention_shape *s, int gradient)
{
    const double T = s->T, seen = s->window && s->window < s->T ? (double)s->window : T;
    const double pairs = s->causal ? seen * (T - 0.5 * seen) : T * T;
    return 2.0 * (gradient ? 5.0 : 2.0) * (double)s->B * pairs * (double)s->H * (double)s->D;
}

/* ---- cases ------------------------------------------------------------------------------------- */

/* R rows of q in one or two sequences, C columns in the widest heads of at most 64 that C divides into;
 * 0 where these would be too many, or the device has no work-groups for it. */
static int case_shape(const trial *t, kernel_attention_shape *s)
{
    const int B = t->R > 8 && t->R % 2 == 0 ? 2 : 1;
    int D = 64;
    while (t->C % D)
        D--;
    *s = (kernel_attention_shape){
        .B = B, .T = t->R / B, .H = t->C / D, .KV = t->C / D, .D = D, .causal = 1, .scale = 1.0f / sqrtf((float)D)
    };
    return s->H <= 64 && (t->k->cpu || t->k->info->max_group >= 256);
}

/* q, k, v side by side, as they come out of one product. */
static kernel_attention_in columns_of(dev_buffer *qkv, int C)
{
    return (kernel_attention_in){ { qkv, 0, 3 * C }, { qkv, C, 3 * C }, { qkv, 2 * (int64_t)C, 3 * C } };
}

static void forward_case(trial *t)
{
    kernel_attention_shape s;
    if (!case_shape(t, &s))
        return;
    operand *qkv = give(t, "qkv", STORED, 3 * elements(t), 1.0), *out = take(t, "out", STORED, elements(t));
    operand *lse = take(t, "lse", FLOAT, (int64_t)t->R * s.H);
    if (t->status)
        return;
    const kernel_attention_in in = columns_of(qkv->buffer, t->C);
    append(t, kernel_attention(t->list, t->k, &s, NULL, &in, out->buffer, lse->buffer));
    t->flops = kernel_attention_flops(&s, 0);
    reference_attention(s.B, s.T, t->C, s.H, 1, (double)s.scale, NULL, NULL, qkv->value, out->want, lse->want);
    for (int64_t i = 0; i < out->n; i++)
        out->slack[i] = 1e-5f;
    for (int64_t i = 0; i < lse->n; i++)
        lse->slack[i] = 1e-5f;
}

/* out and lse are what forward has left, rounded: in 16 bits that is most of the error. */
static void gradient_case(trial *t)
{
    kernel_attention_shape s;
    if (!case_shape(t, &s))
        return;
    const dtype stored = kernel_set_storage(t->k);
    const double error = stored == DTYPE_F32 ? 1e-5 : stored == DTYPE_BF16 ? 4e-2 : 5e-3;
    operand *qkv = give(t, "qkv", STORED, 3 * elements(t), 1.0), *dout = give(t, "dout", STORED, elements(t), 1.0);
    operand *out = give(t, "out", STORED, elements(t), 1.0), *lse = give(t, "lse", FLOAT, (int64_t)t->R * s.H, 1.0);
    operand *d = take(t, "dqkv", STORED, 3 * elements(t));
    operand *work = scratch(t, kernel_attention_scratch(t->k, &s));
    if (t->status)
        return;
    const kernel_attention_in in = columns_of(qkv->buffer, t->C), to = columns_of(d->buffer, t->C);
    append(t, kernel_attention_grad(t->list, t->k, &s, NULL, &in, out->buffer, lse->buffer, dout->buffer, &to,
                                    work->buffer));
    t->flops = kernel_attention_flops(&s, 1);
    reference_attention(s.B, s.T, t->C, s.H, 1, (double)s.scale, NULL, NULL, qkv->value, out->value, lse->value);
    reference_attention_grad(s.B, s.T, t->C, s.H, 1, (double)s.scale, NULL, NULL, qkv->value, dout->value, d->want);
    operand *const left[] = { out, lse };
    for (int j = 0; j < 2; j++)
        for (int64_t i = 0; i < left[j]->n; i++) {
            unsigned char bits[4];
            dtype_store(left[j]->type, bits, 0, (float)left[j]->value[i]);
            left[j]->value[i] = left[j]->want[i] = (double)dtype_load(left[j]->type, bits, 0);
        }
    for (int64_t i = 0; i < d->n; i++)
        d->slack[i] = (float)(error * sqrt((double)s.D));
}

static const kernel_case cases[] = {
    { "attention", forward_case, 1024, 512 },
    { "attention gradient", gradient_case, 1024, 512 },
    { 0 },
};

const kernel_family kernel_attention_family = {
    .program = { .file = "attention.cl",
                 .stored = 1,
                 .variants = variants,
                 .intel = "-cl-intel-256-GRF-per-thread" },      /* without, they spill registers */
    .cases = cases,
};
