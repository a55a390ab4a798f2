/* SPDX-License-Identifier: MIT */
/* tests/train/test_checkpoint_pieces.c - what files say of pieces, written by hand: every form of it
 * that makes a tensor is read, and what makes none is refused with a sentence.            */
#include "tests/check.h"

#include "host/base/file.h"
#include "host/base/text.h"
#include "host/tensor/safetensors.h"
#include "host/train/checkpoint.h"

#include <stdlib.h>
#include <string.h>

/* One vector "v" of 6, as the files below hold it. */
typedef struct hand_file {
    const char *name, *pieces;
    int64_t count;                  /* stored elements: first, first + 1, ... */
    float first;
} hand_file;

static void write_by_hand(const char *folder, int format, const hand_file *files, int count)
{
    gt_text manifest = { 0 };
    CHECK_OK(gt_folder_make(folder));
    gt_text_printf(&manifest, "{\"format\": %d, \"step\": 1, \"seed\": 1, \"tokens\": 1, \"files\": [", format);
    for (int i = 0; i < count; i++) {
        char *path = gt_path_join(folder, files[i].name);
        st_writer *w = NULL;
        float x[8];
        gt_map map;
        const shape dims = shape_of(1, files[i].count);
        for (int k = 0; k < 8; k++)
            x[k] = files[i].first + (float)k;
        CHECK_OK(st_writer_open(&w, path));
        if (files[i].pieces)
            CHECK_OK(st_writer_metadata(w, "pieces", files[i].pieces));
        CHECK_OK(st_writer_add(w, "v", DTYPE_F32, &dims));
        CHECK_OK(st_writer_begin(w));
        CHECK_OK(st_writer_put(w, x, 4 * (size_t)files[i].count));
        CHECK_OK(st_writer_commit(w));
        CHECK_OK(gt_map_open(&map, path));
        gt_text_printf(&manifest, "%s{\"name\": \"%s\", \"bytes\": %zu, \"xxh3\": \"%016llx\"}", i ? ", " : "",
                       files[i].name, map.size, (unsigned long long)gt_hash(map.data, map.size));
        gt_map_close(&map);
        free(path);
    }
    gt_text_printf(&manifest, "]}");
    char *path = gt_path_join(folder, "manifest.json");
    CHECK_OK(gt_file_write(path, manifest.data, manifest.size));
    free(path);
    gt_text_release(&manifest);
}

static gt_status load_by_hand(params *p, const char *name, int format, const hand_file *files, int count)
{
    char *folder = gt_path_join(check_folder(), name), *path = NULL;
    checkpoint_info info;
    gt_folder_remove(folder);
    write_by_hand(folder, format, files, count);
    gt_status st = checkpoint_find(&path, &info, folder);
    if (!st)
        st = checkpoint_load(path, p, NULL, 0, NULL);
    free(path);
    free(folder);
    return st;
}

#define NOTE(slice, range) "{\"v\": {\"full\": [6], \"slice\": " slice ", \"range\": " range "}}"
#define SLICE(dim, parts, full, begin, count) \
    "{\"dim\": " #dim ", \"parts\": " #parts ", \"full\": " #full ", \"begin\": " #begin ", \"count\": " #count "}"

