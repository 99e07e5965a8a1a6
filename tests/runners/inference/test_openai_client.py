"""The official client is used for what we choose: nothing of the environment changes where requests go or what they hold."""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from rag.errors import BadInput, CannotRun
from runners.inference.http_client import Backoff, HttpClient, RequestLimits, ServerFailure
from runners.inference.servers import openai_client
from runners.inference.servers.openai_client import ChosenRequests, lines_of, proxy_for
from tests.support.limits import HANG_S

KEY = "sk-not-a-real-key"
BODY = {"model": "tern-2", "messages": [{"role": "user", "content": "Is it open?"}], "max_tokens": 5}
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
OWN_HEADERS = {"Host", "Accept", "Content-Type", "User-Agent", "Content-Length", "Authorization"}


def hostile_environment(other: str) -> dict[str, str]:
    """Return values for every variable that the library or its transport reads, which lead to another server."""
    return {
        "OPENAI_API_KEY": "sk-of-the-environment",
        "OPENAI_ADMIN_KEY": "sk-admin-of-the-environment",
        "OPENAI_BASE_URL": other,
        "OPENAI_ORG_ID": "org-of-the-environment",
        "OPENAI_PROJECT_ID": "project-of-the-environment",
        "OPENAI_WEBHOOK_SECRET": "secret-of-the-environment",
        "OPENAI_CUSTOM_HEADERS": "X-Extra: 1\nAuthorization: Bearer stolen\nHost: evil.example\nCookie: a=b",
        "OPENAI_LOG": "debug",
        **{name: other.removesuffix("/v1") for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")},
    }


@pytest.fixture
def make() -> Iterator[Callable[..., HttpClient]]:
    """Return a factory of clients with short waits."""
    clients: list[HttpClient] = []

    def make_client(url: str, key: str = KEY, on_note: Any = None, **limits: Any) -> HttpClient:
        limited = RequestLimits(**{"backoff": Backoff(tries=2, first=0.01, longest=0.02), **limits})
        clients.append(HttpClient(url, "tern-2", limited, key, on_note))
        return clients[-1]

    yield make_client
    for client in clients:
        client.close()


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Set variables of the environment, those of proxies unset before, also in small letters."""
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)

    def set_variables(**values: str) -> None:
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return set_variables


@pytest.mark.parametrize("key", [KEY, ""])
def test_variables_of_the_library_change_nothing(
    endpoints: Any, make: Any, environment: Any, key: str
) -> None:
    server, other = endpoints(), endpoints()
    environment(**hostile_environment(other.url))
    client = make(server.url, key)
    client.object(BODY)
    list(client.events({**BODY, "stream": True}))
    client.models(5)
    assert (other.seen, other.headers) == ([], [])
    assert [body["model"] for body in server.seen] == ["tern-2", "tern-2"]
    assert len(server.headers) == 3
    for headers in server.headers:
        assert set(headers) <= OWN_HEADERS, set(headers) - OWN_HEADERS
        assert headers["Host"] == f"127.0.0.1:{server.server_port}"
        assert headers["User-Agent"].startswith("tunewise/")
        assert headers.get("Authorization") == (f"Bearer {key}" if key else None)


def test_logging_is_not_set_up_by_the_library(server: Any, root: Path) -> None:
    """In a process of its own: the library reads the variable once, while it is imported."""
    code = (
        "import logging, os, sys\n"
        "from runners.inference.remote import RemoteGenerator\n"
        "before = 'openai' in sys.modules\n"
        "generator = RemoteGenerator(sys.argv[1], 'tern-2', key='')\n"
        "generator.generate([[{'role': 'user', 'content': 'Open?'}]], 5)\n"
        "print(before, logging.getLogger('openai').level, len(logging.getLogger().handlers), os.environ['OPENAI_LOG'])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, server.url],
        cwd=root,
        env={**os.environ, "OPENAI_LOG": "debug"},
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=True,
    )
    assert (result.stdout.split(), result.stderr) == (["False", "0", "0", "debug"], "")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_to_another_server_is_refused_and_nothing_is_sent_there(
    endpoints: Any, make: Any, status: int
) -> None:
    server, other = endpoints(), endpoints()
    to_other = {"Location": f"{other.url}/chat/completions"}
    server.faults = [lambda handler: handler.reply(status, "", to_other)]
    with pytest.raises(BadInput, match=f"redirects to 127.0.0.1:{other.server_port}"):
        make(server.url).object(BODY)
    assert (other.headers, len(server.seen)) == ([], 1)


def test_request_for_another_server_is_not_sent(server: Any) -> None:
    transport = ChosenRequests("http://127.0.0.1:9/v1", KEY, httpx2.HTTPTransport())
    for url in (server.url, "https://127.0.0.1:9/v1", "http://localhost:9/v1"):
        with pytest.raises(BadInput, match="would have gone to"):
            transport.handle_request(httpx2.Request("POST", f"{url}/chat/completions", json=BODY))
    assert server.headers == []


def test_public_address_is_asked_through_the_proxy_of_the_environment(
    endpoints: Any, make: Any, environment: Any
) -> None:
    proxy, server = endpoints(), endpoints()
    environment(HTTP_PROXY=proxy.url.removesuffix("/v1"))
    answer, _ = make("http://api.example.com/v1", key="").object(BODY)
    assert answer["choices"][0]["message"]["content"] == "Aye."
    assert proxy.headers[0]["Host"] == "api.example.com"
    make(server.url).object(BODY)
    assert (len(proxy.seen), len(server.seen)) == (1, 1)


@pytest.mark.parametrize(
    ("address", "exceptions", "proxied"),
    [
        ("https://api.example.com/v1", "", True),
        ("https://api.example.com/v1", "other.example, example.com", False),
        ("https://api.example.com/v1", ".example.com", False),
        ("https://api.example.com/v1", "*.example.com", False),
        ("https://api.example.com:8443/v1", "API.example.com:8443", False),
        ("https://api.example.com:8443/v1", "api.example.com:443", True),
        ("https://notexample.com/v1", "example.com", True),
        ("https://api.example.com/v1", "*", False),
        ("https://api.example.com./v1", "api.example.com", False),
        ("https://10.0.0.7/v1", "", False),
        ("https://localhost:8000/v1", "", False),
        ("https://desk.internal/v1", "", False),
        ("https://8.8.8.8/v1", "", True),
        ("https://8.8.8.8/v1", "8.8.8.8", False),
    ],
)
def test_proxy_is_that_of_the_environment_without_its_exceptions(
    environment: Any, address: str, exceptions: str, proxied: bool
) -> None:
    environment(ALL_PROXY="proxy.example:3128", NO_PROXY=exceptions)
    assert proxy_for(address) == ("http://proxy.example:3128" if proxied else "")
    environment(HTTPS_PROXY="http://secure.example:1")
    assert proxy_for(address) == ("http://secure.example:1" if proxied else "")


@pytest.mark.parametrize(
    ("proxy", "reason"),
    [("gopher://me:secret@127.0.0.1:9", "no address like"), ("http://me:secret@[::bad", "no address like")],
)
def test_unusable_proxy_is_named_without_its_password(environment: Any, proxy: str, reason: str) -> None:
    environment(HTTPS_PROXY=proxy)
    with pytest.raises(BadInput, match=reason) as caught:
        openai_client.connect("https://api.example.com/v1", KEY, 1)
    assert "secret" not in str(caught.value)
    assert "HTTPS_PROXY" in (caught.value.hint or "")


@pytest.mark.parametrize("key", ["sk-one\nsk-two", "schlüssel", "sk\x00"])
def test_key_that_no_header_can_hold_is_refused_before_it_is_sent(make: Any, key: str) -> None:
    with pytest.raises(BadInput, match="not one") as caught:
        make("http://127.0.0.1:9/v1", key)
    assert "sk" not in str(caught.value).replace("ask", "")


def test_fields_that_the_library_does_not_know_are_sent_and_returned(server: Any, make: Any) -> None:
    said = {"choices": [{"message": {"content": "Aye."}, "x_more": [1]}], "x_sources": [{"doc_id": "a.md"}]}
    server.faults = [lambda handler: handler.reply(200, said)]
    answer, _ = make(server.url).object({**BODY, "x_arm": {"deep": None}, "temperature": None})
    assert answer == said
    assert server.seen == [{**BODY, "x_arm": {"deep": None}, "temperature": None}]


def test_retries_count_among_the_requests_a_minute(server: Any, make: Any) -> None:
    server.faults = [lambda handler: handler.reply(503, "")] * 2
    client = make(server.url, per_minute=300, backoff=Backoff(tries=3, first=0.001, longest=0.001))
    started = time.monotonic()
    client.object(BODY)
    assert (time.monotonic() - started >= 0.4, client.retries, len(server.seen)) == (True, 2, 3)


def test_closing_a_client_ends_its_wait(server: Any, make: Any) -> None:
    server.faults = [lambda handler: handler.reply(429, "", {"Retry-After": "60"})] * 9
    notes: list[str] = []
    waits = threading.Event()

    def on_note(note: str) -> None:
        notes.append(note)
        waits.set()

    client = make(server.url, on_note=on_note)
    threading.Timer(0, lambda: (waits.wait(HANG_S), client.close())).start()
    with pytest.raises((CannotRun, RuntimeError)):  # the client was closed
        client.object(BODY)
    assert "asking again in 60." in notes[0]
    assert len(server.seen) == 1, "the minute was not waited for"


def sent_as(*lines: str) -> Callable[[Any], None]:
    """Return a fault that answers with lines of an event stream."""
    return lambda handler: handler.reply(200, "\n".join(lines))


EVENT = 'data: {"choices": [{"delta": {"content": "a\u2028b\x85c"}}]}'


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ((EVENT, "", "data: {not json}", "", ""), "sent no JSON object: '{not json}'"),
        ((EVENT, "", "data: [1]", "", ""), r"sent no JSON object: '\[1\]'"),
        ((EVENT, "", "data: " + "[" * 100_000, "", ""), "sent no JSON object"),
        (
            (EVENT, "", 'data: {"error": {"message": "over\\u001bloaded"}}', "", ""),
            "sent an error: over loaded",
        ),
        ((EVENT, "", 'data: {"choi'), "sent no JSON object"),
        ((EVENT, "", ""), "broke off in the middle"),
    ],
    ids=["json", "array", "deep", "error", "cut", "end"],
)
def test_malformed_and_broken_streams_are_errors(
    server: Any, make: Any, lines: tuple[str, ...], message: str
) -> None:
    server.faults = [sent_as(*lines)] * 2
    events = make(server.url).events({**BODY, "stream": True})
    assert next(events)["choices"][0]["delta"]["content"] == "a\u2028b\x85c"
    with pytest.raises(CannotRun, match=message):
        list(events)


def test_the_library_takes_a_broken_stream_for_a_whole_one(server: Any) -> None:
    """The reason why streams are read here. A failure of this test means that the library can be trusted with them."""
    server.faults = [sent_as('data: {"choices": [{"delta": {"content": "The ferry"}}]}', "", "")]
    client = openai_client.connect(server.url, KEY, 1)
    events = list(client.chat.completions.create(model="tern-2", messages=[], stream=True))
    client.close()
    assert [event.choices[0].delta.content for event in events] == ["The ferry"]


@pytest.mark.parametrize("text", ["a\nb\r\n\nc", "a\u2028\x85\x0b\n", "", "\n", "no end"])
@pytest.mark.parametrize("size", [1, 2, 5, 100])
def test_lines_end_with_a_line_feed_alone(text: str, size: int) -> None:
    raw = text.encode()
    chunks = [raw[start : start + size] for start in range(0, len(raw), size)]
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    assert list(lines_of(chunks)) == (lines if lines[-1] else lines[:-1])


@pytest.mark.parametrize("streamed", [False, True])
def test_answer_without_end_is_refused(server: Any, make: Any, streamed: bool) -> None:
    server.faults = [lambda handler: handler.reply(200, "x" * (2 << 20))] * 2
    client = make(server.url, most_bytes=1 << 20)
    with pytest.raises(CannotRun, match="sent more than 1 MiB in one answer"):
        list(client.events(BODY)) if streamed else client.object(BODY)


def test_only_the_beginning_of_an_error_is_read(server: Any, make: Any) -> None:
    def endless(handler: Any) -> None:
        handler.send_response(400)
        handler.send_header("Content-Length", str(1 << 40))
        handler.end_headers()
        handler.wfile.write(b"no such parameter " * 10_000)
        handler.close_connection = True

    server.faults = [endless]
    with pytest.raises(BadInput, match=r"answered 400: no such parameter no such") as caught:
        make(server.url).object(BODY)
    assert len(caught.value.message) < 300


def test_error_whose_text_does_not_come_is_a_timeout(server: Any, make: Any) -> None:
    """The library reads the text of an error outside of what it guards: its transport's own error comes through."""

    ended = threading.Event()

    def stall(handler: Any) -> None:
        handler.send_response(500)
        handler.send_header("Content-Length", "100")
        handler.end_headers()
        ended.wait(HANG_S)

    server.faults = [stall] * 2
    with pytest.raises(CannotRun, match="did not answer in time"):
        make(server.url, read=0.1).object(BODY)
    ended.set()


def test_models_names_the_address_and_the_status(server: Any, make: Any) -> None:
    client = make(server.url)
    server.models = ["tern-2", 7]
    assert [row["id"] for row in client.models(5)] == ["tern-2"]

    class Refusing(server.RequestHandlerClass):  # type: ignore[misc]
        def do_GET(self) -> None:
            self.reply(404, {"error": {"message": "nothing here"}})

    server.RequestHandlerClass = Refusing
    with pytest.raises(ServerFailure, match=r"/v1/models answered 404: nothing here") as caught:
        client.models(5)
    assert caught.value.status == 404


def test_half_a_character_is_refused_with_a_reason(server: Any, make: Any) -> None:
    body = {**BODY, "messages": [{"role": "user", "content": "half \ud800"}]}
    with pytest.raises(BadInput, match="lone surrogate"):
        make(server.url).object(body)
    assert server.seen == []


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of 127.0.0.1, signed by itself, and its key, in one file."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + signed.public_bytes(serialization.Encoding.PEM))
    return path


def test_certificate_is_checked_and_can_be_given(
    endpoints: Any, make: Any, environment: Any, certificate: Path
) -> None:
    server = endpoints()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    url = server.url.replace("http:", "https:")
    with pytest.raises(CannotRun, match="certificate verify failed"):
        make(url).object(BODY)
    assert server.seen == []
    environment(SSL_CERT_FILE=str(certificate))
    assert make(url).object(BODY)[0]["choices"]
    for name, text in (("absent.pem", None), ("empty.pem", "no certificate")):
        if text is not None:
            (certificate.parent / name).write_text(text, "utf-8")
        environment(SSL_CERT_FILE=str(certificate.parent / name))
        with pytest.raises(BadInput, match=f"SSL_CERT_FILE is '.*{name}', where no certificates can be read"):
            make(url)


def test_error_of_the_library_with_the_key_is_no_context_of_ours(server: Any, make: Any) -> None:
    server.faults = [lambda handler: handler.reply(401, json.dumps({"error": {"message": f"bad {KEY}"}}))]
    with pytest.raises(BadInput) as caught:
        make(server.url).object(BODY)
    assert (caught.value.__context__, caught.value.__cause__) == (None, None)
    assert not isinstance(caught.value, openai.OpenAIError)
