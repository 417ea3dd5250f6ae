"""`circuit init`: a small workflow to begin with, which runs at once and offline, with its test."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from circuit.cli.terminal import Terminal, clean
from circuit.errors import Conflict, InvalidRequest

WORKFLOW_FILE = "ticket.yaml"
SCHEMA_FILE = "workflow.schema.json"
TEST_FILE = "test_ticket.py"

WORKFLOW = """\
# yaml-language-server: $schema=workflow.schema.json
# A support ticket is judged by an agent and finds its way by what the agent says.
workflow: ticket
name: Support ticket

# Tokens lie on places. A new case puts its token on the initial one; it completes when a terminal one has it.
places:
  inbox: {initial: true}
  judged: {}
  urgent: {terminal: true}
  later: {terminal: true}
  unjudged: {dead_letter: true}  # somebody has to look: `circuit incidents list`

agents:
  sorter:
    # The scripted provider asks no model: it gives these answers, so that all of this runs offline. For a real one:
    #   llm_provider: {type: openai, model: gpt-4.1-mini}            # with OPENAI_API_KEY in the environment
    #   llm_provider: {type: anthropic, model: claude-haiku-4-5}     # with ANTHROPIC_API_KEY
    #   llm_provider: {type: ollama, model: "qwen3:4b"}              # a model on this machine
    # To try one without a change of this file: circuit run ticket.yaml --model openai:gpt-4.1-mini --set data.text=...
    llm_provider:
      type: scripted
      model: script
      delay_seconds: 0.02
      responses:
        - {when: fire, response: {urgent: true, reason: Something burns.}}  # where the prompt holds that word
        - {urgent: false, reason: It can wait until tomorrow.}
    llm_config: {max_tokens: 300}
    prompts:
      system: You sort support tickets. Urgent is what cannot wait until tomorrow.
      user_template: "How urgent is this ticket? {text}"
    # The answer is an object of this form; one that is none is asked for again.
    output_schema:
      type: object
      required: [urgent, reason]
      properties:
        urgent: {type: boolean}
        reason: {type: string}

# Transitions take tokens from places and put tokens on others.
transitions:
  judge:
    from_places: inbox
    to_place: judged
    agent_execution:
      agent_id: sorter
      input_mapping: {text: data.text}  # what the agent sees of the token
      output_mapping: {data.urgent: urgent, data.reason: reason}  # what becomes of its answer
      timeout_seconds: 60
      retry_config: {max_attempts: 3, backoff_seconds: 5}
    on_failure: unjudged
  # Exactly one of these conditions holds for each token; they are expressions in CEL.
  escalate: {from_places: judged, to_place: urgent, conditions: ["data.urgent"]}
  file: {from_places: judged, to_place: later, conditions: ["!data.urgent"]}
"""

TEST = '''\
"""Tests of ticket.yaml: no server is started, no model is asked, and time is moved by the test."""

from pathlib import Path
from unittest import IsolatedAsyncioTestCase

from circuit.testing import running

TICKET = Path(__file__).parent / "ticket.yaml"


class TicketTest(IsolatedAsyncioTestCase):
    async def test_what_is_urgent_is_escalated(self):
        answers = {"sorter": {"urgent": True, "reason": "smoke"}}
        async with running(TICKET, {"text": "There is smoke."}, answers=answers) as run:
            await run.settle()
            self.assertEqual(run.places(), {"urgent": 1})
            self.assertEqual(run.status, "completed")

    async def test_what_can_wait_is_filed(self):
        answers = {"sorter": {"urgent": False, "reason": "a comma"}}
        async with running(TICKET, {"text": "A comma is missing."}, answers=answers) as run:
            await run.settle()
            self.assertEqual(run.places(), {"later": 1})

    async def test_a_model_that_is_away_is_asked_again(self):
        answers = {"sorter": [{"error": "unavailable"}, {"urgent": False, "reason": "a comma"}]}
        async with running(TICKET, {"text": "A comma is missing."}, answers=answers) as run:
            await run.settle()
            self.assertEqual(run.places(), {"inbox": 1})
            await run.advance(minutes=1)
            self.assertEqual(run.places(), {"later": 1})
'''

README = """\
# A workflow in Circuit

| File | What |
|---|---|
| `ticket.yaml` | The workflow: places, transitions, and an agent that judges |
| `test_ticket.py` | Its tests, for `python -m unittest` or pytest |
| `workflow.schema.json` | What an editor checks workflow files with (`circuit schema` prints it) |

