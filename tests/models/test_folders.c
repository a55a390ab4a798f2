/* SPDX-License-Identifier: MIT */
/* tests/models/test_folders.c - weights that come and go: Hugging Face's folders, what in them is refused, parts of
 * a model that take what is theirs, and llama2.c's files. */
#include "tests/check.h"

#include "host/base/file.h"
#include "host/base/log.h"
#include "host/tensor/safetensors.h"
#include "models/model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct place {
    dev_device *device;
    graph *graph;
    params *params;
} place;

static int place_open(place *p, const model_config *c)
{
    memset(p, 0, sizeof *p);
    return CHECK_OK(dev_open(&p->device, getenv("GT_TEST_DEVICE")))
           && CHECK_OK(graph_create(&p->graph, DTYPE_F32, 1, 1)) && CHECK_OK(model_build_loss(p->graph, c, 0, 0))
           && CHECK_OK(params_create(&p->params, p->device, p->graph, 0));
}

static void place_close(place *p)
{
    params_release(p->params);
    graph_release(p->graph);
    dev_close(p->device);
}

static void export_comes_back(int untied)
{
    const model_config c = {
        .family = "gpt2",
        .name = "small",
        .layers = 2,
        .heads = 2,
        .channels = 24,
        .inner = 40,
        .context = 9,
        .vocab = 31,
        .eps = 1e-5f,
        .init_deviation = 0.02f,
        .untied_head = untied
    };
    char *folder = gt_path_join(check_folder(), "exported");
    model_config back;
    place a, b;
    if (place_open(&a, &c) && CHECK_OK(params_init(a.params, 5))
        && CHECK_OK(model_export(&c, a.params, DTYPE_F32, folder)) && CHECK_OK(model_config_load(&back, folder))
        && place_open(&b, &back)) {
        CHECK_OK(model_import(&back, b.params, folder));
        for (int i = 0; i < params_count(a.params); i++) {
            const size_t n = (size_t)shape_count(&params_info(a.params, i)->shape);
            float *x = malloc(4 * n), *y = malloc(4 * n);
            CHECK_OK(params_read(a.params, i, x));
            CHECK_OK(params_read(b.params, i, y));
            CHECKF(!memcmp(x, y, 4 * n), "tensor '%s'", params_info(a.params, i)->name);
            free(x);
            free(y);
        }
        model_config other = back;
        other.layers = 1;
        CHECK_FAILS(model_import(&other, b.params, folder), GT_MISMATCH, "of a layer the model");
        place_close(&b);
    }
    place_close(&a);
    free(folder);
}

static void exports_come_back(void)
{
    export_comes_back(0);
}

/* As transformers names it, outside of what it calls the transformer. */
static void a_head_of_its_own_comes_back(void)
{
    st_file *f = NULL;
    export_comes_back(1);
    char *folder = gt_path_join(check_folder(), "exported");
    if (CHECK_OK(st_open(&f, folder)))
        CHECK(st_find(f, "lm_head.weight") && st_find(f, "transformer.wte.weight")
              && !st_find(f, "transformer.lm_head.weight"));
    st_close(f);
    free(folder);
}

