/* SPDX-License-Identifier: MIT */
/* net/transport/windows.c - the table of a link's open windows.
 *
 *   close 7:   { 7 } { 9 } { 4 }   ──►   { 4 } { 9 }      the last one takes the free place
 *
 * The event is delivered after the window is gone: whoever hears of it may expose at once. */
#include "net/transport/windows.h"

#include <stdlib.h>
#include <string.h>

gt_status net_windows_expose(net_windows *w, uint32_t number, net_sink sink)
{
    if (w->count == w->room) {
        const size_t room = w->room ? 2 * w->room : 16;
        net_window *grown = realloc(w->open, room * sizeof *grown);
        if (!grown)
            return gt_fail(GT_NO_MEMORY, "no memory for the list of open windows");
        w->open = grown;
        w->room = room;
    }
    w->open[w->count++] = (net_window){ .number = number, .sink = sink };
    return GT_OK;
}

net_window *net_windows_find(const net_windows *w, uint32_t number)
{
    for (size_t i = 0; i < w->count; i++)
        if (w->open[i].number == number)
            return &w->open[i];
    return NULL;
}

void net_window_take(net_window *w, const void *from, size_t n)
{
    unsigned char *to = (unsigned char *)w->sink.data + w->got;
    if (w->sink.reduce)
        w->sink.reduce(to, from, n);
    else
        memcpy(to, from, n);
    w->got += n;
}

void net_windows_close(net_windows *w, net_window *full, const net_link *link, int *did)
{
    const uint32_t number = full->number;
    *full = w->open[--w->count];
    (*did)++;
    link->transport->events->placed(link->up, number);
}

void net_windows_lend(net_windows *w, net_window *full, net_loan loan, const net_link *link, int *did)
{
    const uint32_t number = full->number;
    *full = w->open[--w->count];
    (*did)++;
    link->transport->events->lent(link->up, number, loan);
}
