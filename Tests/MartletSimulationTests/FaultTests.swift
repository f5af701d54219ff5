import MartletBasics
import MartletReactor
import MartletSimulation
import Testing

/// What befalls a process: each fault does what it says, where it says, and nothing else.
@Suite struct Faults {
    /// A process that writes, sets timers and hands work to a lane, for ever; how far it came.
    private func work(_ host: SimulatedHost, _ steps: Box<[String]>) throws {
        try host.disk.makeDirectory("/data")
        let file = try host.disk.open("/data/log", .create)
        let lane = host.makeLane("sync", threads: 1, limit: 8)
        let loop = host.loops[0]
        let step = Box<() -> Void>({})
        step.value = {
            steps.value.append("write")
            let content = bytes("0123456789")
            guard (try? content.withUnsafeBytes { try file.write($0, at: Int64(steps.value.count) * 10) }) != nil else {
                return
            }
            steps.value.append("submit")
            _ = lane.submit({ try? file.sync() }, on: loop) { _ in
                steps.value.append("timer")
                loop.schedule(after: .milliseconds(1)) { step.value() }
            }
        }
        loop.execute { step.value() }
    }

    @Test func aKillFallsAtAnyCallOfASeam() throws {
        var last: Set<String> = []
        for count in 0..<40 {
            let world = SimulatedWorld(seed: 3)
            defer { world.end() }
            let host = world.makeHost("a")
            let steps = Box<[String]>([])
            try work(host, steps)
            host.kill(afterSeamCalls: count)
            world.run(for: .seconds(1))
            #expect(!host.isAlive, "after \(count) calls")
            #expect(host.hasPower)
            let came = steps.value.count
            last.insert(steps.value.last ?? "nothing")
            world.run(for: .seconds(1))
            #expect(steps.value.count == came, "the dead do nothing")
            // what it wrote is in the page cache
            let again = host.restart()
            #expect(again.isAlive)
            #expect(try again.disk.status("/data/log") != nil)
        }
        #expect(last.isSuperset(of: ["write", "submit", "timer"]), "\(last)")
    }

    @Test func aCountdownThatIsForgottenKillsNobody() throws {
        let world = SimulatedWorld(seed: 3)
        defer { world.end() }
        let host = world.makeHost("a")
        try work(host, Box<[String]>([]))
        host.kill(afterSeamCalls: 10)
        host.powerCut(afterDiskOperations: 5)
        host.forgetCountdowns()
        world.run(for: .seconds(1))
        #expect(host.isAlive)
    }

    @Test func aClockThatDriftsLeavesTheOthersBehindAndKeepsWhatItWasSetTo() {
        let world = SimulatedWorld(seed: 1)
        defer { world.end() }
        let (fast, slow, right) = (world.makeHost("fast"), world.makeHost("slow"), world.makeHost("right"))
        fast.wallDrift = 100_000
        slow.wallDrift = -50_000
        world.run(for: .seconds(100))
        let now = right.clock.wallMilliseconds
        #expect(fast.clock.wallMilliseconds - now == 10_000)
        #expect(slow.clock.wallMilliseconds - now == -5_000)
        // it runs right again from where it is, also after a restart
        fast.wallDrift = 0
        let restarted = slow.restart()
        world.run(for: .seconds(100))
        #expect(fast.clock.wallMilliseconds - right.clock.wallMilliseconds == 10_000)
        #expect(restarted.clock.wallMilliseconds - right.clock.wallMilliseconds == -10_000)
        fast.wallOffset = .milliseconds(-3)
        #expect(fast.clock.wallMilliseconds - right.clock.wallMilliseconds == -3)
        // nobody's monotonic clock is touched
        #expect(fast.clock.now == right.clock.now)
    }

