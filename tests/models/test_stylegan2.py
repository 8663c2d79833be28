"""StyleGAN2 against a reference in NumPy that modulates the kernels of every example, as the paper's equations do."""

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import convolve2d, correlate2d

from jaxmia.models.pretrained import published
from jaxmia.models.stylegan2 import Hidden, StyleGAN2, SynthesisNetwork, from_p_space, to_p_space
from tests.models.compiled import compiled, initialize

KEY = jax.random.key(0)
SIZE, LATENT, WIDTHS = 16, 6, {4: 8, 8: 8, 16: 4}
MODULE = StyleGAN2(SIZE, 3, LATENT, mapping_layers=2, channel_base=64, channel_max=8)
FILTER = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64


def random_weights(seed=0):
    """A state dictionary with NVIDIA's names and shapes."""
    rng = np.random.default_rng(seed)
    state = {}

    def affine(name, outputs, inputs, scale=1.0):
        state[f"{name}.weight"] = rng.normal(size=(outputs, inputs)) / scale
        state[f"{name}.bias"] = rng.normal(size=outputs) / scale

    for layer in range(2):
        affine(f"mapping.fc{layer}", LATENT, LATENT, 0.01)
    state["mapping.w_avg"] = rng.normal(size=LATENT)
    for size, width in WIDTHS.items():
        block = f"synthesis.b{size}"
        if size == 4:
            state[f"{block}.const"] = rng.normal(size=(width, 4, 4))
        for layer, inputs in (("conv0", WIDTHS.get(size // 2, 0)), ("conv1", width), ("torgb", width)):
            if inputs == 0:
                continue
            outputs, window = (3, 1) if layer == "torgb" else (width, 3)
            affine(f"{block}.{layer}.affine", inputs, LATENT)
            state[f"{block}.{layer}.weight"] = rng.normal(size=(outputs, inputs, window, window))
            state[f"{block}.{layer}.bias"] = rng.normal(size=outputs)
            if layer != "torgb":
                state[f"{block}.{layer}.noise_const"] = rng.normal(size=(size, size))
                state[f"{block}.{layer}.noise_strength"] = rng.normal(size=())
    return {name: np.asarray(tensor, np.float32) for name, tensor in state.items()}


def reference_w(state, z):
    x = z / np.sqrt(np.mean(z**2, 1, keepdims=True) + 1e-8)
    for layer in range(2):
        weight, bias = state[f"mapping.fc{layer}.weight"], state[f"mapping.fc{layer}.bias"]
        x = leaky(x @ weight.T * 0.01 / math.sqrt(LATENT) + 0.01 * bias)
    return x


def leaky(x):
    return np.where(x > 0, x, 0.2 * x) * math.sqrt(2)


def between_zeros(x, length):
    out = np.zeros((len(x), length, length))
    out[:, ::2, ::2] = x
    return out


def modulated(state, name, x, w, up=False, demodulate=True):
    """One example: equations 1 and 3 on the kernel, then one convolution."""
    style = state[f"{name}.affine.weight"] @ w / math.sqrt(LATENT) + state[f"{name}.affine.bias"]
    kernel = state[f"{name}.weight"].astype(np.float64)
    kernel = kernel / math.sqrt(np.prod(kernel.shape[1:])) * style[None, :, None, None]
    if demodulate:
        kernel = kernel / np.sqrt(np.sum(kernel**2, (1, 2, 3), keepdims=True) + 1e-8)
    if not up:
        return np.stack([sum(correlate2d(a, k, "same") for a, k in zip(x, out)) for out in kernel])
    x = between_zeros(x, 2 * x.shape[1] - 1)
    x = np.stack([sum(convolve2d(a, k) for a, k in zip(x, out)) for out in kernel])
    return np.stack([convolve2d(a, 4 * FILTER)[2:-2, 2:-2] for a in x])


def reference_image(state, w, noise=True, clamp=math.inf):
    """One example, w of every layer `[layers, latent]`: raw image, channels last, and the maps."""
    x, image, maps, layer = state["synthesis.b4.const"], None, [], 0
    for size in WIDTHS:
        block = f"synthesis.b{size}"
        for name in ("conv0", "conv1") if size > 4 else ("conv1",):
            x = modulated(state, f"{block}.{name}", x, w[layer], up=name == "conv0")
            x = x + noise * state[f"{block}.{name}.noise_strength"] * state[f"{block}.{name}.noise_const"]
            x = np.clip(leaky(x + state[f"{block}.{name}.bias"][:, None, None]), -clamp, clamp)
            layer += 1
        painted = modulated(state, f"{block}.torgb", x, w[layer], demodulate=False)
        painted = np.clip(painted + state[f"{block}.torgb.bias"][:, None, None], -clamp, clamp)
        if image is not None:
            stuffed = between_zeros(image, size)
            painted = painted + np.stack([convolve2d(a, 4 * FILTER)[1 : size + 1, 1 : size + 1] for a in stuffed])
        image = painted
        maps.append(x.transpose(1, 2, 0))
    return image.transpose(1, 2, 0), maps


@pytest.fixture(scope="module")
def state():
    return random_weights()


@pytest.fixture(scope="module")
def variables(state):
    return published(jax.eval_shape(lambda: MODULE.init(KEY, jnp.zeros((1, LATENT)))), state, "nvidia")


@pytest.fixture(scope="module")
def w():
    return jax.random.normal(KEY, (2, 6, LATENT))


@pytest.mark.nightly
@pytest.mark.parametrize(("noise", "clamp"), [(True, None), (False, None), (True, 1.5)])
def test_images_and_features_are_those_of_the_reference(state, variables, w, noise, clamp):
    module = MODULE.clone(clamp=clamp)
    synthesize = compiled(lambda v, w: module.apply(v, w, noise=noise, method="synthesize", mutable=["features"]))
    images, sown = synthesize(variables, w)
    assert list(sown["features"]["synthesis"]) == ["block1", "block2", "block3"]
    for i in range(2):
        image, maps = reference_image(state, w[i], noise, clamp or math.inf)
        np.testing.assert_allclose(2 * images[i] - 1, image, atol=2e-4)
        for wanted, (told,) in zip(maps, sown["features"]["synthesis"].values()):
            np.testing.assert_allclose(told[i], wanted, atol=1e-4)


def test_from_z_with_truncation(state, variables):
    z = jax.random.normal(KEY, (2, LATENT))
    w, mean = reference_w(state, np.asarray(z)), state["mapping.w_avg"]
    images = compiled(MODULE.apply)(variables, z)
    np.testing.assert_allclose(2 * images[1] - 1, reference_image(state, [w[1]] * 6)[0], atol=2e-4)
    truncate = functools.partial(compiled(lambda v, psi: MODULE.apply(v, z, psi, method="to_w")), variables)
    np.testing.assert_allclose(truncate(0.5), (w + mean) / 2, atol=1e-5)
    np.testing.assert_allclose(truncate(0.0), [mean, mean], atol=1e-6)
    np.testing.assert_allclose(truncate(1.0), w, atol=1e-5)
    cut = MODULE.apply(variables, z, 0.5, 4, method="to_w")
    np.testing.assert_allclose(cut[:, :4], np.repeat((w + mean)[:, None] / 2, 4, 1), atol=1e-5)
    np.testing.assert_allclose(cut[:, 4:], np.repeat(w[:, None], 2, 1), atol=1e-5)


def test_slope_of_the_image_along_w(state, variables, w):
    """Against a central difference of the reference, whose kinks lie elsewhere for so short a way."""
    way = np.random.default_rng(1).normal(size=w[0].shape)
    paint = np.random.default_rng(2).normal(size=(SIZE, SIZE, 3))

    def score(w, variables):
        return jnp.sum(paint * MODULE.apply(variables, w[None], method="synthesize")[0])

    slope = jnp.sum(compiled(jax.grad(score))(w[0], variables) * way)
    start = np.asarray(w[0], np.float64)
    ends = [np.sum(paint * (reference_image(state, start + sign * 1e-5 * way)[0] + 1) / 2) for sign in (1, -1)]
    np.testing.assert_allclose(slope, (ends[0] - ends[1]) / 2e-5, rtol=1e-3)


@pytest.mark.nightly
def test_starting_from_a_feature(variables, w):
    def synthesize(feature=None, **where):
        run = compiled(lambda v, w, feature: MODULE.apply(v, w, feature=feature, **where, method="synthesize"))
        return run(variables, w, feature)

    whole = synthesize()
    first, second = synthesize(to_block=1), synthesize(to_block=2)
    assert first.map.shape == (2, 4, 4, 8) and second.map.shape == (2, 8, 8, 8)
    for told, wanted in (
        (synthesize(first, from_block=1), whole),
        (synthesize(second, from_block=2), whole),
        (synthesize(first, from_block=1, to_block=2), second),
    ):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), told, wanted)
    without = synthesize(second._replace(image=None), from_block=2)
    assert float(jnp.abs(without - whole).max()) > 0.05  # what was painted before is lost

    def total(feature, variables):
        return jnp.sum(MODULE.apply(variables, w, from_block=2, feature=feature, method="synthesize") ** 2)

    assert all(float(jnp.abs(leaf).max()) > 0 for leaf in compiled(jax.grad(total))(second, variables))


@pytest.mark.nightly
def test_cases_with_their_own_w_share_plain_convolutions(variables, w):
    def slope(w, variables):
        return jax.grad(lambda w: jnp.sum(MODULE.apply(variables, w[None], method="synthesize") ** 2))(w)

    slopes = jax.vmap(slope, (0, None))
    text = jax.jit(slopes).lower(w, variables).as_text()
    assert len(re.findall(r"stablehlo\.convolution", text)) > 5
    assert set(re.findall(r"(?:feature|batch)_group_count = (\d+)", text)) <= {"1"}
    np.testing.assert_allclose(
        compiled(slopes)(w, variables)[1], compiled(slope)(w[1], variables), rtol=1e-3, atol=1e-3
    )


def test_p_space_undoes_the_last_activation():
    p = jnp.linspace(-2, 2, 9)
    np.testing.assert_allclose(to_p_space(jnp.asarray(leaky(p)) / math.sqrt(2)), p, atol=1e-6)
    np.testing.assert_allclose(from_p_space(to_p_space(p)), p, atol=1e-6)


def test_published_number_of_parameters():
    shapes = jax.eval_shape(lambda: StyleGAN2().init(KEY, jnp.zeros((1, 512))))
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes["params"])) == 30_370_060


