"""The commands that speak to a broker: what people and scripts get from them."""
import base64, json, os, pathlib, pty, re, select, signal, socket, subprocess, time
import driving
from driving import ROOT, Broker, Skip, free_port, run_program, test, wait_until
from kcat import consumed, kcat

COMMANDS = {
    "server": [], "produce": [], "consume": [],
    "topic": ["create", "list", "describe", "alter", "delete"],
    "group": ["list", "describe", "reset-offsets", "delete"],
    "transaction": ["list", "describe", "find-hanging", "abort"],
    "config": ["get", "set"],
    "cluster": ["describe"],
    "log": ["dump", "verify"],
}
CODECS = ("none", "gzip", "snappy", "lz4", "zstd")


class Got:
    def __init__(self, done):
        self.code, self.out, self.err = done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        self.bytes = done.stdout

    def __repr__(self):
        return f"exit code {self.code}\n{self.out[-1500:]}\n{self.err[-1500:]}"


def environment(broker=None, **more):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MARTLET_") and name != "NO_COLOR"}
    return {**kept, **({"MARTLET_BOOTSTRAP": broker.address} if broker else {}), **more}


def martlet(broker, *words, data=None, code=0, seconds=30):
    """Runs a command to its end; `code` is what it must end with."""
    if data is not None and not isinstance(data, bytes):
        data = data.encode()
    got = Got(subprocess.run([driving.PROGRAM, *map(str, words)], input=data if data is not None else b"", capture_output=True,
                             timeout=seconds, env=environment(broker)))
    assert got.code == code, f"martlet {' '.join(map(str, words))}: not {code}: {got}"
    return got


def told(broker, *words, **more):
    """What a command tells programs: one value of JSON, and one line."""
    got = martlet(broker, *words, "--json", **more)
    assert got.out.endswith("\n") and got.out.count("\n") == 1, got
    return json.loads(got.out)


def started():
    return Broker({"offsets.topic.replication.factor": 1, "group.initial.rebalance.delay.ms": 0}).start()


def confluent():
    try:
        import confluent_kafka
        return confluent_kafka
    except ImportError:
        raise Skip("confluent_kafka is not installed")


# What needs no broker


@test
def help_is_worth_reading_at_every_level():
    overview = martlet(None, "--help").out
    assert overview == martlet(None, "help").out
    for name, subcommands in COMMANDS.items():
        assert re.search(rf"^  {name} ", overview, re.M), overview
        paths = [[name, sub] for sub in subcommands] or [[name]]
        if subcommands:
            whole = martlet(None, name, "--help").out
            assert all(re.search(rf"^  {sub} ", whole, re.M) for sub in subcommands), whole
        for path in paths:
            got = martlet(None, *path, "--help").out
            assert got == martlet(None, "help", *path).out
            assert f"usage: martlet {' '.join(path)}" in got and "examples:" in got, got
            assert all(len(line) <= 130 for line in got.splitlines()), got
            if path[0] not in ("server", "log"):
                assert "--bootstrap" in got and "--json" in got and "With --json" in got, got


@test
def every_example_of_the_help_is_understood():
    for name, subcommands in COMMANDS.items():
        for path in [[name, sub] for sub in subcommands] or [[name]]:
            examples = martlet(None, *path, "--help").out.split("examples:\n")[1].splitlines()
            for line in examples:
                for part in line.split("|"):
                    words = part.split()
                    if not words or words[0] != "martlet" or words[1] in ("server", "log"):
                        continue
                    # nobody listens there: what is understood fails with 1, what is not with 2
                    words += ["--timeout", "1"] + ([] if "--bootstrap" in words else ["--bootstrap", "127.0.0.1:1"])
                    if "broker-1:9092" in words:
                        words[words.index("broker-1:9092")] = "127.0.0.1:1"
                    got = martlet(None, *words[1:], code=1)
                    assert "no broker can be reached" in got.err, (part, got)


@test
def the_reference_is_what_the_commands_say():
    page = ROOT / "docs" / "command-line.md"
    mark = "<!-- below: `martlet help --markdown` -->\n"
    text = page.read_text()
    assert mark in text
    whole = text.split(mark)[0] + mark + "\n" + martlet(None, "help", "--markdown").out.rstrip("\n") + "\n"
    if os.environ.get("MARTLET_WRITE_PAGES"):
        page.write_text(whole)
    assert page.read_text() == whole, "docs/command-line.md is old: run this test with MARTLET_WRITE_PAGES=1"


