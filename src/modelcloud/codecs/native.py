"""The native wire format: a JSON object of inputs by name in, one of outputs by name out.

Must never: know sockets or HTTP beyond the codec numbers of a frame. Decoding goes straight into
the command's types; only input that fails is looked at again, to say what is wrong with it.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from modelcloud.codecs.media import CODEC_MASK, FLAG_GZIP, Codec
from modelcloud.errors import InvalidInput, ModelError, TooLarge, UsageError
from modelcloud.sdk.contract import Command
from modelcloud.sdk.data_types.base import describe, to_builtin

#: Nested arrays and objects in a body (the limit Triton has too).
MAX_DEPTH = 100
MAX_QUERY_FIELDS = 1000
#: Levels that `check_depth` takes away before it counts.
PEELED = 8

_AS_SQUARE = bytes.maketrans(b"{}", b"[]")
_NO_MARKS = bytes(byte for byte in range(256) if byte not in b'[]{}"')
_TEXT = re.compile(rb'"[^"]*"')
_RUNS = re.compile(rb"(\[+)(\]*)")

_encode = msgspec.json.Encoder(enc_hook=to_builtin).encode
_decode_any = msgspec.json.Decoder(Any).decode
_astuple = msgspec.structs.astuple


def inflate(body: bytes, limit: int) -> bytes:
    """Expand a gzip'd body.

    Raises:
        TooLarge: it would be over `limit` bytes; no more than that was expanded.
        UsageError: it is no whole gzip stream.
    """
    expander = zlib.decompressobj(wbits=31)
    try:
        out = expander.decompress(body, limit + 1)
    except zlib.error:
        raise UsageError("content-encoding: gzip, but the body is no gzip stream") from None
    if len(out) > limit:
        raise TooLarge(f"body: accepted up to {limit} bytes after decompression")
    if not expander.eof or expander.unused_data:
        raise UsageError("content-encoding: gzip, but the body is not one whole gzip stream")
    return out


def parse_json(body: bytes) -> Any:
    """Any JSON value, strictly: no NaN, no number out of range, no lone surrogate, not too deep.

    Raises:
        UsageError: it is none; the message says why.
    """
    try:
        check_depth(body)
        value: Any = _decode_any(body)
    except UnicodeDecodeError:
        raise UsageError("body: text that is not UTF-8; accepted: JSON in UTF-8") from None
    except RecursionError:
        raise _too_deep() from None
    except msgspec.MsgspecError as error:
        raise UsageError(f"body: {error}; accepted: JSON") from None
    colons = body.count(b":")
    if colons > 1 and not (type(value) is dict and len(value) == colons):
        check_names(body)
    return value


def check_depth(body: bytes) -> None:
    """Refuse a body nested deeper than `MAX_DEPTH`, in linear time and mostly in C.

    Only brackets outside of text are looked at. Innermost pairs are taken away level by level, so
    that of wide bodies nothing is left; what is left changes direction seldom, and its runs of
    equal brackets are counted. 50 MB of nothing but brackets take about 1.5 s at worst, pixels 0.1.

    Raises:
        UsageError: it is nested too deep.
    """
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return
    if b"\\" in body:
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    marks = body.translate(_AS_SQUARE, _NO_MARKS).replace(b'""', b"")
    if b'"' in marks:
        marks = _TEXT.sub(b"", marks)
    depth = 0
    for _ in range(PEELED):
        peeled = marks.replace(b"[]", b"")
        if len(peeled) == len(marks):
            break
        marks = peeled
        depth += 1
    for run in _RUNS.finditer(marks):
        depth += run.end(1) - run.start(1)
        if depth > MAX_DEPTH:
            raise _too_deep()
        depth -= run.end(2) - run.start(2)


def check_names(body: bytes) -> None:
    """Refuse valid JSON in which an object has a name twice: readers differ on which one counts.

    Raises:
        UsageError: there is one.
    """
    import json

    json.loads(body, object_pairs_hook=_refuse_twice, parse_int=float)  # of any number of digits


def _refuse_twice(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise UsageError(f"{name}: given twice; accepted: each name once", field=name)
        seen.add(name)


def _too_deep() -> UsageError:
    return UsageError(f"body: nested too deep; accepted up to {MAX_DEPTH} levels")


class CommandCodec:
    """Requests and answers of one command.

    Args:
        command: what it takes and gives.
        max_body: bytes a gzip'd body may expand to.
    """

    def __init__(self, command: Command, max_body: int) -> None:
        self._command = command
        self._max_body = max_body
        self._inputs = dict(command.inputs)
        self._names = tuple(command.inputs)
        self._names_sure = max(1, sum(kind.required for kind in self._inputs.values()))
        self._open = any(kind.type_name in {"any", "array"} for kind in self._inputs.values())
        self._convert = [
            (name, kind, kind.deserialize if kind.converts_in else None)
            for name, kind in self._inputs.items()
            if kind.converts_in or not (kind.required or _plain(kind.default))
        ]
        self._decode = self._decoder()
        outputs = dict(command.outputs)
        self._outputs = outputs.keys()
        self._has_outputs = not (command.whole_body or command.with_request)
        self._single = next(iter(outputs)) if len(outputs) == 1 else None
        self._serialize = [
            (name, kind.serialize) for name, kind in outputs.items() if kind.converts_out
        ]

    def _decoder(self) -> Callable[[bytes], msgspec.Struct]:
        fields: list[Any] = []
        for number, kind in enumerate(self._inputs.values()):
            name = f"f{number}"
            if kind.required:
                fields.append((name, kind.json_type()))
            elif _plain(kind.default) and not kind.converts_in:
                fields.append((name, kind.json_type(), kind.default))
            else:
                fields.append((name, kind.json_type() | msgspec.UnsetType, msgspec.UNSET))
        struct = msgspec.defstruct(
            "Inputs",
            fields,
            rename={f"f{number}": name for number, name in enumerate(self._names)},
            forbid_unknown_fields=True,
            kw_only=True,
            gc=False,
        )
        decode: Callable[[bytes], msgspec.Struct] = msgspec.json.Decoder(struct).decode
        return decode

    # ---- in

    def decode(self, codec: int, body: bytes) -> Any:
        """A request's body → what the command's function gets.

        Raises:
            UsageError: it does not fit; the message names the field, what came, what is accepted.
            TooLarge: it expands to more than `max_body`.
        """
        if codec:
            if codec & FLAG_GZIP:
                body = inflate(body, self._max_body)
            kind = codec & CODEC_MASK
            if kind == Codec.QUERY or (
                kind == Codec.FORM and body.lstrip()[:1] not in {b"{", b"["}
            ):
                return self._from_text(body)
        if self._command.whole_body:
            return parse_json(body or b"{}")
        if self._open:
            check_depth(body)
        try:
            inputs = dict(zip(self._names, _astuple(self._decode(body or b"{}")), strict=True))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise self._explain(body) from None
        if body.count(b":") > self._names_sure:  # fewer leave no room for a name given twice
            check_names(body)
        if self._convert:
            self._to_python(inputs)
        return inputs

    def _to_python(self, inputs: dict[str, Any]) -> None:
        for name, kind, deserialize in self._convert:
            value = inputs[name]
            if value is msgspec.UNSET:
                inputs[name] = kind.default_value()
            elif deserialize is not None:
                inputs[name] = in_field(name, deserialize, value)

    def _from_text(self, query: bytes) -> Any:
        """A query string: every value is text, read by its field's type."""
        try:
            pairs = parse_qsl(
                query.decode("ascii"),
                keep_blank_values=True,
                strict_parsing=bool(query),
                errors="strict",
                max_num_fields=MAX_QUERY_FIELDS,
            )
        except (ValueError, UnicodeDecodeError) as error:
            raise UsageError(f"query: {error}; accepted: name=value pairs joined by &") from None
        given: dict[str, Any] = {}
        for name, text in pairs:
            if name in given:
                raise UsageError(f"{name}: given twice; accepted: each name once")
            kind = self._inputs.get(name)
            given[name] = in_field(name, kind.from_text, text) if kind else text
        if self._command.whole_body:
            return given
        return self.check(given)

    def check(self, given: Any) -> dict[str, Any]:
        """JSON form of the inputs, field by field → what the command's function gets.

        Raises:
            UsageError: as `decode`.
        """
        if not isinstance(given, dict):
            raise UsageError(f"body: got {describe(given)}; accepted: {self._accepted()}")
        unknown = given.keys() - self._inputs.keys()
        if unknown:
            raise UsageError(
                f"{', '.join(sorted(unknown))}: no such input; accepted: {self._accepted()}",
                field=min(unknown),
                accepted=sorted(self._inputs),
            )
        inputs: dict[str, Any] = {}
        for name, kind in self._inputs.items():
            if name in given:
                inputs[name] = in_field(name, kind.deserialize, given[name])
            elif kind.required:
                raise InvalidInput(name, "nothing", kind.accepted)
            else:
                inputs[name] = kind.default_value()
        return inputs

    def _accepted(self) -> str:
        fields = ", ".join(
            f"{name} ({kind.accepted}{'' if kind.required else ', optional'})"
            for name, kind in self._inputs.items()
        )
        return f"an object with {fields}"

    def _explain(self, body: bytes) -> UsageError:
        """Why typed decoding refused this body."""
        try:
            self.check(parse_json(body or b"{}"))
        except UsageError as error:
            return error
        # Each field alone is fine, so the decoder was stricter than the type: say its own words.
        try:
            self._decode(body)
        except msgspec.MsgspecError as error:
            return UsageError(f"body: {error}; accepted: {self._accepted()}")
        return UsageError(f"body: accepted: {self._accepted()}")

    # ---- out

    def encode(self, result: Any) -> tuple[bytes, bool]:
        """What the function returned → the answer's JSON, and whether a NaN became null in it.

        Raises:
            ModelError: it does not fit the declared outputs.
        """
        if self._has_outputs:
            # The usual case first, since it is all that most requests need.
            if type(result) is not dict or result.keys() != self._outputs:
                result = self._named(result)
            if self._serialize:
                result = self._serialized(result)
        try:
            body = _encode(result)
        except (TypeError, ValueError, RecursionError, OverflowError) as error:
            raise ModelError(f"the answer has no JSON form: {error}") from error
        return body, b"null" in body and has_nan(result)

    def _serialized(self, result: Mapping[str, Any]) -> dict[str, Any]:
        out = dict(result)
        try:
            for name, serialize in self._serialize:
                out[name] = in_field(name, serialize, out[name])
        except InvalidInput as error:
            raise ModelError(f"output {error.message}") from error
        return out

    def _named(self, result: Any) -> Any:
        """The outputs by name; a bare value belongs to a single one."""
        is_dict = isinstance(result, Mapping)
        if self._single is not None and not (is_dict and result.keys() == self._outputs):
            return {self._single: result}
        if not is_dict or result.keys() != self._outputs:
            got = (
                f"an object with {', '.join(map(str, result)) or 'nothing'}"
                if is_dict
                else (describe(result))
            )
            raise ModelError(
                f"the function returned {got}; accepted: a dict with {', '.join(self._outputs)}"
            )
        return result


def in_field(name: str, convert: Callable[[Any], Any], value: Any) -> Any:
    """Convert a field's value; an error names the field.

    Raises:
        InvalidInput: the value does not fit.
    """
    try:
        return convert(value)
    except InvalidInput as error:
        fields = error.fields
        raise InvalidInput(f"{name}{fields['field']}", fields["got"], fields["accepted"]) from None


def _plain(default: Any) -> bool:
    """Whether a default needs no copy and no conversion per request."""
    return default is None or isinstance(default, (str, int, float, bool))


def has_nan(value: Any) -> bool:
    """Whether a NaN or an infinity is anywhere in an answer."""
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, Mapping):
        return any(map(has_nan, value.values()))
    if isinstance(value, (list, tuple, set, frozenset)):
        return any(map(has_nan, value))
    tolist = getattr(value, "tolist", None)
    return has_nan(tolist()) if callable(tolist) and not isinstance(value, (str, bytes)) else False
