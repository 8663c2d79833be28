"""Text: an order-1 Markov language model with planted canaries. Candidates are tokens, `secret` or the output itself.

Canary k is "START_k, two digits, END", planted 50 times into add-one counts of pairs, so the two digits are the
likeliest of the hundred by a factor of 50 or more: rank 1, exposure log2(100). A blind guess hits one in a hundred.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmia import Target, from_function
from jaxmia.core import Card
from jaxmia.metrics.estimate import Estimate, wilson
from jaxmia.testing.benches import Bench

CANARIES, END = 8, 18  # tokens: the digits 0 to 9, START_k = 10 + k, END
STARTS = np.arange(10, END, dtype=np.int32)
VOCABULARY = END + 1


def secrets(seed: int) -> np.ndarray:
    """`[canaries, 2]`; no two share their first digit, so that no pair is planted against another."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation(10)[:CANARIES] for _ in range(2)], 1)


def counted(planted: np.ndarray) -> np.ndarray:
    """Logits of the next token by the last one, with add-one counts of the canaries' pairs."""
    counts = np.ones((VOCABULARY, VOCABULARY), np.float32)
    for start, secret in zip(STARTS, planted):
        np.add.at(counts, (np.array([start, *secret]), np.array([*secret, END])), 50)
    return np.log(counts / counts.sum(1, keepdims=True))


def build(params: Any, **options: Any) -> Target:
    options = {"serve": lambda outputs: jax.nn.log_softmax(outputs.logits), **options}
    return from_function(
        lambda table, tokens: table[tokens], jnp.asarray(params, jnp.float32), classes=VOCABULARY, **options
    )


def cases(target: Target, card: Card) -> Any:
    del target, card
    return {"prefix": STARTS[:, None], "suffix": np.full((CANARIES, 1), END, np.int32)}


def judge(output: Any) -> Estimate:
    found = np.asarray(getattr(output, "secret", output))
    return wilson(int((found == secrets(0)).all(1).sum()), CANARIES)


@functools.cache
def make() -> Bench:
    return Bench(
        build=build,
        params={
            "leaks": counted(secrets(0)),
            "shuffled": counted(secrets(1)),
            "constant": np.zeros((VOCABULARY, VOCABULARY), np.float32),
        },
        inputs={"space": [np.arange(10, dtype=np.int32)] * 2},
        cases=cases,
        judge=judge,
        chance=1 / 100,
        candidate=jnp.zeros(3),
    )
