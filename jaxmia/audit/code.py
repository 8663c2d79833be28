"""Functions of the user's own, named in a configuration as `file.py:function`."""

import importlib.util
import pathlib
import sys
from collections.abc import Callable
from typing import Any

__all__ = ["function_of"]


def function_of(field: str, text: str) -> Callable[..., Any]:
    """The function that `file.py:function` names; the file is run, as `python file.py` would run it but for its name.

    What it imports may lie beside it. It is code of the user's, with all rights of the user.

    Args:
      field: of the configuration, for complaints.
      text: a path, from the working directory or with `~`, a colon, and a name in the file.

    Raises:
      ValueError: for another form, or a file without that function; FileNotFoundError: without the file.
    """
    path, _, name = text.rpartition(":")
    if not path.endswith(".py") or not name.isidentifier():
        raise ValueError(f"{field}: {text!r}; legal is file.py:function, such as my_model.py:predict")
    file = pathlib.Path(path).expanduser().resolve()
    if not file.is_file():
        raise FileNotFoundError(f"{field}: there is no file {path}; legal is file.py:function")
    known = f"_jaxmia_user_{file.stem}_{abs(hash(file)):x}"
    module = sys.modules.get(known)
    if module is None:
        spec = importlib.util.spec_from_file_location(known, file)
        assert spec is not None and spec.loader is not None, "a .py file has a loader"
        module = sys.modules[known] = importlib.util.module_from_spec(spec)
        if str(file.parent) not in sys.path:
            sys.path.append(str(file.parent))
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[known]
            raise
    found = getattr(module, name, None)
    if not callable(found):
        raise ValueError(f"{field}: {path} has no function {name}")
    return found
