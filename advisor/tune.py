"""The `tunewise train` verb: data, defaults with their reasons, preflight, training."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from rag.durable import writing_into
from rag.errors import BadInput, UsageProblem
from runners.data import Example, load_examples
from runners.plan import Prompts
from runners.prompting import training_row

METHODS = ("lora", "qlora", "full")


def tune(
    *,
    examples: Path,
    method: str,
    model: str,
    out: Path | None,
    prompt: str | None,
    epochs: float | None,
    learning_rate: float | None,
    rank: int | None,
    seed: int,
    max_rows: int | None,
    resume: bool,
    overwrite: bool,
    check: bool,
    show: int,
    as_json: bool,
) -> None:
    """Carry out `tunewise train`; see advisor/commands/train.py for the flags."""
    if method not in METHODS:
        raise UsageProblem(f"--method {method} is not a tuning method", f"choose one of {', '.join(METHODS)}")
    if out is None and not (check or show):
        raise UsageProblem("--out is missing", "name the folder the tuned weights go to")
    if out is not None and not (check or show):
        refuse_in_use(out, resume, overwrite)
    rows = read_rows(examples, prompt, max_rows)
    from advisor.progress import watching
    from runners import defaults, models

    base = models.resolve(model)
    chosen = defaults.choose(method, rows=len(rows), params_b=defaults.params_of(base.folder))
    config = chosen.config(seed=seed, epochs=epochs, learning_rate=learning_rate, rank=rank)
    for name, reason in chosen.reasons.items():
        print(f"  {name}: {reason}", file=sys.stderr)
    from runners import preflight
    from runners.train import fit

    if check or show:
        for line in preflight.lines(rows, config, base, show):
            print(line)
        return
    assert out is not None
    if overwrite and out.exists():
        import shutil

        shutil.rmtree(out)
    with watching(as_json) as watcher, writing_into(out):
        result = fit(rows, config, base, out, on_event=watcher, resume=resume)
    body = {"schema": 1, "out": str(out), **result.to_json()}
    print(
        json.dumps(body)
        if as_json
        else f"{out}: " + ", ".join(f"{k} {v}" for k, v in result.to_json().items())
    )


def read_rows(path: Path, prompt: str | None, max_rows: int | None) -> tuple[Example, ...]:
    """Read examples, say what was left out, and put the instructions before every row."""
    loaded = load_examples(path)
    for rejected in loaded.rejected:
        print(f"  {path}, line {rejected.line} left out: {rejected.reason}", file=sys.stderr)
    rows = loaded.rows[:max_rows]
    print(f"{len(rows)} rows ({loaded.format}), {loaded.duplicates} repeat another", file=sys.stderr)
    text = read_prompt(prompt)
    return tuple(training_row(Prompts(system=text), row) for row in rows) if text else rows


def read_prompt(prompt: str | None) -> str:
    """Instructions given as text or as a file."""
    if not prompt:
        return ""
    path = Path(prompt)
    try:
        return path.read_text("utf-8").strip() if path.is_file() else prompt
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read: {error}") from None


def refuse_in_use(out: Path, resume: bool, overwrite: bool) -> None:
    """Refuse a folder that is in use, unless asked to go on with it or to replace what it made before."""
    if out.exists() and not out.is_dir():
        raise UsageProblem(f"{out} is a file", "name a folder for the tuned weights")
    if not out.exists() or not any(out.iterdir()) or resume:
        return
    if not overwrite:
        raise UsageProblem(f"{out} exists", "continue with --resume, or start again with --overwrite")
    if not (out / "manifest.json").is_file():
        raise UsageProblem(f"{out} was not made by tunewise train", "choose another --out")
