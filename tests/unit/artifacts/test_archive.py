"""Archives of strangers: what is taken, what is refused, and that nothing lands outside."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import resource
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelcloud.artifacts.archive import unpack
from modelcloud.artifacts.tree import Caps
from modelcloud.errors import ModelcloudError, TooLarge, UnsupportedMedia, UsageError

CAPS = Caps(bytes=1_000_000, entries=50, depth=6)
FILES = {"model.py": b"x = 1\n" * 40, "data/weights.bin": bytes(range(256)) * 90, "empty": b""}


def tar_of(
    files: dict[str, bytes], form: int = tarfile.PAX_FORMAT, more: tuple[tarfile.TarInfo, ...] = ()
) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for info in more:
            tar.addfile(info, io.BytesIO(bytes(info.size)))
    return out.getvalue()


def zip_of(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def zstd_of(data: bytes) -> bytes:
    zstandard = pytest.importorskip("zstandard")
    packed: bytes = zstandard.ZstdCompressor(write_checksum=True).compress(data)
    return packed


class Box:
    """A folder to unpack into, with a neighbour whose name starts the same."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.into = folder / "m1"
        self.into.mkdir()
        (folder / "m1-evil").mkdir()

    def unpack(self, data: bytes, caps: Caps = CAPS) -> dict[str, bytes]:
        archive = self.folder / "archive"
        archive.write_bytes(data)
        tree = unpack(archive, self.into, caps)
        found = {
            path.relative_to(self.into).as_posix(): path.read_bytes()
            for path in self.into.rglob("*")
            if path.is_file()
        }
        assert tree.files == {
            name: hashlib.sha256(content).hexdigest() for name, content in found.items()
        }
        assert tree.size == sum(map(len, found.values()))
        return found

    def refuses(
        self, data: bytes, words: str, kind: type[ModelcloudError] = UsageError, caps: Caps = CAPS
    ) -> None:
        with pytest.raises(kind) as refused:
            self.unpack(data, caps)
        assert words in refused.value.message
        outside = {path.name for path in self.folder.rglob("*") if self.into not in path.parents}
        assert outside == {"m1", "m1-evil", "archive"}
        assert not any(path.is_symlink() for path in self.folder.rglob("*"))


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "tar": bytes, "gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstd_of,
}  # fmt: skip
packed = pytest.mark.parametrize("pack", PACKERS.values(), ids=PACKERS)


@packed
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_tar_in_every_packing_and_format_is_unpacked(
    box: Box, pack: Callable[[bytes], bytes], form: int
) -> None:
    assert box.unpack(pack(tar_of(FILES, form))) == FILES


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_and_foreign_names_are_kept(box: Box, form: int) -> None:
    files = {"d" * 200 + "/" + "f" * 180: b"1", "模型/权重.bin": b"2"}
    assert box.unpack(tar_of(files, form)) == files


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_is_unpacked(box: Box, method: int) -> None:
    files = {**FILES, "模型/权重.bin": b"2"}
    assert box.unpack(zip_of(files, method)) == files


def test_a_zip_that_was_written_to_a_pipe_is_unpacked(box: Box) -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    out = Pipe()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.py", b"a" * 1000)
        with archive.open("b.py", "w", force_zip64=True) as writer:
            writer.write(b"b" * 1000)
    assert box.unpack(out.getvalue()) == {"a.py": b"a" * 1000, "b.py": b"b" * 1000}


def test_names_are_taken_from_the_archives_root(box: Box) -> None:
    assert box.unpack(tar_of({"./a/./b": b"1"})) == {"a/b": b"1"}


def test_modes_are_dropped(box: Box) -> None:
    info = tarfile.TarInfo("run")
    info.mode = 0o6777
    box.unpack(tar_of({}, more=(info,)))
    assert stat.S_IMODE((box.into / "run").stat().st_mode) & 0o7111 == 0


