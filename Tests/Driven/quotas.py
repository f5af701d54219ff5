"""Quotas, as clients see them: what is set by one and described by another, who is told to wait, and why one waits."""
import json, socket, struct, threading, time
from driving import Broker, run_program, test, wait_until
from wire import Connection, batch, produce as wire_produce
from confluent_kafka import Consumer, Producer, TopicPartition, OFFSET_BEGINNING
from confluent_kafka.admin import AdminClient, NewTopic
from kafka.admin import KafkaAdminClient

QUIET = {"log_level": 0}


def config(broker, *words, code=0):
    ran = run_program("config", *words, "--bootstrap", broker.address)
    assert ran.returncode == code, f"{words}: {ran.returncode} {ran.stdout} {ran.stderr}"
    return ran


def quotas(broker, *entity):
    told = json.loads(config(broker, "get", *entity, "--json").stdout)
    return {one["name"]: one["value"] for one in told["quotas"]}


def create(broker, topic, partitions=1):
    admin = AdminClient({"bootstrap.servers": broker.address, **QUIET})
    # it lives until its future has ended
    admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result(10)


def send(broker, topic, client, count, size, seconds=30, **more):
    """Sends records one request each; returns (seconds taken, the waits in milliseconds that the broker told of)."""
    told = []

    def throttled(event):
        # -1: on the connection with which it began, where nothing is produced
        if event.broker_id >= 0:
            told.append(event.throttle_time * 1000)

    producer = Producer({"bootstrap.servers": broker.address, "client.id": client, "linger.ms": 0, "acks": 1, **QUIET, **more,
                         "throttle_cb": throttled})
    started = time.monotonic()
    for _ in range(count):
        producer.produce(topic, b"x" * size)
        producer.flush(seconds)
    assert len(producer) == 0, "not everything was delivered"
    took = time.monotonic() - started
    producer.poll(0.2)
    return took, told


@test
def quotas_are_set_described_changed_and_taken_back_and_survive_a_restart():
    broker = Broker().start()
    config(broker, "set", "user", "alice", "producer_byte_rate=1024", "request_percentage=12.5")
    config(broker, "set", "user", "alice", "client", "<default>", "consumer_byte_rate=2048")
    config(broker, "set", "client", "a b/c", "controller_mutation_rate=3")
    config(broker, "set", "ip", "<default>", "connection_creation_rate=500")
    broker.restart()
    assert quotas(broker, "user", "alice") == {"producer_byte_rate": "1024", "request_percentage": "12.5"}
    assert quotas(broker, "user", "alice", "client", "<default>") == {"consumer_byte_rate": "2048"}
    assert quotas(broker, "client", "a b/c") == {"controller_mutation_rate": "3"}
    assert quotas(broker, "ip", "<default>") == {"connection_creation_rate": "500"}
    config(broker, "set", "user", "alice", "producer_byte_rate=7", "--delete", "request_percentage")
    assert quotas(broker, "user", "alice") == {"producer_byte_rate": "7"}
    config(broker, "set", "user", "alice", "consumer_byte_rate=1", "--validate-only")
    assert quotas(broker, "user", "alice") == {"producer_byte_rate": "7"}
    assert "producer_byte_rat" in config(broker, "set", "user", "alice", "producer_byte_rat=7", code=2).stderr
    assert "no IP address" in config(broker, "set", "ip", "nowhere", "connection_creation_rate=7", code=2).stderr


@test
def a_producer_beyond_its_quota_is_told_to_wait_and_is_held_to_it():
    broker = Broker(settings={"quota.window.num": "3", "quota.window.size.seconds": "1"}).start()
    create(broker, "t")
    config(broker, "set", "client", "greedy", "producer_byte_rate=50000")
    freely, told = send(broker, "t", "other", 20, 25_000)
    assert not told, told
    # half a million bytes, of which two seconds' worth may come at once
    held, told = send(broker, "t", "greedy", 20, 25_000)
    assert told and max(told) > 0, "it was not told to wait"
    assert 5 < held < 14, f"{held:.1f} s for 10 s worth of records, and {freely:.1f} s without a quota"


@test
def a_consumer_beyond_its_quota_is_held_to_it():
    broker = Broker(settings={"quota.window.num": "3"}).start()
    create(broker, "t")
    send(broker, "t", "filler", 20, 25_000)
    config(broker, "set", "client", "greedy", "consumer_byte_rate=80000")

    def consume(client):
        consumer = Consumer({"bootstrap.servers": broker.address, "group.id": "unused", "client.id": client, **QUIET,
                             "fetch.message.max.bytes": 60_000, "fetch.max.bytes": 60_000, "message.max.bytes": 60_000})
        consumer.assign([TopicPartition("t", 0, OFFSET_BEGINNING)])
        started, got = time.monotonic(), 0
        while got < 20 and time.monotonic() - started < 30:
            got += len(consumer.consume(20, 0.5))
        consumer.close()
        assert got == 20
        return time.monotonic() - started

    freely, held = consume("other"), consume("greedy")
    assert freely < 3 < held < 14, f"{held:.1f} s for 6 s worth of records, and {freely:.1f} s without a quota"


@test
def kafka_python_finds_the_quotas_that_others_set():
    broker = Broker().start()
    config(broker, "set", "client", "py", "producer_byte_rate=4096")
    admin = KafkaAdminClient(bootstrap_servers=broker.address)
    try:
        if not hasattr(admin, "describe_client_quotas"):
            # this client has no words for quotas: the protocol says the same
            found = wire_quotas(broker)
        else:
            found = admin.describe_client_quotas()
    finally:
        admin.close()
    assert "py" in str(found) and "4096" in str(found), found


