"""binance-connector's stream client and REST client against a gateway: prints what they are given, a line per message.

usage: connector.py HOST:PORT SYMBOL MESSAGES
"""

import json
import queue
import sys

from binance.spot import Spot
from binance.websocket.spot.websocket_stream import SpotWebsocketStreamClient


def main(address: str, symbol: str, messages: int) -> None:
    rest = Spot(base_url=f"http://{address}")
    print(json.dumps({"depth": rest.depth(symbol, limit=5), "symbols": [it["symbol"] for it in rest.exchange_info()["symbols"]]}))
    received: queue.Queue[str] = queue.Queue()
    streams = SpotWebsocketStreamClient(
        stream_url=f"ws://{address}", on_message=lambda _, message: received.put(message), is_combined=True
    )
    streams.subscribe([f"{symbol.lower()}@trade", f"{symbol.lower()}@depth", f"{symbol.lower()}@bookTicker"])
    for _ in range(messages):
        print(received.get(timeout=30), flush=True)
    streams.stop()


main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
