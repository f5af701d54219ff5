"""Settings whose effect is seen from outside: the broker is started with them, and behaves otherwise than without."""
import ctypes, json, os, socket, struct, time
from driving import Broker, free_port, run_program, test, wait_until
from wire import API_VERSIONS, METADATA, Closed, Connection, batch, create_topic, frame, produce, string, values_in

HOUR = 3_600_000
UNKNOWN_TOPIC, MESSAGE_TOO_LARGE, INVALID_TIMESTAMP, INVALID_REPLICATION_FACTOR, INVALID_RECORD = 3, 10, 32, 38, 87


def now():
    return int(time.time() * 1000)


def started(**settings):
    """A broker with these settings, written with _ for the dots of their names, and a connection to it."""
    broker = Broker(settings={name.replace("_", "."): value for name, value in settings.items()}).start()
    return broker, Connection(broker.port)


def metadata(connection, *topics):
    """([(id, host, port, rack)], {topic: (error, [(partition, leader, replicas)])})."""
    answer = connection.ask(frame(METADATA, 1, struct.pack(">i", len(topics)) + b"".join(string(t) for t in topics)))
    brokers = [(answer.take("i"), answer.string(), answer.take("i"), answer.string()) for _ in range(answer.take("i"))]
    answer.take("i")
    found = {}
    for _ in range(answer.take("i")):
        error, name = answer.take("h"), answer.string()
        answer.take("b")
        partitions = []
        for _ in range(answer.take("i")):
            _, index, leader = answer.take("hii")
            replicas = [answer.take("i") for _ in range(answer.take("i"))]
            for _ in range(answer.take("i")):
                answer.take("i")
            partitions.append((index, leader, replicas))
        found[name] = (error, partitions)
    return brokers, found


def put(connection, topic, timestamp=None, partition=0, acks=-1, value=b"v" * 50):
    """Produces one record; (error, base offset, the time of the append)."""
    answer = connection.ask(produce(topic, partition, batch([value], now() if timestamp is None else timestamp), acks))
    answer.take("i")
    answer.string()
    _, _, error, offset, appended = answer.take("iihqq")
    return error, offset, appended


def files(broker, topic, end, partition=0, directory="log"):
    return sorted(p.name for p in (broker.folder / directory / f"{topic}-{partition}").iterdir() if p.name.endswith(end))


def row(broker, checkpoint, topic, partition=0):
    """What a checkpoint file of the log directory says of a partition; None if nothing."""
    path = broker.folder / "log" / checkpoint
    for line in path.read_text().splitlines()[2:] if path.exists() else []:
        name, index, offset = line.rsplit(" ", 2)
        if (name, index) == (topic, str(partition)):
            return int(offset)
    return None


def threads(broker, name):
    """How many threads of the process have names that begin so."""
    folder = f"/proc/{broker.process.pid}/task"
    return sum(open(f"{folder}/{thread}/comm").read().startswith(name) for thread in os.listdir(folder))


def option(broker, local_port, level, name, is_listening=False, size=4):
    """A socket option of the broker's own socket of that port, as the system has it: the child's descriptors can be borrowed."""
    library = ctypes.CDLL(None, use_errno=True)
    process = os.pidfd_open(broker.process.pid)
    try:
        for number in map(int, os.listdir(f"/proc/{broker.process.pid}/fd")):
            if not os.readlink(f"/proc/{broker.process.pid}/fd/{number}").startswith("socket:"):
                continue
            borrowed = library.syscall(438, process, number, 0)  # pidfd_getfd
            assert borrowed >= 0, os.strerror(ctypes.get_errno())
            with socket.socket(fileno=borrowed) as s:
                if s.family != socket.AF_INET or s.getsockname()[1] != local_port:
                    continue
                if bool(s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)) == is_listening:
                    return s.getsockopt(level, name) if size == 4 else s.getsockopt(level, name, size)
    finally:
        os.close(process)
    raise AssertionError("the broker has no such socket")


# Identity and addresses


@test
def the_brokers_id_and_rack_are_told():
    _, connection = started(broker_id="7", broker_rack="here")
    assert [(b[0], b[3]) for b in metadata(connection)[0]] == [(7, "here")]
    _, connection = started(node_id="8")
    assert [(b[0], b[3]) for b in metadata(connection)[0]] == [(8, None)]


