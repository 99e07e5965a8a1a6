"""Training and asking agree over the chat templates of many public families, and the loss is taken on the reply alone.

The templates are written here in the style of the families; each has a folder with a tiny tokenizer.
"""

# ruff: noqa: E501
from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from runners.arms.prompts import build_messages, training_row
from runners.data.examples import Example
from runners.plan.data import Prompts
from runners.tokenization.chat_template import ChatTokenizer

_ALTERNATE = (
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
)
_CHATML_TURNS = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
GEMMA_2 = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}" + _ALTERNATE + "{% set role = 'model' if m.role == 'assistant' else m.role %}"
    "{{ '<start_of_turn>' + role + '\n' + m.content | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
GEMMA_3 = (
    "{{ bos_token }}{%- if messages[0]['role'] == 'system' -%}"
    "{%- set first = messages[0]['content'] + '\n\n' -%}{%- set turns = messages[1:] -%}"
    "{%- else -%}{%- set first = '' -%}{%- set turns = messages -%}{%- endif -%}"
    "{%- for m in turns -%}" + _ALTERNATE + "{%- set role = 'model' if m.role == 'assistant' else m.role -%}"
    "{{ '<start_of_turn>' + role + '\n' + (first if loop.first else '') }}{{ m.content | trim }}"
    "{{ '<end_of_turn>\n' }}{%- endfor -%}{%- if add_generation_prompt -%}{{ '<start_of_turn>model\n' }}{%- endif -%}"
)
LLAMA_2 = (
    "{% if messages[0]['role'] == 'system' %}{% set turns = messages[1:] %}{% set system = messages[0]['content'] %}"
    "{% else %}{% set turns = messages %}{% set system = false %}{% endif %}{% for m in turns %}" + _ALTERNATE +
    "{% if loop.index0 == 0 and system != false %}"
    "{% set content = '<<SYS>>\n' + system + '\n<</SYS>>\n\n' + m['content'] %}{% else %}{% set content = m['content'] %}"
    "{% endif %}{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)  # fmt: skip
LLAMA_3 = (
    "{% set loop_messages = messages %}{% for m in loop_messages %}"
    "{% set content = '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
LLAMA_3_1 = (
    "{{- bos_token }}{%- if strftime_now is defined %}{%- set today = strftime_now('%d %b %Y') %}"
    "{%- else %}{%- set today = '26 Jul 2024' %}{%- endif %}"
    "{%- if messages[0]['role'] == 'system' %}{%- set system = messages[0]['content'] | trim %}"
    "{%- set messages = messages[1:] %}{%- else %}{%- set system = '' %}{%- endif %}"
    "{{- '<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\nToday Date: ' + today }}"
    "{%- if tools is not none %}{{- '\nTools: ' + tools | tojson }}{%- endif %}{{- '\n\n' + system + '<|eot_id|>' }}"
    "{%- for m in messages %}{{- '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' }}"
    "{%- if 'tool_calls' in m %}{{- m.tool_calls | tojson }}{%- else %}{{- m.content | trim }}{%- endif %}"
    "{{- '<|eot_id|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"
)
MISTRAL_V01 = (
    "{{ bos_token }}{% for m in messages %}" + _ALTERNATE + "{% if m['role'] == 'user' %}"
    "{{ '[INST] ' + m['content'] + ' [/INST]' }}{% elif m['role'] == 'assistant' %}{{ m['content'] + eos_token + ' ' }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
MISTRAL_V03 = (
    "{%- if messages[0]['role'] == 'system' %}{%- set system = messages[0]['content'] %}{%- set turns = messages[1:] %}"
    "{%- else %}{%- set turns = messages %}{%- endif %}{{- bos_token }}{%- for m in turns %}" + _ALTERNATE +
    "{%- if m['role'] == 'user' %}{%- if loop.last and system is defined %}"
    "{{- '[INST] ' + system + '\n\n' + m['content'] + '[/INST]' }}"
    "{%- else %}{{- '[INST] ' + m['content'] + '[/INST]' }}{%- endif %}"
    "{%- else %}{{- ' ' + m['content'] | trim + eos_token }}{%- endif %}{%- endfor %}"
)  # fmt: skip
MISTRAL_TEKKEN = (
    "{{- bos_token }}{%- if messages[0]['role'] == 'system' %}{%- set turns = messages[1:] %}"
    "{{- '[SYSTEM_PROMPT]' + messages[0]['content'] + '[/SYSTEM_PROMPT]' }}"
    "{%- else %}{%- set turns = messages %}"
    "{{- '[SYSTEM_PROMPT]You are Mistral Small 3, created by a company in Paris.[/SYSTEM_PROMPT]' }}{%- endif %}"
    "{%- for m in turns %}"
    + _ALTERNATE
    + "{%- if m['role'] == 'user' %}{{- '[INST]' + m['content'] + '[/INST]' }}"
    "{%- else %}{{- m['content'] + eos_token }}{%- endif %}{%- endfor %}"
)
QWEN_2_5 = (
    "{%- if tools %}{{- '<|im_start|>system\n# Tools\n' + tools | tojson + '<|im_end|>\n' }}"
    "{%- elif messages[0]['role'] == 'system' %}{{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}"
    "{%- else %}{{- '<|im_start|>system\nYou are Qwen, a helpful assistant.<|im_end|>\n' }}{%- endif %}"
    "{%- for m in messages %}{%- if (m.role == 'user') or (m.role == 'system' and not loop.first) or "
    "(m.role == 'assistant' and not m.tool_calls) %}"
    "{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n' }}"
    "{%- elif m.role == 'assistant' %}{{- '<|im_start|>assistant\n' + m.tool_calls | tojson + '<|im_end|>\n' }}"
    "{%- endif %}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
QWEN_3 = (
    "{%- if messages[0].role == 'system' %}{{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}{%- endif %}"
    "{%- set ns = namespace(last=0) %}{%- for m in messages %}{%- if m.role == 'user' %}{%- set ns.last = loop.index0 %}"
    "{%- endif %}{%- endfor %}{%- for m in messages %}{%- if m.role == 'user' or (m.role == 'system' and not loop.first) %}"
    "{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n' }}{%- elif m.role == 'assistant' %}"
    "{%- set content = m.content %}{%- set reasoning_content = '' %}"
    "{%- if m.reasoning_content is string %}{%- set reasoning_content = m.reasoning_content %}"
    "{%- elif '</think>' in content %}"
    "{%- set reasoning_content = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}"
    "{%- set content = content.split('</think>')[-1].lstrip('\n') %}{%- endif %}"
    "{%- if loop.index0 > ns.last and (loop.last or reasoning_content) %}"
    "{{- '<|im_start|>assistant\n<think>\n' + reasoning_content.strip('\n') + '\n</think>\n\n' + content.lstrip('\n') }}"
    "{%- else %}{{- '<|im_start|>assistant\n' + content }}{%- endif %}{{- '<|im_end|>\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}{%- endif %}"
)
PHI_3 = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ '<|system|>\n' + m['content'] + '<|end|>\n' }}"
    "{% elif m['role'] == 'user' %}{{ '<|user|>\n' + m['content'] + '<|end|>\n' }}"
    "{% elif m['role'] == 'assistant' %}{{ '<|assistant|>\n' + m['content'] + '<|end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
SMOLLM3 = (
    "{%- if enable_thinking is not defined %}{%- set enable_thinking = true %}{%- endif %}"
    "{%- set mode = '/think' if enable_thinking else '/no_think' %}"
    "{%- set custom = messages[0].content if messages[0].role == 'system' else '' %}"
    "{{- '<|im_start|>system\n## Metadata\n\nToday Date: ' + strftime_now('%d %B %Y') + '\nReasoning Mode: ' + mode + '\n\n' }}"
    "{{- '## Custom Instructions\n\n' + (custom.rstrip() or 'You are a helpful AI assistant.') + '\n\n<|im_end|>\n' }}"
    "{%- for m in messages %}{%- if m.role == 'user' %}{{- '<|im_start|>user\n' + m.content + '<|im_end|>\n' }}"
    "{%- elif m.role == 'assistant' %}{% generation %}{%- if mode == '/think' %}"
    "{{- '<|im_start|>assistant\n' + m.content.lstrip('\n') + '<|im_end|>\n' }}{%- else %}"
    "{{- '<|im_start|>assistant\n<think>\n\n</think>\n\n' + m.content.lstrip('\n') + '<|im_end|>\n' }}{%- endif %}"
    "{% endgeneration %}{%- endif %}{%- endfor %}{%- if add_generation_prompt %}{%- if mode == '/think' %}"
    "{{- '<|im_start|>assistant\n' }}{%- else %}{{- '<|im_start|>assistant\n<think>\n\n</think>\n\n' }}{%- endif %}{%- endif %}"
)
DEEPSEEK_R1 = (
    "{% set ns = namespace(system='') %}{%- for m in messages %}{%- if m['role'] == 'system' %}"
    "{% set ns.system = m['content'] %}{%- endif %}{%- endfor %}{{ bos_token }}{{ ns.system }}"
    "{%- for m in messages %}{%- if m['role'] == 'user' %}{{ '<｜User｜>' + m['content'] }}"
    "{%- elif m['role'] == 'assistant' %}{% set content = m['content'] %}{% if '</think>' in content %}"
    "{% set content = content.split('</think>')[-1] %}{% endif %}"
    "{{ '<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>' }}{%- endif %}{%- endfor -%}"
    "{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\n' }}{% endif %}"
)
DEEPSEEK_V3_1 = (
    "{{ bos_token }}{%- for m in messages %}{%- if m.role == 'system' %}{{ m.content }}{%- endif %}{%- endfor %}"
    "{%- for m in messages %}{%- if m.role == 'user' %}{{ '<｜User｜>' + m.content }}{%- elif m.role == 'assistant' %}"
    "{{ '<｜Assistant｜></think>' + m.content.split('</think>')[-1] + '<｜end▁of▁sentence｜>' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<｜Assistant｜>' }}{%- if not thinking %}{{ '</think>' }}{%- else %}{{ '<think>' }}"
    "{%- endif %}{%- endif %}"
)
ZEPHYR = (
    "{% for m in messages %}\n{% if m['role'] == 'user' %}\n{{ '<|user|>\n' + m['content'] + eos_token }}\n"
    "{% elif m['role'] == 'system' %}\n{{ '<|system|>\n' + m['content'] + eos_token }}\n"
    "{% elif m['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + m['content'] + eos_token }}\n{% endif %}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
)
OLMO_2 = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}{{ '<|system|>\n' + m['content'] + '\n' }}"
    "{% elif m['role'] == 'user' %}{{ '<|user|>\n' + m['content'] + '\n' }}{% elif m['role'] == 'assistant' %}"
    "{% if not loop.last %}{{ '<|assistant|>\n'  + m['content'] + eos_token + '\n' }}"
    "{% else %}{{ '<|assistant|>\n'  + m['content'] + eos_token }}{% endif %}{% endif %}"
    "{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}{% endfor %}"
)
GRANITE = (
    "{%- if messages[0]['role'] == 'system' %}{%- set system = messages[0]['content'] %}{%- set turns = messages[1:] %}"
    "{%- else %}{%- set system = 'Knowledge Cutoff Date: April 2024.\nToday Date: ' + strftime_now('%B %d, %Y') + "
    "'.\nYou are Granite.' %}{%- if thinking %}{%- set system = system + ' Write your thoughts first.' %}{%- endif %}"
    "{%- set turns = messages %}{%- endif %}"
    "{{- '<|start_of_role|>system<|end_of_role|>' + system + '<|end_of_text|>\n' }}{%- for m in turns %}"
    "{{- '<|start_of_role|>' + m['role'] + '<|end_of_role|>' + m['content'] + '<|end_of_text|>\n' }}"
    "{%- if loop.last and add_generation_prompt %}{{- '<|start_of_role|>assistant<|end_of_role|>' }}{%- endif %}{%- endfor %}"
)
COMMAND_R = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set turns = messages[1:] %}"
    "{% set system = messages[0]['content'] %}{% else %}{% set turns = messages %}{% set system = false %}{% endif %}"
    "{% if system != false %}{{ '<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>' + system + '<|END_OF_TURN_TOKEN|>' }}{% endif %}"
    "{% for m in turns %}" + _ALTERNATE + "{% set content = m['content'] %}{% if m['role'] == 'user' %}"
    "{{ '<|START_OF_TURN_TOKEN|><|USER_TOKEN|>' + content.strip() + '<|END_OF_TURN_TOKEN|>' }}"
    "{% elif m['role'] == 'assistant' %}"
    "{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' + content.strip() + '<|END_OF_TURN_TOKEN|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{% endif %}"
)
EXAONE = (
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}{{ '[|system|][|endofturn|]\n' }}{% endif %}"
    "{{ '[|' + m['role'] + '|]' + m['content'] }}{% if m['role'] == 'user' %}{{ '\n' }}{% else %}{{ '[|endofturn|]\n' }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '[|assistant|]' }}{% endif %}"
)
GLM_4 = (
    "[gMASK]<sop>{%- for m in messages %}{%- if m.role == 'system' %}<|system|>\n{{ m.content }}"
    "{%- elif m.role == 'user' %}<|user|>\n{{ m.content }}{%- elif m.role == 'assistant' %}<|assistant|>\n{{ m.content }}"
    "{%- endif %}{%- endfor %}{%- if add_generation_prompt %}<|assistant|>\n{%- else %}<|user|>{%- endif %}"
)
GLM_4_5 = (
    "[gMASK]<sop>{%- set off = enable_thinking is defined and not enable_thinking %}{%- for m in messages %}"
    "{%- if m.role == 'system' %}{{ '<|system|>\n' + m.content }}{%- elif m.role == 'user' %}"
    "{{ '<|user|>\n' + m.content + ('/nothink' if off else '') }}{%- elif m.role == 'assistant' %}"
    "{%- if m.reasoning_content %}{{ '<|assistant|>\n<think>' + m.reasoning_content.strip() + '</think>' }}"
    "{%- else %}{{ '<|assistant|>\n<think></think>' }}{%- endif %}{{ '\n' + m.content.strip() }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|assistant|>' + ('\n<think></think>' if off else '') }}"
    "{%- else %}{{ '<|user|>' }}{%- endif %}"
)
GPT_OSS = (
    "{%- if reasoning_effort is not defined %}{%- set reasoning_effort = 'medium' %}{%- endif %}"
    "{{- '<|start|>system<|message|>You are ChatGPT.\nCurrent date: ' + strftime_now('%Y-%m-%d') + '\n\nReasoning: ' }}"
    "{{- reasoning_effort + '<|end|>' }}{%- for m in messages %}{%- if m.role == 'system' %}"
    "{{- '<|start|>developer<|message|># Instructions\n\n' + m.content + '<|end|>' }}{%- elif m.role == 'user' %}"
    "{{- '<|start|>user<|message|>' + m.content + '<|end|>' }}{%- elif m.role == 'assistant' %}"
    "{%- if loop.last and not add_generation_prompt %}{%- if m.thinking %}"
    "{{- '<|start|>assistant<|channel|>analysis<|message|>' + m.thinking + '<|end|>' }}{%- endif %}"
    "{{- '<|start|>assistant<|channel|>final<|message|>' + m.content + '<|return|>' }}{%- else %}"
    "{{- '<|start|>assistant<|channel|>final<|message|>' + m.content + '<|end|>' }}{%- endif %}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start|>assistant' }}{%- endif %}"
)
CHATML = _CHATML_TURNS


