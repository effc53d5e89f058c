"""Services of one running platform, each test with one of its own.

shop = Shop(platform, root)
served = shop.service(ECHOES)
served.deploy(served.register())
assert served.ask("1").status_code == 200
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelcloud.platform import Platform
from support.models import OBEDIENT
from support.server import DEADLINE_S, wait_for
from support.up import Up, up

if TYPE_CHECKING:
    import httpx

#: Points of metrics are of so many seconds; one is kept soon after its end.
POINT_S = 10.0


class Served:
    """A service that is this test's alone.

    Attributes:
        up: the platform.
        name: of the service.
        folder: that versions are registered from, read anew each time.
    """

    def __init__(self, running: Up, name: str, folder: Path) -> None:
        self.up = running
        self.name = name
        self.folder = folder
        self.since = time.time()

    @property
    def admin(self) -> Platform:
        return self.up.admin

    def write(self, name: str, text: str) -> Path:
        """A file of what is registered next."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def register(self, **fields: Any) -> int:
        """A new version of what the folder holds; returns its number."""
        made = self.admin.register(
            self.name, **{"path": str(self.folder), "group": "admin", **fields}
        )
        return int(made["version"])

    def answering(self, answer: int, **fields: Any) -> int:
        """A new version that answers so, where the model has the option `answer`."""
        return self.register(options={"answer": answer, **fields.pop("options", {})}, **fields)

    def begin(self, version: int, **fields: Any) -> dict[str, Any]:
        """Ask for it to be online."""
        if "replaces" not in fields:
            fields = {"instance_type": "unlimited", **fields}
        return self.admin.deploy(self.name, version, **fields)

    def deploy(self, version: int, **fields: Any) -> dict[str, Any]:
        """Bring it online, and wait; returns the rollout."""
        return self.done(self.begin(version, **fields))

    def online(self, *, versions: int = 1, **fields: Any) -> None:
        """Have versions 1 to `versions` online, each answering its number."""
        begun = [self.begin(self.answering(n + 1), **fields) for n in range(versions)]
        for one in begun:
            self.done(one)

    def done(self, accepted: dict[str, Any], state: str = "succeeded") -> dict[str, Any]:
        """The rollout once it ended, and ended like this."""
        ended = self.admin.wait(accepted["rollout"]["id"], timeout_s=DEADLINE_S)
        assert ended["state"] == state, (ended, self.log())
        return ended

    def deployment(self, version: int) -> dict[str, Any]:
        return self.admin.deployment(self.name, version)

    def pids(self, version: int) -> set[int]:
        """Processes that a version is answered by; those kept warm or on their way out are not."""
        record = self.deployment(version)
        serving = record["current"]["generation"]
        return {w["pid"] for w in record["workers"] if w["generation"] == serving}

    def predict(self, word: object = "", body: Any = None, **headers: str) -> httpx.Response:
        """Ask at `/predict/<service>`, or below it, as the third seed does."""
        place = self.name if word == "" else f"{self.name}/{word}"
        return self.up.predict(place, {} if body is None else body, **headers)

    def ask(
        self, word: object = "", body: Any = None, *, command: str = "ask", **headers: str
    ) -> httpx.Response:
        """Ask for a command at `/<service>/<command>`, or below a version or label."""
        place = "/".join(str(part) for part in (self.name, word, command) if part != "")
        return self.up.client.post(
            f"{self.up.url}/{place}", json={} if body is None else body, headers=headers
        )

    def log(self, version: int | None = None) -> list[str]:
        """The texts of the deployment log, or of a version's own."""
        return [line["text"] for line in self.admin.logs(self.name, version, lines=500)["lines"]]

    def metrics(self, version: int | None = None) -> dict[str, Any]:
        """What there was since the test began: counts added up, of the rest the greatest."""
        points = self.admin.metrics(self.name, version, since=self.since - 2 * POINT_S)["points"]
        counts = {
            name: sum(point[name] for point in points)
            for name in ("requests", "errors", "shadowed", "shadow_same", "shadow_different")
        }
        rest = points[0].keys() - counts.keys() - {"at"}
        return {**counts, **{name: max(point[name] or 0 for point in points) for name in rest}}

    def metrics_once(
        self, version: int | None, condition: Callable[[dict[str, Any]], bool]
    ) -> dict[str, Any]:
        """The metrics as soon as they are so; they are kept once for each point."""
        found: dict[str, Any] = {}

        def there() -> bool:
            found.update(self.metrics(version))
            return condition(found)

        try:
            wait_for("the metrics", there, 4 * POINT_S)
        except AssertionError:
            raise AssertionError(f"the metrics are {found}") from None
        return found


class Shop:
    """A platform and the services that tests make on it."""

    def __init__(self, running: Up, root: Path) -> None:
        self.up = running
        self.root = root
        self._numbers = count(1)

    def service(self, model: str = OBEDIENT) -> Served:
        """One more, with a folder that holds this model."""
        name = f"s{next(self._numbers)}"
        served = Served(self.up, name, self.root / name)
        served.write("model.py", model)
        return served


@contextmanager
def shop(folder: Path, *arguments: str | Path, **env: str) -> Iterator[Shop]:
    """A platform that has enough of everything, and registers from a folder of its own."""
    root = folder / "models"
    root.mkdir()
    with up(folder / "data", "--root", root, *arguments, **env) as running:
        yield Shop(running, root)
