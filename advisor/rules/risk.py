"""Risk: what can go wrong, and notes that count nothing but should be read."""

from __future__ import annotations

from advisor.questionnaire.data_facts import STATE_FACTS
from advisor.questionnaire.profile import Profile
from advisor.rules.base import Need, Rule
from rag.text.words import count_noun

FEW_QUESTIONS = 30
FREQUENT_LABEL = 0.4
"""Share of the most frequent label from which answering nothing else looks good."""
TIMES_EVEN_SHARE = 1.25
"""How much more than its even share a label must have to count as frequent: of two labels 62.5 %."""


class Risk(Rule):
    """Rules about harm, privacy and evidence."""

    family = "risk"


class RK001(Risk):
    """Where a wrong answer is costly, let the model answer from passages that can be checked.

    Does not apply when the task needs no facts.
    """

    need = Need.GROUND
    weight = 1.0
    evidence = ("NehaBharti08/rag-vs-finetune: fabrication rose from 78 to 96.9 % after tuning on facts",)

    def applies(self, profile: Profile) -> str:
        costly = profile.wrong_answer_cost == "high" and profile.needs_facts
        return "a wrong answer is costly, and the passages of a search can be checked" if costly else ""


class RK002(Risk):
    """Examples that state new facts teach a model to invent more of them.

    Replies count as facts where half of them state prices, times or other values that their prompts do not hold, and
    no documents are named.
    Does not apply when the facts are given in the prompt while training, or are so few that all fit in one.
    """

    need = Need.GROUND
    weight = 0.7
    evidence = ("Gekhman et al., arXiv 2405.05904: hallucination grows linearly with unknown facts fitted",)
    at = {"labelled_examples": (10,)}

    def applies(self, profile: Profile) -> str:
        if profile.data.replies_state_facts and not profile.passages_given and profile.examples_known >= 10:
            return f"{profile.data.facts_in_replies:.0%} of the replies {STATE_FACTS}: the examples would teach these"
        teaching = (
            profile.facts_needed == "new" and profile.examples_known >= 10 and profile.behaviour_gap == "none"
        )
        if not teaching or profile.corpus_in_prompt:
            return ""
        return "the examples would teach facts, not behaviour"


class RK003(Risk):
    """Without test questions the recommendation stays a guess: nothing can be measured.

    Does not apply when questions are given.
    """

    evidence = ("OpenAI, Optimizing LLM Accuracy: start with 20 or more questions with answers",)

    def applies(self, profile: Profile) -> str:
        return (
            ""
            if profile.questions
            else "there are no test questions: write 45 or more with their answers before building anything"
        )


class RK004(Risk):
    """Fewer than 30 test questions show a tendency only.

    Does not apply from 30 test questions on (about 45 in the file, as a third is used for choices before the test).
    """

    evidence = (
        "computed: where half are right, a 95 % interval is 23 points wide either way at 15 questions, 10 at 100",
    )

    def applies(self, profile: Profile) -> str:
        n = profile.question_count
        few = n is not None and n * 2 / 3 < FEW_QUESTIONS
        return (
            f"you have {count_noun(n, 'question')}; about {n * 2 / 3:.0f} of them are left for the test: "
            f"bring {FEW_QUESTIONS * 3 // 2} or more"
            if n is not None and few
            else ""
        )


class RK006(Risk):
    """A hosted model and data that must stay local contradict each other.

    Does not apply to an endpoint on your own machines.
    """

    evidence = ("policy: your own answer",)

    def applies(self, profile: Profile) -> str:
        local = profile.data_must_stay_local or profile.hosted_api_allowed is False
        inside = any(
            host in (profile.model or "") for host in ("@http://127.", "@http://localhost", "@http://[::1]")
        )
        return (
            f"{profile.model} is an endpoint: make sure it runs on your own machines"
            if (local and profile.remote and not inside)
            else ""
        )


class RK008(Risk):
    """Where one label is very frequent, always answering it looks good: compare with that, and look at each label.

    Does not apply where labels are about equally frequent, or where there are none.
    """

    evidence = (
        "He & Garcia, Learning from Imbalanced Data, IEEE TKDE 2009: accuracy rewards the frequent class",
    )

    def applies(self, profile: Profile) -> str:
        share, labels = profile.data.largest_label_share, profile.data.label_count
        if share is None or not labels or share < max(FREQUENT_LABEL, TIMES_EVEN_SHARE / labels):
            return ""
        return f"one label makes up {share:.0%} of the examples: giving it always would be right as often"
