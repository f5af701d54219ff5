import MartletBasics
import MartletBroker
import MartletModel
import Testing

private let minute: Int64 = 60_000

@Suite struct GroupsOffsetsTests {
    @Test("an offset is nobody's before it is durable, and is answered then")
    func commitsWaitForTheLog() {
        var world = GroupWorld()
        world.syncsAtOnce = false
        let ticket = world.commit([("t", 0, 5)])
        #expect(world.isWaiting(ticket) && world.committed() == -1)
        world.sync()
        #expect(world.error(ticket) == .none && world.committed() == 5)
        world.readAnew()
        #expect(world.committed() == 5)
    }

    @Test("a commit that the log refuses is told so, and the offset before it stays")
    func commitsThatFail() {
        var world = GroupWorld()
        _ = world.commit([("t", 0, 5)])
        world.syncsAtOnce = false
        for (told, answered): (ErrorCode, ErrorCode) in [
            (.notLeaderOrFollower, .notCoordinator), (.notEnoughReplicas, .coordinatorNotAvailable),
            (.requestTimedOut, .coordinatorNotAvailable), (.messageTooLarge, .invalidCommitOffsetSize),
        ] {
            let ticket = world.commit([("t", 0, 6)])
            world.sync(failing: told)
            #expect(world.error(ticket) == answered && world.committed() == 5)
        }
    }

    @Test("of two commits the one later in the log counts, in whatever order they are heard of")
    func commitsThatOvertake() {
        var world = GroupWorld()
        _ = world.commit([("t", 0, 1)])
        world.syncsAtOnce = false
        _ = world.commit([("t", 0, 2)])
        _ = world.commit([("t", 0, 3)])
        let numbers = world.underWay.map(\.number)
        world.underWay = []
        _ = world.machine.handle(.written(numbers[1], .success(11)), at: world.moment)
        _ = world.machine.handle(.written(numbers[0], .success(10)), at: world.moment)
        #expect(world.committed() == 3)
    }

    @Test("a member commits in its generation only, and nobody else in its place")
    func whoMayCommit() {
        var world = GroupWorld()
        let (ids, generation) = world.settle(count: 1)
        #expect(world.error(world.commit(id: ids[0], generation: generation, [("t", 0, 1)])) == .none)
        #expect(world.error(world.commit(id: ids[0], generation: generation - 1, [("t", 0, 1)])) == .illegalGeneration)
        #expect(world.error(world.commit(id: "stranger", generation: generation, [("t", 0, 1)])) == .unknownMemberID)
        #expect(world.error(world.commit([("t", 0, 1)])) == .unknownMemberID)
        _ = world.join(id: ids[0])
        #expect(world.error(world.commit(id: ids[0], generation: generation + 1, [("t", 0, 1)])) == .rebalanceInProgress)
        #expect(world.error(world.commit("absent", id: "x", generation: 1, [("t", 0, 1)])) == .groupIDNotFound)
        #expect(world.machine.describe("absent") == nil)
    }

    @Test("metadata is bounded in characters, partition by partition")
    func largeMetadata() {
        var world = GroupWorld { $0.offsetMetadataLimit = 4 }
        var event = OffsetCommitEvent(group: "g")
        event.partitions = [
            .init(topic: "t", partition: 0, offset: 1, metadata: "1234"),
            .init(topic: "t", partition: 1, offset: 1, metadata: "12345"),
            .init(topic: "t", partition: 2, offset: 1, metadata: "éééé"),
        ]
        let ticket = world.ask { .commit(event, $0) }
        #expect(world.replies[ticket] == .partitions([.none, .offsetMetadataTooLarge, .none]))
        #expect(world.committed("g", "t", 1) == -1 && world.committed("g", "t", 2) == 1)
    }

    // MARK: Removal

