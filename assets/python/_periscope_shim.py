"""periscope's status shim: answers `GET /status` on a unix socket with what the daemon's own status
method says. Standard library only, CPython 3.9 and newer.

The daemon comes first: nothing in here raises into it, prints, imports anything before the first
instance of a target class is born, or touches its signals, threads and exit code. One thing can be
seen: from then on the process has one thread more, which CPython 3.12 and newer mention (a
DeprecationWarning on stderr) when the program's main module itself calls os.fork().

Environment, set by `periscope run`:
  PERISCOPE_TARGET  module:Class[.method][@adapter], several by comma; module `__main__` is the
                    script itself, `*` is any module; method is get_status unless said otherwise
  PERISCOPE_NAME    name of the daemon
  PERISCOPE_SOCKET  folder for the socket NAME-PID.sock, ending in `/`; or the path of the socket
  PERISCOPE_LISTEN  address and port on loopback, 127.0.0.1:9200, beside the socket or instead of it:
                    for a daemon whose file system periscope does not share
  PERISCOPE_DEBUG   1: says on stderr what it does
"""

import _thread
import builtins
import os
import sys
import time
from _weakref import ref as _ref

SCHEMA = 1
VERSION = "1"

# Bounds: nobody but periscope talks to the socket, but a mistake must stay small.
MAX_INSTANCES = 64
MAX_REQUEST_BYTES = 8192
MAX_DEPTH = 16
MAX_ITEMS = 1_000
MAX_NODES = 20_000
MAX_TEXT = 16_384
READ_SECONDS = 1.0
LAG_SECONDS = 1.0
DEFAULT_LIMIT_SECONDS = 2.0
# How long after its birth an instance may fail without being reported: its subclass may still be
# in the middle of __init__.
BIRTH_SECONDS = 1.0

_started = time.time()
_lock = _thread.RLock()
_targets = []  # of _Target
_instances = []  # of _Instance
_loops = []  # weak references to event loops seen
_ping = None  # the _Ping on its way through an event loop
_server = None  # [(listening socket, path of its file or None)]
_build_class = builtins.__build_class__


def _debug(text):
    if os.environ.get("PERISCOPE_DEBUG") == "1":
        try:
            sys.stderr.write("periscope shim %d: %s\n" % (os.getpid(), text))
        except Exception:
            pass


# ------------------------------------------------------------------------------------- targets


class _Target:
    """One `module:Class[.method][@adapter]`."""

    def __init__(self, text):
        module, _, rest = text.partition(":")
        rest, _, self.adapter = rest.partition("@")
        name, _, method = rest.partition(".")
        self.module, self.name, self.method = module.strip(), name.strip(), method.strip()
        self.method = self.method or "get_status"

    def matches(self, cls):
        """Whether `cls` is the class, also when its module was started as the main program."""
        if cls.__name__ != self.name:
            return False
        if self.module in ("*", cls.__module__):
            return True
        return cls.__module__ == "__main__" and self.module in _main_names()


def _main_names():
    """Names under which the main program could be imported."""
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None:  # python -m package.module
        name = spec.name
        return (name, name[: -len(".__main__")] if name.endswith(".__main__") else name)
    path = getattr(main, "__file__", None)  # python path/to/daemon.py
    if not path:
        return ()
    parts = os.path.splitext(os.path.abspath(path))[0].split(os.sep)
    return tuple(".".join(parts[start:]) for start in range(len(parts)))


# ------------------------------------------------------------------------------------- hooks


def _hook(cls, target):
    """Makes `cls` report its instances.

    Only `__new__` is replaced now: a decorator such as @dataclass may still set `__init__`, or
    copy the class. The first instance finds the class complete and replaces `__init__`.
    """
    if "__periscope__" in cls.__dict__:
        return
    own = cls.__dict__.get("__new__")
    own = getattr(own, "__func__", own)

    def __new__(new_cls, *args, **kwargs):
        hooked = cls
        try:
            for base in new_cls.__mro__:
                if base.__dict__.get("__new__") is static:
                    hooked = base
                    break
            if _wrap_init(hooked, target) and own is None:
                _show_init(__new__, hooked)
        except BaseException as error:
            _debug("wrap %s: %r" % (cls, error))
        if own is not None:
            return own(new_cls, *args, **kwargs)
        following = super(hooked, new_cls).__new__
        if following is object.__new__:
            return following(new_cls)  # arguments are for __init__, which checks them
        return following(new_cls, *args, **kwargs)

    if own is not None:
        _imitate(__new__, own)
    else:
        _show_init(__new__, cls)
    __new__.__periscope__ = own is not None
    static = staticmethod(__new__)
    cls.__new__ = static
    cls.__periscope__ = True
    _debug("hooked %s.%s" % (cls.__module__, cls.__qualname__))


