"""Echo (RFC 862) with a process per connection: python3 forking_echo.py PORT ADDRESS"""

import signal
import socketserver
import sys


class Echo(socketserver.StreamRequestHandler):
    disable_nagle_algorithm = True

    def handle(self):
        while data := self.request.recv(65536):
            self.request.sendall(data)


class Server(socketserver.ForkingTCPServer):
    allow_reuse_address = True
    request_queue_size = 4096
    max_children = 100_000

    def handle_error(self, request, client_address):
        pass  # A client that goes away is no news.


signal.signal(signal.SIGTERM, lambda *_: sys.exit())
with Server((sys.argv[2], int(sys.argv[1])), Echo) as server:
    server.serve_forever()
