package import MartletBasics
import MartletChecker
import MartletModel
package import MartletReactor
package import MartletSimulation

/// A topic that clients write and read.
struct StageTopic {
    var name: String
    var partitions: Int32
    /// Its bytes may be damaged: its producers promise themselves nothing.
    var mayRot = false
    /// Its records have keys, and what is superseded may be gone: the settings that it is made with, where it is so.
    var compaction: [(name: String, value: String)] = []

    var isCompacted: Bool { !compaction.isEmpty }
}

/// What the clients of one run share. All of it lives on the world's thread.
///
/// Clients mostly rest; now and then there is a *burst*, in which all are busy, and in which faults fall. So 120 seconds
/// pass cheaply, and what is interesting happens at once.
package final class Stage: @unchecked Sendable {
    package let world: SimulatedWorld
    package let record: Recorder
    package let broker: SocketAddress
    var topics: [StageTopic] = []
    /// Nothing fails any more, and nobody goes or sleeps.
    package var isCalm = false
    /// No client starts anything new; producers that resend go on until all is acknowledged.
    package var isOver = false
    package private(set) var running: [String] = []
    /// Until when the broker may tell of a failed disk, or one that is full.
    var storageFailsUntil: Int64 = 0
    /// Folders of partitions that could not be made for want of room, and until when that may be so: the broker tries again
    /// from time to time.
    var unmade: Set<String> = []
    var unmadeUntil: Int64 = .max
    /// Which life of the broker it is.
    package internal(set) var life = 0
    /// By machine of the clients, how many requests of idempotent producers wait for their answers.
    private(set) var unanswered: [Int]
    var nextBurst: Int64 = 0
    /// When the burst is over that began at `nextBurst`; `.max` for one that never is.
    package var burstEnd: Int64 = 0

    package init(_ world: SimulatedWorld, broker: SocketAddress, machines: Int = 1) {
        unanswered = Array(repeating: 0, count: machines)
        self.world = world
        self.broker = broker
        record = Recorder(world)
    }

    var isBusy: Bool { world.now.nanoseconds >= nextBurst && world.now.nanoseconds < burstEnd }

    /// Whether the broker may say that the disk under a partition has failed; nil for some partition.
    func mayStorageFail(_ place: Place?) -> Bool {
        let now = world.now.nanoseconds
        guard now >= storageFailsUntil else { return true }
        return now < unmadeUntil && (place.map { unmade.contains("\($0.topic)-\($0.partition)") } ?? !unmade.isEmpty)
    }

    func waits(_ count: Int, on machine: Int) { unanswered[machine] += count }

    package func client(_ name: String, on host: SimulatedHost) -> SimulatedClient {
        let client = SimulatedClient(name, on: host)
        client.onAnswer = { [record] api in record.answered(api) }
        return client
    }

    package func start(_ name: String, on loop: any EventLoop, _ body: @escaping @Sendable () async -> Void) {
        running.append(name)
        loop.spawn { [self] in
            await body()
            running.removeAll { $0 == name }
        }
    }

    /// A moment in a burst; otherwise some seconds, but not past the next burst.
    package func rest(_ loop: any EventLoop, _ random: inout SeededRandom, busy: Range<Int> = 2_000..<30_000) async {
        if isBusy || isOver {
            return await loop.sleep(for: .microseconds(Int64(Int.random(in: busy, using: &random))))
        }
        let idle = Int64(500 + random.below(6_000)) * 1_000_000
        let soon = nextBurst - world.now.nanoseconds
        let late = Int64(random.below(60)) * 1_000_000
        await loop.sleep(for: .nanoseconds(soon > 0 ? min(idle, soon + late) : isCalm ? min(idle, 400_000_000) : idle))
    }

    func note(_ fault: ClientFault, of name: String) {
        if case .malformed(let what) = fault { record.broken("\(name): \(what)") }
    }
}
