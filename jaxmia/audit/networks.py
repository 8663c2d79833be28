"""Training one network under a defense, or as a control; every modality does it so."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmia import defenses
from jaxmia.adapters.linen import from_linen
from jaxmia.audit.modality import Training
from jaxmia.audit.roles import keywords, named
from jaxmia.compiling import jit
from jaxmia.composing import compose
from jaxmia.core import Defense
from jaxmia.data import minibatches
from jaxmia.identity import digest
from jaxmia.oracle import Access, Outputs
from jaxmia.train import mean_cross_entropy, supervised

__all__ = ["Minibatches", "Network", "parts_of", "train"]

GUARD_BATCH = 64  # validation examples in a minibatch of what a guard is fitted to


class Minibatches(NamedTuple):
    """Minibatches that carry the identity of what they are of (`engine.fit`)."""

    batch: Callable[[int], Any]
    identity: str

    def __call__(self, step: int) -> Any:
        return self.batch(step)


class Network(NamedTuple):
    """What is trained, and how.

    Attributes:
      module: the Linen module, `(x, train) -> logits`.
      optimizer: any optax transformation.
      steps: minibatches.
      batch_size: examples in a minibatch, all where there are fewer.
      augment: `(key, x) -> x` of one example; None for none.
      pretrain: `(module, variables so far) -> Process`, one after another, before the training proper.
      loss: `(outputs, minibatch) -> scalar`.
    """

    module: Any
    optimizer: optax.GradientTransformation
    steps: int
    batch_size: int
    augment: Callable[[Any, Any], Any] | None = None
    pretrain: tuple[Callable[[Any, Any], Any], ...] = ()
    loss: Callable[[Outputs, Any], Any] = mean_cross_entropy


def train(
    network: Network,
    arrays: dict[str, np.ndarray],
    contents: Any,
    how: Training,
    validation: dict[str, np.ndarray] | None = None,
) -> tuple[Any, Any, Defense, str]:
    """Module, variables and defense of a network, and what the defense says of the privacy that was spent.

    It is found in the folder of `how` when trained before. Minibatches are the defense's, where it draws its own.

    Args:
      network: what is trained.
      arrays: "x" and "y", leading axis: examples.
      contents: what tells these arrays from others, so that a training knows itself again; anything `digest` takes.
      how: seed, folder, defenses and kind of control. The labels of a "shuffled" one are shuffled already.
      validation: "x" and "y" that the network does not learn, for defenses whose answers are fitted to it.

    Raises:
      ValueError: for a defense that wants what an audit does not have, or that a pre-training would void.
    """
    n = len(arrays["x"])
    size = min(network.batch_size, n)
    defense, spent = compose(parts_of(how.defense, size)), ""
    batches, drawn = minibatches(arrays, size, how.seed), "in epochs"
    if defense.batches is not None:
        who = " and ".join(part["name"] for part in how.defense)
        if network.pretrain:
            raise ValueError(f"{who}: guards no pre-training; legal are targets without one")
        batches, drawn = defense.batches(arrays, size, how.seed), f"by {who}"
    if defense.spent is not None and how.real:
        spent = defense.spent(size, n, network.steps)
    batches = Minibatches(batches, digest([contents, arrays["y"], (drawn, size, how.seed)]))
    module, start = network.module, None
    if how.control in ("untrained", "constant"):
        return module, _initial(network, how, batches), defense, spent
    key = jax.random.key(how.seed)
    for i, stage in enumerate(network.pretrain):
        part = f"pretrain-{i + 1}"
        start, _ = how.fit(stage(module, start), key, batches, folder=how.folder / part, title=f"{how.title}: {part}")

    def augmented(key: Any, batch: Any) -> Any:
        keys = jax.random.split(key, batch["x"].shape[0] + 1)
        x = jax.vmap(network.augment)(keys[1:], batch["x"]) if network.augment else batch["x"]
        return defense.data(keys[0], {**batch, "x": x})

    hooks = defense._replace(data=augmented)
    process = supervised(
        module, network.optimizer, steps=network.steps, defense=hooks, loss=network.loss, start=start
    )  # fmt: skip
    variables, _ = how.fit(process, key, batches, folder=how.folder, title=how.title)
    module = defense.model(module)
    return module, variables, _guarded(defense, module, variables, validation, how), spent


def parts_of(sections: Sequence[dict[str, Any]], size: int) -> dict[str, Defense]:
    """The defenses that a target has together, by name; `size` is that of its minibatches."""
    parts, supplied = {}, {"expected_batch_size": float(size)}
    for name, section in named(list(sections)):
        method = defenses.get(section["name"])
        lacking = ", ".join(name for name in method.inputs if name not in supplied)
        if lacking:
            raise ValueError(f"{method.name}: needs {lacking}; an audit supplies {', '.join(supplied)}")
        inputs = {name: supplied[name] for name in method.inputs}
        parts[name] = method.factory(**inputs, **keywords(section))
    return parts


def _guarded(
    defense: Defense, module: Any, variables: Any, validation: dict[str, np.ndarray] | None, how: Training
) -> Defense:
    """The defense whose answer is fitted, where it must be, to what the trained network says of validation data."""
    if defense.guard is None:
        return defense
    who = " and ".join(part["name"] for part in how.defense)
    if validation is None or len(validation["x"]) == 0:
        raise ValueError(f"{who}: is fitted on validation data, and there are none; legal is data with such a part")
    first = jax.eval_shape(module.apply, variables, validation["x"][:1])
    undefended = from_linen(module, variables, classes=first.shape[-1]).view(Access.SCORES)
    size = min(GUARD_BATCH, len(validation["x"]))
    batches = Minibatches(minibatches(validation, size, how.seed), digest([validation["x"], validation["y"], size]))
    fitted, _ = how.fit(
        defense.guard.fit(undefended.answer), jax.random.fold_in(jax.random.key(how.seed), 1), batches,
        folder=how.folder / "guard", title=f"{how.title}: guard",
    )  # fmt: skip
    return defense.guarded(fitted)


def _initial(network: Network, how: Training, batches: Any) -> Any:
    """The weights that training begins with; of a constant network zeros, so that it answers the same to everything."""
    process = supervised(network.module, network.optimizer, steps=network.steps)
    begin = lambda key, batch: process.read(process.init(key, batch))  # noqa: E731
    if how.real and how.control == "untrained":
        return jit(begin)(jax.random.key(how.seed), batches(0))
    shapes = jax.eval_shape(begin, jax.random.key(how.seed), batches(0))
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
