/* SPDX-License-Identifier: MIT */
/* tests/check.c - the main of every test program, over CUnit's basic interface. */
#include "tests/check.h"

#include "host/base/file.h"
#include "host/base/log.h"

#include <CUnit/Basic.h>
#include <libgen.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[512];
static unsigned warnings_before;
static int warnings_allowed, skips;

int check_that(int held, const char *file, int line, const char *what, const char *format, ...)
{
    char text[1400];
    int n = snprintf(text, sizeof text, "%s: ", what);
    va_list args;
    va_start(args, format);
    if (n > 0 && (size_t)n < sizeof text)
        vsnprintf(text + n, sizeof text - (size_t)n, format, args);
    va_end(args);
    CU_assertImplementation(held, (unsigned)line, text, file, "", CU_FALSE);
    return held;
}

int check_status(gt_status got, gt_status want, const char *part, const char *file, int line, const char *what)
{
    int held = got == want && (!part || strstr(gt_message(), part));
    return check_that(held, file, line, what, "got '%s' (%s), want '%s'%s%s", gt_status_name(got),
                      got ? gt_message() : "", gt_status_name(want), part ? " saying " : "", part ? part : "");
}

void check_skip(const char *format, ...)
{
    va_list args;
    printf(" skipped: ");
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf(" ");
    skips++;
}

void check_allow_warnings(void)
{
    warnings_allowed = 1;
}

int check_tiny(void)
{
    const char *s = getenv("GT_TEST_TINY");
    return s && *s && strcmp(s, "0");
}

static void before_case(void)
{
    warnings_before = gt_log_warnings();
    warnings_allowed = 0;
}

static void after_case(void)
{
    CHECKF(warnings_allowed || gt_log_warnings() == warnings_before, "the case logged a warning");
}

const char *check_folder(void)
{
    if (!folder[0]) {
        const char *base = getenv("TMPDIR");
        snprintf(folder, sizeof folder, "%s/geartrain-test-XXXXXX", base && *base ? base : "/tmp");
        if (!mkdtemp(folder)) {
            perror(folder);
            exit(1);
        }
    }
    return folder;
}

const char *check_shared(const char *name)
{
    static char path[1024];
    const char *base = getenv("GT_SHARED");
    snprintf(path, sizeof path, "%s/%s", base && *base ? base : "../shared", name);
    return access(path, R_OK) == 0 ? path : NULL;
}

int main(int argc, char **argv)
{
    int cases = 0;
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (CU_initialize_registry() != CUE_SUCCESS)
        return 1;
    CU_pSuite suite = CU_add_suite_with_setup_and_teardown(basename(argv[0]), NULL, NULL, before_case, after_case);
    for (const check_case *c = check_cases; suite && c->name; c++) {
        int wanted = argc < 2;
        for (int i = 1; i < argc; i++)
            wanted |= !strcmp(argv[i], c->name);
        if (wanted && CU_add_test(suite, c->name, c->run))
            cases++;
    }
    if (!cases) {
        fprintf(stderr, "%s: no such case\n", argv[0]);
        CU_cleanup_registry();
        return 2;
    }
    CU_basic_set_mode(CU_BRM_VERBOSE);
    CU_basic_run_tests();
    unsigned failures = CU_get_number_of_failures();
    CU_cleanup_registry();
    if (folder[0])
        gt_folder_remove(folder);
    if (failures)
        return 1;
    return skips == cases ? 77 : 0;
}
