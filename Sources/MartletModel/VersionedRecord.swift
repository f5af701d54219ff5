package import MartletBasics

/// A record or file body whose codec is generated from `Schemas/records`.
///
/// Where Kafka stores one, an int16 stands before its fields: the record's version, or, in the key of a coordinator's
/// record, the number that says what kind of record it is (such keys have one version only). `decode` and `encode` know
/// the fields alone; `decodePrefixed` and `encodePrefixed` know the int16 too. Control records about leaders and voters
/// (`LeaderChangeMessage`, `VotersRecord`, …) have their version as a field, and no prefix.
package protocol VersionedRecord: Equatable, Sendable {
    /// The versions that can be read and written.
    static var versions: ClosedRange<Int16> { get }
    /// What stands before the fields instead of the version; nil except in a coordinator's key.
    static var keyPrefix: Int16? { get }

    init()
    static func isFlexible(_ version: Int16) -> Bool
    static func decode(from reader: inout ByteReader, version: Int16) throws(DecodingFault) -> Self
    func encode(into buffer: inout ByteBuffer, version: Int16) throws(EncodingFault)
}

extension VersionedRecord {
    package static func decodePrefixed(from reader: inout ByteReader) throws(DecodingFault) -> Self {
        let start = reader.position
        let prefix = try reader.int16()
        if let keyPrefix {
            guard prefix == keyPrefix else { throw .malformed("the key of another kind of record", at: start) }
            return try decode(from: &reader, version: versions.lowerBound)
        }
        return try decode(from: &reader, version: prefix)
    }

    package func encodePrefixed(into buffer: inout ByteBuffer, version: Int16) throws(EncodingFault) {
        buffer.int16(Self.keyPrefix ?? version)
        try encode(into: &buffer, version: version)
    }

    /// Decodes a whole record, prefix included; bytes after it are ignored, as Kafka does.
    package init(prefixed bytes: [UInt8]) throws(DecodingFault) {
        let result: Result<Self, DecodingFault> = bytes.withUnsafeBytes { raw in
            var reader = ByteReader(raw)
            do throws(DecodingFault) { return .success(try Self.decodePrefixed(from: &reader)) } catch {
                return .failure(error)
            }
        }
        self = try result.get()
    }

    /// The record with its prefix, as an array.
    package func prefixedBytes(version: Int16) throws(EncodingFault) -> [UInt8] {
        var buffer = ByteBuffer()
        try encodePrefixed(into: &buffer, version: version)
        return buffer.array
    }
}
