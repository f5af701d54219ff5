/// The settings that this release acts upon, in the order of their names, each with what it does.
///
/// The one place that says so: every other setting is accepted, warned of, and has no effect. A setting enters this
/// list together with the test that sees its effect: a table beside the tests names it.
package enum ActingConfigs {
    package static let documented: [(name: String, documentation: String)] = broker + topic + group + ours

    /// Those that act and whose effect no test can see, and why not.
    package static let unseen: [(name: String, reason: String)] = [
        (
            "log.cleaner.io.buffer.size",
            "it is the size of the pieces in which the cleaner reads and writes, and what comes of them is the same"
        ),
        (
            "log.flush.start.offset.checkpoint.interval.ms",
            "a start that DeleteRecords moved is written before it is answered, so that the interval finds nothing new"
        )
    ]

    private static let broker: [(name: String, documentation: String)] = [
        (
            "add.partitions.to.txn.retry.backoff.max.ms",
            "How long the first partition of a transaction waits for the end of the one before, before the client is told to."
        ),
        ("advertised.listeners", "The addresses that clients are told of; without it, those of `listeners`."),
        ("auto.create.topics.enable", "Whether asking for the metadata of a topic may create it."),
        ("broker.id", "The number of this broker in its cluster; -1 takes that of the data directory, or else 1."),
        ("broker.rack", "Where this broker stands, told to clients and used to spread replicas."),
        ("compression.gzip.level", "The level at which batches are compressed anew with gzip; -1 is zlib's own."),
        ("compression.lz4.level", "The level at which batches are compressed anew with lz4."),
        ("compression.type", "How batches are stored: as the producer sent them, or with the codec named here."),
        ("compression.zstd.level", "The level at which batches are compressed anew with zstd."),
        ("connections.max.idle.ms", "A connection without requests for so long is closed."),
        ("controller.listener.names", "Listeners of these names are KRaft's: a warning says that they stay closed."),
        ("controller.quota.window.num", "The windows by which changes of partitions are held to their quota."),
        ("controller.quota.window.size.seconds", "How long each of these windows is."),
        ("default.replication.factor", "The replicas of a topic that is created without saying how many."),
        ("delete.topic.enable", "Whether topics can be deleted."),
        ("fetch.max.bytes", "The most that one answer to Fetch carries, beyond its first batch."),
        (
            "group.consumer.assignment.interval.ms",
            "How long after an assignment the coordinator of a consumer group makes the next one, at the earliest."
        ),
        ("group.consumer.assignors", "The assignors that consumer groups may use; the first where members do not say."),
        ("group.consumer.heartbeat.interval.ms", "How often members of consumer groups are told to send heartbeats."),
        ("group.consumer.max.assignment.interval.ms", "The most that a group's `consumer.assignment.interval.ms` may be."),
        ("group.consumer.max.heartbeat.interval.ms", "The most that a group's `consumer.heartbeat.interval.ms` may be."),
        ("group.consumer.max.session.timeout.ms", "The most that a group's `consumer.session.timeout.ms` may be."),
        ("group.consumer.max.size", "The most members that a consumer group may have."),
        (
            "group.consumer.migration.policy",
            "Which way groups with members may go between the classic and the consumer protocol."
        ),
        ("group.consumer.min.assignment.interval.ms", "The least that a group's `consumer.assignment.interval.ms` may be."),
        ("group.consumer.min.heartbeat.interval.ms", "The least that a group's `consumer.heartbeat.interval.ms` may be."),
        ("group.consumer.min.session.timeout.ms", "The least that a group's `consumer.session.timeout.ms` may be."),
        ("group.consumer.session.timeout.ms", "After how long a silence a member of a consumer group is gone."),
        (
            "group.coordinator.rebalance.protocols",
            "Whether `consumer` is among the protocols that groups may use; `classic` always is."
        ),
        ("group.initial.rebalance.delay.ms", "How long a group waits for more members before its first generation."),
        ("group.max.session.timeout.ms", "The longest session that a member of a group may ask for."),
        ("group.max.size", "The most members that a group may have."),
        ("group.min.session.timeout.ms", "The shortest session that a member of a group may ask for."),
        ("listener.security.protocol.map", "Which security protocol each listener speaks, by its name."),
        ("listeners", "Where to listen, as `NAME://host:port`; no host is every interface, port 0 any free one."),
        ("log.cleaner.backoff.ms", "How long the cleaner waits where there is nothing to compact."),
        ("log.cleaner.dedupe.buffer.size", "The memory of all cleaner threads for keys: 24 bytes a key."),
        ("log.cleaner.delete.retention.ms", "How long tombstones and ends of transactions stay once they have been compacted."),
        ("log.cleaner.enable", "Whether anything is compacted."),
        ("log.cleaner.io.buffer.load.factor", "How full that memory may become."),
        ("log.cleaner.io.buffer.size", "The memory of all cleaner threads for reading and writing; a larger batch takes more."),
        ("log.cleaner.io.max.bytes.per.second", "How much all cleaner threads read and write in a second."),
        ("log.cleaner.max.compaction.lag.ms", "The longest a record stays without being compacted."),
        ("log.cleaner.min.cleanable.ratio", "The share of a log not yet compacted above which it is."),
        ("log.cleaner.min.compaction.lag.ms", "How long a record stays as it is at the least."),
        ("log.cleaner.threads", "How many partitions are compacted at a time."),
        ("log.cleanup.policy", "What is done to old segments of topics that do not say so themselves."),
        ("log.dir", "The data directory, if it is set and `log.dirs` is not; its default does not count."),
        ("log.dirs", "The data directories, separated by commas."),
        ("log.flush.interval.messages", "A partition is synced to disk after so many records, whatever else syncs it."),
        ("log.flush.interval.ms", "The longest a record waits to be synced to disk, whatever else syncs it."),
        ("log.flush.offset.checkpoint.interval.ms", "How often recovery points are written down."),
        ("log.flush.scheduler.interval.ms", "Stands for `log.flush.interval.ms` where that is not set."),
        ("log.flush.start.offset.checkpoint.interval.ms", "How often log start offsets are written down."),
        ("log.index.interval.bytes", "The bytes of log between two entries of its index."),
        ("log.index.size.max.bytes", "The largest an index grows before its segment is rolled."),
        ("log.initial.task.delay.ms", "How long after the start segments are first looked through for those to delete."),
        ("log.message.timestamp.after.max.ms", "How far in the future a record's timestamp may lie."),
        ("log.message.timestamp.before.max.ms", "How far in the past a record's timestamp may lie."),
        ("log.message.timestamp.type", "Whether records keep the producer's timestamp or get that of their arrival."),
        ("log.retention.bytes", "The size of a partition above which its oldest segments are deleted; -1 is no limit."),
        ("log.retention.check.interval.ms", "How often segments are looked through for those to delete."),
        ("log.retention.hours", "How long records are kept, where neither minutes nor milliseconds are set."),
        ("log.retention.minutes", "How long records are kept, where milliseconds are not set."),
        ("log.retention.ms", "How long records are kept; -1 is for ever."),
        ("log.roll.hours", "The age at which a segment is rolled, where milliseconds are not set."),
        ("log.roll.jitter.hours", "As `log.roll.jitter.ms`, where that is not set."),
        ("log.roll.jitter.ms", "The most by which rolling is brought forward at random."),
        ("log.roll.ms", "The age at which a segment is rolled."),
        ("log.segment.bytes", "The size at which a segment is rolled."),
        ("log.segment.delete.delay.ms", "How long the files of a deleted segment remain on disk."),
        (
            "max.connection.creation.rate",
            "The most connections a second; `listener.name.<name>.max.connection.creation.rate` for one listener alone."
        ),
        (
            "max.connections",
            "The most connections at a time; `listener.name.<name>.max.connections` for one listener alone. Others wait."
        ),
        ("max.connections.per.ip", "The most connections at a time from one address."),
        ("max.connections.per.ip.overrides", "Other such limits for some addresses, as `host:count`."),
        ("max.incremental.fetch.session.cache.slots", "The most fetch sessions that are remembered."),
        ("max.request.partition.size.limit", "The most partitions in one answer to DescribeTopicPartitions."),
        ("message.max.bytes", "The largest batch taken, as it arrives."),
        ("min.insync.replicas", "The in-sync replicas without which `acks=all` is refused; at most all there are."),
        ("node.id", "Stands for `broker.id` where that is not set."),
        ("num.partitions", "The partitions of a topic that is created without saying how many."),
        ("num.recovery.threads.per.data.dir", "The threads per data directory that check logs at start, and copy and remove them."),
        ("offset.metadata.max.bytes", "The most characters of metadata that a committed offset may carry."),
        ("offsets.commit.timeout.ms", "How long a commit, or another change of a group, waits to be durable."),
        ("offsets.retention.check.interval.ms", "How often committed offsets are looked through for those that expire."),
        ("offsets.retention.minutes", "How long committed offsets are kept after nobody needs them any more."),
        ("offsets.topic.num.partitions", "The partitions that `__consumer_offsets` is made with."),
        ("offsets.topic.replication.factor", "The replicas that it is made with; the default is at most all brokers."),
        ("offsets.topic.segment.bytes", "The size at which its segments are rolled, from when it is made."),
        ("producer.id.expiration.check.interval.ms", "How often producers are looked through for those to be forgotten."),
        ("producer.id.expiration.ms", "How long an idempotent producer that writes nothing is remembered."),
        ("queued.max.request.bytes", "The most bytes of requests in memory; -1: as `martlet.memory.limit.bytes` says."),
        ("quota.window.num", "The windows over which rates are taken that have a quota, the one under way included."),
        ("quota.window.size.seconds", "How long each of these windows is."),
        (
            "replica.alter.log.dirs.io.max.bytes.per.second",
            "How fast replicas are copied that move to another data directory; each move for itself."
        ),
        ("replica.high.watermark.checkpoint.interval.ms", "How often high watermarks are written down."),
        ("request.timeout.ms", "How long the broker waits for what it asked of others."),
        ("socket.listen.backlog.size", "The connections that may wait to be accepted."),
        ("socket.receive.buffer.bytes", "The size of a connection's receive buffer; -1 is the system's."),
        ("socket.request.max.bytes", "The largest request taken. What is not Produce has at most 16 MiB."),
        ("socket.send.buffer.bytes", "The size of a connection's send buffer; -1 is the system's."),
        (
            "transaction.abort.timed.out.transaction.cleanup.interval.ms",
            "How often it is looked for transactions that have been open for longer than their producers asked for."
        ),
        ("transaction.max.timeout.ms", "The longest that a producer may ask for that its transactions stay open."),
        (
            "transaction.partition.verification.enable",
            "Whether records of a transaction are taken only where its coordinator knows of them."
        ),
        (
            "transaction.remove.expired.transaction.cleanup.interval.ms",
            "How often it is looked for transactional ids that nobody has used for long."
        ),
        ("transaction.state.log.min.isr", "`min.insync.replicas` of `__transaction_state`, from when it is made."),
        ("transaction.state.log.num.partitions", "The partitions that `__transaction_state` is made with."),
        (
            "transaction.state.log.replication.factor",
            "The replicas that it is made with; the default is at most all brokers."
        ),
        ("transaction.state.log.segment.bytes", "The size at which its segments are rolled, from when it is made."),
        ("transactional.id.expiration.ms", "How long a transactional id is remembered that nobody uses."),
        ("zookeeper.connect", "Stops the start, unless `--coordination` says what coordinates this broker."),
    ]

    private static let topic: [(name: String, documentation: String)] = [
        (
            "cleanup.policy",
            "What is done to old segments: they are deleted, or (`compact`) lose all records but the last of each key, or both."
        ),
        ("delete.retention.ms", "How long tombstones and ends of transactions stay once they have been compacted."),
        ("file.delete.delay.ms", "How long the files of a deleted segment remain on disk."),
        ("flush.messages", "Records of a partition after which it is synced to disk, whatever else syncs it."),
        ("flush.ms", "The longest a record waits to be synced to disk, whatever else syncs it."),
        ("index.interval.bytes", "The bytes of log between two entries of its index."),
        ("max.compaction.lag.ms", "The longest a record stays without being compacted."),
        ("max.message.bytes", "The largest batch taken, as it arrives and as it is stored."),
        ("message.timestamp.after.max.ms", "How far in the future a record's timestamp may lie."),
        ("message.timestamp.before.max.ms", "How far in the past a record's timestamp may lie."),
        ("message.timestamp.type", "Whether records keep the producer's timestamp or get that of their arrival."),
        ("min.cleanable.dirty.ratio", "The share of a log not yet compacted above which it is."),
        ("min.compaction.lag.ms", "How long a record stays as it is at the least."),
        ("retention.bytes", "The size of a partition above which its oldest segments are deleted; -1 is no limit."),
        ("retention.ms", "How long records are kept; -1 is for ever."),
        ("segment.bytes", "The size at which a segment is rolled."),
        ("segment.index.bytes", "The largest an index grows before its segment is rolled."),
        ("segment.jitter.ms", "The most by which rolling is brought forward at random."),
        ("segment.ms", "The age at which a segment is rolled."),
        ("unclean.leader.election.enable", "Whether a replica that is not in sync leads where no other can."),
    ]

    private static let group: [(name: String, documentation: String)] = [
        (
            "consumer.assignment.interval.ms",
            "How long after an assignment of the group the next one is made, at the earliest."
        ),
        ("consumer.heartbeat.interval.ms", "How often members of the group are told to send heartbeats."),
        ("consumer.session.timeout.ms", "After how long a silence a member of the group is gone."),
    ]

    private static let ours: [(name: String, documentation: String)] = [
        ("martlet.cut.dir", "Where what recovery cuts from the end of a log is kept aside."),
        ("martlet.durability", "What an acknowledgement promises: synced to disk, or in the page cache as with Kafka."),
        ("martlet.event.loops", "The threads that serve connections."),
        ("martlet.keeper.dir", "Where the embedded coordination service keeps its log. Essential: back it up."),
        ("martlet.log.level", "The least level of what is logged; `info,network:debug` gives a subsystem its own."),
        ("martlet.memory.limit.bytes", "The most bytes of requests in memory; -1: a quarter of all, at most 113 MB."),
        (
            "martlet.metrics.labels.max",
            "The most topics, partitions, and partitions of groups that metrics tell of one by one."
        ),
        (
            "martlet.metrics.listener",
            "Where `/metrics` and `/health` are told, as `host:port`; empty is nowhere. Its default may be taken already."
        ),
        ("martlet.sync.delay.ms", "The longest a sync waits to begin after the first append it covers."),
    ]
}
