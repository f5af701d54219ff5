package import MartletModel

/// ConsumerGroupHeartbeat: a member joins (epoch 0), goes on, or leaves (-1; -2 for a while).
package struct ConsumerHeartbeatEvent: Sendable {
    package var group: String
    package var memberID = ""
    package var epoch: Int32 = 0
    package var instanceID: String?
    package var rackID: String?
    /// -1, and nil below: as it was.
    package var rebalanceTimeoutMs: Int32 = -1
    package var topics: [String]?
    package var pattern: String?
    package var assignor: String?
    package var owned: PartitionSet?
    package var clientID = ""
    package var clientHost = ""
    /// In version 0 of the API the coordinator makes member ids.
    package var makesMemberID = false

    package init(group: String) { self.group = group }

    var isJoin: Bool { epoch == 0 }
    var isLeave: Bool { epoch < 0 }
    /// It says everything, as after an error, and is told everything.
    var isWhole: Bool { rebalanceTimeoutMs != -1 && (topics != nil || pattern != nil) && owned != nil }

    /// What no client may send.
    func fault(offered: [PartitionAssignor]) -> ConsumerGroupRefusal? {
        func invalid(_ message: String) -> ConsumerGroupRefusal { ConsumerGroupRefusal(.invalidRequest, message) }
        if memberID.isEmpty, !(makesMemberID && isJoin) { return invalid("The member has no id.") }
        if group.isEmpty { return invalid("The group has no id.") }
        if instanceID?.isEmpty == true { return invalid("The instance id is empty.") }
        if rackID?.isEmpty == true { return invalid("The rack is empty.") }
        if epoch < -2 { return invalid("There is no epoch \(epoch).") }
        if epoch == -2, instanceID == nil { return invalid("Who leaves for a while has an instance id.") }
        if isJoin {
            if rebalanceTimeoutMs == -1 { return invalid("Who joins says its rebalance timeout.") }
            if owned?.isEmpty != true { return invalid("Who joins owns an empty list of partitions.") }
            if topics == nil, pattern == nil { return invalid("Who joins says which topics it reads.") }
        }
        if let assignor, !offered.contains(where: { $0.rawValue == assignor }) {
            let names = offered.map(\.rawValue).joined(separator: ", ")
            return ConsumerGroupRefusal(
                .unsupportedAssignor, "There is no assignor '\(assignor.prefix(64))': there are \(names).")
        }
        return nil
    }
}

package struct ConsumerHeartbeatReply: Equatable, Sendable {
    package var memberID: String
    package var epoch: Int32
    package var heartbeatIntervalMs: Int32 = 0
    /// Nil: as it was.
    package var assignment: PartitionSet?

    package init(memberID: String, epoch: Int32, heartbeatIntervalMs: Int32 = 0) {
        self.memberID = memberID
        self.epoch = epoch
        self.heartbeatIntervalMs = heartbeatIntervalMs
    }
}

/// Why a member of a consumer group is not answered as it wishes.
package struct ConsumerGroupRefusal: Error, Equatable, Sendable {
    package var error: ErrorCode
    package var message: String

    package init(_ error: ErrorCode, _ message: String) {
        self.error = error
        self.message = message
    }

    static func unknown(_ member: String) -> ConsumerGroupRefusal {
        ConsumerGroupRefusal(.unknownMemberID, "There is no member '\(member.prefix(128))': join with epoch 0.")
    }
}

/// Which topics expressions match is found elsewhere, for there may be many topics: what is to be looked for.
package struct PatternSearch: Equatable, Sendable {
    package var group: String
    package var patterns: [String]

    /// What each matches of the topics that are there. Those that are none match nothing: they came from the log.
    package func run(in surroundings: GroupSurroundings) -> PatternFindings {
        let names = surroundings.image.topics.filter { !$0.isInternal }.map(\.name)
        let found = patterns.map { text in (text, (try? TopicPattern(text))?.matching(names) ?? []) }
        return PatternFindings(group: group, topics: found, version: surroundings.version)
    }
}

package struct PatternFindings: Sendable {
    package var group: String
    package var topics: [(pattern: String, names: [String])]
    /// Of the metadata that was looked at.
    package var version: Int64
}
