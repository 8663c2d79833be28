"""PyTorch modules as targets and priors: they answer and are differentiated as in PyTorch, and stay as they were."""

import copy
import dataclasses
import os
import re
import sys
import warnings

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmia
from jaxmia import Access, Plan, Scenario, attacks, from_linen, from_torch, priors, torch_modules

torch = pytest.importorskip("torch")
pytest.importorskip("torchax")
nn = torch.nn
functional = torch.nn.functional

KEY, CLASSES, SHAPE = jax.random.key(0), 3, (6, 5, 2)
RNG = np.random.default_rng(0)
IMAGES = RNG.random((4, *SHAPE), np.float32)
ONE = Plan(devices=tuple(jax.devices()[:1]), progress=False)


class Net(nn.Module):
    """With BatchNorm, dropout, an operator in place, a buffer, and a tensor that is neither parameter nor buffer."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(4, CLASSES)
        self.register_buffer("scale", torch.tensor([2.0, 0.5])[:, None, None])
        self.center = torch.tensor([0.4, 0.6])[:, None, None]

    def forward(self, x):
        return self.head(self.drop(self.first((x - self.center) * self.scale).mean((2, 3))))


def made(build, seed=1):
    """A module with drawn weights and statistics, in training mode; no other test's random numbers change."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = build()
        for part in module.modules():
            if isinstance(part, nn.modules.batchnorm._NormBase) and part.running_mean is not None:
                part.running_mean.uniform_(-0.5, 0.5), part.running_var.uniform_(0.5, 1.5)
        return module


def nchw(images):
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(images, -1, 1)))


def in_pytorch(module, images):
    with torch.no_grad():
        return copy.deepcopy(module).eval()(nchw(images)).numpy()


def answers(target, candidates=IMAGES, access=Access.WEIGHTS):
    return np.asarray(jax.jit(jax.vmap(lambda x: target.view(access).answer(KEY, x)))(candidates))


def shown(target, candidates=IMAGES):
    return jax.jit(jax.vmap(lambda x: target.apply(target.params, x).features))(candidates)


class Of(nn.Module):
    """What `act` does of a linear layer and its input."""

    def __init__(self, act):
        super().__init__()
        self.act, self.linear = act, nn.Linear(4, CLASSES)

    def forward(self, x):
        return self.act(self.linear, x)


RECORD = np.linspace(0.1, 0.9, 4, dtype=np.float32)


def asked(act, **options):
    target = from_torch(made(lambda: Of(act)), classes=CLASSES, **options)
    return target.apply(target.params, RECORD)


NET = made(Net)
TARGET = from_torch(NET, classes=CLASSES, features=("first.0", "first", "head"))


class Every(nn.Module):
    """One operator each for x[:, 0], x[:, 1] ..., so that the gradient by x is that of each of them."""

    def __init__(self, names):
        super().__init__()
        self.names, self.parts = names, nn.ModuleList([OPERATORS[name]() for name in names])

    def forward(self, x):
        parts = {name: part(x[:, i]) for i, (name, part) in enumerate(zip(self.names, self.parts))}
        return {"logits": x[:, 0].flatten(1)[:, :CLASSES], **parts}


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        return self.attention(x[:, 0], x[:, 1], x[:, 2])[0]


class Words(nn.Module):
    """Embeddings of numbers and of places, which a tensor without a device holds."""

    def __init__(self):
        super().__init__()
        self.words, self.places = nn.Embedding(10, 6), nn.Embedding(8, 6)

    def forward(self, x):
        found = (x[:, 0, 0].abs() * 4).long().clamp(0, 9)
        return self.words(found) * x[:, 1, 1, :1, None] + self.places(torch.arange(found.shape[1]))


class Does(nn.Module):
    def __init__(self, act):
        super().__init__()
        self.forward = act


def does(act):
    return lambda: Does(act)


def resized(**how):
    return does(lambda x: functional.interpolate(x, **how))


