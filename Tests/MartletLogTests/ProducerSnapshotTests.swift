import MartletLog
import MartletModel
import Testing

@Suite struct SnapshotsOfProducers {
    private func table() -> ProducerStateTable {
        var p = Partition()
        _ = p.send(9, 0, count: 3)
        _ = p.send(4, 7, epoch: 2, transactional: true)
        _ = p.send(9, 3)
        _ = p.end(5, .abort, epoch: 1, coordinatorEpoch: 3)
        return p.table
    }

    @Test func whatIsWrittenIsReadBack() throws {
        let written = table()
        let bytes = written.encodeSnapshot()
        #expect(bytes.count == 10 + 3 * 46)
        let read = try ProducerStateTable.decode(bytes, path: "s", at: 6)
        #expect(read.producers == written.producers)
        #expect(read.nextOffset == 6)
        #expect(read.firstUnstableOffset == 3)
        #expect(read.encodeSnapshot() == bytes)
    }

    @Test func afterLoadingTheLastBatchIsStillKnownAndOlderOnesAreNot() throws {
        let read = try ProducerStateTable.decode(table().encodeSnapshot(), path: "s", at: 6)
        #expect(read.check(header(9, 3)) == .duplicate(baseOffset: 4, logAppendTime: 1000))
        guard case .refused(.outOfOrderSequenceNumber, _) = read.check(header(9, 0, count: 3)) else {
            Issue.record("an older batch was taken")
            return
        }
    }

    @Test func everyDamagedByteIsFound() {
        let bytes = table().encodeSnapshot()
        for index in bytes.indices {
            var damaged = bytes
            damaged[index] ^= 0x10
            #expect(throws: LogError.self, "byte \(index)") { try ProducerStateTable.decode(damaged, path: "s", at: 6) }
        }
        for count in 0..<bytes.count {
            #expect(throws: LogError.self, "\(count) bytes") {
                try ProducerStateTable.decode(Array(bytes[..<count]), path: "s", at: 6)
            }
        }
        #expect(throws: LogError.self) { try ProducerStateTable.decode(bytes + [0], path: "s", at: 6) }
    }

    @Test func aSnapshotOfLaterOffsetsThanItsNameIsRefused() {
        #expect(throws: LogError.self) { try ProducerStateTable.decode(table().encodeSnapshot(), path: "s", at: 3) }
    }

    @Test func namesHaveTwentyDigits() {
        #expect(ProducerSnapshotFile.fileName(at: 42) == "00000000000000000042.snapshot")
        #expect(ProducerSnapshotFile.fileName(at: .max) == "09223372036854775807.snapshot")
    }
}
