"""python-binance's DepthCacheManager against a gateway: prints the book that it keeps, with the sequence up to which it is, a line per update.

usage: depth_cache.py HOST:PORT SYMBOL UPDATES
"""

import asyncio
import json
import sys

from binance import AsyncClient, BinanceSocketManager
from binance.ws.depthcache import DepthCacheManager


async def main(address: str, symbol: str, updates: int) -> None:
    AsyncClient.API_URL = f"http://{address}/api"
    BinanceSocketManager.STREAM_URL = f"ws://{address}/"
    client = AsyncClient()
    client.API_URL = f"http://{address}/api"
    manager = DepthCacheManager(client, symbol=symbol, limit=5000, ws_interval=None)
    manager._bm.STREAM_URL = f"ws://{address}/"
    async with manager as socket:
        for _ in range(updates):
            cache = await asyncio.wait_for(socket.recv(), 30)
            if isinstance(cache, dict):
                raise SystemExit(f"the client says: {cache}")
            book = {"u": cache.update_time and socket._last_update_id, "bids": cache.get_bids(), "asks": cache.get_asks()}
            print(json.dumps(book), flush=True)
    await client.close_connection()


asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
