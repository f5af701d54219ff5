package import MartletBasics
package import MartletModel
import MartletWire

/// Reads partitions from given offsets on, in the order of each.
///
///     let consumer = Consumer(client, from: [(partition, 0)])
///     for fetched in try await consumer.poll() {
///         while try fetched.nextBatch({ record in …; return true }) {}
///         consumer.advance(fetched)
///     }
///
/// A leader that moved or a connection that was lost is waited out, for as long as one operation of the client may take.
/// Memory holds one answer a broker (`Settings.answerBytesLimit`; one batch that is larger comes whole) and one batch.
package final class Consumer: @unchecked Sendable {
    package struct Settings: Sendable {
        /// How long a broker waits for something to come.
        package var waitLimit = Interval.milliseconds(500)
        package var answerBytesLimit: Int32 = 8 << 20
        package var partitionBytesLimit: Int32 = 1 << 20
        /// Only records of transactions that were committed, and of none.
        package var isCommitted = false

        package init() {}
    }

    /// Records that had been deleted before they were read.
    package struct Skipped: Sendable, Equatable {
        package var partition: TopicPartition
        package var from: Offset
        package var to: Offset
    }

    private struct Place {
        var partition: TopicPartition
        var offset: Offset
        /// Whether something was read from here: then an offset out of range means that the log was cut meanwhile.
        var hasProgress = false
        var bytesLimit: Int32
    }

    private let client: Client
    private let settings: Settings
    private let contexts = CodecContexts()
    private var places: [Place]
    private var nextFirst = 0
    private var patience: Patience
    /// What was left out so far, for the caller to tell.
    package private(set) var skipped: [Skipped] = []

    package init(
        _ client: Client, from positions: [(partition: TopicPartition, offset: Offset)], settings: Settings = Settings()
    ) {
        self.client = client
        self.settings = settings
        places = positions.map {
            Place(partition: $0.partition, offset: $0.offset, bytesLimit: settings.partitionBytesLimit)
        }
        patience = Patience(client)
    }

    /// Where the next record of each partition is read.
    package var positions: [(partition: TopicPartition, offset: Offset)] { places.map { ($0.partition, $0.offset) } }

    /// Takes the reading on behind what was read of these records.
    package func advance(_ records: FetchedRecords) {
        guard let index = places.firstIndex(where: { $0.partition == records.partition }) else { return }
        if records.nextOffset > places[index].offset {
            places[index].offset = records.nextOffset
            places[index].hasProgress = true
            places[index].bytesLimit = settings.partitionBytesLimit
        } else if let wanted = records.bytesWanted {
            places[index].bytesLimit = Int32(clamping: min(wanted, BrokerConnection.frameBytesLimit / 2))
        }
    }

    /// Stops reading a partition.
    package func drop(_ partition: TopicPartition) { places.removeAll { $0.partition == partition } }

    /// Asks the leaders of all partitions once; what they have, which may be nothing.
    package func poll() async throws(ClientError) -> [FetchedRecords] {
        guard !places.isEmpty else { return [] }
        if places.contains(where: { client.cluster.leader(of: $0.partition) == nil }) {
            try await client.refresh(topics: places.map(\.partition).topicNames)
        }
        // one partition does not always come first, or it would keep the others from their turn
        nextFirst = (nextFirst + 1) % places.count
        let order = Array(places.indices[nextFirst...]) + Array(places.indices[..<nextFirst])
        let (byLeader, leaderless) = client.grouped(order) { places[$0].partition }
        let asked = places
        let results = await client.concurrently(byLeader) { [self] group in
            await fetch(group.indices.map { asked[$0] }, from: group.leader)
        }
        var records: [FetchedRecords] = []
        var fault = leaderless.first.map { client.leaderFault(of: places[$0].partition) }
        for result in results {
            switch result {
            case .success(let parts):
                for part in parts {
                    switch try await settle(part) {
                    case .success(let some): records += some
                    case .failure(let error): fault = fault ?? error
                    }
                }
            case .failure(let error): fault = fault ?? error
            }
        }
        if let fault { try await waitOut(fault) } else { patience = Patience(client) }
        return records.sorted { $0.partition < $1.partition }
    }

    /// A fault that may pass is given time; another is thrown.
    private func waitOut(_ fault: ClientError) async throws(ClientError) {
        guard Client.callsForAnotherTry(fault), patience.isLeft else { throw fault }
        await patience.wait()
        try await client.refresh(topics: places.map(\.partition).topicNames)
    }

    private struct Part {
        var partition: TopicPartition
        var offset: Offset
        var result: Result<FetchedRecords, ClientError>
    }

    private func settle(_ part: Part) async throws(ClientError) -> Result<[FetchedRecords], ClientError> {
        switch part.result {
        case .success(let records): return .success([records])
        case .failure(let error):
            guard error.code == .offsetOutOfRange else { return .failure(error) }
            let start = try await client.offsets(.earliest, of: [part.partition])
            guard let index = places.firstIndex(where: { $0.partition == part.partition }), places[index].hasProgress,
                let offset = start.first?.offset, offset > part.offset
            else { throw error }
            skipped.append(Skipped(partition: part.partition, from: part.offset, to: offset))
            places[index].offset = offset
            return .success([])
        }
    }

    // MARK: One broker

    private func fetch(_ asked: [Place], from leader: BrokerID) async -> Result<[Part], ClientError> {
        do throws(ClientError) {
            // from version 13 on topics go by id
            let answer = try await client.ask(.broker(leader), atMost: 12, once: true) {
                (version) throws(ClientError) -> FetchRequest in request(asked, version)
            }
            guard answer.message.errorCode == .none else {
                throw .refused(what: "Fetch", answer.message.errorCode, message: nil)
            }
            return .success(asked.map { place in part(place, answer) })
        } catch {
            return .failure(error)
        }
    }

    private func request(_ asked: [Place], _ version: Int16) -> FetchRequest {
        var request = FetchRequest()
        request.maxWaitMs = Int32(clamping: settings.waitLimit.milliseconds)
        request.minBytes = 1
        request.maxBytes = max(settings.answerBytesLimit, asked.map(\.bytesLimit).max() ?? 0)
        request.isolationLevel = settings.isCommitted ? 1 : 0
        var topics: [FetchRequest.FetchTopic] = []
        for place in asked {
            var part = FetchRequest.FetchPartition()
            part.partition = place.partition.partition
            part.fetchOffset = place.offset
            part.partitionMaxBytes = place.bytesLimit
            if let index = topics.firstIndex(where: { $0.topic == place.partition.topic }) {
                topics[index].partitions.append(part)
            } else {
                var topic = FetchRequest.FetchTopic()
                topic.topic = place.partition.topic
                topic.partitions = [part]
                topics.append(topic)
            }
        }
        request.topics = topics
        return request
    }

    private func part(_ place: Place, _ answer: Answer<FetchResponse>) -> Part {
        let topic = answer.message.responses.first { $0.topic == place.partition.topic }
        guard let found = topic?.partitions.first(where: { $0.partitionIndex == place.partition.partition }) else {
            let reason = "it says nothing of \(place.partition)"
            return Part(
                partition: place.partition, offset: place.offset,
                result: .failure(.malformedAnswer(what: "Fetch", broker: answer.broker, reason: reason)))
        }
        guard found.errorCode == .none else {
            return Part(
                partition: place.partition, offset: place.offset,
                result: .failure(
                    .refused(what: "offset \(place.offset) of \(place.partition)", found.errorCode, message: nil)))
        }
        var range = ByteRange(offset: 0, count: 0)
        if case .inFrame(let lies)? = found.records { range = lies }
        let aborted = found.abortedTransactions?.map { (producer: $0.producerID, first: $0.firstOffset) }
        let records = FetchedRecords(
            place.partition, from: place.offset, answer: answer.frame, records: range,
            highWatermark: found.highWatermark, lastStableOffset: found.lastStableOffset, logStart: found.logStartOffset,
            aborted: settings.isCommitted ? aborted ?? [] : nil, contexts: contexts)
        return Part(partition: place.partition, offset: place.offset, result: .success(records))
    }
}
