/* SPDX-License-Identifier: MIT */
/* models/bert.c - BERT and RoBERTa: their keys, presets, graphs and weights.
 *
 *   x = drop(norm(word[token] + position[t] + type[kind]))
 *   layer:  x = norm(x + attn(x));   x = norm(x + mlp(x))           norm after the residual; every token
 *                                                                   sees all but padding (`lengths`)
 *   mlm       cross-entropy(norm(act(dense(x[places]))) word' + bias, targets)      tied decoder
 *     pairs   + cross-entropy(pooled w' + bias, labels)      does the second text follow the first?
 *   classify  cross-entropy(drop(pooled) w' + bias, labels)
 *   pooled = tanh(dense(x[first token]))
 *
 * Devlin et al., "BERT", 2018; Liu et al., "RoBERTa", 2019, whose positions begin behind the id of padding and
 * whose pooling belongs to the classifier and drops before as well.
 * Inputs: tokens, token_types i32 (B,T), lengths i32 (B); of mlm places, targets i32 (B,P) and, of pairs, labels
 * i32 (B) with label_weights fp32 (B); of classify labels. P is data_mask_places() of T, so the head computes what
 * is asked for and no more.
 *
 * Over the ranks of a tensor group heads, inner columns and rows of the vocabulary are split as block.h says. What a
 * head does before its loss is done by all ranks, with gradients that add up to the whole one: of the split
 * decoder every rank has a part, of a small table of classes rank 0 has all.                */
#include "models/bert.h"
#include "models/block.h"

#include "host/data/batch_classify.h"
#include "host/data/batch_mlm.h"

#include <stdio.h>

enum { WORDS };                 /* of builder.tables */

static int is_roberta(const model_config *c)
{
    return c->own[BERT_PADDING] > 0.0;
}

static int has_decoder(const builder *b)
{
    return block_has_head(b) && b->c->task == MODEL_MLM;
}

static void begin(builder *b)
{
    const model_config *c = b->c;
    if (block_has_embedding(b) || (has_decoder(b) && !c->untied_head))
        b->tables[WORDS] = block_weight(b, "", "embeddings.word_embeddings", c->vocab, c->channels, block_own_tokens(b),
                                        c->init_deviation);
}

/* ---- unit 0 ------------------------------------------------------------------------------------ */

static int input(const builder *b, const char *name, dtype type, int64_t columns)
{
    const int64_t B = graph_batch(b->g);
    return graph_input(b->g, name, type, columns ? shape_of(2, B, columns) : shape_of(1, B));
}

static int whole_table(const builder *b, const char *name, double rows)
{
    return block_weight(b, "", name, (int64_t)rows, b->c->channels, block_whole(), b->c->init_deviation);
}

static int embed(builder *b)
{
    const model_config *c = b->c;
    const int everything = b->part.rank == 0;   /* of what is added up over a tensor group */
    graph_embedding in = { .tokens = block_tokens(b),
                           .table = b->tables[WORDS],
                           .positions = -1,
                           .first = -1,
                           .kinds = -1,
                           .types = -1,
                           .offset = is_roberta(c) ? (int)c->own[BERT_PADDING] + 1 : 0 };
    if (everything) {
        in.positions = whole_table(b, "embeddings.position_embeddings", c->own[BERT_POSITIONS]);
        in.types = whole_table(b, "embeddings.token_type_embeddings", c->own[BERT_TYPES]);
        in.kinds = input(b, "token_types", DTYPE_I32, graph_tokens(b->g));
    }
    if (!everything) {
        block_elsewhere(b, "", "embeddings.position_embeddings", ".weight");
        block_elsewhere(b, "", "embeddings.token_type_embeddings", ".weight");
    }
    return graph_embed_sum(b->g, "embed", &in);
}

static int embedded(builder *b, int x)
{
    x = block_layernorm(b, "", "embeddings.LayerNorm", x);
    return graph_dropout(b->g, "embed.drop", x, block_drop(b, b->c->dropout_embed));
}

/* ---- layers ------------------------------------------------------------------------------------ */

