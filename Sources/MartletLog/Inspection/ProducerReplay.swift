internal import MartletModel

/// What a snapshot says of a producer, and what the batches before it make of one.
struct ReplayedProducer: Equatable {
    var producerID: ProducerID
    var epoch: ProducerEpoch
    var lastSequence: Int32 = -1
    var lastOffset: Offset = -1
    var offsetDelta: Int32 = 0
    var timestamp: Int64
    var coordinatorEpoch: Int32 = -1
    var transactionStart: Offset = -1

    /// Without what was never there.
    var told: String {
        "epoch \(epoch), sequence \(lastSequence), offset \(lastOffset) (delta \(offsetDelta)), timestamp \(timestamp), "
            + "coordinator epoch \(coordinatorEpoch), transaction at \(transactionStart)"
    }
}

/// The producers of a log, made anew from its batches. Written apart from `ProducerStateTable`, which is what is checked:
/// it remembers one batch a producer, forgets nobody, and refuses nothing.
struct ProducerReplay {
    private(set) var producers: [ProducerID: ReplayedProducer] = [:]
    private(set) var aborted: [AbortedTransaction] = []
    /// By where they begin, which is also the order in which they began.
    private var open: [(start: Offset, producer: ProducerID)] = []

    /// A batch of data; what is wrong with its epoch or sequence. `checksSequences`: the group coordinator writes sequence 0
    /// into every batch of its transactions.
    mutating func append(_ header: BatchHeader, checksSequences: Bool) -> String? {
        guard header.hasProducer else { return nil }
        let known = producers[header.producerID]
        var fault: String?
        if let known, known.lastSequence >= 0, header.producerEpoch == known.epoch, checksSequences {
            let wanted = known.lastSequence == .max ? 0 : known.lastSequence + 1
            if header.baseSequence != wanted {
                fault = "producer \(header.producerID) has sequence \(header.baseSequence), and \(wanted) follows"
            }
        } else if let known, header.producerEpoch < known.epoch {
            fault = "producer \(header.producerID) has epoch \(header.producerEpoch) after \(known.epoch)"
        }
        var start = known?.transactionStart ?? -1
        if header.isTransactional, start < 0 {
            start = header.baseOffset
            open.append((start, header.producerID))
        }
        producers[header.producerID] = ReplayedProducer(
            producerID: header.producerID, epoch: header.producerEpoch, lastSequence: header.lastSequence,
            lastOffset: header.lastOffset, offsetDelta: header.lastOffsetDelta, timestamp: header.maxTimestamp,
            coordinatorEpoch: known?.coordinatorEpoch ?? -1, transactionStart: start)
        return fault
    }

    /// The end of a transaction; what is wrong with its epoch.
    mutating func append(_ marker: EndTransactionMarker, _ header: BatchHeader) -> String? {
        guard header.hasProducer else { return nil }
        var entry = producers[header.producerID]
            ?? ReplayedProducer(producerID: header.producerID, epoch: header.producerEpoch, timestamp: header.maxTimestamp)
        var fault: String?
        if header.producerEpoch < entry.epoch {
            fault = "a marker of producer \(header.producerID) has epoch \(header.producerEpoch) after \(entry.epoch)"
        }
        if entry.transactionStart >= 0 {
            open.removeAll { $0.producer == header.producerID }
            if marker.type == .abort {
                aborted.append(AbortedTransaction(
                    producerID: header.producerID, firstOffset: entry.transactionStart, lastOffset: header.baseOffset,
                    lastStableOffset: open.first?.start ?? header.baseOffset + 1))
            }
        }
        if header.producerEpoch != entry.epoch {
            entry.lastSequence = -1
            entry.lastOffset = -1
            entry.offsetDelta = 0
        }
        entry.epoch = header.producerEpoch
        entry.timestamp = header.maxTimestamp
        entry.coordinatorEpoch = marker.coordinatorEpoch
        entry.transactionStart = -1
        producers[header.producerID] = entry
        return fault
    }
}
