"""The shell and fetching: what they do, and all that they cannot reach."""

from __future__ import annotations

import asyncio
import shutil
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer
from eventually import eventually
from hypothesis import given
from hypothesis import strategies as st

from circuit.agents.toolbox.fetch import Gate, fetch_tool, public, text_of
from circuit.agents.toolbox.shell import MEGABYTE, MOST_PROCESSES, Bounds, isolator, shell_tool
from circuit.agents.tools import ToolContext, call_tool
from circuit.errors import ToolDenied, ToolError, ToolFailed, ToolOutputBinary, ToolsMisconfigured, ToolTimeout
from circuit.http import Http

AROUND = ToolContext("case.1", "a", "c", "k")
needs_bubblewrap = pytest.mark.skipif(shutil.which("bwrap") is None, reason="install bubblewrap to try the shell")


async def run(root: Path, command: str, **bounds: Any) -> dict[str, Any]:
    return await call_tool(shell_tool(root, Bounds(**bounds)), {"command": command}, AROUND)


@needs_bubblewrap
class TestShell:
    async def test_it_works_on_the_agents_files(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("pear\napple\n")
        ended = await run(tmp_path, "sort a.txt > b.txt; cat b.txt; echo oops >&2; exit 3")
        assert ended == {"exit_code": 3, "stdout": "apple\npear\n", "stderr": "oops\n"}
        assert (tmp_path / "b.txt").read_text() == "apple\npear\n"

    @pytest.mark.parametrize(
        "command",
        [
            "cat /etc/passwd",
            "ls /root /home /var",
            "cat /proc/1/environ | tr '\\0' '\\n' | grep -v -e ^PATH= -e ^HOME= -e ^LANG= -e ^PWD= | grep .",
            "kill -9 $PPID; test $(ls -d /proc/[0-9]* | wc -l) -gt 6",
            "touch /usr/bin/x || touch /x/y || exit 1",
            "python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", 9))' || exit 1",
            "test -w /proc/sys/kernel/core_pattern || test -w /proc/sysrq-trigger",
            "echo > /x; test -e /x || echo > /dev/x",
            "mount -t tmpfs none /mnt",
            "chroot / true",
        ],
    )
    async def test_it_reaches_nothing_else(self, tmp_path: Path, command: str) -> None:
        assert (await run(tmp_path, command))["exit_code"] != 0

    async def test_there_is_no_network(self, tmp_path: Path) -> None:
        async with ChatServer() as server:
            command = f"exec 3<>/dev/tcp/127.0.0.1/{server.port}"
            ended = await run(tmp_path, f"bash -c '{command}'")
        assert ended["exit_code"] != 0
        assert server.connections == 0

    async def test_time_is_bounded_and_nothing_is_left(self, tmp_path: Path) -> None:
        # A time that nobody else sleeps: by it its processes are found among all others.
        long = f"300.{uuid.uuid4().int}"
        command = f"sleep {long} & sleep {long}"
        begun = time.monotonic()
        with pytest.raises(ToolTimeout, match=r"within 0\.5 s"):
            await run(tmp_path, command, seconds=0.5)
        # What writes as fast as it can is ended as fast.
        with pytest.raises(ToolTimeout, match=r"the command did not end within 0\.5 s"):
            await run(tmp_path, "yes", seconds=0.5)
        assert time.monotonic() - begun < 200
        await eventually(lambda: not _command_lines(long), what="the end of what took too long")
        # They are found where there are any, and a call that is given up leaves none either.
        calling = asyncio.create_task(run(tmp_path, command, seconds=200))
        await eventually(lambda: _command_lines(long).count(f"sleep {long}") == 2, what="both commands run")
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        await eventually(lambda: not _command_lines(long), what="the end of what was given up")

    async def test_memory_and_files_are_bounded(self, tmp_path: Path) -> None:
        ended = await run(tmp_path, "head -c 300000000 /dev/zero | tail", memory=64 * MEGABYTE)
        assert ended["exit_code"] != 0
        parts = "for n in 1 2 3 4; do head -c 9000000 /dev/zero > PATH/$n || exit 1; done"
        for path in ("/tmp", "/dev/shm"):
            ended = await run(tmp_path, parts.replace("PATH", path), memory=32 * MEGABYTE)
            assert "No space left" in ended["stderr"]
        ended = await run(tmp_path, "head -c 3000000 /dev/zero > big", files=MEGABYTE)
        assert (tmp_path / "big").stat().st_size <= MEGABYTE

    async def test_processes_are_bounded(self, tmp_path: Path) -> None:
        bomb = f"n=0; while [ $n -lt {MOST_PROCESSES + 50} ]; do sleep 100 & n=$((n+1)); done; wait"
        try:
            ended = await run(tmp_path, bomb)
        except ToolFailed as error:
            assert "more than 256 processes" in error.message
        else:
            assert "fork" in ended["stderr"], "whoever is not root gets no more of them"

    async def test_output_is_bounded_and_need_not_be_text(self, tmp_path: Path) -> None:
        ended = await run(tmp_path, "head -c 50000000 /dev/zero", output=1000)
        assert len(ended["stdout"]) == 1000
        assert ended["truncated"] is True
        assert "\0" not in ended["stdout"]


def _command_lines(part: str) -> list[str]:
    """Those of all processes that hold `part`."""
    found: list[str] = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended meanwhile
            found.append(path.read_bytes().decode(errors="replace").rstrip("\0").replace("\0", " "))
    return [line for line in found if part in line]


