"""Checks of agents: their prompts know every name that they use, and their schemas are schemas."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from circuit.definition.adoption import colleagues
from circuit.definition.fault_text import suggestion
from circuit.definition.lint_redaction import lint_rules
from circuit.definition.scene import Scene
from circuit.definition.schemas import bundle, check_schema, properties_of
from circuit.definition.tool_document import FILE_TOOLS
from circuit.definition.workflow import COLLEAGUES
from circuit.expressions.template import TEMPLATE_VARIABLES, Template
from circuit.net.contradiction import contradiction
from circuit.security.rules import Rule, rules_of

ModelCheck = Callable[[str, Mapping[str, Any], bool, bool, int | None], list[str]]
"""What a model does not take of `llm_config`, of having tools, of being shown images, of `context_tokens`, in words."""

ApiCheck = Callable[[Mapping[str, Any]], str]
"""Why there are no tools of an entry `openapi`, in words; nothing where there are, and where that is not known."""

CAPABILITY_TEXTS: Mapping[str, tuple[str, ...]] = {
    "chain_of_thought": (),
    "answer_now": (),
    "react": (),
    "self_reflection": ("criteria",),
    "improve": ("issues",),
    "repair": ("fault",),
    "summary": (),
    "hand_over": ("agent", "why", "transcript"),
}
"""The texts of the capabilities, and the names that stand for something in each."""
PROMPTS = ("system", "user_template", "context_instructions")


def lint_agents(
    scene: Scene, models: ModelCheck | None = None, rules: Sequence[Rule] = (), apis: ApiCheck | None = None
) -> None:
    """Report what is wrong with the agents of the file, beside whose `rules` of redaction others count."""
    agents = scene.section("agents")
    for name, agent in agents.items():
        schema = agent.get("output_schema")
        if schema is not None:
            _output(scene, ("agents", name, "output_schema"), schema)
        _prompts(scene, name, agent["prompts"])
        _capabilities(scene, name, agent)
        _tools(scene, name, agent, apis)
        _policies(scene, name, agent)
        _images(scene, name, agent)
        own = agent.get("redaction") or ()
        lint_rules(scene.report, ("agents", name, "redaction"), own, (*rules, *_beside(agents, name)))
        for index, entry in enumerate(agent.get("tools") or ()):
            if entry["kind"] not in COLLEAGUES:
                continue
            path = ("agents", name, "tools", index, entry["kind"])
            if scene.known("agent", entry["name"], path) and entry["name"] == name:
                scene.report.add(path, "an agent cannot ask itself, or hand over to itself", "name another one")
        if models is not None:
            _models(scene, name, agent, models)


def _beside(agents: Mapping[str, Any], name: str) -> list[Rule]:
    """The rules of redaction of all whom an agent may ask, or hand over to."""
    found, pending = dict[str, Any](), [name]
    while pending:
        for other in colleagues(agents[pending.pop()]):
            if other != name and other in agents and other not in found:
                found[other] = agents[other]
                pending.append(other)
    return [rule for agent in found.values() for rule in rules_of(agent.get("redaction") or ())]


def demands(agent: Mapping[str, Any]) -> tuple[Mapping[str, Any], bool, bool]:
    """What whoever answers for an agent must take: its `llm_config`, tools, images."""
    return agent.get("llm_config") or {}, bool(agent.get("tools")), bool(agent.get("images"))


def _models(scene: Scene, name: str, agent: Mapping[str, Any], models: ModelCheck) -> None:
    """Whoever may answer must take what the agent says of itself."""
    asked = demands(agent)
    answering = [(("llm_config",), agent["llm_provider"])]
    answering += [(("fallback", index), entry) for index, entry in enumerate(agent.get("fallback") or ())]
    for path, provider in answering:
        # One that falls in is shown what it holds of the conversation.
        context = None if path[0] == "fallback" else agent.get("context_tokens")
        for problem in models(provider["model"], *asked, context):
            scene.report.add(("agents", name, *path), problem, "change llm_config, or take another model")


def _output(scene: Scene, path: tuple[str, ...], schema: Mapping[str, Any]) -> None:
    """An answer that cannot be right would be asked for, and mended, at every firing."""
    colours = scene.section("colours")
    if check_schema(scene.report, path, schema, colours) and (why := contradiction(bundle(schema, colours))):
        scene.report.add(path, f"nothing satisfies this schema: {why}", "no answer of a model could fit it")


def _capabilities(scene: Scene, name: str, agent: Mapping[str, Any]) -> None:
    names = [entry["name"] for entry in agent.get("capabilities") or ()]
    for index, capability in enumerate(names):
        path = ("agents", name, "capabilities", index)
        if capability in names[:index]:
            scene.report.add(path, f"the capability {capability} stands twice", "remove one of them")
        if capability == "direct" and "react" in names:
            scene.report.add(path, "direct and react exclude each other", "remove one of them")
    for capability, text in (agent["prompts"].get("capabilities") or {}).items():
        path = ("agents", name, "prompts", "capabilities", capability)
        if capability not in CAPABILITY_TEXTS:
            hint = suggestion(capability, tuple(CAPABILITY_TEXTS), "texts")
            scene.report.add(path, f"no capability has a text {capability!r}", hint, key=True)
            continue
        _text(scene, path, text, CAPABILITY_TEXTS[capability])
        judged = any(one.get("criteria") for one in agent.get("capabilities") or ())
        if capability == "self_reflection" and judged and "{criteria}" not in text:
            scene.report.add(path, "the criteria would be told to nobody", "put {criteria} where they belong")


def _text(scene: Scene, path: tuple[str, ...], text: str, known: tuple[str, ...]) -> None:
    """What an agent has in the place of a text of a capability: nothing, or names that stand for nothing, are slips."""
    if not text.strip():
        scene.report.add(path, "the text is empty", "leave it out for that of the capability")
    for variable, offset in Template.parse(text).names:
        if variable not in known:
            names = ", ".join(f"{{{one}}}" for one in known) or "no name"
            hint = f"this text knows {names}; what the agent is about stands in system and user_template"
            scene.report.add(path, f"unknown template variable {{{variable}}}", hint, offset=offset)


def _images(scene: Scene, name: str, agent: Mapping[str, Any]) -> None:
    """Who maps inputs maps the images too; where nothing is mapped they come from the token."""
    for index, image in enumerate(agent.get("images") or ()):
        path = ("agents", name, "images", index)
        lacking = [user for user, names in _uses(scene, name) if names and image not in names]
        if lacking:
            hint = f"add `{image}: data....` to its input_mapping"
            scene.report.add(path, f"{lacking[0]} does not map the image {image!r}", hint)
            continue
        without = next((use for use in _unmapped(scene, name) if image not in use[2]), None)
        if without:
            user, colour, _ = without
            hint = f"add it to the colour, or map it: input_mapping: {{{image}: data....}}"
            scene.report.add(path, f"{user} maps nothing, and no token of colour {colour} has {image!r}", hint)


def _unmapped(scene: Scene, agent: str) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Who gives the agent the data of one token as it is, with the token's colour and all the names that it allows."""
    found = [(user, _consumed(scene, user)) for user, names in _uses(scene, agent) if not names]
    for user, place in found:
        colour = scene.section("places").get(place, {}).get("colour")
        if colour in scene.sound:
            colours = scene.section("colours")
            if (names := properties_of(colours[colour], colours, closed=True)) is not None:
                yield user, colour, names


