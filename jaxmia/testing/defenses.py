"""What every defense must satisfy: its card names its hooks, and no attack is edited to meet it.

Where a defense changes graphs, the rows of a minibatch are nodes, joined in a ring that the defense has changed.
"""

import doctest
import inspect
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmia import train
from jaxmia.adapters.linen import from_linen
from jaxmia.composing import sets
from jaxmia.core import Attack, Card, Defense, Scenario
from jaxmia.discovery import Method
from jaxmia.engine import Status, fit, run
from jaxmia.models.features import expose
from jaxmia.oracle import Access, Scores
from jaxmia.recipes import score
from jaxmia.target import Target
from jaxmia.testing.benches import image
from jaxmia.testing.trial import KEY, ONE

__all__ = ["check", "trained"]

BATCH = 32
RING = np.array(sorted([(0, BATCH - 1), *((i, i + 1) for i in range(BATCH - 1))]), np.int32)
SUPPLIED = {"expected_batch_size": float(BATCH)}  # what a factory may ask for by name


class Network(nn.Module):
    """One hidden layer, exposed as "hidden", and one with a shortcut, so that there is what defenses exchange.

    It sums over no neighbors, so that the noise of such sums, `deviation`, changes nothing.
    """

    skip: tuple[Any, ...] | None = None
    head: Callable[[int], nn.Module] = nn.Dense
    deviation: Callable[[int], float] | None = None

    @nn.compact
    def __call__(self, x: Any, train: bool = False) -> Any:
        hidden = nn.relu(nn.Dense(16)(x.reshape(len(x), -1)))
        expose(self, "hidden", hidden)
        share = 1.0 if self.skip is None else self.skip[-1]
        hidden = nn.relu(nn.Dense(16)(hidden) + share * hidden)
        expose(self, "penultimate", hidden)
        return self.head(image.CLASSES)(hidden)


def trained(defense: Defense, steps: int = 100) -> tuple[Target, np.ndarray, np.ndarray]:
    """The target that the defense trained and serves, on noisy prototypes, and these with their labels."""
    x, labels = image.images(0, 600)
    x = x.reshape(-1, *image.SHAPE)
    graph = {"edges": defense.graph(KEY, RING, BATCH)} if sets(defense, "graph") else {}

    def batches(step: int) -> Any:
        rows = np.random.default_rng(step).integers(0, len(x), BATCH)
        return {"x": x[rows], "y": labels[rows].astype(np.int32), **graph}

    process = train.supervised(Network(), optax.adam(0.01), steps=steps, defense=defense)
    variables, _ = fit(process, KEY, batches, plan=ONE)
    module = defense.model(Network())
    if defense.guard is not None:
        undefended = from_linen(module, variables, classes=image.CLASSES).view(Access.SCORES)
        defense = defense.guarded(fit(defense.guard.fit(undefended.answer), KEY, batches, plan=ONE)[0])
    return from_linen(module, variables, classes=image.CLASSES, defense=defense), x, labels


def check(method: Method, inputs: dict[str, Any]) -> None:
    """Every contract of a defense; `inputs` go to its factory by name."""
    given = {**SUPPLIED, **inputs}
    defense = method.factory(**{name: given[name] for name in method.inputs})
    _card_and_documentation(method, defense)
    _one_graph_comes_out(defense)
    _trains_serves_and_meets_an_attack(defense)


def _card_and_documentation(method: Method, defense: Defense) -> None:
    card, module = method.card, inspect.getmodule(method.factory)
    assert isinstance(card, Card)
    assert card.title and card.paper and card.url.startswith("https://") and 1990 < card.year < 2100
    assert card.modality in ("any", "image", "text", "graph", "tabular"), card.modality
    assert card.access is None and card.recovers == card.knows == "", "access, recovers and knows are of an attack"
    assert module and module.__doc__ and card.url.split("//")[1] in module.__doc__, "the docstring lacks CARD.url"
    assert doctest.testmod(module).failed == 0
    for name in (*method.inputs, *method.hyperparameters):
        assert f"  {name}: " in (method.factory.__doc__ or ""), f"the factory's docstring does not describe {name}"
    plain = Defense()
    flags = ("couples", "keeps_label")
    hooks = {name for name in Defense._fields if getattr(defense, name) is not getattr(plain, name)} - {*flags}
    assert hooks, "sets no hook"
    assert hooks == set(card.hook.split(", ")), f"CARD.hook is {card.hook!r}; it sets {', '.join(sorted(hooks))}"


def _one_graph_comes_out(defense: Defense) -> None:
    """Simple, undirected, in order, of the nodes that there are, and the same again from the same key."""
    empty = np.zeros((0, 2), np.int32)
    for edges, nodes in ((RING, BATCH), (empty, BATCH)):
        made = np.asarray(defense.graph(KEY, edges, nodes))
        assert made.dtype == np.int32 and made.ndim == 2 and made.shape[1] == 2, (made.dtype, made.shape)
        assert np.array_equal(made, np.unique(made.reshape(-1, 2), axis=0)), "each pair once, in order"
        assert np.all(made[:, 0] < made[:, 1]) and np.all((made >= 0) & (made < nodes)), "i < j, of the nodes"
        assert np.array_equal(made, defense.graph(KEY, edges, nodes)), "another graph from the same key"


def _trains_serves_and_meets_an_attack(defense: Defense) -> None:
    target, x, labels = trained(defense)
    view = target.view(Access.SCORES)
    right = np.mean(np.argmax(jax.vmap(view.answer, (None, 0))(KEY, x), 1) == labels)
    assert right >= 0.5, f"accuracy {right:.2f}; chance is {1 / image.CLASSES:.2f}"
    classes = np.arange(image.CLASSES, dtype=np.int32)
    result = run(_surest(view), KEY, Scenario(target, classes), plan=ONE)
    assert np.all(result.status == Status.RUNNING)
    assert image.judge(result.output).low > image.make().chance


def _surest(view: Scores) -> Attack:
    """Of the bench's public images, the one that the target is surest shows a class."""
    gallery = image.make().inputs["gallery"]

    def choose(key: Any, label: Any) -> Any:
        keys = jax.random.split(key, len(gallery))
        return gallery[jnp.argmax(jax.vmap(view.answer)(keys, gallery)[:, label])]

    return Attack(lambda fitted: score(choose))
