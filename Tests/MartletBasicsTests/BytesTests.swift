import MartletBasics
import Testing

@Suite struct Bytes {
    @Test func whatIsWrittenIsReadBack() throws {
        var buffer = ByteBuffer()
        for value: Int64 in [0, 1, -1, 63, 64, -64, -65, .max, .min] { buffer.varlong(value) }
        for value: Int32 in [0, 1, -1, .max, .min] { buffer.varint(value) }
        for value: UInt32 in [0, 127, 128, .max] { buffer.uvarint(value) }
        buffer.int16(-2)
        var reader = ByteReader(buffer.bytes)
        for value: Int64 in [0, 1, -1, 63, 64, -64, -65, .max, .min] { #expect(try reader.varlong() == value) }
        for value: Int32 in [0, 1, -1, .max, .min] { #expect(try reader.varint() == value) }
        for value: UInt32 in [0, 127, 128, .max] { #expect(try reader.uvarint() == value) }
        #expect(try reader.int16() == -2)
        #expect(reader.isAtEnd)
    }

    @Test func aVarintThatIsTooLongOrEndsEarlyIsRefused() {
        func read(_ bytes: [UInt8]) throws -> UInt32 {
            try bytes.withUnsafeBytes { raw in
                var reader = ByteReader(raw)
                return try reader.uvarint()
            }
        }
        #expect(throws: DecodingFault.self) { try read([0xFF, 0xFF, 0xFF, 0xFF, 0x1F]) }
        #expect(throws: DecodingFault.self) { try read([0x80, 0x80]) }
        #expect(throws: DecodingFault.self) { try read([]) }
    }

    @Test func theChecksumIsCastagnolis() {
        // the check value that RFC 3720's successors give for the digits
        Array("123456789".utf8).withUnsafeBytes { #expect(crc32c($0) == 0xE306_9283) }
        let halves: UInt32 = Array("1234".utf8).withUnsafeBytes { crc32c($0) }
        Array("56789".utf8).withUnsafeBytes { #expect(crc32c($0, continuing: halves) == 0xE306_9283) }
    }
}
