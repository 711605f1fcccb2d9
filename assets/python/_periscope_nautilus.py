"""Reads a NautilusTrader TradingNode: no file of it is changed, nothing in it is called that changes
or logs something. Tried with 1.221 and newer.

Its objects are not thread-safe: `status` is a coroutine, which the shim runs on the node's own loop.
What costs time in proportion to the orders ever placed is read at most every ten seconds, and never
for more than a hundredth of the time.
"""

import time
import weakref

from _periscope_shim import iso_parts, words

# Read at most this often, and at most for this share of the time.
ORDERS_SECONDS = 10.0
ORDERS_SHARE = 0.01
# Closed positions up to this number are read anew each time; beyond that only the new ones.
FEW_POSITIONS = 500
# In the place of a symbol in the row of an account: without one no choice of symbols would show it.
ACCOUNT = "account"
# Instruments of one client whose newest message is looked at.
MAX_SUBSCRIPTIONS = 200

_memories = weakref.WeakKeyDictionary()  # kernel -> _Memory


def loop(node):
    """Returns the event loop of the node, which runs from node.run() on."""
    return node.kernel.loop


def plain(node):
    """Returns what may be told of a node whose loop does not run: nothing of it is safe to read."""
    return {"running": False, "trader_id": str(node.trader_id)}


async def status(node):
    """Returns the status document of a node; on its loop."""
    return of_kernel(node.kernel, bool(node.is_running()))


def of_kernel(kernel, running):
    """Returns the status document; on the node's loop."""
    memory = _memories.get(kernel)
    if memory is None:
        memory = _memories.setdefault(kernel, _Memory())
    document = {"running": running}
    errors = []

    def part(name, read, *arguments):
        try:
            value = read(*arguments)
        except Exception as error:
            errors.append("%s: %s" % (name, words(error)))
            return
        if value is not None:
            document[name] = value

    part("trader_id", lambda: str(kernel.trader_id))
    part("environment", lambda: kernel.environment.value)
    part("uptime_seconds", _uptime, kernel)
    part("fetch_count", lambda: kernel.data_engine.data_count)
    part("exchange_status", _venues, kernel)
    part("trading", _trading, kernel, memory)
    part("symbols", lambda: memory.symbols)
    part("trading_state", lambda: kernel.risk_engine.trading_state.name)
    part("strategy_states", lambda: _texts(kernel.trader.strategy_states()))
    part("queues", _queues, kernel)
    if "exchange_status" in document:
        document["exchanges"] = list(document["exchange_status"])
    if errors:
        # Said, and the rest is told all the same: a newer version may have renamed something.
        document["adapter_errors"] = errors
        document["last_error"] = "periscope cannot read " + "; ".join(errors)
    return document


class _Memory:
    """What is kept of a node from one document to the next."""

    def __init__(self):
        self.orders = {}  # (strategy, instrument) -> [placed, filled]
        self.orders_read = None
        self.orders_pause = 0.0
        self.closed = {}  # id of a closed position -> (key, realised)
        self.snapshots = {}  # id of a position -> [snapshots read, {key: sum}, last]
        self.symbols = []


def _uptime(kernel):
    started = kernel.ts_started
    if not started:
        return None
    return max(0.0, (kernel.clock.timestamp_ns() - started) / 1e9)


def _texts(states):
    return {str(name): str(state) for name, state in states.items()}


def _queues(kernel):
    data, execution = kernel.data_engine, kernel.exec_engine
    return {"data": data.data_qsize(), "events": execution.evt_qsize()}


# ---------------------------------------------------------------------------------------- venues


def _clients(engine):
    clients = getattr(engine, "_clients", None)
    return list(clients.values()) if isinstance(clients, dict) else []


def _venues(kernel):
    """A venue is connected when every client of it is; one client may serve several venues."""
    venues = {}
    for kind, engine in (("data", kernel.data_engine), ("exec", kernel.exec_engine)):
        for client in _clients(engine):
            name = str(client.venue or client.id).lower()
            venue = venues.setdefault(name, {"connected": True})
            connected = bool(client.is_connected)
            venue[kind + "_connected"] = venue.get(kind + "_connected", True) and connected
            venue["connected"] = venue["connected"] and connected
            if kind == "data":
                _newest(kernel, client, venue)
    return venues


