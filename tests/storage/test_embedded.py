"""The embedded Postgres: shared by processes, safe against kill -9, clear about directories that it cannot use."""

from __future__ import annotations

import asyncio
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import asyncpg
import psutil
import pytest
from postgres import make_folder

from circuit.errors import DatabaseMisconfigured, DatabaseNotStarted, HomeNotWritable
from circuit.storage import cluster, embedded

HOLD = """
import sys
from pathlib import Path
from circuit.storage import embedded
server = embedded.start(Path(sys.argv[1]))
print(server.url, flush=True)
sys.stdin.readline()
server.stop()
"""

REFUSED = """
import os, sys, fasteners, psutil
from pathlib import Path
from circuit.errors import HomeNotWritable
from circuit.storage import cluster, embedded
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    embedded.start(Path(sys.argv[1]))
except HomeNotWritable as error:
    print(error.message)
"""


def postmaster(home: Path) -> psutil.Process | None:
    """The server's first process, if it lives."""
    try:
        number = int((cluster.data_directory(home) / "postmaster.pid").read_text().split()[0])
        return psutil.Process(number)
    except (OSError, psutil.NoSuchProcess):
        return None


def wait_for_end(*processes: psutil.Process, seconds: float = 30) -> None:
    """Wait until these processes have ended, collected by their parent or not. Fails after `seconds`."""
    for process in processes:
        try:
            descriptor = os.pidfd_open(process.pid)
        except ProcessLookupError:
            continue
        except AttributeError:  # not Linux
            process.wait(seconds)
            continue
        try:
            assert select.select([descriptor], [], [], seconds)[0], f"{process} still runs"
        finally:
            os.close(descriptor)


def lives(process: psutil.Process | None) -> bool:
    return process is not None and process.is_running() and process.status() != psutil.STATUS_ZOMBIE


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    """A directory whose data was made once: making it takes longer than most of what is tested."""
    folder = make_folder("circuit-made-")
    embedded.start(folder).stop()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def new_home(home: Path) -> Iterator[Path]:
    """A directory without data, and the certainty that no server outlives the test."""
    yield home
    server = postmaster(home)
    if server and lives(server):
        server.send_signal(signal.SIGQUIT)
        wait_for_end(server)


@pytest.fixture
def used_home(new_home: Path, made: Path) -> Path:
    """A directory with the data of a server that was stopped."""
    copy_data(made, new_home)
    return new_home


def copy_data(made: Path, home: Path) -> None:
    home.mkdir(exist_ok=True)
    subprocess.run(["cp", "-a", str(made / "postgres"), str(home)], check=True)


