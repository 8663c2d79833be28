"""Images are numbers in [0, 1]; others are refused where a prior or an attack takes them."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia import attacks, from_function
from jaxmia.priors import eigen
from jaxmia.priors.unit import check_images
from jaxmia.testing.benches import networks

IMAGES = np.random.default_rng(0).random((6, 4, 4, 1)).astype(np.float32)
WRONG = {
    "bytes": (255 * IMAGES, "images from .* to 2.*; legal is 0 to 1"),
    "standardized": ((IMAGES - 0.5) / 0.25, "images from -.*; legal is 0 to 1"),
    "nan": (IMAGES * np.nan, "images from nan to nan; legal is 0 to 1"),
}
GALLERY = ["cdm_mi", "ked_mi", "label_error_rate", "lokt", "plg_mi", "ppdg_mi", "secret_gen"]


@pytest.mark.parametrize("wrong", WRONG)
def test_eigenfaces_of_other_numbers(wrong):
    images, message = WRONG[wrong]
    with pytest.raises(ValueError, match=f"public: {message}"):
        eigen(images, 3)
    eigen(IMAGES, 3)
    eigen(np.stack([np.zeros((4, 4, 1)), np.ones((4, 4, 1))]), 1)  # the ends are legal


def test_while_something_else_is_traced():
    def scaled(x, images):
        check_images("traced", 300 * images)
        check_images("gallery", jnp.asarray(IMAGES))
        with pytest.raises(ValueError, match="gallery: images from"):
            check_images("gallery", WRONG["bytes"][0])
        return x

    jax.jit(scaled)(1.0, IMAGES)


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("name", GALLERY)
def test_galleries_of_other_numbers(name, wrong):
    images, message = WRONG[wrong]
    method = attacks.get(f"image/{name}")
    target = from_function(lambda p, x: x.reshape(len(x), -1) @ p, jnp.ones((16, 2)), classes=2)
    known = {
        "classes": 2, "embedding": lambda x: x, "base": lambda *a, **b: None, "mask": jnp.eye(4, dtype=bool),
        "surrogates": (networks.Surrogate(2),), "gallery": jnp.asarray(images),
    }  # fmt: skip
    given = {key: known.get(key, networks.Surrogate(2)) for key in method.inputs if key != "oracle"}
    with pytest.raises(ValueError, match=f"gallery: {message}"):
        method.factory(target.view(method.card.access), **given)


def test_every_attack_that_says_so_is_here():
    """A gallery in [0, 1] is looked at by the factory that takes it."""
    takes = [name for name in attacks.names() if "gallery" in attacks.get(name).inputs]
    says = [name for name in takes if "images in [0, 1]" in (inspect.getdoc(attacks.get(name).factory) or "")]
    assert [name for name in says if name.split("/")[-1] not in GALLERY] == []
