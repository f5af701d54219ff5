package import MartletBasics
package import MartletModel

/// What a group or a topic waits for: asked of a broker by `martlet … describe --why`.
///
/// An API of our own, under a key far beyond Kafka's, and advertised to nobody but our client. Written by hand, for the
/// schemas are Kafka's.
///
///     request   Kind int8 (0 group, 1 topic), Name string
///     response  ErrorCode int16, Reasons [Code string, Subject string, Text string, SinceMs int64, LeftMs int64]
package enum ExplainApi {
    package static let key: Int16 = 21_000
    package static let versions: ClosedRange<Int16> = 0...0
}

package struct ExplainRequest: WireRequest {
    package typealias Response = ExplainResponse

    package enum Kind: Int8, Sendable {
        case group, topic
    }

    package static var apiKey: Int16 { ExplainApi.key }
    package static var versions: ClosedRange<Int16> { ExplainApi.versions }
    package static func isFlexible(_: Int16) -> Bool { false }

    package var kind = Kind.group
    package var name = ""

    package init() {}

    package init(_ kind: Kind, _ name: String) {
        self.kind = kind
        self.name = name
    }

    package static func decode(from reader: inout ByteReader, version: Int16) throws(DecodingFault) -> Self {
        var value = Self()
        guard let kind = Kind(rawValue: try reader.int8()) else {
            throw .malformed("there is no such thing to be explained", at: reader.position)
        }
        value.kind = kind
        value.name = try reader.string(flexible: false)
        return value
    }

    package func encode(into buffer: inout ByteBuffer, version: Int16, frame: UnsafeRawBufferPointer?) throws(EncodingFault) {
        buffer.int8(kind.rawValue)
        try buffer.string(name, flexible: false, field: "ExplainRequest.Name")
    }

    /// Nothing of this message lies in the frame.
    package mutating func ownBytes(of frame: UnsafeRawBufferPointer) {}
}

package struct ExplainResponse: WireResponse {
    package struct Reason: Equatable, Sendable {
        /// What kind of reason it is, in a word that stays: `member-not-joined`.
        package var code = ""
        /// Whom it is about: a member, a partition, a client.
        package var subject = ""
        package var text = ""
        /// Milliseconds since 1970; -1 where that is not known.
        package var sinceMs: Int64 = -1
        /// When it ends by itself, in so many milliseconds; -1 where it does not.
        package var leftMs: Int64 = -1

        package init() {}
    }

    package static var apiKey: Int16 { ExplainApi.key }
    package static var versions: ClosedRange<Int16> { ExplainApi.versions }
    package static func isFlexible(_: Int16) -> Bool { false }

    package var errorCode = ErrorCode.none
    package var reasons: [Reason] = []

    package init() {}

    package static func decode(from reader: inout ByteReader, version: Int16) throws(DecodingFault) -> Self {
        var value = Self()
        value.errorCode = ErrorCode(rawValue: try reader.int16())
        let count = try reader.arrayCount(flexible: false, minimum: 22, stride: MemoryLayout<Reason>.stride)
        for _ in 0..<count {
            var reason = Reason()
            reason.code = try reader.string(flexible: false)
            reason.subject = try reader.string(flexible: false)
            reason.text = try reader.string(flexible: false)
            reason.sinceMs = try reader.int64()
            reason.leftMs = try reader.int64()
            value.reasons.append(reason)
        }
        return value
    }

    package func encode(into buffer: inout ByteBuffer, version: Int16, frame: UnsafeRawBufferPointer?) throws(EncodingFault) {
        buffer.int16(errorCode.rawValue)
        buffer.arrayCount(reasons.count, flexible: false)
        for reason in reasons {
            try buffer.string(reason.code, flexible: false, field: "ExplainResponse.Code")
            try buffer.string(reason.subject, flexible: false, field: "ExplainResponse.Subject")
            try buffer.string(reason.text, flexible: false, field: "ExplainResponse.Text")
            buffer.int64(reason.sinceMs)
            buffer.int64(reason.leftMs)
        }
    }

    package mutating func ownBytes(of frame: UnsafeRawBufferPointer) {}

    package func collectErrors(_ found: inout ErrorCodes) {
        if errorCode != .none { found.append(errorCode) }
    }
}
