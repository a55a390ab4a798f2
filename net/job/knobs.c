/* SPDX-License-Identifier: MIT */
/* net/job/knobs.c - the table of knobs, and the four places that may set one.
 *
 *   default  <  file  <  NCCL's and UCX's names  <  GEARTRAIN_NET_NAME  <  --net NAME=VALUE
 *
 * A row holds everything about a knob; reading, checking, printing and hashing walk the rows.
 * Texts that a knob holds are never freed before the config is: setting a knob twice keeps
 * both, so that whoever read the first value may go on using it.                         */
#include "net/job/config.h"

#include "host/base/file.h"
#include "host/base/log.h"
#include "net/job/address.h"

#include <ctype.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern char **environ;

typedef enum knob_type { STRING, INT, BYTES, DURATION, CHOICE, SPIN } knob_type;

enum { BOTH = 1, POWER = 2 };           /* both ends must agree · a power of two            */

typedef struct knob {
    const char *name;
    knob_type type;
    size_t at;                          /* in net_config                                    */
    const char *standard;               /* the default, as text                             */
    uint64_t least, most;               /* a number's range; INT: as int64_t                */
    int flags;
    const char *choices;                /* of CHOICE: "auto|map"                            */
    const char *help;
    const char *alias;                  /* a name that users of other libraries know        */
} knob;

#define AT(field) offsetof(net_config, field)
#define KiB UINT64_C(1024)
#define MiB (1024 * KiB)
#define GiB (1024 * MiB)
#define MS UINT64_C(1000000)
#define SEC (1000 * MS)
#define DAY (86400 * SEC)
#define MINUS_ONE UINT64_MAX

