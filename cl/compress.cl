/* SPDX-License-Identifier: MIT */
/* cl/compress.cl - gradients in fewer bytes, and what that leaves out.
 *
 *   fed   = gradient + kept;  or  v = momentum v + gradient, fed = v + kept     (DGC: Lin et al., 2018)
 *   next  = fed - what the encoding of fed says;  v = 0 where it says something
 *   kept  = next once the step was taken (frame[TAKE])
 *   or of AdamW's first moments m instead of gradients (1-bit Adam: Tang et al., 2021): fed = gradient of the mean
 *   times 1 - beta1, + beta1 m / ranks + kept
 *
 * int8      blocks of BLOCK values: scale = max |x| / 127, q = floor(x / scale + u), u in (0, 1) of 16 bits
 *           from Philox (cl/random.clh): block b has words BLOCK / 2 b .. of `stream`, their low halves for its
 *           first values and their high halves for the others; so the mean of many roundings is x.
 *           A value that is not finite makes its block NaN.
 *           code: chars [blocks * BLOCK] | fp32 scales [blocks]
 * topk      chunks of CHUNK values: the k of largest magnitude, those of lower index first among equals;
 *           NaN is the largest. In the order of their index.
 *           code: fp32 values [chunks * k] | ushort index within the chunk [chunks * k], NOTHING where there are
 *           fewer than k
 *           sampled: every `stride`-th value, from one that moves with step and chunk, is looked at; as large a share
 *           of them as k is of the chunk gives a threshold; of what reaches it the k largest, or all if those are fewer
 * randomk   one value of every `group`, at an index that is drawn from (stream, group's number, step).
 *           code: fp32 values [groups]
 * sign      chunks of CHUNK values: scale = mean |x|, NaN if a value is not finite; a value is scale with x's sign.
 *           code: fp32 scales [chunks] | uint [ceil(n / 32)], bit i % 32 of word i / 32: x[i] is negative
 * fp16      rounded to the storage type after it was cut to [-most, most]; inf and NaN stay.
 *
 * All ranges: fp32, n values. frame: fp32, the places below; null: no scale, always taken.
 * state: the optimizer's scalars (cl/optim.cl), of which two are read here by their numbers.
 *
 * Flat kernels own `block` values a work-item. Blocks and chunks: CPU: a work-item owns `per` of them; GPU:
 * 32 work-items share a block, a work-group a chunk.
 * Nothing but the macros of cl/common.clh is set by the host.                             */
#include "common.clh"
#include "random.clh"
#include "block.clh"

#define CHUNK 4096
#define NOTHING 0xffff

/* Of frame. Values are kept at the loss scale under which they were left out. */
#define TAKE 0                  /* 1: the step that made `next` was taken                   */
#define RATIO 1                 /* today's loss scale over that of what is kept             */
#define HELD 2                  /* the loss scale of kept; 0: that of today                 */
#define TRIED 3                 /* of next                                                  */
#define WEIGH 4                 /* what gradients are multiplied by to be those of the mean */
#define SHRINK 5                /* what a replica's gradients are multiplied by before anything else */

#define STATE_LOSS_SCALE 2
#define STATE_SKIP 6

#define charV PASTE(char, VW)
#define convert_floatV PASTE(convert_float, VW)
#define convert_charV PASTE(convert_char, VW)

static uint magnitude(float x)
{
    return as_uint(x) & 0x7fffffffu;
}

/* pending: the step before was updated from, if its update was not skipped. */
KERNEL void compress_begin(int pending, uint step, float weigh, __global const float *state,
                           __global uint *random, __global float *frame)
{
    if (get_global_id(0) != 0)
        return;
    const float scale = state[STATE_LOSS_SCALE];
    const int take = pending && state[STATE_SKIP] == 0.0f;
    const float held = take ? frame[TRIED] : frame[HELD];
    frame[TAKE] = take ? 1.0f : 0.0f;
    frame[HELD] = held > 0.0f ? held : scale;
    frame[RATIO] = held > 0.0f ? scale / held : 1.0f;      /* a power of two: exact */
    frame[TRIED] = scale;
    frame[WEIGH] = weigh > 0.0f ? weigh : 1.0f;
    random[2] = step;
}

