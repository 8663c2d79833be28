"""RLB-MI: an agent for every identity at once, against one identity after another.

    python experiments/benchmarks/rlb_mi.py

Twenty classes of a VGG of 32 x 32 pixels (weights random, since only speed is asked), a linear prior of 100 components,
agents as wide and minibatches as large as the paper's (256). Both sides are `jaxmia.solve` of the same cases and so find
the same; the rival has room for one case at a time (`Plan(chunk=1)`) and takes them in turn, as the released code does
its identities. Episodes per second are over all identities. Writes results/rlb_mi.json.
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
    process = attacks.get("image/rlb_mi").factory(target.view(Access.SCORES), prior, steps=1000).solve(())

    def agents(chunk: int) -> Rival:
        plan = Plan(chunk=chunk, progress=False)
        return Rival(lambda steps: solve(process, KEY, np.arange(CLASSES), steps=steps, plan=plan).output, 10, 30)

    rivals = {"at_once": agents(CLASSES), "one_by_one": agents(1)}
    difference = np.abs(rivals["at_once"].run(10) - rivals["one_by_one"].run(10)).max()
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
