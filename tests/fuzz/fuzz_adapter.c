/* SPDX-License-Identifier: MIT */
/* tests/fuzz/fuzz_adapter.c - no bytes make an adapter_config.json crash its reader, and what is taken of one can
 * be computed: a rank, a factor, names. */
#include "tests/fuzz/fuzz.h"

#include "models/lora.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SEED(text) { text, sizeof(text) - 1 }

const fuzz_seed fuzz_seeds[] = {
    SEED("{\"peft_type\": \"LORA\", \"r\": 8, \"lora_alpha\": 16, \"target_modules\": [\"c_attn\"]}"),
    SEED("{\"peft_type\": \"LORA\", \"r\": 4, \"lora_alpha\": 0.5, \"lora_dropout\": 0.1, \"target_modules\":"
         " [\"q_proj\", \"v_proj\"], \"bias\": \"none\", \"fan_in_fan_out\": false, \"use_dora\": true, \"use_rslora\":"
         " true, \"modules_to_save\": null, \"rank_pattern\": {}, \"alpha_pattern\": {}, \"init_lora_weights\": true,"
         " \"task_type\": \"CAUSAL_LM\", \"base_model_name_or_path\": \"gpt2\", \"peft_version\": \"0.21.2\"}"),
    SEED(
        "{\"peft_type\": \"LORA\", \"r\": 1, \"lora_alpha\": 1, \"target_modules\": [\"query\"], \"modules_to_save\": [\"cls\", \"score\"]}"),
    SEED("{\"peft_type\": \"LORA\", \"r\": 1, \"lora_alpha\": 1, \"target_modules\": \"all-linear\"}"),
};
const size_t fuzz_seed_count = sizeof fuzz_seeds / sizeof *fuzz_seeds;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char folder[64], path[96];
    model_config c;
    const model_tuning t0 = { 0 }, *t = &c.tuning;
    snprintf(folder, sizeof folder, "/tmp/fuzz-adapter-%ld", (long)getpid());
    snprintf(path, sizeof path, "%s/adapter_config.json", folder);
    mkdir(folder, 0700);
    FILE *file = fopen(path, "wb");
    if (!file || (size && fwrite(data, 1, size, file) != size) || fclose(file))
        abort();
    if (model_config_load(&c, "bert-tiny"))
        abort();
    c.tuning = t0;
    if (!model_folder_check(folder))
        abort();                        /* a folder with this file is never a model */
    if (!lora_read(&c, folder)
        && (t->rank < 1 || t->rank > 4096 || !(lora_scale(t) > 0.0f) || !isfinite(lora_scale(t)) || !t->targets[0]
            || !(t->dropout >= 0.0f && t->dropout <= 1.0f)))
        abort();
    unlink(path);
    rmdir(folder);
    return 0;
}