/* squares: the sum of the squares of a replica's gradients. limit: what their norm, as of the mean, may be. One that
 * is not finite stays, and the step is refused. */
KERNEL void compress_clip(float limit, float weigh, __global const float *squares,
                          __global const float *state, __global float *frame)
{
    if (get_global_id(0) != 0)
        return;
    const float norm = sqrt(squares[0]) / state[STATE_LOSS_SCALE] * weigh;
    frame[SHRINK] = norm > limit && norm <= MAXFLOAT ? limit / norm : 1.0f;
}

KERNEL void compress_shrink(ulong n, uint block, __global const float *frame, __global float *grad)
{
    const ulong begin = get_global_id(0) * (ulong)block, end = min(n, begin + block);
    const float shrink = frame[SHRINK];
    if (shrink == 1.0f)
        return;
    for (ulong i = begin; i < end; i += VW) {
        const int count = (int)min((ulong)VW, end - i);
        store_some_f32(grad, i, load_some_f32(grad, i, count) * shrink, count);
    }
}

KERNEL void compress_commit(ulong n, uint block, __global const float *frame,
                            __global const float *next, __global float *kept)
{
    if (frame && frame[TAKE] == 0.0f)
        return;
    const ulong begin = get_global_id(0) * (ulong)block, end = min(n, begin + block);
    for (ulong i = begin; i < end; i += VW) {
        const int count = (int)min((ulong)VW, end - i);
        store_some_f32(kept, i, load_some_f32(next, i, count), count);
    }
}

KERNEL void compress_feed(ulong n, uint block, __global const float *frame, __global const float *kept,
                          __global float *grad)
{
    const ulong begin = get_global_id(0) * (ulong)block, end = min(n, begin + block);
    const float ratio = frame ? frame[RATIO] : 1.0f;
    for (ulong i = begin; i < end; i += VW) {
        const int count = (int)min((ulong)VW, end - i);
        const floatV x = load_some_f32(kept, i, count) * ratio + load_some_f32(grad, i, count);
        store_some_f32(grad, i, x, count);
    }
}

/* velocity: what is kept of it; moved: what it will be. */
KERNEL void compress_feed_velocity(ulong n, uint block, __global const float *frame, float momentum,
                                   __global const float *kept, __global const float *velocity,
                                   __global float *moved, __global float *grad)
{
    const ulong begin = get_global_id(0) * (ulong)block, end = min(n, begin + block);
    const float ratio = frame ? frame[RATIO] : 1.0f;
    for (ulong i = begin; i < end; i += VW) {
        const int count = (int)min((ulong)VW, end - i);
        const floatV v = load_some_f32(velocity, i, count) * (momentum * ratio) + load_some_f32(grad, i, count);
        const floatV x = load_some_f32(kept, i, count) * ratio + v;
        store_some_f32(moved, i, v, count);
        store_some_f32(grad, i, x, count);
    }
}

/* grad becomes this rank's share of the new first moments, as gradients are scaled; kept is as the moments are,
 * but for the loss scale. share: beta1 over the ranks; rest: 1 - beta1. */
KERNEL void compress_feed_moment(ulong n, uint block, __global const float *frame, float share, float rest,
                                 __global const float *kept, __global const float *moment,
                                 __global float *grad)
{
    const ulong begin = get_global_id(0) * (ulong)block, end = min(n, begin + block);
    const float ratio = frame ? frame[RATIO] : 1.0f, inverse = frame ? 1.0f / frame[WEIGH] : 1.0f;
    const float part = share * (frame ? frame[TRIED] : 1.0f);
    for (ulong i = begin; i < end; i += VW) {
        const int count = (int)min((ulong)VW, end - i);
        const floatV old = load_some_f32(kept, i, count) * ratio + load_some_f32(moment, i, count) * part;
        store_some_f32(grad, i, old * inverse + load_some_f32(grad, i, count) * rest, count);
    }
}

