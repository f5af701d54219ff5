internal import MartletBasics

/// One page of a simulated file. A page that is not dirty may be shared by what the file is and what the disk has of
/// it.
final class Page {
    static let size = 4096
    /// A disk writes a sector whole or not at all.
    static let sectorSize = 512

    let bytes: UnsafeMutableRawPointer
    /// Changed, and not yet on its way to the disk.
    var isDirty = false
    /// Not in the page cache: reading it takes the disk.
    var isCold = false

    init(copying other: Page?) {
        bytes = .allocate(byteCount: Page.size, alignment: 16)
        if let other {
            bytes.copyMemory(from: other.bytes, byteCount: Page.size)
        } else {
            bytes.initializeMemory(as: UInt8.self, repeating: 0, count: Page.size)
        }
    }

    deinit { bytes.deallocate() }
}

/// What a file holds, twice: as programs see it (the page cache), and as the disk has it.
///
///     current   [A'][B ][C'][D']      A', C' dirty; D' was dirty when a sync failed
///     durable   [A ][B ]              B one page object in both
///
/// Programs still see D', but it counts as clean: unless it is written again, no sync takes it to the disk.
/// Pages of zeros that nobody wrote are nil, and what lies past the arrays is zero too: a preallocated index costs
/// nothing.
struct PagedContent {
    private(set) var size: Int64 = 0
    private(set) var durableSize: Int64 = 0
    private var current: ContiguousArray<Page?> = []
    private var durable: ContiguousArray<Page?> = []
    /// In the order in which they became dirty; may name pages that were cut off since.
    private var dirty: ContiguousArray<Int> = []
    /// The least size since the last sync: what the disk has beyond it is no longer of this file.
    private var cutSize: Int64?
    private var tornPagesCount = 0

    var isSynced: Bool { dirty.isEmpty && size == durableSize && cutSize == nil }

    static func pagesCount(_ size: Int64) -> Int { Int((size + Int64(Page.size) - 1) / Int64(Page.size)) }

    // MARK: Reading and writing

