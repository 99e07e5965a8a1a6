"""The work behind ``tunewise curve``: what is measured, the fitted curve, what more rows would bring, and the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advisor.advice import recommend
from advisor.display.progress import watch_progress
from advisor.drafting.draft import tuning_settings, with_full_paths
from advisor.flags.curve import CurveRequest
from advisor.output import note, open_console, print_plain
from advisor.report.learning_curve import arms_page, curve_page
from advisor.report.report import HTML, write_report
from advisor.terminal import resume_hint
from advisor.verdict.right_answers import right_answers
from advisor.verdict.sentences import duration_text
from advisor.workflows.curve_arms import arms_json, show_curve_arms, unmeasured_lines
from advisor.workflows.dry_run import step_estimates
from rag.errors import BadInput, UsageProblem
from rag.evaluation.statistics import bootstrap_interval
from rag.files import write_json, write_text
from rag.text.words import count_noun
from runners.plan.schema import Plan, read_plan
from runners.plan.steps import EvaluateStep, TrainStep
from runners.plan.train_config import TUNING_METHODS
from runners.run_folder import CURVES_FOLDER, RunFolder, is_run, read_run_plan
from runners.scoring.learning_curve import TYPICAL_SD, CurvePoint, LearningCurve, band_held
from runners.trial import curve as curves
from runners.trial.curve import point_seconds
from runners.trial.curve_points import CurvePointName

if TYPE_CHECKING:
    from rich.console import Console

    from runners.trial.curve import Curves, CurveSetup
    from runners.trial.trial import ArmScores

CURVE_FILE = "curve.json"
PAGE_FILE = "curve.html"
FEW_QUESTIONS = 30
SEEDS = 2
NOTHING = 0.01
"""Largest score of a curve that has learnt nothing: its forecast would be that of other curves."""
DEFAULT_MINUTES = 60.0
FORECAST_TIMES = (2, 4, 8)
"""Multiples of the rows at hand that are forecast."""
DRAWN_SIZES = 33
SPREAD_FREEDOM = 4.0
"""Weight, in trainings, of the typical spread between trainings beside that of a few seeds."""


def parse_sizes(text: str | None) -> tuple[int, ...]:
    """Return the sizes of ``--sizes 50,100,200``; UsageProblem names what is no number of rows."""
    if text is None:
        return ()
    sizes = []
    for part in text.split(","):
        if not part.strip().isdecimal() or not int(part):
            raise UsageProblem(
                f"--sizes: {part.strip()!r} is no number of rows", "for example --sizes 50,100,200"
            )
        sizes.append(int(part))
    return tuple(sizes)


def measure(request: CurveRequest) -> dict[str, Any]:
    """Measure a curve, or those of several arms, or go on with them, and return what ``curve --json`` prints.

    curve.json and the page are written for each arm, and for several once more for what they have together.

    Raises:
        UsageProblem: flags that exclude each other or leave nothing to measure.
        BadInput, CannotRun: as :func:`runners.trial.curve.open_curves`.
    """
    sizes = parse_sizes(request.sizes)
    _refuse_impossible(request)
    plan, run = _source(request)
    seeds = request.seeds if request.seeds is not None else SEEDS
    with (
        resume_hint(request.resume_line, "trained sizes and answers"),
        watch_progress(request.as_json) as watcher,
    ):
        opened = curves.open_curves(
            plan,
            run,
            request.out,
            request.arms,
            sizes,
            seeds,
            request.resume,
            request.overwrite,
            watcher,
        )
        for line in _announcement(opened, request):
            note(line)
        limit = request.minutes if request.minutes is not None else DEFAULT_MINUTES
        complete = curves.measure_curves(opened, None if request.seeds is not None else limit)
        scores = [curves.curve_scores_by_point(setup, complete) for setup in opened.setups]
    results = [
        curve_json(setup, complete, own, request.worth)
        for setup, own in zip(opened.setups, scores, strict=True)
    ]
    for result in results:
        _write_curve(Path(result["folder"]), result, curve_page(result))
    data = results[0]
    if opened.several:
        data = arms_json(opened, results, scores)
        _write_curve(opened.folder, data, arms_page(data))
    setup = opened.setups[0]
    together = opened.folder if opened.several else opened.folder.parent
    if setup.run is not None and together.resolve() == (setup.run / CURVES_FOLDER).resolve():
        data["report"] = _report_again(setup)
    return data


def _write_curve(folder: Path, data: dict[str, Any], page: str) -> None:
    write_json(folder / CURVE_FILE, data)
    write_text(folder / PAGE_FILE, page)


def _refuse_impossible(request: CurveRequest) -> None:
    files = {"--examples": request.examples, "--questions": request.questions, "--model": request.model}
    given = [flag for flag, value in (*files.items(), ("--method", request.method)) if value is not None]
    if request.target is not None and given:
        raise UsageProblem(
            f"{given[0]} and {request.target} exclude each other", "a plan or run names its own files"
        )
    if request.target is None and (request.examples is None or request.questions is None):
        raise UsageProblem(
            "nothing to measure a curve of",
            "name a run or a plan (tunewise curve RUN), or --examples FILE and --questions FILE",
        )
    if request.seeds is not None and request.seeds < 1:
        raise UsageProblem(f"--seeds {request.seeds} trains nothing", "1 or more")
    if request.minutes is not None and request.minutes <= 0:
        raise UsageProblem(f"--minutes {request.minutes:g} is too short", "more than 0")
    if request.minutes is not None and request.seeds is not None:
        raise UsageProblem(
            "--seeds and --minutes exclude each other", "--minutes decides how many seeds are trained"
        )
    if not 0 <= request.worth < 1:
        raise UsageProblem(
            f"--worth {request.worth:g} is not a score between 0 and 1", "from 0 to below 1, such as 0.01"
        )
    if request.resume and request.overwrite:
        raise UsageProblem("--resume and --overwrite exclude each other", "choose one")


def _source(request: CurveRequest) -> tuple[Plan, Path | None]:
    """Return the plan to take the arm from, and the run folder where there is one."""
    if request.target is None:
        return _drafted(request), None
    if is_run(request.target):
        return read_run_plan(request.target), request.target
    if request.target.is_dir():
        raise BadInput(f"{request.target} is not a run folder", "name a run, or a plan's file")
    return read_plan(request.target), None


def _drafted(request: CurveRequest) -> Plan:
    """Return the plan that ``tunewise plan`` drafts for the files, with the tuning method that was asked for."""
    method = request.method or "lora"
    if method not in TUNING_METHODS:
        raise UsageProblem(
            f"--method {method} is not a tuning method",
            f"choose one of {', '.join(TUNING_METHODS)}; other arms: draft a plan, and name it with --arm",
        )
    answers: dict[str, Any] = {"examples": request.examples, "questions": request.questions}
    recommendation = recommend(answers | ({"model": request.model} if request.model else {}))
    plan = with_full_paths(recommendation.plan())
    situation = recommendation.situation
    rows = situation.stats.examples.rows if situation and situation.stats.examples else ()
    settings = tuning_settings(method, len(rows), recommendation.profile)
    steps = (TrainStep(arm=method, method=method, **settings), EvaluateStep(arm=method, weights=method))
    return plan.model_copy(update={"steps": steps, "choice": method})


def _announcement(opened: Curves, request: CurveRequest) -> list[str]:
    """Return what is going to be measured, in lines."""
    setup = opened.setups[0]
    arms = ", ".join(each.arm.arm for each in opened.setups)
    sizes = ", ".join(map(str, setup.sizes))
    part = (
        "test questions of its trial"
        if setup.part == "test"
        else "dev questions; test questions are not read"
    )
    seeds = f"{len(setup.seeds)} seed{'s' if len(setup.seeds) > 1 else ''}"
    if request.seeds is None:
        limit = request.minutes if request.minutes is not None else DEFAULT_MINUTES
        seeds = f"1 seed, {len(setup.seeds)} if {limit:g} minutes suffice (--minutes, --seeds)"
    lines = [f"{arms} on {sizes} of {len(setup.rows)} rows, {seeds}; {len(setup.questions)} {part}"]
    seconds = {each.arm.arm: estimated_seconds(each) for each in opened.setups}
    each_arm = ", ".join(f"{arm} {duration_text(value)}" for arm, value in seconds.items())
    by_arm = f" ({each_arm})" if opened.several else ""
    lines.append(f"estimated for the first seed: about {duration_text(sum(seconds.values()))}{by_arm}")
    lines += unmeasured_lines(opened)
    for each in opened.setups:
        own = f"{each.arm.arm}: " if opened.several else ""
        if each.reused(CurvePointName(each.arm.arm, len(each.rows), each.seeds[0])):
            lines.append(
                f"{own}all {count_noun(len(each.rows), 'row')} with seed {each.seeds[0]}: taken from the run, "
                "not trained again"
            )
        lines += [line for line in each.notes if line not in lines]
    return lines


def estimated_seconds(setup: CurveSetup) -> float:
    """Return the estimated seconds of a curve's first seed: training by rows, and the answers of each size."""
    rows, _ = step_estimates(setup.source, len(setup.rows), len(setup.questions))
    seconds = {row.step: row.corrected for row in rows}
    train, ask = seconds.get(f"train:{setup.arm.weights}", 0.0), seconds.get(f"evaluate:{setup.arm.arm}", 0.0)
    names = [name for name in setup.names(setup.seeds[0]) if not setup.reused(name)]
    return sum(train * name.rows / len(setup.rows) + ask for name in names)


