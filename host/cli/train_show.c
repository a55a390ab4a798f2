/* SPDX-License-Identifier: MIT */
/* host/cli/train_show.c - lines of `train` on standard error, each a word and a sentence.
 *
 *   model   data   steps   eval   memory        before the first step
 *   link    form   stages  sync                 how ranks stay together, and what that came to */
#include "host/cli/train_show.h"

#include "host/cli/busy.h"
#include "host/cli/train_settings.h"
#include "models/lora.h"

#include <stdio.h>

static const train_settings *const o = &train_set;

/* The loader of these data, as the run will have it, for what is told of it before. */
static gt_status loader_of(loader *l, const data_set *data)
{
    const train_options t = train_settings_options();
    return loader_open(l, &data->train, "training", t.order, t.batch, t.seq, t.seed);
}

void train_show_sources(const loader *l, const token_split *from, uint64_t samples)
{
    char a[32], b[32];
    for (size_t i = 0; i < from->part_count; i++) {
        uint64_t taken;
        double epochs;
        loader_taken(l, samples, (int)i, &taken, &epochs);
        const token_split *s = &from->parts[i].split;
        const int documents = s->reading.by_document;
        fprintf(stderr, "source  %s: %.4g %% of the sequences, %s of its %s %s, %.2f epochs\n", from->parts[i].name,
                100.0 * (double)l->source[i].slots / (double)l->slots,
                gt_format_count(a, sizeof a, (double)taken * (documents ? 1.0 : (double)l->tokens)),
                gt_format_count(b, sizeof b, documents ? (double)token_split_documents(s) : (double)s->count),
                documents ? "documents" : "tokens", epochs);
    }
}

/* How sequences are cut, where it is not as always; how many documents do not fit. */
static void show_rows(const token_split *from)
{
    if (!from->reading.by_document)
        return;
    uint64_t cut = 0, all = token_split_documents(from), looked = 0;
    const token_split *s = from->part_count ? &from->parts[0].split : from;
    for (uint64_t d = 0, most = 4096; d < token_split_documents(s) && looked < most; d++, looked++) {
        uint64_t first, count;
        token_split_document(s, d, &first, &count);
        cut += count > o->seq + 1;
    }
    fprintf(stderr, "rows    %llu documents, one a sequence", (unsigned long long)all);
    if (cut)
        fprintf(stderr, "; %llu of the first %llu are longer than %llu tokens and cut", (unsigned long long)cut,
                (unsigned long long)looked, (unsigned long long)o->seq);
    fprintf(stderr, "\n");
}

/* What of the model is trained. */
static void show_tuning(const model_config *c)
{
    char a[32], b[32], how[96] = "";
    const train_options t = train_settings_options();
    int64_t trained;
    uint64_t frozen;
    if (model_sizes(c, t.precision, &trained, &frozen))
        gt_message_clear();
    else if (c->tuning.rank)
        snprintf(how, sizeof how, "adapters of rank %d%s, counted %.4g times%s: ", c->tuning.rank,
                 c->tuning.dora ? " with magnitudes" : "", (double)lora_scale(&c->tuning),
                 c->tuning.saved[0] ? ", and a head whole" : "");
    fprintf(stderr, "trained %s%s parameters; the others, frozen, take %s\n", how,
            gt_format_count(a, sizeof a, (double)trained), gt_format_bytes(b, sizeof b, frozen));
}

