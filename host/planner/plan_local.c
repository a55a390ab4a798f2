/* SPDX-License-Identifier: MIT */
/* host/planner/plan_local.c - from devices and a model to a plan that all ranks hold.
 *
 *   rank 0   profile ╗                ╔ links ╗ search ─ text ╗
 *   rank 1   profile ╬ all profiles ═ ╬ links ╬ ............. ╬ parse ─ plan
 *   rank 2   profile ╝                ╚ links ╝ ............. ╝
 *
 * A profile from the cache is used only if every rank has one: a rank that measures alone, while the
 * others wait, would find itself faster than it will ever be. Memory of devices that are one piece
 * of silicon, or the host's, is divided among the ranks that share it.                      */
#include "host/planner/plan_local.h"

#include "host/base/clock.h"
#include "host/base/log.h"
#include "host/pipeline/stage_choice.h"
#include "host/planner/rates.h"
#include "host/planner/serving.h"
#include "host/planner/wire_volumes.h"
#include "host/sync/compress_choice.h"
#include "host/sync/sync.h"
#include "net/collective/cost.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE = 512 << 10 };             /* of a text, below the limit of an exchange */
static const double cpu_share = 0.8, gpu_share = 0.9;   /* of the memory, for us */

/* What every rank tells the others. */
typedef struct report {
    int cpu, node;
    char device[32], path[32];
    double memory;              /* of the whole device at first, then what this rank may use */
    profile profile;
} report;

typedef struct session {
    net_comm *comm;             /* NULL: alone */
    dev_device *d;
    const plan_local_options *o;
    profile_model model;
    int ranks, rank, size[PROFILE_SIZES], sizes;
    char beside[512];           /* the devices of this host, which measure at once */
    report *reports;            /* [rank] */
    compare_way *ways;          /* the one that is planned for, then others to compare */
    int count;
    plan_rate *rates;                /* [rank * count + way] */
    stage_forms between;             /* of what stages send; count 0: as it is */
    wire_rate *wires;                /* [rank * WIRE_KINDS + form] */
} session;

gt_status plan_local_number(int *out, const char *option, const char *word)
{
    uint64_t n = 0;
    *out = 0;
    if (!word || !strcmp(word, "auto"))
        return GT_OK;
    if (gt_parse_u64(&n, word) || n < 1 || n > 65536)
        return gt_fail(GT_MISUSE, "option --%s: '%s' is neither auto nor a number from 1 up", option, word);
    *out = (int)n;
    return GT_OK;
}

/* Replicas and stages, where the options say how many; else 0. */
static int replicas_of(const plan_local_options *o, int ranks)
{
    const int width = (o->tensor ? o->tensor : 1) * o->stages;
    return o->replicas ? o->replicas : o->stages && ranks % width == 0 ? ranks / width : 0;
}

static gt_status check_together(const plan_local_options *o, int ranks)
{
    const sync_mode *m = o->sync ? sync_mode_find(o->sync) : NULL;
    const int replicas = replicas_of(o, ranks),
              alone = o->stages == 1 || replicas * (o->tensor ? o->tensor : 1) == ranks;
    gt_status st = GT_OK;
    if (m && o->settings && replicas)
        st = sync_settings_check_replicas(m, o->settings, replicas);
    if (!st && m && o->settings && o->model.units > 2)
        st = sync_settings_check_layers(m, o->settings, o->model.units - 2);
    return st || !alone ? st : plan_check_stages(1, o->compress_stages);
}

gt_status plan_check_stages(int stages, const char *form)
{
    return stages > 1 || !form || !strcmp(form, "none")
               ? GT_OK
               : gt_fail(GT_MISUSE,
                         "no replica of the plan has stages that could send to each other; leave out "
                         "--compress-stages %s, or ask for --stages 2",
                         form);
}

gt_status plan_local_check(const plan_local_options *o, int ranks)
{
    const int training = ranks - serving_count(o->sync, o->settings, ranks);
    const local_job job = {
        .ranks = training,
        .units = o->model.units,
        .batch = o->batch,
        .stages = o->stages,
        .replicas = o->replicas,
        .tensor = o->tensor,
        .micro_batch = o->micro_batch,
        .schedule = o->schedule
    };
    const sync_mode *m = o->sync ? sync_mode_find(o->sync) : NULL;
    gt_status st = m && o->settings ? sync_settings_check(m, o->settings, ranks) : GT_OK;
    if (!st && training > 1)
        st = check_together(o, training);
    if (!st)
        st = serving_check(o->sync, o->settings, ranks, o->tensor);
    return st ? st : local_search_check(&job);
}

