"""Catalog of models, GPUs and prices: consistency of the tables, look-ups, and the user's own file."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path

import pytest

from advisor.catalog import gpus, prices
from rag.errors import BadInput
from runners.catalog import abilities, models, user_catalog
from runners.resources.model_shape import ModelShape, read_shape

TODAY = date(2026, 11, 25)
Write = Callable[[str], Path]


@pytest.fixture
def write_catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write the user's own file and name it in the environment."""

    def write(text: str) -> Path:
        path = tmp_path / "facts.yaml"
        path.write_text(text, "utf-8")
        changed = datetime(2026, 11, 20, 12).timestamp() + len(text)
        os.utime(path, (changed, changed))
        monkeypatch.setenv(user_catalog.CATALOG_VARIABLE, str(path))
        return path

    return write


def parameter_count(shape: ModelShape) -> int:
    """Return the parameters of a dense decoder of this shape: attention, gated MLP, two norms a layer,
    embeddings.
    """
    heads = 2 * shape.hidden * (shape.heads + shape.kv_heads) * shape.head_dim
    layer = heads + (3 if shape.gated else 2) * shape.hidden * shape.intermediate + 2 * shape.hidden
    return shape.layers * layer + shape.embedding + shape.hidden


PLAIN = [model for model in models.MODELS if model.date == "2026-11"]
TABLE = Path(models.__file__).with_name("models.json")
CONFIGS = {
    row["hub"]: row
    for family in json.loads(TABLE.read_text("utf-8"))
    for row in family["models"]
    if "config" in row
}


@pytest.mark.parametrize("model", PLAIN, ids=lambda m: m.name)
def test_model_parameters_match_shape(model: models.ModelFacts) -> None:
    """The parameters computed from the seven numbers of a row are within 0.1 % of the published count."""
    assert model.shape is not None
    assert parameter_count(model.shape) == pytest.approx(model.shape.params, rel=0.001)
    assert model.shape.heads % model.shape.kv_heads == 0


@pytest.mark.parametrize("hub", CONFIGS)
def test_parameters_of_a_config_match_the_published_counts(hub: str) -> None:
    """All within 2 %, those in use within 10 % or the whole number that was published.

    Makers count in use what a token is multiplied with (OpenAI), with the embedding that is looked up (Qwen3), or neither
    (Qwen3-Next, Gemma 3n).
    """
    row, shape = CONFIGS[hub], read_shape(CONFIGS[hub]["config"])
    if "published_b" in row:
        assert shape.params / 1e9 == pytest.approx(row["published_b"], rel=0.02)
    if active := row.get("active_b"):
        tables = shape.embedding - shape.looked_up
        counts = [(shape.active_params - out) / 1e9 for out in (0, tables - shape.table, tables)]
        assert any(
            count == pytest.approx(active, rel=0.1) or (active == round(active) == round(count))
            for count in counts
        )
    assert ("active_b" in row) >= (shape.experts > 1)


def test_a_model_without_a_config_is_listed_without_a_shape() -> None:
    unread = [model for model in models.MODELS if model.shape is None]
    assert {model.name for model in unread} == {"qwen3.5-0.8b", "qwen3.5-2b"}
    assert all(model.params_b == model.published_b and "not read" in model.source for model in unread)
    assert all("config.json" in model.source for model in models.MODELS if model.shape and model not in PLAIN)


@pytest.mark.parametrize("model", models.MODELS, ids=lambda m: m.name)
def test_rows_are_whole(model: models.ModelFacts) -> None:
    assert model.hub.rpartition("/")[2].lower() == model.name
    assert all((model.licence, model.family, model.source, model.date))
    assert model.context >= 4096


def test_model_table_covers_sizes_without_duplicates() -> None:
    """The table reaches from 0.1 to 405 B parameters."""
    sizes = sorted(model.params_b for model in models.MODELS)
    assert len(models.MODELS) >= 25
    assert (sizes[0] < 0.2, sizes[-1] > 400) == (True, True)
    assert len({m.name for m in models.MODELS}) == len({m.hub for m in models.MODELS}) == len(models.MODELS)
    assert models.find_model(models.DEFAULT_MODEL) is models.MODELS[0]


