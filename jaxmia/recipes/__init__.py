"""The few shapes most published attacks are parameterizations of."""

from jaxmia.recipes.adversarial import adversarial
from jaxmia.recipes.amsgrad import amsgrad
from jaxmia.recipes.conditional import conditional
from jaxmia.recipes.descend import descend
from jaxmia.recipes.distill import distill
from jaxmia.recipes.drawn import drawn
from jaxmia.recipes.evolve import evolve
from jaxmia.recipes.moments import moments
from jaxmia.recipes.regress import regress
from jaxmia.recipes.score import score
from jaxmia.recipes.select import best_of, selected
from jaxmia.recipes.sliced import sliced
from jaxmia.recipes.swept import casewise, swept

__all__ = [
    "adversarial",
    "amsgrad",
    "best_of",
    "casewise",
    "conditional",
    "descend",
    "distill",
    "drawn",
    "evolve",
    "moments",
    "regress",
    "score",
    "selected",
    "sliced",
    "swept",
]
