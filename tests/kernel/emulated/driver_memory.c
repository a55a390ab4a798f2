/* SPDX-License-Identifier: MIT */
/* tests/kernel/emulated/driver_memory.c - buffers, and commands on them, which are over when their call returns.
 *
 *   | nobody's | block | nobody's | block | nobody's | ...        a page that belongs to nobody after each block
 *
 * New memory is full of NaN, so that what reads before it writes shows.                  */
#include "tests/kernel/emulated/driver.h"

#include <stdlib.h>
#include <sys/mman.h>

/* ---- memory --------------------------------------------------------------------------------- */

/* The first gap that holds so many bytes, and a page that belongs to nobody behind them. */
static block *take(cl_context c, size_t size)
{
    const size_t whole = (size + 2 * PAGE - 1) / PAGE * PAGE;
    block **link = &c->blocks;
    size_t at = PAGE;                           /* the first page is nobody's either: 0 is no address */
    for (; *link && (*link)->at - at < whole; link = &(*link)->next)
        at = (*link)->at + (*link)->size;
    block *b = whole > GLOBAL_BYTES - at ? NULL : calloc(1, sizeof *b);
    if (b) {
        *b = (block){ at, whole, *link };
        *link = b;
        memset(c->memory + at, 0xff, size);
    }
    return b;
}

cl_mem CL_API_CALL emu_create_buffer(cl_context c, cl_mem_flags flags, size_t size, void *host, cl_int *error)
{
    const cl_int wrong = !size || size > GLOBAL_BYTES / 2      ? CL_INVALID_BUFFER_SIZE
                         : flags & CL_MEM_USE_HOST_PTR || host ? CL_INVALID_HOST_PTR
                                                               : CL_SUCCESS;
    cl_mem m = wrong ? NULL : calloc(1, sizeof *m);
    emu_set_error(error, wrong ? wrong : CL_SUCCESS);
    if (wrong)
        return NULL;
    pthread_mutex_lock(&c->lock);
    block *b = m ? take(c, size) : NULL;
    pthread_mutex_unlock(&c->lock);
    if (!b) {
        emu_set_error(error, CL_MEM_OBJECT_ALLOCATION_FAILURE);
        free(m);
        return NULL;
    }
    *m = (struct _cl_mem){ .dispatch = &emu_dispatch, .references = 1, .context = c, .at = b->at, .size = size };
    emu_more(&c->references);
    return m;
}

cl_int CL_API_CALL emu_retain_buffer(cl_mem m)
{
    emu_more(&m->references);
    return CL_SUCCESS;
}

cl_mem CL_API_CALL emu_create_sub_buffer(cl_mem m, cl_mem_flags flags, cl_buffer_create_type type, const void *info,
                                         cl_int *error)
{
    (void)flags;
    const cl_buffer_region *r = info;
    const cl_int wrong = m->parent || type != CL_BUFFER_CREATE_TYPE_REGION || !r->size || r->origin > m->size
                                 || r->size > m->size - r->origin
                             ? CL_INVALID_VALUE
                         : r->origin % 128 ? CL_MISALIGNED_SUB_BUFFER_OFFSET
                                           : CL_SUCCESS;
    cl_mem s = wrong ? NULL : calloc(1, sizeof *s);
    emu_set_error(error, wrong ? wrong : s ? CL_SUCCESS : CL_OUT_OF_HOST_MEMORY);
    if (!s)
        return NULL;
    *s = (struct _cl_mem){ &emu_dispatch, 1, m->context, m, m->at + r->origin, r->size };
    emu_retain_buffer(m);
    return s;
}

cl_int CL_API_CALL emu_drop_buffer(cl_mem m)
{
    if (!emu_is_last(&m->references))
        return CL_SUCCESS;
    if (m->parent) {
        emu_drop_buffer(m->parent);
        free(m);
        return CL_SUCCESS;
    }
    cl_context c = m->context;
    pthread_mutex_lock(&c->lock);
    block **link = &c->blocks;
    while ((*link)->at != m->at)
        link = &(*link)->next;
    block *b = *link;
    *link = b->next;
    madvise(c->memory + b->at, b->size, MADV_REMOVE);
    pthread_mutex_unlock(&c->lock);
    free(b);
    free(m);
    return emu_drop_context(c);
}

/* ---- events --------------------------------------------------------------------------------- */

