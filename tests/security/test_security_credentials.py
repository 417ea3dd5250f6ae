"""Credentials without IO: API keys, JSON Web Tokens, stream tokens, and what principals may do."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st
from orjson import dumps

from circuit.errors import Forbidden, Unauthenticated
from circuit.security.access import Access
from circuit.security.credentials import (
    ASYMMETRIC,
    STREAM_AUDIENCE,
    SYMMETRIC,
    KeyParts,
    digest,
    format_key,
    parse_key,
    principal_of,
    same,
    stream_token,
    verify,
    verify_stream_token,
)
from circuit.security.permissions import ROLES, Permission
from circuit.security.principal import LOCAL, Principal

NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
SECRET = "a secret of thirty-two bytes, yes"
OTHER = "another secret of thirty-two bytes"


def token(secret: str = SECRET, algorithm: str = "HS256", **changes: Any) -> str:
    claims = {"sub": "ada", "aud": "circuit", "exp": int((NOW + timedelta(hours=1)).timestamp()), **changes}
    return jwt.encode({name: value for name, value in claims.items() if value is not None}, secret, algorithm)


PUBLISHED: dict[str, Any] = {
    "RSA": rsa.generate_private_key(65537, 2048).public_key(),
    "EC": ec.generate_private_key(ec.SECP256R1()).public_key(),
    "Ed25519": ed25519.Ed25519PrivateKey.generate().public_key(),
}
FORGED = {name: f"{urlsafe_b64encode(dumps({'alg': name})).decode().rstrip('=')}.e30.eA" for name in ASYMMETRIC}


def claims_of(text: str) -> dict[str, Any]:
    return verify(text, SECRET, SYMMETRIC, audience="circuit", issuer=None, now=NOW)


@given(st.integers(1, 10**8), st.text("abcdefghijklmnopqrstuvwxyz234567", min_size=16, max_size=16))
def test_a_key_is_read_as_it_was_written(tenant: int, name: str) -> None:
    parts = KeyParts(tenant, name, "x" * 43)
    assert parse_key(format_key(parts)) == parts


@given(st.text())
def test_what_is_no_key_is_none(text: str) -> None:
    parts = parse_key(text)
    assert parts is None or format_key(parts) == text


def test_only_the_digest_of_a_secret_is_compared() -> None:
    stored = digest("s" * 43)
    assert b"sss" not in stored
    assert same("s" * 43, stored)
    assert not same("t" * 43, stored)


def test_a_token_says_who_it_speaks_for() -> None:
    found = principal_of(claims_of(token(roles=["operator", "*"], tenant=3, scope="read run")))
    assert found == Principal("ada", 3, frozenset({"operator"}), frozenset({"read", "run"}))
    assert principal_of(claims_of(token())) == Principal("ada", 1, frozenset())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (token(OTHER), "signature"),
        (token(aud="someone"), "audience"),
        (token(aud=STREAM_AUDIENCE), "audience"),
        (token(aud=None), "lacks"),
        (token(exp=None), "lacks"),
        (token(sub=None), "lacks"),
        (token(exp=int((NOW - timedelta(minutes=1)).timestamp())), "expired"),
        (jwt.encode({"sub": "ada", "aud": "circuit", "exp": "never"}, SECRET, "HS256"), "hold"),
        (token(nbf=int((NOW + timedelta(minutes=1)).timestamp())), "not come"),
        (jwt.encode({"sub": "ada", "aud": "circuit", "exp": 2**40}, "", algorithm="none"), "algorithm"),
        ("a.b.c", "malformed"),
        ("", "malformed"),
    ],
)
def test_a_token_that_does_not_hold_is_refused_and_not_quoted(text: str, reason: str) -> None:
    with pytest.raises(Unauthenticated) as refused:
        claims_of(text)
    assert reason in refused.value.message
    assert not text or text not in refused.value.message


@pytest.mark.parametrize("algorithm", ASYMMETRIC)
@pytest.mark.parametrize("kind", ["RSA", "EC", "Ed25519"])
def test_a_key_of_another_kind_than_its_token_says_opens_nothing(kind: str, algorithm: str) -> None:
    """Whoever knows the id of a published key may name any algorithm with it."""
    with pytest.raises(Unauthenticated):
        verify(FORGED[algorithm], PUBLISHED[kind], ASYMMETRIC, audience="circuit", issuer=None, now=NOW)


@pytest.mark.parametrize(
    "changes",
    [
        {"sub": ""},
        {"sub": "a\nb"},
        {"sub": "a\0"},
        {"sub": "x" * 256},
        {"sub": "service"},
        {"sub": "local"},
        {"sub": "unknown"},
        {"sub": "key:ops"},
        {"tenant": 0},
        {"tenant": 2**31},
        {"tenant": "1"},
        {"tenant": True},
        {"roles": "admin"},
        {"roles": [1]},
        {"scope": ["read"]},
    ],
)
def test_claims_that_make_no_sense_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(Unauthenticated):
        principal_of({"sub": "ada", **changes})


def test_a_stream_token_opens_one_stream_and_nothing_else() -> None:
    text, until = stream_token(SECRET, Principal("key:ops", 2, frozenset({"admin"})), "case.1", NOW)
    found = verify_stream_token(SECRET, text, NOW)
    assert (found.subject, found.tenant, until - NOW) == ("key:ops", 2, timedelta(minutes=10))
    found.require_stream("case.1")
    for forbidden in (lambda: found.require_stream("case.2"), lambda: found.require(Permission.READ)):
        with pytest.raises(Forbidden):
            forbidden()
    with pytest.raises(Unauthenticated):
        claims_of(text)
    with pytest.raises(Unauthenticated):
        verify_stream_token(SECRET, token(), NOW)
    with pytest.raises(Unauthenticated, match="expired"):
        verify_stream_token(SECRET, text, NOW + timedelta(minutes=11))


def test_roles_bring_permissions_and_scopes_limit_them() -> None:
    assert all(LOCAL.can(permission) for permission in Permission)
    viewer = Principal("v", roles=frozenset({"viewer", "author"}))
    assert [permission for permission in Permission if viewer.can(permission)] == [Permission.READ]
    with pytest.raises(Forbidden, match="operator, editor, admin"):
        viewer.require(Permission.RUN)
    limited = Principal("l", roles=frozenset({"admin"}), scopes=frozenset({"read"}))
    assert [permission for permission in Permission if limited.can(permission)] == [Permission.READ]
    assert not any(Principal("nobody").can(permission) for permission in Permission)
    assert ROLES["viewer"] < ROLES["operator"] < ROLES["editor"] < ROLES["admin"]


def test_a_role_that_a_workflow_asks_for_is_enough_for_what_it_asks() -> None:
    author = Principal("a", roles=frozenset({"author"}))
    author.require_task(["author", "editor"], "t")
    for principal, roles in (
        (author, ()),
        (author, ["boss"]),
        (Principal("s", roles=frozenset({"author"}), scopes=frozenset({"read"})), ["author"]),
        (Principal("e", roles=frozenset({"author"}), execution="case.1"), ["author"]),
    ):
        with pytest.raises(Forbidden):
            principal.require_task(roles, "t")
    Principal("o", roles=frozenset({"operator"})).require_task((), "t")


def test_secrets_do_not_show() -> None:
    access = Access(service_token="hidden-1", jwt_secret="hidden-2", stream_secret="hidden-3")
    assert "hidden" not in repr(access)
    assert access.configured
    assert not Access(stream_secret="hidden-3").configured
