import MartletBasics
import MartletChecker
import MartletModel
import MartletReactor
import MartletSimulation
import MartletWire

/// Makes and deletes topics, adds partitions, deletes records, changes settings, commits for a group without members.
final class SwarmAdministrator: @unchecked Sendable {
    private static let passingLimit = 12
    private static let partitionsLimit: Int32 = 4
    private static let loneGroup = "lone"

    private let stage: Stage
    private let client: SimulatedClient
    private let workload: Set<Workload>
    private var random: SeededRandom
    private var passingCount = 0
    private var passing: [String] = []
    private var commitsCount: Int64 = 1_000_000
    private(set) var hasMadeTopics = false

    private var record: Recorder { stage.record }

    init(_ stage: Stage, _ client: SimulatedClient, workload: Set<Workload>, random: SeededRandom) {
        self.stage = stage
        self.client = client
        self.workload = workload
        self.random = random
    }

    func run() async {
        for topic in stage.topics { await make(topic.name, partitions: topic.partitions, configs: topic.compaction) }
        hasMadeTopics = true
        while !stage.isOver {
            await untilDone { () async throws(ClientFault) in try await self.learn() }
            await act()
            await stage.rest(client.loop, &random, busy: 5_000..<60_000)
        }
        client.close()
    }

    private func act() async {
        switch random.below(8) {
        case 0 where workload.contains(.topicChurn) && passingCount < Self.passingLimit:
            passingCount += 1
            let name = "passing-\(passingCount)"
            await make(name, partitions: Int32(1 + random.below(2)))
            passing.append(name)
        case 1 where workload.contains(.topicChurn) && !passing.isEmpty:
            await delete(passing.remove(at: random.below(passing.count)))
        case 2 where workload.contains(.morePartitions): await grow(random.below(stage.topics.count))
        case 3 where workload.contains(.configChanges): await changeConfig(random.below(stage.topics.count))
        case 4 where workload.contains(.deleteRecords): await deleteRecords()
        case 5, 6:
            if workload.contains(.loneCommits) { await commitAlone() }
        default: await lookAtTopics()
        }
    }

    /// Tries until it is done, or the end.
    private func untilDone(_ attempt: () async throws(ClientFault) -> Bool) async {
        while true {
            do throws(ClientFault) {
                if !client.isConnected { try await client.connect(to: stage.broker) }
                if try await attempt() { return }
            } catch {
                stage.note(error, of: client.name)
            }
            await client.loop.sleep(for: .milliseconds(Int64(20 + random.below(300))))
        }
    }

    /// Tries once; an answer that does not come is none.
    private func once(_ attempt: () async throws(ClientFault) -> Void) async {
        do throws(ClientFault) {
            if !client.isConnected { try await client.connect(to: stage.broker) }
            try await attempt()
        } catch {
            stage.note(error, of: client.name)
        }
    }

    private func learn() async throws(ClientFault) -> Bool {
        guard record.advertised.isEmpty else { return true }
        let response = try await client.ask(ApiVersionsRequest(), version: 0)
        record.advertises(response.apiKeys.map(\.apiKey))
        return true
    }

    // MARK: Topics

    private func make(_ name: String, partitions: Int32, configs: [(name: String, value: String)] = []) async {
        if !configs.isEmpty { record.note(.compacted(topic: name)) }
        let operation = record.operation()
        record.note(.makeTopic(operation: operation, topic: name, partitions: Int(partitions)))
        var attempts = 0
        await untilDone { () async throws(ClientFault) in
            attempts += 1
            let error = try await self.client.createTopic(name, partitions: partitions, configs: configs).errorCode
            if error == .topicAlreadyExists, attempts == 1 { self.record.broken("topic \(name) was there before it was made") }
            return error == .none || error == .topicAlreadyExists
        }
        record.note(.told(operation: operation, .accepted(at: nil)))
    }

    private func delete(_ name: String) async {
        let operation = record.operation()
        record.note(.deleteTopic(operation: operation, topic: name))
        var attempts = 0
        await untilDone { () async throws(ClientFault) in
            attempts += 1
            let error = try await self.client.deleteTopic(name)
            if error == .unknownTopicOrPartition, attempts == 1 {
                self.record.broken("topic \(name) was to be deleted, and was not there")
            }
            return error == .none || error == .unknownTopicOrPartition
        }
        record.note(.told(operation: operation, .accepted(at: nil)))
    }

    private func grow(_ index: Int) async {
        let topic = stage.topics[index]
        guard topic.partitions < Self.partitionsLimit, !topic.mayRot else { return }
        let wanted = topic.partitions + 1
        let operation = record.operation()
        record.note(.makeTopic(operation: operation, topic: topic.name, partitions: Int(wanted)))
        await untilDone { () async throws(ClientFault) in
            var grown = CreatePartitionsRequest.CreatePartitionsTopic()
            grown.name = topic.name
            grown.count = wanted
            grown.assignments = nil
            var request = CreatePartitionsRequest()
            request.topics = [grown]
            request.timeoutMs = 30_000
            let response = try await self.client.ask(request, version: 3)
            if response.results.first?.errorCode == ErrorCode.none { return true }
            let found = try await self.client.metadata(of: [topic.name]).topics.first
            return found?.partitions.count == Int(wanted)
        }
        record.note(.told(operation: operation, .accepted(at: nil)))
        stage.topics[index].partitions = wanted
    }