def test_find_model_accepts_names_and_hub_ids() -> None:
    assert models.find_model("QWEN/qwen3-8b") is models.find_model("Qwen3-8B") is not None
    assert models.find_model("qwen3-9b") is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("llama-3.1-8b-instruct", ["llama-3.2-3b-instruct", "llama-3.2-1b-instruct"]),
        ("smollm3-3b", ["smollm2-1.7b-instruct", "smollm2-360m-instruct", "smollm2-135m-instruct"]),
        ("smollm2-135m-instruct", []),
    ],
)
def test_smaller_siblings_are_of_the_same_family(name: str, expected: list[str]) -> None:
    model = models.find_model(name)
    assert model is not None
    assert [sibling.name for sibling in models.smaller_siblings(model)] == expected


def test_model_shapes_match_public_list(shared: Path) -> None:
    """For models in both lists, every shape number is the same."""
    public = json.loads((shared / "cases" / "memory_dev.json").read_text("utf-8"))["models"]
    known = {stem(m.name): m.shape for m in PLAIN}
    compared = 0
    for row in public:
        shape = known.get(stem(row["model"].rpartition("/")[2].lower()))
        if shape is None:
            continue
        compared += 1
        for key in ("layers", "hidden", "heads", "kv_heads", "head_dim", "intermediate", "vocab"):
            assert getattr(shape, key) == row[key], (row["model"], key)
        if row["tied_embeddings"] is not None:
            assert shape.tied == row["tied_embeddings"], row["model"]
        if row["params_b"] is not None:
            assert shape.params / 1e9 == pytest.approx(row["params_b"], rel=0.01), row["model"]
    assert compared >= 18


def stem(name: str) -> str:
    """Return the name without prefixes and suffixes of instruction-tuned variants."""
    return name.removeprefix("meta-").removesuffix("-instruct").removesuffix("-it")


def test_gpu_table_is_complete_and_plausible() -> None:
    """Names are unique; the ratio of FLOP/s to bandwidth excludes speeds with sparsity."""
    assert len(gpus.GPUS) >= 25
    assert len({gpu.name for gpu in gpus.GPUS}) == len(gpus.GPUS)
    assert {gpu.kind for gpu in gpus.GPUS} == {"cuda", "rocm", "mps"}
    for gpu in gpus.GPUS:
        assert gpu.source, gpu.name
        assert gpu.day <= TODAY, gpu.name
        assert 10 < 1000 * gpu.tflops / gpu.bandwidth_gbs < 450, gpu.name
        assert gpu.usd_hour is None or 0.05 < gpu.usd_hour < 10, gpu.name


@pytest.mark.parametrize(
    ("name", "fp32_tflops"),
    [("RTX 3090", 35.58), ("RTX 4090", 82.58), ("RTX 5090", 104.8), ("RTX 4060 Ti 16GB", 22.06)],
)
def test_geforce_tflops_are_with_fp32_accumulation(name: str, fp32_tflops: float) -> None:
    """GeForce tensor cores do twice the fp32 speed then; sheets print four times that, or eight with
    sparsity.
    """
    card = next(gpu for gpu in gpus.GPUS if gpu.name == name)
    assert card.tflops == pytest.approx(2 * fp32_tflops, rel=0.01)


