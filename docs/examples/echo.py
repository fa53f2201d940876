"""An echo server (RFC 862) with a thread per connection, to try the gate with.

    python3 echo.py PORT [STEPS]

Before each reply it does STEPS steps of useless arithmetic, 0 if not given: a known slow-down.
"""

import signal
import socketserver
import sys

PORT = int(sys.argv[1])
STEPS = int(sys.argv[2]) if len(sys.argv) > 2 else 0


def burn(value):
    for _ in range(STEPS):
        value = value * 31 % 65521
    return value


class Echo(socketserver.StreamRequestHandler):
    disable_nagle_algorithm = True

    def handle(self):
        while data := self.request.recv(65536):
            burn(data[0])
            self.request.sendall(data)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    request_queue_size = 1024
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass  # A client that goes away is no news.


signal.signal(signal.SIGTERM, lambda *_: sys.exit())
with Server(("127.0.0.1", PORT), Echo) as server:
    server.serve_forever()
