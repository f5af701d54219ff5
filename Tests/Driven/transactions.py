"""Transactions of real clients, ended, aborted, fenced and read; and what operators do about them. `exactly_once` has those that also consume."""
import asyncio, collections, contextlib, logging, subprocess, threading, time
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition as AiokafkaPartition
from aiokafka.errors import KafkaError as AiokafkaError
from cli import martlet, told
from confluent import QUIET, create, produce
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from driving import ROOT, Broker, Skip, test, wait_until
from kafka import KafkaConsumer, KafkaProducer, TopicPartition as KafkaPythonPartition
from kafka.errors import KafkaError as KafkaPythonError
from kafka.structs import OffsetAndMetadata
from wire import Connection, batch, produce as wire_produce

logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
SETTINGS = {
    "group.initial.rebalance.delay.ms": "0", "offsets.topic.replication.factor": "1", "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4", "transaction.abort.timed.out.transaction.cleanup.interval.ms": "300",
}


def read(broker, topic, partitions, isolation="read_committed"):
    """All of a topic up to its end, by partition."""
    consumer = Consumer({
        "bootstrap.servers": broker.address, "group.id": "reader", "enable.auto.commit": False, "isolation.level": isolation,
        "enable.partition.eof": True, "auto.offset.reset": "earliest", **QUIET})
    consumer.assign([TopicPartition(topic, p, 0) for p in range(partitions)])
    found, left, end = collections.defaultdict(list), set(range(partitions)), time.monotonic() + 20
    while left and time.monotonic() < end:
        for message in consumer.consume(500, 0.2):
            if message.error():
                left.discard(message.partition())
            else:
                found[message.partition()].append(message.value())
    consumer.close()
    assert not left, f"partitions {left} come to no end"
    return found


def producer(broker, ident, **more):
    made = Producer({"bootstrap.servers": broker.address, "transactional.id": ident, **QUIET, **more})
    made.init_transactions(20)
    return made


class OfConfluent:
    """A transactional producer, in the words that all three clients have for it here."""

    def __init__(self, broker, ident):
        self.made = producer(broker, ident)
        self.begin, self.flush = self.made.begin_transaction, lambda: self.made.flush(10)
        self.commit, self.abort = lambda: self.made.commit_transaction(20), lambda: self.made.abort_transaction(20)

    def send(self, topic, value):
        self.made.produce(topic, value)

    def close(self):
        pass


class OfKafkaPython:
    def __init__(self, broker, ident):
        self.made = KafkaProducer(bootstrap_servers=broker.address, transactional_id=ident, retry_backoff_ms=20, reconnect_backoff_ms=20)
        self.made.init_transactions()
        self.begin, self.flush = self.made.begin_transaction, lambda: self.made.flush(10)
        self.commit, self.abort = self.made.commit_transaction, self.made.abort_transaction

    def send(self, topic, value):
        self.made.send(topic, value)

    def close(self):
        self.made.close(2)


class OfAiokafka:
    """Its loop runs in a thread."""

    def __init__(self, broker, ident):
        self.loop, self.sent = asyncio.new_event_loop(), []
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

        async def start():
            made = AIOKafkaProducer(bootstrap_servers=broker.address, transactional_id=ident, retry_backoff_ms=20)
            await made.start()
            return made
        self.made = self.run(start())

    def run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)

    def begin(self):
        self.run(self.made.begin_transaction())

    def send(self, topic, value):
        self.sent.append(self.run(self.made.send(topic, value)))

    def flush(self):
        self.run(self.made.flush())

    def commit(self):
        self.run(self.made.commit_transaction())

    def abort(self):
        self.run(self.made.abort_transaction())

    def close(self):
        with contextlib.suppress(Exception):
            self.run(asyncio.wait_for(self.made.stop(), 5))
        self.loop.call_soon_threadsafe(self.loop.stop)


CLIENTS = [OfConfluent, OfKafkaPython, OfAiokafka]
REFUSALS = (KafkaException, KafkaPythonError, AiokafkaError)


def read_by_kafka_python(broker, topic, isolation):
    consumer = KafkaConsumer(bootstrap_servers=broker.address, group_id=None, isolation_level=isolation, consumer_timeout_ms=1000)
    consumer.assign([KafkaPythonPartition(topic, 0)])
    consumer.seek_to_beginning()
    values = [record.value for record in consumer]
    consumer.close()
    return values


def read_by_aiokafka(broker, topic, isolation):
    async def read():
        consumer = AIOKafkaConsumer(bootstrap_servers=broker.address, isolation_level=isolation)
        await consumer.start()
        try:
            consumer.assign([AiokafkaPartition(topic, 0)])
            await consumer.seek_to_beginning()
            values = []
            while found := await consumer.getmany(timeout_ms=1000):
                values += [record.value for batch in found.values() for record in batch]
            return values
        finally:
            await consumer.stop()
    return asyncio.run(asyncio.wait_for(read(), 60))


