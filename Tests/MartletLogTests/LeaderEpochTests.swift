import MartletLog
import MartletModel
import Testing

@Suite struct EpochsOfLeaders {
    private func history(_ entries: (LeaderEpoch, Offset)...) -> LeaderEpochHistory {
        var history = LeaderEpochHistory()
        for (epoch, start) in entries { history.assign(epoch: epoch, startOffset: start) }
        return history
    }

    private func rows(_ history: LeaderEpochHistory) -> [[Int64]] {
        history.entries.map { [Int64($0.epoch), $0.startOffset] }
    }

    @Test func anEpochThatWroteNothingGivesWayToTheNext() {
        #expect(rows(history((0, 0), (1, 10), (2, 10), (5, 12))) == [[0, 0], [2, 10], [5, 12]])
        #expect(rows(history((0, 0), (7, 0))) == [[7, 0]])
    }

    @Test func theSameEpochAgainChangesNothing() {
        var h = history((0, 0), (1, 10))
        #expect(h.assign(epoch: 1, startOffset: 15) == false)
        #expect(h.assign(epoch: -1, startOffset: 15) == false)
        #expect(rows(h) == [[0, 0], [1, 10]])
    }

    @Test func aFollowerAsksWhereAnEpochEnded() throws {
        let h = history((1, 5), (3, 20), (4, 30))
        func end(_ epoch: LeaderEpoch) -> [Int64]? {
            h.endOffset(for: epoch, logEnd: 42).map { [Int64($0.epoch), $0.endOffset] }
        }
        #expect(end(4) == [4, 42])
        #expect(end(3) == [3, 30])
        #expect(end(2) == [1, 20], "the largest known epoch below it")
        #expect(end(0) == [0, 5], "before all that is known")
        #expect(end(5) == nil)
        #expect(end(-1) == nil)
        #expect(LeaderEpochHistory().endOffset(for: 0, logEnd: 0) == nil)
    }

    @Test func eachOffsetHasTheEpochThatWroteIt() {
        let h = history((1, 5), (3, 20))
        #expect([4, 5, 19, 20, 99].map { h.epoch(at: $0) } == [nil, 1, 1, 3, 3])
    }

    @Test func truncatingTheEndDropsEpochsThatBeginThere() {
        var h = history((1, 5), (3, 20), (4, 30))
        #expect(h.truncateFromEnd(31) == false)
        #expect(h.truncateFromEnd(30) == true)
        #expect(rows(h) == [[1, 5], [3, 20]])
        #expect(h.truncateFromEnd(0) == true)
        #expect(h.isEmpty)
    }

    @Test func truncatingTheStartKeepsTheEpochThatWroteTheFirstOffset() {
        var h = history((1, 5), (3, 20), (4, 30))
        #expect(h.truncateFromStart(5) == false)
        #expect(h.truncateFromStart(25) == true)
        #expect(rows(h) == [[3, 25], [4, 30]])
        #expect(h.truncateFromStart(30) == true)
        #expect(rows(h) == [[4, 30]])
        #expect(h.truncateFromStart(90) == true)
        #expect(rows(h) == [[4, 90]])
    }

    @Test(arguments: [
        "0\n1\n3 5", "0\n2\n3 5\n3 9\n", "0\n2\n3 5\n4 5\n", "0\n1\n-1 5\n", "0\n1\n3\n", "0\n1\n3 5 7\n",
        "0\n2\n3 5\n",
    ])
    func aFileThatContradictsItselfIsRefused(text: String) {
        #expect(throws: LogError.self) { try LeaderEpochHistory.decode(Array(text.utf8), path: "e") }
    }
}
