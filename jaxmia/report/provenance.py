"""What a run was made of, as digests: its configuration, its data, its models and its judges."""

import pathlib
from typing import Any, NamedTuple

from jaxmia.report.folder import Run
from jaxmia.report.objects import read_object, read_objects

__all__ = ["Provenance", "provenance"]


class Provenance(NamedTuple):
    """Digests (sha256, 64 hex digits); "" or nothing where the run does not say.

    Attributes:
      configuration: of what decides the results.
      data: by part of the data set, "public" for what the adversary may have.
      models: of the parameters, by name of the target.
      evaluators: of the parameters, by name.
      versions: of the packages, as text.
    """

    configuration: str
    data: dict[str, str]
    models: dict[str, str]
    evaluators: dict[str, str]
    versions: dict[str, str]

    @property
    def private(self) -> dict[str, str]:
        """The data that are not public, by part."""
        return {part: digest for part, digest in self.data.items() if part != "public"}


def provenance(run: Run) -> Provenance:
    """What the files of a run folder say of it.

    Raises:
      ValueError: one of them is damaged; the message names it.
    """
    marker, judges = run.folder / "config.sha256", run.folder / "evaluators.json"
    evaluators = read_objects(judges) if judges.exists() else []
    return Provenance(
        marker.read_text("utf-8", errors="replace").strip() if marker.exists() else "",
        _texts(run.folder / "identity.json", "data"),
        {target.name: target.digest for target in run.targets.values() if target.digest},
        {judge.text("name"): judge.text("digest") for judge in evaluators},
        _texts(run.folder / "identity.json", "versions"),
    )


def _texts(path: pathlib.Path, name: str) -> dict[str, Any]:
    if not path.exists():
        return {}
    entry = read_object(path).inner(name)
    return {key: entry.text(key) for key in entry.values}
