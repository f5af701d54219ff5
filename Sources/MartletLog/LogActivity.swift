internal import Synchronization

/// What the logs of a broker have done beside taking and giving records, counted since the start. Rare enough that one
/// counter for all threads does.
package final class LogActivity: Sendable {
    package struct Counts: Sendable, Equatable {
        /// Segments begun at the end of a full, or old, one.
        package var rolledSegments: UInt64 = 0
        /// Segments that retention gave up, and their bytes: by age, by the size of the log, below its start.
        package var removedByTime: UInt64 = 0
        package var removedBySize: UInt64 = 0
        package var removedByLogStart: UInt64 = 0
        package var removedBytes: UInt64 = 0
        /// Logs that were scanned after a crash, the bytes of their segments that were, and those that were put aside.
        package var recoveredLogs: UInt64 = 0
        package var recoveredBytes: UInt64 = 0
        package var putAsideBytes: UInt64 = 0
        /// What the cleaner did: cleanings that came to their end, bytes that it read and wrote, by how much segments became
        /// smaller, and records that it dropped.
        package var cleanings: UInt64 = 0
        package var cleanerReadBytes: UInt64 = 0
        package var cleanerWrittenBytes: UInt64 = 0
        package var cleanerSavedBytes: UInt64 = 0
        package var cleanerDroppedRecords: UInt64 = 0

        package init() {}
    }

    private let rolled = Atomic<UInt64>(0)
    private let byTime = Atomic<UInt64>(0)
    private let bySize = Atomic<UInt64>(0)
    private let byLogStart = Atomic<UInt64>(0)
    private let bytes = Atomic<UInt64>(0)
    private let recovered = Atomic<UInt64>(0)
    private let scannedBytes = Atomic<UInt64>(0)
    private let cutBytes = Atomic<UInt64>(0)
    private let cleanings = Atomic<UInt64>(0)
    private let cleanerRead = Atomic<UInt64>(0)
    private let cleanerWritten = Atomic<UInt64>(0)
    private let cleanerSaved = Atomic<UInt64>(0)
    private let cleanerDropped = Atomic<UInt64>(0)

    package init() {}

    package var counts: Counts {
        var counts = Counts()
        counts.rolledSegments = rolled.load(ordering: .relaxed)
        counts.removedByTime = byTime.load(ordering: .relaxed)
        counts.removedBySize = bySize.load(ordering: .relaxed)
        counts.removedByLogStart = byLogStart.load(ordering: .relaxed)
        counts.removedBytes = bytes.load(ordering: .relaxed)
        counts.recoveredLogs = recovered.load(ordering: .relaxed)
        counts.recoveredBytes = scannedBytes.load(ordering: .relaxed)
        counts.putAsideBytes = cutBytes.load(ordering: .relaxed)
        counts.cleanings = cleanings.load(ordering: .relaxed)
        counts.cleanerReadBytes = cleanerRead.load(ordering: .relaxed)
        counts.cleanerWrittenBytes = cleanerWritten.load(ordering: .relaxed)
        counts.cleanerSavedBytes = cleanerSaved.load(ordering: .relaxed)
        counts.cleanerDroppedRecords = cleanerDropped.load(ordering: .relaxed)
        return counts
    }

    func noteRoll() { rolled.add(1, ordering: .relaxed) }

    func note(_ removed: RemovedSegments) {
        let count = UInt64(removed.baseOffsets.count)
        switch removed.reason {
        case .time: byTime.add(count, ordering: .relaxed)
        case .size: bySize.add(count, ordering: .relaxed)
        case .logStart: byLogStart.add(count, ordering: .relaxed)
        }
        bytes.add(UInt64(max(removed.bytes, 0)), ordering: .relaxed)
    }

    func noteRecovery(bytes: Int) {
        recovered.add(1, ordering: .relaxed)
        scannedBytes.add(UInt64(max(bytes, 0)), ordering: .relaxed)
    }

    func notePutAside(bytes: Int) { cutBytes.add(UInt64(max(bytes, 0)), ordering: .relaxed) }

    /// A cleaning has come further.
    package func noteCleaning(from before: CleaningFigures, to now: CleaningFigures) {
        func add(_ counter: borrowing Atomic<UInt64>, _ value: (CleaningFigures) -> Int64) {
            counter.add(UInt64(max(value(now) - value(before), 0)), ordering: .relaxed)
        }
        add(cleanerRead) { $0.readBytes }
        add(cleanerWritten) { $0.writtenBytes }
        add(cleanerSaved) { max($0.oldBytes - $0.newBytes, 0) }
        add(cleanerDropped) { $0.droppedRecords }
    }

    package func noteCleaned() { cleanings.add(1, ordering: .relaxed) }
}
