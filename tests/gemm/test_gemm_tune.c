/* SPDX-License-Identifier: MIT */
/* tests/gemm/test_gemm_tune.c - variants of kernels, the search among them, and the file that keeps what it found.
 *
 * The search is tested on a kernel that lies: its one knob that matters says how a product is computed, honestly and
 * slowly, honestly and fast, or wrongly and faster still. */
#include "tests/device/styled.h"
#include "tests/gemm/gemm_oracle.h"
#include "host/gemm/engine.h"
#include "host/gemm/gemm_search.h"

#include "host/base/file.h"
#include "host/base/log.h"
#include "host/base/random.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct place {
    dev_device *d;
    gemm_context *c;
    char *cache, *old_cache;
} place;

/* A context whose cache is a folder of its own; 0 and a skip where the device is not of this style. */
static int place_open(place *p, const char *style, const char *engine, const char *cache)
{
    gemm_prepare_process();
    *p = (place){ .cache = gt_path_join(check_folder(), cache), .d = styled_device(style) };
    p->old_cache = getenv("GEARTRAIN_CACHE") ? strdup(getenv("GEARTRAIN_CACHE")) : NULL;
    setenv("GEARTRAIN_CACHE", p->cache, 1);
    if (!p->d)
        return 0;
    return CHECK_OK(gemm_context_create(&p->c, p->d, engine));
}

static void place_again(place *p, const char *engine)
{
    gemm_context_release(p->c);
    p->c = NULL;
    CHECK_OK(gemm_context_create(&p->c, p->d, engine));
}

static void place_close(place *p)
{
    gemm_context_release(p->c);
    dev_close(p->d);
    if (p->old_cache)
        setenv("GEARTRAIN_CACHE", p->old_cache, 1);
    else
        unsetenv("GEARTRAIN_CACHE");
    free(p->old_cache);
    free(p->cache);
}

/* The file that tunings of this device are kept in, written anew; freed by the caller. */
static char *write_tuning(const place *p, const char *text)
{
    char name[32], *folder = NULL, *path = NULL;
    snprintf(name, sizeof name, "%016llx.txt", (unsigned long long)dev_fingerprint(p->d));
    if (CHECK_OK(gt_cache_folder(&folder, "tuning")))
        path = gt_path_join(folder, name);
    free(folder);
    if (path && text)
        CHECK_OK(gt_file_write(path, text, strlen(text)));
    return path;
}

/* ---- words --------------------------------------------------------------------------------------- */

static void variants_are_words(void)
{
    static const char *const bad[] = {
        "",
        "rows:6",
        "rows:6,vectors:4,columns:256,k:256,kept:192,unroll:4",
        "rows:6,vectors:4,columns:256,k:256,kept:192,unroll:4,packed:1,",
        "rows:6,vectors:4,columns:256,k:256,kept:192,unroll:3,packed:1",
        "rows:-6,vectors:4,columns:256,k:256,kept:192,unroll:4,packed:1",
        "rows: 6,vectors:4,columns:256,k:256,kept:192,unroll:4,packed:1",
        "vectors:4,rows:6,columns:256,k:256,kept:192,unroll:4,packed:1",
        "rows:99999999999999999999,vectors:4,columns:256,k:256,kept:192,unroll:4,packed:1"
    };
    static const char good[] = "rows:6,vectors:4,columns:256,k:512,kept:192,unroll:4,packed:1";
    char text[GEMM_VARIANT_CHARS], options[GEMM_VARIANT_OPTIONS];
    gemm_variant v;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECKF(!gemm_variant_parse(&v, &gemm_tiled_cpu, bad[i]), "'%s'", bad[i]);
    CHECK(gemm_variant_parse(&v, &gemm_tiled_cpu, good));
    CHECK(!strcmp(gemm_variant_text(text, &gemm_tiled_cpu, &v), good));
    CHECKF(!strcmp(gemm_variant_options(options, &gemm_tiled_cpu, &v), "-DMR=6 -DNV=4 -DKC=512"), "%s", options);
}

/* ---- all variants compute the same ---------------------------------------------------------------- */

