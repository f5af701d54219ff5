"""Consume, transform and produce, exactly once, with four clients: killed at random, and between any two of their calls; and so the broker."""
import collections, pathlib, signal, subprocess, sys, time
from confluent import create, produce
from driving import ROOT, Broker, Skip, seeded, test, wait_until
from transactions import SETTINGS, read

WORKER = pathlib.Path(__file__).parent / "transaction_worker.py"
# Behind which call; what stands before `unaborted` and behind `offsets-sent` is the same, and other calls follow.
STOPS = ["initialised", "begun", "produced", "flushed", "offsets-sent", "committed", "unaborted", "aborted"]

# aiokafka names no generation of its group when it commits (TxnOffsetCommit 0), and does not wait for commits that are under way
# (OffsetFetch 3): of two that exchange partitions both may transform the same, with Kafka too (KIP-447).
WORKERS = {"aiokafka": 1}


class Worker:
    """A process of `transaction_worker.py`, or of its like in Go."""

    def __init__(self, client, broker, group, ident, log=None, **flags):
        if client == "sarama":
            program = ROOT / ".build/sarama"
            if not program.exists():
                raise Skip(f"{program} is not built: `make test` does it")
            self.command = [program, "transform"]
        else:
            self.command = [sys.executable, "-u", str(WORKER), client]
        self.command += [broker.address, group, "input", "output", ident]
        self.stops, self.stood = list(flags.pop("stops", ())), 0
        self.flags = [f"--{name}={value}" for name, value in flags.items()]
        self.log = broker.folder / (log or ident)
        self.start()

    def start(self):
        stops = [f"--stops={','.join(self.stops)}"] if self.stops else []
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen([*self.command, *self.flags, *stops], stdout=log, stderr=log, stdin=subprocess.PIPE)

    def keep_going(self):
        """One that gave up is started anew, as its keeper would."""
        if self.process.poll() is not None:
            self.start()

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()

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

    def stands(self):
        """It stands still at the next of its places."""
        self.keep_going()
        found = [line.split()[1] for line in self.lines() if line.startswith("at ")]
        if len(found) == self.stood:
            return False
        assert found[self.stood:] == self.stops[:1], f"it stands at {found[self.stood:]}, and not at {self.stops[:1]}"
        self.stood += 1
        self.stops.pop(0)
        return True

    def go_on(self):
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()


class Stage:
    """A broker and an input that is to be in the output once, in order, each value with an `!` behind it."""

    def __init__(self, each, partitions=3):
        self.broker, self.partitions = Broker(SETTINGS).start(), partitions
        for topic in ("input", "output"):
            create(self.broker, topic, partitions)
        for p in range(partitions):
            produce(self.broker, "input", [dict(value=b"%d-%d" % (p, i)) for i in range(each)], partition=p)
        self.wanted = {p: [b"%d-%d!" % (p, i) for i in range(each)] for p in range(partitions)}

    def judge(self, workers):
        total = sum(map(len, self.wanted.values()))

        def done():
            for worker in workers:
                worker.keep_going()
            return sum(len(v) for v in read(self.broker, "output", self.partitions).values()) >= total
        wait_until(done, 35, every=0.3, what=f"every record of the input; {[w.lines()[-3:] for w in workers]}")
        for worker in workers:
            worker.end()
        found = read(self.broker, "output", self.partitions)
        for p, wanted in self.wanted.items():
            extra = [v for v, n in collections.Counter(found[p]).items() if n > 1]
            assert found[p] == wanted, f"partition {p}: {len(found[p])} records, twice {extra[:5]}, {found[p][:5]}"


def killed_at_random(client, kill_the_broker):
    stage = Stage(each=400)
    broker, random = stage.broker, seeded(f"{client}-{kill_the_broker}")
    workers = [Worker(client, broker, "g", f"worker-{i}", timeout=3_000) for i in range(WORKERS.get(client, 2))]
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
        stage.judge(workers)
    finally:
        for worker in workers:
            worker.kill()


def killed_between_any_two_calls(client):
    """The client first, then the broker: at each place once. Where the client dies its transaction is left open."""
    stage = Stage(each=400)
    # always the same member: nobody waits for the one before to be missed
    make = lambda log, **flags: Worker(client, stage.broker, "g", "one", log=f"worker-{log}", instance="one", **flags)
    for who in ("client", "broker"):
        worker = make(who, most=5, stops=STOPS)
        try:
            for place in STOPS:
                wait_until(worker.stands, 60, what=f"{client} at {place}; {worker.lines()[-5:]}")
                if who == "client":
                    worker.kill()
                    worker.start()
                else:
                    stage.broker.kill()
                    stage.broker.start()
                    worker.go_on()
            # after the last of them it goes on as if nothing had been
            before = worker.committed()
            wait_until(lambda: (worker.keep_going(), worker.committed() > before)[1], 60, what=f"{client} going on; {worker.lines()[-5:]}")
            worker.end()
        finally:
            worker.kill()
    last = make("last")
    try:
        stage.judge([last])
    finally:
        last.kill()


@test
def confluent_transforms_exactly_once_whoever_of_its_workers_is_killed():
    killed_at_random("confluent", False)


@test
def confluent_transforms_exactly_once_when_the_broker_is_killed_too():
    killed_at_random("confluent", True)


@test
def aiokafka_transforms_exactly_once_when_the_broker_is_killed_too():
    killed_at_random("aiokafka", True)


@test
def kafka_python_transforms_exactly_once_when_the_broker_is_killed_too():
    killed_at_random("kafka_python", True)


@test
def between_any_two_calls_of_confluent_it_or_the_broker_may_die():
    killed_between_any_two_calls("confluent")


@test
def between_any_two_calls_of_aiokafka_it_or_the_broker_may_die():
    killed_between_any_two_calls("aiokafka")


@test
def between_any_two_calls_of_kafka_python_it_or_the_broker_may_die():
    killed_between_any_two_calls("kafka_python")


@test
def between_any_two_requests_of_sarama_it_or_the_broker_may_die():
    killed_between_any_two_calls("sarama")