OPERATORS = {
    "convolution": lambda: nn.Conv2d(4, 6, 3, 2, 1),
    "reflected": lambda: nn.Conv2d(4, 3, 3, dilation=2, padding="same", padding_mode="reflect"),
    "depthwise": lambda: nn.Conv2d(4, 8, 3, groups=4),
    "transposed": lambda: nn.ConvTranspose2d(4, 6, 3, 2, 1, output_padding=1),
    "weight norm": lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 3, 3)),
    "BatchNorm": lambda: nn.BatchNorm2d(4),
    "GroupNorm": lambda: nn.GroupNorm(2, 4),
    "InstanceNorm": lambda: nn.InstanceNorm2d(4, affine=True),
    "LayerNorm": lambda: nn.LayerNorm(8),
    "largest": lambda: nn.MaxPool2d(3, 2, 1),
    "average": lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    "global": lambda: nn.AdaptiveAvgPool2d(1),
    "adaptive": lambda: nn.AdaptiveAvgPool2d((3, 5)),
    "nearest": resized(scale_factor=2, mode="nearest"),
    "bilinear": resized(size=(5, 11), mode="bilinear"),
    "bicubic": resized(scale_factor=2, mode="bicubic"),
    "attention": Attention,
    "embedding": Words,
    "LSTM": lambda: nn.Sequential(nn.Flatten(1, 2), nn.LSTM(8, 4, batch_first=True), Does(lambda told: told[0])),
    "transformer": lambda: nn.Sequential(
        nn.Flatten(1, 2), nn.TransformerEncoderLayer(8, 2, 8, batch_first=True, activation="gelu")
    ),
    "PReLU": lambda: nn.PReLU(),
    "SiLU": lambda: nn.SiLU(inplace=False),
    "shuffle": lambda: nn.PixelShuffle(2),
    "einsum": does(lambda x: torch.einsum("nchw,ncvw->nhv", x, x)),
    "in place": does(lambda x: x.clone().mul_(2).add_(1)),
    "dropout": lambda: nn.Dropout2d(0.5),
}  # fmt: skip


SLOW = ["adaptive", "bilinear", "bicubic", "LSTM", "transformer"]  # to compile


@pytest.mark.parametrize(
    "names", [[name for name in OPERATORS if name not in SLOW], pytest.param(SLOW, marks=pytest.mark.nightly)]
)
def test_operators_and_their_gradients_are_those_of_pytorch(names):
    module, x = made(lambda: Every(names)).eval(), RNG.normal(size=(len(names), 4, 8, 8)).astype(np.float32)
    target = from_torch(module, classes=CLASSES)
    given = torch.from_numpy(x[None]).requires_grad_()
    expected = module(given)
    weights = {name: RNG.normal(size=value.shape[1:]).astype(np.float32) for name, value in expected.items()}
    sum((expected[name] * torch.from_numpy(w)).sum() for name, w in weights.items() if name != "logits").backward()

    def total(x):
        features = target.apply(target.params, x).features
        return sum(jnp.sum(features[name] * weights[name]) for name in names), features

    gradient, features = jax.jit(jax.grad(total, has_aux=True))(x)
    for place, name in enumerate(names):
        np.testing.assert_allclose(features[name], expected[name][0].detach(), rtol=0, atol=1e-5, err_msg=name)
        np.testing.assert_allclose(gradient[place], given.grad[0, place], rtol=0, atol=1e-5, err_msg=name)


def test_the_module_reads_channels_first_in_evaluation_mode():
    assert NET.training
    np.testing.assert_allclose(answers(TARGET), in_pytorch(NET, IMAGES), rtol=0, atol=1e-5)
    one = TARGET.apply(TARGET.params, IMAGES[0])  # not traced, and from numpy
    np.testing.assert_allclose(one.logits, in_pytorch(NET, IMAGES[:1])[0], rtol=0, atol=1e-5)


def test_a_module_may_read_channels_last():
    last = nn.Sequential(Does(lambda x: x.permute(0, 3, 1, 2)), NET)
    np.testing.assert_allclose(
        answers(from_torch(last, classes=CLASSES, channels="last")), answers(TARGET), rtol=0, atol=1e-6
    )


