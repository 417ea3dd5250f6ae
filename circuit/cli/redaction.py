"""`circuit redact`: what rules of redaction take out of a text, tried before they are relied on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from circuit.cli.subjects import JsonOption
from circuit.cli.terminal import Terminal, clean
from circuit.cli.token import WORKFLOW_LIMIT, read_text
from circuit.errors import InvalidRequest
from circuit.settings import Settings

if TYPE_CHECKING:
    from circuit.security.rules import Rule

TEXT_LIMIT = 64 * 1024 * 1024


def redact(
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="A file with text; - is standard input.")
    ] = None,
    text: Annotated[str | None, typer.Option("--text", metavar="TEXT", help="A text, in the place of a file.")] = None,
    rules: Annotated[
        Path | None, typer.Option("--rules", metavar="FILE", help="The rules of this file, or of this workflow file.")
    ] = None,
    kinds: Annotated[
        list[str] | None, typer.Option("--kind", metavar="KIND", help="A known kind; may be repeated.")
    ] = None,
    where: Annotated[
        str | None, typer.Option("--where", metavar="PLACE", help="Only rules for logs, events or prompts.")
    ] = None,
    known: Annotated[bool, typer.Option("--list", help="List the known kinds, and redact nothing.")] = False,
    as_json: JsonOption = False,
) -> int:
    """Show what rules of redaction take out of a text. Which rule, where, and what stands there instead.

    The rules are those of --rules (a file as CIRCUIT_REDACTION takes, or a workflow file, with its agents) and --kind,
    or else those of the deployment. Needs no database. The text goes to standard output, redacted; what was found is
    listed on standard error.

    \b
    Examples:
      circuit redact --kind email --text 'write to ada@example.com'
      circuit redact answers.txt --rules redaction.yaml --where events --json
    """
    terminal = Terminal(json=as_json)
    if known:
        return _list(terminal, as_json)
    if (file is None) == (text is None):
        raise InvalidRequest("Give a FILE with text (- is standard input), or --text TEXT.")
    content = read_text(file, TEXT_LIMIT, "the text") if file is not None else text or ""
    return _show(terminal, content, _chosen(rules, kinds or (), where), as_json)


def _chosen(file: Path | None, kinds: Sequence[str], where: str | None) -> list[Rule]:
    from circuit.security.kinds import KINDS
    from circuit.security.rules import PLACES, Rule

    if where is not None and where not in PLACES:
        raise InvalidRequest(f"--where {where!r} is none of {', '.join(PLACES)}.")
    for name in kinds:
        if name not in KINDS:
            raise InvalidRequest(f"--kind {name!r} is none of {', '.join(KINDS)}.")
    chosen = list(_of_file(file)) if file else []
    chosen += [Rule(name, name) for name in kinds]
    if file is None and not kinds:
        chosen = list(Settings.from_environment().redactor.rules)
        if not chosen:
            raise InvalidRequest("There are no rules: give --rules FILE or --kind KIND, or set CIRCUIT_REDACTION.")
    return [rule for rule in chosen if where is None or where in rule.places]


def _of_file(file: Path) -> Sequence[Rule]:
    from circuit.definition import load
    from circuit.definition.loader import parse
    from circuit.definition.redaction_file import read_rules
    from circuit.fragments import beside
    from circuit.security.rules import rules_of

    text, name = read_text(file, WORKFLOW_LIMIT, "the file with rules"), str(file)
    if "workflow" not in parse(text, name, {})[0].root.value:
        return read_rules(text, name)
    plain = load(text, name, read=beside(file)).plain
    parts = (plain, *(plain.get("agents") or {}).values())
    return tuple(dict.fromkeys(rule for part in parts for rule in rules_of(part.get("redaction") or ())))


def _show(terminal: Terminal, text: str, rules: Sequence[Rule], as_json: bool) -> int:
    from circuit.security.redactor import redaction

    done = redaction(rules, Settings.from_environment().redactor.key)
    said, at, line = list[str](), 0, 1
    found: list[dict[str, object]] = []
    for finding in done.find(text):
        said += (text[at : finding.start], finding.instead)
        line += text.count("\n", at, finding.start)
        place = {"line": line, "column": finding.start - text.rfind("\n", 0, finding.start)}
        span = {"start": finding.start, "end": finding.end, "instead": finding.instead}
        found.append({"rule": finding.rule.name, **place, **span})
        line += text.count("\n", finding.start, finding.end)
        at = finding.end
    redacted = "".join((*said, text[at:]))
    if as_json:
        counts = Counter(str(one["rule"]) for one in found)
        terminal.result({"text": redacted, "found": found, "counts": counts, "longest": done.longest})
        return 0
    for one in found:
        terminal.note(clean(f"{one['rule']}: line {one['line']}, column {one['column']}: {one['instead']}"))
    terminal.line(clean(redacted))
    return 0


def _list(terminal: Terminal, as_json: bool) -> int:
    from circuit.security.kinds import KINDS

    if as_json:
        terminal.result(
            [
                {"kind": kind.name, "what": kind.what, "example": kind.example, "longest": kind.longest}
                for kind in KINDS.values()
            ]
        )
    else:
        rows = [(kind.name, kind.what, str(kind.longest)) for kind in KINDS.values()]
        terminal.table(("kind", "what", "longest"), rows, whole="")
    return 0
