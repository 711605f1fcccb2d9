"""Headless Chromium over its DevTools protocol, by a pipe: nothing but the standard library."""

import base64
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
# Generous: the machine may be slow and busy. Nothing waits this long when all is well.
LIMIT = 60.0


class Failed(Exception):
    """Something that should have been on the page was not."""


def program():
    for name in (os.environ.get("CHROMIUM", ""), *PROGRAMS):
        if name and shutil.which(name):
            return shutil.which(name)
    raise SystemExit("no Chromium: install Debian's package chromium, or name one with CHROMIUM=PATH")


class Chromium:
    """One browser with one page. Ends the browser when the block is left."""

    def __init__(self, width=1400, height=1000, scale=1.0, dark=False):
        self.size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False}
        self.dark = dark
        self.number = 0
        self.answers = {}
        self.arrived = threading.Condition()
        self.problems = []  # console errors, exceptions, failed loads
        self.requests = []  # every URL the page asked for

    def __enter__(self):
        self.profile = tempfile.mkdtemp(prefix="periscope-chromium-")
        command_read, self.command = os.pipe()
        self.events, event_write = os.pipe()
        flags = [
            "--headless=new", "--remote-debugging-pipe", f"--user-data-dir={self.profile}",
            "--no-first-run", "--no-default-browser-check", "--disable-extensions", "--disable-sync",
            "--disable-background-networking", "--disable-component-update", "--disable-gpu",
            "--disable-dev-shm-usage", "--hide-scrollbars", "--mute-audio", "--lang=en-GB",
            # The browser itself talks to nobody either.
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
        ]
        if os.geteuid() == 0:
            flags.append("--no-sandbox")

        # The protocol reads at descriptor 3 and writes at 4: the shell puts ours there.
        launcher = ["sh", "-c", f'exec "$0" "$@" 3<&{command_read} 4>&{event_write}']
        self.process = subprocess.Popen(
            [*launcher, program(), *flags], pass_fds=(command_read, event_write),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(command_read)
        os.close(event_write)
        threading.Thread(target=self._read, daemon=True).start()
        try:
            target = self.send("Target.createTarget", {"url": "about:blank"}, session=False)
            attached = self.send(
                "Target.attachToTarget", {"targetId": target["targetId"], "flatten": True}, session=False)
            self.session = attached["sessionId"]
            for domain in ("Page", "Runtime", "Network", "Log"):
                self.send(f"{domain}.enable")
            self.resize(**self.size)
            scheme = "dark" if self.dark else "light"
            self.send("Emulation.setEmulatedMedia",
                      {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
            self.send("Emulation.setTimezoneOverride", {"timezoneId": "UTC"})
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        for descriptor in (self.command, self.events):
            os.close(descriptor)
        shutil.rmtree(self.profile, ignore_errors=True)

    def _read(self):
        rest = b""
        while True:
            try:
                data = os.read(self.events, 1 << 16)
            except OSError:
                data = b""
            if not data:
                break
            *messages, rest = (rest + data).split(b"\0")
            for message in messages:
                self._take(json.loads(message))
        with self.arrived:
            self.answers["end"] = True
            self.arrived.notify_all()

    def _take(self, message):
        with self.arrived:
            if "id" in message:
                self.answers[message["id"]] = message
                self.arrived.notify_all()
                return
            method, params = message["method"], message.get("params", {})
            if method == "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            elif method == "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                text = details.get("exception", {}).get("description") or details["text"]
                self.problems.append(f"exception: {text}")
            elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
                words = [str(one.get("value", one.get("description"))) for one in params["args"]]
                self.problems.append(f"console {params['type']}: {' '.join(words)}")
            elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
                entry = params["entry"]
                self.problems.append(f"{entry['source']}: {entry['text']} {entry.get('url', '')}")

    def send(self, method, params=None, session=True):
        """Sends a command and returns its result."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params or {}}
        if session:
            message["sessionId"] = self.session
        os.write(self.command, json.dumps(message).encode() + b"\0")
        with self.arrived:
            here = self.arrived.wait_for(
                lambda: message["id"] in self.answers or "end" in self.answers, timeout=LIMIT)
            answer = self.answers.pop(message["id"], None)
        if not here or answer is None:
            raise Failed(f"{method}: no answer of the browser")
        if "error" in answer:
            raise Failed(f"{method}: {answer['error']}")
        return answer["result"]

    def resize(self, width, height, deviceScaleFactor=1.0, mobile=False):
        self.send("Emulation.setDeviceMetricsOverride", {
            "width": width, "height": height, "deviceScaleFactor": deviceScaleFactor, "mobile": mobile})

    def open(self, url):
        self.send("Page.navigate", {"url": url})

    def run(self, script):
        """Evaluates an expression on the page and returns its value."""
        result = self.send("Runtime.evaluate", {
            "expression": script, "awaitPromise": True, "returnByValue": True})
        if "exceptionDetails" in result:
            details = result["exceptionDetails"]
            text = details.get("exception", {}).get("description") or details["text"]
            raise Failed(f"{script}: {text}")
        return result["result"].get("value")

    def wait(self, what, script, limit=LIMIT):
        """Waits until `script` returns something true, and returns it."""
        start = time.monotonic()
        while True:
            value = self.run(script)
            if value:
                return value
            if time.monotonic() - start > limit:
                shown = self.run("document.body.innerText.slice(0, 3000)")
                raise Failed(f"waited {limit:.0f} s for {what}\n{self.problems}\n{shown}")
            time.sleep(0.1)

    def key(self, name, code):
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", {
                "type": kind, "key": name, "code": name, "windowsVirtualKeyCode": code})

    def move(self, x, y):
        self.send("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": x, "y": y})

    def drag(self, start, end):
        mouse = lambda kind, at: self.send("Input.dispatchMouseEvent", {
            "type": kind, "x": at[0], "y": at[1], "button": "left", "buttons": 1, "clickCount": 1})
        self.move(*start)
        mouse("mousePressed", start)
        for step in range(1, 6):
            mouse("mouseMoved", [a + (b - a) * step / 5 for a, b in zip(start, end)])
        mouse("mouseReleased", end)

    def screenshot(self, path):
        shot = self.send("Page.captureScreenshot", {"format": "png", "captureBeyondViewport": False})
        with open(path, "wb") as file:
            file.write(base64.b64decode(shot["data"]))