def read_by_sarama(broker, topic, isolation):
    program = ROOT / ".build/sarama"
    if not program.exists():
        raise Skip(f"{program} is not built: `make test` does it")
    got = subprocess.run([program, "read", broker.address, topic, isolation], capture_output=True, timeout=30)
    assert got.returncode == 0, got.stderr
    return got.stdout.splitlines()


@test
def who_comes_later_fences_who_was_there():
    broker = Broker(SETTINGS).start()
    for made in CLIENTS:
        topic = made.__name__
        create(broker, topic)
        old = made(broker, topic)
        old.begin()
        old.send(topic, b"lost")
        old.flush()
        new = made(broker, topic)
        new.begin()
        new.send(topic, b"kept")
        new.commit()
        try:
            old.commit()
            raise AssertionError(f"{topic}: the old producer committed")
        except REFUSALS as error:
            if made is OfConfluent:
                assert error.args[0].fatal() or error.args[0].txn_requires_abort(), error
            else:
                assert "Fenced" in type(error).__name__ or "Epoch" in f"{type(error).__name__}{error}", repr(error)
        assert read(broker, topic, 1)[0] == [b"kept"], topic
        assert read(broker, topic, 1, "read_uncommitted")[0] == [b"lost", b"kept"], topic
        for each in (old, new):
            each.close()


@test
def aborted_records_are_read_by_nobody_who_reads_what_is_committed():
    broker = Broker(SETTINGS).start()
    kept, all_sent = {}, {}
    for client in CLIENTS:
        topic = client.__name__
        create(broker, topic)
        made, kept[topic], all_sent[topic] = client(broker, topic), [], []
        for i in range(30):
            values = [b"%d-%d" % (i, j) for j in range(5)]
            made.begin()
            for value in values:
                made.send(topic, value)
            all_sent[topic] += values
            if i % 3 == 1:
                made.flush()
                made.abort()
            else:
                made.commit()
                kept[topic] += values
        made.close()
    for topic in kept:
        assert read(broker, topic, 1)[0] == kept[topic], topic
        for read_by in (read_by_kafka_python, read_by_aiokafka):
            assert read_by(broker, topic, "read_committed") == kept[topic], f"{topic} {read_by.__name__}"
            assert read_by(broker, topic, "read_uncommitted") == all_sent[topic], f"{topic} {read_by.__name__}"
    broker.kill()
    broker.start()
    for topic in kept:
        assert read(broker, topic, 1)[0] == kept[topic], f"{topic} after a kill"


@test
def sarama_reads_what_is_committed_and_waits_for_what_is_not():
    broker = Broker(SETTINGS).start()
    create(broker, "t")
    made, kept = producer(broker, "one"), []
    for i in range(12):
        made.begin_transaction()
        made.produce("t", b"%d" % i)
        if i % 3 == 1:
            made.flush(10)
            made.abort_transaction(20)
        else:
            made.commit_transaction(20)
            kept.append(b"%d" % i)
    made.begin_transaction()
    made.produce("t", b"open")
    made.flush(10)
    produce(broker, "t", [dict(value=b"behind it")])
    assert read_by_sarama(broker, "t", "read_committed") == kept
    assert read_by_sarama(broker, "t", "read_uncommitted") == [b"%d" % i for i in range(12)] + [b"open", b"behind it"]
    made.commit_transaction(20)
    assert read_by_sarama(broker, "t", "read_committed") == kept + [b"open", b"behind it"]


@test
def a_transaction_goes_on_when_the_broker_is_killed_between_its_begin_and_its_end():
    broker = Broker(SETTINGS).start()
    for client in CLIENTS:
        topic = client.__name__
        create(broker, topic)
        made = client(broker, topic)
        for word, end in (("first", made.commit), ("no", made.abort), ("second", made.commit)):
            made.begin()
            made.send(topic, f"{word} before".encode())
            made.flush()
            broker.kill()
            broker.start()
            made.send(topic, f"{word} after".encode())
            made.flush()
            assert f"{word} before".encode() not in read(broker, topic, 1)[0], f"{topic}: seen before its end"
            end()
        kept = [b"first before", b"first after", b"second before", b"second after"]
        assert read(broker, topic, 1)[0] == kept, topic
        made.close()


@test
def offsets_that_kafka_python_sends_to_a_transaction_count_when_it_commits():
    broker = Broker(SETTINGS).start()
    create(broker, "t")
    place = KafkaPythonPartition("t", 0)
    reader = KafkaConsumer(bootstrap_servers=broker.address, group_id="g", enable_auto_commit=False)
    made = OfKafkaPython(broker, "one")
    for offset, end, wanted in ((3, made.commit, 3), (7, made.abort, 3), (9, made.commit, 9)):
        before = reader.committed(place)
        made.begin()
        made.made.send_offsets_to_transaction({place: OffsetAndMetadata(offset, "", -1)}, "g")
        assert reader.committed(place) == before, "an offset is told of before its transaction has ended"
        end()
        wait_until(lambda: reader.committed(place) == wanted, 5, what=f"offset {wanted}")
    reader.close()
    made.close()


