"""Published PyTorch weights, read from safetensors files into variables of the modules here.

Nothing is unpickled. A PyTorch file is converted once, in PyTorch, which with `weights_only=True` reads tensors alone and
runs no code of the file:

    weights = torch.load("a.pt", map_location="cpu", weights_only=True)["state_dict"]
    safetensors.torch.save_file({k: v.contiguous() for k, v in weights.items()}, "a.safetensors")

where what stands in the brackets is the file's own: often "state_dict", "model_state_dict" or nothing. Weights in the
"rosinality" layout keep the mean of w beside the generator: {**c["g_ema"], "latent_avg": c["latent_avg"]} with c the loaded
file. Those in the "nvidia" layout are a pickled module, its `["G_ema"].state_dict()` is what to save: it cannot be read
without running what the file says, so do that only with a file whose maker you trust, and apart from anything that matters.
Then:

    variables = module.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    variables = published(variables, read("a.safetensors"), "face")

| layout | networks | whose names |
|---|---|---|
| torchvision | VGG16 (its convolutions), ImageNetResNet | torchvision |
| evolve | IRNetwork (all but the class layer) | face.evoLVe |
| face | VGG16, IRNetwork | targets of GMI, KED-MI, PLG-MI, LOMMA at 64 pixels |
| face112 | IRNetwork | their evaluator at 112 pixels |
| nvidia | StyleGAN2 | stylegan2-ada-pytorch |
| rosinality | StyleGAN2 | stylegan2-pytorch |
"""

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

__all__ = ["LAYOUTS", "PublishedNetwork", "names", "published", "read"]

_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "negative_slope": "weight",
    "mean": "running_mean",
    "var": "running_var",
}
# Counters and filters that are the same in every file.
_IGNORED = re.compile(r"(num_batches_tracked|resample_filter|(blur|upsample)\.kernel)$")


def _torchvision(name: str) -> str:
    return re.sub(r"^feature\.", "features.", name)


def _face(name: str) -> str:
    return re.sub(r"^(input_layer|body)\.", r"feature.\1.", name)


def _face112(name: str) -> str:
    return re.sub(r"^output_layer\.", "feature.output_layer.", _face(name))


def _rosinality(name: str) -> str:
    if name == "mapping.w_avg":
        return "latent_avg"
    if name == "synthesis.b4.const":
        return "input.input"
    if found := re.fullmatch(r"mapping\.fc(\d+)\.(\w+)", name):
        return f"style.{int(found[1]) + 1}.{found[2]}"  # its layer 0 normalizes z
    found = re.fullmatch(r"synthesis\.b(\d+)\.(conv(\d)|torgb)\.(.+)", name)
    if found is None:
        return name
    level, leaf = int(math.log2(int(found[1]))) - 3, found[4]
    leaf = leaf.replace("affine.", "conv.modulation.") if "affine" in leaf else leaf.replace("weight", "conv.weight")
    if found[2] == "torgb":
        return (f"to_rgbs.{level}." if level >= 0 else "to_rgb1.") + leaf
    layer = 2 * level + int(found[3])  # of the 4 x 4 block: -1
    if leaf == "noise_const":
        return f"noises.noise_{layer + 1}"
    leaf = {"bias": "activate.bias", "noise_strength": "noise.weight"}.get(leaf, leaf)
    return (f"convs.{layer}." if layer >= 0 else "conv1.") + leaf


def _same(name: str) -> str:
    return name


LAYOUTS: dict[str, Callable[[str], str]] = {
    "torchvision": _torchvision,
    "evolve": _same,
    "face": _face,
    "face112": _face112,
    "nvidia": _same,
    "rosinality": _rosinality,
}
"""By layout: the published name of a tensor from its name here in PyTorch's spelling."""


class PublishedNetwork(nn.Module):
    """A classifier with the input that its weights were trained on; variables and features are those of the classifier.

    Attributes:
      network: reads `[n, h, w, c]`.
      size: pixels to which images are resized, height and width alike; None leaves them as they are.
      centered: whether it reads 2 x - 1 instead of x in [0, 1].
      frozen: whether it computes as in inference, in training, too: running statistics stay, and no units are dropped.
    """

    network: nn.Module
    size: int | None = None
    centered: bool = False
    frozen: bool = False

    def setup(self):
        nn.share_scope(self, self.network)

    def __call__(self, x: Float[Array, "n h w c"], train: bool = False) -> Float[Array, "n classes"]:
        """Returns logits."""
        if self.size is not None:
            x = jax.image.resize(x, (x.shape[0], self.size, self.size, x.shape[3]), "bilinear")
        return self.network(2 * x - 1 if self.centered else x, train and not self.frozen)  # type: ignore[operator]