@test
def a_listener_of_kraft_controllers_stays_closed():
    ours, theirs = free_port(), free_port()
    broker = Broker(port=ours, settings={
        "listeners": f"PLAINTEXT://127.0.0.1:{ours},CONTROLLER://127.0.0.1:{theirs}", "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT"}).start()
    assert [b[2] for b in metadata(Connection(ours))[0]] == [ours]
    try:
        socket.create_connection(("127.0.0.1", theirs), timeout=2).close()
        raise AssertionError("the controllers' listener is open")
    except ConnectionRefusedError:
        pass
    assert "CONTROLLER is not opened" in broker.log()


@test
def the_security_protocol_of_a_listener_is_the_maps():
    port = free_port()
    broker = Broker(port=port, settings={
        "listeners": f"INSIDE://127.0.0.1:{port}", "listener.security.protocol.map": "INSIDE:SASL_PLAINTEXT"}).start(wait=False)
    assert broker.process.wait(10) > 0
    broker.process = None
    assert "SASL_PLAINTEXT" in broker.log()


# Directories


@test
def partitions_are_spread_over_the_log_directories():
    broker = Broker()
    broker.settings["log.dirs"] = f"{broker.folder}/a,{broker.folder}/b"
    broker.settings["num.recovery.threads.per.data.dir"] = "3"
    broker.start()
    assert Connection(broker.port).create_topic("spread", 40) == 0
    for directory in "ab":
        assert len(list((broker.folder / directory).glob("spread-*"))) == 20, directory
    # every directory has so many threads to check logs with
    assert threads(broker, "bulk") == 6, threads(broker, "bulk")


@test
def the_threads_of_directories_are_as_many_as_was_altered_and_stay_so():
    broker = Broker()
    broker.settings["log.dirs"] = f"{broker.folder}/a,{broker.folder}/b"
    broker.settings["num.recovery.threads.per.data.dir"] = "3"
    broker.start()

    def altered(*change):
        got = run_program("config", "set", "cluster", *change, "--bootstrap", broker.address)
        assert got.returncode == 0, got.stderr
    assert Connection(broker.port).create_topic("many", 40) == 0
    wait_until(lambda: threads(broker, "bulk") == 6, 3, what="three threads a directory")
    altered("num.recovery.threads.per.data.dir=1")
    wait_until(lambda: threads(broker, "bulk") <= 2, 3, what="the end of the others")
    broker.kill()
    broker.start()
    assert Connection(broker.port).create_topic("more", 40) == 0
    assert 1 <= threads(broker, "bulk") <= 2, "the file counted at the next start"
    altered("--delete", "num.recovery.threads.per.data.dir")
    assert Connection(broker.port).create_topic("most", 40) == 0
    wait_until(lambda: threads(broker, "bulk") == 6, 3, what="as many as the file says")


@test
def log_dir_counts_where_log_dirs_is_not_set():
    broker = Broker()
    del broker.settings["log.dirs"]
    broker.settings["log.dir"] = f"{broker.folder}/one"
    broker.start()
    assert Connection(broker.port).create_topic("there") == 0
    assert (broker.folder / "one/there-0").is_dir()


@test
def what_recovery_cuts_and_the_keepers_log_lie_where_they_were_told_to():
    broker = Broker()
    broker.settings |= {"martlet.cut.dir": f"{broker.folder}/aside", "martlet.keeper.dir": f"{broker.folder}/state"}
    broker.start()
    connection = Connection(broker.port)
    assert connection.create_topic("torn") == 0 and put(connection, "torn")[0] == 0
    broker.kill()
    with open(broker.folder / "log/torn-0/00000000000000000000.log", "ab") as log:
        log.write(b"half a batch")
    broker.start()
    connection = Connection(broker.port)
    wait_until(lambda: connection.fetch("torn", 0, 0)[1] == 1, 5, what="the record that was whole")
    kept = [p.read_bytes() for p in (broker.folder / "aside").rglob("*") if p.is_file()]
    assert b"half a batch" in kept, kept
    assert any((broker.folder / "state").iterdir())
    assert not (broker.folder / "keeper").exists() and not (broker.folder / "cut").exists()


# The process


