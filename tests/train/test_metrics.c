/* tests/train/test_metrics.c - the record of a run, its events and its picture. */
#include "tests/check.h"

#include "host/base/file.h"
#include "host/train/events.h"
#include "host/train/metrics.h"
#include "host/train/plot.h"

#include <dirent.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void crc32c_of_known_texts(void)
{
    unsigned char zeros[32] = { 0 }, ones[32], rising[32];
    memset(ones, 0xFF, sizeof ones);
    for (int i = 0; i < 32; i++)
        rising[i] = (unsigned char)i;
    CHECK(events_crc32c("123456789", 9) == 0xE3069283u);
    CHECK(events_crc32c("", 0) == 0);
    CHECK(events_crc32c(zeros, 32) == 0x8A9136AAu);         /* RFC 3720, appendix B.4 */
    CHECK(events_crc32c(ones, 32) == 0x62A8AB43u);
    CHECK(events_crc32c(rising, 32) == 0x46DD794Eu);
}

static char *event_file(const char *folder)
{
    char *path = NULL;
    DIR *dir = opendir(folder);
    for (struct dirent *e; dir && (e = readdir(dir)); )
        if (!strncmp(e->d_name, "events.out.tfevents.", 20)) {
            free(path);
            path = gt_path_join(folder, e->d_name);
        }
    if (dir)
        closedir(dir);
    return path;
}

static uint32_t masked(const void *data, size_t size)
{
    const uint32_t c = events_crc32c(data, size);
    return ((c >> 15) | (c << 17)) + 0xA282EAD8u;
}

/* Takes one record off *p; returns its length, its data in *data; 0 if it is not whole. */
static uint64_t next_record(const unsigned char **p, const unsigned char *end,
                            const unsigned char **data)
{
    uint64_t size = 0;
    uint32_t crc;
    if (end - *p < 16)
        return 0;
    memcpy(&size, *p, 8);
    memcpy(&crc, *p + 8, 4);
    CHECK(crc == masked(*p, 8));
    if ((uint64_t)(end - *p) < size + 16)
        return 0;
    *data = *p + 12;
    memcpy(&crc, *data + size, 4);
    CHECK(crc == masked(*data, size));
    *p += size + 16;
    return size;
}

static void event_records_have_their_bytes(void)
{
    char *folder = gt_path_join(check_folder(), "events"), *path;
    events *e = NULL;
    gt_map map;
    CHECK_OK(gt_folder_make(folder));
    CHECK_OK(events_open(&e, folder, 300));
    CHECK_OK(events_scalar(e, 300, "loss/train", 1.5f));
    CHECK_OK(events_close(e));
    path = event_file(folder);
    CHECK_OK(gt_map_open(&map, path));
    const unsigned char *p = map.data, *end = map.data + map.size, *data = NULL;
    /* field 1, 8 bytes of time; field 3, 13 bytes */
    CHECK(next_record(&p, end, &data) == 9 + 2 + 13);
    CHECK(data[0] == 0x09 && data[9] == 0x1A && data[10] == 13);
    CHECK(!memcmp(data + 11, "brain.Event:2", 13));
    /* time; field 2, 300; field 7, a session log { field 1, 1: it starts }. */
    static const unsigned char start[] = { 0x10, 0xAC, 0x02, 0x3A, 2, 0x08, 0x01 };
    CHECK(next_record(&p, end, &data) == 9 + sizeof start);
    CHECK(!memcmp(data + 9, start, sizeof start));
    /* time; field 2, 300 as a varint; field 5 { field 1 { field 1 tag, field 2 float } } */
    static const unsigned char want[] = { 0x10, 0xAC, 0x02, 0x2A, 19, 0x0A, 17, 0x0A, 10, 'l', 'o',
                                          's', 's', '/', 't', 'r', 'a', 'i', 'n', 0x15, 0, 0, 0xC0,
                                          0x3F };
    CHECK(next_record(&p, end, &data) == 9 + sizeof want);
    CHECK(!memcmp(data + 9, want, sizeof want));
    CHECK(p == end);
    gt_map_close(&map);
    free(path);
    free(folder);
}

static metrics_row row_of(uint64_t step)
{
    return (metrics_row){ .step = step, .tokens = 64 * step, .loss = 4.0 / (double)step, .lr = 1e-3,
                          .grad_norm = 0.5, .tokens_per_s = 1e4, .step_ms = 6.4, .mfu = NAN,
                          .loss_scale = 1.0, .val_loss = step % 5 ? NAN : 4.2, .val_tokens = 320 };
}

