/* SPDX-License-Identifier: MIT */
/* tests/train/test_metrics.c - the record of a run, its events and its picture. */
#include "tests/check.h"
#include "tests/svg_check.h"

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
    for (struct dirent *e; dir && (e = readdir(dir));)
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
static uint64_t next_record(const unsigned char **p, const unsigned char *end, const unsigned char **data)
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
    static const unsigned char want[] = { 0x10, 0xAC, 0x02, 0x2A, 19,  0x0A, 17,  0x0A, 10, 'l', 'o',  's',
                                          's',  '/',  't',  'r',  'a', 'i',  'n', 0x15, 0,  0,   0xC0, 0x3F };
    CHECK(next_record(&p, end, &data) == 9 + sizeof want);
    CHECK(!memcmp(data + 9, want, sizeof want));
    CHECK(p == end);
    gt_map_close(&map);
    free(path);
    free(folder);
}

/* A text longer than a record has room for is cut, and not within a character. */
static void texts_are_tensors_of_one_string(void)
{
    enum { LONG = 6000 };
    char *folder = gt_path_join(check_folder(), "texts"), *path, text[LONG + 1];
    events *e = NULL;
    gt_map map;
    memset(text, 'x', LONG);
    for (int i = 1; i + 1 < LONG; i += 2)
        memcpy(text + i, "\xC3\xA9", 2);
    text[LONG] = '\0';
    CHECK_OK(gt_folder_make(folder));
    CHECK_OK(events_open(&e, folder, 1));
    CHECK_OK(events_text(e, 7, "sample", "one"));
    CHECK_OK(events_text(e, 8, "sample", text));
    CHECK_OK(events_close(e));
    path = event_file(folder);
    CHECK_OK(gt_map_open(&map, path));
    const unsigned char *p = map.data, *end = map.data + map.size, *data = NULL;
    CHECK(next_record(&p, end, &data) && next_record(&p, end, &data));
    /* field 2, 7; field 5 { field 1 { field 1 tag, field 9 { field 1 { field 1 "text" } },
     * field 8 { field 1 DT_STRING, field 2 { field 2 { field 1, 1 } }, field 8 "one" } } } */
    static const unsigned char want[] = { 0x10, 7,    0x2A, 35,   0x0A, 33,   0x0A, 6,   's',  'a', 'm', 'p',  'l',
                                          'e',  0x4A, 8,    0x0A, 6,    0x0A, 4,    't', 'e',  'x', 't', 0x42, 13,
                                          0x08, 7,    0x12, 4,    0x12, 2,    0x08, 1,   0x42, 3,   'o', 'n',  'e' };
    const uint64_t size = next_record(&p, end, &data);
    CHECKF(size == 9 + sizeof want, "%d bytes, not %d", (int)size, (int)(9 + sizeof want));
    CHECK(!memcmp(data + 9, want, sizeof want));
    const uint64_t cut = next_record(&p, end, &data);
    CHECKF(cut > 4096 && cut < 4096 + 80 && data[cut - 1] == 0xA9, "%d bytes", (int)cut);
    CHECK(p == end);
    gt_map_close(&map);
    free(path);
    free(folder);
}

