"""Label only: serve a score vector that is 1 at the class of the largest score and 0 elsewhere.

The extreme of showing fewer scores, named in Shokri, Stronati, Song, Shmatikov, "Membership
Inference Attacks Against Machine Learning Models", IEEE S&P 2017
(https://arxiv.org/abs/1610.05820). The text of the paper was not read again for this module; what
follows is a reconstruction:

    served = onehot(argmax_j p_j),   the lower class index where scores are equal

What differs. It is no change of access: a client that reads score vectors goes on doing so, and an
attack that needs score access runs, and is told a label. To refuse scores altogether, grant the
target no more than label access.

What it costs and does not do. The confidence is gone, for honest clients as well: none can tell a
sure answer from a guess. Attacks that need labels only (BREP-MI, LOKT, a label-only boundary
search) were made for exactly this and see no difference. White-box access is untouched.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxmia.core import Card, Defense

__all__ = ["CARD", "label_only"]

CARD = Card(
    title="Label only",
    paper="Shokri, Stronati, Song, Shmatikov. Membership Inference Attacks. IEEE S&P 2017",
    url="https://arxiv.org/abs/1610.05820",
    year=2017,
    modality="any",
    hook="answer",
)


def label_only() -> Defense:
    """The defense: answers at serving time that are one-hot.

    >>> label_only().answer(jax.random.key(0), jnp.array([0.25, 0.625, 0.125])).tolist()
    [0.0, 1.0, 0.0]
    """

    def answer(key: Any, served: Any) -> Any:
        del key
        return jax.nn.one_hot(jnp.argmax(served, -1), served.shape[-1], dtype=served.dtype)

    return Defense(answer=answer, keeps_label=True)
