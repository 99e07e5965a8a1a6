"""Chunking, change detection, embedding of what is new, generations, build, repair."""
