"""Log directories that Kafka wrote, taken over: served record for record, written to, and still Kafka's when the broker has stopped."""
import importlib.util, json, pathlib, shutil, struct, subprocess, sys, time
from driving import Broker, run_program, seeded, shared, test, unpack, wait_until
from wire import FETCH, Connection, crc32c, frame, produce, string, varint

OFFSET_FETCH, DELETE_TOPICS, INIT_PRODUCER_ID = 9, 20, 22
LONG = 2147483647


def reader():
    """The reader of Kafka's directories that shares no code with the broker, as a module."""
    path = shared("kafka-data", "read_dir.py")
    spec = importlib.util.spec_from_file_location("read_dir", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Taken:
    """An archive, unpacked, and a broker on it."""

    def __init__(self, archive, settings=None, flags=()):
        self.listing_path = shared("kafka-data", f"{archive}.json")
        self.listing = json.loads(self.listing_path.read_text())
        self.broker = Broker(flags=flags)
        unpack(archive, self.broker.folder)
        self.directories = sorted(p.parent for p in (self.broker.folder / archive).rglob("meta.properties"))
        self.broker.settings.update({
            "log.dirs": ",".join(map(str, self.directories)), "log.retention.ms": "-1", "log.retention.bytes": "-1",
            "producer.id.expiration.ms": str(LONG), "offsets.retention.minutes": str(LONG),
            "auto.create.topics.enable": "false", **(settings or {}),
        })

    def write_settings(self):
        """What was set for the topics, as a file of the lines that `--topic-settings` takes."""
        lines = ["# what Kafka had been told", ""]
        told = self.listing.get("topicConfigs") or {}
        nodes = {path[len("/config/topics/"):]: json.loads(text)["config"]
                 for path, text in (self.listing.get("znodes") or {}).items() if path.startswith("/config/topics/")}
        for topic, settings in sorted({**nodes, **told}.items()):
            if topic not in self.listing["topics"]:
                continue
            for name, value in settings.items():
                if not name.startswith("retention."):     # or the first housekeeping deletes old data, rightly
                    lines.append(f"{topic} {name.removeprefix('internal.')}={value}")
        path = self.broker.folder / "topic-settings"
        path.write_text("\n".join(lines) + "\n")
        self.broker.flags += ["--topic-settings", str(path)]
        return self

    def start(self):
        self.broker.start()
        wait_until(lambda: "Martlet is ready" in self.broker.output(), 20, what="the ready block")
        return self

    def partitions(self):
        for topic, parts in sorted(self.listing["topics"].items()):
            for index, said in sorted(parts.items(), key=lambda item: int(item[0])):
                yield topic, int(index), said

    def metadata_files(self):
        return {path: path.read_bytes() for path in (d / "meta.properties" for d in self.directories)}

    def expect_sound(self, *extra):
        script = shared("kafka-data", "read_dir.py")
        got = subprocess.run([sys.executable, script, *map(str, self.directories), *map(str, extra)], capture_output=True, text=True, timeout=120)
        faults = "\n".join(l for l in got.stdout.splitlines() if "ERROR" in l)
        assert got.returncode == 0, f"{faults[:3000]}\n{got.stdout[-500:]}{got.stderr[-2000:]}"


NOT_LEADER = 6


def fetched(connection, topic, partition, offset, committed=False):
    """(error, high watermark, last stable offset, aborted transactions, bytes). A replica that is exchanged at the end of a
    move has no leader for a moment, and is asked again, as clients do."""
    patience = time.monotonic() + 10
    while (answer := fetched_now(connection, topic, partition, offset, committed))[0] == NOT_LEADER and time.monotonic() < patience:
        time.sleep(0.02)
    return answer


def fetched_now(connection, topic, partition, offset, committed):
    body = struct.pack(">iiiib", -1, 0, 1, 1 << 24, 1 if committed else 0) + struct.pack(">i", 1) + string(topic)
    answer = connection.ask(frame(FETCH, 4, body + struct.pack(">iiqi", 1, partition, offset, 1 << 24)))
    answer.take("ii")
    answer.string()
    _, _, error, high, stable = answer.take("iihqq")
    aborted = [list(answer.take("qq")) for _ in range(max(answer.take("i"), 0))]
    return error, high, stable, aborted, answer.bytes() or b""


def compare_partition(kafka, connection, topic, partition, said, archive):
    name = f"{archive} {topic}-{partition}"
    start, end = said["logStartOffset"], said["logEndOffset"]
    wait_until(lambda: fetched(connection, topic, partition, end)[1] == end, 10, what=f"the high watermark {end} of {name}")
    earliest, latest = (connection.end_offset(topic, partition, timestamp=t) for t in (-2, -1))
    assert (earliest, latest) == (start, end), f"{name}: {earliest}..{latest}, Kafka said {start}..{end}"
    have, at, aborted, replayed = [], start, set(), kafka.Producers()
    while at < end:
        error, _, stable, _, raw = fetched(connection, topic, partition, at)
        assert error == 0 and stable == said["lastStableOffset"], f"{name}: error {error}, last stable offset {stable}, Kafka said {said['lastStableOffset']}"
        batches, _, why = kafka.read_batches(raw, 0)
        assert batches, f"{name}: nothing at {at}: {why}"
        have += [b.describe() for b in batches]
        for batch in batches:
            replayed.append(batch, lambda fault: None)
        if at < said["lastStableOffset"]:
            aborted |= set(map(tuple, fetched(connection, topic, partition, at, committed=True)[3]))
        at = batches[-1].last + 1
    # Kafka's listing has those of its first answer
    known = {(a.producer, a.first) for a in replayed.aborted if a.last < said["lastStableOffset"]}
    listed = set(map(tuple, said["abortedTransactions"]))
    assert aborted == known | listed, f"{name}: aborted {aborted}, replayed {known}, Kafka said {listed}"
    assert len(have) == len(said["batches"]), f"{name}: {len(have)} batches, Kafka served {len(said['batches'])}"
    for ours, theirs in zip(have, said["batches"]):
        differing = [key for key in theirs if ours.get(key) != theirs[key]]
        assert ours == theirs, f"{name}: the batch at {theirs['baseOffset']} differs in {differing}: {[ours.get(k) for k in differing]}, {[theirs[k] for k in differing]}"[:1500]
    return sum(len(b["records"]) for b in have)


def keyed_batch(key, value):
    record = b"\0" + varint(0) + varint(0) + varint(len(key)) + key + varint(len(value)) + value + varint(0)
    stamp = int(time.time() * 1000)
    tail = struct.pack(">hiqqqhii", 0, 0, stamp, stamp, -1, -1, -1, 1) + varint(len(record)) + record
    return struct.pack(">qiibI", 0, len(tail) + 9, -1, 2, crc32c(tail)) + tail


def write_everywhere(taken, connection):
    """One record to each partition of a client's topics."""
    for topic, partition, said in taken.partitions():
        if not topic.startswith("__"):
            error, offset = connection.produced(connection.ask(produce(topic, partition, keyed_batch(b"key", b"written after the takeover"))))
            assert (error, offset) == (0, said["logEndOffset"]), f"{topic}-{partition}: error {error}, offset {offset}, not {said['logEndOffset']}"


def read_back(kafka, taken, connection):
    for topic, partition, said in taken.partitions():
        if topic.startswith("__"):
            continue
        end = said["logEndOffset"]
        wait_until(lambda: fetched(connection, topic, partition, end + 1)[1] == end + 1, 10, what=f"{topic}-{partition} served up to {end + 1}")
        error, _, _, _, raw = fetched(connection, topic, partition, end)
        last = kafka.read_batches(raw, 0)[0][-1]
        assert error == 0 and last.records[-1][:1] == (end,) and last.records[-1].value == b"written after the takeover"
        known = [b["leaderEpoch"] for b in said["batches"]]
        assert not known or last.epoch > max(known), f"{topic}-{partition}: leader epoch {last.epoch} does not go on above {max(known)}"


def committed(connection, group):
    """What OffsetFetch says: {partition: [offset, leader epoch, metadata]}."""
    def ask():
        answer = connection.ask(frame(OFFSET_FETCH, 5, string(group) + struct.pack(">i", -1)))
        answer.take("i")
        found = {}
        for _ in range(max(answer.take("i"), 0)):
            topic = answer.string()
            for _ in range(max(answer.take("i"), 0)):
                partition, offset, epoch = answer.take("iqi")
                metadata, error = answer.string(), answer.take("h")
                assert error == 0, f"{group} {topic}-{partition}: error {error}"
                found[f"{topic}-{partition}"] = [offset, epoch, metadata]
        error = answer.take("h")
        assert error in (0, 14, 15, 16), f"OffsetFetch of {group}: error {error}"
        return None if error else (found,)
    return wait_until(ask, 20, every=0.1, what=f"the offsets of {group}")[0]


def compare_groups(taken, connection):
    if OFFSET_FETCH not in connection.api_versions():
        return print("note groups are not served by this build: their offsets were not compared")
    for group, said in sorted(taken.listing["groups"].items()):
        if "offsets" in said:
            have = committed(connection, group)
            assert have == said["offsets"], f"group {group}: {have}, Kafka said {said['offsets']}"


def highest_producer(taken):
    return max([b["producerId"] for _, _, said in taken.partitions() for b in said["batches"]], default=-1)


def new_producer(connection):
    answer = connection.ask(frame(INIT_PRODUCER_ID, 0, struct.pack(">hi", -1, 60_000)))
    answer.take("i")
    error, producer, _ = answer.take("hqh")
    assert error == 0, f"InitProducerId: error {error}"
    return producer


def taken_over(archive):
    kafka = reader()
    taken = Taken(archive).write_settings()
    whose = taken.metadata_files()
    leftovers = [f for d in taken.directories for f in d.iterdir() if f.name.endswith("-stray")]
    taken.start()
    connection = Connection(taken.broker.port)
    records = sum(compare_partition(kafka, connection, topic, partition, said, archive) for topic, partition, said in taken.partitions())
    print(f"note {archive}: {records} records as Kafka served them")
    compare_groups(taken, connection)
    producer = new_producer(connection)
    assert producer > highest_producer(taken), f"producer id {producer} was given out before"
    acknowledged(taken, connection)

    # as it was
    assert taken.broker.stop()[0] == 0
    assert taken.metadata_files() == whose, "whose the directories are was written anew"
    assert all(f.is_dir() for f in leftovers), "what is not ours was removed"
    expectation = [] if archive.endswith("torn") else ["--expect", taken.listing_path]
    taken.expect_sound(*expectation)

    # and with more
    taken.broker.start()
    connection = Connection(taken.broker.port)
    write_everywhere(taken, connection)
    read_back(kafka, taken, connection)
    assert taken.broker.stop()[0] == 0
    taken.expect_sound()
    got = run_program("log", "verify", *map(str, taken.directories))
    assert got.returncode == 0, got.stdout[-3000:] + got.stderr[-1000:]
    taken.broker.start()
    connection = Connection(taken.broker.port)
    read_back(kafka, taken, connection)
    compare_groups(taken, connection)


def acknowledged(taken, connection):
    """What a killed broker had promised."""
    for name, offset in (taken.listing.get("acknowledged") or {}).get("records", {}).items():
        topic, _, partition = name.rpartition("-")
        end = connection.end_offset(topic, int(partition))
        assert end > offset, f"{name} ends at {end}, and {offset} had been acknowledged"


@test
def what_kafka_3_9_left():
    taken_over("zk39-clean")


@test
def what_kafka_4_3_left():
    taken_over("kraft43-clean")


@test
def one_broker_of_a_cluster_of_three():
    taken_over("zk39-replica")


@test
def two_log_directories_with_a_move_under_way():
    taken_over("zk39-jbod")


@test
def what_kafka_3_9_left_when_it_was_killed():
    taken_over("zk39-killed")


@test
def what_kafka_4_3_left_when_it_was_killed():
    taken_over("kraft43-killed")


@test
def torn_files_of_kafka_3_9():
    taken_over("zk39-torn")


@test
def torn_files_of_kafka_4_3():
    taken_over("kraft43-torn")


def refused(taken):
    taken.broker.start(wait=False)
    code = taken.broker.process.wait(20)
    taken.broker.process = None
    text = taken.broker.log() + taken.broker.output()
    assert code == 1, f"exit code {code}: {text[-1500:]}"
    return text


def contents(directories):
    return {path: path.read_bytes() for d in directories for path in sorted(d.rglob("*")) if path.is_file() and path.name != ".lock"}


@test
def a_second_directory_of_another_cluster_is_refused_and_nothing_is_changed():
    taken = Taken("zk39-jbod")
    meta = taken.directories[1] / "meta.properties"
    meta.write_text(meta.read_text().replace("cluster.id=", "cluster.id=X", 1))
    before = contents(taken.directories)
    text = refused(taken)
    assert "cluster.id" in text and str(meta) in text, text[-1500:]
    assert set(before.items()) <= set(contents(taken.directories).items()), "a refused directory was changed"


@test
def another_broker_id_than_the_directorys_is_refused():
    taken = Taken("zk39-replica", settings={"broker.id": "4"})
    text = refused(taken)
    assert "broker.id is 4" in text and "broker 1" in text, text[-1500:]
    taken.expect_sound("--expect", taken.listing_path)


@test
def the_tree_of_one_broker_does_not_take_the_directory_of_another():
    taken = Taken("zk39-replica").start()
    taken.broker.stop()
    meta = taken.directories[0] / "meta.properties"
    meta.write_text(meta.read_text().replace("broker.id=1", "broker.id=8"))
    text = refused(taken)
    assert "belongs to broker 1, and this is broker 8" in text, text[-1500:]


@test
def a_file_of_settings_that_cannot_be_taken_is_a_sentence_and_nothing_is_touched():
    taken = Taken("zk39-replica")
    before = contents(taken.directories)
    path = taken.broker.folder / "settings"
    taken.broker.flags = ["--topic-settings", str(path)]
    for text, needles in (
        ("events retention.ms=-1\nevents retention.msx=3\n", ("line 2", "retention.msx", "retention.ms")),
        ("events\n", ("line 1", "topic name=value")),
        ("# x\n\nevents retention.ms=soon\n", ("line 3", "retention.ms", "soon")),
        ("ev/ents retention.ms=3\n", ("line 1", "ev/ents")),
    ):
        path.write_text(text)
        said = refused(taken)
        assert all(needle in said for needle in needles), said[-1500:]
    path.unlink()
    assert str(path) in refused(taken)
    assert contents(taken.directories) == before


@test
def without_a_file_of_settings_what_was_compacted_stays_compacted():
    taken = Taken("zk39-clean", settings={"log.retention.ms": "1", "log.retention.check.interval.ms": "100", "log.segment.delete.delay.ms": "0"}).start()
    wait_until(lambda: not list(taken.directories[0].glob("codec-none-0/00000000000000000000.log")), 20, what="retention in codec-none")
    for name in ("compacted-0", "compacted-gone-0", "compacted-txn-0", "__consumer_offsets-0", "__transaction_state-0"):
        assert (taken.directories[0] / name / "00000000000000000000.log").exists(), f"retention deleted from {name}"
    assert "the broker's defaults" in taken.broker.log() and "taken-as-compacted=" in taken.broker.log()


@test
def unknown_folders_and_a_controllers_log_stay_as_they_are_and_are_named_once():
    taken = Taken("zk39-replica")
    directory = taken.directories[0]
    strange = {"not-a-partition": b"mine", "__cluster_metadata-0": b"a controller's", "events-1.%s-stray" % ("0" * 32): b"stray"}
    for name, text in strange.items():
        (directory / name).mkdir()
        (directory / name / "00000000000000000000.log").write_bytes(text)
    deleted = directory / ("gone-0.%s-delete" % ("a" * 32))
    deleted.mkdir()
    (deleted / "00000000000000000000.log").write_bytes(b"x")
    taken.broker.settings["log.segment.delete.delay.ms"] = "0"
    taken.start()
    for name, text in strange.items():
        assert taken.broker.log().count(name) == 1, f"{name} is named {taken.broker.log().count(name)} times"
    wait_until(lambda: not deleted.exists(), 10, what="the end of a deleted partition's folder")
    taken.broker.stop()
    for name, text in strange.items():
        assert (directory / name / "00000000000000000000.log").read_bytes() == text


@test
def the_copy_of_a_move_that_kafka_had_begun_goes_with_its_topic():
    taken = Taken("zk39-jbod")
    copy, = (f for d in taken.directories for f in d.iterdir() if f.name.endswith("-future"))
    taken.start()
    connection = Connection(taken.broker.port)
    answer = connection.ask(frame(DELETE_TOPICS, 1, struct.pack(">i", 1) + string("moving") + struct.pack(">i", 10_000)))
    answer.take("ii")
    assert (answer.string(), answer.take("h")) == ("moving", 0)
    # whether the move was done by then or not: what is left of the topic only waits to be removed
    left = lambda: [f.name for d in taken.directories for f in d.iterdir() if f.name.startswith("moving-") and not f.name.endswith("-delete")]
    wait_until(lambda: not left(), 10, what=f"the end of {left()}")
    assert not copy.exists()
    taken.broker.stop()
    taken.expect_sound()


@test
def a_partition_in_two_directories_is_offline_and_the_sentence_names_both():
    kafka = reader()
    taken = Taken("zk39-jbod")
    one, other = (d / "alpha-0" for d in taken.directories)
    shutil.copytree(one, other)
    before = contents([one, other])
    taken.broker.start()
    wait_until(lambda: str(one) in taken.broker.log() and str(other) in taken.broker.log(), 10, what="the sentence that names both")
    connection = Connection(taken.broker.port)
    assert fetched(connection, "alpha", 0, 0)[0] != 0
    compare_partition(kafka, connection, "alpha", 1, taken.listing["topics"]["alpha"]["1"], "zk39-jbod")
    taken.broker.stop()
    assert contents([one, other]) == before


@test
def a_directory_that_cannot_be_used_stops_the_first_start_and_no_later_one():
    taken = Taken("zk39-jbod")
    identity = taken.directories[1] / "meta.properties"
    good = identity.read_bytes()
    identity.write_bytes(b"version=0\nbroker.id=")
    text = refused(taken)
    assert str(taken.directories[1]) in text and str(identity) in text, text[-1500:]
    identity.write_bytes(good)
    taken.start().broker.stop()
    taken.expect_sound("--expect", taken.listing_path)


@test
def a_damaged_checkpoint_is_told_put_aside_and_made_anew():
    taken = Taken("zk39-jbod")
    checkpoint = taken.directories[1] / "replication-offset-checkpoint"
    damaged = checkpoint.read_bytes()[:-3]
    checkpoint.write_bytes(damaged)
    taken.start()
    assert "a checkpoint is damaged" in taken.broker.log() and str(checkpoint) in taken.broker.log()
    taken.broker.stop()
    kept = checkpoint.with_name(checkpoint.name + ".damaged")
    assert kept.read_bytes() == damaged
    kept.unlink()
    taken.expect_sound("--expect", taken.listing_path)


def old_message(value):
    """A message of format 1, as Kafka 0.10 wrote it."""
    import zlib
    body = struct.pack(">bbqi", 1, 0, 1_500_000_000_000, -1) + struct.pack(">i", len(value)) + value
    return struct.pack(">qiI", 0, len(body) + 4, zlib.crc32(body)) + body


@test
def a_segment_in_an_old_format_keeps_its_partition_offline_and_no_other():
    kafka = reader()
    taken = Taken("zk39-replica")
    path = taken.directories[0] / "events-1" / "00000000000000000000.log"
    path.write_bytes(old_message(b"long ago") + path.read_bytes())
    before = contents([path.parent])
    for _ in range(2):
        taken.broker.start()
        connection = Connection(taken.broker.port)
        wait_until(lambda: str(path) in taken.broker.log(), 10, what="the sentence that names the file")
        for partition in (0, 2):
            compare_partition(kafka, connection, "events", partition, taken.listing["topics"]["events"][str(partition)], "zk39-replica")
        assert fetched(connection, "events", 1, 0)[0] != 0
        assert taken.broker.stop()[0] == 0
        assert contents([path.parent]) == before, "an old segment was changed"
        assert (taken.directories[0] / ".kafka_cleanshutdown").exists(), "one partition that stays offline makes every start a recovery"


def a_part_of(archive, names):
    """A log directory with some of an archive's partitions, without a broker."""
    taken = Taken(archive)
    directory = taken.directories[0]
    for folder in directory.iterdir():
        if folder.is_dir() and folder.name not in names:
            shutil.rmtree(folder)
    return directory, taken


def verified(*paths):
    """(exit code, findings) of `martlet log verify`."""
    got = run_program("log", "verify", "--json", "--notes", *map(str, paths), seconds=60)
    assert got.returncode in (0, 1) and not got.stderr, got
    lines = [json.loads(line) for line in got.stdout.splitlines()]
    assert lines[-1]["sound"] == (got.returncode == 0)
    return got.returncode, lines[:-1]


def damaged(random, path):
    """Flips a bit of a file or cuts its tail off; says what was done."""
    raw = bytearray(path.read_bytes())
    if random.random() < 0.7:
        place, bit = random.randrange(len(raw)), random.randrange(8)
        raw[place] ^= 1 << bit
        told = f"bit {bit} of byte {place}"
    else:
        kept = random.randrange(len(raw))
        told = f"cut from {len(raw)} to {kept} bytes"
        raw = raw[:kept]
    path.write_bytes(raw)
    return told


PARTS = ["txn-0", "txn-1", "compacted-0", "codec-lz4-0", "codec-gzip-0", "deleted-some-0", "idempotent-0", "idempotent-1", "epochs-0",
         "__consumer_offsets-0", "__transaction_state-0", "load-2", "idem-0", "compact-0"]


@test
def verify_finds_on_damaged_copies_what_the_independent_reader_finds():
    kafka, random, both, more = reader(), seeded("damage"), 0, []
    for archive, times in (("zk39-clean", 40), ("kraft43-clean", 40), ("zk39-killed", 20)):
        directory, _ = a_part_of(archive, PARTS)
        assert verified(directory)[0] == 0 and not kafka.Directory(directory).read().errors
        kinds = {}
        for path in sorted(p for p in directory.rglob("*") if p.is_file() and p.stat().st_size):
            kinds.setdefault(path.suffix or path.name, []).append(path)
        for _ in range(times):
            path = random.choice(kinds[random.choice(sorted(kinds))])
            before = path.read_bytes()
            told = f"{archive} {path.relative_to(directory)}, {damaged(random, path)}"
            try:
                errors = kafka.Directory(directory).read().errors
            except Exception as error:      # it may not get through what is no text any more
                errors = [f"{type(error).__name__}: {error}"]
            code, findings = verified(directory)
            wrong = [f for f in findings if f["severity"] == "damage"]
            assert code == 1 or not errors, f"{told}: not found, but {errors[:3]}"
            if code == 1 and not errors:
                more.append(f"{told}: {wrong[0]['message']}")
            if errors and path.parent != directory:
                assert any(path.parent.name in f["file"] or path.parent.name in f["message"] for f in wrong), f"{told}: {wrong[:3]}, not {errors[:3]}"
            both += bool(errors)
            path.write_bytes(before)
    assert both > 40, f"only {both} of 100 damages are such that they can be found"
    print(f"note {both} damages found by both, {len(more)} by the verifier alone: {'; '.join(more[:3])}")


@test
def verify_changes_nothing_and_looks_at_single_partitions():
    directory, taken = a_part_of("zk39-torn", PARTS)
    before = contents([directory])
    times = {p: p.stat().st_mtime_ns for p in directory.rglob("*")}
    code, findings = verified(directory)
    assert code == 0 and any("recovery cuts" in f["message"] for f in findings), findings[:5]
    code, findings = verified(directory / "load-2", directory / "idem-0")
    assert code == 0 and {pathlib.Path(f["file"]).parent.name for f in findings if "recovery cuts" in f["message"]} == {"load-2", "idem-0"}
    assert run_program("log", "dump", "--records", str(directory)).returncode == 0
    assert contents([directory]) == before and {p: p.stat().st_mtime_ns for p in directory.rglob("*")} == times


@test
def dump_shows_every_record_as_kafka_served_it():
    taken = Taken("kraft43-clean")
    for topic, partition, said in taken.partitions():
        if topic.startswith("__"):
            continue
        got = run_program("log", "dump", "--records", "--json", str(taken.directories[0] / f"{topic}-{partition}"))
        assert got.returncode == 0, got.stderr
        lines = [line for line in map(json.loads, got.stdout.splitlines()) if line["file"].endswith(".log")]    # and not .log.deleted
        batches = [b for b in lines if b["lastOffset"] >= said["logStartOffset"]]
        assert len(batches) == len(said["batches"]), f"{topic}-{partition}"
        for ours, theirs in zip(sorted(batches, key=lambda b: b["baseOffset"]), said["batches"]):
            for name, key in (("baseOffset", "baseOffset"), ("lastOffset", "lastOffset"), ("size", "sizeInBytes"), ("partitionLeaderEpoch", "leaderEpoch"),
                              ("compresscodec", "codec"), ("producerId", "producerId"), ("producerEpoch", "producerEpoch"), ("isControl", "control"),
                              ("baseSequence", "baseSequence"), ("maxTimestamp", "maxTimestamp"), ("timestampType", "timestampType")):
                assert ours[name] == theirs[key], f"{topic}-{partition}: {name} {ours[name]}, not {theirs[key]}"
            if not theirs["control"]:
                records = [[r["offset"], r["timestamp"], r["key"], r["value"], r["headers"]] for r in ours["records"]]
                assert plain(records) == plain(theirs["records"]), f"{topic}-{partition} at {theirs['baseOffset']}"


def plain(value):
    """Both write plain text as it is and other bytes in hexadecimal; they need not agree on what is plain."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return bytes.fromhex(value["hex"])
    return value.encode() if isinstance(value, str) else value


@test
def dump_decodes_what_coordinators_keep():
    for archive in ("zk39-clean", "kraft43-clean"):
        taken = Taken(archive)
        shown = []
        for topic in ("__consumer_offsets", "__transaction_state"):
            for partition in range(3):
                got = run_program("log", "dump", "--records", "--json", str(taken.directories[0] / f"{topic}-{partition}"))
                shown += [r for line in map(json.loads, got.stdout.splitlines()) for r in line.get("records", [])]
        keyed = [r for r in shown if "key" in r]
        assert keyed and all("kind" in r["key"] for r in keyed), [r for r in keyed if "kind" not in r["key"]][:3]
        commits = {}
        for r in keyed:
            if r["key"]["kind"] == "OffsetCommit":
                name = f"{r['key']['topic']}-{r['key']['partition']}"
                commits.setdefault((r["key"]["group"], name), []).append(r["value"] and [r["value"]["offset"], r["value"]["metadata"]])
        for group, said in taken.listing["groups"].items():
            for name, (offset, _, metadata) in said.get("offsets", {}).items():
                # of commits in transactions the last may have been aborted
                have = commits[group, name] if group == "g-txn" else commits[group, name][-1:]
                assert [offset, metadata] in have, f"{archive} {group} {name}: {have}, Kafka said {offset}, {metadata}"


@test
def what_cannot_be_looked_at_is_a_sentence_and_exit_code_2():
    for words in (["log"], ["log", "verify"], ["log", "dump", "/nowhere"], ["log", "verify", "/proc"], ["log", "verify", "--jsn", "."],
                  ["log", "look", "."], ["log", "dump", "--offsets", "--transactions", "."]):
        got = run_program(*words)
        assert got.returncode == 2 and 0 < len((got.stderr + got.stdout).strip().splitlines()) <= 8, (words, got)
    for words, shown in ((["log", "--help"], "verify"), (["log", "dump", "--help"], "PATH"), (["log", "verify", "--help"], "PATH")):
        got = run_program(*words)
        assert got.returncode == 0 and shown in got.stdout, (words, got)
