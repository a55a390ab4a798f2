/* SPDX-License-Identifier: MIT */
/* tests/kernel/emulated/driver_program.c - programs, kernels and launches, and what a driver refuses of them.
 *
 *   source ── build ──> emulator's number, and a binary that programs are kept as
 *                       └ kernel NAME ──> kinds and sizes of its arguments, most work-items, group
 *
 * What a real driver would refuse is refused here; the rest is the emulator's.           */
#include "tests/kernel/emulated/driver.h"

#include <stdlib.h>

/* ---- programs ------------------------------------------------------------------------------- */

static cl_program new_program(cl_context c, cl_int *error)
{
    cl_program p = calloc(1, sizeof *p);
    emu_set_error(error, p ? CL_SUCCESS : CL_OUT_OF_HOST_MEMORY);
    if (p) {
        *p = (struct _cl_program){ .dispatch = &emu_dispatch, .references = 1, .context = c, .number = -1 };
        emu_more(&c->references);
    }
    return p;
}

cl_program CL_API_CALL emu_program_of_source(cl_context c, cl_uint count, const char **texts, const size_t *lengths,
                                             cl_int *error)
{
    size_t size = 0;
    cl_program p = new_program(c, error);
    FILE *f = p ? open_memstream(&p->source, &size) : NULL;
    for (cl_uint i = 0; f && i < count; i++)
        fwrite(texts[i], 1, lengths && lengths[i] ? lengths[i] : strlen(texts[i]), f);
    if (f)
        fclose(f);
    return p;
}

cl_program CL_API_CALL emu_program_of_binary(cl_context c, cl_uint count, const cl_device_id *ids, const size_t *sizes,
                                             const unsigned char **binaries, cl_int *status, cl_int *error)
{
    (void)ids;
    cl_program p = count == 1 ? new_program(c, error) : NULL;
    if (p && (p->binary = malloc(sizes[0] ? sizes[0] : 1))) {
        memcpy(p->binary, binaries[0], sizes[0]);
        p->binary_size = sizes[0];
    }
    emu_set_error(status, p ? CL_SUCCESS : CL_INVALID_BINARY);
    return p;
}

cl_int CL_API_CALL emu_retain_program(cl_program p)
{
    emu_more(&p->references);
    return CL_SUCCESS;
}

cl_int CL_API_CALL emu_drop_program(cl_program p)
{
    if (!emu_is_last(&p->references))
        return CL_SUCCESS;
    cl_context c = p->context;
    free(p->source);
    free(p->log);
    free(p->binary);
    free(p);
    return emu_drop_context(c);
}

/* Source is compiled, a binary taken as it is; either way the emulator has the program then. */
cl_int CL_API_CALL emu_build_program(cl_program p, cl_uint count, const cl_device_id *ids, const char *options,
                                     void(CL_CALLBACK *notify)(cl_program, void *), void *user)
{
    (void)count, (void)ids, (void)notify, (void)user;
    cl_context c = p->context;
    char line[128], answer[128], *all = NULL;
    size_t size = 0;
    free(p->log);
    p->log = NULL;
    pthread_mutex_lock(&c->lock);
    int good;
    if (p->source) {
        FILE *f = open_memstream(&all, &size);
        if (f) {
            fprintf(f, "%s%s", options ? options : "", p->source);
            fclose(f);
        }
        snprintf(line, sizeof line, "build %zu %zu\n", options ? strlen(options) : (size_t)0, strlen(p->source));
        good = f && emu_ask(c, line, all, size, answer, sizeof answer, &p->log)
               && sscanf(answer, "ok %d %zu", &p->number, &p->binary_size) == 2;
        free(p->binary);
        p->binary = good ? malloc(p->binary_size) : NULL;
        good = p->binary && fread(p->binary, 1, p->binary_size, c->from) == p->binary_size;
        free(all);
    } else {
        snprintf(line, sizeof line, "load %zu\n", p->binary_size);
        good = emu_ask(c, line, p->binary, p->binary_size, answer, sizeof answer, &p->log)
               && sscanf(answer, "ok %d", &p->number) == 1;
    }
    pthread_mutex_unlock(&c->lock);
    return good ? CL_SUCCESS : CL_BUILD_PROGRAM_FAILURE;
}

cl_int CL_API_CALL emu_program_info(cl_program p, cl_program_info what, size_t room, void *out, size_t *needed)
{
    switch (what) {
    case CL_PROGRAM_BINARY_SIZES: return emu_give(&p->binary_size, sizeof p->binary_size, room, out, needed);
    case CL_PROGRAM_BINARIES:
        if (out && *(unsigned char **)out)
            memcpy(*(unsigned char **)out, p->binary, p->binary_size);
        return CL_SUCCESS;
    default: return CL_INVALID_VALUE;
    }
}

cl_int CL_API_CALL emu_program_build_info(cl_program p, cl_device_id d, cl_program_build_info what, size_t room,
                                          void *out, size_t *needed)
{
    (void)d;
    return what == CL_PROGRAM_BUILD_LOG ? emu_give_text(p->log ? p->log : "", room, out, needed) : CL_INVALID_VALUE;
}

/* ---- kernels -------------------------------------------------------------------------------- */

/* "ok MOST-ITEMS X Y Z COUNT" and for each argument "b", "l" or "vSIZE". */
static int read_kernel(cl_kernel k, char *answer)
{
    int from = 0;
    if (sscanf(answer, "ok %zu %zu %zu %zu %d%n", &k->most_items, &k->group[0], &k->group[1], &k->group[2], &k->count,
               &from)
            != 5
        || k->count > MAX_ARGS)
        return 0;
    char *rest = answer + from;
    for (int i = 0; i < k->count; i++) {
        int used = 0;
        if (sscanf(rest, " %c%n", &k->args[i].kind, &used) != 1)
            return 0;
        rest += used;
        if (k->args[i].kind == 'v')
            k->args[i].size = strtoul(rest, &rest, 10);
    }
    return 1;
}

