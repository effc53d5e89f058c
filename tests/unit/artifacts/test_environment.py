"""An environment is resolved once, built once, and complete or not there."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from modelcloud.artifacts import environment
from modelcloud.errors import ModelLoadError, UsageError


def build(requirements: str, folder: Path) -> tuple[str, list[str]]:
    """The interpreter, and what was said."""
    said: list[str] = []
    return environment.build(requirements, "", folder, said.append), said


def version(python: str, package: str) -> str:
    """What of a package is installed for an interpreter."""
    program = f"from importlib.metadata import version; print(version({package!r}))"
    told = subprocess.run([python, "-c", program], capture_output=True, text=True, check=True)
    return told.stdout.strip()


def test_conflicting_versions_stand_side_by_side(tmp_path: Path) -> None:
    older, _ = build("six==1.15.0\n", tmp_path)
    newer, _ = build("six==1.16.0\n", tmp_path)
    assert (version(older, "six"), version(newer, "six")) == ("1.15.0", "1.16.0")


def test_an_environment_holds_what_a_worker_needs(tmp_path: Path) -> None:
    python, _ = build("six\n", tmp_path)
    subprocess.run([python, "-c", "import msgspec, uvloop, six"], check=True)


def test_equal_requirements_are_resolved_and_built_once(tmp_path: Path) -> None:
    first, said = build("six==1.16.0\n", tmp_path)
    assert any("resolving" in line for line in said)
    assert any("six==1.16.0" in line for line in said)
    again, said = build("six==1.16.0\n", tmp_path)
    assert again == first
    assert not any("resolving" in line or "building" in line for line in said)


def test_two_builders_of_the_same_make_one(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        built = list(pool.map(lambda _: build("six==1.16.0\n", tmp_path), range(2)))
    assert built[0][0] == built[1][0]
    assert sum("complete" in line for _, said in built for line in said) == 1


def test_a_build_that_was_broken_off_is_begun_again(tmp_path: Path) -> None:
    python, _ = build("six==1.16.0\n", tmp_path)
    place = Path(python).parent.parent
    (place / ".complete").unlink()
    (place / "bin" / "python").unlink()
    again, said = build("six==1.16.0\n", tmp_path)
    assert any("building" in line for line in said)
    assert version(again, "six") == "1.16.0"


def test_what_no_request_leads_to_any_more_is_collected(tmp_path: Path) -> None:
    older, _ = build("six==1.15.0\n", tmp_path)
    newer, _ = build("six==1.16.0\n", tmp_path)
    same, _ = build("six==1.16.0  # pinned\n", tmp_path)
    assert same == newer
    wanted = {("six==1.16.0  # pinned\n", "")}
    assert environment.collect(tmp_path, wanted, spared_s=60) == 0
    assert environment.collect(tmp_path, wanted, spared_s=0) == 1
    assert (Path(older).exists(), version(newer, "six")) == (False, "1.16.0")
    again, said = build("six==1.16.0  # pinned\n", tmp_path)
    assert again == newer
    assert not any("resolving" in line or "building" in line for line in said)
    assert environment.collect(tmp_path, (), spared_s=0) == 1
    assert list(tmp_path.iterdir()) == []


def test_an_environment_that_is_asked_for_as_it_is_collected_is_whole_or_built_anew(
    tmp_path: Path,
) -> None:
    with ThreadPoolExecutor(2) as pool:
        collecting = pool.submit(lambda: [environment.collect(tmp_path, (), 0) for _ in range(200)])
        for _ in range(3):
            python, _ = build("six==1.16.0\n", tmp_path)
            environment.collect(tmp_path, {("six==1.16.0\n", "")}, 0)
        collecting.result()
    python, _ = build("six==1.16.0\n", tmp_path)
    assert version(python, "six") == "1.16.0"


def test_requirements_that_cannot_be_fulfilled_are_told_in_uvs_words(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"six==99\.1"):
        build("six==99.1\n", tmp_path)
    assert not [entry for entry in tmp_path.iterdir() if entry.is_dir()]


@pytest.mark.parametrize(
    "line",
    ["-r /etc/passwd", "-e .", "--requirement=x", "./here", "/abs.whl", "a @ file:///x",
     "here/p", "p.whl", "p-1.0.tar.gz ; python_version > '3'", "~/p",
     "a @ /srv/private", "a@../private", "a[b] @ git+file:///x", "a @ git+ssh://host/x", "p.w\\",
     "-i /srv", "-i", "--index-url=/srv", "--extra-index-url ../x", "a @ FILE:///x",
     "--index-url https://example.org/${SECRET}", "a @ https://example.org/${SECRET}"],
)  # fmt: skip
def test_a_line_that_names_a_file_of_this_machine_is_refused(line: str) -> None:
    with pytest.raises(UsageError, match=r"line 2: .*accepted: names"):
        environment.check_requirements(f"six\n{line}\n")


def test_names_versions_comments_and_indexes_are_taken() -> None:
    environment.check_requirements(
        "# numbers\n\nsix==1.16.0 \\\n    --hash=sha256:8abb2f1d\n"
        "numpy>=1.26 ; python_version >= '3.10'  # fast\n--pre\n"
        "--extra-index-url https://example.org/simple\npkg @ https://example.org/p.whl\n"
        "-i https://example.org/simple\n--index-url=http://127.0.0.1/simple\n"
        "https://example.org/p.whl\nzope.interface>=5 ; platform_version != 'a/b'\n"
        "pkg[more]@git+https://example.org/p.git@v1 ; python_version < '4'\n"
    )


def test_an_interpreter_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="no-such-python"):
        environment.build("six\n", "no-such-python", tmp_path, lambda _: None)


def test_the_base_is_the_interpreter_that_is_asked_for(tmp_path: Path) -> None:
    python = environment.build("six\n", sys.executable, tmp_path, lambda _: None)
    program = "import sys; print(sys.base_prefix)"
    prefixes = {
        subprocess.run([p, "-c", program], capture_output=True, text=True, check=True).stdout
        for p in (python, sys.executable)
    }
    assert len(prefixes) == 1


@pytest.mark.parametrize("program", ["/bin/sh", "/bin/echo", "/bin/true", "/nowhere"])
def test_what_is_no_python_is_refused_by_name(program: str) -> None:
    environment.check_interpreter(sys.executable)
    with pytest.raises(ModelLoadError, match=f"python: '{program}'"):
        environment.check_interpreter(program)
