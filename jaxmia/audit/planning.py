"""What a configuration needs: every program of it, at full size, is traced and compiled on made-up data, and none is run.

Nothing is fetched or read but the configuration: pictures, records and weights are zeros of the shapes that it says.
Bytes are what the compiler of this machine's own backend says; another backend lays programs out otherwise. Operations
are those of products and convolutions, multiplications and additions counted apart, in loops as often as they are run.
"""

import contextlib
import json
import math
import os
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmia import attacks
from jaxmia import config as configuration
from jaxmia.audit import modality_of, schema, targets
from jaxmia.audit import plan as speed
from jaxmia.audit.assembly import assemble, family, load, untrained
from jaxmia.audit.inputs import Inputs
from jaxmia.audit.modality import Fitted, MadeUp, Training
from jaxmia.audit.roles import keywords, listed, named
from jaxmia.audit.targets import Job
from jaxmia.checkpoint import write_atomically
from jaxmia.compiling import compiler_options
from jaxmia.core import Cases, Process
from jaxmia.engine import Plan
from jaxmia.fitting import prepare
from jaxmia.oracle import Access
from jaxmia.parallel import Program, Spread
from jaxmia.plan import fitting_chunk
from jaxmia.sections import within
from jaxmia.slots import build

__all__ = ["COLUMNS", "Row", "plan", "table"]

LIMIT = 80_000_000_000
PUBLIC = 70_000  # public pictures, where the configuration does not say: all that FFHQ has


class Row(NamedTuple):
    """One program of a configuration.

    Attributes:
      part: what it is of: a target, an evaluator, the prior, or an attack on a target.
      program: which one: init or step of a training, or of an attack's stage; init, step or read of the cases.
      bytes: a device needs for it, with one case: arguments, results and what is held in between.
      slices: of the longest of its loops over what an attack does side by side for one case; 1 for none.
      chunk: cases that fit the limit together, foreseen from one; None for a training.
      flops: of it, for one case.
      steps: how often it runs, for one case or the training.
      seconds: estimated for all cases, or the whole training; None unless asked for.
    """

    part: str
    program: str
    bytes: int
    slices: int
    chunk: int | None
    flops: int
    steps: int
    seconds: float | None = None


COLUMNS = ("part", "program", "GB", "fits", "slices", "chunk", "GFLOP", "steps", "hours")