def test_without_an_isolator_there_is_no_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolsMisconfigured, match="install it"):
        shell_tool(tmp_path, Bounds(), isolator)


async def test_an_isolator_that_does_not_work_runs_nothing(tmp_path: Path) -> None:
    broken = tmp_path / "bwrap"
    broken.write_text('#!/bin/sh\necho "bwrap: no permissions to create a new namespace" >&2\nexit 1\n')
    broken.chmod(0o755)
    tool = shell_tool(tmp_path, Bounds(), lambda: str(broken))
    with pytest.raises(ToolFailed, match="sandbox could not be made"):
        await call_tool(tool, {"command": "touch ran"}, AROUND)
    assert not (tmp_path / "ran").exists()


class TestFetch:
    async def fetch(self, url: str, gate: Gate, addresses: dict[str, Sequence[str]] | None = None) -> dict[str, Any]:
        asked: list[str] = []

        async def resolve(host: str, port: int) -> Sequence[str]:
            asked.append(host)
            return (addresses or {}).get(host, ["127.0.0.1"])

        http = Http()
        try:
            made = await call_tool(fetch_tool(http, gate, 1000, resolve), {"url": url}, AROUND)
        finally:
            await http.aclose()
        assert len(asked) == len(set(asked)) or "redirect" in url, "a name is resolved once for a request"
        return made

    async def test_a_page(self) -> None:
        async with ChatServer([{"status": 200, "body": "hello", "headers": {"X-A": "1"}}]) as server:
            made = await self.fetch(f"http://docs.test:{server.port}/page", Gate(("*.test",), private=True))
            assert server.requests[0].headers["host"] == f"docs.test:{server.port}"
        assert (made["status"], made["text"]) == (200, "hello")

    async def test_a_large_page_is_cut(self) -> None:
        async with ChatServer([{"status": 200, "body": "x" * 5000}]) as server:
            made = await self.fetch(f"http://a.test:{server.port}", Gate(("a.test",), private=True))
        assert (len(made["text"]), made["truncated"]) == (1000, True)

    @pytest.mark.parametrize(
        "url",
        [
            "http://other.org/", "http://docs.test.evil.org/", "ftp://docs.test/", "file:///etc/passwd", "docs.test",
            "http://user:pw@docs.test/", "http://docs.test@evil.org/", "http://[::1", "http://127.0.0.1/", "http://2130706433/",
        ],
    )  # fmt: skip
    async def test_hosts_that_are_not_named(self, url: str) -> None:
        with pytest.raises(ToolDenied):
            await self.fetch(url, Gate(("docs.test",)))

    @pytest.mark.parametrize(
        "address",
        ["127.0.0.1", "10.0.0.1", "169.254.169.254", "0.0.0.0", "::1", "fd00::1", "::ffff:10.0.0.1", "100.64.0.1"],
    )
    async def test_a_name_with_a_private_address(self, address: str) -> None:
        async with ChatServer() as server:
            url = f"http://docs.test:{server.port}/"
            with pytest.raises(ToolDenied, match="private address"):
                await self.fetch(url, Gate(("docs.test",)), {"docs.test": ["93.184.215.14", address]})
            assert server.connections == 0

    async def test_a_redirect_leads_to_named_hosts_only(self) -> None:
        moved = {"status": 302, "headers": {"Location": "http://inner.test/secret"}}
        async with ChatServer([moved]) as server:
            with pytest.raises(ToolDenied, match=r"inner\.test"):
                await self.fetch(f"http://docs.test:{server.port}/", Gate(("docs.test",), private=True))
        async with ChatServer([{"status": 302, "headers": {"Location": "/redirect"}}]) as server:
            with pytest.raises(ToolFailed, match="redirects"):
                await self.fetch(f"http://docs.test:{server.port}/redirect", Gate(("docs.test",), private=True))

    async def test_what_is_no_text(self) -> None:
        async with ChatServer([{"status": 200, "body": "GIF\0\1\2"}]) as server:
            with pytest.raises(ToolOutputBinary, match="no text"):
                await self.fetch(f"http://docs.test:{server.port}/", Gate(("docs.test",), private=True))

    def test_text_is_read_whatever_encoding_its_type_names(self) -> None:
        assert text_of("Grüße".encode("latin-1"), "text/plain; charset=iso-8859-1") == "Grüße"
        for none in ("no-such", "undefined", "idna", "a\0b", "hex"):
            assert text_of(("ü" * 100).encode(), f"text/plain; charset={none}") == "ü" * 100, none

    @pytest.mark.parametrize(
        ("address", "is_public"),
        [
            ("93.184.215.14", True),
            ("2606:2800:21f::1", True),
            ("64:ff9b::a00:1", False),
            ("2002:a00:1::", False),
            ("fe80::1%eth0", False),
            ("224.0.0.1", False),
            ("fec0::1", False),
            ("x", False),
        ],
    )
    def test_public_addresses(self, address: str, is_public: bool) -> None:
        assert public(address) is is_public

    @given(url=st.text(max_size=40))
    def test_whatever_an_address_is_it_is_refused_by_name(self, url: str) -> None:
        async def nowhere(host: str, port: int) -> Sequence[str]:
            raise AssertionError("resolved")

        with pytest.raises(ToolError):
            asyncio.run(Gate(("docs.test",)).address(url, nowhere))
