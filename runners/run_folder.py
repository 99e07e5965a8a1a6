"""The run folder: plan, event log, finished steps and results. It can be moved or deleted as a whole.

:class:`RunFolder` creates, resumes and seals a run; :func:`open_run_folder` and :func:`read_run_plan` read a finished one.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rag.errors import BadInput, UsageProblem
from rag.files import (
    MANIFEST,
    UPDATE_HINT,
    append_line,
    canonical_json,
    check_manifest,
    is_below,
    is_older,
    is_reserved_name,
    move_folder,
    older_file,
    parse_json,
    sha256_text,
    write_manifest,
    writer_lock,
)
from runners.models.cards import CARD_FILE
from runners.plan.data import PATH_KEYS
from runners.plan.forecast import forecast_path
from runners.plan.schema import RECORD_KEYS, Plan, plan_differences, read_plan_file, write_plan
from runners.plan.steps import TrainStep

PLAN = "plan.yaml"
EVENTS = "events.jsonl"
INDEX = "index"
TUNED_INDEX = "index-tuned"
"""The documents embedded with the tuned embedder, beside the plain index."""
RETRIEVER = "retriever"
"""The tuned embedder and reranker; see :mod:`runners.runs.retrieval`."""
TRIAL = "trial"
LABELS = "trial/labels"
"""What people say of the answers, a journal for each person; see :mod:`runners.labels`."""
LAUNCH = "launch"
"""Scripts of a launcher, the output of Slurm's jobs, the exit code of the first process."""
REPORT = "report.json"
EVALS_FOLDER = "evals"
RECHECKS = "rechecks"
"""What ``tunewise recheck`` measured later: a folder for each state, and which of them the next one is compared with."""
FAILURES_FOLDER = "failures"
"""Why answers of the run's arms are wrong, a folder for each arm; see :mod:`runners.failures`."""
CURVES_FOLDER = "curves"
"""Learning curves of the run's arms, a folder for each; see :mod:`runners.trial.curve`."""
ANSWERS = "answers.jsonl"
"""The journal of the trial's answers, in its folder."""
SCORES = "scores.json"
"""In the trial folder and in each folder of evals."""
UNCONFIRMED_ENDPOINTS = ".unconfirmed-endpoints.json"
"""Hosts that a run from a bundle may not ask yet; see :mod:`runners.runs.endpoint_consent`."""
TRACKING = "tracking"
"""What trackers write; see :mod:`runners.tracking`."""
COMPARISONS = "comparisons"
"""Pages that compare the run with others."""
UNSEALED = (
    EVENTS,
    INDEX,
    TUNED_INDEX,
    EVALS_FOLDER,
    RECHECKS,
    CURVES_FOLDER,
    FAILURES_FOLDER,
    LAUNCH,
    UNCONFIRMED_ENDPOINTS,
    TRACKING,
    COMPARISONS,
    LABELS,
)
"""Parts that still change in a sealed run: the log, the indexes, which have manifests of their own, later evaluations,
rechecks, learning curves and causes of wrong answers, what a launcher writes, the endpoints to be confirmed, the files
of trackers, pages that compare runs, and people's labels."""
ADAPTER_MIB = 60
"""Disk space for one adapter with its checkpoint, in MiB."""
EMBEDDER_MIB = 130
"""Disk space for the weights of a small embedder in fp32, in MiB; a tuned one needs it four times, with its checkpoint."""
INDEX_MIB = 60
"""Disk space for a small index, in MiB."""


