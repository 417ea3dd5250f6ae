"""Control tokens: how templates of chats mark who speaks, where a turn ends, and what a tool is called with.

A tokenizer may take them for what they look like wherever they stand. A space behind the first character leaves them
readable, and a tokenizer does not know them any more.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from circuit.security.pattern import matcher
from circuit.security.screening.found import TOKENS, Found

_LEFT, _RIGHT, _BAR = "[<\uff1c]", "[>\uff1e]", "[|\uff5c]"
_NAMES = (
    "start_of_turn", "end_of_turn", "start_of_image", "end_of_image", "bos", "eos", "tool_call", "tool_response",
    "tool_calls", "tool_outputs", "function_calls", "function_results", "think", "seed:bos", "seed:eos",
)  # fmt: skip
_BRACKETS = (
    "INST", "AVAILABLE_TOOLS", "TOOL_CALLS", "TOOL_RESULTS", "TOOL_CONTENT", "SYSTEM_PROMPT", "ARGS", "CALL_ID",
)  # fmt: skip
_PATTERNS = (
    # <|im_start|> and all of its kind, with the wide bars of some models.
    rf"{_LEFT}{_BAR}[ ]?/?[\pL_][\pL\pN_.:\x{{2581}}-]{{0,60}}[ ]?{_BAR}{_RIGHT}",
    rf"{_LEFT}/?(?:{'|'.join(_NAMES)}){_RIGHT}",
    rf"{_LEFT}/?s{_RIGHT}",
    rf"{_LEFT}invoke name=",
    rf"{_LEFT}function=[A-Za-z_][\w.-]{{0,60}}{_RIGHT}",
    r"<</?SYS>>",
    rf"\[/?(?:{'|'.join(_BRACKETS)})\]",
    r"(?:\A|\n)#{2,3}[ ](?:Instruction|System|Response|Human|Assistant|User):",
    r"\n\n(?:Human|Assistant|System):",
    r"<<\|?/?data-[a-z]",
)
_BEGIN, _END = "<s>", "</s>"
_FIRST = ("[INST]", " [INST]", "<<SYS>>", " <<SYS>>")


@cache
def _tokens() -> Any:
    return matcher("|".join(f"(?:{pattern})" for pattern in _PATTERNS))


def tokens(text: str) -> list[Found]:
    """The control tokens in `text`."""
    if not any(one in text for one in "<[#\uff1c:"):
        return []
    content = text.encode("utf-8", "replace")
    found: list[Found] = []
    struck = at = place = 0
    for match in _tokens().finditer(content):
        begin, end = match.span()
        place += len(content[at:begin].decode())
        at = begin
        words = content[begin:end].decode()
        blank = len(words) - len(words.lstrip("\n"))
        one = Found(TOKENS, place + blank, place + len(words), words[blank:])
        if one.words == _BEGIN and not _begins(text, one, found):
            # Text that is struck out in HTML begins so, and with its end it is no token.
            struck += 1
        elif one.words == _END and struck:
            struck -= 1
        else:
            found.append(one)
    return found


def _begins(text: str, one: Found, found: list[Found]) -> bool:
    """Whether a conversation begins here: behind the end of another one, or before what its first turn begins with."""
    behind = bool(found) and found[-1].words == _END and not text[found[-1].end : one.start].strip()
    return behind or text.startswith(_FIRST, one.end)


def broken(text: str, found: list[Found]) -> str:
    """`text` with a space in each of the tokens."""
    pieces, at = list[str](), 0
    for one in found:
        # `Human :` reads better than `H uman:`.
        cut = one.end - 1 if one.words[0].isalpha() else one.start + 1
        pieces += (text[at:cut], " ")
        at = cut
    return "".join((*pieces, text[at:]))
