import MartletBasics
import MartletLog
import MartletModel
import MartletReactor
import Testing

/// A log directory that was stopped cleanly: segments, leader epochs, producers, transactions ended both ways and one open.
struct StoppedDirectory {
    let world: LogWorld
    let path = "data/log"
    var disk: any Disk { world.disk }
    private(set) var end: Offset = 0

    init(seed: UInt64, topic: String = "topic") throws {
        world = LogWorld(seed: seed)
        world.config.segmentBytes = 900
        let log = try world.create()
        var random = SeededRandom(seed: seed)
        var sequences: [ProducerID: Int32] = [:]
        for index in 0..<60 {
            if index % 20 == 0 { try log.beginEpoch(Int32(index / 10)) }
            let epoch = log.latestEpoch ?? 0
            let time = 1_000 + Int64(index) * 7
            let values = (0..<1 + random.below(3)).map { "value \(index) \($0)" }
            switch index % 6 {
            case 0, 1:
                try log.append(batch(values, at: time, step: 1), epoch: epoch)
            case 2, 3:
                let producer = ProducerID(index % 6)
                var identity = BatchIdentity(
                    producerID: producer, epoch: 0, baseSequence: sequences[producer] ?? 0, isTransactional: index % 6 == 3)
                identity.leaderEpoch = epoch
                sequences[producer, default: 0] += Int32(values.count)
                try log.append(batch(values, at: time, epoch: epoch, identity: identity), epoch: epoch)
            case 4:
                let end = marker(random.chance(1, in: 2) ? .commit : .abort, producer: 3, at: time)
                try log.append(end, epoch: epoch, origin: .coordinator)
            default:
                try log.append(batch(values, at: time, codec: [.gzip, .lz4, .zstd, .snappy][random.below(4)]), epoch: epoch)
            }
        }
        end = log.logEndOffset
        try log.close(clean: true)
        try write(LogDirectory.Checkpoint.recoveryPoint.rawValue, OffsetCheckpoint([world.partition: end]).encode())
        try write(LogDirectory.Checkpoint.highWatermark.rawValue, OffsetCheckpoint([world.partition: end]).encode())
        try write(LogDirectory.Checkpoint.logStart.rawValue, OffsetCheckpoint().encode())
        try write(LogDirectory.Checkpoint.cleaner.rawValue, [])
        let meta = MetaProperties(brokerID: 1, clusterID: "AAAAAAAAAAAAAAAAAAAAAA", wallMilliseconds: 0)
        try write(MetaProperties.fileName, meta.encode())
        try write(CleanShutdownMarker.fileName, CleanShutdownMarker.encode(brokerEpoch: -1))
    }

    func write(_ name: String, _ bytes: [UInt8]) throws { try disk.replace("\(path)/\(name)", with: bytes) }

    /// Every file, by its path.
    func files() throws -> [(path: String, bytes: [UInt8])] {
        var found: [(String, [UInt8])] = []
        for folder in [path, world.folder] {
            for name in try disk.list(folder) {
                if let bytes = try disk.contents("\(folder)/\(name)") { found.append(("\(folder)/\(name)", bytes)) }
            }
        }
        return found
    }

    func verified() throws -> LogVerifier {
        var verifier = LogVerifier(disk: disk)
        try verifier.verify(path, as: .directory)
        return verifier
    }
}

@Suite struct Verifying {
    @Test func finishesAStoppedDirectoryWithoutAWord() throws {
        for seed in 1...10 as ClosedRange<UInt64> {
            let directory = try StoppedDirectory(seed: seed)
            let verifier = try directory.verified()
            #expect(verifier.findings.isEmpty, "seed \(seed)")
            #expect(verifier.counts.segments > 3 && verifier.counts.batches == 60)
            #expect(verifier.counts.abortedTransactions > 0 && verifier.counts.snapshotEntries > 0)
            #expect(verifier.counts.offsetIndexEntries > 0 && verifier.counts.timeIndexEntries > 0)
        }
    }

