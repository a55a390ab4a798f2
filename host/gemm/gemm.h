/* SPDX-License-Identifier: MIT */
/* host/gemm/gemm.h - matrix products: one call, several engines, the fastest one chosen.
 *
 *   C (M,N) = epilogue(alpha * op(A) (M,K) * op(B) (K,N))       row-major, batches of them
 *
 * Engines  gemv     Geartrain's own kernels, cl/gemv.cl, for up to four rows times a transposed matrix, whose
 *                   time is that of reading it: any device, type and epilogue
 *          packed   Geartrain's own loops on the device's host threads, in AVX-512 (CPU devices, fp32)
 *          native   a CBLAS called on the device's host thread (CPU devices, fp32; narrower weights
 *                   are widened panel by panel, within the cache)
 *          onednn   the oneDNN library on the device's host thread (CPU devices; fp32, and the 16-bit types that
 *                   the processor itself multiplies, with fp32 sums: AVX512-BF16, AMX)
 *          matrix   Geartrain's own kernels, cl/gemm_matrix.cl, on the matrix unit of a GPU: 16-bit types, any
 *                   epilogue; where there is such a unit, and a first small product has been right
 *          tiled    Geartrain's own kernels, cl/gemm.cl: any device, type and epilogue
 *          clblast  the CLBlast library (fp32)
 *          bf16x3   fp32 on the matrix unit of a GPU, each number as the sum of two of bf16: 16 bits of 24, so it
 *                   never runs but by name
 * Which one runs is measured once per device and shape (for a large product: on a smaller one of
 * its kind), at the first use, and kept in the cache folder "gemm"; a later run reads it there, so
 * the choice, and with it every bit of the result, stays the same. GEARTRAIN_GEMM=NAME
 * decides by hand; what that engine cannot do (16-bit storage, say) goes to the usual one. Small
 * products and those for gemv are not measured: they take the device's usual engine, the first that can.
 *
 * The kernels of `tiled` and `matrix` can be built in several ways. What ships is used until gemm_tune() has found
 * a faster one for a class, which is kept in the cache folder "tuning".
 *
 * Sums are fp32 whatever the storage; results are bit-identical from run to run, and the same in every way in
 * which an engine's kernel can be built.
 * Errors   GT_MISUSE a description that makes no sense · GT_UNSUPPORTED the engine asked
 *          for cannot do it · GT_BUILD, GT_DEVICE, GT_NO_MEMORY as in device.h
 * Threads  a context belongs to its device: one thread at a time.                       */
#ifndef GT_GEMM_GEMM_H
#define GT_GEMM_GEMM_H

#include "host/device/device.h"
#include "host/tensor/activation.h"

typedef struct gemm_context gemm_context;   /* programs, engines and choices of a device */

/* What libraries read from the environment when they are loaded; what the user has set stays. Call it before
 * there are threads. */
void gemm_prepare_process(void);

/* `engine` forces one by name; NULL or "auto" asks GEARTRAIN_GEMM, then measures.
 * GT_MISUSE for a name that is not known, GT_UNSUPPORTED for one this device or build
 * lacks. The device must outlive the context, the context every list appended to. */
gt_status gemm_context_create(gemm_context **out, dev_device *d, const char *engine);
void gemm_context_release(gemm_context *c);        /* takes NULL */
dev_device *gemm_device(const gemm_context *c);

/* The engines chosen so far, to a file and back. A run keeps them beside its checkpoints, so
 * that it resumes with the same sums whatever has been measured since. Loading a file that
 * is not there, or lines of no use, changes nothing. */
gt_status gemm_choices_save(const gemm_context *c, const char *path);
void gemm_choices_load(gemm_context *c, const char *path);

/* What is to be computed. Zero-initialise it: a 0 is the plain case of every field but
 * M, N and K.
 *
 *   x = alpha * op(A) * op(B)
 *   x = x + bias[column]                   if bias
 *   pre = x; x = act(x)                    if act (pre is stored where a buffer is given)
 *   x = x * act_grad'(aux)                 if act_grad
 *   x = dropout(x)                         if drop_p > 0
 *   x = x + residual                       if residual
 *   C = x; or, where `add`, x = C + alpha * op(A) * op(B) to begin with
 *
 * pre, aux and residual lie as C does: its type, ldc and stride_c. Residual may be C's own
 * buffer, so may aux. Of act and act_grad one is ACT_NONE, or both are one. Dropout is as in
 * host/kernel/kernel.h, with element random[3] * drop_sequence + (batch index * M + row) * N + column.    */
