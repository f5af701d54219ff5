/// Some requests name a thing in a few bytes and are answered with thousands: named again and again, they would
/// fill the memory. What an answer may come to is bounded; who asks for more is not answered, and its connection closed.
struct AnswerBudget {
    static let bytesLimit = 64 << 20

    private var left = bytesLimit

    /// Takes the cost of one more part of the answer.
    mutating func take(_ bytes: Int) throws(RequestFault) {
        left -= bytes
        guard left >= 0 else { throw RequestFault("it asks for an answer of more than \(Self.bytesLimit) bytes") }
    }
}
