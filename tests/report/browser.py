"""A headless Chromium that tests read, click and type in, by its own protocol over two pipes."""

import base64
import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PIPES = """
import fcntl, os, sys
pipes = [fcntl.fcntl(int(pipe), fcntl.F_DUPFD, 10) for pipe in sys.argv[1:3]]
for number, pipe in enumerate(pipes, 3):
    os.dup2(pipe, number)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Chromium reads commands from descriptor 3 and answers on descriptor 4."""
KEYS = {"ArrowRight": 39, "ArrowLeft": 37, "Home": 36, "End": 35, "Tab": 9, "Enter": 13, " ": 32}


class Browser:
    """One page. ``complaints`` gathers what its console says that is no mere remark."""

    def __init__(self, commands: int, answers: int):
        self.commands, self.answers, self.held = commands, answers, b""
        self.number, self.session, self.complaints = 0, None, []
        self.arrived: set[str] = set()
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def _read(self) -> dict:
        while b"\0" not in self.held:
            part = os.read(self.answers, 1 << 20)
            assert part, "Chromium has ended"
            self.held += part
        message, _, self.held = self.held.partition(b"\0")
        said = json.loads(message)
        kind, value = said.get("method"), said.get("params", {})
        if kind == "Page.loadEventFired":
            self.arrived.add("load")
        elif kind == "Runtime.exceptionThrown":
            self.complaints.append(value["exceptionDetails"])
        elif kind == "Log.entryAdded" and value["entry"]["level"] in ("warning", "error"):
            self.complaints.append(value["entry"])
        elif kind == "Runtime.consoleAPICalled" and value["type"] in ("warning", "error", "assert"):
            self.complaints.append(value)
        return said

    def call(self, method: str, **params):
        """Ask for something and return the answer."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        while (said := self._read()).get("id") != self.number:
            pass
        assert "error" not in said, said
        return said["result"]

    def open(self, page: Path, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Open a page from the disk in a window of some size and wait until it has loaded."""
        phone = width < 600
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=phone,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.arrived.clear()
        self.call("Page.navigate", url=page.as_uri())
        while "load" not in self.arrived:
            self._read()

    def ask(self, script: str):
        """Return the value of an expression in the page, a promise when it is kept."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, script: str) -> None:
        """Wait until an expression is true in the page."""
        assert self.ask(
            "new Promise((done, failed) => { const look = (times) => { "
            f"if ({script}) done(true); else if (times) setTimeout(look, 50, times - 1); else done(false); "
            "}; look(400); })"
        ), script

    def press(self, key: str) -> None:
        """Press a key where the focus is."""
        code = KEYS[key]
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def drag(self, selector: str, start: float, end: float) -> None:
        """Drag across an element, from and to a fraction of its width."""
        box = self.ask(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); "
            "e.scrollIntoView({block: 'center', behavior: 'instant'}); const b = e.getBoundingClientRect(); "
            "return [b.x, b.y, b.width, b.height]; })()"
        )
        steps = [("mousePressed", start, 1), ("mouseMoved", end, 1), ("mouseReleased", end, 0)]
        for kind, share, buttons in steps:
            self.call(
                "Input.dispatchMouseEvent", type=kind, x=box[0] + share * box[2], y=box[1] + box[3] / 2,
                button="left", buttons=buttons, clickCount=1,
            )  # fmt: skip

    def picture(self, path: Path, whole: bool = True) -> None:
        """Write what is seen, or the whole page, as PNG."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=whole, **self._size(whole))
        path.write_bytes(base64.b64decode(shot["data"]))

    def _size(self, whole: bool) -> dict:
        if not whole:
            return {}
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        return {"clip": {**size, "scale": 1}}


@contextmanager
def opened(folder: Path):
    """Give a `Browser` whose profile lies in ``folder``; it has no network."""
    read, commands = os.pipe()
    answers, write = os.pipe()
    process = subprocess.Popen(
        [
            sys.executable, "-c", PIPES, str(read), str(write), CHROMIUM, "--headless", "--no-sandbox",
            "--disable-gpu", "--no-first-run", "--disable-background-networking", "--hide-scrollbars",
            "--force-prefers-reduced-motion", "--proxy-server=127.0.0.1:9", f"--user-data-dir={folder}",
            "--remote-debugging-pipe",
        ],
        pass_fds=(read, write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(read)
    os.close(write)
    try:
        yield Browser(commands, answers)
    finally:
        process.kill()
        process.wait()
        os.close(commands)
        os.close(answers)
