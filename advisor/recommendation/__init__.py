"""Ranking, confidence, thresholds, sensitivity, relaxations, break-even."""
