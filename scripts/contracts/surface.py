"""The part ``surface`` of the contract check: verbs and flags, the keys of what they print as JSON, exit codes and
errors.

Flags are keyed singly, so that one that goes is one key. What is printed comes from a small run with a scripted
model; of JSON only the keys count here, those of the rows of a list together. An error counts with its exit code and
its first line.
"""

from __future__ import annotations

import importlib
import inspect
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml

from scripts.contracts.common import Program, write_rows
from scripts.contracts.world import (
    ScriptedModel,
    carry_out,
    plan_of,
    question_rows,
    scripted_model,
    write_harbour,
)

PART = "surface"
VERBATIM = (f"{PART}/error/", f"{PART}/flag/")
FREE_KEYS = {
    "arms",
    "answers",
    "environment",
    "files",
    "by_alias",
    "measured",
    "reasons",
    "scores",
    "weights",
    "predicted",
}
"""Objects whose keys are names of the user's or of the machine."""


def observe() -> dict[str, Any]:
    """Return verbs, flags, keys of JSON and errors by key."""
    values = dict(flags())
    with Program(models=True) as program, scripted_model() as model:
        folder = program.folder
        prepare(program, model)
        for name, words in CALLS.items():
            done = program.run(*fill(words, folder), cwd=folder)
            values[f"{PART}/json/{name}/exit"] = done.code
            rows = [line for line in done.out.splitlines() if line.startswith(("{", "["))]
            for row in rows[:1] or [done.out]:
                for path in sorted(set(keys(_parsed(row), ""))):
                    values[f"{PART}/json/{name}{path}"] = True
        for name, words in ERRORS.items():
            done = program.run(*fill(words, folder), cwd=folder)
            lines = [line for line in done.err.splitlines() if line.startswith(("tunewise: ", "│ "))]
            values[f"{PART}/error/{name}"] = [
                done.code,
                (lines or done.err.splitlines() or [""])[0].strip("│ "),
            ]
    return values


def flags() -> Iterator[tuple[str, Any]]:
    """Yield the parameters of every verb with their type and default."""
    from typer.models import ParameterInfo

    from advisor import cli

    verbs: dict[str, Any] = {"tunewise": cli.entry}
    for name in (*cli.VERBS, *cli.GROUPS):
        module = importlib.import_module(f"advisor.commands.{name.replace('-', '_')}")
        if name in cli.VERBS:
            verbs[name] = module.command
        else:
            verbs |= {f"{name} {part.name}": part.callback for part in module.group.registered_commands}
    for verb, command in verbs.items():
        yield f"{PART}/verb/{verb}", True
        for key, parameter in inspect.signature(command, eval_str=True).parameters.items():
            kind, *more = (
                get_args(parameter.annotation)
                if hasattr(parameter.annotation, "__metadata__")
                else (parameter.annotation,)
            )
            info = next(
                (item for item in (*more, parameter.default) if isinstance(item, ParameterInfo)), None
            )
            if info is None:
                continue
            declared = [
                word
                for word in (info.default, *(info.param_decls or ()))
                if isinstance(word, str) and word.startswith("-")
            ]
            default = info.default if info is parameter.default else parameter.default
            plain = default if isinstance(default, str | int | float | bool) else None
            limits = [info.min, info.max]
            for flag in declared or [f"--{key.replace('_', '-')}"]:
                yield (
                    f"{PART}/flag/{verb}/{flag}",
                    f"{type(info).__name__} {getattr(kind, '__name__', kind)} {limits} default {plain}",
                )


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def keys(value: Any, path: str) -> Iterator[str]:
    """Yield the places of all keys of JSON values; those of the rows of a list together."""
    if isinstance(value, Mapping):
        free = path.rsplit("/", 1)[-1] in FREE_KEYS
        for key, each in value.items():
            place = f"{path}/*" if free else f"{path}/{key}"
            yield place
            yield from keys(each, place)
    elif isinstance(value, list):
        for each in value:
            yield from keys(each, path)


def fill(words: Sequence[str], folder: Path) -> list[str]:
    """Return the words of a command line; ``{name}`` is a file of the folder."""
    return [word.replace("{", f"{folder}/").replace("}", "") if "{" in word else word for word in words]