def test_what_is_subtracted_and_divided_by_is_of_channels():
    mean, deviation = np.float32([0.2, 0.7]), np.float32([0.5, 2.0])
    target = from_torch(NET, classes=CLASSES, preprocess=(mean, deviation))
    np.testing.assert_allclose(answers(target), in_pytorch(NET, (IMAGES - mean) / deviation), rtol=0, atol=1e-5)


def test_parameters_are_a_tree_that_gradients_go_through():
    tree = jax.tree.map(jnp.shape, TARGET.params)
    norm = {"first.1": {"mean": (4,), "var": (4,)}}
    assert tree["batch_stats"] == norm and tree["buffers"] == {"scale": (2, 1, 1), "center": (2, 1, 1)}
    assert tree["params"].keys() == dict(NET.named_parameters()).keys()
    slope = jax.grad(lambda params: TARGET.apply(params, IMAGES[0]).logits[1])(TARGET.params)
    module = copy.deepcopy(NET).eval()
    module(nchw(IMAGES[:1]))[0, 1].backward()
    for name, parameter in module.named_parameters():
        np.testing.assert_allclose(slope["params"][name], parameter.grad, rtol=0, atol=1e-5, err_msg=name)


def test_half_and_double_precision_count_in_float32():
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        module = copy.deepcopy(NET).to(dtype)
        module.center = module.center.to(dtype)
        target = from_torch(module, classes=CLASSES)
        assert {leaf.dtype.name for leaf in jax.tree.leaves(target.params)} == {"float32"}
        np.testing.assert_allclose(answers(target), in_pytorch(NET, IMAGES), rtol=0, atol=0.05)


