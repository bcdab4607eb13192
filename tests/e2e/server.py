"""A process that has imported what Tokenmark needs (but not Tokenmark), and forks the command line from there.

Every run of the command line in these tests is a process of its own, which is killed, stopped and limited as any other;
only the seconds that importing torch takes are spent once. Requests and replies are lines of JSON.
"""

import atexit
import json
import os
import sys
import time
import traceback
from typing import NoReturn

WANTED = (
    *("alembic", "click", "filelock", "jinja2", "matplotlib.figure", "matplotlib.backends.backend_agg"),
    *("numpy", "PIL.Image", "psutil", "pydantic", "rich.progress", "rich.table"),
    *("safetensors.torch", "sklearn.datasets", "scipy.linalg", "scipy.stats", "sqlalchemy.orm", "timm"),
    *("timm.models.vision_transformer", "torch", "torch.utils.flop_counter", "torchmetrics.functional.image"),
    *("mlflow", "mlflow.entities", "mlflow.store.artifact.local_artifact_repo"),
    "mlflow.store.tracking.sqlalchemy_store",
)


def load() -> None:
    """Import what every run would import; what is not installed is not missed here."""
    import contextlib
    import gc
    import importlib
    import warnings

    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # read when mlflow is imported; each run has its own environment

    warnings.simplefilter("ignore")
    for name in WANTED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    warnings.resetwarnings()
    gc.collect()
    gc.freeze()  # so that a child's collector does not touch, and copy, all of it


def reply(to: int, **fields: object) -> None:
    os.write(to, (json.dumps(fields) + "\n").encode())


def wait(pid: int, seconds: float) -> int | None:
    """The exit status of a child, as `subprocess` gives it; None if it has not ended by then."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    return None


def become(request: dict) -> NoReturn:
    """In the child: be `python -m tokenmark` with this environment, folder and output."""
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    for descriptor, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, request["stdout"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
        (2, request["stderr"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
    ):
        opened = os.open(path, flags, 0o644)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.path[:0] = request["path"]
    sys.argv = ["tokenmark", *request["argv"]]
    try:
        exec(request["before"], {})
        from tokenmark.cli import main

        main(request["argv"])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001  as the interpreter itself would
        traceback.print_exc()
        code = 1
    # the interpreter's own end, without taking apart the hundred packages that the server imported
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def serve() -> dict | None:
    """Answer requests until there are no more; in a forked child, its own request comes back."""
    replies = os.dup(1)
    os.dup2(2, 1)
    load()
    reply(replies, ready=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            reply(replies, status=wait(request["wait"], request["seconds"]))
            continue
        pid = os.fork()
        if pid == 0:
            os.close(replies)
            return request
        reply(replies, pid=pid)
    return None


if __name__ == "__main__":
    mine = serve()
    if mine is not None:
        become(mine)
    os._exit(0)
