import Glibc
import MartletBasics
import MartletModel
import Testing

/// The root of the package.
let packageRoot = "/" + #filePath.split(separator: "/").dropLast(4).joined(separator: "/")

/// The lines of a file beside the package; nil where it is not there.
func text(ofFile path: String) -> String? {
    guard let file = fopen(path, "rb") else { return nil }
    defer { fclose(file) }
    var bytes: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 65_536)
    while true {
        let count = fread(&chunk, 1, chunk.count, file)
        if count == 0 { return String(decoding: bytes, as: UTF8.self) }
        bytes += chunk[..<count]
    }
}

private let facts = packageRoot + "/../shared/protocol/configs.txt"

@Suite struct ConfigTables {
    /// A line that tells what Kafka has.
    struct Fact {
        var scopes: String
        var name: String
        var type: String
        var defaultValue: String?
        var flags: Set<Substring>
        var inherits: [Substring]

        init(_ line: Substring) {
            var text = line
            if let remark = text.firstRange(of: "   (") { text = text[..<remark.lowerBound] }
            let halves = text.split(separator: " < ")
            inherits = halves.count > 1 ? halves[1].split(separator: " ") : []
            let equals = halves[0].firstRange(of: " =")
            let head = halves[0][..<(equals?.lowerBound ?? halves[0].endIndex)].split(separator: " ")
            scopes = String(head[0])
            name = String(head[1])
            type = head[2] == "boolean" ? "bool" : String(head[2])
            let tail = equals.map { halves[0][$0.upperBound...] } ?? ""
            let value = tail.hasPrefix(" ") ? tail.dropFirst().prefix { $0 != " " } : ""
            flags = Set(tail.dropFirst(value.count + 1).split(separator: " "))
            defaultValue = equals == nil || value == "null" || value == "(none)" ? nil : value == "\"\"" ? "" : String(value)
        }
    }

    @Test(.enabled(if: text(ofFile: facts) != nil))
    func everySettingOfKafkasIsThereWithItsTypeAndDefault() throws {
        let lines = try #require(text(ofFile: facts)).split(separator: "\n").filter { !$0.hasPrefix("#") }
        #expect(lines.count > 430)
        let ours = ["log.dirs": "data/log", "listeners": "PLAINTEXT://127.0.0.1:9092"]
        for fact in lines.map(Fact.init) {
            let definition = try #require(ConfigTable.shared[fact.name], "\(fact.name)")
            #expect(definition.type.name == fact.type, "\(fact.name)")
            #expect(definition.defaultValue == ours[fact.name] ?? fact.defaultValue, "\(fact.name)")
            #expect(definition.inherits == fact.inherits.map(String.init), "\(fact.name)")
            #expect(definition.scopes.contains(.broker) == fact.scopes.contains("broker"), "\(fact.name)")
            #expect(definition.scopes.contains(.topic) == fact.scopes.contains("topic"), "\(fact.name)")
            for (word, flag) in [
                ("dynamic", ConfigFlags.dynamic), ("per-broker", .perBroker), ("per-listener", .perListener),
                ("secret", .secret), ("kraft", .kraft),
            ] {
                #expect(definition.flags.contains(flag) == fact.flags.contains(word[...]), "\(fact.name) \(word)")
            }
        }
        let kafkas = ConfigTable.shared.definitions.filter { !$0.isOurs && !$0.flags.contains(.internal) }
        #expect(kafkas.count == lines.count)
    }

    @Test func everyDefaultIsAValueThatWouldBeTaken() throws {
        for definition in ConfigTable.shared.definitions {
            guard let text = definition.defaultValue else { continue }
            #expect(throws: Never.self, "\(definition.name)") { try definition.parse(text) }
            #expect(definition.parsedDefault?.text == text, "\(definition.name)")
        }
    }

    @Test func whatIsInheritedIsASettingOfBrokersOfTheSameKind() throws {
        for definition in ConfigTable.shared.definitions {
            for name in definition.inherits {
                let source = try #require(ConfigTable.shared.definition(name, for: .broker), "\(name)")
                // hours and minutes are ints that stand for longs
                #expect(source.type == definition.type || (source.type == .int && definition.type == .long), "\(name)")
            }
        }
    }

    @Test func whatActsIsListedOnceInOrderWithASentence() {
        let names = ActingConfigs.documented.map(\.name)
        #expect(Set(names).count == names.count)
        #expect(ConfigTable.shared.definitions.filter(\.acts).count == names.count)
        for (name, documentation) in ActingConfigs.documented {
            #expect(documentation.hasSuffix("."), "\(name)")
            #expect(!documentation.contains("\n"), "\(name)")
        }
    }

    @Test func topicsThatActInheritFromBrokersSettingsThatAct() {
        for definition in ConfigTable.shared.definitions(for: .topic) where definition.acts {
            for name in definition.inherits { #expect(ConfigTable.shared[name]?.acts == true, "\(name)") }
        }
    }

    @Test func namesAreFoundInTheirScopeOnly() {
        #expect(ConfigTable.shared.definition("retention.ms", for: .broker) == nil)
        #expect(ConfigTable.shared.definition("retention.ms", for: .topic) != nil)
        #expect(ConfigTable.shared.definition("compression.type", for: .topic) != nil)
        #expect(ConfigTable.shared.definition("compression.type", for: .broker) != nil)
        #expect(ConfigTable.shared[""] == nil)
        #expect(ConfigTable.shared["zzz"] == nil)
        #expect(ConfigTable.shared.definitions.map(\.name) == ConfigTable.shared.definitions.map(\.name).sorted())
    }
}

@Suite struct ConfigValues {
    func value(_ name: String, _ text: String) -> String? {
        (try? ConfigTable.shared[name]?.parse(text))??.text
    }

