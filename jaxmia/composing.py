"""Several defenses on one model, as one defense."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from jaxmia.core import Defense, Guard, Process

__all__ = ["compose", "sets"]

_AT_MOST_ONE = ("grads", "trainer", "guard", "batches")
_PLAIN = Defense()


def compose(parts: Mapping[str, Defense]) -> Defense:
    """Several defenses as one; the first acts first, on the model, its data, its graph and on what it answers.

    Keys are split, so that the parts draw independently of one another; one part alone draws as it would by itself.
    Losses wrap one another: each defense adds a term of its own to the loss that it is given, and sums commute.

    Args:
      parts: defenses by the names that complaints use.

    Raises:
      ValueError: for two that cannot both act, naming them: two that take gradients, replace the training, draw
        minibatches or fit an answer; or one that takes gradients example by example beside one that couples examples.

    >>> half = Defense(answer=lambda key, served: served / 2)
    >>> more = Defense(answer=lambda key, served: served + 1)
    >>> compose({"half": half, "more": more}).answer(jax.random.key(0), 4.0)
    3.0
    """
    for hook in _AT_MOST_ONE:
        both = [name for name, part in parts.items() if sets(part, hook)]
        if len(both) > 1:
            raise ValueError(f"defenses: {' and '.join(both)} both set {hook}; legal is one of them")
    per_example = [name for name, part in parts.items() if sets(part, "batches")]
    coupled = [name for name, part in parts.items() if part.couples]
    if per_example and coupled:
        raise ValueError(
            f"defenses: {per_example[0]} takes gradients example by example, and {coupled[0]} ties the examples of a "
            "minibatch together; legal is one of them"
        )
    members = list(parts.values())
    answering = [part for part in members if sets(part, "answer") or sets(part, "guard")]
    return Defense(
        model=_in_turn([part.model for part in members]),
        data=_keyed([part.data for part in members if sets(part, "data")]),
        graph=_keyed([part.graph for part in members if sets(part, "graph")], _PLAIN.graph),
        loss=_in_turn([part.loss for part in members]),
        grads=_only(members, "grads"),
        optim=_in_turn([part.optim for part in members]),
        trainer=_only(members, "trainer"),
        answer=_keyed([part.answer for part in members if sets(part, "answer")]),
        send=_keyed([part.send for part in members if sets(part, "send")]),
        guard=_guard(members),
        batches=_only(members, "batches"),
        spent=_said([part.spent for part in members if part.spent is not None]),
        couples=bool(coupled),
        keeps_label=bool(answering) and all(part.keeps_label for part in answering),
    )


def sets(part: Defense, hook: str) -> bool:
    """Whether a defense has a hook of its own."""
    return getattr(part, hook) is not getattr(_PLAIN, hook)


def _only(members: Sequence[Defense], hook: str) -> Any:
    """The hook of the one part that sets it."""
    return next((getattr(part, hook) for part in members if sets(part, hook)), getattr(_PLAIN, hook))


def _in_turn(hooks: Sequence[Callable[[Any], Any]]) -> Callable[[Any], Any]:
    def all_of(value: Any) -> Any:
        for hook in hooks:
            value = hook(value)
        return value

    return all_of


def _keyed(hooks: Sequence[Callable[..., Any]], none: Callable[..., Any] = _PLAIN.answer) -> Callable[..., Any]:
    """One after the other, each with a key of its own, and with what else they are told; `none` where there is none."""
    if not hooks:
        return none
    if len(hooks) == 1:
        return hooks[0]

    def all_of(key: Any, value: Any, *told: Any) -> Any:
        for own, hook in zip(jax.random.split(key, len(hooks)), hooks, strict=True):
            value = hook(own, value, *told)
        return value

    return all_of


def _said(parts: Sequence[Callable[[int, int, int], str]]) -> Callable[[int, int, int], str] | None:
    """Each says for itself what its guarantee came to; what follows from all of them together is not worked out."""
    if len(parts) < 2:
        return parts[0] if parts else None
    return lambda size, examples, steps: "; ".join(part(size, examples, steps) for part in parts)


def _guard(members: Sequence[Defense]) -> Guard | None:
    """The guard of one part, which sees the answers of the parts before it, and whose answers the others see."""
    at = next((i for i, part in enumerate(members) if part.guard), None)
    if at is None:
        return None
    own = members[at].guard
    assert own is not None
    before = [part.answer for part in members[:at] if sets(part, "answer")]
    after = [part.answer for part in members[at + 1 :] if sets(part, "answer")]

    def fit(scores: Callable[[Any, Any], Any]) -> Process:
        def seen(key: Any, x: Any) -> Any:
            first, second = jax.random.split(key)
            return _keyed(before)(second, scores(first, x))

        return own.fit(seen if before else scores)

    return Guard(fit, lambda fitted: _keyed([*before, own.answer(fitted), *after]))
