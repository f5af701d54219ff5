"""Compaction as clients and operators see it: the last of each key stays, nothing else is lost, and it is told."""
import json, random, re, subprocess, sys, time, urllib.request
import driving
from confluent import QUIET, admin, create, produce
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from confluent_kafka.admin import ConfigResource
from driving import Broker, free_port, seeded, shared, test, wait_until
from wire import Connection, batch
from wire import produce as wire_produce

OFTEN = {"log.cleaner.backoff.ms": "50", "log.initial.task.delay.ms": "100"}


def started(**settings):
    broker = Broker(settings={**OFTEN, "martlet.metrics.listener": f"127.0.0.1:{free_port()}", **{k.replace("_", "."): str(v) for k, v in settings.items()}})
    return broker.start()


def left(broker, topic):
    """{offset: (key, value)} of all that a consumer gets from the start to the end."""
    consumer = Consumer({"bootstrap.servers": broker.address, "group.id": "unused", "enable.partition.eof": True, **QUIET})
    consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    found, offsets = {}, []
    while True:
        message = consumer.poll(10)
        assert message is not None, "the end of the partition"
        if message.error():
            break
        found[message.offset()] = (message.key(), message.value())
        offsets.append(message.offset())
    consumer.close()
    assert offsets == sorted(offsets)
    return found


def written(broker, topic, random, count, keys, **config):
    """Produces records of some keys; [(offset, key, value)]."""
    sent = [(b"k%d" % random.randrange(keys), None if random.random() < 0.1 else b"v%d" % i + b"x" * random.randrange(100)) for i in range(count)]
    told = produce(broker, topic, [{"key": k, "value": v} for k, v in sent], linger_ms=2, batch_num_messages=20, **config)
    assert all(error is None for error, _ in told)
    return [(offset, key, value) for (_, offset), (key, value) in zip(told, sent)]


def truth(history, below):
    """The last record of every key, and which may be there no more."""
    last = {key: (offset, value) for offset, key, value in history if offset < below}
    stay = {offset: (key, value) for key, (offset, value) in last.items()}
    return {**stay, **{offset: (key, value) for offset, key, value in history if offset >= below}}


def row(broker, topic):
    path = broker.folder / "log/cleaner-offset-checkpoint"
    for line in path.read_text().splitlines()[2:] if path.exists() else []:
        name, _, offset = line.rsplit(" ", 2)
        if name == topic:
            return int(offset)
    return 0


def sound(broker):
    got = subprocess.run([sys.executable, shared("kafka-data", "read_dir.py"), broker.folder / "log"], capture_output=True, text=True, timeout=60)
    assert got.returncode == 0 and "sound" in got.stdout, got.stdout[-2000:] + got.stderr[-1000:]


@test
def the_last_record_of_each_key_stays_whatever_its_codec_and_through_kills():
    random, broker = seeded("compaction"), started(log_segment_delete_delay_ms=100)
    create(broker, "t", cleanup_policy="compact", segment_bytes=2000, min_cleanable_dirty_ratio=0.01)
    history = []
    for round, codec in enumerate(["none", "gzip", "snappy", "lz4", "zstd"]):
        history += written(broker, "t", random, 400, 50, compression_type=codec, enable_idempotence=round % 2 == 0)
        # what follows begins a segment: all of it can be compacted
        wait_until(lambda: row(broker, "t") > history[-1][0] - 200, what="a compaction of most of it")
        if round % 2:
            broker.kill()
            broker.start()
        want = truth(history, row(broker, "t"))
        got = wait_until(lambda: (found := left(broker, "t")) and len(found) <= len(want) + 200 and found, what="superseded records to go")
        last = {key: value for _, key, value in history}
        seen = {key: value for _, (key, value) in sorted(got.items())}
        assert {k: v for k, v in seen.items() if v is not None} == {k: v for k, v in last.items() if v is not None}
        known = {offset: (key, value) for offset, key, value in history}
        assert all(known[offset] == record for offset, record in got.items()), "a record is another"
    folder = broker.folder / "log/t-0"
    wait_until(lambda: not [f for f in folder.iterdir() if f.name.endswith((".deleted", ".cleaned", ".swap"))], what="old files to be removed")
    broker.stop()
    sound(broker)


