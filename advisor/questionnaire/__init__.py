"""The questionnaire: questions as data, layered answers, answers files, and the profile they give."""
