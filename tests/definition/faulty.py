"""Faulty workflow files for tests: `«` stands in the text right before each place where a fault is expected."""

from __future__ import annotations

import pytest

from circuit.definition import load_workflow
from circuit.errors import DefinitionError, Fault

MARK = "«"


def faults_of(text: str) -> tuple[Fault, ...]:
    """The faults of a file that has some."""
    with pytest.raises(DefinitionError) as caught:
        load_workflow(text, "file.yaml")
    return caught.value.faults


def expect(marked: str, *messages: str) -> tuple[Fault, ...]:
    """Check that the file has exactly one fault at each mark, with these messages (parts of them) in this order."""
    positions: list[tuple[int, int]] = []
    lines: list[str] = []
    for number, line in enumerate(marked.split("\n"), 1):
        while MARK in line:
            positions.append((number, line.index(MARK) + 1))
            line = line.replace(MARK, "", 1)
        lines.append(line)
    faults = faults_of("\n".join(lines))
    report = "\n".join(map(str, faults))
    assert [(fault.line, fault.column) for fault in faults] == positions, report
    assert len(faults) == len(messages), report
    for fault, message in zip(faults, messages, strict=True):
        assert message in f"{fault.path}: {fault.message} ({fault.hint})", report
    return faults


def workflow(
    *, places: str = "", agents: str = "", transitions: str = "", agent: str = "", step: str = "", top: str = ""
) -> str:
    """A small workflow file that is valid, with lines put in: more places, agents, transitions, keys of its agent,
    keys of its transition `go`, keys at the top."""
    return f"""workflow: small
{top}
places:
  start: {{initial: true}}
  end: {{terminal: true}}
{_indented(places, 2)}
agents:
  helper:
    llm_provider: {{type: scripted}}
{_indented(agent, 4)}
{_indented(agents, 2)}
transitions:
  go:
    from_places: [start]
    to_place: end
{_indented(step, 4)}
{_indented(transitions, 2)}
"""


def _indented(text: str, by: int) -> str:
    return "\n".join(" " * by + line if line.strip() else "" for line in text.strip("\n").split("\n"))
