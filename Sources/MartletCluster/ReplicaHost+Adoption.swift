import MartletBasics
package import MartletLog
package import MartletModel
import MartletReactor

/// What was found in the log directories, for whoever has to know it before any of it is served.
extension ReplicaHost {
    package var foundReplicas: Set<TopicPartition> {
        Set(units.lazy.flatMap { $0.directory.found.partitions.lazy.filter { $0.kind == .live }.map(\.partition) })
    }

    package var foundTopics: [FoundTopic] {
        var indexes: [String: Set<Int32>] = [:], compacted: Set<String> = []
        var ids: [String: [(partition: Int32, id: UUID)]] = [:]
        for unit in units {
            for folder in unit.directory.found.partitions where folder.kind == .live {
                let id = folder.partition
                indexes[id.topic, default: []].insert(id.partition)
                if unit.directory.found.offset(.cleaner, id) != nil { compacted.insert(id.topic) }
                let path = unit.path + "/" + folder.name + "/" + PartitionMetadata.fileName
                guard let bytes = try? host.disk.contents(path), let metadata = try? PartitionMetadata.decode(bytes, path: path)
                else { continue }
                ids[id.topic, default: []].append((id.partition, metadata.topicID))
            }
        }
        return indexes.keys.sorted().map {
            FoundTopic(
                name: $0, id: Self.commonest(ids[$0] ?? []), partitions: indexes[$0]!.sorted(),
                wasCompacted: compacted.contains($0))
        }
    }

    /// A folder with another id than the others of its topic was left from an earlier topic of the name.
    private static func commonest(_ folders: [(partition: Int32, id: UUID)]) -> UUID? {
        var counts: [UUID: Int] = [:]
        for folder in folders { counts[folder.id, default: 0] += 1 }
        guard let most = counts.values.max() else { return nil }
        return folders.filter { counts[$0.id] == most }.min { $0.partition < $1.partition }?.id
    }

    package var missingDirectories: [String] {
        config.logDirs.filter { path in !units.contains { $0.path == path && !$0.directory.isOffline } }
    }

    package func survey() async throws(LogError) -> ReplicaSurvey {
        let replicas = units.flatMap { unit in
            unit.directory.found.partitions.filter { $0.kind == .live }.map {
                (path: unit.path + "/" + $0.name, id: $0.partition, isClean: unit.directory.found.cleanStop != nil)
            }
        }
        return try await onBulk { [disk = host.disk] in
            var survey = ReplicaSurvey()
            for replica in replicas {
                let found = PartitionSurvey.read(replica.path, of: replica.id, on: disk, isClean: replica.isClean)
                if found.leaderEpoch >= 0 {
                    survey.leaderEpochs[replica.id] = max(found.leaderEpoch, survey.leaderEpochs[replica.id] ?? -1)
                }
                survey.highestProducerID = max(survey.highestProducerID, found.producerID)
            }
            return survey
        }
    }

    /// Says once, for each directory, what lies there and is not served.
    func sayWhatIsLeftAlone(_ directory: LogDirectory) {
        let found = directory.found
        func say(_ message: String, _ names: [String], isUsual: Bool = false) {
            guard !names.isEmpty else { return }
            let shown = names.prefix(Self.namesToldLimit).joined(separator: ",")
            let more = names.count > Self.namesToldLimit ? " and \(names.count - Self.namesToldLimit) more" : ""
            let (place, folders) = (("directory", directory.path), ("folders", shown + more))
            if isUsual { logger.info(message, place, folders) } else { logger.warning(message, place, folders) }
        }
        func names(_ kind: PartitionFolder.Kind) -> [String] { found.partitions.filter { $0.kind == kind }.map(\.name) }
        say("folders of no partition are left alone", found.unknownFolders)
        say("replicas that were put aside as stray are left alone: remove them when nobody wants them", names(.stray))
        say(
            "the log of a KRaft controller is left alone: this cluster's state is kept elsewhere", found.metadataFolders,
            isUsual: true)
        say("folders of deleted partitions are removed soon", names(.deleted), isUsual: true)
    }
}
