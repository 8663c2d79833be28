"""What the loaders return: images, discrete records, graphs, texts. Host arrays only (numpy), no device."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

__all__ = ["Column", "Graph", "Graphs", "Images", "Table", "Texts", "to_float"]


class Images(NamedTuple):
    """Labeled pictures.

    Attributes:
      images: n pictures, 0-255, row 0 on top; 1 channel is grey, 3 are RGB. May be a read-only memmap.
      labels: the identity or class of every picture, an index into `names`.
      names: one name per identity or class.
      notes: sentences on what was noticed while they were read, such as pictures that were left
        out.
    """

    images: UInt8[np.ndarray, "n h w c"]
    labels: Int[np.ndarray, " n"]
    names: tuple[str, ...]
    notes: tuple[str, ...] = ()


class Column(NamedTuple):
    """One discrete attribute and the names of its values, in order where the attribute has an order."""

    name: str
    levels: tuple[str, ...]


class Table(NamedTuple):
    """Records whose attributes are all discrete.

    Attributes:
      columns: the d attributes.
      codes: value of attribute j in record i, an index into `columns[j].levels`.
    """

    columns: tuple[Column, ...]
    codes: Int[np.ndarray, "n d"]

    def position(self, name: str) -> int:
        """Index of the column called `name`; ValueError with the legal names otherwise."""
        names = [column.name for column in self.columns]
        if name not in names:
            raise ValueError(f"column: {name!r} is not in the table; it has {', '.join(names)}")
        return names.index(name)


class Graph(NamedTuple):
    """An undirected graph with features and a class per node.

    Attributes:
      features: one row per node.
      edges: node pairs (i, j) with i < j, sorted, each once, no self-loop.
      labels: the class of every node, an index into `names`; -1 where the source has none.
      names: one name per class.
    """

    features: Float[np.ndarray, "n d"]
    edges: Int[np.ndarray, "m 2"]
    labels: Int[np.ndarray, " n"]
    names: tuple[str, ...]


class Graphs(NamedTuple):
    """Small undirected graphs, each with a class; padded to the n nodes of the largest, real nodes first.

    Attributes:
      adjacency: 1 where there is an edge, symmetric, zero diagonal.
      features: one row per node, zero for padding.
      mask: 1 for real nodes, 0 for padding.
      labels: the class of every graph, an index into `names`.
      names: one name per class.
    """

    adjacency: Float[np.ndarray, "g n n"]
    features: Float[np.ndarray, "g n d"]
    mask: Float[np.ndarray, "g n"]
    labels: Int[np.ndarray, " g"]
    names: tuple[str, ...]


class Texts(NamedTuple):
    """Documents and the genre of each one (same length)."""

    documents: tuple[str, ...]
    genres: tuple[str, ...]


def to_float(images: UInt8[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Bytes 0-255 to float32 in [0, 1], the range that every model and prior of the library works in.

    >>> to_float(np.array([0, 255], np.uint8)).tolist()
    [0.0, 1.0]
    """
    return np.asarray(images, np.float32) / np.float32(255)
