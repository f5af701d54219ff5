import MartletBasics
import MartletBroker
import MartletModel
import Testing

/// What Kafka 4.3 wrote into `__consumer_offsets`, key and value: in hexadecimal, from a directory that it left.
@Suite struct ConsumerRecordsTests {
    private static let records: [(kind: String, key: String, value: String)] = [
        (
            "member",
            "0005000a672d636f6e73756d6572001636653534383338356133366534623733393239356335",
            "00000000066b776972650b2f3132372e302e302e31030b6964656d706f74656e740474786e010000ea600001000100"
        ),
        (
            "epoch",
            "0003000a672d636f6e73756d6572",
            "000000000002010008da976191cb4a3c3b"
        ),
        (
            "target",
            "0007000a672d636f6e73756d6572001636653534383338356133366534623733393239356335",
            "0000037d0d82f0d1474eaaa5f3b226fd9baa6e03000000000000000100004a78d9bb8d4e089f59426e1b6f4cb30300000000000000010000"
        ),
        (
            "target epoch",
            "0006000a672d636f6e73756d6572",
            "000000000002010008000001a1fd5179cd"
        ),
        (
            "standing",
            "0008000a672d636f6e73756d6572001636653534383338356133366534623733393239356335",
            "0000000000020000000000037d0d82f0d1474eaaa5f3b226fd9baa6e030000000000000001010009030000000200000002004a78d9bb8d4e089f59426e1b6f4cb30300000000000000010100090300000002000000020100"
        ),
        (
            "member",
            "0005000a672d636f6e73756d6572001661396134333035386233363534613739383363396161",
            "00000000066b776972650b2f3132372e302e302e310109636f6465632d2e2a0000ea600001000100"
        ),
        (
            "standing",
            "0008000a672d636f6e73756d6572001661396134333035386233363534613739383363396161",
            "0000000000020000000000010100"
        ),
        (
            "expression",
            "0010000a672d636f6e73756d65720008636f6465632d2e2a",
            "0000080a636f6465632d6269670b636f6465632d677a69700a636f6465632d6c7a340c636f6465632d6d697865640b636f6465632d6e6f6e650d636f6465632d736e617070790b636f6465632d7a73746400000000000000a1000001a1fd5179ed00"
        ),
        (
            "epoch",
            "0003000a672d636f6e73756d6572",
            "0000000000030100084a622413f64df614"
        ),
        (
            "member",
            "00050006672d6c656674001665303731333037646663653434616635383630653135",
            "00000000066b776972650b2f3132372e302e302e31020474786e010000ea600672616e676501000100"
        ),
        (
            "epoch",
            "00030006672d6c656674",
            "000000000002010008e37c0876f8160cd0"
        ),
        (
            "target",
            "00070006672d6c656674001665303731333037646663653434616635383630653135",
            "0000027d0d82f0d1474eaaa5f3b226fd9baa6e0300000000000000010000"
        ),
        (
            "target epoch",
            "00060006672d6c656674",
            "000000000002010008000001a1fd5179f0"
        ),
        (
            "standing",
            "00080006672d6c656674001665303731333037646663653434616635383630653135",
            "0000000000020000000000027d0d82f0d1474eaaa5f3b226fd9baa6e0300000000000000010100090300000002000000020100"
        ),
        (
            "epoch",
            "00030006672d6c656674",
            "00000000000300"
        ),
    ]

    private static func bytes(_ hex: String) -> [UInt8] {
        let digits = Array(hex.utf8).map { $0 < 58 ? $0 - 48 : $0 - 87 }
        return stride(from: 0, to: digits.count, by: 2).map { digits[$0] << 4 | digits[$0 + 1] }
    }

    private static func decoded(_ key: [UInt8], _ value: [UInt8]?) -> GroupRecord? {
        key.withUnsafeBytes { key in
            func decode(_ value: UnsafeRawBufferPointer?) -> GroupRecord? {
                guard case .known(let record) = GroupRecords.decode(key: key, value: value) else { return nil }
                return record
            }
            return value.map { $0.withUnsafeBytes { decode($0) } } ?? decode(nil)
        }
    }

    private static func encoded(_ record: GroupRecord) throws -> (key: [UInt8], value: [UInt8]?) {
        var key = ByteBuffer(), value = ByteBuffer()
        let hasValue = try record.encode(key: &key, value: &value)
        return (key.array, hasValue ? value.array : nil)
    }

