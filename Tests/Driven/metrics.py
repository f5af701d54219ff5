"""What the broker tells of itself over HTTP: read as Prometheus reads it, and held against traffic that is known."""
import contextlib, http.client, re, socket, threading, time
from driving import ROOT, Broker, free_port, seeded, test, wait_until
from wire import Connection
from prometheus_client.parser import text_string_to_metric_families

NAME = re.compile(r"^[a-z_][a-z0-9_]*$")


def started(**settings):
    """A broker that tells metrics on a port of its own; (broker, that port)."""
    port = free_port()
    broker = Broker({"martlet.metrics.listener": f"127.0.0.1:{port}", **{k.replace("_", "."): str(v) for k, v in settings.items()}}).start()
    return broker, port


def get(port, path="/metrics", method="GET", timeout=10):
    """(status, headers, body)."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read().decode()
    finally:
        connection.close()


class Page:
    """One scrape, checked for what Prometheus and promtool expect of every page."""

    def __init__(self, port):
        status, headers, self.text = get(port)
        assert status == 200 and headers["Content-Type"].startswith("text/plain; version=0.0.4"), (status, headers)
        self.samples, self.types = {}, {}
        for family in text_string_to_metric_families(self.text):
            for sample in family.samples:
                key = (sample.name, tuple(sorted(sample.labels.items())))
                assert key not in self.samples, f"{key} is told twice"
                self.samples[key] = sample.value
            kind = family.type
            self.types[family.name + ("_total" if kind == "counter" else "")] = kind
        self.check_lines()
        self.check_histograms()

    def check_lines(self):
        """HELP and TYPE once, in this order, before the samples of their family, which lie together."""
        family, helped, typed = None, set(), {}
        for line in self.text.splitlines():
            if line.startswith("# HELP "):
                family = line.split(" ")[2]
                assert family not in helped, f"{family} is explained twice"
                assert len(line.split(" ", 3)[3]) > 10, f"{family} is not explained"
                helped.add(family)
            elif line.startswith("# TYPE "):
                _, _, name, kind = line.split(" ")
                assert name == family and name not in typed, line
                typed[name] = kind
                assert NAME.match(name) and (kind == "counter") == name.endswith("_total"), f"{name} is a {kind}"
                assert not re.search(r"_(ms|milliseconds|minutes|kb|megabytes|percent)(_|$)", name), f"{name} is not in base units"
            else:
                name = re.match(r"[a-z0-9_]+", line)[0]
                allowed = {family} if typed[family] != "histogram" else {family + s for s in ("_bucket", "_sum", "_count")}
                assert name in allowed, f"{name} among the samples of {family}"
        assert helped == set(typed) and len(helped) > 60, len(helped)

    def check_histograms(self):
        series = {}
        for (name, labels), value in self.samples.items():
            if name.endswith("_bucket"):
                rest = tuple(l for l in labels if l[0] != "le")
                series.setdefault((name[:-7], rest), []).append((float(dict(labels)["le"]), value))
        assert series
        for (name, labels), buckets in series.items():
            buckets.sort()
            counts = [count for _, count in buckets]
            assert counts == sorted(counts) and buckets[-1][0] == float("inf"), (name, labels, buckets)
            assert counts[-1] == self.samples[(name + "_count", labels)], (name, labels)
            total = self.samples[(name + "_sum", labels)]
            assert (total == 0) <= (counts[-1] == 0 or buckets[0][1] == counts[-1]), (name, labels, total)

    def __call__(self, name, **labels):
        return self.samples.get((name, tuple(sorted(labels.items()))))

    def all(self, name):
        return {labels: value for (n, labels), value in self.samples.items() if n == name}


def assert_rises(before, after):
    """What only rises has not fallen, and nothing of it is gone."""
    for (name, labels), value in before.samples.items():
        if name.endswith(("_total", "_bucket", "_count")):
            later = after.samples.get((name, labels))
            assert later is not None and later >= value, f"{name} {labels} went from {value} to {later}"


def bytes_of_batches(segment):
    """The file goes on in zeros where the log keeps room for what comes next."""
    at = 0
    while at + 12 <= len(segment) and (length := int.from_bytes(segment[at + 8:at + 12], "big")):
        at += 12 + length
    return at


@test
def a_page_is_as_prometheus_wants_it_and_counts_what_was_sent():
    broker, port = started()
    before = Page(port)
    connection = Connection(broker.port)
    assert connection.create_topic("orders", 3) == 0
    sent = {0: 700, 1: 30, 2: 0}
    for partition, count in sent.items():
        for start in range(0, count, 10):
            assert connection.produce("orders", partition, [b"x" * 100] * 10)[0] == 0
    assert connection.produce("orders", 9, [b"x"])[0] == 3
    page = Page(port)
    assert_rises(before, page)
    assert page("martlet_requests_total", api="Produce") == 74
    assert page("martlet_request_errors_total", api="Produce", error="UNKNOWN_TOPIC_OR_PARTITION") == 1
    assert page("martlet_requests_total", api="CreateTopics") == 1
    assert page("martlet_request_duration_seconds_count", api="Produce") == 74
    assert page("martlet_topic_received_records_total", topic="orders") == 730
    stored = sum(bytes_of_batches(f.read_bytes()) for f in (broker.folder / "log").glob("orders-*/*.log"))
    assert page("martlet_topic_received_bytes_total", topic="orders") == stored
    assert page("martlet_topic_size_bytes", topic="orders") == stored
    for partition, count in sent.items():
        assert page("martlet_partition_log_end_offset", topic="orders", partition=str(partition)) == count
        assert page("martlet_partition_high_watermark", topic="orders", partition=str(partition)) == count
    directory = str(broker.folder / "log")
    assert page("martlet_sync_records_sum", directory=directory) == 730
    assert page("martlet_synced_bytes_total", directory=directory) == stored
    assert 0 < page("martlet_sync_duration_seconds_sum", directory=directory) < 60
    assert page("martlet_connections") == 1 and page("martlet_ready") == 1
    again = Page(port)
    assert_rises(page, again)
    assert again("martlet_scrapes_total") == 3


@test
def what_consumers_read_is_counted_in_records_and_bytes():
    from kafka import KafkaConsumer, KafkaProducer, TopicPartition
    broker, port = started()
    producer = KafkaProducer(bootstrap_servers=broker.address)
    for i in range(5000):
        producer.send("read", b"%05d" % i * 16, partition=0)
    producer.flush(30)
    producer.close()
    for _ in range(2):
        consumer = KafkaConsumer(bootstrap_servers=broker.address, group_id=None, consumer_timeout_ms=10_000, max_partition_fetch_bytes=50_000)
        consumer.assign([TopicPartition("read", 0)])
        consumer.seek_to_beginning()
        for count, record in enumerate(consumer, 1):
            if count == 5000:
                break
        consumer.close()
    page = Page(port)
    stored = page("martlet_topic_size_bytes", topic="read")
    # a consumer asks ahead, and what an answer's limit cuts off is sent again
    assert 2 * stored <= page("martlet_topic_sent_bytes_total", topic="read") < 8 * stored, (page.all("martlet_topic_sent_bytes_total"), stored)
    assert 10_000 <= page("martlet_topic_sent_records_total", topic="read") < 40_000, page.all("martlet_topic_sent_records_total")
    ratio = page("martlet_topic_sent_records_total", topic="read") / page("martlet_topic_sent_bytes_total", topic="read")
    assert abs(ratio / (5000 / stored) - 1) < 0.02, ratio


@test
def figures_of_the_process_are_those_of_the_system():
    broker, port = started()
    connections = [Connection(broker.port) for _ in range(50)]
    for connection in connections:
        connection.api_versions()
    page = Page(port)
    assert page("martlet_connections") == 50
    assert abs(page("process_open_fds") - broker.descriptors()) <= 2
    assert abs(page("martlet_process_anonymous_memory_bytes") - broker.memory()) < 2e6
    assert abs(page("process_resident_memory_bytes") - broker.memory("VmRSS")) < 4e6
    assert abs(page("process_cpu_seconds_total") - broker.processor_seconds()) < 0.1
    assert abs(page("process_start_time_seconds") - (time.time() - (time.monotonic() - broker.started_at))) < 2
    busy = page("martlet_loop_turn_duration_seconds_sum", loop="0")
    assert 0 < busy < page("process_cpu_seconds_total") + 2, busy
    time.sleep(1.5)
    assert Page(port)("martlet_loop_turn_duration_seconds_sum", loop="0") - busy < 0.5, "waiting counts as a turn"


@test
def health_says_when_clients_are_served():
    port = free_port()
    broker = Broker({"martlet.metrics.listener": f"127.0.0.1:{port}"})
    broker.start()
    assert get(port, "/health/live")[0] == 200
    assert get(port, "/health/ready")[::2] == (200, "ready\n")
    status, headers, body = get(port, "/health/ready", "HEAD")
    assert (status, headers["Content-Length"], body) == (200, "6", "")
    status, headers, _ = get(port, "/metrics", "DELETE")
    assert (status, headers["Allow"]) == (405, "GET, HEAD")
    assert get(port, "/favicon.ico")[0] == 404
    broker.stop()
    try:
        get(port, "/health/live")
        raise AssertionError("it answers after its end")
    except ConnectionError:
        pass


@test
def curl_as_the_readme_has_it():
    import subprocess
    line = next(l for l in (ROOT / "README.md").read_text().splitlines() if "curl" in l and "/metrics" in l)
    broker, port = started()
    command = line.split("#")[0].strip().replace("9644", str(port))
    shown = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=20)
    assert shown.returncode == 0 and "martlet_" in shown.stdout, (command, shown)


@test
def a_port_in_use_is_a_sentence_and_no_obstacle_where_it_was_not_asked_for():
    first, port = started()
    second = Broker({"martlet.metrics.listener": f"127.0.0.1:{port}"}).start(wait=False)
    assert second.process.wait(10) == 1
    second.process = None
    said = [line for line in second.log().splitlines() if "Port" in line]
    assert len(said) == 1 and f"Port {port} is in use" in said[0] and "martlet.metrics.listener" in said[0], second.log()
    none = Broker({"martlet.metrics.listener": ""}).start()
    block = wait_until(lambda: none.output() if "metrics" in none.output() else None, 5, what="the start block")
    assert "metrics    none" in block, block
    wrong = Broker({"martlet.metrics.listener": "9644"}).start(wait=False)
    assert wrong.process.wait(10) == 1
    wrong.process = None
    assert "host:port" in wrong.log(), wrong.log()


@test
def the_labels_of_topics_are_bounded():
    broker, port = started(martlet_metrics_labels_max=5)
    connection = Connection(broker.port)
    for i in range(12):
        assert connection.create_topic(f"t{i:02d}", 2) == 0
    for i in range(12):
        for _ in range(i + 1):
            assert connection.produce(f"t{i:02d}", 0, [b"x"])[0] == 0
    page = Page(port)
    topics = {dict(labels)["topic"]: value for labels, value in page.all("martlet_topic_received_records_total").items()}
    assert topics == {**{f"t{i:02d}": i + 1 for i in range(7, 12)}, "(other)": sum(range(1, 8))}, topics
    assert len(page.all("martlet_partition_log_end_offset")) == 5 and page("martlet_partitions_unlisted") == 19
    assert connection.produce("t00", 0, [b"x"])[0] == 0
    later = Page(port)
    assert_rises(page, later)
    assert later("martlet_topic_received_records_total", topic="(other)") == 29


@test
def a_scrape_of_a_thousand_partitions_holds_up_nobody():
    broker, port = started(martlet_metrics_labels_max=20_000)
    connection = Connection(broker.port, timeout=120)
    for i in range(10):
        assert connection.create_topic(f"wide{i}", 100) == 0
    assert connection.create_topic("probe") == 0
    slowest, done = [0.0], threading.Event()

    def probe():
        other = Connection(broker.port, timeout=60)
        while not done.is_set():
            began = time.monotonic()
            other.api_versions()
            slowest[0] = max(slowest[0], time.monotonic() - began)

    thread = threading.Thread(target=probe)
    thread.start()
    try:
        time.sleep(0.5)
        quiet, slowest[0] = slowest[0], 0.0
        began = time.monotonic()
        for _ in range(3):
            status, _, text = get(port, timeout=60)
            assert status == 200 and text.count("martlet_partition_high_watermark{") == 1_001
        took = (time.monotonic() - began) / 3
    finally:
        done.set()
        thread.join()
    turn = Page(port)("martlet_loop_longest_turn_seconds", loop="0")
    print(f"note {len(text) / 1e6:.1f} MB a scrape in {took * 1000:.0f} ms; the slowest answer beside it {slowest[0] * 1000:.1f} ms ({quiet * 1000:.1f} before)")
    assert slowest[0] < 0.25, f"a client waited {slowest[0]:.3f} s beside a scrape"
    assert took < 5, took


@test
def noise_on_the_port_changes_nothing_for_others():
    broker, port = started()
    random = seeded("metrics-noise")
    before = broker.descriptors()
    for _ in range(150):
        # what is refused is closed while the rest of it is still being sent
        with contextlib.suppress(ConnectionError), socket.create_connection(("127.0.0.1", port), timeout=10) as s:
            kind = random.randrange(4)
            if kind == 0:
                s.sendall(random.randbytes(random.randrange(1, 3000)))
            elif kind == 1:
                s.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * random.randrange(3000))
            elif kind == 2:
                s.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 20)
            if kind != 2 and random.randrange(2):
                s.shutdown(socket.SHUT_WR)
    # the last of them may still have all the places that there are
    wait_until(lambda: broker.descriptors() <= before + 1, 20, what="the end of all those connections")
    assert Page(port)("martlet_ready") == 1
    assert broker.memory() < 60e6


@test
def a_broker_that_recovers_is_live_and_says_what_it_recovered():
    broker, port = started()
    connection = Connection(broker.port)
    assert connection.create_topic("t") == 0
    assert connection.produce("t", 0, [b"x" * 1000] * 50)[0] == 0
    broker.kill()
    broker.start()
    page = Page(port)
    assert page("martlet_recovered_logs_total") == 1 and page("martlet_recovered_bytes_total") > 50_000


@test
def retention_and_rolling_are_counted():
    broker, port = started(log_retention_check_interval_ms=200, log_segment_delete_delay_ms=100)
    connection = Connection(broker.port)
    assert connection.create_topic("small", configs={"segment.bytes": "2000", "retention.bytes": "4000", "retention.ms": "-1"}) == 0
    for _ in range(20):
        assert connection.produce("small", 0, [b"x" * 900])[0] == 0
    page = wait_until(lambda: (p := Page(port))("martlet_log_segments_removed_total", reason="size") > 5 and p, 20, what="retention")
    assert page("martlet_log_segments_rolled_total") >= 9
    assert page("martlet_log_removed_bytes_total") > 9000
    assert page("martlet_partition_log_start_offset", topic="small", partition="0") > 5


@test
def a_groups_lag_is_told_in_records_and_in_seconds():
    from kafka import KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
    broker, port = started(group_initial_rebalance_delay_ms=0, martlet_metrics_labels_max=3)
    now = int(time.time() * 1000)
    producer = KafkaProducer(bootstrap_servers=broker.address, compression_type="gzip", linger_ms=50)
    for i in range(100):
        # one a second, the last one now
        producer.send("clicks", b"x", partition=0, timestamp_ms=now - (99 - i) * 1000)
    producer.flush(30)
    producer.close()

    consumer = KafkaConsumer("clicks", bootstrap_servers=broker.address, group_id='he said "lag\\"', enable_auto_commit=False, auto_offset_reset="earliest", consumer_timeout_ms=20_000)
    next(consumer)
    group = dict(group='he said "lag\\"', topic="clicks", partition="0")
    page = Page(port)
    assert page("martlet_groups", state="Stable") == 1
    assert page("martlet_group_members", group=group["group"]) == 1
    assert page("martlet_group_lag_records", **group) is None, "nothing is committed"
    for offset in (0, 40, 99):
        consumer.commit({TopicPartition("clicks", 0): OffsetAndMetadata(offset, "", -1)})
        page = Page(port)
        assert page("martlet_group_committed_offset", **group) == offset
        assert page("martlet_group_lag_records", **group) == 100 - offset
        age = time.time() - (now - (99 - offset) * 1000) / 1000
        assert abs(page("martlet_group_lag_seconds", **group) - age) < 1, (offset, page("martlet_group_lag_seconds", **group), age)
    consumer.commit({TopicPartition("clicks", 0): OffsetAndMetadata(100, "", -1)})
    page = Page(port)
    assert page("martlet_group_lag_records", **group) == 0 == page("martlet_group_lag_seconds", **group)
    consumer.close()
    page = wait_until(lambda: (p := Page(port))("martlet_groups", state="Empty") == 1 and p, 10, what="an empty group")
    assert page("martlet_group_members", group=group["group"]) == 0
    assert page("martlet_group_memory_bytes") > 0

    # groups that are behind by different numbers: only the three that are the furthest behind are told of
    for i in range(5):
        one = KafkaConsumer(bootstrap_servers=broker.address, group_id=f"g{i}", enable_auto_commit=False)
        one.assign([TopicPartition("clicks", 0)])
        one.commit({TopicPartition("clicks", 0): OffsetAndMetadata(i * 10, "", -1)})
        one.close()
    page = Page(port)
    assert {dict(labels)["group"]: value for labels, value in page.all("martlet_group_lag_records").items()} == {"g0": 100, "g1": 90, "g2": 80}
    assert page("martlet_group_partitions_unlisted") == 3
