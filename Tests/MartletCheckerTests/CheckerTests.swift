import MartletBasics
import MartletChecker
import Testing

/// A history that is written down by hand: every event is a moment after the one before it.
struct Story {
    private(set) var events: [HistoryEvent] = []
    private(set) var operations = 0
    private(set) var now: Int64 = 0
    static let place = Place("orders", 0)

    mutating func happened(_ kind: HistoryEvent.Kind) {
        now += 10
        events.append(HistoryEvent(now, kind))
    }

    @discardableResult
    mutating func send(
        _ values: [String], by producer: String = "p", to place: Place = Story.place, acks: Int = -1, idempotent: Bool = false,
        in transaction: String? = nil, keys: [String] = [], tombstones: [Int] = []
    ) -> Int {
        operations += 1
        happened(
            .send(
                SentBatch(
                    operation: operations, producer: producer, place: place, values: values, acks: acks,
                    isIdempotent: idempotent, transaction: transaction, keys: keys, tombstones: tombstones)))
        return operations
    }

    mutating func told(_ operation: Int, _ outcome: Outcome) { happened(.told(operation: operation, outcome)) }

    /// Sent and acknowledged.
    mutating func wrote(
        _ values: [String], at offset: Int64?, by producer: String = "p", acks: Int = -1, idempotent: Bool = false,
        in transaction: String? = nil
    ) {
        told(send(values, by: producer, acks: acks, idempotent: idempotent, in: transaction), .accepted(at: offset))
    }

    mutating func saw(
        _ values: [String], from offset: Int64 = 0, by consumer: String = "c", at place: Place = Story.place, end: Int64? = nil,
        start: Int64? = nil, asked: Int64? = nil, committed: Bool = false
    ) {
        let records = values.enumerated().map { SeenRecord(offset + Int64($0.offset), $0.element) }
        happened(
            .saw(
                SeenPart(
                    consumer: consumer, place: place, asked: asked ?? now + 5, from: offset, records: records,
                    highWatermark: end ?? offset + Int64(values.count), logStart: start, isCommitted: committed)))
    }

    /// The last reader has read it all.
    mutating func ended(with values: [String], from start: Int64 = 0, end: Int64? = nil, committed: Bool = false) {
        let last = end ?? start + Int64(values.count)
        saw(values, from: start, by: "last", end: last, committed: committed)
        happened(.whole(consumer: "last", place: Story.place, start: start, end: last))
    }

    mutating func commit(_ offset: Int64?, _ outcome: Outcome? = .accepted(at: nil)) {
        operations += 1
        happened(.commit(operation: operations, group: "g", place: Story.place, offset: offset))
        if let outcome { told(operations, outcome) }
    }

    mutating func read(_ offset: Int64?, asked: Int64? = nil) {
        happened(.committed(group: "g", place: Story.place, asked: asked ?? now + 5, offset: offset))
    }

    mutating func makeTopic(_ name: String, partitions: Int = 1, done: Bool = true) {
        operations += 1
        happened(.makeTopic(operation: operations, topic: name, partitions: partitions))
        if done { told(operations, .accepted(at: nil)) }
    }

    mutating func deleteTopic(_ name: String, done: Bool = true) {
        operations += 1
        happened(.deleteTopic(operation: operations, topic: name))
        if done { told(operations, .accepted(at: nil)) }
    }

    mutating func endTransaction(_ name: String, commits: Bool, done: Bool = true) {
        operations += 1
        happened(.endTransaction(operation: operations, transaction: name, commits: commits))
        if done { told(operations, .accepted(at: nil)) }
    }

    mutating func deleteRecords(before offset: Int64, done: Bool = true) {
        operations += 1
        happened(.deleteRecords(operation: operations, place: Story.place, before: offset))
        if done { told(operations, .accepted(at: offset)) }
    }

    mutating func ask(_ topics: [String: Int]) { happened(.topics(asked: now + 5, topics)) }
}