@test
def loops_and_the_level_of_the_log_are_as_set():
    broker, _ = started(martlet_event_loops="3", martlet_log_level="error,network:debug")
    few, _ = started(martlet_log_level="error")
    wait_until(lambda: " DEBUG " in broker.log(), 3, what="a line of the level debug")
    # the first loop has the process's own thread
    assert threads(broker, "loop") - threads(few, "loop") == 2, (threads(broker, "loop"), threads(few, "loop"))
    assert few.log() == "", few.log()
    assert all(line.split()[2] == "network" for line in broker.log().splitlines()), broker.log()


@test
def levels_of_loggers_are_altered_while_the_broker_runs_and_no_longer():
    broker, connection = started(martlet_log_level="error")

    def alter(*changes):
        body = struct.pack(">i", 1) + b"\x08" + string("1") + struct.pack(">i", len(changes))
        for name, value in changes:
            body += string(name) + (b"\0" + string(value) if value else b"\1" + struct.pack(">h", -1))
        answer = connection.ask(frame(44, 0, body + b"\0"))
        answer.take("ii")
        return answer.take("h")

    def said_of_a_connection():
        before = len(broker.log())
        Connection(broker.port).close()
        time.sleep(0.3)
        return broker.log()[before:]
    assert said_of_a_connection() == ""
    assert alter(("network", "DEBUG")) == 0
    assert "DEBUG network connection opened" in said_of_a_connection()
    assert alter(("network", None)) == 0
    assert said_of_a_connection() == ""
    assert alter(("root", "TRACE"), ("network", "LOUD")) == 40, "INVALID_CONFIG"
    assert said_of_a_connection() == ""
    assert alter(("root", "TRACE")) == 0
    assert "DEBUG network connection opened" in said_of_a_connection()
    shown = json.loads(run_program("config", "get", "loggers", "1", "network", "root", "--json", "--bootstrap", broker.address).stdout)
    assert [(c["name"], c["value"]) for c in shown["configs"]] == [("network", "DEBUG"), ("root", "DEBUG")], shown
    got = run_program("config", "set", "loggers", "1", "network=ERROR", "requests=ERROR", "--bootstrap", broker.address)
    assert got.returncode == 0, got.stderr
    assert said_of_a_connection() == ""
    got = run_program("config", "set", "loggers", "1", "netwerk=INFO", "--bootstrap", broker.address)
    assert got.returncode == 1 and "There is no logger netwerk" in got.stderr, got
    broker.restart()
    assert said_of_a_connection() == "", "it starts with what its file says"


# Topics


@test
def unknown_topics_are_made_on_request_or_not():
    _, connection = started(auto_create_topics_enable="false")
    for _ in range(3):
        assert metadata(connection, "asked")[1]["asked"][0] == UNKNOWN_TOPIC
        time.sleep(0.1)
    _, connection = started(num_partitions="3")
    made = wait_until(lambda: metadata(connection, "asked")[1]["asked"][1], 3, what="the topic")
    assert len(made) == 3, made


@test
def a_topic_without_counts_gets_the_brokers():
    _, connection = started(num_partitions="5", default_replication_factor="2")
    wanted = bytearray(create_topic("unsaid", -1))
    assert connection.create_topic("few", -1) == 0
    assert len(metadata(connection, "few")[1]["few"][1]) == 5
    at = wanted.index(b"unsaid") + len(b"unsaid") + 4
    assert wanted[at : at + 2] == b"\0\1"
    wanted[at : at + 2] = b"\xff\xff"
    answer = connection.ask(bytes(wanted))
    answer.take("ii")
    answer.string()
    assert answer.take("h") == INVALID_REPLICATION_FACTOR, "one broker cannot hold two replicas"


# What is taken, and how it is stored


def stored(connection, topic):
    """The attributes of the first batch as it was stored."""
    error, _, batches = connection.fetch(topic, 0, 0)
    assert error == 0 and len(batches) >= 61, (error, batches)
    return struct.unpack_from(">h", batches, 21)[0]


@test
def batches_are_stored_with_the_codec_and_the_time_that_are_set():
    _, connection = started(compression_type="gzip", log_message_timestamp_type="LogAppendTime")
    theirs = {"compression.type": "producer", "message.timestamp.type": "CreateTime"}
    assert connection.create_topic("brokers") == 0 and connection.create_topic("own", 1, theirs) == 0
    error, _, appended = put(connection, "brokers", timestamp=1_000)
    assert error == 0 and abs(appended - now()) < 10_000, appended
    assert put(connection, "own", timestamp=now())[2] == -1
    assert stored(connection, "brokers") & 0xF == 8 | 1
    assert stored(connection, "own") & 0xF == 0


