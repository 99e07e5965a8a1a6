"""The tools that compute for minutes and write: `run` and `train`, registered only with ``--allow-run``.

Neither starts on an agent's word. A client that can ask its user (elicitation) shows minutes, money, disk and folder, and
only a person's yes starts the work. For other clients nothing starts, because whatever the server returned to the agent, the
agent could send back: the user gives the command in a terminal, or starts the server with ``--without-asking``, which is a
person's yes to every call. So a text in a document can start nothing by itself.

Each is a process of its own, started as the command line: it may need all memory, it handles its own interruption with its
progress kept, and it ends when the client cancels the call or the server ends.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import anyio
import anyio.to_thread
from mcp.server.mcpserver import Context, Elicit, ElicitationResult, Resolve
from mcp.types import CallToolResult
from pydantic import BaseModel, Field

from advisor.flags.estimate import EstimateRequest
from advisor.flags.train import TrainRequest
from advisor.mcp_server import contracts
from advisor.mcp_server.background import CallProgress, in_thread
from advisor.mcp_server.contracts import Costs
from advisor.mcp_server.results import success
from advisor.mcp_server.services import Services, refuse_endpoints, services_of
from rag.errors import BadInput, CannotRun, GateNotMet, Problem, UsageProblem
from runners.data.examples import load_examples
from runners.tokenization.token_estimate import CHARS_PER_TOKEN

if TYPE_CHECKING:
    from advisor.report.report import Report

PlanPath = Annotated[str, Field(description="The plan.yaml.")]
ExamplesPath = Annotated[str, Field(description="The file or folder of training rows.")]
OutPath = Annotated[str, Field(description="The folder of the result.")]
RunOut = Annotated[str | None, Field(description="The run folder; runs/NAME by default.")]
Quick = Annotated[bool, Field(description="Fewer questions and rows, one epoch.")]
Resume = Annotated[bool, Field(description="Continue what was interrupted.")]
Method = Annotated[str, Field(description="lora, qlora or full.")]
ModelName = Annotated[str, Field(description="The base model: a name or a folder.")]
Epochs = Annotated[float | None, Field(description="Passes over the rows; chosen by default.", gt=0, le=100)]
_WARNING = re.compile(r"\w+Warning: |^warnings\.warn\(")
"""A line of a warning of Python: it goes into the log, and does not say what the work does."""


class Consent(BaseModel):
    """The answer to the question whether to start."""

    proceed: bool = Field(description="Whether to start it now.")


@dataclass(frozen=True, slots=True)
class StartRequest:
    """A call of `run` or `train` that was checked: its process and its costs."""

    what: str
    arguments: tuple[str, ...]
    out: Path
    costs: Costs


async def confirm_run(
    context: Context[Any, Any],
    plan: str,
    out: str | None,
    quick: bool,
    resume: bool,
) -> Consent | Elicit[Consent]:
    """Ask the user of the client whether a run may start, where the client can ask."""
    services = services_of(context)
    request = await in_thread(context, lambda _: run_request(services, plan, out, quick, resume))
    return _consent(context, request)


async def confirm_training(
    context: Context[Any, Any],
    examples: str,
    out: str,
    method: str,
    model: str,
    epochs: float | None,
    resume: bool,
) -> Consent | Elicit[Consent]:
    """Ask whether a training may start, as :func:`confirm_run`."""
    services = services_of(context)
    request = await in_thread(
        context, lambda _: training_request(services, examples, out, method, model, epochs, resume)
    )
    return _consent(context, request)


async def run_tool(
    context: Context[Any, Any],
    consent: Annotated[ElicitationResult[Consent], Resolve(confirm_run)],
    plan: PlanPath,
    out: RunOut = None,
    quick: Quick = False,
    resume: Resume = False,
) -> Annotated[CallToolResult, contracts.StartedResult]:
    """Carry out a plan: train and measure every method on the user's questions. Takes minutes to hours; asks first."""
    services = services_of(context)
    request = await in_thread(context, lambda _: run_request(services, plan, out, quick, resume))
    if (answer := _not_started(context, request, consent)) is not None:
        return answer
    code, _ = await _carry_out(context, services, request)

    def read(progress: CallProgress) -> Report:
        from advisor.report.report import Report

        return Report.read(request.out)

    report = await in_thread(context, read)
    verdict = report.content.verdict
    state = "gate_not_met" if code == GateNotMet.exit_code else "finished"
    shown = f"{verdict.outcome}, {verdict.use_text}. Run: {request.costs.writes}\n{verdict.text}"
    return success(f"The run ended: {state}.", _started(state, request, result=report.data), shown)


