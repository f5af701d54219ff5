/// Reads RE2's syntax. What it does not have, or has and we do not, is a fault and never passed over.
struct TopicPatternParser {
    private typealias Node = TopicPattern.Node
    private typealias Scalar = Unicode.Scalar

    /// What `(?imsU)` switches. `U` only says which of several matches is preferred, and there is one.
    private struct Flags {
        var ignoresCase = false
        var isMultiline = false
        var dotIsAll = false
    }

    private let scalars: [Scalar]
    private var at = 0
    private var flags = Flags()
    private var depth = 0
    private var names: Set<String> = []

    init(_ text: String) { scalars = Array(text.unicodeScalars) }

    mutating func parse() throws(TopicPatternFault) -> TopicPattern.Node {
        let tree = try alternatives()
        guard at == scalars.count else { throw TopicPatternFault("a ')' closes nothing") }
        return tree
    }

    // MARK: Looking

    private var next: Scalar? { at < scalars.count ? scalars[at] : nil }

    private mutating func take() throws(TopicPatternFault) -> Scalar {
        guard let scalar = next else { throw TopicPatternFault("it ends too early") }
        at += 1
        return scalar
    }

    private mutating func take(_ text: String) -> Bool {
        let wanted = Array(text.unicodeScalars)
        guard at + wanted.count <= scalars.count, Array(scalars[at..<at + wanted.count]) == wanted else { return false }
        at += wanted.count
        return true
    }

    // MARK: Structure

    private mutating func alternatives() throws(TopicPatternFault) -> Node {
        var found = [try sequence()]
        while take("|") { found.append(try sequence()) }
        return found.count == 1 ? found[0] : .choice(found)
    }

    private mutating func sequence() throws(TopicPatternFault) -> Node {
        var nodes: [Node] = []
        while let scalar = next, scalar != "|", scalar != ")" {
            // `(?i)` stands alone, and holds to the end of its group
            guard let piece = try piece() else { continue }
            nodes.append(try repeated(piece))
        }
        return nodes.count == 1 ? nodes[0] : nodes.isEmpty ? .nothing : .sequence(nodes)
    }

    /// Nil for what only switches flags.
    private mutating func piece() throws(TopicPatternFault) -> Node? {
        let scalar = try take()
        switch scalar {
        case "(": return try group()
        case "[": return .one(try characterClass())
        case ".": return .one(flags.dotIsAll ? .all : .notNewline)
        case "^": return .assertion(flags.isMultiline ? .lineBegin : .textBegin)
        case "$": return .assertion(flags.isMultiline ? .lineEnd : .textEnd)
        case "\\": return try escaped()
        case "*", "+", "?": throw TopicPatternFault("'\(scalar)' repeats nothing")
        case "{":
            at -= 1
            guard try counts() == nil else { throw TopicPatternFault("'{' repeats nothing") }
            at += 1
            return literal(scalar)
        default: return literal(scalar)
        }
    }

    private func literal(_ scalar: Scalar) -> Node { .one(folded(set(scalar...scalar))) }

    private func folded(_ set: CharacterSet128) -> CharacterSet128 { flags.ignoresCase ? set.ignoringCase : set }

    /// What of a range is ASCII.
    private func set(_ range: ClosedRange<Scalar>) -> CharacterSet128 {
        guard range.lowerBound.value < 128 else { return CharacterSet128() }
        return CharacterSet128(UInt8(range.lowerBound.value)...UInt8(min(range.upperBound.value, 127)))
    }

    private mutating func repeated(_ node: Node) throws(TopicPatternFault) -> Node {
        let counts: (least: Int, most: Int?)
        switch next {
        case "*": (counts, at) = ((0, nil), at + 1)
        case "+": (counts, at) = ((1, nil), at + 1)
        case "?": (counts, at) = ((0, 1), at + 1)
        case "{":
            guard let found = try self.counts() else { return node }
            counts = found
        default: return node
        }
        // which match is preferred does not matter to whole names
        _ = take("?")
        if next == "*" || next == "+" || next == "?" { throw TopicPatternFault("a repetition is repeated: put it in a group") }
        if next == "{", try self.counts() != nil { throw TopicPatternFault("a repetition is repeated: put it in a group") }
        let most = counts.most ?? counts.least
        guard max(most, counts.least) <= TopicPattern.repetitionsLimit else {
            throw TopicPatternFault("it repeats more than \(TopicPattern.repetitionsLimit) times")
        }
        guard most >= counts.least else {
            throw TopicPatternFault("it repeats at least \(counts.least) and at most \(most) times")
        }
        return .repetition(node, least: counts.least, most: counts.most)
    }

