"""Which workflows may use an agent: asked when they are published, and when it begins to run."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuit.app import Circuit
from circuit.engine import grants as door
from circuit.engine.consultations import Consultation
from circuit.engine.ledger import Sought
from circuit.errors import AgentNotAllowed, Forbidden, InvalidRequest
from circuit.security.grants import Effect, Rule, allowed, is_pattern
from circuit.security.principal import LOCAL, Principal

FLOW = """
workflow: {name}
places: {{begin: {{initial: true}}, held: {{}}, end: {{terminal: true}}}}
agents:
  payer: {{llm_provider: {{type: scripted, model: any, responses: [paid]}}}}
  clerk:
    llm_provider:
      type: scripted
      model: any
      responses: [[{{tool_calls: [{{name: agent.payer, arguments: {{task: x}}}}]}}, done]]
    tools: [{{agent: payer}}]
transitions:
  hold: {{from_places: begin, to_place: held, trigger: {{type: manual}}}}
  pay: {{from_places: held, to_place: end, agent_execution: {agent}}}
"""
EDITOR = Principal("editor", roles=frozenset({"editor"}))


async def test_a_workflow_uses_the_agents_that_it_may(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "KNOWN_SECONDS", 0.0)
    async with Circuit.open(database_url) as circuit:
        grants = circuit.engine.grants
        mine, clerks = (FLOW.format(name="invoices-eu", agent="payer"), FLOW.format(name="desk", agent="clerk"))
        await circuit.load(mine)
        running = await circuit.start("invoices-eu")
        await grants.set("payer", ["invoices-*"], Effect.ALLOW, LOCAL)
        # One that is denied is not published, whether it takes the agent or defines its own; nothing of it is stored.
        for text in (clerks, clerks.replace("responses: [paid]", "responses: [other]")):
            with pytest.raises(AgentNotAllowed, match="desk may not use the agent 'payer'"):
                await circuit.load(text)
        assert [one.id for one in await circuit.queries.workflows(1)] == ["invoices-eu"]
        await circuit.load(mine)
        with pytest.raises(AgentNotAllowed):
            await circuit.load(FLOW.format(name="others", agent="payer"))

        # What was allowed when it was published, and is not any more, fails when it runs.
        await grants.set("payer", ["invoices-eu"], Effect.DENY, LOCAL)
        await circuit.fire(running, "hold")
        view = await circuit.wait(running)
        assert (view.status, [one.code for one in view.incidents]) == ("attention", ["agent_not_allowed"])
        # When the rule goes, the same case goes on.
        assert await grants.remove("payer", ["invoices-eu", "nobody"], Effect.DENY, LOCAL) == 1
        await circuit.commands.retry(circuit.key(running), principal=LOCAL)
        assert (await circuit.wait(running)).status == "completed"

        # Who asks it directly is a workflow of its own; an agent that is a tool of another one is asked of, too.
        wanted = Consultation([{"role": "user", "content": "x"}], agent="payer")
        asked = await circuit.engine.consultations.ask(wanted, principal=LOCAL)
        assert (await circuit.wait(str(asked))).status == "failed"
        await grants.set("payer", ["agent:payer", "desk"], Effect.ALLOW, LOCAL)
        asked = await circuit.engine.consultations.ask(wanted, principal=LOCAL)
        assert (await circuit.wait(str(asked))).status == "completed"
        await circuit.load(clerks)
        case = await circuit.start("desk")
        await grants.remove("payer", ["desk"], Effect.ALLOW, LOCAL)
        await circuit.fire(case, "hold")
        await circuit.wait(case)
        told = [frame async for frame in circuit.stream(case)]
        assert "may not use the agent" in str(told)

        for act in (grants.set, grants.remove):
            with pytest.raises(Forbidden):
                await act("payer", ["desk"], Effect.ALLOW, EDITOR)
            for patterns in ([], ["a b"], ["x" * 201], ["a\n"], ["a.c"]):
                with pytest.raises(InvalidRequest):
                    await act("payer", patterns, Effect.ALLOW, LOCAL)
        assert [row.rule.pattern for row in await grants.listed(EDITOR, "payer")] == ["agent:payer", "invoices-*"]
        assert await grants.listed(Principal("x", 2, frozenset({"admin"}))) == []
        log = [one.action async for one in circuit.engine.ledger.all(LOCAL, Sought(action="agent"))]
        assert log == [
            "agent.allow", "agent.deny", "agent.undeny", "agent.allow", "agent.allow", "agent.unallow"
        ]  # fmt: skip


NAMES = st.text("ab-:*", min_size=1, max_size=6)


@given(st.lists(st.builds(Rule, NAMES, st.sampled_from(Effect)), max_size=5), st.text("ab-:", max_size=8))
def test_what_one_denies_is_denied_and_what_none_allows_too(rules: list[Rule], workflow: str) -> None:
    def fits(rule: Rule) -> bool:
        return re.fullmatch(re.escape(rule.pattern).replace(r"\*", ".*"), workflow) is not None

    allows = [rule for rule in rules if rule.effect is Effect.ALLOW]
    denied = any(fits(rule) for rule in rules if rule.effect is Effect.DENY)
    assert allowed(rules, workflow) == (not denied and (not allows or any(map(fits, allows))))
    assert all(is_pattern(rule.pattern) for rule in rules)
