/* SPDX-License-Identifier: MIT */
/* net/transport/windows.h - the open windows of one link, for transports that place bytes in order.
 *
 *   open    { 7: sink 64 KiB, got 12 KiB } { 9: sink 1 MiB, got 0 } ...
 *
 * A link has few windows open at once, so they lie in an array without an order. Zero-initialise
 * a net_windows; free(windows.open) when its link ends. A net_window is valid until the next
 * expose or close.                                                                      */
#ifndef NET_TRANSPORT_WINDOWS_H
#define NET_TRANSPORT_WINDOWS_H

#include "net/transport/transport.h"

typedef struct net_window {
    uint32_t number;                /* the caller's                                            */
    net_sink sink;
    size_t got;                     /* bytes that are in the sink                              */
} net_window;

typedef struct net_windows {
    net_window *open;
    size_t count, room;
} net_windows;

/* GT_NO_MEMORY is the only failure. */
gt_status net_windows_expose(net_windows *w, uint32_t number, net_sink sink);
net_window *net_windows_find(const net_windows *w, uint32_t number);    /* NULL: not open */
/* The next n bytes into the sink, which has room for them; n is a multiple of its grain, if it adds. */
void net_window_take(net_window *w, const void *from, size_t n);
/* The bytes are lent: forgets the window and delivers `lent`. */
void net_windows_lend(net_windows *w, net_window *full, net_loan loan, const net_link *link, int *did);
/* All bytes are there: forgets the window and delivers `placed`, an event of `link`. */
void net_windows_close(net_windows *w, net_window *full, const net_link *link, int *did);

#endif
