"""What counts as a change, and what a done-file says."""

from __future__ import annotations

import pytest

from modelcloud.errors import UsageError
from modelcloud.monitors.mark import (
    Entry,
    Mark,
    Promise,
    Seen,
    changed,
    differs,
    folder_mark,
    is_ahead,
    is_new,
    promise_of,
    sha256_of_text,
)

OLD = Mark(modified=100.0, size=10, tag="a", digest="d")
DIGEST = "ab" * 32


@pytest.mark.parametrize(
    "now",
    [
        Mark(modified=101.0, size=10, tag="a", digest="d"),
        Mark(modified=99.0, size=10, tag="a", digest="d"),
        Mark(modified=100.0, size=11, tag="a", digest="d"),
        Mark(modified=100.0, size=10, tag="b", digest="d"),
        Mark(modified=100.0, size=10, tag="a", digest="e"),
        Mark(size=10, tag="a", digest="d"),
        None,
    ],
)
def test_any_of_time_size_tag_and_content_is_a_change(now: Mark | None) -> None:
    assert differs(OLD, now)
    assert differs(now, OLD)


def test_a_content_that_was_not_read_is_no_change() -> None:
    assert not differs(OLD, Mark(modified=100.0, size=10, tag="a"))
    assert not differs(None, None)


def seen(done: float = 1.0, model: float = 1.0, *, tag: str = "", size: int = 1) -> Seen:
    return Seen(done=Mark(modified=done, size=0), model=Mark(modified=model, size=size, tag=tag))


def test_what_was_never_pulled_and_what_has_another_done_file_is_new() -> None:
    assert is_new(None, seen(), None)
    assert is_new(seen(done=1), seen(done=2), None)
    assert not is_new(seen(), seen(), seen())


def test_a_model_that_changed_alone_is_not_new_and_told_as_ahead() -> None:
    published, now = seen(done=1, model=1), seen(done=1, model=2)
    assert is_ahead(published, now)
    assert not is_new(published, now, now)
    assert not is_ahead(published, published)
    assert not is_ahead(published, seen(done=2, model=2))


def test_a_model_of_the_same_second_is_new_once_it_stands_still() -> None:
    """The done-file was written again within its second, which its time does not show."""
    published, now = seen(tag="a", size=1), seen(tag="b", size=2)
    assert not is_ahead(published, now)
    assert not is_new(published, now, published)
    assert is_new(published, now, now)


def test_without_times_a_model_that_changed_alone_waits_for_its_done_file() -> None:
    published = Seen(done=Mark(digest="d"), model=Mark(tag="a"))
    now = Seen(done=Mark(digest="d"), model=Mark(tag="b"))
    assert not is_new(published, now, now)
    assert changed(published, now)


def test_a_folder_changes_with_any_file_in_it_and_not_with_their_order() -> None:
    one, other = Entry("a", 1, "1"), Entry("b/c", 2, "1")
    assert folder_mark([one, other]) == folder_mark([other, one])
    assert folder_mark([one, other]).size == 3
    for changed_ in (Entry("b/d", 2, "1"), Entry("b/c", 3, "1"), Entry("b/c", 2, "2")):
        assert differs(folder_mark([one, other]), folder_mark([one, changed_]))


@pytest.mark.parametrize(
    ("content", "promise"),
    [
        (b"", Promise()),
        (b"2026-01-01 whatever\n", Promise()),
        (b"\xff\xfe", Promise()),
        (b"{}", Promise()),
        (b' {"other": [1]}', Promise()),
        (f'{{"sha256": "{DIGEST.upper()}"}}'.encode(), Promise(sha256=DIGEST)),
        (b'{"size": 0, "version": 7}', Promise(size=0, version="7")),
        (b'{"sha256": null, "version": "v7"}', Promise(version="v7")),
    ],
)
def test_a_done_file_may_be_empty_any_text_or_json(content: bytes, promise: Promise) -> None:
    assert promise_of(content) == promise


@pytest.mark.parametrize(
    "content",
    [
        b'{"sha256": "12"}', b'{"sha256": 12}', b'{"size": "12"}', b'{"size": -1}',
        b'{"size": true}', b'{"version": []}', b'{"sha256"', b'{"a": 1} more', b"{\xff}",
    ],
)  # fmt: skip
def test_json_that_does_not_fit_is_refused(content: bytes) -> None:
    with pytest.raises(UsageError):
        promise_of(content)


@pytest.mark.parametrize(
    "content",
    [
        DIGEST, f"{DIGEST}\n", f"{DIGEST}  m.tgz\n", f"{DIGEST} *m.tgz", f"{DIGEST}  out/m.tgz",
        f"{'cd' * 32}  other.tgz\n{DIGEST.upper()}  m.tgz\n",
    ],
)  # fmt: skip
def test_a_digest_file_is_what_sha256sum_writes(content: str) -> None:
    assert sha256_of_text(content.encode(), "m.tgz") == DIGEST


@pytest.mark.parametrize(
    "content",
    [b"", b"nothing", f"{DIGEST}  other.tgz".encode(), DIGEST[1:].encode(),
     f"{DIGEST}  m.tgz\n{DIGEST}  m.tgz".encode()],
)  # fmt: skip
def test_any_other_digest_file_is_refused(content: bytes) -> None:
    with pytest.raises(UsageError, match=r"m\.tgz\.sha256"):
        sha256_of_text(content, "m.tgz")
