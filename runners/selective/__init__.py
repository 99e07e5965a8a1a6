"""Answers given only where an arm is sure: nearest replies, the cut on their similarity, and the cut of a router."""
