/* SPDX-License-Identifier: MIT */
/* tests/svg_check.h - is a picture (SVG) what a viewer can show? Shared by the tests of those who draw. */
#ifndef TESTS_SVG_CHECK_H
#define TESTS_SVG_CHECK_H

#include "host/base/svg.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Every tag that opens closes, in order; attributes are quoted; no number is nan or inf. */
static inline int svg_well_formed(const char *text)
{
    char stack[16][32];
    int depth = 0;
    for (const char *p = text; (p = strchr(p, '<')); p++) {
        char name[32] = "";
        const int closing = p[1] == '/';
        const char *end = strchr(p, '>');
        int quotes = 0;
        if (!end || sscanf(p + 1 + closing, "%31[a-zA-Z]", name) != 1)
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
    return depth == 0 && !strstr(text, "\"nan") && !strstr(text, "\"inf") && !strstr(text, "-nan");
}

/* The value of an attribute within a tag, which ends at its first '>'; `otherwise` if it has none. */
static inline double svg_number(const char *tag, const char *name, double otherwise)
{
    char key[40];
    snprintf(key, sizeof key, " %s=\"", name);
    const char *at = strstr(tag, key), *end = strchr(tag, '>');
    return at && end && at < end ? atof(at + strlen(key)) : otherwise;
}

static inline int svg_has(const char *tag, const char *what)
{
    const char *at = strstr(tag, what), *end = strchr(tag, '>');
    return at && end && at < end;
}

/* How many texts lie outside the viewBox, in whole or in part; the first of them in *which. Text that is
 * turned is not judged. */
static inline int svg_texts_outside(const char *svg, char *which, size_t size)
{
    double width = 0.0, height = 0.0, down = 0.0;
    int outside = 0;
    const char *box = strstr(svg, "viewBox=\"");
    if (!box || sscanf(box, "viewBox=\"0 0 %lf %lf", &width, &height) != 2)
        return -1;
    const char *group = strstr(svg, "<g transform=\"translate(0 ");
    for (const char *p = svg; (p = strstr(p, "<text")); p++) {
        char text[256] = "";
        if (group && p > group)
            down = atof(group + strlen("<g transform=\"translate(0 "));
        const char *inside = strchr(p, '>');
        if (!inside || svg_has(p, "transform="))
            continue;
        sscanf(inside + 1, "%255[^<]", text);
        for (char *e; (e = strstr(text, "&#")) && strchr(e, ';');) {
            *e = (char)atoi(e + 2);
            memmove(e + 1, strchr(e, ';') + 1, strlen(strchr(e, ';')));
        }
        const double wide = gt_svg_width(text, svg_number(p, "font-size", svg_has(p, "class=\"a\"") ? 11.0 : 12.0));
        const double x = svg_number(p, "x", 0.0), y = svg_number(p, "y", 0.0) + down;
        const int end = svg_has(p, "class=\"r") || svg_has(p, "text-anchor=\"end\"");
        const int middle = svg_has(p, "class=\"a\"") || svg_has(p, "class=\"nd\"") || svg_has(p, "class=\"nl\"")
                           || svg_has(p, "text-anchor=\"middle\"");
        const double left = end ? x - wide : middle ? x - 0.5 * wide : x;
        if (left >= 0.0 && left + wide <= width && y >= 8.0 && y <= height - 2.0)
            continue;
        if (!outside++)
            snprintf(which, size, "%s", text);
    }
    return outside;
}

#endif
