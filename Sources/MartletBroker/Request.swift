import MartletBasics
import MartletModel
import MartletReactor
import MartletWire

/// Why a request cannot be answered at all, and its connection is closed.
struct RequestFault: Error, CustomStringConvertible {
    var description: String
    init(_ description: String) { self.description = description }
}

/// The header of a frame, its client id still in place.
package struct FrameHeader {
    package var apiKey: Int16
    package var apiVersion: Int16
    package var correlationID: Int32
    /// Nil where the client gave none.
    var clientID: ByteRange?

    package init(apiKey: Int16, apiVersion: Int16, correlationID: Int32) {
        self.apiKey = apiKey
        self.apiVersion = apiVersion
        self.correlationID = correlationID
    }

    /// Room for an answer's size, then its header.
    func beginAnswer(_ buffer: inout ByteBuffer) {
        buffer.int32(0)
        buffer.int32(correlationID)
        if ApiKey(rawValue: apiKey)?.responseHeaderVersion(apiVersion) ?? 0 >= 1 { buffer.uvarint(0) }
    }

    init(_ reader: inout ByteReader) throws {
        apiKey = try reader.int16()
        apiVersion = try reader.int16()
        correlationID = try reader.int32()
        let flexible = ApiKey(rawValue: apiKey).map { $0.requestHeaderVersion(apiVersion) >= 2 } ?? false
        let length = try reader.int16()
        guard length >= -1 else { throw RequestFault("a client id of length \(length)") }
        clientID = length < 0 ? nil : try reader.range(Int(length))
        if flexible { try reader.skipTaggedFields() }
    }
}

/// A request other than produce, whose turn it is: nothing else of its connection is under way.
struct Request {
    let header: FrameHeader
    /// Stands at the body. The bytes live until the handler returns.
    var reader: ByteReader
    let connection: Connection

    var version: Int16 { header.apiVersion }
    var broker: Broker { connection.broker }
    var clientID: String? { header.clientID.map { String(decoding: reader.bytes(in: $0), as: UTF8.self) } }

    func decode<R: WireRequest>(_: R.Type) throws -> R {
        var body = reader
        return try R.decode(from: &body, version: version)
    }

    /// Answers now.
    func answer<R: WireResponse>(_ response: R) throws {
        try connection.encode(response, for: header)
    }

    /// Promises an answer for later: until then the connection's other requests wait.
    func later() -> Responder {
        connection.block()
        return Responder(header: header, connection: connection)
    }
}

/// The right, and the duty, to answer one request that is waited for. On its connection's loop.
final class Responder: @unchecked Sendable {
    let header: FrameHeader
    let connection: Connection
    private var isAnswered = false

    fileprivate init(header: FrameHeader, connection: Connection) {
        self.header = header
        self.connection = connection
    }

    deinit { precondition(isAnswered || connection.isClosed, "every request is answered once") }

    func answer<R: WireResponse>(_ response: R) {
        let began = connection.broker.clock.now
        defer { connection.countRequestTime(since: began) }
        finish { try connection.encode(response, for: header) }
    }

    /// Answers by writing to the connection's outbox; what it throws closes the connection.
    func finish(_ write: () throws -> Void) {
        precondition(!isAnswered, "a request is answered once")
        isAnswered = true
        guard !connection.isClosed else { return }
        do {
            try write()
            connection.noteUnsent()
            connection.unblock()
        } catch {
            connection.close("an answer that cannot be encoded", error)
        }
    }

    /// Ends without an answer: the connection is closed.
    func fail(_ reason: String) {
        isAnswered = true
        connection.close(reason)
    }
}

extension Connection {
    /// Appends a whole answer to what is sent: size, header, body.
    func encode<R: WireResponse>(_ response: R, for header: FrameHeader) throws {
        let response = limits == nil ? response : response.throttled(forMs: settleWait())
        try encode(header) { (buffer, errors) in
            try response.encode(into: &buffer, version: header.apiVersion)
            response.collectErrors(&errors)
        }
    }

    /// The same of a body that is written by hand, and of the errors that it tells.
    func encode(_ header: FrameHeader, _ write: (inout ByteBuffer, inout ErrorCodes) throws -> Void) throws {
        let start = outbox.bytes.count
        header.beginAnswer(&outbox.bytes)
        var errors = ErrorCodes()
        do {
            try write(&outbox.bytes, &errors)
        } catch {
            outbox.bytes.truncate(to: start)
            throw error
        }
        outbox.bytes.patch(Int32(outbox.bytes.count - start - 4), at: start)
        shared.answered(header.apiKey, bytes: outbox.bytes.count - start, began: lastActive, errors)
        noteUnsent()
    }
}
