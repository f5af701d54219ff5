import MartletClient
import Testing

@Suite struct KeysGoWhereEveryOtherClientSendsThem {
    /// The figures are those of Kafka's own tests.
    @Test(arguments: [
        ("21", -973_932_308), ("foobar", -790_332_482), ("a-little-bit-long-string", -985_981_536),
        ("a-little-bit-longer-string", -1_486_304_829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971), ("abc", 479_470_107),
    ] as [(String, Int32)])
    func theHashIsThatOfKafkasProducer(_ key: String, _ expected: Int32) {
        #expect(Int32(bitPattern: Partitioning.murmur2(Array(key.utf8))) == expected)
    }

    @Test func aHashBelowZeroStillNamesAPartition() {
        for count: Int32 in 1...50 {
            #expect((0..<count).contains(Partitioning.partition(of: Array("foobar".utf8), among: count)))
        }
        #expect(Partitioning.partition(of: Array("foobar".utf8), among: 1000) == (-790_332_482 & 0x7FFF_FFFF) % 1000)
    }
}
