"""`jaxmia.testing` certifies methods of other packages, and refuses those that break a contract."""

import types

import jax
import pytest

from jaxmia.testing import check_attack, check_defense
from tests.contract.skeletons.attacks.image import choose
from tests.contract.skeletons.defenses import temper


def changed(module, **parts):
    """A module like another, with parts of it replaced."""
    copy = types.ModuleType(module.__name__, module.__doc__)
    copy.__dict__.update({**vars(module), **parts})
    return copy


@pytest.mark.nightly
def test_an_attack_and_a_defense_of_another_package_are_certified():
    check_attack("image/choose", choose)
    check_defense("mine/temper", temper)


def test_a_wrong_card_is_refused():
    with pytest.raises(AssertionError, match="CARD.knows is empty"):
        check_attack("image/choose", changed(choose, CARD=choose.CARD._replace(knows="")))
    with pytest.raises(AssertionError, match="CARD.hook is 'loss'; it sets answer, loss"):
        check_defense("mine/temper", changed(temper, CARD=temper.CARD._replace(hook="loss")))


def test_an_attack_that_does_not_lower_its_oracle_is_refused():
    def greedy(oracle, gallery):
        return choose.choose(jax.tree.map(lambda part: part, oracle), gallery)

    greedy.__doc__, greedy.__module__ = choose.choose.__doc__, choose.__name__
    card = choose.CARD._replace(access=choose.Access.WEIGHTS)
    with pytest.raises(AssertionError, match="ThreatModelError was expected"):
        check_attack("image/choose", changed(choose, CARD=card, choose=greedy))


def test_an_attack_that_finds_nothing_is_refused():
    def blind(oracle, gallery):
        return choose.choose(oracle, 0 * gallery)

    blind.__doc__, blind.__module__ = choose.choose.__doc__, choose.__name__
    with pytest.raises(AssertionError, match="chance is 0.167"):
        check_attack("image/choose", changed(choose, choose=blind))