def curve_json(
    setup: CurveSetup, seeds: Sequence[int], scores: dict[CurvePointName, ArmScores], worth: float
) -> dict[str, Any]:
    """Return the measured points, the fitted curve and what it forecasts, as curve.json holds them."""
    import numpy as np

    points, noise = _points(setup, seeds, scores)
    curve = LearningCurve([point for point, _ in points], noise=noise)
    most = points[-1][0].n
    drawn = np.geomspace(points[0][0].n, max(FORECAST_TIMES[0], 4) * most, DRAWN_SIZES)
    stop = curve.stop_size(worth)
    gain = curve.gain(most, 2 * most, worth)
    data: dict[str, Any] = {
        "schema": 1,
        "name": setup.source.name,
        "arm": setup.arm.arm,
        "model": setup.source.model_of(setup.arm).name,
        "score": "combined",
        "rows": len(setup.rows),
        "questions": {"n": len(setup.questions), "part": setup.part},
        "seeds": list(seeds),
        "points": [row for _, row in points],
        "doubling": gain.to_json(),
        "forecast": [
            row.to_json() | {"held": list(band_held(times))}
            for times, row in zip(
                FORECAST_TIMES, curve.forecast([most * times for times in FORECAST_TIMES]), strict=True
            )
        ],
        "fitted": [
            row.to_json() | {"n": round(row.n, 1)} for row in curve.forecast([float(n) for n in drawn])
        ],
        "stop": {"n": None if stop is None else int(stop), "worth": worth},
        "seconds": round(sum(row["seconds"] for _, row in points), 1),
        "warnings": _warnings(setup, seeds, [row["score"] for _, row in points]),
        "folder": str(setup.context.folder.path),
    }
    data["text"] = conclusion_text(data)
    return data


