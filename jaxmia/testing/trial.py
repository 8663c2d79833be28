"""One attack on its bench. Training stages and runs are done once, and nothing here knows which attack it is."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmia.compiling import hoisted
from jaxmia.core import Attack, Cases, Process, tree_where
from jaxmia.discovery import Method
from jaxmia.engine import Result, learn, solve
from jaxmia.oracle import Access
from jaxmia.plan import Plan
from jaxmia.testing.benches import Bench, bench_of

__all__ = ["CAP", "FOUR", "KEY", "ONE", "SHORT", "TARGETS", "Meaning", "Trial"]

KEY = jax.random.key(7)
CAP, SHORT = 400, 20  # most steps of a run that is judged, and of one that is compared
TARGETS = ("leaks", "shuffled", "constant")
ONE = Plan(devices=tuple(jax.devices()[:1]), chunk=4, block=7, save_seconds=0.0, progress=False)
FOUR = ONE._replace(devices=tuple(jax.devices()[:4]), chunk=1, mapper="pmap", loop="scan")


class Meaning(NamedTuple):
    """What an attack makes of one target.

    Attributes:
      started: per case, whether the first state was finite.
      short: the output after `SHORT` steps, or all if there are fewer.
      whole: the output after `CAP` steps, or all.
    """

    started: np.ndarray
    short: Any
    whole: Any


class Trial:
    """An attack against the targets of its bench; `training` is the most steps of a stage, None for all.

    Attributes:
      method: the attack.
      on: the bench.
      traces: how often a run traced the step, by target, plan and steps.
    """

    def __init__(
        self,
        method: Method,
        *,
        bench: Bench | None = None,
        inputs: dict[str, Any] | None = None,
        settings: dict[str, Any] | None = None,
        training: int | None = None,
    ):
        on = bench or bench_of(method)
        own = {method.name: {**on.settings.get(method.name, {}), **(settings or {})}}
        self.method, self.on = method, on._replace(inputs={**on.inputs, **(inputs or {})}, settings=own)
        self.traces: dict[Any, int] = {}
        self._training = training
        self._fitted: dict[str, tuple] = {}
        self._results: dict[Any, Result] = {}

    def attack(self, oracle: Any, **hyperparameters: Any) -> Attack:
        """What the factory makes of an oracle and the inputs that it names."""
        inputs = {name: self.on.inputs[name] for name in self.method.inputs if name != "oracle"}
        return self.method.factory(oracle, **inputs, **{**self.on.settings[self.method.name], **hyperparameters})

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

    def blank(self, attack: Attack) -> tuple:
        """Zeros in the shapes of what the training stages read out; nothing is trained."""
        outputs: tuple[Any, ...] = ()
        for stage in attack.train:
            process, data, lead = self.part(stage(outputs))
            shapes = jax.eval_shape(functools.partial(_read_after_one_step, process), KEY, data)
            outputs += (jax.tree.map(lambda leaf, lead=lead: jnp.zeros(lead + leaf.shape, leaf.dtype), shapes),)
        return outputs

    def part(self, stage: Process | Cases) -> tuple[Process, Any, tuple[int, ...]]:
        """A stage's process, what it is trained on first, and the leading axes of what it reads out."""
        if not isinstance(stage, Cases):
            return stage, self.batch(), ()
        first = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), stage.cases)
        return stage.process, first, (len(jax.tree.leaves(stage.cases)[0]),)

    def batches(self) -> Any:
        assert self.on.public is not None, f"{self.method.name} trains; give its bench public data"
        return self.on.public

    def batch(self) -> Any:
        """The first minibatch."""
        return jax.tree.map(jnp.asarray, self.batches()(0))

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

    @functools.cached_property
    def meanings(self) -> dict[str, Meaning]:
        """By target: all stages and all cases as one program, compiled once, its loops those of the device.

        It is the engine's rule written down again in its shortest form, and so a reference for the engine as well: keys
        are `fold_in(fold_in(key, case), step)`, a case stops when it is done or not finite.
        """
        return {which: self.meaning(which) for which in TARGETS}

    def meaning(self, which: str) -> Meaning:
        """That of one target."""
        compiled, constants = self._compiled
        return jax.device_get(compiled(constants, self.on.params[which], self.cases(which)))

    @functools.cached_property
    def _compiled(self) -> tuple[Any, list]:
        stacked = functools.cache(lambda steps: _stack([self.batches()(t) for t in range(steps)]))

        def meaning(params: Any, cases: Any) -> Meaning:
            attack = self.attack(self.on.build(params).view(self.method.card.access))
            fitted: tuple[Any, ...] = ()
            for stage in attack.train:
                part = stage(fitted)
                process = part.process if isinstance(part, Cases) else part
                steps = min(process.steps, self._training or process.steps)
                if isinstance(part, Cases):
                    fitted += (_all_steps(process, part.cases, steps),)
                else:
                    fitted += (_trained(process, stacked(steps), steps),)
            return _solved(attack.solve(fitted), cases)

        example = self.on.params["leaks"], self.cases()
        program, constants, _ = hoisted(meaning, *example)
        return jax.jit(program).lower(constants, *example).compile(), constants

    def rule(self, most: int = SHORT) -> Any:
        """The output after so many steps by the rule, from what the engine trained: no rounding of a training is in it."""
        process = self.process()
        return jax.jit(lambda cases: _solved(process._replace(steps=min(process.steps, most)), cases).whole)(
            self.cases()
        )

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


