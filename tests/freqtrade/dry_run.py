"""A real freqtrade in dry-run mode against a venue on this machine: no network, no keys.

    python3 -m venv VENV && VENV/bin/pip install freqtrade
    VENV/bin/python tests/freqtrade/dry_run.py --port 8080
    VENV/bin/python tests/freqtrade/dry_run.py --port 8080 --record tests/data/freqtrade

The venue answers as Binance's spot API does, as far as freqtrade asks: two pairs with prices that
walk at random (seeded). The strategy buys at every candle and sells after a few. With --record the
answers that periscope's preset asks for are written down once trades were closed; else freqtrade
runs until it is interrupted.
"""

import argparse
import base64
import http.server
import json
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request

PAIRS = {"BTCUSDT": ("BTC", 50_000.0), "ETHUSDT": ("ETH", 2_500.0)}
ENDPOINTS = {
    "config": "show_config",
    "health": "health",
    "profit": "profit",
    "count": "count",
    "balance": "balance",
    "whitelist": "whitelist",
}
STRATEGY = '''
from freqtrade.strategy import IStrategy


class Walker(IStrategy):
    INTERFACE_VERSION = 3
    timeframe = "1m"
    startup_candle_count = 1
    minimal_roi = {"0": 10.0}
    stoploss = -0.5
    process_only_new_candles = False

    def populate_indicators(self, dataframe, metadata):
        return dataframe

    def populate_entry_trend(self, dataframe, metadata):
        dataframe["enter_long"] = 1
        return dataframe

    def populate_exit_trend(self, dataframe, metadata):
        return dataframe

    def custom_exit(self, pair, trade, current_time, current_rate, current_profit, **kwargs):
        held = (current_time - trade.open_date_utc).total_seconds()
        return "held" if pair.startswith("BTC") and held > 3 else None
'''


