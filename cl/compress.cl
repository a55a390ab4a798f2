/* SPDX-License-Identifier: MIT */
/* cl/compress.cl - gradients in fewer bytes, and what that leaves out.
 *
 *   fed   = gradient + kept;  or  v = momentum v + gradient, fed = v + kept     (DGC: Lin et al., 2018)
 *   next  = fed - what the encoding of fed says;  v = 0 where it says something
 *   kept  = next once the step was taken (frame[TAKE])
 *   or of AdamW's first moments m instead of gradients (1-bit Adam: Tang et al., 2021): fed = gradient of the mean
 *   times 1 - beta1, + beta1 m / ranks + kept
 *
 * int8      blocks of BLOCK values: scale = max |x| / 127, q = floor((rint(256 x / scale) + r) / 256), r a byte of
 *           Philox (cl/random.clh): value i of block b has byte i % 4 of word i / 32 of quad 8 b + i % 32 / 4 of
 *           `stream`, so that a block's bytes are whole vectors of words. The mean of many roundings is x to
 *           scale / 512; what is held back has that rest as well. A value that is not finite makes its block NaN.
 *           code: chars [blocks * BLOCK] | fp32 scales [blocks]
 * topk      chunks of CHUNK values: the k of largest magnitude, those of lower index first among equals;
 *           NaN is the largest. In the order of their index.
 *           code: fp32 values [chunks * k] | ushort index within the chunk [chunks * k], NOTHING where there are
 *           fewer than k, or fewer that are not 0
 *           sampled: every `stride`-th value, from one that moves with step and chunk, is looked at; as large a share
 *           of them as k is of the chunk gives a threshold; of what reaches it the k largest, or all if those are fewer
 * randomk   one value of every `group`, at an index that is drawn from (stream, group's number, step).
 *           code: fp32 values [groups]
 * sign      chunks of CHUNK values: scale = mean |x|, NaN if a value is not finite; a value is scale with x's sign.
 *           code: fp32 scales [chunks] | uint [ceil(n / 32)], bit i % 32 of word i / 32: x[i] is negative
 * fp16      rounded to the storage type after it was cut to [-most, most]; inf and NaN stay.
 *
 * An encoding with `kept` is of x + kept, and leaves `next`: a pass over the values in place of four.
 *
 * All ranges: fp32, n values. frame: fp32, the places below; null: no scale, always taken.
 * state: the optimizer's scalars (cl/optim.cl), of which two are read here by their numbers.
 *
 * Flat kernels own `block` values a work-item. Blocks and chunks: CPU: a work-item owns `per` of them; GPU:
 * 8 work-items share a block, a work-group a chunk.
 * Nothing but the macros of cl/common.clh is set by the host.                             */
#include "common.clh"

/* No device may join a product and a sum where another rounds twice. */
#pragma OPENCL FP_CONTRACT OFF

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

#define convert_floatV PASTE(convert_float, VW)

__constant uint lanes[16] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 };

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

/* Stores x and gives what was stored. On CPUs in words: their drivers store vectors of 16 bits one by one, and a vector
 * that is read behind those waits for them. */
static floatV stored(__global store_t *p, ulong i, floatV x, int count)
{
#if STORE == 0 || defined(STYLE_GPU)
    store_some(p, i, x, count);
    return load_some(p, i, count);
#else
    const ushortV narrow = store_narrowV(x);
    if (count < VW)
        store_part(p, i, x, count);
    else
#if VW == 16
        vstore8(as_uint8(narrow), 0, (__global uint *)(p + i));
#elif VW == 8
        vstore4(as_uint4(narrow), 0, (__global uint *)(p + i));
#else
        vstore2(as_uint2(narrow), 0, (__global uint *)(p + i));
#endif
    return store_widenV(narrow);
#endif
}

/* code = x + kept in storage type, cut as above; next = what that leaves out. */
KERNEL void compress_store(ulong n, uint block, float most, __global const float *frame, __global const float *kept,
                           __global const float *from, __global store_t *code, __global float *next)
{
    const ulong begin = get_global_id(0) * (ulong)block, end = min(n, begin + block);
    const float ratio = frame ? frame[RATIO] : 1.0f;
    for (ulong i = begin; i < end; i += VW) {
        const int count = (int)min((ulong)VW, end - i);
        const floatV x = load_some_f32(kept, i, count) * ratio + load_some_f32(from, i, count), size = fabs(x);
        const intV over = (size > most) & (size <= MAXFLOAT);
        const floatV said = stored(code, i, select(x, copysign((floatV)most, x), over), count);
        store_some_f32(next, i, x - said, count);
    }
}

