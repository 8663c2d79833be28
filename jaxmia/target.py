"""The model under audit: it hands out oracles, and no attack is handed it. From Linen, NNX, a function, or the host."""

import copy
import functools
import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmia.core import Defense
from jaxmia.oracle import (
    Access,
    Labels,
    Nothing,
    Outputs,
    Scores,
    ThreatModelError,
    Weights,
    opaque,
    sown_features,
)

__all__ = [
    "FirstLayers",
    "Target",
    "digest",
    "from_callable",
    "from_function",
    "from_linen",
    "from_nnx",
    "saliency",
]


def saliency(model: Callable[[Any], Outputs], x: Any) -> Any:
    """The gradient of the largest logit by x (Simonyan, Vedaldi, Zisserman, 2014, with its sign), of the shape of x."""
    return jax.grad(lambda x: jnp.max(model(x).logits))(x)


class Target:
    """A model under audit with the access it grants. Ours, never the adversary's: attacks get `view(...)`.

    Attributes:
      apply: `(params, x) -> Outputs` of one candidate; None for a host callable.
      params: pytree of parameters; None for a host callable.
      granted: the most access a view may have.
      classes: number of classes it answers.
      digest: sha256 over the parameters, to tell targets and evaluators apart.
      identity: of a host callable: text that names model and version; None where nothing does, or where parameters do.
    """

    def __init__(
        self,
        apply: Callable[[Any, Any], Outputs] | None,
        params: Any,
        *,
        classes: int,
        granted: Access = Access.WEIGHTS,
        defense: Defense | None = None,
        serve: Callable[[Outputs], Any] = lambda outputs: jax.nn.softmax(outputs.logits),
        scores: Callable[[Any, Any], Any] | None = None,
        identity: str | None = None,
    ):
        if apply is None and granted > Access.SCORES:
            raise ThreatModelError("granted: a host callable has no weights to show; grant LABELS or SCORES")
        if not all(bool(np.all(np.isfinite(leaf))) for leaf in jax.tree.leaves(params) if _is_float(leaf)):
            raise ValueError("params: the target has NaN or infinite weights; retrain it or load another checkpoint")
        # A numpy array is a new constant each time it is traced, so that the same run would not know itself again.
        self.apply, self.params, self.classes = apply, jax.tree.map(jnp.asarray, params), classes
        self.granted, self.identity = Access(granted), identity
        self._defend = (defense or Defense()).answer
        self._scores = scores or (lambda key, x: serve(apply(params, x)))  # type: ignore[misc]
        self._explain: Callable[[Callable, Any], Any] | None = None
        named = repr(scores) if identity is None else identity
        self.digest = digest(params) if params is not None else hashlib.sha256(named.encode()).hexdigest()

    def view(self, access: Access, attack: str = "the adversary") -> Any:
        """The oracle with exactly `access`, serving-time defense applied to scores and labels.

        Raises:
          ThreatModelError: when more than `granted` is asked for, naming attack, needed and granted access.
        """
        access = Access(access)
        if access > self.granted:
            raise ThreatModelError(
                f"{attack} needs access {access.name}; the target grants {self.granted.name}. "
                "Choose an attack that needs less (`jaxmia list attacks`) or grant more in the scenario."
            )
        if access == Access.WEIGHTS:
            apply, params = self.apply, self.params
            return Weights(lambda key, x: apply(params, x).logits, apply, params)  # type: ignore[misc]

        if access == Access.NONE:
            return Nothing()

        def scores(key, x):
            ask, defend = jax.random.split(key)
            return self._defend(defend, self._scores(ask, x))

        def explained(key, x):
            explanation = self._explain(lambda x: self.apply(self.params, x), x)  # type: ignore[misc]
            return {"scores": scores(key, x), "explanation": explanation}

        if access == Access.SCORES:
            return Scores(opaque(scores if self._explain is None else explained, access))
        return Labels(opaque(lambda key, x: jnp.argmax(scores(key, x), -1).astype(jnp.int32), access))

    def explained(self, explain: Callable[[Callable[[Any], Outputs], Any], Any] = saliency) -> "Target":
        """A target that serves an explanation with its scores: `answer` gives {"scores", "explanation"} at score access.

        The serving-time defense acts on the scores alone. Label and white-box views are as before.

        Args:
          explain: `(model, x) -> explanation`, where `model` is `x -> Outputs`.

        Raises:
          ThreatModelError: for a host callable, which cannot be differentiated.
        """
        if self.apply is None:
            raise ThreatModelError("explained: a host callable cannot be differentiated")
        target = copy.copy(self)
        target._explain = explain
        return target

    def until(self, feature: str) -> "Target":
        """The client's part in split inference: a target that answers a named hidden feature ("smashed data").

        At every access the answer is the feature itself, of any shape; the serving-time defense acts on it. The white-box
        view still holds the parameters of the whole model.

        Raises:
          ThreatModelError: for a host callable, which has no hidden features.
          ValueError: when traced, for a feature that the model does not name.
        """
        whole = self.apply
        if whole is None:
            raise ThreatModelError(f"feature {feature!r}: a host callable shows no hidden features")

        def apply(params: Any, x: Any) -> Outputs:
            features = whole(params, x).features
            if feature not in features:
                raise ValueError(f"feature: {feature!r}; legal is one of {', '.join(sorted(features)) or 'none'}")
            return Outputs(features[feature], features)

        defense = Defense(answer=self._defend)
        return Target(
            apply,
            self.params,
            classes=self.classes,
            granted=self.granted,
            defense=defense,
            serve=lambda outputs: outputs.logits,
        )


def _is_float(leaf: Any) -> bool:
    return jnp.issubdtype(jnp.asarray(leaf).dtype, jnp.floating)


