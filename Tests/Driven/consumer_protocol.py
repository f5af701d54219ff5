"""The consumer protocol (KIP-848) with confluent-kafka: members share, move to it from the classic protocol and back while the group lives, and go on after the broker was killed."""
import contextlib, json, subprocess, sys, threading, time
from confluent import QUIET, create, produce
from confluent_kafka import Consumer, KafkaException, TopicPartition
from driving import Broker, test, wait_until
from groups import committed, fill, share

SETTINGS = {
    "group.initial.rebalance.delay.ms": "0", "group.consumer.min.heartbeat.interval.ms": "100",
    "group.consumer.heartbeat.interval.ms": "200", "group.consumer.min.session.timeout.ms": "1000",
    "group.consumer.session.timeout.ms": "4000", "group.consumer.assignment.interval.ms": "100",
}
# A member in a process of its own, to be killed.
DOOMED = """
import sys
from confluent_kafka import Consumer
consumer = Consumer({"bootstrap.servers": sys.argv[1], "group.id": "g", "group.protocol": "consumer", "log_level": 0})
consumer.subscribe([sys.argv[2]])
while True:
    consumer.poll(0.1)
"""
FAST = {"reconnect.backoff.ms": 5, "reconnect.backoff.max.ms": 100, "retry.backoff.ms": 20}
CLASSIC = {"group.protocol": "classic", "session.timeout.ms": 6000, "heartbeat.interval.ms": 200}


class Member(threading.Thread):
    """A consumer of either protocol that polls in a thread, commits what it read, and remembers what it was told."""

    def __init__(self, broker, *topics, group="g", protocol="consumer", strategy=None, instance=None, assignor=None, leaves=True):
        super().__init__(daemon=True)
        config = {"bootstrap.servers": broker.address, "group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False,
                  "topic.metadata.refresh.interval.ms": 300, **QUIET, **FAST}
        config |= {"group.protocol": "consumer"} if protocol == "consumer" else CLASSIC
        if strategy:
            config["partition.assignment.strategy"] = strategy
        if instance:
            config["group.instance.id"] = instance
        if assignor:
            config["group.remote.assignor"] = assignor
        self.ended, self.rebalances, self.read, self.owned, self.faults, self.lost = threading.Event(), 0, [], set(), [], 0
        self.consumer = Consumer(config)
        self.consumer.subscribe(list(topics), on_assign=self.assigned, on_revoke=self.revoked, on_lost=self.gone)
        self.start()

    def assigned(self, _, partitions):
        self.rebalances += 1
        self.owned |= {(p.topic, p.partition) for p in partitions}

    def revoked(self, _, partitions):
        self.owned -= {(p.topic, p.partition) for p in partitions}

    def gone(self, consumer, partitions):
        self.lost += 1
        self.revoked(consumer, partitions)

    @property
    def partitions(self):
        return {p for _, p in self.owned}

    def run(self):
        while not self.ended.is_set():
            for message in self.consumer.consume(100, 0.05):
                if message.error():
                    if message.error().fatal():
                        self.faults.append(str(message.error()))
                    continue
                self.read.append((message.topic(), message.partition(), message.offset()))
                with contextlib.suppress(KafkaException):
                    self.consumer.commit(message, asynchronous=True)

    def leave(self):
        self.ended.set()
        self.join(30)
        self.consumer.close()
        assert not self.faults, self.faults


def start_broker(**more):
    return Broker({**SETTINGS, **{k.replace("_", "."): v for k, v in more.items()}}).start()


def all_read(made, count, what="every record"):
    wait_until(lambda: len({r for m in made for r in m.read}) >= count, 30, what=what)


