import MartletBasics
import MartletLog
import MartletModel

/// A batch's header as a producer sends it.
func header(
    _ producer: ProducerID, _ sequence: Int32, count: Int32 = 1, epoch: ProducerEpoch = 0, timestamp: Int64 = 1000,
    transactional: Bool = false, control: Bool = false
) -> BatchHeader {
    var bytes = ByteBuffer()
    bytes.int64(0)
    bytes.int32(49)
    bytes.int32(0)
    bytes.int8(2)
    bytes.uint32(0)
    bytes.int16((transactional ? 0x10 : 0) | (control ? 0x20 : 0))
    bytes.int32(count - 1)
    bytes.int64(timestamp)
    bytes.int64(timestamp)
    bytes.int64(producer)
    bytes.int16(epoch)
    bytes.int32(sequence)
    bytes.int32(count)
    return BatchHeader(bytes.bytes)
}

/// One partition's producers, and its end; appends as a leader does.
struct Partition {
    var table = ProducerStateTable()

    /// The error code and the base offset, as a Produce response tells them.
    mutating func send(
        _ producer: ProducerID, _ sequence: Int32, count: Int32 = 1, epoch: ProducerEpoch = 0, timestamp: Int64 = 1000,
        transactional: Bool = false, origin: AppendOrigin = .client
    ) -> [Int64] {
        let batch = header(
            producer, sequence, count: count, epoch: epoch, timestamp: timestamp, transactional: transactional)
        switch table.check(batch, origin: origin) {
        case .refused(let code, let reason):
            precondition(!reason.isEmpty, "a refusal says why")
            return [Int64(code.rawValue), -1]
        case .duplicate(let base, _): return [0, base]
        case .accepted:
            let base = table.nextOffset
            table.apply(batch, baseOffset: base)
            return [0, base]
        }
    }

    mutating func end(
        _ producer: ProducerID, _ type: ControlRecordType, epoch: ProducerEpoch = 0, coordinatorEpoch: Int32 = 0
    ) -> CompletedTransaction? {
        let marker = header(producer, -1, epoch: epoch, transactional: true, control: true)
        return table.applyMarker(marker, type: type, coordinatorEpoch: coordinatorEpoch, offset: table.nextOffset)
    }
}
