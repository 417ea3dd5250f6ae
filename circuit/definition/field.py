"""The kinds of values that keys of a workflow file take, and the mark of those that this release does not run."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, StringConstraints, Tag
from pydantic_core import PydanticCustomError

IDENTIFIER = r"^[A-Za-z_][A-Za-z0-9_-]*$"
MAX_SECONDS = 10 * 366 * 86_400

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")
_ISO_DURATION = re.compile(
    r"P(?!$)(?:(?P<w>\d+)W)?(?:(?P<d>\d+)D)?(?:T(?=\d)(?:(?P<h>\d+)H)?(?:(?P<m>\d+)M)?(?:(?P<s>\d+(?:\.\d+)?)S)?)?"
)
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}


class Part(BaseModel):
    """A mapping in a workflow file. Unknown keys are faults, and no value is taken for one of another kind."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=False)


def kind_of(value: Any) -> str:
    """The kind of a YAML value in one word: `text`, `number`, `boolean`, `list`, `mapping` or `nothing`."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "text"
    return "list" if isinstance(value, list) else "mapping"


class ErrorContext(dict[str, Any]):
    """What an error of a union is told. Hashable, because a type that stands in `X | None` is hashed with its marks."""

    def __hash__(self) -> int:  # type: ignore[override]
        return id(self)


def by_kind(expected: str, *kinds: str) -> Discriminator:
    """Chooses the branch of a union by the kind of the value, so that a fault speaks of the form that was meant.

    The branches are tagged `<text>`, `<list>`, ...; `expected` says in the fault what may stand here.
    """

    def tag(value: Any) -> str | None:
        kind = kind_of(value)
        return f"<{kind}>" if kind in kinds else None

    return Discriminator(
        tag,
        custom_error_type="wrong_kind",
        custom_error_message="wrong kind",
        custom_error_context=ErrorContext(expected=expected),
    )


def fault(kind: str, message: str, hint: str = "", **context: Any) -> PydanticCustomError:
    """An error of a validator whose message is already in plain words."""
    # Braces would be taken for places of the context.
    return PydanticCustomError(kind, "{message}", {"message": message, "hint": hint, **context})  # type: ignore[arg-type]


def seconds(value: float | str) -> float:
    """A duration in seconds: a number of them, `10s`, `5m`, `2h`, `14d`, or ISO 8601. Raises `ValueError`."""
    if isinstance(value, int | float):
        return float(value)
    if match := _DURATION.fullmatch(value):
        return float(match[1]) * _UNITS[match[2]]
    if match := _ISO_DURATION.fullmatch(value):
        return sum(float(count) * _UNITS[unit] for unit, count in match.groupdict().items() if count)
    raise ValueError(f"{value!r} is not a duration")


def _check_duration(value: str) -> str:
    if len(value) > 40:
        raise fault("duration", "this is not a duration", "write seconds, or 10s, 5m, 2h, 14d, or ISO 8601 (PT10M)")
    try:
        length = seconds(value)
    except ValueError as error:
        hint = "write seconds, or 10s, 5m, 2h, 14d, or ISO 8601 (PT10M)"
        if re.fullmatch(r"\d+(\.\d+)?", value):
            hint = "write seconds as a number, without quotes"
        elif value.startswith("P"):
            hint = "write ISO 8601 in weeks, days, hours, minutes and seconds; years and months differ in length"
        raise fault("duration", str(error), hint) from None
    if length > MAX_SECONDS:
        raise fault("duration", f"{value!r} is longer than ten years")
    return value


Identifier = Annotated[str, StringConstraints(pattern=IDENTIFIER, max_length=100)]
Text = Annotated[str, StringConstraints(max_length=200_000)]
Line = Annotated[str, StringConstraints(min_length=1, max_length=2_000)]
JsonObject = dict[str, Any]

Duration = Annotated[
    Annotated[float, Field(ge=0, le=MAX_SECONDS), Tag("<number>")]
    | Annotated[
        str,
        AfterValidator(_check_duration),
        Field(json_schema_extra={"pattern": r"^(\d+(\.\d+)?(ms|s|m|h|d|w)|P.+)$", "examples": ["10s", "5m", "PT1H"]}),
        Tag("<text>"),
    ],
    by_kind("a duration: seconds, or 10s, 5m, 2h, 14d, or ISO 8601", "number", "text"),
]
