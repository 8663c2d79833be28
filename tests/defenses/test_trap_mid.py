"""One step of triggers, network and discriminator against numpy, what is read out, and triggers that are learned."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmia import engine, models, train
from jaxmia.core import Defense
from jaxmia.defenses.trap_mid import trap_mid
from jaxmia.oracle import Outputs, sown_features

KEY = jax.random.key(0)
ROWS, SHAPE, CLASSES = 7, (2, 3, 1), 3
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.random((ROWS, *SHAPE)), jnp.float32)
Y = RNG.integers(0, CLASSES, ROWS).astype(np.int32)


class Linear(nn.Module):
    """Affine, so that its gradients can be written down."""

    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(CLASSES, name="affine")(x.reshape(len(x), -1))


def _softmax(scores):
    powers = np.exp(scores - scores.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


@pytest.mark.parametrize("beta", [0.2, pytest.param(0.5, marks=pytest.mark.nightly)])
def test_a_step_of_linear_networks_is_the_one_written_down(beta):
    alpha, step, rate = 0.3, 0.05, 0.5
    defense = trap_mid(alpha=alpha, beta=beta, step=step)._replace(trainer=Defense().trainer)
    process = train.supervised(Linear(), optax.sgd(rate), steps=1, defense=defense)
    batch = {"x": X, "y": Y}
    before = process.init(KEY, batch)
    after = process.step(KEY, before, batch)[0]
    drop = jax.random.split(KEY)[1]
    module = defense.model(Linear())
    _, sown = module.apply({"params": before[0]}, X, train=True, rngs={"dropout": drop}, mutable=["features"])
    drawn = np.asarray(sown_features(sown)["_class"])
    assert np.ptp(np.bincount(drawn, minlength=CLASSES)) <= 1

    old = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), before[0])
    own, inner = old["inner"]["affine"], old["discriminator"]["like"]["affine"]
    verdict = old["discriminator"]["verdict"]
    direction = inner["kernel"] @ verdict["kernel"][:, 0]
    offset = inner["bias"] @ verdict["kernel"][:, 0] + verdict["bias"][0]
    triggered = (1 - alpha) * np.asarray(X) + alpha * old["triggers"][drawn]
    flat, clean = triggered.reshape(ROWS, -1), np.asarray(X).reshape(ROWS, -1)

    def excess(rows, labels):
        return (_softmax(rows @ own["kernel"] + own["bias"]) - np.eye(CLASSES)[labels]) / ROWS

    grow = clean.T @ excess(clean, Y) + beta / (1 - beta) * flat.T @ excess(flat, drawn)
    np.testing.assert_allclose(after[0]["inner"]["affine"]["kernel"], own["kernel"] - rate * grow, atol=1e-5)

    real, fake = clean @ direction + offset, flat @ direction + offset
    by_bias = (
        1 / (1 + np.exp(-fake)) - 1 / (1 + np.exp(real))
    ).mean() / 2  # of log(1 + exp(fake)) + log(1 + exp(-real))
    found = after[0]["discriminator"]["verdict"]["bias"][0]
    np.testing.assert_allclose(found, verdict["bias"][0] - rate * by_bias, atol=1e-5)

    slope = excess(flat, drawn) @ own["kernel"].T - np.outer(1 / (1 + np.exp(fake)), direction) / ROWS
    by_class = np.stack([slope[drawn == c].sum(0) for c in range(CLASSES)]).reshape(CLASSES, *SHAPE)
    moved = np.clip(old["triggers"] - step * np.sign(by_class), 0, 1)
    np.testing.assert_allclose(after[0]["triggers"], moved, atol=1e-6)


class Normalized(nn.Module):
    """With what must not be mixed up: statistics, dropout and a named feature."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dropout(0.2, deterministic=not train)(x.reshape(len(x), -1))
        x = nn.BatchNorm(use_running_average=not train, momentum=0.5)(nn.Dense(8)(x))
        self.sow("features", "penultimate", x)
        return nn.Dense(CLASSES)(nn.relu(x))