static const knob knobs[] = {
    { "rendezvous", STRING, AT(rendezvous), "", 0, 0, 0, NULL, "host:port of rank 0, against what the launcher says",
      "NCCL_COMM_ID" },
    { "interface", STRING, AT(interface), "", 0, 0, 0, NULL,
      "addresses to use: eth0,ib (prefixes), =eth0 (exactly), ^lo,docker (all but)", "NCCL_SOCKET_IFNAME" },
    { "port-range", STRING, AT(port_range), "", 0, 0, 0, NULL, "ports to listen on, 30000-30100; empty: any", NULL },
    { "secret-file", STRING, AT(secret_file), "", 0, 0, 0, NULL,
      "the user's secret, mode 0600; empty: ~/.config/geartrain/secret", NULL },
    { "insecure", INT, AT(insecure), "0", 0, 1, 0, NULL, "1: join beyond this machine without a secret", NULL },
    { "start-timeout", DURATION, AT(start_timeout), "60s", 10 * MS, DAY, 0, NULL, "by when all ranks must have arrived",
      NULL },
    { "hello-timeout", DURATION, AT(hello_timeout), "5s", 10 * MS, DAY, 0, NULL,
      "how long one connection may take to prove itself", NULL },
    { "heartbeat", DURATION, AT(heartbeat), "1s", 5 * MS, 3600 * SEC, 0, NULL, "time between signs of life", NULL },
    { "dead-after", DURATION, AT(dead_after), "10s", 10 * MS, DAY, 0, NULL, "a host silent for this long is gone",
      NULL },
    { "stall-report", DURATION, AT(stall_report), "10s", 10 * MS, DAY, 0, NULL, "an operation late by this is reported",
      NULL },
    { "stall-limit", DURATION, AT(stall_limit), "300s", 10 * MS, 365 * DAY, 0, NULL,
      "an operation late by this ends the job", NULL },
    { "dump", STRING, AT(dump), "", 0, 0, 0, NULL, "folder for what each rank did last, when a job ends badly", NULL },
    { "transport", STRING, AT(transport), "auto", 0, 0, 0, NULL,
      "auto, shm, verbs or tcp, or a list in order of preference", NULL },
    { "fault", STRING, AT(fault), "", 0, 0, 0, NULL, "what goes wrong on purpose, for tests", NULL },
    { "eager", BYTES, AT(eager), "8KiB", 0, 16 * MiB, BOTH, NULL,
      "messages up to this travel without waiting for a receiver; over tcp 4 times as much, up to 32KiB", NULL },
    { "chunk", BYTES, AT(chunk), "1MiB", 64, GiB, BOTH, NULL, "one work request or fragment", NULL },
    { "spin", SPIN, AT(spin), "auto", 0, DAY, 0, NULL, "poll this long before sleeping; auto: as the cores allow",
      NULL },
    { "shm-mode", CHOICE, AT(shm_mode), "auto", 0, 0, 0, "auto|map|cma|copy", "how ranks of one host share memory",
      NULL },
    { "shm-ring", BYTES, AT(shm_ring), "1MiB", 4 * KiB, GiB, POWER, NULL,
      "shared memory of one direction, a power of two", NULL },
    { "tcp-buffer", BYTES, AT(tcp_buffer), "0", 0, GiB, 0, NULL, "socket buffers; 0: the kernel decides", NULL },
    { "verbs", INT, AT(verbs), "1", 0, 1, 0, NULL, "0: never use RDMA", "NCCL_IB_DISABLE" },
    { "hca", STRING, AT(hca), "", 0, 0, 0, NULL,
      "RDMA devices: mlx5_0:1,mlx5_1 (prefixes), =mlx5_0 (exactly), ^mlx5_bond (all but)", "NCCL_IB_HCA" },
    { "gid-index", INT, AT(gid_index), "-1", MINUS_ONE, 255, 0, NULL, "RoCE address table entry; -1: the best by score",
      "NCCL_IB_GID_INDEX" },
    { "ib-timeout", INT, AT(ib_timeout), "17", 1, 31, 0, NULL, "RDMA acknowledgement timeout, 4.096 us * 2^N",
      "NCCL_IB_TIMEOUT" },
    { "ib-retry", INT, AT(ib_retry), "-1", MINUS_ONE, 7, 0, NULL,
      "RDMA retries; -1: 7, or 6 on rxe, where 7 is forever", "NCCL_IB_RETRY_CNT" },
    { "traffic-class", INT, AT(traffic_class), "0", 0, 255, 0, NULL, "RoCE traffic class, DSCP << 2", "NCCL_IB_TC" },
    { "service-level", INT, AT(service_level), "0", 0, 15, 0, NULL, "InfiniBand service level", "NCCL_IB_SL" },
    { "pkey-index", INT, AT(pkey_index), "0", 0, 65535, 0, NULL, "partition key table entry", "NCCL_IB_PKEY" },
    { "ib-mtu", INT, AT(ib_mtu), "0", 0, 4096, 0, NULL,
      "RDMA packet payload, 256 to 4096; 0: the smaller of both ends'", NULL },
    { "inline", INT, AT(inline_bytes), "256", 0, 4096, 0, NULL,
      "bytes sent with the work request; devices may grant less", NULL },
    { "queue-pairs", INT, AT(queue_pairs), "1", 1, 16, BOTH, NULL, "RDMA connections of a pair and rail",
      "NCCL_IB_QPS_PER_CONNECTION" },
    { "immediate", INT, AT(immediate), "1", 0, 1, BOTH, NULL, "0: announce writes by a message of their own (iWARP)",
      NULL },
    { "relaxed-ordering", INT, AT(relaxed_ordering), "1", 0, 1, 0, NULL, "let PCIe reorder writes of payload",
      "NCCL_IB_PCI_RELAXED_ORDERING" },
    { "max-message", BYTES, AT(max_message), "0", 0, GiB, 0, NULL, "largest RDMA write; 0: what the port can", NULL },
    { "adaptive-routing", BYTES, AT(adaptive_routing), "8KiB", 0, GiB, BOTH, NULL,
      "larger writes announce themselves by an empty one behind them", "NCCL_IB_AR_THRESHOLD" },
    { "algorithm", STRING, AT(algorithm), "auto", 0, 0, BOTH, NULL,
      "of collectives: auto, a name, or ring;allreduce:direct", "NCCL_ALGO" },
    { "pipeline", BYTES, AT(pipeline), "512KiB", 64, GiB, BOTH, NULL, "one piece of a pipelined collective", NULL },
    { "priorities", INT, AT(priorities), "1", 0, 1, 0, NULL, "0: what is needed first does not overtake what is not",
      NULL },
};
enum { KNOBS = sizeof knobs / sizeof *knobs, ORIGIN = 64 };

typedef struct text_list {
    struct text_list *next;
    char text[];
} text_list;

typedef struct config_box {
    net_config c;                       /* first: a net_config is its box                   */
    char origin[KNOBS][ORIGIN];
    text_list *texts;
} config_box;

static void *field(const net_config *c, const knob *k)
{
    return (char *)(uintptr_t)c + k->at;
}

