/* SPDX-License-Identifier: MIT */
/* tests/tokenizer/test_template.c - chat templates: texts, answers, refusals, bounds. What jinja2 gives for these and more is
 * compared by templates.sh where Python has it. */
#include "tests/check.h"
#include "tests/data/data_files.h"

#include "host/base/file.h"
#include "host/tokenizer/template.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char chat[] =
    "[{\"role\": \"system\", \"content\": \" Be kind. \"}, {\"role\": \"user\", \"content\": \"\\u00dcber 2+2? \"},"
    " {\"role\": \"assistant\", \"content\": \" 4 \"}, {\"role\": \"user\", \"content\": \"and 3+3\"},"
    " {\"role\": \"assistant\", \"content\": \"6\\n\"}]";

static gt_status render(chat_text *out, const char *source, int prompt, int answers)
{
    chat_template *t;
    json_t *tokens = json_pack("{s:s, s:s}", "bos_token", "<s>", "eos_token", "</s>"),
           *messages = json_loads(chat, 0, NULL);
    gt_status st = chat_template_parse(&t, source, strlen(source), tokens, "it");
    if (!st)
        st = answers ? chat_template_render_answers(t, messages, out) : chat_template_render(t, messages, prompt, out);
    if (!st)
        chat_template_release(t);
    else if (t)
        chat_template_release(t);
    json_decref(tokens);
    json_decref(messages);
    return st;
}

static void gives(const char *source, const char *want)
{
    chat_text out = { 0 };
    if (CHECK_OK(render(&out, source, 1, 0)))
        CHECKF(!strcmp(out.text.data, want), "%s: got '%s', want '%s'", source, out.text.data, want);
    chat_text_release(&out);
}

static void texts_are_those_of_jinja(void)
{
    gives(
        "{% for m in messages %}\n{% if m['role'] != 'system' %}\n<{{ m.role }}>{{ m['content'] | trim }}{{ eos_token }}\n"
        "{% endif %}\n{% endfor %}\n{% if add_generation_prompt %}\n<assistant>\n{% endif %}\n",
        "<user>\xc3\x9c"
        "ber 2+2?</s>\n<assistant>4</s>\n<user>and 3+3</s>\n<assistant>6</s>\n<assistant>\n");
    gives(
        "{{ bos_token }}{%- for m in messages[1:] -%} {{ loop.index0 }}/{{ loop.length }}{{ ',' if not loop.last }} {%- endfor %}",
        "<s>0/4,1/4,2/4,3/4");
    gives(
        "{%- set ns = namespace(last=none) -%}{% for m in messages[::-1] if m.role == 'user' %}{% if ns.last is none %}"
        "{% set ns.last = m.content[0:3] %}{% endif %}{% endfor %}{{ ns.last }}|{{ messages | length }}",
        "and|5");
    gives(
        "{{ 'a\\u00e9b'[1] }}{{ 'a\\u00e9b'[-1:] }}{{ 'abc'[::-1] }}{{ -7 // 2 }}{{ -7 % 3 }}{{ 2 ** 3 }}{{ 7 / 2 }}{{ 1.0 }}{{ 1e20 }}",
        "\xc3\xa9"
        "bcba-4283.51.01e+20");
    gives(
        "{{ {'a': [1, none, true, 'x\"']} | tojson }}{{ 'a,b'.split(',') | join('+') }}{{ missing is defined }}{{ missing }}"
        "{{ missing | default('d') }}{{ 'b' in 'abc' }}{{ 'q' not in ['q'] }}{{ none }}",
        "{\"a\": [1, null, true, \"x\\\"\"]}a+bFalsedTrueFalseNone");
    gives("  {% if true %}\n  x\n  {% endif %}\n y {%- if 1 %} z {%+ if 0 %}no{% endif %}{% endif +%}\n{# c #}\nend\n",
          "  x\n y z \nend");
    gives(
        "{% raw %}{{ x }}{% endraw %}{% set x %}b{{ 1 + 1 }}{% endset %}{{ x ~ 1 }}{% for i in range(9) %}{% if i == 3 %}{% break %}"
        "{% endif %}{{ i }}{% endfor %}",
        "{{ x }}b21012");
}

