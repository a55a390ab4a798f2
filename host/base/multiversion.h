/* SPDX-License-Identifier: MIT */
/* host/base/multiversion.h - one function for several instruction sets.
 *
 *   GT_MULTIVERSION static void add(float *restrict to, const float *restrict from, size_t n) { loop }
 *
 * The compiler makes it for each of them, and which one runs is settled when the program is loaded (ifunc), where the
 * platform has that; elsewhere it is an ordinary function. All must give the same: no sums in another order. */
#ifndef GT_BASE_MULTIVERSION_H
#define GT_BASE_MULTIVERSION_H

#include <limits.h>                         /* __GLIBC__ */

#if defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer) || __has_feature(memory_sanitizer)
#define GT_SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define GT_SANITIZED 1
#endif

/* A sanitizer's run time is not up yet when ifuncs are resolved. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__linux__) && !defined(GT_SANITIZED)
#if defined(__clang__)
#define GT_WIDEST "avx512bw"
#elif __GNUC__ >= 12
#define GT_WIDEST "arch=x86-64-v4"          /* GCC ranks whole architectures only, */
#else
#define GT_WIDEST "arch=skylake-avx512"     /* and this one is for Intel's processors alone */
#endif
#define GT_MULTIVERSION __attribute__((target_clones(GT_WIDEST, "avx2", "default")))
#else
#define GT_MULTIVERSION
#endif

#endif
