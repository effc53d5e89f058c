"""Model files that tests serve."""

from __future__ import annotations

from pathlib import Path

#: Answers with its option, and can be told to fail in every way a model can.
OBEDIENT = """
import ctypes, os, signal, sys, time
import modelcloud
from modelcloud.data_types import any, boolean, number, text

@modelcloud.setup(options={
    "answer": number(default=1), "load_s": number(default=0), "fail": text(default=""),
})
def setup(options):
    time.sleep(options["load_s"])
    fail = options["fail"]
    if fail == "raise":
        raise RuntimeError("there are no weights")
    if fail == "hang":
        time.sleep(3600)
    if fail == "spin":
        while True: pass
    if fail == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    if fail == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if fail == "exit":
        os._exit(9)
    if fail == "import":
        import no_such_module
    if fail.startswith("second:"):  # of two workers, the one that comes later
        os.mkdir(fail.removeprefix("second:"))
    if fail == "hoard":
        hoard = bytearray(b"x" * (256 << 20))
        time.sleep(3600)
    if fail.startswith("cgroup:"):
        with open(fail.removeprefix("cgroup:"), "w") as tasks:
            tasks.write(str(os.getpid()))
        hoard = [bytearray(b"x" * (1 << 20)) for _ in range(4096)]
    return options["answer"]

@modelcloud.command(
    "ask", inputs={"x": number(default=0)}, outputs={"answer": number, "pid": number}
)
def ask(model, inputs):
    return {"answer": model, "pid": os.getpid()}

@modelcloud.command("sleep", inputs={"s": number(default=0)}, outputs={"answer": number})
def sleep(model, inputs):
    time.sleep(inputs["s"])
    return {"answer": model}

@modelcloud.command("misbehave", inputs={"how": text(default="")}, outputs={"result": any})
def misbehave(model, inputs):
    how = inputs["how"]
    if how == "raise":
        raise ValueError("secret detail")
    if how == "sys.exit":
        sys.exit(3)
    if how == "os._exit":
        os._exit(3)
    if how == "segfault":
        ctypes.string_at(0)
    if how == "nan":
        return [1.0, float("nan"), float("inf")]
    if how == "unencodable":
        return object()
    if how == "spin":
        while True: pass
    return how

@modelcloud.command("slow", inputs={"s": number(default=0)}, outputs={"result": any})
async def slow(model, inputs):
    import asyncio
    await asyncio.sleep(inputs["s"])
    return "slept"

@modelcloud.command("count", inputs={"n": number(default=3)}, outputs={"i": number})
def count(model, inputs):
    for i in range(int(inputs["n"])):
        yield i

@modelcloud.command("acount", inputs={"n": number(default=3)}, outputs={"i": number})
async def acount(model, inputs):
    for i in range(int(inputs["n"])):
        yield i

@modelcloud.command("echo", inputs={"value": any}, outputs={"value": any})
def echo(model, inputs):
    return {"value": inputs["value"]}
"""


def obedient(folder: Path) -> Path:
    """Write the obedient model into a folder; returns its path."""
    path = folder / "model.py"
    path.write_text(OBEDIENT)
    return path