def _stack(batches: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *batches)


def _read_after_one_step(process: Process, key: Any, batch: Any) -> Any:
    return process.read(process.step(key, process.init(key, batch), batch)[0])


def _trained(process: Process, batches: Any, steps: int) -> Any:
    """What a stage reads out after so many minibatches, leaves `[steps, ...]`."""

    def step(t: Any, state: Any) -> Any:
        batch = jax.tree.map(lambda leaf: jnp.asarray(leaf)[t], batches)
        return process.step(jax.random.fold_in(KEY, t + 1), state, batch)[0]

    first = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), batches)
    start = process.init(jax.random.fold_in(KEY, 0), first)
    return process.read(jax.lax.fori_loop(0, steps, step, start))


def _all_steps(process: Process, cases: Any, steps: int) -> Any:
    """What a stage of many parts reads out, `[n, ...]`."""

    def whole(i: Any, case: Any) -> Any:
        def step(t: Any, state: Any) -> Any:
            return process.step(jax.random.fold_in(jax.random.fold_in(KEY, i), t), state, case)[0]

        start = process.init(jax.random.fold_in(jax.random.fold_in(KEY, i), 0), case)
        return process.read(jax.lax.fori_loop(1, steps + 1, step, start))

    cases = jax.tree.map(jnp.asarray, cases)
    return jax.vmap(whole)(jnp.arange(len(jax.tree.leaves(cases)[0])), cases)


def _solved(process: Process, cases: Any) -> Meaning:
    ids = jnp.arange(len(jax.tree.leaves(cases)[0]))

    def keys(step: Any) -> Any:
        return jax.vmap(lambda i: jax.random.fold_in(jax.random.fold_in(KEY, i), step))(ids)

    def step(t: Any, carry: Any) -> Any:
        state, over = carry
        after, info = jax.vmap(process.step)(keys(t), state, cases)
        failed = ~_finite(after, len(ids)) | jnp.isnan(info.loss)
        return tree_where(~over & ~failed, after, state), over | failed | info.done

    def until(carry: Any, ends: Any) -> Any:
        if process.steps:
            carry = jax.lax.fori_loop(ends[0], ends[1], step, carry)
        return carry, jax.vmap(process.read)(carry[0])

    start = jax.vmap(process.init)(keys(0), cases)
    started = _finite(start, len(ids))
    short, whole = min(process.steps, SHORT), min(process.steps, CAP)
    ends = jnp.array([[1, short + 1], [short + 1, whole + 1]])
    _, outputs = jax.lax.scan(until, (start, ~started), ends)
    return Meaning(started, *(jax.tree.map(lambda leaf, i=i: leaf[i], outputs) for i in range(2)))


def _finite(state: Any, n: int) -> Any:
    leaves = [leaf.reshape(n, -1) for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.all(jnp.stack([_finite_rows(leaf) for leaf in leaves] or [jnp.ones(n, bool)]), 0)


def _finite_rows(rows: Any) -> Any:
    # Many a start is a constant; the barrier keeps the compiler from working out at length that it is finite.
    return rows @ jax.lax.optimization_barrier(jnp.zeros(rows.shape[1], rows.dtype)) == 0
