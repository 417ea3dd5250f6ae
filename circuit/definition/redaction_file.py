"""The file with the rules of redaction of a deployment."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from circuit.definition.field import Part
from circuit.definition.lint_redaction import lint_rules
from circuit.definition.loader import parse
from circuit.definition.redaction_document import Rules, rules_json
from circuit.definition.validation import Report, fitted
from circuit.errors import DefinitionError
from circuit.security.rules import Rule, rules_of


class RedactionFile(Part):
    """The rules of a deployment."""

    redaction: Annotated[Rules, Field(description="What is taken out of logs, events and prompts.")]


def read_rules(text: str, source: str) -> tuple[Rule, ...]:
    """The rules in the text of such a file. Raises `DefinitionError` with every fault."""
    tree, faults = parse(text, source, {})
    report = Report(tree, source, faults)
    document = fitted(report, RedactionFile)
    plain = [] if document is None else rules_json(document.redaction)
    if not report.faults:
        lint_rules(report, ("redaction",), plain)
    if report.faults or document is None:
        raise DefinitionError(report.faults)
    return rules_of(plain)
