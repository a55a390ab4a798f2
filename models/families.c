/* SPDX-License-Identifier: MIT */
/* models/families.c - the families of models that this program knows. */
#include "models/bert.h"
#include "models/family.h"
#include "models/gpt2.h"
#include "models/llama.h"

const model_family *const model_families[] = {
    &gpt2_family,  &bert_family,  &roberta_family, &llama_family, &mistral_family,
    &qwen2_family, &qwen3_family, &gemma_family,   NULL
};
