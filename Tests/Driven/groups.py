"""Consumer groups of confluent-kafka (librdkafka): members share, commit, leave, and go on after the broker was killed."""
import collections, contextlib, json, queue, re, resource, struct, subprocess, sys, threading, time
from confluent import QUIET, create, produce
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError
from driving import Broker, free_port, seeded, shared, test, unpack, wait_until
from metrics import Page
from wire import Connection, frame, string

# No test waits three seconds for members that do not come.
AT_ONCE = {"group.initial.rebalance.delay.ms": "0"}
IMPATIENT = {"reconnect.backoff.ms": 5, "reconnect.backoff.max.ms": 100, "retry.backoff.ms": 20, "heartbeat.interval.ms": 200}


class Member(threading.Thread):
    """A consumer that polls in a thread, and remembers what it was assigned and what it read."""

    def __init__(self, broker, group, topic, **config):
        super().__init__(daemon=True)
        self.ended, self.rebalances, self.read, self.partitions, self.faults = threading.Event(), 0, [], set(), []
        self.wanted, self.told = queue.Queue(), queue.Queue()
        self.consumer = Consumer({
            "bootstrap.servers": broker.address, "group.id": group, "auto.offset.reset": "earliest", "session.timeout.ms": 6000,
            "enable.auto.commit": False, **QUIET, **IMPATIENT, **{k.replace("_", "."): v for k, v in config.items()}})
        self.consumer.subscribe([topic], on_assign=self.assigned, on_revoke=self.revoked, on_lost=self.revoked)

    def assigned(self, _, partitions):
        self.rebalances += 1
        self.partitions |= {p.partition for p in partitions}

    def revoked(self, _, partitions):
        self.partitions -= {p.partition for p in partitions}

    def run(self):
        while not self.ended.is_set():
            self.commit_what_is_wanted()
            for message in self.consumer.consume(200, 0.05):
                if message.error():
                    if message.error().fatal():
                        self.faults.append(str(message.error()))
                    continue
                self.read.append((message.partition(), message.offset(), message.value()))

    def commit_what_is_wanted(self):
        with contextlib.suppress(queue.Empty):
            offsets = self.wanted.get_nowait()
            try:
                self.told.put(self.consumer.commit(offsets=offsets, asynchronous=False))
            except Exception as error:
                self.told.put(error)

    def commit(self, offsets):
        """In the thread that polls: this client lets no other commit meanwhile."""
        self.wanted.put(offsets)
        told = self.told.get(timeout=30)
        assert isinstance(told, list) and not any(p.error for p in told), told

    def leave(self):
        self.ended.set()
        self.join(30)
        self.consumer.close()


def members(broker, group, topic, count, **config):
    made = [Member(broker, group, topic, **config) for _ in range(count)]
    for member in made:
        member.start()
    return made


def share(made, partitions):
    """Waits until each partition is somebody's, and nobody's twice."""
    def shared():
        owned = [p for m in made for p in set(m.partitions)]
        return sorted(owned) == list(range(partitions)) and all(m.partitions for m in made)
    wait_until(shared, 30, what=f"a share of {partitions} partitions for each of {len(made)} members")


def fill(broker, topic, partitions, each):
    create(broker, topic, partitions)
    for partition in range(partitions):
        produce(broker, topic, [dict(value=b"%d-%d" % (partition, i)) for i in range(each)], partition=partition)


def committed(broker, group, topic, partitions):
    admin = AdminClient({"bootstrap.servers": broker.address, **QUIET})
    def look():
        asked = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, p) for p in range(partitions)])
        # this client does not ask again by itself while a coordinator reads its groups
        with contextlib.suppress(KafkaException):
            return {p.partition: p.offset for p in admin.list_consumer_group_offsets([asked])[group].result(20).topic_partitions}
    return wait_until(look, 20, what=f"what {group} has committed")


