"""Exports of weights: the target's library loads each file, and it answers as base and adapter do unmerged."""

from __future__ import annotations

import json
import shlex
import stat
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rag.errors import BadInput, CannotRun
from rag.files import check_manifest
from runners.export import job, vllm
from runners.export import merged as export_merged
from runners.export.export import export
from runners.export.gguf import GGUF_FILE
from runners.export.job import ExportRequest, ExportResult
from runners.export.merged import write_in_smallest_dtype
from runners.export.ollama import greedy_parameters
from runners.export.source import ExportSource
from runners.inference.weights import load_adapter, load_base, load_model_folder
from runners.models import resolve
from runners.models.adapters import read_adapter
from runners.models.cards import CARD_FILE
from runners.models.fingerprint import read_json
from runners.tokenization import chat_template
from tests.families import build

EQUAL_TOKENS = "greedy tokens equal to base plus weights"
LOGIT_DIFFERENCE = "root mean square difference, in standard deviations"
_results: dict[tuple[str, ...], ExportResult] = {}


@pytest.fixture(scope="module")
def make(llama: Any, qwen: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., ExportResult]:
    """Return a function that exports an arm of one of the runs; equal exports are made once."""
    folder = tmp_path_factory.mktemp("exports")

    def run(to: str, arm: str = "lora", of: str = "llama", dtype: str = "auto") -> ExportResult:
        key = (of, arm, to, dtype)
        if key not in _results:
            out = folder / "-".join(key)
            _results[key] = export(
                {"llama": llama, "qwen": qwen}[of].path, ExportRequest(to, arm, None, out, dtype=dtype)
            )
        return _results[key]

    return run


def load_unmerged(run: Any, arm: str) -> tuple[Any, list[list[int]], list[int]]:
    """Load the base with the arm's adapter in float32; return it with the prompts and the end tokens to replay."""
    source = ExportSource(run.path)
    source.select_arm(arm, None, True)
    chat = chat_template.ChatTokenizer(source.weights_folder)
    model = load_adapter(load_base(source.base, "float32"), source.weights_folder, source.base)
    return (
        model,
        export_merged.prompt_tokens(chat, export_merged.replay_prompts(source)),
        sorted(chat.eos_ids),
    )


