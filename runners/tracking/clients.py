"""The trackers: one class for each client, and the table of what each needs. A client is imported when its run begins.

The clients' own settings decide where things go: MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME, WANDB_MODE, WANDB_DIR,
WANDB_PROJECT, TRACKIO_SPACE_ID, TRACKIO_PROJECT. Without them everything stays in the folder of the run. What clients
report about the machine, the code, the command line or their own use is off unless its variable says otherwise.
"""

from __future__ import annotations

import logging
import netrc
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from runners.tracking.records import (
    WHOLE,
    End,
    MetricRow,
    Note,
    RunStatus,
    Summary,
    TrackedRun,
    Tracker,
    config_text,
)

PROJECT = "tunewise"
"""Project or experiment where the client's own variable names none."""
EXIT_CODES: dict[RunStatus, int] = {"finished": 0, "failed": 1, "killed": 130}
"""What wandb is told about the end: it shows every code but 0 as failed."""
WANDB_SETTINGS: Mapping[str, Any] = {
    "console": "off",
    "silent": True,
    "symlink": False,
    "disable_code": True,
    "disable_git": True,
    "disable_job_creation": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_disable_machine_info": True,
    "x_save_requirements": False,
    "init_timeout": 30,
}
"""Settings of wandb: it sends what it is given alone, prints nothing, and gives a silent server up after 30 s."""


class TensorBoardTracker(Tracker):
    """Event files that ``tensorboard --logdir`` shows, a folder for each run."""

    def __init__(self, folder: Path) -> None:
        """Write below a folder."""
        super().__init__(folder / "tensorboard")
        self._steps: dict[str, int] = {}

    def begin(self, run: TrackedRun, earlier: str, sent: int, parent: str) -> str:
        """Open an event file; in a continued run, steps after those recorded as sent are replaced by the new ones."""
        from torch.utils.tensorboard import SummaryWriter

        name = earlier or self._free_name(run.key or run.name)
        writer = SummaryWriter(str(self.folder / name), purge_step=sent + 1 if earlier else None)
        self._runs[run.key], self._steps[run.key] = writer, sent
        if not earlier:
            rows = "".join(f"| {key} | {config_text(value)} |\n" for key, value in run.config.items())
            writer.add_text("settings", f"| setting | value |\n| --- | --- |\n{rows}", 0)
        return name

    def _free_name(self, name: str) -> str:
        """Return a name for which no folder is there yet: event files of another run in it would be mixed with these."""
        number = 1
        while (self.folder / (name if number == 1 else f"{name}-{number}")).exists():
            number += 1
        return name if number == 1 else f"{name}-{number}"

    def log(self, rows: Sequence[MetricRow]) -> None:
        """Write the values of each row at its step."""
        for row in rows:
            for name, value in row.values.items():
                self._runs[row.key].add_scalar(name, value, row.step, walltime=row.time)
            self._steps[row.key] = row.step

    def summarise(self, summary: Summary) -> None:
        """Write final values at the last step, and texts."""
        writer, step = self._runs[summary.key], self._steps[summary.key]
        for name, value in summary.values.items():
            writer.add_scalar(name, value, step)
        for name, text in summary.tags.items():
            writer.add_text(name, text, step)

    def note(self, note: Note) -> None:
        """Write a note as text."""
        self._runs[note.key].add_text(f"notes/{note.kind}", note.text, note.step)

    def end(self, end: End) -> None:
        """Write how the run ended, and close its file."""
        writer = self._runs.pop(end.key)
        writer.add_text("state", end.status, self._steps[end.key])
        writer.close()

    def flush(self) -> None:
        """Write everything to the files."""
        for writer in self._runs.values():
            writer.flush()

    def location(self) -> str:
        """Return the command that shows the runs."""
        return f"tensorboard --logdir {self.folder}"