static gt_status keep_text(config_box *box, const char *value, const char **out)
{
    const size_t size = strlen(value) + 1;
    text_list *t = malloc(sizeof *t + size);
    if (!t)
        return gt_fail(GT_NO_MEMORY, "no memory for the value of a network setting");
    memcpy(t->text, value, size);
    t->next = box->texts;
    box->texts = t;
    *out = t->text;
    return GT_OK;
}

static int is_choice(const char *choices, const char *word)
{
    const size_t n = strlen(word);
    for (const char *p = choices; *p; p += strcspn(p, "|"), p += *p == '|')
        if (strcspn(p, "|") == n && !strncmp(p, word, n))
            return 1;
    return 0;
}

/* ---- values ------------------------------------------------------------------------------ */

static void range_text(const knob *k, char *out, size_t size)
{
    char a[32], b[32];
    switch (k->type) {
    case INT: snprintf(out, size, "%lld to %lld", (long long)(int64_t)k->least, (long long)k->most); break;
    case BYTES:
        snprintf(out, size, "%s to %s%s", gt_format_size(a, sizeof a, k->least), gt_format_size(b, sizeof b, k->most),
                 k->flags & POWER ? ", a power of two" : "");
        break;
    case DURATION:
    case SPIN:
        snprintf(out, size, "%s%gs to %gs", k->type == SPIN ? "auto, or " : "", (double)k->least * 1e-9,
                 (double)k->most * 1e-9);
        break;
    case CHOICE: snprintf(out, size, "%s", k->choices); break;
    case STRING: snprintf(out, size, "any text"); break;
    }
}

static int parse_int(int *out, const char *text)
{
    char *end;
    const long v = strtol(text, &end, 10);
    if (end == text || *end || v < INT_MIN || v > INT_MAX)
        return 0;
    *out = (int)v;
    return 1;
}

/* 1 if `value` is one of the knob's; the field is then set. */
static int parse_value(config_box *box, const knob *k, const char *value, gt_status *st)
{
    uint64_t number = 0;
    int integer = 0;
    *st = GT_OK;
    switch (k->type) {
    case INT:
        if (!parse_int(&integer, value) || integer < (int64_t)k->least || integer > (int64_t)k->most)
            return 0;
        *(int *)field(&box->c, k) = integer;
        return 1;
    case BYTES:
        if (gt_parse_bytes(&number, value) || number < k->least || number > k->most)
            return 0;
        if ((k->flags & POWER) && (number & (number - 1)))
            return 0;
        break;
    case SPIN:
        if (!strcmp(value, "auto")) {
            number = UINT64_MAX;
            break;
        }
        /* fall through */
    case DURATION:
        if (gt_parse_duration(&number, value) || number < k->least || number > k->most)
            return 0;
        break;
    case CHOICE:
        if (!is_choice(k->choices, value))
            return 0;
        /* fall through */
    case STRING: *st = keep_text(box, value, field(&box->c, k)); return 1;
    }
    *(uint64_t *)field(&box->c, k) = number;
    return 1;
}

static gt_status set_knob(config_box *box, const knob *k, const char *value, const char *origin)
{
    gt_status st;
    char range[96];
    if (!parse_value(box, k, value, &st)) {
        range_text(k, range, sizeof range);
        return gt_fail(GT_MISUSE, "network setting %s cannot be '%s' (from %s); it takes %s", k->name, value, origin,
                       range);
    }
    snprintf(box->origin[k - knobs], ORIGIN, "%s", origin);
    return st;
}

/* ---- names ------------------------------------------------------------------------------- */

/* "gid-index", "gid_index" and "GID_INDEX" are the same knob. */
static int same_name(const char *name, const char *word, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        const int c = word[i] == '_' ? '-' : tolower((unsigned char)word[i]);
        if (!name[i] || name[i] != c)
            return 0;
    }
    return name[size] == '\0';
}

static const knob *find_knob(const char *word, size_t size)
{
    for (int i = 0; i < KNOBS; i++)
        if (same_name(knobs[i].name, word, size))
            return &knobs[i];
    return NULL;
}

static gt_status unknown_knob(const char *word, const char *origin)
{
    char plain[64];
    const char *nearest = NULL;
    size_t best = 4;
    snprintf(plain, sizeof plain, "%s", word);
    for (char *p = plain; *p; p++)
        *p = *p == '_' ? '-' : (char)tolower((unsigned char)*p);
    for (int i = 0; i < KNOBS; i++) {
        const size_t d = gt_edit_distance(plain, knobs[i].name);
        if (d < best && d < strlen(plain)) {
            best = d;
            nearest = knobs[i].name;
        }
    }
    if (nearest)
        return gt_fail(GT_MISUSE, "there is no network setting '%s' (from %s); did you mean %s?", plain, origin,
                       nearest);
    return gt_fail(GT_MISUSE,
                   "there is no network setting '%s' (from %s); --print-config lists "
                   "them",
                   plain, origin);
}

