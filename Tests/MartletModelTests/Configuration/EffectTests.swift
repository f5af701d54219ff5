import MartletModel
import Testing

@Suite struct EffectsOfSettings {
    private static let folder = packageRoot + "/Tests/MartletModelTests/Configuration"

    /// The rows of a table of words, without its comments.
    private static func rows(_ file: String) -> [[String]] {
        (text(ofFile: folder + "/" + file) ?? "").split(separator: "\n").filter { !$0.hasPrefix("#") }
            .map { $0.split(separator: " ").map(String.init) }
    }

    @Test func everySettingThatActsHasATestThatSeesItOrAReasonWhyNoneCan() {
        let rows = Self.rows("effects.txt")
        let acting = ConfigTable.shared.definitions.filter(\.acts).map(\.name)
        let named = rows.map { $0[0] }
        #expect(named == acting, "effects.txt has one row for each setting that acts, in order of name")
        let unseen = rows.filter { $0.dropFirst() == ["unseen"] }.map { $0[0] }, explained = ActingConfigs.unseen.map(\.name)
        #expect(unseen == explained, "who is not seen acting has its reason in ActingConfigs")
        for (name, reason) in ActingConfigs.unseen {
            #expect(ConfigReference.page.contains("No test sees it: \(reason)."), "the reference says so of \(name)")
        }
    }

    @Test func theTestsThatSeeSettingsActAreThere() {
        var files: [String: String] = [:]
        for row in Self.rows("effects.txt") where row.dropFirst() != ["unseen"] {
            #expect(row.count > 1, "\(row[0]) has no test")
            for place in row.dropFirst() {
                let parts = place.split(separator: ":").map(String.init)
                guard parts.count == 2 else {
                    Issue.record("\(row[0]): \(place) is not file:function")
                    continue
                }
                let code = files[parts[0]] ?? text(ofFile: packageRoot + "/Tests/" + parts[0]) ?? ""
                files[parts[0]] = code
                #expect(Self.hasTest(parts[1], in: code), "\(row[0]): there is no test \(parts[1]) in Tests/\(parts[0])")
            }
        }
    }

    private static func hasTest(_ name: String, in code: String) -> Bool {
        if code.contains("\n@test\ndef \(name)():") { return true }
        let lines = code.split(separator: "\n")
        guard let line = lines.firstIndex(where: { $0.contains("func \(name)(") }) else { return false }
        // the attribute stands before the name, or above it with its arguments
        return lines[max(line - 8, 0)...line].contains { $0.contains("@Test") }
    }

    @Test func fewerAndFewerSettingsHaveNoEffect() throws {
        let written = Self.rows("inert.txt").first?.first.flatMap { Int($0) }
        let allowed = try #require(written)
        let (acting, inert) = ConfigReference.counts
        print("\(acting) settings act, \(inert) are accepted without effect")
        #expect(inert <= allowed, "a setting that acted, or a new one, has no effect: inert.txt allows \(allowed)")
        #expect(inert >= allowed, "more settings act than before: write \(inert) into inert.txt, where \(allowed) stands")
        #expect(ConfigReference.text.hasSuffix("\n\(acting) settings act, \(inert) are accepted without effect."))
        #expect(acting + inert == ConfigTable.shared.definitions.count)
    }
}
