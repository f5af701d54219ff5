"""More than a broker can take: it pays with time, not with memory, and nobody else's produce fails.

What is measured is the broker's resident memory (`RssAnon`, ten times a second) against the limit that it tells at its start,
and how long others waited. `MARTLET_OVERLOAD_SECONDS=60` makes the load of each test last that long.
"""
import contextlib, os, re, resource, selectors, socket, struct, threading, time
from driving import Broker, seeded, test, wait_until
from hostile import MEGABYTE, Bystander
from wire import API_VERSIONS, FETCH, METADATA, PRODUCE, Connection, batch, frame, produce, string

SECONDS = float(os.environ.get("MARTLET_OVERLOAD_SECONDS", "5"))
# the records carry a time of years ago
KEPT = {"log.retention.ms": "-1"}


def told_limit(broker):
    """What the broker says at its start that clients can make it hold."""
    found = wait_until(lambda: re.search(r"at most (\d+) MB for clients", broker.output()), 5, what="the limit of memory at the start")
    return int(found[1]) * MEGABYTE


class Memory(threading.Thread):
    """Samples the broker's memory until the block ends; then it must have stayed below the limit."""

    def __init__(self, broker):
        super().__init__(daemon=True)
        self.broker, self.limit, self.most, self.ended = broker, told_limit(broker), 0, threading.Event()

    def run(self):
        while not self.ended.wait(0.1):
            with contextlib.suppress(OSError, AttributeError):
                self.most = max(self.most, self.broker.memory())

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, kind, *_):
        self.ended.set()
        self.join()
        if kind is None:
            assert self.broker.is_running(), "the broker has ended"
            assert 0 < self.most <= self.limit, f"{self.most / MEGABYTE:.0f} MB resident, and {self.limit / MEGABYTE:.0f} were told"


def figures(name, memory, bystander):
    def told(waits):
        waits = [wait * 1000 for wait in sorted(waits)]
        return f"{waits[len(waits) // 2]:.1f} ms, 99 in 100 at most {waits[int(len(waits) * 0.99)]:.0f} ms, the worst {waits[-1]:.0f} ms"
    print(f"note {name}: {memory.most / MEGABYTE:.0f} of {memory.limit / MEGABYTE:.0f} MB; another's produce took {told(bystander.produced)}; "
          f"with the fetch of it {told(bystander.waits)}; {len(bystander.waits)} of them", flush=True)


def many_descriptors(count):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, hard), hard))


@test
def the_limit_of_memory_is_told_and_follows_the_settings():
    assert told_limit(Broker().start()) <= 512 * MEGABYTE, "with default settings"
    usual, less = told_limit(Broker().start()), told_limit(Broker({"martlet.memory.limit.bytes": str(16 * MEGABYTE)}).start())
    assert less < usual - 64 * MEGABYTE, (less, usual)


@test
def ten_thousand_connections_of_which_one_in_ten_sends_garbage():
    random = seeded("crowd")
    many_descriptors(12_000)
    broker = Broker(KEPT).start()
    request = frame(METADATA, 1, struct.pack(">i", 0))
    with Memory(broker) as memory, Bystander(broker) as bystander:
        peers = []
        for i in range(10_000):
            # a port each: addresses of this machine share the work
            peer = socket.create_connection(("127.0.0.1", broker.port), timeout=10, source_address=(f"127.0.{i % 4}.1", 0))
            peers.append(peer)
            garbage = random.randbytes(random.randrange(1, 2000))
            with contextlib.suppress(OSError):
                peer.sendall(struct.pack(">i", len(garbage)) + garbage if i % 20 == 0 else garbage if i % 20 == 10 else request[:-1] if i % 3 else request)
        # half a request may wait for the rest for half a minute
        time.sleep(min(SECONDS / 2, 20))
        # who has sent half of a request is still there, and is answered
        served = 0
        for i in range(1, 3000, 3):
            if i % 10:
                peers[i].sendall(request[-1:])
                peers[i].settimeout(10)
                served += len(peers[i].recv(4)) == 4
        assert served == sum(1 for i in range(1, 3000, 3) if i % 10), f"{served} of those who were slow were answered"
        for peer in peers:
            peer.close()
    figures("10,000 connections", memory, bystander)