@test
def what_is_compacted_is_told_by_the_command_and_by_metrics():
    broker = started()
    create(broker, "t", cleanup_policy="compact", segment_bytes=2000, min_cleanable_dirty_ratio=0.01)
    create(broker, "other")
    written(broker, "t", random.Random(1), 800, 20)

    def upkeep():
        got = subprocess.run([driving.PROGRAM, "topic", "describe", "--upkeep", "--json", "--bootstrap", broker.address, "t", "other"],
                             capture_output=True, text=True, timeout=20)
        assert got.returncode == 0, got.stderr
        return {topic["name"]: topic["upkeep"] for topic in json.loads(got.stdout)["topics"]}

    told = wait_until(lambda: (found := upkeep()) and found["t"] and found["t"][0]["compactions"] and found["t"][0]["savedBytes"] > 1000 and found,
                      what="a compaction to be told")
    assert told["other"] == []
    one = told["t"][0]
    assert one["partition"] == 0 and not one["uncleanable"] and one["lastCompactedMs"] > 1_700_000_000_000, one
    text = subprocess.run([driving.PROGRAM, "topic", "describe", "--upkeep", "--bootstrap", broker.address, "t"], capture_output=True, text=True, timeout=20)
    assert text.returncode == 0 and "COMPACTED TO" in text.stdout and "upkeep" in text.stdout, text
    page = urllib.request.urlopen(f"http://{broker.settings['martlet.metrics.listener']}/metrics", timeout=10).read().decode()
    value = lambda name: float(re.search(rf"^{name} (\S+)$", page, re.M)[1])
    assert value("martlet_compactions_total") >= 1 and value("martlet_compaction_dropped_records_total") > 100
    assert value("martlet_compaction_saved_bytes_total") > 1000 and value("martlet_uncleanable_partitions") == 0


@test
def a_partition_whose_files_cannot_be_read_is_said_once_and_serves_on():
    broker = started(log_cleaner_enable="false")
    create(broker, "t", cleanup_policy="compact", segment_bytes=2000, min_cleanable_dirty_ratio=0.01)
    create(broker, "u", cleanup_policy="compact", segment_bytes=2000, min_cleanable_dirty_ratio=0.01)
    written(broker, "t", random.Random(2), 400, 20)
    time.sleep(0.5)
    assert row(broker, "t") == 0, "the cleaner was not asked for"
    broker.stop()
    path = broker.folder / "log/t-0/00000000000000000000.log"
    with open(path, "r+b") as file:
        file.seek(path.stat().st_size - 20)
        file.write(b"\xff" * 8)
    broker.settings["log.cleaner.enable"] = "true"
    broker.start()
    wait_until(lambda: "cannot be compacted" in broker.log(), what="the damage to be said")
    written(broker, "u", random.Random(3), 400, 20)
    wait_until(lambda: row(broker, "u") > 0, what="the other partition to be compacted")
    assert broker.log().count("cannot be compacted") == 1 and "checksum" in broker.log()
    assert all(error is None for error, _ in produce(broker, "t", [{"key": b"k", "value": b"v"}]))


@test
def the_cleaner_is_held_to_its_rate():
    broker = started(log_cleaner_io_max_bytes_per_second="50000.0", log_cleaner_threads="2", log_cleaner_dedupe_buffer_size=str(3 << 20))
    create(broker, "t", cleanup_policy="compact", segment_bytes=20000, min_cleanable_dirty_ratio=0.01)
    began = time.monotonic()
    written(broker, "t", random.Random(4), 1200, 1000)
    wait_until(lambda: row(broker, "t") > 0, what="a compaction")
    page = urllib.request.urlopen(f"http://{broker.settings['martlet.metrics.listener']}/metrics", timeout=10).read().decode()
    moved = sum(float(re.search(rf"^martlet_compaction_{what}_bytes_total (\S+)$", page, re.M)[1]) for what in ("read", "written"))
    assert moved > 60_000, moved
    # the last piece is not waited for
    assert (moved - 25_000) / 50_000 < time.monotonic() - began + 0.5, moved


