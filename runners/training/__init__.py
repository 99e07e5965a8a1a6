"""The training loop: loss, LoRA, optimiser, checkpoints, CPU kernels."""
