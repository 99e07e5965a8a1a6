"""The folder of a recheck: it begins as a copy of what a run answers with, and the copy follows the changes.

It holds what a run folder holds (plan, log, index, adapters that were trained again, trial), and the run itself is never
written to. :func:`prepare_workspace` makes it; what is finished of an interrupted recheck of the same state stays.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag.backends.consent import stored_url
from rag.backends.files import FilesBackend
from rag.errors import BadInput, UsageProblem
from rag.files import check_schema, empty_folder, write_json, writer_lock
from runners.arms.classifier import CLASSIFIER_FOLDER
from runners.arms.few_shot import candidate_layouts
from runners.arms.prompt_selection import PROMPTS
from runners.arms.retriever import index_settings
from runners.made_from import index_updated, measured_generation
from runners.plan.schema import Plan, write_plan
from runners.plan.steps import TrainStep
from runners.recheck.inputs import DOCUMENTS, EMBEDDER, STATE, Change, RunInputs, read_state
from runners.run_folder import (
    EVENTS,
    INDEX,
    PLAN,
    RECHECKS,
    RETRIEVER,
    TRIAL,
    TUNED_INDEX,
    RunFolder,
    open_run_folder,
)
from runners.runs.opened import OpenRun
from runners.runs.retrieval import REFUSAL_FILE
from runners.selective.replies import REPLIES_FOLDER
from runners.selective.routes import ROUTES
from runners.trial import step_runner

if TYPE_CHECKING:
    from rag.index import Index

BASE = "base.json"
"""In the folder of a run's rechecks: the recheck that the next one is compared with."""
UNFINISHED = "unfinished"
"""The digest of a folder that is being made."""
DOCUMENTS_EVENT = "recheck.documents"
"""The event that says how the documents differ; an update that is repeated after an interruption finds nothing."""
_LOCKS = shutil.ignore_patterns(".writer.*", "*.tmp")


class RecheckFolder(RunFolder):
    """A recheck's folder; weights that were not trained again are those of the run that it is compared with."""

    def __init__(self, path: Path, base: RunFolder, own: frozenset[str]) -> None:
        """Open the folder.

        Args:
            path: the folder.
            base: the run, or the earlier recheck, that it is compared with.
            own: the arms whose weights were trained again.
        """
        super().__init__(path)
        self.base = base
        self.own = own

    def adapter(self, arm: str, seed: int) -> Path:
        """Return the folder of an arm's weights: the recheck's own, or those of the run."""
        return super().adapter(arm, seed) if arm in self.own else self.base.adapter(arm, seed)


@dataclass(frozen=True, slots=True)
class RecheckState:
    """What a recheck is made with."""

    digest: str
    """Of everything that its answers depend on."""
    inputs: RunInputs
    again: tuple[TrainStep, ...]
    """The train steps that are carried out again."""

    def to_json(self, base: str) -> dict[str, Any]:
        """Return the content of the recheck's state file."""
        trained = [step.arm for step in self.again]
        return {
            "schema": 1,
            "digest": self.digest,
            "base": base,
            "trained": trained,
            "inputs": self.inputs.to_json(),
        }


def open_base(run: RunFolder) -> RunFolder:
    """Return what a recheck is compared with: the recheck of a run that was accepted last, else the run itself.

    Raises:
        BadInput: the record of it is damaged, or its folder is gone.
    """
    file = run.path / RECHECKS / BASE
    if not file.is_file():
        return run
    try:
        base = check_schema(json.loads(file.read_text("utf-8")), "recheck", file)["base"]
        folder = (run.path / str(base)).resolve()
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{file} is damaged: {error!r}", "remove it: then the run is compared with") from None
    if not (folder / STATE).is_file():
        raise BadInput(
            f"the recheck that was accepted last, {folder}, no longer exists",
            f"remove {file}: then the run itself is compared with",
        )
    return _open_recheck(folder)


