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
import socketserver
import subprocess
import sys
import tempfile
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
READY = b"ready\n"


@cache
def quick_python() -> Path:
    """Folder of all three, to stand first in ``PATH``; it goes when this process ends."""
    folder = Path(tempfile.mkdtemp(prefix="ldp_quick_"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "bin").mkdir()
    address = folder / "socket"
    for command in ("python", "ldp", "dvc"):
        shim = folder / "bin" / command
        shim.write_text(SHIM.format(python=sys.executable, address=str(address)))
        shim.chmod(0o755)
    server = subprocess.Popen(
        [sys.executable, __file__, str(address)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
    )
    atexit.register(server.kill)
    assert server.stdout
    assert server.stdout.readline() == READY, "the quick Python did not start"
    return folder / "bin"


class Server(socketserver.ForkingMixIn, socketserver.UnixStreamServer):
    """Forks for every request, until killed, or as long as the process lives that started this one."""

    request_queue_size = 16
    parent = os.getppid()

    def service_actions(self) -> None:
        super().service_actions()
        if os.getppid() != self.parent:
            sys.exit()


class Answer(socketserver.BaseRequestHandler):
    """Runs what is asked for in this process, which is its own, and says how it ended."""

    def handle(self) -> None:
        self.server.socket.close()
        _, streams, _, _ = socket.recv_fds(self.request, 1, 3)
        request = json.loads(self.request.makefile("rb").read())
        for standard, stream in enumerate(streams):
            os.dup2(stream, standard)
            os.close(stream)
        self.request.sendall(str(run_stage(**request)).encode())


def serve(address: Path) -> None:
    """Import what takes long, then answer."""
    for name in PRELOADED:
        importlib.import_module(name)
    from blank import blank_pictures  # noqa: PLC0415
    from dvc_task.worker import TemporaryWorker  # noqa: PLC0415

    # A worker of DVC's queue looks every so many seconds whether there is more to do, and ends: not ten.
    TemporaryWorker.timeout = property(lambda _: 2, lambda *_: None)
    sys.executable = str(address.with_name("bin") / "python")
    try:
        with blank_pictures(), Server(str(address), Answer) as server:
            os.write(1, READY)
            server.serve_forever()
    finally:
        shutil.rmtree(address.parent, ignore_errors=True)


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
        print(code, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    return code if isinstance(code, int) else int(code is not None)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
