"""Surveys for audits of record classifiers: who trained the target, who is public, and what the public alone tells."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxmia.data.types import Table
from jaxmia.identity import digest
from jaxmia.packages import require

__all__ = ["SURVEYS", "Split", "Survey", "imputations", "one_hot", "split"]


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
      members: training records; as many are held out.
      public: records that the adversary has in full.
    """

    name: str
    codes: Int[np.ndarray, "n d"]
    labels: Int[np.ndarray, " n"]
    columns: tuple[int, ...]
    classes: int
    sensitive: int
    unknown: tuple[int, ...]
    members: int
    public: int

    @property
    def contents(self) -> dict[str, str]:
        """sha256 of all that it holds, by name."""
        return {"records": digest(tuple(self))}


class Split(NamedTuple):
    """Row numbers; no record is in two of them."""

    training: Int[np.ndarray, " m"]
    held_out: Int[np.ndarray, " m"]
    public: Int[np.ndarray, " p"]


def fair(*, members: int = 1200, public: int = 2700) -> Survey:
    """Fair 1978: how a woman rates her marriage is predicted, whether she had an affair is wanted."""
    from jaxmia.data import fair as source

    return _survey("fair", source.load(), source.SENSITIVE, source.TARGET, (), members, public)


def adult(*, members: int = 2000, public: int = 10_000) -> Survey:
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
    return _survey("adult", table, source.SENSITIVE, source.TARGET, ("relationship",), members, public)


SURVEYS: dict[str, Callable[..., Survey]] = {"fair": fair, "adult": adult}


def _survey(
    name: str, table: Table, sensitive: str, label: str, unknown: tuple[str, ...], members: int, public: int
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
        members,
        public,
    )


def split(survey: Survey, seed: int) -> Split:
    """Training, held-out and public records, drawn by `seed`."""
    order = np.random.default_rng((seed, 1)).permutation(len(survey.codes))
    m = survey.members
    return Split(order[:m], order[m : 2 * m], order[2 * m : 2 * m + survey.public])


def one_hot(codes: Int[np.ndarray, "n d"], columns: tuple[int, ...]) -> Float[np.ndarray, "n features"]:
    """Attributes side by side, each as one 1 among zeros."""
    return np.concatenate([np.eye(size, dtype=np.float32)[codes[:, j]] for j, size in enumerate(columns)], axis=1)


def imputations(survey: Survey, parts: Split, victims: Int[np.ndarray, " v"]) -> dict[str, Float[np.ndarray, " v"]]:
    """What public records alone tell of the victims, as the probability of the sensitive value being 1.

    `prior` is its share, `imputation` a logistic regression from what the adversary knows of a victim, and
    `imputation_label` the same with the label: only what an attack finds beyond that has leaked from the model.
    """
    require("sklearn")
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
