# SPDX-License-Identifier: Apache-2.0
"""A WebSocket server and client: websocket.py serve PORT, websocket.py call URL."""
import asyncio
import sys

import websockets


async def echo(socket, path=None):
    async for message in socket:
        await socket.send(message)


async def serve(port):
    async with websockets.serve(echo, "0.0.0.0", int(port)):
        await asyncio.Future()


async def call(url):
    async with websockets.connect(url) as socket:
        for message in ["hello", "x" * 100_000, b"\x00\xff" * 1000, ""]:
            await socket.send(message)
            answer = await socket.recv()
            print(len(answer), answer == message)
        print("pong", await (await socket.ping()) is not None)
    print("closed", socket.close_code)


asyncio.run({"serve": serve, "call": call}[sys.argv[1]](sys.argv[2]))
