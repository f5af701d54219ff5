import MartletBasics
import MartletBroker
import Testing

@Suite struct TopicPatternTests {
    private func matches(_ pattern: String, _ name: String) -> Bool { (try? TopicPattern(pattern).matches(name)) ?? false }

    @Test(
        "an expression is about the whole name, as RE2 reads it",
        arguments: [
            ("orders", ["orders"], ["order", "orders-1", "my-orders"]),
            ("orders-.*", ["orders-", "orders-eu"], ["orders"]),
            ("a|bc", ["a", "bc"], ["ab", "abc", "c"]),
            ("(a|b)+c?", ["a", "abab", "bc"], ["c", "acc"]),
            ("x{2,3}", ["xx", "xxx"], ["x", "xxxx"]),
            ("x{2}", ["xx"], ["x", "xxx"]), ("x{2,}", ["xx", "xxxxx"], ["x"]), ("x{,2}", ["x{,2}"], ["x", "xx"]),
            ("[a-c]\\d\\.log", ["b7.log"], ["d7.log", "b7xlog"]),
            ("[^a-c]", ["d", "-"], ["a", ""]), ("[]a]", ["]", "a"], ["b"]), ("[a-]", ["a", "-"], ["b"]),
            ("[[:alpha:]_]+", ["ab_C"], ["a1"]), ("[[:^digit:]]", ["a"], ["1"]),
            ("(?i)Orders", ["ORDERS", "orders"], ["order"]), ("(?i:o)rders", ["Orders"], ["ORDERS"]),
            ("a(?i)b(?-i)c", ["aBc"], ["aBC"]),
            ("^orders$", ["orders"], ["xorders"]), ("\\Aorders\\z", ["orders"], []),
            ("a\\bb", [], ["ab"]), ("a\\b-b", ["a-b"], ["ab"]), ("a\\Bb", ["ab"], []),
            ("\\Qa.b+\\E.", ["a.b+x"], ["axb+x"]), ("(?P<region>eu|us)-.+", ["eu-1"], ["eu-"]), ("(?<x>a)", ["a"], []),
            ("\\x41\\x{42}\\103", ["ABC"], ["abc"]), ("\\pL\\p{Nd}\\PL", ["a1-"], ["11-", "a1a"]),
            ("\\p{Greek}|a", ["a"], ["b"]),
            ("(?s).", ["a"], []), ("a*?b+?", ["b", "aab"], ["a"]), ("", [""], ["a"]), ("()*a", ["a"], [""]),
            ("(|a)*", ["", "aa"], ["b"]),
            ("\u{e9}|a", ["a"], ["e"]),
            ("a{1000}", [String(repeating: "a", count: 1000)], [String(repeating: "a", count: 999)]),
            ("a{", ["a{"], ["a"]), ("a{x}", ["a{x}"], []), ("\\_\\-", ["_-"], []),
        ] as [(String, [String], [String])])
    func wholeNames(_ pattern: String, _ good: [String], _ bad: [String]) throws {
        let compiled = try TopicPattern(pattern)
        for name in good { #expect(compiled.matches(name), "\(pattern) is for \(name)") }
        for name in bad { #expect(!compiled.matches(name), "\(pattern) is not for \(name)") }
        #expect(compiled.matching(good + bad) == good)
    }

    @Test(
        "what RE2 does not have is refused, and nothing ends the broker",
        arguments: [
            "(", ")", "a)", "[", "[a", "[b-a]", "*", "+a", "a**", "a+*", "a{2}{3}", "a{3,2}", "a{1001}", "{2}", "(?=a)",
            "(?!a)", "(?<=a)",
            "(?<!a)", "a(?=b)", "\\1", "(a)\\2", "\\", "\\8", "\\Z", "\\y", "(?P<n>a)(?P<n>b)", "(?P<>a)", "(?P<n", "(?z)",
            "(?", "(?i", "(?-)",
            "\\p{Nobody}", "\\pQ", "\\p", "[[:nobody:]]", "[[:alpha:", "\\x{", "\\x{110000}", "\\xg", "a++", "(?>a)",
            "(a{1000}){1000}",
            "((a{100}){100}){100}", "\\x{-1}",
        ])
    func refused(_ pattern: String) {
        #expect(throws: TopicPatternFault.self) { try TopicPattern(pattern) }
    }

    @Test("expressions that are endless, or endlessly deep, are refused before they cost anything")
    func bounded() {
        let deep = String(repeating: "(", count: 5_000) + String(repeating: ")", count: 5_000)
        for pattern in [
            deep, String(repeating: "(", count: 2_000), String(repeating: "a", count: 5_000),
            String(repeating: "a|", count: 2_000),
        ] {
            #expect(throws: TopicPatternFault.self) { try TopicPattern(pattern) }
        }
    }

    /// What explodes where a matcher tries one way after the other: each would take longer than the universe.
    @Test(
        "an expression that explodes elsewhere costs the length of the name",
        arguments: [
            "(a+)+b", "(a*)*b", "(a|a)*b", "(a|aa)+b", "(.*)(.*)(.*)(.*)(.*)b", "(a?){240}a{240}b", "([a-z]+)*-b",
            "(x+x+)+y|(a*a*)*b",
        ])
    func linear(_ pattern: String) throws {
        let compiled = try TopicPattern(pattern)
        let name = String(repeating: "a", count: 249)
        let spent = ContinuousClock().measure { for _ in 0..<5 { #expect(!compiled.matches(name)) } }
        #expect(spent < .seconds(5), "\(pattern) took \(spent)")
        #expect(compiled.matches(String(name.dropLast(9)) + "b") || pattern.contains("-b"))
    }

    @Test("any text at all is either refused or understood")
    func anyText() {
        var random = SeededRandom(seed: 848)
        let pieces = [
            "(", ")", "[", "]", "{", "}", "*", "+", "?", "|", "\\", "^", "$", ".", "-", "a", "b", "1", ",", "(?", "[:", ":]",
            "P<", "\\p", "\u{e9}", "\\Q",
        ]
        for _ in 0..<20_000 {
            let text = (0..<1 + random.below(12)).map { _ in pieces[random.below(pieces.count)] }.joined()
            guard let pattern = try? TopicPattern(text) else { continue }
            _ = pattern.matches("ab1-a")
        }
    }

    /// Small expressions against a matcher that shares nothing with it: every word of a language up to a length.
    @Test("small expressions match what their meaning says")
    func meaning() throws {
        indirect enum Meaning {
            case letter(Character), pair(Meaning, Meaning), either(Meaning, Meaning), star(Meaning), maybe(Meaning)

            var text: String {
                switch self {
                case .letter(let letter): String(letter)
                case .pair(let a, let b): a.text + b.text
                case .either(let a, let b): "(?:\(a.text)|\(b.text))"
                case .star(let a): "(\(a.text))*"
                case .maybe(let a): "(\(a.text))?"
                }
            }

            /// The ends at which it can stop that begins here.
            func ends(_ word: [Character], _ from: Set<Int>) -> Set<Int> {
                switch self {
                case .letter(let letter): return Set(from.filter { $0 < word.count && word[$0] == letter }.map { $0 + 1 })
                case .pair(let a, let b): return b.ends(word, a.ends(word, from))
                case .either(let a, let b): return a.ends(word, from).union(b.ends(word, from))
                case .maybe(let a): return from.union(a.ends(word, from))
                case .star(let a):
                    var found = from
                    while true {
                        let more = found.union(a.ends(word, found))
                        if more == found { return found }
                        found = more
                    }
                }
            }
        }
        var random = SeededRandom(seed: 11)
        func make(_ depth: Int) -> Meaning {
            switch depth == 0 ? 0 : random.below(6) {
            case 1, 2: .pair(make(depth - 1), make(depth - 1))
            case 3: .either(make(depth - 1), make(depth - 1))
            case 4: .star(make(depth - 1))
            case 5: .maybe(make(depth - 1))
            default: .letter(random.chance(1, in: 2) ? "a" : "b")
            }
        }
        for _ in 0..<400 {
            let meaning = make(4)
            let pattern = try TopicPattern(meaning.text)
            for length in 0..<6 {
                for bits in 0..<1 << length {
                    let word = (0..<length).map { bits >> $0 & 1 == 1 ? Character("a") : "b" }
                    #expect(
                        pattern.matches(String(word)) == meaning.ends(word, [0]).contains(length),
                        "\(meaning.text) and \(String(word))")
                }
            }
        }
    }
}
