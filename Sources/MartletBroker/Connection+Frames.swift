import MartletCluster
import MartletModel
import MartletReactor
import MartletWire

/// What frames are not taken, and what cannot be answered.
extension Connection {
    /// Where it is the disk that failed, that is told too.
    func close(_ what: String, _ error: any Error) {
        if let error = error as? SystemError { broker.topics.readFailed(error) }
        close("\(what): \(error)")
    }

    /// A frame of any request but Produce is at most so large: what one of 16 bytes a partition becomes in memory is a multiple
    /// of it, where a batch is not. `socket.request.max.bytes` may be lower.
    static let otherFrameLimit: Int32 = 16 << 20
    /// A frame's size, and its request's key, version and number: before they are there Kafka waits for a frame of any size,
    /// and so is done here.
    static let frameHeadBytes = 12
    /// What the partitions of a produce request may take, besides their records: some 60,000 partitions.
    static let producePartsBytesLimit = 4 << 20

    /// Why a frame of this size is not taken, which the bytes begin with; nil for one that is.
    func refusal(of size: Int32, _ bytes: UnsafeRawBufferPointer) -> String? {
        guard size > 0, size <= broker.config.requestBytesLimit else { return refusedSize(bytes, size) }
        guard size > Self.otherFrameLimit else { return nil }
        let key = Int16(bigEndian: bytes.loadUnaligned(fromByteOffset: 4, as: Int16.self))
        guard key != ProduceRequest.apiKey else { return nil }
        let name = ApiKey(rawValue: key).map { "\($0)" } ?? "request \(key)"
        return "a frame of \(size) bytes for \(name), where \(Self.otherFrameLimit) are the most for what is not Produce"
    }

    /// Names those who speak something else to this port.
    private func refusedSize(_ bytes: UnsafeRawBufferPointer, _ size: Int32) -> String {
        let start = [UInt8](bytes.prefix(8))
        if start.starts(with: [0x16, 0x03]) {
            return "speaks TLS to listener \(listener.name), which is plain text: use the plain protocol, or a TLS listener"
        }
        let speaksKafka = "listener \(listener.name), which speaks Kafka's protocol"
        for method in ["GET ", "POST", "PUT ", "HEAD", "OPTI", "DELE", "CONN", "PRI "] where start.starts(with: Array(method.utf8)) {
            return "speaks HTTP to \(speaksKafka)"
        }
        if start.starts(with: Array("SSH-".utf8)) { return "speaks SSH to \(speaksKafka)" }
        return "a frame of \(size) bytes, beyond socket.request.max.bytes (\(broker.config.requestBytesLimit)) or below one"
    }
}
