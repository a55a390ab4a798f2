/* SPDX-License-Identifier: MIT */
/* host/kernel/kernel_stages.c - launches of cl/stages.cl, and their cases: what stages send in 16 bits a value, and
 * how far from what it was any such form is.                                               */
#include "host/kernel/kernel_cases_private.h"
#include "host/kernel/kernel_private.h"

enum { SHARERS = 32, SLOTS = 256 };     /* SHARERS: work-items of a GPU that share a block, as in cl/stages.cl */

static gt_status check_blocks(const kernel_set *k, int64_t blocks)
{
    gt_status st = kernel_fits("blocks of what stages send", blocks);
    if (!st && !k->cpu && k->group < SHARERS)
        st =
            gt_fail(GT_UNSUPPORTED,
                    "cannot round what stages send by blocks: '%s' has work-groups of %zu work-items, and %d share one",
                    k->info->name, k->group, SHARERS);
    return st;
}

uint64_t kernel_scaled_bytes(const kernel_set *k, int64_t n)
{
    return (uint64_t)kernel_pieces(n, COMPRESS_BLOCK)
           * (COMPRESS_BLOCK * dtype_size(kernel_set_storage(k)) + sizeof(float));
}

gt_status kernel_scaled_store(dev_list *l, kernel_set *k, int64_t n, dev_buffer *x, dev_buffer *code)
{
    const int64_t blocks = kernel_pieces(n, COMPRESS_BLOCK);
    gt_status st = check_blocks(k, blocks);
    if (st)
        return st;
    dev_arg args[] = { dev_arg_i32(1), dev_arg_u64((uint64_t)n), dev_arg_u32((uint32_t)blocks), dev_arg_buffer(x),
                       dev_arg_buffer(code) };
    if (k->cpu)
        return kernel_launch_rows(l, k, &kernel_stages_family, "scaled_store", (int)blocks, COMPRESS_BLOCK, args,
                                  KERNEL_ARGS(args));
    return kernel_launch_groups(l, k, &kernel_stages_family, "scaled_store",
                                (size_t)kernel_pieces(blocks, (int64_t)k->group / SHARERS), args, KERNEL_ARGS(args));
}

gt_status kernel_scaled_load(dev_list *l, kernel_set *k, int64_t n, dev_buffer *code, dev_buffer *to)
{
    dev_arg args[] = {
        [2] = dev_arg_u32((uint32_t)kernel_pieces(n, COMPRESS_BLOCK)), dev_arg_buffer(code), dev_arg_buffer(to)
    };
    return kernel_launch_flat(l, k, &kernel_stages_family, 0, "scaled_load", n, args, KERNEL_ARGS(args));
}

gt_status kernel_int8_encode_numbered(dev_list *l, kernel_set *k, int64_t n, dev_buffer *random, dev_buffer *x,
                                      dev_buffer *code, kernel_slot *number_at)
{
    enum { STREAM = 3 };                /* of kernel_int8_encode's arguments */
    gt_status st = kernel_int8_encode(l, k, n, 0, random, NULL, x, code);
    if (!st)
        kernel_slot_last(number_at, l, STREAM);
    return st;
}

/* Blocks of a slot; so that there are not more slots than that. */
static int64_t per_slot(int64_t n)
{
    return kernel_pieces(kernel_pieces(n, COMPRESS_BLOCK), SLOTS);
}

int kernel_error_slots(int64_t n)
{
    return (int)kernel_pieces(kernel_pieces(n, COMPRESS_BLOCK), per_slot(n));
}

gt_status kernel_error(dev_list *l, kernel_set *k, int64_t n, int own, dev_buffer *x, dev_buffer *y, dev_buffer *sums)
{
    const int64_t blocks = kernel_pieces(n, COMPRESS_BLOCK);
    gt_status st = check_blocks(k, blocks);
    if (st)
        return st;
    dev_arg args[] = { dev_arg_i32((int32_t)per_slot(n)),
                       dev_arg_u64((uint64_t)n),
                       dev_arg_u32((uint32_t)blocks),
                       dev_arg_i32(own),
                       dev_arg_buffer(x),
                       dev_arg_buffer(y),
                       dev_arg_buffer(sums) };
    return kernel_launch_groups(l, k, &kernel_stages_family, "stage_error", (size_t)kernel_error_slots(n), args,
                                KERNEL_ARGS(args));
}