    /// Reads what lies within the file; how many bytes. Warms what it reads.
    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: Int64) -> Int {
        Self.read(into: buffer, at: offset, pages: current, size: size)
    }

    func readDurable(into buffer: UnsafeMutableRawBufferPointer) -> Int {
        Self.read(into: buffer, at: 0, pages: durable, size: durableSize)
    }

    private static func read(
        into buffer: UnsafeMutableRawBufferPointer, at offset: Int64, pages: ContiguousArray<Page?>, size: Int64
    ) -> Int {
        guard let base = buffer.baseAddress, offset < size else { return 0 }
        let total = Int(min(Int64(buffer.count), size - offset))
        var done = 0
        while done < total {
            let position = Int(offset) + done
            let within = position % Page.size
            let count = min(Page.size - within, total - done)
            let index = position / Page.size
            if index < pages.count, let page = pages[index] {
                page.isCold = false
                (base + done).copyMemory(from: page.bytes + within, byteCount: count)
            } else {
                (base + done).initializeMemory(as: UInt8.self, repeating: 0, count: count)
            }
            done += count
        }
        return total
    }

    func isCold(_ count: Int, at offset: Int64) -> Bool {
        guard offset < size, count > 0 else { return false }
        let end = min(offset + Int64(count), size)
        let first = Int(offset) / Page.size
        for index in first..<min(Self.pagesCount(end), max(current.count, first)) {
            if let page = current[index], page.isCold { return true }
        }
        return false
    }

    mutating func write(_ bytes: UnsafeRawBufferPointer, at offset: Int64) {
        guard let base = bytes.baseAddress, bytes.count > 0 else { return }
        var done = 0
        while done < bytes.count {
            let position = Int(offset) + done
            let within = position % Page.size
            let count = min(Page.size - within, bytes.count - done)
            (dirtyPage(position / Page.size).bytes + within).copyMemory(from: base + done, byteCount: count)
            done += count
        }
        size = max(size, offset + Int64(bytes.count))
    }

    mutating func grow(to newSize: Int64) { size = max(size, newSize) }

    mutating func truncate(to newSize: Int64) {
        guard newSize < size else { return grow(to: newSize) }
        zeroTail(from: newSize)
        current.removeLast(max(current.count - Self.pagesCount(newSize), 0))
        size = newSize
        cutSize = min(cutSize ?? durableSize, newSize)
        if let cut = cutSize, cut >= durableSize { cutSize = nil }
    }

    private mutating func zeroTail(from newSize: Int64) {
        let within = Int(newSize) % Page.size
        let index = Int(newSize) / Page.size
        guard within > 0, index < current.count, current[index] != nil else { return }
        (dirtyPage(index).bytes + within).initializeMemory(as: UInt8.self, repeating: 0, count: Page.size - within)
    }

    private mutating func dirtyPage(_ index: Int) -> Page {
        while current.count <= index { current.append(nil) }
        if let page = current[index], page.isDirty { return page }
        let page = Page(copying: current[index])
        page.isDirty = true
        current[index] = page
        dirty.append(index)
        return page
    }

    // MARK: Durability

    mutating func sync() {
        cutDurable()
        for index in dirty where index < current.count {
            guard let page = current[index], page.isDirty else { continue }
            page.isDirty = false
            while durable.count <= index { durable.append(nil) }
            durable[index] = page
        }
        dirty.removeAll(keepingCapacity: dirty.count <= 64)
        durableSize = size
    }

    /// As Linux does: what was to be written counts as clean from now on, is still seen by programs, and is not on
    /// the disk.
    mutating func failSync() {
        for index in dirty where index < current.count { current[index]?.isDirty = false }
        dirty = []
    }

    /// The page cache lets go of what is not dirty. After a failed sync programs then see old bytes again.
    mutating func dropCaches() {
        let cut = cutSize.map(Self.pagesCount) ?? .max
        for index in current.indices where current[index]?.isDirty != true {
            current[index] = index < min(durable.count, cut) ? durable[index] : nil
            current[index]?.isCold = true
        }
    }

    private mutating func cutDurable() {
        guard let cut = cutSize else { return }
        durable.removeLast(max(durable.count - Self.pagesCount(cut), 0))
        cutSize = nil
    }

    /// What a power cut leaves: what was synced, and of the rest what the seed says, page by page, torn between
    /// sectors.
    mutating func losePower(_ random: inout SeededRandom) {
        if !isSynced { settle(&random) }
        current = durable
        size = durableSize
        dirty = []
        cutSize = nil
        for page in current { page?.isCold = true }
    }

    private mutating func settle(_ random: inout SeededRandom) {
        // a shortened file is shortened on the disk or not; if not, what was written behind the cut went elsewhere
        let cut = cutSize
        let isCutKept = cut == nil || random.chance(1, in: 2)
        if isCutKept { cutDurable() }
        let least = isCutKept ? cut ?? durableSize : durableSize
        let newSize = isCutKept ? sizeLeft(from: min(least, size), &random) : durableSize
        let pagesLimit = isCutKept ? Int.max : Int(cut ?? 0) / Page.size
        // some cuts come before the system wrote anything back, some after it wrote everything
        let mood = random.below(4)
        for index in dirty where index < current.count && index < pagesLimit {
            guard let page = current[index], page.isDirty else { continue }
            page.isDirty = false
            let fate = mood == 0 ? 0 : mood == 1 ? 7 : random.below(8)
            guard fate > 2 else { continue }
            while durable.count <= index { durable.append(nil) }
            if fate <= 3 { tornPagesCount += 1 }
            durable[index] = fate > 3 ? page : torn(from: durable[index], to: page, &random)
        }
        durable.removeLast(max(durable.count - Self.pagesCount(newSize), 0))
        let within = Int(newSize) % Page.size
        if newSize < size, within > 0, let last = durable.last, durable.count == Self.pagesCount(newSize), let last {
            let page = Page(copying: last)
            (page.bytes + within).initializeMemory(as: UInt8.self, repeating: 0, count: Page.size - within)
            durable[durable.count - 1] = page
        }
        durableSize = newSize
    }

    mutating func takeTornPages() -> Int {
        defer { tornPagesCount = 0 }
        return tornPagesCount
    }

    private func sizeLeft(from least: Int64, _ random: inout SeededRandom) -> Int64 {
        guard size > least else { return size }
        switch random.below(4) {
        case 0: return least
        case 1, 2: return size
        default: return Int64.random(in: least...size, using: &random)
        }
    }

    private func torn(from old: Page?, to new: Page, _ random: inout SeededRandom) -> Page {
        let page = Page(copying: old)
        for sector in stride(from: 0, to: Page.size, by: Page.sectorSize) where random.chance(1, in: 2) {
            (page.bytes + sector).copyMemory(from: new.bytes + sector, byteCount: Page.sectorSize)
        }
        return page
    }

    /// Turns one bit over, in the cache and on the disk.
    mutating func flipBit(_ bit: Int, at offset: Int64) {
        let index = Int(offset) / Page.size
        let within = Int(offset) % Page.size
        let mask = UInt8(1) << UInt8(bit & 7)
        let shown = index < current.count ? current[index] : nil
        let stored = index < durable.count ? durable[index] : nil
        if let shown { Self.flip(shown, within, mask) } else if offset < size { flipZero(index, within, mask) }
        if let stored, stored !== shown { Self.flip(stored, within, mask) }
    }

    private static func flip(_ page: Page, _ within: Int, _ mask: UInt8) {
        let byte = page.bytes.load(fromByteOffset: within, as: UInt8.self)
        page.bytes.storeBytes(of: byte ^ mask, toByteOffset: within, as: UInt8.self)
    }

    /// A page that nobody wrote is damaged: it becomes one, on the disk too where the file reaches that far there.
    private mutating func flipZero(_ index: Int, _ within: Int, _ mask: UInt8) {
        let page = Page(copying: nil)
        Self.flip(page, within, mask)
        while current.count <= index { current.append(nil) }
        current[index] = page
        guard index < Self.pagesCount(durableSize), cutSize == nil else { return }
        while durable.count <= index { durable.append(nil) }
        if durable[index] == nil { durable[index] = page }
    }
}
