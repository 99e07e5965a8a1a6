"""Builds by shards: parts of the work that other processes do and store, and from which the index is joined."""
