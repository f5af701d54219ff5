package import MartletBasics

/// What stands before a request in its frame:
///
///     apiKey int16, apiVersion int16, correlationId int32      header 0 (ControlledShutdown 0 alone)
///     clientId: int16 length, -1 null, in flexible versions too     and header 1
///     tagged fields                                                 and header 2
package struct RequestHeader: Equatable, Sendable {
    package var apiKey: Int16
    package var apiVersion: Int16
    package var correlationID: Int32
    package var clientID: String?

    package init(apiKey: Int16, apiVersion: Int16, correlationID: Int32, clientID: String?) {
        self.apiKey = apiKey
        self.apiVersion = apiVersion
        self.correlationID = correlationID
        self.clientID = clientID
    }

    /// The API, where the key is one that a schema describes.
    package var api: ApiKey? { ApiKey(rawValue: apiKey) }

    /// Reads a header. That of an unknown key is read up to the correlation id, since nobody can say what follows; one
    /// of an unknown version of a known API as that of the nearest version, because an ApiVersions request from the
    /// future is answered, and Kafka closes the connection if even its header cannot be read.
    package static func decode(from reader: inout ByteReader) throws(DecodingFault) -> RequestHeader {
        var header = RequestHeader(
            apiKey: try reader.int16(), apiVersion: try reader.int16(), correlationID: try reader.int32(),
            clientID: nil)
        if header.apiKey == ExplainApi.key {
            header.clientID = try reader.nullableString(flexible: false)
            return header
        }
        guard let api = header.api else { return header }
        let version = api.requestHeaderVersion(header.apiVersion)
        if version >= 1 { header.clientID = try reader.nullableString(flexible: false) }
        if version >= 2 { try reader.skipTaggedFields() }
        return header
    }

    package func encode(into buffer: inout ByteBuffer) throws(EncodingFault) {
        guard api != nil || apiKey == ExplainApi.key else { throw .unsupportedVersion("API \(apiKey)", version: apiVersion) }
        buffer.int16(apiKey)
        buffer.int16(apiVersion)
        buffer.int32(correlationID)
        let version = api?.requestHeaderVersion(apiVersion) ?? 1
        if version >= 1 {
            try buffer.nullableString(clientID, flexible: false, field: "RequestHeader.ClientId")
        }
        if version >= 2 { buffer.uvarint(0) }
    }
}

/// What stands before a response in its frame: `correlationId int32`, and tagged fields in header 1.
package struct ResponseHeader: Equatable, Sendable {
    package var correlationID: Int32

    package init(correlationID: Int32) { self.correlationID = correlationID }

    /// `version` is the header's own, from `ApiKey.responseHeaderVersion`.
    package static func decode(from reader: inout ByteReader, version: Int16) throws(DecodingFault) -> ResponseHeader {
        let header = ResponseHeader(correlationID: try reader.int32())
        if version >= 1 { try reader.skipTaggedFields() }
        return header
    }

    package func encode(into buffer: inout ByteBuffer, version: Int16) {
        buffer.int32(correlationID)
        if version >= 1 { buffer.uvarint(0) }
    }
}
