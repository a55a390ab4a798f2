/* SPDX-License-Identifier: MIT */
/* host/gemm/gemm.c - the table of engines, and the choice between them.
 *
 * A choice is made per class: sizes, types, transposes, batch, kind of epilogue. Which engine is
 * the fastest does not change any more beyond some size, so a large product belongs to the class
 * of a smaller one of its kind that takes about a hundredth of a second (gemm_shrink()): measuring a
 * product of seconds would take a minute. The first product of a class is run on scratch memory
 * by every engine that can, and the fastest is kept in the cache folder, one line a class:
 *
 *   geartrain gemm 2                                 the head; another one is ignored
 *   nt fp32 fp32 fp32 1024 768 768 1 - native 1 0.0063
 *
 * (transposes, types of A B C, M N K, batch, epilogue: g with an activation, e another, - none;
 * engine, its version, seconds; in place of transposes "a" and a letter where another room chose among engines). A line that does not parse, or names an engine or version
 * this build lacks, is dropped, and its class is measured again.
 *
 * What is measured is checked as well, since an engine that a runtime lets down is often the fastest.
 * Machines are shared and noisy: engines take turns over several rounds, each one's best run
 * counts, and the first engine of the table wins unless another is 10 % faster. Products that one
 * engine was made for, and that take as long as memory takes, are not measured.            */
#include "host/gemm/engine.h"

#include "host/base/activity.h"
#include "host/base/clock.h"
#include "host/base/file.h"
#include "host/base/log.h"
#include "host/base/text.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef GT_WITH_BLAS
#define NATIVE &gemm_native
#else
#define NATIVE NULL
#endif
#ifdef GT_WITH_ONEDNN
#define ONEDNN &gemm_onednn
#else
#define ONEDNN NULL
#endif
#ifdef GT_WITH_CLBLAST
#define CLBLAST &gemm_clblast
#else
#define CLBLAST NULL
#endif

/* In order of preference. NULL: this build is without it. */
static const struct {
    const char *name;
    const gemm_engine *engine;
} table[] = {
    { "gemv", &gemm_gemv },   { "onednn", ONEDNN },   { "native", NATIVE },       { "matrix", &gemm_matrix },
    { "tiled", &gemm_tiled }, { "clblast", CLBLAST }, { "bf16x3", &gemm_bf16x3 },
};
enum { ENGINES = sizeof table / sizeof *table };

static const char cache_head[] = "geartrain gemm 2\n";

enum { CLASS_CHARS = 96, CACHE_LIMIT = 1 << 20 };

typedef struct choice {
    char class_name[CLASS_CHARS];
    const gemm_engine *engine;
    double seconds;
} choice;

typedef struct built_program {
    const dev_family *family;
    dtype storage;
    char *options;
    dev_program *program;
} built_program;

struct gemm_context {
    dev_device *device;
    const gemm_engine *forced;      /* NULL: measure                                     */
    char *cache_path;               /* NULL: no cache folder; choices live in memory     */
    choice *choices;
    int choice_count;
    built_program *programs;
    int program_count;
    void *states[ENGINES];          /* of the engines that keep something, NULL at first */
    gemm_tiles *tiles;
    gemm_pool *pool;                /* NULL until somebody cuts something into pieces     */
    gemm_tuning *tuning;            /* NULL until a kernel that can be tuned is asked for */
};

/* ---- descriptions --------------------------------------------------------------------- */

int gemm_has_epilogue(const gemm_desc *g)
{
    return g->bias || g->act || g->act_grad || g->residual || g->drop_p > 0;
}