def _open_recheck(folder: Path) -> RunFolder:
    """Open a folder as a recheck, or as a run where it is none."""
    if not (folder / STATE).is_file():
        return open_run_folder(folder)
    state = read_state(folder / STATE)
    base = _open_recheck((folder / str(state["base"])).resolve())
    return RecheckFolder(folder, base, frozenset(state["trained"]))


def accept_recheck(run: Path, folder: Path, when: str) -> None:
    """Let the next recheck of a run compare with this one; the run's verdict and the earlier bases stay listed.

    Args:
        run: the run folder.
        folder: the recheck's folder.
        when: the date, for the list.
    """
    file = run / RECHECKS / BASE
    place = os.path.relpath(folder.resolve(), run.resolve())
    with writer_lock(file.parent):  # so that of two rechecks that are accepted at once both are listed
        history = list(json.loads(file.read_text("utf-8")).get("history") or []) if file.is_file() else []
        write_json(
            file, {"schema": 1, "base": place, "history": [*history, {"base": place, "accepted": when}]}
        )


def check_workspace(folder: Path) -> None:
    """Raise UsageProblem for a folder that holds something else than a recheck."""
    if folder.exists() and not folder.is_dir():
        raise UsageProblem(f"{folder} is a file, not a folder", "choose another --out")
    allowed = {EVENTS, ".writer.lock", ".writer.pid"}
    if folder.is_dir() and not (folder / STATE).is_file() and {p.name for p in folder.iterdir()} - allowed:
        raise UsageProblem(f"{folder} is not the folder of a recheck", "choose another --out")


def prepare_workspace(
    folder: Path, base: RunFolder, old: RunInputs, state: RecheckState, retrieves: bool
) -> RecheckFolder:
    """Make a recheck's folder, or empty that of another state; the index is copied, and updated later.

    Args:
        folder: the recheck's folder.
        base: what it is compared with.
        old: what that was made with.
        state: what this one is made with.
        retrieves: whether an arm that is asked again searches.
    """
    file = folder / STATE
    if not file.is_file() or read_state(file)["digest"] != state.digest:
        empty_folder(folder)
        place = os.path.relpath(base.path.resolve(), folder.resolve())
        write_json(file, state.to_json(place) | {"digest": UNFINISHED})
        (folder / EVENTS).touch()
        write_plan(state.inputs.plan, folder / PLAN)
        _copy_trial(base.path / TRIAL, folder / TRIAL, old.plan, state.inputs.plan)
        for name in (CLASSIFIER_FOLDER, REPLIES_FOLDER):
            if (base.path / name).is_dir():
                shutil.copytree(base.path / name, folder / name)
        # Written last: with it the folder counts as one of this state.
        write_json(file, state.to_json(place))
    if retrieves and not (folder / REFUSAL_FILE).is_file():
        _copy_index(base, folder)
    return RecheckFolder(folder, base, frozenset(step.arm for step in state.again))


def _copy_trial(source: Path, target: Path, old: Plan, new: Plan) -> None:
    """Copy what a trial decided: chosen prompts, priors of labels, passages that all questions share."""
    target.mkdir(parents=True, exist_ok=True)
    for name in (PROMPTS, "shots.npy", "label_priors.json", ROUTES):
        if (source / name).is_file():
            shutil.copy2(source / name, target / name)
    if (target / PROMPTS).is_file() and old.prompts.system != new.prompts.system:
        _reword_choices(target / PROMPTS, old, new)


def _reword_choices(file: Path, old: Plan, new: Plan) -> None:
    """Write the chosen prompts with the new instructions: the same layout, the same examples."""
    layouts = {layout.label: layout for layout in candidate_layouts(new, True)}
    label_of = {(layout.system, layout.context): layout.label for layout in candidate_layouts(old, True)}
    body = json.loads(file.read_text("utf-8"))
    for choice in body.get("arms", {}).values():
        chosen = choice["chosen"]
        layout = layouts.get(label_of.get((chosen["system"], chosen["context"]), ""), layouts[""])
        chosen |= {"system": layout.system, "context": layout.context}
    write_json(file, body)


