"""What counts as a right answer: cases by hand for every form of gold, in several languages."""

from __future__ import annotations

import pytest

from runners.data.questions import Question
from runners.plan.schema import StyleCheck
from runners.scoring.correctness import card_fields, is_right, stored_right
from runners.scoring.scores import form_scores

LABELS = (StyleCheck(kind="labels", value=["refund", "lost_card"]),)
MARKED = (StyleCheck(kind="regex", value=r"#### (?P<answer>[^\n]+)$"),)

PRICE = ("What does entry to the Ropewalk Museum cost?", ("7.80 euros", "7.80"))
PRICE_REFERENCE = "Entry to the Ropewalk Museum costs 7.80 euros. Shall I book a visit for you?"
DIVER = ("Our anchor is gone. What is the name of the diver for lost anchors?", ("Gunnar Sprake",))
PETS = ("Are pets allowed at the A and B Guest House?", ("no",))
GIFT = ("I was given a gift card. Does it also pay for meals on the ship?", ("yes",))
OPENING = ("Wann öffnet das Museum am Samstag?", ("10:30 Uhr",))
PASSAGE = (
    "The Ropewalk Museum stands in the old rope works of 1746. Entry costs 7.80 euros for adults and 3.20 euros for "
    "children. The model ships are shown in the Pitch Gallery, which closes at 16:30 in winter. Groups of more than 12 "
    "need a guide. The café sells soup, bread and cake, and the harbour train stops at the gate every 40 minutes."
)


