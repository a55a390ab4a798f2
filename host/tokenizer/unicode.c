/* SPDX-License-Identifier: MIT */
/* host/tokenizer/unicode.c - utf8proc's categories, grouped. */
#include "host/tokenizer/unicode.h"

#include <utf8proc.h>

static utf8proc_category_t category(uint32_t code)
{
    return utf8proc_category((utf8proc_int32_t)code);
}

int unicode_is_space(uint32_t code)
{
    if (code < 0x80)
        return code == ' ' || (code >= 9 && code <= 13);
    return code == 0x85 || code == 0xa0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200a) || code == 0x2028
           || code == 0x2029 || code == 0x202f || code == 0x205f || code == 0x3000;
}

int unicode_is_punctuation(uint32_t code)
{
    if (code < 0x80)
        return (code >= 33 && code <= 47) || (code >= 58 && code <= 64) || (code >= 91 && code <= 96)
               || (code >= 123 && code <= 126);
    const utf8proc_category_t c = category(code);
    return c >= UTF8PROC_CATEGORY_PC && c <= UTF8PROC_CATEGORY_PO;
}

int unicode_is_numeric(uint32_t code)
{
    const utf8proc_category_t c = category(code);
    return c >= UTF8PROC_CATEGORY_ND && c <= UTF8PROC_CATEGORY_NO;
}

int unicode_is_mark(uint32_t code)
{
    const utf8proc_category_t c = category(code);
    return c >= UTF8PROC_CATEGORY_MN && c <= UTF8PROC_CATEGORY_ME;
}

int unicode_is_nonspacing(uint32_t code)
{
    return category(code) == UTF8PROC_CATEGORY_MN;
}

int unicode_is_control(uint32_t code)
{
    const utf8proc_category_t c = category(code);
    if (code == '\t' || code == '\n' || code == '\r')
        return 0;
    return c == UTF8PROC_CATEGORY_CC || c == UTF8PROC_CATEGORY_CF || c == UTF8PROC_CATEGORY_CS
           || c == UTF8PROC_CATEGORY_CO;
}

int unicode_is_ideograph(uint32_t code)
{
    return (code >= 0x4e00 && code <= 0x9fff) || (code >= 0x3400 && code <= 0x4dbf)
           || (code >= 0x20000 && code <= 0x2a6df) || (code >= 0x2a700 && code <= 0x2b73f)
           || (code >= 0x2b740 && code <= 0x2b81f) || (code >= 0x2b920 && code <= 0x2ceaf)
           || (code >= 0xf900 && code <= 0xfaff) || (code >= 0x2f800 && code <= 0x2fa1f);
}

/* Letters, and what Other_Alphabetic adds to them that is no mark: letters in circles and squares. */
int unicode_is_word(uint32_t code)
{
    const utf8proc_category_t c = category(code);
    return (c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO) || c == UTF8PROC_CATEGORY_NL
           || c == UTF8PROC_CATEGORY_ND || c == UTF8PROC_CATEGORY_PC || unicode_is_mark(code)
           || (code >= 0x24b6 && code <= 0x24e9) || (code >= 0x1f130 && code <= 0x1f149)
           || (code >= 0x1f150 && code <= 0x1f169) || (code >= 0x1f170 && code <= 0x1f189) || code == 0x200c
           || code == 0x200d;
}

int unicode_is_plain(uint32_t code)
{
    return (code >= 0x410 && code <= 0x44f) || (code >= 0x5d0 && code <= 0x5ea) || (code >= 0x627 && code <= 0x63a)
           || (code >= 0x641 && code <= 0x64a) || (code >= 0x905 && code <= 0x928) || (code >= 0x3041 && code <= 0x3096)
           || (code >= 0x30a1 && code <= 0x30fa) || (code >= 0x3400 && code <= 0x4dbf)
           || (code >= 0x4e00 && code <= 0x9fff) || (code >= 0xac00 && code <= 0xd7a3);
}

/* The one character whose lower case has two, U+0130, is not in utf8proc's simple mapping. */
int unicode_lower(uint32_t out[2], uint32_t code)
{
    if (code == 0x130) {
        out[0] = 'i';
        out[1] = 0x307;
        return 2;
    }
    out[0] = (uint32_t)utf8proc_tolower((utf8proc_int32_t)code);
    return 1;
}
