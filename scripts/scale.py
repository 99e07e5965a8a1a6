"""First part of docs/scale.md: training on many GPUs, with every figure computed by the formulas that the advice uses."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from statistics import mean

from advisor.catalog import gpus
from advisor.costs.communication import (
    DeviceGroup,
    communication_bytes,
    communication_seconds,
    network_bytes,
)
from advisor.costs.training_time import card_device, device_group, training_seconds
from benchmarks.estimates import read_record, training_runs
from benchmarks.scale import FIGURES, PublishedFigure, named_shape
from runners.resources.memory_estimate import memory_in_group, node_replicas
from runners.resources.memory_terms import MemorySetup, MemoryUse, ParallelKind
from runners.resources.model_shape import ModelShape

Table = Callable[[tuple[str, ...], Iterable[tuple[str, ...]]], list[str]]
MODELS = (
    ("8B", "llama-3.1-8b-instruct"),
    ("32B", "qwen2.5-32b-instruct"),
    ("70B", "llama-3.1-70b-instruct"),
)
METHODS: tuple[MemoryUse, ...] = ("lora", "qlora", "full")
COUNTS = (1, 2, 4, 8, 16)
CARD = "H100 80GB"
PER_NODE = 8
ROW_TOKENS = 1024
DEVICE_TOKENS = 2048
"""Tokens that each GPU has in an optimiser step of the tables of time."""

INTRO = """\
# Beyond one machine

Two parts: training on several GPUs, and [retrieval and serving](#retrieval-and-serving), from one laptop to a billion chunks
and a 70 B base. Figures are computed by formulas, which are compared with published ones at the end of each part.

<!-- place: after the tutorial -->

## Train on many GPUs

A run uses one GPU until a launcher starts it on several. Then every GPU gets a process of its own and each training of
the plan is shared among all of them; files, index, trial, report and everything else is done by the first process
alone, on its GPU. `tunewise plan` counts the GPUs of the machine that is described and ends with the command that uses
them.

> **What is verified.** On CPUs, in the tests: that two processes give the weights of one, by DDP and by FSDP2, over
> resumes and kills, and under a real Slurm; and that four processes that act as two machines do, by FSDP2. **What only
> a GPU can show is unverified**: speed, memory, NCCL, more processes, more than one real machine. The tables below are
> formulas, compared with other people's published figures at the end of this part.
> `python -m benchmarks.gpu --part ddp --part fsdp` compares them with a machine of yours.

### Start it

<!-- not run: other machine -->
```bash
tunewise run big.yaml --launcher torchrun --gpus-per-node 4
tunewise run big.yaml --launcher slurm --nodes 2 --gpus-per-node 8 --sbatch time=04:00:00 --print
tunewise run big.yaml --launcher skypilot --nodes 2 --gpus-per-node 8 --gpu H100 --print
tunewise train --examples rows.jsonl --method lora --model NAME --out adapter --launcher torchrun --gpus-per-node 4
```

The script or task is shown, kept in the run folder and used; with `--print` it is only shown. SkyPilot's task is checked by
its parser only: that it starts machines is unverified. torchrun on several machines without a scheduler: the same command
on each, with a place to meet; they have to see the same run folder.

<!-- not run: other machine -->
```bash
tunewise run big.yaml --out runs/big --launcher torchrun --nodes 2 --gpus-per-node 8 --rdzv-endpoint HOST:29500
```

Anything else that starts the same command line once for each GPU with torchrun's variables (`RANK`, `WORLD_SIZE`,
`LOCAL_RANK`, `MASTER_ADDR`, `MASTER_PORT`) works too, such as a Kubernetes job whose pods run

<!-- not run: other machine -->
```bash
python -m torch.distributed.run --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:29500 \\
  -m advisor run big.yaml --out runs/big --resume
```

### How a training is shared

`parallel` in the plan, or `--parallel` of `tunewise train`, says how; nobody has to set it.
"""

SHARING = (
    ("ddp", "a whole copy of weights, gradients and optimiser state", "trained gradients, once a step"),
    (
        "fsdp",
        "1/N of weights, gradients and state; two decoder layers, embedding and head whole while they compute; 4-bit "
        "weights whole. On several machines N is the GPUs of one, if all shards fit there (HSDP), else all GPUs",
        "sharded weights twice in every pass, and trained gradients; with HSDP that stays within each machine, and between "
        "machines trained gradients are exchanged, once a step",
    ),
    (
        "fsdp_4bit",
        "the same with 4-bit weights sharded too: *unverified on GPUs*, checked against the unsharded loss before the "
        "first step",
        "as fsdp",
    ),
    ("auto (default)", "ddp where a whole copy fits a GPU, else fsdp", ""),
)

RULES = """\
Between machines the network is the slow link. Where the GPUs of one machine have room for all shards, each machine has
all of them and weights never cross the network (hybrid sharding, HSDP); a GPU then needs more memory than if the shards were
spread over all machines. It is verified on CPUs, by four processes that act as two machines; on GPUs it is unverified.