/* ---- all ranks together --------------------------------------------------------------------- */

/* Everybody's `size` bytes, in the order of ranks. */
static gt_status gather(const session *s, const char *what, const void *mine, size_t size, void *all)
{
    net_blobs blobs;
    if (!s->comm) {
        memcpy(all, mine, size);
        return GT_OK;
    }
    gt_status st = net_job_exchange(net_comm_job(s->comm), what, mine, size, &blobs);
    if (st)
        return st;
    for (int i = 0; !st && i < s->ranks; i++)
        if (blobs.size[i] == size)
            memcpy((char *)all + (size_t)i * size, blobs.data[i], size);
        else
            st = gt_fail(GT_PEER,
                         "rank %d gives %zu bytes where %s has %zu; do all ranks run the same "
                         "program?",
                         i, blobs.size[i], what, size);
    net_blobs_release(&blobs);
    return st;
}

static gt_status barrier(void *context, double *seconds)
{
    const session *s = context;
    double *all = malloc((size_t)s->ranks * sizeof *all);
    if (!all)
        return gt_fail(GT_NO_MEMORY, "cannot measure: no memory for the times of %d ranks", s->ranks);
    gt_status st = gather(s, "measuring devices", seconds, sizeof *seconds, all);
    for (int i = 0; !st && i < s->ranks; i++)
        *seconds = fmax(*seconds, all[i]);
    free(all);
    return st;
}

/* Rank 0's text, to all; *text is replaced on the others. */
static gt_status hand_out(const session *s, gt_text *text)
{
    net_blobs blobs;
    size_t done = 0;
    for (size_t last = PIECE; s->comm && last == PIECE; done += last) {     /* until a short one */
        const size_t left = text->size - done, piece = s->rank ? 0 : left < PIECE ? left : PIECE;
        const char *from = s->rank || !text->data ? "" : text->data + done;
        gt_status st = net_job_exchange(net_comm_job(s->comm), "the plan", from, piece, &blobs);
        if (st)
            return st;
        last = blobs.size[0];
        if (s->rank)
            gt_text_put(text, blobs.data[0], last);
        net_blobs_release(&blobs);
    }
    return text->failed ? gt_fail(GT_NO_MEMORY, "cannot plan: no memory for the plan as text") : GT_OK;
}

/* ---- profiles --------------------------------------------------------------------------------- */

/* Ranks of one host have the number of the first of them. */
static void find_nodes(session *s)
{
    for (int i = 0; i < s->ranks; i++) {
        int k = 0;
        while (
            s->comm && k < i
            && net_job_member(net_comm_job(s->comm), k)->host_id != net_job_member(net_comm_job(s->comm), i)->host_id)
            k++;
        s->reports[i].node = k < i ? k : i;
    }
}

static double usable(const session *s, int rank)
{
    const report *r = &s->reports[rank];
    int sharers = 0;
    for (int i = 0; i < s->ranks; i++) {
        const report *x = &s->reports[i];
        sharers += x->node == r->node && (r->cpu ? x->cpu : !strcmp(x->path, r->path));
    }
    return (r->cpu ? cpu_share : gpu_share) * r->memory / sharers;
}

/* All ranks say where they are and what they drive; the devices of this host are those beside
 * which this one is measured. */
static gt_status exchange_reports(session *s)
{
    const dev_info *info = dev_info_of(s->d);
    report mine;
    memset(&mine, 0, sizeof mine);
    mine.cpu = info->kind == DEV_CPU;
    mine.memory = (double)info->global_bytes;
    memcpy(mine.device, info->id, sizeof mine.device);
    memcpy(mine.path, info->path, sizeof mine.path);
    double *memory = calloc((size_t)s->ranks, sizeof *memory);
    gt_status st = memory ? gather(s, "devices", &mine, sizeof mine, s->reports)
                          : gt_fail(GT_NO_MEMORY, "cannot plan: no memory for the memory sizes of %d ranks", s->ranks);
    if (!st)
        find_nodes(s);
    for (int i = 0; !st && i < s->ranks; i++)
        memory[i] = usable(s, i);
    size_t n = 0;
    for (int i = 0; !st && i < s->ranks; i++) {
        report *r = &s->reports[i];
        r->memory = memory[i];
        if (r->node == s->reports[s->rank].node && n < sizeof s->beside)
            n += (size_t)snprintf(s->beside + n, sizeof s->beside - n, "%s ", r->device);
    }
    free(memory);
    return st;
}

