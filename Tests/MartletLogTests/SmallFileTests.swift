import MartletLog
import MartletModel
import Testing

@Suite struct CheckpointsOfOffsets {
    @Test func rowsAreWrittenByNameAndReadBack() throws {
        let checkpoint = OffsetCheckpoint([
            TopicPartition("b", 0): 7, TopicPartition("a", 10): 0, TopicPartition("a", 2): .max,
        ])
        #expect(
            String(decoding: checkpoint.encode(), as: UTF8.self) == "0\n3\na 2 9223372036854775807\na 10 0\nb 0 7\n")
        #expect(try OffsetCheckpoint.decode(checkpoint.encode(), path: "c") == checkpoint)
    }

    @Test func anEmptyFileIsNoRows() throws {
        #expect(try OffsetCheckpoint.decode([], path: "c").count == 0)
        #expect(try OffsetCheckpoint.decode(Array("0\n0\n".utf8), path: "c").count == 0)
    }

    @Test(
        arguments: [
            "1\n0\n", "0\n", "0\n1\n", "0\n0", "0\n1\na 0 5", "0\n2\na 0 5\n", "0\n0\na 0 5\n", "0\n1\na 0\n",
            "0\n1\na 0 5 6\n",
            "0\n1\na 0 -5\n", "0\n1\na x 5\n", "0\n1\na 0 9223372036854775808\n", "0\n1\na 4294967296 5\n",
            "0\n2\na 0 5\na 0 6\n",
            "0\n1\na/b 0 5\n", "0\n1\n.. 0 5\n", "0\n-1\n", "0\n99999999999\n", "0\n1\n\n", "\n", "\0\0\0\0",
            "0\n1\na  0 5\n", "0\n1\na 0 5\n\n", "0\n1\na 0 5 \n", "0 \n1\na 0 5\n", "0\n1\na 0 5 ",
        ])
    func aFileThatWasCutOrDamagedIsRefused(text: String) {
        #expect(throws: LogError.self) { try OffsetCheckpoint.decode(Array(text.utf8), path: "c") }
    }

    @Test func aCutAtAnyByteIsSeen() {
        let whole = OffsetCheckpoint([TopicPartition("orders", 0): 1234, TopicPartition("orders", 1): 99]).encode()
        for count in 1..<whole.count {
            #expect(throws: LogError.self, "cut to \(count)") {
                try OffsetCheckpoint.decode(Array(whole[..<count]), path: "c")
            }
        }
    }

    @Test func theRefusalNamesTheLine() {
        do {
            _ = try OffsetCheckpoint.decode(Array("0\n2\na 0 5\na 1 five\n".utf8), path: "/d/c")
            Issue.record("taken")
        } catch {
            #expect(error.description.hasPrefix("/d/c, line 4: 'five' is not a number"))
            #expect(error.code == .kafkaStorageError)
            #expect(error.takesDirectoryOffline)
        }
    }
}

@Suite struct NamesOfFolders {
    private static let unique = "e22e7216470244c1b590e758ec02e6c3"

    @Test func everyKindIsRecognised() throws {
        func parse(_ name: String) -> (PartitionFolder.Kind, TopicPartition)? {
            PartitionFolder(parsing: name).map { ($0.kind, $0.partition) }
        }
        for (name, kind, topic, partition): (String, PartitionFolder.Kind, String, Int32) in [
            ("orders-0", .live, "orders", 0), ("a-b.c_d-12", .live, "a-b.c_d", 12), ("orders--3", .live, "orders-", 3),
            ("--0", .live, "-", 0),
            ("x-0.\(Self.unique)-delete-3", .live, "x-0.\(Self.unique)-delete", 3),
            ("x-0.\(Self.unique)-delete", .deleted, "x", 0), ("a-b-7.\(Self.unique)-future", .future, "a-b", 7),
            ("x.y-1.\(Self.unique)-stray", .stray, "x.y", 1),
        ] {
            let found = try #require(parse(name), "\(name)")
            #expect(found == (kind, TopicPartition(topic, partition)))
        }
    }

    @Test(
        arguments: [
            "", "orders", "orders-", "-0", "orders-01", "orders-+1", "orders-4294967296", "a b-0", "é-0", "..-0",
            "x-delete", "x-0.abc-delete",
            "x-0.\(unique)-gone", "x.\(unique)-delete", "x-0\(unique)-delete", "x-0.\(unique.uppercased())-delete",
            "lost+found",
        ])
    func anythingElseIsNoPartitions(name: String) {
        #expect(PartitionFolder(parsing: name) == nil)
    }