/// What the checkers say about a story: each kind once. The same must be said when it has been written down and read again.
func verdicts(_ tell: (inout Story) -> Void) throws -> [Verdict.Kind] {
    var story = Story()
    tell(&story)
    let verdicts = Checks.judge(story.events)
    let text = story.events.map { $0.line + "\n" }.joined()
    let read = try Array(text.utf8).withUnsafeBytes { bytes in try HistoryLines.events(in: bytes) }
    #expect(read == story.events, "a history is the same after it was written and read")
    return Set(verdicts.map(\.kind)).sorted()
}

@Suite struct RecordCheckers {
    @Test func whatWasAcknowledgedAndIsThereIsSound() throws {
        #expect(
            try verdicts {
                $0.wrote(["a", "b"], at: 0)
                $0.wrote(["c"], at: 2)
                $0.saw(["a", "b"], end: 3)
                $0.ended(with: ["a", "b", "c"])
            } == [])
    }

    @Test func anAcknowledgedRecordThatIsGoneIsALostWrite() throws {
        #expect(
            try verdicts {
                $0.wrote(["a"], at: 0)
                $0.wrote(["b"], at: 1)
                $0.ended(with: ["a"])
            } == [.lostWrite, .staleRead])
    }

    @Test func aRecordThatWasOnlyReadAndIsGoneIsALostWrite() throws {
        #expect(
            try verdicts {
                $0.send(["a"])
                $0.saw(["a"], end: 1)
                $0.happened(.ended(.powerCut))
                $0.ended(with: [], end: 1)
            } == [.lostWrite])
    }

    @Test func whatNobodyWasToldOfMayBeGone() throws {
        #expect(
            try verdicts {
                $0.wrote(["a"], at: 0)
                $0.told($0.send(["b"]), .unknown("the connection was lost"))
                $0.send(["c"])
                $0.ended(with: ["a"])
            } == [])
    }

    @Test func acks1OutlivesAKillAndNotAPowerCut() throws {
        func ended(_ ends: [LifeEnd]) throws -> [Verdict.Kind] {
            try verdicts { story in
                story.wrote(["a"], at: 0, acks: 1)
                for end in ends { story.happened(.ended(end)) }
                story.ended(with: [])
            }
        }
        #expect(try ended([.kill]) == [.lostWrite])
        #expect(try ended([.kill, .powerCut]) == [])
        #expect(try ended([.stop, .powerCut]) == [.lostWrite])
    }

    @Test func anAnswerThatArrivesAfterThePowerCutOfAcks1PromisesNothing() throws {
        #expect(
            try verdicts {
                let operation = $0.send(["a"], acks: 1)
                $0.happened(.ended(.powerCut))
                $0.told(operation, .accepted(at: 0))
                $0.ended(with: [])
            } == [])
    }

    @Test func recordsMayGoWhereSomebodyHadThemDeletedAndNowhereElse() throws {
        #expect(
            try verdicts {
                $0.wrote(["a", "b", "c"], at: 0)
                $0.deleteRecords(before: 2)
                $0.ended(with: ["c"], from: 2)
            } == [])
        #expect(
            try verdicts {
                $0.wrote(["a", "b", "c"], at: 0)
                $0.deleteRecords(before: 1)
                $0.ended(with: ["c"], from: 2)
            } == [.lostWrite])
    }

    @Test func whatADamagedDiskTookIsExcusedAndWhatItMakesUpIsNot() throws {
        #expect(
            try verdicts {
                $0.wrote(["a", "b"], at: 0)
                $0.happened(.note("a bit of the first segment"))
                $0.happened(.damaged(Story.place))
                $0.ended(with: ["a"])
            } == [])
        #expect(
            try verdicts {
                $0.wrote(["a", "b"], at: 0)
                $0.happened(.damaged(Story.place))
                $0.ended(with: ["a", "z"])
            } == [.phantom])
    }

    @Test func halfABatchIsATornWrite() throws {
        #expect(
            try verdicts {
                $0.send(["a", "b"])
                $0.ended(with: ["a"])
            } == [.tornWrite])
    }

    @Test func anIdempotentRecordTwiceIsADuplicate() throws {
        #expect(
            try verdicts {
                $0.send(["a"], idempotent: true)
                $0.wrote(["a"], at: 0, idempotent: true)
                $0.ended(with: ["a", "a"])
            } == [.duplicate])
    }

    @Test func aRecordSentOnceIsThereOnceEvenWithoutSequenceNumbers() throws {
        #expect(
            try verdicts {
                $0.wrote(["a"], at: 0)
                $0.ended(with: ["a", "a"])
            } == [.duplicate])
    }

    @Test func whoSendsAgainWithoutSequenceNumbersMayFindItTwice() throws {
        #expect(
            try verdicts {
                $0.send(["a"])
                $0.send(["a"])
                $0.ended(with: ["a", "a"])
            } == [])
    }

    @Test func theSameRecordInTwoPartitionsIsADuplicateAndAPhantom() throws {
        #expect(
            try verdicts {
                $0.wrote(["a"], at: 0)
                $0.saw(["a"], at: Place("orders", 1))
                $0.ended(with: ["a"])
            } == [.duplicate, .phantom])
    }

    @Test func recordsOfAnIdempotentProducerInAnotherOrderAreReordered() throws {
        #expect(
            try verdicts {
                $0.send(["a"], idempotent: true)
                $0.send(["b"], idempotent: true)
                $0.ended(with: ["b", "a"])
            } == [.reordered])
    }

    @Test func recordsOfTwoProducersMayMix() throws {
        #expect(
            try verdicts {
                $0.send(["a"], by: "p", idempotent: true)
                $0.send(["x"], by: "q", idempotent: true)
                $0.send(["b"], by: "p", idempotent: true)
                $0.ended(with: ["x", "a", "b"])
            } == [])
    }

    @Test func aValueThatNobodySentIsAPhantom() throws {
        #expect(
            try verdicts {
                $0.wrote(["a"], at: 0)
                $0.ended(with: ["a", "z"])
            } == [.phantom])
    }

    @Test func aRecordThatIsReadBeforeItIsSentIsAPhantom() throws {
        #expect(
            try verdicts {
                $0.saw(["a"])
                $0.send(["a"])
            } == [.phantom])
    }

    @Test func aRecordThatWasRefusedIsAPhantom() throws {
        #expect(
            try verdicts {
                $0.told($0.send(["a"]), .refused("it is too large"))
                $0.ended(with: ["a"])
            } == [.phantom])
    }

    @Test func twoValuesAtOneOffsetAreInconsistent() throws {
        #expect(
            try verdicts {
                $0.send(["a"])
                $0.send(["b"])
                $0.saw(["a"])
                $0.saw(["b"])
            } == [.inconsistentOffset])
    }

    @Test func whatWasAskedForBeforeTheDamageAndCameAfterItIsOfBefore() throws {
        func story(askedBefore: Bool) throws -> [Verdict.Kind] {
            try verdicts {
                $0.send(["a"])
                let asked = $0.now
                $0.happened(.damaged(Story.place))
                $0.saw(["a"], asked: askedBefore ? asked : nil)
                $0.send(["b"])
                $0.saw(["b"])
            }
        }
        #expect(try story(askedBefore: true) == [])
        #expect(try story(askedBefore: false) == [.inconsistentOffset])
    }

    @Test func aRecordElsewhereThanToldIsInconsistent() throws {
        #expect(
            try verdicts {
                $0.wrote(["a"], at: 0)
                $0.wrote(["b"], at: 1)
                $0.ended(with: ["b", "a"])
            } == [.inconsistentOffset])
    }

    @Test func anOffsetThatAcks1WasToldMayBeGivenAnewAfterAPowerCut() throws {
        #expect(
            try verdicts {
                $0.wrote(["a"], at: 0, acks: 1)
                $0.happened(.ended(.powerCut))
                $0.wrote(["b"], at: 0)
                $0.ended(with: ["b"])
            } == [])
    }
}

