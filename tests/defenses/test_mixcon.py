"""The term against a loop over pairs, the distance that it settles at, and what it leaves out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia.composing import compose
from jaxmia.defenses.dp_sgd import dp_sgd
from jaxmia.defenses.mixcon import FLOOR, mixcon, separability
from jaxmia.defenses.nopeek import nopeek
from jaxmia.oracle import Outputs

ROWS, CLASSES = 12, 3
RNG = np.random.default_rng(0)
Z = RNG.normal(size=(ROWS, 2, 4)).astype(np.float32)
Y = RNG.integers(0, CLASSES, ROWS).astype(np.int32)
ONES = jnp.ones(ROWS)


def _loop(z, y, beta):
    terms = []
    for i in range(len(y)):
        for j in range(len(y)):
            if y[i] != y[j]:
                d = ((z[i].astype(np.float64) - z[j]) ** 2).mean()
                terms.append(d + beta / (d + FLOOR))
    return np.mean(terms)


@pytest.mark.parametrize("beta", [0.0, 1e-4, 0.01, 1.0])
def test_it_is_the_mean_over_pairs_of_different_classes(beta):
    assert float(separability(Z, jnp.asarray(Y), beta, ONES)) == pytest.approx(_loop(Z, Y, beta), rel=1e-5)


def test_two_classes_settle_at_the_root_of_beta():
    def settled(beta, start):
        slope = jax.grad(lambda z: separability(z, jnp.array([0, 1]), beta, jnp.ones(2)))
        ends = jax.jit(lambda z: jax.lax.fori_loop(0, 3000, lambda _, z: z - 0.01 * slope(z), z))(start)
        return float((ends[0] - ends[1]) @ (ends[0] - ends[1]) / 2)

    far, near = jnp.array([[2.0, 0.0], [-1.0, 1.0]]), jnp.array([[0.1, 0.0], [0.0, 0.05]])
    assert settled(0.04, far) == pytest.approx(0.2 - FLOOR, rel=0.01)
    assert settled(0.04, near) == pytest.approx(0.2 - FLOOR, rel=0.01)
    assert settled(0.0, far) < 1e-6


@pytest.mark.nightly
def test_padding_rows_and_minibatches_of_one_class_add_nothing():
    mask = np.array([1.0] * 8 + [0.0] * 4, np.float32)
    garbage = np.where(mask[:, None, None] > 0, Z, 99)
    assert float(separability(garbage, jnp.asarray(Y), 0.01, mask)) == pytest.approx(
        _loop(Z[:8], Y[:8], 0.01), rel=1e-5
    )
    gradient = jax.jit(jax.grad(lambda z: separability(z, jnp.asarray(Y), 0.01, mask)))(jnp.asarray(garbage))
    assert (gradient[8:] == 0).all() and np.abs(gradient[:8]).max() > 0
    assert float(separability(Z, jnp.zeros(ROWS), 0.01, ONES)) == 0
    assert np.isfinite(jax.grad(lambda z: separability(z, jnp.asarray(Y), 0.01, ONES))(jnp.ones((ROWS, 3)))).all()


def test_layers_add_up_and_weights_multiply_beside_another_defense():
    outputs = Outputs(jnp.zeros((ROWS, CLASSES)), {"inner/block1": Z, "inner/penultimate": Z[:, 0]})
    batch = {"x": Z, "y": Y}

    def total(*parts):
        return float(compose({str(i): part for i, part in enumerate(parts)}).loss(lambda o, b: 1.0)(outputs, batch))

    both = _loop(Z, Y, 0.01) + _loop(Z[:, 0], Y, 0.01)
    assert total(mixcon()) == pytest.approx(1 + 0.1 * both, rel=1e-5)
    assert total(mixcon(weight=2.0, layers=("block1",))) == pytest.approx(1 + 2 * _loop(Z, Y, 0.01), rel=1e-5)
    assert total(mixcon(weight=0.0)) == 1
    other = nopeek()
    assert total(mixcon(), other) == pytest.approx(total(mixcon()) + total(other) - 1, abs=1e-5)
    assert total(other, mixcon()) == pytest.approx(total(mixcon(), other), abs=1e-5)


def test_partners_labels_and_numbers_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match="dp_sgd takes gradients example by example, and mixcon ties"):
        compose({"dp_sgd": dp_sgd(32.0), "mixcon": mixcon()})
    outputs = Outputs(jnp.zeros((2, 3, CLASSES)), {"block1": Z[:2]})
    with pytest.raises(ValueError, match=r"y has shape \(2, 3\); legal is one label for each example"):
        mixcon().loss(lambda o, b: 0.0)(outputs, {"x": Z[:2], "y": np.zeros((2, 3), np.int32)})
    for name in ("weight", "beta"):
        with pytest.raises(ValueError, match=f"{name}: -1.0; legal is finite and 0 or more"):
            mixcon(**{name: -1.0})
