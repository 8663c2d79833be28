"""Why LOKT stays below BREP-MI in image_attacks.py: LOKT with the generator that BREP-MI searches instead of its own.

    python experiments/lokt_on_eigenfaces.py         # minutes, and hours more where image_attacks.py has not run on ORL
    python experiments/lokt_on_eigenfaces.py --long  # nine times as many fakes, five times the training of surrogates

LOKT trains a conditional GAN against the target's labels, labels its fakes, trains surrogates on them and attacks these.
Here everything but the first is as in configs/image_attacks_orl.yaml, and the fakes are drawn by the eigenfaces of the
public people, the prior of BREP-MI, as many as give about the same number of queries. If this is as good as BREP-MI, then
it was the GAN that failed; if it is as bad as LOKT, the surrogates or the attack on them did. The same on a target of
shuffled labels is the control. Accuracies are means over the seeds, differences paired, both with a 95 % bootstrap
interval over the 20 people.
"""

import argparse
import pathlib
import time
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import record
from image_attacks import TARGET, judges_of, pooled
from orl import HERE, audit, cells

from jaxmia import Access, Plan, Scenario, config, run
from jaxmia.attacks.image.lokt import lokt
from jaxmia.audit import image, setup
from jaxmia.audit.classifiers import keywords
from jaxmia.audit.judge import judge_candidates
from jaxmia.core import Prior
from jaxmia.metrics.estimate import difference

EIGENFACES = f"{TARGET}--eigenfaces"


class Drawn(nn.Module):
    """A prior as LOKT wants its generator, whatever the class; all that its GAN learns is the scale of z."""

    prior: Prior

    @nn.compact
    def __call__(self, z: Any, labels: Any, train: bool = False) -> Any:
        scaled = self.param("scale", nn.initializers.ones, ()) * z
        return jax.vmap(lambda one: self.prior.decode(self.prior.project(one)))(scaled)


def attacked(where: pathlib.Path, seed: int, labels: int, surrogate_steps: int) -> dict[str, dict[str, np.ndarray]]:
    """LOKT on eigenfaces against the target and the control that image_attacks.py trained, judged by its evaluators."""
    resolved = config.load(where / "config.yaml", [], image.SCHEMA)
    scene, trained, judges, inputs = image.train(resolved, [where])
    section = next(section for section in resolved["attacks"] if section["name"] == "image/lokt")
    settings = keywords(section) | {
        "dimensions": 100,
        "gan_steps": 1,
        "labels": labels,
        "surrogate_steps": surrogate_steps,
    }
    people, out = np.arange(len(scene.names), dtype=np.int32), {}
    for one in trained:
        attack = lokt(
            one.target.view(Access.LABELS), inputs["gallery"], len(people), Drawn(inputs["prior"]),
            inputs["classifying_discriminator"], inputs["surrogates"], **settings,
        )  # fmt: skip
        scenario = Scenario(one.target, people, public=setup.public_batches(resolved, scene))
        found = run(attack, jax.random.key(seed), scenario, plan=Plan(progress=False))
        _, per_case = judge_candidates(judges, np.asarray(found.output), people, np.zeros(len(people), bool))
        out[f"{one.name}--eigenfaces"] = per_case | {"targets": people}
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description="LOKT with eigenfaces in place of its GAN, beside LOKT and BREP-MI.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="those of image_attacks.py")
    parser.add_argument("--long", action="store_true", help="more queries and training")
    parser.add_argument("--runs", type=pathlib.Path, default=HERE.parent / "runs" / "image_attacks")
    parser.add_argument("--output", type=pathlib.Path, default=HERE / "results")
    options = parser.parse_args()
    began, found = time.perf_counter(), []
    report: dict[str, Any] = record.header(__file__, options.seeds)
    for seed in options.seeds:
        where = audit("image_attacks_orl", seed, options.runs)
        found.append(cells(where) | attacked(where, seed, *((4500, 1500) if options.long else (500, 300))))
    for judge in judges_of(found[0][EIGENFACES]):
        metric = f"attack_accuracy@1 [{judge}]"
        kinds = {"eigenfaces": EIGENFACES, "control": f"{TARGET}-shuffled--eigenfaces"}
        kinds |= {name: f"{TARGET}--{name}" for name in ("lokt", "brep_mi")}
        seeds = {name: [one[cell] for one in found] for name, cell in kinds.items()}
        report[judge] = {name: record.interval(pooled(cells, metric)) for name, cells in seeds.items()}
        mine, people = (np.concatenate([one[name] for one in seeds["eigenfaces"]]) for name in (metric, "targets"))
        for name in ("lokt", "brep_mi"):
            other = np.concatenate([one[metric] for one in seeds[name]])
            report[judge][f"eigenfaces over {name}"] = record.interval(difference(mine, other, people))
        print(judge, report[judge], flush=True)
    record.write(report, began, options.output, "lokt_on_eigenfaces" + "_long" * options.long)


if __name__ == "__main__":
    main()
