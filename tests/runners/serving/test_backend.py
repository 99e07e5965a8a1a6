"""A run served with servers behind it: what goes to them, what stays, and what is said of those that are down."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from rag.errors import BadInput, CannotRun
from runners.plan.schema import parse_plan, read_plan, write_plan
from runners.run_folder import RunFolder
from runners.runs.endpoint_consent import set_unconfirmed
from runners.runs.opened import Opening, OpenRun
from runners.runs.run import load
from runners.trial.evaluate import evaluate
from runners.trial.execute import run_plan

QUESTION = "How many berths has the Amber Pier?"


@pytest.fixture
def engines(endpoints: Callable[[], Any]) -> tuple[Any, Any]:
    """Two endpoints with the base and the weights of the run's tuned arms, by the names that are asked for."""
    pair = endpoints(), endpoints()
    for fake in pair:
        fake.models = ["base", "lora"]
        fake.answer = lambda body: f"{body['model']} says that the Amber Pier has 20 berths."
    return pair


def entry(*fakes: Any) -> str:
    """The backend of some endpoints."""
    return f"openai:base@{','.join(fake.url for fake in fakes)}"


def ask(client: httpx.Client, **body: Any) -> httpx.Response:
    """Ask the question."""
    messages = [{"role": "user", "content": QUESTION}]
    return client.post("/v1/chat/completions", json={"messages": messages, **body})


def hang_up(handler: Any) -> None:
    """Close the connection in the middle of an answer."""
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(b'data: {"choices": [{"delta": {"content": "The Amber Pier "}}]}\n\n')
    handler.wfile.flush()
    handler.close_connection = True
    handler.connection.close()


def test_retrieval_and_citations_stay_and_text_comes_from_the_servers(
    serve: Callable[..., Any], engines: tuple[Any, Any]
) -> None:
    served = serve(backend=(entry(*engines),))
    with served.client() as client:
        body = ask(client, model="rag").json()
        assert body["choices"][0]["message"]["content"].startswith(
            "base says that the Amber Pier has 20 berths."
        )
        assert body["x_tunewise"]["citations"][0]["doc"] == "pier00.md"
        assert "The Amber Pier has 20 berths" in engines[0].seen[0]["messages"][-1]["content"]
        for arm in ("hybrid", "lora"):
            assert "lora says" in ask(client, model=arm).json()["choices"][0]["message"]["content"]
        ids = [row["id"] for row in client.get("/v1/models").json()["data"]]
        assert {"rag", "prompting", "few-shot", "hybrid", "lora", "lora-s0", "model"} <= set(ids)
        assert ask(client, model="model").json()["choices"][0]["message"]["content"].startswith("base says")
        assert {body["model"] for fake in engines for body in fake.seen} == {"base", "lora"}
        assert not served.service.session.models.is_loaded, "no model was loaded here"
        assert client.get("/health").json()["status"] == "ok"


def test_arm_whose_weights_no_server_has_is_left_out_or_refused(
    serve: Callable[..., Any], engines: tuple[Any, Any]
) -> None:
    engines[1].models = ["base"]
    served = serve(backend=(entry(*engines),), arm="rag")
    with served.client() as client:
        refused = ask(client, model="lora")
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")
    for arm in ("lora", "hybrid"):
        with pytest.raises(BadInput) as caught:
            serve(backend=(entry(*engines),), arm=arm)
        assert f"{engines[1].url} has no model 'lora'; it has: base" in caught.value.message
    own = f"lora=openai:lora@{engines[0].url}"
    with serve(backend=(entry(*engines), own), arm="hybrid").client() as client:
        assert ask(client).json()["choices"][0]["message"]["content"].startswith("lora says")


def test_lost_answer_is_asked_again_and_a_broken_stream_ends_with_an_error(
    serve: Callable[..., Any], engines: tuple[Any, Any]
) -> None:
    served = serve(backend=(entry(*engines),))
    with served.client() as client:
        engines[0].faults = [hang_up]
        assert "20 berths" in ask(client, model="prompting").json()["choices"][0]["message"]["content"]
        health = client.get("/health").json()
        assert (health["status"], health["down"]) == ("degraded", [engines[0].url])
        metrics = client.get("/metrics").text
        assert f'tunewise_server_up{{server="{engines[0].url}"}} 0.0' in metrics
        assert f'tunewise_server_lost{{server="{engines[0].url}"}} 1.0' in metrics
        engines[1].faults = [hang_up]
        asked = sum(len(fake.seen) for fake in engines)
        lines = ask(client, model="prompting", stream=True).text.splitlines()
        events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
        assert "is not repeated" in events[-1]["error"]["message"]
        assert lines[-2] == "data: [DONE]"
        assert sum(len(fake.seen) for fake in engines) == asked + 1
        health = client.get("/health")
        assert (health.status_code, health.json()["status"]) == (503, "down")
        servers = served.service.session.models.obtained.servers.servers
        assert all(server.check() for server in servers), "the watch does so every few seconds"
        assert client.get("/health").json()["status"] == "ok"


def test_no_server_at_all(serve: Callable[..., Any], engines: tuple[Any, Any]) -> None:
    nothing = "openai:base@http://127.0.0.1:9/v1"
    with pytest.raises(CannotRun, match="no server of the backend answers for the arm hybrid: the server at"):
        serve(backend=(nothing,))
    one_down = f"openai:base@http://127.0.0.1:9/v1,{engines[0].url}"
    with serve(backend=(one_down,)).client() as client:
        assert ask(client, model="rag").status_code == 200
        assert client.get("/health").json()["down"] == ["http://127.0.0.1:9/v1"]


