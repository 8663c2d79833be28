"""Where candidates live: each factory gives a `core.Prior` of ONE candidate."""

from jaxmia.priors.blocks import Feature, chain, cut
from jaxmia.priors.edges import edges
from jaxmia.priors.eigen import eigen
from jaxmia.priors.latent import latent
from jaxmia.priors.pixels import pixels, total_variation
from jaxmia.priors.pytorch import latent_from_torch
from jaxmia.priors.standardized import standardized
from jaxmia.priors.tokens import tokens

__all__ = [
    "Feature",
    "chain",
    "cut",
    "edges",
    "eigen",
    "latent",
    "latent_from_torch",
    "pixels",
    "standardized",
    "tokens",
    "total_variation",
]