/* Units 2 and 3 of 4, and of those a slice of one matrix made by hand: a file holds it transposed. */
static void parts_take_what_is_theirs(void)
{
    const model_config c = {
        .family = "gpt2",
        .name = "small",
        .layers = 2,
        .heads = 2,
        .channels = 24,
        .inner = 40,
        .context = 9,
        .vocab = 31,
        .eps = 1e-5f,
        .init_deviation = 0.02f
    };
    const graph_part part = { .first_unit = 2, .units = 2 };
    const tensor_slice cut = { .dim = 0, .parts = 3, .full = 24, .begin = 5, .count = 7 };
    const char *name = "h.0.attn.c_attn.weight";
    char *folder = gt_path_join(check_folder(), "whole");
    place whole = { 0 }, some = { 0 }, slice = { 0 };
    static float full[72 * 24], held[21 * 24];
    float x[24 * 40], y[24 * 40];
    if (place_open(&whole, &c) && CHECK_OK(params_init(whole.params, 8))
        && CHECK_OK(model_export(&c, whole.params, DTYPE_F32, folder))
        && CHECK_OK(dev_open(&some.device, getenv("GT_TEST_DEVICE")))
        && CHECK_OK(graph_create(&some.graph, DTYPE_F32, 1, 1))
        && CHECK_OK(model_build_part(some.graph, &c, &part, 0, 0))
        && CHECK_OK(params_create(&some.params, some.device, some.graph, 0))) {
        CHECK_OK(model_import(&c, some.params, folder));
        CHECK(params_find(some.params, "h.0.ln_1.weight") < 0);
        CHECK(params_find(some.params, "wte.weight") >= 0);
        for (int i = 0; i < params_count(some.params); i++) {
            const graph_param_info *info = params_info(some.params, i);
            const size_t n = (size_t)shape_count(&info->shape) < 24 * 40 ? (size_t)shape_count(&info->shape) : 24 * 40;
            const int same = params_find(whole.params, info->name);
            CHECK_OK(dev_read(whole.device, params_master(whole.params, same), 0, x, 4 * n));
            CHECK_OK(dev_read(some.device, params_master(some.params, i), 0, y, 4 * n));
            CHECKF(!memcmp(x, y, 4 * n), "tensor '%s'", info->name);
        }
    }
    if (CHECK_OK(dev_open(&slice.device, getenv("GT_TEST_DEVICE")))
        && CHECK_OK(graph_create(&slice.graph, DTYPE_F32, 1, 1))
        && graph_param_sliced(slice.graph, name, shape_of(2, (int64_t)72, (int64_t)24), &cut, GRAPH_INIT_ZERO, 0.0f)
               >= 0
        && CHECK_OK(params_create(&slice.params, slice.device, slice.graph, 0))) {
        CHECK_OK(model_import(&c, slice.params, folder));
        CHECK_OK(params_read(slice.params, 0, held));
        CHECK_OK(params_read(whole.params, params_find(whole.params, name), full));
        for (int row = 0; row < 21; row++)
            CHECKF(!memcmp(held + 24 * row, full + 24 * (row / 7 * 24 + 5 + row % 7), 24 * 4), "row %d", row);
        CHECK_FAILS(model_export(&c, slice.params, DTYPE_F32, folder), GT_MISUSE, "only a slice");
        /* Held or not, what the file lacks is missed. */
        model_config more = c;
        more.layers = 3;
        CHECK_FAILS(model_import(&more, slice.params, folder), GT_MISMATCH, "'h.2.ln_1.weight' is");
    }
    place_close(&slice);
    place_close(&some);
    place_close(&whole);
    free(folder);
}

/* Copies FROM/model.safetensors to the folder TO without tensor `drop`, and with one more, `add`: the
 * numbers of wte.weight, stored as `type`, the last of them greater by `more`. NULL: none. */
static void change_folder(const char *to, const char *from, const char *drop, const char *add, dtype type, float more)
{
    char *whole = gt_path_join(to, "model.safetensors");
    st_file *f = NULL;
    st_writer *w = NULL;
    CHECK_OK(gt_folder_make(to));
    CHECK_OK(st_open(&f, from));
    CHECK_OK(st_writer_open(&w, whole));
    const st_tensor *wte = st_find(f, "transformer.wte.weight");
    const size_t n = wte->bytes / sizeof(float);
    for (size_t i = 0; i < st_count(f); i++)
        if (!drop || strcmp(st_at(f, i)->name, drop))
            CHECK_OK(st_writer_add(w, st_at(f, i)->name, st_at(f, i)->type, &st_at(f, i)->dims));
    if (add)
        CHECK_OK(st_writer_add(w, add, type, &wte->dims));
    CHECK_OK(st_writer_begin(w));
    for (size_t i = 0; i < st_count(f); i++)
        if (!drop || strcmp(st_at(f, i)->name, drop))
            CHECK_OK(st_writer_put(w, st_at(f, i)->data, st_at(f, i)->bytes));
    if (add) {
        void *x = malloc(n * dtype_size(type));
        for (size_t i = 0; i < n; i++)
            dtype_store(type, x, i, dtype_load(DTYPE_F32, wte->data, i) + (i + 1 == n ? more : 0.0f));
        CHECK_OK(st_writer_put(w, x, n * dtype_size(type)));
        free(x);
    }
    CHECK_OK(st_writer_commit(w));
    st_close(f);
    free(whole);
}

/* Every name behind what wrappers of the model put there. */
static void wrap_folder(const char *to, const char *from, const char *wrapper)
{
    char *whole = gt_path_join(to, "model.safetensors"), name[128];
    st_file *f = NULL;
    st_writer *w = NULL;
    CHECK_OK(gt_folder_make(to));
    CHECK_OK(st_open(&f, from));
    CHECK_OK(st_writer_open(&w, whole));
    for (size_t i = 0; i < st_count(f); i++) {
        snprintf(name, sizeof name, "%s%s", wrapper, st_at(f, i)->name);
        CHECK_OK(st_writer_add(w, name, st_at(f, i)->type, &st_at(f, i)->dims));
    }
    CHECK_OK(st_writer_begin(w));
    for (size_t i = 0; i < st_count(f); i++)
        CHECK_OK(st_writer_put(w, st_at(f, i)->data, st_at(f, i)->bytes));
    CHECK_OK(st_writer_commit(w));
    st_close(f);
    free(whole);
}

