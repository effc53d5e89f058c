"""A function's annotations and defaults → data types of its inputs and its output.

Must never: guess from a name; what has no annotation and no default is any JSON value.
"""

from __future__ import annotations

import collections.abc
import copy
import inspect
import types
import typing
from collections.abc import Callable
from typing import Any, Literal, Union

from modelcloud.errors import ModelLoadError
from modelcloud.sdk.blame import Place, place_of, refused
from modelcloud.sdk.data_types import (
    DataType,
    array,
    as_type,
    boolean,
    category,
    number,
    text,
)
from modelcloud.sdk.data_types import any as any_
from modelcloud.sdk.data_types import image as image_

ACCEPTED = (
    "accepted: float, int, str, bool, list, list[...], dict, Literal[...], ... | None, "
    "PIL.Image.Image, Any, a data type such as number(min=0), or no annotation"
)

_PLAIN: dict[Any, Callable[..., DataType]] = {
    float: number,
    int: lambda **given: number(step=1, **given),
    str: text,
    bool: boolean,
    Any: any_,
    object: any_,
}
_LISTS = {
    list, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection,
}  # fmt: skip
_OBJECTS = {dict, collections.abc.Mapping, collections.abc.MutableMapping}
_PIL_IMAGE = ("PIL.Image", "Image")
_UNIONS = {Union, types.UnionType}


def inputs_of(function: Callable[..., Any]) -> dict[str, DataType]:
    """The data type of every parameter that a request can name.

    `*args` and `**kwargs` take nothing from a request, nor does a parameter without annotation
    whose default has no JSON form, such as `dtype=numpy.float32`.

    Raises:
        ModelLoadError: an annotation stands for no data type, or a default does not fit it.
    """
    place = place_of(function)
    return {
        parameter.name: _type_of(parameter, place)
        for parameter in _signature(function, place).parameters.values()
        if parameter.kind not in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}
        and (parameter.annotation is not parameter.empty or _is_nameable(parameter.default))
    }


def output_of(function: Callable[..., Any]) -> DataType:
    """The data type of what it returns or yields; any JSON value where that is not told."""
    hint = _signature(function, place_of(function)).return_annotation
    if typing.get_origin(hint) in {
        collections.abc.Generator, collections.abc.AsyncGenerator, collections.abc.Iterator,
        collections.abc.AsyncIterator,
    }:  # fmt: skip
        hint = typing.get_args(hint)[0]
    if hint is int:
        return number()  # a model that returns 3.0 where it said int is answered all the same
    try:
        return _declared(hint, {}) or any_()
    except ModelLoadError:
        return any_()


def _signature(function: Callable[..., Any], place: Place | None) -> inspect.Signature:
    """Its parameters, with annotations that are text evaluated."""
    try:
        return inspect.signature(function, eval_str=True)
    except (NameError, AttributeError, SyntaxError) as error:
        raise refused(f"an annotation cannot be read: {error}; {ACCEPTED}", place) from None
    except (TypeError, ValueError):
        raise refused(
            "this callable does not tell its parameters; accepted: a function written in Python",
            place,
        ) from None


def _type_of(parameter: inspect.Parameter, place: Place | None) -> DataType:
    given = {} if parameter.default is parameter.empty else {"default": parameter.default}
    annotation = parameter.annotation
    if annotation is parameter.empty:
        annotation = _annotation_of(parameter.default)
    try:
        found = _declared(annotation, given)
    except ModelLoadError as error:
        raise refused(f"parameter {parameter.name!r}: {error.message}", place) from None
    if found is None:
        written = getattr(annotation, "__name__", None) or repr(annotation)
        raise refused(
            f"parameter {parameter.name!r}: {written} stands for no data type; {ACCEPTED}", place
        )
    return found


def _is_nameable(default: Any) -> bool:
    plain = (type(None), bool, int, float, str, list, dict)
    return default is inspect.Parameter.empty or isinstance(default, plain)


def _annotation_of(default: Any) -> Any:
    """What a parameter without annotation takes, by its default."""
    kind = type(default)
    # `steps=3` says that numbers go there, not that 2.5 cannot
    return {bool: bool, int: float, float: float, str: str}.get(kind, Any)


def _declared(annotation: Any, given: dict[str, Any]) -> DataType | None:
    """The data type an annotation stands for; None for one that stands for none."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        own = next((extra for extra in arguments[1:] if _is_data_type(extra)), arguments[0])
        return _declared(own, given)
    if _is_data_type(annotation):
        return _with_default(annotation, given)
    if not isinstance(annotation, collections.abc.Hashable):
        return None
    if annotation in _PLAIN:
        return _PLAIN[annotation](**given)
    if origin in _UNIONS:
        return _of_union(arguments, given)
    if origin is Literal:
        choices = all(type(choice) in {str, int} for choice in arguments)
        return category(list(arguments), **given) if choices else any_(**given)
    if origin in _LISTS or annotation in _LISTS:
        item = _declared(arguments[0], {}) if arguments else None
        return None if arguments and item is None else array(item_type=item or any_(), **given)
    if origin in _OBJECTS or annotation in _OBJECTS:
        return any_(**given)
    if (getattr(annotation, "__module__", ""), getattr(annotation, "__name__", "")) == _PIL_IMAGE:
        return image_(**given)
    return None


def _of_union(arguments: tuple[Any, ...], given: dict[str, Any]) -> DataType | None:
    """`X | None` is X that may be left out; `int | float` a number; other unions anything."""
    kinds = [kind for kind in arguments if kind is not type(None)]
    if len(kinds) < len(arguments):
        given = {"default": None, **given}
    if set(kinds) == {int, float}:
        return number(**given)
    return _declared(kinds[0], given) if len(kinds) == 1 else any_(**given)


def _is_data_type(annotation: Any) -> bool:
    kind = annotation if inspect.isclass(annotation) else type(annotation)
    # in Python 3.10 `list[int]` passes for a class
    return typing.get_origin(annotation) is None and issubclass(kind, DataType)


def _with_default(annotation: Any, given: dict[str, Any]) -> DataType:
    """A data type used as annotation, with the parameter's default where it has none itself."""
    kind = as_type(annotation)
    if not given or not kind.required:
        return kind
    kind = copy.copy(kind)
    DataType.__init__(kind, description=kind.description, **given)
    return kind
