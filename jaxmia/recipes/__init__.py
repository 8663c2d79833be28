"""The few shapes most published attacks are parameterizations of."""

from jaxmia.recipes.descend import descend
from jaxmia.recipes.evolve import evolve
from jaxmia.recipes.regress import regress
from jaxmia.recipes.score import score
from jaxmia.recipes.select import best_of
from jaxmia.recipes.swept import swept

__all__ = ["best_of", "descend", "evolve", "regress", "score", "swept"]