async def train_tool(
    context: Context[Any, Any],
    consent: Annotated[ElicitationResult[Consent], Resolve(confirm_training)],
    examples: ExamplesPath,
    out: OutPath,
    method: Method = "lora",
    model: ModelName = "smollm2-135m-instruct",
    epochs: Epochs = None,
    resume: Resume = False,
) -> Annotated[CallToolResult, contracts.StartedResult]:
    """Tune a model on examples, without a plan. Takes minutes to hours; asks first."""
    services = services_of(context)
    request = await in_thread(
        context, lambda _: training_request(services, examples, out, method, model, epochs, resume)
    )
    if (answer := _not_started(context, request, consent)) is not None:
        return answer
    _, printed = await _carry_out(context, services, request)
    data = json.loads(printed.rstrip("\n").split("\n")[-1])
    losses = f"loss {data['first_loss']:.3f} at first, {data['last_loss']:.3f} at last"
    text = f"finished: {losses}."
    return success(text, _started("finished", request, result=data), f"Result: {request.costs.writes}")


def run_request(services: Services, plan: str, out: str | None, quick: bool, resume: bool) -> StartRequest:
    """Check a call of `run` without starting anything.

    Raises:
        BadInput: the plan or a file or model that it names cannot be read or is outside of the folder, or the plan asks
            an endpoint.
        UsageProblem: the run folder exists, and `resume` is not given.
    """
    from advisor.workflows.dry_run import step_estimates
    from runners.plan.schema import read_plan
    from runners.run_folder import disk_needed
    from runners.runs.dataset import read_data
    from runners.runs.requirements import plan_downloads
    from runners.trial.execute import quick_plan

    path = services.folder.existing(plan, "plan")
    read = read_plan(path)
    services.folder.require_plan(read, plan)
    refuse_endpoints(read, f"tunewise run {plan}")
    folder = services.folder.path(out if out is not None else f"runs/{read.name}", "out")
    _check_out(folder, out, resume)
    planned = quick_plan(read) if quick else read
    data = read_data(planned)
    steps, _ = step_estimates(planned, len(data.examples), len(data.split.test))
    costs = Costs(
        minutes=round(sum(step.corrected for step in steps) / 60, 1),
        usd=0.0,
        disk_mib=round(disk_needed(planned, {})),
        writes=services.folder.shown(folder),
        downloads=[_download_text(each) for each in plan_downloads(planned)],
        notes=[f"Steps: {', '.join(step.step for step in steps)}."],
    )
    place = ["--out", str(folder)] if out is not None else []
    flags = [*(["--quick"] if quick else []), *(["--resume"] if resume and folder.exists() else [])]
    return StartRequest("The run", ("run", str(path), *place, *flags), folder, costs)


def training_request(
    services: Services, examples: str, out: str, method: str, model: str, epochs: float | None, resume: bool
) -> StartRequest:
    """Check a call of `train` without starting anything; errors as of :func:`run_request`."""
    from advisor.workflows.estimate import estimate_request
    from advisor.workflows.train import refuse_impossible_request
    from runners.models.resolve import downloads_needed, parse_remote
    from runners.run_folder import ADAPTER_MIB

    path, folder = services.folder.existing(examples, "examples"), services.folder.path(out, "out")
    name = services.folder.model(model)
    _check_out(folder, out, resume)
    request = TrainRequest(examples=path, method=method, model=name, out=folder, resume=resume)
    refuse_impossible_request(request)
    if parse_remote(name):
        raise BadInput(f"{name} is on an endpoint and cannot be trained here", "name a model of this machine")
    rows = load_examples(path).rows
    letters = [sum(len(turn["content"]) for turn in row.messages) for row in rows]
    tokens = max(1, round(sum(letters) / max(1, len(rows)) / CHARS_PER_TOKEN))
    sets = ["prompt_tokens=0", f"answer_tokens={tokens}"]
    estimated = estimate_request(
        EstimateRequest(model=name, method=method, examples=max(1, len(rows)), sets=sets), {}
    )
    hours = estimated.hours.likely if estimated.hours else 0.0
    weights = (
        ADAPTER_MIB if method != "full" else round(estimated.memory.terms.get("weights", 1.0) * 6 * 1024)
    )
    costs = Costs(
        minutes=round(hours * 60, 1),
        usd=0.0,
        disk_mib=weights,
        writes=services.folder.shown(folder),
        downloads=[_download_text(each) for each in downloads_needed([name])],
        notes=[
            f"{len(rows):,} rows of about {tokens:,} tokens; the minutes are for the usual number of epochs."
        ],
    )
    flags = ["--epochs", f"{epochs:g}"] if epochs is not None else []
    flags += ["--resume"] if resume else []
    arguments = ("train", "--examples", str(path), "--method", method, "--model", name, "--out", str(folder))
    return StartRequest("The training", (*arguments, *flags), folder, costs)


