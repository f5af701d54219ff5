import MartletBasics
import MartletModel
import MartletReactor
import MartletSimulation
import MartletSwarm
import MartletWire

/// The members of the groups of one run in which both protocols live. All of it lives on the world's thread.
final class ModernMembers: @unchecked Sendable {
    private static let processesLimit = 24

    let members: GroupMembers
    let epochs: EpochLedger
    private var processes: [ModernProcess] = []
    private(set) var assignmentsCount = 0

    init(_ members: GroupMembers) {
        self.members = members
        epochs = EpochLedger { [ledger = members.ledger] in ledger.violated($0) }
    }

    var canStart: Bool { processes.count < Self.processesLimit }

    func start(_ group: GroupMembers.Group, on host: SimulatedHost, instance: String?, isClassic: Bool) {
        let name = "modern-\(processes.count)"
        let stage = members.stage
        let process = ModernProcess(
            self, stage.client(name, on: host), host, group, instance: instance, isClassic: isClassic,
            random: stage.world.makeRandom(name))
        processes.append(process)
        stage.start(name, on: host.loops[0]) { await process.run() }
    }

    func runningCount(of group: GroupMembers.Group) -> Int {
        processes.count { $0.group.name == group.name && !$0.hasEnded }
    }

    /// What those believe to have who are to stay; nil while one of them has nothing.
    func believed(_ group: GroupMembers.Group) -> [GroupLedger.Belief]? {
        var all: [GroupLedger.Belief] = []
        for process in processes where process.group.name == group.name && !process.hasEnded {
            guard let held = process.held else { return nil }
            all.append((process.name, held.generation, held.partitions))
        }
        return all
    }

    /// A member has these partitions, as it was told.
    func owned(_ group: GroupMembers.Group, epoch: Int32, by owner: String, _ partitions: [Int32]) {
        assignmentsCount += 1
        epochs.assigned(group.name, epoch: epoch, to: owner, partitions: partitions, at: members.ledger.moment())
    }
}

/// One process of a consumer in a group where both protocols live. It speaks the new one or the classic one, and like
/// any consumer gives up before it takes; now and then it clings to what it is to give up, leaves, dies, sleeps through its
/// session, commits in an epoch that is over, or is followed by a process of the other protocol.
final class ModernProcess: @unchecked Sendable {
    private let fellows: ModernMembers
    private let client: SimulatedClient
    private let host: SimulatedHost
    let group: GroupMembers.Group
    private let instance: String?
    private let isClassic: Bool
    private let usesPattern: Bool
    private var random: SeededRandom
    private var memberID = ""
    private var topicID: UUID?
    /// Of the new protocol: 0 joins. Of the classic one the generation; -1 joins.
    private var epoch: Int32
    private var partitions: [Int32] = []
    /// The coordinator is to hear what it has.
    private var saysOwned = false
    private var lives = 0
    /// It has taken over an assignment, and heard nothing else since.
    private var isIn = false
    private var past: (epoch: Int32, partitions: [Int32])?
    private(set) var hasEnded = false

    var name: String { client.name }
    private var members: GroupMembers { fellows.members }
    private var stage: Stage { members.stage }
    private var ledger: GroupLedger { members.ledger }
    private var owner: String { instance.map { "instance " + $0 } ?? "member " + memberID }

    init(
        _ fellows: ModernMembers, _ client: SimulatedClient, _ host: SimulatedHost, _ group: GroupMembers.Group,
        instance: String?, isClassic: Bool, random: SeededRandom
    ) {
        self.fellows = fellows
        self.client = client
        self.host = host
        self.group = group
        self.instance = instance
        self.isClassic = isClassic
        var random = random
        usesPattern = random.chance(1, in: 3)
        self.random = random
        epoch = isClassic ? -1 : 0
    }

    /// What it believes to have; nil while it is not in the group.
    var held: (generation: Int32, partitions: [Int32])? { isIn ? (epoch, partitions) : nil }

