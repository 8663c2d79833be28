"""Divide-and-conquer inversion: one network per block of the client's part, trained on synthetic images alone.

Dong, Yin, Alvarez, Kautz, Molchanov, Kung, "Privacy Vulnerability of Split Computing to Data-Free Model Inversion Attacks",
BMVC 2022 (https://arxiv.org/abs/2107.06304). The client's part is cut in K blocks, h_k = f_k(h_(k-1)) and h_0 = x. From
the image on, block after block, a network g_k learns to undo f_k, with those before it held,

    min over g_k of E_x |g_k(h_k) - h_(k-1)|^2 / |h_(k-1)|^2 + cycle * |f_1..k(g_1(..g_k(h_k))) - h_k|^2 / |h_k|^2,

the second term, cycle consistency, by sending what was inverted through the client's part again. Then a single pass over
g_K, .., g_1 inverts what a client sent. No data is used.

What differs. The paper synthesizes its images from BatchNorm statistics of the model; here they are smooth random fields,
made anew at every step, which any client admits. It re-enters the model at block k, here at the image, since that is
where an oracle can be asked. Terms are relative to what they approximate, so that one weight serves all blocks. Steps,
rate and weight are not the paper's.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxmia.core import Attack, Card, Process, Scalar, info
from jaxmia.objectives import feature
from jaxmia.oracle import Access, Oracle, Weights, lower, shown_feature
from jaxmia.recipes import score

__all__ = ["CARD", "data_free_split", "random_fields"]

CARD = Card(
    title="Divide-and-conquer inversion",
    paper="Dong, Yin, Alvarez, Kautz, Molchanov, Kung. Privacy Vulnerability of Split Computing. BMVC 2022",
    url="https://arxiv.org/abs/2107.06304",
    year=2022,
    modality="image",
    access=Access.WEIGHTS,
    recovers="the image whose smashed features a client sent",
    knows="the client's part of the network, with its parameters",
    observes="features",
)


def random_fields(key: Any, n: int, shape: tuple[int, int, int]) -> Float[Array, "n h w c"]:
    """Images in [0, 1]: 1/2 plus noise of deviation 1/4, the sum of noises of 1, 2, 4, ... pixels of equal weight.

    >>> random_fields(jax.random.key(0), 2, (8, 6, 1)).shape
    (2, 8, 6, 1)
    """
    (height, width, channels), total, levels = shape, 0.0, max(shape[0], shape[1]).bit_length()
    for level in range(levels):
        key, draw = jax.random.split(key)
        size = (n, -(-height // 2**level), -(-width // 2**level), channels)
        total += jax.image.resize(jax.random.normal(draw, size), (n, *shape), "nearest")
    return jnp.clip(0.5 + 0.25 * total / levels**0.5, 0.0, 1.0)


def data_free_split(
    oracle: Oracle,
    layers: Sequence[str],
    inverses: Sequence[Any],
    shape: tuple[int, int, int],
    *,
    steps: int = 3000,
    batch: int = 64,
    rate: Scalar = 1e-3,
    cycle: Scalar = 1.0,
) -> Attack:
    """The attack; a case is what a client sent for one image, the output an image in [0, 1].

    Args:
      oracle: white-box access to the client's part, which answers h_K (`Target.until`).
      layers: names of the features h_1, ..., h_(K-1) before what is sent; none inverts all at once.
      inverses: Linen modules g_1, ..., g_K, from batches of h_k to those of h_(k-1), `[n, ...]` of the same shapes.
      shape: (height, width, channels) of the image.
      steps: minibatches for each block.
      batch: synthetic images in one.
      rate: Adam's learning rate.
      cycle: weight of cycle consistency.

    Raises:
      ThreatModelError: without white-box access.
      ValueError: unless there is one inverse more than there are layers; when training, for layers that the oracle does
        not show.
    """
    view: Weights = lower(oracle, CARD.access, "image/data_free_split")
    if len(inverses) != len(layers) + 1:
        raise ValueError(f"inverses: {len(inverses)} for {len(layers)} layers; legal is one more, {len(layers) + 1}")
    optimizer = optax.adam(rate)

    def trace(image: Any) -> list[Any]:
        """h_0, ..., h_K of one image."""
        outputs = view.apply(view.params, image)
        return [image, *(shown_feature(outputs.features, name, "layers") for name in layers), outputs.logits]

    def invert(variables: Sequence[Any], value: Any) -> Any:
        """g_1(..g_k(h_k)) of a batch, where k is how many variables there are."""
        for module, known in reversed(list(zip(inverses, variables))):
            value = module.apply(known, value, train=False)
        return jnp.clip(value, 0.0, 1.0)

    def stage(block: int) -> Callable[[Any], Process]:
        def process(fitted: Any) -> Process:
            def observe(key: Any) -> tuple[Any, Any]:
                seen = jax.vmap(trace)(random_fields(key, batch, shape))
                return seen[block], seen[block + 1]

            def init(key: Any, unused: Any) -> Any:
                del unused
                draw, start = jax.random.split(key)
                variables = inverses[block].init(start, observe(draw)[1], train=False)
                return variables, optimizer.init(variables["params"])

            def step(key: Any, state: Any, unused: Any) -> Any:
                del unused
                variables, opt = state
                before, after = observe(key)

                def loss(params: Any) -> Any:
                    guess, changed = inverses[block].apply(
                        {**variables, "params": params}, after, train=True, mutable=["batch_stats"]
                    )
                    again = jax.vmap(trace)(invert(fitted[:block], guess))[block + 1]
                    undone, cycled = jax.vmap(feature)(guess, before), jax.vmap(feature)(again, after)
                    return jnp.mean(undone) + cycle * jnp.mean(cycled), (jnp.mean(cycled), changed)

                (value, (cycled, changed)), gradient = jax.value_and_grad(loss, has_aux=True)(variables["params"])
                updates, opt = optimizer.update(gradient, opt)
                params = optax.apply_updates(variables["params"], updates)
                return ({**variables, **changed, "params": params}, opt), info(value, cycle=cycled)

            return Process(init, step, lambda state: state[0], steps)

        return process

    def solve(fitted: Any) -> Process:
        return score(lambda key, sent: invert(fitted, sent[None])[0])

    return Attack(
        solve,
        tuple(stage(block) for block in range(len(inverses))),
        observes=CARD.observes,
    )
