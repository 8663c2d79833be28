"""The informed adversary: a logistic regression at its optimum, of random records that have nothing to do with labels.

All records but one are known. A case counts if, of the records that are unknown in some case, the one in question is
nearest to the output, so a blind guess hits one in six.
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

CLASSES, RECORDS, UNKNOWN, SHAPE, DECAY = 3, 24, 6, (6, 6, 1), 1.0


def records() -> tuple[np.ndarray, np.ndarray]:
    """`[n, h, w, c]` and labels, the same number of each."""
    x = np.random.default_rng(0).uniform(size=(RECORDS, *SHAPE)).astype(np.float32)
    return x, np.arange(RECORDS, dtype=np.int32) % CLASSES


def optimum(x: np.ndarray, labels: np.ndarray, decay: float) -> dict[str, jax.Array]:
    """The minimum of the summed cross entropy plus decay |W|^2 / 2, by Newton's method in double precision."""
    design = np.concatenate([x.reshape(len(x), -1), np.ones((len(x), 1))], 1).astype(np.float64)
    onehot, width = np.eye(CLASSES)[labels], design.shape[1]
    decayed = np.append(np.full(width - 1, decay), 0.0)
    # Adding the same to all logits changes nothing, so that the biases need a little curvature to be told.
    curvature = np.kron(np.diag(decayed + np.append(np.zeros(width - 1), 1e-9)), np.eye(CLASSES))
    theta = np.zeros((width, CLASSES))
    for _ in range(30):
        p = np.exp(design @ theta - (design @ theta).max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        gradient = design.T @ (p - onehot) + decayed[:, None] * theta
        hessian = curvature.copy()
        for row, q in zip(design, p):
            hessian += np.kron(np.outer(row, row), np.diag(q) - np.outer(q, q))
        theta -= np.linalg.solve(hessian, gradient.ravel()).reshape(theta.shape)
    return {"w": jnp.asarray(theta[:-1], jnp.float32), "b": jnp.asarray(theta[-1], jnp.float32)}


def cases(target: Target | None, card: Card | None) -> Any:
    del target, card
    x, labels = records()
    known = [np.delete(np.arange(RECORDS), i) for i in range(UNKNOWN)]
    return {"x": np.stack([x[rows] for rows in known]), "y": np.stack([labels[rows] for rows in known])}


def judge(output: Any) -> Estimate:
    unknown = records()[0][:UNKNOWN].reshape(UNKNOWN, -1)
    far = np.linalg.norm(np.asarray(output).reshape(UNKNOWN, 1, -1) - unknown, axis=2)
    return wilson(int((far.argmin(1) == np.arange(UNKNOWN)).sum()), UNKNOWN)


@functools.cache
def make() -> Bench:
    x, labels = records()
    leaks = optimum(x, labels, DECAY)
    return Bench(
        build=functools.partial(from_function, linear.logits, classes=CLASSES),
        params={
            "leaks": leaks,
            "shuffled": optimum(x, np.random.default_rng(1).permutation(labels), DECAY),
            "constant": jax.tree.map(jnp.zeros_like, leaks),
        },
        inputs={},
        cases=cases,
        judge=judge,
        chance=1 / UNKNOWN,
        candidate=jnp.full(SHAPE, 0.5),
        settings={"image/informed_adversary": {"decay": DECAY}},
    )
