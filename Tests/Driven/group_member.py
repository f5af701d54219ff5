#!/usr/bin/env python3
"""One member of a consumer group, in a process of its own that can be killed.

    group_member.py CLIENT ADDRESS GROUP TOPIC STRATEGY [--instance ID] [--session MS]

It commits what it got after every poll, and before it gives a partition up. SIGTERM ends it cleanly: it leaves the group. What happens to it is told a line
each, with the wall's nanoseconds before: `assigned P…`, `revoked P…`, `lost P…`, `got P OFFSET VALUE`, `committed P OFFSET`, `left`, `error …`.
"""
import argparse, asyncio, os, signal, sys, time

ended = False


def tell(*words):
    os.write(1, (" ".join(map(str, [time.time_ns(), *words])) + "\n").encode())


class Progress:
    """What was got and is not committed yet: the next offset, by partition."""

    def __init__(self):
        self.next = {}

    def got(self, partition, offset, value):
        tell("got", partition, offset, value.decode())
        self.next[partition] = offset + 1

    def take(self, partitions=None):
        chosen = {p: o for p, o in self.next.items() if partitions is None or p in partitions}
        for partition in chosen:
            del self.next[partition]
        return chosen

    @staticmethod
    def committed(offsets):
        for partition, offset in offsets.items():
            tell("committed", partition, offset)

    def lost(self, offsets, error):
        """They may be committed or not."""
        tell("error", type(error).__name__, str(error).replace("\n", " ")[:200])
        for partition, offset in offsets.items():
            self.next.setdefault(partition, offset)


def confluent(o):
    from confluent_kafka import Consumer, KafkaException, TopicPartition
    progress = Progress()
    config = {
        "bootstrap.servers": o.address, "group.id": o.group, "enable.auto.commit": False, "auto.offset.reset": "earliest", "log_level": 0,
        "session.timeout.ms": o.session, "heartbeat.interval.ms": 200, "max.poll.interval.ms": max(o.session, 10_000),
        "partition.assignment.strategy": o.strategy, "reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 200,
        "fetch.wait.max.ms": 100, "fetch.error.backoff.ms": 50, "topic.metadata.refresh.interval.ms": 1000,
    }
    if o.instance:
        config["group.instance.id"] = o.instance
    consumer = Consumer(config)

    def commit(partitions=None):
        offsets = progress.take(partitions)
        if offsets:
            try:
                consumer.commit(offsets=[TopicPartition(o.topic, p, n) for p, n in offsets.items()], asynchronous=False)
                progress.committed(offsets)
            except KafkaException as error:
                progress.lost(offsets, error)

    def on_assign(_, parts):
        tell("assigned", *(p.partition for p in parts))

    def on_revoke(_, parts):
        commit({p.partition for p in parts})
        progress.take({p.partition for p in parts})
        tell("revoked", *(p.partition for p in parts))

    def on_lost(_, parts):
        progress.take({p.partition for p in parts})
        tell("lost", *(p.partition for p in parts))

    consumer.subscribe([o.topic], on_assign=on_assign, on_revoke=on_revoke, on_lost=on_lost)
    while not ended:
        for message in consumer.consume(100, 0.1):
            if message.error():
                tell("error", message.error().name(), message.error().str().replace("\n", " ")[:200])
            else:
                progress.got(message.partition(), message.offset(), message.value())
        commit()
    commit()
    consumer.close()


