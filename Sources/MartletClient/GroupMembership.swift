import MartletBasics
package import MartletModel
import MartletReactor
import MartletWire

/// A member of a consumer group in its classic protocol, with the `range` assignor, which every client has.
///
///     join() ──> the partitions that are this member's ──> read and commit them, while `mustRejoin` is false
///       └──────────────────────────────── commit, join again <── a heartbeat says that the group changes
///     leave()
///
/// Whoever is the leader says who reads what: that may be this member, or one of another client. Heartbeats go on by
/// themselves between `join` and `leave`. Confined to the client's loop.
package final class GroupMembership: @unchecked Sendable {
    private static let assignor = "range"
    private static let heartbeatInterval = Interval.seconds(3)
    /// A member that is not heard of for so long is out.
    private static let sessionTimeout = Interval.seconds(45)
    /// How long the group waits for its members to come together.
    private static let rebalanceTimeout = Interval.seconds(60)

    package let group: String
    package let topics: [String]
    private let client: Client
    private var memberID = ""
    private var generation: Int32 = -1
    private var isJoined = false
    private var isBeating = false
    private var failure: ClientError?
    /// The group changes: what was assigned is this member's no longer, once it has joined again.
    package private(set) var mustRejoin = false

    package init(_ client: Client, group: String, topics: [String]) {
        self.client = client
        self.group = group
        self.topics = topics
    }

    // MARK: Joining

    /// Joins, or joins again; the partitions to read, sorted. Waits until the other members have come together.
    package func join() async throws(ClientError) -> [TopicPartition] {
        var patience = Patience(client)
        while true {
            do throws(ClientError) {
                let partitions = try await attempt()
                mustRejoin = false
                isJoined = true
                startBeating()
                return partitions
            } catch {
                // the group changed again while this member joined
                guard Self.callsForJoining(error.code), patience.isLeft else { throw error }
                if error.code == .unknownMemberID { memberID = "" }
                await patience.wait()
            }
        }
    }

    private static func callsForJoining(_ code: ErrorCode?) -> Bool {
        code == .rebalanceInProgress || code == .unknownMemberID || code == .illegalGeneration
    }

    private func attempt() async throws(ClientError) -> [TopicPartition] {
        var joined = try await sendJoin()
        if joined.message.errorCode == .memberIDRequired {
            memberID = joined.message.memberID
            joined = try await sendJoin()
        }
        let message = joined.message
        guard message.errorCode == .none else {
            throw .refused(what: "joining group \(group)", message.errorCode, message: nil)
        }
        memberID = message.memberID
        generation = message.generationID
        var assignments: [String: [TopicPartition]] = [:]
        if message.leader == message.memberID, !message.skipAssignment {
            assignments = try await assign(message, joined.frame.bytes)
        }
        return try await sync(assignments, protocolName: message.protocolName)
    }

    private func sendJoin() async throws(ClientError) -> Answer<JoinGroupResponse> {
        var subscription = ConsumerProtocolSubscription()
        subscription.topics = topics
        let metadata = try encoded { () throws(EncodingFault) in try subscription.prefixedBytes(version: 0) }
        let limit = Self.rebalanceTimeout + Interval.seconds(5)
        return try await client.ask(.coordinator(of: group), within: limit, judging: { $0.errorCode }) {
            (_) throws(ClientError) -> JoinGroupRequest in
            var spoken = JoinGroupRequest.JoinGroupRequestProtocol()
            spoken.name = Self.assignor
            spoken.metadata = .owned(metadata)
            var request = JoinGroupRequest()
            request.groupID = group
            request.sessionTimeoutMs = Int32(clamping: Self.sessionTimeout.milliseconds)
            request.rebalanceTimeoutMs = Int32(clamping: Self.rebalanceTimeout.milliseconds)
            request.memberID = memberID
            request.protocolType = "consumer"
            request.protocols = [spoken]
            return request
        }
    }

    private func sync(
        _ assignments: [String: [TopicPartition]], protocolName: String?
    ) async throws(ClientError) -> [TopicPartition] {
        var entries: [SyncGroupRequest.SyncGroupRequestAssignment] = []
        for member in assignments.keys.sorted() {
            let bytes = try encoded { () throws(EncodingFault) in
                try ConsumerAssignment.bytes(assignments[member] ?? [])
            }
            var entry = SyncGroupRequest.SyncGroupRequestAssignment()
            entry.memberID = member
            entry.assignment = .owned(bytes)
            entries.append(entry)
        }
        let told = entries
        let answer = try await client.ask(
            .coordinator(of: group), within: Self.rebalanceTimeout, judging: { $0.errorCode }
        ) { (_) throws(ClientError) -> SyncGroupRequest in
            var request = SyncGroupRequest()
            request.groupID = group
            request.generationID = generation
            request.memberID = memberID
            request.protocolType = "consumer"
            request.protocolName = protocolName
            request.assignments = told
            return request
        }
        guard answer.message.errorCode == .none else {
            throw .refused(what: "joining group \(group)", answer.message.errorCode, message: nil)
        }
        return ConsumerAssignment.partitions(answer.message.assignment.array(in: answer.frame.bytes))
    }

    private func encoded(_ encode: () throws(EncodingFault) -> [UInt8]) throws(ClientError) -> [UInt8] {
        do throws(EncodingFault) { return try encode() } catch { throw .invalid("\(error)") }
    }

    // MARK: As the leader

    private func assign(
        _ message: JoinGroupResponse, _ frame: UnsafeRawBufferPointer
    ) async throws(ClientError) -> [String: [TopicPartition]] {
        let members = message.members.map { member in
            RangeAssignor.Member(id: member.memberID, topics: Self.topics(member.metadata.array(in: frame)))
        }
        let names = Array(Set(members.flatMap(\.topics))).sorted()
        let view = try await client.refresh(topics: names)
        let counts = names.compactMap { name in
            view.topic(name).flatMap { $0.error == .none ? (topic: name, partitions: $0.partitions.count) : nil }
        }
        return RangeAssignor.assign(counts, to: members)
    }

    /// What a member subscribed to, whatever its version: later ones only add to the end.
    private static func topics(_ metadata: [UInt8]) -> [String] {
        let read = metadata.withUnsafeBytes { bytes in
            Result { () throws(DecodingFault) in
                var reader = ByteReader(bytes)
                _ = try reader.int16()
                return try ConsumerProtocolSubscription.decode(from: &reader, version: 0).topics
            }
        }
        return (try? read.get()) ?? []
    }

    // MARK: Heartbeats

    private func startBeating() {
        guard !isBeating else { return }
        isBeating = true
        client.loop.spawn { [self] in
            while isJoined {
                await client.loop.sleep(for: Self.heartbeatInterval)
                guard isJoined else { break }
                if !mustRejoin { await beat() }
            }
            isBeating = false
        }
    }

    private func beat() async {
        let beaten = generation
        do throws(ClientError) {
            let answer = try await client.ask(.coordinator(of: group), judging: { $0.errorCode }) {
                (_) throws(ClientError) -> HeartbeatRequest in
                var request = HeartbeatRequest()
                request.groupID = group
                request.generationID = generation
                request.memberID = memberID
                return request
            }
            let code = answer.message.errorCode
            // it has joined again meanwhile
            guard generation == beaten else { return }
            if Self.callsForJoining(code) {
                if code == .unknownMemberID { memberID = "" }
                mustRejoin = true
            } else if code != .none {
                failure = .refused(what: "staying in group \(group)", code, message: nil)
            }
        } catch {
            failure = error
        }
    }

    /// Throws what a heartbeat found that cannot be mended by joining again.
    package func check() throws(ClientError) {
        if let failure { throw failure }
    }

    // MARK: Offsets

    /// Commits as this member. False where the group has changed meanwhile: then they count for nothing.
    package func commit(_ offsets: [(partition: TopicPartition, offset: Offset)]) async throws(ClientError) -> Bool {
        guard !offsets.isEmpty else { return true }
        let outcomes = try await client.commit(offsets, for: group, as: (memberID, generation))
        guard let error = outcomes.lazy.compactMap(\.error).first else { return true }
        guard Self.callsForJoining(error.code) else { throw error }
        mustRejoin = true
        return false
    }

    /// Leaves, so that the others need not wait until this member is missed.
    package func leave() async {
        guard isJoined, !memberID.isEmpty else { return }
        isJoined = false
        _ = try? await client.ask(.coordinator(of: group), isRepeatable: false) {
            (version) throws(ClientError) -> LeaveGroupRequest in
            var request = LeaveGroupRequest()
            request.groupID = group
            if version >= 3 {
                var member = LeaveGroupRequest.MemberIdentity()
                member.memberID = memberID
                request.members = [member]
            } else {
                request.memberID = memberID
            }
            return request
        }
    }
}

/// Kafka's `range` assignor: each topic's partitions in stretches, to the members in the order of their ids; the first
/// get one more where they do not come out even.
package enum RangeAssignor {
    package struct Member: Sendable {
        package var id: String
        package var topics: [String]

        package init(id: String, topics: [String]) {
            self.id = id
            self.topics = topics
        }
    }

    /// By member; one that gets nothing has an empty list.
    package static func assign(
        _ counts: [(topic: String, partitions: Int)], to members: [Member]
    ) -> [String: [TopicPartition]] {
        var assigned: [String: [TopicPartition]] = [:]
        for member in members { assigned[member.id] = [] }
        for (topic, partitions) in counts {
            let readers = members.filter { $0.topics.contains(topic) }.map(\.id).sorted()
            guard !readers.isEmpty else { continue }
            let (each, more) = partitions.quotientAndRemainder(dividingBy: readers.count)
            var next = 0
            for (index, reader) in readers.enumerated() {
                let count = each + (index < more ? 1 : 0)
                let stretch = (next..<next + count).map { TopicPartition(topic, Int32($0)) }
                assigned[reader, default: []] += stretch
                next += count
            }
        }
        return assigned
    }
}