def test_exported_adapter_loads_in_plain_peft_and_in_tunewise(
    make: Callable[..., ExportResult], llama: Any
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    result = make("peft")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", FutureWarning)
        base = AutoModelForCausalLM.from_pretrained(llama.base)
        net = PeftModel.from_pretrained(base, result.out).eval().float()
        tokenizer = AutoTokenizer.from_pretrained(result.out)
    unmerged, prompts, ends = load_unmerged(llama, "lora")
    answers = export_merged.replay_answers(unmerged, prompts, ends, 8)
    assert export_merged.compare_answers(answers, net).same == 5
    assert (
        export_merged.compare_answers(
            answers, load_base(resolve.resolve_model(str(llama.base)), "float32")
        ).same
        < 5
    ), "the base alone answers otherwise"
    assert tokenizer.chat_template
    assert result.checked["tensors equal to the file's"] == 28
    manifest = check_manifest(result.out, "adapter", (CARD_FILE,))
    assert (manifest["export"]["arm"], manifest["export"]["seed"]) == ("lora", 0)
    assert read_adapter(Path(result.out)).problem == ""
    config = json.loads((Path(result.out) / "adapter_config.json").read_text("utf-8"))
    assert config["base_model_name_or_path"] == "a base model"


@pytest.mark.parametrize(
    ("of", "arm"),
    [("llama", "lora"), ("llama", "hybrid"), ("llama", "qlora"), ("llama", "full"), ("qwen", "lora")],
)
def test_merged_model_answers_as_unmerged(
    make: Callable[..., ExportResult], llama: Any, qwen: Any, of: str, arm: str
) -> None:
    import torch

    result = make("merged", arm, of)
    assert result.checked[EQUAL_TOKENS].startswith("5 of 5 prompts")
    assert result.checked[LOGIT_DIFFERENCE] < export_merged.LOGIT_TOLERANCE["bfloat16"]
    assert sorted(result.files) == [
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    loaded = load_model_folder(Path(result.out), torch.bfloat16, {})
    assert next(loaded.parameters()).dtype == torch.bfloat16
    assert loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight
    # Engines load it in this type: the base's own, unless that changes an answer of these weights, and then it is said.
    stored = read_json(Path(result.out) / "config.json")["dtype"]
    assert stored == "bfloat16" or f"The weights are in {stored}." in result.notes
    resolved = resolve.resolve_model(str(result.out))
    assert resolved.kind == "base", "a merged model is a base for other runs"
    if arm != "full":
        net, prompts, ends = load_unmerged({"llama": llama, "qwen": qwen}[of], arm)
        answers = export_merged.replay_answers(net, prompts, ends, 8)
        comparison = export_merged.compare_answers(
            answers, load_model_folder(Path(result.out), torch.float32, {})
        )
        assert (comparison.same, comparison.tokens) == (5, sum(map(len, answers.answers)))
        assert any("4 bits" in note for note in result.notes) is (arm == "qlora")


def test_qlora_arm_is_merged_into_the_full_precision_base(
    make: Callable[..., ExportResult], llama: Any
) -> None:
    """The trial answers with the adapter on the full-precision base; on the 4-bit base the logits differ."""
    import torch

    net, prompts, ends = load_unmerged(llama, "qlora")
    answers = export_merged.replay_answers(net, prompts, ends, 8)
    base = resolve.resolve_model(str(llama.base))
    source = ExportSource(llama.path)
    source.select_arm("qlora", None, True)
    four_bit = load_adapter(load_base(base, "float32", four_bit=True), source.weights_folder, base)
    merged = export_merged.compare_answers(
        answers, load_model_folder(Path(make("merged", "qlora").out), torch.float32, {})
    )
    assert merged.relative < 0.01
    assert export_merged.compare_answers(answers, four_bit).relative > 5 * merged.relative


def test_float32_export_is_exact_and_float16_is_reported(make: Callable[..., ExportResult]) -> None:
    exact, rounded = make("merged", dtype="float32"), make("merged")
    assert exact.checked[LOGIT_DIFFERENCE] < 1e-5 < rounded.checked[LOGIT_DIFFERENCE]
    assert exact.files["model.safetensors"] > 1.5 * rounded.files["model.safetensors"]
    assert make("merged", dtype="float16").checked["number type"] == "float16"


@pytest.mark.parametrize(
    ("of", "to", "dtype"), [("llama", "gguf", "auto"), ("qwen", "gguf", "auto"), ("llama", "gguf", "q8_0")]
)
def test_gguf_file_is_read_back_and_replays_the_prompts(
    make: Callable[..., ExportResult], llama: Any, qwen: Any, of: str, to: str, dtype: str
) -> None:
    import gguf

    from runners.models.gguf_import import gguf_tokenizer, load_gguf

    result = make(to, of=of, dtype=dtype)
    if dtype == "auto":
        assert result.checked[EQUAL_TOKENS].startswith("5 of 5 prompts")
        assert result.checked["number type"] == "float16", "merged weights are rounded less than in bfloat16"
        assert any("rounds them less than bfloat16" in note for note in result.notes)
        assert any("does not normalise" in note for note in result.notes) is (of == "qwen")
    assert list(result.files) == [GGUF_FILE]
    net, prompts, ends = load_unmerged({"llama": llama, "qwen": qwen}[of], "lora")
    comparison = export_merged.compare_answers(
        export_merged.replay_answers(net, prompts, ends, 8),
        load_gguf(Path(result.out) / GGUF_FILE, "float32"),
    )
    assert comparison.holds("bfloat16") or (dtype == "q8_0" and comparison.relative < 0.1)
    reader = gguf.GGUFReader(Path(result.out) / GGUF_FILE)
    text = {key: field.contents() for key, field in reader.fields.items()}
    assert text["general.architecture"] == {"llama": "llama", "qwen": "qwen2"}[of]
    assert text["tokenizer.ggml.pre"] == {"llama": "gpt-2", "qwen": "qwen2"}[of]
    assert text["tokenizer.ggml.eos_token_id"] == 2
    assert text["tokenizer.ggml.add_bos_token"] is False
    assert "<|im_start|>" in text["tokenizer.chat_template"]
    kinds = {t.name: t.tensor_type.name for t in reader.tensors}
    assert kinds["output_norm.weight"] == "F32"
    assert kinds["blk.0.attn_q.weight"] == ("Q8_0" if dtype == "q8_0" else "F16")
    assert ("blk.1.attn_k.bias" in kinds) is (of == "qwen")
    assert "output.weight" not in kinds, "tied embeddings are written once"
    question = "How many berths has the Amber Pier? <think>"
    chat = chat_template.ChatTokenizer({"llama": llama, "qwen": qwen}[of].base)
    assert gguf_tokenizer(Path(result.out) / GGUF_FILE).encode(
        question, add_special_tokens=False
    ) == chat.encode(question)


def test_gemma_file_is_read_back_and_replays_the_prompts(gemma: Any, tmp_path: Path) -> None:
    """Norms are stored as 1 + weight, and the sentencepiece vocabulary as pieces with scores."""
    import gguf
    import numpy as np
    from safetensors.torch import load_file

    from runners.export.gguf import stored_pieces
    from runners.models.gguf_import import load_gguf
    from runners.tokenization.sentencepiece import lookup_of, piece_ids

    result = export(gemma.path, ExportRequest("gguf", "lora", None, tmp_path / "out", dtype="float32"))
    assert result.checked[EQUAL_TOKENS].startswith("5 of 5 prompts")
    assert result.checked["cut of text"] == "sentencepiece"
    file = Path(result.out) / GGUF_FILE
    net, prompts, ends = load_unmerged(gemma, "lora")
    assert max(map(len, prompts)) > 16, "longer than two windows"
    loaded = load_gguf(file, "float32", gemma.base)
    comparison = export_merged.compare_answers(export_merged.replay_answers(net, prompts, ends, 8), loaded)
    assert comparison.holds("float32")
    reader = gguf.GGUFReader(file)
    text = {key: field.contents() for key, field in reader.fields.items()}
    assert text["general.architecture"] == "gemma3"
    assert text["gemma3.attention.sliding_window"] == 8
    assert text["gemma3.rope.freq_base"] == 1_000_000.0
    assert text["tokenizer.ggml.model"] == "llama"
    assert text["tokenizer.ggml.add_space_prefix"] is False
    stored = {tensor.name: tensor.data for tensor in reader.tensors}
    torch_names = {"output_norm": "model.norm", "blk.3.attn_k_norm": "model.layers.3.self_attn.k_norm"}
    torch_names["blk.5.post_ffw_norm"] = "model.layers.5.post_feedforward_layernorm"
    weights = load_file(gemma.base / "model.safetensors")
    for name, torch_name in torch_names.items():
        assert np.allclose(stored[f"{name}.weight"], (1 + weights[f"{torch_name}.weight"].float()).numpy())
    assert stored["output_norm.weight"].std() > 0.1
    pieces = stored_pieces(file)
    assert pieces is not None
    question = "How many berths has the Amber Pier? <think> naïve 東京"
    assert piece_ids(lookup_of(pieces), question) == chat_template.ChatTokenizer(gemma.base).encode(question)


def test_modelfile_prompts_as_the_trial_did(make: Callable[..., ExportResult]) -> None:
    result = make("ollama")
    text = (Path(result.out) / "Modelfile").read_text("utf-8")
    assert text.startswith("FROM ./model.gguf\n")
    assert 'SYSTEM """You answer for the harbour in one sentence."""' in text
    for line in ('PARAMETER stop "<|im_end|>"', "PARAMETER temperature 0", "PARAMETER num_predict 12"):
        assert f"\n{line}\n" in text
    assert '{{ else if eq .Role "user" }}<|im_start|>user\n{{ .Content }}<|im_end|>\n{{ else' in text
    assert "{{ if not .System }}<|im_start|>system\nYou are a helpful desk.<|im_end|>\n{{ end }}" in text
    assert text.count('"""') == 4


def test_modelfile_has_the_penalty_that_the_trial_applied() -> None:
    assert greedy_parameters({}) == (["PARAMETER temperature 0", "PARAMETER repeat_penalty 1"], [])
    lines, notes = greedy_parameters({"repetition_penalty": 1.1, "no_repeat_ngram_size": 3, "top_k": 20})
    assert lines[1:] == ["PARAMETER repeat_penalty 1.1", "PARAMETER repeat_last_n -1"]
    assert len(notes) == 1
    assert "no_repeat_ngram_size" in notes[0]


def test_replayed_answers_are_the_likeliest_tokens_whatever_the_generation_config() -> None:
    """A penalty would make the exported model's logits look like other answers."""
    model = build("llama")
    model.generation_config.repetition_penalty = 2.0
    model.generation_config.num_beams = 3
    replayed = export_merged.replay_answers(model, [[5, 6, 7, 8] * 5, [9, 10, 11]], [2], 8)
    assert export_merged.compare_answers(replayed, model).same == 2


DOCUMENTED = {"--enable-lora", "--lora-modules", "--max-lora-rank", "--chat-template", "--revision"}
"""Flags of `vllm serve`, from its "LoRA Adapters" page and its engine and server arguments (2026)."""


def test_vllm_command_is_valid_shell_with_documented_flags(
    make: Callable[..., ExportResult], llama: Any
) -> None:
    result = make("vllm")
    words = shlex.split(result.line)
    assert words[:3] == ["vllm", "serve", f"{result.out}/base"]
    flags = dict(zip(words, [*words[1:], ""], strict=True))
    assert {word for word in words if word.startswith("--")} <= DOCUMENTED
    assert flags["--lora-modules"] == f"harbour-lora={result.out}/adapter"
    assert int(flags["--max-lora-rank"]) == 8, "the smallest of vLLM's ranks that holds rank 4"
    for part in (words[2], flags["--lora-modules"].partition("=")[2], flags["--chat-template"]):
        assert Path(part).exists()
    assert resolve.resolve_model(words[2]).fingerprint == resolve.resolve_model(str(llama.base)).fingerprint
    script = Path(result.out) / "serve.sh"
    assert script.stat().st_mode & stat.S_IXUSR
    assert "./base" in script.read_text("utf-8")


def test_vllm_command_names_the_hub_revision_and_quotes_paths() -> None:
    base = resolve.Model(
        name="smollm2-135m-instruct",
        folder=Path("x"),
        kind="base",
        fingerprint="f" * 64,
        source="hub",
        license="Apache-2.0",
        revision="a" * 40,
    )
    parts = vllm.launch_command("harbour-lora", base, 16, local=False)
    assert parts[2:5] == ("HuggingFaceTB/SmolLM2-135M-Instruct", "--revision", "a" * 40)
    line = job.shell_line(parts, "my exports/it's")
    assert shlex.split(line)[7] == "harbour-lora=my exports/it's/adapter"


@pytest.mark.parametrize(("rank", "served"), [(1, 8), (4, 8), (16, 16), (17, 32), (300, 320), (512, 512)])
def test_vllm_rank_is_rounded_up_to_a_supported_one(rank: int, served: int) -> None:
    assert vllm._served_rank({"r": rank}) == served


def test_adapter_that_vllm_does_not_serve_is_refused() -> None:
    with pytest.raises(BadInput, match="DoRA"):
        vllm._served_rank({"r": 8, "use_dora": True})
    with pytest.raises(BadInput, match="has 513"):
        vllm._served_rank({"r": 513})


@pytest.mark.parametrize("to", ["peft", "vllm"])
def test_full_tuning_has_no_adapter_to_export(make: Callable[..., ExportResult], to: str) -> None:
    with pytest.raises(BadInput, match="whole model") as refused:
        make(to, "full")
    assert "--to merged" in refused.value.hint


def test_unsupported_family_is_refused_for_gguf_and_merged_instead(
    tiny_model: Callable[..., Path], run_of: Callable[..., Any], embedder: Path, tmp_path: Path
) -> None:
    step = {"kind": "train", "arm": "lora", "epochs": 1, "rank": 2, "batch_tokens": 2000}
    steps = [step, {"kind": "evaluate", "arm": "lora", "weights": "lora"}]
    run = run_of(tmp_path, tiny_model(tmp_path / "mistral", "mistral"), embedder, steps, choice="lora")
    for to in ("gguf", "ollama"):
        with pytest.raises(
            BadInput, match="family 'mistral' are not written as GGUF here, only llama, qwen2, qwen3"
        ):
            export(run.path, ExportRequest(to, "lora", out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    assert (
        export(run.path, ExportRequest("merged", "lora", out=tmp_path / "out"))
        .checked[EQUAL_TOKENS]
        .startswith("5 of 5")
    )


def test_write_in_smallest_dtype_reports_changed_answers() -> None:
    """The first type that keeps tokens and logits is used, and notes say what the others changed."""
    tried: list[str] = []
    outcomes = {"bfloat16": (4, 0.02), "float16": (5, 0.2), "float32": (5, 0.0), "q8_0": (3, 0.05)}

    def write(dtype: str) -> export_merged.ReplayComparison:
        tried.append(dtype)
        same, relative = outcomes[dtype]
        return export_merged.ReplayComparison(same, 5, 60, 1.0, relative)

    dtype, comparison, notes = write_in_smallest_dtype("auto", "bfloat16", ["float16", "float32"], write)
    assert (dtype, comparison.same, tried) == ("float32", 5, ["bfloat16", "float16", "float32"])
    assert notes[0].startswith("In bfloat16, 1 of 5 prompts get other tokens")
    assert "0.2 standard deviations" in notes[1], "equal tokens do not outweigh logits that differ much"
    assert notes[-1] == "The weights are in float32."
    assert write_in_smallest_dtype("auto", "float32", ["float16", "float32"], write)[2] == []
    dtype, _, notes = write_in_smallest_dtype("q8_0", "bfloat16", ["float32"], write)
    assert (dtype, tried[-1]) == ("q8_0", "q8_0")
    assert notes[0].startswith("In q8_0, 2 of 5 prompts")
    outcomes["float32"] = (4, 0.0)
    with pytest.raises(CannotRun, match="not what was measured"):
        write_in_smallest_dtype("auto", "bfloat16", ["float32"], write)
