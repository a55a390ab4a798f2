/* SPDX-License-Identifier: MIT */
/* tests/fuzz/fuzz_config.c - no bytes make a model's description crash, and one that is taken
 * can be built on, written and read again. */
#include "tests/fuzz/fuzz.h"

#include "models/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A checkpoint of llama2.c's: dim 2, hidden 1, 1 layer, 1 head, 1 of keys, 1 token, 1
 * position; 32 numbers of fp32 behind them. */
static const char llama2c[4 * (7 + 32)] = { 2, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1 };

#define SEED(text) { text, sizeof(text) - 1 }

const fuzz_seed fuzz_seeds[] = {
    SEED("{\"n_layer\": 2, \"n_head\": 2, \"n_embd\": 64}"),
    SEED("{\"model_type\": \"gpt2\", \"name\": \"x\", \"n_layer\": 3, \"n_head\": 4, \"n_embd\": 64,"
         " \"n_inner\": null, \"n_positions\": 64, \"vocab_size\": 65, \"activation_function\":"
         " \"gelu_new\", \"layer_norm_epsilon\": 1e-5, \"embd_pdrop\": 0.1, \"attn_pdrop\": 0.1,"
         " \"resid_pdrop\": 0.1, \"initializer_range\": 0.02, \"tie_word_embeddings\": true}"),
    SEED("{\"name\": \"012345678901234567890123456789012345678901234567890123456789012\u00e9\","
         " \"n_layer\": 1, \"n_head\": 1, \"n_embd\": 8, \"vocab_size\": 3}"),
    SEED("{\"program\": \"geartrain\", \"model\": {\"n_layer\": 1, \"n_head\": 1, \"n_embd\": 8,"
         " \"vocab_size\": 268435456, \"n_positions\": 268435456}, \"options\": {}}"),
    SEED("{\"model_type\": \"qwen3\", \"hidden_size\": 24, \"intermediate_size\": 37, \"num_hidden_layers\": 2,"
         " \"num_attention_heads\": 3, \"num_key_value_heads\": 1, \"head_dim\": 6, \"vocab_size\": 9,"
         " \"sliding_window\": null, \"layer_types\": [\"full_attention\", \"sliding_attention\"],"
         " \"rope_parameters\": {\"rope_type\": \"yarn\", \"rope_theta\": 1e6, \"factor\": 4.0}}"),
    SEED("{\"model_type\": \"llama\", \"hidden_size\": 32, \"intermediate_size\": 37, \"num_hidden_layers\": 2,"
         " \"num_attention_heads\": 4, \"vocab_size\": 9, \"rope_theta\": 1e4, \"rope_scaling\": {\"type\":"
         " \"llama3\", \"factor\": 8, \"low_freq_factor\": 1.0, \"high_freq_factor\": 4.0}}"),
    { llama2c, sizeof llama2c },
};
const size_t fuzz_seed_count = sizeof fuzz_seeds / sizeof *fuzz_seeds;

static void put(const char *path, const void *data, size_t size)
{
    FILE *file = fopen(path, "wb");
    if (!file || (size && fwrite(data, 1, size, file) != size) || fclose(file))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char path[64];
    model_config c, back;
    char *text;
    snprintf(path, sizeof path, "/tmp/fuzz-config-%ld", (long)getpid());
    put(path, data, size);
    if (!model_config_load(&c, path)) {
        if (model_parameters(&c) <= 0 || (!strcmp(c.family, "gpt2") && c.channels % c.heads)
            || model_config_json(&text, &c))
            abort();
        put(path, text, strlen(text));
        /* A vocabulary left open is written as 0, which is not a size. */
        if (c.vocab_given
            && (model_config_load(&back, path) || back.channels != c.channels || back.vocab != c.vocab
                || back.inner != c.inner))
            abort();
        free(text);
    }
    unlink(path);
    return 0;
}