static metrics_row row_of(uint64_t step)
{
    return (metrics_row){
        .step = step,
        .tokens = 64 * step,
        .loss = 4.0 / (double)step,
        .lr = 1e-3,
        .grad_norm = 0.5,
        .tokens_per_s = 1e4,
        .step_ms = 6.4,
        .mfu = NAN,
        .gemm_share = NAN,
        .copied = NAN,
        .loss_scale = 1.0,
        .val = { .loss = step % 5 ? NAN : 4.2, .tokens = 320, .targets = 300.0, .bytes = 1200.0, .hits = NAN }
    };
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

typedef struct seen {
    int files, starts;
    uint64_t steps[64], count, last_start;
} seen;

/* Reads an event file as TensorBoard does: a session log that starts drops what came before of that
 * step and later ones. */
static void read_events(seen *s, const char *path)
{
    gt_map map;
    if (!CHECK_OK(gt_map_open(&map, path)))
        return;
    const unsigned char *p = map.data, *end = map.data + map.size, *data = NULL;
    s->files++;
    while (next_record(&p, end, &data) != 0) {
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
    static const struct {
        uint64_t from, to;
    } parts[] = { { 0, 20 }, { 15, 18 }, { 0, 3 }, { 3, 30 } };
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
    for (struct dirent *e; dir && (e = readdir(dir)) && files < 8;)
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
    row.skipped = "fp16 overflow";
    row.loss_scale = 32768.0;
    json_t *o = json_loads(metrics_json(text, sizeof text, &row), JSON_REJECT_DUPLICATES, NULL);
    CHECK(o != NULL);
    CHECK(json_is_null(json_object_get(o, "loss")));
    CHECK(json_is_null(json_object_get(o, "grad_norm")));
    CHECK(json_is_true(json_object_get(o, "skipped")));
    CHECK(json_number_value(json_object_get(o, "loss_scale")) == 32768.0);
    CHECK(json_object_get(o, "val_loss") == NULL);
    CHECK(json_is_null(json_object_get(o, "mfu")) && json_is_null(json_object_get(o, "gemm_share")));
    json_decref(o);
    row = row_of(5);
    row.mfu = 0.25;
    row.gemm_share = 0.5;
    o = json_loads(metrics_json(text, sizeof text, &row), 0, NULL);
    CHECK(json_number_value(json_object_get(o, "val_loss")) == 4.2);
    CHECK(json_integer_value(json_object_get(o, "val_tokens")) == 320);
    CHECK(fabs(json_number_value(json_object_get(o, "val_perplexity")) / exp(4.2) - 1.0) < 1e-8);
    CHECK(fabs(json_number_value(json_object_get(o, "val_bits_per_byte")) - 4.2 * 300 / 1200 / log(2.0)) < 1e-8);
    CHECK(json_object_get(o, "val_accuracy") == NULL);
    CHECK(json_number_value(json_object_get(o, "mfu")) == 0.25);
    CHECK(json_number_value(json_object_get(o, "gemm_share")) == 0.5);
    CHECK(json_object_get(o, "loss_scale") == NULL && json_object_get(o, "skipped") == NULL);
    json_decref(o);
    row.val.hits = 240.0;                   /* of 300 texts, whose bytes nobody knows */
    row.val.whole_texts = 1;
    row.val.bytes = 0.0;
    o = json_loads(metrics_json(text, sizeof text, &row), 0, NULL);
    CHECK(json_number_value(json_object_get(o, "val_accuracy")) == 0.8);
    CHECK(json_object_get(o, "val_perplexity") == NULL);    /* classes are no tokens */
    CHECK(json_object_get(o, "val_bits_per_byte") == NULL);
    json_decref(o);
}

static void the_picture_is_well_formed(void)
{
    static const size_t counts[] = { 1, 2, 3, 49, 50, 51, 1500, 1501, 40000 };
    char *path = gt_path_join(check_folder(), "loss.svg"), *text = NULL;
    for (size_t k = 0; k < sizeof counts / sizeof *counts; k++)
        for (int form = 0; form < 4; form++) {
            plot_series a = { 0 }, b = { 0 };
            size_t size = 0;
            for (size_t i = 0; i < counts[k]; i++) {
                const double x = (double)i + 1.0;
                /* falling, constant, enormous, with holes */
                const double y = form == 0 ? 1.0 + 3.0 / x : form == 1 ? 2.5 : form == 2 ? 1e30 / x : i % 3 ? NAN : -x;
                CHECK_OK(plot_add(&a, x, y));
                if (i % 10 == 9)
                    CHECK_OK(plot_add(&b, x, y + 0.1));
            }
            CHECK_OK(plot_loss(path, "Loss of <a> & b", &a, &b));
            CHECK_OK(gt_file_read(&text, &size, path, 1u << 24));
            CHECKF(text && svg_well_formed(text), "%zu points of form %d", counts[k], form);
            CHECKF(size < 400000, "%zu bytes for %zu points", size, counts[k]);
            char which[256] = "";
            const int outside = svg_texts_outside(text, which, sizeof which);
            CHECKF(!outside, "%zu points of form %d: %d texts are cut off, first '%s'", counts[k], form, outside,
                   which);
            CHECK(strstr(text, ">Loss of &#60;a&#62; &#38; b<") && strstr(text, ">step<")
                  && strstr(text, ">loss (nats per token)<"));
            free(text);
            plot_release(&a);
            plot_release(&b);
        }
    free(path);
}

enum { POINTS = 8000 };

/* Pixels of a curve's points; returns how many there are. */
static int points_of(const char *svg, const char *class, double x[POINTS], double y[POINTS])
{
    char tag[64];
    int n = 0;
    snprintf(tag, sizeof tag, "<polyline class=\"%s\" points=\"", class);
    const char *p = NULL;
    for (const char *next = svg; (next = strstr(next, tag)); next++)
        p = next + strlen(tag);                     /* the last one: the first may be the legend's */
    for (char *end; p && *p && *p != '"' && n < POINTS; n++) {
        x[n] = strtod(p, &end);
        y[n] = strtod(end + 1, &end);
        p = end + strspn(end, " ");
    }
    return n;
}

/* On a loss that falls as losses do, the mean stays within three pixels of it from its first point to its
 * last: a trailing one runs far above. */
static void the_mean_neither_lags_nor_runs_above(void)
{
    static const size_t counts[] = { 60, 500, 2000, 50000 };
    static double x[2][POINTS], y[2][POINTS];
    char *path = gt_path_join(check_folder(), "mean.svg"), *text = NULL;
    for (size_t k = 0; k < sizeof counts / sizeof *counts; k++) {
        plot_series a = { 0 }, none = { 0 };
        double worst = 0.0;
        for (size_t i = 0; i < counts[k]; i++)
            CHECK_OK(plot_add(&a, (double)i + 1.0, 2.0 + 9.0 * pow((double)i + 1.0, -0.4)));
        CHECK_OK(plot_loss(path, NULL, &a, &none));
        CHECK_OK(gt_file_read(&text, NULL, path, 1u << 24));
        const int mean = points_of(text, "mean", x[0], y[0]), each = points_of(text, "each", x[1], y[1]);
        for (int i = 0, at = 0; i < mean; i++) {
            while (at < each - 1 && x[1][at] < x[0][i] - 0.06)
                at++;
            worst = fmax(worst, fabs(y[1][at] - y[0][i]));
        }
        CHECKF(mean > 40 && worst < 3.0, "%zu steps: %d points, %.1f pixels off", counts[k], mean, worst);
        free(text);
        plot_release(&a);
    }
    free(path);
}

/* Validation has points, its last value is written beside them, and the legend says what is drawn alone. */
static void the_legend_names_what_is_drawn(void)
{
    static const struct {
        size_t train, val;
    } cases[] = { { 1, 0 }, { 1, 1 }, { 30, 3 }, { 200, 0 }, { 4000, 250 }, { 0, 4 } };
    char *path = gt_path_join(check_folder(), "legend.svg"), *text = NULL;
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        plot_series a = { 0 }, b = { 0 };
        size_t dots = 0;
        for (size_t i = 1; i <= cases[k].train; i++)
            CHECK_OK(plot_add(&a, (double)i, 3.0));
        for (size_t i = 1; i <= cases[k].val; i++)
            CHECK_OK(plot_add(&b, 10.0 * (double)i, 3.25 - 1e-3 * (double)(i - cases[k].val)));
        CHECK_OK(plot_loss(path, NULL, &a, &b));
        CHECK_OK(gt_file_read(&text, NULL, path, 1u << 24));
        for (const char *p = text; (p = strstr(p, "<circle class=\"dot\"")); p++)
            dots++;
        CHECK(dots == (cases[k].val > 200 ? 2 : cases[k].val + (cases[k].val > 0)));    /* one is the legend's */
        CHECK((strstr(text, ">validation loss<") != NULL) == (cases[k].val > 0));
        CHECK((strstr(text, ">3.2500<") != NULL) == (cases[k].val > 0));
        CHECK((strstr(text, ">training loss") != NULL) == (cases[k].train > 0));
        CHECK((strstr(text, ">centred mean of ") != NULL) == (cases[k].train >= 40));
        CHECK((strstr(text, "lowest and highest of 2 steps") != NULL) == (cases[k].train == 4000));
        free(text);
        plot_release(&a);
        plot_release(&b);
    }
    free(path);
}

static void a_plot_is_named_after_run_and_model(void)
{
    static const struct {
        const char *model, *title;
    } cases[] = { { NULL, ">Loss of named run<" }, { "gpt2-mini", ">Loss of named run: gpt2-mini<" } };
    char *folder = gt_path_join(check_folder(), "named run/"), *path = gt_path_join(folder, "loss.svg"), *text;
    CHECK_OK(gt_folder_make(folder));
    for (int i = 0; i < 2; i++) {
        metrics *m = NULL;
        const metrics_row row = row_of(1);
        CHECK_OK(metrics_open(&m, folder, 0));
        metrics_title(m, cases[i].model);
        CHECK_OK(metrics_put(m, &row));
        CHECK_OK(metrics_close(m));
        CHECK_OK(gt_file_read(&text, NULL, path, 1u << 20));
        CHECKF(strstr(text, cases[i].title) != NULL, "%s", cases[i].title);
        free(text);
    }
    free(path);
    free(folder);
}

const check_case check_cases[] = {
    CASE(crc32c_of_known_texts),
    CASE(event_records_have_their_bytes),
    CASE(texts_are_tensors_of_one_string),
    CASE(resuming_cuts_what_will_be_done_again),
    CASE(a_resumed_run_takes_the_place_of_its_steps),
    CASE(numbers_that_are_none_become_null),
    CASE(the_picture_is_well_formed),
    CASE(the_mean_neither_lags_nor_runs_above),
    CASE(the_legend_names_what_is_drawn),
    CASE(a_plot_is_named_after_run_and_model),
    { 0 }
};
