"""What Circuit takes from its environment: read once, checked once, and never again.

No other module looks at environment variables. Provider keys are not settings: they are handed on as the mapping
that they came in, so that a reference such as `${OPENAI_API_KEY}` is resolved only when a request is sent.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import unquote, urlsplit

from circuit.errors import InvalidRequest
from circuit.security.access import DEFAULT_AUDIENCE, SHORTEST_SECRET, SHORTEST_TOKEN, Access
from circuit.security.rates import Rate
from circuit.security.redactor import Redactor
from circuit.security.rules import Rule
from circuit.security.screening.found import ACTIONS, KINDS, Screener, Screening

LOOPBACK_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})
RATED = ("graphql", "v1", "agent-stream", "stream", "metrics", "*")
"""The paths that may have rates of their own."""
_ORIGIN = re.compile(r"https?://[A-Za-z0-9.\-\[\]:]+")
CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
CAPTURING = ("true", "span_only", "span_and_event")
"""Its values with which what is said to models and by them stands in spans."""
EXPORTERS = ("otlp", "console", "none")
LOG_LEVELS = ("debug", "info", "warning", "error")
ROOT_HOME = Path("/var/lib/circuit")
_SPAN = re.compile(r"([1-9]\d{0,5})([mhdw])")
_SPANS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
_SECRET_NAME = re.compile(r"(?:^|_)(?:KEY|KEYS|TOKEN|SECRET|PASSWORD)$", re.IGNORECASE)
_SHORTEST_HIDDEN = 8
"""Shorter values of such variables stand in logs: hiding every `true` would hide too much."""
_POOL = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_LONGEST_POOL = 100


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of a process. Spans are in seconds; `environment` holds what providers resolve their keys from.

    `max_concurrent_executions` is for all workers of the deployment together, `worker_executions` for one (None: as
    many).
    `tracing` is the exporter of traces and `metrics` that of figures by OpenTelemetry, None where there are none;
    `traceparent` the trace in which this process was started.
    `redactor` has the rules by which logs, events and prompts are redacted in the whole deployment.
    `stop_seconds` is what running executions get to end when a worker is told to.
    `answer_seconds` is how long a provider may take to begin an answer, `silence_seconds` how long it may say nothing
    in one.
    `archive_after`, `streams_after` and `streams_compact_after` are None where nothing is archived, dropped or
    compacted by itself.

    `database_url` is None for the embedded server, whose data lies under `home`.
    """

    home: Path
    database_url: str | None = None
    lease_seconds: float = 15.0
    max_concurrent_executions: int = 50
    worker_executions: int | None = None
    stop_seconds: float = 5.0
    pools: tuple[str, ...] = ("default",)
    host: str = "127.0.0.1"
    port: int = 4000
    stream_buffer_size: int = 1000
    connection_timeout: float = 30.0
    answer_seconds: float = 300.0
    silence_seconds: float = 120.0
    log_level: str = "warning"
    log_format: str = "text"
    access: Access = field(default_factory=Access)
    actions: tuple[str, ...] = ()
    http_hosts: tuple[str, ...] = ()
    http_private: bool = False
    jobs: bool = False
    archive_after: timedelta | None = None
    archive_folder: Path | None = None
    archive_keep_failed: bool = False
    streams_after: timedelta | None = None
    streams_compact_after: timedelta | None = None
    default_model: str | None = None
    start_rate: Rate | None = None
    rates: Mapping[str, Rate] = field(default_factory=dict[str, Rate])
    allowed_origins: tuple[str, ...] = ()
    tracing: str | None = None
    metrics: str | None = None
    trace_hosts: tuple[str, ...] = ()
    trace_content: bool = False
    traceparent: str | None = None
    redactor: Redactor = field(default_factory=lambda: Redactor(guard=Lock()), repr=False, compare=False)
    screener: Screener = field(default_factory=Screener, repr=False, compare=False)
    environment: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """The settings that `environment` (the process's own, if None) gives. Raises `InvalidRequest`, naming the
        variable whose value is unusable."""
        values = dict(os.environ if environment is None else environment)
        return cls(
            home=_home(values),
            database_url=_database_url(values),
            lease_seconds=_number(values, "CIRCUIT_LEASE_SECONDS", 15.0, least=0.1, most=3600.0),
            max_concurrent_executions=_whole(values, "MAX_CONCURRENT_EXECUTIONS", 50, least=1, most=100_000),
            worker_executions=_optional_whole(values, "CIRCUIT_WORKER_EXECUTIONS", least=1, most=100_000),
            stop_seconds=_number(values, "CIRCUIT_STOP_SECONDS", 5.0, least=0.0, most=86_400.0),
            pools=check_pools(values.get("CIRCUIT_POOLS", "").replace(",", " ").split(), "CIRCUIT_POOLS"),
            host=values.get("CIRCUIT_HOST", "").strip() or "127.0.0.1",
            port=_whole(values, "CIRCUIT_PORT", 4000, least=0, most=65_535),
            stream_buffer_size=_whole(values, "STREAM_BUFFER_SIZE", 1000, least=1, most=1_000_000),
            connection_timeout=_number(values, "CONNECTION_TIMEOUT", 30.0, least=0.1, most=3600.0),
            answer_seconds=_number(values, "CIRCUIT_ANSWER_SECONDS", 300.0, least=0.1, most=86_400.0),
            silence_seconds=_number(values, "CIRCUIT_SILENCE_SECONDS", 120.0, least=0.1, most=86_400.0),
            actions=_names(values, "CIRCUIT_ACTIONS"),
            default_model=_text(values, "CIRCUIT_DEFAULT_MODEL"),
            start_rate=_rate(values, "RATE_LIMIT_PER_MINUTE"),
            rates=_rates(values, "CIRCUIT_RATE_LIMITS"),
            allowed_origins=_origins(values),
            tracing=_exporter(values, "CIRCUIT_TRACING", "TRACES"),
            metrics=_exporter(values, "CIRCUIT_METRICS", "METRICS"),
            trace_hosts=_names(values, "CIRCUIT_TRACE_HOSTS"),
            trace_content=values.get(CAPTURE, "").strip().lower() in CAPTURING,
            traceparent=_text(values, "TRACEPARENT"),
            redactor=_redactor(values),
            screener=Screener(_screening(values)),
            jobs=_choice(values, "CIRCUIT_JOBS", "false", ("true", "false")) == "true",
            http_hosts=_names(values, "CIRCUIT_HTTP_HOSTS"),
            http_private=_choice(values, "CIRCUIT_HTTP_PRIVATE", "false", ("true", "false")) == "true",
            log_level=_choice(values, "CIRCUIT_LOG_LEVEL", "warning", LOG_LEVELS),
            log_format=_choice(values, "CIRCUIT_LOG_FORMAT", "text", ("text", "json")),
            access=_access(values),
            archive_after=_span(values, "CIRCUIT_ARCHIVE_AFTER"),
            archive_folder=_folder(values, "CIRCUIT_ARCHIVE_DIR"),
            archive_keep_failed=_choice(values, "CIRCUIT_ARCHIVE_KEEP_FAILED", "no", ("yes", "no")) == "yes",
            streams_after=_span(values, "CIRCUIT_STREAMS_AFTER"),
            streams_compact_after=_span(values, "CIRCUIT_STREAMS_COMPACT_AFTER"),
            environment=values,
        )

    @property
    def waits(self) -> Mapping[str, float]:
        """How long servers of models are waited for, by the names of `circuit.http.Timeouts`."""
        return {
            "connect": self.connection_timeout,
            "first_byte": self.answer_seconds,
            "idle": self.silence_seconds,
        }

    @property
    def debug(self) -> bool:
        """Whether tracebacks are shown."""
        return self.log_level == "debug"

    @property
    def secrets(self) -> tuple[str, ...]:
        """What no log may hold, whatever the rules: the values of variables whose names say so, and passwords in
        addresses."""
        found = [value.strip() for name, value in self.environment.items() if _SECRET_NAME.search(name)]
        found += [part for value in tuple(found) if "," in value for part in value.split(",")]
        found += [self.access.service_token or "", self.access.jwt_secret or "", self.access.stream_secret or ""]
        found += [_password(self.database_url or "")]
        return tuple(dict.fromkeys(value for value in found if len(value) >= _SHORTEST_HIDDEN))


