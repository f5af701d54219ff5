import MartletBasics
import MartletLog
import MartletModel
import MartletReactor
import MartletSimulation
import Testing

private func from(_ producer: ProducerID, _ sequence: Int32, transactional: Bool = false) -> BatchIdentity {
    BatchIdentity(producerID: producer, epoch: 0, baseSequence: sequence, isTransactional: transactional)
}

@Suite struct LogAppendTests {
    @Test func reservationsOfOneTurnAreWrittenTogetherAndSeenOnlyThen() throws {
        let world = LogWorld(seed: 1)
        let log = try world.create()
        let parts = (0..<5).map { batch(["a\($0)", "b\($0)"]) }
        for (index, part) in parts.enumerated() {
            let reservation = try log.reserve(part.all, leaderEpoch: 3)
            #expect(reservation.baseOffset == Offset(index * 2) && reservation.lastOffset == Offset(index * 2 + 1))
        }
        #expect(log.logEndOffset == 0 && log.reservedEnd == 10 && log.hasReservations)
        #expect(try log.records().isEmpty)
        #expect(try log.writeReserved() == 10)
        withExtendedLifetime(parts) {}
        #expect(try log.records().count == 10)
        #expect(log.latestEpoch == 3 && !log.hasReservations)
        for batch in try log.batches() { #expect(batch.withUnsafeBytes { BatchHeader($0).leaderEpoch } == 3) }
    }

    @Test func whatIsReservedWhileAWriteIsUnderWayIsWrittenByTheNext() throws {
        let world = LogWorld(seed: 2)
        world.config.segmentBytes = 300
        let log = try world.create()
        let parts = (0..<12).map { batch(["value-\($0)"]) }
        var next = 0
        while next < parts.count {
            try _ = log.reserve(parts[next].all, leaderEpoch: 0)
            let write = try #require(try log.beginWrite())
            for part in parts[(next + 1)..<min(next + 3, parts.count)] { try _ = log.reserve(part.all, leaderEpoch: 0) }
            let failure = write.perform()
            try log.finishWrite(failure)
            #expect(log.logEndOffset == Offset(next + 1))
            try log.writeReserved()
            next += 3
        }
        #expect(log.segmentCount > 3)
        #expect(try log.records() == (0..<12).map { "\($0):value-\($0)" })
        // what lies in every segment can be found through indexes that a roll completed
        try log.sync(world.disk)
        #expect(log.durableOffset == 12)
    }

    @Test func aFullDiskFailsWhatWasReservedAndTheLogGoesOnWhenThereIsRoom() throws {
        for seed in UInt64(1)...30 {
            let world = LogWorld(seed: seed)
            world.config.segmentBytes = 500
            let log = try world.create()
            var random = SeededRandom(seed: seed)
            var expected: [String] = []
            var sequence: Int32 = 0
            for round in 0..<40 {
                let fails = random.chance(1, in: 3)
                let parts = (0..<(1 + random.below(4))).map { index in
                    batch(["r\(round)-\(index)"], at: Int64(round), identity: from(5, sequence + Int32(index)))
                }
                for part in parts { try _ = log.reserve(part.all, leaderEpoch: 0) }
                let write = try #require(try log.beginWrite())
                // some of the bytes may lie in the file: what came before the failure
                let failure =
                    fails
                    ? SystemError(
                        .noSpace, code: 28, operation: "pwritev", subject: "log", reason: "No space left on device")
                    : nil
                if !fails || random.chance(1, in: 2) { #expect(write.perform() == nil) }
                if fails {
                    #expect(throws: LogError.self) { try log.finishWrite(failure) }
                    #expect(log.reservedEnd == log.logEndOffset && !log.hasReservations)
                } else {
                    try log.finishWrite(nil)
                    for index in parts.indices { expected.append("\(expected.count):r\(round)-\(index)") }
                    sequence += Int32(parts.count)
                }
            }
            #expect(try log.records() == expected, "seed \(seed)")
            // the producer's sequences went back with the failed writes: the next one is what it was
            #expect(throws: LogError.self) { try log.append(batch(["gap"], identity: from(5, sequence + 1))) }
            try log.append(batch(["end"], at: 50, identity: from(5, sequence)))
            world.crash(powerCut: false)
            let again = try world.open()
            #expect(try again.records() == expected + ["\(expected.count):end"], "seed \(seed)")
        }
    }

    @Test func aWriteThatTheDiskRefusesLeavesNothingBehind() throws {
        let world = LogWorld(seed: 4)
        let log = try world.create()
        try log.append(batch(["kept"]))
        let size = try world.sizeOf(world.path(.log))
        world.host!.files.fail(.write, of: ".log", with: .noSpace)
        let error = #expect(throws: LogError.self) { try log.append(batch(["lost"])) }
        #expect(error?.code == .kafkaStorageError)
        #expect(try world.sizeOf(world.path(.log)) == size)
        try log.append(batch(["next"]))
        #expect(try log.records() == ["0:kept", "1:next"])
    }

    @Test func aBatchThatIsSentAgainIsAnsweredWithItsFirstOffset() throws {
        let world = LogWorld(seed: 5)
        let log = try world.create()
        try log.append(batch(["other"]))
        try log.append(batch(["a", "b"], identity: from(9, 0)))
        let again = try log.append(batch(["a", "b"], identity: from(9, 0)))
        #expect(again.isDuplicate && again.baseOffset == 1 && again.lastOffset == 2)
        // also while the first one is only reserved
        let first = batch(["c"], identity: from(9, 2))
        let second = batch(["c"], identity: from(9, 2))
        #expect(try log.reserve(first.all, leaderEpoch: 0).baseOffset == 3)
        #expect(try log.reserve(second.all, leaderEpoch: 0).isDuplicate)
        try log.writeReserved()
        #expect(log.logEndOffset == 4)
        let error = #expect(throws: LogError.self) { try log.append(batch(["z"], identity: from(9, 7))) }
        #expect(error?.code == .outOfOrderSequenceNumber)
        // and after a clean stop, and after recovery
        try log.close(clean: true)
        let reopened = try world.open(clean: true, recoveryPoint: 4)
        #expect(try reopened.append(batch(["c"], identity: from(9, 2))).isDuplicate)
        world.crash(powerCut: false)
        let recovered = try world.open()
        #expect(try recovered.append(batch(["c"], identity: from(9, 2))).isDuplicate)
        #expect(recovered.logEndOffset == 4)
    }

    @Test func readersOfCommittedRecordsStopAtAnOpenTransactionAndLearnOfAbortedOnes() throws {
        let world = LogWorld(seed: 6)
        world.config.segmentBytes = 400
        let log = try world.create()
        for (producer, sequence) in [(ProducerID(1), Int32(0)), (2, 0), (1, 1)] {
            try log.append(batch(["t"], identity: from(producer, sequence, transactional: true)))
        }
        #expect(log.lastStableOffset(highWatermark: 3) == 0)
        try log.append(marker(.abort, producer: 1), origin: .coordinator)
        log.noteHighWatermark(log.logEndOffset)
        #expect(log.lastStableOffset(highWatermark: 4) == 1)
        for index in 0..<6 { try log.append(batch(["between\(index)"])) }
        try log.append(marker(.commit, producer: 2), origin: .coordinator)
        log.noteHighWatermark(log.logEndOffset)
        #expect(log.lastStableOffset(highWatermark: 11) == 11)
        let aborted = [AbortedTransaction(producerID: 1, firstOffset: 0, lastOffset: 3, lastStableOffset: 1)]
        func check(_ log: PartitionLog) throws {
            #expect(try log.abortedTransactions(from: 0, upTo: 11) == aborted)
            #expect(try log.abortedTransactions(from: 2, upTo: 3) == aborted)
            #expect(try log.abortedTransactions(from: 4, upTo: 11) == [])
        }
        try check(log)
        #expect(log.segmentCount > 1)
        try log.close(clean: true)
        try check(try world.open(clean: true, recoveryPoint: 11))
        world.crash(powerCut: false)
        try check(try world.open())
        // a failed write takes back what its marker did
        let last = try world.open()
        last.noteHighWatermark(11)
        try last.append(batch(["open"], identity: from(3, 0, transactional: true)))
        world.host!.files.fail(.write, of: ".log", with: .noSpace)
        #expect(throws: LogError.self) { try last.append(marker(.abort, producer: 3), origin: .coordinator) }
        #expect(last.lastStableOffset(highWatermark: 12) == 11)
        try last.append(marker(.abort, producer: 3), origin: .coordinator)
        #expect(try last.abortedTransactions(from: 11, upTo: 13).map(\.firstOffset) == [11])
    }

    @Test func manyAbortsSpillTheirIndexAndAreFoundInIt() throws {
        let world = LogWorld(seed: 7)
        let log = try world.create()
        for index in 0..<700 {
            try log.append(batch(["x"], identity: from(1, Int32(index), transactional: true)))
            try log.append(marker(.abort, producer: 1), origin: .coordinator)
        }
        #expect(try world.sizeOf(world.path(.transactionIndex)) == 512 * 34)
        let all = try log.abortedTransactions(from: 0, upTo: 1400)
        #expect(all.map(\.firstOffset) == stride(from: 0, to: 1400, by: 2).map { $0 })
        try log.truncate(to: 1300)
        #expect(try log.abortedTransactions(from: 0, upTo: 1400) == Array(all[..<650]))
        try log.truncate(to: 200)
        #expect(try log.abortedTransactions(from: 0, upTo: 1400) == Array(all[..<100]))
        try log.truncate(to: 0)
        #expect(try world.sizeOf(world.path(.transactionIndex)) == -1)
    }

    @Test func aFollowerTakesItsLeadersOffsetsAndEpochs() throws {
        let world = LogWorld(seed: 8)
        let log = try world.create()
        func take(_ part: BatchBytes, cut: Int = 0) throws -> Reservation? {
            let bytes = UnsafeRawBufferPointer(rebasing: part.all[..<(part.size - cut)])
            let reservation = try log.reserveAsFollower(bytes)
            try log.writeReserved()
            return reservation
        }
        #expect(try take(batch(["a", "b"], at: 1, offset: 0, epoch: 4))?.lastOffset == 1)
        #expect(try take(batch(["c"], at: 2, offset: 2, epoch: 6))?.baseOffset == 2)
        // a compacted leader's log has gaps; a fetch may end inside a batch
        let two = BatchBytes(
            batch(["d"], at: 3, offset: 10, epoch: 6).array + batch(["e"], at: 3, offset: 11, epoch: 7).array)
        #expect(try take(two, cut: 5)?.lastOffset == 10)
        #expect(try take(batch(["e"], at: 3, offset: 11, epoch: 7), cut: 1) == nil)
        #expect(try take(batch(["e"], at: 3, offset: 11, epoch: 7))?.leaderEpoch == 7)
        #expect(try log.records() == ["0:a", "1:b", "2:c", "10:d", "11:e"])
        #expect(
            log.endOffset(for: 5)?.endOffset == 2 && log.endOffset(for: 6)?.endOffset == 11
                && log.endOffset(for: 7)?.endOffset == 12)
        // what does not continue the log, or is damaged, is refused
        #expect(throws: LogError.self) { try take(batch(["x"], at: 4, offset: 11, epoch: 7)) }
        let damaged = batch(["x"], at: 4, offset: 12, epoch: 7)
        damaged.all[damaged.size - 1] ^= 1
        #expect(throws: LogError.self) { try take(damaged) }
        #expect(log.logEndOffset == 12)
    }

    @Test func aFailedSyncPutsTheLogOutOfServiceUntilItIsOpenedAgain() throws {
        let world = LogWorld(seed: 9)
        let log = try world.create()
        try log.sync(world.disk)
        try log.append(batch(["a"]))
        let writes = try #require(try log.takeUnsynced())
        #expect(writes.endOffset == 1)
        log.syncFailed(
            writes,
            SystemError(.inputOutput, code: 5, operation: "fdatasync", subject: "log", reason: "Input/output error"))
        #expect(throws: LogError.self) { try log.append(batch(["b"])) }
        #expect(try log.takeUnsynced() == nil && log.durableOffset == 0)
        #expect(try log.records() == ["0:a"])
        #expect(world.lines.says("could not be synced"))
    }

    @Test(arguments: [SystemError.Kind.noSpace, .inputOutput])
    func anIndexThatCannotBeWrittenIsTriedAgainUnlessTheDiskFailed(_ kind: SystemError.Kind) throws {
        let world = LogWorld(seed: 9)
        let log = try world.create()
        try log.append(batch(["a"]))
        try log.sync(world.disk)
        world.host!.files.fail(.write, of: ".timeindex", with: kind)
        try log.roll()
        try log.append(batch(["b"]))
        #expect(world.lines.says("the index of segment 0 is not written yet"))
        guard kind == .noSpace else {
            #expect(throws: LogError.self) { try log.sync(world.disk) }
            return
        }
        try log.append(batch(["c"]))
        try log.sync(world.disk)
        #expect(log.recoveryPoint == 3)
    }

    @Test func whatATruncationTookBackIsNotMadeDurableByAnOlderSync() throws {
        let world = LogWorld(seed: 10)
        let log = try world.create()
        for index in 0..<5 { try log.append(batch(["\(index)"])) }
        let writes = try #require(try log.takeUnsynced())
        try log.truncate(to: 2)
        for index in 0..<5 { try log.append(batch(["new\(index)"])) }
        log.synced(writes)
        #expect(log.durableOffset == 0)
        try log.sync(world.disk)
        #expect(log.durableOffset == 7)
    }
}
