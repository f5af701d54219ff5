package import MartletBasics
import MartletChecker
package import MartletModel
import MartletReactor
package import MartletSimulation
import MartletWire

/// The members of all groups of one run.
package final class GroupMembers: @unchecked Sendable {
    package struct Group: Sendable {
        package var name: String
        package var topic: String
        package var partitions: Int32
        package var sessionMs: Int32
        package var rebalanceMs: Int32

        package init(name: String, topic: String, partitions: Int32, sessionMs: Int32, rebalanceMs: Int32) {
            self.name = name
            self.topic = topic
            self.partitions = partitions
            self.sessionMs = sessionMs
            self.rebalanceMs = rebalanceMs
        }
    }

    private static let processesLimit = 24
    /// How often it is looked whether a group has settled, and how many looks in a row must find the same.
    private static let looksLimit = 240
    private static let steadyLooks = 8

    package let ledger = GroupLedger()
    package let stage: Stage
    private var commitsCount: Int64 = 0
    private var processes: [GroupProcess] = []

    package init(_ stage: Stage) { self.stage = stage }

    /// Another process for a group; false where there have been enough.
    @discardableResult
    package func start(_ group: Group, on host: SimulatedHost, instance: String?, versions: GroupVersions) -> Bool {
        guard processes.count < Self.processesLimit else { return false }
        let name = "member-\(processes.count)"
        let process = GroupProcess(
            self, stage.client(name, on: host), host, group, instance: instance, versions: versions,
            random: stage.world.makeRandom(name))
        processes.append(process)
        stage.start(name, on: host.loops[0]) { await process.run() }
        return true
    }

    func runningCount(of group: Group) -> Int { processes.count { $0.group.name == group.name && !$0.hasEnded } }

    /// What those believe to have who are to stay; nil while one of them has nothing.
    package func believed(_ group: Group) -> [GroupLedger.Belief]? {
        var all: [GroupLedger.Belief] = []
        for process in processes where process.group.name == group.name && !process.hasEnded {
            guard let held = process.held else { return nil }
            all.append((process.name, held.generation, held.partitions))
        }
        return all
    }

    /// Lets time go by until everybody has what is his, and keeps it: `believed` says what those have who are to stay.
    package func settle(_ group: Group, look: Interval, _ believed: () -> [GroupLedger.Belief]?) {
        var steady = 0
        var generation: Int32 = -1
        for _ in 0..<Self.looksLimit where steady < Self.steadyLooks {
            stage.world.run(for: look)
            let found = believed()
            // the last of them was fenced by one that has left since
            if found?.isEmpty == true { return }
            let isInOrder = found.map { GroupLedger.unsettled(partitions: group.partitions, $0) == nil } ?? false
            let current = found?.first?.generation ?? -1
            steady = isInOrder && (steady == 0 || current == generation) ? steady + 1 : 0
            generation = current
        }
        guard steady < Self.steadyLooks else { return }
        let reason = believed().map {
            GroupLedger.unsettled(partitions: group.partitions, $0) ?? "its generations follow each other, now \(generation)"
        }
        ledger.violated("\(group.name) does not settle: \(reason ?? "a member has nothing")")
    }

    // MARK: Offsets

    /// A member commits an offset that nobody has committed before; what it was told is written down.
    package func commit(
        _ partition: Int32, of group: Group, _ identity: GroupIdentity, _ versions: GroupVersions, by client: SimulatedClient
    ) async throws(ClientFault) -> ErrorCode {
        commitsCount += 1
        let offset = commitsCount
        let operation = stage.record.operation()
        let place = Place(group.topic, Int(partition))
        stage.record.note(.commit(operation: operation, group: group.name, place: place, offset: offset))
        let error: ErrorCode
        do throws(ClientFault) {
            error = try await client.commit(identity, versions, group.topic, partition, offset)
        } catch {
            stage.record.note(.told(operation: operation, .unknown("\(error)")))
            throw error
        }
        let outcome: Outcome =
            switch error {
            case .none: .accepted(at: nil)
            // also what is told of an append that failed or was given up
            case .notCoordinator, .coordinatorNotAvailable, .requestTimedOut: .unknown("\(error)")
            default: .refused("\(error)")
            }
        stage.record.note(.told(operation: operation, outcome))
        return error
    }

    /// What is committed for some partitions is read, and written down; false where nobody can tell now.
    @discardableResult
    package func read(
        _ partitions: [Int32], of group: Group, by client: SimulatedClient
    ) async throws(ClientFault) -> Bool {
        let asked = stage.record.now
        guard let found = try await client.committed(group.name, group.topic, partitions) else { return false }
        for one in found {
            let place = Place(group.topic, Int(one.partition))
            stage.record.note(.committed(group: group.name, place: place, asked: asked, offset: one.offset))
        }
        return true
    }

    /// All that is committed for a group, asked until somebody tells.
    package func readAll(of group: Group, by client: SimulatedClient) async throws(ClientFault) {
        while true {
            if try await read(Array(0..<group.partitions), of: group, by: client) { return }
            await client.loop.sleep(for: .milliseconds(20))
        }
    }
}