/* ---- int8 ------------------------------------------------------------------------------- */

/* Of the largest magnitude's bits. A block below 2^-100 is zeros: so 256 / scale is finite. */
static float int8_scale(uint most)
{
    return most >= 0x7f800000u ? NAN : most < 0x0d800000u ? 0.0f : as_float(most) / 127.0f;
}

/* Added to a float of at most 2^22 it leaves the nearest integer in the low bits. */
#define NEAREST 12582912.0f

/* The integers of the VW values from i on; blocks are whole, so they are there. In words: CPU drivers take bytes one by
 * one. */
#if VW == 16
#define int8_said(code, i) convert_float16(as_char16(vload4(0, (__global const uint *)((code) + (i)))))
#elif VW == 8
#define int8_said(code, i) convert_float8(as_char8(vload2(0, (__global const uint *)((code) + (i)))))
#else
#define int8_said(code, i) convert_float4(as_char4(*(__global const uint *)((code) + (i))))
#endif

#ifdef STYLE_CPU

/* Values i .. i + 15 of a block of which `count` are there; the others are 0, and not written. */
static float16 int8_load(__global const float *x, int i, int count)
{
    float some[16];
    if (i + 16 <= count)
        return vload16(0, x + i);
    for (int j = 0; j < 16; j++)
        some[j] = i + j < count ? x[i + j] : 0.0f;
    return vload16(0, some);
}

static void int8_keep(__global float *x, int i, int count, float16 v)
{
    float some[16];
    if (i + 16 <= count) {
        vstore16(v, 0, x + i);
        return;
    }
    vstore16(v, 0, some);
    for (int j = 0; i + j < count; j++)
        x[i + j] = some[j];
}

#define LOW 0xffffffffUL
#define ROUNDS 10

/* The keys of Philox's rounds. */
static void int8_keys(ulong8 *key, __global const uint *random)
{
    for (int r = 0; r < ROUNDS; r++) {
        key[2 * r] = random[0] + 0x9E3779B9u * (uint)r;
        key[2 * r + 1] = random[1] + 0xBB67AE85u * (uint)r;
    }
}

/* The random bytes of block b, in the order of its values: cl/random.clh's Philox with a word a 64-bit lane, whose
 * product has both halves that are wanted. The high half of a lane is dropped where it is used. */
static void int8_bytes(uint *bytes, const ulong8 *key, uint step, uint stream, uint b)
{
    const ulong quad = (ulong)b * (BLOCK / 16);
    ulong8 c0 = (quad & LOW) + (ulong8)(0, 1, 2, 3, 4, 5, 6, 7), c1 = stream, c2 = step, c3 = quad >> 32;
    _Pragma("unroll")
    for (int r = 0; r < ROUNDS; r++) {
        const ulong8 p0 = (c0 & LOW) * 0xD2511F53UL, p1 = (c2 & LOW) * 0xCD9E8D57UL;
        c0 = p1 >> 32 ^ c1 ^ key[2 * r];
        c1 = p1;
        c2 = p0 >> 32 ^ c3 ^ key[2 * r + 1];
        c3 = p0;
    }
    vstore8(convert_uint8(c0), 0, bytes);
    vstore8(convert_uint8(c1), 1, bytes);
    vstore8(convert_uint8(c2), 2, bytes);
    vstore8(convert_uint8(c3), 3, bytes);
}

