/* SPDX-License-Identifier: MIT */
/* models/family.h - a family of models: all that one kind of transformer has of its own.
 *
 *   gpt2.c ─── struct model_family ─┬─ config.c     reads, compares and writes config.json by `fields`
 *                                   ├─ model.c      builds graphs, and batches for them, by its functions
 *                                   ├─ hf.c         reads and writes weights by `tensors`
 *                                   └─ model_reference.c
 *
 * To add a family: one file that fills this struct, and its line in families.c. No other file of
 * the program names a family.                                                              */
#ifndef GT_MODELS_FAMILY_H
#define GT_MODELS_FAMILY_H

#include "models/model.h"
#include "models/model_reference.h"

#include <stddef.h>

/* ---- config.json ------------------------------------------------------------------------ */

/* What may stand at a key. */
typedef enum model_field_type {
    MODEL_SIZE,             /* a whole number from 1 up                                      */
    MODEL_COUNT,            /* a whole number from 0 up                                      */
    MODEL_LIMIT,            /* a whole number from 1 up; null: 0, none                       */
    MODEL_NUMBER,           /* a number from 0 up                                            */
    MODEL_SHARE,            /* a number in [0, 1)                                            */
    MODEL_FLAG,             /* true or false                                                 */
    MODEL_NOT,              /* the same, kept as its opposite                                */
    MODEL_WORD,             /* one of `words`; absent: the first                             */
    MODEL_LAYERS,           /* a list with one of two words a layer, the first one's layers before
                               the second one's: how many they are, into `at`; absent: as it was.
                               Not written                                                   */
    MODEL_ALIAS,            /* another name of the size at `at`: must say the same           */
    MODEL_ONE,              /* only null and 1 are computed                                  */
    MODEL_OFF,              /* only false, null, 0 or an empty list or object is computed    */
    MODEL_IGNORED           /* does not touch the loss                                       */
} model_field_type;

/* A word and the number that is kept for it; of several for one number the first is written. */
typedef struct model_word {
    const char *word;
    int value;
} model_word;

/* A key and its member of model_config: a float (SHARE), else an int; a double within `own`, whatever the type.
 * NUMBER and LAYERS must be there. A dot in a key leads into an object, where only what is not its fallback is
 * written: "rope_scaling.factor". Rows are read, compared and written in their order; a key that has no row may
 * change the model, so anything but null is refused. */
typedef struct model_field {
    const char *key;
    model_field_type type;
    size_t at;
    int kinds;              /* of model_key, or'ed; 0: not compared                          */
    double fallback;        /* where the key is absent or null; MODEL_REQUIRED: it may not be */
    const model_word *words;            /* WORD: ends with { 0 }                             */
} model_field;
#define MODEL_REQUIRED (-1.0)
#define MODEL_AT(member) offsetof(model_config, member)
#define MODEL_AT_OWN(i) (offsetof(model_config, own) + (size_t)(i) * sizeof(double))

/* A model that is known by name: the same keys that its config.json would have. Without a
 * vocabulary the tokenizer decides. */
typedef struct model_preset {
    const char *name, *json;
} model_preset;

/* ---- weights ------------------------------------------------------------------------------ */

enum { MODEL_PIECES = 4 };
typedef enum model_tensor_flag {
    MODEL_TRANSPOSED = 1,   /* the file holds (in, out)                                       */
    MODEL_BARE = 2,         /* stands outside of `prefix`                                    */
    MODEL_OPTIONAL = 4,     /* a file without it means zeros                                  */
    MODEL_MASK = 8,         /* of files alone, and no weight: passed over in silence          */
    MODEL_OTHER_TASK = 16,  /* of files alone: reads what the model puts out, changes nothing of
                               it; left out with a warning                                    */
    MODEL_HEAD = 32         /* of a task's head: left out with a warning where the model has another task,
                               and, where a file lacks it, begun anew if the run says so (new_heads) */
} model_tensor_flag;

