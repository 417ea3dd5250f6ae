"""How a running case is shown: lines as things happen, and on a terminal what agents say while they say it."""

from __future__ import annotations

from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from circuit.cli.narration import Line, Narrator, Saying
from circuit.cli.terminal import Terminal, clean

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.live import Live

    from circuit.events import CaseEvent, Frame

_PLAIN_WIDTH = 100
_SPOKEN_LINES = 6


class Display(Protocol):
    """Shows one case from now to the end of the `with` block."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def event(self, at: datetime, event: CaseEvent) -> None:
        """Something happened in the case."""
        ...

    def frame(self, execution_id: str, frame: Frame) -> None:
        """An execution of the case said something."""
        ...


def display(terminal: Terminal, narrator: Narrator) -> Display:
    """The display that fits `terminal`."""
    return LiveDisplay(terminal, narrator) if terminal.interactive else PlainDisplay(terminal, narrator)


class PlainDisplay:
    """Lines without control codes: for pipes, logs and files. What agents say comes as lines of its own."""

    def __init__(self, terminal: Terminal, narrator: Narrator) -> None:
        self._terminal = terminal
        self._narrator = narrator
        self._pending: dict[str, Saying] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for execution_id in list(self._pending):
            self._flush(execution_id)

    def event(self, at: datetime, event: CaseEvent) -> None:
        execution_id = getattr(event, "execution_id", None)
        if execution_id:
            self._flush(execution_id)
        for line in self._narrator.event(at, event):
            self._terminal.line(line.text)

    def frame(self, execution_id: str, frame: Frame) -> None:
        line = self._narrator.frame(execution_id, frame)
        speech = self._narrator.speeches[execution_id]
        for saying in speech.fresh:
            self._take(execution_id, saying)
        speech.fresh.clear()
        if line is not None or speech.done:
            self._flush(execution_id)
        if line is not None:
            self._terminal.line(line.text)

    def _take(self, execution_id: str, saying: Saying) -> None:
        """Show what of a saying is whole lines, and keep the rest until it is one."""
        before = self._pending.get(execution_id)
        if before is not None and before.status != saying.status:
            self._flush(execution_id)
            before = None
        text = (before.text if before is not None else "") + saying.text
        while (cut := _cut(text))[0] is not None:
            self._say(execution_id, saying.status, cut[0])
            text = cut[1]
        self._pending[execution_id] = Saying(saying.status, text)
        if saying.status and not saying.text:
            # It says what it does, and nothing more.
            self._say(execution_id, saying.status, "...")

    def _flush(self, execution_id: str) -> None:
        pending = self._pending.pop(execution_id, None)
        if pending is not None and pending.text:
            self._say(execution_id, pending.status, pending.text)

    def _say(self, execution_id: str, status: str, text: str) -> None:
        label = self._narrator.speeches[execution_id].named(status)
        self._terminal.line(f"{label} | {clean(text, keep='')}".rstrip())


def _cut(text: str) -> tuple[str | None, str]:
    """The first whole line of `text` and what follows; a long one is cut at a space. None while none is whole."""
    head, newline, rest = text.partition("\n")
    if len(head) <= _PLAIN_WIDTH:
        return (head, rest) if newline else (None, text)
    at = head.rfind(" ", 1, _PLAIN_WIDTH)
    at = at if at > 0 else _PLAIN_WIDTH
    return text[:at], text[at:].removeprefix(" ")


class LiveDisplay:
    """What happened stays above; below it, redrawn as they change, the marking and what agents are saying."""

    def __init__(self, terminal: Terminal, narrator: Narrator) -> None:
        self._narrator = narrator
        self._console = terminal.console()
        self._live: Live | None = None

    def __enter__(self) -> Self:
        from rich.live import Live

        live = Live(
            get_renderable=self._draw,
            console=self._console,
            refresh_per_second=12,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        live.start()
        self._live = live
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
        for execution_id in list(self._narrator.speeches):
            self._transcribe(execution_id)

    def event(self, at: datetime, event: CaseEvent) -> None:
        lines = self._narrator.event(at, event)
        execution_id = getattr(event, "execution_id", None)
        if execution_id:
            speech = self._narrator.speeches.get(execution_id)
            if speech is not None and speech.done:
                self._transcribe(execution_id)
        for line in lines:
            self._print(line)

    def frame(self, execution_id: str, frame: Frame) -> None:
        line = self._narrator.frame(execution_id, frame)
        if line is not None:
            self._print(line)
        if self._narrator.speeches[execution_id].done:
            self._transcribe(execution_id)

    def _print(self, line: Line) -> None:
        from rich.text import Text

        self._console.print(Text(line.text, style=line.style), soft_wrap=True)

    def _transcribe(self, execution_id: str) -> None:
        """What an execution said, for good: the panel that showed it goes."""
        from rich.text import Text

        speech = self._narrator.speeches[execution_id]
        speech.done = True
        for saying in speech.said:
            for text in clean(saying.text or "...").splitlines():
                self._console.print(Text(f"{speech.named(saying.status)} | {text}", style="dim"), soft_wrap=True)
        speech.clear()

    def _draw(self) -> Group:
        from rich.cells import chop_cells
        from rich.console import Group
        from rich.panel import Panel
        from rich.text import Text

        width = max(self._console.width - 4, 10)
        parts: list[RenderableType] = []
        for speech in tuple(self._narrator.speeches.values()):  # drawn from a thread of Rich's own
            if speech.done:
                continue
            wrapped: list[str] = []
            said = speech.said[-1].text if speech.said else ""
            for line in clean(said[-width * (_SPOKEN_LINES + 1) :]).splitlines():
                # By columns, not by characters: some of them are two columns wide.
                wrapped.extend(chop_cells(line, width) or [""])
            text = "\n".join(wrapped[-_SPOKEN_LINES:]) or "..."
            title = Text(f"{speech.label}: {speech.status}" if speech.status else speech.label)
            parts.append(Panel(Text(text, style="dim"), title=title, title_align="left", border_style="cyan"))
        parts.append(Text(self._narrator.marking_text(), style="bold"))
        return Group(*parts)