@dataclass(frozen=True, slots=True)
class Family:
    """One family: its template, the tokens that end turns, and how its tokenizer behaves."""

    template: str
    end: str
    """The token after an answer."""
    eos: str = ""
    """The tokenizer's end token, where it is another."""
    bos: str = "<s>"
    adds_bos: bool = False
    """Whether the tokenizer itself puts the first token before a text."""
    adds_eos: bool = False
    marks: tuple[str, ...] = ()
    trims: bool = False
    """Whether the template removes white space around answers."""
    lead: str = ""
    """What the template writes between the prompt and the answer."""
    system: bool = True
    """Whether the template knows a system role."""
    all_turns: bool = True
    """Whether earlier answers stay as they were when later turns follow."""


FAMILIES = {
    "chatml": Family(CHATML, "<|im_end|>", marks=("<|im_start|>",)),
    "gemma-2": Family(GEMMA_2, "<end_of_turn>", "<eos>", "<bos>", True, marks=("<start_of_turn>",), trims=True, system=False),
    "gemma-3": Family(GEMMA_3, "<end_of_turn>", "<eos>", "<bos>", True, marks=("<start_of_turn>",), trims=True),
    "llama-2": Family(LLAMA_2, "</s>", adds_bos=True, trims=True, lead=" "),
    "llama-3": Family(LLAMA_3, "<|eot_id|>", "<|end_of_text|>", "<|begin_of_text|>", True,
                      marks=("<|start_header_id|>", "<|end_header_id|>"), trims=True),
    "llama-3.1": Family(LLAMA_3_1, "<|eot_id|>", "<|end_of_text|>", "<|begin_of_text|>", True,
                        marks=("<|start_header_id|>", "<|end_header_id|>"), trims=True),
    "mistral-v0.1": Family(MISTRAL_V01, "</s>", adds_bos=True, system=False),
    "mistral-v0.3": Family(MISTRAL_V03, "</s>", adds_bos=True, marks=("[INST]", "[/INST]"), trims=True, lead=" "),
    "mistral-tekken": Family(MISTRAL_TEKKEN, "</s>", adds_bos=True,
                             marks=("[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]")),
    "qwen-2.5": Family(QWEN_2_5, "<|im_end|>", marks=("<|im_start|>",)),
    "qwen-3": Family(QWEN_3, "<|im_end|>", marks=("<|im_start|>",), all_turns=False),
    "phi-3": Family(PHI_3, "<|end|>", "<|endoftext|>", marks=("<|user|>", "<|assistant|>", "<|system|>")),
    "smollm3": Family(SMOLLM3, "<|im_end|>", marks=("<|im_start|>",)),
    "deepseek-r1": Family(DEEPSEEK_R1, "<｜end▁of▁sentence｜>", bos="<｜begin▁of▁sentence｜>", adds_bos=True,
                          marks=("<｜User｜>", "<｜Assistant｜>"), lead="\n</think>\n\n", all_turns=False),
    "deepseek-v3.1": Family(DEEPSEEK_V3_1, "<｜end▁of▁sentence｜>", bos="<｜begin▁of▁sentence｜>", adds_bos=True,
                            marks=("<｜User｜>", "<｜Assistant｜>")),
    "zephyr": Family(ZEPHYR, "</s>"),
    "olmo-2": Family(OLMO_2, "<|endoftext|>", bos="<|endoftext|>"),
    "granite": Family(GRANITE, "<|end_of_text|>", marks=("<|start_of_role|>", "<|end_of_role|>")),
    "command-r": Family(COMMAND_R, "<|END_OF_TURN_TOKEN|>", bos="<BOS_TOKEN>", adds_bos=True,
                        marks=("<|START_OF_TURN_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>"), trims=True),
    "exaone": Family(EXAONE, "[|endofturn|]", marks=("[|system|]", "[|user|]", "[|assistant|]")),
    "glm-4": Family(GLM_4, "<|user|>", "<|endoftext|>", marks=("[gMASK]", "<sop>", "<|assistant|>", "<|system|>"), lead="\n"),
    "glm-4.5": Family(GLM_4_5, "<|user|>", "<|endoftext|>", marks=("[gMASK]", "<sop>", "<|assistant|>", "<|system|>"),
                      trims=True, lead="\n"),
    "gpt-oss": Family(GPT_OSS, "<|return|>", marks=("<|start|>", "<|message|>", "<|channel|>", "<|end|>"),
                      lead="<|channel|>final<|message|>", all_turns=False),
    "plain": Family("", "</s>"),
    "plain-bos": Family("", "</s>", adds_bos=True, adds_eos=True),
}  # fmt: skip


