"""From the text of a workflow file to a workflow, or to all that is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from circuit.definition.adoption import Catalogue, adopt
from circuit.definition.canonical import canonical
from circuit.definition.compiler import compile_document
from circuit.definition.document import ALIASES, Document
from circuit.definition.inclusion import Reader, assemble
from circuit.definition.lint import lint
from circuit.definition.lint_agent import ApiCheck, ModelCheck
from circuit.definition.validation import Report, validate
from circuit.definition.workflow import Workflow
from circuit.errors import DefinitionError, Fault
from circuit.security.rules import Rule


@dataclass(frozen=True, slots=True)
class Loaded:
    """A file with no fault in it. `where` gives line and column of a path of the canonical document."""

    document: Document
    plain: dict[str, Any]
    where: Callable[[Sequence[str | int]], tuple[int, int]]


def load(
    text: str,
    source: str = "workflow",
    models: ModelCheck | None = None,
    agents: Catalogue | None = None,
    read: Reader | None = None,
    rules: Sequence[Rule] = (),
    apis: ApiCheck | None = None,
) -> Loaded:
    """The document in a YAML text, checked as a whole. `source` names the file in faults, `models` knows models,
    `agents` are published ones, from which come those that the file names and does not define; `read` reads what it
    includes; `rules` of redaction are those of the deployment; `apis` looks at OpenAPI documents.

    Raises `DefinitionError` with every fault.
    """
    tree, assembly = assemble(text, source, ALIASES, read)
    report = Report(tree, source, assembly.faults)
    document = validate(report)
    plain: dict[str, Any] = {}
    if document is not None:
        plain = canonical(document)
        adopt(plain, agents or {})
        lint(report, plain, models, rules, apis)
    if report.faults or assembly.elsewhere or document is None:
        if not report.faults and not assembly.elsewhere:
            report.add((), "this is not a workflow", "see docs/reference/workflow-file.md")
        found = [*map(assembly.located, report.faults), *assembly.elsewhere]
        order = {name: number for number, name in reversed(list(enumerate(assembly.sources)))}
        found.sort(key=lambda fault: (order.get(fault.source, 0), fault.line, fault.column, fault.message))
        raise DefinitionError(list(dict.fromkeys(found)))
    return Loaded(document, plain, tree.where)


def load_workflow(
    text: str,
    source: str = "workflow",
    models: ModelCheck | None = None,
    agents: Catalogue | None = None,
    read: Reader | None = None,
    rules: Sequence[Rule] = (),
    apis: ApiCheck | None = None,
) -> Workflow:
    """The workflow that a YAML text describes, ready to run. `source` names the file in faults; `models` says what of
    an agent's settings its model does not take, and nothing is checked of that without it; `agents` are published ones,
    from which come those that the file names and does not define; `read` reads what it includes; `rules` of redaction
    are those of the deployment, beside which its own count; `apis` looks at the OpenAPI documents of agents.

    Raises `DefinitionError` with every fault of the text: of YAML, of the format, and of names and expressions.
    """
    loaded = load(text, source, models, agents, read, rules, apis)
    try:
        return compile_document(loaded.plain)
    except (ValueError, RecursionError) as error:
        # The checks should have found it; if they did not, the author still gets an answer.
        message = f"the workflow cannot be compiled: {error}"
        raise DefinitionError([Fault(source, 1, 1, "", message)]) from error
