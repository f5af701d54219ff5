"""The load of the overload, in a process of its own: a client beside it is measured, and must not wait for this interpreter."""
import collections, multiprocessing, selectors, socket, struct, time, traceback
from wire import FETCH, Answer, Closed, Connection, frame, string

MEGABYTE = 1 << 20


class Aside:
    """A function that is run in another process, from `go` on. Made before there are threads."""

    def __init__(self, work, *arguments):
        forking = multiprocessing.get_context("fork")
        self.pipe, theirs = forking.Pipe()
        self.process = forking.Process(target=self.run, args=(theirs, work, arguments), daemon=True)
        self.process.start()

    @staticmethod
    def run(pipe, work, arguments):
        pipe.recv()
        try:
            pipe.send((work(*arguments), None))
        except BaseException:
            pipe.send((None, traceback.format_exc()))

    def go(self):
        self.pipe.send(True)
        return self

    def result(self, seconds):
        try:
            assert self.pipe.poll(seconds), f"the load is still under way after {seconds:.0f} s"
            result, failure = self.pipe.recv()
            assert failure is None, f"the load: {failure}"
            return result
        finally:
            self.process.kill()
            self.process.join()


class Flooding:
    """One of many producers: so many requests of it are under way all the time."""

    def __init__(self, port, request, topic):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.socket.setblocking(False)
        # correlation, one topic, its name, one partition, its number, the error
        self.request, self.error_at = request, 4 + 4 + 4 + 2 + len(topic) + 4 + 4
        self.started, self.left, self.incoming = collections.deque(), memoryview(b""), b""
        self.answers, self.waits, self.errors = 0, [], collections.Counter()

    def send(self, in_flight):
        """Whether more is to be sent when there is room."""
        while True:
            if not self.left:
                if len(self.started) >= in_flight:
                    return False
                self.left = memoryview(self.request)
                self.started.append(time.monotonic())
            try:
                self.left = self.left[self.socket.send(self.left) :]
            except BlockingIOError:
                return True

    def receive(self):
        got = self.socket.recv(65536)
        assert got, "the broker closed a producer's connection"
        self.incoming += got
        now = time.monotonic()
        while len(self.incoming) >= 4 and len(self.incoming) - 4 >= struct.unpack_from(">i", self.incoming)[0]:
            error, = struct.unpack_from(">h", self.incoming, self.error_at)
            if error:
                self.errors[error] += 1
            self.incoming = self.incoming[4 + struct.unpack_from(">i", self.incoming)[0] :]
            self.waits.append(now - self.started.popleft())
            self.answers += 1


def flood(port, topic, requests, producers, in_flight, seconds):
    """How many answers each producer got, how long each waited, and what failed."""
    chooser = selectors.DefaultSelector()
    peers = [Flooding(port, requests[i % len(requests)], topic) for i in range(producers)]
    for peer in peers:
        chooser.register(peer.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, peer)
    until, patience = time.monotonic() + seconds, time.monotonic() + seconds + 60
    in_time = None
    while any(peer.started for peer in peers) or in_time is None:
        is_over = time.monotonic() >= until
        if is_over and in_time is None:
            in_time = [peer.answers for peer in peers]
        for key, events in chooser.select(0.2):
            peer = key.data
            if events & selectors.EVENT_READ:
                peer.receive()
            # what was begun is sent to its end
            wants = peer.send(0 if is_over else in_flight)
            chooser.modify(peer.socket, selectors.EVENT_READ | (selectors.EVENT_WRITE if wants else 0), peer)
        assert time.monotonic() < patience, f"{sum(len(peer.started) for peer in peers)} requests were not answered a minute after the last"
    errors = sum((peer.errors for peer in peers), collections.Counter())
    return in_time, [peer.answers for peer in peers], sorted(wait for peer in peers for wait in peer.waits), errors