def round_trips(broker, seconds, enough):
    """What a produce to the partition that is compacted and a fetch of its end take, in seconds, until it is enough."""
    connection, records, took, end = Connection(broker.port), batch([b"v" * 100], key=b"hot"), [], time.monotonic() + seconds
    while time.monotonic() < end and not enough():
        began = time.monotonic()
        error, offset = connection.produced(connection.ask(wire_produce("t", 0, records, acks=1)))
        assert error == 0, error
        assert connection.fetch("t", 0, offset)[0] == 0
        took.append(time.monotonic() - began)
        time.sleep(0.002)
    return sorted(took)


@test
def producers_and_readers_of_a_partition_do_not_wait_for_its_compaction():
    # without syncs that are waited for: what holds them up is the disk
    broker = started(log_cleaner_enable="false", martlet_durability="page-cache")
    create(broker, "t", cleanup_policy="compact", segment_bytes=40_000_000, min_cleanable_dirty_ratio=0.01)
    value = b"x" * 2000
    for turn in range(2):
        told = produce(broker, "t", [{"key": b"k%d" % i, "value": value} for i in range(30_000)], linger_ms=5, queue_buffering_max_kbytes=200_000)
        assert all(error is None for error, _ in told)
    alone = round_trips(broker, 2, lambda: False)
    broker.stop()
    broker.settings["log.cleaner.enable"] = "true"
    broker.start()
    began = time.monotonic()
    busy = round_trips(broker, 60, lambda: row(broker, "t") > 30_000)
    seconds = time.monotonic() - began
    assert row(broker, "t") > 30_000, "it was not compacted"
    assert len(busy) > 20, f"{len(busy)} round trips beside a compaction of 120 MB"
    half = lambda took: took[len(took) // 2]
    # what each would wait for if the loop, or the partition's lock, was held by a piece: all is read twice, by 4 MiB
    piece = seconds / (2 * 60_000 * len(value) / (4 << 20))
    print(f"     {len(busy)} round trips beside a compaction of {seconds:.1f} s: half within {half(busy) * 1e3:.1f} ms, alone {half(alone) * 1e3:.1f} ms; "
          f"the longest {busy[-1] * 1e3:.0f} ms, alone {alone[-1] * 1e3:.0f} ms; a piece took {piece * 1e3:.0f} ms")
    assert half(busy) <= max(0.01, piece / 2), f"{half(busy):.3f} s, alone {half(alone):.3f} s, a piece {piece:.3f} s"
    assert busy[-1] < max(1, seconds / 4), f"{busy[-1]:.3f} s, alone {alone[-1]:.3f} s"


@test
def the_brokers_own_topic_of_offsets_is_compacted():
    broker = started(offsets_topic_segment_bytes=20000, offsets_topic_num_partitions=1, offsets_topic_replication_factor=1, log_cleaner_min_cleanable_ratio="0.01",
                     group_initial_rebalance_delay_ms=0)
    create(broker, "t")
    consumer = Consumer({"bootstrap.servers": broker.address, "group.id": "g", "enable.auto.commit": False, **QUIET})
    for offset in range(400):
        consumer.commit(offsets=[TopicPartition("t", 0, offset)], asynchronous=False)
    wait_until(lambda: row(broker, "__consumer_offsets") > 100, what="a compaction of the offsets")
    broker.kill()
    broker.start()
    assert wait_until(lambda: consumer.committed([TopicPartition("t", 0)], timeout=10))[0].offset == 399
    consumer.close()
    broker.stop()
    sound(broker)
