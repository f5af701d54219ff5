import MartletBasics
import MartletBroker
import MartletModel
import Testing

@Suite struct TransactionMachineTests {
    private static let lastEpoch = TransactionMetadata.lastEpoch

    // MARK: Who a producer is

    @Test func eachProducerThatBeginsHasTheNextEpochAndFencesTheOneBefore() {
        var world = TransactionWorld()
        let first = world.producer()
        let second = world.producer()
        #expect(first.epoch == 0 && second == ProducerIdentity(first.id, 1))
        #expect(world.add(first) == .failed(.producerFenced))
        #expect(world.end(first) == .failed(.producerFenced))
        #expect(world.add(second) == .done)
    }

    @Test func anAnswerThatWasLostIsGivenAgainAndAnOlderEpochIsNot() {
        var world = TransactionWorld()
        let first = world.producer()
        let next = ProducerIdentity(first.id, 1)
        #expect(world.begin(expected: first) == .producer(next))
        #expect(world.begin(expected: first) == .producer(next), "it may not have heard of the first")
        #expect(world.begin(expected: next) == .producer(ProducerIdentity(first.id, 2)))
        #expect(world.begin(expected: first) == .failed(.producerFenced))
        #expect(world.begin(expected: ProducerIdentity(first.id, 9)) == .failed(.producerFenced))
        #expect(world.begin(expected: ProducerIdentity(first.id + 7, 2)) == .failed(.producerFenced))
    }

    @Test func aTimeoutOfNothingOrBeyondTheLimitIsRefusedAndNothingIsKept() {
        var world = TransactionWorld { $0.timeoutLimitMs = 1_000 }
        for timeout: Int32 in [0, -1, 1_001, .max] {
            #expect(world.begin(timeoutMs: timeout) == .failed(.invalidTransactionTimeout))
        }
        #expect(world.begin("") == .failed(.invalidRequest))
        #expect(world.log.isEmpty && world.machine.bytes == 0)
    }

    @Test func usedUpEpochsAreFollowedByAnotherProducerID() throws {
        var world = TransactionWorld()
        var producer = world.producer()
        while producer.epoch < Self.lastEpoch { producer = world.producer() }
        let next = world.producer()
        #expect(next.id != producer.id && next.epoch == 0)
        #expect(world.add(producer) == .failed(.invalidProducerIDMapping))
        #expect(world.add(next) == .done)
        // the record tells of both
        let record = try #require(world.log.reversed().compactMap(\.value).first)
        #expect(record.first == 0 && record[1] == 1, "version 1")
    }

    @Test func theLastEpochEndsInTheFirstOfTheNextProducerID() {
        var world = TransactionWorld()
        var producer = world.producer()
        while producer.epoch < Self.lastEpoch { producer = world.producer() }
        #expect(world.add(producer, version: 2) == .done)
        guard case .producer(let next)? = world.end(producer, version: 2) else { return #expect(Bool(false), "it ends") }
        #expect(next.id != producer.id && next.epoch == 0)
        #expect(
            world.endings.map(\.producer) == [ProducerIdentity(producer.id, .max)], "the marker's epoch is above all records'")
        #expect(world.verify(next) == .concurrentTransactions, "it is known, and must wait for the markers")
        world.deliverMarkers()
        #expect(world.end(producer, version: 2) == .producer(next), "the end sent again")
        #expect(world.begin(expected: producer) == .producer(next), "and a producer that never heard of it")
        #expect(world.add(next, version: 2) == .done)
    }

