"""The files beside a workflow file, for what it includes: none outside of its directory, whatever links say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

_LARGEST = 1024 * 1024


def beside(file: Path) -> Callable[[str], str]:
    """What reads the files beside `file`, by their paths from its directory. It raises `ValueError`, to say what is
    wrong."""
    root = file.resolve().parent

    def read(path: str) -> str:
        target = (root / path).resolve()
        if not target.is_relative_to(root):
            raise ValueError("leads out of the directory of the workflow file")
        try:
            if target.stat().st_size > _LARGEST:
                raise ValueError(f"is larger than {_LARGEST:,} bytes")
            return target.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise ValueError("is no UTF-8 text") from None
        except OSError as error:
            raise ValueError(f"cannot be read: {error.strerror or error}") from None

    return read