typedef struct gemm_desc {
    int M, N, K;
    int trans_a, trans_b;           /* 1: A is stored (K,M), B is stored (N,K)           */
    dtype a_type, b_type, c_type;   /* DTYPE_F32, DTYPE_BF16, DTYPE_F16: C as A is, or fp32; B too, or
                                       narrower: DTYPE_BF16, or DTYPE_Q8, dense, one B (q8.h). What
                                       B's numbers stand for in fp32 is what is multiplied */
    int b_first;                    /* DTYPE_Q8: where in its block B's column 0 is      */
    int lda, ldb, ldc;              /* elements from a stored row to the next; 0 = dense */
    int batch;                      /* how many products; 0 = 1                          */
    int64_t stride_a, stride_b, stride_c;   /* elements from one to the next             */
    float alpha;                    /* 0 = 1                                             */
    int add;
    int bias, residual;
    activation act, act_grad;
    float drop_p;
    uint32_t drop_stream;
    int64_t drop_sequence;          /* elements of one sequence of C                     */
    int cold;                       /* C is not read soon: it need not stay in caches. Changes no bit of it */
} gemm_desc;

/* What it is computed on; what the description does not use may be NULL. Contents outside
 * the matrices (between ld and width) are neither read into a result nor written. */
typedef struct gemm_buffers {
    dev_buffer *a, *b, *c;
    dev_buffer *bias;               /* fp32 (N)                                          */
    dev_buffer *pre, *aux, *residual;
    dev_buffer *random;             /* uint32[4], see kernel_dropout in kernel/kernel.h   */
    dev_buffer *scratch;            /* gemm_scratch() bytes; free again after the launch */
} gemm_buffers;

/* Where a list keeps the argument that says 0 = overwrite C, 1 = add to it. */
typedef struct gemm_slot {
    int launch, arg;
} gemm_slot;

/* Appends the product to `l`. If add_at is not NULL, `add` can be changed later with
 *     dev_list_set(l, add_at->launch, add_at->arg, dev_arg_i32(add))
 * whatever the engine: it takes effect for every dev_run after that, and not for those
 * already queued, because the value travels with the launch. */
gt_status gemm_append(gemm_context *c, dev_list *l, const gemm_desc *g, const gemm_buffers *b, gemm_slot *add_at);

/* Bytes of scratch a product needs, at least 64; part of the memory layout. Settles which
 * engine it will be, so the first call for a shape may measure. */
gt_status gemm_scratch(gemm_context *c, const gemm_desc *g, uint64_t *bytes);

/* What another room chooses among engines for, by its own measurements, once a device and kind; kept along with
 * the choices for products. Own kernels count as engine `tiled`. */
typedef struct gemm_other {
    char what, kind;                /* letters of the room's own */
    dtype type;
    int size[4];
} gemm_other;
/* The engine that was chosen; NULL if none has been. */
const char *gemm_other_known(const gemm_context *c, const gemm_other *o);
gt_status gemm_other_keep(gemm_context *c, const gemm_other *o, const char *engine, double seconds);
/* The engine that the user asked for; NULL: it is measured. */
const char *gemm_forced_name(const gemm_context *c);

/* The engine gemm_append would use. */
gt_status gemm_engine_name(gemm_context *c, const gemm_desc *g, const char **name);
/* The unit by which `matrix` multiplies on this device ("MFMA"), found now if it is not known; or NULL, and
 * *why in words, which is the context's and NULL where nobody asks for one (CPUs). */
const char *gemm_matrix_unit(gemm_context *c, const char **why);
/* The most FLOPs a second that a product of matrices of this storage has been measured to reach on the
 * device, now or in an earlier run; 0 if none has been measured. */
double gemm_best_rate(const gemm_context *c, dtype storage);
/* The names of all engines, with `between` between them, those too that this build is without. Returns
 * out. */
char *gemm_engine_names(char *out, size_t size, const char *between);

/* Those that multiply matrices of this storage type on the context's device, of one row or of many. Returns out. */
char *gemm_engines_for(gemm_context *c, dtype storage, char *out, size_t size, const char *between);

/* ---- tuning ------------------------------------------------------------------------- */

enum { GEMM_VARIANT_CHARS = 96 };
typedef struct gemm_tune_limits {
    double seconds;                 /* after so many no further variant is begun           */
    int variants;                   /* so many are built, beside what is used without tuning */
} gemm_tune_limits;

/* A variant that was tried. */
typedef struct gemm_trial {
    const char *variant;            /* "rows:6,vectors:4,..."                               */
    double seconds;                 /* of its fastest run; 0: it does not count, and        */
    const char *why;                /* this is why: it cannot be built, or is wrong         */
} gemm_trial;

typedef void gemm_tune_each(void *context, const gemm_trial *trial);

