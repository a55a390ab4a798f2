/* SPDX-License-Identifier: MIT */
/* host/cli/screen.c - breaking lines, and the two streams through which they go.
 *
 *   stdio ──► a stream of our own ──► whole lines, broken ──► file descriptor
 *
 * A stream made by fopencookie() takes the place of stdout or stderr, whose buffers stdio keeps as before:
 * a line at a time, or at fflush().                                                       */
#include "host/cli/screen.h"

#include "host/base/log.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { NARROWEST = 20 };

/* unfinished: part of a line is shown already; bar: it is one that is drawn over and over. */
typedef struct screen {
    int fd, raw, unfinished;
    atomic_int bar;
} screen;

static screen screens[2] = { { .fd = STDOUT_FILENO }, { .fd = STDERR_FILENO } };

/* ---- breaking -------------------------------------------------------------------------------- */

/* Columns of UTF-8: bytes that begin a character. */
static int width_of(const char *text, size_t size)
{
    int n = 0;
    for (size_t i = 0; i < size; i++)
        n += ((unsigned char)text[i] & 0xc0) != 0x80;
    return n;
}

static int indent_of(const char *line, size_t size, int columns)
{
    size_t from = 0;
    while (from < size && line[from] == ' ')
        from++;
    for (size_t i = from; i + 1 < size; i++) {
        if (line[i] != ' ' || line[i + 1] != ' ')
            continue;
        while (i < size && line[i] == ' ')
            i++;
        const int at = width_of(line, i);
        if (i < size && at <= columns / 2)
            return at;
        break;
    }
    return (int)from + 2 <= columns / 2 ? (int)from + 2 : 2;
}

void cli_screen_break(gt_text *out, const char *line, size_t size, int columns)
{
    const int ends = size && line[size - 1] == '\n';
    size -= (size_t)ends;
    const int indent = indent_of(line, size, columns);
    int at = 0;                                     /* columns of the current line */
    for (size_t i = 0; i < size;) {
        size_t spaces = 0, word = 0;
        while (i + spaces < size && line[i + spaces] == ' ')
            spaces++;
        while (i + spaces + word < size && line[i + spaces + word] != ' ')
            word++;
        const int wide = width_of(line + i + spaces, word);
        if (i && word && at > indent && at + (int)spaces + wide > columns) {
            gt_text_printf(out, "\n%*s", indent, "");
            at = indent;
        } else {
            gt_text_put(out, line + i, spaces);
            at += (int)spaces;
        }
        gt_text_put(out, line + i + spaces, word);
        at += wide;
        i += spaces + word;
    }
    if (ends)
        gt_text_put(out, "\n", 1);
}

/* ---- streams ----------------------------------------------------------------------------------- */

static int write_all(int fd, const char *data, size_t size)
{
    while (size) {
        const ssize_t n = write(fd, data, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return 0;
        data += n;
        size -= (size_t)n;
    }
    return 1;
}

static int columns_of(int fd)
{
    struct winsize w;
    return ioctl(fd, TIOCGWINSZ, &w) == 0 && w.ws_col > 0 ? w.ws_col : 80;
}

/* What takes a line away in order to write it anew. */
static const char anew[] = "\r\033[K";

static int controls(const char *line, size_t size)
{
    return memchr(line, '\r', size) || memchr(line, '\033', size) || memchr(line, '\t', size);
}

/* stdio's buffer: whole lines, and at its end perhaps the beginning of one that is to be shown. */
static int put(screen *s, const char *data, size_t size)
{
    gt_text out = { 0 };
    const int columns = columns_of(s->fd);
    if (s != &screens[0] && atomic_exchange(&screens[0].bar, 0))
        gt_text_printf(&out, "%s", anew);           /* it comes again, below */
    for (size_t n; size; data += n, size -= n) {
        int bar = 0;
        while (size >= sizeof anew - 1 && !memcmp(data, anew, sizeof anew - 1)) {
            gt_text_printf(&out, "%s", anew);
            data += sizeof anew - 1;
            size -= sizeof anew - 1;
            s->unfinished = 0;
            bar = 1;
        }
        const char *end = memchr(data, '\n', size);
        n = end ? (size_t)(end - data) + 1 : size;
        if (s->raw || s->unfinished || !end || columns < NARROWEST || controls(data, n))
            gt_text_put(&out, data, n);
        else
            cli_screen_break(&out, data, n, columns);
        s->unfinished = !end && n > 0;
        atomic_store(&s->bar, bar && s->unfinished);
    }
    const int good = !out.failed && (!out.size || write_all(s->fd, out.data, out.size));
    gt_text_release(&out);
    return good;
}

static ssize_t from_stdio(void *context, const char *data, size_t size)
{
    return put(context, data, size) ? (ssize_t)size : 0;    /* 0: stdio notes an error */
}

static void from_log(const char *line, size_t size)
{
    screen s = { .fd = STDERR_FILENO };
    if (!put(&s, line, size))
        return;                                     /* nowhere left to say so */
}

static FILE *open_screen(screen *s)
{
    FILE *f = isatty(s->fd) ? fopencookie(s, "w", (cookie_io_functions_t){ .write = from_stdio }) : NULL;
    if (f)
        setvbuf(f, NULL, _IOLBF, BUFSIZ);
    return f;
}

void cli_screen_open(void)
{
    FILE *out = open_screen(&screens[0]), *err = open_screen(&screens[1]);
    if (out)
        stdout = out;
    if (err) {
        stderr = err;
        gt_log_through(from_log);
    }
}

void cli_screen_raw(void)
{
    fflush(stdout);
    screens[0].raw = 1;
}
