import MartletBasics
import MartletModel
import MartletWire
import Testing

/// Bytes written down by hand and with another codec: what stays true if our generator and our tests were both wrong.
@Suite struct KnownBytes {
    @Test func ofAProduceRequest() throws {
        var partition = ProduceRequest.PartitionProduceData()
        partition.index = 3
        partition.records = .owned([0xCA, 0xFE])
        var topic = ProduceRequest.TopicProduceData()
        topic.name = "orders"
        topic.partitionData = [partition]
        var request = ProduceRequest()
        request.acks = -1
        request.timeoutMs = 30000
        request.topicData = [topic]
        let flexible = "00ffff0000753002076f7264657273020000000303cafe000000"
        #expect(hex(try encoded(request, version: 9)) == flexible)
        #expect(try decoded(ProduceRequest.self, bytes(hex: flexible), version: 9) == request)
        let old = "ffffffff0000753000000001" + "00066f7264657273" + "00000001" + "00000003" + "00000002cafe"
        #expect(hex(try encoded(request, version: 3)) == old)
        #expect(try decoded(ProduceRequest.self, bytes(hex: old), version: 3) == request)
    }

    @Test func ofNullAndEmptyLists() throws {
        var all = MetadataRequest()
        all.topics = nil
        #expect(hex(try encoded(all, version: 1)) == "ffffffff")
        #expect(hex(try encoded(MetadataRequest(), version: 0)) == "00000000")
        #expect(try decoded(MetadataRequest.self, bytes(hex: "ffffffff"), version: 1).topics == nil)
        #expect(try decoded(MetadataRequest.self, bytes(hex: "00000000"), version: 1).topics == [])
    }

    @Test func ofANullableStruct() throws {
        var response = DescribeTopicPartitionsResponse()
        var cursor = DescribeTopicPartitionsResponse.Cursor()
        cursor.topicName = "t"
        cursor.partitionIndex = 1
        response.nextCursor = cursor
        #expect(hex(try encoded(response, version: 0)) == "0000000001010274000000010000")
        response.nextCursor = nil
        #expect(hex(try encoded(response, version: 0)) == "0000000001ff00")
    }

    /// A consumer's record of a 4.3 broker, whose null means "no classic member". Left out it would mean the opposite.
    @Test func ofATaggedStructThatIsNull() throws {
        let text = "00000000066b776972650b2f3132372e302e302e31020474786e010000ea600672616e676501000100"
        let record = try ConsumerGroupMemberMetadataValue(prefixed: bytes(hex: text))
        #expect(record.clientID == "kwire" && record.serverAssignor == "range")
        #expect(record.subscribedTopicNames == ["txn"])
        #expect(record.classicMemberMetadata == nil)
        #expect(hex(try record.prefixedBytes(version: 0)) == text)

        let withoutTag = try ConsumerGroupMemberMetadataValue(prefixed: bytes(hex: text.dropLast(8) + "00"))
        #expect(withoutTag.classicMemberMetadata == ConsumerGroupMemberMetadataValue.ClassicMemberMetadata())
        var classic = record
        classic.classicMemberMetadata = ConsumerGroupMemberMetadataValue.ClassicMemberMetadata()
        classic.classicMemberMetadata?.sessionTimeoutMs = 5
        #expect(hex(try classic.prefixedBytes(version: 0)) == text.dropLast(8) + "010007" + "01" + "000000050100")
    }

    @Test func ofATaggedListInARootStruct() throws {
        var node = FetchResponse.NodeEndpoint()
        node.nodeID = 1
        node.host = "h"
        node.port = 9092
        var response = FetchResponse()
        response.nodeEndpoints = [node]
        #expect(hex(try encoded(response, version: 16)) == "000000000000000000000101000d02000000010268000023840000")
    }

    @Test func ofATaggedValueLongEnoughForASizeOfTwoBytes() throws {
        var request = FetchRequest()
        request.clusterID = String(repeating: "c", count: 200)
        let bytes = try encoded(request, version: 12)
        // count 1, tag 0, size 202 as two bytes, length + 1 as two bytes
        #expect(Array(bytes.suffix(206).prefix(6)) == [1, 0, 0xCA, 0x01, 0xC9, 0x01])
        #expect(try decoded(FetchRequest.self, bytes, version: 12) == request)
    }
}