    @Test func aLongTopicIsCutSoThatItsDeletedFolderCanBeNamed() throws {
        let topic = String(repeating: "t", count: 249)
        let folder = PartitionFolder(TopicPartition(topic, 123), .deleted, unique: [UInt8](repeating: 0xAB, count: 16))
        #expect(folder.name.utf8.count == 255)
        #expect(folder.name.hasSuffix("-123.abababababababababababababababab-delete"))
        #expect(PartitionFolder(parsing: folder.name) == folder)
        #expect(PartitionFolder(TopicPartition(topic, 2)).name == topic + "-2")
    }
}

@Suite struct PropertiesOfADirectory {
    @Test func whatWeWriteIsWhatKafkaWrites() throws {
        let meta = MetaProperties(brokerID: 7, clusterID: "enecxb2hTL2x0WbIg8eByA", wallMilliseconds: 1_795_251_262_000)
        let text = "#\n#Sat Nov 21 08:54:22 UTC 2026\nbroker.id=7\nversion=0\ncluster.id=enecxb2hTL2x0WbIg8eByA\n"
        #expect(String(decoding: meta.encode(), as: UTF8.self) == text)
        #expect(try MetaProperties.decode(meta.encode(), path: "m") == meta)
    }

    @Test(
        arguments: [
            (0, "Thu Jan 01 00:00:00 UTC 1970"), (951_782_399_999, "Mon Feb 28 23:59:59 UTC 2000"),
            (951_782_400_000, "Tue Feb 29 00:00:00 UTC 2000"),
            (-1, "Wed Dec 31 23:59:59 UTC 1969"), (4_107_542_400_000, "Mon Mar 01 00:00:00 UTC 2100"),
        ] as [(Int64, String)])
    func theDateIsRightAroundLeapDays(milliseconds: Int64, text: String) {
        let meta = MetaProperties(brokerID: 1, clusterID: "c", wallMilliseconds: milliseconds)
        #expect(meta.properties.comments == ["#", "#" + text])
    }

    @Test func keysThatAreNotKnownAreKept() throws {
        let text =
            "#x\nversion=1\nnode.id=3\ncluster.id=c\ndirectory.id=sQ2ewXB2DcJigHHvcSZ48Q\nfuture.key=some value\n"
        let meta = try MetaProperties.decode(Array(text.utf8), path: "m")
        #expect(meta.brokerID == 3)
        #expect(meta.directoryID?.description == "sQ2ewXB2DcJigHHvcSZ48Q")
        #expect(String(decoding: meta.encode(), as: UTF8.self) == text)
    }

    @Test func javasEscapesAreUnderstood() throws {
        let text = "a\\ b : c\\u0041\\n\\\\\r\n\n  ! note\nlong = one,\\\n   two\nempty\nkey\\=x=\\#y\n"
        let read = try JavaProperties.decode(Array(text.utf8), path: "m")
        #expect(read["a b"] == "cA\n\\")
        #expect(read["long"] == "one,two")
        #expect(read["empty"] == "")
        #expect(read["key=x"] == "#y")
        #expect(try JavaProperties.decode(read.encode(), path: "m") == read)
    }

    @Test(
        arguments: [
            "version=2\nbroker.id=1\n", "version=x\n", "version=0\nbroker.id=one\n", "version=0\nbroker.id=-1\n",
            "version=1\nnode.id=1\n",
            "version=1\ncluster.id=c\n", "version=1\nnode.id=1\ncluster.id=c\ndirectory.id=short\n", "a=\\u12", "a=b\\",
        ])
    func nonsenseIsRefused(text: String) {
        #expect(throws: LogError.self) { try MetaProperties.decode(Array(text.utf8), path: "m") }
    }

    @Test(arguments: [
        "", "version: 0", "version: 1\ntopic_id: sQ2ewXB2DcJigHHvcSZ48Q", "version: 0\ntopic_id: sQ2",
        "version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAA",
    ])
    func aPartitionWithoutAnIdIsRefused(text: String) {
        #expect(throws: LogError.self) { try PartitionMetadata.decode(Array(text.utf8), path: "p") }
    }

    @Test func aCleanMarkerTellsTheBrokersEpochIfItHasOne() {
        #expect(CleanShutdownMarker.decode(CleanShutdownMarker.encode(brokerEpoch: -1)) == -1)
        #expect(CleanShutdownMarker.decode(Array("{\"version\":0,\"brokerEpoch\":501}".utf8)) == 501)
        #expect(CleanShutdownMarker.decode([]) == nil)
    }
}