def test_features_are_outputs_of_submodules_before_anything_is_written_over_them():
    features, module = shown(TARGET), copy.deepcopy(NET).eval()
    assert sorted(features) == ["batch_norm/0000/first.1", "first", "first.0", "head"]
    with torch.no_grad():
        convolved = module.first[0]((nchw(IMAGES) - module.center) * module.scale)
        for name, expected in (
            ("first.0", convolved), ("batch_norm/0000/first.1", convolved), ("first", module.first[1](convolved).relu())
        ):  # fmt: skip
            np.testing.assert_allclose(features[name], expected.permute(0, 2, 3, 1), rtol=0, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(features["head"], answers(TARGET), rtol=0, atol=1e-6)


def test_a_layer_that_is_called_again_has_another_name():
    features = asked(lambda linear, x: linear(x) + linear(x + 1), features=("linear",)).features
    weight = made(lambda: Of(None)).linear.weight.detach().numpy()
    np.testing.assert_allclose(features["linear/1"] - features["linear"], weight.sum(1), rtol=0, atol=1e-5)


def test_split_inference_serves_a_layer():
    served = answers(TARGET.until("first"), access=Access.SCORES)
    assert served.shape == (4, 4, 3, 4)
    np.testing.assert_allclose(served, shown(TARGET)["first"], rtol=0, atol=1e-6)


def test_deep_inversion_compares_with_running_statistics():
    """The term of one image, by hand."""
    factory = attacks.get("image/deep_inversion").factory
    process = factory(TARGET.view(Access.WEIGHTS), SHAPE, steps=1, warmup=0, jitter=0, flip=0.0).solve(())
    state, labels = process.init(KEY, jnp.asarray([1])), jnp.asarray([1])
    _, told = jax.jit(process.step)(KEY, state, labels)
    seen = np.asarray(shown(TARGET, 0.45 + 0.225 * state.u)["batch_norm/0000/first.1"]).reshape(-1, 4)
    norm = NET.first[1]
    distance = np.linalg.norm(seen.mean(0) - norm.running_mean.numpy())
    distance += np.linalg.norm(seen.var(0) - norm.running_var.numpy())
    np.testing.assert_allclose(told.extra["moments"], 10 * distance, rtol=1e-4)  # the first layer counts ten times


def test_outputs_may_be_a_dict_a_tuple_or_an_object_with_logits():
    @dataclasses.dataclass
    class Output:
        loss: None
        logits: torch.Tensor
        hidden: torch.Tensor

    expected = asked(lambda linear, x: linear(x)).logits
    for act, feature in (
        (lambda linear, x: {"logits": linear(x), "hidden": x, "note": "text"}, "hidden"),
        (lambda linear, x: (x, None, linear(x)), "output/0"),
        (lambda linear, x: Output(None, linear(x), x), "hidden"),
    ):
        told = asked(act)
        np.testing.assert_allclose(told.logits, expected, rtol=0, atol=1e-6)
        assert told.features.keys() == {feature}
        np.testing.assert_allclose(told.features[feature], RECORD, rtol=0, atol=1e-7)


def test_the_module_and_pytorch_stay_as_they_were():
    calls = []
    module = made(Net)
    module.first[1].eval()
    module.head.weight.requires_grad_(False)
    module(nchw(IMAGES)).sum().backward()
    hook = module.head.register_forward_hook(lambda *given: calls.append(len(given)))

    def state():
        tensors = {**module.state_dict(), **{f"grad {name}": p.grad for name, p in module.named_parameters()}}
        modes = [(name, part.training, len(part._forward_hooks)) for name, part in module.named_modules()]
        needs = [p.requires_grad for p in module.parameters()]
        return (
            {name: None if t is None else t.clone() for name, t in tensors.items()},
            modes,
            needs,
            vars(module).keys(),
        )

    def everywhere():
        return (
            torch.random.get_rng_state().tolist(), torch.get_default_device(), torch.is_grad_enabled(),
            torch.backends.mha.get_fastpath_enabled(), os.environ.get("ENABLE_RUNTIME_UPTIME_TELEMETRY"),
            torch.overrides._get_current_function_mode_stack(), list(warnings.filters),
        )  # fmt: skip

    before, around = state(), everywhere()
    target = from_torch(module, classes=CLASSES, features=("head",))
    first = answers(target)
    after = state()
    assert before[1:] == after[1:] and around == everywhere() and hook.id in module.head._forward_hooks
    assert all(a is b if a is None else torch.equal(a, b) for a, b in zip(before[0].values(), after[0].values()))
    assert calls, "its hooks are part of it"

    with torch.no_grad():  # trained on
        for parameter in module.parameters():
            parameter.add_(1.0)
    np.testing.assert_array_equal(answers(target), first)


class FromTheLastCall(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.kept = nn.Linear(4, CLASSES), None

    def forward(self, x):
        if self.kept is None:
            self.kept = self.linear(x)
        return self.kept


def test_what_a_module_keeps_of_a_call_is_not_met_in_the_next():
    module = made(FromTheLastCall)
    target = from_torch(module, classes=CLASSES)
    told = [jax.jit(target.apply)(target.params, RECORD * factor).logits for factor in (1, 2)]
    slope = module.linear.weight.detach().numpy() @ RECORD
    np.testing.assert_allclose(told[1] - told[0], slope, rtol=0, atol=1e-5)
    assert module.kept is None


def test_shared_weights_are_one_parameter():
    module = made(lambda: nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)))
    module[1].weight = module[0].weight
    target = from_torch(module, classes=4)
    assert sorted(target.params["params"]) == ["0.bias", "0.weight", "1.bias"]
    with torch.no_grad():
        expected = module(torch.from_numpy(RECORD[None]))[0]
    np.testing.assert_allclose(target.apply(target.params, RECORD).logits, expected, rtol=0, atol=1e-5)


class Linen(flax.linen.Module):
    """Net without what comes before and after its layers."""

    @flax.linen.compact
    def __call__(self, x):
        x = flax.linen.relu(flax.linen.Conv(4, (3, 3), padding="VALID")(x))
        return flax.linen.Dense(CLASSES)(x.mean((1, 2)))


def small():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, CLASSES)
    )  # fmt: skip


