"""What the documentation says is tried: links lead somewhere, code runs, the map is that of the tree."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from circuit.definition import load_workflow
from tests.docs.file_map import PAGE, written
from tests.postgres import free_port

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 300
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
README = (ROOT / "README.md").read_text()


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(language: str, text: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{name(page)} links to {target}"


def test_the_map_is_that_of_the_tree() -> None:
    assert PAGE.read_text() == written(PAGE.read_text()), "python -m tests.docs.file_map writes it anew"


def test_the_readme_shows_a_workflow_that_loads() -> None:
    [text] = blocks("yaml", README)
    assert len(text.splitlines()) <= 25
    assert load_workflow(text, "README.md").id == "triage"


def test_the_readme_shows_python_that_runs(home: Path) -> None:
    [code] = blocks("python", README)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "CIRCUIT_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "completed {'said': 1}"


def test_the_readme_shows_a_way_from_nothing_to_a_subscription(tmp_path: Path, database_url: str) -> None:
    [script] = blocks("sh", README)
    port = free_port()
    script = script.replace("localhost:4000", f"localhost:{port}")
    script = script.replace("circuit serve", f"circuit serve --port {port}").replace("--retry 30", "--retry 300")
    script = script.replace(".venv/bin/", f"{Path(sys.executable).parent}/")
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", f"trap 'kill %1; wait' EXIT\n{script}"],
        cwd=ROOT,
        env={**os.environ, "CIRCUIT_HOME": str(tmp_path), "CIRCUIT_DATABASE_URL": database_url},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    events = [json.loads(line.removeprefix("data: ")) for line in done.stdout.splitlines() if line.startswith("data: ")]
    assert events[-1]["eventType"] == "completed"
    told = [ast.literal_eval(line) for line in done.stdout.splitlines() if line.startswith("{'cursor'")]
    assert [one["cursor"] for one in told] == [one["cursor"] for one in events]
    assert [one["content"] for one in told] == [one.get("content") for one in events]


def test_the_readme_names_commands_that_exist() -> None:
    named = set(re.findall(r"circuit ([a-z]+)", "\n".join(blocks("console", README))))
    done = subprocess.run(
        [sys.executable, "-m", "circuit", "--help"], capture_output=True, text=True, timeout=SECONDS, check=True
    )
    for command in named:
        assert re.search(rf"\b{command}\b", done.stdout), f"the README names `circuit {command}`"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_paths_that_are_named_exist(page: Path) -> None:
    if page.name == "CHANGELOG.md":
        return
    named = r"`((?:circuit|docs|tests|workflows|benchmarks|migrations)/[\w./-]+\.\w+)`"
    for path in re.findall(named, page.read_text()):
        assert (ROOT / path).exists(), f"{name(page)} names {path}"
