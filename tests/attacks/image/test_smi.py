"""SMI: a mask is the same as fewer patches, which patches are dropped, and that those rest."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia import Access, from_function, from_linen
from jaxmia.attacks.image.smi import smi
from jaxmia.models.vit import ViT
from jaxmia.oracle import Outputs, sown_features

KEY, CLASSES, SHAPE, PATCHES = jax.random.key(14), 3, (6, 4, 1), 6
RNG = np.random.default_rng(9)
NETWORK = ViT(CLASSES, patch=2, width=8, depth=2, heads=2)
X = jnp.asarray(RNG.uniform(size=(2, *SHAPE)).astype(np.float32))
VARIABLES = jax.tree.map(
    lambda leaf: jnp.asarray(RNG.normal(size=leaf.shape).astype(np.float32) / 2), jax.eval_shape(NETWORK.init, KEY, X)
)
VIEW = from_linen(NETWORK, VARIABLES, classes=CLASSES).view(Access.WEIGHTS)


def test_a_mask_is_the_same_as_taking_patches_out():
    """The network on the left column of an image, whose positions are those of patches 0, 2 and 4."""
    kept, run = jnp.asarray([True, False] * 3), jax.jit(lambda v, x: NETWORK.apply(v, x, mutable=["features"]))
    logits, sown = run(VARIABLES, {"image": X, "kept": jnp.stack([kept] * 2)})
    position = VARIABLES["params"]["position"][:, np.array([0, 1, 3, 5])]
    fewer = {"params": {**VARIABLES["params"], "position": position}}
    alone, own = run(fewer, X[:, :, :2])
    np.testing.assert_allclose(logits, alone, atol=1e-5)
    attention, left = sown_features(sown)["attention"], sown_features(own)["attention"]
    np.testing.assert_allclose(attention[:, np.asarray(kept)], left, atol=1e-6)
    assert np.all(np.asarray(attention)[:, ~np.asarray(kept)] == 0)
    whole, every = run(VARIABLES, X)[0], run(VARIABLES, {"image": X, "kept": jnp.ones((2, PATCHES), bool)})[0]
    assert np.abs(logits - whole).max() > 0.01
    np.testing.assert_allclose(every, whole, atol=1e-6)


def test_attention_is_the_softmax_of_the_class_tokens_query():
    small = ViT(CLASSES, patch=2, width=4, depth=1, heads=1)
    variables = jax.tree.map(
        lambda leaf: jnp.asarray(np.random.default_rng(1).normal(size=leaf.shape), jnp.float32),
        jax.eval_shape(small.init, KEY, X),
    )
    p = jax.tree.map(np.asarray, variables["params"])
    sown = jax.jit(lambda v: small.apply(v, X, mutable=["features"])[1])(variables)
    image = np.asarray(X[0, :, :, 0])
    patches = np.stack([image[r : r + 2, c : c + 2].ravel() for r in (0, 2, 4) for c in (0, 2)])
    tokens = patches @ p["Dense_0"]["kernel"] + p["Dense_0"]["bias"]
    tokens = np.concatenate([p["class_token"][0], tokens]) + p["position"][0]
    normal = (tokens - tokens.mean(1, keepdims=True)) / np.sqrt(tokens.var(1, keepdims=True) + 1e-6)
    normal = normal * p["LayerNorm_0"]["scale"] + p["LayerNorm_0"]["bias"]
    query, key = (
        normal @ p["_Attention_0"][n]["kernel"] + p["_Attention_0"][n]["bias"] for n in ("Dense_0", "Dense_1")
    )
    scores = query[0] @ key.T / 2
    weights = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
    np.testing.assert_allclose(sown_features(sown)["attention"][0], weights[1:], rtol=1e-3, atol=1e-6)


def ranked(attention):
    """A target that attends to patches as told, and whose logits pull at every pixel that it is shown."""

    def apply(params, batch):
        image, kept = (batch["image"], batch["kept"]) if isinstance(batch, dict) else (batch, jnp.ones((1, 6), bool))
        pixels = jnp.repeat(jnp.repeat(kept.reshape(-1, 3, 2), 2, 1), 2, 2)
        shown = jnp.sum(image[..., 0] * pixels, (1, 2))
        return Outputs(jnp.stack([shown, -shown], 1), {"attention": jnp.where(kept, attention, 0.0)})

    return from_function(apply, {}, classes=2).view(Access.WEIGHTS)


def test_the_least_attended_patches_are_dropped_and_rest():
    attention = jnp.asarray([0.1, 0.3, 0.05, 0.2, 0.25, 0.1001])
    options = {"stops": (2, 4), "shares": (0.3, 0.5), "jitter": 0, "flip": 0.0, "rate": 0.1}
    process = smi(ranked(attention), SHAPE, **options).solve(())
    label, step = jnp.asarray(0, jnp.int32), jax.jit(process.step)
    state, kept, images = process.init(KEY, label), [], []
    for t in range(6):
        state, told = step(jax.random.fold_in(KEY, t), state, label)
        kept.append(np.flatnonzero(np.asarray(state.kept)).tolist())
        images.append(np.asarray(state.u))
    # 6 patches, then int(6 * 0.7) = 4, then int(4 * 0.5) = 2.
    assert kept == [[0, 1, 2, 3, 4, 5]] * 1 + [[1, 3, 4, 5]] * 2 + [[1, 4]] * 3
    changed = np.abs(images[5] - images[3]).reshape(3, 2, 2, 2).max((1, 3)).ravel()
    assert np.all(changed[[1, 4]] > 0) and np.all(changed[[0, 2, 3, 5]] == 0)
    output = np.asarray(process.read(state)).reshape(3, 2, 2, 2).transpose(0, 2, 1, 3).reshape(6, 4)
    assert np.all(output[[0, 2, 3, 5]] == np.float32(0.45)) and np.all(output[[1, 4]] != np.float32(0.45))
    assert int(told.extra["patches"]) == 2


def test_a_rolled_and_mirrored_image_keeps_its_patches():
    """What is dropped does not move the logits, wherever the image is rolled to by whole patches."""
    attention = jnp.asarray([0.1, 0.3, 0.05, 0.2, 0.25, 0.15])
    seen = []

    class Spy(nn.Module):
        @nn.compact
        def __call__(self, batch, train=False):
            if isinstance(batch, dict):
                jax.debug.callback(lambda *a: seen.append([np.asarray(v) for v in a]), batch["image"], batch["kept"])
                image, kept = batch["image"], batch["kept"]
            else:
                image, kept = batch, jnp.ones((1, 6), bool)
            self.sow("features", "attention", jnp.where(kept, attention, 0.0))
            total = jnp.sum(image, (1, 2, 3))
            return jnp.stack([total, -total], 1)

    view = from_linen(Spy(), {}, classes=2).view(Access.WEIGHTS)
    process = smi(view, SHAPE, stops=(1,), shares=(0.5,), jitter=4, flip=0.5).solve(())
    label = jnp.asarray(0, jnp.int32)
    step = jax.jit(process.step)
    state, _ = step(KEY, process.init(KEY, label), label)
    frozen = 0.45 + 0.225 * np.asarray(state.u)
    rest = set(np.round(frozen[..., 0].reshape(3, 2, 2, 2).transpose(0, 2, 1, 3).reshape(6, 4)[[0, 2, 5]], 5).ravel())
    jax.effects_barrier()
    seen.clear()
    for t in range(12):
        step(jax.random.fold_in(KEY, t), state, label)
    jax.effects_barrier()
    exact = 0
    for image, kept in seen:
        assert kept.sum() == 3
        hidden = image[0, :, :, 0].reshape(3, 2, 2, 2).transpose(0, 2, 1, 3).reshape(6, 4)[~kept[0]]
        exact += set(np.round(hidden, 5).ravel()) == rest
    assert len(seen) == 12 and exact >= 2  # rolls by whole patches both ways; 1 of 4 is


def variation(u):
    """The released R_TV, over a whole batch `[n, h, w, c]`."""
    straight = (u[:, :, 1:], u[:, :, :-1]), (u[:, 1:], u[:, :-1])
    diagonal = (u[:, 1:, :-1], u[:, :-1, 1:]), (u[:, 1:, 1:], u[:, :-1, :-1])
    return sum(jnp.linalg.norm((a - b).ravel()) for a, b in straight + diagonal)


@pytest.mark.nightly
def test_smoothness_weighs_against_identity_as_in_a_released_batch():
    """4,000 steps, and the gradient by one image of mean CE + 1e-4 R_TV over a batch of 100, times 100."""
    process, label = smi(VIEW, SHAPE, jitter=0, flip=0.0).solve(()), jnp.asarray(1, jnp.int32)
    assert process.steps == 4000
    state = process.init(KEY, label)
    info = process.step(KEY, state, label)[1]
    smoothness = float(info.loss - info.extra["identity"])
    np.testing.assert_allclose(smoothness, 1e-3 * variation(state.u[None]), rtol=1e-3)
    batch = jnp.stack([state.u] * 100)
    released = 100 * jax.grad(lambda u: 1e-4 * variation(u))(batch)[0]
    here = jax.grad(lambda u: smoothness * variation(u[None]) / variation(state.u[None]))(state.u)
    np.testing.assert_allclose(here, released, rtol=1e-3, atol=1e-6)


def test_the_loss_falls_for_every_class():
    process = smi(VIEW, SHAPE, stops=(20, 40), shares=(0.3, 0.3), jitter=0, flip=0.0, rate=0.05).solve(())
    labels = jnp.arange(CLASSES, dtype=jnp.int32)
    step = jax.jit(jax.vmap(process.step, (None, 0, 0)))
    state, losses = jax.vmap(process.init, (None, 0))(KEY, labels), []
    for t in range(100):
        state, told = step(jax.random.fold_in(KEY, t), state, labels)
        losses.append(np.asarray(told.extra["identity"]))
    # Step 20, counted from zero, is the first that sees fewer patches, and so is step 40.
    assert np.all(losses[19] < losses[0]) and np.all(losses[39] <= losses[20]) and np.all(losses[99] <= losses[40])
    assert np.all(told.extra["patches"] == 2)


def test_refuses():
    with pytest.raises(ValueError, match="feature: 'attention'; the target shows penultimate"):
        smi(
            from_function(lambda p, x: Outputs(x.reshape(1, -1)[:, :2], {"penultimate": x}), {}, classes=2).view(
                Access.WEIGHTS
            ),
            SHAPE,
        )
    for name, wrong in {"stops": (5, 4, 6, 7), "shares": (0.1,), "jitter": -1}.items():
        with pytest.raises(ValueError, match=name):
            smi(VIEW, SHAPE, **{name: wrong})
    with pytest.raises(ValueError, match="legal is what divides 6 x 4"):
        ViT(CLASSES, patch=4).init(KEY, X)
