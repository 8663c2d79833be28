"""Access to a model: what the adversary is handed. The target behind it, `jaxmia.target`, it never sees.

An oracle is a capability: it *has no* attribute that its threat model does not grant, and below `Access.WEIGHTS` its
derivative raises `ThreatModelError` while JAX traces. Every `answer(key, x)` takes ONE candidate; batch with vmap.
"""

from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxmia import queries

__all__ = [
    "Access",
    "Labels",
    "Nothing",
    "Oracle",
    "Outputs",
    "Scores",
    "ThreatModelError",
    "Weights",
    "lower",
    "opaque",
    "shown_feature",
    "sown_features",
]


class Access(IntEnum):
    """What a threat model grants; more includes less."""

    NONE = 0
    LABELS = 1
    SCORES = 2
    WEIGHTS = 3


class ThreatModelError(TypeError):
    """An attack asked for more of the target than its threat model grants."""


class Outputs(NamedTuple):
    """What a model computes: `logits [..., classes]` and named hidden `features`, a dict of `[..., ...]`."""

    logits: Array
    features: dict[str, Array]


class Nothing(NamedTuple):
    """No access: an adversary who can ask nothing, and has only what it observed."""


class Labels(NamedTuple):
    """Label-only access: `answer(key, x) -> int32 ""`, the class the target says."""

    answer: Callable[[Any, Any], Any]


class Scores(NamedTuple):
    """Score access: `answer(key, x) -> float32 "classes"` probabilities (or what the target serves: embeddings ...)."""

    answer: Callable[[Any, Any], Any]


class Weights(NamedTuple):
    """White-box access.

    Attributes:
      answer: `(key, x) -> float32 "classes"` logits, differentiable.
      apply: `(params, x) -> Outputs`, with named features.
      params: the parameters, a pytree.
    """

    answer: Callable[[Any, Any], Any]
    apply: Callable[[Any, Any], Outputs]
    params: Any


Oracle = Nothing | Labels | Scores | Weights
_ACCESS = {Nothing: Access.NONE, Labels: Access.LABELS, Scores: Access.SCORES, Weights: Access.WEIGHTS}


def opaque(answer: Callable, access: Access, host: bool = False) -> Callable:
    """The same answers, with a derivative that raises at trace time; `host`, where they come from a host function."""

    @jax.custom_jvp
    def query(key, x, lane):
        with queries.handed(lane):
            return answer(key, x)

    @query.defjvp
    def no_derivative(primals, tangents):
        del primals, tangents
        raise ThreatModelError(
            f"differentiating the target needs access WEIGHTS; this oracle grants {access.name}. "
            "Use an attack whose card asks for no more than that, or grant more."
        )

    def ask(key, x):
        return query(key, x, queries.lane() if host else None)

    ask.host = host  # type: ignore[attr-defined]
    return ask


def lower(oracle: Oracle, access: Access, attack: str) -> Any:
    """The view of `oracle` that grants exactly `access`; every attack's factory calls it first.

    Raises:
      ThreatModelError: if the oracle grants less than `access`, naming the attack, needed and granted access.
    """
    granted = _ACCESS.get(type(oracle))
    if granted is None:
        kinds = ", ".join(kind.__name__ for kind in _ACCESS)
        raise ThreatModelError(f"{attack} needs an oracle ({kinds}), got {type(oracle).__name__}")
    if granted < access:
        raise ThreatModelError(f"{attack} needs access {access.name}; this oracle grants {granted.name}")
    if granted == access:
        return oracle
    if access == Access.NONE:
        return Nothing()
    more: Any = oracle
    host = getattr(more.answer, "host", False)
    if access == Access.SCORES:  # from weights
        return Scores(opaque(lambda key, x: jax.nn.softmax(more.answer(key, x)), access, host))
    return Labels(opaque(lambda key, x: jnp.argmax(more.answer(key, x), -1).astype(jnp.int32), access, host))


def sown_features(collections: Any) -> dict[str, Any]:
    """What a Linen module sowed into "features", by name; modules inside modules give "outer/inner/name".

    What is sown again under the same name, by a layer that is called more than once, is "name/1", "name/2" and so on.
    """
    from flax.traverse_util import flatten_dict

    features = {}
    for name, sown in cast(dict[str, Any], flatten_dict(collections.get("features", {}), sep="/")).items():
        for again, value in enumerate(sown if isinstance(sown, tuple) else (sown,)):  # a module may keep it otherwise
            features[f"{name}/{again}" if again else name] = value
    return features


def shown_feature(features: Mapping[str, Any], name: str, option: str = "feature") -> Any:
    """The feature of that name; every attack takes it from here, so that none goes on without it.

    Raises:
      ValueError: where there is none, naming `option`, the feature and what the target shows.
    """
    if name not in features:
        raise ValueError(f"{option}: {name!r}; the target shows {', '.join(sorted(features)) or 'none'}")
    return features[name]
