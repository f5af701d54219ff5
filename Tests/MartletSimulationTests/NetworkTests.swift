import MartletBasics
import MartletReactor
import MartletSimulation
import Testing

/// Two machines, a server that listens on port 9092 and keeps its connections, and a client.
private final class Pair: @unchecked Sendable {
    let world: SimulatedWorld
    let server: SimulatedHost
    let client: SimulatedHost
    let accepted = Box<[Exchange]>([])
    let connected = Box<[Exchange]>([])
    let refused = Box<[SystemError]>([])
    var address: SocketAddress { SocketAddress(host: server.address, port: 9092) }

    init(seed: UInt64) {
        world = SimulatedWorld(seed: seed)
        server = world.makeHost("server")
        client = world.makeHost("client")
    }

    deinit { world.end() }

    @discardableResult
    func listen(echoes: Bool = false, on host: String = "0.0.0.0") throws -> any ListeningSocket {
        let loop = server.loops[0]
        let accepted = accepted
        return try server.network.listen(on: SocketAddress(host: host, port: 9092), loop: loop) {
            accepted.value.append(Exchange($0, on: loop, echoes: echoes))
        }
    }

    func connect(from host: SimulatedHost? = nil, to target: SocketAddress? = nil, sending: [UInt8] = []) {
        let loop = (host ?? client).loops[0]
        let connected = connected
        let refused = refused
        (host ?? client).network.connect(to: target ?? address, loop: loop) { result in
            switch result {
            case .success(let socket): connected.value.append(Exchange(socket, on: loop, sending: sending))
            case .failure(let error): refused.value.append(error)
            }
        }
    }
}

@Suite struct Connections {
    @Test func bytesArriveInOrderHoweverTheyAreCut() throws {
        let content = (0..<100_000).map { UInt8(truncatingIfNeeded: $0 / 7) }
        for seed: UInt64 in 1...15 {
            let pair = Pair(seed: seed)
            try pair.listen(echoes: true)
            pair.connect(sending: content)
            #expect(pair.world.run(atMost: .seconds(5)) { pair.connected.value.first?.received.count == content.count })
            #expect(pair.connected.value[0].received == content, "seed \(seed)")
            #expect(pair.accepted.value[0].received == content)
        }
    }

    @Test func oneSendMayArriveInPieces() throws {
        var pieces: Set<Int> = []
        for seed: UInt64 in 1...40 {
            let pair = Pair(seed: seed)
            let loop = pair.server.loops[0]
            let reads = Box<[Int]>([])
            _ = try pair.server.network.listen(on: pair.address, loop: loop) { socket in
                socket.attach(to: loop) { _ in
                    if case (.moved(let count), _) = socket.receiveSome() { reads.value.append(count) }
                }
                socket.watch(.readable)
            }
            pair.connect(sending: [UInt8](repeating: 1, count: 1000))
            pair.world.run(for: .seconds(1))
            #expect(reads.value.reduce(0, +) == 1000)
            pieces.insert(reads.value.count)
        }
        #expect(pieces.contains(1) && pieces.count > 2)
    }

    @Test func connectionsOvertakeOneAnother() throws {
        var orders: Set<[UInt8]> = []
        for seed: UInt64 in 1...30 {
            let pair = Pair(seed: seed)
            try pair.listen()
            for index: UInt8 in 1...3 { pair.connect(sending: [index]) }
            pair.world.run(for: .seconds(1))
            orders.insert(pair.accepted.value.flatMap(\.received))
        }
        #expect(orders.count > 2)
    }

    @Test func aSenderWaitsForAReaderThatDoesNotRead() throws {
        let pair = Pair(seed: 3)
        let loop = pair.server.loops[0]
        let kept = Box<(any StreamSocket)?>(nil)
        let received = Box(0)
        _ = try pair.server.network.listen(on: pair.address, loop: loop) { socket in
            kept.value = socket
            socket.attach(to: loop) { readiness in
                guard readiness.contains(.readable) else { return }
                if case (.moved(let count), _) = socket.receiveSome(65_536) { received.value += count }
            }
        }
        pair.connect(sending: [UInt8](repeating: 1, count: 1 << 20))
        pair.world.run(for: .seconds(1))
        let sender = pair.connected.value[0]
        #expect((1 << 20) - sender.toSend.count == pair.world.network.pipeBytesLimit)
        #expect(sender.wouldBlockCount > 0)
        loop.execute { kept.value?.watch(.readable) }
        pair.world.run(for: .seconds(1))
        #expect(sender.toSend.isEmpty)
        #expect(received.value == 1 << 20)
    }

