/* SPDX-License-Identifier: MIT */
/* host/gemm/onednn_api.c - the library's functions, each looked up by its name. */
#include "host/gemm/onednn_api.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define TEXT(x) #x
#define TEXT_OF(x) TEXT(x)
#define LIBRARY "libdnnl.so." TEXT_OF(DNNL_VERSION_MAJOR)

static onednn_api library;
static char missing[256];
const onednn_api *const onednn = &library;

static void load(void)
{
    const struct {
        const char *name;
        void *target;
        int optional;
    } symbols[] = {
#define SYMBOL(name) { "dnnl_" #name, &library.name, 0 },
        ONEDNN_FUNCTIONS(SYMBOL)
#undef SYMBOL
            { "omp_get_max_threads", &library.most_threads, 1 },
        { "omp_set_num_threads", &library.set_threads, 1 },
    };
    void *handle = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (!handle)
        snprintf(missing, sizeof missing, "%s does not load; install the package libdnnl%d", LIBRARY,
                 DNNL_VERSION_MAJOR);
    for (size_t i = 0; handle && i < sizeof symbols / sizeof *symbols; i++) {
        void *symbol = dlsym(handle, symbols[i].name);
        if (!symbol && !symbols[i].optional && !missing[0])
            snprintf(missing, sizeof missing, "%s has no '%s'; install version %d.%d or later", LIBRARY,
                     symbols[i].name, DNNL_VERSION_MAJOR, DNNL_VERSION_MINOR);
        memcpy(symbols[i].target, &symbol, sizeof symbol);
    }
}

int onednn_load(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, load);
    return !missing[0];
}

const char *onednn_missing(void)
{
    return onednn_load() ? NULL : missing;
}
