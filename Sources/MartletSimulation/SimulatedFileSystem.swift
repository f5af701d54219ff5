package import MartletBasics
package import MartletReactor

package enum DiskOperation: UInt8, Sendable {
    case open, read, write, sync, truncate, allocate, list, status
    case makeDirectory, rename, remove, syncDirectory, syncFileSystem, space, lock

    /// Whether it changes what the disk holds, or makes it durable.
    var changes: Bool {
        switch self {
        case .open, .read, .list, .status, .space, .lock: false
        default: true
        }
    }

    var call: StaticString {
        switch self {
        case .open: "open"
        case .read: "pread"
        case .write: "pwritev"
        case .sync: "fdatasync"
        case .truncate: "ftruncate"
        case .allocate: "fallocate"
        case .list: "readdir"
        case .status: "stat"
        case .makeDirectory: "mkdir"
        case .rename: "rename"
        case .remove: "unlink"
        case .syncDirectory: "fsync"
        case .syncFileSystem: "syncfs"
        case .space: "statvfs"
        case .lock: "fcntl"
        }
    }
}

/// How long something takes: mostly between two bounds, once in so many times up to a third.
package struct Latency: Sendable {
    package var least: Interval
    package var most: Interval
    /// One in this many is slow; 0 for none.
    package var slowOneIn: Int
    package var slowest: Interval

    package init(_ least: Interval, _ most: Interval, slowOneIn: Int = 0, slowest: Interval = .zero) {
        self.least = least
        self.most = most
        self.slowOneIn = slowOneIn
        self.slowest = slowest
    }

    func draw(_ random: inout SeededRandom) -> Int64 {
        let isSlow = slowOneIn > 0 && random.chance(1, in: slowOneIn)
        let least = isSlow ? most.nanoseconds : least.nanoseconds
        let most = isSlow ? max(slowest.nanoseconds, least) : max(self.most.nanoseconds, least)
        return Int64.random(in: least...most, using: &random)
    }
}