NAMES = {
    "../m1-evil/x": "leads out",
    "a/../../x": "leads out",
    "/etc/passwd": "absolute",
    "a\\..\\x": "backslash",
    "a\nb": "control",
    "a/" + "n" * 256: "too long",
    "a/b/c/d/e/f/g": "deeper",
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("make", [tar_of, zip_of])
def test_a_name_that_may_not_be_written_is_refused(
    box: Box, name: str, make: Callable[[dict[str, bytes]], bytes]
) -> None:
    box.refuses(make({"ok": b"", name: b"x"}), NAMES[name], ModelcloudError)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (tarfile.SYMTYPE, "a symbolic link"),
        (tarfile.LNKTYPE, "a hard link"),
        (tarfile.FIFOTYPE, "a named pipe"),
        (tarfile.CHRTYPE, "a character device"),
        (tarfile.BLKTYPE, "a block device"),
        (tarfile.GNUTYPE_SPARSE, "a sparse file"),
        (b"Z", "unknown kind"),
    ],
)
def test_only_files_and_folders_are_taken_from_a_tar(box: Box, kind: bytes, words: str) -> None:
    info = tarfile.TarInfo("thing")
    info.type, info.linkname = kind, "../m1-evil"
    box.refuses(tar_of({"thing2": b""}, more=(info,)), words)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_only_files_and_folders_are_taken_from_a_zip(box: Box, kind: int) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        info = zipfile.ZipInfo("thing")
        info.create_system, info.external_attr = 3, (kind | 0o777) << 16
        archive.writestr(info, "../m1-evil")
    box.refuses(out.getvalue(), "accepted: regular files and folders")


def test_a_name_may_come_once(box: Box) -> None:
    twice = (tarfile.TarInfo("a/x"), tarfile.TarInfo("a/x"))
    box.refuses(tar_of({}, more=twice), "twice")


def test_a_file_cannot_be_a_folder_too(box: Box) -> None:
    box.refuses(zip_of({"a": b"1", "a/x": b"2"}), "as a file and as a folder")


def test_names_that_differ_in_case_are_two(box: Box) -> None:
    files = {"A": b"1", "a": b"2"}
    assert box.unpack(tar_of(files)) == files


