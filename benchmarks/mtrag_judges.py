"""Real labels and real judges: MTRAG's human ratings of three models' answers, and the scores of judges in the same file.

    python -m benchmarks.mtrag_judges FOLDER [--draws N] [--model NAME]

FOLDER is a checkout of IBM's mt-rag-benchmark, of which ``reference_subset_with_human_evaluations.json`` is read. Three
people rated each answer from 1 to 4. A person's grade is that of the lowest of appropriateness, completeness and
faithfulness: 4 is right, 3 partly, less wrong; an answer's label is the mean. Judges are ``rb_llm`` (a language model that
compares with the reference), ``rl_f`` (a language model that checks faithfulness) and ``rb_agg`` (computed), 0 to 1. With
``--model`` a local model grades the answers of the two models with the prompt of :mod:`runners.judging.prompts`, the
reference as the right answer and without passages; only that judge is compared.

For each pair of models people's labels of some answers are drawn as ``tunewise label`` does, rows on which Rouge-L differs
earlier, and the difference is estimated with the judge's scores of all. ``rows``: coverage of the difference of all labels;
as the rows are always the same, it must be above .95. ``drawn``: the rows are a draw of conversations with replacement,
as of customers' questions, so that it should be about .95.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, cast

import numpy as np

from rag.evaluation.prediction_powered import (
    LabelledDifferences,
    label_chances,
    prediction_powered,
    priority_order,
    youden_j,
)

FILE = "mtrag-human/evaluations/reference_subset_with_human_evaluations.json"
ASPECTS = ("appropriateness", "completeness", "faithfulness")
GRADES = {4: 1.0, 3: 0.5, 2: 0.0, 1: 0.0}
JUDGES = ("rb_llm", "rl_f", "rb_agg")
COMPUTED = "RougeL"
LABELS = (30, 60, 100)


def human_label(annotations: Mapping[str, Any]) -> float:
    """Return the mean grade of the people who rated all aspects of an answer."""
    people = set.intersection(*(set(annotations[aspect]) for aspect in ASPECTS))
    return fmean(
        GRADES[min(int(annotations[aspect][person]["value"]) for aspect in ASPECTS)] for person in people
    )


def read_answers(folder: Path) -> tuple[list[str], dict[str, np.ndarray]]:
    """Return the conversation of each task, and of each model people's labels and all scores, float [scores, tasks]."""
    evaluations = json.loads((folder / FILE).read_text("utf-8"))["evaluations"]
    tasks = list(dict.fromkeys(one["task_id"] for one in evaluations))
    models = list(dict.fromkeys(one["model_id"] for one in evaluations))
    of = {(one["model_id"], one["task_id"]): one["annotations"] for one in evaluations}

    def scores(annotations: Mapping[str, Any]) -> list[float]:
        judged = [float(next(iter(annotations[name].values()))["value"]) for name in (*JUDGES, COMPUTED)]
        return [human_label(annotations), *judged]

    values = {model: np.array([scores(of[model, task]) for task in tasks]).T for model in models}
    return [task.partition("<")[0] for task in tasks], values


def grade_locally(folder: Path, model: str) -> dict[str, np.ndarray]:
    """Return the grades by a local judge of each task's answer by each model but the reference, float [tasks]."""
    from runners.inference.local import local_generator
    from runners.judging.asking import OpenJudge
    from runners.judging.prompts import GRADES as WORDS
    from runners.judging.prompts import GradedMaterial, grade_prompt, read_grade
    from runners.labels.records import GRADE_VALUE, Grade
    from runners.models.resolve import resolve_model

    content = json.loads((folder / FILE).read_text("utf-8"))
    tasks = {task["task_id"]: task for task in content["tasks"]}
    asked = [one for one in content["evaluations"] if one["model_id"] != "reference"]
    chats = []
    for one in asked:
        turns = tasks[one["task_id"]]["input"]
        material = GradedMaterial(
            question=turns[-1]["text"],
            before="\n".join(f"{turn['speaker']}: {turn['text']}" for turn in turns[:-1]),
            instructions="",
            gold=(tasks[one["task_id"]]["targets"][0]["text"],),
            answerable=True,
            passages=(),
        )
        chats.append(grade_prompt(material, one["model_response"]))
    said: dict[int, str] = {}
    judge = OpenJudge(name=model, generator=local_generator(resolve_model(model)), in_process=True)
    judge.ask(chats, WORDS, said.__setitem__)
    of_model: dict[str, list[float]] = {}
    for n, one in enumerate(asked):
        word = read_grade(said[n])
        of_model.setdefault(one["model_id"], []).append(GRADE_VALUE[cast(Grade, word)] if word else 0.5)
    return {name: np.array(values) for name, values in of_model.items()}


