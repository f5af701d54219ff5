import MartletBasics
import MartletCluster
import MartletModel
import MartletReactor
import MartletWire

/// Fetch 4-18: record batches from an offset on, as they lie in the log; waits up to `MaxWaitMs` for `MinBytes`.
///
/// Version 5 brought log start offsets, 7 sessions, 9 leader epochs, 11 racks, 12 the check of where logs part
/// (`LastFetchedEpoch`), 13 topic ids instead of names, 15 the replica's state as a tag, 16 the endpoints of new
/// leaders.
enum FetchHandler {
    static func handle(_ request: Request) throws {
        let asked = try request.decode(FetchRequest.self)
        let broker = request.broker
        let usesTopicIDs = request.version >= 13
        let limits = limits(of: asked, version: request.version, request.connection)
        let memory = broker.fetchMemory
        try checkCount(asked.topics.reduce(0) { $0 + $1.partitions.count }, memory)
        let wanted = targets(of: asked)
        let (id, epoch) = (asked.sessionID, asked.sessionEpoch)
        let cache = broker.fetchSessions

        // Epoch -1: no session, and the end of one that is named. 0: a new session, in place of one that is named.
        // Else: the next of a session.
        if epoch == -1 || epoch == 0 {
            if id != 0 { cache.remove(id) }
            guard epoch == 0, !wanted.isEmpty else {
                return try begin(request, limits, usesTopicIDs, session: nil, isFull: true, wanted)
            }
            let session = cache.create(wanted, usesTopicIDs: usesTopicIDs, now: broker.clock.now)
            return try begin(request, limits, usesTopicIDs, session: session, isFull: true, wanted)
        }
        switch cache.use(id, epoch: epoch, usesTopicIDs: usesTopicIDs, now: broker.clock.now) {
        case .refused(let error):
            var response = FetchResponse()
            response.errorCode = error
            try request.answer(response)
        case .session(let session):
            session.update(wanted, forgotten: forgotten(by: asked))
            guard session.targets.count <= memory.partitionsLimit, cache.resize(session) else {
                // the client asks for all of it again, and is told then what is wrong, or goes on without a session
                cache.remove(id)
                cache.release(session)
                var response = FetchResponse()
                response.errorCode = .fetchSessionIDNotFound
                return try request.answer(response)
            }
            guard !session.targets.isEmpty else {
                // with nothing left to read the session is over: the answer carries the id 0
                cache.remove(id)
                return try begin(request, limits, usesTopicIDs, session: nil, isFull: true, [])
            }
            try begin(request, limits, usesTopicIDs, session: session, isFull: false, session.targets)
        }
    }

    private static func begin(
        _ request: Request, _ limits: FetchLimits, _ usesTopicIDs: Bool, session: FetchSession?, isFull: Bool, _ targets: [FetchTarget]
    ) throws {
        let bytes = FetchMemory.bytes(ofFetch: targets.count)
        let hasRoom = request.broker.fetchMemory.takeFetch(bytes, isFollower: limits.follower != nil)
        let fetch = FetchUnderway(
            request, limits: limits, usesTopicIDs: usesTopicIDs, session: session, isFull: isFull, targets: targets,
            charged: hasRoom ? bytes : 0)
        guard hasRoom else { return try fetch.putOff(for: FetchMemory.pause) }
        try fetch.begin(request)
    }

    private static func checkCount(_ count: Int, _ memory: FetchMemory) throws(RequestFault) {
        guard count > memory.partitionsLimit else { return }
        throw RequestFault("a fetch of \(count) partitions, where \(memory.partitionsLimit) are the most")
    }

    private static func limits(of asked: FetchRequest, version: Int16, _ connection: Connection) -> FetchLimits {
        let replica = version >= 15 ? asked.replicaState.replicaID : asked.replicaID
        var maxBytes = Int(max(0, min(asked.maxBytes, connection.broker.config.fetchBytesLimit)))
        // more than the quota allows in all of its windows would be waited for in vain
        if replica < 0, let share = connection.fetchShare { maxBytes = min(maxBytes, share) }
        return FetchLimits(
            // more than may be answered would be waited for in vain
            minBytes: min(Int(asked.minBytes), maxBytes), maxBytes: maxBytes,
            maxWait: .milliseconds(Int64(asked.maxWaitMs)), readCommitted: asked.isolationLevel == 1,
            follower: replica >= 0 ? FollowerIdentity(broker: replica) : nil)
    }

    private static func targets(of asked: FetchRequest) -> [FetchTarget] {
        asked.topics.flatMap { topic in
            topic.partitions.map { partition in
                FetchTarget(
                    topicName: topic.topic, topicID: topic.topicID, partition: partition.partition,
                    fetchOffset: partition.fetchOffset, maxBytes: partition.partitionMaxBytes,
                    currentLeaderEpoch: partition.currentLeaderEpoch, lastFetchedEpoch: partition.lastFetchedEpoch,
                    logStartOffset: partition.logStartOffset)
            }
        }
    }

    private static func forgotten(by asked: FetchRequest) -> [FetchTarget] {
        asked.forgottenTopicsData.flatMap { topic in
            topic.partitions.map { partition in
                FetchTarget(
                    topicName: topic.topic, topicID: topic.topicID, partition: partition, fetchOffset: 0, maxBytes: 0,
                    currentLeaderEpoch: -1, lastFetchedEpoch: -1, logStartOffset: -1)
            }
        }
    }
}
