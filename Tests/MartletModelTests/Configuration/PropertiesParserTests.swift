import MartletBasics
import MartletModel
import Testing

@Suite struct PropertiesFiles {
    func pairs(_ text: String) throws -> [String] { try pairs(Array(text.utf8)) }
    func pairs(_ bytes: [UInt8]) throws -> [String] {
        try PropertiesParser.parse(bytes).map { "\($0.line) \($0.name)=\($0.value)" }
    }

    @Test func namesEndAtEqualsColonOrBlank() throws {
        #expect(try pairs("a=1\nb:2\nc 3\nd\t\u{C}4\ne = 5\nf :6\ng  7 8\nh==9\ni= =\nj\nk=\n=l\n")
            == ["1 a=1", "2 b=2", "3 c=3", "4 d=4", "5 e=5", "6 f=6", "7 g=7 8", "8 h==9", "9 i==", "10 j=", "11 k=", "12 =l"])
    }

    @Test func blanksBeforeANameAreGoneAndThoseAfterAValueStay() throws {
        #expect(try pairs("  \t a=1  ") == ["1 a=1  "])
    }

    @Test func commentsAndEmptyLinesSayNothingAndAreNotContinued() throws {
        #expect(try pairs("# a=1\n  ! b=2\n\n   \n#c \\\nd=3 # no comment\n") == ["6 d=3 # no comment"])
    }

    @Test func everyEndOfLineCounts() throws {
        #expect(try pairs("a=1\rb=2\r\nc=3\n\rd=4") == ["1 a=1", "2 b=2", "3 c=3", "5 d=4"])
    }

    @Test func aBackslashAtTheEndContinuesTheLine() throws {
        #expect(try pairs("list=a,\\\n     b,\\\r\n\tc\nnext=1") == ["1 list=a,b,c", "4 next=1"])
        #expect(try pairs("a=1\\\n# no comment") == ["1 a=1# no comment"])
        #expect(try pairs("a=1\\\\\nb=2") == ["1 a=1\\", "2 b=2"])
        #expect(try pairs("a=1\\\n\nb=2") == ["1 a=1", "3 b=2"])
        #expect(try pairs("a \\\n = 1") == ["1 a=1"])
        #expect(try pairs("a=1\\") == ["1 a=1"])
        #expect(try pairs("\\\n\\\n") == [])
    }

    @Test func escapesStandForTheirCharacters() throws {
        #expect(try pairs(#"a\ b\=c\:d=\t\n\r\f\\\z\"\'"#) == ["1 a b=c:d=\t\n\r\u{C}\\z\"'"])
        #expect(try pairs("\\#xyz=1") == ["1 #xyz=1"])
        #expect(try pairs(#"\u0061=\u00e9\u20AC\ud83d\ude00"#) == ["1 a=é€😀"])
    }

    @Test(arguments: [#"a=\u12"#, #"a=\u12g4"#, #"\u="#, #"a=\ud83d"#, #"a=\ud83dx"#, #"a=\ud83d\u0041"#, #"a=\ude00"#, #"a=\uu0041"#])
    func anEscapeThatNamesNoCharacterIsRefusedWithItsLine(_ text: String) throws {
        let error = try #require(throws: ConfigError.self) { try PropertiesParser.parse(Array("\n\n\(text)\nb=1".utf8)) }
        #expect(error.reason == .malformedFile)
        #expect(error.description.hasPrefix("line 3: "))
    }

    @Test func ofEqualNamesTheLastCounts() throws {
        #expect(try pairs("a=1\nb=2\na=3\n\\u0061=4") == ["2 b=2", "4 a=4"])
    }

    @Test func bytesAreUTF8OrElseLatin1() throws {
        #expect(try pairs([0x61, 0x3D, 0xC3, 0xA9]) == ["1 a=é"])
        #expect(try pairs([0x61, 0x3D, 0xE9]) == ["1 a=é"])
        #expect(try pairs([0x61, 0x3D, 0xFF, 0xC3, 0xA9]) == ["1 a=ÿÃ©"])
        #expect(try pairs([]) == [])
    }

    @Test func aFileBeyondAllMeasureIsRefused() {
        #expect(throws: ConfigError.self) {
            try PropertiesParser.parse([UInt8](repeating: 0x20, count: PropertiesParser.maximumBytes + 1))
        }
        let many = (0...PropertiesParser.maximumProperties).map { "k\($0)=\n" }.joined()
        #expect(throws: ConfigError.self) { try PropertiesParser.parse(Array(many.utf8)) }
    }

    /// Writes a setting so that every character that means something is escaped.
    static func escaped(_ text: String) -> String {
        text.unicodeScalars.map { scalar in
            switch scalar {
            case " ", "=", ":", "#", "!", "\\": "\\\(scalar)"
            case "\n": "\\n"
            case "\r": "\\r"
            case "\t": "\\t"
            case "\u{C}": "\\f"
            default: String(scalar)
            }
        }.joined()
    }

    @Test func whatIsWrittenWithEscapesIsReadBack() throws {
        let letters = Array("ab=:#! \\\n\r\t\u{C}é€😀u0".unicodeScalars)
        for seed in 0..<300 {
            var random = SeededRandom(seed: UInt64(seed))
            func word() -> String {
                (0..<random.below(8)).map { _ in String(letters[random.below(letters.count)]) }.joined()
            }
            let settings = (0..<5).map { ("\($0)" + word(), word()) }
            let text = settings.map { "\(Self.escaped($0)) = \(Self.escaped($1))\n" }.joined()
            let read = try PropertiesParser.parse(Array(text.utf8))
            #expect(read.map(\.name) == settings.map(\.0), "seed \(seed)")
            #expect(read.map(\.value) == settings.map(\.1), "seed \(seed)")
        }
    }

    @Test func anyBytesAtAllAreReadOrRefused() {
        let telling = Array("\\\n\r=: #!u0041dD8\t".utf8)
        let stock = Array(BrokerConfigs.stockFile.utf8)
        for seed in 0..<2_000 {
            var random = SeededRandom(seed: UInt64(seed))
            var bytes: [UInt8]
            if random.chance(1, in: 2) {
                bytes = (0..<random.below(60)).map { _ in
                    random.chance(1, in: 4) ? UInt8(random.below(256)) : telling[random.below(telling.count)]
                }
            } else {
                bytes = stock
                for _ in 0..<random.below(10) { bytes[random.below(bytes.count)] = telling[random.below(telling.count)] }
            }
            guard let properties = try? PropertiesParser.parse(bytes) else { continue }
            var line = 0
            for property in properties {
                #expect(property.line > line, "seed \(seed)")
                line = property.line
            }
            // and a broker with them starts or says why not
            do {
                _ = try BrokerConfig.resolve(file: properties, coordinationIsChosen: true)
            } catch {
                #expect(!error.description.isEmpty)
            }
        }
    }
}
