"""Training as processes: a supervised model under a defense, and a WGAN-GP. The loop is `engine.fit`.

A minibatch is a dict: "x" `[n, ...]`, "y" integer labels `[n]` or `[n, t]`, and, where batches have a random size
(Poisson sampling), "mask" `[n]` with 0 for padding.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from jaxmia.compiling import jit
from jaxmia.core import Defense, Process, info
from jaxmia.objectives import counted_mean
from jaxmia.oracle import Outputs, sown_features

__all__ = ["denoising", "gan", "mean_cross_entropy", "predict", "supervised"]


def mean_cross_entropy(outputs: Outputs, batch: dict[str, Any]) -> Float[Array, ""]:
    """Mean over examples (weighted by "mask") of the cross entropy, itself the mean over any further label axes."""
    losses = optax.softmax_cross_entropy_with_integer_labels(outputs.logits, batch["y"])
    return counted_mean(losses.reshape(losses.shape[0], -1).mean(1), batch)


def supervised(
    module: Any,
    optimizer: optax.GradientTransformation,
    *,
    steps: int,
    defense: Defense = Defense(),
    loss: Callable[[Outputs, Any], Any] = mean_cross_entropy,
    start: Any = None,
) -> Process:
    """Train a Linen module `(x, train) -> logits` with a defense's training hooks; reads out its variables.

    The defense's `model` hook is applied to the module here; apply it again where the target is built. Dropout gets
    the rng "dropout". Named features, which a `loss` hook may want, are what the module sows into "features"; its
    minibatch has also "progress", the share of the steps that is done, 0 to 1.

    Args:
      module: the Linen module.
      optimizer: any optax transformation.
      steps: minibatches.
      defense: hooks model, data, loss, grads, optim and trainer are used.
      loss: `(outputs, batch) -> scalar`.
      start: variables to begin from, as an earlier process read them out; None draws them.
    """
    module = defense.model(module)
    transform = defense.optim(optimizer)
    defended = defense.loss(loss)

    def objective(params: Any, key: Any, batch: Any, statistics: Any, progress: Any) -> Any:
        logits, changed = module.apply(
            {"params": params, **statistics}, batch["x"], train=True, rngs={"dropout": key},
            mutable=["features", "batch_stats"],
        )  # fmt: skip
        features = sown_features(changed)
        batch = {**batch, "progress": progress}  # here, where a minibatch is whole or has been cut into examples
        return defended(Outputs(logits, features), batch), {k: v for k, v in changed.items() if k == "batch_stats"}

    def init(key: Any, batch: Any) -> Any:
        drawn = start is None
        variables = module.init({"params": key, "dropout": key}, batch["x"][:1], train=False) if drawn else start
        params = variables["params"]
        statistics = {"batch_stats": variables["batch_stats"]} if "batch_stats" in variables else {}
        return params, statistics, transform.init(params), jnp.zeros((), jnp.int32)

    def step(key: Any, state: Any, batch: Any) -> Any:
        params, statistics, opt, done = state
        change, drop = jax.random.split(key)
        batch = defense.data(change, batch)
        value_and_grad = defense.grads(lambda p, k, b: objective(p, k, b, statistics, done / steps))
        (value, statistics), gradient = value_and_grad(params, drop, batch)
        updates, opt = transform.update(gradient, opt, params)
        return (optax.apply_updates(params, updates), statistics, opt, done + 1), info(value)

    def read(state: Any) -> Any:
        return {"params": state[0], **state[1]}

    return defense.trainer(Process(init, step, read, steps))


def denoising(
    module: Any, layer: int, optimizer: optax.GradientTransformation, *, steps: int, start: Any = None
) -> Process:
    """Pre-train one layer of a `models.DenoisingAutoencoderClassifier`, the ones below held fixed; reads out variables.

    Args:
      module: the classifier.
      layer: 1 for the lowest.
      optimizer: any optax transformation.
      steps: minibatches.
      start: variables from the layer below; None draws them.
    """

    def init(key: Any, batch: Any) -> Any:
        variables = module.init(key, batch["x"][:1]) if start is None else start
        return variables["params"], optimizer.init(variables["params"])

    def step(key: Any, state: Any, batch: Any) -> Any:
        def loss(params: Any) -> Any:
            return module.apply({"params": params}, batch["x"], key, layer, method="denoising_loss").mean()

        value, gradient = jax.value_and_grad(loss)(state[0])
        updates, opt = optimizer.update(gradient, state[1], state[0])
        return (optax.apply_updates(state[0], updates), opt), info(value)

    return Process(init, step, lambda state: {"params": state[0]}, steps)


def predict(module: Any, variables: Any, x: Any, *, batch_size: int = 256) -> Float[np.ndarray, "n ..."]:
    """Inference-mode logits of many examples, in batches of one compiled shape (the last one padded)."""
    apply = jit(lambda v, x: module.apply(v, x))
    out = []
    for start in range(0, len(x), batch_size):
        part = np.asarray(x[start : start + batch_size])
        padded = (
            np.concatenate([part, np.repeat(part[-1:], batch_size - len(part), 0)]) if len(x) > batch_size else part
        )
        out.append(np.asarray(apply(variables, padded))[: len(part)])
    return np.concatenate(out)


def gan(
    generator: Any,
    critic: Any,
    *,
    dimensions: int,
    steps: int,
    rate: float = 2e-4,
    momentum: tuple[float, float] = (0.5, 0.999),
    critic_steps: int = 5,
    gradient_weight: float = 10.0,
) -> Process:
    """WGAN-GP (Gulrajani et al., NeurIPS 2017) with the settings of GMI's released code; reads out
    `{"generator": variables, "critic": variables}`.

    Per step the minibatch is cut in `critic_steps` equal parts, one critic update each, then one generator update.
    Critic loss D(fake) - D(real) + gradient_weight * (|grad D(mix)| - 1)^2, generator loss -D(fake), batch means. The
    generator's running statistics follow its own updates alone; those of the released code follow critic updates, too, and
    have the unbiased variance, by 1.6 percent more in a layer that sees 64 numbers.

    Args:
      generator: `(z [n, d], train) -> images`, may keep batch statistics.
      critic: `(images, train) -> [n]` or `[n, 1]`, without batch statistics (they break the per-image penalty).
      dimensions: of z ~ N(0, I).
      steps: generator updates.
      rate: Adam's learning rate, for both.
      momentum: Adam's betas.
      critic_steps: critic updates per generator update.
      gradient_weight: of the penalty.
    """
    adam = optax.adam(rate, *momentum)

    def generate(variables: Any, z: Any) -> tuple[Any, Any]:
        return generator.apply(variables, z, train=True, mutable=["batch_stats"])

    def judge(params: Any, images: Any) -> Any:
        return critic.apply({"params": params}, images, train=True).reshape(images.shape[0])

    def critic_loss(params: Any, real: Any, fake: Any, mix: Any) -> Any:
        blend = mix * real + (1 - mix) * fake
        slopes = jax.grad(lambda images: judge(params, images).sum())(blend)
        norms = jnp.sqrt(jnp.sum(slopes.reshape(len(real), -1) ** 2, 1) + 1e-12)
        return judge(params, fake).mean() - judge(params, real).mean() + gradient_weight * jnp.mean((norms - 1) ** 2)

    def init(key: Any, batch: Any) -> Any:
        one, two = jax.random.split(key)
        g = generator.init(one, jnp.zeros((2, dimensions)), train=True)
        d = critic.init(two, batch["x"][:2], train=True)["params"]
        return g, d, adam.init(g["params"]), adam.init(d)

    def step(key: Any, state: Any, batch: Any) -> Any:
        g, d, g_opt, d_opt = state
        parts = jnp.split(batch["x"], critic_steps)
        value = jnp.zeros(())
        for part, part_key in zip(
            parts, jax.random.split(key, critic_steps)
        ):  # unrolled: convolutions in a loop are slow on CPU
            noise, mix = jax.random.split(part_key)
            fake, _ = generate(g, jax.random.normal(noise, (len(part), dimensions)))
            amount = jax.random.uniform(mix, (len(part),) + (1,) * (part.ndim - 1))
            value, gradient = jax.value_and_grad(critic_loss)(d, part, jax.lax.stop_gradient(fake), amount)
            updates, d_opt = adam.update(gradient, d_opt, d)
            d = optax.apply_updates(d, updates)
        z = jax.random.normal(jax.random.fold_in(key, critic_steps), (len(parts[0]), dimensions))

        def generator_loss(params: Any) -> Any:
            fake, changed = generate({**g, "params": params}, z)
            return -judge(d, fake).mean(), changed

        (_, changed), gradient = jax.value_and_grad(generator_loss, has_aux=True)(g["params"])
        updates, g_opt = adam.update(gradient, g_opt, g["params"])
        g = {**g, **changed, "params": optax.apply_updates(g["params"], updates)}
        return (g, d, g_opt, d_opt), info(value)

    return Process(init, step, lambda state: {"generator": state[0], "critic": {"params": state[1]}}, steps)
