# SPDX-License-Identifier: MIT
"""Chat templates as transformers renders them and as Geartrain does: templates.py PROGRAM

Templates of the styles that models use, and of every part of the language that is read here."""
import json
import subprocess
import sys

from transformers.utils.chat_template_utils import _compile_jinja_template as compiled

TURNS = """{%- for m in messages %}
    {%- if m.role == 'assistant' %}
        {{- '<a>' + m.content | trim + eos_token }}
    {%- elif m['role'] == 'user' and not loop.first %}
        {{- '<u>' + m['content'].strip() + '\\n' }}
    {%- else %}
        {{- '<' ~ m.role ~ ' ' ~ loop.index ~ '>' + m.content }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<a>' }}
{%- endif %}
"""
FIRST = """{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set first = messages[0]['content'] %}\
{% else %}{% set rest = messages %}{% set first = false %}{% endif %}{% for m in rest %}\
{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('turns') }}{% endif %}\
{% if loop.index0 == 0 and first != false %}{% set content = '<<' + first + '>>' + m['content'] %}{% else %}\
{% set content = m['content'] %}{% endif %}{{ bos_token + content.strip() if m['role'] == 'user' else ' ' + content }}{% endfor %}"""
LINES = """{{ bos_token }}
{% for m in messages %}
{% if m['role'] == 'user' %}
{{ '<|user|>
' + m['content'] + eos_token }}
{% elif m['role'] == 'assistant' %}
{{ '<|assistant|>
'  + m['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}"""
THOUGHT = """{%- set ns = namespace(found=false, last=messages|length - 1) %}
{%- for m in messages[::-1] %}
    {%- set at = (messages|length - 1) - loop.index0 %}
    {%- if not ns.found and m.role == 'user' and m.content is string and not(m.content.startswith('<') and m.content.endswith('>')) %}
        {%- set ns.found = true %}
        {%- set ns.last = at %}
    {%- endif %}
{%- endfor %}
{%- for m in messages %}
    {%- set content = m.content if m.content is string else '' %}
    {%- set thought = '' %}
    {%- if '</t>' in content %}
        {%- set thought = content.split('</t>')[0].rstrip('\\n').split('<t>')[-1].lstrip('\\n') %}
        {%- set content = content.split('</t>')[-1].lstrip('\\n') %}
    {%- endif %}
    {%- if loop.index0 > ns.last and (loop.last or thought) %}
        {{- '<t>' + thought.strip('\\n') + '</t>' + content }}
    {%- else %}
        {{- m.role + ': ' + content }}
    {%- endif %}
    {%- if m.tool_calls %}{{ m.tool_calls | tojson }}{% endif %}
{%- endfor %}
{%- if tools is not none %}{{ tools | tojson(indent=4) }}{% endif %}"""
MARKED = """{%- for m in messages -%}
{%- if m.role == 'assistant' -%}<a>
{% generation %}{{ m.content }}<e>{% endgeneration %}

{% else %}
<u>{{ m.content }}<e>
{%- endif -%}
{%- endfor %}"""
PARTS = [
"{% for i in range(5) %}{{ i }}{% if not loop.last %},{% endif %}{% endfor %}|{% for i in range(2, 20, 7) %}{{ loop.index }}:{{ i }} {% endfor %}",
"  {% if true %}\n  x\n  {% endif %}\n y {%- if 1 %} z {%+ if 0 %}no{% endif %}{% endif +%}\n end\n",
"{# c #}\na{#- c -#}  b {{- ' c ' -}} d\n{%- raw %} {{ x }} {% endraw -%}  \n e",
"{{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** 10 }} {{ 1e20 }} {{ 0.1 + 0.2 }} {{ 1.0 }} {{ 3 * 'ab' }} {{ 2 ~ 'x' ~ none ~ true }} {{ -2 ** 2 }} {{ 1 < 2 < 3 }} {{ 5e-7 }}",
"{{ 'äöü€'[1] }}{{ 'äöü€'[-1] }}{{ 'äöü€'[1:3] }}{{ 'äöü€'[::-1] }}{{ 'äöü€'|length }} {{ 'abc'[5] }}|{{ 'abc'[1:] }}|{{ 'abc'[:-1] }}|{{ [1,2,3][::-1]|join('-') }}|{{ [1,2,3,4][-3:-1]|join }}",
"{{ ' a b  c '.split() | tojson }} {{ 'a,b,,c'.split(',') | tojson }} {{ 'a,b,c'.split(',', 1) | tojson }} {{ '  x '.strip() }}|{{ 'xxaxx'.strip('x') }}|{{ 'abc'.upper() }}{{ 'ABC' | lower }} {{ 'hello world'|title }} {{ 'hELLO'|capitalize }}",
"{{ {'a': [1, 2.5, none, true, 'x\"\\n\\u00e9'], 'b': {}} | tojson }} {{ {'a': [1, {'b': []}]} | tojson(indent=2) }}",
"{% set ns = namespace(x=1) %}{% for i in [1,2,3] %}{% set ns.x = ns.x * 2 %}{% set y = i %}{% endfor %}{{ ns.x }}{{ y is defined }}{{ y }}",
"{% for m in messages if m.role == 'user' %}{{ loop.index }}/{{ loop.length }} {{ m.content }};{% else %}none{% endfor %}{% for x in [] %}{% else %}empty{% endfor %}",
"{% for i in range(10) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 5 %}{% break %}{% endif %}{{ i }}{% endfor %}",
"{{ missing }}|{{ missing|default('d') }}|{{ ''|default('e', true) }}|{{ missing is defined }}|{{ none is none }}|{{ 'a' in 'abc' }}|{{ 'a' not in ['b'] }}|{{ 'role' in messages[0] }}|{{ 3 is divisibleby 3 }}|{{ 3 is odd }}|{{ 'x' if false }}|{{ 'y' if 1 else 'z' }}",
"{% set x %}a {{ 1 + 1 }} b{% endset %}[{{ x }}]{% set d = {'k': 1, 'j': 2} %}{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}{% for k in d %}{{ k }}{% endfor %}{{ d.get('q', 5) }}{{ d['k'] }}{{ d.j }}{{ d|length }}",
"{{ messages | map(attribute='role') | join(', ') }} {{ messages|first|tojson }} {{ (messages|last).content }} {{ 'a-b'.replace('-', '+') }} {{ 'x' ~ 1.5 }} {{ messages[0]['content'][0] }} {{ loop is defined }} {{ 'a\\tb\\x41\\u00e9\\q' }} {{ \"it's\" }}",
"{%- for m in messages -%}\n   {{ m.role }}\n   {%- if loop.first %} first{% endif %}\n{%- endfor -%}\n\n",
"a\r\nb\r{% if 1 %}\r\nc{% endif %}\r\n",
"{{ '%s' }}{{ \"a\" \"b\" }}{{ 1 if none else 2 }}{{ not none }}{{ [] or 'x' }}{{ 'a' and 'b' }}{{ 5 is number }}{{ '5'|int + 1 }}{{ 2.0|int }}{{ 'q' is string }}{{ {} is mapping }}{{ [1] is iterable }}{{ (1, 2)|length }}",
"\n\n  {%- set a = 1 -%}  \n\n x {{ a }}\n\n\n",
"{{ 'abc'.startswith('ab') }}{{ 'abc'.endswith('bc') }}{{ 'abc' | trim }}{{ '\u00a0\u3000x\u2003' | trim }}{{ messages == messages }}{{ [1, 2] + [3] == [1,2,3] }}{{ 1 == 1.0 }}{{ true == 1 }}{{ 'a' < 'b' }}",
]