@test
def a_misspelt_word_names_the_nearest():
    for words, said in [
        (["topc", "list"], "nearest is 'topic'"), (["topic", "lst"], "nearest is 'list'"), (["consum", "x"], "nearest is 'consume'"),
        (["topic", "create", "a", "--partition", "3"], "nearest is '--partitions'"), (["topic"], "one of create, list"),
        (["produce", "t", "--compression", "zst"], "nearest is 'zstd'"), (["topic", "create"], "needs TOPIC"),
        (["topic", "create", "a", "--partitions", "0"], "--partitions needs a whole number between 1 and"),
        (["topic", "create", "no/slash"], "invalid"), (["topic", "create", "a", "a"], "named twice"), (["topic", "alter", "a"], "nothing is to be altered"),
        (["consume", "t", "--from", "sometime"], "--from cannot be"), (["consume", "t", "--from", "latest"], "without --follow"),
        (["config", "get", "topics", "x"], "nearest is 'topic'"), (["config", "set", "topic", "a"], "nothing is to be changed"),
        (["config", "set", "topic", "a", "b"], "sets nothing"), (["group", "reset-offsets", "g"], "where to?"),
        (["group", "reset-offsets", "g", "--to-earliest"], "which partitions?"),
        (["group", "reset-offsets", "g", "--to-earliest", "--to-latest", "--all-topics"], "only one of"),
        (["group", "reset-offsets", "g", "--all-topics", "--to-datetime", "noon"], "write it as"),
        (["topic", "list", "--bootstrap", "x:y:z"], "no address"), (["topic", "list", "--timeout", "-1"], "--timeout"),
        (["topic", "list", "--command-config", "/nowhere"], "no file /nowhere"),
    ]:
        got = martlet(None, *words, code=2)
        assert said in got.err and got.out == "" and "See 'martlet" in got.err, (words, got)
    assert martlet(None, code=2).err.startswith("Martlet")


@test
def a_broker_that_is_not_there_is_said_at_once():
    started_at = time.monotonic()
    got = martlet(None, "topic", "list", "--bootstrap", f"127.0.0.1:{free_port()}", code=1)
    assert "Connection refused" in got.err and "--bootstrap" in got.err and got.out == "", got
    assert time.monotonic() - started_at < 2
    got = martlet(None, "topic", "list", "--bootstrap", "no-such-host.invalid:9092", code=1)
    assert "no-such-host.invalid" in got.err, got


@test
def where_the_broker_is_can_be_said_in_three_ways():
    broker = started()
    nowhere = f"127.0.0.1:{free_port()}"
    config = pathlib.Path(broker.folder, "client.properties")
    config.write_text(f"bootstrap.servers={nowhere},{broker.address}\nclient.id=me\nrequest.timeout.ms=5000\n")
    martlet(None, "topic", "list", "--command-config", config)
    martlet(broker, "topic", "list")
    martlet(broker, "topic", "list", "--bootstrap", nowhere, code=1)
    martlet(None, "topic", "list", "--bootstrap", f"localhost:{broker.port}")
    config.write_text("security.protocol=SSL\n")
    assert "security.protocol" in martlet(broker, "topic", "list", "--command-config", config, code=2).err


# Topics


@test
def topics_are_created_listed_described_altered_and_deleted():
    broker = started()
    assert martlet(broker, "topic", "list").out == ""
    assert told(broker, "topic", "list") == {"topics": []}
    assert told(broker, "topic", "create", "a", "b", "--partitions", "3", "--config", "retention.ms=1000") == {
        "topics": [{"name": name, "created": True, "error": None} for name in "ab"]}
    table = martlet(broker, "topic", "list").out.splitlines()
    assert [line.split() for line in table] == [["TOPIC", "PARTITIONS", "REPLICAS"], ["a", "3", "1"], ["b", "3", "1"]]
    assert len({len(line) for line in table}) == 1, "the columns are not aligned"
    listed = told(broker, "topic", "list")["topics"]
    assert [(t["name"], t["partitions"], t["replicationFactor"], t["internal"], len(t["id"])) for t in listed] == [
        ("a", 3, 1, False, 22), ("b", 3, 1, False, 22)]
    kcat(broker, "-P", "-t", "a", "-p", "2", data=b"1\n2\n")
    described = told(broker, "topic", "describe", "a")["topics"][0]
    assert described["configs"] == {"retention.ms": "1000"}, described
    assert [(p["partition"], p["leader"], p["replicas"], p["isr"], p["start"], p["end"], p["error"]) for p in described["partitions"]] == [
        (0, 1, [1], [1], 0, 0, None), (1, 1, [1], [1], 0, 0, None), (2, 1, [1], [1], 0, 2, None)]
    shown = martlet(broker, "topic", "describe").out
    assert "topic a" in shown and "topic b" in shown and "retention.ms=1000" in shown, shown
    assert told(broker, "topic", "alter", "a", "--partitions", "5", "--config", "retention.ms=2000")["altered"]
    described = told(broker, "topic", "describe", "a")["topics"][0]
    assert len(described["partitions"]) == 5 and described["configs"] == {"retention.ms": "2000"}, described
    assert told(broker, "topic", "alter", "a", "--delete-config", "retention.ms")["configs"] == ["retention.ms"]
    assert told(broker, "topic", "describe", "a")["topics"][0]["configs"] == {}
    assert "only be added" in martlet(broker, "topic", "alter", "a", "--partitions", "2", code=1).err
    assert martlet(broker, "topic", "delete", "a").out == "topic a deleted\n"
    assert [t["name"] for t in told(broker, "topic", "list")["topics"]] == ["b"]


