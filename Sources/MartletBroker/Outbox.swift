package import MartletBasics
package import MartletReactor

/// What a connection has yet to send: bytes, and between them ranges of files that go from the page cache to the socket.
///
///     bytes   |head of fetch answer|tail|next answer|
///     files               ^ after byte 61: segment file, 4096..<1052672
package struct Outbox: ~Copyable {
    private struct FilePiece {
        /// How many of `bytes` go before it.
        var after: Int
        var file: any DiskFile
        var offset: Int64
        var count: Int
    }

    /// Bytes that were sent are dropped once there are so many of them, and as many as are left.
    private static let sentLimit = 64 * 1024

    package var bytes = ByteBuffer(capacity: 1024)
    private var sent = 0
    private var files = RingQueue<FilePiece>()
    /// Bytes of files that are yet to be sent.
    private var fileBytes = 0

    package init() {}

    /// All that waits to be sent, in bytes.
    package var pending: Int { bytes.count - sent + fileBytes }
    package var isEmpty: Bool { pending == 0 }

    package mutating func append(_ file: any DiskFile, at offset: Int64, count: Int) {
        guard count > 0 else { return }
        files.append(FilePiece(after: bytes.count, file: file, offset: offset, count: count))
        fileBytes += count
    }

    /// Takes back what was written of an answer that cannot be completed: nothing of it may be sent.
    package mutating func takeBack(from start: Int) {
        var kept = RingQueue<FilePiece>()
        while let piece = files.popFirst() {
            if piece.after <= start { kept.append(piece) } else { fileBytes -= piece.count }
        }
        files = kept
        bytes.truncate(to: start)
    }

    package enum Flushed {
        case all
        /// The socket takes no more now.
        case blocked
        /// It may, but what this may cost is used up.
        case limited
        /// The connection is gone.
        case ended
    }

    /// What a system call costs beside the bytes that it moves, as bytes: a thousand small pieces cost more than the same
    /// in one.
    package static let callCost = 8 * 1024

    /// Sends what the socket takes, at a cost of up to about `budget`, which it lowers. Throws where a file cannot be read:
    /// the answer cannot be completed then. Not while an answer is being written: what was sent of `bytes` may be dropped.
    package mutating func flush(to socket: any StreamSocket, budget left: inout Int) throws(SystemError) -> Flushed {
        while true {
            let next = files.first
            let upTo = next?.after ?? bytes.count
            while sent < upTo {
                guard left > 0 else { return stopped(.limited) }
                let piece = UnsafeRawBufferPointer(rebasing: bytes.bytes[sent..<upTo])
                left -= Self.callCost
                switch socket.send(piece, more: next != nil) {
                case .moved(let count):
                    sent += count
                    left -= count
                case .wouldBlock: return stopped(.blocked)
                case .ended: return .ended
                }
            }
            guard let next else {
                bytes.reset()
                sent = 0
                return .all
            }
            guard left > 0 else { return stopped(.limited) }
            let most = min(next.count, left)
            left -= Self.callCost
            switch try socket.send(next.file, at: next.offset, count: most, more: upTo < bytes.count) {
            case .moved(let count):
                fileBytes -= count
                left -= count
                if count == next.count {
                    files.popFirst()
                } else {
                    files[0].offset += Int64(count)
                    files[0].count -= count
                }
            case .wouldBlock: return stopped(.blocked)
            case .ended: return .ended
            }
        }
    }

    /// The same without a bound but the socket's.
    package mutating func flush(to socket: any StreamSocket) throws(SystemError) -> Flushed {
        var budget = Int.max
        return try flush(to: socket, budget: &budget)
    }

    /// A client that always leaves a little unread would else make `bytes` grow for ever.
    private mutating func stopped(_ how: Flushed) -> Flushed {
        let rest = bytes.count - sent
        guard sent >= Self.sentLimit, sent >= rest else { return how }
        let all = bytes.mutableBytes
        if rest > 0 { all.baseAddress!.copyMemory(from: all.baseAddress! + sent, byteCount: rest) }
        bytes.truncate(to: rest)
        for index in 0..<files.count { files[index].after -= sent }
        sent = 0
        return how
    }
}
