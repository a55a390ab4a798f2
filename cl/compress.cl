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
 * randomk   one value of every `group`, at an index that is drawn from (stream, group's number, step).
 *           code: fp32 values [groups]
 * sign      chunks of CHUNK values: scale = mean |x|, NaN if a value is not finite; a value is scale with x's sign.
 *           code: fp32 scales [chunks] | uint [ceil(n / 32)], bit i % 32 of word i / 32: x[i] is negative
 * topk      the k largest of a chunk: cl/topk.cl
 * fp16      rounded to the storage type after it was cut to [-most, most]; inf and NaN stay.
 *
 * An encoding with `kept` is of x + kept, and leaves `next`: a pass over the values in place of four.
 *
 * All ranges: fp32, n values. frame: fp32, the places of cl/compress.clh; null: no scale, always taken.
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
#include "compress.clh"

#define STATE_LOSS_SCALE 2
#define STATE_SKIP 6

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
