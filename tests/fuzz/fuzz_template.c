/* SPDX-License-Identifier: MIT */
/* tests/fuzz/fuzz_template.c - no chat template makes the program read outside of it, run for ever or fill the memory,
 * and what it gives for a chat has its answers within it. */
#include "tests/fuzz/fuzz.h"

#include "host/tokenizer/template.h"

#include <stdlib.h>
#include <string.h>

#define SEED(text) { text, sizeof text - 1 }

const fuzz_seed fuzz_seeds[] = {
    SEED("{% for m in messages %}{{ '<' + m['role'] + '>' + m.content | trim + eos_token }}{% endfor %}"),
    SEED(
        "{%- set ns = namespace(n=0) -%}{% for m in messages[::-1] if m.role == 'user' %}{% set ns.n = ns.n + loop.index0 * 2 %}"
        "{% if not loop.last %}{{ ns.n ~ ', ' }}{% elif ns.n is defined %}x{% else %}y{% endif %}{% else %}none{% endfor %}"),
    SEED(
        "{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | join(' ') }}{# c #}{% raw %}{{{% endraw %}"),
    SEED(
        "{{ 'a,b'.split(',')[-1][1:] ~ {'k': [1, 2.5, none]} | tojson(indent=2) }}{{ 7 // -2 ** 3 % 5 if true else 'no' }}"),
    SEED(
        "{% for i in range(3) %}{% if i == 1 %}{% continue %}{% endif %}{% generation %}{{ i }}{% endgeneration %}{% endfor %}"),
    SEED("{% set x %}a{{ \"\\u00e9\\n\" }}{% endset %}{{ x.strip().upper().replace('A', 'bb').startswith('B') }}"),
    SEED("{% for k, v in messages[0].items() %}{{ k }}{% break %}{% endfor %}{{ raise_exception('no') }}"),
};
const size_t fuzz_seed_count = sizeof fuzz_seeds / sizeof *fuzz_seeds;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char chat[] =
        "[{\"role\": \"user\", \"content\": \" a\\u00e9 \"}, {\"role\": \"assistant\", \"content\": \"b\"}]";
    chat_template *t;
    chat_text out = { 0 };
    if (size > 4096 || chat_template_parse(&t, (const char *)data, size, NULL, "input"))
        return 0;
    json_t *messages = json_loads(chat, 0, NULL);
    if (!chat_template_render_answers(t, messages, &out))
        for (size_t i = 0; i < out.span_count; i++)
            if (out.spans[i].begin > out.spans[i].end || out.spans[i].end > out.text.size)
                abort();
    chat_text_release(&out);
    chat_template_release(t);
    json_decref(messages);
    return 0;
}