gt_status gemm_complete(gemm_desc *out, const gemm_desc *in)
{
    gemm_desc g = *in;
    const int a_width = g.trans_a ? g.M : g.K, b_width = g.trans_b ? g.K : g.N;
    char names[64];

    if (g.M <= 0 || g.N <= 0 || g.K <= 0 || g.batch < 0)
        return gt_fail(GT_MISUSE,
                       "cannot multiply matrices of size %d x %d x %d: sizes must be"
                       " positive",
                       g.M, g.N, g.K);
    if (!dtype_is_storage(g.a_type) || !dtype_is_storage(g.c_type)
        || (!dtype_is_storage(g.b_type) && g.b_type != DTYPE_Q8))
        return gt_fail(GT_MISUSE, "cannot multiply %s by %s into %s: only %s can be multiplied", dtype_name(g.a_type),
                       dtype_name(g.b_type), dtype_name(g.c_type),
                       dtype_storage_names(names, sizeof names, ", ", " and "));
    g.lda = g.lda ? g.lda : a_width;
    g.ldb = g.ldb ? g.ldb : b_width;
    g.ldc = g.ldc ? g.ldc : g.N;
    g.batch = g.batch ? g.batch : 1;
    g.alpha = g.alpha != 0 ? g.alpha : 1.0f;
    if (g.lda < a_width || g.ldb < b_width || g.ldc < g.N)
        return gt_fail(GT_MISUSE,
                       "cannot multiply matrices with rows %d, %d, %d apart: rows are %d,"
                       " %d, %d wide",
                       g.lda, g.ldb, g.ldc, a_width, b_width, g.N);
    if (g.batch > 1 && g.stride_c < (int64_t)(g.M - 1) * g.ldc + g.N)
        return gt_fail(GT_MISUSE, "cannot multiply a batch: its results overlap, %lld elements apart",
                       (long long)g.stride_c);
    if (g.act && g.act_grad && g.act != g.act_grad)
        return gt_fail(GT_MISUSE, "cannot apply %s to a product and the slope of %s: a product has one activation",
                       activation_name(g.act), activation_name(g.act_grad));
    const int narrower = g.b_type != g.a_type;
    if ((narrower && g.b_type != DTYPE_BF16 && g.b_type != DTYPE_Q8) || (g.c_type != g.a_type && g.c_type != DTYPE_F32))
        return gt_fail(GT_UNSUPPORTED,
                       "cannot multiply %s by %s into %s: both factors have one type, or the right one is bf16 or"
                       " int8, and the result has the left one's or fp32",
                       dtype_name(g.a_type), dtype_name(g.b_type), dtype_name(g.c_type));
    if (g.b_type == DTYPE_Q8
        && (g.batch > 1 || g.ldb != b_width || g.b_first < 0 || g.b_first >= Q8_BLOCK || g.K > INT32_MAX - Q8_BLOCK
            || g.N > INT32_MAX - Q8_BLOCK))
        return gt_fail(GT_MISUSE, "cannot multiply by a matrix in 8 bits: it is not one dense matrix of blocks");
    if ((int64_t)g.M * g.batch > INT32_MAX)
        return gt_fail(GT_UNSUPPORTED,
                       "cannot multiply %d matrices of %d rows at once: rows are"
                       " counted with 32 bits",
                       g.batch, g.M);
    if (g.drop_p < 0 || g.drop_p >= 1)
        return gt_fail(GT_MISUSE, "cannot drop a share of %g of the elements: it must be in [0, 1)", (double)g.drop_p);
    *out = g;
    return GT_OK;
}

/* Elements from the first to one past the last of a batch of matrices. */
static uint64_t extent(int rows, int width, int ld, int batch, int64_t stride)
{
    return (uint64_t)(batch - 1) * (uint64_t)stride + (uint64_t)(rows - 1) * (uint64_t)ld + (uint64_t)width;
}

static uint64_t a_bytes(const gemm_desc *g)
{
    return dtype_size(g->a_type)
           * extent(g->trans_a ? g->K : g->M, g->trans_a ? g->M : g->K, g->lda, g->batch, g->stride_a);
}

q8 gemm_q8(const gemm_desc *g)
{
    return (q8){ g->trans_b ? g->N : g->K, g->trans_b ? g->K : g->N, g->b_first };
}

static uint64_t b_bytes(const gemm_desc *g)
{
    if (g->b_type == DTYPE_Q8)
        return q8_bytes(gemm_q8(g));
    return dtype_size(g->b_type)
           * extent(g->trans_b ? g->N : g->K, g->trans_b ? g->K : g->N, g->ldb, g->batch, g->stride_b);
}

static uint64_t c_bytes(const gemm_desc *g)
{
    return dtype_size(g->c_type) * extent(g->M, g->N, g->ldc, g->batch, g->stride_c);
}

/* ---- the cache ------------------------------------------------------------------------ */

const gemm_engine *gemm_engine_named(const char *name)
{
    for (int i = 0; i < ENGINES; i++)
        if (!strcmp(table[i].name, name))
            return table[i].engine;
    return NULL;
}

const gemm_engine *gemm_engine_row(int i)
{
    for (int k = 0; k < ENGINES; k++)
        if (table[k].engine && !i--)
            return table[k].engine;
    return NULL;
}

const char *gemm_name_of(const gemm_engine *e)
{
    int i = 0;
    while (table[i].engine != e)
        i++;
    return table[i].name;
}

char *gemm_engine_names(char *out, size_t size, const char *between)
{
    size_t at = 0;
    for (int i = 0; i < ENGINES; i++)
        at += (size_t)snprintf(out + at, size - at, "%s%s", i ? between : "", table[i].name);
    assert(at < size);
    return out;
}

char *gemm_engines_for(gemm_context *c, dtype storage, char *out, size_t size, const char *between)
{
    size_t at = 0;
    *out = '\0';
    for (int i = 0; gemm_engine_row(i); i++) {
        const gemm_engine *e = gemm_engine_row(i);
        int can = 0;
        for (int rows = 1; rows <= 64; rows *= 64) {
            const gemm_desc g = {
                .M = rows,
                .N = 64,
                .K = 64,
                .trans_b = 1,
                .a_type = storage,
                .b_type = storage,
                .c_type = storage,
                .lda = 64,
                .ldb = 64,
                .ldc = 64,
                .batch = 1,
                .alpha = 1
            };
            can |= e->can(c, &g);
        }
        if (can)
            at += (size_t)snprintf(out + at, size - at, "%s%s", at ? between : "", gemm_name_of(e));
    }
    assert(at < size);
    return out;
}

