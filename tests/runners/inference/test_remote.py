"""Generation by a server: requests, retries, errors, rates, and that the key stays secret."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from rag.errors import BadInput, CannotRun, Problem
from runners.inference.constraints.constraint import OutputConstraint
from runners.inference.http_client import Backoff, RequestLimits, RequestPacer, retry_after
from runners.inference.remote import RemoteGenerator
from runners.inference.types import Completion, Sampling
from runners.models import endpoint
from tests.support.limits import HANG_S

CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Is it open?"}]
KEY = "sk-not-a-real-key"
FAST_BACKOFF = Backoff(tries=3, first=0.01, longest=0.02)


@pytest.fixture
def make(server: Any) -> Iterator[Callable[..., RemoteGenerator]]:
    """Return a factory of generators for the fake server, with short waits."""
    generators: list[RemoteGenerator] = []

    def make_generator(url: str = "", key: str = KEY, on_note: Any = None, **limits: Any) -> RemoteGenerator:
        limited = RequestLimits(**{"backoff": FAST_BACKOFF, **limits})
        generators.append(RemoteGenerator(url or server.url, "tern-2", limited, 7, key, on_note))
        return generators[-1]

    yield make_generator
    for generator in generators:
        generator.close()


def answers(status: int, body: Any = "", **headers: str) -> Callable[[Any], None]:
    """Return a fault that answers with a status."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler: handler.reply(status, body, named)


def hang_up(handler: Any) -> None:
    """Close the connection without an answer."""
    handler.close_connection = True
    handler.connection.close()


def test_answer_has_token_counts_and_request_is_greedy(server: Any, make: Any) -> None:
    server.answer = lambda body: "  Yes, until nine.\n"
    (answer,) = make().generate([CHAT], 20)
    assert (answer.text, answer.prompt_tokens, answer.completion_tokens) == ("Yes, until nine.", 5, 3)
    assert answer.finish == "stop"
    assert answer.seconds > 0
    sent = server.seen[0]
    assert {k: sent[k] for k in ("model", "messages", "max_tokens", "temperature", "seed")} == {
        "model": "tern-2",
        "messages": CHAT,
        "max_tokens": 20,
        "temperature": 0.0,
        "seed": 7,
    }
    assert server.keys == [f"Bearer {KEY}"]


def test_known_chats_are_not_sent(server: Any, make: Any) -> None:
    chats = [[{"role": "user", "content": f"Is pier {n} open?"}] for n in range(5)]
    server.answer = lambda body: body["messages"][-1]["content"]
    reported: list[int] = []
    answers = make().generate(chats, 20, lambda batch, _: reported.extend(batch), known={0, 3})
    assert [answer.text for answer in answers] == [f"Is pier {n} open?" for n in (1, 2, 4)]
    assert (sorted(reported), len(server.seen)) == ([1, 2, 4], 3)
    assert make().generate(chats, 20, known=set(range(5))) == []


def test_sampling_parameters_are_sent(server: Any, make: Any) -> None:
    make(key="").generate([CHAT], 5, sampling=Sampling(0.7, 0.9, 3, ("\n",)))
    sent = server.seen[0]
    assert (sent["temperature"], sent["top_p"], sent["seed"], sent["stop"]) == (0.7, 0.9, 3, ["\n"])
    assert server.keys == [None]


def test_stream_pieces_join_to_the_answer(server: Any, make: Any) -> None:
    server.answer = lambda body: "Yes, until nine. "
    stream = make().stream(CHAT, 20)
    pieces = list(stream)
    assert len(pieces) > 1
    assert "".join(pieces) == stream.completion.text == "Yes, until nine."
    assert (stream.completion.completion_tokens, stream.completion.finish) == (3, "stop")


def test_interrupted_stream_is_an_error(server: Any, make: Any) -> None:
    server.finished = False
    with pytest.raises(CannotRun, match="broke off in the middle"):
        list(make().stream(CHAT, 20))


