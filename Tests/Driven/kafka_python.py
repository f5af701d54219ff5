"""kafka-python: the protocol written out in Python."""
import time
from driving import Broker, test, wait_until
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic
from kafka.errors import TopicAlreadyExistsError, MessageSizeTooLargeError


def create(broker, topic, partitions=1, **configs):
    admin = KafkaAdminClient(bootstrap_servers=broker.address)
    try:
        admin.create_topics([NewTopic(topic, partitions, 1, topic_configs={k.replace("_", "."): str(v) for k, v in configs.items()})])
    finally:
        admin.close()


def produce(broker, topic, messages, **config):
    """[offset] in the order of sending."""
    producer = KafkaProducer(bootstrap_servers=broker.address, **config)
    try:
        futures = [producer.send(topic, partition=0, **message) for message in messages]
        producer.flush(60)
        return [future.get(10).offset for future in futures]
    finally:
        producer.close(10)


def consume(broker, topic, count, seconds=30, **config):
    consumer = KafkaConsumer(bootstrap_servers=broker.address, group_id=None, consumer_timeout_ms=seconds * 1000, **config)
    try:
        consumer.assign([TopicPartition(topic, 0)])
        consumer.seek_to_beginning()
        got = []
        for record in consumer:
            got.append(record)
            if len(got) == count:
                break
        assert len(got) == count, f"{len(got)} of {count}"
        return got
    finally:
        consumer.close()


@test
def topics_are_created_described_and_deleted():
    broker = Broker().start()
    create(broker, "made", 3)
    admin = KafkaAdminClient(bootstrap_servers=broker.address)
    try:
        assert "made" in admin.list_topics()
        assert len(admin.describe_topics(["made"])[0]["partitions"]) == 3
        assert admin.describe_cluster()["brokers"]
        try:
            admin.create_topics([NewTopic("made", 1, 1)])
            raise AssertionError("a topic was created twice")
        except TopicAlreadyExistsError:
            pass
        admin.delete_topics(["made"])
        wait_until(lambda: "made" not in admin.list_topics(), 5, what="the end of the topic")
    finally:
        admin.close()


@test
def every_codec_with_keys_headers_and_nulls():
    broker = Broker().start()
    shapes = [dict(key=b"k", value=b"v"), dict(key=None, value=b"v"), dict(key=b"k", value=None), dict(key=b"", value=b""),
              dict(key=b"h", value=b"x" * 2000, headers=[("a", b"1"), ("a", b""), ("b", b"\xff")])]
    for codec in (None, "gzip", "snappy", "lz4", "zstd"):
        topic = f"codec-{codec}"
        create(broker, topic)
        assert produce(broker, topic, shapes * 40, compression_type=codec, linger_ms=20) == list(range(200))
        for i, record in enumerate(consume(broker, topic, 200)):
            sent = shapes[i % 5]
            assert (record.offset, record.key, record.value) == (i, sent["key"], sent["value"]), (codec, i)
            assert list(record.headers) == sent.get("headers", []), (codec, i)


@test
def every_acks():
    broker = Broker().start()
    for acks in (0, 1, "all"):
        create(broker, f"acks-{acks}")
        produce(broker, f"acks-{acks}", [dict(value=b"%d" % i) for i in range(50)], acks=acks, enable_idempotence=False)
        assert [r.value for r in consume(broker, f"acks-{acks}", 50)] == [b"%d" % i for i in range(50)]


@test
def idempotent_with_many_in_flight():
    broker = Broker().start()
    create(broker, "once")
    offsets = produce(broker, "once", [dict(value=b"%d" % i) for i in range(10_000)], enable_idempotence=True, acks="all", batch_size=2000)
    assert offsets == list(range(10_000))
    assert [r.value for r in consume(broker, "once", 10_000)] == [b"%d" % i for i in range(10_000)]


@test
def large_messages_up_to_what_the_topic_allows():
    broker = Broker().start()
    create(broker, "plain")
    create(broker, "roomy", 1, max_message_bytes=5_000_000)
    large = b"q" * 900_000
    assert produce(broker, "plain", [dict(value=large)] * 2) == [0, 1]
    assert all(r.value == large for r in consume(broker, "plain", 2))
    try:
        produce(broker, "plain", [dict(value=b"q" * 1_500_000)], max_request_size=4_000_000)
        raise AssertionError("more than the topic allows was taken")
    except MessageSizeTooLargeError:
        pass
    assert produce(broker, "roomy", [dict(value=b"q" * 3_000_000)], max_request_size=4_000_000) == [0]
    assert len(consume(broker, "roomy", 1, max_partition_fetch_bytes=5_000_000)[0].value) == 3_000_000


@test
def offsets_by_time_beginning_and_end():
    broker = Broker().start()
    create(broker, "times", 1, message_timestamp_before_max_ms=9223372036854775807, retention_ms=-1)
    base = 1_650_000_000_000
    produce(broker, "times", [dict(value=b"x", timestamp_ms=base + i * 1000) for i in range(50)])
    consumer = KafkaConsumer(bootstrap_servers=broker.address)
    try:
        partition = TopicPartition("times", 0)
        assert consumer.beginning_offsets([partition]) == {partition: 0}
        assert consumer.end_offsets([partition]) == {partition: 50}
        found = consumer.offsets_for_times({partition: base + 20_500})[partition]
        assert (found.offset, found.timestamp) == (21, base + 21_000)
        assert consumer.offsets_for_times({partition: base + 90_000})[partition] is None
        assert consumer.partitions_for_topic("times") == {0} and "times" in consumer.topics()
    finally:
        consumer.close()


@test
def a_topic_is_created_by_producing():
    broker = Broker().start()
    assert produce(broker, "auto", [dict(value=b"x")]) == [0]


@test
def a_group_reads_commits_and_goes_on_where_it_was():
    broker = Broker(settings={"group.initial.rebalance.delay.ms": "0"}).start()
    create(broker, "hello")
    produce(broker, "hello", [dict(value=b"%d" % i) for i in range(10)])

    def read(count):
        consumer = KafkaConsumer("hello", bootstrap_servers=broker.address, group_id="readers", auto_offset_reset="earliest", enable_auto_commit=False,
                                 max_poll_records=1)
        got, end = [], time.monotonic() + 20
        while len(got) < count and time.monotonic() < end:
            got += [m.value for batch in consumer.poll(timeout_ms=500).values() for m in batch]
        consumer.commit()
        consumer.close()
        return got

    assert read(4) == [b"%d" % i for i in range(4)]
    assert read(6) == [b"%d" % i for i in range(4, 10)]