    @Test("records of consumer groups that Kafka wrote are understood, and written as it wrote them")
    func kafkasBytes() throws {
        for (kind, key, value) in Self.records {
            let record = try #require(Self.decoded(Self.bytes(key), Self.bytes(value)), "\(kind)")
            let again = try Self.encoded(record)
            #expect(again.key == Self.bytes(key) && again.value == Self.bytes(value), "\(kind)")
        }
    }

    @Test("a group that Kafka coordinated goes on here: its members keep their epochs, and what changes is written in its way")
    func kafkasGroupsGoOn() throws {
        var world = GroupWorld(GroupWorld.stepwise)
        for (_, key, value) in Self.records { world.log.append(try #require(Self.decoded(Self.bytes(key), Self.bytes(value)))) }
        world.readAnew()
        let group = try #require(world.consumer("g-consumer"))
        #expect(
            group.members.count == 2 && group.epoch == 3 && group.targetEpoch == 2
                && group.patterns.keys.sorted() == ["codec-.*"])
        let member = try #require(group.members["6e548385a36e4b739295c5"])
        #expect(
            member.epoch == 2 && member.state == .stable && member.classic == nil && member.topics == ["idempotent", "txn"])
        #expect(member.assigned.partitions.values.map { $0 } == [[0, 1], [0, 1]])
        // each member written anew is what was read; of several topics Kafka's order is that of its hashes
        for (kind, key, value) in Self.records where kind == "member" || (kind == "standing" && key.contains("672d6c656674")) {
            let read = try #require(Self.decoded(Self.bytes(key), Self.bytes(value)))
            guard case .consumer(let record) = read, let now = world.machine.record(like: record) else { continue }
            #expect(try Self.encoded(.consumer(now)).value == Self.bytes(value), "\(kind)")
        }
    }

    @Test("a group whose records tell of the last epoch there is, and of times without measure, goes on all the same")
    func theEndsOfTheRange() {
        for (epoch, timestamp) in [(Int32.max, Int64.min), (.max, .max), (.max - 1, .min)] {
            var world = GroupWorld(GroupWorld.stepwise)
            world.setTopics(["t": 2])
            let member = TestMember("m")
            member.pattern = "t.*"
            world.beat(member)
            var known = ConsumerGroupMetadataValue()
            known.epoch = epoch
            var target = ConsumerGroupTargetAssignmentMetadataValue()
            (target.assignmentEpoch, target.assignmentTimestamp) = (epoch - 2, timestamp)
            var pattern = ConsumerGroupRegularExpressionValue()
            (pattern.topics, pattern.timestamp) = (["t"], timestamp)
            var standing = ConsumerGroupCurrentMemberAssignmentValue()
            (standing.memberEpoch, standing.previousMemberEpoch, standing.state) = (epoch, epoch, 1)
            world.log += [
                .consumer(.epoch("g", known)), .consumer(.targetEpoch("g", target)), .consumer(.pattern("g", "t.*", pattern)),
                .consumer(.current("g", "m", standing)),
            ]
            world.readAnew()
            let newcomer = TestMember("n")
            newcomer.pattern = "t.*"
            for _ in 0..<3 { #expect(world.beat(newcomer) != nil, "epoch \(epoch), time \(timestamp)") }
            world.setTopics(["t": 3])
            world.pass(2_000)
            #expect(world.beat(newcomer) != nil && newcomer.epoch > 0)
            (member.epoch, member.owned) = (epoch, [:])
            world.beat(member) { $0.owned = [:] }
        }
    }

    @Test("records that are cut or of no sense make no group, and end nothing")
    func damaged() {
        var random = SeededRandom(seed: 3)
        for (_, key, value) in Self.records {
            for _ in 0..<200 {
                var (key, value) = (Self.bytes(key), Self.bytes(value))
                switch random.below(3) {
                case 0: value.removeLast(1 + random.below(value.count))
                case 1: value[random.below(value.count)] = UInt8(truncatingIfNeeded: random.next())
                default: key[random.below(key.count)] = UInt8(truncatingIfNeeded: random.next())
                }
                guard let record = Self.decoded(key, value) else { continue }
                var world = GroupWorld()
                world.log = [record]
                world.readAnew()
                world.pass(50_000)
            }
        }
    }
}