static activation activation_of(const model_config *c)
{
    return c->own[BERT_ACTIVATION] != 0.0 ? (activation)c->own[BERT_ACTIVATION] : ACT_GELU_ERF;
}

static int layer(builder *b, int index, int x)
{
    const model_config *c = b->c;
    const int64_t C = c->channels, D = C / c->heads;
    const tensor_slice qkv = block_own(b, 0, 3, C, D);
    const int heads = qkv.parts ? (int)(qkv.count / D) : c->heads;
    const float deviation = c->init_deviation;
    char prefix[32], label[64];
    snprintf(prefix, sizeof prefix, "encoder.layer.%d.", index);
    snprintf(label, sizeof label, "%sattention.self", prefix);
    const block_matrix in = { prefix, "attention.self.qkv", 3 * C, C, qkv, 1, deviation };
    const block_matrix out = { prefix, "attention.output.dense", C, C, block_own(b, 1, 1, C, D), 1, deviation };
    const block_matrix up = {
        prefix, "intermediate.dense", c->inner, C, block_own(b, 0, 1, c->inner, 0), 1, deviation
    };
    const block_matrix down = { prefix, "output.dense", C, c->inner, block_own(b, 1, 1, c->inner, 0), 1, deviation };
    const graph_heads how = { .heads = heads,
                              .kv_heads = heads,
                              .size = (int)D,
                              .first_head = (int)(qkv.begin / D),
                              .all_heads = c->heads,
                              .drop = block_drop(b, c->dropout_attention) };
    int a = block_linear(b, &in, graph_gather_rows(b->g, label, x), ACT_NONE);
    const graph_attention_in views = { .q = { a, 0 }, .k = { a, heads * D }, .v = { a, 2 * heads * D } };
    a = graph_attention(b->g, label, &views, &how, input(b, "lengths", DTYPE_I32, 0));
    x = block_layernorm(b, prefix, "attention.output.LayerNorm", block_project(b, &out, a, x));

    snprintf(label, sizeof label, "%sintermediate", prefix);
    a = block_linear(b, &up, graph_gather_rows(b->g, label, x), activation_of(c));
    return block_layernorm(b, prefix, "output.LayerNorm", block_project(b, &down, a, x));
}

/* ---- heads ------------------------------------------------------------------------------------- */

/* A layer that every rank has all of. */
static int dense(const builder *b, const char *name, int x, activation act)
{
    const int64_t C = b->c->channels;
    const block_matrix m = { "", name, C, C, block_whole(), 1, b->c->init_deviation };
    return block_linear(b, &m, x, act);
}

static void predict_tokens(const builder *b, int x)
{
    const model_config *c = b->c;
    const int64_t P = data_mask_places((uint64_t)graph_tokens(b->g));
    const tensor_slice own = block_own_tokens(b);
    x = graph_take_rows(b->g, "cls.places", x, input(b, "places", DTYPE_I32, P));
    x = dense(b, "cls.predictions.transform.dense", x, activation_of(c));
    x = block_layernorm(b, "", "cls.predictions.transform.LayerNorm", x);
    const graph_head h = {
        .x = x,
        .w = !c->untied_head
                 ? b->tables[WORDS]
                 : block_weight(b, "", "cls.predictions.decoder", c->vocab, c->channels, own, c->init_deviation),
        .bias = block_vector(b, "", c->untied_head ? "cls.predictions.decoder.bias" : "cls.predictions.bias", c->vocab,
                             own, GRAPH_INIT_ZERO),
        .targets = input(b, "targets", DTYPE_I32, P),
        .weights = -1,
        .hits = !b->train
    };
    graph_head_loss_of(b->g, "loss", &h);
}

