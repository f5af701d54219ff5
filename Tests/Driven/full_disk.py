"""A disk without room: producers are told, readers go on, and when there is room again so do the producers."""
import contextlib, os, subprocess, tempfile, threading, time
from driving import Broker, Skip, test, wait_until
from torture import FaultyDisk
from wire import Connection, values_in

KAFKA_STORAGE_ERROR = 56


@contextlib.contextmanager
def small_disk(megabytes):
    if os.geteuid() != 0:
        raise Skip("only root can make a small file system")
    with tempfile.TemporaryDirectory(prefix="martlet-disk-") as folder:
        if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder], capture_output=True).returncode:
            raise Skip("this machine does not let root mount a tmpfs")
        try:
            yield folder
        finally:
            subprocess.run(["umount", "--lazy", folder])


@test
def a_full_disk_refuses_producers_serves_readers_and_recovers():
    with small_disk(24) as disk:
        filler = f"{disk}/filler"
        broker = Broker(settings={"log.dirs": f"{disk}/log", "log.segment.bytes": str(4 << 20)})
        broker.start()
        connection = Connection(broker.port)
        assert connection.create_topic("filled", 2) == 0
        subprocess.run(["fallocate", "-l", "12M", filler], check=True)
        payload, acknowledged, error = b"f" * 500_000, [], 0
        for i in range(60):
            error, offset = connection.produce("filled", i % 2, [b"%04d" % i + payload])
            if error:
                break
            acknowledged.append((i % 2, offset, i))
        assert error == KAFKA_STORAGE_ERROR, f"error {error} after {len(acknowledged)} records"
        assert len(acknowledged) > 5
        assert broker.is_running()
        for partition, offset, i in acknowledged[:4]:
            got, _, batches = Connection(broker.port).fetch("filled", partition, offset)
            assert got == 0 and values_in(batches)[0] == (offset, b"%04d" % i + payload), f"fetch: error {got}"
        said = [line for line in broker.log().splitlines() if "space" in line.lower() or "full" in line.lower()]
        assert said, "the log does not say that the disk is full"
        assert len(said) < 100, f"{len(said)} lines"

        os.unlink(filler)
        wait_until(lambda: Connection(broker.port).produce("filled", 0, [b"room again"])[0] == 0, 15, 0.2, "a write once there is room")
        wait_until(lambda: Connection(broker.port).produce("filled", 1, [b"room again"])[0] == 0, 15, 0.2, "a write once there is room")
        for _ in range(2):
            for partition, offset, i in acknowledged:
                got, _, batches = Connection(broker.port).fetch("filled", partition, offset)
                assert got == 0 and values_in(batches)[0] == (offset, b"%04d" % i + payload), f"record {i} at {partition}, {offset}: error {got}"
            broker.kill()
            broker.start()
        broker.stop()


@test
def a_topic_made_on_a_full_disk_takes_records_when_there_is_room():
    with small_disk(8) as disk:
        broker = Broker(settings={"log.dirs": f"{disk}/log"}).start()
        assert Connection(broker.port).create_topic("before") == 0
        subprocess.run(["dd", "if=/dev/zero", f"of={disk}/filler", "bs=4k"], capture_output=True)
        # the keeper has room: the topic is there, its partitions are not
        Connection(broker.port, timeout=60).create_topic("late", 3)
        produce = lambda partition: Connection(broker.port).produce("late", partition, [b"late"])[0]
        wait_until(lambda: [produce(partition) for partition in range(3)] == [KAFKA_STORAGE_ERROR] * 3, 15, 0.2, "a refusal")
        # tried again now and then, and said once of each
        time.sleep(11)
        assert broker.log().count("a replica cannot be served") == 3, broker.log()
        assert broker.is_running()
        os.unlink(f"{disk}/filler")
        for partition in range(3):
            wait_until(lambda: produce(partition) == 0, 15, 0.2, f"partition {partition}, once there is room")
        broker.kill()
        broker.start()
        assert [Connection(broker.port).end_offset("late", partition) for partition in range(3)] == [1, 1, 1]
        broker.stop()


@test
def a_full_disk_under_the_keeper_holds_up_changes_of_topics_and_nothing_else():
    with small_disk(8) as disk:
        broker = Broker(settings={"martlet.keeper.dir": f"{disk}/keeper"}).start()
        connection = Connection(broker.port, timeout=60)
        assert connection.create_topic("before") == 0
        subprocess.run(["dd", "if=/dev/zero", f"of={disk}/filler", "bs=4k"], capture_output=True)
        answers = []
        asking = threading.Thread(target=lambda: answers.extend(connection.create_topic(f"waited-{i}", 20) for i in range(10)))
        asking.start()
        for _ in range(100):
            if "disk is full" in broker.log():
                break
            time.sleep(0.1)
        assert "disk is full" in broker.log() and len(answers) < 10 and broker.is_running()
        other = Connection(broker.port)
        assert other.produce("before", 0, [b"one", b"two"]) == (0, 0)
        assert other.end_offset("before") == 2
        os.unlink(f"{disk}/filler")
        asking.join(60)
        assert answers == [0] * 10, answers
        assert other.create_topic("after") == 0
        broker.kill()
        broker.start()
        assert Connection(broker.port).end_offset("before") == 2
        broker.stop()


@test
def a_keeper_whose_disk_fails_ends_the_broker_with_a_sentence_and_the_next_one_has_everything():
    for fault in ({"bad_syncs": 3}, {"bad_writes": 3}):
        broker = Broker()
        faulty = FaultyDisk(broker.folder, f"{broker.folder}/keeper/")
        broker.environment = faulty.environment
        broker.start()
        connection = Connection(broker.port)
        assert connection.create_topic("before") == 0
        assert connection.produce("before", 0, [b"one", b"two"]) == (0, 0)
        faulty.set(**fault)
        with contextlib.suppress(OSError, EOFError, AssertionError):
            assert Connection(broker.port, timeout=20).create_topic("during") != 0, "it was made on a disk that fails"
        assert broker.process.wait(20) == 1, f"{fault}: {broker.process.returncode}"
        assert faulty.injected > 0, fault
        assert "The keeper can write no more" in broker.log() and "Nothing is served without it" in broker.log(), broker.log()
        faulty.heal()
        broker.process = None
        broker.start()
        connection = Connection(broker.port)
        assert connection.end_offset("before") == 2
        assert connection.create_topic("after") == 0
        broker.stop()
