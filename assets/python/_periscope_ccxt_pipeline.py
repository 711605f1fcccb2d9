"""What a ccxt pipeline daemon's get_status() does not tell: the state of each venue, and records,
errors and latency of each symbol, read or counted from outside. No file of the daemon is changed.

Everything here looks at private attributes, which another version may not have: then the part that
needs them is left out and named, and the daemon's own status is told all the same.
"""

import functools
import sys
import time
import weakref

from _periscope_shim import iso, words

# Calls of a fetcher that are counted, and the kind of data that they fetch.
FETCHES = {"fetch_open_interest": "oi", "fetch_funding_rate": "funding"}
# Pipelines that are counted: venues times symbols times kinds.
MAX_PIPELINES = 1_000

_known = {}  # id of a runner -> (weak reference to it, _Counts)


class _Counts:
    """Counters of one runner."""

    def __init__(self):
        self.pipelines = {}  # (venue, symbol, kind) -> dict
        self.problems = {}  # part -> why it is left out

    def pipeline(self, venue, symbol, kind):
        key = (str(venue).lower(), str(symbol), kind)
        pipeline = self.pipelines.get(key)
        if pipeline is None:
            pipeline = {"records": 0, "errors": 0, "latency_ms": None, "last_ok": None}
            if len(self.pipelines) < MAX_PIPELINES:
                self.pipelines[key] = pipeline
        return pipeline


def _counts_of(runner):
    """Returns the counters of a runner, which need not be hashable."""
    key = id(runner)
    known = _known.get(key)
    if known is None or known[0]() is not runner:
        reference = weakref.ref(runner, lambda _gone: _known.pop(key, None))
        known = _known[key] = (reference, _Counts())
    return known[1]


def attach(runner):
    """Starts to count; called once, when the runner is born."""
    counts = _counts_of(runner)
    _guarded(counts, "liquidations", _count_liquidations, runner, counts)
    _guarded(counts, "fetches", _hook_orchestrator, runner)


def status(runner):
    """Returns get_status() and what was counted."""
    document = dict(runner.get_status())
    counts = _counts_of(runner)
    # A runner that makes its orchestrator late, by a class that could not be hooked.
    _guarded(counts, "fetches", _wrap_fetchers, getattr(runner, "_orchestrator", None), counts)
    venues = {}
    _guarded(counts, "rest", _rest, runner, venues)
    _guarded(counts, "streams", _streams, runner, venues)
    pipelines = [
        dict(count, exchange=venue, symbol=symbol, data_type=kind, last_ok=_time(count["last_ok"]))
        for (venue, symbol, kind), count in sorted(counts.pipelines.items())
    ]
    for pipeline in pipelines:
        _tell(venues.get(pipeline["exchange"]), pipeline)
    for name, value in (("exchange_status", venues), ("pipeline", pipelines)):
        if value and name not in document:
            document[name] = value
    if counts.problems:
        document["adapter_errors"] = [
            "%s: %s" % (part, problem) for part, problem in sorted(counts.problems.items())
        ]
    return document


def _guarded(counts, part, read, *arguments):
    try:
        read(*arguments)
    except Exception as error:
        counts.problems[part] = words(error)
    else:
        counts.problems.pop(part, None)


# ---------------------------------------------------------------------------------------- counting


def _count_liquidations(runner, counts):
    own = runner._on_liquidation

    @functools.wraps(own)
    def on_liquidation(event, *arguments, **keywords):
        try:
            venue = getattr(event.venue, "value", event.venue)
            pipeline = counts.pipeline(venue, event.symbol, "liquidation")
            pipeline["records"] += 1
            pipeline["last_ok"] = time.time()
        except Exception as error:
            counts.problems["liquidations"] = words(error)
        return own(event, *arguments, **keywords)

    runner._on_liquidation = on_liquidation


def _hook_orchestrator(runner):
    """Wraps the fetchers before the first fetch: when the orchestrator connects them."""
    reference = weakref.ref(runner)
    for name, module in list(sys.modules.items()):
        cls = getattr(module, "FetchOrchestrator", None) if "orchestrator" in name else None
        if cls is None or not hasattr(cls, "connect_all"):
            continue
        if not hasattr(cls.connect_all, "__periscope__"):
            _hook_connect(cls)
        cls.connect_all.__periscope__.append(reference)


def _hook_connect(cls):
    own = cls.connect_all
    runners = []

    @functools.wraps(own)
    async def connect_all(self, *arguments, **keywords):
        for reference in runners:
            runner = reference()
            # One runner has one orchestrator; with several runners each finds its own when asked.
            if runner is not None and len(runners) == 1:
                counts = _counts_of(runner)
                _guarded(counts, "fetches", _wrap_fetchers, self, counts)
        return await own(self, *arguments, **keywords)

    connect_all.__periscope__ = runners
    cls.connect_all = connect_all


def _wrap_fetchers(orchestrator, counts):
    if orchestrator is None:
        return
    for fetcher in list(orchestrator.fetchers.values()):
        for name, kind in FETCHES.items():
            own = getattr(fetcher, name, None)
            if own is not None and not hasattr(own, "__periscope__"):
                setattr(fetcher, name, _counted(own, fetcher.venue_name, kind, counts))


def _counted(own, venue, kind, counts):
    @functools.wraps(own)
    async def fetch(symbol, *arguments, **keywords):
        pipeline, before = counts.pipeline(venue, symbol, kind), time.perf_counter()
        try:
            record = await own(symbol, *arguments, **keywords)
        except BaseException:
            pipeline["errors"] += 1
            raise
        pipeline["latency_ms"] = round((time.perf_counter() - before) * 1e3, 3)
        if record:
            pipeline["records"] += 1
            pipeline["last_ok"] = time.time()
        return record

    fetch.__periscope__ = True
    return fetch


# ---------------------------------------------------------------------------------------- venues


def _rest(runner, venues):
    orchestrator = runner._orchestrator
    if orchestrator is None:
        return
    for name, fetcher in list(orchestrator.fetchers.items()):
        venues.setdefault(str(name).lower(), {})["rest_connected"] = bool(fetcher._connected)


def _streams(runner, venues):
    manager = runner._liquidation_manager
    for stream in list(manager._streams) if manager is not None else ():
        name = str(getattr(stream.venue, "value", stream.venue)).lower()
        venue, socket = venues.setdefault(name, {}), stream._ws
        state = getattr(getattr(socket, "state", None), "name", "OPEN")
        connected = socket is not None and state == "OPEN"
        # One venue may have several streams: it is whole only with all of them.
        venue["ws_connected"] = venue.get("ws_connected", True) and connected
        venue["reconnect_delay_s"] = getattr(stream, "_reconnect_delay", None)
    for venue in venues.values():
        # A venue works when all that the daemon uses of it does.
        ways = [venue[way] for way in ("rest_connected", "ws_connected") if way in venue]
        venue["connected"] = all(ways)


def _tell(venue, pipeline):
    """Adds what a pipeline knows of its venue."""
    if venue is None or pipeline["last_ok"] is None:
        return
    if pipeline["last_ok"] > venue.get("last_message_at", ""):
        venue["last_message_at"] = pipeline["last_ok"]
        if pipeline["latency_ms"] is not None:
            venue["latency_ms"] = pipeline["latency_ms"]


def _time(seconds):
    return None if seconds is None else iso(seconds)
