import MartletBasics

/// The members of one line, taken by name and kind.
struct Fields {
    private let object: JSONObject
    private let line: Int

    init(_ value: JSONValue, line: Int) throws(HistoryFault) {
        guard let object = value.object else { throw HistoryFault(line: line, reason: "an event is an object") }
        self.object = object
        self.line = line
    }

    private func fault(_ name: String, _ wanted: String) -> HistoryFault {
        HistoryFault(line: line, reason: "\"\(name)\" is to be \(wanted)")
    }

    private func number(_ name: String) throws(HistoryFault) -> Int64 {
        guard let value = object[name]?.int else { throw fault(name, "a whole number") }
        return value
    }

    private func small(_ name: String) throws(HistoryFault) -> Int {
        guard let value = object[name]?.integer(Int.self) else { throw fault(name, "a whole number") }
        return value
    }

    private func optionalNumber(_ name: String) throws(HistoryFault) -> Int64? {
        guard let value = object[name], value != .null else { return nil }
        guard let number = value.int else { throw fault(name, "a whole number, or left out") }
        return number
    }

    private func text(_ name: String) throws(HistoryFault) -> String {
        guard let value = object[name]?.string else { throw fault(name, "a text") }
        return value
    }

    private func flag(_ name: String) throws(HistoryFault) -> Bool {
        guard let value = object[name] else { return false }
        guard let flag = value.bool else { throw fault(name, "true or false") }
        return flag
    }

    private func place() throws(HistoryFault) -> Place { Place(try text("topic"), try small("partition")) }

    private func values() throws(HistoryFault) -> [String] {
        guard let array = object["values"]?.array else { throw fault("values", "a list of texts") }
        let texts = array.compactMap(\.string)
        guard texts.count == array.count else { throw fault("values", "a list of texts") }
        return texts
    }

    /// Texts that may be left out.
    private func optionalTexts(_ name: String) throws(HistoryFault) -> [String] {
        guard let value = object[name], value != .null else { return [] }
        guard let array = value.array else { throw fault(name, "a list of texts, or left out") }
        let texts = array.compactMap(\.string)
        guard texts.count == array.count else { throw fault(name, "a list of texts, or left out") }
        return texts
    }

    /// Indices of values, which may be left out.
    private func indices(_ name: String, below count: Int) throws(HistoryFault) -> [Int] {
        guard let value = object[name], value != .null else { return [] }
        guard let array = value.array else { throw fault(name, "a list of indices of values, or left out") }
        let numbers = array.compactMap { $0.integer(Int.self) }
        guard numbers.count == array.count, numbers.allSatisfy({ $0 >= 0 && $0 < count }) else {
            throw fault(name, "a list of indices of values, or left out")
        }
        return numbers
    }

    private func send() throws(HistoryFault) -> SentBatch {
        let values = try values()
        let keys = try optionalTexts("keys")
        guard keys.isEmpty || keys.count == values.count else { throw fault("keys", "as many as there are values") }
        return SentBatch(
            operation: try small("operation"), producer: try text("producer"), place: try place(), values: values,
            acks: try small("acks"), isIdempotent: try flag("idempotent"), transaction: object["transaction"]?.string,
            keys: keys, tombstones: try indices("tombstones", below: values.count))
    }

    private func records() throws(HistoryFault) -> [SeenRecord] {
        guard let array = object["records"]?.array else { throw fault("records", "a list of pairs of an offset and a text") }
        let records = array.compactMap { pair -> SeenRecord? in
            guard let pair = pair.array, pair.count == 2, let offset = pair[0].int, let value = pair[1].string else {
                return nil
            }
            return SeenRecord(offset, value)
        }
        guard records.count == array.count else { throw fault("records", "a list of pairs of an offset and a text") }
        return records
    }

    private func counts(_ name: String) throws(HistoryFault) -> [String: Int] {
        guard let members = object[name]?.object?.members else { throw fault(name, "an object of numbers") }
        var counts: [String: Int] = [:]
        for member in members {
            guard let count = member.value.integer(Int.self) else { throw fault(name, "an object of numbers") }
            counts[member.name] = count
        }
        return counts
    }

    func event() throws(HistoryFault) -> HistoryEvent { HistoryEvent(try number("at"), try kind(try text("event"))) }

