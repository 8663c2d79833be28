"""What an audit supplies its attacks with: each input is made when an attack's signature asks for it, and once."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jaxmia.audit.modality import Fitted, Modality
from jaxmia.core import Process

__all__ = ["Inputs"]


class Inputs(Mapping[str, Any]):
    """Inputs by the parameter name that attacks ask for them with; the modality says how each is made.

    Attributes:
      modality: of the configuration.
      config: resolved.
      data: its data.
      fit: `(process, batches, name) -> output`, trains what an input needs.
      fitted: the target, in what `of` returns.

    Raises:
      ValueError: when an input is made that its section does not fit, naming the section.
    """

    def __init__(
        self,
        modality: Modality,
        config: dict[str, Any],
        data: Any,
        fit: Callable[[Process, Any, str], Any],
        **given: Any,
    ):
        """`given` are inputs by name, in place of those that would be made."""
        self.modality, self.config, self.data, self.fit = modality, config, data, fit
        self._makers, self._made = modality.inputs, dict(given)
        self._above: Inputs | None = None
        self._fitted: Fitted | None = None

    def of(self, fitted: Fitted) -> "Inputs":
        """These inputs, and those that are of one target."""
        below = Inputs(self.modality, self.config, self.data, self.fit)
        below._makers = {**self.modality.target_inputs, **self.modality.forced}
        below._above, below._fitted = self, fitted
        return below

    @property
    def fitted(self) -> Fitted:
        assert self._fitted is not None, "an input of the data alone asked for a target"
        return self._fitted

    def __getitem__(self, name: str) -> Any:
        if name in self._made:
            return self._made[name]
        if self._above is not None and name not in self._makers:
            return self._above[name]
        self._made[name] = self._makers[name](self)
        return self._made[name]

    def __contains__(self, name: object) -> bool:
        return name in self._makers or name in self._made or (self._above is not None and name in self._above)

    def __iter__(self) -> Iterator[str]:
        yield from self._makers
        if self._above is not None:
            yield from self._above

    def __len__(self) -> int:
        return sum(1 for _ in self)
