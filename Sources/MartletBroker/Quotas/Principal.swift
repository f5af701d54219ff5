/// Who a connection belongs to, as Kafka writes it: `User:alice`.
package struct Principal: Hashable, Sendable, CustomStringConvertible {
    package var type: String
    package var name: String

    package init(type: String = "User", name: String) {
        self.type = type
        self.name = name
    }

    /// Everybody on a listener that authenticates nobody.
    package static let anonymous = Principal(name: "ANONYMOUS")

    package var description: String { "\(type):\(name)" }
}