    private func kind(_ name: String) throws(HistoryFault) -> HistoryEvent.Kind {
        switch name {
        case "accepted": return .told(operation: try small("operation"), .accepted(at: try optionalNumber("offset")))
        case "refused": return .told(operation: try small("operation"), .refused(try text("reason")))
        case "unknown": return .told(operation: try small("operation"), .unknown(try text("reason")))
        case "saw", "listed", "outOfRange", "whole", "committed", "topics": return try sight(name)
        case "ended":
            guard let how = LifeEnd(rawValue: try text("how")) else { throw fault("how", "stop, kill or powerCut") }
            return .ended(how)
        case "damaged": return .damaged(try place())
        case "compacted": return .compacted(topic: try text("topic"))
        case "transactionsOver": return .transactionsOver
        case "broken": return .broken(try text("reason"))
        case "note": return .note(try text("text"))
        default: return try operation(name)
        }
    }

    private func operation(_ name: String) throws(HistoryFault) -> HistoryEvent.Kind {
        switch name {
        case "send":
            return .send(try send())
        case "endTransaction":
            return .endTransaction(
                operation: try small("operation"), transaction: try text("transaction"), commits: try flag("commits"))
        case "deleteRecords":
            return .deleteRecords(operation: try small("operation"), place: try place(), before: try number("before"))
        case "commit":
            return .commit(
                operation: try small("operation"), group: try text("group"), place: try place(),
                offset: try optionalNumber("offset"), transaction: object["transaction"]?.string)
        case "makeTopic":
            return .makeTopic(operation: try small("operation"), topic: try text("topic"), partitions: try small("partitions"))
        case "deleteTopic": return .deleteTopic(operation: try small("operation"), topic: try text("topic"))
        default: throw HistoryFault(line: line, reason: "no event is called \"\(name)\"")
        }
    }

    private func sight(_ name: String) throws(HistoryFault) -> HistoryEvent.Kind {
        switch name {
        case "saw":
            return .saw(
                SeenPart(
                    consumer: try text("consumer"), place: try place(), asked: try number("asked"), from: try number("from"),
                    records: try records(), highWatermark: try optionalNumber("highWatermark"),
                    logStart: try optionalNumber("logStart"),
                    lastStable: try optionalNumber("lastStable"),
                    isCommitted: try flag("committed")))
        case "listed":
            return .listed(
                consumer: try text("consumer"), place: try place(), asked: try number("asked"),
                start: try optionalNumber("start"),
                end: try optionalNumber("end"))
        case "outOfRange":
            return .outOfRange(
                consumer: try text("consumer"), place: try place(), asked: try number("asked"), from: try number("from"))
        case "whole":
            return .whole(
                consumer: try text("consumer"), place: try place(), start: try number("start"), end: try number("end"))
        case "committed":
            return .committed(
                group: try text("group"), place: try place(), asked: try number("asked"), offset: try optionalNumber("offset"))
        default: return .topics(asked: try number("asked"), try counts("topics"))
        }
    }
}

extension HistoryEvent {
    /// The line of this event, without its end.
    package var line: String { JSONValue.object(JSONObject([.init("at", .int(time))] + kind.members)).text }
}

extension HistoryEvent.Kind {
    fileprivate typealias Member = JSONObject.Member

    private static func named(_ name: String, _ members: [Member]) -> [Member] { [Member("event", .string(name))] + members }

    private static func of(_ place: Place) -> [Member] {
        [Member("topic", .string(place.topic)), Member("partition", .int(Int64(place.partition)))]
    }

    private static func number(_ name: String, _ value: Int64?) -> [Member] { value.map { [Member(name, .int($0))] } ?? [] }

    private static func operation(_ number: Int) -> [Member] { [Member("operation", .int(Int64(number)))] }

    private static func text(_ name: String, _ value: String) -> [Member] { [Member(name, .string(value))] }

    private static func flag(_ name: String, _ value: Bool) -> [Member] { value ? [Member(name, .bool(true))] : [] }