def prepare(program: Program, model: ScriptedModel) -> None:
    """Write files, good and bad, and make a run."""
    folder = program.folder
    write_harbour(folder / "files")
    write_rows(folder / "q.jsonl", question_rows(40))
    write_rows(folder / "new.jsonl", [{**row, "id": f"n{n}"} for n, row in enumerate(question_rows(12))])
    arms: list[dict[str, Any]] = [{"arm": "prompting"}, {"arm": "rag", "retrieval": True}]
    plan = plan_of(model, folder / "files", folder / "q.jsonl", arms)
    carry_out(program, model, "run", plan)
    shutil.copytree(folder / "run", folder / "other")
    program.run("index", "build", folder / "index", "--documents", folder / "files" / "piers")
    answers = {
        "task_needs_facts": "new",
        "facts_change": "slow",
        "must_cite": True,
        "behaviour_gap": "low",
        "gpu_kind": "none",
    }
    (folder / "answers.yaml").write_text(yaml.safe_dump(answers), "utf-8")
    program.run("plan", "--yes", "--answers", folder / "answers.yaml", "--out", folder / "drafted.yaml")
    log = [
        {"time": f"2026-05-{n % 28 + 1:02}T10:00:00Z", "question": f"how many berths at pier {n} pls"}
        for n in range(60)
    ]
    write_rows(folder / "log.jsonl", log)
    bad_plans = {
        "no-steps": {**plan, "steps": []},
        "unknown-key": {**plan, "colour": "red"},
        "wrong-type": {**plan, "max_new_tokens": "many"},
        "newer-schema": {**plan, "schema": 99},
        "no-file": {**plan, "data": {"questions": str(folder / "absent.jsonl")}},
        "no-weights": {**plan, "weights": {}},
        "bad-weight": {**plan, "weights": {"beauty": 1}},
        "bad-model": {**plan, "model": {"name": "no-such-model"}},
        "bad-check": {**plan, "checks": [{"kind": "regex", "value": "("}]},
        "bad-gate": {**plan, "refusal": {"gate": "sometimes"}},
        "bad-share": {**plan, "data": {**plan["data"], "dev_share": 2}},
        "bad-k": {**plan, "steps": [{"kind": "index", "k": 0}, *plan["steps"][1:]]},
        "bad-seed": {**plan, "seed": -1},
    }
    for name, body in bad_plans.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(body), "utf-8")
    texts = {
        "broken.yaml": "name: [",
        "empty.yaml": "",
        "list.yaml": "- 1\n",
        "broken.jsonl": '{"question": "a"\n',
        "nothing.jsonl": "",
        "no_question.jsonl": '{"text": "a"}\n',
        "no_gold.jsonl": '{"question": "a"}\n',
        "no_reply.jsonl": '{"prompt": "a"}\n',
        "binary.jsonl": "\0\0\0",
        "unknown_answer.yaml": "colour: red\n",
        "bad_answer.yaml": "must_cite: perhaps\n",
        "bad_number.yaml": "calls_per_month: lots\n",
        "prompt.txt": "Answer.",
    }
    for name, text in texts.items():
        (folder / name).write_text(text, "utf-8")
    (folder / "hollow").mkdir()
    for name, file, old, new in (
        ("damaged", "trial/answers.jsonl", '"', "'"),
        ("newer", "report.json", '"schema": 1', '"schema": 99'),
    ):
        shutil.copytree(folder / "run", folder / name)
        path = folder / name / file
        path.write_text(path.read_text("utf-8").replace(old, new, 1), "utf-8")
    shutil.copytree(folder / "index", folder / "torn")
    for path in (folder / "torn").rglob("*.sqlite"):
        path.write_bytes(path.read_bytes()[:100])


