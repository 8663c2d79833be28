"""`image/mi_face` of jaxmia against MIFace of IBM's Adversarial Robustness Toolbox.

    python experiments/benchmarks/against_art.py      # needs the extra [bench]; about 6 minutes, on idle cores

28 x 28 pixels, 784-300-10 and two 5x5 convolutions (16, 32) with max-pool and 128 hidden units; 100 and 1,000 cases;
same weights (random), same start, same rate, float32, all cores. ART runs batches of 128 through its
PyTorchClassifier, with softmax in the network, as its MIFace expects. Its stopping test keeps a sample going while its
cost is at most the threshold, the reverse of the paper's; with threshold 1 none stops. In jaxmia none stops either
(asserted). Compared are seconds of one step of all cases; compiling, tracing and reading out are not in it and told as
`once_seconds`, where jaxmia finds its programs in a cache. `largest_difference` is that of the images after a few
steps. Writes results/against_art.json.
"""

import time
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import torch
from against_torch import CLASSES, jaxmia_loop, labels_of, noise
from art.attacks.inference.model_inversion import MIFace
from art.estimators.classification import PyTorchClassifier
from rounds import Rival, against, arguments, begin, compare, record
from twins import SHAPES, network

from jaxmia import Access, from_linen
from jaxmia.attacks.image.mi_face import mi_face

STEPS = {  # network, cases: few and many steps of ART, of jaxmia (up to 50, or a multiple, the block of the engine); goal
    ("mlp", 100): ((2, 42), (50, 1050), 12),
    ("mlp", 1000): ((1, 9), (50, 250), 12),
    ("convnet", 100): ((1, 6), (10, 50), 6),
    ("convnet", 1000): ((1, 3), (2, 12), 6),
}


def art_loop(twin: torch.nn.Module, shape: tuple[int, ...], cases: int) -> Callable[[int], Any]:
    """`steps -> images` by ART."""
    first = (shape[-1], *shape[:-1])
    classifier = PyTorchClassifier(
        torch.nn.Sequential(*twin, torch.nn.Softmax(1)),  # type: ignore[misc]
        loss=torch.nn.CrossEntropyLoss(),
        input_shape=first,
        nb_classes=CLASSES,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )
    start = np.broadcast_to(np.moveaxis(noise(shape), -1, 0), (cases, *first)).copy()

    def run(steps: int) -> np.ndarray:
        attack = MIFace(classifier, max_iter=steps, threshold=1.0, learning_rate=0.1, batch_size=128, verbose=False)
        return np.moveaxis(attack.infer(start, labels_of(cases)), 1, -1)

    return run


def duel(name: str, cases: int, rounds: int) -> dict[str, Any]:
    """Both in turn."""
    module, variables, twin = network(name)
    shape, (steps_of_art, own_steps, goal) = SHAPES[name], STEPS[name, cases]
    oracle = from_linen(module, variables, classes=CLASSES).view(Access.WEIGHTS)
    ours = jaxmia_loop(mi_face(oracle, shape, gamma=1.0, start=jnp.asarray(noise(shape))).solve(()), cases)
    theirs = art_loop(twin, shape, cases)
    found = compare({"art": Rival(theirs, *steps_of_art), "jaxmia": Rival(ours, *own_steps)}, rounds)
    return {
        "cases": cases,
        "milliseconds_per_step": {which: round(1e3 * float(np.median(found[which]["step"])), 3) for which in found},
        "art_over_jaxmia": against(found["art"]["step"], found["jaxmia"]["step"], least=goal),
        "once_seconds": {which: round(float(np.median(found[which]["once"])), 2) for which in found},
        # mi_face reads out the best image seen, which the last update comes after.
        "largest_difference": float(np.abs(ours(4) - theirs(3)).max()),
    }


def main() -> None:
    options = arguments("MI-Face of jaxmia against that of ART.", 5)
    began = time.perf_counter()
    report = begin(__file__, options.rounds, "torch", "adversarial-robustness-toolbox")
    for name, cases in STEPS:
        report[f"{name}, {cases} cases"] = one = duel(name, cases, options.rounds)
        print(name, cases, one, flush=True)
    record.write(report, began, options.output, "against_art")


if __name__ == "__main__":
    main()
