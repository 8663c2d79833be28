"""What an audit must know of a modality; images, records, graphs and texts each say it in one folder of `modalities`.

The audit trains, attacks, judges, resumes and sweeps by it, and knows no modality itself.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Bool, Int

from jaxmia.core import Card
from jaxmia.oracle import Access
from jaxmia.sections import Schema
from jaxmia.target import Target

__all__ = [
    "Arrays",
    "Baseline",
    "Data",
    "Fitted",
    "Judged",
    "MadeUp",
    "Modality",
    "Observed",
    "Panel",
    "Training",
    "without_model",
]

Arrays = dict[str, np.ndarray]


class Data(Protocol):
    """A data set with its division into what trained the target, what it never saw, and what is public.

    Attributes:
      name: heads the page; that of a user's own data has the first digits of its digest.
      contents: sha256 of each part.
      notes: sentences that a reader of the page must know.
    """

    @property
    def name(self) -> str: ...

    @property
    def contents(self) -> dict[str, str]: ...

    @property
    def notes(self) -> tuple[str, ...]: ...


class Training(NamedTuple):
    """How one network of an audit is trained.

    Attributes:
      fit: `engine.fit`, or what stands for it where nothing is trained.
      folder: where the training is kept, and found again.
      seed: of the first weights and of the minibatches.
      title: for the progress line.
      defense: sections of the defenses that it has together, none for none.
      control: "" for a target, else one of `Modality.controls`.
      label_seed: seeds what a control shuffles.
      real: False where networks stay zeros, of which nothing is to be measured.
    """

    fit: Callable[..., tuple[Any, Any]]
    folder: Any
    seed: int
    title: str
    defense: Sequence[dict[str, Any]] = ()
    control: str = ""
    label_seed: Any = 0
    real: bool = True


class Fitted(NamedTuple):
    """A trained target.

    Attributes:
      target: what attacks get a view of.
      module: its Linen module; None where it is none.
      spent: what the defense has to say of the privacy that was spent; "" for nothing.
      labels: that it learned, where an adversary is told those; a control's are shuffled.
      notes: sentences on it that a reader of the page must know.
      views: what else of it attacks may be shown or observe, by names of the modality.
    """

    target: Target
    module: Any = None
    spent: str = ""
    labels: Any = None
    notes: tuple[str, ...] = ()
    views: Mapping[str, Any] = {}


class Observed(NamedTuple):
    """What an attack observes, and what of it is true.

    Attributes:
      cases: goes to the attack; leading axis: cases. A case may be of several things that are attacked.
      groups: of each thing attacked, the independent unit that it belongs to: class, person, node.
      truth: goes to the judge and the page, nowhere else; leading axis: things attacked.
      ids: a number of each thing attacked; None numbers them.
      held_out: things that the target never saw, attacked as a comparison and counted apart; None for none.
      served: whether the attack gets what the target answers to `cases` in place of them.
    """

    cases: Any
    groups: Int[np.ndarray, " n"]
    truth: Arrays = {}
    ids: Int[np.ndarray, " n"] | None = None
    held_out: Bool[np.ndarray, " n"] | None = None
    served: bool = False


class Judged(NamedTuple):
    """What judging found.

    Attributes:
      metrics: by name an estimate with "unit" and "stronger" (see `jaxmia.report`), the headline first.
      arrays: for the file of a cell: "success" of each thing attacked, and others called "metric:NAME".
      exhibits: what a page can show of it (see `jaxmia.report.exhibits`), without arrays.
    """

    metrics: dict[str, dict[str, Any]]
    arrays: Arrays = {}
    exhibits: list[dict[str, Any]] = []


class Panel(NamedTuple):
    """Who judges.

    Attributes:
      judges: each with `name`, `digest` of its parameters, and `accuracy`.
      absent: names of those that could not be had this time; what they said before stays.
      note: a sentence for the page on who is absent.
    """

    judges: Sequence[Any] = ()
    absent: tuple[str, ...] = ()
    note: str = ""


class MadeUp(NamedTuple):
    """What stands for a configuration whose data are not read: zeros in the shapes that it says.

    Attributes:
      config: that names no file.
      data: as much of it as programs see.
      inputs: by name, those that depend on how much data there is.
    """

    config: dict[str, Any]
    data: Data
    inputs: Mapping[str, Any] = {}


class Baseline(NamedTuple):
    """No attack: what is found without the target.

    Attributes:
      label: what the page calls it.
      card: its row in the table of methods.
      guess: `inputs -> arrays`, as an attack's output and its truth are kept.
    """

    label: str
    card: Card
    guess: Callable[[Any], Arrays]


def without_model(
    title: str, modality: str, *, recovers: str, knows: str, guess: Callable[[Any], Arrays], paper: str = "no attack"
) -> Baseline:
    """A baseline, with the card that says so."""
    card = Card(
        title, paper, url="", year=0, modality=modality, access=Access.NONE, recovers=recovers, knows=knows, observes=""
    )  # fmt: skip
    return Baseline(f"{title} (no model)", card, guess)


class Modality(NamedTuple):
    """One kind of data.

    Attributes:
      data: `name -> factory(**keywords) -> Data`. A factory with a parameter `seed` gets that of the configuration.
      targets: `name -> factory(**keywords) -> recipe`.
      fit: `(recipe, data, Training) -> Fitted`.
      accuracy: `(Fitted, data) -> ` how well a target does its own job on held-out data: an estimate, as in metrics.
      inputs: what attacks ask for by the name of a parameter, made once: `name -> (Inputs -> value)`.
      target_inputs: the same of each target; `Inputs.fitted` is the target.
      forced: the same, for keywords that follow from the data or the target and that a configuration cannot choose.
      observe: by `Card.observes`, `Inputs -> Observed`.
      keep: `(output, Observed) -> ` what of an attack's output is judged and kept; leading axis: things attacked.
      judge: `(panel's judges, data, arrays) -> Judged`; the arrays are those kept, the truth, "targets" (groups),
        "case_ids", "failed" and, where something is held out, "held_out".
      judges: `(Inputs, folder, fit) -> Panel`.
      baselines: name -> `Baseline`.
      controls: kinds of targets from which nothing can be recovered, the first is what a target's name alone means:
        "shuffled" labels, "untrained", "constant", or the modality's own.
      shown: `(Fitted, card, configuration) -> ` the target, or the part of it, that an attack is shown.
      truth: what the page shows as private, arrays of truth.npz.
      check: `Inputs -> None`, raises ValueError for what contradicts itself in the sections of its own.
      others: `Inputs -> ` what is trained beside the targets: by name its section, and `fit -> anything` that trains it.
      made_up: `(configuration, public records) -> MadeUp`, for `jaxmia plan`; None loads the data.
      sections: of its own, beside those that every configuration has.
    """

    data: Mapping[str, Callable[..., Data]]
    targets: Mapping[str, Callable[..., Any]]
    fit: Callable[[Any, Any, Training], Fitted]
    accuracy: Callable[[Fitted, Any], dict[str, Any] | None]
    inputs: Mapping[str, Callable[[Any], Any]]
    observe: Mapping[str, Callable[[Any], Observed]]
    keep: Callable[[Any, Observed], Arrays]
    judge: Callable[[Sequence[Any], Any, Arrays], Judged]
    target_inputs: Mapping[str, Callable[[Any], Any]] = {}
    forced: Mapping[str, Callable[[Any], Any]] = {}
    judges: Callable[[Any, Any, Any], Panel] = lambda inputs, folder, fit: Panel()
    baselines: Mapping[str, Baseline] = {}
    controls: tuple[str, ...] = ("shuffled",)
    shown: Callable[[Fitted, Card, dict[str, Any]], Target] = lambda fitted, card, config: fitted.target
    truth: Callable[[Any], Arrays] = lambda data: {}
    check: Callable[[Any], None] = lambda inputs: None
    others: Callable[[Any], Mapping[str, tuple[Any, Callable[[Any], Any]]]] = lambda inputs: {}
    made_up: Callable[[dict[str, Any], int], MadeUp] | None = None
    sections: Schema = {}
