import MartletBasics
import MartletReactor
import MartletSimulation
import Testing

/// A call of the system may move fewer bytes than it is asked to.
@Suite struct ShortTransfers {
    private func pieces(of all: UnsafeRawBufferPointer, _ random: inout SeededRandom) -> [UnsafeRawBufferPointer] {
        var pieces: [UnsafeRawBufferPointer] = []
        var start = 0
        while start < all.count {
            let end = min(all.count, start + random.below(3_000))
            pieces.append(UnsafeRawBufferPointer(rebasing: all[start..<end]))
            start = end
        }
        return pieces
    }

    @Test func goOnUntilAllIsReadAndWritten() throws {
        var shortCount = 0
        for seed in UInt64(1)...60 {
            let world = SimulatedWorld(seed: seed)
            defer { world.end() }
            let host = world.makeHost("a")
            host.files.shortOneIn = 1 + Int(seed % 3)
            var random = SeededRandom(seed: seed)
            let all = (0..<random.below(30_000) + 2).map { _ in UInt8(random.below(256)) }
            let file = try host.disk.open("/f", .create)
            try all.withUnsafeBytes { bytes in
                if seed % 2 == 0 { try file.write(bytes, at: 11) } else { try file.write(pieces(of: bytes, &random), at: 11) }
            }
            #expect(try file.size() == Int64(all.count + 11))
            var found = [UInt8](repeating: 1, count: all.count + 50)
            host.files.evictionOneIn = 0
            let count = try found.withUnsafeMutableBytes {
                seed % 4 < 2 ? try file.read(into: $0, at: 0) : try file.readCached(into: $0, at: 0)
            }
            #expect(count == all.count + 11)
            #expect(Array(found[..<11]) == [UInt8](repeating: 0, count: 11) && Array(found[11..<all.count + 11]) == all, "seed \(seed)")
            shortCount += host.files.shortTransfersCount
        }
        #expect(shortCount > 100)
    }

    @Test func ofAWriteThatTheFullDiskEndsTheBeginningIsThere() throws {
        let world = SimulatedWorld(seed: 5)
        defer { world.end() }
        let host = world.makeHost("a")
        host.files.shortOneIn = 1
        host.files.capacityBytes = 8192
        let error = #expect(throws: SystemError.self) { try host.disk.write("/f", [UInt8](repeating: 7, count: 20_000)) }
        #expect(error?.kind == .noSpace)
        #expect(try host.disk.contents("/f") == [UInt8](repeating: 7, count: 8192))
    }

    /// Between the parts of one write the power may go, and more of it be there than of a write of one call: whole sectors
    /// of a beginning.
    @Test func areWhereThePowerGoes() throws {
        let found = try outcomes(1...80) { host in
            host.files.shortOneIn = 1
            try host.disk.write("/d/f", [UInt8](repeating: 1, count: 4096), sync: true)
            try host.disk.syncDirectory("/d")
            host.powerCut(afterDiskOperations: 2)
            try? host.disk.write("/d/f", [UInt8](repeating: 2, count: 4096))
        } after: { disk in
            let content = try #require(try disk.contents("/d/f"))
            #expect(content.count == 4096 && content.allSatisfy { $0 == 1 || $0 == 2 })
            return Set(content).count == 2 ? "a part" : content[0] == 1 ? "nothing" : "all"
        }
        #expect(found.contains("a part") && found.contains("nothing"))
    }
}