@Suite struct WhatAVersionCannotSay {
    @Test func isAFaultThatNamesTheField() throws {
        var topic = ProduceRequest.TopicProduceData()
        topic.name = "orders"
        var request = ProduceRequest()
        request.topicData = [topic]
        request.transactionalID = "tx"
        #expect(throws: Never.self) { try encoded(request, version: 3) }

        var fetch = FetchRequest()
        fetch.replicaState.replicaID = 4
        #expect(throws: EncodingFault.unsupportedField("FetchRequest.ReplicaState", version: 14)) {
            try encoded(fetch, version: 14)
        }
        fetch = FetchRequest()
        fetch.replicaID = 4
        #expect(throws: EncodingFault.unsupportedField("FetchRequest.ReplicaId", version: 15)) {
            try encoded(fetch, version: 15)
        }
    }

    @Test func isDroppedWhereTheSchemaAllowsIt() throws {
        var request = FetchRequest()
        request.rackID = "rack-1"
        #expect(try decoded(FetchRequest.self, encoded(request, version: 10), version: 10).rackID == "")
        #expect(try decoded(FetchRequest.self, encoded(request, version: 11), version: 11).rackID == "rack-1")
    }

    @Test func includesNullWhereAnOldVersionHadNone() {
        var request = MetadataRequest()
        request.topics = nil
        #expect(throws: EncodingFault.unexpectedNull("MetadataRequest.Topics")) { try encoded(request, version: 0) }
    }

    @Test func includesVersionsThatDoNotExist() {
        #expect(throws: EncodingFault.unsupportedVersion("FetchRequest", version: 3)) {
            try encoded(FetchRequest(), version: 3)
        }
    }

    @Test func includesStringsLongerThanAnInt16() throws {
        var request = FindCoordinatorRequest()
        request.key = String(repeating: "g", count: 32767)
        #expect(try encoded(request, version: 3).count == 3 + 32767 + 2)
        request.key += "g"
        for version: Int16 in [0, 3] {
            #expect(throws: EncodingFault.tooLong("FindCoordinatorRequest.Key", count: 32768)) {
                try encoded(request, version: version)
            }
        }
    }

    @Test func includesBytesOfAFrameThatIsNotThere() throws {
        let bytes = bytes(hex: "00ffff0000753002076f7264657273020000000303cafe000000")
        try bytes.withUnsafeBytes { raw in
            var reader = ByteReader(raw)
            let request = try ProduceRequest.decode(from: &reader, version: 9)
            #expect(request.topicData[0].partitionData[0].records == .inFrame(ByteRange(offset: 21, count: 2)))
            let fault = EncodingFault.bytesWithoutFrame("ProduceRequest.PartitionProduceData.Records")
            var buffer = ByteBuffer()
            #expect(throws: fault) { try encoded(request, version: 9) }
            #expect(throws: fault) {
                try request.encode(into: &buffer, version: 9, frame: UnsafeRawBufferPointer(rebasing: raw[..<20]))
            }
        }
    }
}

/// What a broker of Kafka 4.3 was seen to do with such bytes.
@Suite struct WhatAPeerMayWriteWrongly {
    private func accepts<Message: WireMessage>(_: Message.Type, _ version: Int16, _ text: String) -> Bool {
        (try? decoded(Message.self, bytes(hex: text), version: version)) != nil
    }

    @Test func stringsThatAreNotUTF8AreRepaired() throws {
        for (text, name) in [("fffe", "\u{FFFD}\u{FFFD}"), ("c3", "\u{FFFD}"), ("618062", "a\u{FFFD}b")] {
            let count = text.utf8.count / 2
            let request = try decoded(
                MetadataRequest.self, bytes(hex: "00000001" + "000\(count)" + text + "00"), version: 4)
            #expect(request.topics?.first?.name == name)
        }
        #expect(accepts(MetadataRequest.self, 4, "00000001" + "0003eda080" + "00"))
    }