Rows are dealt out among the GPUs, so that a step learns from the same rows as on one. With few rows in a step some GPUs
have little to do: `batch_tokens` of the plan's train step is over all GPUs, and a GPU is not filled below about a
thousand tokens in a pass. FSDP refuses by name what was not tested sharded: 8-bit, paged and Adafactor optimisers,
PiSSA, DoRA and float16. A drafted plan takes AdamW where the weights have to be sharded.

### Resume, and checkpoints

Every process stops within seconds of SIGTERM with a checkpoint; `--resume`, or the restart of a scheduler, continues from
it. A process that is lost ends the job with one line, and with `--max-restarts` the group starts again from the last
checkpoint. One process and DDP write a checkpoint as before, safetensors by the first process; FSDP2 writes one file of
sharded safetensors from each process by `torch.distributed.checkpoint`, the manifest last. On the same number of
processes a resumed run has the same bits as an uninterrupted one; on another number (2, then 1, then 2) it continues, and
the last digits may differ. What is published in the end is the same file as from one process.
"""

MEMORY = """\
### Memory of each GPU

GiB, likely, on GPUs of 80 GiB: one row of {row} tokens in a pass, activations computed again, adapters of rank 16, this
project's loop (`tunewise estimate --model NAME --method M --gpu "{card}" --devices N`, for 16 `--nodes 2` too).
**Bold** fits with room, *italics* is tight, plain does not fit. 16 GPUs are two machines of eight: where the shards fit in
eight with room, each machine has all of them, and a GPU needs as much memory as with eight. Full tuning on one GPU
and by ddp has 8-bit AdamW; sharded it has AdamW with fp32 moments."""

TIME = """\
### Hours and cost of a million tokens

On {card}, rented at {price:g} USD an hour each ({source} {day}), 16 GPUs as two machines of eight with 400 Gb/s a GPU
between them: likely hours, and USD for all GPUs. Each GPU has {tokens:,} tokens in a step; rows of {row:,} tokens. A
range is 0.4 to 3 times these and wider where much is exchanged: `tunewise estimate ... --tokens 1000000` prints it. –
does not fit."""

TRAFFIC = """\
### What is exchanged

GB that each GPU receives, and seconds over NVLink ({card}) and between machines: by ddp once an optimiser step, by fsdp
in every forward and backward pass. On two machines that each have all shards, gradients alone go between them, once a
step; where the shards are spread over both, all of it does, in every pass. Where one takes longer than computing does, it
sets the time; a part is hidden behind computing. Larger steps need fewer of them.

By these formulas, and with so many tokens in a step, two machines train about twice as fast as one in which the shards fit
with room. Where they do not fit in one, or only tightly, all weights cross the network, and two may be slower than one:
full tuning of 32B in the table of hours."""

PUBLISHED = """\
### The formulas and published figures

