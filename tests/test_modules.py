"""Any module style that Flax's users have gives the same target, or one sentence that says what to do."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.core import freeze
from flax.training.train_state import TrainState

from jaxmia import Access, from_callable, from_function, from_linen, from_nnx

KEY, CLASSES = jax.random.key(0), 3
RNG = np.random.default_rng(0)
IMAGES = RNG.random((5, 6, 4, 2)).astype(np.float32)


class Net(nn.Module):
    """With BatchNorm and dropout; `train` has no default."""

    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.BatchNorm(use_running_average=not train)(nn.Conv(3, (3, 3))(x))
        return nn.Dense(CLASSES)(nn.Dropout(0.5, deterministic=not train)(nn.relu(x)).reshape(len(x), -1))


class InTraining(Net):
    """As Flax's ImageNet example has it."""

    @nn.compact
    def __call__(self, x, train: bool = True):
        return Net(name="net")(x, train)


class Dropping(nn.Module):
    @nn.compact
    def __call__(self, x, deterministic: bool = False):
        return nn.Dense(CLASSES)(nn.Dropout(0.5, deterministic=deterministic)(x.reshape(len(x), -1)))


def known(module, **call):
    """Variables with statistics of some images."""
    variables = module.init({"params": KEY, "dropout": KEY}, IMAGES, **call)
    stats = jax.tree.map(lambda leaf: leaf + RNG.uniform(0.1, 0.5, leaf.shape), variables.get("batch_stats", {}))
    return {**variables, "batch_stats": stats} if stats else variables


VARIABLES = known(Net(), train=False)


def answered(target, access=Access.WEIGHTS):
    return np.asarray(jax.vmap(target.view(access).answer, (None, 0))(KEY, IMAGES))


class State(TrainState):
    batch_stats: Any


def state(of=VARIABLES):
    net = Net()
    return State.create(apply_fn=net.apply, params=of["params"], batch_stats=of["batch_stats"], tx=optax.sgd(0.1))


@pytest.mark.parametrize("variables", [VARIABLES, freeze(VARIABLES), state(), jax.tree.map(np.asarray, VARIABLES)])
def test_containers_of_variables(variables):
    target = from_linen(Net(), variables, classes=CLASSES, call={"train": False})
    np.testing.assert_allclose(answered(target), Net().apply(VARIABLES, IMAGES, train=False), rtol=1e-4, atol=1e-5)
    assert (
        type(target.params) is dict
        and target.digest == from_linen(Net(), VARIABLES, classes=CLASSES, call={"train": False}).digest
    )