@test
def the_level_of_compression_counts():
    sizes = {}
    for codec, name, levels in ((1, "gzip", ("1", "9")), (3, "lz4", ("1", "12")), (4, "zstd", ("1", "19"))):
        for level in levels:
            broker, connection = started(**{f"compression_{name}_level": level, "compression_type": name})
            assert connection.create_topic("packed") == 0
            text = b" ".join(b"%d" % (n * n * 7919 % 100_003) for n in range(20_000))
            assert put(connection, "packed", value=text)[0] == 0
            assert stored(connection, "packed") & 7 == codec
            sizes[name, level] = len(connection.fetch("packed", 0, 0)[2])
            broker.end()
        low, high = (sizes[name, level] for level in levels)
        assert high < low, f"{name}: {low} bytes at the lowest level, {high} at a high one"


@test
def batches_that_are_too_large_are_refused():
    _, connection = started(message_max_bytes="1000")
    assert connection.create_topic("small") == 0 and connection.create_topic("large", 1, {"max.message.bytes": "3000"}) == 0
    assert put(connection, "small", value=b"v" * 1100)[0] == MESSAGE_TOO_LARGE
    assert put(connection, "small", value=b"v" * 900)[0] == 0
    assert put(connection, "large", value=b"v" * 2900)[0] == 0
    assert put(connection, "large", value=b"v" * 3000)[0] == MESSAGE_TOO_LARGE


@test
def times_too_far_from_now_are_refused():
    _, connection = started(**{"log_message_timestamp_before_max_ms": "60000", "log_message_timestamp_after_max_ms": "60000"})
    own = {"message.timestamp.before.max.ms": str(3 * HOUR), "message.timestamp.after.max.ms": str(3 * HOUR)}
    assert connection.create_topic("brokers") == 0 and connection.create_topic("own", 1, own) == 0
    for topic, hours, error in (("brokers", 0, 0), ("brokers", -2, INVALID_TIMESTAMP), ("brokers", 2, INVALID_TIMESTAMP),
                                ("own", -2, 0), ("own", 2, 0), ("own", -4, INVALID_TIMESTAMP), ("own", 4, INVALID_TIMESTAMP)):
        assert put(connection, topic, now() + hours * HOUR)[0] == error, (topic, hours)


@test
def topics_to_be_compacted_take_no_records_without_keys():
    _, connection = started(log_cleanup_policy="compact")
    assert connection.create_topic("brokers") == 0 and connection.create_topic("own", 1, {"cleanup.policy": "delete"}) == 0
    assert put(connection, "brokers")[0] == INVALID_RECORD
    assert put(connection, "own")[0] == 0


# Segments


@test
def segments_roll_by_size_and_indexes_have_the_size_that_is_set():
    broker, connection = started(log_segment_bytes="500", log_index_size_max_bytes="800", log_index_interval_bytes="0")
    own = {"segment.bytes": "1000000", "segment.index.bytes": "1600", "index.interval.bytes": "300"}
    assert connection.create_topic("brokers") == 0 and connection.create_topic("own", 1, own) == 0
    size = lambda topic, name: (broker.folder / f"log/{topic}-0/{name}").stat().st_size
    first = "00000000000000000000.index"
    assert (size("brokers", first), size("own", first)) == (800, 1600)
    for _ in range(12):
        assert put(connection, "brokers")[0] == 0 and put(connection, "own")[0] == 0
    assert len(files(broker, "brokers", ".log")) >= 3
    assert len(files(broker, "own", ".log")) == 1
    broker.stop()
    # an entry of 8 bytes for every batch but the first where the interval is 0, for one in four where it is three batches
    in_first = int(files(broker, "brokers", ".log")[1].split(".")[0])
    assert size("brokers", first) == 8 * (in_first - 1), (size("brokers", first), in_first)
    assert size("own", first) == 8 * 3, size("own", first)


