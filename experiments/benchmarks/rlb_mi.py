"""RLB-MI: an agent for every identity at once, against one identity after another.

    python experiments/benchmarks/rlb_mi.py

Twenty classes of a VGG of 32 x 32 pixels (weights random, since only speed is asked), a linear prior of 100 components,
agents as wide and minibatches as large as the paper's (256). Both sides run `jaxmia.solve` with the same cases and ids,
and so find the same; the rival calls it with one case at a time, as the released code trains one agent per run of its
script. Episodes per second are over all identities. Writes results/rlb_mi.json.
"""

import time

import jax
import numpy as np
from rounds import Rival, against, arguments, begin, compare, record

from jaxmia import Access, Plan, attacks, from_linen, priors, solve
from jaxmia.models import VGG

CLASSES, SHAPE, KEY = 20, (32, 32, 1), jax.random.key(0)


def main() -> None:
    options = arguments("RLB-MI, all identities at once against one after another.", rounds=5)
    began, report = time.perf_counter(), begin(__file__, options.rounds)
    module = VGG(CLASSES)
    target = from_linen(module, jax.jit(module.init)(KEY, np.zeros((1, *SHAPE), np.float32)), classes=CLASSES)
    prior = priors.eigen(np.random.default_rng(0).random((200, *SHAPE), np.float32), 100)
    oracle, plan = target.view(Access.SCORES), Plan(progress=False)
    process = attacks.get("image/rlb_mi").factory(oracle, prior, steps=1000).solve(())
    everyone = np.arange(CLASSES, dtype=np.int32)

    def found(steps: int, cases: np.ndarray) -> np.ndarray:
        return solve(process, KEY, cases, ids=cases, steps=steps, plan=plan).output

    rivals = {
        "at_once": Rival(lambda steps: found(steps, everyone), 50, 150),
        "one_by_one": Rival(lambda steps: [found(steps, everyone[i : i + 1]) for i in everyone], 50, 150),
    }
    difference = np.abs(rivals["at_once"].run(50) - np.concatenate(rivals["one_by_one"].run(50))).max()
    times = {name: one["step"] for name, one in compare(rivals, options.rounds).items()}
    report |= {
        "identities": CLASSES,
        "episodes_per_second": {name: round(CLASSES / float(np.median(step)), 1) for name, step in times.items()},
        "one_by_one_over_at_once": against(times["one_by_one"], times["at_once"]),
        "largest_difference_of_images": round(float(difference), 7),
    }
    print(report, flush=True)
    record.write(report, began, options.output, "rlb_mi")


if __name__ == "__main__":
    main()
