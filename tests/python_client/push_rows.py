"""Pushes numbered rows through periscope's /write with the official client, in auto-flush.

    push_rows.py ADDRESS ROWS

Prints `chunk N` after every chunk of 10,000 rows that the client has flushed, and at the end
`done RESENT`. A chunk that fails although the client has repeated its requests is sent again with
the same timestamps, as the client's documentation asks for.
"""

import sys
import time

from questdb import QuestDBError, Sender, TimestampNanos

CHUNK = 10_000
ATTEMPTS = 20


def send(conf: str, start: int, first: int, last: int) -> None:
    with Sender.from_conf(conf) as sender:
        for number in range(first, last):
            sender.row(
                "pipeline_metrics",
                symbols={"exchange": "x", "symbol": "BTC USDT", "data_type": "push", "daemon": "py"},
                columns={
                    "records_count": number,
                    "latency_ms": number / 2,
                    "gap_detected": number % 2 == 0,
                },
                at=TimestampNanos(start + number * 1_000),
            )


def main() -> None:
    address, rows = sys.argv[1], int(sys.argv[2])
    conf = f"http::addr={address};auto_flush_rows=1000;retry_timeout=20000;"
    start, resent = time.time_ns(), 0
    for index, first in enumerate(range(0, rows, CHUNK)):
        for attempt in range(ATTEMPTS):
            try:
                send(conf, start, first, min(first + CHUNK, rows))
                break
            except QuestDBError as error:
                print(f"again: {error}", file=sys.stderr, flush=True)
                resent += 1
                if attempt + 1 == ATTEMPTS:
                    raise
                time.sleep(0.5)
        print(f"chunk {index}", flush=True)
    print(f"done {resent}", flush=True)


if __name__ == "__main__":
    main()