/* Classes of what was pooled from the first token. */
static void predict_labels(const builder *b, const char *name, int x, int labels, int weights)
{
    char bias[BLOCK_NAME];
    snprintf(bias, sizeof bias, "%s.bias", name);
    const graph_head h = { .x = x,
                           .w = block_weight(b, "", name, labels, b->c->channels, block_whole(), b->c->init_deviation),
                           .bias = block_vector(b, "", bias, labels, block_whole(), GRAPH_INIT_ZERO),
                           .targets = input(b, "labels", DTYPE_I32, 0),
                           .weights = weights };
    if (!b->train && b->c->task == MODEL_CLASSIFY)
        graph_hits(b->g, "hits", graph_logits_biased(b->g, "logits", h.x, h.w, h.bias), h.targets);
    graph_head_loss_of(b->g, name, &h);
}

static int pool(const builder *b, int x, float drop)
{
    x = graph_take_rows(b->g, "pooler.first", x, -1);
    x = graph_dropout(b->g, "pooler.first.drop", x, block_drop(b, drop));
    return dense(b, "pooler.dense", x, ACT_TANH);
}

static void head(builder *b, int x)
{
    const model_config *c = b->c;
    const float drop = (float)c->own[BERT_DROP_CLASSIFIER];
    x = graph_gather_rows(b->g, "head", x);
    if (c->task == MODEL_ENCODE) {
        graph_result(b->g, "hidden", x);
    } else if (c->task == MODEL_CLASSIFY) {
        x = pool(b, x, is_roberta(c) ? drop : 0.0f);
        x = graph_dropout(b->g, "pooler.drop", x, block_drop(b, drop));
        predict_labels(b, "classifier", x, c->labels, -1);
    } else {
        predict_tokens(b, x);
        if (c->pairs)
            predict_labels(b, "cls.seq_relationship", pool(b, x, 0.0f), 2, input(b, "label_weights", DTYPE_F32, 0));
    }
}

static const block_stack stack = { .begin = begin, .embed = embed, .embedded = embedded, .layer = layer, .head = head };

static gt_status build_part(graph *g, const model_config *c, const graph_part *part, int train, int recompute)
{
    return block_build_part(g, c, part, train, recompute, &stack);
}

static void batch(data_batch *out, const model_config *c, const loader *l, const char *split)
{
    if (c->task == MODEL_CLASSIFY)
        data_batch_classify(out, l, split, c->marks, c->labels);
    else
        data_batch_mlm(out, l, split, c->marks, c->pairs);
}

/* Every token sees all others. */
static double flops_per_token(const model_config *c, int T)
{
    const double C = c->channels, share = (double)data_mask_places((uint64_t)T) / T;
    const double head = c->task == MODEL_MLM ? share * (C * C + (double)c->vocab * C) : C * C / T;
    return 6.0 * (c->layers * (4.0 * C * C + 2.0 * C * c->inner) + head) + 12.0 * c->layers * C * T;
}

/* ---- descriptions --------------------------------------------------------------------------- */

static const char *const bert_types[] = { "bert", NULL };
static const char *const roberta_types[] = { "roberta", NULL };
/* transformers' names (activations.py, ACT2FN). */
static const model_word activations[] = {
    { "gelu", 0 },
    { "gelu_new", ACT_GELU_TANH },
    { "gelu_pytorch_tanh", ACT_GELU_TANH },
    { "relu", ACT_RELU },
    { "silu", ACT_SILU },
    { "swish", ACT_SILU },
    { "tanh", ACT_TANH },
    { 0 }
};
static const model_word positions[] = { { "absolute", 0 }, { 0 } };
static const model_word problems[] = { { "single_label_classification", 0 }, { "null", 0 }, { 0 } };

