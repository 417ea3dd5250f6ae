"""`/explorer`: the page and its files, where the schema may be explored.

It asks for no credential: it holds nothing but itself, and what it sends to `/graphql` is looked at there.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response

from circuit.api.exposure import Exposure
from circuit.errors import NotFound

PATH = "/explorer"
FILES = {
    "graphiql.min.css": "text/css",
    "start.css": "text/css",
    "react.production.min.js": "text/javascript",
    "react-dom.production.min.js": "text/javascript",
    "graphiql.min.js": "text/javascript",
    "start.js": "text/javascript",
}
PATHS = frozenset({PATH, *(f"{PATH}/{name}" for name in FILES)})
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; font-src data:; img-src 'self' data:;"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The page loads nothing from elsewhere and talks to nobody else. Its editor sets styles in the document."""


class ExplorerPage:
    """Serves the page where `exposure` allows it, and else nothing."""

    def __init__(self, exposure: Exposure) -> None:
        self._exposure = exposure

    @property
    def shown(self) -> bool:
        """Whether there is a page, and the schema may be asked for."""
        return self._exposure.explorable

    async def page(self, request: Request) -> Response:
        self._check()
        headers = {"content-security-policy": POLICY, "cache-control": "no-cache"}
        return Response(_read("index.html"), media_type="text/html", headers=headers)

    async def file(self, request: Request) -> Response:
        self._check()
        name = request.path_params["name"]
        kind = FILES.get(name)
        if kind is None:
            raise NotFound("the explorer has no such file")
        return Response(_read(name), media_type=kind, headers={"cache-control": "no-cache"})

    def _check(self) -> None:
        if not self.shown:
            raise NotFound("the schema is explored where only this machine can reach the server")


@cache
def _read(name: str) -> bytes:
    return files("circuit.api.explorer").joinpath("assets", name).read_bytes()
