"""Fifty SIGKILLs under load; the verdict comes from what the clients were told, written down here and not in the broker."""
import collections, threading, time
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent import QUIET, create, records
from driving import SHARED, Broker, seeded, test

KILLS = 50
# Three partitions of one topic and the one of another, whose producers compress.
PARTITIONS = [("plain", 0), ("plain", 1), ("plain", 2), ("packed", 0)]

# By default librdkafka forgets all brokers when the last connection is gone, and asks for metadata once a second only: it would hardly
# ever get as far as a produce request between two kills.
RECOVERS = {"metadata.recovery.strategy": "none"}


class Sender(threading.Thread):
    """Producers of one kind of acknowledgement, and the ledger of what they were told."""

    def __init__(self, broker, kind, config):
        super().__init__()
        self.kind, self.ended = kind, threading.Event()
        common = {"bootstrap.servers": broker.address, "linger.ms": 1, "reconnect.backoff.ms": 5, "reconnect.backoff.max.ms": 40,
                  "retry.backoff.ms": 10, **RECOVERS, "message.timeout.ms": 120_000, "socket.timeout.ms": 10_000, "log_level": 0, **config}
        self.producers = {"plain": Producer(common), "packed": Producer({**common, "compression.type": "lz4"})}
        self.sent = collections.Counter()
        self.told = collections.defaultdict(dict)      # partition -> number -> offset, -1 if the client does not know it
        self.failed = collections.defaultdict(dict)    # partition -> number -> error

    def run(self):
        turn = 0
        while not self.ended.is_set():
            place = PARTITIONS[turn % len(PARTITIONS)]
            producer, number = self.producers[place[0]], self.sent[place]
            if len(producer) < 500:
                value = f"{self.kind} {number} ".encode() + b"." * (number * 37 % 400)
                producer.produce(place[0], value, partition=place[1], on_delivery=lambda e, m, p=place, n=number: self.on_delivery(e, m, p, n))
                self.sent[place] += 1
            turn += 1
            if turn % 8 == 0:
                for each in self.producers.values():
                    each.poll(0)
                time.sleep(0.003)
        for producer in self.producers.values():
            self.left = producer.flush(60)

    def on_delivery(self, error, message, place, number):
        if error:
            self.failed[place][number] = str(error)
        else:
            self.told[place][number] = message.offset()


class Reader(threading.Thread):
    """Reads along, and remembers at which offset it saw what: nothing that was seen may change afterwards."""

    def __init__(self, broker):
        super().__init__()
        self.ended, self.seen, self.contradictions = threading.Event(), {}, []
        self.consumer = Consumer({"bootstrap.servers": broker.address, "group.id": "unused", "enable.auto.commit": False, "log_level": 0, **RECOVERS,
                                  "reconnect.backoff.ms": 5, "reconnect.backoff.max.ms": 40, "auto.offset.reset": "error"})
        self.consumer.assign([TopicPartition(t, p, 0) for t, p in PARTITIONS])

    def run(self):
        while not self.ended.is_set():
            for message in self.consumer.consume(500, 0.1):
                if message.error():
                    if "range" in str(message.error()).lower():
                        self.contradictions.append(str(message.error()))
                    continue
                key = (message.topic(), message.partition(), message.offset())
                if self.seen.setdefault(key, message.value()) != message.value():
                    self.contradictions.append(key)
        self.consumer.close()


def read_all(broker):
    """partition -> values by offset, every offset from 0 to the end."""
    consumer = Consumer({"bootstrap.servers": broker.address, "group.id": "unused", "enable.auto.commit": False, "check.crcs": True, **QUIET, "queued.max.messages.kbytes": 200_000})
    found = {}
    for topic, partition in PARTITIONS:
        low, end = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=20)
        assert low == 0, f"{topic}-{partition} begins at {low}"
        consumer.assign([TopicPartition(topic, partition, 0)])
        values, patience = [], time.monotonic() + 60
        while len(values) < end:
            for message in records(consumer.consume(min(end - len(values), 10_000), 1)):
                assert message.offset() == len(values), f"{topic}-{partition}: {message.offset()} where {len(values)} should follow"
                values.append(message.value())
            assert time.monotonic() < patience, f"{topic}-{partition}: {len(values)} of {end} records after 60 s"
        found[topic, partition] = values
    consumer.close()
    return found


