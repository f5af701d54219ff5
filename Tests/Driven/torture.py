"""The built program under load of real clients, while everything under it fails: killed, stopped, its disk full, shut off, failing
or slow, its connections cut. The verdict comes from what the clients were told, written down here and not in the broker.

`MARTLET_TORTURE_SECONDS` says for how long (`make torture MINUTES=n`); each fault comes at least once.
"""
import collections, contextlib, fcntl, mmap, os, pathlib, shutil, signal, socket, struct, subprocess, tempfile, threading, time
from confluent import create
import driving
from driving import Broker, Skip, free_port, run_program, seeded, test, wait_until
from torture_load import Ledger, PythonSender, Reader, Sender, judge, read_all
from wire import Closed, Connection, batch, produce, values_in

SECONDS = int(os.environ.get("MARTLET_TORTURE_SECONDS", "45"))
HERE = pathlib.Path(__file__).resolve().parent
KAFKA_STORAGE_ERROR, LEADER_NOT_AVAILABLE = 56, 5
# `_IOR('X', 125, __u32)`, the same for ext4 and XFS, and its way of not even writing the journal out
SHUT_OFF, WITHOUT_JOURNAL = 0x8004587D, 2


# The machine's part


class ImageDisk:
    """An ext4 file system in a file: one that can be filled, and shut off as by a power cut."""

    def __init__(self, megabytes):
        if os.geteuid() != 0 or not shutil.which("mkfs.ext4"):
            raise Skip("only root, with mkfs.ext4, can make a file system in a file")
        self.top = pathlib.Path(tempfile.mkdtemp(prefix="martlet-image-"))
        self.image, self.folder = self.top / "image", self.top / "disk"
        self.folder.mkdir()
        with open(self.image, "wb") as image:
            image.truncate(megabytes << 20)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", self.image], check=True)
        if subprocess.run(["mount", "-o", "loop", self.image, self.folder], capture_output=True).returncode:
            shutil.rmtree(self.top)
            raise Skip("this machine does not let root mount a file system in a file")

    def shut_off(self):
        """Nothing reaches it any more; what was not synced is gone when it is mounted again."""
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, SHUT_OFF, struct.pack("I", WITHOUT_JOURNAL))
        except OSError as error:
            raise Skip(f"this kernel does not shut off a file system: {error}")
        finally:
            os.close(descriptor)

    def mount_again(self):
        wait_until(lambda: subprocess.run(["umount", self.folder], capture_output=True).returncode == 0, 10, 0.1, "unmounting")
        subprocess.run(["mount", "-o", "loop", self.image, self.folder], check=True)

    def fill(self):
        with open(self.folder / "filler", "wb") as filler, contextlib.suppress(OSError):
            while True:
                filler.write(b"\1" * (1 << 20))
                filler.flush()

    def make_room(self):
        """For good: a removal that is not synced is undone when the disk is shut off next."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.folder / "filler")
            descriptor = os.open(self.folder, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)

    def end(self):
        subprocess.run(["umount", "--lazy", self.folder], capture_output=True)
        shutil.rmtree(self.top, ignore_errors=True)


class FaultyDisk:
    """`faulty_disk.c` before the C library, and the page by which it is told what is to fail."""
    FIELDS = ["short_writes", "no_space", "bad_writes", "bad_syncs", "bad_reads", "short_reads", "slow_syncs", "injected", "bad_sends",
              "good_reads"]

    def __init__(self, folder, under):
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if not compiler:
            raise Skip("there is no C compiler for faulty_disk.c")
        library, page = pathlib.Path(folder) / "faulty_disk.so", pathlib.Path(folder) / "faults"
        built = subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, HERE / "faulty_disk.c", "-ldl"], capture_output=True, text=True)
        assert built.returncode == 0, built.stderr
        page.write_bytes(bytes(4096))
        with open(page, "r+b") as opened:
            self.page = mmap.mmap(opened.fileno(), 4096)
        self.environment = {"LD_PRELOAD": str(library), "MARTLET_FAULTS": str(page), "MARTLET_FAULTS_UNDER": under}

    def __getattr__(self, name):
        return struct.unpack_from("I", self.page, 4 * self.FIELDS.index(name))[0]

    def set(self, **values):
        for name, value in values.items():
            struct.pack_into("I", self.page, 4 * self.FIELDS.index(name), value)

    def heal(self):
        self.set(**{name: 0 for name in self.FIELDS if name != "injected"})


class Proxy(threading.Thread):
    """Between the clients and the broker: its connections can be cut, or stand still."""

    def __init__(self, port, to):
        super().__init__(daemon=True)
        self.to, self.lock, self.pairs, self.is_stalled = to, threading.Lock(), [], threading.Event()
        self.listener = socket.create_server(("127.0.0.1", port))

    def run(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.to), timeout=1)
                server.settimeout(None)
            except OSError:
                client.close()
                continue
            with self.lock:
                self.pairs = [pair for pair in self.pairs if pair[0].fileno() >= 0] + [(client, server)]
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=self.pump, args=(source, target), daemon=True).start()

    def pump(self, source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                while self.is_stalled.is_set():
                    time.sleep(0.01)
                target.sendall(data)
        for side in (source, target):
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
            side.close()

    def cut(self):
        """In the middle of whatever is under way."""
        with self.lock:
            for pair in self.pairs:
                for side in pair:
                    with contextlib.suppress(OSError):
                        side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        side.shutdown(socket.SHUT_RDWR)
            self.pairs = []


# The faults


def stopped(task):
    """A thread that waits for the disk stops when it has what it waits for."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return (task / "stat").read_text().rpartition(")")[2].split()[0] == "T"
    return True