def _consumed(scene: Scene, user: str) -> str:
    """The place whose token a transition consumes, if it is one alone."""
    transition = scene.section("transitions").get(user.removeprefix("transition "), {})
    arcs = [arc for arc in transition.get("from_places", ()) if arc["mode"] in ("consume", "drain")]
    alone = (
        len(arcs) == 1 and arcs[0]["mode"] == "consume" and arcs[0]["weight"] == 1 and not transition.get("from_any")
    )
    return str(arcs[0]["place"]) if alone else ""


def _tools(scene: Scene, name: str, agent: Mapping[str, Any], apis: ApiCheck | None) -> None:
    """What would fail when the agent begins, or count for nothing."""
    servers: dict[str, tuple[Any, Any]] = {}
    for index, entry in enumerate(agent.get("tools") or ()):
        kind, path = entry["kind"], ("agents", name, "tools", index)
        if kind == "named" and entry["name"].startswith("fs."):
            if not any(fnmatchcase(tool, entry["name"]) for tool in FILE_TOOLS):
                hint = suggestion(entry["name"], FILE_TOOLS, "tools")
                scene.report.add(path, f"there is no tool of files {entry['name']!r}", hint)
        elif kind == "http":
            for at, host in enumerate(entry["allow"]):
                if "/" in host:
                    hint = "write example.org, or *.example.org"
                    scene.report.add((*path, kind, "allow", at), "this is no host", hint)
        elif kind == "mcp":
            _server(scene, (*path, kind), entry)
            spoken = (entry.get("command"), entry.get("url"))
            if servers.setdefault(entry["name"], spoken) != spoken:
                message = f"the agent has another MCP server {entry['name']!r} already"
                scene.report.add(
                    (*path, kind, "name"), message, "its tools begin with the name: give it one of its own"
                )
        elif kind == "openapi" and apis is not None and (fault := apis(entry)):
            hint = "a path is looked up from the directory of the process that runs the agent"
            scene.report.add((*path, kind, "document"), fault, hint)


