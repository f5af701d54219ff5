import MartletBasics
import MartletModel
import MartletReactor

/// What the disk and the page cache do where no broker is in between, in the folder where the broker has its logs.
struct DiskLimit {
    private static let fileName = "martlet-bench.limit"
    private static let syncs = 200
    private static let longestSyncing = Interval.milliseconds(300)
    private static let bufferBytes = 1 << 20

    let disk: any Disk
    let folder: String
    let clock: any Clock

    private var path: String { "\(folder)/\(Self.fileName)" }

    /// How long it takes to append a KiB to a file and sync it: the median.
    func syncSeconds() throws(BenchFault) -> Double {
        try onDisk { () throws(SystemError) in
            let file = try disk.open(path, .truncate)
            defer {
                file.close()
                try? disk.remove(path)
            }
            let piece = UnsafeMutableRawBufferPointer.allocate(byteCount: 1024, alignment: 8)
            defer { piece.deallocate() }
            piece.initializeMemory(as: UInt8.self, repeating: 0x6D)
            var taken: [Int64] = []
            let end = clock.now + Self.longestSyncing
            repeat {
                let start = clock.now
                try file.write(UnsafeRawBufferPointer(piece), at: Int64(taken.count * piece.count))
                try file.sync()
                taken.append((clock.now - start).nanoseconds)
            } while taken.count < Self.syncs && clock.now < end
            return Double(taken.sorted()[taken.count / 2]) / 1e9
        }
    }

    /// Reads files of batches, checks each batch, and writes the same bytes to a new file, which is synced and removed; how
    /// many they were.
    func rewrite(_ paths: [String]) throws(BenchFault) -> Int {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: Self.bufferBytes, alignment: 4096)
        defer { buffer.deallocate() }
        let output = try onDisk { () throws(SystemError) in try disk.open(path, .truncate) }
        defer {
            output.close()
            try? disk.remove(path)
        }
        var written = 0
        for path in paths {
            let file = try onDisk { () throws(SystemError) in try disk.open(path, .read) }
            defer { file.close() }
            var position = 0
            while true {
                let count = try onDisk { () throws(SystemError) in try file.read(into: buffer, at: Int64(position)) }
                guard count > 0 else { break }
                let whole = try Self.checkedBytes(UnsafeRawBufferPointer(rebasing: buffer[..<count]), path)
                try onDisk { () throws(SystemError) in
                    try output.write(UnsafeRawBufferPointer(rebasing: buffer[..<whole]), at: Int64(written))
                }
                position += whole
                written += whole
            }
        }
        try onDisk { () throws(SystemError) in try output.sync() }
        return written
    }

    /// How many bytes are whole batches, each with the right checksum.
    private static func checkedBytes(_ bytes: UnsafeRawBufferPointer, _ path: String) throws(BenchFault) -> Int {
        var position = 0
        while bytes.count - position >= BatchHeader.size {
            let header = BatchHeader(UnsafeRawBufferPointer(rebasing: bytes[position...]))
            let size = header.totalSize
            guard size >= BatchHeader.size, size <= bytes.count else { break }
            guard size <= bytes.count - position else { return position }
            let batch = UnsafeRawBufferPointer(rebasing: bytes[position..<position + size])
            guard BatchHeader.checksum(of: batch) == header.crc else { break }
            position += size
        }
        guard position > 0 else { throw BenchFault("\(path) has no whole batch where one is expected") }
        return position
    }

    private func onDisk<R>(_ body: () throws(SystemError) -> R) throws(BenchFault) -> R {
        do { return try body() } catch { throw BenchFault("the limit cannot be measured: \(error)") }
    }
}