    fileprivate var members: [Member] {
        switch self {
        case .send(let batch): return Self.named("send", Self.members(of: batch))
        case .endTransaction(let operation, let transaction, let commits):
            return Self.named(
                "endTransaction",
                Self.operation(operation) + Self.text("transaction", transaction) + [Member("commits", .bool(commits))])
        case .deleteRecords(let operation, let place, let before):
            return Self.named("deleteRecords", Self.operation(operation) + Self.of(place) + Self.number("before", before))
        case .commit(let operation, let group, let place, let offset, let transaction):
            return Self.named(
                "commit",
                Self.operation(operation) + Self.text("group", group) + Self.of(place) + Self.number("offset", offset)
                    + (transaction.map { Self.text("transaction", $0) } ?? []))
        case .makeTopic(let operation, let topic, let partitions):
            return Self.named(
                "makeTopic",
                Self.operation(operation) + Self.text("topic", topic) + Self.number("partitions", Int64(partitions)))
        case .deleteTopic(let operation, let topic):
            return Self.named("deleteTopic", Self.operation(operation) + Self.text("topic", topic))
        case .told(let operation, let outcome): return Self.members(of: outcome, operation)
        case .ended(let how): return Self.named("ended", Self.text("how", how.rawValue))
        case .damaged(let place): return Self.named("damaged", Self.of(place))
        case .compacted(let topic): return Self.named("compacted", Self.text("topic", topic))
        case .transactionsOver: return Self.named("transactionsOver", [])
        case .broken(let reason): return Self.named("broken", Self.text("reason", reason))
        case .note(let text): return Self.named("note", Self.text("text", text))
        default: return sightMembers
        }
    }

    private static func members(of batch: SentBatch) -> [Member] {
        var members = operation(batch.operation) + text("producer", batch.producer) + of(batch.place)
        members.append(Member("values", .array(batch.values.map { .string($0) })))
        members.append(Member("acks", .int(Int64(batch.acks))))
        members += flag("idempotent", batch.isIdempotent)
        if let transaction = batch.transaction { members += text("transaction", transaction) }
        if !batch.keys.isEmpty { members.append(Member("keys", .array(batch.keys.map { .string($0) }))) }
        if !batch.tombstones.isEmpty {
            members.append(Member("tombstones", .array(batch.tombstones.map { .int(Int64($0)) })))
        }
        return members
    }

    private static func members(of outcome: Outcome, _ number: Int) -> [Member] {
        switch outcome {
        case .accepted(let offset): named("accepted", operation(number) + Self.number("offset", offset))
        case .refused(let reason): named("refused", operation(number) + text("reason", reason))
        case .unknown(let reason): named("unknown", operation(number) + text("reason", reason))
        }
    }

    private var sightMembers: [Member] {
        switch self {
        case .saw(let part):
            let records = part.records.map { JSONValue.array([.int($0.offset), .string($0.value)]) }
            return Self.named(
                "saw",
                Self.text("consumer", part.consumer) + Self.of(part.place) + Self.number("asked", part.asked)
                    + Self.number("from", part.from) + [Member("records", .array(records))]
                    + Self.number("highWatermark", part.highWatermark) + Self.number("logStart", part.logStart)
                    + Self.number("lastStable", part.lastStable) + Self.flag("committed", part.isCommitted))
        case .listed(let consumer, let place, let asked, let start, let end):
            return Self.named(
                "listed",
                Self.text("consumer", consumer) + Self.of(place) + Self.number("asked", asked) + Self.number("start", start)
                    + Self.number("end", end))
        case .outOfRange(let consumer, let place, let asked, let from):
            return Self.named(
                "outOfRange",
                Self.text("consumer", consumer) + Self.of(place) + Self.number("asked", asked) + Self.number("from", from))
        case .whole(let consumer, let place, let start, let end):
            return Self.named(
                "whole",
                Self.text("consumer", consumer) + Self.of(place) + Self.number("start", start) + Self.number("end", end))
        case .committed(let group, let place, let asked, let offset):
            return Self.named(
                "committed",
                Self.text("group", group) + Self.of(place) + Self.number("asked", asked) + Self.number("offset", offset))
        case .topics(let asked, let counts):
            let members = counts.sorted { $0.key < $1.key }.map { Member($0.key, .int(Int64($0.value))) }
            return Self.named("topics", Self.number("asked", asked) + [Member("topics", .object(JSONObject(members)))])
        default: preconditionFailure("what is no sight has members of its own")
        }
    }
}
