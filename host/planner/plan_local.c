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
#include "host/planner/serving.h"
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

gt_status plan_local_check(const plan_local_options *o, int ranks)
{
    const local_job job = {
        .ranks = ranks - serving_count(o->sync, o->settings, ranks),
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

/* ---- the plan ----------------------------------------------------------------------------------- */

static void fill_job(local_job *job, const session *s, local_rank *ranks, const net_link_matrix *links)
{
    const plan_local_options *o = s->o;
    const char *sync = o->sync ? o->sync : sync_mode_name(sync_mode_at(0));
    for (int i = 0; i < s->ranks; i++) {
        const report *r = &s->reports[i];
        ranks[i] = (local_rank){ .node = r->node, .memory = r->memory, .profile = r->profile };
        memcpy(ranks[i].device, r->device, sizeof ranks[i].device);
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
        .sync = sync,
        .settings = o->settings
    };
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

/* Rank 0 alone. The text is the plan, or '!' and the sentence of a failure. */
static gt_status search(session *s, const net_link_matrix *links, gt_text *text, plan_local_result *out)
{
    local_rank *ranks = calloc((size_t)s->ranks, sizeof *ranks);
    local_choice c = { 0 };
    local_job job;
    const uint64_t start = gt_now_ns();
    gt_status st = ranks ? GT_OK : gt_fail(GT_NO_MEMORY, "cannot plan: no memory for a list of %d ranks", s->ranks);
    if (!st) {
        fill_job(&job, s, ranks, links);
        st = serving_search(&c, &job, s->o->model.parameters, s->o->model.frozen);
    }
    if (!st)
        st = run_plan_text(&c.best, text);
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
    if (!st)
        st = take_profiles(&s, out);
    out->profile_seconds = (double)(gt_now_ns() - start) * 1e-9;
    if (!st)
        st = agree(&s, out);
    free(s.reports);
    if (st)
        plan_local_release(out);
    return st;
}

void plan_local_release(plan_local_result *r)
{
    run_plan_release(&r->plan);
    gt_text_release(&r->runners_up);
    *r = (plan_local_result){ 0 };
}