def _wrap_init(cls, target):
    """Makes `cls.__init__` report; returns whether there was something to do."""
    own = cls.__dict__.get("__init__")
    if getattr(own, "__periscope__", False):
        return False

    def __init__(self, *args, **kwargs):
        if own is not None:
            own(self, *args, **kwargs)
        else:
            following = super(cls, self).__init__
            if getattr(following, "__objclass__", None) is object:
                # object.__init__ would refuse arguments that a __new__ of the class has taken.
                if (args or kwargs) and not _has_own_new(type(self)):
                    raise TypeError("%s() takes no arguments" % type(self).__name__)
            else:
                following(*args, **kwargs)
        _born(self, target)

    if own is not None:
        _imitate(__init__, own)
    __init__.__periscope__ = True
    cls.__init__ = __init__
    return True


def _show_init(new, cls):
    """Lets inspect.signature(cls), which looks at `__new__` first, see that of `__init__`."""
    init = cls.__init__
    new.__wrapped__ = (lambda self: None) if init is object.__init__ else init


def _has_own_new(cls):
    for base in cls.__mro__:
        new = base.__dict__.get("__new__")
        if new is not None and base is not object:
            new = getattr(new, "__func__", new)
            if getattr(new, "__periscope__", True):
                return True
    return False


def _imitate(wrapper, original):
    """Gives `wrapper` the names and the signature of `original`."""
    for name in ("__module__", "__name__", "__qualname__", "__doc__"):
        try:
            setattr(wrapper, name, getattr(original, name))
        except (AttributeError, TypeError):
            pass
    wrapper.__wrapped__ = original


def _watching_build_class(func, name, *bases, **keywords):
    cls = _build_class(func, name, *bases, **keywords)
    try:
        for target in _targets:
            if name == target.name and isinstance(cls, type) and target.matches(cls):
                _hook(cls, target)
    except BaseException as error:
        _debug("class %s: %r" % (name, error))
    return cls


class _Finder:
    """Looks at target modules once they are imported: finds classes that are only re-exported."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if not any(name == wanted.module for wanted in _targets):
            return None
        for finder in sys.meta_path:
            if finder is _Finder or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                try:
                    _watch_loader(spec.loader)
                except BaseException as error:
                    _debug("module %s: %r" % (name, error))
                return spec
        return None


def _watch_loader(loader):
    execute = loader.exec_module

    def exec_module(module):
        try:
            del loader.exec_module
        except AttributeError:
            pass
        execute(module)
        try:
            _look_at(module)
        except BaseException as error:
            _debug("module %s: %r" % (module, error))

    loader.exec_module = exec_module


def _look_at(module):
    for target in _targets:
        if target.module == module.__name__:
            cls = getattr(module, target.name, None)
            if isinstance(cls, type):
                _hook(cls, target)
            else:
                _debug("%s has no class %s" % (target.module, target.name))


def install():
    """Hooks the targets of this process. Called once, before the program's first line."""
    if _targets:
        return  # by both ways: the folder on PYTHONPATH and the virtual environment's .pth file
    text = os.environ.get("PERISCOPE_TARGET", "")
    _targets.extend(_Target(part) for part in text.split(",") if part.strip())
    if not _targets:
        return
    builtins.__build_class__ = _watching_build_class
    sys.meta_path.insert(0, _Finder)
    os.register_at_fork(after_in_child=_after_fork)


def _after_fork():
    """A forked child starts empty: it gets a socket of its own when it makes an instance."""
    global _lock, _server, _ping
    _lock = _thread.RLock()  # the parent's server thread may have held the old one
    listeners, _server, _ping = _server, None, None
    del _instances[:]
    del _loops[:]
    for listener, _ in listeners or ():
        try:
            listener.close()  # else a dead parent would look alive through the child
        except BaseException:
            pass


# ------------------------------------------------------------------------------------- instances


