"""A process: fit a classifier on labeled rows, of public minibatches or held by whoever makes it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxmia.core import Process, info
from jaxmia.objectives import cross_entropy

__all__ = ["Classifier", "classify", "logits"]


class Classifier(NamedTuple):
    """What was fitted.

    Attributes:
      variables: of the module.
      mean: what x is taken less of.
      deviation: what it is then divided by.
    """

    variables: Any
    mean: Float[Array, "..."]
    deviation: Float[Array, "..."]


class State(NamedTuple):
    found: Classifier
    optimizer: Any


def logits(module: Any, found: Classifier, x: Float[Array, "..."]) -> Float[Array, "..."]:
    """What a fitted classifier says of rows that are not standardized yet."""
    return module.apply(found.variables, _standardized(found, x), train=False)


def _standardized(found: Classifier, x: Any) -> Any:
    return (x - found.mean) / found.deviation


def classify(
    module: Any,
    optimizer: optax.GradientTransformation,
    *,
    steps: int,
    rows: dict[str, Any] | None = None,
    batch: int | None = 128,
    moments: tuple[Any, Any] | None = None,
) -> Process:
    """min over parameters of the mean cross entropy of `module(x, train)` and y; reads out a `Classifier`.

    Labeled rows are dicts with "x" `[n, ...]` and "y", int `[n]`, the classes. A step takes `batch` of the `rows`, drawn
    with its key and put back, and the minibatch, where it is one: data without "x" are not looked at where rows are held.

    Args:
      module: a Linen module `(x, train) -> logits [n, classes]`; in training it may use the rng "dropout".
      optimizer: any optax transformation.
      steps: the budget.
      rows: held from the start; None learns from minibatches alone.
      batch: how many of them a step takes; None takes all.
      moments: mean and deviation by which x is standardized, as `recipes.moments` reads out; None takes those of the
        rows, without a look at minibatches. (0.0, 1.0) leaves x as it is.

    Raises:
      ValueError: without rows and moments; for a batch below 1; for a minibatch without "x" or "y" where it is needed.
    """
    if rows is None and moments is None:
        raise ValueError("moments: None; legal is a mean and a deviation where no rows are held")
    if batch is not None and batch < 1:
        raise ValueError(f"batch: {batch}; legal is 1 or more, or None for all rows")

    def given(key: Any, data: Any) -> tuple[Array, Array]:
        """x and y of one step."""
        parts = []
        if rows is not None:
            n = rows["x"].shape[0]
            which = jnp.arange(n) if batch is None else jax.random.randint(key, (batch,), 0, n)
            parts.append((rows["x"][which], rows["y"][which]))
        if rows is None or (isinstance(data, dict) and "x" in data):
            if not (isinstance(data, dict) and {"x", "y"} <= data.keys()):
                raise ValueError("public: a minibatch lacks 'x' or 'y'; a classifier learns from labeled rows")
            parts.append((data["x"], data["y"]))
        x, y = (jnp.concatenate(leaves) for leaves in zip(*parts))
        return x, y.astype(jnp.int32)

    def init(key: Any, data: Any) -> State:
        start, draw = jax.random.split(key)
        x, _ = given(draw, data)
        mean, deviation = _moments(rows["x"]) if moments is None and rows is not None else moments or (0.0, 1.0)
        variables = module.init({"params": start, "dropout": start}, x, train=False)
        found = Classifier(variables, *(jnp.asarray(moment, jnp.float32) for moment in (mean, deviation)))
        return State(found, optimizer.init(variables["params"]))

    def step(key: Any, state: State, data: Any) -> tuple[State, Any]:
        (variables, *_), opt = state
        draw, drop = jax.random.split(key)
        x, y = given(draw, data)
        x = _standardized(state.found, x)

        def error(params: Any) -> tuple[Array, Any]:
            told, changed = module.apply(
                {**variables, "params": params}, x, train=True, rngs={"dropout": drop}, mutable=["batch_stats"]
            )
            return jnp.mean(jax.vmap(cross_entropy)(told, y)), changed

        (value, changed), gradient = jax.value_and_grad(error, has_aux=True)(variables["params"])
        updates, opt = optimizer.update(gradient, opt, variables["params"])
        variables = {**variables, **changed, "params": optax.apply_updates(variables["params"], updates)}
        return State(state.found._replace(variables=variables), opt), info(value)

    return Process(init, step, lambda state: state.found, steps)


def _moments(x: Float[Array, "n ..."]) -> tuple[Array, Array]:
    """Mean and deviation of the rows; 1 for what only differs by rounding, which a division would make large."""
    mean, deviation = jnp.mean(x, 0), jnp.std(x, 0)
    return mean, jnp.where(deviation > 1e-5 * jnp.abs(mean), deviation, 1.0)
