"""Every schema of the JSON-Schema-Test-Suite as the `response_format` of a served model.

python -m benchmarks.json_schema_suite --suite PATH [--run RUN] [--model NAME] [--max-tokens 48] [--clients 4]

PATH is a clone of https://github.com/json-schema-org/JSON-Schema-Test-Suite (with or without a work tree). Without a run,
one is made with smollm2-135m-instruct: two questions, asked without a form. The server is the real one, in this process.

Each distinct schema of draft2020-12 is asked for once, and what comes back is counted: refused with 400 and by which
keyword, answers that jsonschema (by itself, with `re`) finds valid or not, and errors. A schema `true` or `false` cannot
be a `response_format` and is refused.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import jsonschema
import referencing
import uvicorn

from benchmarks.constraint_libraries import suite_groups
from runners.plan.schema import parse_plan
from runners.runs.opened import OpenRun
from runners.serving.http.app import create_app
from runners.serving.http.metrics import ServerMetrics
from runners.serving.http.middleware import AccessRules
from runners.serving.http.service import Service
from runners.serving.served_models import served_models
from runners.serving.worker import BatchingWorker
from runners.trial.execute import run_plan

PROMPT = "Give an example of such a value as JSON."


def make_run(folder: Path) -> Path:
    """Make a small run of the raw model; return its folder."""
    questions = folder / "questions.jsonl"
    rows = [{"question": f"How many legs have {n} spiders?", "answers": [str(8 * n)]} for n in (1, 2)]
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    plan = parse_plan(
        {
            "name": "schemas",
            "choice": "prompting",
            "model": {"name": "smollm2-135m-instruct"},
            "max_new_tokens": 16,
            "data": {"test_questions": str(questions)},
            "steps": [{"kind": "evaluate", "arm": "prompting"}],
            "weights": {"token_f1": 1},
            "forgetting": {"prompts": 0},
        }
    )
    return Path(run_plan(plan, folder / "run").path)


def start_server(run: Path) -> tuple[str, list[str]]:
    """Serve a run on a free port; return its address and the names of its models."""
    session = OpenRun.open(run).obtain()
    metrics = ServerMetrics()
    models, _ = served_models(session)
    worker = BatchingWorker(session, on_event=metrics.on_event)
    service = Service(session, worker, models, metrics=metrics)
    app = create_app(service, AccessRules(service.limits))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", access_log=False, ws="none"))
    threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True).start()
    while not server.started:
        time.sleep(0.05)
    port = server.servers[0].sockets[0].getsockname()[1]
    return f"http://127.0.0.1:{port}", list(models)


def ask(http: httpx.Client, model: str, schema: Any, max_tokens: int) -> tuple[str, str, float]:
    """Ask for an answer of a schema; return what came of it, the reason or the answer, and seconds."""
    form = {"type": "json_schema", "json_schema": {"name": "suite", "schema": schema}}
    body = {
        "model": model,
        "messages": [{"role": "user", "content": PROMPT}],
        "response_format": form,
        "max_tokens": max_tokens,
    }
    started = time.perf_counter()
    answer = http.post("/v1/chat/completions", json=body)
    seconds = time.perf_counter() - started
    if answer.status_code == 400:
        return "refused", answer.json()["error"]["message"], seconds
    if answer.status_code != 200:
        return "error", f"{answer.status_code}: {answer.text[:300]}", seconds
    (choice,) = answer.json()["choices"]
    text = choice["message"]["content"]
    checked = answer.json()["x_tunewise"]["response_format"]
    fault = independent_fault(schema, text) or checked["fault"]
    if fault:
        return "invalid", f"{json.dumps(schema)[:300]} -> {text!r}: {fault}", seconds
    return f"valid, finish {choice['finish_reason']}", text, seconds


def independent_fault(schema: Any, text: str) -> str:
    """Return what jsonschema finds wrong with an answer; "" when it is valid. References are never fetched."""
    try:
        value = json.loads(text)
        validator = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
        validator(schema, registry=referencing.Registry()).validate(value)
    except (ValueError, jsonschema.ValidationError) as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
    return ""


def main() -> None:
    """Ask for every schema and print the counts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--suite", type=Path, required=True)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--model", help="an id of /v1/models; by default the base model as it is")
    parser.add_argument("--max-tokens", type=int, default=48)
    parser.add_argument("--clients", type=int, default=4)
    given = parser.parse_args()
    schemas = {json.dumps(group["schema"]): group["schema"] for _, group in suite_groups(given.suite)}
    with tempfile.TemporaryDirectory() as folder:
        url, names = start_server(given.run or make_run(Path(folder)))
        model = given.model or names[-1]
        with httpx.Client(base_url=url, timeout=300) as http:
            started = time.perf_counter()
            with ThreadPoolExecutor(given.clients) as pool:
                results = list(pool.map(lambda s: ask(http, model, s, given.max_tokens), schemas.values()))
            took = time.perf_counter() - started
    counts = Counter(kind for kind, _, _ in results)
    reasons = Counter(
        re.sub(r"'.*'|[0-9]+", "…", text)[:110] for kind, text, _ in results if kind == "refused"
    )
    print(f"{model}: {len(results)} schemas in {took:.1f} s: {json.dumps(counts)}")
    for kind in sorted(counts):
        seconds = [each for name, _, each in results if name == kind]
        print(f"  {kind}: {median(seconds):.2f} s in the median, {max(seconds):.2f} s at most")
    for reason, count in reasons.most_common():
        print(f"  refused {count}: {reason}")
    for kind, text, _ in results:
        if kind in ("invalid", "error"):
            print(f"  {kind}: {text}")


if __name__ == "__main__":
    main()
