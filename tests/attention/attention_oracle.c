/* SPDX-License-Identifier: MIT */
/* tests/attention/attention_oracle.c - see attention_oracle.h. */
#include "tests/attention/attention_oracle.h"

#include "host/base/random.h"
#include "tests/device/styled.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GUARD = 256 };           /* elements before and after every array */

int place_open(place *p, const char *style, dtype type)
{
    *p = (place){ .type = type, .d = styled_device(style) };
    return p->d && CHECK_OK(kernel_set_create(&p->k, p->d, type));
}

void place_close(place *p)
{
    gemm_context_release(p->g);
    kernel_set_release(p->k);
    dev_close(p->d);
}

size_t guard_of(const array *a, const place *p)
{
    const size_t align = dev_info_of(p->d)->align / dtype_size(a->type);
    return align > GUARD ? align : GUARD;
}

int array_make(array *a, place *p, dtype type, size_t count, uint64_t stream)
{
    *a = (array){ .type = type, .count = count };
    const size_t guard = guard_of(a, p);
    a->bytes = ((count + 2 * guard) * dtype_size(type) + 3) & ~(size_t)3;
    a->before = calloc(1, a->bytes);
    a->after = calloc(1, a->bytes);
    a->value = calloc(count, sizeof *a->value);
    if (!CHECKF(a->before && a->after && a->value, "out of memory"))
        return 0;
    gt_random r;
    gt_random_init(&r, 3, stream);
    for (size_t i = 0; i < count + 2 * guard; i++)
        dtype_store(type, a->before, i, 3.0f * gt_random_unit(&r) - 1.5f);
    for (size_t i = 0; i < count; i++)
        a->value[i] = (double)dtype_load(type, a->before, guard + i);
    return CHECK_OK(dev_buffer_create(&a->root, p->d, a->bytes, "test"))
           && CHECK_OK(dev_write(p->d, a->root, 0, a->before, a->bytes))
           && CHECK_OK(
               dev_buffer_view(&a->view, a->root, guard * dtype_size(type), a->bytes - guard * dtype_size(type)));
}

void array_release(array *a)
{
    dev_buffer_release(a->view);
    dev_buffer_release(a->root);
    free(a->before);
    free(a->after);
    free(a->value);
}

int array_is(array *a, place *p, const double *want, double allowed, const char *what)
{
    const size_t guard = guard_of(a, p), size = dtype_size(a->type);
    const double store = a->type == DTYPE_BF16 ? 1.0 / 256 : a->type == DTYPE_F16 ? 1.0 / 2048 : 0;
    if (!CHECK_OK(dev_read(p->d, a->root, 0, a->after, a->bytes)))
        return 0;
    int good = CHECKF(!memcmp(a->before, a->after, guard * size), "%s: front guard", what)
               && CHECKF(!memcmp((char *)a->before + (guard + a->count) * size,
                                 (char *)a->after + (guard + a->count) * size, guard * size),
                         "%s: back guard", what);
    for (size_t i = 0; i < a->count && good; i++) {
        const double got = (double)dtype_load(a->type, a->after, guard + i);
        good = CHECKF(fabs(got - want[i]) <= allowed + store * fabs(want[i]), "%s[%zu]: %.8g is not %.8g within %.2g",
                      what, i, got, want[i], allowed);
    }
    return good;
}

const uint32_t words[4] = { 5, 6, 7, 8 };

kernel_attention_in side_by_side(dev_buffer *qkv, int C)
{
    return (kernel_attention_in){ { qkv, 0, 3 * C }, { qkv, C, 3 * C }, { qkv, 2 * (int64_t)C, 3 * C } };
}

static gt_status forward(dev_list *l, const place *p, const attention_how *how, const kernel_attention_in *in,
                         const array *out, const array *lse, const array *scratch)
{
    if (p->g)
        return attention_forward(l, how, in, out->view, lse->view, scratch->view);
    return kernel_attention(l, p->k, how->s, how->drop, in, out->view, lse->view);
}

