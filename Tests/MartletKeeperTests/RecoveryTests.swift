import MartletBasics
import MartletKeeper
import MartletReactor
import Testing

private let timeout = Interval.seconds(6)

private func create(_ path: String, _ data: [UInt8]? = nil, _ mode: CreateMode = .persistent) -> KeeperOperation {
    .create(path: path, data: data, acl: ACL.open, mode: mode)
}

/// One life of the keeper after another, on one disk.
private func life(on disk: MemoryDisk, seed: UInt64 = 1, _ change: @escaping @Sendable (inout KeeperSettings) -> Void = { _ in },
    _ body: @escaping @Sendable (EmbeddedKeeper, EmbeddedSession, World) async throws -> Void, at location: SourceLocation = #_sourceLocation
) {
    World(seed: seed, disk: disk).run({ world in
        let keeper = try await world.openKeeper(change)
        try await body(keeper, try await keeper.openSession(timeout: timeout, on: world.loop), world)
    }, at: location)
}

private func refusesToOpen(_ disk: MemoryDisk) -> KeeperError? {
    let found = Record<KeeperError>()
    World(disk: disk).run { world in
        do throws(KeeperError) { _ = try await world.openKeeper() } catch { found.add(error) }
    }
    return found.all.first
}

@Suite struct Recovery {
    @Test func whatWasAnsweredIsThereAfterAPowerCut() {
        let disk = MemoryDisk(seed: 1)
        let last = Record<Zxid>()
        life(on: disk) { keeper, session, _ async throws in
            _ = try await session.create("/a", [1])
            _ = try await session.create("/mine", nil, .ephemeral)
            last.add(keeper.lastZxid)
        }
        disk.restart()
        life(on: disk) { keeper, session, _ async throws in
            #expect(try await session.get("/a").data == [1])
            #expect(try await session.exists("/mine") == nil, "the session of the former process is ended, without waiting for its timeout")
            #expect(try await session.create("/b", nil).stat.czxid.epoch == last.all[0].epoch + 1, "every opening begins an epoch")
        }
    }

    @Test func twoProcessesDoNotShareADirectory() {
        World().run { world in
            let keeper = try await world.openKeeper()
            #expect(await refusal { () async throws(KeeperError) in try await world.openKeeper() } == .systemError)
            await keeper.close()
            _ = try await world.openKeeper()
        }
    }

    @Test func snapshotsReplaceTheLogsBeforeThem() {
        let disk = MemoryDisk(seed: 1)
        let small: @Sendable (inout KeeperSettings) -> Void = { $0.snapshotTransactions = 10 }
        life(on: disk, small) { keeper, session, _ async throws in
            for number in 0..<100 {
                _ = try await session.create("/\(number)", [UInt8(number)])
                await Task.yield()
            }
            await keeper.close()
        }
        #expect(disk.files("/keeper/snapshot.").count == 3)
        #expect(disk.files("/keeper/log.").count <= 5)
        disk.restart()
        life(on: disk, small) { keeper, session, _ async throws in
            #expect(try await session.children("/").names.count == 101)
            #expect(try await session.get("/77").data == [77])
        }
    }

    @Test func aDamagedSnapshotIsPassedOverForAnOlderOneAndTheLog() {
        let disk = MemoryDisk(seed: 1)
        let small: @Sendable (inout KeeperSettings) -> Void = { $0.snapshotTransactions = 10 }
        life(on: disk, small) { keeper, session, _ async throws in
            for number in 0..<45 { _ = try await session.create("/\(number)", nil) }
            await keeper.close()
        }
        let newest = disk.files("/keeper/snapshot.").last!
        var bytes = disk.bytes(newest)!
        bytes[bytes.count / 2] ^= 1
        disk.setBytes(newest, bytes)
        life(on: disk, small) { _, session, _ async throws in
            #expect(try await session.children("/").names.count == 46)
        }
        #expect(disk.bytes(newest + ".damaged") == bytes, "nothing is thrown away")
    }

