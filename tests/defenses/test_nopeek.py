"""Distance correlation against its definition and against CKA, and what a training with it does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia.composing import compose
from jaxmia.defenses.dp_sgd import dp_sgd
from jaxmia.defenses.nopeek import distance_correlation, nopeek
from jaxmia.models.features import named_features
from jaxmia.oracle import Outputs

ROWS = 20
RNG = np.random.default_rng(0)
X = RNG.random((ROWS, 4, 3, 1)).astype(np.float32)
Z = (np.tanh(X.reshape(ROWS, -1) @ RNG.normal(size=(12, 6))) + 0.3 * RNG.normal(size=(ROWS, 6)) + 5).astype(np.float32)


def _definition(x, z, squared=False):
    """Loops over pairs, in float64."""

    def centered(sample):
        flat = np.asarray(sample, np.float64).reshape(len(sample), -1)
        distances = np.array([[((p - q) ** 2).sum() for q in flat] for p in flat])
        distances = distances if squared else np.sqrt(distances)
        return distances - distances.mean(0) - distances.mean(1)[:, None] + distances.mean()

    a, b = centered(x), centered(z)
    covariance, of_x, of_z = (np.sqrt((p * q).mean()) for p, q in ((a, b), (a, a), (b, b)))
    return covariance / np.sqrt(of_x * of_z)


def _root_of_linear_cka(x, z):
    x, z = (np.asarray(s, np.float64).reshape(len(s), -1) for s in (x, z))
    x, z = x - x.mean(0), z - z.mean(0)
    between = np.linalg.norm(x.T @ z) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(z.T @ z))
    return np.sqrt(between)


@pytest.mark.parametrize("squared", [False, True])
def test_it_is_the_definition(squared):
    got = distance_correlation(X, Z, squared=squared)
    assert float(got) == pytest.approx(_definition(X, Z, squared), abs=1e-5)


def test_squared_distances_give_the_root_of_linear_cka_and_miss_what_is_not_linear():
    assert float(distance_correlation(X, Z, squared=True)) == pytest.approx(_root_of_linear_cka(X, Z), abs=1e-5)
    line = np.linspace(-1, 1, 21)[:, None].astype(np.float32)
    assert float(distance_correlation(line, line**2, squared=True)) < 1e-3
    assert float(distance_correlation(line, line**2)) > 0.4


def test_it_is_between_zero_and_one_and_blind_to_shift_scale_and_rotation():
    turn = np.linalg.qr(RNG.normal(size=(6, 6)))[0].astype(np.float32)
    value = float(distance_correlation(X, Z))
    assert 0 < value < 1
    assert float(distance_correlation(X, 7 * Z @ turn + 3)) == pytest.approx(value, abs=1e-4)
    assert float(distance_correlation(Z, Z)) == pytest.approx(1, abs=1e-5)
    assert float(distance_correlation(X, np.ones((ROWS, 3), np.float32))) == 0


def test_padding_rows_count_nowhere_and_gradients_are_finite_where_rows_coincide():
    x, z = (np.concatenate([s, 100 * np.ones_like(s[:4])]) for s in (X, Z))
    mask = np.array([1.0] * ROWS + [0.0] * 4, np.float32)
    assert float(distance_correlation(x, z, mask=mask)) == pytest.approx(float(distance_correlation(X, Z)), abs=1e-5)
    gradient = np.asarray(jax.jit(jax.grad(lambda z: distance_correlation(x, z, mask=mask)))(jnp.asarray(z)))
    assert (gradient[ROWS:] == 0).all() and np.abs(gradient[:ROWS]).max() > 0
    assert float(distance_correlation(x, z, mask=0 * mask)) == 0
    for equal in (jnp.ones((ROWS, 3)), jnp.asarray(np.repeat(Z[:10], 2, 0))):
        assert np.isfinite(jax.jit(jax.grad(lambda z: distance_correlation(X, z)))(equal)).all()


def test_gradient_is_the_slope_of_the_definition():
    gradient = np.asarray(jax.jit(jax.grad(lambda z: distance_correlation(X, z)))(jnp.asarray(Z)), np.float64)
    direction = gradient / np.linalg.norm(gradient)
    slope = (_definition(X, Z + 1e-4 * direction) - _definition(X, Z - 1e-4 * direction)) / 2e-4
    assert slope == pytest.approx(np.linalg.norm(gradient), rel=1e-3)


def test_layers_add_up_and_are_found_behind_the_names_of_wrappers():
    features = {"inner/block1": Z[:, :2], "inner/penultimate": Z, "inner/Bottleneck_0/_mean": Z}
    outputs = Outputs(jnp.zeros((ROWS, 2)), features)

    def term(**options):
        return float(nopeek(**options).loss(lambda o, b: 3.0)(outputs, {"x": X})) - 3

    low, high = _definition(X, Z[:, :2]), _definition(X, Z)
    assert term() == pytest.approx(low + high, abs=1e-5)
    assert term(layers=("penultimate",), alpha=0.1) == pytest.approx(0.1 * high, abs=1e-5)
    assert term(layers=("inner/block1",)) == pytest.approx(low, abs=1e-5)
    assert term(alpha=0.0) == 0 and nopeek().couples
    squared = term(layers=("block1",), squared=True)
    assert squared == pytest.approx(_definition(X, Z[:, :2], squared=True), abs=1e-5)


def test_partners_features_and_weights_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match="dp_sgd takes gradients example by example, and nopeek ties"):
        compose({"dp_sgd": dp_sgd(32.0), "nopeek": nopeek()})
    with pytest.raises(ValueError, match=r"layers: \['block9'\]; legal is one or more .* sows: block1$"):
        named_features({"block1": Z, "head/_mean": Z}, ("block1", "block9"))
    with pytest.raises(ValueError, match="layers: none; .* sows: no feature"):
        named_features({}, None)
    for alpha in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"alpha: {alpha}; legal is finite and 0 or more"):
            nopeek(alpha=alpha)