def with_actions(settings: Settings, modules: Sequence[str] | None) -> Settings:
    """The settings with these modules of actions beside their own."""
    return replace(settings, actions=tuple(dict.fromkeys([*settings.actions, *(modules or ())])))


def debug_wanted() -> bool:
    """Whether tracebacks are shown, asked where the settings themselves may be what is wrong."""
    return os.environ.get("CIRCUIT_LOG_LEVEL", "").strip().lower() == "debug"


def default_home() -> Path:
    """The user's data directory. For root it is `/var/lib/circuit`: the embedded server runs as a user of its own
    then, and opens the permissions of the directories above its data, which must not be those of root's home."""
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        return ROOT_HOME
    import platformdirs

    try:
        return Path(platformdirs.user_data_dir("circuit", appauthor=False))
    except RuntimeError:
        raise InvalidRequest(
            "No home directory is known for this user: name a directory for Circuit's data in CIRCUIT_HOME."
        ) from None


def _home(values: Mapping[str, str]) -> Path:
    text = values.get("CIRCUIT_HOME", "").strip()
    if not text:
        return default_home()
    if "\0" in text:
        raise InvalidRequest("CIRCUIT_HOME must be a path of a directory; it holds a NUL character.")
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError as error:
        raise InvalidRequest(f"CIRCUIT_HOME is {text!r}, and the home directory that it names is not known.") from error


