/* SPDX-License-Identifier: MIT */
/* host/sync/compressors.c - the table of compressors. */
#include "host/sync/compressor.h"

#include <stdio.h>
#include <string.h>

/* The first is the usual one. */
static const sync_compressor *const compressors[] = { &sync_compress_none, &sync_compress_bf16, NULL };

const sync_compressor *sync_compressor_at(int i)
{
    return compressors[i];
}

const sync_compressor *sync_compressor_find(const char *name)
{
    for (int i = 0; compressors[i]; i++)
        if (!strcmp(compressors[i]->name, name))
            return compressors[i];
    return NULL;
}

const char *sync_compressor_name(const sync_compressor *c)
{
    return c->name;
}

const char *sync_compressor_help(const sync_compressor *c)
{
    return c->help;
}

int sync_compressor_changes(const sync_compressor *c)
{
    return c->encode != NULL;
}

void sync_compressor_names(char *out)
{
    size_t used = 0;
    for (int i = 0; compressors[i]; i++)
        used += (size_t)snprintf(out + used, SYNC_NAMES - used, "%s%s", i ? "|" : "", compressors[i]->name);
}