@Suite struct TransactionCheckers {
    @Test func whatIsCommittedIsReadAndWhatIsAbortedIsNot() throws {
        #expect(
            try verdicts {
                $0.wrote(["a"], at: 0, in: "t1")
                $0.endTransaction("t1", commits: true)
                $0.wrote(["b"], at: 2, in: "t2")
                $0.endTransaction("t2", commits: false)
                $0.ended(with: ["a"], end: 4, committed: true)
            } == [])
    }

    @Test func aRecordOfAnAbortedTransactionIsAnAbortedRead() throws {
        #expect(
            try verdicts {
                $0.wrote(["a"], at: 0, in: "t")
                $0.endTransaction("t", commits: false)
                $0.saw(["a"], end: 2, committed: true)
            } == [.abortedRead])
    }

    @Test func aRecordOfATransactionThatIsOpenIsAnAbortedRead() throws {
        #expect(
            try verdicts {
                $0.wrote(["a"], at: 0, in: "t")
                $0.saw(["a"], end: 2, committed: true)
                $0.endTransaction("t", commits: true)
            } == [.abortedRead])
    }

    @Test func whoReadsUncommittedMaySeeWhatIsAborted() throws {
        #expect(
            try verdicts {
                $0.wrote(["a"], at: 0, in: "t")
                $0.endTransaction("t", commits: false)
                $0.ended(with: ["a"], end: 2)
            } == [])
    }

    @Test func aRecordOfACommittedTransactionThatIsGoneIsALostWrite() throws {
        #expect(
            try verdicts {
                $0.wrote(["a"], at: 0, in: "t")
                $0.endTransaction("t", commits: true)
                $0.ended(with: [], end: 2, committed: true)
            } == [.lostWrite])
    }
}

