"""The status shim with real interpreters, real sockets and real signals.

Run: python3 -m unittest discover -s tests/python
"""

import contextlib
import json
import os
import signal
import socket
import stat
import sys
import time
import unittest

from shim_case import READY, STATUS, WAIT_SECONDS, ShimCase


class ShimTest(ShimCase):
    # -- where the class stands

    def check_found(self, process, pid=None):
        document = self.poll(process)
        instance = self.only(document)
        self.assertEqual(instance["status"]["fetch_count"], 0)
        self.assertEqual(instance["class"], "DaemonRunner")
        self.assertEqual(document["pid"], process.pid)
        self.assertEqual(document["schema"], 1)
        return document

    def test_class_in_the_script(self):
        file = self.write("daemon.py", STATUS + "runner = DaemonRunner()\n" + READY)
        document = self.check_found(self.start(file, PERISCOPE_NAME="ccxt"))
        self.assertEqual(document["name"], "ccxt")
        self.assertEqual(self.socket_of(document["pid"]).name, f"ccxt-{document['pid']}.sock")

    def test_any_module_and_the_name_of_the_script(self):
        file = self.write("daemon.py", STATUS + "runner = DaemonRunner()\n" + READY)
        for target in ("*:DaemonRunner", "daemon:DaemonRunner", "daemon:DaemonRunner.get_status"):
            with self.subTest(target):
                self.check_found(self.start(file, target=target))

    def test_module_started_with_dash_m(self):
        self.write("pkg/__init__.py", "")
        self.write("pkg/mod.py", STATUS + "runner = DaemonRunner()\n" + READY)
        self.write("pkg/__main__.py", STATUS + "runner = DaemonRunner()\n" + READY)
        for target in ("pkg.mod:DaemonRunner", "__main__:DaemonRunner"):
            with self.subTest(target):
                self.check_found(self.start("-m", "pkg.mod", target=target))
        for target in ("pkg:DaemonRunner", "pkg.__main__:DaemonRunner"):
            with self.subTest(target):
                self.check_found(self.start("-m", "pkg", target=target))

    def test_imported_module(self):
        self.write("pkg/__init__.py", "")
        self.write("pkg/mod.py", STATUS)
        file = self.write(
            "main.py", "import sys\nfrom pkg.mod import DaemonRunner\nr = DaemonRunner()\n" + READY
        )
        self.check_found(self.start(file, target="pkg.mod:DaemonRunner"))

    def test_class_that_a_package_only_reexports(self):
        self.write("pkg/__init__.py", "from .mod import DaemonRunner\n")
        self.write("pkg/mod.py", STATUS)
        file = self.write(
            "main.py", "import sys\nfrom pkg import DaemonRunner\nr = DaemonRunner()\n" + READY
        )
        self.check_found(self.start(file, target="pkg:DaemonRunner"))

    def test_instance_made_while_its_module_is_imported(self):
        self.write("pkg/__init__.py", "")
        self.write("pkg/mod.py", STATUS + "runner = DaemonRunner()\n")
        file = self.write("main.py", "import sys\nimport pkg.mod\n" + READY)
        self.check_found(self.start(file, target="pkg.mod:DaemonRunner"))

    def test_decorated_classes_in_the_script(self):
        for decorator in ("@dataclass", "@dataclass(slots=True, weakref_slot=True)"):
            if "weakref_slot" in decorator and sys.version_info < (3, 11):
                continue
            with self.subTest(decorator):
                file = self.write(
                    "daemon.py",
                    "import sys\nfrom dataclasses import dataclass\n" + decorator + """
class DaemonRunner:
    fetch_count: int = 0
    def get_status(self):
        return {"fetch_count": self.fetch_count}

runner = DaemonRunner()
""" + READY,
                )
                self.check_found(self.start(file))

    def test_classes_of_every_shape_behave_as_before(self):
        file = self.write(
            "daemon.py",
            """
            import inspect, sys, pickle, copy

            class Plain:
                pass

            class New:
                def __new__(cls, a, *, b=1):
                    self = super().__new__(cls)
                    self.a = a, b
                    return self

            class Mixin:
                def __init__(self, *a, **k):
                    self.mixed = True
                    super().__init__(*a, **k)

            class Base:
                pass

            class Child(Base, Mixin):
                pass

            class Init:
                "doc"
                def __init__(self, x: int, y=2) -> None:
                    "init doc"
                    self.x = x

            for args in ((), (1,)):
                try:
                    print("plain", type(Plain(*args)).__name__)
                except TypeError:
                    print("TypeError")
            print(New(1, b=3).a, Child().mixed, inspect.signature(Init), Init.__init__.__doc__)
            print(Init.__init__.__qualname__, Init.__name__, Init.__doc__, Init(5).x)
            print(pickle.loads(pickle.dumps(Init(4))).x, copy.copy(Init(3)).x, sys.path)
            try:
                Init()
            except TypeError as error:
                print(error)
            """,
        )
        plain = dict(os.environ)
        plain.pop("PYTHONPATH", None)
        expected = self.run_plain(file, **plain)
        target = ",".join(f"*:{name}" for name in ("Plain", "New", "Base", "Mixin", "Init"))
        seen = self.run_plain(file, **self.environment(target))
        self.assertEqual(seen.stdout, expected.stdout)
        self.assertEqual(seen.stderr, expected.stderr)
        self.assertEqual(seen.returncode, 0)

    def test_several_classes_and_instances(self):
        file = self.write(
            "daemon.py",
            STATUS + """
class Other:
    def report(self):
        return {"other": 1}

a, b, c = DaemonRunner("a"), DaemonRunner("b"), Other()
print("ready", flush=True)
sys.stdin.readline()
del b
print("ready", flush=True)
sys.stdin.readline()
""",
        )
        process = self.start(file, target="__main__:DaemonRunner, *:Other.report")
        found = [(i["class"], i["status"]) for i in self.poll(process)["instances"]]
        self.assertEqual([name for name, _ in found], ["DaemonRunner", "DaemonRunner", "Other"])
        self.assertEqual(found[2][1], {"other": 1})
        process.stdin.write("\n")
        process.stdin.flush()
        self.assertEqual(process.stdout.readline(), "ready\n")
        self.assertEqual(len(self.poll(process)["instances"]), 2)  # not kept alive by the shim

    # -- answers

    def test_strict_json_for_every_value(self):
        file = self.write(
            "daemon.py",
            """
            import sys, enum, decimal, datetime, dataclasses, collections, uuid
            utc = datetime.timezone.utc
            class Side(enum.Enum):
                BUY = "buy"
            class Level(enum.IntEnum):
                HIGH = 3
            @dataclasses.dataclass
            class Part:
                x: float
            class Number:
                def item(self):
                    return 7
            Point = collections.namedtuple("Point", "a b")
            class DaemonRunner:
                def get_status(self):
                    cycle = []
                    cycle.append(cycle)
                    return {
                        "nan": float("nan"), "inf": float("inf"), "minus": -float("inf"),
                        "decimal": decimal.Decimal("1.5"), "bad": decimal.Decimal("NaN"),
                        "aware": datetime.datetime(2026, 1, 2, 3, 4, 5, 6, utc),
                        "naive": datetime.datetime(2026, 1, 2), "delta": datetime.timedelta(seconds=2),
                        "enum": Side.BUY, "level": Level.HIGH, "set": {1}, "tuple": (1, 2),
                        "big": 2**70, "u64": 2**64 - 1, "low": -2**63, "part": Part(2.0),
                        "point": Point(1, 2), "numpy": Number(), "bytes": b"ab\\xff",
                        "surrogate": "a\\ud800b", "error": ValueError("x"), Side.BUY: 1, 5: 2,
                        "cycle": cycle, "many": list(range(100000)), "long": "x" * 100000,
                        "uuid": uuid.UUID(int=1), "true": True, "none": None,
                    }
            runner = DaemonRunner()
            print("ready", flush=True)
            sys.stdin.readline()
            """,
        )
        status = self.only(self.poll(self.start(file)))["status"]
        for name in ("nan", "inf", "minus", "bad", "none"):
            self.assertIsNone(status[name], name)
        expected = {
            "decimal": 1.5, "aware": "2026-01-02T03:04:05.000006+00:00", "delta": 2.0,
            "enum": "buy", "level": 3, "set": [1], "tuple": [1, 2], "big": str(2**70),
            "u64": 2**64 - 1, "low": -(2**63), "part": {"x": 2.0}, "point": {"a": 1, "b": 2},
            "numpy": 7, "bytes": "ab\ufffd", "surrogate": "a?b", "error": "ValueError: x",
            "buy": 1, "5": 2, "uuid": "00000000-0000-0000-0000-000000000001", "true": True,
        }
        self.assertEqual({name: status[name] for name in expected}, expected)
        self.assertRegex(status["naive"], r"^2026-01-02T00:00:00[+-]\d\d:\d\d$")
        self.assertLess(len(json.dumps(status)), 300_000)

    def test_an_exception_is_the_error_of_its_instance(self):
        file = self.write(
            "daemon.py",
            """
            import sys
            class Bad(Exception):
                def __str__(self):
                    raise RuntimeError
            class DaemonRunner:
                def __init__(self, raises): self.raises = raises
                def get_status(self):
                    if self.raises: raise self.raises
                    return {"fetch_count": 1}
            class Exits:
                def get_status(self): sys.exit(3)
            class Slots:
                __slots__ = ()
                def get_status(self): return {}
            class NoDict:
                def get_status(self): return 5
            a = DaemonRunner(KeyError("x")), DaemonRunner(Bad()), DaemonRunner(None)
            b = Exits(), Slots(), NoDict()
            print("ready", flush=True)
            sys.stdin.readline()
            sys.exit(7)
            """,
        )
        target = "*:DaemonRunner,*:Exits,*:Slots,*:NoDict"
        process = self.start(file, target=target)
        instances = self.poll(process)["instances"]
        errors = [instance.get("error") for instance in instances]
        self.assertEqual(errors[:4], ["KeyError: 'x'", "Bad", None, "SystemExit: 3"])
        self.assertIn("__weakref__", errors[4])
        self.assertIn("gave no dict: 5", errors[5])
        self.assertEqual(self.end(process)[0], 7)

    def test_a_missing_adapter_says_so(self):
        file = self.write("daemon.py", STATUS + "runner = DaemonRunner()\n" + READY)
        process = self.start(file, target="__main__:DaemonRunner@other-kind")
        error = self.only(self.poll(process))["error"]
        self.assertIn("no adapter 'other_kind'", error)

    def test_async_status_runs_on_the_daemons_loop(self):
        file = self.write(
            "daemon.py",
            """
            import asyncio, sys, threading
            class DaemonRunner:
                async def get_status(self):
                    await asyncio.sleep(0)
                    main = threading.current_thread() is threading.main_thread()
                    return {"main": main, "threads": threading.active_count()}
            async def main():
                runner = DaemonRunner()
                print("ready", flush=True)
                await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
            asyncio.run(main())
            """,
        )
        document = self.poll(self.start(file))
        status = self.only(document)["status"]
        self.assertEqual(status, {"main": True, "threads": 2})  # main and the executor: not ours
        self.assertGreaterEqual(document["event_loop_lag_ms"], 0)
        self.assertLess(document["event_loop_lag_ms"], 500)

    def test_async_status_without_a_loop_is_an_error(self):
        file = self.write(
            "daemon.py",
            "import sys\nclass DaemonRunner:\n    async def get_status(self): return {}\n"
            "runner = DaemonRunner()\n" + READY,
        )
        process = self.start(file)
        document = self.poll(process)
        self.assertIn("needs a running asyncio loop", self.only(document)["error"])
        self.assertIsNone(document["event_loop_lag_ms"])
        self.assertEqual(self.end(process)[2], "")  # no "was never awaited"

    BLOCKED = """
import asyncio, sys, time
class DaemonRunner:
    %s def get_status(self):
        return {"fetch_count": 1}
runner = DaemonRunner()
async def main():
    await asyncio.sleep(0)
    print("ready", flush=True)
    end = time.monotonic() + 2.5
    while time.monotonic() < end:
        time.sleep(0.01)
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
asyncio.run(main())
"""

    def test_answers_while_the_event_loop_is_blocked(self):
        # The instance is older than the loop, which has to be found too.
        file = self.write("daemon.py", self.BLOCKED % "")
        process = self.start(file)
        started = time.monotonic()
        first = self.poll(process, limit_ms=500)
        self.assertLess(time.monotonic() - started, 1.0)
        self.assertEqual(self.only(first)["status"], {"fetch_count": 1})
        self.assertEqual(first["event_loop_lag_ms"], -1)
        second = self.poll(process)
        self.assertEqual(second["event_loop_lag_ms"], -1)
        self.assertGreater(second["event_loop_blocked_ms"], first["event_loop_blocked_ms"])
        self.assertGreaterEqual(second["event_loop_blocked_ms"], 1000)
        self.assertEqual(process.stdout.readline(), "ready\n")
        third = self.poll(process)  # how long it was blocked
        self.assertGreater(third["event_loop_lag_ms"], 1000)
        self.assertNotIn("event_loop_blocked_ms", third)
        self.assertLess(self.poll(process)["event_loop_lag_ms"], 500)

    def test_async_status_while_the_event_loop_is_blocked(self):
        file = self.write("daemon.py", self.BLOCKED % "async")
        document = self.poll(self.start(file), limit_ms=500)
        self.assertIn("event loop blocked", self.only(document)["error"])
        self.assertEqual(document["event_loop_lag_ms"], -1)

    # -- the socket

    def test_only_the_owner_may_use_the_socket(self):
        file = self.write("daemon.py", STATUS + "runner = DaemonRunner()\n" + READY)
        process = self.start(file)
        self.assertEqual(stat.S_IMODE(self.socket_of(process.pid).lstat().st_mode), 0o600)
        self.assertEqual(stat.S_IMODE(self.run_dir.stat().st_mode), 0o700)

    def test_request_limits(self):
        file = self.write("daemon.py", STATUS + "runner = DaemonRunner()\n" + READY)
        process = self.start(file)
        path = self.socket_of(process.pid)
        for text, code in (
            ("GET /status HTTP/1.1\r\nx: " + "y" * 20000 + "\r\n\r\n", "431"),
            ("POST /status HTTP/1.1\r\n\r\n", "405"),
            ("GET /etc HTTP/1.1\r\n\r\n", "404"),
            ("hello\r\n\r\n", "400"),
        ):
            with self.subTest(code):
                try:
                    head, _ = self.request(path, text)
                except (BrokenPipeError, ConnectionResetError):
                    self.assertEqual(code, "431")  # hung up on in the middle of the request
                else:
                    self.assertTrue(head.startswith(f"HTTP/1.1 {code} "), head)
        with socket.socket(socket.AF_UNIX) as silent:
            silent.connect(str(path))
            started = time.monotonic()
            self.check_found(process)
            self.assertLess(time.monotonic() - started, 5)

    def test_requests_that_were_given_up_are_not_answered(self):
        file = self.write(
            "daemon.py",
            """
            import sys, time
            class DaemonRunner:
                calls, slow = 0, True
                def get_status(self):
                    self.calls += 1
                    if self.slow:
                        time.sleep(0.5)
                    return {"calls": self.calls}
            runner = DaemonRunner()
            print("ready", flush=True)
            sys.stdin.readline()
            """,
        )
        process = self.start(file)
        path = self.socket_of(process.pid)
        for _ in range(5):
            with socket.socket(socket.AF_UNIX) as hasty:
                hasty.connect(str(path))
                hasty.sendall(b"GET /status HTTP/1.1\r\n\r\n")
        self.assertLess(self.only(self.poll(process))["status"]["calls"], 4)

    def test_the_socket_goes_with_the_process(self):
        file = self.write("daemon.py", STATUS + "runner = DaemonRunner()\n" + READY)
        process = self.start(file)
        self.assertEqual(len(self.sockets()), 1)
        self.assertEqual(self.end(process), (0, "", ""))
        self.assertEqual(self.sockets(), [])

    def test_sigkill_leaves_a_stale_socket_that_is_replaced(self):
        file = self.write("daemon.py", STATUS + "runner = DaemonRunner()\n" + READY)
        fixed = str(self.folder / "fixed.sock")
        process = self.start(file, PERISCOPE_SOCKET=fixed)
        process.kill()
        process.wait()
        self.assertTrue(os.path.exists(fixed))
        with socket.socket(socket.AF_UNIX) as connection:
            self.assertRaises(ConnectionRefusedError, connection.connect, fixed)
        self.start(file, PERISCOPE_SOCKET=fixed)
        head, _ = self.request(fixed, "GET /status HTTP/1.1\r\n\r\n")
        self.assertTrue(head.startswith("HTTP/1.1 200 "), head)

    def test_a_file_that_is_no_socket_is_never_removed(self):
        file = self.write("daemon.py", STATUS + "runner = DaemonRunner()\n" + READY)
        precious = self.write("precious", "data")
        process = self.start(file, PERISCOPE_SOCKET=str(precious))
        self.assertEqual(self.end(process)[0], 0)
        self.assertEqual(precious.read_text(), "data")

    def test_fork(self):
        file = self.write(
            "daemon.py",
            STATUS + """
import os
runner = DaemonRunner("parent")
def child():
    print("child", os.getpid(), flush=True)
    if sys.stdin.readline() == "instance\\n":
        globals()["second"] = DaemonRunner("child")
        print("made", flush=True)
        sys.stdin.readline()
    sys.exit(0)
print("ready", flush=True)
if os.fork() == 0:
    child()
os.wait()
print("ended", flush=True)
sys.stdin.readline()
""",
        )
        process = self.start(file)
        child = int(process.stdout.readline().split()[1])
        self.assertEqual(len(self.sockets()), 1)
        self.assertEqual(self.only(self.poll(process))["status"]["name"], "parent")
        process.stdin.write("instance\n")
        process.stdin.flush()
        self.assertEqual(process.stdout.readline(), "made\n")
        self.assertEqual(self.only(self.poll(child))["status"]["name"], "child")
        self.assertEqual(self.only(self.poll(process))["status"]["name"], "parent")
        process.stdin.write("\n")
        process.stdin.flush()
        self.assertEqual(process.stdout.readline(), "ended\n")
        # The child took its own socket away, not its parent's.
        self.assertEqual(self.only(self.poll(process))["status"]["name"], "parent")
        self.assertEqual(len(self.sockets()), 1)

    def test_a_dead_parent_does_not_look_alive_through_its_child(self):
        file = self.write(
            "daemon.py",
            STATUS + """
import os
runner = DaemonRunner()
if os.fork() == 0:
    print("ready", os.getpid(), flush=True)
    time.sleep(60)
sys.stdin.readline()
os.kill(os.getpid(), 9)
""",
        )
        process = self.start(file, ready=False)
        child = int(process.stdout.readline().split()[1])
        self.addCleanup(os.kill, child, signal.SIGKILL)
        path = self.socket_of(process.pid)
        process.stdin.write("\n")
        process.stdin.flush()
        process.wait(WAIT_SECONDS)
        with socket.socket(socket.AF_UNIX) as connection:
            self.assertRaises(ConnectionRefusedError, connection.connect, str(path))

    # -- the daemon is as it was

    def test_output_and_exit_code_are_unchanged(self):
        file = self.write(
            "daemon.py",
            STATUS + """
import threading
runner = DaemonRunner()
print("out", threading.active_count(), len(threading.enumerate()))
print("err", file=sys.stderr)
if sys.argv[1] == "raise":
    raise ValueError("boom")
sys.exit(int(sys.argv[1]))
""",
        )
        plain = dict(os.environ)
        plain.pop("PYTHONPATH", None)
        for argument in ("0", "5", "raise"):
            with self.subTest(argument):
                expected = self.run_plain(file, argument, **plain)
                seen = self.run_plain(file, argument, **self.environment("*:DaemonRunner"))
                self.assertEqual(
                    (seen.returncode, seen.stdout, seen.stderr),
                    (expected.returncode, expected.stdout, expected.stderr),
                )
        self.assertEqual(self.sockets(), [])

    def test_nothing_of_ours_can_break_the_daemon(self):
        file = self.write("daemon.py", STATUS + "runner = DaemonRunner()\n" + READY)
        (self.folder / "file").write_text("")
        for more in (
            {"PERISCOPE_SOCKET": "/proc/none/"},
            {"PERISCOPE_SOCKET": str(self.folder / "file") + "/"},
            {"PERISCOPE_SOCKET": str(self.folder / ("x" * 200)) + "/"},
            {"PERISCOPE_SOCKET": ""},
            {"PERISCOPE_TARGET": "::,@,*"},
            {"PERISCOPE_TARGET": "nothing"},
        ):
            with self.subTest(more):
                self.assertEqual(self.end(self.start(file, **more)), (0, "", ""))
        (self.shim / "_periscope_shim.py").write_text("raise SystemExit(9)")
        self.assertEqual(self.end(self.start(file)), (0, "", ""))

    def test_signals_act_as_before(self):
        file = self.write(
            "daemon.py",
            STATUS + """
import signal
runner = DaemonRunner()
if "handler" in sys.argv:
    signal.signal(signal.SIGINT, lambda *a: sys.exit(42))
print("ready", flush=True)
time.sleep(60)
""",
        )
        for argument, number, code in (
            ("none", signal.SIGTERM, -signal.SIGTERM),
            ("none", signal.SIGINT, -signal.SIGINT),
            ("handler", signal.SIGINT, 42),
        ):
            with self.subTest(argument=argument, number=number):
                process = self.start(file, argument)
                self.check_found(process)
                started = time.monotonic()
                process.send_signal(number)
                self.assertEqual(process.wait(WAIT_SECONDS), code)
                # Not after the sleep: the signal reached the main thread.
                self.assertLess(time.monotonic() - started, 10)

    def test_chains_to_the_sitecustomize_that_it_hides(self):
        self.write("site/sitecustomize.py", "import sys\nsys.chained = __name__\n")
        file = self.write(
            "daemon.py", STATUS + "import sitecustomize\nprint(sys.chained, sitecustomize.__file__)\n"
        )
        environment = self.environment("*:DaemonRunner")
        environment["PYTHONPATH"] += f"{os.pathsep}{self.folder}/app/site"
        seen = self.run_plain(file, **environment)
        out = f"sitecustomize {self.folder}/app/site/sitecustomize.py\n"
        self.assertEqual((seen.stdout.decode(), seen.stderr), (out, b""))
        self.write("site/sitecustomize.py", "raise ValueError('theirs')\n")
        plain = dict(environment, PYTHONPATH=f"{self.folder}/app/site")
        file = self.write("daemon.py", "print(1)\n")
        expected, seen = self.run_plain(file, **plain), self.run_plain(file, **environment)
        self.assertEqual((seen.stdout, seen.stderr), (expected.stdout, expected.stderr))

    def test_imports_nothing_before_the_first_instance(self):
        file = self.write(
            "daemon.py", "import sys\nprint(sorted(m for m in sys.modules if 'customize' not in m))\n"
        )
        plain = dict(os.environ)
        plain.pop("PYTHONPATH", None)
        expected = set(json.loads(self.run_plain(file, **plain).stdout.decode().replace("'", '"')))
        seen = self.run_plain(file, **self.environment("*:DaemonRunner")).stdout.decode()
        more = set(json.loads(seen.replace("'", '"'))) - expected
        self.assertEqual(more, {"_periscope_shim"})

    def test_only_the_shims_own_bytecode_is_written_where_that_is_forbidden(self):
        self.write("other.py", "")
        file = self.write("daemon.py", "import other, sys\nprint(sys.dont_write_bytecode)\n")
        environment = self.environment("*:DaemonRunner", PYTHONDONTWRITEBYTECODE="1")
        self.assertEqual(self.run_plain(file, **environment).stdout, b"True\n")
        self.assertTrue(list(self.shim.glob("__pycache__/_periscope_shim.*.pyc")))
        self.assertFalse(list((self.folder / "app").glob("__pycache__/*")))

    def test_a_process_without_an_instance_has_no_socket(self):
        file = self.write("daemon.py", STATUS + READY)
        self.start(file)
        self.assertEqual(self.sockets(), [])

    def test_a_process_without_a_target_is_left_alone(self):
        file = self.write("daemon.py", "import sys\nprint('_periscope_shim' in sys.modules)\n")
        environment = self.environment("")
        self.assertEqual(self.run_plain(file, **environment).stdout, b"False\n")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        unittest.main()
