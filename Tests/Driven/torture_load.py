"""The load of the torture: real clients, and the ledger of what they were told, from which it is judged."""
import collections, contextlib, json, logging, pathlib, subprocess, threading, time
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from kafka import KafkaProducer
from kafka.errors import KafkaError
from confluent import QUIET, records
import driving
from driving import wait_until

PARTITIONS = [("plain", 0), ("plain", 1), ("packed", 0)]
RECOVERS = {"metadata.recovery.strategy": "none", "reconnect.backoff.ms": 5, "reconnect.backoff.max.ms": 100, "log_level": 0}


class Ledger:
    """The history as `docs/design/checkers.md` has it, a line an event, for `martlet-check`."""

    def __init__(self, path):
        self.path, self.file, self.lock, self.operations = path, open(path, "w"), threading.Lock(), 0

    def operation(self):
        with self.lock:
            self.operations += 1
            return self.operations

    def note(self, event, **fields):
        line = json.dumps({"at": time.monotonic_ns(), "event": event, **fields}, separators=(",", ":"))
        with self.lock:
            self.file.write(line + "\n")

    def judge(self):
        """With the checkers of the simulation too."""
        self.file.close()
        program = pathlib.Path(driving.PROGRAM).parent / "martlet-check"
        assert program.exists(), f"{program} is not built: make test builds it, and so does make torture"
        got = subprocess.run([program, self.path], capture_output=True, text=True, timeout=300)
        assert got.returncode == 0, f"martlet-check {self.path}:\n{got.stdout[-3000:]}{got.stderr[-1000:]}"
        return "martlet-check agrees"


class KafkaPython:
    """An idempotent producer of kafka-python, in librdkafka's words."""
    Message = collections.namedtuple("Message", "offset")

    def __init__(self, address, topic):
        # what the network does is told by the records that come and go
        logging.getLogger("kafka").setLevel(logging.CRITICAL)
        self.lock, self.open = threading.Lock(), 0
        self.producer = KafkaProducer(
            bootstrap_servers=address, acks="all", enable_idempotence=True, linger_ms=1, delivery_timeout_ms=180_000,
            request_timeout_ms=10_000, max_block_ms=120_000, retry_backoff_ms=10, reconnect_backoff_ms=5, reconnect_backoff_max_ms=100,
            compression_type="zstd" if topic == "packed" else None)

    def __len__(self):
        return self.open

    def count(self, change):
        with self.lock:
            self.open += change

    def produce(self, topic, value, partition, on_delivery):
        def done(told):
            on_delivery(None, self.Message(lambda: told.offset))
            self.count(-1)

        def failed(error):
            on_delivery(f"{type(error).__name__} {error}", None)
            self.count(-1)
        self.count(1)
        try:
            future = self.producer.send(topic, value, partition=partition)
        except KafkaError as error:
            self.count(-1)
            raise KafkaException(str(error)) from error
        future.add_callback(done)
        future.add_errback(failed)

    def poll(self, _):
        pass

    def flush(self, seconds):
        with contextlib.suppress(KafkaError):
            self.producer.flush(seconds)
        # the last callbacks come after it
        with contextlib.suppress(AssertionError):
            wait_until(lambda: not self.open, 5)
        return self.open


class Sender(threading.Thread):
    """An idempotent producer with acks=all: every record of it once, in order."""
    pause = 0.01

    def __init__(self, address, name, ledger):
        super().__init__()
        self.name, self.ledger, self.ended, self.left = name, ledger, threading.Event(), 0
        self.address = address
        self.producers = {topic: self.make(topic) for topic in ("plain", "packed")}
        self.sent, self.told, self.failed = collections.Counter(), collections.defaultdict(dict), []

    def make(self, topic):
        return Producer({
            "bootstrap.servers": self.address, "acks": "all", "enable.idempotence": True, "linger.ms": 1, "message.timeout.ms": 180_000,
            "socket.timeout.ms": 10_000, "retry.backoff.ms": 10, "compression.type": "zstd" if topic == "packed" else "none", **RECOVERS})

    def run(self):
        turn = 0
        while not self.ended.is_set():
            topic, partition = place = PARTITIONS[turn % len(PARTITIONS)]
            producer, number = self.producers[topic], self.sent[place]
            if len(producer) < 300:
                # what a disk that is full refuses is sent again, and a small record would not fill it
                value = f"{self.name}:{topic}:{partition}:{number}:" + "." * (number * 37 % 600)
                operation = self.ledger.operation()
                self.ledger.note("send", operation=operation, producer=f"{self.name}-{topic}", topic=topic, partition=partition,
                                 values=[value], acks=-1, idempotent=True)
                try:
                    producer.produce(topic, value.encode(), partition=partition,
                                     on_delivery=lambda e, m, p=place, n=number, o=operation: self.on_delivery(e, m, p, n, o))
                except KafkaException as error:
                    self.failed.append((place, number, str(error)))
                    self.ledger.note("refused", operation=operation, reason=str(error))
                self.sent[place] += 1
            turn += 1
            if turn % 6 == 0:
                for each in self.producers.values():
                    each.poll(0)
                time.sleep(self.pause)
        for each in self.producers.values():
            self.left += each.flush(90)

    def on_delivery(self, error, message, place, number, operation):
        if error:
            self.failed.append((place, number, str(error)))
            return self.ledger.note("unknown", operation=operation, reason=str(error))
        self.told[place][number] = message.offset()
        known = {"offset": message.offset()} if message.offset() >= 0 else {}
        self.ledger.note("accepted", operation=operation, **known)

    def count(self):
        return sum(map(len, self.told.values()))


class PythonSender(Sender):
    """The same with kafka-python, which costs the process that drives all of this more."""
    pause = 0.04

    def make(self, topic):
        return KafkaPython(self.address, topic)


