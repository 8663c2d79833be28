"""What every defense must satisfy, by discovery: its card names its hooks, and no attack is edited to meet it."""

import doctest
import functools
import inspect

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest

from jaxmia import Access, Defense, Scenario, Status, defenses, discovery, fit, from_linen, run, train
from jaxmia.core import Card
from jaxmia.models.features import expose
from tests.contract.benches import image
from tests.contract.skeletons.attacks.image.choose import choose
from tests.contract.skeletons.defenses.temper import temper
from tests.contract.trial import KEY, ONE

SKELETONS = "tests.contract.skeletons.defenses"
METHODS = [defenses.get(name) for name in defenses.names()]
METHODS += [discovery.get(SKELETONS, name) for name in discovery.names(SKELETONS)]
BATCH = 32
INPUTS = {"expected_batch_size": float(BATCH)}  # what a factory may ask for by name


class Network(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool = False):
        hidden = nn.relu(nn.Dense(16)(x.reshape(len(x), -1)))
        expose(self, "hidden", hidden)
        return nn.Dense(image.CLASSES)(hidden)


def trained(defense: Defense, steps: int = 100):
    """The target that the defense trained and serves, on noisy prototypes, and those."""
    x, labels = image.images(0, 600)
    x = x.reshape(-1, *image.SHAPE)

    def batches(step):
        rows = np.random.default_rng(step).integers(0, len(x), BATCH)
        return {"x": x[rows], "y": labels[rows].astype(np.int32)}

    process = train.supervised(Network(), optax.adam(0.01), steps=steps, defense=defense)
    variables, _ = fit(process, KEY, batches, plan=ONE)
    return from_linen(defense.model(Network()), variables, classes=image.CLASSES, defense=defense), x, labels


@functools.cache
def made(method):
    return method.factory(**{name: INPUTS[name] for name in method.inputs})


@pytest.fixture(params=METHODS, ids=[m.name for m in METHODS])
def method(request):
    return request.param


def test_card_and_documentation(method):
    card, module = method.card, inspect.getmodule(method.factory)
    assert isinstance(card, Card)
    assert card.title and card.paper and card.url.startswith("https://") and 1990 < card.year < 2100
    assert card.modality in ("any", "image", "text", "graph", "tabular")
    assert card.access is None and card.recovers == card.knows == ""
    assert module and module.__doc__ and card.url.split("//")[1] in module.__doc__
    assert doctest.testmod(module).failed == 0
    for name in (*method.inputs, *method.hyperparameters):
        assert f"  {name}: " in method.factory.__doc__, name
    plain = Defense()
    hooks = {name for name in Defense._fields if getattr(made(method), name) is not getattr(plain, name)}
    assert hooks == set(card.hook.split(", ")) and hooks


def test_it_trains_and_serves_and_an_attack_meets_it_unchanged(method):
    target, x, labels = trained(made(method))
    view = target.view(Access.SCORES)
    right = np.mean(np.argmax(jax.vmap(view.answer, (None, 0))(KEY, x), 1) == labels)
    assert right >= 0.5, f"accuracy {right:.2f}; chance is {1 / image.CLASSES:.2f}"
    attack = choose(view, image.make().inputs["gallery"])
    result = run(attack, KEY, Scenario(target, np.arange(image.CLASSES, dtype=np.int32)), plan=ONE)
    assert np.all(result.status == Status.RUNNING)
    assert image.judge(result.output).low > image.make().chance


def test_the_skeleton_changes_training_and_serving():
    def confidence(defense):
        target, x, _ = trained(defense)
        return np.asarray(jax.vmap(target.view(Access.SCORES).answer, (None, 0))(KEY, x)).max(1)

    plain, milder, mixed = (confidence(d).mean() for d in (Defense(), temper(share=0.0), temper()))
    assert milder <= plain - 0.05  # the loss
    np.testing.assert_allclose(mixed, 0.9 * milder + 0.1 / image.CLASSES, rtol=1e-5)  # what is served