    /// `{n}`, `{n,}` or `{n,m}`; nil, and nothing read, where the brace is a brace.
    private mutating func counts() throws(TopicPatternFault) -> (least: Int, most: Int?)? {
        let start = at
        guard take("{"), let least = number() else {
            at = start
            return nil
        }
        var most: Int? = least
        if take(",") { most = next == "}" ? nil : number() ?? -1 }
        guard take("}"), most != -1 else {
            at = start
            return nil
        }
        return (least, most)
    }

    private mutating func number() -> Int? {
        var value: Int?
        while let scalar = next, let digit = Int(String(scalar)), scalar.isASCII {
            value = min((value ?? 0) * 10 + digit, TopicPattern.repetitionsLimit + 1)
            at += 1
        }
        return value
    }

    // MARK: Groups

    private mutating func group() throws(TopicPatternFault) -> Node? {
        let outer = flags
        if take("?") {
            if take("P<")
                || (next == "<" && at + 1 < scalars.count && scalars[at + 1] != "=" && scalars[at + 1] != "!" && take("<"))
            {
                try name()
            } else if try switchFlags() == .alone {
                return nil
            }
        }
        depth += 1
        guard depth <= TopicPattern.nestingLimit else {
            throw TopicPatternFault("its groups are more than \(TopicPattern.nestingLimit) deep")
        }
        let inner = try alternatives()
        guard take(")") else { throw TopicPatternFault("a '(' is not closed") }
        depth -= 1
        flags = outer
        return inner
    }

    private mutating func name() throws(TopicPatternFault) {
        var name = ""
        while next != ">" {
            let scalar = try take()
            guard scalar.isASCII, CharacterSet128.word.contains(UInt8(scalar.value)) else {
                throw TopicPatternFault("a group's name has letters, digits and '_'")
            }
            name.unicodeScalars.append(scalar)
        }
        at += 1
        guard !name.isEmpty, names.insert(name).inserted else {
            throw TopicPatternFault("a group's name is empty, or there twice")
        }
    }

    private enum Switch { case alone, ofGroup }

    private mutating func switchFlags() throws(TopicPatternFault) -> Switch {
        var isOn = true
        var count = 0
        while true {
            let scalar = try take()
            switch scalar {
            case "i": flags.ignoresCase = isOn
            case "m": flags.isMultiline = isOn
            case "s": flags.dotIsAll = isOn
            case "U": break
            case "-" where isOn:
                (isOn, count) = (false, -1)
            case ":" where isOn || count > 0: return .ofGroup
            case ")" where count > 0: return .alone
            default: throw TopicPatternFault("'(?\(scalar)' is nothing that RE2 has")
            }
            count += 1
        }
    }

    // MARK: Escapes

    private mutating func escaped() throws(TopicPatternFault) -> Node {
        switch next {
        case "A": return assertion(.textBegin)
        case "z": return assertion(.textEnd)
        case "b": return assertion(.wordBoundary)
        case "B": return assertion(.noWordBoundary)
        case "Q":
            at += 1
            var nodes: [Node] = []
            while at < scalars.count, !take("\\E") { nodes.append(literal(try take())) }
            // a repetition that follows is of the last character alone
            if let last = nodes.popLast() { nodes.append(try repeated(last)) }
            return .sequence(nodes)
        default: break
        }
        if let set = try classEscape() { return .one(folded(set)) }
        let scalar = try character()
        return literal(scalar)
    }

    private mutating func assertion(_ assertion: TopicPattern.Assertion) -> Node {
        at += 1
        return .assertion(assertion)
    }