def write_family(folder: Path, family: Family) -> Path:
    """Write a family's template and a tokenizer of bytes, with a few merges of white space and letters."""
    special = list(dict.fromkeys((family.bos, family.end, family.eos or family.end, *family.marks)))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330 + len(special),
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    corpus = ["\n\n Yes, until ten.\n\n Is it open?\n\n\n Anything else?  The pier is open. \n"] * 40
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.add_tokens(
        [AddedToken(tag, special=False, normalized=False) for tag in ("<think>", "</think>")]
    )
    if family.adds_bos or family.adds_eos:
        pieces = [family.bos] * family.adds_bos + ["$A"] + [family.eos or family.end] * family.adds_eos
        ids = [(token, tokenizer.token_to_id(token)) for token in dict.fromkeys(pieces) if token != "$A"]
        tokenizer.post_processor = processors.TemplateProcessing(single=" ".join(pieces), special_tokens=ids)
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": family.bos,
        "eos_token": family.eos or family.end,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    if family.template:
        (folder / "chat_template.jinja").write_text(family.template, "utf-8")
    return folder


SYSTEM = {"role": "system", "content": "Be brief."}
TALK = (
    {"role": "user", "content": "Is the café open?"},
    {"role": "assistant", "content": "Yes, until ten."},
    {"role": "user", "content": "And the pier?"},
    {"role": "assistant", "content": "Anything else?"},
)


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ChatTokenizer]:
    """The tokenizer of each family."""
    folder = tmp_path_factory.mktemp("families")
    return {name: ChatTokenizer(write_family(folder / name, family)) for name, family in FAMILIES.items()}


