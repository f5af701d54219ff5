/// What befalls the broker, its machine and its network.
package enum FaultKind: String, Sendable, CaseIterable, Hashable {
    /// A clean stop, which is to lose nothing either.
    case stop
    case kill
    /// A kill at some call of a seam: in the midst of whatever makes it.
    case killAtCall
    case powerCut
    /// The power goes at some call that changes the disk.
    case powerCutAtCall
    /// A power cut that left a page half written.
    case tornPage
    /// The power goes while the broker starts.
    case powerCutAtStart
    /// EIO, after some part was written.
    case writeError
    /// ENOSPC, after what still fits.
    case diskFull
    case readError
    /// fsync fails: what it was to make durable is dropped, and still seen.
    case failedSync
    case slowDisk
    /// The page cache lets go of everything: reads go to the disk.
    case coldCache
    /// Reads and writes of files move fewer bytes than they are asked to.
    case shortTransfers
    /// A bit of a partition's files turns over while nobody looks.
    case bitRot
    case cut
    /// One direction stands still, and comes late.
    case stall
    case partition
    /// The client has lost the connection, and the broker has not been told.
    case halfOpen
    /// Connections overtake each other.
    case reordering
    case clockForward
    case clockBack
    case clockDrift
    /// The process stands still.
    case pause

    /// Whether it befalls requests that are under way, and so falls when there are some.
    var hurtsRequests: Bool {
        switch self {
        case .cut, .stall, .partition, .halfOpen, .pause: true
        default: false
        }
    }

    /// Whether it is over at once, so that a burst has room for several.
    var isMomentary: Bool { self == .cut || self == .halfOpen }

    /// Whether it waits for a call that it falls upon.
    var awaitsCall: Bool {
        switch self {
        case .killAtCall, .powerCutAtCall, .writeError, .diskFull, .readError, .failedSync, .coldCache, .shortTransfers: true
        default: false
        }
    }
}

/// A fault that waits for its moment, or that lasts: it has fallen once something has met it.
struct ArmedFault {
    var kind: FaultKind
    var hasFallen: () -> Bool
}

/// What its disk has done to a life of the broker.
struct DiskHurt {
    /// Directories in which a call was refused with EIO.
    var failed: Set<String> = []
    /// A write or a sync was: what acks=1 was told is not safe.
    var losesWrites = false
    /// There was no room for something.
    var wasFull = false
}

/// What a client does, for seeds to switch on and off.
enum Workload: CaseIterable {
    case deleteRecords, topicChurn, morePartitions, configChanges, groups, loneCommits, probes, moves, longPolls, fetchSessions
    case severalLoops, smallSegments, scarceMemory, transactions, compaction
}
