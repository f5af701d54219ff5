import MartletModel
import MartletSimulation
import MartletWire

/// Which batches of an answer readers of what is committed are to leave out, as every client works it out from what the
/// answer says of aborted transactions.
struct AbortedTransactions {
    private var left: ArraySlice<FetchResponse.AbortedTransaction>
    private var skipped: Set<ProducerID> = []

    init(_ told: [FetchResponse.AbortedTransaction]?) throws(ClientFault) {
        left = (told ?? [])[...]
        guard zip(left, left.dropFirst()).allSatisfy({ $0.firstOffset <= $1.firstOffset }) else {
            throw .malformed("aborted transactions are not told in order")
        }
    }

    /// Asked of one batch after the other, control batches too; those are hidden from everybody.
    mutating func hides(_ header: BatchHeader, _ records: UnsafeRawBufferPointer) throws -> Bool {
        while let first = left.first, first.firstOffset <= header.lastOffset {
            skipped.insert(first.producerID)
            left.removeFirst()
        }
        guard header.isControl else { return header.isTransactional && skipped.contains(header.producerID) }
        var cursor = RecordCursor(records, count: header.recordCount)
        while let record = try cursor.next() {
            guard let key = cursor.bytes(in: record.key) else {
                throw ClientFault.malformed("a control record without a key")
            }
            if ControlRecordType(key: key) == .abort { skipped.remove(header.producerID) }
        }
        return true
    }
}
