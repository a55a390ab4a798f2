/* SPDX-License-Identifier: MIT */
/* tests/kernel/emulated/matrix.c - the matrix instructions of AMD's GPUs, by their instruction sets' tables.
 *
 *   instruction             lanes   A of lane l, element j     B likewise with column      C, D of lane l, element r
 *   WMMA gfx11  16x16x16      32    row l%16, k j  (16)        (l and l+16 hold the same)  row 2r + l/16, column l%16
 *   WMMA gfx12  16x16x16      32    row l%16, k 8(l/16) + j                                row 8(l/16) + r
 *   MFMA 16x16x16 16-bit      64    row l%16, k 4(l/16) + j                                row 4(l/16) + r
 *   MFMA 16x16x4 fp32         64    row l%16, k l/16                                       row 4(l/16) + r
 *   MFMA 32x32x8 16-bit       64    row l%32, k 4(l/32) + j                                row 8(r/4) + 4(l/32) + r%4
 *   MFMA 32x32x2 fp32         64    row l%32, k l/32                                       row 8(r/4) + 4(l/32) + r%4
 *
 * Which k a lane of gfx12 holds cannot be seen in a product whose A and B agree on it. gfx11 wants both halves
 * of a wave to hold the same: where they do not, the result is NaN here. Sums are in fp32, by k.       */
#include "tests/kernel/emulated/waves.h"

#include <math.h>
#include <string.h>

typedef struct shape {
    int lanes, size, k;         /* size x size results, k products each */
    int of_lane, results;       /* elements of A that a lane holds, and of D */
    enum { F16, BF16, F32 } type;
} shape;

static const shape shapes[] = {
    [MATRIX_WMMA11_F16] = { 32, 16, 16, 16, 8, F16 },  [MATRIX_WMMA11_BF16] = { 32, 16, 16, 16, 8, BF16 },
    [MATRIX_WMMA12_F16] = { 32, 16, 16, 8, 8, F16 },   [MATRIX_WMMA12_BF16] = { 32, 16, 16, 8, 8, BF16 },
    [MATRIX_MFMA16_F16] = { 64, 16, 16, 4, 4, F16 },   [MATRIX_MFMA16_BF16] = { 64, 16, 16, 4, 4, BF16 },
    [MATRIX_MFMA16_F32] = { 64, 16, 4, 1, 4, F32 },    [MATRIX_MFMA32_F16] = { 64, 32, 8, 4, 16, F16 },
    [MATRIX_MFMA32_BF16] = { 64, 32, 8, 4, 16, BF16 }, [MATRIX_MFMA32_F32] = { 64, 32, 2, 1, 16, F32 },
};

static float float_of(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

static float half_of(uint32_t h)
{
    const float sign = h & 0x8000u ? -1.0f : 1.0f;
    const int exponent = (int)(h >> 10 & 31u);
    const uint32_t rest = h & 1023u;
    if (exponent == 31)
        return rest ? NAN : sign * INFINITY;
    return sign * (exponent ? ldexpf((float)(1024u + rest), exponent - 25) : ldexpf((float)rest, -24));
}

/* Word `word` of lane `lane` of an operand, wherever that is. */
static uint32_t operand(const uint32_t *scalars, const uint32_t *vectors, const uint32_t *sums, int lanes, uint32_t at,
                        int word, int lane)
{
    if (at < 256)
        return scalars[at];
    const uint32_t *file = at < 512 ? vectors : sums;
    return file[(at % 256 + (uint32_t)word) * (uint32_t)lanes + (uint32_t)lane];
}

static float element(uint32_t word, int j, int type)
{
    const uint32_t half = word >> 16 * (j % 2) & 0xffffu;
    return type == F32 ? float_of(word) : type == BF16 ? float_of(half << 16) : half_of(half);
}

/* A, or B with columns for rows, as x[row][k]. */
static void gather(float x[32][16], const shape *s, const uint32_t *scalars, const uint32_t *vectors,
                   const uint32_t *sums, uint32_t at)
{
    const int per_word = s->type == F32 ? 1 : 2;
    for (int lane = 0; lane < s->lanes; lane++)
        for (int j = 0; j < s->of_lane; j++) {
            const uint32_t word = operand(scalars, vectors, sums, s->lanes, at, j / per_word, lane);
            const float value = element(word, j, s->type);
            const int k = s->of_lane == s->k ? j : s->of_lane * (lane / s->size) + j;
            float *to = &x[lane % s->size][k];
            /* a second lane that holds the same element */
            if (s->of_lane == s->k && lane >= s->size && memcmp(to, &value, sizeof value))
                *to = NAN;
            else
                *to = value;
        }
}

static int row_of(const shape *s, int form, int lane, int r)
{
    if (form == MATRIX_WMMA11_F16 || form == MATRIX_WMMA11_BF16)
        return 2 * r + lane / 16;
    if (s->size == 16)
        return s->results * (lane / 16) + r;
    return 8 * (r / 4) + 4 * (lane / 32) + r % 4;
}

void matrix_run(const site *m, uint32_t *scalars, uint32_t *vectors, uint32_t *sums)
{
    const shape *s = &shapes[m->form];
    float a[32][16], b[32][16];
    uint32_t c[16 * 64];
    gather(a, s, scalars, vectors, sums, m->a);
    gather(b, s, scalars, vectors, sums, m->b);
    for (int r = 0; r < s->results; r++)
        for (int lane = 0; lane < s->lanes; lane++)
            c[r * s->lanes + lane] = operand(scalars, vectors, sums, s->lanes, m->c, r, lane);
    uint32_t *to = (m->d < 512 ? vectors : sums) + (size_t)(m->d % 256) * (size_t)s->lanes;
    for (int r = 0; r < s->results; r++)
        for (int lane = 0; lane < s->lanes; lane++) {
            const int row = row_of(s, m->form, lane, r), column = lane % s->size;
            float sum = float_of(c[r * s->lanes + lane]);
            if (m->negate_c)
                sum = -sum;
            for (int k = 0; k < s->k; k++)
                sum += a[row][k] * b[column][k];
            memcpy(&to[r * s->lanes + lane], &sum, sizeof sum);
        }
}
