"""Warm-up and golden requests: what a candidate must answer before it gets traffic.

Must never: let a failed proof pass as a warning when someone wrote the request down. Requests
made up from the types' defaults are only a warm-up: a model may have reasons to refuse them.

Answers must fit the declared outputs too. The request path leaves that out for outputs that JSON
can hold as they are, so this is where a model that does not keep its word is found out.

`warmup.jsonl` holds one object a line: `{"command": …, "inputs": {…}}`; `golden.jsonl` adds
`"expected"` and optionally `"tolerance"` (absolute, for numbers; 0 without). With one command
`"command"` may be left out.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from modelcloud.codecs.media import FLAG_NAN, Codec
from modelcloud.codecs.native import in_field
from modelcloud.dataplane.commands import BoundCommand
from modelcloud.errors import InvalidInput, ModelLoadError
from modelcloud.sdk.contract import CallKind, Command

WARMUP = "warmup.jsonl"
GOLDEN = "golden.jsonl"
MAX_LINES = 10_000


class Proof(msgspec.Struct, forbid_unknown_fields=True):
    """One line of either file."""

    inputs: Any
    command: str = ""
    expected: Any = msgspec.UNSET
    tolerance: float = 0.0


def read_proofs(path: Path, *, golden: bool) -> Iterator[tuple[int, Proof]]:
    """Line number and content of each line that is not blank.

    Raises:
        ModelLoadError: a line is not as described above.
    """
    accepted = '{"command": …, "inputs": {…}' + (
        ', "expected": …, "tolerance": …}' if golden else "}"
    )
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            proof = msgspec.json.decode(line, type=Proof)
        except msgspec.MsgspecError as error:
            raise _refused(path.name, number, f"{error}; accepted: {accepted}") from None
        if golden == (proof.expected is msgspec.UNSET) or number > MAX_LINES:
            raise _refused(path.name, number, f"accepted: {accepted}, up to {MAX_LINES} lines")
        yield number, proof


def warm_up(commands: Sequence[BoundCommand], folder: Path | None) -> list[str]:
    """Run warm-up requests: those of `warmup.jsonl`, else one made from each type's default.

    Returns:
        What a made-up request raised, or how its answer does not fit, as warnings.

    Raises:
        ModelLoadError: a written warm-up request was not answered with 200 and declared outputs.
    """
    path = folder / WARMUP if folder is not None else None
    if path is not None and path.is_file():
        for number, proof in read_proofs(path, golden=False):
            command = _command(commands, proof, WARMUP, number)
            _ask(command, proof.inputs, WARMUP, number)
        return []
    warnings = [_warm_up_made_up(command.command, command) for command in commands]
    return [warning for warning in warnings if warning]


def _warm_up_made_up(declared: Command, command: BoundCommand) -> str:
    """Run one request made of the types' examples; returns what went wrong, in words."""
    guessable = all(
        kind.type_name != "any" or not kind.required for kind in declared.inputs.values()
    )
    if declared.whole_body or declared.with_request or not declared.idempotent or not guessable:
        return ""
    if declared.kind is not CallKind.VALUE and declared.kind is not CallKind.COROUTINE:
        return ""  # how long a stream lasts is the model's choice
    inputs = {name: kind.example() for name, kind in declared.inputs.items()}
    try:
        result = command.call(Codec.JSON, msgspec.json.encode(inputs))
        if declared.kind is CallKind.COROUTINE:
            result = asyncio.run(result)
        body, nan = command.codec.encode(result)
        wrong = "" if nan else misfit(declared, body)
        what = f"has an answer that does not fit: {wrong}" if wrong else ""
    except Exception as error:
        what = f"raised {type(error).__name__}: {error}"
    return what and (
        f"a warm-up request made of the types' defaults {what} "
        f"({declared.name} with {inputs!r:.200}); write {WARMUP} to have better ones"
    )