def holder(home: Path) -> subprocess.Popen[str]:
    """Another process that holds the server until it reads a line."""
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def read_url(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def scalar(url: str, query: str) -> object:
    """What a query answers, asked over a connection of its own."""

    async def ask() -> object:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetchval(query)
        finally:
            await connection.close()

    return asyncio.run(ask())


def test_a_new_directory_gets_a_server_that_the_last_hold_stops(new_home: Path) -> None:
    first = embedded.start(new_home)
    second = embedded.start(new_home)
    assert first.url == second.url
    assert scalar(first.url, "SHOW fsync") == "on"
    assert str(scalar(first.url, "SHOW server_version")).startswith(str(cluster.VERSION))
    first.stop()
    first.stop()
    assert scalar(second.url, "SELECT 1") == 1
    server = postmaster(new_home)
    assert lives(server)
    second.stop()
    assert not lives(server)


def test_what_was_committed_is_there_after_a_stop(used_home: Path) -> None:
    server = embedded.start(used_home)
    scalar(server.url, "CREATE TABLE kept AS SELECT 41 + 1 AS value")
    server.stop()
    server = embedded.start(used_home)
    assert scalar(server.url, "SELECT value FROM kept") == 42
    server.stop()


def test_processes_that_race_for_the_first_start_share_one_server(new_home: Path) -> None:
    processes = [holder(new_home) for _ in range(4)]
    urls = {read_url(process) for process in processes}
    server = postmaster(new_home)
    assert len(urls) == 1 and lives(server)
    assert scalar(urls.pop(), "SELECT 1") == 1
    for process in processes:
        process.communicate("\n", timeout=60)
    assert [process.returncode for process in processes] == [0, 0, 0, 0]
    assert not lives(server)


def test_a_process_that_was_killed_is_no_longer_counted(used_home: Path) -> None:
    process = holder(used_home)
    url = read_url(process)
    process.kill()
    process.communicate(timeout=60)
    survivor = postmaster(used_home)
    joined = embedded.start(used_home)
    assert joined.url == url and lives(survivor)
    joined.stop()
    assert not lives(survivor)


def test_it_starts_again_after_everything_was_killed(used_home: Path) -> None:
    process = holder(used_home)
    scalar(read_url(process), "CREATE TABLE kept AS SELECT 7 AS value")
    server = postmaster(used_home)
    assert server is not None
    family = [server, *server.children(recursive=True)]
    process.kill()
    for member in family:
        with suppress(psutil.NoSuchProcess):  # a child may have missed its parent already
            member.kill()
    process.communicate(timeout=60)
    wait_for_end(*family)
    again = embedded.start(used_home)
    assert scalar(again.url, "SELECT value FROM kept") == 7
    again.stop()


def killed(home: Path) -> None:
    """The server of `home` dies as it does when the system takes its memory away."""
    server = postmaster(home)
    assert server is not None
    server.kill()
    wait_for_end(server)


def test_a_server_that_died_under_its_user_is_started_anew(used_home: Path) -> None:
    held = embedded.start(used_home)
    assert held.alive() and not held.revive()
    killed(used_home)
    assert not held.alive()
    again = embedded.start(used_home)
    assert held.alive() and again.url == held.url
    assert scalar(again.url, "SELECT 1") == 1
    killed(used_home)
    assert again.revive() and not held.revive(), "one of its users starts it"
    assert scalar(again.url, "SELECT 1") == 1
    again.stop()
    held.stop()
    assert postmaster(used_home) is None
    assert not held.revive() and not held.alive(), "who has given it back starts nothing"


def test_a_server_that_does_not_start_says_why_and_where_its_log_is(
    used_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = cluster.data_directory(used_home)
    held = embedded.start(used_home)

    def refused(cause: str) -> str:
        with pytest.raises(DatabaseNotStarted) as caught:
            held.revive()
        assert caught.value.details == {"home": str(used_home), "log": str(data / "server.log"), "cause": cause}
        assert str(data / "server.log") in caught.value.message or cause == "deleted"
        return caught.value.message

    control = data / "global" / "pg_control"
    control.rename(used_home / "control")
    killed(used_home)
    assert "is damaged" in refused("damaged")
    (used_home / "control").rename(control)
    with monkeypatch.context() as patched:
        patched.setattr(cluster, "LEAST_FREE_BYTES", 2**62)
        (data / "postgresql.conf").rename(used_home / "kept.conf")
        assert "its disk is full" in refused("disk_full")
    assert "could not access" in refused("unknown"), "what the server said is told"
    data.rename(used_home / "away")
    assert "deleted while it was in use" in refused("deleted")
    assert not data.exists(), "an empty database in its place would be worse than none"
    (used_home / "away").rename(data)
    (used_home / "kept.conf").rename(data / "postgresql.conf")
    assert held.revive()
    held.stop()


def test_a_record_whose_number_went_to_another_program_is_no_obstacle(used_home: Path) -> None:
    record = cluster.data_directory(used_home) / "postmaster.pid"
    record.write_text(f"{os.getpid()}\n{record.parent}\n1\n5432\n{record.parent}\n\n  1 1\nready   \n")
    server = embedded.start(used_home)
    assert scalar(server.url, "SELECT 1") == 1
    server.stop()


def test_an_empty_record_is_no_obstacle(used_home: Path) -> None:
    (cluster.data_directory(used_home) / "postmaster.pid").touch()
    server = embedded.start(used_home)
    assert scalar(server.url, "SELECT 1") == 1
    server.stop()


def test_data_that_was_not_finished_is_made_anew(new_home: Path) -> None:
    unfinished = new_home / "postgres.new"
    unfinished.mkdir()
    (unfinished / "PG_VERSION").write_text("18\n")
    server = embedded.start(new_home)
    assert scalar(server.url, "SELECT 1") == 1
    server.stop()
    assert not unfinished.exists()


@pytest.mark.parametrize("name", ["d" * 120, "a name with spaces, and a comma"])
def test_a_path_that_is_no_good_for_a_socket(new_home: Path, made: Path, name: str) -> None:
    copy_data(made, new_home / name)
    server = embedded.start(new_home / name)
    directory = Path(str(scalar(server.url, "SHOW unix_socket_directories")))
    assert scalar(server.url, "SHOW data_directory") == str(new_home / name / "postgres")
    assert directory.parent == Path("/tmp")
    assert directory.stat().st_mode & 0o077 == 0
    server.stop()
    directory.rmdir()


def test_a_short_path_that_somebody_else_made_is_refused(used_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "SOCKET_DIRECTORY_BYTES", 1)
    server = embedded.start(used_home)
    directory = Path(str(scalar(server.url, "SHOW unix_socket_directories")))
    server.stop()
    directory.chmod(0o777)
    with pytest.raises(DatabaseMisconfigured, match=str(directory)):
        embedded.start(used_home)
    directory.rmdir()


def test_nobody_else_can_open_the_socket(used_home: Path) -> None:
    server = embedded.start(used_home)
    assert scalar(server.url, "SHOW listen_addresses") == ""
    assert (cluster.data_directory(used_home) / ".s.PGSQL.5432").stat().st_mode & 0o077 == 0
    assert cluster.data_directory(used_home).stat().st_mode & 0o077 == 0
    server.stop()


def test_a_file_in_place_of_the_directory(new_home: Path) -> None:
    (new_home / "file").write_text("")
    with pytest.raises(HomeNotWritable, match=r"file: it is a file\. .*CIRCUIT_HOME"):
        embedded.start(new_home / "file")
    with pytest.raises(HomeNotWritable, match="below"):
        embedded.start(new_home / "file" / "below")


@pytest.mark.parametrize("name", [".", "new"])
def test_a_directory_that_cannot_be_written(new_home: Path, name: str) -> None:
    new_home.chmod(0o555)
    result = subprocess.run(
        [sys.executable, "-c", REFUSED, str(new_home / name)], capture_output=True, text=True, timeout=60
    )
    assert "Permission denied" in result.stdout and str(new_home) in result.stdout, result.stderr


def test_the_data_of_another_user(used_home: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to make data that belongs to another user")
    embedded.start(used_home).stop()  # makes the locks
    for path in (used_home, used_home / "embedded.lock", used_home / "users.lock"):
        os.chown(path, 65534, 65534)
    result = subprocess.run([sys.executable, "-c", REFUSED, str(used_home)], capture_output=True, text=True, timeout=60)
    assert "belongs to another user" in result.stdout, result.stderr


def test_data_of_another_postgres(used_home: Path) -> None:
    (cluster.data_directory(used_home) / "PG_VERSION").write_text("16\n")
    with pytest.raises(DatabaseMisconfigured, match="Postgres 16"):
        embedded.start(used_home)


def test_programs_that_the_server_user_cannot_reach_are_copied(
    used_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: only then the server runs as another user")
    monkeypatch.setattr(cluster, "_usable", lambda install, account: False)
    server = embedded.start(used_home)
    assert scalar(server.url, "SELECT 1") == 1
    running = postmaster(used_home)
    assert running is not None and Path(running.exe()).is_relative_to(used_home)
    server.stop()


def test_the_home_of_root_stays_closed(new_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: only then the server runs as another user")
    import pwd

    of_root = new_home / "root"
    of_root.mkdir(mode=0o700)
    entry = pwd.getpwuid(0)
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: pwd.struct_passwd((*entry[:5], str(of_root), entry[6])))
    with pytest.raises(HomeNotWritable, match="/var/lib/circuit"):
        embedded.start(of_root / "circuit")
    assert of_root.stat().st_mode & 0o777 == 0o700


def test_as_root_a_closed_directory_is_opened_for_passing_only(made: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: only then the server runs as another user")
    closed = Path(tempfile.mkdtemp(prefix="circuit-closed-"))
    copy_data(made, closed / "home")
    server = embedded.start(closed / "home")
    assert scalar(server.url, "SELECT 1") == 1
    server.stop()
    assert closed.stat().st_mode & 0o777 == 0o701
    shutil.rmtree(closed)


def test_a_user_without_a_name_is_told_what_to_do(new_home: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to become a user that has no name")
    new_home.chmod(0o777)
    nameless = REFUSED.replace("65534", "2000000123").replace("HomeNotWritable", "DatabaseNotStarted")
    result = subprocess.run([sys.executable, "-c", nameless, str(new_home)], capture_output=True, text=True, timeout=60)
    assert "the uid 2000000123 has none. Add that user" in result.stdout, result.stderr
