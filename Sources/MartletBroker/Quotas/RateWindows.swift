package import MartletBasics
import Synchronization

/// Over how many windows a rate is taken, and how long each is: `quota.window.num`, `quota.window.size.seconds`.
package struct RateShape: Sendable, Equatable {
    /// Each costs eight bytes an event loop of everyone who has a quota.
    package static let windowsLimit = 600
    package static let secondsLimit: Int64 = 24 * 3600

    package let windows: Int
    package let size: Interval

    /// More than the limits counts as them.
    package init(windows: Int64, seconds: Int64) {
        self.windows = Int(min(max(windows, 1), Int64(Self.windowsLimit)))
        size = .seconds(min(max(seconds, 1), Self.secondsLimit))
    }

    /// The least that a rate is taken over: all windows but the one under way.
    package var span: Interval { Interval(nanoseconds: size.nanoseconds * Int64(max(windows - 1, 1))) }
}

/// How much there was of late, window by window, so that a bound on its rate can be held.
///
///     now ─────────────────────────────┐
///     │ 0 │ 0 │ 3 │ 0 │ 9 │ 1 │ 0 │ 4 ·│    4 is of the window under way
///             └─ the rate: 17 over so long, but never over less than all windows but one
///
/// Each event loop has a word for each window, which no other loop writes: recording takes no lock and waits for no other
/// processor, and whoever asks adds them up. A word holds its window's number beside its amount, so that a window
/// that is over is overwritten in one store. Where two loops are at it at once, one of them sees the other's last amount
/// or not.
///
///     63        40 39                          0
///     | number     | amount                    |
package final class RateWindows: @unchecked Sendable {
    private static let amountBits: UInt64 = 40
    private static let amountMost: UInt64 = 1 << amountBits - 1
    /// Numbers begin anew after so many windows, a hundred days and more: who pauses for exactly so long is counted wrong once.
    private static let numbers: UInt64 = 1 << 24

    package let shape: RateShape
    private let loops: Int
    private let words: UnsafeMutableBufferPointer<Atomic<UInt64>>

    package init(_ shape: RateShape, loops: Int) {
        self.shape = shape
        self.loops = loops
        words = .allocate(capacity: loops * shape.windows)
        // the number before the first: a word that nobody wrote is of no window that counts
        for index in words.indices { words.initializeElement(at: index, to: Atomic(0)) }
    }

    deinit {
        words.deinitialize()
        words.deallocate()
    }

    /// From 1 on, so that 0 is nothing's.
    private func number(_ now: Instant) -> Int64 { now.nanoseconds / shape.size.nanoseconds + 1 }

    private func word(_ number: Int64, _ loop: Int) -> Int { loop * shape.windows + Int(number % Int64(shape.windows)) }

    /// On that loop.
    package func record(_ amount: Int64, loop: Int, now: Instant) {
        guard amount > 0 else { return }
        let number = number(now)
        let place = word(number, loop)
        let mark = UInt64(number) % Self.numbers
        let old = words[place].load(ordering: .relaxed)
        let present = old >> Self.amountBits == mark ? old & Self.amountMost : 0
        let sum = min(present + UInt64(amount), Self.amountMost)
        words[place].store(mark << Self.amountBits | sum, ordering: .relaxed)
    }

    /// The windows that count and hold anything, the oldest first. From any loop.
    private func filled(_ now: Instant) -> [(number: Int64, amount: Int64)] {
        let current = number(now)
        var found: [(number: Int64, amount: Int64)] = []
        for number in max(current - Int64(shape.windows) + 1, 1)...current {
            let mark = UInt64(number) % Self.numbers
            var sum: Int64 = 0
            for loop in 0..<loops {
                let word = words[word(number, loop)].load(ordering: .relaxed)
                if word >> Self.amountBits == mark { sum += Int64(word & Self.amountMost) }
            }
            if sum > 0 { found.append((number, sum)) }
        }
        return found
    }

    private func start(_ number: Int64) -> Instant { Instant(nanoseconds: (number - 1) * shape.size.nanoseconds) }

    /// What the windows that count hold, and over how long that is. From any loop.
    package func total(now: Instant) -> (amount: Int64, over: Interval) {
        let filled = filled(now)
        guard let oldest = filled.first else { return (0, shape.span) }
        return (filled.reduce(0) { $0 + $1.amount }, max(now - start(oldest.number), shape.span))
    }

    /// How long until so much may come and the rate is kept; until nothing counts any more, at the longest. From any loop.
    package func waitFor(_ amount: Int64, bound: Double, now: Instant) -> Interval {
        let filled = filled(now)
        var sum = filled.reduce(amount) { $0 + $1.amount }
        var earliest = now
        for oldest in filled {
            let needed = Interval(nanoseconds: Int64(min((Double(sum) / bound * 1e9).rounded(.up), 0x1p61)))
            if needed <= shape.span { break }
            let allowed = max(earliest, start(oldest.number) + needed)
            let forgotten = start(oldest.number + Int64(shape.windows))
            if allowed < forgotten { return allowed - now }
            earliest = max(earliest, forgotten)
            sum -= oldest.amount
        }
        return earliest - now
    }

    /// How long the rate is beyond its bound, as Kafka reckons: by how much what there was, and `adding` now, would need more
    /// time than it had; zero where it is kept. `bound` is of the amount, a second.
    package func throttle(adding amount: Int64, bound: Double, now: Instant) -> Interval {
        let (sum, over) = total(now: now)
        let needed = Double(sum + amount) / bound * 1e9
        let excess = needed - Double(over.nanoseconds)
        guard excess > 0 else { return .zero }
        return Interval(nanoseconds: excess < 0x1p61 ? Int64(excess) : 1 << 61)
    }
}

/// Permits for changes of partitions, as many a second as the bound says; what was not used is saved up, for as long as all
/// windows but one. Who takes more than there are pays the debt off before he gets another.
package struct MutationBucket: Sendable {
    private let shape: RateShape
    private var permits: Double
    private var filledAt: Instant

    package init(_ shape: RateShape, bound: Double, now: Instant) {
        self.shape = shape
        permits = bound * shape.span.seconds
        filledAt = now
    }

    private mutating func fill(_ bound: Double, _ now: Instant) {
        permits = min(permits + bound * (now - filledAt).seconds, bound * shape.span.seconds)
        filledAt = now
    }

    /// How long until there are any.
    package mutating func debt(bound: Double, now: Instant) -> Interval {
        fill(bound, now)
        guard permits < 0 else { return .zero }
        return Interval(nanoseconds: Int64(min(-permits / bound * 1e9, 0x1p61)))
    }

    package mutating func take(_ count: Int, bound: Double, now: Instant) {
        fill(bound, now)
        permits -= Double(count)
    }
}

extension Interval {
    fileprivate var seconds: Double { Double(nanoseconds) / 1e9 }
}
