import MartletBasics
import MartletKeeper
import MartletLog
import MartletModel
import MartletReactor

private final class StoppedClock: Clock {
    let now = Instant(nanoseconds: 0)
    let wallMilliseconds: Int64 = 1_700_000_000_000
}

/// Choices, recovery point, log start and durable bound, then files of a partition's folder: each its kind, an int16
/// size, and its bytes. With bit 7 of the first byte all checksums are made right.
func fuzzLog(_ input: inout FuzzInput) {
    let disk = MemoryDisk()
    let choice = input.byte()
    let (recoveryPoint, logStart, durable) = (Offset(input.byte()), Offset(input.byte()), Offset(input.byte()))
    let folder = "/log/t-0"
    try? disk.makeDirectory(folder)
    while !input.isAtEnd { putFile(of: &input, in: folder, on: disk, isSealed: choice & 128 != 0) }
    // slow, so that not every input is shown
    if choice & 64 != 0 { inspect(folder, on: disk) }

    var config = TopicConfig()
    config.segmentBytes = 1 << 16
    config.indexIntervalBytes = 64
    config.segmentIndexBytes = 1024
    if choice & 4 != 0 { config.cleanupPolicy = .compact }
    var parameters = LogParameters(
        partition: TopicPartition("t", 0), folder: folder, config: config, disk: disk,
        descriptors: DescriptorCache(disk: disk, limit: 8), clock: StoppedClock(), logger: Logger("log", to: SilentLog()),
        cutDirectory: "/cut")
    parameters.wasClosedCleanly = choice & 1 != 0
    parameters.durableLowerBound = choice & 2 != 0 ? durable : nil
    parameters.recoveryPoint = recoveryPoint
    parameters.logStartOffset = logStart
    guard let log = try? PartitionLog.open(parameters) else { return }
    read(log)
    if choice & 8 != 0 { _ = try? log.truncate(to: (log.offsets.logStart + log.offsets.logEnd) / 2) }
    let end = log.offsets.logEnd
    guard (try? log.close(clean: true)) != nil else { return }

    // what was closed cleanly opens again, as it was
    parameters.wasClosedCleanly = true
    parameters.recoveryPoint = end
    parameters.logStartOffset = log.offsets.logStart
    parameters.durableLowerBound = nil
    guard let again = try? PartitionLog.open(parameters) else {
        // one that was not scanned can be as damaged as it was
        return precondition(choice & 1 != 0, "a log that was recovered and closed does not open")
    }
    precondition(
        again.offsets.logEnd == end || choice & 1 != 0, "a log that was closed at \(end) ends at \(again.offsets.logEnd)")
}

private func putFile(of input: inout FuzzInput, in folder: String, on disk: MemoryDisk, isSealed: Bool) {
    let kind = Int(input.byte())
    var bytes = input.take(Int(UInt16(bitPattern: input.int16())))
    let base: Offset = [0, 3, 10, 100][kind >> 3 & 3]
    switch kind & 7 {
    case 5: disk.put(bytes, at: folder + "/" + LeaderEpochHistory.fileName)
    case 6: disk.put(bytes, at: folder + "/" + PartitionMetadata.fileName)
    case 7: disk.put(bytes, at: SegmentFile.log.path(folder, base) + SegmentFile.swapSuffix)
    case let file:
        if isSealed, file == 0 { sealBatches(&bytes) }
        if isSealed, file == 4 { sealSnapshot(&bytes) }
        disk.put(bytes, at: SegmentFile.allCases[file].path(folder, base))
    }
}

private func sealSnapshot(_ bytes: inout [UInt8]) {
    guard bytes.count >= 6 else { return }
    bytes.withUnsafeMutableBytes { all in
        let sum = crc32c(UnsafeRawBufferPointer(rebasing: all[6...]))
        all.storeBytes(of: sum.bigEndian, toByteOffset: 2, as: UInt32.self)
    }
}

/// What `martlet log` does, which writes nothing.
private func inspect(_ folder: String, on disk: MemoryDisk) {
    var verifier = LogVerifier(disk: disk)
    if let subject = try? LogVerifier.subject(folder, on: disk) { try? verifier.verify(folder, as: subject) }
    var options = LogDumper.Options()
    options.records = true
    options.json = true
    _ = try? LogDumper(disk: disk, options: options) { _ in }.show(folder)
}

private func read(_ log: PartitionLog) {
    let (start, end) = (log.offsets.logStart, log.offsets.logEnd)
    var offset = start
    for _ in 0..<64 where offset < end {
        guard let slice = try? log.read(from: offset, maxBytes: 1 << 16, limit: end, firstBatchWhole: true),
            let file = slice.file
        else { break }
        let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: slice.count, alignment: 1)
        defer { bytes.deallocate() }
        guard let count = try? file.read(into: bytes, at: slice.position), count == slice.count else { break }
        var walker = BatchWalker(UnsafeRawBufferPointer(bytes))
        guard case .batch(_, let header) = walker.next() else { break }
        guard header.nextOffset > offset else { break }
        offset = header.nextOffset
    }
    var search = TimeSearch(contexts: CodecContexts())
    for time: Int64 in [0, 5, 1_700_000_000_000, .max] { _ = try? log.firstOffset(atOrAfter: time, limit: end, &search) }
    _ = try? log.offsetOfMaxTimestamp(&search)
    _ = try? log.abortedTransactions(from: start, upTo: end)
    _ = log.lastStableOffset(highWatermark: end)
    for epoch: LeaderEpoch in [0, 1, 7] { _ = log.endOffset(for: epoch) }
}

