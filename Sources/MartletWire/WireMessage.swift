package import MartletBasics
package import MartletModel

/// A request or a response: what follows the header in a frame. The types are generated from `Schemas/apis`.
package protocol WireMessage: Equatable, Sendable {
    static var apiKey: Int16 { get }
    /// The versions that can be read and written; `AdvertisedVersions` says which are offered.
    static var versions: ClosedRange<Int16> { get }
    static func isFlexible(_ version: Int16) -> Bool

    /// Every field at its default.
    init()

    /// Decodes from where the reader stands. `WireBytes` of the result are ranges of the reader's bytes. What follows
    /// the message is left unread, which Kafka accepts.
    static func decode(from reader: inout ByteReader, version: Int16) throws(DecodingFault) -> Self

    /// Appends the message. `frame` is what a decoded message's `WireBytes` are ranges of. After a fault what was
    /// appended is to be dropped: it is the start of a message.
    func encode(
        into buffer: inout ByteBuffer, version: Int16, frame: UnsafeRawBufferPointer?
    ) throws(EncodingFault)

    /// Copies the bytes that lie in the frame, so that the message can outlive it.
    mutating func ownBytes(of frame: UnsafeRawBufferPointer)
}

extension WireMessage {
    @inlinable
    package func encode(into buffer: inout ByteBuffer, version: Int16) throws(EncodingFault) {
        try encode(into: &buffer, version: version, frame: nil)
    }
}

package protocol WireRequest: WireMessage {
    associatedtype Response: WireResponse
}

package protocol WireResponse: WireMessage {
    /// Adds every error code other than `none` that the response carries, in the order of its fields.
    func collectErrors(_ found: inout ErrorCodes)
}

extension WireResponse {
    /// Of a response that has none.
    package func collectErrors(_: inout ErrorCodes) {}
}

/// The error codes of one response.
package struct ErrorCodes: Sendable {
    package private(set) var all: [ErrorCode] = []

    package init() {}

    package mutating func append(_ code: ErrorCode) { all.append(code) }
}
