/// The 128 bits by which a cleaning knows a key: SipHash-2-4 with a secret that each cleaning draws anew.
///
/// Two keys with the same hash would be taken for one, and the older record would go. Among a billion keys that happens
/// once in 10^20 cleanings, and as nobody outside knows the secret, nobody can look for such keys.
package struct KeyHash: Equatable {
    package struct Secret: Sendable {
        var low: UInt64
        var high: UInt64

        package init(low: UInt64, high: UInt64) {
            self.low = low
            self.high = high
        }
    }

    package var low: UInt64
    package var high: UInt64

    package init(_ key: UnsafeRawBufferPointer, _ secret: Secret) {
        var v0 = secret.low ^ 0x736F_6D65_7073_6575
        var v1 = secret.high ^ 0x646F_7261_6E64_6F6D ^ 0xEE
        var v2 = secret.low ^ 0x6C79_6765_6E65_7261
        var v3 = secret.high ^ 0x7465_6462_7974_6573
        func round() {
            v0 &+= v1
            v1 = (v1 &<< 13 | v1 &>> 51) ^ v0
            v0 = v0 &<< 32 | v0 &>> 32
            v2 &+= v3
            v3 = (v3 &<< 16 | v3 &>> 48) ^ v2
            v0 &+= v3
            v3 = (v3 &<< 21 | v3 &>> 43) ^ v0
            v2 &+= v1
            v1 = (v1 &<< 17 | v1 &>> 47) ^ v2
            v2 = v2 &<< 32 | v2 &>> 32
        }
        func take(_ word: UInt64) {
            v3 ^= word
            round()
            round()
            v0 ^= word
        }
        var position = 0
        while key.count &- position >= 8 {
            take(UInt64(littleEndian: key.loadUnaligned(fromByteOffset: position, as: UInt64.self)))
            position &+= 8
        }
        var last = UInt64(truncatingIfNeeded: key.count) &<< 56
        var shift: UInt64 = 0
        while position < key.count {
            last |= UInt64(key[position]) &<< shift
            shift &+= 8
            position &+= 1
        }
        take(last)
        v2 ^= 0xEE
        for _ in 0..<4 { round() }
        low = v0 ^ v1 ^ v2 ^ v3
        v1 ^= 0xDD
        for _ in 0..<4 { round() }
        high = v0 ^ v1 ^ v2 ^ v3
    }
}

/// The last offset of every key in the part of a log that is cleaned: 24 bytes a key, as in Kafka, in a table with open
/// addressing. When it is full, the cleaning goes no further than it came.
///
/// It is larger than the processor's caches, and nearly every look at it has to wait for memory. So whoever asks for many
/// keys makes the hashes of some first (`keysAtOnce`), and then asks for all of these: so they wait side by side, which
/// takes a third off what a look costs.
final class KeyOffsets {
    static let entryBytes = 24
    static let keysAtOnce = 512

    private struct Entry {
        var hash: (low: UInt64, high: UInt64) = (0, 0)
        /// One more than the offset: 0 is a free place.
        var next: Int64 = 0
    }

    private let entries: UnsafeMutableBufferPointer<Entry>
    private let secret: KeyHash.Secret
    /// So many keys, and no more.
    let limit: Int
    private(set) var count = 0

    /// - Parameters:
    ///   - memoryBytes: what the table may take at the most.
    ///   - loadFactor: how full it may become.
    ///   - keys: no more will come: a small part of a log takes a small table.
    init(memoryBytes: Int, loadFactor: Double, keys: Int, secret: KeyHash.Secret) {
        let share = min(max(loadFactor, 0.01), 0.99)
        let wanted = Double(max(keys, 1)) / share + 2
        let places = max(min(memoryBytes / Self.entryBytes, wanted < Double(Int32.max) ? Int(wanted) : .max), 2)
        entries = .allocate(capacity: places)
        entries.initialize(repeating: Entry())
        limit = min(max(Int(Double(places) * share), 1), places - 1)
        self.secret = secret
    }

    deinit { entries.deallocate() }

    func hash(_ key: UnsafeRawBufferPointer) -> KeyHash { KeyHash(key, secret) }

    /// Notes where a key was last seen. False where there is no room for one more: nothing was noted.
    func note(_ hash: KeyHash, at offset: Int64) -> Bool {
        let place = place(of: hash)
        if entries[place].next == 0 {
            guard count < limit else { return false }
            count += 1
            entries[place].hash = (hash.low, hash.high)
        }
        entries[place].next = offset + 1
        return true
    }

    /// Where the key was last seen; -1 where it was not.
    func lastOffset(of hash: KeyHash) -> Int64 { entries[place(of: hash)].next - 1 }

    /// The place of the hash, or the free one where it would go: there is always a free one.
    private func place(of hash: KeyHash) -> Int {
        var place = Int(truncatingIfNeeded: hash.low.multipliedFullWidth(by: UInt64(entries.count)).high)
        while entries[place].next != 0, entries[place].hash.low != hash.low || entries[place].hash.high != hash.high {
            place &+= 1
            if place == entries.count { place = 0 }
        }
        return place
    }
}