static void class_of(char out[CLASS_CHARS], const gemm_desc *g)
{
    snprintf(out, CLASS_CHARS, "%c%c %s %s %s %d %d %d %d %c", g->trans_a ? 't' : 'n', g->trans_b ? 't' : 'n',
             dtype_name(g->a_type), dtype_name(g->b_type), dtype_name(g->c_type), g->M, g->N, g->K, g->batch,
             g->act || g->act_grad  ? 'g'
             : gemm_has_epilogue(g) ? 'e'
                                    : '-');
}

static double flops_of(const gemm_desc *g)
{
    return 2.0 * g->M * g->N * g->K * g->batch;
}

/* The largest product of g's kind that is measured for it: batches and sides are halved, the longest
 * first, until it has a thousand million operations a core, or two a unit of a GPU. */
gemm_desc gemm_shrink(const gemm_context *c, const gemm_desc *g)
{
    const dev_info *info = dev_info_of(c->device);
    const double most = (info->kind == DEV_CPU ? 1e9 : 2e9) * (info->compute_units > 0 ? info->compute_units : 1);
    gemm_desc s = *g;
    if (flops_of(&s) <= most)
        return s;
    while (flops_of(&s) > most) {
        int *longest = s.M >= s.N && s.M >= s.K ? &s.M : s.N >= s.K ? &s.N : &s.K;
        int *side = s.batch > 1 ? &s.batch : longest;
        *side = (*side + 1) / 2;
    }
    s.lda = s.trans_a ? s.M : s.K;
    s.ldb = s.trans_b ? s.K : s.N;
    s.ldc = s.N;
    s.stride_a = (int64_t)s.M * s.K;
    s.stride_b = (int64_t)s.K * s.N;
    s.stride_c = (int64_t)s.M * s.N;
    return s;
}

static const choice *choice_find(const gemm_context *c, const char *class_name)
{
    for (int i = 0; i < c->choice_count; i++)
        if (!strcmp(c->choices[i].class_name, class_name))
            return &c->choices[i];
    return NULL;
}

static gt_status choice_add(gemm_context *c, const char *class_name, const gemm_engine *engine, double seconds)
{
    choice *grown = realloc(c->choices, ((size_t)c->choice_count + 1) * sizeof *grown);
    if (!grown)
        return gt_fail(GT_NO_MEMORY, "no memory for %d choices of GEMM engines", c->choice_count + 1);
    c->choices = grown;
    choice *x = &grown[c->choice_count++];
    snprintf(x->class_name, sizeof x->class_name, "%s", class_name);
    x->engine = engine;
    x->seconds = seconds;
    return GT_OK;
}

/* Takes over one line of the cache, unless its class is known; 0 if it is not one this build can use. */
static int cache_line(gemm_context *c, const char *line)
{
    char ab[3], ta[8], tb[8], tc[8], e[2], engine[16];
    int M, N, K, batch, version, end = 0;
    double seconds;
    if (sscanf(line, "%2s %7s %7s %7s %d %d %d %d %1s %15s %d %lf%n", ab, ta, tb, tc, &M, &N, &K, &batch, e, engine,
               &version, &seconds, &end)
            != 12
        || line[end])
        return 0;

    char class_name[CLASS_CHARS];
    snprintf(class_name, sizeof class_name, "%s %s %s %s %d %d %d %d %s", ab, ta, tb, tc, M, N, K, batch, e);
    const gemm_engine *found = gemm_engine_named(engine);
    if (!found || found->version != version)
        return 0;
    return choice_find(c, class_name) || choice_add(c, class_name, found, seconds) == GT_OK;
}

/* Takes over every line of a file of choices that is of use and not yet known. */
static void take_choices(gemm_context *c, const char *path, gt_log_level level)
{
    char *text = NULL;
    if (gt_path_exists(path)) {
        size_t size = 0;
        int dropped = 0;
        char *rest = NULL;
        const int whole = !gt_file_read(&text, &size, path, CACHE_LIMIT) && strlen(text) == size
                          && !strncmp(text, cache_head, sizeof cache_head - 1) && text[size - 1] == '\n';
        for (char *line = whole ? strtok_r(text + sizeof cache_head - 1, "\n", &rest) : NULL; line;
             line = strtok_r(NULL, "\n", &rest))
            dropped += !cache_line(c, line);
        if (!whole)
            gt_log(level, "gemm", "'%s' is damaged or of another version; what it holds is measured again", path);
        else if (dropped)
            gt_log(level, "gemm", "%d choices in '%s' are of no use here; such products are measured again", dropped,
                   path);
    }
    free(text);
    gt_message_clear();
}

