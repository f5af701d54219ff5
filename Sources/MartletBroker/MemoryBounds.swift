package import MartletModel

/// What clients can make a broker hold in memory, and the bound on each kind of it; the sum is told at the start. What
/// follows from what is stored (topics, indexes, producers) is not among it.
package struct MemoryBounds: Sendable, Equatable {
    private static let megabyte = 1 << 20
    /// Where the settings leave it open, all together come to this, or to what the loops need at the least.
    private static let wanted = 512 * megabyte
    private static let requestsLeast = 64 * megabyte
    /// Beside those that decompress for themselves, each loop, threads of the codec lane do.
    private static let codecThreads = 2
    /// A batch that is opened may at most be so large, if `message.max.bytes` is not above its default.
    private static let batchShare = 96 * megabyte
    private static let batchLeast = 8 * megabyte
    private static let messageBytesUsual = 1 << 20

    /// The program, its loops' buffers, and some kilobytes for each of ten thousand connections.
    package let program: Int
    /// Requests that arrive in pieces (`RequestMemory`), and the eighth that small ones may have beside a large one.
    package let requests: Int
    /// Answers that peers do not take, and input that waits for its turn, of all connections together.
    package let answers: Int
    /// The partitions that fetches and fetch sessions name (`FetchMemory`).
    package let fetches: Int
    /// What groups say and commit.
    package let groups: Int
    /// What transactions there are, and what they have written to.
    package let transactions: Int
    /// What one batch may hold when it is opened.
    package let batch: Int
    /// What all that are opened at a time hold: a buffer that grows is there twice for a moment.
    package let batches: Int

    /// What `RequestMemory` is made with.
    package var requestLimit: Int { requests / 9 * 8 }
    package var total: Int { program + requests + answers + fetches + groups + transactions + batches }

    package init(_ config: BrokerConfig, loops: Int, memoryBytes: Int64) {
        let machine = Int(clamping: memoryBytes)
        program = 64 * Self.megabyte
        answers = 46 * Self.megabyte
        fetches = max(1, min(machine / 16, 32 * Self.megabyte))
        let coordinators = min(machine / 8, 64 * Self.megabyte)
        transactions = coordinators / 5
        groups = coordinators - transactions
        let openers = loops + Self.codecThreads
        let usual = max(Self.batchLeast, Self.batchShare / openers)
        let scale = max(1, Int(config.topics.defaults.maxMessageBytes) / Self.messageBytesUsual)
        batch = min(usual.multipliedReportingOverflow(by: scale).partialValue, BatchValidator.defaultDecompressedBytesLimit)
        batches = 2 * batch * openers
        let rest = max(Self.wanted - program - answers - fetches - coordinators - 2 * usual * openers, Self.requestsLeast)
        let open = min(machine / 4, rest) / 9 * 8
        let limit = min(config.queuedRequestBytesLimit ?? Int64(open), config.memoryBytesLimit ?? Int64(open))
        requests = (Int(clamping: min(limit, .max / 16)) + 7) / 8 * 9
    }
}

extension MemoryBounds: CustomStringConvertible {
    package var description: String {
        func megabytes(_ count: Int) -> String { "\((count + Self.megabyte - 1) / Self.megabyte)" }
        return "at most \(megabytes(total)) MB for clients (requests \(megabytes(requests)), answers \(megabytes(answers)), "
            + "fetches \(megabytes(fetches)), groups \(megabytes(groups)), transactions \(megabytes(transactions)), "
            + "batches being opened \(megabytes(batches)), the program \(megabytes(program)))"
    }
}