/// Which file, then what it says: what is read of it is written, and read as the same.
func fuzzCheckpoint(_ input: inout FuzzInput) {
    let choice = input.byte()
    var bytes = [UInt8](input.rest())
    let path = "/file"
    func mustAgree<Value: Equatable>(_ read: ([UInt8]) throws -> Value, _ write: (Value) -> [UInt8]) {
        guard let value = try? read(bytes) else { return }
        let written = write(value)
        guard let again = try? read(written) else { preconditionFailure("what was written cannot be read: \(value)") }
        precondition(again == value, "what was read is written otherwise: \(value)")
    }
    switch choice % 7 {
    case 0: mustAgree({ try OffsetCheckpoint.decode($0, path: path) }, { $0.encode() })
    case 1: mustAgree({ try LeaderEpochHistory.decode($0, path: path) }, { $0.encode() })
    case 2: mustAgree({ try MetaProperties.decode($0, path: path) }, { $0.encode() })
    case 3: mustAgree({ try PartitionMetadata.decode($0, path: path) }, { $0.encode() })
    case 4: mustAgree({ try JavaProperties.decode($0, path: path) }, { $0.encode() })
    case 5: mustAgree({ CleanShutdownMarker.decode($0) }, { $0.map { CleanShutdownMarker.encode(brokerEpoch: $0) } ?? [] })
    default:
        sealSnapshot(&bytes)
        let offset = Offset(choice >> 3)
        mustAgree({ try ProducerStateTable.decode($0, path: path, at: offset).encodeSnapshot() }, { $0 })
    }
}

/// A choice, then files of the keeper's directory: each a zxid above its kind's bit, an int16 size, and its bytes. With
/// bit 7 of the choice headers and checksums are made right.
func fuzzKeeper(_ input: inout FuzzInput) {
    let disk = MemoryDisk()
    let choice = input.byte()
    try? disk.makeDirectory("/keeper")
    while !input.isAtEnd {
        let kind = input.byte()
        let zxid = Zxid(epoch: 1, counter: UInt32(kind >> 1))
        var bytes = input.take(Int(UInt16(bitPattern: input.int16())))
        if choice & 128 != 0 { sealKeeperFile(&bytes, isLog: kind & 1 == 0, zxid) }
        disk.put(bytes, at: "/keeper/" + (kind & 1 == 0 ? "log." : "snapshot.") + zxid.hexadecimal)
    }
    let store = KeeperStore(disk: disk, directory: "/keeper", logger: Logger("keeper", to: SilentLog()))
    guard let recovered = try? store.recover() else { return }
    var buffer = ByteBuffer()
    recovered.tree.encode(into: &buffer)
    var reader = ByteReader(buffer.bytes)
    guard let tree = try? KeeperTree(from: &reader), tree.digest == recovered.tree.digest else {
        preconditionFailure("a tree that was recovered cannot be kept")
    }
    guard let again = try? store.recover() else { preconditionFailure("a store that was recovered is damaged") }
    precondition(again.tree.digest == tree.digest, "a store that was recovered gives another tree")
}

/// See `KeeperLog` and `KeeperSnapshot` for the formats.
private func sealKeeperFile(_ bytes: inout [UInt8], isLog: Bool, _ zxid: Zxid) {
    guard bytes.count >= 20 else { return }
    bytes.withUnsafeMutableBytes { all in
        func sum(_ range: Range<Int>, _ previous: UInt32 = 0) -> UInt32 {
            crc32c(UnsafeRawBufferPointer(rebasing: all[range]), continuing: previous)
        }
        func store<T: FixedWidthInteger>(_ value: T, _ at: Int) {
            all.storeBytes(of: value.bigEndian, toByteOffset: at, as: T.self)
        }
        guard isLog else {
            store(0x4D4B_5052_534E_5031 as UInt64, 0)
            store(UInt64(all.count - 20), 8)
            return store(sum(0..<all.count - 4), all.count - 4)
        }
        store(0x4D4B_5052_4C4F_4731 as UInt64, 0)
        store(zxid.rawValue, 8)
        store(sum(0..<16), 16)
        var position = 20
        while all.count - position >= 32 {
            let size = Int(UInt32(bigEndian: all.loadUnaligned(fromByteOffset: position, as: UInt32.self)))
            guard size >= 24, size <= all.count - position - 8 else { return }
            let end = position + 8 + size
            store(sum(position + 8..<end, sum(position..<position + 4)), position + 4)
            position = end
        }
    }
}