    @Test func aTornPageIsCounted() throws {
        var torn = 0
        for seed: UInt64 in 1...60 {
            let world = SimulatedWorld(seed: seed)
            defer { world.end() }
            let host = world.makeHost("a")
            try host.disk.write("/f", [UInt8](repeating: 1, count: 40_000), sync: true)
            try host.disk.syncDirectory("/")
            try host.disk.write("/f", [UInt8](repeating: 2, count: 40_000))
            host.powerCut()
            #expect(!host.hasPower)
            torn += host.files.tornPagesCount
            let left = try host.restart().disk.contents("/f") ?? []
            // a page of both is one that the count knows of
            let mixed = stride(from: 0, to: left.count, by: 4096).count { start in
                Set(left[start..<min(start + 4096, left.count)]).count > 1
            }
            #expect(mixed <= host.files.tornPagesCount, "seed \(seed)")
        }
        #expect(torn > 0)
    }
}

@Suite struct HalfOpenConnections {
    @Test func whoKeepsAHalfOpenConnectionHearsOfItWhenHeSends() throws {
        for seed: UInt64 in 1...10 {
            let world = SimulatedWorld(seed: seed)
            defer { world.end() }
            let (server, client) = (world.makeHost("server"), world.makeHost("client"))
            let kept = Box<[Exchange]>([])
            let lost = Box<[Exchange]>([])
            let loop = server.loops[0]
            _ = try server.network.listen(on: SocketAddress(host: "0.0.0.0", port: 9092), loop: loop) {
                kept.value.append(Exchange($0, on: loop))
            }
            let clientLoop = client.loops[0]
            client.network.connect(to: SocketAddress(host: server.address, port: 9092), loop: clientLoop) { result in
                if case .success(let socket) = result {
                    lost.value.append(Exchange(socket, on: clientLoop, sending: bytes("hello")))
                }
            }
            #expect(world.run(atMost: .seconds(1)) { kept.value.first?.received == bytes("hello") })
            world.network.leaveHalfOpen(lostBy: client, keptBy: server)
            #expect(world.run(atMost: .seconds(1)) { lost.value[0].hasEnded }, "who lost it knows at once")
            world.run(for: .seconds(60))
            #expect(kept.value[0].hungUpCount == 0 && !kept.value[0].hasEnded, "nobody tells the other")
            loop.execute { _ = kept.value[0].socket.sendSome(bytes("are you there?")[...]) }
            #expect(world.run(atMost: .seconds(1)) { kept.value[0].hungUpCount > 0 }, "seed \(seed)")
        }
    }
}

@Suite struct Reordering {
    @Test func connectionsOvertakeEachOtherAndKeepTheirOwnOrder() throws {
        var overtaken = 0
        for seed: UInt64 in 1...10 {
            let world = SimulatedWorld(seed: seed)
            defer { world.end() }
            let (server, client) = (world.makeHost("server"), world.makeHost("client"))
            world.network.latency = Latency(.microseconds(60), .milliseconds(40))
            let kept = Box<[Exchange]>([])
            let loop = server.loops[0]
            _ = try server.network.listen(on: SocketAddress(host: "0.0.0.0", port: 9092), loop: loop) {
                kept.value.append(Exchange($0, on: loop))
            }
            let clientLoop = client.loops[0]
            let made = Box<[any StreamSocket]>([])
            for _ in 0..<2 {
                client.network.connect(to: SocketAddress(host: server.address, port: 9092), loop: clientLoop) { result in
                    if case .success(let socket) = result {
                        socket.attach(to: clientLoop) { _ in }
                        made.value.append(socket)
                    }
                }
            }
            #expect(world.run(atMost: .seconds(1)) { made.value.count == 2 && kept.value.count == 2 })
            // a send may take one of two bytes only
            for (place, text) in ["ab", "cd"].enumerated() {
                clientLoop.execute {
                    for byte in text.utf8 { _ = made.value[place].sendSome([byte]) }
                }
                world.run(for: .milliseconds(1))
            }
            let came = Box<String>("")
            #expect(
                world.run(atMost: .seconds(1)) {
                    for exchange in kept.value
                    where exchange.received.count == 2 && !came.value.utf8.contains(exchange.received[0]) {
                        came.value += String(decoding: exchange.received, as: UTF8.self)
                    }
                    return came.value.utf8.count == 4
                })
            #expect(came.value == "abcd" || came.value == "cdab")
            if came.value == "cdab" { overtaken += 1 }
        }
        #expect(overtaken > 0, "what is sent later on another connection comes earlier now and then")
    }
}
