"""The functions that workflows may call: what `@action` marks, and how a process finds it."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar, overload

from circuit.actions.signature import Signature
from circuit.agents.function import SECONDS_MARK
from circuit.definition.action_document import FUNCTION_NAME
from circuit.errors import InvalidRequest

MARK = "__circuit_action__"
"""Where a function says that it is an action, and of which name."""

Called = TypeVar("Called", bound=Callable[..., Any])
Source = Callable[..., Any] | ModuleType | str
"""Where functions come from: a function, a module, or the name or the path of one."""


@dataclass(frozen=True, slots=True)
class Function:
    """A registered function. `asynchronous` ones run on the event loop, the others in threads."""

    name: str
    call: Callable[..., Any]
    signature: Signature
    asynchronous: bool


@overload
def action(function: Called, /) -> Called: ...
@overload
def action(*, name: str | None = None, tool_seconds: float | None = None) -> Callable[[Called], Called]: ...
def action(
    function: Called | None = None, /, *, name: str | None = None, tool_seconds: float | None = None
) -> Called | Callable[[Called], Called]:
    """Mark a function as one that workflows may call, under its own name or another one. Where an agent calls it as a
    tool, the call may take `tool_seconds`.

    @action
    async def charge_card(amount: int, currency: str = "EUR", *, ctx: Context) -> dict:
        charge = await ctx.step("charge", lambda: bank.charge(amount, key=ctx.idempotency_key))
        return {"receipt": charge["id"]}
    """

    def mark(marked: Called) -> Called:
        # What cannot be an action is said where it is written, not when a workflow first calls it.
        known = described(marked, name)
        if tool_seconds is not None:
            if not tool_seconds > 0:
                raise InvalidRequest(f"action {known.name}: tool_seconds must be more than 0, not {tool_seconds}")
            if known.signature.context is not None:
                raise InvalidRequest(f"action {known.name} takes a context, so it is no tool: leave tool_seconds out")
            setattr(marked, SECONDS_MARK, float(tool_seconds))
        setattr(marked, MARK, known.name)
        return marked

    return mark if function is None else mark(function)


def described(call: Callable[..., Any], name: str | None = None) -> Function:
    """`call` as a function that workflows may call. Raises `InvalidRequest` where it cannot be one."""
    known: str = name or getattr(call, MARK, None) or getattr(call, "__name__", "")
    if not re.fullmatch(FUNCTION_NAME, known):
        raise InvalidRequest(f"{known!r} cannot be the name of an action: give one, as in @action(name='charge_card')")
    if inspect.isgeneratorfunction(call) or inspect.isasyncgenfunction(call):
        raise InvalidRequest(f"action {known} yields; an action returns its output (ctx.emit streams on the way)")
    return Function(known, call, Signature.of(known, call), inspect.iscoroutinefunction(call))


def collect(sources: Iterable[Source]) -> dict[str, Function]:
    """The functions of these sources, by name. Of a module: those that `@action` marks.

    Raises `InvalidRequest` where a module cannot be imported or holds none, or two functions have one name.
    """
    found: dict[str, Function] = {}
    for source in sources:
        for function in _functions(source):
            earlier = found.setdefault(function.name, function)
            if earlier.call is not function.call:
                raise InvalidRequest(
                    f"two actions have the name {function.name!r}: {_place(earlier.call)} and {_place(function.call)};"
                    " rename one with @action(name=...)"
                )
    return found


def _functions(source: Source) -> list[Function]:
    if not isinstance(source, str | ModuleType):
        return [described(source)]
    module = _module(source) if isinstance(source, str) else source
    marked: Mapping[int, Any] = {id(value): value for value in vars(module).values() if _is_marked(value)}
    if not marked:
        raise InvalidRequest(f"module {module.__name__} has no function that is marked with @action")
    return [described(value) for value in marked.values()]


def _is_marked(value: Any) -> bool:
    return callable(value) and isinstance(getattr(value, MARK, None), str)


def _module(name: str) -> ModuleType:
    """The module of this dotted name, looked for in the current directory too, or of this path."""
    try:
        if name.endswith(".py"):
            return _from_file(Path(name).resolve())
        here = str(Path.cwd())
        if here not in sys.path and "" not in sys.path:
            sys.path.append(here)
        return importlib.import_module(name)
    except InvalidRequest:
        raise
    except Exception as error:
        raise InvalidRequest(
            f"the module {name!r} with actions cannot be imported: {type(error).__name__}: {error}"
        ) from error


def _from_file(path: Path) -> ModuleType:
    name = f"circuit_actions_{path.stem}"
    known = sys.modules.get(name)
    if known is not None and known.__file__ == str(path):
        return known
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise InvalidRequest(f"there is no Python file {str(path)!r} to take actions from")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _place(call: Callable[..., Any]) -> str:
    return f"{getattr(call, '__module__', '?')}.{getattr(call, '__qualname__', call)}"
