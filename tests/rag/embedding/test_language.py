"""A note is given for languages that the embedder does not know, and for no others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from rag.embedding.embedder import Embedder
from rag.embedding.language import LANGUAGES, MIN_WORDS, detect_language, language_note
from rag.index import Index

TEXTS = {
    "German": "Die Fähre verlässt den Hafen um acht Uhr und kehrt vor dem Mittag zurück, aber nicht am Sonntag.",
    "French": "Le ferry quitte le port à huit heures du matin et revient avant midi, mais pas le dimanche.",
    "Spanish": "El ferry sale del puerto a las ocho de la mañana y vuelve antes del mediodía, pero no los domingos.",
    "Italian": "Il traghetto lascia il porto alle otto del mattino e torna prima di mezzogiorno, ma non la domenica.",
    "Portuguese": "A balsa sai do porto às oito da manhã e volta antes do meio-dia, mas não aos domingos.",
    "Dutch": "De veerboot verlaat de haven om acht uur en komt voor de middag terug, maar niet op zondag.",
    "Swedish": "Färjan lämnar hamnen klockan åtta och kommer tillbaka före middag, men inte på söndagar.",
    "Danish or Norwegian": "Færgen forlader havnen klokken otte og er tilbage før middag, men ikke om søndagen.",
    "Polish": "Prom wypływa z portu o ósmej rano i wraca przed południem, ale nie w niedziele.",
    "Czech": "Trajekt odplouvá z přístavu v osm ráno a vrací se před polednem, ale ne v neděli.",
    "Turkish": "Feribot sabah sekizde limandan ayrılır ve öğleden önce geri döner, ama pazar günü için bir sefer yok.",
    "Finnish": "Lautta lähtee satamasta kello kahdeksan ja palaa ennen puoltapäivää, mutta ei sunnuntaina kun on joulu.",
    "Hungarian": "A komp reggel nyolckor indul a kikötőből, és dél előtt már vissza is tér, de vasárnap nem.",
    "Romanian": "Feribotul pleacă din port la opt dimineața și se întoarce înainte de prânz, dar nu duminica.",
    "Indonesian or Malay": "Kapal ini berangkat dari pelabuhan pada jam delapan dan akan kembali sebelum siang.",
    "Vietnamese": "Phà rời bến lúc tám giờ sáng và trở lại trước buổi trưa, nhưng không có vào chủ nhật.",
    "Cyrillic script": "Паром выходит из гавани в восемь утра и возвращается до полудня, но не по воскресеньям.",
    "Greek": "Το πλοίο φεύγει από το λιμάνι στις οκτώ το πρωί και επιστρέφει πριν το μεσημέρι.",
    "Arabic script": "تغادر العبارة الميناء في الثامنة صباحا وتعود قبل الظهر ولكن ليس يوم الأحد.",
    "Hebrew": "המעבורת יוצאת מהנמל בשמונה בבוקר וחוזרת לפני הצהריים.",
    "Devanagari script": "नौका सुबह आठ बजे बंदरगाह से निकलती है और दोपहर से पहले लौट आती है।",
    "Thai": "เรือเฟอร์รี่ออกจากท่าเรือเวลาแปดโมงเช้าและกลับก่อนเที่ยง",
    "Korean": "페리는 아침 여덟 시에 항구를 떠나 정오 전에 돌아옵니다.",
    "Japanese": "フェリーは朝八時に港を出発し、正午前に戻ります。日曜日は運休です。",
    "Chinese": "渡轮早上八点离开港口，中午之前返回，星期天没有船。",
}
ENGLISH = (
    "The ferry leaves the harbour at eight in the morning and returns before noon, but not on Sundays.",
    "Das Boot, Amélie and La Dolce Vita are shown at the Café de Paris on Friday.",
    "def scores(self, question: str) -> np.ndarray:\n    return np.zeros(self._rows, dtype=np.float32)",
    "Route | Departs | Price\nMoss Line | 08:15 | 6\nHeather Line | 09:40 | 8",
    "C8H10N4O2 5-HT2A 10.1000/182 https://example.org/?q=1",
    "12 345 678",
    "",
    "?!",
)
QUESTIONS = {
    "German": "Was kostet eine Fahrkarte?",
    "French": "Où est la gare ?",
    "Spanish": "¿Cuánto cuesta el billete?",
    "Cyrillic script": "Сколько стоит билет?",
    "Japanese": "切符はいくらですか？",
    "Chinese": "船票多少钱？",
}
ENGLISH_QUESTIONS = (
    "Dogs on deck?",
    "Who directed Das Boot?",
    "fares",
    "What does Москва mean in English?",
    "Is a la carte dining on offer?",
    "brownie tray - price?",
    "min order london",
    "sausage roll mustard?",
)


SHORT_TEXTS = {
    "English": "Show flight LX 40",
    "German": "Fahrplan und Preise",
    "French": "Horaires des ferries",
    "Spanish": "Precios del billete",
    "Italian": "Orari dei traghetti",
    "Dutch": "Dienstregeling en prijzen",
    "Polish": "Rozkład jazdy promów",
    "Hungarian": "Menetrend és árak",
}
"""Too short for two function words."""
UNNAMED_LANGUAGES = {
    "Slovak": "Trajekt odchádza z prístavu o ôsmej ráno a vracia sa pred poludním, ale nie v nedeľu.",
    "Catalan": "El transbordador surt del port a les vuit del matí i torna abans del migdia, però no els diumenges.",
    "Croatian": "Trajekt isplovljava iz luke u osam ujutro i vraća se prije podneva, ali ne nedjeljom.",
    "Estonian": "Parvlaev väljub sadamast kell kaheksa hommikul ja naaseb enne keskpäeva, kuid mitte pühapäeviti.",
}
NAMES = ("Super Bowl 50", "Gonville Hotel", "Jekyll", "Alternative energy", "Pride and Prejudice", "MariaDB")


@pytest.fixture(scope="module")
def words_of() -> Any:
    """Make an encoder whose vocabulary holds these words whole, and all else by the letter."""

    def make(words: Iterator[str]) -> Any:
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        fill = (f"word{chr(97 + a)}{chr(97 + b)}" for a in range(26) for b in range(26))
        trainer = trainers.WordPieceTrainer(vocab_size=8000, special_tokens=["[UNK]"], min_frequency=1)
        tokenizer.train_from_iterator([*words, *(w * 2 for w in fill)], trainer)
        return SimpleNamespace(name="made", fingerprint=f"made of {hash(tuple(words))}", tokenizer=tokenizer)

    return make


def test_detect_language_of_every_listed_language() -> None:
    assert {name: detect_language(text) for name, text in TEXTS.items()} == {name: name for name in TEXTS}
    assert {t.name for t in LANGUAGES} <= {*TEXTS, "English"}
    assert detect_language(ENGLISH[0]) == "English"
    assert [detect_language(text) for text in ("12 345", "", "?!", "xyzzy plugh frobozz")] == [""] * 4


def test_detect_language_of_short_texts_names_and_unnamed_languages() -> None:
    assert {name: detect_language(text) for name, text in SHORT_TEXTS.items()} == {
        name: name for name in SHORT_TEXTS
    }
    assert {name: detect_language(text) for name, text in UNNAMED_LANGUAGES.items()} == dict.fromkeys(
        UNNAMED_LANGUAGES, ""
    )
    assert {detect_language(name) for name in NAMES} <= {"", "English"}


@pytest.mark.real
def test_minilm_is_noted_for_every_language_but_english(minilm: Any) -> None:
    for name, text in TEXTS.items():
        note = language_note([text] * 3, minilm)
        assert name in note, f"{name}: {note!r}"
        assert "all-minilm-l6-v2 hardly knows" in note
    assert [language_note([text] * 3, minilm) for text in ENGLISH] == [""] * len(ENGLISH)
    for name, text in QUESTIONS.items():
        assert language_note([text], minilm, "the question").startswith(f"the question looks like {name},")
    assert [language_note([text], minilm) for text in ENGLISH_QUESTIONS] == [""] * len(ENGLISH_QUESTIONS)


@pytest.mark.real
def test_multilingual_embedder_knows_every_language() -> None:
    from runners.models.resolve import resolve_model

    embedder = Embedder(resolve_model("multilingual-e5-small").folder, device="cpu")
    texts = [*TEXTS.values(), *QUESTIONS.values(), *ENGLISH]
    assert [language_note([text] * 3, embedder) for text in texts] == [""] * len(texts)


@pytest.mark.real
def test_language_note_gives_the_share_of_a_mixed_corpus(minilm: Any) -> None:
    mixed = [ENGLISH[0]] * 60 + [TEXTS["German"]] * 30 + [TEXTS["Greek"]] * 10
    note = language_note(mixed, minilm)
    assert note.startswith("39% of the text looks like German and Greek, which the embedder")
    assert language_note([ENGLISH[0]] * 95 + [TEXTS["German"]] * 5, minilm) == "", (
        "a quotation is no reason for a note"
    )
    assert language_note([], minilm) == ""


@pytest.mark.real
def test_public_english_data_sets_give_no_note(minilm: Any, shared: Path) -> None:
    checked = 0
    for name in ("chunk_eval/documents", "hybrid_concierge/documents.jsonl", "bipia", "snips_json"):
        path = shared / "data" / name
        files = (
            [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.suffix in (".md", ".jsonl"))
        )
        for file in files:
            text = file.read_text(encoding="utf-8")
            assert language_note([text[n : n + 800] for n in range(0, len(text), 800)], minilm) == "", file
            checked += 1
    assert checked > 8


def test_embedder_with_a_vocabulary_of_the_language_gives_no_note(words_of: Any) -> None:
    german = next(t for t in LANGUAGES if t.name == "German")
    english = next(t for t in LANGUAGES if t.name == "English")
    encoder = words_of([*german.common_words, *german.function_words, *TEXTS["German"].split()] * 20)
    assert language_note([TEXTS["German"]], encoder) == ""
    assert "looks like English" in language_note([ENGLISH[0]], encoder)
    russian = words_of([*TEXTS["Cyrillic script"].split(), *english.common_words] * 20)
    assert language_note([TEXTS["Cyrillic script"]], russian) == ""


def test_small_vocabulary_gives_no_note(tiny: Any) -> None:
    assert tiny.tokenizer.get_vocab_size() < MIN_WORDS
    assert language_note([TEXTS["German"]], tiny) == ""


@pytest.mark.real
def test_build_and_search_report_the_language(minilm: Any, tmp_path: Path) -> None:
    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "a.txt").write_text(TEXTS["German"])
    report = Index.build(tmp_path / "index", folder, minilm)
    assert report.remarks[-1].startswith("the text looks like German,")
    assert Index.update(tmp_path / "index", folder, minilm).remarks == ()
    index = Index.open(tmp_path / "index", minilm)
    assert index.find(QUESTIONS["German"]).notes[0].startswith("the question looks like German,")
    assert index.find("When does the ferry leave?").notes == ()
