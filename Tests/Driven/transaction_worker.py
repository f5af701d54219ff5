#!/usr/bin/env python3
"""Consumes, transforms and produces, each batch in a transaction, in a process of its own that can be killed.

    transaction_worker.py CLIENT ADDRESS GROUP INPUT OUTPUT TRANSACTIONAL-ID [--timeout MS]

For each record of INPUT one of the same key goes to the partition of OUTPUT that it came from, its value with an `!` behind it;
where it came from is committed in the same transaction. SIGTERM ends it cleanly. It tells a line for what happens: `ready`,
`committed N`, `aborted …`, `again …`.
"""
import argparse, asyncio, os, signal, sys, time

ended = False


def tell(*words):
    os.write(1, (" ".join(map(str, words)).replace("\n", " ") + "\n").encode())


def end(*_):
    global ended
    ended = True


def confluent(o):
    from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
    quick = {"reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 200, "retry.backoff.ms": 20, "log_level": 0}
    consumer = Consumer({
        "bootstrap.servers": o.address, "group.id": o.group, "enable.auto.commit": False, "auto.offset.reset": "earliest",
        "isolation.level": "read_committed", "session.timeout.ms": 6000, "heartbeat.interval.ms": 200, "fetch.wait.max.ms": 100, **quick})
    producer = Producer({
        "bootstrap.servers": o.address, "transactional.id": o.id, "transaction.timeout.ms": o.timeout, "linger.ms": 1, **quick})

    def patiently(call):
        while True:
            try:
                return call()
            except KafkaException as error:
                if not error.args[0].retriable():
                    raise

    patiently(lambda: producer.init_transactions(20))
    consumer.subscribe([o.input])
    tell("ready")
    while not ended:
        messages = [m for m in consumer.consume(50, 0.1) if not m.error()]
        if not messages:
            continue
        try:
            producer.begin_transaction()
            for m in messages:
                producer.produce(o.output, m.value() + b"!", m.key(), partition=m.partition())
            after = {}
            for m in messages:
                after[m.partition()] = m.offset() + 1
            offsets = [TopicPartition(o.input, p, at) for p, at in after.items()]
            patiently(lambda: producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata(), 20))
            patiently(lambda: producer.commit_transaction(20))
            tell("committed", len(messages))
        except KafkaException as error:
            tell("aborted", error)
            if error.args[0].fatal():
                return
            if error.args[0].txn_requires_abort():
                patiently(lambda: producer.abort_transaction(20))
            for p, at in {m.partition(): m.offset() for m in reversed(messages)}.items():
                try:
                    consumer.seek(TopicPartition(o.input, p, at))
                except KafkaException:
                    pass  # it was taken away, and another has it
    consumer.close()


def aiokafka(o):
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
    from aiokafka.errors import KafkaError

    async def run():
        consumer = AIOKafkaConsumer(
            o.input, bootstrap_servers=o.address, group_id=o.group, enable_auto_commit=False, auto_offset_reset="earliest",
            isolation_level="read_committed", session_timeout_ms=6000, heartbeat_interval_ms=200, retry_backoff_ms=20)
        producer = AIOKafkaProducer(
            bootstrap_servers=o.address, transactional_id=o.id, transaction_timeout_ms=o.timeout, retry_backoff_ms=20)
        await consumer.start()
        await producer.start()
        tell("ready")
        while not ended:
            batches = await consumer.getmany(timeout_ms=100, max_records=50)
            if not batches:
                continue
            try:
                async with producer.transaction():
                    sent = [
                        await producer.send(o.output, key=m.key, value=m.value + b"!", partition=m.partition)
                        for messages in batches.values() for m in messages]
                    await asyncio.gather(*sent)
                    await producer.send_offsets_to_transaction({p: m[-1].offset + 1 for p, m in batches.items()}, o.group)
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
    o = parser.parse_args()
    signal.signal(signal.SIGTERM, end)
    {"confluent": confluent, "aiokafka": aiokafka}[o.client](o)


if __name__ == "__main__":
    main()
