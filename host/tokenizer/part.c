/* SPDX-License-Identifier: MIT */
/* host/tokenizer/part.c - see part.h. */
#include "host/tokenizer/part.h"

int part_absent(const json_t *value)
{
    return !value || json_is_null(value);
}

const char *part_type(const json_t *part)
{
    return part_text(part, "type", "of no type");
}

const char *part_text(const json_t *part, const char *key, const char *otherwise)
{
    const char *text = json_string_value(json_object_get(part, key));
    return text ? text : otherwise;
}

int part_flag(const json_t *part, const char *key, int otherwise)
{
    const json_t *value = json_object_get(part, key);
    return json_is_boolean(value) ? json_is_true(value) : otherwise;
}

json_t *part_byte_level(int use_regex, int prefix)
{
    return json_pack("{s:s s:b s:b s:b}", "type", "ByteLevel", "add_prefix_space", prefix, "trim_offsets", 1,
                     "use_regex", use_regex);
}