/* A choice that others make (gemm_other): no transpose is called so. */
static int is_of_others(const choice *x)
{
    return x->class_name[0] == 'a';
}

double gemm_best_rate(const gemm_context *c, dtype storage)
{
    double best = 0.0;
    for (int i = 0; i < c->choice_count; i++) {
        const choice *x = &c->choices[i];
        char type[8];
        double M, N, K, batch;
        if (is_of_others(x))
            continue;
        if (sscanf(x->class_name, "%*s %7s %*s %*s %lf %lf %lf %lf", type, &M, &N, &K, &batch) != 5
            || strcmp(type, dtype_name(storage)) || x->seconds <= 0.0)
            continue;
        const double rate = 2.0 * M * N * K * (batch > 1.0 ? batch : 1.0) / x->seconds;
        best = rate > best ? rate : best;
    }
    return best;
}

/* A cache that cannot be read is an empty one. */
static void cache_read(gemm_context *c)
{
    char *folder = NULL, name[32];
    snprintf(name, sizeof name, "%016llx.txt", (unsigned long long)dev_fingerprint(c->device));
    if (!gt_cache_folder(&folder, "gemm"))
        c->cache_path = gt_path_join(folder, name);
    free(folder);
    if (c->cache_path)
        take_choices(c, c->cache_path, GT_LOG_INFO);
    gt_message_clear();
}

static gt_status write_choices(const gemm_context *c, const char *path)
{
    gt_text t = { 0 };
    gt_text_printf(&t, "%s", cache_head);
    for (int i = 0; i < c->choice_count; i++)
        gt_text_printf(&t, "%s %s %d %.3g\n", c->choices[i].class_name, gemm_name_of(c->choices[i].engine),
                       c->choices[i].engine->version, c->choices[i].seconds);
    gt_status st = t.failed ? gt_fail(GT_NO_MEMORY, "cannot write '%s': no memory for its text", path)
                            : gt_file_write(path, t.data, t.size);
    gt_text_release(&t);
    return st;
}

/* A cache that cannot be written costs a measurement next time, and nothing else. What other processes have put
 * there meanwhile, ranks with other layers, stays. */
static void cache_write(gemm_context *c)
{
    if (!c->cache_path)
        return;
    take_choices(c, c->cache_path, GT_LOG_DEBUG);
    if (write_choices(c, c->cache_path)) {
        gt_log(GT_LOG_INFO, "gemm", "measurements are not kept: %s", gt_message());
        gt_message_clear();
    }
}

gt_status gemm_choices_save(const gemm_context *c, const char *path)
{
    return write_choices(c, path);
}

void gemm_choices_load(gemm_context *c, const char *path)
{
    /* What was chosen for that run goes before what this machine has measured since. */
    choice *known = c->choices;
    const int count = c->choice_count;
    c->choices = NULL;
    c->choice_count = 0;
    take_choices(c, path, GT_LOG_WARN);         /* its sums may come out otherwise in the last bits */
    for (int i = 0; i < count; i++)
        if (!choice_find(c, known[i].class_name)
            && choice_add(c, known[i].class_name, known[i].engine, known[i].seconds))
            gt_message_clear();
    free(known);
}

/* ---- choices of others ---------------------------------------------------------------- */

static void class_of_others(char out[CLASS_CHARS], const gemm_other *o)
{
    const char *type = dtype_name(o->type);
    snprintf(out, CLASS_CHARS, "a%c %s %s %s %d %d %d %d %c", o->what, type, type, type, o->size[0], o->size[1],
             o->size[2], o->size[3], o->kind);
}

const char *gemm_other_known(const gemm_context *c, const gemm_other *o)
{
    char class_name[CLASS_CHARS];
    class_of_others(class_name, o);
    const choice *x = choice_find(c, class_name);
    return x ? gemm_name_of(x->engine) : NULL;
}

gt_status gemm_other_keep(gemm_context *c, const gemm_other *o, const char *engine, double seconds)
{
    char class_name[CLASS_CHARS];
    class_of_others(class_name, o);
    gt_status st = choice_add(c, class_name, gemm_engine_named(engine), seconds);
    if (!st)
        cache_write(c);
    return st;
}

const char *gemm_forced_name(const gemm_context *c)
{
    return c->forced ? gemm_name_of(c->forced) : NULL;
}

/* ---- measuring ------------------------------------------------------------------------ */

/* The fastest of a few runs of the launches from `first` on; stops after 30 ms of them. The
 * first run is not counted: it compiles. */
static gt_status time_list(dev_list *l, int first, dev_device *d, double *seconds)
{
    const uint64_t budget = 30000000;
    uint64_t spent = 0, best = UINT64_MAX;
    gt_status st = dev_run(l, first, -1);
    if (!st)
        st = dev_wait(d);
    for (int i = 0; !st && i < 5 && (i == 0 || spent + best < budget); i++) {
        const uint64_t start = gt_now_ns();
        st = dev_run(l, first, -1);
        if (!st)
            st = dev_wait(d);
        const uint64_t took = gt_now_ns() - start;
        spent += took;
        best = took < best ? took : best;
    }
    *seconds = (double)best * 1e-9;
    return st;
}

