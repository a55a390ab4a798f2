/* SPDX-License-Identifier: MIT */
/* host/data/sources.c - takes a list of data apart. */
#include "host/data/sources.h"

#include "host/base/file.h"
#include "host/base/text.h"
#include "host/data/tokens.h"

#include <dirent.h>
#include <glob.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static gt_status no_memory(void)
{
    return gt_fail(GT_NO_MEMORY, "no memory for the list of data");
}

void data_sources_release(data_sources *s)
{
    for (size_t i = 0; i < s->count; i++) {
        data_source *d = &s->list[i];
        for (size_t k = 0; k < d->file_count; k++)
            free(d->files[k]);
        for (size_t k = 0; k < d->val_count; k++)
            free(d->val_files[k]);
        free(d->files);
        free(d->val_files);
        free(d->name);
    }
    free(s->list);
    memset(s, 0, sizeof *s);
}

/* ---- files ------------------------------------------------------------------------------------------ */

/* Takes the path over. */
static gt_status add_path(char ***paths, size_t *count, char *path)
{
    char **grown = path ? realloc(*paths, (*count + 1) * sizeof *grown) : NULL;
    if (!grown) {
        free(path);
        return no_memory();
    }
    *paths = grown;
    grown[(*count)++] = path;
    return GT_OK;
}

static int ends_with(const char *text, const char *end)
{
    const size_t n = strlen(text), m = strlen(end);
    return n >= m && !strcasecmp(text + n - m, end);
}

