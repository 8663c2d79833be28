"""Dataset reconstruction: a bias-free network of two layers, trained with weight decay until its gradient is zero.

One image a class, unrelated to it; less the middle of the range they sum to zero. A case is a candidate for every class,
and counts, class by class, if of all training images that of its class is nearest, so that a blind guess hits one in six.
Two cases are two starts. The control's network learned the same images with their labels moved on by one.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmia import Target, from_function
from jaxmia.attacks.image.kkt import softened
from jaxmia.core import Card
from jaxmia.metrics.estimate import Estimate, wilson
from jaxmia.testing.benches import Bench

CLASSES, SHAPE, CASES, HIDDEN, DECAY = 6, (6, 6, 1), 2, 48, 0.02


def images() -> np.ndarray:
    """`[classes, h, w, c]`."""
    x = np.random.default_rng(0).uniform(size=(CLASSES, *SHAPE))
    return (0.5 + 0.6 * (x - x.mean(0))).astype(np.float32)


def logits(params: Any, batch: Any, activation: Any = jax.nn.relu) -> jax.Array:
    """`[n, classes]` of images `[n, h, w, c]`."""
    return activation((batch.reshape(len(batch), -1) - 0.5) @ params["hidden"]) @ params["top"]


@functools.partial(jax.jit, static_argnums=2)
def trained(x: Any, labels: Any, classes: int) -> dict[str, jax.Array]:
    """Where the gradient of summed cross entropy plus decay |theta|^2 / 2 is zero, or nearly so."""
    size = int(np.prod(x.shape[1:]))
    one, two = jax.random.split(jax.random.key(0))
    start = {
        "hidden": 0.1 * jax.random.normal(one, (size, HIDDEN)),
        "top": 0.1 * jax.random.normal(two, (HIDDEN, classes)),
    }

    def loss(params: Any) -> Any:
        cross = optax.softmax_cross_entropy_with_integer_labels(logits(params, x), labels).sum()
        return cross + 0.5 * DECAY * optax.tree.norm(params, squared=True)

    steps = 8000
    adam = optax.adam(optax.exponential_decay(1e-2, steps // 4, 0.1))

    def step(_: Any, state: Any) -> Any:
        params, opt = state
        updates, opt = adam.update(jax.grad(loss)(params), opt)
        return optax.apply_updates(params, updates), opt

    return jax.lax.fori_loop(0, steps, step, (start, adam.init(start)))[0]


def cases(target: Target, card: Card) -> Any:
    del target, card
    return np.tile(np.arange(CLASSES, dtype=np.int32), (CASES, 1))


def judge(output: Any) -> Estimate:
    found = np.asarray(output.image).reshape(CASES, CLASSES, 1, -1)
    far = np.linalg.norm(found - images().reshape(CLASSES, -1), axis=-1)
    return wilson(int((far.argmin(-1) == np.arange(CLASSES)).sum()), CASES * CLASSES)


@functools.cache
def make() -> Bench:
    x, labels = images(), np.arange(CLASSES)
    leaks = trained(x, labels, CLASSES)

    def network(params: Any, image: Any) -> Any:
        return logits(params, image[None], softened(150.0))[0]

    return Bench(
        build=functools.partial(from_function, logits, classes=CLASSES),
        params={
            "leaks": leaks,
            "shuffled": trained(x, np.roll(labels, 1), CLASSES),
            "constant": jax.tree.map(jnp.zeros_like, leaks),
        },
        inputs={"shape": SHAPE, "center": 0.5},
        cases=cases,
        judge=judge,
        chance=1 / CLASSES,
        candidate=jnp.full(SHAPE, 0.5),
        settings={
            "image/kkt": {
                "network": network,
                "rate": 0.002,
                "multiplier_rate": 0.01,
                "multiplier_weight": 5.0,
                "spread": 0.1,
            }
        },
    )
