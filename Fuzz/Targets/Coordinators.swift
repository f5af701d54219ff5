import MartletBasics
import MartletBroker
import MartletCluster
import MartletModel

/// Records of coordinators, a key's type and that of the value that goes with it.
private let recordPairs: [(key: any DrawnRecord.Type, value: any DrawnRecord.Type)] = {
    let byName = Dictionary(uniqueKeysWithValues: MessageList.records.map { ("\($0)", $0) })
    return MessageList.records.compactMap { key in
        guard key.keyPrefix != nil, let value = byName[String("\(key)".dropLast("Key".count)) + "Value"] else { return nil }
        return (key, value)
    }
}()

/// A choice, then the log of a coordinator's partition, record by record, then what is asked of it:
///
///     0–139    a record: which one, whether it is of a transaction or a tombstone, its fields as `FieldSource` draws them
///     140–149  a record of any bytes: the same choice, a key and a value, each after its size, a byte
///     150–255  all is read; an event, drawn likewise
///
/// Whatever was read, each request is answered at most once, memory is counted right, nothing goes round in circles, and
/// what is written is read again.
func fuzzCoordinator(_ input: inout FuzzInput) {
    let choice = input.byte()
    let failsWrites = choice & 2 != 0
    if choice & 1 == 0 {
        let surroundings = GroupSurroundings(image: fuzzedImage, version: 1)
        var fuzzed = FuzzedMachine(
            GroupMachine(settings: GroupSettings(), seed: 1), again: GroupMachine(settings: GroupSettings(), seed: 2),
            failsWrites: failsWrites,
            moment: { GroupMoment(now: $0, wallMilliseconds: $1, isFull: choice & 4 != 0, surroundings: surroundings) },
            effect: { .patternsFound($0.run(in: surroundings)) }, draw: drawGroupEvent)
        fuzzed.run(&input)
    } else {
        var nextID: ProducerID = 1_000
        var fuzzed = FuzzedMachine(
            TransactionMachine(settings: TransactionSettings()), again: TransactionMachine(settings: TransactionSettings()),
            failsWrites: failsWrites,
            moment: { CoordinatorMoment(now: $0, wallMilliseconds: $1, isFull: choice & 4 != 0) },
            effect: { effect in
                switch effect {
                case .allocateProducerID(let number):
                    nextID += 1
                    return .allocated(number, choice & 8 == 0 ? nextID : nil)
                case .writeMarkers(let ending): return .markersWritten(ending)
                }
            }, draw: drawTransactionEvent)
        fuzzed.run(&input)
    }
}

private let fuzzedTopicID = UUID(high: 1, low: 2)

private let fuzzedImage: MetadataImage = {
    func topic(_ name: String, _ id: UUID, _ count: Int32) -> TopicInfo {
        let partitions = (0..<count).map {
            PartitionInfo(index: $0, leader: 1, leaderEpoch: 0, replicas: [1], inSyncReplicas: [1])
        }
        return TopicInfo(name: name, id: id, partitions: partitions)
    }
    let topics = [topic("t", fuzzedTopicID, 3), topic("u", UUID(high: 1, low: 3), 1)]
    let broker = BrokerInfo(id: 1, endpoints: [], rack: nil)
    return MetadataImage(clusterID: "c", controllerID: 1, brokers: [broker], topics: topics)
}()

/// A machine, its log and its clock.
private struct FuzzedMachine<Machine: CoordinatorMachine> {
    /// What one event may come to.
    private static var actionsLimit: Int { 20_000 }

    private var machine: Machine
    /// Reads what the other one writes.
    private var again: Machine
    private let failsWrites: Bool
    private let moment: (Instant, Int64) -> Machine.Moment
    private let effect: (Machine.Effect) -> Machine.Event
    private let draw: (inout FieldSource, CoordinatorTicket) -> Machine.Event
    private var now: Int64 = 0
    private var offset: Offset = 0
    private var ticketsCount: UInt64 = 0
    private var open: Set<CoordinatorTicket> = []
    private var writesCount = 0

    init(
        _ machine: Machine, again: Machine, failsWrites: Bool, moment: @escaping (Instant, Int64) -> Machine.Moment,
        effect: @escaping (Machine.Effect) -> Machine.Event,
        draw: @escaping (inout FieldSource, CoordinatorTicket) -> Machine.Event
    ) {
        (self.machine, self.again, self.failsWrites) = (machine, again, failsWrites)
        (self.moment, self.effect, self.draw) = (moment, effect, draw)
    }

    private var present: Machine.Moment { moment(Instant(nanoseconds: now * 1_000_000), 1_700_000_000_000 + now) }

