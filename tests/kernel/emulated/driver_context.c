/* SPDX-License-Identifier: MIT */
/* tests/kernel/emulated/driver_context.c - a context is a process of the emulator, and a memory that both have mapped.
 *
 *   driver ── "launch 3 gemm .." ──> emulator.py ── "ok" | "failed N" and why ──> driver
 *      └──────── 8 GiB of memory, mapped by both, of which pages that nobody wrote take no room ────────┘
 *
 * One line a command, one back: so one lock is all there is to order.                   */
#include "tests/kernel/emulated/driver.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

void emu_complain(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("emulated driver: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
}

/* ---- the emulator --------------------------------------------------------------------------- */

/* Where this library is: the emulator calls into it as well. */
static const char *own_path(void)
{
    Dl_info info;
    return dladdr((void *)&emu_dispatch, &info) ? info.dli_fname : "";
}

static int start_emulator(cl_context c)
{
    const char *python = getenv("GT_EMULATED_PYTHON"), *server = getenv("GT_EMULATED_SERVER");
    int pair[2] = { -1, -1 };
    const int memory = memfd_create("emulated-gpu", MFD_CLOEXEC);
    if (!python)
        python = "python3";
    if (!server) {
        emu_complain("GT_EMULATED_SERVER does not say where emulator.py is");
        return 0;
    }
    if (memory < 0 || ftruncate(memory, (off_t)GLOBAL_BYTES)
        || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair)) {
        emu_complain("no memory or socket for the emulator");
        return 0;
    }
    c->memory = mmap(NULL, GLOBAL_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, memory, 0);
    char *arguments[] = { (char *)(size_t)python, (char *)(size_t)server, (char *)(size_t)c->device->chip->name,
                          (char *)(size_t)own_path(), NULL };
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    /* Out of the way first: either may have the other's number. */
    posix_spawn_file_actions_adddup2(&actions, pair[1], 100);
    posix_spawn_file_actions_adddup2(&actions, memory, 101);
    posix_spawn_file_actions_adddup2(&actions, 100, SOCKET);
    posix_spawn_file_actions_adddup2(&actions, 101, MEMORY);
    posix_spawn_file_actions_addclose(&actions, 100);
    posix_spawn_file_actions_addclose(&actions, 101);
    const int failed = posix_spawnp(&c->emulator, python, &actions, NULL, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(pair[1]);
    close(memory);
    c->from = fdopen(pair[0], "r");
    c->to = fdopen(fcntl(pair[0], F_DUPFD_CLOEXEC, 0), "w");
    if (failed || !c->from || !c->to || c->memory == MAP_FAILED) {
        emu_complain("cannot start '%s': %s", python, strerror(failed));
        return 0;
    }
    char line[64];
    return fgets(line, sizeof line, c->from) && !strcmp(line, "ready\n");
}

static void stop_emulator(cl_context c)
{
    if (c->to)
        fclose(c->to);
    if (c->from)
        fclose(c->from);
    if (c->emulator > 0)
        waitpid(c->emulator, NULL, 0);
    if (c->memory && c->memory != MAP_FAILED)
        munmap(c->memory, GLOBAL_BYTES);
}

int emu_ask(cl_context c, const char *line, const void *more_bytes, size_t size, char *answer, size_t room, char **why)
{
    size_t length = 0;
    *why = NULL;
    fputs(line, c->to);
    if (size)
        fwrite(more_bytes, 1, size, c->to);
    if (fflush(c->to) || !fgets(answer, (int)room, c->from)) {
        *why = strdup("the emulator has ended");
        return 0;
    }
    if (sscanf(answer, "failed %zu", &length) != 1)
        return !strncmp(answer, "ok", 2);
    *why = calloc(1, length + 1);
    if (*why && fread(*why, 1, length, c->from) != length)
        (*why)[0] = '\0';
    return 0;
}

static void release_context(cl_context c)
{
    stop_emulator(c);
    while (c->blocks) {
        block *b = c->blocks;
        c->blocks = b->next;
        free(b);
    }
    pthread_mutex_destroy(&c->lock);
    free(c);
}

cl_context CL_API_CALL emu_create_context(
    const cl_context_properties *properties, cl_uint count, const cl_device_id *ids,
    void(CL_CALLBACK *notify)(const char *, const void *, size_t, void *), void *user, cl_int *error)
{
    (void)properties, (void)notify, (void)user;
    cl_context c = count == 1 ? calloc(1, sizeof *c) : NULL;
    emu_set_error(error, CL_SUCCESS);
    if (!c) {
        emu_set_error(error, count == 1 ? CL_OUT_OF_HOST_MEMORY : CL_INVALID_VALUE);
        return NULL;
    }
    c->dispatch = &emu_dispatch;
    c->references = 1;
    c->device = ids[0];
    pthread_mutex_init(&c->lock, NULL);
    if (start_emulator(c))
        return c;
    release_context(c);
    emu_set_error(error, CL_DEVICE_NOT_AVAILABLE);
    return NULL;
}

cl_int CL_API_CALL emu_retain_context(cl_context c)
{
    emu_more(&c->references);
    return CL_SUCCESS;
}

cl_int CL_API_CALL emu_drop_context(cl_context c)
{
    if (emu_is_last(&c->references))
        release_context(c);
    return CL_SUCCESS;
}

cl_command_queue CL_API_CALL emu_create_queue(cl_context c, cl_device_id d, cl_command_queue_properties properties,
                                              cl_int *error)
{
    (void)d;
    emu_set_error(error, CL_SUCCESS);
    if (properties & ~(cl_command_queue_properties)CL_QUEUE_PROFILING_ENABLE) {
        emu_set_error(error, CL_INVALID_QUEUE_PROPERTIES);
        return NULL;
    }
    cl_command_queue q = calloc(1, sizeof *q);
    if (!q) {
        emu_set_error(error, CL_OUT_OF_HOST_MEMORY);
        return NULL;
    }
    *q = (struct _cl_command_queue){ .dispatch = &emu_dispatch, .references = 1, .context = c };
    emu_more(&c->references);
    return q;
}

cl_int CL_API_CALL emu_drop_queue(cl_command_queue q)
{
    if (emu_is_last(&q->references)) {
        emu_drop_context(q->context);
        free(q);
    }
    return CL_SUCCESS;
}

cl_int CL_API_CALL emu_nothing_waits(cl_command_queue q)
{
    (void)q;
    return CL_SUCCESS;
}
