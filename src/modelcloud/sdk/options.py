"""Options as given → the complete, converted options that `setup` gets.

Must never: let a name through that was not declared, or a value that does not fit its type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from modelcloud.errors import InvalidInput
from modelcloud.sdk.contract import Signature
from modelcloud.types import GenerationSpec


def given_options(signature: Signature, spec: GenerationSpec) -> dict[str, Any]:
    """The options of a generation in JSON form: those inherited, read from text, asked for.

    Raises:
        InvalidInput: a text cannot be read as its option's type, or names none that is declared.
    """

    def stays(name: str) -> bool:
        return name in signature.options or name not in spec.inherited

    texts = {name: text for name, text in spec.options_text.items() if stays(name)}
    values = {name: value for name, value in spec.options.items() if stays(name)}
    return {**options_from_text(signature, texts), **values}


def complete_options(signature: Signature, given: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in the defaults and convert every value to its Python form.

    Args:
        signature: what the model declares.
        given: option → JSON form.

    Raises:
        InvalidInput: an option that was not declared, a value that does not fit, or an option
            without default that was not given.
    """
    _known(signature, given)
    complete = {}
    for name, kind in signature.options.items():
        if name not in given and kind.required:
            raise InvalidInput(name, "nothing", f"{kind.accepted} (it has no default)")
        complete[name] = (
            _converted(name, kind.deserialize, given[name])
            if name in given
            else kind.default_value()
        )
    return complete


def options_from_text(signature: Signature, given: Mapping[str, str]) -> dict[str, Any]:
    """Read the texts of a command line as JSON forms, by the type of each option.

    Raises:
        InvalidInput: an option that was not declared, or a text that cannot be read as its type.
    """
    _known(signature, given)
    return {
        name: _converted(name, signature.options[name].from_text, text)
        for name, text in given.items()
    }


def _known(signature: Signature, given: Mapping[str, Any]) -> None:
    for name in given:
        if name not in signature.options:
            names = ", ".join(signature.options) or "none; the model declares no options"
            raise InvalidInput(name, "an option that is not declared", names)


def _converted(name: str, convert: Callable[[Any], Any], value: Any) -> Any:
    try:
        return convert(value)
    except InvalidInput as error:
        inside, got, accepted = (error.fields[key] for key in ("field", "got", "accepted"))
        raise InvalidInput(f"{name}{inside}", got, accepted) from None
