import MartletBasics
import Testing

@Suite struct EveryMessage {
    @Test func thereAreAsManyAsKafkaHas() {
        // a plugin that found no schemas would leave every other test here with nothing to fail on
        #expect(Catalog.wire.count == 2 * 95)
        #expect(Catalog.records.count == 69)
    }

    @Test(arguments: Catalog.wire + Catalog.records)
    func survivesItsRoundTripAtEveryVersion(_ message: CatalogEntry) throws {
        for version in message.versions {
            var random = SeededRandom(seed: UInt64(version) &+ 1)
            for round in 0..<12 {
                let fault = try message.roundTrip(version, &random)
                #expect(fault == nil, "\(message.name) v\(version), seed \(version + 1), round \(round)")
            }
        }
    }

    @Test(arguments: Catalog.wire + Catalog.records)
    func isRefusedAtVersionsThatItDoesNotHave(_ message: CatalogEntry) {
        for version in [message.versions.lowerBound - 1, message.versions.upperBound + 1, .max, .min] {
            #expect(throws: DecodingFault.self) { try message.decode([UInt8](repeating: 0, count: 4096), version) }
        }
    }

    @Test(arguments: Catalog.wire + Catalog.records)
    func isRefusedWhereItWasCutShort(_ message: CatalogEntry) throws {
        var random = SeededRandom(seed: 7)
        for version in message.versions {
            let bytes = try message.sample(version, &random).bytes
            // any prefix lacks something that the schema wants, since nothing at the end is optional
            for count in Set([0, bytes.count / 3, bytes.count / 2, bytes.count - 1]) where 0..<bytes.count ~= count {
                #expect(throws: DecodingFault.self, "\(message.name) v\(version), \(count) of \(bytes.count) bytes") {
                    try message.decode(Array(bytes[..<count]), version)
                }
            }
        }
    }

    @Test(arguments: Catalog.wire)
    func leavesUnreadWhatFollowsIt(_ message: CatalogEntry) throws {
        var random = SeededRandom(seed: 8)
        let bytes = try message.sample(message.versions.upperBound, &random).bytes
        #expect(try message.decode(bytes + [0xFF, 0, 0xFF], message.versions.upperBound) == bytes.count)
    }

    @Test(arguments: Catalog.wire + Catalog.records)
    func acceptsTagsThatItDoesNotKnow(_ message: CatalogEntry) throws {
        for version in message.versions where message.isFlexible(version) {
            // what ends a message of defaults is the count of its tagged fields, which are none
            var bytes = try message.defaults(version)
            #expect(bytes.last == 0)
            let expected = bytes
            bytes.removeLast()
            // repeated, and falling
            bytes += [3, 100, 1, 0xAA, 100, 0, 90, 2, 0xBB, 0xCC]
            #expect(try message.decode(bytes, version) == bytes.count, "\(message.name) v\(version)")
            #expect(message.reencode(bytes, version) == expected, "\(message.name) v\(version)")
        }
    }
}

@Suite struct HostileBytes {
    /// Whatever a decoder accepts, it also accepts in its own words: what it encodes is decoded to the same again.
    private func feed(_ message: CatalogEntry, _ version: Int16, _ bytes: [UInt8], _ seed: UInt64) {
        guard let first = message.reencode(bytes, version) else { return }
        let second = message.reencode(first, version)
        #expect(second == first, "\(message.name) v\(version), seed \(seed): \(hex(bytes))")
    }

    @Test(arguments: Catalog.wire + Catalog.records)
    func ofAnyContentGiveAValueOrAFault(_ message: CatalogEntry) {
        var random = SeededRandom(seed: 0x0DD5)
        for version in message.versions {
            for _ in 0..<60 {
                // small bytes are counts and lengths that fit, large ones those that do not
                let small = random.chance(2, in: 3)
                let bytes = (0..<random.below(120)).map { _ in UInt8(random.below(small ? 4 : 256)) }
                feed(message, version, bytes, 0x0DD5)
            }
        }
    }

    @Test(arguments: Catalog.wire + Catalog.records)
    func madeFromRealOnesGiveAValueOrAFault(_ message: CatalogEntry) throws {
        var random = SeededRandom(seed: 0xBAD)
        for version in message.versions {
            for _ in 0..<10 {
                let bytes = try message.sample(version, &random).bytes
                if bytes.isEmpty { continue }
                for _ in 0..<10 { feed(message, version, mutated(bytes, &random), 0xBAD) }
            }
        }
    }

    private func mutated(_ original: [UInt8], _ random: inout SeededRandom) -> [UInt8] {
        var bytes = original
        for _ in 0...random.below(3) where !bytes.isEmpty {
            let at = random.below(bytes.count)
            switch random.below(5) {
            case 0: bytes[at] = UInt8(random.below(256))
            case 1: bytes[at] ^= 1 << UInt8(random.below(8))
            case 2: bytes[at] = [0, 0x7F, 0x80, 0xFF][random.below(4)]
            case 3: bytes.remove(at: at)
            default: bytes.insert(UInt8(random.below(256)), at: at)
            }
        }
        return bytes
    }
}