def _database_url(values: Mapping[str, str]) -> str | None:
    text = values.get("CIRCUIT_DATABASE_URL", "").strip()
    return check_database_url(text) if text else None


def check_database_url(text: str) -> str:
    """`text`, if it is the URL of a Postgres. Raises `InvalidRequest` without quoting it: it may hold a password."""
    scheme, separator, _ = text.partition("://")
    if not separator or scheme not in ("postgresql", "postgres", "postgresql+asyncpg"):
        raise InvalidRequest(
            "CIRCUIT_DATABASE_URL must be a Postgres URL, postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
            f"{f'; its scheme is {scheme!r}' if separator else ', and it has no scheme'}."
            " Unset it to use the embedded database."
        )
    return text


def check_pools(names: Sequence[str], what: str) -> tuple[str, ...]:
    """The pools that a worker serves: those named, or the one that a workflow is in which names none. `what` is
    where they were named. Raises `InvalidRequest`."""
    for name in names:
        if not _POOL.fullmatch(name) or len(name) > _LONGEST_POOL:
            raise InvalidRequest(
                f"{what} names the pool {name[:80]!r}; the name of a pool has letters, digits, - and _, begins with a"
                f" letter or _, and is at most {_LONGEST_POOL} characters long."
            )
    return tuple(dict.fromkeys(names)) or ("default",)


def _access(values: Mapping[str, str]) -> Access:
    """Which credentials the server takes. No message quotes a secret."""
    url = _text(values, "CIRCUIT_JWKS_URL")
    if url is not None and not _safe(url):
        raise InvalidRequest(
            "CIRCUIT_JWKS_URL must be an https:// URL, or one of this machine: who answers there can let anybody in.",
            details={"variable": "CIRCUIT_JWKS_URL"},
        )
    return Access(
        service_token=_secret(values, "AGENT_ACCESS_TOKEN", SHORTEST_TOKEN),
        jwt_secret=_secret(values, "CIRCUIT_JWT_SECRET", SHORTEST_SECRET),
        jwks_url=url,
        audience=_text(values, "CIRCUIT_JWT_AUDIENCE") or DEFAULT_AUDIENCE,
        issuer=_text(values, "CIRCUIT_JWT_ISSUER"),
        stream_secret=_secret(values, "STREAM_AUTH_SECRET", SHORTEST_SECRET),
    )


def _text(values: Mapping[str, str], name: str) -> str | None:
    return values.get(name, "").strip() or None


def _safe(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK_HOSTS)
    except ValueError:
        return False


def _secret(values: Mapping[str, str], name: str, shortest: int) -> str | None:
    text = _text(values, name)
    if text is not None and len(text.encode()) < shortest:
        raise InvalidRequest(
            f"{name} is too short to be a secret: it needs {shortest} bytes. `openssl rand -base64 32` makes one.",
            details={"variable": name},
        )
    return text


def _number(values: Mapping[str, str], name: str, default: float, *, least: float, most: float) -> float:
    text = values.get(name, "").strip()
    if not text:
        return default
    try:
        number = float(text)
    except ValueError:
        raise _refused(name, text, f"a number from {least:g} to {most:g}") from None
    if not least <= number <= most:
        raise _refused(name, text, f"a number from {least:g} to {most:g}")
    return number


def _whole(values: Mapping[str, str], name: str, default: int, *, least: int, most: int) -> int:
    text = values.get(name, "").strip()
    if not text:
        return default
    try:
        number = int(text)
    except ValueError:
        raise _refused(name, text, f"a whole number from {least} to {most}") from None
    if not least <= number <= most:
        raise _refused(name, text, f"a whole number from {least} to {most}")
    return number


def _optional_whole(values: Mapping[str, str], name: str, *, least: int, most: int) -> int | None:
    return _whole(values, name, least, least=least, most=most) if values.get(name, "").strip() else None


def _names(values: Mapping[str, str], name: str) -> tuple[str, ...]:
    """The names in a list with commas, each once."""
    return tuple(dict.fromkeys(part.strip() for part in values.get(name, "").split(",") if part.strip()))


def _span(values: Mapping[str, str], name: str) -> timedelta | None:
    text = values.get(name, "").strip()
    if not text:
        return None
    span = parse_span(text)
    if span is None:
        raise _refused(name, text, "a span such as 12h, 30d or 8w")
    return span


def parse_span(text: str) -> timedelta | None:
    """The span in `text`: a whole number and m, h, d or w. None if it is none."""
    match = _SPAN.fullmatch(text.strip())
    return None if match is None else int(match[1]) * _SPANS[match[2]]