@test
def a_full_index_rolls_its_segment():
    broker, connection = started(log_index_size_max_bytes="48", log_index_interval_bytes="0")
    assert connection.create_topic("brokers") == 0 and connection.create_topic("own", 1, {"segment.index.bytes": "4800"}) == 0
    for _ in range(12):
        assert put(connection, "brokers")[0] == 0 and put(connection, "own")[0] == 0
    assert len(files(broker, "brokers", ".log")) > 1
    assert len(files(broker, "own", ".log")) == 1


def rolled(broker, connection, topic, after, partitions=1, configs=None):
    """In how many partitions a second record, so much younger than the first, begins a new segment."""
    assert connection.create_topic(topic, partitions, configs) == 0
    begin = now() - 40 * HOUR
    for partition in range(partitions):
        assert put(connection, topic, begin, partition)[0] == 0
        assert put(connection, topic, begin + after, partition)[0] == 0
    return sum(len(files(broker, topic, ".log", partition)) == 2 for partition in range(partitions))


@test
def segments_roll_by_age():
    broker, connection = started(log_roll_ms="10000")
    assert rolled(broker, connection, "old", 10_001) == 1
    assert rolled(broker, connection, "young", 9_999) == 0
    assert rolled(broker, connection, "own", 10_001, configs={"segment.ms": str(HOUR)}) == 0
    broker, connection = started(log_roll_hours="2")
    assert rolled(broker, connection, "old", 2 * HOUR + 1) == 1
    assert rolled(broker, connection, "young", 2 * HOUR - 1) == 0


@test
def the_roll_of_segments_is_brought_forward_at_random():
    # of 30 partitions at half of the age some roll and some do not; all alike would be a chance of one in a billion / 2
    broker, connection = started(log_roll_ms="1000000", log_roll_jitter_ms="1000000")
    assert 0 < rolled(broker, connection, "some", 500_000, 30) < 30
    assert rolled(broker, connection, "none", 500_000, 10, {"segment.jitter.ms": "0"}) == 0
    broker, connection = started(log_roll_hours="10", log_roll_jitter_hours="10")
    assert 0 < rolled(broker, connection, "some", 5 * HOUR, 30) < 30


# Retention


def is_gone(connection, topic):
    return connection.end_offset(topic, timestamp=-2) > 0


@test
def records_are_kept_for_as_long_as_is_set():
    for setting, keeps, drops in (({"log_retention_ms": "60000"}, 30_000, 90_000), ({"log_retention_minutes": "10"}, 540_000, 660_000),
                                  ({"log_retention_hours": "2"}, HOUR, 3 * HOUR)):
        broker, connection = started(log_retention_check_interval_ms="100", **setting)
        topics = {"brokers": {}, "young": {}, "own": {"retention.ms": "-1"}}
        for topic, configs in topics.items():
            assert connection.create_topic(topic, 1, configs) == 0
            assert put(connection, topic, now() - (keeps if topic == "young" else drops))[0] == 0
        wait_until(lambda: is_gone(connection, "brokers"), 5, what=f"the end of what {setting} does not keep")
        time.sleep(0.3)
        assert not is_gone(connection, "young") and not is_gone(connection, "own"), setting
        broker.end()


@test
def partitions_are_kept_below_the_size_that_is_set_and_files_go_after_their_delay():
    broker, connection = started(log_retention_check_interval_ms="100", log_retention_bytes="1000", log_segment_bytes="500",
                                 log_segment_delete_delay_ms="0")
    topics = {"brokers": {}, "own": {"retention.bytes": "-1"}, "late": {"file.delete.delay.ms": str(HOUR)}}
    for topic, configs in topics.items():
        assert connection.create_topic(topic, 1, configs) == 0
        for _ in range(30):
            assert put(connection, topic)[0] == 0
    wait_until(lambda: is_gone(connection, "brokers") and is_gone(connection, "late"), 5, what="retention by size")
    wait_until(lambda: not files(broker, "brokers", ".deleted"), 5, what="the removal of the files")
    assert files(broker, "late", ".deleted"), "a file went before its delay"
    assert not is_gone(connection, "own") and len(files(broker, "own", ".log")) > 3
    assert sum((broker.folder / "log/brokers-0" / name).stat().st_size for name in files(broker, "brokers", ".log")) < 2000


