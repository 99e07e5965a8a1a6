"""The requests of the label page: who may send them, what they store, and changes that another tab has overtaken."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from rag.errors import CannotRun, UsageProblem
from runners.labels.session import LabelSession
from runners.serving.label_page.server import LIMITS, MAX_GOLD_CHARS, LabelServer, serve_page
from tests.support.label_pages import PERSON, QUESTIONS, LabelPageServer
from tests.support.labelled_run import PlantedRun
from tests.support.limits import HANG_S

ROUTES = [
    ("GET", "/revision"),
    ("GET", "/task"),
    ("POST", "/labels"),
    ("POST", "/undo"),
    ("POST", "/all-pairs"),
    ("POST", "/done"),
    ("GET", "/openapi.json"),
    ("GET", "/nowhere"),
]


@pytest.fixture
def http(label_page: LabelPageServer) -> Iterator[httpx.Client]:
    """A client that brings the token."""
    with label_page.client() as client:
        yield client


@pytest.fixture
def start(http: httpx.Client) -> dict[str, Any]:
    """What the page shows first, a question with two answers."""
    return state(http.get("/task"))


def state(answer: httpx.Response) -> dict[str, Any]:
    """Return the state that a request brought."""
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def post(http: httpx.Client, shown: dict[str, Any], kind: str, **fields: Any) -> httpx.Response:
    """Send a label of the task that a page shows."""
    body = {"kind": kind, "key": shown["task"]["key"], "revision": shown["revision"], **fields}
    return http.post("/labels", json=body)


def test_all_but_the_page_needs_the_token(label_page: LabelPageServer) -> None:
    with httpx.Client(base_url=label_page.address) as stranger:
        for method, path in ROUTES:
            for headers in ({}, {"Authorization": f"Bearer {label_page.token}x"}):
                answer = stranger.request(method, path, json={}, headers=headers)
                assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
        page = stranger.get("/")
    assert page.status_code == 200
    assert label_page.token not in page.text
    policy = page.headers["Content-Security-Policy"]
    assert policy.count("'sha256-") == 2
    assert "unsafe" not in policy
    assert "http" not in page.text.replace("http-equiv", "")
    assert page.headers["Cache-Control"] == "no-store"
    assert len(label_page.token) >= 40


def test_hosts_origins_types_and_sizes_are_checked(
    http: httpx.Client, start: dict[str, Any], label_page: LabelPageServer
) -> None:
    body = {"kind": "skip", "key": start["task"]["key"], "revision": start["revision"]}
    port = label_page.address.rpartition(":")[2]
    for headers, status, code in (
        ({"Host": f"rebound.example:{port}"}, 400, "host_not_allowed"),
        ({"Origin": "http://elsewhere.example"}, 403, "origin_not_allowed"),
        ({"Origin": "null"}, 403, "origin_not_allowed"),
    ):
        answer = http.post("/labels", json=body, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    text = http.post("/labels", content=json.dumps(body), headers={"Content-Type": "text/plain"})
    assert text.status_code == 415
    assert http.post("/labels", json={**body, "key": "x" * LIMITS.body_bytes}).status_code == 413
    for path in ("/", "/task"):
        assert http.get(path, headers={"Host": "rebound.example"}).status_code == 400
    assert http.post("/labels", json=body, headers={"Origin": label_page.address}).status_code == 200


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "grade", "side": "first"},
        {"kind": "grade", "side": "third", "grade": "right"},
        {"kind": "grade", "side": "first", "grade": "good"},
        {"kind": "prefer", "better": "both"},
        {"kind": "answerable", "answerable": "no"},
        {"kind": "gold", "text": "x" * (MAX_GOLD_CHARS + 1)},
        {"kind": "gold", "text": "\ud800"},
        {"kind": "gold", "text": "  "},
        {"kind": "sentence", "passage": -1, "sentence": 0},
        {"kind": "sentence", "passage": 99, "sentence": 0},
        {"kind": "sentence", "passage": 0, "sentence": 99},
        {"kind": "skip", "revision": "0"},
        {"kind": "skip", "key": "no such task"},
        {"kind": "skip", "key": "../../etc/passwd"},
        {"kind": "skip", "more": 1},
        {"kind": "other"},
        {},
    ],
)
def test_what_is_no_label_is_refused_and_nothing_changes(
    http: httpx.Client, start: dict[str, Any], change: dict[str, Any], label_page: LabelPageServer
) -> None:
    body = {"key": start["task"]["key"], "revision": start["revision"], **change}
    answer = http.post("/labels", content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422)
    assert answer.json()["error"]["message"]
    assert state(http.get("/task")) == start
    assert not label_page.labels.people


def test_task_names_no_arm(http: httpx.Client, start: dict[str, Any]) -> None:
    seen = set()
    shown = start
    while shown["task"]:
        assert shown["task"]["key"] not in seen
        seen.add(shown["task"]["key"])
        text = json.dumps(shown["task"])
        assert not [arm for arm in ("hybrid", "rag", "lora", "prompting", "few-shot") if arm in text]
        shown = state(post(http, shown, "skip"))
    assert len(seen) == QUESTIONS


def test_labels_are_on_the_disk_when_they_are_confirmed(
    http: httpx.Client, start: dict[str, Any], label_page: LabelPageServer
) -> None:
    shown = start
    assert shown["revision"] == 0
    steps: list[tuple[str, dict[str, Any], Any]] = [
        ("grade", {"side": "first", "grade": "right"}, lambda task: task["grades"] == ["right", None]),
        ("grade", {"side": "second", "grade": "partly"}, lambda task: task["done"]),
        ("prefer", {"better": "first"}, lambda task: task["better"] == "first"),
        ("gold", {"text": "From 7 o’clock. 🚢"}, lambda task: task["gold"] == "From 7 o’clock. 🚢"),
        ("sentence", {"passage": 0, "sentence": 0}, lambda task: task["passages"][0]["pieces"]),
    ]
    journal = label_page.run / "trial" / "labels" / f"{PERSON}.jsonl"
    rows = 0
    for number, (kind, fields, check) in enumerate(steps, 1):
        shown = state(post(http, shown, kind, **fields))
        assert shown["revision"] == number
        assert check(shown["task"])
        written = len(journal.read_text("utf-8").splitlines())
        assert written > rows
        rows = written
    marked = [
        piece for passage in shown["task"]["passages"] for piece in passage["pieces"] if piece["marked"]
    ]
    assert len(marked) == 1
    (person,) = label_page.labels.people
    (labels,) = person.questions.values()
    assert sorted(labels.grades.values()) == ["partly", "right"]
    assert labels.gold == "From 7 o’clock. 🚢"
    assert labels.sentence is not None
    assert labels.sentence.text == marked[0]["text"]
    assert shown["progress"]["counts"] == f"{PERSON}: 1 page labelled"
    assert shown["progress"]["position"].startswith(
        f"comparison 1 of 1: 1 of {QUESTIONS} labels, by all people"
    )
    assert shown["progress"]["meanings"]["wrong"].endswith("a refusal of a question that has an answer")


def test_pieces_of_a_passage_are_its_text(
    http: httpx.Client, start: dict[str, Any], planted: PlantedRun
) -> None:
    documents = [path.read_text("utf-8") for path in (planted.run.parent / "documents").iterdir()]
    assert start["task"]["passages"]
    for passage in start["task"]["passages"]:
        text = "".join(piece["text"] for piece in passage["pieces"])
        assert any(text in document for document in documents)
        numbers = [piece["sentence"] for piece in passage["pieces"] if piece["sentence"] is not None]
        assert numbers == list(range(len(numbers)))


def test_second_tab_overwrites_nothing(
    http: httpx.Client, start: dict[str, Any], label_page: LabelPageServer
) -> None:
    now = state(post(http, start, "grade", side="first", grade="right"))
    late = post(http, start, "grade", side="first", grade="wrong")
    assert (late.status_code, late.json()["error"]["code"]) == (409, "stale")
    assert late.json()["state"] == now
    assert http.post("/undo", json={"revision": start["revision"]}).status_code == 409
    (person,) = label_page.labels.people
    assert [list(labels.grades.values()) for labels in person.questions.values()] == [["right"]]
    again = late.json()["state"]
    assert state(post(http, again, "grade", side="first", grade="wrong"))["task"]["grades"][0] == "wrong"


def test_many_tabs_at_once_store_one_label(
    http: httpx.Client, start: dict[str, Any], label_page: LabelPageServer
) -> None:
    codes: list[int] = []

    def click(grade: str) -> None:
        codes.append(post(http, start, "grade", side="first", grade=grade).status_code)

    threads = [
        threading.Thread(target=click, args=(grade,))
        for grade in ("right", "partly", "wrong")
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG_S)
    assert sorted(codes) == [200] + [409] * 11
    assert state(http.get("/task"))["revision"] == 1


def test_label_that_cannot_be_written_is_not_confirmed(
    http: httpx.Client, start: dict[str, Any], label_page: LabelPageServer
) -> None:
    in_the_way = label_page.run / "trial" / "labels" / f"{PERSON}.jsonl"
    in_the_way.mkdir()
    failed = post(http, start, "grade", side="first", grade="right")
    assert (failed.status_code, failed.json()["error"]["code"]) == (503, "cannot_run")
    in_the_way.rmdir()
    assert state(http.get("/task")) == start
    assert state(post(http, start, "grade", side="first", grade="right"))["revision"] == 1


def test_undo_goes_back_to_the_task_of_the_click(http: httpx.Client, start: dict[str, Any]) -> None:
    nothing = http.post("/undo", json={"revision": 0})
    assert (nothing.status_code, nothing.json()["error"]["code"]) == (400, "nothing_to_undo")
    after = state(post(http, start, "skip"))
    assert after["task"]["key"] != start["task"]["key"]
    back = state(http.post("/undo", json={"revision": after["revision"]}))
    assert back["task"] == start["task"]
    assert (start["task"]["page"], after["task"]["page"]) == (1, 2)
    following = state(http.get("/task", params={"key": after["task"]["key"]}))["task"]
    assert following == {**after["task"], "page": 1}


def test_not_answerable_completes_a_task(http: httpx.Client, start: dict[str, Any]) -> None:
    shown = state(post(http, start, "answerable", answerable=False))
    assert (shown["task"]["answerable"], shown["task"]["done"]) == (False, True)
    assert shown["task"]["consequence"].startswith(
        "A counts as wrong, as it does not refuse; B counts as wrong"
    )
    shown = state(post(http, shown, "answerable", answerable=True))
    assert shown["task"]["done"] is False


def test_done_ends_the_server_and_says_what_to_run(http: httpx.Client, label_page: LabelPageServer) -> None:
    for _ in range(QUESTIONS):
        shown = state(http.get("/task"))
        for side in ("first", "second"):
            wrong = "00 berths" in shown["task"]["answers"][side == "second"]
            shown = state(post(http, shown, "grade", side=side, grade="wrong" if wrong else "right"))
            assert "better" not in json.dumps(shown["progress"]["position"])
    end = state(http.post("/all-pairs", json={}))
    assert (end["task"], end["progress"]["position"], end["progress"]["more"]) == (None, "", False)
    assert end["progress"]["finished"] == "Every question is labelled or skipped."
    words = state(http.post("/done", json={}))
    assert words["results"] == [
        f"hybrid is better than rag: mean grade +1.00 [+1.00, +1.00], 95 % ({QUESTIONS} of {QUESTIONS} "
        "labels, by all people)"
    ]
    assert words["next"] == f"tunewise run {label_page.run} --resume"
    assert PERSON in words["text"]
    label_page.thread.join(HANG_S)
    assert not label_page.thread.is_alive()


def test_other_machines_cannot_be_let_in_and_a_port_in_use_is_said(
    planted: PlantedRun, label_page: LabelPageServer
) -> None:
    port = int(label_page.address.rpartition(":")[2])
    with LabelSession.open(planted.questions, planted.run, "another") as session:
        for host in ("0.0.0.0", "192.0.2.7", "example.org"):
            with pytest.raises(UsageProblem, match="for this one alone"):
                LabelServer(session, host=host, on_ready=print)
        with pytest.raises(CannotRun, match="cannot listen"):
            LabelServer(session, port=port, on_ready=print)


@pytest.mark.parametrize("how", ["done", "signal"])
def test_serve_page_returns_when_it_is_ended(
    planted: PlantedRun, capfd: pytest.CaptureFixture[str], how: str
) -> None:
    urls: list[str] = []

    def end() -> None:
        address, _, token = urls[0].partition("/#")
        with httpx.Client(base_url=address, headers={"Authorization": f"Bearer {token}"}) as client:
            shown = state(client.get("/task"))
            state(post(client, shown, "skip"))
            if how == "done":
                client.post("/done", json={})
            else:
                os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=end)

    def on_ready(url: str) -> None:
        urls.append(url)
        thread.start()

    with LabelSession.open(planted.questions, planted.run, PERSON) as session:
        serve_page(session, on_ready=on_ready)
        thread.join(HANG_S)
        assert session.progress().skipped == 1
    shown = capfd.readouterr()
    assert urls[0].partition("#")[2] not in shown.out + shown.err