void train_show_job(const model_config *c, const data_set *data, const char *usual, dev_device *d)
{
    char a[32];
    const dev_info *i = dev_info_of(d);
    cli_busy_clear();
    fprintf(stderr, "model   %s: %s parameters, %d layers, %d heads, %d channels, context %d\n", c->name,
            gt_format_count(a, sizeof a, (double)model_parameters(c)), c->layers, c->heads, c->channels, c->context);
    if (c->tuning.rank || c->tuning.freeze[0])
        show_tuning(c);
    fprintf(stderr, "device  %s, %s, %d units: %s\n", i->id, o->precision, i->compute_units, i->name);
    fprintf(stderr, "data    %llu training and %llu validation tokens of %d: %s\n",
            (unsigned long long)data->train.count, (unsigned long long)data->val.count, c->vocab, o->data);
    if (data->train_documents)
        fprintf(stderr, "records %llu training and %llu validation documents\n",
                (unsigned long long)data->train_documents, (unsigned long long)data->val_documents);
    loader l = { 0 };
    if (loader_of(&l, data))
        gt_message_clear();             /* training says so */
    else if (data->train.part_count)
        train_show_sources(&l, &data->train, o->steps * o->batch);
    show_rows(&data->train);
    if (usual)
        fprintf(stderr, "texts   read with the usual tokenizer of %s models, %s; --tokenizer takes another\n",
                c->family, usual);
    const double samples = (double)o->steps * (double)o->batch;
    const double epochs = !l.windows                        ? 0.0
                          : data->train.reading.by_document ? samples / (double)token_split_documents(&data->train)
                                                            : samples * (double)o->seq / (double)data->train.count;
    fprintf(stderr, "steps   %llu of %llu x %llu tokens, %.2f epochs\n", (unsigned long long)o->steps,
            (unsigned long long)o->batch, (unsigned long long)o->seq, epochs);
}

/* How often on how much of what there is a validation; or why there is none. */
static void show_validation(const data_set *data, const train *t)
{
    uint64_t all;
    const uint64_t rows = train_evaluated_rows(t, &all);
    if (rows)
        fprintf(stderr, "eval    every %llu steps on %llu of %llu sequences of %llu tokens: %s%s\n",
                (unsigned long long)o->eval_every, (unsigned long long)rows, (unsigned long long)all,
                (unsigned long long)o->seq, o->eval_data ? "" : "the validation part of ",
                o->eval_data ? o->eval_data : o->data);
    else if (!o->eval_every)
        fprintf(stderr, "eval    none, as --eval-every 0 says\n");
    else
        fprintf(stderr,
                "eval    none: %s has a validation part of %llu tokens, a sequence takes %llu + 1; "
                "name a text with --eval-data\n",
                o->data, (unsigned long long)data->val.count, (unsigned long long)o->seq);
}

void train_show_between(void)
{
    const train_options t = train_settings_options();
    const wire_kind k = t.between.kind[0];
    if (t.between.count == 1 && k != WIRE_AS_IT_IS)
        fprintf(stderr, "stages  send %s: %s the bytes, each value within 1/%.0f of %s%s\n", o->compress_stages,
                k != WIRE_INT8             ? "half"
                : t.precision == DTYPE_F32 ? "a quarter of"
                                           : "half",
                1.0 / wire_kind_bound(k), wire_kind_against(k), k == WIRE_INT8 ? ", and right on average" : "");
}

/* Of all links' forms the one whose errors may be largest; WIRE_KINDS in *several if they have different ones. */
static wire_kind coarsest(const run_plan *p, const train_options *t, int *several)
{
    wire_kind found = t->between.count == 1 ? t->between.kind[0] : WIRE_AS_IT_IS, k;
    *several = 0;
    for (int i = 0; i < p->stage_links; i++)
        if (wire_kind_find(&k, p->stage_link[i].form) && k != WIRE_AS_IT_IS) {
            *several |= found != WIRE_AS_IT_IS && found != k;
            found = wire_kind_bound(k) > wire_kind_bound(found) ? k : found;
        }
    return found;
}

void train_show_rounding(const train_view *v, const train *of)
{
    static const char *const what[] = { "activations", "gradients" };
    const train_options t = train_settings_options();
    int several;
    const wire_kind k = coarsest(train_plan(of), &t, &several);
    for (int i = 0; i < 2; i++)
        if (v->rounding_most[i] > 0.0)
            fprintf(
                stderr,
                "stages  sent %s in %s: error %.3g %% (root of mean square), at most %.3g %% of %s; bound %.3g %%\n",
                what[i], several ? "several forms" : wire_kind_name(k), 100.0 * v->rounding[i],
                100.0 * v->rounding_most[i], several ? "what each is held against" : wire_kind_against(k),
                100.0 * wire_kind_bound(k));
}