def plan(
    checked: dict[str, Any],
    *,
    timed: bool = False,
    limit: int = LIMIT,
    public: int = PUBLIC,
    file: str | os.PathLike | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[Row]:
    """Compile all programs of a configuration; of cells of a sweep that differ in seeds alone, the first.

    Args:
      checked: what `config.load` gives.
      timed: also run two steps of each, as the compiler makes them for use, and say how long all would take.
      limit: bytes of a device, which decide how many cases fit together.
      public: pictures in the public set where the configuration names no number.
      file: JSON to write; parts that are found there are not compiled again.
      say: told each part before it is compiled.

    Raises:
      ValueError: for a configuration that contradicts itself, or a file that is no plan's.
    """
    known = _Known(None if file is None else pathlib.Path(file), timed, limit)
    with contextlib.nullcontext() if timed else _in_haste():
        for cell in _cells(checked):
            for part, settings, work in _parts(cell, timed, limit, public):
                known.do(part, settings, work, say)
    return list(dict.fromkeys(known.rows))


def table(rows: list[Row], limit: int = LIMIT) -> list[tuple[Any, ...]]:
    """The cells of a printed table, below `COLUMNS`; what fits needs at most `limit` bytes."""
    return [
        (
            row.part,
            row.program,
            f"{row.bytes / 1e9:.3g}",
            "yes" if row.bytes <= limit else "no",
            row.slices,
            row.chunk or "",
            f"{row.flops / 1e9:.3g}",
            row.steps,
            "" if row.seconds is None else f"{row.seconds / 3600:.3g}",
        )
        for row in rows
    ]


class _Known:
    """Rows by what they are of, kept in a file from part to part."""

    def __init__(self, file: pathlib.Path | None, timed: bool, limit: int):
        self.file, self.rows, self.parts = file, [], {}
        self.head = {
            "backend": jax.default_backend(), "jax": jax.__version__, "timed": timed, "limit": limit,
        }  # fmt: skip
        if file is not None and file.exists():
            try:
                stored = json.loads(file.read_text())
                self.parts = {key: [Row(**row) for row in rows] for key, rows in stored["parts"].items()}
                same = {name: stored[name] for name in self.head} == self.head
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(f"{file}: is no plan ({error}); name another file, or delete this one") from None
            if not same:
                raise ValueError(f"{file}: is of {stored['backend']}, jax {stored['jax']} or other options; delete it")

    def do(self, part: str, settings: Any, work: Callable[[], list[Row]], say: Callable[[str], None]) -> None:
        key = configuration.digest({"part": part, "settings": settings})
        if key not in self.parts:
            say(part)
            self.parts[key] = work()
            if self.file is not None:
                stored = {name: [row._asdict() for row in rows] for name, rows in self.parts.items()}
                write_atomically(self.file, json.dumps({**self.head, "parts": stored}, indent=1).encode())
        self.rows += self.parts[key]


@contextlib.contextmanager
def _in_haste() -> Iterator[None]:
    """Within it the code of a program is not polished, which takes longest and moves no buffer; for CPUs."""
    name = "jax_disable_most_optimizations"
    before = jax.config.values[name]
    jax.config.update(name, jax.default_backend() == "cpu" or before)
    try:
        yield
    finally:
        jax.config.update(name, before)


def _cells(checked: dict[str, Any]) -> list[dict[str, Any]]:
    seen = {}
    for cell in configuration.expand(checked, schema(checked)):
        data = {key: value for key, value in cell["data"].items() if key != "split_seed"}
        same = configuration.digest({**family(cell), "seed": 0, "data": data})
        seen.setdefault(same, cell)
    return list(seen.values())


def _parts(config: dict[str, Any], timed: bool, limit: int, public: int) -> Iterator[tuple[str, Any, Callable]]:
    """Every part of an audit: name, what its programs depend on, and what compiles it."""
    modality, config = modality_of(config), {**config, "controls": ()}
    made_up = modality.made_up or (lambda config, public: MadeUp(config, load(config)))
    config, data, given = made_up(config, public)
    common = {name: config[name] for name in ("modality", "data", "plan")}
    measure = _Trainings(timed)

    def fitted(job: Job, fit: Callable) -> Fitted:
        how = Training(fit, pathlib.Path(), config["seed"], "", job.defense, real=False)
        return modality.fit(modality.targets[job.section["name"]](**keywords(job.section)), data, how)

    jobs = targets.jobs(config, modality.controls)
    for job in jobs:

        def training(job: Job = job) -> list[Row]:
            fitted(job, measure.fit)
            return measure.take()

        with within(f"targets ({job.name})"):
            settings = {**common, "target": job.section, "defense": job.defense}
            yield from _named(f"target {job.name}", settings, training)
    blank = lambda process, batches, name: _blank(process, jax.random.key(0), batches)  # noqa: E731
    supplied = Inputs(modality, config, data, blank, **given)
    for name, (section, work) in modality.others(supplied).items():

        def other(work: Callable[[Any], Any] = work) -> list[Row]:
            work(measure.fit)
            return measure.take()

        with within(name):
            yield from _named(name, {**common, "section": section}, other)
    everything = {name: value for name, value in config.items() if name in modality.sections and name != "evaluators"}
    for job in jobs:
        known: list[Inputs] = []
        for name, section in named(listed(config["attacks"])):

            def attack(job: Job = job, section: Any = section, known: list = known) -> list[Row]:
                if not known:
                    quiet = lambda process, key, batches, **where: (_blank(process, key, batches), None)  # noqa: E731
                    known.append(supplied.of(fitted(job, quiet)))
                return _attack(section, known[0], measure, limit, timed)

            settings = {**common, **everything, "target": job.section, "defense": job.defense, "attack": section}
            with within(f"attacks ({name})"):
                yield from _named(f"{name} on {job.name}", settings, attack)


def _named(part: str, settings: Any, work: Callable[[], list[Row]]) -> Iterator[tuple[str, Any, Callable]]:
    yield part, settings, lambda: [row._replace(part=part) for row in work()]


def _attack(section: dict[str, Any], inputs: Inputs, measure: "_Trainings", limit: int, timed: bool) -> list[Row]:
    """The programs of an attack: of its stages, then of its cases."""
    (attack, _), fitted = assemble(section, inputs), ()
    batches: Any = inputs.get("batches")
    rows, run = [], speed(**inputs.config["plan"])
    for number, stage in enumerate(attack.train, start=1):
        trained = stage(fitted)
        if isinstance(trained, Cases):
            first, n = jax.tree.map(lambda leaf: leaf[:1], trained.cases), len(jax.tree.leaves(trained.cases)[0])
            found = _solved(trained.process, first, n, run, limit, timed)
        else:
            measure.fit(trained, jax.random.key(0), batches)
            found = measure.take()
        fitted += (untrained(trained, batches),)
        rows += [row._replace(program=f"stage {number} {row.program}") for row in found]
    card = attacks.get(section["name"]).card
    seen = inputs.modality.observe[card.observes](inputs)
    n, cases = len(jax.tree.leaves(seen.cases)[0]), jax.tree.map(lambda leaf: leaf[:1], seen.cases)
    if seen.served:
        view = inputs.modality.shown(inputs.fitted, card, inputs.config).view(Access.SCORES)
        served = jax.eval_shape(view.answer, jax.random.key(0), jax.tree.map(lambda leaf: leaf[0], cases))
        cases = jax.tree.map(lambda leaf: np.zeros((1, *leaf.shape), leaf.dtype), served)
    return rows + _solved(attack.solve(fitted), cases, n, run, limit, timed)


# --- programs


def _solved(process: Process, cases: Any, n: int, plan: Plan, limit: int, timed: bool) -> list[Row]:
    """The programs of one case."""
    device, key = jax.local_devices()[:1], jax.random.key(0)
    chunk = 2 * plan.microbatch if plan.microbatch else 1
    example = jax.tree.map(lambda leaf: leaf[0], cases)
    programs = build(process, key, cases, np.zeros(1, np.int32), process.steps, device, chunk, plan)
    state = jax.eval_shape(process.init, key, example)
    traced = {"init": (process.init, (key, example)), "read": (process.read, (state,))}
    parts: dict[str, Program] = {"init": programs.admit, "read": programs.read}
    if process.steps:
        traced["step"] = (process.step, (key, state, example))
        parts["step"] = programs.block.step
    fits = fitting_chunk(min(n, 1024), chunk * programs.share(0.8 * limit), plan)
    seconds = _timed(programs, key, cases, chunk, n, process.steps) if timed else {}
    rows = []
    for name in ("init", "step", "read"):
        if name in parts:
            slices, flops = _walk(jax.make_jaxpr(traced[name][0])(*traced[name][1]).jaxpr)
            steps = process.steps if name == "step" else 1
            rows.append(Row("", name, parts[name].memory(), slices, fits, flops, steps, seconds.get(name)))
    return rows


def _timed(programs: Any, key: Any, cases: Any, chunk: int, n: int, steps: int) -> dict[str, float]:
    """Seconds for all cases, from what a chunk takes, which is run twice."""
    lead = (1, chunk)
    fresh, zeros = np.ones(lead, bool), np.zeros(lead, np.int32)
    new = (
        fresh,
        zeros,
        zeros,
        jax.tree.map(lambda leaf: np.broadcast_to(leaf[0], lead + leaf.shape[1:]).copy(), cases),
    )
    found, rounds = {}, math.ceil(n / chunk)
    slots = programs.admit(key, programs.example, *new)
    found["init"] = _seconds(lambda: programs.admit(key, programs.example, *new)) * rounds
    if steps:
        slots = programs.block(key, slots, 1)
        began = time.monotonic()
        slots = programs.block(key, slots, 1)
        found["step"] = (time.monotonic() - began) * steps * rounds
    jax.block_until_ready(programs.read(key, slots))
    found["read"] = _seconds(lambda: programs.read(key, slots)) * rounds
    return found


def _seconds(run: Callable[[], Any]) -> float:
    began = time.monotonic()
    jax.block_until_ready(run())
    return time.monotonic() - began


class _Trainings:
    """In place of `engine.fit`: the programs of a training are noted, and what would be trained is zeros."""

    def __init__(self, timed: bool):
        self.timed, self.rows = timed, []

    def fit(self, process: Process, key: Any, batches: Callable[[int], Any], **where: Any) -> tuple[Any, None]:
        del where
        if process.steps < 1:
            raise ValueError(f"steps: {process.steps}; legal is 1 or more")
        first = batches(0)
        training = prepare(process, key, first, Spread(jax.local_devices()[:1], sharded=False))
        calls = {
            "init": (training.init, (training.held, key, first), process.init, (key, first)),
            "step": (
                training.step,
                (training.constants, np.int32(1), training.state, first),
                process.step,
                (key, training.state, first),
            ),
        }
        state = None
        for name, (program, arguments, fn, examples) in calls.items():
            compiled = program.lower(*arguments).compile(compiler_options=compiler_options(jax.default_backend()))
            slices, flops = _walk(jax.make_jaxpr(fn)(*examples).jaxpr)
            steps, seconds = process.steps if name == "step" else 1, None
            if self.timed and name == "init":
                state = jax.block_until_ready(program(*arguments))
                seconds = _seconds(lambda program=program, arguments=arguments: program(*arguments))
            elif self.timed:
                state, _ = jax.block_until_ready(program(*arguments[:2], state, first))
                seconds = steps * _seconds(
                    lambda program=program, arguments=arguments, state=state: program(*arguments[:2], state, first)
                )
            self.rows.append(Row("", name, _needed(compiled), slices, None, flops, steps, seconds))
        return _blank(process, key, batches), None

    def take(self) -> list[Row]:
        """What was noted since the last time; programs of several trainings in a row are numbered."""
        rows, self.rows = self.rows, []
        if len(rows) > 2:
            rows = [row._replace(program=f"training {i // 2 + 1} {row.program}") for i, row in enumerate(rows)]
        return rows


def _needed(compiled: Any) -> int:
    found = compiled.memory_analysis()
    if found is None:
        return 0
    held = found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
    return held + found.temp_size_in_bytes


def _blank(process: Process, key: Any, batches: Callable[[int], Any]) -> Any:
    """Zeros, in the shapes of what a training reads out."""

    def once(key: Any, batch: Any) -> Any:
        return process.read(process.init(key, batch))

    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(once, key, batches(0)))


