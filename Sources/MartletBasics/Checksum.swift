import CISAL

/// CRC-32C (Castagnoli), the checksum of Kafka's record batches and producer snapshots.
///
/// ISA-L's `crc32_iscsi` neither inverts what goes in nor what comes out, and takes an `int` as its length; this does both.
package func crc32c(_ bytes: UnsafeRawBufferPointer, continuing previous: UInt32 = 0) -> UInt32 {
    guard let base = bytes.baseAddress, bytes.count > 0 else { return previous }
    precondition(bytes.count <= Int(Int32.max), "the checksum of more than 2 GiB is taken in pieces")
    let start = UnsafeMutablePointer(mutating: base.assumingMemoryBound(to: UInt8.self))
    return ~crc32_iscsi(start, Int32(bytes.count), ~previous)
}