def _points(
    setup: CurveSetup, seeds: Sequence[int], scores: dict[CurvePointName, ArmScores]
) -> tuple[list[tuple[Any, dict[str, Any]]], Any]:
    """Return (point, its row of the JSON) of each size, and the covariance of the points' scores.

    All sizes answer the same questions, so the covariance over questions of their scores is known, and only the spread
    between trainings has to be assumed where there are few seeds: the typical one counts as :data:`SPREAD_FREEDOM`
    trainings.
    """
    import numpy as np

    by_size = [[scores[CurvePointName(setup.arm.arm, size, seed)] for seed in seeds] for size in setup.sizes]
    values = np.array([np.mean([arm.shown("combined") for arm in arms], axis=0) for arms in by_size])
    means = [[arm.mean_score for arm in arms] for arms in by_size]
    away = sum((mean - np.mean(row)) ** 2 for row in means for mean in row)
    freedom = len(means) * (len(seeds) - 1)
    spread = float(np.sqrt((SPREAD_FREEDOM * TYPICAL_SD**2 + away) / (SPREAD_FREEDOM + freedom)))
    points = []
    for size, arms, row in zip(setup.sizes, by_size, values, strict=True):
        interval = bootstrap_interval(
            [float(v) for v in row],
            documents=arms[0].sources(),
            weights=arms[0].weights_by_question("combined"),
        )
        names = [CurvePointName(setup.arm.arm, size, seed) for seed in seeds]
        right = [counted.n for counted in map(right_answers, arms) if counted]
        measured = {
            "n": size,
            "score": round(float(np.mean([arm.mean_score for arm in arms])), 4),
            "low": round(max(0.0, interval.low), 4),
            "high": round(min(1.0, interval.high), 4),
            "by_seed": {str(seed): round(arm.mean_score, 4) for seed, arm in zip(seeds, arms, strict=True)},
            "right": round(sum(right) / len(right), 1) if right else None,
            "of": len(setup.questions),
            "seconds": round(sum(point_seconds(setup, name) for name in names), 1),
            "from_run": sum(setup.reused(name) for name in names),
        }
        point = CurvePoint(size, float(np.mean([arm.mean_score for arm in arms])), spread, len(seeds))
        points.append((point, measured))
    covariance = np.atleast_2d(np.cov(values)) / values.shape[1]
    return points, covariance + spread**2 / len(seeds) * np.eye(len(points))