def judge(sender, found, exactly_once):
    for place in PARTITIONS:
        where = f"{sender.kind} in {place[0]}-{place[1]}"
        at = collections.defaultdict(list)
        for offset, value in enumerate(found[place]):
            kind, number = value.split(b" ")[:2]
            if kind.decode() == sender.kind:
                at[int(number)].append(offset)
        assert max(at, default=-1) < sender.sent[place], f"{where}: a record that was never sent"
        for number, offset in sender.told[place].items():
            assert number in at, f"{where}: record {number} was acknowledged at {offset} and is gone"
            assert offset < 0 or offset in at[number], f"{where}: record {number} was acknowledged at {offset} and lies at {at[number]}"
        if exactly_once:
            assert not sender.failed[place], f"{where}: failed {list(sender.failed[place].items())[:3]}"
            twice = {n: o for n, o in at.items() if len(o) > 1}
            assert not twice, f"{where}: written more than once {list(twice.items())[:3]}"
            offsets = [at[n][0] for n in sorted(at)]
            assert offsets == sorted(offsets), f"{where}: out of order"
            assert len(at) == sender.sent[place], f"{where}: {len(at)} of {sender.sent[place]} records"


@test
def what_was_acknowledged_survives_fifty_kills():
    kill_again_and_again(KILLS)


def kill_again_and_again(kills):
    random = seeded("kill9")
    broker = Broker(settings={"log.segment.bytes": "1048576", "num.partitions": "1"}).start()
    create(broker, "plain", 3)
    create(broker, "packed", 1)
    senders = [
        # A retried record without idempotence may be there twice; what is asked of it is that it is there.
        Sender(broker, "acks=0", {"acks": 0}),
        Sender(broker, "acks=1", {"acks": 1, "retries": 0}),
        Sender(broker, "acks=all", {"acks": "all", "enable.idempotence": True}),
    ]
    reader = Reader(broker)
    for thread in (*senders, reader):
        thread.start()
    patience = time.monotonic() + 20
    while not all(sum(map(len, sender.told.values())) > 100 for sender in senders):
        assert time.monotonic() < patience, "the producers do not get going"
        time.sleep(0.05)
    started, slowest = time.monotonic(), 0
    lives = 0  # those in which a record was acknowledged with acks=all
    try:
        for _ in range(kills):
            before = sum(map(len, senders[2].told.values()))
            time.sleep(random.uniform(0.05, 0.8) if random.random() < 0.8 else random.uniform(0, 0.05))
            lives += sum(map(len, senders[2].told.values())) > before
            broker.kill()
            broker.start(wait=False)
            slowest = max(slowest, broker.wait_for_answer())
        time.sleep(0.5)
    finally:
        for thread in senders:
            thread.ended.set()
        for thread in senders:
            thread.join()
        reader.ended.set()
        reader.join()
    found = read_all(broker)
    told = {s.kind: sum(len(t) for t in s.told.values()) for s in senders}
    print(f"note {kills} kills in {time.monotonic() - started:.0f} s, slowest start {slowest * 1000:.0f} ms; acknowledged {told}, of acks=all in {lives} lives; "
          f"{sum(map(len, found.values()))} records in the log")
    assert told["acks=all"] >= 100 * kills and lives >= kills / 2, "too little was acknowledged to say anything"
    for sender in senders:
        if sender.kind != "acks=0":  # nothing is promised to it, and its client invents the offsets
            judge(sender, found, exactly_once=sender.kind == "acks=all")
    assert not reader.contradictions, f"what a consumer had seen changed: {reader.contradictions[:3]}"
    for (topic, partition, offset), value in reader.seen.items():
        assert found[topic, partition][offset] == value, f"{topic}-{partition} at {offset}: a consumer had seen something else"
    broker.stop()
    if SHARED.joinpath("kafka-data/read_dir.py").exists():
        from directories import sound
        sound(broker)
