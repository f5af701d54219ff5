import MartletBasics
import MartletBroker
import MartletModel
import Testing

/// The groups of one partition without a broker: a clock that is turned by hand, and a log that takes what it is given.
struct GroupWorld {
    var machine: GroupMachine
    var now: Int64 = 0
    var wall: Int64 = 1_700_000_000_000
    /// What was answered, by ticket. In one place, whoever holds the world: a reply is asked for with what makes it come.
    private let told = Told()
    var replies: [UInt64: GroupReply] { told.replies }
    /// What lies in the log, durable.
    var log: [GroupRecord] = []
    /// What is written and not durable.
    var underWay: [(number: UInt64, records: [GroupRecord])] = []
    var syncsAtOnce = true
    var surroundings = GroupSurroundings.nothing
    /// Searches that nobody has carried out.
    var searches: [PatternSearch] = []
    var searchesAtOnce = true
    var settings: GroupSettings
    private var lastTicket: UInt64 = 0
    private let seed: UInt64

    private final class Told {
        var replies: [UInt64: GroupReply] = [:]
    }

    init(seed: UInt64 = 1, _ change: (inout GroupSettings) -> Void = { _ in }) {
        var settings = GroupSettings()
        settings.initialDelay = .zero
        change(&settings)
        self.settings = settings
        self.seed = seed
        machine = GroupMachine(settings: settings, seed: seed)
    }

    var moment: GroupMoment {
        GroupMoment(now: Instant(nanoseconds: now * 1_000_000), wallMilliseconds: wall, surroundings: surroundings)
    }

    mutating func handle(_ event: GroupEvent) { carryOut(machine.handle(event, at: moment)) }

    private mutating func carryOut(_ actions: [GroupAction]) {
        for action in actions {
            switch action {
            case .answer(let ticket, let reply):
                #expect(replies[ticket.number] == nil, "a request is answered once")
                told.replies[ticket.number] = reply
            case .append(let number, let records): underWay.append((number, records))
            case .appendInTransaction(let number, let records, _): underWay.append((number, records))
            case .endTransaction(let number, _): underWay.append((number, []))
            case .effect(let search): searches.append(search)
            }
        }
        if searchesAtOnce { carryOutSearches() }
        if syncsAtOnce { sync() }
    }

    mutating func carryOutSearches() {
        while !searches.isEmpty {
            let findings = searches.removeFirst().run(in: surroundings)
            handle(.patternsFound(findings))
        }
    }

    /// All that is written becomes durable.
    mutating func sync(failing error: ErrorCode? = nil) {
        while !underWay.isEmpty {
            let (number, records) = underWay.removeFirst()
            let first = Int64(log.count)
            if error == nil { log += records }
            carryOut(
                machine.handle(.written(number, error.map { .failure(GroupWriteFailure($0)) } ?? .success(first)), at: moment))
        }
    }

    mutating func pass(_ milliseconds: Int64) {
        let end = now + milliseconds
        while let next = machine.nextDeadline, next <= Instant(nanoseconds: end * 1_000_000) {
            let at = (next.nanoseconds + 999_999) / 1_000_000
            wall += max(at - now, 0)
            now = max(at, now)
            handle(.timePassed)
        }
        wall += end - now
        now = end
    }

    /// As after a kill: what is durable is read, and nothing else is known.
    mutating func readAnew() {
        machine = GroupMachine(settings: settings, seed: seed &+ UInt64(log.count))
        underWay = []
        searches = []
        for (offset, record) in log.enumerated() { machine.load(record, at: Int64(offset)) }
        carryOut(machine.finishLoading(at: moment))
    }

    mutating func ask(_ event: (GroupTicket) -> GroupEvent) -> UInt64 {
        lastTicket += 1
        handle(event(GroupTicket(number: lastTicket)))
        return lastTicket
    }

    // MARK: What members say

    mutating func join(
        _ group: String = "g", id: String = "", instance: String? = nil, protocols: [String] = ["range"], about: String = "t",
        session: Int32 = 10_000, rebalance: Int32 = 30_000, type: String = "consumer",
        _ change: (inout JoinGroupEvent) -> Void = { _ in }
    ) -> UInt64 {
        var event = JoinGroupEvent(group: group)
        event.memberID = id
        event.instanceID = instance
        event.clientID = "test"
        event.protocolType = type
        event.protocols = protocols.map { GroupProtocol(name: $0, metadata: subscription([about])) }
        event.sessionTimeoutMs = session
        event.rebalanceTimeoutMs = rebalance
        change(&event)
        return ask { .join(event, $0) }
    }

    /// A member id for someone new.
    mutating func enter(_ group: String = "g", session: Int32 = 10_000, protocols: [String] = ["range"]) -> String {
        joined(join(group, protocols: protocols, session: session)).memberID
    }

