/// The first sequence number of a batch in its order: after 2147483647 comes 0.
package struct ProducerSequence: Sendable, Equatable {
    package let value: Int32

    package init(_ value: Int32) { self.value = value }

    /// Whether a batch that begins here was made after one that begins there, of batches that are in flight together.
    package func isAfter(_ other: ProducerSequence) -> Bool {
        let distance = (Int64(value) - Int64(other.value)) & 0x7FFF_FFFF
        return distance > 0 && distance < 1 << 30
    }
}
