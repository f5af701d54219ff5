import MartletModel
import Testing

/// A broker's settings from an environment, as a container's description gives it.
private func broker(
    environment: [String], file: String = "", _ overrides: [(name: String, value: String)] = [],
    coordinationIsChosen: Bool = false
) throws(ConfigError) -> BrokerConfig {
    try BrokerConfig.resolve(
        file: try PropertiesParser.parse(Array(file.utf8)),
        environment: try EnvironmentSettings(environment.map { Array($0.utf8) }), overrides: overrides,
        coordinationIsChosen: coordinationIsChosen)
}

private func refusal(environment: [String], file: String = "") -> String {
    do throws(ConfigError) {
        _ = try broker(environment: environment, file: file)
        return ""
    } catch {
        return error.description
    }
}

private func names(_ variables: String...) throws(ConfigError) -> [String] {
    try EnvironmentSettings(variables.map { Array("\($0)=1".utf8) }).settings.map(\.name)
}

@Suite struct Environments {
    @Test func oneUnderscoreIsADotTwoAreAnUnderscoreAndThreeADash() throws {
        #expect(try names("KAFKA_NUM_PARTITIONS") == ["num.partitions"])
        #expect(try names("KAFKA_A_B__C___D____E_____F") == ["a.b_c-d-.e-_f"])
        #expect(try names("KAFKA_LISTENER_NAME_SASL__PLAINTEXT_PLAIN_SASL_JAAS_CONFIG")
            == ["listener.name.sasl_plaintext.plain.sasl.jaas.config"])
        #expect(try names("KAFKA_LISTENER_NAME_X_SCRAM___SHA___256_SASL_JAAS_CONFIG")
            == ["listener.name.x.scram-sha-256.sasl.jaas.config"])
        #expect(try names("KAFKA_CFG_NODE_ID", "MARTLET_SYNC_DELAY_MS") == ["node.id", "martlet.sync.delay.ms"])
    }

    @Test func everySettingOfABrokerCanBeGiven() throws {
        for definition in ConfigTable.shared.definitions(for: .broker) {
            let isOurs = definition.name.hasPrefix("martlet.")
            let word = definition.name.uppercased()
                .replacing("-", with: "___").replacing("_", with: "__").replacing(".", with: "_")
            #expect(try names((isOurs ? "" : "KAFKA_") + word) == [definition.name])
        }
    }

    @Test func whatBelongsToOtherProgramsIsLeftAlone() throws {
        let config = try broker(environment: [
            "PATH=/usr/bin", "HOME=/root", "kafka_num_partitions=7", "NUM_PARTITIONS=8", "XKAFKA_NUM_PARTITIONS=9",
            "KAFKA=1", "MARTLET=1", "=", "KAFKA_NO_VALUE", "", "CONFLUENT_METRICS_ENABLE=true",
        ])
        #expect(config.partitions == 1)
        #expect(config.warnings.isEmpty)
    }

    @Test func theDescriptionOfAKRaftContainerStartsABroker() throws {
        let config = try broker(environment: [
            "KAFKA_NODE_ID=1",
            "KAFKA_PROCESS_ROLES=broker,controller",
            "KAFKA_LISTENERS=PLAINTEXT://:9092,CONTROLLER://:9093,PLAINTEXT_HOST://:19092",
            "KAFKA_ADVERTISED_LISTENERS=PLAINTEXT://broker:9092,PLAINTEXT_HOST://localhost:19092",
            "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,PLAINTEXT_HOST:PLAINTEXT",
            "KAFKA_CONTROLLER_LISTENER_NAMES=CONTROLLER",
            "KAFKA_CONTROLLER_QUORUM_VOTERS=1@localhost:9093",
            "KAFKA_INTER_BROKER_LISTENER_NAME=PLAINTEXT",
            "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR=1",
            "KAFKA_LOG_DIRS=/var/lib/kafka/data",
            "KAFKA_HEAP_OPTS=-Xmx1g", "KAFKA_OPTS=-Dx=y", "KAFKA_JMX_PORT=9101", "KAFKA_LOG4J_ROOT_LOGLEVEL=WARN",
            "CLUSTER_ID=MkU3OEVBNTcwNTJENDM2Qk", "MARTLET_LOG_LEVEL=warning",
        ])
        #expect(config.brokerID == 1)
        #expect(config.listeners.map(\.description) == ["PLAINTEXT://:9092", "PLAINTEXT_HOST://:19092"])
        #expect(config.advertisedListeners.map(\.description)
            == ["PLAINTEXT://broker:9092", "PLAINTEXT_HOST://localhost:19092"])
        #expect(config.logDirs == ["/var/lib/kafka/data"])
        #expect(config.logLevels.general == .warning)
        for expected in [
            "KAFKA_HEAP_OPTS has no effect: it is for a Java virtual machine, and there is none",
            "KAFKA_OPTS has no effect: it is for a Java virtual machine, and there is none",
            "KAFKA_JMX_PORT has no effect: it is for a Java virtual machine, and there is none",
            "KAFKA_LOG4J_ROOT_LOGLEVEL has no effect: MARTLET_LOG_LEVEL says what is logged",
            "CLUSTER_ID has no effect: the cluster gets its identifier at its first start, and keeps it with its data",
            "controller.quorum.voters has no effect: it concerns KRaft, which this broker does without",
            "the listener CONTROLLER is not opened: it is a KRaft controller's",
        ] {
            #expect(config.warnings.count { $0 == expected } == 1, "\(expected)")
        }
    }

    @Test func theDescriptionOfAContainerWithZooKeeperIsAskedWhoKeepsTheState() throws {
        let compose = [
            "KAFKA_BROKER_ID=7", "KAFKA_ZOOKEEPER_CONNECT=zookeeper:2181",
            "KAFKA_ADVERTISED_LISTENERS=PLAINTEXT://broker:29092,EXTERNAL://localhost:9092",
            "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP=PLAINTEXT:PLAINTEXT,EXTERNAL:PLAINTEXT",
            "KAFKA_CONFLUENT_LICENSE_TOPIC_REPLICATION_FACTOR=1",
        ]
        #expect(refusal(environment: compose).contains("--coordination embedded"))
        let config = try broker(environment: compose, coordinationIsChosen: true)
        #expect(config.brokerID == 7)
        #expect(config.listeners.map(\.description) == ["PLAINTEXT://:29092", "EXTERNAL://:9092"])
        #expect(config.warnings.contains(
            "KAFKA_CONFLUENT_LICENSE_TOPIC_REPLICATION_FACTOR has no effect: it is for Confluent's own server"))
    }

    @Test func theAddressesOfAServiceCalledKafkaAreNoSettings() throws {
        let links = [
            "KAFKA_SERVICE_HOST=10.0.0.7", "KAFKA_SERVICE_PORT=9092", "KAFKA_SERVICE_PORT_CLIENTS=9092",
            "KAFKA_PORT=tcp://10.0.0.7:9092", "KAFKA_PORT_9092_TCP=tcp://10.0.0.7:9092", "KAFKA_PORT_9092_TCP_PROTO=tcp",
            "KAFKA_PORT_9092_TCP_PORT=9092", "KAFKA_PORT_9092_TCP_ADDR=10.0.0.7", "KAFKA_UI_PORT_80_TCP_ADDR=10.0.0.8",
            "MARTLET_SERVICE_HOST=10.0.0.9", "MARTLET_PORT_9092_TCP_ADDR=10.0.0.9",
        ]
        #expect(try broker(environment: links).warnings.isEmpty)
        // Kafka's own setting of old is one still
        #expect(try broker(environment: ["KAFKA_PORT=9092"]).warnings
            == ["port has no effect: Kafka has long replaced it by listeners"])
    }

    @Test func theCommandLineCountsBeforeTheEnvironmentAndThatBeforeTheFile() throws {
        let file = "num.partitions=2\ndefault.replication.factor=1\nnode.id=3"
        let config = try broker(
            environment: ["KAFKA_NUM_PARTITIONS=4", "KAFKA_LOG_RETENTION_HOURS=5", "KAFKA_NODE_ID=6"], file: file,
            [("log.retention.hours", "7")])
        #expect(config.partitions == 4)
        #expect(config.topics.defaults.retentionMs == 7 * 3_600_000)
        #expect(config.brokerID == 6)
    }

    @Test func whereAContainerListensFollowsFromWhatItsClientsAreTold() throws {
        func listeners(_ environment: [String], _ file: String = "", _ overrides: [(String, String)] = []) throws -> [String] {
            let config = try broker(environment: environment, file: file, overrides.map { (name: $0.0, value: $0.1) })
            return config.listeners.map(\.description) + config.advertisedListeners.map(\.description)
        }
        #expect(try listeners([]) == ["PLAINTEXT://:9092", "PLAINTEXT://localhost:9092"])
        #expect(try listeners(["KAFKA_ADVERTISED_LISTENERS=PLAINTEXT://broker:1234"])
            == ["PLAINTEXT://:1234", "PLAINTEXT://broker:1234"])
        #expect(try listeners(["KAFKA_ADVERTISED_LISTENERS="]) == ["PLAINTEXT://:9092", "PLAINTEXT://localhost:9092"])
        #expect(try listeners(["KAFKA_LISTENERS=PLAINTEXT://:1234"]) == ["PLAINTEXT://:1234", "PLAINTEXT://:1234"])
        // what a file says of its listeners stays with what the environment says of what clients are told
        #expect(try listeners(["KAFKA_ADVERTISED_LISTENERS=PLAINTEXT://h:32768"], "listeners=PLAINTEXT://:9092")
            == ["PLAINTEXT://:9092", "PLAINTEXT://h:32768"])
        #expect(try listeners([], "advertised.listeners=PLAINTEXT://[::1]:5")
            == ["PLAINTEXT://:5", "PLAINTEXT://[::1]:5"])
        #expect(try listeners([], "", [("listeners", "PLAINTEXT://127.0.0.1:6")])
            == ["PLAINTEXT://127.0.0.1:6", "PLAINTEXT://127.0.0.1:6"])
        #expect(refusal(environment: ["KAFKA_ADVERTISED_LISTENERS=nonsense"]).contains("advertised.listeners has 'nonsense'"))
    }

    @Test func aMistakeIsNamedWithItsVariableAndWhatWouldBeRight() {
        #expect(refusal(environment: ["KAFKA_NUM_PARTITONS=1"])
            == "KAFKA_NUM_PARTITONS: there is no broker setting 'num.partitons'; the nearest is 'num.partitions'")
        #expect(refusal(environment: ["MARTLET_SYNC_DELAY=1"]).contains("the nearest is 'martlet.sync.delay.ms'"))
        #expect(refusal(environment: ["KAFKA_NUM_PARTITIONS=zero"])
            == "KAFKA_NUM_PARTITIONS: num.partitions cannot be 'zero': it must be a whole number of 32 bits from 1 up")
        #expect(refusal(environment: ["KAFKA_NODE_ID=1", "KAFKA_CFG_NODE_ID=2"])
            == "the environment's KAFKA_CFG_NODE_ID and KAFKA_NODE_ID both stand for node.id, with different values: "
            + "unset one of them")
        #expect(refusal(environment: ["KAFKA_NODE_ID=1", "KAFKA_CFG_NODE_ID=1"]) == "")
        #expect(refusal(environment: ["KAFKA_CREATE_TOPICS=a:1:1"]).contains("there is no broker setting 'create.topics'"))
        let latin1 = Array("KAFKA_LOG_DIRS=/d".utf8) + [0xE4]
        #expect(throws: ConfigError.self) { try EnvironmentSettings([latin1]) }
        #expect(throws: Never.self) { try EnvironmentSettings([Array("PATH=/d".utf8) + [0xE4], [0xE4, 0x3D]]) }
    }

    @Test func theOrderOfTheEnvironmentChangesNothing() throws {
        let variables = ["KAFKA_OPTS=1", "KAFKA_NUM_IO_THREADS=3", "KAFKA_HEAP_OPTS=2", "KAFKA_BROKER_RACK=r"]
        let one = try broker(environment: variables).warnings
        #expect(one.count == 3)
        #expect(try broker(environment: variables.reversed()).warnings == one)
    }

    @Test func anEnvironmentHasABound() {
        let many = (0...EnvironmentSettings.maximumSettings).map { Array("KAFKA_LISTENER_NAME_\($0)=1".utf8) }
        #expect(throws: ConfigError.self) { try EnvironmentSettings(many) }
        #expect(throws: Never.self) { try EnvironmentSettings(Array(many.dropLast())) }
    }
}
