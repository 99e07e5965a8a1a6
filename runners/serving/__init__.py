"""Serving a run: the batching worker between HTTP and the models, and what it queues."""
