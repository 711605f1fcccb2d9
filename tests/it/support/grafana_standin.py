#!/usr/bin/env python3
"""A stand-in for Grafana's server: started, asked and ended as the real one, and no more.

Called as `bin/grafana server --homepath=… --config=…`. What it does besides is said by
`behaviour.json` in its home: start_seconds, crash (exit code, before it answers), crash_after
(seconds of health), refuse (a word: it ends like Grafana if one of its alerting files holds it),
ignore_term, unhealthy (503), open (takes admin:admin), locked (takes no login), broken (500 to
everything), stalled (its rules are evaluated no more). The last two and unhealthy are read at every
request. Every request is appended to `requests.log` there.
"""

import base64
import http.server
import json
import os
import pathlib
import re
import signal
import sys
import threading
import time


def fail(words):
    print("Error: ✗ " + words, flush=True)
    os._exit(1)


def value_of(text):
    """Resolves `$__file{…}` as Grafana does."""
    found = re.fullmatch(r"\$__file\{(.*)\}", text)
    return pathlib.Path(found[1]).read_text().strip() if found else text.strip("`")


def ini(path):
    sections, section = {}, ""
    for line in pathlib.Path(path).read_text().splitlines():
        line = line.strip()
        if line.startswith("["):
            section = line.strip("[]")
        elif "=" in line and not line.startswith("#"):
            key, value = line.split("=", 1)
            sections.setdefault(section, {})[key.strip()] = value.strip()
    return sections


def main():
    command, *options = sys.argv[1:]
    if command != "server":
        fail(f"unknown command {command}")
    options = dict(option.removeprefix("--").split("=", 1) for option in options)
    home = pathlib.Path(options["homepath"])
    behaviour = json.loads((home / "behaviour.json").read_text())
    settings = ini(options["config"])
    print("logger=settings level=info msg=\"Starting Grafana (stand-in)\"", flush=True)
    with open(home / "environment.json", "w") as file:
        json.dump(dict(os.environ), file)
    if behaviour.get("ignore_term"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(behaviour.get("start_seconds", 0))
    if "crash" in behaviour:
        print("logger=server level=error msg=\"stand-in crashes as told\"", flush=True)
        os._exit(behaviour["crash"])
    provisioning = pathlib.Path(settings["paths"]["provisioning"])
    refuse = behaviour.get("refuse")
    for file in sorted(provisioning.glob("*/*.yaml")):
        if refuse and refuse in file.read_text():
            fail(f"alert provisioning: {file.name}: {refuse} is not wanted here")
    data = pathlib.Path(settings["paths"]["data"])
    data.mkdir(exist_ok=True)
    database = data / "grafana.db"
    password = value_of(settings["security"]["admin_password"])
    if not database.exists():
        # As the real one: the password counts when the database is made.
        database.write_text(password)
    password = database.read_text()
    ready = time.monotonic()
    evaluated = [time.time() // 10 * 10]

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_arguments):
            pass

        def user(self):
            sent = self.headers.get("authorization", "")
            if not sent.startswith("Basic ") or behaviour.get("locked"):
                return None
            user = base64.b64decode(sent.removeprefix("Basic ")).decode()
            known = [f"admin:{password}"] + (["admin:admin"] if behaviour.get("open") else [])
            return "admin" if user in known else None

        def answer(self, status, body):
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def handle_any(self):
            length = int(self.headers.get("content-length", 0))
            self.rfile.read(length)
            with open(home / "requests.log", "a") as file:
                file.write(f"{self.command} {self.path} {self.headers.get('host')}\n")
            now = json.loads((home / "behaviour.json").read_text())
            if now.get("broken"):
                return self.answer(500, {"message": "Internal server error"})
            if self.path == "/api/health":
                state = "failing" if now.get("unhealthy") else "ok"
                status = 503 if now.get("unhealthy") else 200
                return self.answer(
                    status, {"commit": "0", "database": state, "version": "12.4.2"}
                )
            if self.user() is None:
                return self.answer(401, {"message": "Invalid username or password"})
            if self.path == "/api/user":
                return self.answer(200, {"login": "admin", "isGrafanaAdmin": True})
            if self.path == "/api/prometheus/grafana/api/v1/rules":
                # As the real one: every ten seconds.
                newest = evaluated[0] if now.get("stalled") else time.time() // 10 * 10
                evaluated[0] = newest
                stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(newest))
                rule = {"health": "ok", "lastEvaluation": stamp}
                return self.answer(200, {"data": {"groups": [{"rules": [rule]}]}})
            if self.path == "/api/alertmanager/grafana/config/api/v1/receivers":
                return self.answer(200, [])
            if self.path == "/api/alertmanager/grafana/api/v2/silences":
                return self.answer(202, {"silenceID": "s1"})
            if re.fullmatch(r"/api/admin/provisioning/\w+/reload", self.path):
                return self.answer(200, {"message": "config reloaded"})
            return self.answer(404, {"message": "Not found"})

        do_GET = do_POST = handle_any

    host, port = settings["server"]["http_addr"], int(settings["server"]["http_port"])
    server = http.server.ThreadingHTTPServer((host, port), Handler)
    server.daemon_threads = True
    if not behaviour.get("ignore_term"):
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    if "crash_after" in behaviour:
        def crash():
            time.sleep(behaviour["crash_after"] - (time.monotonic() - ready))
            os._exit(2)
        threading.Thread(target=crash, daemon=True).start()
    server.serve_forever()


main()
