/* SPDX-License-Identifier: MIT */
/* host/tensor/activation.c - see activation.h. */
#include "host/tensor/activation.h"

static const struct {
    const char *name, *option;
} rows[] = { { "none", "" },
#define ROW(constant, name, option) { #name, option },
             ACTIVATIONS(ROW)
#undef ROW
};

const char *activation_name(activation a)
{
    return rows[a].name;
}

const char *activation_option(activation a)
{
    return rows[a].option;
}
