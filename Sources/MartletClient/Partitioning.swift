/// Which partition a key belongs to: Kafka's own choice, so that a key goes where every other client sends it.
package enum Partitioning {
    package static func partition(of key: [UInt8], among count: Int32) -> Int32 {
        precondition(count > 0, "a topic has a partition")
        return Int32(murmur2(key) & 0x7FFF_FFFF) % count
    }

    /// MurmurHash2 (Appleby), 32 bits, little-endian, with the seed that Kafka's producer has.
    package static func murmur2(_ bytes: [UInt8]) -> UInt32 {
        let factor: UInt32 = 0x5BD1_E995
        var hash: UInt32 = 0x9747_B28C ^ UInt32(truncatingIfNeeded: bytes.count)
        var index = 0
        while bytes.count - index >= 4 {
            var word = UInt32(bytes[index]) | UInt32(bytes[index + 1]) << 8
            word |= UInt32(bytes[index + 2]) << 16 | UInt32(bytes[index + 3]) << 24
            word = word &* factor
            word ^= word >> 24
            hash = (hash &* factor) ^ (word &* factor)
            index += 4
        }
        let left = bytes.count - index
        if left >= 3 { hash ^= UInt32(bytes[index + 2]) << 16 }
        if left >= 2 { hash ^= UInt32(bytes[index + 1]) << 8 }
        if left >= 1 {
            hash ^= UInt32(bytes[index])
            hash = hash &* factor
        }
        hash ^= hash >> 13
        hash = hash &* factor
        return hash ^ hash >> 15
    }
}
