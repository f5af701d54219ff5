/// An address in the one form that compares: 16 bytes, IPv4 within IPv6.
package struct IPAddress: Hashable, Sendable {
    private var high: UInt64
    private var low: UInt64

    /// From its text; nil where it is none. A name is none: nobody connects from one.
    package init?(_ text: String) {
        if !text.utf8.contains(UInt8(ascii: ":")) {
            guard let number = Self.four(text[...]) else { return nil }
            (high, low) = (0, 0xFFFF_0000_0000 | UInt64(number))
            return
        }
        guard let groups = Self.groups(text) else { return nil }
        high = groups[..<4].reduce(0) { $0 << 16 | UInt64($1) }
        low = groups[4...].reduce(0) { $0 << 16 | UInt64($1) }
    }

    private static func four(_ text: Substring) -> UInt32? {
        let parts = text.split(separator: ".", omittingEmptySubsequences: false)
        guard parts.count == 4 else { return nil }
        var number: UInt32 = 0
        for part in parts {
            guard (1...3).contains(part.utf8.count), part.utf8.allSatisfy({ (0x30...0x39).contains($0) }),
                let byte = UInt8(part)
            else { return nil }
            number = number << 8 | UInt32(byte)
        }
        return number
    }

    /// The eight groups of an IPv6 address; `::` stands for as many zeros as are missing.
    private static func groups(_ text: String) -> [UInt16]? {
        let halves = text.split(separator: "::", maxSplits: 2, omittingEmptySubsequences: false)
        guard halves.count <= 2, let head = part(halves[0], isLast: halves.count == 1) else { return nil }
        guard halves.count == 2 else { return head.count == 8 ? head : nil }
        guard let tail = part(halves[1], isLast: true), head.count + tail.count < 8 else { return nil }
        return head + [UInt16](repeating: 0, count: 8 - head.count - tail.count) + tail
    }

    private static func part(_ text: Substring, isLast: Bool) -> [UInt16]? {
        guard !text.isEmpty else { return [] }
        var groups: [UInt16] = []
        let texts = text.split(separator: ":", omittingEmptySubsequences: false)
        for (index, group) in texts.enumerated() {
            if isLast, index == texts.count - 1, group.utf8.contains(UInt8(ascii: ".")) {
                guard let number = four(group) else { return nil }
                groups += [UInt16(number >> 16), UInt16(truncatingIfNeeded: number)]
                continue
            }
            let isSigned = group.utf8.first == UInt8(ascii: "+") || group.utf8.first == UInt8(ascii: "-")
            guard (1...4).contains(group.utf8.count), !isSigned, let value = UInt16(group, radix: 16)
            else { return nil }
            groups.append(value)
        }
        return groups.count <= 8 ? groups : nil
    }
}