@test
def segments_are_looked_through_at_the_interval_that_is_set():
    broker, connection = started(log_retention_check_interval_ms="600000", log_retention_ms="60000")
    assert connection.create_topic("kept") == 0 and put(connection, "kept", now() - HOUR)[0] == 0
    time.sleep(1)
    assert not is_gone(connection, "kept")


# Syncs and checkpoints

RECOVERY, HIGH_WATERMARK = "recovery-point-offset-checkpoint", "replication-offset-checkpoint"
UNSYNCED = {"martlet_durability": "page-cache", "log_flush_offset_checkpoint_interval_ms": "50"}


@test
def partitions_are_synced_by_time_and_by_records():
    broker, connection = started(**UNSYNCED)
    assert connection.create_topic("never") == 0
    assert connection.create_topic("time", 1, {"flush.ms": "100"}) == 0
    assert connection.create_topic("records", 1, {"flush.messages": "2"}) == 0
    # the sync of the new folders is over
    time.sleep(0.5)
    for topic in ("never", "time", "records"):
        assert put(connection, topic)[0] == 0
    wait_until(lambda: row(broker, RECOVERY, "time") == 1, 5, what="the sync after flush.ms")
    time.sleep(0.3)
    assert row(broker, RECOVERY, "never") == row(broker, RECOVERY, "records") == 0
    assert put(connection, "records")[0] == 0
    wait_until(lambda: row(broker, RECOVERY, "records") == 2, 5, what="the sync after flush.messages")
    for setting in ("log_flush_interval_ms", "log_flush_scheduler_interval_ms", "log_flush_interval_messages"):
        broker, connection = started(**UNSYNCED, **{setting: "1"})
        assert connection.create_topic("brokers") == 0 and put(connection, "brokers")[0] == 0
        wait_until(lambda: row(broker, RECOVERY, "brokers") == 1, 5, what=f"the sync after {setting}")
        broker.end()


@test
def checkpoints_are_written_at_their_intervals():
    broker, connection = started(log_flush_offset_checkpoint_interval_ms="50", replica_high_watermark_checkpoint_interval_ms="50")
    still, other = started(log_flush_offset_checkpoint_interval_ms="600000", replica_high_watermark_checkpoint_interval_ms="600000")
    for each in (connection, other):
        assert each.create_topic("t") == 0 and put(each, "t")[0] == 0
    for file in (RECOVERY, HIGH_WATERMARK):
        wait_until(lambda: row(broker, file, "t") == 1, 5, what=file)
    time.sleep(0.3)
    for file in (RECOVERY, HIGH_WATERMARK):
        assert row(still, file, "t") != 1, file


@test
def a_sync_that_nobody_waits_for_begins_after_its_delay():
    checkpoints = {"log_flush_offset_checkpoint_interval_ms": "50"}
    late, connection = started(martlet_sync_delay_ms="10000", **checkpoints)
    soon, other = started(martlet_sync_delay_ms="1", **checkpoints)
    for each in (connection, other):
        assert each.create_topic("t") == 0
    time.sleep(0.5)  # the sync of the new folders is over
    for each in (connection, other):
        assert put(each, "t", acks=1)[0] == 0
    wait_until(lambda: row(soon, RECOVERY, "t") == 1, 5, what="the sync")
    time.sleep(0.3)
    assert row(late, RECOVERY, "t") == 0, row(late, RECOVERY, "t")


@test
def without_fsync_an_acknowledgement_waits_for_no_sync():
    broker, connection = started(log_flush_offset_checkpoint_interval_ms="50", martlet_durability="page-cache")
    assert connection.create_topic("brokers") == 0 and connection.create_topic("own", 1, {"martlet.durability": "fsync"}) == 0
    time.sleep(0.5)  # the sync of the new folders is over
    for topic in ("brokers", "own"):
        assert put(connection, topic)[0] == 0
        assert connection.fetch(topic, 0, 0)[1] == 1
    wait_until(lambda: row(broker, RECOVERY, "own") == 1, 5, what="the sync")
    assert row(broker, RECOVERY, "brokers") == 0


# Connections and requests


@test
def an_idle_connection_is_closed_and_a_busy_one_is_not():
    _, connection = started(connections_max_idle_ms="1000")
    busy = Connection(connection.socket.getpeername()[1])
    for _ in range(16):
        busy.api_versions()
        time.sleep(0.15)
    assert connection.is_closed_by_peer(3)
    busy.api_versions()