class _Instance:
    """One living object of a target class."""

    def __init__(self, obj, target):
        self.target, self.module, self.name = target, type(obj).__module__, type(obj).__name__
        self.id, self.born = "%x" % id(obj), time.monotonic()
        self.answered, self.failure = False, None
        try:
            self.get = _ref(obj)
        except TypeError:
            # A strong reference would keep the object from its end.
            self.get = None
            self.failure = "cannot be observed: its class has __slots__ without __weakref__"

    def alive(self):
        return self.get is None or self.get() is not None


def _born(obj, target):
    try:
        with _lock:
            _instances[:] = [known for known in _instances if known.alive()]
            if any(known.get is not None and known.get() is obj for known in _instances):
                return  # a subclass of a hooked class is hooked twice
            if len(_instances) >= MAX_INSTANCES:
                _debug("more than %d instances" % MAX_INSTANCES)
                return
            _instances.append(_Instance(obj, target))
        _remember_loop()
        if target.adapter:
            _attach(obj, target)
        _serve()
    except BaseException as error:
        _debug("instance: %r" % (error,))


def _attach(obj, target):
    """Lets the adapter see the object at its birth: some of them count from there on."""
    try:
        attach = getattr(_adapter(target.adapter), "attach", None)
        if attach is not None:
            attach(obj)
    except BaseException as error:  # its status says the same when it is asked for
        _debug("adapter %s: %r" % (target.adapter, error))


def _remember_loop():
    current = getattr(sys.modules.get("asyncio"), "_get_running_loop", None)
    if current is not None:
        _add_loop(current())


def _add_loop(loop):
    if loop is not None:
        with _lock:
            _loops[:] = [known for known in _loops if known() is not None]
            if not any(known() is loop for known in _loops):
                _loops.append(_ref(loop))


def _running_loop():
    """Returns the daemon's running event loop, or None."""
    if "asyncio" not in sys.modules:
        return None
    for known in reversed(list(_loops)):
        loop = known()
        if loop is not None and loop.is_running():
            return loop
    _add_loop(_loop_of_frames())
    loop = _loops[-1]() if _loops else None
    return loop if loop is not None and loop.is_running() else None


def _loop_of_frames():
    """Finds a running loop in the stacks of the other threads.

    For objects made before asyncio.run(). Only frames of asyncio itself are looked into.
    """
    for frame in list(sys._current_frames().values()):
        while frame is not None:
            file = frame.f_code.co_filename
            if file.endswith(("asyncio/runners.py", "asyncio/base_events.py")):
                for name in ("self", "loop"):
                    found = frame.f_locals.get(name)
                    found = getattr(found, "_loop", None) or found
                    if hasattr(found, "call_soon_threadsafe") and found.is_running():
                        return found
            frame = frame.f_back
    return None


# ------------------------------------------------------------------------------------- sampling


class _Ping:
    """A callback sent through an event loop; its way takes as long as the loop is busy."""

    def __init__(self, loop):
        self.sent, self.came, self.loop = time.perf_counter(), None, _ref(loop)
        self.wait = _thread.allocate_lock()
        self.wait.acquire()
        loop.call_soon_threadsafe(self._arrive)

    def _arrive(self):
        self.came = time.perf_counter()
        self.wait.release()


def _send_ping():
    global _ping
    loop = _running_loop()
    if loop is None:
        _ping = None
    elif _ping is None or _ping.loop() is not loop:
        # One that is still on its way is kept: its age says how long the loop is blocked.
        try:
            _ping = _Ping(loop)
        except RuntimeError:  # closed in between
            _ping = None


def _lag(deadline):
    """Returns (lag in ms, blocked for ms): (None, None) without a loop, (-1, age) while blocked."""
    global _ping
    ping = _ping
    if ping is None:
        return None, None
    now = time.perf_counter()
    # A ping of an earlier poll gets a moment too: the loop may be free again.
    wait = max(0.0, min(deadline - now, max(0.1, ping.sent + LAG_SECONDS - now)))
    if ping.wait.acquire(True, wait):
        _ping = None
        return round((ping.came - ping.sent) * 1e3, 3), None
    return -1, round((time.perf_counter() - ping.sent) * 1e3, 3)