class RunFolder:
    """The files of one run; finished steps are recorded with a digest of their inputs."""

    def __init__(self, path: Path) -> None:
        """Open an existing folder with a plan in it; use :func:`open_run_folder` or :meth:`create`.

        Raises BadInput for a run that a version before 0.2.0 made.
        """
        self.path = path
        self._events: list[dict[str, Any]] = []
        self._events_size = 0
        events = self.events()
        if any(is_older((event.get("packages") or {}).get("tunewise")) for event in events):
            raise older_file("run", path)
        self._finished = {
            event["step"]: event for event in events if event.get("event") == "step.done" and "step" in event
        }

    @classmethod
    def create(cls, path: Path, plan: Plan, resume: bool = False, overwrite: bool = False) -> RunFolder:
        """Create the folder of a run, or open an existing one.

        Args:
            path: the run folder.
            plan: the plan of the run.
            resume: continue an existing run.
            overwrite: replace an existing run.

        Raises:
            UsageProblem: the folder exists and neither flag is given, it is not a run, or it may not be replaced.
            BadInput: the run was started with another plan; the message names the keys that differ.
        """
        if check_run_folder(path, plan, resume, overwrite):
            _remove(path)
        path.mkdir(parents=True, exist_ok=True)
        if not (path / PLAN).exists():
            # The log comes first: with plan and log, the folder counts as a run.
            (path / EVENTS).touch()
            write_plan(plan, path / PLAN)
        return cls(path)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the folder's writer lock; a second run in it is refused, with the process of the first."""
        with writer_lock(self.path):
            yield

    def events(self) -> list[dict[str, Any]]:
        """Return every event written so far; a line left incomplete by a crash is skipped.

        The log is read again only where it has grown.
        """
        file = self.path / EVENTS
        size = file.stat().st_size if file.exists() else 0
        if size != self._events_size:
            self._events, self._events_size = read_journal(file), size
        return list(self._events)

    def write(self, event: dict[str, Any]) -> None:
        """Append one event with the current time."""
        append_line(self.path / EVENTS, {"time": round(time.time(), 3), **event})

    def finished(self, step: str, inputs: Any) -> dict[str, Any] | None:
        """Return the recorded result of a step that was finished with the same inputs, else None."""
        event = self._finished.get(step)
        same = event is not None and event.get("inputs") == sha256_text(canonical_json(inputs))
        return event["result"] if event is not None and same else None

    def recorded(self, step: str) -> dict[str, Any] | None:
        """Return the event of a step that was finished, whatever its inputs were; None where it was not."""
        return self._finished.get(step)

    def incomplete_arms(self) -> dict[str, str]:
        """Return how far each arm came that was not asked to its end, and why it was not, by its name."""
        latest = {event["arm"]: event for event in self.events() if event.get("event") == "arm.incomplete"}
        return {
            arm: f"{event['answered']} of {event['questions']} answered: {event['reason']}"
            for arm, event in latest.items()
            if f"evaluate:{arm}" not in self._finished
        }

    def finish(self, step: str, inputs: Mapping[str, Any], result: dict[str, Any], lost: float = 0.0) -> None:
        """Record a step as finished in the event log, with the digests of its inputs, all together and by part.

        Args:
            step: its name.
            inputs: what it depends on.
            result: what it reports.
            lost: share of processor time that other processes took meanwhile; recorded where there is any.
        """
        event = {
            "event": "step.done",
            "step": step,
            "inputs": sha256_text(canonical_json(inputs)),
            "parts": part_digests(inputs),
            "result": result,
            **({"lost": lost} if lost else {}),
        }
        self.write(event)
        self._finished[step] = event

    def adapter(self, arm: str, seed: int) -> Path:
        """Return the folder of an arm's weights, an adapter or a whole model."""
        return self.path / "adapters" / f"{arm}-s{seed}"

    def seal(self, extra: dict[str, Any]) -> None:
        """Write the manifest with the hashes of all files that no longer change, and the ``extra`` values."""
        names = [p.relative_to(self.path).as_posix() for p in sorted(self.path.rglob("*")) if p.is_file()]
        sealed = [n for n in names if not is_below(n, UNSEALED) and not n.startswith(".") and n != MANIFEST]
        write_manifest(self.path, "run", extra, sealed)

    def unseal(self) -> None:
        """Remove the manifest before files are added, so that a run interrupted then is unsealed, not damaged."""
        (self.path / MANIFEST).unlink(missing_ok=True)

    def check(self) -> None:
        """Check a sealed run against its manifest; BadInput names the file that differs. Unsealed runs pass."""
        if (self.path / MANIFEST).exists():
            try:
                check_manifest(self.path, "run", UNSEALED, editable=(CARD_FILE,))
            except BadInput as error:
                raise BadInput(error.message, error.hint or self._repair_hint(error.message)) from None

    def _repair_hint(self, damage: str) -> str:
        """Return how to repair what a message about the run's files names: train one arm again, or the whole run."""
        name = shlex.quote(str(self.path))
        weights = re.search(r"adapters/(?P<arm>.+)-s\d+/", damage)
        if weights:
            arm = shlex.quote(f"train:{weights['arm']}")
            return f"put that file back, or train it again: tunewise run {name} --resume --only {arm}"
        return f"put that file back, or run it again: tunewise run {name} --overwrite"