/* What every operand of a measurement is filled with: a little off zero, for denormals and zeros
 * would not be typical; 1 in fp16, 1/128 or so in the others. */
static const uint32_t pattern = 0x3c003c00;
/* The integers of a B in 8 bits; their scales are the pattern in fp32. */
static const uint32_t integers = 0x3c3c3c3c;

static double b_element(const gemm_desc *g)
{
    return g->b_type == DTYPE_Q8 ? (double)(integers & 0xff) * (double)dtype_load(DTYPE_F32, &pattern, 0)
                                 : (double)dtype_load(g->b_type, &pattern, 0);
}

/* Is the plain product of `g` right, at the size it will have? All its elements are the same sum, so
 * that turns, tiles or work-items left out show. Runtimes that cut long loops short return success. */
static gt_status check_product(gemm_context *c, const gemm_engine *e, const gemm_desc *g, const gemm_buffers *b)
{
    const size_t size = dtype_size(g->c_type);
    gemm_desc plain = *g;
    dev_list *l = NULL;
    unsigned char *got = malloc(c_bytes(g) + 4), want_bits[4] = { 0 };
    plain.bias = plain.residual = plain.add = 0;
    plain.act = plain.act_grad = ACT_NONE;
    plain.drop_p = 0;
    gt_status st = got ? GT_OK
                       : gt_fail(GT_NO_MEMORY, "cannot check a GEMM engine: no memory for a product of %zu bytes",
                                 (size_t)c_bytes(g));
    if (!st)
        st = dev_list_create(&l, c->device);
    if (!st)
        st = e->append(c, l, &plain, b, NULL);
    if (!st)
        st = dev_run(l, 0, -1);
    if (!st)
        st = dev_read(c->device, b->c, 0, got, c_bytes(g));
    const double a = (double)dtype_load(g->a_type, &pattern, 0);
    dtype_store(g->c_type, want_bits, 0, (float)((double)g->alpha * g->K * a * b_element(g)));
    const double want = (double)dtype_load(g->c_type, want_bits, 0);
    const double allowed = (1e-5 + 6e-8 * g->K + (size == 2 ? 1.0 / 128 : 0.0)) * fabs(want);
    for (int i = 0; !st && i < g->batch; i++)
        for (int m = 0; !st && m < g->M; m++)
            for (int n = 0; !st && n < g->N; n++) {
                const size_t at = (size_t)i * (size_t)g->stride_c + (size_t)m * (size_t)g->ldc + (size_t)n;
                const double x = (double)dtype_load(g->c_type, got, at);
                if (!(fabs(x - want) <= allowed) && memcmp(got + at * size, want_bits, size))
                    st = gt_fail(GT_NUMERIC, "%d x %d x %d gave %g at row %d, column %d, not %g", g->M, g->N, g->K, x,
                                 m, n, want);
            }
    dev_list_release(l);
    free(got);
    return st;
}

/* What all engines of a measurement share: its memory is made and filled once, which takes longer than many a
 * product. Scratch memory is each engine's own. */
typedef struct operands {
    gemm_buffers b;
    dev_list *fill;
} operands;

static void operands_release(operands *o)
{
    dev_list_release(o->fill);
    dev_buffer_release(o->b.a);
    dev_buffer_release(o->b.b);
    dev_buffer_release(o->b.c);
    dev_buffer_release(o->b.bias);
    dev_buffer_release(o->b.random);
    dev_buffer_release(o->b.pre);
}

static gt_status operands_make(operands *o, gemm_context *c, const gemm_desc *g)
{
    gemm_buffers *b = &o->b;
    *o = (operands){ 0 };
    gt_status st = dev_list_create(&o->fill, c->device);
    if (!st)
        st = dev_buffer_create(&b->a, c->device, (a_bytes(g) + 3) & ~3ull, "GEMM measurement");
    if (!st)
        st = dev_buffer_create(&b->b, c->device, (b_bytes(g) + 3) & ~3ull, "GEMM measurement");
    if (!st)
        st = dev_buffer_create(&b->c, c->device, (c_bytes(g) + 3) & ~3ull, "GEMM measurement");
    if (!st)
        st = dev_buffer_create(&b->bias, c->device, (uint64_t)g->N * 4, "GEMM measurement");
    if (!st)
        st = dev_buffer_create(&b->random, c->device, 16, "GEMM measurement");
    if (!st && gemm_has_epilogue(g))
        st = dev_buffer_create(&b->pre, c->device, (c_bytes(g) + 3) & ~3ull, "GEMM measurement");
    b->aux = b->residual = b->pre;

    dev_buffer *const filled[] = { b->a, b->b, b->c, b->bias, b->random, b->pre };
    for (size_t i = 0; !st && i < sizeof filled / sizeof filled[0]; i++)
        if (filled[i])
            st = dev_list_fill(o->fill, filled[i], 0, pattern, dev_buffer_bytes(filled[i]) & ~3ull);
    if (!st && g->b_type == DTYPE_Q8)
        st = dev_list_fill(o->fill, b->b, 0, integers, q8_scales_at(gemm_q8(g)));
    if (!st)
        st = dev_run(o->fill, 0, -1);
    if (st)
        operands_release(o);
    return st;
}

