"""confluent-kafka (librdkafka), the client of most languages."""
import threading, time
from driving import Broker, test, wait_until
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, OffsetSpec

QUIET = {"log_level": 0}


def admin(broker):
    """The broker's one admin client: its futures end when it does."""
    if not hasattr(broker, "admin"):
        broker.admin = AdminClient({"bootstrap.servers": broker.address, **QUIET})
    return broker.admin


def create(broker, topic, partitions=1, **config):
    admin(broker).create_topics([NewTopic(topic, partitions, 1, config={k.replace("_", "."): str(v) for k, v in config.items()})])[topic].result(10)


def produce(broker, topic, messages, partition=0, **config):
    """Sends keyword arguments of Producer.produce; returns [(error, offset)] in the order they were sent."""
    told = {}
    producer = Producer({"bootstrap.servers": broker.address, "message.timeout.ms": 20_000, **QUIET, **{k.replace("_", "."): v for k, v in config.items()}})
    for i, message in enumerate(messages):
        def on_delivery(error, delivered, i=i):
            told[i] = (error, delivered.offset())
        while True:
            try:
                producer.produce(topic, partition=partition, on_delivery=on_delivery, **message)
                break
            except BufferError:
                producer.poll(0.05)
        producer.poll(0)
    assert producer.flush(60) == 0, "not everything was delivered"
    return [told[i] for i in range(len(messages))]


def records(messages):
    """The messages; a word of an error is none."""
    for message in messages:
        assert message.error() is None, message.error()
        yield message


def consume(broker, topic, count, partition=0, start=OFFSET_BEGINNING, seconds=30, **config):
    consumer = Consumer({"bootstrap.servers": broker.address, "group.id": "unused", "enable.auto.commit": False,
                         "enable.partition.eof": False, **QUIET, **{k.replace("_", "."): v for k, v in config.items()}})
    consumer.assign([TopicPartition(topic, partition, start)])
    got, end = [], time.monotonic() + seconds
    try:
        while len(got) < count and time.monotonic() < end:
            got += records(consumer.consume(count - len(got), 0.5))
    finally:
        consumer.close()
    assert len(got) == count, f"{len(got)} of {count} messages after {seconds} s"
    return got


@test
def topics_are_created_listed_and_deleted():
    broker = Broker().start()
    create(broker, "made", 5)
    topics = admin(broker).list_topics(timeout=10).topics
    assert len(topics["made"].partitions) == 5
    try:
        create(broker, "made", 5)
        raise AssertionError("a topic was created twice")
    except KafkaException as error:
        assert error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS, error
    try:
        create(broker, "odd", 1, no_such_setting=1)
        raise AssertionError("an unknown setting was taken")
    except KafkaException as error:
        assert error.args[0].code() == KafkaError.INVALID_CONFIG, error
    admin(broker).delete_topics(["made"])["made"].result(10)
    wait_until(lambda: "made" not in admin(broker).list_topics(timeout=10).topics, 5, what="the end of the topic")
    wait_until(lambda: not list((broker.folder / "log").glob("made-?")), 5, what="the end of its folders")


@test
def describes_topics_and_cluster():
    broker = Broker().start()
    create(broker, "seen", 2)
    from confluent_kafka import TopicCollection
    topic = admin(broker).describe_topics(TopicCollection(["seen"]))["seen"].result(10)
    assert [p.id for p in topic.partitions] == [0, 1] and topic.partitions[0].leader.port == broker.port
    cluster = admin(broker).describe_cluster().result(10)
    assert cluster.controller.id == 1 and len(cluster.nodes) == 1 and cluster.cluster_id


@test
def every_codec_with_keys_headers_and_nulls():
    broker = Broker().start()
    shapes = [
        dict(key=b"k", value=b"v"), dict(key=None, value=b"v"), dict(key=b"k", value=None), dict(key=None, value=None),
        dict(key=b"", value=b""), dict(key=b"\x00\xff", value=bytes(range(256)), headers=[("h", b"1"), ("h", b"2"), ("n", None), ("e", b"")]),
        dict(key=b"z", value=b"repeat " * 5000, timestamp=1_600_000_000_123),
    ]
    for codec in ("none", "gzip", "snappy", "lz4", "zstd"):
        create(broker, f"codec-{codec}", 1, **{"message_timestamp_before_max_ms": 9223372036854775807, "retention_ms": -1})
        told = produce(broker, f"codec-{codec}", shapes * 50, compression_type=codec, linger_ms=50)
        assert [o for _, o in told] == list(range(len(shapes) * 50)), codec
        got = consume(broker, f"codec-{codec}", len(shapes) * 50, check_crcs=True)
        for i, message in enumerate(got):
            sent = shapes[i % len(shapes)]
            assert message.offset() == i
            assert (message.key(), message.value()) == (sent["key"], sent["value"]), (codec, i)
            assert (message.headers() or []) == sent.get("headers", []), (codec, i, message.headers())
            if "timestamp" in sent:
                assert message.timestamp()[1] == sent["timestamp"]


@test
def every_acks():
    broker = Broker().start()
    for acks in (0, 1, "all"):
        create(broker, f"acks-{acks}")
        told = produce(broker, f"acks-{acks}", [dict(value=b"%d" % i) for i in range(100)], acks=acks)
        assert all(error is None for error, _ in told)
        assert [m.value() for m in consume(broker, f"acks-{acks}", 100)] == [b"%d" % i for i in range(100)]


