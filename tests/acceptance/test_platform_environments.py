"""What surrounds a model: its packages and interpreter, its files, its processors, memory, devices.

On a started platform, from outside; each test has a service of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelcloud.errors import Conflict, UpdateFailed, UsageError
from support.load import failures, load
from support.markdown import ROOT
from support.served import Served, Shop, shop
from support.server import wait_for

pytestmark = pytest.mark.xdist_group("acceptance")

EXAMPLES = ROOT / "examples"
GPUS = 2
CPUS = 8
MIB = 1024 * 1024

#: Says what it finds around it.
TELLS = """
import importlib.metadata, os, pathlib, sys

NAMES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "CUDA_VISIBLE_DEVICES")

def tell(package: str = "msgspec") -> dict:
    here = pathlib.Path(__file__).parent
    return {
        "package": importlib.metadata.version(package),
        "python": list(sys.version_info[:2]),
        "files": sorted(str(path.relative_to(here)) for path in here.rglob("*.txt")),
        "pid": os.getpid(),
        **{name: os.environ.get(name) for name in NAMES},
    }
"""


@pytest.fixture(scope="module")
def rented(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("environments")
    arguments = ("--root", EXAMPLES, "--gpus", str(GPUS), "--cpus", str(CPUS), "--memory", "64G",
                 "--drain", "5")  # fmt: skip
    with shop(folder, *arguments) as running:
        yield running


@pytest.fixture(autouse=True)
def cleared(rented: Shop) -> Iterator[None]:
    """Nothing of a test is in the way of the next one's sums."""
    yield
    admin = rented.up.admin
    for found in admin.services():
        admin.delete_service(found["name"])
    wait_for("all workers to end", lambda: not rented.up.pids("worker"))


@pytest.fixture
def served(rented: Shop) -> Served:
    """A service of the model that tells."""
    return rented.service(TELLS)


def told(served: Served, version: object = "", **inputs: Any) -> dict[str, Any]:
    """What the model says."""
    answer = served.ask(version, inputs, command="tell")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["result"]
    return found


# ---- packages and interpreters


def test_versions_with_conflicting_packages_stand_side_by_side_and_an_environment_is_built_once(
    served: Served,
) -> None:
    served.write("requirements.txt", "six==1.15.0\n")
    older = served.register()
    newer = served.register(requirements="six==1.16.0\n")
    first = served.log()
    for version, number in ((older, "1.15.0"), (newer, "1.16.0")):
        mine = [line for line in first if line.startswith(f"version {version}: ")]
        for words in ("resolving requirements", f"six=={number}", "building environment",
                      "is complete"):  # fmt: skip
            assert any(words in line for line in mine), (words, mine)
    served.deploy(older)
    served.deploy(newer)
    assert told(served, older, package="six")["package"] == "1.15.0"
    assert told(served, newer, package="six")["package"] == "1.16.0"

    again = served.register(requirements="six==1.15.0\n")
    served.deploy(again)
    since = served.log()[len(first) :]
    steps = [line.removesuffix(": 0 of 1 ready") for line in since if line.endswith("0 of 1 ready")]
    assert steps[:4] == ["pending", "fetching", "building_env", "loading"]
    assert any("is there already" in line for line in since)
    assert not any("building environment" in line or "resolving" in line for line in since)
    assert told(served, again, package="six")["package"] == "1.15.0"
    assert served.admin.version(served.name, older)["requirements"] == "six==1.15.0\n"


def test_requirements_that_cannot_be_had_are_refused_in_uvs_words_when_registered(
    served: Served,
) -> None:
    with pytest.raises(UpdateFailed, match=r"there is no version of six==99\.1"):
        served.register(requirements="six==99.1\n")
    with pytest.raises(UpdateFailed, match="line 1: '-r /etc/passwd' is not taken"):
        served.register(requirements="-r /etc/passwd\n")
    assert served.name not in {found["name"] for found in served.admin.services()}


def test_an_environment_that_can_no_longer_be_built_fails_the_deployment_in_uvs_words(
    served: Served,
) -> None:
    served.deploy(served.register())
    version = served.register(requirements="six==1.14.0\n")
    environments = served.up.data / "envs"
    for lock in environments.glob("*.txt"):  # the index has lost it since
        if "six==1.14.0" in lock.read_text():
            lock.write_text(lock.read_text().replace("six==1.14.0", "six==99.2"))
    begun = served.begin(version)
    ended = served.done(begun, "failed")
    assert ended["step"] == "building_env"
    assert "six==99.2" in ended["reason"]
    assert any("six==99.2" in line for line in served.log())
    assert served.deployment(version)["status"] == "Failed"
    assert served.ask(1, command="tell").status_code == 200


