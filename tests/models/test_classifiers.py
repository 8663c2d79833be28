"""Classifiers: shapes, named features, parameter counts, gradients, batch statistics, and the autoencoder."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmia.models import MLP, VGG, DenoisingAutoencoderClassifier, EvaluatorCNN, ResNet, SoftmaxRegression
from tests.models.compiled import compiled, initialize

FACE = (56, 46, 1)
CLASSIFIERS = {
    "softmax": (SoftmaxRegression(7), {"penultimate"}),
    "mlp": (MLP(7, width=20), {"penultimate"}),
    "deep mlp": (MLP(7, width=20, depth=3), {"block1", "block2", "penultimate"}),
    "dae": (DenoisingAutoencoderClassifier(7, FACE, (30, 12)), {"block1", "penultimate"}),
    "vgg": (VGG(7, ((4, 4), (8,), (8,)), hidden=16), {"block1", "block2", "block3", "penultimate"}),
    "resnet": (ResNet(7, (4, 8, 8), blocks=1), {"block1", "block2", "block3", "penultimate"}),
    "resnet without last skip": (
        ResNet(7, (4, 8), blocks=2, skip=(1.0, 0.0)),
        {"block1", "block2", "penultimate"},
    ),
    "evaluator": (EvaluatorCNN(7, (8, 8, 16)), {"block1", "block2", "block3", "penultimate"}),
}


def _parameters(module, shape=(1, *FACE)):
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros(shape)))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))


def _apply(module, variables, x):
    return compiled(lambda v, x: module.apply(v, x, mutable=["features"]))(variables, x)


@pytest.fixture(scope="module", params=CLASSIFIERS)
def fitted(request):
    module, names = CLASSIFIERS[request.param]
    x = jax.random.uniform(jax.random.key(1), (3, *FACE))
    variables = initialize(module, x)
    # Softmax regression starts from zero weights, where an image has no gradient.
    moved = jax.tree.map(lambda leaf: leaf + 0.01 * jax.random.normal(jax.random.key(2), leaf.shape), variables)
    return module, names, {**variables, "params": moved["params"]}, x


def test_softmax_starts_from_zero():
    variables = initialize(SoftmaxRegression(7), jnp.zeros((1, *FACE)))
    assert all(bool(jnp.all(leaf == 0)) for leaf in jax.tree.leaves(variables["params"]))


@pytest.mark.nightly
def test_logits_features_and_gradients(fitted):
    module, names, variables, x = fitted
    assert set(variables) <= {"params", "batch_stats"}
    logits, sown = _apply(module, variables, x)
    assert logits.shape == (3, 7)
    assert set(sown["features"]) == names
    assert all(len(value) == 1 and value[0].shape[0] == 3 for value in sown["features"].values())

    def loss(params, x):
        logits = module.apply({**variables, "params": params}, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.array([0, 1, 2])).sum()

    by_params, by_image = compiled(jax.grad(loss, (0, 1)))(variables["params"], x)
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves((by_params, by_image)))
    assert float(jnp.min(jnp.max(jnp.abs(by_image), axis=(1, 2, 3)))) > 0


@pytest.mark.nightly
def test_answer_for_one_example_does_not_depend_on_the_batch(fitted):
    module, _, variables, x = fitted
    # Sums of another batch size are rounded otherwise, by how much depends on the processor: in 64 bits hardly at all.
    with jax.enable_x64(True):
        variables, x = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), (variables, x))
        together, _ = _apply(module, variables, x)
        alone = compiled(jax.vmap(lambda image: module.apply(variables, image[None])[0]))(x)
    assert together.dtype == jnp.float64
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-12)


def test_penultimate_is_what_the_last_layer_reads(fitted):
    module, _, variables, x = fitted
    logits, sown = _apply(module, variables, x)
    groups = [group for group in variables["params"].values() if isinstance(group, dict) and "kernel" in group]
    (last,) = [group for group in groups if group["kernel"].shape[-1] == 7]
    (penultimate,) = sown["features"]["penultimate"]
    np.testing.assert_allclose(penultimate @ last["kernel"] + last["bias"], logits, atol=1e-5)


@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3), (64, 64, 3), (56, 46, 1)])
@pytest.mark.parametrize("module", [VGG(4), ResNet(4), EvaluatorCNN(4), MLP(4)], ids=lambda m: type(m).__name__)
def test_default_sizes_read_the_usual_images(module, shape):
    images = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    logits, _ = jax.eval_shape(lambda x: module.init_with_output(jax.random.key(0), x), images)
    assert logits.shape == (2, 4)


def test_number_of_parameters():
    pixels = 56 * 46
    assert _parameters(SoftmaxRegression(40)) == 40 * (pixels + 1)
    assert _parameters(MLP(40)) == 3000 * (pixels + 1) + 40 * 3001
    assert _parameters(MLP(40, width=10, depth=2)) == 10 * (pixels + 1) + 10 * 11 + 40 * 11
    hidden = pixels * 1000 + 1000 * 300  # tied: each kernel once, with a bias on both of its sides
    biases = pixels + 1000 + 1000 + 300
    assert _parameters(DenoisingAutoencoderClassifier(40, FACE)) == hidden + biases + 40 * 301
    convolutions = 9 * (1 * 4 + 4 * 4 + 4 * 8) + 2 * (4 + 4 + 8)
    assert _parameters(VGG(5, ((4, 4), (8,)), hidden=6)) == convolutions + 14 * 11 * 8 * 6 + 2 * 6 + 5 * 7
    stem, first = 9 * 4 + 2 * 4, 2 * (9 * 16 + 2 * 4)
    second = 9 * (4 * 8 + 8 * 8) + 2 * 2 * 8
    projection = 4 * 8 + 2 * 8
    assert _parameters(ResNet(5, (4, 8), blocks=1)) == stem + first + second + projection + 5 * 9
    assert _parameters(ResNet(5, (4, 8), blocks=1, skip=(1.0, 0.0))) == stem + first + second + projection + 5 * 9


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["vgg", "resnet"])
def test_batch_statistics_move_in_training_only(name):
    module, _ = CLASSIFIERS[name]
    x = 0.3 + 0.1 * jax.random.normal(jax.random.key(1), (8, *FACE))
    variables = initialize(module, x)
    train = compiled(lambda v: module.apply(v, x, train=True, mutable=["batch_stats"]))
    evaluate = compiled(lambda v: module.apply(v, x, mutable=["batch_stats"]))
    _, updated = train(variables)
    before, after = variables["batch_stats"], updated["batch_stats"]
    assert all(not np.allclose(a, b) for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True))
    jax.tree.map(np.testing.assert_array_equal, evaluate(variables)[1]["batch_stats"], before)
    # Once the running statistics are those of this batch, both modes agree.
    for _ in range(200):
        _, updated = train({**variables, **updated})
    settled = {**variables, **updated}
    np.testing.assert_allclose(evaluate(settled)[0], train(settled)[0], atol=1e-4)


def test_skip_removal_changes_only_its_stage():
    x = jax.random.uniform(jax.random.key(1), (2, 16, 12, 1))
    whole, cut = ResNet(3, (4, 4), blocks=1), ResNet(3, (4, 4), blocks=1, skip=(1.0, 0.0))
    variables = initialize(whole, x)
    one, two = (_apply(m, v, x)[1]["features"] for m, v in ((whole, variables), (cut, variables)))
    np.testing.assert_array_equal(one["block1"][0], two["block1"][0])
    assert not np.allclose(one["block2"][0], two["block2"][0])


def test_max_pool_gives_the_gradient_of_a_tie_to_one_pixel():
    """On a constant image every window ties; a maximum over a reshaped axis would split the gradient there."""
    identity = {"Conv_0": {"kernel": jnp.zeros((3, 3, 1, 1)).at[1, 1].set(1.0)}}
    module = VGG(3, ((1,),), hidden=4)
    x = jnp.full((1, 8, 8, 1), 0.5)
    variables = initialize(module, x)
    variables = {**variables, "params": {**variables["params"], **identity}}

    def pooled(x):
        _, sown = module.apply(variables, x, mutable=["features"])
        return sown["features"]["block1"][0].sum()

    windows = compiled(jax.grad(pooled))(x)[0, :, :, 0].reshape(4, 2, 4, 2).swapaxes(1, 2).reshape(16, 4)
    np.testing.assert_array_equal((np.asarray(windows) != 0).sum(1), 1)


def test_illegal_fields_are_named():
    x = jnp.zeros((1, 8, 8, 1))
    with pytest.raises(ValueError, match=r"skip=\(1.0,\)"):
        ResNet(3, (4, 4), skip=(1.0,)).init(jax.random.key(0), x)
    with pytest.raises(ValueError, match="depth=0"):
        MLP(3, depth=0).init(jax.random.key(0), x)
    with pytest.raises(ValueError, match="stages"):
        VGG(3, ((4,),) * 4).init(jax.random.key(0), x)


class TestDenoisingAutoencoder:
    module = DenoisingAutoencoderClassifier(5, (6, 5, 1), (24, 10))

    def variables(self, x):
        return initialize(self.module, x)

    def test_encode_decode_and_classify(self):
        x = jax.random.uniform(jax.random.key(1), (4, 6, 5, 1))
        variables = self.variables(x)
        latent = self.module.apply(variables, x, method="encode")
        assert latent.shape == (4, 10)
        assert float(latent.min()) > 0 and float(latent.max()) < 1
        image = self.module.apply(variables, latent, method="decode")
        assert image.shape == x.shape
        assert float(image.min()) > 0 and float(image.max()) < 1
        logits = self.module.apply(variables, latent, method="classify")
        np.testing.assert_allclose(logits, self.module.apply(variables, x), atol=1e-6)

    def test_denoising_loss_is_the_cross_entropy_of_its_layer(self):
        x = jax.random.uniform(jax.random.key(1), (4, 6, 5, 1))
        variables = self.variables(x)
        loss = self.module.apply(variables, x, jax.random.key(2), 1, 0.0, method="denoising_loss")
        p = variables["params"]
        flat = np.asarray(x.reshape(4, -1), np.float64)
        kernel = np.asarray(p["kernel1"], np.float64)
        sigmoid = lambda a: 1 / (1 + np.exp(-a))  # noqa: E731
        y = sigmoid(sigmoid(flat @ kernel) @ kernel.T)
        np.testing.assert_allclose(loss, -(flat * np.log(y) + (1 - flat) * np.log(1 - y)).sum(1), rtol=1e-5)
        noisy = self.module.apply(variables, x, jax.random.key(2), 1, 0.5, method="denoising_loss")
        assert not np.allclose(noisy, loss)

    def test_upper_layer_leaves_the_lower_one_alone(self):
        x = jax.random.uniform(jax.random.key(1), (4, 6, 5, 1))
        variables = self.variables(x)
        total = lambda v: self.module.apply(v, x, jax.random.key(2), 2, method="denoising_loss").sum()  # noqa: E731
        gradient = compiled(jax.grad(total))(variables)["params"]
        for name in ("kernel1", "hidden_bias1", "visible_bias1"):
            assert float(jnp.abs(gradient[name]).max()) == 0
        for name in ("kernel2", "hidden_bias2", "visible_bias2"):
            assert float(jnp.abs(gradient[name]).max()) > 0

    def test_pre_training_makes_decode_the_inverse_of_encode(self):
        """Images from a two-factor family; an untrained autoencoder does not bring them back."""
        factors = jax.random.bernoulli(jax.random.key(1), 0.5, (64, 2)).astype(jnp.float32)
        x = jnp.clip(jnp.einsum("nk,khw->nhw", factors, jnp.stack([jnp.eye(6, 5), 1 - jnp.eye(6, 5)])), 0.02, 0.98)
        x = x[..., None]
        variables = self.variables(x)
        error = lambda v: float(  # noqa: E731
            jnp.mean((self.module.apply(v, self.module.apply(v, x, method="encode"), method="decode") - x) ** 2)
        )
        before, optimizer = error(variables), optax.adam(0.02)
        for layer in (1, 2):
            state = optimizer.init(variables)

            def step(carry, key, layer=layer):
                variables, state = carry
                loss = lambda v: self.module.apply(v, x, key, layer, 0.2, method="denoising_loss").mean()  # noqa: E731
                updates, state = optimizer.update(jax.grad(loss)(variables), state)
                return (optax.apply_updates(variables, updates), state), None

            keys = jax.random.split(jax.random.key(layer), 300)
            (variables, _), _ = jax.jit(lambda carry, keys, step=step: jax.lax.scan(step, carry, keys))(
                (variables, state), keys
            )
        assert error(variables) < 0.02 < 0.1 < before
