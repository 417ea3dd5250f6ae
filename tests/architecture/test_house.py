"""The rules of the house that no linter knows: sizes, names, where the environment is read, the error tree."""

from __future__ import annotations

import ast
import inspect
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from circuit import errors

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "circuit").rglob("*.py"))
LONGEST_FILE = 500
BANNED = {"utils", "util", "helpers", "helper", "common", "misc", "base", "manager", "handler"}
READERS_OF_THE_ENVIRONMENT = {"circuit/settings.py"}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def calls(path: Path) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield node


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_a_file_can_be_read_in_one_sitting(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LONGEST_FILE


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_a_file_is_named_by_what_it_holds(path: Path) -> None:
    assert path.stem not in BANNED
    assert path.parent.name not in BANNED


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_nothing_is_evaluated(path: Path) -> None:
    for call in calls(path):
        if isinstance(call.func, ast.Name):
            assert call.func.id not in {"eval", "exec", "__import__"}, f"{relative(path)}:{call.lineno}"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_the_environment_is_read_in_the_settings_only(path: Path) -> None:
    if relative(path) in READERS_OF_THE_ENVIRONMENT:
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
            assert node.attr not in {"environ", "getenv", "environb"}, f"{relative(path)}:{node.lineno}"


def leaves() -> list[type[errors.CircuitError]]:
    classes = [
        value for _, value in inspect.getmembers(errors, inspect.isclass) if issubclass(value, errors.CircuitError)
    ]
    return [cls for cls in classes if not cls.__subclasses__()]


def test_the_error_tree_is_drawn_completely() -> None:
    drawn = errors.__doc__ or ""
    for cls in leaves():
        line = re.search(rf"{cls.__name__}\b.*", drawn)
        assert line, f"{cls.__name__} is missing from the tree at the head of circuit/errors/__init__.py"
        assert cls.code in line.group(), f"{cls.__name__} is drawn without its code {cls.code}"
        assert ("(retryable)" in line.group()) == cls.retryable, f"{cls.__name__}: is it retryable?"


def test_every_error_says_its_code() -> None:
    for cls in leaves():
        assert "code" in vars(cls), f"{cls.__name__} has no code of its own"


def test_errors_live_in_one_tree() -> None:
    """No other module of Circuit derives an exception straight from Exception."""
    # A wait (`Suspended`) is raised and is no error.
    allowed = {"circuit/errors/root.py", "circuit/engine/action.py"}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and relative(path) not in allowed:
                names = {name.id for name in node.bases if isinstance(name, ast.Name)}
                assert not names & {"Exception", "BaseException", "RuntimeError"}, f"{relative(path)}:{node.lineno}"


def test_each_migration_has_a_number_of_its_own() -> None:
    """Two that were written side by side must not land under one: the databases of half of us would lack the other."""
    found = [
        re.findall(r'^revision = "(\d+)"', path.read_text(), re.MULTILINE)
        for path in (ROOT / "migrations" / "versions").glob("*.py")
    ]
    numbers = [number for numbers in found for number in numbers]
    assert len(numbers) == len(found) == len(set(numbers)), f"{sorted(numbers)} for {len(found)} migrations"


def test_each_file_of_tests_has_a_name_of_its_own() -> None:
    counts = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py") if "node_modules" not in path.parts)
    assert [name for name, count in counts.items() if count > 1] == [], "pytest collects one of each name"