def part_digests(inputs: Mapping[str, Any]) -> dict[str, str]:
    """Return a digest of each part that a step depends on; another step's inputs among them count by their own parts."""
    digests: dict[str, str] = {}
    for name, value in inputs.items():
        if isinstance(value, dict) and "step" in value:
            digests |= {f"{name}.{part}": digest for part, digest in part_digests(value).items()}
        else:
            digests[name] = sha256_text(canonical_json(value))[:16]
    return digests


def check_run_folder(path: Path, plan: Plan, resume: bool, overwrite: bool) -> bool:
    """Check that a run of this plan may be written to a folder; return whether a run that is there must go first.

    Raises the same errors as :meth:`RunFolder.create`.
    """
    if os.name == "nt" and is_reserved_name(path.name):
        raise UsageProblem(f"Windows takes no folder of the name {path.name}", "choose another --out")
    if path.exists() and not (path.is_dir() and _has_no_plan_yet(path)):
        if not is_run(path):
            raise UsageProblem(f"{path} exists and is not a run folder", "choose another --out")
        if overwrite:
            check_replaceable(path, plan)
            return True
        if not resume:
            raise UsageProblem(f"{path} exists", "continue it with --resume, or start again with --overwrite")
    if (path / PLAN).exists():
        # Servers move between a start and a resumption, and a limit may be raised; steps that other servers answered are
        # repeated. The judge is asked after all steps: one can be added, or allowed to count, once answers are labelled.
        changed = [
            key
            for key, _, _ in plan_differences(
                read_run_plan(path), plan, {*RECORD_KEYS, "backend", "most_usd", "judge"}
            )
        ]
        if changed:
            raise BadInput(
                f"the plan differs from the one {path} was started with: {', '.join(changed[:4])}",
                "undo the change, or start again with --overwrite",
            )
    return False


def is_run(path: Path) -> bool:
    """Whether a folder is a run: with a log or manifest beside the plan, as a folder of documents may hold a plan too."""
    return (path / PLAN).is_file() and any((path / name).is_file() for name in (EVENTS, MANIFEST))


def check_replaceable(path: Path, plan: Plan) -> None:
    """Raise UsageProblem when a run folder must not be deleted to make place for a run of this plan.

    Refused are a run that people have labelled, a symbolic link, the current folder, and a folder that contains files or
    models which this plan or the existing run's plan reads.
    """
    if people := sorted(file.stem for file in (path / LABELS).glob("*.jsonl")):
        raise UsageProblem(
            f"{path} has what people labelled ({', '.join(people)}), so it is not replaced",
            f"choose another --out, or delete {path / LABELS} first",
        )
    if path.is_symlink():
        raise UsageProblem(
            f"{path} is a link: only real files and folders are replaced", "choose another --out"
        )
    folder = path.resolve()
    plans = [plan]
    with suppress(BadInput):  # a run with a damaged plan may be overwritten
        plans.append(read_run_plan(path))
    for source in (source for each in plans for source in paths_read(each)):
        if source.resolve().is_relative_to(folder):
            raise UsageProblem(
                f"{path} contains {source}, which the plan reads, so it is not replaced",
                "choose another --out",
            )
    if Path.cwd().is_relative_to(folder):
        raise UsageProblem(
            f"{path} is the current folder, so it is not replaced", f"first: cd {folder.parent}"
        )


def open_run_folder(path: Path) -> RunFolder:
    """Open an existing run; BadInput when there is none at ``path``, or one that a version before 0.2.0 made."""
    require_run_folder(path)
    return RunFolder(path)


