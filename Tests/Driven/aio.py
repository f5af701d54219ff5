"""aiokafka: asyncio, and a consumer that fetches ahead."""
import asyncio, logging, time
from driving import Broker, test, wait_until
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import MessageSizeTooLargeError

logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


def driven(function):
    """Registers a coroutine as a test, with a limit of time."""
    def run():
        asyncio.run(asyncio.wait_for(function(), 60))
    run.__name__, run.__module__ = function.__name__, function.__module__
    return test(run)


async def create(broker, topic, partitions=1, **configs):
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.address)
    await admin.start()
    try:
        got = await admin.create_topics([NewTopic(topic, partitions, 1, topic_configs={k.replace("_", "."): str(v) for k, v in configs.items()})])
        assert all(error[1] == 0 for error in got.topic_errors), got
    finally:
        await admin.close()


async def produce(broker, topic, messages, **config):
    producer = AIOKafkaProducer(bootstrap_servers=broker.address, **config)
    await producer.start()
    try:
        sent = [await producer.send(topic, partition=0, **message) for message in messages]
        got = [await future for future in sent]
        return [metadata and metadata.offset for metadata in got]
    finally:
        await producer.stop()


async def consume(broker, topic, count, **config):
    consumer = AIOKafkaConsumer(bootstrap_servers=broker.address, **config)
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, 0)])
        await consumer.seek_to_beginning()
        return [await asyncio.wait_for(consumer.getone(), 20) for _ in range(count)]
    finally:
        await consumer.stop()


@driven
async def topics_are_created_listed_and_deleted():
    broker = Broker().start()
    await create(broker, "made", 2)
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.address)
    await admin.start()
    try:
        assert "made" in await admin.list_topics()
        assert len((await admin.describe_topics(["made"]))[0]["partitions"]) == 2
        await admin.delete_topics(["made"])
        assert "made" not in await admin.list_topics()
    finally:
        await admin.close()


@driven
async def every_codec_with_keys_headers_and_nulls():
    broker = Broker().start()
    shapes = [dict(key=b"k", value=b"v"), dict(key=None, value=b"v"), dict(key=b"k", value=None), dict(key=b"", value=b""),
              dict(key=b"h", value=b"x" * 2000, headers=[("a", b"1"), ("a", b""), ("b", b"\xff")])]
    for codec in (None, "gzip", "snappy", "lz4", "zstd"):
        topic = f"codec-{codec}"
        await create(broker, topic)
        assert await produce(broker, topic, shapes * 40, compression_type=codec, linger_ms=20) == list(range(200))
        for i, record in enumerate(await consume(broker, topic, 200)):
            sent = shapes[i % 5]
            assert (record.offset, record.key, record.value) == (i, sent["key"], sent["value"]), (codec, i)
            assert list(record.headers) == sent.get("headers", []), (codec, i)


@driven
async def every_acks():
    broker = Broker().start()
    for acks in (0, 1, "all"):
        await create(broker, f"acks-{acks}")
        await produce(broker, f"acks-{acks}", [dict(value=b"%d" % i) for i in range(50)], acks=acks)
        assert [r.value for r in await consume(broker, f"acks-{acks}", 50)] == [b"%d" % i for i in range(50)]


@driven
async def idempotent_with_many_in_flight():
    broker = Broker().start()
    await create(broker, "once")
    offsets = await produce(broker, "once", [dict(value=b"%d" % i) for i in range(10_000)], enable_idempotence=True, max_batch_size=1000)
    assert offsets == list(range(10_000))
    assert [r.value for r in await consume(broker, "once", 10_000)] == [b"%d" % i for i in range(10_000)]


@driven
async def large_messages_up_to_what_the_topic_allows():
    broker = Broker().start()
    await create(broker, "plain")
    await create(broker, "roomy", 1, max_message_bytes=5_000_000)
    large = b"q" * 900_000
    assert await produce(broker, "plain", [dict(value=large)] * 3) == [0, 1, 2]
    assert all(r.value == large for r in await consume(broker, "plain", 3))
    try:
        await produce(broker, "plain", [dict(value=b"q" * 1_500_000)], max_request_size=4_000_000)
        raise AssertionError("more than the topic allows was taken")
    except MessageSizeTooLargeError:
        pass
    assert await produce(broker, "roomy", [dict(value=b"q" * 3_000_000)], max_request_size=4_000_000) == [0]
    assert len((await consume(broker, "roomy", 1, max_partition_fetch_bytes=5_000_000))[0].value) == 3_000_000


@driven
async def offsets_by_time_beginning_and_end():
    broker = Broker().start()
    await create(broker, "times", 1, message_timestamp_before_max_ms=9223372036854775807, retention_ms=-1)
    base = 1_650_000_000_000
    await produce(broker, "times", [dict(value=b"x", timestamp_ms=base + i * 1000) for i in range(50)])
    consumer = AIOKafkaConsumer(bootstrap_servers=broker.address)
    await consumer.start()
    try:
        partition = TopicPartition("times", 0)
        assert await consumer.beginning_offsets([partition]) == {partition: 0}
        assert await consumer.end_offsets([partition]) == {partition: 50}
        found = (await consumer.offsets_for_times({partition: base + 20_500}))[partition]
        assert (found.offset, found.timestamp) == (21, base + 21_000)
    finally:
        await consumer.stop()


@driven
async def a_hundred_consumers_wait_and_each_sees_what_arrives():
    broker = Broker().start()
    await create(broker, "live")
    consumers = [AIOKafkaConsumer(bootstrap_servers=broker.address) for _ in range(100)]
    await asyncio.gather(*(c.start() for c in consumers))
    try:
        for consumer in consumers:
            consumer.assign([TopicPartition("live", 0)])
            consumer.seek(TopicPartition("live", 0), 0)
        waiting = [asyncio.ensure_future(c.getone()) for c in consumers]
        await asyncio.sleep(0.5)
        assert await produce(broker, "live", [dict(value=b"news")]) == [0]
        got = await asyncio.wait_for(asyncio.gather(*waiting), 10)
        assert {r.value for r in got} == {b"news"}
    finally:
        await asyncio.gather(*(c.stop() for c in consumers))


@driven
async def a_topic_is_created_by_producing():
    broker = Broker().start()
    assert await produce(broker, "auto", [dict(value=b"x")]) == [0]


@driven
async def a_group_reads_commits_and_goes_on_where_it_was():
    broker = Broker(settings={"group.initial.rebalance.delay.ms": "0"}).start()
    await create(broker, "hello")
    await produce(broker, "hello", [dict(value=b"%d" % i) for i in range(10)])

    async def read(count):
        consumer = AIOKafkaConsumer("hello", bootstrap_servers=broker.address, group_id="readers", auto_offset_reset="earliest",
                                    enable_auto_commit=False)
        await consumer.start()
        try:
            got = [(await asyncio.wait_for(consumer.getone(), 20)).value for _ in range(count)]
            await consumer.commit({TopicPartition("hello", 0): int(got[-1]) + 1})
            return got
        finally:
            await consumer.stop()

    assert await read(4) == [b"%d" % i for i in range(4)]
    assert await read(6) == [b"%d" % i for i in range(4, 10)]