    /// `\d` and its like, after the backslash; nil, and nothing read, where it is none.
    private mutating func classEscape() throws(TopicPatternFault) -> CharacterSet128? {
        guard let scalar = next else { return nil }
        at += 1
        switch scalar {
        case "d": return .digit
        case "D": return CharacterSet128.digit.inverted
        case "w": return .word
        case "W": return CharacterSet128.word.inverted
        case "s": return .space
        case "S": return CharacterSet128.space.inverted
        case "p", "P":
            var isNegated = scalar == "P"
            var name = String(try take())
            if name == "{" {
                name = ""
                if take("^") { isNegated.toggle() }
                while !take("}") { name.unicodeScalars.append(try take()) }
            }
            guard let set = UnicodeClasses.ascii[name] else {
                throw TopicPatternFault("'\(name.prefix(32))' is no class of characters that is known")
            }
            return isNegated ? set.inverted : set
        default:
            at -= 1
            return nil
        }
    }

    /// A character that is written with a backslash, after that.
    private mutating func character() throws(TopicPatternFault) -> Scalar {
        let scalar = try take()
        switch scalar {
        case "a": return "\u{07}"
        case "f": return "\u{0C}"
        case "n": return "\n"
        case "r": return "\r"
        case "t": return "\t"
        case "v": return "\u{0B}"
        case "x": return try hexadecimal()
        case "0"..."7":
            func octal(_ scalar: Scalar?) -> UInt32? { scalar.flatMap { ("0"..."7").contains($0) ? $0.value - 48 : nil } }
            // a single digit that is not 0 would refer back
            guard scalar == "0" || octal(next) != nil else {
                throw TopicPatternFault("it refers back, which RE2 does not have")
            }
            var value = scalar.value - 48
            for _ in 0..<2 {
                guard let digit = octal(next) else { break }
                value = value * 8 + digit
                at += 1
            }
            return Scalar(value)!
        default:
            let isAlphanumeric = scalar.properties.isAlphabetic || ("0"..."9").contains(scalar)
            guard scalar.isASCII, !isAlphanumeric else { throw TopicPatternFault("'\\\(scalar)' is nothing that RE2 has") }
            return scalar
        }
    }

    private mutating func hexadecimal() throws(TopicPatternFault) -> Scalar {
        var digits = ""
        if take("{") {
            while !take("}") {
                digits.unicodeScalars.append(try take())
                guard digits.utf8.count <= 8 else { break }
            }
        } else {
            for _ in 0..<2 { digits.unicodeScalars.append(try take()) }
        }
        guard digits.utf8.allSatisfy({ $0 != UInt8(ascii: "+") && $0 != UInt8(ascii: "-") }),
            let value = UInt32(digits, radix: 16), let scalar = Scalar(value)
        else { throw TopicPatternFault("'\\x\(digits)' is no character") }
        return scalar
    }

    // MARK: Classes

    private mutating func characterClass() throws(TopicPatternFault) -> CharacterSet128 {
        let isNegated = take("^")
        var set = CharacterSet128()
        var isFirst = true
        while isFirst || next != "]" {
            isFirst = false
            if take("[:") {
                let isNot = take("^")
                var name = ""
                while !take(":]") { name.unicodeScalars.append(try take()) }
                guard let named = Self.named[name] else {
                    throw TopicPatternFault("'[:\(name.prefix(32)):]' is no class of characters")
                }
                set.formUnion(isNot ? named.inverted : named)
                continue
            }
            if next == "\\" {
                at += 1
                if let escaped = try classEscape() {
                    set.formUnion(escaped)
                    continue
                }
                at -= 1
            }
            let low = try classCharacter()
            var high = low
            if next == "-", at + 1 < scalars.count, scalars[at + 1] != "]" {
                at += 1
                high = try classCharacter()
                guard low <= high else { throw TopicPatternFault("'\(low)-\(high)' is a range the wrong way round") }
            }
            set.formUnion(self.set(low...high))
        }
        at += 1
        set = folded(set)
        return isNegated ? set.inverted : set
    }

