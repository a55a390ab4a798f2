/* SPDX-License-Identifier: MIT */
/* net/job/hostlist.c - Slurm's short forms, without expanding them: item by item, counts are
 * subtracted from the index until it falls into one, so "n[0-99999999]" costs nothing. Fed with
 * any bytes by tests/fuzz/fuzz_hostlist.c. */
#include "net/job/hostlist.h"

#include <stdio.h>
#include <string.h>

enum { GROUPS = 4 };                    /* brackets in one name                              */
#define MOST UINT64_C(1000000000)       /* hosts of one item                                 */

static gt_status bad_list(const char *list)
{
    return gt_fail(GT_FORMAT, "'%.200s' is no list of hosts such as node[01-03,7],other", list);
}

/* A number of 1 to 9 digits. */
static int get_number(const char **p, uint64_t *out, int *digits)
{
    uint64_t v = 0;
    int n = 0;
    while (**p >= '0' && **p <= '9' && n <= 9) {
        v = 10 * v + (uint64_t)(*(*p)++ - '0');
        n++;
    }
    *out = v;
    *digits = n;
    return n >= 1 && n <= 9;
}

/* The inside of a bracket, "01-03,7". Counts its numbers; the one at `index`, if it is
 * inside, goes to out. 0: not such a text. */
static int walk_group(const char *p, const char *end, uint64_t index, uint64_t *count, char out[16])
{
    *count = 0;
    for (;;) {
        uint64_t a, b;
        int width, other;
        if (!get_number(&p, &a, &width))
            return 0;
        b = a;
        if (*p == '-') {
            p++;
            if (!get_number(&p, &b, &other) || b < a)
                return 0;
        }
        if (index >= *count && index - *count <= b - a)
            snprintf(out, 16, "%0*llu", width, (unsigned long long)(a + index - *count));
        *count += b - a + 1;
        if (p == end)
            return *count <= MOST;
        if (*p++ != ',')
            return 0;
    }
}

/* One item, "r[1-2]n[1-2]", of the list. */
typedef struct item {
    const char *open[GROUPS], *close[GROUPS];
    uint64_t count[GROUPS], total;
    int groups;
} item;

static int is_name(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.'
           || c == '_';
}

/* Reads the item at p; returns its end, or NULL. */
static const char *read_item(item *it, const char *p)
{
    const char *start = p;
    char unused[16];
    memset(it, 0, sizeof *it);
    it->total = 1;
    while (*p && *p != ',') {
        if (*p != '[') {
            if (!is_name(*p++))
                return NULL;
            continue;
        }
        const char *close = strchr(p, ']');
        const int g = it->groups;
        if (!close || g == GROUPS || !walk_group(p + 1, close, UINT64_MAX, &it->count[g], unused))
            return NULL;
        it->open[g] = p;
        it->close[g] = close;
        it->groups++;
        it->total *= it->count[g];
        if (it->total > MOST)
            return NULL;
        p = close + 1;
    }
    return p > start ? p : NULL;
}

/* Writes the index-th host of an item that ends at `end`. */
static gt_status write_item(const item *it, const char *p, const char *end, uint64_t index, char *out, size_t size)
{
    size_t used = 0;
    uint64_t left = it->total, count;
    for (int g = 0; p < end;) {
        char number[16];
        const char *text = p;
        size_t n = 1;
        if (g < it->groups && p == it->open[g]) {
            left /= it->count[g];
            walk_group(p + 1, it->close[g], index / left, &count, number);
            index %= left;
            text = number;
            n = strlen(number);
            p = it->close[g++];
        }
        if (used + n >= size)
            return gt_fail(GT_FORMAT, "a host's name in the list is too long");
        memcpy(out + used, text, n);
        used += n;
        p++;
    }
    out[used] = '\0';
    return GT_OK;
}

gt_status net_hostlist_get(char *out, size_t size, const char *list, uint64_t index)
{
    const char *p = list;
    item it;
    for (;;) {
        const char *end = read_item(&it, p);
        if (!end)
            return bad_list(list);
        if (index < it.total)
            return write_item(&it, p, end, index, out, size);
        index -= it.total;
        if (!*end)
            return gt_fail(GT_NOT_FOUND, "the list '%.200s' has fewer hosts", list);
        p = end + 1;
    }
}

gt_status net_tasks_get(int *out, const char *list, uint64_t index)
{
    const char *p = list;
    for (;;) {
        uint64_t tasks, times = 1;
        int digits;
        if (!get_number(&p, &tasks, &digits))
            break;
        if (p[0] == '(' && p[1] == 'x') {
            p += 2;
            if (!get_number(&p, &times, &digits) || *p++ != ')')
                break;
        }
        if (index < times) {
            *out = (int)tasks;
            return GT_OK;
        }
        index -= times;
        if (!*p)
            return gt_fail(GT_NOT_FOUND, "the list '%.200s' has fewer nodes", list);
        if (*p++ != ',')
            break;
    }
    return gt_fail(GT_FORMAT, "'%.200s' is no list of tasks such as 2(x3),1", list);
}

gt_status net_hosts_line(char *host, size_t size, int *slots, const char *line)
{
    static const char blank[] = " \t\r\n";
    const char *p = line + strspn(line, blank);
    uint64_t n = 1;
    int digits;
    *slots = 0;
    if (!*p || *p == '#')
        return GT_OK;
    size_t length = 0;
    while (is_name(p[length]) || p[length] == '@' || p[length] == ':')
        length++;
    if (length == 0 || length >= size || *p == '-')
        return gt_fail(GT_FORMAT, "'%.100s' names no host", line);
    memcpy(host, p, length);
    host[length] = '\0';
    p += length + strspn(p + length, blank);
    /* "node1:2" as mpirun and MPICH have it; an IPv6 address has more colons. */
    char *colon = strchr(host, ':');
    if (colon && !strchr(colon + 1, ':')) {
        const char *count = colon + 1;
        if (!get_number(&count, &n, &digits) || *count || n < 1 || n > 4096 || colon == host)
            return gt_fail(GT_FORMAT, "'%.100s': HOST:N should have 1 to 4096 slots", line);
        *colon = '\0';
        if (*p && *p != '#')
            return gt_fail(GT_FORMAT, "'%.100s' says twice how many slots", line);
    } else if (!strncmp(p, "slots=", 6)) {
        p += 6;
        if (!get_number(&p, &n, &digits) || n < 1 || n > 4096)
            return gt_fail(GT_FORMAT, "'%.100s': slots should be 1 to 4096", line);
        p += strspn(p, blank);
    }
    if (*p && *p != '#')
        return gt_fail(GT_FORMAT, "'%.100s' is not HOST, HOST:N or HOST slots=N", line);
    *slots = (int)n;
    return GT_OK;
}