    @Test func anEndInTheEpochThatAnAbortOfOursHasUsedUpEndsNoBroker() {
        var world = TransactionWorld()
        var producer = world.producer()
        while producer.epoch < Self.lastEpoch { producer = world.producer() }
        #expect(world.add(producer, version: 2) == .done)
        world.now += 61_000
        world.wall += 61_000
        world.handle(.abortTimedOut)
        world.deliverMarkers()
        #expect(world.state() == .completeAbort)
        // nobody was told of this epoch: only a guess comes with it
        let guessed = ProducerIdentity(producer.id, .max)
        #expect(world.add(guessed, version: 2) == .done)
        guard case .producer(let next)? = world.end(guessed, version: 2) else { return #expect(Bool(false), "it ends") }
        #expect(next.id != producer.id && next.epoch == 0)
        world.deliverMarkers()
        #expect(world.add(next, version: 2) == .done)
    }

    @Test func memoryThatIsUsedUpLetsNobodyNewInAndKeepsWhoIsThere() {
        var world = TransactionWorld()
        let known = world.producer("known")
        world.isFull = true
        #expect(world.begin("new") == .failed(.coordinatorNotAvailable))
        #expect(world.add(known, id: "known") == .done)
    }

    @Test func withoutAProducerIDTheClientIsToComeAgain() {
        var world = TransactionWorld()
        world.syncsAtOnce = false
        let ticket = world.ask { .initialize(InitProducerEvent(id: "t", timeoutMs: 1_000), $0) }
        world.handle(.allocated(world.allocations.removeFirst(), nil))
        #expect(world.replies[ticket] == .failed(.coordinatorLoadInProgress))
        #expect(world.machine.bytes == 0)
    }

    // MARK: The first protocol

    @Test func whatWasAddedIsThereAndNothingElseUntilTheEnd() {
        var world = TransactionWorld()
        let producer = world.producer()
        #expect(world.verify(producer) == .transactionAbortable)
        #expect(world.add(producer, [0, 1]) == .done)
        #expect(world.verify(producer, 1) == .none)
        #expect(world.verify(producer, 2) == .transactionAbortable)
        #expect(world.verify(ProducerIdentity(producer.id, 5)) == .producerFenced)
        #expect(world.verify(ProducerIdentity(producer.id + 1, 0)) == .invalidProducerIDMapping)
        #expect(world.end(producer) == .producer(producer))
        #expect(world.verify(producer) == .concurrentTransactions, "a record that comes late would be in nobody's transaction")
        world.deliverMarkers()
        #expect(world.verify(producer) == .transactionAbortable)
    }

    /// A consumer sees the marker, and so that the transaction is over, before the coordinator has noted it.
    @Test func whenAllHaveTheirMarkersTheTransactionIsOverThoughTheNoteIsOnItsWay() {
        var world = TransactionWorld()
        let producer = world.producer()
        #expect(world.add(producer, [0]) == .done)
        #expect(world.end(producer, commits: false) == .producer(producer))
        world.syncsAtOnce = false
        world.deliverMarkers()
        #expect(world.state() == .prepareAbort && world.verify(producer) == .transactionAbortable)
    }

    @Test func anEndSentAgainIsAnsweredAndTheOtherWayIsNot() {
        for commits in [true, false] {
            var world = TransactionWorld()
            let producer = world.producer()
            #expect(world.end(producer, commits: commits) == .failed(.invalidTxnState), "nothing is open")
            #expect(world.add(producer) == .done)
            #expect(world.end(producer, commits: commits) == .producer(producer))
            #expect(world.end(producer, commits: commits) == .failed(.concurrentTransactions))
            #expect(world.end(producer, commits: !commits) == .failed(.invalidTxnState))
            world.deliverMarkers()
            #expect(world.state() == (commits ? .completeCommit : .completeAbort))
            #expect(world.end(producer, commits: commits) == .producer(producer))
            #expect(world.end(producer, commits: !commits) == .failed(.invalidTxnState))
        }
    }

    @Test func theNextTransactionWaitsForTheMarkersOfTheLast() {
        var world = TransactionWorld()
        let producer = world.producer()
        _ = world.add(producer, [3])
        _ = world.end(producer)
        let added = world.ask {
            .addPartitions(
                AddPartitionsEvent(id: "t", producer: producer, partitions: [TopicPartition("a", 4)], version: 0), $0)
        }
        #expect(world.replies[added] == nil, "the markers may be there in a moment")
        #expect(world.begin() == .failed(.concurrentTransactions))
        world.deliverMarkers()
        #expect(world.replies[added] == .done)
        #expect(world.machine.describe("t")?.partitions == [TopicPartition("a", 4)], "nothing of the one before is in it")
    }

    @Test func whoWaitsForMarkersThatDoNotComeIsToldToComeAgain() throws {
        let config = try BrokerConfig.resolve(overrides: [("add.partitions.to.txn.retry.backoff.max.ms", "700")])
        var world = TransactionWorld(settings: TransactionSettings(config))
        let producer = world.producer()
        _ = world.add(producer, [3])
        _ = world.end(producer)
        var tickets: [UInt64] = []
        for partition: Int32 in 0..<20 {
            tickets.append(
                world.ask {
                    .addPartitions(
                        AddPartitionsEvent(
                            id: "t", producer: producer, partitions: [TopicPartition("a", partition)], version: 2), $0)
                })
        }
        #expect(tickets.filter { world.replies[$0] != nil }.count == 4, "no more than so many wait")
        world.pass(699)
        #expect(tickets.filter { world.replies[$0] != nil }.count == 4)
        world.pass(1)
        #expect(tickets.allSatisfy { world.replies[$0] == .failed(.concurrentTransactions) })
        world.deliverMarkers()
        #expect(world.state() == .completeCommit && world.machine.nextDeadline == nil)
    }

    // MARK: The second protocol (KIP-890)

    @Test func eachEndRaisesTheEpochAndAnEndSentAgainIsKnownByIt() {
        var world = TransactionWorld()
        let first = world.producer()
        let second = ProducerIdentity(first.id, 1)
        #expect(world.add(first, version: 2) == .done)
        #expect(world.end(first, version: 2) == .producer(second))
        #expect(world.endings.map(\.producer) == [second], "the marker is above the records, so that none comes after it")
        #expect(world.end(first, version: 2) == .failed(.concurrentTransactions))
        #expect(world.end(second, commits: false, version: 2) == .failed(.concurrentTransactions), "who knows and is fast")
        world.deliverMarkers()
        #expect(world.end(first, version: 2) == .producer(second))
        #expect(world.end(first, commits: false, version: 2) == .failed(.invalidTxnState))
        #expect(world.add(first, version: 2) == .failed(.producerFenced))
    }

    @Test func nothingCanBeAbortedAndNotCommitted() {
        var world = TransactionWorld()
        var producer = world.producer()
        for _ in 0..<3 {
            #expect(world.end(producer, version: 2) == .failed(.invalidTxnState))
            #expect(
                world.end(producer, commits: false, version: 2) == .producer(ProducerIdentity(producer.id, producer.epoch + 1)))
            producer.epoch += 1
            #expect(world.endings.isEmpty && world.state() == .completeAbort)
        }
    }