static void files_by_hand_are_read_or_refused(void)
{
    static const hand_file whole[] = { { "params.safetensors", NULL, 6, 0.0f } };
    /* Elements 0 1 2, 3 4 5; then of the slice 0 1 3 4 a range, and the rest. */
    static const hand_file ranges[] = {
        { "params-00000.safetensors", NOTE("null", "[0, 3]"), 3, 0.0f },
        { "params-00001.safetensors", NOTE("null", "[3, 6]"), 3, 3.0f },
    };
    static const hand_file both[] = {
        { "params-00000.safetensors", NOTE(SLICE(0, 2, 3, 0, 2), "[0, 2]"), 2, 0.0f },
        { "params-00001.safetensors", NOTE(SLICE(0, 2, 3, 0, 2), "[2, 4]"), 2, 3.0f },
        { "params-00002.safetensors", NOTE(SLICE(0, 6, 1, 0, 1), "[2, 3]"), 1, 2.0f },
        { "params-00003.safetensors", NOTE("null", "[5, 6]"), 1, 5.0f },
    };
    /* What is frozen lies in files of its own. */
    static const hand_file base[] = {
        { "params-00000.safetensors", NOTE("null", "[0, 3]"), 3, 0.0f },
        { "base-00001.safetensors", NOTE("null", "[3, 6]"), 3, 3.0f },
    };
    static const struct {
        const char *pieces;
        int64_t count;
        const char *part;
    } bad[] = {
        { "{", 6, "\"pieces\"" },
        { "{\"v\": 3}", 6, "makes no sense" },
        { "{\"v\": {\"full\": [6], \"slice\": null}}", 6, "makes no sense" },
        { "{\"v\": {\"full\": [6, 1, 1, 1, 1, 1], \"slice\": null, \"range\": [0, 6]}}", 6, "makes no sense" },
        { "{\"v\": {\"full\": [7], \"slice\": null, \"range\": [0, 6]}}", 6, "is fp32 (7), the model" },
        { "{\"v\": {\"full\": \"6\", \"slice\": null, \"range\": [0, 6]}}", 6, "makes no sense" },
        { NOTE("null", "[0, 7]"), 7, "makes no sense" },
        { NOTE("null", "[-1, 5]"), 6, "makes no sense" },
        { NOTE("null", "[4, 3]"), 6, "makes no sense" },
        { NOTE("null", "[0, 3]"), 4, "is fp32 (4), the model has fp32 (3)" },
        { NOTE("null", "[0, 3]"), 3, "3 elements of 6 are missing" },
        { "{\"v\": {\"full\": [6], \"slice\": null, \"range\": [0, 6], \"blocks\": true}}", 6, "is fp32 (6)" },
        { NOTE(SLICE(1, 2, 3, 0, 2), "[0, 4]"), 4, "makes no sense" },
        { NOTE(SLICE(-1, 2, 3, 0, 2), "[0, 4]"), 4, "makes no sense" },
        { NOTE(SLICE(0, -2, 3, 0, 2), "[0, 4]"), 4, "makes no sense" },
        { NOTE(SLICE(0, 2, 3, 2, 2), "[0, 4]"), 4, "makes no sense" },
        { NOTE(SLICE(0, 2, 3, 9223372036854775807, 2), "[0, 4]"), 4, "makes no sense" },
        { NOTE(SLICE(0, 2, 9223372036854775807, 0, 2), "[0, 4]"), 4, "makes no sense" },
        { NOTE(SLICE(0, 2, 3, 0, 9223372036854775807), "[0, 4]"), 4, "makes no sense" },
        { NOTE(SLICE(0, 2147483647, 3, 0, 2), "[0, 4]"), 4, "makes no sense" },
    };
    dev_device *d = NULL;
    graph *g = NULL;
    params *p = NULL;
    float x[6];
    if (CHECK_OK(dev_open(&d, getenv("GT_TEST_DEVICE"))) && CHECK_OK(graph_create(&g, DTYPE_F32, 1, 1))
        && graph_param(g, "v", shape_of(1, (int64_t)6), GRAPH_INIT_ZERO, 0.0f) >= 0
        && CHECK_OK(params_create(&p, d, g, 0))) {
        static const struct {
            const hand_file *files;
            int format, count;
        } good[] = {
            { whole, 1, 1 }, { whole, 2, 1 }, { ranges, 2, 2 }, { both, 2, 4 }, { base, 3, 2 },
        };
        for (int i = 0; i < 5; i++) {
            CHECK_OK(params_init(p, 1));
            CHECK_OK(params_write(p, 0, (float[6]){ 9, 9, 9, 9, 9, 9 }));
            CHECK_OK(load_by_hand(p, "good", good[i].format, good[i].files, good[i].count));
            CHECK_OK(params_read(p, 0, x));
            for (int k = 0; k < 6; k++)
                CHECKF(x[k] == (float)k, "files %d, element %d: %g", i, k, (double)x[k]);
        }
        CHECK_FAILS(load_by_hand(p, "later", 4, whole, 1), GT_FORMAT, "format 1 to 3");
        CHECK_FAILS(load_by_hand(p, "part", 2, both, 3), GT_MISMATCH, "1 elements of 6 are missing");
        CHECK_OK(params_read(p, 0, x));
        for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
            const hand_file file = { "params.safetensors", bad[i].pieces, bad[i].count, 0.0f };
            const gt_status st = load_by_hand(p, "bad", 2, &file, 1);
            CHECKF((st == GT_FORMAT || st == GT_MISMATCH) && strstr(gt_message(), bad[i].part), "%s: %s", bad[i].pieces,
                   st ? gt_message() : "loads");
        }
        const hand_file odd = { "params-1.safetensors", NULL, 6, 0.0f };
        CHECK_FAILS(load_by_hand(p, "odd", 2, &odd, 1), GT_FORMAT, "no proper files");
    }
    params_release(p);
    graph_release(g);
    dev_close(d);
}

const check_case check_cases[] = { CASE(files_by_hand_are_read_or_refused), { 0 } };
