"""A real TradingNode that needs no network: quotes by a random walk, orders filled by the sandbox
execution client, a strategy that turns its position over and over.

It prints `ready` once it trades and then answers every line of its standard input with one line of
JSON: what the node itself reports at that moment, read on its own loop.

Environment: NODE_SECONDS between two turns of the position (0.5), NODE_SEED of the walk (7),
NODE_ACTOR the configuration of periscope's actor, as JSON.

Lines: `still` stops quotes and turns, `flip` makes one turn, `block SECONDS` blocks the loop,
`disconnect` and `connect` the data client, `late` tells how late the loop's timers were, `stop` ends
the node; any other line only asks.
"""

import asyncio
import datetime
import json
import os
import random
import sys
import threading
import time

from nautilus_trader.adapters.sandbox.config import SandboxExecutionClientConfig
from nautilus_trader.adapters.sandbox.factory import SandboxLiveExecClientFactory
from nautilus_trader.common.config import LoggingConfig
from nautilus_trader.config import (
    ImportableActorConfig,
    LiveDataClientConfig,
    StrategyConfig,
    TradingNodeConfig,
)
from nautilus_trader.common.providers import InstrumentProvider
from nautilus_trader.live.data_client import LiveMarketDataClient
from nautilus_trader.live.factories import LiveDataClientFactory
from nautilus_trader.live.node import TradingNode
from nautilus_trader.model.data import QuoteTick
from nautilus_trader.model.enums import OrderSide, TimeInForce
from nautilus_trader.model.identifiers import ClientId, InstrumentId, TraderId, Venue
from nautilus_trader.model.objects import Quantity
from nautilus_trader.test_kit.providers import TestInstrumentProvider
from nautilus_trader.trading.strategy import Strategy

VENUE = Venue("BINANCE")
INSTRUMENTS = [
    TestInstrumentProvider.ethusdt_perp_binance(),
    TestInstrumentProvider.btcusdt_perp_binance(),
]
START = {"ETHUSDT-PERP": 2_000.0, "BTCUSDT-PERP": 50_000.0}
PAUSE = float(os.environ.get("NODE_SECONDS", "0.5"))
SEED = int(os.environ.get("NODE_SEED", "7"))


class WalkConfig(LiveDataClientConfig, frozen=True):
    """Quotes of a random walk."""


class WalkClient(LiveMarketDataClient):
    """Quotes of a random walk, ten a second for each instrument."""

    def __init__(self, loop, msgbus, cache, clock):
        super().__init__(
            loop=loop,
            client_id=ClientId(VENUE.value),
            venue=VENUE,
            msgbus=msgbus,
            cache=cache,
            clock=clock,
            instrument_provider=InstrumentProvider(),
        )
        self._walks = {}
        self._random = random.Random(SEED)
        self.silent = False

    async def _connect(self):
        for instrument in INSTRUMENTS:
            self._handle_data(instrument)

    async def _disconnect(self):
        for walk in self._walks.values():
            walk.cancel()

    async def _subscribe_quote_ticks(self, command):
        instrument_id = command.instrument_id
        self._walks[instrument_id] = self.create_task(self._walk(instrument_id))

    async def _unsubscribe_quote_ticks(self, command):
        self._walks.pop(command.instrument_id).cancel()

    async def _walk(self, instrument_id):
        instrument = next(one for one in INSTRUMENTS if one.id == instrument_id)
        price = START[instrument.id.symbol.value]
        while True:
            price *= 1 + self._random.gauss(0, 0.0005)
            now = self._clock.timestamp_ns()
            if not self.silent:
                self._handle_data(
                    QuoteTick(
                        instrument_id=instrument.id,
                        bid_price=instrument.make_price(price * 0.9999),
                        ask_price=instrument.make_price(price * 1.0001),
                        bid_size=instrument.make_qty(100),
                        ask_size=instrument.make_qty(100),
                        ts_event=now,
                        ts_init=now,
                    )
                )
            await asyncio.sleep(0.1)


class WalkFactory(LiveDataClientFactory):
    """Makes the one above."""

    @staticmethod
    def create(loop, name, config, msgbus, cache, clock):
        return WalkClient(loop, msgbus, cache, clock)


class FlipConfig(StrategyConfig, frozen=True):
    """Which instrument, and how much of it."""

    instrument_id: InstrumentId
    size: str


class Flip(Strategy):
    """Long, flat, short, flat, long, …"""

    def __init__(self, config):
        super().__init__(config)
        self.turn = 0

    def on_start(self):
        self.subscribe_quote_ticks(self.config.instrument_id)
        self.clock.set_timer(
            "flip",
            interval=datetime.timedelta(seconds=PAUSE),
            callback=self.flip,
        )

    def flip(self, _event):
        if self.cache.quote_tick(self.config.instrument_id) is None:
            return
        side = [OrderSide.BUY, OrderSide.SELL, OrderSide.SELL, OrderSide.BUY][self.turn % 4]
        self.turn += 1
        order = self.order_factory.market(
            instrument_id=self.config.instrument_id,
            order_side=side,
            quantity=Quantity.from_str(self.config.size),
            time_in_force=TimeInForce.GTC,
        )
        self.submit_order(order)


