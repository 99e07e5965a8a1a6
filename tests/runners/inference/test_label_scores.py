"""Likelihoods of labels: tree, copied caches and plain rows agree; the tokens of labels are those of training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.errors import BadInput
from runners.arms.scored_labels import ScoredLabels
from runners.data.examples import Example
from runners.inference.label_scores import AnswerScorer, AnswerTokens, TokenTree, encode_answers
from runners.inference.local import LocalGenerator, local_generator
from runners.models.resolve import Model, resolve_model
from runners.tokenization.chat_template import ChatTokenizer
from tests.runners.families.decoding import END, LENGTHS, make_prompts, open_generator, save_family

ANSWERS: AnswerTokens = ((5, END), (5, 6, END), (5, 6, 7, 8, END), (9, END), (5, 9, 9, END), (5, 6, END))
"""One is the beginning of others, and one is there twice."""
LABELS = ("card", "card_acceptance", "north pier", "Yes")


def one_by_one(model: Any, prompts: Sequence[list[int]], answers: AnswerTokens) -> torch.Tensor:
    """Return the log-likelihoods [prompts, answers] by transformers, every answer alone, without cache and padding."""
    totals = torch.zeros(len(prompts), len(answers))
    for row, prompt in enumerate(prompts):
        for column, answer in enumerate(answers):
            with torch.inference_mode():
                logits = model(input_ids=torch.tensor([[*prompt, *answer]]), use_cache=False).logits[0]
            each = logits.float().log_softmax(-1)[len(prompt) - 1 : -1]
            totals[row, column] = each.gather(1, torch.tensor(answer)[:, None]).sum()
    return totals


class UnfitScorer(AnswerScorer):
    """One for an architecture that does something else with the mask of the tree, or with the copied cache."""

    def by_tree(self, *_: object) -> torch.Tensor:
        return torch.zeros(1, 2)

    def by_cached_rows(self, *_: object) -> torch.Tensor:
        return torch.zeros(1, 2)


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("llama", "tree"),
        ("gpt2", "tree"),
        ("qwen3-moe", "tree"),
        ("gemma3", "cached"),
        ("bloom", "cached"),
        ("qwen3-next", "rows"),
        ("minimax", "rows"),
    ],
)
def test_every_way_gives_likelihoods_of_answers_alone(name: str, way: str, tmp_path: Path) -> None:
    """The weights are random, so that a wrong mask or position changes likelihoods by much more than rounding does."""
    save_family(name, tmp_path)
    generator = open_generator(tmp_path)
    prompts = make_prompts(LENGTHS)
    expected = one_by_one(generator.model, prompts, ANSWERS)
    scorer = AnswerScorer(generator)
    computed = torch.tensor(scorer.log_likelihoods(prompts, ANSWERS))
    assert scorer.way(ANSWERS, prompts[0]) == way
    torch.testing.assert_close(computed, expected, atol=1e-4, rtol=0)
    # The same answer twice; rows of batches of other sizes may round otherwise.
    torch.testing.assert_close(computed[:, 1], computed[:, 5], atol=1e-5, rtol=0)
    if way == "tree":
        shared = generator.shared_prefix(prompts[:2])
        assert shared is not None
        again = torch.tensor(scorer.log_likelihoods(prompts[:2], ANSWERS, shared))
        torch.testing.assert_close(again, expected[:2], atol=1e-4, rtol=0)
    unfit = UnfitScorer(generator)
    rows = torch.tensor(unfit.log_likelihoods(prompts, ANSWERS))
    assert unfit.way(ANSWERS, prompts[0]) == "rows"
    torch.testing.assert_close(rows, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("name", "way"), [("llama", "tree"), ("gemma3", "cached"), ("qwen3-next", "rows")])
def test_head_is_computed_in_fp32_where_the_model_is_in_16_bits(name: str, way: str, tmp_path: Path) -> None:
    """Logits of some 20 are 0.06 to 0.13 apart in bf16; hidden states in bf16 and a head in fp32 give what is expected."""
    save_family(name, tmp_path)
    generator = LocalGenerator(resolve_model(str(tmp_path)), None, "bfloat16")
    model = generator.model
    head = model.get_output_embeddings()
    with torch.no_grad():
        head.weight.mul_(8 / (head.weight.float().std() * head.weight.shape[1] ** 0.5))
    prompts = make_prompts(LENGTHS)[:2]
    scorer = AnswerScorer(generator)
    computed = torch.tensor(scorer.log_likelihoods(prompts, ANSWERS))
    assert scorer.taken_way == way
    assert "forward" not in vars(head), "the head is the model's own again"
    expected = torch.zeros_like(computed)
    for row, prompt in enumerate(prompts):
        for column, answer in enumerate(ANSWERS):
            with torch.inference_mode():
                hidden = model.base_model(input_ids=torch.tensor([[*prompt, *answer]]), use_cache=False)[0][0]
                each = (hidden.float() @ head.weight.float().t()).log_softmax(-1)[len(prompt) - 1 : -1]
            expected[row, column] = each.gather(1, torch.tensor(answer)[:, None]).sum()
    torch.testing.assert_close(computed, expected, atol=1e-3, rtol=0)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tiny Llama's generator."""
    folder = tmp_path_factory.mktemp("llama")
    save_family("llama", folder)
    return open_generator(folder)


def test_tree_in_several_steps_is_the_same(llama: Any) -> None:
    prompts = make_prompts(LENGTHS)
    whole = AnswerScorer(llama).log_likelihoods(prompts, ANSWERS)
    two_nodes = AnswerScorer(llama, max_logits=2 * 256 * len(prompts))
    parts = two_nodes.log_likelihoods(prompts, ANSWERS)
    torch.testing.assert_close(torch.tensor(parts), torch.tensor(whole), atol=1e-4, rtol=0)


