"""An actor that pushes the status of its NautilusTrader node to periscope: for those who prefer a line
of configuration in the node to starting it with `periscope run`. Both tell the same.

    actors=[
        ImportableActorConfig(
            actor_path="periscope_nautilus:PeriscopeActor",
            config_path="periscope_nautilus:PeriscopeActorConfig",
            config={"daemon": "my-node"},
        ),
    ]

`periscope shim install --venv DIR` puts this file where the node finds it.
"""

import gc
import http.client
import json
import os
import sys
import threading
from datetime import timedelta
from typing import Optional
from urllib.parse import quote, urlsplit

from nautilus_trader.common.actor import Actor
from nautilus_trader.common.config import ActorConfig

_here = os.path.dirname(os.path.abspath(__file__))
if _here not in sys.path:
    sys.path.append(_here)

import _periscope_nautilus as _adapter  # noqa: E402
import _periscope_shim as _shim  # noqa: E402

# A push ends before the next one is due, as a poll does.
LONGEST_PUSH_SECONDS = 5.0


class PeriscopeActorConfig(ActorConfig, frozen=True):
    """What the actor needs to know.

    daemon: name of the node in every table.
    url: where periscope listens.
    token_file: file that holds `listen.token`, where one is set.
    interval_seconds: time between two documents.
    """

    daemon: str
    url: str = "http://127.0.0.1:7480"
    token_file: Optional[str] = None
    interval_seconds: float = 5.0


class PeriscopeActor(Actor):
    """Pushes the status of its node; what goes wrong on the way is a warning in the node's log, once,
    and nothing else."""

    def __init__(self, config):
        super().__init__(config)
        self._kernel = None
        self._sender = None
        self._told = None

    def on_start(self):
        self._kernel = _kernel_of(self.cache)
        if self._kernel is None:
            self.log.warning("periscope: no kernel has this actor's cache; nothing is pushed")
            return
        self._sender = _Sender(self.config)
        self.clock.set_timer(
            "periscope-%s" % self.config.daemon,
            interval=timedelta(seconds=self.config.interval_seconds),
            callback=self._push,
        )

    def on_stop(self):
        self.clock.cancel_timers()
        if self._sender is not None:
            self._sender.close()

    def _push(self, event):
        document = _adapter.of_kernel(self._kernel, True)
        late = (self.clock.timestamp_ns() - event.ts_event) / 1e6
        document["event_loop_lag_ms"] = round(max(0.0, late), 3)
        document = _shim._Cleaner().clean(document)
        self._sender.send(json.dumps(document, allow_nan=False, separators=(",", ":")))
        problem = self._sender.problem
        if problem != self._told:
            self._told = problem
            if problem is None:
                self.log.info("periscope: takes documents again")
            else:
                self.log.warning("periscope: %s; tried again with the next document" % problem)


def _kernel_of(cache):
    """Finds the kernel that the actor belongs to: an actor is told everything but that."""
    for found in gc.get_objects():
        if type(found).__name__ == "NautilusKernel" and getattr(found, "cache", None) is cache:
            return found
    return None


class _Sender:
    """Sends documents from a thread of its own: the node's loop never waits for the network.

    Only the newest document waits; an older one that was not sent yet is worth nothing beside it.
    """

    def __init__(self, config):
        url = urlsplit(config.url)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError("url: %r is no http:// or https:// address" % config.url)
        secure = url.scheme == "https"
        connection = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        seconds = min(LONGEST_PUSH_SECONDS, max(0.5, config.interval_seconds))
        self._connect = lambda: connection(url.hostname, url.port, timeout=seconds)
        self._path = "%s/api/v1/push/%s" % (url.path.rstrip("/"), quote(config.daemon, safe=""))
        self._token_file = config.token_file
        self._wake = threading.Condition()
        self._next, self._closed = None, False
        self.problem = None
        threading.Thread(target=self._run, name="periscope", daemon=True).start()

    def send(self, document):
        with self._wake:
            self._next = document
            self._wake.notify()

    def close(self):
        with self._wake:
            self._closed = True
            self._wake.notify()

    def _run(self):
        while True:
            with self._wake:
                while self._next is None and not self._closed:
                    self._wake.wait()
                document, self._next = self._next, None
                if document is None:
                    return
            try:
                self.problem = self._post(document)
            except Exception as error:
                self.problem = "%s: %s" % (type(error).__name__, error)

    def _post(self, document):
        headers = {"content-type": "application/json"}
        if self._token_file is not None:
            with open(self._token_file, encoding="utf-8") as file:
                headers["authorization"] = "Bearer " + file.read().strip()
        connection = self._connect()
        try:
            connection.request("POST", self._path, document.encode("ascii"), headers)
            answer = connection.getresponse()
            words = answer.read(500).decode("utf-8", "replace").strip()
        finally:
            connection.close()
        return None if answer.status < 300 else "HTTP %d: %s" % (answer.status, words)