CALLS: dict[str, tuple[str, ...]] = {
    "plan": ("plan", "--yes", "--answers", "{answers.yaml}", "--out", "{p.yaml}", "--json"),
    "plan-schema": ("plan", "--schema"),
    "explain-plan": ("explain", "{drafted.yaml}", "--json"),
    "explain-rule": ("explain", "KN002", "--json"),
    "explain-method": ("explain", "hybrid", "--json"),
    "whatif": ("whatif", "{drafted.yaml}", "--set", "must_cite=false", "--json"),
    "estimate": ("estimate", "--method", "lora", "--model", "qwen2.5-7b-instruct", "--json"),
    "report": ("report", "{run}", "--json"),
    "compare": ("report", "{run}", "--compare", "{other}", "--json"),
    "why": ("why", "{run}", "--json"),
    "ask": ("ask", "{run}", "How many berths does pier 3 have, asked as 3?", "--json"),
    "ask-refused": ("ask", "{run}", "Who won the cup in 1998?", "--json"),
    "eval": ("eval", "{run}", "--questions", "{new.jsonl}", "--out", "{evaluated}", "--json"),
    "recheck": ("recheck", "{run}", "--documents", "{files/changed}", "--out", "{again}", "--yes", "--json"),
    "runs-list": ("runs", "list", ".", "--json"),
    "runs-show": ("runs", "show", "{run}", "--json"),
    "runs-diff": ("runs", "diff", "{run}", "{other}", "--json"),
    "dry-run": ("run", "{run.yaml}", "--out", "{dry}", "--dry-run", "--json"),
    "label-estimate": ("label", "{q.jsonl}", "--run", "{run}", "--write", "--out", "{labelled.jsonl}", "--yes", "--json"),
    "index-build": ("index", "build", "{index2}", "--documents", "{files/piers}", "--json"),
    "index-update": ("index", "update", "{index2}", "--documents", "{files/changed}", "--json"),
    "index-search": ("index", "search", "{index}", "How many ramps does pier 4 have?", "--json"),
    "index-search-many": ("index", "search", "{index}", "--questions", "{q.jsonl}", "--json"),
    "index-check": ("index", "check", "{index}", "--json"),
    "index-tune": ("index", "tune", "{index2}", "--documents", "{files/changed}", "--questions", "{q.jsonl}", "--json"),
    "models-list": ("models", "list", "--json"),
    "models-verify": ("models", "verify", "all-minilm-l6-v2", "--json"),
    "adapters-list": ("adapters", "list", ".", "--json"),
    "questions-import": ("questions", "import", "{log.jsonl}", "--columns", "question=question", "--out", "{imported.jsonl}", "--count", "10", "--yes", "--json"),
    "history": ("history", "--json"),
    "doctor": ("doctor", "--json"),
    "mcp-tools": ("mcp", "--allow-run", "--tools"),
    "export": ("export", "{run}", "--to", "bundle", "--out", "{exported}", "--json"),
}  # fmt: skip
"""Command lines that print JSON, by name; ``{name}`` is a file."""

