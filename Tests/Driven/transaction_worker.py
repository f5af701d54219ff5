#!/usr/bin/env python3
"""Consumes, transforms and produces, each batch in a transaction, in a process of its own that can be killed.

    transaction_worker.py CLIENT ADDRESS GROUP INPUT OUTPUT TRANSACTIONAL-ID [--timeout MS] [--most N] [--instance ID] [--stops NAME,…]

For each record of INPUT one of the same key goes to the partition of OUTPUT that it came from, its value with an `!` behind it;
where it came from is committed in the same transaction. SIGTERM ends it cleanly. It tells a line for what happens: `ready`,
`committed N`, `aborted …`, `again …`.

With `--stops` it stands still between two calls of its client, once at each of the places named, in their order and no two in
one transaction: it tells `at NAME` and goes on when a line comes in. The places, each behind the call it is called by:
initialised, begun, produced, flushed, offsets-sent, committed; and unaborted and aborted, before and behind the abort of
a transaction that has all but its end.
"""
import argparse, asyncio, os, signal, sys

ended = False


def tell(*words):
    os.write(1, (" ".join(map(str, words)).replace("\n", " ") + "\n").encode())


def end(*_):
    global ended
    ended = True


class Stops:
    def __init__(self, names):
        self.left, self.has_stood = names, False

    def begin(self):
        self.has_stood = False

    @property
    def want_abort(self):
        return not self.has_stood and self.left[:1] in (["unaborted"], ["aborted"])

    def __call__(self, name):
        if not self.has_stood and self.left[:1] == [name]:
            self.left.pop(0)
            self.has_stood = True
            tell("at", name)
            sys.stdin.readline()


def confluent(o, stop):
    from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
    # librdkafka that begins anew with its first address, because its only broker is gone, may wait for the old one for ever
    quick = {"reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 200, "retry.backoff.ms": 20, "log_level": 0,
             "metadata.recovery.strategy": "none"}
    more = {"group.instance.id": o.instance} if o.instance else {}
    consumer = Consumer({
        "bootstrap.servers": o.address, "group.id": o.group, "enable.auto.commit": False, "auto.offset.reset": "earliest",
        "isolation.level": "read_committed", "session.timeout.ms": 6000, "heartbeat.interval.ms": 200, "fetch.wait.max.ms": 100,
        **quick, **more})
    producer = Producer({
        "bootstrap.servers": o.address, "transactional.id": o.id, "transaction.timeout.ms": o.timeout, "linger.ms": 1, **quick})

    def patiently(call):
        while True:
            try:
                return call()
            except KafkaException as error:
                if not error.args[0].retriable():
                    raise

    def go_back(messages):
        for p, at in {m.partition(): m.offset() for m in reversed(messages)}.items():
            try:
                consumer.seek(TopicPartition(o.input, p, at))
            except KafkaException:
                pass  # it was taken away, and another has it

    patiently(lambda: producer.init_transactions(20))
    stop("initialised")
    consumer.subscribe([o.input])
    tell("ready")
    while not ended:
        messages = [m for m in consumer.consume(o.most, 0.1) if not m.error()]
        if not messages:
            continue
        stop.begin()
        try:
            producer.begin_transaction()
            stop("begun")
            for m in messages:
                producer.produce(o.output, m.value() + b"!", m.key(), partition=m.partition())
            stop("produced")
            if o.stops:
                producer.flush(20)
            stop("flushed")
            after = {m.partition(): m.offset() + 1 for m in messages}
            offsets = [TopicPartition(o.input, p, at) for p, at in after.items()]
            patiently(lambda: producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata(), 20))
            stop("offsets-sent")
            if stop.want_abort:
                stop("unaborted")
                patiently(lambda: producer.abort_transaction(20))
                stop("aborted")
                tell("aborted as wanted")
                go_back(messages)
                continue
            patiently(lambda: producer.commit_transaction(20))
            stop("committed")
            tell("committed", len(messages))
        except KafkaException as error:
            tell("aborted", error)
            if error.args[0].fatal():
                return
            if error.args[0].txn_requires_abort():
                patiently(lambda: producer.abort_transaction(20))
            go_back(messages)
    consumer.close()