def test_an_attack_finds_what_it_finds_with_the_same_weights_in_flax(tmp_path):
    module = made(small)
    weights = {name: jnp.asarray(value.detach().numpy()) for name, value in module.named_parameters()}
    params = {
        "Conv_0": {"kernel": weights["0.weight"].transpose(2, 3, 1, 0), "bias": weights["0.bias"]},
        "Dense_0": {"kernel": weights["4.weight"].T, "bias": weights["4.bias"]},
    }
    mine, theirs = from_torch(module, classes=CLASSES), from_linen(Linen(), {"params": params}, classes=CLASSES)

    def run(target, **where):
        attack = attacks.get("image/mi_face").factory(target.view(Access.WEIGHTS), SHAPE, alpha=6, rate=5.0)
        return jaxmia.run(attack, KEY, Scenario(target, np.arange(CLASSES)), plan=ONE, **where).output

    found = run(mine, folder=tmp_path / "run")
    assert found.max() > 0.1
    np.testing.assert_allclose(found, run(theirs), rtol=0, atol=1e-4)
    again = from_torch(made(small), classes=CLASSES)
    np.testing.assert_array_equal(run(again, folder=tmp_path / "run"), found)  # else the folder would be refused


def test_a_generator_is_a_prior_of_its_latents():
    def build(end):
        layers = nn.ConvTranspose2d(5, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.ConvTranspose2d(4, 3, 4, 2, 1)
        return nn.Sequential(*layers, end)

    for end, output in ((nn.Tanh(), (-1.0, 1.0)), (nn.Sigmoid(), (0.0, 1.0))):
        generator = made(lambda: build(end))  # noqa: B023
        prior = priors.latent_from_torch(generator, (5, 1, 1), output=output)
        z = prior.init(KEY)
        assert z.shape == (5,) and generator.training
        with torch.no_grad():
            image = copy.deepcopy(generator).eval()(torch.from_numpy(np.array(z))[None, :, None, None])[0]
        expected = (image.permute(1, 2, 0).numpy() - output[0]) / (output[1] - output[0])
        image, slope = jax.jit(jax.value_and_grad(lambda z: (jnp.sum((y := prior.decode(z)) ** 2), y), has_aux=True))(z)
        np.testing.assert_allclose(image[1], expected, rtol=0, atol=1e-5)
        assert image[1].shape == (6, 6, 3) and np.all(np.isfinite(slope)) and np.any(slope)
    np.testing.assert_array_equal(prior.project(9 * z), 9 * z)


def test_a_generator_may_read_vectors_and_its_latents_be_bound():
    generator = made(lambda: nn.Sequential(nn.Linear(5, 12), nn.Unflatten(1, (3, 2, 2))))
    prior = priors.latent_from_torch(generator, 5, output=(-0.1, 0.1), bound=0.5)
    image = prior.decode(jnp.full(5, 3.0))
    assert image.shape == (2, 2, 3) and float(image.min()) == 0.0 and float(image.max()) == 1.0
    assert float(prior.project(jnp.full(5, 3.0)).max()) == 0.5


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"dimensions": 0}, "dimensions: 0; legal is 1 or more, or a shape of such"),
        ({"output": (1.0, 1.0)}, "output: (1.0, 1.0); legal is two finite numbers, the second one larger"),
        ({"channels": "all"}, "channels: 'all'; legal is first or last"),
        ({"generator": 3}, "generator: int is no PyTorch module; legal is an instance of torch.nn.Module"),
    ],
)
def test_wrong_options_of_a_generator(wrong, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        priors.latent_from_torch(**{"generator": nn.Linear(2, 3), "dimensions": 2, **wrong})


class Backward(torch.autograd.Function):
    """A sign that passes gradients on."""

    @staticmethod
    def forward(ctx, x):
        return x.sign()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


LOST = torch.ones(4)


def otherwise(linear, x):
    return linear(x + 0.5 * (type(x) is not torch.Tensor))


@pytest.mark.parametrize(
    ("act", "sentence"),
    [
        (lambda linear, x: torch.segment_reduce(linear(x), "max", lengths=torch.tensor([1])), "lacks the operator aten::"),
        (lambda linear, x: linear(x) + torch.rand(3), "Of draws random numbers in evaluation mode"),
        (lambda linear, x: functional.dropout(linear(x)), "Of draws random numbers in evaluation mode"),
        (lambda linear, x: linear(x + LOST), "neither parameter nor buffer (register_buffer makes it one)"),
        (lambda linear, x: linear(x) if x.sum() > 0 else x, "depends on the numbers in a tensor"),
        (lambda linear, x: linear(x[:, :3]), "Of refuses float32[1, 4] in PyTorch itself: RuntimeError: mat1 and mat2"),
        (lambda linear, x: "text", "Of returns no tensor"),
        (lambda linear, x: linear(Backward.apply(x)), "Of has another gradient in JAX than in PyTorch"),
        (otherwise, "Of answers otherwise in torchax than in PyTorch"),
        (lambda linear, x: linear(torch.from_numpy(x.detach().numpy())), "it raised TracerArrayConversionError"),
        (lambda linear, x: linear(x)[:, :2], "classes: 3, but the model answers 2 numbers"),
    ],
)  # fmt: skip
def test_what_cannot_be_computed_is_one_sentence(act, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)) as error:
        asked(act)
    assert "\n" not in str(error.value)