cl_int emu_note(cl_event *out, cl_ulong queued, cl_ulong started)
{
    if (!out)
        return CL_SUCCESS;
    cl_event e = calloc(1, sizeof *e);
    if (!e)
        return CL_OUT_OF_HOST_MEMORY;
    *e = (struct _cl_event){ &emu_dispatch, 1, CL_COMPLETE, queued, started, emu_now_ns() };
    *out = e;
    return CL_SUCCESS;
}

cl_int CL_API_CALL emu_wait_for_events(cl_uint count, const cl_event *events)
{
    (void)events;
    return count ? CL_SUCCESS : CL_INVALID_VALUE;
}

cl_int CL_API_CALL emu_event_info(cl_event e, cl_event_info what, size_t room, void *out, size_t *needed)
{
    return what == CL_EVENT_COMMAND_EXECUTION_STATUS
               ? emu_give(&e->status, sizeof e->status, room, out, needed)
               : CL_INVALID_VALUE;
}

cl_int CL_API_CALL emu_event_times(cl_event e, cl_profiling_info what, size_t room, void *out, size_t *needed)
{
    switch (what) {
    case CL_PROFILING_COMMAND_QUEUED:
    case CL_PROFILING_COMMAND_SUBMIT: return emu_give(&e->queued, sizeof e->queued, room, out, needed);
    case CL_PROFILING_COMMAND_START: return emu_give(&e->started, sizeof e->started, room, out, needed);
    case CL_PROFILING_COMMAND_END: return emu_give(&e->ended, sizeof e->ended, room, out, needed);
    default: return CL_INVALID_VALUE;
    }
}

cl_int CL_API_CALL emu_retain_event(cl_event e)
{
    emu_more(&e->references);
    return CL_SUCCESS;
}

cl_int CL_API_CALL emu_drop_event(cl_event e)
{
    if (emu_is_last(&e->references))
        free(e);
    return CL_SUCCESS;
}

/* ---- commands on memory --------------------------------------------------------------------- */

static int inside(cl_mem m, size_t offset, size_t size)
{
    return offset <= m->size && size <= m->size - offset;
}

cl_int CL_API_CALL emu_read_buffer(cl_command_queue q, cl_mem m, cl_bool blocking, size_t offset, size_t size, void *to,
                                   cl_uint count, const cl_event *waits, cl_event *event)
{
    (void)blocking, (void)count, (void)waits;
    const cl_ulong start = emu_now_ns();
    if (!inside(m, offset, size) || !to)
        return CL_INVALID_VALUE;
    memcpy(to, q->context->memory + m->at + offset, size);
    return emu_note(event, start, start);
}

cl_int CL_API_CALL emu_write_buffer(cl_command_queue q, cl_mem m, cl_bool blocking, size_t offset, size_t size,
                                    const void *from, cl_uint count, const cl_event *waits, cl_event *event)
{
    (void)blocking, (void)count, (void)waits;
    const cl_ulong start = emu_now_ns();
    if (!inside(m, offset, size) || !from)
        return CL_INVALID_VALUE;
    memcpy(q->context->memory + m->at + offset, from, size);
    return emu_note(event, start, start);
}

cl_int CL_API_CALL emu_copy_buffer(cl_command_queue q, cl_mem from, cl_mem to, size_t from_offset, size_t to_offset,
                                   size_t size, cl_uint count, const cl_event *waits, cl_event *event)
{
    (void)count, (void)waits;
    const cl_ulong start = emu_now_ns();
    if (!inside(from, from_offset, size) || !inside(to, to_offset, size))
        return CL_INVALID_VALUE;
    memmove(q->context->memory + to->at + to_offset, q->context->memory + from->at + from_offset, size);
    return emu_note(event, start, start);
}

cl_int CL_API_CALL emu_fill_buffer(cl_command_queue q, cl_mem m, const void *pattern, size_t width, size_t offset,
                                   size_t size, cl_uint count, const cl_event *waits, cl_event *event)
{
    (void)count, (void)waits;
    const cl_ulong start = emu_now_ns();
    if (!inside(m, offset, size) || !width || size % width || offset % width)
        return CL_INVALID_VALUE;
    for (size_t i = 0; i < size; i += width)
        memcpy(q->context->memory + m->at + offset + i, pattern, width);
    return emu_note(event, start, start);
}

cl_int CL_API_CALL emu_enqueue_marker(cl_command_queue q, cl_uint count, const cl_event *waits, cl_event *event)
{
    (void)q, (void)count, (void)waits;
    const cl_ulong start = emu_now_ns();
    return emu_note(event, start, start);
}
