"""Surveys for audits of record classifiers: who trained the target, who is public, and what the public alone tells."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxmia.audit.modality import MadeUp
from jaxmia.data.types import Table
from jaxmia.identity import digest
from jaxmia.packages import require

__all__ = ["DATA", "Split", "Survey", "imputations", "made_up", "one_hot", "split"]


class Split(NamedTuple):
    """Row numbers; no record is in two of them."""

    training: Int[np.ndarray, " m"]
    held_out: Int[np.ndarray, " m"]
    public: Int[np.ndarray, " p"]


class Survey(NamedTuple):
    """Records without duplicates, and what the adversary wants of them.

    Attributes:
      name: of the data set.
      codes: what the target reads, attribute j in [0, columns[j]); the sensitive attribute is 0 or 1.
      labels: what it predicts.
      columns: values per attribute.
      classes: values of the label.
      sensitive: index of the wanted attribute.
      unknown: indices of further attributes that the adversary lacks.
      parts: who trained the target, who is held out, and who is public: the adversary has those in full.
    """

    name: str
    codes: Int[np.ndarray, "n d"]
    labels: Int[np.ndarray, " n"]
    columns: tuple[int, ...]
    classes: int
    sensitive: int
    unknown: tuple[int, ...]
    parts: Split
    notes: tuple[str, ...] = ()

    @property
    def contents(self) -> dict[str, str]:
        """sha256 of all that it holds, by name."""
        return {"records": digest(tuple(self[:-1]))}

    @property
    def victims(self) -> Int[np.ndarray, " v"]:
        """Rows of the training, then of as many held-out records."""
        return np.concatenate([self.parts.training, self.parts.held_out])


def fair(seed: int, *, members: int = 1200, public: int = 2700) -> Survey:
    """Fair 1978: how a woman rates her marriage is predicted, whether she had an affair is wanted."""
    from jaxmia.data import fair as source

    return _survey("fair", source.load(), source.SENSITIVE, source.TARGET, (), members, public, seed)


def adult(seed: int, *, members: int = 2000, public: int = 10_000) -> Survey:
    """Census income 1994: income is predicted, being married is wanted, `relationship` is unknown too."""
    from jaxmia.data import adult as source

    table = source.load()
    place = table.position(source.SENSITIVE)
    levels = table.columns[place].levels
    married = np.isin(np.arange(len(levels)), [levels.index("Married-civ-spouse"), levels.index("Married-AF-spouse")])
    codes, columns = table.codes.copy(), list(table.columns)
    codes[:, place] = married[codes[:, place]]
    columns[place] = columns[place]._replace(levels=("no", "yes"))
    table = table._replace(columns=tuple(columns), codes=codes)
    return _survey("adult", table, source.SENSITIVE, source.TARGET, ("relationship",), members, public, seed)


DATA: dict[str, Callable[..., Survey]] = {"fair": fair, "adult": adult}


def _survey(
    name: str, table: Table, sensitive: str, label: str, unknown: tuple[str, ...], members: int, public: int, seed: int
) -> Survey:
    records = np.unique(table.codes, axis=0)  # an equal record among the public would be the answer itself
    if min(members, public) < 1 or 2 * members + public > len(records):
        raise ValueError(
            f"data.members, data.public: {members}, {public}; legal is 1 or more, with 2 * members + public at most "
            f"{len(records)}, the distinct records of {name}"
        )
    target = table.position(label)
    kept = [j for j in range(len(table.columns)) if j != target]
    return Survey(
        name,
        records[:, kept],
        records[:, target],
        tuple(len(table.columns[j].levels) for j in kept),
        len(table.columns[target].levels),
        kept.index(table.position(sensitive)),
        tuple(kept.index(table.position(other)) for other in unknown),
        split(len(records), members, public, seed),
    )


def split(n: int, members: int, public: int, seed: int) -> Split:
    """Training records, as many held out, and public ones, of `n`, drawn by `seed`."""
    order = np.random.default_rng((seed, 1)).permutation(n)
    return Split(order[:members], order[members : 2 * members], order[2 * members : 2 * members + public])


def made_up(config: dict[str, Any], public: int) -> MadeUp:
    """Zeros in the shapes of the survey that a configuration names."""
    del public
    section = config["data"]
    columns, classes, sensitive, unknown = {
        "fair": ((6, 7, 6, 4, 6, 6, 6, 2), 5, 7, ()),
        "adult": ((6, 9, 16, 2, 15, 6, 5, 2, 4, 4, 7, 42), 2, 3, (5,)),
    }[section["name"]]
    n = 2 * section["members"] + section["public"]
    codes, parts = np.zeros((n, len(columns)), np.int32), split(n, section["members"], section["public"], 0)
    labels = np.arange(n, dtype=np.int32) % classes  # every one occurs
    survey = Survey(section["name"], codes, labels, columns, classes, sensitive, unknown, parts)
    return MadeUp(config, survey, {"imputations": {"imputation_label": np.zeros(2 * section["members"])}})


def one_hot(codes: Int[np.ndarray, "n d"], columns: tuple[int, ...]) -> Float[np.ndarray, "n features"]:
    """Attributes side by side, each as one 1 among zeros."""
    return np.concatenate([np.eye(size, dtype=np.float32)[codes[:, j]] for j, size in enumerate(columns)], axis=1)


def imputations(survey: Survey) -> dict[str, Float[np.ndarray, " v"]]:
    """What public records alone tell of the victims, as the probability of the sensitive value being 1.

    `prior` is its share, `imputation` a logistic regression from what the adversary knows of a victim, and
    `imputation_label` the same with the label: only what an attack finds beyond that has leaked from the model.
    """
    require("sklearn")
    victims, parts = survey.victims, survey.parts
    from sklearn.linear_model import LogisticRegression

    hidden = {survey.sensitive, *survey.unknown}
    known = [j for j in range(len(survey.columns)) if j not in hidden]
    features = one_hot(survey.codes[:, known], tuple(survey.columns[j] for j in known))
    labels = np.eye(survey.classes, dtype=np.float32)[survey.labels]
    wanted = survey.codes[:, survey.sensitive]
    found: dict[str, Any] = {"prior": np.full(len(victims), wanted[parts.public].mean())}
    for name, x in (("imputation", features), ("imputation_label", np.concatenate([features, labels], axis=1))):
        model = LogisticRegression(max_iter=1000).fit(x[parts.public], wanted[parts.public])
        found[name] = model.predict_proba(x[victims])[:, 1]
    return found
