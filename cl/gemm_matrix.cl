/* SPDX-License-Identifier: MIT */
/* cl/gemm_matrix.cl - the `matrix` engine: products by a device's matrix unit, with everything around
 * them fused.
 *
 *   C (M,N) = epilogue(alpha * op(A) (M,K) * op(B) (K,N))      or C += alpha * op(A) * op(B)
 *
 * Operands and epilogue are as in gemm.cl; A and B are of type STORE, which is 16-bit here. Sums are
 * fp32, in the unit's order.
 *
 * With BF16X3, STORE being bf16, A, B and C are fp32, and a number is multiplied as the sum of two of bf16, which
 * have 16 of its 24 bits (the engine `bf16x3`):
 *
 *   a = a0 + a1   b = b0 + b1         a b = a0 b1 + a1 b0 + a0 b0    (+ a1 b1, left out)
 *
 * They are split on their way into local memory, which has slices of each; memory beyond is read as often as for
 * fp32. Infinity, and what bf16 would round to it, become not a number. The method is that of Henry, Tang and
 * Heinecke, "Leveraging the bfloat16 Artificial Intelligence Datatype For Higher-Precision Computations" (2019).
 *
 * A work-group is WAVES_M x WAVES_N waves, and owns a BLOCK_M x BLOCK_N block of C, a wave MMA_M x MMA_N
 * tiles of 16 x MMA_COLUMNS. Slices of some k of A and B go through local memory, k together whatever the transposes,
 * the next one being fetched into registers while the present one is used:
 *
 *       SLICE k                wave 0 | wave 1        a wave, for each 16 k: loads MMA_M pieces of A and
 *   A  [ rows ]   B [ columns ]  -----+-----          MMA_N of B, and multiplies each by each
 *                              wave 2 | wave 3
 *
 * With room there for two slices the next one goes beside the present one, and the group meets once a slice
 * instead of twice. On the way out a wave's tiles pass through local memory, a row of tiles at a time, so that
 * the epilogue sees neighbouring columns.
 *
 * Whatever the host sets, a tile's products are added in the order of k: how a product is cut changes no bit.
 *
 * The host sets with -D: STORE, TRANS_A, TRANS_B, C_F32, ACT, DROP as for gemm.cl;
 *   MMA_M, MMA_N      4, or 2 for small products; powers of two                           [4]
 *   WAVES_M, WAVES_N  powers of two                                                       [2]
 *   SLICE             a multiple of 16; an item fetches 8 elements of a factor, or 16 n  [32]
 *   SLICES            room in local memory for so many, 1 or 2                            [1]
 *   MMA_UNIT, MMA_SOFTWARE   see mma.clh
 *   BF16X3            as said above, with C_F32
 *   ASK_UNIT          leaves matrix_unit alone
 *   LARGE, SMALL      the host's choice for the unit, where it is not there to give it          */
#include "common.clh"
#include "random.clh"
#include "activation.clh"
#include "gemm_epilogue.clh"
#include "mma.clh"

/* For programs that are compiled for chips which are not there: what host/gemm/gemm_matrix.c gives by units. */
#if defined(LARGE) && defined(BF16X3) && MMA_UNIT == MMA_DPAS8
#undef LARGE
#define SMALL
#endif
#if defined(LARGE) && defined(MMA_XMX)
#define MMA_M 2
#define WAVES_M 4
#define WAVES_N (128 / (4 * MMA_COLUMNS))
#elif defined(SMALL)
#define MMA_M 2
#define MMA_N 2
#define WAVES_N (64 / (2 * MMA_COLUMNS))
#endif
#if defined(LARGE) && (defined(BF16X3) || MMA_UNIT == MMA_DPAS8)
#define SLICE 16
#elif defined(SMALL) && defined(BF16X3)
#define SLICE (MMA_LANES <= 16 ? 16 : 32)
#elif defined(SMALL)
#define SLICE (MMA_LANES == 16 ? 16 : MMA_LANES == 8 ? 32 : 64)
#endif

#ifndef MMA_M
#define MMA_M 4
#endif
#ifndef MMA_N
#define MMA_N 4
#endif
#ifndef WAVES_M
#define WAVES_M 2
#endif
#ifndef WAVES_N
#define WAVES_N 2
#endif
#ifndef SLICE
#define SLICE 32
#endif
#ifndef SLICES
#define SLICES 1
#endif

/* out[0], out[1]: the unit this device's compiler reaches, and its lanes; 0: none. */
__kernel void matrix_unit(__global int *out)
{
    out[0] = MMA_UNIT;
#if MMA_UNIT != MMA_NONE
    out[1] = MMA_LANES;
#else
    out[1] = 0;
#endif
}