def check_golden(commands: Sequence[BoundCommand], folder: Path | None) -> int:
    """Ask every golden request and compare the answers; returns how many there were.

    Raises:
        ModelLoadError: an answer differs; the message names the line, what came, what was expected.
    """
    path = folder / GOLDEN if folder is not None else None
    if path is None or not path.is_file():
        return 0
    count = 0
    for number, proof in read_proofs(path, golden=True):
        command = _command(commands, proof, GOLDEN, number)
        got = msgspec.json.decode(_ask(command, proof.inputs, GOLDEN, number))
        if isinstance(got, dict) and len(got) == 1 and not isinstance(proof.expected, dict):
            (got,) = got.values()  # a single output may be expected bare, as it may be returned
        difference = first_difference(got, proof.expected, proof.tolerance)
        if difference:
            raise _refused(GOLDEN, number, f"{command.command.name}: {difference}")
        count += 1
    return count


def first_difference(got: Any, expected: Any, tolerance: float, where: str = "answer") -> str:
    """The first place where an answer is not as expected, in words; "" if there is none.

    A dict is compared by the keys that are expected: further outputs are no difference.
    """
    if isinstance(expected, Mapping) and isinstance(got, Mapping):
        for key, value in expected.items():
            if key not in got:
                return f"{where}.{key} is missing"
            found = first_difference(got[key], value, tolerance, f"{where}.{key}")
            if found:
                return found
        return ""
    if isinstance(expected, list) and isinstance(got, list):
        if len(expected) != len(got):
            return f"{where} has {len(got)} items, expected {len(expected)}"
        for number, (one, other) in enumerate(zip(got, expected, strict=True)):
            found = first_difference(one, other, tolerance, f"{where}[{number}]")
            if found:
                return found
        return ""
    numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in (got, expected))
    same = (
        math.isclose(got, expected, rel_tol=0.0, abs_tol=tolerance)
        if numbers
        else (got == expected and isinstance(got, bool) == isinstance(expected, bool))
    )
    return "" if same else f"{where} is {got!r:.100}, expected {expected!r:.100} ± {tolerance:g}"


def _command(
    commands: Sequence[BoundCommand], proof: Proof, file: str, number: int
) -> BoundCommand:
    names = [command.command.name for command in commands]
    if not proof.command and len(commands) == 1:
        return commands[0]
    if proof.command not in names:
        raise _refused(file, number, f"command {proof.command!r}; accepted: {', '.join(names)}")
    return commands[names.index(proof.command)]


def misfit(declared: Command, body: bytes) -> str:
    """How an answer's JSON does not fit the declared outputs, in words; "" if it does."""
    if declared.whole_body or declared.with_request:
        return ""
    answer = msgspec.json.decode(body)
    try:
        for name, kind in declared.outputs.items():
            if not kind.converts_out:  # otherwise it was held to its limits on the way here
                in_field(name, kind.serialize, answer[name])
    except InvalidInput as error:
        return f"output {error.message}"
    return ""


def _ask(command: BoundCommand, inputs: Any, file: str, number: int) -> bytes:
    """Run one request the way a client's is run, from its JSON to its JSON.

    Raises:
        ModelLoadError: it was not answered with 200, or its answer does not fit.
    """
    body = msgspec.json.encode(inputs)
    if command.kind in {CallKind.COROUTINE, CallKind.ASYNC_GENERATOR}:
        status, codec, answer = asyncio.run(command.run_async(Codec.JSON, body))
    else:
        status, codec, answer = command.run(Codec.JSON, body)
    name = command.command.name
    if status != 200:
        text = answer.decode(errors="replace")[:300]
        raise _refused(file, number, f"{name} answered {status}: {text}")
    # A number that is no number goes out as null, which is counted, and is no misfit.
    wrong = "" if codec & FLAG_NAN else misfit(command.command, answer)
    if wrong:
        raise _refused(file, number, f"{name}: {wrong}")
    return answer


def _refused(file: str, line: int, message: str) -> ModelLoadError:
    return ModelLoadError(f"{file}:{line}: {message}", file=file, line=line)
