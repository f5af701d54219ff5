"""Peers that send nonsense, too much, too slowly, or never read: they pay, and nobody else does."""
import contextlib, socket, struct, threading, time, zlib
from driving import Broker, seeded, test, wait_until
from wire import (API_VERSIONS, METADATA, PRODUCE, Closed, Connection, batch, crc32c, create_topic, fetch, frame, produce, string, values_in,
                  varint)

MEGABYTE = 1 << 20


class Bystander(threading.Thread):
    """Another client, at work all the while: produces, fetches, and notes how long each answer took."""

    def __init__(self, broker, topic="bystander"):
        super().__init__()
        self.connection, self.topic, self.ended = Connection(broker.port), topic, threading.Event()
        assert self.connection.create_topic(topic) == 0
        self.waits, self.produced, self.error = [], [], None

    def run(self):
        try:
            count = 0
            while not self.ended.is_set():
                started = time.monotonic()
                error, offset = self.connection.produce(self.topic, 0, [b"%d" % count])
                assert (error, offset) == (0, count), f"error {error}, offset {offset} for record {count}"
                self.produced.append(time.monotonic() - started)
                error, _, batches = self.connection.fetch(self.topic, 0, count)
                assert error == 0 and values_in(batches) == [(count, b"%d" % count)], (error, batches[:100])
                self.waits.append(time.monotonic() - started)
                count += 1
                time.sleep(0.01)
        except Exception as error:
            self.error = error

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, kind, *_):
        patience = time.monotonic() + 5
        while len(self.waits) < 5 and self.error is None and time.monotonic() < patience:
            time.sleep(0.05)
        self.ended.set()
        self.join()
        if kind is None:
            assert self.error is None, f"the bystander: {type(self.error).__name__} {self.error}"
            worst = max(self.waits, default=99)
            assert worst < 4, f"the bystander waited {worst:.2f} s, in {len(self.waits)} turns"


def grown(broker, before, limit, what):
    now = broker.memory()
    assert now - before < limit, f"{what}: {(now - before) / MEGABYTE:.0f} MB more than before"


@test
def garbage_closes_its_connection_and_nothing_else():
    random = seeded("garbage")
    broker = Broker().start()
    before = broker.memory()
    with Bystander(broker):
        for round in range(300):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", broker.port), timeout=2) as s:
                garbage = random.randbytes(random.randrange(1, 4000))
                if round % 3 == 0:
                    garbage = struct.pack(">i", len(garbage)) + garbage
                elif round % 3 == 1:  # a real API and a version it may have, then nonsense
                    body = struct.pack(">hhi", random.choice([0, 1, 2, 3, 18, 19, 20, 21, 22, 23, 60]), random.randrange(0, 18), round) + string("x") + garbage
                    garbage = struct.pack(">i", len(body)) + body
                s.sendall(garbage)
                s.shutdown(socket.SHUT_WR)
                while s.recv(65536):
                    pass
    assert broker.is_running()
    grown(broker, before, 40 * MEGABYTE, "garbage")


@test
def mutated_requests_never_end_the_process():
    random = seeded("mutated")
    broker = Broker().start()
    Connection(broker.port).create_topic("target", 2)
    good = [produce("target", 0, batch([b"v" * 50] * 3)), fetch("target", 0, 0, wait=0), create_topic("new", 1, {"retention.ms": "1000"}),
            frame(METADATA, 1, struct.pack(">i", 1) + string("target")), frame(API_VERSIONS, 3, b"\x02a\x02b\0")]
    with Bystander(broker):
        for _ in range(1500):
            request = bytearray(random.choice(good))
            for _ in range(random.randrange(1, 6)):
                at = random.randrange(4, len(request))
                request[at] = random.choice([0, 1, 0x7F, 0x80, 0xFF, random.randrange(256)])
            with contextlib.suppress(OSError, Closed, struct.error):
                connection = Connection(broker.port, timeout=0.3)
                connection.send(request)
                connection.socket.shutdown(socket.SHUT_WR)
                connection.receive()
            connection.close()
    assert broker.is_running()