/* A head that is the embedding is no news, alone it is the embedding; any other is refused, and so is
 * whatever else would have to be computed. */
static void no_tensor_is_left_aside_in_silence(void)
{
    const model_config c = {
        .family = "gpt2",
        .name = "small",
        .layers = 2,
        .heads = 2,
        .channels = 24,
        .inner = 40,
        .context = 9,
        .vocab = 31,
        .eps = 1e-5f,
        .init_deviation = 0.02f
    };
    static const struct {
        const char *drop, *add;
        dtype type;
        float more;
        gt_status code;
        const char *says;
    } cases[] = {
        { NULL, "lm_head.weight", DTYPE_F32, 0.0f, GT_OK, NULL },
        { NULL, "lm_head.weight", DTYPE_F64, 0.0f, GT_OK, NULL },
        { "transformer.wte.weight", "lm_head.weight", DTYPE_F32, 0.0f, GT_OK, NULL },
        { NULL, "transformer.h.1.attn.masked_bias", DTYPE_F32, 0.0f, GT_OK, NULL },
        { NULL, "h.0.attn.bias", DTYPE_F32, 0.0f, GT_OK, NULL },
        { NULL, "lm_head.weight", DTYPE_F32, 1e-3f, GT_MISMATCH, "'lm_head.weight' holds other numbers" },
        { NULL, "lm_head.weight", DTYPE_F64, 1e-3f, GT_MISMATCH, "let it say \"tie_word_embeddings\": false" },
        { "transformer.wte.weight", NULL, DTYPE_F32, 0.0f, GT_MISMATCH, "'wte.weight' is missing" },
        { NULL, "wte.weight", DTYPE_F32, 0.0f, GT_MISMATCH, "both 'transformer.wte.weight' and 'wte.weight'" },
        { NULL, "lm_head.bias", DTYPE_F32, 0.0f, GT_UNSUPPORTED, "'lm_head.bias' of" },
        { NULL, "transformer.h.0.attn.c_attn.lora_A.weight", DTYPE_F32, 0.0f, GT_UNSUPPORTED, "no part of" },
        { NULL, "transformer.h.1.crossattention.c_attn.weight", DTYPE_F32, 0.0f, GT_UNSUPPORTED, "crossatt" },
        { NULL, "transformer.h.2.ln_1.weight", DTYPE_F32, 0.0f, GT_MISMATCH, "of a layer the model, with 2" },
        { NULL, "h", DTYPE_F32, 0.0f, GT_UNSUPPORTED, "tensor 'h'" },
    };
    char *folder = gt_path_join(check_folder(), "tied"), *other = gt_path_join(check_folder(), "changed");
    place a, b;
    if (place_open(&a, &c) && CHECK_OK(params_init(a.params, 5))
        && CHECK_OK(model_export(&c, a.params, DTYPE_F32, folder)) && place_open(&b, &c)) {
        float x[31 * 24], y[31 * 24];
        CHECK_OK(params_read(a.params, params_find(a.params, "wte.weight"), x));
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            change_folder(other, folder, cases[i].drop, cases[i].add, cases[i].type, cases[i].more);
            CHECK_OK(params_init(b.params, 6));
            CHECK_FAILS(model_import(&c, b.params, other), cases[i].code, cases[i].says);
            CHECK_OK(params_read(b.params, params_find(b.params, "wte.weight"), y));
            CHECKF(cases[i].code || !memcmp(x, y, sizeof x), "case %zu", i);
        }
        static const char *const wrappers[] = { "module.", "_orig_mod.module.", "base_model.model." };
        for (size_t i = 0; i < sizeof wrappers / sizeof *wrappers; i++) {
            wrap_folder(other, folder, wrappers[i]);
            CHECK_OK(params_init(b.params, 6));
            CHECK_OK(model_import(&c, b.params, other));
            CHECK_OK(params_read(b.params, params_find(b.params, "wte.weight"), y));
            CHECKF(!memcmp(x, y, sizeof x), "behind '%s'", wrappers[i]);
        }
        wrap_folder(other, folder, "their.");
        CHECK_FAILS(model_import(&c, b.params, other), GT_UNSUPPORTED, "tensor 'their.");
        /* Where the description says that it is another, it is another. */
        model_config untied = c;
        place own;
        untied.untied_head = 1;
        change_folder(other, folder, NULL, "lm_head.weight", DTYPE_F32, 1e-3f);
        if (place_open(&own, &untied)) {
            CHECK_OK(model_import(&untied, own.params, other));
            CHECK_OK(params_read(own.params, params_find(own.params, "lm_head.weight"), y));
            CHECK(!memcmp(x, y, sizeof x - sizeof *x) && y[31 * 24 - 1] == x[31 * 24 - 1] + 1e-3f);
            CHECK_OK(params_read(own.params, params_find(own.params, "wte.weight"), y));
            CHECK(!memcmp(x, y, sizeof x));
            CHECK_FAILS(model_import(&untied, own.params, folder), GT_MISMATCH, "'lm_head.weight' is missing");
            change_folder(other, folder, "transformer.wte.weight", "lm_head.weight", DTYPE_F32, 0.0f);
            CHECK_FAILS(model_import(&untied, own.params, other), GT_MISMATCH, "'wte.weight' is missing");
        }
        place_close(&own);
        change_folder(other, folder, NULL, "score.weight", DTYPE_F32, 0.0f);
        const unsigned before = gt_log_warnings();
        check_allow_warnings();
        CHECK_OK(model_import(&c, b.params, other));
        CHECK(gt_log_warnings() == before + 1);
        place_close(&b);
    }
    place_close(&a);
    free(folder);
    free(other);
}

