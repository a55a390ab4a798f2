/* SPDX-License-Identifier: MIT */
/* net/collective/types.c - element types, and equal parts. */
#include "net/collective/collective.h"

#include <string.h>

static const struct {
    net_type type;
    const char *name;
    size_t size;
} rows[] = { { NET_F32, "f32", 4 }, { NET_BF16, "bf16", 2 }, { NET_F16, "f16", 2 }, { NET_I32, "i32", 4 } };
enum { ROWS = sizeof rows / sizeof *rows };

size_t net_type_size(net_type t)
{
    for (int i = 0; i < ROWS; i++)
        if (rows[i].type == t)
            return rows[i].size;
    return 0;
}

const char *net_type_name(net_type t)
{
    for (int i = 0; i < ROWS; i++)
        if (rows[i].type == t)
            return rows[i].name;
    return "unknown";
}

gt_status net_type_parse(net_type *out, const char *name)
{
    for (int i = 0; i < ROWS; i++)
        if (!strcmp(rows[i].name, name)) {
            *out = rows[i].type;
            return GT_OK;
        }
    return gt_fail(GT_MISUSE, "there is no type '%s'; there are f32, bf16, f16 and i32", name);
}

/* The first n % p parts have one element more. */
void net_part(uint64_t n, int p, int i, uint64_t *begin, uint64_t *size)
{
    const uint64_t parts = (uint64_t)p, index = (uint64_t)i, each = n / parts, more = n % parts;
    *begin = index * each + (index < more ? index : more);
    *size = each + (index < more);
}
