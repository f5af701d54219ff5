import MartletBasics
import MartletClient
import MartletModel
import Testing

@Suite struct Addresses {
    @Test(arguments: [
        ("broker:9092", "broker", 9092), ("broker", "broker", 9092), ("10.0.0.1:1", "10.0.0.1", 1),
        ("[::1]:9093", "::1", 9093), ("::1", "::1", 9092), ("[::1]", "::1", 9092),
    ] as [(String, String, UInt16)])
    func areReadAsPeopleWriteThem(_ text: String, _ host: String, _ port: UInt16) {
        #expect(BrokerEndpoint(text) == BrokerEndpoint(host: host, port: port))
    }

    @Test(arguments: [
        "", ":9092", "a:", "a:0", "a:65536", "a:x", "a b:1", "http://a:1", "[::1", "[::1]9092", "a:1,b:2",
        "a:b:c:", "[a]:1:2", "1:2:3:",
    ])
    func thatAreNoneAreRefused(_ text: String) {
        #expect(BrokerEndpoint(text) == nil)
    }
}

@Suite struct RecordsAsJSON {
    func read(_ text: String) throws(ClientError) -> ProducedRecord { try RecordJSON.record(Array(text.utf8)) }

    @Test func aLineIsARecord() throws {
        let text = #"""
            {"topic":"t","partition":2,"offset":9,"timestamp":5,"timestampType":"create","key":"k","value":"v",
            "headers":[{"name":"a","value":"1"},{"name":"a","value":null}]}
            """#
        let record = try read(text)
        #expect(record == ProducedRecord(
            key: Array("k".utf8), value: Array("v".utf8),
            headers: [RecordHeader(Array("a".utf8), Array("1".utf8)), RecordHeader(Array("a".utf8), nil)],
            timestamp: 5, partition: 2))
    }

    @Test func whatIsNoTextHasAPlaceOfItsOwn() throws {
        #expect(try read(#"{"valueBase64":"/wA="}"#).value == [0xFF, 0])
        #expect(try read(#"{"value":null}"#).value == nil)
        #expect(try read(#"{"value":{"a":[1,true]}}"#).value == Array(#"{"a":[1,true]}"#.utf8))
        #expect(try read(#"{"value":"","key":7}"#).key == [0x37])
        #expect(try read(#"{"value":"","headers":{"b":"x","a":1}}"#).headers.map(\.name) == [[0x62], [0x61]])
        #expect(try read(#"{"value":"","timestamp":"1970-01-01T00:00:01Z"}"#).timestamp == 1000)
    }

    @Test(arguments: [
        ("", "no JSON"), ("[]", "a record is an object"), ("{}", #""value" is missing"#),
        (#"{"valu":1}"#, #"no "valu"; the nearest is "value""#), (#"{"value":1,"partition":-1}"#, "partition"),
        (#"{"value":1,"partition":4294967296}"#, "partition"), (#"{"value":"a","valueBase64":"YQ=="}"#, "in place of"),
        (#"{"valueBase64":"YQ"}"#, "base64"), (#"{"value":1,"headers":3}"#, "headers"),
        (#"{"value":1,"headers":[{"value":"x"}]}"#, "a header is"), (#"{"value":1,"timestamp":"soon"}"#, "timestamp"),
        (#"{"value":1,"timestamp":-1}"#, "timestamp"), (#"{"value":1} x"#, "no JSON"),
    ])
    func aMistakeIsNamed(_ text: String, _ expected: String) throws {
        do throws(ClientError) {
            _ = try read(text)
            Issue.record("\(text) was taken")
        } catch {
            #expect("\(error)".contains(expected), "\(error)")
        }
    }
}