No constant was fitted to these figures. `python -m benchmarks.scale` prints the table, and a test checks every row against
the tolerance that it names. Where the source is a formula, the figure was worked out from it by hand. Memory: off by
{error:.1f} % on average over {peaks} published peaks of two GPUs. Times are likely values of wide ranges; of {runs}
recorded speeds on several GPUs, from {sources} sources, {inside} lie inside (`python -m benchmarks.estimates`)."""


def training_part(table: Table) -> list[str]:
    """Return the title and the first part of the page."""
    card = gpus.find_gpu(CARD)
    assert card is not None
    columns = ("model", "method", *(f"{count} GPU{'s' if count > 1 else ''}" for count in COUNTS))
    shapes = [(name, named_shape(model)) for name, model in MODELS]
    cells = [(name, use, shape) for name, shape in shapes for use in METHODS]
    peaks = [row for row in FIGURES["memory"]() if "tokens, each of 2" in row.what]
    error = 100 * mean(abs(row.error) for row in peaks)
    runs = [run for run in training_runs(read_record()) if run.kind == "several GPUs"]
    return [
        INTRO,
        *table(("parallel", "on each GPU", "exchanged"), SHARING),
        "",
        RULES,
        *MEMORY.format(row=f"{ROW_TOKENS:,}", card=CARD).split("\n"),
        "",
        *table(
            columns,
            ((name, use, *(memory_cell(shape, use, n) for n in COUNTS)) for name, use, shape in cells),
        ),
        "",
        *TIME.format(
            card=CARD,
            price=card.usd_hour,
            source=card.source.partition("rent: ")[2],
            day=card.day,
            tokens=DEVICE_TOKENS,
            row=ROW_TOKENS,
        ).split("\n"),
        "",
        *table(
            columns, ((name, use, *(time_cell(shape, use, n) for n in COUNTS)) for name, use, shape in cells)
        ),
        "",
        *TRAFFIC.format(card=CARD).split("\n"),
        "",
        *table(
            (
                "model",
                "method",
                "parallel",
                "GB, 8 GPUs",
                "s, one machine",
                "GB between two of 8",
                "s, a step of one pass on two",
            ),
            traffic_rows(shapes),
        ),
        "",
        *PUBLISHED.format(
            error=error,
            peaks=len(peaks),
            runs=len(runs),
            sources=len({run.source for run in runs}),
            inside=sum(run.inside for run in runs),
        ).split("\n"),
        "",
        *table(("figure", "source", "published", "our formula", "difference", "why"), published_rows()),
    ]


def memory_cell(shape: ModelShape, use: MemoryUse, count: int) -> str:
    """Return one GPU's likely GiB and how the group shares the model, marked by whether it fits."""
    setup = MemorySetup(seq_len=ROW_TOKENS, devices=count)
    parallel, memory = memory_in_group(shape, use, setup, 80.0, -(-count // PER_NODE))
    mark = {"yes": "**", "tight": "*", "no": "", None: ""}[memory.fits(80.0)]
    shown = f"{memory.likely:.0f} {parallel}" if count > 1 else f"{memory.likely:.0f}"
    return f"{mark}{shown}{mark}"


def time_cell(shape: ModelShape, use: MemoryUse, count: int) -> str:
    """Return likely hours and USD of a million tokens; a dash where it does not fit."""
    card = gpus.find_gpu(CARD)
    assert card is not None
    assert card.usd_hour is not None
    setup = MemorySetup(seq_len=ROW_TOKENS, devices=count)
    parallel, memory = memory_in_group(shape, use, setup, 80.0, -(-count // PER_NODE))
    if memory.fits(80.0) == "no":
        return "–"
    group = group_of_count(shape, use, parallel, count)
    device = card_device(card, count, group) if count > 1 else card_device(card)
    hours = training_seconds(shape, use, device, [(1e6, ROW_TOKENS)]).likely / 3600
    return f"{hours:.3g} h, {hours * count * card.usd_hour:.2g} USD"


def group_of_count(shape: ModelShape, use: MemoryUse, parallel: ParallelKind, count: int) -> DeviceGroup:
    """Return how so many GPUs, eight on each machine, share a training."""
    card = gpus.find_gpu(CARD)
    assert card is not None
    nodes = -(-count // PER_NODE)
    setup = MemorySetup(seq_len=ROW_TOKENS, devices=count, parallel=parallel)
    replicas = node_replicas(shape, use, setup, 80.0, nodes)
    return device_group((card,), count, parallel, count * DEVICE_TOKENS, nodes, replicas)


def traffic_rows(shapes: Iterable[tuple[str, ModelShape]]) -> Iterable[tuple[str, ...]]:
    """Yield what is exchanged for each model and way of sharing it, on one machine of 8 GPUs and on two."""
    ways: tuple[tuple[MemoryUse, ParallelKind], ...] = (
        ("lora", "ddp"),
        ("lora", "fsdp"),
        ("qlora", "fsdp"),
        ("qlora", "fsdp_4bit"),
        ("full", "fsdp"),
    )
    for name, shape in shapes:
        for use, parallel in ways:
            near, far = (group_of_count(shape, use, parallel, machines * PER_NODE) for machines in (1, 2))
            between = network_bytes(shape, use, far) or communication_bytes(shape, use, far)
            each = "a pass" if parallel != "ddp" and far.replicas == 1 else "a step"
            yield (
                name,
                use,
                parallel,
                f"{communication_bytes(shape, use, near) / 1e9:.3g}",
                f"{communication_seconds(shape, use, near).likely:.2g}",
                f"{between / 1e9:.3g} {each}",
                f"{communication_seconds(shape, use, far).likely:.2g}",
            )


def published_rows() -> Iterable[tuple[str, ...]]:
    """Yield every published figure beside ours."""
    for figures in FIGURES.values():
        for row in figures():
            yield published_cells(row)


def published_cells(row: PublishedFigure) -> tuple[str, ...]:
    """Return the cells of one published figure."""
    return (
        row.what,
        f"[{row.source}]({row.url})",
        f"{figure_text(row.published)} {row.unit}",
        figure_text(row.ours),
        f"{100 * row.error:+.0f} %" if abs(row.error) >= 0.005 else "0 %",
        row.note,
    )


def figure_text(value: float) -> str:
    """Return four digits, or a whole number with commas where there are more."""
    return f"{value:.4g}" if value < 10_000 else f"{value:,.0f}"
