"""Why LOKT and KED-MI stay low in image_attacks.py: both with eigenfaces in the place of the GAN that they train.

    python experiments/on_eigenfaces.py lokt          # minutes, and hours more where image_attacks.py has not run on ORL
    python experiments/on_eigenfaces.py lokt --long   # nine times as many fakes, five times the training of surrogates
    python experiments/on_eigenfaces.py ked_mi

LOKT trains a conditional GAN against the target's labels, labels its fakes, trains surrogates on them and attacks these;
KED-MI trains a GAN whose discriminator imitates the target, and looks for a distribution of latents. Here everything but
the generator is as in configs/image_attacks_orl.yaml, and images are drawn by the eigenfaces of the public people, the
prior of BREP-MI and GMI, with which the two are compared; LOKT's fakes are as many as give about the same number of
queries. What is then as good as the attack it was expected to exceed lacked a GAN; what stays low lacks something else:
KED-MI puts out a draw of its distribution, and `mean` is the same run read out at the mean of that distribution.
The same on a target of shuffled labels is the control. Accuracies are means over the seeds, differences paired, both with
a 95 % bootstrap interval over the 20 people.
"""

import argparse
import pathlib
import time
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import record
from image_attacks import judges_of, pooled
from orl import HERE, audit, cells

from jaxmia import Plan, Scenario, config, run
from jaxmia.audit import run as auditing
from jaxmia.audit import schema
from jaxmia.audit.assembly import assemble
from jaxmia.audit.inputs import Inputs
from jaxmia.core import Prior
from jaxmia.metrics.estimate import difference
from jaxmia.modalities.image.judging import judge_candidates

TARGET = "convnet"
EXCEEDS = {"lokt": "brep_mi", "ked_mi": "gmi"}
"""By attack, what it was expected to exceed."""
SETTINGS: dict[str, dict[str, Any]] = {
    "lokt": {"gan_steps": 1, "labels": 500},
    "lokt_long": {"gan_steps": 1, "labels": 4500, "surrogate_steps": 1500},
    "ked_mi": {},
}
"""What else is not as in the configuration."""


class Drawn(nn.Module):
    """A prior as a GAN's generator, whatever the class; all that training can change is the scale of z."""

    prior: Prior

    @nn.compact
    def __call__(self, z: Any, *labels: Any, train: bool = False) -> Any:
        scaled = self.param("scale", nn.initializers.ones, ()) * z
        return jax.vmap(lambda one: self.prior.decode(self.prior.project(one)))(scaled)


def with_mean(attack: Any) -> Any:
    """KED-MI that puts out its draw and beside it the image at the mean of its distribution."""

    def solve(fitted: Any) -> Any:
        process = attack.solve(fitted)

        def read(state: Any) -> Any:
            central = state._replace(noise=jnp.zeros_like(state.noise))
            return {"eigenfaces": process.read(state), "mean": process.read(central)}

        return process._replace(read=read)

    return attack._replace(solve=solve)


def attacked(where: pathlib.Path, seed: int, name: str, settings: dict[str, Any]) -> dict[str, dict[str, np.ndarray]]:
    """The target and the control that image_attacks.py trained, attacked, and judged by its evaluators."""
    resolved = config.load(where / "config.yaml", [], schema)
    trained, panel, inputs = auditing.train(resolved, [where])
    scene, drawn = inputs.data, Drawn(inputs["prior"])
    supplied = Inputs(
        inputs.modality, resolved, scene, inputs.fit,
        prior=inputs["prior"], generator=drawn, conditional_generator=drawn,
    )  # fmt: skip
    section = next(section for section in resolved["attacks"] if section["name"] == f"image/{name}")
    section = section | {"dimensions": 100} | settings
    people, out = np.arange(len(scene.names), dtype=np.int32), {}
    for one in trained:
        attack, _ = assemble(section, supplied.of(one.fitted))
        attack = with_mean(attack) if name == "ked_mi" else attack
        scenario = Scenario(one.fitted.target, people, public=inputs["batches"])
        output = run(attack, jax.random.key(seed), scenario, plan=Plan(progress=False)).output
        for kind, images in output.items() if isinstance(output, dict) else [("eigenfaces", output)]:
            _, per_case = judge_candidates(panel.judges, np.asarray(images), people, np.zeros(len(people), bool))
            out[f"{one.job.name}--{kind}"] = per_case | {"targets": people}
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description="LOKT or KED-MI with eigenfaces in place of its GAN.")
    parser.add_argument("attack", choices=list(EXCEEDS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="those of image_attacks.py")
    parser.add_argument("--long", action="store_true", help="LOKT with more queries and training")
    parser.add_argument("--runs", type=pathlib.Path, default=HERE.parent / "runs" / "image_attacks")
    parser.add_argument("--output", type=pathlib.Path, default=HERE / "results")
    options = parser.parse_args()
    name = options.attack + "_long" * options.long
    if name not in SETTINGS:
        parser.error(f"--long: not for {options.attack}; legal is {', '.join(SETTINGS)}")
    began, found = time.perf_counter(), []
    report: dict[str, Any] = record.header(__file__, options.seeds)
    for seed in options.seeds:
        where = audit("image_attacks_orl", seed, options.runs)
        found.append(cells(where) | attacked(where, seed, options.attack, SETTINGS[name]))
    others = (options.attack, EXCEEDS[options.attack])
    mine = [kind for kind in ("eigenfaces", "mean") if f"{TARGET}--{kind}" in found[0]]
    cell = {kind: f"{TARGET}--{kind}" for kind in (*mine, *others)}
    cell |= {name: f"{TARGET}-shuffled--{kind}" for name, kind in zip(("control", "control of mean"), mine)}
    for judge in judges_of(found[0][cell["eigenfaces"]]):
        metric = f"attack_accuracy@1 [{judge}]"
        seeds = {kind: [one[name] for one in found] for kind, name in cell.items()}
        report[judge] = {kind: record.interval(pooled(several, metric)) for kind, several in seeds.items()}
        value = {kind: np.concatenate([one[metric] for one in several]) for kind, several in seeds.items()}
        people = np.concatenate([one["targets"] for one in seeds["eigenfaces"]])
        report[judge] |= {
            f"{kind} over {other}": record.interval(difference(value[kind], value[other], people))
            for kind in mine
            for other in others
        }
        print(judge, report[judge], flush=True)
    record.write(report, began, options.output, f"{options.attack}_on_eigenfaces" + "_long" * options.long)


if __name__ == "__main__":
    main()