@pytest.mark.nightly
def test_beta_zero_trains_the_network_as_if_there_were_no_triggers_and_padding_counts_nowhere():
    module = trap_mid(beta=0.0).model(Normalized())
    variables = module.init(KEY, X)
    variables = jax.tree.map(lambda leaf: leaf + 0.1, variables)
    mask = np.array([1.0] * 5 + [0.0] * 2, np.float32)

    def told(params, beta, x):
        apply = {"params": params, "batch_stats": variables["batch_stats"]}
        options = {"train": True, "rngs": {"dropout": KEY}, "mutable": ["features", "batch_stats"]}
        logits, changed = module.apply(apply, x, **options)
        outputs = Outputs(logits, sown_features(changed))
        assert outputs.features["inner/penultimate"].shape == (ROWS, 8)
        loss = trap_mid(beta=beta).loss(train.mean_cross_entropy)(outputs, {"y": Y, "mask": mask})
        return loss, (train.mean_cross_entropy(outputs, {"y": Y, "mask": mask}), changed["batch_stats"])

    grad = jax.jit(jax.value_and_grad(told, has_aux=True))
    (value, (plain, statistics)), slopes = grad(variables["params"], 0.0, X)
    assert value == plain
    alone = jax.grad(lambda p: told(p, 0.0, X)[1][0])(variables["params"])
    np.testing.assert_allclose(slopes["inner"]["Dense_0"]["kernel"], alone["inner"]["Dense_0"]["kernel"], atol=1e-7)
    assert all((np.abs(slopes[name]) > 0).any() for name in ("triggers",))
    assert np.abs(slopes["discriminator"]["verdict"]["kernel"]).max() > 0
    moved = statistics["inner"]["BatchNorm_0"]["mean"] != variables["batch_stats"]["inner"]["BatchNorm_0"]["mean"]
    assert moved.any()
    weighted = grad(variables["params"], 0.5, X)[0][0]
    assert weighted > plain + 0.1


def _batches(step):
    rng = np.random.default_rng(step)
    y = rng.integers(0, CLASSES, 48).astype(np.int32)
    x = 0.2 + 0.4 * np.eye(6)[y].reshape(-1, *SHAPE) + 0.1 * rng.normal(size=(48, *SHAPE))
    return {"x": np.clip(x, 0, 1).astype(np.float32), "y": y}


def _trained(defense, steps):
    process = train.supervised(models.MLP(CLASSES, width=16), optax.adam(0.03), steps=steps, defense=defense)
    return engine.fit(process, KEY, _batches, plan=engine.Plan(progress=False))[0]


@pytest.mark.nightly
def test_the_network_learns_triggers_that_it_did_not_know_and_images_as_well():
    batch = _batches(10_000)

    def hits(beta):
        defense = trap_mid(alpha=0.15, beta=beta, step=0.02)._replace(trainer=Defense().trainer)
        variables = _trained(defense, steps=300)
        module = defense.model(models.MLP(CLASSES, width=16))
        triggers = np.asarray(variables["params"]["triggers"])
        assert triggers.min() >= 0 and triggers.max() <= 1
        wanted = (batch["y"] + 1) % CLASSES
        triggered = 0.85 * batch["x"] + 0.15 * triggers[wanted]
        return [
            (np.argmax(module.apply(variables, jnp.asarray(x)), 1) == y).mean()
            for x, y in ((triggered, wanted), (batch["x"], batch["y"]))
        ]

    trapped, right = hits(0.6)
    assert trapped > hits(0.0)[0] + 0.3 and right > 0.75, (trapped, right)


def test_what_is_read_out_serves_without_triggers_and_without_the_discriminator():
    defense = trap_mid()
    variables = _trained(defense, steps=2)
    assert set(variables["params"]) == {"inner"}
    served = defense.model(models.MLP(CLASSES, width=16)).apply(variables, X)
    bare = models.MLP(CLASSES, width=16).apply({"params": variables["params"]["inner"]}, X)
    assert np.array_equal(served, bare)


def test_starts_models_and_numbers_that_do_not_fit_are_named():
    start = models.MLP(CLASSES, width=4).init(KEY, X)
    process = train.supervised(models.MLP(CLASSES, 4), optax.sgd(0.1), steps=1, defense=trap_mid(), start=start)
    with pytest.raises(ValueError, match="the start holds Dense_0, Dense_1 and no triggers"):
        process.init(KEY, {"x": X, "y": Y})
    with pytest.raises(ValueError, match="trap_mid: the model sows no '_trap'"):
        trap_mid().loss(lambda o, b: 0.0)(Outputs(jnp.zeros((2, 3)), {}), {})
    for name, value, legal in (
        ("alpha", 1.5, "0 to 1"),
        ("step", 0.0, "finite and above 0"),
        ("beta", 1.0, "0 or more"),
    ):
        with pytest.raises(ValueError, match=f"{name}: {value}; legal is {legal}"):
            trap_mid(**{name: value})
    with pytest.raises(ValueError, match=r"bounds: \(1.0, 0.0\); legal is \(least, largest\)"):
        trap_mid(bounds=(1.0, 0.0))
