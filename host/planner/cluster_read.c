/* SPDX-License-Identifier: MIT */
/* host/planner/cluster_read.c - a file of machines that need not be here. */
#include "host/planner/cluster_search.h"

#include "host/base/file.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_DEVICES = 1 << 17 };

/* ---- values with units ----------------------------------------------------------------- */

static gt_status read_bytes(double *out, const json_t *of, const char *key, const char *where)
{
    const json_t *v = json_object_get(of, key);
    uint64_t bytes = 0;
    if (json_is_number(v))
        *out = json_number_value(v);
    else if (!json_is_string(v) || gt_parse_bytes(&bytes, json_string_value(v)))
        return gt_fail(GT_FORMAT, "cluster file: '%s' of %s is not a number of bytes like \"80GB\"", key, where);
    else
        *out = (double)bytes;
    return *out > 0 ? GT_OK : gt_fail(GT_FORMAT, "cluster file: '%s' of %s is not above 0", key, where);
}

static gt_status read_latency(double *out, const json_t *of, const char *key, double fallback)
{
    const json_t *v = json_object_get(of, key);
    uint64_t ns;
    *out = fallback;
    if (!v)
        return GT_OK;
    if (!json_is_string(v) || gt_parse_duration(&ns, json_string_value(v)))
        return gt_fail(GT_FORMAT, "cluster file: '%s' is not a time like \"20us\"", key);
    *out = (double)ns * 1e-9;
    return GT_OK;
}

static gt_status read_count(int *out, const json_t *of, const char *where)
{
    const json_t *v = json_object_get(of, "count");
    const json_int_t n = v ? json_integer_value(v) : 1;
    if (n < 1 || n > MOST_DEVICES || (v && !json_is_integer(v)))
        return gt_fail(GT_FORMAT, "cluster file: 'count' of %s is not from 1 to %d", where, MOST_DEVICES);
    *out = (int)n;
    return GT_OK;
}

/* ---- nodes ----------------------------------------------------------------------------- */

static gt_status read_device(cluster_device *out, int *count, const json_t *of)
{
    const char *name = json_string_value(json_object_get(of, "name"));
    if (!name)
        return gt_fail(GT_FORMAT, "cluster file: a device has no 'name'");
    *out = (cluster_device){ .flops = json_number_value(json_object_get(of, "tflops")) * 1e12 };
    strncpy(out->name, name, sizeof out->name - 1);
    if (!(out->flops > 0))
        return gt_fail(GT_FORMAT, "cluster file: 'tflops' of device '%s' is not above 0", name);
    gt_status st = read_count(count, of, name);
    return st ? st : read_bytes(&out->memory, of, "memory", name);
}

static gt_status add_devices(cluster_devices *c, const cluster_device *d, int count)
{
    if (count > MOST_DEVICES - c->devices)
        return gt_fail(GT_FORMAT, "cluster file: more than %d devices", MOST_DEVICES);
    cluster_device *grown = realloc(c->device, (size_t)(c->devices + count) * sizeof *grown);
    if (!grown)
        return gt_fail(GT_NO_MEMORY, "no memory for %d devices of the cluster file", c->devices + count);
    c->device = grown;
    for (int i = 0; i < count; i++)
        c->device[c->devices++] = *d;
    return GT_OK;
}

static gt_status add_node(cluster_devices *c, const json_t *of)
{
    const json_t *devices = json_object_get(of, "devices"), *entry;
    double *local = realloc(c->local_bandwidth, (size_t)(c->nodes + 1) * sizeof *local);
    if (local)
        c->local_bandwidth = local;
    double *uplink = realloc(c->uplink, (size_t)(c->nodes + 1) * sizeof *uplink);
    if (uplink)
        c->uplink = uplink;
    if (!local || !uplink)
        return gt_fail(GT_NO_MEMORY, "no memory for %d nodes of the cluster file", c->nodes + 1);
    gt_status st = read_bytes(&local[c->nodes], of, "local", "a node");
    if (!st)
        st = read_bytes(&uplink[c->nodes], of, "uplink", "a node");
    if (!st && !json_array_size(devices))
        st = gt_fail(GT_FORMAT, "cluster file: a node has no 'devices'");
    size_t i;
    json_array_foreach(devices, i, entry) {
        cluster_device d = { 0 };
        int count = 0;
        if (!st)
            st = read_device(&d, &count, entry);
        d.node = c->nodes;
        if (!st)
            st = add_devices(c, &d, count);
    }
    c->nodes++;
    return st;
}

static gt_status read_all(cluster_devices *c, const json_t *root)
{
    const json_t *nodes = json_object_get(root, "nodes"), *entry;
    size_t i;
    gt_status st = read_latency(&c->latency, root, "latency", 20e-6);
    if (!st)
        st = read_latency(&c->local_latency, root, "local_latency", 5e-6);
    if (!st && !json_array_size(nodes))
        st = gt_fail(GT_FORMAT, "cluster file: there is no list of 'nodes'");
    json_array_foreach(nodes, i, entry) {
        int count = 0;
        if (!st)
            st = read_count(&count, entry, "a node");
        for (int n = 0; !st && n < count; n++)
            st = add_node(c, entry);
    }
    return st;
}

gt_status cluster_read(cluster_devices *out, const char *path)
{
    char *text = NULL;
    size_t size;
    json_error_t error;
    *out = (cluster_devices){ 0 };
    gt_status st = gt_file_read(&text, &size, path, 64u << 20);
    if (st)
        return st;
    json_t *root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);
    st = root ? read_all(out, root) : gt_fail(GT_FORMAT, "cluster file: line %d: %s", error.line, error.text);
    json_decref(root);
    free(text);
    if (st) {
        cluster_release(out);
        gt_fail_in(st, "cannot read '%s'", path);
    }
    return st;
}

void cluster_release(cluster_devices *c)
{
    free(c->device);
    free(c->local_bandwidth);
    free(c->uplink);
    *c = (cluster_devices){ 0 };
}
