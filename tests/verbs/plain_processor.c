/* SPDX-License-Identifier: MIT */
/* tests/verbs/plain_processor.c - preloaded: hides AVX-512 from OpenCL drivers that ask LLVM what the
 * processor has.
 *
 * PoCL sizes vectors by the answer, whatever POCL_KERNELLIB_NAME says, so a host with AVX-512 and a guest
 * without it would be different devices, and share no compiled kernels. The name is
 * llvm::sys::getHostCPUFeatures(llvm::StringMap<bool> &); such a map begins as below, and an entry's
 * value follows its key's length, the key the whole entry (LLVM 9 to 16). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct entry {
    size_t length;
    bool has;
} entry;

typedef struct map {
    entry **table;
    unsigned buckets, items, removed, entry_bytes;
} map;

typedef bool (*ask)(map *m);

#define FEATURES _ZN4llvm3sys18getHostCPUFeaturesERNS_9StringMapIbNS_15MallocAllocatorEEE
#define TEXT(x) #x
#define NAME(x) TEXT(x)

bool FEATURES(map *m);

/* Drivers are loaded where the usual search does not see their libraries. */
static int find(struct dl_phdr_info *library, size_t size, void *real)
{
    (void)size;
    void *handle = strstr(library->dlpi_name, "libLLVM") ? dlopen(library->dlpi_name, RTLD_LAZY | RTLD_NOLOAD) : NULL;
    if (handle)
        *(void **)real = dlsym(handle, NAME(FEATURES));
    return handle != NULL;
}

bool FEATURES(map *m)
{
    ask real = NULL;
    dl_iterate_phdr(find, &real);
    if (!real || !real(m))
        return false;
    for (unsigned i = 0; i < m->buckets; i++) {
        entry *e = m->table[i];
        if (e && (uintptr_t)e < UINTPTR_MAX << 12 && !strncmp((const char *)e + m->entry_bytes, "avx512", 6))
            e->has = false;
    }
    return true;
}
