import MartletBasics
import MartletReactor
import MartletSimulation
import Testing

/// Runs the same incident for many seeds, with a disk that has /d, and gathers what came of it.
func outcomes(
    _ seeds: ClosedRange<UInt64> = 1...100, before: (SimulatedHost) throws -> Void, after: (any Disk) throws -> String
) rethrows -> Set<String> {
    var found: Set<String> = []
    for seed in seeds {
        let world = SimulatedWorld(seed: seed)
        defer { world.end() }
        let host = world.makeHost("a")
        do {
            try host.disk.makeDirectory("/d")
            try host.disk.syncDirectory("/")
        } catch { preconditionFailure("\(error)") }
        try before(host)
        host.powerCut()
        found.insert(try after(host.restart().disk))
    }
    return found
}

private func text(_ disk: any Disk, _ path: String) throws -> String {
    guard let content = try disk.contents(path) else { return "absent" }
    return String(decoding: content, as: UTF8.self)
}

@Suite struct PowerCuts {
    @Test func whatWasSyncedIsThereAlways() throws {
        let found = try outcomes { host in
            try host.disk.write("/d/f", bytes("kept"), sync: true)
            try host.disk.syncDirectory("/d")
        } after: { try text($0, "/d/f") }
        #expect(found == ["kept"])
    }

    @Test func aNewFileMayBeMissingThoughItsDataWasSynced() throws {
        let found = try outcomes { try $0.disk.write("/d/f", bytes("kept"), sync: true) } after: { try text($0, "/d/f") }
        #expect(found == ["kept", "absent"])
    }

    @Test func unsyncedDataIsKeptInSomeWorldsAndLostInOthers() throws {
        let found = try outcomes { host in
            try host.disk.write("/d/f", bytes("old!"), sync: true)
            try host.disk.syncDirectory("/d")
            try host.disk.write("/d/f", bytes("new!"))
        } after: { try text($0, "/d/f") }
        #expect(found == ["old!", "new!"], "four bytes lie in one sector, which is written whole or not")
    }

    @Test func aSyncedBeginningSurvivesWhateverBecomesOfWhatWasAppended() throws {
        var sizes: Set<Int> = []
        let found = try outcomes(1...200) { host in
            try host.disk.write("/d/f", [UInt8](repeating: 1, count: 6000), sync: true)
            try host.disk.syncDirectory("/d")
            for index in 0..<10 { try host.disk.write("/d/f", [UInt8](repeating: 2, count: 1500), at: Int64(6000 + index * 1500)) }
        } after: { disk in
            let content = try #require(try disk.contents("/d/f"))
            sizes.insert(content.count)
            #expect(content.prefix(6000).allSatisfy { $0 == 1 })
            let appended = content.dropFirst(6000)
            #expect(appended.allSatisfy { $0 == 0 || $0 == 2 }, "what was not written is zero")
            return appended.contains(0) ? (appended.contains(2) ? "torn" : "zeros") : appended.isEmpty ? "nothing" : "all"
        }
        #expect(found == ["torn", "zeros", "nothing", "all"])
        #expect(sizes.contains(6000) && sizes.contains(21_000) && sizes.count > 4)
    }

