package import MartletModel
package import MartletReactor

/// What can go wrong with a log and its directory. Every case says what happened, to what, and what to do about it.
package enum LogError: Error, Equatable, Sendable {
    /// The disk refused: the directory it happened in is taken offline.
    case storage(SystemError)
    /// Bytes of a file that do not say what they must; the position is where they begin.
    case corrupt(path: String, position: Int64, reason: String)
    /// Bytes that were synced, and perhaps acknowledged, are not there any more as they were: nothing that follows them
    /// is dropped.
    case damagedBelowDurable(path: String, offset: Offset, durable: Offset, reason: String)
    /// Messages in a format that Kafka wrote before 0.11: the partition is not opened, and nothing of it is changed.
    case oldFormat(path: String, position: Int64, magic: Int8)
    /// Asked for what the log does not have: below its start or above its end.
    case offsetOutOfRange(offset: Offset, start: Offset, end: Offset)
    /// A replica was given a batch that does not continue its log.
    case outOfOrder(offset: Offset, expected: Offset)
    /// An append was given something else than Kafka lets in; the code is the answer to the client.
    case refused(ErrorCode, String)
    /// A small text file (a checkpoint, `meta.properties`, …) that cannot be read. Whoever can make it anew does; where
    /// nothing else says what it said (`meta.properties`), the directory is taken offline.
    case malformedFile(path: String, line: Int, reason: String)
    /// Another process has the directory open.
    case directoryLocked(path: String)
    /// The directory belongs to another cluster, broker, or is another one than was here before.
    case wrongIdentity(path: String, what: String, found: String, expected: String)
    /// The directory was taken offline before, for the reason given.
    case directoryOffline(path: String, reason: String)
    /// The log or the directory was closed.
    case closed(String)
}

extension LogError {
    /// What a client is told.
    package var code: ErrorCode {
        switch self {
        case .storage, .directoryLocked, .malformedFile, .directoryOffline, .damagedBelowDurable, .oldFormat:
            .kafkaStorageError
        case .corrupt: .corruptMessage
        case .offsetOutOfRange: .offsetOutOfRange
        case .outOfOrder: .unknownServerError
        case .refused(let code, _): code
        case .wrongIdentity: .inconsistentClusterID
        case .closed: .notLeaderOrFollower
        }
    }

    /// It says nothing against the disk: there is no room on it, or the process has too many files open.
    package var passes: Bool {
        if case .storage(let cause) = self { return cause.kind == .noSpace || cause.kind == .tooManyFiles }
        return false
    }

    /// The disk is full, which passes.
    package var isFullDisk: Bool {
        if case .storage(let cause) = self { return cause.kind == .noSpace }
        return false
    }

    /// Whether the directory as a whole can be trusted no longer.
    package var takesDirectoryOffline: Bool {
        switch self {
        case .storage, .malformedFile, .directoryLocked, .wrongIdentity, .directoryOffline: true
        case .corrupt, .damagedBelowDurable, .oldFormat, .offsetOutOfRange, .outOfOrder, .refused, .closed: false
        }
    }
}

extension LogError {
    /// About damage in a partition's folder, or in a file of it.
    private static func whatToDo(_ path: String) -> String {
        let isFile = path.split(separator: "/").last.map { SegmentFile.parse(String($0)) != nil } ?? false
        var words = path.split(separator: "/", omittingEmptySubsequences: false)
        if isFile { words.removeLast() }
        let folder = words.joined(separator: "/")
        return """
            Restore the folder from a replica or a copy; or stop the broker and see what \
            `martlet log verify --repair \(folder)` can keep, and start it again
            """
    }

    /// Bytes that were whole once are not what they were: the replica can be trusted no longer, its directory can.
    package var isDamage: Bool {
        switch self {
        case .corrupt, .damagedBelowDurable: true
        default: false
        }
    }
}

extension LogError: CustomStringConvertible {
    package var description: String {
        switch self {
        case .storage(let cause) where passes: "\(cause)"
        case .storage(let cause):
            """
            \(cause). The log directory is taken offline: \
            look at the disk and the kernel's log, then start the broker again
            """
        case .corrupt(let path, let position, let reason):
            "\(path) is damaged at byte \(position): \(reason). \(Self.whatToDo(path))"
        case .damagedBelowDurable(let path, let offset, let durable, let reason):
            """
            \(path) is damaged at offset \(offset), although everything below \(durable) had been synced: \(reason). \
            Nothing was cut. \(Self.whatToDo(path))
            """
        case .oldFormat(let path, let position, let magic):
            """
            \(path) holds messages of format \(magic) at byte \(position), as Kafka before 0.11 wrote them, and only format 2 \
            is served: the partition stays offline, and its folder as it is. \
            Copy the topic with a Kafka 3 broker into a new one, or move the folder away
            """
        case .offsetOutOfRange(let offset, let start, let end):
            "offset \(offset) is not in the log, which holds \(start) up to \(end)"
        case .outOfOrder(let offset, let expected):
            "a batch at offset \(offset) does not continue the log, which ends at \(expected)"
        case .refused(_, let reason):
            reason
        case .malformedFile(let path, let line, let reason):
            """
            \(path), line \(line): \(reason). The log directory is taken offline. \
            Restore the file from a copy
            """
        case .directoryLocked(let path):
            """
            \(path) is in use by another process, which holds the lock on \(path)/.lock. \
            Stop that broker, or give this one another directory in log.dirs
            """
        case .wrongIdentity(let path, let what, let found, let expected):
            """
            \(path)/meta.properties has \(what) \(found), but this broker's is \(expected). \
            The directory belongs to another broker or cluster: \
            give this one its own in log.dirs, or correct its settings
            """
        case .directoryOffline(let path, let reason):
            "the log directory \(path) is offline: \(reason)"
        case .closed(let what):
            "\(what) is closed"
        }
    }
}

/// Runs what the disk may refuse, in this target's words.
package func onDisk<R: ~Copyable>(_ body: () throws(SystemError) -> R) throws(LogError) -> R {
    do throws(SystemError) { return try body() } catch { throw .storage(error) }
}
