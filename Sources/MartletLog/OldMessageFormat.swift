internal import MartletReactor

/// Messages of formats 0 and 1, which Kafka before 0.11 wrote. They are recognised, so that they are never taken for damage
/// and cut; they are not served.
///
///     0 offset int64     8 size int32, of what follows     12 crc uint32: CRC-32 of what follows it     16 magic int8, 0 or 1
///
/// The magic stands where a batch of format 2 has it. A byte there says little (a hole in a file is all zero); the
/// checksum says the rest.
enum OldMessageFormat {
    static let headSize = 17
    /// CRC, magic, attributes, and the two sizes of key and value.
    static let leastSize = 14
    private static let pieceBytes = 64 * 1024

    /// The format of the message that begins at `position`; nil where none of an old format does.
    static func magic(in file: any DiskFile, at position: Int, end: Int) throws(LogError) -> Int8? {
        guard end - position >= headSize else { return nil }
        let head = try read(file, at: position, headSize)
        guard head.count == headSize, head[16] < 2 else { return nil }
        func word(_ at: Int) -> UInt32 { head[at..<at + 4].reduce(0) { $0 << 8 | UInt32($1) } }
        let size = Int(Int32(bitPattern: word(8)))
        guard head[0] < 0x80, size >= leastSize, size <= end - position - 12 else { return nil }
        var crc = CRC32()
        var at = position + 16
        let messageEnd = position + 12 + size
        while at < messageEnd {
            let piece = try read(file, at: at, min(pieceBytes, messageEnd - at))
            guard !piece.isEmpty else { return nil }
            crc.add(piece)
            at += piece.count
        }
        return crc.value == word(12) ? Int8(head[16]) : nil
    }

    private static func read(_ file: any DiskFile, at position: Int, _ count: Int) throws(LogError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        var failure: SystemError?
        var there = 0
        bytes.withUnsafeMutableBytes { buffer in
            do throws(SystemError) { there = try file.read(into: buffer, at: Int64(position)) } catch { failure = error }
        }
        if let failure { throw .storage(failure) }
        bytes.removeLast(count - there)
        return bytes
    }
}

/// The checksum of gzip and of Kafka's old messages, a bit at a time: it is asked for on a way to a refusal only.
private struct CRC32 {
    private var state: UInt32 = .max
    var value: UInt32 { ~state }

    mutating func add(_ bytes: [UInt8]) {
        for byte in bytes {
            state ^= UInt32(byte)
            for _ in 0..<8 { state = state >> 1 ^ (state & 1 == 0 ? 0 : 0xEDB8_8320) }
        }
    }
}

extension PartitionLog {
    /// A folder with segments in an old format is not opened, and nothing in it is changed. The first message of each
    /// segment is looked at; a segment in which the format changes is met by the scan that reads it.
    func refuseOldFormats() throws(LogError) {
        for name in try files.list(folder) {
            guard let parsed = SegmentFile.parse(name), parsed.kind == .log,
                parsed.suffix.isEmpty || parsed.suffix == SegmentFile.swapSuffix
            else { continue }
            let path = folder + "/" + name
            let file = try files.open(path, .read)
            defer { file.close() }
            if let magic = try OldMessageFormat.magic(in: file, at: 0, end: Int(try files.size(file))) {
                throw .oldFormat(path: path, position: 0, magic: magic)
            }
        }
    }
}
