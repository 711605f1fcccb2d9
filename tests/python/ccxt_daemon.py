"""A daemon that looks like a ccxt pipeline: the same names of methods and attributes, no network.

Its main program reads commands: `fetch N`, `fail VENUE`, `heal VENUE`, `cut VENUE` (its stream),
`join VENUE`, `liquidate N`, `block SECONDS`, `end`; each is answered with one line.
"""

import asyncio
import sys
import types


class Venue:
    def __init__(self, value):
        self.value = value


class Fetcher:
    def __init__(self, name):
        self.venue_name, self._connected, self.fails = name, False, False

    async def connect(self):
        self._connected = True

    async def _fetch(self, symbol):
        await asyncio.sleep(0.001)
        if self.fails:
            raise ConnectionError("%s not connected" % self.venue_name)
        return {"symbol": symbol}

    async def fetch_open_interest(self, symbol):
        return await self._fetch(symbol)

    async def fetch_funding_rate(self, symbol):
        return await self._fetch(symbol)


class FetchOrchestrator:
    def __init__(self, venues):
        self.fetchers = {name: Fetcher(name) for name in venues}

    async def connect_all(self):
        for fetcher in self.fetchers.values():
            await fetcher.connect()


class Stream:
    def __init__(self, name):
        self.venue, self._reconnect_delay = Venue(name), 1.0
        self._ws = types.SimpleNamespace(state=types.SimpleNamespace(name="OPEN"))


class Manager:
    def __init__(self, venues):
        self._streams = [Stream(name) for name in venues]


class DaemonRunner:
    SYMBOLS = ("BTCUSDT-PERP", "ETHUSDT-PERP")

    def __init__(self, venues=("BINANCE", "BYBIT")):
        self.venues = venues
        self._orchestrator = self._liquidation_manager = None
        self.fetch_count = self.error_count = self.liquidation_count = 0
        self.last_error = None

    def _on_liquidation(self, event):
        self.liquidation_count += 1

    async def start(self):
        self._orchestrator = FetchOrchestrator(self.venues)
        await self._orchestrator.connect_all()
        self._liquidation_manager = Manager(self.venues)

    async def fetch(self):
        for fetcher in self._orchestrator.fetchers.values():
            for symbol in self.SYMBOLS:
                for call in (fetcher.fetch_open_interest, fetcher.fetch_funding_rate):
                    self.fetch_count += 1
                    try:
                        await call(symbol)
                    except ConnectionError as error:
                        self.error_count += 1
                        self.last_error = str(error)

    def get_status(self):
        return {
            "running": True,
            "shutdown_requested": False,
            "fetch_count": self.fetch_count,
            "error_count": self.error_count,
            "liquidation_count": self.liquidation_count,
            "uptime_seconds": 1.5,
            "last_fetch_time": None,
            "last_error": self.last_error,
            "symbols": list(self.SYMBOLS),
            "exchanges": ["all"],
        }


async def command(runner, words):
    if words[0] == "fetch":
        for _ in range(int(words[1])):
            await runner.fetch()
    elif words[0] in ("fail", "heal"):
        fetcher = runner._orchestrator.fetchers[words[1]]
        fetcher.fails = words[0] == "fail"
        fetcher._connected = not fetcher.fails
    elif words[0] in ("cut", "join"):
        for stream in runner._liquidation_manager._streams:
            if stream.venue.value == words[1]:
                stream._ws.state.name = "CLOSED" if words[0] == "cut" else "OPEN"
    elif words[0] == "liquidate":
        for _ in range(int(words[1])):
            event = types.SimpleNamespace(venue=Venue("BINANCE"), symbol="BTCUSDT-PERP")
            runner._on_liquidation(event)
    elif words[0] == "block":
        __import__("time").sleep(float(words[1]))
    elif words[0] == "forget":
        del runner._liquidation_manager


async def main():
    runner = DaemonRunner()
    await runner.start()
    print("ready", flush=True)
    loop = asyncio.get_running_loop()
    while True:
        line = await loop.run_in_executor(None, sys.stdin.readline)
        if not line or line.strip() == "end":
            return
        await command(runner, line.split())
        print("done", flush=True)


if __name__ == "__main__":
    # As in the original, where the orchestrator is a module of its own.
    sys.modules["fetchers.orchestrator"] = sys.modules["__main__"]
    asyncio.run(main())
