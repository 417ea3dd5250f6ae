"""What a workflow file says of arcs, and of the parts of a net that are cancelled as a whole."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Tag

from circuit.definition.field import Identifier, Line, Part, Text, by_kind

MAX_WEIGHT = 1_000


class InputArcEntry(Part):
    """An arc into a transition."""

    place: Annotated[Identifier, Field(description="The place.")]
    weight: Annotated[int | None, Field(ge=1, le=MAX_WEIGHT, description="How many tokens. Default: 1.")] = None
    mode: Annotated[
        Literal["consume", "read", "inhibit", "drain", "reset"] | None,
        Field(
            description="consume takes the tokens, read only looks at them, inhibit wants fewer than `weight` to lie "
            "there, drain takes all that are available (`weight` at least), reset empties the place when the "
            "transition fires. Default: consume."
        ),
    ] = None
    where: Annotated[Text | None, Field(description="CEL over `token`: which tokens of the place the arc means.")] = (
        None
    )
    correlate: Annotated[
        Line | None,
        Field(description="Path of a key (data.order_id): all arcs that name one take tokens with the same key."),
    ] = None
    order: Annotated[
        Literal["oldest", "newest"] | None, Field(description="Which of several tokens comes first. Default: oldest.")
    ] = None
    gather: Annotated[
        Identifier | None,
        Field(description="Takes one token for each element of the list that this transition made tokens of."),
    ] = None


class OutputArcEntry(Part):
    """An arc out of a transition."""

    place: Annotated[Identifier, Field(description="The place.")]
    weight: Annotated[int | None, Field(ge=1, le=MAX_WEIGHT, description="How many tokens. Default: 1.")] = None
    data: Annotated[
        dict[Line, Text] | None,
        Field(
            description="The data of the new token: a CEL expression for each key. Without it the inputs are merged."
        ),
    ] = None
    each: Annotated[
        Text | None,
        Field(
            description="CEL that gives a list: one token for each element, which `data` knows as `item` and `index`. "
            "Without `data` the element is the token's data."
        ),
    ] = None
    most: Annotated[int | None, Field(ge=1, le=10_000, description="The most elements that the list may have.")] = None


Inputs = Annotated[
    Annotated[Identifier, Tag("<text>")]
    | Annotated[
        list[
            Annotated[
                Annotated[Identifier, Tag("<text>")] | Annotated[InputArcEntry, Tag("<mapping>")],
                by_kind("the name of a place, or {place, weight, mode}", "text", "mapping"),
            ]
        ],
        Tag("<list>"),
    ],
    by_kind("a place, or a list of places and arcs", "text", "list"),
]
Output = Annotated[
    Annotated[Identifier, Tag("<text>")] | Annotated[OutputArcEntry, Tag("<mapping>")],
    by_kind("the name of a place, or {place, weight, data} (several go under to_places)", "text", "mapping"),
]
Outputs = Annotated[
    Annotated[Identifier, Tag("<text>")] | Annotated[list[Output], Tag("<list>")],
    by_kind("a place, or a list of places and arcs", "text", "list"),
]


class RegionEntry(Part):
    """A part of the net that can be cancelled as a whole."""

    places: Annotated[
        list[Identifier] | None, Field(description="Their tokens are taken, and the firings that hold some cancelled.")
    ] = None
    transitions: Annotated[
        list[Identifier] | None, Field(description="Their firings are cancelled, with the tokens that they hold.")
    ] = None


class CancelEntry(RegionEntry):
    """What a transition cancels when it fires."""

    regions: Annotated[list[Identifier] | None, Field(description="Regions, by their names under `regions`.")] = None
