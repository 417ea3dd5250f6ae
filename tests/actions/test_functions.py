"""What may be an action, and how functions are found."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from circuit import action
from circuit.actions.functions import collect, described
from circuit.errors import InvalidRequest

SHOP = """
from circuit import action

@action
def charge_card(amount: int) -> dict:
    return {"receipt": f"r-{amount}"}

@action(name="shop.refund")
async def refund(receipt: str) -> None: ...

def no_action(): ...
"""


def test_the_decorator_leaves_the_function_as_it_is() -> None:
    @action
    def double(number: int) -> int:
        return 2 * number

    assert double(4) == 8
    assert described(double).name == "double"


def test_functions_are_found_in_a_file_and_by_the_name_of_a_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "corner_shop.py").write_text(SHOP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for source in ("corner_shop", str(tmp_path / "corner_shop.py"), "corner_shop.py"):
        assert set(collect([source])) == {"charge_card", "shop.refund"}
    functions = collect(["corner_shop"])
    assert not functions["charge_card"].asynchronous and functions["shop.refund"].asynchronous


def test_one_function_may_be_named_twice_and_two_may_not() -> None:
    @action
    def one() -> None: ...

    @action(name="one")
    def other() -> None: ...

    assert set(collect([one, one])) == {"one"}
    with pytest.raises(InvalidRequest, match=r"two actions have the name 'one': .*\.one and .*\.other"):
        collect([one, other])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("no_such_module_anywhere", "cannot be imported: ModuleNotFoundError"),
        ("no_such_file.py", "there is no Python file"),
        ("json", "json has no function that is marked with @action"),
        (ModuleType("empty"), "empty has no function that is marked"),
    ],
)
def test_what_cannot_be_found(source: str | ModuleType, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        collect([source])


def test_a_module_that_fails_says_how(tmp_path: Path) -> None:
    file = tmp_path / "broken.py"
    file.write_text("raise ValueError('no database today')")
    for _ in range(2):
        with pytest.raises(InvalidRequest, match="ValueError: no database today"):
            collect([str(file)])


def test_what_cannot_be_an_action_is_refused_where_it_is_written() -> None:
    def yields():
        yield 1

    def takes_any(*values: int) -> None: ...

    def takes_a_module(value: sys) -> None: ...  # type: ignore[valid-type]

    for function, message in (
        (yields, "yields; an action returns its output"),
        (takes_any, r"takes \*values; inputs have names"),
        (takes_a_module, "inputs cannot be checked against the annotation of value"),
        (lambda: None, "cannot be the name of an action"),
    ):
        with pytest.raises(InvalidRequest, match=message):
            action(function)
