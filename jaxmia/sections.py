"""Sections of a configuration: pydantic models derived from factory signatures, and their complaints in words."""

import contextlib
import difflib
import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import pydantic

__all__ = ["Config", "Schema", "Section", "check_numbers", "noted", "resolve", "section", "settable", "within"]

Config = dict[str, Any]
_PLAIN = (int, float, bool, str, types.NoneType)
_REQUIRED: Any = object()


class Section(NamedTuple):
    """What one section of a configuration may hold, and whose choice it is.

    Attributes:
      holder: a registry, a mapping of names to factories, one factory, or a type (see
        `jaxmia.config.load`).
      default: its value where it is not given; None is "no such section". Without a default it must
        be given, unless it has one factory, whose own defaults then apply.
      role: "target" for what a defender chooses, "adversary", "judge" for who measures, or "speed"
        for what changes no result.
      trained: whether what the cells of a sweep train together depends on it; None where its role
        says so: targets and judges are trained.
      several: whether it may be a list of sections where it has one factory; registries always may.
      together: whether an item of its list may be a list of sections itself, which belong together.
    """

    holder: Any
    default: Any = _REQUIRED
    role: Literal["target", "adversary", "judge", "speed"] = "target"
    trained: bool | None = None
    several: bool = False
    together: bool = False

    @property
    def is_trained(self) -> bool:
        return self.role in ("target", "judge") if self.trained is None else self.trained


Schema = Mapping[str, Section]


@functools.cache
def section(factory: Callable[..., Any]) -> type[pydantic.BaseModel]:
    """The frozen pydantic model of a factory's configurable keywords, defaults included; unknown keys are refused.

    Configurable is what has a plain default and is annotated float, int, bool, str, None, Literal or a tuple of these,
    or a union with one of them. A field whose name pydantic needs itself gets a trailing underscore; its alias is the
    parameter's name.

    >>> def attack(oracle, *, rate: float = 0.1, callback=print): ...
    >>> section(attack)(rate="1e-3").model_dump()
    {'rate': 0.001}
    """
    return _model(factory.__name__, _keywords(factory))


def _keywords(factory: Callable) -> dict[str, tuple[Any, Any]]:
    """Annotation and default of each configurable parameter."""
    return {
        p.name: (p.annotation, p.default)
        for p in inspect.signature(factory, eval_str=True).parameters.values()
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        and p.default is not p.empty
        and _readable(p.annotation) is not None
        and _is_plain(p.default)
    }


def settable(factory: Callable) -> dict[str, tuple[str, Any]]:
    """By the name of each keyword that a configuration can set: what is legal, in words, and its default.

    >>> def attack(oracle, *, rate: float = 0.1, callback=print): ...
    >>> settable(attack)
    {'rate': ('a number', 0.1)}
    """
    plain = {name: (_legal(annotation), default) for name, (annotation, default) in _keywords(factory).items()}
    return {name: (legal.replace(_QUOTED, ""), default) for name, (legal, default) in plain.items()}


def _is_plain(value: Any) -> bool:
    return all(map(_is_plain, value)) if isinstance(value, tuple) else isinstance(value, _PLAIN)


def _model(name: str, keywords: dict[str, tuple[Any, Any]]) -> type[pydantic.BaseModel]:
    fields: dict[str, Any] = {
        key + "_" * hasattr(pydantic.BaseModel, key): (_readable(annotation), pydantic.Field(default, alias=key))
        for key, (annotation, default) in keywords.items()
    }
    settings = pydantic.ConfigDict(
        extra="forbid", frozen=True, validate_default=True, validate_by_name=False, protected_namespaces=()
    )
    return pydantic.create_model(name, __config__=settings, **fields)


def _number(value: Any) -> Any:
    if isinstance(value, bool) or value != value:  # only "not a number" differs from itself
        raise ValueError("no number")
    return value


def _readable(annotation: Any) -> Any:
    """The annotation as pydantic should check it; None where a file cannot set it."""
    if annotation in (int, float):
        return Annotated[annotation, pydantic.BeforeValidator(_number)]
    if annotation in (bool, str, types.NoneType) or typing.get_origin(annotation) is Literal:
        return annotation
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is tuple:
        items = tuple(part if part is ... else _readable(part) for part in parts)
        return None if None in items else tuple[items]  # type: ignore[misc]
    if origin in (typing.Union, types.UnionType):  # `float | Float[Array, ""]` is a number here
        members = _members(parts)
        return typing.Union[tuple(_readable(part) for part in members)] if members else None  # noqa: UP007
    return None


def _members(parts: tuple[Any, ...]) -> tuple[Any, ...]:
    """The members of a union that a file can set; none where that would be null alone."""
    members = tuple(part for part in parts if _readable(part) is not None)
    return () if members == (types.NoneType,) else members


_QUOTED = " (in quotes where it reads as a number, true, false or null)"


def _legal(annotation: Any) -> str:
    """What may be written for an annotation, in words."""
    words = {int: "a whole number", float: "a number", bool: "true or false", types.NoneType: "null"}
    words[str] = "text" + _QUOTED
    if annotation in words:
        return words[annotation]
    parts = typing.get_args(annotation)
    if typing.get_origin(annotation) is Literal:
        return "one of " + ", ".join(map(repr, parts))
    if typing.get_origin(annotation) is tuple:
        if parts[-1] is ...:
            return f"a list, each item {_legal(parts[0])}"
        return f"a list of {len(parts)}: " + ", ".join(map(_legal, parts))
    return " or ".join(map(_legal, _members(parts)))


