/* SPDX-License-Identifier: MIT */
/* host/cli/doctor_opencl.c - what the doctor says of OpenCL.
 *
 *   ICD files  ->  the libraries they name  ->  platforms  ->  devices  ->  every probe
 *
 * Looked at in that order, each with its own way to fail: no .icd file at all, a library that
 * cannot be loaded or lacks another, a driver without a device, a render node without
 * permission, a device too old, a compiler that is missing, a result that is wrong.      */
#include "host/cli/doctor.h"

#include "host/base/file.h"
#include "host/base/text.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- drivers ---------------------------------------------------------------------------------- */

/* Whose file is it? The beginning of a library's name, and what brings it. */
static const struct {
    const char *soname, *package;
} packages[] = {
    { "libpocl.so", "pocl-opencl-icd" },
    { "libRusticlOpenCL.so", "mesa-opencl-icd" },
    { "libMesaOpenCL.so", "mesa-opencl-icd" },
    { "libigdrcl.so", "intel-opencl-icd" },
    { "libintelocl.so", "intel-opencl-rt (pip), or intel-oneapi-runtime-opencl" },
    { "libamdocl", "rocm-opencl-runtime" },
    { "libnvidia-opencl.so", "NVIDIA's driver (nvidia-opencl-icd)" },
    { "libimf.so", "intel-cmplr-lib-rt (pip), or intel-oneapi-runtime-compilers" },
    { "libsvml.so", "intel-cmplr-lib-rt (pip), or intel-oneapi-runtime-compilers" },
    { "libirng.so", "intel-cmplr-lib-rt (pip), or intel-oneapi-runtime-compilers" },
    { "libirc.so", "intel-cmplr-lib-rt (pip), or intel-oneapi-runtime-compilers" },
    { "libintlc.so", "intel-cmplr-lib-rt (pip), or intel-oneapi-runtime-compilers" },
    { "libtbb", "tbb (pip), or libtbb12" },
    { "libOpenCL.so", "ocl-icd-libopencl1" },
    { "libLLVM-15", "libllvm15" },
    { "libLLVMSPIRVLib.so.15", "libllvmspirvlib15" },
};

static const char *package_of(const char *library)
{
    const char *slash = strrchr(library, '/'), *name = slash ? slash + 1 : library;
    for (size_t i = 0; i < sizeof packages / sizeof *packages; i++)
        if (!strncmp(name, packages[i].soname, strlen(packages[i].soname)))
            return packages[i].package;
    return NULL;
}

/* The library that the loader's sentence is about: "NAME: cannot open shared object file: ...". */
static void missing_library(char *out, size_t size, const char *reason)
{
    const char *end = strstr(reason, ": cannot open shared object file");
    snprintf(out, size, "%.*s", end ? (int)(end - reason) : 0, reason);
}

/* PREFIX/lib/NAME for an .icd file in PREFIX/etc/OpenCL/vendors, if it is there: Python packages
 * unpack so, with an .icd file that names a folder of whoever made them. */
static char *beside(const char *icd, const char *name)
{
    char prefix[1024], path[2048];
    const char *end = strstr(icd, "etc/OpenCL/vendors/");
    if (!end || end - icd >= (long)sizeof prefix)
        return NULL;
    snprintf(prefix, sizeof prefix, "%.*s", (int)(end - icd), icd);
    snprintf(path, sizeof path, "%slib/%s", prefix, name);
    return gt_path_exists(path) ? strdup(path) : NULL;
}

static void say_load_failure(const char *who, const char *library, const char *reason)
{
    char missing[512], fix[1400], folder[512];
    missing_library(missing, sizeof missing, reason);
    const int itself = !strcmp(missing, library) || !*missing;
    const char *package = package_of(itself ? library : missing), *slash = strrchr(library, '/');
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - library) : 0, library);
    char *near_by = itself && slash ? beside(who, slash + 1) : NULL;
    if (near_by)
        snprintf(fix, sizeof fix,
                 "the library is %s: set OCL_ICD_VENDORS to that, or write it into "
                 "%s",
                 near_by, who);
    else if (itself && *folder && !gt_path_is_folder(folder))
        snprintf(fix, sizeof fix,
                 "there is no folder %s: if %s lies elsewhere, write where into "
                 "the .icd file; else install %s, or remove the .icd file",
                 folder, slash + 1, package ? package : "the driver's package again");
    else if (itself)
        snprintf(fix, sizeof fix, "install %s, or remove the .icd file if the driver is gone",
                 package ? package : "the driver's package again");
    else
        snprintf(fix, sizeof fix,
                 "install %s%s%s; or, if it is there, add its folder to "
                 "LD_LIBRARY_PATH",
                 package ? package : "the package that has ", package ? ", which has " : "", missing);
    doctor_bad(fix, "%s names %s, which does not load: %s", who, library, reason);
    free(near_by);
}

