import MartletBasics
import MartletModel

/// What a fetch answer of one partition held.
struct FetchAnswer {
    var bytes = 0
    var records = 0
    /// Behind the last whole batch; nil where there was none.
    var nextOffset: Offset?
    var highWatermark: Offset = 0
}

/// Reads the answers of a fetch of one partition as they come, and keeps nothing of them but their head, and the head
/// of each batch one after the other: a client that is to cost little does not collect a megabyte to skip it.
struct FetchAnswerReader: ~Copyable {
    /// More than a head takes that lists no aborted transactions.
    private static let headBytesLimit = 1024

    private enum State { case head, batches, tail }

    private var state = State.head
    private var kept = ByteBuffer(capacity: 2048)
    private var answer = FetchAnswer()
    /// What the frame still holds, from here on.
    private var frameLeft = 0
    /// What the records still hold, from here on, and how much of it belongs to a batch whose head was read.
    private var recordsLeft = 0
    private var skip = 0

    init() {}

    /// The answer that these bytes end; nil while it is not all there. Nothing may follow it.
    mutating func take(_ bytes: UnsafeRawBufferPointer) throws(BenchFault) -> FetchAnswer? {
        var rest = bytes
        while true {
            switch state {
            case .head:
                guard try readHead(&rest) else { return nil }
                state = .batches
            case .batches:
                guard try readBatches(&rest) else { return nil }
                state = .tail
            case .tail:
                let count = min(frameLeft, rest.count)
                advance(&rest, count)
                guard frameLeft == 0 else { return nil }
                guard rest.isEmpty else { throw BenchFault("the server sent an answer to no request") }
                state = .head
                defer { answer = FetchAnswer() }
                return answer
            }
        }
    }

    private mutating func advance(_ rest: inout UnsafeRawBufferPointer, _ count: Int) {
        rest = UnsafeRawBufferPointer(rebasing: rest[count...])
        frameLeft -= count
    }

    // MARK: The head

    private mutating func readHead(_ rest: inout UnsafeRawBufferPointer) throws(BenchFault) -> Bool {
        let before = kept.count
        kept.append(UnsafeRawBufferPointer(rebasing: rest.prefix(Self.headBytesLimit - before)))
        guard kept.count >= 4 else { return false }
        let frameBytes = 4 + Int(Int32(bigEndian: kept.bytes.loadUnaligned(as: Int32.self)))
        let whole = UnsafeRawBufferPointer(rebasing: kept.bytes.prefix(max(frameBytes, 4)))
        var reader = ByteReader(whole, at: 4)
        let complaint: String?
        do throws(DecodingFault) { complaint = try parse(&reader) } catch {
            guard kept.count < min(frameBytes, Self.headBytesLimit) else {
                throw BenchFault("a fetch answer cannot be read: \(error)")
            }
            return false
        }
        if let complaint { throw BenchFault(complaint) }
        guard recordsLeft <= frameBytes - reader.position else {
            throw BenchFault("a fetch answer is shorter than its records")
        }
        answer.bytes = frameBytes
        frameLeft = frameBytes - before
        advance(&rest, reader.position - before)
        kept.truncate(to: 0)
        return true
    }

    /// Up to the first byte of the records; what is wrong with what it says, if something is.
    private mutating func parse(_ reader: inout ByteReader) throws(DecodingFault) -> String? {
        _ = try reader.int32()
        try reader.skipTaggedFields()
        _ = try reader.int32()
        let code = ErrorCode(rawValue: try reader.int16())
        guard code == .none else { return "Fetch was answered with \(code)" }
        _ = try reader.int32()
        guard try reader.uvarint() == 2 else { return "a fetch answer is not about one topic" }
        _ = try reader.stringRange(flexible: true)
        guard try reader.uvarint() == 2 else { return "a fetch answer is not about one partition" }
        let partition = try reader.int32()
        let partitionCode = ErrorCode(rawValue: try reader.int16())
        guard partitionCode == .none else {
            return "Fetch of partition \(partition) was answered with \(partitionCode)"
        }
        answer.highWatermark = try reader.int64()
        try reader.skip(16)  // last stable offset, log start offset
        guard try reader.uvarint() < 2 else { return "a topic of the load has aborted transactions" }
        _ = try reader.int32()
        recordsLeft = max(0, Int(try reader.uvarint()) - 1)
        return nil
    }

    // MARK: Batches

    /// False while more has to come.
    private mutating func readBatches(_ rest: inout UnsafeRawBufferPointer) throws(BenchFault) -> Bool {
        while true {
            if skip > 0 {
                let count = min(skip, rest.count)
                skip -= count
                take(count, of: &rest)
                guard skip == 0 else { return false }
            }
            if recordsLeft == 0 { return true }
            guard recordsLeft + kept.count >= BatchHeader.size else {
                // a batch cut short by the limit of bytes
                skip = recordsLeft
                kept.truncate(to: 0)
                continue
            }
            let count = min(BatchHeader.size - kept.count, rest.count)
            kept.append(UnsafeRawBufferPointer(rebasing: rest[..<count]))
            take(count, of: &rest)
            guard kept.count == BatchHeader.size else { return false }
            let header = BatchHeader(kept.bytes)
            kept.truncate(to: 0)
            guard header.magic == 2, header.totalSize >= BatchHeader.size, header.lastOffsetDelta >= 0 else {
                throw BenchFault("a fetch answer holds what is no batch")
            }
            let body = header.totalSize - BatchHeader.size
            if body <= recordsLeft {
                answer.records += Int(header.recordCount)
                answer.nextOffset = header.nextOffset
            }
            skip = min(body, recordsLeft)
        }
    }

    private mutating func take(_ count: Int, of rest: inout UnsafeRawBufferPointer) {
        recordsLeft -= count
        advance(&rest, count)
    }
}
