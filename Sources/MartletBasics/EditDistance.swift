/// How many letters must be put in, taken out, changed, or swapped with their neighbour to turn one word into the
/// other; nil where it is more than `limit`.
package func editDistance(_ a: String, _ b: String, limit: Int) -> Int? {
    let a = Array(a.utf8), b = Array(b.utf8)
    guard abs(a.count - b.count) <= limit else { return nil }
    var beforePrevious = [Int](repeating: 0, count: b.count + 1)
    var previous = Array(0...b.count)
    var current = beforePrevious
    for i in 0..<a.count {
        current[0] = i + 1
        var least = current[0]
        for j in 0..<b.count {
            var cost = min(previous[j + 1] + 1, current[j] + 1, previous[j] + (a[i] == b[j] ? 0 : 1))
            if i > 0, j > 0, a[i] == b[j - 1], a[i - 1] == b[j] { cost = min(cost, beforePrevious[j - 1] + 1) }
            current[j + 1] = cost
            least = min(least, cost)
        }
        if least > limit { return nil }
        (beforePrevious, previous, current) = (previous, current, beforePrevious)
    }
    return previous[b.count] <= limit ? previous[b.count] : nil
}

/// The name that someone who typed `word` may have meant: the nearest, the first of equals; nil if none is near.
package func nearestName(to word: String, among names: some Sequence<String>) -> String? {
    let longestWord = 200
    guard !word.isEmpty, word.utf8.count <= longestWord else { return nil }
    // A third of the letters wrong is another word.
    var limit = max(1, word.utf8.count / 3)
    var nearest: String?
    for name in names {
        guard let distance = editDistance(word, name, limit: limit) else { continue }
        if distance == 0 { return name }
        nearest = name
        limit = distance - 1
    }
    return nearest
}
