"""The prediction of a plan, in a file of its own: NAME.forecast.json beside NAME.yaml.

A plan is whole without it; with it, the report holds the recommendation to account. The file holds a digest of the plan
that it was made for, so that a plan which was changed afterwards is noticed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rag.errors import BadInput
from rag.files import check_schema, parse_json, write_json

OUTDATED = "outdated"
"""Key of a prediction whose plan was changed after it was made; its value says so in words."""
NO_FORECAST = "no prediction is at hand: the plan was run without a forecast file"


def forecast_path(plan: Path) -> Path:
    """Return the file of a plan's prediction: plan.forecast.json for plan.yaml."""
    return plan.with_name(f"{plan.stem}.forecast.json")


def read_forecast(plan: Path, digest: str) -> dict[str, Any]:
    """Return the prediction beside a plan file, {} where there is none.

    Args:
        plan: the plan file.
        digest: what the plan does now (:meth:`runners.plan.schema.Plan.work_digest`); where the prediction was made for
            another, it gets the key :data:`OUTDATED`.

    Raises:
        BadInput: the file is damaged or was written by a newer version.
    """
    path = forecast_path(plan)
    if not path.is_file():
        return {}
    try:
        loaded = parse_json(path.read_text("utf-8"))
        body = check_schema(loaded, "forecast", path)
        predicted, made_for = dict(body["predicted"]), str(body["plan"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f"{path} is damaged: {error!r}", "remove it: the plan runs without its prediction"
        ) from None
    if made_for != digest:
        predicted[OUTDATED] = f"{plan.name} was changed after {path.name} was made"
    return predicted


def write_forecast(plan: Path, digest: str, predicted: dict[str, Any]) -> None:
    """Write the prediction beside a plan file, atomically; with an empty one, remove that of an earlier plan."""
    path = forecast_path(plan)
    if predicted:
        write_json(path, {"schema": 1, "plan": digest, "predicted": predicted})
    else:
        path.unlink(missing_ok=True)