/* next comes as what was said of grad. moved may be null. frame: grad is moments; null: it is not. */
KERNEL void compress_left(ulong n, uint block, __global const float *frame, __global const float *grad,
                          __global float *next, __global float *moved)
{
    const float weigh = frame ? frame[WEIGH] : 1.0f;
    const ulong begin = get_global_id(0) * (ulong)block, end = min(n, begin + block);
    for (ulong i = begin; i < end; i += VW) {
        const int count = (int)min((ulong)VW, end - i);
        const floatV said = load_some_f32(next, i, count);
        store_some_f32(next, i, (load_some_f32(grad, i, count) - said) * weigh, count);
        if (moved) {
            const floatV v = load_some_f32(moved, i, count);
            store_some_f32(moved, i, select(v, (floatV)0.0f, said != 0.0f), count);
        }
    }
}

KERNEL void compress_cut(ulong n, uint block, float most, __global const float *from, __global store_t *to)
{
    const ulong begin = get_global_id(0) * (ulong)block, end = min(n, begin + block);
    for (ulong i = begin; i < end; i += VW) {
        const int count = (int)min((ulong)VW, end - i);
        const floatV x = load_some_f32(from, i, count), size = fabs(x);
        const intV over = (size > most) & (size <= MAXFLOAT);
        store_some(to, i, select(x, copysign((floatV)most, x), over), count);
    }
}

/* ---- int8 ------------------------------------------------------------------------------- */

/* Of the largest magnitude's bits. */
static float int8_scale(uint most)
{
    return most >= 0x7f800000u ? NAN : as_float(most) / 127.0f;
}

/* shift: 0 for the low half of each word, 16 for the high one. */
static charV int8_round(floatV x, float inverse, uintV word, uint shift)
{
    const floatV u = convert_floatV(as_intV(word >> shift & 0xffffu)) * 0x1p-16f + 0x1p-17f;
    const floatV q = floor(x * inverse + u);
    return convert_charV(clamp(q, -127.0f, 127.0f));
}

#ifdef STYLE_CPU

#define vstoreV_char PASTE(vstore, VW)

KERNEL void int8_encode(int per, ulong n, uint blocks, uint stream, __global const uint *random,
                        __global const float *x, __global char *code)
{
    __global float *scales = (__global float *)(code + (size_t)blocks * BLOCK);
    const uint first = get_global_id(0) * per, last = min(blocks, first + per);
    uint words[RANDOM_BATCH];
    for (uint b = first; b < last; b++) {
        const size_t begin = (size_t)b * BLOCK;
        const int count = (int)min((ulong)BLOCK, n - begin);
        const float scale = int8_scale(most_of(x, begin, count));
        const float inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
        scales[b] = scale;
        for (int w = 0; w < BLOCK / 2; w += RANDOM_BATCH) {
            random_batch(words, random, stream, (begin / 2 + w) >> 2);
            for (int i = w; i < BLOCK; i += BLOCK / 2)
                for (int j = 0; j < RANDOM_BATCH; j += VW) {
                    const int left = count - i - j;
                    const floatV v = left > 0 ? load_some_f32(x, begin + i + j, left) : (floatV)0.0f;
                    vstoreV_char(int8_round(v, inverse, vloadV(0, words + j), i < BLOCK / 2 ? 0 : 16), 0,
                                 code + begin + i + j);
                }
        }
    }
}

#else

KERNEL void int8_encode(int per, ulong n, uint blocks, uint stream, __global const uint *random,
                        __global const float *x, __global char *code)
{
    __local uint tmp[WG];
    __global float *scales = (__global float *)(code + (size_t)blocks * BLOCK);
    const uint me = get_local_id(0), lane = me % 32, b = get_group_id(0) * (WG / 32) + me / 32;
    const size_t at = (size_t)b * BLOCK + 4 * lane;
    const float4 v = b < blocks && at < n ? load_some_f32(x, at, (int)min((ulong)4, n - at)) : (float4)0.0f;
    const float scale = int8_scale(most_of(v, tmp));
    if (b >= blocks)
        return;
    if (lane == 0)
        scales[b] = scale;
    const uint4 words = random_quad(random, stream, (ulong)b * (BLOCK / 8) + lane % 16);
    const char4 q = int8_round(v, scale > 0.0f ? 1.0f / scale : 0.0f, words, lane < 16 ? 0 : 16);
    *(__global char4 *)(code + at) = q;
}

