"""What a probe before the advice is worth: the advice on each public set before and after it, against the recorded trials.

    python -m benchmarks.probe_value SHARED/data --out DIR [NAME ...] [--without QUESTION] [--record]

Probes the base model on the dev questions of each set, as ``tunewise plan --probe`` does, and keeps what it measured, and
the minutes, in DIR/NAME/probe.json. A set that has this file is not probed again, but advised again, before and after, by
the rules of now; an interrupted probe is continued. With ``--without`` the user does not know the answer to that question.
Every advice is judged by the recorded trial of its set (:func:`trial_outcome`). Sets that are held back are probed only when
they are named, and judged only with ``--held-back``.

--record writes benchmarks/probe_value.json, of which `python scripts/docs.py` makes a section of docs/accuracy.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from advisor.display.progress import watch_progress
from advisor.evidence.trials import MeasuredTrial, measured_trials
from advisor.probe.answers_from_probe import PROBE_SOURCE
from advisor.probe.offer import offer_where_it_decides, price_of_probe
from advisor.probe.probe import ProbeOutcome, probe_model
from advisor.questionnaire.answers import PERSON_SOURCES, Answer, Answers
from advisor.questionnaire.gather import complete_situation
from advisor.questionnaire.probe_facts import PROBE_FACTS
from advisor.recommendation.recommend import recommend_for_profile
from benchmarks.cast import CAST, Part
from benchmarks.cast_files import bring
from benchmarks.trials import situation
from rag.errors import Problem
from runners.plan.train_config import TUNING_METHODS

RECORD = Path(__file__).parent / "probe_value.json"
OUTCOME = "probe.json"
NOT_MEASURED = "not measured"
"""Outcome of a choice that has no arm in the trial."""
VARIANTS = (
    frozenset({"prompting", "prompting-scored", "few-shot", "few-shot-scored"}),
    frozenset({"rag", "rag-few-shot", "rag-tuned"}),
    frozenset({"hybrid", "naive-stack"}),
    frozenset(TUNING_METHODS),
)
"""Arms that are ways of doing the same: one of them ahead of another does not overturn the advice."""


def probe_set(part: Part, data: Path, folder: Path, model: str = "", without: str = "") -> dict[str, Any]:
    """Probe a set, or read what an earlier probe of it measured, and advise on it before and after.

    Args:
        part: the set.
        data: the folder of the public sets.
        folder: where the files of the set and the result are kept.
        model: another base model than the default; "" for that.
        without: a question that the user does not answer; "" for none.
    """
    at = situation(part, bring(part, data, folder / "files"), *([f"model={model}"] if model else []))
    answers = at.answers
    if without:
        for source in PERSON_SOURCES:
            answers = answers.drop(source, [without])
    kept = folder / OUTCOME
    if not kept.is_file():
        expected = price_of_probe(at.profile)
        with watch_progress(quiet=not sys.stderr.isatty()) as watcher:
            outcome = probe_model(answers, folder / "work", on_event=watcher)
        measured = probe_facts(part, outcome) | {"expected_minutes": round(expected.seconds / 60, 2)}
        kept.write_text(json.dumps(measured, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return advised_again(json.loads(kept.read_text("utf-8")), answers, without)


def advised_again(measured: Mapping[str, Any], answers: Answers, without: str = "") -> dict[str, Any]:
    """Return the result of a probe with the advice of now before and after it."""
    values = {**measured["set"], PROBE_FACTS: measured["facts"]}
    probed = answers.add(PROBE_SOURCE, {key: Answer(value, PROBE_SOURCE) for key, value in values.items()})
    before, after = (recommend_for_profile(complete_situation(given).profile) for given in (answers, probed))
    return {
        **measured,
        "commit": current_commit(),
        "without": without,
        "offered": offer_where_it_decides(before) is not None,
        "before": {"choice": before.choice},
        "after": {"choice": after.choice},
    }


def current_commit() -> str:
    """Return the start of the hash of the checked-out commit; "" outside a repository."""
    command = ["git", "rev-parse", "--short=10", "HEAD"]
    return subprocess.run(
        command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    ).stdout.strip()


def probe_facts(part: Part, outcome: ProbeOutcome) -> dict[str, Any]:
    """Return what is kept of a probe: the advice before and after, counts and minutes, nothing of the data."""
    measured = outcome.to_json()
    return {
        "task": part.task,
        "held_back": part.held_back,
        "model": outcome.model,
        "proxy": outcome.proxy,
        "date": time.strftime("%Y-%m-%d"),
        "set": measured["set"],
        "person_answered": measured["kept"],
        "facts": measured["facts"],
        "reading": measured["reading"],
        "left_out": measured["left_out"],
        "minutes": round(outcome.seconds / 60, 2),
    }


def trial_outcome(trial: MeasuredTrial, choice: str) -> bool | None:
    """Return whether a trial confirms a choice (True) or puts another arm surely ahead of it (False); None: undecided.

    Other ways to do the same (:data:`VARIANTS`) do not count against it. A tuning method that was not measured is judged by
    the one that was.
    """
    arm = trial.arm(choice)
    if arm is None and choice in TUNING_METHODS:
        arm = trial.best(TUNING_METHODS)
    if arm is None:
        return None
    same = next((group for group in VARIANTS if arm.arm in group), frozenset())
    signs = []
    for other in trial.arms:
        if other.arm != arm.arm and other.arm not in same:
            pair = trial.difference(arm.arm, other.arm)
            signs.append(pair.sure if pair else 0)
    if -1 in signs:
        return False
    return True if signs and set(signs) == {1} else None


def with_outcomes(result: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a probe's result with what the recorded trial says of the advice before and after; as it is without a trial.

    The outcome of a choice is confirmed, overturned, undecided, or :data:`NOT_MEASURED` where the trial has no arm of it.
    """
    trials = [trial for trial in measured_trials() if (trial.name, trial.model) == (name, result["model"])]
    if not trials:
        return dict(result)
    outcomes = {}
    for key in ("before", "after"):
        choice = result[key]["choice"]
        held = trial_outcome(trials[0], choice)
        measured = trials[0].arm(choice) or (choice in TUNING_METHODS and trials[0].best(TUNING_METHODS))
        undecided = "undecided" if measured else NOT_MEASURED
        outcomes[key] = undecided if held is None else ("confirmed" if held else "overturned")
    return {**result, "outcome": outcomes}


