import MartletBasics
import MartletLog
import MartletModel
import Testing

/// What Kafka 4.3 answered to the same batches, batch by batch.
@Suite struct SequencesOfProducers {
    @Test func batchesInOrderAreStored() {
        var p = Partition()
        #expect(p.send(1, 0, count: 3) == [0, 0])
        #expect(p.send(1, 3) == [0, 3])
        #expect(p.send(1, 4, count: 2) == [0, 4])
        #expect(p.table.producers.map(\.lastSequence) == [5])
    }

    @Test func aBatchSentAgainGetsTheOffsetItGotAtFirst() {
        var p = Partition()
        for i in 0..<3 { #expect(p.send(1, Int32(2 * i), count: 2) == [0, Int64(2 * i)]) }
        for i in [2, 0, 1] { #expect(p.send(1, Int32(2 * i), count: 2) == [0, Int64(2 * i)]) }
        #expect(p.send(-1, -1) == [0, 6])
        #expect(p.send(1, 4, count: 2) == [0, 4])
        #expect(p.send(1, 6) == [0, 7])
    }

    @Test func theLastFiveBatchesAreKnownAndAnOlderOneIsOutOfOrder() {
        var p = Partition()
        for i in 0..<7 { #expect(p.send(1, Int32(i)) == [0, Int64(i)]) }
        for i in 0..<2 { #expect(p.send(1, Int32(i)) == [45, -1]) }
        for i in 2..<7 { #expect(p.send(1, Int32(i)) == [0, Int64(i)]) }
    }

    @Test func aGapIsRefusedAndTheMissingBatchStillTaken() {
        var p = Partition()
        #expect(p.send(1, 0) == [0, 0])
        #expect(p.send(1, 2) == [45, -1])
        #expect(p.send(1, 1) == [0, 1])
        #expect(p.send(1, 2) == [0, 2])
        #expect(p.send(1, 2, count: 2) == [45, -1], "overlaps what is stored, but is not the same batch")
        #expect(p.send(1, 1, count: 2) == [45, -1], "two stored batches as one")
    }

    @Test func aProducerThatIsNotKnownMayBeginAnywhere() {
        var p = Partition()
        #expect(p.send(1, 7) == [0, 0])
        #expect(p.send(1, 8) == [0, 1])
        #expect(p.send(1, 0) == [45, -1])
        #expect(p.send(987_654_321, 5) == [0, 2])
    }

    @Test func aHigherEpochBeginsAtZeroAndFencesTheLower() {
        var p = Partition()
        #expect(p.send(1, 0) == [0, 0])
        #expect(p.send(1, 1, epoch: 1) == [45, -1])
        #expect(p.send(1, 0, epoch: 1) == [0, 1])
        #expect(p.send(1, 1, epoch: 0) == [47, -1])
        #expect(p.send(1, 0, epoch: 0) == [47, -1], "a batch of the old epoch is not even known as a duplicate")
        #expect(p.send(1, 0, epoch: 5) == [0, 2])
    }

    @Test func sequencesWrapAlsoInsideABatch() {
        var p = Partition()
        let top = Int32.max
        #expect(p.send(1, top - 2, count: 2) == [0, 0])
        #expect(p.send(1, top, count: 3) == [0, 2])
        #expect(p.send(1, top, count: 3) == [0, 2])
        #expect(p.send(1, 2) == [0, 5])
        #expect(p.table.producers.map(\.lastSequence) == [2])
    }

    @Test func aBatchThatEndsAtTheTopIsFollowedByZero() {
        var p = Partition()
        #expect(p.send(1, .max) == [0, 0])
        #expect(p.send(1, 1) == [45, -1])
        #expect(p.send(1, 0) == [0, 1])
    }

    @Test func aProducerWithoutASequenceIsAnInvalidRecord() {
        var p = Partition()
        #expect(p.send(1, -1) == [87, -1])
        #expect(p.send(1, -7) == [87, -1])
    }

    @Test func deletingRecordsDoesNotForgetTheirProducers() {
        var p = Partition()
        #expect(p.send(1, 0) == [0, 0])
        #expect(p.send(1, 1) == [0, 1])
        p.table.advanceLogStart(to: 2)
        #expect(p.send(1, 1) == [0, 1])
        #expect(p.send(1, 2) == [0, 2])
        #expect(p.send(1, 4) == [45, -1])
    }

    @Test func theCoordinatorsBatchesAllCarrySequenceZero() {
        var p = Partition()
        for i in 0..<3 { #expect(p.send(1, 0, transactional: true, origin: .coordinator) == [0, Int64(i)]) }
        #expect(p.send(1, 0, epoch: -1, transactional: true, origin: .coordinator) == [47, -1], "but epochs count")
    }

    @Test func aFollowerTakesWhatTheLeaderDecided() {
        var p = Partition()
        #expect(p.send(1, 5, epoch: 3) == [0, 0])
        #expect(p.send(1, 9, epoch: 2, origin: .replication) == [0, 1])
        #expect(p.table.producers.map(\.epoch) == [2])
    }

    @Test func aDuplicateTellsTheTimeOfTheStoredBatch() {
        var p = Partition()
        _ = p.send(1, 0, timestamp: 77)
        #expect(p.table.check(header(1, 0, timestamp: 99)) == .duplicate(baseOffset: 0, logAppendTime: 77))
    }
}

@Suite struct MemoryOfProducers {
    @Test func atTheLimitTheOneSilentForLongestIsForgotten() {
        var p = Partition(table: ProducerStateTable(producerLimit: 3))
        for id in 1...3 { _ = p.send(Int64(id), 0) }
        _ = p.send(1, 1)
        _ = p.send(4, 0)
        #expect(p.table.producers.map(\.producerID) == [1, 3, 4])
        #expect(p.send(2, 9) == [0, 5], "a forgotten producer is one that is not known")
    }

    @Test func aProducerInATransactionIsNeverForgotten() {
        var p = Partition(table: ProducerStateTable(producerLimit: 2))
        _ = p.send(1, 0, transactional: true)
        _ = p.send(2, 0, transactional: true)
        #expect(p.send(3, 0) == [89, -1])
        #expect(p.send(2, 1, transactional: true) == [0, 2])
        _ = p.end(1, .commit)
        #expect(p.send(3, 0) == [0, 4])
        #expect(p.table.producers.map(\.producerID) == [2, 3])
    }

    @Test func silentProducersExpireAndOpenTransactionsDoNot() {
        var p = Partition()
        _ = p.send(1, 0, timestamp: 1000)
        _ = p.send(2, 0, timestamp: 1000, transactional: true)
        _ = p.send(3, 0, timestamp: 5000)
        _ = p.send(4, 0, timestamp: .min)
        _ = p.send(5, 0, timestamp: .max)
        p.table.removeExpired(now: 6000, olderThanMs: 5000)
        #expect(p.table.producers.map(\.producerID) == [2, 3, 5])
        #expect(p.table.producerCount == 3)
        for id in 10..<20 { _ = p.send(Int64(id), 0) }
        #expect(p.table.producerCount == 13)
    }

    @Test func thousandsComeAndGoWithinTheLimit() {
        var random = SeededRandom(seed: 7)
        var p = Partition(table: ProducerStateTable(producerLimit: 50))
        for _ in 0..<20_000 {
            let id = Int64(random.below(200))
            _ = p.send(id, Int32(random.below(3)), transactional: random.chance(1, in: 20))
            if random.chance(1, in: 10) { _ = p.end(id, random.chance(1, in: 2) ? .commit : .abort) }
            // a marker is never refused, so one may be above the limit
            #expect(p.table.producerCount <= 51)
        }
        let open = p.table.producers.filter { $0.transactionStart >= 0 }.map(\.transactionStart)
        #expect(p.table.firstUndecidedOffset == open.min())
    }
}

@Suite struct TransactionsOfAPartition {
    @Test func readersStopAtTheOldestOpenTransaction() {
        var p = Partition()
        #expect(p.table.firstUnstableOffset == nil)
        _ = p.send(1, 0, count: 2, transactional: true)
        _ = p.send(2, 0, transactional: true)
        _ = p.send(3, 0)
        #expect(p.table.firstUnstableOffset == 0)
        let first = p.end(1, .abort)
        #expect(
            first
                == CompletedTransaction(
                    producerID: 1, firstOffset: 0, lastOffset: 4, isAborted: true, lastStableOffset: 2))
        let second = p.end(2, .commit)
        #expect(
            second
                == CompletedTransaction(
                    producerID: 2, firstOffset: 2, lastOffset: 5, isAborted: false, lastStableOffset: 6))
    }

    @Test func aMarkerAboveTheHighWatermarkStillHoldsReadersBack() {
        var p = Partition()
        _ = p.send(1, 0, transactional: true)
        _ = p.send(2, 0, transactional: true)
        _ = p.end(1, .commit)
        p.table.advanceHighWatermark(to: 2)
        #expect(p.table.firstUnstableOffset == 0)
        p.table.advanceHighWatermark(to: 3)
        #expect(p.table.firstUnstableOffset == 1)
        _ = p.end(2, .commit)
        p.table.advanceHighWatermark(to: 4)
        #expect(p.table.firstUnstableOffset == nil)
    }

    @Test func aLaterTransactionThatEndsFirstWaitsForTheOlder() {
        var p = Partition()
        _ = p.send(1, 0, transactional: true)
        _ = p.send(2, 0, transactional: true)
        let ended = p.end(2, .commit)
        #expect(ended?.lastStableOffset == 0)
        p.table.advanceHighWatermark(to: 3)
        #expect(p.table.firstUnstableOffset == 0)
    }

    @Test func aPlainBatchInsideATransactionIsRefused() {
        var p = Partition()
        _ = p.send(1, 0, transactional: true)
        #expect(p.send(1, 1) == [48, -1])
    }

    @Test func aMarkerOfNoTransactionCompletesNothingButRaisesTheEpoch() {
        var p = Partition()
        _ = p.send(1, 0)
        #expect(p.end(1, .abort, epoch: 4, coordinatorEpoch: 9) == nil)
        #expect(p.send(1, 1, epoch: 3) == [47, -1])
        #expect(p.send(1, 1, epoch: 4) == [45, -1], "sequences begin at 0 after it")
        #expect(p.send(1, 0, epoch: 4) == [0, 2])
        #expect(p.table.producers.map(\.coordinatorEpoch) == [9])
    }

    @Test func aMarkerOfTheSameEpochLetsSequencesGoOn() {
        var p = Partition()
        _ = p.send(1, 0, transactional: true)
        _ = p.end(1, .commit)
        #expect(p.send(1, 1, transactional: true) == [0, 2])
        #expect(p.table.firstUndecidedOffset == 2)
    }

    @Test func markersOfAnOlderProducerOrCoordinatorAreFenced() {
        var p = Partition()
        _ = p.send(1, 0, epoch: 2, transactional: true)
        func verdict(_ epoch: ProducerEpoch, _ coordinator: Int32) -> Int16? {
            guard
                case .refused(let code, _) = p.table.checkMarker(
                    header(1, -1, epoch: epoch, control: true), coordinatorEpoch: coordinator)
            else { return nil }
            return code.rawValue
        }
        #expect(verdict(1, 5) == 47)
        #expect(verdict(2, 5) == nil)
        _ = p.end(1, .commit, epoch: 2, coordinatorEpoch: 5)
        #expect(verdict(2, 4) == 52)
        #expect(verdict(3, 5) == nil)
    }
}

@Suite struct GoingBack {
    @Test func aFailedWriteIsForgottenAndSentAgainIsTaken() {
        var p = Partition()
        _ = p.send(1, 0)
        let savepoint = p.table.savepoint()
        #expect(p.send(1, 1) == [0, 1])
        #expect(p.send(2, 0, transactional: true) == [0, 2])
        #expect(p.table.restore(savepoint) == true)
        #expect(p.table.nextOffset == 1)
        #expect(p.table.firstUnstableOffset == nil)
        #expect(p.table.producers.map(\.producerID) == [1])
        #expect(p.send(1, 1) == [0, 1], "not a duplicate: it was never written")
    }

    @Test func theFirstBatchOfAProducerIsAwaitedIfItsWriteFailed() {
        var p = Partition()
        let savepoint = p.table.savepoint()
        #expect(p.send(3, .max - 1, count: 2) == [0, 0])
        #expect(p.send(3, 0) == [0, 2])
        #expect(p.send(4, 6, origin: .coordinator) == [0, 3])
        #expect(p.table.restore(savepoint) == true)
        #expect(p.send(3, 0) == [Int64(ErrorCode.kafkaStorageError.rawValue), -1], "in flight behind it")
        #expect(p.send(3, 8, epoch: 1) == [0, 0], "another epoch is none of it")
        #expect(p.send(5, 8) == [0, 1], "nor is another producer")
        var again = Partition()
        let before = again.table.savepoint()
        #expect(again.send(3, 5) == [0, 0])
        #expect(again.table.restore(before) == true)
        #expect(again.send(3, 6) == [Int64(ErrorCode.kafkaStorageError.rawValue), -1])
        #expect(again.send(3, 5) == [0, 0])
        #expect(again.send(3, 6) == [0, 1])
    }

    @Test func ofFirstBatchesThatAreAwaitedTheOldestIsForgottenAtTheLimit() {
        var p = Partition()
        for producer in 0...Int64(ProducerStateTable.unwrittenLimit) {
            let savepoint = p.table.savepoint()
            _ = p.send(producer, 0)
            #expect(p.table.restore(savepoint) == true)
        }
        let refused = p.send(1, 1)
        #expect(refused[0] == Int64(ErrorCode.kafkaStorageError.rawValue))
        #expect(p.send(0, 1) == [0, 0])
    }

    @Test func ofAProducerThatIsKnownTheFirstBatchThatWasNotWrittenIsAwaited() {
        let storage = Int64(ErrorCode.kafkaStorageError.rawValue), order = Int64(ErrorCode.outOfOrderSequenceNumber.rawValue)
        var p = Partition()
        for producer in [1, 2] as [ProducerID] { _ = p.send(producer, 0) }
        let savepoint = p.table.savepoint()
        #expect(p.send(1, 1, count: 2) == [0, 2])
        #expect(p.send(1, 3) == [0, 4])
        #expect(p.send(2, 0, epoch: 1) == [0, 5])
        #expect(p.table.restore(savepoint) == true)
        #expect(p.send(1, 3) == [storage, -1], "in flight behind it")
        #expect(p.send(1, 9) == [storage, -1], "whatever it is")
        #expect(p.send(1, 0) == [0, 0], "what was written before is a duplicate")
        #expect(p.send(2, 1, epoch: 1) == [storage, -1], "the first of another epoch was not written")
        #expect(p.send(2, 5) == [order, -1], "a gap in the epoch that is known")
        #expect(p.send(1, 1, count: 2) == [0, 2], "sent again")
        #expect(p.send(1, 9) == [order, -1], "a gap is one again")
        #expect(p.send(1, 3) == [0, 4])
        #expect(p.send(2, 0, epoch: 1) == [0, 5])
        #expect(p.send(2, 1, epoch: 1) == [0, 6])
    }

    @Test func aMarkerThatWasNotWrittenLetsNoBatchWait() {
        var p = Partition()
        _ = p.send(1, 0, transactional: true)
        let savepoint = p.table.savepoint()
        _ = p.end(1, .commit)
        #expect(p.table.restore(savepoint) == true)
        #expect(p.send(1, 5, transactional: true) == [Int64(ErrorCode.outOfOrderSequenceNumber.rawValue), -1])
    }

    @Test func aFailedMarkerLeavesTheTransactionOpen() {
        var p = Partition()
        _ = p.send(1, 0, transactional: true)
        let savepoint = p.table.savepoint()
        _ = p.end(1, .commit)
        #expect(p.send(1, 1, transactional: true) == [0, 2])
        #expect(p.table.restore(savepoint) == true)
        #expect(p.table.firstUndecidedOffset == 0)
        let ended = p.end(1, .abort)
        #expect(ended?.firstOffset == 0)
    }

    @Test func aReleasedSavepointCostsNothingAndCannotBeGoneBackTo() {
        var p = Partition()
        let first = p.table.savepoint()
        _ = p.send(1, 0)
        let second = p.table.savepoint()
        _ = p.send(1, 1)
        p.table.release(first)
        #expect(p.table.restore(second) == true)
        #expect(p.table.producers.map(\.lastSequence) == [0])
        #expect(p.table.restore(first) == false)
        #expect(p.table.isEmpty && p.table.nextOffset == 0, "to be loaded again")
    }

    @Test func tooMuchSinceTheSavepointIsSaidNotGuessed() {
        var p = Partition()
        let savepoint = p.table.savepoint()
        for i in 0..<5000 { _ = p.send(1, Int32(i)) }
        #expect(p.table.restore(savepoint) == false)
    }

    /// Whatever happened after a savepoint, going back gives the snapshot that would have been written there.
    @Test(arguments: 0..<20) func goingBackIsExact(seed: Int) {
        var random = SeededRandom(seed: UInt64(seed))
        var p = Partition(table: ProducerStateTable(producerLimit: 12))
        func step() {
            let id = Int64(random.below(16))
            let epoch = Int16(random.below(3))
            let known = p.table.producers.first { $0.producerID == id }
            let next = known.map { $0.lastSequence &+ 1 } ?? 0
            switch random.below(4) {
            case 0: _ = p.end(id, .commit, epoch: max(epoch, known?.epoch ?? 0))
            case 1: _ = p.send(id, 0, epoch: epoch, transactional: true)
            default:
                _ = p.send(
                    id, next, count: Int32(1 + random.below(3)), epoch: known?.epoch ?? 0,
                    transactional: random.chance(1, in: 3))
            }
        }
        for _ in 0..<200 {
            for _ in 0..<random.below(10) { step() }
            let (before, unstable, end) = (p.table.encodeSnapshot(), p.table.firstUnstableOffset, p.table.nextOffset)
            let savepoint = p.table.savepoint()
            for _ in 0..<random.below(10) { step() }
            if random.chance(1, in: 2) {
                #expect(p.table.restore(savepoint) == true)
                #expect(p.table.encodeSnapshot() == before, "seed \(seed)")
                #expect(p.table.firstUnstableOffset == unstable)
                #expect(p.table.nextOffset == end)
            } else {
                p.table.release(savepoint)
                if random.chance(1, in: 3) { p.table.advanceHighWatermark(to: p.table.nextOffset) }
            }
        }
    }

    @Test func aTruncationThatTouchesNoProducerKeepsThem() {
        var p = Partition()
        _ = p.send(1, 0)
        _ = p.send(-1, -1, count: 5)
        #expect(p.table.truncate(to: 3) == true)
        #expect(p.table.nextOffset == 3)
        #expect(p.send(1, 0) == [0, 0])
    }

    @Test func aTruncationBelowAProducersLastBatchAsksForAReload() {
        var p = Partition()
        _ = p.send(1, 0)
        _ = p.send(1, 1)
        #expect(p.table.truncate(to: 1) == false)
        #expect(p.table.isEmpty)
        #expect(p.table.nextOffset == 1)
    }

    @Test func aTruncationAtTheEndIsNone() {
        var p = Partition()
        _ = p.send(1, 0)
        #expect(p.table.truncate(to: 1) == true)
        #expect(p.table.producerCount == 1)
    }
}