@pytest.mark.parametrize(
    ("driver_name", "card"),
    [
        ("NVIDIA A100-SXM4-80GB", "A100 80GB"),
        ("NVIDIA A100-SXM4-40GB", "A100 40GB"),
        ("NVIDIA H100 80GB HBM3", "H100 80GB"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada"),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", "RTX PRO 6000 Blackwell"),
        ("Tesla T4", "T4"),
        ("AMD Instinct MI300X", "MI300X"),
        ("rtx 5070 ti", "RTX 5070 Ti"),
        ("NVIDIA GeForce RTX 3060 Ti", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("Voodoo 2", None),
    ],
)
def test_find_gpu_reads_driver_names(driver_name: str, card: str | None) -> None:
    """Names of other variants (Ti, Laptop, MIG) are not matched."""
    gpu = gpus.find_gpu(driver_name)
    assert (gpu.name if gpu else None) == card


def test_gpus_of_memory_and_rentable_gpus() -> None:
    """The next larger size of the kind; rentable GPUs are sorted by price."""
    assert {gpu.memory_gib for gpu in gpus.gpus_of_memory(79.1)} == {80}
    assert {gpu.memory_gib for gpu in gpus.gpus_of_memory(10_000)} == {180}
    assert [gpu.name for gpu in gpus.gpus_of_memory(100, "rocm")] == ["MI300X"]
    assert gpus.gpus_of_memory(24, "xpu")
    offers = gpus.rentable_gpus(40)
    assert all(gpu.memory_gib >= 40 and gpu.kind == "cuda" for gpu in offers)
    assert [gpu.usd_hour for gpu in offers] == sorted(gpu.usd_hour for gpu in offers if gpu.usd_hour)


def test_prices_are_dated_and_consistent() -> None:
    """Cached input costs at most the input, output at least as much; the reference is not stale."""
    assert len(prices.PRICES) >= 8
    assert len({price.model for price in prices.PRICES}) == len(prices.PRICES)
    for price in prices.PRICES:
        assert 0 < price.cached <= price.input <= price.output, price.model
        assert price.cache_write in (1.0, 1.25), price.model
        assert price.source, price.model
        assert price.day <= TODAY, price.model
    assert prices.REFERENCE.age_days(TODAY) <= prices.STALE_DAYS
    assert prices.reference_price() == prices.REFERENCE
    assert prices.find_price("Claude-Sonnet-5-5") == prices.find_price("claude-sonnet-5.5") is not None
    assert prices.find_price("gpt-9") is None


def test_hosted_tuning_price_grows_with_model_size() -> None:
    assert [prices.tuning_price(size).lora for size in (0.1, 16, 70, 235, 405)] == [0.5, 0.5, 3.0, 6.0, 10.0]


def test_user_catalog_corrects_and_adds_rows(write_catalog: Write) -> None:
    """A known row changes only the given keys, and its source says so; a new row gets defaults."""
    write_catalog(
        "gpus:\n  - {name: rtx 4090, usd_hour: 0.2}\n"
        "  - {name: Our Card, memory_gib: 24, bandwidth_gbs: 900, tflops: 100, usd_hour: 0.05}\n"
        "prices:\n  - {model: our-model, input: 0.2, output: 0.8, day: 2026-11-01}\n"
        "  - {model: gpt-6-luna, output: 0.4}\n"
        "models:\n  - {hub: acme/Our-7B, params_b: 6.6, layers: 32, hidden: 4096, heads: 32, kv_heads: 8,\n"
        "     head_dim: 128, intermediate: 11008, vocab: 32000, tied: false, context: 8192, family: llama-3}\n"
        "  - {hub: qwen/qwen3-8b, context: 131072, kind: base, strength: 61.5, languages: [en, fi]}\n"
    )
    card = gpus.find_gpu("NVIDIA GeForce RTX 4090")
    assert card is not None
    assert (card.name, card.usd_hour, card.tflops, card.day) == ("RTX 4090", 0.2, 165.2, date(2026, 11, 20))
    assert card.source.startswith("your facts.yaml (usd_hour); else data sheet")
    assert gpus.rentable_gpus(24)[0].name == "Our Card"
    assert len(gpus.known_gpus()) == len(gpus.GPUS) + 1
    assert {"Our Card", "RTX 4090"} <= {gpu.name for gpu in gpus.gpus_of_memory(24)}

    price = prices.find_price("our-model")
    assert price == prices.Price("our-model", 0.2, 0.2, 0.8, date(2026, 11, 1), "your facts.yaml")
    assert (prices.reference_price().output, prices.reference_price().input) == (0.4, 0.1)

    model = models.find_model("our-7b")
    assert model is not None
    assert model.shape is not None
    assert (model.hub, model.shape.params, model.licence) == ("acme/Our-7B", 6_600_000_000, "yours")
    assert [m.name for m in models.smaller_siblings(model)] == [
        "llama-3.2-3b-instruct",
        "llama-3.2-1b-instruct",
    ]
    longer, shipped = models.find_model("qwen3-8b"), next(m for m in models.MODELS if m.name == "qwen3-8b")
    assert longer is not None
    assert (longer.context, longer.shape, longer.hub) == (131072, shipped.shape, shipped.hub)
    assert (longer.kind, longer.languages, longer.rated_strength.value) == ("base", ("en", "fi"), 61.5)
    assert (shipped.kind, model.kind, model.rated_strength.estimated) == ("thinking", "instruct", True)


def test_every_known_model_has_kind_score_and_languages() -> None:
    """Scores have a source and a month, or are estimated from the size and never fall with it."""
    for model in models.MODELS:
        rated = model.rated_strength
        assert 25 <= rated.value <= 90, model.name
        assert rated.estimated or re.fullmatch(r"20\d\d-\d\d", rated.month), model.name
        assert (model.kind == "thinking") == bool(model.reasons), model.name
    estimates = [abilities.estimated_strength(size).value for size in (0.01, 0.1, 0.5, 1, 7, 70, 700)]
    assert estimates == sorted(estimates)
    assert set(abilities.STRENGTHS) | set(abilities.MODEL_LANGUAGES) <= {
        model.name for model in models.MODELS
    }
    assert abilities.speaks_language(("en", "+"), "de") is None
    assert abilities.speaks_language(("en",), "de") is False
    assert abilities.speaks_language(("*",), "de") is True


def test_user_catalog_is_reread_after_change(write_catalog: Write) -> None:
    write_catalog("prices: [{model: ours, input: 1, output: 2}]")
    assert prices.find_price("ours") is not None
    write_catalog("prices: [{model: theirs, input: 1, output: 2.5}]")
    assert (prices.find_price("ours"), prices.find_price("theirs") is not None) == (None, True)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("gpuz: []", "unknown key 'gpuz'", "did you mean gpus?"),
        ("gpus: {name: x}", "gpus is no list", "begin with -"),
        ("gpus: [RTX 4090]", "gpus row 1 is 'RTX 4090'", "key: value"),
        ("gpus: [{usd_hour: 1}]", "gpus row 1: name is missing", "each row names"),
        (
            "gpus: [{name: T4}, {name: T4, usd_houre: 1}]",
            "gpus row 2 'T4': unknown key 'usd_houre'",
            "mean usd_hour?",
        ),
        (
            "gpus: [{name: T4, usd_hour: cheap}]",
            "gpus row 1 'T4': usd_hour is 'cheap'",
            "a number, 0 or more",
        ),
        ("gpus: [{name: T4, usd_hour: .nan}]", "usd_hour is nan", "a number, 0 or more"),
        ("gpus: [{name: T4, memory_gib: true}]", "memory_gib is True", "a number"),
        ("gpus: [{name: T4, kind: cudda}]", "kind is 'cudda'", "one of cuda, rocm, mps, xpu"),
        (
            "gpus: [{name: Mine}]",
            "'Mine': new, but without memory_gib, bandwidth_gbs, tflops",
            "a known name",
        ),
        ("prices: [{model: m, input: 1, output: 1, day: soon}]", "day is 'soon'", "2026-11-25"),
        ("prices: [{model: [1]}]", "model is [1]", "a text"),
        ("models: [{hub: a/b, layers: 0}]", "layers is 0", "a whole number above 0"),
        ("models: [{hub: a/b, tied: 3}]", "tied is 3", "true or false"),
        ("models: [{hub: a/b, kind: chat}]", "kind is 'chat'", "one of base, instruct, thinking"),
        ("models: [{hub: a/b, strength: 250}]", "strength is 250", "a score from 0 to 100"),
        ("models: [{hub: a/b, languages: english}]", "languages is 'english'", "two-letter codes"),
        ("- 1", "is no mapping", "models, gpus, prices"),
        ("gpus: [", "is not readable YAML", "TUNEWISE_FACTS"),
    ],
)
def test_user_catalog_error_names_file_row_and_key(
    write_catalog: Write, text: str, message: str, hint: str
) -> None:
    path = write_catalog(text)
    with pytest.raises(BadInput) as caught:
        (models.known_models(), gpus.known_gpus(), prices.known_prices())
    assert caught.value.message.startswith(str(path))
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert "\n" not in str(caught.value)


def test_user_catalog_variable_missing_file_or_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt path is an error; an empty variable switches the file off."""
    monkeypatch.setenv(user_catalog.CATALOG_VARIABLE, str(tmp_path / "nowhere.yaml"))
    with pytest.raises(BadInput, match=r"TUNEWISE_FACTS names .*nowhere.yaml"):
        gpus.known_gpus()
    monkeypatch.setenv(user_catalog.CATALOG_VARIABLE, "")
    assert gpus.known_gpus() is gpus.GPUS
