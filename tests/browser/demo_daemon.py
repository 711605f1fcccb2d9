"""A small daemon for pictures: started with `periscope run`, so that process figures and event-loop lag
have something to show. Ends after the number of seconds it is given."""

import asyncio
import sys
import time


class Demo:
    def __init__(self):
        self.started = time.monotonic()
        self.fetches = 0
        self.kept = []

    def get_status(self):
        return {
            "running": True, "shutdown_requested": False, "fetch_count": self.fetches,
            "error_count": self.fetches // 40, "uptime_seconds": time.monotonic() - self.started,
            "symbols": ["BTCUSDT"], "exchanges": ["binance"],
        }

    async def run(self, seconds):
        while time.monotonic() - self.started < seconds:
            self.fetches += 1
            # A little memory and a little work, so that the lines are not flat.
            self.kept.append(bytes(200_000))
            if len(self.kept) > 100:
                self.kept.clear()
            sum(range(200_000))
            await asyncio.sleep(0.4)


if __name__ == "__main__":
    asyncio.run(Demo().run(float(sys.argv[1])))