/* The bits of a product by one variant, or by the usual one (NULL); C is in `out`. */
static int product_of(place *p, const gemm_tunable *t, const gemm_desc *g, const gemm_variant *v, gemm_buffers *on,
                      float *out)
{
    const size_t bytes = (size_t)g->M * (size_t)g->N * dtype_size(g->c_type) / 4 * 4;
    const uint64_t scratch = t->scratch(p->c, g, v);
    dev_list *l = NULL;
    memset(out, 0xff, bytes);
    int good = CHECK_OK(dev_write(p->d, on->c, 0, out, bytes)) && CHECK_OK(dev_list_create(&l, p->d))
               && CHECK_OK(dev_buffer_create(&on->scratch, p->d, scratch < 64 ? 64 : scratch, "scratch"))
               && CHECK_OK(t->append(p->c, l, g, on, v, NULL)) && CHECK_OK(dev_run(l, 0, -1))
               && CHECK_OK(dev_read(p->d, on->c, 0, out, bytes));
    dev_list_release(l);
    dev_buffer_release(on->scratch);
    on->scratch = NULL;
    return good;
}

/* Some variants from all over what is legal, of a product that is a multiple of nothing and has an epilogue. */
static void same_bits(place *p, const gemm_tunable *t, const gemm_desc *desc, int variants)
{
    enum { MOST = 1 << 18 };
    gemm_buffers on = { 0 };
    gemm_desc g;
    gemm_variant usual, v;
    gt_random r;
    char text[GEMM_VARIANT_CHARS];
    float *want = malloc(MOST * 4), *got = malloc(MOST * 4);
    uint16_t *host = malloc(MOST * 2 * sizeof *host);
    dev_buffer **const all[] = { &on.a, &on.b, &on.c, &on.bias, &on.residual, &on.pre };
    CHECK_OK(gemm_complete(&g, desc));
    gt_random_init(&r, 5, 0);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        for (int k = 0; k < MOST; k++)
            if (i == 3 || g.a_type == DTYPE_F32)
                ((float *)host)[k] = gt_random_unit(&r) - 0.5f;
            else if (k < MOST / 2)
                host[2 * k] = dtype_bf16_from_f32(gt_random_unit(&r) - 0.5f), host[2 * k + 1] = host[2 * k];
        CHECK_OK(dev_buffer_create(all[i], p->d, MOST * 4, "test"));
        CHECK_OK(dev_write(p->d, *all[i], 0, host, MOST * 4));
    }
    t->usual(p->c, &g, &usual);
    const size_t bytes = (size_t)g.M * (size_t)g.N * dtype_size(g.c_type) / 4 * 4;
    int good = product_of(p, t, &g, &usual, &on, want);
    for (int done = 0; good && done < variants;) {
        for (int k = 0; k < t->count; k++) {
            int count = 0;
            while (count < GEMM_VALUES && t->knobs[k].values[count])
                count++;
            v.value[k] = t->knobs[k].values[gt_random_below(&r, (uint64_t)count)];
        }
        if (!t->legal(p->c, &v))
            continue;
        done++;
        good = product_of(p, t, &g, &v, &on, got)
               && CHECKF(!memcmp(got, want, bytes), "%s of %s", gemm_variant_text(text, t, &v), t->engine);
    }
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        dev_buffer_release(*all[i]);
    free(host);
    free(want);
    free(got);
}

static void tiled_gives_the_same_bits_however_it_is_cut(void)
{
    place p;
    if (place_open(&p, "cpu", "tiled", "same")) {
        for (int trans = 0; trans < 3; trans++) {
            const gemm_desc g = {
                .M = 70,
                .N = 203,
                .K = 700,
                .trans_a = trans == 2,
                .trans_b = trans == 1,
                .a_type = trans == 1 ? DTYPE_BF16 : DTYPE_F32,
                .b_type = trans == 1 ? DTYPE_BF16 : DTYPE_F32,
                .c_type = trans == 1 ? DTYPE_BF16 : DTYPE_F32,
                .bias = 1,
                .residual = 1,
                .act = trans == 1 ? ACT_GELU_TANH : ACT_NONE
            };
            same_bits(&p, &gemm_tiled_cpu, &g, check_tiny() ? 1 : 6);
        }
    }
    place_close(&p);
}