class World:
    def __init__(self, random):
        self.random, self.counts, self.kills, self.own_ends = random, collections.Counter(), 0, 0
        self.disk = ImageDisk(192)
        self.faulty = FaultyDisk(self.disk.top, "/disk/log/")
        front = free_port()
        self.broker = Broker(
            settings={"log.dirs": f"{self.disk.folder}/log", "martlet.keeper.dir": f"{self.disk.folder}/keeper",
                      "martlet.cut.dir": f"{self.disk.folder}/cut", "log.segment.bytes": "1048576",
                      "advertised.listeners": f"PLAINTEXT://127.0.0.1:{front}", "offsets.topic.num.partitions": "4",
                      "log.flush.offset.checkpoint.interval.ms": "2000"},
            environment=self.faulty.environment)
        self.address = f"127.0.0.1:{front}"
        self.proxy = Proxy(front, self.broker.port)
        self.proxy.start()
        self.ledger = Ledger(self.disk.top / "history")

    def end(self):
        self.broker.end()
        self.disk.end()

    def wait(self, low, high):
        time.sleep(self.random.uniform(low, high))

    def kill(self):
        self.broker.kill()
        self.kills += 1

    def start_again(self, how):
        if self.broker.process is not None:
            self.kill()
        self.ledger.note("ended", how=how)
        self.broker.start(wait=False)
        self.broker.wait_for_answer(60)

    def must_end(self, words, seconds=15):
        """A broker whose only disk failed says so and ends by itself."""
        wait_until(lambda: not self.broker.is_running(), seconds, 0.05, "the end of a broker whose only disk failed")
        self.own_ends += 1
        code, said = self.broker.process.returncode, self.broker.log()[-4000:] + self.broker.output()[-2000:]
        self.broker.process = None
        assert code == 1, f"it ended with {code}"
        assert any(word in said for word in words), f"it did not say why: {said[-1500:]}"

    GONE = ["No log directory can be used any more", "The keeper can write no more"]

    def killed(self):
        self.start_again("kill")

    def stopped_cleanly(self):
        self.broker.stop(seconds=60)
        self.start_again("stop")

    def paused(self):
        self.broker.process.send_signal(signal.SIGSTOP)
        self.wait(0.5, 2.5)
        self.broker.process.send_signal(signal.SIGCONT)

    def cut_off(self):
        for _ in range(5):
            self.proxy.cut()
            self.wait(0.05, 0.3)

    def half_open(self):
        self.proxy.is_stalled.set()
        self.wait(0.5, 2)
        self.proxy.cut()
        self.proxy.is_stalled.clear()

    def disk_full(self):
        self.disk.fill()
        self.wait(1, 2)
        assert self.broker.is_running(), "a full disk ended it"
        self.disk.make_room()

    def killed_on_a_full_disk(self):
        self.disk.fill()
        self.wait(0.2, 0.6)
        self.kill()
        self.disk.make_room()
        self.start_again("kill")

    def shut_off(self):
        """With no sync under way. Of one that is, ext4 says that it succeeded when the journal's commit it waits for was given
        up: a plain loop of write, fdatasync, count loses its last count in one of twenty files. Power does not cut like that."""
        process = self.broker.process
        process.send_signal(signal.SIGSTOP)
        tasks = pathlib.Path(f"/proc/{process.pid}/task")
        wait_until(lambda: all(stopped(task) for task in tasks.iterdir()), 10, 0.002, "a stop of all threads")
        self.disk.shut_off()

    def power_cut(self):
        self.shut_off()
        self.broker.kill()
        self.disk.mount_again()
        self.start_again("powerCut")

    def disk_shut_off_under_it(self):
        self.shut_off()
        self.broker.process.send_signal(signal.SIGCONT)
        self.must_end(self.GONE)
        self.disk.mount_again()
        self.start_again("powerCut")

    def failed_sync(self):
        self.faulty.set(bad_syncs=1)
        self.must_end(self.GONE)
        self.faulty.heal()
        self.start_again("powerCut")

    def failed_write(self):
        self.faulty.set(bad_writes=1)
        self.must_end(self.GONE)
        self.faulty.heal()
        self.start_again("powerCut")

    def failed_read(self):
        """None succeeds from some moment on: while it serves, or while it starts after a kill or a clean stop."""
        when = self.random.choice(["serving", "kill", "stop"])
        if when == "kill":
            self.kill()
        elif when == "stop":
            self.broker.stop(seconds=60)
        before = self.faulty.injected
        self.faulty.set(good_reads=self.random.randrange(80), bad_reads=1 << 30)
        if when != "serving":
            self.ledger.note("ended", how=when)
            self.broker.start(wait=False)
        self.must_end(self.GONE + ["The log directory is taken offline"])
        assert self.faulty.injected > before, "it ended, and no read had failed"
        self.faulty.heal()
        self.start_again("kill")

    def writes_without_room(self):
        self.faulty.set(no_space=20)
        self.wait(0.5, 1)
        self.faulty.heal()
        assert self.broker.is_running(), "a write without room ended it"

    def short_reads_and_writes(self):
        self.faulty.set(short_writes=2, short_reads=2)
        self.wait(1, 2)
        if self.random.random() < 0.5:
            self.start_again("kill")
        self.wait(0.3, 0.8)
        self.faulty.heal()
        assert self.broker.is_running(), "half a write ended it"

    def slow_syncs(self):
        self.faulty.set(slow_syncs=self.random.choice([5_000, 50_000, 300_000]))
        self.wait(1, 2)
        if self.random.random() < 0.5:
            self.start_again("kill")
        self.faulty.heal()

    def crashes(self):
        cuts, own = self.counts["power_cut"] + self.counts["disk_shut_off_under_it"], self.own_ends - self.counts["disk_shut_off_under_it"]
        return (f"{self.kills + cuts + own} crashes survived: {self.kills} SIGKILLs, {cuts} power cuts, "
                f"{own} times the broker ended because its disk failed")

    FAULTS = [killed, stopped_cleanly, paused, cut_off, half_open, disk_full, killed_on_a_full_disk, power_cut, disk_shut_off_under_it,
              failed_sync, failed_write, failed_read, writes_without_room, short_reads_and_writes, slow_syncs]