def read(path: str | Path) -> dict[str, np.ndarray]:
    """Returns the tensors of a safetensors file by name.

    Raises:
      ValueError: for any other kind of file, none of which is opened.
    """
    path = Path(path).expanduser()
    if path.suffix != ".safetensors":
        raise ValueError(
            f"{path}: legal is a .safetensors file; the help of {__name__} shows how to convert a .pt file"
        )
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path}: not a safetensors file ({error})") from error


def names(variables: Any, layout: str) -> list[str]:
    """Returns the published name of every leaf of `variables`, in the order of `jax.tree.leaves`.

    Raises:
      ValueError: for an unknown layout.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout: {layout!r}; legal is one of {', '.join(LAYOUTS)}")
    spelled = []
    for path, _ in jax.tree_util.tree_leaves_with_path(variables):
        *modules, leaf = [str(entry.key) for entry in path[1:]]  # without the name of the collection
        modules = [re.sub(r"_(\d+)$", r".\1", module) for module in modules]
        spelled.append(".".join([*modules, _LEAVES.get(leaf, leaf)]))
    return [LAYOUTS[layout](name) for name in spelled]


def published(variables: Any, tensors: Mapping[str, np.ndarray], layout: str, *, keep: tuple[str, ...] = ()) -> Any:
    """Returns `variables` with the numbers of a published state dictionary.

    Kernels are transposed to height, width, in, out; axes of length one do not count; "module." or "model." before all
    names is dropped. `variables` may be the shapes that `jax.eval_shape` gives.

    Args:
      variables: "params" and "batch_stats" of the module, as `module.init` gives them.
      tensors: by published name, such as `read` gives them.
      layout: whose names, a key of `LAYOUTS`.
      keep: beginnings of published names to leave as they are in `variables`, and to ignore in `tensors`: ("fc.",) where
        the classes differ.

    Raises:
      ValueError: for an unknown layout; with all names that are missing, unexpected or of another shape; and for a kept
        leaf of which `variables` has but the shape.
    """
    wanted, (leaves, structure) = names(variables, layout), jax.tree.flatten(variables)
    for prefix in ("module.", "model."):
        if tensors and all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    ours = {name for name in wanted if not name.startswith(keep)}
    theirs = {name for name in tensors if not _IGNORED.search(name) and not name.startswith(keep)}
    wrong = []
    out = []
    for name, leaf in zip(wanted, leaves, strict=True):
        if name in ours and name in theirs:
            shape = tuple(leaf.shape[axis] for axis in _to_torch(leaf.ndim, name))
            tensor = tensors[name]
            if [n for n in tensor.shape if n != 1] != [n for n in shape if n != 1]:
                wrong.append(f"{name} is {list(tensor.shape)} and not {list(shape)}")
                continue
            back = np.argsort(_to_torch(leaf.ndim, name))
            leaf = jnp.asarray(tensor.reshape(shape).transpose(back), leaf.dtype)
        elif name not in ours and not isinstance(leaf, jax.Array | np.ndarray):
            raise ValueError(f"keep: {name} has no value in variables, only a shape; give what module.init returns")
        out.append(leaf)
    complaints = {
        "missing": sorted(ours - theirs),
        "unexpected": sorted(theirs - ours),
        "of another shape": sorted(wrong),
    }
    if told := [f"{len(found)} {kind}: {', '.join(found)}" for kind, found in complaints.items() if found]:
        raise ValueError(f"weights in the layout {layout!r} do not fit the module; " + "; ".join(told))
    return structure.unflatten(out)


def _to_torch(dimensions: int, name: str) -> tuple[int, ...]:
    """The axes here in PyTorch's order: out, in, height, width."""
    if dimensions == 3:  # a learned constant
        return (2, 0, 1)
    kernel = name.endswith("weight")
    return {4: (3, 2, 0, 1), 2: (1, 0) if kernel else (0, 1)}.get(dimensions, tuple(range(dimensions)))
