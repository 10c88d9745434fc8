"""A ``python``, an ``ldp`` and a ``dvc`` that start in a tenth of a second, for tests that run many of them.

``python -m`` of a stage, a command or DVC is forked from a process that has imported torch and other
libraries already, which takes ten seconds otherwise. All else is as always: the stage's own code, from the
folder it is started in, with the arguments, the environment and the streams that it is given. The rest goes
to the real Python.
"""

import atexit
import importlib
import json
import os
import runpy
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

SHIM = """#!{python} -IS
import json, os, socket, sys
if sys.argv[0].endswith("/ldp"):
    arguments = ["pipeline.cli.main", *sys.argv[1:]]
elif sys.argv[0].endswith("/dvc"):
    arguments = ["dvc", *sys.argv[1:]]
elif sys.argv[1:2] == ["-m"] and sys.argv[2].split(".")[0] in ("stages", "pipeline", "dvc"):
    arguments = sys.argv[2:]
else:
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
link = socket.socket(socket.AF_UNIX)
link.connect({address!r})
request = dict(arguments=arguments, folder=os.getcwd(), variables=dict(os.environ))
socket.send_fds(link, [b"."], [0, 1, 2])
link.sendall(json.dumps(request).encode())
link.shutdown(socket.SHUT_WR)
sys.exit(int(link.makefile().read() or 1))
"""

PRELOADED = (
    *("torch", "torchvision", "matplotlib.figure", "zarr", "distributed"),
    *("dvc.repo", "dvc.cli", "dvc.commands.repro"),
)
START_SECONDS = 300
MAX_WAITING = 16


@cache
def quick_python() -> Path:
    """Folder of all three, to stand first in ``PATH``; it goes when this process ends."""
    folder = Path(tempfile.mkdtemp(prefix="ldp_quick_"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    address = folder / "socket"
    server = subprocess.Popen(
        [sys.executable, __file__, str(address)], env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    atexit.register(server.kill)
    end = time.monotonic() + START_SECONDS
    while not address.exists():
        assert server.poll() is None, "the quick Python did not start"
        assert time.monotonic() < end, "the quick Python did not start in time"
        time.sleep(0.05)
    shim = folder / "bin" / "python"
    shim.parent.mkdir()
    shim.write_text(SHIM.format(python=sys.executable, address=str(address)))
    shim.chmod(0o755)
    for command in ("ldp", "dvc"):
        shutil.copy(shim, shim.with_name(command))
    return shim.parent


def serve(address: str) -> None:
    """Fork for every request, until killed, or as long as the process lives that started this one."""
    for name in PRELOADED:
        importlib.import_module(name)
    from blank import blank_pictures  # noqa: PLC0415
    from dvc_task.worker import TemporaryWorker  # noqa: PLC0415

    # A worker of DVC's queue looks every so many seconds whether there is more to do, and ends: not ten.
    TemporaryWorker.timeout = property(lambda _: 2, lambda *_: None)
    with blank_pictures():
        _serve(address)


def _serve(address: str) -> None:
    server = socket.socket(socket.AF_UNIX)
    server.bind(f"{address}.new")
    server.listen(MAX_WAITING)
    server.settimeout(1)
    parent = os.getppid()
    sys.executable = str(Path(address).with_name("bin") / "python")
    Path(f"{address}.new").rename(address)
    while os.getppid() == parent:
        try:
            link, _ = server.accept()
        except TimeoutError:
            continue
        if os.fork() == 0:
            server.close()
            answer(link)
            os._exit(0)
        link.close()
        reap()
    shutil.rmtree(Path(address).parent, ignore_errors=True)


def reap() -> None:
    """Take leave of those that have answered."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def answer(link: socket.socket) -> None:
    """Run what is asked for in a process of its own, and say how it ended."""
    _, streams, _, _ = socket.recv_fds(link, 1, 3)
    request = json.loads(link.makefile("rb").read())
    child = os.fork()
    if child == 0:
        for standard, stream in enumerate(streams):
            os.dup2(stream, standard)
        os._exit(run_stage(request["arguments"], request["folder"], request["variables"]))
    link.sendall(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())


def run_stage(arguments: list[str], folder: str, variables: dict[str, str]) -> int:
    """What ``python -m`` does; returns the exit code."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    sys.path[0] = folder
    sys.argv[:] = arguments
    code: object = 0
    try:
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    if isinstance(code, str):
        sys.stderr.write(f"{code}\n")
    sys.stdout.flush()
    sys.stderr.flush()
    return code if isinstance(code, int) else int(code is not None)


if __name__ == "__main__":
    serve(sys.argv[1])
