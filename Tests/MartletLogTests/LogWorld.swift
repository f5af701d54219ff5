import MartletBasics
import MartletLog
import MartletModel
import MartletReactor
import MartletSimulation
import Testing

/// Bytes of batches that stay where they are, as an append needs them.
final class BatchBytes {
    let bytes: UnsafeMutableRawBufferPointer

    init(_ source: UnsafeRawBufferPointer) {
        bytes = .allocate(byteCount: max(source.count, 1), alignment: 8)
        bytes.copyMemory(from: source)
        count = source.count
    }
    private let count: Int

    convenience init(_ source: [UInt8]) { self.init(source.withUnsafeBytes { Array($0) }, ()) }
    private init(_ source: [UInt8], _: ()) {
        bytes = .allocate(byteCount: max(source.count, 1), alignment: 8)
        bytes.copyBytes(from: source)
        count = source.count
    }
    deinit { bytes.deallocate() }

    var all: UnsafeMutableRawBufferPointer { UnsafeMutableRawBufferPointer(rebasing: bytes[..<count]) }
    var array: [UInt8] { Array(all) }
    var size: Int { count }
}

/// A batch of records with these values and timestamps.
func batch(
    _ values: [String], at timestamp: Int64 = 1_000, step: Int64 = 0, codec: CompressionCodec = .none,
    offset: Offset = 0,
    epoch: LeaderEpoch = 0, identity: BatchIdentity = BatchIdentity()
) -> BatchBytes {
    var identity = identity
    identity.baseOffset = offset
    identity.leaderEpoch = epoch
    var builder = BatchBuilder(identity)
    for (index, value) in values.enumerated() {
        builder.append(timestamp: timestamp + Int64(index) * step, key: nil, value: Array(value.utf8))
    }
    var output = ByteBuffer()
    builder.finish(into: &output, codec: codec, contexts: CodecContexts())
    return BatchBytes(output.bytes)
}

func marker(_ type: ControlRecordType, producer: ProducerID, epoch: ProducerEpoch = 0, at timestamp: Int64 = 1_000)
    -> BatchBytes
{
    var output = ByteBuffer()
    BatchBuilder.write(
        EndTransactionMarker(type, coordinatorEpoch: 0), producerID: producer, epoch: epoch, timestamp: timestamp,
        into: &output,
        contexts: CodecContexts())
    return BatchBytes(output.bytes)
}

/// One partition on one disk, opened, crashed and opened again.
final class LogWorld {
    let world: SimulatedWorld?
    private(set) var host: SimulatedHost?
    let fixedDisk: (any Disk)?
    let folder: String
    let cutDirectory: String
    let partition: TopicPartition
    var config = TopicConfig()
    let lines = LinesOfLog()
    var descriptors: DescriptorCache

    var disk: any Disk { host?.disk ?? fixedDisk! }
    var clock: any Clock { host?.clock ?? RealClock() }

    /// On a simulated disk.
    init(seed: UInt64) {
        let world = SimulatedWorld(seed: seed)
        let host = world.makeHost("broker")
        self.world = world
        self.host = host
        fixedDisk = nil
        folder = "data/log/topic-0"
        cutDirectory = "data/cut"
        partition = TopicPartition("topic", 0)
        descriptors = DescriptorCache(disk: host.disk, limit: 8)
        try! host.disk.makeDirectory("data/log")
        for folder in [".", "data"] { try! host.disk.syncDirectory(folder) }
        // small indexes: the simulated disk keeps their bytes
        config.segmentIndexBytes = 4096
        config.indexIntervalBytes = 256
    }

    /// On a real one.
    init(disk: any Disk, folder: String, partition: TopicPartition, cutDirectory: String) {
        world = nil
        host = nil
        fixedDisk = disk
        self.folder = folder
        self.partition = partition
        self.cutDirectory = cutDirectory
        descriptors = DescriptorCache(disk: disk, limit: 64)
    }

    var parameters: LogParameters {
        LogParameters(
            partition: partition, folder: folder, config: config, disk: disk, descriptors: descriptors, clock: clock,
            logger: Logger("log", to: lines), cutDirectory: cutDirectory)
    }

    func create(startingAt offset: Offset = 0) throws -> PartitionLog {
        try PartitionLog.create(parameters, topicID: UUID(high: 7, low: 9), startingAt: offset)
    }

