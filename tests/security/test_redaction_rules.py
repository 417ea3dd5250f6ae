"""Rules of redaction: what they find, and that a text in pieces gives what the whole gives."""

from __future__ import annotations

import json
import re
from random import Random
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circuit.security import scan
from circuit.security.kinds import KINDS
from circuit.security.pattern import Pattern, PatternFault
from circuit.security.redactor import MOST_COUNTED, OTHERS, Redaction, Redactor, conflicts, redaction
from circuit.security.rules import HASH, PLACES, Rule
from circuit.security.scan import Matchers

ALL = redaction([Rule(name, name) for name in KINDS])


def only(kind: str) -> Redaction:
    return redaction([Rule(kind, kind)])


def own(pattern: str, name: str = "own", replace: str | None = None) -> Rule:
    return Rule(name, None, pattern, replace)


def streamed(rules: Redaction, text: str, cuts: list[int]) -> list[str]:
    stream = rules.stream()
    assert stream is not None
    told, at = [], 0
    for cut in [*sorted(cut for cut in cuts if cut <= len(text)), len(text)]:
        told.append(stream.feed(text[at:cut]))
        # An escape that is not whole yet, and half a character behind it.
        assert stream.held <= rules.longest + 6
        at = cut
    return [*told, stream.close()]


@pytest.mark.parametrize("kind", KINDS)
def test_the_example_of_each_kind_is_found_wherever_it_stands(kind: str) -> None:
    rules, example = only(kind), KINDS[kind].example
    assert rules.text(example) == f"[{kind}]"
    assert rules.text(f"so {example}, and ({example})") == f"so [{kind}], and ([{kind}])"
    assert rules.text(f"ü“{example}”") == f"ü“[{kind}]”"


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("email", "ada at example.com, @ada, a@b, http://example.com/@x"),
        ("phone", "2024-01-02 10:11:12,123 order 12345678, 02/03/2024, 3.14159, 1.2.3.4"),
        ("payment_card", "4111 1111 1111 1112, 1234567890123456, 41111111111111111111111"),
        ("iban", "DE88 3704 0044 0532 0130 00, AB12"),
        ("ip_address", "std::cout, 12:34:56, 999.1.1.1, 1.2.3, ::"),
        ("us_ssn", "000-12-3456, 666-12-3456, 923-12-3456, 123-00-1234, 536904399, 1536-90-4399"),
        ("api_key", "sk-short, task-aaaaaaaaaaaaaaaaaaaaaaaa, AKIA1234"),
        ("bearer", "bearer of bad news, eyJhbGciOi"),
    ],
)
def test_what_only_looks_like_it_stays(kind: str, text: str) -> None:
    assert only(kind).text(text) == text


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        ("email", "…to:ada.l+x@mail.exämple.co.uk.", "…to:[email]."),
        ("email", "ada＠example.com", "[email]"),
        ("phone", "(415) 555-2671 or +1 415 555 2671, 030/901820", "[phone] or [phone], [phone]"),
        ("payment_card", "4111111111111111 12, 3782-822463-10005", "[payment_card] 12, [payment_card]"),
        ("payment_card", "card٤١١١١١١١١١١١١١١١", "card[payment_card]"),
        ("payment_card", "4111–1111–1111–1111", "[payment_card]"),
        ("payment_card", "4111\u00a01111\u00a01111\u00a01111", "[payment_card]"),
        ("payment_card", "2999 4111 1111 1111 1111", "2999 [payment_card]"),
        ("iban", "GB82 WEST 1234 5698 7654 32 and then", "[iban] and then"),
        ("ip_address", "fe80::1, ::1 and 2001:db8::192.0.2.1:", "[ip_address], [ip_address] and [ip_address]:"),
        ("api_key", "key ghp_" + "a1" * 18 + ".", "key [api_key]."),
        ("bearer", "authorization: BEARER abcdefgh1234==", "authorization: [bearer]"),
        ("bearer", "x eyJhbGciOi.eyJzdWIiOi.c2ln y", "x [bearer] y"),
    ],
)
def test_spellings(kind: str, text: str, said: str) -> None:
    assert only(kind).text(text) == said


@pytest.mark.parametrize("kind", KINDS)
def test_json_as_text_stays_json(kind: str) -> None:
    example = KINDS[kind].example
    for text in (f"a\n{example}", f'"{example}"', f"ä“{example}”", f"\\{example}"):
        written = json.dumps({"said": text})
        assert f"[{kind}]" in json.loads(only(kind).text(written))["said"]
    assert only(kind).text(json.dumps("ad\n")) == '"ad\\n"'


def test_a_letter_that_is_escaped_is_part_of_what_it_stands_in() -> None:
    written = json.dumps("to mär.ada@example.com, größer")
    assert json.loads(only("email").text(written)) == "to [email], größer"


