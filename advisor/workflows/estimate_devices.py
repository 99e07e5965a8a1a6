"""``tunewise estimate`` for several GPUs: how they share a model, each one's memory, what they exchange and which launcher
starts them."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from advisor.catalog import gpus
from advisor.costs import training_time
from advisor.costs.communication import (
    DeviceGroup,
    communication_bytes,
    communication_seconds,
    network_bytes,
    network_seconds,
)
from advisor.questionnaire.profile import Profile
from rag.errors import BadInput, UsageProblem
from runners.plan.train_config import PARALLELISMS
from runners.resources import parallel_memory
from runners.resources.memory_estimate import (
    MemoryEstimate,
    estimate_memory,
    memory_in_group,
    node_replicas,
)
from runners.resources.memory_terms import MemorySetup, MemoryUse, ParallelKind
from runners.resources.model_shape import ModelShape

AUTO = PARALLELISMS[0]


@dataclass(frozen=True, slots=True)
class SharedRequest:
    """The GPUs of an estimate: how many over all nodes, on how many nodes, and how they share a training."""

    devices: int
    nodes: int
    parallel: str

    @property
    def flags(self) -> str:
        """The flags of ``tunewise run`` that start them: by torchrun on one machine, by Slurm on several."""
        if self.nodes == 1:
            return f"--launcher torchrun --gpus-per-node {self.devices}"
        return f"--launcher slurm --nodes {self.nodes} --gpus-per-node {self.devices // self.nodes}"


@dataclass(frozen=True, slots=True)
class DeviceSharing:
    """How devices share a model, and the memory of one of them."""

    parallel: ParallelKind
    memory: MemoryEstimate
    replicas: int = 1
    """Nodes that hold all shards each; 1 where shards are spread over all devices, and for whole copies."""


def memory_of_each(
    wanted: SharedRequest, shape: ModelShape, use: MemoryUse, setup: MemorySetup
) -> DeviceSharing:
    """Return how the devices share the model, and the memory of one of them.

    Args:
        wanted: the GPUs.
        shape: the model.
        use: how it is used.
        setup: the run, with the number of devices and their memory.

    Raises:
        BadInput: for a way of sharing that does not exist, or that training refuses with this optimiser.
        UsageProblem: for devices that cannot be spread evenly over the nodes.
    """
    if wanted.parallel not in PARALLELISMS:
        raise BadInput(
            f"unknown --parallel {wanted.parallel!r}", known_names_hint(wanted.parallel, PARALLELISMS)
        )
    if wanted.devices % wanted.nodes:
        raise UsageProblem(
            f"{wanted.devices} devices cannot be spread evenly over {wanted.nodes} nodes",
            "--devices counts the GPUs of all nodes together",
        )
    if wanted.devices == 1 or use == "inference":
        return DeviceSharing("tensor", estimate_memory(shape, use, setup))
    whole_only = setup.optimizer in parallel_memory.REFUSED_WHEN_SHARDED
    if wanted.parallel == AUTO and not whole_only:
        parallel = memory_in_group(shape, use, setup, setup.device_gib)[0]
    else:
        parallel = "ddp" if wanted.parallel == AUTO else wanted.parallel  # type: ignore[assignment]
    if parallel != "ddp" and whole_only:
        raise BadInput(
            f"--optimizer {setup.optimizer} is refused by training with --parallel {parallel}: its state was not tested "
            "on sharded weights",
            "leave --optimizer out (adamw), or use --parallel ddp",
        )
    setup = replace(setup, parallel=parallel)
    replicas = node_replicas(shape, use, setup, setup.device_gib, wanted.nodes)
    return DeviceSharing(parallel, estimate_memory(shape, use, replace(setup, replicas=replicas)), replicas)


def group_of_request(
    wanted: SharedRequest,
    profile: Profile,
    use: MemoryUse,
    cards: tuple[gpus.GpuFacts, ...],
    sharing: DeviceSharing,
) -> DeviceGroup:
    """Return how GPUs, one of ``cards`` each, train together, in steps of the size that training takes by default."""
    tokens = training_time.step_tokens(profile, use, profile.examples_known)
    return training_time.device_group(
        cards, wanted.devices, sharing.parallel, tokens, wanted.nodes, sharing.replicas
    )


def sharing_facts(
    wanted: SharedRequest,
    shape: ModelShape,
    use: MemoryUse,
    parallel: ParallelKind,
    group: DeviceGroup | None,
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the keys of ``estimate --json`` about several devices, and notes for people.

    Args:
        wanted: the GPUs.
        shape: the model.
        use: how it is used.
        parallel: how they share it.
        group: how they train together; None where they answer.
    """
    keys: dict[str, Any] = {"devices": wanted.devices, "nodes": wanted.nodes, "parallel": parallel}
    if group is None:
        return keys, (
            "tunewise answers from one GPU; tunewise export --to vllm writes for a server that uses several",
        )
    sent = communication_bytes(shape, use, group)
    seconds = communication_seconds(shape, use, replace(group, network=None))
    communication: dict[str, Any] = {
        "link": group.link_name,
        "bytes": round(sent),
        "seconds": seconds.to_json(),
        "each": "step" if parallel == "ddp" else "pass",
        "replicas": group.replicas,
    }
    keys |= {"launcher": wanted.flags, "communication": communication}
    setting = "" if wanted.parallel == AUTO else f", with parallel: {parallel} in the plan"
    notes = [
        f"{parallel} on {wanted.devices} GPUs: tunewise run PLAN {wanted.flags}{setting}",
        f"each GPU exchanges {sent / 1e9:,.3g} GB {'an optimiser step' if parallel == 'ddp' else 'a pass'}, about "
        f"{seconds.likely:.2g} s over {group.link_name} ({seconds.low:.2g} to {seconds.high:.2g}); steps of "
        f"{group.step_tokens:,.0f} tokens",
    ]
    if group.replicas > 1:
        crossing, wait = network_bytes(shape, use, group), network_seconds(shape, use, group)
        communication["between_nodes"] = {
            "link": group.network_name,
            "bytes": round(crossing),
            "seconds": wait.to_json(),
            "each": "step",
        }
        notes.append(
            f"each of {group.replicas} nodes has all shards (HSDP): between nodes each GPU exchanges "
            f"{crossing / 1e9:,.3g} GB of gradients an optimiser step, about {wait.likely:.2g} s over "
            f"{group.network_name} ({wait.low:.2g} to {wait.high:.2g})"
        )
    if parallel == "fsdp_4bit":
        notes.append("sharded 4-bit weights are unverified on GPUs: parallel: fsdp leaves them whole")
    return keys, tuple(notes)


def known_names_hint(name: str, known: Sequence[str]) -> str:
    """Return a hint with the closest known name, if there is one, and all known names."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.4)
    return (f"did you mean {matches[0]}? " if matches else "") + f"known: {', '.join(known)}"
