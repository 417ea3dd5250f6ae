"""Images that agents are shown: every way to give one, and what is none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from chat_server import ChatServer
from surroundings import Book
from test_agent_action import call

from circuit.actions.agent import AgentAction
from circuit.agents.image import images_of
from circuit.errors import InvalidInput
from circuit.providers.messages import ImagePart
from circuit.providers.profiles import DEFAULT, misfits
from circuit.providers.registry import ProviderRegistry

DOT = "iVBORw0KGgo="


@pytest.mark.parametrize(
    ("value", "images"),
    [
        (None, ()),
        ([], ()),
        ("https://example.org/a.png", (ImagePart(url="https://example.org/a.png"),)),
        (f"data:image/jpeg;base64,{DOT}", (ImagePart("image/jpeg", DOT),)),
        ({"url": "http://example.org/a"}, (ImagePart(url="http://example.org/a"),)),
        (
            [{"data": DOT}, {"data": DOT, "media_type": "image/webp"}, {"data": "/9j/4AAQ"}, {"data": "AAAA"}],
            (
                ImagePart("image/png", DOT),
                ImagePart("image/webp", DOT),
                ImagePart("image/jpeg", "/9j/4AAQ"),
                ImagePart("image/png", "AAAA"),
            ),
        ),
    ],
)
def test_what_is_an_image(value: Any, images: tuple[ImagePart, ...]) -> None:
    assert images_of(value, "photo") == images


@pytest.mark.parametrize(
    "value",
    [
        "a.png",
        "ftp://example.org/a.png",
        "data:text/html;base64,AAAA",
        "data:image/png,abc",
        "data:image/png;base64,",
        {"data": "not base64!"},
        {"data": DOT, "media_type": "text/html"},
        {},
        7,
        ["https://example.org", 7],
        ["https://example.org"] * 21,
    ],
)
def test_what_is_none(value: Any) -> None:
    with pytest.raises(InvalidInput, match="the input photo"):
        images_of(value, "photo")


async def test_they_are_shown_with_the_message_and_are_no_part_of_the_text() -> None:
    async with ChatServer([{"text": "A dot."}]) as server:
        asked = call({"type": "custom", "model": "m", "options": {"base_url": server.url}}, schema=None)
        asked.config["agent"]["images"] = ["photo"]
        asked.config["agent"]["prompts"]["user_template"] = "What is it? {input_data}"
        shown = replace(asked, inputs={"photo": {"data": DOT}, "n": 1})
        assert (await AgentAction(ProviderRegistry({})).perform(shown, Book())).text == "A dot."
        told = server.requests[0].body["messages"][-1]["content"]
    assert told == [
        {"type": "text", "text": 'What is it? {"n":1}'},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{DOT}"}},
    ]


def test_a_model_that_takes_none_is_a_fault() -> None:
    assert DEFAULT.images
    assert misfits("gpt-4.1", {}, images=True) == []
    assert misfits("gpt-3.5-turbo", {}, images=True) == ["gpt-3.5-turbo takes no images"]
