"""The pretrained face embedding: framing and padding on made-up weights, and its published behavior on ORL."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia.models.face_embedding import embed


def _weights():
    """Small random weights under the published names and shapes."""
    shapes = {"fc": (256, 128)}
    layers = {"conv32_down": (7, 3, 32)}
    previous = 32
    for width, blocks in ((32, 3), (64, 4), (128, 3), (256, 4)):
        suffixes = [str(i) for i in range(1, blocks + 1)] if width == 32 else ["down", *map(str, range(1, blocks))]
        if width == 256:
            suffixes[-1] = "down_out"
        for suffix in suffixes:
            layers[f"conv{width}_{suffix}/conv1"] = (3, previous, width)
            layers[f"conv{width}_{suffix}/conv2"] = (3, width, width)
            previous = width
    for name, (window, inputs, outputs) in layers.items():
        shapes[f"{name}/conv/filters"] = (window, window, inputs, outputs)
        for part in ("conv/bias", "scale/weights", "scale/biases"):
            shapes[f"{name}/{part}"] = (outputs,)
    rng = np.random.default_rng(0)
    return {
        name: rng.normal(0, (2 / np.prod(shape[:-1])) ** 0.5 if len(shape) > 1 else 1, shape).astype(np.float32)
        for name, shape in shapes.items()
    }


WEIGHTS = _weights()
EMBED = jax.jit(lambda images: embed(WEIGHTS, images))


@pytest.mark.nightly
def test_grey_is_rgb_with_equal_channels():
    grey = jax.random.uniform(jax.random.key(0), (2, 40, 40, 1))
    vectors = EMBED(grey)
    assert vectors.shape == (2, 128)
    assert bool(jnp.all(jnp.isfinite(vectors)))
    np.testing.assert_allclose(EMBED(jnp.repeat(grey, 3, axis=-1)), vectors, rtol=1e-4, atol=1e-3)


@pytest.mark.nightly
def test_tall_image_is_read_from_below_and_wide_one_in_the_middle():
    tall = jax.random.uniform(jax.random.key(0), (1, 56, 46, 1))
    np.testing.assert_allclose(EMBED(tall), EMBED(tall[:, 10:]), rtol=1e-5, atol=1e-4)
    wide = tall.swapaxes(1, 2)
    np.testing.assert_allclose(EMBED(wide), EMBED(wide[:, :, 5:51]), rtol=1e-5, atol=1e-4)


def test_other_channel_counts_are_refused():
    with pytest.raises(ValueError, match="2 channels"):
        embed(WEIGHTS, jnp.zeros((1, 8, 8, 2)))


def _identity(vectors, labels):
    """1-nearest-neighbor accuracy and verification AUC by the rank sum, over all pairs of photos."""
    distances = np.linalg.norm(vectors[:, None] - vectors[None], axis=-1)
    nearest = np.argmin(distances + np.where(np.eye(len(labels)), np.inf, 0), axis=1)
    rows, columns = np.triu_indices(len(labels), 1)
    same = labels[rows] == labels[columns]
    ranks = np.argsort(np.argsort(-distances[rows, columns])) + 1
    positives = same.sum()
    auc = (ranks[same].sum() - positives * (positives + 1) / 2) / (positives * (~same).sum())
    return np.mean(labels[nearest] == labels), auc


@pytest.mark.nightly
@pytest.mark.needs_data
@pytest.mark.parametrize(
    ("size", "rows", "accuracy", "area"),
    [
        ((112, 92), slice(10, 102), 0.9675, 0.928),  # the published check: the middle square
        ((112, 92), slice(None), 0.9875, 0.992),
        ((56, 46), slice(None), 0.9875, 0.990),
    ],
    ids=["middle square", "full frame", "half size"],
)
def test_tells_the_orl_people_apart(size, rows, accuracy, area):
    from jaxmia.data import faces, orl

    weights = faces.load_weights()
    images, labels, *_ = orl.load(*size)
    apply = jax.jit(lambda batch: embed(weights, batch))
    batches = np.split(images[:, rows].astype(np.float32) / 255, 8)
    vectors = np.concatenate([apply(jnp.asarray(batch)) for batch in batches])
    nearest, auc = _identity(vectors, labels)
    assert abs(nearest - accuracy) <= 0.005
    assert abs(auc - area) <= 0.005
