import MartletBasics
import MartletReactor
import Synchronization
import Testing

/// A door that work on a lane waits at.
final class Gate: Sendable {
    private let isOpen = Atomic<Bool>(false)
    func open() { isOpen.store(true, ordering: .releasing) }
    func wait() { while !isOpen.load(ordering: .acquiring) { usleepAMillisecond() } }
}

@Suite(.timeLimit(.minutes(1))) struct LaneTests {
    @Test func resultsArriveOnTheLoopThatWasNamed() async throws {
        try await withHost(loops: 2) { host in
            let lane = host.makeLane("sync", threads: 2, limit: 10)
            let result = Promise<(Int, Bool)>()
            let loop = host.loops[1]
            #expect(lane.submit({ loop.isCurrent ? 0 : 42 }, on: loop) { result.keep(($0, loop.isCurrent)) })
            let (value, wasCurrent) = await result.value
            #expect(value == 42)
            #expect(wasCurrent)
        }
    }

    @Test func aFullQueueRefusesAndTheRestIsDone() async throws {
        try await withHost { host in
            let lane = host.makeLane("bulk", threads: 1, limit: 3) as! RealLane
            let gate = Gate(), started = Promise<Void>(), done = Record<Int>()
            let submit = { (number: Int) -> Bool in
                lane.submit(
                    {
                        if number == 0 { started.keep(()) }
                        gate.wait()
                        return number
                    }, on: host.loops[0]) { done.note($0) }
            }
            #expect(submit(0))
            await started.value
            #expect((1...3).allSatisfy(submit))
            #expect(!submit(4))
            #expect(lane.status.queued == 3)
            #expect(lane.status.running == 1)
            #expect(lane.status.refused == 1)
            let error = await #expect(throws: SystemError.self) { _ = try await lane.run(on: host.loops[0]) { 1 } }
            #expect(error?.kind == .busy)
            gate.open()
            while lane.status.completed < 4 { await host.loops[0].sleep(for: .milliseconds(1)) }
            _ = await host.loops[0].run { 0 }
            #expect(done.all == [0, 1, 2, 3])
            #expect(lane.status.queued == 0 && lane.status.running == 0)
            #expect(lane.status.busyNanoseconds > 0)
            // three of them have waited for the first
            #expect(lane.status.waitedNanoseconds > 0)
        }
    }

    @Test func aLaneGrowsForWhatWaitsAndShrinksWhenThatIsDone() async throws {
        try await withHost { host in
            let lane = host.makeLane("bulk", threads: 1, limit: 10) as! RealLane
            let gate = Gate(), running = Atomic<Int>(0)
            for _ in 0..<4 {
                #expect(lane.submit({
                    running.wrappingAdd(1, ordering: .relaxed)
                    gate.wait()
                }, on: host.loops[0]) {})
            }
            while running.load(ordering: .relaxed) < 1 { await host.loops[0].sleep(for: .milliseconds(1)) }
            #expect(lane.status.queued == 3)
            lane.resize(threads: 3)
            while running.load(ordering: .relaxed) < 3 { await host.loops[0].sleep(for: .milliseconds(1)) }
            #expect(lane.status.queued == 1)
            lane.resize(threads: 1)
            gate.open()
            while lane.status.completed < 4 { await host.loops[0].sleep(for: .milliseconds(1)) }
            while lane.threadCount > 1 { await host.loops[0].sleep(for: .milliseconds(1)) }
            let closed = Gate()
            for _ in 0..<3 { #expect(lane.submit({ closed.wait() }, on: host.loops[0]) {}) }
            while lane.status.running == 0 { await host.loops[0].sleep(for: .milliseconds(1)) }
            #expect(lane.status.running == 1 && lane.status.queued == 2, "one at a time again")
            closed.open()
            while lane.status.completed < 7 { await host.loops[0].sleep(for: .milliseconds(1)) }
        }
    }

    @Test func aBlockedLaneDelaysNoOther() async throws {
        try await withHost { host in
            let slow = host.makeLane("cold-reads", threads: 1, limit: 4)
            let quick = host.makeLane("sync", threads: 1, limit: 4)
            let gate = Gate()
            #expect(slow.submit({ gate.wait() }, on: host.loops[0]) {})
            let result = try await quick.run(on: host.loops[0]) { 7 }
            #expect(result == 7)
            gate.open()
        }
    }

    @Test func aLaneOfTwoThreadsDoesTwoThingsAtOnce() async throws {
        try await withHost { host in
            let lane = host.makeLane("sync", threads: 2, limit: 4)
            let first = Gate(), second = Gate(), done = Promise<Void>()
            // each waits for the other: one thread alone would never end
            #expect(
                lane.submit(
                    {
                        first.open()
                        second.wait()
                    }, on: host.loops[0]) { done.keep(()) })
            #expect(
                lane.submit(
                    {
                        second.open()
                        first.wait()
                    }, on: host.loops[0]) {})
            await done.value
        }
    }

    @Test func threadsBearTheLanesName() async throws {
        try await withHost { host in
            let lane = host.makeLane("cold-reads", threads: 1, limit: 1)
            let name = try await lane.run(on: host.loops[0]) { () -> String? in
                let bytes = try? RealDisk().open("/proc/thread-self/comm", .read).bytes(100)
                return bytes.map { String(decoding: $0, as: UTF8.self) }
            }
            #expect(name == "cold-reads\n")
        }
    }

    @Test func stoppingTheHostDoesWhatWaitsAndDeliversIt() async throws {
        let done = Counter()
        try await withHost { host in
            let lane = host.makeLane("bulk", threads: 2, limit: 200)
            for _ in 0..<200 { #expect(lane.submit({ 1 }, on: host.loops[0]) { _ in done.increase() }) }
        }
        #expect(done.value == 200)
    }

    @Test func aRingThatGrowsAndWrapsKeepsTheOrder() async throws {
        try await withHost { host in
            let lane = host.makeLane("bulk", threads: 1, limit: 1000) as! RealLane
            let order = Confined<[Int]>([])
            var next = 0
            for round in 0..<20 {
                for _ in 0..<(round * 17 % 300) {
                    let number = next
                    next += 1
                    #expect(lane.submit({ number }, on: host.loops[0]) { order.value.append($0) })
                }
                _ = try await lane.run(on: host.loops[0]) { 0 }
            }
            let total = next
            #expect(await host.loops[0].run { order.value } == Array(0..<total))
        }
    }
}