def described(broker, group="g"):
    told = subprocess.run([broker.program, "group", "describe", group, "--json", "--bootstrap", broker.address], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    return json.loads(told.stdout)["groups"][0]


def kind(broker, group="g"):
    told = subprocess.run([broker.program, "group", "list", "--json", "--bootstrap", broker.address], capture_output=True, text=True)
    return next((g["type"] for g in json.loads(told.stdout)["groups"] if g["group"] == group), None)


@test
def members_share_the_partitions_as_they_come_and_go():
    broker = start_broker()
    fill(broker, "shared", 6, 40)
    for assignor in ("uniform", "range"):
        group = f"g-{assignor}"
        made = [Member(broker, "shared", group=group, assignor=assignor) for _ in range(3)]
        share(made, 6)
        all_read(made, 240)
        shown = described(broker, group)
        assert shown["state"] == "Stable" and shown["assignor"] == assignor and len(shown["members"]) == 3, shown
        made.pop().leave()
        share(made, 6)
        made.append(Member(broker, "shared", group=group))
        share(made, 6)
        for member in made:
            member.leave()
        wait_until(lambda: described(broker, group)["state"] == "Empty", 10, what="an empty group")


@test
def a_group_moves_to_the_new_protocol_and_back_while_its_members_read():
    for strategy in ("range,roundrobin", "cooperative-sticky"):
        broker = start_broker()
        fill(broker, "moved", 6, 40)
        old = [Member(broker, "moved", protocol="classic", strategy=strategy) for _ in range(2)]
        share(old, 6)
        assert kind(broker) == "classic"
        new = [Member(broker, "moved")]
        share(old + new, 6)
        assert kind(broker) == "consumer"
        gone = old.pop()
        gone.leave()
        new.append(Member(broker, "moved"))
        share(old + new, 6)
        produce(broker, "moved", [dict(value=b"later") for _ in range(20)], partition=1)
        all_read(old + new + [gone], 260)
        before = committed(broker, "g", "moved", 6)
        for member in new:
            member.leave()
        wait_until(lambda: kind(broker) == "classic", 20, what="a classic group")
        share(old, 6)
        produce(broker, "moved", [dict(value=b"last") for _ in range(10)], partition=2)
        wait_until(lambda: committed(broker, "g", "moved", 6)[2] >= before[2] + 10, 20, what="the last commit")
        for member in old:
            member.leave()
        broker.stop()


@test
def members_go_on_in_their_epochs_when_the_broker_was_killed():
    broker = start_broker()
    fill(broker, "kept", 6, 20)
    made = [Member(broker, "kept", instance=f"i{i}" if i else None) for i in range(3)]
    share(made, 6)
    all_read(made, 120)
    told = [(m.rebalances, m.lost, frozenset(m.owned)) for m in made]
    for _ in range(2):
        broker.kill()
        broker.start()
        produce(broker, "kept", [dict(value=b"after") for _ in range(10)], partition=3)
    all_read(made, 140)
    time.sleep(1)
    assert [(m.rebalances, m.lost, frozenset(m.owned)) for m in made] == told, "somebody was told of a rebalance"
    assert described(broker)["state"] == "Stable"
    # one that dies with the broker: its session ends, counted from the start
    doomed = subprocess.Popen([sys.executable, "-c", DOOMED, broker.address, "kept"], stdin=subprocess.DEVNULL)
    wait_until(lambda: len({p for m in made for p in m.partitions}) < 6 and described(broker)["state"] == "Stable", 30, what="a fourth share")
    broker.kill()
    doomed.kill()
    doomed.wait()
    broker.start()
    share(made, 6)
    for member in made:
        member.leave()


@test
def a_static_member_that_restarts_finds_what_it_had_and_the_others_notice_nothing():
    broker = start_broker()
    fill(broker, "static", 4, 5)
    first, other = Member(broker, "static", instance="one"), Member(broker, "static", instance="two")
    share([first, other], 4)
    had, notices = set(first.owned), other.rebalances
    first.leave()
    again = Member(broker, "static", instance="one")
    wait_until(lambda: again.owned == had, 20, what="the same partitions")
    assert other.rebalances == notices and other.lost == 0
    again.leave()
    share([other], 4)
    other.leave()


@test
def an_expression_follows_topics_as_they_come_and_go():
    broker = start_broker()
    for name in ("eu-1", "us-1"):
        fill(broker, name, 2, 3)
    member = Member(broker, "^eu-.*")
    wait_until(lambda: member.owned == {("eu-1", 0), ("eu-1", 1)}, 20, what="the topic that is there")
    fill(broker, "eu-2", 3, 3)
    wait_until(lambda: len(member.owned) == 5, 20, what="the topic that came")
    broker.admin.delete_topics(["eu-1"])["eu-1"].result(10)
    wait_until(lambda: {t for t, _ in member.owned} == {"eu-2"}, 20, what="the end of the topic that went")
    all_read([member], 9)
    member.leave()