def kafka_python(o):
    import logging
    from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition
    from kafka.coordinator.assignors.range import RangePartitionAssignor
    from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
    from kafka.errors import KafkaError
    from kafka.structs import OffsetAndMetadata
    logging.disable(logging.CRITICAL)
    progress = Progress()
    more = {"group_instance_id": o.instance} if o.instance else {}
    consumer = KafkaConsumer(
        bootstrap_servers=o.address, group_id=o.group, enable_auto_commit=False, auto_offset_reset="earliest", session_timeout_ms=o.session,
        heartbeat_interval_ms=200, max_poll_interval_ms=max(o.session, 10_000), fetch_max_wait_ms=100, reconnect_backoff_ms=20,
        reconnect_backoff_max_ms=200, retry_backoff_ms=50, metadata_max_age_ms=1000,
        partition_assignment_strategy=[{"range": RangePartitionAssignor, "roundrobin": RoundRobinPartitionAssignor}[o.strategy]], **more)

    def commit(partitions=None):
        offsets = progress.take(partitions)
        if offsets:
            try:
                consumer.commit({TopicPartition(o.topic, p): OffsetAndMetadata(n, "", -1) for p, n in offsets.items()})
                progress.committed(offsets)
            except KafkaError as error:
                progress.lost(offsets, error)

    class Listener(ConsumerRebalanceListener):
        def on_partitions_assigned(self, parts):
            tell("assigned", *(p.partition for p in parts))

        def on_partitions_revoked(self, parts):
            commit({p.partition for p in parts})
            progress.take()
            tell("revoked", *(p.partition for p in parts))

        def on_partitions_lost(self, parts):
            progress.take()
            tell("lost", *(p.partition for p in parts))

    consumer.subscribe([o.topic], listener=Listener())
    while not ended:
        try:
            for records in consumer.poll(timeout_ms=100).values():
                for record in records:
                    progress.got(record.partition, record.offset, record.value)
        except KafkaError as error:
            tell("error", type(error).__name__, str(error)[:200])
        commit()
    commit()
    consumer.close()


def aio(o):
    import logging
    from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
    from aiokafka.coordinator.assignors.range import RangePartitionAssignor
    from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
    from aiokafka.errors import KafkaError
    logging.disable(logging.CRITICAL)

    async def consume():
        progress = Progress()
        more = {"group_instance_id": o.instance} if o.instance else {}
        consumer = AIOKafkaConsumer(
            bootstrap_servers=o.address, group_id=o.group, enable_auto_commit=False, auto_offset_reset="earliest", session_timeout_ms=o.session,
            heartbeat_interval_ms=200, max_poll_interval_ms=max(o.session, 10_000), rebalance_timeout_ms=max(o.session, 5_000),
            fetch_max_wait_ms=100, retry_backoff_ms=50, metadata_max_age_ms=1000,
            partition_assignment_strategy=({"range": RangePartitionAssignor, "roundrobin": RoundRobinPartitionAssignor}[o.strategy],), **more)

        async def commit(partitions=None):
            offsets = progress.take(partitions)
            if offsets:
                try:
                    await consumer.commit({TopicPartition(o.topic, p): n for p, n in offsets.items()})
                    progress.committed(offsets)
                except KafkaError as error:
                    progress.lost(offsets, error)

        class Listener(ConsumerRebalanceListener):
            async def on_partitions_assigned(self, parts):
                tell("assigned", *(p.partition for p in parts))

            async def on_partitions_revoked(self, parts):
                await commit({p.partition for p in parts})
                progress.take()
                tell("revoked", *(p.partition for p in parts))

        consumer.subscribe([o.topic], listener=Listener())
        await consumer.start()
        while not ended:
            try:
                for records in (await consumer.getmany(timeout_ms=100)).values():
                    for record in records:
                        progress.got(record.partition, record.offset, record.value)
            except KafkaError as error:
                tell("error", type(error).__name__, str(error)[:200])
            await commit()
        await commit()
        await consumer.stop()

    asyncio.run(consume())


def main():
    parser = argparse.ArgumentParser()
    for name in ("client", "address", "group", "topic", "strategy"):
        parser.add_argument(name)
    parser.add_argument("--instance")
    parser.add_argument("--session", type=int, default=2_000)
    o = parser.parse_args()

    def end(*_):
        global ended
        ended = True

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    {"confluent": confluent, "kafka_python": kafka_python, "aio": aio}[o.client](o)
    tell("left")


if __name__ == "__main__":
    sys.exit(main())
