internal import MartletBasics

// A file of the keeper's log, `log.<zxid of its first record, 16 hexadecimal digits>`. All integers big-endian.
//
//   0   magic "MKPRLOG1"                          8 bytes
//   8   zxid of the first record                  i64
//   16  CRC-32C of the 16 bytes before it         u32
//   20  records, one after the other:
//         0   size of what follows the CRC        u32
//         4   CRC-32C of the size and of all that follows the CRC
//         8   zxid                                i64
//         16  zxid of the first record of the write that this one was in    i64
//         24  time, milliseconds since 1970       i64
//         32  transaction (`KeeperTransaction`); nothing in a seal
//
// Records are written in groups, one write and one sync each, and the next group is written after the sync of the one
// before. So a record proves that all before its group was durable. That is what tells a torn tail from damage:
// behind a bad record, a good one of the same group says nothing (a power cut keeps what it likes of an unsynced
// write), one of a later group says that the bad one was durable once.
//
// A seal is an empty group, written when nothing else was for a while and at the end: it has the zxid of the last
// record, "first record of the write" is the next zxid, and it proves the last group. It is not synced.
//
// History: 1, the first.

/// A transaction whose place in the order is decided, and durable.
package struct DecidedTransaction: Equatable, Sendable {
    package var zxid: Zxid
    /// Milliseconds since 1970 on the machine that proposed it.
    package var time: Int64
    package var transaction: KeeperTransaction

    package init(zxid: Zxid, time: Int64, transaction: KeeperTransaction) {
        self.zxid = zxid
        self.time = time
        self.transaction = transaction
    }
}

enum KeeperLog {
    static let magic: UInt64 = 0x4D4B_5052_4C4F_4731
    static let headerSize = 20
    static let recordOverhead = 32
    /// No record is larger: what claims to be is damage.
    static let recordSizeLimit = 16 << 20

    static func name(_ first: Zxid) -> String { "log." + first.hexadecimal }

    static func header(_ first: Zxid) -> [UInt8] {
        var buffer = ByteBuffer(capacity: headerSize)
        buffer.integer(magic)
        buffer.integer(first.rawValue)
        buffer.integer(crc32c(buffer.bytes))
        return buffer.array
    }

    static func append(_ decided: DecidedTransaction, group: Zxid, to buffer: inout ByteBuffer) {
        append(decided.zxid, group, decided.time, decided.transaction, to: &buffer)
    }

    static func seal(after last: Zxid) -> [UInt8] {
        var buffer = ByteBuffer(capacity: recordOverhead)
        append(last, last.next, 0, nil, to: &buffer)
        return buffer.array
    }

    private static func append(
        _ zxid: Zxid, _ group: Zxid, _ time: Int64, _ transaction: KeeperTransaction?, to buffer: inout ByteBuffer
    ) {
        let start = buffer.count
        buffer.integer(UInt64(0))
        buffer.integer(zxid.rawValue)
        buffer.integer(group.rawValue)
        buffer.integer(time)
        transaction?.encode(into: &buffer)
        let size = buffer.count - start - 8
        precondition(size <= recordSizeLimit, "transactions are bounded before they are proposed")
        buffer.patch(UInt32(size), at: start)
        buffer.patch(checksum(of: UnsafeRawBufferPointer(rebasing: buffer.bytes[start...])), at: start + 4)
    }

    private static func checksum(of record: UnsafeRawBufferPointer) -> UInt32 {
        let size = crc32c(UnsafeRawBufferPointer(rebasing: record[..<4]))
        return crc32c(UnsafeRawBufferPointer(rebasing: record[8...]), continuing: size)
    }

    // MARK: Reading

    /// What one file says.
    struct Contents {
        enum End: Equatable {
            case clean
            /// Bytes after the last good record that nothing proves were ever durable.
            case torn
            /// Bytes at this offset are not what they were when they were durable.
            case damaged(at: Int, why: String)
        }

        var records: [DecidedTransaction] = []
        /// Where the good records end; 0 where even the header is not good.
        var goodSize = 0
        var end = End.clean
    }

    private struct Frame {
        var zxid: Zxid
        var group: Zxid
        var time: Int64
        /// Of the whole record.
        var range: Range<Int>
        var isSeal: Bool { range.count == recordOverhead }
    }

    static func read(_ bytes: UnsafeRawBufferPointer, named first: Zxid) -> Contents {
        var contents = Contents()
        guard isHeader(bytes, first) else {
            contents.end = judge(bytes, from: 0, expecting: first)
            return contents
        }
        contents.goodSize = headerSize
        var expected = first
        while contents.goodSize < bytes.count {
            let start = contents.goodSize
            guard let frame = frame(bytes, at: start), fits(frame, expected, isFirst: contents.records.isEmpty) else {
                contents.end = judge(bytes, from: start, expecting: expected)
                return contents
            }
            if !frame.isSeal {
                guard let transaction = transaction(bytes, frame) else {
                    contents.end = .damaged(at: start, why: "a record with a good checksum that cannot be read")
                    return contents
                }
                contents.records.append(
                    DecidedTransaction(zxid: frame.zxid, time: frame.time, transaction: transaction))
                expected = frame.zxid.next
            }
            contents.goodSize = frame.range.upperBound
        }
        return contents
    }

    private static func isHeader(_ bytes: UnsafeRawBufferPointer, _ first: Zxid) -> Bool {
        guard bytes.count >= headerSize else { return false }
        return header(first).elementsEqual(bytes[..<headerSize])
    }

