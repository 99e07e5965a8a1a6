"""The training loop: micro-batches, memory that runs out, validation, divergence, resuming and full disks."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rag.errors import BadInput, CannotRun
from runners.data.examples import Example
from runners.distributed.wrapping import Step, WrappedStep
from runners.models.resolve import Model
from runners.plan.train_config import TrainConfig
from runners.preflight import run_checks
from runners.tokenization.chat_template import ChatTokenizer, EncodedRow
from runners.train import fit, work_folder
from runners.training import checkpoint, loop, lora, loss, runtime, schedule
from runners.training.checkpoint import TrainingProgress
from runners.training.loop import TrainingLoop
from runners.training.loss import TrainingLoss
from runners.training.optimizer import MasterOptimizer
from runners.training.session import TOKENIZER, TrainingJob

CONFIG = TrainConfig(epochs=2.0, rank=4, alpha=8.0, learning_rate=1e-2, batch_tokens=400, micro_tokens=4096)
CPU_OUT_OF_MEMORY = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
    "allocate 1099511627776 bytes. Error code 12 (Cannot allocate memory)"
)
CUDA_OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@dataclass
class Limit:
    """How many rows memory holds at once, what is raised for more, and how many rows were given each time."""

    rows: int = 10**9
    error: Exception = CPU_OUT_OF_MEMORY
    given: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class LimitedLoss(TrainingLoss):
    """A loss that runs out of memory for more rows than its limit has."""

    limit: Limit = field(default_factory=Limit)

    def __call__(self, rows: Sequence[EncodedRow]) -> Tensor:
        self.limit.given.append(len(rows))
        total = TrainingLoss.__call__(self, rows)
        if len(rows) > self.limit.rows and torch.is_grad_enabled():
            (total / 3).backward()  # memory may run out when some gradients were computed already
            raise self.limit.error
        return total


@dataclass
class WatchedLoop(TrainingLoop):
    """A training loop with its limit and its events."""

    limit: Limit = field(default_factory=Limit)
    events: list[dict[str, Any]] = field(default_factory=list)


Make = Callable[..., WatchedLoop]


@pytest.fixture
def make(tiny: Model, examples: tuple[Example, ...], tmp_path: Path) -> Make:
    """Return a factory of training loops in fp32 on the tiny model; ``most_rows`` is what memory allows at once."""

    def make_loop(
        config: TrainConfig = CONFIG,
        most_rows: int = 10**9,
        valid: int = 0,
        error: Exception = CPU_OUT_OF_MEMORY,
    ) -> WatchedLoop:
        used, _ = run_checks.inspect_rows(examples, ChatTokenizer(tiny.folder), config)
        rows = list(used)
        checkpoint.seed_everything(config.seed)
        net = lora.prepare_model(tiny, config, dtype="float32")
        chosen = runtime.choose_runtime(tiny, config, rows, "identity")
        real = loss.choose_loss(net, rows)
        optimizer = MasterOptimizer(
            lora.trainable_parameters(net), config.learning_rate, config.weight_decay, config.max_grad_norm
        )
        passes = schedule.plan_steps(
            [len(row.ids) for row in rows[valid:]], config.batch_tokens, config.epochs, config.seed
        )
        events: list[dict[str, Any]] = []
        work = tmp_path / f"work{len(list(tmp_path.iterdir()))}"
        work.mkdir()
        limit = Limit(most_rows, error)
        return WatchedLoop(
            config=config,
            net=net,
            loss=LimitedLoss(**{each.name: getattr(real, each.name) for each in fields(real)}, limit=limit),
            optimizer=optimizer,
            rows=rows[valid:],
            valid=rows[:valid],
            passes=passes,
            work=work,
            progress=TrainingProgress("identity"),
            choices=chosen,
            on_event=events.append,
            limit=limit,
            events=events,
        )

    return make_loop


def events(run: WatchedLoop, name: str) -> list[dict[str, Any]]:
    """Return the events of a run that have this name."""
    return [event for event in run.events if event["event"] == name]


def assert_close(one: TrainingLoop, two: TrainingLoop) -> None:
    """Assert that two runs agree within 1e-5 in every loss and weight."""
    assert one.progress.losses == pytest.approx(two.progress.losses, abs=1e-5)
    a, b = one.optimizer.weights(), two.optimizer.weights()
    assert max(float((a[name] - b[name]).abs().max()) for name in a) < 1e-5


def test_micro_batch_split_does_not_change_the_step(make: Make) -> None:
    """Not even when the micro-batches differ in target tokens, which a mean of means would show."""
    together, apart = make(), make()
    eight = [list(range(start, start + 8)) for start in (0, 8, 16)]
    length = max(len(row.ids) for row in together.rows)
    for run, tokens in ((together, 8 * length), (apart, 2 * length)):
        run.passes = [eight, eight]
        run.micro.sizes[:] = [(0, tokens)]
        run.micro.shared = lambda rows: 0  # counts every row in full, so that two are two
        run.run()
    assert set(together.limit.given) == {8}
    assert set(apart.limit.given) == {2}
    assert len({len(row.learnt) for row in together.rows}) > 1
    assert_close(together, apart)


@pytest.mark.parametrize("error", [CPU_OUT_OF_MEMORY, CUDA_OUT_OF_MEMORY, MemoryError()])
def test_out_of_memory_halves_micro_batch_and_keeps_result(make: Make, error: Exception) -> None:
    unlimited, limited = make(valid=4), make(valid=4, most_rows=3, error=error)
    for run in (unlimited, limited):
        run.run()
    assert_close(unlimited, limited)
    assert unlimited.progress.valid == pytest.approx(limited.progress.valid, abs=1e-5)
    halvings = events(limited, "train.memory")
    assert 1 <= len(halvings) <= runtime.MAX_HALVINGS
    assert halvings[-1]["tokens"] < CONFIG.micro_tokens
    assert not events(unlimited, "train.memory")
    assert any("out of memory at step 1" in note for note in limited.result(Path(), 0).notes)
    choices = runtime.recorded_choices(limited.work)
    assert choices is not None
    assert choices.sizes == limited.micro.sizes


def test_micro_batch_sizes_hold_from_their_step_on() -> None:
    sizes = runtime.MicroBatchSize([(0, 2048), (7, 500), (9, 200)])
    assert [sizes.tokens_at(step) for step in (0, 6, 7, 8, 9, 50)] == [2048, 2048, 500, 500, 200, 200]


def test_single_row_out_of_memory_suggests_shorter_max_tokens(make: Make) -> None:
    run = make(most_rows=0)
    with pytest.raises(CannotRun, match=r"not enough memory for one row of \d+ tokens at step 1") as stopped:
        run.run()
    assert stopped.value.exit_code == 4
    assert "--max-tokens" in stopped.value.hint
    assert run.config.max_tokens == CONFIG.max_tokens
    assert not run.progress.losses


def test_out_of_memory_after_steps_leaves_a_checkpoint(make: Make) -> None:
    run = make(CONFIG.replace(checkpoint_steps=0))

    def limit_after_three(event: dict[str, Any]) -> None:
        if event.get("step") == 3:
            run.limit.rows = 0

    run.on_event = limit_after_three
    with pytest.raises(CannotRun, match="at step 4"):
        run.run()
    folder, _ = checkpoint.newest_checkpoint(run.work)
    assert folder is not None
    assert checkpoint.read_progress(folder).step == 3


def test_halving_stops_after_six() -> None:
    sizes = runtime.MicroBatchSize([(0, 4096)])
    for number in range(runtime.MAX_HALVINGS):
        sizes._halve(4096 >> number, 2, number, "full")
    with pytest.raises(CannotRun, match="after 6 smaller tries"):
        sizes._halve(64, 2, 7, "full")


def test_other_errors_are_not_treated_as_out_of_memory(make: Make) -> None:
    with pytest.raises(RuntimeError, match="shape"):
        make(most_rows=1, error=RuntimeError("shape mismatch")).run()


def test_validation_runs_every_eval_steps_and_at_the_end(make: Make) -> None:
    run = make(CONFIG.replace(eval_steps=3, patience=99), valid=4)
    run.run()
    total = len(run.steps)
    assert [event["step"] for event in events(run, "train.eval")] == [*range(3, total, 3), total]
    assert run.validation_steps == [*range(3, total, 3), total]
    assert [row["step"] for row in run.log() if "valid_loss" in row] == run.validation_steps
    passes = make(valid=4)
    assert passes.validation_steps == [len(passes.passes[0]), total]
    now = run.optimizer.weights()
    checkpoint.restore_best_weights(run.work, run.progress.best_step or 0, run.optimizer)
    best = run.optimizer.weights()
    assert all(torch.equal(best[name], now[name]) for name in now)


def test_gradient_norm_is_recorded_before_clipping(make: Make) -> None:
    run = make(CONFIG.replace(max_grad_norm=1e-3))
    seen: list[float] = []
    real = run.optimizer.step

    class Watched(MasterOptimizer):
        def __init__(self) -> None:
            self.__dict__ = run.optimizer.__dict__

        def step(self, factor: float) -> float:
            norm = real(factor)
            seen.append(norm)
            return norm

    run.optimizer = Watched()
    run.run()
    assert seen == run.progress.norms
    assert min(seen) > 1e-3


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([2.0] * 20, 0),
        ([2.0] * 20 + [9.0], 1),
        ([2.0] * 20 + [9.0] * 4, 4),
        ([2.0] * 20 + [9.0] * 9, 5),
        ([2.0] * 20 + [9.0] * 5 + [2.0], 0),
        ([2.0] * 20 + [7.9] * 9, 0),
        ([9.5] + [2.0] * 20 + [9.0] * 9, 0),
        ([2.0, 90.0, 90.0, 90.0, 90.0, 90.0], 0),
        ([], 0),
    ],
)
def test_diverging_steps_counts_sustained_high_losses_only(losses: list[float], expected: int) -> None:
    assert loop.diverging_steps(losses) == expected


def test_loss_rise_note_needs_enough_steps() -> None:
    assert (
        loop.loss_rise_note(2.0, 2.4, loop.MIN_JUDGED_STEPS)
        == "the loss rose from 2 to 2.4: lower the learning rate"
    )
    assert loop.loss_rise_note(2.0, 2.4, loop.MIN_JUDGED_STEPS - 1) == ""
    assert loop.loss_rise_note(2.4, 2.0, 500) == ""


@dataclass
class DivergingLoss:
    """A loss that is multiplied by ``times`` after a number of micro-batches."""

    inner: Any
    after: int
    times: float
    path: str = "plain"
    reason: str = ""
    calls: int = 0

    def shared(self, rows: Sequence[EncodedRow]) -> int:
        """Return the shared tokens of the inner loss."""
        count: int = self.inner.shared(rows)
        return count

    def __call__(self, rows: Sequence[EncodedRow]) -> Tensor:
        self.calls += 1
        total: Tensor = self.inner(rows)
        return total * self.times if self.calls > self.after else total


@pytest.mark.parametrize(
    ("times", "reason", "step"), [(math.nan, "the loss is nan", 13), (50.0, "above 4 times", 17)]
)
def test_divergence_stops_and_names_last_good_checkpoint(
    make: Make, times: float, reason: str, step: int
) -> None:
    run = make(CONFIG.replace(checkpoint_steps=2, epochs=4.0))
    run.compute = WrappedStep(Step(run.net, DivergingLoss(run.loss, 12, times)))
    with pytest.raises(BadInput) as stopped:
        run.run()
    assert f"diverged at step {step}" in stopped.value.message
    assert reason in stopped.value.message
    assert str(run.work / "step-000012") in stopped.value.message
    assert "learning rate" in stopped.value.hint
    assert stopped.value.exit_code == 3
    newest, _ = checkpoint.newest_checkpoint(run.work)
    assert newest is not None
    assert newest.name == "step-000012"


def test_non_finite_gradient_stops_before_the_checkpoint(make: Make) -> None:
    run = make(CONFIG.replace(checkpoint_steps=1))
    names = list(run.optimizer.params)

    def poison(event: dict[str, Any]) -> None:
        if event.get("event") == "train.checkpoint" and event["step"] == 2:
            run.optimizer.params[names[0]].register_hook(lambda grad: grad * math.inf)

    run.on_event = poison
    with pytest.raises(BadInput, match=r"step 3: the gradient's norm is (inf|nan)"):
        run.run()
    newest, _ = checkpoint.newest_checkpoint(run.work)
    assert newest is not None
    assert newest.name == "step-000002"


def test_resume_reuses_choices_and_reports_changed_machine(
    tiny: Model, examples: tuple[Example, ...], tmp_path: Path
) -> None:
    out = tmp_path / "out"

    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "train.step" and event["step"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(examples, CONFIG, tiny, out, on_event=stop)
    work = work_folder(out)
    choices = runtime.recorded_choices(work)
    assert choices is not None
    choices.path, choices.reason, choices.dtype = "plain", "chosen by the test", "float32"
    choices.machine["threads"] = 77
    choices.sizes.append((4, 100))
    choices.write(work)
    emitted: list[dict[str, Any]] = []
    result = fit(examples, CONFIG, tiny, out, on_event=emitted.append, resume=True)
    assert (result.path, "chosen by the test" in result.notes) == ("plain", True)
    assert any("100 tokens" in note for note in result.notes)
    moved = [event["reason"] for event in emitted if event["event"] == "train.moved"]
    assert len(moved) == 1
    assert "threads was 77" in moved[0]


def test_restart_names_changed_settings(tiny: Model, examples: tuple[Example, ...], tmp_path: Path) -> None:
    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "train.step":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(examples, CONFIG, tiny, tmp_path / "out", on_event=stop)
    emitted: list[dict[str, Any]] = []
    fit(
        examples,
        CONFIG.replace(rank=2, epochs=1.0),
        tiny,
        tmp_path / "out",
        on_event=emitted.append,
        resume=True,
    )
    reasons = [event["reason"] for event in emitted if event["event"] == "train.restart"]
    assert reasons == ["epochs was 2.0, is 1.0; rank was 4, is 2"]
    emitted.clear()
    fit(examples, CONFIG.replace(epochs=1.0), tiny, tmp_path / "out", on_event=emitted.append, resume=True)
    reasons = [event["reason"] for event in emitted if event["event"] == "train.restart"]
    assert reasons == [f"rank was 2, is 4; {tmp_path / 'out'} stays until its successor is whole"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.fixture
def order(tiny: Model, examples: tuple[Example, ...], tmp_path: Path) -> dict[str, Any]:
    """The training run of a child process."""
    (tmp_path / "rows.json").write_text(json.dumps([e.messages for e in examples]), "utf-8")
    settings = {"epochs": 2.0, "rank": 4, "learning_rate": 1e-2, "batch_tokens": 400, "checkpoint_steps": 2}
    return {
        "rows": str(tmp_path / "rows.json"),
        "valid": 0,
        "model": str(tiny.folder),
        "out": str(tmp_path / "out"),
        "config": settings,
    }


SMALL = 20_000
"""Most bytes of a file. The limit simulates a full disk: the system refuses in the middle of a file."""


def test_full_disk_keeps_the_previous_checkpoint_usable(
    warm: Any, order: dict[str, Any], tmp_path: Path
) -> None:
    log, work = tmp_path / "log", work_folder(tmp_path / "out")
    warm.start(fit=order, log=str(log), die_at=110, under=str(work))
    assert warm.wait() < 0
    before, _ = checkpoint.newest_checkpoint(work)
    assert before is not None
    warm.start(fit=order, log=str(log), file_limit=SMALL)
    assert warm.wait() == 4
    message = log.read_text("utf-8").splitlines()[-1]
    assert "no space left" in message
    assert str(before) in message
    assert checkpoint.newest_checkpoint(work) == (before, [])
    assert not list(work.glob(".step*"))
    warm.start(fit=order, log=str(log))
    assert warm.wait() == 0


def test_full_disk_at_publishing_leaves_no_partial_result(
    warm: Any, order: dict[str, Any], tmp_path: Path
) -> None:
    order["config"]["checkpoint_steps"] = 0
    log, out = tmp_path / "log", tmp_path / "out"
    # More than the tokenizer takes, which is written first, and less than the weights.
    warm.start(fit=order, log=str(log), file_limit=3 * SMALL // 4)
    assert warm.wait() == 4
    assert "no space left" in log.read_text("utf-8").splitlines()[-1]
    assert not out.exists()
    assert not (work_folder(out) / "out").exists()


def test_job_is_the_same_in_every_process(tiny: Model, examples: tuple[Example, ...], tmp_path: Path) -> None:
    """What rank 0 broadcasts as JSON is read as what it trains itself."""
    rows = list(run_checks.inspect_rows(examples, ChatTokenizer(tiny.folder), CONFIG)[0])
    job = TrainingJob(
        rows=rows[1:],
        valid=rows[:1],
        config=CONFIG,
        base=tiny,
        out=tmp_path / "out",
        work=tmp_path / "work",
        identity="identity",
        loss_scale=256.0,
    )
    received = TrainingJob.from_json(json.loads(json.dumps(job.to_json())))
    assert len(rows) > 2
    assert received == replace(job, base=replace(tiny, folder=tiny.folder.absolute()))


def test_tokenizer_is_written_before_the_model_is_in_memory(
    tiny: Model, examples: tuple[Example, ...], tmp_path: Path
) -> None:
    """Beside the model it was the peak of a training of gemma-3-270m: 1.46 GiB of its own, and 1.10 estimated."""
    out = tmp_path / "out"
    seen: list[tuple[str, bytes]] = []

    def look(event: dict[str, Any]) -> None:
        if event["event"] == "train.start":
            folder = work_folder(out) / TOKENIZER
            seen.extend((file.name, file.read_bytes()) for file in sorted(folder.iterdir()))

    fit(examples, CONFIG.replace(epochs=1.0), tiny, out, on_event=look)
    assert {"tokenizer.json", "tokenizer_config.json"} <= {name for name, _ in seen}
    assert all((out / name).read_bytes() == content for name, content in seen)
