import MartletBasics
import MartletReactor

/// Those who wait until something is so. Looked at whenever something changed that may have made it so.
///
/// On one loop only.
final class Conditions: @unchecked Sendable {
    private struct Waiter {
        var id: UInt64
        var isMet: () -> Bool
        var timer: TimerToken
        var tell: (Bool) -> Void
    }

    private let loop: any EventLoop
    /// In the order of their coming. Who waits is a request, and requests are bounded by connections.
    private var waiters: [Waiter] = []
    private var count: UInt64 = 0

    init(loop: any EventLoop) { self.loop = loop }

    /// False where the time passed before it was so, or everybody was sent away.
    func wait(atMost limit: Interval, until isMet: @escaping () -> Bool) async -> Bool {
        if isMet() { return true }
        return await withUnsafeContinuation { continuation in
            count += 1
            let id = count
            let timer = loop.schedule(after: limit) { [self] in leave(id) }
            waiters.append(Waiter(id: id, isMet: isMet, timer: timer) { continuation.resume(returning: $0) })
        }
    }

    func changed() {
        var met: [Waiter] = []
        waiters.removeAll { waiter in
            guard waiter.isMet() else { return false }
            met.append(waiter)
            return true
        }
        tell(met, true)
    }

    func sendAway() {
        let all = waiters
        waiters = []
        tell(all, false)
    }

    private func leave(_ id: UInt64) {
        guard let index = waiters.firstIndex(where: { $0.id == id }) else { return }
        waiters.remove(at: index).tell(false)
    }

    private func tell(_ told: [Waiter], _ isMet: Bool) {
        for waiter in told {
            loop.cancel(waiter.timer)
            waiter.tell(isMet)
        }
    }
}
