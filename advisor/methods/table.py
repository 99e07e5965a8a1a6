"""All methods, simplest first: the table of contents."""

from __future__ import annotations

from advisor.methods.base import Method
from advisor.methods.few_shot import FewShot
from advisor.methods.full import Full
from advisor.methods.hybrid import Hybrid
from advisor.methods.lora import Lora
from advisor.methods.prompting import Prompting
from advisor.methods.qlora import QLora
from advisor.methods.rag import Rag

METHODS: tuple[Method, ...] = (Prompting(), FewShot(), Rag(), Lora(), QLora(), Full(), Hybrid())
BY_NAME: dict[str, Method] = {method.name: method for method in METHODS}
