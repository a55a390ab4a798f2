/* SPDX-License-Identifier: MIT */
/* host/compress/compressor.h - what a file of this room fills in to make gradients travel in fewer bytes.
 *
 *   gradients (+ what was held back) ─► encode ─► summed, or gathered, over ranks ─► decode ─► sums
 *                    error ◄── less what the encoding says ─┘
 *
 * A new compressor is one file and one row of the table (compressors.c); options, their checks and help
 * read that. It appends launches to lists that are made once; the modes of sums run them, move the
 * encodings and keep what it holds back (coding.h). It sees either any range of fp32 values, or one tensor
 * at a time.
 *
 * Error feedback (Karimireddy et al., "Error Feedback Fixes SignSGD", ICML 2019): with keeps_error,
 * what an encoding left out of a rank's gradient is added to that rank's gradient of the next step. It
 * is part of the run's state, and in its checkpoints; so is the momentum of those that collect it before they
 * encode (Lin et al., "Deep Gradient Compression", ICLR 2018), and what else a compressor keeps of a range. With
 * moments, what is encoded, held back and added up is not gradients but the optimizer's new first moments. */
#ifndef GT_COMPRESS_COMPRESSOR_H
#define GT_COMPRESS_COMPRESSOR_H

#include "host/compress/compress.h"
#include "host/device/device.h"
#include "host/graph/graph.h"
#include "host/kernel/kernel.h"

typedef struct compress_range {
    int64_t first, count;               /* fp32 values of the bucket                        */
    const graph_param_info *info;       /* the tensor they are, whole; NULL: a range of any */
    dev_buffer *grad;                   /* to encode, and where the sum goes                */
    /* Filled in by coding.c: */
    const compress_spec *spec;
    int level;                          /* of how->levels                                   */
    int ranks;                          /* whose encodings are added up                     */
    uint32_t stream, own_stream;        /* of random words: the same on all ranks; of this one alone */
    dev_buffer *random;                 /* u32[4], of the step (kernel_compress_begin)      */
    dev_buffer *state, *next;           /* fp32, how->state() values: what the last step that was taken left, */
    dev_buffer *scratch;                /*   and what this one leaves; memory between the lists of a step */
} compress_range;

/* A number that may stand behind a compressor's name. */
typedef struct compress_number {
    const char *name, *help;            /* name of the one behind ':': "FRACTION"           */
    double usual, least, most;          /* usual NAN: it must be given                      */
    int whole;                          /* 1: no fractions                                  */
    size_t place;                       /* of the double in compress_spec                   */
} compress_number;

struct compressor {
    const char *name, *help;
    dtype type;                         /* of an encoding's elements, and what the network adds in */
    int tensors;                        /* 1: every range is a tensor                       */
    int gathers;                        /* 1: decode() gets every rank's encoding; 0: their sum */
    int whole;                          /* 1: nothing is encoded; tensors go as they are or wait (--send-threshold) */
    int keeps_error;
    int serves; /* 1: with spec->server, sums of three ranks and more are encoded again (coding.h) */
    int moments; /* 1: see above; for modes in which each rank has them whole */
    int warms_up; /* 1: there must be steps before it (compress_spec.after)  */
    int all; /* 1: vectors and small tensors as well; 0: they travel as they are */
    int rounds; /* exchanges of a step; a round may build on the ones before */
    const compress_number *parameter; /* behind ':'; NULL: there is none                  */
    const compress_number *numbers; /* behind ',', as NAME=VALUE; a { 0 } behind the last; NULL: none */
    /* NULL: any tensor of two or more dims that is large enough. */
    int (*worth)(const compress_spec *s, const graph_param_info *info);
    /* 1: in this step, counted from the first that compresses, gradients travel as they are all the same. NULL: in
     * none. */
    int (*plain)(const compress_spec *s, uint64_t step);
    /* See compress_round(), of steps counted from the first that compresses. NULL: all rounds have one step. */
    uint64_t (*round)(const compress_spec *s, uint64_t step, uint64_t *first);
    /* How many sizes of encodings a run goes through, one after the other. NULL: 1. */
    int (*levels)(const compress_spec *s);
    /* Elements of an encoding. NULL: as many as values, one for each, so that ranks may exchange those
     * of their parts alone; only for a flat, summed one of one round. */
    int64_t (*elements)(const compress_range *r, int round);
    /* fp32 values of r->state and r->scratch. NULL: none. */
    int64_t (*state)(const compress_range *r), (*scratch)(const compress_range *r);
    /* k: kernels whose storage is `type`. NULL: gradients travel as they are. */
    gt_status (*encode)(dev_list *l, kernel_set *k, const compress_range *r, int round, dev_buffer *to);
    /* encode() of r->grad and what was held back, which also leaves what it leaves out (h->next), in one pass; for one of
     * one round that keeps errors. r->grad may stay as it was. NULL: coding.c adds, encodes, decodes and subtracts. */
    gt_status (*encode_held)(dev_list *l, kernel_set *k, const compress_range *r, const kernel_holding *h,
                             dev_buffer *to);
    /* from[0..count): encodings whose sum is the result; one of all ranks together, or one of each.
     * to: count values, r->grad or memory of the caller's; written in the last round at the latest. Of the last
     * round it is called twice: for what this rank alone said, and for the sum. */
    gt_status (*decode)(dev_list *l, kernel_set *k, const compress_range *r, int round, dev_buffer *const *from,
                        int count, dev_buffer *to);
};

extern const compressor compress_none, compress_bf16, compress_fp16, compress_int8, compress_topk, compress_randomk,
    compress_powersgd, compress_demo, compress_onebit, compress_zeroone;

/* 1: gradients of this tensor are encoded, and do not travel as they are. */
int compress_takes(const compress_spec *s, const graph_param_info *info);
/* Sizes of encodings, and which one step `step` has. */
int compress_levels(const compress_spec *s);
int compress_level(const compress_spec *s, uint64_t step);
/* 1: nothing is encoded yet, or in this step. */
int compress_waits(const compress_spec *s, uint64_t step);

#endif
