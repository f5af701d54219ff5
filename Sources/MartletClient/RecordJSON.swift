package import MartletBasics
package import MartletModel

/// A record as a line of JSON, one shape for reading and writing, so that what was read can be written again:
///
///     {"topic": "orders", "partition": 0, "offset": 7, "timestamp": 1700000000000, "timestampType": "create",
///      "key": "a", "value": "text", "headers": [{"name": "h", "value": "x"}]}
///
/// What is not UTF-8 stands in `keyBase64`, `valueBase64` in place of `key`, `value`; null is null.
package enum RecordJSON {
    /// A line is no longer, and nests no deeper.
    package static let limits = JSONLimits(bytes: 64 << 20, depth: 64)

    // MARK: Writing

    package static func line(_ record: FetchedRecord, of partition: TopicPartition) -> JSONValue {
        var object: JSONObject = [
            "topic": .string(partition.topic), "partition": .int(Int64(partition.partition)),
            "offset": .int(record.offset), "timestamp": record.timestamp < 0 ? .null : .int(record.timestamp),
            "timestampType": record.timestampType == .createTime ? "create" : "append",
        ]
        put(record.key, as: "key", into: &object)
        put(record.value, as: "value", into: &object)
        var headers: [JSONValue] = []
        var cursor = record.headers
        while let header = cursor.next() {
            var entry: JSONObject = [:]
            let name = record.cursor.bytes(in: header.name)
            entry["name"] = .string(String(decoding: name, as: UTF8.self))
            put(record.cursor.bytes(in: header.value), as: "value", into: &entry)
            headers.append(.object(entry))
        }
        object["headers"] = .array(headers)
        return .object(object)
    }

    private static func put(_ bytes: UnsafeRawBufferPointer?, as name: String, into object: inout JSONObject) {
        guard let bytes else {
            object[name] = .null
            return
        }
        if let text = String(validating: bytes, as: UTF8.self) {
            object[name] = .string(text)
        } else {
            object["\(name)Base64"] = .string(Base64.text(bytes))
        }
    }

    // MARK: Reading

    /// What `line` writes, and also: a value that is no text stands for its own JSON, headers may be an object, and a
    /// timestamp ISO 8601. Topic, offset and kind of timestamp are the broker's to say, and passed over.
    package static func record(_ line: [UInt8]) throws(ClientError) -> ProducedRecord {
        let json: JSONValue
        do throws(JSONFault) {
            json = try JSONValue(parsing: line, limits: limits)
        } catch {
            throw .invalid("no JSON: \(error)")
        }
        guard let object = json.object else { throw .invalid("a record is an object, with \"value\" at the least") }
        for member in object.members where !members.contains(member.name) {
            let nearest = nearestName(to: member.name, among: members).map { "; the nearest is \"\($0)\"" } ?? ""
            throw .invalid("a record has no \"\(member.name)\"\(nearest)")
        }
        guard object["value"] != nil || object["valueBase64"] != nil else { throw .invalid("\"value\" is missing") }
        var record = ProducedRecord(key: try bytes("key", object), value: try bytes("value", object))
        record.headers = try headers(object["headers"] ?? .null)
        record.timestamp = try timestamp(object["timestamp"] ?? .null)
        if let partition = object["partition"], partition != .null {
            guard let number = partition.integer(Int32.self), number >= 0 else {
                throw .invalid("\"partition\" is a whole number from 0")
            }
            record.partition = number
        }
        return record
    }

    private static let members = [
        "topic", "partition", "offset", "timestamp", "timestampType", "key", "keyBase64", "value", "valueBase64",
        "headers",
    ]

    private static func bytes(_ name: String, _ object: JSONObject) throws(ClientError) -> [UInt8]? {
        if let encoded = object["\(name)Base64"] {
            guard object[name] == nil, let text = encoded.string, let bytes = Base64.bytes(text) else {
                throw .invalid("\"\(name)Base64\" is base64, in place of \"\(name)\"")
            }
            return bytes
        }
        switch object[name] ?? .null {
        case .null: return nil
        case .string(let text): return Array(text.utf8)
        case let other: return other.bytes
        }
    }

    private static func headers(_ json: JSONValue) throws(ClientError) -> [RecordHeader] {
        switch json {
        case .null: return []
        case .object(let object):
            return object.members.map { member in
                switch member.value {
                case .null: RecordHeader(Array(member.name.utf8), nil)
                case .string(let text): RecordHeader(Array(member.name.utf8), Array(text.utf8))
                case let other: RecordHeader(Array(member.name.utf8), other.bytes)
                }
            }
        case .array(let entries):
            var headers: [RecordHeader] = []
            for entry in entries {
                guard let object = entry.object, let name = object["name"]?.string else {
                    throw .invalid("a header is {\"name\": …, \"value\": …}")
                }
                headers.append(RecordHeader(Array(name.utf8), try bytes("value", object)))
            }
            return headers
        default: throw .invalid("\"headers\" is an array of {\"name\": …, \"value\": …}, or an object")
        }
    }

    private static func timestamp(_ json: JSONValue) throws(ClientError) -> Int64? {
        switch json {
        case .null: return nil
        case .int(let milliseconds) where milliseconds >= 0: return milliseconds
        case .string(let text):
            guard let milliseconds = WallTime.milliseconds(text), milliseconds >= 0 else { fallthrough }
            return milliseconds
        default: throw .invalid("\"timestamp\" is milliseconds since 1970, or as 2026-11-21T11:22:33Z")
        }
    }
}