/* Of texts and records, as they lie in folders. */
static int is_known_kind(const char *name)
{
    static const char *const ends[] = { ".txt", ".text", ".md", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet" };
    char plain[256];
    snprintf(plain, sizeof plain, "%.*s", (int)(strlen(name) - (ends_with(name, ".gz") ? 3 : 0)), name);
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (*name != '.' && ends_with(plain, ends[i]))
            return 1;
    return 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int begins(const char *name, const char *word)
{
    return !strncasecmp(name, word, strlen(word));
}

/* A folder without token files: its texts and records. None: it is left to whoever opens tokens. */
static gt_status list_folder(data_source *d)
{
    DIR *dir = opendir(d->name);
    gt_status st = GT_OK;
    int tokens = 0, tests = 0;
    for (struct dirent *e; dir && !st && (e = readdir(dir));) {
        tokens |= ends_with(e->d_name, ".bin") || !strcmp(e->d_name, "tokens.json");
        if (!is_known_kind(e->d_name))
            continue;
        tests |= begins(e->d_name, "test");
        const int validates = begins(e->d_name, "val") || begins(e->d_name, "dev");
        st = validates ? add_path(&d->val_files, &d->val_count, gt_path_join(d->name, e->d_name))
                       : add_path(&d->files, &d->file_count, gt_path_join(d->name, e->d_name));
    }
    if (dir)
        closedir(dir);
    if (!st && tests && !tokens)
        st = gt_fail(GT_MISUSE, "'%s' holds a file named test*: is it to be trained on? name the files themselves",
                     d->name);
    if (!st && !tokens && !d->file_count && d->val_count)
        st = gt_fail(GT_MISUSE, "'%s' holds validation files (val*, dev*) and nothing to train on", d->name);
    for (size_t k = 0; tokens && k < d->file_count; k++)
        free(d->files[k]);
    for (size_t k = 0; tokens && k < d->val_count; k++)
        free(d->val_files[k]);
    d->file_count = tokens ? 0 : d->file_count;
    d->val_count = tokens ? 0 : d->val_count;
    if (d->file_count)
        qsort(d->files, d->file_count, sizeof *d->files, by_name);
    if (d->val_count)
        qsort(d->val_files, d->val_count, sizeof *d->val_files, by_name);
    return st;
}

static gt_status list_pattern(data_source *d)
{
    glob_t found = { 0 };
    gt_status st = GT_OK;
    if (glob(d->name, 0, NULL, &found))
        st = gt_fail(GT_NOT_FOUND, "cannot open data '%s': nothing matches", d->name);
    for (size_t i = 0; !st && i < found.gl_pathc; i++) {
        if (gt_path_is_folder(found.gl_pathv[i]) || token_file_has_header(found.gl_pathv[i])
            || ends_with(found.gl_pathv[i], ".bin"))
            st = gt_fail(GT_MISUSE, "cannot open data '%s': '%s' is no text or file of records; a pattern names these",
                         d->name, found.gl_pathv[i]);
        else
            st = add_path(&d->files, &d->file_count, strdup(found.gl_pathv[i]));
    }
    globfree(&found);
    return st;
}

static gt_status find_files(data_source *d)
{
    if (gt_path_is_folder(d->name))
        return list_folder(d);
    if (!gt_path_exists(d->name))
        return list_pattern(d);
    if (token_file_has_header(d->name) || ends_with(d->name, ".bin"))
        return GT_OK;
    return add_path(&d->files, &d->file_count, strdup(d->name));
}

/* ---- the list ------------------------------------------------------------------------------------------- */

static int is_pattern(const char *name)
{
    glob_t found = { 0 };
    int is = strpbrk(name, "*?[") != NULL;
    if (is && glob(name, 0, NULL, &found))
        is = 0;
    globfree(&found);
    return is;
}

static int is_there(const char *name)
{
    return *name && (gt_path_exists(name) || is_pattern(name));
}

/* A piece of the list: is something of that name there, with or without a weight? */
static int take_piece(const char *piece, size_t size, char **name, double *weight)
{
    *weight = 0.0;
    *name = strndup(piece, size);
    char *colon = *name ? strrchr(*name, ':') : NULL, *end;
    if (!*name || is_there(*name))
        return 1;
    if (colon && colon[1]) {
        const double x = strtod(colon + 1, &end);
        *colon = '\0';
        if (!*end && is_there(*name)) {
            *weight = x > 0.0 && isfinite(x) ? x : -1.0;
            return 1;
        }
    }
    free(*name);
    *name = NULL;
    return 0;
}

/* The longest piece from `at` on that is there. */
static gt_status next_piece(const char **at, data_source *out)
{
    enum { PATH_MOST = 4096 };
    const size_t first = strcspn(*at, ",");
    for (size_t size = strnlen(*at, PATH_MOST); size; size--) {
        if ((*at)[size] && (*at)[size] != ',')
            continue;
        if (take_piece(*at, size, &out->name, &out->weight)) {
            *at += size + ((*at)[size] == ',');
            return !out->name          ? no_memory()
                   : out->weight < 0.0 ? gt_fail(GT_MISUSE, "the weight of data '%s' is not above 0", out->name)
                                       : GT_OK;
        }
    }
    return gt_fail(GT_NOT_FOUND, "cannot open '%.*s': No such file or directory", (int)first, *at);
}

/* Sources without weights are one, if they are texts and records. */
static gt_status join(data_sources *s)
{
    gt_status st = GT_OK;
    for (size_t i = 0; i < s->count; i++)
        if (!s->list[i].files)
            return gt_fail(GT_MISUSE, "'%s' holds tokens: name weights to mix it with other data, as a:0.7,b:0.3",
                           s->list[i].name);
    data_source *to = &s->list[0];
    for (size_t i = 1; i < s->count; i++) {
        data_source *from = &s->list[i];
        for (size_t k = 0; k < from->file_count; k++) {
            char *path = from->files[k];
            from->files[k] = NULL;
            st = st ? st : add_path(&to->files, &to->file_count, path);
        }
        for (size_t k = 0; k < from->val_count; k++) {
            char *path = from->val_files[k];
            from->val_files[k] = NULL;
            st = st ? st : add_path(&to->val_files, &to->val_count, path);
        }
        free(from->files);
        free(from->val_files);
        free(from->name);
    }
    s->count = 1;
    return st;
}

static gt_status check_weights(data_sources *s)
{
    size_t weighed = 0;
    for (size_t i = 0; i < s->count; i++)
        weighed += s->list[i].weight > 0.0;
    s->mixed = weighed > 0 && s->count > 1;
    if (weighed && weighed < s->count)
        for (size_t i = 0; i < s->count; i++)
            if (s->list[i].weight <= 0.0)
                return gt_fail(GT_MISUSE,
                               "data '%s' has no weight, and others have one; give one to each, as a:0.7,b:0.3",
                               s->list[i].name);
    return s->count > 1 && !s->mixed ? join(s) : GT_OK;
}

gt_status data_sources_read(data_sources *out, const char *list)
{
    const char *at = list;
    gt_status st = GT_OK;
    memset(out, 0, sizeof *out);
    do {
        data_source *grown = realloc(out->list, (out->count + 1) * sizeof *grown);
        if (!grown) {
            st = no_memory();
            break;
        }
        out->list = grown;
        grown[out->count] = (data_source){ 0 };
        st = next_piece(&at, &grown[out->count++]);
        if (!st)
            st = find_files(&grown[out->count - 1]);
    } while (!st && *at);
    if (!st)
        st = check_weights(out);
    if (st)
        data_sources_release(out);
    return st;
}

char *data_sources_absolute(const char *list)
{
    gt_text out = { 0 };
    const char *at = list;
    do {
        data_source d = { 0 };
        const char *begin = at;
        if (next_piece(&at, &d)) {
            gt_message_clear();
            gt_text_release(&out);
            free(d.name);
            return strdup(list);
        }
        char *absolute = gt_path_absolute(d.name);
        const char *behind = begin + strlen(d.name);    /* its weight as it was written, and a comma */
        gt_text_printf(&out, "%s%.*s", absolute ? absolute : d.name, (int)(at - behind), behind);
        free(absolute);
        free(d.name);
    } while (*at);
    if (out.failed)
        gt_text_release(&out);
    return out.data;
}
