"""The convolutions and the max-pool of `jaxmia.models` against those of JAX and Flax, where XLA's CPU routines are slow.

    python experiments/benchmarks/convolution.py      # under a minute, on idle cores; only a CPU has the fault

- `gradient in scan`: descent on the input of a 3x3 convolution, 16 images of 32 x 32 x 32, in one `lax.scan`;
- `transposed`: a 5x5 transposed convolution of stride 2, 8 maps of 4 x 4 x 64, whose kernel is larger than the map;
- `one channel`, `three channels`, `eight channels`: a 5x5 convolution of so many to 16, and the gradient of its input, 256
  images of 28 x 28;
- `max-pool gradient`: of 2x2 windows, 64 images of 32 x 32 x 32;
- `compiler`: JAX's own 3x3 convolution of 32 channels to 64, 64 images of 32 x 32, compiled by JAX's defaults against what
  jaxmia tells the compiler (`jaxmia.compiling.compiler_options`; nothing from jax 0.11 on).

Compared are seconds of one step; but for `compiler`, both sides are compiled as jaxmia does. Values and gradients are
those of the rivals (`tests/models`). Writes results/convolution.json.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from rounds import Rival, against, arguments, begin, compare, record

from jaxmia.compiling import jit
from jaxmia.models.convolution import conv_general_dilated
from jaxmia.models.pooling import max_pool

KEYS = jax.random.split(jax.random.key(0), 3)
NHWC = ("NHWC", "HWIO", "NHWC")


def in_scan(convolve: Callable) -> Callable[[int], Any]:
    """`steps -> images`, all steps in one scan."""
    x, kernel = jax.random.normal(KEYS[0], (16, 32, 32, 32)), 0.05 * jax.random.normal(KEYS[1], (3, 3, 32, 32))

    def loss(x: Any) -> Any:
        return jnp.sum(convolve(x, kernel, (1, 1), "SAME", dimension_numbers=NHWC) ** 2)

    descend = jit(lambda x, turns: lax.scan(lambda x, _: (x - 1e-3 * jax.grad(loss)(x), None), x, turns)[0])
    return lambda steps: descend(x, jnp.zeros(steps)).block_until_ready()


def repeated(once: Callable, x: Any, compiled_by: Callable = jit) -> Callable[[int], Any]:
    """`steps -> result` of a compiled function called so often."""
    compiled = compiled_by(once)

    def run(steps: int) -> None:
        for _ in range(steps):
            jax.block_until_ready(compiled(x))

    return run


def transposed(convolve: Callable) -> Callable[[int], Any]:
    kernel = jax.random.normal(KEYS[1], (5, 5, 64, 64))
    options = {"padding": [(2, 3), (2, 3)], "lhs_dilation": (2, 2), "dimension_numbers": NHWC}
    return repeated(lambda x: convolve(x, kernel, (1, 1), **options), jax.random.normal(KEYS[0], (8, 4, 4, 64)))


def of_few(channels: int, convolve: Callable) -> Callable[[int], Any]:
    kernel = jax.random.normal(KEYS[1], (5, 5, channels, 16))

    def loss(x: Any) -> Any:
        return jnp.sum(convolve(x, kernel, (1, 1), "SAME", dimension_numbers=NHWC) ** 2)

    return repeated(jax.grad(loss), jax.random.normal(KEYS[0], (256, 28, 28, channels)))


def plain(compiled_by: Callable) -> Callable[[int], Any]:
    kernel = jax.random.normal(KEYS[1], (3, 3, 32, 64))
    convolve = partial(lax.conv_general_dilated, window_strides=(1, 1), padding="SAME", dimension_numbers=NHWC)
    return repeated(lambda x: convolve(x, kernel), jax.random.normal(KEYS[0], (64, 32, 32, 32)), compiled_by)


def pooled(pool: Callable) -> Callable[[int], Any]:
    return repeated(jax.grad(lambda x: jnp.sum(pool(x) ** 2)), jax.random.normal(KEYS[2], (64, 32, 32, 32)))


def flax_pool(x: Any) -> Any:
    return nn.max_pool(x, (2, 2), strides=(2, 2))


RIVALS = {  # theirs, ours, few and many steps of theirs, of ours
    "gradient in scan": (in_scan(lax.conv_general_dilated), in_scan(conv_general_dilated), (1, 4), (1, 31)),
    "transposed": (transposed(lax.conv_general_dilated), transposed(conv_general_dilated), (1, 6), (1, 301)),
    **{
        f"{name} channel{'s' * (count > 1)}": (
            of_few(count, lax.conv_general_dilated),
            of_few(count, conv_general_dilated),
            (1, 31),
            (1, 51),
        )
        for name, count in (("one", 1), ("three", 3), ("eight", 8))
    },
    "max-pool gradient": (pooled(flax_pool), pooled(max_pool), (1, 11), (1, 101)),
    "compiler": (plain(jax.jit), plain(jit), (1, 31), (1, 51)),
}


def main() -> None:
    options = arguments("Convolutions and max-pool against those of JAX and Flax.", 5)
    began = time.perf_counter()
    report = begin(__file__, options.rounds)
    for name, (theirs, ours, slow, fast) in RIVALS.items():
        found = compare({"theirs": Rival(theirs, *slow), "jaxmia": Rival(ours, *fast)}, options.rounds)
        report[name] = {
            "milliseconds_per_step": {
                which: round(1e3 * float(jnp.median(found[which]["step"])), 3) for which in found
            },
            "theirs_over_jaxmia": against(found["theirs"]["step"], found["jaxmia"]["step"]),
        }
        print(name, report[name], flush=True)
    record.write(report, began, options.output, "convolution")


if __name__ == "__main__":
    main()
