"""What the sections of a conf.ini name on the disk: found, digested, packed; or missing."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from modelcloud.artifacts.stage import StageRequest, stage
from modelcloud.artifacts.tree import Caps
from modelcloud.packages import layout, sources
from modelcloud.packages.conf import Section, parse
from modelcloud.packages.ini import Refused
from modelcloud.packages.sources import Source


def section(**keys: str) -> Section:
    given = {"backend": "algo_backend", "route": "faces", **keys}
    text = "".join(f"{key} = {value}\n" for key, value in given.items())
    conf, problems = parse(f"[algopkg.Faces]\n{text}", "conf.ini")
    assert problems == []
    return conf.sections[0]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    layout.new(tmp_path, "Faces")
    (tmp_path / "Model_ZOO" / "a.pb").write_bytes(b"weights")
    return tmp_path


def refused(root: Path, **keys: str) -> list[str]:
    with pytest.raises(Refused) as caught:
        sources.source(section(**keys), root, "conf.ini")
    return [str(problem) for problem in caught.value.problems]


def digest(root: Path, **keys: str) -> str:
    return sources.source(section(**keys), root, "conf.ini").digest


def staged(source: Source, work: Path) -> str:
    """The digest that the platform gives what is sent."""
    work.mkdir()
    with sources.archive(source) as archive:
        return stage(
            StageRequest(
                source=str(archive), work=str(work), caps=Caps(bytes=1 << 20), main=source.main
            )
        ).digest


@pytest.mark.parametrize("with_parent", [False, True])
def test_a_source_has_the_digest_that_the_platform_gives_it(
    root: Path, tmp_path_factory: pytest.TempPathFactory, with_parent: bool
) -> None:
    package = root / "algopkg" / "Faces"
    (package / "nested").mkdir()
    (package / "nested" / "more.py").write_text("x = 1\n")
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "x.pyc").write_bytes(b"x")
    (package / ".hidden").write_text("x")
    (root / "Model_ZOO" / "saved").mkdir()
    (root / "Model_ZOO" / "saved" / "variables").write_bytes(b"v")
    if with_parent:
        (root / "algopkg" / "__init__.py").write_text("SHARED = 1\n")
    source = sources.source(section(model="a.pb, saved"), root, "conf.ini")
    assert source.model_path == "Model_ZOO,a.pb,saved"
    assert sorted(source.manifest.files) == [
        "Model_ZOO/a.pb", "Model_ZOO/saved/variables", "algopkg/Faces/__init__.py",
        "algopkg/Faces/backend.py", "algopkg/Faces/nested/more.py",
        "algopkg/Faces/requirements.txt", "algopkg/__init__.py",
    ]  # fmt: skip
    assert staged(source, tmp_path_factory.mktemp("work") / "w") == source.digest


def test_the_digest_changes_with_code_and_named_models_and_nothing_else(root: Path) -> None:
    before = digest(root, model="a.pb")
    (root / "Model_ZOO" / "other.pb").write_bytes(b"of another package")
    layout.new(root, "Other")
    assert digest(root, model="a.pb", replicas="2") == before
    (root / "Model_ZOO" / "a.pb").write_bytes(b"new weights")
    changed = digest(root, model="a.pb")
    assert changed != before
    (root / "algopkg" / "Faces" / "helper.py").write_text("")
    assert digest(root, model="a.pb") not in {before, changed}


def test_a_model_may_be_a_link_to_where_it_is(root: Path, tmp_path: Path) -> None:
    (root / "Model_ZOO" / "link.pb").symlink_to(root / "Model_ZOO" / "a.pb")
    source = sources.source(section(model="link.pb"), root, "conf.ini")
    with sources.archive(source) as archive, tarfile.open(archive) as tar:
        assert tar.getmember("Model_ZOO/link.pb").isreg()


def test_requirements_are_the_packages_own_where_no_interpreter_is_named(root: Path) -> None:
    own = root / "algopkg" / "Faces" / "requirements.txt"
    assert sources.source(section(), root, "conf.ini").requirements == ""  # a comment alone
    own.write_text("six==1.16.0\n")
    (root / "other.txt").write_text("six==1.17.0\n")

    def told(**keys: str) -> str:
        return sources.source(section(**keys), root, "conf.ini").requirements

    assert told() == "six==1.16.0\n"
    assert told(requirements="other.txt") == "six==1.17.0\n"
    assert told(requirements="") == ""
    assert told(python="/usr/bin/python3") == ""
    assert told(python="/usr/bin/python3", requirements="other.txt") == "six==1.17.0\n"


def test_everything_that_is_missing_is_told_with_its_line(root: Path) -> None:
    told = refused(root, model="a.pb, b.pb", requirements="no.txt", backend="Nobody")
    assert told == [
        "conf.ini:2: backend.py has no class Nobody; accepted: one of its classes: algo_backend",
        f"conf.ini:4: there is no Model_ZOO/b.pb; accepted: files in {root / 'Model_ZOO'}",
        "conf.ini:5: no.txt: No such file or directory",
    ]


def test_a_folder_that_is_no_package_is_refused(root: Path) -> None:
    (root / "algopkg" / "Faces" / "__init__.py").unlink()
    (told,) = refused(root)
    assert told.startswith("conf.ini:1: algopkg/Faces has no __init__.py")


def test_code_that_is_no_python_is_refused_by_its_line(root: Path) -> None:
    (root / "algopkg" / "Faces" / "backend.py").write_text("class algo_backend:\n    def\n")
    (told,) = refused(root)
    assert told.startswith("conf.ini:2: backend.py:2: ")


def test_a_class_without_reconfigure_takes_no_user_config(root: Path) -> None:
    backend = root / "algopkg" / "Faces" / "backend.py"
    backend.write_text(backend.read_text().replace("reconfigure", "other"))
    (told,) = refused(root, user_config="{}")
    assert told.startswith("conf.ini:4: user_config is given, but algo_backend has no reconfigure")


def test_a_class_from_another_module_is_left_to_the_import(root: Path) -> None:
    package = root / "algopkg" / "Faces"
    (package / "real.py").write_text((package / "backend.py").read_text())
    (package / "backend.py").write_text("from .real import algo_backend\n")
    assert sources.source(section(), root, "conf.ini").main.endswith("backend.py:algo_backend")


def test_a_class_that_an_import_brings_unnamed_is_left_to_the_import(root: Path) -> None:
    (root / "algopkg" / "Faces" / "backend.py").write_text("from .real import *\n")
    assert sources.source(section(), root, "conf.ini").main.endswith("backend.py:algo_backend")


def test_a_local_variable_of_its_name_is_no_class(root: Path) -> None:
    text = "class Other:\n    algo_backend = 1\ndef make():\n    algo_backend = 1\n"
    (root / "algopkg" / "Faces" / "backend.py").write_text(text)
    (told,) = refused(root)
    assert "has no class algo_backend; accepted: one of its classes: Other" in told


def test_requirements_that_name_files_of_this_machine_are_refused(root: Path) -> None:
    (root / "algopkg" / "Faces" / "requirements.txt").write_text("-r /etc/passwd\n")
    (told,) = refused(root)
    assert "requirements, line 1" in told
