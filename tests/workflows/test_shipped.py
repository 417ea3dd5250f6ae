"""Every workflow that ships, run as its users run it: exit code 0, and the marking that its file promises."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from circuit import Circuit
from circuit.cli.main import main

WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"
DOCUMENT = WORKFLOWS / "documents" / "group_commit.md"
TESTED = {
    "hello",
    "document_review",
    "research_fork_join",
    "debate",
    "plan_and_delegate",
    "critic_loop",
    "triage",
    "journey",
}

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(database_url: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs a workflow that ships with `circuit run --json`; the case as it ended."""
    monkeypatch.setenv("CIRCUIT_DATABASE_URL", database_url)
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "CIRCUIT_LOG_LEVEL"):
        monkeypatch.delenv(name, raising=False)

    def run_workflow(name: str, *options: str) -> dict[str, Any]:
        code = main(["run", str(WORKFLOWS / f"{name}.yaml"), *options, "--json"])
        captured = capfd.readouterr()
        assert code == 0, captured.err
        return orjson.loads(captured.out)

    return run_workflow


def fired(case: dict[str, Any]) -> list[str]:
    return [event["transition"] for event in case["history"] if event["kind"] == "transition_fired"]


def test_no_workflow_ships_untested() -> None:
    assert {file.stem for file in WORKFLOWS.glob("*.yaml")} == TESTED


def test_hello(run: Run) -> None:
    case = run("hello")
    assert case["status"] == "completed"
    assert case["marking"] == {"said": 1}
    assert case["tokens"][0]["data"] == {"text": "Hello, world!"}
    assert run("hello", "--set", "data.name=Ada")["tokens"][0]["data"] == {"text": "Hello, Ada!"}


def test_a_journey_is_given_back_in_the_reverse_order(run: Run) -> None:
    case = run("journey")
    assert case["status"] == "completed" and case["marking"] == {"given_back": 1}
    assert [name for name in fired(case) if "~undo" in name] == ["house~undo", "fly~undo"]
    told = run("journey", "--set", "data.car=small")
    assert told["marking"] == {"booked": 1, "~done": 2} and fired(told) == ["fly", "house", "drive"]


def test_document_review(run: Run) -> None:
    case = run("document_review", "--token-file", str(DOCUMENT))
    assert case["status"] == "completed"
    assert case["marking"] == {"approved": 1}
    assert fired(case) == ["ai_review", "send_back", "revise", "ai_review", "approve"]
    (token,) = case["tokens"]
    assert token["data"]["content"] == DOCUMENT.read_text()
    assert token["data"]["review"]["assessment"] == "approve"
    assert token["data"]["summary"]
    assert token["metadata"]["reviewer"] == "content-reviewer"
    executions = [event["execution_id"] for event in case["history"] if event["kind"] == "firing_begun"]
    assert len(executions) == 3


@pytest.mark.parametrize(
    ("assessments", "marking", "steps"),
    [
        (["approve"], {"approved": 1}, ["ai_review", "approve"]),
        (["reject"], {"rejected": 1}, ["ai_review", "reject"]),
        (
            ["needs_revision"],
            {"rejected": 1},
            ["ai_review", "send_back", "revise", "ai_review", "send_back", "revise", "ai_review", "give_up"],
        ),
    ],
    ids=["approved", "rejected", "the loop is bounded"],
)
def test_the_review_decides_the_way(
    database_url: str, assessments: list[str], marking: dict[str, int], steps: list[str]
) -> None:
    """The same file with a reviewer that always says the same."""

    async def review() -> tuple[dict[str, int], list[str]]:
        answers = [
            {"assessment": assessment, "confidence_score": 5, "issues": [], "comment": "So it is."}
            for assessment in assessments
        ]
        reviewer = {"type": "scripted", "model": "stubborn", "options": {"responses": answers}}
        async with Circuit.open(database_url) as circuit:
            workflow = await circuit.load(WORKFLOWS / "document_review.yaml")
            case_id = await circuit.start(
                workflow.id, {"content": DOCUMENT.read_text()}, models={"content-reviewer": reviewer}
            )
            view = await circuit.wait(case_id)
        case = view.as_dict()
        assert case["status"] == "completed"
        return case["marking"], fired(case)

    assert asyncio.run(review()) == (marking, steps)


def test_a_review_that_fails_is_kept_for_a_person(database_url: str) -> None:
    async def review() -> dict[str, Any]:
        broken = {"type": "scripted", "model": "broken", "options": {"responses": [{"error": "provider_refused"}]}}
        async with Circuit.open(database_url) as circuit:
            workflow = await circuit.load(WORKFLOWS / "document_review.yaml")
            case_id = await circuit.start(workflow.id, {"content": "A text."}, models={"*": broken})
            return (await circuit.wait(case_id)).as_dict()

    case = asyncio.run(review())
    assert case["status"] == "attention"
    assert case["marking"] == {"review_failed": 1}


