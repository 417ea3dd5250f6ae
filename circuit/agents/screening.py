"""Screening: all that an agent is told and its author did not write is looked through before a model reads it.

That is what tokens hold (mapped inputs, metadata), messages from outside of any workflow, results of tools, and how
servers describe their tools. What is found is made harmless and told, or refuses the execution, as the agent, its
workflow or the deployment says. What was decided is journalled: a run that starts again, perhaps in another release,
decides the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import field, replace
from typing import Any, cast

import orjson

from circuit.agents.ports import Journal
from circuit.agents.tools import Tool
from circuit.errors import ControlTokens, InjectedInstructions, InputRefused, InvisibleCharacters
from circuit.events import StreamDelta
from circuit.providers.messages import Message, Part, Role, TextPart, ToolCallPart, ToolResultPart
from circuit.security.redaction import excerpt
from circuit.security.redactor import NOTHING, Redaction
from circuit.security.screening.found import INSTRUCTIONS, INVISIBLE, TOKENS, Screening
from circuit.security.screening.invisible import invisible
from circuit.security.screening.screen import screen, suspicious
from circuit.value import dataclass

STEP = "screened:"
"""Begins the journal's name for what was decided."""
MOST_TOLD = 20
"""How many places are told at once."""
_WORDS = 80
_PATH = 100
_DEEPEST = 200
_SIFTED = 6
"""To this depth parts of a value are looked through as a whole first."""
_SECRET_MARGIN = 4_000
_ERRORS: Mapping[str, type[InputRefused]] = {
    INVISIBLE: InvisibleCharacters,
    INSTRUCTIONS: InjectedInstructions,
    TOKENS: ControlTokens,
}

Count = Callable[[str, str, int], None]


def _not_counted(kind: str, action: str, times: int) -> None:
    """Nobody wants to know how often what was found."""


@dataclass(frozen=True, slots=True)
class Watch:
    """How one agent is screened: what is done about each kind, by which rules of redaction that is told, and who
    counts."""

    screening: Screening = field(default_factory=Screening)
    redaction: Redaction = NOTHING
    count: Count = _not_counted

    def look(self, source: str, name: str, kinds: Collection[str] | None = None) -> Look:
        """A look at what comes from one source."""
        return Look(self, source, name, self.screening.sees if kinds is None else self.screening.sees & set(kinds))


class Look:
    """What is found in one value from outside."""

    def __init__(self, watch: Watch, source: str, name: str, kinds: Collection[str]) -> None:
        self._watch = watch
        self._about = {"source": source, "name": name}
        self._kinds = kinds
        self.found: list[dict[str, Any]] = []

    def value(self, value: Any) -> Any:
        """`value` (JSON), as a model may read it."""
        return self._value(value, "", 0) if self._kinds else value

    def text(self, text: str, path: str = "") -> str:
        """`text` as a model may read it."""
        screened = screen(text, self._kinds)
        for one in screened.found:
            place = {"path": self._shown(path, _PATH), "offset": one.start, "count": one.count}
            way = {"way": one.way} if one.way else {}
            self.found.append(
                {"kind": one.kind, **self._about, **place, "words": self._shown(one.words, _WORDS), **way}
            )
        return screened.text

    def _shown(self, text: str, most: int) -> str:
        # Redacted before it is cut: half of what a rule takes out is nothing that it knows.
        return excerpt(self._watch.redaction.text(text[:_SECRET_MARGIN]), most)

    def _value(self, value: Any, path: str, depth: int) -> Any:
        if isinstance(value, str):
            return self.text(value, path)
        if depth >= _DEEPEST:
            return self.text(orjson.dumps(value).decode(), path) if isinstance(value, dict | list) else value
        if depth < _SIFTED and isinstance(value, list | dict) and not _suspicious(value):
            # Of many small texts in which nothing is each need not be looked through.
            return value
        if isinstance(value, list):
            items = cast("list[Any]", value)
            return [self._value(item, f"{path}[{number}]", depth + 1) for number, item in enumerate(items)]
        if isinstance(value, dict):
            made: dict[str, Any] = {}
            same = Counter[str]()
            for key, item in cast("dict[str, Any]", value).items():
                seen = invisible(key)[1]
                inner = f"{path}.{seen}" if path else seen
                told = said = self.text(key, inner)
                while said in made:
                    # Counted on from the last one: whoever makes names up could have many that come to be the same.
                    same[told] += 1
                    said = f"{told}'{same[told]}"
                made[said] = self._value(item, inner, depth + 1)
            return made
        return value


def decision(watch: Watch, looks: Sequence[Look]) -> dict[str, Any] | None:
    """What is decided about what was found, as JSON for the journal; None where nothing was."""
    found = [one for look in looks for one in look.found]
    if not found:
        return None
    refused = watch.screening.refused({one["kind"]: 1 for one in found})
    for one in found:
        watch.count(one["kind"], watch.screening[one["kind"]], one["count"])
    # What refuses comes first, so that the list does not leave it out.
    found.sort(key=lambda one: one["kind"] != refused)
    return {"refused": refused, "found": found[:MOST_TOLD], "more": max(0, len(found) - MOST_TOLD)}


