"""Consumer groups of four clients, alone and mixed, with members and brokers that end; the verdict is what the members were told, written down by them."""
import collections, itertools, pathlib, signal, subprocess, sys, threading, time
import confluent
from confluent_kafka import Consumer, Producer, TopicPartition
from driving import ROOT, Broker, Skip, test, wait_until

HERE = pathlib.Path(__file__).resolve().parent
SETTINGS = {"group.initial.rebalance.delay.ms": "100", "group.min.session.timeout.ms": "500", "offsets.topic.num.partitions": "4",
            "offsets.topic.replication.factor": "1"}
CLIENTS = ("confluent", "kafka_python", "aio", "sarama")
PARTITIONS = 6
numbers = itertools.count()


class Member:
    """A process in a group, and what it was told, in its order: (when, what, words)."""

    def __init__(self, stage, client, strategy="range", **flags):
        self.name, self.client = f"{client}-{next(numbers)}", client
        if client == "sarama":
            program = ROOT / ".build/sarama"
            if not program.exists():
                raise Skip(f"{program} is not built: `make test` does it")
            words = [program, "member"]
        else:
            words = [sys.executable, "-u", HERE / "group_member.py", client]
        words += [stage.broker.address, stage.group, stage.topic, strategy]
        for name, value in flags.items():
            words += [f"--{name}", str(value)]
        self.events, self.complaints = [], []
        self.process = subprocess.Popen([str(w) for w in words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
        for stream, take in ((self.process.stdout, self.take), (self.process.stderr, self.complaints.append)):
            threading.Thread(target=lambda stream=stream, take=take: [take(line) for line in stream], daemon=True).start()
        stage.members.append(self)

    def take(self, line):
        when, what, *words = line.split()
        self.events.append((int(when), what, words))

    def since(self, count, *kinds):
        return [event for event in self.events[count:] if event[1] in kinds]

    def says_it_is_fenced(self):
        """By whichever request it learnt of it; this client also says so on its standard error."""
        errors = [" ".join(words) for _, _, words in self.since(0, "error")]
        return any("fenced" in text.lower() for text in errors + list(self.complaints))

    def owned(self):
        """The partitions that it has now."""
        have = set()
        for _, what, words in list(self.events):
            if what == "assigned":
                have |= set(map(int, words))
            elif what in ("revoked", "lost"):
                have -= set(map(int, words))
        return have

    def is_running(self):
        return self.process.poll() is None

    def kill(self):
        self.process.kill()
        self.process.wait()

    def leave(self):
        """Ends it cleanly."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(20)
        wait_until(lambda: self.since(0, "left"), 5, what=f"{self.name}'s goodbye")
        assert code == 0, f"{self.name} ended with {code}: {self.told()}"

    def told(self):
        return [f"{what} {' '.join(words)}" for _, what, words in self.events if what != "got"][-12:] + self.complaints[-5:]


def fault_in(histories, sent, strictly=False):
    """What members must not have been told: [(name, events)] against {partition: {offset: value}}. Who was assigned a partition after a commit of it was
    acknowledged reads nothing below that again, and everybody reads what was sent; `strictly`, nothing is read twice."""
    commits = [(when, int(words[0]), int(words[1]), name) for name, events in histories for when, what, words in events if what == "committed"]
    read = collections.Counter()
    for name, events in histories:
        begun = {}
        for when, what, words in events:
            if what == "assigned":
                begun.update({int(p): when for p in words})
            elif what == "got":
                partition, offset = int(words[0]), int(words[1])
                read[partition, offset] += 1
                if partition not in begun:
                    return f"{name} read partition {partition}, which it was not assigned"
                said = sent.get(partition, {}).get(offset)
                if said not in (None, words[2]):
                    return f"{name} read {words[2]} at {partition}:{offset}, and {said} was sent there"
                for at, p, upto, by in commits:
                    if p == partition and upto > offset and at < begun[partition]:
                        return f"{name} began with partition {p} after {by} had committed {upto}, and read {offset} again"
    twice = sorted(place for place, count in read.items() if count > 1)
    return f"read twice: {twice[:10]} ({len(twice)})" if strictly and twice else None


@test
def the_judge_of_members_sees_what_must_not_be():
    history = [(1, "assigned", ["0", "1"]), (2, "got", ["0", "5", "v"]), (3, "committed", ["0", "6"]), (4, "revoked", ["0"])]
    sent = {0: {5: "v"}, 1: {}}
    again = lambda when: [(when, "assigned", ["0"]), (9, "got", ["0", "5", "v"])]
    assert fault_in([("a", history), ("b", again(2))], sent) is None, "it may have asked before the commit"
    assert "had committed 6, and read 5 again" in fault_in([("a", history), ("b", again(5))], sent)
    assert "read twice: [(0, 5)] (1)" == fault_in([("a", history), ("b", again(2))], sent, strictly=True)
    assert "and w was sent there" in fault_in([("a", history)], {0: {5: "w"}})
    assert "which it was not assigned" in fault_in([("a", [(1, "got", ["3", "1", "v"])])], sent)


class Stage:
    """A broker, a topic that records are sent to all the time, and the members of a group that read it."""

    def __init__(self, partitions=PARTITIONS, **settings):
        self.broker = Broker(settings={**SETTINGS, **settings}).start()
        self.group, self.topic, self.partitions = "readers", "read", partitions
        self.members, self.sent = [], collections.defaultdict(dict)
        confluent.create(self.broker, self.topic, partitions)
        self.producer = Producer({"bootstrap.servers": self.broker.address, "linger.ms": 5, "enable.idempotence": True, "log_level": 0,
                                  "reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 200, "message.timeout.ms": 60_000})
        self.ended = threading.Event()
        self.sender = threading.Thread(target=self.send, daemon=True)
        self.sender.start()

    def send(self):
        """Two hundred records a second, and where each was told to be."""
        for number in itertools.count():
            if self.ended.wait(0.005):
                break
            self.producer.produce(self.topic, f"v{number}".encode(), partition=number % self.partitions, on_delivery=self.delivered)
            self.producer.poll(0)

    def delivered(self, error, message):
        assert error is None, error
        self.sent[message.partition()][message.offset()] = message.value().decode()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.ended.set()
        for member in self.members:
            if kind:
                print(f"note {member.name}: {member.told()}")
            if member.is_running():
                member.kill()

    def join(self, client, strategy="range", **flags):
        return Member(self, client, strategy, **flags)

    def running(self):
        return [member for member in self.members if member.is_running()]

    def is_shared_out(self, among=None):
        """Each partition has one owner, and nobody is left out who could have one."""
        owned = [member.owned() for member in (among or self.running())]
        return sorted(p for each in owned for p in each) == list(range(self.partitions)) and all(owned)

    def wait_for_shares(self, seconds=20, among=None):
        wait_until(lambda: self.is_shared_out(among), seconds, what=f"a fair share for {len(among or self.running())} members")

    def wait_for_progress(self, seconds=15):
        """Every partition's records of from now on are read by somebody."""
        start = time.time_ns()

        def fresh():
            return {int(words[0]) for member in self.members for when, what, words in list(member.events) if what == "got" and when > start}

        wait_until(lambda: len(fresh()) == self.partitions, seconds, what="a record of every partition")

    def committed(self):
        """What the broker has: {partition: offset}."""
        consumer = Consumer({"bootstrap.servers": self.broker.address, "group.id": self.group, "log_level": 0})
        try:
            found = consumer.committed([TopicPartition(self.topic, p) for p in range(self.partitions)], timeout=10)
            assert all(one.error is None for one in found), found
            return {one.partition: one.offset for one in found}
        finally:
            consumer.close()

    def told_committed(self):
        """What members were told: {partition: offset}, the last of each."""
        last = {}
        for member in self.members:
            for when, what, words in list(member.events):
                if what == "committed":
                    partition = int(words[0])
                    last[partition] = max(last.get(partition, (0, 0)), (when, int(words[1])))
        return {partition: offset for partition, (_, offset) in last.items()}

    def judge(self, strictly=False):
        """Nothing was missed, and nothing is wrong with what was read; `strictly`: if every commit was taken, nothing was read twice."""
        self.ended.set()
        self.sender.join()
        assert self.producer.flush(30) == 0, "not every record was taken"
        missing = lambda: {p: set(offsets) - self.read(p) for p, offsets in self.sent.items() if set(offsets) - self.read(p)}
        try:
            wait_until(lambda: not missing(), 20, what="the end of every partition")
        except AssertionError:
            raise AssertionError(f"never read, of each partition: { {p: sorted(o)[:5] for p, o in missing().items()} }") from None
        # whose commit was refused while a rebalance began has its records read again by the next: that is no fault of the broker's
        undisturbed = not any(member.since(0, "error", "lost") for member in self.members)
        fault = fault_in([(member.name, member.events) for member in self.members], self.sent, strictly and undisturbed)
        assert not fault, fault

    def read(self, partition):
        return {int(words[1]) for member in self.members for _, what, words in list(member.events) if what == "got" and int(words[0]) == partition}


@test
def four_clients_share_one_group_and_leave_it_one_by_one():
    for strategy in ("range", "roundrobin"):
        with Stage() as stage:
            members = []
            for client in CLIENTS:
                members.append(stage.join(client, strategy))
                if len(members) in (1, 4):
                    stage.wait_for_shares()
            stage.wait_for_progress()
            # the leader first: another must lead then
            for member in members[:3]:
                member.leave()
                stage.wait_for_shares()
            stage.wait_for_progress()
            stage.judge(strictly=True)
            members[3].leave()


@test
def a_killed_member_is_missed_by_nobody_and_comes_back():
    with Stage() as stage:
        kept, killed, other = stage.join("confluent"), stage.join("kafka_python"), stage.join("sarama")
        stage.wait_for_shares()
        stage.wait_for_progress()
        killed.kill()
        stage.wait_for_shares()
        stage.wait_for_progress()
        back = stage.join("aio")
        stage.wait_for_shares()
        other.kill()
        back.kill()
        stage.wait_for_shares()
        assert kept.owned() == set(range(PARTITIONS))
        stage.judge()
        kept.leave()


@test
def a_group_lives_on_through_restarts_and_kills_of_its_broker():
    with Stage() as stage:
        for client in ("confluent", "kafka_python", "sarama"):
            stage.join(client)
        stage.wait_for_shares()
        for end in (stage.broker.stop, stage.broker.kill, stage.broker.kill, stage.broker.stop):
            stage.wait_for_progress(20)
            end()
            told = stage.told_committed()
            stage.broker.start()
            found = stage.committed()
            for partition, offset in told.items():
                assert found[partition] >= offset, f"partition {partition} was committed up to {offset}, and is at {found[partition]}"
        stage.wait_for_progress(20)
        wait_until(stage.is_shared_out, 20, what="a fair share after the last start")
        stage.judge()


@test
def a_member_that_dies_with_its_broker_is_put_out_by_the_next():
    with Stage() as stage:
        kept, killed = stage.join("confluent"), stage.join("aio")
        stage.wait_for_shares()
        stage.wait_for_progress()
        stage.broker.kill()
        killed.kill()
        stage.broker.start()
        stage.wait_for_shares(30)
        assert kept.owned() == set(range(PARTITIONS))
        stage.judge()


@test
def a_static_member_that_comes_back_in_time_disturbs_nobody():
    for client in ("confluent", "kafka_python", "aio"):
        with Stage(partitions=4) as stage:
            # it leads: a leader that comes back may ask for a rebalance when it has learnt of the topic's partitions
            stays = stage.join("confluent", instance="one", session=10_000)
            stage.wait_for_shares(30)
            restarts = stage.join(client, instance="two", session=10_000)
            stage.wait_for_shares(30)
            stage.wait_for_progress()
            before, seen = restarts.owned(), len(stays.events)
            restarts.kill()
            again = stage.join(client, instance="two", session=10_000)
            wait_until(lambda: again.owned() == before, 8, what="the same partitions for the same instance")
            stage.wait_for_progress()
            assert not stays.since(seen, "revoked", "lost", "assigned"), f"{stays.name} was disturbed: {stays.told()}"
            stage.judge()


@test
def who_has_a_static_members_place_fences_who_had_it():
    with Stage(partitions=4) as stage:
        first = stage.join("confluent", instance="one", session=10_000)
        stage.wait_for_shares(30)
        stage.wait_for_progress()
        second = stage.join("confluent", instance="one", session=10_000)
        wait_until(lambda: second.owned() == set(range(4)), 15, what="the place of the first for the second")
        wait_until(first.says_it_is_fenced, 15, what="the word to the first that it is fenced")
        committed = len(first.since(0, "committed"))
        stage.wait_for_progress()
        assert len(first.since(0, "committed")) == committed, "a fenced member's commit was taken"
        first.kill()
        stage.judge()


@test
def cooperative_members_keep_what_stays_theirs():
    with Stage() as stage:
        first, second = (stage.join("confluent", "cooperative-sticky") for _ in range(2))
        stage.wait_for_shares()
        stage.wait_for_progress()
        before, seen = {m.name: m.owned() for m in (first, second)}, {m.name: len(m.events) for m in (first, second)}
        third = stage.join("confluent", "cooperative-sticky")
        stage.wait_for_shares()
        for member in (first, second):
            given = {int(p) for _, _, words in member.since(seen[member.name], "revoked", "lost") for p in words}
            assert len(given) == 1 and member.owned() == before[member.name] - given, f"{member.name} gave up {given} of {before[member.name]}"
        stage.wait_for_progress()
        third.leave()
        stage.wait_for_shares()
        stage.judge()