static void tiled_does_so_in_the_gpu_style(void)
{
    place p;
    if (place_open(&p, "gpu", "tiled", "same-gpu")) {
        const int slow = dev_info_of(p.d)->kind == DEV_CPU;
        for (int trans = 0; trans < 2; trans++) {
            const gemm_desc g = {
                .M = 70, .N = 67, .K = 81, .trans_a = trans, .trans_b = !trans, .bias = 1, .residual = 1
            };
            same_bits(&p, &gemm_tiled_gpu, &g, slow ? 3 : 30);
        }
    }
    place_close(&p);
}

/* On a device without a matrix unit by software, whose lanes have nothing but their own elements. */
static void matrix_does_so(void)
{
    place p;
    const char *why;
    setenv("GEARTRAIN_MATRIX", "software:mfma", 1);
    if (place_open(&p, "gpu", "tiled", "same-matrix")) {
        const int slow = dev_info_of(p.d)->kind == DEV_CPU;
        const char *unit = gemm_matrix_unit(p.c, &why);
        if (CHECKF(unit != NULL, "%s", why ? why : ""))
            for (int trans = 0; trans < 2; trans++) {
                const gemm_desc g = {
                    .M = 70,
                    .N = 67,
                    .K = 81,
                    .trans_a = trans,
                    .trans_b = !trans,
                    .a_type = DTYPE_BF16,
                    .b_type = DTYPE_BF16,
                    .c_type = DTYPE_F32,
                    .bias = 1
                };
                same_bits(&p, &gemm_matrix_tunable, &g, slow ? 2 : 20);
            }
    }
    place_close(&p);
    unsetenv("GEARTRAIN_MATRIX");
}

/* ---- the search ---------------------------------------------------------------------------------- */

enum { SLOW = 1, NOTHING, HALF, UNBUILT, FAST };

static void slow_is_usual(gemm_context *c, const gemm_desc *g, gemm_variant *out)
{
    (void)c, (void)g;
    *out = (gemm_variant){ { SLOW, 1 } };
}

static int all_is_legal(gemm_context *c, const gemm_variant *v)
{
    (void)c, (void)v;
    return 1;
}

static uint64_t honest_scratch(gemm_context *c, const gemm_desc *g, const gemm_variant *v)
{
    gemm_variant usual;
    (void)v;
    gemm_tiled_cpu.usual(c, g, &usual);
    return gemm_tiled_cpu.scratch(c, g, &usual);
}

static gt_status lie(gemm_context *c, dev_list *l, const gemm_desc *g, const gemm_buffers *b, const gemm_variant *v,
                     gemm_slot *add_at)
{
    gemm_desc done = *g;
    gemm_variant usual;
    gt_status st = GT_OK;
    if (v->value[0] == UNBUILT)
        return gt_fail(GT_BUILD, "the compiler has run out of patience");
    if (v->value[0] == HALF)
        done.K /= 2;
    gemm_tiled_cpu.usual(c, g, &usual);
    for (int i = 0; !st && i < (v->value[0] == SLOW ? 20 : v->value[0] == NOTHING ? 0 : 1); i++)
        st = gemm_tiled_cpu.append(c, l, &done, b, &usual, add_at);
    return st;
}

/* Its second knob changes nothing. */
static const gemm_knob lying_knobs[2] = { { "how", NULL, 0, { SLOW, NOTHING, HALF, UNBUILT, FAST }, 0x1f },
                                          { "idle", NULL, 0, { 1, 2, 3, 4, 5 }, 0x11 } };
static const gemm_tunable lying = { "tiled", 1, 2, lying_knobs, slow_is_usual, all_is_legal, honest_scratch, lie };

typedef struct trials {
    int count, failed, wrong, unbuilt;
} trials;

static void note_trial(void *context, const gemm_trial *trial)
{
    trials *t = context;
    const int how = trial->variant[strlen("how:")] - '0';
    t->count++;
    t->failed += trial->why != NULL;
    CHECKF((trial->why == NULL) == (how == SLOW || how == FAST) && (trial->seconds > 0.0) == (trial->why == NULL),
           "%s: %s", trial->variant, trial->why ? trial->why : "counts");
    t->wrong += trial->why && strstr(trial->why, "another one: off by");
    t->unbuilt += trial->why && strstr(trial->why, "out of patience");
}

static gemm_desc small_product(int M, int N, int K)
{
    gemm_desc g;
    CHECK_OK(gemm_complete(&g, &(gemm_desc){ .M = M, .N = N, .K = K }));
    return g;
}