KERNEL void int8_encode(int per, ulong n, uint blocks, uint stream, __global const uint *random,
                        __global const float *frame, __global const float *kept, __global const float *x,
                        __global char *code, __global float *next)
{
    __global float *scales = (__global float *)(code + (size_t)blocks * BLOCK);
    const uint first = get_global_id(0) * per, last = min(blocks, first + per);
    const float ratio = kept && frame ? frame[RATIO] : 1.0f;
    const uint step = random[2];
    float fed[BLOCK];
    uint bytes[BLOCK / 4];
    ulong8 key[2 * ROUNDS];
    int8_keys(key, random);
    for (uint b = first; b < last; b++) {
        const size_t begin = (size_t)b * BLOCK;
        const int count = (int)min((ulong)BLOCK, n - begin);
        uint16 most = 0;
        for (int i = 0; i < BLOCK; i += 16) {
            float16 v = int8_load(x + begin, i, count);
            if (kept)
                v += int8_load(kept + begin, i, count) * ratio;
            most = max(most, as_uint16(v) & 0x7fffffffu);
            vstore16(v, 0, fed + i);
        }
        const uint8 most8 = max(most.lo, most.hi);
        const uint4 most4 = max(most8.lo, most8.hi);
        const uint2 most2 = max(most4.lo, most4.hi);
        const float scale = int8_scale(max(most2.x, most2.y)), inverse = scale > 0.0f ? 256.0f / scale : 0.0f;
        scales[b] = scale;
        int8_bytes(bytes, key, step, stream, b);
        for (int i = 0; i < BLOCK; i += 16) {
            const float16 v = vload16(0, fed + i);
            const short16 at = convert_short16(as_int16(v * inverse + NEAREST));
            const short16 q = (at + convert_short16(vload16(0, (uchar *)bytes + i))) >> (short)8;
            vstore4(as_uint4(convert_char16(q)), 0, (__global uint *)(code + begin + i));   /* in words: bytes one by one else */
            if (next)
                int8_keep(next + begin, i, count, v - convert_float16(q) * scale);
        }
    }
}

#else

#define SHARERS 8               /* work-items of a block: four times four values each */

