"""kcat, as Debian has it: what a person at a shell does."""
import json, re, shutil, subprocess, time
from driving import Broker, Skip, test, wait_until
from wire import Connection


def kcat(broker, *words, data=None, seconds=30, check=True):
    if not shutil.which("kcat"):
        raise Skip("kcat is not installed")
    got = subprocess.run(["kcat", "-b", broker.address, *words], input=data, capture_output=True, timeout=seconds)
    if check:
        assert got.returncode == 0, f"kcat {' '.join(words)}: {got.returncode}\n{got.stderr.decode(errors='replace')[-1500:]}"
    return got


def consumed(broker, topic, *words, form="%o %s\n"):
    return kcat(broker, "-C", "-t", topic, "-o", "beginning", "-e", "-q", "-X", "fetch.wait.max.ms=50", "-f", form, *words).stdout.decode()


@test
def lists_an_empty_broker_and_creates_a_topic_by_asking_for_it():
    broker = Broker().start()
    assert b"1 brokers" in kcat(broker, "-L").stdout
    got = json.loads(kcat(broker, "-L", "-J", "-t", "asked-for").stdout)
    assert [t["topic"] for t in got["topics"]] == ["asked-for"]
    assert got["brokers"][0]["name"] == broker.address


@test
def pastes_of_the_ready_block_work():
    broker = Broker().start()
    block = wait_until(lambda: broker.output() if "kcat" in broker.output() else None, 2, what="the ready block")
    produce = next(re.search(r"kcat .*-P.*", line)[0] for line in block.splitlines() if re.search(r"kcat .*-P", line))
    consume = next(re.search(r"kcat .*-C.*", line)[0] for line in block.splitlines() if re.search(r"kcat .*-C", line))
    produce = re.split(r"\s{2,}|\s#", produce)[0]
    consume = re.split(r"\s{2,}|\s#", consume)[0]
    subprocess.run(["bash", "-c", produce], input=b"hello\n", check=True, timeout=20)
    got = subprocess.run(["bash", "-c", consume + ("" if "-e" in consume else " -e")], capture_output=True, check=True, timeout=20)
    assert b"hello" in got.stdout, got


@test
def what_is_typed_comes_back_in_order():
    broker = Broker().start()
    kcat(broker, "-P", "-t", "hello", data="".join(f"line {i}\n" for i in range(1000)).encode())
    assert consumed(broker, "hello") == "".join(f"{i} line {i}\n" for i in range(1000))


@test
def every_codec_comes_back():
    broker = Broker().start()
    for codec in ("none", "gzip", "snappy", "lz4", "zstd"):
        lines = [f"{codec} {i} " + "pad" * 20 for i in range(500)]
        kcat(broker, "-P", "-t", f"codec-{codec}", "-z", codec, data="\n".join(lines).encode() + b"\n")
        assert consumed(broker, f"codec-{codec}", form="%s\n").splitlines() == lines, codec


@test
def every_acks_is_taken():
    broker = Broker().start()
    for acks in ("0", "1", "all"):
        kcat(broker, "-P", "-t", f"acks-{acks}", "-X", f"acks={acks}", data=b"a\nb\n")
        wait_until(lambda: Connection(broker.port).end_offset(f"acks-{acks}") == 2, 5, what=f"two records with acks={acks}")


@test
def keys_headers_and_nulls():
    broker = Broker().start()
    kcat(broker, "-P", "-t", "shapes", "-K", ":", "-Z", "-H", "a=1", "-H", "b=two", data=b"key:value\nalone:\n")
    got = consumed(broker, "shapes", form="%k|%s|%S|%h\n").splitlines()
    assert got == ["key|value|5|a=1,b=two", "alone||-1|a=1,b=two"], got


@test
def an_idempotent_producer_writes_each_once():
    broker = Broker().start()
    kcat(broker, "-P", "-t", "once", "-X", "enable.idempotence=true", data="".join(f"{i}\n" for i in range(5000)).encode())
    assert consumed(broker, "once", form="%s\n").split() == [str(i) for i in range(5000)]


@test
def a_message_of_900_kilobytes():
    broker = Broker().start()
    large = b"x" * 900_000
    kcat(broker, "-P", "-t", "large", "-D", "\\0", data=large)
    assert consumed(broker, "large", form="%S\n").split() == ["900000"]


@test
def offsets_by_time():
    broker = Broker().start()
    kcat(broker, "-P", "-t", "times", data=b"before\n")
    time.sleep(0.05)
    middle = int(time.time() * 1000)
    time.sleep(0.05)
    kcat(broker, "-P", "-t", "times", data=b"after\n")
    assert b"offset 1" in kcat(broker, "-Q", "-t", f"times:0:{middle}").stdout
    got = kcat(broker, "-C", "-t", "times", "-o", f"s@{middle}", "-e", "-q").stdout
    assert got == b"after\n", got


@test
def a_consumer_that_waits_sees_what_arrives():
    broker = Broker().start()
    assert Connection(broker.port).create_topic("live") == 0
    reader = subprocess.Popen(["kcat", "-b", broker.address, "-C", "-t", "live", "-c", "3", "-q", "-u"], stdout=subprocess.PIPE)
    time.sleep(0.5)
    started = time.monotonic()
    kcat(broker, "-P", "-t", "live", data=b"1\n2\n3\n")
    try:
        assert reader.communicate(timeout=5)[0] == b"1\n2\n3\n"
    finally:
        reader.kill()
    assert time.monotonic() - started < 3


@test
def a_group_reads_each_record_once():
    broker = Broker(settings={"group.initial.rebalance.delay.ms": "0"}).start()
    def read():
        return kcat(broker, "-G", "readers", "-e", "-q", "-X", "auto.offset.reset=earliest", "-X", "fetch.wait.max.ms=50", "hello", seconds=60).stdout
    kcat(broker, "-P", "-t", "hello", data=b"a\nb\n")
    assert read() == b"a\nb\n"
    kcat(broker, "-P", "-t", "hello", data=b"c\n")
    assert read() == b"c\n"
