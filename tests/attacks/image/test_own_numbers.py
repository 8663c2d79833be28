"""A default that is not the paper's is said to be this library's own."""

import importlib
import inspect

import pytest


@pytest.mark.parametrize("name", ["tb_mia", "xai_aware", "label_error_rate"])
def test_steps_that_are_not_the_papers_are_said_to_be_own(name):
    module = importlib.import_module(f"jaxmia.attacks.image.{name}")
    steps = inspect.signature(getattr(module, name)).parameters["steps"].default
    assert f"{steps:,} steps are this library's own number" in " ".join(module.__doc__.split())
