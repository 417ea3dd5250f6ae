"""The action of the kind `consultation`: an agent answers a conversation that somebody outside of any workflow brings.

The messages (the input `messages`, in the form of chat clients) follow the agent's system prompt; its `user_template`
is not applied. What comes of it is the one output `answer`: `message`, `finish`, `model`, `usage`, and `output` where
the agent has an `output_schema`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from circuit.actions.agent import AgentAction, CallJournal, agent_run, prompt_texts
from circuit.agents.chat import call_json, messages_of
from circuit.agents.prompt import build_messages, prompt_values
from circuit.agents.screening import settled, told_messages
from circuit.engine.action import ActionCall, ActionContext, ActionOutput
from circuit.engine.calls import rules_of_agents
from circuit.providers.messages import Role, ToolCallPart
from circuit.providers.provider import ToolSpec
from circuit.security.redactor import lengthy
from circuit.threads import apart

KIND = "consultation"


class ConsultationAction:
    """Runs the agents of `agents` for whoever asks them."""

    def __init__(self, agents: AgentAction) -> None:
        self._agents = agents

    async def perform(self, call: ActionCall, context: ActionContext) -> ActionOutput:
        """Let the agent of `call` answer. Raises `InvalidInput` for messages that are none."""
        agent: Mapping[str, Any] = call.config["agent"]
        journal = CallJournal(call, context)
        watch = self._agents.watch(agent, call)
        asked, looks = told_messages(watch, messages_of(call.inputs.get("messages")))
        await settled(watch, journal, "messages", looks, str(agent["id"]))
        values = prompt_values(inputs={}, tokens=(), workflow_id="", history_count=0)
        system = [one for one in build_messages(prompt_texts(agent), values) if one.role is Role.SYSTEM]
        run = replace(
            agent_run(agent, agent["provider"], (*system, *asked)),
            attempt=call.attempt,
            execution_id=call.execution_id,
            functions=functions_of(agent.get("functions") or ()),
            tool_choice=agent.get("tool_choice") or "auto",
        )
        redaction = self._agents.redactor.at("events", (*call.redaction, *rules_of_agents(call.config)))
        result = await self._agents.run(run, call, journal)
        answer = result.answer
        usage = result.counted
        # Nothing goes on from this answer: it is what readers are told, so that it reads as its stream does.
        told = [answer.text, result.output, *(one.arguments for one in result.calls)]

        def shown() -> tuple[str, Any, list[ToolCallPart]]:
            calls = [replace(one, arguments=redaction.written(one.arguments)) for one in result.calls]
            return redaction.text(answer.text), redaction.value(result.output), calls

        text, output, calls = await apart(shown) if redaction and lengthy(told) else shown()
        message: dict[str, Any] = {"role": "assistant", "content": text or None}
        if calls:
            message["tool_calls"] = [call_json(one) for one in calls]
        said: dict[str, Any] = {
            "message": message,
            "finish": "tool_calls" if result.calls else answer.finish,
            "model": answer.model,
            "usage": usage,
            **({} if result.output is None else {"output": output}),
        }
        return ActionOutput({"answer": said}, answer.text, result.output, usage, answer.model)


def functions_of(entries: Sequence[Mapping[str, Any]]) -> tuple[ToolSpec, ...]:
    """The tools of whoever asks."""
    plain = ToolSpec("")
    return tuple(
        ToolSpec(one["name"], one.get("description") or "", one.get("parameters") or plain.parameters)
        for one in entries
    )
