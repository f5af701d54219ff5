import MartletBasics
import MartletModel
import Testing

/// A broker's settings from text, as a file gives them.
func broker(_ text: String, _ overrides: [(name: String, value: String)] = [], coordinationIsChosen: Bool = false)
    throws(ConfigError) -> BrokerConfig {
    let file = try PropertiesParser.parse(Array(text.utf8))
    return try BrokerConfig.resolve(file: file, overrides: overrides, coordinationIsChosen: coordinationIsChosen)
}

/// Why the broker does not start with these settings; an empty text if it does.
func refusal(_ text: String, _ overrides: [(name: String, value: String)] = []) -> String {
    do throws(ConfigError) {
        _ = try broker(text, overrides)
        return ""
    } catch {
        return error.description
    }
}

@Suite struct BrokerConfigs {
    @Test func withoutSettingsABrokerServesThisMachineFromDirectoriesBesideIt() throws {
        let config = try broker("")
        #expect(config.listeners.map(\.description) == ["PLAINTEXT://127.0.0.1:9092"])
        #expect(config.advertisedListeners == config.listeners)
        #expect(config.logDirs == ["data/log"])
        #expect(config.keeperDir == "data/keeper")
        #expect(config.cutDir == "data/cut")
        #expect(config.brokerID == -1)
        #expect(config.topics.defaults == TopicConfig())
        #expect(config.memoryBytesLimit == nil)
        #expect(config.queuedRequestBytesLimit == nil)
        #expect(config.connectionIdleLimit == .milliseconds(600_000))
        #expect(config.syncDelay == .milliseconds(2))
        #expect(config.warnings.isEmpty)
    }

    /// The settings that the distribution of Kafka 3.9 ships in its file, with its comments.
    static let stockFile = """
        # see kafka.server.KafkaConfig for additional details and defaults
        ############################# Server Basics #############################
        broker.id=0
        #listeners=PLAINTEXT://:9092
        #advertised.listeners=PLAINTEXT://your.host.name:9092
        #listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL
        num.network.threads=3
        num.io.threads=8
        socket.send.buffer.bytes=102400
        socket.receive.buffer.bytes=102400
        socket.request.max.bytes=104857600
        log.dirs=/tmp/kafka-logs
        num.partitions=1
        num.recovery.threads.per.data.dir=1
        offsets.topic.replication.factor=1
        transaction.state.log.replication.factor=1
        transaction.state.log.min.isr=1
        #log.flush.interval.messages=10000
        #log.flush.interval.ms=1000
        log.retention.hours=168
        #log.retention.bytes=1073741824
        #log.segment.bytes=1073741824
        log.retention.check.interval.ms=300000
        zookeeper.connect=localhost:2181
        zookeeper.connection.timeout.ms=18000
        group.initial.rebalance.delay.ms=0

        """

    @Test func theFileThatKafkaShipsStartsButForItsZooKeeper() throws {
        #expect(refusal(Self.stockFile).contains("zookeeper.connect is 'localhost:2181'"))
        #expect(refusal(Self.stockFile).contains("--coordination embedded"))
        for (text, chosen) in [(Self.stockFile, true), (Self.stockFile.replacing("zookeeper.connect=localhost", "#"), false)] {
            let config = try broker(text, coordinationIsChosen: chosen)
            #expect(config.brokerID == 0)
            #expect(config.logDirs == ["/tmp/kafka-logs"])
            #expect(config.recoveryThreadsPerDir == 1)
            #expect(config.topics.defaults.retentionMs == 604_800_000)
            #expect(config.inertCount == 3)
            #expect(config.warnings.count == 3)
            #expect(config.warnings[0] == "num.network.threads has no effect in this release")
        }
    }

    @Test func aFileOfKRaftsStartsWithoutItsController() throws {
        let config = try broker("""
            process.roles=broker,controller
            node.id=5
            controller.quorum.bootstrap.servers=localhost:9093
            listeners=PLAINTEXT://:9092,CONTROLLER://:9093
            inter.broker.listener.name=PLAINTEXT
            advertised.listeners=PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093
            controller.listener.names=CONTROLLER
            listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT
            """)
        #expect(config.brokerID == 5)
        #expect(config.listeners.map(\.description) == ["PLAINTEXT://:9092"])
        #expect(config.advertisedListeners.map(\.description) == ["PLAINTEXT://localhost:9092"])
        #expect(config.warnings.contains("the listener CONTROLLER is not opened: it is a KRaft controller's"))
        #expect(refusal("process.roles=controller").contains("cannot be a KRaft controller alone"))
        #expect(refusal("node.id=5\nbroker.id=6").contains("they must be the same"))
    }

