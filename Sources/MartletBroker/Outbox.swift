import MartletBasics
import MartletReactor

/// What a connection has yet to send: bytes, and between them ranges of files that go from the page cache to the socket.
///
///     bytes   |head of fetch answer|tail|next answer|
///     files               ^ after byte 61: segment file, 4096..<1052672
struct Outbox: ~Copyable {
    private struct FilePiece {
        /// How many of `bytes` go before it.
        var after: Int
        var file: any DiskFile
        var offset: Int64
        var count: Int
    }

    var bytes = ByteBuffer(capacity: 1024)
    private var sent = 0
    private var files = RingQueue<FilePiece>()
    /// Bytes of files that are yet to be sent.
    private var fileBytes = 0

    /// All that waits to be sent, in bytes.
    var pending: Int { bytes.count - sent + fileBytes }
    var isEmpty: Bool { pending == 0 }

    mutating func append(_ file: any DiskFile, at offset: Int64, count: Int) {
        guard count > 0 else { return }
        files.append(FilePiece(after: bytes.count, file: file, offset: offset, count: count))
        fileBytes += count
    }

    enum Flushed {
        case all
        /// The socket takes no more now.
        case blocked
        /// The connection is gone.
        case ended
    }

    /// Sends what the socket takes. Throws where a file cannot be read: the answer cannot be completed then.
    mutating func flush(to socket: any StreamSocket) throws(SystemError) -> Flushed {
        while true {
            let next = files.first
            let upTo = next?.after ?? bytes.count
            while sent < upTo {
                let piece = UnsafeRawBufferPointer(rebasing: bytes.bytes[sent..<upTo])
                switch socket.send(piece, more: next != nil) {
                case .moved(let count): sent += count
                case .wouldBlock: return .blocked
                case .ended: return .ended
                }
            }
            guard let next else {
                bytes.reset()
                sent = 0
                return .all
            }
            switch try socket.send(next.file, at: next.offset, count: next.count, more: upTo < bytes.count) {
            case .moved(let count):
                fileBytes -= count
                if count == next.count {
                    files.popFirst()
                } else {
                    files[0].offset += Int64(count)
                    files[0].count -= count
                }
            case .wouldBlock: return .blocked
            case .ended: return .ended
            }
        }
    }
}