/// One process of a consumer: joins, is assigned partitions, sends heartbeats, commits; and now and then leaves, dies,
/// sleeps through its session, or is started a second time with the same instance id.
final class GroupProcess: @unchecked Sendable {
    struct Held {
        var generation: Int32
        var partitions: [Int32]
    }

    private let members: GroupMembers
    private let client: SimulatedClient
    private let host: SimulatedHost
    let group: GroupMembers.Group
    private let instance: String?
    private let versions: GroupVersions
    private var random: SeededRandom
    private var member: GroupLedger.Member?
    private(set) var held: Held?
    /// What it had before that: a request of that time may come late.
    private var past: Held?
    private var last: Held?
    /// Another process with its instance id was started: it lives on until it notices.
    private var isReplaced = false
    private var hasDied = false
    private(set) var hasEnded = false

    var name: String { client.name }
    private var ledger: GroupLedger { members.ledger }
    private var stage: Stage { members.stage }

    init(
        _ members: GroupMembers, _ client: SimulatedClient, _ host: SimulatedHost, _ group: GroupMembers.Group,
        instance: String?,
        versions: GroupVersions, random: SeededRandom
    ) {
        self.members = members
        self.client = client
        self.host = host
        self.group = group
        self.instance = instance
        self.versions = versions
        self.random = random
    }

    private func identity(_ generation: Int32) -> GroupIdentity {
        GroupIdentity(group: group.name, member: member?.id ?? "", instance: instance, generation: generation)
    }

    func run() async {
        while !stage.isOver, !hasEnded, !(isReplaced && (stage.isCalm || member == nil)) {
            do throws(ClientFault) {
                if !client.isConnected {
                    try await client.connect(to: stage.broker)
                    guard try await client.findCoordinator(of: group.name) == .none else { throw .lost }
                }
                if !stage.isCalm, random.chance(1, in: 30) { try await misbehave() }
                if let held { try await work(held) } else { try await enter() }
            } catch {
                note(error)
            }
            await stage.rest(client.loop, &random, busy: 5_000..<50_000)
        }
        hasEnded = true
        held = nil
        if client.isConnected, member != nil, !isReplaced, !hasDied {
            do throws(ClientFault) { _ = try await client.leave(identity(-1), versions) } catch { note(error) }
        }
        client.close()
    }

    private func note(_ fault: ClientFault) {
        if case .malformed(let what) = fault { ledger.violated("\(name): \(what)") }
        client.close()
    }

    private func sleep(atMost milliseconds: Int32) async {
        await client.loop.sleep(for: .milliseconds(Int64(1 + random.below(Int(milliseconds)))))
    }

    // MARK: What goes wrong

    private func misbehave() async throws(ClientFault) {
        switch random.below(6) {
        case 0:
            if member != nil { _ = try await client.leave(identity(-1), versions) }
            forget()
            await sleep(atMost: group.sessionMs)
        case 1:
            client.close()
            forget()
            await sleep(atMost: group.sessionMs * 2)
            throw .lost
        case 2:
            await sleep(atMost: group.sessionMs * 3)
        case 3:
            // the connection alone is lost
            client.close()
            throw .lost
        case 4:
            // nobody comes in its place: the others are to notice
            guard members.runningCount(of: group) > 1 else { return }
            hasDied = true
            hasEnded = true
            throw .lost
        default:
            guard instance != nil, !isReplaced, member != nil else { return }
            guard members.start(group, on: host, instance: instance, versions: versions) else { return }
            isReplaced = true
            await sleep(atMost: group.sessionMs)
        }
    }

    private func forget() {
        member = nil
        held = nil
        past = nil
        last = nil
    }

    /// Takes an error of the coordinator for what it means; false where the request is only to be tried again.
    private func heed(_ error: ErrorCode, _ what: String) {
        switch error {
        case .none, .coordinatorLoadInProgress, .coordinatorNotAvailable: break
        case .notCoordinator, .requestTimedOut: client.close()
        case .rebalanceInProgress: held = nil
        case .illegalGeneration:
            held = nil
            if random.chance(1, in: 2) { forget() }
        case .unknownMemberID: forget()
        case .fencedInstanceID:
            if instance == nil { ledger.violated("\(name) has no instance id and was fenced by one") }
            hasEnded = true
        default: ledger.violated("\(name): \(what) was answered with \(error)")
        }
    }

    // MARK: Into the group