    func run() async {
        while !stage.isOver, !hasEnded {
            do throws(ClientFault) {
                if !client.isConnected { try await connect() }
                if !stage.isCalm, random.chance(1, in: 30) { try await misbehave() }
                guard !hasEnded else { break }
                if random.chance(1, in: 3), isIn { try await commit(epoch, partitions) }
                if let past, random.chance(1, in: 10) { try await commit(past.epoch, past.partitions, isLate: true) }
                if random.chance(1, in: 8) { try await read() }
                if isClassic { try await classicRound() } else { try await modernRound() }
            } catch {
                note(error)
            }
            await stage.rest(client.loop, &random, busy: 5_000..<45_000)
        }
        hasEnded = true
        isIn = false
        if stage.isOver, client.isConnected, !memberID.isEmpty {
            do throws(ClientFault) { try await leave(forGood: true) } catch { note(error) }
        }
        client.close()
    }

    private func connect() async throws(ClientFault) {
        try await client.connect(to: stage.broker)
        guard try await client.findCoordinator(of: group.name) == .none else { throw .lost }
        if topicID == nil { topicID = try await client.topicID(group.topic) }
        guard topicID != nil else { throw .lost }
    }

    private func note(_ fault: ClientFault) {
        if case .malformed(let what) = fault { ledger.violated("\(name): \(what)") }
        client.close()
    }

    private func identity(_ generation: Int32) -> GroupIdentity {
        GroupIdentity(group: group.name, member: memberID, instance: instance, generation: generation)
    }

    // MARK: What goes wrong

    private func misbehave() async throws(ClientFault) {
        switch random.below(7) {
        case 0:
            try await leave(forGood: true)
            forget()
            await sleep(atMost: group.sessionMs)
        case 1:
            // it knows nothing any more, and the coordinator does not know that
            client.close()
            forget()
            await sleep(atMost: group.sessionMs * 2)
            throw .lost
        case 2: await sleep(atMost: group.sessionMs * 3)
        case 3:
            client.close()
            throw .lost
        case 4:
            guard fellows.runningCount(of: group) > 1 else { return }
            hasEnded = true
        case 5:
            // clings to what it has for so long
            await sleep(atMost: group.rebalanceMs * 2)
        default:
            // another process comes in its place, perhaps of the other protocol
            guard isIn, fellows.canStart else { return }
            try await leave(forGood: instance == nil || isClassic)
            hasEnded = true
            fellows.start(group, on: host, instance: instance, isClassic: random.chance(1, in: 2))
        }
    }

    private func sleep(atMost milliseconds: Int32) async {
        await client.loop.sleep(for: .milliseconds(Int64(1 + random.below(Int(milliseconds)))))
    }

    private func leave(forGood: Bool) async throws(ClientFault) {
        guard !memberID.isEmpty else { return }
        if isClassic {
            _ = try await client.leave(identity(-1), .newest)
        } else {
            _ = try await client.modernHeartbeat(identity(-1), epoch: forGood ? -1 : -2, joining: nil, owned: nil)
        }
    }

    private func forget() {
        if isIn, random.chance(1, in: 2) { past = (epoch, partitions) }
        (isIn, partitions, saysOwned) = (false, [], false)
        epoch = isClassic ? -1 : 0
        // a client of the new protocol keeps its id for as long as its process lives
        if isClassic || random.chance(1, in: 3) {
            memberID = ""
            past = nil
        }
    }

    private func heed(_ error: ErrorCode, _ what: String) {
        switch error {
        case .none, .coordinatorLoadInProgress, .coordinatorNotAvailable,
            .groupIDNotFound where isClassic:
            break
        case .notCoordinator, .requestTimedOut: client.close()
        case .rebalanceInProgress: isIn = false
        case .illegalGeneration: isIn = false
        case .unknownMemberID, .fencedMemberEpoch, .groupIDNotFound: forget()
        case .staleMemberEpoch: break
        // the one before has not left, or what it said when it left was lost: its session ends
        case .unreleasedInstanceID: isIn = false
        case .fencedInstanceID:
            if instance == nil { ledger.violated("\(name) has no instance id and was fenced by one") }
            hasEnded = true
        // its group is of the other type, and of members who cannot share it just now
        case .inconsistentGroupProtocol: forget()
        default: ledger.violated("\(name): \(what) was answered with \(error)")
        }
    }