def test_data_that_must_stay_local_and_bundles_are_respected(run: Path, tmp_path: Path) -> None:
    plan = read_plan(run / "plan.yaml")
    answers = {"data_must_stay_local": {"value": True, "source": "flag"}}
    body = plan.model_dump(mode="json", by_alias=True)
    local = parse_plan({**body, "answers": answers})
    public = ["openai:base@http://127.0.0.1:8000/v1,https://api.example.com/v1"]
    with pytest.raises(BadInput, match=r"the data must stay local, and .* is at api.example.com"):
        OpenRun(RunFolder(run), local, opening=Opening(backend=public)).obtain()
    measured = parse_plan({**body, "backend": ["openai:base@http://10.1.2.3:8000/v1"]})
    folder = tmp_path / "run"
    folder.mkdir()
    for item in run.iterdir():
        (folder / item.name).symlink_to(item)
    set_unconfirmed(folder, ["10.1.2.3:8000"])
    with pytest.raises(BadInput, match="came from a bundle, and its plan sends questions"):
        OpenRun(RunFolder(folder), measured).obtain()
    here = OpenRun(RunFolder(folder), measured, opening=Opening(backend=["local"]))
    assert here.models.obtained.servers is None


def test_run_is_measured_by_the_servers_that_then_serve_it(
    run: Path, engines: tuple[Any, Any], tmp_path: Path
) -> None:
    plan = read_plan(run / "plan.yaml")
    steps = tuple(step for step in plan.steps if getattr(step, "arm", "rag") in ("rag", "prompting"))
    plan = plan.model_copy(update={"steps": steps, "choice": "rag", "backend": (entry(*engines),)})
    write_plan(plan, tmp_path / "plan.yaml")
    measured = run_plan(read_plan(tmp_path / "plan.yaml"), tmp_path / "run")
    start = next(event for event in measured.events() if event["event"] == "run.start")
    assert start["backend"] == {"rag": entry(*engines), "prompting": entry(*engines)}
    assert all(len(fake.seen) >= 2 for fake in engines), "both servers were asked"

    from advisor.report.report import write_report
    from runners.runs.dataset import read_data

    report = write_report(measured, plan, read_data(plan).split.test)
    assert {arm.backend for arm in report.arms} == {entry(*engines)}
    assert any("answers generated by openai:base@" in warning for warning in report.warnings)
    notes: list[str] = []
    answer = load(measured.path, lambda event: notes.append(event.get("reason", ""))).ask(QUESTION, "rag")
    assert answer.text.startswith("base says")
    assert not notes
    other = entry(engines[1])
    load(measured.path, lambda event: notes.append(event.get("reason", "")), backend=[other]).ask(
        QUESTION, "rag"
    )
    assert notes == [
        f"rag: measured with {entry(*engines)}, answered by {other} now: answers may differ from those of the verdict"
    ]

    asked = [len(fake.seen) for fake in engines]
    moved = plan.model_copy(update={"backend": (other,)})
    run_plan(moved, tmp_path / "run", resume=True)
    assert len(engines[1].seen) - asked[1] >= 4, "answers of other servers are other answers"
    assert read_plan(tmp_path / "run" / "plan.yaml").backend == (other,)


def test_tuned_arms_are_refused_until_the_servers_have_their_weights(
    run: Path, engines: tuple[Any, Any], tmp_path: Path
) -> None:
    session = OpenRun.open(run, Opening(backend=[entry(engines[0])])).obtain()
    engines[0].models = ["base"]
    with pytest.raises(BadInput, match=r"has no model 'lora'; it has: base.*--lora-modules lora=FOLDER"):
        session.ask([QUESTION], session.arm("hybrid"))
    engines[0].models = ["base", "lora"]
    other = tmp_path / "lora-of-another-run"
    other.mkdir()
    (other / "adapter_model.safetensors").write_bytes(b"other weights")
    engines[0].roots = {"lora": str(other)}
    with pytest.raises(BadInput, match=f"has other weights under the name 'lora': {other}"):
        session.ask([QUESTION], session.arm("hybrid"))
    engines[0].roots = {"lora": str(run / "adapters" / "lora-s0")}
    assert session.models.obtained.servers is not None
    session.models.obtained.servers.servers[0].check()
    assert session.ask([QUESTION], session.arm("hybrid"))[0].text.startswith("lora says"), "loaded meanwhile"


def test_other_questions_are_scored_by_the_servers(
    run: Path, engines: tuple[Any, Any], tmp_path: Path
) -> None:
    file = tmp_path / "more.jsonl"
    file.write_text(json.dumps({"question": "Are there berths?", "answers": ["20"]}) + "\n", "utf-8")
    backend = (entry(engines[0]),)
    for _ in range(2):
        scored = evaluate(run, file, ["prompting"], tmp_path / "scores", backend=backend)
        assert (len(engines[0].seen), scored.backend) == (1, backend), "nothing is asked twice"
    assert scored.arms[0].mean_score > 0.8
    here = evaluate(run, file, ["prompting"], tmp_path / "scores")
    assert (here.backend, len(engines[0].seen)) == ((), 1)
    assert here.arms[0].mean_score < 0.8, (
        "the tiny model knows nothing: its own answer took the place of the servers'"
    )
