/* SPDX-License-Identifier: MIT */
/* host/gemm/gemm_matrix.h - a device's matrix unit for kernels of other rooms that stand on cl/mma.clh.
 *
 * The unit is engine `matrix`'s: it is asked for and tried once a context (gemm_matrix_unit), and who builds with
 * what is given here multiplies by the same one.                                       */
#ifndef GT_GEMM_GEMM_MATRIX_H
#define GT_GEMM_GEMM_MATRIX_H

#include "host/gemm/gemm.h"

/* As cl/mma.clh numbers them. */
enum { MATRIX_NONE, MATRIX_MFMA, MATRIX_WMMA11, MATRIX_WMMA12, MATRIX_SYNC, MATRIX_DPAS8, MATRIX_DPAS16 };

/* Which unit it is, and the work-items that multiply together; MATRIX_NONE, and 0, if there is none. */
int gemm_matrix_number(gemm_context *c, int *lanes);
/* The program of a family for 16-bit storage, built at the first request with `options` and what chooses the unit;
 * it is the context's. GT_UNSUPPORTED if the device has no unit. */
gt_status gemm_matrix_program(gemm_context *c, const dev_family *f, dtype storage, const char *options,
                              dev_program **out);

#endif