/* ---- where values come from -------------------------------------------------------------- */

static gt_status read_line(config_box *box, char *line, const char *path, int number)
{
    char origin[ORIGIN];
    snprintf(origin, sizeof origin, "%.48s:%d", path, number);
    char *name = line + strspn(line, " \t\r");
    if (!*name || *name == '#')
        return GT_OK;
    char *equals = strchr(name, '=');
    if (!equals)
        return gt_fail(GT_MISUSE, "%s: '%s' is not NAME = VALUE", origin, name);
    size_t length = (size_t)(equals - name);
    while (length && strchr(" \t", name[length - 1]))
        length--;
    char *value = equals + 1 + strspn(equals + 1, " \t");
    for (size_t n = strlen(value); n && strchr(" \t\r", value[n - 1]); n--)
        value[n - 1] = '\0';
    const knob *k = find_knob(name, length);
    name[length] = '\0';
    return k ? set_knob(box, k, value, origin) : unknown_knob(name, origin);
}

static gt_status read_file(config_box *box)
{
    const char *path = getenv("GEARTRAIN_NET_CONFIG");
    char *text;
    int number = 0;
    if (!path || !*path)
        return GT_OK;
    gt_status st = gt_file_read(&text, NULL, path, 1 << 16);
    if (st)
        return gt_fail_in(st, "GEARTRAIN_NET_CONFIG");
    for (char *line = text, *next; line && !st; line = next) {
        next = strchr(line, '\n');
        if (next)
            *next++ = '\0';
        st = read_line(box, line, path, ++number);
    }
    free(text);
    return st;
}

/* "mlx5_0:1,eth0" -> "mlx5_0:1": what has no port is no RDMA device. "" if nothing is left. */
static void rdma_part(const char *devices, char *out, size_t size)
{
    size_t used = 0;
    *out = '\0';
    for (const char *p = devices; *p; p += *p == ',') {
        const size_t n = strcspn(p, ",");
        if (memchr(p, ':', n) && used + n + 2 < size)
            used += (size_t)snprintf(out + used, size - used, "%s%.*s", used ? "," : "", (int)n, p);
        p += n;
    }
}

/* ---- other libraries' variables: what they say in other words, or cannot say to us ---------- */