typedef struct gemm_tune_result {
    const char *engine;             /* NULL: this product has no kernel that can be tuned   */
    int M, N, K;                    /* of what was measured: g's own sizes, or smaller      */
    char usual[GEMM_VARIANT_CHARS]; /* what ships for it                                    */
    char variant[GEMM_VARIANT_CHARS];   /* the fastest; the usual one, if none is faster by 3 % */
    double usual_s, variant_s;      /* of one product, both run in turns                    */
    int tried, skipped;             /* the latter of the former did not count               */
} gemm_tune_result;

/* Looks for the fastest way to build the kernel by which `engine` (NULL: the first that can) multiplies g: first
 * combinations from all over what is legal on the device, then neighbours of the best. Each one's product of
 * random matrices has to equal, bit for bit, that of what ships, which is held to the host's own on sampled
 * elements. The result is used at once and kept for later runs, and the choice between engines is made again
 * where there was one. `each`, which may be NULL, is given every trial.
 * GT_MISUSE for an engine that is not known · GT_NUMERIC if what ships is wrong · GT_INTERRUPTED */
gt_status gemm_tune(gemm_context *c, const gemm_desc *g, const char *engine, const gemm_tune_limits *limits,
                    gemm_tune_each *each, void *context, gemm_tune_result *out);

/* The same beside other work on the device, a trial now and then, for the engine that has been chosen for g: it stays
 * chosen. Only variants count that take no more launches and scratch memory than the usual one, so that lists that
 * multiply g can be made again where they stand. *out NULL: the engine's kernel cannot be tuned, or is for products
 * of g's class. The context must outlive the tuner. */
typedef struct gemm_tuner gemm_tuner;
gt_status gemm_tuner_create(gemm_tuner **out, gemm_context *c, const gemm_desc *g, const gemm_tune_limits *limits);
/* Builds and times one variant, and waits for the device; the first time the usual one. *over: it was the last, what
 * was found is in *result and kept as gemm_tune() keeps it. What fails ends the tuning, and nothing else. */
gt_status gemm_tuner_try(gemm_tuner *t, int *over, gemm_tune_result *result);
void gemm_tuner_release(gemm_tuner *t);            /* takes NULL */

/* The file in which this device's tunings are kept; NULL: they are not kept. The context's. */
const char *gemm_tuning_file(gemm_context *c);

/* ---- measurements ------------------------------------------------------------------- */

/* What the device reaches with nothing but fused multiply-adds in registers, and with
 * nothing but copying (bytes read + bytes written); cl/peak.cl. Takes about 0.3 s. Of a slowed
 * device: what it would reach at full speed. */
typedef struct gemm_peak {
    double flops, copy_bytes;
} gemm_peak;    /* a second */
gt_status gemm_peak_measure(dev_device *d, gemm_peak *out);
/* The same, measured once a device and kept in the cache folder "peak". */
gt_status gemm_peak_cached(dev_device *d, gemm_peak *out);

/* A plain copy of a size of one's own, to be run in turns with what it is held against: on a shared machine
 * both change from moment to moment. `bytes` are those read and written together, at most the device's
 * largest buffer; gemm_copy_run() takes the shortest of so many runs, behind one that is not counted. */
typedef struct gemm_copy gemm_copy;
gt_status gemm_copy_create(gemm_copy **out, dev_device *d, uint64_t bytes);
void gemm_copy_release(gemm_copy *c);              /* takes NULL */
gt_status gemm_copy_run(gemm_copy *c, int runs, double *bytes_per_second);

/* What the device can do at most, in FLOPs a second, with operands of a storage type: its peak, of which a
 * model's FLOPs are a share (MFU; Chowdhery et al., "PaLM", 2022, appendix B). fp32: measured
 * multiply-adds. 16-bit types: the same where the device widens them in order to compute; 0, not known,
 * where it has matrix units or arithmetic of its own for them (a processor: that an engine uses), which
 * cl/peak.cl does not reach. */
double gemm_peak_of(const dev_info *info, int matrix_units, const gemm_peak *peak, dtype storage);

typedef struct gemm_result {
    const char *engine;
    int runs;
    double min_s, median_s, p99_s;  /* of one product, device waited for               */
    double flops;                   /* a second, of the median run                     */
    double share;                   /* of the peak given to gemm_bench; 0 if that was 0 */
    double error;                   /* largest difference from the host's own product, in
                                       units of the sum of |a * b|, on sampled elements */
} gemm_result;

/* Runs one product on random data with every engine that can (or the one the context is
 * forced to): checks it, warms up, times it at least `runs` times, and hands each result to
 * `each`. GT_NUMERIC if an engine's result is wrong. */
gt_status gemm_bench(gemm_context *c, const gemm_desc *g, int runs, double peak_flops,
                     void (*each)(void *context, const gemm_result *r), void *context);

#endif