@test
def what_was_acknowledged_survives_everything_that_fails_under_it():
    random = seeded("torture")
    world = World(random)
    try:
        torture(world, random)
    finally:
        if driving.KEEP:
            print(f"note kept {world.disk.top}")
        else:
            world.end()


def get_on(world, senders, before, fault):
    try:
        wait_until(lambda: all(s.count() > b for s, b in zip(senders, before)), 40, 0.02, f"an acknowledgement after {fault}")
    except AssertionError as error:
        waiting = [s.name for s, b in zip(senders, before) if s.count() <= b]
        told = "\n".join(world.broker.log().splitlines()[-40:])
        raise AssertionError(f"{error}: {', '.join(waiting)} got none; the broker said:\n{told}") from None


def torture(world, random):
    broker = world.broker.start()
    create(broker, "plain", 2)
    create(broker, "packed", 1)
    senders = [Sender(world.address, name, world.ledger) for name in ("first", "second")]
    senders.append(PythonSender(world.address, "python", world.ledger))
    reader = Reader(world.address, world.ledger)
    for thread in (*senders, reader):
        thread.start()
    try:
        wait_until(lambda: all(s.count() > 50 for s in senders) and reader.seen, 30, 0.05, "the load")
        started, coming = time.monotonic(), []
        while time.monotonic() - started < SECONDS or len(world.counts) < len(World.FAULTS):
            coming = coming or random.sample(World.FAULTS, len(World.FAULTS))
            fault, before = coming.pop(), [s.count() for s in senders]
            world.ledger.note("note", text=fault.__name__)
            try:
                fault(world)
            except AssertionError as error:
                raise AssertionError(f"{fault.__name__}: {error}") from error
            world.counts[fault.__name__] += 1
            # it heals: everybody gets on before the next one comes
            get_on(world, senders, before, fault.__name__)
            world.wait(0, 0.4)
        lasted = time.monotonic() - started
    finally:
        for thread in senders:
            thread.ended.set()
        for thread in senders:
            thread.join()
        reader.ended.set()
        reader.join()
    found, committed = read_all(world.address, world.ledger)
    judge(senders, reader, found, committed)
    verdict = world.ledger.judge()
    print(f"note {sum(world.counts.values())} faults in {lasted:.0f} s ({', '.join(f'{n} {c}' for n, c in sorted(world.counts.items()))}), "
          f"{world.faulty.injected} calls failed; {world.crashes()}; {sum(s.count() for s in senders)} records acknowledged, {len(reader.seen)} read along, "
          f"{verdict}")
    broker.stop(seconds=60)
    got = run_program("log", "verify", f"{world.disk.folder}/log", seconds=120)
    assert got.returncode == 0, f"what is left is not sound: {got.stdout[-2000:]}"