def members_share_whatever_their_protocol(strategy):
    broker = Broker(AT_ONCE).start()
    fill(broker, "shared", 6, 50)
    made = members(broker, "g", "shared", 3, partition_assignment_strategy=strategy)
    share(made, 6)
    wait_until(lambda: sum(len(m.read) for m in made) >= 300, 20, what="every record")
    made[0].leave()
    share(made[1:], 6)
    late = members(broker, "g", "shared", 1, partition_assignment_strategy=strategy)
    share(made[1:] + late, 6)
    for member in made[1:] + late:
        member.leave()
        assert not member.faults, member.faults


@test
def eager_members_share_the_partitions_as_they_come_and_go():
    members_share_whatever_their_protocol("range,roundrobin")


@test
def cooperative_members_share_the_partitions_as_they_come_and_go():
    members_share_whatever_their_protocol("cooperative-sticky")


@test
def who_comes_back_goes_on_where_it_committed():
    broker = Broker(AT_ONCE).start()
    fill(broker, "work", 1, 100)
    first, = members(broker, "g", "work", 1)
    wait_until(lambda: len(first.read) == 100, 20, what="the records")
    first.commit([TopicPartition("work", 0, 40, metadata="up to here")])
    first.leave()
    broker.kill()
    broker.start()
    assert committed(broker, "g", "work", 1) == {0: 40}
    second, = members(broker, "g", "work", 1)
    wait_until(lambda: second.read, 20, what="a record")
    assert second.read[0][1] == 40
    second.leave()


@test
def a_stable_group_goes_on_without_a_rebalance_when_the_broker_was_killed():
    broker = Broker(AT_ONCE).start()
    fill(broker, "kept", 4, 10)
    made = members(broker, "g", "kept", 2, session_timeout_ms=20_000)
    share(made, 4)
    before = [(m.rebalances, set(m.partitions)) for m in made]
    for _ in range(3):
        broker.kill()
        broker.start()
        produce(broker, "kept", [dict(value=b"more")], partition=0)
        time.sleep(1)
    wait_until(lambda: sum(len(m.read) for m in made) >= 43, 20, what="what was sent after the kills")
    for member in made:
        member.commit([TopicPartition("kept", p, 9) for p in member.partitions])
    assert [(m.rebalances, set(m.partitions)) for m in made] == before, "the group rebalanced"
    assert committed(broker, "g", "kept", 4) == {p: 9 for p in range(4)}
    for member in made:
        member.leave()
        assert not member.faults, member.faults


@test
def no_acknowledged_commit_goes_back_over_ten_kills():
    broker = Broker(AT_ONCE).start()
    create(broker, "progress", 2)
    random = seeded("groups.commits")
    told, ended, down = collections.defaultdict(lambda: -1), threading.Event(), threading.Lock()

    def commit(group):
        consumer = Consumer({"bootstrap.servers": broker.address, "group.id": group, "enable.auto.commit": False, **QUIET, **IMPATIENT})
        offset = 0
        while not ended.is_set():
            offset += 1
            try:
                consumer.commit(offsets=[TopicPartition("progress", p, offset) for p in (0, 1)], asynchronous=False)
                told[group] = offset
            except Exception:
                time.sleep(0.02)
        consumer.close()

    groups = [f"g-{i}" for i in range(8)]
    threads = [threading.Thread(target=commit, args=(g,), daemon=True) for g in groups]
    for thread in threads:
        thread.start()
    wait_until(lambda: all(told[g] > 3 for g in groups), 30, what="the first commits")
    for _ in range(10):
        time.sleep(random.uniform(0.2, 0.8))
        broker.kill()
        known = {g: told[g] for g in groups}
        broker.start()
        for group in groups:
            now = committed(broker, group, "progress", 2)
            assert now[0] >= known[group] and now[1] >= known[group], (group, now, known[group])
    ended.set()
    for thread in threads:
        thread.join(60)
    for group in groups:
        assert committed(broker, group, "progress", 2) == {0: told[group], 1: told[group]} or committed(broker, group, "progress", 2)[0] > told[group]


