"""The targets of a tabular audit: classifiers of records, and how each reads them."""

import pathlib
import time
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from jaxmia import models
from jaxmia.audit.classifiers import keywords
from jaxmia.audit.surveys import Split, Survey, one_hot
from jaxmia.compiling import jit
from jaxmia.data import minibatches
from jaxmia.engine import fit
from jaxmia.identity import digest
from jaxmia.metrics.estimate import bootstrap
from jaxmia.oracle import Access
from jaxmia.packages import require
from jaxmia.target import Target, from_callable, from_linen
from jaxmia.train import supervised

__all__ = ["TARGETS", "Trained", "answers", "target"]


def mlp(*, width: int = 256, steps: int = 2000, rate: float = 1e-2) -> tuple[Any, int, float]:
    """One sigmoid layer, trained until it fits its records."""
    return (lambda classes: models.MLP(classes, width=width)), steps, rate


def softmax_regression(*, steps: int = 500, rate: float = 1e-2) -> tuple[Any, int, float]:
    """Multinomial regression, which hardly memorizes."""
    return models.SoftmaxRegression, steps, rate


def decision_tree() -> None:
    """A full-grown tree of scikit-learn, on the host: scores and labels only."""


TARGETS: dict[str, Any] = {"mlp": mlp, "softmax_regression": softmax_regression, "decision_tree": decision_tree}


class Trained(NamedTuple):
    """A target, how it reads records, and whether it is a control."""

    name: str
    target: Target
    encoding: str
    control: bool


def target(
    config: dict[str, Any],
    training: pathlib.Path,
    survey: Survey,
    parts: Split,
    name: str,
    section: Any,
    control: bool,
) -> tuple[Trained, dict[str, Any]]:
    """One target, trained or found in the folder `training`, with its record for the report."""
    seed, codes, labels = config["seed"], survey.codes[parts.training], survey.labels[parts.training]
    if control:
        labels = np.random.default_rng((seed, 2)).permutation(labels)
    started = time.monotonic()
    if section["name"] == "decision_tree":
        require("sklearn")
        import sklearn
        from sklearn.tree import DecisionTreeClassifier

        tree = DecisionTreeClassifier(random_state=seed).fit(codes, labels)

        def predict(x: np.ndarray) -> np.ndarray:
            scores = np.zeros((len(x), survey.classes), np.float32)
            scores[:, tree.classes_] = tree.predict_proba(x)
            return scores

        model = from_callable(
            predict,
            classes=survey.classes,
            identity=f"decision_tree of scikit-learn {sklearn.__version__} on {digest([codes, labels, seed])}",
            example=survey.codes[parts.held_out].astype(np.float32)[:4],
        )
        encoding, granted, parameters = "codes", "SCORES", None
    else:
        make, steps, rate = TARGETS[section["name"]](**keywords(section))
        module = make(survey.classes)
        arrays = {"x": one_hot(codes, survey.columns), "y": labels.astype(np.int32)}
        variables, _ = fit(
            supervised(module, optax.adam(rate), steps=steps), jax.random.key(seed),
            minibatches(arrays, min(128, len(codes)), seed), folder=training / name, title=f"train {name}",
        )  # fmt: skip
        example = one_hot(survey.codes[parts.held_out][:4], survey.columns)
        model = from_linen(module, variables, classes=survey.classes, example=example)
        encoding, granted = "one_hot", "WEIGHTS"
        parameters = sum(leaf.size for leaf in jax.tree.leaves(variables))
    one = Trained(name, model, encoding, control)
    right = answers(one, survey, parts.held_out) == survey.labels[parts.held_out]
    record = {
        "name": name,
        "dataset": survey.name,
        "architecture": section["name"],
        "test_accuracy": {**bootstrap(right.astype(float))._asdict(), "unit": "share"},
        "defense": "",
        "granted": granted,
        "parameters": parameters,
        "seconds": round(time.monotonic() - started, 1),
    }
    return one, record


def answers(one: Trained, survey: Survey, rows: np.ndarray) -> np.ndarray:
    """The target's label of complete records."""
    codes = survey.codes[rows]
    x = one_hot(codes, survey.columns) if one.encoding == "one_hot" else codes.astype(np.float32)
    view = one.target.view(Access.LABELS)
    return np.asarray(jit(jax.vmap(lambda record: view.answer(jax.random.key(0), record)))(x))
