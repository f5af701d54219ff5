import MartletBasics
import MartletLog
import MartletReactor
import MartletSimulation
import Testing

@Suite struct OpenFiles {
    private func bench(files count: Int, limit: Int) throws -> (
        SimulatedWorld, SimulatedHost, DescriptorCache, [CachedFile]
    ) {
        let world = SimulatedWorld(seed: 1)
        let host = world.makeHost("broker")
        for index in 0..<count { try host.disk.open("/\(index).log", .create).close() }
        return (
            world, host, DescriptorCache(disk: host.disk, limit: limit), (0..<count).map { CachedFile("/\($0).log") }
        )
    }

    @Test func theLeastRecentlyUsedGivesWay() throws {
        let (world, _, cache, files) = try bench(files: 4, limit: 3)
        defer { world.end() }
        for index in [0, 1, 2, 0, 3] { _ = try cache.file(files[index]) }
        #expect(cache.openCount == 3)
        #expect(cache.statistics.opened == 4)
        for index in [0, 2, 3] { _ = try cache.file(files[index]) }
        #expect(cache.statistics.opened == 4, "only file 1 was closed")
        _ = try cache.file(files[1])
        #expect(cache.statistics.opened == 5)
    }

    @Test func aFileInUseStaysOpenWhenItIsDropped() throws {
        let (world, _, cache, files) = try bench(files: 2, limit: 1)
        defer { world.end() }
        let held = try cache.file(files[0])
        _ = try cache.file(files[1])
        #expect(cache.openCount == 1)
        #expect(try held.size() == 0)
    }

    @Test func tenThousandFilesRunWithinAHundredDescriptors() throws {
        let (world, host, cache, files) = try bench(files: 1000, limit: 100)
        defer { world.end() }
        host.files.openFilesLimit = 101
        var random = SeededRandom(seed: 3)
        for _ in 0..<20_000 {
            let file = files[random.below(files.count)]
            switch random.below(10) {
            case 0: cache.forget(file)
            default: #expect(try cache.file(file).path == cache.path(of: file))
            }
            #expect(cache.openCount <= 100)
        }
    }

    @Test func aProcessShortOfDescriptorsMakesTheCacheGiveWay() throws {
        let (world, host, cache, files) = try bench(files: 20, limit: 1000)
        defer { world.end() }
        host.files.openFilesLimit = 8
        for file in files { _ = try cache.file(file) }
        #expect(cache.openCount <= 8)
    }

    @Test func aRenamedFileIsFoundAgain() throws {
        let (world, host, cache, files) = try bench(files: 1, limit: 1)
        defer { world.end() }
        try host.disk.rename("/0.log", to: "/0.log.deleted")
        cache.renamed(files[0], to: "/0.log.deleted")
        _ = try cache.file(files[0])
        cache.forget(files[0])
        #expect(cache.openCount == 0)
    }

    @Test func aMissingFileIsAnErrorAndNotRemembered() throws {
        let (world, _, cache, _) = try bench(files: 0, limit: 1)
        defer { world.end() }
        #expect(throws: SystemError.self) { try cache.file(CachedFile("/none")) }
        #expect(cache.openCount == 0)
    }
}