@test
def a_group_that_is_killed_while_it_joins_joins_again():
    broker = Broker(AT_ONCE).start()
    fill(broker, "joined", 6, 20)
    random = seeded("groups.joins")
    made = members(broker, "g", "joined", 3)
    for _ in range(4):
        made += members(broker, "g", "joined", 1)
        time.sleep(random.uniform(0.05, 0.6))
        broker.kill()
        broker.start()
        made[0].leave()
        made = made[1:]
    share(made, 6)
    for member in made:
        member.leave()
        assert not member.faults, member.faults


def groups_of_kafka_go_on(archive):
    listing = json.loads(shared("kafka-data", f"{archive}.json").read_text())
    broker = Broker({**AT_ONCE, "log.retention.ms": "-1", "log.retention.bytes": "-1", "offsets.retention.minutes": "100000000",
                     "producer.id.expiration.ms": "2000000000"})
    unpack(archive, broker.folder)
    (broker.folder / archive).rename(broker.folder / "log")
    broker.start()
    admin = AdminClient({"bootstrap.servers": broker.address, **QUIET})

    def everything():
        # the metadata that confluent-kafka tells runs over its end
        asking = KafkaAdminClient(bootstrap_servers=broker.address)
        try:
            found = asking.list_group_offsets(list(listing["groups"]))
        except KafkaError:
            return None
        finally:
            asking.close()
        return {group: {f"{place.topic}-{place.partition}": [c.offset, c.leader_epoch, c.metadata] for place, c in offsets.items()}
                for group, offsets in found.items()}

    want = {group: told["offsets"] for group, told in listing["groups"].items()}
    for _ in range(2):
        found = wait_until(everything, 20, what="an answer for every group")
        assert found == want, (found, want)
        listed = {g.group_id: g.state.name for g in admin.list_consumer_groups().result(20).valid}
        assert set(listed) >= {g for g, told in want.items() if told}, listed
        assert listed["g-members"] == "STABLE" or broker.starts > 1, listed
        # what was committed here lies beside what Kafka wrote
        consumer = Consumer({"bootstrap.servers": broker.address, "group.id": "g-simple", "enable.auto.commit": False, **QUIET})
        consumer.commit(offsets=[TopicPartition("shapes", 0, 12)], asynchronous=False)
        consumer.close()
        want["g-simple"]["shapes-0"] = [12, -1, ""]
        broker.kill()
        broker.start()
    broker.stop()
    reader = shared("kafka-data", "read_dir.py")
    got = subprocess.run([sys.executable, reader, broker.folder / "log"], capture_output=True, text=True, timeout=120)
    assert got.returncode == 0 and "sound" in got.stdout, got.stdout[-3000:] + got.stderr[-2000:]


@test
def groups_that_kafka_4_3_wrote_go_on():
    groups_of_kafka_go_on("kraft43-clean")


@test
def groups_that_kafka_3_9_wrote_go_on():
    groups_of_kafka_go_on("zk39-clean")


def bytes_of(raw):
    return struct.pack(">i", len(raw)) + raw


def join(group, member=""):
    """JoinGroup 2 of a consumer whose metadata are as long as those of one topic; five minutes for its session."""
    return frame(11, 2, string(group) + struct.pack(">ii", 300_000, 300_000) + string(member) + string("consumer")
                 + struct.pack(">i", 1) + string("range") + bytes_of(struct.pack(">hi", 0, 1) + string("many") + bytes_of(b"")))


def joined(answer):
    """(error, generation, own id, everybody's)."""
    _, error, generation = answer.take("ihi")
    answer.string()
    answer.string()
    own = answer.string()
    return error, generation, own, [(answer.string(), answer.bytes())[0] for _ in range(answer.take("i"))]