class Reader(threading.Thread):
    """Reads along, and remembers at which offset it saw what; commits how far it came."""

    def __init__(self, address, ledger):
        super().__init__()
        self.ledger, self.ended, self.seen, self.contradictions, self.committed = ledger, threading.Event(), {}, [], {}
        self.consumer = Consumer({"bootstrap.servers": address, "group.id": "torture", "enable.auto.commit": False, "auto.offset.reset": "error",
                                  "check.crcs": True, **RECOVERS})
        self.consumer.assign([TopicPartition(t, p, 0) for t, p in PARTITIONS])

    def run(self):
        next_commit, upto = time.monotonic(), {}
        while not self.ended.is_set():
            asked = time.monotonic_ns()
            for message in self.consumer.consume(500, 0.1):
                if message.error():
                    if "range" in str(message.error()).lower():
                        self.contradictions.append(str(message.error()))
                        self.ledger.note("broken", reason=str(message.error()))
                    continue
                key = (message.topic(), message.partition(), message.offset())
                self.ledger.note("saw", consumer="along", topic=key[0], partition=key[1], asked=asked, **{"from": key[2]},
                                 records=[[key[2], message.value().decode()]])
                if self.seen.setdefault(key, message.value()) != message.value():
                    self.contradictions.append(key)
                upto[key[:2]] = key[2] + 1
            if time.monotonic() > next_commit and upto:
                next_commit = time.monotonic() + 0.3
                self.commit(dict(upto))
        self.consumer.close()

    def commit(self, upto):
        operations = {place: self.ledger.operation() for place in upto}
        for place, offset in upto.items():
            self.ledger.note("commit", operation=operations[place], group="torture", topic=place[0], partition=place[1], offset=offset)
        try:
            done = self.consumer.commit(offsets=[TopicPartition(t, p, o) for (t, p), o in upto.items()], asynchronous=False)
        except Exception as error:
            done, reason = [], str(error)
        for place in upto:
            answer = next((one for one in done if (one.topic, one.partition) == place), None)
            if answer is not None and answer.error is None:
                self.committed[place] = upto[place]
                self.ledger.note("accepted", operation=operations[place])
            else:
                self.ledger.note("unknown", operation=operations[place], reason=str(answer.error) if answer else reason)


def read_all(address, ledger):
    """partition -> values by offset, every offset from 0 to the end."""
    consumer = Consumer({"bootstrap.servers": address, "group.id": "torture", "enable.auto.commit": False, "check.crcs": True, **QUIET,
                         "queued.max.messages.kbytes": 200_000})
    found, committed = {}, {}
    for one in consumer.committed([TopicPartition(t, p) for t, p in PARTITIONS], timeout=30):
        committed[one.topic, one.partition] = one.offset
        ledger.note("committed", group="torture", topic=one.topic, partition=one.partition, asked=time.monotonic_ns(), offset=one.offset)
    for topic, partition in PARTITIONS:
        low, end = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=30)
        assert low == 0, f"{topic}-{partition} begins at {low}"
        consumer.assign([TopicPartition(topic, partition, 0)])
        values, patience, asked = [], time.monotonic() + 60, time.monotonic_ns()
        while len(values) < end:
            for message in records(consumer.consume(min(end - len(values), 10_000), 1)):
                assert message.offset() == len(values), f"{topic}-{partition}: {message.offset()} where {len(values)} should follow"
                values.append(message.value())
            assert time.monotonic() < patience, f"{topic}-{partition}: {len(values)} of {end} records after 60 s"
        # a line may have 16 MiB
        for first in range(0, len(values), 10_000):
            ledger.note("saw", consumer="last", topic=topic, partition=partition, asked=asked, **{"from": first},
                        records=[[first + o, v.decode()] for o, v in enumerate(values[first:first + 10_000])])
        ledger.note("whole", consumer="last", topic=topic, partition=partition, start=0, end=end)
        found[topic, partition] = values
    consumer.close()
    return found, committed


def judge(senders, reader, found, committed):
    for sender in senders:
        assert not sender.failed, f"{sender.name}: failed for good {sender.failed[:3]}"
        assert sender.left == 0, f"{sender.name}: {sender.left} records were never answered"
        for place in PARTITIONS:
            where, at = f"{sender.name} in {place[0]}-{place[1]}", collections.defaultdict(list)
            for offset, value in enumerate(found[place]):
                name, _, _, number, _ = value.decode().split(":")
                if name == sender.name:
                    at[int(number)].append(offset)
            assert max(at, default=-1) < sender.sent[place], f"{where}: a record that was never sent"
            for number, offset in sender.told[place].items():
                assert number in at, f"{where}: record {number} was acknowledged at {offset} and is gone"
                assert offset < 0 or at[number] == [offset], f"{where}: record {number} was acknowledged at {offset} and lies at {at[number]}"
            twice = {n: o for n, o in at.items() if len(o) > 1}
            assert not twice, f"{where}: written more than once {list(twice.items())[:3]}"
            offsets = [at[n][0] for n in sorted(at)]
            assert offsets == sorted(offsets), f"{where}: out of order"
            missing = set(range(sender.sent[place])) - set(at)
            assert not missing, f"{where}: {len(missing)} of {sender.sent[place]} records are not there"
    assert not reader.contradictions, f"what a consumer had seen changed: {reader.contradictions[:3]}"
    for (topic, partition, offset), value in reader.seen.items():
        assert found[topic, partition][offset] == value, f"{topic}-{partition} at {offset}: a consumer had seen something else"
    for place, offset in reader.committed.items():
        assert committed[place] >= offset, f"{place}: offset {offset} was committed, and {committed[place]} is told"
