/* SPDX-License-Identifier: MIT */
/* tests/kernel/emulated/waves.h - runs the waves of a launch, an instruction at a time.
 *
 * emulator.py lays these structures out as well (class Site and class Launch there).
 *
 * An instruction of the code is a site: a function, made by the emulator's translator, that changes the
 * state of one wave, its program counter included. Matrix instructions, and those that do nothing
 * here, are done by this library itself (own, matrix.c).                                             */
#ifndef TESTS_KERNEL_EMULATED_WAVES_H
#define TESTS_KERNEL_EMULATED_WAVES_H

#include <stdint.h>

enum {
    WAVES_SGPRS = 260,          /* scalar registers, constants behind them, then the program counter */
    WAVES_PC = 256,
    WAVES_VGPRS = 256,
    WAVES_MOST = 32,            /* waves of a group */
    WAVES_FILES = 6             /* scalar, vector, memory, local, private, accumulation */
};

enum { SITE_UNKNOWN, SITE_TRANSLATED, SITE_NOTHING, SITE_MATRIX };
enum { COUNT_ALL, COUNT_VECTOR, COUNT_MEMORY, COUNT_LOCAL, COUNT_MATRIX, COUNT_SCALAR, COUNTS };
enum {
    MATRIX_WMMA11_F16,
    MATRIX_WMMA11_BF16,
    MATRIX_WMMA12_F16,
    MATRIX_WMMA12_BF16,
    MATRIX_MFMA16_F16,
    MATRIX_MFMA16_BF16,
    MATRIX_MFMA16_F32,
    MATRIX_MFMA32_F16,
    MATRIX_MFMA32_BF16,
    MATRIX_MFMA32_F32
};

typedef struct site {
    uint64_t function;
    uint8_t how, barrier, count;        /* how: SITE_; count: COUNT_ */
    uint8_t bytes;                      /* of an instruction done here */
    uint8_t args, arg[WAVES_FILES];     /* which files the function takes */
    uint8_t form, negate_c;             /* of a matrix instruction: MATRIX_ */
    uint16_t d, a, b, c;                /* operands: 256 and more are vector registers, 512 and more accumulation */
} site;

typedef struct launch {
    site *sites;                /* one for every 4 bytes of code */
    uint64_t code, code_bytes;
    uint32_t groups[3], waves, lanes;
    uint32_t group_register[3], group_shift[3];    /* where a wave finds its group's numbers */
    uint32_t local_bytes, private_bytes;           /* private: a lane's */
    const uint32_t *start_scalars, *start_vectors; /* of every wave of a group: WAVES_SGPRS, and one register */
    uint32_t *scalars, *vectors, *sums;            /* room for WAVES_MOST waves */
    uint8_t *local, *private;
    uint64_t missing;                   /* where a site is unknown */
    uint64_t at[3];                     /* the group that runs */
    uint32_t begun, stopped[WAVES_MOST];
    uint64_t counts[COUNTS];
} launch;

/* 0: over. 1: the site at `missing` is to be translated; call again to go on. 2: a wave is outside of
 * the code, at `missing`. */
int waves_run(launch *l);

/* D = A B + C of one wave, at once; `lanes` is 32 or 64. */
void matrix_run(const site *s, uint32_t *scalars, uint32_t *vectors, uint32_t *sums);

#endif
