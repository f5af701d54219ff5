package import MartletBasics
package import MartletCluster
package import MartletModel
package import MartletWire

/// What one partition of a produce request is answered.
package struct ProduceResult {
    /// The topic as the client called it: by name up to version 12, by id from 13 on.
    package var topicName: String
    package var topicID: UUID
    /// The first partition of its topic in the request: a new topic begins in the answer.
    package var beginsTopic: Bool
    package var index: Int32
    package var error: ErrorCode = .none
    package var message: String?
    package var recordErrors: [RecordError] = []
    package var baseOffset: Offset = -1
    package var logAppendTime: Int64 = -1
    package var logStartOffset: Offset = -1
    /// Who leads now, told from version 10 on with errors of leadership.
    package var currentLeader: LeaderHint?

    package init(topicName: String, topicID: UUID, beginsTopic: Bool, index: Int32) {
        self.topicName = topicName
        self.topicID = topicID
        self.beginsTopic = beginsTopic
        self.index = index
    }
}

/// The answer of a produce request while its partitions are waited for, one after the other or all at once.
package struct ProduceAnswer {
    package var correlationID: Int32
    package var version: Int16
    package var acks: Int16
    /// When its request was there.
    package var began = Instant(nanoseconds: 0)
    /// How long the client is to wait with its next request.
    package var throttleTimeMs: Int32 = 0
    /// How many partitions are not known yet.
    package var pending = 0
    /// The first partition lies here, so that the common request costs no allocation.
    private var first: ProduceResult?
    private var more: ContiguousArray<ProduceResult> = []
    /// For an answer that is not one of partitions: an empty topic list.
    private var topicCount = 0

    package init(correlationID: Int32, version: Int16, acks: Int16) {
        self.correlationID = correlationID
        self.version = version
        self.acks = acks
    }

    package var count: Int { first == nil ? 0 : 1 + more.count }

    /// Adds a partition's result and returns its index.
    package mutating func add(_ result: ProduceResult) -> Int {
        if result.beginsTopic { topicCount += 1 }
        if first == nil { first = result } else { more.append(result) }
        return more.count
    }

    package mutating func finish(_ index: Int, _ outcome: AppendOutcome) {
        precondition(pending > 0, "a partition finishes once")
        pending -= 1
        if index == 0 {
            first!.take(outcome)
        } else {
            more[index - 1].take(outcome)
        }
    }

    package func collectErrors(_ found: inout ErrorCodes) {
        if let error = first?.error, error != .none { found.append(error) }
        for result in more where result.error != .none { found.append(result.error) }
    }

    /// With acks=0 nothing can tell of an error but the end of the connection.
    package var closesConnection: Bool {
        acks == 0 && (first?.error != ErrorCode.none && first != nil || more.contains { $0.error != .none })
    }

    package var failureText: String {
        let failed = first?.error != ErrorCode.none ? first : more.first { $0.error != .none }
        return failed.map { "\($0.topicName)-\($0.index) \($0.error)" } ?? ""
    }

    /// Writes the frame of the answer: size, header, body.
    package func encode(into buffer: inout ByteBuffer) throws(EncodingFault) {
        let flexible = version >= 9
        let start = buffer.count
        buffer.int32(0)
        buffer.int32(correlationID)
        if flexible { buffer.uvarint(0) }
        buffer.arrayCount(topicCount, flexible: flexible)
        var index = 0
        while index < count {
            var end = index + 1
            while end < count, !result(end).beginsTopic { end += 1 }
            try encodeTopic(index..<end, into: &buffer)
            index = end
        }
        buffer.int32(throttleTimeMs)
        if flexible { buffer.uvarint(0) }
        buffer.patch(Int32(buffer.count - start - 4), at: start)
    }

    private func result(_ index: Int) -> ProduceResult { index == 0 ? first! : more[index - 1] }

    private func encodeTopic(_ range: Range<Int>, into buffer: inout ByteBuffer) throws(EncodingFault) {
        let flexible = version >= 9
        let topic = result(range.lowerBound)
        if version >= 13 {
            buffer.uuid(topic.topicID)
        } else {
            try buffer.string(topic.topicName, flexible: flexible, field: "topic name")
        }
        buffer.arrayCount(range.count, flexible: flexible)
        for index in range { try encode(result(index), into: &buffer) }
        if flexible { buffer.uvarint(0) }
    }

    private func encode(_ result: ProduceResult, into buffer: inout ByteBuffer) throws(EncodingFault) {
        let flexible = version >= 9
        buffer.int32(result.index)
        buffer.int16(result.error.rawValue)
        buffer.int64(result.baseOffset)
        buffer.int64(result.logAppendTime)
        if version >= 5 { buffer.int64(result.logStartOffset) }
        if version >= 8 {
            let faults = result.recordErrors
            buffer.arrayCount(faults.count, flexible: flexible)
            for fault in faults {
                buffer.int32(fault.batchIndex)
                try buffer.string(fault.message, flexible: flexible, field: "error message of a record")
                if flexible { buffer.uvarint(0) }
            }
            try buffer.nullableString(result.message, flexible: flexible, field: "error message")
        }
        guard flexible else { return }
        if version >= 10, let leader = result.currentLeader {
            buffer.uvarint(1)
            buffer.uvarint(0)
            buffer.uvarint(9)
            buffer.int32(leader.leader)
            buffer.int32(leader.epoch)
            buffer.uvarint(0)
        } else {
            buffer.uvarint(0)
        }
    }
}

extension ProduceResult {
    fileprivate mutating func take(_ outcome: AppendOutcome) {
        error = outcome.error
        if outcome.error == .none {
            logStartOffset = outcome.logStartOffset
        } else {
            baseOffset = -1
            logAppendTime = -1
            logStartOffset = -1
        }
    }
}