def kafka_python(o, stop):
    import logging
    from kafka import KafkaConsumer, KafkaProducer, TopicPartition
    from kafka.errors import KafkaError
    from kafka.structs import OffsetAndMetadata
    logging.disable(logging.CRITICAL)
    quick = {"reconnect_backoff_ms": 20, "reconnect_backoff_max_ms": 200, "retry_backoff_ms": 20}
    more = {"group_instance_id": o.instance} if o.instance else {}
    consumer = KafkaConsumer(
        bootstrap_servers=o.address, group_id=o.group, enable_auto_commit=False, auto_offset_reset="earliest",
        isolation_level="read_committed", session_timeout_ms=6000, heartbeat_interval_ms=200, fetch_max_wait_ms=100,
        max_poll_records=o.most, **quick, **more)
    producer = KafkaProducer(
        bootstrap_servers=o.address, transactional_id=o.id, transaction_timeout_ms=o.timeout, linger_ms=1, **quick)
    producer.init_transactions()
    stop("initialised")
    consumer.subscribe([o.input])
    tell("ready")
    while not ended:
        batches = consumer.poll(timeout_ms=100)
        if not batches:
            continue
        stop.begin()
        try:
            producer.begin_transaction()
            stop("begun")
            sent = [
                producer.send(o.output, key=m.key, value=m.value + b"!", partition=m.partition)
                for messages in batches.values() for m in messages]
            stop("produced")
            producer.flush(20)
            stop("flushed")
            offsets = {p: OffsetAndMetadata(m[-1].offset + 1, "", -1) for p, m in batches.items()}
            producer.send_offsets_to_transaction(offsets, consumer.group_metadata())
            stop("offsets-sent")
            if stop.want_abort:
                stop("unaborted")
                producer.abort_transaction()
                stop("aborted")
                tell("aborted as wanted")
                for partition, messages in batches.items():
                    consumer.seek(partition, messages[0].offset)
                continue
            producer.commit_transaction()
            stop("committed")
            tell("committed", len(sent))
        except (KafkaError, AssertionError) as error:
            # whatever it was: who begins anew reads where it stands
            return tell("again", type(error).__name__, error)
    producer.close(5)
    consumer.close()


def aiokafka(o, stop):
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
    from aiokafka.errors import KafkaError
    more = {"group_instance_id": o.instance} if o.instance else {}

    async def stand(name):
        # what the client does by itself goes on meanwhile
        await asyncio.to_thread(stop, name)

    async def run():
        consumer = AIOKafkaConsumer(
            o.input, bootstrap_servers=o.address, group_id=o.group, enable_auto_commit=False, auto_offset_reset="earliest",
            isolation_level="read_committed", session_timeout_ms=6000, heartbeat_interval_ms=200, retry_backoff_ms=20, **more)
        producer = AIOKafkaProducer(
            bootstrap_servers=o.address, transactional_id=o.id, transaction_timeout_ms=o.timeout, retry_backoff_ms=20)
        await producer.start()
        await stand("initialised")
        await consumer.start()
        tell("ready")
        while not ended:
            batches = await consumer.getmany(timeout_ms=100, max_records=o.most)
            if not batches:
                continue
            stop.begin()
            try:
                await producer.begin_transaction()
                await stand("begun")
                sent = [
                    await producer.send(o.output, key=m.key, value=m.value + b"!", partition=m.partition)
                    for messages in batches.values() for m in messages]
                await stand("produced")
                await asyncio.gather(*sent)
                await stand("flushed")
                await producer.send_offsets_to_transaction({p: m[-1].offset + 1 for p, m in batches.items()}, o.group)
                await stand("offsets-sent")
                if stop.want_abort:
                    await stand("unaborted")
                    await producer.abort_transaction()
                    await stand("aborted")
                    tell("aborted as wanted")
                    for partition, messages in batches.items():
                        consumer.seek(partition, messages[0].offset)
                    continue
                await producer.commit_transaction()
                await stand("committed")
                tell("committed", len(sent))
            except KafkaError as error:
                # whatever it was: who begins anew reads where it stands
                return tell("again", type(error).__name__, error)
        await producer.stop()
        await consumer.stop()

    asyncio.run(run())


def main():
    parser = argparse.ArgumentParser()
    for name in ("client", "address", "group", "input", "output", "id"):
        parser.add_argument(name)
    parser.add_argument("--timeout", type=int, default=60_000)
    parser.add_argument("--most", type=int, default=50, help="records in a transaction")
    parser.add_argument("--instance", help="which member of the group it always is")
    parser.add_argument("--stops", type=lambda names: [n for n in names.split(",") if n], default=[])
    o = parser.parse_args()
    signal.signal(signal.SIGTERM, end)
    {"confluent": confluent, "kafka_python": kafka_python, "aiokafka": aiokafka}[o.client](o, Stops(list(o.stops)))
    # threads of a client that gave up may wait for ever
    os._exit(0)


if __name__ == "__main__":
    main()