@test
def operators_see_transactions_and_abort_one():
    broker = Broker(SETTINGS).start()
    create(broker, "t")
    made = producer(broker, "billing-1")
    made.begin_transaction()
    made.produce("t", b"open")
    made.flush(10)
    idle = producer(broker, "billing-2")
    listed = {t["transactionalId"]: t["state"] for t in told(broker, "transaction", "list")["transactions"]}
    assert listed == {"billing-1": "Ongoing", "billing-2": "Empty"}, listed
    assert [t["transactionalId"] for t in told(broker, "transaction", "list", "--state", "Ongoing")["transactions"]] == ["billing-1"]
    assert [t["transactionalId"] for t in told(broker, "transaction", "list", "--pattern", ".*-2")["transactions"]] == ["billing-2"]
    one, = told(broker, "transaction", "describe", "billing-1")["transactions"]
    assert (one["state"], one["partitions"]) == ("Ongoing", [{"topic": "t", "partition": 0}]) and one["openMs"] >= 0, one
    assert "billing-1" in martlet(broker, "transaction", "describe", "billing-1").out
    martlet(broker, "transaction", "describe", "nobody", code=1)
    # its coordinator knows it: it does not hang, however long it is open
    assert told(broker, "transaction", "find-hanging", "--older-than", 0)["hanging"] == []
    assert told(broker, "transaction", "abort", "--transactional-id", "billing-1") == {"aborted": True}
    wait_until(lambda: told(broker, "transaction", "describe", "billing-1")["transactions"][0]["state"] != "Ongoing", what="the abort")
    try:
        made.commit_transaction(20)
        raise AssertionError("it committed what was aborted")
    except KafkaException:
        pass
    assert read(broker, "t", 1)[0] == []
    del idle


@test
def why_names_the_transaction_that_a_topic_and_a_group_wait_for():
    broker = Broker(SETTINGS).start()
    create(broker, "t")
    produce(broker, "t", [dict(value=b"%d" % i) for i in range(3)])
    assert "why: nothing is waited for" in martlet(broker, "topic", "describe", "t", "--why").out
    made = producer(broker, "billing-1")
    made.begin_transaction()
    made.produce("t", b"open")
    made.flush(10)
    reader = Consumer({"bootstrap.servers": broker.address, "group.id": "g", **QUIET})
    made.send_offsets_to_transaction([TopicPartition("t", 0, 2)], reader.consumer_group_metadata(), 20)
    topic, = told(broker, "topic", "describe", "t", "--why")["topics"]
    reason, = topic["why"]
    assert (reason["code"], reason["subject"]) == ("open-transaction", "t-0"), reason
    assert "t-0: transaction billing-1 of producer " in reason["text"] and "is open since offset 3: 1 record" in reason["text"], reason
    assert 0 < reason["left"] <= 60_000 and reason["since"] > 1_700_000_000_000, reason
    text = martlet(broker, "topic", "describe", "t", "--why").out
    assert "why:\n  - t-0: transaction billing-1 " in text, text
    group, = told(broker, "group", "describe", "g", "--why")["groups"]
    reasons = {one["code"]: one["text"] for one in group["why"]}
    assert "An offset for t-0 belongs to transaction billing-1 of producer " in reasons["offset-in-transaction"], reasons
    made.commit_transaction(20)
    wait_until(lambda: told(broker, "topic", "describe", "t", "--why")["topics"][0]["why"] == [], 5, what="the end of the wait")
    reader.close()


@test
def a_transaction_that_hangs_is_found_and_ended():
    # without verification, what a fenced producer sends late begins a transaction that nobody knows of
    broker = Broker({**SETTINGS, "transaction.partition.verification.enable": "false"}).start()
    create(broker, "t")
    producer_id = 424_242
    connection = Connection(broker.port)
    records = batch([b"late"], producer=(producer_id, 3, 0), attributes=0x10)
    connection.send(wire_produce("t", 0, records, transactional_id="nobody-knows"))
    connection.receive()
    produce(broker, "t", [dict(value=b"behind it")])
    hanging, = told(broker, "transaction", "find-hanging", "--topic", "t", "--older-than", 0)["hanging"]
    assert (hanging["producerId"], hanging["startOffset"], hanging["partition"]) == (producer_id, 0, 0), hanging
    text = martlet(broker, "transaction", "find-hanging", "--older-than", 0).out
    assert "START OFFSET" in text, text
    martlet(broker, "transaction", "abort", "--topic", "t", "--partition", 0, "--start-offset", 7, code=1)
    martlet(broker, "transaction", "abort", "--topic", "t", "--partition", 0, "--start-offset", 0)
    assert told(broker, "transaction", "find-hanging", "--older-than", 0)["hanging"] == []
    assert read(broker, "t", 1)[0] == [b"behind it"]
