"""What lies on disk after many clients wrote, read by a reader that shares no code with the broker."""
import struct, subprocess, sys, threading, time
from confluent import admin, create, produce
from confluent_kafka import TopicPartition
from driving import Broker, seeded, shared, test, wait_until
from wire import Connection, frame, string, values_in
import kafka_python


def sound(broker, directory="log"):
    reader = shared("kafka-data", "read_dir.py")
    assert broker.process is None
    got = subprocess.run([sys.executable, reader, broker.folder / directory], capture_output=True, text=True, timeout=120)
    assert got.returncode == 0 and "sound" in got.stdout, got.stdout[-3000:] + got.stderr[-2000:]


def write_everything(broker, times=1):
    """Every codec by two clients, many segments, recompression, log append time, deleted records and topics, idempotence."""
    shared("kafka-data", "read_dir.py")
    small = dict(segment_bytes=20_000, index_interval_bytes=500, segment_index_bytes=200)
    messages = [dict(key=b"k%d" % i, value=(b"value %d " % i) * (i % 60), headers=[("h", b"%d" % i)] if i % 7 == 0 else None) for i in range(600)]
    for message in messages:
        if message["headers"] is None:
            del message["headers"]
    for codec in ("none", "gzip", "snappy", "lz4", "zstd"):
        create(broker, f"from-c-{codec}", 1, **small)
        create(broker, f"recoded-{codec}", 1, compression_type="uncompressed" if codec == "none" else codec)
        for _ in range(times):
            produce(broker, f"from-c-{codec}", messages, compression_type=codec, batch_num_messages=40, enable_idempotence=True)
            produce(broker, f"recoded-{codec}", messages[:100], compression_type="gzip")
        kafka_python.create(broker, f"from-python-{codec}", 1)
        kafka_python.produce(broker, f"from-python-{codec}", messages[:200], compression_type=None if codec == "none" else codec)
    create(broker, "stamped", 1, message_timestamp_type="LogAppendTime", **small)
    produce(broker, "stamped", messages, compression_type="lz4", batch_num_messages=30)
    create(broker, "cut", 1, **small)
    produce(broker, "cut", messages, batch_num_messages=20)
    for done in admin(broker).delete_records([TopicPartition("cut", 0, 333)]).values():
        done.result(10)
    create(broker, "gone", 2)
    produce(broker, "gone", messages[:50])
    admin(broker).delete_topics(["gone"])["gone"].result(10)
    create(broker, "never-written", 3)


@test
def sound_after_a_clean_stop():
    broker = Broker().start()
    write_everything(broker)
    broker.stop()
    sound(broker)


@test
def sound_after_a_second_life_on_the_same_files():
    broker = Broker().start()
    write_everything(broker)
    broker.restart()
    messages = [dict(value=b"again %d" % i) for i in range(300)]
    for codec in ("none", "gzip", "snappy", "lz4", "zstd"):
        assert produce(broker, f"from-c-{codec}", messages, compression_type=codec, enable_idempotence=True)[0][1] == 600
    broker.stop()
    sound(broker)


@test
def sound_after_kill_9_under_load_and_recovery():
    broker = Broker().start()
    write_everything(broker)
    ended, random = threading.Event(), seeded("directories")

    def load():
        from confluent_kafka import Producer
        producer = Producer({"bootstrap.servers": broker.address, "enable.idempotence": True, "linger.ms": 1, "compression.type": "zstd"})
        i = 0
        while not ended.is_set():
            producer.produce("from-c-zstd", b"under load %d" % i)
            i += 1
            if i % 100 == 0:
                producer.poll(0.002)
        producer.flush(20)

    writing = threading.Thread(target=load)
    writing.start()
    try:
        for _ in range(5):
            time.sleep(random.uniform(0.1, 0.5))
            broker.kill()
            broker.start()
    finally:
        ended.set()
        writing.join()
    broker.stop()
    sound(broker)


def move(connection, topic, partition, directory):
    """AlterReplicaLogDirs 1; the error code."""
    body = struct.pack(">i", 1) + string(str(directory)) + struct.pack(">i", 1) + string(topic) + struct.pack(">ii", 1, partition)
    answer = connection.ask(frame(34, 1, body))
    answer.take("ii")
    answer.string()
    return answer.take("iih")[2]


@test
def a_replica_moves_between_directories_under_clients_that_notice_nothing():
    broker = Broker(settings={"log.segment.bytes": "4194304"})
    directories = [broker.folder / "a", broker.folder / "b"]
    broker.settings["log.dirs"] = ",".join(map(str, directories))
    broker.start()
    assert Connection(broker.port).create_topic("moved", 1) == 0
    ended, appended, complaints, read, slowest = threading.Event(), [], [], [], [0.0, 0.0]

    def write(index):
        # clients would hide an answer that they are to retry: these say what it was
        connection, number = Connection(broker.port), 0
        while not ended.is_set():
            began = time.monotonic()
            value = b"%d:%d " % (index, number) + b"." * 4_000
            error, offset = connection.produce("moved", 0, [value], acks=(1, -1)[index])
            slowest[0] = max(slowest[0], time.monotonic() - began)
            if error:
                complaints.append(f"produce: error {error}")
            appended.append((offset, value[:20]))
            number += 1

    def follow():
        connection, offset = Connection(broker.port), 0
        while not ended.is_set() or offset < len(appended):
            began = time.monotonic()
            error, _, records = connection.fetch("moved", 0, offset, wait=100)
            slowest[1] = max(slowest[1], time.monotonic() - began)
            if error:
                complaints.append(f"fetch: error {error}")
                return
            for offset, value in values_in(records):
                read.append((offset, value[:20]))
            offset = len(read)
            connection.end_offset("moved", patience=0)

    workers = [threading.Thread(target=write, args=(i,)) for i in range(2)] + [threading.Thread(target=follow)]
    for worker in workers:
        worker.start()
    asking, moves = Connection(broker.port), 0

    def lies_in(directory):
        return (directory / "moved-0").is_dir() and not list(directory.glob("*-future"))

    try:
        time.sleep(0.5)
        here = next(d for d in directories if lies_in(d))
        for _ in range(6):
            there = next(d for d in directories if d != here)
            assert move(asking, "moved", 0, there) == 0
            wait_until(lambda: lies_in(there) and not lies_in(here), 30, what=f"move {moves + 1}")
            here, moves = there, moves + 1
            time.sleep(0.1)
    finally:
        ended.set()
        for worker in workers:
            worker.join()
    print(f"note {moves} moves under {len(appended)} records; the slowest produce took {slowest[0] * 1000:.0f} ms, the slowest fetch {slowest[1] * 1000:.0f} ms")
    assert not complaints, complaints[:5]
    assert sorted(appended) == read, "what was read is not what was appended"
    broker.stop()
    for directory in "ab":
        sound(broker, directory)