def test_research_fork_join(run: Run) -> None:
    case = run("research_fork_join", "--set", "data.question=Is it worth it?")
    assert case["status"] == "completed"
    assert case["marking"] == {"answered": 1}
    data = case["tokens"][0]["data"]
    assert data["question"] == "Is it worth it?"
    assert {finding["agent"] for finding in data["findings"]} == {"practitioner", "historian", "sceptic"}
    assert all(finding["answer"] for finding in data["findings"])
    begun = [event["seq"] for event in case["history"] if event["kind"] == "firing_begun"]
    asked = [
        event["seq"]
        for event in case["history"]
        if event["kind"] == "transition_fired" and event["transition"].startswith("ask_")
    ]
    assert len(begun) == len(asked) == 3
    assert max(begun) < min(asked), "the three agents did not run at the same time"
    assert run("research_fork_join")["marking"] == {"answered": 1}


def test_debate(run: Run) -> None:
    case = run("debate", "--set", "data.question=Is it?")
    assert case["marking"] == {"judged": 1}
    data = case["tokens"][0]["data"]
    assert (data["question"], data["rounds"], data["verdict"]["winner"]) == ("Is it?", 2, "for")
    assert len(set(data["for"])) == len(set(data["against"])) == 2
    assert sorted(fired(case)[1:4]) == ["argue_against", "argue_for", "next_round"]


def test_plan_and_delegate(run: Run) -> None:
    case = run("plan_and_delegate")
    assert case["marking"] == {"reported": 1}
    data = case["tokens"][0]["data"]
    assert len(data["tasks"]) == len(data["results"]) == 3
    assert data["results"][-1] == "The name points to it."
    assert data["report"]
    assert fired(case).count("delegate") == 3


def test_critic_loop(run: Run) -> None:
    case = run("critic_loop", "--set", "data.topic=Backups")
    assert case["marking"] == {"published": 1}
    data = case["tokens"][0]["data"]
    assert (data["topic"], data["good"], data["round"]) == ("Backups", True, 1)
    assert fired(case) == ["take_up", "write", "criticise", "send_back", "write", "criticise", "publish"]


def test_a_critic_that_is_never_content_ends_the_loop(database_url: str) -> None:
    async def review() -> dict[str, Any]:
        strict = {"type": "scripted", "model": "strict", "options": {"responses": [{"good": False, "issues": ["no"]}]}}
        async with Circuit.open(database_url) as circuit:
            workflow = await circuit.load(WORKFLOWS / "critic_loop.yaml")
            case_id = await circuit.start(workflow.id, models={"critic": strict})
            return (await circuit.wait(case_id)).as_dict()

    case = asyncio.run(review())
    assert (case["status"], case["marking"]) == ("failed", {"given_up": 1})
    assert fired(case).count("write") == 3


def test_triage(run: Run) -> None:
    case = run("triage", "--set", "data.content=The invoice of May was charged twice.")
    assert case["status"] == "completed"
    assert case["marking"] == {"answered": 1}
    (token,) = case["tokens"]
    assert (token["data"]["classification"], token["data"]["confidence"]) == ("billing", 0.94)
    assert token["data"]["reply"].startswith("Thank you. We look at the invoice")
    assert (token["metadata"]["classifier"], token["metadata"]["writer"]) == ("content-classifier", "reply-writer")
    assert fired(case) == [
        "receive",
        "content-classifier@pending_classification",
        "move_to_categorized",
        "reply-writer@categorized",
        "send",
    ]
    classifier, writer = case["executions"]
    assert (classifier["agent_id"], writer["agent_id"]) == ("content-classifier", "reply-writer")
    # What an agent names fires in the commit in which the agent is done.
    at = {event["transition"]: event["at"] for event in case["history"] if event["kind"] == "transition_fired"}
    assert at["content-classifier@pending_classification"] == at["move_to_categorized"]


@pytest.mark.parametrize(
    ("content", "marking"),
    [("You have won the lottery!", {"set_aside": 1}), ("How do I sign in?", {"answered": 1})],
)
def test_triage_goes_by_what_the_classifier_says(run: Run, content: str, marking: dict[str, int]) -> None:
    assert run("triage", "--set", f"data.content={content}")["marking"] == marking


def test_a_classification_that_fails_waits_for_a_person(database_url: str) -> None:
    async def triage() -> tuple[dict[str, Any], str]:
        broken = {"type": "scripted", "model": "broken", "options": {"responses": [{"error": "provider_refused"}]}}
        async with Circuit.open(database_url) as circuit:
            workflow = await circuit.load(WORKFLOWS / "triage.yaml")
            case_id = await circuit.start(workflow.id, {"content": "A text."}, models={"*": broken})
            view = await circuit.wait(case_id)
            return view.as_dict(), (await circuit.why(case_id)).summary

    case, summary = asyncio.run(triage())
    # The deadline is still to come: the case waits for it, and the incident is there to see.
    assert case["status"] == "waiting"
    assert case["marking"] == {"pending_classification": 1}
    assert [incident["transition"] for incident in case["incidents"]] == ["content-classifier@pending_classification"]
    assert "due_at" in case, summary
