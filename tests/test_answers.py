"""What a model answers is compared with what was declared of it, whatever the adapter and the access."""

import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxmia import Access, Outputs, Scenario, Target, from_callable, from_function, from_linen, from_nnx, run
from jaxmia.attacks.image.mi_face import mi_face
from jaxmia.plan import Plan

KEY, SHAPE, WIDTH = jax.random.key(0), (8, 6, 3), 4
RNG = np.random.default_rng(0)
WEIGHTS = RNG.normal(size=(144, WIDTH)).astype(np.float32)
IMAGES = RNG.random((5, *SHAPE)).astype(np.float32)
QUIET = Plan(devices=tuple(jax.devices()[:1]), progress=False)


def logits(params, batch):
    return batch.reshape(len(batch), -1) @ params


def probabilities(params, batch):
    return jax.nn.softmax(logits(params, batch))


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(WIDTH)(x.reshape(len(x), -1))


class Nnx(nnx.Module):
    def __init__(self):
        self.dense = nnx.Linear(144, WIDTH, rngs=nnx.Rngs(0))

    def __call__(self, x):
        return self.dense(x.reshape(len(x), -1))


def host(x):
    return np.asarray(probabilities(WEIGHTS, x))


MAKE = {
    "function": lambda **options: from_function(logits, WEIGHTS, **options),
    "linen": lambda **options: from_linen(Linen(), Linen().init(KEY, IMAGES), **options),
    "nnx": lambda **options: from_nnx(Nnx(), **options),
    "target": lambda **options: Target(lambda p, x: Outputs(x.reshape(-1) @ p, {}), WEIGHTS, **options),
}


def attacked(target, classes=WIDTH, **options):
    attack = mi_face(target.view(Access.WEIGHTS), shape=SHAPE, start=0.5, alpha=5, **options)
    return run(attack, KEY, Scenario(target, np.arange(classes)), plan=QUIET)


@pytest.mark.parametrize("make", MAKE)
@pytest.mark.parametrize("access", [Access.LABELS, Access.SCORES, Access.WEIGHTS])
@pytest.mark.parametrize("classes", [8, 3])
def test_another_width_is_refused_before_anything_runs(make, access, classes):
    target = MAKE[make](classes=classes)
    with pytest.raises(ValueError, match=f"classes: {classes}, but the model answers 4 numbers .* classes=4"):
        jax.eval_shape(target.view(access).answer, KEY, IMAGES[0])
    with pytest.raises(ValueError, match=f"classes: {classes}, but"):
        MAKE[make](classes=classes, example=IMAGES)


def test_another_width_is_refused_by_a_run():
    with pytest.raises(ValueError, match="classes: 8, but the model answers 4 numbers"):
        attacked(from_function(logits, WEIGHTS, classes=8), classes=8)


@pytest.mark.parametrize("classes", [1, 0, True, 2.0])
def test_classes_that_cannot_be(classes):
    for make in (*MAKE.values(), lambda classes: from_callable(host, classes=classes)):
        with pytest.raises((ValueError, TypeError), match="classes"):
            make(classes=classes)


def test_right_declarations_are_accepted():
    for make in MAKE.values():
        target = make(classes=WIDTH, example=IMAGES)
        np.testing.assert_allclose(
            jax.vmap(target.view(Access.SCORES).answer, (None, 0))(KEY, IMAGES).sum(1), 1, rtol=1e-5
        )


def test_probabilities_in_place_of_logits_are_refused():
    target = from_function(probabilities, WEIGHTS, classes=WIDTH)
    with pytest.raises(ValueError, match="as probabilities do, where logits were declared; take the softmax off"):
        attacked(target)
    for access in (Access.SCORES, Access.WEIGHTS):
        target = from_function(probabilities, WEIGHTS, classes=WIDTH)
        with pytest.raises(ValueError, match="answers='probabilities'"):
            jax.jit(jax.vmap(target.view(access).answer, (None, 0)))(KEY, IMAGES)
    with pytest.raises(ValueError, match="answers='anything'"):
        from_function(probabilities, WEIGHTS, classes=WIDTH, example=IMAGES)