/// What a simulated machine's disk holds, and the faults that a test gives it. Processes come and go; this stays.
package final class SimulatedFileSystem: @unchecked Sendable {
    private struct Fault {
        var operation: DiskOperation
        var path: String
        var kind: SystemError.Kind
        var skip: Int
        var times: Int
    }

    struct HeldLock {
        var inode: Inode
        var process: SimulatedProcess
    }

    /// How long calls take on a lane. On a loop they take no time.
    package var syncLatency = Latency(.microseconds(150), .microseconds(900), slowOneIn: 32, slowest: .milliseconds(20))
    package var readLatency = Latency(.microseconds(2), .microseconds(400), slowOneIn: 64, slowest: .milliseconds(8))
    package var writeLatency = Latency(.microseconds(2), .microseconds(40), slowOneIn: 64, slowest: .milliseconds(4))
    /// Writes that would need more than this fail, after the part that still fits.
    package var capacityBytes: Int64 = 1 << 40
    /// One in this many reads of the page cache finds that the page has just been evicted; 0 for none.
    package var evictionOneIn = 64
    /// One in this many reads and writes moves fewer bytes than it was asked to, as the system may; 0 for none.
    package var shortOneIn = 0
    /// A process cannot have more open files than this.
    package var openFilesLimit = 100_000
    /// Told of each call that runs into a fault, or finds no room.
    package var onFault: ((DiskOperation, _ path: String, SystemError.Kind) -> Void)?
    /// How many calls took time, and how many reads found something that was not in the page cache.
    package private(set) var timedCallsCount = 0
    package internal(set) var coldReadsCount = 0
    /// How many reads and writes moved fewer bytes than they were asked to.
    package private(set) var shortTransfersCount = 0

    package let name: String
    package private(set) var usedBytes: Int64 = 0
    var tree = FileTree()
    var locks: [HeldLock] = []
    var random: SeededRandom
    let subject: Subject
    private let world: SimulatedWorld
    private var faults: [Fault] = []

    init(world: SimulatedWorld, name: String) {
        self.world = world
        self.name = name
        random = world.makeRandom("disk of \(name)")
        subject = Subject("\(name)/disk")
    }

    // MARK: Faults

    /// The next calls of this kind fail, where the path contains the text: `skip` of them pass, then `times` fail. A
    /// failing write has written some part; a failing sync drops what it was to make durable.
    package func fail(
        _ operation: DiskOperation, of path: String = "", with kind: SystemError.Kind, skip: Int = 0, times: Int = 1
    ) {
        faults.append(Fault(operation: operation, path: path, kind: kind, skip: skip, times: times))
    }

    /// Reads that touch these bytes fail.
    package func makeUnreadable(_ path: String, _ range: Range<Int64>) {
        file(path).unreadable.append(range)
    }

    /// Damages the stored bytes: turns over so many bits in the range.
    package func flipBits(_ path: String, in range: Range<Int64>, count: Int = 1) {
        let inode = file(path)
        world.note(.fault, subject, inode.number)
        for _ in 0..<count {
            inode.content.flipBit(random.below(8), at: Int64.random(in: range, using: &random))
        }
    }

    /// The page cache lets go of what is clean, so that reads wait for the disk.
    package func dropCaches() { tree.forEachFile { $0.content.dropCaches() } }

    /// No faults from now on; damage done stays.
    package func heal() {
        faults = []
        tree.forEachFile { $0.unreadable = [] }
    }

    // MARK: What a test looks at

    /// The bytes of a file as a power cut would surely leave them; nil where there is no such file for certain.
    package func durableBytes(_ path: String) -> [UInt8]? {
        var inode = tree.root
        for part in FileTree.parts(path) {
            guard let next = inode.durableEntries[String(part)] else { return nil }
            inode = next
        }
        guard !inode.isDirectory else { return nil }
        var bytes = [UInt8](repeating: 0, count: Int(inode.content.durableSize))
        bytes.withUnsafeMutableBytes { _ = inode.content.readDurable(into: $0) }
        return bytes
    }

    private func file(_ path: String) -> Inode {
        guard case .inode(let inode) = tree.find(path), !inode.isDirectory else {
            preconditionFailure("the test damages \(path), which is no file")
        }
        return inode
    }

    // MARK: For the disk of a process

    /// The fault that this call runs into, if any.
    func takeFault(_ operation: DiskOperation, _ path: String) -> SystemError.Kind? {
        for index in faults.indices where faults[index].operation == operation {
            guard faults[index].path.isEmpty || path.contains(faults[index].path) else { continue }
            if faults[index].skip > 0 {
                faults[index].skip -= 1
                continue
            }
            let kind = faults[index].kind
            faults[index].times -= 1
            if faults[index].times <= 0 { faults.remove(at: index) }
            world.note(.fault, subject, UInt64(operation.rawValue))
            onFault?(operation, path, kind)
            return kind
        }
        return nil
    }

    /// A call for which there is no room.
    func foundNoRoom(_ operation: DiskOperation, _ path: String) { onFault?(operation, path, .noSpace) }

    /// How many of so many bytes one call moves.
    func movedCount(of count: Int) -> Int {
        guard shortOneIn > 0, count > 1, random.chance(1, in: shortOneIn) else { return count }
        shortTransfersCount += 1
        return 1 + random.below(count - 1)
    }

    /// Charges the lane that the call is made on.
    func spend(_ latency: Latency) {
        guard let cost = world.laneCost else { return }
        timedCallsCount += 1
        world.laneCost = cost + latency.draw(&random)
    }

    /// Pages that power cuts left with some sectors new and some old.
    package private(set) var tornPagesCount = 0

    func losePower() {
        tree.losePower(&random)
        tree.forEachFile { tornPagesCount += $0.content.takeTornPages() }
        locks = []
        usedBytes = 0
        tree.forEachFile { usedBytes += $0.blockBytes }
    }

    /// As the system does at the end of a process.
    func closeAll(of process: SimulatedProcess) {
        locks.removeAll { $0.process === process }
        // sums do not depend on the order
        for inode in process.openInodes.values {
            inode.openCount -= 1
            releaseSpace(inode)
        }
        process.openInodes = [:]
    }

    /// Changes a file and keeps count of the space.
    func resizing<R>(_ inode: Inode, at wallMilliseconds: Int64, _ body: (Inode) -> R) -> R {
        let before = inode.blockBytes
        let result = body(inode)
        usedBytes += inode.blockBytes - before
        inode.modifiedMilliseconds = wallMilliseconds
        return result
    }

    /// A file without a name and without an open file gives its space back.
    func releaseSpace(_ inode: Inode) {
        if !inode.isNamed, inode.openCount == 0 { usedBytes -= inode.blockBytes }
    }

    /// How many bytes from this offset on fit on the disk.
    func roomBytes(_ inode: Inode, at offset: Int64) -> Int64 {
        let free = max(capacityBytes - usedBytes, 0) / Int64(Page.size) * Int64(Page.size)
        return inode.blockBytes + free - offset
    }
}
