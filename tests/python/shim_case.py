"""The shim in real interpreters: what its tests share."""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import unittest

SHIM = pathlib.Path(__file__).resolve().parents[2] / "assets" / "python"
WAIT_SECONDS = 20

STATUS = """
import asyncio, time, sys

class DaemonRunner:
    def __init__(self, name="runner"):
        self.name = name
        self.fetch_count = 0

    def get_status(self):
        return {"running": True, "fetch_count": self.fetch_count, "name": self.name}
"""

READY = """
print("ready", flush=True)
sys.stdin.readline()
"""


class ShimCase(unittest.TestCase):
    """Starts programs with the shim, asks them, and ends them with the test."""

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="shim"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.run_dir = self.folder / "run"
        self.shim = self.folder / "shim"
        shutil.copytree(SHIM, self.shim, ignore=shutil.ignore_patterns("__pycache__"))
        self.started = []
        self.addCleanup(self.end_all)

    def end_all(self):
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()

    # -- helpers

    def write(self, path, text):
        file = self.folder / "app" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text))
        return file

    def environment(self, target, **more):
        environment = {key: value for key, value in os.environ.items() if key[:9] != "PERISCOPE"}
        before = environment.pop("PYTHONPATH", None)
        environment["PYTHONPATH"] = os.pathsep.join([str(self.shim)] + ([before] if before else []))
        environment.update(PERISCOPE_TARGET=target, PERISCOPE_SOCKET=f"{self.run_dir}/")
        environment.update(more)
        return environment

    def start(self, *arguments, target="__main__:DaemonRunner", ready=True, **more):
        process = subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            cwd=self.folder / "app",
            env=self.environment(target, **more),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A run in the background of a shell has it ignored, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        self.started.append(process)
        if ready:
            line = process.stdout.readline()
            self.assertEqual(line, "ready\n", process.stderr.read() if not line else "")
        return process

    def run_plain(self, *arguments, **environment):
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=self.folder / "app",
            env=environment,
            capture_output=True,
            timeout=WAIT_SECONDS,
        )

    def sockets(self):
        return sorted(path.name for path in self.run_dir.glob("*")) if self.run_dir.exists() else []

    def socket_of(self, pid):
        names = [path for path in self.run_dir.glob(f"*-{pid}.sock")]
        self.assertEqual(len(names), 1, self.sockets())
        return names[0]

    def request(self, path, text, seconds=10):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(seconds)
            connection.connect(str(path))
            connection.sendall(text.encode())
            answer = b""
            while part := connection.recv(65536):
                answer += part
        head, _, body = answer.partition(b"\r\n\r\n")
        return head.decode(), body

    def poll(self, process, limit_ms=None):
        limit = f"X-Periscope-Limit-Ms: {limit_ms}\r\n" if limit_ms else ""
        path = self.socket_of(getattr(process, "pid", process))
        head, body = self.request(path, f"GET /status HTTP/1.1\r\nHost: shim\r\n{limit}\r\n")
        self.assertTrue(head.startswith("HTTP/1.1 200 "), head)

        def refuse(text):
            self.fail(f"not strict JSON: {text}")

        return json.loads(body.decode("ascii"), parse_constant=refuse)

    def only(self, document):
        self.assertEqual(len(document["instances"]), 1, document)
        return document["instances"][0]

    def end(self, process, text="\n"):
        out, error = process.communicate(text, timeout=WAIT_SECONDS)
        return process.returncode, out, error
