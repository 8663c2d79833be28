"""The model under audit: it hands out oracles, and no attack is handed it. `jaxmia.adapters` make one of a model."""

import copy
import functools
import hashlib
from collections.abc import Callable
from typing import Any, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxmia.answers import check_declaration, check_values, checked
from jaxmia.compiling import jit
from jaxmia.core import Defense
from jaxmia.noise import noise_key
from jaxmia.oracle import (
    Access,
    Labels,
    Nothing,
    Outputs,
    Scores,
    ThreatModelError,
    Weights,
    opaque,
    shown_feature,
)

__all__ = [
    "Options",
    "Target",
    "digest",
    "saliency",
]


def saliency(model: Callable[[Any], Outputs], x: Any) -> Any:
    """The gradient of the largest logit by x (Simonyan, Vedaldi, Zisserman, 2014, with its sign), of the shape of x."""
    return jax.grad(lambda x: jnp.max(model(x).logits))(x)


class Options(TypedDict, total=False):
    """What every target may be given; `Target` says what each means."""

    granted: Access
    defense: Defense | None
    serve: Callable[[Outputs], Any]
    answers: str
    secret: int
    noise: str
    grid: int | None
    example: Any


class Target:
    """A model under audit with the access it grants. Ours, never the adversary's: attacks get `view(...)`.

    What the model answers is compared with what is declared of it: its width in every trace, before anything is
    computed; its values on `example`, and without one on three random candidates, which tell probabilities from logits.

    A serving-time defense draws its noise from `secret` and from the query, so that asking again with another key is of
    no use (`jaxmia.noise`). No view has the secret as an attribute. Python's closures hide nothing from code that digs in
    them, however: views keep an attack honest, not a hostile program out.

    Attributes:
      apply: `(params, x) -> Outputs` of one candidate; None for a host callable.
      params: pytree of parameters; None for a host callable.
      granted: the most access a view may have.
      classes: number of classes it answers.
      secret: what the defense's noise is drawn from.
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
        answers: str = "logits",
        secret: int = 0,
        noise: str = "memoized",
        grid: int | None = 255,
        example: Any = None,
        identity: str | None = None,
    ):
        """A target.

        Args:
          apply: `(params, x) -> Outputs` of one candidate, `logits [..., classes]`; None for a host callable.
          params: pytree of arrays.
          classes: 2 or more.
          granted: the most access a view may have.
          defense: its `answer` acts on scores and labels, its `send` on features (`until`).
          serve: what score access answers; by default probabilities.
          scores: `(key, x) -> answer` in place of `serve(apply(params, x))`, for a host callable.
          answers: what `apply` answers as logits: "logits"; "probabilities", whose logarithm is taken; or "anything",
            neither checked nor changed: embeddings, or logits that look like probabilities.
          secret: 0 to 2^32 - 1. The adversary must not know it.
          noise: "memoized", equal for equal queries; or "fresh", which the adversary's key changes, only to measure what
            averaging would gain.
          grid: how finely queries are told apart where there is noise: 255 by gray levels of candidates in [0, 1]; None
            by every bit.
          example: candidates `[n, ...]`, such as held-out images, to be asked about now: the answers must be finite and
            what was declared. Without, they are not looked at.
          identity: of a host callable: the model's name and version.

        Raises:
          ThreatModelError: for a host callable that is to grant its weights.
          ValueError: for an option out of range, non-finite parameters, or an example whose answers do not fit.
        """
        if apply is None and granted > Access.SCORES:
            raise ThreatModelError("granted: a host callable has no weights to show; grant LABELS or SCORES")
        check_declaration(classes, answers)
        if isinstance(secret, bool) or not isinstance(secret, int | np.integer) or not 0 <= secret < 2**32:
            raise ValueError(f"secret: {secret}; legal is a whole number from 0 to 2**32 - 1")
        if noise not in ("memoized", "fresh"):
            raise ValueError(f"noise: {noise!r}; legal is memoized or fresh")
        if grid is not None and grid < 1:
            raise ValueError(f"grid: {grid}; legal is 1 or more, or None")
        known = [leaf for leaf in jax.tree.leaves(params) if not isinstance(leaf, Tracer)]
        if not all(bool(np.all(np.isfinite(leaf))) for leaf in known if _is_float(leaf)):
            raise ValueError("params: the target has NaN or infinite weights; retrain it or load another checkpoint")
        # A numpy array is a new constant each time it is traced, so that the same run would not know itself again.
        self.params, self.classes = jax.tree.map(jnp.asarray, params), classes
        if apply is not None and example is not None:
            _check_example(apply, self.params, classes, answers, example)
        self._whole = apply  # whose logits are not looked at where a feature is served in their place
        self.apply = apply and checked(apply, self.params, classes, answers, probe=example is None)
        self.granted, self.secret, self._noise, self._grid = Access(granted), int(secret), noise, grid
        self._defense = defense or Defense()
        _refuse_unfitted(self._defense)
        served = self.apply
        self._scores = scores or (lambda key, x: serve(served(self.params, x)))  # type: ignore[misc]
        self._explain: Callable[[Callable, Any], Any] | None = None
        self._named = identity

    @functools.cached_property
    def digest(self) -> str:
        """sha256, 64 hex digits, to tell targets and evaluators apart: of the parameters, or of the identity of a host
        callable. Without an identity it holds in this process alone.
        """
        if self.params is not None:
            return digest(self.params)
        text = repr(self._scores) if self._named is None else f"host {self._named}"
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def identity(self) -> str | None:
        """What the model is known by in other processes too: its digest; None for a host callable without a name."""
        return None if self.params is None and self._named is None else self.digest

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
            served, defend = self._scores(key, x), self._defense.answer
            return served if defend is Defense().answer else defend(self._noise_key(key, x), served)

        def explained(key, x):
            explanation = self._explain(lambda x: self.apply(self.params, x), x)  # type: ignore[misc]
            return {"scores": scores(key, x), "explanation": explanation}

        def label(key, x):
            answered = self._scores(key, x) if self._defense.keeps_label else scores(key, x)
            return jnp.argmax(answered, -1).astype(jnp.int32)

        if access == Access.SCORES:
            return Scores(opaque(scores if self._explain is None else explained, access, self.apply is None))
        return Labels(opaque(label, access, self.apply is None))

    def _noise_key(self, key: Any, x: Any) -> Any:
        own = noise_key(self.secret, x, self._grid)
        if self._noise == "fresh":
            for word in jax.random.bits(key, (2,), jnp.uint32):
                own = jax.random.fold_in(own, word)
        return own

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

    def under(self, defense: Defense) -> "Target":
        """The same model behind another serving-time defense, in place of the one that it has.

        Raises:
          ValueError: for a defense whose answer is not fitted yet.
        """
        _refuse_unfitted(defense)
        target = copy.copy(self)
        target._defense = defense
        return target

    def permuted(self, order: Any) -> "Target":
        """A control: the same model, which answers of class c what it would answer of class `order[c]`, at every access.

        Whoever looks for class c finds class `order[c]`, if anything; judged as c, nothing may be found.

        Raises:
          ValueError: unless `order` holds every class once, none in its own place.
        """
        places = np.asarray(order)
        if sorted(places.tolist()) != list(range(self.classes)) or np.any(places == np.arange(self.classes)):
            raise ValueError(f"order: {places.tolist()}; legal is every class once, none in its own place")
        target, whole, scores = copy.copy(self), self.apply, self._scores
        target._scores = lambda key, x: scores(key, x)[..., places]
        if whole is not None:

            def apply(params: Any, x: Any) -> Outputs:
                outputs = whole(params, x)
                return outputs._replace(logits=outputs.logits[..., places])

            target.apply = apply
        return target

    def until(self, feature: str) -> "Target":
        """The client's part in split inference: a target that answers a named hidden feature ("smashed data").

        At every access the answer is the feature itself, of any shape; below white-box access the defense's `send` acts on
        it. The white-box view still holds the parameters of the whole model.

        Raises:
          ThreatModelError: for a host callable, which has no hidden features.
          ValueError: when traced, for a feature that the model does not name.
        """
        whole = self._whole
        if whole is None:
            raise ThreatModelError(f"feature {feature!r}: a host callable shows no hidden features")

        def apply(params: Any, x: Any) -> Outputs:
            features = whole(params, x).features
            return Outputs(shown_feature(features, feature), features)

        return Target(
            apply,
            self.params,
            classes=self.classes,
            granted=self.granted,
            defense=Defense(answer=self._defense.send),
            serve=lambda outputs: outputs.logits,
            answers="anything",
            secret=self.secret,
            noise=self._noise,
            grid=self._grid,
        )


def _refuse_unfitted(defense: Defense) -> None:
    if defense.guard is not None:
        raise ValueError("defense: its answer is not fitted yet; legal is defense.guarded(what its guard read out)")


def _check_example(apply: Callable, params: Any, classes: int, answers: str, example: Any) -> None:
    """Ask about `[n, ...]` candidates, and look at the answers."""
    lengths = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(example)}
    if len(lengths) != 1 or lengths & {(), (0,)}:
        raise ValueError("example: legal is candidates with one leading axis, 1 or more of them, such as images[:4]")
    look = checked(apply, params, classes, "anything" if answers == "anything" else "logits", probe=False)
    logits = jit(jax.vmap(lambda x: look(params, x).logits))(jax.tree.map(jnp.asarray, example))
    check_values(logits, answers)


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
