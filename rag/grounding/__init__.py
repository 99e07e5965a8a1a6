"""From hits to a cited answer: context, claims, evidence, citations, conflicts, refusal threshold."""
