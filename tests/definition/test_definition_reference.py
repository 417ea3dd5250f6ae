"""The reference page of the workflow file: it names every key, and its examples load."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from circuit.definition import load_workflow
from circuit.definition.schema import parts

PAGE = Path(__file__).parent.parent.parent / "docs" / "reference" / "workflow-file.md"
TEXT = PAGE.read_text()
BLOCKS: list[str] = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
EXAMPLES = [block for block in BLOCKS if "workflow:" in block]
FRAGMENTS = {block.split()[1]: block for block in BLOCKS if block.startswith("#") and "fragment:" in block}


def keys() -> set[str]:
    return {info.alias or name for model in parts() for name, info in model.model_fields.items()}


def test_every_key_of_the_format_is_named() -> None:
    assert len(keys()) > 80
    prose = re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL)
    words = set(re.findall(r"[A-Za-z_]+", " ".join(re.findall(r"`([^`]+)`", prose))))
    assert keys() - words - {"options"} == set()


@pytest.mark.parametrize("index", range(len(EXAMPLES)))
def test_its_examples_load(index: int) -> None:
    assert load_workflow(EXAMPLES[index], PAGE.name, read=FRAGMENTS.__getitem__).id


def test_the_short_and_the_long_form_are_one_version() -> None:
    short, long = EXAMPLES[:2]
    assert load_workflow(short).hash == load_workflow(long).hash