@pytest.mark.nightly
def test_a_fresh_network_keeps_unit_scale_and_training_moves_the_mean_of_w():
    module = StyleGAN2(8, 1, 128, mapping_layers=2, channel_base=512, channel_max=64)
    z = jax.random.normal(KEY, (32, 128))
    variables = initialize(module, z)
    w = compiled(lambda: module.apply(variables, z, method="to_w"))()
    kept = (1 + 0.2**2) / 2 * 2  # of the mean square, by an activation
    np.testing.assert_allclose(jnp.mean(w**2), kept**2, rtol=0.2)
    hidden = compiled(lambda: module.apply(variables, w, to_block=1, method="synthesize"))()
    inside = (10 / 12) ** 2  # of the windows on a 4 x 4 map
    np.testing.assert_allclose(jnp.mean(hidden.map**2), inside * kept, rtol=0.2)
    _, changed = compiled(lambda: module.apply(variables, z, train=True, mutable=["batch_stats"]))()
    np.testing.assert_allclose(changed["batch_stats"]["mapping"]["w_avg"], 0.005 * w.mean(0), atol=1e-5)
    assert not np.any(variables["batch_stats"]["mapping"]["w_avg"])


def test_what_is_refused(variables, w):
    def synthesize(w=w, **where):
        return jax.eval_shape(lambda: MODULE.apply(variables, w, **where, method="synthesize"))

    hidden = Hidden(jnp.zeros((2, 4, 4, 8)))
    for message, call in {
        "w: 5 layers": lambda: synthesize(w[:, :5]),
        "from_block: 2, to_block: 2": lambda: synthesize(from_block=2, to_block=2, feature=hidden),
        "to_block: 4": lambda: synthesize(to_block=4),
        "feature: needed": lambda: synthesize(from_block=1),
        "only there": lambda: synthesize(feature=hidden),
        r"block 2 reads \(8, 8, 8\)": lambda: synthesize(from_block=2, feature=hidden),
        "size: 12": lambda: SynthesisNetwork(12).init(KEY, w),
    }.items():
        with pytest.raises(ValueError, match=message):
            call()