def test_an_escape_is_the_character_that_it_stands_for() -> None:
    rules = redaction(
        [Rule("email", "email"), own("[0-9]{3} 😀", "own"), Rule("card", "payment_card", None, HASH)], b"key"
    )
    text = (
        r'{"a": "ada\u0040example.com, \u0661\uff122 \ud83d\udE00!", "b": "\u0034111111111111111", "c": "\\u0040x.de"}'
    )
    told = json.loads(rules.text(text))
    assert told == {"a": "[email], [own]!", "b": rules.text("4111111111111111"), "c": "\\u0040x.de"}
    found = [(one.rule.name, text[one.start : one.end]) for one in rules.find(text)]
    assert found[:2] == [("email", r"ada\u0040example.com"), ("own", r"\u0661\uff122 \ud83d\udE00")]


def test_what_begins_first_counts_and_then_the_earlier_rule() -> None:
    rules = [own("abc", "one"), own("bcd", "two"), own("ab", "three")]
    assert redaction(rules).text("abcd bcd ab") == "[one]d [two] [three]"
    assert redaction(rules[::-1]).text("abcd bcd ab") == "[three]cd [two] [three]"


def test_a_rejected_candidate_of_one_rule_hides_none_of_another() -> None:
    rules = redaction([Rule("payment_card", "payment_card"), own(r"\d{4} \d{4}", "number")])
    assert rules.text("4111 1111 1111 1112") == "[number] [number]"


def test_no_rule_is_asked_by_itself_where_what_is_found_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    def alone(*_: object) -> None:
        pytest.fail("what a match costs grows with the number of rules")

    for name in ("at", "candidate"):
        monkeypatch.setattr(Matchers, name, alone)
    rules = [own(rf"[a-z]{{{most},{most + 9}}}{most}", f"r{most}") for most in range(1, 30)]
    assert redaction([*rules, own("[a-z]", "letter")]).text("ab1 abc2 c") == "[r1] [r2] [letter]"


def test_what_stands_instead_is_not_looked_at_again() -> None:
    rules = redaction([own("a", "a", "aa")])
    assert rules.text("baab") == "baaaab"


def test_a_hash_is_the_same_for_spellings_of_one_value_and_tells_nothing_without_a_key() -> None:
    rule = Rule("card", "payment_card", None, HASH)
    one = redaction([rule], b"key").text("4111111111111111")
    assert re.fullmatch(r"\[card:[a-p]{8}\]", one)
    assert redaction([rule], b"key").text("4111 1111-1111 1111") == one
    assert redaction([rule], b"key").text("5500005555555559") != one
    assert redaction([rule], b"other").text("4111111111111111") != one
    assert redaction([rule]).text("4111111111111111") == "[card]"


def test_json_has_its_texts_keys_and_numbers_redacted() -> None:
    given = {
        "ada@example.com": [4111111111111111, {"n": "to bob@example.com", "ok": True, "none": None}],
        "bob@example.com": (1.5, 7),
    }
    assert ALL.value(given) == {
        "[email]": ["[payment_card]", {"n": "to [email]", "ok": True, "none": None}],
        "[email] 2": [1.5, 7],
    }
    deep: list[object] = []
    for _ in range(1000):
        deep = [deep]
    assert "[nested too deep]" in str(ALL.value(deep))


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("a(", "no regular expression"),
        ("a*", "300 characters at most"),
        ("ab+", "300 characters at most"),
        ("a{0,5}", "matches the empty text"),
        (r"\b", "matches the empty text"),
        ("(?=a)b", "looking ahead or behind"),
        (r"(a)\1", "a back reference"),
        ("(?>a)b", "an atomic group"),
        ("a{2,3}+", "a possessive repetition"),
        (r"[^\W]", "complement"),
        ("x" * 401, "longer than 400"),
        ("|".join(rf"\w{{1,290}}{n}" for n in range(9)), "too large"),
        ("(" * 300 + "a" + ")" * 90, "no regular expression"),
    ],
)
def test_a_pattern_that_cannot_be_used_says_why(pattern: str, said: str) -> None:
    with pytest.raises(PatternFault, match=re.escape(said)):
        Pattern.parse(pattern)


def test_own_patterns_know_all_scripts() -> None:
    assert redaction([own(r"KD\d{3}")]).text("KD１２３ kd123") == "[own] kd123"
    assert redaction([own(r"(?i)kd-\d{3}")]).text("Kd–123") == "[own]"
    assert redaction([own(r"\w{3}\s\S{2}")]).text("größe àb") == "gr[own]"
    assert redaction([own("😀.")]).text("\ud83d\ude00x") == "[own]"
    assert redaction([own("(?m)^x{2}$")]).text("axx\nxx\nxxa") == "axx\n[own]\nxxa"


