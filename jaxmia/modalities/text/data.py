"""Texts for audits of language models: made-up secrets, planted in real text so often, or not at all."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from jaxmia.identity import digest

__all__ = ["DATA", "Corpus"]

BEFORE, AFTER = "\nthe random number is ", "\n"


class Corpus(NamedTuple):
    """Rows of characters that a model predicts, and the numbers planted in them.

    Attributes:
      name: of the data set.
      characters: the vocabulary; a token is an index into it.
      rows: `[n, length + 1]`, what trains the model, secrets planted.
      held_out: likewise, of other documents, nothing planted.
      documents: the document of each held-out row.
      prefix, suffix: the text before and after a number.
      digits: of a number.
      planted: numbers in the training rows.
      times: how often each of them stands there.
      absent: numbers that are planted nowhere.
      notes: sentences that a reader of the page must know.
    """

    name: str
    characters: str
    rows: Int[np.ndarray, "n t"]
    held_out: Int[np.ndarray, "m t"]
    documents: Int[np.ndarray, " m"]
    prefix: str
    suffix: str
    digits: int
    planted: Int[np.ndarray, " p"]
    times: Int[np.ndarray, " p"]
    absent: Int[np.ndarray, " a"]
    notes: tuple[str, ...] = ()

    @property
    def contents(self) -> dict[str, str]:
        """sha256 of all that it holds."""
        return {"text": digest(tuple(self[:-1]))}

    def encode(self, text: str) -> Int[np.ndarray, " t"]:
        """Tokens of a text."""
        return np.array([self.characters.index(c) for c in text], np.int32)


def brown(
    seed: int,
    *,
    genre: str = "lore",
    length: int = 64,
    digits: int = 5,
    times: tuple[int, ...] = (1, 4, 16, 64),
    numbers: int = 5,
    absent: int = 1000,
) -> Corpus:
    """One genre of the Brown corpus with sentences "the random number is ddddd", as in "The Secret Sharer" (2019).

    `numbers` numbers are planted each of `times` times, each copy over a part of another row of `length` + 1 characters;
    `absent` others nowhere. A tenth of the documents is held out.
    """
    from jaxmia.data import brown as source

    texts = source.load()
    genres = sorted(set(texts.genres))
    if genre not in genres:
        raise ValueError(f"data.genre: {genre!r}; legal is one of {', '.join(genres)}")
    # All of Brown, so that the vocabulary tells nothing about the genre.
    characters = "".join(sorted(set("".join(texts.documents))))
    documents = [text for text, its_genre in zip(texts.documents, texts.genres, strict=True) if its_genre == genre]
    return _planted("brown", documents, characters, length, digits, times, numbers, absent, seed)


def letters(
    seed: int,
    *,
    documents: int = 30,
    length: int = 32,
    digits: int = 2,
    times: tuple[int, ...] = (1, 32),
    numbers: int = 2,
    absent: int = 20,
) -> Corpus:
    """Made-up documents of random words over five letters, with secrets planted as in `brown`."""
    rng = np.random.default_rng((seed, 3))
    words = ["".join(rng.choice(list("abcde"), 3)) for _ in range(20)]
    texts = [" ".join(rng.choice(words, 100)) for _ in range(documents)]
    characters = "".join(sorted(set(BEFORE + AFTER + "0123456789 abcde")))
    return _planted("letters", texts, characters, length, digits, times, numbers, absent, seed)


DATA: dict[str, Callable[..., Corpus]] = {"brown": brown, "letters": letters}


def _planted(
    name: str, documents: list[str], characters: str, length: int, digits: int, times: tuple[int, ...], numbers: int,
    absent: int, seed: int,
) -> Corpus:  # fmt: skip
    space, wanted = 10**digits, len(times) * numbers
    if min(digits, numbers, absent, *times) < 1 or wanted + absent > space:
        raise ValueError(
            f"data: {wanted} numbers planted and {absent} absent; legal is 1 or more of each, and together at most "
            f"{space}, all of {digits} digits"
        )
    code = {c: i for i, c in enumerate(characters)}
    order = np.random.default_rng((seed, 0)).permutation(len(documents))
    held = len(order) // 10

    def rows_of(chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows, none of which crosses documents, and the document of each."""
        width, parts = length + 1, []
        for i in chosen:
            text = np.array([code[c] for c in documents[i]], np.int32)
            parts.append(text[: len(text) // width * width].reshape(-1, width))
        return np.concatenate(parts), np.repeat(chosen, [len(part) for part in parts])

    (held_out, whose), (rows, _) = rows_of(order[:held]), rows_of(order[held:])
    drawn = np.random.default_rng((seed, 1)).permutation(space)
    planted, often = drawn[:wanted], np.repeat(times, numbers)
    rng, copies = np.random.default_rng((seed, 2)), np.repeat(planted, often)
    if len(copies) > len(rows) or length + 1 < len(BEFORE) + digits + len(AFTER):
        raise ValueError(f"data: {len(copies)} sentences do not fit {len(rows)} rows of {length + 1} characters")
    for row, number in zip(rng.choice(len(rows), len(copies), replace=False), copies, strict=True):
        sentence = np.array([code[c] for c in f"{BEFORE}{number:0{digits}}{AFTER}"], np.int32)
        start = rng.integers(0, length + 2 - len(sentence))
        rows[row, start : start + len(sentence)] = sentence
    return Corpus(
        name, characters, rows, held_out, whose, BEFORE, AFTER, digits, planted, often, drawn[wanted : wanted + absent]
    )