    /// One bit is wrong, anywhere. What is covered by a checksum, or said twice, is found, with the file's name.
    @Test func aFlippedBitIsFoundInWhateverIsCoveredByAChecksumOrSaidTwice() throws {
        var random = SeededRandom(seed: 71)
        let directory = try StoppedDirectory(seed: 5)
        let files = try directory.files().filter { !$0.bytes.isEmpty }
        var (missed, tried) = ([String](), 0)
        for _ in 0..<1500 {
            let (path, bytes) = files[random.below(files.count)]
            var damaged = bytes
            let (place, bit) = (random.below(bytes.count), random.below(8))
            damaged[place] ^= 1 << UInt8(bit)
            try directory.disk.replace(path, with: damaged)
            defer { try! directory.disk.replace(path, with: bytes) }
            let verifier = try directory.verified()
            tried += 1
            guard verifier.isSound else {
                let names = verifier.findings.filter { $0.severity == .damage }.map(\.path)
                #expect(!names.isEmpty)
                continue
            }
            let name = String(path.split(separator: "/").last!)
            // an index entry that names another offset of its batch, or a later batch's end, may be right: that is a note
            if name.hasSuffix(".index") || name.hasSuffix(".timeindex"), !verifier.findings.isEmpty { continue }
            missed.append("\(name) byte \(place) bit \(bit)")
        }
        // nothing repeats these: dates, names of ids, marks, and where between two batches an epoch begins
        let silent = [
            "meta.properties", "partition.metadata", "leader-epoch-checkpoint", "log-start-offset-checkpoint",
            "replication-offset-checkpoint", "cleaner-offset-checkpoint", ".kafka_cleanshutdown",
        ]
        let wrong = missed.filter { miss in !silent.contains { miss.hasPrefix($0) } }
        #expect(wrong.isEmpty, "\(wrong.prefix(10))")
        #expect(tried == 1500 && missed.count < 300, "\(missed.count) of 1500 were missed")
    }

    @Test func aTailThatIsCutOffIsFoundButForALastIndexEntry() throws {
        var random = SeededRandom(seed: 72)
        let directory = try StoppedDirectory(seed: 6)
        let files = try directory.files().filter { !$0.bytes.isEmpty }
        for _ in 0..<600 {
            let (path, bytes) = files[random.below(files.count)]
            let kept = random.below(bytes.count)
            try directory.disk.replace(path, with: Array(bytes[..<kept]))
            defer { try! directory.disk.replace(path, with: bytes) }
            let name = String(path.split(separator: "/").last!)
            if name.hasSuffix(".index"), kept % 8 == 0 { continue }
            // no rows at all, as Kafka makes it; and brokers before 3.7 left an empty marker
            if kept == 0, name == ".kafka_cleanshutdown" || name == "log-start-offset-checkpoint" { continue }
            // its last lines need not be ids
            if name == "meta.properties" || name == "partition.metadata" { continue }
            #expect(try !directory.verified().isSound, "\(name) cut to \(kept) of \(bytes.count)")
        }
    }

    @Test func aTornTailIsDamageAfterACleanStopAndRecoverysBusinessAfterAnother() throws {
        let directory = try StoppedDirectory(seed: 7)
        let last = try #require(try directory.files().last { $0.path.hasSuffix(".log") })
        try directory.disk.replace(last.path, with: Array(last.bytes.dropLast(3)))
        let clean = try directory.verified()
        let finding = try #require(clean.findings.first { $0.severity == .damage })
        #expect(finding.path == last.path && finding.position ?? -1 > 0 && finding.message.contains("of which"))
        try directory.disk.remove("data/log/.kafka_cleanshutdown")
        let killed = try directory.verified()
        #expect(killed.isSound)
        #expect(killed.findings.contains { $0.path == last.path && $0.message.contains("recovery cuts") })
    }

