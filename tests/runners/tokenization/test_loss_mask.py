"""Which tokens are targets, over the chat templates of well-known families (written here after their formats)."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.errors import BadInput
from runners.data.examples import Example
from runners.tokenization.chat_template import ChatTokenizer, EncodedRow
from runners.tokenization.preview import preview_segments, target_runs

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
MISTRAL = (
    "{% if messages[0].role == 'system' %}{% set said = messages[0].content + '\n\n' %}"
    "{% set turns = messages[1:] %}{% else %}{% set said = '' %}{% set turns = messages %}{% endif %}{{ bos_token }}"
    "{% for m in turns %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if m.role == 'user' %}{{ '[INST] ' + (said if loop.first else '') + m.content + ' [/INST]' }}"
    "{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}"
)
MISTRAL_LAST = MISTRAL.replace("said if loop.first", "said if loop.index0 + 2 >= turns | length")
"""Puts the instructions into the last question, wherever it is."""
GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for m in messages %}{% set role = 'model' if m.role == 'assistant' else m.role %}"
    "{{ '<start_of_turn>' + role + '\n' + m.content | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
ZEPHYR = (
    "{% for m in messages %}\n{% if m.role == 'user' %}\n{{ '<|user|>\n' + m.content + eos_token }}\n"
    "{% elif m.role == 'system' %}\n{{ '<|system|>\n' + m.content + eos_token }}\n"
    "{% elif m.role == 'assistant' %}\n{{ '<|assistant|>\n' + m.content + eos_token }}\n{% endif %}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
)
THINKING = (
    "{% set ns = namespace(last=-1) %}{% for m in messages %}{% if m.role == 'user' %}"
    "{% set ns.last = loop.index0 %}{% endif %}{% endfor %}{% for m in messages %}"
    "{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' and loop.index0 > ns.last %}"
    "{{ '<think>\n' + (m.reasoning_content or '') + '\n</think>\n\n' }}{% endif %}{{ m.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""Shows the reasoning of the last answer only, and an empty one when there is none."""
MARKED = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content }}{% endgeneration %}{{ '<|im_end|>\n' }}"
    "{% else %}{{ m.content + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CALLING = CHATML.replace(
    "m.content +", "(m.content or (m.tool_calls | tojson if m.tool_calls else '')) +"
).replace("{% for", "{% if tools %}{{ 'Tools: ' + tools | tojson + '\n' }}{% endif %}{% for", 1)

TALK = (
    {"role": "user", "content": "Is the café open?"},
    {"role": "assistant", "content": "Yes, until ten."},
    {"role": "user", "content": "Yes, until ten."},
    {"role": "assistant", "content": "Anything else?"},
)
SYSTEM = {"role": "system", "content": "Be brief."}
FAMILIES = {
    "chatml": (CHATML, "<|im_end|>", ("<|im_start|>",)),
    "llama-3": (LLAMA3, "<|eot_id|>", ("<|start_header_id|>", "<|end_header_id|>")),
    "mistral": (MISTRAL, "</s>", ("[INST]", "[/INST]")),
    "gemma": (GEMMA, "<end_of_turn>", ("<start_of_turn>",)),
    "zephyr": (ZEPHYR, "</s>", ()),
    "plain": ("", "<|im_end|>", ()),
    "marked": (MARKED, "<|im_end|>", ("<|im_start|>",)),
}

Make = Callable[..., ChatTokenizer]


def make_folder(
    folder: Path, template: str, end: str, marks: tuple[str, ...], adds_bos: bool = False
) -> Path:
    """Write a tokenizer of bytes with the marks of a family; the tokenizer's own end token may be another."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    special = ["<s>", "</s>", *dict.fromkeys((end, *marks))]
    vocab = {
        token: n
        for n, token in enumerate(dict.fromkeys((*special, *sorted(pre_tokenizers.ByteLevel.alphabet()))))
    }
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    if adds_bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    eos = "<|im_end|>" if end == "<|im_end|>" else "</s>"
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": eos}), "utf-8")
    if template:
        (folder / "chat_template.jinja").write_text(template, "utf-8")
    return folder


@pytest.fixture(scope="session")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Return the maker of chats for a template."""

    def chat(
        template: str, end: str = "<|im_end|>", marks: tuple[str, ...] = (), **more: Any
    ) -> ChatTokenizer:
        return ChatTokenizer(
            make_folder(tmp_path_factory.mktemp("chat") / "model", template, end, marks, **more)
        )

    return chat


@pytest.fixture(scope="session")
def families(make: Make) -> dict[str, ChatTokenizer]:
    """One chat for each family."""
    return {name: make(*family) for name, family in FAMILIES.items()}


def learnt(encoded: EncodedRow, chat: ChatTokenizer) -> list[str]:
    """The learnt runs of an example."""
    return [text for text, flag in target_runs(encoded, chat) if flag]


