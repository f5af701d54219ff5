import Glibc
import MartletBasics
import MartletReactor
import Testing

extension DiskFile {
    func write(_ bytes: [UInt8], at offset: Int64 = 0) throws {
        try bytes.withUnsafeBytes { try write($0, at: offset) }
    }

    func bytes(_ count: Int, at offset: Int64 = 0) throws -> [UInt8] {
        var bytes = [UInt8](repeating: 0xEE, count: count)
        let count = try bytes.withUnsafeMutableBytes { try self.read(into: $0, at: offset) }
        return Array(bytes[..<count])
    }
}

@Suite(.timeLimit(.minutes(1))) struct FileTests {
    @Test func eachModeOpensWhatItSays() throws {
        try withFolder { folder, disk in
            let path = folder + "/file"
            #expect(kind { _ = try disk.open(path, .read) } == .notFound)
            #expect(kind { _ = try disk.open(path, .readWrite) } == .notFound)
            try disk.open(path, .createNew).write([1, 2, 3])
            #expect(kind { _ = try disk.open(path, .createNew) } == .exists)
            #expect(try disk.open(path, .create).bytes(9) == [1, 2, 3])
            #expect(try disk.open(path, .readWrite).bytes(9) == [1, 2, 3])
            let reader = try disk.open(path, .read)
            #expect(try reader.bytes(9) == [1, 2, 3])
            #expect(throws: SystemError.self) { try reader.write([4]) }
            #expect(try disk.open(path, .truncate).size() == 0)
            #expect(kind { _ = try disk.open(folder, .readWrite) } == .isADirectory)
            #expect(kind { _ = try disk.open(path + "/under", .read) } == .notADirectory)
        }
    }

    private func kind(_ body: () throws -> Void) -> SystemError.Kind? {
        do { try body() } catch { return (error as? SystemError)?.kind }
        return nil
    }

    @Test func anErrorSaysWhatWasAskedOfWhatAndWhy() throws {
        try withFolder { folder, disk in
            let error = #expect(throws: SystemError.self) { _ = try disk.open(folder + "/missing", .read) }
            #expect(error?.description == "open \(folder)/missing: No such file or directory")
            #expect(error?.code == ENOENT)
        }
    }

    @Test func aReadPastTheEndGivesWhatThereIs() throws {
        try withFolder { folder, disk in
            let file = try disk.open(folder + "/file", .create)
            try file.write(pattern(1000))
            #expect(try file.bytes(600, at: 600) == Array(pattern(1000)[600...]))
            #expect(try file.bytes(10, at: 1000) == [])
            #expect(try file.bytes(10, at: 5000) == [])
        }
    }

    @Test func manyPiecesAreWrittenOneAfterTheOtherAlsoBeyondWhatOneCallTakes() throws {
        try withFolder { folder, disk in
            let file = try disk.open(folder + "/file", .create)
            var random = SeededRandom(seed: 3)
            let all = pattern(60_000)
            try all.withUnsafeBytes { all in
                var pieces: [UnsafeRawBufferPointer] = []
                var start = 0
                while start < all.count {
                    let end = min(all.count, start + random.below(30))
                    pieces.append(UnsafeRawBufferPointer(rebasing: all[start..<end]))
                    start = end
                }
                #expect(pieces.count > 2048)
                #expect(pieces.contains { $0.isEmpty })
                try file.write(pieces, at: 17)
            }
            #expect(try file.size() == 60_017)
            #expect(try file.bytes(60_000, at: 17) == all)
            try file.write([] as [UnsafeRawBufferPointer], at: 0)
            #expect(try file.bytes(17) == [UInt8](repeating: 0, count: 17))
        }
    }

    @Test func aCachedReadGivesTheBytesOrSaysThatItWouldWait() throws {
        try withFolder { folder, disk in
            let file = try disk.open(folder + "/file", .create)
            let all = pattern(300_000)
            try file.write(all)
            var bytes = [UInt8](repeating: 0, count: 400_000)
            // just written, so in the page cache: nil is only for file systems that cannot tell
            let hot = try bytes.withUnsafeMutableBytes { try file.readCached(into: $0, at: 0) }
            if let hot {
                #expect(hot == 300_000)
                #expect(Array(bytes[..<300_000]) == all)
            }
            try file.sync()
            let descriptor = open(folder + "/file", O_RDONLY)
            posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED)
            close(descriptor)
            var cold = [UInt8](repeating: 0, count: 300_000)
            if let count = try cold.withUnsafeMutableBytes({ try file.readCached(into: $0, at: 0) }) {
                // a file system may keep its pages against advice; then they are the right ones
                #expect(Array(cold[..<count]) == all)
            }
            #expect(try file.bytes(300_000) == all)
        }
    }

    @Test func truncatingAndAllocatingSetTheSize() throws {
        try withFolder { folder, disk in
            let file = try disk.open(folder + "/file", .create)
            try file.write(pattern(100))
            try file.truncate(to: 40)
            #expect(try file.size() == 40)
            try file.allocate(10_000)
            #expect(try file.size() == 10_000)
            #expect(try file.bytes(100) == Array(pattern(100)[..<40]) + [UInt8](repeating: 0, count: 60))
            try file.allocate(0)
            // a smaller allocation takes nothing away
            try file.allocate(10)
            #expect(try file.size() == 10_000)
            try file.sync()
        }
    }

    @Test func aFullDiskIsToldAsSuch() throws {
        let file = try RealDisk().open("/dev/full", .readWrite)
        #expect(kind { try file.write([1]) } == .noSpace)
        #expect(
            kind {
                try [UInt8](repeating: 1, count: 8).withUnsafeBytes { bytes in
                    try file.write([UnsafeRawBufferPointer(rebasing: bytes[..<4]), bytes], at: 0)
                }
            } == .noSpace)
    }

    @Test func aClosedFileRefusesEverything() throws {
        try withFolder { folder, disk in
            let file = try disk.open(folder + "/file", .create)
            file.close()
            file.close()
            #expect(throws: SystemError.self) { try file.write([1]) }
            #expect(throws: SystemError.self) { _ = try file.bytes(1) }
            #expect(throws: SystemError.self) { try file.sync() }
            #expect(throws: SystemError.self) { _ = try file.size() }
        }
    }

    @Test func aFileClosedUnderAReaderNeverShowsAnotherFilesBytes() async throws {
        let disk = RealDisk()
        let paths = try withFolder { folder, _ in ["a", "b"].map { folder + "-close-" + $0 } }
        defer { for path in paths { try? disk.remove(path) } }
        for (index, path) in paths.enumerated() {
            try disk.open(path, .truncate).write([UInt8](repeating: UInt8(index + 1), count: 4096))
        }
        for _ in 0..<300 {
            let first = try disk.open(paths[0], .read)
            let reader = Task.detached { () -> Bool in
                while let bytes = try? first.bytes(4096) {
                    guard bytes.count == 4096, bytes.allSatisfy({ $0 == 1 }) else { return false }
                }
                return true
            }
            for _ in 0..<3 { await Task.yield() }
            first.close()
            // likely to get the descriptor's number
            let second = try disk.open(paths[1], .read)
            #expect(await reader.value)
            second.close()
        }
    }

    @Test func foldersAreMadeListedAndRemovedAsATree() throws {
        try withFolder { folder, disk in
            let deep = folder + "/one/two/three"
            try disk.makeDirectory(deep)
            try disk.makeDirectory(deep)
            for name in ["b", "a", ".hidden", "ä"] { _ = try disk.open(folder + "/one/" + name, .create) }
            #expect(try disk.list(folder + "/one") == [".hidden", "a", "b", "two", "ä"])
            #expect(symlink("/tmp", folder + "/one/link") == 0)
            #expect(kind { try disk.makeDirectory(folder + "/one/a") } == .notADirectory)
            #expect(try disk.status(deep)?.isDirectory == true)
            #expect(try disk.status(folder + "/one/a/below") == nil)
            try disk.removeTree(folder + "/one")
            try disk.removeTree(folder + "/one")
            #expect(try disk.status(folder + "/one") == nil)
            // a link is removed, not what it points to
            #expect(try disk.status("/tmp")?.isDirectory == true)
            #expect(try disk.list(folder) == [])
            #expect(kind { _ = try disk.list(folder + "/one") } == .notFound)
        }
    }

    @Test func aRenameReplacesAndARemovalOfNothingIsFine() throws {
        try withFolder { folder, disk in
            try disk.open(folder + "/old", .create).write([1])
            try disk.open(folder + "/new", .create).write([2, 2])
            try disk.rename(folder + "/new", to: folder + "/old")
            try disk.syncDirectory(folder)
            try disk.syncFileSystem(folder)
            #expect(try disk.contents(folder + "/old") == [2, 2])
            #expect(try disk.contents(folder + "/new") == nil)
            try disk.remove(folder + "/old")
            try disk.remove(folder + "/old")
            #expect(kind { try disk.rename(folder + "/old", to: folder + "/x") } == .notFound)
            #expect(kind { try disk.syncDirectory(folder + "/old") } == .notFound)
            try disk.replace(folder + "/whole", with: [9, 9])
            #expect(try disk.contents(folder + "/whole") == [9, 9])
            #expect(try disk.list(folder) == ["whole"])
        }
    }

    @Test func statusAndSpaceTellSizes() throws {
        try withFolder { folder, disk in
            try disk.open(folder + "/file", .create).write(pattern(123))
            let status = try #require(try disk.status(folder + "/file"))
            #expect(status.size == 123 && !status.isDirectory)
            #expect(abs(status.modifiedMilliseconds - RealClock().wallMilliseconds) < 60_000)
            let space = try disk.space(folder)
            #expect(space.totalBytes > 0 && space.availableBytes <= space.totalBytes)
            #expect(kind { _ = try disk.space(folder + "/none") } == .notFound)
        }
    }

    @Test func aLockExcludesThisProcessUntilItIsClosed() throws {
        try withFolder { folder, disk in
            let first = try #require(try disk.lock(folder + "/.lock"))
            #expect(try disk.lock(folder + "/.lock") == nil)
            first.close()
            #expect(try disk.lock(folder + "/.lock") != nil)
            // released with the value that nobody kept
            #expect(try disk.lock(folder + "/.lock") != nil)
        }
    }

    /// What Kafka does: `fcntl(F_SETLK)` on the whole file, from another process.
    private static let tryLock = """
        import fcntl, sys
        f = open(sys.argv[1], "r+b")
        try:
            fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
            print("got", flush=True)
            if len(sys.argv) > 2: open(sys.argv[2], "rb").read()
        except OSError:
            print("refused", flush=True)
        """

    private func python(_ arguments: String...) throws -> UnsafeMutablePointer<FILE> {
        let quoted = ([Self.tryLock] + arguments).map { "'\($0)'" }.joined(separator: " ")
        guard let pipe = popen("python3 -c " + quoted, "r") else { throw SystemError(errno: errno, "popen", "python3") }
        return pipe
    }

    private func line(_ pipe: UnsafeMutablePointer<FILE>) -> String {
        var text = [CChar](repeating: 0, count: 64)
        guard fgets(&text, 64, pipe) != nil else { return "" }
        return text.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
    }

    @Test func aLockHoldsAgainstAnotherProcessThoughTheFileIsOpenedAndClosedMeanwhile() throws {
        try withFolder { folder, disk in
            let lock = try #require(try disk.lock(folder + "/.lock"))
            #expect(try disk.contents(folder + "/.lock") == [])
            let refused = try python(folder + "/.lock")
            #expect(line(refused) == "refused\n")
            pclose(refused)
            lock.close()
            let granted = try python(folder + "/.lock")
            #expect(line(granted) == "got\n")
            pclose(granted)
        }
    }

    @Test func aLockOfAnotherProcessIsSeenAndItsEndToo() throws {
        try withFolder { folder, disk in
            _ = try disk.open(folder + "/.lock", .create)
            // the other process holds its lock until this pipe is opened and closed
            #expect(mkfifo(folder + "/release", 0o600) == 0)
            let other = try python(folder + "/.lock", folder + "/release")
            #expect(line(other) == "got\n")
            #expect(try disk.lock(folder + "/.lock") == nil)
            close(open(folder + "/release", O_WRONLY))
            pclose(other)
            #expect(try disk.lock(folder + "/.lock") != nil)
        }
    }
}