@test
def idempotent_with_many_in_flight():
    broker = Broker().start()
    create(broker, "once")
    told = produce(broker, "once", [dict(value=b"%d" % i) for i in range(20_000)], enable_idempotence=True, batch_num_messages=50, linger_ms=0)
    assert [o for _, o in told] == list(range(20_000)), "offsets follow the order of sending"
    assert [m.value() for m in consume(broker, "once", 20_000)] == [b"%d" % i for i in range(20_000)]


@test
def many_partitions_keep_their_own_order():
    broker = Broker().start()
    create(broker, "wide", 16)
    told, producer = {}, Producer({"bootstrap.servers": broker.address, "linger.ms": 1, "compression.type": "lz4"})
    for i in range(16_000):
        producer.produce("wide", partition=i % 16, value=b"%d" % i, on_delivery=lambda e, m: told.setdefault((m.partition(), m.offset()), e))
        producer.poll(0)
    assert producer.flush(60) == 0
    assert len(told) == 16_000 and not any(told.values())
    for partition in range(16):
        values = [int(m.value()) for m in consume(broker, "wide", 1000, partition)]
        assert values == list(range(partition, 16_000, 16))


@test
def large_messages_up_to_what_the_topic_allows():
    broker = Broker().start()
    create(broker, "plain")
    create(broker, "roomy", 1, max_message_bytes=12_000_000)
    large, huge = b"\x5a" * 900_000, bytes(i * 7 % 251 for i in range(10_000)) * 1000
    assert produce(broker, "plain", [dict(value=large)] * 5)[-1] == (None, 4)
    assert all(m.value() == large for m in consume(broker, "plain", 5))
    error, _ = produce(broker, "plain", [dict(value=huge)], message_max_bytes=20_000_000)[0]
    assert error and error.code() == KafkaError.MSG_SIZE_TOO_LARGE, error
    assert produce(broker, "roomy", [dict(value=huge)] * 2, message_max_bytes=20_000_000)[-1] == (None, 1)
    assert all(m.value() == huge for m in consume(broker, "roomy", 2, fetch_message_max_bytes=12_000_000))


@test
def offsets_by_time_and_watermarks():
    broker = Broker().start()
    create(broker, "times", 1, message_timestamp_before_max_ms=9223372036854775807, retention_ms=-1)
    base = 1_650_000_000_000
    produce(broker, "times", [dict(value=b"x", timestamp=base + i * 1000) for i in range(100)], batch_num_messages=7)
    consumer = Consumer({"bootstrap.servers": broker.address, "group.id": "unused", "enable.auto.commit": False, **QUIET})
    try:
        assert consumer.get_watermark_offsets(TopicPartition("times", 0), timeout=10) == (0, 100)
        for asked, expected in ((base, 0), (base + 1, 1), (base + 50_000, 50), (base + 98_500, 99)):
            found = consumer.offsets_for_times([TopicPartition("times", 0, asked)], timeout=10)[0]
            assert found.offset == expected, (asked, found)
        late = consumer.offsets_for_times([TopicPartition("times", 0, base + 200_000)], timeout=10)[0]
        assert late.offset == -1, late
    finally:
        consumer.close()
    partition = TopicPartition("times", 0)
    newest = admin(broker).list_offsets({partition: OffsetSpec.max_timestamp()})[partition].result(10)
    assert (newest.offset, newest.timestamp) == (99, base + 99_000), newest


@test
def deleted_records_move_the_start():
    broker = Broker().start()
    create(broker, "cut")
    produce(broker, "cut", [dict(value=b"%d" % i) for i in range(100)])
    done = admin(broker).delete_records([TopicPartition("cut", 0, 40)])
    assert [f.result(10).low_watermark for f in done.values()] == [40]
    assert [m.offset() for m in consume(broker, "cut", 60)] == list(range(40, 100))


@test
def an_offset_out_of_range_is_reset_as_the_consumer_says():
    broker = Broker().start()
    create(broker, "range")
    produce(broker, "range", [dict(value=b"%d" % i) for i in range(10)])
    got = consume(broker, "range", 10, start=5000, auto_offset_reset="earliest")
    assert got[0].offset() == 0


@test
def a_topic_is_created_by_producing_where_that_is_allowed():
    broker = Broker(settings={"num.partitions": 3}).start()
    assert produce(broker, "auto", [dict(value=b"x")], partition=2) == [(None, 0)]
    assert len(admin(broker).list_topics(timeout=10).topics["auto"].partitions) == 3
    strict = Broker(settings={"auto.create.topics.enable": "false"}).start()
    told = produce(strict, "auto", [dict(value=b"x")], message_timeout_ms=3000)
    assert told[0][0] is not None
    assert "auto" not in admin(strict).list_topics(timeout=10).topics


@test
def an_idle_consumer_sees_a_record_at_once():
    broker = Broker().start()
    create(broker, "live")
    consumer = Consumer({"bootstrap.servers": broker.address, "group.id": "unused", "enable.auto.commit": False, **QUIET})
    consumer.assign([TopicPartition("live", 0, OFFSET_BEGINNING)])
    assert not list(records(consumer.consume(1, 0.5)))
    producer = Producer({"bootstrap.servers": broker.address, "linger.ms": 0})
    producer.produce("live", value=b"warm")
    producer.flush(10)
    assert next(records(consumer.consume(1, 5))).value() == b"warm"
    waits = []
    try:
        for i in range(20):
            started = time.monotonic()
            producer.produce("live", value=b"%d" % i)
            producer.flush(10)
            assert consumer.poll(5).value() == b"%d" % i
            waits.append(time.monotonic() - started)
    finally:
        consumer.close()
    assert sorted(waits)[10] < 0.1, f"median {sorted(waits)[10] * 1000:.0f} ms from send to receipt"