/* check: look at the result as well. */
static gt_status measure(gemm_context *c, const gemm_engine *e, const gemm_desc *g, const operands *o, int check,
                         double *seconds)
{
    gemm_buffers b = o->b;
    dev_list *l = NULL;
    uint64_t scratch = e->scratch(c, g);
    scratch = scratch < 64 ? 64 : scratch;

    gt_status st = dev_list_create(&l, c->device);
    if (!st)
        st = dev_buffer_create(&b.scratch, c->device, scratch, "GEMM measurement");
    if (!st)
        st = e->append(c, l, g, &b, NULL);
    if (!st)
        st = time_list(l, 0, c->device, seconds);
    if (!st && check)
        st = check_product(c, e, g, &b);

    dev_list_release(l);
    dev_buffer_release(b.scratch);
    return st;
}

/* Below this a product takes no longer than its launch, and measuring shows only noise. */
static int is_small(const gemm_desc *g)
{
    return flops_of(g) < 2e7;
}

/* Takes the fastest engine that can. One that fails to run, or computes wrongly, is left out; if
 * there is none left, so is the device, and its error is the caller's. Engines take turns; one that is far
 * behind after a round is not run again, and when only one is left nothing can change any more. */
static gt_status measure_on(gemm_context *c, const gemm_desc *g, const operands *o, const gemm_engine **out,
                            double *seconds)
{
    enum { ROUNDS = 3 };
    double best[ENGINES];
    gt_status st = GT_OK;
    int winner = -1, left = ENGINES;
    for (int i = 0; i < ENGINES; i++)
        best[i] = INFINITY;
    for (int round = 0; round < ROUNDS && left > 1; round++) {
        for (int i = 0; gemm_engine_row(i); i++) {
            const gemm_engine *e = gemm_engine_row(i);
            double took = INFINITY;
            const int behind = round > 0 && !(best[i] <= 1.5 * best[winner]);
            if (!e->can(c, g) || behind)
                continue;
            gt_status tried = gt_stop_check();
            if (!tried)
                tried = measure(c, e, g, o, round == 0, &took);
            if (tried == GT_INTERRUPTED)
                return tried;
            if (tried) {
                st = tried;
                gt_log(tried == GT_NUMERIC ? GT_LOG_WARN : GT_LOG_INFO, "gemm",
                       "engine '%s' %son '%s' "
                       "and is left out: %s",
                       gemm_name_of(e), tried == GT_NUMERIC ? "computes wrongly " : "fails ",
                       dev_info_of(c->device)->id, gt_message());
            }
            best[i] = tried ? INFINITY : fmin(best[i], took);
        }
        winner = -1;
        for (int i = 0; gemm_engine_row(i); i++)
            if (isfinite(best[i]) && (winner < 0 || best[i] < 0.9 * best[winner]))
                winner = i;
        if (winner < 0)
            return gt_fail_in(st, "no GEMM engine can be used on device '%s'", dev_info_of(c->device)->id);
        left = 0;
        for (int i = 0; gemm_engine_row(i); i++)
            left += best[i] <= 1.5 * best[winner];
    }
    for (int i = 0; gemm_engine_row(i); i++)
        if (isfinite(best[i]))
            gt_log(GT_LOG_DEBUG, "gemm", "%d x %d x %d: %s takes %.3f ms", g->M, g->N, g->K,
                   gemm_name_of(gemm_engine_row(i)), best[i] * 1e3);
    *out = gemm_engine_row(winner);
    *seconds = best[winner];
    return GT_OK;
}

static gt_status measure_all(gemm_context *c, const gemm_desc *g, const gemm_engine **out, double *seconds)
{
    operands o;
    gt_status st = operands_make(&o, c, g);
    if (st)
        return gt_fail_in(st, "no GEMM engine can be measured on device '%s'", dev_info_of(c->device)->id);
    st = measure_on(c, g, &o, out, seconds);
    operands_release(&o);
    return st;
}

