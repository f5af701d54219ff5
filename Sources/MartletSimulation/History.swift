internal import MartletBasics

/// What an event was, as the history tells it.
package enum HistoryKind: UInt8, Sendable {
    case script, job, work, timer, readiness, endOfTurn, laneWork, laneCompletion, disk
    case connect, accept, arrival, end, reset, window
    case hostStart, hostKill, powerCut, pause, fault
}

/// Whom an event concerns: a loop, a lane, a disk, a socket. The hash is of the name, so that it is the same in every
/// process.
final class Subject: Sendable {
    let name: String
    let hash: UInt64

    init(_ name: String) {
        self.name = name
        hash = stableHash(name)
    }
}

/// FNV-1a. Swift's own hashes differ from process to process.
func stableHash(_ text: String) -> UInt64 {
    var hash: UInt64 = 0xCBF2_9CE4_8422_2325
    for byte in text.utf8 { hash = (hash ^ UInt64(byte)) &* 0x0000_0100_0000_01B3 }
    return hash
}

/// Everything that happened, folded into one number; where asked for, as lines too.
package struct History {
    /// Lines beyond this many are counted in the hash alone.
    package static let linesLimit = 1_000_000

    package private(set) var hash: UInt64 = 0x6A09_E667_F3BC_C908
    package private(set) var lines: [String] = []
    let keepsLines: Bool
    /// Takes each line, which is not kept then.
    private let onLine: ((String) -> Void)?

    init(keepsLines: Bool, onLine: ((String) -> Void)? = nil) {
        self.keepsLines = keepsLines
        self.onLine = onLine
    }

    mutating func note(_ time: Int64, _ kind: HistoryKind, _ subject: Subject, _ digest: UInt64) {
        fold(UInt64(bitPattern: time) &* 31 &+ UInt64(kind.rawValue))
        fold(subject.hash)
        fold(digest)
        guard keepsLines || onLine != nil else { return }
        let line = "\(time) \(kind) \(subject.name) \(String(digest, radix: 16))"
        if let onLine { onLine(line) } else if lines.count < Self.linesLimit { lines.append(line) }
    }

    private mutating func fold(_ value: UInt64) {
        hash = (hash ^ value) &* 0x9E37_79B9_7F4A_7C15
        hash ^= hash >> 29
    }

    /// Where two histories part: the line number and both lines. Nil where their lines agree.
    package func divergence(from other: History) -> String? {
        for index in 0..<max(lines.count, other.lines.count) {
            let mine = index < lines.count ? lines[index] : "(nothing)"
            let theirs = index < other.lines.count ? other.lines[index] : "(nothing)"
            if mine != theirs { return "line \(index): \(mine) | \(theirs)" }
        }
        return nil
    }
}
