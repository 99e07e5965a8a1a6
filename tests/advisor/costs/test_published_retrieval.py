"""The formulas of retrieval and serving against published figures, and what must hold of them whatever the figures are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from advisor.catalog.gpus import GpuFacts
from benchmarks.published_retrieval import RETRIEVAL_FIGURES
from benchmarks.retrieval_scale import (
    BASE,
    EMBEDDING_SHARE,
    HNSW_MEASURED,
    HNSW_PUBLISHED,
    INDEXES_MEASURED,
    MAX_REQUESTS,
    MINILM,
    FilesMeasurement,
    IndexMeasurement,
    Serving,
    bytes_per_chunk,
    cache_token_bytes,
    disk_bytes,
    embedding_seconds,
    hnsw_build_seconds,
    hnsw_rows_per_second,
    index_parts,
    inverted_lists,
    machine_usd_month,
    weight_bytes_held,
    words_bytes,
)
from benchmarks.scale import PublishedFigure, card, named_shape
from rag.stores.faiss import IvfStore

PUBLISHED = [row for figures in RETRIEVAL_FIGURES.values() for row in figures()]
LARGE, SMALL = named_shape("llama-3.3-70b-instruct"), named_shape("llama-3.1-8b-instruct")


def h100() -> GpuFacts:
    return card("H100 80GB")


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: f"{row.source}: {row.what}")
def test_published_figure_of_retrieval_is_met_within_its_tolerance(row: PublishedFigure) -> None:
    assert abs(row.error) <= row.tolerance, f"{row.ours:.4g} against {row.published:.4g} {row.unit}"
    assert row.note or row.tolerance <= 0.12, "a wide tolerance has a reason"
    assert row.tolerance <= max(0.02, 2 * abs(row.error) + 0.1), "a tolerance is not much wider than the miss"


def test_published_figures_are_many_and_named_once() -> None:
    assert len(PUBLISHED) >= 30
    assert len({row.what for row in PUBLISHED}) == len(PUBLISHED)
    assert all(row.url.startswith("https://") for row in PUBLISHED)


def test_published_shares_of_a_gpu_lie_in_the_range_of_embedding() -> None:
    """Each published speed is its share of the peak: the range of times holds all of them."""
    ratios = [row.published / row.ours for row in PUBLISHED if row.unit == "tokens/s" and "bge" in row.what]
    assert len(ratios) == 3
    for ratio in ratios:
        assert 0.95 * EMBEDDING_SHARE.low <= ratio * EMBEDDING_SHARE.likely <= EMBEDDING_SHARE.high


def test_embedding_takes_the_inverse_of_the_share() -> None:
    time = embedding_seconds(1e9, BASE, h100(), 2)
    assert time.low < time.likely < time.high
    assert time.likely == pytest.approx(1e9 * 2 * BASE.params / (2 * 989e12 * 0.2))
    assert MINILM.params == 10_616_832, "22.7 M parameters less the embedding table, biases and norms"


def test_hnsw_rate_passes_through_both_builds_and_falls() -> None:
    for values, rate in (HNSW_MEASURED, HNSW_PUBLISHED):
        assert hnsw_rows_per_second(values / 384, 384) == pytest.approx(rate)
    rates = [hnsw_rows_per_second(10.0**power, 384) for power in range(5, 10)]
    assert rates == sorted(rates, reverse=True)
    for seconds in (325, 1049):
        build = hnsw_build_seconds(1e6, 1536)
        assert build.low <= seconds <= build.high, "Supabase's builds by 16 processes and by one"


@pytest.mark.parametrize("chunks", [100_000, 1_000_000, 10_000_000])
def test_inverted_lists_are_those_of_the_store(chunks: int) -> None:
    assert IvfStore(384).factory(chunks) == f"IVF{inverted_lists(chunks)},SQ8"


def test_disk_holds_every_part_and_grows_with_the_chunks() -> None:
    for backend in ("files", "files-ivf", "postgresql", "lancedb"):
        small, large = (disk_bytes(chunks, backend, 384) for chunks in (1_000_000, 10_000_000))
        assert 9.9 < large / small < 10.1
        assert small > 1e6 * (4 * 384 + words_bytes(backend.partition("-")[0]))
    assert disk_bytes(10**6, "postgresql", 384, "halfvec") < disk_bytes(10**6, "postgresql", 384)
    assert bytes_per_chunk("table", 384) + bytes_per_chunk("hnsw", 384) > bytes_per_chunk("lance", 384)


@pytest.mark.parametrize("row", INDEXES_MEASURED, ids=lambda row: row.backend)
def test_sizes_are_those_of_indexes_that_were_built(row: IndexMeasurement) -> None:
    formula = {
        part: size / row.chunks
        for part, size in index_parts(row.chunks, row.backend, 384, texts=row.texts).items()
        if size
    }
    assert formula == pytest.approx(dict(row.parts), rel=0.1)
    assert sum(formula.values()) == pytest.approx(sum(row.parts.values()), rel=0.05)


def test_machine_has_a_power_of_two_of_memory_and_a_quarter_to_spare() -> None:
    gib = 2**30
    prices = [machine_usd_month(size * gib) for size in (1, 25.5, 25.7, 102, 103)]
    assert [round(price / prices[0]) for price in prices] == [1, 1, 2, 4, 8]


def served(**changes: Any) -> Serving:
    return replace(Serving(SMALL, weight_bytes_held(SMALL, 2), h100()), **changes)


def test_requests_share_the_reading_of_weights() -> None:
    one = served()
    assert one.requests > 100
    rates = [one.tokens_per_second(requests) for requests in (1, 8, 64)]
    assert rates == sorted(rates)
    assert rates[1] < 8 * rates[0], "prompts and caches are not shared"
    assert one.step_seconds(64) < 64 * one.step_seconds(1)


def test_more_room_means_more_requests_up_to_the_engines_limit() -> None:
    assert served(prompt=8000.0).requests < served().requests
    assert served(cache_value_bytes=1.0).requests >= served().requests
    assert served(card=card("H200")).requests == MAX_REQUESTS
    too_large = Serving(LARGE, weight_bytes_held(LARGE, 2), h100())
    assert too_large.requests == 0, "141 GB do not fit 80"
    assert Serving(LARGE, weight_bytes_held(LARGE, 2), h100(), 4).requests > 0


def test_cache_of_a_token_is_that_of_the_config() -> None:
    assert cache_token_bytes(LARGE) == 320 * 1024
    assert cache_token_bytes(SMALL) == 128 * 1024
    assert cache_token_bytes(SMALL, 1.0) == 64 * 1024


def test_measurement_of_files_takes_the_names_of_the_benchmark() -> None:
    """A line of benchmarks/large_index.py has every field, under the same name."""
    source = (Path(__file__).parents[3] / "benchmarks" / "large_index.py").read_text("utf-8")
    assert [name for name in FilesMeasurement.__dataclass_fields__ if f'"{name}"' not in source] == []
