"""What an action returned, as JSON."""

from __future__ import annotations

import inspect
from typing import Any

from pydantic_core import PydanticSerializationError, to_jsonable_python

from circuit.engine.payload import PayloadFault, PayloadOversize, storable
from circuit.errors import InvalidOutput

_LONGEST_MESSAGE = 500


def as_json(name: str, result: Any) -> Any:
    """What a function returned, as JSON: models, dataclasses, dates, sets and the like in their JSON form.

    Raises `InvalidOutput`.
    """
    if inspect.isgenerator(result) or inspect.isasyncgen(result) or inspect.isawaitable(result):
        raise InvalidOutput(f"{name} returned {type(result).__name__}, which cannot be stored; return its value")
    try:
        return storable(to_jsonable_python(result))
    except PayloadFault as fault:
        raise InvalidOutput(f"{name} returned what cannot be stored: {fault}"[:_LONGEST_MESSAGE]) from None
    except PayloadOversize as oversize:
        raise InvalidOutput(
            f"{name} returned too much: {oversize}; store it elsewhere and return where it lies"
        ) from None
    except (PydanticSerializationError, ValueError, TypeError, RecursionError) as error:
        message = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InvalidOutput(f"{name} returned what cannot be JSON: {message:.300}") from None