def _near(word: Any, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(str(word), known, n=2, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"legal: {', '.join(known) or 'none'}"


def resolve(config: Config, schema: Schema, errors: list[str]) -> Config:
    """One cell with every section checked, coerced and filled with defaults."""
    for name in config:
        if name not in schema:
            errors.append(f"{name}: unknown section, {_near(name, list(schema))}")
    out = {}
    for name, (holder, default, _, _, several, together) in schema.items():
        if name in config:
            value = config[name]
        elif default is not _REQUIRED:
            value = default
        elif _is_single(holder):
            value = {}
        else:
            errors.append(f"{name}: missing, and it has no default")
            continue
        if value is None and default is None:
            out[name] = None
        elif _readable(holder) is not None:
            out.update(_check(_model(name, {name: (holder, ...)}), "", {name: value}, {name: (holder, ...)}, errors))
        elif isinstance(value, list) and value and (several or not _is_single(holder)):
            out[name] = [_item(holder, f"{name}.{i}", item, errors, together) for i, item in enumerate(value)]
        else:
            out[name] = _section(holder, name, value, errors)
    return out


def _is_single(holder: Any) -> bool:
    return callable(holder) and not hasattr(holder, "names") and _readable(holder) is None


def _item(holder: Any, path: str, value: Any, errors: list[str], together: bool) -> Any:
    if together and isinstance(value, list) and value:
        return [_section(holder, f"{path}.{i}", item, errors) for i, item in enumerate(value)]
    return _section(holder, path, value, errors)


def _section(holder: Any, path: str, value: Any, errors: list[str]) -> Config:
    """One section, as `{"name": ..., keyword: value, ...}`, without the name where there is a single factory."""
    named = not _is_single(holder)
    if named and isinstance(value, str):
        value = {"name": value}
    if value is None:
        value = {}
    if not isinstance(value, dict):
        form = "a name, a section with a name and keywords, or a list of such" if named else "a section of keywords"
        errors.append(f"{path}: {value!r}; legal is {form}")
        return {}
    if not named:
        return _check(section(holder), path, value, _keywords(holder), errors, holder)
    known = list(holder) if isinstance(holder, Mapping) else list(holder.names())
    name, keywords = value.get("name"), {key: item for key, item in value.items() if key != "name"}
    if name not in known:
        problem = "missing" if name is None else f"there is no {name!r}"
        errors.append(f"{path}.name: {problem}, {_near(name, known)}")
        return {}
    found = holder[name] if isinstance(holder, Mapping) else holder.get(name)
    factory = getattr(found, "factory", found)
    if "name" in _keywords(factory):
        raise ValueError(f"{name}: its factory has a parameter 'name', which a section needs for itself; rename it")
    inner = {}
    if "base" in inspect.signature(factory).parameters:  # a combinator: what it builds on is a section like itself
        inner = {"base": _section(holder, f"{path}.base", keywords.pop("base", {}), errors)}
    return {"name": name, **inner, **_check(section(factory), path, keywords, _keywords(factory), errors, factory)}


def _check(
    model: type[pydantic.BaseModel], path: str, values: Config, keywords: dict, errors: list[str], factory: Any = None
) -> Config:
    """Values coerced and filled by a model; its complaints go to `errors` in our words."""
    prefix = path + "." if path else ""
    try:
        return model.model_validate({str(key): value for key, value in values.items()}).model_dump(by_alias=True)
    except pydantic.ValidationError as refusal:
        for key in dict.fromkeys(str(error["loc"][0]) for error in refusal.errors()):
            parameter = inspect.signature(factory).parameters.get(key) if factory else None
            if key in keywords and key in values:
                errors.append(f"{prefix}{key}: {values[key]!r}; legal is {_legal(keywords[key][0])}")
            elif key in keywords:
                errors.append(f"{prefix}{key}: its default {keywords[key][1]!r} does not fit its own annotation")
            elif parameter is None:
                errors.append(f"{prefix}{key}: unknown key, {_near(key, list(keywords))}")
            else:
                supplied = parameter.default is parameter.empty
                reason = "an input that the experiment supplies" if supplied else "no plain value"
                errors.append(f"{prefix}{key}: cannot be set here, it is {reason}; {_near('', list(keywords))}")
    return {}


def check_numbers(where: str, values: Config, least: int) -> None:
    """Refuse whole numbers (sizes, counts, seeds) below `least`, others (rates) below zero, and empty lists of them.

    >>> check_numbers("targets (mlp): ", {"width": 0, "rate": 0.1}, least=1)
    Traceback (most recent call last):
    ValueError: targets (mlp): width: 0; legal is 1 or more
    """
    for key, value in values.items():
        items = value if isinstance(value, tuple) else (value,) if type(value) in (int, float) else (least,)
        floors = [least if isinstance(item, int) else 0 for item in items]
        if not items or any(item < floor for item, floor in zip(items, floors)):
            told = f"a list of numbers from {least} on" if isinstance(value, tuple) else f"{max(floors)} or more"
            raise ValueError(f"{where}{key}: {value!r}; legal is {told}")


_NOTE = "in the configuration: "


@contextlib.contextmanager
def within(where: str) -> Iterator[None]:
    """Say which section a factory's ValueError is about; of any other error a note says it, which `noted` finds."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    except Exception as error:
        error.add_note(_NOTE + where)
        raise


def noted(error: Exception) -> list[str]:
    """The sections that `within` said of an error, outermost first."""
    notes = getattr(error, "__notes__", [])
    return [note.removeprefix(_NOTE) for note in reversed(notes) if note.startswith(_NOTE)]
