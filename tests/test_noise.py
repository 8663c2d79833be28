"""The target draws a defense's noise: neither equal keys nor fresh ones help the adversary."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia import Access, Defense, Outputs, Plan, Process, Target, from_callable, from_function, info, solve
from jaxmia.noise import noise_key

KEY, SHAPE, CLASSES = jax.random.key(0), (4, 4, 1), 3
IMAGES = np.random.default_rng(0).random((12, *SHAPE)).astype(np.float32)
NOISE = Defense(
    answer=lambda key, served: jax.random.uniform(key, served.shape)
)  # noise and nothing else, exact in bits
ONE = Plan(devices=tuple(jax.devices()[:1]), progress=False)


def logits(params, batch):
    return batch.reshape(len(batch), -1) @ params


def device(**options):
    weights = np.linspace(-1, 1, 16 * CLASSES, dtype=np.float32).reshape(16, CLASSES)
    return from_function(logits, weights, classes=CLASSES, defense=NOISE, **options)


def host(**options):
    def predict(x):
        return np.full((len(x), CLASSES), 1 / CLASSES)

    return from_callable(predict, classes=CLASSES, defense=NOISE, **options)


def served(target, x, key=KEY, access=Access.SCORES):
    return np.asarray(jax.vmap(target.view(access).answer, (None, 0))(key, x))


@pytest.mark.parametrize("make", [device, host])
@pytest.mark.parametrize("access", [Access.SCORES, Access.LABELS])
def test_asking_again_tells_nothing_new(make, access):
    first = served(make(), IMAGES, access=access)
    np.testing.assert_array_equal(served(make(), IMAGES, jax.random.key(7), access), first)
    assert len(np.unique(first, axis=0)) == (len(IMAGES) if access == Access.SCORES else CLASSES)
    other = served(make(secret=1), IMAGES, access=access)
    assert (other != first).any()


@pytest.mark.parametrize("make", [device, host])
def test_fresh_noise_is_the_adversarys_to_average(make):
    target = make(noise="fresh")
    first = served(target, IMAGES)
    np.testing.assert_array_equal(served(target, IMAGES), first)
    assert (served(target, IMAGES, jax.random.key(7)) != first).all()
    assert (first != served(make(), IMAGES)).all()


@pytest.mark.nightly
def test_the_same_query_in_any_batch_order_chunk_and_device_count_has_the_same_bits():
    answer = device().view(Access.SCORES).answer
    whole = served(device(), IMAGES)
    order = np.random.default_rng(1).permutation(len(IMAGES))
    np.testing.assert_array_equal(served(device(), IMAGES[order]), whole[order])
    np.testing.assert_array_equal([answer(KEY, image) for image in IMAGES], whole)
    np.testing.assert_array_equal(jax.lax.map(lambda image: answer(KEY, image), IMAGES), whole)
    np.testing.assert_array_equal(jax.jit(jax.vmap(answer, (None, 0)))(KEY, IMAGES[3:8]), whole[3:8])
    ask = Process(
        lambda key, x: answer(key, x), lambda key, state, x: (answer(key, x), info(0.0)), lambda state: state, 1
    )
    for plan in (ONE._replace(chunk=5), ONE._replace(devices=tuple(jax.devices()[:4]), chunk=1, mapper="pmap")):
        np.testing.assert_array_equal(solve(ask, KEY, IMAGES, plan=plan).output, whole)


def test_one_gray_level_apart_is_another_draw():
    n, rng = 100_000, np.random.default_rng(2)
    images = rng.integers(0, 255, (n, *SHAPE))
    changed = images.copy()
    changed[np.arange(n), rng.integers(0, 4, n), rng.integers(0, 4, n), 0] += 1
    draw = jax.jit(jax.vmap(lambda x: jax.random.normal(noise_key(0, x))))
    one, two = (np.asarray(draw((x / 255).astype(np.float32))) for x in (images, changed))
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.01
    assert abs(one.std() - 1) < 0.01 and abs(one.mean()) < 0.01


def test_within_a_gray_level_it_is_the_same_query_and_without_a_grid_every_bit_counts():
    x = (np.arange(16, dtype=np.float32) / 255).reshape(SHAPE)
    near = x + np.float32(0.4 / 255)
    keys = [jax.random.key_data(noise_key(0, value, grid)).tolist() for grid in (255, None) for value in (x, near)]
    assert keys[0] == keys[1] and keys[2] != keys[3]
    beyond = [jax.random.key_data(noise_key(0, x + step)).tolist() for step in (1.0, 1.0 + 1e-5, 1.01)]
    assert beyond[0] == beyond[1] != beyond[2]  # outside of [0, 1] as well


def test_minus_zero_is_zero():
    for grid in (255, None):
        keys = jax.jit(jax.vmap(lambda x, grid=grid: noise_key(0, x, grid)))(jnp.array([[0.0], [-0.0]]))
        np.testing.assert_array_equal(*jax.random.key_data(keys))


@pytest.mark.parametrize("grid", [255, None])
def test_queries_of_integers_booleans_and_several_parts(grid):
    def key(query):
        return tuple(np.asarray(jax.random.key_data(noise_key(3, query, grid))).tolist())

    queries = [
        {"tokens": jnp.array([1, 2]), "kept": jnp.array([True, False])},
        {"tokens": jnp.array([2, 1]), "kept": jnp.array([True, False])},
        {"tokens": jnp.array([1, 2]), "kept": jnp.array([False, True])},
        {"tokens": jnp.array([1, -2]), "kept": jnp.array([True, False])},
    ]
    assert len({key(query) for query in queries}) == 4
    assert key(queries[0]) == key(jax.tree.map(np.asarray, queries[0]))
    assert key(jnp.bfloat16(0.5)) == key(jnp.float32(0.5))


def test_no_view_has_the_secret():
    secret = 123456789
    for access in Access:
        view = device(secret=secret).view(access)
        assert "secret" not in dir(view) and str(secret) not in repr(view)
    view = host(secret=secret).view(Access.SCORES)
    assert "secret" not in dir(view) and str(secret) not in repr(view)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"secret": -1}, "secret: -1; legal is a whole number from 0 to"),
        ({"secret": 2**32}, "secret: 4294967296; legal"),
        ({"noise": "often"}, "noise: 'often'; legal is memoized or fresh"),
        ({"grid": 0}, "grid: 0; legal is 1 or more, or None"),
    ],
)
def test_options_out_of_range(wrong, message):
    for make in (device, host):
        with pytest.raises(ValueError, match=message):
            make(**wrong)


def test_what_a_client_sends_is_defended_by_send_alone():
    def apply(params, x):
        return Outputs(x[:CLASSES] * params, {"cut": x})

    def client(defense, access, **options):
        whole = Target(apply, jnp.ones(()), classes=CLASSES, defense=defense, **options)
        return np.asarray(whole.until("cut").view(access).answer(KEY, x))

    x = jnp.arange(5.0)
    for access in (Access.SCORES, Access.WEIGHTS):
        np.testing.assert_array_equal(client(NOISE, access), x)
    doubling = Defense(send=lambda key, feature: 2 * feature)
    np.testing.assert_array_equal(client(doubling, Access.SCORES), 2 * x)
    np.testing.assert_array_equal(client(doubling, Access.WEIGHTS), x)
    noisy = Defense(send=lambda key, feature: jax.random.normal(key, feature.shape))
    assert (client(noisy, Access.SCORES) != client(noisy, Access.SCORES, secret=1)).all()
