"""Notice texts in a language that the embedder does not know.

An embedder knows a language when its vocabulary does. The language of a text is detected by its script, or
for Latin letters by py3langid (:func:`detect_language`); then the vocabulary is tested
(:func:`embedder_knows_language`): whether it holds common words of that language as single tokens, or for
other scripts, how many letters of the text itself make a token. :func:`language_note` is the sentence shown
to the user.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from rag.embedding.protocol import Encoder

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

SAMPLED_TEXTS = 200
"""Texts looked at, spread evenly."""
SAMPLED_CHARS = 400
"""Characters looked at of each."""
MIN_FOREIGN_SHARE = 0.1
"""Share of the sampled characters in unknown languages from which on the note is given."""
MIN_WORDS = 1000
"""A smaller vocabulary holds letters, not words, and says nothing about languages."""
MAX_PIECES_PER_WORD = 1.6
"""Tokens that a common word may take on average. all-MiniLM: English 1.0, others 1.8 and more."""
_MAX_UNKNOWN_SHARE = 0.1
"""Share of unknown tokens in a text up to which its script counts as known."""
_SCRIPTS: dict[str, tuple[str, float]] = {
    "CYRILLIC": ("Cyrillic script", 2.0),
    "GREEK": ("Greek", 2.0),
    "ARABIC": ("Arabic script", 2.0),
    "HEBREW": ("Hebrew", 2.0),
    "DEVANAGARI": ("Devanagari script", 1.6),
    "BENGALI": ("Bengali", 1.6),
    "TAMIL": ("Tamil", 1.6),
    "THAI": ("Thai", 1.6),
    "GEORGIAN": ("Georgian", 2.0),
    "ARMENIAN": ("Armenian", 2.0),
    "HANGUL": ("Korean", 1.0),
    "HIRAGANA": ("Japanese", 1.2),
    "KATAKANA": ("Japanese", 1.2),
    "CJK": ("Chinese", 0.9),
}
"""First word of a letter's Unicode name -> name of the language or script, and the letters that a token holds
on average where the vocabulary knows the script."""
MIN_PROBABILITY = 0.3
"""Probability from which a language in Latin letters is named. Chosen on half of 17,000 public texts (benchmarks/LOG.md): .5
leaves twice as many short texts without a language, and hardly fewer are named wrongly."""
MIN_PROBABILITY_OF_NAMES = 0.5
"""The same of texts of up to three words, which may be a name: with .3, 27 of 1,993 English titles are taken for another
language, with .5 4 are."""
SHORT_TEXT_WORDS = 5
"""Words up to which a text counts as foreign only where it shows its language: by a function word of it, or by a letter that
English lacks. "brownie tray - price?" is Polish by its letters alone."""
_OTHER_LATIN = "af ca cy eo et eu ga gl hr bs is la lt lv mt sk sl sq sw tl lb zxx"
"""py3langid's labels of further languages in Latin letters, and of code and numbers (zxx), which have no name here: without
them a text in one of them would be taken for its nearest neighbour. Its labels of rarer languages are left out."""
_PIECES_PER_WORD: dict[tuple[str, str], float] = {}
"""Results of ``_pieces_per_word`` by fingerprint of the embedder and name of the language."""


@dataclass(frozen=True, slots=True)
class Language:
    """One language written in Latin letters."""

    name: str
    codes: tuple[str, ...]
    """Labels of py3langid that mean it (ISO 639)."""
    function_words: frozenset[str]
    """Frequent words that carry no topic; a fifth to a half of any text."""
    common_words: tuple[str, ...]
    """Everyday words of six letters and more, which a vocabulary made for the language has as single tokens."""


def _language(name: str, codes: str, function_words: str, common_words: str) -> Language:
    return Language(
        name, tuple(codes.split()), frozenset(function_words.split()), tuple(common_words.split())
    )


LANGUAGES: tuple[Language, ...] = (
    _language(
        "English",
        "en",
        "the of and to in a is that it was for on with as be at by this have from or are not but an they which you "
        "were their can has been if will its when what how where who why do does did there than may we our your",
        "people through between because another without children together government important water company "
        "question morning always different building problem history woman",
    ),
    _language(
        "German",
        "de",
        "der die das und in zu den ist von mit sich des auf für im dem nicht ein eine als auch es an werden aus er "
        "hat dass sie nach wird bei einer um am sind noch wie einem über so zum war haben nur oder aber vor zur bis "
        "mehr durch man was wo wann warum wer welche kann ich wir ihr einen ab",
        "heute wieder zwischen gegen arbeit kinder schule wasser straße sprechen gemeinsam möglich wichtig während "
        "deutschland geschichte beispiel menschen wohnung fragen",
    ),
    _language(
        "French",
        "fr",
        "le la les de des du et en un une est que qui dans pour pas sur au avec ce il ne se plus par je sont aux vous "
        "nous ou mais son sa ses leur été être cette ces on lui comme si tout elle fait où quel quelle quels combien "
        "comment pourquoi quand à y l d qu",
        "aujourd'hui toujours pendant maintenant beaucoup personne travail enfants école première question pouvoir "
        "depuis chaque contre exemple histoire semaine monde heures",
    ),
    _language(
        "Spanish",
        "es",
        "el la los las de y en que un una es por con no para se su al lo como más pero del sus le ya este sí porque "
        "esta son entre cuando muy sin sobre ser también me hasta hay donde quien desde todo nos qué cómo cuánto "
        "cuándo dónde cuál está puede fue",
        "trabajo siempre después mientras personas ciudad gobierno escuela mejor hacer tiempo mundo ejemplo semana "
        "mujer historia pregunta durante manera nosotros",
    ),
    _language(
        "Italian",
        "it",
        "il lo la i gli le di e che è un una in per non con del della dei si da al sono come più ma anche alla nel "
        "nella ha questo questa se o dal delle ci ho cosa quando dove chi quanto quale perché essere tutti suo sua",
        "lavoro sempre persone adesso città mondo governo scuola giorno prima durante ragazzi esempio settimana "
        "domanda storia insieme qualche allora acqua",
    ),
    _language(
        "Portuguese",
        "pt",
        "o a os as de e que em um uma do da dos das é para com não por se no na mais como mas ao ele ela seu sua ou "
        "quando muito nos já eu também só pelo pela até isso entre era depois sem mesmo aos são está onde quem qual "
        "quanto você foi",
        "trabalho sempre pessoas cidade governo escola agora tempo mundo exemplo semana mulher história pergunta "
        "durante maneira qualquer então melhor dinheiro",
    ),
    _language(
        "Dutch",
        "nl",
        "de het een en van in is dat op te zijn met voor niet aan er om ook als dan maar bij uit nog wordt door naar "
        "over ze hij heeft tot je wat of deze dit die kan zou werd al waar wanneer hoe wie waarom geen wel meer u ik "
        "wij hun moet worden",
        "mensen altijd tussen kinderen school werken vandaag morgen samen belangrijk mogelijk nederland voorbeeld "
        "geschiedenis wonen vragen tijdens zonder water groot",
    ),
    _language(
        "Swedish",
        "sv",
        "och i att det som en på är av för med till den har de inte om ett han var jag men sig från vi så kan när "
        "man hade eller nu efter vid ut än vad där hur vem varför hon alla skulle detta ska min du mycket",
        "människor alltid mellan arbete barnen skolan vatten idag tillsammans viktigt möjligt sverige exempel "
        "historia frågor många under annat tiden svenska",
    ),
    _language(
        "Danish or Norwegian",
        "da no nn",
        "og i at det som en på er af av for med til den har de ikke om et han var jeg men sig seg fra vi så kan når "
        "man hun eller nå nu efter etter ved ud ut hvad hva hvor hvem hvorfor hvordan alle skal dette blev ble meget",
        "mennesker altid alltid mellem mellom arbejde arbeid børnene skolen sammen vigtigt viktig danmark norge "
        "historie spørgsmål spørsmål gennem gjennom andre",
    ),
    _language(
        "Polish",
        "pl",
        "i w na z się nie do to że o jest jak od za po co ale przez dla są czy tak przy lub by jego które który "
        "która być ma już tym może oraz tylko gdzie kiedy kto dlaczego ile jaki jaka bardzo tego ich",
        "dzisiaj zawsze między praca dzieci szkoła woda ulica razem ważny możliwe polska przykład historia ludzie "
        "pytanie podczas każdy rząd miasto",
    ),
    _language(
        "Czech",
        "cs",
        "a v na se je že to s z do o i k ve pro jako za po by ale si jsou který která které od jeho byl také už "
        "při nebo jen podle tak má může co kde kdy kdo proč jak kolik není být",
        "dnes vždycky mezi práce děti škola ulice společně důležité možné česká příklad historie lidé otázka během "
        "každý vláda město protože",
    ),
    _language(
        "Turkish",
        "tr",
        "ve bir bu da de için ile çok olarak daha gibi ne o olan kadar var en sonra ama her mi ya ki değil ise "
        "veya nasıl nerede kim neden hangi bana ben sen biz onun olduğu diye şey",
        "bugün arasında çalışma çocuklar okulu sokak birlikte önemli mümkün türkiye örnek tarihi insanlar soru "
        "sırasında hükümet şehir zaman büyük yeni",
    ),
    _language(
        "Finnish",
        "fi",
        "ja on ei se että oli hän mutta joka ovat kun niin myös kuin sen tai mitä missä kuka miksi miten olla sitä "
        "hänen nyt ole vain ne jos kanssa voi mukaan sekä jo tämä tämän minä",
        "tänään aina välillä lapset koulu yhdessä tärkeä mahdollista suomi esimerkki historia ihmiset kysymys aikana "
        "jokainen hallitus kaupunki koska uusi työtä",
    ),
    _language(
        "Hungarian",
        "hu",
        "a az és hogy nem is egy ez van volt meg de csak már mint azt még ki vagy el lehet mert kell ha minden "
        "hogyan hol mikor miért melyik mennyi nagyon akkor pedig után illetve amely",
        "között munka gyerekek iskola utca együtt fontos lehetséges magyarország például történet emberek kérdés "
        "közben kormány város mindig holnap",
    ),
    _language(
        "Romanian",
        "ro",
        "și în de la a cu pe un o nu că este se din care mai pentru sau ce ca au fost sunt dar prin după fi lui "
        "unde când cine cum cât ei am să al ale cel această acest",
        "astăzi întotdeauna între muncă copiii școală apă stradă împreună important posibil românia exemplu istorie "
        "oameni întrebare timpul fiecare guvern orașul",
    ),
    _language(
        "Indonesian or Malay",
        "id ms",
        "yang dan di itu dengan untuk tidak ini dari dalam akan pada juga saya ke karena tersebut bisa ada mereka "
        "lebih kami sudah atau saat oleh apa siapa mengapa bagaimana kapan mana adalah anda seperti",
        "sekarang selalu antara pekerjaan anak-anak sekolah bersama penting mungkin indonesia contoh sejarah "
        "masyarakat pertanyaan selama setiap pemerintah perusahaan",
    ),
    _language(
        "Vietnamese",
        "vi",
        "và là của có được trong cho không một các với những này đã khi người về để ra như từ đến tôi ở nhiều "
        "cũng sẽ vào hay gì đâu ai nào thế bao tại thì lại",
        "người những trường đường thường nước được không thành thống phương trình chính quyền những",
    ),
)


_NAME_OF_CODE = {code: language.name for language in LANGUAGES for code in language.codes}


def language_note(texts: Sequence[str], encoder: Encoder, subject: str = "the text") -> str:
    """Return a sentence when a good part of the texts is in a language the embedder does not know, else "".

    Args:
        texts: the chunks of a corpus, or one question.
        encoder: the embedder.
        subject: what the sentence calls the texts.
    """
    if encoder.tokenizer.get_vocab_size() < MIN_WORDS:
        return ""
    step = max(1, len(texts) // SAMPLED_TEXTS)
    sample = [text[:SAMPLED_CHARS] for text in texts[::step][:SAMPLED_TEXTS]]
    unknown: Counter[str] = Counter()
    for text in sample:
        name = detect_language(text)
        if name and _shows_language(text, name) and not embedder_knows_language(encoder, name, text):
            unknown[name] += len(text)
    share = unknown.total() / max(1, sum(map(len, sample)))
    if share < MIN_FOREIGN_SHARE:
        return ""
    names = " and ".join(name for name, _ in unknown.most_common(3))
    part = subject if share > 0.9 else f"{share:.0%} of {subject}"
    return (
        f"{part} looks like {names}, which the embedder {encoder.name} hardly knows: it is found by its words, "
        "hardly by its meaning; use an embedder made for this language, such as multilingual-e5-small"
    )


def detect_language(text: str) -> str:
    """Return the name of a text's language or script, "" when it is not clear.

    Other scripts than Latin are named by most of the letters, which needs no model. A text in Latin letters needs
    a probability of :data:`MIN_PROBABILITY` by py3langid, or :data:`MIN_PROBABILITY_OF_NAMES`.
    """
    scripts = Counter(filter(None, map(_script, text)))
    if not scripts:
        return ""
    # Japanese mixes its syllables with Chinese characters, which are often the majority.
    script = "HIRAGANA" if scripts["HIRAGANA"] > 0.1 * scripts.total() else scripts.most_common(1)[0][0]
    if script in _SCRIPTS:
        return _SCRIPTS[script][0]
    probabilities: Counter[str] = Counter()
    for code, probability in _identifier().rank(text):
        probabilities[_NAME_OF_CODE.get(code, "")] += probability
    name, most = probabilities.most_common(1)[0]
    return name if most >= (MIN_PROBABILITY_OF_NAMES if len(text.split()) <= 3 else MIN_PROBABILITY) else ""


def _shows_language(text: str, name: str) -> bool:
    """Return whether a text shows the language that its letters suggest, or is long enough for these to suffice."""
    known = next((language for language in LANGUAGES if language.name == name), None)
    if known is None or name == "English" or len(text.split()) > SHORT_TEXT_WORDS:
        return True
    if any(char.isalpha() and not char.isascii() for char in text):
        return True
    spoken = {word.strip(".,;:!?()\"'-–") for word in text.casefold().split()}
    return bool(spoken & (known.function_words - LANGUAGES[0].function_words))


def embedder_knows_language(encoder: Encoder, name: str, text: str) -> bool:
    """Return whether the embedder's vocabulary is made for a language.

    Args:
        encoder: the embedder.
        name: the language or script, as :func:`detect_language` names it.
        text: a text in it; only other scripts than Latin are measured on it.
    """
    for known in LANGUAGES:
        if known.name == name:
            return _pieces_per_word(encoder, known) <= MAX_PIECES_PER_WORD
    # Vowel signs of Indic scripts are marks and no letters: without them words would fall to pieces.
    letters = "".join(
        char if _script(char) in _SCRIPTS or unicodedata.category(char)[0] == "M" else " " for char in text
    )
    tokens = encoder.tokenizer.encode(letters, add_special_tokens=False).tokens
    unknown = sum(token in _unknown_tokens(encoder) for token in tokens)
    min_letters_per_token = next(bound for script, bound in _SCRIPTS.values() if script == name)
    letter_count = sum(char.isalpha() for char in letters)
    return unknown <= _MAX_UNKNOWN_SHARE * len(tokens) and letter_count >= min_letters_per_token * len(tokens)


def _pieces_per_word(encoder: Encoder, language: Language) -> float:
    """Return the mean number of tokens of the language's common words; an unknown one counts as four."""
    key = encoder.fingerprint, language.name
    if key not in _PIECES_PER_WORD:
        unknown = _unknown_tokens(encoder)
        rows = [
            encoder.tokenizer.encode(word, add_special_tokens=False).tokens for word in language.common_words
        ]
        _PIECES_PER_WORD[key] = sum(4 if unknown & set(row) else len(row) for row in rows) / len(rows)
    return _PIECES_PER_WORD[key]


def _unknown_tokens(encoder: Encoder) -> set[str]:
    return {"[UNK]", "<unk>", str(getattr(encoder.tokenizer.model, "unk_token", None))}


@cache
def _identifier() -> LanguageIdentifier:
    """Return py3langid's model (4.6 MB, loaded without pickle in half a second) for languages in Latin letters."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages([*_NAME_OF_CODE, *_OTHER_LATIN.split()])
    return identifier


@lru_cache(maxsize=4096)
def _script(char: str) -> str:
    """Return the script of a letter as Unicode names it, "" for what is no letter."""
    return unicodedata.name(char, "").partition(" ")[0] if char.isalpha() else ""