@pytest.mark.parametrize(
    ("asked", "answer", "right"),
    [
        # numbers and money
        (PRICE, "7.80 euros.", True),
        (PRICE, "Entry to the Ropewalk Museum costs 7.80 euros. May I book it?", True),
        (PRICE, "Entry is €7.80 per person.", True),
        (
            PRICE,
            "Thank you for asking! We would be happy to welcome you at the museum: a ticket is 7.80 euros.",
            True,
        ),
        (PRICE, "Entry costs 8.70 euros.", False),
        (PRICE, "It costs 7.80 dollars.", False),
        (PRICE, "It costs 7.80 euros or 9.50 euros.", False),
        (PRICE, "Entry costs 7.80 euros. Entry costs 9.50 euros.", False),
        (PRICE, "It does not cost 7.80 euros.", False),
        (PRICE, "What does entry to the Ropewalk Museum cost?", False),
        (PRICE, "Is it 7.80 euros?", False),
        (PRICE, "Shall I book a visit for you?", False),
        (PRICE, PASSAGE, False),
        (PRICE, "7.80, 3.20, 12, 40, 1746, 16:30, 9.50", False),
        (
            PRICE,
            "museum, ropewalk, euros, 7.80, ticket, harbour, ships, gallery, café, train, guide, soup",
            False,
        ),
        (PRICE, "", False),
        # names
        (DIVER, "Gunnar Sprake", True),
        (DIVER, "The diver for lost anchors is Gunnar Sprake. Shall I ask when he is free?", True),
        (DIVER, "That would be Sprake.", True),
        (DIVER, "The diver is Gunnar Holm.", False),
        (DIVER, "The diver for lost anchors is our diver for anchors.", False),
        (DIVER, "Alma Teague, Gunnar Sprake, Rolf Kell, Ida Brandt, Olav Moe, Tilda Roe", False),
        # yes and no
        (PETS, "No.", True),
        (PETS, "No, pets are not allowed.", True),
        (PETS, "I'm sorry, but pets may not come in. They can wait in the yard.", True),
        (PETS, "The answer is: no", True),
        (PETS, "Yes, pets are allowed at the guest house.", False),
        (PETS, "Pets are allowed at the A and B Guest House.", False),
        (PETS, "Yes. Pets are not allowed at the guest house.", False),
        (PETS, "I cannot speak about the weather.", False),
        (PETS, "Are pets allowed at the A and B Guest House?", False),
        (GIFT, "Yes.", True),
        (GIFT, "Yes, it can be used for meals too, but not for the shop on land.", True),
        (GIFT, "Gift cards can also pay for meals on board.", True),
        (GIFT, "Gift cards cannot pay for meals on the ship.", False),
        (GIFT, "The harbour is open.", False),
        # times and dates
        (("When does the kiosk open?", ("09:00",)), "It opens at 9 am.", True),
        (("When does the kiosk open?", ("09:00",)), "At nine o'clock.", True),
        (("When does the kiosk open?", ("09:00",)), "It opens at 9 pm.", False),
        (("When are you open on Saturday?", ("9:00 to 13:00",)), "On Saturdays from 9 am until 1 pm.", True),
        (("When are you open on Saturday?", ("9:00 to 13:00",)), "It opens at 9:00.", False),
        (("When was it signed?", ("3 May 2024",)), "It was signed on May 3rd, 2024.", True),
        (("When was it signed?", ("3 May 2024",)), "2024-05-03", True),
        (("When was it signed?", ("3 May 2024",)), "It was signed on 3 June 2024.", False),
        (("When was it signed?", ("2024-05-03",)), "Am 3. Mai 2024.", True),
        (("On what days does it sail?", ("Fridays",)), "It sails on Fridays.", True),
        (("On what days does it sail?", ("Fridays",)), "Mondays, Tuesdays, Wednesdays and Fridays.", False),
        (("By when must bikes be back?", ("18:30",)), "Bikes must be back by 18:30.", True),
        # German
        (OPENING, "Um 10.30 Uhr.", True),
        (OPENING, "Samstags ist das Museum ab 10:30 Uhr geöffnet. Kommen Sie gern vorbei!", True),
        (OPENING, "Das Museum öffnet um 11:30 Uhr.", False),
        (("Was kostet die Karte?", ("12,50 Euro",)), "Die Karte kostet 12.50 Euro.", True),
        (("Was kostet die Karte?", ("1.200 Euro",)), "Sie kostet 1200 Euro.", True),
        (("Dürfen Hunde mit an Bord?", ("Nein",)), "Hunde dürfen leider nicht mit an Bord.", True),
        (("Dürfen Hunde mit an Bord?", ("Nein",)), "Ja, Hunde dürfen mit an Bord.", False),
        (
            ("Wer leitet die Schule?", ("Frau Petra Lindner",)),
            "Die Leiterin der Schule ist Petra Lindner.",
            True,
        ),
        (
            ("Wer leitet die Schule?", ("Frau Petra Lindner",)),
            "Die Schule wird von der Stadt geleitet.",
            False,
        ),
        (("Wann schließt das Tor?", ("18:30 Uhr",)), "Um halb sieben abends.", True),
        (("When does the gate close?", ("17:45",)), "At a quarter to six.", True),
        (("When does the gate close?", ("17:45",)), "At a quarter past six.", False),
        # Spanish
        (("¿Cuánto cuesta la entrada?", ("doce euros",)), "La entrada cuesta 12 euros.", True),
        (("¿Cuánto cuesta la entrada?", ("doce euros",)), "La entrada cuesta 15 euros.", False),
        (
            ("¿Se permiten perros en la playa?", ("no",)),
            "No, los perros no están permitidos en la playa.",
            True,
        ),
        (("¿Se permiten perros en la playa?", ("no",)), "Sí, los perros están permitidos.", False),
        (("¿Quién pintó el cuadro?", ("Diego Velázquez",)), "Lo pintó Diego Velázquez en su taller.", True),
        # Japanese and Chinese
        (("博物館は何時に開きますか", ("午前10時",)), "博物館は午前10時に開きます。", True),
        (("博物館は何時に開きますか", ("午前10時",)), "博物館は午前9時に開きます。", False),
        (("首都はどこですか", ("東京",)), "首都は東京です。", True),
        (("首都はどこですか", ("東京",)), "首都は京都です。", False),
        (("中国的首都在哪里?", ("北京",)), "中国的首都是北京。", True),
    ],
)
def test_free_text_is_right_when_it_states_the_fact(
    asked: tuple[str, tuple[str, ...]], answer: str, right: bool
) -> None:
    question = Question("q", asked[0], asked[1], reference=PRICE_REFERENCE if asked == PRICE else None)
    assert is_right(question, answer, False) is right