KERNEL void int8_encode(int per, ulong n, uint blocks, uint stream, __global const uint *random,
                        __global const float *frame, __global const float *kept, __global const float *x,
                        __global char *code, __global float *next)
{
    __local uint tmp[WG];
    __global float *scales = (__global float *)(code + (size_t)blocks * BLOCK);
    const uint me = get_local_id(0), lane = me % SHARERS, b = get_group_id(0) * (WG / SHARERS) + me / SHARERS;
    const size_t at = (size_t)b * BLOCK + 4 * lane;
    const float ratio = kept && frame ? frame[RATIO] : 1.0f;
    float4 v[4];
    uint4 most = 0;
    for (int j = 0; j < 4; j++) {
        const size_t i = at + 4 * SHARERS * j;
        const int count = b < blocks && i < n ? (int)min((ulong)4, n - i) : 0;
        v[j] = count ? load_some_f32(x, i, count) : (float4)0.0f;
        if (kept && count)
            v[j] += load_some_f32(kept, i, count) * ratio;
        most = max(most, as_uint4(v[j]) & 0x7fffffffu);
    }
    tmp[me] = max(max(most.x, most.y), max(most.z, most.w));
    barrier(CLK_LOCAL_MEM_FENCE);
    for (uint half_ = SHARERS / 2; half_ > 0; half_ >>= 1) {
        if (lane < half_)
            tmp[me] = max(tmp[me], tmp[me + half_]);
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    if (b >= blocks)
        return;
    const float scale = int8_scale(tmp[me - lane]), inverse = scale > 0.0f ? 256.0f / scale : 0.0f;
    if (lane == 0)
        scales[b] = scale;
    const uint4 words = random_quad(random, stream, (ulong)b * SHARERS + lane);
    const uint word[4] = { words.x, words.y, words.z, words.w };
    for (int j = 0; j < 4; j++) {
        const size_t i = at + 4 * SHARERS * j;
        const int4 near = convert_int4(convert_short4(as_int4(v[j] * inverse + NEAREST)));
        const int4 q = (near + convert_int4(as_uchar4(word[j]))) >> 8;
        *(__global char4 *)(code + i) = convert_char4(q);
        if (next && i < n)
            store_some_f32(next, i, v[j] - convert_float4(q) * scale, (int)min((ulong)4, n - i));
    }
}

#endif

/* to (+)= what code says, and other, which may be null. */
KERNEL void int8_decode(ulong n, uint block, uint blocks, int add, __global const char *code,
                        __global const char *other, __global float *to)
{
    __global const float *scales = (__global const float *)(code + (size_t)blocks * BLOCK);
    __global const float *others = (__global const float *)(other + (other ? (size_t)blocks * BLOCK : 0));
    const ulong begin = get_global_id(0) * (ulong)block, end = min(n, begin + block);
    for (ulong i = begin; i < end; i += VW) {
        const int count = (int)min((ulong)VW, end - i);
        floatV x = int8_said(code, i) * scales[i / BLOCK];
        x = add ? load_some_f32(to, i, count) + x : x;
        if (other)
            x += int8_said(other, i) * others[i / BLOCK];
        store_some_f32(to, i, x, count);
    }
}

/* ---- topk ------------------------------------------------------------------------------- */

/* A chunk as it is encoded: x, or what next gets where something was kept. */
static __global const float *fed_chunk(__global const float *x, __global const float *kept, __global float *next,
                                       int len, float ratio)
{
    if (!kept)
        return x;
#ifdef STYLE_CPU
    for (int i = 0; i < len; i += VW)
        store_some_f32(next, i, load_some_f32(kept, i, len - i) * ratio + load_some_f32(x, i, len - i), len - i);
#else
    for (int i = get_local_id(0); i < len; i += WG)
        next[i] = kept[i] * ratio + x[i];
    barrier(CLK_GLOBAL_MEM_FENCE);
#endif
    return next;
}

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
    return ((intV)(int)(bits - 1u) - (as_intV(x) & 0x7fffffff)) >> 31;
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

#define GROUPS (CHUNK / 2)

static uintV sizes(__global const float *x, int i)
{
    return as_uintV(loadV_f32(x, i)) & 0x7fffffffu;
}

static int sum_lanes(intV v)
{
    int lane[VW], sum = 0;
    vstoreV(v, 0, lane);
    for (int j = 0; j < VW; j++)
        sum += lane[j];
    return sum;
}

static uint most_lane(uintV v)
{
    uint lane[VW], most = 0;
    vstoreV(v, 0, lane);
    for (int j = 0; j < VW; j++)
        most = max(most, lane[j]);
    return most;
}

/* How many of size[0..count) are at least `bits`, and none has bit 31; count: a multiple of VW. */
static int many_from(const uint *size, int count, uint bits)
{
    intV many = 0;
    for (int i = 0; i < count; i += VW)
        many -= ((intV)(int)(bits - 1u) - as_intV(vloadV(0, size + i))) >> 31;
    return sum_lanes(many);
}

/* A magnitude that at least k of a whole chunk reach, k <= GROUPS / 4, and few more: so many of the largest of groups
 * reach it, which are fewer to count. At least four groups for each of k, so that few hold two of the largest. */
static uint reached_by_groups(__global const float *x, int k)
{
    uint most[GROUPS];
    uintV all = 0;
    int groups = k > GROUPS / 16 ? GROUPS : GROUPS / 4;
    for (int g = 0; g < groups; g += VW) {
        uintV of = 0;
        if (groups == GROUPS)
            of = max(sizes(x, 2 * g), sizes(x, 2 * g + VW));
        else
            for (int j = 0; j < 8 * VW; j += 2 * VW)
                of = max(of, max(sizes(x, 8 * g + j), sizes(x, 8 * g + j + VW)));
        vstoreV(of, 0, most + g);
        all = max(all, of);
    }
    while (groups >= 8 * k && groups > 4 * VW) {
        groups /= 2;
        for (int g = 0; g < groups; g += VW)
            vstoreV(max(vloadV(0, most + g), vloadV(0, most + groups + g)), 0, most + g);
    }
    uint high = most_lane(all) + 1, low = 0;
    for (uint down = 1u << 21; high - low > 1; down = min(2 * down, 1u << 30)) {
        const uint mid = low || down >= high ? low + (high - low) / 2 : high - down;
        const int many = many_from(most, groups, mid);
        if (many < k)
            high = mid;
        else
            low = mid;
        if (many >= k && many <= k + k / 16 + 2)
            break;
    }
    return low;
}

#define SURPLUS 24

/* The k-th largest of size[0..count); behind them are zeros, to a multiple of 16. */
static uint kth_of(const uint *size, int count, int k)
{
    const int padded = (count + 15) & ~15, surplus = count - k;
    uint least = 0;
    if (many_from(size, padded, 1) < k)
        return 0;
    if (surplus > SURPLUS) {                    /* bit by bit from the top */
        for (uint bit = 1u << 30; bit; bit >>= 1)
            least |= many_from(size, padded, least | bit) >= k ? bit : 0;
        return least;
    }
    do {                                        /* from the smallest up */
        uintV next = 0x7fffffffu;
        for (int i = 0; i < padded; i += VW) {
            const intV v = as_intV(vloadV(0, size + i)), above = ((intV)(int)least - v) >> 31;
            next = min(next, as_uintV((v & above) | (0x7fffffff & ~above)));
        }
        uint lane[VW];
        vstoreV(next, 0, lane);
        least = 0x7fffffffu;
        for (int j = 0; j < VW; j++)
            least = min(least, lane[j]);
    } while (least < 0x7fffffffu && count - many_from(size, padded, least + 1) <= surplus);
    return least;
}

/* Bit i: x[i] has a magnitude of at least `least`; of 32 values. */
static uint reaching(__global const float *x, uint least)
{
    uintV bits = 0;
    _Pragma("unroll")
    for (int j = 0; j < 32; j += VW)
        bits |= as_uintV(at_least(loadV_f32(x, j), least)) & (1u << j);
    bits <<= vloadV(0, lanes);
#if VW == 16
    const uint8 half_ = bits.lo | bits.hi;
    const uint4 a = half_.lo | half_.hi;
#elif VW == 8
    const uint4 a = bits.lo | bits.hi;
#else
    const uint4 a = bits;
#endif
    const uint2 b = a.lo | a.hi;
    return b.x | b.y;
}

static uint reaching_some(__global const float *x, int count, uint least)
{
    uint bits = 0;
    for (int j = 0; j < count; j++)
        bits |= (uint)(magnitude(x[j]) >= least) << j;
    return bits;
}

static void pad(uint *size, int count)
{
    for (int i = count; i < ((count + 15) & ~15); i++)
        size[i] = 0;
}

/* Of the values that reach `reach`, which is not 0, the `want` largest, or all if those are fewer: zeros need not be
 * sent. next, null or x, loses them. size and where: room for a chunk. */
static void choose(__global const float *x, int len, uint reach, int want, int k, uint *size, ushort *where,
                   __global float *value, __global ushort *index, __global float *next)
{
    ushort found[CHUNK / 32];
    uint bits[CHUNK / 32];
    int words = 0, count = 0, at = 0;
    for (int i = 0; i < len; i += 32) {
        const uint word = i + 32 <= len ? reaching(x + i, reach) : reaching_some(x + i, len - i, reach);
        found[words] = (ushort)i;
        bits[words] = word;
        words += word != 0;                     /* without a branch: nobody could guess it */
    }
    for (int w = 0; w < words; w++)
        for (uint word = bits[w]; word; word &= word - 1) {
            const int i = found[w] + 31 - (int)clz(word & (0u - word));
            size[count] = magnitude(x[i]);
            where[count++] = (ushort)i;
        }
    pad(size, count);
    const int padded = (count + 15) & ~15;
    uint least = reach;                         /* as it is where many are equal */
    int equals = want - many_from(size, padded, least + 1);
    if (equals <= 0 && count > want) {
        least = kth_of(size, count, want);
        equals = want - many_from(size, padded, least + 1);
    }
    for (int j = 0; j < count && at < want; j++) {          /* here neither */
        value[at] = x[where[j]];
        index[at] = where[j];
        at += (size[j] > least) | ((size[j] == least) & (equals > 0));
        equals -= size[j] == least;
    }
    for (int j = 0; next && j < at; j++)
        next[index[j]] -= value[j];
    for (; at < k; at++) {
        value[at] = 0.0f;
        index[at] = NOTHING;
    }
}

KERNEL void topk_encode(int per, ulong n, uint chunks, int k, __global const float *frame, __global const float *kept,
                        __global const float *all, __global float *code, __global float *next)
{
    __global ushort *indices = (__global ushort *)(code + (size_t)chunks * k);
    const uint first = get_global_id(0) * per, last = min(chunks, first + per);
    const float ratio = kept && frame ? frame[RATIO] : 1.0f;
    uint size[CHUNK + 16];
    ushort where[CHUNK];
    for (uint c = first; c < last; c++) {
        const size_t at = (size_t)c * CHUNK;
        const int len = (int)min((ulong)CHUNK, n - at), want = min(k, len);
        __global const float *x = fed_chunk(all + at, kept ? kept + at : 0, next + (next ? at : 0), len, ratio);
        const uint reach = max(1u, len == CHUNK && want <= GROUPS / 4 ? reached_by_groups(x, want)
                                                                : threshold(x, len, want));
        choose(x, len, reach, want, k, size, where, code + (size_t)c * k, indices + (size_t)c * k,
               next ? next + at : 0);
    }
}

KERNEL void topk_encode_sampled(int per, ulong n, uint chunks, int k, int stride, __global const uint *random,
                                __global const float *frame, __global const float *kept, __global const float *all,
                                __global float *code, __global float *next)
{
    __global ushort *indices = (__global ushort *)(code + (size_t)chunks * k);
    const uint first = get_global_id(0) * per, last = min(chunks, first + per);
    const float ratio = kept && frame ? frame[RATIO] : 1.0f;
    uint size[CHUNK + 16];
    ushort where[CHUNK];
    for (uint c = first; c < last; c++) {
        const size_t at = (size_t)c * CHUNK;
        const int len = (int)min((ulong)CHUNK, n - at), want = min(k, len);
        __global const float *x = fed_chunk(all + at, kept ? kept + at : 0, next + (next ? at : 0), len, ratio);
        int count = 0;
        for (int i = (int)((random[2] + c) % (uint)min(stride, len)); i < len; i += stride)
            size[count++] = magnitude(x[i]);
        pad(size, count);
        const uint reach = max(1u, kth_of(size, count, sample_rank(want, count, len)));
        choose(x, len, reach, want, k, size, where, code + (size_t)c * k, indices + (size_t)c * k,
               next ? next + at : 0);
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

/* next, which may be null, loses the `count` values that were chosen. */
static void take_out(__global float *next, __global const float *value, __global const ushort *index, int count)
{
    if (!next)
        return;
    barrier(CLK_GLOBAL_MEM_FENCE);
    for (int j = get_local_id(0); j < count; j += WG)
        next[index[j]] -= value[j];
}

static void fill_up(__global float *value, __global ushort *index, int from, int k)
{
    for (int at = from + get_local_id(0); at < k; at += WG) {
        value[at] = 0.0f;
        index[at] = NOTHING;
    }
}

KERNEL void topk_encode(int per, ulong n, uint chunks, int k, __global const float *frame, __global const float *kept,
                        __global const float *all, __global float *code, __global float *next)
{
    __local int bins[256], found[18];
    __local int2 tmp[WG];
    const uint c = get_group_id(0);
    const size_t at = (size_t)c * CHUNK;
    __global float *value = code + (size_t)c * k, *rest = next ? next + at : 0;
    __global ushort *index = (__global ushort *)(code + (size_t)chunks * k) + (size_t)c * k;
    const int len = (int)min((ulong)CHUNK, n - at), want = min(k, len);
    __global const float *x = fed_chunk(all + at, kept ? kept + at : 0, rest, len, kept && frame ? frame[RATIO] : 1.0f);
    largest(x, len, want, value, index, bins, found, tmp);
    fill_up(value, index, want, k);
    take_out(rest, value, index, want);
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
                                __global const float *frame, __global const float *kept, __global const float *all,
                                __global float *code, __global float *next)
{
    __local int bins[256], found[18];
    __local int2 tmp[WG];
    __local uint pool[POOL];
    __local ushort where[POOL];
    __local uchar chosen[POOL];
    const uint c = get_group_id(0);
    const size_t from = (size_t)c * CHUNK;
    __global float *value = code + (size_t)c * k, *rest = next ? next + from : 0;
    __global ushort *index = (__global ushort *)(code + (size_t)chunks * k) + (size_t)c * k;
    const int len = (int)min((ulong)CHUNK, n - from), want = min(k, len), me = get_local_id(0);
    const int begin = min(len, me * (CHUNK / WG)), end = min(len, begin + CHUNK / WG);
    const int start = (int)((random[2] + c) % (uint)min(stride, len));
    const int looked = (len - start + stride - 1) / stride, rank = sample_rank(want, looked, len) - 1;
    __global const float *x = fed_chunk(all + from, kept ? kept + from : 0, rest, len,
                                        kept && frame ? frame[RATIO] : 1.0f);
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
        take_out(rest, value, index, count);
        return;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    if (count > POOL) {
        largest(x, len, want, value, index, bins, found, tmp);
        fill_up(value, index, want, k);
        take_out(rest, value, index, want);
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
    take_out(rest, value, index, want);
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
