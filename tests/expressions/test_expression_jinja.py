"""Jinja2 in its sandbox: what it takes, what it makes, what it refuses."""

from __future__ import annotations

import pytest

from circuit.expressions.jinja import LONGEST_TEXT, JinjaFault, JinjaTemplate


def test_conditions_loops_and_names() -> None:
    text = (
        "{% if urgent %}Now: {% endif %}{{ title }}"
        + "{% for one in items %}\n- {{ one.name | upper }}{% endfor %}{{ gone }}"
    )
    template = JinjaTemplate.parse(text)
    assert [name for name, _ in template.names] == ["gone", "items", "title", "urgent"]
    assert all(text[at:].startswith(name) for name, at in template.names)
    values = {"urgent": True, "title": "{{ title }}", "items": [{"name": "a"}, {"name": "b"}]}
    assert template.render(values) == "Now: {{ title }}\n- A\n- B"
    assert JinjaTemplate.parse("{{ a.b.c }}").render({}) == ""


@pytest.mark.parametrize(
    ("text", "says", "offset"),
    [
        ("Hello\n{% if x %}", "endif", 6),
        ("{{ 1 + }}", "unexpected", 0),
        ("{% nothing %}", "unknown tag", 0),
        ("{{ x | nofilter }}", "nofilter", 0),
        ("{% include 'passwd' %}", "another file", 0),
        ("{% extends base %}", "another file", 0),
    ],
)
def test_what_is_no_template(text: str, says: str, offset: int) -> None:
    with pytest.raises(JinjaFault, match=says) as caught:
        JinjaTemplate.parse(text)
    assert caught.value.offset == offset


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__.__mro__ }}{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ items.append(1) }}",
        "{{ 1 / 0 }}",
        "{{ range(1000000) | length }}",
        f"{{{{ 'x' * {LONGEST_TEXT + 1} }}}}",
        "{{ n + 'text' }}",
    ],
)
def test_what_cannot_be_made(text: str) -> None:
    with pytest.raises(ValueError):
        JinjaTemplate.parse(text).render({"items": [], "n": 1})