    private func lookAtTopics() async {
        await once { () async throws(ClientFault) in
            let asked = self.record.now
            let response = try await self.client.metadata()
            guard response.topics.allSatisfy({ $0.errorCode == .none }) else { return }
            var counts: [String: Int] = [:]
            for topic in response.topics { counts[topic.name ?? ""] = topic.partitions.count }
            self.record.note(.topics(asked: asked, counts))
        }
    }

    private func changeConfig(_ index: Int) async {
        let choices = [
            ("compression.type", ["producer", "gzip", "snappy", "lz4", "zstd", "uncompressed"]),
            ("flush.messages", ["1", "3", "9223372036854775807"]), ("segment.bytes", ["4096", "20000", "1048576"]),
            ("message.timestamp.type", ["CreateTime", "LogAppendTime"]),
        ]
        let (name, values) = choices[random.below(choices.count)]
        let value = values[random.below(values.count)]
        await once { () async throws(ClientFault) in
            var config = IncrementalAlterConfigsRequest.AlterableConfig()
            config.name = name
            config.value = value
            var resource = IncrementalAlterConfigsRequest.AlterConfigsResource()
            resource.resourceType = 2
            resource.resourceName = self.stage.topics[index].name
            resource.configs = [config]
            var request = IncrementalAlterConfigsRequest()
            request.resources = [resource]
            let response = try await self.client.ask(request, version: 1)
            let error = response.responses.first?.errorCode ?? .none
            if error == .invalidConfig || error == .invalidRequest {
                self.record.broken("\(name)=\(value) was refused with \(error)")
            }
        }
    }

    private func deleteRecords() async {
        let topic = stage.topics[random.below(stage.topics.count)]
        // by its policy, nothing else may be deleted from a compacted one
        guard !topic.isCompacted else { return }
        let place = Place(topic.name, random.below(Int(topic.partitions)))
        guard let end = record.highWatermarks[place], end > 0 else { return }
        let before = Int64(random.below(Int(end) + 1))
        await once { () async throws(ClientFault) in
            var part = DeleteRecordsRequest.DeleteRecordsPartition()
            part.partitionIndex = Int32(place.partition)
            part.offset = before
            var named = DeleteRecordsRequest.DeleteRecordsTopic()
            named.name = place.topic
            named.partitions = [part]
            var request = DeleteRecordsRequest()
            request.topics = [named]
            request.timeoutMs = 30_000
            let operation = self.record.operation()
            self.record.note(.deleteRecords(operation: operation, place: place, before: before))
            let response = try await self.client.ask(request, version: 2)
            guard let answer = response.topics.first?.partitions.first else { throw .malformed("no answer for the partition") }
            if answer.errorCode == .none, answer.lowWatermark < before {
                self.record.broken("\(place) was to begin at \(before), and begins at \(answer.lowWatermark)")
            }
            self.record.note(
                .told(
                    operation: operation,
                    answer.errorCode == .none ? .accepted(at: answer.lowWatermark) : .unknown("\(answer.errorCode)")))
        }
    }

    // MARK: A group without members

    private func commitAlone() async {
        let place = Place(stage.topics[0].name, random.below(Int(stage.topics[0].partitions)))
        switch random.below(5) {
        case 0...2:
            commitsCount += 1
            await change(place, to: commitsCount) { () async throws(ClientFault) in
                try await self.client.commit(
                    GroupIdentity(group: Self.loneGroup, member: ""), .newest, place.topic, Int32(place.partition),
                    self.commitsCount)
            }
        case 3:
            await change(place, to: nil) { () async throws(ClientFault) in
                var part = OffsetDeleteRequest.OffsetDeleteRequestPartition()
                part.partitionIndex = Int32(place.partition)
                var named = OffsetDeleteRequest.OffsetDeleteRequestTopic()
                named.name = place.topic
                named.partitions = [part]
                var request = OffsetDeleteRequest()
                request.groupID = Self.loneGroup
                request.topics = [named]
                let response = try await self.client.ask(request, version: 0)
                guard response.errorCode == .none else { return response.errorCode }
                return response.topics.first?.partitions.first?.errorCode ?? .unknownServerError
            }
        default: await readAlone(place)
        }
    }

    private func change(
        _ place: Place, to offset: Int64?, _ ask: () async throws(ClientFault) -> ErrorCode
    ) async {
        await once { () async throws(ClientFault) in
            let operation = self.record.operation()
            self.record.note(.commit(operation: operation, group: Self.loneGroup, place: place, offset: offset))
            let error = try await ask()
            switch error {
            case .none: self.record.note(.told(operation: operation, .accepted(at: nil)))
            case .groupIDNotFound: self.record.note(.told(operation: operation, .refused("\(error)")))
            default: self.record.note(.told(operation: operation, .unknown("\(error)")))
            }
        }
    }

    private func readAlone(_ place: Place) async {
        await once { () async throws(ClientFault) in
            let asked = self.record.now
            guard let found = try await self.client.committed(Self.loneGroup, place.topic, [Int32(place.partition)]) else {
                return
            }
            self.record.note(.committed(group: Self.loneGroup, place: place, asked: asked, offset: found[0].offset))
        }
    }
}