/* Files of sizes that their first numbers do not give, of newer versions, and a small right one. */
static void llama2c_files_are_known_by_their_size(void)
{
    enum { C = 4, I = 6, L = 1, V = 5, T = 3, N = V * C + L * (2 * C + 4 * C * C + 3 * C * I) + C + T * C / 2 };
    static int32_t file[7 + N + V * C] = { C, I, L, 2, 2, V, T };
    char *path = gt_path_join(check_folder(), "small.bin");
    model_config c;
    CHECK_OK(gt_file_write(path, file, 4 * (7 + N)));
    CHECK_OK(model_config_load(&c, path));
    CHECK(!strcmp(c.family, "llama") && c.layers == L && c.vocab == V && c.inner == I && !c.untied_head);
    file[5] = -V;
    CHECK_OK(gt_file_write(path, file, 4 * (7 + N + V * C)));
    CHECK_OK(model_config_load(&c, path));
    CHECK(c.vocab == V && c.untied_head);
    CHECK_OK(gt_file_write(path, file, 4 * (7 + N)));
    CHECK_FAILS(model_config_load(&c, path), GT_FORMAT, "it has");
    file[0] = 0x616b3432;
    file[1] = 1;
    CHECK_OK(gt_file_write(path, file, sizeof file));
    CHECK_FAILS(model_config_load(&c, path), GT_UNSUPPORTED, "of version 1");
    free(path);
}

static void an_adapter_is_called_what_it_is(void)
{
    static const char lora[] = "{\"peft_type\": \"LORA\", \"base_model_name_or_path\": \"gpt2\"}";
    static const char prefix[] = "{\"peft_type\": \"PREFIX_TUNING\", \"base_model_name_or_path\": \"x/y\"}";
    char *folder = gt_path_join(check_folder(), "adapter");
    CHECK_OK(gt_folder_make(folder));
    char *path = gt_path_join(folder, "adapter_config.json");
    model_config c;
    CHECK_OK(model_folder_check(folder));
    CHECK_OK(gt_file_write(path, lora, sizeof lora - 1));
    CHECK_FAILS(model_config_load(&c, folder), GT_UNSUPPORTED, "a LoRA adapter, not a model of its own");
    CHECK_FAILS(model_folder_check(folder), GT_UNSUPPORTED, "the weights of 'gpt2'; name that model here");
    CHECK_OK(gt_file_write(path, prefix, sizeof prefix - 1));
    CHECK_FAILS(model_folder_check(folder), GT_UNSUPPORTED, "a peft adapter");
    CHECK_OK(gt_file_write(path, "[", 1));
    CHECK_FAILS(model_folder_check(folder), GT_UNSUPPORTED, "an adapter");
    free(path);
    free(folder);
}

static void a_folder_of_theirs_is_read(void)
{
    model_config c;
    place p;
    const char *shared = check_shared("reference/tiny_gpt2_hf");
    if (!shared) {
        check_skip("no reference/tiny_gpt2_hf");
        return;
    }
    char *folder = strdup(shared);
    if (CHECK_OK(model_config_load(&c, folder))) {
        CHECK(c.channels == 2);
        if (place_open(&p, &c) && CHECK_OK(model_import(&c, p.params, folder))) {
            float gain[2];
            CHECK_OK(params_read(p.params, params_find(p.params, "ln_f.weight"), gain));
            CHECK(isfinite(gain[0]) && isfinite(gain[1]));
        }
        place_close(&p);
    }
    free(folder);
}

const check_case check_cases[] = {
    CASE(exports_come_back),
    CASE(a_head_of_its_own_comes_back),
    CASE(parts_take_what_is_theirs),
    CASE(no_tensor_is_left_aside_in_silence),
    CASE(llama2c_files_are_known_by_their_size),
    CASE(an_adapter_is_called_what_it_is),
    CASE(a_folder_of_theirs_is_read),
    { 0 }
};