@test
def what_is_there_already_or_not_there_is_an_error_unless_it_is_fine():
    broker = started()
    martlet(broker, "topic", "create", "a")
    got = martlet(broker, "topic", "create", "a", "new", code=1)
    assert "TOPIC_ALREADY_EXISTS" in got.err and got.out == "topic new created\n", got
    assert martlet(broker, "topic", "create", "a", "--if-not-exists").out == "topic a is there already\n"
    assert told(broker, "topic", "create", "a", "--if-not-exists") == {"topics": [{"name": "a", "created": False, "error": None}]}
    got = martlet(broker, "topic", "create", "c", "--config", "no.such=1", code=1)
    assert "INVALID_CONFIG" in got.err and got.out == "", got
    martlet(broker, "topic", "create", "valid", "--validate-only")
    assert "valid" not in martlet(broker, "topic", "list").out
    got = martlet(broker, "topic", "delete", "a", "none", code=1)
    assert "UNKNOWN_TOPIC_OR_PARTITION" in got.err and got.out == "topic a deleted\n", got
    martlet(broker, "topic", "delete", "a", "none", "--if-exists")
    assert martlet(broker, "topic", "describe", "none", code=1).out == ""
    assert "none" in martlet(broker, "consume", "none", code=1).err


# Records


@test
def what_is_produced_is_consumed_with_every_codec():
    broker = started()
    lines = [f"line {i} " + "pad" * (i % 40) for i in range(5000)]
    for codec in CODECS:
        martlet(broker, "produce", codec, "--compression", codec, data="\n".join(lines) + "\n")
        assert martlet(broker, "consume", codec).out.splitlines() == lines, codec
        assert consumed(broker, codec, form="%s\n").splitlines() == lines, f"kcat reads another thing in {codec}"
        kcat(broker, "-P", "-t", f"kcat-{codec}", "-z", codec, data="\n".join(lines).encode() + b"\n")
        assert martlet(broker, "consume", f"kcat-{codec}").out.splitlines() == lines, codec


@test
def keys_and_headers_go_both_ways():
    broker = started()
    martlet(broker, "topic", "create", "shapes", "--partitions", "7")
    martlet(broker, "produce", "shapes", "--key-separator", "::", "--header", "a=1", "--header", "b=x=y", data="k::v\nplain\nempty::\n")
    got = {line.split("|")[1]: line for line in consumed(broker, "shapes", form="%p|%k|%s|%h\n").splitlines()}
    assert got["k"].split("|")[2:] == ["v", "a=1,b=x=y"] and got[""].split("|")[2] == "plain", got
    kcat(broker, "-P", "-t", "kcat-shapes", "-K", ":", "-Z", "-H", "a=1", "-H", "b", data=b"key:value\nalone:\n")
    got = martlet(broker, "consume", "kcat-shapes", "--keys", "--headers", "--offsets", "--separator", "|").out
    assert got == "0|0|a=1,b=null|key|value\n0|1|a=1,b=null|alone|null\n", got


@test
def a_key_goes_where_every_other_client_sends_it():
    kafka = confluent()
    broker = started()
    martlet(broker, "topic", "create", "ours", "theirs", "--partitions", "11")
    keys = [f"key-{i}" for i in range(200)] + ["", "ü", "x" * 100]
    producer = kafka.Producer({"bootstrap.servers": broker.address, "partitioner": "murmur2_random"})
    for key in keys:
        producer.produce("theirs", key=key.encode(), value=key.encode())
    producer.flush()
    martlet(broker, "produce", "ours", "--key-separator", "|", data="".join(f"{key}|{key}\n" for key in keys))
    places = [
        {record["key"]: record["partition"] for record in map(json.loads, martlet(broker, "consume", topic, "--json").out.splitlines())}
        for topic in ("ours", "theirs")
    ]
    # librdkafka takes an empty key for none
    differing = [key for key in keys if key and places[0][key] != places[1][key]]
    assert not differing, differing


