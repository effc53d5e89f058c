"""What the documentation tells a reader to type gives what it says it gives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.markdown import ROOT, blocks, name_of
from support.reader import Reader, matches, reader, session

DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md",
    DOCS / "quickstart.md",
    DOCS / "how-to" / "serve-model-files.md",
    DOCS / "how-to" / "models-that-arrive.md",
    DOCS / "how-to" / "platform.md",
    DOCS / "how-to" / "share-a-group.md",
    DOCS / "how-to" / "split-traffic.md",
    DOCS / "how-to" / "canary.md",
    DOCS / "how-to" / "packages.md",
    DOCS / "how-to" / "versions-that-arrive.md",
    DOCS / "how-to" / "operate-the-platform.md",
]


@pytest.fixture
def visitor(tmp_path: Path) -> Iterator[Reader]:
    with reader(tmp_path) as found:
        yield found


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_can_be_followed_from_top_to_bottom(page: Path, visitor: Reader) -> None:
    for block in blocks(page):
        visitor.follow(block)
    assert visitor.server is not None


def test_the_clients_example_runs_against_the_quickstarts_model(visitor: Reader) -> None:
    model = next(b for b in blocks(DOCS / "quickstart.md") if "file=" in b.words)
    visitor.follow(model)
    visitor.serve("model.py")
    (example,) = (b for b in blocks(DOCS / "reference" / "client.md") if b.words == "run")
    visitor.follow(example)


@pytest.mark.parametrize(
    ("expected", "said", "same"),
    [
        ('{"a":1}', '{"a":1}\n', True),
        ('{"a":1}', '{"a":2}', False),
        ('{"a":…}', '{"a":2}', True),
        ("…\n", "", True),
        ("", "unexpected", False),
        ("…why…", "because", False),
        ("name  level\nada   read", "name  level \nada   read  \n", True),
        ("a b", "a    b", True),
        ("a b", "ab", False),
    ],
)
def test_output_that_is_not_what_the_page_says_is_caught(
    expected: str, said: str, same: bool
) -> None:
    assert matches(expected, said) is same


def test_a_command_may_go_on_in_the_next_line() -> None:
    text = "$ one \\\n    more\nsaid\n$ two\n$ three\nsaid this\nand that\n"
    assert list(session(text)) == [
        ("one \\\n    more", "said\n"),
        ("two", ""),
        ("three", "said this\nand that\n"),
    ]