def _newest(kernel, client, venue):
    """Time of the newest message of a data client, and how long it was on its way."""
    newest = None
    for kind, read in (("quote_ticks", "quote_tick"), ("trade_ticks", "trade_tick"), ("bars", "bar")):
        subscribed = getattr(client, "subscribed_" + kind, None)
        if subscribed is None:
            continue
        for what in list(subscribed())[:MAX_SUBSCRIPTIONS]:
            message = getattr(kernel.cache, read)(what)
            if message is not None and (newest is None or message.ts_init > newest.ts_init):
                newest = message
    if newest is None:
        return
    seconds, rest = divmod(int(newest.ts_init), 1_000_000_000)
    venue["last_message_at"] = iso_parts(seconds, rest // 1000)
    # The clocks of two machines: a difference below zero says nothing.
    if newest.ts_init >= newest.ts_event:
        venue["latency_ms"] = (newest.ts_init - newest.ts_event) / 1e6


# ---------------------------------------------------------------------------------------- trading


def _trading(kernel, memory):
    """Rows for each strategy, instrument and currency, and one of each account's equity."""
    cache = kernel.cache
    rows = {}
    # Sums of the settled part, which the venue's account has as well.
    _closed(cache, memory, rows)
    _snapshots(cache, memory, rows)
    unrealized = {}
    for position in cache.positions_open():
        row = _row(rows, _key(position))
        _add(row, "pnl", _amount(position.realized_pnl))
        row["position_size"] = row.get("position_size", 0.0) + float(position.signed_qty)
        value, exposure = _valued(cache, position)
        # Unknown in part is unknown: a sum without one of its parts would be a wrong number.
        _add(row, "unrealized_pnl", value)
        _add(row, "exposure", exposure)
        account = (str(position.account_id), str(position.settlement_currency))
        unrealized[account] = _plus(unrealized.get(account, 0.0), value)
    _orders(cache, memory)
    for (strategy, instrument), (placed, filled) in memory.orders.items():
        keys = [key for key in rows if key[:2] == (strategy, instrument)]
        key = keys[0] if keys else (strategy, instrument, _currency(cache, instrument))
        row = _row(rows, key)
        row["orders_placed"], row["orders_filled"] = placed, filled
    opened = {}
    for order in cache.orders_open():
        key = (str(order.strategy_id), str(order.instrument_id))
        opened[key] = opened.get(key, 0) + 1
    for key, row in rows.items():
        row["orders_open"] = opened.get(key[:2], 0)
        for name in ("pnl", "unrealized_pnl", "position_size", "exposure"):
            row.setdefault(name, 0.0)
    memory.symbols = sorted({row["symbol"] for row in rows.values()})
    return list(rows.values()) + _accounts(kernel, unrealized)


def _key(position):
    instrument, currency = str(position.instrument_id), str(position.settlement_currency)
    return (str(position.strategy_id), instrument, currency)


def _row(rows, key):
    row = rows.get(key)
    if row is None:
        strategy, instrument, currency = key
        symbol, _, venue = instrument.rpartition(".")
        row = rows[key] = {"strategy": strategy, "symbol": symbol, "venue": venue.lower()}
        if currency is not None:
            row["currency"] = currency
    return row


def _amount(money):
    return 0.0 if money is None else float(money.as_double())


def _plus(sum, value):
    return None if sum is None or value is None else sum + value


def _add(row, name, value):
    row[name] = _plus(row.get(name, 0.0), value)


def _closed(cache, memory, rows):
    """Results of closed positions. A position that opens again leaves them."""
    ids = cache.position_closed_ids()
    known = memory.closed
    for gone in known.keys() - ids:
        del known[gone]
    for identity in ids if len(ids) <= FEW_POSITIONS else ids - known.keys():
        position = cache.position(identity)
        if position is not None:
            known[identity] = (_key(position), _amount(position.realized_pnl))
    for key, realized in known.values():
        _add(_row(rows, key), "pnl", realized)


def _snapshots(cache, memory, rows):
    """Results of a netted position before it was opened anew, as the portfolio counts them."""
    ids = getattr(cache, "position_snapshot_ids", lambda: ())()
    for identity in ids:
        raw = cache.position_snapshot_bytes(identity)
        read = memory.snapshots.get(identity)
        if read is None or read[0] > len(raw):
            read = memory.snapshots[identity] = [0, {}, None]
        if read[0] < len(raw):
            import pickle

            for snapshot in raw[read[0] :]:
                position = pickle.loads(snapshot)
                realized = _amount(position.realized_pnl)
                key = _key(position)
                read[1][key] = read[1].get(key, 0.0) + realized
                read[2] = (key, realized)
            read[0] = len(raw)
        for key, realized in read[1].items():
            _add(_row(rows, key), "pnl", realized)
        # The last one may be the position that is closed now: not twice.
        if read[2] is not None and memory.closed.get(identity) == read[2]:
            _add(_row(rows, read[2][0]), "pnl", -read[2][1])


def _valued(cache, position):
    """(unrealised result, exposure) at the price at which the position could be closed."""
    from nautilus_trader.model.enums import PriceType

    side = PriceType.BID if position.is_long else PriceType.ASK
    price = cache.price(position.instrument_id, side)
    price = price or cache.price(position.instrument_id, PriceType.LAST)
    instrument = cache.instrument(position.instrument_id)
    if price is None or instrument is None:
        return None, None
    value = float(position.unrealized_pnl(price).as_double())
    return value, float(instrument.notional_value(position.quantity, price).as_double())


def _currency(cache, instrument_id):
    from nautilus_trader.model.identifiers import InstrumentId

    instrument = cache.instrument(InstrumentId.from_str(instrument_id))
    return None if instrument is None else str(instrument.get_cost_currency())


def _orders(cache, memory):
    """Counts the orders of each strategy and instrument, now and then."""
    now = time.monotonic()
    if memory.orders_read is not None and now - memory.orders_read < memory.orders_pause:
        return
    counts = {}
    for order in cache.orders():
        count = counts.setdefault((str(order.strategy_id), str(order.instrument_id)), [0, 0])
        count[0] += 1
        if order.filled_qty.as_double() > 0:
            count[1] += 1
    memory.orders, memory.orders_read = counts, now
    memory.orders_pause = max(ORDERS_SECONDS, (time.monotonic() - now) / ORDERS_SHARE)


def _accounts(kernel, unrealized):
    """The equity of each account and currency, under the name of the trader: it belongs to no single
    strategy. periscope works out the drawdown from its peak."""
    rows = []
    for account in kernel.cache.accounts():
        margin = bool(getattr(account, "is_margin_account", False))
        for currency, balance in account.balances_total().items():
            equity = float(balance.as_double())
            if margin:
                equity = _plus(equity, unrealized.get((str(account.id), str(currency)), 0.0))
            if equity is not None:
                rows.append(
                    {
                        "strategy": str(kernel.trader_id),
                        "symbol": ACCOUNT,
                        "venue": str(account.id.get_issuer()).lower(),
                        "currency": str(currency),
                        "equity": equity,
                    }
                )
    return rows
