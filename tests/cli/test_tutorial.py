"""The tutorial, done: its files are written, its commands are run in its order, and end as it says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.cli.commanding import Command

TUTORIAL = Path(__file__).resolve().parents[2] / "docs" / "tutorial.md"
BLOCK = re.compile(r"^```(yaml|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_tutorial(circuit: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    case = ""
    commands = 0
    for kind, text in BLOCK.findall(TUTORIAL.read_text()):
        if kind == "yaml":
            name = re.match(r"# (\S+\.yaml)\n", text)
            assert name, "a file of the tutorial does not begin with its name"
            (tmp_path / name.group(1)).write_text(text)
            continue
        for line in text.splitlines():
            command, _, note = line.removeprefix("$ ").partition("  # exit code ")
            program, *arguments = shlex.split(command.replace("$CASE", case))
            assert program == "circuit"
            outcome = circuit(*arguments)
            assert outcome.code == int(note or 0), (line, outcome)
            found = re.search(r"^case ([0-9a-f-]{36}) of", outcome.out, re.MULTILINE)
            case = found.group(1) if found else case
            commands += 1
            if "judged.yaml" in line:
                assert "1 token in urgent" in outcome.out
            if "comma" in line:
                assert "1 token in later" in outcome.out
            if "broken.yaml" in line:
                assert "2 faults" in outcome.err
    assert commands > 10