    @Test func nothingIsToldThatIsNotWatchedButTheHangUpOnce() throws {
        let pair = Pair(seed: 3)
        let loop = pair.server.loops[0]
        let told = Box<[Readiness]>([])
        _ = try pair.server.network.listen(on: pair.address, loop: loop) { socket in
            socket.attach(to: loop) { told.value.append($0) }
        }
        pair.connect(sending: [1, 2, 3])
        pair.world.run(for: .seconds(1))
        #expect(told.value == [])
        pair.client.loops[0].execute { pair.connected.value[0].socket.close() }
        pair.world.run(for: .seconds(1))
        #expect(told.value == [.hungUp])
    }

    @Test func aCloseIsAnEndAfterTheLastByte() throws {
        for seed: UInt64 in 1...20 {
            let pair = Pair(seed: seed)
            try pair.listen()
            pair.connect(sending: [1, 2, 3])
            #expect(pair.world.run(atMost: .seconds(1)) { pair.connected.value.first?.toSend.isEmpty == true })
            pair.client.loops[0].execute {
                pair.connected.value[0].socket.close()
                pair.connected.value[0].socket.close()
            }
            pair.world.run(for: .seconds(1))
            #expect(pair.accepted.value[0].received == [1, 2, 3])
            #expect(pair.accepted.value[0].hasEnded && pair.accepted.value[0].hungUpCount == 1)
        }
    }

    @Test func aPeerThatFinishedSendingStillReceives() throws {
        let pair = Pair(seed: 4)
        let loop = pair.server.loops[0]
        _ = try pair.server.network.listen(on: pair.address, loop: loop) { socket in
            socket.attach(to: loop) { _ in
                guard case (.ended, _) = socket.receiveSome() else { return }
                #expect(socket.sendSome([9, 9]) != .ended)
                socket.close()
            }
            socket.watch(.readable)
        }
        pair.connect()
        pair.world.run(for: .seconds(1))
        let exchange = pair.connected.value[0]
        pair.client.loops[0].execute { (exchange.socket as? SimulatedSocket)?.finishSending() }
        pair.world.run(for: .seconds(1))
        #expect(exchange.received.first == 9)
        #expect(exchange.hasEnded)
    }

    @Test func sendingToOneWhoHasClosedEndsTheConnection() throws {
        let pair = Pair(seed: 4)
        try pair.listen()
        pair.connect()
        pair.world.run(for: .seconds(1))
        let sender = pair.connected.value[0].socket
        let transfers = Box<[Transfer]>([])
        pair.server.loops[0].execute { pair.accepted.value[0].socket.close() }
        pair.world.run(for: .microseconds(40))
        for delay in [0, 1_000_000] as [Int64] {
            pair.world.after(.microseconds(delay)) {
                pair.client.loops[0].execute { transfers.value.append(sender.sendSome([1])) }
            }
        }
        pair.world.run(for: .seconds(2))
        #expect(transfers.value == [.moved(1), .ended])
    }

    @Test func aRangeOfAFileIsSent() throws {
        let pair = Pair(seed: 4)
        try pair.listen()
        let content = (0..<50_000).map { UInt8(truncatingIfNeeded: $0 / 5) }
        try pair.client.disk.write("/f", content)
        let file = try pair.client.disk.open("/f", .read)
        pair.connect()
        pair.world.run(for: .seconds(1))
        let socket = pair.connected.value[0].socket
        let failure = Box<SystemError?>(nil)
        pair.client.loops[0].execute {
            var offset: Int64 = 10
            do {
                while offset < 50_000 {
                    guard case .moved(let count) = try socket.send(file, at: offset, count: 70_000, more: false) else { break }
                    offset += Int64(count)
                }
                _ = try socket.send(file, at: 50_000, count: 1, more: false)
            } catch { failure.value = error as? SystemError }
        }
        pair.world.run(for: .seconds(1))
        #expect(pair.accepted.value[0].received == Array(content[10...]))
        #expect(failure.value?.kind == .inputOutput)
    }
}

@Suite struct Listening {
    @Test func nobodyListensAndTheConnectionIsRefused() {
        let pair = Pair(seed: 1)
        pair.connect()
        pair.world.run(for: .seconds(1))
        #expect(pair.refused.value.map(\.code) == [111])
    }