def asked(chat: ChatTokenizer, messages: Any) -> list[int]:
    """The tokens of a prompt, as a local model is asked."""
    return chat.encode(chat.render(messages, prompt=True))


def targets(chat: ChatTokenizer, row: Any) -> str:
    """The text of the target tokens."""
    return chat.tokenizer.decode([row.ids[i] for i in row.learnt], skip_special_tokens=False)


def expected(name: str, replies: list[str]) -> str:
    """The text that a family's targets must have."""
    family = FAMILIES[name]
    shown = [reply.strip() if family.trims else reply for reply in replies]
    if family.lead.endswith(
        "</think>\n\n"
    ):  # blanks between the reasoning and the answer are not the answer's
        shown = [reply.lstrip() for reply in shown]
    end = f" {family.end}" if name == "llama-2" else family.end
    return "".join(f"{family.lead}{reply}{end}" for reply in (shown if family.all_turns else shown[-1:]))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("system", [(), (SYSTEM,)], ids=["bare", "system"])
def test_targets_are_replies_with_their_end_and_follow_the_prompt(
    chats: dict[str, ChatTokenizer], name: str, system: tuple[Any, ...]
) -> None:
    chat = chats[name]
    messages = (*system, *TALK)
    row = chat.example(Example(messages))
    assert targets(chat, row) == expected(name, ["Yes, until ten.", "Anything else?"])
    assert bool(row.note) == (not FAMILIES[name].all_turns)
    prompt = asked(chat, messages[:-1])
    assert list(row.ids[: len(prompt)]) == prompt
    assert "Be brief." in chat.tokenizer.decode(prompt) or not system