@test
def json_brings_every_record_through_unchanged():
    broker = started()
    records = [
        {"value": "text", "key": "k", "headers": [{"name": "h", "value": "x"}, {"name": "h", "value": None}], "timestamp": 1700000000000},
        {"value": None, "key": "dead"}, {"value": "", "key": ""}, {"value": 'quotes " and \n lines \t é 🦅', "key": None},
        {"valueBase64": base64.b64encode(bytes(range(256))).decode(), "keyBase64": "/w=="},
        {"value": {"nested": [1, 2.5, None, True]}},
    ]
    done = told(broker, "produce", "first", data="\n\n".join(json.dumps(r) for r in records))
    assert done == {"topic": "first", "records": 6, "partitions": [{"partition": 0, "records": 6, "firstOffset": 0, "lastOffset": 5}]}, done
    printed = martlet(broker, "consume", "first", "--json").out
    got = [json.loads(line) for line in printed.splitlines()]
    assert [r["offset"] for r in got] == list(range(6)) and {r["topic"] for r in got} == {"first"}
    assert got[0] == {"topic": "first", "partition": 0, "offset": 0, "timestamp": 1700000000000, "timestampType": "create", "key": "k",
                      "value": "text", "headers": records[0]["headers"]}, got[0]
    assert (got[1]["value"], got[1]["key"], got[2]["value"], got[2]["key"], got[3]["key"]) == (None, "dead", "", "", None)
    assert got[3]["value"] == records[3]["value"] and got[4]["valueBase64"] == records[4]["valueBase64"] and "value" not in got[4]
    assert json.loads(got[5]["value"]) == records[5]["value"]
    martlet(broker, "produce", "second", "--json", data=printed)
    again = [json.loads(line) for line in martlet(broker, "consume", "second", "--json").out.splitlines()]
    assert [{**r, "topic": ""} for r in again] == [{**r, "topic": ""} for r in got]


@test
def a_line_that_is_no_record_is_named_and_those_before_it_are_written():
    broker = started()
    got = martlet(broker, "produce", "some", "--json", data='{"value":"1"}\n{"value":"2"}\n{"valeu":"3"}\n{"value":"4"}\n', code=1)
    assert "line 3" in got.err and 'nearest is "value"' in got.err and json.loads(got.out)["records"] == 2, got
    assert martlet(broker, "consume", "some").out == "1\n2\n"
    got = martlet(broker, "produce", "some", "--partition", "9", data="x\n", code=1)
    assert "no partition 9" in got.err, got


@test
def every_acks_is_taken():
    broker = started()
    for acks in ("0", "1", "all"):
        done = told(broker, "produce", f"acks-{acks}", "--acks", acks, data='{"value":"x"}\n' * 3000)
        assert done["records"] == 3000, done
        wait_until(lambda: martlet(broker, "consume", f"acks-{acks}").out == "x\n" * 3000, 5, what=f"records with acks={acks}")


@test
def one_can_begin_anywhere():
    broker = started()
    martlet(broker, "topic", "create", "places", "--partitions", "2")
    for partition in (0, 1):
        data = "\n".join(json.dumps({"value": f"{partition}:{i}", "timestamp": 1700000000000 + i * 1000}) for i in range(10))
        martlet(broker, "produce", "places", "--json", "--partition", partition, data=data)
    def values(*words):
        return sorted(martlet(broker, "consume", "places", *words).out.split())
    assert values() == values("--from", "earliest") == sorted(f"{p}:{i}" for p in (0, 1) for i in range(10))
    assert values("--from", "7") == ["0:7", "0:8", "0:9", "1:7", "1:8", "1:9"]
    assert values("--from=-2") == ["0:8", "0:9", "1:8", "1:9"]
    assert values("--from", "-1", "--partition", "1") == ["1:9"]
    assert values("--from", "@1700000008500") == values("--from", "@2023-11-14T22:13:28.5Z") == ["0:9", "1:9"]
    assert values("--from", "@2030-01-01") == []
    assert values("--from", "3", "--max", "2", "--partition", "0") == ["0:3", "0:4"]
    assert values("--from", "11") == []
    assert "out of range: it holds 0 to 10" in martlet(broker, "consume", "places", "--from", "11", "--partition", "0", code=1).err
    assert "no partition 2" in martlet(broker, "consume", "places", "--partition", "2", code=1).err
    stamped = martlet(broker, "consume", "places", "--timestamps", "--partition", "0", "--max", "1").out
    assert stamped == "2023-11-14T22:13:20.000Z\t0:0\n", stamped


