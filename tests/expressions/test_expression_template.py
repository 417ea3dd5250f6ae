"""Prompt templates: only `{identifier}` counts, and what is put in is never looked at again."""

from __future__ import annotations

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circuit.expressions.template import TEMPLATE_VARIABLES, Template

EXAMPLES = settings(max_examples=80, deadline=None, database=None)
NAMES = st.text(string.ascii_letters + "_", min_size=1, max_size=4)


def render(text: str, **values: str) -> str:
    return Template.parse(text).render(values)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Review {name}.", "Review N."),
        ("{name}{name}", "NN"),
        ("{{name}}", "{N}"),
        ('{"key": "{name}"}', '{"key": "N"}'),
        ("{ name }", "{ name }"),
        ("{}", "{}"),
        ("{0}", "{0}"),
        ("{name!r}", "{name!r}"),
        ("{name.x}", "{name.x}"),
        ("{name:>10}", "{name:>10}"),
        ("{name", "{name"),
        ("name}", "name}"),
        ("{\nname}", "{\nname}"),
        ("", ""),
        ("%(name)s ${name} $name", "%(name)s $N $name"),
    ],
)
def test_only_a_brace_that_holds_an_identifier_counts(text: str, expected: str) -> None:
    assert render(text, name="N") == expected


def test_what_is_put_in_is_not_evaluated_again() -> None:
    assert render("{a} {b}", a="{b}", b="{a}") == "{b} {a}"
    assert render("{a}}", a="{b") == "{b}"
    assert render("{a}", a=r"\1 \g<0>") == r"\1 \g<0>"


def test_names_tell_where_they_stand() -> None:
    template = Template.parse("é {a}\n{b} {{c}} {d e}")
    assert template.names == (("a", 2), ("b", 6), ("c", 11))
    assert all(template.text[offset] == "{" for _, offset in template.names)


def test_a_name_without_a_value_is_named() -> None:
    with pytest.raises(ValueError, match="b, c, for which there is no value"):
        Template.parse("{c} {a} {b} {c}").render({"a": ""})


def test_the_variables_are_identifiers_that_a_template_finds() -> None:
    text = "".join(f"{{{name}}}" for name in TEMPLATE_VARIABLES)
    assert [name for name, _ in Template.parse(text).names] == list(TEMPLATE_VARIABLES)


@EXAMPLES
@given(st.lists(st.one_of(NAMES.map(lambda name: (True, name)), st.text(max_size=4).map(lambda text: (False, text)))))
def test_rendering_puts_each_value_where_its_name_stood(parts: list[tuple[bool, str]]) -> None:
    # Braces in the text between could make another name, so they are taken out here; the table above has them.
    plain = [(named, part if named else part.replace("{", "").replace("}", "")) for named, part in parts]
    text = "".join(f"{{{part}}}" if named else part for named, part in plain)
    values = {part: f"<{part}>{{a}}" for named, part in plain if named}
    expected = "".join(values[part] if named else part for named, part in plain)
    assert Template.parse(text).render(values) == expected


@EXAMPLES
@given(st.text())
def test_any_text_is_a_template_and_its_own_names_put_it_back_together(text: str) -> None:
    template = Template.parse(text)
    assert template.render({name: f"{{{name}}}" for name, _ in template.names}) == text
