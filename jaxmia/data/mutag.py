"""MUTAG: aromatic nitro compounds, and whether they are mutagenic (Debnath et al. 1991; Kriege and Mutzel 2012)."""

import numpy as np

from jaxmia.data.fetch import StrPath, fetch, read_members
from jaxmia.data.types import Graphs

__all__ = ["ELEMENTS", "load"]

ELEMENTS = ("C", "N", "O", "F", "I", "Cl", "Br")
"""What the 7 features of an atom stand for, in order."""


def load(*, cache: StrPath | None = None) -> Graphs:
    """188 molecules without their hydrogen atoms, 10 to 28 atoms each, 3,721 bonds; 125 are mutagenic.

    Features are the element, one-hot. Kinds of bonds are left out.
    """
    prefix = "grakel/tests/data/MUTAG/MUTAG_"
    parts = ("A", "graph_indicator", "graph_labels", "node_labels")
    data = read_members(fetch("mutag", cache=cache), [f"{prefix}{part}.txt" for part in parts], limit_bytes=1 << 20)
    bonds, graph, classes, element = (
        np.array([line.split(",") for line in data[f"{prefix}{part}.txt"].decode("ascii").splitlines()], np.int64)
        for part in parts
    )
    # Files count from 1; atoms of one graph stand together.
    bonds, graph, element = bonds - 1, graph[:, 0] - 1, element[:, 0]
    sizes = np.bincount(graph)
    place = np.arange(len(graph)) - (np.cumsum(sizes) - sizes)[graph]
    if (np.diff(graph) < 0).any() or (graph[bonds[:, 0]] != graph[bonds[:, 1]]).any() or len(classes) != len(sizes):
        raise ValueError("mutag: atoms out of order, a bond between graphs, or a graph without a class")
    shape = (len(sizes), sizes.max())
    adjacency = np.zeros((*shape, shape[1]), np.float32)
    features, mask = np.zeros((*shape, len(ELEMENTS)), np.float32), np.zeros(shape, np.float32)
    first, second = bonds.T
    adjacency[graph[first], place[first], place[second]] = 1
    features[graph, place, element], mask[graph, place] = 1, 1
    labels = (classes[:, 0] == 1).astype(np.int32)
    return Graphs(adjacency, features, mask, labels, ("not mutagenic", "mutagenic"))