def _server(scene: Scene, path: tuple[str | int, ...], entry: Mapping[str, Any]) -> None:
    """An MCP server is a program, or it is reached over HTTP."""
    started, reached = bool(entry.get("command")), bool(entry.get("url"))
    if started and reached:
        scene.report.add((*path, "url"), "an MCP server has a command or a url, and not both", "take one of them away")
    elif not started and not reached:
        scene.report.add(path, "an MCP server needs a command, or a url", "add the one by which it is spoken to")
    elif started and entry.get("headers"):
        scene.report.add(
            (*path, "headers"), "headers go to a server with a url", "write variables of the program in env"
        )
    elif reached and entry.get("env"):
        hint = "write what the server asks for in headers"
        scene.report.add((*path, "env"), "env is of a server that is started by a command", hint)


def _policies(scene: Scene, name: str, agent: Mapping[str, Any]) -> None:
    """A policy for tools that the agent does not have would gate nothing: it is misspelt."""
    policies = agent.get("policies") or ()
    tools = [name for entry in agent.get("tools") or () for name in _patterns(entry)]
    if policies and not tools:
        scene.report.add(("agents", name, "policies"), "the agent has policies and no tools", "add tools", key=True)
        return
    for index, policy in enumerate(policies):
        for key in ("allow", "deny", "require_approval", "require", "before", "limit"):
            given: Any = policy.get(key, [])
            for pattern in [given] if isinstance(given, str) else given:
                if not any(fnmatchcase(tool, pattern) or fnmatchcase(pattern, tool) for tool in tools):
                    path = ("agents", name, "policies", index, key)
                    scene.report.add(path, f"the agent has no tool that {pattern!r} means", "add it to tools")


def _patterns(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """What the tools of an entry are called, as far as that is known here, and what their names look like where not."""
    kind, name = entry["kind"], str(entry.get("prefix") or entry.get("name") or "")
    match kind:
        case "files":
            return FILE_TOOLS
        case "shell":
            return ("shell.run",)
        case "http":
            return ("http.fetch",)
        case "named" if name.startswith("fs."):
            return tuple(tool for tool in FILE_TOOLS if fnmatchcase(tool, name)) or (name,)
        case "named" | "function":
            return (name,)
        case "agent" | "hand_over":
            return (f"{kind}.{name}",)
        case _:
            return (f"{name}.*",)


def _prompts(scene: Scene, agent: str, prompts: Mapping[str, Any]) -> None:
    uses = dict(_uses(scene, agent))
    whole = scene.report.intact("transitions") and scene.report.intact("place_agents")
    if not uses and not whole:
        return
    offered = sorted(set[str]().union(*uses.values()))
    for key in PROMPTS:
        for variable, offset in _names(scene, ("agents", agent, "prompts", key), prompts):
            if variable in TEMPLATE_VARIABLES:
                continue
            lacking = [user for user, names in uses.items() if variable not in names]
            if uses and not lacking:
                continue
            message = f"unknown template variable {{{variable}}}"
            if variable in offered:
                message += f": {lacking[0]} does not map it"
            close = suggestion(variable, (*TEMPLATE_VARIABLES, *offered), "variables")
            hint = close if close.startswith("did you mean") and variable not in offered else ""
            hint = (
                hint
                or f"add `{variable}: data....` to the input_mapping, or use one of {', '.join(TEMPLATE_VARIABLES)}"
            )
            scene.report.add(("agents", agent, "prompts", key), message, hint, offset=offset)


def _names(scene: Scene, path: tuple[str, ...], prompts: Mapping[str, Any]) -> tuple[tuple[str, int], ...]:
    """The names in a prompt, each with its offset, in the language in which the prompts are written."""
    text: str = prompts[path[-1]]
    if not prompts.get("engine"):
        return Template.parse(text).names
    from circuit.expressions.jinja import JinjaFault, JinjaTemplate

    try:
        return JinjaTemplate.parse(text).names
    except JinjaFault as fault:
        scene.report.add(
            path, f"this is no template of Jinja: {fault}", "see jinja.palletsprojects.com", offset=fault.offset
        )
        return ()


def _uses(scene: Scene, agent: str) -> Iterator[tuple[str, frozenset[str]]]:
    """Who runs the agent, and the inputs that each maps for it; only those of which nothing is missing."""
    for name, transition in scene.section("transitions").items():
        for where, part in (((), transition), (("compensation",), transition.get("compensation") or {})):
            execution: Mapping[str, Any] = part.get("agent_execution") or {}
            path = ("transitions", name, *where, "agent_execution", "input_mapping")
            if execution.get("agent_id") == agent and scene.report.intact(*path):
                yield " of ".join((*where, f"transition {name}")), frozenset(execution.get("input_mapping", ()))
    for index, entry in enumerate(scene.plain.get("place_agents", ())):
        if entry["agent_id"] == agent:
            yield f"place agent {index + 1}", frozenset(entry.get("input_mapping", ()))