    @Test func anyByteButZeroIsTrue() throws {
        for byte in ["01", "02", "80", "ff"] {
            #expect(try decoded(MetadataRequest.self, bytes(hex: "00000000" + "00\(byte)00"), version: 8)
                .includeClusterAuthorizedOperations)
        }
        #expect(try !decoded(MetadataRequest.self, bytes(hex: "00000000" + "000000"), version: 8)
            .includeClusterAuthorizedOperations)
    }

    @Test func nullIsRefusedWhereNoneMayBe() {
        #expect(!accepts(FindCoordinatorRequest.self, 0, "ffff"))
        #expect(!accepts(FindCoordinatorRequest.self, 3, "000000"))
        #expect(!accepts(FindCoordinatorRequest.self, 4, "000000"))
        #expect(!accepts(FindCoordinatorRequest.self, 4, "00020000"))
        #expect(!accepts(MetadataRequest.self, 0, "ffffffff"))
        #expect(!accepts(MetadataRequest.self, 1, "00000001ffff"))
        #expect(!accepts(MetadataRequest.self, 9, "0200000000000000"))
        #expect(accepts(MetadataRequest.self, 10, "02" + String(repeating: "0", count: 32) + "0000" + "00000000"))
        #expect(!accepts(SaslAuthenticateRequest.self, 0, "ffffffff"))
        #expect(!accepts(OffsetFetchRequest.self, 1, "000167ffffffff"))
        #expect(accepts(OffsetFetchRequest.self, 2, "000167ffffffff"))
    }

    @Test func countsBeyondTheFrameAreRefused() {
        #expect(!accepts(MetadataRequest.self, 1, "7fffffff"))
        #expect(!accepts(MetadataRequest.self, 1, "000f4240"))
        #expect(!accepts(MetadataRequest.self, 1, "000000017fff6162"))
        #expect(!accepts(MetadataRequest.self, 9, "ffffffff0700000000"))
        #expect(!accepts(MetadataRequest.self, 9, "ffffffffff0f00000000"))
        #expect(!accepts(MetadataRequest.self, 9, "ffffffffffff000000000000000000"))
        #expect(!accepts(FindCoordinatorRequest.self, 0, "fffe"))
        #expect(!accepts(FindCoordinatorRequest.self, 3, "8080808001000000000000000000"))
        #expect(!accepts(SaslAuthenticateRequest.self, 0, "7fffffff61"))
        #expect(!accepts(SaslAuthenticateRequest.self, 0, "fffffffb"))
    }

    @Test func tagSectionsMayRepeatAndFallButNotLie() {
        let topics = "01" + "000000"
        #expect(accepts(MetadataRequest.self, 9, topics + "02" + "070161" + "050162"))
        #expect(accepts(MetadataRequest.self, 9, topics + "02" + "050161" + "050162"))
        #expect(accepts(MetadataRequest.self, 9, topics + "01" + "050161" + "060162"))
        #expect(!accepts(MetadataRequest.self, 9, topics + "02" + "050161"))
        #expect(!accepts(MetadataRequest.self, 9, topics + "01" + "057f61"))
        #expect(!accepts(MetadataRequest.self, 9, topics + "8080808001"))
        #expect(!accepts(MetadataRequest.self, 9, topics + "01" + "05ffffffff0f"))
    }

    /// The declared size is a wall on both sides: a value neither reads what follows it nor leaves something over.
    @Test func theSizeOfATaggedFieldBoundsItsValue() throws {
        var request = FetchRequest()
        request.clusterID = "c1"
        let good = try encoded(request, version: 12)
        #expect(Array(good.suffix(6)) == [1, 0, 3, 3, 0x63, 0x31])
        let head = Array(good.dropLast(6))
        #expect(throws: Never.self) { try decoded(FetchRequest.self, good, version: 12) }
        // the size says two, the string in it three: the byte beyond is there, and is not the string's
        #expect(throws: DecodingFault.self) {
            try decoded(FetchRequest.self, head + [1, 0, 2, 3, 0x63, 0x31], version: 12)
        }
        #expect(throws: DecodingFault.self) {
            try decoded(FetchRequest.self, head + [1, 0, 4, 3, 0x63, 0x31, 0x32], version: 12)
        }
        // of a tag that comes twice, the last counts
        let twice = try decoded(FetchRequest.self, head + [2, 0, 2, 2, 0x61, 0, 2, 2, 0x62], version: 12)
        #expect(twice.clusterID == "b")
    }

    /// A frame of empty strings would take sixteen times its size in memory, and of empty topics forty times.
    @Test func aFrameThatUnfoldsIntoFarMoreMemoryIsRefused() {
        func frame(_ count: Int) -> [UInt8] {
            var buffer = ByteBuffer(capacity: count + 16)
            buffer.uvarint(UInt32(count) + 1)
            return buffer.array + [UInt8](repeating: 1, count: count) + [0, 0]
        }
        #expect(throws: Never.self) { try decoded(DescribeGroupsRequest.self, frame(900_000), version: 5) }
        #expect(throws: DecodingFault.malformed("more elements than may be decoded", at: 0)) {
            try decoded(DescribeGroupsRequest.self, frame(4_000_000), version: 5)
        }
    }
}

