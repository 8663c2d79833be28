"""How close a recovered token sequence is to the true one; every function returns one value per pair."""

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Float

__all__ = ["edit_distance", "exact_match", "token_f1"]

Tokens = str | Sequence[Hashable] | np.ndarray
Batch = Sequence[Tokens] | np.ndarray


def edit_distance(predictions: Batch, truths: Batch) -> Float[np.ndarray, " n"]:
    """Levenshtein distance per pair: insertions, deletions and substitutions from prediction to truth.

    A string is compared character by character, a list of tokens (words or token numbers) token by token.

    >>> edit_distance(["kitten"], ["sitting"]).tolist()
    [3.0]
    """
    return np.array([_levenshtein(a, b) for a, b in _pairs(predictions, truths)], dtype=np.float64)


def exact_match(predictions: Batch, truths: Batch) -> Float[np.ndarray, " n"]:
    """1.0 per pair that agrees in every character or token, else 0.0; no case folding or trimming."""
    return np.array([_same(a, b) for a, b in _pairs(predictions, truths)], dtype=np.float64)


def token_f1(predictions: Batch, truths: Batch) -> Float[np.ndarray, " n"]:
    """F1 in [0, 1] per pair between the two multisets of tokens, whatever their order.

    A string is split at white space. The overlap counts a token as often as both hold it. Two empty sequences
    score 1, one empty sequence scores 0.

    >>> token_f1(["the cat sat"], ["the cat"]).tolist()
    [0.8]
    """
    return np.array([_f1(_split(a), _split(b)) for a, b in _pairs(predictions, truths)], dtype=np.float64)


def _pairs(predictions: Batch, truths: Batch) -> list[tuple[Tokens, Tokens]]:
    for name, batch in (("predictions", predictions), ("truths", truths)):
        if isinstance(batch, str) or len(batch) == 0:
            raise ValueError(f"{name} is {batch!r}: a non-empty batch of sequences is needed, one per case")
    if len(predictions) != len(truths):
        raise ValueError(f"predictions has {len(predictions)} cases but truths has {len(truths)}")
    pairs = list(zip(predictions, truths, strict=True))
    for i, (a, b) in enumerate(pairs):
        if isinstance(a, str) != isinstance(b, str):
            raise ValueError(f"case {i} pairs a {type(a).__name__} with a {type(b).__name__}: both strings or none")
    return pairs


def _split(tokens: Tokens) -> Sequence[Hashable]:
    return tokens.split() if isinstance(tokens, str) else _plain(tokens)


def _plain(tokens: Tokens) -> list[Hashable]:
    # tolist gives Python numbers, which hash and compare faster than array scalars
    return tokens.tolist() if isinstance(tokens, np.ndarray) else list(tokens)


def _same(a: Tokens, b: Tokens) -> bool:
    return _plain(a) == _plain(b)


def _f1(predicted: Sequence[Hashable], truth: Sequence[Hashable]) -> float:
    if not predicted or not truth:
        return float(not predicted and not truth)
    overlap = (Counter(predicted) & Counter(truth)).total()
    return 2 * overlap / (len(predicted) + len(truth))


def _levenshtein(a: Tokens, b: Tokens) -> int:
    numbers: dict[Hashable, int] = {}
    source, target = ([numbers.setdefault(t, len(numbers)) for t in _plain(s)] for s in (a, b))
    goal, steps = np.array(target, dtype=np.int64), np.arange(len(target) + 1)
    row = steps
    for token in source:
        # best of deletion and substitution; insertions then run along the row as the minimum over k <= j of
        # reached[k] + j - k
        reached = row + 1
        reached[1:] = np.minimum(reached[1:], row[:-1] + (goal != token))
        row = np.minimum.accumulate(reached - steps) + steps
    return int(row[-1])