CHATS = [
    [{"role": "user", "content": "Hello <there>"}, {"role": "assistant", "content": "Good day & co"}],
    [{"role": "system", "content": " Be kind. "}, {"role": "user", "content": "\u00dcber\n2+2? "},
     {"role": "assistant", "content": " 4 "}, {"role": "user", "content": "and 3+3"}, {"role": "assistant", "content": "6\n"}],
    [{"role": "user", "content": "q"}, {"role": "assistant", "content": "<t>\nhm\n</t>\n\nA1"}, {"role": "user", "content": "q2"},
     {"role": "assistant", "content": "<t>x</t>A2"}, {"role": "user", "content": "q3"}],
    [{"role": "assistant", "content": "first"}, {"role": "user", "content": "\U0001f600"}],
]
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


def wanted(template, chat, prompt):
    try:
        return compiled(template).render(messages=chat, tools=None, documents=None, add_generation_prompt=prompt, **TOKENS)
    except Exception as refused:                    # raise_exception, and what is undefined
        return None


def main():
    jobs = [(t, c, p) for t in [TURNS, FIRST, LINES, THOUGHT, MARKED] + PARTS for c in CHATS for p in (False, True)]
    text = "".join(json.dumps({"template": t, "tokens": TOKENS, "messages": c, "prompt": p}) + "\n" for t, c, p in jobs)
    done = subprocess.run([sys.argv[1]], input=text, capture_output=True, text=True, check=True)
    got = [json.loads(line) for line in done.stdout.split("\n") if line]
    failed = 0
    for (t, c, p), mine in zip(jobs, got):
        want = wanted(t, c, p)
        if mine != want:
            failed += 1
            print("FAILED", json.dumps(t), "\n  want", json.dumps(want), "\n  got ", json.dumps(mine))
    passed = len(got) - failed
    print(f"{passed} passed, {failed + len(jobs) - len(got)} failed")
    return failed or len(got) != len(jobs) or not any(x is None for x in got)


sys.exit(1 if main() else 0)