def _copy_index(base: RunFolder, folder: Path) -> None:
    """Copy the indexes, a tuned retriever and the refusal threshold; that last: with it the copy counts as whole."""
    for name in (INDEX, RETRIEVER, TUNED_INDEX):
        shutil.rmtree(folder / name, ignore_errors=True)
        if name != INDEX and (base.path / name).is_dir():
            shutil.copytree(base.path / name, folder / name, ignore=_LOCKS)
    if stored_url(base.path / INDEX) is None:
        if not (base.path / INDEX).is_dir():
            raise BadInput(
                f"{base.path} has no index, so its arms cannot search",
                "run the plan again: tunewise run PLAN --overwrite",
            )
        shutil.copytree(base.path / INDEX, folder / INDEX, ignore=_LOCKS)
    shutil.copy2(base.path / REFUSAL_FILE, folder / REFUSAL_FILE)


def remove_index(folder: Path) -> None:
    """Remove a recheck's copy of the index: only a recheck that is accepted needs it, and it may be large."""
    (folder / REFUSAL_FILE).unlink(missing_ok=True)  # first: without it the copy does not count as whole
    for name in (INDEX, RETRIEVER, TUNED_INDEX):
        shutil.rmtree(folder / name, ignore_errors=True)


def open_measured_index(base: RunFolder) -> Index | None:
    """Open the index that a run was measured with, for reading; None where it was updated since and that one is gone."""
    from rag.index import Index, newest_generation

    folder, measured = base.path / INDEX, measured_generation(base)
    if not measured or stored_url(folder) is not None or measured == newest_generation(folder):
        return Index.open(folder)
    try:
        return Index(folder, FilesBackend.open(folder, measured), None, None)
    except (BadInput, OSError):
        return None


def update_workspace_index(
    context: OpenRun, base: RunFolder, old: RunInputs, changes: Sequence[Change]
) -> Change | None:
    """Bring the copy of the index to the documents of today; return what changed in them, None where nothing did.

    It is built anew where the embedder or the settings of the index differ, or where the run's index is in a database; with
    another embedder or other settings the refusal threshold is fitted anew too. Otherwise the threshold stays, as it does
    when the index of a run is updated. The index of a tuned retriever is updated, and the retriever stays as it is.
    """
    from rag.index import Index

    step, documents = context.plan.index, context.plan.data.documents
    assert step is not None
    assert documents is not None
    folder = context.folder.path / INDEX
    before = old.plan.index
    other = any(change.kind == EMBEDDER for change in changes)
    other = other or before is None or index_settings(before) != index_settings(step)
    held_elsewhere = stored_url(base.path / INDEX) is not None
    if other or held_elsewhere:
        report = Index.build(folder, documents, context.models.embedder, index_settings(step), context.emit)
        if other:
            step_runner.fit_refusal(context)
        context.retrieval.update_tuned(documents, context.emit)
        context.retrieval.plain.close()
    else:
        report = context.retrieval.update(documents, context.emit)
    for skipped in report.skipped:
        context.emit({"event": "file.skipped", "file": skipped.path, "reason": skipped.reason})
    counts = {"added": report.added, "changed": report.changed, "removed": report.removed}
    if any(counts.values()) and not (other or held_elsewhere):
        text = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        context.emit({"event": DOCUMENTS_EVENT, "reason": f"{text} of {report.found}"})
    reasons = [str(e["reason"]) for e in context.folder.events() if e.get("event") == DOCUMENTS_EVENT][:1]
    if index_updated(base):
        reasons.append("the run's index was updated since it was measured")
    retrieving = tuple(arm.arm for arm in context.plan.arms if arm.retrieval)
    return Change(DOCUMENTS, "; ".join(reasons), retrieving) if reasons else None