@pytest.mark.parametrize("name", FAMILIES)
def test_first_token_is_written_once(chats: dict[str, ChatTokenizer], name: str) -> None:
    """The template writes it, or for a model without one the plain template does; the tokenizer adds no second one."""
    chat, family = chats[name], FAMILIES[name]
    bos = chat.tokenizer.token_to_id(family.bos)
    ids = asked(chat, [SYSTEM, TALK[0]])
    if family.adds_bos:
        assert ids[0] == bos
        assert ids[1] != bos
    assert chat.tokenizer.token_to_id(family.end) not in ids[-1:] or name.startswith("deepseek")


@pytest.mark.parametrize("name", ["gemma-2", "mistral-v0.1", "mistral-v0.3"])
def test_no_system_role_folds_instructions_into_the_first_question(
    chats: dict[str, ChatTokenizer], name: str
) -> None:
    chat = chats[name]
    assert not chat.features.system
    text = chat.render([SYSTEM, *TALK[:3]], prompt=True)
    assert text == chat.render(
        [dict(TALK[0], content=f"Be brief.\n\n{TALK[0]['content']}"), *TALK[1:3]], prompt=True
    )
    assert any("no system role" in note for note in chat.notes)


@pytest.mark.parametrize(
    "name", ["gemma-2", "gemma-3", "llama-2", "mistral-v0.1", "mistral-tekken", "command-r"]
)
def test_repeated_roles_and_late_instructions_are_joined(chats: dict[str, ChatTokenizer], name: str) -> None:
    chat = chats[name]
    turns = [
        TALK[0],
        dict(TALK[0], content="Hello?"),
        TALK[1],
        dict(TALK[1], content="Or nine."),
        SYSTEM,
        TALK[2],
    ]
    text = chat.render(turns, prompt=True)
    same = chat.render(
        [
            dict(TALK[0], content="Is the café open?\n\nHello?"),
            dict(TALK[1], content="Yes, until ten.\n\nOr nine."),
            dict(TALK[2], content="Be brief.\n\nAnd the pier?"),
        ],
        prompt=True,
    )
    assert text == same
    row = chat.example(Example((*turns, TALK[3])))
    assert list(row.ids[: len(chat.encode(text))]) == chat.encode(text)