#if MMA_UNIT != MMA_NONE && !defined(ASK_UNIT) && (STORE == 1 || (STORE == 2 && !defined(BF16X3)))

#define WAVES (WAVES_M * WAVES_N)
#define ITEMS (WAVES * MMA_LANES)
#define BLOCK_M (16 * WAVES_M * MMA_M)
#define BLOCK_N (MMA_COLUMNS * WAVES_N * MMA_N)
/* How a factor lies in local memory, by its name. */
#define LD_OF_A MMA_A_LD(SLICE)
#define LD_OF_B MMA_LD(SLICE)
#define TO_K_OF_A(k) MMA_A_TO_K(k, BLOCK_M)
#define TO_K_OF_B(k) (k)
#define A_SIZE MMA_A_SIZE(SLICE, BLOCK_M)
#define SLICE_SIZE (A_SIZE + MMA_LD(SLICE) * BLOCK_N)
/* Parts of a number, each with slices of its own. */
#ifdef BF16X3
#define PARTS 2
typedef float ab_t;
typedef float8 part_t;
typedef ushort8 kept_t;
#define PART_OF(eight) (eight)
#else
#define PARTS 1
typedef ushort ab_t;
typedef uint4 part_t, kept_t;   /* words: of halves Intel's compiler makes words and halves again */
#define PART_OF(eight) as_uint4(eight)
#endif
/* fp32 rows of a wave's results, as wide as its tiles. */
#define OUT_LD (MMA_COLUMNS * MMA_N + 4)

/* Eight neighbours from p[i], of which those at or past `count` are 0; wide loads want alignment. */
static part_t fetch8(__global const ab_t *p, size_t i, int count, int aligned)
{
    if (count >= 8 && aligned)
        return *(__global const part_t *)(p + i);
    ab_t t[8];
    MMA_UNROLL
    for (int j = 0; j < 8; j++)
        t[j] = j < count ? p[i + j] : (ab_t)0;
    return PART_OF(vload8(0, t));
}

/* What eight elements are multiplied as: HIGH, and LOW of two. */
#ifdef BF16X3
static ushort8 narrow8(float8 x)
{
    return (ushort8)(store_narrowV(x.lo), store_narrowV(x.hi));
}

static ushort8 rest8(float8 x)
{
    return (ushort8)(store_narrowV(x.lo - store_widenV(store_narrowV(x.lo))),
                     store_narrowV(x.hi - store_widenV(store_narrowV(x.hi))));
}

/* As mma_put_turned, of halves that no words have been made of. */
static void put_turned(__local uint *to, int ld, ushort8 x, ushort8 y)
{
    const uint8 pair = convert_uint8(x) | convert_uint8(y) << 16;
    to[0] = pair.s0;
    to[ld / 2] = pair.s1;
    to[2 * (ld / 2)] = pair.s2;
    to[3 * (ld / 2)] = pair.s3;
    to[4 * (ld / 2)] = pair.s4;
    to[5 * (ld / 2)] = pair.s5;
    to[6 * (ld / 2)] = pair.s6;
    to[7 * (ld / 2)] = pair.s7;
}
#define HIGH(x) narrow8(x)
#define LOW(x) rest8(x)
#else
#define HIGH(x) (x)
#define put_turned mma_put_turned
#endif

/* A slice [k, k + SLICE) of `block` rows of a factor in registers: FETCHES times eight elements of an item.
 * by_k: along k, SLICE / 8 items a row. Else along the rows, in pairs of neighbouring k. */
#define FETCHES(block) ((block) * SLICE / 8 / ITEMS)
#define FETCH_SLICE(part, block, by_k, p, ld, row, rows, k, K, aligned)                    \
    MMA_UNROLL                                                                             \
    for (int f_ = 0; f_ < FETCHES(block); f_++) {                                                 \
        if (by_k) {                                                                        \
            const int i_ = item + f_ * ITEMS, r_ = (row) + i_ / (SLICE / 8), k_ = (k) + i_ % (SLICE / 8) * 8;  \
            part[f_] = r_ < (rows) ? fetch8(p, (size_t)r_ * (ld) + k_, (K) - k_, aligned)  \
                                   : (part_t)0;                                           \
        } else {                                                                           \
            const int i_ = item + f_ / 2 * ITEMS, r_ = (row) + i_ % ((block) / 8) * 8;     \
            const int k_ = (k) + i_ / ((block) / 8) * 2 + f_ % 2;                          \
            part[f_] = k_ < (K) ? fetch8(p, (size_t)k_ * (ld) + r_, (rows) - r_, aligned)  \
                                : (part_t)0;                                              \
        }                                                                                  \
    }

