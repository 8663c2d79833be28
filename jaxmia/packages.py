"""Packages that not everybody has: which extra of jaxmia brings a module, and one sentence where it is missing."""

import importlib.metadata
import importlib.util
import re

__all__ = ["extra", "missing", "require"]

DISTRIBUTIONS = {"PIL": "pillow", "sklearn": "scikit-learn"}
"""Packages that are not called as their modules are."""


def require(*modules: str) -> None:
    """Refuse to go on without one of `modules`; none is imported.

    Raises:
      ImportError: naming the first that is missing, and how to install it.
    """
    for module in modules:
        try:
            found = importlib.util.find_spec(module) is not None
        except ImportError:  # of a package that holds it, or by somebody who blocks it
            found = False
        if not found:
            raise ImportError(missing(module), name=module)


def missing(module: str) -> str:
    """How to install the package of a module that cannot be imported.

    >>> missing("sklearn.tree")
    "the package scikit-learn is missing: pip install 'jaxmia[tabular]'"
    """
    package = distribution(module)
    needed = extra(package)
    what = f"'jaxmia[{needed}]'" if needed else package
    return f"the package {package} is missing: pip install {what}"


def distribution(module: str) -> str:
    """The package that a module, or one inside it, comes from.

    >>> distribution("PIL.Image"), distribution("jax_privacy")
    ('pillow', 'jax-privacy')
    """
    root = module.partition(".")[0]
    return DISTRIBUTIONS.get(root, root.replace("_", "-"))


def extra(package: str) -> str | None:
    """The extra of jaxmia that brings a package, as its metadata say; None for one that is always installed.

    >>> extra("scikit-learn"), extra("jax")
    ('tabular', None)
    """
    try:
        requirements = importlib.metadata.requires("jaxmia") or []
    except importlib.metadata.PackageNotFoundError:  # a source tree that nobody installed
        return None
    for requirement in requirements:
        found = re.match(r"""([\w.-]+)[^;]*(?:;.*extra\s*==\s*["']([\w-]+)["'])?""", requirement)
        if found and re.sub(r"[_.-]+", "-", found[1]).lower() == package.lower():
            return found[2]
    return None