    @Test("a deleted group leaves nothing that a later start would find, not even a commit that was on its way")
    func deletedGroupsAreGone() {
        var world = GroupWorld()
        _ = world.commit([("t", 0, 1), ("u", 3, 2)])
        world.syncsAtOnce = false
        let late = world.commit([("v", 1, 9)])
        let deletion = world.ask { .deleteGroup("g", $0) }
        #expect(
            world.error(world.commit([("t", 0, 7)])) == .coordinatorNotAvailable, "nobody enters a group that is being deleted")
        #expect(world.joined(world.join()).error == .coordinatorNotAvailable)
        world.sync()
        #expect(world.error(late) == .none && world.error(deletion) == .none)
        #expect(world.machine.listings.isEmpty)
        world.readAnew()
        #expect(world.machine.listings.isEmpty && world.committed("g", "v", 1) == -1)
    }

    @Test("a group with members is not deleted, and one whose deletion failed is there again")
    func groupsThatStay() {
        var world = GroupWorld()
        _ = world.settle(count: 1)
        #expect(world.error(world.ask { .deleteGroup("g", $0) }) == .nonEmptyGroup)
        #expect(world.error(world.ask { .deleteGroup("absent", $0) }) == .groupIDNotFound)
        _ = world.commit("other", [("t", 0, 4)])
        world.syncsAtOnce = false
        let deletion = world.ask { .deleteGroup("other", $0) }
        world.sync(failing: .notEnoughReplicas)
        #expect(world.error(deletion) == .coordinatorNotAvailable)
        world.syncsAtOnce = true
        #expect(world.committed("other") == 4)
        #expect(world.error(world.commit("other", [("t", 0, 5)])) == .none)
    }

    @Test("offsets of a topic that is read are not deleted under its readers")
    func offsetsOfSubscribedTopics() {
        var world = GroupWorld()
        let (ids, generation) = world.settle(count: 1)
        _ = world.commit(id: ids[0], generation: generation, [("t", 0, 1), ("u", 0, 2)])
        let event = OffsetDeleteEvent(
            group: "g", partitions: [TopicPartition("t", 0), TopicPartition("u", 0), TopicPartition("u", 5)])
        let ticket = world.ask { .deleteOffsets(event, $0) }
        #expect(world.replies[ticket] == .partitions([.groupSubscribedToTopic, .none, .none]))
        #expect(world.committed("g", "t") == 1 && world.committed("g", "u") == -1)
        world.readAnew()
        #expect(world.committed("g", "t") == 1 && world.committed("g", "u") == -1)
    }

    @Test("metadata that no consumer wrote does not stop its group, whose topics then all count as read")
    func metadataThatIsNoSubscription() {
        var world = GroupWorld()
        let id = world.enter()
        let joined = world.joined(world.join(id: id) { $0.protocols = [GroupProtocol(name: "range", metadata: [0xFF, 1])] })
        #expect(joined.error == .none)
        _ = world.sync(id: id, generation: joined.generation)
        _ = world.commit(id: id, generation: joined.generation, [("t", 0, 1)])
        let ticket = world.ask { .deleteOffsets(OffsetDeleteEvent(group: "g", partitions: [TopicPartition("t", 0)]), $0) }
        #expect(world.replies[ticket] == .partitions([.groupSubscribedToTopic]))
    }

    @Test("a deleted topic takes its offsets along, and one of the same name begins without")
    func deletedTopics() {
        var world = GroupWorld()
        let (old, next) = (UUID(bytes: [UInt8](repeating: 1, count: 16)), UUID(bytes: [UInt8](repeating: 2, count: 16)))
        _ = world.commit([("t", 0, 5)], topicID: old)
        _ = world.commit([("u", 0, 6)])
        // what was committed for the next topic of the name stays
        _ = world.commit("h", [("t", 0, 7)], topicID: next)
        world.handle(.topicsDeleted([DeletedTopic(name: "t", id: old)]))
        #expect(world.committed("g", "t") == -1 && world.committed("g", "u") == 6 && world.committed("h", "t") == 7)
        world.readAnew()
        #expect(world.committed("g", "t") == -1 && world.committed("g", "u") == 6 && world.committed("h", "t") == 7)
    }

    @Test("an offset of an earlier topic of the name is not served for the one that is there now")
    func offsetsOfAnEarlierTopic() {
        var world = GroupWorld()
        let (old, next) = (UUID(bytes: [UInt8](repeating: 1, count: 16)), UUID(bytes: [UInt8](repeating: 2, count: 16)))
        _ = world.commit([("t", 0, 5)], topicID: old)
        world.readAnew()
        func offset(_ id: UUID) -> Offset {
            world.machine.fetchOffsets("g", topic: "t", topicID: id, partitions: [0], requireStable: false)[0].offset
        }
        #expect(offset(old) == 5 && offset(next) == -1)
    }

    // MARK: Expiry

    @Test("offsets that nobody reads expire after their retention, and their group with them")
    func offsetsExpire() {
        var world = GroupWorld { $0.offsetsRetentionMs = 10 * minute }
        _ = world.commit([("t", 0, 5)])
        world.pass(9 * minute)
        world.handle(.expireOffsets)
        #expect(world.committed() == 5)
        world.pass(2 * minute)
        world.handle(.expireOffsets)
        #expect(world.committed() == -1 && world.machine.listings.isEmpty)
        world.readAnew()
        #expect(world.machine.listings.isEmpty)
    }

    @Test("an empty group's offsets are kept for their retention from when its last member left")
    func retentionCountsFromTheEnd() {
        var world = GroupWorld { $0.offsetsRetentionMs = 10 * minute }
        let (ids, generation) = world.settle(count: 1)
        _ = world.commit(id: ids[0], generation: generation, [("t", 0, 5)])
        for _ in 0..<120 {
            world.pass(8_000)
            _ = world.heartbeat(id: ids[0], generation: generation)
        }
        world.handle(.expireOffsets)
        #expect(world.committed() == 5, "its member is there")
        _ = world.leave("g", .init(id: ids[0]))
        world.readAnew()
        world.pass(9 * minute)
        world.handle(.expireOffsets)
        #expect(world.committed() == 5)
        world.pass(2 * minute)
        world.handle(.expireOffsets)
        #expect(world.committed() == -1)
    }

    @Test("a live group forgets what it reads no longer, and nothing else")
    func unsubscribedTopicsExpire() {
        var world = GroupWorld { $0.offsetsRetentionMs = minute }
        let (ids, generation) = world.settle(count: 1)
        _ = world.commit(id: ids[0], generation: generation, [("t", 0, 5), ("left", 0, 6)])
        for _ in 0..<10 {
            world.pass(8_000)
            _ = world.heartbeat(id: ids[0], generation: generation)
        }
        world.handle(.expireOffsets)
        #expect(world.committed("g", "t") == 5 && world.committed("g", "left") == -1)
    }

    @Test("a commit may say how long it is kept, also across a restart")
    func retentionOfACommit() {
        var world = GroupWorld()
        _ = world.commit([("t", 0, 5)], retention: minute)
        _ = world.commit([("t", 1, 6)])
        world.readAnew()
        world.pass(minute + 1)
        world.handle(.expireOffsets)
        #expect(world.committed("g", "t", 0) == -1 && world.committed("g", "t", 1) == 6)
    }

    @Test("a commit that comes while an expired offset is being removed is not removed with it")
    func commitsWhileOffsetsExpire() {
        var world = GroupWorld { $0.offsetsRetentionMs = minute }
        _ = world.commit([("t", 0, 5), ("t", 1, 5)])
        world.pass(30_000)
        _ = world.commit([("t", 1, 6)])
        world.pass(40_000)
        world.syncsAtOnce = false
        world.handle(.expireOffsets)
        let again = world.commit([("t", 0, 8)])
        world.sync()
        #expect(world.error(again) == .none && world.committed() == 8)
        world.readAnew()
        #expect(world.committed() == 8)
    }

    // MARK: Transactions that another broker left open

    @Test("an offset in an open transaction is unstable, and counts when its transaction is committed")
    func openTransactions() {
        var world = GroupWorld()
        _ = world.commit([("t", 0, 5)])
        var machine = GroupMachine(settings: world.settings, seed: 1)
        for (offset, record) in world.log.enumerated() { machine.load(record, at: Int64(offset)) }
        var key = OffsetCommitKey(), value = OffsetCommitValue()
        (key.group, key.topic, key.partition) = ("g", "t", 0)
        value.offset = 42
        machine.load(.offset(key, value), at: 10, transactionOf: 7)
        func fetched(stable: Bool) -> FetchedOffset {
            machine.fetchOffsets("g", topic: "t", partitions: [0], requireStable: stable)[0]
        }
        #expect(fetched(stable: false).offset == 5)
        #expect(fetched(stable: true).error == .unstableOffsetCommit && fetched(stable: true).offset == -1)
        machine.loadTransactionEnd(of: 7, commits: true)
        #expect(fetched(stable: true).offset == 42)
        machine.load(.offset(key, value), at: 12, transactionOf: 8)
        machine.loadTransactionEnd(of: 8, commits: false)
        #expect(fetched(stable: true).offset == 42)
    }

    // MARK: Groups of other types

    private func foreignKey(_ kind: Int16, _ group: String, _ member: String? = nil) -> [UInt8] {
        func text(_ value: String) -> [UInt8] { [0, UInt8(value.utf8.count)] + Array(value.utf8) }
        return [0, UInt8(kind)] + text(group) + (member.map(text) ?? [])
    }

    private func load(_ machine: inout GroupMachine, _ key: [UInt8], exists: Bool = true) {
        key.withUnsafeBytes { bytes in _ = machine.load(foreign: bytes, exists: exists) }
    }

    @Test("a streams group that Kafka coordinated keeps its offsets, is listed, and is classic once its members are gone")
    func streamsGroupsOfKafka() {
        var world = GroupWorld { $0.foreignMembersTimeout = .milliseconds(45_000) }
        var key = OffsetCommitKey(), value = OffsetCommitValue()
        (key.group, key.topic, key.partition, value.offset) = ("modern", "t", 0, 33)
        load(&world.machine, foreignKey(17, "modern"))
        load(&world.machine, foreignKey(19, "modern", "m1"))
        world.machine.load(.offset(key, value), at: 3)
        _ = world.machine.finishLoading(at: world.moment)
        #expect(world.machine.listings == [GroupListingOf("modern", "streams", "Stable", .streams)])
        #expect(world.machine.describe("modern") == nil)
        #expect(world.committed("modern") == 33)
        #expect(world.joined(world.join("modern") { $0.requiresKnownMember = false }).error == .inconsistentGroupProtocol)
        #expect(world.error(world.ask { .deleteGroup("modern", $0) }) == .nonEmptyGroup)
        world.handle(.expireOffsets)
        #expect(world.underWay.isEmpty && world.log.isEmpty, "its records are left alone")
        world.pass(46_000)
        let joined = world.joined(world.join("modern") { $0.requiresKnownMember = false })
        #expect(joined.error == .none && world.committed("modern") == 33)
        #expect(world.log.prefix(2) == [.tombstone(foreignKey(17, "modern")), .tombstone(foreignKey(19, "modern", "m1"))])
    }

    @Test("a share group that Kafka coordinated is deleted with every record that it has")
    func shareGroupsOfKafka() {
        var world = GroupWorld()
        for kind: Int16 in [11, 12, 15] { load(&world.machine, foreignKey(kind, "share")) }
        load(&world.machine, foreignKey(12, "share"), exists: false)
        load(&world.machine, foreignKey(17, "gone"))
        load(&world.machine, foreignKey(17, "gone"), exists: false)
        _ = world.machine.finishLoading(at: world.moment)
        #expect(world.machine.listings == [GroupListingOf("share", "share", "Empty", .share)])
        #expect(world.error(world.ask { .deleteGroup("share", $0) }) == .none)
        #expect(world.log == [.tombstone(foreignKey(11, "share")), .tombstone(foreignKey(15, "share"))])
        #expect(world.machine.listings.isEmpty)
    }

    @Test("keys that are cut or of no known kind are no group")
    func keysThatAreNone() {
        var machine = GroupMachine(settings: GroupSettings(), seed: 1)
        for key: [UInt8] in [[], [0], [0, 3], [0, 17, 0, 9, 1], [0, 99, 0, 1, 65], [0xFF, 0xFF, 0, 1, 65]] {
            #expect(!key.withUnsafeBytes { machine.load(foreign: $0, exists: true) })
        }
        #expect(machine.listings.isEmpty)
    }

    @Test("what groups cost is freed when they go")
    func memoryIsFreed() {
        var world = GroupWorld { $0.offsetsRetentionMs = minute }
        let before = world.machine.bytes
        for index in 0..<50 { _ = world.commit("g\(index)", [("t", 0, 1), ("t", 1, 2)]) }
        _ = world.settle("live", count: 5)
        #expect(world.machine.bytes > before + 50 * 300)
        world.pass(20 * minute)
        for _ in 0..<3 {
            world.pass(2 * minute)
            world.handle(.expireOffsets)
        }
        #expect(world.machine.listings.isEmpty && world.machine.bytes == before)
    }
}

private func GroupListingOf(_ id: String, _ protocolType: String, _ state: String, _ type: GroupType) -> GroupListing {
    GroupListing(id: id, protocolType: protocolType, state: state, type: type, memberCount: 0)
}