class WandbTracker(Tracker):
    """Weights & Biases: a run for each training, grouped under the name of the whole run."""

    def __init__(self, folder: Path) -> None:
        """Keep the client's files in a folder ``wandb`` below this one, unless WANDB_DIR names another."""
        super().__init__(folder)
        self._urls: list[str] = []

    def begin(self, run: TrackedRun, earlier: str, sent: int, parent: str) -> str:
        """Start a run; offline where no key is configured, so that nothing asks for one."""
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        self.folder.mkdir(parents=True, exist_ok=True)
        mode = os.environ.get("WANDB_MODE") or (None if _has_wandb_key(wandb) else "offline")
        options: dict[str, Any] = {"mode": mode}
        options |= {} if os.environ.get("WANDB_DIR") else {"dir": str(self.folder.resolve())}
        started = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            name=run.name,
            group=run.group or run.name,
            job_type="training" if run.key != WHOLE else "run",
            id=earlier or None,
            resume="allow" if earlier and mode != "offline" else None,
            config=dict(run.config),
            reinit="create_new",
            settings=wandb.Settings(**_wandb_privacy(wandb)),
            **options,
        )
        self._runs[run.key] = started
        self._urls += [started.url] if not (started.offline or self._urls) and started.url else []
        return str(started.id)

    def summarise(self, summary: Summary) -> None:
        """Put final results and texts into the run's summary."""
        self._runs[summary.key].summary.update({**summary.values, **summary.tags})

    def note(self, note: Note) -> None:
        """Add a line to the run's notes, and its kind to the tags."""
        run = self._runs[note.key]
        run.notes = "\n".join(filter(None, (run.notes, f"step {note.step}: {note.text}")))
        run.tags = tuple(dict.fromkeys((*(run.tags or ()), note.kind)))

    def end(self, end: End) -> None:
        """Finish the run with an exit code."""
        self._runs.pop(end.key).finish(exit_code=EXIT_CODES[end.status])

    def location(self) -> str:
        """Return the run's address, or the command that sends what was kept offline."""
        if self._urls:
            return self._urls[0]
        if os.environ.get("WANDB_MODE") == "disabled":
            return "switched off by WANDB_MODE"
        folder = Path(os.environ.get("WANDB_DIR") or self.folder) / "wandb"
        return f"kept offline; send it with: wandb sync {folder}/offline-run-*"


def _wandb_privacy(wandb: Any) -> dict[str, Any]:
    """Return the settings that keep machine, code, packages and console out of a run, those of this version alone.

    A setting stays as the user's variable has it: WANDB_CONSOLE, WANDB_X_DISABLE_STATS or WANDB__DISABLE_STATS, ...
    """
    return {
        name: value
        for name, value in WANDB_SETTINGS.items()
        if name in wandb.Settings.model_fields
        and f"WANDB_{name.upper()}" not in os.environ
        and f"WANDB_{name.removeprefix('x').upper()}" not in os.environ
    }