def report(node):
    """What the node says of itself, by its own portfolio and cache."""
    cache, portfolio = node.cache, node.portfolio
    by_instrument = {}
    for instrument in INSTRUMENTS:
        realized = portfolio.realized_pnl(instrument.id)
        unrealized = portfolio.unrealized_pnl(instrument.id)
        exposure = portfolio.net_exposure(instrument.id)
        orders = cache.orders(instrument_id=instrument.id)
        by_instrument[instrument.id.symbol.value] = {
            "pnl": realized.as_double() if realized is not None else None,
            "unrealized_pnl": unrealized.as_double() if unrealized is not None else None,
            "position_size": float(portfolio.net_position(instrument.id)),
            "exposure": exposure.as_double() if exposure is not None else None,
            "orders_placed": len(orders),
            "orders_filled": sum(1 for order in orders if order.filled_qty.as_double() > 0),
            "orders_open": cache.orders_open_count(instrument_id=instrument.id),
        }
    account = cache.account_for_venue(VENUE)
    return {
        "instruments": by_instrument,
        "balance": {str(k): v.as_double() for k, v in account.balances_total().items()},
        "data_connected": node.kernel.data_engine.check_connected(),
        "exec_connected": node.kernel.exec_engine.check_connected(),
    }


def _data_client(node):
    (client,) = node.kernel.data_engine._clients.values()
    return client


def command(node, line):
    """Does what a line asks for, on the loop; returns what is printed."""
    words = line.split()
    flips = [one for one in node.trader.strategies() if isinstance(one, Flip)]
    if words[:1] == ["block"]:
        time.sleep(float(words[1]))
    elif words[:1] == ["still"]:
        for one in flips:
            one.clock.cancel_timer("flip")
        _data_client(node).silent = True
    elif words[:1] == ["flip"]:
        for one in flips:
            one.flip(None)
    elif words[:1] == ["disconnect"]:
        _data_client(node)._set_connected(False)
    elif words[:1] == ["connect"]:
        _data_client(node)._set_connected(True)
    elif words[:1] == ["late"]:
        return {"late_ms": LATE}
    elif words[:1] == ["stop"]:
        node.stop()
        return {}
    return report(node)


LATE = []


def measure_lateness(loop, due=None):
    """How late a timer of the node's own loop is, every 10 ms."""
    now = time.perf_counter()  # the loop's own clock has whole milliseconds
    if due is not None:
        LATE.append(round((now - due) * 1e3, 3))
    loop.call_later(0.01, measure_lateness, loop, now + 0.01)


def serve(node):
    loop = node.kernel.loop
    for line in sys.stdin:
        done = threading.Event()
        answer = []

        def reply(line, done, answer):
            answer.append(command(node, line))
            done.set()

        def run(line=line, done=done, answer=answer):
            if line.startswith("flip"):
                command(node, line)
                # Orders go through the engines' queues: the report comes after their fills.
                loop.call_later(0.5, reply, "", done, answer)
            else:
                reply(line, done, answer)

        loop.call_soon_threadsafe(run)
        done.wait(30)
        print(json.dumps(answer[0] if answer else None), flush=True)


def main():
    actors = []
    if os.environ.get("NODE_ACTOR"):
        actors.append(
            ImportableActorConfig(
                actor_path="periscope_nautilus:PeriscopeActor",
                config_path="periscope_nautilus:PeriscopeActorConfig",
                config=json.loads(os.environ["NODE_ACTOR"]),
            )
        )
    node = TradingNode(
        config=TradingNodeConfig(
            trader_id=TraderId("WALKER-001"),
            actors=actors,
            logging=LoggingConfig(log_level="WARNING"),
            data_clients={VENUE.value: WalkConfig()},
            exec_clients={
                VENUE.value: SandboxExecutionClientConfig(
                    venue=VENUE.value,
                    starting_balances=["100000 USDT"],
                )
            },
        )
    )
    for instrument, size in zip(INSTRUMENTS, ("1.000", "0.100")):
        node.cache.add_instrument(instrument)
        node.trader.add_strategy(
            Flip(FlipConfig(instrument_id=instrument.id, size=size, order_id_tag=size[:1] + "01"))
        )
    node.add_data_client_factory(VENUE.value, WalkFactory)
    node.add_exec_client_factory(VENUE.value, SandboxLiveExecClientFactory)
    node.build()
    measure_lateness(node.kernel.loop)
    threading.Thread(target=serve, args=(node,), daemon=True).start()
    node.kernel.loop.call_later(2.0, lambda: print("ready", flush=True))
    try:
        node.run()
    finally:
        node.dispose()


if __name__ == "__main__":
    main()
