import MartletLog
import MartletReactor

/// Whether what a fetch is answered with lies in the page cache: to send what does not would hold up the loop for the disk.
extension LogSlice {
    /// The kernel reads ahead by about this much, so that one byte stands for its neighbours.
    private static let probeDistance: Int64 = 128 * 1024
    private static let pageBytes: Int64 = 4096
    private static let readAheadPiece = 256 * 1024

    /// Asks for single bytes without waiting. A file that cannot be asked counts as cached: sending it will tell what is wrong.
    var isCached: Bool {
        guard let file, count > 0 else { return true }
        return withUnsafeTemporaryAllocation(byteCount: 1, alignment: 1) { byte in
            var at = position
            let last = position + Int64(count) - 1
            while true {
                let read: Int?
                do throws(SystemError) { read = try file.readCached(into: byte, at: at) } catch { return true }
                if read == nil { return false }
                if at / Self.pageBytes == last / Self.pageBytes { return true }
                at = min(at + Self.probeDistance, last)
            }
        }
    }

    /// Reads it all, for the sake of the page cache alone. Blocks: on a lane.
    func readAhead() {
        guard let file else { return }
        withUnsafeTemporaryAllocation(byteCount: Self.readAheadPiece, alignment: 4096) { buffer in
            var at = position
            let end = position + Int64(count)
            while at < end {
                let piece = UnsafeMutableRawBufferPointer(rebasing: buffer[..<min(buffer.count, Int(end - at))])
                guard let read = try? file.read(into: piece, at: at), read > 0 else { return }
                at += Int64(read)
            }
        }
    }
}