class Container(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(CLASSES)(x.reshape(len(x), -1))


@pytest.mark.parametrize("make", [freeze, lambda tree: list(tree.values()), lambda tree: tuple(tree.values())])
def test_containers_of_parameters(make):
    params = {"a": RNG.normal(size=(48, CLASSES)).astype(np.float32), "b": np.ones(CLASSES, np.float32)}

    def apply(params, x):
        a, b = params.values() if hasattr(params, "values") else params
        return x.reshape(len(x), -1) @ a + b

    np.testing.assert_allclose(
        answered(from_function(apply, make(params), classes=CLASSES)), apply(params, IMAGES), rtol=1e-4
    )


OFF = {"train": False}
PARAMS = VARIABLES["params"]
SUGGESTS = r"give the keyword arguments of inference, such as call={'train': False}"
WRONG = {
    "no argument": (Net(), VARIABLES, {}, f"call: missing a required argument: 'train'; {SUGGESTS}"),
    "another argument": (Net(), VARIABLES, {"training": False}, f"call: .*; {SUGGESTS}"),
    "training": (InTraining(), known(InTraining(), **OFF), {}, f"call: InTraining changes its variables, .*{SUGGESTS}"),
    "dropout": (Dropping(), known(Dropping()), {}, "call: Dropping draws random numbers, .*'deterministic': True"),
    "no level": (Net(), PARAMS, OFF, "variables: hold .*Conv_0.*; legal is all that module.init"),
    "no statistics": (Net(), {"params": PARAMS}, OFF, "variables: hold params, but .*batch_stats.*legal"),
    "class": (Net, VARIABLES, OFF, r"module: Net is no Linen module; legal is an instance, Net\(...\)"),
    "list": (Net(), [VARIABLES], OFF, "variables: list; legal is what module.init returns"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_one_sentence_says_what_to_do(wrong):
    module, variables, call, message = WRONG[wrong]
    with pytest.raises(ValueError, match=message) as error:
        from_linen(module, variables, classes=CLASSES, call=call, example=IMAGES)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "module, call", [(InTraining(), {"train": False}), (Dropping(), {"deterministic": True})], ids=["train", "dropout"]
)
def test_the_call_says_what_inference_is(module, call):
    variables = known(module, **call)
    target = from_linen(module, variables, classes=CLASSES, call=call)
    np.testing.assert_allclose(answered(target), module.apply(variables, IMAGES, **call), rtol=1e-4, atol=1e-5)


class Twice(nn.Module):
    """One BatchNorm called twice, and a layer that sows twice."""

    @nn.compact
    def __call__(self, x):
        norm = nn.BatchNorm(use_running_average=True, name="b")
        x = norm(x)
        self.sow("features", "h", x)
        x = norm(x + 1.0)
        self.sow("features", "h", x)
        return nn.Dense(CLASSES)(x.reshape(len(x), -1))


def test_layers_that_are_called_twice_show_both_inputs():
    target = from_linen(Twice(), known(Twice()), classes=CLASSES)
    features = target.apply(target.params, IMAGES[0]).features
    stats, scale = (target.params[name]["b"] for name in ("batch_stats", "params"))
    first = (IMAGES[0] - stats["mean"]) / np.sqrt(stats["var"] + 1e-5) * scale["scale"] + scale["bias"]
    assert sorted(features) == ["batch_norm/0000/b", "batch_norm/0001/b", "h", "h/1"]
    np.testing.assert_array_equal(features["batch_norm/0000/b"], IMAGES[0])
    np.testing.assert_allclose(features["batch_norm/0001/b"], first + 1.0, rtol=1e-4)
    np.testing.assert_allclose(features["h"], first, rtol=1e-4)


class Layer(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return nn.relu(nn.BatchNorm(use_running_average=True)(nn.Dense(4)(x))), None


class Scanned(nn.Module):
    axes: Any = "parameters"

    @nn.compact
    def __call__(self, x):
        axes = {"params": 0, "batch_stats": 0} if self.axes == "parameters" else {True: 0}
        x = nn.Dense(4)(x.reshape(len(x), -1))
        self.sow("features", "first", x)
        x, _ = nn.scan(Layer, variable_axes=axes, split_rngs={"params": True}, length=2)()(x, None)
        return nn.Dense(CLASSES)(nn.BatchNorm(use_running_average=True, name="last")(x))


@pytest.mark.parametrize("axes", ["parameters", "all"])
def test_layers_in_a_scan_are_not_shown(axes):
    variables = known(Scanned())
    target = from_linen(Scanned(axes), variables, classes=CLASSES)
    np.testing.assert_allclose(answered(target), Scanned().apply(variables, IMAGES), rtol=1e-4, atol=1e-5)
    features = target.apply(target.params, IMAGES[0]).features
    assert {name.split("/")[-1] for name in features} == {"first", "last"}
    assert features["first"].shape == (4,)


def test_remat_and_jit_of_layers_keep_their_features():
    class Lifted(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.remat(Twice)(name="remat")(x)
            return x

    variables = known(Lifted())
    target = from_linen(Lifted(), variables, classes=CLASSES)
    features = jax.vmap(lambda x: target.apply(target.params, x).features)(IMAGES)
    assert sorted(features) == [
        "batch_norm/0000/remat/b", "batch_norm/0001/remat/b", "remat/h", "remat/h/1"
    ]  # fmt: skip
    np.testing.assert_array_equal(features["batch_norm/0000/remat/b"], IMAGES)


class Count(nnx.Variable):
    pass


class Nnx(nnx.Module):
    """Counts its calls, and has BatchNorm and dropout."""

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.norm, self.drop = nnx.BatchNorm(2, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)
        self.dense, self.calls = nnx.Linear(48, CLASSES, rngs=rngs), Count(jnp.zeros((), jnp.int32))

    def __call__(self, x, deterministic=None, average=None):
        self.calls.set_value(self.calls.get_value() + 1)
        x = self.norm(x, use_running_average=average)
        return self.dense(self.drop(x, deterministic=deterministic).reshape(len(x), -1))


class Must(Nnx):
    def __call__(self, x, train):
        return super().__call__(x, not train, not train)


def test_an_nnx_module_stays_as_it_is():
    net = Nnx()
    net.train()
    target = from_nnx(net, classes=CLASSES)
    found = answered(target)
    assert not net.drop.deterministic and not net.norm.use_running_average and net.calls.get_value() == 0
    copy = nnx.clone(net)
    copy.eval()
    np.testing.assert_allclose(found, copy(IMAGES), rtol=1e-4, atol=1e-6)
    net.dense.kernel.set_value(net.dense.kernel.get_value() * 2)  # who goes on training does not move the target
    np.testing.assert_array_equal(answered(target), found)


def test_nnx_dropout_that_stays_on_answers_the_same_at_every_call():
    target = from_nnx(Nnx(), classes=CLASSES, call={"deterministic": False})
    np.testing.assert_array_equal(answered(target), answered(target))


def test_nnx_says_what_to_do():
    with pytest.raises(ValueError, match=r"call: missing a required argument: 'train'; .*call={'train': False}"):
        from_nnx(Must(), classes=CLASSES)
    np.testing.assert_allclose(
        answered(from_nnx(Must(), classes=CLASSES, call={"train": False})), answered(from_nnx(Nnx(), classes=CLASSES))
    )
    with pytest.raises(ValueError, match="call: Nnx changes its BatchNorm statistics"):
        from_nnx(Nnx(), classes=CLASSES, call={"average": False}, example=IMAGES)
    with pytest.raises(ValueError, match=r"model: Nnx is no NNX module; legal is an instance, Nnx\(...\)"):
        from_nnx(Nnx, classes=CLASSES)
    with pytest.raises(ValueError, match="model: Net is no NNX module"):
        from_nnx(Net(), classes=CLASSES)
    with pytest.raises(ValueError, match="module: Nnx is no Linen module"):
        from_linen(Nnx(), {}, classes=CLASSES)


MEAN, DEVIATION = np.array([0.4, 0.6]), 0.25
NORMAL = (IMAGES - MEAN.astype(np.float32)) / np.float32(DEVIATION)


def preprocessed():
    variables, net = known(Container()), Nnx()
    kernel = RNG.normal(size=(48, CLASSES)).astype(np.float32)
    multiply = lambda p, x: x.reshape(len(x), -1) @ p  # noqa: E731
    soft = lambda x: np.asarray(jax.nn.softmax(multiply(kernel, x)))  # noqa: E731
    return {
        "function": (lambda **how: from_function(multiply, kernel, classes=CLASSES, **how)),
        "linen": (lambda **how: from_linen(Container(), variables, classes=CLASSES, **how)),
        "nnx": (lambda **how: from_nnx(net, classes=CLASSES, **how)),
        "callable": (lambda **how: from_callable(soft, classes=CLASSES, **how)),
    }


@pytest.mark.parametrize("kind", ["function", "linen", "nnx", "callable"])
def test_preprocessing_is_inside_of_every_target(kind):
    make = preprocessed()[kind]
    access = Access.SCORES if kind == "callable" else Access.WEIGHTS
    with_it, without = (make(**how).view(access).answer for how in ({"preprocess": (MEAN, DEVIATION)}, {}))
    np.testing.assert_allclose(with_it(KEY, IMAGES[0]), without(KEY, NORMAL[0]), rtol=1e-4, atol=1e-5)
    if access == Access.WEIGHTS:
        slopes = [jax.grad(lambda x, f=f: f(KEY, x)[0])(x) for f, x in ((with_it, IMAGES[0]), (without, NORMAL[0]))]
        np.testing.assert_allclose(slopes[0], slopes[1] / DEVIATION, rtol=1e-3, atol=1e-4)
    for wrong in ((0.5,), (0.5, 0.0), (np.nan, 1.0), "mean"):
        with pytest.raises(ValueError, match="preprocess: .* legal is"):
            make(preprocess=wrong)
