"""Query-free: a server that was never answered trains a shadow of the client's part, and inverts that.

He, Zhang, Lee, "Model Inversion Attacks Against Collaborative Inference", ACSAC 2019
(https://doi.org/10.1145/3359789.3359824), query-free attack. The adversary is the server: it has the last layers f_2, the
features v = f_1(x) that a client sent, and labeled images. It trains a shadow client on them,

    min over theta of E_(x, y) CE(f_2(f~_theta(x)), y)   with f_2 fixed,

and then solves min_x |f~_theta(x) - v|^2 + lambda_TV TV(x) + lambda_2 |x|^2 as if the shadow were the client.

What differs. As in `rmle`: means instead of the paper's sums, standardized pixels, no box but for the result, AMSGrad as
`recipes.amsgrad` has it, all as released, and the released numbers for the fourth convolution of six.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxmia.core import Attack, Card, Process, Scalar, info
from jaxmia.objectives import cross_entropy
from jaxmia.oracle import Access, Oracle, Outputs, Weights, lower
from jaxmia.priors import standardized
from jaxmia.recipes import amsgrad, descend

__all__ = ["CARD", "query_free"]

CARD = Card(
    title="Query-free inversion",
    paper="He, Zhang, Lee. Model Inversion Attacks Against Collaborative Inference. ACSAC 2019",
    url="https://doi.org/10.1145/3359789.3359824",
    year=2019,
    modality="image",
    access=Access.WEIGHTS,
    recovers="the image whose smashed features a client sent",
    knows="the server's part of the network, and labeled images of the task",
    observes="sent_features",
)


def query_free(
    oracle: Oracle,
    client: Any,
    shape: tuple[int, int, int],
    *,
    steps: int = 500,
    rate: Scalar = 0.1,
    epsilon: Scalar = 1e-3,
    variation: Scalar = 2.0,
    norm: Scalar = 0.0,
    center: Scalar = 0.45,
    deviation: Scalar = 0.225,
    shadow_steps: int = 78_125,
    shadow_rate: Scalar = 1e-3,
) -> Attack:
    """The attack; a case is what a client sent for one image, the output an image in [0, 1].

    Its training minibatches need labels: "x" `[n, h, w, c]` and "y" `[n]`, the classes of the whole network.

    Args:
      oracle: white-box access to the server's part: features to logits.
      client: a Linen module from images `[n, h, w, c]` to features `[n, ...]` of the shape that the server reads.
      shape: (height, width, channels) of the image.
      steps: iterations of the inversion.
      rate: AMSGrad's learning rate there, in units of u.
      epsilon: AMSGrad's, added to the root of the second moment, in both.
      variation: lambda_TV.
      norm: lambda_2.
      center: image at u = 0.
      deviation: image units of one unit of u.
      shadow_steps: training minibatches of the shadow (50 epochs of 50,000 images by 32).
      shadow_rate: AMSGrad's learning rate at their start; halved every fifth of them.

    Raises:
      ThreatModelError: without white-box access.
      ValueError: when training, for minibatches without labels.
    """
    server: Weights = lower(oracle, CARD.access, "image/query_free")
    falling = optax.exponential_decay(1.0, max(shadow_steps // 5, 1), 0.5, staircase=True)
    prior = standardized(shape, variation=variation, norm=norm, center=center, deviation=deviation)

    def shadow(fitted: Any) -> Process:
        del fitted
        optimizer = amsgrad(lambda count: shadow_rate * falling(count), eps=epsilon)

        def init(key: Any, batch: Any) -> Any:
            if "y" not in batch:
                raise ValueError("public: minibatches lack 'y'; image/query_free trains on labeled images")
            variables = client.init(key, batch["x"], train=False)
            return variables, optimizer.init(variables["params"])

        def step(key: Any, state: Any, batch: Any) -> Any:
            variables, opt = state

            def loss(params: Any) -> Any:
                features, changed = client.apply(
                    {**variables, "params": params}, batch["x"], train=True, mutable=["batch_stats"]
                )
                logits = jax.vmap(lambda one: server.answer(key, one))(features)
                return jnp.mean(jax.vmap(cross_entropy)(logits, batch["y"])), changed

            (value, changed), gradient = jax.value_and_grad(loss, has_aux=True)(variables["params"])
            updates, opt = optimizer.update(gradient, opt)
            params = optax.apply_updates(variables["params"], updates)
            return ({**variables, **changed, "params": params}, opt), info(value)

        return Process(init, step, lambda state: state[0], shadow_steps)

    def solve(fitted: Any) -> Process:
        (variables,) = fitted

        def guessed(variables: Any, image: Any) -> Outputs:
            return Outputs(client.apply(variables, image[None], train=False)[0], {})

        free = descend(
            Weights(lambda key, image: guessed(variables, image).logits, guessed, variables),
            lambda features, observed: jnp.mean((features - observed) ** 2),
            prior,
            amsgrad(rate, eps=epsilon),
            steps=steps,
            keep="last",
        )
        return free._replace(read=lambda state: jnp.clip(free.read(state), 0.0, 1.0))

    return Attack(solve, (shadow,), observes=CARD.observes)
