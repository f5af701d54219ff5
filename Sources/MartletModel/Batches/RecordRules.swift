internal import MartletBasics

/// What a topic asks of single records, and the walk that asks it of each.
struct RecordRules {
    /// What the records of an acceptable batch say together.
    struct Walked {
        /// -1 where no record has a time.
        var maxTimestamp: Int64
        /// The first record of that time; the last record where none has one.
        var maxTimestampIndex: Int32
        var firstTimestampDelta: Int64
        /// Whether the offset deltas are 0, 1, 2 and so on.
        var offsetsCountUp: Bool
    }

    private let needsKeys: Bool
    private let earliest: Int64
    private let latest: Int64
    /// Times are not counted from the header's base but all are this, where the client set the bit of append times.
    private let baseTimestamp: Int64
    private let deltaMask: Int64
    /// Whether -1, which means no time, is taken.
    private let takesNoTime: Bool

    private var errorCount = 0
    private var errors: [RecordError] = []
    private var code = ErrorCode.invalidRecord

    init(header: BatchHeader, config: TopicConfig, now: Int64) {
        needsKeys = config.cleanupPolicy.contains(.compact)
        let claimsAppendTime = header.timestampType == .logAppendTime
        baseTimestamp = claimsAppendTime ? header.maxTimestamp : header.baseTimestamp
        deltaMask = claimsAppendTime ? 0 : -1
        takesNoTime = !claimsAppendTime
        switch config.messageTimestampType {
        case .createTime:
            // the highest number means that there is no bound
            let (before, after) = (config.messageTimestampBeforeMaxMs, config.messageTimestampAfterMaxMs)
            let (low, lowOverflow) = now.subtractingReportingOverflow(before)
            let (high, highOverflow) = now.addingReportingOverflow(after)
            earliest = lowOverflow || before == .max ? .min : low
            latest = highOverflow || after == .max ? .max : high
        case .logAppendTime:
            // the client's times do not count, but it may not claim to know the time of the append
            earliest = claimsAppendTime ? .max : .min
            latest = claimsAppendTime ? .min : .max
        }
    }

    /// Reads every record of a batch and checks its bytes, its key and its time.
    mutating func walk(_ area: UnsafeRawBufferPointer, header: BatchHeader) throws(BatchRejection) -> Walked {
        var walked = Walked(
            maxTimestamp: -1, maxTimestampIndex: header.lastOffsetDelta, firstTimestampDelta: 0, offsetsCountUp: true)
        guard let base = area.baseAddress, area.count > 0 else { throw Self.malformed(.truncated, index: 0) }
        let end = area.count
        var position = 0
        var index: Int32 = 0
        do throws(RecordFault) {
            while index < header.recordCount {
                let record: RecordView
                if let usual = RecordView.usual(base, at: position, end: end) {
                    record = usual
                } else {
                    record = try RecordView(base, at: position, end: end)
                }
                position = record.range.end
                let timestamp = baseTimestamp &+ (record.timestampDelta & deltaMask)
                if index == 0 { walked.firstTimestampDelta = record.timestampDelta }
                if record.offsetDelta != index { walked.offsetsCountUp = false }
                if timestamp > walked.maxTimestamp {
                    walked.maxTimestamp = timestamp
                    walked.maxTimestampIndex = index
                }
                if needsKeys, !record.hasKey {
                    refuse(index, .invalidRecord, "a record without a key cannot go to a compacted topic")
                } else if timestamp == -1 ? !takesNoTime : timestamp < earliest || timestamp > latest {
                    refuseTime(index, timestamp)
                }
                index &+= 1
            }
            guard position == end else { throw RecordFault.bytesAfterLastRecord }
        } catch {
            throw Self.malformed(error, index: index)
        }
        if errorCount > 0 { throw rejection() }
        return walked
    }

    @inline(never)
    private static func malformed(_ fault: RecordFault, index: Int32) -> BatchRejection {
        BatchRejection(.invalidRecord, "record \(index): \(fault)")
    }

    @inline(never)
    private mutating func refuse(_ index: Int32, _ code: ErrorCode, _ message: String) {
        // one bad time makes it the error of the whole, as in Kafka
        if code == .invalidTimestamp { self.code = code }
        errorCount += 1
        guard errors.count < BatchRejection.recordErrorsLimit else { return }
        errors.append(RecordError(batchIndex: index, message: message))
    }

    @inline(never)
    private mutating func refuseTime(_ index: Int32, _ timestamp: Int64) {
        if !takesNoTime, timestamp == -1 || earliest > latest {
            refuse(index, .invalidTimestamp, "the time of the append is for the broker to set; send the time of creation")
        } else {
            refuse(index, .invalidTimestamp, "timestamp \(timestamp) is not between \(earliest) and \(latest)")
        }
    }

    private func rejection() -> BatchRejection {
        let what = code == .invalidTimestamp ? "an invalid timestamp" : "no key where one is needed"
        return BatchRejection(
            code, "the batch was refused for \(errorCount) of its records: at least one has \(what)", recordErrors: errors)
    }
}