    private mutating func classCharacter() throws(TopicPatternFault) -> Scalar {
        let scalar = try take()
        return scalar == "\\" ? try character() : scalar
    }

    private static let named: [String: CharacterSet128] = [
        "alnum": CharacterSet128(0x30...0x39, 0x41...0x5A, 0x61...0x7A), "alpha": CharacterSet128(0x41...0x5A, 0x61...0x7A),
        "ascii": .all, "blank": CharacterSet128(0x09...0x09, 0x20...0x20), "cntrl": CharacterSet128(0...0x1F, 0x7F...0x7F),
        "digit": .digit, "graph": CharacterSet128(0x21...0x7E), "lower": CharacterSet128(0x61...0x7A),
        "print": CharacterSet128(0x20...0x7E), "punct": CharacterSet128(0x21...0x2F, 0x3A...0x40, 0x5B...0x60, 0x7B...0x7E),
        "space": CharacterSet128(0x09...0x0D, 0x20...0x20), "upper": CharacterSet128(0x41...0x5A), "word": .word,
        "xdigit": CharacterSet128(0x30...0x39, 0x41...0x46, 0x61...0x66),
    ]
}

/// Unicode's general categories, as far as they are in ASCII, and the scripts that people name.
private enum UnicodeClasses {
    static let ascii: [String: CharacterSet128] = {
        let letters = CharacterSet128(0x41...0x5A, 0x61...0x7A)
        var classes: [String: CharacterSet128] = [
            "Any": .all, "L": letters, "Latin": letters, "Lu": CharacterSet128(0x41...0x5A), "Ll": CharacterSet128(0x61...0x7A),
            "N": .digit, "Nd": .digit, "Common": letters.inverted,
            "P": CharacterSet128(
                0x21...0x23, 0x25...0x2A, 0x2C...0x2F, 0x3A...0x3B, 0x3F...0x40, 0x5B...0x5D, 0x5F...0x5F, 0x7B...0x7B,
                0x7D...0x7D),
            "Pc": CharacterSet128(0x5F...0x5F), "Pd": CharacterSet128(0x2D...0x2D),
            "Ps": CharacterSet128(0x28...0x28, 0x5B...0x5B, 0x7B...0x7B),
            "Pe": CharacterSet128(0x29...0x29, 0x5D...0x5D, 0x7D...0x7D),
            "Po": CharacterSet128(
                0x21...0x23, 0x25...0x27, 0x2A...0x2A, 0x2C...0x2C, 0x2E...0x2F, 0x3A...0x3B, 0x3F...0x40, 0x5C...0x5C),
            "S": CharacterSet128(0x24...0x24, 0x2B...0x2B, 0x3C...0x3E, 0x5E...0x5E, 0x60...0x60, 0x7C...0x7C, 0x7E...0x7E),
            "Sc": CharacterSet128(0x24...0x24), "Sk": CharacterSet128(0x5E...0x5E, 0x60...0x60),
            "Sm": CharacterSet128(0x2B...0x2B, 0x3C...0x3E, 0x7C...0x7C, 0x7E...0x7E), "Z": CharacterSet128(0x20...0x20),
            "Zs": CharacterSet128(0x20...0x20), "C": CharacterSet128(0...0x1F, 0x7F...0x7F),
            "Cc": CharacterSet128(0...0x1F, 0x7F...0x7F),
        ]
        // those that have nothing in ASCII
        let others = [
            "Lt", "Lm", "Lo", "M", "Mn", "Mc", "Me", "Nl", "No", "Pi", "Pf", "So", "Zl", "Zp", "Cf", "Co", "Cs", "Arabic",
            "Armenian",
            "Bengali", "Cyrillic", "Devanagari", "Ethiopic", "Georgian", "Greek", "Gujarati", "Gurmukhi", "Han", "Hangul",
            "Hebrew",
            "Hiragana", "Inherited", "Kannada", "Katakana", "Khmer", "Lao", "Malayalam", "Mongolian", "Myanmar", "Oriya",
            "Sinhala",
            "Tamil", "Telugu", "Thai", "Tibetan",
        ]
        for name in others { classes[name] = CharacterSet128() }
        return classes
    }()
}
