/* host/cli/verb_doctor.c - what is wrong with this machine's OpenCL or network, in sentences,
 * with the fix. The network's parts are doctor_net.c and doctor_verbs.c.
 *
 *   ICD files  ->  the libraries they name  ->  platforms  ->  devices  ->  a kernel that runs
 *
 * Looked at in that order, each with its own way to fail: no .icd file at all, a library
 * that cannot be loaded, a driver without a device, a render node without permission, a
 * device too old, a compiler that is missing, a result that is wrong.                    */
#include "host/cli/cli.h"
#include "host/cli/cli_net.h"
#include "host/cli/doctor_verbs.h"

#include "host/base/file.h"
#include "host/base/text.h"

#include <dirent.h>
#include <dlfcn.h>
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

static void say_good(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void say_bad(const char *fix, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void say_good(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    printf("ok    ");
    vprintf(format, args);
    printf("\n");
    va_end(args);
    good++;
}

static void say_bad(const char *fix, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    printf("BAD   ");
    vprintf(format, args);
    printf("\n      fix: %s\n", fix);
    va_end(args);
    bad++;
}

/* One .icd file: its first line names a library that must load. */
static int check_icd(const char *path)
{
    char *text, *error;
    if (gt_file_read(&text, NULL, path, 65536)) {
        say_bad("make the file readable", "%s", gt_message());
        return 0;
    }
    text[strcspn(text, "\r\n")] = '\0';
    void *library = dlopen(text, RTLD_LAZY | RTLD_LOCAL);
    if (!library) {
        error = dlerror();
        say_bad("install the driver's package again, or remove the .icd file if the driver is gone",
                "%s names %s, which does not load: %s", path, text, error ? error : "no reason given");
    } else {
        say_good("%s names %s, which loads", path, text);
        /* The library stays loaded: some drivers do not survive being unloaded. */
    }
    free(text);
    return library != NULL;
}

static int check_icd_files(void)
{
    const char *own = getenv("OCL_ICD_VENDORS");
    const char *folder = own && *own ? own : "/etc/OpenCL/vendors";
    int found = 0, usable = 0;
    if (own && *own && !gt_path_is_folder(own)) {
        say_good("OCL_ICD_VENDORS is %s: only that driver is looked at", own);
        return 1;
    }
    DIR *dir = opendir(folder);
    for (struct dirent *e; dir && (e = readdir(dir)); ) {
        size_t n = strlen(e->d_name);
        if (n < 5 || strcmp(e->d_name + n - 4, ".icd"))
            continue;
        char *path = gt_path_join(folder, e->d_name);
        found++;
        usable += path && check_icd(path);
        free(path);
    }
    if (dir)
        closedir(dir);
    if (!found)
        say_bad("install a driver: `apt-get install pocl-opencl-icd` for any CPU, "
                "mesa-opencl-icd or ROCm for AMD, intel-opencl-icd for Intel, the vendor's for "
                "NVIDIA", "there is no .icd file in %s, so no OpenCL driver is installed", folder);
    return usable;
}

/* GPUs are reached through these files; a user outside the group is refused silently. */
static void check_render_nodes(void)
{
    DIR *dir = opendir("/dev/dri");
    int found = 0;
    for (struct dirent *e; dir && (e = readdir(dir)); ) {
        char path[300];
        if (strncmp(e->d_name, "renderD", 7))
            continue;
        snprintf(path, sizeof path, "/dev/dri/%s", e->d_name);
        found++;
        if (access(path, R_OK | W_OK) == 0)
            say_good("%s may be opened", path);
        else
            say_bad("add yourself to the group that owns it (`ls -l` shows it, most often render or "
                    "video): usermod -aG render $USER, and log in again",
                    "%s may not be opened: %s", path, strerror(errno));
    }
    if (dir)
        closedir(dir);
    if (gt_path_exists("/dev/kfd") && access("/dev/kfd", R_OK | W_OK) != 0)
        say_bad("usermod -aG render $USER, and log in again",
                "/dev/kfd, which AMD's driver needs, may not be opened: %s", strerror(errno));
    if (!found)
        say_good("there are no render nodes, so no GPU but perhaps NVIDIA's; CPUs need none");
}

/* Adds two numbers on the device: compiler, queue and memory all work. */
static gt_status try_device(const dev_info *i, float *result)
{
    static const char *const text[] = {
        "__kernel void add(__global float *x) { x[0] = x[0] + x[1]; }\n" };
    const float x[2] = { 1.25f, 2.5f };
    dev_device *d = NULL;
    dev_program *p = NULL;
    dev_buffer *b = NULL;
    dev_list *l = NULL;
    gt_status st = dev_open(&d, i->path);
    if (!st)
        st = dev_program_build(&p, d, "doctor", text, 1, "");
    if (!st)
        st = dev_buffer_create(&b, d, sizeof x, "two numbers");
    if (!st)
        st = dev_write(d, b, 0, x, sizeof x);
    if (!st)
        st = dev_list_create(&l, d);
    const dev_arg arg = dev_arg_buffer(b);
    if (!st)
        st = dev_list_kernel(l, p, "add", dev_grid_1d(1, 1), &arg, 1);
    if (!st)
        st = dev_run(l, 0, -1);
    if (!st)
        st = dev_read(d, b, 0, result, sizeof *result);
    dev_list_release(l);
    dev_buffer_release(b);
    dev_program_release(p);
    dev_close(d);
    return st;
}

static void check_device(const dev_info *i)
{
    float result = 0.0f;
    char a[32];
    if (i->opencl_major < 1 || (i->opencl_major == 1 && i->opencl_minor < 2)) {
        say_bad("update its driver; OpenCL 1.2 is the floor", "%s (%s) speaks only %s", i->id,
                i->name, i->version);
        return;
    }
    if (try_device(i, &result))
        say_bad("update or reinstall its driver; the log above is the driver's own",
                "%s (%s) does not run a kernel: %s", i->id, i->name, gt_message());
    else if (result != 3.75f)
        say_bad("do not train on it; update its driver", "%s (%s) computes 1.25 + 2.5 = %g", i->id,
                i->name, (double)result);
    else
        say_good("%s (%s, driver %s, %s) compiles and runs kernels", i->id, i->name, i->driver,
                 gt_format_bytes(a, sizeof a, i->global_bytes));
}

static void check_cache(void)
{
    char *folder;
    if (gt_cache_folder(&folder, "programs")) {
        say_bad("make it writable, or name another folder in GEARTRAIN_CACHE", "%s", gt_message());
        return;
    }
    if (access(folder, W_OK) == 0)
        say_good("programs are kept in %s", folder);
    else
        say_bad("make it writable, or name another folder in GEARTRAIN_CACHE",
                "%s cannot be written: %s", folder, strerror(errno));
    free(folder);
}

gt_status verb_doctor(int argc, char **argv)
{
    char **words;
    int count, done;
    dev_info *all = NULL;
    gt_status st = cli_parse(table, &help, argc, argv, &words, &count, &done);
    if (st || done)
        return st;
    if (count)
        return gt_fail(GT_MISUSE, "doctor takes no words such as '%s'", words[0]);
    const int drivers = check_icd_files();
    check_render_nodes();
    if (drivers && dev_find(&all, &count))
        say_bad("see the lines above; a driver that loads and shows no device wants its hardware, "
                "its kernel module, or permission", "drivers load, but %s", gt_message());
    for (int i = 0; all && i < count; i++)
        check_device(&all[i]);
    free(all);
    check_cache();
    doctor_net(say_good, say_bad);
    doctor_verbs(say_good, say_bad);
    if (!bad) {
        printf("\nnothing is wrong here\n");
        return GT_OK;
    }
    return gt_fail(GT_UNSUPPORTED, "%d thing%s wrong, %d right; each line above has its fix", bad,
                   bad == 1 ? " is" : "s are", good);
}