def require_run_folder(path: Path) -> None:
    """Raise BadInput when there is no run at ``path``."""
    if not is_run(path):
        problem = f"is not a run folder (no {PLAN} with {EVENTS})" if path.exists() else "does not exist"
        raise BadInput(f"{path} {problem}", "make one with: tunewise run plan.yaml")


def read_run_plan(path: Path) -> Plan:
    """Return the plan that a run was started with; its paths are absolute already."""
    try:
        return read_plan_file(path / PLAN)
    except BadInput as problem:
        hint = problem.hint if problem.hint == UPDATE_HINT else "put it back, or start again with --overwrite"
        raise BadInput(problem.message, hint) from None


def read_scores(run: Path) -> dict[str, Any]:
    """Return what a run's trial scored, {} before it did; BadInput when the file is damaged."""
    file = run / TRIAL / SCORES
    if not file.is_file():
        return {}
    try:
        body = dict(parse_json(file.read_text("utf-8")))
        _ = [float(row["combined"]) for rows in body["arms"].values() for row in rows.values()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(
            f"{file} is damaged: {error!r}", f"score it again with: tunewise run {run} --resume"
        ) from None
    return body


def read_journal(path: Path) -> list[dict[str, Any]]:
    """Read a JSON-lines log; lines that are no JSON object, such as an incomplete last one after a crash, are skipped."""
    if not path.exists():
        return []
    rows = []
    # not by str.splitlines: a text in a row may hold U+0085, U+2028 or U+2029
    for line in path.read_text("utf-8", errors="replace").split("\n"):
        try:
            row = parse_json(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def paths_read(plan: Plan) -> list[Path]:
    """Return every file and folder that a plan reads, local models included."""
    data = plan.data
    models = [*plan.base_models, plan.embedder]
    models += [plan.index.reranker] if plan.index and plan.index.reranker else []
    models += [step.reranker] if (step := plan.embedder_step) and step.reranker else []
    files = [getattr(data, key) for key in PATH_KEYS]
    files += [Path(plan.forgetting.file)] if plan.forgetting.file else []
    folders = [Path(model.name).expanduser() for model in models]
    return [*(file for file in files if file), *(folder for folder in folders if folder.is_dir())]


def _has_no_plan_yet(path: Path) -> bool:
    """Whether a folder is empty, or was left by a launcher or a run that was interrupted before its plan was written."""
    forecast = forecast_path(path / PLAN).name
    entries = [entry for entry in path.iterdir() if entry.name != LAUNCH]
    return all(
        (entry.name == EVENTS and not entry.stat().st_size) or (entry.name == forecast and len(entries) > 1)
        for entry in entries
    )


def _remove(path: Path) -> None:
    """Delete a run folder; it is renamed first, so that a crash leaves no partial run under its name."""
    path = path.resolve()
    removed = path.with_name(f".{path.name}.removed")
    if removed.exists():
        shutil.rmtree(removed)
    move_folder(path, removed)
    shutil.rmtree(removed)


def disk_needed(plan: Plan, folders: Mapping[str, Path]) -> float:
    """Return about how many MiB a run takes: index, adapters, checkpoints, answers and report.

    ``folders`` are those of local models by their name in the plan: the size of full training follows the model's.
    """

    def weights(step: TrainStep) -> float:
        folder = folders.get(plan.model_of(step).name)
        files = folder.glob("*.safetensors") if folder else ()
        return sum(file.stat().st_size for file in files) / 2**20

    needed: float = INDEX_MIB if plan.index else 10
    if plan.embedder_step:
        # The tuned embedder and a checkpoint of it (weights, two moments), its index, a reranker as large.
        needed += INDEX_MIB + 4 * EMBEDDER_MIB * (2 if plan.embedder_step.reranker else 1)
    for step in plan.steps:
        if isinstance(step, TrainStep):
            # A full checkpoint holds the weights and two fp32 moments of a bf16 model.
            needed += len(step.seeds) * (6 * weights(step) if step.method == "full" else ADAPTER_MIB)
    return needed
