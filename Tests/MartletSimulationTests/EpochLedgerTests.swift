import Testing

/// A judge that lets everything pass proves nothing: histories that no coordinator may write, and beside each one that it may.
@Suite struct EpochLedgers {
    private func violations(_ history: (EpochLedger) -> Void) -> [String] {
        var found: [String] = []
        history(EpochLedger { found.append($0) })
        return found
    }

    @Test func aPartitionWithTwoOwnersOfOneEpochIsSeen() {
        #expect(
            violations { ledger in
                ledger.assigned("g", epoch: 3, to: "a", partitions: [0, 1], at: 1)
                ledger.assigned("g", epoch: 3, to: "b", partitions: [1, 2], at: 2)
            } == ["partition 1 of g belongs to a and to b in epoch 3"])
        #expect(
            violations { ledger in
                ledger.assigned("g", epoch: 3, to: "a", partitions: [0, 1], at: 1)
                ledger.assigned("g", epoch: 3, to: "a", partitions: [0], at: 2)
                ledger.assigned("g", epoch: 4, to: "b", partitions: [1, 2], at: 3)
                ledger.assigned("other", epoch: 3, to: "b", partitions: [0], at: 4)
            }.isEmpty)
    }

    @Test func aCommitOfWhoeverHadThePartitionBeforeIsSeen() {
        func committed(sent: Int, epoch: Int32, partition: Int32, by owner: String = "a") -> [String] {
            violations { ledger in
                ledger.assigned("g", epoch: 3, to: "a", partitions: [0, 1], at: 1)
                ledger.assigned("g", epoch: 4, to: "b", partitions: [1], at: 5)
                ledger.committed("g", epoch: epoch, by: owner, partition: partition, sent: sent)
            }
        }
        #expect(committed(sent: 6, epoch: 3, partition: 1).count == 1)
        #expect(committed(sent: 4, epoch: 3, partition: 1).isEmpty, "it may have been carried out before")
        #expect(committed(sent: 6, epoch: 3, partition: 0).isEmpty, "that one it has still")
        #expect(committed(sent: 6, epoch: 4, partition: 1, by: "b").isEmpty)
    }
}