static size_t lines_of(const char *path, uint64_t *last)
{
    char *text = NULL;
    size_t size = 0, lines = 0;
    CHECK_OK(gt_file_read(&text, &size, path, 1u << 24));
    for (char *line = text, *end; line && (end = strchr(line, '\n')); line = end + 1) {
        json_t *row = json_loadb(line, (size_t)(end - line), JSON_REJECT_DUPLICATES, NULL);
        CHECKF(row != NULL, "line %zu is no object", lines + 1);
        *last = (uint64_t)json_integer_value(json_object_get(row, "step"));
        json_decref(row);
        lines++;
    }
    free(text);
    return lines;
}

static void resuming_cuts_what_will_be_done_again(void)
{
    char *folder = gt_path_join(check_folder(), "record");
    char *path = gt_path_join(folder, "metrics.jsonl");
    metrics *m = NULL;
    uint64_t last = 0;
    CHECK_OK(gt_folder_make(folder));
    CHECK_OK(metrics_open(&m, folder, 0));
    for (uint64_t step = 1; step <= 20; step++) {
        metrics_row row = row_of(step);
        CHECK_OK(metrics_put(m, &row));
    }
    CHECK_OK(metrics_close(m));
    CHECK(lines_of(path, &last) == 20 && last == 20);
    /* A kill cut the last line short. */
    FILE *file = fopen(path, "a");
    fprintf(file, "{\"step\": 21, \"lo");
    fclose(file);
    CHECK_OK(metrics_open(&m, folder, 15));
    CHECK(lines_of(path, &last) == 15 && last == 15);
    metrics_row row = row_of(16);
    CHECK_OK(metrics_put(m, &row));
    CHECK_OK(metrics_close(m));
    CHECK(lines_of(path, &last) == 16 && last == 16);
    CHECK_OK(metrics_open(&m, folder, 0));                  /* anew */
    CHECK_OK(metrics_close(m));
    CHECK(lines_of(path, &last) == 0);
    free(path);
    free(folder);
}

typedef struct seen { int files, starts; uint64_t steps[64], count, last_start; } seen;

/* Reads an event file as TensorBoard does: a session log that starts drops what came before of that
 * step and later ones. */