# Damage, and its repair


def metadata(connection, topic):
    """partition -> (error, leader)."""
    from wire import METADATA, frame, string
    answer = connection.ask(frame(METADATA, 1, struct.pack(">i", 1) + string(topic)))
    for _ in range(answer.take("i")):
        answer.take("i"), answer.string(), answer.take("i"), answer.string()
    answer.take("i")
    found = {}
    for _ in range(answer.take("i")):
        answer.take("h"), answer.string(), answer.take("b")
        for _ in range(answer.take("i")):
            error, index, leader = answer.take("hii")
            for _ in range(2):
                for _ in range(answer.take("i")):
                    answer.take("i")
            found[index] = (error, leader)
    return found


@test
def a_damaged_batch_takes_its_partition_offline_and_repair_brings_back_what_is_sound():
    broker = Broker(settings={"martlet.metrics.listener": f"127.0.0.1:{free_port()}"}).start()
    connection = Connection(broker.port)
    assert connection.create_topic("hurt", 2, {"segment.bytes": "20000"}) == 0
    for i in range(60):
        assert connection.produce("hurt", i % 2, [b"%04d" % i + b"." * 2000])[0] == 0
    broker.stop()
    folder = broker.folder / "log" / "hurt-0"
    log = folder / "00000000000000000000.log"
    whole = log.read_bytes()
    log.write_bytes(whole[:9000] + bytes([whole[9000] ^ 0x40]) + whole[9001:])

    broker.start()
    connection = Connection(broker.port)
    error, _, got = connection.fetch("hurt", 0, 0)
    assert error == KAFKA_STORAGE_ERROR and got == b"", f"a damaged batch was served: error {error}, {len(got)} bytes"
    assert connection.fetch("hurt", 1, 0)[0] == 0, "the other partition serves"
    assert connection.produce("hurt", 1, [b"still here"])[0] == 0
    assert connection.produce("hurt", 0, [b"not here"])[0] == KAFKA_STORAGE_ERROR
    wait_until(lambda: metadata(connection, "hurt") == {0: (LEADER_NOT_AVAILABLE, -1), 1: (0, 1)}, 5, what="clients are told")
    said = [line for line in broker.log().splitlines() if "partition offline" in line]
    assert len(said) == 1 and f"martlet log verify --repair {folder}" in said[0] and str(log) in said[0] and "offset 4" in said[0], said
    broker.stop()

    got = run_program("log", "verify", "--repair", str(broker.folder / "log"))
    assert got.returncode == 1 and "GIVE UP" in got.stdout and "nothing was changed" in got.stdout, got
    assert log.read_bytes() != whole and len(log.read_bytes()) == len(whole)
    got = run_program("log", "verify", "--repair", "--yes", str(folder))
    assert got.returncode == 1 and "left undone" in got.stdout, got
    assert len(log.read_bytes()) == len(whole), "it cut records that nobody gave up"
    got = run_program("log", "verify", "--repair", "--yes", "--give-up-records", str(folder))
    assert got.returncode == 0, got
    aside = broker.folder / "log-set-aside" / "hurt-0"
    kept = log.read_bytes()
    tail = (aside / f"{log.name}.from-{len(kept)}").read_bytes()
    assert kept + tail == whole[:9000] + bytes([whole[9000] ^ 0x40]) + whole[9001:], "not a byte is lost"

    broker.start()
    connection = Connection(broker.port)
    error, end, got = connection.fetch("hurt", 0, 0)
    assert (error, end) == (0, 4) and [v[:4] for _, v in values_in(got)] == [b"%04d" % i for i in (0, 2, 4, 6)]
    assert connection.produce("hurt", 0, [b"again"]) == (0, 4)
    assert connection.end_offset("hurt", 1) == 31
    broker.stop()
    assert run_program("log", "verify", str(broker.folder / "log")).returncode == 0


