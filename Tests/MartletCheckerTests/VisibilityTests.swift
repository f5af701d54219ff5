import MartletChecker
import Testing

extension Story {
    static let other = Place("payments", 0)

    /// Sent in a transaction to two partitions, and acknowledged by both.
    fileprivate mutating func wroteToBoth(_ one: String, _ two: String, at offset: Int64, in transaction: String) {
        told(send([one], in: transaction), .accepted(at: offset))
        told(send([two], to: Story.other, in: transaction), .accepted(at: offset))
    }

    /// Two partitions are read by one who is given what is committed, and then what the group has committed.
    fileprivate mutating func readCommitted(_ values: [SeenRecord], _ others: [SeenRecord], end: Int64, offset: Int64? = nil) {
        for (place, records) in [(Story.place, values), (Story.other, others)] {
            happened(
                .saw(
                    SeenPart(
                        consumer: "last", place: place, asked: now + 5, from: 0, records: records, highWatermark: end,
                        isCommitted: true)))
            happened(.whole(consumer: "last", place: place, start: 0, end: end))
        }
        read(offset)
    }

    fileprivate mutating func askForCommit(_ transaction: String, operation: Int, offset: Int64) {
        endTransaction(transaction, commits: true, done: false)
        happened(
            .commit(operation: operation, group: "g", place: Story.place, offset: offset, transaction: transaction))
    }

    fileprivate mutating func wroteKeys(_ values: [String], _ keys: [String], at offset: Int64, tombstones: [Int] = []) {
        told(send(values, idempotent: true, keys: keys, tombstones: tombstones), .accepted(at: offset))
    }

    fileprivate mutating func foundInTheEnd(_ records: [SeenRecord], end: Int64) {
        happened(
            .saw(
                SeenPart(
                    consumer: "last", place: Story.place, asked: now + 5, from: 0, records: records, highWatermark: end)))
        happened(.whole(consumer: "last", place: Story.place, start: 0, end: end))
    }

    fileprivate mutating func look(stable: Int64, end: Int64) {
        happened(
            .saw(
                SeenPart(
                    consumer: "c", place: Story.place, asked: now + 5, from: 0, records: [], highWatermark: end,
                    lastStable: stable, isCommitted: true)))
    }
}

@Suite struct VisibilityCheckers {
    @Test func aRecordOfATransactionWhoseCommitWasRefusedIsAnAbortedRead() throws {
        for (outcome, kinds) in [(Outcome.refused("PRODUCER_FENCED"), [Verdict.Kind.abortedRead]), (.unknown("lost"), [])] {
            #expect(
                try verdicts {
                    $0.wrote(["a"], at: 0, in: "t")
                    $0.endTransaction("t", commits: true, done: false)
                    $0.told($0.operations, outcome)
                    $0.saw(["a"], end: 2, committed: true)
                } == kinds)
        }
        // refused once, and asked for again
        #expect(
            try verdicts {
                $0.wrote(["a"], at: 0, in: "t")
                $0.endTransaction("t", commits: true, done: false)
                $0.told($0.operations, .refused("NOT_COORDINATOR"))
                $0.endTransaction("t", commits: true)
                $0.saw(["a"], end: 2, committed: true)
            } == [])
    }

    @Test func aBatchBehindTheStartIsWholeAndOneThatTheStartCutsIsNot() throws {
        let found = { (values: [String], start: Int64) in
            try verdicts {
                $0.wrote(["a", "b", "c"], at: 0)
                $0.send(["d", "e", "f"])
                $0.deleteRecords(before: start)
                $0.ended(with: values, from: start)
            }
        }
        #expect(try found(["c", "d", "e"], 2) == [.tornWrite])
        #expect(try found(["c", "d", "e", "f"], 2) == [])
        #expect(try found(["e", "f"], 4) == [])
        #expect(try found(["c"], 2) == [])
    }

    @Test func aTransactionOfWhoseEndNobodyWasToldIsThereOrNot() throws {
        for isThere in [true, false] {
            #expect(
                try verdicts {
                    $0.wroteToBoth("a", "b", at: 0, in: "t")
                    $0.endTransaction("t", commits: true, done: false)
                    $0.readCommitted(isThere ? [SeenRecord(0, "a")] : [], isThere ? [SeenRecord(0, "b")] : [], end: 2)
                } == [])
        }
    }

    @Test func aTransactionThatIsThereInOnePartitionOnlyIsHalfVisible() throws {
        #expect(
            try verdicts {
                $0.wroteToBoth("a", "b", at: 0, in: "t")
                $0.endTransaction("t", commits: true, done: false)
                $0.readCommitted([SeenRecord(0, "a")], [], end: 2)
            } == [.halfVisible])
    }

    @Test func anOffsetOfATransactionStandsWithItsRecords() throws {
        #expect(
            try verdicts {
                $0.wroteToBoth("a", "b", at: 0, in: "t")
                $0.askForCommit("t", operation: 100, offset: 7)
                $0.readCommitted([SeenRecord(0, "a")], [SeenRecord(0, "b")], end: 2, offset: 7)
            } == [])
        #expect(
            try verdicts {
                $0.wroteToBoth("a", "b", at: 0, in: "t")
                $0.askForCommit("t", operation: 100, offset: 7)
                $0.readCommitted([], [], end: 2, offset: 7)
            } == [.halfVisible])
        #expect(
            try verdicts {
                $0.wroteToBoth("a", "b", at: 0, in: "t")
                $0.askForCommit("t", operation: 100, offset: 7)
                $0.readCommitted([SeenRecord(0, "a")], [SeenRecord(0, "b")], end: 2)
            } == [.halfVisible])
    }

    @Test func recordsOfALaterTransactionStandWithALaterOffset() throws {
        #expect(
            try verdicts {
                $0.wroteToBoth("a", "b", at: 0, in: "t1")
                $0.askForCommit("t1", operation: 100, offset: 7)
                $0.told(100, .accepted(at: nil))
                $0.wroteToBoth("c", "d", at: 2, in: "t2")
                $0.askForCommit("t2", operation: 101, offset: 8)
                $0.readCommitted(
                    [SeenRecord(0, "a"), SeenRecord(2, "c")], [SeenRecord(0, "b"), SeenRecord(2, "d")], end: 4, offset: 7)
            } == [.halfVisible])
    }

    @Test func readersThatAreHeldBackWhenNoTransactionMayBeOpenAreSo() throws {
        #expect(
            try verdicts {
                $0.happened(.transactionsOver)
                $0.look(stable: 3, end: 5)
            } == [.hangingTransaction])
        #expect(
            try verdicts {
                $0.happened(.transactionsOver)
                $0.look(stable: 5, end: 5)
            } == [])
    }

    @Test func aTransactionThatIsBegunOrAnewStartMayHoldReadersBack() throws {
        #expect(
            try verdicts {
                $0.look(stable: 3, end: 5)
                $0.happened(.transactionsOver)
                $0.send(["a"], in: "t")
                $0.look(stable: 3, end: 5)
                $0.happened(.transactionsOver)
                $0.happened(.ended(.kill))
                $0.look(stable: 3, end: 5)
            } == [])
    }

    @Test func aLastStableOffsetThatFallsHasGoneBack() throws {
        #expect(
            try verdicts {
                $0.look(stable: 5, end: 5)
                $0.look(stable: 3, end: 5)
            } == [.offsetGoneBack])
    }
}

