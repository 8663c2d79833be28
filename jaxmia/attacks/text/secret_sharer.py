"""The Secret Sharer: rank every secret that could fill a blank in a sentence by how likely a language model finds it.

Carlini, Liu, Erlingsson, Kos, Song, "The Secret Sharer: Evaluating and Testing Unintended Memorization in Neural
Networks", USENIX Security 2019 (https://arxiv.org/abs/1802.08232). A *format* is a sentence with blanks ("the random
number is ____"); what may fill them is the randomness space R. Each candidate r in R is scored by its log-perplexity
(definition 1), in bits,

    Px(s[r]) = - sum_i log2 Pr(x_i | x_1 ... x_{i-1}),      s[r] = x_1 ... x_n,

and the least is the extracted secret. The rank of a secret that was planted in the training data (definition 2) gives
its exposure log2 |R| - log2 rank (definition 4). Both need the truth, so they are not computed here: see
`jaxmia.metrics.privacy.exposure_exact`, and `exposure_by_sampling` for the estimates from a part of R.

What differs. The sum runs over the blanks and what follows them: the tokens before add the same number to every
candidate. The paper extracts by a shortest-path search over prefixes (Dijkstra), which reaches spaces far too large to
enumerate, such as 16 digits; here all of R is enumerated, which finds the same minimum and also gives the ranks that
exposure needs. Ties go to the candidate that is numbered first.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxmia.core import WORST, Attack, Card
from jaxmia.oracle import Access, Oracle, Weights, lower
from jaxmia.recipes import score

__all__ = ["CARD", "Extraction", "secret_sharer"]

CARD = Card(
    title="The Secret Sharer",
    paper="Carlini, Liu, Erlingsson, Kos, Song. The Secret Sharer. USENIX Security 2019",
    url="https://arxiv.org/abs/1802.08232",
    year=2019,
    modality="text",
    access=Access.SCORES,
    recovers="a secret in the training text of a language model, and how exposed every possible secret is",
    knows="the sentence around the secret, the tokens the secret may be made of",
    observes="surrounding_text",
)


class Extraction(NamedTuple):
    """What is concluded about one format.

    Attributes:
      log_perplexity: bits, one per candidate, lower is likelier. Candidates are numbered with the last position of
        the secret varying fastest: over the digits 0 to 9, number 4071 of 10^5 is the secret 04071.
      secret: tokens of the likeliest candidate.
      queries: sequences the target was asked about, |R|.
    """

    log_perplexity: Float[Array, " candidates"]
    secret: Int[Array, " positions"]
    queries: Int[Array, ""]


def secret_sharer(
    oracle: Oracle,
    space: Sequence[Int[np.ndarray, " _"]],
    *,
    chunk: int = 256,
    budget: int = 1_000_000,
) -> Attack:
    """The attack; a case is `{"prefix": int [p], "suffix": int [s]}`, the output an `Extraction`.

    The target serves, for tokens `[t]`, the natural logarithms `[t, vocabulary]` of its next-token probabilities, row
    i for token i + 1: `Target(..., serve=lambda outputs: jax.nn.log_softmax(outputs.logits))`. Weight access
    takes them from its logits. The prefix holds at least one token, the suffix may be empty. A candidate to which the
    target gives no probability at all has the log-perplexity `core.WORST`. A case ends as non-finite where a token is
    not in the vocabulary or nothing negative is served (probabilities instead of logarithms).

    Args:
      oracle: score access.
      space: R: for every position of the secret the distinct tokens that may stand there; one where it is known.
      chunk: candidates asked about at a time, per case; chunk * t * vocabulary scores are then in memory.
      budget: most target queries per case; the attack spends |R|.

    Raises:
      ThreatModelError: with less than score access.
      ValueError: for an empty space, a position without tokens or with repeated or negative ones, a chunk below 1, a
        budget that the enumeration exceeds; while tracing, for an empty prefix.
    """
    view = lower(oracle, Access.SCORES, "text/secret_sharer")
    _check_space(space)
    sizes = tuple(len(choices) for choices in space)
    queries = math.prod(sizes)
    if chunk < 1:
        raise ValueError(f"chunk: {chunk}; legal is 1 or more")
    if queries > budget:
        raise ValueError(f"budget: {budget} queries per case, but the space has {queries} candidates")
    tokens = [jnp.asarray(choices, jnp.int32) for choices in space]

    def log_probabilities(key: Any, sequence: Any) -> Float[Array, "t vocabulary"]:
        if isinstance(oracle, Weights):  # what `lower` makes of them are probabilities, which round to zero
            return jax.nn.log_softmax(oracle.answer(key, sequence))
        served = view.answer(key, sequence)
        return jnp.where(jnp.all(served >= 0), jnp.nan, served)

    def secret_of(candidate: Int[Array, ""]) -> Int[Array, " positions"]:
        places = jnp.unravel_index(candidate, sizes)
        return jnp.stack([choices[place] for choices, place in zip(tokens, places, strict=True)])

    def extract(key: Any, case: Any) -> Extraction:
        before = case["prefix"].shape[0]
        if before == 0:
            raise ValueError("prefix: has no tokens; legal is 1 or more, a model does not predict the first token")

        def log_perplexity(candidate: Int[Array, ""]) -> Float[Array, ""]:
            sequence = jnp.concatenate([case["prefix"], secret_of(candidate), case["suffix"]])
            served = log_probabilities(jax.random.fold_in(key, candidate), sequence)
            wanted = sequence[before:, None]
            wanted = jnp.where(wanted < 0, served.shape[-1], wanted)  # a negative index would count from the end
            chosen = jnp.take_along_axis(served[before - 1 : -1], wanted, axis=1, mode="fill", fill_value=jnp.nan)
            return jnp.minimum(-jnp.sum(chosen) / math.log(2), WORST)

        found = jax.lax.map(log_perplexity, jnp.arange(queries, dtype=jnp.int32), batch_size=min(chunk, queries))
        return Extraction(found, secret_of(jnp.argmin(found)), jnp.asarray(queries, jnp.int32))

    return Attack(lambda fitted: score(extract), observes=CARD.observes)


def _check_space(space: Sequence[Int[np.ndarray, " _"]]) -> None:
    if len(space) == 0:
        raise ValueError("space: has no positions; legal is 1 or more")
    for position, choices in enumerate(space):
        if len(choices) == 0 or len(np.unique(choices)) < len(choices) or np.min(choices) < 0:
            raise ValueError(
                f"space[{position}]: {np.asarray(choices).tolist()}; legal is one token or more, distinct, 0 or above"
            )
