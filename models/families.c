/* SPDX-License-Identifier: MIT */
/* models/families.c - the families of models that this program knows. */
#include "models/family.h"
#include "models/gpt2.h"

const model_family *const model_families[] = { &gpt2_family, NULL };
