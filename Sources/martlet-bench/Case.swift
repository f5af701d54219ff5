import MartletModel

/// What can be measured; `docs/benchmarks.md` says what each case is for. The script that starts the servers asks for
/// this table, so that a case stands here alone.
struct Case {
    /// What the server has to promise before it answers. The load does not see it: whoever starts the server does.
    enum Durability: String { case pageCache = "page-cache", fsync }

    /// In what the work of a case is counted.
    enum Unit: String { case megabytes, requests, scale }

    enum Load {
        case produce(Produce)
        case fetch(Fetch)
        case endToEnd(EndToEnd)
        case scale(Scale)
    }

    /// How clients speak of transactions: since KIP-890 the broker adds the partitions, and every end raises the epoch.
    enum TransactionProtocol { case first, second }

    /// Many of something at a time; a figure of its own, with one that it is wanted below, or a limit beside it.
    enum Scale {
        case rebalance(members: Int, times: Int)
        case heartbeats(members: Int, times: Int)
        case commits(Int, connections: Int)
        case transactions(producers: Int, TransactionProtocol)
        case compaction(bytes: Int, codec: CompressionCodec)
        case metadata(topics: Int, partitions: Int32, milliseconds: Int64)
        case idle(connections: Int)
    }

    struct Produce {
        var connections: Int
        /// Requests in flight on each connection.
        var depth: Int
        var acks: Int16
        /// Of the records before they are compressed; a batch holds at least one.
        var batchBytes: Int
        var codec = CompressionCodec.none
        /// A load ends before so much was written that the system begins to write it back.
        var wireBytesLimit = 1 << 30
    }

    struct Fetch {
        var connections: Int
        var bytesPerRequest: Int32
        /// What the topic holds before the measurement; it is read from the beginning again and again.
        var topicBytes: Int
    }

    struct EndToEnd {
        var recordsPerSecond: Int
        var recordBytes: Int
    }

    var name: String
    var what: String
    var durability: Durability
    var unit: Unit
    var partitions: Int32 = 1
    var load: Load

    /// What the figure of a case of scale is, and what it is wanted below; nil where nothing is.
    var figure = ""
    var wanted: Double?
    /// Settings that its broker needs beside those of all.
    var settings: [(name: String, value: String)] = []

    /// So much is written that the memory of the page cache matters.
    var writesMuch: Bool {
        if case .scale(.compaction) = load { true } else { unit == .megabytes }
    }

    static let all: [Case] = pageCached + synced + scaled

    private static let pageCached: [Case] = [
        Case(
            name: "prod1", what: "batches of 128 KiB to 1 partition, acks=1", durability: .pageCache, unit: .megabytes,
            load: .produce(Produce(connections: 4, depth: 4, acks: 1, batchBytes: 128 << 10))),
        Case(
            name: "prod16", what: "the same to 16 partitions", durability: .pageCache, unit: .megabytes, partitions: 16,
            load: .produce(Produce(connections: 4, depth: 4, acks: 1, batchBytes: 128 << 10))),
        Case(
            name: "lz4", what: "batches of 128 KiB before lz4, counted as such", durability: .pageCache,
            unit: .megabytes,
            load: .produce(Produce(connections: 4, depth: 4, acks: 1, batchBytes: 128 << 10, codec: .lz4))),
        Case(
            name: "zstd", what: "the same with zstd", durability: .pageCache, unit: .megabytes,
            load: .produce(Produce(connections: 4, depth: 4, acks: 1, batchBytes: 128 << 10, codec: .zstd))),
        Case(
            name: "req1", what: "requests of 1 KiB, 1 connection, one in flight", durability: .pageCache,
            unit: .requests, load: .produce(Produce(connections: 1, depth: 1, acks: 1, batchBytes: 1 << 10))),
        Case(
            name: "req64", what: "requests of 1 KiB, 64 connections, one in flight on each", durability: .pageCache,
            unit: .requests, load: .produce(Produce(connections: 64, depth: 1, acks: 1, batchBytes: 1 << 10))),
        Case(
            name: "fetch", what: "1 MiB a request from the page cache, 4 connections", durability: .pageCache,
            unit: .megabytes,
            load: .fetch(Fetch(connections: 4, bytesPerRequest: 1 << 20, topicBytes: 512 << 20))),
    ]