def _walk(jaxpr: Any) -> tuple[int, int]:
    """The longest loop over slices, and the operations of products and convolutions."""
    slices, flops = 1, 0
    for eqn in jaxpr.eqns:
        out = eqn.outvars[0].aval if eqn.outvars else None
        if eqn.primitive.name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            flops += 2 * math.prod(out.shape) * math.prod(eqn.invars[0].aval.shape[axis] for axis in contracted)  # type: ignore[union-attr]
        elif eqn.primitive.name == "conv_general_dilated":
            kernel, outputs = eqn.invars[1].aval.shape, eqn.params["dimension_numbers"].rhs_spec[0]
            flops += 2 * math.prod(out.shape) * math.prod(kernel) // kernel[outputs]  # type: ignore[union-attr]
        times = eqn.params.get("length", 1) if eqn.primitive.name == "scan" else 1
        if times > 1 and "sliced" in str(eqn.source_info.name_stack):
            slices = max(slices, times)
        inner = [_walk(getattr(item, "jaxpr", item)) for value in eqn.params.values()
                 for item in (value if isinstance(value, tuple | list) else (value,))
                 if hasattr(getattr(item, "jaxpr", item), "eqns")]  # fmt: skip
        slices = max([slices, *(found for found, _ in inner)])
        work = [found for _, found in inner]
        flops += times * (max(work, default=0) if eqn.primitive.name == "cond" else sum(work))
    return slices, flops
