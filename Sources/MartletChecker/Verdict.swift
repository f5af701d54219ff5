/// What a broker did that none may.
package struct Verdict: Hashable, Sendable, CustomStringConvertible {
    /// Named as in the literature on checking of stores and logs.
    package enum Kind: String, Sendable, CaseIterable, Comparable {
        /// A record that was acknowledged, or read, is not there any more.
        case lostWrite
        /// A record is there twice.
        case duplicate
        /// Records of one producer are in another order than they were sent in.
        case reordered
        /// A value that nobody has sent there, or that was refused.
        case phantom
        /// A part of a batch is there, and a part is not.
        case tornWrite
        /// A record of an aborted (or never committed) transaction was given to a reader of what is committed.
        case abortedRead
        /// Of a committed transaction a part is there for readers of what is committed, and a part is not.
        case halfVisible
        /// A transaction that must be over holds back readers of what is committed.
        case hangingTransaction
        /// In a compacted topic a key has a value again that a tombstone had removed.
        case revivedKey
        /// Two values at one offset, or a value at another offset than was told.
        case inconsistentOffset
        /// A high watermark or log start that was told is followed by a smaller one.
        case offsetGoneBack
        /// Who asks after a write was acknowledged is told of an end before it.
        case staleRead
        /// A committed offset that was acknowledged, or read, is not what is read later.
        case commitLost
        /// A topic that was made is gone, or one that was deleted is there.
        case topicLost
        /// Something else that a client was promised.
        case broken

        package static func < (a: Kind, b: Kind) -> Bool { a.rawValue < b.rawValue }
    }

    package var kind: Kind
    package var sentence: String

    package init(_ kind: Kind, _ sentence: String) {
        self.kind = kind
        self.sentence = sentence
    }

    package var description: String { "\(kind.rawValue): \(sentence)" }
}
