"""A warm process that runs `sass` commands in forks of itself, and ends them at a numbered moment.

Imports take seconds and are the same for every command, so they are done once. In a fork, Python's audit
events number what is done with files of the run: a fork dies just before its n-th event, or a little after
it, wherever it is then: in Python, in GDAL, in the middle of a write.

Started by itself it is the server: JSON lines in, JSON lines out.
"""

import atexit
import fnmatch
import gc
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code, or the negative number of the signal that killed it."""

    code: int
    text: str
    events: int
    """Events of files in its folder, if it was not killed."""


class Deaths:
    """The client's side of the server."""

    def __init__(self):
        self.server = subprocess.Popen(
            [sys.executable, "-W", "ignore", __file__],
            env=os.environ | {"PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def sass(
        self,
        folder: Path,
        *arguments: str | Path,
        at: int = 0,
        of: str = "*",
        delay: float = 0,
        by: int = signal.SIGKILL,
    ) -> Ended:
        """Run a command inside a folder.

        It is sent a signal just before its ``at``-th event (from 1) among those whose kind and path match the
        pattern ``of``, or is killed ``delay`` seconds after that. Kinds: ``read``, ``write``, `CHANGES`.
        """
        asked = {"folder": str(folder), "arguments": [*map(str, arguments)]}
        asked |= {"at": at, "of": of, "delay": delay, "by": int(by)}
        print(json.dumps(asked), file=self.server.stdin, flush=True)
        code, events = json.loads(self.server.stdout.readline())
        return Ended(code, (folder / "said.txt").read_text(), events)

    def close(self) -> None:
        self.server.communicate()


def serve() -> None:
    """Import everything, then run what is asked for; only forks touch a store."""

    import sass.baselines
    import sass.cli
    import sass.cluster.hierarchy
    import sass.commands
    import sass.evaluate
    import sass.features
    import sass.fingerprint
    import sass.report.build
    import sass.scan
    import sass.segment
    import sass.train

    for stage in sass.fingerprint.STAGE_MODULES:
        sass.fingerprint.stage_fingerprint(stage)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background of a shell ignores it
    gc.freeze()  # a collection in a fork would copy all of its memory
    for line in sys.stdin:
        asked = json.loads(line)
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            os.close(reader)
            os._exit(_live(asked, writer, sass.cli.main))
        os.close(writer)
        with os.fdopen(reader) as counted:
            events = counted.read()
        _, status = os.waitpid(child, 0)
        print(json.dumps([os.waitstatus_to_exitcode(status), int(events or 0)]), flush=True)


def _live(asked: dict, writer: int, main) -> int:
    os.chdir(asked["folder"])
    said = os.open("said.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(said, 1)
    os.dup2(said, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    home, all_events, matching = os.getcwd() + os.sep, itertools.count(), itertools.count(1)

    def watch(event: str, args: tuple) -> None:
        if (event != "open" and event not in CHANGES) or isinstance(args[0], int):
            return
        path = os.path.abspath(os.fsdecode(args[0]))
        if not path.startswith(home):
            return
        next(all_events)
        kind = ("write" if args[2] & WRITES else "read") if event == "open" else event
        matches = fnmatch.fnmatchcase(f"{kind} {path.removeprefix(home)}", asked["of"])
        if matches and next(matching) == asked["at"]:
            if asked["delay"]:
                signal.setitimer(signal.ITIMER_REAL, asked["delay"])  # nobody handles it: it kills
            else:
                os.kill(os.getpid(), asked["by"])
                if threading.current_thread() is not threading.main_thread():
                    time.sleep(2)  # as on a slow disk: the main thread hears of it before the stage has ended

    sys.addaudithook(watch)
    code = 1
    try:
        code = main(asked["arguments"])
    except BaseException:
        traceback.print_exc()
    # what the end of an interpreter does, less the second that it takes to clear all modules
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os.write(writer, str(next(all_events)).encode())
    return code


if __name__ == "__main__":
    serve()
