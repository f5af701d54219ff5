import MartletBasics
import Testing

@Suite struct Tables {
    @Test func columnsAreAsWideAsWhatStandsInThem() {
        var table = TextTable([.init("NAME"), .init("COUNT", .right), .init("LAST")])
        table.add("a", "7", "x")
        table.add("a long name", "123456", "")
        #expect(table.text() == """
            NAME          COUNT  LAST
            a                 7  x
            a long name  123456  -

            """)
        #expect(table.text(isStyled: true).hasPrefix("\u{1B}[1mNAME          COUNT  LAST\u{1B}[0m\n"))
    }

    /// A client may call itself whatever it likes: a terminal does not obey it.
    @Test func controlCharactersAreShownAndNotObeyed() {
        #expect(TextTable.shown("a\u{1B}[2Jb\nc\u{9B}") == "a\\u{1b}[2Jb\\u{a}c\\u{9b}")
        #expect(TextTable.shown("größer") == "größer")
        #expect(TextTable.shown("") == "-")
    }

    @Test func aRowBelowZeroRowsIsTheHead() {
        #expect(TextTable([.init("A"), .init("B")]).text() == "A  B\n")
        #expect(TextTable([.init("A")]).isEmpty)
    }
}

@Suite struct MomentsAsPeopleWriteThem {
    @Test(arguments: [
        (0, "1970-01-01T00:00:00.000Z"), (-1, "1969-12-31T23:59:59.999Z"), (951_782_400_000, "2000-02-29T00:00:00.000Z"),
        (1_795_272_651_383, "2026-11-21T14:50:51.383Z"), (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        (-62_135_596_800_000, "0001-01-01T00:00:00.000Z"), (4_107_542_399_999, "2100-02-28T23:59:59.999Z"),
        (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
    ] as [(Int64, String)])
    func bothWays(_ milliseconds: Int64, _ text: String) {
        #expect(WallTime.text(milliseconds) == text)
        #expect(WallTime.milliseconds(text) == milliseconds)
    }

    @Test(arguments: [
        ("2026-11-21", 1_795_219_200_000), ("2026-11-21T14:50", 1_795_272_600_000), ("2026-11-21 14:50:51", 1_795_272_651_000),
        ("2026-11-21T14:50:51.3", 1_795_272_651_300), ("2026-11-21T14:50:51.3839999Z", 1_795_272_651_383),
        ("2026-11-21T16:50:51+02:00", 1_795_272_651_000), ("2026-11-21T09:20:51-0530", 1_795_272_651_000),
        ("2026-11-21T15:50+01", 1_795_272_600_000),
    ] as [(String, Int64)])
    func inEveryCommonForm(_ text: String, _ milliseconds: Int64) {
        #expect(WallTime.milliseconds(text) == milliseconds)
    }

    @Test(arguments: [
        "", "now", "2026", "2026-13-01", "2026-02-29", "2026-00-10", "2026-11-21T", "2026-11-21T24:00", "2026-11-21T10",
        "2026-11-21T10:60", "2026-11-21T10:00:60", "2026-11-21T10:00:00.", "2026-11-21T10:00Zx", "2026-11-21T10:00+1",
        "0000-01-01", "26-11-21", "2026-11-21T10:00 Z", "١٢٣٤-01-01",
    ])
    func whatIsNoMomentIsNone(_ text: String) {
        #expect(WallTime.milliseconds(text) == nil)
    }

    @Test func everyDayOfFourHundredYearsComesBack() {
        for day in Int64(-100_000)...100_000 {
            let milliseconds = day * 86_400_000 + 1
            if WallTime.milliseconds(WallTime.text(milliseconds)) != milliseconds { Issue.record("day \(day)") }
        }
        #expect(WallTime.text(.max) == "\(Int64.max)")
        #expect(WallTime.text(.min) == "\(Int64.min)")
    }
}

@Suite struct BytesAsText {
    @Test(arguments: [
        ("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE="),
        ("foobar", "Zm9vYmFy"),
    ])
    func asTheStandardHasIt(_ plain: String, _ text: String) {
        #expect(Base64.text(Array(plain.utf8)) == text)
        #expect(Base64.bytes(text) == Array(plain.utf8))
    }

    @Test func everyByteComesBack() {
        let all = (0...255).map { UInt8($0) }
        #expect(Base64.bytes(Base64.text(all)) == all)
        #expect(Base64.text([0xFB, 0xFF, 0xFE]) == "+//+")
    }

    @Test(arguments: ["Z", "Zg", "Zg=", "Zg===", "Zh==", "Z m9", "Zm9v\n", "Zm-_", "====", "Zg==Zg=="])
    func whatNobodyWouldHaveWrittenIsRefused(_ text: String) {
        #expect(Base64.bytes(text) == nil)
    }
}
