/* SPDX-License-Identifier: MIT */
/* net/comm/dump.c - the flight recorder as JSON, for the question after an accident.
 *
 * It is written while things are stuck, so it waits only a second for the communicator's lock
 * and leaves links and counters out if it does not get it.                                */
#include "net/comm/comm_private.h"

#include "host/base/clock.h"
#include "host/base/file.h"
#include "host/base/log.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static double seconds_ago(uint64_t then, uint64_t now)
{
    return then && then <= now ? (double)(now - then) * 1e-9 : 0.0;
}

static json_t *operation(const record *o, uint64_t number, uint64_t now)
{
    char group[20];
    snprintf(group, sizeof group, "%016llx", (unsigned long long)o->group);
    return json_pack("{s:I, s:s, s:s, s:I, s:i, s:I, s:s, s:i, s:s, s:i, s:f, s:o, s:s}", "number", (json_int_t)number,
                     "operation", o->name, "group", group, "sequence", (json_int_t)o->sequence, "ranks", o->members,
                     "count", (json_int_t)o->what.count, "unit", o->what.unit ? o->what.unit : "elements", "root",
                     (int)o->what.root, "phase", o->phase ? o->phase : "", "step", o->step, "began_s_ago",
                     seconds_ago(o->begun, now), "took_ms",
                     o->ended ? json_real((double)(o->ended - o->begun) * 1e-6) : json_null(), "status",
                     o->ended ? gt_status_name(o->status) : "running");
}

static json_t *operations(recorder *r, uint64_t now)
{
    json_t *all = json_array();
    pthread_mutex_lock(&r->lock);
    for (uint64_t i = r->started > RECORDS ? r->started - RECORDS : 0; i < r->started; i++)
        json_array_append_new(all, operation(&r->ring[i % RECORDS], i, now));
    pthread_mutex_unlock(&r->lock);
    return all;
}

static json_t *waiting(recorder *r, uint64_t now)
{
    char what[96] = "";
    pthread_mutex_lock(&r->lock);
    const uint64_t since = r->waiting_since;
    const int peer = r->waiting_for;
    if (since)
        recorder_waiting(r, what, sizeof what);
    pthread_mutex_unlock(&r->lock);
    json_t *w = since ? json_pack("{s:i, s:s, s:f}", "rank", peer, "what", what, "since_s_ago", seconds_ago(since, now))
                      : json_null();
    return w;
}

static json_t *links(const net_comm *c)
{
    static const char *const states[] = { "none", "connecting", "accepting", "up", "closed" };
    json_t *all = json_array();
    for (int i = 0; i < c->size; i++) {
        const pair *p = c->pairs[i];
        char how[256] = "";
        if (!p || i == c->rank)
            continue;
        if (p->link)
            p->ops->describe(p->link, how, sizeof how);
        json_array_append_new(all, json_pack("{s:i, s:s, s:s, s:I, s:I, s:I, s:I, s:b, s:s}", "rank", i, "state",
                                             states[p->state], "transport", how, "bytes_sent",
                                             (json_int_t)p->bytes_sent, "bytes_received", (json_int_t)p->bytes_received,
                                             "messages_sent", (json_int_t)p->messages_sent, "messages_received",
                                             (json_int_t)p->messages_received, "waits_for_credit",
                                             p->blocked.first != NULL, "broken", p->broken_why ? p->broken_why : ""));
    }
    return all;
}

static json_t *counters(const net_comm *c)
{
    json_t *all = json_object();
    for (int i = 0; i < c->transports; i++) {
        const char *name;
        uint64_t value;
        json_t *of = json_object();
        for (int n = 0; c->transport[i] && c->ops[i]->counter && c->ops[i]->counter(c->transport[i], n, &name, &value);
             n++)
            json_object_set_new(of, name, json_integer((json_int_t)value));
        json_object_set_new(all, c->ops[i]->name, of);
    }
    return all;
}

static json_t *compose(net_comm *c, const char *why, int have_lock)
{
    const uint64_t now = gt_now_ns();
    const net_member *me = net_job_member(c->job, c->rank);
    json_t *all = json_pack("{s:s, s:i, s:i, s:s, s:i, s:f, s:o, s:o, s:I}", "why", why, "rank", c->rank, "ranks",
                            c->size, "host", me->host, "pid", (int)me->pid, "time", gt_wall_seconds(), "waits_for",
                            waiting(&c->recorder, now), "operations", operations(&c->recorder, now), "open_requests",
                            (json_int_t)(have_lock ? c->outstanding : 0));
    if (all && have_lock) {
        json_object_set_new(all, "links", links(c));
        json_object_set_new(all, "counters", counters(c));
    }
    return all;
}

static gt_status write_out(json_t *all, gt_text *out)
{
    char *text = all ? json_dumps(all, JSON_INDENT(1)) : NULL;
    json_decref(all);
    if (text)
        gt_text_printf(out, "%s\n", text);
    free(text);
    return text && !out->failed ? GT_OK : gt_fail(GT_NO_MEMORY, "no memory for the text of the flight record");
}

gt_status net_comm_dump(net_comm *c, const char *why, gt_text *out)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec++;
    const int have_lock = !pthread_mutex_timedlock(&c->lock, &until);
    json_t *all = compose(c, why, have_lock);
    if (have_lock)
        comm_unlock(c);
    return write_out(all, out);
}

void dump_after_abort(net_comm *c)
{
    char name[64], why[1024];
    gt_text text = { 0 };
    if (!*c->config->dump)
        return;
    snprintf(why, sizeof why, "%s", gt_message());      /* of the check that found the end */
    snprintf(name, sizeof name, "flight-rank-%d.json", c->rank);
    char *path = gt_path_join(c->config->dump, name);
    gt_status st = path ? gt_folder_make(c->config->dump) : GT_NO_MEMORY;
    if (!st)
        st = write_out(compose(c, why, 1), &text);
    if (!st)
        st = gt_file_write(path, text.data, text.size);
    if (st)
        gt_log(GT_LOG_WARN, "net", "no flight record: %s", gt_message());
    gt_fail(GT_PEER, "%s", why);
    gt_text_release(&text);
    free(path);
}