/* What the graph calls a tensor, and what files do; "%d" stands for the layer, a final '*' for
 * anything. Several names on one side: theirs are joined into one of ours, or one of theirs is split
 * into ours, in their order along ours' outputs (dimension 0, or 1 where the file is transposed).
 * Shapes are those of the graph. */
typedef struct model_tensor {
    const char *ours[MODEL_PIECES], *theirs[MODEL_PIECES];
    int flags;
    /* Joined: outputs of piece i of theirs; NULL: equal shares. */
    int64_t (*outputs)(const model_config *c, int piece);
    /* Another of ours whose numbers this one has in a model that has no such parameter: it may be in
     * the file if it holds the same, and stand for the other one if that is missing. */
    const char *tied;
} model_tensor;

/* What a family can be asked for, the first unless something says otherwise; and the class of transformers that
 * is saved for it. */
typedef struct model_head {
    int task;                           /* of model_task */
    int pairs;                          /* as in model_config */
    const char *architecture;
} model_head;

/* An ending of names in old files, and what it is today. */
typedef struct model_renamed {
    const char *then, *now;
} model_renamed;

/* ---- in double ----------------------------------------------------------------------------- */

/* Loss and gradients by host/kernel/reference.h alone. */
typedef struct model_reference_rule {
    int (*count)(const model_config *c);
    void (*describe)(const model_config *c, int i, char name[72], int64_t *count);
    gt_status (*run)(const model_config *c, model_reference_tensor *tensors, int B, int T, const int32_t *tokens,
                     const int32_t *targets, const double *weights, double *loss);
} model_reference_rule;

/* ---- the family ------------------------------------------------------------------------------ */

struct model_family {
    const char *name;                   /* model_config.family, and model_type as it is written */
    const char *const *types;           /* values of model_type that it reads; ends with NULL   */
    const char *architecture;           /* of transformers, as exports name it, where `heads` do not */
    const model_head *heads;            /* ends with { 0 }; NULL: the next token alone           */
    const char *tokenizer;              /* for texts, where neither options nor the model's folder
                                           say: as --tokenizer takes it; NULL: none would do                          */
    const model_field *fields;          /* end with { 0 }, as presets and tensors do             */
    const model_preset *presets;
    /* Fills what is still 0 from the rest; NULL: nothing. */
    void (*complete)(model_config *c);
    /* Whether its sizes fit together, beyond what model_config_check() sees; may be NULL. */
    gt_status (*check)(const model_config *c);
    gt_status (*build_part)(graph *g, const model_config *c, const graph_part *part, int train, int recompute);
    /* As model_build_generate_part(), `part` of one rank; NULL: it does not. */
    gt_status (*build_generate)(graph *g, const model_config *c, const graph_part *part, int capacity);
    /* What it is fed with to learn, evaluated and measured by: host/data/batch.h. */
    void (*batch)(data_batch *out, const model_config *c, const loader *l, const char *split);
    /* As model_flops_per_token(). */
    double (*flops_per_token)(const model_config *c, int T);
    /* Weights in one file of a format of their own (NULL: none is known). describe: *is 1 and the model, if
     * this file is one; a file that is one and cannot be read is refused in a sentence. */
    gt_status (*describe_file)(model_config *c, const char *path, int *is);
    gt_status (*import_file)(const model_config *c, params *p, const char *path);
    const char *prefix;                 /* of files' names, or ""; files without it are read, too */
    const model_renamed *renamed;       /* ends with { 0 }; NULL: there are none                 */
    const model_tensor *tensors;
    const char *adapted;                /* patterns of matrices that adapters are usually made for, as
                                           PEFT's table has it; NULL: none is known              */
    const model_reference_rule *reference;      /* NULL: there is none                           */
};

/* All families. A file without a model_type is of the one that alone has some of its keys. Ends with NULL. A program that defines
 * its own list has that one instead (families.c holds nothing else). */
extern const model_family *const model_families[];

#endif
