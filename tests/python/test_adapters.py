"""The adapters, and the ways to load the shim other than `periscope run`."""

import ast
import http.client
import json
import os
import pathlib
import shutil
import subprocess
import sys
import unittest

from shim_case import READY, SHIM, STATUS, ShimCase

HERE = pathlib.Path(__file__).resolve().parent


class CcxtPipelineTest(ShimCase):
    def daemon(self):
        (self.folder / "app").mkdir(exist_ok=True)
        return self.start(HERE / "ccxt_daemon.py", target="*:DaemonRunner@ccxt-pipeline")

    def tell(self, process, line):
        process.stdin.write(line + "\n")
        process.stdin.flush()
        self.assertEqual(process.stdout.readline(), "done\n")

    def status(self, process):
        return self.only(self.poll(process))["status"]

    def test_venues_and_pipelines_are_counted_and_the_plain_status_stays(self):
        process = self.daemon()
        self.tell(process, "fetch 3")
        self.tell(process, "liquidate 5")
        status = self.status(process)
        self.assertEqual((status["fetch_count"], status["liquidation_count"]), (24, 5))
        self.assertNotIn("adapter_errors", status)
        pipelines = {
            (one["exchange"], one["symbol"], one["data_type"]): (one["records"], one["errors"])
            for one in status["pipeline"]
        }
        expected = {
            (venue, symbol, kind): (3, 0)
            for venue in ("binance", "bybit")
            for symbol in ("BTCUSDT-PERP", "ETHUSDT-PERP")
            for kind in ("oi", "funding")
        }
        expected["binance", "BTCUSDT-PERP", "liquidation"] = (5, 0)
        self.assertEqual(pipelines, expected)
        venue = status["exchange_status"]["bybit"]
        self.assertTrue(venue["connected"] and venue["rest_connected"] and venue["ws_connected"])
        self.assertGreater(venue["latency_ms"], 0)
        self.assertRegex(venue["last_message_at"], r"^20\d\d-.*\+00:00$")

    def test_an_outage_of_one_venue_shows_on_that_venue_only(self):
        process = self.daemon()
        self.tell(process, "fetch 1")
        self.tell(process, "fail BYBIT")
        self.tell(process, "fetch 2")
        status = self.status(process)
        connected = {name: one["connected"] for name, one in status["exchange_status"].items()}
        self.assertEqual(connected, {"binance": True, "bybit": False})
        errors = {one["exchange"]: one["errors"] for one in status["pipeline"]}
        self.assertEqual(errors, {"binance": 0, "bybit": 2})
        self.assertEqual(status["error_count"], 8, "its own count is its own")
        self.tell(process, "heal BYBIT")
        self.tell(process, "cut BINANCE")
        status = self.status(process)
        venue = status["exchange_status"]["binance"]
        self.assertEqual((venue["connected"], venue["rest_connected"]), (False, True))

    def test_a_missing_attribute_costs_its_own_part_only(self):
        process = self.daemon()
        self.tell(process, "fetch 1")
        self.tell(process, "forget")
        status = self.status(process)
        self.assertEqual(len(status["adapter_errors"]), 1, status["adapter_errors"])
        self.assertRegex(status["adapter_errors"][0], "^streams: AttributeError: .*_liquidation_manager")
        self.assertEqual(status["fetch_count"], 8)
        self.assertEqual(len(status["pipeline"]), 8)
        self.assertEqual(status["exchange_status"]["binance"]["rest_connected"], True)

    def test_a_foreign_class_has_its_plain_status(self):
        file = self.write("daemon.py", STATUS + "runner = DaemonRunner()\n" + READY)
        status = self.status(self.start(file, target="__main__:DaemonRunner@ccxt-pipeline"))
        self.assertEqual(status["running"], True)
        parts = sorted(error.partition(":")[0] for error in status["adapter_errors"])
        self.assertEqual(parts, ["liquidations", "rest", "streams"])