/* All ranks of a job find the same; one line is enough. */
static int is_first_process(void)
{
    static const char *const ranks[] = { "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "SLURM_PROCID", "RANK" };
    for (size_t i = 0; i < sizeof ranks / sizeof *ranks; i++)
        if (getenv(ranks[i]) && strcmp(getenv(ranks[i]), "0"))
            return 0;
    return !getenv("GEARTRAIN_RANK");   /* the launcher has told it                          */
}

static void tell_foreign(const knob *k, const char *name, const char *value, const char *outcome)
{
    gt_log(is_first_process() ? GT_LOG_WARN : GT_LOG_INFO, "net", "%s = '%s' is %s the network setting %s", name, value,
           outcome, k->name);
}

/* A number as strtoll(..., 0) reads it, as NCCL does. What is too large for us becomes the most there
 * is; what is none, or too small, is passed over. 0: passed over. */
static int read_foreign_number(const knob *k, const char *name, const char *value, char *out, size_t size)
{
    char *end, outcome[96];
    const long long v = strtoll(value, &end, 0);
    const long long least = k->type == INT ? (long long)(int64_t)k->least : (long long)k->least;
    if (end == value || *end || v < least) {
        tell_foreign(k, name, value, "nothing for");
        return 0;
    }
    if (v > (long long)k->most) {
        snprintf(outcome, sizeof outcome, "read as %llu, the most, for", (unsigned long long)k->most);
        tell_foreign(k, name, value, outcome);
    }
    snprintf(out, size, "%lld", v > (long long)k->most ? (long long)k->most : v);
    return 1;
}

/* "mlx5_0:1,,=x" -> "mlx5_0:1": words that name no device are left out. 0: nothing is left. */
static int read_foreign_devices(const knob *k, const char *value, char *out, size_t size)
{
    static const char names[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.";
    const char *p = value + strspn(value, "^=");
    size_t used = (size_t)(p - value);
    int words = 0, bad = used > 2 || (used == 2 && value[0] != '^') || (used == 2 && value[1] != '=');
    snprintf(out, size, "%.*s", (int)used, value);
    for (; *p; p += *p == ',') {
        const size_t n = strcspn(p, ","), name = strspn(p, names);
        const size_t digits = name < n && p[name] == ':' ? strspn(p + name + 1, "0123456789") : 0;
        const int good = name
                         && (name == n || (digits && digits < 4 && name + 1 + digits == n && atoi(p + name + 1) > 0));
        if (good && used + n + 2 < size)
            used += (size_t)snprintf(out + used, size - used, "%s%.*s", words++ ? "," : "", (int)n, p);
        bad |= !good && n;
        p += n;
    }
    if (bad)
        tell_foreign(k, "NCCL_IB_HCA", value, words ? "understood in part for" : "nothing for");
    return words;
}

/* Puts what another library's variable means into `out`; 0: nothing to us. */
static int read_foreign(const knob *k, const char *name, const char *value, char *out, size_t size)
{
    net_address any;
    snprintf(out, size, "%s", value);
    if (!strcmp(name, "NCCL_IB_DISABLE"))
        snprintf(out, size, "%d", atoi(value) == 0);
    else if (!strcmp(name, "NCCL_IB_PCI_RELAXED_ORDERING"))
        snprintf(out, size, "%d", atoi(value) != 0);                /* 2 is "if possible" */
    else if (!strcmp(name, "UCX_NET_DEVICES"))
        rdma_part(value, out, size);
    else if (!strcmp(name, "NCCL_IB_HCA"))
        return read_foreign_devices(k, value, out, size);
    else if (k->type == INT || k->type == BYTES)
        return read_foreign_number(k, name, value, out, size);
    else if (!strcmp(name, "NCCL_ALGO"))
        for (char *p = out; *p; p++)
            *p = (char)tolower((unsigned char)*p);
    else if (!strcmp(name, "NCCL_SOCKET_IFNAME") && net_interface_choose(&any, value, NULL)) {
        gt_message_clear();
        tell_foreign(k, name, value, "no interface of this host, and nothing for");
        return 0;
    }
    return *out != '\0';
}

static gt_status read_alias(config_box *box, const knob *k, const char *name)
{
    char text[512];
    const char *value = getenv(name);
    if (!value || !*value || !read_foreign(k, name, value, text, sizeof text))
        return GT_OK;
    return set_knob(box, k, text, name);
}

static gt_status read_aliases(config_box *box)
{
    gt_status st = read_alias(box, find_knob("hca", 3), "UCX_NET_DEVICES");
    for (int i = 0; i < KNOBS && !st; i++)
        if (knobs[i].alias)
            st = read_alias(box, &knobs[i], knobs[i].alias);
    return st;
}

static gt_status read_own_names(config_box *box)
{
    static const char prefix[] = "GEARTRAIN_NET_";
    gt_status st = GT_OK;
    for (char **e = environ; e && *e && !st; e++) {
        const char *name = *e + sizeof prefix - 1, *equals = strchr(*e, '=');
        char origin[ORIGIN];
        if (strncmp(*e, prefix, sizeof prefix - 1) || !equals || !equals[1])
            continue;
        const size_t length = (size_t)(equals - name);
        if (length == 6 && !strncmp(name, "CONFIG", 6))
            continue;
        snprintf(origin, sizeof origin, "%.*s", (int)(equals - *e), *e);
        const knob *k = find_knob(name, length);
        st = k ? set_knob(box, k, equals + 1, origin) : unknown_knob(origin + sizeof prefix - 1, origin);
    }
    return st;
}

static gt_status check_together(const net_config *c)
{
    if (c->dead_after < 2 * c->heartbeat)
        return gt_fail(GT_MISUSE,
                       "network setting dead-after (%gs) must be at least twice heartbeat "
                       "(%gs), or one late sign of life ends the job",
                       (double)c->dead_after * 1e-9, (double)c->heartbeat * 1e-9);
    if (c->stall_limit < c->stall_report)
        return gt_fail(GT_MISUSE,
                       "network setting stall-limit (%gs) must not be below stall-report "
                       "(%gs)",
                       (double)c->stall_limit * 1e-9, (double)c->stall_report * 1e-9);
    if (c->ib_mtu && (c->ib_mtu < 256 || (c->ib_mtu & (c->ib_mtu - 1))))
        return gt_fail(GT_MISUSE,
                       "network setting ib-mtu cannot be '%d'; it takes 0, 256, 512, 1024, "
                       "2048 or 4096",
                       c->ib_mtu);
    return GT_OK;
}

static void value_text(const net_config *c, const knob *k, char *out, size_t size)
{
    switch (k->type) {
    case INT: snprintf(out, size, "%d", *(const int *)field(c, k)); return;
    case STRING:
    case CHOICE: snprintf(out, size, "%s", *(const char *const *)field(c, k)); return;
    case BYTES: gt_format_size(out, size, *(const uint64_t *)field(c, k)); return;
    case SPIN:
    case DURATION: {
        const uint64_t v = *(const uint64_t *)field(c, k);
        if (v == UINT64_MAX)
            snprintf(out, size, "auto");
        else if (v % MS)
            snprintf(out, size, "%gms", (double)v * 1e-6);
        else
            snprintf(out, size, "%gs", (double)v * 1e-9);
        return;
    }
    }
}

static void log_changes(const config_box *box)
{
    char value[256];
    for (int i = 0; i < KNOBS; i++)
        if (box->origin[i][0]) {
            value_text(&box->c, &knobs[i], value, sizeof value);
            gt_log(GT_LOG_INFO, "net", "%s = %s, from %s", knobs[i].name, value, box->origin[i]);
        }
}

gt_status net_config_read(net_config **out)
{
    *out = NULL;
    config_box *box = calloc(1, sizeof *box);
    if (!box)
        return gt_fail(GT_NO_MEMORY, "no memory for the network's settings");
    gt_status st = GT_OK;
    for (int i = 0; i < KNOBS && !st; i++)
        st = set_knob(box, &knobs[i], knobs[i].standard, "");
    if (!st)
        st = read_file(box);
    if (!st)
        st = read_aliases(box);
    if (!st)
        st = read_own_names(box);
    if (!st)
        st = check_together(&box->c);
    if (st) {
        net_config_release(&box->c);
        return st;
    }
    log_changes(box);
    *out = &box->c;
    return GT_OK;
}

int net_config_is_foreign(const net_config *config, const char *name)
{
    const config_box *box = (const config_box *)(const void *)config;
    const knob *k = find_knob(name, strlen(name));
    const char *origin = k ? box->origin[k - knobs] : "";
    return !strncmp(origin, "NCCL_", 5) || !strncmp(origin, "UCX_", 4);
}

gt_status net_config_set(net_config *config, const char *name, const char *value)
{
    const knob *k = find_knob(name, strlen(name));
    return k ? set_knob((config_box *)config, k, value, "--net") : unknown_knob(name, "--net");
}

gt_status net_config_check(const net_config *config)
{
    return check_together(config);
}

void net_config_release(net_config *config)
{
    config_box *box = (config_box *)config;
    if (!box)
        return;
    for (text_list *t = box->texts, *next; t; t = next) {
        next = t->next;
        free(t);
    }
    free(box);
}

void net_config_print(const net_config *config, gt_text *out)
{
    const config_box *box = (const config_box *)(const void *)config;
    char value[256];
    gt_text_printf(out, "%-17s %-14s %-30s %s\n", "name", "value", "from", "meaning");
    for (int i = 0; i < KNOBS; i++) {
        value_text(config, &knobs[i], value, sizeof value);
        gt_text_printf(out, "%-17s %-14s %-30s %s\n", knobs[i].name, *value ? value : "-",
                       box->origin[i][0] ? box->origin[i] : "default", knobs[i].help);
    }
    gt_text_printf(out, "\nSet one with --net NAME=VALUE, GEARTRAIN_NET_NAME in the environment, or "
                        "a line NAME = VALUE in the file $GEARTRAIN_NET_CONFIG.\nAlso read:");
    for (int i = 0; i < KNOBS; i++)
        if (knobs[i].alias)
            gt_text_printf(out, " %s", knobs[i].alias);
    gt_text_printf(out, " UCX_NET_DEVICES\n");
}

void net_config_shared(const net_config *config, gt_text *out)
{
    char value[256];
    for (int i = 0; i < KNOBS; i++)
        if (knobs[i].flags & BOTH) {
            value_text(config, &knobs[i], value, sizeof value);
            gt_text_printf(out, "%s=%s\n", knobs[i].name, value);
        }
}

uint64_t net_config_hash(const net_config *config)
{
    gt_text text = { 0 };
    net_config_shared(config, &text);
    const uint64_t hash = text.data && !text.failed ? gt_hash(text.data, text.size) : 0;
    gt_text_release(&text);
    return hash;
}