/* transformers' BertConfig; RoBERTa's has the same keys. */
#define FIELDS(PADDING) \
    { "num_hidden_layers", MODEL_SIZE, MODEL_AT(layers), MODEL_COMPUTES, 12.0, NULL }, \
        { "num_attention_heads", MODEL_SIZE, MODEL_AT(heads), MODEL_COMPUTES, 12.0, NULL }, \
        { "hidden_size", MODEL_SIZE, MODEL_AT(channels), MODEL_COMPUTES, 768.0, NULL }, \
        { "intermediate_size", MODEL_SIZE, MODEL_AT(inner), MODEL_COMPUTES, 3072.0, NULL }, \
        { "max_position_embeddings", MODEL_SIZE, MODEL_AT_OWN(BERT_POSITIONS), MODEL_COMPUTES, 512.0, NULL }, \
        { "type_vocab_size", MODEL_SIZE, MODEL_AT_OWN(BERT_TYPES), MODEL_COMPUTES, 2.0, NULL }, \
        { "vocab_size", MODEL_SIZE, MODEL_AT(vocab), MODEL_COMPUTES, 0.0, NULL }, \
        { "hidden_act", MODEL_WORD, MODEL_AT_OWN(BERT_ACTIVATION), MODEL_COMPUTES, 0.0, activations }, \
        { "layer_norm_eps", MODEL_SHARE, MODEL_AT(eps), MODEL_COMPUTES, 1e-12, NULL }, \
        { "position_embedding_type", MODEL_WORD, MODEL_AT_OWN(BERT_ONLY), MODEL_COMPUTES, 0.0, positions }, \
        { "problem_type", MODEL_WORD, MODEL_AT_OWN(BERT_ONLY), 0, 0.0, problems }, \
        { "hidden_dropout_prob", MODEL_SHARE, MODEL_AT(dropout_residual), MODEL_DROPS, 0.1, NULL }, \
        { "attention_probs_dropout_prob", MODEL_SHARE, MODEL_AT(dropout_attention), MODEL_DROPS, 0.1, NULL }, \
        { "classifier_dropout", MODEL_SHARE, MODEL_AT_OWN(BERT_DROP_CLASSIFIER), MODEL_DROPS, AS_HIDDEN, NULL }, \
        { "initializer_range", MODEL_SHARE, MODEL_AT(init_deviation), MODEL_BEGINS, 0.02, NULL }, \
        { "tie_word_embeddings", MODEL_NOT, MODEL_AT(untied_head), MODEL_COMPUTES, 1.0, NULL }, \
        PADDING    /* A decoder hides what comes after a token. */ \
        { "is_decoder", MODEL_OFF, 0, 0, 0.0, NULL },    /* Of google's first files; no class reads them. */ \
        { "directionality", MODEL_IGNORED, 0, 0, 0.0, NULL }, { "pooler_fc_size", MODEL_IGNORED, 0, 0, 0.0, NULL }, \
        { "pooler_num_attention_heads", MODEL_IGNORED, 0, 0, 0.0, NULL }, \
        { "pooler_num_fc_layers", MODEL_IGNORED, 0, 0, 0.0, NULL }, \
        { "pooler_size_per_head", MODEL_IGNORED, 0, 0, 0.0, NULL }, { "pooler_type", MODEL_IGNORED, 0, 0, 0.0, NULL }, \
        { 0 }
#define AS_HIDDEN (-2.0)        /* classifier_dropout that is not said */

static const model_field bert_fields[] = { FIELDS() };
#define OF_ROBERTA { "pad_token_id", MODEL_SIZE, MODEL_AT_OWN(BERT_PADDING), MODEL_COMPUTES, 1.0, NULL },
static const model_field roberta_fields[] = { FIELDS(OF_ROBERTA) };

/* Devlin et al., section 3, and Turc et al., "Well-read students learn better", 2019, table 1: a head has 64
 * channels, the inner layer 4 C. The vocabularies are those of the published models. */
#define BERT(L, H, C, I, V) \
    "{ \"num_hidden_layers\": " #L ", \"num_attention_heads\": " #H ", \"hidden_size\": " #C \
    ", \"intermediate_size\": " #I ", \"vocab_size\": " #V " }"
#define CASES(name, L, H, C, I) \
    { name, BERT(L, H, C, I, 30522) }, \
    { \
        name "-cased", BERT(L, H, C, I, 28996) \
    }
static const model_preset bert_presets[] = {
    CASES("bert-tiny", 2, 2, 128, 512),
    CASES("bert-mini", 4, 4, 256, 1024),
    CASES("bert-small", 4, 8, 512, 2048),
    CASES("bert-medium", 8, 8, 512, 2048),
    CASES("bert-base", 12, 12, 768, 3072),
    CASES("bert-large", 24, 16, 1024, 4096),
    { 0 }
};

