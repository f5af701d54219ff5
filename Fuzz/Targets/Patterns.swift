import MartletBasics
import MartletBroker

/// The size of the expression, then the expression and a name: what a subscription by expression is made of. An
/// expression that explodes is one that the fuzzer's own limit of time finds.
func fuzzPattern(_ input: inout FuzzInput) {
    let expression = String(decoding: input.take(Int(UInt16(bitPattern: input.int16()) & 0x1FFF)), as: UTF8.self)
    let name = [UInt8](input.rest().prefix(249))
    guard let pattern = try? TopicPattern(expression) else { return }
    precondition(pattern.text == expression, "an expression says that it is another")
    let names = ["", "t", String(repeating: "a", count: 249), String(decoding: name, as: UTF8.self)]
    precondition(pattern.matching(names) == names.filter(pattern.matches), "an expression that is asked twice answers twice")
    // one that a group around it does not change
    guard expression.utf8.count < 2_000, let grouped = try? TopicPattern("(?:" + expression + ")") else { return }
    // `\Q` without an end, and flags, reach to the end of the expression
    guard !expression.contains("\\Q"), !expression.contains("(?") else { return }
    precondition(grouped.matching(names) == pattern.matching(names), "an expression in a group is another one")
}
