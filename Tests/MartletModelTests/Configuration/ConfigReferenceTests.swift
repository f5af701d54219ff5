import Glibc
import MartletModel
import Testing

@Suite struct ConfigReferences {
    /// After a change of the table, run this test with MARTLET_WRITE_PAGES=1 to have the page written anew.
    @Test func theCommittedPageIsWhatTheTableSays() throws {
        let path = packageRoot + "/docs/configuration.md"
        if getenv("MARTLET_WRITE_PAGES") != nil {
            let file = try #require(fopen(path, "wb"))
            fputs(ConfigReference.page, file)
            fclose(file)
        }
        #expect(text(ofFile: path) == ConfigReference.page, "run this test with MARTLET_WRITE_PAGES=1 to write it anew")
    }

    @Test func everySettingThatCanBeGivenIsInTheReference() {
        let page = ConfigReference.page, help = ConfigReference.text
        for definition in ConfigTable.shared.definitions where !definition.flags.contains(.internal) {
            #expect(page.contains("| `\(definition.name)` |"), "\(definition.name)")
            #expect(help.contains("  \(definition.name) = "), "\(definition.name)")
        }
        for (name, documentation) in ActingConfigs.documented {
            #expect(page.contains(documentation) || ConfigTable.shared[name]?.flags.contains(.internal) == true, "\(name)")
        }
    }

    @Test func everyRowOfATableHasItsCells() {
        var columns = 0
        for line in ConfigReference.page.split(separator: "\n", omittingEmptySubsequences: false) {
            guard line.hasPrefix("|") else {
                columns = 0
                continue
            }
            let count = line.count { $0 == "|" }
            if columns == 0 { columns = count }
            #expect(count == columns, "\(line)")
        }
    }

    @Test func unitsAreReadFromTheName() {
        func unit(_ name: String) -> String? { ConfigTable.shared[name].flatMap(ConfigReference.unit) }
        #expect(unit("retention.ms") == "ms")
        #expect(unit("log.retention.hours") == "hours")
        #expect(unit("segment.index.bytes") == "bytes")
        #expect(unit("flush.messages") == "records")
        #expect(unit("num.partitions") == nil)
        #expect(unit("listeners") == nil)
    }
}
