"""Labelled answers to questions with gold, by which the agreement of the rule of right answers is measured."""
