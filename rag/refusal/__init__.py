"""The refusal gate: reading passages before an answer, checking it after, and noticing other questions than it knows."""