/* What the optimizer keeps of a parameter, in bytes. */
static double slot_bytes(const plan_local_options *o)
{
    const optim_config usual = optim_defaults();
    double least, most;
    optim_state_bytes(o->optim.rule ? &o->optim : &usual, &least, &most);
    return most;
}

/* Bytes of a parameter with its gradient, the optimizer's state and copy. */
static double state_bytes(const plan_local_options *o)
{
    return 8.0 + slot_bytes(o) + (o->storage == DTYPE_F32 ? 0.0 : 2.0);
}

/* Measuring a model that cannot fit takes long and says nothing. */
static gt_status check_fit(const session *s)
{
    const double parameters = s->o->model.parameters;
    const double need = parameters * state_bytes(s->o) + s->o->model.frozen;
    double all = 0;
    char a[24], b[24], c[24];
    for (int i = 0; i < s->ranks; i++)
        all += s->reports[i].memory;
    return need <= all
               ? GT_OK
               : gt_fail(GT_MISMATCH,
                         "model '%s' with %s parameters needs %s for weights, gradients "
                         "and optimizer, all devices together may use %s; take a smaller model or more "
                         "devices",
                         s->o->model.name, gt_format_count(a, sizeof a, parameters),
                         gt_format_bytes(b, sizeof b, (uint64_t)need), gt_format_bytes(c, sizeof c, (uint64_t)all));
}

static int all_found(const session *s, int found, gt_status *st)
{
    int *all = calloc((size_t)s->ranks, sizeof *all), good = 1;
    *st = all ? gather(s, "profiles in caches", &found, sizeof found, all)
              : gt_fail(GT_NO_MEMORY, "cannot plan: no memory for a flag of each of %d ranks", s->ranks);
    for (int i = 0; !*st && i < s->ranks; i++)
        good &= all[i];
    free(all);
    return good;
}

static gt_status measure(session *s, profile *p)
{
    if (s->comm)
        net_comm_busy(s->comm, "measuring the device");
    gt_status st = profile_measure(p, s->d, &s->model, s->size, s->sizes, s->comm ? barrier : NULL, s);
    if (s->comm)
        net_comm_busy(s->comm, NULL);
    if (!st && !s->o->in_passing && profile_keep(p, s->d, &s->model, s->size, s->sizes, s->beside)) {
        gt_log(GT_LOG_WARN, "plan", "%s; the next run measures again", gt_message());
        gt_message_clear();
    }
    return st;
}

static gt_status take_profiles(session *s, plan_local_result *out)
{
    report mine = s->reports[s->rank];
    int found = 0;
    gt_status st = s->o->again ? GT_OK
                               : profile_load(&mine.profile, &found, s->d, &s->model, s->size, s->sizes, s->beside);
    const int have = st ? 0 : all_found(s, found, &st);
    if (!st && !have)
        st = measure(s, &mine.profile);
    out->measured = !have;
    report *all = st ? NULL : calloc((size_t)s->ranks, sizeof *all);
    if (!st)
        st = all ? gather(s, "profiles", &mine, sizeof mine, all)
                 : gt_fail(GT_NO_MEMORY, "cannot plan: no memory for the profiles of %d ranks", s->ranks);
    if (!st)
        memcpy(s->reports, all, (size_t)s->ranks * sizeof *all);
    free(all);
    return st;
}

/* ---- ways of staying together --------------------------------------------------------------- */

/* The one that is planned for; behind it, if they are to be compared, all others. */
static gt_status list_ways(session *s)
{
    const plan_local_options *o = s->o;
    const optim_config usual = optim_defaults();
    compare_way own = { .mode = o->sync ? sync_mode_find(o->sync) : sync_mode_at(0), .asked = 1 };
    if (o->settings)
        own.settings = *o->settings;
    else
        sync_settings_usual(own.mode, &own.settings);
    /* What auto will choose is not known before ranks have measured it: planned for as if it were none. */
    snprintf(own.compress, sizeof own.compress, "%s",
             o->compress && !sync_compress_is_auto(o->compress) ? o->compress : compressor_name(compressor_at(0)));
    gt_status st = compress_parse(&own.form, own.compress);
    own.form.after = o->compress_after;
    s->ways = calloc(COMPARE_MOST, sizeof *s->ways);
    if (!st && !s->ways)
        st = gt_fail(GT_NO_MEMORY, "cannot plan: no memory for a list of ways to stay together");
    if (!st) {
        s->ways[0] = own;
        s->count = 1;
        if (o->compare)
            s->count = compare_ways(s->ways, &own, o->optim.rule ? &o->optim : &usual, o->storage, s->model.units - 2);
    }
    s->rates = st ? NULL : calloc((size_t)s->count * (size_t)s->ranks, sizeof *s->rates);
    return st || s->rates ? st : gt_fail(GT_NO_MEMORY, "cannot plan: no memory for the rates of %d ranks", s->ranks);
}