/* Liu et al., 2019, section 3: BERT's sizes with byte-level BPE, no kinds of texts, and positions behind padding's. */
#define ROBERTA(L, H, C, I) \
    "{ \"num_hidden_layers\": " #L ", \"num_attention_heads\": " #H ", \"hidden_size\": " #C \
    ", \"intermediate_size\": " #I ", \"vocab_size\": 50265, \"max_position_embeddings\": 514, " \
    "\"type_vocab_size\": 1, \"layer_norm_eps\": 1e-5 }"
static const model_preset roberta_presets[] = {
    { "roberta-base", ROBERTA(12, 12, 768, 3072) }, { "roberta-large", ROBERTA(24, 16, 1024, 4096) }, { 0 }
};

static void complete(model_config *c)
{
    c->context = (int)c->own[BERT_POSITIONS] - (is_roberta(c) ? (int)c->own[BERT_PADDING] + 1 : 0);
    c->dropout_embed = c->dropout_residual;
    if (c->own[BERT_DROP_CLASSIFIER] < 0.0)
        c->own[BERT_DROP_CLASSIFIER] = (double)c->dropout_residual;
    c->own[BERT_DROP_CLASSIFIER] = (double)(float)c->own[BERT_DROP_CLASSIFIER];
}

static gt_status check(const model_config *c)
{
    if (c->channels % c->heads)
        return gt_fail(GT_MISUSE, "model '%s': %d channels do not divide into %d heads", c->name, c->channels,
                       c->heads);
    if (c->channels / c->heads > 256)
        return gt_fail(GT_UNSUPPORTED, "model '%s': heads of %d channels, more than the 256 supported", c->name,
                       c->channels / c->heads);
    return GT_OK;
}

/* ---- weights -----------------------------------------------------------------------------------
 *
 *   ours   encoder.layer.0.attention.self.qkv.weight (3C, C)
 *   theirs encoder.layer.0.attention.self.query.weight (C, C), .key.weight, .value.weight     */

#define SAME(name, flags) { .ours = { name }, .theirs = { name }, flags, NULL, NULL }
#define BOTH(name, flags) SAME(name ".weight", flags), SAME(name ".bias", flags)
#define LAYER(name) BOTH("encoder.layer.%d." name, 0)
#define HERE(ours_, theirs_) { .ours = { ours_ }, .theirs = { theirs_ }, .flags = MODEL_BARE | MODEL_HEAD }
#define QKV(kind) \
    { \
        .ours = { "encoder.layer.%d.attention.self.qkv." kind }, .theirs = { \
            "encoder.layer.%d.attention.self.query." kind, \
            "encoder.layer.%d.attention.self.key." kind, \
            "encoder.layer.%d.attention.self.value." kind \
        } \
    }
#define ENCODER \
    SAME("embeddings.word_embeddings.weight", 0), SAME("embeddings.position_embeddings.weight", 0), \
        SAME("embeddings.token_type_embeddings.weight", 0), BOTH("embeddings.LayerNorm", 0), QKV("weight"), \
        QKV("bias"), LAYER("attention.output.dense"), LAYER("attention.output.LayerNorm"), \
        LAYER("intermediate.dense"), LAYER("output.dense"), LAYER("output.LayerNorm"), \
        { .theirs = { "embeddings.position_ids" }, .flags = MODEL_MASK }, \
    { \
        .theirs = { "embeddings.token_type_ids" }, .flags = MODEL_MASK \
    }

