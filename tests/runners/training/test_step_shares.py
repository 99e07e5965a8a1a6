"""The share of each process in a step of a group, without any process: rows, passes, seeds, and what failures leave."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rag.errors import CannotRun, UsageProblem
from runners.distributed import environment
from runners.distributed.environment import RestartGroup
from runners.distributed.process_group import ProcessGroup, is_lost_group, problem_from_json, problem_to_json
from runners.models.resolve import Model
from runners.plan.train_config import TrainConfig
from runners.resources.memory_estimate import node_replicas
from runners.resources.model_shape import read_shape
from runners.tokenization.chat_template import EncodedRow
from runners.training import checkpoint, runtime
from runners.training.gradient_checkpointing import CheckpointingChoice, run_setup
from runners.training.group import parallel_choice, step_shares
from runners.training.group.parallel_choice import GroupMemory

LENGTHS = st.lists(st.integers(2, 300), min_size=1, max_size=40)


def row(length: int) -> EncodedRow:
    """Return a row of so many tokens."""
    return EncodedRow(tuple(range(length)), (length - 1,), 1)


@given(LENGTHS, st.integers(1, 9))
def test_rows_are_cut_into_runs_of_about_equal_tokens(lengths: list[int], processes: int) -> None:
    runs = step_shares.split_rows(lengths, processes)
    order = [i for run in runs for i in run]
    assert order == sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    assert len(runs) == processes
    share = sum(lengths) / processes
    # A row is placed by its middle, so a run is off by half a row at each end.
    assert all(abs(sum(lengths[i] for i in run) - share) <= max(lengths) for run in runs)


@given(LENGTHS, st.integers(1, 9), st.integers(2, 500))
def test_all_processes_take_equally_many_passes_and_every_row_counts_once(
    lengths: list[int], processes: int, most: int
) -> None:
    rows = [row(length) for length in lengths]
    planned = step_shares.plan_passes(rows, lambda _: 0, most, processes)
    assert len({len(passes) for passes in planned}) == 1
    counted = [id(each) for passes in planned for one in passes if one.weight for each in one.rows]
    assert sorted(counted) == sorted(map(id, rows))
    assert all(one.rows for passes in planned for one in passes), "a pass without rows has no loss"


def test_processes_draw_other_numbers_and_rank_0_those_of_one_process() -> None:
    seeds = {step_shares.process_seed(seed, rank) for seed in (0, 1, -5) for rank in range(4)}
    assert len(seeds) == 12
    assert step_shares.process_seed(7, 0) == 7
    for seed in seeds:
        torch.manual_seed(seed)


def choices() -> runtime.RuntimeChoices:
    """Return choices of a run with passes of 400 tokens."""
    return runtime.RuntimeChoices("identity", {}, "float32", CheckpointingChoice(False, ""), sizes=[(0, 400)])


def fail(work: Path, rank: int, rows: int, step: int, error: Exception) -> RestartGroup:
    """Let memory run out in a process of two and return what it raises."""
    micro = runtime.MicroBatchSize([(0, 400)])
    with (
        pytest.raises(RestartGroup) as raised,
        step_shares.failure_recorded(ProcessGroup(rank, 2), work, step, micro, [row(100)] * rows),
    ):
        raise error
    return raised.value


def test_smallest_size_of_all_processes_holds_after_a_restart(tmp_path: Path) -> None:
    error = fail(tmp_path, 1, 4, 3, torch.OutOfMemoryError("CUDA out of memory"))
    assert "process 1 of 2 ran out of memory at step 4" in error.message
    assert "200 tokens" in error.hint
    fail(tmp_path, 0, 2, 3, MemoryError())
    chosen = choices()
    notes = step_shares.apply_failures(tmp_path, chosen)
    assert chosen.sizes == [(0, 400), (3, 100)]
    assert "100 tokens" in notes[0]
    assert not list(tmp_path.glob("memory-*"))
    assert step_shares.apply_failures(tmp_path, chosen) == []
    recorded = runtime.recorded_choices(tmp_path)
    assert recorded is not None
    assert recorded.sizes == chosen.sizes


def test_one_row_that_does_not_fit_ends_the_restarts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail(tmp_path, 1, 1, 3, torch.OutOfMemoryError("CUDA out of memory"))
    assert step_shares.apply_failures(tmp_path, choices()) == [], (
        "a person who starts it again may have more memory"
    )
    fail(tmp_path, 1, 1, 3, CannotRun("not enough memory for the optimiser's state", "less"))
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    with pytest.raises(CannotRun, match="process 1 of 2: not enough memory for the optimiser"):
        step_shares.apply_failures(tmp_path, choices())


def test_other_errors_and_single_processes_pass_unchanged(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), step_shares.failure_recorded(ProcessGroup(0, 2), tmp_path, 0):
        raise ZeroDivisionError
    with pytest.raises(MemoryError), step_shares.failure_recorded(ProcessGroup(), tmp_path, 0):
        raise MemoryError
    assert not list(tmp_path.iterdir())


def test_random_states_of_all_processes_share_one_file() -> None:
    states = [{"torch": torch.tensor([rank])} for rank in range(3)]
    joined = checkpoint._joined_random_states(states)
    assert [int(checkpoint._random_state_of(joined, rank)["torch"]) for rank in range(3)] == [0, 1, 2]
    assert checkpoint._random_state_of(joined, 3) == {}


def test_number_of_processes_counts_as_a_change_of_the_machine() -> None:
    chosen = choices()
    assert chosen.environment_changes() == []
    assert chosen.environment_changes(2) == ["processes was 1, is 2"]
    chosen.machine = runtime.numeric_environment(2)
    assert chosen.processes == 2
    assert chosen.environment_changes(2) == []
    assert runtime.RuntimeChoices.from_json(json.loads(json.dumps(chosen.to_json()))) == chosen


@pytest.mark.parametrize(
    ("config", "processes", "device_gib", "kind"),
    [
        ({}, 1, 1.0, "single"),
        ({}, 2, 50.0, "ddp"),
        ({}, 2, 0.001, "fsdp"),
        ({"parallel": "fsdp"}, 2, 50.0, "fsdp"),
        ({"parallel": "ddp"}, 2, 0.001, "ddp"),
        ({"variant": "dora"}, 2, 0.001, "ddp"),
    ],
)
def test_whole_copies_where_they_fit_else_shards(
    tiny: Model, config: dict[str, str], processes: int, device_gib: float, kind: str
) -> None:
    memory = GroupMemory(device_gib, 50.0)
    settings = TrainConfig(**config)
    chosen = parallel_choice.choose_parallel(tiny, settings, 80, torch.float32, False, processes, memory)
    assert chosen.kind == kind
    assert chosen.reason.startswith(kind) or processes == 1
    if config.get("variant"):
        assert "dora" in chosen.reason, "auto says why it does not shard"


def test_nodes_hold_all_shards_where_their_estimate_says_so(tiny: Model) -> None:
    """Training decides as the estimate of ``tunewise estimate --nodes`` does, for the same run."""
    settings = TrainConfig(parallel="fsdp")
    shape = read_shape(json.loads((tiny.folder / "config.json").read_text("utf-8")))
    rows = -(-min(settings.micro_tokens, settings.batch_tokens) // 80)
    setup = replace(run_setup(settings, rows, 80, False, True, cuda=True), devices=4, parallel="fsdp")
    replicas = []
    for gib in (0.001, 0.01, 0.02, 0.05, 0.1, 50.0):
        memory = GroupMemory(gib, 50.0, node_processes=2)
        chosen = parallel_choice.choose_parallel(tiny, settings, 80, torch.float32, True, 4, memory)
        assert chosen.replicas == node_replicas(shape, "lora", setup, gib, nodes=2)
        replicas.append(chosen.replicas)
    assert replicas == sorted(replicas)
    assert (replicas[0], replicas[-1]) == (1, 2)


def test_base_is_read_shard_by_shard_where_copies_do_not_fit_the_host(tiny: Model) -> None:
    settings = TrainConfig(parallel="fsdp")
    for own_memory, host_gib, load in (
        (False, 50.0, "host"),
        (False, 1e-6, "shards"),
        (True, 50.0, "shards"),
    ):
        memory = GroupMemory(1.0, host_gib)
        chosen = parallel_choice.choose_parallel(tiny, settings, 80, torch.float32, own_memory, 2, memory)
        assert chosen.load == load


def test_variables_of_the_launcher_are_read() -> None:
    two = {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    assert environment.is_follower(two)
    assert not environment.is_follower({**two, "RANK": "0"})
    assert not environment.is_follower({"WORLD_SIZE": "1", "RANK": "0"})
    assert (environment.local_rank(two), environment.local_world_size(two)) == (1, 2)
    assert environment.local_world_size({"WORLD_SIZE": "4"}) == 4
    assert (environment.node_count(two), environment.node_count({"WORLD_SIZE": "4"})) == (2, 1)
    assert environment.node_count({**two, "LOCAL_WORLD_SIZE": "3"}) == 1, "nodes of different sizes"
    assert environment.weight_shards("lora", "auto", two) == 4
    assert environment.weight_shards("qlora", "auto", two) == 1
    assert environment.weight_shards("qlora", "fsdp_4bit", two) == 4
    assert environment.weight_shards("full", "ddp", two) == 1
    assert environment.group_timeout_s({}) == environment.DEFAULT_GROUP_TIMEOUT_S
    for bad in ({"WORLD_SIZE": "two"}, {"WORLD_SIZE": "-1"}, {"WORLD_SIZE": "0"}):
        with pytest.raises(UsageProblem, match="WORLD_SIZE"):
            environment.world_size(bad)
    whole = {**two, "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
    environment.check_group_environment(whole)
    environment.check_group_environment({"WORLD_SIZE": "1"})
    for name, value in (
        ("RANK", ""),
        ("RANK", "4"),
        ("LOCAL_RANK", "x"),
        ("MASTER_ADDR", ""),
        ("MASTER_PORT", "x"),
    ):
        with pytest.raises(UsageProblem, match=name):
            environment.check_group_environment({**whole, name: value})
    with pytest.raises(UsageProblem, match="TUNEWISE_GROUP_TIMEOUT_S"):
        environment.group_timeout_s({"TUNEWISE_GROUP_TIMEOUT_S": "soon"})


def test_problems_travel_between_processes_and_lost_processes_are_recognised() -> None:
    problem = problem_from_json(json.loads(json.dumps(problem_to_json(CannotRun("no space", "free some")))))
    assert (type(problem), problem.message, problem.hint) == (CannotRun, "no space", "free some")
    gloo = "[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:3421"
    assert is_lost_group(RuntimeError(gloo))
    assert not is_lost_group(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_lost_group(ValueError(gloo))
