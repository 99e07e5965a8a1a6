"""Which servers generate the answers of a plan's arms, and under which names: the plan's ``backend`` and ``--backend``.

Each entry is ``[ARM=]openai:NAME@URL[,URL...]``. Without ``ARM=`` NAME is the plan's model as it is, and arms with trained
weights are asked at the same addresses by the name of their weights, as vLLM's ``--lora-modules lora=... hybrid=...`` gives
them; with it NAME answers for that arm, or for every arm with the weights of that name. Of a plan with several models
the entry without ``ARM=`` is for the arms of the plan's ``model`` alone.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rag.errors import BadInput
from runners.plan.arm_names import split_arm
from runners.plan.steps import EvaluateStep

LOCAL_BACKEND = "local"
"""The value of --backend that generates in this process, whatever the plan says."""
_ENTRY = re.compile(
    r"(?:(?P<arm>[A-Za-z0-9][A-Za-z0-9._-]*(?:@[A-Za-z0-9._-]+)?)=)?"
    r"openai:(?P<name>.+)@(?P<urls>https?://[^\s@]+)"
)


@dataclass(frozen=True, slots=True)
class ServerModel:
    """A model by its name at one or several servers, each of which has it."""

    name: str
    urls: tuple[str, ...]
    """Addresses of the API, without ``/chat/completions``."""

    @property
    def entry(self) -> str:
        """The model as it is written in a plan."""
        return f"openai:{self.name}@{','.join(self.urls)}"


@dataclass(frozen=True, slots=True)
class Backend:
    """The servers that generate; no other part of an answer leaves this process."""

    base: ServerModel | None = None
    """The plan's model; None where only single arms are asked from servers."""
    arms: Mapping[str, ServerModel] = field(default_factory=dict)
    """The models of single arms, by the arm or by its weights."""
    aliases: Collection[str] = ("",)
    """What arms of the plan's own model have behind the ``@``: the base answers for no others."""

    def __bool__(self) -> bool:
        """Whether anything is asked from a server."""
        return self.base is not None or bool(self.arms)

    @property
    def models(self) -> tuple[ServerModel, ...]:
        """The models that are named, the base first."""
        return ((self.base,) if self.base else ()) + tuple(self.arms.values())

    @property
    def urls(self) -> tuple[str, ...]:
        """All addresses, each once."""
        return tuple(dict.fromkeys(url for model in self.models for url in model.urls))

    @property
    def entries(self) -> tuple[str, ...]:
        """The backend as a plan holds it."""
        base = (self.base.entry,) if self.base else ()
        return (*base, *(f"{arm}={model.entry}" for arm, model in self.arms.items()))

    def model_of(self, arm: EvaluateStep, seed: int | None = None) -> ServerModel | None:
        """Return what a server is asked for an arm; None for an arm that answers in this process or at its own endpoint.

        An arm without a language model and one that scores labels need the model's own likelihoods or vectors, so they stay
        here; a router answers nothing itself.

        Args:
            arm: the arm.
            seed: the seed of its weights where they are not those of the first seed: they have a name of their own, as the
                run's folder of them, such as ``lora-s1``.
        """
        if arm.without_model or arm.route or arm.labels == "scored":
            return None
        model = self.arms.get(arm.arm) or self.arms.get(arm.weights or "")
        own = arm.model is None and split_arm(arm.arm)[1] in self.aliases
        if model is None and self.base is not None and own:
            model = ServerModel(arm.weights, self.base.urls) if arm.weights else self.base
        if model is not None and seed is not None:
            return ServerModel(f"{model.name}-s{seed}", model.urls)
        return model


def parse_backend(entries: Sequence[str], aliases: Collection[str] = ("",)) -> Backend:
    """Return the backend of a plan's entries, or of the values of ``--backend``; an empty one for none and for ``local``.

    Args:
        entries: the entries.
        aliases: what arms of the plan's own model have behind the ``@``, "" for nothing.

    Raises:
        BadInput: an entry is malformed, or names the same arm again.
    """
    base: ServerModel | None = None
    arms: dict[str, ServerModel] = {}
    if LOCAL_BACKEND in entries:
        if len(entries) > 1:
            raise BadInput(
                f"backend {LOCAL_BACKEND} cannot be combined with servers",
                "remove the servers, or remove local",
            )
        return Backend()
    for entry in entries:
        match = _ENTRY.fullmatch(entry)
        urls = tuple(dict.fromkeys(url.rstrip("/") for url in match["urls"].split(","))) if match else ()
        if match is None or not all(re.fullmatch(r"https?://[^\s/]+.*", url) for url in urls):
            raise BadInput(
                f"backend {entry!r} is not of the form [ARM=]openai:NAME@URL[,URL...]",
                "e.g. openai:base@http://127.0.0.1:8000/v1,http://127.0.0.1:8001/v1",
            )
        model = ServerModel(match["name"], urls)
        if (match["arm"] in arms) if match["arm"] else base is not None:
            raise BadInput(
                f"backend: {match['arm'] or 'the base'} is named twice",
                "write all addresses of a model in one entry, separated by commas",
            )
        if match["arm"]:
            arms[match["arm"]] = model
        else:
            base = model
    return Backend(base, arms, aliases)


def entry_list(value: Any) -> Any:
    """Return a single entry as a list of one, as a plan may write it; anything else as it is."""
    return (value,) if isinstance(value, str) else value


def check_backend_arms(entries: Sequence[str], arms: Sequence[str]) -> None:
    """Raise ValueError, as a plan's validators do, for malformed entries and for arms that the plan does not have."""
    try:
        backend = parse_backend(entries)
    except BadInput as error:
        raise ValueError(error.message) from None
    if unknown := sorted(backend.arms.keys() - set(arms)):
        known = ", ".join(dict.fromkeys(arms)) or "none"
        raise ValueError(f"backend: the plan has no arm {', '.join(unknown)}; its arms: {known}")