@pytest.mark.parametrize(
    ("checks", "gold", "answer", "right"),
    [
        (LABELS, "lost_card", "lost_card", True),
        (LABELS, "lost_card", "Lost card.", True),
        (LABELS, "lost_card", "refund", False),
        (LABELS, "lost_card", "lost_card or refund", False),
        (MARKED, "2 + 2 = 4\n#### 4", "Two and two.\n#### 4.0", True),
        (MARKED, "2 + 2 = 4\n#### 4", "2 + 2 = 4", False),
        (MARKED, "2 + 2 = 4\n#### 4", "#### 5", False),
        ((), "2 + 2 = 4\n#### 4", "I add.\n#### 4", True),
        ((), "So it is 12.\nAnswer: 12 boxes", "Answer: 13 boxes", False),
        ((), '{"a": "x", "b": [1, 2]}', '{"b": [2, 1], "a": "X"}', True),
        ((), '{"a": "x", "b": null}', '{"a": "x", "b": "y"}', False),
        ((), '{"a": "x", "b": 1}', '{"a": "x"}', False),
        ((), '{"a": "x"}', 'Here you are: {"a": "x"}', False),
        (
            (),
            "MODEL: LX-40\nFAULT: paper jam\nPART: roller 12",
            "PART: Roller 12\nMODEL: LX-40\nFAULT: paper jam",
            True,
        ),
        ((), "MODEL: LX-40\nFAULT: paper jam", "MODEL: LX-41\nFAULT: paper jam", False),
        ((), "MODEL: LX-40\nFAULT: paper jam", "MODEL: LX-40\nFAULT: paper jam\nPART: roller", False),
        ((), "MODEL: LX-40\nFAULT: paper jam", "MODEL: LX-40", False),
        ((), "SEVERITY: high", "SEVERITY: High", True),
        ((), "SEVERITY: high", "SEVERITY: low", False),
    ],
)
def test_forms_must_have_the_gold_values(
    checks: tuple[StyleCheck, ...], gold: str, answer: str, right: bool
) -> None:
    question = Question("q", "Well?", reference=gold, references=(gold,))
    assert is_right(question, answer, False, forms=form_scores(question, answer, checks)) is right


def test_rewritten_text_must_differ_from_the_question_as_the_reference_does() -> None:
    asked, gold = "what is the uh no wait the capital of France", "What is the capital of France?"
    question = Question("q", asked, reference=gold, references=(gold,))
    assert is_right(question, gold, False)
    assert not is_right(question, asked, False), "the question repeated"
    low = Question("q", "anna met bob in new york last may", reference="Anna met Bob in New York last May")
    assert is_right(low, "Anna met Bob in New York last May", False)
    assert not is_right(low, low.question, False)


def test_refusals_are_right_exactly_where_there_is_no_answer() -> None:
    open_question = Question("u", "Who owns the moon?", answerable=False)
    assert is_right(open_question, "We have no entry on that.", True) is True
    assert is_right(open_question, "The moon belongs to Bo.", False) is False
    asked = Question("q", "When?", ("at noon",))
    assert is_right(asked, "at noon", True) is False
    assert is_right(Question("q", "When?"), "at noon", False) is None, "nobody can say"
    assert is_right(Question("q", "When?"), "at noon", True) is None, "the same for every arm"


def test_absent_value_is_right_where_absence_is_legal() -> None:
    absent = Question("n", "What is the fee?", reference="not stated", references=("not stated",))
    assert is_right(absent, "n/a", False, absence_is_legal=True) is True
    assert is_right(absent, "12 euros", False, absence_is_legal=True) is False
    assert is_right(absent, "We could not find it.", True, absence_is_legal=True) is True


def test_gold_span_is_used_where_there_is_no_other_gold() -> None:
    question = Question("q", "How high may drones fly?", doc_id="d", spans=((0, 9),))
    span = "Drones may fly up to 35 metres above the harbour."
    assert is_right(question, "Up to 35 metres.", False, gold=span) is True
    assert is_right(question, "Up to 53 metres.", False, gold=span) is False


def test_card_is_read_line_by_line() -> None:
    assert card_fields("KEY: a b\nOther key: 3") == {"key": "a b", "other key": "3"}
    assert card_fields("Note: the museum opens at nine.") == {}, "prose with a colon"
    assert card_fields("A: 1\nno field") == {}
    assert card_fields("Sure!\nA: 1", strict=False) == {"a": "1"}


@pytest.mark.parametrize(
    ("scores", "answerable", "right"),
    [
        ({"right": 1.0, "combined": 0.1}, True, True),
        ({"right": 0.0, "fact_recall": 1.0, "combined": 0.9}, True, False),
        ({"refusal": 1.0, "agreement": 1.0, "fact_recall": 0.5, "combined": 0.1}, True, True),
        ({"refusal": 1.0, "agreement": 0.0, "fact_recall": 1.0, "style": 1.0, "combined": 0.9}, True, False),
        ({"refusal": 0.0, "combined": 0.9}, False, False),
        ({"refusal": 1.0, "style": 0.0, "combined": 0.4}, False, True),
        ({"refusal": 1.0, "token_f1": 0.0, "combined": 0.4}, True, False),
        ({"style": 1.0, "combined": 0.6}, True, True),
    ],
)
def test_stored_scores_of_early_runs_are_judged_by_their_own_rule(
    scores: dict[str, float], answerable: bool, right: bool
) -> None:
    assert stored_right(scores, answerable) is right