/* Of one way: looked up if every rank has it, else measured by all at the same time, as in a step. */
static gt_status take_rate(session *s, const compare_way *w, plan_rate *out)
{
    const optim_config usual = optim_defaults(), *c = s->o->optim.rule ? &s->o->optim : &usual;
    int found = 0;
    gt_status st = s->o->again ? GT_OK : rate_load(out, &found, s->d, w, c, s->ranks, s->beside);
    const int have = st ? 0 : all_found(s, found, &st);
    if (st || have)
        return st;
    st = rate_measure(out, s->d, w, c, s->ranks);
    if (!st && !s->o->in_passing && rate_keep(out, s->d, w, c, s->ranks, s->beside)) {
        gt_log(GT_LOG_WARN, "plan", "%s; the next run measures again", gt_message());
        gt_message_clear();
    }
    return st;
}

static gt_status take_rates(session *s)
{
    plan_rate *mine = calloc((size_t)s->count, sizeof *mine);
    gt_status st = mine ? GT_OK : gt_fail(GT_NO_MEMORY, "cannot plan: no memory for the rates of this rank");
    if (!st && s->comm)
        net_comm_busy(s->comm, "measuring what staying together takes");
    for (int i = 0; !st && s->ranks > 1 && i < s->count; i++)
        if (compress_changes(&s->ways[i].form) || sync_mode_changes(s->ways[i].mode, &s->ways[i].settings))
            st = take_rate(s, &s->ways[i], &mine[i]);
    if (s->comm)
        net_comm_busy(s->comm, NULL);
    if (!st)
        st = gather(s, "rates of ways to stay together", mine, (size_t)s->count * sizeof *mine, s->rates);
    free(mine);
    return st;
}

/* What forms of what stages send take, of messages of one sequence. */
static gt_status take_wires(session *s)
{
    const plan_local_options *o = s->o;
    const profile *p = &s->reports[s->rank].profile;
    wire_rate mine[WIRE_KINDS];
    gt_status st = GT_OK;
    memset(mine, 0, sizeof mine);
    if (s->ranks < 2 || !o->compress_stages || !strcmp(o->compress_stages, "none"))
        return GT_OK;
    st = stage_forms_parse(&s->between, o->compress_stages);
    if (!st)
        st = stage_forms_narrow(&s->between, o->compress_stages, o->storage);
    s->wires = st ? NULL : calloc((size_t)s->ranks * WIRE_KINDS, sizeof *s->wires);
    if (!st && !s->wires)
        st = gt_fail(GT_NO_MEMORY, "cannot plan: no memory for the rates of %d ranks", s->ranks);
    net_comm_busy(s->comm, "measuring forms of what stages send");
    for (int i = 0; !st && i < s->between.count; i++)
        st = wire_rate_measure(&mine[i], s->d, s->between.kind[i], o->storage,
                               (int64_t)(p->output / (double)dtype_size(o->storage)));
    net_comm_busy(s->comm, NULL);
    return st ? st : gather(s, "rates of what stages send", mine, sizeof mine, s->wires);
}

/* ---- the plan ----------------------------------------------------------------------------------- */

