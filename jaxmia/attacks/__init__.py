"""One paper, one file; found by module name through `names()` and `get(name)`."""

import functools

from jaxmia import discovery

__all__ = ["get", "names"]

names = functools.partial(discovery.names, __name__)
get = functools.partial(discovery.get, __name__)