    @Test func severalAdditionsAtOnceAreAllThere() {
        var world = TransactionWorld()
        let producer = world.producer()
        world.syncsAtOnce = false
        for partition: Int32 in [0, 1, 2] { #expect(world.add(producer, [partition], version: 2) == nil) }
        #expect(world.verify(producer, 0) != .none, "not before it is durable")
        world.sync()
        for partition: Int32 in [0, 1, 2] { #expect(world.verify(producer, partition) == .none) }
        world.syncsAtOnce = true
        world.readAnew()
        #expect(world.machine.describe("t")?.partitions.count == 3)
    }

    // MARK: The coordinator's own aborts

    @Test func aTransactionThatTakesTooLongIsAbortedAndItsProducerGoesOn() {
        var world = TransactionWorld()
        let producer = world.producer(timeoutMs: 5_000)
        _ = world.add(producer)
        world.pass(4_999)
        world.handle(.abortTimedOut)
        #expect(world.state() == .ongoing)
        world.pass(1)
        world.handle(.abortTimedOut)
        #expect(world.state() == .prepareAbort && world.machine.counts.timedOut == 1)
        #expect(world.end(producer) == .failed(.producerFenced))
        #expect(world.endings.map { [Int($0.producer.epoch), $0.commits ? 1 : 0] } == [[1, 0]])
        world.deliverMarkers()
        #expect(world.state() == .completeAbort)
        #expect(world.begin(expected: producer) == .producer(ProducerIdentity(producer.id, 1)))
    }

    @Test func aTransactionThatEndsInTimeIsNotAborted() {
        var world = TransactionWorld()
        let producer = world.producer(timeoutMs: 5_000)
        _ = world.add(producer)
        _ = world.end(producer)
        world.deliverMarkers()
        world.pass(60_000)
        world.handle(.abortTimedOut)
        #expect(
            world.state() == .completeCommit
                && world.machine.counts
                    == {
                        var c = TransactionCounts(); c.committed = 1; return c
                    }()
        )
    }

    @Test func theTimeOfATransactionGoesOnOverARestart() {
        var world = TransactionWorld()
        let producer = world.producer(timeoutMs: 5_000)
        _ = world.add(producer)
        world.pass(3_000)
        world.readAnew()
        world.handle(.abortTimedOut)
        #expect(world.state() == .ongoing)
        world.pass(2_000)
        world.handle(.abortTimedOut)
        #expect(world.state() == .prepareAbort)
    }

    @Test func aNewProducerHasTheOpenTransactionAbortedFirst() {
        var world = TransactionWorld()
        let old = world.producer()
        _ = world.add(old)
        #expect(world.begin() == .failed(.concurrentTransactions))
        #expect(world.begin() == .failed(.concurrentTransactions), "its markers are not written yet")
        #expect(world.endings.count == 1)
        world.deliverMarkers()
        let new = world.producer()
        #expect(new.id == old.id && new.epoch > old.epoch)
        #expect(world.begin(expected: old) == .failed(.producerFenced))
    }

    @Test func aProducerOfThePastAbortsNobodysTransaction() {
        var world = TransactionWorld()
        let old = world.producer()
        let new = world.producer()
        _ = world.add(new)
        #expect(world.begin(expected: old) == .failed(.producerFenced))
        #expect(world.state() == .ongoing)
    }

    // MARK: Crashes and failed writes

    @Test func aDecisionThatIsNotDurableIsToldNobodyAndNotKnownAfterAKill() {
        var world = TransactionWorld()
        let producer = world.producer()
        _ = world.add(producer)
        world.syncsAtOnce = false
        #expect(world.end(producer) == nil)
        #expect(world.endings.isEmpty, "no marker before it is durable that it will end so")
        world.readAnew()
        #expect(world.state() == .ongoing)
    }

    @Test func anEndThatIsDurableIsCarriedOutAfterAKillAsOftenAsNeeded() {
        for commits in [true, false] {
            var world = TransactionWorld()
            let producer = world.producer()
            _ = world.add(producer, [2, 0])
            _ = world.end(producer, commits: commits, version: 2)
            for _ in 0..<3 {
                world.readAnew()
                #expect(world.endings.map(\.commits) == [commits])
                #expect(world.endings[0].partitions == [TopicPartition("a", 0), TopicPartition("a", 2)])
                #expect(world.endings[0].producer.epoch == 1 && world.endings[0].version == 2)
            }
            world.deliverMarkers()
            world.readAnew()
            #expect(world.endings.isEmpty && world.state() == (commits ? .completeCommit : .completeAbort))
            #expect(world.end(producer, commits: commits, version: 2) == .producer(ProducerIdentity(producer.id, 1)))
        }
    }

    @Test func aWriteThatFailsLeavesAllAsItWas() {
        var world = TransactionWorld()
        let producer = world.producer()
        _ = world.add(producer)
        world.syncsAtOnce = false
        let ticket = world.ask { .end(EndTransactionEvent(id: "t", producer: producer, commits: true, version: 2), $0) }
        world.sync(failing: .requestTimedOut)
        #expect(world.replies[ticket] == .failed(.coordinatorNotAvailable))
        #expect(world.state() == .ongoing && world.verify(producer) == .none)
        world.syncsAtOnce = true
        #expect(world.end(producer, version: 2) == .producer(ProducerIdentity(producer.id, 1)))
    }

    @Test func anEndWhoseLastRecordCannotBeWrittenIsTriedAgain() {
        var world = TransactionWorld()
        let producer = world.producer()
        _ = world.add(producer)
        _ = world.end(producer)
        world.syncsAtOnce = false
        world.deliverMarkers()
        world.sync(failing: .notEnoughReplicas)
        #expect(world.state() == .prepareCommit && world.machine.nextDeadline != nil)
        world.pass(1_000)
        world.sync()
        #expect(world.state() == .completeCommit && world.machine.nextDeadline == nil)
    }

    @Test func anAbortThatCannotBeWrittenIsTriedAtTheNextLook() {
        var world = TransactionWorld()
        let producer = world.producer(timeoutMs: 1_000)
        _ = world.add(producer)
        world.pass(2_000)
        world.syncsAtOnce = false
        world.handle(.abortTimedOut)
        world.sync(failing: .notEnoughReplicas)
        #expect(world.state() == .ongoing)
        world.syncsAtOnce = true
        world.handle(.abortTimedOut)
        #expect(world.state() == .prepareAbort)
    }

    @Test func markersOfAnEarlierEndCompleteNothing() {
        var world = TransactionWorld()
        let producer = world.producer()
        _ = world.add(producer)
        _ = world.end(producer)
        let earlier = world.endings[0]
        world.deliverMarkers()
        _ = world.add(producer, [7])
        _ = world.end(producer)
        world.handle(.markersWritten(earlier))
        #expect(world.state() == .prepareCommit)
    }

    // MARK: Bounds

    @Test func aTransactionThatNoRecordCouldHoldIsNotLetGrow() {
        var world = TransactionWorld { $0.recordBytesLimit = 2_000 }
        let producer = world.producer()
        #expect(world.add(producer, Array(0..<100)) == .done)
        #expect(world.add(producer, Array(100..<1_000)) == .failed(.unknownServerError))
        #expect(world.end(producer) == .producer(producer))
        world.deliverMarkers()
        #expect(world.state() == .completeCommit)
    }

    @Test func idsThatNobodyHasUsedForLongAreForgottenAndOpenOnesAreNot() {
        var world = TransactionWorld { $0.expirationMs = 10_000 }
        let open = world.producer("open", timeoutMs: 900_000)
        _ = world.add(open, id: "open")
        _ = world.producer("idle")
        world.pass(9_999)
        world.handle(.expire)
        #expect(world.machine.listings.map(\.id) == ["idle", "open"])
        _ = world.producer("young")
        world.pass(1)
        world.handle(.expire)
        #expect(world.machine.listings.map(\.id) == ["open", "young"])
        world.readAnew()
        #expect(world.machine.listings.map(\.id) == ["open", "young"])
    }

    @Test func whatTheMachineTakesOfMemoryIsGivenBack() {
        var world = TransactionWorld { $0.expirationMs = 1 }
        for index in 0..<50 {
            let producer = world.producer("t\(index)")
            _ = world.add(producer, Array(0..<20), id: "t\(index)")
            _ = world.end(producer, id: "t\(index)")
        }
        let most = world.machine.bytes
        world.deliverMarkers()
        #expect(world.machine.bytes < most / 2)
        world.pass(10)
        world.handle(.expire)
        #expect(world.machine.bytes == 0)
    }
}
