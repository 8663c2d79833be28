"""Records: a linear classifier whose label is the sensitive attribute. Candidates are `posterior` or the output itself.

The first of three attributes is hidden and has eight values; a case is a record of each. What the other attributes and
the label itself say about it is nothing without the target, so a blind guess hits one in eight.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmia import Target, from_function
from jaxmia.core import Card
from jaxmia.metrics.estimate import Estimate, wilson
from jaxmia.testing.benches import Bench, linear

COLUMNS, SENSITIVE = (8, 3, 2), 0
VALUES = COLUMNS[SENSITIVE]


def records(seed: int, n: int) -> np.ndarray:
    """Codes `[n, attributes]`, uniform and independent."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.integers(0, size, n) for size in COLUMNS], 1).astype(np.int32)


def one_hot(codes: np.ndarray) -> np.ndarray:
    return np.concatenate([np.eye(size, dtype=np.float32)[codes[:, j]] for j, size in enumerate(COLUMNS)], 1)


def cases(target: Target, card: Card) -> Any:
    del target, card
    record = records(1, VALUES)
    record[:, SENSITIVE] = 0  # hidden
    return {"record": record, "label": np.arange(VALUES, dtype=np.int32)}


def judge(output: Any) -> Estimate:
    found = np.asarray(getattr(output, "posterior", output)).argmax(1)
    return wilson(int((found == np.arange(VALUES)).sum()), VALUES)


@functools.cache
def make() -> Bench:
    codes = records(0, 600)
    x, labels = one_hot(codes), codes[:, SENSITIVE]
    leaks = linear.ridge(x, labels, VALUES)
    return Bench(
        build=functools.partial(from_function, linear.logits, classes=VALUES),
        params={
            "leaks": leaks,
            "shuffled": linear.ridge(x, np.random.default_rng(2).permutation(labels), VALUES),
            "constant": jax.tree.map(jnp.zeros_like, leaks),
        },
        inputs={
            "columns": COLUMNS,
            "sensitive": SENSITIVE,
            "marginals": np.full(VALUES, 1 / VALUES),
            "confusion": 0.9 * np.eye(VALUES) + 0.1 / VALUES,
        },
        cases=cases,
        judge=judge,
        chance=1 / VALUES,
        candidate=jnp.zeros(sum(COLUMNS)),
    )
