"""Records of a server on a terminal: tables for people, JSON for programs.

Must never: read what came from a server as markup, or let it steer the terminal.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

#: Where no terminal says how wide it is, nothing is cut.
WIDTH_OF_A_FILE = 400
#: Fields that hold bytes.
SIZES = {"memory", "size"}
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")

Json = Annotated[
    bool, typer.Option("--json", metavar="", help="Print the records as JSON, for programs.")
]


def plain(text: str) -> str:
    """The text with every control character but the tab spelled out."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> Table:
    """A table of plain values."""
    from rich.table import Table
    from rich.text import Text

    found = Table(*heads, box=None, pad_edge=False)
    for row in rows:
        found.add_row(*(Text(plain(cell_of("", cell))) for cell in row))
    return found


def console(*, stderr: bool = False) -> Console:
    """Where tables go, or what is told beside an answer."""
    from rich.console import Console

    found = Console(highlight=False, stderr=stderr)
    if not found.is_terminal:
        found.width = WIDTH_OF_A_FILE
    return found


def listed(
    records: Sequence[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool = False
) -> None:
    """Print records as a table of these fields (`a.b` reads a field of a field), or as JSON."""
    if as_json:
        as_text(records)
        return
    rows = [[cell_of(column, _field(record, column)) for column in columns] for record in records]
    console().print(table([_head(column) for column in columns], rows))


def one(record: Mapping[str, Any], *, as_json: bool = False) -> None:
    """Print one record, a line for each field, or as JSON."""
    if as_json:
        as_text(record)
        return
    found = table(("", ""), [(_head(name), cell_of(name, value)) for name, value in record.items()])
    found.show_header = False
    console().print(found)


def as_text(value: Any, *, indent: int | None = 2) -> None:
    """Print JSON."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    print(re.sub(r"[\x7f-\x9f]", lambda found: f"\\u{ord(found[0]):04x}", text), flush=True)


def said(text: str, record: Any, *, as_json: bool = False) -> None:
    """Say what was done: in a line, or as the record that came back."""
    if as_json:
        as_text(record)
    else:
        print(plain(text))


def cell_of(name: str, value: Any) -> str:
    """A value in a table, by the name of its field: `memory` is bytes, `…_at` is a time."""
    name = name.rpartition(".")[2]
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        pairs = [f"{inner}={cell_of(inner, of)}" for inner, of in value.items()]
        return ", ".join(pairs) or "-"
    if isinstance(value, list):
        return ", ".join(cell_of(name, item) for item in value) or "-"
    if name in SIZES and isinstance(value, int):
        return _size(value)
    if _is_time(name) and isinstance(value, str):
        return value[:19].replace("T", " ")
    return f"{value:g}" if isinstance(value, float) else str(value)


def _head(column: str) -> str:
    words = column.replace(".", " ").replace("_", " ")
    return f"{words} (UTC)" if _is_time(column) else words


def _is_time(name: str) -> bool:
    return name == "at" or name.endswith("_at")


def _size(count: int) -> str:
    """Bytes as the flags take them."""
    for unit, size in (("G", 1 << 30), ("M", 1 << 20), ("k", 1 << 10)):
        if count >= size:
            return f"{count / size:.1f}".removesuffix(".0") + unit
    return str(count)


def _field(record: Any, column: str) -> Any:
    for name in column.split("."):
        record = record.get(name) if isinstance(record, Mapping) else None
    return record
