"""Search: evolve latents by the confidence that the target serves for a class.

Authors, "Title", Venue Year (https://example.org/paper), algorithm 1: max over z of f_y(G(z)) by a genetic search.
What differs from the paper, or in the paper from its released code. Here: nothing.
"""

from jaxmia.core import Attack, Card, Prior, Scalar
from jaxmia.oracle import Access, Oracle, Scores, lower
from jaxmia.recipes import evolve

CARD = Card(
    title="Search",
    paper="Authors. Title. Venue Year",
    url="https://example.org/paper",
    year=2026,
    modality="image",
    access=Access.SCORES,
    recovers="an image of a class, as the prior can draw it",
    knows="public images",
)


def search(oracle: Oracle, prior: Prior, *, steps: int = 50, members: int = 16, mutation: Scalar = 0.3) -> Attack:
    """The attack; a case is a class index, the output a decoded candidate.

    Args:
      oracle: score access; each generation asks `members / 2` queries.
      prior: vector latents, where candidates live.
      steps: generations.
      members: population size.
      mutation: standard deviation of the noise, in latent units.
    """
    view: Scores = lower(oracle, CARD.access, "image/search")

    fitness = lambda key, candidate, label: -view.answer(key, candidate)[label]  # noqa: E731
    solve = lambda fitted: evolve(fitness, prior, members=members, steps=steps, mutation=mutation)  # noqa: E731
    return Attack(solve, observes=CARD.observes)
