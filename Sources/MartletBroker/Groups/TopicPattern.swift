/// Why an expression is none that topics are subscribed to by.
package struct TopicPatternFault: Error, Equatable, Sendable, CustomStringConvertible {
    package var description: String
    init(_ description: String) { self.description = description }
}

/// A regular expression over whole names of topics, in RE2's syntax, as KIP-848 has it.
///
/// It is a nondeterministic automaton, run over all its states at once: a name costs its length times the size of the
/// expression, whatever the two are. Nothing is tried and taken back, so that no expression explodes. What would need
/// that (back references, look-around, possessive repetition) RE2 does not have, and is refused.
///
/// Names of topics are ASCII. So a class is a set of 128, and what is not ASCII is understood and matches nothing.
package struct TopicPattern: Sendable {
    /// What an expression may come to once its repetitions are written out: `x{1000}` is a thousand steps.
    static let stepsLimit = 2_000
    static let lengthLimit = 4_096
    static let nestingLimit = 200
    /// RE2's own.
    static let repetitionsLimit = 1_000

    enum Assertion {
        case textBegin, textEnd, lineBegin, lineEnd, wordBoundary, noWordBoundary
    }

    /// What has been read of an expression.
    indirect enum Node {
        case nothing
        case one(CharacterSet128)
        case assertion(Assertion)
        case sequence([Node])
        case choice([Node])
        case repetition(Node, least: Int, most: Int?)

        /// How many steps it becomes; beyond the limit, something beyond the limit.
        var steps: Int {
            switch self {
            case .nothing: 0
            case .one, .assertion: 1
            case .sequence(let nodes): Self.sum(nodes, 0)
            case .choice(let nodes): Self.sum(nodes, nodes.count - 1)
            case .repetition(let node, let least, let most):
                Swift.min((node.steps + 1) * Swift.max(most ?? least + 1, 1), TopicPattern.stepsLimit + 1)
            }
        }

        private static func sum(_ nodes: [Node], _ more: Int) -> Int {
            Swift.min(nodes.reduce(more) { Swift.min($0 + $1.steps, TopicPattern.stepsLimit + 1) }, TopicPattern.stepsLimit + 1)
        }
    }

    private enum Step {
        case one(CharacterSet128, next: Int)
        case assertion(Assertion, next: Int)
        case either(Int, Int)
        case accept
    }

    package let text: String
    private var program: [Step] = [.accept]
    private var start = 0

    package init(_ text: String) throws(TopicPatternFault) {
        self.text = text
        guard text.utf8.count <= Self.lengthLimit else {
            throw TopicPatternFault("it is longer than \(Self.lengthLimit) bytes")
        }
        var parser = TopicPatternParser(text)
        let tree = try parser.parse()
        guard tree.steps <= Self.stepsLimit else {
            throw TopicPatternFault("its repetitions come to more than \(Self.stepsLimit) steps")
        }
        start = compile(tree, next: 0)
    }

    /// Appends the steps of a node that goes on to `next`; where it begins.
    private mutating func compile(_ node: Node, next: Int) -> Int {
        switch node {
        case .nothing: return next
        case .one(let set): return add(.one(set, next: next))
        case .assertion(let assertion): return add(.assertion(assertion, next: next))
        case .sequence(let nodes): return nodes.reversed().reduce(next) { compile($1, next: $0) }
        case .choice(let nodes):
            let starts = nodes.map { compile($0, next: next) }
            return starts.dropLast().reversed().reduce(starts.last!) { add(.either($1, $0)) }
        case .repetition(let node, let least, let most):
            var begin = next
            if let most {
                for _ in least..<max(most, least) { begin = add(.either(compile(node, next: begin), next)) }
            } else {
                let loop = add(.either(next, next))
                program[loop] = .either(compile(node, next: loop), next)
                begin = loop
            }
            for _ in 0..<least { begin = compile(node, next: begin) }
            return begin
        }
    }

    private mutating func add(_ step: Step) -> Int {
        program.append(step)
        return program.count - 1
    }

    // MARK: Matching

    package func matches(_ name: String) -> Bool {
        var run = Run(count: program.count)
        return matches(name, &run)
    }

    /// Those that match, in their order.
    package func matching(_ names: [String]) -> [String] {
        var run = Run(count: program.count)
        return names.filter { matches($0, &run) }
    }

    /// Which steps are reached: each once at a place in the name.
    private struct Run {
        var present: [Int] = []
        var following: [Int] = []
        var pending: [Int] = []
        /// For each step, the last place at which it was reached.
        var reached: [Int]
        var place = 0

        init(count: Int) { reached = [Int](repeating: 0, count: count) }
    }

    private func matches(_ name: String, _ run: inout Run) -> Bool {
        var name = name
        return name.withUTF8 { bytes in
            run.present.removeAll(keepingCapacity: true)
            run.place += 1
            reach(start, &run, into: \.present, before: nil, after: bytes.first)
            for index in bytes.indices {
                guard !run.present.isEmpty else { return false }
                run.following.removeAll(keepingCapacity: true)
                run.place += 1
                let after = index + 1 < bytes.count ? bytes[index + 1] : nil
                for step in run.present {
                    guard case .one(let set, let next) = program[step], set.contains(bytes[index]) else { continue }
                    reach(next, &run, into: \.following, before: bytes[index], after: after)
                }
                swap(&run.present, &run.following)
            }
            return run.present.contains(0)
        }
    }

    /// A step, and all that follows from it without a character.
    private func reach(
        _ first: Int, _ run: inout Run, into list: WritableKeyPath<Run, [Int]>, before: UInt8?, after: UInt8?
    ) {
        run.pending.append(first)
        while let index = run.pending.popLast() {
            guard run.reached[index] != run.place else { continue }
            run.reached[index] = run.place
            switch program[index] {
            case .one, .accept: run[keyPath: list].append(index)
            case .either(let one, let other):
                run.pending.append(other)
                run.pending.append(one)
            case .assertion(let assertion, let next):
                if Self.holds(assertion, before: before, after: after) { run.pending.append(next) }
            }
        }
    }

    private static func holds(_ assertion: Assertion, before: UInt8?, after: UInt8?) -> Bool {
        func isWord(_ byte: UInt8?) -> Bool { byte.map(CharacterSet128.word.contains) ?? false }
        let newline = UInt8(ascii: "\n")
        return switch assertion {
        case .textBegin: before == nil
        case .textEnd: after == nil
        case .lineBegin: before == nil || before == newline
        case .lineEnd: after == nil || after == newline
        case .wordBoundary: isWord(before) != isWord(after)
        case .noWordBoundary: isWord(before) == isWord(after)
        }
    }
}

