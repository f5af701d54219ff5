extension ConfigTable {
    /// Settings of a topic alone.
    static let topicLines: StaticString = """
        topic cleanup.policy list delete in:compact,delete < log.cleanup.policy
        topic delete.retention.ms long 86400000 >=0 < log.cleaner.delete.retention.ms
        topic file.delete.delay.ms long 60000 >=0 < log.segment.delete.delay.ms
        topic flush.messages long 9223372036854775807 >=1 < log.flush.interval.messages
        topic flush.ms long 9223372036854775807 >=0 < log.flush.interval.ms log.flush.scheduler.interval.ms
        topic follower.replication.throttled.replicas list "" throttled
        topic index.interval.bytes int 4096 >=0 < log.index.interval.bytes
        topic leader.replication.throttled.replicas list "" throttled
        topic local.retention.bytes long -2 >=-2 < log.local.retention.bytes
        topic local.retention.ms long -2 >=-2 < log.local.retention.ms
        topic max.compaction.lag.ms long 9223372036854775807 >=1 < log.cleaner.max.compaction.lag.ms
        topic max.message.bytes int 1048588 >=0 < message.max.bytes
        topic message.timestamp.after.max.ms long 3600000 >=0 < log.message.timestamp.after.max.ms
        topic message.timestamp.before.max.ms long 9223372036854775807 >=0 < log.message.timestamp.before.max.ms
        topic message.timestamp.type string CreateTime in:CreateTime,LogAppendTime < log.message.timestamp.type
        topic min.cleanable.dirty.ratio double 0.5 0..1 < log.cleaner.min.cleanable.ratio
        topic min.compaction.lag.ms long 0 >=0 < log.cleaner.min.compaction.lag.ms
        topic preallocate bool false < log.preallocate
        topic remote.log.copy.disable bool false
        topic remote.log.delete.on.disable bool false
        topic remote.storage.enable bool false
        topic retention.bytes long -1 < log.retention.bytes
        topic retention.ms long 604800000 >=-1 < log.retention.ms log.retention.minutes log.retention.hours
        topic segment.bytes int 1073741824 >=14 < log.segment.bytes
        topic segment.index.bytes int 10485760 >=4 < log.index.size.max.bytes
        topic segment.jitter.ms long 0 >=0 < log.roll.jitter.ms log.roll.jitter.hours
        topic segment.ms long 604800000 >=1 < log.roll.ms log.roll.hours
        """

    /// Settings of a group, or of a subscription to clients' metrics.
    static let groupLines: StaticString = """
        client-metrics interval.ms int 300000 100..3600000
        client-metrics match list ""
        client-metrics metrics list ""
        group consumer.assignment.interval.ms int 1000 >=0 < group.consumer.assignment.interval.ms
        group consumer.heartbeat.interval.ms int 5000 >=1 < group.consumer.heartbeat.interval.ms
        group consumer.session.timeout.ms int 45000 >=1 < group.consumer.session.timeout.ms
        group share.assignment.interval.ms int 1000 >=0 < group.share.assignment.interval.ms
        group share.auto.offset.reset string latest
        group share.delivery.count.limit int 5 2..25 < group.share.delivery.count.limit
        group share.heartbeat.interval.ms int 5000 >=1 < group.share.heartbeat.interval.ms
        group share.isolation.level string read_uncommitted in:read_committed,read_uncommitted
        group share.partition.max.record.locks int 2000 100..10000 < group.share.partition.max.record.locks
        group share.record.lock.duration.ms int 30000 1000..3600000 < group.share.record.lock.duration.ms
        group share.renew.acknowledge.enable bool true
        group share.session.timeout.ms int 45000 >=1 < group.share.session.timeout.ms
        group streams.assignment.interval.ms int 1000 >=0 < group.streams.assignment.interval.ms
        group streams.heartbeat.interval.ms int 5000 >=1 < group.streams.heartbeat.interval.ms
        group streams.initial.rebalance.delay.ms int 3000 >=0 < group.streams.initial.rebalance.delay.ms
        group streams.num.standby.replicas int 0 >=0 < group.streams.num.standby.replicas
        group streams.session.timeout.ms int 45000 >=1 < group.streams.session.timeout.ms
        """

    /// What Kafka 3.9 on ZooKeeper has and Kafka 4 has not, and older ones that files of that time still hold.
    static let oldLines: StaticString = """
        broker advertised.host.name string null old
        broker advertised.port int null old
        broker alter.config.policy.kraft.compatibility.enable bool false old
        broker auto.include.jmx.reporter bool true old
        broker broker.id.generation.enable bool true old
        broker control.plane.listener.name string null old
        broker controlled.shutdown.max.retries int 3 old
        broker controlled.shutdown.retry.backoff.ms long 5000 old
        broker delegation.token.master.key password null secret old
        broker eligible.leader.replicas.enable bool false old
        broker group.share.max.groups short 10 old 1..100
        broker host.name string null old
        broker inter.broker.protocol.version string 3.9-IV0 old
        broker leader.imbalance.per.broker.percentage int 10 old
        broker log.message.downconversion.enable bool true dynamic old
        broker log.message.format.version string 3.0-IV1 old
        broker log.message.timestamp.difference.max.ms long 9223372036854775807 dynamic old >=0
        broker offsets.commit.required.acks short -1 old
        broker password.encoder.cipher.algorithm string AES/CBC/PKCS5Padding old
        broker password.encoder.iterations int 4096 old >=1024
        broker password.encoder.key.length int 128 old >=8
        broker password.encoder.keyfactory.algorithm string null old
        broker password.encoder.old.secret password null secret old
        broker password.encoder.secret password null secret old
        broker port int 9092 old 0..65535
        broker replica.lag.max.messages long 4000 old
        broker reserved.broker.max.id int 1000 old >=0
        broker zookeeper.clientCnxnSocket string null old
        broker zookeeper.connect string "" old
        broker zookeeper.connection.timeout.ms int null old
        broker zookeeper.max.in.flight.requests int 10 old >=1
        broker zookeeper.metadata.migration.enable bool false old
        broker zookeeper.session.timeout.ms int 18000 old
        broker zookeeper.set.acl bool false old
        broker zookeeper.ssl.cipher.suites list null old
        broker zookeeper.ssl.client.enable bool false old
        broker zookeeper.ssl.crl.enable bool false old
        broker zookeeper.ssl.enabled.protocols list null old
        broker zookeeper.ssl.endpoint.identification.algorithm string HTTPS old
        broker zookeeper.ssl.keystore.location string null old
        broker zookeeper.ssl.keystore.password password null secret old
        broker zookeeper.ssl.keystore.type string null old
        broker zookeeper.ssl.ocsp.enable bool false old
        broker zookeeper.ssl.protocol string TLSv1.2 old
        broker zookeeper.ssl.truststore.location string null old
        broker zookeeper.ssl.truststore.password password null secret old
        broker zookeeper.ssl.truststore.type string null old
        """

    /// Ours.
    static let ourLines: StaticString = """
        broker martlet.cut.dir string data/cut
        broker martlet.event.loops int 1 1..64
        broker martlet.keeper.dir string data/keeper
        broker martlet.log.level string info log-levels
        broker martlet.memory.limit.bytes long -1 -1|16777216..9223372036854775807
        broker martlet.metrics.labels.max int 1000 0..100000
        broker martlet.metrics.listener string 127.0.0.1:9644
        broker martlet.sync.delay.ms long 2 0..10000
        broker,topic martlet.durability string fsync in:fsync,page-cache
        """
}