    func open(clean: Bool = false, recoveryPoint: Offset = 0, bound: Offset? = nil, logStart: Offset = 0) throws
        -> PartitionLog
    {
        var parameters = parameters
        parameters.wasClosedCleanly = clean
        parameters.recoveryPoint = recoveryPoint
        parameters.durableLowerBound = bound
        parameters.logStartOffset = logStart
        return try PartitionLog.open(parameters)
    }

    /// The process goes, or the machine loses power; another is started on the same disk.
    func crash(powerCut: Bool) {
        if powerCut { host!.powerCut() } else { host!.kill() }
        host = host!.restart()
        descriptors = DescriptorCache(disk: host!.disk, limit: 8)
    }

    /// What the files hold may be changed by hand while no log is open.
    func overwrite(_ path: String, at offset: Int64, _ bytes: [UInt8]) throws {
        let file = try disk.open(path, .readWrite)
        try bytes.withUnsafeBytes { try file.write($0, at: offset) }
    }
    func cutFile(_ path: String, to size: Int64) throws { try disk.open(path, .readWrite).truncate(to: size) }
    func sizeOf(_ path: String) throws -> Int64 { try disk.status(path)?.size ?? -1 }
    func path(_ kind: SegmentFile, _ base: Offset = 0) -> String { kind.path(folder, base) }
}

extension PartitionLog {
    @discardableResult
    func append(_ batch: BatchBytes, epoch: LeaderEpoch = 0, origin: AppendOrigin = .client) throws -> Reservation {
        let reservation = try reserve(batch.all, leaderEpoch: epoch, origin: origin)
        try writeReserved()
        return reservation
    }

    /// Does what the syncer does.
    func sync(_ disk: any Disk) throws {
        guard let writes = try takeUnsynced() else { return }
        for file in writes.files { try file.sync() }
        for folder in writes.folders { try disk.syncDirectory(folder) }
        synced(writes)
    }

    func bytes(_ slice: LogSlice) throws -> [UInt8] {
        guard let file = slice.file else { return [] }
        var bytes = [UInt8](repeating: 0, count: slice.count)
        let count = try bytes.withUnsafeMutableBytes { try file.read(into: $0, at: slice.position) }
        #expect(count == slice.count, "a slice lies inside its file")
        return bytes
    }

    /// Every batch from an offset to the limit, as a consumer that asks again and again gets them.
    func batches(from start: Offset? = nil, to limit: Offset? = nil, maxBytes: Int = 1 << 20) throws -> [[UInt8]] {
        var found: [[UInt8]] = []
        var offset = start ?? logStartOffset
        while true {
            let slice = try read(from: offset, maxBytes: maxBytes, limit: limit ?? logEndOffset, firstBatchWhole: true)
            guard !slice.isEmpty else { return found }
            let bytes = try bytes(slice)
            var position = 0
            while bytes.count - position >= BatchHeader.size {
                let header = bytes[position...].withUnsafeBytes { BatchHeader($0) }
                guard header.totalSize <= bytes.count - position else { break }
                found.append(Array(bytes[position..<position + header.totalSize]))
                position += header.totalSize
                offset = header.nextOffset
            }
            #expect(position > 0, "the first batch is whole")
            guard position > 0 else { return found }
        }
    }

    /// `offset:value` of every record.
    func records(from start: Offset? = nil, to limit: Offset? = nil, maxBytes: Int = 1 << 20) throws -> [String] {
        try batches(from: start, to: limit, maxBytes: maxBytes).flatMap { try recordsOf($0) }
    }
}

func recordsOf(_ batch: [UInt8]) throws -> [String] {
    var scratch = ByteBuffer()
    return try batch.withUnsafeBytes { raw in
        let header = BatchHeader(raw)
        guard !header.isControl else { return ["\(header.baseOffset):marker"] }
        let records = try header.records(of: raw, contexts: CodecContexts(), scratch: &scratch, limit: 1 << 27)
        var cursor = RecordCursor(records, count: header.recordCount)
        var found: [String] = []
        while let record = try cursor.next() {
            let value = cursor.bytes(in: record.value).map { String(decoding: $0, as: UTF8.self) } ?? "null"
            found.append("\(header.baseOffset + Int64(record.offsetDelta)):\(value)")
        }
        return found
    }
}