/* The same where the block is all inside and its rows are aligned, in a loop of its own: finding out what is ragged takes
 * more instructions than there are products. From the block's first element, which is the same for the group, an item
 * reads so many bytes behind, in 32 bits: an address then is one addition and not two with a carry. AT_OF is an
 * item's first, and from slice to slice it grows by STEP_OF. */
#define AT_OF(block, by_k, ld)                                                             \
    ((uint)sizeof(ab_t) * ((by_k) ? item / (SLICE / 8) * (uint)(ld) + item % (SLICE / 8) * 8                   \
                                  : item / ((block) / 8) * 2 * (uint)(ld) + item % ((block) / 8) * 8))
#define STEP_OF(by_k, ld) ((uint)sizeof(ab_t) * ((by_k) ? SLICE : SLICE * (uint)(ld)))
#define IS_WHOLE(block, by_k, ld, row, rows, K, aligned)                                   \
    ((aligned) && (row) + (block) <= (rows) && ITEMS % ((by_k) ? SLICE / 8 : (block) / 8) == 0                 \
     && (ulong)((by_k) ? (block) : (K)) * (ulong)(ld) * sizeof(ab_t) >> 32 == 0)
#define FETCH_WHOLE(part, block, by_k, p, ld, at)                                          \
    MMA_UNROLL                                                                             \
    for (int f_ = 0; f_ < FETCHES(block); f_++) {                                          \
        const uint rows_ = (by_k) ? f_ * (ITEMS / (SLICE / 8)) : f_ / 2 * (ITEMS / ((block) / 8)) * 2 + f_ % 2; \
        const uint behind_ = (at) + rows_ * (uint)(ld) * (uint)sizeof(ab_t);               \
        part[f_] = *(__global const part_t *)((__global const char *)(p) + behind_);       \
    }
/* Data Center Max has no registers left for a second loop: there, and on its kin, it is a branch in the one loop. */
#ifdef MMA_XMX
#define WHOLE_APART 0
#else
#define WHOLE_APART 1
#endif
#define FETCH_NEXT_WHOLE                                                                   \
    a_at += STEP_OF(A_BY_K, lda);                                                          \
    b_at += STEP_OF(B_BY_K, ldb);                                                          \
    FETCH_WHOLE(next_a, BLOCK_M, A_BY_K, a_block, lda, a_at)                               \
    FETCH_WHOLE(next_b, BLOCK_N, B_BY_K, b_block, ldb, b_at)