def _has_wandb_key(wandb: Any) -> bool:
    """Return whether the client can log in without asking: by variable, or by a key of its host in the netrc file."""
    if any(os.environ.get(name) for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")):
        return True
    host = urlsplit(wandb.setup().settings.base_url).hostname or ""
    files = (os.environ.get("NETRC"), Path.home() / ".netrc", Path.home() / "_netrc")
    for file in files:
        if file and Path(file).is_file():
            try:
                return netrc.netrc(str(file)).authenticators(host) is not None
            except (OSError, netrc.NetrcParseError):
                return False
    return False


class MlflowTracker(Tracker):
    """MLflow: the whole run as a parent, trainings nested in it; a batch of metrics is one request."""

    def __init__(self, folder: Path) -> None:
        """Use MLFLOW_TRACKING_URI; where it is not set, a database in a folder ``mlflow`` below this one.

        A folder of files as the store is in maintenance mode since MLflow 3 and refused.
        """
        super().__init__(folder / "mlflow")
        self._client: Any = None
        self._experiment = ""
        self._notes: dict[str, list[str]] = {}
        self._last: dict[tuple[str, str], int] = {}
        """The last step that the store holds of a run and series; it may know of more than was recorded here."""

    @property
    def uri(self) -> str:
        """The tracking URI."""
        return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(self.folder / 'mlflow.db').resolve()}"

    def begin(self, run: TrackedRun, earlier: str, sent: int, parent: str) -> str:
        """Create a run, or set the one that is continued running again; one that is gone is created anew."""
        client = self._connect()
        if earlier and self._is_there(earlier):
            client.update_run(earlier, status="RUNNING")
            self._runs[run.key] = earlier
            for series in ("train", "eval"):
                steps = [metric.step for metric in client.get_metric_history(earlier, f"{series}/loss")]
                self._last[run.key, series] = max(steps, default=0)
            return earlier
        from mlflow.entities import Param

        if run.key not in self._runs:  # it is there when only its parameters could not be sent
            tags = {"mlflow.source.name": PROJECT} | ({"mlflow.parentRunId": parent} if parent else {})
            self._runs[run.key] = client.create_run(
                self._experiment, run_name=run.name, tags=tags
            ).info.run_id
        params = [Param(name, _last_part(config_text(value), 6000)) for name, value in run.config.items()]
        client.log_batch(self._runs[run.key], params=params)
        return self._runs[run.key]

    def _connect(self) -> Any:
        """Return the client, and find or create the experiment."""
        if self._client is None:
            os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
            os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
            os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
            from mlflow.tracking import MlflowClient

            for name in ("mlflow", "alembic"):
                logging.getLogger(name).setLevel(logging.WARNING)
            own = not os.environ.get("MLFLOW_TRACKING_URI")
            if own:
                self.folder.mkdir(parents=True, exist_ok=True)
            client = MlflowClient(self.uri)
            self._experiment = os.environ.get("MLFLOW_EXPERIMENT_ID") or self._experiment_id(client, own)
            self._client = client
        return self._client

    def _experiment_id(self, client: Any, own: bool) -> str:
        """Return the id of the experiment by its name; one that is not there is created."""
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
        if (known := client.get_experiment_by_name(name)) is not None:
            return str(known.experiment_id)
        place = {"artifact_location": (self.folder / "artifacts").resolve().as_uri()} if own else {}
        return str(client.create_experiment(name, **place))

    def _is_there(self, run_id: str) -> bool:
        """Return whether the store holds a run: it may be another store than before."""
        from mlflow.exceptions import MlflowException

        try:
            self._client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False
        return True

    def log(self, rows: Sequence[MetricRow]) -> None:
        """Log rows in requests of at most 1,000 values, the most that MLflow takes."""
        from mlflow.entities import Metric

        metrics = [
            Metric(name, float(value), int(row.time * 1000), row.step)
            for row in rows
            if not row.series or row.step > self._last.get((row.key, row.series), 0)
            for name, value in row.values.items()
        ]
        for start in range(0, len(metrics), 1000):
            self._client.log_batch(self._runs[rows[0].key], metrics=metrics[start : start + 1000])

    def summarise(self, summary: Summary) -> None:
        """Log final results as metrics, and texts as tags."""
        run_id = self._runs[summary.key]
        self.log([MetricRow(summary.key, "", 0, summary.values)])
        for name, text in summary.tags.items():
            self._client.set_tag(run_id, f"{PROJECT}.{name}", _last_part(text))

    def note(self, note: Note) -> None:
        """Add a line to the run's description, and the text as a tag of its kind."""
        lines = self._notes.setdefault(note.key, [])
        lines.append(f"- step {note.step}: {note.text}")
        run_id = self._runs[note.key]
        self._client.set_tag(run_id, "mlflow.note.content", _last_part("\n".join(lines)))
        self._client.set_tag(run_id, f"{PROJECT}.{note.kind}", _last_part(note.text))

    def end(self, end: End) -> None:
        """Set the run's status."""
        self._client.set_terminated(self._runs.pop(end.key), status=end.status.upper())

    def may_repeat(self, error: Exception) -> bool:
        """Return whether the store could not be reached or was busy; a request that it refused is not sent again."""
        code = getattr(error, "error_code", "INTERNAL_ERROR")
        return code in ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED")

    def location(self) -> str:
        """Return the command that shows the runs, or the server's host."""
        if self.uri.startswith("sqlite:"):
            return f"mlflow ui --backend-store-uri {self.uri}"
        return f"the MLflow server {urlsplit(self.uri).hostname or ''}".rstrip()


