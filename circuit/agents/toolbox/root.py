"""A directory that nothing leads out of.

Every path is walked from the root's own descriptor, one name at a time, without following symbolic links: what is
looked at is what is opened, so that no link that is put there in between leads elsewhere (openat(2), `O_NOFOLLOW`).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from circuit.errors import ToolDenied, ToolFailed, ToolsMisconfigured
from circuit.value import dataclass

DEFAULT_LIMIT = 10 * 1024 * 1024
MOST_FILES = 100_000
DEEPEST = 40
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or directory below the root. `path` is relative to it, with `/`."""

    path: str
    directory: bool
    size: int
    modified: float


@dataclass(frozen=True, slots=True)
class Root:
    """`read_only` are patterns of paths that may not be written, `extensions` the endings that files may have (all, if
    empty), `limit` the bytes that a file may have."""

    path: Path
    read_only: tuple[str, ...] = ()
    extensions: tuple[str, ...] = ()
    limit: int = field(default=DEFAULT_LIMIT)

    def read(self, path: str) -> str:
        """The text of a file. Raises `ToolDenied`, `ToolFailed`."""
        return self.read_bytes(path).decode("utf-8", "replace")

    def read_bytes(self, path: str) -> bytes:
        """The bytes of a file."""
        parts = self._parts(path)
        self._permit(parts, writing=False)
        with self._parent(parts) as parent:
            descriptor = self._open(path, parts[-1], os.O_RDONLY | os.O_NONBLOCK, parent)
            try:
                # Before anything is made of it: a directory is opened, too, and would stay so.
                file = os.fdopen(descriptor, "rb") if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
            except BaseException:
                os.close(descriptor)
                raise
            if file is None:
                os.close(descriptor)
                raise ToolFailed(f"{path} is not a file")
            with file:
                info = os.fstat(file.fileno())
                if info.st_size > self.limit:
                    raise ToolFailed(f"{path} has {info.st_size} bytes, and {self.limit} may be read")
                # It may grow while it is read.
                content = file.read(self.limit + 1)
        if len(content) > self.limit:
            raise ToolFailed(f"{path} has more than the {self.limit} bytes that may be read")
        return content

    def write(self, path: str, text: str) -> int:
        """Put `text` into a file, which is made with its directories if it is not there. Returns how many bytes.

        The file is there as a whole or as it was: it is written beside its place and then put there. What people may
        do with it stays.
        """
        content = text.encode("utf-8", "replace")
        if len(content) > self.limit:
            raise ToolFailed(f"{path} would have {len(content)} bytes, and {self.limit} may be written")
        parts = self._parts(path)
        self._permit(parts, writing=True)
        with self._parent(parts, make=True) as parent:
            present = self._kind(parts[-1], parent)
            if present is not None and not stat.S_ISREG(present):
                raise ToolDenied(f"{path} is not a file, or a symbolic link, and is not written")
            self._put(path, parts[-1], content, parent, 0o644 if present is None else present & 0o777)
        return len(content)

    @staticmethod
    def _put(path: str, name: str, content: bytes, parent: int, mode: int) -> None:
        beside = f".circuit.{os.urandom(8).hex()}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with os.fdopen(os.open(beside, flags, 0o600, dir_fd=parent), "wb") as file:
                file.write(content)
                os.fchmod(file.fileno(), mode)
            os.replace(beside, name, src_dir_fd=parent, dst_dir_fd=parent)
        except OSError as error:
            # A name that is too long, a disk that is full.
            with suppress(OSError):
                os.unlink(beside, dir_fd=parent)
            raise _told(path, error) from None

    def entries(self, path: str = ".") -> list[Entry]:
        """What lies directly in a directory, by name."""
        parts = self._parts(path)
        with self._directory(parts) as directory:
            return list(self._scan("/".join(parts), directory))

    def walk(self, path: str = ".") -> Iterator[Entry]:
        """Everything below a directory; symbolic links are passed over."""
        pending = ["/".join(self._parts(path))]
        seen = 0
        while pending:
            here = pending.pop()
            for entry in self.entries(here or "."):
                seen += 1
                if seen > MOST_FILES:
                    raise ToolFailed(f"there are more than {MOST_FILES} files: look in one of the directories")
                yield entry
                if entry.directory and entry.path.count("/") < DEEPEST:
                    pending.append(entry.path)

    def entry(self, path: str) -> Entry:
        """What lies at `path`."""
        parts = self._parts(path)
        if not parts:
            info = self.path.stat()
            return Entry(".", True, 0, info.st_mtime)
        with self._parent(parts) as parent:
            try:
                info = os.stat(parts[-1], dir_fd=parent, follow_symlinks=False)
            except OSError as error:
                raise _told(path, error) from None
        if stat.S_ISLNK(info.st_mode):
            raise ToolDenied(f"{path} is a symbolic link, which is not followed")
        if not stat.S_ISREG(info.st_mode) and not stat.S_ISDIR(info.st_mode):
            raise ToolFailed(f"{path} is neither a file nor a directory")
        return Entry("/".join(parts), stat.S_ISDIR(info.st_mode), info.st_size, info.st_mtime)

    def _scan(self, here: str, directory: int) -> Iterator[Entry]:
        for name in sorted(os.listdir(directory)):
            try:
                info = os.stat(name, dir_fd=directory, follow_symlinks=False)
            except OSError:
                continue  # it went away
            if stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode):
                path = f"{here}/{name}" if here else name
                yield Entry(path, stat.S_ISDIR(info.st_mode), info.st_size, info.st_mtime)

    def _parts(self, path: str) -> tuple[str, ...]:
        if "\0" in path:
            raise ToolDenied("a path holds no NUL character")
        pure = PurePosixPath(path)
        if pure.is_absolute():
            raise ToolDenied(f"{path} is absolute: paths are relative to the root of the tools")
        parts = tuple(part for part in pure.parts if part != ".")
        if ".." in parts:
            raise ToolDenied(f"{path} leads upwards, out of the root of the tools perhaps: write it without ..")
        return parts

    def _permit(self, parts: tuple[str, ...], *, writing: bool) -> None:
        if not parts:
            raise ToolFailed("the root is a directory, not a file")
        path = "/".join(parts)
        if self.extensions and not any(path.endswith(ending) for ending in self.extensions):
            raise ToolDenied(f"{path}: only files that end in {', '.join(self.extensions)} may be used")
        if not writing:
            return
        # A directory is read-only with all that lies in it.
        above = ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
        if any(fnmatchcase(one, pattern.rstrip("/")) for one in above for pattern in self.read_only):
            raise ToolDenied(f"{path} is read-only")
        if not path.isprintable() and any("\ud800" <= character < "\ue000" for character in path):
            raise ToolDenied("a path holds no half of a character")

    @contextmanager
    def _directory(self, parts: tuple[str, ...], *, make: bool = False) -> Generator[int]:
        """The descriptor of a directory below the root."""
        try:
            current = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise ToolsMisconfigured(
                f"the root of the files, {self.path}, cannot be opened: {error.strerror}"
            ) from None
        try:
            for name in parts:
                if make:
                    self._make(name, current)
                below = self._open("/".join(parts), name, _DIRECTORY, current)
                os.close(current)
                current = below
            yield current
        finally:
            os.close(current)

    @contextmanager
    def _parent(self, parts: tuple[str, ...], *, make: bool = False) -> Generator[int]:
        with self._directory(parts[:-1], make=make) as directory:
            yield directory

    @staticmethod
    def _make(name: str, directory: int) -> None:
        try:
            with suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=directory)
        except OSError as error:
            raise _told(name, error) from None

    @staticmethod
    def _open(path: str, name: str, flags: int, directory: int) -> int:
        try:
            return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        except OSError as error:
            raise _told(path, error) from None

    @staticmethod
    def _kind(name: str, directory: int) -> int | None:
        try:
            return os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
        except OSError:
            return None  # whatever keeps it from being looked at keeps it from being written


def _told(path: str, error: OSError) -> ToolDenied | ToolFailed:
    if error.errno in (errno.ELOOP, errno.EMLINK):
        return ToolDenied(f"{path} leads over a symbolic link, which is not followed")
    if error.errno == errno.ENOTDIR:
        # Linux says this, too, of a symbolic link where a directory is asked for.
        return ToolDenied(f"{path} leads over something that is no directory, or over a symbolic link")
    if error.errno == errno.ENOENT:
        return ToolFailed(f"there is no {path}")
    return ToolFailed(f"{path}: {error.strerror}")
