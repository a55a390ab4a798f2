/* SPDX-License-Identifier: MIT */
/* host/cli/verb_doctor.c - what is wrong with this machine's OpenCL or network, in sentences,
 * with the fix. OpenCL's part is doctor_opencl.c, the network's doctor_net.c and doctor_verbs.c. */
#include "host/cli/cli.h"
#include "host/cli/cli_net.h"
#include "host/cli/doctor.h"
#include "host/cli/doctor_verbs.h"

#include "host/base/file.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static struct {
    int prove;
} o;

static const gt_option table[] = {
    { .group = "Devices" },
    { "prove", 0, GT_FLAG, NULL, "also a training step on each device, against the host's", &o.prove, 0, NULL },
    { 0 }
};

static const cli_help help = { "doctor [--prove]",
                               "Say what is wrong with this machine's OpenCL or network, and the fix.",
                               "  geartrain doctor --prove\n" };

static int bad, good;

void doctor_good(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    printf("ok    ");
    vprintf(format, args);
    printf("\n");
    va_end(args);
    fflush(stdout);                     /* what comes next may take a while, or end the program */
    good++;
}

void doctor_bad(const char *fix, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    printf("BAD   ");
    vprintf(format, args);
    printf("\n      fix: %s\n", fix);
    va_end(args);
    fflush(stdout);
    bad++;
}

/* Compiled programs, measurements and tokens, and PoCL's programs. */
static void check_caches(void)
{
    char *folder, trouble[2048];
    if (gt_cache_find(&folder, "programs", trouble, sizeof trouble))
        doctor_bad("name a folder that can be written in GEARTRAIN_CACHE", "%s, and %s", trouble, gt_message());
    else if (*trouble)
        doctor_bad("set HOME to a folder that can be written, or name one in GEARTRAIN_CACHE",
                   "%s; for now caches are in '%s'", trouble, folder);
    else
        doctor_good("programs are kept in %s", folder);
    gt_message_clear();
    free(folder);
    if (*dev_driver_trouble())
        doctor_bad("set HOME to a folder that can be written, or name one in POCL_CACHE_DIR",
                   "%s, and would show no device; for now it writes '%s'", dev_driver_trouble(),
                   getenv("POCL_CACHE_DIR") ? getenv("POCL_CACHE_DIR") : "");
}

gt_status verb_doctor(int argc, char **argv)
{
    char **words;
    int count, done;
    gt_status st = cli_parse(table, &help, argc, argv, &words, &count, &done);
    if (st || done)
        return st;
    if (count)
        return gt_fail(GT_MISUSE, "doctor takes no words such as '%s'", words[0]);
    doctor_opencl(o.prove);
    check_caches();
    doctor_net(doctor_good, doctor_bad);
    doctor_verbs(doctor_good, doctor_bad);
    if (!bad) {
        printf("\nnothing is wrong here\n");
        return GT_OK;
    }
    return gt_fail(GT_UNSUPPORTED, "%d thing%s wrong, %d right; each line above has its fix", bad,
                   bad == 1 ? " is" : "s are", good);
}
