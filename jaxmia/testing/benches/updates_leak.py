"""Updates-Leak: a softmax regression that takes one step on a private sample. An output holds the sample in `image`.

Images are noise, and a class is one side of a plane through them, drawn with a temperature, so that no model is sure and
every sample moves it. A case counts if, of the private samples, the one in question is nearest to the output, so a blind
guess hits one in twelve.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmia import Target, from_function
from jaxmia.core import Card
from jaxmia.metrics.estimate import Estimate, wilson
from jaxmia.objectives import cross_entropy
from jaxmia.testing.benches import Bench

SHAPE, CLASSES, PRIVATE, PROBES, RATE = (4, 4, 1), 2, 12, 24, 0.05


class Model(nn.Module):
    """Softmax regression on standardized pixels."""

    @nn.compact
    def __call__(self, x, train: bool = False):
        return nn.Dense(CLASSES)(4.0 * (x.reshape(len(x), -1) - 0.5))


MODEL = Model()


class Decoder(nn.Module):
    """Differences to samples, one hidden layer."""

    @nn.compact
    def __call__(self, deltas, train: bool = False):
        hidden = nn.relu(nn.Dense(64)(deltas.reshape(len(deltas), -1)))
        return nn.Dense(16)(hidden).reshape(-1, *SHAPE)


def images(seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """`[n, h, w, c]` in [0, 1] and labels."""
    rng, teacher = np.random.default_rng(seed), np.random.default_rng(0).standard_normal(16)
    x = rng.uniform(size=(n, *SHAPE)).astype(np.float32)
    chance = 1 / (1 + np.exp(-(x.reshape(n, 16) - 0.5) @ teacher))
    return x, (rng.uniform(size=n) < chance).astype(np.int32)


def gradient(params: Any, x: Any, y: Any) -> Any:
    return jax.grad(lambda p: jnp.mean(jax.vmap(cross_entropy)(MODEL.apply(p, x), y)))(params)  # type: ignore[arg-type]


def trained(x: np.ndarray, y: np.ndarray) -> Any:
    params, optimizer = MODEL.init(jax.random.key(0), x[:1]), optax.adam(0.05)

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        updates, state = optimizer.update(gradient(params, x, y), state)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    for _ in range(300):
        params, state = step(params, state)
    return params


def cases(target: Target, card: Card) -> Any:
    """Scores of the probes after one step on each of the private samples."""
    del card
    x, y = images(1, PRIVATE)

    def after(one: Any, label: Any) -> Any:
        slope = gradient(target.params, one[None], label[None])
        updated = jax.tree.map(lambda p, g: p - RATE * g, target.params, slope)
        return jax.nn.softmax(MODEL.apply(updated, images(2, PROBES)[0]))  # type: ignore[arg-type]

    return np.asarray(jax.vmap(after)(jnp.asarray(x), jnp.asarray(y)))


def judge(output: Any) -> Estimate:
    private = images(1, PRIVATE)[0].reshape(PRIVATE, -1)
    far = np.linalg.norm(np.asarray(output.image).reshape(PRIVATE, 1, -1) - private, axis=2)
    return wilson(int((far.argmin(1) == np.arange(PRIVATE)).sum()), PRIVATE)


@functools.cache
def make() -> Bench:
    x, y = images(3, 2000)
    public, named = images(4, 2000)
    leaks = trained(x, y)

    def batch(step: int) -> dict[str, np.ndarray]:
        rows = np.random.default_rng(step).integers(0, len(public), 32)
        return {"x": public[rows], "y": named[rows]}

    return Bench(
        build=functools.partial(from_function, MODEL.apply, classes=CLASSES),
        params={
            "leaks": leaks,
            "shuffled": trained(x, np.random.default_rng(1).permutation(y)),
            "constant": jax.tree.map(jnp.zeros_like, leaks),
        },
        inputs={"surrogate": MODEL, "decoder": Decoder(), "gallery": jnp.asarray(images(2, PROBES)[0])},
        cases=cases,
        judge=judge,
        chance=1 / PRIVATE,
        candidate=jnp.full(SHAPE, 0.5),
        public=batch,
        settings={
            "image/updates_leak": {
                "shadow_steps": 600,
                "shadow_rate": 0.02,
                "update_rate": RATE,
                "steps": 800,
                "rate": 0.005,
            }
        },
    )