    @Test(arguments: 0..<3) func anUnfinishedWriteAtTheEndIsCut(kind: Int) {
        let disk = MemoryDisk(seed: 1)
        life(on: disk) { _, session, _ in _ = try await session.create("/a", nil) }
        let file = disk.files("/keeper/log.").last!
        let good = disk.bytes(file)!
        let tails = [[1, 2, 3], [UInt8](repeating: 0, count: 4096), Array(good.suffix(50).dropLast())]
        disk.setBytes(file, good + tails[kind])
        disk.restart()
        life(on: disk) { _, session, _ async throws in #expect(try await session.exists("/a") != nil) }
        #expect(disk.bytes(file)! == good)
    }

    @Test func aBitThatFlippedInTheMiddleOfTheLogIsRefusedAndSaid() {
        let disk = MemoryDisk(seed: 1)
        life(on: disk) { _, session, _ async throws in for number in 0..<5 { _ = try await session.create("/\(number)", nil) } }
        let file = disk.files("/keeper/log.").last!
        let good = disk.bytes(file)!
        // every byte but those of the last group, which nothing behind it proves
        for at in stride(from: 0, to: good.count - 80, by: 3) {
            var bad = good
            bad[at] ^= 0x10
            disk.setBytes(file, bad)
            disk.restart()
            let error = refusesToOpen(disk)
            #expect(error?.code == .dataInconsistency, "byte \(at)")
            #expect(error?.message.contains(file) == true)
            #expect(disk.bytes(file) == bad, "nothing is changed")
        }
    }

    @Test func afterACleanEndEvenTheLastRecordIsProved() {
        let disk = MemoryDisk(seed: 1)
        life(on: disk) { keeper, session, _ async throws in
            _ = try await session.create("/last", nil)
            await keeper.close()
        }
        let file = disk.files("/keeper/log.").last!
        var bytes = disk.bytes(file)!
        bytes[bytes.count - 40] ^= 1
        disk.setBytes(file, bytes)
        disk.restart()
        #expect(refusesToOpen(disk)?.code == .dataInconsistency)
    }

    @Test func aMissingFileOfTheLogIsNoticed() {
        let disk = MemoryDisk(seed: 1)
        for number in 0..<3 { life(on: disk) { keeper, session, _ async throws in
            _ = try await session.create("/\(number)", nil)
            await keeper.close()
        } }
        try! disk.remove(disk.files("/keeper/log.")[1])
        disk.restart()
        #expect(refusesToOpen(disk)?.code == .dataInconsistency)
    }

    /// Random transactions, a power cut during a random operation of the disk, and again, on one disk: afterwards the tree must be one that some
    /// number of the transactions, in order, gives; all that were answered among them, and each as a whole.
    @Test(arguments: 0..<200 as Range<UInt64>) func noPowerCutLosesAnAnswerOrKeepsHalfOfAMulti(seed: UInt64) {
        var random = SeededRandom(seed: seed)
        var workload = Workload(seed: seed)
        let disk = MemoryDisk(seed: seed)
        var possible = [Model()]
        for generation in 0..<6 {
            let world = World(seed: seed &* 31 &+ UInt64(generation), disk: disk)
            let opened = Record<(EmbeddedKeeper, EmbeddedSession)>()
            let cutDuringOpening = random.chance(1, in: 4)
            if cutDuringOpening { disk.operationsUntilPowerCut = random.below(30) }
            world.run { world in
                do {
                    let keeper = try await world.openKeeper { $0.snapshotTransactions = 8 }
                    opened.add((keeper, try await keeper.openSession(timeout: timeout, on: world.loop)))
                } catch { #expect(disk.isOff, "seed \(seed), life \(generation): \(error)") }
            }
            guard let (keeper, session) = opened.all.first else {
                disk.restart()
                // whether the sessions of the former life were ended by then is not known
                continue
            }
            let found = Record<String>()
            world.loop.execute { found.add(keeper.snapshot.text) }
            world.settle()
            if disk.isOff {
                disk.restart()
                continue
            }
            for index in possible.indices { possible[index].endSessions() }
            guard let start = possible.lastIndex(where: { $0.text == found.all[0] }) else {
                Issue.record("seed \(seed), life \(generation): the tree is none that the transactions give:\n\(found.all[0])")
                return
            }
            possible = [possible[start]]
            if random.chance(4, in: 5) { disk.operationsUntilPowerCut = random.below(60) }
            let answered = Record<Int>()
            for number in 1...(1 + random.below(60)) where !disk.isOff {
                let operations = workload.operations()
                var next = possible.last!
                next.apply(operations)
                possible.append(next)
                let note: @Sendable (KeeperError?) -> Void = { error in
                    if error?.code != .connectionLoss { answered.add(number) }
                }
                world.loop.execute {
                    if operations.count == 1 {
                        session.propose(operations[0]) { if case .failure(let error) = $0 { note(error) } else { note(nil) } }
                    } else {
                        session.propose(multi: operations) { if case .failure(let error) = $0 { note(error) } else { note(nil) } }
                    }
                }
                for _ in 0..<random.below(12) { _ = world.step() }
            }
            if random.chance(1, in: 2) { world.settle() }
            #expect(answered.all == Array(1..<(1 + answered.all.count)), "answers come in order")
            possible.removeFirst(answered.all.count)
            disk.restart()
        }
    }
}