def _last_part(text: str, longest: int = 5000) -> str:
    """Return a text that MLflow takes: the last part of a longer one, marked as such."""
    return text if len(text) <= longest else f"...{text[3 - longest :]}"


class TrackioTracker(Tracker):
    """Trackio: a local database, or a Space where TRACKIO_SPACE_ID names one."""

    def __init__(self, folder: Path) -> None:
        """Keep the database in a folder ``trackio`` below this one, unless TRACKIO_DIR names another."""
        super().__init__(folder / "trackio")

    def begin(self, run: TrackedRun, earlier: str, sent: int, parent: str) -> str:
        """Start a run, or continue the newest of this name."""
        os.environ.setdefault("TRACKIO_DIR", str(self.folder.resolve()))
        import trackio
        from trackio import context_vars

        context_vars.current_run.set(None)  # else init would finish the run that is open
        with redirect_stdout(sys.stderr):  # it prints, and a verb's result goes to stdout
            started = trackio.init(
                os.environ.get("TRACKIO_PROJECT") or PROJECT,
                name=run.name,
                group=run.group or run.name,
                config=dict(run.config),
                resume="allow" if earlier else "never",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        self._runs[run.key] = started
        return str(started.id)

    def summarise(self, summary: Summary) -> None:
        """Log final results and texts; it has no summary."""
        self._runs[summary.key].log({**summary.values, **summary.tags})

    def note(self, note: Note) -> None:
        """Log a note as a text."""
        self._runs[note.key].log({f"notes/{note.kind}": note.text}, step=note.step)

    def end(self, end: End) -> None:
        """Log how the run ended, and write out what waits."""
        run = self._runs.pop(end.key)
        run.log({"state": end.status})
        with redirect_stdout(sys.stderr):
            run.finish()

    def location(self) -> str:
        """Return the Space, or the command that shows the local runs."""
        if space := os.environ.get("TRACKIO_SPACE_ID"):
            return f"the Space {space}"
        project = os.environ.get("TRACKIO_PROJECT") or PROJECT
        return f"TRACKIO_DIR={os.environ.get('TRACKIO_DIR', self.folder)} trackio show --project {project}"


@dataclass(frozen=True, slots=True)
class TrackerKind:
    """A tracker that can be chosen; its extra has its name."""

    title: str
    modules: tuple[str, ...]
    """What its client needs, MLflow to keep its own database."""
    make: Callable[[Path], Tracker]
    """Function from the folder of the tracking files to the client."""


TRACKERS: Mapping[str, TrackerKind] = {
    "mlflow": TrackerKind("MLflow", ("mlflow", "sqlalchemy", "alembic"), MlflowTracker),
    "wandb": TrackerKind("Weights & Biases", ("wandb",), WandbTracker),
    "tensorboard": TrackerKind("TensorBoard", ("tensorboard",), TensorBoardTracker),
    "trackio": TrackerKind("Trackio", ("trackio",), TrackioTracker),
}


def required_modules(name: str) -> tuple[str, ...]:
    """Return the modules that a tracker needs here; with a server, MLflow needs no database of its own."""
    modules = TRACKERS[name].modules
    remote = os.environ.get("MLFLOW_TRACKING_URI", "").startswith(("http:", "https:", "databricks"))
    return modules[:1] if remote else modules