    @Test func onePartitionIsVerifiedByItself() throws {
        let directory = try StoppedDirectory(seed: 8)
        let subject = try LogVerifier.subject(directory.world.folder, on: directory.disk)
        #expect(subject == .partition(PartitionFolder(directory.world.partition)))
        #expect(try LogVerifier.subject("data/log", on: directory.disk) == .directory)
        #expect(try LogVerifier.subject("data", on: directory.disk) == nil)
        #expect(try LogVerifier.subject("nowhere", on: directory.disk) == nil)
        var verifier = LogVerifier(disk: directory.disk)
        try verifier.verify(directory.world.folder, as: try #require(subject))
        #expect(verifier.findings.isEmpty && verifier.counts.partitions == 1)
        // what lies around it counts: the end is below its recovery point
        let rows = OffsetCheckpoint([directory.world.partition: directory.end + 1])
        try directory.write(LogDirectory.Checkpoint.recoveryPoint.rawValue, rows.encode())
        var again = LogVerifier(disk: directory.disk)
        try again.verify(directory.world.folder, as: try #require(subject))
        #expect(!again.isSound)
    }

    @Test func aReplicaThatWasSwappedWithAnotherTopicsSnapshotIsFound() throws {
        let directory = try StoppedDirectory(seed: 9)
        let snapshots = try directory.files().filter { $0.path.hasSuffix(".snapshot") }
        let (a, b) = (try #require(snapshots.first { $0.bytes.count > 10 }), try #require(snapshots.last))
        try #require(a.bytes != b.bytes)
        try directory.disk.replace(b.path, with: a.bytes)
        let findings = try directory.verified().findings
        #expect(findings.contains { $0.path == b.path && $0.message.contains("the batches give") })
    }

    /// Bytes of any kind give findings, and never end the program; nor does looking at them change anything.
    @Test func filesOfNoiseAreToldOfAndLeftAlone() throws {
        for seed in 1...40 as ClosedRange<UInt64> {
            var random = SeededRandom(seed: seed)
            let directory = try StoppedDirectory(seed: 3)
            for (path, bytes) in try directory.files() where random.chance(1, in: 3) {
                var noise = bytes
                for _ in 0..<1 + random.below(30) where !noise.isEmpty {
                    noise[random.below(noise.count)] = UInt8(random.below(256))
                }
                if random.chance(1, in: 5) { noise = Array(noise.prefix(random.below(noise.count + 1))) }
                if random.chance(1, in: 8) { noise += (0..<random.below(200)).map { _ in UInt8(random.below(256)) } }
                try directory.disk.replace(path, with: noise)
            }
            let before = try directory.files().map(\.bytes)
            _ = try directory.verified()
            for json in [true, false] {
                var options = LogDumper.Options()
                (options.records, options.json, options.coordinator) = (true, json, .groups)
                var lines = 0
                let dumper = LogDumper(disk: directory.disk, options: options) { line in
                    lines += 1
                    if json { #expect((try? JSONValue(parsing: line)) != nil, "\(line)") }
                }
                #expect(try dumper.show("data/log"))
                #expect(lines > 0)
            }
            #expect(try directory.files().map(\.bytes) == before, "seed \(seed)")
        }
    }

    @Test(
        .enabled(if: KafkaData.isThere),
        arguments: [
            "zk39-clean", "zk39-replica", "zk39-jbod", "zk39-killed", "zk39-torn", "kraft43-clean", "kraft43-killed",
            "kraft43-torn",
        ])
    func whatKafkaWroteIsSound(archive: String) throws {
        let top = try KafkaData.temporaryFolder()
        let disk = RealDisk()
        defer { try? disk.removeTree(top) }
        try #require(try KafkaData.run(["tar", "xJf", "\(KafkaData.folder)/\(archive).tar.xz", "-C", top]).status == 0)
        let inside = "\(top)/\(archive)"
        let isOne = try disk.contents(inside + "/meta.properties") != nil
        var verifier = LogVerifier(disk: disk)
        for directory in isOne ? [inside] : try disk.list(inside).map({ "\(inside)/\($0)" }) {
            try verifier.verify(directory, as: .directory)
        }
        let damages = verifier.findings.filter { $0.severity == .damage }
        #expect(damages.isEmpty, "\(damages.prefix(5))")
        #expect(verifier.counts.batches > 30)
    }
}

@Suite struct Dumping {
    private func lines(_ directory: StoppedDirectory, _ path: String, records: Bool = true) throws -> [JSONValue] {
        var options = LogDumper.Options()
        (options.records, options.json) = (records, true)
        var found: [JSONValue] = []
        let dumper = LogDumper(disk: directory.disk, options: options) { line in
            if let value = try? JSONValue(parsing: line) { found.append(value) }
        }
        #expect(try dumper.show(path))
        return found
    }

    @Test func everyRecordAndEveryEntryIsShown() throws {
        let directory = try StoppedDirectory(seed: 4)
        let counts = try directory.verified().counts
        let shown = try lines(directory, "data/log")
        func count(_ kind: String) -> Int { shown.count { $0["kind"]?.string == kind } }
        #expect(count("batch") == counts.batches && count("offsetIndex") == counts.offsetIndexEntries)
        #expect(count("timeIndex") == counts.timeIndexEntries && count("abortedTransaction") == counts.abortedTransactions)
        #expect(count("producer") == counts.snapshotEntries && count("leaderEpoch") == 3 && count("damage") == 0)
        let records = shown.flatMap { $0["records"]?.array ?? [] }
        #expect(records.count == counts.records)
        #expect(records.map { $0["offset"]?.int } == (0..<directory.end).map { $0 })
        #expect(records[0]["value"]?.string == "value 0 0")
        let ends = records.compactMap { $0["endTxnMarker"]?.string }
        #expect(ends.count == 10 && Set(ends) == ["COMMIT", "ABORT"])
        #expect(try lines(directory, "data/log", records: false).allSatisfy { $0["records"] == nil })
    }

    @Test func aDamagedSegmentIsShownAsFarAsItCanBeRead() throws {
        let directory = try StoppedDirectory(seed: 4)
        let path = directory.world.path(.log)
        let bytes = try #require(try directory.disk.contents(path))
        let first = bytes.withUnsafeBytes { BatchHeader($0) }
        var damaged = Array(bytes.dropLast(5))
        damaged[first.totalSize - 1] ^= 1
        try directory.disk.replace(path, with: damaged)
        let shown = try lines(directory, path)
        #expect(shown[0]["isvalid"]?.bool == false && shown[0]["fault"]?.string?.contains("checksum") == true)
        #expect(shown[1]["isvalid"]?.bool == true && shown[1]["position"]?.int == Int64(first.totalSize))
        #expect(shown.last?["kind"]?.string == "damage")
    }

    @Test func aGroupsCommitsAndATransactionsStateAreDecoded() throws {
        var key = OffsetCommitKey()
        (key.group, key.topic, key.partition) = ("g", "events", 4)
        var value = OffsetCommitValue()
        (value.offset, value.metadata) = (77, "here")
        let commit = try #require(CoordinatorRecords(topic: "__consumer_offsets")).decode(
            key: try key.prefixedBytes(version: 0), value: try value.prefixedBytes(version: 3))
        #expect(commit?.key["kind"]?.string == "OffsetCommit" && commit?.key["group"]?.string == "g")
        #expect(commit?.value["offset"]?.int == 77 && commit?.value["metadata"]?.string == "here")
        let tombstone = CoordinatorRecords.groups.decode(key: try key.prefixedBytes(version: 0), value: nil)
        #expect(tombstone?.value == .null && tombstone?.key["partition"]?.int == 4)

        var transaction = TransactionLogValue()
        (transaction.producerID, transaction.transactionStatus) = (9, 4)
        var id = TransactionLogKey()
        id.transactionalID = "tx"
        let state = CoordinatorRecords.transactions.decode(
            key: try id.prefixedBytes(version: 0), value: try transaction.prefixedBytes(version: 0))
        #expect(state?.key["transactionalId"]?.string == "tx")
        #expect(state?.value["producerId"]?.int == 9 && state?.value["transactionStatus"]?.string == "CompleteCommit")
        #expect(CoordinatorRecords.groups.decode(key: [0, 99], value: nil) == nil)
        #expect(CoordinatorRecords.groups.decode(key: [0], value: nil) == nil)
        #expect(CoordinatorRecords(topic: "events") == nil)
    }

    @Test func aClassicGroupsMembersTellTheirTopics() throws {
        var subscription = ConsumerProtocolSubscription()
        subscription.topics = ["events", "orders"]
        var member = GroupMetadataValue.MemberMetadata()
        (member.memberID, member.subscription) = ("m-1", try subscription.prefixedBytes(version: 1))
        var group = GroupMetadataValue()
        (group.protocolType, group.members) = ("consumer", [member])
        var key = GroupMetadataKey()
        key.group = "g"
        let decoded = CoordinatorRecords.groups.decode(
            key: try key.prefixedBytes(version: 0), value: try group.prefixedBytes(version: 3))
        let shown = decoded?.value["members"]?.array?.first
        #expect(shown?["memberId"]?.string == "m-1")
        #expect(shown?["subscription"]?["topics"]?.array?.compactMap(\.string) == ["events", "orders"])
    }
}