    @Test func tornPagesAreTornBetweenSectors() throws {
        let found = try outcomes(1...300) { host in
            try host.disk.write("/d/f", [UInt8](repeating: 1, count: 4096), sync: true)
            try host.disk.syncDirectory("/d")
            try host.disk.write("/d/f", [UInt8](repeating: 2, count: 4096))
        } after: { disk in
            let content = try #require(try disk.contents("/d/f"))
            for sector in stride(from: 0, to: 4096, by: 512) { #expect(Set(content[sector..<(sector + 512)]).count == 1) }
            return Set(content).count == 2 ? "torn" : "whole"
        }
        #expect(found == ["torn", "whole"])
    }

    @Test func aRenameIsMadeWholeOrNotAtAllUntilTheFolderIsSynced() throws {
        func run(syncing: Bool) throws -> Set<String> {
            try outcomes { host in
                try host.disk.write("/d/f", bytes("old"), sync: true)
                try host.disk.write("/d/f.tmp", bytes("new"), sync: true)
                try host.disk.syncDirectory("/d")
                try host.disk.rename("/d/f.tmp", to: "/d/f")
                if syncing { try host.disk.syncDirectory("/d") }
            } after: { try text($0, "/d/f") + " " + text($0, "/d/f.tmp") }
        }
        #expect(try run(syncing: false) == ["old new", "new absent"])
        #expect(try run(syncing: true) == ["new absent"])
    }

    @Test func aRenameWithoutASyncOfTheDataMayShowAnEmptyFile() throws {
        let found = try outcomes { host in
            try host.disk.write("/d/f", bytes("old"), sync: true)
            try host.disk.syncDirectory("/d")
            try host.disk.write("/d/f.tmp", bytes("new"))
            try host.disk.rename("/d/f.tmp", to: "/d/f")
            try host.disk.syncDirectory("/d")
        } after: { try text($0, "/d/f") }
        #expect(found.contains("") && found.contains("new") && !found.contains("old"))
    }

    @Test func replaceLeavesTheOldContentOrTheNew() throws {
        for cut in 0..<7 {
            let found = try outcomes(1...40) { host in
                try host.disk.replace("/d/f", with: bytes("old"))
                host.powerCut(afterDiskOperations: cut)
                try? host.disk.replace("/d/f", with: bytes("new"))
            } after: { try text($0, "/d/f") }
            #expect(found.isSubset(of: ["old", "new"]), "power cut after \(cut) calls")
            if cut == 0 { #expect(found == ["old"]) }
            if cut == 3 { #expect(found == ["old", "new"], "renamed, the folder not synced") }
            if cut >= 4 { #expect(found == ["new"]) }
        }
    }

    @Test func changesOfOneFolderAreUndoneFromTheLastBackwards() throws {
        let found = try outcomes(1...200) { host in
            for name in ["a", "b", "c"] { try host.disk.write("/d/\(name)", [], sync: true) }
        } after: { try $0.list("/d").joined() }
        #expect(found == ["", "a", "ab", "abc"])
    }

    @Test func aSyncOfOneFolderSaysNothingOfAnother() throws {
        let found = try outcomes { host in
            try host.disk.makeDirectory("/e")
            try host.disk.syncDirectory("/")
            try host.disk.write("/e/f", bytes("e"), sync: true)
            try host.disk.write("/d/f", bytes("d"), sync: true)
            try host.disk.syncDirectory("/d")
        } after: { try text($0, "/d/f") + " " + text($0, "/e/f") }
        #expect(found == ["d e", "d absent"])
    }

    @Test func aMoveBetweenFoldersNeverLosesNorDoublesTheFile() throws {
        let found = try outcomes { host in
            try host.disk.makeDirectory("/e")
            try host.disk.syncDirectory("/")
            try host.disk.write("/d/f", bytes("x"), sync: true)
            try host.disk.syncDirectory("/d")
            try host.disk.rename("/d/f", to: "/e/f")
        } after: { try text($0, "/d/f") + " " + text($0, "/e/f") }
        #expect(found == ["x absent", "absent x"])
    }

    @Test func aRemovalThatWasNotSyncedMayComeBack() throws {
        let found = try outcomes { host in
            try host.disk.write("/d/f", bytes("x"), sync: true)
            try host.disk.syncDirectory("/d")
            try host.disk.remove("/d/f")
        } after: { try text($0, "/d/f") }
        #expect(found == ["x", "absent"])
    }

    @Test func aRemovedFolderIsGoneInPartsButNeverBeforeItsFiles() throws {
        let found = try outcomes(1...200) { host in
            try host.disk.makeDirectory("/d/t")
            for name in ["a", "b"] { try host.disk.write("/d/t/\(name)", [1], sync: true) }
            try host.disk.syncFileSystem("/")
            try host.disk.removeTree("/d/t")
        } after: { disk in
            guard try disk.status("/d/t") != nil else { return "gone" }
            return try disk.list("/d/t").joined()
        }
        #expect(found == ["gone", "", "b", "ab"])
    }

    @Test func aTruncationIsKeptOrUndoneAndOldBytesDoNotComeBackAfterASync() throws {
        let undone = try outcomes { host in
            try host.disk.write("/d/f", [UInt8](repeating: 1, count: 9000), sync: true)
            try host.disk.syncDirectory("/d")
            try host.disk.open("/d/f", .readWrite).truncate(to: 100)
        } after: { disk in "\(try disk.contents("/d/f")?.count ?? -1)" }
        #expect(undone == ["100", "9000"])
        let synced = try outcomes { host in
            try host.disk.write("/d/f", [UInt8](repeating: 1, count: 9000), sync: true)
            try host.disk.syncDirectory("/d")
            let file = try host.disk.open("/d/f", .readWrite)
            try file.truncate(to: 100)
            try file.allocate(9000)
            try file.sync()
        } after: { disk in
            let content = try #require(try disk.contents("/d/f"))
            return "\(content.count) \(content.prefix(100).allSatisfy { $0 == 1 }) \(content.dropFirst(100).allSatisfy { $0 == 0 })"
        }
        #expect(synced == ["9000 true true"])
    }

    @Test func thousandsOfUnsyncedNamesAreNotRememberedForEver() throws {
        let world = SimulatedWorld(seed: 1)
        defer { world.end() }
        let host = world.makeHost("a")
        for index in 0..<6_000 {
            try host.disk.write("/\(index)", [])
            try host.disk.remove("/\(index)")
        }
        try host.disk.write("/last", [])
        host.powerCut()
        #expect(try host.restart().disk.list("/").allSatisfy { $0 == "last" || (Int($0) ?? 0) >= 2_500 })
    }

    @Test func aKillOfTheProcessLosesNothingThatWasWritten() throws {
        for seed: UInt64 in 1...20 {
            let world = SimulatedWorld(seed: seed)
            defer { world.end() }
            let host = world.makeHost("a")
            try host.disk.write("/f", bytes("written"))
            let next = host.restart()
            #expect(try text(next.disk, "/f") == "written")
        }
    }

    @Test func syncFileSystemMakesEverythingDurable() throws {
        let found = try outcomes { host in
            for index in 0..<10 { try host.disk.write("/d/\(index)", bytes("x")) }
            try host.disk.syncFileSystem("/d")
        } after: { disk in try (0..<10).map { try text(disk, "/d/\($0)") }.joined() }
        #expect(found == ["xxxxxxxxxx"])
    }

    @Test func randomHistoriesOfOneFileNeverLoseSyncedBytesNorShowBytesNobodyWrote() throws {
        for seed: UInt64 in 1...150 {
            let world = SimulatedWorld(seed: seed)
            defer { world.end() }
            var random = world.makeRandom("history")
            let host = world.makeHost("a")
            let file = try host.disk.open("/f", .create)
            try host.disk.syncDirectory("/")
            var model = FileModel()
            for step in 1...40 {
                switch random.below(8) {
                case 0:
                    try file.sync()
                    model.sync()
                case 1:
                    let size = random.below(model.bytes.count + 1)
                    try file.truncate(to: Int64(size))
                    model.truncate(to: size)
                default:
                    let at = random.below(FileModel.limit)
                    let content = [UInt8](repeating: UInt8(step), count: 1 + random.below(FileModel.limit - at))
                    try content.withUnsafeBytes { try file.write($0, at: Int64(at)) }
                    model.write(UInt8(step), at..<(at + content.count))
                }
            }
            #expect(try host.disk.contents("/f") == model.bytes)
            host.powerCut()
            let left = try #require(try host.restart().disk.contents("/f"))
            #expect(model.fault(in: left) == nil, "seed \(seed)")
        }
    }
}

/// What each byte of a file may be after a power cut: what it was when it was synced, or anything that it has been
/// since.
private struct FileModel {
    static let limit = 14_000

    private(set) var bytes: [UInt8] = []
    private var synced: [UInt8] = []
    /// One bit for each value.
    private var possible = [UInt64](repeating: 1, count: limit)
    private var isSynced = true

    mutating func sync() {
        synced = bytes
        isSynced = true
        possible = (0..<Self.limit).map { $0 < bytes.count ? 1 << UInt64(bytes[$0]) : 1 }
    }

    mutating func truncate(to size: Int) {
        for index in size..<max(bytes.count, size) { possible[index] |= 1 }
        isSynced = isSynced && size == bytes.count
        bytes.removeLast(bytes.count - size)
    }

    mutating func write(_ value: UInt8, _ range: Range<Int>) {
        isSynced = false
        if bytes.count < range.upperBound { bytes += [UInt8](repeating: 0, count: range.upperBound - bytes.count) }
        for index in range {
            bytes[index] = value
            possible[index] |= 1 << UInt64(value)
        }
    }

    func fault(in left: [UInt8]) -> String? {
        if isSynced, left != synced { return "what was synced is not there" }
        guard let index = left.indices.first(where: { possible[$0] & (1 << UInt64(left[$0])) == 0 }) else { return nil }
        return "byte \(index) is \(left[index])"
    }
}

@Suite struct DiskFaults {
    private func withHost(seed: UInt64 = 1, _ body: (SimulatedHost) throws -> Void) rethrows {
        let world = SimulatedWorld(seed: seed)
        defer { world.end() }
        try body(world.makeHost("a"))
    }

    @Test func afterAFailedSyncALaterSuccessMeansNothingForWhatWasWritten() throws {
        for seed: UInt64 in 1...30 {
            try withHost(seed: seed) { host in
                let file = try host.disk.open("/f", .create)
                try host.disk.syncDirectory("/")
                try bytes("first").withUnsafeBytes { try file.write($0, at: 0) }
                host.files.fail(.sync, of: "/f", with: .inputOutput)
                #expect(throws: SystemError.self) { try file.sync() }
                try file.sync()
                try bytes("second").withUnsafeBytes { try file.write($0, at: 8192) }
                try file.sync()
                #expect(try text(host.disk, "/f").hasPrefix("first"), "programs still see it")
                host.powerCut()
                let left = try #require(try host.restart().disk.contents("/f"))
                #expect(left.prefix(8192).allSatisfy { $0 == 0 }, "the disk never had it")
                #expect(Array(left.dropFirst(8192)) == bytes("second"))
            }
        }
    }

    @Test func afterAFailedSyncMemoryPressureBringsTheOldBytesBack() throws {
        try withHost { host in
            try host.disk.write("/f", bytes("old"), sync: true)
            let file = try host.disk.open("/f", .readWrite)
            try bytes("new").withUnsafeBytes { try file.write($0, at: 0) }
            host.files.fail(.sync, with: .inputOutput)
            #expect(throws: SystemError.self) { try file.sync() }
            #expect(try text(host.disk, "/f") == "new")
            host.files.dropCaches()
            #expect(try text(host.disk, "/f") == "old")
        }
    }

    @Test func aFullDiskTakesWhatFitsAndSaysNoSpace() throws {
        try withHost { host in
            host.files.capacityBytes = 10 * 4096
            let file = try host.disk.open("/f", .create)
            let content = [UInt8](repeating: 7, count: 8 * 4096)
            try content.withUnsafeBytes { try file.write($0, at: 0) }
            #expect(try host.disk.space("/").availableBytes == 2 * 4096)
            #expect { try content.withUnsafeBytes { try file.write($0, at: 8 * 4096) } } throws: {
                ($0 as? SystemError)?.kind == .noSpace && ($0 as? SystemError)?.code == 28
            }
            #expect(try file.size() == 10 * 4096)
            #expect { try file.allocate(11 * 4096) } throws: { ($0 as? SystemError)?.kind == .noSpace }
            try content.withUnsafeBytes { try file.write($0, at: 4096) }
            try host.disk.remove("/f")
            #expect(try host.disk.space("/").availableBytes == 0, "an open file keeps its space")
            file.close()
            #expect(try host.disk.space("/").availableBytes == 10 * 4096)
        }
    }

    @Test func theSpaceOfAKilledProcessesOpenFilesComesBack() throws {
        try withHost { host in
            try host.disk.write("/f", [UInt8](repeating: 7, count: 4096))
            let file = try host.disk.open("/f", .read)
            try host.disk.remove("/f")
            #expect(host.files.usedBytes == 4096)
            host.kill()
            #expect(host.files.usedBytes == 0)
            file.close()
            #expect(host.files.usedBytes == 0)
        }
    }

    @Test func injectedFaultsHitTheCallsTheyAreMeantForAndNoOthers() throws {
        try withHost { host in
            host.files.fail(.write, of: "b", with: .inputOutput, skip: 1, times: 2)
            try host.disk.write("/a", [1])
            try host.disk.write("/b", [1])
            #expect(throws: SystemError.self) { try host.disk.write("/b", [2, 3]) }
            try host.disk.write("/a", [1])
            #expect(throws: SystemError.self) { try host.disk.write("/b", [2, 3]) }
            try host.disk.write("/b", [4])
            host.files.fail(.rename, with: .permissionDenied)
            host.files.heal()
            try host.disk.rename("/b", to: "/c")
        }
    }

    @Test func aFailingWriteMayHaveWrittenAnyPart() throws {
        var sizes: Set<Int64> = []
        for seed: UInt64 in 1...60 {
            try withHost(seed: seed) { host in
                host.files.fail(.write, with: .inputOutput)
                #expect(throws: SystemError.self) { try host.disk.write("/f", [1, 2, 3, 4]) }
                sizes.insert(try #require(try host.disk.status("/f")).size)
            }
        }
        #expect(sizes == [0, 1, 2, 3, 4])
    }

    @Test func damagedBytesAreReadDamagedAndUnreadableOnesNotAtAll() throws {
        try withHost { host in
            try host.disk.write("/f", [UInt8](repeating: 0, count: 10_000), sync: true)
            host.files.flipBits("/f", in: 5000..<5001)
            let content = try #require(try host.disk.contents("/f"))
            #expect(content.indices.filter { content[$0] != 0 } == [5000])
            #expect(content[5000].nonzeroBitCount == 1)
            #expect(host.files.durableBytes("/f") == nil, "its name is not durable")
            try host.disk.syncDirectory("/")
            #expect(host.files.durableBytes("/f") == content)
            host.files.makeUnreadable("/f", 9000..<9001)
            let file = try host.disk.open("/f", .read)
            var buffer = [UInt8](repeating: 0, count: 1000)
            #expect(try buffer.withUnsafeMutableBytes { try file.read(into: $0, at: 8000) } == 1000)
            #expect { try buffer.withUnsafeMutableBytes { try file.read(into: $0, at: 8001) } } throws: {
                ($0 as? SystemError)?.kind == .inputOutput
            }
        }
    }

    @Test func aBitFlippedInAHoleIsFound() throws {
        try withHost { host in
            let file = try host.disk.open("/f", .create)
            try file.allocate(10_000)
            try file.sync()
            host.files.flipBits("/f", in: 4096..<8192)
            #expect(try host.disk.contents("/f")?.count { $0 != 0 } == 1)
        }
    }

    @Test func coldPagesAreReadOffTheCacheOnlyAfterARead() throws {
        try withHost { host in
            host.files.evictionOneIn = 0
            try host.disk.write("/f", [UInt8](repeating: 3, count: 10_000), sync: true)
            let file = try host.disk.open("/f", .read)
            var buffer = [UInt8](repeating: 0, count: 100)
            func cached(_ offset: Int64) throws -> Int? {
                try buffer.withUnsafeMutableBytes { try file.readCached(into: $0, at: offset) }
            }
            #expect(try cached(5000) == 100)
            host.files.dropCaches()
            #expect(try cached(5000) == nil)
            #expect(try cached(50_000) == 0, "there is nothing to wait for beyond the end")
            #expect(try buffer.withUnsafeMutableBytes { try file.read(into: $0, at: 5000) } == 100)
            #expect(try cached(5000) == 100)
            #expect(try cached(0) == nil)
        }
    }

    @Test func aPreallocatedFileCostsNoMemoryToSpeakOf() throws {
        try withHost { host in
            for index in 0..<2_000 {
                let file = try host.disk.open("/index-\(index)", .create)
                try file.allocate(10 << 20)
                try [UInt8](repeating: 1, count: 8).withUnsafeBytes { try file.write($0, at: 0) }
                try file.sync()
            }
            // 20 GiB of zeros: only a machine with as much memory could hold them
            #expect(host.files.usedBytes == 2_000 * (10 << 20))
        }
    }

    @Test func aSlowSyncHoldsItsLaneAndNotTheLoop() throws {
        let world = SimulatedWorld(seed: 1)
        defer { world.end() }
        let host = world.makeHost("a")
        let loop = host.loops[0]
        let lane = host.makeLane("sync", threads: 1, limit: 4)
        host.files.syncLatency = Latency(.seconds(3), .seconds(3))
        let synced = Box<Int64?>(nil)
        let ticked = Box<Int64?>(nil)
        loop.execute {
            _ = lane.submit({ try? host.disk.syncFileSystem("/") }, on: loop) { _ in synced.value = world.now.milliseconds }
            loop.schedule(after: .milliseconds(1)) { ticked.value = world.now.milliseconds }
        }
        world.runUntilIdle()
        #expect(synced.value == 3000)
        #expect(try #require(ticked.value) < 3)
    }
}

@Suite struct DiskNames {
    private func withDisk(_ body: (any Disk) throws -> Void) rethrows {
        let world = SimulatedWorld(seed: 1)
        defer { world.end() }
        try body(world.makeHost("a").disk)
    }

    private func kind(_ body: () throws -> Void) -> SystemError.Kind? {
        do { try body() } catch { return (error as? SystemError)?.kind }
        return nil
    }

    @Test func openModesAreKeptTo() throws {
        try withDisk { disk in
            #expect(kind { _ = try disk.open("/f", .read) } == .notFound)
            #expect(kind { _ = try disk.open("/f", .readWrite) } == .notFound)
            try disk.write("/f", bytes("abc"))
            #expect(kind { _ = try disk.open("/f", .createNew) } == .exists)
            #expect(try disk.open("/f", .create).size() == 3)
            #expect(try disk.open("/f", .truncate).size() == 0)
            let file = try disk.open("/f", .read)
            #expect(kind { try [1].withUnsafeBytes { try file.write($0, at: 0) } } == .other)
            file.close()
            #expect(kind { _ = try file.size() } == .other)
            #expect(kind { _ = try disk.open("/no/f", .create) } == .notFound)
            #expect(kind { _ = try disk.open("/f/g", .create) } == .notADirectory)
            #expect(kind { _ = try disk.open("/", .read) } == .isADirectory)
        }
    }

    @Test func foldersAreMadeListedSortedMovedAndRemoved() throws {
        try withDisk { disk in
            try disk.makeDirectory("/x/y/z")
            try disk.makeDirectory("x/./y/../y")
            for name in ["b", "a", "c"] { try disk.write("/x/y/\(name)", [1]) }
            #expect(try disk.list("/x/y") == ["a", "b", "c", "z"])
            #expect(kind { _ = try disk.list("/x/y/a") } == .notADirectory)
            #expect(kind { _ = try disk.list("/none") } == .notFound)
            #expect(kind { try disk.makeDirectory("/x/y/a/b") } == .notADirectory)
            #expect(kind { try disk.remove("/x/y") } == .isADirectory)
            #expect(kind { try disk.rename("/x", to: "/x/y/w") } == .other)
            try disk.makeDirectory("/full/of")
            #expect(kind { try disk.rename("/x", to: "/full") } == .notEmpty)
            try disk.rename("/x/y", to: "/full/of")
            #expect(try disk.list("/full/of") == ["a", "b", "c", "z"])
            #expect(try disk.status("/x/y") == nil)
            try disk.removeTree("/full")
            try disk.removeTree("/full")
            try disk.remove("/full")
            #expect(try disk.list("/") == ["x"])
        }
    }

    @Test func anOpenFileOutlivesItsName() throws {
        try withDisk { disk in
            try disk.write("/f", bytes("abc"))
            let file = try disk.open("/f", .readWrite)
            try disk.rename("/f", to: "/g")
            try disk.write("/h", bytes("other"))
            try disk.rename("/h", to: "/g")
            var buffer = [UInt8](repeating: 0, count: 10)
            #expect(try buffer.withUnsafeMutableBytes { try file.read(into: $0, at: 0) } == 3)
            #expect(try text(disk, "/g") == "other")
        }
    }

    @Test func tooManyOpenFilesAreRefused() throws {
        let world = SimulatedWorld(seed: 1)
        defer { world.end() }
        let host = world.makeHost("a")
        host.files.openFilesLimit = 2
        let first = try host.disk.open("/a", .create)
        let second = try host.disk.open("/b", .create)
        #expect(kind { _ = try host.disk.open("/c", .create) } == .tooManyFiles)
        first.close()
        _ = try host.disk.open("/c", .create)
        second.close()
    }

    @Test func aLockIsOneProcessesUntilItClosesItOrDies() throws {
        let world = SimulatedWorld(seed: 1)
        defer { world.end() }
        let a = world.makeHost("a")
        let b = world.makeProcess("b", beside: a)
        let held = try #require(try a.disk.lock("/.lock"))
        #expect(try b.disk.lock("/.lock") == nil)
        #expect(try a.disk.lock("/.lock") == nil, "the process that holds it does not get it twice")
        held.close()
        held.close()
        let taken = try #require(try b.disk.lock("/.lock"))
        #expect(try a.disk.lock("/.lock") == nil)
        b.kill()
        let again = try #require(try a.disk.lock("/.lock"))
        taken.close()
        #expect(try b.restart().disk.lock("/.lock") == nil, "a dead process's close releases nothing")
        again.close()
    }

    @Test func changesCarryTheVirtualTime() throws {
        let world = SimulatedWorld(seed: 1)
        defer { world.end() }
        let host = world.makeHost("a")
        world.run(for: .seconds(5))
        try host.disk.write("/f", [1])
        #expect(try host.disk.status("/f")?.modifiedMilliseconds == host.clock.wallMilliseconds)
        world.run(for: .seconds(5))
        #expect(try host.disk.status("/f")?.modifiedMilliseconds == host.clock.wallMilliseconds - 5_000)
    }
}