async def tell(journal: Journal, step: str, decided: Mapping[str, Any], agent_id: str) -> None:
    """Tell readers and the history what was decided. Raises `InputRefused` where it was to refuse."""
    refused: str | None = decided["refused"]
    found, more = decided["found"], decided["more"]
    journal.screened(
        step,
        dict(decided),
        {"agent_id": agent_id, "action": "refuse" if refused else "warn", "found": found, "more": more},
    )
    what = ", ".join(dict.fromkeys(str(one["kind"]).replace("_", " ") for one in found))
    where = ", ".join(dict.fromkeys(f"{one['source']} {one['name']}".strip() for one in found))
    done = "refused" if refused else "made harmless"
    status = excerpt(f"{what} in {where}: {done}", 200)
    await journal.emit(StreamDelta.thinking(status, found=found))
    if refused:
        first = found[0]
        place = f" at {first['path']}" if first["path"] else ""
        said = f"{first['source']} {first['name']}".strip()
        raise _ERRORS[refused](
            f"{said} holds {refused.replace('_', ' ')}{place}, from character {first['offset']} on "
            f"({first['words']!r}): the screening of {agent_id} refuses it"
        )


async def settled(watch: Watch, journal: Journal, step: str, looks: Sequence[Look], agent_id: str) -> None:
    """Decide about what was found before the first answer of a run, or find what was decided, and tell it.

    A run that has an answer already was let go on: nothing is decided anew. Raises `InputRefused`.
    """
    decided = journal.recorded(STEP + step)
    if decided is None and journal.recorded("answer:0") is None:
        decided = decision(watch, looks)
    if decided is not None:
        await tell(journal, STEP + step, decided, agent_id)


def told_inputs(
    watch: Watch, inputs: Mapping[str, Any], tokens: Sequence[Mapping[str, Any]], images: Collection[str] = ()
) -> tuple[dict[str, Any], tuple[dict[str, Any], ...], list[Look]]:
    """Mapped inputs and the metadata of tokens, as a model may read them; images are as they are."""
    looks: list[Look] = []

    def seen(source: str, name: str, value: Any) -> Any:
        looks.append(watch.look(source, name))
        return looks[-1].value(value)

    said = {name: value if name in images else seen("input", name, value) for name, value in inputs.items()}
    about = tuple({**token, "metadata": seen("metadata", str(token["id"]), token["metadata"])} for token in tokens)
    return said, about, looks


def told_messages(watch: Watch, messages: Sequence[Message]) -> tuple[tuple[Message, ...], list[Look]]:
    """Messages from outside, as a model may read them. What stands in the place of the system instructs by right; a
    user's message does too, and is looked through: it may hold what somebody else wrote."""
    looks: list[Look] = []
    told: list[Message] = []
    for number, message in enumerate(messages):
        kinds = (INVISIBLE, TOKENS) if message.role is Role.SYSTEM else None
        look = watch.look("message", str(number), kinds)
        arguments = watch.look("message", str(number), (INVISIBLE, TOKENS))
        told.append(Message(message.role, tuple(_part(part, look, arguments) for part in message.parts)))
        looks += (look, arguments)
    return tuple(told), looks


def told_tools(watch: Watch, tools: Mapping[str, Tool]) -> tuple[dict[str, Tool], list[Look]]:
    """Tools, those that servers describe as a model may read them."""
    looks: list[Look] = []
    told: dict[str, Tool] = {}
    for name, tool in tools.items():
        if tool.pin:
            look = watch.look("description", name)
            looks.append(look)
            spec = replace(
                tool.spec,
                description=look.text(tool.spec.description),
                parameters=_described(look, tool.spec.parameters, ""),
            )
            tool = replace(tool, spec=spec)
        told[name] = tool
    return told, looks


def _part(part: Part, look: Look, arguments: Look) -> Part:
    if isinstance(part, TextPart):
        return TextPart(look.text(part.text), part.state)
    if isinstance(part, ToolResultPart):
        return ToolResultPart(part.call_id, part.name, look.text(part.content), part.failed)
    if isinstance(part, ToolCallPart):
        return ToolCallPart(part.id, part.name, arguments.text(part.arguments), part.state)
    return part


def _described(look: Look, schema: Any, path: str) -> Any:
    """A schema whose descriptions were looked through. What it means stays as it is; a name or a value in it that holds
    something is told."""
    if isinstance(schema, dict):
        made: dict[str, Any] = {}
        for key, item in cast("dict[str, Any]", schema).items():
            inner = f"{path}.{key}" if path else key
            look.text(key, inner)
            words = key in ("description", "title") and isinstance(item, str)
            made[key] = look.text(item, inner) if words else _described(look, item, inner)
        return made
    if isinstance(schema, list):
        items = cast("list[Any]", schema)
        return [_described(look, item, f"{path}[{number}]") for number, item in enumerate(items)]
    if isinstance(schema, str):
        look.text(schema, path)
    return schema


def _suspicious(value: Any) -> bool:
    """Whether something may be in one of the texts of `value`."""
    texts = list[str]()
    _gather(value, texts, 0)
    return suspicious("\n\n".join(texts))


def _gather(value: Any, texts: list[str], depth: int) -> None:
    if isinstance(value, str):
        texts.append(value)
    elif depth >= _DEEPEST and isinstance(value, dict | list):
        texts.append(orjson.dumps(value).decode())
    elif isinstance(value, dict):
        for key, item in cast("dict[str, Any]", value).items():
            texts.append(key)
            _gather(item, texts, depth + 1)
    elif isinstance(value, list):
        for item in cast("list[Any]", value):
            _gather(item, texts, depth + 1)
