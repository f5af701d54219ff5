extension ConfigTable {
    /// Settings of a broker, and those that topics share by name; `ConfigTable` says how a line reads.
    static let brokerLines: StaticString = """
        broker add.partitions.to.txn.retry.backoff.max.ms int 100 >=0
        broker add.partitions.to.txn.retry.backoff.ms int 20 >=1
        broker advertised.listeners list null
        broker alter.config.policy.class.name class null
        broker alter.log.dirs.replication.quota.window.num int 11 >=1
        broker alter.log.dirs.replication.quota.window.size.seconds int 1 >=1
        broker authorizer.class.name string ""
        broker auto.create.topics.enable bool true
        broker auto.leader.rebalance.enable bool true
        broker background.threads int 10 dynamic >=1
        broker broker.heartbeat.interval.ms int 2000 kraft
        broker broker.id int -1 >=-1
        broker broker.rack string null
        broker broker.session.timeout.ms int 9000 kraft
        broker client.quota.callback.class class null
        broker,topic compression.gzip.level int -1 dynamic -1|1..9
        broker,topic compression.lz4.level int 9 dynamic 1..17
        broker,topic compression.type string producer dynamic in:uncompressed,zstd,lz4,snappy,gzip,producer
        broker,topic compression.zstd.level int 3 dynamic -131072..22
        broker config.providers list "" dynamic
        broker connection.failed.authentication.delay.ms int 100 >=0
        broker connections.max.idle.ms long 600000 >=-1
        broker connections.max.reauth.ms long 0
        broker controlled.shutdown.enable bool true
        broker controller.listener.names list null kraft
        broker controller.quorum.append.linger.ms int 25 kraft
        broker controller.quorum.auto.join.enable bool false kraft
        broker controller.quorum.bootstrap.servers list "" kraft
        broker controller.quorum.election.backoff.max.ms int 1000 kraft
        broker controller.quorum.election.timeout.ms int 1000 kraft
        broker controller.quorum.fetch.max.bytes int 1048576 kraft
        broker controller.quorum.fetch.snapshot.max.bytes int 1048576 kraft
        broker controller.quorum.fetch.timeout.ms int 2000 kraft
        broker controller.quorum.request.timeout.ms int 2000 kraft
        broker controller.quorum.retry.backoff.ms int 20 kraft
        broker controller.quorum.voters list "" kraft
        broker controller.quota.window.num int 11 >=1
        broker controller.quota.window.size.seconds int 1 >=1
        broker controller.socket.timeout.ms int 30000
        broker cordoned.log.dirs list "" per-broker
        broker create.topic.policy.class.name class null
        broker default.replication.factor int 1 >=1
        broker delegation.token.expiry.check.interval.ms long 3600000 >=1
        broker delegation.token.expiry.time.ms long 86400000 >=1
        broker delegation.token.max.lifetime.ms long 604800000 >=1
        broker delegation.token.secret.key password null secret
        broker delete.records.purgatory.purge.interval.requests int 1
        broker delete.topic.enable bool true
        broker early.start.listeners list null
        broker fetch.max.bytes int 57671680 >=1024
        broker fetch.purgatory.purge.interval.requests int 1000
        broker follower.fetch.last.tiered.offset.enable bool false dynamic
        broker follower.replication.throttled.rate long 9223372036854775807 dynamic internal >=0
        broker group.consumer.assignment.interval.ms int 1000 dynamic >=0
        broker group.consumer.assignors list uniform,range
        broker group.consumer.heartbeat.interval.ms int 5000 >=1
        broker group.consumer.max.assignment.interval.ms int 15000 >=0
        broker group.consumer.max.heartbeat.interval.ms int 15000 >=1
        broker group.consumer.max.session.timeout.ms int 60000 >=1
        broker group.consumer.max.size int 2147483647 >=1
        broker group.consumer.migration.policy string bidirectional in:disabled,downgrade,upgrade,bidirectional
        broker group.consumer.min.assignment.interval.ms int 0 >=0
        broker group.consumer.min.heartbeat.interval.ms int 5000 >=1
        broker group.consumer.min.session.timeout.ms int 45000 >=1
        broker group.consumer.session.timeout.ms int 45000 >=1
        broker group.coordinator.append.linger.ms int -1 >=-1
        broker group.coordinator.background.threads int 2 >=1
        broker group.coordinator.cached.buffer.max.bytes int 1048588 dynamic
        broker group.coordinator.new.enable bool true internal
        broker group.coordinator.rebalance.protocols list classic,consumer,streams in:classic,consumer,share,streams
        broker group.coordinator.threads int 4 >=1
        broker group.initial.rebalance.delay.ms int 3000
        broker group.max.session.timeout.ms int 1800000
        broker group.max.size int 2147483647 >=1
        broker group.min.session.timeout.ms int 6000
        broker group.share.assignment.interval.ms int 1000 dynamic >=0
        broker group.share.assignors list simple
        broker group.share.delivery.count.limit int 5 2..10
        broker group.share.heartbeat.interval.ms int 5000 >=1
        broker group.share.max.assignment.interval.ms int 15000 >=0
        broker group.share.max.delivery.count.limit int 10 2..25
        broker group.share.max.heartbeat.interval.ms int 15000 >=1
        broker group.share.max.partition.max.record.locks int 4000 100..10000
        broker group.share.max.record.lock.duration.ms int 60000 30000..3600000
        broker group.share.max.session.timeout.ms int 60000 >=1
        broker group.share.max.share.sessions int 2000 >=1
        broker group.share.max.size int 200 1..1000
        broker group.share.min.assignment.interval.ms int 0 >=0
        broker group.share.min.delivery.count.limit int 2 2..5
        broker group.share.min.heartbeat.interval.ms int 5000 >=1
        broker group.share.min.partition.max.record.locks int 100 100..10000
        broker group.share.min.record.lock.duration.ms int 15000 1000..30000
        broker group.share.min.session.timeout.ms int 45000 >=1
        broker group.share.partition.max.record.locks int 2000 100..10000
        broker group.share.record.lock.duration.ms int 30000 1000..3600000
        broker group.share.session.timeout.ms int 45000 >=1
        broker group.streams.assignment.interval.ms int 1000 dynamic >=0
        broker group.streams.heartbeat.interval.ms int 5000 >=1
        broker group.streams.initial.rebalance.delay.ms int 3000 >=0
        broker group.streams.max.assignment.interval.ms int 15000 >=0
        broker group.streams.max.heartbeat.interval.ms int 15000 >=1
        broker group.streams.max.session.timeout.ms int 60000 >=1
        broker group.streams.max.size int 2147483647 >=1
        broker group.streams.max.standby.replicas int 2 >=0
        broker group.streams.min.assignment.interval.ms int 0 >=0
        broker group.streams.min.heartbeat.interval.ms int 5000 >=1
        broker group.streams.min.session.timeout.ms int 45000 >=1
        broker group.streams.num.standby.replicas int 0 >=0
        broker group.streams.session.timeout.ms int 45000 >=1
        broker initial.broker.registration.timeout.ms int 60000 kraft
        broker inter.broker.listener.name string null
        broker kafka.metrics.polling.interval.secs int 10 >=1
        broker kafka.metrics.reporters list ""
        broker leader.imbalance.check.interval.seconds long 300 >=1
        broker leader.replication.throttled.rate long 9223372036854775807 dynamic internal >=0
        broker listener.security.protocol.map string SASL_SSL:SASL_SSL,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT per-broker
        broker listeners list PLAINTEXT://127.0.0.1:9092 per-broker
        broker log.cleaner.backoff.ms long 15000 dynamic >=0
        broker log.cleaner.dedupe.buffer.size long 134217728 dynamic
        broker log.cleaner.delete.retention.ms long 86400000 dynamic >=0
        broker log.cleaner.enable bool true
        broker log.cleaner.io.buffer.load.factor double 0.9 dynamic
        broker log.cleaner.io.buffer.size int 524288 dynamic >=0
        broker log.cleaner.io.max.bytes.per.second double 1.7976931348623157E308 dynamic
        broker log.cleaner.max.compaction.lag.ms long 9223372036854775807 dynamic >=1
        broker log.cleaner.min.cleanable.ratio double 0.5 dynamic 0..1
        broker log.cleaner.min.compaction.lag.ms long 0 dynamic >=0
        broker log.cleaner.threads int 1 dynamic >=1
        broker log.cleanup.policy list delete dynamic in:compact,delete
        broker log.dir list /tmp/kafka-logs
        broker log.dir.failure.timeout.ms long 30000 >=1
        broker log.dirs list data/log
        broker log.flush.interval.messages long 9223372036854775807 dynamic >=1
        broker log.flush.interval.ms long null dynamic
        broker log.flush.offset.checkpoint.interval.ms int 60000 >=0
        broker log.flush.scheduler.interval.ms long 9223372036854775807
        broker log.flush.start.offset.checkpoint.interval.ms int 60000 >=0
        broker log.index.interval.bytes int 4096 dynamic >=0
        broker log.index.size.max.bytes int 10485760 dynamic >=4
        broker log.initial.task.delay.ms long 30000 internal >=0
        broker log.local.retention.bytes long -2 dynamic >=-2
        broker log.local.retention.ms long -2 dynamic >=-2
        broker log.message.timestamp.after.max.ms long 3600000 dynamic >=0
        broker log.message.timestamp.before.max.ms long 9223372036854775807 dynamic >=0
        broker log.message.timestamp.type string CreateTime dynamic in:CreateTime,LogAppendTime
        broker log.preallocate bool false dynamic
        broker log.retention.bytes long -1 dynamic
        broker log.retention.check.interval.ms long 300000 >=1
        broker log.retention.hours int 168
        broker log.retention.minutes int null
        broker log.retention.ms long null dynamic
        broker log.roll.hours int 168 >=1
        broker log.roll.jitter.hours int 0 >=0
        broker log.roll.jitter.ms long null dynamic
        broker log.roll.ms long null dynamic
        broker log.segment.bytes int 1073741824 dynamic >=14
        broker log.segment.delete.delay.ms long 60000 dynamic >=0
        broker max.connection.creation.rate int 2147483647 dynamic >=0
        broker max.connections int 2147483647 dynamic >=0
        broker max.connections.per.ip int 2147483647 dynamic >=0
        broker max.connections.per.ip.overrides string "" dynamic hosts
        broker max.incremental.fetch.session.cache.slots int 1000 >=0
        broker max.request.partition.size.limit int 2000 >=1
        broker message.max.bytes int 1048588 dynamic >=0
        broker metadata.log.dir string null kraft
        broker metadata.log.max.record.bytes.between.snapshots long 20971520 kraft >=1
        broker metadata.log.max.snapshot.interval.ms long 3600000 kraft >=0
        broker metadata.log.segment.bytes int 1073741824 kraft >=12
        broker metadata.log.segment.ms long 604800000 kraft
        broker metadata.max.idle.interval.ms int 500 kraft >=0
        broker metadata.max.retention.bytes long 104857600 kraft
        broker metadata.max.retention.ms long 604800000 kraft
        broker metric.reporters list org.apache.kafka.common.metrics.JmxReporter dynamic
        broker metrics.num.samples int 2 >=1
        broker metrics.recording.level string INFO
        broker metrics.sample.window.ms long 30000 >=1
        broker,topic min.insync.replicas int 1 dynamic >=1
        broker node.id int null kraft >=0
        broker num.io.threads int 8 dynamic >=1
        broker num.network.threads int 3 dynamic >=1
        broker num.partitions int 1 >=1
        broker num.recovery.threads.per.data.dir int 2 dynamic >=1
        broker num.replica.alter.log.dirs.threads int null
        broker num.replica.fetchers int 1 dynamic >=1
        broker offset.metadata.max.bytes int 4096 >=0
        broker offsets.commit.timeout.ms int 5000 >=1
        broker offsets.load.buffer.size int 5242880 >=1
        broker offsets.retention.check.interval.ms long 600000 >=1
        broker offsets.retention.minutes int 10080 >=1
        broker offsets.topic.compression.codec int 0 0..4
        broker offsets.topic.num.partitions int 50 >=1
        broker offsets.topic.replication.factor short 3 >=1
        broker offsets.topic.segment.bytes int 104857600 >=1
        broker principal.builder.class class org.apache.kafka.common.security.authenticator.DefaultKafkaPrincipalBuilder per-broker
        broker process.roles list null kraft in:broker,controller
        broker producer.id.expiration.check.interval.ms int 600000 internal >=1
        broker producer.id.expiration.ms int 86400000 dynamic >=1
        broker producer.purgatory.purge.interval.requests int 1000
        broker queued.max.request.bytes long -1
        broker queued.max.requests int 500 >=1
        broker quota.window.num int 11 >=1
        broker quota.window.size.seconds int 1 >=1
        broker remote.fetch.max.wait.ms int 500 dynamic >=1
        broker remote.list.offsets.request.timeout.ms long 30000 dynamic >=1
        broker remote.log.index.file.cache.total.size.bytes long 1073741824 dynamic >=0
        broker remote.log.manager.copier.thread.pool.size int 10 dynamic >=1
        broker remote.log.manager.copy.max.bytes.per.second long 9223372036854775807 dynamic >=1
        broker remote.log.manager.copy.quota.window.num int 11 >=1
        broker remote.log.manager.copy.quota.window.size.seconds int 1 >=1
        broker remote.log.manager.expiration.thread.pool.size int 10 dynamic >=1
        broker remote.log.manager.fetch.max.bytes.per.second long 9223372036854775807 dynamic >=1
        broker remote.log.manager.fetch.quota.window.num int 11 >=1
        broker remote.log.manager.fetch.quota.window.size.seconds int 1 >=1
        broker remote.log.manager.follower.thread.pool.size int 2 dynamic >=1
        broker remote.log.manager.task.interval.ms long 30000 >=1
        broker remote.log.manager.thread.pool.size int 2 >=1
        broker remote.log.metadata.custom.metadata.max.bytes int 128 >=0
        broker remote.log.metadata.manager.class.name string org.apache.kafka.server.log.remote.metadata.storage.TopicBasedRemoteLogMetadataManager
        broker remote.log.metadata.manager.class.path string null
        broker remote.log.metadata.manager.impl.prefix string rlmm.config.
        broker remote.log.metadata.manager.listener.name string null
        broker remote.log.reader.max.pending.tasks int 100 >=1
        broker remote.log.reader.threads int 10 dynamic >=1
        broker remote.log.storage.manager.class.name string null
        broker remote.log.storage.manager.class.path string null
        broker remote.log.storage.manager.impl.prefix string rsm.config.
        broker remote.log.storage.system.enable bool false
        broker replica.alter.log.dirs.io.max.bytes.per.second long 9223372036854775807 dynamic internal >=0
        broker replica.fetch.backoff.ms int 1000 >=0
        broker replica.fetch.max.bytes int 1048576 >=0
        broker replica.fetch.min.bytes int 1
        broker replica.fetch.response.max.bytes int 10485760 >=0
        broker replica.fetch.wait.max.ms int 500
        broker replica.high.watermark.checkpoint.interval.ms long 5000 >=1
        broker replica.lag.time.max.ms long 30000
        broker replica.selector.class string null
        broker replica.socket.receive.buffer.bytes int 65536
        broker replica.socket.timeout.ms int 30000
        broker replication.quota.window.num int 11 >=1
        broker replication.quota.window.size.seconds int 1 >=1
        broker request.timeout.ms int 30000 >=1
        broker sasl.client.callback.handler.class class null
        broker sasl.enabled.mechanisms list GSSAPI per-broker
        broker sasl.jaas.config password null per-broker secret
        broker sasl.kerberos.kinit.cmd string /usr/bin/kinit per-broker
        broker sasl.kerberos.min.time.before.relogin long 60000 per-broker
        broker sasl.kerberos.principal.to.local.rules list DEFAULT per-broker
        broker sasl.kerberos.service.name string null per-broker
        broker sasl.kerberos.ticket.renew.jitter double 0.05 per-broker
        broker sasl.kerberos.ticket.renew.window.factor double 0.8 per-broker
        broker sasl.login.callback.handler.class class null
        broker sasl.login.class class null
        broker sasl.login.connect.timeout.ms int null
        broker sasl.login.read.timeout.ms int null
        broker sasl.login.refresh.buffer.seconds short 300 per-broker 0..3600
        broker sasl.login.refresh.min.period.seconds short 60 per-broker 0..900
        broker sasl.login.refresh.window.factor double 0.8 per-broker 0.5..1
        broker sasl.login.refresh.window.jitter double 0.05 per-broker 0..0.25
        broker sasl.login.retry.backoff.max.ms long 10000
        broker sasl.login.retry.backoff.ms long 100
        broker sasl.mechanism.controller.protocol string GSSAPI
        broker sasl.mechanism.inter.broker.protocol string GSSAPI per-broker
        broker sasl.oauthbearer.assertion.algorithm string RS256
        broker sasl.oauthbearer.assertion.claim.aud string null
        broker sasl.oauthbearer.assertion.claim.exp.seconds int 300
        broker sasl.oauthbearer.assertion.claim.iss string null
        broker sasl.oauthbearer.assertion.claim.jti.include bool false
        broker sasl.oauthbearer.assertion.claim.nbf.seconds int 60
        broker sasl.oauthbearer.assertion.claim.sub string null
        broker sasl.oauthbearer.assertion.file string null
        broker sasl.oauthbearer.assertion.private.key.file string null
        broker sasl.oauthbearer.assertion.private.key.passphrase password null secret
        broker sasl.oauthbearer.assertion.template.file string null
        broker sasl.oauthbearer.client.credentials.client.id string null
        broker sasl.oauthbearer.client.credentials.client.secret password null secret
        broker sasl.oauthbearer.clock.skew.seconds int 30 >=0
        broker sasl.oauthbearer.expected.audience list ""
        broker sasl.oauthbearer.expected.issuer string null
        broker sasl.oauthbearer.jwks.endpoint.refresh.ms long 3600000
        broker sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms long 10000
        broker sasl.oauthbearer.jwks.endpoint.retry.backoff.ms long 100
        broker sasl.oauthbearer.jwks.endpoint.url string null
        broker sasl.oauthbearer.jwt.retriever.class class org.apache.kafka.common.security.oauthbearer.DefaultJwtRetriever
        broker sasl.oauthbearer.jwt.validator.class class org.apache.kafka.common.security.oauthbearer.DefaultJwtValidator
        broker sasl.oauthbearer.scope string null
        broker sasl.oauthbearer.scope.claim.name string scope
        broker sasl.oauthbearer.sub.claim.name string sub
        broker sasl.oauthbearer.token.endpoint.url string null
        broker sasl.server.callback.handler.class class null
        broker sasl.server.max.receive.size int 524288
        broker security.inter.broker.protocol string PLAINTEXT in:PLAINTEXT,SSL,SASL_PLAINTEXT,SASL_SSL
        broker security.providers string null
        broker share.coordinator.append.linger.ms int -1 >=-1
        broker share.coordinator.cached.buffer.max.bytes int 1048588 dynamic
        broker share.coordinator.load.buffer.size int 5242880 >=1
        broker share.coordinator.snapshot.update.records.per.snapshot int 500 >=1
        broker share.coordinator.state.topic.compression.codec int 0 0..4
        broker share.coordinator.state.topic.min.isr short 2 >=1
        broker share.coordinator.state.topic.num.partitions int 50 >=1
        broker share.coordinator.state.topic.replication.factor short 3 >=1
        broker share.coordinator.state.topic.segment.bytes int 104857600 >=1
        broker share.coordinator.threads int 1 >=1
        broker share.coordinator.write.timeout.ms int 5000 >=1
        broker share.fetch.purgatory.purge.interval.requests int 1000
        broker socket.connection.setup.timeout.max.ms long 30000
        broker socket.connection.setup.timeout.ms long 10000
        broker socket.listen.backlog.size int 50 >=1
        broker socket.receive.buffer.bytes int 102400 >=-1
        broker socket.request.max.bytes int 104857600 >=1
        broker socket.send.buffer.bytes int 102400 >=-1
        broker ssl.allow.dn.changes bool false
        broker ssl.allow.san.changes bool false
        broker ssl.cipher.suites list "" per-broker
        broker ssl.client.auth string none per-broker in:required,requested,none
        broker ssl.enabled.protocols list TLSv1.2,TLSv1.3 per-broker
        broker ssl.endpoint.identification.algorithm string https per-broker
        broker ssl.engine.factory.class class null per-broker
        broker ssl.key.password password null per-listener secret
        broker ssl.keymanager.algorithm string SunX509 per-broker
        broker ssl.keystore.certificate.chain password null per-listener secret
        broker ssl.keystore.key password null per-listener secret
        broker ssl.keystore.location string null per-listener
        broker ssl.keystore.password password null per-listener secret
        broker ssl.keystore.type string JKS per-listener
        broker ssl.principal.mapping.rules string DEFAULT
        broker ssl.protocol string TLSv1.3 per-broker
        broker ssl.provider string null per-broker
        broker ssl.secure.random.implementation string null per-broker
        broker ssl.trustmanager.algorithm string PKIX per-broker
        broker ssl.truststore.certificates password null per-listener secret
        broker ssl.truststore.location string null per-listener
        broker ssl.truststore.password password null per-listener secret
        broker ssl.truststore.type string JKS per-listener
        broker telemetry.max.bytes int 1048576 >=1
        broker transaction.abort.timed.out.transaction.cleanup.interval.ms int 10000 >=1
        broker transaction.max.timeout.ms int 900000 >=1
        broker transaction.partition.verification.enable bool true dynamic
        broker transaction.remove.expired.transaction.cleanup.interval.ms int 3600000 >=1
        broker transaction.state.log.load.buffer.size int 5242880 >=1
        broker transaction.state.log.min.isr int 2 >=1
        broker transaction.state.log.num.partitions int 50 >=1
        broker transaction.state.log.replication.factor short 3 >=1
        broker transaction.state.log.segment.bytes int 104857600 >=1
        broker transaction.two.phase.commit.enable bool false
        broker transactional.id.expiration.ms int 604800000 >=1
        broker,topic unclean.leader.election.enable bool false dynamic
        broker unstable.api.versions.enable bool false internal
        broker unstable.feature.versions.enable bool false internal
        """
}
