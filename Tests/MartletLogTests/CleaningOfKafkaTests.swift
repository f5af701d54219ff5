import MartletBasics
import MartletLog
import MartletModel
import MartletReactor
import Testing

/// Logs that Kafka wrote, and partly compacted, are compacted on; and the directory is sound afterwards.
@Suite(.serialized) struct CompactionOfWhatKafkaWrote {
    @Test(.enabled(if: KafkaData.isThere), arguments: ["zk39-clean", "kraft43-clean"])
    func goesOnWhereKafkaStopped(archive: String) throws {
        let top = try KafkaData.temporaryFolder()
        let disk = RealDisk()
        defer { try? disk.removeTree(top) }
        try #require(try KafkaData.run(["tar", "xJf", "\(KafkaData.folder)/\(archive).tar.xz", "-C", top]).status == 0)
        let directory = "\(top)/\(archive)"
        var ends = try OffsetCheckpoint.read(disk, directory + "/recovery-point-offset-checkpoint")
        let starts = try OffsetCheckpoint.read(disk, directory + "/log-start-offset-checkpoint")
        var rows = try OffsetCheckpoint.read(disk, directory + "/cleaner-offset-checkpoint")
        #expect(rows.count > 0)
        var dropped = 0, cleaned = 0
        for name in try disk.list(directory) {
            // those that Kafka compacted, and such as hold transactions, codecs and every shape of record
            guard let folder = PartitionFolder(parsing: name), folder.kind == .live,
                ["compact", "txn", "codec", "shapes", "idempotent", "__"].contains(where: { name.hasPrefix($0) })
            else { continue }
            let partition = folder.partition
            let world = LogWorld(disk: disk, folder: "\(directory)/\(name)", partition: partition, cutDirectory: top + "/cut")
            world.config.cleanupPolicy = .compact
            let log = try world.open(clean: true, recoveryPoint: ends[partition] ?? 0, logStart: starts[partition] ?? 0)
            log.noteHighWatermark(log.logEndOffset)
            let ledger = try CleaningLedger(log)
            let (start, end) = (log.logStartOffset, log.logEndOffset)
            // the active segment is not cleaned: what Kafka wrote becomes an older one
            try log.roll()
            try log.close(clean: true)
            let again = try world.open(clean: true, recoveryPoint: end, logStart: starts[partition] ?? 0)
            again.noteHighWatermark(end)
            // tombstones of 2024 have no horizon yet, or one that is over; both may be
            if let to = try again.clean(from: rows[partition], now: 1_700_000_000_000) {
                try ledger.expectNothingLostOrRevived(in: again, cleanedTo: to, name)
                try ledger.expectCleaned(again, to: to, tombstonesStay: false, name)
                dropped += ledger.recordCount - (try CleaningLedger(again).recordCount)
                cleaned += 1
                rows[partition] = to
            }
            #expect(again.logStartOffset == start && again.logEndOffset == end, "\(name)")
            try again.close(clean: true)
            ends[partition] = end
            for file in try disk.list(world.folder) where file.hasSuffix(".deleted") {
                try disk.remove(world.folder + "/" + file)
            }
        }
        #expect(cleaned > 5 && dropped > 100, "\(cleaned) partitions, \(dropped) records")
        try disk.replace(directory + "/recovery-point-offset-checkpoint", with: ends.encode())
        try disk.replace(directory + "/cleaner-offset-checkpoint", with: rows.encode())
        try KafkaData.expectSound([directory])
    }
}