static void answers_are_found(void)
{
    static const struct {
        const char *source, *first, *last;
    } cases[] = {
        { "{% for m in messages %}<{{ m.role }}>\n{{ m.content }}<end>\n{% endfor %}{% if add_generation_prompt %}<assistant>\n{% endif %}",
          " 4 <end>", "6\n<end>" },
        { "{% for m in messages %}{% if m.role == 'assistant' %}{{ ' ' + m.content.strip() + ' ' + eos_token }}{% else %}"
          "[INST] {{ m.content }} [/INST]{% endif %}{% endfor %}",
          " 4 </s>", " 6 </s>" },
        { "{% for m in messages %}{% if m.role == 'assistant' %}<a>{% generation %}{{ m.content | trim }}!{% endgeneration %}"
          "{% else %}<u>{{ m.content }}{% endif %}{% endfor %}",
          "4!", "6!" },
        /* What the last answer alone has in front of it is learned; texts of turns before need not begin alike. */
        { "{% for m in messages %}{% if m.role == 'assistant' %}{{ '<a>' + ('<think></think>' if loop.last else '') + m.content }}</a>"
          "{% else %}<u>{{ m.content }}</u>{% endif %}{% endfor %}{% if add_generation_prompt %}<a>{% endif %}",
          " 4 </a>", "<think></think>6\n</a>" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        chat_text out = { 0 };
        if (CHECK_OK(render(&out, cases[i].source, 0, 1))
            && CHECKF(out.span_count == 2, "%d: %d spans", (int)i, (int)out.span_count))
            for (int k = 0; k < 2; k++) {
                const chat_span s = out.spans[k];
                const char *want = k ? cases[i].last : cases[i].first;
                CHECKF(s.end - s.begin == strlen(want) && !memcmp(out.text.data + s.begin, want, s.end - s.begin),
                       "%d: '%.*s', not '%s'", (int)i, (int)(s.end - s.begin), out.text.data + s.begin, want);
            }
        chat_text_release(&out);
    }
}

static void what_is_not_known_is_refused_with_its_line(void)
{
    static const struct {
        const char *source;
        gt_status code;
        const char *says;
    } cases[] = {
        { "a\n{% macro f(x) %}{% endmacro %}", GT_UNSUPPORTED, "template 'it', line 2: {% macro %} is not supported" },
        { "{% include 'x' %}", GT_UNSUPPORTED, "{% include %} is not supported" },
        { "\n\n{{ 'x' | center }}", GT_UNSUPPORTED, "line 3: the filter 'center' is not supported" },
        { "{{ 1 is prime }}", GT_UNSUPPORTED, "the test 'prime' is not supported" },
        { "{{ lipsum() }}", GT_UNSUPPORTED, "the function 'lipsum' is not supported" },
        { "{{ 'x'.zfill(3) }}", GT_UNSUPPORTED, "the method 'zfill'" },
        { "{{ strftime_now('%Y') }}", GT_UNSUPPORTED, "'strftime_now' is not defined here" },
        { "{{ messages }}", GT_UNSUPPORTED, "printing a list is not supported" },
        { "{% if x %}", GT_FORMAT, "{% endif %} is missing" },
        { "{{ 1 + }}", GT_FORMAT, "an expression is wanted where '}}' stands" },
        { "{{ 'a }}", GT_FORMAT, "a text has no end" },
        { "{% for x in y %}{% endif %}", GT_FORMAT, "{% endif %} ends nothing here" },
        { "{{ missing.x }}", GT_MISMATCH, "there is nothing of which 'x' could be asked" },
        { "{{ 1 // 0 }}", GT_MISMATCH, "a division by zero" },
        { "\n{{ raise_exception('roles ' + 'must alternate') }}", GT_MISMATCH, "line 2: roles must alternate" },
        { "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", GT_UNSUPPORTED, "" },
        { "{{ 'x' * 999999999999 }}", GT_UNSUPPORTED, "repeated" },
        { "{% set ns = namespace(x='x') %}{% for a in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
          GT_UNSUPPORTED, "MiB of text" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        chat_text out = { 0 };
        CHECK_FAILS(render(&out, cases[i].source, 0, 0), cases[i].code, cases[i].says);
        chat_text_release(&out);
    }
    char deep[4001];
    chat_text out = { 0 };
    memset(deep, '(', 4000);
    memcpy(deep, "{{", 2);
    memset(deep + 2000, ')', 1998);
    memcpy(deep + 3998, "}}", 2);
    deep[4000] = '\0';
    CHECK_FAILS(render(&out, deep, 0, 0), GT_UNSUPPORTED, "is nested more than");
    chat_text_release(&out);
}

static void templates_lie_beside_tokenizers(void)
{
    char *folder = fresh("tokenizer"), *file = gt_path_join(folder, "tokenizer_config.json"), *copy = fresh("copy");
    static const char config[] =
        "{\"bos_token\": {\"content\": \"<b>\"}, \"eos_token\": null, \"chat_template\": [{\"name\": \"tool_use\", "
        "\"template\": \"x\"}, {\"name\": \"default\", \"template\": \"{{ bos_token }}{{ messages[0].content }}\\n\"}]}";
    chat_template *t, *again;
    chat_text out = { 0 };
    json_t *messages = json_pack("[{s:s, s:s}]", "role", "user", "content", "hi");
    CHECK_OK(gt_folder_make(folder));
    CHECK_OK(gt_folder_make(copy));
    CHECK_FAILS(chat_template_open(&t, folder), GT_NOT_FOUND, "has no chat template");
    CHECK_OK(gt_file_write(file, config, sizeof config - 1));
    if (CHECK_OK(chat_template_open(&t, folder))) {
        CHECK_OK(chat_template_render(t, messages, 0, &out));
        CHECK(!strcmp(out.text.data, "<b>hi"));
        CHECK_OK(chat_template_save(t, copy));
        if (CHECK_OK(chat_template_open(&again, copy))) {
            CHECK(chat_template_hash(t) == chat_template_hash(again));
            CHECK_OK(chat_template_render(again, messages, 0, &out));
            CHECK(!strcmp(out.text.data, "<b>hi"));
            chat_template_release(again);
        }
        chat_template_release(t);
    }
    CHECK_OK(gt_file_write(file, "{\"chat_template\": \"{% macro x %}\"}", 34));
    CHECK_FAILS(chat_template_open(&t, folder), GT_UNSUPPORTED, "tokenizer_config.json', line 1: {% macro %}");
    chat_text_release(&out);
    json_decref(messages);
    free(copy);
    free(file);
    free(folder);
}

const check_case check_cases[] = {
    CASE(texts_are_those_of_jinja),
    CASE(answers_are_found),
    CASE(what_is_not_known_is_refused_with_its_line),
    CASE(templates_lie_beside_tokenizers),
    { 0 }
};