def _warnings(setup: CurveSetup, seeds: Sequence[int], scores: Sequence[float]) -> list[str]:
    lines = []
    if len(setup.sizes) < 4:
        lines.append(
            f"{len(setup.sizes)} sizes: most of the forecast is what published curves do, not what this one does"
        )
    if len(setup.questions) < FEW_QUESTIONS:
        lines.append(
            f"{count_noun(len(setup.questions), 'question')}: 30 or more are needed to see a small gain"
        )
    if len(seeds) == 1:
        lines.append("one seed: the spread between trainings is assumed (.02), not measured")
    if setup.part == "dev":
        lines.append("scored on dev questions, by which a plan makes its choices; a trial asks other ones")
    if max(scores) - scores[-1] > 0.02:
        lines.append("a smaller size scored higher than all rows: noise, or rows that contradict each other")
    return [*lines, *setup.notes]


def conclusion_text(data: dict[str, Any]) -> str:
    """Return what doubling would bring and when to stop labelling, in plain sentences."""
    gain, stop, rows = data["doubling"], data["stop"], data["points"][-1]["n"]
    if max(row["score"] for row in data["points"]) <= NOTHING:
        return (
            f"No size scored above {NOTHING}: nothing was learnt that these questions ask for, so it is not known whether "
            "more examples would help. Look at the answers first."
        )
    worth = f"{gain['worth']:.2g}"
    first = (
        f"From {gain['from']:,} to {gain['to']:,} rows: {gain['median']:+.2f} [{gain['low']:+.2f}, {gain['high']:+.2f}], "
        f"chance {gain['chance']:.1f} of more than {worth}."
    )
    if stop["n"] is None:
        return f"{first} More rows are worth labelling, as far as this forecast goes (8 times as many)."
    if stop["n"] <= rows:
        full = 1 - data["points"][-1]["score"] < gain["worth"]
        why = " These questions leave nothing to gain; harder ones would show a difference." if full else ""
        return f"{first} Stop labelling: another doubling more likely adds less than {worth}.{why}"
    return f"{first} Label up to about {stop['n']:,} rows; the doubling after that more likely adds less than {worth}."


def _report_again(setup: CurveSetup) -> str:
    """Write the run's report again, with the curve; return its path."""
    assert setup.run is not None
    run = RunFolder(setup.run)
    with run.writing():
        write_report(run, setup.source, setup.questions)
    return str(setup.run / HTML)


def show_curve(data: dict[str, Any], console: Console | None = None) -> None:
    """Print the points with their intervals, the conclusion, the warnings and where the page is; of several arms a table."""
    from rich.table import Table

    console = console or open_console()
    if "arms" in data:
        show_curve_arms(data, console)
        _show_end(data, console)
        return
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for title in ("rows", "combined", "95 % interval", "right", "trained in"):
        table.add_column(title, justify="right")
    for row in data["points"]:
        interval = f"{row['low']:.2f}–{row['high']:.2f}"
        right = "–" if row["right"] is None else f"{row['right']:g} of {row['of']}"
        took = f"{row['seconds']:.0f} s" if row["seconds"] else "the run"
        table.add_row(f"{row['n']:,}", f"{row['score']:.3f}", interval, right, took)
    for row in data["forecast"]:
        table.add_row(
            f"{row['n']:,}",
            f"{row['median']:.3f}",
            f"{row['low']:.2f}–{row['high']:.2f}",
            "forecast, held in {:.0f} %".format(100 * row["held"][0] / row["held"][1]),
            "",
        )
    console.print(table)
    print_plain(console, data["text"])
    _show_end(data, console)


def _show_end(data: dict[str, Any], console: Console) -> None:
    """Print the warnings and where the page is."""
    for warning in data["warnings"]:
        print_plain(console, f"  warning: {warning}", "yellow")
    shown = data.get("report") or str(Path(data["folder"]) / PAGE_FILE)
    print_plain(console, f"drawn in: {shown}")
