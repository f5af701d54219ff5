internal import MartletModel
internal import MartletReactor

/// What lies behind a batch that is damaged: batches whose header, length and checksum fit, found by looking at every byte
/// where none can be followed. Tells a torn tail, behind which nothing is, from a hole in what had been written whole.
///
/// A record whose value is itself a batch, with a later offset, would be taken for one; so this is evidence to report and to
/// be careful by, and nothing is served because of it.
struct SoundBatchSearch {
    struct Found: Equatable {
        var count = 0
        var bytes = 0
        var first: (position: Int, offset: Offset) = (0, 0)
        var lastOffset: Offset = -1

        static func == (a: Found, b: Found) -> Bool {
            a.count == b.count && a.bytes == b.bytes && a.first == b.first && a.lastOffset == b.lastOffset
        }
    }

    private static let windowBytes = 256 * 1024
    /// Where in a header its format stands.
    private static let magicAt = 16

    let file: any DiskFile
    let baseOffset: Offset
    let end: Int

    /// Everything sound from a byte on whose offsets are not below `least`.
    func everything(from start: Int, least: Offset) throws(LogError) -> Found {
        var found = Found()
        var (position, least) = (start, least)
        while let next = try next(from: position, least: least) {
            if found.count == 0 { found.first = (next.position, next.header.baseOffset) }
            found.count += 1
            found.bytes += next.header.totalSize
            found.lastOffset = next.header.lastOffset
            position = next.position + next.header.totalSize
            least = next.header.nextOffset
        }
        return found
    }

    /// The first sound batch that begins at the byte or behind it.
    func next(from start: Int, least: Offset) throws(LogError) -> (position: Int, header: BatchHeader)? {
        guard start + BatchHeader.size <= end else { return nil }
        let window = UnsafeMutableRawBufferPointer.allocate(
            byteCount: min(Self.windowBytes, end - start), alignment: 16)
        defer { window.deallocate() }
        var windowStart = start
        while windowStart + BatchHeader.size <= end {
            let target = UnsafeMutableRawBufferPointer(rebasing: window[..<min(window.count, end - windowStart)])
            let (file, at) = (file, Int64(windowStart))
            let count = try onDisk { () throws(SystemError) in try file.read(into: target, at: at) }
            guard count >= BatchHeader.size else { return nil }
            for index in 0...(count - BatchHeader.size) where target[index + Self.magicAt] == 2 {
                let header = BatchHeader(UnsafeRawBufferPointer(rebasing: target[index..<index + BatchHeader.size]))
                guard isPlausible(header, at: windowStart + index, least: least) else { continue }
                var scanner = BatchScanner(
                    file, baseOffset: baseOffset, from: windowStart + index, to: end, bufferSize: Self.windowBytes)
                guard case .header(let header) = try scanner.peek(), try scanner.checksum(header) == header.crc else {
                    continue
                }
                return (windowStart + index, header)
            }
            windowStart += count - BatchHeader.size + 1
        }
        return nil
    }

    private func isPlausible(_ header: BatchHeader, at position: Int, least: Offset) -> Bool {
        header.batchLength >= BatchHeader.size - BatchHeader.lengthOverhead && header.totalSize <= end - position
            && header.baseOffset >= max(least, baseOffset) && header.lastOffsetDelta >= 0 && header.recordCount >= 0
            && header.baseOffset - baseOffset <= Int64(Int32.max)
    }
}
