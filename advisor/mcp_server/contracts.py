"""The results of the tools: the objects that the verbs print with ``--json``, as output schemas.

The schemas name the keys that an agent reads; further keys of the same objects are in the results too.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Rows = list[dict[str, Any]]


class Contract(BaseModel):
    """A result with the version of its keys."""

    model_config = ConfigDict(extra="allow", populate_by_name=True, serialize_by_alias=True)

    version: Literal[1] = Field(alias="schema", description="Version of these keys.")


class RecommendationResult(Contract):
    """What `tunewise plan --json` prints."""

    choice: str = Field(description="The recommended method.")
    confidence: Literal["high", "medium", "low"] = Field(
        description="The word for the probability, the same for all advice: it does not separate right advice from wrong."
    )
    probability: float = Field(description="How often advice is right, 0 to 1: one rate for all advice.")
    confidence_because: str = Field(
        description="The rate, what speaks against this advice, what would settle it."
    )
    ranked: Rows = Field(description="Every method with score, reasons, blockers and estimates, best first.")
    flips: Rows = Field(
        description="Answers that would change the choice, with thresholds; plausible: may be so in this job."
    )
    also_measure: list[str] = Field(description="Methods to measure beside the recommended one.")
    worth_finding: Rows = Field(description="Unknown answers that could change the choice.")
    profile: dict[str, Any] = Field(description="Every answer with its source.")


class WhatIfResult(Contract):
    """What `tunewise whatif --json` prints."""

    changed: list[str]
    before: RecommendationResult
    after: RecommendationResult


class EstimateContract(Contract):
    """What `tunewise estimate --json` prints."""

    model: str
    method: str
    memory_gib: dict[str, Any] = Field(description="low, likely, high, fits (yes, tight, no) and terms.")
    hours: dict[str, Any] | None = None
    usd: dict[str, Any] | None = None
    device: str
    notes: list[str]


class ExplanationResult(Contract):
    """What `tunewise explain --json` prints: the keys depend on the kind of topic."""


class SearchResult(Contract):
    """What `tunewise index search --json` prints."""

    hits: Rows = Field(description="Passages, best first: doc, title, text, line_start, score and more.")


class AnswerResult(Contract):
    """What `tunewise ask --json` prints."""

    answer: str
    refused: bool = Field(description="Whether the documents were found not to hold the answer.")
    beside: bool = Field(description="Whether what it cites seems not to be what was asked.")
    arm: str
    citations: Rows = Field(
        description="For each [n]: doc, line_start, quote, supported, support (supported, partly, beside), limited."
    )


class ReportResult(Contract):
    """What `tunewise report --json` prints."""

    verdict: dict[str, Any]
    arms: Rows
    paired: Rows


class RunsResult(Contract):
    """What `tunewise runs list --json` prints."""

    runs: Rows = Field(
        description="name, path, state (finished, unfinished, writing, damaged), steps, outcome."
    )


class Costs(BaseModel):
    """What a run or a training takes, before it starts."""

    minutes: float = Field(description="Estimated minutes on this machine.")
    usd: float = Field(description="Money: 0, because nothing is rented and no paid endpoint is asked.")
    disk_mib: float = Field(description="About how much is written, in MiB.")
    writes: str = Field(description="The folder that is written.")
    downloads: list[str] = Field(description="Models that are fetched first, with their size.")
    notes: list[str]


class StartedResult(Contract):
    """What became of a request to run or train."""

    state: Literal["confirm", "declined", "finished", "gate_not_met"]
    costs: Costs
    command: str | None = Field(
        None,
        description="With state confirm: what the user gives in a terminal to start it; an agent does not.",
    )
    out: str = Field(description="The folder of the result.")
    result: dict[str, Any] | None = Field(None, description="The report, or the result of the training.")