def digest(tree: Any) -> str:
    """sha256 over structure, shapes, dtypes and bytes of a pytree of arrays (64 hex digits)."""
    sha = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf)
        sha.update(f"{jax.tree_util.keystr(path)}{array.shape}{array.dtype}".encode())
        sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()


def from_function(apply: Callable[[Any, Any], Any], params: Any, *, classes: int, **options: Any) -> Target:
    """A target from any `(params, batch [n, ...]) -> logits [n, classes]` or `-> Outputs`.

    `options` go to `Target`: granted, defense, serve.
    """

    def one(params: Any, x: Any) -> Outputs:
        out = apply(params, jax.tree.map(lambda leaf: leaf[None], x))
        out = out if isinstance(out, Outputs) else Outputs(out, {})
        if jnp.issubdtype(out.logits.dtype, jnp.floating):  # a model in bfloat16 answers in float32 like any other
            out = out._replace(logits=out.logits.astype(jnp.promote_types(out.logits.dtype, jnp.float32)))
        return jax.tree.map(lambda leaf: leaf[0], out)

    return Target(one, params, classes=classes, **options)


def from_linen(module: Any, variables: Any, *, classes: int, **options: Any) -> Target:
    """A target from a Linen module in inference mode; named features are what it sows into "features".

    What every BatchNorm reads is a feature as well, "batch_norm/<i>/<path>": i, four digits, counts them in the order in
    which they are called, and path is where its statistics lie in "batch_stats".

    `variables` holds "params" and, where the module has them, "batch_stats".
    """
    from flax import linen as nn

    def apply(variables: Any, batch: Any) -> Outputs:
        called: list[str] = []

        def watch(call: Any, args: Any, keywords: Any, context: Any) -> Any:
            if isinstance(context.module, nn.BatchNorm) and context.method_name == "__call__":
                context.module.sow("batch_norm", "input", args[0])
                called.append("/".join(context.module.path))
            return call(*args, **keywords)

        with nn.intercept_methods(watch):
            logits, sown = module.apply(variables, batch, mutable=["features", "batch_norm"])
        read = sown_features({"features": sown.get("batch_norm", {})})
        inputs = {f"batch_norm/{i:04}/{path}": read[f"{path}/input"] for i, path in enumerate(called)}
        return Outputs(logits, {**sown_features(sown), **inputs})

    return from_function(apply, variables, classes=classes, **options)


class FirstLayers(NamedTuple):
    """A Linen module up to a hidden feature, used like a Linen module that answers this feature.

    Its variables are those of the whole module: what comes after the feature has no part in anything.

    Attributes:
      module: the whole, `(x [n, ...], train) -> logits`.
      feature: the name under which the layer is exposed.
    """

    module: Any
    feature: str

    def init(self, key: Any, x: Any, train: bool = False) -> Any:
        """Variables of the whole module."""
        return self.module.init(key, x, train=train)

    def apply(self, variables: Any, x: Any, train: bool = False, mutable: Any = ()) -> Any:
        """The feature of a batch, and where collections are mutable, these as well."""
        _, changed = self.module.apply(variables, x, train=train, mutable=[*mutable, "features"])
        feature = sown_features(changed)[self.feature]
        return (feature, {name: changed[name] for name in mutable if name in changed}) if mutable else feature


def from_nnx(model: Any, *, classes: int, **options: Any) -> Target:
    """A target from an NNX module: put in eval mode, split once; only Param and BatchStat state is kept as params."""
    from flax import nnx

    model.eval()
    graph, params, rest = nnx.split(model, (nnx.Param, nnx.BatchStat), ...)
    return from_function(
        lambda params, batch: nnx.merge(graph, params, rest)(batch), params, classes=classes, **options
    )


def from_callable(
    predict: Callable[[np.ndarray], np.ndarray],
    *,
    classes: int,
    granted: Access = Access.SCORES,
    identity: str | None = None,
    **options: Any,
) -> Target:
    """A target from a plain Python function on the host (a PyTorch or scikit-learn model, an HTTP endpoint).

    Args:
      predict: `[n, ...] float32 -> [n, classes]` scores, or `[n]` integer labels when `granted` is LABELS.
      classes: number of classes.
      granted: LABELS or SCORES; a host callable has no gradients to give.
      identity: text that names the model and its version, as a file's checksum does. Results of a run in a folder are
        found again under the same text alone; a run in a folder refuses a host callable without one.
    """
    if Access(granted) > Access.SCORES:
        raise ThreatModelError("granted: a host callable has no weights to show; grant LABELS or SCORES")

    def on_host(rank: int, x: Any) -> np.ndarray:
        x = np.asarray(x)
        lead, case = x.shape[: x.ndim - rank], x.shape[x.ndim - rank :]
        answer = np.asarray(predict(x.reshape((-1,) + case)))
        if answer.ndim == 1 and granted == Access.LABELS:
            answer = np.eye(classes, dtype=np.float32)[answer]
        if answer.shape[1:] != (classes,):
            raise ValueError(f"predict: answered shape {answer.shape}, legal is [n, {classes}]")
        return answer.astype(np.float32).reshape(lead + (classes,))

    on_host.identity = identity  # type: ignore[attr-defined]  # by which `jaxmia.identity` knows the program

    def scores(key: Any, x: Any) -> Any:
        del key
        shape = jax.ShapeDtypeStruct((classes,), jnp.float32)
        return jax.pure_callback(functools.partial(on_host, jnp.ndim(x)), shape, x, vmap_method="expand_dims")

    return Target(None, None, classes=classes, granted=granted, scores=scores, identity=identity, **options)