#endif

/* to (+)= what code says. */
KERNEL void int8_decode(ulong n, uint block, uint blocks, int add, __global const char *code,
                        __global float *to)
{
    __global const float *scales = (__global const float *)(code + (size_t)blocks * BLOCK);
    const ulong begin = get_global_id(0) * (ulong)block, end = min(n, begin + block);
    for (ulong i = begin; i < end; i += VW) {
        const int count = (int)min((ulong)VW, end - i);
#ifdef STYLE_CPU
        const charV q = vloadV(0, code + i);            /* blocks are whole, so it is there */
#else
        const char4 q = *(__global const char4 *)(code + i);
#endif
        const floatV x = convert_floatV(q) * scales[i / BLOCK];
        store_some_f32(to, i, add ? load_some_f32(to, i, count) + x : x, count);
    }
}

/* ---- topk ------------------------------------------------------------------------------- */

/* As many of `count` looked at as `want` are of `len`, at least one. */
static int sample_rank(int want, int count, int len)
{
    return max(1, (want * count + len / 2) / len);
}

#ifdef STYLE_CPU

/* -1 in the lanes whose magnitude is at least `bits`, else 0. By subtraction: oclgrind misreads a comparison of vectors
 * that is added up. */
static intV at_least(floatV x, uint bits)
{
    return ((intV)((int)bits - 1) - (as_intV(x) & 0x7fffffff)) >> 31;
}

/* How many of x[0..len) have a magnitude of at least `bits`. */
static int count_from(__global const float *x, int len, uint bits)
{
    intV many = 0;
    int i = 0, rest = 0;
    for (; i + VW <= len; i += VW)
        many -= at_least(loadV_f32(x, i), bits);
    for (; i < len; i++)
        rest += magnitude(x[i]) >= bits;
    int lane[VW];
    vstoreV(many, 0, lane);
    for (int j = 0; j < VW; j++)
        rest += lane[j];
    return rest;
}

/* The largest magnitude that k of them reach, found by halving over the bits: between the largest of all and
 * what lies so many powers of two below it that k reach that, first one, then two, four, ... */
static uint threshold(__global const float *x, int len, int k)
{
    uint low = 0, high = most_of(x, 0, len) + 1;
    for (uint down = 1u << 23; down < high; down <<= 1) {
        const uint mid = high - down;
        if (count_from(x, len, mid) >= k) {
            low = mid;
            break;
        }
        high = mid;
    }
    while (high - low > 1) {
        const uint mid = low + (high - low) / 2;
        const int many = count_from(x, len, mid);
        if (many >= k)
            low = mid;
        else
            high = mid;
        if (many == k)
            break;
    }
    return low;
}

KERNEL void topk_encode(int per, ulong n, uint chunks, int k, __global const float *all, __global float *code)
{
    __global ushort *indices = (__global ushort *)(code + (size_t)chunks * k);
    const uint first = get_global_id(0) * per, last = min(chunks, first + per);
    for (uint c = first; c < last; c++) {
        __global const float *x = all + (size_t)c * CHUNK;
        __global float *value = code + (size_t)c * k;
        __global ushort *index = indices + (size_t)c * k;
        const int len = (int)min((ulong)CHUNK, n - (ulong)c * CHUNK), want = min(k, len);
        const uint least = threshold(x, len, want);
        int equals = want - (least < 0x7fffffffu ? count_from(x, len, least + 1) : 0), at = 0;
        for (int i = 0; i < len && at < want; i += VW) {
            const int count = min(VW, len - i);
            if (count == VW && !any(at_least(loadV_f32(x, i), least)))
                continue;
            for (int j = 0; j < count && at < want; j++) {
                const uint m = magnitude(x[i + j]);
                if (m < least || (m == least && equals-- <= 0))
                    continue;
                value[at] = x[i + j];
                index[at++] = (ushort)(i + j);
            }
        }
        for (; at < k; at++) {
            value[at] = 0.0f;
            index[at] = NOTHING;
        }
    }
}