def admitted(port, count):
    """How many of so many connections are served."""
    served = []
    for _ in range(count):
        try:
            served.append(Connection(port, timeout=3))
            served[-1].api_versions()
        except (Closed, OSError):
            served.pop()
    for connection in served:
        connection.close()
    return len(served)


@test
def connections_beyond_a_limit_are_refused():
    for settings, most in (({"max_connections": "3"}, 3), ({"max_connections_per_ip": "2"}, 2),
                           ({"max_connections_per_ip": "2", "max_connections_per_ip_overrides": "127.0.0.1:4"}, 4)):
        broker = started(**settings)[0]
        # as soon as those of the start have gone
        wait_until(lambda: admitted(broker.port, 6) == most, 5, what=f"{most} connections with {settings}")
        broker.end()


@test
def a_request_that_is_too_large_ends_its_connection():
    broker, connection = started(socket_request_max_bytes="1000")
    connection.send(frame(API_VERSIONS, 0, b"", client="c" * 2000))
    assert connection.is_closed_by_peer(3)
    Connection(broker.port).api_versions()
    assert "socket.request.max.bytes" in broker.log()


def is_held_back(port, size):
    """Whether, while one has announced a request of this size, another such has to wait for its turn."""
    first, second = Connection(port), Connection(port)
    request = frame(METADATA, 1, struct.pack(">i", 0), client="c" * 100)
    request = struct.pack(">i", size - 4) + request[4:] + bytes(size - len(request))
    first.send(request[: size // 2])
    time.sleep(0.2)
    second.socket.setblocking(False)
    sent, end = 0, time.monotonic() + 1
    while sent < len(request) and time.monotonic() < end:
        try:
            sent += second.socket.send(request[sent:])
        except BlockingIOError:
            time.sleep(0.01)
    first.close()
    return sent < len(request)


@test
def requests_beyond_the_bound_of_memory_wait():
    size = 15 << 20
    for settings, waits in (({}, False), ({"queued_max_request_bytes": str(16 << 20), "socket_request_max_bytes": str(16 << 20)}, True),
                            ({"martlet_memory_limit_bytes": str(16 << 20)}, True)):
        broker = started(**settings)[0]
        assert is_held_back(broker.port, size) == waits, settings
        assert Connection(broker.port).api_versions(), settings
        broker.end()


@test
def an_answer_to_fetch_ends_at_its_limit():
    broker, connection = started(fetch_max_bytes="1024")
    whole = started()[1]
    for each in (connection, whole):
        assert each.create_topic("t") == 0
        for _ in range(4):
            assert put(each, "t", value=b"v" * 700)[0] == 0
    assert len(values_in(connection.fetch("t", 0, 0)[2])) == 1
    assert len(values_in(whole.fetch("t", 0, 0)[2])) == 4


@test
def fetch_sessions_are_as_many_as_there_are_slots():
    def session(connection):
        body = struct.pack(">iiiibii", -1, 0, 0, 1 << 20, 0, 0, 0) + struct.pack(">i", 1) + string("t")
        body += struct.pack(">iiqqi", 1, 0, 0, -1, 1 << 20) + struct.pack(">i", 0)
        answer = connection.ask(frame(1, 7, body))
        return answer.take("ihi")[2]

    for slots, sessions in (("0", 0), ("2", 2)):
        _, connection = started(max_incremental_fetch_session_cache_slots=slots)
        assert connection.create_topic("t") == 0
        assert sum(session(connection) != 0 for _ in range(4)) == sessions, slots


# What the broker asks of the system


@test
def sockets_have_the_buffers_and_the_backlog_that_are_set():
    broker, connection = started(socket_send_buffer_bytes="65536", socket_receive_buffer_bytes="32768", socket_listen_backlog_size="7")
    connection.api_versions()
    # the system doubles what is asked for
    assert option(broker, broker.port, socket.SOL_SOCKET, socket.SO_SNDBUF) == 131072
    assert option(broker, broker.port, socket.SOL_SOCKET, socket.SO_RCVBUF) == 65536
    # of a socket that listens, tcp_info tells the backlog as tcpi_sacked
    told = option(broker, broker.port, socket.IPPROTO_TCP, socket.TCP_INFO, is_listening=True, size=104)
    assert struct.unpack_from("=I", told, 28)[0] == 7
