/* SPDX-License-Identifier: MIT */
/* cl/kernels.h - the texts of the kernel files, compiled into the program. */
#ifndef GT_CL_KERNELS_H
#define GT_CL_KERNELS_H

/* The text of "rows.cl" or "common.clh"; NULL if there is no such file. */
const char *cl_source(const char *name);
/* The names, 0, 1, 2, ...; NULL after the last. */
const char *cl_source_name(int index);

#endif
