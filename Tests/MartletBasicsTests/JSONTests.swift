import MartletBasics
import Testing

@Suite struct JSON {
    func parse(_ text: String) throws -> JSONValue { try JSONValue(parsing: text) }
    func fault(_ text: String, _ limits: JSONLimits = JSONLimits()) -> JSONFault? {
        do throws(JSONFault) {
            _ = try JSONValue(parsing: text, limits: limits)
            return nil
        } catch {
            return error
        }
    }

    @Test func whatKafkaKeepsInANodeIsReadAndWrittenTheSame() throws {
        for text in [
            #"{"controller_epoch":1,"leader":1,"version":1,"leader_epoch":0,"isr":[1,2,3]}"#,
            #"{"features":{},"listener_security_protocol_map":{"PLAINTEXT":"PLAINTEXT"},"endpoints":["PLAINTEXT://h:9092"],"#
                + #""jmx_port":-1,"port":9092,"host":"h","version":5,"timestamp":"1763700000000"}"#,
            #"{"removing_replicas":{},"partitions":{"0":[1],"1":[2]},"topic_id":"bTqQ7VKsQ3uVyhXYAxRbEw","adding_replicas":{},"version":3}"#,
            #"{"version":"1","id":"x"}"#, "null", "[]", "{}", "\"\"", "0", "-9223372036854775808", "1.5", "true", "[[],{}]",
        ] {
            #expect(try parse(text).text == text)
        }
    }