def follower(broker, *words, **more):
    return subprocess.Popen([driving.PROGRAM, "consume", *words, "--follow"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            stdin=subprocess.DEVNULL, env=environment(broker), bufsize=0, **more)


def line_from(process, seconds=10):
    ready, _, _ = select.select([process.stdout], [], [], seconds)
    assert ready, "nothing came"
    return process.stdout.readline()


@test
def following_shows_what_comes_and_ctrl_c_ends_it():
    broker = started()
    martlet(broker, "topic", "create", "live")
    reader = follower(broker, "live")
    try:
        for i in range(3):
            martlet(broker, "produce", "live", data=f"{i}\n")
            assert line_from(reader) == f"{i}\n".encode()
        asked = time.monotonic()
        reader.send_signal(signal.SIGINT)
        assert reader.wait(5) == 130
        assert time.monotonic() - asked < 2
        assert reader.stderr.read() == b""
    finally:
        reader.kill()


@test
def a_broker_that_restarts_does_not_end_a_follower():
    broker = started()
    martlet(broker, "produce", "live", data="before\n")
    reader = follower(broker, "live")
    try:
        assert line_from(reader) == b"before\n"
        broker.kill()
        time.sleep(0.5)
        broker.start()
        martlet(broker, "produce", "live", data="after\n")
        assert line_from(reader, 20) == b"after\n"
    finally:
        reader.kill()


@test
def ctrl_c_in_produce_writes_what_was_read():
    broker = started()
    writer = subprocess.Popen([driving.PROGRAM, "produce", "typed"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(broker))
    try:
        writer.stdin.write(b"one\ntwo\nunfin")
        writer.stdin.flush()
        wait_until(lambda: martlet(broker, "topic", "list").out.count("typed") and martlet(broker, "consume", "typed").out == "one\ntwo\n", 10, what="two records")
        writer.send_signal(signal.SIGINT)
        assert writer.wait(5) == 130, writer.stderr.read()
    finally:
        writer.kill()
    assert martlet(broker, "consume", "typed").out == "one\ntwo\n"


@test
def a_reader_that_goes_away_is_a_good_end():
    broker = started()
    martlet(broker, "produce", "much", data="a line of some length\n" * 200_000)
    reader = subprocess.Popen([driving.PROGRAM, "consume", "much"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(broker))
    assert reader.stdout.readline() == b"a line of some length\n"
    reader.stdout.close()
    assert reader.wait(20) == 0
    assert reader.stderr.read() == b""


@test
def a_full_disk_behind_the_output_is_a_failure():
    broker = started()
    martlet(broker, "produce", "some", data="1\n")
    with open("/dev/full", "wb") as full:
        for words in (["topic", "list"], ["topic", "list", "--json"], ["consume", "some"]):
            got = subprocess.run([driving.PROGRAM, *words], stdout=full, stderr=subprocess.PIPE, env=environment(broker), timeout=20)
            assert got.returncode == 1 and b"No space left" in got.stderr, (words, got)


@test
def memory_stays_small_however_much_is_read():
    broker = started()
    line = "x" * 1000 + "\n"
    for _ in range(4):
        martlet(broker, "produce", "large", "--compression", "zstd", data=line * 40_000, seconds=120)
    def peak(*words):
        """The most that was resident, as the process itself had it."""
        process = subprocess.Popen([driving.PROGRAM, *words], env=environment(broker), stdout=subprocess.DEVNULL)
        most = 0
        while process.poll() is None:
            with open(f"/proc/{process.pid}/status") as status:
                most = max([most, *(int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM:"))])
            time.sleep(0.005)
        assert process.returncode == 0, process.returncode
        return most
    used = peak("consume", "large")
    print(f"note 160 MB were consumed with {used >> 20} MiB of memory")
    assert 0 < used < 64 << 20, f"{used >> 20} MiB"


# Groups


@test
def a_group_without_members_is_read_shown_reset_and_deleted():
    broker = started()
    martlet(broker, "topic", "create", "orders", "--partitions", "2")
    for partition in (0, 1):
        martlet(broker, "produce", "orders", "--partition", partition, data="".join(f"{i}\n" for i in range(10)))
    assert told(broker, "group", "list") == {"groups": []}
    assert martlet(broker, "consume", "orders", "--partition", "0", "--group", "billing", "--max", "4").out == "0\n1\n2\n3\n"
    assert martlet(broker, "consume", "orders", "--partition", "0", "--group", "billing", "--max", "2").out == "4\n5\n"
    assert [(g["group"], g["state"]) for g in told(broker, "group", "list")["groups"]] == [("billing", "Empty")]
    shown = told(broker, "group", "describe", "billing")["groups"][0]
    assert shown["state"] == "Empty" and shown["members"] == [] and shown["lag"] == 4, shown
    assert shown["partitions"] == [{"topic": "orders", "partition": 0, "committed": 6, "end": 10, "lag": 4, "member": None}], shown
    assert "lag 4" in martlet(broker, "group", "describe", "billing").out
    def reset(*words, code=0):
        got = told(broker, "group", "reset-offsets", "billing", *words)
        return got["executed"], [(o["topic"], o["partition"], o["from"], o["to"]) for o in got["offsets"]]
    def committed():
        return {p["partition"]: p["committed"] for p in told(broker, "group", "describe", "billing")["groups"][0]["partitions"]}
    assert reset("--all-topics", "--to-latest") == (False, [("orders", 0, 6, 10)])
    assert committed() == {0: 6}, "a look changed something"
    got = martlet(broker, "group", "reset-offsets", "billing", "--all-topics", "--to-latest")
    assert "--execute" in got.err and "orders" in got.out, got
    assert reset("--topic", "orders", "--to-earliest", "--execute") == (True, [("orders", 0, 6, 0), ("orders", 1, None, 0)])
    assert committed() == {0: 0, 1: 0}
    assert reset("--topic", "orders:1", "--to-offset", "7", "--execute") == (True, [("orders", 1, 0, 7)])
    assert reset("--all-topics", "--shift-by", "2", "--execute") == (True, [("orders", 0, 0, 2), ("orders", 1, 7, 9)])
    assert reset("--all-topics", "--shift-by", "-5", "--execute") == (True, [("orders", 0, 2, 0), ("orders", 1, 9, 4)])
    assert reset("--all-topics", "--to-offset", "99", "--execute") == (True, [("orders", 0, 0, 10), ("orders", 1, 4, 10)])
    assert reset("--all-topics", "--to-datetime", "2020-01-01", "--execute") == (True, [("orders", 0, 10, 0), ("orders", 1, 10, 0)])
    file = pathlib.Path(broker.folder, "offsets.csv")
    file.write_text("# where to go on\norders,0,3\norders, 1, 4\n")
    assert reset("--from-file", str(file), "--execute") == (True, [("orders", 0, 0, 3), ("orders", 1, 0, 4)])
    assert committed() == {0: 3, 1: 4}
    file.write_text("orders,0,3\norders,x,4\n")
    assert "line 2" in martlet(broker, "group", "reset-offsets", "billing", "--from-file", file, code=1).err
    assert sorted(martlet(broker, "consume", "orders", "--group", "billing").out.split()) == sorted("3456789456789")
    assert martlet(broker, "group", "delete", "billing").out == "group billing deleted\n"
    assert "GROUP_ID_NOT_FOUND" in martlet(broker, "group", "delete", "billing", code=1).err
    assert "GROUP_ID_NOT_FOUND" in martlet(broker, "group", "describe", "billing", code=1).err
    assert told(broker, "group", "list") == {"groups": []}


@test
def members_of_a_group_share_its_partitions_with_other_clients():
    kafka = confluent()
    broker = started()
    martlet(broker, "topic", "create", "orders", "--partitions", "6")
    for partition in range(6):
        martlet(broker, "produce", "orders", "--partition", partition, data="".join(f"{partition}:{i}\n" for i in range(5)))
    everything = {f"{p}:{i}" for p in range(6) for i in range(5)}
    reader = follower(broker, "orders", "--group", "billing")
    seen = [line_from(reader, 20) for _ in range(30)]
    assert {line.decode().strip() for line in seen} == everything
    assert [m["clientId"] for m in told(broker, "group", "describe", "billing")["groups"][0]["members"]] == ["martlet"]
    other = kafka.Consumer({"bootstrap.servers": broker.address, "group.id": "billing", "client.id": "other", "auto.offset.reset": "error",
                            "enable.auto.commit": False, "partition.assignment.strategy": "range"})
    assigned = []
    other.subscribe(["orders"], on_assign=lambda _, partitions: assigned.extend(p.partition for p in partitions))
    try:
        wait_until(lambda: other.poll(0.1) is None and assigned, 20, what="an assignment")
        assert len(assigned) == 3, assigned
        shown = told(broker, "group", "describe", "billing")["groups"][0]
        assert sorted(m["clientId"] for m in shown["members"]) == ["martlet", "other"] and shown["lag"] == 0, shown
        readers = {p["partition"]: p["member"] for p in shown["partitions"]}
        assert sorted(p for p in readers if readers[p] == readers[assigned[0]]) == sorted(assigned), (readers, assigned)
        for partition in range(6):
            martlet(broker, "produce", "orders", "--partition", partition, data=f"{partition}:new\n")
        theirs = []
        def read():
            message = other.poll(0.1)
            if message is not None and not message.error():
                theirs.append(message.value().decode())
            return len(theirs) == 3
        wait_until(read, 20, what="three records of the other's")
        ours = sorted(line_from(reader).decode().strip() for _ in range(3))
        assert sorted(ours + theirs) == [f"{p}:new" for p in range(6)], (ours, theirs)
        # the other goes without having committed: what it read is read again, by the one that is left
        other.close()
        again = sorted(line_from(reader, 20).decode().strip() for _ in range(3))
        assert again == sorted(theirs), (again, theirs)
        reader.send_signal(signal.SIGINT)
        assert reader.wait(10) == 130
        assert reader.stderr.read() == b""
        shown = told(broker, "group", "describe", "billing")["groups"][0]
        assert shown["members"] == [] and shown["state"] == "Empty" and shown["lag"] == 0, shown
    finally:
        reader.kill()


@test
def a_group_that_is_at_work_is_shown_and_left_alone():
    kafka = confluent()
    broker = started()
    martlet(broker, "topic", "create", "orders", "--partitions", "2")
    martlet(broker, "produce", "orders", "--partition", "1", data="1\n2\n3\n")
    consumer = kafka.Consumer({"bootstrap.servers": broker.address, "group.id": "billing", "client.id": "worker",
                               "auto.offset.reset": "earliest", "enable.auto.commit": False})
    consumer.subscribe(["orders"])
    try:
        seen = []
        def read():
            message = consumer.poll(0.2)
            if message is not None and not message.error():
                seen.append(message)
            return len(seen) == 3
        wait_until(read, 20, what="three records")
        consumer.commit(message=seen[1], asynchronous=False)
        shown = told(broker, "group", "describe", "billing")["groups"][0]
        assert (shown["state"], shown["protocolType"], shown["lag"]) == ("Stable", "consumer", 1), shown
        assert [(m["clientId"], m["host"].lstrip("/")) for m in shown["members"]] == [("worker", "127.0.0.1")], shown
        by = {p["partition"]: p for p in shown["partitions"]}
        assert (by[1]["committed"], by[1]["end"], by[1]["lag"], by[1]["member"]) == (2, 3, 1, shown["members"][0]["id"]), shown
        assert by[0]["committed"] is None and by[0]["member"] == shown["members"][0]["id"], shown
        text = martlet(broker, "group", "describe", "billing").out
        assert "Stable" in text and "worker" in text and "127.0.0.1" in text, text
        got = martlet(broker, "group", "reset-offsets", "billing", "--all-topics", "--to-earliest", "--execute", code=1)
        assert "1 member" in got.err and got.out == "", got
        assert "NON_EMPTY_GROUP" in martlet(broker, "group", "delete", "billing", code=1).err
        assert told(broker, "group", "describe", "billing")["groups"][0]["lag"] == 1
    finally:
        consumer.close()


# Settings and the cluster


@test
def listeners_are_added_and_taken_away_while_the_broker_runs():
    broker, other, held = started(), free_port(), socket.socket()
    held.bind(("127.0.0.1", 0))
    held.listen()
    protocols = "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,OTHER:PLAINTEXT"
    main = f"PLAINTEXT://{broker.address}"

    def told_at(port):
        """The address of the broker, as it is told who asks there; None where nobody listens."""
        got = run_program("cluster", "describe", "--bootstrap", f"127.0.0.1:{port}", "--timeout", "2", "--json")
        return json.loads(got.stdout)["brokers"][0]["port"] if got.returncode == 0 else None

    refused = martlet(broker, "config", "set", "broker", "1", f"listeners={main},OTHER://127.0.0.1:{held.getsockname()[1]}", protocols, code=1)
    assert "INVALID_REQUEST" in refused.err and "in use" in refused.err, refused
    names = [c["name"] for c in told(broker, "config", "get", "broker", "1")["configs"] if c["source"] == "broker"]
    assert names == [], "what is refused is not kept"
    martlet(broker, "config", "set", "broker", "1", f"listeners={main},OTHER://127.0.0.1:{other}", protocols)
    wait_until(lambda: told_at(other) == other, what="the other listener's address in the metadata")
    assert told_at(broker.port) == broker.port
    for end in (broker.stop, broker.kill):
        end()
        broker.start()
        assert (told_at(other), told_at(broker.port)) == (other, broker.port)
    staying, going = (socket.create_connection(("127.0.0.1", port)) for port in (broker.port, other))
    martlet(broker, "config", "set", "broker", "1", "--delete", "listeners", "--delete", "listener.security.protocol.map")
    wait_until(lambda: told_at(other) is None, what="the end of the other listener")
    going.settimeout(5)
    assert going.recv(1) == b"", "a connection of a listener that is gone is closed"
    staying.settimeout(0.2)
    try:
        assert staying.recv(1) != b"", "a connection of another listener stays"
    except TimeoutError:
        pass
    assert told_at(broker.port) == broker.port


@test
def settings_are_shown_and_changed():
    broker = started()
    martlet(broker, "topic", "create", "orders")
    assert told(broker, "config", "get", "topic", "orders") == {"resource": "topic", "name": "orders", "configs": []}
    assert told(broker, "config", "set", "topic", "orders", "retention.ms=1000", "segment.bytes=2000000")["changed"] == ["retention.ms", "segment.bytes"]
    got = told(broker, "config", "get", "topic", "orders")["configs"]
    assert [(c["name"], c["value"], c["source"]) for c in got] == [("retention.ms", "1000", "topic"), ("segment.bytes", "2000000", "topic")], got
    martlet(broker, "config", "set", "topic", "orders", "--delete", "retention.ms", "--append", "cleanup.policy=compact")
    got = {c["name"]: c["value"] for c in told(broker, "config", "get", "topic", "orders")["configs"]}
    assert set(got) == {"segment.bytes", "cleanup.policy"} and "compact" in got["cleanup.policy"], got
    every = told(broker, "config", "get", "topic", "orders", "--all")["configs"]
    assert len(every) > 20 and [c["name"] for c in every] == sorted(c["name"] for c in every)
    assert told(broker, "config", "get", "topic", "orders", "retention.ms")["configs"][0]["source"] == "default"
    assert "nearest is retention.ms" in martlet(broker, "config", "get", "topic", "orders", "retention.m", code=1).err
    assert "INVALID_CONFIG" in martlet(broker, "config", "set", "topic", "orders", "retention.ms=soon", code=1).err
    martlet(broker, "config", "set", "topic", "orders", "retention.ms=7", "--validate-only")
    assert "retention.ms" not in martlet(broker, "config", "get", "topic", "orders").out
    martlet(broker, "config", "set", "cluster", "log.retention.ms=86400000")
    assert [(c["name"], c["source"]) for c in told(broker, "config", "get", "cluster")["configs"]] == [("log.retention.ms", "cluster")]
    martlet(broker, "config", "set", "broker", "1", "log.retention.ms=5000")
    got = {c["name"]: (c["value"], c["source"]) for c in told(broker, "config", "get", "broker", "1")["configs"]}
    assert got["log.retention.ms"] == ("5000", "broker") and got["offsets.topic.replication.factor"] == ("1", "file"), got
    assert "none" in martlet(broker, "config", "get", "topic", "none", code=1).err


@test
def the_cluster_is_described():
    broker = started()
    martlet(broker, "topic", "create", "a", "--partitions", "4")
    got = told(broker, "cluster", "describe")
    assert (got["controller"], got["topics"], got["partitions"], got["leaderless"]) == (1, 1, 4, 0) and len(got["clusterId"]) == 22, got
    assert got["brokers"] == [{"id": 1, "host": "127.0.0.1", "port": broker.port, "rack": None}], got
    assert "controller" in martlet(broker, "cluster", "describe").out


# A terminal, a pipe, and time


def on_a_terminal(broker, *words, **more):
    """What a command writes to a terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen([driving.PROGRAM, *words], stdin=theirs, stdout=theirs, stderr=theirs, env=environment(broker, TERM="xterm", **more))
    os.close(theirs)
    said = b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:
            break
        if not piece:
            break
        said += piece
    os.close(ours)
    process.wait(10)
    return said.decode()


@test
def colour_is_for_terminals_that_want_it():
    broker = started()
    martlet(broker, "topic", "create", "a")
    for words in (["topic", "list"], ["topic", "describe"], ["cluster", "describe"]):
        assert "\x1b" not in martlet(broker, *words).out
        assert "\x1b[1m" in on_a_terminal(broker, *words)
        assert "\x1b" not in on_a_terminal(broker, *words, NO_COLOR="1")
    assert "\x1b" not in martlet(broker, "topic", "describe", "none", code=1).err
    assert "\x1b[31m" in on_a_terminal(broker, "topic", "describe", "none")


@test
def what_a_client_calls_itself_does_not_move_the_cursor():
    kafka = confluent()
    broker = started()
    martlet(broker, "produce", "orders", data="1\n")
    consumer = kafka.Consumer({"bootstrap.servers": broker.address, "group.id": "billing", "client.id": "evil\x1b[2J", "auto.offset.reset": "earliest"})
    consumer.subscribe(["orders"])
    try:
        wait_until(lambda: consumer.poll(0.2) is not None, 20, what="a record")
        shown = martlet(broker, "group", "describe", "billing").out
        assert "\x1b" not in shown and "evil" in shown, shown
    finally:
        consumer.close()


@test
def a_command_starts_and_ends_in_milliseconds():
    broker = started()
    martlet(broker, "topic", "create", "a")
    times = []
    for _ in range(20):
        began = time.monotonic()
        martlet(broker, "topic", "list")
        times.append((time.monotonic() - began) * 1000)
    times.sort()
    print(f"note 'martlet topic list' takes {times[0]:.1f} ms at the best, {times[10]:.1f} ms in the middle")
    assert times[0] < 200, times
