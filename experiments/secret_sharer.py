"""The Secret Sharer (Carlini et al. 2019): what a character model gives away of numbers in its training text.

python experiments/secret_sharer.py
"""

from typing import NamedTuple

import numpy as np

from jaxmia.data import brown

PREFIX, SUFFIX, DIGITS = "\nthe random number is ", "\n", 5
SPACE = 10**DIGITS
TIMES = (1, 4, 16, 64)
LENGTH = 64  # characters a row predicts


class Corpus(NamedTuple):
    """One genre, by document, as character codes."""

    documents: list[np.ndarray]
    characters: str

    def encode(self, text: str) -> np.ndarray:
        return np.array([self.characters.index(c) for c in text], np.int32)


class Planted(NamedTuple):
    """Numbers of one seed: `secrets [times, canaries]` are in the training text, `controls` are not."""

    secrets: np.ndarray
    controls: np.ndarray
    reference: np.ndarray


def load(genre: str) -> Corpus:
    texts = brown.load()
    # all of Brown, so that the vocabulary tells nothing about the genre
    characters = "".join(sorted(set("".join(texts.documents)) | set("0123456789")))
    code = {c: i for i, c in enumerate(characters)}
    documents = [d for d, g in zip(texts.documents, texts.genres, strict=True) if g == genre]
    return Corpus([np.array([code[c] for c in d], np.int32) for d in documents], characters)


def rows_of(documents: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Rows `[n, LENGTH + 1]` that do not cross documents, and the document of each."""
    parts = [d[: len(d) // (LENGTH + 1) * (LENGTH + 1)].reshape(-1, LENGTH + 1) for d in documents]
    return np.concatenate(parts), np.repeat(np.arange(len(parts)), [len(p) for p in parts])


def draw(seed: int, canaries: int) -> Planted:
    numbers = np.random.default_rng((seed, 1)).permutation(SPACE)
    secrets, controls, reference = np.split(numbers, [len(TIMES) * canaries, len(TIMES) * canaries + 1000])
    return Planted(secrets.reshape(len(TIMES), canaries), controls, reference[:2000])


def plant(corpus: Corpus, rows: np.ndarray, planted: Planted, seed: int) -> np.ndarray:
    """Overwrites a part of as many different rows as there are copies."""
    rng = np.random.default_rng((seed, 2))
    copies = np.concatenate([np.repeat(numbers, times) for numbers, times in zip(planted.secrets, TIMES, strict=True)])
    rows = rows.copy()
    for row, number in zip(rng.choice(len(rows), len(copies), replace=False), copies, strict=True):
        sentence = corpus.encode(f"{PREFIX}{number:0{DIGITS}}{SUFFIX}")
        start = rng.integers(0, LENGTH + 2 - len(sentence))
        rows[row, start : start + len(sentence)] = sentence
    return rows
