/// The least number of bytes that values take, by which decoders bound what a count claims.
struct MinimumSizes {
    let message: Message

    /// A Swift expression of the least size of an array's element, in the versions in which the array exists.
    func expression(_ element: FieldType, _ field: Field, in versions: VersionRange, _ flexible: String) -> String {
        let bounded = versions.intersection(message.versions)
        func least(_ range: VersionRange, _ isFlexible: Bool) -> Int {
            var least = Int.max
            for version in range.low...range.high { least = min(least, size(element, version, isFlexible)) }
            return max(least, 1)
        }
        guard flexible == "flexible", let from = message.flexibleFrom else {
            let isFlexible = flexible == "true"
            return String(least(bounded, isFlexible))
        }
        let old = least(VersionRange(low: bounded.low, high: min(bounded.high, from - 1)), false)
        let new = least(VersionRange(low: max(bounded.low, from), high: bounded.high), true)
        return old == new ? String(old) : "flexible ? \(new) : \(old)"
    }

    private func size(_ type: FieldType, _ version: Int, _ isFlexible: Bool) -> Int {
        switch type {
        case .bool, .int8: return 1
        case .int16, .uint16, .errorCode: return 2
        case .int32, .uint32: return 4
        case .int64, .float64: return 8
        case .uuid: return 16
        case .string: return isFlexible ? 1 : 2
        case .bytes, .array: return isFlexible ? 1 : 4
        case .structure(let name):
            guard let structure = message.structure(name) else { return 0 }
            let tags = version >= message.flexibleFrom ?? Int.max ? 1 : 0
            return structure.fields.reduce(tags) { $0 + size($1, version) }
        }
    }

    private func size(_ field: Field, _ version: Int) -> Int {
        guard field.tag == nil, version >= field.versions.low, version <= field.versions.high else { return 0 }
        if case .structure = field.type, let nullable = field.nullable,
            version >= nullable.low, version <= nullable.high
        {
            return 1
        }
        return size(field.type, version, version >= message.flexibleFrom ?? Int.max && !field.isInflexible)
    }
}