/* What `who` names: a driver's library. The library stays loaded: some do not survive being
 * unloaded. */
static int check_library(const char *who, const char *library)
{
    if (!*library) {                    /* dlopen would take it for this program */
        doctor_bad("install the driver that it came with again, or remove the file",
                   "%s is empty: it "
                   "names no library",
                   who);
        return 0;
    }
    void *loaded = dlopen(library, RTLD_LAZY | RTLD_LOCAL);
    if (!loaded) {
        const char *reason = dlerror();
        say_load_failure(who, library, reason ? reason : "no reason given");
        return 0;
    }
    if (!dlsym(loaded, "clGetExtensionFunctionAddress")) {      /* what every loader asks for first */
        doctor_bad("name the driver's library there", "%s names %s, which loads but is no OpenCL driver", who, library);
        return 0;
    }
    doctor_good("%s names %s, which loads", who, library);
    return 1;
}

typedef struct drivers {
    int found, usable, hidden;
} drivers;

/* Variables by which drivers are told what to show; one that was set for another program hides all. */
static void say_no_device(void)
{
    static const char *const names[] = { "POCL_DEVICES",         "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES",
                                         "ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL",   "ONEAPI_DEVICE_SELECTOR",
                                         "ZE_AFFINITY_MASK" };
    int set = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (getenv(names[i])) {
            doctor_bad("unset it, or let it name a device that is here",
                       "%s is '%s': drivers load, but none "
                       "shows a device",
                       names[i], getenv(names[i]));
            set = 1;
        }
    if (!set)
        doctor_bad("a driver that loads and shows no device wants its hardware, its kernel module, or "
                   "permission: see the other lines",
                   "drivers load, but none shows a device");
}

/* One .icd file: its first line names a library that must load. */
static void check_icd(drivers *d, const char *path)
{
    char *text;
    d->found++;
    if (gt_file_read(&text, NULL, path, 65536)) {
        doctor_bad(gt_path_exists(path) ? "make the file readable" : "name a file that is there", "%s", gt_message());
        gt_message_clear();
        return;
    }
    text[strcspn(text, "\r\n")] = '\0';
    const char *enabled = getenv("RUSTICL_ENABLE");
    if (check_library(path, text)) {
        d->usable++;
        d->hidden += strstr(text, "Rusticl") && (!enabled || !*enabled);
    }
    free(text);
}

static void check_icd_folder(drivers *d, const char *folder)
{
    DIR *dir = opendir(folder);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        size_t n = strlen(e->d_name);
        if (n < 5 || strcmp(e->d_name + n - 4, ".icd"))
            continue;
        char *path = gt_path_join(folder, e->d_name);
        if (path)
            check_icd(d, path);
        free(path);
    }
    if (dir)
        closedir(dir);
    if (!d->found)
        doctor_bad("install a driver: `apt-get install pocl-opencl-icd` for any CPU, "
                   "mesa-opencl-icd or ROCm for AMD, intel-opencl-icd for Intel, the vendor's for "
                   "NVIDIA",
                   "there is no .icd file in %s, so no OpenCL driver is installed", folder);
}

/* OCL_ICD_VENDORS as ocl-icd reads it (libOpenCL(7)): a folder, one .icd file, or one library. */
static void check_vendors(drivers *d, const char *vendors, const char *folder)
{
    const size_t n = strlen(vendors);
    char *there = strchr(vendors, '/') ? NULL : gt_path_join(folder, vendors);
    if (gt_path_is_folder(vendors))
        check_icd_folder(d, vendors);
    else if (strchr(vendors, ':') && !gt_path_exists(vendors))
        doctor_bad("put one .icd file for each driver into a folder, and name the folder",
                   "OCL_ICD_VENDORS is '%s', but the loader takes no list there: it takes one folder, "
                   "one .icd file or one library",
                   vendors);
    else if (n > 4 && !strcmp(vendors + n - 4, ".icd"))
        check_icd(d, there && gt_path_exists(there) ? there : vendors);
    else
        d->usable += check_library("OCL_ICD_VENDORS", vendors);
    free(there);
}

