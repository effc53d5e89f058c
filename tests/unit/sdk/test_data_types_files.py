"""Files and directories: the upload area is a fence, temporary files do not pile up."""

from __future__ import annotations

import base64
import gc
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelcloud.data_types import directory, file
from modelcloud.errors import InvalidInput
from modelcloud.sdk.data_types import set_upload_dir


@pytest.fixture
def area(tmp_path: Path) -> Iterator[Path]:
    """The upload area, with a sibling that has its name as a prefix and a secret outside."""
    area = tmp_path.resolve() / "m1"
    (area / "sub").mkdir(parents=True)
    (area / "sub" / "weights.H5").write_bytes(b"weights")
    (tmp_path / "m1-evil").mkdir()
    (tmp_path / "m1-evil" / "secret").write_text("secret")
    set_upload_dir(area)
    yield area
    set_upload_dir(None)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files are made during the test."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def data_uri(data: bytes) -> str:
    return "data:application/octet-stream;base64," + base64.b64encode(data).decode()


def refused(kind: file | directory, value: object) -> str:
    with pytest.raises(InvalidInput) as error:
        kind.deserialize(value)
    return str(error.value.fields["got"])


def test_a_data_uri_is_the_path_of_a_private_file_with_its_bytes(temporary: Path) -> None:
    path = file(extension=".h5").deserialize(data_uri(b"\0weights"))
    assert isinstance(path, str)
    assert path.endswith(".h5")
    assert Path(path).read_bytes() == b"\0weights"
    assert Path(path).stat().st_mode & 0o777 == 0o600


def test_a_temporary_file_goes_with_the_last_reference_to_its_path(temporary: Path) -> None:
    kept = file().deserialize(data_uri(b"kept"))
    file().deserialize(data_uri(b"dropped"))
    gc.collect()
    assert [str(path) for path in temporary.iterdir()] == [kept]
    del kept
    gc.collect()
    assert list(temporary.iterdir()) == []


def test_a_path_inside_the_upload_area_is_accepted_relative_or_absolute(area: Path) -> None:
    wanted = str(area / "sub" / "weights.H5")
    kind = file(extension="h5")
    assert kind.deserialize("sub/weights.H5") == wanted
    assert kind.deserialize(wanted) == wanted
    assert kind.deserialize("sub/../sub/./weights.H5") == wanted
    (area / "link.h5").symlink_to("sub/weights.H5")
    assert kind.deserialize("link.h5") == wanted
    assert directory().deserialize("sub") == str(area / "sub")


@pytest.mark.parametrize(
    "path",
    [
        "../m1-evil/secret",
        "sub/../../m1-evil/secret",
        "/etc/passwd",
        "out/secret",
        "out.txt",
        "loop",
        ".",
        "",
        "sub\0",
        "x" * 5000,
        "~/secret",
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "missing",
    ],
)
def test_nothing_outside_the_upload_area_is_reached(area: Path, path: str) -> None:
    (area / "out").symlink_to(area.parent / "m1-evil")
    (area / "out.txt").symlink_to("/etc/passwd")
    (area / "loop").symlink_to("loop")
    for kind in (file(), directory()):
        said = refused(kind, path)
        assert str(area) not in said


def test_an_error_does_not_tell_what_exists_outside(area: Path) -> None:
    there = refused(file(), "/etc/passwd").replace("/etc/passwd", "X")
    assert there == refused(file(), "/etc/absent").replace("/etc/absent", "X")
    assert there.endswith("is not inside the upload area")


def test_without_an_upload_area_no_path_is_accepted() -> None:
    assert refused(file(), "a.txt").endswith("this server has no upload area")
    assert refused(directory(), "/tmp").endswith("this server has no upload area")


def test_only_regular_files_of_the_right_name_and_size_are_files(area: Path) -> None:
    os.mkfifo(area / "fifo")
    assert refused(file(), "fifo").endswith("which is no regular file")
    assert refused(file(), "sub").endswith("which is no regular file")
    assert refused(file(extension=".pt"), "sub/weights.H5").endswith("does not end in .pt")
    assert refused(file(max_bytes=6), "sub/weights.H5") == "a file of 7 bytes"
    assert refused(file(max_bytes=6), data_uri(b"weights")) == "7 bytes"
    assert refused(directory(), "sub/weights.H5").endswith("which is no directory")


def test_a_directory_says_why_it_does_not_travel(area: Path) -> None:
    assert "does not travel" in refused(directory(), data_uri(b"tar"))
    assert "not fetched and unpacked" in refused(directory(), "https://example.org/a.tar.gz")


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/x", "HTTPS://169.254.169.254/latest"])
def test_a_url_goes_through_the_fetch_rules(url: str) -> None:
    assert refused(file(), url) == "a URL whose host has a non-public address"


def test_a_urls_path_must_have_the_extension() -> None:
    kind = file(extension=".h5")
    assert "does not end in .h5" in refused(kind, "https://127.0.0.1/x.pt?name=x.h5")
    assert "non-public" in refused(kind, "https://127.0.0.1/x.h5?name=x.pt#a")


def test_bytes_and_paths_go_out_as_data_uris(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(b"a,b")
    assert file().serialize(b"\0") == data_uri(b"\0")
    for returned in (path, str(path)):
        assert file().serialize(returned) == "data:text/csv;base64,YSxi"


@pytest.mark.parametrize("name", ["missing", "fifo", ".", "a\0b"])
def test_a_returned_path_that_is_no_regular_file_is_refused_unnamed(
    tmp_path: Path, name: str
) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(InvalidInput) as error:
        file().serialize(str(tmp_path / name))
    assert str(tmp_path) not in error.value.message


def test_what_a_model_returns_is_held_to_size_and_extension(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"abcd")
    with pytest.raises(InvalidInput, match="at most 3 bytes"):
        file(max_bytes=3).serialize(path)
    with pytest.raises(InvalidInput, match=r"does not end in \.csv"):
        file(extension="csv").serialize(path)
    with pytest.raises(InvalidInput, match="accepted: bytes, or the path of a regular file"):
        file().serialize(3)


def test_a_returned_directory_goes_out_relative_to_the_upload_area(area: Path) -> None:
    assert directory().serialize(area / "sub") == "sub"
    with pytest.raises(InvalidInput):
        directory().serialize(area.parent)


def test_a_default_is_resolved_when_it_is_used(area: Path) -> None:
    kind = file(default="sub/later.bin")
    (area / "sub" / "later.bin").write_bytes(b"")
    assert kind.default_value() == str(area / "sub" / "later.bin")