def test_a_rule_that_would_change_what_stands_instead_is_named() -> None:
    def named(*rules: Rule) -> list[tuple[str, str]]:
        return [(first.name, second.name) for first, second in conflicts(rules)]

    assert named(*(Rule(name, name, None, HASH) for name in KINDS)) == []
    assert named(Rule("email", "email"), own("mail", "post")) == [("email", "post")]
    assert named(own("a", "a", "aa")) == [("a", "a"), ("a", "a")]
    assert named(own("(?s).{1,300}", "all", "[all]")) == []


@pytest.mark.parametrize("text", ["1" * 1_000_000, "4" * 1_000_000, "a" * 1_000_000, "a.b-" * 250_000, "é–" * 500_000])
def test_no_text_takes_more_than_its_length(text: str) -> None:
    assert ALL.text(text) == text


def test_the_redactor_applies_the_rules_of_a_place_and_counts() -> None:
    redactor = Redactor([Rule("email", "email", None, None, ("logs",))], b"key")
    more = (own(r"KD\d{3}", "customer"),)
    text = "ada@example.com KD123"
    assert [redactor.at(place).text(text) for place in PLACES] == ["[email] KD123", text, text]
    assert [redactor.at(place, more).text(text) for place in PLACES] == [
        "[email] [customer]",
        "ada@example.com [customer]",
        "ada@example.com [customer]",
    ]
    assert redactor.counts == {("logs", "email"): 2, **{(place, "customer"): 1 for place in PLACES}}
    assert not redactor.at("prompts")
    assert redactor.at("events").stream() is None


def test_rules_beyond_a_number_are_counted_together() -> None:
    redactor = Redactor()
    for number in range(MOST_COUNTED + 5):
        redactor.at("logs", (own("a", f"r{number}"),)).text("a a")
    assert len(redactor.counts) == MOST_COUNTED + 1
    assert (redactor.counts["logs", "r0"], redactor.counts["logs", OTHERS]) == (2, 10)


_PIECES = [
    *(kind.example for kind in KINDS.values()),
    *(kind.example[: len(kind.example) // 2] for kind in KINDS.values()),
    *"@ .-1٤é😀\n+an",
    *("4111", "::", "word ", "\ud83d\ude00", "\ud83d", "\ude00"),
    *("\\", "\\n", "\\u00e4", "u00", "e4", "\\\\", '\\"', "\\u0040", "\\ud83d", "\\ude00", "４0"),
]
_CUTS = st.lists(st.integers(0, 120), max_size=12)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([one for one in _PIECES if not set(one) & set('\\"\n\ud83d\ude00')])), st.randoms())
def test_what_is_escaped_is_redacted_as_what_is_not(pieces: list[str], random: Random) -> None:
    text = "".join(pieces)
    escaped = "".join(json.dumps(one)[1:-1] if one > "~" else rf"\u{ord(one):04x}" for one in text)
    mixed = "".join(one if random.random() < 0.5 else json.loads(f'"{one}"') for one in _ESCAPES.findall(escaped))
    assert json.loads(ALL.text(f'"{mixed}"')) == ALL.text(text)


_ESCAPES = re.compile(r"\\ud83d\\ude00|\\u....")


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(_PIECES), max_size=8).map("".join), _CUTS)
def test_a_text_in_pieces_gives_what_the_whole_gives(text: str, cuts: list[int]) -> None:
    # Nothing is taken back: all that was told at any time is a beginning of this.
    assert "".join(streamed(ALL, text, cuts)) == ALL.text(text)


_ATOMS = st.sampled_from(["a", "b", "c", "[ab]", "[^a]", ".", r"\d", r"\b", "^", "$", r"\s"])
_PATTERNS = st.recursive(
    _ATOMS,
    lambda inner: st.one_of(
        st.lists(inner, min_size=2, max_size=3).map("".join),
        st.tuples(inner, inner).map(lambda pair: f"(?:{pair[0]}|{pair[1]})"),
        st.tuples(inner, st.sampled_from(["?", "{1,3}", "{0,2}", "{2}", "{1,2}?", "??"])).map(
            lambda pair: f"(?:{pair[0]}){pair[1]}"
        ),
    ),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(st.lists(_PATTERNS, min_size=1, max_size=3), st.text("abc1 \n\\u", max_size=30), _CUTS)
def test_any_patterns_in_any_pieces(patterns: list[str], text: str, cuts: list[int]) -> None:
    rules = []
    for pattern in patterns:
        try:
            Pattern.parse(pattern)
        except PatternFault:
            continue
        rules.append(own(pattern, f"r{len(rules)}", f"<{len(rules)}>"))
    if not rules:
        return
    done = redaction(rules)
    assert "".join(streamed(done, text, cuts)) == done.text(text)
    with patch.object(scan, "_LARGEST_PROGRAM", 1):
        assert redaction(rules).text(text) == done.text(text)
    if not {"\n", "\\"} & set(text):
        # Python's own engine is the reference.
        every = "|".join(f"({rule.pattern})" for rule in rules)
        assert done.text(text) == re.sub(every, lambda match: f"<{(match.lastindex or 0) - 1}>", text)
