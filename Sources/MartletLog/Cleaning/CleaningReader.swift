internal import MartletModel
internal import MartletReactor

/// Reads the batches of a closed segment whole, one after the other, and checks each.
final class CleaningReader {
    private var scanner: BatchScanner
    private let path: String
    private var bufferBytes: Int

    init(_ file: any DiskFile, path: String, baseOffset: Offset, size: Int, bufferBytes: Int) {
        self.path = path
        self.bufferBytes = bufferBytes
        scanner = BatchScanner(file, baseOffset: baseOffset, from: 0, to: size, bufferSize: bufferBytes)
    }

    var position: Int { scanner.position }

    func corrupt(_ reason: String, at position: Int) -> LogError {
        .corrupt(path: path, position: Int64(position), reason: reason)
    }

    /// The next batch, which lies in the reader's buffer until the next call; nil at the end.
    func next() throws(LogError) -> (header: BatchHeader, bytes: UnsafeRawBufferPointer)? {
        let header: BatchHeader
        switch try scanner.peek() {
        case .end: return nil
        case .fault(let fault): throw corrupt(fault.description, at: scanner.position)
        case .header(let found): header = found
        }
        if header.totalSize > bufferBytes {
            // a length that lies must not ask for memory: the checksum is taken piece by piece first
            try check(header, try scanner.checksum(header))
            bufferBytes = header.totalSize
            scanner = BatchScanner(
                scanner.file, baseOffset: scanner.baseOffset, from: scanner.position, to: scanner.end, bufferSize: bufferBytes)
        }
        let bytes = try scanner.bytes(at: scanner.position, header.totalSize)
        guard bytes.count == header.totalSize else { throw corrupt("the batch ends early", at: scanner.position) }
        try check(header, BatchHeader.checksum(of: bytes))
        scanner.skip(header)
        return (header, bytes)
    }

    private func check(_ header: BatchHeader, _ found: UInt32) throws(LogError) {
        guard found == header.crc else {
            throw corrupt(BatchFault.checksum(said: header.crc, found: found).description, at: scanner.position)
        }
    }
}
