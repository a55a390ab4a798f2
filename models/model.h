/* SPDX-License-Identifier: MIT */
/* models/model.h - a model is a description and a function that builds its graph.
 *
 * Which descriptions, graphs and files there are is up to families (family.h); here is what they share.
 *
 * Names   gpt2-124m 355m 774m 1558m · gpt3-125m ... gpt3-175b · gpt2-mini (nanoGPT's
 *         CPU configuration) · gpt2-tiny · llama2-7b ... llama3.2-1b · smollm2-135m · mistral-7b ·
 *         qwen2.5-0.5b ... qwen3-8b · gemma-2b · llama-mini · llama-tiny; or a JSON file with the
 *         keys of Hugging Face's config.json (model_type, n_layer, n_head, n_embd, n_positions, ...);
 *         or a folder that holds such a config.json; or a checkpoint of llama2.c.
 * Tensors are named as Hugging Face names them, without the prefix of the architecture; matrices are
 * stored (out, in), whatever files hold.                                                  */
#ifndef GT_MODELS_MODEL_H
#define GT_MODELS_MODEL_H

#include "host/data/batch.h"
#include "host/graph/exec.h"
#include "host/graph/graph.h"
#include "host/graph/params.h"

typedef struct model_family model_family;
struct st_file;
struct st_writer;

/* What a model is asked for: the next token, tokens that are hidden from it, a class of a whole text, or
 * nothing but its last activations. */
typedef enum model_task { MODEL_LM, MODEL_MLM, MODEL_CLASSIFY, MODEL_ENCODE } model_task;
enum { MODEL_LABELS = 64, MODEL_LABEL_NAME = 48 };      /* names that are kept, and their bytes */

/* What of a model is trained, and how the rest of it is kept. All zero: all of it. */
enum { MODEL_PATTERNS = 256, MODEL_SAVED = 1024 };
typedef struct model_tuning {
    char freeze[MODEL_PATTERNS];    /* names of tensors that are not trained: graph_train()   */
    int rank;                       /* of adapters (lora.h); 0: there are none, and the model itself is trained */
    float alpha, dropout;
    char targets[MODEL_PATTERNS];   /* names of matrices that have one; "": the family's usual ones */
    int dora, rslora;
    char saved[MODEL_SAVED];        /* names of tensors that are trained, and kept, whole beside adapters; "": none */
    dtype base;                     /* frozen matrices are kept as; DTYPE_F32: as all matrices are */
} model_tuning;

/* What planners, trainers and people ask of any model, and room for what its family has of its own. */
enum { MODEL_OWN = 32 };
typedef struct model_config {
    char family[16];                /* "gpt2" (GPT-3 shares its graph)             */
    char name[64];                  /* "gpt2-124m", or the file's name             */
    int layers, heads, channels, inner, context, vocab;
    int vocab_given;                /* 0: the tokenizer decides                    */
    int untied_head;                /* the head has a table of its own             */
    int weighted;                   /* targets have weights, in the input "weights"; of a run, not of a file */
    int task;                       /* of model_task: what the head is for                   */
    int labels;                     /* classes of MODEL_CLASSIFY                              */
    char label[MODEL_LABELS][MODEL_LABEL_NAME];     /* their names; "": it has none            */
    int pairs;                      /* MODEL_MLM: whether the second text follows the first is asked, too */
    int new_heads;                  /* a head that a file lacks begins anew, from head_seed; of a run */
    uint64_t head_seed;
    int new_labels;                 /* the weights know no classes yet; of a run              */
    const struct data_marks *marks; /* how batches are marked and masked; of a run, NULL: not known */
    int documents;                  /* tokens see their own document alone: input "starts"; of a run as well */
    float dropout_embed, dropout_attention, dropout_residual;
    float eps;                      /* of the norms                                */
    float init_deviation;
    model_tuning tuning;            /* of a run, not of a file                     */
    double own[MODEL_OWN];          /* the family's: gpt2.h                        */
} model_config;

/* The family of a description; GT_UNSUPPORTED if this program has none of that name. */
gt_status model_family_of(const model_family **out, const model_config *c);

/* Finds a preset, reads a file (a config.json, or weights in a family's own format), or a folder's config.json. GT_MISUSE with the names known
 * when it is neither; GT_FORMAT, GT_UNSUPPORTED for files: every key must be known not to change
 * the model, or say what is computed here. */
gt_status model_config_load(model_config *out, const char *name);
/* Another task than the family's own, by name: "lm", "mlm", "classify" or "encode". GT_MISUSE, with those
 * that there are, if the family has no such head. */
gt_status model_config_task(model_config *c, const char *task);
const char *model_task_name(int task);
/* So many classes, with these names (NULL: none). GT_MISMATCH if the weights that the description came with tell
 * others apart. */
gt_status model_config_labels(model_config *c, char *const *names, int count);
/* Every probability to drop with. */
void model_config_dropout(model_config *c, float p);
/* Checks that sizes make sense together. */
gt_status model_config_check(const model_config *c);
/* What a key of a description is for. */
typedef enum model_key {
    MODEL_COMPUTES = 1, /* shapes and mathematics: the weights mean nothing else */
    MODEL_BEGINS = 2, /* what weights are drawn from                           */
    MODEL_DROPS = 4
} model_key; /* dropout, which --dropout may change           */
/* Calls put with each key of these kinds (of model_key, or'ed), as config.json names it, and its value. */
void model_config_each(const model_config *c, int kinds, void (*put)(void *context, const char *key, const char *value),
                       void *context);
