package import MartletBasics
package import MartletModel

package typealias GroupWriteFailure = CoordinatorFailure

/// When an event happens, for a machine that has no clock.
package struct GroupMoment: Sendable {
    package var now: Instant
    /// What records carry.
    package var wallMilliseconds: Int64
    /// The broker's memory for groups is used up: nobody new is let in.
    package var isFull: Bool
    package var surroundings: GroupSurroundings

    package init(
        now: Instant, wallMilliseconds: Int64, isFull: Bool = false, surroundings: GroupSurroundings = .nothing
    ) {
        self.surroundings = surroundings
        self.now = now
        self.wallMilliseconds = wallMilliseconds
        self.isFull = isFull
    }
}

/// What a broker's settings say of groups.
package struct GroupSettings: Sendable {
    package var sizeLimit = Int(Int32.max)
    package var sessionTimeoutsMs: ClosedRange<Int32> = 6_000...1_800_000
    package var initialDelay = Interval.seconds(3)
    package var offsetMetadataLimit = 4_096
    package var offsetsRetentionMs: Int64 = 10_080 * 60_000
    /// What the record of one group may be: it has to fit into one batch of the log.
    package var recordBytesLimit = 1 << 20
    package var consumer = ConsumerGroupSettings()
    /// How long members of groups of another broker's making count as there, after they were read.
    package var foreignMembersTimeout = Interval.seconds(45)

    package init() {}
}

/// JoinGroup.
package struct JoinGroupEvent: Sendable {
    package var group: String
    package var memberID = ""
    package var instanceID: String?
    package var clientID = ""
    package var clientHost = ""
    package var sessionTimeoutMs: Int32 = 30_000
    package var rebalanceTimeoutMs: Int32 = 30_000
    package var protocolType = "consumer"
    package var protocols: [GroupProtocol] = []
    /// Who has no member id is given one, and must come back with it (version 4).
    package var requiresKnownMember = true
    /// Can be told to lead without assigning (version 9).
    package var canSkipAssignment = true

    package init(group: String) { self.group = group }
}

package struct JoinGroupReply: Equatable, Sendable {
    package struct Member: Equatable, Sendable {
        package var id: String
        package var instanceID: String?
        package var metadata: [UInt8]
    }

    package var error = ErrorCode.none
    package var generation: Int32 = -1
    package var protocolType: String?
    package var protocolName: String?
    package var leader = ""
    package var skipAssignment = false
    package var memberID: String
    /// For the leader alone.
    package var members: [Member] = []

    package init(memberID: String) { self.memberID = memberID }

    package init(_ error: ErrorCode, memberID: String) {
        self.error = error
        self.memberID = memberID
    }
}

/// SyncGroup.
package struct SyncGroupEvent: Sendable {
    package var group: String
    package var memberID: String
    package var instanceID: String?
    package var generation: Int32
    /// Nil where the client did not say.
    package var protocolType: String?
    package var protocolName: String?
    /// From the leader.
    package var assignments: [(memberID: String, assignment: [UInt8])] = []

    package init(group: String, memberID: String, generation: Int32) {
        self.group = group
        self.memberID = memberID
        self.generation = generation
    }
}

package struct SyncGroupReply: Equatable, Sendable {
    package var error = ErrorCode.none
    package var protocolType: String?
    package var protocolName: String?
    package var assignment: [UInt8] = []

    package init(error: ErrorCode = .none) { self.error = error }
}

/// Heartbeat.
package struct HeartbeatEvent: Sendable {
    package var group: String
    package var memberID: String
    package var instanceID: String?
    package var generation: Int32

    package init(group: String, memberID: String, instanceID: String? = nil, generation: Int32) {
        self.group = group
        self.memberID = memberID
        self.instanceID = instanceID
        self.generation = generation
    }
}

/// LeaveGroup.
package struct LeaveGroupEvent: Sendable {
    package struct Member: Sendable {
        /// Empty: whoever has the instance id.
        package var id: String
        package var instanceID: String?

        package init(id: String, instanceID: String? = nil) {
            self.id = id
            self.instanceID = instanceID
        }
    }

    package var group: String
    package var members: [Member]

    package init(group: String, members: [Member]) {
        self.group = group
        self.members = members
    }
}