static void a_wrong_variant_is_never_chosen(void)
{
    place p;
    if (place_open(&p, "cpu", "tiled", "lies")) {
        const gemm_desc g = small_product(200, 190, 180);
        const gemm_tune_limits limits = { 1e6, 1000 };
        gemm_tune_result r;
        gemm_variant best = { { 0 } };
        trials t = { 0 };
        CHECK_OK(gemm_search_all(p.c, &lying, &g, &limits, note_trial, &t, &best, &r));
        CHECKF(best.value[0] == FAST && r.variant_s < 0.5 * r.usual_s, "%s: %g s, and %g s", r.variant, r.variant_s,
               r.usual_s);
        CHECK(!strcmp(r.usual, "how:1,idle:1") && !strncmp(r.variant, "how:5,idle:", 11));
        CHECKF(r.tried == t.count && r.skipped == t.failed && t.count < 25, "%d, %d tried", r.tried, t.count);
        CHECKF(t.wrong >= 4 && t.unbuilt >= 2, "%d wrong, %d not built", t.wrong, t.unbuilt);
    }
    place_close(&p);
}

/* Bounds are counts: of variants, however long they take, and of none at all once there are no seconds left. */
static void a_search_ends_after_so_many_variants(void)
{
    place p;
    if (place_open(&p, "cpu", "tiled", "bounds")) {
        const gemm_desc g = small_product(40, 30, 20);
        for (int most = 0; most <= 7; most++) {
            gemm_tune_result r;
            gemm_variant best;
            trials t = { 0 };
            CHECK_OK(gemm_search_all(p.c, &lying, &g, &(gemm_tune_limits){ 1e6, most }, note_trial, &t, &best, &r));
            CHECKF(r.tried == most && t.count == most, "%d of %d", r.tried, most);
            CHECK_OK(gemm_search_all(p.c, &lying, &g, &(gemm_tune_limits){ 0.0, most }, note_trial, &t, &best, &r));
            CHECKF(r.tried == 0 && best.value[0] == SLOW, "%d without time", r.tried);
        }
        /* The engine itself, by the same bound. */
        gemm_tune_result r;
        CHECK_OK(gemm_tune(p.c, &g, "tiled", &(gemm_tune_limits){ 1e6, 2 }, NULL, NULL, &r));
        CHECK(r.engine && !strcmp(r.engine, "tiled") && r.tried == 2 && r.usual_s > 0.0 && r.variant_s <= r.usual_s);
        CHECK_FAILS(gemm_tune(p.c, &g, "magic", &(gemm_tune_limits){ 1.0, 1 }, NULL, NULL, &r), GT_MISUSE, "magic");
        CHECK_OK(gemm_tune(p.c, &g, "gemv", &(gemm_tune_limits){ 1.0, 1 }, NULL, NULL, &r));
        CHECK(!r.engine);
    }
    place_close(&p);
}

/* ---- what is kept ---------------------------------------------------------------------------------- */

#define OTHER "rows:4,vectors:1,columns:64,k:128,kept:96,unroll:2,packed:2"
#define TOO_MANY_REGISTERS "rows:14,vectors:4,columns:256,k:256,kept:192,unroll:4,packed:1"
static const char stored[] = "geartrain tuning 1\nnn fp32 fp32 fp32 90 80 300 1 tiled 1 " OTHER " 0.5\n";

static int is_other(place *p, const gemm_desc *g)
{
    gemm_variant v;
    char text[GEMM_VARIANT_CHARS];
    gemm_tuned(p->c, &gemm_tiled_cpu, g, &v);
    return !strcmp(gemm_variant_text(text, &gemm_tiled_cpu, &v), OTHER);
}

/* By the class that the file names and by no other, with every epilogue; what it takes of scratch tells, and the
 * result is right. */
