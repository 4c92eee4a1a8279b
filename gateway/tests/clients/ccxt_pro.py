"""ccxt.pro's Binance client against a gateway: prints trades and books as it gives them, a line each.

usage: ccxt_pro.py HOST:PORT SYMBOL TRADES BOOKS     (SYMBOL as ccxt calls it: BTC/USDT)
"""

import asyncio
import json
import sys

import ccxt.pro


async def main(address: str, symbol: str, trades: int, books: int) -> None:
    exchange = ccxt.pro.binance({"options": {"defaultType": "spot", "fetchMarkets": {"types": ["spot"]}, "fetchCurrencies": False}})
    exchange.urls["api"]["public"] = f"http://{address}/api/v3"
    exchange.urls["api"]["ws"]["spot"] = f"ws://{address}/ws"
    seen = 0
    while seen < trades:
        for trade in await asyncio.wait_for(exchange.watch_trades(symbol), 30):
            seen += 1
            print(json.dumps({"id": trade["id"], "price": trade["price"], "amount": trade["amount"], "side": trade["side"]}), flush=True)
    for _ in range(books):
        book = await asyncio.wait_for(exchange.watch_order_book(symbol), 30)
        print(json.dumps({"u": book["nonce"], "bids": book["bids"], "asks": book["asks"]}), flush=True)
    await exchange.close()


asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
