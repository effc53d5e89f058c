"""Versions are registered as users do it: an upload or a path, a real worker that imports them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from modelcloud.artifacts.snapshot import verify
from modelcloud.config import PlatformConfig
from modelcloud.control.services.registration import Preview, Registration
from modelcloud.control.services.version_forms import RegisterBody
from modelcloud.engines.local import LocalEngine
from modelcloud.errors import InvalidInput, NotFound, UpdateFailed
from modelcloud.store.store import Store
from support.control import ControlRig, standing_of
from support.markdown import ROOT
from support.node import Node, running
from support.stores import Databases

GREET = """
import modelcloud
from modelcloud.data_types import number, text

@modelcloud.setup(options={"greeting": text(default="hello"), "times": number(min=1)})
def setup(options):
    raise RuntimeError("registering loads no model")

@modelcloud.command("greet", inputs={"name": text}, outputs={"said": text})
def greet(model, inputs):
    return "x"
"""


class Rig(ControlRig):
    """A control plane with a node of real workers, and `ann`, who manages the group `ann`."""

    node: Node
    data: Path
    ann: str

    def __enter__(self) -> Rig:  # noqa: PYI034 — Self is not in Python 3.10
        return self

    def upload(self, archive: bytes, **query: str) -> Any:
        answer = self.call(
            self.ann, "POST", "/uploads" + "".join(f"?{k}={v}" for k, v in query.items()),
            content=archive, headers={"content-type": "application/octet-stream"},
        )  # fmt: skip
        assert answer.status_code == 201, answer.text
        return answer.json()

    def register(self, files: dict[str, str], service: str = "greet", **asked: Any) -> Any:
        """Upload these files and register them; the answer."""
        upload = self.upload(packed(files))["upload"]
        body = {"group": "ann", "upload": upload, **asked}
        return self.call(self.ann, "POST", f"/services/{service}/versions", body)

    def artifacts(self) -> list[str]:
        return sorted(entry.name for entry in (self.data / "artifacts").iterdir())

    def staging(self) -> list[str]:
        return sorted(entry.name for entry in (self.data / "staging").iterdir())


def packed(files: dict[str, str], top: str = "mymodel/") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(top + name)
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    return out.getvalue()


@pytest.fixture
def rig(databases: Databases, tmp_path: Path) -> Iterator[Rig]:
    data = tmp_path / "data"
    data.mkdir()
    config = PlatformConfig(
        data=str(data), roots=(str(ROOT / "examples"),), load_timeout_s=30.0, upload_limit=1_000_000
    )
    with Rig(Store(databases.sqlite(tmp_path)), config=config) as rig:
        node = running(worker_module="modelcloud.dataplane.worker")
        rig.node = rig.run(node.__aenter__())
        registration = Registration(
            rig.store,
            LocalEngine(rig.node.supervisor),
            standing_of(config),
            write=lambda service, line: None,
            in_use=set,
            clock=rig.state.clock,
        )
        rig.app.state.platform = replace(rig.state, parts=(registration,))
        rig.start()
        rig.data, rig.ann = data, rig.user("ann")
        yield rig
        rig.run(node.__aexit__(None, None, None))


def test_a_version_is_registered_with_what_its_code_offers(rig: Rig) -> None:
    answer = rig.register({"model.py": GREET}, description="first", options={"times": 2})
    assert answer.status_code == 201, answer.text
    version = answer.json()
    assert (version["service"], version["group"], version["version"]) == ("greet", "ann", 1)
    assert (version["runtime"], version["main"]) == ("decorated", "model.py")
    assert [option["name"] for option in version["signature"]["options"]] == ["greeting", "times"]
    assert [command["name"] for command in version["signature"]["commands"]] == ["greet"]
    assert rig.artifacts() == [version["artifact"]]
    assert verify(rig.data / "artifacts" / version["artifact"]).main == "model.py"
    assert rig.staging() == []  # the upload has served
    assert not rig.node.supervisor.observe("probe").workers


def test_a_second_version_of_the_same_bytes_is_stored_once(rig: Rig) -> None:
    first = rig.register({"model.py": GREET}).json()
    second = rig.register({"model.py": GREET}).json()
    assert (second["version"], second["artifact"]) == (2, first["artifact"])
    assert len(rig.artifacts()) == 1


@pytest.mark.parametrize(
    ("files", "status", "words", "fields"),
    [
        ({"model.py": "x = 1\n\ndef f(:\n"}, 422, "syntax error", {"file": "model.py", "line": 3}),
        ({"model.py": "import nowhere\n"}, 422, "imports 'nowhere'",
         {"file": "model.py", "line": 1}),
        ({"model.py": "import os\nos._exit(3)\n"}, 422, "exited with status 3", {}),
        ({"model.py": "x = 1\n"}, 422, "no command", {"file": "model.py"}),
        ({"other.py": GREET}, 400, "there is no main file", {}),
        ({"model.py": GREET, "requirements.txt": "x" * 70_000}, 400, "requirements.txt", {}),
    ],
    ids=["syntax", "import", "exit", "nothing", "no main file", "requirements"],
)  # fmt: skip
def test_a_bad_one_is_refused_with_its_error_and_leaves_nothing_behind(
    rig: Rig, files: dict[str, str], status: int, words: str, fields: dict[str, Any]
) -> None:
    answer = rig.register(files)
    assert answer.status_code == status, answer.text
    problem = answer.json()
    assert words in problem["detail"]
    assert fields.items() <= problem.items()
    assert str(rig.data) not in answer.text
    assert rig.artifacts() == []
    assert rig.staging() == []  # the same bytes would be refused again
    assert rig.call(rig.ann, "GET", "/uploads").json() == {"items": [], "next": None}
    assert rig.call(rig.ann, "GET", "/services/greet").status_code == 404


@pytest.mark.parametrize(
    ("asked", "status"), [({"options": {"nothing": 1}}, 400), ({"version": 0}, 400)]
)
def test_an_upload_that_was_asked_for_wrongly_is_there_to_be_asked_for_again(
    rig: Rig, asked: dict[str, Any], status: int
) -> None:
    assert rig.register({"model.py": GREET}, **asked).status_code == status
    [upload] = rig.call(rig.ann, "GET", "/uploads").json()["items"]
    body = {"group": "ann", "upload": upload["upload"]}
    assert rig.call(rig.ann, "POST", "/services/greet/versions", body).status_code == 201
    assert rig.call(rig.ann, "GET", "/uploads").json()["items"] == []


def test_what_is_refused_is_in_the_audit_log(rig: Rig) -> None:
    rig.register({"model.py": "import nowhere\n"})
    entries = rig.call(rig.ann, "GET", "/audit?group=ann&kind=version").json()["items"]
    assert [(entry["outcome"], entry["name"]) for entry in entries] == [("failed", "greet")]
    assert "nowhere" in entries[0]["detail"]


def test_options_are_held_to_what_the_code_declares(rig: Rig) -> None:
    for options, words in (({"times": 0}, "times"), ({"nope": 1}, "not declared")):
        answer = rig.register({"model.py": GREET}, options=options)
        assert answer.status_code == 400
        assert words in answer.json()["detail"]
    assert rig.artifacts() == []


def test_metrics_curves_and_requirements_come_from_the_files_unless_given(rig: Rig) -> None:
    files = {
        "model.py": GREET,
        "metrics.json": '{"auc": 0.98, "loss": [0.5, 0.25]}',
        "history.csv": "epoch,acc\n1,0.5\n2,nan\n",
        "requirements.txt": "# none\n",
    }
    version = rig.register(files).json()
    assert version["metrics"] == {"auc": 0.98}
    assert sorted(version["curves"]) == ["acc", "loss"]
    assert version["requirements"] == ""
    assert version["origin"] == {
        "kind": "upload", "notes": ["acc: 1 of 2 values are no finite numbers"],
    }  # fmt: skip
    given = rig.register(files, metrics={"auc": 0.5}, curves={}).json()
    assert (given["metrics"], given["curves"]) == ({"auc": 0.5}, [])


@pytest.mark.parametrize(
    ("path", "main", "runtime"),
    [
        ("fib", "", "decorated"),
        ("fib/model.py", "", "decorated"),
        ("inference_service", "", "inference_service"),
        ("algopkg/AlgoExample", "", "algo_backend"),
        ("pisqrt", "server.py", "function"),
        ("flask", "server.py:app", "wsgi"),
    ],
)
def test_the_examples_are_registered_by_path(rig: Rig, path: str, main: str, runtime: str) -> None:
    if runtime == "wsgi":
        pytest.importorskip("flask")
    body = {"group": "ann", "path": str(ROOT / "examples" / path), "main": main}
    answer = rig.call(rig.ann, "POST", "/services/example/versions", body)
    assert answer.status_code == 201, answer.text
    assert answer.json()["runtime"] == runtime


def test_a_path_outside_of_the_roots_is_refused(rig: Rig, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(GREET)
    body = {"group": "ann", "path": str(tmp_path)}
    answer = rig.call(rig.ann, "POST", "/services/greet/versions", body)
    assert answer.status_code == 400
    assert "an absolute path below" in answer.json()["detail"]


@pytest.mark.parametrize("body", [{}, {"upload": "x", "path": "/x"}])
def test_one_source_is_needed(rig: Rig, body: dict[str, Any]) -> None:
    answer = rig.call(rig.ann, "POST", "/services/greet/versions", {"group": "ann", **body})
    assert answer.status_code == 400
    assert "one of them" in answer.json()["detail"]


def test_the_same_request_with_the_same_key_registers_once(rig: Rig) -> None:
    path = str(ROOT / "examples" / "fib")
    body = {"group": "ann", "path": path}
    answers = [
        rig.call(rig.ann, "POST", "/services/fib/versions", body, headers={"idempotency-key": "k"})
        for _ in range(2)
    ]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].json() == answers[1].json()
    assert len(rig.call(rig.ann, "GET", "/services/fib/versions").json()["items"]) == 1


def test_who_may_only_read_neither_registers_nor_has_it_tried(rig: Rig) -> None:
    assert rig.register({"model.py": GREET}).status_code == 201
    ben = rig.user("ben")
    rig.share("ann", "ben", "read")
    body = {"path": str(ROOT / "examples" / "fib")}
    answer = rig.call(ben, "POST", "/services/greet/versions", body)
    assert answer.status_code == 403
    assert len(rig.artifacts()) == 1


def test_another_users_upload_is_not_there(rig: Rig) -> None:
    upload = rig.upload(packed({"model.py": GREET}))["upload"]
    ben = rig.user("ben")
    body = {"group": "ben", "upload": upload}
    assert rig.call(ben, "POST", "/services/greet/versions", body).status_code == 404
    assert rig.call(ben, "DELETE", f"/uploads/{upload}").status_code == 404
    assert rig.call(rig.ann, "DELETE", f"/uploads/{upload}").status_code == 204


def test_an_upload_of_another_media_type_or_size_is_refused(rig: Rig) -> None:
    for headers, content, status in (
        ({"content-type": "multipart/form-data"}, b"x", 415),
        ({"content-type": "application/octet-stream"}, b"x" * 1_000_001, 413),
        ({"content-type": "application/octet-stream"}, b"", 400),
    ):
        answer = rig.call(rig.ann, "POST", "/uploads", content=content, headers=headers)
        assert answer.status_code == status, answer.text
    assert rig.staging() == []


def test_the_artifact_goes_with_its_last_version(rig: Rig) -> None:
    for _ in range(2):
        rig.register({"model.py": GREET})
    for number, left in ((1, 1), (2, 0)):
        answer = rig.call(rig.ann, "DELETE", f"/services/greet/versions/{number}")
        assert answer.status_code == 204
        assert len(rig.artifacts()) == left


def test_a_model_that_hangs_when_imported_is_given_up(rig: Rig) -> None:
    registration = rig.app.state.platform.part(Registration)
    registration._config = msgspec.structs.replace(registration._config, load_timeout_s=1.0)
    answer = rig.register({"model.py": "import time\ntime.sleep(600)\n"})
    assert answer.status_code in {422, 504}, "by the node, or by who waits for it"
    assert rig.artifacts() == []


def asked(**fields: Any) -> RegisterBody:
    return RegisterBody.model_validate(fields)


def preview(rig: Rig, body: RegisterBody, service: str = "greet") -> Preview:
    """What a version of `ann`'s would be."""
    actor = rig.run(rig.app.state.auth.actor(rig.ann, ""))
    registration = rig.app.state.platform.part(Registration)
    found: Preview = rig.run(registration.preview(actor, service, body))
    return found