def boundaries(data: bytes) -> list[int]:
    """Where each member of a tar ends."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return [*(info.offset for info in tar.getmembers()[1:]), tar.offset]


@packed
def test_a_tar_that_is_cut_at_a_member_boundary_is_refused(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    whole = tar_of(FILES, tarfile.USTAR_FORMAT)
    for number, end in enumerate(boundaries(whole)):
        for extra in (0, 512):  # the second ends after one block more: of zeros, at the last
            (folder := tmp_path / f"{number}-{extra}").mkdir()
            Box(folder).refuses(pack(whole[: end + extra]), "")


@packed
def test_a_packed_file_that_is_cut_anywhere_is_refused(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    whole = pack(tar_of(FILES))
    last = len(tar_of(FILES).rstrip(b"\0")) if pack is bytes else len(whole) - 1
    for end in {*range(1, last, last // 40), last}:
        (folder := tmp_path / str(end)).mkdir()
        Box(folder).refuses(whole[:end], "")


def test_a_zip_that_is_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = zip_of(FILES)
    for end in range(0, len(whole), 7):
        (folder := tmp_path / str(end)).mkdir()
        Box(folder).refuses(whole[:end], "")


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, bz2.compress, zstd_of])
def test_a_flipped_byte_in_the_data_or_its_checksum_is_refused(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    whole = pack(tar_of(FILES))
    last = -5 if pack is gzip.compress else -1  # gzip: of the checksum; then comes the size
    for number, place in enumerate((len(whole) // 2, last)):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        (folder := tmp_path / str(number)).mkdir()
        Box(folder).refuses(bytes(damaged), "")


def test_a_flipped_byte_in_a_zip_is_refused(tmp_path: Path) -> None:
    whole = zip_of({"a": FILES["data/weights.bin"]}, zipfile.ZIP_STORED)
    damaged = bytearray(whole)
    damaged[500] ^= 1
    Box(tmp_path).refuses(bytes(damaged), "does not match its size and checksum")


@packed
@pytest.mark.parametrize("garbage", [b"x" * 600, b"\0" * 600 + b"x"])
def test_nothing_may_follow_the_end(
    box: Box, pack: Callable[[bytes], bytes], garbage: bytes
) -> None:
    box.refuses(pack(tar_of(FILES)) + garbage, "follow")


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, bz2.compress])
def test_what_follows_within_the_packing_counts_too(
    box: Box, pack: Callable[[bytes], bytes]
) -> None:
    box.refuses(pack(tar_of(FILES) + b"x"), "something follows the end")


def test_streams_one_behind_the_other_are_one(box: Box) -> None:
    whole = tar_of(FILES)
    assert box.unpack(gzip.compress(whole[:700]) + gzip.compress(whole[700:])) == FILES


def test_nothing_may_follow_the_end_of_a_zip(box: Box) -> None:
    box.refuses(zip_of(FILES) + b"x", "something follows")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no archive"),
        (b"<html>404 Not Found</html>" * 40, "no archive"),
        (gzip.compress(b"no tar"), "gzip data that is no tar"),
        (zip_of({}), "no files"),
        (tar_of({}), "no files"),
    ],
    ids=["empty", "a page", "gzip", "zip", "tar"],
)
def test_what_is_no_archive_is_named(box: Box, data: bytes, words: str) -> None:
    box.refuses(data, words)


def test_the_members_of_a_zip_may_not_overlap(box: Box) -> None:
    """As in the bombs of Fifield, 2019: one packed kernel, listed under many names."""
    data = bytearray(zip_of({"a": b"x" * 100, "b": b"x" * 100}, zipfile.ZIP_STORED))
    second = data.rindex(b"PK\1\2")
    data[second + 42 : second + 46] = (0).to_bytes(4, "little")
    data[second + 46 : second + 47] = b"a"
    box.refuses(bytes(data), "overlap")


def test_the_two_lists_of_a_zip_must_agree(box: Box) -> None:
    data = zip_of({"safe": b"x"}).replace(b"safe", b"evil", 1)
    box.refuses(data, "differ")


def test_an_encrypted_or_foreign_packing_of_a_zip_is_named(box: Box) -> None:
    box.refuses(zip_of(FILES, zipfile.ZIP_LZMA), "accepted: stored, deflated", UnsupportedMedia)


def bomb(packer: Any) -> bytes:
    """A tar with a file of 300 MB of zeros, never whole in memory."""
    info = tarfile.TarInfo("zeros")
    info.size = 300_000_000
    chunks = [info.tobuf(), *[bytes(1_000_000)] * 300, bytes(1024)]
    return b"".join([*map(packer.compress, chunks), packer.flush()])


@pytest.mark.parametrize("kind", ["gzip", "bz2", "xz", "zstd"])
def test_a_bomb_is_refused_without_being_held_in_memory(box: Box, kind: str) -> None:
    packers: dict[str, Callable[[], Any]] = {
        "gzip": lambda: zlib.compressobj(wbits=31),
        "bz2": bz2.BZ2Compressor,
        "xz": lambda: lzma.LZMACompressor(preset=0),
        "zstd": lambda: pytest.importorskip("zstandard").ZstdCompressor().compressobj(),
    }
    data = bomb(packers[kind]())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    box.refuses(data, "more than 1000000 bytes", TooLarge)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024
    assert sum(path.stat().st_size for path in box.into.iterdir()) <= CAPS.bytes


def test_a_bomb_in_a_zip_is_refused(box: Box) -> None:
    box.refuses(zip_of({"zeros": bytes(3_000_000)}), "more than 1000000 bytes", TooLarge)


@pytest.mark.parametrize("make", [tar_of, zip_of])
def test_more_entries_than_accepted_are_refused(
    box: Box, make: Callable[[dict[str, bytes]], bytes]
) -> None:
    box.refuses(make({str(n): b"" for n in range(60)}), "more than 50", TooLarge)


def test_zeros_without_end_are_refused(box: Box) -> None:
    endless = gzip.compress(tar_of(FILES) + bytes(80_000_000))
    box.refuses(endless, "follow", ModelcloudError)


def test_zstd_without_its_library_is_refused_with_what_else_is_accepted(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "zstandard", None)
    box.refuses(b"\x28\xb5\x2f\xfd" + bytes(600), "accepted: tar, tar.gz", UnsupportedMedia)
