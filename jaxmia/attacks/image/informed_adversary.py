"""Informed adversary: who knows all training records but one reads the last one out of the model.

Balle, Cherubin, Hayes, "Reconstructing Training Data with Informed Adversaries", S&P 2022
(https://arxiv.org/abs/2201.04845). Convex models (section III): parameters theta = (W, b) of a generalized linear model
that minimize sum_i l(x_i W + b, y_i) + decay |W|^2 / 2 have gradient zero, so that the unknown record's gradient is what
the known ones and the decay leave over,

    g_W = z r^T = -(sum_known x_i r_i^T + decay W),   g_b = r = -sum_known r_i,   z = g_W r / |r|^2.

Other models (section IV, "RecoNN"): the adversary trains, as the model was trained, a shadow model on the known records
and each of many candidates, and a network that maps standardized parameters to the candidate in them; it then reads
the released parameters.

What differs. The paper writes the convex case for two classes and a bias folded into the records; with several classes
the equations are more than the unknowns, and are met in least squares. Its loss may be a mean over n records: multiply the
decay by n. RecoNN is as released: it ends in a sigmoid, so that records are in [0, 1], and minimizes the mean absolute
error plus the mean squared error. The released 200 epochs of 10,000 shadows are `steps` minibatches; rows are drawn with
replacement here.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from jaxmia.core import Attack, Card, Objective, Process, Scalar, info
from jaxmia.objectives import cross_entropy
from jaxmia.oracle import Access, Oracle, Weights, lower
from jaxmia.recipes import score

__all__ = ["CARD", "informed_adversary"]

CARD = Card(
    title="Informed adversary",
    paper="Balle, Cherubin, Hayes. Reconstructing Training Data with Informed Adversaries. S&P 2022",
    url="https://arxiv.org/abs/2201.04845",
    year=2022,
    modality="image",
    access=Access.WEIGHTS,
    recovers="the one training record that the adversary does not know",
    knows="all other training records, and how the model was trained",
    observes="other_records",
)


class Reconstructor(nn.Module):
    """RecoNN, from standardized parameters `[n, p]` to records `[n, d]` in [0, 1]."""

    width: int
    outputs: int

    @nn.compact
    def __call__(self, parameters: Float[Array, "n p"]) -> Float[Array, "n d"]:
        """Returns records."""
        for _ in range(2):
            parameters = nn.relu(nn.Dense(self.width)(parameters))
        return nn.sigmoid(nn.Dense(self.outputs)(parameters))


class State(NamedTuple):
    shadows: Float[Array, "m p"]  # standardized
    released: Float[Array, " p"]  # likewise
    variables: Any
    optimizer: Any


def informed_adversary(
    oracle: Oracle,
    *,
    loss: Objective = cross_entropy,
    decay: Scalar = 0.0,
    train: Callable[[Any, Any], Any] | None = None,
    candidates: Any = None,
    steps: int = 62_500,
    batch: int = 32,
    rate: Scalar = 3e-4,
    width: int = 1000,
) -> Attack:
    """The attack; a case is the other training records, {"x": [n - 1, ...], "y": [n - 1]}, the output the missing x.

    Args:
      oracle: white-box access to the model that all n records trained.
      loss: what training summed over records, of one record's logits and label.
      decay: factor of |W|^2 / 2 in the sum; biases are not decayed.
      train: `(x [n, ...], y [n]) -> params`, with all randomness of the training inside, traceable by JAX; makes the
        adversary train a reconstructor. None solves the gradient condition of a linear model, without a step.
      candidates: records {"x": [m, ...] in [0, 1], "y": [m]} that are put in the place of the unknown one; with `train`.
      steps: minibatches for the reconstructor.
      batch: its size.
      rate: RMSprop's learning rate.
      width: of its two hidden layers.

    Raises:
      ThreatModelError: without white-box access.
      ValueError: for a model that is not one matrix and one bias, if `train` is None; candidates without `train`, or
        `train` without candidates.
    """
    view: Weights = lower(oracle, CARD.access, "image/informed_adversary")
    if (train is None) != (candidates is None):
        raise ValueError("train, candidates: legal is both or neither")
    if train is not None:
        network = Reconstructor(width, candidates["x"][0].size)
        return Attack(
            lambda fitted: _reconstructor(view, network, train, candidates, steps, batch, optax.rmsprop(rate)),
            observes=CARD.observes,
        )
    dimensions = sorted(jnp.ndim(leaf) for leaf in jax.tree.leaves(view.params))
    if dimensions != [1, 2]:
        raise ValueError(f"oracle: parameters of {dimensions} dimensions; legal is a bias and a matrix, or `train`")

    def stationary(key: Any, known: Any) -> Any:
        del key

        def total(params: Any) -> Any:
            logits = jax.vmap(lambda x: view.apply(params, x).logits)(known["x"])
            decayed = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params) if jnp.ndim(leaf) == 2)
            return jnp.sum(jax.vmap(loss)(logits, known["y"])) + decay * decayed / 2.0

        left = jax.tree.map(jnp.negative, jax.grad(total)(view.params))
        residual, outer = sorted(jax.tree.leaves(left), key=jnp.ndim)  # r and z r^T
        return (outer @ residual / jnp.maximum(jnp.sum(residual**2), 1e-12)).reshape(known["x"].shape[1:])

    return Attack(lambda fitted: score(stationary), observes=CARD.observes)


def _reconstructor(
    view: Weights, network: Reconstructor, train: Any, candidates: Any, steps: int, batch: int, optimizer: Any
) -> Process:
    x = jnp.asarray(candidates["x"])

    def init(key: Any, known: Any) -> State:
        def shadow(one: Any) -> Any:
            every = jax.tree.map(lambda all_but, last: jnp.concatenate([all_but, last[None]]), known, one)
            return ravel_pytree(train(every["x"], every["y"]))[0]

        shadows = jax.lax.map(shadow, {"x": x, "y": jnp.asarray(candidates["y"])})
        mean, deviation = jnp.mean(shadows, 0), jnp.std(shadows, 0) + 1e-8
        released = (ravel_pytree(view.params)[0] - mean) / deviation
        variables = network.init(key, released[None])
        return State((shadows - mean) / deviation, released, variables, optimizer.init(variables))

    def step(key: Any, state: State, known: Any) -> tuple[State, Any]:
        del known
        rows = jax.random.randint(key, (batch,), 0, len(x))

        def error(variables: Any) -> Any:
            records: Any = network.apply(variables, state.shadows[rows])
            off = records - x[rows].reshape(batch, -1)
            return jnp.mean(jnp.abs(off)) + jnp.mean(off**2)

        value, gradient = jax.value_and_grad(error)(state.variables)
        updates, opt = optimizer.update(gradient, state.optimizer)
        return state._replace(variables=optax.apply_updates(state.variables, updates), optimizer=opt), info(value)

    def read(state: State) -> Any:
        told: Any = network.apply(state.variables, state.released[None])
        return told.reshape(x.shape[1:])

    return Process(init, step, read, steps)
