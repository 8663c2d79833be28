"""HeteGMI: authors, papers and venues, and a one-layer network of two meta-paths.

An output holds `by_path`, each `[n, authors, authors]`. Authors are of one of two fields, which is
their label. A paper has four authors, of one field but for the first of one in twenty, and one of
three venues of the first author's field. Meta-paths join authors of a common paper, and of papers
at a common venue. Author features are one-hot, so the weights W `[authors, 2]` of a path, logits
are the sum of A' W over paths, hold a row per author, and the sign of the product of two rows tells
one field from two. The adversary knows two labels. What is judged is the path that is told worse.
Cases are restarts, whose mean counts. The control's labels are each of half of a field: fitted to
labels that fall unevenly, weights still tell who shares venues.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmia import Outputs, Target
from jaxmia.metrics.estimate import Estimate
from jaxmia.metrics.graph import link_interval, link_scores
from jaxmia.models.graph import normalize_adjacency
from jaxmia.testing.benches import Bench
from jaxmia.testing.benches.graph import cases

AUTHORS, PAPERS, VENUES = 24, 72, 3
PATHS = ("APA", "APVPA")
FIELDS = (np.arange(AUTHORS) // (AUTHORS // 2)).astype(np.int32)


@functools.cache
def graphs() -> dict[str, np.ndarray]:
    """The adjacency of every meta-path, `[authors, authors]`."""
    rng = np.random.default_rng(0)
    wrote, at = np.zeros((AUTHORS, PAPERS), int), np.zeros((PAPERS, 2 * VENUES), int)
    for paper in range(PAPERS):
        first = paper % AUTHORS
        field = FIELDS[first] if rng.random() < 0.95 else 1 - FIELDS[first]
        others = np.flatnonzero((FIELDS == field) & (np.arange(AUTHORS) != first))
        wrote[[first, *rng.choice(others, 3, replace=False)], paper] = 1
        at[paper, VENUES * FIELDS[first] + rng.integers(VENUES)] = 1
    places = wrote @ at
    joined = {"APA": wrote @ wrote.T, "APVPA": places @ places.T}
    return {path: ((paths > 0) & ~np.eye(AUTHORS, dtype=bool)).astype(np.float32) for path, paths in joined.items()}


def ridge(labels: np.ndarray) -> dict[str, np.ndarray]:
    """W of every path in closed form: least squares on the labels as -1 and 1, by that path alone."""
    signs = np.where(labels[:, None] == np.arange(2), 1.0, -1.0)

    def fitted(adjacency: np.ndarray) -> np.ndarray:
        spread = np.asarray(normalize_adjacency(jnp.asarray(adjacency)), np.float64)
        return np.linalg.solve(spread.T @ spread + 0.1 * np.eye(AUTHORS), spread.T @ signs).astype(np.float32)

    return {path: fitted(adjacency) for path, adjacency in graphs().items()}


def build(params: Any, **options: Any) -> Target:
    def apply(params: Any, adjacencies: Any) -> Outputs:
        hidden = {path: normalize_adjacency(adjacencies[path]) @ params[path] for path in PATHS}
        return Outputs(sum(hidden.values(), jnp.zeros(2)), hidden)

    return Target(apply, jax.tree.map(jnp.asarray, params), classes=2, **options)


def judge(output: Any) -> Estimate:
    told = [
        link_interval(link_scores(np.asarray(output.by_path[path], np.float64).mean(0), graphs()[path]))
        for path in PATHS
    ]
    return min(told, key=lambda estimate: estimate.value)


@functools.cache
def make() -> Bench:
    leaks = ridge(FIELDS)
    return Bench(
        build=build,
        params={
            "leaks": leaks,
            "shuffled": ridge((np.arange(AUTHORS) % 2).astype(np.int32)),
            "constant": jax.tree.map(np.zeros_like, leaks),
        },
        inputs={
            "features": np.eye(AUTHORS, dtype=np.float32),
            "labels": np.where(np.arange(AUTHORS) % (AUTHORS // 2) == 0, FIELDS, -1),
            "paths": PATHS,
        },
        cases=cases,
        judge=judge,
        chance=0.5,
        candidate=dict.fromkeys(PATHS, jnp.zeros((AUTHORS, AUTHORS))),  # type: ignore[arg-type]
    )
