/* SPDX-License-Identifier: MIT */
/* host/cli/run_starts.c - RUN/starts.json: {"launch": {"job": "...", "start": 0}, "slurm": ...} */
#include "host/cli/run_starts.h"

#include "host/base/file.h"
#include "net/job/starts.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int run_starts_again(const char *run)
{
    net_start mine[NET_STARTS];
    const int count = net_starts(mine);
    char *path = gt_path_join(run, "starts.json"), *text = NULL;
    int again = 0;
    if (count && path && gt_path_exists(path) && !gt_file_read(&text, NULL, path, 1 << 16)) {
        json_t *root = json_loads(text, 0, NULL);
        for (int i = 0; i < count; i++) {
            const json_t *last = json_object_get(root, mine[i].who);
            const char *job = json_string_value(json_object_get(last, "job"));
            again |= job && !strcmp(job, mine[i].job)
                     && json_integer_value(json_object_get(last, "start")) < mine[i].start;
        }
        json_decref(root);
    }
    gt_message_clear();                 /* a file that cannot be read says nothing           */
    free(text);
    free(path);
    return again;
}

gt_status run_starts_write(const char *run)
{
    net_start mine[NET_STARTS];
    const int count = net_starts(mine);
    char *path = gt_path_join(run, "starts.json"), *text = NULL;
    gt_status st = path ? GT_OK : gt_fail(GT_NO_MEMORY, "no memory for the path of '%s/starts.json'", run);
    if (!st && !count) {
        unlink(path);
    } else if (!st) {
        json_t *root = json_object();
        for (int i = 0; i < count; i++)
            json_object_set_new(root, mine[i].who, json_pack("{s:s, s:i}", "job", mine[i].job, "start", mine[i].start));
        text = json_dumps(root, JSON_INDENT(2));
        json_decref(root);
        st = text ? gt_folder_make(run) : gt_fail(GT_NO_MEMORY, "cannot write '%s': no memory for its text", path);
        if (!st)
            st = gt_file_write(path, text, strlen(text));
    }
    free(text);
    free(path);
    return st;
}