def sync(group, generation, member, shares):
    """SyncGroup 1."""
    body = string(group) + struct.pack(">i", generation) + string(member) + struct.pack(">i", len(shares))
    return frame(14, 1, body + b"".join(string(m) + bytes_of(struct.pack(">hi", 0, 1) + string("many") + struct.pack(">iii", 1, 0, -1)) for m in shares))


def heartbeat(group, generation, member):
    return frame(12, 1, string(group) + struct.pack(">i", generation) + string(member))


def commit(group, generation, member):
    """OffsetCommit 2."""
    body = string(group) + struct.pack(">i", generation) + string(member) + struct.pack(">qi", -1, 1) + string("many")
    return frame(8, 2, body + struct.pack(">iiqh", 1, 0, 7, -1))


def all_answered(connections, requests):
    for connection, request in zip(connections, requests):
        connection.send(request)
    return [connection.receive()[1] for connection in connections]


def settle(connections, groups):
    """A member for each group: it joins, is given its share, commits and is alive; (group, generation, id) of each."""
    members = []
    for group, answer in zip(groups, all_answered(connections, [join(g) for g in groups])):
        error, generation, own, everybody = joined(answer)
        assert error == 0 and everybody == [own], (group, error)
        members.append((group, generation, own))
    for request, form in ((lambda m: sync(*m, [m[2]]), "ih"), (lambda m: commit(*m), None), (lambda m: heartbeat(*m), "ih")):
        for member, answer in zip(members, all_answered(connections, [request(m) for m in members])):
            assert form is None or answer.take(form)[1] == 0, member
    return members


@test
def ten_thousand_groups_and_a_thousand_members_in_one_are_within_the_memory_that_is_promised():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 4096), hard), hard))
    port = free_port()
    broker = Broker({"group.initial.rebalance.delay.ms": "1000", "martlet.metrics.listener": f"127.0.0.1:{port}"}).start()
    create(broker, "many", 1)
    promised = int(re.search(r"groups (\d+)", broker.output())[1]) << 20
    connections = [Connection(broker.port, timeout=60) for _ in range(1_000)]
    # the topic of the offsets is made for the first who asks, and read by its coordinators
    wait_until(lambda: connections[0].ask(frame(10, 0, string("crowd"))).take("h") == 0, 20, every=0.1, what="a coordinator")
    time.sleep(1)
    before = broker.memory()

    # a thousand in one group: who joined is told of all when the leader says who has what
    members, leaders, crowd = [], [], []
    for place, answer in enumerate(all_answered(connections, [join("crowd")] * 1_000)):
        error, generation, own, everybody = joined(answer)
        assert error == 0, error
        members.append((own, generation))
        if everybody:
            leaders.append(place)
            crowd = everybody
    assert len({generation for _, generation in members}) == 1 and len(leaders) == 1 and len(crowd) == 1_000, (leaders, len(crowd))
    synced = all_answered(connections, [sync("crowd", g, own, crowd if i == leaders[0] else []) for i, (own, g) in enumerate(members)])
    assert all(answer.take("ih")[1] == 0 for answer in synced)

    alone = []
    for turn in range(10):
        alone += settle(connections, [f"group-{turn}-{i}" for i in range(1_000)])
    grown = broker.memory() - before
    counted = Page(port).samples[("martlet_group_memory_bytes", ())]
    print(f"note 10,000 groups and one of 1,000 members: {grown / 1e6:.0f} MB more memory, {counted / 1e6:.0f} MB counted, {promised / 1e6:.0f} MB promised")
    assert counted < promised and grown < promised, (grown, counted, promised)
    assert grown < 2 * counted + (16 << 20), "what groups take is not what is counted, and so not what is bounded"
    for answer in all_answered(connections, [heartbeat("crowd", g, own) for own, g in members]):
        assert answer.take("ih")[1] == 0, "a member of the crowd was put out"
    for start in range(0, 10_000, 1_000):
        for answer in all_answered(connections, [heartbeat(*m) for m in alone[start:start + 1_000]]):
            assert answer.take("ih")[1] == 0, "a group was disturbed"