/* 1 if a key of these kinds differs, with the first that does in out: "n_head 2, not 4", a's value
 * before b's. The name is not compared, nor a vocabulary that one of them leaves open. */
int model_config_difference(char *out, size_t size, const model_config *a, const model_config *b, int kinds);
/* HF's config.json as a fresh string. */
gt_status model_config_json(char **out, const model_config *c);
/* The i-th preset's name; NULL after the last. */
const char *model_preset_name(int i);
/* Parameters of the whole model, counted on its graph; an open vocabulary counts as one token.
 * INT64_MAX for what is too large to be built. */
int64_t model_parameters(const model_config *c);
/* What has to be held of the whole model: parameters that are trained, and bytes of those that are not, where
 * matrices are stored as `storage`. */
gt_status model_sizes(const model_config *c, dtype storage, int64_t *trained, uint64_t *frozen);
/* How texts are read where neither the model's folder nor an option says: as --tokenizer takes it. */
const char *model_tokenizer(const model_config *c);
/* FLOPs of a step's token forward and backward: 6 N + 12 L C T / 2 (causal), with N the
 * parameters in matrix products: the convention of PaLM's MFU, appendix B. */
double model_flops_per_token(const model_config *c, int T);

/* Builds tokens -> loss with gradients if `train`. Inputs: tokens, targets i32 (B,T), and with
 * `weighted` weights fp32 (B,T), with `documents` starts i32 (B,T); see graph.h for the rest. Dropout only when training. */
gt_status model_build_loss(graph *g, const model_config *c, int train, int recompute);
/* How many units a pipeline can cut between, and a part of them (graph.h); NULL: all. */
int model_units(const model_config *c);
gt_status model_build_part(graph *g, const model_config *c, const graph_part *part, int train, int recompute);
/* The same for those who know no models: a stage_builder, and the `build` of train_model, plan_model and
 * profile_model. config is a model_config. */
gt_status model_build_config(graph *g, const void *config, const graph_part *part, int train, int recompute);
/* The batches of the model's family, a data_batch_maker: what graphs of model_build_config() read. */
void model_batch(data_batch *out, const void *config, const loader *l, const char *split);
/* Builds tokens (B,T new ones) -> "logits" with caches for `capacity` positions, and the
 * position of the first of them in the input "first". GT_UNSUPPORTED if the family does not generate. */
gt_status model_build_generate(graph *g, const model_config *c, int capacity);
/* The same of a run of units, for a pipeline: without the embedding "x" comes in (B,T,C) instead of tokens, and
 * without the head activations go out (graph_ends_of()) instead of logits. */
gt_status model_build_generate_part(graph *g, const model_config *c, const graph_part *part, int capacity);

/* GT_UNSUPPORTED if a folder holds an adapter (lora.h) and no model: its model lies elsewhere. Needs no
 * config.json to be there. */
gt_status model_folder_check(const char *folder);
/* Reads the tensors of an HF folder (model.safetensors, or shards and their index), or of a file in a format of the
 * family's own, into p;
 * all must be there with the right shapes, and finite. A tensor that is no part of the model is
 * refused by name, but for masks of old files and, with a warning, heads of other tasks. Where the
 * head is tied it must be the embedding; a file that holds the head alone has its embedding in it. */
gt_status model_import(const model_config *c, params *p, const char *folder);
/* Appends to `out` those of our tensors that belong to the task's head and have no numbers in a folder (NULL: none has):
 * names with commas between them. GT_UNSUPPORTED if they do not fit. */
gt_status model_new_heads(char out[MODEL_SAVED], const model_config *c, const char *folder);
/* Appends those whose names in files lie in a module that ends so, as PEFT finds modules: none is no error. */
gt_status model_tensors_within(char out[MODEL_SAVED], const model_config *c, const char *module);
/* Tensors that tuning.saved names, from and to a file of an adapter, where `front` stands before the names of the
 * model's own files. used: increased by how many of the file's these are. modules: names that end with NULL; what is
 * tied to another tensor and lies in one of them is written, too. numbers 0: declares them alone. */
gt_status model_import_saved(const model_config *c, params *p, const struct st_file *f, const char *front,
                             const char *folder, size_t *used);
gt_status model_put_saved(struct st_writer *w, const model_config *c, params *p, const char *front,
                          const char *const *modules, dtype type, int numbers);
/* Of how many tensors of files one of ours is made, side by side along its outputs: 1 mostly. And the name of
 * one of several, equal ones, without the prefix: adapters are made for those. */
int model_tensor_pieces(const model_config *c, const char *ours);
gt_status model_tensor_piece(char *out, size_t size, const model_config *c, const char *ours, int piece);
/* What files call one of our tensors, or a piece of one, with the prefix; *transposed: they hold it (in, out).
 * GT_UNSUPPORTED where the family has no name for it, or several. */
gt_status model_tensor_name(char *out, size_t size, const model_config *c, const char *ours, int *transposed);
/* Writes config.json and model.safetensors as transformers' class of the family reads them, with adapters merged
 * into the matrices that they are for.
 * type: DTYPE_F32, or what to round to. */
gt_status model_export(const model_config *c, params *p, dtype type, const char *folder);

#endif
