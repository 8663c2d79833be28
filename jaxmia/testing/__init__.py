"""Tests for methods of your own: the contracts that jaxmia's attacks and defenses keep, on targets whose leak is known.

from jaxmia.testing import check_attack
import my_package.my_attack


def test_my_attack():
    check_attack("my_package/my_attack", my_package.my_attack)
"""

from types import ModuleType
from typing import Any

from jaxmia import discovery
from jaxmia.testing import attacks, defenses
from jaxmia.testing.benches import Bench
from jaxmia.testing.trial import Trial

__all__ = ["Bench", "Trial", "check_attack", "check_defense"]


def check_attack(
    name: str,
    module: ModuleType,
    *,
    bench: Bench | None = None,
    inputs: dict[str, Any] | None = None,
    settings: dict[str, Any] | None = None,
) -> None:
    """Run every contract of an attack: structure, then meaning on an analytic target and its two controls.

    Args:
      name: of the attack; its last part names the factory in `module`.
      module: holds CARD and factory.
      bench: the analytic problem; None takes that of the card's modality.
      inputs: what the factory asks for by name and the bench does not supply, or should supply otherwise.
      settings: hyperparameters, where the paper's would take minutes.

    Raises:
      AssertionError: with what is broken.
    """
    trial = Trial(discovery.method(name, module), bench=bench, inputs=inputs, settings=settings)
    for check in (*attacks.STRUCTURE, *attacks.MEANING):
        check(trial)


def check_defense(name: str, module: ModuleType, **inputs: Any) -> None:
    """Run every contract of a defense: its card, and that a defended target trains, serves and meets an attack.

    Args:
      name: of the defense; its last part names the factory in `module`.
      module: holds CARD and factory.
      **inputs: what the factory asks for by name.

    Raises:
      AssertionError: with what is broken.
    """
    defenses.check(discovery.method(name, module), inputs)