@Suite struct OffsetCheckers {
    @Test func aHighWatermarkThatFallsHasGoneBack() throws {
        #expect(
            try verdicts {
                $0.saw([], end: 7)
                $0.saw([], by: "d", end: 5)
            } == [.offsetGoneBack])
    }

    @Test func twoWhoAskAtTheSameTimeMayBeToldInEitherOrder() throws {
        #expect(
            try verdicts {
                $0.saw([], end: 7)
                $0.saw([], by: "d", end: 5, asked: 1)
            } == [])
    }

    @Test func aLogStartThatFallsHasGoneBack() throws {
        #expect(
            try verdicts {
                $0.deleteRecords(before: 3)
                $0.saw([], from: 5, start: 3)
                $0.saw([], from: 5, start: 2)
            } == [.offsetGoneBack])
    }

    @Test func aLogStartMayFallWithTheEndOfALifeWhereNobodyWasTold() throws {
        func story(done: Bool) throws -> [Verdict.Kind] {
            try verdicts {
                $0.deleteRecords(before: 3, done: done)
                $0.saw([], from: 5, start: 3)
                $0.happened(.ended(.kill))
                $0.saw([], from: 5, start: 2)
            }
        }
        #expect(try story(done: false) == [])
        #expect(try story(done: true) == [.offsetGoneBack])
    }

    @Test func whatWasInRangeStaysInRange() throws {
        #expect(
            try verdicts {
                $0.saw([], end: 7)
                $0.happened(.outOfRange(consumer: "c", place: Story.place, asked: $0.now + 5, from: 7))
            } == [.offsetGoneBack])
        #expect(
            try verdicts {
                $0.saw([], end: 7)
                $0.deleteRecords(before: 7)
                $0.happened(.outOfRange(consumer: "c", place: Story.place, asked: $0.now + 5, from: 3))
            } == [])
    }

    @Test func aPartitionThatEndsBelowItsHighWatermarkHasGoneBack() throws {
        #expect(
            try verdicts {
                $0.saw([], end: 7)
                $0.happened(.whole(consumer: "last", place: Story.place, start: 0, end: 5))
            } == [.offsetGoneBack])
    }

    @Test func whoAsksAfterAnAcknowledgementSeesTheWrite() throws {
        #expect(
            try verdicts {
                $0.wrote(["a"], at: 0)
                $0.happened(.listed(consumer: "c", place: Story.place, asked: $0.now + 5, start: nil, end: 0))
            } == [.staleRead])
        #expect(
            try verdicts {
                $0.wrote(["a"], at: 0)
                $0.happened(.listed(consumer: "c", place: Story.place, asked: $0.now - 15, start: 0, end: 0))
                $0.happened(.listed(consumer: "c", place: Story.place, asked: $0.now + 5, start: 0, end: 1))
            } == [])
    }
}