@pytest.mark.parametrize("name", FAMILIES)
def test_only_answers_with_their_end_tokens_are_targets(
    families: dict[str, ChatTokenizer], name: str
) -> None:
    chat, end = families[name], FAMILIES[name][1]
    lead = " " if name == "mistral" else ""
    answers = [f"{lead}Yes, until ten.{end}", f"{lead}Anything else?{end}"]
    encoded = chat.example(Example(TALK))
    assert learnt(encoded, chat) == answers
    assert encoded.ids[encoded.learnt[-1]] in chat.eos_ids
    assert learnt(chat.example(Example(TALK), "last"), chat) == answers[1:]
    assert encoded.note == ""


@pytest.mark.parametrize("name", [n for n in FAMILIES if n != "gemma"])
def test_system_turn_is_no_target(families: dict[str, ChatTokenizer], name: str) -> None:
    chat = families[name]
    encoded = chat.example(Example((SYSTEM, *TALK)))
    assert len(learnt(encoded, chat)) == 2
    assert "Be brief." in "".join(text for text, flag in target_runs(encoded, chat) if not flag)


@pytest.mark.parametrize("name", FAMILIES)
def test_targets_follow_the_prompt(families: dict[str, ChatTokenizer], name: str) -> None:
    """The tokens before an answer are those the model sees when it is asked, to the last one."""
    chat = families[name]
    encoded = chat.example(Example(TALK), "last")
    asked = chat.encode(chat.render(TALK[:-1], prompt=True))
    assert list(encoded.ids[: encoded.prompt]) == asked
    assert encoded.learnt == tuple(range(encoded.prompt, encoded.learnt[-1] + 1))


def test_preview_segments_are_the_whole_text(families: dict[str, ChatTokenizer]) -> None:
    for chat in families.values():
        encoded = chat.example(Example(TALK))
        runs = preview_segments(encoded, chat)
        assert "".join(run.text for run in runs) == chat.render(TALK)
        assert all((a.learnt, a.special) != (b.learnt, b.special) for a, b in pairwise(runs))
        assert {r.text for r in runs if r.special} <= {
            f"{a}{b}" for a in ("", *_marks(chat)) for b in _marks(chat)
        }


def _marks(chat: ChatTokenizer) -> list[str]:
    return [token.content for token in chat.tokenizer.get_added_tokens_decoder().values()]


def test_refused_system_turn_is_folded_into_the_question(families: dict[str, ChatTokenizer]) -> None:
    encoded = families["gemma"].example(Example((SYSTEM, *TALK), {}, 9))
    assert len(learnt(encoded, families["gemma"])) == 2
    text = "".join(text for text, _ in target_runs(encoded, families["gemma"]))
    assert "<start_of_turn>user\nBe brief.\n\nIs the café open?<end_of_turn>" in text


def test_refused_chat_names_its_row(families: dict[str, ChatTokenizer]) -> None:
    with pytest.raises(BadInput, match=r"example on line 9: .*roles must alternate"):
        families["mistral"].example(Example((TALK[1], *TALK), {}, 9))


def test_rewriting_template_trains_last_answer_only(make: Make) -> None:
    chat = make(THINKING, "<|im_end|>", ("<|im_start|>",))
    encoded = chat.example(Example(TALK))
    (text,) = learnt(encoded, chat)
    assert "Anything else?" in text
    assert "1 of 2 answers" in encoded.note
    alone = chat.example(Example(TALK[:2]))
    assert (len(learnt(alone, chat)), alone.note) == (1, "")


def test_instructions_that_a_template_moves_stay_in_the_first_question(make: Make) -> None:
    """With the instructions in the last question, wherever it is, the prompt of no answer would stay as it was."""
    chat = make(MISTRAL_LAST, "</s>", ("[INST]", "[/INST]"))
    encoded = chat.example(Example((SYSTEM, *TALK)))
    assert (len(learnt(encoded, chat)), encoded.note) == (2, "")
    assert chat.tokenizer.decode(list(encoded.ids)).strip().startswith("Be brief.")


def test_reasoning_is_a_target_in_last_answer_only(make: Make) -> None:
    chat = make(THINKING, "<|im_end|>", ("<|im_start|>",))
    thought = [dict(m, reasoning_content="Hm.") if m["role"] == "assistant" else m for m in TALK]
    encoded = chat.example(Example(tuple(thought)))
    assert learnt(encoded, chat) == ["<think>\nHm.\n</think>\n\nAnything else?<|im_end|>"]
    assert chat.tokenizer.decode(list(encoded.ids)).count("Hm.") == 1


def test_answer_that_does_not_continue_prompt_is_refused(make: Make) -> None:
    forced = CHATML.replace("assistant\n' }}{% endif", "assistant\nSure:\n' }}{% endif")
    with pytest.raises(BadInput, match=r"asks with 'Sure:\\n' at the end"):
        make(forced).example(Example(TALK))