_RUN, _PLAN = ("run",), ("plan", "--yes")
ERRORS: dict[str, tuple[str, ...]] = {
    "no-such-verb": ("fly",),
    "no-such-flag": ("plan", "--colour"),
    "plan-nothing": _PLAN,
    "plan-no-documents": (*_PLAN, "--documents", "absent"),
    "plan-no-answers": (*_PLAN, "--answers", "absent.yaml"),
    "plan-broken-answers": (*_PLAN, "--answers", "{broken.yaml}"),
    "plan-unknown-answer": (*_PLAN, "--answers", "{unknown_answer.yaml}"),
    "plan-bad-answer": (*_PLAN, "--answers", "{bad_answer.yaml}"),
    "plan-bad-number": (*_PLAN, "--answers", "{bad_number.yaml}"),
    "plan-bad-set": (*_PLAN, "--set", "must_cite"),
    "plan-unknown-set": (*_PLAN, "--set", "colour=red"),
    "plan-bad-examples": (*_PLAN, "--examples", "{no_reply.jsonl}"),
    "plan-empty-examples": (*_PLAN, "--examples", "{nothing.jsonl}"),
    "plan-binary-examples": (*_PLAN, "--examples", "{binary.jsonl}"),
    "plan-bad-questions": (*_PLAN, "--questions", "{no_question.jsonl}"),
    "plan-no-gold": (*_PLAN, "--questions", "{no_gold.jsonl}"),
    "plan-unknown-model": (*_PLAN, "--set", "must_cite=true", "--model", "no-such-model"),
    "plan-bad-columns": (*_PLAN, "--examples", "{files/style.jsonl}", "--columns", "a"),
    "plan-bad-usd": (*_PLAN, "--answers", "{answers.yaml}", "--usd", "-1"),
    "plan-no-profile": (*_PLAN, "--profile", "nobody"),
    "plan-empty-folder": (*_PLAN, "--documents", "{hollow}"),
    **{f"run-{name}": (*_RUN, f"{{{name}.yaml}}", "--out", f"{{out-{name}}}") for name in (
        "no-steps", "unknown-key", "wrong-type", "newer-schema", "no-file", "no-weights", "bad-weight",
        "bad-model", "bad-check", "bad-gate", "bad-share", "bad-k", "bad-seed", "broken", "empty", "list",
    )},
    "run-absent": (*_RUN, "absent.yaml"),
    "run-exists": (*_RUN, "{run.yaml}", "--out", "{run}"),
    "run-resume-overwrite": (*_RUN, "{run.yaml}", "--resume", "--overwrite"),
    "run-bad-only": (*_RUN, "{run.yaml}", "--out", "{only}", "--only", "telepathy"),
    "run-bad-tracker": (*_RUN, "{run.yaml}", "--out", "{track}", "--track", "pigeon"),
    "run-bad-backend": (*_RUN, "{run.yaml}", "--out", "{backend}", "--backend", "http://127.0.0.1:9"),
    "run-bad-kernels": (*_RUN, "{run.yaml}", "--kernels", "fast"),
    "run-bad-launcher": (*_RUN, "{run.yaml}", "--launcher", "rocket"),
    "report-absent": ("report", "absent"),
    "report-hollow": ("report", "{hollow}"),
    "report-newer": ("report", "{newer}"),
    "report-damaged": ("report", "{damaged}"),
    "report-compare-absent": ("report", "{run}", "--compare", "absent"),
    "why-unknown-arm": ("why", "{run}", "--arm", "telepathy"),
    "ask-absent": ("ask", "absent", "Why?"),
    "ask-empty": ("ask", "{run}", ""),
    "ask-unknown-arm": ("ask", "{run}", "Why?", "--arm", "telepathy"),
    "ask-bad-check": ("ask", "{run}", "Why?", "--check", "perhaps"),
    "chat-absent": ("chat", "absent"),
    "serve-absent": ("serve", "absent"),
    "serve-bad-port": ("serve", "{run}", "--port", "99999999"),
    "serve-open-host": ("serve", "{run}", "--host", "0.0.0.0"),
    "eval-absent-questions": ("eval", "{run}", "--questions", "absent.jsonl"),
    "eval-bad-questions": ("eval", "{run}", "--questions", "{broken.jsonl}"),
    "eval-unknown-arm": ("eval", "{run}", "--questions", "{new.jsonl}", "--arm", "telepathy"),
    "recheck-nothing": ("recheck", "absent"),
    "recheck-bad-margin": ("recheck", "{run}", "--margin", "7"),
    "recheck-bad-plan": ("recheck", "{run}", "--plan", "{broken.yaml}"),
    "curve-nothing": ("curve",),
    "curve-bad-sizes": ("curve", "{run}", "--sizes", "a,b"),
    "curve-seeds-minutes": ("curve", "{run}", "--minutes", "5", "--seeds", "2"),
    "export-unknown-target": ("export", "{run}", "--to", "vinyl"),
    "export-no-weights": ("export", "{run}", "--to", "ollama", "--out", "{ollama}"),
    "train-no-examples": ("train", "--examples", "absent.jsonl", "--out", "{trained}"),
    "train-bad-examples": ("train", "--examples", "{broken.jsonl}", "--out", "{trained}"),
    "train-bad-rank": ("train", "--examples", "{files/style.jsonl}", "--rank", "0", "--out", "{trained}"),
    "train-bad-optimizer": ("train", "--examples", "{files/style.jsonl}", "--optimizer", "hope", "--out", "{trained}"),
    "train-bad-rate": ("train", "--examples", "{files/style.jsonl}", "--learning-rate", "-1", "--out", "{trained}"),
    "explain-unknown": ("explain", "ZZ999"),
    "whatif-nothing": ("whatif", "{drafted.yaml}"),
    "whatif-unknown": ("whatif", "{drafted.yaml}", "--set", "colour=red"),
    "estimate-unknown-model": ("estimate", "--method", "lora", "--model", "no-such-model"),
    "estimate-bad-method": ("estimate", "--method", "prayer"),
    "estimate-no-method": ("estimate",),
    "index-absent-documents": ("index", "build", "{index3}", "--documents", "absent"),
    "index-bad-store": ("index", "build", "{index3}", "--documents", "{files/piers}", "--store", "tape"),
    "index-absent-search": ("index", "search", "absent", "Why?"),
    "index-bad-where": ("index", "search", "{index}", "Why?", "--where", "="),
    "index-bad-day": ("index", "search", "{index}", "Why?", "--as-of", "yesterday"),
    "index-bad-k": ("index", "search", "{index}", "Why?", "--k", "0"),
    "index-torn": ("index", "search", "{torn}", "Why?"),
    "index-torn-check": ("index", "check", "{torn}"),
    "index-bad-copy": ("index", "copy", "{index}", "--to", "ftp://example.com/a"),
    "index-tune-nothing": ("index", "tune", "absent", "--documents", "{files/piers}"),
    "models-unknown": ("models", "verify", "no-such-model"),
    "runs-show-absent": ("runs", "show", "absent"),
    "runs-rm-absent": ("runs", "rm", "absent"),
    "questions-absent-log": ("questions", "import", "absent.jsonl", "--out", "{imported2.jsonl}"),
    "questions-bad-count": ("questions", "import", "{log.jsonl}", "--out", "{imported2.jsonl}", "--count", "0"),
    "label-absent": ("label", "absent.jsonl", "--run", "{run}"),
    "examples-absent": ("examples", "make", "absent", "--out", "{made.jsonl}"),
    "eval-advice-broken": ("eval-advice", "{broken.jsonl}"),
    "demo-bad-model": ("demo", "--models", "a=b=c"),
    "probe-nothing": ("probe",),
    "mcp-absent-root": ("mcp", "--root", "absent"),
}  # fmt: skip
"""Command lines that are wrong, by name."""