    mutating func run(_ input: inout FuzzInput) {
        var isLoaded = false
        while !input.isAtEnd {
            let kind = input.byte()
            if kind < 150 {
                guard !isLoaded else { return }
                loadRecord(kind, &input)
            } else {
                if !isLoaded { carryOut(machine.finishLoading(at: present)) }
                isLoaded = true
                pass(Int64(kind - 150) * Int64(kind - 150) * 10)
                var source = FieldSource(input, LearnedValues(topicIDs: [fuzzedTopicID]))
                ticketsCount += 1
                let ticket = CoordinatorTicket(number: ticketsCount)
                open.insert(ticket)
                carryOut(machine.handle(draw(&source, ticket), at: present))
                input = source.rest
            }
        }
        if !isLoaded { carryOut(machine.finishLoading(at: present)) }
        // what waits for something is answered when its time is over
        for _ in 0..<8 { pass(3_600_000) }
        precondition(machine.bytes >= 0, "a coordinator takes \(machine.bytes) bytes")
        precondition(again.finishLoading(at: present).count < Self.actionsLimit, "what was read has no end of consequences")
    }

    /// Time goes on, and what is due on the way is done.
    private mutating func pass(_ milliseconds: Int64) {
        let end = now + milliseconds
        for _ in 0..<64 {
            guard let due = machine.nextDeadline, due.nanoseconds / 1_000_000 < end else { break }
            now = max(now, due.nanoseconds / 1_000_000 + 1)
            carryOut(machine.handle(.timePassed, at: present))
        }
        now = max(now, end)
        carryOut(machine.handle(.timePassed, at: present))
    }

    // MARK: The log

    private mutating func loadRecord(_ kind: UInt8, _ input: inout FuzzInput) {
        let flags = input.byte()
        let key: [UInt8]
        var value: [UInt8]
        if kind < 140 {
            let pair = recordPairs[Int(kind) % recordPairs.count]
            var source = FieldSource(input, LearnedValues(topicIDs: [fuzzedTopicID]))
            key = Self.drawn(pair.key, 0, &source)
            value = flags & 1 != 0 ? [] : Self.drawn(pair.value, flags >> 4, &source)
            input = source.rest
        } else {
            key = input.take(Int(input.byte()))
            value = input.take(Int(input.byte()))
        }
        if flags & 6 == 6 { value = [0, 0, 0, 0, 0, 0] }
        load(key, flags & 1 != 0 ? nil : value, isControl: flags & 6 == 6, transactionOf: flags & 4 != 0 ? 7 : nil)
    }

    private static func drawn<Record: DrawnRecord>(_: Record.Type, _ version: UInt8, _ source: inout FieldSource) -> [UInt8] {
        let version = Record.versions.lowerBound + Int16(version) % Int16(Record.versions.count)
        return (try? Record.random(version: version, using: &source).prefixedBytes(version: version)) ?? []
    }

    private mutating func load(_ key: [UInt8], _ value: [UInt8]?, isControl: Bool = false, transactionOf: ProducerID? = nil) {
        key.withUnsafeBytes { key in
            func load(_ value: UnsafeRawBufferPointer?) {
                let record = ReplayedRecord(
                    offset: offset, key: key, value: value, isControl: isControl, transactionOf: transactionOf)
                _ = machine.load(record)
                _ = again.load(record)
            }
            if let value { value.withUnsafeBytes { load($0) } } else { load(nil) }
        }
        offset += 1
    }

    /// What was decided is durable, and is read by another.
    private mutating func write(
        _ records: [Machine.Record], transactionOf: ProducerID? = nil
    ) -> Result<Offset, CoordinatorFailure> {
        writesCount += 1
        guard !failsWrites || writesCount % 3 != 0 else { return .failure(CoordinatorFailure(.notEnoughReplicas)) }
        let first = offset
        for record in records {
            var key = ByteBuffer()
            var value = ByteBuffer()
            guard let hasValue = try? record.encode(key: &key, value: &value) else {
                return .failure(CoordinatorFailure(.unknownServerError))
            }
            let replayed = ReplayedRecord(
                offset: offset, key: key.bytes, value: hasValue ? value.bytes : nil, isControl: false,
                transactionOf: transactionOf)
            precondition(again.load(replayed), "what a coordinator has written is not known to it: \(record)")
            offset += 1
        }
        return .success(first)
    }