def test_reasoning_that_the_prompt_opens_is_closed_before_the_answer(make: Make) -> None:
    forced = CHATML.replace("assistant\n' }}{% endif", "assistant\n<think>\n' }}{% endif")
    chat = make(forced, "<|im_end|>", ("<|im_start|>",))
    encoded = chat.example(Example(TALK[:2]))
    assert learnt(encoded, chat) == ["\n</think>\n\nYes, until ten.<|im_end|>"]
    assert list(encoded.ids[: encoded.prompt]) == chat.encode(chat.render(TALK[:1], prompt=True))


def test_turn_dropped_by_template_is_refused(make: Make, families: dict[str, ChatTokenizer]) -> None:
    tool = {"role": "tool", "content": "open: yes"}
    with pytest.raises(BadInput, match="drops the tool turn"):
        families["zephyr"].example(Example((*TALK[:1], tool, *TALK[1:2])))
    deaf = make("{% for m in messages if m.role != 'system' %}{{ m.content + eos_token }}{% endfor %}")
    folded = deaf.tokenizer.decode(list(deaf.example(Example((SYSTEM, *TALK))).ids))
    assert folded.startswith("Be brief.\n\nIs the café open?")


def test_turn_end_may_differ_from_eos_token(families: dict[str, ChatTokenizer]) -> None:
    chat = families["llama-3"]
    assert chat.special["eos_token"] == "</s>"
    assert chat.eos_ids == {chat.tokenizer.token_to_id(t) for t in ("</s>", "<|eot_id|>")}


def test_tool_turns_are_no_targets(make: Make, families: dict[str, ChatTokenizer]) -> None:
    call = {"type": "function", "function": {"name": "hours", "arguments": {"place": "café"}}}
    turns = (
        TALK[0],
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "10"},
        TALK[1],
    )
    chat = make(CALLING, "<|im_end|>", ("<|im_start|>",))
    example = Example(turns, tools=({"name": "hours"},))
    encoded = chat.example(example)
    assert learnt(encoded, chat) == ["Yes, until ten.<|im_end|>"]
    assert 'Tools: [{"name": "hours"}]' in chat.tokenizer.decode(list(encoded.ids))
    with pytest.raises(BadInput, match="the chat calls tools"):
        families["chatml"].example(example)


def test_weight_0_excludes_an_answer(families: dict[str, ChatTokenizer]) -> None:
    first = dict(TALK[1], weight=0)
    encoded = families["chatml"].example(Example((TALK[0], first, *TALK[2:])))
    assert learnt(encoded, families["chatml"]) == ["Anything else?<|im_end|>"]


def test_marked_template_gives_the_mask_of_transformers(tmp_path: Path) -> None:
    """Their mask is what the marks enclose; ours as well, here where they enclose the end too."""
    from transformers import BatchEncoding

    from runners.inference.weights import load_tokenizer

    template = MARKED.replace(
        "m.content }}{% endgeneration %}{{ '<|im_end|>\n'",
        "m.content + '<|im_end|>' }}{% endgeneration %}{{ '\n'",
    )
    folder = make_folder(tmp_path / "model", template, "<|im_end|>", ("<|im_start|>",))
    theirs = load_tokenizer(folder).apply_chat_template(
        [dict(m) for m in TALK], return_dict=True, return_assistant_tokens_mask=True
    )
    assert isinstance(theirs, BatchEncoding)
    ours = ChatTokenizer(folder).example(Example(TALK))
    assert list(ours.ids) == theirs["input_ids"]
    assert [i for i, flag in enumerate(theirs["assistant_masks"]) if flag] == list(ours.learnt)


def test_tools_render_as_transformers_does(tmp_path: Path) -> None:
    from runners.inference.weights import load_tokenizer

    folder = make_folder(tmp_path / "model", CALLING, "<|im_end|>", ("<|im_start|>",))
    tools: list[Any] = [{"type": "function", "function": {"name": "hours", "description": "Ask «when»."}}]
    theirs = load_tokenizer(folder).apply_chat_template([dict(m) for m in TALK], tools=tools, tokenize=False)
    assert ChatTokenizer(folder).render(TALK, tools=tools) == theirs


words = st.text(st.characters(exclude_categories=("Cs", "Cn"), exclude_characters="<[|"), min_size=1).filter(
    lambda text: text.strip() == text
)


@settings(max_examples=60)
@given(said=st.lists(words, min_size=2, max_size=6), name=st.sampled_from(sorted(FAMILIES)))
def test_any_answers_are_targets_in_full(
    families: dict[str, ChatTokenizer], said: list[str], name: str
) -> None:
    chat, said = families[name], said[: len(said) // 2 * 2]
    roles = ("user", "assistant")
    turns = tuple({"role": roles[i % 2], "content": text} for i, text in enumerate(said))
    encoded = chat.example(Example(turns))
    taught = chat.tokenizer.decode([encoded.ids[i] for i in encoded.learnt], skip_special_tokens=False)
    end = FAMILIES[name][1]
    lead = " " if name == "mistral" else ""
    assert taught == "".join(f"{lead}{text}{end}" for text in said[1::2])