/* `g` is complete. */
static gt_status choose(gemm_context *c, const gemm_desc *g, const gemm_engine **out)
{
    const gemm_engine *usual = NULL;
    int able = 0;

    if (c->forced && c->forced->can(c, g) && !(c->forced->less_precise && gemm_gemv.can(c, g))) {
        *out = c->forced;
        return GT_OK;
    }
    for (int i = 0; gemm_engine_row(i); i++)
        if (gemm_engine_row(i)->can(c, g)) {
            if (!usual && !gemm_engine_row(i)->measured_only)
                usual = gemm_engine_row(i);
            able++;
        }
    *out = usual;
    if (!usual)
        return gt_fail(GT_UNSUPPORTED, "cannot multiply %s matrices on device '%s': no GEMM engine can",
                       dtype_name(g->a_type), dev_info_of(c->device)->id);
    if (c->forced || able == 1 || usual->always || is_small(g)
        || a_bytes(g) + b_bytes(g) + 2 * c_bytes(g) > dev_info_of(c->device)->global_bytes / 8)
        return GT_OK;

    /* A run that began with an older version may know the exact product. */
    const gemm_desc smaller = gemm_shrink(c, g);
    char class_name[CLASS_CHARS];
    class_of(class_name, g);
    const choice *known = choice_find(c, class_name);
    if (!known) {
        class_of(class_name, &smaller);
        known = choice_find(c, class_name);
    }
    if (known) {
        *out = known->engine->can(c, g) ? known->engine : usual;
        return GT_OK;
    }
    double seconds = 0;
    char what[64];
    gt_activity a;
    snprintf(what, sizeof what, "measuring a product of %d x %d x %d", smaller.M, smaller.K, smaller.N);
    gt_activity_begin(&a, what, NULL, 0);
    dev_full_speed(c->device, 1);
    gt_status st = measure_all(c, &smaller, out, &seconds);
    dev_full_speed(c->device, 0);
    gt_activity_end(&a);
    if (!st)
        st = choice_add(c, class_name, *out, seconds);
    if (!st)
        cache_write(c);
    if (!st && !(*out)->can(c, g))              /* what it could do was the smaller product */
        *out = usual;
    return st;
}

static void choice_drop(gemm_context *c, const gemm_desc *g)
{
    char class_name[CLASS_CHARS];
    class_of(class_name, g);
    for (int i = 0; i < c->choice_count; i++)
        if (!strcmp(c->choices[i].class_name, class_name))
            c->choices[i--] = c->choices[--c->choice_count];
}

gt_status gemm_choose_anew(gemm_context *c, const gemm_desc *plain)
{
    gt_status st = GT_OK;
    for (int kind = 0; !st && kind < 3; kind++) {
        const int before = c->choice_count;
        const gemm_engine *e;
        gemm_desc g = *plain;
        g.bias = kind == 1;
        g.act = kind == 2 ? ACT_GELU_TANH : ACT_NONE;
        const gemm_desc smaller = gemm_shrink(c, &g);
        choice_drop(c, &g);
        choice_drop(c, &smaller);
        if (c->choice_count < before)
            st = choose(c, &g, &e);
    }
    return st;
}

/* ---- the context ---------------------------------------------------------------------- */

gt_status gemm_context_create(gemm_context **out, dev_device *d, const char *engine)
{
    *out = NULL;
    if (!engine || !*engine || !strcmp(engine, "auto"))
        engine = getenv("GEARTRAIN_GEMM");
    if (engine && (!*engine || !strcmp(engine, "auto")))
        engine = NULL;

    gemm_context *c = calloc(1, sizeof *c);
    if (!c)
        return gt_fail(GT_NO_MEMORY, "no memory for the state of the GEMM engines");
    c->device = d;
    if (engine) {
        char all[64];
        const gemm_desc probe = {
            .M = 1, .N = 1, .K = 1, .trans_b = 1, .lda = 1, .ldb = 1, .ldc = 1, .batch = 1, .alpha = 1
        };
        gemm_desc narrow = probe;
        narrow.a_type = narrow.b_type = narrow.c_type = DTYPE_BF16;
        int known = 0;
        for (int i = 0; i < ENGINES; i++)
            known |= !strcmp(table[i].name, engine);
        c->forced = gemm_engine_named(engine);
        gt_status st = GT_OK;
        if (!known)
            st = gt_fail(GT_MISUSE, "cannot use GEMM engine '%s': it is none of %s", engine,
                         gemm_engine_names(all, sizeof all, ", "));
        else if (!c->forced)
            st = gt_fail(GT_UNSUPPORTED,
                         "cannot use GEMM engine '%s': this program was built"
                         " without it",
                         engine);
        else if (c->forced->missing && c->forced->missing())
            st = gt_fail(GT_UNSUPPORTED, "cannot use GEMM engine '%s': %s", engine, c->forced->missing());
        else if (!c->forced->can(c, &probe) && !c->forced->can(c, &narrow))
            st = gt_fail(GT_UNSUPPORTED,
                         "cannot use GEMM engine '%s': device '%s' does not offer"
                         " what it needs",
                         engine, dev_info_of(d)->id);
        if (st) {
            gemm_context_release(c);
            return st;
        }
    } else {
        cache_read(c);
    }
    *out = c;
    return GT_OK;
}

