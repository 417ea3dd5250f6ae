"""What proves who asks, without IO: API keys, JSON Web Tokens, the static token of the built-in service, stream tokens.

An API key is `ck_TENANT_ID_SECRET`. Only a digest of the secret is stored; the secret has 256 random bits, so that a
plain SHA-256 is enough: there is nothing to guess. The audiences are apart: a stream token opens the stream of one
execution and nothing else, and no other token opens as a stream token.
"""

from __future__ import annotations

import hmac
import re
import warnings
from collections.abc import Mapping
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, NamedTuple, cast

import jwt
from jwt.warnings import InsecureKeyLengthWarning

from circuit.errors import Unauthenticated
from circuit.ids import DEFAULT_TENANT
from circuit.security.principal import LOCAL, NOBODY, Principal

STREAM_AUDIENCE = "circuit-stream"
STREAM_TOKEN_LIFE = timedelta(minutes=10)
LEEWAY = timedelta(seconds=30)
SYMMETRIC = ("HS256", "HS384", "HS512")
ASYMMETRIC = ("RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA")
SERVICE = "service"
"""The subject of the built-in service principal."""
KEY_SUBJECT = "key:"
"""How the subjects of API keys begin."""
LONGEST_SUBJECT = 255
_OWN = frozenset({SERVICE, LOCAL.subject, NOBODY.subject})
_LAST_TENANT = 2**31 - 1

# How long a secret is has been looked at where it is read; each process would say this once, amid its log.
warnings.simplefilter("ignore", InsecureKeyLengthWarning)
_KEY = re.compile(r"ck_([1-9][0-9]{0,8})_([a-z0-9]{16})_([A-Za-z0-9_-]{40,60})", re.ASCII)


class KeyParts(NamedTuple):
    """An API key taken apart."""

    tenant: int
    id: str
    secret: str


def format_key(parts: KeyParts) -> str:
    """The key as it is shown once, when it is made."""
    return f"ck_{parts.tenant}_{parts.id}_{parts.secret}"


def parse_key(text: str) -> KeyParts | None:
    """The parts of an API key; None if `text` is none."""
    match = _KEY.fullmatch(text)
    return None if match is None else KeyParts(int(match[1]), match[2], match[3])


def digest(secret: str) -> bytes:
    """What is stored of an API key's secret."""
    return sha256(secret.encode()).digest()


def same(secret: str, stored: bytes) -> bool:
    """Whether `secret` is the one of which `stored` is the digest, in a time that tells nothing."""
    return hmac.compare_digest(digest(secret), stored)


def same_text(given: str, expected: str) -> bool:
    """Whether two secrets are the same, in a time that tells nothing."""
    return hmac.compare_digest(given.encode(), expected.encode())


def principal_of(claims: Mapping[str, Any]) -> Principal:
    """Who a verified token speaks for: `sub`, `tenant` (1 if it says none), `roles`, and `scope` as OAuth writes it.

    Raises `Unauthenticated` for claims that make no sense.
    """
    subject, tenant = _named(claims)
    roles, scope = claims.get("roles", []), cast("Any", claims.get("scope"))
    if subject in _OWN or subject.startswith(KEY_SUBJECT):
        raise Unauthenticated("the token's `sub` is a name of Circuit's own, for which nobody else speaks")
    if not isinstance(roles, list) or not all(isinstance(role, str) for role in cast("list[Any]", roles)):
        raise Unauthenticated("the token's `roles` is not a list of names")
    if scope is not None and not isinstance(scope, str):
        raise Unauthenticated("the token's `scope` is not a text")
    scopes = None if scope is None else frozenset(scope.split())
    # The role that stands for every role belongs to this machine's command line alone.
    return Principal(subject, tenant, frozenset(cast("list[str]", roles)) - {"*"}, scopes)


def verify(
    token: str, key: Any, algorithms: tuple[str, ...], *, audience: str, issuer: str | None, now: datetime
) -> dict[str, Any]:
    """The claims of a JSON Web Token. Raises `Unauthenticated`, which says why and quotes nothing of it."""
    try:
        claims = jwt.decode(
            token,
            key,
            algorithms=list(algorithms),
            audience=audience,
            issuer=issuer,
            # The time is looked at below, by the clock that is handed in.
            options={"require": ["exp", "aud", "sub"], "verify_exp": False, "verify_nbf": False, "verify_iat": False},
        )
    except jwt.InvalidTokenError as error:
        raise Unauthenticated(f"the token does not hold: {_reason(error)}") from None
    except (jwt.PyJWTError, TypeError, ValueError):
        raise Unauthenticated("the token does not hold: its key is one for another algorithm") from None
    _check_time(claims, now)
    return claims


def stream_token(secret: str, principal: Principal, execution: str, now: datetime) -> tuple[str, datetime]:
    """A token that opens the stream of `execution` for ten minutes, and until when."""
    until = (now + STREAM_TOKEN_LIFE).replace(microsecond=0)
    claims = {
        "sub": principal.subject,
        "tenant": principal.tenant,
        "execution": execution,
        "aud": STREAM_AUDIENCE,
        "exp": int(until.timestamp()),
    }
    return jwt.encode(claims, secret, algorithm="HS256"), until


def verify_stream_token(secret: str, token: str, now: datetime) -> Principal:
    """Whom a stream token lets read what. Raises `Unauthenticated`."""
    claims = verify(token, secret, ("HS256",), audience=STREAM_AUDIENCE, issuer=None, now=now)
    execution = claims.get("execution")
    if not isinstance(execution, str):
        raise Unauthenticated("the stream token names no execution")
    subject, tenant = _named(claims)
    return Principal(subject, tenant, frozenset(), None, execution)


def _named(claims: Mapping[str, Any]) -> tuple[str, int]:
    """The subject of a token and the number of its tenant."""
    subject, tenant = claims.get("sub"), claims.get("tenant", DEFAULT_TENANT)
    if not isinstance(subject, str) or not 0 < len(subject) <= LONGEST_SUBJECT or not subject.isprintable():
        raise Unauthenticated(f"the token's `sub` is no name of 1 to {LONGEST_SUBJECT} printable characters")
    if not isinstance(tenant, int) or isinstance(tenant, bool) or not 0 < tenant <= _LAST_TENANT:
        raise Unauthenticated("the token's `tenant` is not the number of a tenant")
    return subject, tenant


def _check_time(claims: Mapping[str, Any], now: datetime) -> None:
    at = now.timestamp()
    expires, begins = claims["exp"], claims.get("nbf", 0)
    for value in (expires, begins):
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise Unauthenticated("the token does not hold: a time in it is not a number")
    if expires <= at - LEEWAY.total_seconds():
        raise Unauthenticated("the token does not hold: it has expired", guessed=False)
    if begins > at + LEEWAY.total_seconds():
        raise Unauthenticated("the token does not hold: its time has not come", guessed=False)


def _reason(error: jwt.InvalidTokenError) -> str:
    """What is wrong in words of our own: a library's message may quote the token."""
    kinds: tuple[tuple[type[Exception], str], ...] = (
        (jwt.InvalidSignatureError, "its signature is not valid"),
        (jwt.InvalidAudienceError, "it is meant for another audience"),
        (jwt.InvalidIssuerError, "it comes from another issuer"),
        (jwt.InvalidAlgorithmError, "its algorithm is not taken"),
        (jwt.MissingRequiredClaimError, "it lacks exp, aud, sub or, where one is asked for, iss"),
    )
    return next((words for kind, words in kinds if isinstance(error, kind)), "it is malformed")
