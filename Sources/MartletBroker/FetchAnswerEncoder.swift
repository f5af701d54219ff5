import MartletBasics
import MartletCluster
import MartletLog
import MartletModel
import MartletReactor
import MartletWire

/// Writes the answer of a fetch into a connection's outbox: its own fields as bytes, records as ranges of files where
/// they are large.
///
/// It says the same as the generated encoder of `FetchResponse` (a test compares them), whose records would have to be
/// in memory.
package struct FetchAnswerEncoder {
    /// Below this a copy into the answer is cheaper than a system call of its own.
    package static let copyLimit = 16 * 1024
    /// So much of an answer is copied at most. It is written in one go, and is held until its peer takes it.
    package static let copiedLimit = 512 * 1024

    private let header: FrameHeader
    private let version: Int16
    private let sessionID: Int32
    private let throttleTimeMs: Int32
    private var flexible: Bool { version >= 12 }

    package init(header: FrameHeader, version: Int16, sessionID: Int32, throttleTimeMs: Int32 = 0) {
        self.header = header
        self.version = version
        self.sessionID = sessionID
        self.throttleTimeMs = throttleTimeMs
    }

    /// Returns the size of the whole answer. Where it throws, because records cannot be read, nothing was added.
    @discardableResult
    package func encode(
        _ partitions: [FetchedPartition], _ targets: [FetchTarget], readCommitted: Bool, to outbox: inout Outbox
    ) throws -> Int {
        let start = outbox.bytes.count
        do {
            return try encode(partitions, targets, readCommitted: readCommitted, from: start, &outbox)
        } catch {
            outbox.takeBack(from: start)
            throw error
        }
    }

    private func encode(
        _ partitions: [FetchedPartition], _ targets: [FetchTarget], readCommitted: Bool, from start: Int, _ outbox: inout Outbox
    ) throws -> Int {
        var fileBytes = 0
        header.beginAnswer(&outbox.bytes)
        outbox.bytes.int32(throttleTimeMs)
        if version >= 7 {
            outbox.bytes.int16(0)
            outbox.bytes.int32(sessionID)
        }
        let topics = runs(of: partitions, targets)
        outbox.bytes.arrayCount(topics.count, flexible: flexible)
        for topic in topics {
            let target = targets[partitions[topic.lowerBound].target]
            if version >= 13 {
                outbox.bytes.uuid(target.topicID)
            } else {
                try outbox.bytes.string(target.topicName, flexible: flexible, field: "topic name")
            }
            outbox.bytes.arrayCount(topic.count, flexible: flexible)
            for index in topic {
                let mayCopy = outbox.bytes.count - start < Self.copiedLimit
                fileBytes += try encode(partitions[index], targets, readCommitted: readCommitted, mayCopy: mayCopy, &outbox)
            }
            if flexible { outbox.bytes.uvarint(0) }
        }
        if flexible { outbox.bytes.uvarint(0) }
        let size = outbox.bytes.count - start - 4 + fileBytes
        outbox.bytes.patch(Int32(size), at: start)
        return size + 4
    }

    /// Ranges of partitions that follow each other and are of one topic.
    private func runs(of partitions: [FetchedPartition], _ targets: [FetchTarget]) -> [Range<Int>] {
        var runs: [Range<Int>] = []
        for index in partitions.indices {
            if let last = runs.last {
                let (a, b) = (targets[partitions[last.lowerBound].target], targets[partitions[index].target])
                if a.topicName == b.topicName, a.topicID == b.topicID {
                    runs[runs.count - 1] = last.lowerBound..<(index + 1)
                    continue
                }
            }
            runs.append(index..<(index + 1))
        }
        return runs
    }

    /// Writes one partition; returns how many bytes of its records are sent from a file.
    private func encode(
        _ partition: FetchedPartition, _ targets: [FetchTarget], readCommitted: Bool, mayCopy: Bool, _ outbox: inout Outbox
    ) throws -> Int {
        let found = partition.found
        outbox.bytes.int32(targets[partition.target].partition)
        outbox.bytes.int16(found.error.rawValue)
        outbox.bytes.int64(found.highWatermark)
        outbox.bytes.int64(found.lastStableOffset)
        if version >= 5 { outbox.bytes.int64(found.logStartOffset) }
        encodeAborted(found, readCommitted: readCommitted, &outbox.bytes)
        if version >= 11 { outbox.bytes.int32(-1) }  // preferred read replica
        let fromFile = try encodeRecords(found.slice, mayCopy: mayCopy, &outbox)
        if flexible { encodeTags(found, &outbox.bytes) }
        return fromFile
    }

    private func encodeAborted(_ found: PartitionFetch, readCommitted: Bool, _ buffer: inout ByteBuffer) {
        guard readCommitted, found.error == .none else { return buffer.nullArray(flexible: flexible) }
        buffer.arrayCount(found.abortedTransactions.count, flexible: flexible)
        for transaction in found.abortedTransactions {
            buffer.int64(transaction.producerID)
            buffer.int64(transaction.firstOffset)
            if flexible { buffer.uvarint(0) }
        }
    }

    private func encodeRecords(_ slice: LogSlice?, mayCopy: Bool, _ outbox: inout Outbox) throws -> Int {
        outbox.bytes.arrayCount(slice?.count ?? 0, flexible: flexible)
        guard let slice, let file = slice.file, slice.count > 0 else { return 0 }
        guard mayCopy, slice.count <= Self.copyLimit else {
            outbox.append(file, at: slice.position, count: slice.count)
            return slice.count
        }
        let start = outbox.bytes.extend(slice.count)
        let read = try file.read(into: UnsafeMutableRawBufferPointer(start: start, count: slice.count), at: slice.position)
        guard read == slice.count else {
            throw RequestFault("\(file.path) ends before offset \(slice.position + Int64(slice.count))")
        }
        return 0
    }

    /// Tag 0: where the logs part; tag 1: who leads now.
    private func encodeTags(_ found: PartitionFetch, _ buffer: inout ByteBuffer) {
        var tags: UInt32 = 0
        if found.divergingEpoch != nil { tags += 1 }
        if found.currentLeader != nil { tags += 1 }
        buffer.uvarint(tags)
        if let diverging = found.divergingEpoch {
            buffer.uvarint(0)
            buffer.uvarint(13)
            buffer.int32(diverging.epoch)
            buffer.int64(diverging.endOffset)
            buffer.uvarint(0)
        }
        if let leader = found.currentLeader {
            buffer.uvarint(1)
            buffer.uvarint(9)
            buffer.int32(leader.leader)
            buffer.int32(leader.epoch)
            buffer.uvarint(0)
        }
    }
}
