"""Access checks on every route: hosts, origins, tokens, content types, body sizes and the rate limit."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from rag.errors import BadInput, UsageProblem
from runners.serving.http import server
from runners.serving.http.app import create_app
from runners.serving.http.auth import AccessToken, check_token, is_loopback, read_token
from runners.serving.http.middleware import AccessRules, AsgiApp, RateLimiter
from runners.serving.http.service import ServerLimits
from tests.support.limits import HANG_S

TOKEN = "harbour-lamp-7f3c-not-a-real-token"
ROUTES = [
    ("GET", "/"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/rag"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/embeddings"),
    ("POST", "/v1/search"),
    ("GET", "/v1/passages"),
    ("GET", "/health"),
    ("GET", "/metrics"),
    ("GET", "/openapi.json"),
    ("GET", "/nowhere"),
    ("OPTIONS", "/v1/models"),
]
Call = Callable[..., httpx.Response]


def caller(app: AsgiApp) -> Call:
    """Return a function that sends requests to an app without a socket."""

    def call(method: str, path: str, **options: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
                return await client.request(method, path, **options)

        return asyncio.run(ask())

    return call


@pytest.fixture(scope="module")
def guarded(served: Any) -> Call:
    """The service with a token."""
    return caller(create_app(served.service, AccessRules(served.service.limits, AccessToken(TOKEN))))


@pytest.fixture
def small(served: Any) -> Call:
    """The service with tight limits, one further host and one further origin."""
    limits = ServerLimits(body_bytes=2_000, body_seconds=HANG_S)
    return caller(
        create_app(
            served.service, AccessRules(limits, hosts=("DESK.example",), origins=("https://ours.example",))
        )
    )


def basic(password: str) -> str:
    """The Authorization header that a browser sends."""
    return "Basic " + base64.b64encode(f"anybody:{password}".encode()).decode()


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_every_route_requires_the_token(guarded: Call, method: str, path: str, capfd: Any) -> None:
    wrong = (
        "",
        TOKEN,
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        "Bearer",
        f"Token {TOKEN}",
        basic("no"),
        "Basic ???",
        "Basic ünïcode".encode("latin-1"),
        "Bearer ünïcode".encode("latin-1"),
    )
    for header in wrong:
        answer = guarded(method, path, headers={"Authorization": header} if header else {})
        assert answer.status_code == 401, header
        assert answer.json()["error"]["code"] == "invalid_api_key"
        assert "Basic" in answer.headers["www-authenticate"]
        assert TOKEN not in answer.text
    for header in (f"Bearer {TOKEN}", f"bearer {TOKEN}", basic(TOKEN)):
        assert guarded(method, path, headers={"Authorization": header}).status_code != 401
    printed = capfd.readouterr()
    assert TOKEN not in printed.out + printed.err


def test_bug_in_an_access_check_has_the_error_shape(served: Any, capfd: Any) -> None:
    class Broken(AccessToken):
        def matches(self, authorization: str) -> bool:
            raise ValueError("inside")

    call = caller(create_app(served.service, AccessRules(served.service.limits, Broken(TOKEN))))
    answer = call("GET", "/health")
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    assert "inside" not in answer.text
    assert "ValueError: inside" in capfd.readouterr().err


def test_token_in_the_url_is_not_accepted(guarded: Call) -> None:
    assert guarded("GET", f"/v1/models?token={TOKEN}&api_key={TOKEN}").status_code == 401


def test_access_token_does_not_reveal_the_token() -> None:
    assert TOKEN not in repr(AccessToken(TOKEN)) + str(vars(AccessToken(TOKEN)))


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("127.0.0.1:8000", True),
        ("localhost", True),
        ("[::1]:8000", True),
        ("127.8.8.8", True),
        ("desk.example:8000", True),
        ("LOCALHOST:8101", True),
        ("Desk.Example", True),
        ("evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example:8000", False),
        ("10.0.0.7", False),
        ("", False),
        ("[::1", True),
        ("evil.example:80:80", False),
    ],
)
def test_only_own_host_names_are_accepted(small: Call, host: str, allowed: bool) -> None:
    answer = small("GET", "/v1/models", headers={"Host": host})
    assert answer.status_code == (200 if allowed else 400)
    if not allowed:
        assert answer.json()["error"]["code"] == "host_not_allowed"


def test_any_address_accepts_addresses_but_no_unknown_names(served: Any) -> None:
    call = caller(create_app(served.service, AccessRules(served.service.limits, any_address=True)))
    assert call("GET", "/health", headers={"Host": "10.0.0.7:8000"}).status_code == 200
    assert call("GET", "/health", headers={"Host": "evil.example"}).status_code == 400


def test_other_origins_are_refused_unless_allowed(small: Call) -> None:
    for origin, status in (
        ("https://evil.example", 403),
        ("null", 403),
        ("http://127.0.0.1:8000", 200),
        ("https://ours.example", 200),
        ("http://127.0.0.1:9999", 403),
    ):
        answer = small("GET", "/v1/models", headers={"Origin": origin})
        assert answer.status_code == status, origin
        allowed = answer.headers.get("access-control-allow-origin")
        assert allowed == ("https://ours.example" if origin == "https://ours.example" else None)
    sdk = "authorization,content-type,x-stainless-arch,x-stainless-retry-count"
    preflight = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": sdk}
    assert (
        small("OPTIONS", "/v1/models", headers={"Origin": "https://ours.example", **preflight}).status_code
        == 200
    )
    assert (
        small("OPTIONS", "/v1/models", headers={"Origin": "https://evil.example", **preflight}).status_code
        == 400
    )


def test_retry_after_is_exposed_to_allowed_origins(small: Call) -> None:
    answer = small("GET", "/health", headers={"Origin": "https://ours.example"})
    assert answer.headers["access-control-expose-headers"] == "Retry-After"


def test_no_cors_headers_without_allowed_origins(guarded: Call) -> None:
    answer = guarded("GET", "/v1/models", headers={"Authorization": f"Bearer {TOKEN}"})
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")


def test_body_type_size_and_time_are_limited(small: Call, served: Any) -> None:
    chat = "/v1/chat/completions"
    for content_type in ("text/plain", "application/x-www-form-urlencoded", ""):
        assert small("POST", chat, content=b"{}", headers={"Content-Type": content_type}).status_code == 415
    json = {"Content-Type": "application/json"}
    assert small("POST", chat, content=b" " * 2_001, headers=json).status_code == 413
    assert small("POST", chat, content=b" " * 2_000, headers=json).status_code in (400, 422)

    async def drip(pieces: int, pause: float) -> Any:
        for _ in range(pieces):
            yield b" " * 100
            await asyncio.sleep(pause)

    assert small("POST", chat, content=drip(30, 0), headers=json).status_code == 413
    short = caller(create_app(served.service, AccessRules(ServerLimits(body_seconds=0.2))))
    assert short("POST", chat, content=drip(5, 0.1), headers=json).status_code == 408


def test_rate_limit_is_a_429_with_retry_after(served: Any) -> None:
    call = caller(create_app(served.service, AccessRules(ServerLimits(per_minute=3))))
    answers = [call("GET", "/health") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 20
    assert answers[-1].json()["error"]["type"] == "rate_limit_error"
    assert all(RateLimiter(0).acquire("a") == 0 for _ in range(99))


def test_forwarded_for_does_not_evade_the_rate_limit(served: Any) -> None:
    config = server.server_config(create_app(served.service, AccessRules(ServerLimits(per_minute=2))))
    config.load()
    call = caller(config.loaded_app)
    answers = [call("GET", "/health", headers={"X-Forwarded-For": f"10.0.0.{n}"}) for n in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]


def test_reachable_address_needs_a_token(tmp_path: Path) -> None:
    for host in ("0.0.0.0", "::", "192.168.1.5", "desk.example"):
        assert not is_loopback(host)
        with pytest.raises(UsageProblem, match="no token"):
            check_token(host, None)
        check_token(host, tmp_path / "token")
    for host in ("127.0.0.1", "::1", "localhost"):
        check_token(host, None)


def test_token_file_is_created_and_must_be_private(tmp_path: Path) -> None:
    path = tmp_path / "token"
    access_token, created = read_token(path)
    assert created
    assert path.stat().st_mode & 0o777 == 0o600
    token = path.read_text().strip()
    assert re.fullmatch(r"[\w-]{43}", token)
    assert access_token.matches(f"Bearer {token}")
    access_token, created = read_token(path)
    assert not created
    assert access_token.matches(f"Bearer {token}")
    path.chmod(0o640)
    with pytest.raises(BadInput, match="others can read"):
        read_token(path)
    path.chmod(0o600)
    for wrong in ("", "short", "two words and then some more\n", "ünïcode-token-of-some-length", "x" * 5000):
        path.write_text(wrong, "utf-8")
        with pytest.raises(BadInput, match="has no token"):
            read_token(path)
    with pytest.raises(BadInput, match="cannot be"):
        read_token(tmp_path / "no" / "token")
