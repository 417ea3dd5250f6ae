"""The command, as the tests of the command line run it."""

from tests.cli.conftest import bare

__all__ = ["bare"]
