"""ExplainSim: the explanations that the target of LinkTeller's bench gives. An output is `scores` `[n, nodes, nodes]`.

The features say nothing about the edges, so that what is found was in the explanations.
"""

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxmia import Target
from jaxmia.core import Card
from jaxmia.metrics.estimate import Estimate
from jaxmia.metrics.graph import link_interval, link_scores
from jaxmia.models.graph_explanations import mask_gradient
from jaxmia.testing.benches import Bench, link_teller


def cases(target: Target, card: Card) -> Any:
    """One graph."""
    del card
    apply: Any = target.apply
    explained = mask_gradient(lambda x: apply(target.params, x), jnp.asarray(link_teller.features()))
    return {"explanation": np.asarray(explained)[None]}


def judge(output: Any) -> Estimate:
    return link_interval(link_scores(np.asarray(output, np.float64).mean(0), link_teller.graph()))


@functools.cache
def make() -> Bench:
    return link_teller.make()._replace(cases=cases, judge=judge)
