import MartletBasics
package import MartletModel

/// First batches of idempotent producers that came over one connection and were refused, to be sent again.
///
/// A log that does not know a producer takes any sequence for its first, as Kafka's does, for it may have forgotten it. So
/// where the first of several batches in flight is refused (the partition is not open yet, its disk is full), and the
/// second comes when it could be taken, the second would be: the first, sent again, would follow nothing that is known,
/// and the producer would give up or write it behind its successor. What was refused here is awaited instead: until it
/// has come, later batches of its producer are refused as it was, and are sent again behind it.
///
/// Clients send again over the connection that told them, or in order over a new one, so nothing is to be known longer
/// than a connection lives.
package struct RefusedSequences {
    /// Of one connection; what is beyond it is not awaited.
    package static let limit = 1024
    /// Of all connections of a loop, some hundreds of bytes each.
    static let loopLimit = 16_384
    /// Longer names are no topic's.
    static let nameLimit = 249

    package struct Place: Hashable {
        package var topicID: UUID
        package var topicName: String
        package var partition: Int32
        package var producer: ProducerID

        package init(topicID: UUID, topicName: String, partition: Int32, producer: ProducerID) {
            self.topicID = topicID
            self.topicName = topicName
            self.partition = partition
            self.producer = producer
        }
    }

    private struct Awaited {
        var epoch: ProducerEpoch
        var sequence: ProducerSequence
        var error: ErrorCode
    }

    private var awaited: [Place: Awaited] = [:]

    package init() {}

    package var count: Int { awaited.count }
    var isEmpty: Bool { awaited.isEmpty }

    /// What an earlier batch of the producer was refused with that must come before this one; none where none must.
    package func refusal(before header: BatchHeader, at place: Place) -> ErrorCode {
        guard let first = awaited[place], first.epoch == header.producerEpoch,
            ProducerSequence(header.baseSequence).isAfter(first.sequence)
        else { return .none }
        return first.error
    }

    /// A batch was refused; the earliest of its producer's epoch is awaited.
    package mutating func refused(_ header: BatchHeader, _ error: ErrorCode, at place: Place) {
        let sequence = ProducerSequence(header.baseSequence)
        if let first = awaited[place], first.epoch == header.producerEpoch, !first.sequence.isAfter(sequence) { return }
        if awaited.count >= Self.limit, awaited[place] == nil {
            // who has another id by now sends nothing of the old one again
            awaited = awaited.filter { $0.key.producer == place.producer }
            guard awaited.count < Self.limit else { return }
        }
        awaited[place] = Awaited(epoch: header.producerEpoch, sequence: sequence, error: error)
    }

    /// A batch was taken: the log knows its producer.
    mutating func taken(at place: Place) { awaited[place] = nil }

    mutating func forgetAll() { awaited = [:] }
}

extension Connection {
    /// Notes what became of one partition of a produce request, whose batch lies in the frame as it came.
    func noteSequence(_ part: ProducePart, _ frame: UnsafeMutableRawBufferPointer, _ result: ProduceResult) {
        // what cannot be sent again is not awaited
        guard result.error == .none ? !refusedSequences.isEmpty : result.error.isRetriable,
            result.topicName.utf8.count <= RefusedSequences.nameLimit, let header = sequenced(part, frame)
        else { return }
        let before = refusedSequences.count
        let place = place(of: part, result, header.producerID)
        if result.error == .none {
            refusedSequences.taken(at: place)
        } else if shared.refusedSequencesCount < RefusedSequences.loopLimit {
            refusedSequences.refused(header, result.error, at: place)
        }
        shared.refusedSequencesCount += refusedSequences.count - before
    }

    /// What an earlier batch was refused with that comes first; none as a rule.
    func precedingRefusal(
        _ part: ProducePart, _ frame: UnsafeMutableRawBufferPointer, _ result: ProduceResult
    ) -> ErrorCode {
        guard !refusedSequences.isEmpty, let header = sequenced(part, frame) else { return .none }
        return refusedSequences.refusal(before: header, at: place(of: part, result, header.producerID))
    }

    func forgetSequences() {
        shared.refusedSequencesCount -= refusedSequences.count
        refusedSequences.forgetAll()
        guard broker.host.planted.contains(.forgottenSequences) else { return }
        for partition in broker.topics.table.partitions { partition.removeExpiredProducers(now: .max, olderThanMs: 0) }
    }

    /// The header of a batch with a sequence, as it came; whether it is sound is not known.
    private func sequenced(_ part: ProducePart, _ frame: UnsafeMutableRawBufferPointer) -> BatchHeader? {
        guard let records = part.records, records.count >= BatchHeader.size else { return nil }
        let header = BatchHeader(UnsafeRawBufferPointer(rebasing: frame[records.offset..<records.end]))
        return header.magic == 2 && header.hasProducer && header.baseSequence >= 0 ? header : nil
    }

    /// The topic is called as the client calls it, which is the same whether it is known here or not.
    private func place(of part: ProducePart, _ result: ProduceResult, _ producer: ProducerID) -> RefusedSequences.Place {
        RefusedSequences.Place(
            topicID: part.topicID, topicName: result.topicName, partition: part.index, producer: producer)
    }
}
