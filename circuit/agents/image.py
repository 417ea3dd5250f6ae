"""Images that agents are shown: as an address that the provider fetches, or as base64."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, cast

from circuit.errors import InvalidInput
from circuit.providers.messages import ImagePart

MOST_IMAGES = 20
_MARK = ";base64,"
_BEGINNINGS = {"/9j/": "image/jpeg", "iVBORw0KGgo": "image/png", "R0lGOD": "image/gif", "UklGR": "image/webp"}
"""How images of a kind begin, as base64."""


def image_at(url: Any, at: str) -> ImagePart:
    """The image at an address, or in a data URL. Raises `InvalidInput`, which names `at`."""
    if not isinstance(url, str) or not url.startswith(("https://", "http://", "data:image/")):
        raise InvalidInput(f"{at} must be an http URL or a data URL of an image")
    if not url.startswith("data:"):
        return ImagePart(url=url)
    head, mark, data = url.partition(_MARK)
    if not mark or not data:
        raise InvalidInput(f"{at} must hold its image as base64")
    return ImagePart(head.removeprefix("data:"), _checked(data, at))


def images_of(value: Any, name: str) -> tuple[ImagePart, ...]:
    """The images in the input `name`: an address, a data URL, `{url}` or `{data, media_type}`, or a list of these;
    none where it is null. Raises `InvalidInput`."""
    if value is None:
        return ()
    if not isinstance(value, list):
        return (_image(value, f"the input {name}"),)
    entries = cast("list[Any]", value)
    if len(entries) > MOST_IMAGES:
        raise InvalidInput(f"the input {name} holds {len(entries)} images; an agent is shown {MOST_IMAGES} at most")
    return tuple(_image(entry, f"the input {name}[{number}]") for number, entry in enumerate(entries))


def _image(value: Any, at: str) -> ImagePart:
    if not isinstance(value, Mapping):
        return image_at(value, at)
    fields = cast("Mapping[str, Any]", value)
    data, kind = fields.get("data"), fields.get("media_type")
    if not isinstance(data, str):
        return image_at(fields.get("url"), at)
    if kind is None:
        kind = next((one for begin, one in _BEGINNINGS.items() if data.startswith(begin)), "image/png")
    if not isinstance(kind, str) or not kind.startswith("image/"):
        raise InvalidInput(f"{at} has the media_type {kind!r:.80}, which is none of an image")
    return ImagePart(kind, _checked(data, at))


def _checked(data: str, at: str) -> str:
    try:
        base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInput(f"{at} must hold its image as base64") from None
    return data