    private func enter() async throws(ClientFault) {
        let asked = ledger.moment()
        let joined = try await client.join(
            identity(-1), versions, sessionMs: group.sessionMs, rebalanceMs: group.rebalanceMs,
            protocols: [("range", Array(name.utf8)), ("roundrobin", [])])
        if joined.errorCode == .none || joined.errorCode == .memberIDRequired {
            if member?.id != joined.memberID {
                member = GroupLedger.Member(id: joined.memberID, instance: instance, asked: asked, told: ledger.moment())
            }
            guard joined.errorCode == .none else { return }
        } else {
            return heed(joined.errorCode, "JoinGroup")
        }
        if joined.protocolName != "range" {
            ledger.violated("\(name) was told of the protocol \(joined.protocolName ?? "nil")")
        }
        if !stage.isCalm, random.chance(1, in: 12) { await sleep(atMost: group.rebalanceMs * 2) }
        try await sync(joined)
        // an answer that was lost, or an impatient client: what came first counts
        if held != nil, !stage.isCalm, random.chance(1, in: 8) { try await sync(joined) }
    }

    private func sync(_ joined: JoinGroupResponse) async throws(ClientFault) {
        guard let member else { return }
        let asked = ledger.moment()
        let answer = try await client.sync(
            identity(joined.generationID), versions, protocolName: joined.protocolName ?? "",
            assignments: joined.leader == member.id ? assignments(joined) : [])
        guard answer.error == .none else { return heed(answer.error, "SyncGroup") }
        guard let part = Assignment(answer.assignment) else {
            return ledger.violated("\(name) was given an assignment of \(answer.assignment.count) bytes that no leader wrote")
        }
        ledger.assigned(
            group.name, generation: joined.generationID, to: member, partitions: part.partitions, token: part.token,
            asked: asked)
        if let current = last, current.generation < joined.generationID { past = current }
        held = Held(generation: joined.generationID, partitions: part.partitions)
        last = held
    }

    /// As the leader: shares the partitions out, in an order that it never repeats.
    private func assignments(_ joined: JoinGroupResponse) -> [(member: String, bytes: [UInt8])] {
        let members = joined.members.map(\.memberID)
        if !members.contains(joined.leader), !joined.skipAssignment {
            ledger.violated("\(name) leads a group that it is not in")
        }
        let token = Int64(random.next() >> 1)
        let start = random.below(max(members.count, 1))
        return members.indices.map { index in
            let partitions = (0..<group.partitions).filter { (Int($0) + start) % members.count == index }
            return (members[index], Assignment(token: token, partitions: partitions).bytes)
        }
    }

    private struct Assignment {
        var token: Int64
        var partitions: [Int32]

        var bytes: [UInt8] {
            var buffer = ByteBuffer()
            buffer.int64(token)
            for partition in partitions { buffer.int32(partition) }
            return buffer.array
        }

        init(token: Int64, partitions: [Int32]) {
            self.token = token
            self.partitions = partitions
        }

        init?(_ bytes: [UInt8]) {
            guard bytes.count >= 8, bytes.count % 4 == 0 else { return nil }
            token = bytes[..<8].reduce(0) { $0 << 8 | Int64($1) }
            partitions = stride(from: 8, to: bytes.count, by: 4).map { at in
                bytes[at..<at + 4].reduce(0) { $0 << 8 | Int32($1) }
            }
        }
    }

    // MARK: In the group

    private func work(_ held: Held) async throws(ClientFault) {
        guard let member else { return }
        switch random.below(12) {
        case 0...3: try await commit(held)
        case 4, 5: try await read()
        case 6: if let past { try await commit(past, isLate: true) }
        case 7:
            guard let past else { return }
            let asked = ledger.moment()
            let error = try await client.heartbeat(identity(past.generation), versions)
            if error == .none { ledger.heartbeatAccepted(group.name, generation: past.generation, by: member, asked: asked) }
        default:
            let asked = ledger.moment()
            let error = try await client.heartbeat(identity(held.generation), versions)
            if error == .none { ledger.heartbeatAccepted(group.name, generation: held.generation, by: member, asked: asked) }
            // a consumer commits what it has before it gives it up, and one that was put out may try to
            if error != .none, random.chance(1, in: 2) { try await commit(held) }
            if !hasEnded { heed(error, "Heartbeat") }
        }
    }

    private func commit(_ held: Held, isLate: Bool = false) async throws(ClientFault) {
        guard let member, !held.partitions.isEmpty else { return }
        let partition = held.partitions[random.below(held.partitions.count)]
        let asked = ledger.moment()
        let error = try await members.commit(partition, of: group, identity(held.generation), versions, by: client)
        if error == .none { ledger.commitAccepted(group.name, generation: held.generation, by: member, asked: asked) }
        if !isLate { heed(error, "OffsetCommit") }
    }

    private func read() async throws(ClientFault) {
        try await members.read([Int32(random.below(Int(group.partitions)))], of: group, by: client)
    }
}