static gt_status fill_job(local_job *job, const session *s, int way, local_rank *ranks, const net_link_matrix *links,
                          sync_volume volume[PROFILE_KINDS])
{
    const plan_local_options *o = s->o;
    const compare_way *w = &s->ways[way];
    for (int i = 0; i < s->ranks; i++) {
        const report *r = &s->reports[i];
        const plan_rate *x = &s->rates[i * s->count + way];
        ranks[i] = (local_rank){
            .node = r->node,
            .memory = r->memory,
            .profile = r->profile,
            .on_host = r->cpu,
            .encode = x->encode,
            .decode = x->decode,
            .host = x->host
        };
        memcpy(ranks[i].device, r->device, sizeof ranks[i].device);
        if (s->wires)
            memcpy(ranks[i].between, &s->wires[i * WIRE_KINDS], sizeof ranks[i].between);
    }
    *job = (local_job){
        .ranks = s->ranks,
        .units = s->model.units,
        .batch = o->batch,
        .rank = ranks,
        .latency = links ? links->latency : NULL,
        .bandwidth = links ? links->bandwidth : NULL,
        .state_bytes = state_bytes(o),
        .slot_bytes = slot_bytes(o),
        .stages = o->stages,
        .replicas = o->replicas,
        .tensor = o->tensor,
        .micro_batch = o->micro_batch,
        .recompute = o->recompute,
        .schedule = o->schedule,
        .sync = sync_mode_name(w->mode),
        .settings = &w->settings,
        .compress = &w->form,
        .volume = volume,
        .forms = s->between.count,
        .value_bytes = (double)dtype_size(o->storage)
    };
    return wire_volumes(volume, &s->model, &w->form);
}

static void describe(gt_text *out, const run_plan *p)
{
    int least = p->replica[0].stages, most = least;
    for (int i = 1; i < p->replicas; i++) {
        least = p->replica[i].stages < least ? p->replica[i].stages : least;
        most = p->replica[i].stages > most ? p->replica[i].stages : most;
    }
    gt_text_printf(out, "%d replica%s of %d", p->replicas, p->replicas > 1 ? "s" : "", least);
    if (most > least)
        gt_text_printf(out, "-%d", most);
    gt_text_printf(out, " stage%s", most > 1 ? "s" : "");
    if (p->tensor > 1)
        gt_text_printf(out, ", tensor %d", p->tensor);
    if (most > 1)
        gt_text_printf(out, ", %s", p->schedule);
}

static void list_runners_up(gt_text *out, const local_choice *c)
{
    for (int i = 0; i < c->runners_up; i++) {
        const run_plan *p = &c->runner_up[i];
        gt_text what = { 0 };
        describe(&what, p);
        gt_text_printf(out, "%-44s %8.1f ms  %+5.1f %%  %s\n", what.data ? what.data : "", 1e3 * p->step,
                       100.0 * fmax(0.0, p->step / c->best.step - 1.0), c->why_not[i]);
        gt_text_release(&what);
    }
}

/* 1: a plan of one replica is none of this way. */
static int wants_replicas(const session *s, int way)
{
    const compare_way *w = &s->ways[way];
    return way > 0 ? w->settles : sync_mode_changes(w->mode, &w->settings) != NULL;
}

/* The best plan of a way; of several replicas if it is for those, and there is one. */
static gt_status search_way(local_choice *c, const session *s, int way, local_rank *ranks, const net_link_matrix *links,
                            double *sent)
{
    sync_volume volume[PROFILE_KINDS];
    local_job job;
    gt_status st = fill_job(&job, s, way, ranks, links, volume);
    if (!st)
        st = serving_search(c, &job, s->o->model.parameters, s->o->model.frozen);
    const int several = !st && wants_replicas(s, way) && !job.replicas && c->best.replicas < 2;
    local_choice found = { 0 };
    for (int r = 2; several && r <= s->ranks; r++) {
        local_choice other = { 0 };
        local_job more = job;
        more.replicas = r;
        if (serving_search(&other, &more, s->o->model.parameters, s->o->model.frozen)) {
            gt_message_clear();
            continue;
        }
        if (found.best.ranks && found.best.step <= other.best.step) {
            local_choice_release(&other);
            continue;
        }
        local_choice_release(&found);
        found = other;
    }
    if (found.best.ranks) {
        local_choice_release(c);
        *c = found;
    }
    if (!st && way > 0 && wants_replicas(s, way) && c->best.replicas < 2)
        st = gt_fail(GT_MISMATCH, "no plan of several replicas, who would stay together so");
    if (!st)
        run_plan_forms(&c->best, way || !s->o->compress ? s->ways[way].compress : s->o->compress,
                       s->o->compress_stages ? s->o->compress_stages : "");
    if (!st)
        c->best.compress_after = s->ways[way].form.after;
    if (!st && sent)
        *sent = local_sent(&c->best, &job);
    return st;
}