@Suite struct Headers {
    private func header(_ text: String) throws -> RequestHeader {
        try bytes(hex: text).withUnsafeBytes { raw in
            var reader = ByteReader(raw)
            let header = try RequestHeader.decode(from: &reader)
            #expect(reader.isAtEnd)
            return header
        }
    }

    @Test func haveTheShapeOfTheirVersion() throws {
        let old = RequestHeader(apiKey: 3, apiVersion: 8, correlationID: 7, clientID: "me")
        #expect(try header("000300080000000700026d65") == old)
        // flexible: the client id keeps its old length, and tags follow
        #expect(try header("000300090000000700026d6500").clientID == "me")
        #expect(try header("0003000900000007ffff0105020102").clientID == nil)
        let shutdown = RequestHeader(apiKey: 7, apiVersion: 0, correlationID: 7, clientID: nil)
        #expect(try header("0007000000000007") == shutdown)
        #expect(try header("0007000100000007ffff").apiVersion == 1)
        #expect(throws: DecodingFault.self) { try header("00030008000000070064616200") }
        #expect(throws: DecodingFault.self) { try header("000300080000") }
    }

    @Test func areReadAsFarAsTheyCanBeForWhatIsNotKnown() throws {
        let unknown = RequestHeader(apiKey: 999, apiVersion: 0, correlationID: 7, clientID: nil)
        #expect(try header("03e7000000000007") == unknown)
        // ApiVersions from the future, which is answered
        let future = try header("0012006300000007ffff00")
        #expect(future.api == .apiVersions && future.apiVersion == 99)
    }

    @Test func surviveTheirRoundTrip() throws {
        for api in ApiKey.allCases {
            for version in api.versions {
                let written = RequestHeader(
                    apiKey: api.rawValue, apiVersion: version, correlationID: -5,
                    clientID: api.requestHeaderVersion(version) == 0 ? nil : "client")
                var buffer = ByteBuffer()
                try written.encode(into: &buffer)
                #expect(try header(hex(buffer.array)) == written)
            }
        }
        for version: Int16 in [0, 1] {
            var buffer = ByteBuffer()
            ResponseHeader(correlationID: 12).encode(into: &buffer, version: version)
            #expect(buffer.count == 4 + Int(version))
            var reader = ByteReader(buffer.bytes)
            #expect(try ResponseHeader.decode(from: &reader, version: version) == ResponseHeader(correlationID: 12))
            #expect(reader.isAtEnd)
        }
    }

    @Test func ofAnswersToApiVersionsNeverHaveTags() {
        #expect(ApiKey.apiVersions.requestHeaderVersion(3) == 2)
        #expect(ApiKey.apiVersions.responseHeaderVersion(3) == 0)
        #expect(ApiKey.metadata.responseHeaderVersion(9) == 1)
        #expect(ApiKey.metadata.responseHeaderVersion(8) == 0)
        #expect(ApiKey.saslHandshake.requestHeaderVersion(1) == 1)
    }
}