def feeding(peers, pieces, ended, pause):
    """Sends each peer its next bytes again and again, from one thread."""
    while not ended.is_set():
        for peer in list(peers):
            with contextlib.suppress(OSError, BlockingIOError):
                peer.send(pieces)
        ended.wait(pause)


@test
def frames_of_a_hundred_megabytes_and_a_byte_a_second():
    broker = Broker(KEPT).start()
    ended = threading.Event()
    large, slow = [], []
    size = 100 * MEGABYTE
    with Memory(broker) as memory, Bystander(broker) as bystander:
        head = struct.pack(">ihhi", size, PRODUCE, 3, 1) + string("large")
        for i in range(60):
            peer = socket.create_connection(("127.0.0.1", broker.port))
            peer.sendall(head)
            peer.setblocking(False)
            (large if i % 2 else slow).append(peer)
        threads = [threading.Thread(target=feeding, args=(large, bytes(MEGABYTE), ended, 0.01), daemon=True),
                   threading.Thread(target=feeding, args=(slow, b"\0", ended, 1), daemon=True)]
        for thread in threads:
            thread.start()
        # what comes in pieces and needs memory for itself is served beside them
        other = Connection(broker.port, timeout=20)
        assert other.create_topic("whole") == 0
        value, worst, count, until = bytes(600_000), 0, 0, time.monotonic() + 2 * SECONDS
        while time.monotonic() < until:
            request, started = produce("whole", 0, batch([value])), time.monotonic()
            for at in range(0, len(request), 200_000):
                other.socket.sendall(request[at : at + 200_000])
                time.sleep(0.002)
            error, _ = Connection.produced(other.receive()[1])
            assert error == 0, error
            worst, count = max(worst, time.monotonic() - started), count + 1
        ended.set()
        for thread in threads:
            thread.join()
        for peer in large + slow:
            peer.close()
        assert worst < 10, f"a request of 600 kB waited {worst:.1f} s"
    figures("frames of 100 MB", memory, bystander)
    print(f"note frames of 100 MB: {count} requests of 600 kB in pieces beside them, the slowest {worst * 1000:.0f} ms", flush=True)


@test
def a_thousand_who_never_read():
    many_descriptors(4_000)
    broker = Broker(KEPT).start()
    writer = Connection(broker.port)
    for i in range(40):
        assert writer.create_topic(f"topic-with-a-long-name-so-that-metadata-is-large-{i}", 50) == 0
    request = frame(METADATA, 1, struct.pack(">i", -1)) * 50
    with Memory(broker) as memory, Bystander(broker) as bystander:
        peers, sent = [], 0
        for _ in range(1000):
            peer = socket.socket()
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            peer.connect(("127.0.0.1", broker.port))
            peer.setblocking(False)
            peers.append(peer)
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            for peer in peers:
                with contextlib.suppress(OSError):
                    sent += peer.send(request)
        for peer in peers:
            peer.close()
    figures(f"1,000 that never read ({sent / MEGABYTE:.0f} MB of requests)", memory, bystander)


