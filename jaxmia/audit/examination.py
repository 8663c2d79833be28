"""A look at a model before it is audited: what is wrong with it, or with how it is asked, is told before long work."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from jaxmia.audit.asking import asked
from jaxmia.oracle import Access
from jaxmia.target import Target

__all__ = ["examine", "unlike_chance"]

FIRST = 8  # candidates that are asked about twice together, and once alone


def examine(target: Target, candidates: Float[np.ndarray, "n ..."]) -> tuple[str, ...]:
    """What a reader must know of how a model answers held-out `candidates`; it is asked about 8 of them, three times.

    Raises:
      ValueError: for answers that are not finite, not what was declared, or depend on what else is in the batch.
    """
    access = min(target.granted, Access.SCORES)
    view, key = target.view(access), jax.random.key(0)
    answer = lambda x: view.answer(key, x)  # noqa: E731
    few = candidates[:FIRST]
    first, again = (asked(jax.vmap(answer), few) for _ in range(2))
    single = asked(lambda x: jax.lax.map(answer, x), few)
    if not np.all(np.isfinite(first)):
        raise ValueError("target: answers NaN or infinity to held-out candidates; legal is finite numbers")
    if not np.allclose(first, single, atol=1e-3):
        worst = np.abs(first - single).max()
        raise ValueError(
            f"target: answers a candidate otherwise when it is asked alone, by up to {worst:.3g}; legal is a model in "
            "inference mode, whose answer depends on the candidate alone"
        )
    if np.array_equal(first, again):
        return ()
    return ("The target answers the same question differently each time, so that asking again tells more.",)


def unlike_chance(accuracy: dict[str, Any], classes: int) -> tuple[str, ...]:
    """What a reader must know of a model whose accuracy on held-out data is not above chance."""
    chance = 1 / classes
    if accuracy["low"] > chance:
        return ()
    return (
        f"The target names {accuracy['value']:.0%} of the held-out candidates rightly, [{accuracy['low']:.0%}, "
        f"{accuracy['high']:.0%}], which is not above chance ({chance:.0%}). If it does better elsewhere, it is asked "
        "wrongly here: in most cases with another normalization, layout, range or order of classes.",
    )
