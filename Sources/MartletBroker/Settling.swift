import MartletBasics
import MartletCluster
import MartletModel
import MartletReactor
import MartletWire

/// Waits until what some partitions hold now is committed, where only a sync is in the way, and until none of them is
/// being exchanged for its copy in another log directory. Confined to its loop.
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

    /// Only for exchanges; false if nothing has to be waited for.
    func begin(exchangesOf partitions: [Partition], toAppend: Bool) -> Bool {
        for partition in partitions
        where partition.whenExchanged(self, AppendToken(answer: 0, index: 0), toAppend: toAppend) { waiting += 1 }
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

extension Connection {
    /// A produce request for a replica that is being exchanged for its copy in another log directory waits until that is
    /// done, as with Kafka, and the connection's later requests with it; false if there is nothing to wait for.
    func waitForExchange(_ header: FrameHeader, _ frame: UnsafeMutableRawBufferPointer) -> Bool {
        guard let settling = exchanges(of: shared.produceParts, frame) else { return false }
        let (buffer, bytes) = keepFrame(frame)
        block(forOwnWork: true)
        settling.whenDone { [self] in produceAfterExchange(header, buffer, bytes) }
        return true
    }

    /// Calls `then` when none of the partitions of a produce request is being exchanged for its copy; false if none is.
    func awaitExchange(
        _ parts: ContiguousArray<ProducePart>, _ frame: UnsafeMutableRawBufferPointer, _ then: @escaping () -> Void
    ) -> Bool {
        guard let settling = exchanges(of: parts, frame) else { return false }
        settling.whenDone(then)
        return true
    }

    /// Nil if none of the partitions is being exchanged.
    private func exchanges(of parts: ContiguousArray<ProducePart>, _ frame: UnsafeMutableRawBufferPointer) -> Settling? {
        guard broker.topics.areExchanging else { return nil }
        let settling = Settling(loop)
        return settling.begin(exchangesOf: partitions(of: parts, frame), toAppend: true) ? settling : nil
    }

    func partitions(of parts: ContiguousArray<ProducePart>, _ frame: UnsafeMutableRawBufferPointer) -> [Partition] {
        let table = broker.topics.table
        var unused = ProduceResult(topicName: "", topicID: .zero, beginsTopic: false, index: 0)
        return parts.compactMap { findTopic($0, frame, table, &unused)?.partition($0.index) }
    }
}

extension Request {
    /// Answers when none of the partitions is being exchanged for its copy in another log directory.
    func answer<R: WireResponse>(
        afterExchangesOf partitions: [Partition], _ response: @escaping () -> R
    ) throws {
        guard let settling = exchanges(of: partitions) else { return try answer(response()) }
        let responder = later()
        settling.whenDone { responder.answer(response()) }
    }

    /// Does `work` when none of the partitions is being exchanged for its copy in another log directory.
    func whenExchanged(_ partitions: [Partition], _ work: @escaping () -> Void) {
        guard let settling = exchanges(of: partitions) else { return work() }
        settling.whenDone(work)
    }

    /// Nil if none of the partitions is being exchanged.
    private func exchanges(of partitions: [Partition]) -> Settling? {
        guard broker.topics.areExchanging else { return nil }
        let settling = Settling(connection.loop)
        return settling.begin(exchangesOf: partitions, toAppend: false) ? settling : nil
    }
}
