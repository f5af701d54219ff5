import MartletBasics
import MartletCluster
import MartletModel
import MartletReactor

/// Waits until what some partitions hold now is committed, where only a sync is in the way. Confined to its loop.
final class Settling: AppendOwner, @unchecked Sendable {
    let loop: any EventLoop
    private var waiting = 0
    private var done: (() -> Void)?

    init(_ loop: any EventLoop) { self.loop = loop }

    /// False if nothing has to be waited for.
    func begin(_ partitions: [Partition]) -> Bool {
        for partition in partitions where partition.whenSettled(self, AppendToken(answer: 0, index: 0)) { waiting += 1 }
        return waiting > 0
    }

    func whenDone(_ then: @escaping () -> Void) { done = then }

    /// Also told where the partition was lost meanwhile: the look that follows finds that out.
    func appendFinished(_: AppendToken, _: AppendOutcome) {
        waiting -= 1
        guard waiting == 0, let done else { return }
        self.done = nil
        done()
    }
}
