import MartletBasics
import MartletKeeper
import MartletReactor
import MartletSimulation
import Testing

/// One simulated machine, whose process ends in every way and starts again.
final class World: @unchecked Sendable {
    let simulated: SimulatedWorld
    private(set) var host: SimulatedHost

    init(seed: UInt64 = 1, loops: Int = 1) {
        simulated = SimulatedWorld(seed: seed)
        host = simulated.makeHost("broker", loops: loops)
    }

    var loop: any EventLoop { host.loops[0] }
    var files: SimulatedFileSystem { host.files }

    func powerCut() {
        host.powerCut()
        host = host.restart()
    }

    func kill() { host = host.restart() }

    /// Runs a task on the first loop to its end.
    func run(_ body: @escaping @Sendable (World) async throws -> Void, at location: SourceLocation = #_sourceLocation) {
        #expect(tryToRun(body, at: location), "the task waits for something that never comes", sourceLocation: location)
    }

    /// The same; false where the task never came to its end, as when the power goes meanwhile.
    func tryToRun(
        _ body: @escaping @Sendable (World) async throws -> Void, at location: SourceLocation = #_sourceLocation
    ) -> Bool {
        do {
            return try host.run(atMost: .seconds(3600)) { try await body(self) }
        } catch {
            Issue.record(error, sourceLocation: location)
            return true
        }
    }

    func openKeeper(_ change: (inout KeeperSettings) -> Void = { _ in }) async throws(KeeperError) -> EmbeddedKeeper {
        var settings = KeeperSettings(directory: "/keeper")
        change(&settings)
        return try await EmbeddedKeeper.open(
            host: host, loop: loop, settings: settings, logger: Logger("keeper", to: SilentLog()))
    }

    /// Suspends a task of the first loop until so much time has passed.
    func sleep(_ interval: Interval) async {
        let loop = loop
        await withUnsafeContinuation { continuation in
            loop.execute { loop.schedule(after: interval) { continuation.resume() } }
        }
    }

    // MARK: The disk, between two lives of the process

    func names(_ prefix: String) -> [String] {
        ((try? host.disk.list("/keeper")) ?? []).filter { $0.hasPrefix(prefix) }.map { "/keeper/" + $0 }
    }

    func bytes(_ path: String) -> [UInt8] { (try? host.disk.contents(path)) ?? [] }

    func setBytes(_ path: String, _ bytes: [UInt8]) throws { try host.disk.replace(path, with: bytes) }

    deinit { simulated.end() }
}

/// Collects what callbacks say, in order.
final class Record<Element>: @unchecked Sendable {
    var all: [Element] = []
    func add(_ element: Element) { all.append(element) }
}

extension KeeperSession {
    /// A watcher that writes `kind path` into a record.
    func recorder(_ record: Record<String>) -> Watcher { Watcher { record.add("\($0.kind) \($0.path)") } }
}

/// The code with which something is refused.
func refusal<R>(_ body: () async throws -> R) async -> KeeperErrorCode? {
    do {
        _ = try await body()
        return nil
    } catch { return (error as? KeeperError)?.code }
}
