package import MartletBasics

/// Until when each session lives if nothing is heard of it. Not part of the tree: it is kept where the sessions are
/// served, and an end that it finds becomes a transaction. Pure: the clock is the caller's.
package struct SessionDeadlines: Sendable {
    private struct Entry {
        var timeout: Interval
        var deadline: Instant
    }

    private var entries: [Int64: Entry] = [:]
    private let tick: Interval
    private var lastLook: Instant?

    /// `tick`: how often `due` will be asked.
    package init(tick: Interval) { self.tick = tick }

    package mutating func track(_ session: Int64, timeout: Interval, now: Instant) {
        entries[session] = Entry(timeout: timeout, deadline: now + timeout)
    }

    /// A session that is not tracked is ignored: it has just ended.
    package mutating func touch(_ session: Int64, now: Instant) {
        guard let timeout = entries[session]?.timeout else { return }
        entries[session]!.deadline = now + timeout
    }

    package mutating func forget(_ session: Int64) { entries[session] = nil }

    /// The sessions whose time is up, by rising id; they are not tracked any more.
    ///
    /// When this itself is asked late, nobody could be heard meanwhile (a process that was stopped, a machine that
    /// slept): that time does not count against the sessions.
    package mutating func due(now: Instant) -> [Int64] {
        if let lastLook, now - lastLook > tick + tick {
            let lost = now - lastLook - tick
            for id in entries.keys { entries[id]!.deadline = entries[id]!.deadline + lost }
        }
        lastLook = now
        let due = entries.filter { $0.value.deadline <= now }.keys.sorted()
        for session in due { entries[session] = nil }
        return due
    }
}
