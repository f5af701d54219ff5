import Glibc
import MartletBasics
import MartletLog
import MartletModel
import MartletReactor
import Testing

/// Directories that Kafka wrote: what we read from their small files and write again must be the same bytes.
@Suite(.serialized) struct DirectoriesOfKafka {
    private static let archives = [
        "zk39-clean", "zk39-replica", "zk39-jbod", "zk39-killed", "zk39-torn", "kraft43-clean", "kraft43-killed",
        "kraft43-torn",
    ]

    private static let folder: String = {
        let root = #filePath.split(separator: "/").dropLast(3).joined(separator: "/")
        return "/" + root + "/../shared/kafka-data"
    }()

    private static let areThere = access(folder, R_OK) == 0

    /// Where an archive was unpacked to, removed with this value.
    private final class Unpacked {
        let path: String
        let host: RealHost

        init(_ archive: String) throws {
            var template = Array("/tmp/martlet-log-XXXXXX".utf8CString)
            path = try String(cString: #require(mkdtemp(&template)))
            host = try RealHost(loops: 1, log: SilentLog())
            let words = ["tar", "xJf", "\(DirectoriesOfKafka.folder)/\(archive).tar.xz", "-C", path]
            var arguments: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) } + [nil]
            defer { for argument in arguments { free(argument) } }
            var process: pid_t = 0
            try #require(posix_spawnp(&process, "tar", nil, nil, &arguments, environ) == 0)
            var status: Int32 = 0
            try #require(waitpid(process, &status, 0) == process && status == 0, "tar could not unpack \(archive)")
        }

        deinit {
            try? host.disk.removeTree(path)
            host.stop()
        }

