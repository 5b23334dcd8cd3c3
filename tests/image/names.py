"""A name server of one zone, as a cluster's: UDP, addresses of version 4."""

import random
import socket
import struct
import threading
from socketserver import BaseRequestHandler, UDPServer

ADDRESS, CLASS = 1, 1
ANSWER = 0x8580  # A response, authoritative, recursion asked for and there.
SERVER_FAILURE, NO_SUCH_NAME = 2, 3
POINTER_TO_QUESTION = 0xC00C


class NameServer(UDPServer):
    """Serves `names`, name to address, on an address of the loopback of its own, as resolv.conf knows no ports.

    While `failure` is a response code that is its answer to everything; `SILENCE`: it answers nothing.
    """

    SILENCE = object()

    def __init__(self, names):
        self.names = names
        self.failure = None
        self.asked = []
        chosen = (random.randrange(1, 255) for _ in range(3))
        self.address = ".".join(map(str, (127, *chosen)))
        super().__init__((self.address, 53), Query)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self.shutdown()
        self.server_close()


class Query(BaseRequestHandler):
    def handle(self):
        query, reply = self.request
        labels, at = [], 12
        while size := query[at]:
            labels.append(query[at + 1 : at + 1 + size].decode())
            at += 1 + size
        name = ".".join(labels).lower()
        question = query[12 : at + 5]
        kind, _ = struct.unpack("!HH", question[-4:])

        self.server.asked.append(name)
        failure = self.server.failure
        if failure is self.server.SILENCE:
            return
        address = None if failure else self.server.names.get(name)
        record = b""
        if address and kind == ADDRESS:
            record = struct.pack("!HHHIH", POINTER_TO_QUESTION, ADDRESS, CLASS, 5, 4) + socket.inet_aton(address)
        flags = ANSWER if address else ANSWER | (failure or NO_SUCH_NAME)
        head = query[:2] + struct.pack("!HHHHH", flags, 1, bool(record), 0, 0)
        reply.sendto(head + question + record, self.client_address)