class Reading:
    """A consumer that reads all partitions of a topic from the start, again and again, and checks each byte that it is sent."""

    def __init__(self, port, topic, partitions, payload, records):
        self.connection = Connection(port, timeout=30)
        self.connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * MEGABYTE)
        self.topic, self.payload, self.records = topic, payload, records
        self.upto, self.order, self.rounds, self.bytes = [0] * partitions, list(range(partitions)), 0, 0
        self.buffer = bytearray(64 * MEGABYTE)

    def ask(self):
        # replica -1, no wait, at most 50 MB; isolation, no session; what has been read to its end comes last
        self.order.sort(key=lambda partition: self.upto[partition] >= self.records)
        body = struct.pack(">iiiib", -1, 0, 0, 50 * MEGABYTE, 0) + struct.pack(">i", 1) + string(self.topic) + struct.pack(">i", len(self.order))
        body += b"".join(struct.pack(">iqi", partition, self.upto[partition], MEGABYTE) for partition in self.order)
        self.connection.send(frame(FETCH, 4, body))

    def receive(self):
        size, = struct.unpack(">i", self.connection.exactly(4))
        view, at = memoryview(self.buffer)[:size], 0
        while at < size:
            count = self.connection.socket.recv_into(view[at:])
            assert count, "the broker closed a consumer's connection"
            at += count
        answer = Answer(view)
        answer.take("iii")
        length = answer.take("h")
        answer.at += length
        count, before = answer.take("i"), self.bytes
        assert count == len(self.upto), f"{count} of {len(self.upto)} partitions are in an answer"
        for _ in range(count):
            self.take(answer)
        assert answer.at == size, f"{size - answer.at} bytes at the end of an answer say nothing"
        assert self.bytes > before, "an answer without a record, and there are some left"
        if min(self.upto) == self.records:
            self.upto, self.rounds = [0] * len(self.upto), self.rounds + 1

    def take(self, answer):
        partition, error, high, stable, aborted, count = answer.take("ihqqii")
        assert error == 0 and aborted <= 0, f"partition {partition}: error {error}"
        assert (high, stable) == (self.records, self.records), f"partition {partition}: {high} and {stable} of {self.records} may be read"
        records = bytes(self.buffer[answer.at : answer.at + max(count, 0)])
        answer.at += max(count, 0)
        if not records:
            return
        # the base offset and the leader's epoch are the broker's; the last batch may be cut
        assert records[16 : len(self.payload)] == self.payload[16 : len(records)], f"partition {partition}: not what was produced"
        assert struct.unpack_from(">q", records)[0] == self.upto[partition] == 0, f"partition {partition}: not from the start"
        assert len(records) <= len(self.payload), f"partition {partition}: {len(records)} bytes of {len(self.payload)}"
        if len(records) == len(self.payload):
            self.upto[partition] = self.records
            self.bytes += len(records)


def read_again_and_again(port, topic, partitions, payload, records, consumers, seconds):
    """How many bytes were read, and how often at least each consumer read all."""
    readers = [Reading(port, topic, partitions, payload, records) for _ in range(consumers)]
    until = time.monotonic() + seconds
    while time.monotonic() < until or any(reader.rounds == 0 for reader in readers):
        for reader in readers:
            reader.ask()
        for reader in readers:
            reader.receive()
        assert time.monotonic() < until + 60, "a minute was not enough to read all once"
    return sum(reader.bytes for reader in readers), min(reader.rounds for reader in readers)


# Fetches that name very many partitions


def uvarint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def fetch_of_many(version, topic, partitions, count, wait=0, min_bytes=1):
    """A fetch that names so many partitions of a topic that has fewer, again and again: version 4, or 12, which begins a session."""
    numbers = range(min(partitions, count))
    if version == 4:
        piece = b"".join(struct.pack(">iqi", number, 0, MEGABYTE) for number in numbers)
        body = struct.pack(">iiiib", -1, wait, min_bytes, 50 * MEGABYTE, 0) + struct.pack(">i", 1) + string(topic)
        return frame(FETCH, 4, body + struct.pack(">i", count) + piece * (count // len(numbers)))
    piece = b"".join(struct.pack(">iiqiqib", number, -1, 0, -1, -1, MEGABYTE, 0) for number in numbers)
    body = struct.pack(">iiiibii", -1, wait, min_bytes, 50 * MEGABYTE, 0, 0, 0) + uvarint(2) + uvarint(len(topic) + 1) + topic.encode()
    # tags: of the header, of the topic, none forgotten, no rack, of the request
    inner = struct.pack(">hhi", FETCH, version, 1) + string("driven") + b"\0"
    inner += body + uvarint(count + 1) + piece * (count // len(numbers)) + b"\0" + b"\1" + b"\1" + b"\0"
    return struct.pack(">i", len(inner)) + inner


def drained(connection):
    """Takes one answer and throws it away; its size."""
    size, = struct.unpack(">i", connection.exactly(4))
    left, buffer = size, bytearray(MEGABYTE)
    while left:
        count = connection.socket.recv_into(buffer, min(left, len(buffer)))
        if not count:
            raise Closed(f"after {size - left} of {size} bytes")
        left -= count
    return size


def ask_again_and_again(port, request, seconds):
    """One client, a request after the other; who is refused comes again. How many answers, and how many closed connections."""
    answers, closed, until = 0, 0, time.monotonic() + seconds
    while time.monotonic() < until:
        connection = Connection(port, timeout=30)
        try:
            while time.monotonic() < until:
                connection.send(request)
                drained(connection)
                answers += 1
        except (Closed, OSError):
            closed += 1
            time.sleep(0.1)
        connection.close()
    return answers, closed


def hold_fetches(port, request, count, seconds, are_answered):
    """So many connections, each with one request: they take their answers, if there are to be some, and stay."""
    answers, closed, peers = 0, 0, []
    for _ in range(count):
        connection = Connection(port, timeout=30)
        try:
            connection.send(request)
            if are_answered:
                drained(connection)
                answers += 1
        except (Closed, OSError):
            closed += 1
        peers.append(connection)
    time.sleep(seconds)
    return answers, closed