    // MARK: The new protocol

    private func modernRound() async throws(ClientFault) {
        if memberID.isEmpty {
            lives += 1
            memberID = "\(name)-\(lives)"
        }
        let joins = epoch == 0
        let pattern = usesPattern ? "\(group.topic.prefix(5))-\(group.topic.suffix(1))" : nil
        let answer = try await client.modernHeartbeat(
            identity(epoch), epoch: epoch,
            joining: joins ? (group.topic, pattern, group.rebalanceMs, random.chance(1, in: 3) ? "range" : nil) : nil,
            owned: saysOwned && !joins ? (topicID!, partitions) : nil)
        guard answer.error == .none else { return heed(answer.error, "ConsumerGroupHeartbeat") }
        if isIn, answer.epoch < epoch { ledger.violated("\(name) went back from epoch \(epoch) to \(answer.epoch)") }
        if isIn, answer.epoch > epoch { past = (epoch, partitions) }
        epoch = answer.epoch
        saysOwned = answer.partitions != nil
        guard let assigned = answer.partitions ?? (isIn ? nil : []) else {
            fellows.owned(group, epoch: epoch, by: owner, partitions)
            return
        }
        partitions = assigned
        isIn = true
        fellows.owned(group, epoch: epoch, by: owner, partitions)
    }

    // MARK: The classic protocol

    private func classicRound() async throws(ClientFault) {
        if isIn {
            let error = try await client.heartbeat(identity(epoch), .newest)
            guard error != .none else { return }
            if error == .rebalanceInProgress, random.chance(1, in: 3) { try await commit(epoch, partitions) }
            heed(error, "Heartbeat")
            guard !isIn, !hasEnded, client.isConnected else { return }
        }
        let joined = try await client.join(
            identity(-1), .newest, sessionMs: group.sessionMs, rebalanceMs: group.rebalanceMs,
            protocols: [("range", ConsumerWords.subscription(group.topic, owned: partitions, generation: epoch))])
        if joined.errorCode == .memberIDRequired {
            memberID = joined.memberID
            return
        }
        guard joined.errorCode == .none else { return heed(joined.errorCode, "JoinGroup") }
        memberID = joined.memberID
        if !stage.isCalm, random.chance(1, in: 12) { await sleep(atMost: group.rebalanceMs * 2) }
        let answer = try await client.sync(
            identity(joined.generationID), .newest, protocolName: joined.protocolName ?? "",
            assignments: joined.leader == memberID ? share(joined) : [])
        guard answer.error == .none else { return heed(answer.error, "SyncGroup") }
        guard let assigned = answer.assignment.isEmpty ? [] : ConsumerWords.partitions(answer.assignment) else {
            return ledger.violated("\(name) was given an assignment that is none")
        }
        if epoch >= 0, epoch < joined.generationID { past = (epoch, partitions) }
        (epoch, partitions, isIn) = (joined.generationID, assigned, true)
        fellows.owned(group, epoch: epoch, by: owner, partitions)
    }

    private func share(_ joined: JoinGroupResponse) -> [(member: String, bytes: [UInt8])] {
        let members = joined.members.map(\.memberID)
        return members.enumerated().map { index, member in
            let own = (0..<group.partitions).filter { Int($0) % members.count == index }
            return (member, ConsumerWords.assignment(group.topic, own))
        }
    }

    // MARK: Offsets

    private func commit(_ epoch: Int32, _ partitions: [Int32], isLate: Bool = false) async throws(ClientFault) {
        guard !partitions.isEmpty, !memberID.isEmpty else { return }
        let partition = partitions[random.below(partitions.count)]
        let (sent, owner) = (ledger.moment(), owner)
        let error = try await members.commit(partition, of: group, identity(epoch), .newest, by: client)
        if error == .none {
            fellows.epochs.committed(group.name, epoch: epoch, by: owner, partition: partition, sent: sent)
        }
        if !isLate { heed(error, "OffsetCommit") }
    }

    private func read() async throws(ClientFault) {
        try await members.read([Int32(random.below(Int(group.partitions)))], of: group, by: client)
    }
}