static void a_stored_variant_is_used(void)
{
    place p;
    if (place_open(&p, "cpu", "tiled", "stored")) {
        const gemm_desc g = small_product(90, 80, 300), longer = small_product(91, 80, 300);
        gemm_desc more = g;
        uint64_t usual = 0, tuned = 0;
        CHECK(!is_other(&p, &g));
        CHECK_OK(gemm_scratch(p.c, &g, &usual));
        free(write_tuning(&p, stored));
        CHECK(!is_other(&p, &g));               /* it was read once, before */
        place_again(&p, "tiled");
        CHECK(is_other(&p, &g) && !is_other(&p, &longer));
        CHECK_OK(gemm_scratch(p.c, &g, &tuned));
        CHECKF(tuned && tuned != usual, "%llu bytes of scratch, %llu without tuning", (unsigned long long)tuned,
               (unsigned long long)usual);
        more.bias = more.residual = 1;
        more.act = ACT_GELU_TANH;
        CHECK(is_other(&p, &more) && gemm_case(p.c, p.d, &g, 1) && gemm_case(p.c, p.d, &more, 0));
    }
    place_close(&p);
}

/* One good line among those that no build can use: it counts, they do not, and the next tuning leaves them out. */
static void bad_lines_are_dropped(void)
{
    static const char *const lines[] = {
        "nonsense",
        "nn fp32 fp32 fp32 90 80 301 1 tiled 1",
        "nn fp32 fp32 fp32 90 80 301 1 tiled 99 " OTHER " 0.5",
        "nn fp32 fp32 fp32 90 80 301 1 noengine 1 " OTHER " 0.5",
        "nn fp32 fp32 fp32 90 80 301 1 gemv 1 " OTHER " 0.5",
        "nn fp32 fp32 fp32 90 80 301 1 tiled 1 rows:5,vectors:1 0.5",
        "nn fp32 fp32 fp32 90 80 301 1 tiled 1 " OTHER " 0.5 and more",
        "nn fp32 fp32 fp32 90 80 301 1 tiled 1 " TOO_MANY_REGISTERS " 0.5"
    };
    char text[4096];
    size_t at = (size_t)snprintf(text, sizeof text, "geartrain tuning 1\n");
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        at += (size_t)snprintf(text + at, sizeof text - at, "%s\n", lines[i]);
    snprintf(text + at, sizeof text - at, "%s", strchr(stored, '\n') + 1);
    place p;
    if (place_open(&p, "cpu", "tiled", "bad")) {
        const gemm_desc g = small_product(90, 80, 300), other = small_product(90, 80, 301);
        gemm_variant usual, v;
        char *path = write_tuning(&p, text), *now = NULL;
        place_again(&p, "tiled");
        CHECK(is_other(&p, &g));
        gemm_tiled_cpu.usual(p.c, &other, &usual);
        gemm_tuned(p.c, &gemm_tiled_cpu, &other, &v);
        CHECK(gemm_variant_same(&gemm_tiled_cpu, &usual, &v));
        CHECK_OK(gemm_tuning_keep(p.c, &gemm_tiled_cpu, &other, &v, 0.25));
        CHECK_OK(gt_file_read(&now, NULL, path, 1 << 20));
        CHECKF(now && strstr(now, "90 80 300 1 tiled 1 " OTHER " 0.5\n") && strstr(now, "90 80 301 1 tiled 1 ")
                   && !strstr(now, "nonsense") && !strstr(now, "99") && !strstr(now, "noengine"),
               "%s", now);
        free(now);

        /* Not one of ours at all. */
        free(write_tuning(&p, "geartrain tuning 9\nnn fp32 fp32 fp32 90 80 300 1 tiled 1 " OTHER " 0.5\n"));
        place_again(&p, "tiled");
        CHECK(!is_other(&p, &g));
        free(write_tuning(&p, "geartrain tuning 1\nnn fp32 fp32 fp32 90 80 300 1 tiled 1 " OTHER " 0.5"));
        place_again(&p, "tiled");
        CHECK(!is_other(&p, &g));               /* torn: its last line has no end */
        free(path);
    }
    place_close(&p);
}

static void what_others_tuned_meanwhile_stays(void)
{
    place p;
    if (place_open(&p, "cpu", "tiled", "meanwhile")) {
        const gemm_desc g = small_product(90, 80, 300), other = small_product(90, 80, 301);
        gemm_context *second = NULL;
        gemm_variant v;
        CHECK(gemm_variant_parse(&v, &gemm_tiled_cpu, OTHER));
        CHECK_OK(gemm_context_create(&second, p.d, "tiled"));
        CHECK(!is_other(&p, &g));
        CHECK_OK(gemm_tuning_keep(second, &gemm_tiled_cpu, &other, &v, 0.5));
        CHECK_OK(gemm_tuning_keep(p.c, &gemm_tiled_cpu, &g, &v, 0.5));
        gemm_context_release(second);
        place_again(&p, "tiled");
        CHECK(is_other(&p, &g) && is_other(&p, &other));
    }
    place_close(&p);
}

