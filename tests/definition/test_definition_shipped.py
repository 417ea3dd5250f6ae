"""The workflows that ship, played in memory with their scripted answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from circuit.definition import load_workflow
from circuit.definition.workflow import Workflow
from circuit.net.simulation import Simulation
from circuit.net.structure import Transition

REPOSITORY = Path(__file__).parent.parent.parent


def play(name: str, data: Mapping[str, Any], answers: Mapping[str, list[Any]] | None = None) -> Simulation:
    made = load_workflow((REPOSITORY / "workflows" / f"{name}.yaml").read_text(), name)
    runs: Counter[str] = Counter()

    def act(transition: Transition, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        agent = made.agents[made.actions[transition.name].config["agent_id"]]
        given = (answers or {}).get(agent.id) or _scripted(made, agent.id, inputs)
        answer = given[min(runs[agent.id], len(given) - 1)]
        runs[agent.id] += 1
        named = answer if isinstance(answer, dict) else {"text": answer}
        return {**named, "agent_id": agent.id, "timestamp": "2030-01-01T00:00:00Z"}

    simulation = Simulation(made.net, datetime(2030, 1, 1, tzinfo=UTC), act)
    place = made.net.initial_place
    assert place is not None
    assert place.colour is None or not place.colour.faults(data)
    simulation.put(place.name, data)
    simulation.run(100)
    assert simulation.quiet
    return simulation


def _scripted(made: Workflow, agent: str, inputs: Mapping[str, Any]) -> list[Any]:
    responses: list[Any] = list(made.agents[agent].provider.options["responses"])
    special = [item for item in responses if isinstance(item, dict) and "when" in item]
    fitting = [item["response"] for item in special if item["when"] in str(inputs)]
    return fitting or [item for item in responses if item not in special]


def route(simulation: Simulation) -> list[str]:
    assert all(step.error is None for step in simulation.steps), simulation.steps
    return [step.transition for step in simulation.steps]


def test_hello() -> None:
    for data, text in (({}, "Hello, world!"), ({"name": "Ada"}, "Hello, Ada!")):
        simulation = play("hello", data)
        (token,) = simulation.marking.tokens("said")
        assert token.data == {"text": text}
        assert route(simulation) == ["say_hello"]


DOCUMENT = (REPOSITORY / "workflows" / "documents" / "group_commit.md").read_text()


def test_document_review_asks_for_one_revision_and_approves() -> None:
    simulation = play("document_review", {"content": DOCUMENT})
    assert route(simulation) == ["ai_review", "send_back", "revise", "ai_review", "approve"]
    (token,) = simulation.marking.tokens("approved")
    assert token.number == 1
    assert token.data["content"] == DOCUMENT
    assert token.data["review"]["assessment"] == "approve"
    assert "group commit" in token.data["summary"]
    assert token.metadata["reviewer"] == "content-reviewer"


def test_document_review_rejects_what_two_revisions_did_not_mend() -> None:
    verdict = {"assessment": "needs_revision", "confidence_score": 3, "issues": ["x"], "comment": "y"}
    simulation = play("document_review", {"content": DOCUMENT}, {"content-reviewer": [verdict]})
    assert route(simulation) == ["ai_review", "send_back", "revise"] * 2 + ["ai_review", "give_up"]
    assert len(simulation.marking.tokens("rejected")) == 1


def test_document_review_rejects_at_once() -> None:
    verdict = {"assessment": "reject", "confidence_score": 9, "issues": [], "comment": "y"}
    simulation = play("document_review", {"content": DOCUMENT}, {"content-reviewer": [verdict]})
    assert route(simulation) == ["ai_review", "reject"]


def test_scripted_answers_fit_the_output_schemas() -> None:
    from circuit.net.colour import Colour

    made = load_workflow((REPOSITORY / "workflows" / "document_review.yaml").read_text())
    for agent in made.agents.values():
        assert agent.output_schema is not None
        colour = Colour(agent.id, agent.output_schema)
        for item in agent.provider.options["responses"]:
            assert not colour.faults(item["response"] if "when" in item else item)


def test_the_demonstration_takes_less_than_five_seconds_of_streaming() -> None:
    made = load_workflow((REPOSITORY / "workflows" / "document_review.yaml").read_text())
    total = 0.0
    for agent in made.agents.values():
        options = agent.provider.options
        for item in options["responses"]:
            total += len(str(item)) / options["chunk_size"] * options["delay_seconds"]
    assert 0.5 < total < 4


def test_research_loses_no_answer() -> None:
    simulation = play("research_fork_join", {"question": "Why?"})
    (token,) = simulation.marking.tokens("answered")
    assert simulation.marking.count("answered") == len(simulation.marking.all()) == 1
    assert token.data["question"] == "Why?"
    assert [finding["agent"] for finding in token.data["findings"]] == ["practitioner", "historian", "sceptic"]
    assert len({finding["answer"] for finding in token.data["findings"]}) == 3


def test_research_has_a_question_of_its_own() -> None:
    (token,) = play("research_fork_join", {}).marking.tokens("answered")
    assert token.data["question"].endswith("?")