static gt_status gradient(dev_list *l, const place *p, const attention_how *how, const kernel_attention_in *in,
                          const array *out, const array *lse, const array *dout, const kernel_attention_in *d,
                          const array *scratch)
{
    if (p->g)
        return attention_grad(l, how, in, out->view, lse->view, dout->view, d, scratch->view);
    return kernel_attention_grad(l, p->k, how->s, how->drop, in, out->view, lse->view, dout->view, d, scratch->view);
}

/* Floats that are enough for both. */
static size_t scratch_floats(const place *p, const attention_how *how)
{
    uint64_t one = 0, other = 0;
    if (!p->g)
        one = kernel_attention_scratch(p->k, how->s);
    else if (!CHECK_OK(attention_scratch(how, 0, &one)) || !CHECK_OK(attention_scratch(how, 1, &other)))
        return 0;
    return (size_t)(one > other ? one : other) / 4 + 1;
}

int masked_case(place *p, int B, int T, int D, int H, float drop_p, int others, const reference_mask *mask)
{
    const int causal = mask->causal;
    const int32_t *lengths = mask->lengths;
    const int C = H * D;
    const size_t tokens = (size_t)B * (size_t)T, c = (size_t)C;
    array qkv = { 0 }, out = { 0 }, lse = { 0 }, dout = { 0 }, dqkv = { 0 }, scratch = { 0 };
    dev_buffer *random = NULL;
    dev_list *l = NULL;
    char what[96];
    const reference_dropout ref = {
        .p = drop_p,
        .seed = words[0] | (uint64_t)words[1] << 32,
        .step = words[2],
        .first = words[3],
        .stream = 9,
        .first_head = others / 2,
        .heads = H + others
    };
    const reference_dropout *ref_drop = drop_p > 0 ? &ref : NULL;
    const float scale = (T % 2 ? 1.0f : 0.6f) / sqrtf((float)D);    /* not what the sizes give: another
                                                                       must reach every kernel */
    kernel_attention_shape sizes = {
        .B = B, .T = T, .H = H, .KV = H, .D = D, .causal = causal, .scale = scale, .window = mask->window
    };
    double *want_out = malloc(tokens * c * sizeof *want_out);
    double *want_lse = malloc(tokens * (size_t)H * sizeof *want_lse);
    double *want_dqkv = malloc(tokens * 3 * c * sizeof *want_dqkv);

    const kernel_dropout planned_drop = { .p = drop_p };
    const attention_how planned = { p->g, p->k, &sizes, drop_p > 0 ? &planned_drop : NULL };
    snprintf(what, sizeof what, "%s B%d T%d D%d H%d of %d %s%s%s window %d drop %.1f", dtype_name(p->type), B, T, D, H,
             H + others, causal ? "causal" : "full", lengths ? " padded" : "", mask->starts ? " documents" : "",
             mask->window, (double)drop_p);
    int good = array_make(&qkv, p, p->type, tokens * 3 * c, 1) && array_make(&out, p, p->type, tokens * c, 2)
               && array_make(&lse, p, DTYPE_F32, tokens * (size_t)H, 3) && array_make(&dout, p, p->type, tokens * c, 4)
               && array_make(&dqkv, p, p->type, tokens * 3 * c, 5)
               && array_make(&scratch, p, DTYPE_F32, scratch_floats(p, &planned), 6)
               && CHECK_OK(dev_buffer_create(&random, p->d, 16, "random"))
               && CHECK_OK(dev_write(p->d, random, 0, words, 16)) && CHECK_OK(dev_list_create(&l, p->d));
    if (good && lengths)
        good = CHECK_OK(dev_buffer_create(&sizes.lengths, p->d, (size_t)B * 4, "lengths"))
               && CHECK_OK(dev_write(p->d, sizes.lengths, 0, lengths, (size_t)B * 4));
    if (good && mask->starts)
        good = CHECK_OK(dev_buffer_create(&sizes.starts, p->d, tokens * 4, "starts"))
               && CHECK_OK(dev_write(p->d, sizes.starts, 0, mask->starts, tokens * 4));
    const kernel_dropout drop = {
        .p = drop_p, .stream = 9, .random = random, .first_head = others / 2, .heads = others ? H + others : 0
    };
    const kernel_dropout *on = drop_p > 0 ? &drop : NULL;
    if (good) {
        const kernel_attention_in in = side_by_side(qkv.view, C), d = side_by_side(dqkv.view, C);
        const double error = p->type == DTYPE_F32 ? 2e-5 : p->type == DTYPE_BF16 ? 2e-2 : 3e-3;
        const double rounding = p->rounding > 0.0 ? p->rounding : 1e-5;
        const attention_how how = { p->g, p->k, &sizes, on };
        reference_attention_masked(B, T, C, H, mask, (double)scale, ref_drop, qkv.value, want_out, want_lse);
        reference_attention_masked_grad(B, T, C, H, mask, (double)scale, ref_drop, qkv.value, dout.value, want_dqkv);
        good = CHECK_OK(forward(l, p, &how, &in, &out, &lse, &scratch))
               && CHECK_OK(gradient(l, p, &how, &in, &out, &lse, &dout, &d, &scratch)) && CHECK_OK(dev_run(l, 0, -1))
               && array_is(&out, p, want_out, rounding, what) && array_is(&lse, p, want_lse, 1e-5 * (1 + D), what)
               && array_is(&dqkv, p, want_dqkv, error * sqrt((double)D), what);
    }
    if (good) {                                         /* the scratch's guards */
        for (size_t i = 0; i < scratch.count; i++)
            scratch.value[i] = 0;
        good = array_is(&scratch, p, scratch.value, 1e9, what);
    }
    dev_list_release(l);
    dev_buffer_release(random);
    dev_buffer_release(sizes.lengths);
    dev_buffer_release(sizes.starts);
    array *const all[] = { &qkv, &out, &lse, &dout, &dqkv, &scratch };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        array_release(all[i]);
    free(want_out);
    free(want_lse);
    free(want_dqkv);
    return good;
}