@Suite struct CompactionCheckers {
    private let compacted = HistoryEvent.Kind.compacted(topic: Story.place.topic)

    @Test func whatIsSupersededMayBeGone() throws {
        #expect(
            try verdicts {
                $0.happened(compacted)
                $0.wroteKeys(["a", "b"], ["k", "l"], at: 0)
                $0.wroteKeys(["c"], ["k"], at: 2)
                $0.foundInTheEnd([SeenRecord(1, "b"), SeenRecord(2, "c")], end: 3)
            } == [])
    }

    @Test func theLastOfAKeyIsLostWhereItIsGone() throws {
        for left in [[SeenRecord(1, "b")], [SeenRecord(0, "a"), SeenRecord(1, "b")]] {
            #expect(
                try verdicts {
                    $0.happened(compacted)
                    $0.wroteKeys(["a", "b"], ["k", "l"], at: 0)
                    $0.wroteKeys(["c"], ["k"], at: 2)
                    $0.foundInTheEnd(left, end: 3)
                } == [.lostWrite])
        }
    }

    @Test func aTombstoneMayGoWithWhatItRemoved() throws {
        for left in [[SeenRecord(1, "b")], [SeenRecord(1, "b"), SeenRecord(2, "c")]] {
            #expect(
                try verdicts {
                    $0.happened(compacted)
                    $0.wroteKeys(["a", "b"], ["k", "l"], at: 0)
                    $0.wroteKeys(["c"], ["k"], at: 2, tombstones: [0])
                    $0.foundInTheEnd(left, end: 3)
                } == [])
        }
    }

    @Test func aKeyThatComesBackAfterItsTombstoneIsRevived() throws {
        #expect(
            try verdicts {
                $0.happened(compacted)
                $0.wroteKeys(["a", "b"], ["k", "l"], at: 0)
                $0.wroteKeys(["c"], ["k"], at: 2, tombstones: [0])
                $0.foundInTheEnd([SeenRecord(0, "a"), SeenRecord(1, "b")], end: 3)
            } == [.revivedKey])
    }

    @Test func whatATombstoneRemovedDoesNotOutliveItEvenWhereTheKeyIsWrittenAgain() throws {
        #expect(
            try verdicts {
                $0.happened(compacted)
                $0.wroteKeys(["a"], ["k"], at: 0)
                $0.wroteKeys(["b"], ["k"], at: 1, tombstones: [0])
                $0.wroteKeys(["c"], ["k"], at: 2)
                $0.foundInTheEnd([SeenRecord(0, "a"), SeenRecord(2, "c")], end: 3)
            } == [.revivedKey])
    }

    @Test func aTombstoneOfWhichNobodyWasToldMayHaveRemovedAKey() throws {
        #expect(
            try verdicts {
                $0.happened(compacted)
                $0.wroteKeys(["a"], ["k"], at: 0)
                $0.send(["b"], keys: ["k"], tombstones: [0])
                $0.foundInTheEnd([], end: 2)
            } == [])
    }

    @Test func anOffsetIsTheSameAfterACleaning() throws {
        #expect(
            try verdicts {
                $0.happened(compacted)
                $0.wroteKeys(["a"], ["k"], at: 0)
                $0.wroteKeys(["b"], ["k"], at: 1)
                $0.foundInTheEnd([SeenRecord(0, "b")], end: 2)
            } == [.inconsistentOffset])
        #expect(
            try verdicts {
                $0.happened(compacted)
                $0.wroteKeys(["a"], ["k"], at: 3)
                $0.foundInTheEnd([SeenRecord(2, "a")], end: 4)
            } == [.inconsistentOffset])
    }

    @Test func whatWasDeletedIsNotThereInTheEnd() throws {
        func story(from start: Int64) throws -> [Verdict.Kind] {
            try verdicts {
                $0.saw([], end: 7)
                $0.deleteRecords(before: 3)
                $0.happened(.whole(consumer: "last", place: Story.place, start: start, end: 7))
            }
        }
        #expect(try story(from: 3) == [])
        #expect(try story(from: 2) == [.offsetGoneBack])
    }
}