@pytest.mark.nightly
def test_declared_probabilities_are_as_good_as_logits():
    declared = from_function(probabilities, WEIGHTS, classes=WIDTH, answers="probabilities", example=IMAGES)
    plain = from_function(logits, WEIGHTS, classes=WIDTH)
    for access in (Access.SCORES, Access.LABELS):
        found, wanted = (jax.vmap(t.view(access).answer, (None, 0))(KEY, IMAGES) for t in (declared, plain))
        np.testing.assert_allclose(found, wanted, rtol=1e-4)
    found, wanted = (attacked(target, rate=0.1).info.extra["confidence"] for target in (declared, plain))
    np.testing.assert_allclose(found, wanted, rtol=1e-3)
    assert found.max() > 0.9  # of a softmax taken twice at most 0.475
    with pytest.raises(ValueError, match="where probabilities were declared"):
        from_function(logits, WEIGHTS, classes=WIDTH, answers="probabilities", example=IMAGES)


def test_a_clients_part_has_no_logits_to_look_at():
    part = from_function(lambda p, x: Outputs(x, {"cut": x}), WEIGHTS, classes=WIDTH).until("cut")
    np.testing.assert_array_equal(part.view(Access.SCORES).answer(KEY, IMAGES[0]), IMAGES[0])
    with pytest.raises(ValueError, match="feature: 'block'; the target shows cut"):
        from_function(lambda p, x: Outputs(x, {"cut": x}), WEIGHTS, classes=WIDTH).until("block").apply(None, IMAGES[0])


def test_anything_is_taken_as_it_is():
    target = from_function(probabilities, WEIGHTS, classes=WIDTH, answers="anything", example=IMAGES)
    np.testing.assert_allclose(
        target.view(Access.WEIGHTS).answer(KEY, IMAGES[0]), probabilities(WEIGHTS, IMAGES[:1])[0], rtol=1e-5
    )
    with pytest.raises(ValueError, match="answers: 'scores'; legal is one of logits, probabilities, anything"):
        from_function(logits, WEIGHTS, classes=WIDTH, answers="scores")


def test_nothing_is_asked_of_a_model_that_calls_the_host_but_what_the_attack_asks():
    asked = []

    def counted(x):
        asked.append(len(np.asarray(x).reshape(-1, 144)))
        return np.zeros(np.shape(x)[:-3], np.float32)

    def apply(params, batch):
        shape = jax.ShapeDtypeStruct((len(batch),), jnp.float32)
        return logits(params, batch) + jax.pure_callback(counted, shape, batch, vmap_method="expand_dims")[:, None]

    jax.block_until_ready(from_function(apply, WEIGHTS, classes=WIDTH).view(Access.SCORES).answer(KEY, IMAGES[0]))
    assert asked == [1]


@pytest.mark.parametrize(
    "answer",
    [
        lambda z: {"logits": z, "hidden": z[:, :2]},
        lambda z: (z, {"hidden": z[:, :2]}),
        lambda z: Outputs(z, {"hidden": z[:, :2]}),
    ],
)
@pytest.mark.parametrize("kind", ["function", "linen", "nnx"])
def test_outputs_in_dicts_and_tuples(answer, kind):
    class LinenMore(nn.Module):
        @nn.compact
        def __call__(self, x):
            return answer(Linen()(x))

    class NnxMore(Nnx):
        def __call__(self, x):
            return answer(super().__call__(x))

    if kind == "linen":
        target = from_linen(LinenMore(), LinenMore().init(KEY, IMAGES), classes=WIDTH)
    elif kind == "nnx":
        target = from_nnx(NnxMore(), classes=WIDTH)
    else:
        target = from_function(lambda p, x: answer(logits(p, x)), WEIGHTS, classes=WIDTH)
    outputs = target.apply(target.params, IMAGES[0])
    assert outputs.logits.shape == (WIDTH,)
    np.testing.assert_array_equal(outputs.features["hidden"], outputs.logits[:2])


def test_the_one_part_of_a_tuple_that_can_be_logits_is():
    target = from_function(lambda p, x: (logits(p, x)[:, :2], logits(p, x)), WEIGHTS, classes=WIDTH)
    outputs = target.apply(target.params, IMAGES[0])
    assert outputs.logits.shape == (WIDTH,) and outputs.features["output/0"].shape == (2,)


@pytest.mark.parametrize(
    "answer, message",
    [
        (lambda z: (z, z), r"a tuple of \(1, 4\), \(1, 4\), where 2 parts have 4 columns"),
        (lambda z: (z[:, :2], "name"), r"a tuple of \(1, 2\), str, where 0 parts have 4 columns"),
        (lambda z: {"scores": z}, "a dict of scores; legal is logits, or a dict with 'logits'"),
        (lambda z: z[0], r"shape \(4,\) for a batch of one candidate; legal is \[1, classes\]"),
        (lambda z: z.argmax(-1), "the model answers a single number"),
    ],
)
def test_outputs_that_are_not_clear(answer, message):
    target = from_function(lambda p, x: answer(logits(p, x)), WEIGHTS, classes=WIDTH)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(target.view(Access.SCORES).answer, KEY, IMAGES[0])


