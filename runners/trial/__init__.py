"""Carrying out a plan: steps, evaluation, judge, forgetting, staleness, dry run, base probe."""