def test_what_a_version_would_be_is_told_and_nothing_is_kept(rig: Rig) -> None:
    files = {"model.py": GREET, "metrics.json": '{"auc": 0.9}', "history.csv": "step,loss\n1,2\n"}
    upload = rig.upload(packed(files))["upload"]
    found = preview(rig, asked(upload=upload, options={"times": 2}))
    assert found.main == "model.py"
    assert [one["name"] for one in found.signature["commands"]] == ["greet"]
    assert (found.metrics, found.curves) == ({"auc": 0.9}, ["loss"])
    assert rig.call(rig.ann, "GET", "/services/greet").status_code == 404
    assert rig.artifacts() == []
    registered = rig.call(
        rig.ann, "POST", "/services/greet/versions", {"upload": upload, "options": {"times": 2}}
    )
    assert registered.status_code == 201, "the upload is still there to be registered"


def test_what_would_be_refused_is_refused_beforehand(rig: Rig) -> None:
    upload = rig.upload(packed({"model.py": "import astrology\n"}))["upload"]
    with pytest.raises(UpdateFailed, match="astrology"):
        preview(rig, asked(upload=upload))
    with pytest.raises(InvalidInput, match="letters"):
        preview(rig, asked(upload=upload), service="no name")
    with pytest.raises(NotFound):
        preview(rig, asked(upload=upload, group="elsewhere"))
    assert rig.artifacts() == []
