/* SPDX-License-Identifier: MIT */
/* host/train/events.c - event records, encoded by hand: seven fields do not need a
 * protocol-buffer library. */
#include "host/train/events.h"

#include "host/base/clock.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct events {
    FILE *file;
    char path[1024];
};

static uint32_t table[256];
static pthread_once_t table_once = PTHREAD_ONCE_INIT;

static void make_table(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int bit = 0; bit < 8; bit++)
            c = c >> 1 ^ (c & 1u ? 0x82F63B78u : 0u);
        table[i] = c;
    }
}

uint32_t events_crc32c(const void *data, size_t size)
{
    const unsigned char *p = data;
    uint32_t c = 0xFFFFFFFFu;
    pthread_once(&table_once, make_table);
    for (size_t i = 0; i < size; i++)
        c = c >> 8 ^ table[(c ^ p[i]) & 0xFFu];
    return ~c;
}

static uint32_t masked(const void *data, size_t size)
{
    uint32_t c = events_crc32c(data, size);
    return (c >> 15 | c << 17) + 0xA282EAD8u;
}

/* A record under construction; the largest has a text. */
enum { TEXT_MOST = 4096 };
typedef struct record {
    unsigned char data[TEXT_MOST + 256];
    size_t size;
} record;

static void put_bytes(record *r, const void *data, size_t size)
{
    if (r->size + size <= sizeof r->data) {
        memcpy(r->data + r->size, data, size);
        r->size += size;
    }
}

static void put_varint(record *r, uint64_t value)
{
    do {
        unsigned char byte = (unsigned char)(value & 0x7Fu);
        value >>= 7;
        byte |= value ? 0x80u : 0u;
        put_bytes(r, &byte, 1);
    } while (value);
}

/* wire types: 0 varint, 1 64-bit, 2 bytes, 5 32-bit */
static void put_key(record *r, unsigned field, unsigned wire)
{
    put_varint(r, field << 3 | wire);
}

static void put_block(record *r, unsigned field, const void *data, size_t size)
{
    put_key(r, field, 2);
    put_varint(r, size);
    put_bytes(r, data, size);
}

static gt_status write_record(events *e, const record *r)
{
    const uint64_t size = r->size;
    const uint32_t size_crc = masked(&size, sizeof size), data_crc = masked(r->data, r->size);
    if (fwrite(&size, sizeof size, 1, e->file) != 1 || fwrite(&size_crc, sizeof size_crc, 1, e->file) != 1
        || fwrite(r->data, 1, r->size, e->file) != r->size || fwrite(&data_crc, sizeof data_crc, 1, e->file) != 1)
        return gt_fail(GT_IO, "cannot write '%s': %s", e->path, strerror(errno));
    return GT_OK;
}

static void put_time(record *r)
{
    const double now = gt_wall_seconds();
    put_key(r, 1, 1);
    put_bytes(r, &now, sizeof now);
}

/* TensorBoard reads a folder's files in the order of their names: so by time, and among those of
 * one second by number. None that is there is written over. */
static FILE *create(events *e, const char *folder)
{
    char host[128] = "localhost";
    const double now = gt_wall_seconds();
    FILE *file = NULL;
    gethostname(host, sizeof host - 1);
    for (int number = 0; !file && number < 1000 && (!number || errno == EEXIST); number++) {
        snprintf(e->path, sizeof e->path, "%.700s/events.out.tfevents.%010.0f.%.120s.%ld.%d", folder, floor(now), host,
                 (long)getpid(), number);
        file = fopen(e->path, "wbxe");
    }
    return file;
}

static gt_status put_start(events *e, uint64_t first)
{
    record log = { .size = 0 }, event = { .size = 0 };
    put_key(&log, 1, 0);                    /* status */
    put_varint(&log, 1);                    /* START  */
    put_time(&event);
    put_key(&event, 2, 0);
    put_varint(&event, first);
    put_block(&event, 7, log.data, log.size);
    return write_record(e, &event);
}

gt_status events_open(events **out, const char *folder, uint64_t first)
{
    *out = NULL;
    events *e = calloc(1, sizeof *e);
    if (!e)
        return gt_fail(GT_NO_MEMORY, "cannot write events: no memory for the writer");
    e->file = create(e, folder);
    if (!e->file) {
        gt_status st = gt_fail(GT_IO, "cannot create '%s': %s", e->path, strerror(errno));
        free(e);
        return st;
    }
    record r = { .size = 0 };
    put_time(&r);
    put_block(&r, 3, "brain.Event:2", 13);
    gt_status st = write_record(e, &r);
    if (!st)
        st = put_start(e, first);
    if (!st)
        st = events_flush(e);
    if (st) {
        fclose(e->file);
        free(e);
        return st;
    }
    *out = e;
    return GT_OK;
}

gt_status events_scalar(events *e, uint64_t step, const char *tag, float number)
{
    record value = { .size = 0 }, summary = { .size = 0 }, event = { .size = 0 };
    put_block(&value, 1, tag, strlen(tag) < 100 ? strlen(tag) : 100);
    put_key(&value, 2, 5);
    put_bytes(&value, &number, sizeof number);
    put_block(&summary, 1, value.data, value.size);
    put_time(&event);
    put_key(&event, 2, 0);
    put_varint(&event, step);
    put_block(&event, 5, summary.data, summary.size);
    return write_record(e, &event);
}

/* A tensor of one string, and in its metadata the page that shows it. A text that is too long is cut
 * between characters. */
gt_status events_text(events *e, uint64_t step, const char *tag, const char *text)
{
    enum { DT_STRING = 7 };
    record plugin = { .size = 0 }, metadata = { .size = 0 }, tensor = { .size = 0 };
    record value = { .size = 0 }, summary = { .size = 0 }, event = { .size = 0 };
    size_t size = strlen(text) < TEXT_MOST ? strlen(text) : TEXT_MOST;
    while (size && ((unsigned char)text[size] & 0xC0u) == 0x80u)
        size--;
    put_block(&plugin, 1, "text", 4);
    put_block(&metadata, 1, plugin.data, plugin.size);
    put_key(&tensor, 1, 0);
    put_varint(&tensor, DT_STRING);
    put_block(&tensor, 2, "\x12\x02\x08\x01", 4);       /* its shape: one dimension, of 1 */
    put_block(&tensor, 8, text, size);
    put_block(&value, 1, tag, strlen(tag) < 100 ? strlen(tag) : 100);
    put_block(&value, 9, metadata.data, metadata.size);
    put_block(&value, 8, tensor.data, tensor.size);
    put_block(&summary, 1, value.data, value.size);
    put_time(&event);
    put_key(&event, 2, 0);
    put_varint(&event, step);
    put_block(&event, 5, summary.data, summary.size);
    return write_record(e, &event);
}

gt_status events_flush(events *e)
{
    return fflush(e->file) == 0 ? GT_OK : gt_fail(GT_IO, "cannot write '%s': %s", e->path, strerror(errno));
}

gt_status events_close(events *e)
{
    if (!e)
        return GT_OK;
    gt_status st = events_flush(e);
    if (fclose(e->file) != 0 && !st)
        st = gt_fail(GT_IO, "cannot write '%s': %s", e->path, strerror(errno));
    free(e);
    return st;
}
