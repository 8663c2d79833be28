"""DeepInversion: its terms against numpy, and that batch statistics and a student do what they are for."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia import Access, Plan, from_linen, solve
from jaxmia.attacks.image.deep_inversion import deep_inversion, jensen_shannon, moment_distance, total_variation

KEY, SHAPE, CLASSES = jax.random.key(5), (4, 4, 1), 3
ONE = Plan(devices=tuple(jax.devices()[:1]), progress=False)
LABELS = np.array([[0, 1, 2, 0, 1, 2]], np.int32)
RNG = np.random.default_rng(0)
BATCH = RNG.uniform(size=(5, *SHAPE)).astype(np.float32)


class Inner(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.BatchNorm(use_running_average=True, name="a")(nn.Dense(4, use_bias=False)(x))


class Network(nn.Module):
    """Two BatchNorm layers, of which the first one called is the last one in the alphabet."""

    @nn.compact
    def __call__(self, x, train: bool = False):
        x = nn.BatchNorm(use_running_average=True, name="z")(nn.Conv(2, (1, 1), use_bias=False)(x))
        return nn.Dense(CLASSES)(Inner()(nn.relu(x).reshape(len(x), -1)))


def variables():
    """Random weights, and the statistics of pale images, which batches can have."""
    drawn, pale = Network().init(KEY, jnp.asarray(BATCH)), jnp.asarray(RNG.uniform(0.6, 0.9, (64, *SHAPE)), jnp.float32)
    for path in (("z",), ("Inner_0", "a")):
        view = from_linen(Network(), drawn, classes=CLASSES).view(Access.WEIGHTS)
        features = jax.vmap(lambda x, view=view: view.apply(view.params, x).features)(pale)
        seen = next(value for name, value in features.items() if name.endswith("/".join(path)))
        rows, known = seen.reshape(-1, seen.shape[-1]), drawn["batch_stats"]
        for part in path:
            known = known[part]
        known |= {"mean": rows.mean(0), "var": rows.var(0)}
    return drawn


VARIABLES = variables()
VIEW = from_linen(Network(), VARIABLES, classes=CLASSES).view(Access.WEIGHTS)


def norm(x):
    return np.sqrt((np.asarray(x) ** 2).sum())


@pytest.mark.nightly
@pytest.mark.parametrize("first", [1.0, 10.0])
def test_moment_distance_is_that_of_a_forward_pass_by_hand(first):
    params, stats = jax.tree.map(np.asarray, (VARIABLES["params"], VARIABLES["batch_stats"]))
    z = BATCH @ params["Conv_0"]["kernel"][0, 0]  # [5, 4, 4, 2]
    known = stats["z"]
    expected = first * (norm(z.mean((0, 1, 2)) - known["mean"]) + norm(z.var((0, 1, 2)) - known["var"]))
    out = (z - known["mean"]) / np.sqrt(known["var"] + 1e-5) * params["z"]["scale"] + params["z"]["bias"]
    a = np.maximum(out, 0).reshape(5, -1) @ params["Inner_0"]["Dense_0"]["kernel"]
    known = stats["Inner_0"]["a"]
    expected += norm(a.mean(0) - known["mean"]) + norm(a.var(0) - known["var"])

    outputs = jax.vmap(lambda image: VIEW.apply(VIEW.params, image))(BATCH)
    assert sorted(outputs.features) == ["batch_norm/0000/z", "batch_norm/0001/Inner_0/a"]
    np.testing.assert_allclose(
        moment_distance(outputs.features, VIEW.params["batch_stats"], first), expected, rtol=1e-4
    )


def test_total_variation_and_divergence():
    x = BATCH[..., 0]
    pairs = [(x[:, :, 1:], x[:, :, :-1]), (x[:, 1:], x[:, :-1]), (x[:, 1:, 1:], x[:, :-1, :-1])]
    pairs.append((x[:, 1:, :-1], x[:, :-1, 1:]))
    np.testing.assert_allclose(total_variation(jnp.asarray(BATCH)), sum(norm(a - b) for a, b in pairs), rtol=1e-5)
    p, q = RNG.dirichlet(np.ones(3), 2)
    m = (p + q) / 2
    expected = (p @ np.log(p / m) + q @ np.log(q / m)) / 2
    np.testing.assert_allclose(jensen_shannon(jnp.asarray(p), jnp.asarray(q)), expected, rtol=1e-4)


def found(**options):
    attack = deep_inversion(VIEW, SHAPE, **{"steps": 150, "warmup": 5, "jitter": 0, "flip": 0.0, **options})
    return solve(attack.solve(()), KEY, LABELS, plan=ONE)


@pytest.mark.nightly
def test_images_take_on_the_remembered_statistics_and_stay_in_the_box():
    """With a_f = 1 the statistics come nearer than without, and the labels are met all the same."""
    with_term, without = found(moments=1.0), found(moments=0.0)
    assert with_term.info.extra["moments"] <= 0.5 * without.info.extra["moments"]
    logits = jax.vmap(lambda image: VIEW.answer(KEY, image))(with_term.output[0])
    assert np.mean(np.argmax(logits, 1) == LABELS[0]) == 1.0
    assert with_term.output.min() >= 0.0 and with_term.output.max() <= 1.0


@pytest.mark.parametrize("clip", [False, True])
def test_pixels_are_cut_off_at_every_step_or_in_the_end(clip):
    """The released setting of 20,000 steps, the default, cuts nothing off before the end."""
    options = {"steps": 20, "warmup": 0, "jitter": 0, "flip": 0.0, **({"clip": True} if clip else {})}
    process, labels = deep_inversion(VIEW, SHAPE, **options).solve(()), jnp.asarray(LABELS[0])
    state, step = process.init(KEY, labels), jax.jit(process.step)
    for t in range(20):
        pixels = 0.45 + 0.225 * np.asarray(state.u)
        assert (pixels.min() >= -1e-6 and pixels.max() <= 1 + 1e-6) == clip
        state, _ = step(jax.random.fold_in(KEY, t), state, labels)
    output = np.asarray(process.read(state))
    np.testing.assert_allclose(output, np.clip(0.45 + 0.225 * np.asarray(state.u), 0, 1), atol=1e-6)


@pytest.mark.nightly
def test_competition_drives_the_student_away():
    direction = jnp.asarray(RNG.normal(size=(16, CLASSES)), jnp.float32)

    def student(image):
        return (image.reshape(-1) - 0.5) @ direction

    def divergence(images):
        p = jax.nn.softmax(jax.vmap(lambda image: VIEW.answer(KEY, image))(images) / 3.0)
        return np.mean(jax.vmap(jensen_shannon)(p, jax.nn.softmax(jax.vmap(student)(images) / 3.0)))

    alone, against = found().output[0], found(student=student, competition=10.0).output[0]
    assert divergence(against) >= divergence(alone) + 0.05


@pytest.mark.nightly
def test_rolled_and_mirrored_batches_are_judged_alike():
    """Jitter and flips change what the target sees, not the images: a case with them ends elsewhere but finite."""
    moved = found(jitter=1, flip=0.5, steps=30, warmup=0)
    still = found(steps=30, warmup=0)
    assert np.all(np.isfinite(moved.output)) and np.abs(moved.output - still.output).max() > 0.01


@pytest.mark.parametrize("wrong", [{"jitter": -1}, {"warmup": 200, "steps": 100}])
def test_refuses(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        deep_inversion(VIEW, SHAPE, **wrong)