    mutating func sync(
        _ group: String = "g", id: String, generation: Int32, _ assignments: [String: String] = [:], instance: String? = nil
    ) -> UInt64 {
        var event = SyncGroupEvent(group: group, memberID: id, generation: generation)
        event.instanceID = instance
        event.assignments = assignments.sorted { $0.key < $1.key }.map { ($0.key, Array($0.value.utf8)) }
        return ask { .sync(event, $0) }
    }

    mutating func heartbeat(_ group: String = "g", id: String, generation: Int32, instance: String? = nil) -> ErrorCode {
        let ticket = ask {
            .heartbeat(
                HeartbeatEvent(group: group, memberID: id, instanceID: instance, generation: generation), $0)
        }
        return error(ticket)
    }

    mutating func leave(_ group: String = "g", _ members: LeaveGroupEvent.Member...) -> [ErrorCode] {
        let ticket = ask { .leave(LeaveGroupEvent(group: group, members: members), $0) }
        guard case .left(let codes)? = replies[ticket] else { return [error(ticket)] }
        return codes
    }

    mutating func commit(
        _ group: String = "g", id: String = "", generation: Int32 = -1, _ offsets: [(String, Int32, Offset)],
        retention: Int64 = -1,
        topicID: UUID = .zero
    ) -> UInt64 {
        var event = OffsetCommitEvent(group: group)
        event.memberID = id
        event.generation = generation
        event.retentionMs = retention
        event.partitions = offsets.map {
            OffsetCommitEvent.Partition(
                topic: $0.0, topicID: topicID, partition: $0.1, offset: $0.2)
        }
        return ask { .commit(event, $0) }
    }

    mutating func commit(_ offsets: [(String, Int32, Offset)], retention: Int64 = -1, topicID: UUID = .zero) -> UInt64 {
        commit("g", offsets, retention: retention, topicID: topicID)
    }

    // MARK: What they are told

    func joined(_ ticket: UInt64) -> JoinGroupReply {
        guard case .joined(let reply)? = replies[ticket] else {
            return JoinGroupReply(.unknownServerError, memberID: "not answered")
        }
        return reply
    }

    func synced(_ ticket: UInt64) -> String? {
        guard case .synced(let reply)? = replies[ticket], reply.error == .none else { return nil }
        return String(decoding: reply.assignment, as: UTF8.self)
    }

    func syncError(_ ticket: UInt64) -> ErrorCode? {
        guard case .synced(let reply)? = replies[ticket] else { return nil }
        return reply.error
    }

    func isWaiting(_ ticket: UInt64) -> Bool { replies[ticket] == nil }

    func error(_ ticket: UInt64) -> ErrorCode {
        switch replies[ticket] {
        case .failed(let error)?: error
        case .done?, .partitions?: .none
        default: .unknownServerError
        }
    }

    func committed(_ group: String = "g", _ topic: String = "t", _ partition: Int32 = 0) -> Offset {
        machine.fetchOffsets(group, topic: topic, partitions: [partition], requireStable: false)[0].offset
    }

    func state(_ group: String = "g") -> ClassicGroupState? { machine.describe(group)?.state }

    /// A stable group of so many members; their ids, the leader's first.
    mutating func settle(
        _ group: String = "g", count: Int, session: Int32 = 10_000, rebalance: Int32 = 30_000, instances: Bool = false
    ) -> (ids: [String], generation: Int32) {
        var ids: [String] = []
        var tickets: [UInt64] = []
        for index in 0..<count {
            let instance = instances ? "i\(index)" : nil
            let id = instances ? "" : enter(group, session: session)
            let ticket = join(group, id: id, instance: instance, session: session, rebalance: rebalance)
            tickets.append(ticket)
            ids.append(id)
            if index == 0 { ids[0] = joined(ticket).memberID }
        }
        if count > 1 {
            tickets[0] = join(group, id: ids[0], instance: instances ? "i0" : nil, session: session, rebalance: rebalance)
        }
        for index in ids.indices { ids[index] = joined(tickets[index]).memberID }
        let generation = joined(tickets[0]).generation
        let assignments = Dictionary(ids.enumerated().map { ($1, "part \($0)") }, uniquingKeysWith: { $1 })
        for id in ids.dropFirst() { _ = sync(group, id: id, generation: generation) }
        _ = sync(group, id: ids[0], generation: generation, assignments)
        #expect(state(group) == .stable)
        return (ids, generation)
    }
}

/// What a consumer says of itself.
func subscription(_ topics: [String]) -> [UInt8] {
    var said = ConsumerProtocolSubscription()
    said.topics = topics
    return (try? said.prefixedBytes(version: 1)) ?? []
}
