import MartletBasics
import MartletModel
import Testing

func decompressed(
    _ bytes: [UInt8], _ codec: CompressionCodec, limit: Int = 1 << 26, contexts: CodecContexts = CodecContexts()
) throws(CompressionFault) -> [UInt8] {
    var output = ByteBuffer()
    output.int8(77)  // what was there before stays
    do throws(CompressionFault) {
        let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 1)
        defer { copy.deallocate() }
        copy.copyBytes(from: bytes)
        try contexts.decompress(UnsafeRawBufferPointer(copy), codec: codec, into: &output, limit: limit)
    } catch {
        #expect(output.array == [77])
        throw error
    }
    #expect(output.bytes[0] == 77)
    return Array(output.array.dropFirst())
}

let realCodecs: [CompressionCodec] = [.gzip, .snappy, .lz4, .zstd]

@Suite struct Compression {
    /// A frame of lz4 around "hello, martlet", by its descriptor (flags, block size, what else, checksum of these).
    static func lz4Frame(_ descriptor: [UInt8], after: [UInt8] = []) -> [UInt8] {
        [0x04, 0x22, 0x4D, 0x18] + descriptor + [0x0E, 0, 0, 0x80] + Array("hello, martlet".utf8) + [0, 0, 0, 0] + after
    }

    @Test(arguments: CompressionCodec.allCases)
    func whatIsCompressedIsReadBack(codec: CompressionCodec) throws {
        var random = SeededRandom(seed: 11)
        let contexts = CodecContexts()
        for size in [0, 1, 2, 100, 32_767, 32_768, 32_769, 65_535, 65_536, 65_537, 300_000] {
            let noise = (0..<size).map { _ in UInt8(truncatingIfNeeded: random.next()) }
            let text = (0..<size).map { UInt8(truncatingIfNeeded: $0 % 251 &* ($0 / 1000)) }
            for bytes in [noise, text] {
                for level in [codec.defaultLevel, 1, 12, -5, .max, .min] {
                    if size > 60_000, level == .max { continue }
                    var output = ByteBuffer()
                    bytes.withUnsafeBytes { contexts.compress($0, codec: codec, level: level, into: &output) }
                    let back = try decompressed(output.array, codec, limit: size, contexts: contexts)
                    #expect(back == bytes, "\(size) bytes at level \(level)")
                }
            }
        }
    }

