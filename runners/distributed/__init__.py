"""Training in a group of processes: the group, the wrappers of torch, sharded weights and sharded checkpoints."""
