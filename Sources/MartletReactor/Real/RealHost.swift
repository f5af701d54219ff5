import CMartlet
import CUV
package import MartletBasics
import Synchronization

/// The real machine: loops with a thread each, lanes, sockets, files.
///
///     let host = try RealHost(loops: 2, firstLoop: .callingThread, log: log)
///     host.onSignals([SIGINT, SIGTERM]) { _ in host.requestStop() }
///     …                   // set up: this thread counts as the first loop's
///     host.run()          // turns the first loop, until `requestStop`
///     host.stop()         // ends lanes and loops
///
/// With `.ownThread` there is no `run`: all loops turn from the start.
package final class RealHost: Host, @unchecked Sendable {
    package enum FirstLoop: Sendable {
        case ownThread
        /// The thread that makes the host is the first loop's: what it sets up before `run` is done on the loop.
        case callingThread
    }

    package let clock: any Clock
    package let disk: any Disk
    package let network: any Network
    package let loops: [any EventLoop]
    private let uvLoops: [UVEventLoop]
    private let firstLoop: FirstLoop
    private let threads: [Thread]
    private let madeLanes = Mutex<[RealLane]>([])
    private let isStopped = Atomic<Bool>(false)

    package init(loops count: Int, firstLoop: FirstLoop = .ownThread, log: any LogSink) throws(SystemError) {
        precondition(count > 0, "a host has a loop")
        martlet_ignore_sigpipe()
        let clock = RealClock()
        self.clock = clock
        self.firstLoop = firstLoop
        disk = RealDisk()
        network = RealNetwork(log: log)
        var made: [UVEventLoop] = []
        var threads: [Thread] = []
        let unthreaded = firstLoop == .callingThread ? 1 : 0
        do throws(SystemError) {
            for index in 0..<count { made.append(try UVEventLoop(name: "loop-\(index)", clock: clock)) }
            for loop in made.dropFirst(unthreaded) {
                let thread = try Thread(loop.name, stackBytes: 0, quiet: false) {
                    loop.run()
                    loop.finish()
                }
                threads.append(thread)
            }
        } catch {
            Self.end(made, threads, unthreaded: unthreaded)
            throw error
        }
        if firstLoop == .callingThread { made[0].claim() }
        uvLoops = made
        loops = made
        self.threads = threads
    }

    /// Ends loops with their threads; the first `unthreaded`, and those whose thread never started, on this one.
    private static func end(_ loops: [UVEventLoop], _ threads: [Thread], unthreaded: Int) {
        let threaded = unthreaded..<(unthreaded + threads.count)
        for index in threaded { loops[index].requestStop() }
        for thread in threads { thread.join() }
        for index in loops.indices where !threaded.contains(index) {
            loops[index].claim()
            loops[index].finish()
        }
    }

    package func makeLane(_ name: String, threads: Int, limit: Int) -> any Lane {
        let lane = RealLane(name, threads: threads, limit: limit)
        madeLanes.withLock { $0.append(lane) }
        return lane
    }

    package var lanes: [any Lane] { madeLanes.withLock { $0 } }

    package func processUsage() -> ProcessUsage { .current }

    package func randomBytes(_ count: Int) -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: count) { buffer, filled in
            let code = martlet_random(buffer.baseAddress, count)
            precondition(code == 0, "the system gives random bytes")
            filled = count
        }
    }

    /// Calls `received` on the first loop each time one of the signals comes.
    package func onSignals(_ signals: [Int32], _ received: @escaping @Sendable (Int32) -> Void) {
        let loop = uvLoops[0]
        let start: @Sendable () -> Void = {
            for signal in signals { SignalHandle(signal, loop: loop, received) }
        }
        if loop.isCurrent { start() } else { loop.execute(start) }
    }

    /// Turns the first loop on this thread until `requestStop`. Only for a host whose first loop is the calling
    /// thread's.
    package func run() {
        precondition(firstLoop == .callingThread, "the first loop has a thread of its own")
        precondition(uvLoops[0].isCurrent, "the host runs on the thread that made it")
        uvLoops[0].run()
    }

    /// Makes `run` return. From any thread.
    package func requestStop() { uvLoops[0].requestStop() }

    /// Ends everything: lanes do what waits and hand over the results; then loops do what they were handed and close
    /// what is open. From no loop's own thread and no lane; where the first loop is the calling thread's, from that
    /// thread. A second call is ignored.
    package func stop() {
        guard !isStopped.exchange(true, ordering: .acquiringAndReleasing) else { return }
        for (index, loop) in uvLoops.enumerated() {
            let isOurs = firstLoop == .callingThread && index == 0
            precondition(loop.isCurrent == isOurs, "a host is stopped by who made it, never by a loop's own thread")
        }
        for lane in madeLanes.withLock({ $0 }) { lane.close() }
        Self.end(uvLoops, threads, unthreaded: firstLoop == .callingThread ? 1 : 0)
    }

    /// For a start that failed half-way: everything ends with the last reference, under the rules of `stop`.
    deinit { stop() }
}
