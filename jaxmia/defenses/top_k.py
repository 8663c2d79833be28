"""Top-k: serve the k largest scores, and of the others nothing, or only what they sum to.

Shokri, Stronati, Song, Shmatikov, "Membership Inference Attacks Against Machine Learning Models",
IEEE S&P 2017 (https://arxiv.org/abs/1610.05820), name it among the measures against membership
inference: the smaller k, the less is told, and k = 1 comes near to the label alone. The text of the
paper was not read again for this module; what follows is a reconstruction. Against inversion the
same truncation is what TB-MIA meets in the experiments of Yang, Zhang, Chang, Liang (CCS 2019).

    served_j = p_j                     for the k classes of the largest p
    served_j = 0                       for the others, with rest="zero"
    served_j = sum of the others / (classes - k)         with rest="spread"

Ties go to the lower class index.

What differs. "spread" is this library's own: the answer sums to what it summed to before, so that a
client that takes logarithms or expects probabilities need not know of the defense. No value that is
spread is above the k-th largest score. The missing mass is summed over the classes that are left
out, so that answers that do not sum to one (after rounding, say) are served as well.

What it costs and does not do. The label stays, and white-box access is untouched. An attack that
needs labels only sees no difference. An inverse network that is trained on truncated scores expects
them: measure it on what is served. With k = 1 the largest confidence is still shown to all its
digits, so that score differences lead an attack by gradients as before, if for one class only;
`label_only` hides that too, and rounding coarsens it.
"""

from typing import Any, Literal, get_args

import jax.numpy as jnp

from jaxmia.core import Card, Defense

__all__ = ["CARD", "top_k"]

CARD = Card(
    title="Top-k scores",
    paper="Shokri, Stronati, Song, Shmatikov. Membership Inference Attacks. IEEE S&P 2017",
    url="https://arxiv.org/abs/1610.05820",
    year=2017,
    modality="any",
    hook="answer",
)

Rest = Literal["zero", "spread"]


def top_k(*, k: int = 1, rest: Rest = "zero") -> Defense:
    """The defense: answers at serving time in which the `k` largest scores are left.

    Args:
      k: how many scores are served as they are, 1 or more; the number of classes or more changes
        nothing.
      rest: what the others become: "zero", or "spread" for their mean.

    Raises:
      ValueError: if k is below 1, or for another rest.

    >>> import jax
    >>> served = jnp.array([0.125, 0.5, 0.375])
    >>> top_k(k=1).answer(jax.random.key(0), served).tolist()
    [0.0, 0.5, 0.0]
    >>> top_k(k=1, rest="spread").answer(jax.random.key(0), served).tolist()
    [0.25, 0.5, 0.25]
    """
    if k < 1:
        raise ValueError(f"k: {k}; legal is 1 or more")
    if rest not in get_args(Rest):
        raise ValueError(f"rest: {rest!r}; legal is 'zero' or 'spread'")

    def answer(key: Any, served: Any) -> Any:
        del key
        classes = served.shape[-1]
        if k >= classes:
            return served
        ranks = jnp.argsort(jnp.argsort(-served, axis=-1), axis=-1)
        kept = ranks < k  # sorts are stable: ties go to the lower index
        if rest == "zero":
            return jnp.where(kept, served, 0)
        mean = jnp.sum(jnp.where(kept, 0, served), -1, keepdims=True) / (classes - k)
        least = jnp.min(jnp.where(kept, served, jnp.inf), -1, keepdims=True)
        return jnp.where(kept, served, jnp.minimum(mean, least))  # a mean of equals may round up

    return Defense(answer=answer, keeps_label=True)