kernel_rounding kernel_error_of(const float *sums, int slots)
{
    kernel_rounding r = { 0 };
    for (int i = 0; i < slots; i++) {
        r.most = fmax(r.most, (double)sums[3 * i]);
        r.error += 0x1p-24 * (double)sums[3 * i + 1];
        r.size += 0x1p-24 * (double)sums[3 * i + 2];
    }
    return r;
}

/* ---- cases ------------------------------------------------------------------------------------- */

/* Blocks of very different magnitudes; some with one value far above the others. */
static void scaled_case(trial *t)
{
    const int64_t n = elements(t);
    operand *x = give(t, "x", FLOAT, n, 1.0), *code = scratch(t, kernel_scaled_bytes(t->k, n));
    operand *y = take(t, "y", FLOAT, n);
    append(t, kernel_scaled_store(t->list, t->k, n, x->buffer, code->buffer));
    append(t, kernel_scaled_load(t->list, t->k, n, code->buffer, y->buffer));
    for (int64_t b = 0; !t->status && b < n; b += COMPRESS_BLOCK) {
        const int64_t end = b + COMPRESS_BLOCK < n ? b + COMPRESS_BLOCK : n;
        const int which = (int)(b / COMPRESS_BLOCK % 7), down = which == 6 ? 20 : 0;
        double most = 0.0;
        for (int64_t i = b; i < end; i++) {
            x->value[i] = x->want[i] = which == 5 ? 0.0 : ldexp(x->value[i], 25 * (which - 3) - (i > b ? down : 0));
            most = fmax(most, fabs(x->value[i]));
        }
        const double power = most > 0.0 ? ldexp(1.0, ilogb(most) - 14) : 1.0;
        for (int64_t i = b; i < end; i++) {
            unsigned char stored[4];
            const dtype type = kernel_set_storage(t->k);
            dtype_store(type, stored, 0, (float)(x->value[i] / power));
            expect(y, i, (double)dtype_load(type, stored, 0) * power, 0.0);
        }
    }
}

static void error_with(trial *t, int own)
{
    const int64_t n = elements(t);
    const int slots = kernel_error_slots(n);
    operand *x = give(t, "x", FLOAT, n, 1.0), *y = give(t, "y", FLOAT, n, 1.0);
    operand *sums = give(t, "sums", FLOAT, 3 * (int64_t)slots, 1.0);
    append(t, kernel_error(t->list, t->k, n, own, x->buffer, y->buffer, sums->buffer));
    for (int64_t i = 0; !t->status && i < n; i++)
        y->value[i] = y->want[i] = (double)(float)(x->value[i] + 0x1p-6 * y->value[i]);
    for (int64_t s = 0; !t->status && s < slots; s++) {
        const int64_t each = per_slot(n) * COMPRESS_BLOCK, end = (s + 1) * each < n ? (s + 1) * each : n;
        double most = 0.0, errors = 0.0, values = 0.0;
        for (int64_t b = s * each; b < end; b += COMPRESS_BLOCK) {
            double largest = 0.0;
            for (int64_t i = b; i < b + COMPRESS_BLOCK && i < n; i++)
                largest = fmax(largest, fabs(x->value[i]));
            for (int64_t i = b; i < b + COMPRESS_BLOCK && i < n; i++) {
                const double e = fabs(y->value[i] - x->value[i]), against = own ? fabs(x->value[i]) : largest;
                most = fmax(most, against > 0.0 ? e / against : 0.0);
                errors += e * e;
                values += x->value[i] * x->value[i];
            }
        }
        const double was = sums->value[3 * s];
        expect(sums, 3 * s, fmax(was, most), U * 8.0 * fmax(fabs(was), most));
        for (int k = 1; k < 3; k++) {
            const double sum = sums->value[3 * s + k] + 0x1p24 * (k == 1 ? errors : values);
            expect(sums, 3 * s + k, sum, U * ROUNDINGS(each) * 4.0 * (fabs(sum) + 1.0));
        }
    }
}

static void error_own_case(trial *t)
{
    error_with(t, 1);
}
static void error_block_case(trial *t)
{
    error_with(t, 0);
}

static const kernel_case cases[] = {
    { "scaled by blocks and back", scaled_case, 8192, 4096 },
    { "errors against the values", error_own_case, 0, 0 },
    { "errors against the largest of a block", error_block_case, 8192, 4096 },
    { 0 },
};

const kernel_family kernel_stages_family = {
    .program = { .file = "stages.cl", .stored = 1, .variants = dev_plain_for_all },
    .cases = cases,
};