    private mutating func carryOut(_ actions: [Machine.Action]) {
        var waiting = actions[...]
        var count = 0
        while let action = waiting.popFirst() {
            count += 1
            precondition(count < Self.actionsLimit, "one event of a coordinator has no end of consequences")
            let event: Machine.Event
            switch action {
            case .answer(let ticket, _):
                precondition(open.remove(ticket) != nil, "a request is answered that was answered before")
                continue
            case .append(let number, let records): event = .written(number, write(records))
            case .appendInTransaction(let number, let records, let producer):
                event = .written(number, write(records, transactionOf: producer.id))
            case .endTransaction(let number, _): event = .written(number, write([]))
            case .effect(let effect): event = self.effect(effect)
            }
            waiting += machine.handle(event, at: present)
        }
    }
}

// MARK: What is asked

private func drawGroupEvent(_ source: inout FieldSource, _ ticket: CoordinatorTicket) -> GroupEvent {
    let kind = UInt8(bitPattern: source.int8()) % 12
    let group = source.text()
    switch kind {
    case 0:
        var join = JoinGroupEvent(group: group)
        join.memberID = source.text()
        join.instanceID = source.bool() ? source.text() : nil
        join.rebalanceTimeoutMs = source.int32()
        join.requiresKnownMember = source.bool()
        join.protocols = (0..<source.elementCount()).map { _ in
            GroupProtocol(name: source.text(), metadata: source.byteArray())
        }
        return .join(join, ticket)
    case 1:
        var sync = SyncGroupEvent(group: group, memberID: source.text(), generation: source.int32())
        sync.assignments = (0..<source.elementCount()).map { _ in (source.text(), source.byteArray()) }
        return .sync(sync, ticket)
    case 2: return .heartbeat(HeartbeatEvent(group: group, memberID: source.text(), generation: source.int32()), ticket)
    case 3:
        let members = (0..<source.elementCount()).map { _ in
            LeaveGroupEvent.Member(id: source.text(), instanceID: source.bool() ? source.text() : nil)
        }
        return .leave(LeaveGroupEvent(group: group, members: members), ticket)
    case 4:
        var commit = OffsetCommitEvent(group: group)
        (commit.memberID, commit.generation) = (source.text(), source.int32())
        commit.retentionMs = source.int64()
        commit.producer = source.bool() ? ProducerIdentity(source.int64(), source.int16()) : nil
        commit.partitions = (0..<source.elementCount()).map { _ in
            OffsetCommitEvent.Partition(topic: source.text(), partition: source.int32(), offset: source.int64())
        }
        return .commit(commit, ticket)
    case 5:
        let marker = EndTransactionMarker(source.bool() ? .commit : .abort, coordinatorEpoch: 0)
        return .endTransaction(
            TransactionEnd(ProducerIdentity(source.int64(), source.int16()), marker, version: 1), ticket)
    case 6:
        let partitions = (0..<source.elementCount()).map { _ in TopicPartition(source.text(), source.int32()) }
        return .deleteOffsets(OffsetDeleteEvent(group: group, partitions: partitions), ticket)
    case 7: return .deleteGroup(group, ticket)
    case 8: return .topicsDeleted([DeletedTopic(name: source.text(), id: source.uuid())])
    case 9: return .expireOffsets
    default:
        var beat = ConsumerHeartbeatEvent(group: group)
        (beat.memberID, beat.epoch) = (source.text(), source.int32())
        beat.rebalanceTimeoutMs = source.int32()
        beat.instanceID = source.bool() ? source.text() : nil
        beat.topics = source.bool() ? nil : (0..<source.elementCount()).map { _ in source.text() }
        beat.pattern = source.bool() ? source.text() : nil
        beat.assignor = source.bool() ? source.text() : nil
        beat.owned = source.bool() ? nil : beat.epoch == 0 ? [:] : [source.uuid(): [source.int32()]]
        return .consumerHeartbeat(beat, ticket)
    }
}

private func drawTransactionEvent(_ source: inout FieldSource, _ ticket: CoordinatorTicket) -> TransactionEvent {
    let kind = UInt8(bitPattern: source.int8()) % 6
    func producer(_ source: inout FieldSource) -> ProducerIdentity { ProducerIdentity(source.int64(), source.int16()) }
    switch kind {
    case 0, 1:
        let expected = source.bool() ? producer(&source) : nil
        return .initialize(InitProducerEvent(id: source.text(), timeoutMs: source.int32(), expected: expected), ticket)
    case 2:
        let partitions = (0..<source.elementCount()).map { _ in TopicPartition(source.text(), source.int32()) }
        return .addPartitions(
            AddPartitionsEvent(
                id: source.text(), producer: producer(&source), partitions: partitions, version: source.bool() ? 2 : 0),
            ticket)
    case 3:
        return .end(
            EndTransactionEvent(
                id: source.text(), producer: producer(&source), commits: source.bool(), version: source.bool() ? 2 : 0),
            ticket)
    case 4: return .abortTimedOut
    default: return .expire
    }
}
