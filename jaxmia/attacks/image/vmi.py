"""VMI: the posterior over latents given a class, by variational inference.

Wang, Fu, Li, Khisti, Zemel, Makhzani, "Variational Model Inversion Attacks", NeurIPS 2021
(https://arxiv.org/abs/2201.10787), eq. 6: min over q of E_{z ~ q}[-log p_T(y | G(z))] + gamma * KL(q || p), p(z) = N(0, I),
where gamma tempers the target's posterior: small gamma asks for accuracy, large for diversity. q is the released flow, a
Glow of additive couplings (`posterior="flow"`, `priors.flow`), or a Gaussian with a mean and a full factor, as released
(`posterior="gaussian"`). SGD with momentum on `draws` samples a step; what is read out is the image of one draw of q.

What differs. The paper's flow on a StyleGAN has a part for each of ten layers of W, mapped from z by the generator's
network, the other layers left at random, and the KL divergence is their mean; here one flow covers the latent of the prior,
whose latents must be N(0, I). The released flow computes in double precision, here in JAX's. `steps` are the released 31
epochs; the released evaluation takes what it has after 20 of them (3,140 steps). A later toolbox takes 19,375 steps of 16
draws, on which q moves four times as far.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxmia.core import Attack, Card, Prior, Process, Scalar, info
from jaxmia.objectives import cross_entropy
from jaxmia.oracle import Access, Oracle, Weights, lower
from jaxmia.priors.flow import Flow, flow
from jaxmia.recipes import sliced

__all__ = ["CARD", "vmi"]

CARD = Card(
    title="VMI",
    paper="Wang, Fu, Li, Khisti, Zemel, Makhzani. Variational Model Inversion Attacks. NeurIPS 2021",
    url="https://arxiv.org/abs/2201.10787",
    year=2021,
    modality="image",
    access=Access.WEIGHTS,
    recovers="images of a class, as a distribution over what the prior can draw",
    knows="public images of other people",
)


class State(NamedTuple):
    posterior: Any
    optimizer: Any
    noise: Float[Array, " d"]  # of the image that is read out


def _gaussian(dimensions: int) -> Flow:
    def push(parameters: Any, noise: Any) -> Any:
        mean, factor = parameters
        density = jnp.sum(jax.scipy.stats.norm.logpdf(noise)) - jnp.linalg.slogdet(factor)[1]
        return mean + factor @ noise, density

    return Flow(lambda key: (jnp.zeros(dimensions), jnp.eye(dimensions)), push)


def vmi(
    oracle: Oracle,
    prior: Prior,
    *,
    steps: int = 4_867,
    rate: Scalar = 1e-4,
    momentum: Scalar = 0.9,
    kl_weight: Scalar = 1e-3,
    draws: int = 64,
    posterior: Literal["flow", "gaussian"] = "flow",
    levels: int = 3,
    layers: int = 10,
    hidden: int = 100,
) -> Attack:
    """The attack; a case is a class index, the output an image.

    Args:
      oracle: white-box access.
      prior: vector latents ~ N(0, I); its penalty and projection are not used.
      steps: of SGD (31 epochs of 157 steps, 10,000 draws).
      rate: step size.
      momentum: of SGD, in [0, 1).
      kl_weight: gamma.
      draws: z's of a step.
      posterior: the family of q.
      levels: of the flow; half of the latent is drawn on the level before the last, and so on.
      layers: steps of each level.
      hidden: units of both hidden layers of the flow's perceptrons.

    Raises:
      ThreatModelError: without white-box access.
      ValueError: for another posterior, fewer than one draw, or a latent that is too small for the flow's levels.
    """
    view: Weights = lower(oracle, CARD.access, "image/vmi")
    if posterior not in ("flow", "gaussian"):
        raise ValueError(f"posterior: {posterior!r}; legal is flow or gaussian")
    if draws < 1:
        raise ValueError(f"draws: {draws}; legal is 1 or more")
    (dimensions,) = jax.eval_shape(prior.init, jax.random.key(0)).shape
    if posterior == "flow":
        family = flow(dimensions, levels=levels, layers=layers, hidden=hidden)
    else:
        family = _gaussian(dimensions)
    optimizer = optax.sgd(rate, momentum)

    def init(key: Any, case: Any) -> State:
        del case
        one, two = jax.random.split(key)
        parameters = family.init(one)
        return State(parameters, optimizer.init(parameters), jax.random.normal(two, (dimensions,)))

    def step(key: Any, state: State, case: Any) -> tuple[State, Any]:
        ask, draw = jax.random.split(key)

        def loss(parameters: Any) -> Any:
            z, density = jax.vmap(family.push, (None, 0))(parameters, jax.random.normal(draw, (draws, dimensions)))
            keys = jax.random.split(ask, draws)
            judge = lambda k, z: cross_entropy(view.answer(k, prior.decode(z)), case)  # noqa: E731
            identity = sliced(judge, keys, z, gradient=True).mean()
            divergence = jnp.mean(density - jnp.sum(jax.scipy.stats.norm.logpdf(z), -1))
            return identity + kl_weight * divergence, (identity, divergence)

        (value, (identity, divergence)), gradient = jax.value_and_grad(loss, has_aux=True)(state.posterior)
        updates, opt = optimizer.update(gradient, state.optimizer)
        new = State(optax.apply_updates(state.posterior, updates), opt, state.noise)
        return new, info(value, identity=identity, divergence=divergence)

    def read(state: State) -> Any:
        return prior.decode(family.push(state.posterior, state.noise)[0])

    return Attack(lambda fitted: Process(init, step, read, steps), observes=CARD.observes)