def _status(obj, target, deadline):
    if target.adapter:
        return _adapted(obj, target.adapter, deadline)
    for attempt in (1, 2, 3):
        try:
            status = getattr(obj, target.method)()
            break
        except RuntimeError as error:
            # Read in the middle of the daemon's own change: "changed size during iteration".
            if attempt == 3 or "during iteration" not in str(error):
                raise
    if hasattr(status, "__await__"):
        status = _await(status, target.method, deadline, _running_loop())
    return status


def _adapted(obj, name, deadline):
    """The adapter's document. One with a `loop` is a coroutine for that loop, and for nothing else:
    while it does not run, the adapter tells what is safe to tell."""
    adapter = _adapter(name)
    find_loop = getattr(adapter, "loop", None)
    if find_loop is None:
        return adapter.status(obj)
    loop = find_loop(obj)
    if loop is None or not loop.is_running():
        return adapter.plain(obj)
    _add_loop(loop)
    return _await(adapter.status(obj), "@" + name, deadline, loop)


def _await(awaitable, method, deadline, loop):
    """Runs an awaitable on the daemon's own loop."""
    if loop is None:
        close = getattr(awaitable, "close", None)
        if close is not None:
            close()
        raise RuntimeError("async %s needs a running asyncio loop, there is none" % method)
    import asyncio

    async def run():
        return await awaitable

    future = asyncio.run_coroutine_threadsafe(run(), loop)
    wait = max(0.05, deadline - time.perf_counter())
    try:
        return future.result(wait)
    except BaseException:
        if future.done():
            raise
        future.cancel()
    raise TimeoutError("async %s gave no answer in %.1f s: event loop blocked" % (method, wait))


def _adapter(name):
    name = name.replace("-", "_")
    module = sys.modules.get("_periscope_" + name)
    if module is None:
        folder = os.path.dirname(os.path.abspath(__file__))
        path = os.path.join(folder, "_periscope_%s.py" % name)
        if not name.isidentifier() or not os.path.exists(path):
            raise LookupError(
                "there is no adapter %r in this version of periscope; "
                "leave out @%s to use the object's own status method" % (name, name)
            )
        from importlib.util import module_from_spec, spec_from_file_location

        spec = spec_from_file_location("_periscope_" + name, path)
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        sys.modules["_periscope_" + name] = module
    return module


def _sample(instance, deadline):
    """Returns the wire form of one instance; None when it is not to be shown."""
    obj = instance.get() if instance.get is not None else None
    if obj is None and instance.failure is None:
        return None
    target, before = instance.target, time.perf_counter()
    answer = {"module": instance.module, "class": instance.name, "id": instance.id}
    answer["method"] = "@" + target.adapter if target.adapter else target.method
    try:
        if instance.failure is not None:
            raise TypeError(instance.failure)
        status = _Cleaner().clean(_status(obj, target, deadline))
        if not isinstance(status, dict):
            raise TypeError("%s gave no dict: %.200r" % (answer["method"], status))
        answer["status"] = status
        instance.answered = True
    except BaseException as error:
        if not instance.answered and time.monotonic() - instance.born < BIRTH_SECONDS:
            if isinstance(error, AttributeError):
                return None
        answer["error"] = words(error)
    answer["call_ms"] = round((time.perf_counter() - before) * 1e3, 3)
    return answer


def words(error):
    try:
        return _text("%s: %s" % (type(error).__name__, error))
    except BaseException:  # its __str__ fails too
        return type(error).__name__


def _document(limit):
    import socket

    deadline = time.perf_counter() + limit
    _send_ping()  # first: it travels while the instances answer
    with _lock:
        _instances[:] = [known for known in _instances if known.alive()]
        known = list(_instances)
    samples = [_sample(instance, deadline) for instance in known]
    lag, blocked = _lag(deadline)
    document = {
        "schema": SCHEMA,
        "shim": VERSION,
        "name": _name(),
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "python": "%d.%d.%d" % sys.version_info[:3],
        "process_started": iso(_started),
        "sampled_at": iso(time.time()),
        "event_loop_lag_ms": lag,
        "threads": len(sys._current_frames()) - 1,
        "instances": [sample for sample in samples if sample is not None],
    }
    if blocked is not None:
        document["event_loop_blocked_ms"] = blocked
    return document


def _name():
    name = os.environ.get("PERISCOPE_NAME") or _targets[0].module.rpartition(".")[2]
    return name.replace("/", "_").replace("\0", "_")