def rows_drawn(draw: np.random.Generator, conversations: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Return the tasks of conversations drawn with replacement, each draw a conversation of its own."""
    names = sorted(set(conversations))
    chosen = draw.integers(0, len(names), len(names))
    columns = [np.flatnonzero(np.asarray(conversations) == names[n]) for n in chosen]
    return np.concatenate(columns), [f"c{n}" for n, column in enumerate(columns) for _ in column]


def pair_row(
    values: Sequence[np.ndarray],
    judge: int,
    labels: int,
    conversations: Sequence[str],
    draws: int,
    fixed: bool,
) -> dict[str, Any]:
    """Return coverage of people's difference over all rows, and the width with and without the judge."""
    first, second = values
    people, scored = first[0] - second[0], first[judge] - second[judge]
    computed = np.abs(first[-1] - second[-1])
    draw, held, width, alone, tuning = np.random.default_rng([labels, judge]), 0, 0.0, 0.0, 0.0
    for _ in range(draws):
        rows, sources = np.arange(people.size), list(conversations)
        if not fixed:
            rows, sources = rows_drawn(draw, conversations)
        priorities, numbers = (1 + computed[rows]).tolist(), (1 - draw.random(rows.size)).tolist()
        done = np.zeros(rows.size, dtype=bool)
        done[priority_order(priorities, numbers)[:labels]] = True
        found = prediction_powered(
            LabelledDifferences(
                labels=[float(y) if known else None for y, known in zip(people[rows], done, strict=True)],
                predicted=scored[rows].tolist(),
                chances=label_chances(priorities, numbers, done.tolist())[0],
                questions=[str(n) for n in range(rows.size)],
                sources=sources,
                weights=[1.0] * rows.size,
            )
        )
        held += found.low <= people.mean() <= found.high
        width, alone, tuning = width + found.width, alone + found.alone, tuning + found.tuning
    return {
        "coverage": round(held / draws, 3),
        "width": round(width / draws, 3),
        "alone": round(alone / draws, 3),
        "tuning": round(tuning / draws, 2),
    }


def main() -> None:
    """Print a row for each pair of models, judge and number of labels."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--model", help="a known model with local weights, as the only judge")
    options = parser.parse_args()
    conversations, values = read_answers(options.folder)
    judges: Sequence[str] = JUDGES
    if options.model:
        judges = (options.model,)
        values = {
            model: np.array([values[model][0], grades, values[model][-1]])
            for model, grades in grade_locally(options.folder, options.model).items()
        }
    for a, b in itertools.combinations(values, 2):
        people = values[a][0] - values[b][0]
        for judge, name in enumerate(judges, 1):
            answers = np.concatenate([values[a], values[b]], axis=1)
            said = {
                "a": a,
                "b": b,
                "judge": name,
                "people": round(float(people.mean()), 3),
                "judged": round(float((values[a][judge] - values[b][judge]).mean()), 3),
                "correlation": round(
                    float(np.corrcoef(people, values[a][judge] - values[b][judge])[0, 1]), 2
                ),
                "J": round(youden_j(answers[0].tolist(), answers[judge].tolist()), 2),
            }
            for labels in LABELS:
                found = {
                    kind: pair_row(
                        (values[a], values[b]), judge, labels, conversations, options.draws, kind == "rows"
                    )
                    for kind in ("rows", "drawn")
                }
                print(json.dumps(said | {"labels": labels} | found), flush=True)


if __name__ == "__main__":
    main()