class ListenTest(ShimCase):
    def listening(self, address, socket=True):
        file = self.write("daemon.py", STATUS + "runner = DaemonRunner()\n" + READY)
        more = {"PERISCOPE_LISTEN": address}
        if not socket:
            more["PERISCOPE_SOCKET"] = ""
        return self.start(file, PERISCOPE_DEBUG="1", **more)

    def port_of(self, process):
        """Returns the port that the shim has taken, from the kernel's list."""
        inodes = set()
        for entry in pathlib.Path(f"/proc/{process.pid}/fd").iterdir():
            link = os.readlink(entry)
            if link.startswith("socket:["):
                inodes.add(link[8:-1])
        lines = pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]
        ports = [line.split()[1] for line in lines if line.split()[9] in inodes]
        self.assertEqual([one.partition(":")[0] for one in ports], ["0100007F"], "loopback only")
        return int(ports[0].partition(":")[2], 16)

    def ask(self, port, host):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        self.addCleanup(connection.close)
        connection.request("GET", "/status", headers={"host": host})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())

    def test_a_port_on_loopback_answers_like_the_socket(self):
        for socket in (True, False):
            process = self.listening("127.0.0.1:0", socket)
            port = self.port_of(process)
            status, document = self.ask(port, f"127.0.0.1:{port}")
            self.assertEqual(status, 200)
            self.assertEqual(document["instances"][0]["status"]["running"], True)
            self.assertEqual(len(self.sockets()), 1)
            # A page in a browser comes under another name.
            self.assertEqual(self.ask(port, "evil.example")[0], 403)
            self.assertEqual(self.ask(port, "localhost")[0], 200)

    def test_other_addresses_are_not_listened_on(self):
        for address in ("0.0.0.0:0", "192.0.2.1:1", "nonsense", "127.0.0.1:x", ":9"):
            process = self.listening(address)
            self.assertEqual(self.only(self.poll(process))["status"]["running"], True)
            process.stdin.close()
            self.assertEqual(process.wait(20), 0)
            self.assertIn("PERISCOPE_LISTEN=", process.stderr.read())


class VenvTest(ShimCase):
    """What `periscope shim install` writes, in a virtual environment."""

    def venv(self):
        venv = self.folder / "venv"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
        (packages,) = (venv / "lib").glob("python3*/site-packages")
        for file in SHIM.glob("*.py"):
            if file.name != "sitecustomize.py":
                shutil.copy(file, packages)
        line = 'import os; os.environ.get("PERISCOPE_TARGET") and __import__("_periscope_start")\n'
        source = (HERE.parents[1] / "src/collect/shim.rs").read_text()
        self.assertIn(json.dumps(line)[1:-1], source)
        (packages / "periscope.pth").write_text(line)
        return venv / "bin" / "python"

    def run_in(self, python, *arguments, **more):
        environment = self.environment("__main__:DaemonRunner", **more)
        process = subprocess.Popen(
            [python, *arguments],
            cwd=self.folder / "app",
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        self.assertEqual(process.stdout.readline(), "ready\n")
        return process

    def test_every_interpreter_loads_it_also_isolated_and_only_once(self):
        python = self.venv()
        file = self.write("daemon.py", STATUS + "runner = DaemonRunner()\n" + READY)
        for flags in ([], ["-I"], ["-E"], ["-P"] if sys.version_info >= (3, 11) else []):
            # Once with the folder of `periscope run` on the path as well.
            for path in ("", str(self.shim)):
                process = self.run_in(python, *flags, file, PYTHONPATH=path)
                status = self.only(self.poll(process))["status"]
                self.assertEqual(status["running"], True, flags)
                process.stdin.close()
                self.assertEqual(process.wait(20), 0)
                self.assertEqual(process.stderr.read(), "", flags)
                self.assertEqual(self.sockets(), [])

    def test_without_a_target_nothing_is_loaded(self):
        python = self.venv()
        code = "import sys; print([name for name in sys.modules if 'periscope' in name])"
        environment = {key: value for key, value in os.environ.items() if key[:9] != "PERISCOPE"}
        output = subprocess.run([python, "-c", code], env=environment, capture_output=True, text=True)
        self.assertEqual((output.stdout, output.stderr), ("[]\n", ""))


class SyntaxTest(unittest.TestCase):
    def test_every_file_is_python_3_9(self):
        for file in SHIM.glob("*.py"):
            ast.parse(file.read_text(), file.name, feature_version=(3, 9))


if __name__ == "__main__":
    unittest.main()
