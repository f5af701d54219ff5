"""A few requests of the Kafka protocol, spelled out by hand: for what no client would send, and for exact verdicts.

Only old, fixed-width versions: Produce 3, Fetch 4, ListOffsets 1, Metadata 1, ApiVersions 0, CreateTopics 2.
"""
import socket, struct, time

PRODUCE, FETCH, LIST_OFFSETS, METADATA, API_VERSIONS, CREATE_TOPICS = 0, 1, 2, 3, 18, 19
OFFSET_NOT_AVAILABLE = 78

_TABLE = []
for n in range(256):
    for _ in range(8):
        n = (n >> 1) ^ (0x82F63B78 if n & 1 else 0)
    _TABLE.append(n)


def crc32c(data):
    value = 0xFFFFFFFF
    for byte in data:
        value = _TABLE[(value ^ byte) & 0xFF] ^ (value >> 8)
    return value ^ 0xFFFFFFFF


def string(text):
    raw = text.encode()
    return struct.pack(">h", len(raw)) + raw


def frame(api, version, body, correlation=1, client="driven"):
    inner = struct.pack(">hhi", api, version, correlation) + string(client) + body
    return struct.pack(">i", len(inner)) + inner


def varint(value):
    value = (value << 1) ^ (value >> 63)
    out = bytearray()
    while value & ~0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def batch(values, timestamp=1_700_000_000_000, producer=(-1, -1, -1), attributes=0):
    """A record batch of format 2, uncompressed, without keys."""
    records = bytearray()
    for i, value in enumerate(values):
        record = b"\0" + varint(0) + varint(i) + varint(-1) + varint(len(value)) + value + varint(0)
        records += varint(len(record)) + record
    tail = struct.pack(">hiqqqhii", attributes, len(values) - 1, timestamp, timestamp, *producer, len(values)) + records
    return struct.pack(">qiibI", 0, len(tail) + 9, -1, 2, crc32c(tail)) + tail


def produce(topic, partition, records, acks=-1, timeout=10_000, correlation=1, transactional_id=None, client="driven"):
    ident = struct.pack(">h", -1) if transactional_id is None else string(transactional_id)
    body = ident + struct.pack(">hi", acks, timeout) + struct.pack(">i", 1) + string(topic)
    body += struct.pack(">iii", 1, partition, len(records)) + records
    return frame(PRODUCE, 3, body, correlation, client)


def fetch(topic, partition, offset, max_bytes=1 << 20, wait=500, min_bytes=1, correlation=1):
    body = struct.pack(">iiiib", -1, wait, min_bytes, max_bytes, 0) + struct.pack(">i", 1) + string(topic)
    body += struct.pack(">iiqi", 1, partition, offset, max_bytes)
    return frame(FETCH, 4, body, correlation)


def create_topic(topic, partitions=1, configs=None, correlation=1):
    body = struct.pack(">i", 1) + string(topic) + struct.pack(">ihi", partitions, 1, 0)
    body += struct.pack(">i", len(configs or {}))
    for name, value in (configs or {}).items():
        body += string(name) + string(value)
    return frame(CREATE_TOPICS, 2, body + struct.pack(">ib", 30_000, 0), correlation)


class Answer:
    def __init__(self, raw):
        self.raw, self.at = raw, 0

    def take(self, form):
        value = struct.unpack_from(">" + form, self.raw, self.at)
        self.at += struct.calcsize(">" + form)
        return value[0] if len(value) == 1 else value

    def string(self):
        length = self.take("h")
        if length < 0:
            return None
        self.at += length
        return self.raw[self.at - length : self.at].decode()

    def bytes(self):
        length = self.take("i")
        if length < 0:
            return None
        self.at += length
        return self.raw[self.at - length : self.at]


class Closed(Exception):
    """The peer closed the connection."""


class Connection:
    def __init__(self, port, timeout=10, receive_buffer=None):
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(timeout)
        self.socket.connect(("127.0.0.1", port))

    def send(self, data):
        self.socket.sendall(data)

    def exactly(self, count):
        data = bytearray()
        while len(data) < count:
            try:
                piece = self.socket.recv(min(count - len(data), 1 << 20))
            except ConnectionResetError:
                piece = b""
            if not piece:
                raise Closed(f"after {len(data)} of {count} bytes")
            data += piece
        return bytes(data)

    def receive(self):
        """The next answer: (correlation, what follows)."""
        raw = self.exactly(struct.unpack(">i", self.exactly(4))[0])
        return struct.unpack(">i", raw[:4])[0], Answer(raw[4:])

    def ask(self, request):
        self.send(request)
        return self.receive()[1]

    def is_closed_by_peer(self, seconds=5):
        """Whether the peer closes without another word."""
        self.socket.settimeout(seconds)
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False

    def close(self):
        self.socket.close()

    # What the tests ask, in their words.

    def api_versions(self):
        answer = self.ask(frame(API_VERSIONS, 0, b""))
        assert answer.take("h") == 0
        return {key: (low, high) for key, low, high in (answer.take("hhh") for _ in range(answer.take("i")))}

    def create_topic(self, topic, partitions=1, configs=None):
        """The error code."""
        answer = self.ask(create_topic(topic, partitions, configs))
        answer.take("ii")
        answer.string()
        return answer.take("h")

    def produce(self, topic, partition, values, acks=-1):
        """(error code, base offset)."""
        return self.produced(self.ask(produce(topic, partition, batch(values), acks)))

    @staticmethod
    def produced(answer):
        answer.take("i")
        answer.string()
        _, _, error, offset = answer.take("iihq")
        return error, offset

    def fetch(self, topic, partition, offset, max_bytes=1 << 20, wait=500):
        """(error code, high watermark, bytes of batches)."""
        answer = self.ask(fetch(topic, partition, offset, max_bytes, wait))
        answer.take("ii")
        answer.string()
        _, _, error, high_watermark, _ = answer.take("iihqq")
        for _ in range(max(answer.take("i"), 0)):
            answer.take("qq")
        return error, high_watermark, answer.bytes() or b""

    def end_offset(self, topic, partition=0, timestamp=-1, patience=2):
        """Asks again while a leader that has just started does not know it yet, as every client does."""
        answer = self.ask(frame(LIST_OFFSETS, 1, struct.pack(">ii", -1, 1) + string(topic) + struct.pack(">iiq", 1, partition, timestamp)))
        answer.take("i")
        answer.string()
        _, _, error, _, offset = answer.take("iihqq")
        if error == OFFSET_NOT_AVAILABLE and patience > 0:
            time.sleep(0.02)
            return self.end_offset(topic, partition, timestamp, patience - 0.02)
        assert error == 0, f"ListOffsets: error {error}"
        return offset


def values_in(batches):
    """[(offset, value)] of uncompressed batches; a last one that is cut off is left out."""
    found, at = [], 0
    while at + 61 <= len(batches):
        base, length = struct.unpack_from(">qi", batches, at)
        if at + 12 + length > len(batches):
            break
        count = struct.unpack_from(">i", batches, at + 57)[0]
        position = at + 61

        def number():
            nonlocal position
            value = shift = 0
            while True:
                byte = batches[position]
                position += 1
                value |= (byte & 0x7F) << shift
                shift += 7
                if byte < 0x80:
                    return (value >> 1) ^ -(value & 1)

        for _ in range(count):
            end = number() + position
            position += 1
            number()
            offset = base + number()
            key_size = number()
            position += max(key_size, 0)
            size = number()
            found.append((offset, bytes(batches[position : position + size]) if size >= 0 else None))
            position = end
        at += 12 + length
    return found