@test
def a_disk_that_fails_takes_its_partitions_and_no_others():
    disk = ImageDisk(64)
    try:
        broker = Broker()
        broker.settings["log.dirs"] = f"{broker.folder}/log,{disk.folder}/log"
        metrics = free_port()
        broker.settings["martlet.metrics.listener"] = f"127.0.0.1:{metrics}"
        broker.start()
        connection = Connection(broker.port, timeout=30)
        assert connection.create_topic("spread", 4) == 0
        for i in range(80):
            assert connection.produce("spread", i % 4, [b"%04d" % i + b"." * 500])[0] == 0
        lost = {int(p.name.rpartition("-")[2]) for p in pathlib.Path(disk.folder, "log").iterdir() if p.name.startswith("spread-")}
        assert 0 < len(lost) < 4, lost
        disk.shut_off()
        for partition in range(4):
            error, _ = connection.produce("spread", partition, [b"after"])
            assert error == (KAFKA_STORAGE_ERROR if partition in lost else 0), f"partition {partition}: error {error}"
        assert broker.is_running()
        wait_until(lambda: all((metadata(connection, "spread")[p][1] == -1) == (p in lost) for p in range(4)), 5, what="clients are told")
        for partition in set(range(4)) - lost:
            assert connection.fetch("spread", partition, 0)[0] == 0 and connection.end_offset("spread", partition) == 21
        import urllib.request
        page = urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics", timeout=10).read().decode()
        assert f'martlet_log_directory_offline{{directory="{disk.folder}/log"}} 1' in page
        assert f'martlet_log_directory_offline{{directory="{broker.folder}/log"}} 0' in page
        broker.kill()
        disk.mount_again()
        broker.start()
        connection = Connection(broker.port, timeout=30)
        for partition in range(4):
            wait_until(lambda: connection.fetch("spread", partition, 0)[0] == 0, 10, what=f"partition {partition}")
            assert connection.end_offset("spread", partition) >= 20
        broker.stop()
    finally:
        disk.end()


