"""GAMIN: without any data, a surrogate of the target and a generator that the surrogate takes for a class, side by side.

Aivodji, Gambs, Ther, "GAMIN: An Adversarial Approach to Black-Box Model Inversion", 2019
(https://arxiv.org/abs/1909.11835). Every case trains networks of its own. In a step the target T answers a batch of random
images X_S, uniform in [0, 1], and a batch of generated ones X_G = G(z), z ~ N(0, I). With H(X) the mean cross-entropy from
what T answers for X to what the surrogate S does, first S and then G descend on

    L_S = H(X_S) + k H(X_G),        L_G = mean -log S(G(z))_y,

where k keeps the two parts of L_S in balance, in the manner of a boundary equilibrium (Berthelot et al., 2017):

    k <- clip(k + balance_rate (H(X_G) - gamma H(X_S)), 0, 1).

What differs. Written from descriptions of the method, not from its text: the sign of the balance is such that the part that
S fits worse weighs more, and balance, batch, steps and rates are ours. A step asks 2 * batch queries. Networks are trained
for every case, so where they convolve, a CPU is fastest with one case at a time (`Plan(chunk=1)`).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from jaxmia.core import Attack, Card, Process, Scalar, info
from jaxmia.oracle import Access, Oracle, Scores, lower
from jaxmia.recipes import sliced

__all__ = ["CARD", "gamin"]

CARD = Card(
    title="GAMIN",
    paper="Aivodji, Gambs, Ther. GAMIN: An Adversarial Approach to Black-Box Model Inversion. 2019",
    url="https://arxiv.org/abs/1909.11835",
    year=2019,
    modality="image",
    access=Access.SCORES,
    recovers="an image that stands for a class",
    knows="nothing but the shape of the images",
)


class State(NamedTuple):
    networks: tuple[Any, Any]  # variables of S and G
    optimizers: tuple[Any, Any]
    balance: Float[Array, ""]  # k
    z: Float[Array, "1 d"]  # of the output
    queries: Int[Array, ""]


def gamin(
    oracle: Oracle,
    shape: tuple[int, int, int],
    generator: Any,
    surrogate: Any,
    *,
    steps: int = 5000,
    batch: int = 64,
    dimensions: int = 100,
    surrogate_rate: Scalar = 1e-3,
    rate: Scalar = 1e-3,
    balance: Scalar = 1.0,
    balance_rate: Scalar = 1e-3,
    gamma: Scalar = 0.5,
    budget: int = 1_000_000,
) -> Attack:
    """The attack; a case is a class index, the output an image.

    Args:
      oracle: score access.
      shape: of the images, `(h, w, c)`.
      generator: Linen module `(z [n, d], train) -> images`.
      surrogate: Linen module `(images, train) -> logits [n, classes]`.
      steps: updates of both networks.
      batch: random and generated images of a step, as many of each.
      dimensions: of z.
      surrogate_rate: Adam's learning rate for S.
      rate: Adam's learning rate for G.
      balance: k at the start.
      balance_rate: how fast k moves.
      gamma: the ratio of H(X_G) to H(X_S) at which it rests.
      budget: most queries per case.

    Raises:
      ThreatModelError: without score access.
      ValueError: for a batch below 2, or a budget below one step.
    """
    view: Scores = lower(oracle, CARD.access, "image/gamin")
    if batch < 2:
        raise ValueError(f"batch: {batch}; legal is 2 or more")
    if budget < 2 * batch:
        raise ValueError(f"budget: {budget}; legal is at least one step, {2 * batch}")
    adams = optax.adam(surrogate_rate), optax.adam(rate)

    def latents(key: Any) -> Any:
        return jax.random.normal(key, (batch, dimensions))

    def paint(g: Any, z: Any) -> Any:
        return generator.apply(g, z, train=True, mutable=["batch_stats"])

    def imitate(s: Any, x: Any, key: Any) -> Any:
        return surrogate.apply(s, x, train=True, rngs={"dropout": key}, mutable=["batch_stats"])

    def descend(loss: Any, adam: Any, variables: Any, optimizer: Any) -> Any:
        """One step; `loss` gives a scalar, changed statistics, and more."""
        (_, (changed, more)), gradient = jax.value_and_grad(
            lambda params: loss({**variables, "params": params}), has_aux=True
        )(variables["params"])
        updates, optimizer = adam.update(gradient, optimizer)
        return {**variables, **changed, "params": optax.apply_updates(variables["params"], updates)}, optimizer, more

    def init(key: Any, _: Any) -> State:
        one, two, three = jax.random.split(key, 3)
        z = jax.random.normal(three, (1, dimensions))
        s = surrogate.init({"params": one, "dropout": one}, jnp.zeros((2, *shape)), train=True)
        g = generator.init(two, jnp.concatenate([z, z]), train=True)
        optimizers = adams[0].init(s["params"]), adams[1].init(g["params"])
        return State((s, g), optimizers, jnp.asarray(balance, jnp.float32), z, jnp.zeros((), jnp.int32))

    def step(key: Any, state: State, label: Any) -> tuple[State, Any]:
        noise, first, second, ask, one, two = jax.random.split(key, 6)
        (s, g), k = state.networks, state.balance
        x = jnp.concatenate([jax.random.uniform(noise, (batch, *shape)), paint(g, latents(first))[0]])
        answers = sliced(view.answer, jax.random.split(ask, 2 * batch), x)

        def unlike(s: Any) -> Any:
            logits, changed = imitate(s, x, one)
            apart = optax.softmax_cross_entropy(logits, answers)
            random, generated = jnp.mean(apart[:batch]), jnp.mean(apart[batch:])
            return random + k * generated, (changed, (random, generated))

        s, s_optimizer, (random, generated) = descend(unlike, adams[0], s, state.optimizers[0])

        def missed(g: Any) -> Any:
            painted, changed = paint(g, latents(second))
            logits, _ = imitate(s, painted, two)
            loss = -jnp.mean(jax.nn.log_softmax(logits)[:, label])
            return loss, (changed, loss)

        g, g_optimizer, loss = descend(missed, adams[1], g, state.optimizers[1])
        k = jnp.clip(k + balance_rate * (generated - gamma * random), 0.0, 1.0)
        queries = state.queries + 2 * batch
        told = info(loss, queries=queries, done=queries + 2 * batch > budget, random=random, generated=generated)
        return State((s, g), (s_optimizer, g_optimizer), k, state.z, queries), told

    def read(state: State) -> Any:
        return generator.apply(state.networks[1], state.z, train=False)[0]

    return Attack(lambda fitted: Process(init, step, read, steps), observes=CARD.observes)