    @Test func membersAreFoundByName() throws {
        let value = try parse(#" { "leader" : 7 , "isr" : [ 1 , 2 ] , "x":{"y":"z"}, "r" : 2.0 } "#)
        #expect(value["leader"]?.integer(Int32.self) == 7)
        #expect(value["leader"]?.integer(Int8.self) == 7)
        #expect(value["isr"]?.array?.compactMap { $0.integer(Int32.self) } == [1, 2])
        #expect(value["x"]?["y"]?.string == "z")
        #expect(value["r"]?.double == 2)
        #expect(value["r"]?.int == nil)
        #expect(value["none"] == nil)
        #expect(JSONValue.int(300).integer(Int8.self) == nil)
        #expect(value.object?.members.map(\.name) == ["leader", "isr", "x", "r"])
    }

    @Test func anObjectKeepsItsOrderWhenMembersChange() {
        var object: JSONObject = ["b": 1, "a": "x", "c": [true, .null]]
        object["a"] = .double(0.5)
        object["d"] = 2
        object["b"] = nil
        object["gone"] = nil
        #expect(JSONValue.object(object).text == #"{"a":0.5,"c":[true,null],"d":2}"#)
    }

    @Test func escapesAreReadAndOnlyWhatMustBeIsWrittenSo() throws {
        #expect(try parse(#""\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00\u0000""#) == .string("\"\\/\u{8}\u{C}\n\r\té😀\u{0}"))
        #expect(JSONValue.string("\"\\/\u{8}\u{C}\n\r\té😀\u{0}\u{1F}\u{7F}").text == #""\"\\/\b\f\n\r\té😀\u0000\u001f"# + "\u{7F}\"")
    }

    @Test func wholeNumbersKeepAllTheirBitsAndOthersAreDoubles() throws {
        #expect(try parse("9223372036854775807") == .int(.max))
        #expect(try parse("-0") == .int(0))
        #expect(try parse("1.0") == .double(1))
        #expect(try parse("1e2") == .double(100))
        #expect(try parse("-1.25E-2") == .double(-0.0125))
        #expect(fault("9223372036854775808")?.reason == .numberOutOfRange)
        #expect(fault("1e999")?.reason == .numberOutOfRange)
    }

    @Test(arguments: [
        ("", JSONFault.Reason.endsEarly, 0), ("  ", .endsEarly, 2), ("[1", .endsEarly, 2),
        ("{\"a\":", .endsEarly, 5), ("\"a", .endsEarly, 2),
        ("tru", .endsEarly, 3), ("\"\\", .endsEarly, 2), ("trux", .unexpectedByte, 3), ("[1,]", .unexpectedByte, 3),
        ("{,}", .unexpectedByte, 1),
        ("{a:1}", .unexpectedByte, 1), ("{\"a\" 1}", .unexpectedByte, 5), ("[1 2]", .unexpectedByte, 3),
        ("'a'", .unexpectedByte, 0),
        ("NaN", .unexpectedByte, 0), ("+1", .unexpectedByte, 0), (".5", .unexpectedByte, 0),
        ("{\"a\":1,}", .unexpectedByte, 7),
        ("01", .malformedNumber, 0), ("-", .malformedNumber, 0), ("1.", .malformedNumber, 0),
        ("1e", .malformedNumber, 0), ("1e+", .malformedNumber, 0),
        ("1 2", .trailingBytes, 2), ("{}x", .trailingBytes, 2), ("0x1", .trailingBytes, 1),
        ("\"\n\"", .malformedString, 1), ("\"\\x\"", .malformedString, 1), ("\"\\u12g4\"", .malformedString, 1),
        ("\"\\ud83d\"", .malformedString, 1), ("\"\\ude00\"", .malformedString, 1),
        ("\"\\ud83d\\u0041\"", .malformedString, 1),
        ("{\"a\":1,\"a\":2}", .repeatedName, 7), ("{\"a\":1,\"\\u0061\":2}", .repeatedName, 7),
    ])
    func whatIsNoJSONIsRefusedWithItsPlace(_ text: String, _ reason: JSONFault.Reason, _ position: Int) {
        #expect(fault(text) == JSONFault(reason, at: position))
    }

    @Test func stringsMustBeUTF8() {
        for bytes: [UInt8] in [[0x22, 0xFF, 0x22], [0x22, 0xC3, 0x22], [0x22, 0xED, 0xA0, 0x80, 0x22], [0x22, 0xC0, 0x80, 0x22]] {
            #expect(throws: JSONFault(.malformedString, at: 0)) { try JSONValue(parsing: bytes) }
        }
        #expect(throws: JSONFault(.unexpectedByte, at: 0)) { try JSONValue(parsing: [0xEF, 0xBB, 0xBF, 0x31]) }
    }

    @Test func sizeAndDepthAreBounded() {
        #expect(fault("[[1]]", JSONLimits(depth: 2)) == nil)
        #expect(fault("[[[1]]]", JSONLimits(depth: 2)) == JSONFault(.tooDeep, at: 2))
        #expect(fault(String(repeating: "[", count: 1_000_000))?.reason == .tooDeep)
        #expect(fault("12345", JSONLimits(bytes: 5)) == nil)
        #expect(fault("123456", JSONLimits(bytes: 5))?.reason == .tooLong)
        // depth counts what is open, not what was
        #expect(fault("[[],[],[]]", JSONLimits(depth: 2)) == nil)
    }

    func randomValue(_ random: inout SeededRandom, _ depth: Int) -> JSONValue {
        func word() -> String {
            let letters = Array("ab\"\\/\n\u{1}é😀\u{2028}".unicodeScalars)
            return (0..<random.below(6)).map { _ in String(letters[random.below(letters.count)]) }.joined()
        }
        switch random.below(depth > 0 ? 7 : 5) {
        case 0: return .null
        case 1: return .bool(random.chance(1, in: 2))
        case 2: return .int(Int64(truncatingIfNeeded: random.next()) >> Int64(random.below(64)))
        case 3:
            let number = Double(bitPattern: random.next())
            return .double(number.isFinite ? number : 0.5)
        case 4: return .string(word())
        case 5: return .array((0..<random.below(4)).map { _ in randomValue(&random, depth - 1) })
        default:
            return .object(JSONObject((0..<random.below(4)).map { .init("\($0)\(word())", randomValue(&random, depth - 1)) }))
        }
    }

    @Test func whatIsWrittenIsReadBack() throws {
        for seed in 0..<1_000 {
            var random = SeededRandom(seed: UInt64(seed))
            let value = randomValue(&random, 5)
            #expect(try JSONValue(parsing: value.bytes) == value, "seed \(seed)")
        }
    }

    @Test func anyBytesAtAllAreReadOrRefused() throws {
        let telling = Array(#"{}[]":,\u0d8 truefalsn1-.eE+"#.utf8)
        for seed in 0..<5_000 {
            var random = SeededRandom(seed: UInt64(seed))
            var bytes: [UInt8]
            if random.chance(1, in: 2) {
                bytes = (0..<random.below(30)).map { _ in
                    random.chance(1, in: 8) ? UInt8(random.below(256)) : telling[random.below(telling.count)]
                }
            } else {
                bytes = randomValue(&random, 4).bytes
                for _ in 0..<random.below(4) where !bytes.isEmpty {
                    bytes[random.below(bytes.count)] = telling[random.below(telling.count)]
                }
                bytes.removeLast(min(bytes.count, random.below(3)))
            }
            do throws(JSONFault) {
                let value = try JSONValue(parsing: bytes)
                #expect(try JSONValue(parsing: value.bytes) == value, "seed \(seed)")
            } catch {
                #expect((0...bytes.count).contains(error.position), "seed \(seed)")
            }
        }
    }
}
