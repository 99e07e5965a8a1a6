"""The `ollama` export: the GGUF file with a Modelfile that asks it as it was measured. Light."""

from __future__ import annotations

from rag.durable import write_text
from rag.errors import BadInput
from runners.chat import Chat
from runners.export.adapter import prompting
from runners.export.card import refuse_secrets
from runners.export.families import family_of
from runners.export.gguffile import FILE, pack
from runners.export.gotemplate import SHAPES, pieces_of
from runners.export.job import Job, Made
from runners.fingerprint import read_json

MODELFILE = "Modelfile"
QUOTES = '"""'
CONTEXT = 8192
"""Longest context asked of Ollama, whose own default would cut prompts with passages short."""


def make(job: Job) -> Made:
    """Write the file and its Modelfile; BadInput for a family, tokenizer or template that Ollama cannot be given exactly."""
    family_of(read_json(job.source.base.folder / "config.json"))
    text, notes = modelfile(job)
    checked, more = pack(job)
    write_text(job.made / MODELFILE, text)
    name = job.name.lower()
    how = f"```bash\nollama create {name} -f Modelfile  # inside this folder\nollama run {name}\n```\n"
    told = {**checked, "Ollama's template writes what the original does": f"{len(SHAPES)} shapes of chats"}
    return Made(how + prompting(job.source), told, notes=(*notes, *more))


def modelfile(job: Job) -> tuple[str, list[str]]:
    """Return the Modelfile: template, stop words, instructions and greedy answers, as in the trial; and what to know."""
    source = job.source
    chat = Chat(source.made)
    template, system = pieces_of(chat).go(), source.plan.prompts.system
    notes = []
    if "strftime_now" in chat.own_template:
        notes.append("The chat template writes today's date; the Modelfile holds the day of this export.")
    for what, words in (("chat template", template), ("instructions", system)):
        if QUOTES in words:
            raise BadInput(f"the {what} holds {QUOTES}, which a Modelfile cannot", "use --to gguf")
        refuse_secrets(words, "the Modelfile")
    stops = [word for i in sorted(chat.eos_ids) if (word := chat.tokenizer.id_to_token(i))]
    room = int(read_json(source.base.folder / "config.json")["max_position_embeddings"])
    lines = [
        f"FROM ./{FILE}",
        f"TEMPLATE {QUOTES}{template}{QUOTES}",
        *([f"SYSTEM {QUOTES}{system}{QUOTES}"] if system else []),
        *(f'PARAMETER stop "{word}"' for word in stops),
        "PARAMETER temperature 0",
        "PARAMETER repeat_penalty 1",
        f"PARAMETER num_predict {source.plan.max_new_tokens}",
        f"PARAMETER num_ctx {min(room, CONTEXT)}",
    ]
    return "\n".join(lines) + "\n", notes