@Suite struct Versions {
    @Test func offeredAreThoseOfKafka43() throws {
        let path = packageRoot + "/../shared/protocol/versions.txt"
        guard let text = try? contents(of: path) else { return }
        var rows = 0
        for line in String(decoding: text, as: UTF8.self).split(separator: "\n") {
            let words = line.split(separator: " ")
            guard words.count == 3, let key = Int16(words[0]) else { continue }
            let ends = words[2].split(separator: "-").compactMap { Int16($0) }
            let api = try #require(ApiKey(rawValue: key))
            #expect(api.name == words[1])
            #expect(AdvertisedVersions.clientRange(of: api) == ends[0]...ends[1], "\(api.name)")
            rows += 1
        }
        #expect(rows == ApiKey.allCases.filter { AdvertisedVersions.clientRange(of: $0) != nil }.count)
    }

    @Test func offeredCanBeServedButForOldProduce() {
        for entry in AdvertisedVersions.entries(hasPeers: true) {
            for version in entry.versions {
                let isOldProduce = entry.api == .produce && version < 3
                #expect(AdvertisedVersions.isServed(entry.api, version) == !isOldProduce, "\(entry.api) \(version)")
            }
        }
        #expect(!AdvertisedVersions.isServed(.fetch, 3))
        #expect(!AdvertisedVersions.isServed(.fetch, 19))
    }

    @Test func ofBrokersAreOfferedAmongBrokersOnly() {
        let alone = AdvertisedVersions.entries(hasPeers: false).map(\.api)
        let among = AdvertisedVersions.entries(hasPeers: true).map(\.api)
        #expect(!alone.contains(.leaderAndIsr) && among.contains(.leaderAndIsr) && among.contains(.alterPartition))
        #expect(!among.contains(.describeQuorum) && !among.contains(.addRaftVoter))
        #expect(among == among.sorted { $0.rawValue < $1.rawValue })
    }

    @Test func thatAreUnstableAreNotOffered() {
        #expect(ApiKey.initProducerID.versions == 0...6)
        #expect(ApiKey.initProducerID.stableVersions == 0...5)
        #expect(ApiKey.fetch.stableVersions == ApiKey.fetch.versions)
    }

    @Test func agreeBetweenTheTableAndTheMessages() {
        for message in Catalog.wire {
            guard let key = message.apiKey, let api = ApiKey(rawValue: key) else {
                Issue.record("\(message.name) has no key")
                continue
            }
            #expect(message.versions == api.versions, "\(message.name)")
            for version in message.versions { #expect(message.isFlexible(version) == api.isFlexible(version)) }
        }
    }
}

@Suite struct ErrorsOfResponses {
    @Test func areFoundWhereverTheyLieAndInTheirOrder() {
        var partition = MetadataResponse.MetadataResponsePartition()
        partition.errorCode = .leaderNotAvailable
        var topic = MetadataResponse.MetadataResponseTopic()
        topic.errorCode = .unknownTopicOrPartition
        topic.partitions = [MetadataResponse.MetadataResponsePartition(), partition]
        var response = MetadataResponse()
        response.topics = [MetadataResponse.MetadataResponseTopic(), topic]
        var found = ErrorCodes()
        response.collectErrors(&found)
        #expect(found.all == [.unknownTopicOrPartition, .leaderNotAvailable])
    }

    @Test func areNoneInAResponseThatHasNone() {
        var found = ErrorCodes()
        MetadataResponse().collectErrors(&found)
        ApiVersionsResponse().collectErrors(&found)
        SaslHandshakeResponse().collectErrors(&found)
        #expect(found.all.isEmpty)
        var refused = ApiVersionsResponse()
        refused.errorCode = .unsupportedVersion
        refused.collectErrors(&found)
        #expect(found.all == [.unsupportedVersion])
    }
}
