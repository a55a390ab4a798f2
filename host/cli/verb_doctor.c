/* host/cli/verb_doctor.c - what is wrong with this machine's OpenCL or network, in sentences,
 * with the fix. OpenCL's part is doctor_opencl.c, the network's doctor_net.c and doctor_verbs.c. */
#include "host/cli/cli.h"
#include "host/cli/cli_net.h"
#include "host/cli/doctor.h"
#include "host/cli/doctor_verbs.h"

#include "host/base/file.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const gt_option table[] = { { 0 } };

static const cli_help help = {
    "doctor", "Say what is wrong with this machine's OpenCL or network, and the fix.", NULL };

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

static void check_cache(void)
{
    char *folder;
    if (gt_cache_folder(&folder, "programs")) {
        doctor_bad("make it writable, or name another folder in GEARTRAIN_CACHE", "%s", gt_message());
        return;
    }
    if (access(folder, W_OK) == 0)
        doctor_good("programs are kept in %s", folder);
    else
        doctor_bad("make it writable, or name another folder in GEARTRAIN_CACHE",
                "%s cannot be written: %s", folder, strerror(errno));
    free(folder);
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
    doctor_opencl();
    check_cache();
    doctor_net(doctor_good, doctor_bad);
    doctor_verbs(doctor_good, doctor_bad);
    if (!bad) {
        printf("\nnothing is wrong here\n");
        return GT_OK;
    }
    return gt_fail(GT_UNSUPPORTED, "%d thing%s wrong, %d right; each line above has its fix", bad,
                   bad == 1 ? " is" : "s are", good);
}