@test
def a_file_that_cannot_be_sent_takes_its_directory_offline():
    folder = tempfile.mkdtemp(prefix="martlet-faulty-")
    try:
        faulty = FaultyDisk(folder, "/log/")
        broker = Broker(environment=faulty.environment).start()
        connection = Connection(broker.port, timeout=30)
        assert connection.create_topic("sent") == 0
        value = b"." * 100_000
        assert connection.produce("sent", 0, [value]) == (0, 0)
        faulty.set(bad_sends=1 << 30)
        with contextlib.suppress(Closed):
            error, _, got = connection.fetch("sent", 0, 0)
            assert error == KAFKA_STORAGE_ERROR and not got, f"error {error}, {len(got)} bytes of what cannot be read"
        assert faulty.injected > 0, "nothing was sent from the file"
        wait_until(lambda: not broker.is_running(), 5, what="the end of a broker whose only disk cannot be read")
        assert any(word in broker.log() + broker.output() for word in World.GONE), broker.log()[-1500:]
        broker.process = None
        faulty.heal()
        broker.start()
        error, _, got = Connection(broker.port).fetch("sent", 0, 0)
        assert (error, values_in(got)) == (0, [(0, value)]), f"error {error}, {len(got)} bytes"
        broker.stop()
    finally:
        shutil.rmtree(folder)


class Pipelining(threading.Thread):
    """An idempotent producer with five batches in flight, which sends none after the first that fails."""

    def __init__(self, broker, topic, partition, first):
        super().__init__()
        self.connection, self.place, self.first, self.next, self.errors = Connection(broker.port), (topic, partition), first, first, []

    def run(self):
        sent = self.first
        with contextlib.suppress(Closed, OSError):
            while True:
                while sent < self.next + 5 and not self.errors:
                    value = batch([b"%d" % sent], producer=(100 + self.place[1], 0, sent))
                    self.connection.send(produce(*self.place, value, correlation=sent))
                    sent += 1
                number, answer = self.connection.receive()
                error, _ = Connection.produced(answer)
                if error:
                    self.errors.append((number, error))
                    if number + 1 == sent:
                        break
                else:
                    self.next = number + 1
        self.connection.close()


@test
def what_follows_a_write_that_failed_is_refused_as_it_was():
    """Who is told that a batch is out of order, and not that the disk failed, takes a new epoch: what it sends again then, of other
    partitions too, is no duplicate any more, although it was written."""
    folder = tempfile.mkdtemp(prefix="martlet-faulty-")
    try:
        faulty, firsts = FaultyDisk(folder, "/log/"), [0] * 4
        broker = Broker(environment=faulty.environment).start()
        assert Connection(broker.port, timeout=30).create_topic("followed", 4) == 0
        for _ in range(20):
            producers = [Pipelining(broker, "followed", partition, first) for partition, first in enumerate(firsts)]
            for producer in producers:
                producer.start()
            time.sleep(0.1)
            faulty.set(bad_writes=1)
            wait_until(lambda: not broker.is_running(), 15, what="the end of a broker whose only disk failed")
            for producer in producers:
                producer.join()
            told = {error for producer in producers for _, error in producer.errors}
            assert told <= {KAFKA_STORAGE_ERROR}, f"{[producer.errors for producer in producers]}"
            firsts, broker.process = [producer.next for producer in producers], None
            faulty.heal()
            broker.start()
    finally:
        shutil.rmtree(folder)