    @Test(arguments: CompressionCodec.allCases)
    func nothingComesOutBeyondTheLimit(codec: CompressionCodec) throws {
        let contexts = CodecContexts()
        let bomb = compressed([UInt8](repeating: 0, count: 20_000_000), codec)
        for limit in [0, 1, 1000, 65_535, 65_536, 1_000_000, 19_999_999] {
            var output = ByteBuffer()
            #expect(throws: CompressionFault.tooLarge(limit: limit)) {
                try bomb.withUnsafeBytes { try contexts.decompress($0, codec: codec, into: &output, limit: limit) }
            }
            #expect(output.count == 0)
            #expect(output.capacity <= 4 * max(limit, 65_536))
        }
        #expect(try decompressed(bomb, codec, limit: 20_000_000, contexts: contexts).count == 20_000_000)
    }

    @Test func declaredSizesAreNotBelieved() {
        var output = ByteBuffer()
        let contexts = CodecContexts()
        func refuse(_ bytes: [UInt8], _ codec: CompressionCodec) {
            #expect(throws: CompressionFault.self) {
                try bytes.withUnsafeBytes { try contexts.decompress($0, codec: codec, into: &output, limit: 1 << 30) }
            }
        }
        // one byte in a zstd frame that declares a tebibyte; in one block of snappy that declares 2 GiB; in an lz4 frame
        refuse([0x28, 0xB5, 0x2F, 0xFD, 0xE0, 0, 0, 0, 0, 0, 1, 0, 0, 9, 0, 0, 0x41], .zstd)
        refuse([0xFF, 0xFF, 0xFF, 0xFF, 0x07, 0, 0x41], .snappy)
        refuse(Self.lz4Frame([0x68, 0x40, 0, 0, 0, 0, 0, 1, 0, 0, 0xB7]), .lz4)
        #expect(output.capacity <= 1 << 20)
    }

    @Test(arguments: realCodecs)
    func aStreamCutAnywhereIsUnreadable(codec: CompressionCodec) throws {
        let bytes = (0..<70_000).map { UInt8(truncatingIfNeeded: $0 / 3) }
        let whole = compressed(bytes, codec)
        let contexts = CodecContexts()
        var random = SeededRandom(seed: 5)
        for cut in [0, 1, 5, whole.count - 1, whole.count - 4] + (0..<40).map({ _ in random.below(whole.count) }) {
            // the stream of snappy may end after any of its blocks, and Kafka too finds out by the records it misses
            let back = try? decompressed(Array(whole[..<cut]), codec, contexts: contexts)
            #expect(back == nil || (codec == .snappy && back!.count < bytes.count), "cut at \(cut) of \(whole.count)")
        }
        // and the contexts are none the worse for it
        #expect(try decompressed(whole, codec, contexts: contexts) == bytes)
    }

    @Test(arguments: realCodecs)
    func damageNeverCrashes(codec: CompressionCodec) throws {
        var random = SeededRandom(seed: 2024)
        let contexts = CodecContexts()
        let bytes = (0..<3000).map { UInt8(truncatingIfNeeded: $0 / 7) }
        let whole = compressed(bytes, codec)
        for _ in 0..<3000 {
            var damaged = whole
            for _ in 0...random.below(4) { damaged[random.below(damaged.count)] = UInt8(truncatingIfNeeded: random.next()) }
            if random.chance(1, in: 4) { damaged.removeLast(random.below(damaged.count)) }
            if let back = try? decompressed(damaged, codec, limit: 100_000, contexts: contexts) {
                #expect(back.count <= 100_000)
            }
        }
        #expect(try decompressed(whole, codec, contexts: contexts) == bytes)
    }

    @Test func gzipMembersFollowOneAnotherAndWhatFollowsThemIsPassedOver() throws {
        let one = compressed(Array("one ".utf8), .gzip)
        let two = compressed(Array("two".utf8), .gzip)
        #expect(try decompressed(one + two, .gzip) == Array("one two".utf8))
        #expect(try decompressed(one + two + [0, 0, 0], .gzip) == Array("one two".utf8))
        #expect(throws: CompressionFault.self) { try decompressed(one + two.dropLast(3), .gzip) }
        #expect(throws: CompressionFault.tooLarge(limit: 6)) { try decompressed(one + two, .gzip, limit: 6) }
        var wrong = one
        wrong[wrong.count - 6] ^= 1  // the checksum of the content
        #expect(throws: CompressionFault.self) { try decompressed(wrong, .gzip) }
    }

    @Test func snappyIsReadInBothFramingsAndWrittenInJavas() throws {
        let text = Array("snappy snappy snappy".utf8)
        let stream = compressed(text, .snappy)
        #expect(Array(stream[..<16]) == [0x82, 0x53, 0x4E, 0x41, 0x50, 0x50, 0x59, 0, 0, 0, 0, 1, 0, 0, 0, 1])
        let raw = Array(stream[20...])
        #expect(Array(stream[16..<20]) == [0, 0, 0, UInt8(raw.count)])
        #expect(try decompressed(raw, .snappy) == text)
        #expect(try decompressed(stream + stream, .snappy) == text + text)
        #expect(try decompressed(Array(stream[..<16]), .snappy) == [])
        var newer = stream
        newer[15] = 2
        #expect(throws: CompressionFault.self) { try decompressed(newer, .snappy) }
        #expect(throws: CompressionFault.self) { try decompressed(stream + [0, 0], .snappy) }
        #expect(throws: CompressionFault.self) { try decompressed(stream + [0xFF, 0xFF, 0xFF, 0xFF], .snappy) }
        // blocks of 32 KiB, as Java cuts them
        let large = compressed((0..<40_000).map { UInt8(truncatingIfNeeded: $0 &* 7919 >> 3) }, .snappy)
        let first = large[16..<20].reduce(0) { $0 << 8 | Int($1) }
        #expect(try decompressed(Array(large[20..<20 + first]), .snappy).count == 32_768)
    }

    @Test func anLZ4FrameOfIndependentBlocksIsReadAndOtherFramesAreRefused() throws {
        let text = Array("hello, martlet".utf8)
        #expect(try decompressed(Self.lz4Frame([0x60, 0x40, 0x82]), .lz4) == text)
        #expect(try decompressed(Self.lz4Frame([0x60, 0x40, 0x82], after: [1, 2, 3]), .lz4) == text)
        // a content size
        #expect(try decompressed(Self.lz4Frame([0x68, 0x40, 14, 0, 0, 0, 0, 0, 0, 0, 0xC2]), .lz4) == text)
        // blocks that depend on one another
        let linked = #expect(throws: CompressionFault.self) { try decompressed(Self.lz4Frame([0x40, 0x40, 0xC0]), .lz4) }
        #expect("\(linked!)".contains("independent"))
        // a dictionary
        #expect(throws: CompressionFault.self) {
            try decompressed(Self.lz4Frame([0x61, 0x40, 1, 0, 0, 0, 0xD0]), .lz4)
        }
        // checksums, of the descriptor and of the content
        #expect(throws: CompressionFault.self) { try decompressed(Self.lz4Frame([0x60, 0x40, 0x83]), .lz4) }
        let sum: [UInt8] = [0x91, 0x6F, 0x94, 0xE3]
        #expect(try decompressed(Self.lz4Frame([0x64, 0x40, 0xA7], after: sum), .lz4) == text)
        #expect(throws: CompressionFault.self) {
            try decompressed(Self.lz4Frame([0x64, 0x40, 0xA7], after: sum.reversed()), .lz4)
        }
        #expect(throws: CompressionFault.self) { try decompressed(Self.lz4Frame([0x64, 0x40, 0xA7]), .lz4) }
        // what is written is what Java writes: independent blocks of 64 KiB, no checksums
        #expect(Array(compressed(text, .lz4)[..<7]) == [0x04, 0x22, 0x4D, 0x18, 0x60, 0x40, 0x82])
    }

    @Test func zstdFramesFollowOneAnother() throws {
        let one = compressed(Array("one ".utf8), .zstd)
        let two = compressed([UInt8](repeating: 7, count: 200_000), .zstd)
        #expect(try decompressed(one + two, .zstd) == Array("one ".utf8) + [UInt8](repeating: 7, count: 200_000))
        #expect(throws: CompressionFault.self) { try decompressed(one + [1, 2, 3], .zstd) }
        #expect(throws: CompressionFault.tooLarge(limit: 200_003)) { try decompressed(one + two, .zstd, limit: 200_003) }
    }
}