    @Test(arguments: [
        ("preallocate", "TRUE", "true"), ("preallocate", " False\n", "false"),
        ("retention.ms", " 5 ", "5"), ("retention.ms", "+5", "5"), ("retention.ms", "007", "7"),
        ("retention.ms", "-1", "-1"),
        ("retention.ms", "9223372036854775807", "9223372036854775807"),
        ("min.cleanable.dirty.ratio", ".5", "0.5"), ("min.cleanable.dirty.ratio", "1", "1.0"),
        ("min.cleanable.dirty.ratio", "1e-5", "1.0E-5"), ("min.cleanable.dirty.ratio", "0.25d", "0.25"),
        ("min.cleanable.dirty.ratio", "1.", "1.0"), ("min.cleanable.dirty.ratio", "+2.5E-1f", "0.25"),
        ("cleanup.policy", "compact, delete", "compact,delete"), ("cleanup.policy", "", ""),
        ("principal.builder.class", " some.Class ", "some.Class"), ("compression.gzip.level", "-1", "-1"),
        ("compression.gzip.level", "9", "9"), ("compression.zstd.level", "-131072", "-131072"),
        ("leader.replication.throttled.replicas", "0:1, 1:2", "0:1,1:2"),
        ("leader.replication.throttled.replicas", "*", "*"),
        ("segment.bytes", "14", "14"), ("ssl.cipher.suites", "a,,b", "a,,b"),
    ])
    func aGoodValueIsToldAsKafkaTellsIt(_ name: String, _ given: String, _ told: String) {
        #expect(value(name, given) == told)
    }

    @Test(arguments: [
        ("preallocate", "maybe"), ("preallocate", ""), ("preallocate", "1"),
        ("retention.ms", "abc"), ("retention.ms", ""), ("retention.ms", "-2"), ("retention.ms", "1.0"),
        ("retention.ms", "1 0"),
        ("retention.ms", "9223372036854775808"), ("retention.ms", "0x10"), ("retention.ms", "1_000"),
        ("retention.ms", "--1"),
        ("segment.bytes", "1"), ("segment.bytes", "2147483648"), ("max.message.bytes", "-1"),
        ("min.insync.replicas", "0"),
        ("min.cleanable.dirty.ratio", "1.5"), ("min.cleanable.dirty.ratio", "NaN"),
        ("min.cleanable.dirty.ratio", "nan"),
        ("min.cleanable.dirty.ratio", "inf"), ("min.cleanable.dirty.ratio", "."), ("min.cleanable.dirty.ratio", "1e"),
        ("min.cleanable.dirty.ratio", "0x0"), ("min.cleanable.dirty.ratio", ".e0"),
        ("min.cleanable.dirty.ratio", "0.5dd"),
        ("min.cleanable.dirty.ratio", "-"), ("min.cleanable.dirty.ratio", ""), ("min.cleanable.dirty.ratio", "+-1"),
        ("cleanup.policy", "shred"), ("cleanup.policy", "delete,delete"), ("cleanup.policy", "delete,"),
        ("compression.type", "rar"), ("compression.type", "ZSTD"), ("compression.gzip.level", "0"),
        ("compression.gzip.level", "10"),
        ("compression.lz4.level", "0"), ("compression.lz4.level", "18"), ("compression.zstd.level", "23"),
        ("message.timestamp.type", "Never"), ("flush.messages", "0"), ("segment.ms", "0"),
        ("leader.replication.throttled.replicas", "0"), ("leader.replication.throttled.replicas", "0:-1"),
        ("offsets.topic.replication.factor", "32768"), ("num.partitions", "0"), ("fetch.max.bytes", "1023"),
    ])
    func aBadValueIsRefusedWithWhatIsAllowed(_ name: String, _ given: String) throws {
        let definition = try #require(ConfigTable.shared[name])
        let error = try #require(throws: ConfigError.self) { try definition.parse(given) }
        #expect(error.reason == .invalidValue)
        #expect(error.setting == name)
        #expect(error.description.hasPrefix("\(name) cannot be '"))
        #expect(error.description.hasSuffix(definition.allowed))
    }

    @Test(arguments: [
        (0.5, "0.5"), (1, "1.0"), (-0.0, "-0.0"), (100, "100.0"), (9_999_999, "9999999.0"), (1e7, "1.0E7"),
        (12_345_678.5, "1.23456785E7"),
        (0.001, "0.001"), (0.000_123, "1.23E-4"), (.greatestFiniteMagnitude, "1.7976931348623157E308"),
        (1e21, "1.0E21"),
        (-2.5, "-2.5"), (.infinity, "Infinity"), (.nan, "NaN"), (.leastNonzeroMagnitude, "5.0E-324"), (0.05, "0.05"),
        (123_456.789, "123456.789"),
    ] as [(Double, String)])
    func numbersAreWrittenAsJavaWritesThem(_ number: Double, _ text: String) {
        #expect(javaText(number) == text)
        #expect(javaDouble(text[...]).map { $0 == number || ($0.isNaN && number.isNaN) } == true)
    }

    @Test func anyTextIsAValueOrARefusal() {
        var random = SeededRandom(seed: 41)
        let pieces = ["-", "+", ".", "e", "E", "0", "9", "NaN", "Infinity", "0x", "p", "d", "f", " ", "\u{0}", "é", "\u{301}", ",", ":", "*", "true"]
        for definition in ConfigTable.shared.definitions {
            for _ in 0..<60 {
                let text = (0..<random.below(7)).map { _ in pieces[random.below(pieces.count)] }.joined()
                guard let value = try? definition.parse(text) else { continue }
                // what was told once is told the same again
                #expect((try? definition.parse(value.text))?.text == value.text, "\(definition.name) '\(text)'")
            }
        }
    }
}
