internal import MartletBasics
package import MartletModel
package import MartletReactor

/// What a partition's folder says of numbers that were given out before it came here, and must not be given again. Read
/// when a directory is adopted, before any log is opened; nothing is changed, and what cannot be read says nothing.
package struct PartitionSurvey: Equatable, Sendable {
    /// -1 where there is none.
    package var leaderEpoch: LeaderEpoch = -1
    package var producerID: ProducerID = -1

    package init() {}

    /// `isClean`: the directory was stopped cleanly, so that a checkpoint and a snapshot tell all of the log. Otherwise its
    /// batches are gone through from the newest good snapshot on.
    package static func read(
        _ folder: String, of partition: TopicPartition, on disk: any Disk, isClean: Bool
    ) -> PartitionSurvey {
        var survey = PartitionSurvey()
        let files = (try? disk.list(folder)) ?? []
        let epochPath = folder + "/" + LeaderEpochHistory.fileName
        if let bytes = try? disk.contents(epochPath), let history = try? LeaderEpochHistory.decode(bytes, path: epochPath) {
            survey.leaderEpoch = history.latestEpoch ?? -1
        }
        let parsed = files.compactMap { SegmentFile.parse($0) }.filter { $0.suffix.isEmpty }
        var known: Offset = -1
        for snapshot in parsed.filter({ $0.kind == .snapshot }).map(\.baseOffset).sorted(by: >) {
            let path = SegmentFile.snapshot.path(folder, snapshot)
            guard let table = try? ProducerStateTable.load(disk, path: path, at: snapshot) else { continue }
            survey.note(producer: table.producers.last?.producerID ?? -1)
            known = snapshot
            break
        }
        let segments = parsed.filter { $0.kind == .log }.map(\.baseOffset).sorted()
        let isCoordinators = partition.topic == "__transaction_state"
        // a checkpoint without a row is not what a clean stop leaves of a log that holds something
        guard !isClean || isCoordinators || survey.leaderEpoch < 0 else { return survey }
        for (index, base) in segments.enumerated() {
            let isKnown = index + 1 < segments.count && segments[index + 1] <= known
            guard !isKnown || isCoordinators else { continue }
            survey.go(through: SegmentFile.log.path(folder, base), base, on: disk, readsRecords: isCoordinators)
        }
        return survey
    }

    private mutating func note(producer: ProducerID) { producerID = max(producerID, producer) }

    /// Ends at the first bytes that are no batch: so does recovery.
    private mutating func go(through path: String, _ base: Offset, on disk: any Disk, readsRecords: Bool) {
        guard let reader = try? SegmentReader(path, baseOffset: base, on: disk) else { return }
        while let step = try? reader.next(), case .batch(let batch) = step, batch.fault == nil {
            leaderEpoch = max(leaderEpoch, batch.header.leaderEpoch)
            note(producer: batch.header.producerID)
            guard readsRecords, !batch.header.isControl else { continue }
            _ = reader.forEachRecord(of: batch) { record, cursor in
                guard let value = cursor.bytes(in: record.value).map(Array.init),
                    let transaction = try? TransactionLogValue(prefixed: value)
                else { return }
                note(producer: max(transaction.producerID, transaction.previousProducerID, transaction.nextProducerID))
            }
        }
    }
}