static void read_events(seen *s, const char *path)
{
    gt_map map;
    uint64_t size;
    if (!CHECK_OK(gt_map_open(&map, path)))
        return;
    const unsigned char *p = map.data, *end = map.data + map.size, *data = NULL;
    s->files++;
    while ((size = next_record(&p, end, &data)) != 0) {
        if (data[9] != 0x10)                            /* no step: the version */
            continue;
        uint64_t step = data[10] & 0x7Fu;
        const size_t after = data[10] & 0x80 ? 12 : 11;
        if (after == 12)
            step |= (uint64_t)data[11] << 7;
        if (data[after] == 0x3A) {
            uint64_t kept = 0;
            for (uint64_t i = 0; i < s->count; i++)
                if (s->steps[i] < step)
                    s->steps[kept++] = s->steps[i];
            s->count = kept;
            s->starts++;
            s->last_start = step;
        } else if (data[after] == 0x2A && !memcmp(data + after + 6, "loss/train", 10) && s->count < 64) {
            s->steps[s->count++] = step;
        }
    }
    CHECK(p == end);
    gt_map_close(&map);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void a_resumed_run_takes_the_place_of_its_steps(void)
{
    static const struct { uint64_t from, to; } parts[] = { { 0, 20 }, { 15, 18 }, { 0, 3 }, { 3, 30 } };
    char *folder = gt_path_join(check_folder(), "again"), *names[8];
    seen s = { 0 };
    size_t files = 0;
    CHECK_OK(gt_folder_make(folder));
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {     /* within one second */
        metrics *m = NULL;
        CHECK_OK(metrics_open(&m, folder, parts[i].from));
        for (uint64_t step = parts[i].from + 1; step <= parts[i].to; step++) {
            metrics_row row = row_of(step);
            CHECK_OK(metrics_put(m, &row));
        }
        CHECK_OK(metrics_close(m));
    }
    DIR *dir = opendir(folder);
    for (struct dirent *e; dir && (e = readdir(dir)) && files < 8; )
        if (!strncmp(e->d_name, "events.out.tfevents.", 20))
            names[files++] = gt_path_join(folder, e->d_name);
    if (dir)
        closedir(dir);
    qsort(names, files, sizeof *names, by_name);
    for (size_t i = 0; i < files; i++) {
        read_events(&s, names[i]);
        free(names[i]);
    }
    CHECK(s.files == 4 && s.starts == 4 && s.last_start == 4);
    CHECK(s.count == 30);
    for (uint64_t i = 0; i < s.count; i++)
        CHECKF(s.steps[i] == i + 1, "step %d stands in place %d", (int)s.steps[i], (int)i + 1);
    free(folder);
}

static void numbers_that_are_none_become_null(void)
{
    char text[1024];
    metrics_row row = row_of(3);
    row.loss = INFINITY;
    row.grad_norm = NAN;
    row.skipped = 1;
    row.loss_scale = 32768.0;
    json_t *o = json_loads(metrics_json(text, sizeof text, &row), JSON_REJECT_DUPLICATES, NULL);
    CHECK(o != NULL);
    CHECK(json_is_null(json_object_get(o, "loss")));
    CHECK(json_is_null(json_object_get(o, "grad_norm")));
    CHECK(json_is_true(json_object_get(o, "skipped")));
    CHECK(json_number_value(json_object_get(o, "loss_scale")) == 32768.0);
    CHECK(json_object_get(o, "val_loss") == NULL);
    json_decref(o);
    row = row_of(5);
    o = json_loads(metrics_json(text, sizeof text, &row), 0, NULL);
    CHECK(json_number_value(json_object_get(o, "val_loss")) == 4.2);
    CHECK(json_integer_value(json_object_get(o, "val_tokens")) == 320);
    CHECK(json_object_get(o, "loss_scale") == NULL && json_object_get(o, "skipped") == NULL);
    json_decref(o);
}

/* Every tag that opens closes, in order; attributes are quoted; no number is nan or inf. */
static int well_formed(const char *text)
{
    char stack[16][32];
    int depth = 0;
    for (const char *p = text; (p = strchr(p, '<')); p++) {
        char name[32] = "";
        const int closing = p[1] == '/';
        const char *end = strchr(p, '>');
        int quotes = 0;
        if (!end || sscanf(p + 1 + closing, "%31[a-z]", name) != 1)
            return 0;
        for (const char *q = p + 1; q < end; q++) {
            quotes += *q == '"';
            if (*q == '<')
                return 0;
        }
        if (quotes % 2)
            return 0;
        if (closing) {
            if (!depth || strcmp(stack[--depth], name))
                return 0;
        } else if (end[-1] != '/') {
            if (depth == 16)
                return 0;
            snprintf(stack[depth++], sizeof stack[0], "%s", name);
        }
    }
    return depth == 0 && !strstr(text, "nan") && !strstr(text, "inf");
}

static void the_picture_is_well_formed(void)
{
    static const size_t counts[] = { 1, 2, 3, 49, 50, 51, 1500, 1501, 40000 };
    char *path = gt_path_join(check_folder(), "loss.svg"), *text = NULL;
    for (size_t k = 0; k < sizeof counts / sizeof *counts; k++)
        for (int shape = 0; shape < 4; shape++) {
            plot_series a = { 0 }, b = { 0 };
            size_t size = 0;
            for (size_t i = 0; i < counts[k]; i++) {
                const double x = (double)i + 1.0;
                /* falling, constant, enormous, with holes */
                const double y = shape == 0 ? 1.0 + 3.0 / x : shape == 1 ? 2.5
                                 : shape == 2 ? 1e30 / x : i % 3 ? NAN : -x;
                CHECK_OK(plot_add(&a, x, y));
                if (i % 10 == 9)
                    CHECK_OK(plot_add(&b, x, y + 0.1));
            }
            CHECK_OK(plot_loss(path, &a, &b));
            CHECK_OK(gt_file_read(&text, &size, path, 1u << 24));
            CHECKF(text && well_formed(text), "%zu points of shape %d", counts[k], shape);
            CHECKF(size < 400000, "%zu bytes for %zu points", size, counts[k]);
            free(text);
            plot_release(&a);
            plot_release(&b);
        }
    free(path);
}

const check_case check_cases[] = {
    CASE(crc32c_of_known_texts),
    CASE(event_records_have_their_bytes),
    CASE(resuming_cuts_what_will_be_done_again),
    CASE(a_resumed_run_takes_the_place_of_its_steps),
    CASE(numbers_that_are_none_become_null),
    CASE(the_picture_is_well_formed),
    { 0 }
};