@Suite struct CommitCheckers {
    @Test func theLastCommitIsRead() throws {
        #expect(
            try verdicts {
                $0.read(nil)
                $0.commit(5)
                $0.commit(9)
                $0.read(9)
            } == [])
    }

    @Test func anAcknowledgedCommitThatIsGoneIsLost() throws {
        #expect(
            try verdicts {
                $0.commit(5)
                $0.read(nil)
            } == [.commitLost])
    }

    @Test func anOlderCommitAfterANewerOneIsLost() throws {
        #expect(
            try verdicts {
                $0.commit(5)
                $0.commit(9)
                $0.read(5)
            } == [.commitLost])
    }

    @Test func aCommitThatWasReadIsThereEvenIfNobodyWasTold() throws {
        #expect(
            try verdicts {
                $0.commit(5)
                $0.commit(9, .unknown("the connection was lost"))
                $0.read(9)
                $0.read(5)
            } == [.commitLost])
    }

    @Test func aCommitWithoutAnAnswerMayStillArrive() throws {
        #expect(
            try verdicts {
                $0.commit(5, nil)
                $0.commit(9)
                $0.read(9)
                $0.read(5)
            } == [])
    }

    @Test func whatWasOnItsWayToABrokerThatDiedDoesNotArriveLater() throws {
        #expect(
            try verdicts {
                $0.commit(5, nil)
                $0.happened(.ended(.kill))
                $0.commit(9)
                $0.read(5)
            } == [.commitLost])
    }

    @Test func anOffsetThatNobodyCommittedIsWrong() throws {
        #expect(
            try verdicts {
                $0.commit(5)
                $0.read(6)
            } == [.commitLost])
    }

    @Test func aRefusedCommitIsNotRead() throws {
        #expect(
            try verdicts {
                $0.commit(5, .refused("an old generation"))
                $0.read(5)
            } == [.commitLost])
    }

    @Test func aRemovedCommitIsGoneAndStaysSo() throws {
        #expect(
            try verdicts {
                $0.commit(5)
                $0.commit(nil)
                $0.read(nil)
            } == [])
        #expect(
            try verdicts {
                $0.commit(5)
                $0.commit(nil)
                $0.read(5)
            } == [.commitLost])
    }
}

@Suite struct TopicCheckers {
    @Test func aTopicIsThereFromItsMakingToItsDeletion() throws {
        #expect(
            try verdicts {
                $0.makeTopic("a", partitions: 2)
                $0.makeTopic("b")
                $0.deleteTopic("b")
                $0.ask(["a": 2])
            } == [])
    }

    @Test func aTopicThatWasMadeAndIsGoneIsLost() throws {
        #expect(
            try verdicts {
                $0.makeTopic("a")
                $0.ask([:])
            } == [.topicLost])
    }

    @Test func aDeletedTopicThatIsThereIsWrong() throws {
        #expect(
            try verdicts {
                $0.makeTopic("a")
                $0.deleteTopic("a")
                $0.ask(["a": 1])
            } == [.topicLost])
    }

    @Test func partitionsThatWereAddedStay() throws {
        #expect(
            try verdicts {
                $0.makeTopic("a", partitions: 1)
                $0.makeTopic("a", partitions: 3)
                $0.ask(["a": 1])
            } == [.topicLost])
    }

    @Test func aTopicWhoseDeletionIsUnderWayMayBeThereOrNot() throws {
        for there in [[:], ["a": 1]] {
            #expect(
                try verdicts {
                    $0.makeTopic("a")
                    $0.deleteTopic("a", done: false)
                    $0.ask(there)
                } == [])
        }
    }
}