@test
def a_thousand_producers_beyond_what_the_disk_takes():
    many_descriptors(4_000)
    broker = Broker(KEPT).start()
    admin = Connection(broker.port)
    assert admin.create_topic("flood", 50) == 0
    requests = [produce("flood", partition, batch([bytes(16_000)] * 2)) for partition in range(50)]
    chooser, answers, failed = selectors.DefaultSelector(), 0, []
    with Memory(broker) as memory, Bystander(broker) as bystander:
        peers = []
        for i in range(1000):
            peer = socket.create_connection(("127.0.0.1", broker.port), timeout=20)
            peer.sendall(requests[i % 50])
            chooser.register(peer, selectors.EVENT_READ, i)
            peers.append([peer, b""])
        until = time.monotonic() + 2 * SECONDS
        while time.monotonic() < until:
            for key, _ in chooser.select(1):
                state = peers[key.data]
                got = state[0].recv(65536)
                assert got, "the broker closed a producer's connection"
                state[1] += got
                if len(state[1]) >= 4 and len(state[1]) - 4 >= struct.unpack_from(">i", state[1])[0]:
                    body, state[1] = state[1][4:], b""
                    # correlation, one topic, its name, one partition, its number, the error
                    error, = struct.unpack_from(">h", body, 4 + 4 + 2 + len("flood") + 4 + 4)
                    answers += 1
                    if error:
                        failed.append(error)
                    state[0].sendall(requests[key.data % 50])
        for peer, _ in peers:
            peer.close()
        assert not failed, f"{len(failed)} of {answers} produces failed: {sorted(set(failed))}"
        assert answers > 1000, f"{answers} answers"
    figures(f"1,000 producers ({answers} requests of 32 kB)", memory, bystander)


@test
def a_thousand_partitions_from_the_start_beside_a_producer():
    broker = Broker(KEPT).start()
    admin = Connection(broker.port, timeout=60)
    assert admin.create_topic("wide", 1000) == 0
    payload = batch([bytes(20_000)])
    for partition in range(1000):
        admin.socket.sendall(produce("wide", partition, payload))
        if partition % 100 == 99:
            for _ in range(100):
                assert Connection.produced(admin.receive()[1])[0] == 0
    # replica -1, no wait, at most 50 MB; isolation, no session; then every partition from its start
    body = struct.pack(">iiiib", -1, 0, 0, 50 * MEGABYTE, 0) + struct.pack(">i", 1) + string("wide") + struct.pack(">i", 1000)
    body += b"".join(struct.pack(">iqi", partition, 0, MEGABYTE) for partition in range(1000))
    request = frame(FETCH, 4, body)
    with Memory(broker) as memory, Bystander(broker) as bystander:
        consumers = [Connection(broker.port, timeout=30) for _ in range(4)]
        until, got = time.monotonic() + SECONDS, 0
        while time.monotonic() < until:
            for consumer in consumers:
                consumer.send(request)
            for consumer in consumers:
                got += received(consumer)
        for consumer in consumers:
            consumer.close()
    figures(f"1,000 partitions from the start ({got / MEGABYTE:.0f} MB fetched)", memory, bystander)


def received(connection):
    """The size of one whole answer."""
    def exactly(count, sink=None):
        left, parts = count, []
        while left:
            piece = connection.socket.recv(min(left, 1 << 20))
            assert piece, "the broker closed a consumer's connection"
            left -= len(piece)
            if sink is None:
                parts.append(piece)
        return b"".join(parts)
    size, = struct.unpack(">i", exactly(4))
    exactly(size, sink=True)
    return size


@test
def connections_wait_for_a_place_as_in_kafka():
    broker = Broker({"max.connections": "4", "max.connections.per.ip": "3", "max.connections.per.ip.overrides": "127.0.0.9:1"}).start()

    def opened(address):
        return socket.create_connection(("127.0.0.1", broker.port), timeout=5, source_address=(address, 0))

    request = frame(API_VERSIONS, 0, b"")

    def is_served(peer, seconds=3):
        peer.settimeout(seconds)
        peer.sendall(request)
        try:
            return len(peer.recv(4)) == 4
        except (TimeoutError, ConnectionError):
            return False

    wait_until(lambda: "ready" in broker.output(), 5)
    time.sleep(0.3)
    one, again = opened("127.0.0.9"), opened("127.0.0.9")
    assert is_served(one) and not is_served(again), "one address has an override of one"
    three = [opened("127.0.0.2") for _ in range(3)]
    assert all(is_served(peer) for peer in three)
    waiting = opened("127.0.0.3")
    assert not is_served(waiting, 1), "four places are taken"
    three[0].close()
    waiting.settimeout(5)
    assert len(waiting.recv(4)) == 4, "a place became free, and the one who waited was not served"