@test
def a_frame_that_claims_too_much_is_closed_at_once():
    broker = Broker().start()
    before = broker.memory()
    for size in (-1, -(1 << 31), (1 << 31) - 1, 104857601):
        connection = Connection(broker.port)
        connection.send(struct.pack(">i", size) + b"\0" * 100)
        assert connection.is_closed_by_peer(3), f"a frame of {size} bytes is waited for"
    grown(broker, before, 20 * MEGABYTE, "impossible frames")


@test
def large_frames_from_many_are_bounded_by_the_memory_limit():
    limit = 64 * MEGABYTE
    broker = Broker(settings={"martlet.memory.limit.bytes": str(limit)}).start()
    before = broker.memory()
    frame_size, count = 16 * MEGABYTE, 30
    peers, ended = [], threading.Event()

    def send_slowly(connection):
        # All but its end: 480 MB in the air, of which the broker may hold 64.
        with contextlib.suppress(OSError):
            connection.send(struct.pack(">ihhi", frame_size, PRODUCE, 3, 1) + string("large"))
            piece = b"\0" * 65536
            for _ in range(frame_size // len(piece) - 1):
                if ended.is_set():
                    return
                connection.send(piece)
            ended.wait(20)

    with Bystander(broker):
        for _ in range(count):
            peers.append(Connection(broker.port, timeout=20))
            threading.Thread(target=send_slowly, args=(peers[-1],), daemon=True).start()
        worst = 0
        for _ in range(30):
            time.sleep(0.1)
            worst = max(worst, broker.memory() - before)
        ended.set()
        for peer in peers:
            with contextlib.suppress(OSError):
                peer.socket.shutdown(socket.SHUT_RDWR)
            peer.close()
    assert worst < limit + 48 * MEGABYTE, f"{worst / MEGABYTE:.0f} MB with a limit of {limit / MEGABYTE:.0f}"
    Connection(broker.port).api_versions()


@test
def a_frame_that_comes_a_byte_at_a_time_holds_up_nobody():
    broker = Broker().start()
    request = frame(API_VERSIONS, 0, b"", client="slow")
    with Bystander(broker):
        slow = [Connection(broker.port) for _ in range(20)]
        for byte in request:
            for connection in slow:
                connection.send(bytes([byte]))
            time.sleep(0.02)
        for connection in slow:
            assert connection.receive()[1].take("h") == 0


@test
def two_thousand_half_open_connections_cost_little():
    broker = Broker().start()
    before = broker.memory()
    with Bystander(broker):
        peers = [socket.create_connection(("127.0.0.1", broker.port)) for _ in range(2000)]
        for i, peer in enumerate(peers):
            if i % 2:
                peer.sendall(b"\0\0\1")
        time.sleep(0.5)
        grown(broker, before, 60 * MEGABYTE, "2,000 idle connections")
        descriptors = broker.descriptors()
        for peer in peers:
            peer.close()
        wait_until(lambda: broker.descriptors() < descriptors - 1900, 5, what="the end of the connections")


@test
def readers_that_never_read_cost_bounded_memory():
    broker = Broker().start()
    writer = Connection(broker.port)
    assert writer.create_topic("large") == 0
    payload = batch([b"z" * 900_000])
    for _ in range(30):
        assert Connection.produced(writer.ask(produce("large", 0, payload)))[0] == 0
    before = broker.memory()
    with Bystander(broker):
        deaf = [Connection(broker.port, timeout=2, receive_buffer=4096) for _ in range(50)]
        for connection in deaf:
            connection.socket.setblocking(False)
            for i in range(200):
                with contextlib.suppress(BlockingIOError):
                    connection.socket.send(fetch("large", 0, 0, max_bytes=20 * MEGABYTE, wait=0, correlation=i))
        for _ in range(20):
            time.sleep(0.1)
            grown(broker, before, 150 * MEGABYTE, "50 deaf readers")
        busy = broker.processor_seconds()
        time.sleep(1)
        assert broker.processor_seconds() - busy < 0.6, "the broker spins on those who do not read"
        for connection in deaf:
            connection.close()


@test
def requests_without_end_from_one_who_never_reads_are_held_back():
    broker = Broker().start()
    before = broker.memory()
    request = frame(METADATA, 1, struct.pack(">i", -1))
    with Bystander(broker):
        deaf = Connection(broker.port, timeout=0.5, receive_buffer=4096)
        sent = 0
        with contextlib.suppress(OSError):
            while sent < 400 * MEGABYTE:
                deaf.send(request * 1000)
                sent += len(request) * 1000
        grown(broker, before, 60 * MEGABYTE, "answers that nobody reads")
        assert sent < 200 * MEGABYTE, f"{sent / MEGABYTE:.0f} MB of requests were taken though no answer was read"


@test
def a_peer_that_goes_while_it_waits_is_noticed():
    broker = Broker().start()
    opener = Connection(broker.port)
    assert opener.create_topic("quiet") == 0
    before = broker.descriptors()
    peers = [Connection(broker.port) for _ in range(100)]
    for i, peer in enumerate(peers):
        peer.send(fetch("quiet", 0, 0, wait=60_000))
    wait_until(lambda: broker.descriptors() >= before + 100, 3)
    time.sleep(0.2)
    for i, peer in enumerate(peers):
        if i % 2:
            peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
    wait_until(lambda: broker.descriptors() <= before + 5, 3, what="the end of waits whose peers have gone")


def bomb(compress, attributes, size):
    """A batch whose one record is `size` zero bytes, compressed to almost nothing."""
    body = b"\0" + varint(0) + varint(0) + varint(-1) + varint(size)
    head = varint(len(body) + size + 1) + body
    compressed = compress(head, size, b"\0")
    tail = struct.pack(">hiqqqhii", attributes, 0, 1_700_000_000_000, 1_700_000_000_000, -1, -1, -1, 1) + compressed
    return struct.pack(">qiibI", 0, len(tail) + 9, -1, 2, crc32c(tail)) + tail


def gzipped(head, size, end):
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    parts, piece = [packer.compress(head)], bytes(MEGABYTE)
    for _ in range(size // MEGABYTE):
        parts.append(packer.compress(piece))
    return b"".join(parts) + packer.compress(end) + packer.flush()


def zstandard_packed(head, size, end):
    import zstandard
    packer = zstandard.ZstdCompressor(level=3).compressobj()
    parts, piece = [packer.compress(head)], bytes(MEGABYTE)
    for _ in range(size // MEGABYTE):
        parts.append(packer.compress(piece))
    return b"".join(parts) + packer.compress(end) + packer.flush()


@test
def decompression_bombs_are_refused_in_bounded_memory():
    broker = Broker(settings={"martlet.memory.limit.bytes": str(64 * MEGABYTE)}).start()
    connection = Connection(broker.port, timeout=30)
    assert connection.create_topic("bombed") == 0
    bombs = [bomb(gzipped, 1, 400 * MEGABYTE), bomb(zstandard_packed, 4, 2000 * MEGABYTE)]
    before = broker.memory()
    with Bystander(broker):
        for packed in bombs:
            assert len(packed) < MEGABYTE
            error, _ = Connection.produced(connection.ask(produce("bombed", 0, packed)))
            assert error != 0, "a bomb was taken"
            grown(broker, before, 160 * MEGABYTE, "a bomb")
    assert connection.end_offset("bombed") == 0


@test
def ten_thousand_connections_in_a_row_leave_nothing_behind():
    broker = Broker().start()
    for _ in range(200):
        Connection(broker.port).close()
    time.sleep(0.3)
    before, descriptors = broker.memory(), broker.descriptors()
    for _ in range(10_000):
        socket.create_connection(("127.0.0.1", broker.port)).close()
    time.sleep(0.5)
    grown(broker, before, 10 * MEGABYTE, "10,000 connections that came and went")
    assert broker.descriptors() <= descriptors + 3