answers_of_few_tokens = st.lists(
    st.lists(st.integers(3, 6), max_size=4).map(lambda tokens: (*tokens, END)), min_size=1, max_size=8
)


@settings(max_examples=15, deadline=None)
@given(answers_of_few_tokens, st.integers(1, 3))
def test_tree_agrees_with_answers_one_by_one(
    llama: Any, answers: list[tuple[int, ...]], prompts: int
) -> None:
    asked = make_prompts(LENGTHS)[:prompts]
    computed = torch.tensor(AnswerScorer(llama).log_likelihoods(asked, tuple(answers)))
    expected = one_by_one(llama.model, asked, tuple(answers))
    torch.testing.assert_close(computed, expected, atol=1e-4, rtol=0)
    assert (computed.argmax(1) == expected.argmax(1)).all() or len(set(answers)) < len(answers)


@given(answers_of_few_tokens)
def test_tree_holds_every_answer_once(answers: list[tuple[int, ...]]) -> None:
    tree = TokenTree.of(tuple(answers))
    assert [tuple(tree.edges[edge][1] for edge in path) for path in tree.paths] == answers
    beginnings = {answer[:end] for answer in answers for end in range(1, len(answer))}
    assert len(tree.tokens) == len(beginnings)
    assert all(parent < node for node, parent in enumerate(tree.parents))
    seen = tree.visible()
    assert [int(row.sum()) for row in seen] == list(tree.depths)


def training_tokens(chat: ChatTokenizer, question: str, label: str) -> tuple[int, ...]:
    """Return the targets of a training row with this answer."""
    turns = ({"role": "user", "content": question}, {"role": "assistant", "content": label})
    row = chat.example(Example(turns, {}, 1))
    return tuple(row.ids[position] for position in row.learnt)


@pytest.mark.parametrize("template", ["chatml", "space", "none"])
def test_labels_are_encoded_as_in_training(tiny: Model, tmp_path: Path, template: str) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny.folder)
    if template == "space":  # of the answer's first token, as Llama 2's template writes it
        tokenizer.chat_template = (
            "{% for m in messages %}{{ '[A]' if m.role == 'user' else '[B]' }}{{ ' ' + m.content + eos_token }}"
            "{% endfor %}{% if add_generation_prompt %}[B]{% endif %}"
        )
    if template == "none":
        tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path)
    chat = ChatTokenizer(tmp_path)
    chats = [[{"role": "user", "content": text}] for text in ("When does it open?", "A")]
    prompts = [chat.encode(chat.render(each, prompt=True)) for each in chats]
    encoded = encode_answers(chat, prompts, chats, LABELS)
    for question, answers in zip(("When does it open?", "A"), encoded, strict=True):
        assert answers == tuple(training_tokens(chat, question, label) for label in LABELS)
    assert encoded[0] is encoded[1], "encoded once"
    assert {answer[-1] for answer in encoded[0]} <= chat.eos_ids
    # A prompt with another end is encoded with every label.
    other = encode_answers(chat, [[*prompts[0], 7]], chats[:1], LABELS)
    assert other[0] == encoded[0]
    assert other[0] is not encoded[0]


def test_highest_corrected_score_is_the_answer(tiny: Model) -> None:
    generator = local_generator(tiny, dtype="float32")
    chats = [[{"role": "user", "content": f"When does pier {n} open?"}] for n in range(5)]
    scored = ScoredLabels(generator, LABELS)
    sums = scored.scores(chats)
    batches: list[list[int]] = []
    answers = scored.generate(chats, 1, lambda indexes, _: batches.append(indexes))
    assert [answer.text for answer in answers] == [LABELS[row.index(max(row))] for row in sums]
    assert sorted(index for batch in batches for index in batch) == list(range(5))
    assert {answer.finish for answer in answers} == {"stop"}
    assert all(answer.prompt_tokens and answer.completion_tokens and answer.seconds > 0 for answer in answers)
    assert [a.text for a in scored.generate(chats, 1, known={0, 3})] == [answers[n].text for n in (1, 2, 4)]
    stream = scored.stream(chats[1], 1)
    assert (list(stream), stream.completion.text) == ([answers[1].text], answers[1].text)
    # The prior is taken off; equal scores give the first label of the plan.
    wanted = [score - (label == "Yes") for score, label in zip(sums[0], LABELS, strict=True)]
    assert ScoredLabels(generator, LABELS, wanted).generate(chats[:1], 1)[0].text == "Yes"
    assert ScoredLabels(generator, LABELS, sums[0]).generate(chats[:1], 1)[0].text == LABELS[0]
    with pytest.raises(BadInput, match="more than the 512"):
        scored.generate([[{"role": "user", "content": "When? " * 300}]], 1)


@pytest.mark.real
def test_real_model_scores_as_rows_do(smollm: Model) -> None:
    generator = local_generator(smollm, dtype="float32")
    chats = [[{"role": "user", "content": text}] for text in ("Is the sky blue? Yes or no.", "2 + 2?")]
    labels = ("Yes", "No", "4", "5", "Yes, it is")
    scored = ScoredLabels(generator, labels)
    prompts = [generator.prompt(chat, 9) for chat in chats]
    answers = encode_answers(generator.chat, prompts, chats, labels)[0]
    expected = one_by_one(generator.model, prompts, answers)
    computed = torch.tensor(scored.scores(chats))
    torch.testing.assert_close(computed, expected, atol=5e-3, rtol=0)
