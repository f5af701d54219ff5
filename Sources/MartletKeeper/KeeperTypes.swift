/// The number of a transaction: an epoch in the upper 32 bits, a counter in the lower. Every opening of an embedded
/// keeper begins an epoch, as every leader of an ensemble does, so a number that was written but never acknowledged
/// is not given twice.
package struct Zxid: RawRepresentable, Hashable, Comparable, Sendable, CustomStringConvertible {
    package var rawValue: Int64

    package init(rawValue: Int64) { self.rawValue = rawValue }

    package init(epoch: UInt32, counter: UInt32) {
        precondition(epoch <= UInt32(Int32.max), "epochs have 31 bits, so that zxids compare as signed numbers")
        rawValue = Int64(epoch) << 32 | Int64(counter)
    }

    package static let zero = Zxid(rawValue: 0)

    package var epoch: UInt32 { UInt32(truncatingIfNeeded: rawValue >> 32) }
    package var counter: UInt32 { UInt32(truncatingIfNeeded: rawValue) }

    /// The next of the same epoch; a counter that is used up goes over into the next epoch.
    package var next: Zxid {
        counter == .max ? Zxid(epoch: epoch + 1, counter: 1) : Zxid(rawValue: rawValue + 1)
    }

    /// The first transaction of the next epoch.
    package var firstOfNextEpoch: Zxid { Zxid(epoch: epoch + 1, counter: 1) }

    package static func < (a: Zxid, b: Zxid) -> Bool { a.rawValue < b.rawValue }

    /// Sixteen hexadecimal digits, as in names of files, which then sort by it.
    package var hexadecimal: String {
        let digits = String(UInt64(bitPattern: rawValue), radix: 16)
        return String(repeating: "0", count: 16 - digits.utf8.count) + digits
    }

    package init?(hexadecimal: some StringProtocol) {
        guard hexadecimal.utf8.count == 16, let value = UInt64(hexadecimal, radix: 16), value <= UInt64(Int64.max)
        else {
            return nil
        }
        rawValue = Int64(value)
    }

    package var description: String { "0x" + String(UInt64(bitPattern: rawValue), radix: 16) }
}

/// What ZooKeeper tells of a node beside its data.
package struct Stat: Equatable, Sendable {
    /// The transactions that created the node, last changed its data, and last added or removed a child.
    package var czxid: Zxid
    package var mzxid: Zxid
    package var pzxid: Zxid
    /// Milliseconds since 1970 of the first two.
    package var ctime: Int64
    package var mtime: Int64
    /// How often the data, the children, the access list changed.
    package var version: Int32
    package var cversion: Int32
    package var aversion: Int32
    /// The session that an ephemeral node lives with; 0 for a persistent one.
    package var ephemeralOwner: Int64
    package var dataLength: Int32
    package var numChildren: Int32

    package init(
        czxid: Zxid, mzxid: Zxid, pzxid: Zxid, ctime: Int64, mtime: Int64, version: Int32, cversion: Int32,
        aversion: Int32,
        ephemeralOwner: Int64, dataLength: Int32, numChildren: Int32
    ) {
        self.czxid = czxid
        self.mzxid = mzxid
        self.pzxid = pzxid
        self.ctime = ctime
        self.mtime = mtime
        self.version = version
        self.cversion = cversion
        self.aversion = aversion
        self.ephemeralOwner = ephemeralOwner
        self.dataLength = dataLength
        self.numChildren = numChildren
    }
}

/// Who may do what with a node. Carried and stored; not yet checked.
package struct ACL: Hashable, Sendable {
    /// Read 1, write 2, create 4, delete 8, admin 16.
    package var permissions: Int32
    package var scheme: String
    package var id: String

    package init(permissions: Int32, scheme: String, id: String) {
        self.permissions = permissions
        self.scheme = scheme
        self.id = id
    }

    /// `world:anyone` with all permissions: what Kafka gives every node where ACLs are off.
    package static let open = [ACL(permissions: 31, scheme: "world", id: "anyone")]
    package static let readOnly = [ACL(permissions: 1, scheme: "world", id: "anyone")]
}

/// How a node lives and is named; the numbers are ZooKeeper's flags.
package enum CreateMode: UInt8, Sendable, CaseIterable {
    case persistent = 0
    case ephemeral = 1
    case persistentSequential = 2
    case ephemeralSequential = 3

    package var isEphemeral: Bool { rawValue & 1 != 0 }
    package var isSequential: Bool { rawValue & 2 != 0 }
}

/// What one process asks of the keeper, named limits. They are checked before a transaction is proposed, never when
/// it is applied: a limit that was changed must not make an old log mean something else.
package struct KeeperLimits: Sendable {
    /// ZooKeeper's `jute.maxbuffer`: bytes of one node's data, and of a whole transaction (plus its framing).
    package var dataBytes = 0xF_FFFF
    package var transactionBytes = 0xF_FFFF + 4096
    package var nodes = 2_000_000
    /// Paths and data of all nodes, and a little for each.
    package var treeBytes = 1 << 30
    package var sessions = 20_000
    package var watches = 1_000_000
    /// Transactions, and their bytes, that were proposed and are not applied yet; reads that wait behind them.
    package var waitingTransactions = 20_000
    package var waitingBytes = 64 << 20
    package var waitingReads = 100_000

    package init() {}
}