/* Puts HIGH or LOW of it into local memory, k together. */
#define KEEP_PART(to, factor, block, by_k, part, OF)                                       \
    if (by_k) {                                                                            \
        MMA_UNROLL                                                                         \
        for (int f_ = 0; f_ < FETCHES(block); f_++) {                                      \
            const int i_ = item + f_ * ITEMS;                                              \
            *(__local kept_t *)((to) + i_ / (SLICE / 8) * LD_OF_##factor + TO_K_OF_##factor(i_ % (SLICE / 8) * 8)) \
                = OF(part[f_]);                                                            \
        }                                                                                  \
    } else {                                                                               \
        MMA_UNROLL                                                                         \
        for (int f_ = 0; f_ < FETCHES(block); f_ += 2) {                                   \
            const int i_ = item + f_ / 2 * ITEMS;                                          \
            put_turned((__local uint *)((to) + i_ % ((block) / 8) * 8 * LD_OF_##factor     \
                                        + TO_K_OF_##factor(i_ / ((block) / 8) * 2)),       \
                       LD_OF_##factor, OF(part[f_]), OF(part[f_ + 1]));                    \
        }                                                                                  \
    }

#ifdef TRANS_A
#define A_BY_K 0
#else
#define A_BY_K 1
#endif
#ifdef TRANS_B
#define B_BY_K 1
#else
#define B_BY_K 0
#endif

/* Local memory in units of 16 bytes: slices of both factors, or the waves' results, whichever is more. */
#define SLICES_ROOM (PARTS * SLICES * SLICE_SIZE / 8)
#define OUT_ROOM (WAVES * 16 * OUT_LD / 4)
#define ROOM (SLICES_ROOM > OUT_ROOM ? SLICES_ROOM : OUT_ROOM)

/* From where a factor is kept to where what it left over is. */
#define REST (SLICES * SLICE_SIZE)
#ifdef BF16X3
#define KEEP_SLICE(to, factor, block, by_k, part)                                          \
    KEEP_PART(to, factor, block, by_k, part, HIGH)                                         \
    KEEP_PART((to) + REST, factor, block, by_k, part, LOW)
#else
#define KEEP_SLICE(to, factor, block, by_k, part) KEEP_PART(to, factor, block, by_k, part, HIGH)
#endif

/* A wave's pieces of B for 16 k, and what its pieces of A add to C by them. */
#define LOAD_B(from)                                                                       \
    MMA_UNROLL                                                                             \
    for (int j = 0; j < MMA_N; j++)                                                        \
        b[j] = coop_mat_load_b((from) + j * MMA_COLUMNS * LD_OF_B, LD_OF_B, lane);
#define ADD_PRODUCTS(from)                                                                 \
    MMA_UNROLL                                                                             \
    for (int i = 0; i < MMA_M; i++) {                                                      \
        const coop_mat_a a = coop_mat_load_a((from) + i * 16 * LD_OF_A, LD_OF_A, lane);             \
        MMA_UNROLL                                                                         \
        for (int j = 0; j < MMA_N; j++)                                                    \
            c[i][j] = coop_mat_muladd(a, b[j], c[i][j]);                                   \
    }

/* A turn of the loop over slices: what was fetched goes to its place; the next one is fetched between these two; and
 * the products are added. */
#define KEEP_BOTH(k)                                                                       \
    __local ushort *a_slice = as + (k) / SLICE % SLICES * SLICE_SIZE;                      \
    __local ushort *b_slice = a_slice + A_SIZE;                                            \
    __local const ushort *my_a = a_slice + my_row * LD_OF_A, *my_b = b_slice + my_column * LD_OF_B; \
    KEEP_SLICE(a_slice, A, BLOCK_M, A_BY_K, next_a)                                        \
    KEEP_SLICE(b_slice, B, BLOCK_N, B_BY_K, next_b)                                        \
    barrier(CLK_LOCAL_MEM_FENCE);
#ifdef BF16X3
#define ADD_16_K(h)                                                                        \
    LOAD_B(my_b + REST + (h))                                                              \
    ADD_PRODUCTS(my_a + TO_K_OF_A(h))                                                      \
    LOAD_B(my_b + (h))                                                                     \
    ADD_PRODUCTS(my_a + TO_K_OF_A(h) + REST)                                               \
    ADD_PRODUCTS(my_a + TO_K_OF_A(h))
#else
#define ADD_16_K(h)                                                                        \
    LOAD_B(my_b + (h))                                                                     \
    ADD_PRODUCTS(my_a + TO_K_OF_A(h))
#endif
#if SLICES == 1
#define ALL_HAVE_READ barrier(CLK_LOCAL_MEM_FENCE);     /* before the next slice is kept */
#else
#define ALL_HAVE_READ
#endif
#define MULTIPLY_SLICE                                                                     \
    MMA_UNROLL                                                                             \
    for (int h = 0; h < SLICE; h += 16) {                                                  \
        coop_mat_b b[MMA_N];                                                               \
        ADD_16_K(h)                                                                        \
    }                                                                                      \
    ALL_HAVE_READ

/* Dimension 0: blocks of columns; 1: blocks of rows; 2: batch. */
MMA_KERNEL(ITEMS)
void gemm_matrix(int M, int N, int K, __global const ab_t *A, int lda, ulong stride_a,
                 __global const ab_t *B, int ldb, ulong stride_b, ulong scales_at, int each, int first,
                 __global c_t *C, int ldc, ulong stride_c, float alpha, int add, int flags, __global const float *bias,
                 __global c_t *pre, __global const c_t *aux, __global const c_t *residual,
                 __global const uint *random, uint stream, uint limit, float factor, ulong sequence)
{
    __local uint4 room[ROOM];
#ifdef MMA_SOFTWARE
    __local float mma_scratch_of_all[WAVES * MMA_SCRATCH];
    __local float *mma_scratch = mma_scratch_of_all + get_local_id(0) / MMA_LANES * MMA_SCRATCH;
#endif
    const epilogue e = { flags, bias, pre, aux, residual, random, sequence, stream, limit, factor };
    const int item = get_local_id(0), lane = item % MMA_LANES, wave = item / MMA_LANES, which = get_group_id(2);
    const int m0 = get_group_id(1) * BLOCK_M, n0 = get_group_id(0) * BLOCK_N;
    const size_t c_start = which * stride_c;
    const int a_aligned = ((lda | (int)stride_a) & 7) == 0, b_aligned = ((ldb | (int)stride_b) & 7) == 0;
    const int c_aligned = ((ldc | (int)stride_c) & 3) == 0;
    const int whole = IS_WHOLE(BLOCK_M, A_BY_K, lda, m0, M, K, a_aligned)
                      && IS_WHOLE(BLOCK_N, B_BY_K, ldb, n0, N, K, b_aligned);
    uint a_at = AT_OF(BLOCK_M, A_BY_K, lda), b_at = AT_OF(BLOCK_N, B_BY_K, ldb);
    __local ushort *as = (__local ushort *)room;
    const int my_row = wave / WAVES_N * 16 * MMA_M, my_column = wave % WAVES_N * MMA_COLUMNS * MMA_N;
    A += which * stride_a;
    B += which * stride_b;
    __global const ab_t *const a_block = A + (A_BY_K ? (size_t)m0 * lda : (size_t)m0);
    __global const ab_t *const b_block = B + (B_BY_K ? (size_t)n0 * ldb : (size_t)n0);

    coop_mat_c c[MMA_M][MMA_N];
    part_t next_a[FETCHES(BLOCK_M)], next_b[FETCHES(BLOCK_N)];
    MMA_UNROLL
    for (int i = 0; i < MMA_M; i++)
        MMA_UNROLL
        for (int j = 0; j < MMA_N; j++)
            c[i][j] = coop_mat_zero();

    FETCH_SLICE(next_a, BLOCK_M, A_BY_K, A, lda, m0, M, 0, K, a_aligned)
    FETCH_SLICE(next_b, BLOCK_N, B_BY_K, B, ldb, n0, N, 0, K, b_aligned)
    int k = 0;
    if (WHOLE_APART && whole) {
        for (; k + SLICE <= K; k += SLICE) {
            KEEP_BOTH(k)
            if (k + 2 * SLICE <= K) {
                FETCH_NEXT_WHOLE
            }
            MULTIPLY_SLICE
        }
        if (k < K && k > 0) {
            FETCH_SLICE(next_a, BLOCK_M, A_BY_K, A, lda, m0, M, k, K, a_aligned)
            FETCH_SLICE(next_b, BLOCK_N, B_BY_K, B, ldb, n0, N, k, K, b_aligned)
        }
    }
    for (; k < K; k += SLICE) {
        KEEP_BOTH(k)
        if (!WHOLE_APART && whole && k + 2 * SLICE <= K) {
            FETCH_NEXT_WHOLE
        } else if (k + SLICE < K) {
            FETCH_SLICE(next_a, BLOCK_M, A_BY_K, A, lda, m0, M, k + SLICE, K, a_aligned)
            FETCH_SLICE(next_b, BLOCK_N, B_BY_K, B, ldb, n0, N, k + SLICE, K, b_aligned)
        }
        MULTIPLY_SLICE
    }
#if SLICES != 1
    barrier(CLK_LOCAL_MEM_FENCE);       /* or results are put there */
#endif

    __local float *out = (__local float *)room + wave * 16 * OUT_LD;
    const int row0 = m0 + my_row, column0 = n0 + my_column;
    MMA_UNROLL
    for (int i = 0; i < MMA_M; i++) {
        MMA_UNROLL
        for (int j = 0; j < MMA_N; j++)
            coop_mat_store(c[i][j], out + j * MMA_COLUMNS, OUT_LD, lane);
        barrier(CLK_LOCAL_MEM_FENCE);
        /* One copy of the epilogue, not one a turn. */
#pragma nounroll
        for (int x = lane; x < 16 * (MMA_COLUMNS / 4) * MMA_N; x += MMA_LANES) {
            const int y = x / (MMA_COLUMNS / 4 * MMA_N), row = row0 + i * 16 + y;
            const int column = column0 + x % (MMA_COLUMNS / 4 * MMA_N) * 4;
            const int count = min(4, N - column), wide = count == 4 && c_aligned;
            if (row >= M || count <= 0)
                continue;
            const size_t at = c_start + (size_t)row * ldc + column;
            float4 r = alpha * *(__local const float4 *)(out + y * OUT_LD + (column - column0));
            if (add)
                r += part_load(C, at, count, wide);
            else if (flags)
                r = epilogue_apply(r, e, at, ((ulong)which * M + row) * N + column, column, count, wide);
            part_store(C, at, r, count, wide);
        }
        barrier(CLK_LOCAL_MEM_FENCE);   /* all have read before the next row of tiles is put there */
    }
}

#endif