def other_interpreter() -> str:
    """A Python of another version than this one."""
    mine = sys.version_info[:2]
    for minor in (13, 12, 10):
        for place in (*Path("~/.pyenv/versions").expanduser().glob(f"3.{minor}.*"), Path("/usr")):
            python = place / "bin" / f"python3.{minor}"
            if mine != (3, minor) and os.access(python, os.X_OK):
                return str(python)
    pytest.skip("needs another Python (3.10, 3.12 or 3.13) on this machine")


def test_a_version_runs_in_the_interpreter_it_names(served: Served) -> None:
    python = other_interpreter()
    told_by = subprocess.run(
        [python, "-c", "import sys; print(*sys.version_info[:2])"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    version = served.register(python=python, requirements="six==1.16.0\n")
    served.deploy(version)
    found = told(served, version, package="six")
    assert found["python"] == [int(part) for part in told_by.stdout.split()]
    assert found["package"] == "1.16.0"
    served.deploy(served.register())
    assert told(served, 2)["python"] == [*sys.version_info[:2]]


def test_an_interpreter_that_will_not_do_is_refused_in_words(served: Served) -> None:
    with pytest.raises(UsageError, match="the absolute path of an interpreter on the server"):
        served.register(python="python3")
    with pytest.raises(UsageError, match="the absolute path of an interpreter on the server"):
        served.register(python="/nowhere/python3")
    python = other_interpreter()
    if subprocess.run(
        [python, "-c", "import msgspec"], capture_output=True, check=False
    ).returncode:
        with pytest.raises(UpdateFailed, match=r"has no msgspec: run .* -m pip install msgspec"):
            served.register(python=python)


# ---- files


def test_files_beside_the_model_are_found_and_main_may_lie_in_a_package(served: Served) -> None:
    served.write("weights.txt", "w")
    served.write("deep/more.txt", "m")
    served.deploy(served.register())
    assert told(served)["files"] == ["deep/more.txt", "weights.txt"]

    served.write("mypackage/__init__.py", "")
    served.write("mypackage/helper.py", "def double(n):\n    return 2 * n\n")
    served.write(
        "mypackage/serving.py",
        "from .helper import double\nfrom mypackage import helper\nimport model\n\n"
        "def twice(n: int) -> int:\n    return double(n)\n",
    )
    version = served.register(main="mypackage/serving.py:twice")
    served.deploy(version)
    assert served.ask(version, {"n": 21}, command="twice").json() == {"result": 42}


OPTIONS = """
import modelcloud
from modelcloud.data_types import boolean, number, text

@modelcloud.setup(options={
    "rate": number(default=0.5), "name": text(default="x"), "fast": boolean(default=False),
})
def setup(options):
    return options

@modelcloud.command(
    "show", inputs={"x": number(default=0)},
    outputs={"rate": number, "name": text, "fast": boolean},
)
def show(model, inputs):
    return {name: model[name] for name in ("rate", "name", "fast")}
"""


def test_options_may_be_registered_as_text_and_are_read_by_their_type(rented: Shop) -> None:
    served = rented.service(OPTIONS)
    version = served.register(
        options_text={"rate": "0.25", "name": "12", "fast": "true"}, options={}
    )
    assert served.admin.version(served.name, version)["options"] == {
        "rate": 0.25, "name": "12", "fast": True,
    }  # fmt: skip
    served.deploy(version)
    assert served.ask(command="show").json() == {"rate": 0.25, "name": "12", "fast": True}
    with pytest.raises(UpdateFailed, match="option rate: got the text 'much'; accepted: a number"):
        served.register(options_text={"rate": "much"})


def test_metrics_and_curves_of_each_version_are_shown_as_they_were_registered(
    rented: Shop,
) -> None:
    served = rented.service()
    first = served.register(path=str(EXAMPLES / "m261"))
    shutil.copytree(EXAMPLES / "m261", served.folder, dirs_exist_ok=True)
    served.write("metrics.json", '{"auc": 0.5, "loss": [[1, 0.9], [2, 0.8]]}')
    (served.folder / "history.csv").unlink()
    second = served.register()
    metrics = [served.admin.version(served.name, v)["metrics"] for v in (first, second)]
    assert metrics[0]["auc"] > 0.9
    assert metrics[1] == {"auc": 0.5}
    curves = [served.admin.curves(served.name, v)["curves"] for v in (first, second)]
    header, *rows = (EXAMPLES / "m261" / "history.csv").read_text().splitlines()
    assert [*curves[0]] == header.split(",")[1:]
    assert all(len(points) == len(rows) for points in curves[0].values())
    assert curves[1] == {"loss": [[1, 0.9], [2, 0.8]]}


# ---- processors, memory, devices


def instance_type(served: Served, **amounts: Any) -> str:
    """One more, for this test."""
    name = f"t-{served.name}-{len(served.admin.instance_types())}"
    served.admin.create_instance_type(name, **amounts)
    return name


def test_a_model_gets_the_threads_of_its_instance_type(served: Served) -> None:
    version = served.register()
    served.deploy(version, instance_type=instance_type(served, cpu=2.5))
    found = told(served)
    assert (found["OMP_NUM_THREADS"], found["OPENBLAS_NUM_THREADS"]) == ("3", "3")
    assert found["CUDA_VISIBLE_DEVICES"] == "", "a model without devices sees none"
    small = instance_type(served, cpu=1)
    served.deploy(served.register(), replaces=version, instance_type=small)
    assert told(served)["OMP_NUM_THREADS"] == "1"


GROWS = """
import os, threading

kept = []

def grow(mib: int = 0) -> int:
    # After the answer, so that no request is under way when the worker is ended.
    threading.Timer(0.05, lambda: kept.append(b"x" * (mib * 1024 * 1024))).start()
    return os.getpid()
"""


def test_a_worker_beyond_its_memory_is_replaced_and_the_log_says_why(rented: Shop) -> None:
    served = rented.service(GROWS)
    limited = instance_type(served, memory=250 * MIB)
    served.deploy(served.register(), instance_type=limited, replicas=2)
    before = served.pids(1)
    with load(served.up.port, f"/{served.name}/grow", {"mib": 0}, rate=50.0) as running:
        victim = served.ask(command="grow", body={"mib": 400}).json()["result"]
        wait_for("the worker to be replaced", lambda: victim not in served.pids(1)
                 and served.deployment(1)["ready"] == 2)  # fmt: skip
    assert failures(running.samples) == []
    assert served.pids(1) - before, "nobody took its place"
    words = "MiB of the 250 MiB that its instance type gives"
    for version in (None, 1):
        (said,) = (line for line in served.log(version) if words in line)
        assert said.startswith("lost a worker: ")


def test_fractions_share_a_device_and_whole_ones_are_given_to_one_worker(served: Served) -> None:
    half = instance_type(served, gpu=0.5)
    whole = instance_type(served, gpu=1)
    served.deploy(served.register(), instance_type=half, replicas=2, dispatch="round_robin")
    assert {told(served)["CUDA_VISIBLE_DEVICES"] for _ in range(4)} == {"0"}
    assert [w["gpus"] for w in served.deployment(1)["workers"]] == [[0], [0]]
    served.deploy(served.register(), instance_type=whole)
    assert told(served, 2)["CUDA_VISIBLE_DEVICES"] == "1"
    node = served.up.admin.node()
    assert (node["capacity"]["gpu"], node["in_use"]["gpu"]) == (GPUS, 2)

    third = served.register()
    ended = served.begin(third, instance_type=half)["rollout"]
    sums = "gpu: 0.5 asked for + 2 in use = 2.5, the node has 2"
    assert (ended["state"], ended["reason"]) == ("failed", f"over quota: {sums}")
    assert any(sums in line for line in served.log())
    record = served.deployment(third)
    assert (record["status"], record["reason"]) == ("Failed", f"over quota: {sums}")
    with pytest.raises(Conflict, match=r"over quota: gpu: 1\.5 asked for"):
        served.admin.scale(served.name, 1, 3)


def test_a_device_that_only_one_can_have_is_handed_over_by_recreate(served: Served) -> None:
    both = instance_type(served, gpu=GPUS)
    served.deploy(served.register(), instance_type=both)
    second = served.register()
    ended = served.done(served.begin(second, replaces=1), "failed")
    assert f"needs {GPUS} of a GPU; free: " in ended["reason"]
    assert told(served)["CUDA_VISIBLE_DEVICES"] == "0,1"
    with load(served.up.port, f"/{served.name}/tell", {}, rate=30.0) as running:
        served.deploy(second, replaces=1, strategy="recreate")
    assert failures(running.samples) == []
    assert served.ask(command="tell").headers["x-model-version"] == "2"


def test_fewer_and_larger_replicas_take_the_place_of_many_small_ones(served: Served) -> None:
    quarter, whole = instance_type(served, gpu=0.25), instance_type(served, gpu=1)
    served.deploy(served.register(), instance_type=quarter, replicas=4)
    served.deploy(served.register(), replaces=1, instance_type=whole, replicas=1)
    (worker,) = (w for w in served.deployment(2)["workers"] if w["generation"] == 2)
    assert worker["gpus"] == [1], "it came up beside those it replaced"


def test_a_group_over_its_quota_is_told_the_sums(served: Served) -> None:
    served.admin.set_quota("admin", cpu=3)
    try:
        two = instance_type(served, cpu=2)
        served.deploy(served.register(), instance_type=two)
        ended = served.begin(served.register(), instance_type=two)["rollout"]
        sums = "cpu: 2 asked for + 2 in use = 4, group admin has 3"
        assert (ended["state"], ended["reason"]) == ("failed", f"over quota: {sums}")
        assert any(sums in line for line in served.log())
        assert told(served, 1)["OMP_NUM_THREADS"] == "2", "what is online stays so"
    finally:
        served.admin.set_quota("admin")
    served.done(served.admin.redeploy(served.name, 2))
    assert told(served, 2)["OMP_NUM_THREADS"] == "2"
