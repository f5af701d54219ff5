"""Transactions of real clients: consume, transform and produce exactly once, whoever is killed; and what operators do about them."""
import collections, pathlib, signal, subprocess, sys, time
from confluent import QUIET, create, produce
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from cli import martlet, told
from driving import Broker, seeded, test, wait_until
from wire import Connection, batch, produce as wire_produce

SETTINGS = {
    "group.initial.rebalance.delay.ms": "0", "offsets.topic.replication.factor": "1", "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4", "transaction.abort.timed.out.transaction.cleanup.interval.ms": "300",
}
WORKER = pathlib.Path(__file__).parent / "transaction_worker.py"


class Worker:
    """A process of `transaction_worker.py`."""

    def __init__(self, client, broker, group, ident, timeout=60_000):
        self.command = [
            sys.executable, "-u", str(WORKER), client, broker.address, group, "input", "output", ident, "--timeout", str(timeout)]
        self.log = broker.folder / f"worker-{ident}"
        self.start()

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def keep_going(self):
        """One that gave up is started anew, as its keeper would."""
        if self.process.poll() is not None:
            self.start()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.kill()

    def lines(self):
        return self.log.read_text(errors="replace").splitlines()

    def committed(self):
        return sum(int(line.split()[1]) for line in self.lines() if line.startswith("committed "))


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


def exactly_once(client, kill_the_broker):
    broker = Broker(SETTINGS).start()
    random = seeded(f"{client}-{kill_the_broker}")
    partitions, each = 3, 400
    for topic in ("input", "output"):
        create(broker, topic, partitions)
    for p in range(partitions):
        produce(broker, "input", [dict(value=b"%d-%d" % (p, i)) for i in range(each)], partition=p)
    workers = [Worker(client, broker, "g", f"worker-{i}", timeout=3_000) for i in range(2)]
    try:
        wait_until(lambda: any(w.committed() for w in workers), 20, what="a first transaction")
        for _ in range(4):
            time.sleep(random.uniform(0.05, 0.5))
            if kill_the_broker:
                broker.kill()
                broker.start()
            victim = random.choice(workers)
            victim.kill()
            victim.start()
        wanted = {p: [b"%d-%d!" % (p, i) for i in range(each)] for p in range(partitions)}

        def done():
            for worker in workers:
                worker.keep_going()
            return sum(len(v) for v in read(broker, "output", partitions).values()) >= partitions * each
        wait_until(done, 35, every=0.3, what=f"every record of the input; {[w.lines()[-3:] for w in workers]}")
        for worker in workers:
            worker.end()
        found = read(broker, "output", partitions)
        for p in range(partitions):
            extra = [v for v, n in collections.Counter(found[p]).items() if n > 1]
            assert found[p] == wanted[p], f"partition {p}: {len(found[p])} records, twice {extra[:5]}, {found[p][:5]}"
    finally:
        for worker in workers:
            worker.kill()


@test
def confluent_transforms_exactly_once_whoever_of_its_workers_is_killed():
    exactly_once("confluent", False)


@test
def confluent_transforms_exactly_once_when_the_broker_is_killed_too():
    exactly_once("confluent", True)


@test
def aiokafka_transforms_exactly_once_when_the_broker_is_killed_too():
    exactly_once("aiokafka", True)


def producer(broker, ident, **more):
    made = Producer({"bootstrap.servers": broker.address, "transactional.id": ident, **QUIET, **more})
    made.init_transactions(20)
    return made


@test
def who_comes_later_fences_who_was_there():
    broker = Broker(SETTINGS).start()
    create(broker, "t")
    old = producer(broker, "one")
    old.begin_transaction()
    old.produce("t", b"lost")
    old.flush(10)
    new = producer(broker, "one")
    new.begin_transaction()
    new.produce("t", b"kept")
    new.commit_transaction(20)
    try:
        old.commit_transaction(20)
        raise AssertionError("the old producer committed")
    except KafkaException as error:
        assert error.args[0].fatal() or error.args[0].txn_requires_abort(), error
    assert read(broker, "t", 1)[0] == [b"kept"]
    assert read(broker, "t", 1, "read_uncommitted")[0] == [b"lost", b"kept"]


@test
def aborted_records_are_read_by_nobody_who_reads_what_is_committed():
    broker = Broker(SETTINGS).start()
    create(broker, "t")
    made, kept = producer(broker, "one"), []
    for i in range(30):
        made.begin_transaction()
        for j in range(5):
            made.produce("t", b"%d-%d" % (i, j))
        if i % 3 == 1:
            made.flush(10)
            made.abort_transaction(20)
        else:
            made.commit_transaction(20)
            kept += [b"%d-%d" % (i, j) for j in range(5)]
    assert read(broker, "t", 1)[0] == kept
    broker.kill()
    broker.start()
    assert read(broker, "t", 1)[0] == kept


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