    @Test func whatTheCommandLineSetsCountsBeforeTheFile() throws {
        let config = try broker("num.partitions=3\nbroker.id=7", [("num.partitions", "5"), ("num.partitions", "6")])
        #expect(config.partitions == 6)
        #expect(config.brokerID == 7)
    }

    @Test func aMistakeIsNamedWithItsPlaceItsValueAndWhatWouldBeRight() {
        #expect(refusal("\nnum.partitions=zero")
            == "line 2: num.partitions cannot be 'zero': it must be a whole number of 32 bits from 1 up")
        #expect(refusal("", [("log.cleanup.policy", "shred")])
            == "--set: log.cleanup.policy cannot be 'shred': it must be a list, without repetition, of compact, delete")
        #expect(refusal("num.partitons=1") == "line 1: there is no broker setting 'num.partitons'; the nearest is 'num.partitions'")
        #expect(refusal("", [("qqqqqqqq", "1")]) == "--set: there is no broker setting 'qqqqqqqq'")
        #expect(refusal("retention.ms=1").contains("there is no broker setting 'retention.ms'"))
    }

    @Test func aFileThatSaysEveryDefaultStartsAsOneThatSaysNothing() throws {
        let known = ConfigTable.shared.definitions(for: .broker).filter { $0.defaultValue != nil }
        let config = try broker(known.map { "\($0.name)=\($0.defaultValue ?? "")\n" }.joined())
        #expect(config.inertCount == known.count { !$0.acts })
        #expect(config.warnings.count == config.inertCount)
        #expect(config.topics.defaults == TopicConfig())
        #expect(config.listeners == (try broker("")).listeners)
        #expect(config.logDirs == (try broker("")).logDirs)
    }

    @Test func aPasswordIsNeverRepeated() throws {
        let secret = "hunter2"
        for definition in ConfigTable.shared.definitions where definition.isSecret {
            let warnings = try broker("\(definition.name)=\(secret)").warnings
            #expect(warnings.count == 1)
            for warning in warnings { #expect(!warning.contains(secret), "\(definition.name)") }
        }
    }

    @Test func settingsWithoutEffectAreTakenWithOneWarningEach() throws {
        let config = try broker(
            """
            host.name=example
            authorizer.class.name=some.Class
            super.users=User:x
            listener.name.plaintext.ssl.keystore.location=/x
            replica.lag.max.messages=4000
            num.io.threads=8
            num.io.threads=9
            """, [("num.io.threads", "10")])
        #expect(config.inertCount == 6)
        #expect(config.warnings.count == 6)
        #expect(config.warnings[0] == "host.name has no effect: Kafka has long replaced it by listeners")
        #expect(config.warnings[1].contains("whoever connects may do everything"))
        #expect(refusal("listener.name.=1").contains("there is no broker setting"))
    }

    @Test func listenersAreReadAsKafkaReadsThem() throws {
        let config = try broker("""
            listeners = plaintext://0.0.0.0:0 , B://[::1]:9093,C://:9094, D://a-b.example:65535, E://127.0.0.1:9093
            listener.security.protocol.map=PLAINTEXT:plaintext,B:PLAINTEXT,C:PLAINTEXT,D:PLAINTEXT,E:PLAINTEXT
            advertised.listeners=PLAINTEXT://host:1,B://host:1,C://[fe80::1%eth0]:9094
            """)
        #expect(config.listeners.map(\.name) == ["PLAINTEXT", "B", "C", "D", "E"])
        #expect(config.listeners.map(\.host) == ["0.0.0.0", "::1", "", "a-b.example", "127.0.0.1"])
        #expect(config.listeners.map(\.port) == [0, 9093, 9094, 65535, 9093])
        #expect(config.listeners[1].description == "B://[::1]:9093")
        #expect(config.advertisedListeners.map(\.host) == ["host", "host", "fe80::1%eth0"])
    }

    @Test(arguments: [
        ("listeners=", "at least one address"),
        ("listeners=nonsense", "NAME://host:port"),
        ("listeners=PLAINTEXT://h", "NAME://host:port"),
        ("listeners=PLAINTEXT://h:", "NAME://host:port"),
        ("listeners=PLAINTEXT://h:65536", "NAME://host:port"),
        ("listeners=PLAINTEXT://h:-1", "NAME://host:port"),
        ("listeners=PLAINTEXT://h /:1", "NAME://host:port"),
        ("listeners=://h:1", "NAME://host:port"),
        ("listeners=PLAINTEXT://h:1,", "NAME://host:port"),
        ("listeners=PLAINTEXT://:", "NAME://host:port"),
        ("listeners=OTHER://h:1", "no protocol"),
        ("listeners=PLAINTEXT://h:1,PLAINTEXT://h:2", "two listeners called PLAINTEXT"),
        ("listeners=PLAINTEXT://a:1,B://b:1\nlistener.security.protocol.map=PLAINTEXT:PLAINTEXT,B:PLAINTEXT", "on one port"),
        ("listeners=SSL://h:1", "only PLAINTEXT"),
        ("listeners=SASL_PLAINTEXT://h:1", "only PLAINTEXT"),
        ("listeners=PLAINTEXT://0.0.0.0:1", "cannot be told to connect to 0.0.0.0"),
        ("listeners=PLAINTEXT://:1\nadvertised.listeners=PLAINTEXT://0.0.0.0:1", "cannot be told to connect to 0.0.0.0"),
        ("advertised.listeners=SSL://h:1", "none called SSL"),
        ("listener.security.protocol.map=PLAINTEXT", "NAME:PROTOCOL"),
        ("listener.security.protocol.map=PLAINTEXT:TLS", "NAME:PROTOCOL"),
        ("listener.security.protocol.map=A:SSL,a:SSL", "names the listener A twice"),
        ("log.dirs=", "at least one directory"), ("log.dirs=a,,b", "none may be empty"),
        ("log.dirs=a,./a/", "twice"), ("log.dir=", "log.dir must name"),
        ("log.dirs=data", "martlet.keeper.dir is data/keeper, inside the data directory data"),
        ("martlet.cut.dir=./data/log/cut", "it must lie outside"), ("log.dirs=.", "inside the data directory"),
        ("log.dirs=/\nmartlet.keeper.dir=/k", "inside the data directory"),
        ("martlet.keeper.dir=", "must name a directory"),
        ("log.retention.ms=0", "-1 to keep records for ever"),
        ("log.retention.hours=0", "log.retention.hours cannot be 0"),
        ("log.roll.ms=0", "log.roll.ms"), ("log.roll.jitter.ms=-1", "log.roll.jitter.ms"),
        ("log.flush.interval.ms=-1", "log.flush.interval.ms"),
        ("log.cleaner.min.compaction.lag.ms=9\nlog.cleaner.max.compaction.lag.ms=8", "cannot be above"),
        ("queued.max.request.bytes=1000", "at least socket.request.max.bytes"),
        ("max.connections.per.ip=0", "shuts everyone out"),
        ("max.connections.per.ip.overrides=host", "host:count"),
        ("martlet.durability=paper", "one of fsync, page-cache"), ("martlet.log.level=loud", "one of debug"),
        ("martlet.log.level=", "one of debug"), ("martlet.log.level=info,debug", "one of debug"),
        ("martlet.log.level=nets:debug", "keeper, log, metrics"), ("martlet.log.level=log:info,log:debug", "one of debug"),
        ("martlet.event.loops=0", "from 1 to 64"), ("default.replication.factor=40000", "at most 32767"),
    ])
    func aStartIsRefusedWithASentence(_ text: String, _ expected: String) {
        #expect(refusal(text).contains(expected), "\(refusal(text))")
    }

    @Test func hoursGiveWayToMinutesAndMinutesToMilliseconds() throws {
        func retention(_ text: String) throws -> Int64 { try broker(text).topics.defaults.retentionMs }
        #expect(try retention("log.retention.hours=2") == 7_200_000)
        #expect(try retention("log.retention.hours=2\nlog.retention.minutes=3") == 180_000)
        #expect(try retention("log.retention.hours=2\nlog.retention.minutes=3\nlog.retention.ms=4") == 4)
        #expect(try retention("log.retention.hours=-1") == -1)
        #expect(try retention("log.retention.ms=-5") == -1)
        #expect(try retention("log.retention.hours=2147483647") == 2_147_483_647 * 3_600_000)
        // what does not count is not looked at
        #expect(try retention("log.retention.hours=0\nlog.retention.ms=4") == 4)
        let rolling = try broker("log.roll.hours=1\nlog.roll.jitter.hours=2\nlog.flush.scheduler.interval.ms=9").topics.defaults
        #expect(rolling.segmentMs == 3_600_000)
        #expect(rolling.segmentJitterMs == 7_200_000)
        #expect(rolling.flushMs == 9)
        #expect(try broker("log.roll.ms=5\nlog.roll.hours=1").topics.defaults.segmentMs == 5)
    }

    @Test func eachSettingReachesItsField() throws {
        let config = try broker("""
            broker.rack=r1
            log.dir=/a, /b
            auto.create.topics.enable=FALSE
            delete.topic.enable=false
            num.partitions=3
            default.replication.factor=2
            log.retention.check.interval.ms=11
            log.flush.offset.checkpoint.interval.ms=12
            log.flush.start.offset.checkpoint.interval.ms=13
            replica.high.watermark.checkpoint.interval.ms=14
            num.recovery.threads.per.data.dir=15
            producer.id.expiration.ms=16
            martlet.sync.delay.ms=17
            martlet.event.loops=18
            socket.request.max.bytes=100000
            queued.max.request.bytes=200000
            martlet.memory.limit.bytes=300000000
            fetch.max.bytes=2048
            max.incremental.fetch.session.cache.slots=0
            socket.send.buffer.bytes=19
            socket.receive.buffer.bytes=-1
            socket.listen.backlog.size=20
            connections.max.idle.ms=-1
            max.connections=21
            max.connections.per.ip=22
            max.connections.per.ip.overrides=127.0.0.1:5, ::1:6
            request.timeout.ms=23
            martlet.log.level=warning, network:debug,log:error
            martlet.keeper.dir=/k
            martlet.cut.dir=/c
            """)
        #expect(config.rack == "r1")
        #expect(config.logDirs == ["/a", "/b"])
        #expect(!config.autoCreateTopics)
        #expect(!config.deleteTopics)
        #expect(config.partitions == 3)
        #expect(config.replicationFactor == 2)
        #expect(config.retentionCheckInterval == .milliseconds(11))
        #expect(config.recoveryPointCheckpointInterval == .milliseconds(12))
        #expect(config.logStartCheckpointInterval == .milliseconds(13))
        #expect(config.highWatermarkCheckpointInterval == .milliseconds(14))
        #expect(config.recoveryThreadsPerDir == 15)
        #expect(config.producerIDExpiration == .milliseconds(16))
        #expect(config.syncDelay == .milliseconds(17))
        #expect(config.eventLoops == 18)
        #expect(config.requestBytesLimit == 100_000)
        #expect(config.queuedRequestBytesLimit == 200_000)
        #expect(config.memoryBytesLimit == 300_000_000)
        #expect(config.fetchBytesLimit == 2048)
        #expect(config.fetchSessionLimit == 0)
        #expect(config.sendBufferBytes == 19)
        #expect(config.receiveBufferBytes == nil)
        #expect(config.listenBacklog == 20)
        #expect(config.connectionIdleLimit == nil)
        #expect(config.connectionLimit == 21)
        #expect(config.connectionLimitPerAddress == 22)
        #expect(config.connectionLimitOverrides.map(\.host) == ["127.0.0.1", "::1"])
        #expect(config.connectionLimitOverrides.map(\.count) == [5, 6])
        #expect(config.requestTimeout == .milliseconds(23))
        #expect(config.logLevels.general == .warning)
        #expect(config.logLevels.special.map(\.subsystem) == ["network", "log"])
        #expect(config.logLevels.special.map(\.level) == [.debug, .error])
        #expect(config.keeperDir == "/k")
        #expect(config.cutDir == "/c")
        #expect(config.inertCount == 0)
    }
}

extension String {
    func replacing(_ part: String, _ other: String) -> String {
        guard let range = firstRange(of: part) else { return self }
        return String(self[..<range.lowerBound]) + other + String(self[range.upperBound...])
    }
}
