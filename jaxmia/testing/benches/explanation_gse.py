"""GSE: the bench of ExplainSim, with labels that say nothing about the edges and networks of few units."""

import functools

import numpy as np

from jaxmia.testing.benches import Bench, explain_sim, link_teller


@functools.cache
def make() -> Bench:
    bench = explain_sim.make()
    return bench._replace(
        inputs={
            **bench.inputs,
            "labels": np.random.default_rng(4).integers(0, link_teller.CLASSES, link_teller.NODES),
        },
        settings={
            "graph/explanation_gse": {
                "method": "gse",
                "steps": 60,
                "classify_after": 10,
                "neighbors": 6,
                "width": 16,
                "classifier_width": 8,
            }
        },
    )
