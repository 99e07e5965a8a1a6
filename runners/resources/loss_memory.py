"""Bytes that the loss of this project's training holds at its highest moment, by path. Imports no torch.

The formulas follow :mod:`runners.training.loss` line by line; V is the vocabulary and h the hidden width.
"""

from __future__ import annotations

from runners.resources.model_shape import ModelShape

LOGIT_BLOCK_BYTES = (64 * 2**20, 256 * 2**20)
"""Bytes of fp32 logits held at once, on a CPU and on a GPU: 341 rows of a vocabulary of 49,152, and 1,365. On 2 cores
with AMX, 300 rows took 135 ms of processor time in blocks of 133, 115 at once."""
MIN_LOGIT_ROWS = 16
"""Fewest rows of such a block, however large the vocabulary."""


def logit_block_rows(vocabulary: int, cuda: bool) -> int:
    """Return how many rows of logits the row-wise loss holds at once."""
    return max(MIN_LOGIT_ROWS, LOGIT_BLOCK_BYTES[cuda] // (4 * vocabulary))


def row_loss_bytes(shape: ModelShape, wide: int, learnt: float, trained_head: bool, cuda: bool) -> float:
    """Return the bytes of :class:`runners.training.loss.LinearCrossEntropy`, the most at any moment.

    Forward: a block of logits in the model's dtype and in fp32, the gradient of the hidden rows, and of a trained head its
    fp32 sum and one block's product. Backward: gradients of hidden rows and head once more, scaled, and cast.

    Args:
        shape: the model.
        wide: bytes of a value of the model's dtype.
        learnt: target tokens of the forward pass.
        trained_head: whether the head is trained.
        cuda: whether it runs on a GPU, where blocks are larger.
    """
    block = min(learnt, logit_block_rows(shape.vocab, cuda)) * shape.vocab
    hidden = wide * learnt * shape.hidden
    head = shape.table if trained_head else 0
    # An fp32 model has no second copy of a block's logits, and its head's gradient needs no cast.
    cast = 2 if wide == 2 else 0
    forward = block * (4 + cast) + hidden + head * (4 + wide)
    backward = 2 * hidden + head * (4 + 4 + cast)
    return float(max(forward, backward))


def plain_loss_bytes(shape: ModelShape, wide: int, tokens: float, learnt: float, trained_head: bool) -> float:
    """Return the bytes of :func:`runners.training.loss.plain_loss`, the most at any moment.

    The moments, in this order: logits of all tokens, with those of the learnt ones and their log-probabilities in fp32;
    then, the logits being freed, the log-probabilities with two gradients of their size; the gradient of the learnt ones'
    logits, the zeros it is written into and, as autograd does not write in place, the result; the gradient of a trained
    head beside that of all logits. A model that caps its logits keeps the tanh's output, of their size, up to the last.

    Args:
        shape: the model.
        wide: bytes of a value of the model's dtype.
        tokens: tokens of the forward pass, padding included.
        learnt: those of them that are targets.
        trained_head: whether the head is trained.
    """
    of_all, of_learnt = wide * tokens * shape.vocab, learnt * shape.vocab
    capped = of_all if shape.capped_logits else 0.0
    held = max(of_all + 8 * of_learnt, 12 * of_learnt, 2 * of_all + wide * of_learnt)
    return float(max(capped + held, of_all + (wide * shape.table if trained_head else 0)))


def other_loss_bytes(shape: ModelShape, logits: float, each: float, output: float, head: float) -> float:
    """Return the bytes of the loss of another program that holds all logits in 16 bits, the most at any moment.

    The gradient of a trained head is made when the log-probabilities are freed: beside the output and the gradient of
    the logits, 2 bytes each.

    Args:
        shape: the model.
        logits: number of logits, tokens times vocabulary.
        each: bytes of a logit when the loss is at its highest.
        output: bytes of a logit of the model's output that are held to the end; 0 where it is freed.
        head: bytes of a trained head's gradient, 0 for a frozen one.
    """
    # The tanh's output, in 16 bits.
    capped = 2 * logits if shape.capped_logits else 0.0
    return max(capped + each * logits, (output + 2) * logits + head)
