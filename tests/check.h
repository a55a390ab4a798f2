/* SPDX-License-Identifier: MIT */
/* tests/check.h - what every test program shares: one main, and checks that say more.
 *
 *   static void adds_up(void) { CHECK(1 + 1 == 2); }
 *   const check_case check_cases[] = { CASE(adds_up), { 0 } };
 *
 * The program's name is the suite's. `prog NAME...` runs only the named cases. Exit 0 all
 * passed, 1 something failed, 77 everything was skipped. A logged warning fails the case
 * that logged it, unless the case calls check_allow_warnings().                         */
#ifndef TESTS_CHECK_H
#define TESTS_CHECK_H

#include "host/base/status.h"

#include <CUnit/CUnit.h>
#include <stddef.h>

typedef struct check_case {
    const char *name;
    void (*run)(void);
} check_case;
#define CASE(function) { #function, function }
extern const check_case check_cases[];          /* ends with { 0 } */

#define CHECK(condition) CU_ASSERT(condition)
/* As CHECK, with a printf text about what was compared. */
#define CHECKF(condition, ...) check_that(!!(condition), __FILE__, __LINE__, #condition, __VA_ARGS__)
/* The call returned GT_OK; prints its sentence if not. */
#define CHECK_OK(call) check_status((call), GT_OK, NULL, __FILE__, __LINE__, #call)
/* The call failed with that code, and its sentence contains `part`. */
#define CHECK_FAILS(call, code, part) check_status((call), (code), (part), __FILE__, __LINE__, #call)

int check_that(int held, const char *file, int line, const char *what, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
/* 1 if as expected. */
int check_status(gt_status got, gt_status want, const char *part, const char *file, int line, const char *what);

/* Says in one line why this case cannot run here, and leaves the case counted as skipped.
 * Return from the case after it. */
void check_skip(const char *format, ...) __attribute__((format(printf, 1, 2)));
void check_allow_warnings(void);
/* $GT_TEST_TINY asks for sizes that an interpreter or a sanitizer gets through. */
int check_tiny(void);

/* A fresh folder below $TMPDIR, removed with all in it when the program ends. */
const char *check_folder(void);
/* ../shared/NAME if it is there (or $GT_SHARED/NAME), else NULL. Valid until the next call. */
const char *check_shared(const char *name);

#endif