def _folder(values: Mapping[str, str], name: str) -> Path | None:
    text = values.get(name, "").strip()
    if "\0" in text:
        raise _refused(name, text, "a path of a directory")
    return Path(text).expanduser().absolute() if text else None


def _redactor(values: Mapping[str, str]) -> Redactor:
    key = _secret(values, "CIRCUIT_REDACTION_KEY", SHORTEST_SECRET)
    return Redactor(_redaction(values), None if key is None else key.encode(), Lock())


def _redaction(values: Mapping[str, str]) -> tuple[Rule, ...]:
    """Kinds with commas between them, or the path of a file with rules. Raises `DefinitionError` for what is in it."""
    text = values.get("CIRCUIT_REDACTION", "").strip()
    if not text:
        return ()
    from circuit.definition.redaction_file import read_rules
    from circuit.security.kinds import KINDS

    if "/" not in text and not text.endswith((".yaml", ".yml", ".json")):
        kinds = _names(values, "CIRCUIT_REDACTION")
        for name in kinds:
            if name not in KINDS:
                raise _refused("CIRCUIT_REDACTION", name, f"some of {', '.join(KINDS)}, or the path of a YAML file")
        return tuple(Rule(name, name) for name in kinds)
    try:
        return read_rules(Path(text).expanduser().read_text(encoding="utf-8"), text)
    except (OSError, ValueError) as error:
        told = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        details = {"variable": "CIRCUIT_REDACTION"}
        raise InvalidRequest(f"CIRCUIT_REDACTION names {text[:200]!r}: {told}.", details=details) from None


def _screening(values: Mapping[str, str]) -> Screening:
    """One action for all kinds, or `KIND=ACTION` with commas between them."""
    said: dict[str, str] = {}
    for entry in _names(values, "CIRCUIT_SCREENING"):
        kind, equals, action = entry.partition("=")
        kinds = (kind,) if equals else KINDS
        action = action if equals else kind
        if action not in ACTIONS or kinds[0] not in KINDS:
            wanted = f"{', '.join(ACTIONS)}, or some of KIND=ACTION with a kind of {', '.join(KINDS)}"
            raise _refused("CIRCUIT_SCREENING", entry, wanted)
        said.update(dict.fromkeys(kinds, action))
    return Screening(said)


def _password(url: str) -> str:
    try:
        return unquote(urlsplit(url).password or "")
    except ValueError:
        return ""


def _rate(values: Mapping[str, str], name: str) -> Rate | None:
    text = values.get(name, "").strip()
    if not text:
        return None
    try:
        return Rate.parse(text)
    except ValueError:
        raise _refused(name, text, "a rate: 60, or 60/10 for 60 in a minute and 10 at once") from None


def _rates(values: Mapping[str, str], name: str) -> dict[str, Rate]:
    found: dict[str, Rate] = {}
    for part in _names(values, name):
        path, equals, text = part.partition("=")
        if not equals or path not in RATED:
            raise _refused(name, part, f"PATH=RATE, with PATH one of {', '.join(RATED)}")
        try:
            found[path] = Rate.parse(text)
        except ValueError:
            raise _refused(name, part, "PATH=60, or PATH=60/10 for 60 in a minute and 10 at once") from None
    return found


def _exporter(values: Mapping[str, str], switch: str, what: str) -> str | None:
    """By which exporter traces or figures leave this process, if they do."""
    wanted = _choice(values, switch, "false", ("true", "false")) == "true"
    if not wanted or values.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    exporter = _choice(values, f"OTEL_{what}_EXPORTER", "otlp", EXPORTERS)
    if exporter == "otlp":
        for name in ("OTEL_EXPORTER_OTLP_PROTOCOL", f"OTEL_EXPORTER_OTLP_{what}_PROTOCOL"):
            _choice(values, name, "http/protobuf", ("http/protobuf",))
    return None if exporter == "none" else exporter


def _origins(values: Mapping[str, str]) -> tuple[str, ...]:
    origins = _names(values, "CIRCUIT_ALLOWED_ORIGINS")
    for origin in origins:
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            raise _refused("CIRCUIT_ALLOWED_ORIGINS", origin, "origins as browsers write them (https://host), or *")
    return origins


def _choice(values: Mapping[str, str], name: str, default: str, choices: tuple[str, ...]) -> str:
    text = values.get(name, "").strip().lower()
    if not text:
        return default
    if text not in choices:
        raise _refused(name, text, f"one of {', '.join(choices)}")
    return text


def _refused(name: str, text: str, expected: str) -> InvalidRequest:
    details: dict[str, Any] = {"variable": name}
    return InvalidRequest(f"{name} must be {expected}; it is {text[:80]!r}.", details=details)