/* A kernel that is faster now may be the fastest: the engines of the class are measured again, those of others not. */
static void engines_are_chosen_again_after_a_tuning(void)
{
    static const char known[] = "geartrain gemm 5\nnn fp32 fp32 fp32 300 300 300 1 - tiled %d 0.5\n"
                                "nn fp32 fp32 fp32 300 300 300 1 e tiled %d 0.5\n"
                                "nn fp32 fp32 fp32 310 300 300 1 - tiled %d 0.5\n";
    place p;
    if (place_open(&p, "cpu", "auto", "choices") && gemm_engine_row(1)) {
        const gemm_desc g = small_product(300, 300, 300);
        const int version = gemm_tiled.version;
        char text[512], name[32], *folder = NULL, *path, *now = NULL;
        snprintf(text, sizeof text, known, version, version, version);
        snprintf(name, sizeof name, "%016llx.txt", (unsigned long long)dev_fingerprint(p.d));
        CHECK_OK(gt_cache_folder(&folder, "gemm"));
        path = gt_path_join(folder, name);
        CHECK_OK(gt_file_write(path, text, strlen(text)));
        place_again(&p, "auto");
        gemm_tune_result r;
        CHECK_OK(gemm_tune(p.c, &g, "tiled", &(gemm_tune_limits){ 1e6, 1 }, NULL, NULL, &r));
        CHECK_OK(gt_file_read(&now, NULL, path, 1 << 20));
        CHECKF(now && strstr(now, " 300 300 300 1 - ") && strstr(now, " 300 300 300 1 e ")
                   && !strstr(now, " 300 300 300 1 g ") && strstr(now, " 310 300 300 1 - tiled ")
                   && strstr(now, " 0.5\n") && !strstr(strstr(now, " 0.5\n") + 1, " 0.5\n"),
               "%s", now);
        free(now);
        free(path);
        free(folder);
    }
    place_close(&p);
}

/* What is measured in place of a large product has the sides that the model has: how fast a library is depends on them. */
static void fewer_tokens_are_measured_before_narrower_layers(void)
{
    place p;
    if (place_open(&p, "cpu", "auto", "shrunk")) {
        const int many = 1 << 20;
        gemm_desc g = small_product(many, 3072, 768), s = gemm_shrink(p.c, &g);
        CHECKF(s.M < many && s.M >= 128 && s.N == 3072 && s.K == 768, "%d x %d x %d", s.M, s.N, s.K);
        CHECK(s.lda == 768 && s.ldb == 3072 && s.ldc == 3072 && gemm_flops(&s) < gemm_flops(&g));

        g = small_product(768, 3072, many);
        g.trans_a = 1;
        g.lda = g.M;
        s = gemm_shrink(p.c, &g);
        CHECKF(s.K < many && s.K >= 128 && s.M == 768 && s.N == 3072, "%d x %d x %d", s.M, s.N, s.K);
        CHECK(s.lda == 768 && s.ldb == 3072);

        g = small_product(200, many / 2, 65536); /* few tokens: the sides have to give */
        s = gemm_shrink(p.c, &g);
        CHECKF(s.M == 200 && s.N < many / 2 && s.K <= 65536, "%d x %d x %d", s.M, s.N, s.K);
        const gemm_desc again = gemm_shrink(p.c, &s);
        CHECK(again.M == s.M && again.N == s.N && again.K == s.K);
    }
    place_close(&p);
}

const check_case check_cases[] = {
    CASE(fewer_tokens_are_measured_before_narrower_layers),
    CASE(variants_are_words),
    CASE(tiled_gives_the_same_bits_however_it_is_cut),
    CASE(tiled_does_so_in_the_gpu_style),
    CASE(matrix_does_so),
    CASE(a_wrong_variant_is_never_chosen),
    CASE(a_search_ends_after_so_many_variants),
    CASE(a_stored_variant_is_used),
    CASE(bad_lines_are_dropped),
    CASE(what_others_tuned_meanwhile_stays),
    CASE(engines_are_chosen_again_after_a_tuning),
    { 0 }
};