def iso(seconds):
    """Returns seconds since 1970 as text."""
    whole = int(seconds)
    return iso_parts(whole, int((seconds - whole) * 1e6))


def iso_parts(whole, micros):
    return "%s.%06d+00:00" % (time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)), micros)


# ------------------------------------------------------------------------------------- strict JSON


def _text(text):
    if len(text) > MAX_TEXT:
        text = text[:MAX_TEXT] + "…"
    # Lone surrogates are no Unicode text and no valid JSON.
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


class _Cleaner:
    """Turns any value into strict JSON: no NaN, no objects, times with zone, bounded size.

    Types of modules that the daemon has not imported cannot occur and are not imported here.
    """

    def __init__(self):
        self.nodes = 0

    def clean(self, value, depth=0):
        self.nodes += 1
        if self.nodes > MAX_NODES or depth > MAX_DEPTH:
            return None
        if value is None or value is True or value is False:
            return value
        if self._is(value, "enum", "Enum"):
            return self.clean(value.value, depth + 1)
        if isinstance(value, str):
            return _text(str(value))
        if isinstance(value, int):
            value = int(value)
            return value if -(2**63) <= value < 2**64 else str(value)
        if isinstance(value, float):
            return float(value) if value - value == 0 else None
        if isinstance(value, dict):
            return self._object(value.items(), depth)
        if isinstance(value, (list, tuple, set, frozenset)) and not hasattr(value, "_asdict"):
            return [self.clean(item, depth + 1) for item in list(value)[:MAX_ITEMS]]
        return self._other(value, depth)

    def _other(self, value, depth):
        if self._is(value, "decimal", "Decimal"):
            return float(value) if value.is_finite() else None
        if self._is(value, "datetime", "datetime"):
            if value != value:  # pandas' "not a time"
                return None
            return (value if value.tzinfo is not None else value.astimezone()).isoformat()
        if self._is(value, "datetime", "date") or self._is(value, "datetime", "time"):
            return value.isoformat()
        if self._is(value, "datetime", "timedelta"):
            return value.total_seconds()
        if isinstance(value, BaseException):
            return words(value)
        if isinstance(value, (bytes, bytearray)):
            return _text(bytes(value[:MAX_TEXT]).decode("utf-8", "replace"))
        fields = getattr(type(value), "__dataclass_fields__", None)
        if fields is not None:
            return self._object(((name, getattr(value, name, None)) for name in fields), depth)
        if not isinstance(value, type):
            for name in ("model_dump", "to_dict", "_asdict", "item"):
                convert = getattr(value, name, None)
                if callable(convert):
                    return self.clean(convert(), depth + 1)
            if hasattr(type(value), "keys") and hasattr(type(value), "__getitem__"):
                return self._object(((key, value[key]) for key in value.keys()), depth)
        return _text(str(value))

    def _object(self, items, depth):
        cleaned = {}
        for key, item in list(items)[:MAX_ITEMS]:
            if self._is(key, "enum", "Enum"):
                key = key.value
            cleaned[_text(str(key))] = self.clean(item, depth + 1)
        return cleaned

    @staticmethod
    def _is(value, module, name):
        cls = getattr(sys.modules.get(module), name, None)
        return cls is not None and isinstance(value, cls)


# ------------------------------------------------------------------------------------- server


def _serve():
    """Opens socket and port; once, when the first instance is born."""
    global _server
    with _lock:
        if _server:
            return
        _server = []
        for name, open_listener in (("SOCKET", _open_socket), ("LISTEN", _open_port)):
            where = os.environ.get("PERISCOPE_" + name, "")
            if not where:
                continue
            try:
                listener, path = open_listener(where)
            except BaseException as error:  # the other way may still do
                _debug("PERISCOPE_%s=%s: %r" % (name, where, error))
                continue
            _server.append((listener, path))
            # Not threading.Thread: a daemon that counts or joins its threads must not meet this one.
            _thread.start_new_thread(_accept, (listener,))
            _debug("answers at %s" % where)


def _open_port(where):
    """Listens on loopback only: what is told there is told to every user of the machine."""
    import socket

    host, _, port = where.rpartition(":")
    host = host.strip("[]")
    if not _is_loopback(host):
        raise ValueError("not a loopback address; write 127.0.0.1:PORT")
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, int(port)))
        listener.listen(8)
    except BaseException:
        listener.close()
        raise
    return listener, None