def can_ask_user(context: Context[Any, Any]) -> bool:
    """Return whether the client declared that it can show its user a form (elicitation)."""
    capabilities = context.client_capabilities
    form = capabilities.elicitation if capabilities is not None else None
    return form is not None and (form.form is not None or form.url is None)


def costs_text(what: str, costs: Costs) -> str:
    """Return in a few lines what starting takes."""
    lines = [
        f"{what} takes about {costs.minutes:.1f} minutes on this machine and {costs.usd:.2f} USD.",
        f"It writes about {costs.disk_mib:.0f} MiB into {costs.writes}.",
        *(f"It fetches first: {download}." for download in costs.downloads),
        *costs.notes,
    ]
    return "\n".join(lines)


def _consent(context: Context[Any, Any], request: StartRequest) -> Consent | Elicit[Consent]:
    """Return the question for the user; where the client cannot ask, what the server's own flag says."""
    if can_ask_user(context):
        return Elicit(f"{costs_text(request.what, request.costs)}\nStart it?", Consent)
    return Consent(proceed=services_of(context).without_asking)


def _not_started(
    context: Context[Any, Any], request: StartRequest, consent: ElicitationResult[Consent]
) -> CallToolResult | None:
    """Return the answer to a call that starts nothing: no person agreed, or none could be asked; None for one agreed to."""
    if consent.action == "accept" and consent.data.proceed:
        return None
    facts = costs_text(request.what, request.costs)
    if can_ask_user(context):
        return success("Not started: the user did not agree.", _started("declined", request), facts)
    command = shlex.join(["tunewise", *request.arguments])
    text = (
        "Nothing was started: this client cannot ask its user, and an agent's yes is nobody's.\n"
        "The user starts it in a terminal with the command below, or lets the client start the server with "
        "--allow-run --without-asking."
    )
    return success(text, _started("confirm", request, command=command), f"{facts}\n{command}")


def _started(state: str, request: StartRequest, **more: Any) -> dict[str, Any]:
    return {
        "schema": 1,
        "state": state,
        "costs": request.costs.model_dump(),
        "out": str(request.out),
        **more,
    }


def _check_out(folder: Path, named: str | None, resume: bool) -> None:
    """Raise UsageProblem for a result that exists, and for a folder to make it in that does not."""
    if folder.exists() and not resume:
        raise UsageProblem(f"{folder} exists", "continue with resume, or name another out")
    if named is not None and not folder.parent.is_dir():
        raise UsageProblem(
            f"out {named}: there is no folder {folder.parent}", "make it first, or name another out"
        )


def _download_text(download: Any) -> str:
    size = f", {download.bytes / 1e6:,.0f} MB" if download.bytes else ""
    return f"{download.name} from {download.source}{size}"


async def _carry_out(
    context: Context[Any, Any], services: Services, request: StartRequest
) -> tuple[int, str]:
    """Run the process to its end and return its exit code, 0 or that of a missed gate, and what it printed.

    Raises:
        UsageProblem: another run or training of this server is not finished.
        CannotRun: the process failed; the message is its own.
    """
    if not services.run_lock.acquire(blocking=False):
        raise UsageProblem(
            "a run or training of this server is not finished yet", "wait for it, or cancel that call"
        )
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "advisor", *request.arguments, "--json"],
            cwd=services.folder.root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, "NO_COLOR": "1"},
        )
        services.child, services.child_interrupted = process, False
        try:
            printed, lines = await in_thread(context, lambda progress: follow_process(process, progress))
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(services.stop_child)
            services.child = None
    finally:
        services.run_lock.release()
    code = process.returncode
    if code not in (0, GateNotMet.exit_code):
        raise _problem_of(lines, code)
    return code, printed


def follow_process(process: subprocess.Popen[str], progress: CallProgress) -> tuple[str, list[str]]:
    """Pass the lines of a process's stderr on as progress until it ends; return its output and its last lines.

    Both pipes are read at once: a process that prints more than a pipe holds waits until somebody reads it.
    """
    assert process.stdout is not None
    assert process.stderr is not None
    lines: list[str] = []
    with ThreadPoolExecutor(1) as reader:
        printed = reader.submit(process.stdout.read)
        for line in process.stderr:
            if text := line.strip():
                lines = [*lines[-9:], text]
                if not _WARNING.search(text):
                    progress.message = text[:200]
                print(text, file=sys.stderr, flush=True)
        return printed.result(), lines


def _problem_of(lines: Sequence[str], code: int) -> Problem:
    """Return the error that a process printed: its last lines that begin as the command line's messages do."""
    messages = [line.removeprefix("tunewise: ") for line in lines if line.startswith("tunewise: ")]
    hints = [line.removeprefix("next: ") for line in lines if line.startswith("next: ")]
    if messages:
        return CannotRun(messages[-1], hints[-1] if hints else "")
    return CannotRun(f"the process ended with exit code {code}", "the server's log (stderr) has its lines")
