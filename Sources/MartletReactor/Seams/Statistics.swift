package import MartletBasics

/// What a lane is doing: for its metric.
package struct LaneStatus: Sendable, Equatable {
    /// Pieces of work that wait, that run, and that were done.
    package var queued = 0
    package var running = 0
    package var completed = 0
    /// How long the pieces that began have waited for a thread.
    package var waitedNanoseconds: Int64 = 0
    /// The time that threads of the lane have spent on work that is done.
    package var busyNanoseconds: Int64 = 0
    /// Pieces of work that found the queue full.
    package var refused = 0

    package init() {}
}

/// How a loop has spent its time.
package struct TurnStatistics: Sendable, Equatable {
    /// How long turns took, the waiting for something to do left out. Their number is the histogram's.
    package var turns = Histogram(.latency)
    /// The longest of all.
    package var longest = Interval.zero

    package init() {}

    package mutating func record(_ taken: Interval) {
        turns.record(taken)
        if taken > longest { longest = taken }
    }
}

/// What the process has of the machine. Nil where the system does not say.
package struct ProcessUsage: Sendable, Equatable {
    package var processorTime: Interval?
    package var residentBytes: Int64?
    /// Of those the ones that are no page of a file: what the process itself has allocated.
    package var anonymousBytes: Int64?
    package var virtualBytes: Int64?
    package var openDescriptors: Int64?
    package var descriptorLimit: Int64?

    package init() {}
}