def test_families_with_all_roles_are_left_as_they_are(chats: dict[str, ChatTokenizer]) -> None:
    for name in ("chatml", "llama-3", "zephyr", "exaone", "glm-4", "granite", "qwen-2.5"):
        turns = [SYSTEM, TALK[0], TALK[0], TALK[1], SYSTEM, TALK[2]]
        features = chats[name].features
        assert (features.system, features.repeats) == (True, True), name
        if features.late_system:
            assert chats[name].adapt(turns) == turns


@pytest.mark.parametrize("name", FAMILIES)
def test_arms_are_asked_with_the_beginning_of_their_training_rows(
    chats: dict[str, ChatTokenizer], name: str
) -> None:
    """Instructions, shown examples and earlier turns of the prompt are those of training, to the token."""
    chat = chats[name]
    prompts = Prompts(system="You are the pier's clerk.")
    example = Example(TALK)
    row = chat.example(training_row(prompts, example))
    question = build_messages(prompts, TALK[2]["content"], history=TALK[:2])
    assert list(row.ids[: len(asked(chat, question))]) == asked(chat, question)
    shot = Example(TALK[:2])
    shown = build_messages(prompts, "And the pier?", shots=[shot])
    assert asked(chat, shown) == asked(chat, question)
    passages = training_row(prompts, Example(TALK[:2]), passages="[1] It opens at nine.")
    alone = build_messages(prompts, TALK[0]["content"], "[1] It opens at nine.")
    encoded = chat.example(passages)
    assert list(encoded.ids[: len(asked(chat, alone))]) == asked(chat, alone)