/// OffsetCommit, of partitions that exist.
package struct OffsetCommitEvent: Sendable {
    package struct Partition: Sendable {
        package var topic: String
        package var topicID: UUID
        package var partition: Int32
        package var offset: Offset
        package var leaderEpoch: LeaderEpoch
        package var metadata: String?

        package init(
            topic: String, topicID: UUID = .zero, partition: Int32, offset: Offset, leaderEpoch: LeaderEpoch = -1,
            metadata: String? = nil
        ) {
            self.topic = topic
            self.topicID = topicID
            self.partition = partition
            self.offset = offset
            self.leaderEpoch = leaderEpoch
            self.metadata = metadata
        }
    }

    package var group: String
    /// Below zero from who manages its partitions itself.
    package var generation: Int32 = -1
    package var memberID = ""
    package var instanceID: String?
    /// How long the offsets are to be kept; -1: as the settings say.
    package var retentionMs: Int64 = -1
    /// What a commit in a generation of a group that is not there is told: from version 9 on that it is not there.
    package var absentGroupError = ErrorCode.groupIDNotFound
    /// The producer in whose transaction the offsets are committed (TxnOffsetCommit), where it is one.
    package var producer: ProducerIdentity?
    /// What the coordinator of transactions has against it.
    package var refusal = ErrorCode.none
    /// The generation may be the epoch of a member of a consumer group (version 9).
    package var knowsMemberEpochs = true
    package var partitions: [Partition] = []

    package init(group: String) { self.group = group }
}

/// OffsetDelete, of partitions that exist.
package struct OffsetDeleteEvent: Sendable {
    package var group: String
    package var partitions: [TopicPartition]

    package init(group: String, partitions: [TopicPartition]) {
        self.group = group
        self.partitions = partitions
    }
}

package struct DeletedTopic: Hashable, Sendable {
    package var name: String
    package var id: UUID

    package init(name: String, id: UUID) {
        self.name = name
        self.id = id
    }
}

/// What happens to the groups of a partition of `__consumer_offsets`.
package enum GroupEvent: CoordinatorEvent, Sendable {
    case consumerHeartbeat(ConsumerHeartbeatEvent, GroupTicket)
    /// What a search found.
    case patternsFound(PatternFindings)
    case join(JoinGroupEvent, GroupTicket)
    case sync(SyncGroupEvent, GroupTicket)
    case heartbeat(HeartbeatEvent, GroupTicket)
    case leave(LeaveGroupEvent, GroupTicket)
    case commit(OffsetCommitEvent, GroupTicket)
    /// A transaction that offsets are in ends, as its coordinator says.
    case endTransaction(TransactionEnd, GroupTicket)
    case deleteOffsets(OffsetDeleteEvent, GroupTicket)
    case deleteGroup(String, GroupTicket)
    /// The topics are gone from the cluster, and what was committed for them is of no more use.
    case topicsDeleted([DeletedTopic])
    /// It is time to look for offsets that nobody has needed for long, and for groups without any.
    case expireOffsets
    /// `nextDeadline` may have come.
    case timePassed
    /// What became of an append: its first record's offset, or why it is not there.
    case written(UInt64, Result<Offset, GroupWriteFailure>)
}

/// What a request is answered with.
package enum GroupReply: Equatable, CoordinatorReply {
    /// An error of the whole request; for heartbeats and deletions the only one.
    case failed(ErrorCode)
    case done
    case joined(JoinGroupReply)
    case synced(SyncGroupReply)
    case consumerHeartbeat(ConsumerHeartbeatReply)
    /// An error, and what to do about it.
    case refused(ConsumerGroupRefusal)
    /// For each member that was named, in order.
    case left([ErrorCode])
    /// For each partition of a commit, or of a deletion of offsets, in order.
    case partitions([ErrorCode])
}

/// A record of `__consumer_offsets` to be written; no value is a tombstone.
package enum GroupRecord: Equatable, Sendable {
    case offset(OffsetCommitKey, OffsetCommitValue?)
    case group(GroupMetadataKey, GroupMetadataValue?)
    case consumer(ConsumerRecord)
    /// The end of a record of another type of group.
    case tombstone([UInt8])
}

package typealias GroupAction = CoordinatorAction<GroupReply, GroupRecord, PatternSearch>

extension GroupRecord {
    /// What it takes in the log, at most.
    var estimatedBytes: Int {
        switch self {
        case .consumer(let record): record.estimatedBytes
        case .offset(let key, let value):
            256 + key.group.utf8.count + key.topic.utf8.count + (value?.metadata.utf8.count ?? 0)
        case .group(let key, let value):
            256 + key.group.utf8.count
                + (value?.members.reduce(0) { $0 + 256 + $1.subscription.count + $1.assignment.count } ?? 0)
        case .tombstone(let key): 64 + key.count
        }
    }
}
