package import MartletBasics
import MartletBroker
package import MartletModel
import MartletReactor
package import MartletSimulation

/// One process of a broker in a simulated world, seen from outside: its start, its giving up, its stop.
package final class BrokerLife: @unchecked Sendable {
    /// What became of a start.
    package enum Start {
        case serves
        /// It ended itself, with a sentence.
        case failed(String)
        /// Its machine died under it.
        case died
        /// It came to no end.
        case hung
    }

    private static let memoryBytes: Int64 = 1 << 30
    /// Virtual time in which a broker starts or stops.
    private static let patience = Interval.seconds(40)

    private let world: SimulatedWorld
    private let host: SimulatedHost
    private let process: BrokerProcess
    private let fatal = Box<String?>(nil)

    package init(
        _ world: SimulatedWorld, _ host: SimulatedHost, _ config: BrokerConfig, sink: any LogSink = SilentLog()
    ) {
        self.world = world
        self.host = host
        process = BrokerProcess(host: host, config: config, sink: sink, memoryBytes: Self.memoryBytes)
        process.onFatal = { [fatal] sentence in fatal.value = sentence }
    }

    /// The sentence with which it gave up; nil while it has not.
    package var lastWords: String? { fatal.value }

    package func start() -> Start {
        let outcome = Box<String?>(nil)
        host.loops[0].spawn { [process] in
            do throws(StartFault) {
                try await process.start()
                outcome.value = ""
            } catch {
                outcome.value = error.description
            }
        }
        let hasEnded = { outcome.value != nil || self.fatal.value != nil || !self.host.isAlive }
        guard world.run(atMost: Self.patience, until: hasEnded) else { return .hung }
        guard host.isAlive else { return .died }
        return outcome.value == "" && fatal.value == nil ? .serves : .failed(fatal.value ?? outcome.value!)
    }

    /// Whether it came to the end of its stop.
    package func stop() -> Bool {
        host.run(atMost: Self.patience) { [process] in await process.stop() }
    }
}

/// What several parts of a run share; the world is one thread, so nothing guards it.
package final class Box<Value>: @unchecked Sendable {
    package var value: Value
    package init(_ value: Value) { self.value = value }
}
