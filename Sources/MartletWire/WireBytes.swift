package import MartletBasics

/// The bytes of a field: where they lie in the frame that the message was decoded from, or bytes of its own.
///
/// Decoding copies nothing and so gives `inFrame`, which means something only as long as the frame is there and only
/// together with it. Whoever keeps a message for later calls `ownBytes(of:)` on it first.
package enum WireBytes: Sendable, Hashable {
    case inFrame(ByteRange)
    case owned([UInt8])

    package static var empty: WireBytes { .owned([]) }

    @inlinable package var count: Int {
        switch self {
        case .inFrame(let range): range.count
        case .owned(let bytes): bytes.count
        }
    }

    @inlinable package var isEmpty: Bool { count == 0 }

    /// A copy of the bytes. `frame` is what the message was decoded from.
    package func array(in frame: UnsafeRawBufferPointer) -> [UInt8] {
        switch self {
        case .owned(let bytes): return bytes
        case .inFrame(let range):
            precondition(range.offset >= 0 && range.end <= frame.count, "a range of another frame than this")
            return [UInt8](UnsafeRawBufferPointer(rebasing: frame[range.offset..<range.end]))
        }
    }

    /// Copies the bytes out of the frame, if they lie there.
    package mutating func own(of frame: UnsafeRawBufferPointer) {
        if case .inFrame = self { self = .owned(array(in: frame)) }
    }
}

extension ByteReader {
    mutating func wireBytes(flexible: Bool) throws(DecodingFault) -> WireBytes {
        .inFrame(try byteRange(flexible: flexible))
    }

    mutating func nullableWireBytes(flexible: Bool) throws(DecodingFault) -> WireBytes? {
        guard let range = try nullableByteRange(flexible: flexible) else { return nil }
        return .inFrame(range)
    }
}

extension ByteBuffer {
    mutating func wireBytes(
        _ value: WireBytes, flexible: Bool, frame: UnsafeRawBufferPointer?, field: StaticString
    ) throws(EncodingFault) {
        switch value {
        case .owned(let bytes): try byteArray(bytes, flexible: flexible, field: field)
        case .inFrame(let range):
            guard let frame, range.offset >= 0, range.count >= 0, range.end <= frame.count else {
                throw .bytesWithoutFrame("\(field)")
            }
            guard range.count < Self.lengthLimit else { throw .tooLong("\(field)", count: range.count) }
            arrayCount(range.count, flexible: flexible)
            append(UnsafeRawBufferPointer(rebasing: frame[range.offset..<range.end]))
        }
    }

    mutating func nullableWireBytes(
        _ value: WireBytes?, flexible: Bool, frame: UnsafeRawBufferPointer?, field: StaticString
    ) throws(EncodingFault) {
        if let value { return try wireBytes(value, flexible: flexible, frame: frame, field: field) }
        nullArray(flexible: flexible)
    }
}