class Venue:
    """Prices that walk."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.prices = {name: price for name, (_, price) in PAIRS.items()}

    def price(self, name):
        self.prices[name] *= 1 + self.random.uniform(-0.001, 0.001)
        return self.prices[name]

    def answer(self, path, query):
        now = int(time.time() * 1000)
        name = query.get("symbol", [None])[0]
        if path.endswith("/exchangeInfo"):
            return {"timezone": "UTC", "serverTime": now, "rateLimits": [], "symbols": [
                self.symbol(name, base) for name, (base, _) in PAIRS.items()]}
        if path.endswith("/time"):
            return {"serverTime": now}
        if path.endswith("/klines"):
            minute = now // 60_000 * 60_000
            limit = int(query.get("limit", ["500"])[0])
            return [self.candle(name, minute - 60_000 * back) for back in range(limit - 1, -1, -1)]
        if path.endswith("/depth"):
            price = self.price(name)
            return {"lastUpdateId": now,
                    "bids": [[f"{price - n / 100:.2f}", "50.0"] for n in range(1, 51)],
                    "asks": [[f"{price + n / 100:.2f}", "50.0"] for n in range(1, 51)]}
        if "/ticker/" in path:
            names = [name] if name else list(PAIRS)
            tickers = [self.ticker(one, now) for one in names]
            return tickers[0] if name else tickers
        if path.endswith("/trades") or path.endswith("/aggTrades"):
            return []
        return None

    def symbol(self, name, base):
        return {
            "symbol": name, "status": "TRADING", "baseAsset": base, "baseAssetPrecision": 8,
            "quoteAsset": "USDT", "quotePrecision": 8, "quoteAssetPrecision": 8,
            "orderTypes": ["LIMIT", "MARKET", "STOP_LOSS_LIMIT"], "icebergAllowed": True,
            "isSpotTradingAllowed": True, "isMarginTradingAllowed": False,
            "permissions": ["SPOT"], "permissionSets": [["SPOT"]],
            "filters": [
                {"filterType": "PRICE_FILTER", "minPrice": "0.01", "maxPrice": "1000000",
                 "tickSize": "0.01"},
                {"filterType": "LOT_SIZE", "minQty": "0.00001", "maxQty": "9000",
                 "stepSize": "0.00001"},
                {"filterType": "NOTIONAL", "minNotional": "5", "applyMinToMarket": True,
                 "maxNotional": "9000000", "applyMaxToMarket": False, "avgPriceMins": 5},
            ],
        }

    def candle(self, name, at):
        price = self.price(name)
        return [at, f"{price:.2f}", f"{price * 1.001:.2f}", f"{price * 0.999:.2f}", f"{price:.2f}",
                "10.0", at + 59_999, f"{price * 10:.2f}", 100, "5.0", f"{price * 5:.2f}", "0"]

    def ticker(self, name, now):
        price = self.price(name)
        text = f"{price:.2f}"
        return {"symbol": name, "priceChange": "0", "priceChangePercent": "0",
                "weightedAvgPrice": text, "prevClosePrice": text, "lastPrice": text,
                "lastQty": "1", "bidPrice": f"{price - 0.01:.2f}", "bidQty": "1",
                "askPrice": f"{price + 0.01:.2f}", "askQty": "1", "openPrice": text,
                "highPrice": text, "lowPrice": text, "volume": "1000",
                "quoteVolume": f"{price * 1000:.2f}", "openTime": now - 86_400_000,
                "closeTime": now, "firstId": 1, "lastId": 2, "count": 2}


def serve(venue):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            url = urllib.parse.urlsplit(self.path)
            answer = venue.answer(url.path, urllib.parse.parse_qs(url.query))
            body = json.dumps({"code": -1, "msg": "unknown"} if answer is None else answer).encode()
            self.send_response(404 if answer is None else 200)
            if answer is None:
                print("venue: nothing at", self.path, file=sys.stderr)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def config(venue_port, port, folder):
    base = f"http://127.0.0.1:{venue_port}"
    urls = {"api": {name: f"{base}/{name}" for name in
                    ("public", "private", "v1", "sapi", "sapiV2", "sapiV3", "sapiV4")}}
    ccxt = {"urls": urls, "options": {"fetchMarkets": {"types": ["spot"]},
                                      "fetchMargins": False, "fetchCurrencies": False}}
    return {
        "dry_run": True, "dry_run_wallet": 10_000, "max_open_trades": 2, "stake_currency": "USDT",
        "stake_amount": 1000, "timeframe": "1m", "strategy": "Walker", "bot_name": "walker",
        "entry_pricing": {"price_side": "other", "use_order_book": True, "order_book_top": 1},
        "exit_pricing": {"price_side": "other", "use_order_book": True, "order_book_top": 1},
        "order_types": {"entry": "market", "exit": "market", "stoploss": "market",
                        "stoploss_on_exchange": False},
        "exchange": {"name": "binance", "pair_whitelist": ["BTC/USDT", "ETH/USDT"],
                     "enable_ws": False, "skip_open_order_update": True,
                     "ccxt_config": ccxt, "ccxt_async_config": ccxt},
        "pairlists": [{"method": "StaticPairList"}],
        "api_server": {"enabled": True, "listen_ip_address": "127.0.0.1", "listen_port": port,
                       "verbosity": "error", "enable_openapi": False, "CORS_origins": [],
                       "jwt_secret_key": "not-used-here-not-used-here-not-u", "ws_token": "no",
                       "username": "periscope", "password": "walker"},
        "internals": {"process_throttle_secs": 1},
        "db_url": f"sqlite:///{folder}/trades.sqlite", "initial_state": "running",
        "user_data_dir": str(folder),
    }


def ask(port, endpoint):
    request = urllib.request.Request(f"http://127.0.0.1:{port}/api/v1/{endpoint}")
    login = base64.b64encode(b"periscope:walker").decode()
    request.add_header("authorization", f"Basic {login}")
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def record(port, into, bot):
    deadline = time.time() + 120
    while True:
        if bot.poll() is not None:
            sys.exit(f"freqtrade has ended with {bot.returncode}")
        try:
            if ask(port, "profit")["closed_trade_count"] >= 3 and ask(port, "count")["current"] > 0:
                break
        except (OSError, KeyError):
            pass
        if time.time() > deadline:
            sys.exit("no trade was closed within 120 s")
        time.sleep(0.5)
    into.mkdir(parents=True, exist_ok=True)
    for name, endpoint in ENDPOINTS.items():
        text = json.dumps(ask(port, endpoint), indent=1, sort_keys=True)
        (into / f"{name}.json").write_text(text + "\n")
    version = ask(port, "version")["version"]
    (into / "VERSION").write_text(version + "\n")
    print("recorded from freqtrade", version)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--port", type=int, required=True)
    arguments.add_argument("--record", type=pathlib.Path)
    arguments.add_argument("--seed", type=int, default=1)
    arguments = arguments.parse_args()
    print("seed", arguments.seed, flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "strategies").mkdir()
        (folder / "strategies" / "walker.py").write_text(STRATEGY)
        venue_port = serve(Venue(arguments.seed))
        settings = folder / "config.json"
        settings.write_text(json.dumps(config(venue_port, arguments.port, folder)))
        command = [sys.executable, "-m", "freqtrade", "trade", "--config", str(settings),
                   "--userdir", str(folder), "--strategy", "Walker"]
        bot = subprocess.Popen(command)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        try:
            if arguments.record:
                record(arguments.port, arguments.record, bot)
            else:
                bot.wait()
        except KeyboardInterrupt:
            pass
        finally:
            bot.terminate()
            bot.wait()


if __name__ == "__main__":
    main()