static drivers check_drivers(void)
{
    const char *vendors = getenv("OCL_ICD_VENDORS"), *folder = getenv("OPENCL_VENDOR_PATH");
    drivers d = { 0 };
    folder = folder && *folder ? folder : "/etc/OpenCL/vendors";
    if (vendors && *vendors)
        check_vendors(&d, vendors, folder);
    else
        check_icd_folder(&d, folder);
    return d;
}

/* GPUs are reached through these files; a user outside the group is refused silently. */
static void check_render_nodes(void)
{
    DIR *dir = opendir("/dev/dri");
    int found = 0;
    for (struct dirent *e; dir && (e = readdir(dir));) {
        char path[300];
        if (strncmp(e->d_name, "renderD", 7))
            continue;
        snprintf(path, sizeof path, "/dev/dri/%s", e->d_name);
        found++;
        if (access(path, R_OK | W_OK) == 0)
            doctor_good("%s may be opened", path);
        else
            doctor_bad("add yourself to the group that owns it (`ls -l` shows it, most often render "
                       "or video): usermod -aG render $USER, and log in again",
                       "%s may not be opened: %s", path, strerror(errno));
    }
    if (dir)
        closedir(dir);
    if (gt_path_exists("/dev/kfd") && access("/dev/kfd", R_OK | W_OK) != 0)
        doctor_bad("usermod -aG render $USER, and log in again",
                   "/dev/kfd, which AMD's driver needs, may not be opened: %s", strerror(errno));
    if (!found)
        doctor_good("there are no render nodes, so no GPU but perhaps NVIDIA's; CPUs need none");
}

/* ---- devices ---------------------------------------------------------------------------------- */

typedef struct answers {
    const dev_info *device;
    int wrong;
} answers;

static void say_proof(void *context, const dev_proof *p)
{
    answers *a = context;
    const dev_info *i = a->device;
    switch (p->verdict) {
    case DEV_HOLDS: doctor_good("%s %s: %s", i->id, p->name, p->checks); break;
    case DEV_NO_CLOCK:
        doctor_bad("update its driver; until then it is timed by the host's clock, which counts the "
                   "time of a launch as well",
                   "%s (%s, driver %s) %s: %s", i->id, i->name, i->driver, p->name, p->found);
        break;
    case DEV_WRONG:
        a->wrong++;
        doctor_bad("update its driver, or take another device: this one computes wrongly without an "
                   "error, so it is refused",
                   "%s (%s, driver %s) %s: %s", i->id, i->name, i->driver, p->name, p->found);
    }
}

/* Its memory, its compiler and every probe; what follows needs all of them. */
static void check_device(const dev_info *i, int prove)
{
    dev_device *d = NULL;
    answers a = { .device = i };
    char bytes[32];
    if (i->opencl_major < 1 || (i->opencl_major == 1 && i->opencl_minor < 2)) {
        doctor_bad("update its driver; OpenCL 1.2 is the floor", "%s (%s) speaks only %s", i->id, i->name, i->version);
        return;
    }
    gt_status st = dev_open_unproven(&d, i->path);
    if (!st)
        st = dev_prove(d, say_proof, &a);
    dev_close(d);
    if (st)
        doctor_bad("update or reinstall its driver; the log above is the driver's own",
                   "%s (%s, driver %s) does not run a kernel: %s", i->id, i->name, i->driver, gt_message());
    else if (!a.wrong)
        doctor_good("%s (%s, driver %s, %s) compiles and runs kernels", i->id, i->name, i->driver,
                    gt_format_bytes(bytes, sizeof bytes, i->global_bytes));
    if (!st && !a.wrong && prove)
        doctor_prove_step(i);
}

void doctor_opencl(int prove)
{
    dev_info *all = NULL;
    int count = 0;
    const drivers d = check_drivers();
    check_render_nodes();
    if (d.usable && dev_find(&all, &count)) {
        gt_message_clear();
        if (d.hidden)
            doctor_bad("set RUSTICL_ENABLE to the drivers it shall show: llvmpipe (any CPU), radeonsi, "
                       "iris, nouveau, separated by commas",
                       "rusticl loads, but shows only what "
                       "RUSTICL_ENABLE names, and that is not set: there is no device");
        else
            say_no_device();
    } else if (d.usable && d.hidden)
        doctor_good("rusticl loads, and shows no device, since RUSTICL_ENABLE is not set: it would "
                    "name llvmpipe, radeonsi, iris, ...");
    for (int i = 0; all && i < count; i++)
        check_device(&all[i], prove);
    free(all);
}
