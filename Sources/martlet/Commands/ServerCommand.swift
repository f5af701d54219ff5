import Glibc
import MartletBasics
import MartletBroker
import MartletCluster
import MartletKeeper
import MartletLog
import MartletModel
import MartletReactor

/// `martlet server`: a broker until it is told to stop.
enum ServerCommand: ProgramCommand {
    static let definition = CommandLineArguments.Command(
        "server", "Runs a broker until SIGINT or SIGTERM.",
        flags: [
            .init("config", value: "FILE", "Settings in the format of Kafka's server.properties."),
            .init("env", "Settings of the environment, as in Kafka's images, before those of the file."),
            .init("set", value: "NAME=VALUE", mayRepeat: true, "One setting, before all others."),
            .init("coordination", value: "KIND", "Where the cluster's state is kept: 'embedded', in this process."),
            .init(
                "topic-settings", value: "FILE",
                "Settings of the topics in log directories that are taken over from Kafka, a line 'topic name=value' each."),
            .init("help-config", "Lists every setting."),
        ],
        examples: [
            "martlet server", "martlet server --config server.properties",
            "martlet server --set num.partitions=3 --set log.retention.hours=24",
        ])

    static func run(_ arguments: CommandLineArguments) -> Never {
        if arguments.has("help-config") {
            Terminal.say(ConfigReference.text)
            exit(0)
        }
        let config: BrokerConfig
        let topicSettings: TopicSettingsFile?
        do {
            config = try settings(arguments)
            topicSettings = try arguments.value("topic-settings").map { try TopicSettingsFile(
                parsing: contents($0, of: "--topic-settings"), path: $0, topics: config.topics) }
        } catch {
            fail("\(error)")
        }
        let sink = StandardErrorLog()
        sink.follow(config.logLevels)
        for warning in config.warnings { Logger("config", to: sink).warning(warning) }
        let process: ServerProcess
        do {
            process = try ServerProcess(config, sink, topicSettings)
        } catch {
            fail("\(error)")
        }
        exit(process.run())
    }

    private static func settings(_ arguments: CommandLineArguments) throws -> BrokerConfig {
        var file: [Property] = []
        if let path = arguments.value("config") {
            file = try PropertiesParser.parse(contents(path, of: "--config"))
        }
        if let kind = arguments.value("coordination"), kind != "embedded" {
            throw StartFault("--coordination \(kind) is not possible yet: the one kind there is is 'embedded'.")
        }
        let environment = arguments.has("env") ? try EnvironmentSettings(environmentOfProcess()) : nil
        return try BrokerConfig.resolve(
            file: file, environment: environment, overrides: try arguments.assignments("set"),
            coordinationIsChosen: arguments.has("coordination"))
    }

    private static func contents(_ path: String, of flag: String) throws -> [UInt8] {
        guard let bytes = try RealDisk().contents(path) else {
            throw StartFault("There is no file \(path): give \(flag) an existing one.")
        }
        return bytes
    }

    private static func fail(_ sentence: String) -> Never {
        Terminal.complain("martlet: \(sentence)")
        exit(ExitStatus.failed.rawValue)
    }
}

/// The process around a broker: its loops, its signals, and what it says when it is ready.
final class ServerProcess: @unchecked Sendable {
    /// What is assumed of a machine that does not tell.
    private static let memoryBytesUnknown: Int64 = 2 << 30

    private let config: BrokerConfig
    private let sink: StandardErrorLog
    private let host: RealHost
    private let loop: any EventLoop
    private let process: BrokerProcess
    private var status: Int32 = 0
    private var isStopping = false

    init(_ config: BrokerConfig, _ sink: StandardErrorLog, _ topicSettings: TopicSettingsFile?) throws {
        self.config = config
        self.sink = sink
        _ = try DescriptorLimit.raise()
        host = try RealHost(loops: Int(config.eventLoops), firstLoop: .callingThread, log: sink)
        loop = host.loops[0]
        process = BrokerProcess(
            host: host, config: config, sink: sink, memoryBytes: availableMemoryBytes() ?? Self.memoryBytesUnknown,
            topicSettings: topicSettings)
    }

    /// Returns the exit status.
    func run() -> Int32 {
        host.onSignals([SIGINT, SIGTERM]) { [self] _ in stop() }
        process.onLogLevels = { [sink] levels in sink.follow(levels) }
        process.onFatal = { [self] sentence in loop.execute { [self] in fail(sentence) } }
        loop.spawn { [self] in
            do throws(StartFault) {
                try await process.start()
                announce()
                flushLog()
            } catch {
                fail(error.description)
            }
        }
        host.run()
        host.stop()
        sink.flush()
        return status
    }

    private func fail(_ sentence: String) {
        Terminal.complain("martlet: \(sentence)")
        status = 1
        stop()
    }

    /// Says now and then how many lines were left out, also when nothing more happens.
    private func flushLog() {
        sink.flush()
        if !isStopping { loop.schedule(after: .seconds(1)) { [weak self] in self?.flushLog() } }
    }

    private func announce() {
        guard let ports = process.broker?.boundPorts.map(\.address.description), let address = ports.first else { return }
        Terminal.say(
            """
            Martlet is ready on \(ports.joined(separator: ", ")).
              data       \(config.logDirs.joined(separator: ", ")), \(config.keeperDir) (keep both: the second holds the cluster's state)
              stop       Ctrl-C
              produce    echo hello | kcat -b \(address) -t hello -P
              consume    kcat -b \(address) -t hello -C -e
              metrics    \(metrics)
              memory     \(process.broker?.memoryBounds.description ?? "")
            """)
    }

    private var metrics: String {
        if let address = process.metricsAddresses.first { return "curl http://\(address)/metrics" }
        guard let fault = process.metricsFault else { return "none (martlet.metrics.listener says so)" }
        return "none: \(fault)"
    }

    private func stop() {
        guard !isStopping else { return }
        isStopping = true
        loop.spawn { [self] in
            await process.stop()
            host.requestStop()
        }
    }
}

extension StandardErrorLog {
    fileprivate func follow(_ levels: LogLevels) {
        setLevel(levels.general)
        for subsystem in LogLevels.subsystems {
            setLevel(levels.special.first { $0.subsystem == subsystem }?.level, of: subsystem)
        }
    }
}
