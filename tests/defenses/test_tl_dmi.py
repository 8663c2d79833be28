"""Which parts are frozen, that they and their statistics stay, and what a start with public data is worth."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmia import engine, models, train
from jaxmia.composing import compose
from jaxmia.core import Defense
from jaxmia.defenses.mid import mid
from jaxmia.defenses.tl_dmi import frozen_parts, tl_dmi
from jaxmia.models.face_networks import ImageNetResNet, IRNetwork

KEY = jax.random.key(0)
X = jax.random.uniform(KEY, (8, 8, 8, 1))
Y = np.arange(8, dtype=np.int32) % 3


def _params(module, shape=(1, 16, 16, 1)):
    return jax.eval_shape(module.init, KEY, jnp.zeros(shape))["params"]


def _in_order_of_calls(module):
    called = []

    def watch(call, args, keywords, context):
        if context.module.path:
            called.append(context.module.path[0])
        return call(*args, **keywords)

    with nn.intercept_methods(watch):
        jax.eval_shape(module.init, KEY, jnp.zeros((1, 16, 16, 1)))
    return list(dict.fromkeys(called))


@pytest.mark.parametrize(
    "module, last",
    [
        (models.MLP(3, width=4, depth=3), "Dense_1"),
        (models.VGG(3), "BatchNorm_2"),
        (models.EvaluatorCNN(3), "GroupNorm_0"),
        (models.ResNet(3), "_BasicBlock_2"),
    ],
)
def test_by_default_the_first_half_is_frozen_and_nothing_that_comes_after_what_learns(module, last):
    parts = {part[0] for part in frozen_parts(_params(module), None)}
    called = [name for name in _in_order_of_calls(module) if name in _params(module)]
    assert parts == set(called[: called.index(last) + 1])


def test_parts_are_found_below_wrappers_and_by_patterns():
    wrapped = _params(models.CenteredInput(models.ResNet(3)))
    assert ("inner", "_BasicBlock_2") in frozen_parts(wrapped, None)
    assert frozen_parts(wrapped, ("_Basic*_[01]", "_BasicBlock_0")) == [
        ("inner", "_BasicBlock_0"),
        ("inner", "_BasicBlock_1"),
    ]
    published = _params(IRNetwork(3, 50, 4), (1, 64, 64, 3))
    assert len(frozen_parts(published, ("input_layer_*", "body_[0-9]", "body_1?"))) == 3 + 20


def _steps(defense, module, start, optimizer=None, steps=3):
    optimizer = optax.sgd(0.1, 0.9) if optimizer is None else optimizer
    process = train.supervised(module, optimizer, steps=steps, defense=defense, start=start)
    variables, _ = engine.fit(process, KEY, lambda step: {"x": X, "y": Y}, plan=engine.Plan(progress=False))
    return variables


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.adamw(0.01, weight_decay=0.1),
        pytest.param(optax.chain(optax.add_decayed_weights(1e-2), optax.sgd(0.1, 0.9)), marks=pytest.mark.nightly),
    ],
)
def test_frozen_parameters_and_statistics_are_bit_equal_after_training(optimizer):
    module = models.CenteredInput(models.ResNet(3, widths=(4, 8), blocks=1))
    start = jax.tree.map(lambda leaf: leaf + 0.1, jax.jit(module.init)(KEY, X))
    after = _steps(tl_dmi(), module, start, optimizer)
    assert jax.tree.structure(after) == jax.tree.structure(start)
    frozen = {"Conv_0", "BatchNorm_0", "_BasicBlock_0"}
    for path, leaf in jax.tree_util.tree_leaves_with_path(after):
        collection, inner, part, *more = [entry.key for entry in path]
        before = start[collection][inner][part]
        for name in more:
            before = before[name]
        assert np.array_equal(leaf, before) == (part in frozen), path


@pytest.mark.nightly
def test_frozen_layers_normalize_in_training_as_they_do_when_served():
    module = models.ResNet(3, widths=(4, 8), blocks=1)
    variables = jax.tree.map(lambda leaf: leaf + 0.1, jax.jit(module.init)(KEY, X))
    held = tl_dmi().model(module)
    served = module.apply(variables, X, mutable=["features"])[1]["features"]
    trained = held.apply(variables, X, train=True, mutable=["features", "batch_stats"])[1]["features"]
    np.testing.assert_allclose(trained["block1"][0], served["block1"][0], rtol=1e-5, atol=1e-6)
    assert np.abs(trained["block2"][0] - served["block2"][0]).max() > 1e-2
    assert np.array_equal(held.apply(variables, X), module.apply(variables, X))


def test_rate_one_is_undefended_to_the_bit_and_rates_scale_what_the_optimizer_made():
    module = models.MLP(3, width=4)
    start = module.init(KEY, X)
    plain, same = _steps(Defense(), module, start), _steps(tl_dmi(early_rate=1.0), module, start)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), plain, same))

    def update(rate):
        transform = tl_dmi(early_rate=rate).optim(optax.adam(0.1))
        return transform.update(start["params"], transform.init(start["params"]))[0]

    whole, scaled = update(1.0), jax.jit(update)(jnp.float32(0.3))  # Adam forgets the size of a gradient
    np.testing.assert_allclose(scaled["Dense_0"]["kernel"], 0.3 * whole["Dense_0"]["kernel"], rtol=1e-5)
    np.testing.assert_allclose(scaled["Dense_1"]["kernel"], whole["Dense_1"]["kernel"], rtol=1e-5)


@pytest.mark.nightly
def test_a_public_start_is_learned_from_with_the_first_layer_held_and_other_heads_go_along():
    """Private and public labels need the same two hidden features, which random ones hardly give."""
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(20, 20)))[0][:, :2]

    def batches(private):
        def batch(step):
            x = np.random.default_rng((private, step)).normal(size=(64, 20))
            signs = (x @ turn > 0).astype(np.int32)
            y = 2 * signs[:, 0] + signs[:, 1]
            return {"x": x.astype(np.float32), "y": 3 - y if private else y}

        return batch

    def loss(defense, start, private, steps=300):
        process = train.supervised(models.MLP(4, 6), optax.adam(0.03), steps=steps, defense=defense, start=start)
        variables, _ = engine.fit(process, KEY, batches(private), plan=engine.Plan(progress=False))
        test = batches(private)(10_000)
        logits = train.predict(models.MLP(4, 6), variables, test["x"])
        return float((logits.argmax(1) == test["y"]).mean()), variables

    _, public = loss(Defense(), None, private=False)
    held, after = loss(tl_dmi(), public, private=True)
    random, _ = loss(tl_dmi(), None, private=True)
    assert np.array_equal(after["params"]["Dense_0"]["kernel"], public["params"]["Dense_0"]["kernel"])
    assert held > random + 0.1, (held, random)
    both = compose({"mid": mid(), "tl_dmi": tl_dmi(frozen=("Dense_0",))})
    assert set(_params(both.model(models.MLP(3, 4)))) == {"Dense_0", "Bottleneck_0"}


def test_names_without_a_part_networks_without_order_and_illegal_arguments_are_named():
    small = _params(models.MLP(3, width=4))
    with pytest.raises(ValueError, match="frozen: 'Conv_9'; legal is one or a pattern of Dense_0, Dense_1"):
        frozen_parts(small, ("Dense_0", "Conv_9"))
    with pytest.raises(ValueError, match="frozen: None, but 'bn1' does not tell its place in the network"):
        frozen_parts(_params(ImageNetResNet(3, width=4), (1, 32, 32, 3)), None)
    with pytest.raises(ValueError, match="nothing comes before Dense_0; legal is a deeper network"):
        frozen_parts(_params(models.SoftmaxRegression(3)), None)
    with pytest.raises(ValueError, match=r"frozen: \(\); legal is None or at least one name"):
        tl_dmi(frozen=())
    for rate in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=f"early_rate: {rate}; legal is 0 to 1"):
            tl_dmi(early_rate=rate)
