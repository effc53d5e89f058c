"""`make run`: starts `modelcloud up` and, the first time, brings two examples online.

The password of the first start goes past here on its way to the terminal and is used to sign in
once; it is kept nowhere.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

from modelcloud.errors import ModelcloudError
from modelcloud.platform import Platform

EXAMPLES = Path(__file__).parent.parent / "examples"
#: service → what is registered beside its folder, and a request to try.
SERVICES = {
    "fib": ({"options": {"model": "big", "version": "0.0.1"}}, "fib/1", '{"n": 10}'),
    "m261": (
        {},
        "m261/1",
        '{"type":"libsvm","feature_num":"524","data":{"insts":"0 1:0 2:1.0 3:565 4:9"}}',
    ),
}


def main(arguments: list[str]) -> int:
    """Run until the platform ends; return its exit status."""
    command = [sys.executable, "-m", "modelcloud.cli.main", "up", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, bufsize=1) as platform:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda sign, _: platform.send_signal(sign))
        password = api = predictions = ""
        assert platform.stdout is not None
        for line in platform.stdout:
            print(line, end="", flush=True)
            if match := re.search(r"password: (\S+)", line):
                password = match[1]
            if match := re.search(r"Predictions at (\S+)", line):
                predictions = match[1]
            if match := re.search(r"Control plane at (\S+)", line):
                api = match[1]
                if password:
                    arguments_ = (api, predictions, password)
                    threading.Thread(target=bring_online, args=arguments_, daemon=True).start()
                    password = ""
                else:
                    print(
                        f"  Sign in at {api}, or: modelcloud login {api} --user admin", flush=True
                    )
        return platform.wait()


def bring_online(api: str, predictions: str, password: str) -> None:
    """Register and deploy the examples, then say how to ask them."""
    try:
        with Platform(api) as platform:
            platform.sign_in("admin", password)
            for service, (fields, _, _) in SERVICES.items():
                platform.register(service, path=str(EXAMPLES / service), group="admin", **fields)
                answer = platform.deploy(service, 1, replicas=1)
                platform.wait(answer["rollout"]["id"])
            platform.sign_out()
    except ModelcloudError as error:
        print(f"  The examples are not online: {error.message}", flush=True)
        return
    print("", f"  Sign in at {api}, or: modelcloud login {api} --user admin", sep="\n")
    for service, (_, address, body) in SERVICES.items():
        print(f"  {service:<8} curl {predictions}/predict/{address} -d '{body}'")
    print(flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