def _is_loopback(host):
    parts = host.split(".")
    return host in ("::1", "localhost") or (
        len(parts) == 4 and parts[0] == "127" and all(part.isdigit() for part in parts)
    )


def _open_socket(where):
    import atexit
    import socket

    path = _socket_path(where)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Linux takes the socket file's mode from here: never open to others, not for a moment,
        # and without umask(), which would be seen by every thread.
        os.fchmod(listener.fileno(), 0o600)
        _remove_socket(path)
        listener.bind(path)
        listener.listen(8)
    except BaseException:
        listener.close()
        raise
    atexit.register(_at_exit, os.getpid(), path)
    return listener, path


def _socket_path(path):
    if path.endswith("/"):
        os.makedirs(path, mode=0o700, exist_ok=True)
        path = os.path.join(path, "%s-%d.sock" % (_name(), os.getpid()))
    return path


def _remove_socket(path):
    try:
        if (os.lstat(path).st_mode & 0o170000) == 0o140000:  # a socket, and nothing else
            os.unlink(path)
    except FileNotFoundError:
        pass


def _at_exit(pid, path):
    try:
        if os.getpid() == pid:  # a forked child inherits this handler, not the socket
            _remove_socket(path)
    except BaseException:
        pass


def _accept(listener):
    """Answers one connection after another: a hanging status method costs one thread, not many."""
    try:
        import _signal

        # Signals are the main thread's: here they would not interrupt its sleep.
        _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
    except BaseException:
        pass
    while True:
        try:
            connection, _ = listener.accept()
        except BaseException:
            if not _server or listener.fileno() < 0:
                return
            time.sleep(1.0)  # no file descriptors left
            continue
        try:
            connection.settimeout(READ_SECONDS)
            _answer(connection)
        except BaseException as error:
            _debug("request: %r" % (error,))
        finally:
            try:
                connection.close()
            except BaseException:
                pass


def _answer(connection):
    status, document = _route(connection)
    if document is None:
        return
    import json

    body = json.dumps(document, allow_nan=False, separators=(",", ":")).encode("ascii")
    head = (
        "HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
        "connection: close\r\n\r\n" % (status, len(body))
    )
    connection.sendall(head.encode("ascii") + body)


def _route(connection):
    request = b""
    end = time.perf_counter() + READ_SECONDS
    while b"\r\n\r\n" not in request:
        if len(request) > MAX_REQUEST_BYTES:
            return "431 Request Header Fields Too Large", {"error": "request too large"}
        if time.perf_counter() > end:
            return None, None
        part = connection.recv(4096)
        if not part:
            return None, None
        request += part
    lines = request.split(b"\r\n\r\n", 1)[0].decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3:
        return "400 Bad Request", {"error": "no HTTP request"}
    if words[0] != "GET":
        return "405 Method Not Allowed", {"error": "only GET"}
    if words[1].partition("?")[0] not in ("/", "/status"):
        return "404 Not Found", {"error": "only /status"}
    if not _is_local(connection, _header(lines[1:], "host")):
        # A page in a browser of this machine could read it under a name that leads here.
        return "403 Forbidden", {"error": "ask by the address, not by a name"}
    if _gone(connection):
        return None, None
    return "200 OK", _document(_limit(lines[1:]))


def _limit(headers):
    """Returns how many seconds the answer may take: four fifths of what periscope waits."""
    try:
        milliseconds = float(_header(headers, "x-periscope-limit-ms"))
    except ValueError:
        return DEFAULT_LIMIT_SECONDS
    return min(max(milliseconds, 50.0), 10_000.0) * 0.8 / 1e3


def _header(headers, wanted):
    for line in headers:
        name, _, value = line.partition(":")
        if name.strip().lower() == wanted:
            return value.strip()
    return ""


def _is_local(connection, host):
    """Whether a Host header may be answered; on a unix socket it means nothing."""
    if isinstance(connection.getsockname(), str):
        return True
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    return not host or _is_loopback(name.strip("[]"))


def _gone(connection):
    """Whether the client has hung up: requests that waited behind a slow one are not answered."""
    import socket

    connection.settimeout(0)
    try:
        return connection.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    finally:
        connection.settimeout(READ_SECONDS)
