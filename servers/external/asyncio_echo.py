"""Echo (RFC 862) with a task per connection on one thread: python3 asyncio_echo.py PORT ADDRESS"""

import asyncio
import sys


async def echo(reader, writer):
    # asyncio sets TCP_NODELAY by itself.
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass  # A client that goes away is no news.
    finally:
        writer.close()


async def main():
    port, address = int(sys.argv[1]), sys.argv[2]
    server = await asyncio.start_server(echo, address, port, backlog=4096, reuse_address=True)
    await server.serve_forever()


asyncio.run(main())