def test_a_layer_that_is_put_in_training_mode_is_refused():
    class Training(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(2)

        def forward(self, x):
            return self.norm.train()(x).mean((2, 3))

    target = from_torch(Training(), classes=2)
    with pytest.raises(ValueError, match="module: Training keeps or puts a BatchNorm2d in training mode"):
        target.apply(target.params, IMAGES[0])


def test_a_feature_that_is_never_made():
    with pytest.raises(ValueError, match="features: 'linear' is never called by Of"):
        asked(lambda linear, x: functional.linear(x, linear.weight), features=("linear",))


def scripted():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2))


def compiled():
    """Like what torch.compile returns."""
    module = nn.Module()
    module._orig_mod = nn.Linear(2, 2)
    return module


def parallel():
    """Made by hand: where torchax has named its device, PyTorch makes none without a GPU."""
    module = nn.DataParallel.__new__(nn.DataParallel)
    nn.Module.__init__(module)
    module.module = nn.Linear(2, 2)
    return module


class Locked(nn.Module):
    def __deepcopy__(self, memo):
        raise RuntimeError("a file is open")


@pytest.mark.parametrize(
    ("module", "options", "sentence"),
    [
        (Net, {}, "module: Net is no PyTorch module; legal is an instance, Net(...)"),
        (len, {}, "module: builtin_function_or_method is no PyTorch module; legal is an instance of torch.nn.Module"),
        (scripted(), {}, "module: is TorchScript"),
        (compiled(), {}, "module: Module wraps a module; legal is the module in it, ._orig_mod"),
        (parallel(), {}, "module: DataParallel wraps a module; legal is the module in it, .module"),
        (nn.LazyLinear(3), {}, "module: weight has no shape yet; legal is a lazy module that was asked once"),
        (nn.Linear(2, 2, dtype=torch.complex64), {}, "module: weight is torch.complex64, torch.strided; legal is dense"),
        (nn.Linear(2, 2, device="meta"), {}, "module: weight is on the device meta; legal is a tensor with numbers"),
        (Locked(), {}, "module: Locked cannot be copied (RuntimeError: a file is open)"),
        (NET, {"features": ("frist",)}, "features: 'frist'; legal is first, first.0, first.1, first.2, drop, head"),
        (NET, {"features": "first"}, "features: 'first'; legal is a sequence of names, such as ('first',)"),
        (NET, {"channels": "middle"}, "channels: 'middle'; legal is first or last"),
        (NET, {"classes": 1}, "classes: 1; legal is a whole number, 2 or more"),
    ],
)  # fmt: skip
def test_wrong_input_is_one_sentence(module, options, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)) as error:
        from_torch(module, **{"classes": CLASSES, **options})
    assert "\n" not in str(error.value)


def test_candidates_are_one_array():
    with pytest.raises(ValueError, match="candidates: a dict; legal is one array"):
        TARGET.apply(TARGET.params, {"image": IMAGES[0]})


@pytest.mark.parametrize("package", ["torch", "torchax"])
def test_a_missing_package_is_one_sentence(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=f"the package {package} is missing: pip install"):
        from_torch(NET, classes=CLASSES)


def test_versions_that_do_not_fit_together_are_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchax.tensor", None)
    with pytest.raises(ImportError, match=r"torchax \S+ and torch \S+ do not fit together .*: pip install -U --pre"):
        torch_modules._environment.__wrapped__()
