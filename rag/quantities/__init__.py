"""Quantities as citations, right answers, staleness, conflicts and made rows read and compare them."""