    private static func fits(_ frame: Frame, _ expected: Zxid, isFirst: Bool) -> Bool {
        if frame.isSeal { return !isFirst && frame.zxid.next == expected && frame.group == expected }
        return frame.zxid == expected && frame.group <= expected
    }

    private static func frame(_ bytes: UnsafeRawBufferPointer, at start: Int) -> Frame? {
        guard bytes.count - start >= recordOverhead else { return nil }
        func integer<T: FixedWidthInteger>(_ offset: Int, _: T.Type) -> T {
            T(bigEndian: bytes.loadUnaligned(fromByteOffset: start + offset, as: T.self))
        }
        let size = Int(integer(0, UInt32.self))
        #if PLANTED_BUGS
            if PlantedBug.keeperRecordSize.isPlanted, size >= recordOverhead - 8, size <= recordSizeLimit {
                _ = checksum(of: UnsafeRawBufferPointer(rebasing: bytes[start..<(start + 8 + size)]))
            }
        #endif
        guard size >= recordOverhead - 8, size <= recordSizeLimit, size <= bytes.count - start - 8 else { return nil }
        let record = start..<(start + 8 + size)
        guard checksum(of: UnsafeRawBufferPointer(rebasing: bytes[record])) == integer(4, UInt32.self) else {
            return nil
        }
        return Frame(
            zxid: Zxid(rawValue: integer(8, Int64.self)), group: Zxid(rawValue: integer(16, Int64.self)),
            time: integer(24, Int64.self), range: record)
    }

    private static func transaction(_ bytes: UnsafeRawBufferPointer, _ frame: Frame) -> KeeperTransaction? {
        var reader = ByteReader(
            UnsafeRawBufferPointer(rebasing: bytes[(frame.range.lowerBound + recordOverhead)..<frame.range.upperBound]))
        guard let transaction = try? KeeperTransaction(from: &reader), reader.isAtEnd else { return nil }
        return transaction
    }

    /// Whether what cannot be read at `start` was durable: it was, if any good record behind it belongs to a later
    /// group.
    private static func judge(_ bytes: UnsafeRawBufferPointer, from start: Int, expecting expected: Zxid)
        -> Contents.End
    {
        var at = start + 1
        while at + recordOverhead <= bytes.count {
            // most offsets are ruled out by what the numbers would have to be, before a checksum is taken
            let zxid = Int64(bigEndian: bytes.loadUnaligned(fromByteOffset: at + 8, as: Int64.self))
            let group = Int64(bigEndian: bytes.loadUnaligned(fromByteOffset: at + 16, as: Int64.self))
            let reach = Int64(bytes.count / recordOverhead)
            if zxid >= expected.rawValue, zxid - expected.rawValue <= reach, group > expected.rawValue,
                group <= zxid + 1,
                frame(bytes, at: at) != nil
            {
                let found = Zxid(rawValue: zxid)
                return .damaged(
                    at: start, why: "the record \(expected) at byte \(start) is bad, and \(found) behind it is good")
            }
            at += 1
        }
        return .torn
    }
}

// A snapshot, `snapshot.<zxid, 16 hexadecimal digits>`: the whole tree after that transaction.
//
//   0   magic "MKPRSNP1"          8 bytes
//   8   size of the body          u64
//   16  body (`KeeperTree.encode`)
//   …   CRC-32C of all before it  u32
//
// History: 1, the first.

enum KeeperSnapshot {
    static let magic: UInt64 = 0x4D4B_5052_534E_5031

    static func name(_ zxid: Zxid) -> String { "snapshot." + zxid.hexadecimal }

    static func encode(_ tree: KeeperTree) -> [UInt8] {
        var buffer = ByteBuffer(capacity: 64 * 1024)
        buffer.integer(magic)
        buffer.integer(UInt64(0))
        tree.encode(into: &buffer)
        buffer.patch(UInt64(buffer.count - 16), at: 8)
        buffer.integer(checksum(buffer.bytes))
        return buffer.array
    }

    /// In pieces: a checksum is taken of at most 2 GiB.
    private static func checksum(_ bytes: UnsafeRawBufferPointer) -> UInt32 {
        var sum: UInt32 = 0
        for start in stride(from: 0, to: bytes.count, by: 1 << 30) {
            let piece = bytes[start..<min(start + (1 << 30), bytes.count)]
            sum = crc32c(UnsafeRawBufferPointer(rebasing: piece), continuing: sum)
        }
        return sum
    }

    /// The tree, or why there is none in these bytes.
    static func decode(_ bytes: UnsafeRawBufferPointer, named zxid: Zxid) -> Result<KeeperTree, SnapshotFault> {
        var reader = ByteReader(bytes)
        do throws(DecodingFault) {
            guard try reader.integer(UInt64.self) == magic else {
                return .failure(SnapshotFault("it does not begin as a snapshot does"))
            }
            let size = try reader.integer(UInt64.self)
            guard size <= UInt64(bytes.count), Int(size) == reader.remaining - 4 else {
                return .failure(SnapshotFault("it is cut short"))
            }
            let body = try reader.range(Int(size))
            guard try reader.uint32() == checksum(UnsafeRawBufferPointer(rebasing: bytes[..<body.end])) else {
                return .failure(SnapshotFault("its checksum does not match"))
            }
            var bodyReader = ByteReader(reader.bytes(in: body))
            let tree = try KeeperTree(from: &bodyReader)
            guard tree.lastZxid == zxid else { return .failure(SnapshotFault("its name tells another zxid")) }
            return .success(tree)
        } catch {
            return .failure(SnapshotFault("\(error)"))
        }
    }
}

struct SnapshotFault: Error {
    var reason: String
    init(_ reason: String) { self.reason = reason }
}
