"""Calls for Python that the command line has as verbs: :func:`train`, :func:`export` and :func:`serve`.

They are public as ``tunewise.train``, ``tunewise.export`` and ``tunewise.serve``. They print nothing, except for the address
that :func:`serve` writes to stderr; what happens is passed to ``on_event``.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advisor.flags.train import TrainRequest
from advisor.terminal import require_extra
from rag.errors import BadInput, UsageProblem
from rag.types import OnEvent
from runners.plan.train_config import TrainConfig

if TYPE_CHECKING:
    from runners.export.job import ExportResult
    from runners.plan.train_config import TrainResult
    from runners.runs.run import Run


def train(
    examples: Path | str,
    out: Path | str,
    *,
    method: str = "lora",
    model: str = "smollm2-135m-instruct",
    prompt: str | None = None,
    columns: str | None = None,
    max_rows: int | None = None,
    valid: Path | str | None = None,
    valid_share: float | None = None,
    questions: Path | str | None = None,
    accept: Sequence[str] = (),
    resume: bool = False,
    overwrite: bool = False,
    on_event: OnEvent | None = None,
    **settings: Any,
) -> TrainResult:
    """Tune a model on examples and publish the weights as a folder; no plan is needed.

    It reads, chooses settings, checks and trains as ``tunewise train`` does. Progress is kept: an interrupted training
    continues with ``resume``.

    Args:
        examples: the file or folder of training rows; the format is detected.
        out: the folder of the result: an adapter, or with ``method="full"`` a model.
        method: lora, qlora or full.
        model: the base model: a name, or a folder.
        prompt: instructions put before rows that have none, as text or as a file.
        columns: which columns hold what, as ``"prompt=frage,completion=antwort"``.
        max_rows: most rows to read.
        valid: validation rows; with them training stops early when they get worse.
        valid_share: share of the rows to set apart for validation instead, between 0 and 1.
        questions: held-out questions, which must not be among the rows.
        accept: codes of checks, such as ``"PF004"``, whose stop becomes a warning.
        resume: continue an unfinished training; a finished one is returned.
        overwrite: replace the result in ``out``.
        on_event: called with the events of downloads and training.
        **settings: training settings by name (``epochs=1``, ``rank=8``, ``seed=1``, ...), as the options of
            ``tunewise train`` with ``_`` for ``-``. What is not given is chosen from the rows and the model.

    Returns:
        The result: its folder, losses, steps, tokens, and notes.

    Raises:
        UsageProblem: ``out`` exists, or arguments exclude each other or have no effect.
        BadInput: the rows cannot be used, or the loss diverges.
        CannotRun: too little memory or disk, or the model cannot be obtained.
    """
    from advisor.workflows import train as work
    from advisor.workflows import train_inputs

    if unknown := [name for name in settings if name not in TrainConfig.model_fields]:
        known = ", ".join(name for name in TrainConfig.model_fields if name != "method")
        raise UsageProblem(f"train has no setting {unknown[0]!r}", f"its settings: {known}")
    given = {name: settings[name] for name in TrainConfig.model_fields if settings.get(name) is not None}
    if not isinstance(given.get("targets", ""), str):
        given["targets"] = ",".join(given["targets"])
    request = TrainRequest(
        examples=Path(examples),
        prompt=prompt,
        columns=columns,
        max_rows=max_rows,
        valid=None if valid is None else Path(valid),
        valid_share=valid_share,
        questions=None if questions is None else Path(questions),
        method=method,
        model=model,
        out=Path(out),
        seed=given.get("seed"),
        accept=list(accept),
        resume=resume,
        overwrite=overwrite,
    )
    work.refuse_impossible_request(request)
    train_inputs.refuse_bad_flags(given, method)
    inputs = train_inputs.read_train_inputs(request)
    try:
        prepared = work.prepare_training(inputs, request, given, on_event)
    except TypeError as error:
        raise BadInput(f"a setting has a value of the wrong type: {error}") from None
    prepared.preflight().require()
    if overwrite:
        work.remove_result(Path(out))
    return prepared.train(on_event)


def export(
    run: Run | Path | str,
    to: str,
    *,
    arm: str | None = None,
    seed: int | None = None,
    out: Path | str | None = None,
    overwrite: bool = False,
    dtype: str = "auto",
    model: Path | str | None = None,
    on_event: OnEvent | None = None,
) -> ExportResult:
    """Write a run's result in the form that another tool reads, and read it back before it is complete.

    What is there already, made from the same things, is left as it is.

    Args:
        run: a run, or its folder.
        to: peft, merged, gguf, ollama, vllm, classifier, index, bundle or provider-jsonl.
        arm: the arm; by default the one that the verdict says to use.
        seed: which training run of the arm; by default its first.
        out: the folder to make, or a URL such as ``s3://BUCKET/FOLDER``; by default ``exports/NAME-ARM-TO``.
        overwrite: replace an export that is there.
        dtype: number type of merged, gguf and ollama: auto, float32, bfloat16 or float16; in GGUF also q8_0.
        model: the folder of the run's base, where it is elsewhere than the plan says.
        on_event: called with the events of long work.

    Returns:
        The export: where it is, its files, what was compared, the command that uses it, and notes.

    Raises:
        UsageProblem: options that do not go together, or a destination that may not be replaced.
        BadInput: a damaged run, or an arm that this target cannot export.
        CannotRun: too little memory or disk.
    """
    from runners.export.export import export as export_run
    from runners.export.job import ExportRequest

    request = ExportRequest(
        to=to,
        arm=arm,
        seed=seed,
        out=None if out is None else str(out),
        overwrite=overwrite,
        dtype=dtype,
        model=None if model is None else Path(model),
    )
    return export_run(_run_path(run), request, on_event)


def serve(
    run: Run | Path | str,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    arm: str | None = None,
    token: Path | str | None = None,
    allow_hosts: Sequence[str] = (),
    allow_origins: Sequence[str] = (),
    model: Path | str | None = None,
    backend: Sequence[str] | None = None,
    max_tokens: int = 1024,
    queue: int = 64,
    time_limit: float = 120.0,
    per_minute: int = 0,
    log: Path | str | None = None,
    log_answers: bool = False,
    on_event: OnEvent | None = None,
) -> None:
    """Serve a run as an OpenAI-compatible endpoint until Ctrl-C or SIGTERM, as ``uvicorn.run`` serves an application.

    It blocks, and has to be called in the main thread, because it handles signals; in a notebook, start ``tunewise serve``
    instead, or ask the run itself. Open requests are finished first.

    Args:
        run: a run, or its folder.
        host: the address to listen on; one that other machines reach needs a token.
        port: the port; 0 takes a free one. The address is printed to stderr.
        arm: another default than the arm to use.
        token: the file with the token that requests must bring; made when it is absent.
        allow_hosts: further names that the server is called by.
        allow_origins: origins of pages elsewhere that may ask.
        model: the folder of the run's base, where it is elsewhere than the plan says.
        backend: the servers that generate, as the values of ``--backend``.
        max_tokens: longest answer in tokens.
        queue: most requests waiting.
        time_limit: most seconds for one request.
        per_minute: most requests a minute from one address; 0 is no limit.
        log: the file that what is asked is written to; None writes nothing.
        log_answers: write the text of answers, too.
        on_event: called with the events of opening the run.

    Raises:
        UsageProblem: other machines can reach the address and there is no token, no arm can be used, or the call is not
            from the main thread or from within an event loop.
        BadInput: the run is damaged, or others can read the token's file.
        CannotRun: the address is in use, or a package is missing.
    """
    require_extra("serve", "fastapi", "uvicorn", "sse_starlette", "prometheus_client")
    if threading.current_thread() is not threading.main_thread() or _in_event_loop():
        raise UsageProblem(
            "serve blocks until a signal, so it runs in the main thread and outside of an event loop",
            "start it as a program: tunewise serve RUN",
        )
    from runners.logs.question_log import QuestionLog
    from runners.serving.http import server
    from runners.serving.http.service import ServerLimits

    options = server.ServeOptions(
        run=_run_path(run),
        host=host,
        port=port,
        token=None if token is None else Path(token),
        hosts=tuple(allow_hosts),
        origins=tuple(allow_origins),
        model=None if model is None else Path(model),
        arm=arm,
        backend=None if backend is None else tuple(backend),
        log=None if log is None else QuestionLog(path=Path(log), answers=log_answers),
    )
    limits = ServerLimits(max_tokens=max_tokens, seconds=time_limit, per_minute=per_minute)
    server.serve(options, limits, queue, on_event)


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _run_path(run: Run | Path | str) -> Path:
    return Path(run) if isinstance(run, str | Path) else run.path