        var directories: [String] {
            get throws {
                let top = try host.disk.list(path).map { "\(path)/\($0)" }
                return try top.flatMap { folder in
                    try host.disk.contents(folder + "/meta.properties") != nil
                        ? [folder] : host.disk.list(folder).map { "\(folder)/\($0)" }
                }
            }
        }
    }

    private func sortedLines(_ bytes: [UInt8]) -> [String] {
        String(decoding: bytes, as: UTF8.self).split(separator: "\n").map(String.init).sorted()
    }

    private func sortedEntries(_ bytes: [UInt8]) -> [[UInt8]] {
        stride(from: 10, to: bytes.count, by: 46).map { Array(bytes[$0..<min($0 + 46, bytes.count)]) }.sorted {
            $0.lexicographicallyPrecedes($1)
        }
    }

    @Test(.enabled(if: areThere), arguments: archives)
    func everySmallFileIsReadAndWrittenAsItWas(archive: String) throws {
        let unpacked = try Unpacked(archive)
        let disk = unpacked.host.disk
        var (checkpoints, snapshots, epochs, metadata) = (0, 0, 0, 0)
        for directory in try unpacked.directories {
            for checkpoint in LogDirectory.Checkpoint.allCases {
                let path = "\(directory)/\(checkpoint.rawValue)"
                let bytes = try #require(try disk.contents(path))
                let again = try OffsetCheckpoint.decode(bytes, path: path).encode()
                #expect(
                    bytes.isEmpty ? again == Array("0\n0\n".utf8) : sortedLines(again) == sortedLines(bytes), "\(path)")
                checkpoints += 1
            }
            let meta = try #require(try disk.contents(directory + "/meta.properties"))
            #expect(try MetaProperties.decode(meta, path: "meta.properties").encode() == meta)
            for name in try disk.list(directory) where try disk.status("\(directory)/\(name)")?.isDirectory == true {
                let folder = try #require(PartitionFolder(parsing: name), "\(name)")
                for file in try disk.list("\(directory)/\(name)") {
                    let path = "\(directory)/\(name)/\(file)"
                    guard let bytes = try disk.contents(path) else { continue }
                    if file.hasSuffix(".snapshot"), let offset = Offset(file.dropLast(9)) {
                        snapshots += 1
                        guard let table = try snapshot(bytes, path, offset, archive) else { continue }
                        #expect(sortedEntries(table.encodeSnapshot()) == sortedEntries(bytes), "\(path)")
                        #expect(table.encodeSnapshot().count == bytes.count)
                        // Kafka's order is ours for ids that one broker gave out: then the bytes are the same
                        if sortedEntries(bytes).elementsEqual(
                            stride(from: 10, to: bytes.count, by: 46).map { Array(bytes[$0..<($0 + 46)]) })
                        {
                            #expect(table.encodeSnapshot() == bytes, "\(path)")
                        }
                    } else if file == LeaderEpochHistory.fileName {
                        #expect(
                            try LeaderEpochHistory.decode(bytes, path: path).encode() == bytes || bytes.isEmpty,
                            "\(path)")
                        epochs += 1
                    } else if file == PartitionMetadata.fileName {
                        #expect(try PartitionMetadata.decode(bytes, path: path).encode() == bytes, "\(path)")
                        metadata += 1
                    }
                }
                _ = folder
            }
        }
        #expect(checkpoints >= 4 && epochs > 0 && metadata > 0)
        #expect(snapshots > 0 || archive == "zk39-replica")
    }

    /// Nil for a snapshot that was damaged by hand, as those of the torn directories may be.
    private func snapshot(_ bytes: [UInt8], _ path: String, _ offset: Offset, _ archive: String) throws
        -> ProducerStateTable?
    {
        do throws(LogError) { return try ProducerStateTable.decode(bytes, path: path, at: offset) } catch {
            guard archive.hasSuffix("-torn") else { throw error }
            return nil
        }
    }

    @Test(.enabled(if: areThere))
    func aDirectoryThatKafkaStoppedCleanlyOpens() throws {
        let unpacked = try Unpacked("zk39-clean")
        let path = try #require(try unpacked.directories.first)
        let directory = try LogDirectory.open(path, on: unpacked.host.disk, owner: DirectoryOwner(brokerID: 1))
        #expect(directory.found.cleanStop == LogDirectory.CleanStop(brokerEpoch: -1))
        #expect(directory.found.metaProperties?.clusterID == "enecxb2hTL2x0WbIg8eByA")
        #expect(directory.found.offset(.logStart, TopicPartition("deleted-some", 0)) == 40)
        #expect(directory.found.offset(.recoveryPoint, TopicPartition("codec-zstd", 0)) == 198)
        #expect(directory.found.offset(.cleaner, TopicPartition("compacted", 0)) == 206)
        #expect(directory.found.partitions.count >= 37 && directory.found.unknownFolders.isEmpty)
        // what its own clean stop had synced is durable from the first moment on
        #expect(directory.durableOffsets.bound(of: TopicPartition("codec-zstd", 0)) == 198)
        #expect(try unpacked.host.disk.status(path + "/.kafka_cleanshutdown") == nil)
        try directory.closeCleanly(brokerEpoch: -1)
        #expect(
            try unpacked.host.disk.contents(path + "/.kafka_cleanshutdown")
                == Array("{\"version\":0,\"brokerEpoch\":-1}".utf8))
    }

    @Test(.enabled(if: areThere))
    func aKilledDirectoryHasNoMarker() throws {
        let unpacked = try Unpacked("zk39-killed")
        let path = try #require(try unpacked.directories.first)
        let directory = try LogDirectory.open(path, on: unpacked.host.disk)
        #expect(directory.found.cleanStop == nil)
        directory.close()
    }

    @Test(.enabled(if: areThere))
    func aMovedReplicasFoldersAreToldApart() throws {
        let unpacked = try Unpacked("zk39-jbod")
        let path = try #require(try unpacked.directories.first { $0.hasSuffix("/d1") })
        let directory = try LogDirectory.open(path, on: unpacked.host.disk)
        let kinds = directory.found.partitions.filter { $0.kind != .live }.map { "\($0.partition) \($0.kind)" }
        #expect(kinds == ["moved-0 deleted", "moving-0 future"])
        directory.close()
    }
}