    @Test func aPortIsTakenOnceOnAMachineAndFreeAgainAfterClosing() throws {
        let pair = Pair(seed: 1)
        let listening = try pair.listen()
        func kind(_ host: SimulatedHost, _ address: String) -> SystemError.Kind? {
            do {
                let socket = try host.network.listen(on: SocketAddress(host: address, port: 9092), loop: host.loops[0]) { _ in }
                socket.close()
            } catch { return error.kind }
            return nil
        }
        for address in ["0.0.0.0", "127.0.0.1", pair.server.address] { #expect(kind(pair.server, address) == .addressInUse) }
        #expect(kind(pair.client, "0.0.0.0") == nil)
        #expect(kind(pair.world.makeProcess("other", beside: pair.server), "0.0.0.0") == .addressInUse)
        listening.close()
        listening.close()
        for address in ["0.0.0.0", "127.0.0.1", pair.server.address] { #expect(kind(pair.server, address) == nil) }
        try pair.listen(on: "127.0.0.1")
        #expect(kind(pair.server, "0.0.0.0") == .addressInUse)
        #expect(kind(pair.server, "::") == nil, "IPv6 is a family of its own")
        let free = try pair.server.network.listen(on: SocketAddress(host: "0.0.0.0", port: 0), loop: pair.server.loops[0]) { _ in }
        #expect(free.address.port >= 32_768)
    }

    @Test func loopbackIsEachMachinesOwn() throws {
        let pair = Pair(seed: 1)
        try pair.listen(echoes: true, on: "127.0.0.1")
        let loopback = SocketAddress(host: "127.0.0.1", port: 9092)
        pair.connect(to: loopback)
        pair.connect(to: pair.address)
        pair.world.run(for: .seconds(1))
        #expect(pair.refused.value.count == 2)
        pair.connect(from: pair.server, to: loopback, sending: [5])
        pair.world.run(for: .seconds(1))
        #expect(pair.connected.value.map(\.received) == [[5]])
        #expect(pair.connected.value[0].socket.local.host == "127.0.0.1")
    }

    @Test func namesOfHostsAndLiteralsResolve() throws {
        let pair = Pair(seed: 1)
        #expect(try pair.client.network.resolve("server") == [pair.server.address])
        #expect(try pair.client.network.resolve("10.9.8.7") == ["10.9.8.7"])
        #expect(try pair.client.network.resolve("::1") == ["::1"])
        #expect(try pair.client.network.resolve("localhost") == ["127.0.0.1"])
        #expect(throws: SystemError.self) { try pair.client.network.resolve("nobody") }
    }

    @Test func aPausedListenerAcceptsLater() throws {
        let pair = Pair(seed: 1)
        let listening = try pair.listen()
        pair.server.loops[0].execute { listening.pause(for: .seconds(1)) }
        pair.world.run(for: .milliseconds(1))
        pair.connect(sending: [1, 2])
        pair.world.run(for: .milliseconds(900))
        #expect(pair.accepted.value.isEmpty)
        #expect(pair.connected.value.count == 1, "the system has completed the connection")
        pair.world.run(for: .seconds(1))
        #expect(pair.accepted.value.map(\.received) == [[1, 2]])
    }

    @Test func whatWaitsToBeAcceptedIsResetWhenTheListenerCloses() throws {
        let pair = Pair(seed: 1)
        let listening = try pair.listen()
        pair.server.loops[0].execute { listening.pause(for: .seconds(100)) }
        pair.world.run(for: .milliseconds(1))
        pair.connect()
        pair.world.run(for: .seconds(1))
        pair.server.loops[0].execute { listening.close() }
        pair.world.run(for: .seconds(1))
        #expect(pair.connected.value[0].hasEnded)
        #expect(pair.accepted.value.isEmpty)
    }
}

@Suite struct NetworkFaults {
    @Test func peersOfAKilledProcessLearnOfIt() throws {
        for seed: UInt64 in 1...20 {
            let pair = Pair(seed: seed)
            try pair.listen()
            pair.connect(sending: [1])
            pair.world.run(for: .seconds(1))
            pair.server.kill()
            pair.world.run(for: .milliseconds(50))
            #expect(pair.connected.value[0].hungUpCount == 1 && pair.connected.value[0].hasEnded)
            let next = pair.server.restart()
            _ = try next.network.listen(on: pair.address, loop: next.loops[0]) { _ in }
            pair.connect()
            pair.world.run(for: .seconds(1))
            #expect(pair.connected.value.count == 2, "the port is free for the successor")
        }
    }

    @Test func peersOfAMachineWithoutPowerLearnOfItLate() throws {
        var early = 0
        for seed: UInt64 in 1...30 {
            let pair = Pair(seed: seed)
            try pair.listen()
            pair.connect(sending: [1])
            pair.world.run(for: .seconds(1))
            pair.server.powerCut()
            pair.world.run(for: .milliseconds(500))
            if pair.connected.value[0].hasEnded { early += 1 }
            pair.world.run(for: .seconds(2))
            #expect(pair.connected.value[0].hasEnded)
        }
        #expect(early > 0 && early < 20)
    }

    @Test func aPartitionHoldsEverythingBackAndHealingBringsItInOrder() throws {
        let content = (0..<60_000).map { UInt8(truncatingIfNeeded: $0 / 3) }
        for seed: UInt64 in 1...20 {
            let pair = Pair(seed: seed)
            try pair.listen(echoes: true)
            pair.connect(sending: content)
            _ = pair.world.run(atMost: .seconds(1)) { (pair.accepted.value.first?.received.count ?? 0) > 5000 }
            pair.world.network.partition(pair.server, pair.client)
            pair.world.run(for: .milliseconds(20))
            let count = pair.accepted.value[0].received.count
            pair.world.run(for: .seconds(60))
            #expect(pair.accepted.value[0].received.count == count)
            #expect(!pair.accepted.value[0].hasEnded, "nobody tells that the network is gone")
            pair.world.network.heal(pair.server, pair.client)
            pair.world.run(for: .seconds(1))
            #expect(pair.connected.value[0].received == content, "seed \(seed)")
        }
    }

    @Test func whatIsOnTheWayWhenAPartitionHealsDoesNotOvertakeWhatWasHeldBack() throws {
        for seed: UInt64 in 1...30 {
            let pair = Pair(seed: seed)
            try pair.listen()
            pair.connect()
            pair.world.run(for: .seconds(1))
            pair.world.network.partition(pair.server, pair.client)
            for value: UInt8 in 1...2 {
                pair.client.loops[0].execute { _ = pair.connected.value[0].socket.sendSome([value]) }
                if value == 1 { pair.world.run(for: .seconds(1)) }
            }
            pair.world.run(for: .microseconds(60))
            pair.world.network.heal()
            pair.world.run(for: .seconds(1))
            #expect(pair.accepted.value[0].received == [1, 2], "seed \(seed)")
        }
    }

    @Test func aStalledDirectionLeavesTheOtherAlone() throws {
        let pair = Pair(seed: 2)
        try pair.listen(echoes: true)
        pair.connect()
        pair.world.run(for: .seconds(1))
        pair.world.network.stall(from: pair.server, to: pair.client)
        pair.client.loops[0].execute { _ = pair.connected.value[0].socket.sendSome([7]) }
        pair.world.run(for: .seconds(1))
        #expect(pair.accepted.value[0].received == [7])
        #expect(pair.connected.value[0].received == [])
        pair.world.network.heal()
        pair.world.run(for: .seconds(1))
        #expect(pair.connected.value[0].received == [7])
    }

    @Test func connectingOverAPartitionFailsInTheEndOrSucceedsOnceItHeals() throws {
        let pair = Pair(seed: 2)
        try pair.listen()
        pair.world.network.partition(pair.server, pair.client)
        pair.connect()
        pair.world.run(for: .seconds(60))
        #expect(pair.refused.value.map(\.code) == [110])
        pair.connect()
        pair.world.run(for: .milliseconds(500))
        pair.world.network.heal()
        pair.world.run(for: .seconds(2))
        #expect(pair.connected.value.count == 1)
    }

    @Test func aCutConnectionIsResetOnBothSidesAndOthersAreNot() throws {
        let pair = Pair(seed: 2)
        let third = pair.world.makeHost("third")
        try pair.listen(echoes: true)
        pair.connect()
        pair.connect(from: third)
        pair.world.run(for: .seconds(1))
        #expect(pair.world.network.connectionsCount(pair.server, pair.client) == 1)
        pair.world.network.cut(pair.server, pair.client)
        pair.world.run(for: .seconds(1))
        #expect(pair.connected.value.count { $0.hasEnded } == 1)
        #expect(pair.accepted.value.count { $0.hasEnded } == 1)
        #expect(pair.world.network.connectionsCount(pair.server, pair.client) == 0)
        #expect(pair.world.network.connectionsCount(pair.server, third) == 1)
    }

    @Test func aDelayedDirectionIsLateAndInOrder() throws {
        let pair = Pair(seed: 2)
        try pair.listen(echoes: true)
        pair.connect()
        pair.world.run(for: .seconds(1))
        pair.world.network.delay(from: pair.client, to: pair.server, by: .milliseconds(300))
        pair.client.loops[0].execute { _ = pair.connected.value[0].socket.sendSome([1, 2]) }
        pair.world.run(for: .milliseconds(299))
        #expect(pair.accepted.value[0].received == [])
        pair.world.network.heal()
        pair.client.loops[0].execute { _ = pair.connected.value[0].socket.sendSome([3]) }
        pair.world.run(for: .seconds(1))
        #expect(pair.connected.value[0].received == [1, 2, 3])
    }
}