/* The k-th largest of some magnitudes, bit by bit from the top. */
static uint kth_of(const uint *size, int count, int k)
{
    uint least = 0;
    for (uint bit = 1u << 30; bit; bit >>= 1) {
        int many = 0;
        for (int i = 0; i < count; i++)
            many += size[i] >= (least | bit);
        least |= many >= k ? bit : 0;
    }
    return least;
}

KERNEL void topk_encode_sampled(int per, ulong n, uint chunks, int k, int stride, __global const uint *random,
                                __global const float *all, __global float *code)
{
    __global ushort *indices = (__global ushort *)(code + (size_t)chunks * k);
    const uint first = get_global_id(0) * per, last = min(chunks, first + per);
    uint size[CHUNK];
    ushort where[CHUNK];
    for (uint c = first; c < last; c++) {
        __global const float *x = all + (size_t)c * CHUNK;
        __global float *value = code + (size_t)c * k;
        __global ushort *index = indices + (size_t)c * k;
        const int len = (int)min((ulong)CHUNK, n - (ulong)c * CHUNK), want = min(k, len);
        int count = 0, at = 0;
        for (int i = (int)((random[2] + c) % (uint)min(stride, len)); i < len; i += stride)
            size[count++] = magnitude(x[i]);
        const uint reach = kth_of(size, count, sample_rank(want, count, len));
        count = 0;
        for (int i = 0; i < len; i += VW) {
            const int some = min(VW, len - i);
            if (some == VW && !any(at_least(loadV_f32(x, i), reach)))
                continue;
            for (int j = 0; j < some; j++)
                if (magnitude(x[i + j]) >= reach) {
                    size[count] = magnitude(x[i + j]);
                    where[count++] = (ushort)(i + j);
                }
        }
        const uint least = count > want ? kth_of(size, count, want) : reach;
        int equals = want;
        for (int j = 0; j < count; j++)
            equals -= size[j] > least;
        for (int j = 0; j < count && at < want; j++) {
            if (size[j] < least || (size[j] == least && equals-- <= 0))
                continue;
            value[at] = x[where[j]];
            index[at++] = where[j];
        }
        for (; at < k; at++) {
            value[at] = 0.0f;
            index[at] = NOTHING;
        }
    }
}

KERNEL void topk_decode(int per, ulong n, uint chunks, int k, int add, __global const float *code,
                        __global float *to)
{
    __global const ushort *indices = (__global const ushort *)(code + (size_t)chunks * k);
    const uint first = get_global_id(0) * per, last = min(chunks, first + per);
    for (uint c = first; c < last; c++) {
        __global float *y = to + (size_t)c * CHUNK;
        const int len = (int)min((ulong)CHUNK, n - (ulong)c * CHUNK);
        if (!add)
            for (int i = 0; i < len; i += VW)
                store_some_f32(y, i, (floatV)0.0f, len - i);
        for (int j = 0; j < k; j++) {
            const ushort at = indices[(size_t)c * k + j];
            if (at < len)
                y[at] = add ? y[at] + code[(size_t)c * k + j] : code[(size_t)c * k + j];
        }
    }
}

#else

/* The k-th largest magnitude, eight bits at a time from the top: how many there are of each value of the
 * eight, and in which of them the k-th falls. *equals: how many of that magnitude belong to the k. */