/// Some of the characters of ASCII.
struct CharacterSet128: Equatable, Sendable {
    private var low: UInt64 = 0
    private var high: UInt64 = 0

    init() {}

    init(_ ranges: ClosedRange<UInt8>...) { for range in ranges { insert(range) } }

    static let digit = CharacterSet128(0x30...0x39)
    static let word = CharacterSet128(0x30...0x39, 0x41...0x5A, 0x5F...0x5F, 0x61...0x7A)
    static let space = CharacterSet128(0x09...0x0A, 0x0C...0x0D, 0x20...0x20)
    static let all = CharacterSet128(0...0x7F)
    static let notNewline = CharacterSet128(0...0x09, 0x0B...0x7F)

    func contains(_ byte: UInt8) -> Bool {
        byte < 64 ? low >> UInt64(byte) & 1 == 1 : byte < 128 && high >> UInt64(byte - 64) & 1 == 1
    }

    mutating func insert(_ byte: UInt8) {
        if byte < 64 { low |= 1 << UInt64(byte) } else if byte < 128 { high |= 1 << UInt64(byte - 64) }
    }

    mutating func insert(_ range: ClosedRange<UInt8>) { for byte in range { insert(byte) } }

    mutating func formUnion(_ other: CharacterSet128) {
        low |= other.low
        high |= other.high
    }

    var inverted: CharacterSet128 {
        var inverted = self
        inverted.low = ~low
        inverted.high = ~high
        return inverted
    }

    /// With the other case of each letter.
    var ignoringCase: CharacterSet128 {
        var wider = self
        for byte in UInt8(ascii: "a")...UInt8(ascii: "z") where contains(byte) || contains(byte - 32) {
            wider.insert(byte)
            wider.insert(byte - 32)
        }
        return wider
    }
}