int attention_case(place *p, int B, int T, int D, int H, int causal, float drop_p, int others, const int32_t *lengths)
{
    const reference_mask mask = { .causal = causal, .lengths = lengths };
    return masked_case(p, B, T, D, H, drop_p, others, &mask);
}

void cut_documents(int32_t *starts, int B, int T, int length)
{
    for (int b = 0; b < B; b++)
        for (int t = 0, first = 0, next = length; t < T; t++) {
            if (t == next) {
                first = next;
                next += ++length;
            }
            starts[b * T + t] = first;
        }
}

int grouped_case(place *p, int B, int T, int D, int KV, int G, int causal, float drop_p)
{
    const int H = KV * G, C = H * D, kv = KV * D, q_row = C + 8, kv_row = 2 * kv;
    const size_t rows = (size_t)B * (size_t)T, c = (size_t)C;
    const reference_dropout ref = {
        .p = drop_p, .seed = words[0] | (uint64_t)words[1] << 32, .step = words[2], .first = words[3], .stream = 9
    };
    const reference_dropout *ref_drop = drop_p > 0 ? &ref : NULL;
    const kernel_attention_shape sizes = { .B = B, .T = T, .H = H, .KV = KV, .D = D, .causal = causal, .scale = 0.3f };
    array q = { 0 }, k = { 0 }, out = { 0 }, lse = { 0 }, dout = { 0 }, dq = { 0 }, dk = { 0 }, scratch = { 0 },
          keys = { 0 }, values = { 0 };
    dev_buffer *random = NULL;
    dev_list *l = NULL;
    char what[96];
    const kernel_dropout planned_drop = { .p = drop_p };
    const attention_how planned = { p->g, p->k, &sizes, drop_p > 0 ? &planned_drop : NULL };
    snprintf(what, sizeof what, "%s B%d T%d D%d %d heads to %d %s", dtype_name(p->type), B, T, D, H, KV,
             causal ? "causal" : "full");
    int good = array_make(&q, p, p->type, rows * (size_t)q_row, 1)
               && array_make(&k, p, p->type, rows * (size_t)kv_row, 2) && array_make(&out, p, p->type, rows * c, 3)
               && array_make(&lse, p, DTYPE_F32, rows * (size_t)H, 4) && array_make(&dout, p, p->type, rows * c, 5)
               && array_make(&dq, p, p->type, rows * (size_t)q_row, 6)
               && array_make(&dk, p, p->type, rows * (size_t)kv_row, 7)
               && array_make(&scratch, p, DTYPE_F32, scratch_floats(p, &planned), 8)
               && array_make(&keys, p, p->type, rows * (size_t)kv, 9)
               && array_make(&values, p, p->type, rows * (size_t)kv, 10)
               && CHECK_OK(dev_buffer_create(&random, p->d, 16, "random"))
               && CHECK_OK(dev_write(p->d, random, 0, words, 16)) && CHECK_OK(dev_list_create(&l, p->d));
    double *all = malloc(rows * 3 * c * sizeof *all), *d_all = malloc(rows * 3 * c * sizeof *d_all);
    double *want = malloc(rows * c * sizeof *want), *want_lse = malloc(rows * (size_t)H * sizeof *want_lse);
    if (good) {
        const kernel_dropout drop = { .p = drop_p, .stream = 9, .random = random };
        const kernel_dropout *on = drop_p > 0 ? &drop : NULL;
        const kernel_attention_in in = { { q.view, 4, q_row }, { k.view, 0, kv_row }, { k.view, kv, kv_row } };
        const kernel_attention_in d = { { dq.view, 4, q_row }, { dk.view, 0, kv_row }, { dk.view, kv, kv_row } };
        for (size_t r = 0; r < rows; r++)
            for (int h = 0; h < H; h++)
                for (int e = 0; e < D; e++) {
                    double *to = all + r * 3 * c + (size_t)(h * D + e);
                    const double *from = k.value + r * (size_t)kv_row + (size_t)(h / G * D + e);
                    to[0] = q.value[r * (size_t)q_row + 4 + (size_t)(h * D + e)];
                    to[c] = from[0];
                    to[2 * c] = from[kv];
                }
        reference_attention(B, T, C, H, causal, (double)sizes.scale, ref_drop, NULL, all, want, want_lse);
        reference_attention_grad(B, T, C, H, causal, (double)sizes.scale, ref_drop, NULL, all, dout.value, d_all);
        for (size_t r = 0; r < rows; r++) {
            double *own = dk.value + r * (size_t)kv_row;
            memset(own, 0, (size_t)kv_row * sizeof *own);
            for (int i = 0; i < C; i++) {
                const double *from = d_all + r * 3 * c + (size_t)i;
                const int to = i / D / G * D + i % D;
                dq.value[r * (size_t)q_row + 4 + (size_t)i] = from[0];
                own[to] += from[c];
                own[kv + to] += from[2 * c];
            }
        }
        const double error = (p->type == DTYPE_F32 ? 2e-5 : p->type == DTYPE_BF16 ? 2e-2 : 3e-3) * G * sqrt((double)D);
        const double rounding = p->rounding > 0.0 ? p->rounding : 1e-5;
        const attention_how how = { p->g, p->k, &sizes, on };
        good = CHECK_OK(forward(l, p, &how, &in, &out, &lse, &scratch))
               && CHECK_OK(gradient(l, p, &how, &in, &out, &lse, &dout, &d, &scratch)) && CHECK_OK(dev_run(l, 0, -1))
               && array_is(&out, p, want, rounding, what) && array_is(&lse, p, want_lse, 1e-5 * (1 + D), what)
               && array_is(&dq, p, dq.value, error, what) && array_is(&dk, p, dk.value, error, what);
        dev_list_release(l);
        l = NULL;
        if (good && causal && !on) {                    /* all tokens at once into a cache of T */
            const uint32_t zero[4] = { 0 };
            good = CHECK_OK(dev_write(p->d, random, 0, zero, 16)) && CHECK_OK(dev_list_create(&l, p->d))
                   && CHECK_OK(
                       kernel_attention_cached(l, p->k, &sizes, T, random, &in, keys.view, values.view, out.view))
                   && CHECK_OK(dev_run(l, 0, -1)) && array_is(&out, p, want, 1e-5, what);
        }
    }
    dev_list_release(l);
    dev_buffer_release(random);
    array *const arrays[] = { &q, &k, &out, &lse, &dout, &dq, &dk, &scratch, &keys, &values };
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        array_release(arrays[i]);
    free(all);
    free(d_all);
    free(want);
    free(want_lse);
    return good;
}