void train_show_memory(const data_set *data, dev_device *d, train *t, int begun)
{
    char a[32], b[32], e[32];
    const dev_info *i = dev_info_of(d);
    const train_memory m = train_memory_of(t);
    cli_busy_clear();
    show_validation(data, t);
    fprintf(stderr, "memory  %s of %s: ", gt_format_bytes(a, sizeof a, m.total),
            gt_format_bytes(b, sizeof b, i->global_bytes));
    fprintf(stderr, "weights %s, update %s, activations %s", gt_format_bytes(a, sizeof a, m.parameters + m.copies),
            gt_format_bytes(b, sizeof b, m.gradients + m.state), gt_format_bytes(e, sizeof e, m.activations));
    if (m.host)
        fprintf(stderr, "; of the host %s, to stay together", gt_format_bytes(a, sizeof a, m.host));
    fprintf(stderr, "\n");
    if (train_steps_done(t))
        fprintf(stderr, "resume  after step %llu and %llu tokens, at sample %llu of the data\n",
                (unsigned long long)train_steps_done(t), (unsigned long long)train_tokens_done(t),
                (unsigned long long)train_samples_done(t));
    else if (o->resume && begun)
        fprintf(stderr, "resume  no checkpoint was written yet: begins again at step 1\n");
    else if (o->resume)
        fprintf(stderr, "resume  there is no run in '%s' yet: it begins\n", o->out);
}

void train_show_sync(const train *t, FILE *out)
{
    gt_text text = { 0 };
    train_explain_sync(t, &text);
    if (text.size)
        fprintf(out, "%s", text.data);
    gt_text_release(&text);
}

/* What was chosen for each link, and what that is expected to gain. between: of pipeline stages. */
static void show_links(const sync_link *link, int links, const char (*text)[SYNC_NAMES], int candidates, int between)
{
    enum { SHOWN = 16 };
    char line[512];
    for (int i = 0; i < links && i < SHOWN; i++) {
        sync_link_text(&link[i], text, candidates, line, sizeof line);
        fprintf(stderr, "link    %s%s\n", between ? "stages on " : "", line);
    }
    if (links > SHOWN)
        fprintf(stderr, "        and %d more: plan.json has them\n", links - SHOWN);
}

static void show_choices(const train *of)
{
    const sync_choice *c = train_choice(of);
    const stage_choice *s = train_stage_choice(of);
    if (s)
        show_links(s->link, s->links, s->text, s->candidates, 1);
    if (c)
        show_links(c->link, c->links, c->candidates.text, c->candidates.count, 0);
    if (c && !c->links)
        fprintf(stderr, "link    no ranks hold the same parameters: --compress auto has nothing to choose\n");
}

void train_show_compression(const train *of)
{
    const train_options t = train_settings_options();
    char text[SYNC_NAMES];
    double encoded, summed;
    show_choices(of);
    if (train_plan(of)->ranks < 2 || !compress_changes(&t.compress))
        return;
    compress_text(&t.compress, text);
    train_compressed(of, &encoded, &summed);
    fprintf(stderr, "form    of gradients between ranks: %s; ", text);
    if (summed <= 0.0)
        fprintf(stderr, "it does nothing, for no two ranks of this plan share a parameter\n");
    else if (encoded <= 0.0)
        fprintf(stderr, "it compresses nothing, for of what ranks share no tensor is large enough for it\n");
    else if (encoded < summed)
        fprintf(stderr, "%s; %.3g %% of what they share, the rest as it is\n", compressor_help(t.compress.how),
                100.0 * encoded / summed);
    else
        fprintf(stderr, "%s\n", compressor_help(t.compress.how));
}
