"""What rules of redaction know by name: addresses, numbers and keys whose forms are settled, with their checksums."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping

from circuit.value import dataclass

Check = Callable[[str, str, str], int]
"""How much of what a pattern matched counts, from its beginning: given it and the characters before and behind it.
Nothing where it is 0, nor where it is less: then nothing begins within so many characters either."""


@dataclass(frozen=True, slots=True)
class Kind:
    """`pattern` finds candidates, of at most `longest` characters, and `check` says which count. `dropped` are the
    characters without which two spellings of one value are the same."""

    name: str
    what: str
    example: str
    pattern: str
    longest: int
    check: Check | None = None
    dropped: str = ""


def _digit(character: str) -> bool:
    return "0" <= character <= "9"


def _joined(before: str, after: str) -> bool:
    return before.isalnum() and after.isalnum()


def _ends(text: str, after: str) -> list[int]:
    """Where a candidate may end, the farthest first: not between two letters or digits."""
    whole = text + after
    farthest = range(len(text), 0, -1)
    return [end for end in farthest if text[end - 1].isalnum() and not _joined(text[end - 1], whole[end : end + 1])]


def _card(text: str, before: str, after: str) -> int:
    if _digit(before):
        return -next((place for place, one in enumerate(text) if not _digit(one)), len(text))
    for end in _ends(text, after):
        digits = [int(one) for one in text[:end] if _digit(one)]
        if len(digits) < 13:
            return 0
        # Luhn: from the right, every other digit counts twice, as the sum of its own digits.
        doubled = sum(sum(divmod(2 * one, 10)) for one in digits[-2::-2])
        if len(digits) <= 19 and (sum(digits[::-2]) + doubled) % 10 == 0:
            return end
    return 0


def _iban(text: str, before: str, after: str) -> int:
    if before.isalnum():
        return 0
    for end in _ends(text, after):
        plain = text[:end].replace(" ", "").upper()
        if len(plain) < 15:
            return 0
        number = "".join(str(int(one, 36)) for one in plain[4:] + plain[:4])
        if len(plain) <= 34 and int(number) % 97 == 1:
            return end
    return 0


def _address(text: str, before: str, after: str) -> int:
    if before.isalnum() or before == ":":
        return 0
    ends = [end for end in range(len(text), 1, -1) if not _joined(text[end - 1], (text + after)[end : end + 1])]
    for end in ends:
        try:
            ipaddress.ip_address(text[:end])
        except ValueError:
            continue
        return end if re.search("[0-9a-fA-F]", text[:end]) else 0
    return 0


def _phone(text: str, before: str, after: str) -> int:
    if before.isalnum():
        return 0
    for end in _ends(text, after):
        if 8 <= sum(map(_digit, text[:end])) <= 15:
            return 0 if _DATE.fullmatch(text[:end]) else end
    return 0


def _social(text: str, before: str, after: str) -> int:
    area, group, serial = re.split("[ -]", text)
    wrong = area in ("000", "666") or area[0] == "9" or group == "00" or serial == "0000"
    return 0 if wrong or before.isalnum() or after.isalnum() else len(text)


def _apart(text: str, before: str, after: str) -> int:
    return 0 if before.isalnum() else len(text)


_DATE = re.compile(r"0?\d[./-]\d\d?[./-]\d{4}")
_WORD = "[A-Za-z0-9_-]"
_BEARER = r"[Bb][Ee][Aa][Rr][Ee][Rr][ \t]{1,4}"
_KEYS = (
    rf"(?:sk|rk|pk)[-_]{_WORD}{{16,200}}",
    r"(?:AKIA|ASIA)[A-Z0-9]{16}",
    r"gh[pousr]_[A-Za-z0-9]{36,255}",
    r"github_pat_\w{22,255}",
    rf"glpat-{_WORD}{{20,64}}",
    r"xox[a-z]-[A-Za-z0-9-]{10,250}",
    rf"AIza{_WORD}{{35}}",
    r"(?:npm|hf)_[A-Za-z0-9]{30,60}",
    rf"pypi-{_WORD}{{50,250}}",
    rf"SG\.{_WORD}{{16,32}}\.{_WORD}{{16,64}}",
    r"ck_[0-9A-Za-z_-]{20,100}",
)

_ALL = (
    Kind(
        "email",
        "addresses of electronic mail",
        "ada@example.com",
        r"\w[\w.%+'-]{0,63}@(?:[\w-]{1,63}\.){1,4}\w{2,24}",
        345,
    ),
    Kind(
        "phone",
        "telephone numbers: international with + or 00, or national with separators",
        "+49 30 901820",
        r"(?:\+?1[ .-]?)?(?:\([2-9]\d\d\) ?|[2-9]\d\d[ .-])[2-9]\d\d[ .-]?\d{4}"
        r"|(?:\+|00)[1-9](?:[ ()./-]{0,2}\d){7,14}"
        r"|\(?0\d{1,4}(?:\) ?|[ /.-])\d{2,8}(?:[ .-]\d{2,8}){0,3}",
        60,
        _phone,
        " ()./-",
    ),
    Kind(
        "payment_card",
        "numbers of payment cards, with a right last digit (Luhn)",
        "4111 1111 1111 1111",
        r"[2-6](?:[ -]?\d){12,18}",
        37,
        _card,
        " -",
    ),
    Kind(
        "iban",
        "international bank account numbers, with right check digits",
        "DE89 3704 0044 0532 0130 00",
        r"\b[A-Za-z]{2}\d{2}(?: ?[A-Za-z0-9]){11,30}",
        64,
        _iban,
        " ",
    ),
    Kind(
        "ip_address",
        "addresses of the Internet Protocol, version 4 and 6",
        "192.0.2.17",
        r"\d{1,3}(?:\.\d{1,3}){3}|(?:[0-9A-Fa-f]{0,4}:){2,7}(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9A-Fa-f]{0,4})",
        51,
        _address,
    ),
    Kind(
        "us_ssn",
        "social security numbers of the United States, with separators",
        "536-90-4399",
        r"\d{3}(?:-\d{2}-| \d{2} )\d{4}",
        11,
        _social,
        " -",
    ),
    Kind(
        "api_key",
        "keys whose form says whose they are: of OpenAI, Anthropic, Stripe, AWS, GitHub, GitLab, Slack, Google, npm, "
        "PyPI, Hugging Face, SendGrid, and Circuit's own",
        "sk-" + "a1B2c3D4" * 3,
        "|".join(_KEYS),
        266,
        _apart,
    ),
    Kind(
        "bearer",
        "bearer tokens, and JSON Web Tokens anywhere",
        "Bearer abcdef0123456789",
        rf"(?:{_BEARER})?eyJ{_WORD}{{5,1000}}\.eyJ{_WORD}{{5,1000}}{_WORD}{{0,1000}}\.{_WORD}{{0,1000}}"
        rf"|{_BEARER}[A-Za-z0-9._~+/-]{{8,1000}}={{0,2}}",
        4020,
        _apart,
    ),
)

KINDS: Mapping[str, Kind] = {kind.name: kind for kind in _ALL}