cl_kernel CL_API_CALL emu_create_kernel(cl_program p, const char *name, cl_int *error)
{
    char line[128], answer[1024], *why;
    cl_kernel k = calloc(1, sizeof *k);
    emu_set_error(error, k ? CL_SUCCESS : CL_OUT_OF_HOST_MEMORY);
    if (!k)
        return NULL;
    k->dispatch = &emu_dispatch;
    k->references = 1;
    k->program = p;
    snprintf(k->name, sizeof k->name, "%s", name);
    snprintf(line, sizeof line, "kernel %d %s\n", p->number, k->name);
    pthread_mutex_lock(&p->context->lock);
    const int good = p->number >= 0 && emu_ask(p->context, line, NULL, 0, answer, sizeof answer, &why)
                     && read_kernel(k, answer);
    pthread_mutex_unlock(&p->context->lock);
    if (good) {
        emu_retain_program(p);
        return k;
    }
    emu_set_error(error, p->number < 0 ? CL_INVALID_PROGRAM_EXECUTABLE : CL_INVALID_KERNEL_NAME);
    free(k);
    return NULL;
}

cl_int CL_API_CALL emu_drop_kernel(cl_kernel k)
{
    if (emu_is_last(&k->references)) {
        emu_drop_program(k->program);
        free(k);
    }
    return CL_SUCCESS;
}

cl_int CL_API_CALL emu_set_kernel_arg(cl_kernel k, cl_uint index, size_t size, const void *value)
{
    if (index >= (cl_uint)k->count)
        return CL_INVALID_ARG_INDEX;
    argument *a = &k->args[index];
    if (a->kind == 'l') {
        if (value || !size)
            return value ? CL_INVALID_ARG_VALUE : CL_INVALID_ARG_SIZE;
        a->size = size;
    } else if (a->kind == 'b') {
        if (size != sizeof a->buffer)
            return CL_INVALID_ARG_SIZE;
        a->buffer = value ? *(const cl_mem *)value : NULL;
    } else {
        if (size != a->size || size > MAX_VALUE)
            return CL_INVALID_ARG_SIZE;
        if (!value)
            return CL_INVALID_ARG_VALUE;
        memcpy(a->value, value, size);
    }
    a->given = 1;
    return CL_SUCCESS;
}

/* What a driver refuses before it runs anything. */
static cl_int check_launch(cl_kernel k, cl_uint rank, const size_t *offset, const size_t *global, const size_t *local)
{
    size_t items = 1;
    if (rank < 1 || rank > 3)
        return CL_INVALID_WORK_DIMENSION;
    if (offset || !local)
        return CL_INVALID_OPERATION;
    for (cl_uint i = 0; i < rank; i++) {
        if (!global[i])
            return CL_INVALID_GLOBAL_WORK_SIZE;
        if (!local[i] || global[i] % local[i] || (k->group[0] && local[i] != k->group[i]))
            return CL_INVALID_WORK_GROUP_SIZE;
        items *= local[i];
    }
    if (items > k->most_items)
        return CL_INVALID_WORK_GROUP_SIZE;
    for (int i = 0; i < k->count; i++)
        if (!k->args[i].given)
            return CL_INVALID_KERNEL_ARGS;
    return CL_SUCCESS;
}

static void write_argument(FILE *f, const argument *a)
{
    if (a->kind == 'l')
        fprintf(f, " l%zu", a->size);
    else if (a->kind == 'b' && a->buffer)
        fprintf(f, " b%zu", a->buffer->at);
    else if (a->kind == 'b')
        fputs(" n", f);
    else {
        fputs(" v", f);
        for (size_t i = 0; i < a->size; i++)
            fprintf(f, "%02x", a->value[i]);
    }
}

cl_int CL_API_CALL emu_launch_kernel(cl_command_queue q, cl_kernel k, cl_uint rank, const size_t *offset,
                                     const size_t *global, const size_t *local, cl_uint count, const cl_event *waits,
                                     cl_event *event)
{
    (void)count, (void)waits;
    cl_context c = q->context;
    const cl_ulong queued = emu_now_ns();
    char *line = NULL, answer[256], *why = NULL;
    size_t size;
    const cl_int wrong = check_launch(k, rank, offset, global, local);
    FILE *f = wrong ? NULL : open_memstream(&line, &size);
    if (!f)
        return wrong ? wrong : CL_OUT_OF_HOST_MEMORY;
    fprintf(f, "launch %d %s", k->program->number, k->name);
    for (cl_uint i = 0; i < 3; i++)
        fprintf(f, " %zu", i < rank ? global[i] / local[i] : 1);
    for (cl_uint i = 0; i < 3; i++)
        fprintf(f, " %zu", i < rank ? local[i] : 1);
    for (int i = 0; i < k->count; i++)
        write_argument(f, &k->args[i]);
    fputc('\n', f);
    fclose(f);
    pthread_mutex_lock(&c->lock);
    const cl_ulong started = emu_now_ns();
    const int good = emu_ask(c, line, NULL, 0, answer, sizeof answer, &why);
    pthread_mutex_unlock(&c->lock);
    if (!good)
        emu_complain("kernel %s on %s: %s", k->name, c->device->chip->name, why ? why : "no answer");
    free(why);
    free(line);
    return good ? emu_note(event, queued, started) : CL_OUT_OF_RESOURCES;
}