def test_date_is_always_the_same(chats: dict[str, ChatTokenizer]) -> None:
    for name in ("llama-3.1", "smollm3", "granite", "gpt-oss"):
        chat = chats[name]
        text = chat.render([TALK[0]], prompt=True)
        assert "2024" in text
        assert str(date.today().year) not in text
        assert any("date" in note for note in chat.notes)
        assert chat.features.dated


def test_model_without_template_says_so_and_keeps_what_it_was_asked_with(
    chats: dict[str, ChatTokenizer],
) -> None:
    assert "no chat template" in chats["plain"].notes[0]
    assert chats["plain-bos"].template.startswith("{{ bos_token }}")
    assert "bos_token" not in chats["plain"].template
    assert chats["chatml"].notes == ()


def test_own_instructions_of_a_template_are_known(chats: dict[str, ChatTokenizer]) -> None:
    own = {name for name, chat in chats.items() if chat.features.own_system}
    assert own == {"qwen-2.5", "mistral-tekken", "smollm3", "granite"}


def test_transformers_writes_the_same_for_templates_that_take_the_chat(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    from runners.inference.weights import load_tokenizer

    folder = tmp_path_factory.mktemp("same")
    for name in ("llama-3", "gemma-3", "qwen-3", "phi-3", "command-r", "glm-4", "granite"):
        path = write_family(folder / name, FAMILIES[name])
        chat, theirs = ChatTokenizer(path), load_tokenizer(path)
        options = {**chat.features.variables, "strftime_now": date(2024, 7, 26).strftime}
        text = theirs.apply_chat_template(
            [SYSTEM, *TALK[:3]], tokenize=False, add_generation_prompt=True, **options
        )
        assert text == chat.render([SYSTEM, *TALK[:3]], prompt=True), name


contents = st.text(
    st.characters(exclude_categories=("Cs", "Cn", "Cc"), exclude_characters="<[|◁\u2028\u2029\ufdd0\ufdd1")
    | st.sampled_from(" \n\t"),
    min_size=1,
    max_size=30,
).filter(lambda text: bool(text.strip()))


@settings(max_examples=300, deadline=None)
@given(
    name=st.sampled_from(sorted(FAMILIES)),
    system=st.none() | contents,
    said=st.lists(contents, min_size=2, max_size=6),
)
def test_any_conversation_is_asked_as_it_is_trained(
    chats: dict[str, ChatTokenizer], name: str, system: str | None, said: list[str]
) -> None:
    chat, said = chats[name], said[: len(said) // 2 * 2]
    roles = ("user", "assistant")
    turns = [{"role": roles[n % 2], "content": text} for n, text in enumerate(said)]
    messages = ([{"role": "system", "content": system}] if system else []) + turns
    row = chat.example(Example(tuple(messages)), "last")
    prompt = asked(chat, messages[:-1])
    assert list(row.ids[: len(prompt)]) == prompt
    assert row.learnt[0] == len(prompt)
    taught = targets(chat, row)
    assert taught.strip() == expected(name, [said[-1]]).strip()
    assert taught.endswith(FAMILIES[name].end)
