"""The sandbox: what templates may do, what they may not, and that each of them ends."""

from __future__ import annotations

import time
from typing import Any

import pytest

from allim.hub.templates.budget import CPU_SECONDS
from allim.hub.templates.sandbox import (
    BadTemplate,
    MissingVariables,
    RenderingFailed,
    Source,
    html_sandbox,
    text_sandbox,
)


def render(text: str, **values: Any) -> str:
    return Source.compile(text, text_sandbox()).render(values)


def test_loops_conditions_filters_and_macros_work() -> None:
    text = (
        "{% macro line(o) %}{{ loop_mark }}{{ o.name|upper }} {{ '%s' }}{{ o.price }}{% endmacro %}"
        "{% for o in order.items %}{{ loop.index }}/{{ loop.length }} {{ line(o) }}"
        "{{ ', ' if not loop.last }}{% else %}nothing{% endfor %}"
        "{{ note|default('-') }}{% if vip is defined %}!{% endif %} {{ none }}{{ true }}"
    )
    items = [{"name": "책", "price": 9000}, {"name": "pen", "price": 1.5}]

    # `order.items` is the order's own, not a method of the mapping.
    shown = render(text, order={"items": items}, loop_mark="·")

    assert shown == "1/2 ·책 %s9000, 2/2 ·PEN %s1.5- true"
    assert render(text, order={"items": []}).startswith("nothing")


def test_html_escapes_values_and_text_does_not() -> None:
    page = (
        "<b>{{ v }}</b>{{ v|safe }}{{ [v, v]|join('&') }}"
        "{% set c %}<i>{{ v }}</i>{% endset %}{{ c }}"
    )
    assert Source.compile(page, html_sandbox()).render({"v": "<&>"}) == (
        "<b>&lt;&amp;&gt;</b><&>&lt;&amp;&gt;&amp;&lt;&amp;&gt;<i>&lt;&amp;&gt;</i>"
    )
    assert render("{{ v }}", v="<&>") == "<&>"


def test_everything_that_is_missing_is_named_with_its_path() -> None:
    text = (
        "{{ a }} {{ b.c.d }} {{ order.customer.name }} {{ order.lines[0].sku }}"
        "{% if q %}{% endif %}{{ z|default('ok') }}{{ w|upper }}{% for k in ks %}{% endfor %}"
        "{{ data.of_data }}{{ x is defined }}"
    )
    order = {"customer": {"id": 1}, "lines": [{"n": 1}]}
    with pytest.raises(MissingVariables) as missing:
        render(text, order=order, data={"order": order})

    assert missing.value.names == (
        "a", "b", "order.customer.name", "order.lines[0].sku", "q", "w", "ks", "data.of_data",
    )  # fmt: skip


HOSTILE = [
    "{{ 'a' * 10**9 }}",
    "{{ [1] * 10**9 }}",
    "{{ 10**10**9 }}",
    "{% for i in range(10**9) %}{% endfor %}",
    "{% for i in range(1000) %}{% for j in range(1000) %}{% endfor %}{% endfor %}",
    "{% set n = namespace(x='aa') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "{% set n = namespace(x='aa') %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "{% set n = namespace(x=[1]) %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "{% set n = namespace(x=[]) %}{% for i in range(99) %}{% set n.x = [n.x, n.x] %}{% endfor %}",
    "{% set n = namespace(x=1) %}{% for i in range(99) %}{% set n.x = dict(a=n.x, b=n.x) %}"
    "{% endfor %}{{ n.x|tojson }}",
    "{% set n = namespace(x=3) %}{% for i in range(99) %}{% set n.x = n.x * n.x %}{% endfor %}",
    "{% macro m(n) %}{{ m(n - 1) }}{{ m(n - 1) }}{% endmacro %}{{ m(9) }}",
    "{% macro m(n) %}{{ m(n-1) if n else 'x' }}{{ m(n-1) if n else 'x' }}{% endmacro %}{{ m(40) }}",
    "{% macro m(n) %}{% if n %}{% set a %}{{ m(n-1) }}{% endset %}{{ a }}{{ a }}{% else %}"
    "xxxxxxxxx{% endif %}{% endmacro %}{{ m(40) }}",
    "{% macro m(n) %}{{ m(n-1, varargs, varargs) if n else varargs }}{% endmacro %}{{ m(60, 1) }}",
    "{% for i in range(1000) %}{% set x %}" + "y" * 50_000 + "{% endset %}{% endfor %}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '{:1000000000}'.format(1) }}",
    "{{ 'a'.center(10**9) }}",
    "{{ 'a'.ljust(10**9) }}",
    "{{ 'aaaa'|replace('a', 'b' * 100000)|replace('b', 'c' * 100000) }}",
    "{{ range(1000)|map('string')|join('x' * 1000) }}",
    "{% for i in range(1000) %}{% for j in range(15) %}"
    "{% set x = ('x' * 390000)|upper %}{% endfor %}{% endfor %}",
    "{% for i in range(1000) %}{% set x = range(1000)|map('string')|sort|list %}{% endfor %}",
    "{{ 1|round(1000000000, 'ceil') }}",
    "{{ 5|round(-1000000000) }}",
    "{{ ([none]*1000)|map('default', range(1000)|list, true)|sum(start=[]) }}",
    "{{ ([none]*1000)|map('default', 'x' * 300000, true)|map('upper')|list }}",
    "{% for i in range(9)|budgeted(-10**9) %}{% endfor %}",
    "{% for i in range(9)|budgeted('nan'|float) %}{% endfor %}",
    "{% set n = namespace(x=[1]) %}{% for i in range(1000) %}{% for j in range(15) %}"
    "{% set n.x = n.x|map('upper') %}{% endfor %}{% endfor %}{{ n.x|list }}",
    "{{ ('x' * 300000)|trim('y' * 100000) }}",
    "{{ ('x' * 300000).strip('y' * 100000) }}",
    "{% set a = range(1000)|list * 400 %}{{ a[1:] " + "or a[1:] == 1 " * 100 + "}}",
    "{% set a = range(1000)|list * 400 %}" + "{% if -1 in a %}{% endif %}" * 2000,
    "{{ ''.__class__.__mro__ }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ m.__class__ }}",
    "{{ v.append(1) }}",
    "{{ v.pop() }}",
    "{{ v|attr('__class__') }}",
    "{{ self }}",
    "{{ range(3) }}",
    "{{ 1 / 0 }}",
    "{{ 'a' - 1 }}",
    "{% include 'x' %}",
    "{% import 'x' as y %}",
    "{% extends 'x' %}",
    "{% block a %}{{ self.a() }}{{ self.a() }}{% endblock %}",
    "{% for a in v recursive %}{{ loop(v) }}{{ loop(v) }}{% endfor %}",
    "{{ 'x'|center(1000000000) }}",
    "{{ 'x'|format }}",
    "{{ lipsum() }}",
    "{{ (" * 500,
    "{% if %}",
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_nothing_gets_out_and_everything_ends(text: str) -> None:
    began = time.process_time()
    with pytest.raises((RenderingFailed, BadTemplate, MissingVariables)):
        render(text, v=[1], m={})
    # CPU time of this process, and many times what any of them may take.
    assert time.process_time() - began < 40 * CPU_SECONDS


def test_data_is_not_changed_by_a_template() -> None:
    values = {"v": [1, 2], "d": {"a": 1}}
    render("{% set v = v + [3] %}{{ v|sort|list }}{{ d.get('a') }}{{ d.keys()|list }}", **values)
    assert values == {"v": [1, 2], "d": {"a": 1}}
