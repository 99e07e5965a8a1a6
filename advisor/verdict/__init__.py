"""Comparison of arms, verdict, guards, prediction against measurement."""