static gt_status compare(session *s, const net_link_matrix *links, local_rank *ranks, plan_local_result *out)
{
    gt_status st = GT_OK;
    out->compare = calloc(1, sizeof *out->compare);
    if (!out->compare)
        return gt_fail(GT_NO_MEMORY, "cannot plan: no memory for the table of ways to stay together");
    for (int i = 0; !st && i < s->count; i++) {
        compare_row *row = &out->compare->row[out->compare->count++];
        local_choice c = { 0 };
        row->way = s->ways[i];
        st = search_way(&c, s, i, ranks, links, &row->sent);
        if (!st)
            compare_take(row, &c.best);
        else if (st == GT_MISMATCH || st == GT_MISUSE)
            snprintf(row->why, sizeof row->why, "%s", gt_message());
        if (st == GT_MISMATCH || st == GT_MISUSE) {
            gt_message_clear();
            st = GT_OK;
        }
        local_choice_release(&c);
    }
    compare_sort(out->compare);
    return st;
}

/* Rank 0 alone. The text is the plan, or '!' and the sentence of a failure. */
static gt_status search(session *s, const net_link_matrix *links, gt_text *text, plan_local_result *out)
{
    local_rank *ranks = calloc((size_t)s->ranks, sizeof *ranks);
    local_choice c = { 0 };
    const uint64_t start = gt_now_ns();
    gt_status st = ranks ? GT_OK : gt_fail(GT_NO_MEMORY, "cannot plan: no memory for a list of %d ranks", s->ranks);
    if (!st)
        st = search_way(&c, s, 0, ranks, links, NULL);
    if (!st)
        st = run_plan_text(&c.best, text);
    if (!st && s->o->compare)
        st = compare(s, links, ranks, out);
    if (!st)
        list_runners_up(&out->runners_up, &c);
    if (st) {
        gt_text_release(text);
        gt_text_printf(text, "!%c%s", (char)('0' + (int)st), gt_message());
    }
    out->search_seconds = (double)(gt_now_ns() - start) * 1e-9;
    local_choice_release(&c);
    free(ranks);
    return GT_OK;
}

static gt_status agree(session *s, plan_local_result *out)
{
    const net_link_matrix *links = NULL;
    gt_text text = { 0 };
    gt_status st = s->ranks > 1 ? net_group_links(net_group_world(s->comm), &links) : GT_OK;
    if (!st && s->rank == 0)
        st = search(s, links, &text, out);
    if (!st)
        st = hand_out(s, &text);
    if (!st && text.data && text.data[0] == '!')
        st = gt_fail((gt_status)(text.data[1] - '0'), "%s", text.data + 2);
    else if (!st)
        st = run_plan_parse(&out->plan, text.data ? text.data : "", "rank 0's");
    if (s->rank && text.data && text.data[0] == '!')
        gt_message_clear();             /* rank 0 says it for all */
    gt_text_release(&text);
    return st;
}

gt_status plan_local(plan_local_result *out, net_comm *c, dev_device *d, const plan_local_options *o)
{
    *out = (plan_local_result){ 0 };
    session s = {
        .comm = c,
        .d = d,
        .o = o,
        .ranks = c ? net_comm_size(c) : 1,
        .rank = c ? net_comm_rank(c) : 0,
        .model = { o->model.build, o->model.config, o->model.units, o->seq, o->storage, o->model.batch, o->optim }
    };
    s.sizes = 1;
    s.size[0] = o->micro_batch;
    if (!o->micro_batch)
        s.sizes = profile_ladder(s.size, o->batch, o->seq);
    s.reports = calloc((size_t)s.ranks, sizeof *s.reports);
    const uint64_t start = gt_now_ns();
    gt_status st = s.reports ? exchange_reports(&s)
                             : gt_fail(GT_NO_MEMORY, "cannot plan: no memory for the devices of %d ranks", s.ranks);
    if (!st)
        st = check_fit(&s);
    if (st == GT_MISMATCH && s.rank)
        gt_message_clear();             /* all find the same, and rank 0 says it */
    if (!st)
        st = take_profiles(&s, out);
    if (!st)
        st = list_ways(&s);
    if (!st)
        st = take_rates(&s);
    if (!st)
        st = take_wires(&s);
    out->profile_seconds = (double)(gt_now_ns() - start) * 1e-9;
    if (!st)
        st = agree(&s, out);
    free(s.reports);
    free(s.ways);
    free(s.rates);
    free(s.wires);
    if (st)
        plan_local_release(out);
    return st;
}

void plan_local_release(plan_local_result *r)
{
    run_plan_release(&r->plan);
    gt_text_release(&r->runners_up);
    free(r->compare);
    *r = (plan_local_result){ 0 };
}
