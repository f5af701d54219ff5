import MartletBasics
import MartletClient
import MartletModel

/// Reads partitions and prints their records until it is time to stop.
final class RecordReading: @unchecked Sendable {
    struct Shape: Sendable {
        /// Whether it goes on at the end.
        var follows: Bool
        var limit: Int
        var isCommitted: Bool
        var format: RecordFormat
        /// For whom it commits what was printed.
        var group: String?
    }

    /// How often a group's offsets are committed.
    private static let commitInterval = Interval.seconds(5)
    /// How long one that has nothing to read waits before it looks again.
    private static let idleInterval = Interval.milliseconds(100)

    private let session: Session
    private let client: Client
    private let shape: Shape
    private let output: StandardOutput
    private var membership: GroupMembership?
    private var consumer: Consumer
    /// Where each partition ends, for one that stops there.
    private var ends: [(partition: TopicPartition, end: Offset)]?
    private var finished: [(partition: TopicPartition, offset: Offset)] = []
    private var count = 0
    private var skippedCount = 0
    private var committedAt: Instant
    private var isCommitDue = false
    private var hasReader = true
    private var isJoining = false

    init(_ session: Session, _ shape: Shape, _ output: StandardOutput) {
        self.session = session
        client = session.client
        self.shape = shape
        self.output = output
        consumer = Consumer(session.client, from: [])
        committedAt = session.host.clock.now
    }

    /// Ctrl-C: what is under way comes to its end, but for a wait for the other members of the group.
    func interrupt() {
        if isJoining { client.close() }
    }

    // MARK: What is read

    func run(from positions: [(partition: TopicPartition, offset: Offset)]) async throws {
        try await begin(positions)
        try await read()
        try await commit()
    }

    /// Reads what the group assigns, and again when it assigns anew.
    func run(as membership: GroupMembership) async throws {
        self.membership = membership
        do {
            repeat {
                isJoining = true
                let assigned = try await membership.join()
                isJoining = false
                try await begin(try await GroupPositions.of(membership.group, assigned, client))
                try await read()
                try await commit()
            } while !isOver && membership.mustRejoin
        } catch {
            await membership.leave()
            throw error
        }
        await membership.leave()
    }

    private func begin(_ positions: [(partition: TopicPartition, offset: Offset)]) async throws {
        var settings = Consumer.Settings()
        settings.isCommitted = shape.isCommitted
        consumer = Consumer(client, from: positions, settings: settings)
        finished = []
        skippedCount = 0
        guard !shape.follows else { return }
        let latest = try await client.offsets(
            .latest, of: positions.map(\.partition), isCommitted: shape.isCommitted)
        ends = try latest.map { found in
            if let error = found.error { throw error }
            return (found.partition, found.offset ?? 0)
        }
    }

    /// Whether there is nothing more to print, whatever comes.
    private var isOver: Bool { count >= shape.limit || session.isInterrupted || !hasReader }

    private func read() async throws {
        dropFinished()
        while !isOver, membership?.mustRejoin != true, shape.follows || !consumer.positions.isEmpty {
            try membership?.check()
            if consumer.positions.isEmpty { await session.loop.sleep(for: Self.idleInterval) }
            for records in try await consumer.poll() {
                try await show(records)
                consumer.advance(records)
                if isOver { break }
            }
            tellSkipped()
            // what is committed was printed
            guard try await flush() else { return }
            if session.host.clock.now - committedAt >= Self.commitInterval { try await commit() }
            dropFinished()
        }
    }

    // MARK: What is printed

    private func show(_ records: FetchedRecords) async throws {
        let partition = records.partition
        let end = ends?.first { $0.partition == partition }?.end ?? .max
        var isBeforeEnd = true
        while isBeforeEnd, !isOver,
            try records.nextBatch({ [self] record in
                guard record.offset < end else {
                    isBeforeEnd = false
                    return false
                }
                shape.format.write(record, of: partition, to: output)
                isCommitDue = true
                count += 1
                return count < shape.limit
            })
        {
            if output.isFull, try await !flush() { return }
        }
    }

    /// False where nobody reads any more.
    private func flush() async throws -> Bool {
        hasReader = try await output.flush()
        return hasReader
    }

    private func dropFinished() {
        guard let ends else { return }
        for (partition, offset) in consumer.positions {
            let end = ends.first { $0.partition == partition }?.end ?? 0
            guard offset >= end else { continue }
            finished.append((partition, min(offset, end)))
            consumer.drop(partition)
        }
    }

    private func tellSkipped() {
        for one in consumer.skipped.dropFirst(skippedCount) {
            session.remark("\(one.partition): records \(one.from) to \(one.to - 1) were deleted before they could be read")
        }
        skippedCount = consumer.skipped.count
    }

    // MARK: What is committed

    private func commit() async throws {
        committedAt = session.host.clock.now
        guard let group = shape.group, isCommitDue, hasReader else { return }
        isCommitDue = false
        let offsets = finished + consumer.positions
        if let membership {
            // a group that has changed meanwhile reads these again
            _ = try await membership.commit(offsets)
            return
        }
        let outcomes = try await client.commit(offsets, for: group)
        if let error = outcomes.lazy.compactMap(\.error).first { throw error }
    }
}

/// Where a group goes on.
enum GroupPositions {
    /// What was committed; the beginning where nothing was, or where that is deleted by now.
    static func of(
        _ group: String, _ partitions: [TopicPartition], _ client: Client
    ) async throws -> [(partition: TopicPartition, offset: Offset)] {
        guard !partitions.isEmpty else { return [] }
        let committed = try await client.committed(by: group)
        return try await client.offsets(.earliest, of: partitions).map { found in
            if let error = found.error { throw error }
            let known = committed.first { $0.partition == found.partition }?.offset
            return (found.partition, max(known ?? 0, found.offset ?? 0))
        }
    }
}
