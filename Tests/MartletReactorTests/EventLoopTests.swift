import MartletBasics
import MartletReactor
import Testing

@Suite(.timeLimit(.minutes(1))) struct EventLoopTests {
    @Test func timersRunByDeadlineAndThoseOfOneDeadlineInTheOrderTheyWereSet() async throws {
        try await withHost { host in
            let loop = host.loops[0]
            let order = Record<Int>()
            let done = Promise<Void>()
            loop.execute {
                let delays: [Int64] = [30, 10, 20, 10, 0]
                for (index, delay) in delays.enumerated() {
                    loop.schedule(after: .milliseconds(delay)) { order.note(index) }
                }
                loop.schedule(after: .milliseconds(40)) { done.keep(()) }
            }
            await done.value
            #expect(order.all == [4, 1, 3, 2, 0])
        }
    }

    @Test func aTimerNeverRunsBeforeItsDelayHasPassed() async throws {
        try await withHost { host in
            let loop = host.loops[0]
            let lateness = Record<Int64>()
            let done = Promise<Void>()
            loop.execute {
                for delay: Int64 in [0, 300, 1_000, 1_700, 5_000, 12_345] {
                    let start = loop.clock.now
                    loop.schedule(after: .microseconds(delay)) {
                        lateness.note((loop.clock.now - start - .microseconds(delay)).nanoseconds)
                        if delay == 12_345 { done.keep(()) }
                    }
                }
            }
            await done.value
            #expect(lateness.all.count == 6)
            #expect(lateness.all.allSatisfy { $0 >= 0 })
        }
    }

    @Test func aCancelledTimerDoesNotRunAndALateCancelHitsNoOther() async throws {
        try await withHost { host in
            let loop = host.loops[0]
            let ran = Record<String>()
            let done = Promise<Void>()
            loop.execute {
                let first = loop.schedule(after: .milliseconds(1)) { ran.note("cancelled") }
                loop.cancel(first)
                // takes the place that the first one had
                loop.schedule(after: .milliseconds(2)) { ran.note("kept") }
                loop.cancel(first)
                loop.schedule(after: .milliseconds(5)) { done.keep(()) }
            }
            await done.value
            #expect(ran.all == ["kept"])
        }
    }

    @Test func aTimerMayCancelOneOfTheSameMoment() async throws {
        try await withHost { host in
            let loop = host.loops[0]
            let ran = Record<String>()
            let done = Promise<Void>()
            loop.execute {
                let second = Confined<TimerToken?>(nil)
                loop.schedule(after: .zero) {
                    ran.note("first")
                    loop.cancel(second.value!)
                }
                second.value = loop.schedule(after: .zero) { ran.note("second") }
                loop.schedule(after: .milliseconds(5)) { done.keep(()) }
            }
            await done.value
            #expect(ran.all == ["first"])
        }
    }

    @Test func aHundredThousandTimersOfWhichMostAreCancelledLeaveNothingBehind() async throws {
        try await withHost { host in
            let loop = host.loops[0] as! UVEventLoop
            let ran = Counter()
            let left = Promise<Int>()
            loop.execute {
                var random = SeededRandom(seed: 7)
                var tokens: [TimerToken] = []
                for _ in 0..<100_000 {
                    let delay = Interval.seconds(Int64(1 + random.below(1000)))
                    tokens.append(loop.schedule(after: delay) { ran.increase() })
                }
                for token in tokens.shuffled(using: &random) { loop.cancel(token) }
                left.keep(loop.timerCount)
            }
            #expect(await left.value == 0)
            #expect(ran.value == 0)
        }
    }

    @Test func workOfOneThreadRunsInTheOrderItWasHandedOver() async throws {
        try await withHost { host in
            let loop = host.loops[0]
            let seen = Confined<[Int: Int]>([:])
            let outOfOrder = Counter()
            await withTaskGroup(of: Void.self) { group in
                for thread in 0..<4 {
                    group.addTask {
                        for number in 1...5_000 {
                            loop.execute {
                                if seen.value[thread, default: 0] != number - 1 { outOfOrder.increase() }
                                seen.value[thread] = number
                            }
                        }
                    }
                }
            }
            let last = await loop.run { seen.value }
            #expect(last == [0: 5_000, 1: 5_000, 2: 5_000, 3: 5_000])
            #expect(outOfOrder.value == 0)
        }
    }

    @Test func whatOtherThreadsHandOverWhileTheLoopIsBusyRunsInOneTurn() async throws {
        try await withHost { host in
            let loop = host.loops[0] as! UVEventLoop
            let gate = Gate(), busy = Promise<Void>(), turns = Record<UInt64>()
            loop.execute {
                busy.keep(())
                gate.wait()
            }
            await busy.value
            for _ in 0..<1000 { loop.execute { turns.note(loop.turns) } }
            gate.open()
            _ = await loop.run { 0 }
            #expect(turns.all.count == 1000)
            #expect(Set(turns.all).count == 1)
        }
    }

    @Test func workHandedOverOnTheLoopRunsInALaterTurn() async throws {
        try await withHost { host in
            let loop = host.loops[0] as! UVEventLoop
            let turns = Promise<(UInt64, UInt64)>()
            loop.execute {
                let first = loop.turns
                loop.execute { turns.keep((first, loop.turns)) }
            }
            let (first, second) = await turns.value
            #expect(second > first)
        }
    }

    @Test func endOfTurnWorkRunsAfterEverythingThatWasReadyAndBeforeTheNextTurn() async throws {
        try await withHost { host in
            let loop = host.loops[0]
            let order = Record<String>()
            let done = Promise<Void>()
            loop.execute {
                for number in 1...3 {
                    loop.schedule(after: .zero) {
                        order.note("timer \(number)")
                        loop.execute {
                            order.note("next turn \(number)")
                            if number == 3 { done.keep(()) }
                        }
                        loop.atEndOfTurn {
                            order.note("end \(number)")
                            loop.atEndOfTurn { order.note("end of end \(number)") }
                        }
                    }
                }
            }
            await done.value
            #expect(
                order.all == [
                    "timer 1", "timer 2", "timer 3", "end 1", "end 2", "end 3",
                    "end of end 1", "end of end 2", "end of end 3",
                    "next turn 1", "next turn 2", "next turn 3",
                ])
        }
    }

    @Test func aTaskOfALoopStaysOnItAcrossSuspensions() async throws {
        try await withHost(loops: 2) { host in
            let loop = host.loops[1]
            let lane = host.makeLane("codec", threads: 1, limit: 4)
            let wasCurrent = Promise<[Bool]>()
            loop.spawn {
                var current = [loop.isCurrent]
                await loop.sleep(for: .milliseconds(1))
                current.append(loop.isCurrent)
                let onLane = try? await lane.run(on: loop) { loop.isCurrent }
                current.append(onLane == false && loop.isCurrent)
                _ = await host.loops[0].run { 1 }
                current.append(loop.isCurrent)
                wasCurrent.keep(current)
            }
            #expect(await wasCurrent.value == [true, true, true, true])
        }
    }

    @Test func aChainOfTasksThatNeverEndsDoesNotStarveTimers() async throws {
        try await withHost { host in
            let loop = host.loops[0]
            let stop = Confined(false)
            let ran = Promise<Void>()
            loop.execute {
                loop.schedule(after: .milliseconds(2)) {
                    stop.value = true
                    ran.keep(())
                }
            }
            let task = loop.spawn { while !stop.value { await Task.yield() } }
            await ran.value
            await task.value
        }
    }

    @Test func stoppingDoesWhatWasHandedOver() async throws {
        let count = Counter()
        try await withHost(loops: 2) { host in
            for _ in 0..<1000 {
                host.loops[1].execute {
                    host.loops[1].execute { count.increase() }
                }
            }
        }
        #expect(count.value == 1000)
    }

    @Test func theFirstLoopMayBeTheCallingThreads() throws {
        let host = try RealHost(loops: 2, firstLoop: .callingThread, log: SilentLog())
        #expect(host.loops[0].isCurrent)
        #expect(!host.loops[1].isCurrent)
        let lane = host.makeLane("sync", threads: 1, limit: 1)
        let order = Record<String>()
        host.loops[0].schedule(after: .milliseconds(1)) {
            order.note("timer")
            host.loops[1].execute { host.requestStop() }
        }
        host.run()
        _ = lane.submit({ order.note("lane") }, on: host.loops[0]) { order.note("result") }
        host.stop()
        #expect(order.all == ["timer", "lane", "result"])
    }
}
