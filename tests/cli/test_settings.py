"""The environment: what it may hold, what it means where it says nothing, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from circuit.errors import InvalidRequest
from circuit.settings import ROOT_HOME, Settings, default_home


def test_an_empty_environment_gives_the_defaults() -> None:
    settings = Settings.from_environment({})
    assert settings.database_url is None
    assert settings.home == default_home()
    assert (settings.host, settings.port) == ("127.0.0.1", 4000)
    assert settings.lease_seconds == 15.0
    assert settings.max_concurrent_executions == 50
    assert not settings.debug


def test_root_keeps_its_data_out_of_its_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_home() == ROOT_HOME
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert default_home() != ROOT_HOME
    assert default_home().name == "circuit"


def test_a_user_without_a_home_is_told_to_name_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(*_: object, **__: object) -> str:
        raise RuntimeError("could not determine the home directory")

    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    monkeypatch.setattr("platformdirs.user_data_dir", nowhere)
    with pytest.raises(InvalidRequest, match="CIRCUIT_HOME"):
        default_home()


def test_what_the_environment_says_counts(tmp_path: Path) -> None:
    settings = Settings.from_environment(
        {
            "CIRCUIT_DATABASE_URL": "postgresql://ada:secret@db:5432/circuit",
            "CIRCUIT_HOME": str(tmp_path),
            "CIRCUIT_LEASE_SECONDS": "1.5",
            "CIRCUIT_STOP_SECONDS": "120",
            "MAX_CONCURRENT_EXECUTIONS": "7",
            "CIRCUIT_HOST": "::1",
            "CIRCUIT_PORT": "0",
            "CIRCUIT_LOG_LEVEL": "DEBUG",
        }
    )
    assert settings.database_url == "postgresql://ada:secret@db:5432/circuit"
    assert settings.home == tmp_path
    assert (settings.lease_seconds, settings.stop_seconds) == (1.5, 120.0)
    assert settings.max_concurrent_executions == 7
    assert (settings.host, settings.port) == ("::1", 0)
    assert settings.debug


def test_a_relative_home_is_made_absolute() -> None:
    assert Settings.from_environment({"CIRCUIT_HOME": "data"}).home == Path("data").absolute()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CIRCUIT_DATABASE_URL", "mysql://db/circuit"),
        ("CIRCUIT_DATABASE_URL", "db.example.org"),
        ("CIRCUIT_LEASE_SECONDS", "soon"),
        ("CIRCUIT_LEASE_SECONDS", "0"),
        ("CIRCUIT_LEASE_SECONDS", "nan"),
        ("MAX_CONCURRENT_EXECUTIONS", "0"),
        ("MAX_CONCURRENT_EXECUTIONS", "1.5"),
        ("CIRCUIT_PORT", "65536"),
        ("CIRCUIT_PORT", "http"),
        ("CIRCUIT_LOG_LEVEL", "loud"),
        ("CIRCUIT_SCREENING", "deny"),
        ("CIRCUIT_SCREENING", "injected=warn"),
        ("CIRCUIT_SCREENING", "control_tokens="),
        ("CIRCUIT_HOME", "a\0b"),
    ],
)
def test_a_bad_value_is_refused_by_the_name_of_its_variable(name: str, value: str) -> None:
    with pytest.raises(InvalidRequest, match=name):
        Settings.from_environment({name: value})


def test_a_password_is_never_quoted() -> None:
    with pytest.raises(InvalidRequest) as caught:
        Settings.from_environment({"CIRCUIT_DATABASE_URL": "mysql://ada:hunter2@db/circuit"})
    assert "hunter2" not in str(caught.value)


def test_keys_are_handed_on_and_not_shown() -> None:
    settings = Settings.from_environment({"OPENAI_API_KEY": "sk-hidden"})
    assert settings.environment["OPENAI_API_KEY"] == "sk-hidden"
    assert "sk-hidden" not in repr(settings)


def test_an_empty_variable_is_none() -> None:
    assert Settings.from_environment({"CIRCUIT_DATABASE_URL": "", "CIRCUIT_PORT": " "}).port == 4000