def wire_quotas(broker):
    """DescribeClientQuotas 0 by hand: every client id."""
    name = b"client-id"
    body = (1).to_bytes(4, "big") + len(name).to_bytes(2, "big") + name + b"\x02" + b"\xff\xff" + b"\x00"
    head = (48).to_bytes(2, "big") + (0).to_bytes(2, "big") + (7).to_bytes(4, "big") + b"\x00\x04test"
    with socket.create_connection(("127.0.0.1", broker.port), 5) as s:
        s.sendall((len(head) + len(body)).to_bytes(4, "big") + head + body)
        size = int.from_bytes(s.recv(4), "big")
        answer = b""
        while len(answer) < size:
            answer += s.recv(size - len(answer))
    return repr(answer) + (" 4096" if struct.pack(">d", 4096.0) in answer else "")


@test
def changes_of_topics_beyond_the_quota_wait():
    broker = Broker(settings={"controller.quota.window.num": "2"}).start()
    config(broker, "set", "client", "<default>", "controller_mutation_rate=2")
    admin = AdminClient({"bootstrap.servers": broker.address, "client.id": "maker", **QUIET})
    started = time.monotonic()
    admin.create_topics([NewTopic("first", 8, 1)])["first"].result(20)
    # six partitions of debt: three seconds, in which the connection takes nothing
    admin.create_topics([NewTopic("second", 1, 1)], request_timeout=20)["second"].result(20)
    took = time.monotonic() - started
    assert 2.5 < took < 10, took


@test
def a_client_whose_requests_take_too_much_time_is_told_to_wait_and_is_read_no_further():
    broker = Broker().start()
    create(broker, "t")
    # a ten-thousandth of a processor: a hundred microseconds a second, of which ten seconds' worth may come at once
    config(broker, "set", "client", "busy", "request_percentage=0.01")
    freely, told = send(broker, "t", "other", 12, 100)
    assert not told, told
    # how many requests that is depends on the machine
    for _ in range(40):
        held, told = send(broker, "t", "busy", 12, 100)
        # what it was told last it need not wait for: it may have nothing more to ask
        waited = sum(told[:-1]) / 1000
        if waited > 0.1:
            break
    assert waited > 0.1 and max(told) <= 1000, f"it was not told to wait, or for more than a window: {told}"
    assert held > waited * 0.9, f"{held:.2f} s with the quota and {freely:.2f} s without it, with waits of {told} ms"
    # by hand: who does not wait by himself is not read for as long as he was told to wait
    connection = Connection(broker.port, timeout=20)
    records, told, held = batch([b"x" * 10_000]), 0, []
    until = time.monotonic() + 30
    while len(held) < 3:
        # what it spent above may have left the window: how many requests it has now depends on the machine, too
        assert time.monotonic() < until, f"it was held {len(held)} times"
        connection.send(wire_produce("t", 0, records, client="busy"))
        started = time.monotonic()
        answer = connection.receive()[1]
        took = (time.monotonic() - started) * 1000
        if told > 20:
            assert took > told * 0.9, f"told to wait {told} ms, and answered after {took:.0f}"
            held.append(told)
        answer.take("i"), answer.string(), answer.take("iihqq")
        told = answer.take("i")


@test
def connections_beyond_the_rate_are_accepted_later():
    broker = Broker(settings={"max.connection.creation.rate": "10", "quota.window.num": "2"}).start()
    time.sleep(2.5)  # those that saw it start
    done = []

    def connect():
        started = time.monotonic()
        broker.wait_for_answer(15)
        done.append(time.monotonic() - started)

    threads = [threading.Thread(target=connect) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 30
    assert sum(took < 0.5 for took in done) <= 20, sorted(done)
    assert 1 < max(done) < 12, sorted(done)


@test
def why_a_consumer_waits_names_its_quota():
    broker = Broker().start()
    create(broker, "t")
    config(broker, "set", "client", "slow", "producer_byte_rate=1000")
    producer = Producer({"bootstrap.servers": broker.address, "client.id": "slow", **QUIET})
    producer.produce("t", b"x" * 60_000)
    producer.flush(10)
    told = run_program("topic", "describe", "t", "--why", "--bootstrap", broker.address)
    assert "producer_byte_rate" in told.stdout and "client slow" in told.stdout, told.stdout + told.stderr


@test
def why_a_group_is_stuck_is_said_in_sentences():
    broker = Broker(settings={"group.initial.rebalance.delay.ms": "0"}).start()
    create(broker, "t", 2)
    conf = {"bootstrap.servers": broker.address, "group.id": "g", "session.timeout.ms": 20_000, "heartbeat.interval.ms": 500,
            "max.poll.interval.ms": 20_000, "enable.auto.commit": False, **QUIET}
    first = Consumer({**conf, "client.id": "first"})
    first.subscribe(["t"])
    wait_until(lambda: first.poll(0.1) is not None or len(first.assignment()) == 2, 15, what="the first assignment")
    # a second member comes, and the first is busy: it does not poll, and so does not join again
    second = Consumer({**conf, "client.id": "second"})
    second.subscribe(["t"])
    second.poll(0.5)

    def why():
        second.poll(0.1)
        told = json.loads(run_program("group", "describe", "g", "--why", "--json", "--bootstrap", broker.address).stdout)
        return [one for one in told["groups"][0]["why"] if one["code"] == "member-not-joined"]

    reasons = wait_until(why, 15, what="a reason")
    assert "client first" in reasons[0]["text"] and "has not joined" in reasons[0]["text"], reasons
    assert 0 < reasons[0]["left"] <= 20_000, reasons
    second.close()
    first.close()