def test_answers_that_are_not_finite():
    with pytest.raises(ValueError, match="outputs: the model answered NaN or infinity"):
        from_function(lambda p, x: logits(p, x) / 0, WEIGHTS, classes=WIDTH, example=IMAGES)
    with pytest.raises(ValueError, match="outputs: the model answered NaN or infinity"):
        from_callable(lambda x: host(x) * np.nan, classes=WIDTH, example=IMAGES)


@pytest.mark.parametrize("example", [np.float32(1), np.zeros((0, 3)), {"a": np.zeros((2, 3)), "b": np.zeros((3, 3))}])
def test_examples_without_a_leading_axis(example):
    with pytest.raises(ValueError, match="example: legal is candidates with one leading axis"):
        from_function(logits, WEIGHTS, classes=WIDTH, example=example)


WRONG = {
    "logits": (lambda x: logits(WEIGHTS, x), "other numbers from .* with sum"),
    "percent": (lambda x: 100 * host(x), "percentages from .* with sum 100"),
    "wide": (lambda x: np.ones((len(x), 5)) / 5, r"answered shape \(5, 5\), legal is \[n, 4\]"),
    "flat": (lambda x: host(x).ravel(), r"answered shape \(20,\), legal is \[n, 4\]"),
    "one": (lambda x: host(x)[:1], r"answered shape \(1, 4\), legal is \[n, 4\]"),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("granted", [Access.SCORES, Access.LABELS])
def test_a_host_callable_that_answers_something_else(wrong, granted):
    predict, message = WRONG[wrong]
    with pytest.raises(ValueError, match=message):
        from_callable(predict, classes=WIDTH, granted=granted, example=IMAGES)


LABELS = {
    "beyond": (lambda labels: labels + 4, "answered label [4-7] .int.*; legal is whole numbers from 0 to 3"),
    "negative": (lambda labels: labels - 4, "answered label -[1-4]"),
    "float": (lambda labels: labels.astype(float), "answered label .* .float64.; legal is whole numbers"),
    "column": (lambda labels: labels[:, None], r"answered shape \(5, 1\)"),
    "text": (lambda labels: np.array([f"p{label}" for label in labels]), "answered label p"),
}


@pytest.mark.parametrize("wrong", LABELS)
def test_labels_that_are_none(wrong):
    change, message = LABELS[wrong]
    with pytest.raises(ValueError, match=message):
        from_callable(lambda x: change(host(x).argmax(1)), classes=WIDTH, granted=Access.LABELS, example=IMAGES)


def test_host_logits_that_are_declared_are_served_as_probabilities():
    target = from_callable(lambda x: logits(WEIGHTS, x), classes=WIDTH, answers="logits", example=IMAGES)
    served = jax.vmap(target.view(Access.SCORES).answer, (None, 0))(KEY, IMAGES)
    np.testing.assert_allclose(served, host(IMAGES), rtol=1e-5)
    truncated = from_callable(lambda x: np.round(host(x), 1) / 2, classes=WIDTH, answers="anything")
    served = jax.vmap(truncated.view(Access.SCORES).answer, (None, 0))(KEY, IMAGES)
    np.testing.assert_allclose(served, np.round(host(IMAGES), 1) / 2, atol=1e-6)


def test_without_an_example_the_first_answer_of_a_host_callable_ends_the_run():
    # JAX carries the error out of the callback as its own and repeats it when Python ends: in a process of its own.
    code = """if True:
        import jax, numpy as np
        from jaxmia import Access, Process, from_callable, info, solve
        answer = from_callable(lambda x: np.full((len(x), 4), 25.0), classes=4).view(Access.SCORES).answer
        step = lambda key, state, case: (state, info(answer(key, state)[0]))
        solve(Process(lambda key, case: jax.numpy.zeros(4), step, lambda state: state, 2), jax.random.key(0), np.arange(1))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert (
        "ValueError: outputs: percentages from 25 to 25 with sum 100, where probabilities were declared" in done.stderr
    )


def test_the_identity_of_a_host_callable():
    named, again, other = (from_callable(host, classes=WIDTH, identity=name) for name in ("tree 1", "tree 1", "tree 2"))
    assert named.digest == again.digest == named.identity != other.digest and len(named.digest) == 64
    assert from_callable(host, classes=WIDTH).identity is None
    device = from_function(logits, WEIGHTS, classes=WIDTH)
    assert device.identity == device.digest