static const model_tensor bert_tensors[] = {
    ENCODER,
    BOTH("pooler.dense", MODEL_HEAD),
    BOTH("cls.predictions.transform.dense", MODEL_BARE | MODEL_HEAD),
    BOTH("cls.predictions.transform.LayerNorm", MODEL_BARE | MODEL_HEAD),
    SAME("cls.predictions.bias", MODEL_BARE | MODEL_HEAD),
    { .ours = { "cls.predictions.decoder.bias" },
      .theirs = { "cls.predictions.decoder.bias" },
      .flags = MODEL_BARE | MODEL_HEAD,
      .tied = "cls.predictions.bias" },
    { .ours = { "cls.predictions.decoder.weight" },
      .theirs = { "cls.predictions.decoder.weight" },
      .flags = MODEL_BARE | MODEL_HEAD,
      .tied = "embeddings.word_embeddings.weight" },
    BOTH("cls.seq_relationship", MODEL_BARE | MODEL_HEAD),
    BOTH("classifier", MODEL_BARE | MODEL_HEAD),
    /* transformers' BertForQuestionAnswering. */
    { .theirs = { "qa_outputs.*" }, .flags = MODEL_OTHER_TASK },
    { .flags = 0 }
};

static const model_tensor roberta_tensors[] = {
    ENCODER,
    HERE("pooler.dense.weight", "classifier.dense.weight"),
    HERE("pooler.dense.bias", "classifier.dense.bias"),
    HERE("classifier.weight", "classifier.out_proj.weight"),
    HERE("classifier.bias", "classifier.out_proj.bias"),
    HERE("cls.predictions.transform.dense.weight", "lm_head.dense.weight"),
    HERE("cls.predictions.transform.dense.bias", "lm_head.dense.bias"),
    HERE("cls.predictions.transform.LayerNorm.weight", "lm_head.layer_norm.weight"),
    HERE("cls.predictions.transform.LayerNorm.bias", "lm_head.layer_norm.bias"),
    HERE("cls.predictions.bias", "lm_head.bias"),
    { .ours = { "cls.predictions.decoder.bias" },
      .theirs = { "lm_head.decoder.bias" },
      .flags = MODEL_BARE | MODEL_HEAD,
      .tied = "cls.predictions.bias" },
    { .ours = { "cls.predictions.decoder.weight" },
      .theirs = { "lm_head.decoder.weight" },
      .flags = MODEL_BARE | MODEL_HEAD,
      .tied = "embeddings.word_embeddings.weight" },
    /* RobertaModel's own pooling, which no head here reads. */
    { .theirs = { "pooler.dense.weight" }, .flags = MODEL_OTHER_TASK },
    { .theirs = { "pooler.dense.bias" }, .flags = MODEL_OTHER_TASK },
    { .theirs = { "qa_outputs.*" }, .flags = MODEL_OTHER_TASK },
    { .flags = 0 }
};

/* TensorFlow's names, in the first files. */
static const model_renamed renamed[] = {
    { "LayerNorm.gamma", "LayerNorm.weight" }, { "LayerNorm.beta", "LayerNorm.bias" }, { 0 }
};

static const model_head bert_heads[] = {
    { MODEL_MLM, 0, "BertForMaskedLM" },
    { MODEL_MLM, 1, "BertForPreTraining" },
    { MODEL_CLASSIFY, 0, "BertForSequenceClassification" },
    { MODEL_ENCODE, 0, "BertModel" },
    { 0 }
};
static const model_head roberta_heads[] = {
    { MODEL_MLM, 0, "RobertaForMaskedLM" },
    { MODEL_CLASSIFY, 0, "RobertaForSequenceClassification" },
    { MODEL_ENCODE, 0, "RobertaModel" },
    { 0 }
};

#define SHARED \
    .complete = complete, .check = check, .build_part = build_part, .batch = batch, \
    .flops_per_token = flops_per_token, .renamed = renamed, .adapted = "query,value", .reference = &bert_reference

const model_family bert_family = {
    .name = "bert",
    .types = bert_types,
    .architecture = "BertForMaskedLM",
    .fields = bert_fields,
    .presets = bert_presets,
    .heads = bert_heads,
    .prefix = "bert.",
    .tensors = bert_tensors,
    SHARED
};

const model_family roberta_family = {
    .name = "roberta",
    .types = roberta_types,
    .architecture = "RobertaForMaskedLM",
    .fields = roberta_fields,
    .presets = roberta_presets,
    .heads = roberta_heads,
    .prefix = "roberta.",
    .tensors = roberta_tensors,
    SHARED
};