```sh
circuit validate ticket.yaml               # every fault, with line and column
circuit analyse ticket.yaml                # proves that it ends
circuit run ticket.yaml --set data.text="The server is on fire"
python -m unittest                         # the tests
circuit cases                              # what ran
circuit show CASE                          # one case: marking, tokens, history
circuit draw ticket.yaml -o ticket.svg     # a picture
circuit serve                              # http://127.0.0.1:4000: GraphQL, SSE, WebSocket
```

The agent is scripted: it asks no model. `ticket.yaml` says how to give it a real one, and this tries one:

```sh
export OPENAI_API_KEY=...
circuit run ticket.yaml --model openai:gpt-4.1-mini --set data.text="A comma is missing"
```

Circuit keeps what ran in a Postgres of its own, in the user's data directory; `CIRCUIT_HOME` names another one, and
`CIRCUIT_DATABASE_URL` a Postgres server.
"""

GITIGNORE = """\
.env
.venv/
__pycache__/
.pytest_cache/
"""


def init(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Where to write; made if it is not there.", show_default="here")
    ] = Path(),
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON value on standard output and nothing else.")
    ] = False,
) -> int:
    """Write a workflow to begin with, and its test. It runs at once and offline; nothing is ever overwritten.

    A README.md, a .gitignore or a schema that is there already is kept; a workflow or test of that name is a conflict.

    \b
    Examples:
      circuit init tickets
      circuit init
    """
    terminal = Terminal(json=as_json)
    contents = _contents()
    taken = [name for name in (WORKFLOW_FILE, TEST_FILE) if _there(folder / name)]
    if taken:
        raise Conflict(f"{folder} has {' and '.join(taken)} already: nothing was written. Name another FOLDER.")
    written: list[str] = []
    kept: list[str] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in contents.items():
            (written if _write(folder / name, text) else kept).append(name)
    except (FileExistsError, NotADirectoryError):
        raise InvalidRequest(f"{folder} is a file, or lies in one: name a folder.") from None
    commands = _next(folder)
    if as_json:
        terminal.result({"folder": str(folder), "written": written, "kept": kept, "next": commands})
        return 0
    for name in written:
        terminal.line(clean(f"wrote {folder / name}"))
    for name in kept:
        terminal.line(clean(f"kept {folder / name}: it was there already"))
    terminal.line("\nNext:")
    for command in commands:
        terminal.line(clean(f"  {command}"))
    return 0


def _contents() -> dict[str, str]:
    """The files, by name: the most telling first."""
    import orjson

    from circuit.definition import json_schema

    schema = orjson.dumps(json_schema(), option=orjson.OPT_INDENT_2).decode() + "\n"
    return {
        WORKFLOW_FILE: WORKFLOW,
        TEST_FILE: TEST,
        SCHEMA_FILE: schema,
        "README.md": README,
        ".gitignore": GITIGNORE,
    }


def _write(path: Path, text: str) -> bool:
    """Write a new file, whole or not at all; False if something has that name. Raises `OSError`."""
    if _there(path):
        return False
    with path.open("x", encoding="utf-8") as file:
        try:
            file.write(text)
            file.flush()
        except OSError as error:
            path.unlink()
            raise OSError(error.errno, error.strerror, str(path)) from error
    return True


def _there(path: Path) -> bool:
    """Whether something has that name, be it a link that leads nowhere."""
    return path.is_symlink() or path.exists()


def _next(folder: Path) -> list[str]:
    """What to type now, in a shell as this one: `circuit` and `python` by their paths where the shell has others."""
    circuit, python = _called("circuit"), _called("python")
    enter = [] if folder.resolve() == Path.cwd() else [f"cd {shlex.quote(str(folder))}"]
    return [
        *enter,
        f"{circuit} validate {WORKFLOW_FILE}",
        f'{circuit} run {WORKFLOW_FILE} --set data.text="The server is on fire"',
        f"{python} -m unittest",
        f"{circuit} serve",
    ]


def _called(program: str) -> str:
    """How the shell calls a program of this environment."""
    mine = Path(sys.executable).parent / program
    found = shutil.which(program)
    if not mine.exists():
        return shlex.quote(sys.executable) if program == "python" else f"{shlex.quote(sys.executable)} -m {program}"
    # An environment's python is a link to one that knows nothing of the environment: what it leads to says nothing.
    if found is not None and (Path(found) == mine or (not mine.is_symlink() and mine.samefile(found))):
        return program
    return shlex.quote(str(mine))
