"""How much later the timers of a node's own loop are because periscope asks it.

    target/venv-nautilus/bin/python tests/python/nautilus/lateness.py [SECONDS] [INTERVAL]

Runs two nodes side by side, both with the shim; one is asked every INTERVAL seconds (2), as periscope
asks it, the other never. Every 10 ms a timer of each loop says how late it is. Prints both in
milliseconds: median, p99 and maximum.
"""

import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
SHIM = HERE.parents[2] / "assets" / "python"


def start(folder, name):
    environment = dict(
        os.environ,
        PYTHONPATH=str(SHIM),
        PERISCOPE_TARGET="nautilus_trader.live.node:TradingNode@nautilus",
        PERISCOPE_NAME=name,
        PERISCOPE_SOCKET=str(folder) + "/",
    )
    node = subprocess.Popen(
        [sys.executable, HERE / "node.py"],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    while node.stdout.readline() != "ready\n":
        assert node.poll() is None, "the node has ended"
    return node


def ask(path):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        connection.connect(str(path))
        connection.sendall(b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b""
        while part := connection.recv(65536):
            answer += part
    document = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert "status" in document["instances"][0], document
    return document["instances"][0]["call_ms"]


def lateness(node):
    node.stdin.write("late\n")
    node.stdin.flush()
    while not (line := node.stdout.readline()).startswith("{"):
        assert line, "the node has ended"
    return sorted(json.loads(line)["late_ms"][200:])


def shown(values):
    at = [values[len(values) // 2], values[len(values) * 99 // 100], values[-1]]
    return "p50 %.2f  p99 %.2f  max %.2f ms (%d timers)" % (*at, len(values))


def main():
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    interval = float(sys.argv[2]) if len(sys.argv) > 2 else 2.0
    with tempfile.TemporaryDirectory(prefix="late") as folder:
        nodes = [start(folder, "asked"), start(folder, "alone")]
        try:
            (path,) = pathlib.Path(folder).glob("asked-*.sock")
            calls, end = [], time.monotonic() + seconds
            while time.monotonic() < end:
                calls.append(ask(path))
                time.sleep(interval)
            asked, alone = map(lateness, nodes)
        finally:
            for node in nodes:
                node.kill()
                node.wait()
    print("asked every %g s: %s" % (interval, shown(asked)))
    print("never asked:      %s" % shown(alone))
    calls.sort()
    print("a document takes: p50 %.2f  max %.2f ms" % (calls[len(calls) // 2], calls[-1]))


if __name__ == "__main__":
    main()