def summary(results: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Return the counts of outcomes before and after the probe, over the sets whose trial is known.

    Trials that are undecided, or did not measure the choice, are counted apart.
    """
    judged = {name: result for name, result in results.items() if "outcome" in result}
    counts = {}
    for key in ("before", "after"):
        outcomes = [result["outcome"][key] for result in judged.values()]
        names = ("confirmed", "overturned", "undecided", NOT_MEASURED)
        counts[key] = {name: outcomes.count(name) for name in names}
    return counts


def show(results: Mapping[str, Mapping[str, Any]]) -> None:
    """Print a line for each set, and the counts."""
    for name, result in results.items():
        outcome = result.get("outcome") or {"before": "no trial", "after": "no trial"}
        sides = "  ->  ".join(f"{result[key]['choice']} ({outcome[key]})" for key in ("before", "after"))
        offered = "offered" if result["offered"] else "not offered"
        print(
            f"{name}, {offered}: {sides}; {result['minutes']:.1f} min, {result['expected_minutes']:.1f} expected"
        )
    for key, row in summary(results).items():
        print(f"{key}: {', '.join(f'{name} {value}' for name, value in row.items())}")
    print(f"minutes in all: {sum(result['minutes'] for result in results.values()):.1f}")


def main() -> None:
    """Probe the sets and judge the advice."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder of the public sets")
    parser.add_argument("names", nargs="*", help="some sets only")
    parser.add_argument("--out", type=Path, required=True, help="a folder for files and results")
    parser.add_argument("--model", default="", help="another base model than the default")
    parser.add_argument(
        "--without", default="", metavar="QUESTION", help="an answer that the user does not know"
    )
    parser.add_argument("--held-back", action="store_true", help="judge the sets that are held back, too")
    parser.add_argument("--record", action="store_true", help=f"write {RECORD.name}")
    given = parser.parse_intermixed_args()
    if unknown := set(given.names) - {part.name for part in CAST}:
        parser.error(
            f"no set is called {', '.join(sorted(unknown))}; known: {', '.join(p.name for p in CAST)}"
        )
    results = {}
    for part in CAST:
        if part.name not in given.names if given.names else part.held_back and not given.held_back:
            continue
        if not (given.data / part.name).is_dir():
            print(f"{part.name}: skipped, {given.data} has no such folder", file=sys.stderr)
            continue
        try:
            result = probe_set(part, given.data, given.out / part.name, given.model, given.without)
        except Problem as problem:
            print(f"{part.name}: skipped, {problem.message}", file=sys.stderr)
            continue
        hidden = part.held_back and not given.held_back
        label = f"{part.name}, {given.without} not known" if given.without else part.name
        results[label] = result if hidden else with_outcomes(result, part.name)
    show(results)
    if given.record:
        kept = json.loads(RECORD.read_text("utf-8")) if RECORD.is_file() else {}
        merged = {**kept, **results}
        order = [part.name for part in CAST]
        ordered = dict(sorted(merged.items(), key=lambda entry: order.index(entry[0].partition(",")[0])))
        RECORD.write_text(json.dumps(ordered, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
