/// What a schema file says, parsed: the notation is described in docs/design/schema-notation.md.

/// The versions of a message in which something holds. An open end (`7+`) is `VersionRange.open`.
struct VersionRange: Equatable {
    static let open = Int(Int16.max)
    static let all = VersionRange(low: 0, high: open)

    var low: Int
    var high: Int

    var isEmpty: Bool { low > high }

    func intersection(_ other: VersionRange) -> VersionRange {
        VersionRange(low: max(low, other.low), high: min(high, other.high))
    }

    /// The smallest range that covers both.
    func hull(_ other: VersionRange) -> VersionRange {
        VersionRange(low: min(low, other.low), high: max(high, other.high))
    }

    func covers(_ other: VersionRange) -> Bool { low <= other.low && high >= other.high }

    /// A Swift condition on `version` that is true in this range, given that `version` lies in `context`;
    /// nil where that alone decides it.
    func condition(within context: VersionRange) -> String? {
        if covers(context) { return nil }
        if intersection(context).isEmpty { return "false" }
        if low == high { return "version == \(low)" }
        var parts: [String] = []
        if low > context.low { parts.append("version >= \(low)") }
        if high < context.high { parts.append("version <= \(high)") }
        return parts.joined(separator: " && ")
    }
}

indirect enum FieldType: Equatable {
    case bool, int8, int16, uint16, int32, uint32, int64, float64
    /// An int16 field that is called `ErrorCode`.
    case errorCode
    case uuid, string, bytes
    case structure(String)
    case array(FieldType)
}

struct Field {
    /// As the schema has it, and as Swift has it.
    var name: String
    var property: String
    var type: FieldType
    /// Where null is a value; nil if nowhere.
    var nullable: VersionRange?
    /// The text after `=`, without quotes; nil if there is none.
    var defaultText: String?
    var versions: VersionRange
    var tag: Int?
    var isIgnorable = false
    var isInflexible = false
    var line: Int

    var isOptional: Bool { nullable != nil }
}

struct Structure {
    var name: String
    var fields: [Field]
    /// Every version in which some field has this type.
    var reach = VersionRange(low: VersionRange.open, high: -1)
    /// Whether values of this type hold bytes, themselves or in what is nested in them.
    var holdsBytes = false
    var line: Int
}

struct Message {
    enum Kind { case request, response, data, header, coordinatorKey, coordinatorValue }

    var kind: Kind
    /// The Swift name: `FetchRequest`, `OffsetCommitValue`.
    var name: String
    /// The number of the API, or of a coordinator's record.
    var key: Int?
    var versions: VersionRange
    /// The first flexible version.
    var flexibleFrom: Int?
    var isLatestUnstable = false
    var root: Structure
    /// The nested types, in the order in which the schema first names them.
    var structures: [Structure] = []
    var line: Int

    func structure(_ name: String) -> Structure? { structures.first { $0.name == name } }
}

package struct Schema {
    /// The name of the file without folder and extension, and the whole path for messages.
    var path: String
    var name: String
    var apiKey: Int?
    var messages: [Message] = []
}

package struct SchemaError: Error, CustomStringConvertible {
    var path: String
    var line: Int
    var reason: String

    package var description: String { "\(path):\(line): error: \(reason)" }
}
