"""What a workflow file and an agent in it say of screening."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Tag

from circuit.definition.field import Part, by_kind
from circuit.security.screening.found import KINDS

Action = Literal["allow", "warn", "refuse"]
_ABOUT = "allow (nothing), warn (made harmless, and told), refuse (the execution fails)."


class ScreeningActions(Part):
    """What is done about each kind of what is found."""

    invisible_characters: Annotated[
        Action | None, Field(description=f"Characters that people do not see and models read: {_ABOUT}")
    ] = None
    injected_instructions: Annotated[
        Action | None, Field(description=f"Texts that speak to a model, plain or coded: {_ABOUT}")
    ] = None
    control_tokens: Annotated[
        Action | None, Field(description=f"Marks of chat templates, such as <|im_start|> and [INST]: {_ABOUT}")
    ] = None


Screening = Annotated[
    Annotated[Action, Tag("<text>")] | Annotated[ScreeningActions, Tag("<mapping>")],
    by_kind("allow, warn or refuse, for all kinds or for each: {injected_instructions: refuse}", "text", "mapping"),
]


def screening_json(said: Action | ScreeningActions | None) -> dict[str, str]:
    """The actions by their kinds, as canonical JSON; nothing where nothing is said."""
    if said is None:
        return {}
    if isinstance(said, str):
        return dict.fromkeys(KINDS, said)
    return said.model_dump(exclude_none=True)
