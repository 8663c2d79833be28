"""The targets of an audit of records: classifiers, and how each reads a record."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from jaxmia import models
from jaxmia.adapters.host import from_callable
from jaxmia.adapters.linen import from_linen
from jaxmia.audit import networks
from jaxmia.audit.asking import asked
from jaxmia.audit.modality import Fitted, Training
from jaxmia.audit.networks import Network
from jaxmia.identity import digest
from jaxmia.metrics.estimate import bootstrap
from jaxmia.modalities.tabular.data import Survey, one_hot
from jaxmia.oracle import Access
from jaxmia.packages import require

__all__ = ["TARGETS", "accuracy", "answers", "encoding", "fit"]


class Recipe(NamedTuple):
    """A network and how it is trained, or what trains on the host: `(codes, labels, seed) -> predict`."""

    module: Callable[[int], Any] | None = None
    steps: int = 0
    rate: float = 0.0
    host: Callable[..., Any] | None = None


def mlp(*, width: int = 256, steps: int = 2000, rate: float = 1e-2) -> Recipe:
    """One sigmoid layer, trained until it fits its records."""
    return Recipe(lambda classes: models.MLP(classes, width=width), steps, rate)


def softmax_regression(*, steps: int = 500, rate: float = 1e-2) -> Recipe:
    """Multinomial regression, which hardly memorizes."""
    return Recipe(models.SoftmaxRegression, steps, rate)


def decision_tree() -> Recipe:
    """A full-grown tree of scikit-learn, on the host: scores and labels only."""
    return Recipe(host=_tree)


TARGETS: dict[str, Callable[..., Recipe]] = {
    "mlp": mlp,
    "softmax_regression": softmax_regression,
    "decision_tree": decision_tree,
}


def _tree(codes: np.ndarray, labels: np.ndarray, classes: int, seed: int) -> tuple[Any, str]:
    """`predict`, and what the model is known by."""
    require("sklearn")
    import sklearn
    from sklearn.tree import DecisionTreeClassifier

    tree = DecisionTreeClassifier(random_state=seed).fit(codes, labels)

    def predict(x: np.ndarray) -> np.ndarray:
        scores = np.zeros((len(x), classes), np.float32)
        scores[:, tree.classes_] = tree.predict_proba(x)
        return scores

    return predict, f"decision_tree of scikit-learn {sklearn.__version__} on {digest([codes, labels, seed])}"


def fit(recipe: Recipe, survey: Survey, how: Training) -> Fitted:
    """A target.

    Raises:
      ValueError: for a defense of a model that is no network.
    """
    rows = survey.parts.training
    codes, labels = survey.codes[rows], survey.labels[rows]
    if how.control == "shuffled":
        labels = np.random.default_rng((how.seed, 2)).permutation(labels)
    held_out = survey.codes[survey.parts.held_out][:4]
    if recipe.host is not None:
        if how.defense or how.control not in ("", "shuffled"):
            what = f"defense {how.defense[0]['name']}" if how.defense else f"control {how.control}"
            raise ValueError(f"{what}: is for networks, and this target is none")
        if not how.real:
            even = lambda x: np.full((len(x), survey.classes), 1 / survey.classes, np.float32)  # noqa: E731
            return Fitted(from_callable(even, classes=survey.classes))
        predict, identity = recipe.host(codes, labels, survey.classes, how.seed)
        example = held_out.astype(np.float32)
        return Fitted(from_callable(predict, classes=survey.classes, identity=identity, example=example))
    assert recipe.module is not None
    network = Network(recipe.module(survey.classes), optax.adam(recipe.rate), recipe.steps, 128)
    arrays = {"x": one_hot(codes, survey.columns), "y": labels.astype(np.int32)}
    module, variables, defense, spent = networks.train(network, arrays, survey.contents["records"], how)
    target = from_linen(
        module, variables, classes=survey.classes, defense=defense, secret=(how.seed + 3000) % 2**32,
        example=one_hot(held_out, survey.columns) if how.real else None,
    )  # fmt: skip
    return Fitted(target, module, spent)


def encoding(fitted: Fitted) -> str:
    """How a target reads a record: "one_hot", or "codes" what is no network."""
    return "codes" if fitted.module is None else "one_hot"


def answers(fitted: Fitted, survey: Survey, rows: np.ndarray) -> np.ndarray:
    """The target's label of complete records."""
    codes = survey.codes[rows]
    x = one_hot(codes, survey.columns) if encoding(fitted) == "one_hot" else codes.astype(np.float32)
    view = fitted.target.view(Access.LABELS)
    return asked(jax.vmap(lambda record: view.answer(jax.random.key(0), record)), x)


def accuracy(fitted: Fitted, survey: Survey) -> dict[str, Any]:
    """On the held-out records."""
    right = answers(fitted, survey, survey.parts.held_out) == survey.labels[survey.parts.held_out]
    return {**bootstrap(right.astype(float))._asdict(), "unit": "share"}
