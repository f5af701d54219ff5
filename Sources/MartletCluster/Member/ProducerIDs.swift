import MartletBasics
import MartletKeeper
import MartletModel

/// Ids for producers, that nobody has had: taken from the tree in blocks of 1,000 by compare and set, so that any broker may.
///
/// What is left of a block when the broker stops is not used again.
struct ProducerIDBlock: Equatable {
    static let size: ProducerID = 1000

    private(set) var next: ProducerID = 0
    private(set) var end: ProducerID = -1

    mutating func take() -> ProducerID? {
        guard next <= end else { return nil }
        defer { next += 1 }
        return next
    }

    /// The block after the one that the tree tells of; nil where all ids have been given out.
    static func next(after node: ProducerIDBlockNode?, for broker: BrokerID) -> ProducerIDBlockNode? {
        guard let node else { return ProducerIDBlockNode(broker: broker, start: 0, end: size - 1) }
        guard node.end < .max - size else { return nil }
        return ProducerIDBlockNode(broker: broker, start: node.end + 1, end: node.end + size)
    }

    mutating func begin(_ node: ProducerIDBlockNode) { (next, end) = (node.start, node.end) }
}

enum ProducerIDBlocks {
    private static let attemptsLimit = 10

    /// Takes the next block; nil where that cannot be done now, and the log says why.
    static func claim(_ session: any KeeperSession, for broker: BrokerID, _ logger: Logger) async -> ProducerIDBlockNode? {
        let path = ClusterPath.producerIDBlock
        for _ in 0..<attemptsLimit {
            do throws(KeeperError) {
                let (data, stat) = try await session.get(path)
                let last = ProducerIDBlockNode(data)
                if last == nil, data?.isEmpty == false {
                    logger.error("the node of producer ids cannot be read: correct it", ("path", path))
                    return nil
                }
                guard let block = ProducerIDBlock.next(after: last, for: broker) else {
                    logger.error("all producer ids have been given out")
                    return nil
                }
                _ = try await session.set(path, block.bytes, version: stat.version)
                return block
            } catch {
                // another broker was faster
                if error.code == .badVersion { continue }
                logger.warning("no producer ids could be taken", ("reason", "\(error)"))
                return nil
            }
        }
        return nil
    }
}
