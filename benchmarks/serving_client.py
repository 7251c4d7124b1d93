"""A client that loads a server and costs little itself: one thread, sockets that stay open."""

from __future__ import annotations

import json
import selectors
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field


@dataclass
class Load:
    """What came of the requests.

    Attributes:
        seconds: From the first request to the last answer.
        client_cpu_s: Of this process, for all of them.
        latencies_s: Of each request that was answered.
        statuses: How many answers had each status; 0 is a connection that broke.
    """

    seconds: float = 0.0
    client_cpu_s: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)

    @property
    def rate(self) -> float:
        """Answers of 200 in a second."""
        return self.statuses[200] / self.seconds

    def quantile_ms(self, share: float) -> float:
        """Return a quantile of the latencies, 0..1."""
        ranked = sorted(self.latencies_s)
        return 1e3 * ranked[min(int(share * len(ranked)), len(ranked) - 1)]


def post(path: str, body: bytes, **headers: str) -> bytes:
    """Return a request as it goes over the wire; names of headers with _ for -."""
    lines = [f"POST {path} HTTP/1.1", "host: 127.0.0.1", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def tensor_request(path: str, name: str, values: bytes, shape: Sequence[int]) -> bytes:
    """Return a request of the Open Inference Protocol with its tensor in binary."""
    tensor = {"name": name, "shape": list(shape), "datatype": "FP32",
              "parameters": {"binary_data_size": len(values)}}  # fmt: skip
    head = json.dumps({"inputs": [tensor]}).encode()
    kind, length = "application/octet-stream", str(len(head))
    return post(path, head + values, content_type=kind, inference_header_content_length=length)


class _Connection:
    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.got = bytearray()
        self.begun = 0.0

    def send(self, request: bytes) -> None:
        self.begun = time.perf_counter()
        self.socket.sendall(request)

    def status(self) -> int | None:
        """Read; return the status of an answer that is whole, None before, 0 where it broke."""
        try:
            data = self.socket.recv(1 << 16)
        except OSError:
            return 0
        if not data:
            return 0
        self.got += data
        end = self.got.find(b"\r\n\r\n")
        if end < 0:
            return None
        head = bytes(self.got[:end]).lower()
        length = int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
        if len(self.got) < end + 4 + length:
            return None
        self.got.clear()
        return int(head.split(b" ", 2)[1])


def load(
    port: int,
    requests: Sequence[bytes],
    *,
    connections: int,
    total: int,
    watch: Callable[[int], object] = bool,
) -> Load:
    """Send requests in turn over several connections, each the next when it has its answer.

    Args:
        port: Of the server, on this machine.
        requests: What is sent, over and over.
        connections: How many requests are under way at once.
        total: How many in all.
        watch: Is told how many are answered, after each hundred.
    """
    found = Load()
    selector = selectors.DefaultSelector()
    sent = done = 0
    cpu, start = time.process_time(), time.perf_counter()
    for _ in range(min(connections, total)):
        each = _Connection(port)
        selector.register(each.socket, selectors.EVENT_READ, each)
        each.send(requests[sent % len(requests)])
        sent += 1
    while done < total:
        for key, _ in selector.select():
            each = key.data
            status = each.status()
            if status is None:
                continue
            found.statuses[status] += 1
            found.latencies_s.append(time.perf_counter() - each.begun)
            done += 1
            if done % 100 == 0:
                watch(done)
            if status == 0:
                selector.unregister(each.socket)
                each.socket.close()
                each = _Connection(port)
                selector.register(each.socket, selectors.EVENT_READ, each)
            if sent < total:
                each.send(requests[sent % len(requests)])
                sent += 1
    found.seconds = time.perf_counter() - start
    found.client_cpu_s = time.process_time() - cpu
    for key in list(selector.get_map().values()):
        key.data.socket.close()
    selector.close()
    return found