@pytest.mark.parametrize(
    "fault",
    [
        answers(429, {"error": {"message": "slow down"}}, Retry_After="0"),
        answers(500, "oops"),
        answers(503),
        answers(408),
        answers(409),
        hang_up,
        answers(200, "<html>hello</html>"),
        answers(200, "[1]"),
    ],
    ids=["429", "500", "503", "408", "409", "cut", "not-json", "not-an-object"],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_temporary_failures_are_retried(server: Any, make: Any, fault: Any, streamed: bool) -> None:
    server.faults = [fault, fault]
    generator = make()
    answer = generator.stream(CHAT, 5).finish() if streamed else generator.generate([CHAT], 5)[0]
    assert answer.text == "Aye."
    assert (len(server.seen), generator.retries) == (3, 2)


def test_retry_after_is_obeyed_up_to_the_limit(server: Any, make: Any) -> None:
    server.faults = [answers(429, "", Retry_After="0.3")]
    started = time.monotonic()
    (answer,) = make().generate([CHAT], 5)
    whole = time.monotonic() - started
    assert whole >= 0.3
    assert 0 < answer.seconds <= whole - 0.3, "without the wait"
    server.faults = [answers(429, "", Retry_After="86400")]
    with pytest.raises(CannotRun, match="asks to wait 86400 s"):
        make().generate([CHAT], 5)


def test_repeated_server_error_raises_with_clean_message(server: Any, make: Any) -> None:
    server.faults = [answers(500, {"error": {"message": "out of\n\x1b[31mmemory"}})] * 9
    with pytest.raises(CannotRun) as caught:
        make().generate([CHAT], 5)
    assert f"tern-2 at 127.0.0.1:{server.server_port} answered 500: out of [31mmemory (3 tries)" == str(
        caught.value.message
    )


def test_timeout_and_unreachable_server_raise(server: Any, make: Any) -> None:
    ended = threading.Event()
    server.faults = [lambda handler: ended.wait(HANG_S)] * 3
    with pytest.raises(CannotRun, match="did not answer in time") as caught:
        make(read=0.15).generate([CHAT], 5)
    ended.set()
    assert caught.value.exit_code == 4
    with pytest.raises(CannotRun, match="cannot be reached"):
        make("http://127.0.0.1:9/v1").generate([CHAT], 5)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_client_errors_are_not_retried_and_hide_the_key(server: Any, make: Any, status: int) -> None:
    server.faults = [answers(status, {"error": {"message": f"wrong: {KEY} is not known"}})]
    with pytest.raises(BadInput) as caught:
        make().generate([CHAT], 5)
    error: Problem = caught.value
    assert len(server.seen) == 1
    assert f"answered {status}: wrong: *** is not known" in error.message
    assert KEY not in str(error) + repr(error.__context__) + repr(error.__cause__)
    assert error.hint
    assert "\n" not in str(error)


def test_invalid_key_is_refused_without_printing_it() -> None:
    with pytest.raises(BadInput, match="not one") as caught:
        RemoteGenerator("http://127.0.0.1:9/v1", "tern-2", key="schlüssel")
    assert "schl" not in str(caught.value)


def test_redirect_is_not_followed_and_names_the_other_host(server: Any, make: Any) -> None:
    server.faults = [answers(308, "", Location="https://elsewhere.example/v1/chat/completions")]
    with pytest.raises(endpoint.EndpointRefused, match=r"redirects to elsewhere\.example") as caught:
        make().generate([CHAT], 5)
    assert "no other host" in (caught.value.hint or "")
    assert len(server.seen) <= 1


def test_key_goes_only_to_its_own_host(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """On 477b318 both keys went to whatever host the plan named."""
    notes: list[str] = []
    for name in ("OPENAI_API_KEY", "TUNEWISE_API_KEY"):
        monkeypatch.setenv(name, KEY)
    for name in ("TUNEWISE_API_HOST", "TUNEWISE_API_KEYS"):
        monkeypatch.delenv(name, raising=False)
    limits = RequestLimits(backoff=FAST_BACKOFF)
    for host in ("", "127.0.0.1", f"127.0.0.1:{server.server_port}", "127.0.0.1:1"):
        monkeypatch.setenv("TUNEWISE_API_HOST", host)
        generator = RemoteGenerator(server.url, "tern-2", limits, on_note=notes.append)
        generator.generate([CHAT], 5)
        generator.close()
    assert server.keys == [None, f"Bearer {KEY}", f"Bearer {KEY}", None]
    assert len(notes) == 2
    assert f"TUNEWISE_API_KEY is not sent to 127.0.0.1:{server.server_port}" in notes[0]


def test_concurrency_is_limited_and_answers_keep_order(server: Any, make: Any) -> None:
    active, most, lock, together = 0, 0, threading.Lock(), threading.Event()

    def slow_echo(body: dict[str, Any]) -> str:
        nonlocal active, most
        with lock:
            active += 1
            most = max(most, active)
            if active == 3:
                together.set()
        together.wait(HANG_S)
        time.sleep(0.03)  # a fourth request would come now
        with lock:
            active -= 1
        return str(body["messages"][-1]["content"])

    server.answer = slow_echo
    reported: dict[int, Completion] = {}
    chats = [[{"role": "user", "content": f"number {n}"}] for n in range(9)]
    completions = make(at_once=3).generate(
        chats, 5, lambda batch, answers: reported.update(zip(batch, answers, strict=True))
    )
    assert [c.text for c in completions] == [f"number {n}" for n in range(9)]
    assert [reported[n] for n in range(9)] == completions
    assert most == 3


def test_failure_stops_sending_and_keeps_earlier_answers(server: Any, make: Any) -> None:
    def answer_once(handler: Any) -> None:
        handler.say("Aye.", {"messages": []})

    server.faults = [answer_once, answers(401)]
    reported: list[Completion] = []
    with pytest.raises(BadInput):
        make(at_once=1).generate([CHAT] * 6, 5, lambda _, answers: reported.extend(answers))
    assert [c.text for c in reported] == ["Aye."]
    assert len(server.seen) == 2


def test_missing_usage_gives_estimated_token_counts(server: Any, make: Any) -> None:
    server.faults = [answers(200, {"choices": [{"message": {"content": "12345678"}}]})]
    generator = make()
    (answer,) = generator.generate([CHAT], 5)
    assert (answer.prompt_tokens, answer.completion_tokens, answer.estimated) == (6, 2, True)
    assert not generator.generate([CHAT], 5)[0].estimated


MISTRAL = {
    "detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]
}
OPENAI = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."


@pytest.mark.parametrize("streamed", [False, True])
def test_refused_parameters_are_renamed_or_left_out_with_note(server: Any, make: Any, streamed: bool) -> None:
    server.faults = [answers(400, {"error": {"message": OPENAI}}), answers(422, MISTRAL)]
    notes: list[str] = []
    generator = make(on_note=notes.append)
    for _ in range(2):
        answer = generator.stream(CHAT, 5).finish() if streamed else generator.generate([CHAT], 5)[0]
        assert answer.text == "Aye."
    first, second, third, fourth = server.seen
    assert (first["max_tokens"], first["seed"]) == (5, 7)
    assert (second["max_completion_tokens"], second["seed"], "max_tokens" in second) == (5, 7, False)
    assert third == fourth == {k: v for k, v in second.items() if k != "seed"}
    where = f"tern-2 at 127.0.0.1:{server.server_port}"
    assert notes == [
        f"{where} does not take max_tokens: max_completion_tokens is sent instead",
        f"{where} does not take seed: it is no longer sent",
    ]


@pytest.mark.parametrize(
    "message",
    ["temperature must be below 2", "messages is not supported", "stop is not supported", "unsupported"],
)
def test_refusal_of_a_required_parameter_is_not_retried(server: Any, make: Any, message: str) -> None:
    server.faults = [answers(400, {"error": {"message": message}})]
    with pytest.raises(BadInput, match=message):
        make().generate([CHAT], 5, sampling=Sampling(stop=("x",)))
    assert len(server.seen) == 1


def test_parameter_refused_again_raises(server: Any, make: Any) -> None:
    server.faults = [answers(400, {"error": {"message": "seed, temperature: not allowed"}})] * 9
    with pytest.raises(BadInput, match="not allowed"):
        make().generate([CHAT], 5)
    assert len(server.seen) == 2


def test_json_of_a_schema_is_asked_for_and_left_out_after_a_refusal(server: Any, make: Any) -> None:
    """In whatever words the server refuses it: asked again without, and noted once."""
    schema = {"x-guidance": {"whitespace_flexible": False}, "type": "object", "required": ["a"]}
    constraint = OutputConstraint.of_schema(schema)
    notes: list[str] = []
    generator = make(on_note=notes.append)
    generator.generate([CHAT], 5, constraint=constraint)
    generator.stream(CHAT, 5, constraint=constraint).finish()
    asked = {"name": "answer", "schema": {"type": "object", "required": ["a"]}, "strict": False}
    assert [body["response_format"] for body in server.seen] == [
        {"type": "json_schema", "json_schema": asked}
    ] * 2
    server.faults = [answers(400, {"error": {"message": "Grammar error"}})]
    generator.generate([CHAT] * 2, 5, constraint=constraint)
    # The other of the two may be on its way with it when the first is refused.
    assert ["response_format" in body for body in server.seen[2:]].count(True) in (1, 2)
    assert ["response_format" in body for body in server.seen[2:]].count(False) in (1, 2)
    generator.generate([CHAT], 5, constraint=constraint)
    assert "response_format" not in server.seen[-1]
    (note,) = notes
    assert note.endswith("does not take response_format: it is no longer sent")


CONTEXT = "This model's maximum context length is 4096 tokens, and your messages have 5012 tokens."


@pytest.mark.parametrize(("message", "sent"), [(CONTEXT, 1), ("Bad Request", 2)])
@pytest.mark.parametrize("streamed", [False, True])
def test_too_long_prompt_is_an_error_of_one_request(
    server: Any, make: Any, message: str, sent: int, streamed: bool
) -> None:
    """The next one is held to the schema as before; where the words do not tell, it is tried without."""
    constraint = OutputConstraint.of_schema({"type": "object"})
    server.faults = [answers(400, {"error": {"message": message}})] * sent
    notes: list[str] = []
    generator = make(on_note=notes.append)

    def ask() -> str:
        if streamed:
            return str(generator.stream(CHAT, 5, constraint=constraint).finish().text)
        return str(generator.generate([CHAT], 5, constraint=constraint)[0].text)

    with pytest.raises(BadInput, match=message[:20]):
        ask()
    assert ["response_format" in body for body in server.seen] == [True, False][:sent]
    assert ask() == "Aye."
    assert "response_format" in server.seen[-1]
    assert notes == []


@pytest.mark.parametrize(
    "message",
    [
        "max_tokens 5 is not supported: with 4095 tokens of the prompt it exceeds the context length",
        "messages.0: unknown role 'captain' of the text " + "one more word, " * 8 + "the temperature",
    ],
)
def test_parameters_that_an_error_names_by_the_way_are_sent_again(
    server: Any, make: Any, message: str
) -> None:
    server.faults = [answers(400, {"error": {"message": message}})]
    generator = make()
    with pytest.raises(BadInput):
        generator.generate([CHAT], 5)
    generator.generate([CHAT], 5)
    first, second = server.seen
    assert first == second


def test_an_endpoint_is_not_held_to_labels_and_patterns_and_that_is_noted_once(
    server: Any, make: Any
) -> None:
    notes: list[str] = []
    generator = make(on_note=notes.append)
    for constraint in (OutputConstraint.of_labels(["a", "b"]), OutputConstraint.of_schema({}, ["no"])):
        generator.generate([CHAT], 5, constraint=constraint)
    assert notes == [
        "tern-2 is not constrained to the form of the plan's checks: an endpoint is not asked for labels"
    ]
    assert all("response_format" not in body for body in server.seen)


def test_on_note_is_called_for_every_retry(server: Any, make: Any) -> None:
    server.faults = [answers(503, {"error": {"message": "busy"}}), hang_up]
    notes: list[str] = []
    make(on_note=notes.append).generate([CHAT], 5)
    assert [note.partition("; asking again in ")[2].partition(" s ")[2] for note in notes] == [
        "(try 2 of 3)",
        "(try 3 of 3)",
    ]
    assert "answered 503: busy" in notes[0]
    assert "hung up" in notes[1]


@pytest.mark.parametrize("most", [0, -1])
def test_zero_max_new_tokens_is_refused_without_request(server: Any, make: Any, most: int) -> None:
    with pytest.raises(BadInput, match="at least 1"):
        make().generate([CHAT], most)
    with pytest.raises(BadInput, match="at least 1"):
        make().stream(CHAT, most)
    assert server.seen == []


def test_answer_without_choices_raises(server: Any, make: Any) -> None:
    server.faults = [answers(200, {"object": "list"})]
    with pytest.raises(CannotRun, match="without choices"):
        make().generate([CHAT], 5)


def test_request_pacer_spaces_requests_to_the_rate() -> None:
    now = [100.0]
    pace = RequestPacer(120, lambda: now[0])
    assert [pace.reserve() for _ in range(3)] == [0.0, 0.5, 1.0]
    now[0] = 110.0
    assert pace.reserve() == 0.0
    assert [RequestPacer(None).reserve() for _ in range(3)] == [0.0] * 3


def test_backoff_doubles_with_jitter_and_obeys_retry_after() -> None:
    backoff = Backoff(first=1, longest=5)
    assert [backoff.wait(n, None, lambda: 1.0) for n in (1, 2, 3, 4)] == [1, 2, 4, 5]
    assert backoff.wait(3, None, lambda: 0.25) == 1.0
    assert backoff.wait(1, 10, lambda: 0.0) == 10
    assert 10 <= backoff.wait(5, 10) <= 11


def test_retry_after_parses_seconds_and_dates() -> None:
    now = datetime(2026, 11, 25, 12, 0, 0, tzinfo=UTC)
    assert retry_after("3", now) == 3
    assert retry_after("Wed, 25 Nov 2026 12:00:07 GMT", now) == 7
    assert retry_after("-3", now) == 0
    assert [retry_after(text, now) for text in (None, "", "soon", "inf", "nan")] == [None] * 5


@pytest.mark.parametrize(
    ("url", "private"),
    [
        ("http://127.0.0.1:8000/v1", True),
        ("http://localhost/v1", True),
        ("http://[::1]:8000/v1", True),
        ("http://192.168.3.4/v1", True),
        ("http://10.0.0.9/v1", True),
        ("http://gpu.internal/v1", True),
        ("https://api.example.com/v1", False),
        ("http://8.8.8.8/v1", False),
        ("http://127.0.0.1.example.com/v1", False),
        ("http://localhost.example.com", False),
        ("http://127.0.0.1@example.com/v1", False),
    ],
)
def test_local_data_is_sent_to_private_hosts_only(url: str, private: bool) -> None:
    assert endpoint.is_private(url) is private
    if "@" not in url:
        endpoint.check_may_contact("tern-2", url, must_stay_local=False)
    if private:
        endpoint.check_may_contact("tern-2", url, must_stay_local=True)
    else:
        with pytest.raises(BadInput, match=r"stay local|credentials"):
            endpoint.check_may_contact("tern-2", url, must_stay_local=True)


@pytest.mark.parametrize("url", ["http:///v1", "http://host:99999/v1", "http://user:pw@host/v1"])
def test_invalid_url_is_refused_without_printing_its_password(url: str) -> None:
    with pytest.raises(BadInput) as caught:
        endpoint.check_may_contact("tern-2", url, must_stay_local=False)
    assert "pw" not in str(caught.value)


def test_endpoint_host_excludes_credentials() -> None:
    assert endpoint.endpoint_host("https://me:pw@api.example.com/v1") == "api.example.com"
    assert endpoint.endpoint_host("http://[::1]:8000/v1") == "[::1]:8000"
