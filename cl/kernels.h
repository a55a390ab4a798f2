/* SPDX-License-Identifier: MIT */
/* cl/kernels.h - the texts of the kernel files, compiled into the program.
 *
 * What stands in front of a file's own text is what its #include lines name, so that nobody else
 * needs to know which headers it stands on.                                               */
#ifndef GT_CL_KERNELS_H
#define GT_CL_KERNELS_H

enum { CL_PARTS = 7 };          /* at most: the headers of a file, and itself */

/* The texts of "norm.cl" in their order, a NULL behind the last; NULL if there is no such file. */
const char *const *cl_parts(const char *file);
/* The names of the files, 0, 1, 2, ...; NULL after the last. */
const char *cl_file_name(int index);

#endif