void gemm_context_release(gemm_context *c)
{
    if (!c)
        return;
    for (int i = 0; i < c->program_count; i++) {
        dev_program_release(c->programs[i].program);
        free(c->programs[i].options);
    }
    free(c->programs);
    for (int i = 0; i < ENGINES; i++)
        if (table[i].engine && table[i].engine->release)
            table[i].engine->release(c->states[i]);
    gemm_tiles_release(c->tiles);
    gemm_pool_release(c->pool);
    gemm_tuning_release(c->tuning);
    free(c->choices);
    free(c->cache_path);
    free(c);
}

void gemm_prepare_process(void)
{
    /* Threads of OpenMP spin for milliseconds behind each product, on cores that the driver's kernels need. */
    setenv("OMP_WAIT_POLICY", "passive", 0);
}

void **gemm_engine_state(gemm_context *c, const gemm_engine *e)
{
    int i = 0;
    while (table[i].engine != e)
        i++;
    return &c->states[i];
}

gemm_tiles **gemm_tiles_list(gemm_context *c)
{
    return &c->tiles;
}

gemm_tuning **gemm_tuning_slot(gemm_context *c)
{
    return &c->tuning;
}

gemm_pool *gemm_pool_of(gemm_context *c)
{
    if (!c->pool)
        c->pool = gemm_pool_create(dev_info_of(c->device)->compute_units);
    return c->pool;
}

dev_device *gemm_device(const gemm_context *c)
{
    return c->device;
}

int gemm_is_forced(const gemm_context *c, const gemm_engine *e)
{
    return c->forced == e;
}

int gemm_may_use(const gemm_context *c, const gemm_engine *e)
{
    return !c->forced || c->forced == e;
}

const dev_family *gemm_family_at(int i)
{
    static const dev_family *const all[] = { &gemm_tiled_family,    &gemm_matrix_family, &gemm_gemv_family,
                                             &gemm_epilogue_family, &gemm_peak_family,   NULL };
    return all[i];
}

gt_status gemm_program(gemm_context *c, const dev_family *f, dtype storage, const char *options, dev_program **out)
{
    for (int i = 0; i < c->program_count; i++) {
        const built_program *x = &c->programs[i];
        if (x->family == f && x->storage == storage && !strcmp(x->options, options)) {
            *out = x->program;
            return GT_OK;
        }
    }
    built_program *grown = realloc(c->programs, ((size_t)c->program_count + 1) * sizeof *grown);
    char *kept = strdup(options);
    if (grown)
        c->programs = grown;
    if (!grown || !kept) {
        free(kept);
        return gt_fail(GT_NO_MEMORY, "cannot build '%s': no memory for the list of programs", f->file);
    }
    gt_status st = dev_family_build(out, c->device, f, storage, options);
    if (st)
        free(kept);
    else
        grown[c->program_count++] = (built_program){ f, storage, kept, *out };
    return st;
}

/* The part of a product that engines do: what is added to has its epilogue behind it. */
static gemm_desc multiplied(const gemm_desc *g)
{
    gemm_desc plain = *g;
    if (!g->add)
        return plain;
    plain.bias = plain.residual = 0;
    plain.act = plain.act_grad = ACT_NONE;
    plain.drop_p = 0;
    return plain;
}

gt_status gemm_append(gemm_context *c, dev_list *l, const gemm_desc *desc, const gemm_buffers *b, gemm_slot *add_at)
{
    gemm_desc g, plain;
    const gemm_engine *e;
    gt_status st = gemm_complete(&g, desc);
    if (!st && add_at && gemm_has_epilogue(&g))
        st = gt_fail(GT_MISUSE, "cannot change whether a product with an epilogue is added to a matrix");
    if (st)
        return st;
    plain = multiplied(&g);
    st = choose(c, &plain, &e);
    if (!st)
        st = e->append(c, l, &plain, b, add_at);
    if (!st && g.add && gemm_has_epilogue(&g))
        st = gemm_epilogue_append(c, l, &g, b);
    return st;
}

gt_status gemm_scratch(gemm_context *c, const gemm_desc *desc, uint64_t *bytes)
{
    gemm_desc g;
    const gemm_engine *e;
    gt_status st = gemm_complete(&g, desc);
    if (!st)
        g = multiplied(&g);
    if (!st)
        st = choose(c, &g, &e);
    if (!st) {
        const uint64_t n = e->scratch(c, &g);
        *bytes = n < 64 ? 64 : n;
    }
    return st;
}

gt_status gemm_engine_name(gemm_context *c, const gemm_desc *desc, const char **name)
{
    gemm_desc g;
    const gemm_engine *e;
    gt_status st = gemm_complete(&g, desc);
    if (!st)
        g = multiplied(&g);
    if (!st)
        st = choose(c, &g, &e);
    if (!st)
        *name = gemm_name_of(e);
    return st;
}