    private static let synced: [Case] = [
        Case(
            name: "sync1", what: "batches of 128 KiB to 1 partition, acks=all, synced", durability: .fsync,
            unit: .megabytes, load: .produce(Produce(connections: 4, depth: 4, acks: -1, batchBytes: 128 << 10))),
        Case(
            name: "sync16", what: "the same, 16 connections and partitions", durability: .fsync, unit: .megabytes,
            partitions: 16, load: .produce(Produce(connections: 16, depth: 1, acks: -1, batchBytes: 128 << 10))),
        Case(
            name: "sync1k64", what: "requests of 1 KiB, 64 connections, acks=all, synced", durability: .fsync,
            unit: .requests, load: .produce(Produce(connections: 64, depth: 1, acks: -1, batchBytes: 1 << 10))),
        Case(
            name: "e2esync", what: "1,000 records a second from producer to consumer, acks=all, synced",
            durability: .fsync, unit: .requests,
            load: .endToEnd(EndToEnd(recordsPerSecond: 1000, recordBytes: 1024))),
    ]

    private static let scaled: [Case] = [
        Case(
            name: "rebalance", what: "a group of 1,000 members, a connection each, joins anew", durability: .fsync,
            unit: .scale, load: .scale(.rebalance(members: 1000, times: 5)), figure: "s of CPU a rebalance", wanted: 0.2),
        Case(
            name: "heartbeats", what: "a consumer group (KIP-848) of 1,000 members, a connection each, that has settled",
            durability: .fsync, unit: .scale, load: .scale(.heartbeats(members: 1000, times: 50)),
            figure: "µs of CPU a heartbeat", wanted: 15),
        Case(
            name: "commits", what: "100,000 commits of an offset, 64 connections, synced", durability: .fsync,
            unit: .scale, load: .scale(.commits(100_000, connections: 64)), figure: "s of CPU in all"),
        Case(
            name: "idle", what: "10,000 connections that have asked once", durability: .fsync, unit: .scale,
            load: .scale(.idle(connections: 10_000)), figure: "MB of memory in all", wanted: 100),
        Case(
            name: "metadata", what: "Metadata of 1,000 topics of 10 partitions", durability: .fsync, unit: .scale,
            load: .scale(.metadata(topics: 1000, partitions: 10, milliseconds: 2000)), figure: "ms of CPU a request",
            wanted: 0.5),
        transactions("txn1", "transactions of two partitions by 1 producer, synced", 1, .second),
        transactions("txn100", "the same by 100 producers, a connection each", 100, .second),
        transactions("txn100old", "the same as clients did before KIP-890", 100, .first),
        compaction("compaction", "256 MiB of records of 256 bytes, of which nearly half stay", .none),
        compaction("compactlz4", "the same compressed with lz4, counted before that", .lz4),
    ]

    private static func transactions(
        _ name: String, _ what: String, _ producers: Int, _ spoken: TransactionProtocol
    ) -> Case {
        Case(
            name: name, what: what, durability: .fsync, unit: .scale,
            load: .scale(.transactions(producers: producers, spoken)), figure: "transactions a second")
    }

    private static func compaction(_ name: String, _ what: String, _ codec: CompressionCodec) -> Case {
        Case(
            name: name, what: what, durability: .fsync, unit: .scale,
            load: .scale(.compaction(bytes: 256 << 20, codec: codec)), figure: "MB per CPU-second",
            settings: [("log.cleaner.backoff.ms", "200")])
    }
}

/// How long a measurement takes.
struct Extent {
    var warmUpMilliseconds: Int64 = 300
    var milliseconds: Int64 = 1400
    /// A part of what a case may write, and of what a fetched topic holds.
    var bytesDivisor = 1

    /// Enough to see that a case runs.
    static let smoke = Extent(warmUpMilliseconds: 50, milliseconds: 200, bytesDivisor: 64)
}
