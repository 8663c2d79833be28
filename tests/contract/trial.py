"""One attack on its bench. Training stages and runs are done once, and nothing here knows which attack it is."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxmia import Access, Attack, Plan, Process, Result, solve
from jaxmia.discovery import Method
from jaxmia.engine import learn
from tests.contract.benches import bench

__all__ = ["CAP", "FOUR", "KEY", "ONE", "SHORT", "Trial"]

KEY = jax.random.key(7)
CAP, SHORT = 400, 20  # most steps of a run that is judged, and of one that is compared
ONE = Plan(devices=tuple(jax.devices()[:1]), chunk=4, block=7, save_seconds=0.0, progress=False)
FOUR = ONE._replace(devices=tuple(jax.devices()[:4]), chunk=1, mapper="pmap", loop="scan")


class Trial:
    """An attack against the targets of its bench.

    Attributes:
      method: the attack.
      on: the bench.
      traces: how often a run traced the step, by target, plan and steps.
    """

    def __init__(self, method: Method):
        self.method, self.on = method, bench(method)
        self.traces: dict[Any, int] = {}
        self._fitted: dict[str, tuple] = {}
        self._results: dict[Any, Result] = {}

    def attack(self, oracle: Any, **hyperparameters: Any) -> Attack:
        """What the factory makes of an oracle and the inputs that it names."""
        inputs = {name: self.on.inputs[name] for name in self.method.inputs if name != "oracle"}
        settings = self.on.settings.get(self.method.name, {})
        return self.method.factory(oracle, **inputs, **{**settings, **hyperparameters})

    def oracle(self, which: str = "leaks", **options: Any) -> Any:
        """The view of a target that the card asks for; the options are those of `Target`."""
        return self.on.target(which, **options).view(self.method.card.access, self.method.name)

    def fitted(self, which: str = "leaks") -> tuple:
        """What the training stages read out against a target."""
        if which not in self._fitted:
            outputs: tuple[Any, ...] = ()
            for stage in self.attack(self.oracle(which)).train:
                outputs += (learn(stage(outputs), KEY, self.batches(), plan=ONE)[0],)
            self._fitted[which] = outputs
        return self._fitted[which]

    def batches(self) -> Any:
        assert self.on.public is not None, f"{self.method.name} trains; give its bench public data"
        return self.on.public

    def process(self, which: str = "leaks") -> Process:
        """The process of one case."""
        return self.attack(self.oracle(which)).solve(self.fitted(which))

    def cases(self, which: str = "leaks") -> Any:
        """What was observed of the leaking target; a control puts another oracle beside it.

        Scores that a target of shuffled labels served itself would be no control: they still tell the image. An attack
        that is given no oracle is controlled by what it observes, of targets that its bench makes for that.
        """
        asks = self.method.card.access > Access.NONE
        return self.on.cases(self.on.target("leaks" if asks else which), self.method.card)

    def case(self, index: int = 0) -> Any:
        return jax.tree.map(lambda leaf: jnp.asarray(leaf[index]), self.cases())

    def run(self, which: str = "leaks", plan: Plan = ONE, most: int = CAP) -> Result:
        """All cases through the engine, for at most that many steps."""
        process = self.process(which)
        run = (which, plan, min(process.steps, most))
        if run not in self._results:
            traces = []

            def step(*arguments: Any) -> Any:
                traces.append(1)
                return process.step(*arguments)

            self._results[run] = solve(process._replace(step=step), KEY, self.cases(which), steps=run[2], plan=plan)
            self.traces[run] = len(traces)
        return self._results[run]