static uint threshold(__global const float *x, int len, int k, int *equals, __local int *bins,
                      __local int *found)
{
    const int me = get_local_id(0);
    uint known = 0, mask = 0;
    for (int shift = 24; shift >= 0; shift -= 8) {
        for (int b = me; b < 256; b += WG)
            bins[b] = 0;
        barrier(CLK_LOCAL_MEM_FENCE);
        for (int i = me; i < len; i += WG) {
            const uint m = magnitude(x[i]);
            if ((m & mask) == known)
                atomic_inc(&bins[m >> shift & 255u]);
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        if (me < 16) {                          /* sums of sixteen bins each */
            int sum = 0;
            for (int b = 0; b < 16; b++)
                sum += bins[16 * me + b];
            found[2 + me] = sum;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        if (me == 0) {
            int b = 15, left = k;
            for (; b > 0 && found[2 + b] < left; b--)
                left -= found[2 + b];
            b = 16 * b + 15;
            for (; (b & 15) > 0 && bins[b] < left; b--)
                left -= bins[b];
            found[0] = b;
            found[1] = left;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        known |= (uint)found[0] << shift;
        mask |= 255u << shift;
        k = found[1];
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    *equals = k;
    return known;
}

/* The sum of v over the work-items before this one. */
static int2 sum_before(int2 v, __local int2 *tmp)
{
    const int me = get_local_id(0);
    tmp[me] = v;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int d = 1; d < WG; d <<= 1) {
        const int2 other = me >= d ? tmp[me - d] : (int2)0;
        barrier(CLK_LOCAL_MEM_FENCE);
        tmp[me] += other;
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    return tmp[me] - v;
}

/* The `want` largest of x[0..len), at the beginning of value and index, in the order of their index. Inlined: a call
 * would keep registers in memory on AMD. */
static __attribute__((always_inline)) void largest(__global const float *x, int len, int want,
                                                   __global float *value, __global ushort *index,
                                                   __local int *bins, __local int *found,
                                                   __local int2 *tmp)
{
    const int me = get_local_id(0), begin = min(len, me * (CHUNK / WG)), end = min(len, begin + CHUNK / WG);
    int equals;
    const uint least = threshold(x, len, want, &equals, bins, found);
    int2 own = 0;                               /* above the threshold, and at it */
    for (int i = begin; i < end; i++) {
        const uint m = magnitude(x[i]);
        own += (int2)(m > least, m == least);
    }
    const int2 before = sum_before(own, tmp);
    int above = before.x, same = before.y;
    for (int i = begin; i < end; i++) {
        const uint m = magnitude(x[i]);
        if (m > least || (m == least && same < equals)) {
            const int at = above + min(same, equals);
            value[at] = x[i];
            index[at] = (ushort)i;
        }
        above += m > least;
        same += m == least;
    }
}

static void fill_up(__global float *value, __global ushort *index, int from, int k)
{
    for (int at = from + get_local_id(0); at < k; at += WG) {
        value[at] = 0.0f;
        index[at] = NOTHING;
    }
}

KERNEL void topk_encode(int per, ulong n, uint chunks, int k, __global const float *all, __global float *code)
{
    __local int bins[256], found[18];
    __local int2 tmp[WG];
    const uint c = get_group_id(0);
    __global float *value = code + (size_t)c * k;
    __global ushort *index = (__global ushort *)(code + (size_t)chunks * k) + (size_t)c * k;
    const int len = (int)min((ulong)CHUNK, n - (ulong)c * CHUNK), want = min(k, len);
    largest(all + (size_t)c * CHUNK, len, want, value, index, bins, found, tmp);
    fill_up(value, index, want, k);
}

#define POOL 1024               /* values of a sample, or that reach its threshold, which local memory holds */

/* How many of pool[0..count) come before entry j: larger ones, and equal ones of lower index. */
static int rank_in(__local const uint *pool, int count, int j)
{
    const uint mine = pool[j];
    int before = 0;
    for (int i = 0; i < count; i++)
        before += pool[i] > mine || (pool[i] == mine && i < j);
    return before;
}

KERNEL void topk_encode_sampled(int per, ulong n, uint chunks, int k, int stride, __global const uint *random,
                                __global const float *all, __global float *code)
{
    __local int bins[256], found[18];
    __local int2 tmp[WG];
    __local uint pool[POOL];
    __local ushort where[POOL];
    __local uchar chosen[POOL];
    const uint c = get_group_id(0);
    __global const float *x = all + (size_t)c * CHUNK;
    __global float *value = code + (size_t)c * k;
    __global ushort *index = (__global ushort *)(code + (size_t)chunks * k) + (size_t)c * k;
    const int len = (int)min((ulong)CHUNK, n - (ulong)c * CHUNK), want = min(k, len), me = get_local_id(0);
    const int begin = min(len, me * (CHUNK / WG)), end = min(len, begin + CHUNK / WG);
    const int start = (int)((random[2] + c) % (uint)min(stride, len));
    const int looked = (len - start + stride - 1) / stride, rank = sample_rank(want, looked, len) - 1;
    for (int j = me; j < looked; j += WG)
        pool[j] = magnitude(x[start + j * stride]);
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int j = me; j < looked; j += WG)
        if (rank_in(pool, looked, j) == rank)
            found[0] = (int)pool[j];
    barrier(CLK_LOCAL_MEM_FENCE);
    const uint reach = (uint)found[0];
    int2 own = 0;
    for (int i = begin; i < end; i++)
        own.x += magnitude(x[i]) >= reach;
    int at = sum_before(own, tmp).x;
    const int count = tmp[WG - 1].x;
    if (count <= want) {
        for (int i = begin; i < end; i++)
            if (magnitude(x[i]) >= reach) {
                value[at] = x[i];
                index[at++] = (ushort)i;
            }
        fill_up(value, index, count, k);
        return;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    if (count > POOL) {
        largest(x, len, want, value, index, bins, found, tmp);
        fill_up(value, index, want, k);
        return;
    }
    for (int i = begin; i < end; i++)
        if (magnitude(x[i]) >= reach) {
            pool[at] = magnitude(x[i]);
            where[at++] = (ushort)i;
        }
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int j = me; j < count; j += WG)
        chosen[j] = rank_in(pool, count, j) < want;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int j = me; j < count; j += WG) {
        int to = 0;
        for (int i = 0; i < j; i++)
            to += chosen[i];
        if (chosen[j]) {
            value[to] = x[where[j]];
            index[to] = where[j];
        }
    }
    fill_up(value, index, want, k);
}

KERNEL void topk_decode(int per, ulong n, uint chunks, int k, int add, __global const float *code,
                        __global float *to)
{
    const uint c = get_group_id(0);
    __global const float *value = code + (size_t)c * k;
    __global const ushort *index = (__global const ushort *)(code + (size_t)chunks * k) + (size_t)c * k;
    __global float *y = to + (size_t)c * CHUNK;
    const int len = (int)min((ulong)CHUNK, n - (ulong)c * CHUNK), me = get_local_id(0);
    if (!add)
        for (int i = me; i < len; i += WG)
            y[i] = 0.0f;
    barrier(CLK_GLOBAL_MEM_FENCE);
    for (int j = me; j < k; j += WG) {          /* indices of a chunk are all different */
        const int at = index[j];
        if (at < len)
            y[at] = add ? y[at] + value[j] : value[j];
    }
}

#endif

/* ---- sign ------------------------------------------------------------------------------- */

#define WORD 32

__constant uint lanes[16] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 };

static float sign_scale(float sum, int len)
{
    return sum <= MAXFLOAT ? sum / (float)len : NAN;
}

#ifdef STYLE_CPU

KERNEL void sign_encode(int per, ulong n, uint chunks, __global const float *all, __global float *code)
{
    __global uint *words = (__global uint *)(code + chunks);
    const uint first = get_global_id(0) * per, last = min(chunks, first + per);
    for (uint c = first; c < last; c++) {
        __global const float *x = all + (size_t)c * CHUNK;
        __global uint *word = words + (size_t)c * (CHUNK / WORD);
        const int len = (int)min((ulong)CHUNK, n - (ulong)c * CHUNK);
        floatV sum = 0.0f;
        for (int w = 0; w * WORD < len; w++) {
            uintV bits = 0;
            uint lane[VW], all_bits = 0;
            for (int j = 0; j < WORD && w * WORD + j < len; j += VW) {
                const floatV v = load_some_f32(x, w * WORD + j, len - w * WORD - j);
                sum += fabs(v);
                bits |= as_uintV(v) >> 31 << (vloadV(0, lanes) + (uint)j);
            }
            vstoreV(bits, 0, lane);
            for (int j = 0; j < VW; j++)
                all_bits |= lane[j];
            word[w] = all_bits;
        }
        code[c] = sign_scale(sumV(sum), len);
    }
}

#else

KERNEL void sign_encode(int per, ulong n, uint chunks, __global const float *all, __global float *code)
{
    __local float tmp[WG];
    __local uint words[CHUNK / WORD];
    const uint c = get_group_id(0), me = get_local_id(0);
    __global const float *x = all + (size_t)c * CHUNK;
    __global uint *word = (__global uint *)(code + chunks) + (size_t)c * (CHUNK / WORD);
    const uint len = (uint)min((ulong)CHUNK, n - (ulong)c * CHUNK);
    float sum = 0.0f;
    for (uint w = me; w < CHUNK / WORD; w += WG)
        words[w] = 0;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (uint i = me; i < len; i += WG) {
        const float v = x[i];
        sum += fabs(v);
        if (as_uint(v) >> 31)
            atomic_or(&words[i / WORD], 1u << i % WORD);
    }
    sum = group_sum(sum, tmp);
    if (me == 0)
        code[c] = sign_scale(sum, (int)len);
    for (uint w = me; w * WORD < len; w += WG)
        word[w] = words[w];
}

#endif

/* to (+)= what code says. */
KERNEL void sign_decode(ulong n, uint block, uint chunks, int add, __global const float *code, __global float *to)
{
    __global const uint *words = (__global const uint *)(code + chunks);
    const ulong begin = get_global_id(0) * (ulong)block, end = min(n, begin + block);
    for (ulong i = begin; i < end; i += VW) {
        const int count = (int)min((ulong)VW, end - i);
        const uintV minus = (uintV)words[i / WORD] >> (vloadV(0, lanes) + (uint)(i % WORD)) << 31;
        const floatV x = as_floatV((uintV)as_uint(code[i / CHUNK]) ^ minus);
        store_some_f32(to, i, add ? load_some_f32(to, i, count) + x : x, count);
    }
}

/* ---- randomk ---------------------------------------------------------------------------- */

/* Where group i of `group` values has the one that travels; may lie behind the end of the last one. */
static ulong drawn(ulong i, uint group, uint4 words)
{
    const uint word = (i & 2) ? ((i & 1) ? words.w : words.z) : ((i & 1) ? words.y : words.x);
    return i * group + mul_hi(word, group);
}

KERNEL void randomk_encode(ulong groups, uint block, ulong n, uint group, uint stream,
                           __global const uint *random, __global const float *x, __global float *code)
{
    const ulong begin = get_global_id(0) * (ulong)block, end = min(groups, begin + block);
    for (ulong i = begin; i < end; i += 4) {
        const uint4 words = random_quad(random, stream, i >> 2);
        for (ulong j = i; j < min(end, i + 4); j++) {
            const ulong at = drawn(j, group, words);
            code[j] = at < n ? x[at] : 0.0f;
        }
    }
}

/* The others are left as they are: 0. */
KERNEL void randomk_decode(ulong groups, uint block, ulong n, uint group, uint stream,
                           __global const uint *random, __global const float *code, __global float *to)
{
    const ulong begin = get_global_id(0) * (ulong)block, end = min(groups, begin + block);
    for (ulong i = begin; i < end; i += 4) {
        const uint4 words = random_quad(random, stream, i >> 2);
        for (ulong j = i; j < min(end, i + 4); j++) {
            const ulong at = drawn(j, group, words);
            if (at < n)
                to[at] = code[j];
        }
    }
}
